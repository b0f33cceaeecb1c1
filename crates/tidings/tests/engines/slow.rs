//! Readers that do not read, and streams on which nothing happens: who is given up, who is told of a gap, who hears a heartbeat, and how
//! it is counted.

use crate::{
    Engine, on_every_engine,
    reader::{End, Reader},
    running::{PATIENCE, Running, attentive, wait_until},
};
use std::time::Duration;
use tidings::{Config, Item, LagPolicy, wire};
use tokio::time::timeout;

on_every_engine!(lag_disconnects, lag_makes_a_gap, a_stalled_write, heartbeats);

/// Bytes of each event to readers that do not read.
const LEN: usize = 32 << 10;

/// Events that are told apart by their first line.
fn large(n: usize) -> String {
    format!("{n}\n{}", "x".repeat(LEN))
}

fn numbers(reader: &Reader) -> Vec<usize> {
    reader.data().map(|data| data.lines().next().unwrap().parse().unwrap()).collect()
}

/// Bounds that are reached soon, and looked at often.
fn short_lag(policy: LagPolicy) -> Config {
    let mut config = attentive();
    (config.lag_events, config.lag_policy) = (20, policy);
    config
}

/// A reader that is live and does not read, and one that reads all along, while events are published until this is counted.
async fn publish_until(running: &Running, counted: &str) -> (Reader, Reader, usize) {
    let mut lazy = Reader::open_narrow(running, "/subscribe/t").await;
    let mut busy = Reader::open(running, "/subscribe/t").await;
    running.publish("t", &large(0)).await;
    lazy.events(1).await;
    let mut published = 1;
    let publishing = async {
        while running.metric(counted) == 0 {
            running.publish("t", &large(published)).await;
            published += 1;
            busy.events(published).await;
        }
    };
    timeout(PATIENCE, publishing).await.unwrap_or_else(|_| panic!("not counted: {counted}\n{}", running.hub.metrics()));
    assert_eq!(busy.connects, 1, "who reads notices nothing");
    assert!(numbers(&busy).into_iter().eq(0..published));
    (lazy, busy, published)
}

/// Lag policy `disconnect`: broken off inside of the response, counted, and everything is there when the reader comes back.
async fn lag_disconnects(engine: Engine) {
    let running = Running::start(engine, short_lag(LagPolicy::Disconnect));
    let (mut lazy, _busy, published) = publish_until(&running, "tidings_closed_total{reason=\"lagged\"}").await;
    running.wait_for("tidings_connections", 1).await;
    assert_eq!(lazy.end().await, End::Abort, "a reader that was cut must not take it for the end (N-17)");
    let had = lazy.data().count();
    assert!(had < published, "it has read {had} of {published}");
    lazy.events(published).await;
    assert!(numbers(&lazy).into_iter().eq(0..published), "{:?}", numbers(&lazy));
    assert_eq!(lazy.connects, 2);
    assert_eq!(running.metric("tidings_closed_total{reason=\"lagged\"}"), 1);
}

/// Lag policy `gap`: it stays, is told what it missed before the first event that follows, and goes on from there.
async fn lag_makes_a_gap(engine: Engine) {
    let running = Running::start(engine, short_lag(LagPolicy::Gap));
    let gap = |items: &[Item]| items.iter().any(|item| matches!(item, Item::Message(message) if message.event_type == wire::GAP_TYPE));
    let mut lazy = Reader::open_narrow(&running, "/subscribe/t").await;
    running.publish("t", &large(0)).await;
    lazy.events(1).await;
    let mut published = 1;
    // Far more than every buffer and bound on the way hold; nothing is heard of the gap before it can be written.
    while published < 300 {
        running.publish("t", &large(published)).await;
        published += 1;
    }
    lazy.until(gap).await;
    running.publish("t", &large(published)).await;
    lazy.until(|items| matches!(items.last(), Some(Item::Message(message)) if message.data.starts_with(&format!("{published}\n")))).await;

    // Reading on slowly it may fall behind once more: between two gaps it gets everything, whatever the number.
    let sequence = |id: &str| u64::from_str_radix(&id[10..26], 16).unwrap();
    let (mut next, mut gaps) = (0, 0);
    let messages: Vec<_> = lazy.messages().collect();
    for (at, message) in messages.iter().enumerate() {
        if message.event_type != wire::GAP_TYPE {
            let number: usize = message.data.lines().next().unwrap().parse().unwrap();
            let after_gap = at > 0 && messages[at - 1].event_type == wire::GAP_TYPE;
            assert!(if after_gap { number > next } else { number == next }, "{number} after {next}");
            next = number + 1;
            continue;
        }
        gaps += 1;
        let (before, after) = (messages[at - 1], messages[at + 1]);
        // Nothing may have followed yet, and what did may be out of reach when there is room again: then another gap comes.
        let is_gap = after.event_type == wire::GAP_TYPE;
        let earliest = if message.data.contains("null") { "null".to_owned() } else { format!("{:?}", after.id) };
        let (told, requested) = message.data.split_once(r#","reason":"lagged","requested":""#).unwrap();
        assert!(is_gap || told == format!(r#"{{"earliest":{earliest}"#), "{told} before {}", after.id);
        assert_eq!(sequence(requested), sequence(&before.id), "what it had");
        assert!(is_gap || sequence(&message.id) + 1 == sequence(&after.id), "where it goes on");
    }
    assert_eq!(next, published + 1);
    running.wait_for("tidings_gaps_total{reason=\"lagged\"}", gaps).await;
    assert_eq!((lazy.connects, running.metric("tidings_closed_total{reason=\"lagged\"}")), (1, 0));
}

/// S-28: a reader that takes no byte is given up, and its connection with it.
async fn a_stalled_write(engine: Engine) {
    let mut config = attentive();
    config.stalled_write = Duration::from_millis(400);
    let running = Running::start(engine, config);
    // Over HTTP/1.1 the HTTP library's connection sees it too, and gives the client up when it is first.
    let reasons: &[&str] = if engine == Engine::Body { &["stalled", "client"] } else { &["stalled"] };
    let mut lazy = Reader::open_narrow(&running, "/subscribe/t").await;
    let mut busy = Reader::open(&running, "/subscribe/t").await;
    for n in 0..40 {
        running.publish("t", &large(n)).await;
    }
    busy.events(40).await;
    wait_until("it is given up", || running.hub.subscribers() == 1).await;
    let given_up = || reasons.iter().map(|reason| running.metric(&format!("tidings_closed_total{{reason=\"{reason}\"}}"))).sum::<u64>();
    wait_until("it is counted", || given_up() == 1).await;
    assert_eq!(lazy.end().await, End::Abort);
    let had = lazy.data().count();
    assert!(had < 40, "it had all of it");
    lazy.leave();
    wait_until("its connection is gone", || running.server.connections() == 1).await;
    lazy.events(40).await;
    assert!(numbers(&lazy).into_iter().eq(0..40));
    assert_eq!((busy.connects, lazy.connects), (1, 2));
}

/// S-24, S-26: on a stream where nothing happens come comments, or events for who cannot see those.
async fn heartbeats(engine: Engine) {
    let running = Running::start(engine, attentive());
    let mut comments = Reader::open(&running, "/subscribe/t").await;
    let mut events = Reader::open(&running, "/subscribe/t?heartbeat_form=event").await;
    let comment = |item: &Item| *item == Item::Comment("hb".to_owned());
    let event = |item: &Item| matches!(item, Item::Message(message) if message.event_type == "tidings.heartbeat" && message.data == "{}");
    comments.until(|items| items.iter().filter(|item| comment(item)).count() == 2).await;
    events.until(|items| items.iter().filter(|item| event(item)).count() == 2).await;
    assert!(!comments.items.iter().any(event) && !events.items.iter().any(comment));
    // They move no cursor.
    let id = running.publish("t", "x").await;
    for reader in [&mut comments, &mut events] {
        reader.events(1).await;
        assert_eq!(reader.last_event_id(), id.as_str());
    }
}
