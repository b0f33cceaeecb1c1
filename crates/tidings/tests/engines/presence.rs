//! Presence (M-97): however a subscription on the Mercure path ends, and whoever carried it, its end is told; once, and after its beginning.

use crate::{
    Engine, on_every_engine,
    reader::Reader,
    running::{PATIENCE, Running, attentive, wait_until},
};
use std::time::Duration;
use tidings::{Config, Cursor, Subscription, TopicMatcher};
use tokio::time::timeout;

on_every_engine!(clients_who_leave, ages, a_failed_shard, a_drain, a_reader_that_does_not_read);

const SUBSCRIPTIONS: &str = "tidings_presence_subscriptions";

fn telling(mut config: Config) -> Config {
    config.subscriptions = true;
    config
}

async fn wait_for_subscriptions(running: &Running, count: u64) {
    wait_until("subscriptions", || running.metric(SUBSCRIPTIONS) == count && running.metric("tidings_presence_waiting") == 0).await;
}

/// Everything that was told: matchers, each with whether it is active, in the order of the log.
async fn told(running: &Running) -> Vec<(String, bool)> {
    running.publish("end", "end").await;
    let all = Subscription::new(TopicMatcher::all()).from_cursor(Cursor::Earliest);
    let mut events = running.hub.subscribe(all).await.unwrap();
    let mut told = Vec::new();
    loop {
        let event = timeout(PATIENCE, events.next()).await.expect("in time").expect("the hub runs").expect("whole");
        match &*event.event_type {
            "mercure" => {
                let document: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                told.push((document["match"].as_str().unwrap().to_owned(), document["active"].as_bool().unwrap()));
            }
            _ if event.data == "end" => return told,
            _ => {}
        }
    }
}

fn each_once(names: &[&str]) -> Vec<(String, bool)> {
    let mut expected: Vec<_> = names.iter().flat_map(|name| [((*name).to_owned(), true), ((*name).to_owned(), false)]).collect();
    expected.sort();
    expected
}

async fn check(running: &Running, names: &[&str]) {
    let told = told(running).await;
    for name in names {
        let [begins, ends] = [true, false].map(|active| told.iter().position(|of| of.0 == *name && of.1 == active));
        assert!(begins < ends, "{name}: {told:?}");
    }
    let mut sorted = told;
    sorted.sort();
    assert_eq!(sorted, each_once(names));
}

async fn clients_who_leave(engine: Engine) {
    let running = Running::start(engine, telling(attentive()));
    let a = Reader::open(&running, "/.well-known/mercure?topic=a&match=a&topic=b").await;
    let c = Reader::open(&running, "/.well-known/mercure?match=c").await;
    wait_for_subscriptions(&running, 3).await;
    drop(a);
    wait_for_subscriptions(&running, 1).await;
    drop(c);
    wait_for_subscriptions(&running, 0).await;
    check(&running, &["a", "b", "c"]).await;
}

async fn ages(engine: Engine) {
    let mut config = telling(attentive());
    config.max_age = Some(Duration::from_millis(500));
    let running = Running::start(engine, config);
    let mut reader = Reader::open(&running, "/.well-known/mercure?match=a").await;
    reader.end().await;
    wait_for_subscriptions(&running, 0).await;
    check(&running, &["a"]).await;
}

async fn a_failed_shard(engine: Engine) {
    let mut config = telling(Config::default());
    config.shards = 1;
    let running = Running::start(engine, config);
    let mut reader = Reader::open(&running, "/.well-known/mercure?match=a").await;
    wait_for_subscriptions(&running, 1).await;
    running.hub.fail_shard(0);
    reader.end().await;
    wait_for_subscriptions(&running, 0).await;
    check(&running, &["a"]).await;
}

async fn a_drain(engine: Engine) {
    let running = Running::start(engine, telling(attentive()));
    let mut reader = Reader::open(&running, "/.well-known/mercure?match=a").await;
    wait_for_subscriptions(&running, 1).await;
    let reading = tokio::spawn(async move { reader.end().await });
    timeout(PATIENCE, running.hub.shut_down(PATIENCE)).await.expect("it stops");
    timeout(PATIENCE, reading).await.expect("it ends").unwrap();
    assert_eq!((running.metric(SUBSCRIPTIONS), running.metric("tidings_presence_waiting")), (0, 0), "told before draining is over");
}

async fn a_reader_that_does_not_read(engine: Engine) {
    let mut config = telling(attentive());
    config.stalled_write = Duration::from_millis(500);
    let running = Running::start(engine, config);
    let _lazy = Reader::open_narrow(&running, "/.well-known/mercure?match=a").await;
    wait_for_subscriptions(&running, 1).await;
    let publishing = async {
        while running.metric(SUBSCRIPTIONS) == 1 {
            running.publish("a", &"x".repeat(32 << 10)).await;
        }
    };
    timeout(PATIENCE, publishing).await.expect("it is given up");
    wait_for_subscriptions(&running, 0).await;
    check(&running, &["a"]).await;
}
