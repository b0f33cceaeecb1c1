//! What is published arrives in one order, whole and once: under several publishers, across reconnects, for large events, for many topics.

use crate::{
    Engine, on_every_engine,
    reader::Reader,
    running::{PATIENCE, Running},
};
use std::sync::Arc;
use tidings::{Config, Event};
use tokio::time::timeout;

on_every_engine!(one_order, resuming, a_large_event, many_topics);

/// Z-3, Z-6: one order for everybody, in which each publisher's events keep theirs.
async fn one_order(engine: Engine) {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 750;
    let running = Running::start(engine, Config::default());
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = Reader::open(&running, "/subscribe/t").await;
        readers.push(tokio::spawn(async move {
            reader.events(PUBLISHERS * EACH).await;
            reader
        }));
    }
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let hub = running.hub.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    hub.publish(Event::new("t/x", format!("{publisher}-{n}")).unwrap()).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut orders = Vec::new();
    for reader in readers {
        let reader = timeout(PATIENCE, reader).await.expect("everybody gets everything").unwrap();
        assert_eq!(reader.connects, 1);
        // Ids carry positions, so their order is the log's.
        let ids: Vec<_> = reader.messages().map(|message| message.id.clone()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "no event comes twice or late");
        orders.push(reader.data().map(str::to_owned).collect::<Vec<_>>());
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order for everybody");
    for publisher in 0..PUBLISHERS {
        let of_one = orders[0].iter().filter(|data| data.starts_with(&format!("{publisher}-")));
        assert!(of_one.cloned().eq((0..EACH).map(|n| format!("{publisher}-{n}"))), "publisher {publisher}");
    }
}

/// S-21, N-12: a reader that is cut again and again while publishing goes on comes back with its cursor, misses nothing and gets nothing twice.
async fn resuming(engine: Engine) {
    const EVENTS: usize = 2_000;
    let running = Arc::new(Running::start(engine, Config::default()));
    let mut reader = Reader::open(&running, "/subscribe/t").await;
    let publisher = tokio::spawn({
        let running = running.clone();
        async move {
            for n in 0..EVENTS {
                running.publish("t", &n.to_string()).await;
                // What nobody here asked for stands between.
                running.publish("other", "x").await;
            }
        }
    });
    for cut in 1..=20 {
        reader.events(cut * EVENTS / 25).await;
        let cursor = reader.last_event_id().to_owned();
        reader.leave();
        reader.connect().await;
        assert_eq!(reader.headers["mercure-last-event-id"], *cursor, "the answer says where the stream goes on (M-91)");
    }
    reader.events(EVENTS).await;
    publisher.await.unwrap();
    assert!(reader.data().eq((0..EVENTS).map(|n| n.to_string())));
    assert_eq!(reader.connects, 21);
}

/// An event far larger than anything on its way to the reader arrives whole, with those around it, and no other reader waits for that.
async fn a_large_event(engine: Engine) {
    let running = Running::start(engine, Config::default());
    let mut slow = Reader::open_narrow(&running, "/subscribe/t").await;
    let mut quick = Reader::open(&running, "/subscribe/t").await;
    // No two places in it are alike, and it has lines to be taken apart and put together.
    let large: String = (0..).flat_map(|n: u32| format!("{n}\n").into_bytes()).take(1 << 20).map(char::from).collect();
    running.publish("t", "before").await;
    running.publish("t", &large).await;
    running.publish("t", "after").await;
    for reader in [&mut quick, &mut slow] {
        reader.events(3).await;
        let data: Vec<_> = reader.data().collect();
        assert_eq!((data[0], data[2], data[1].len()), ("before", "after", 1 << 20));
        assert!(data[1] == large, "whole");
        assert_eq!(reader.connects, 1);
    }
}

/// N-10: each of many readers, each on a topic of its own, gets what was published there and nothing else; who asked for all gets all.
async fn many_topics(engine: Engine) {
    const TOPICS: usize = 100;
    let running = Running::start(engine, Config::default());
    let mut all = Reader::open(&running, "/subscribe/rooms").await;
    let mut readers = Vec::new();
    for n in 0..TOPICS {
        readers.push(Reader::open(&running, &format!("/subscribe?topic=rooms/{n}")).await);
    }
    for n in (0..TOPICS).chain((0..TOPICS).rev()) {
        running.publish(&format!("rooms/{n}"), &n.to_string()).await;
    }
    for (n, reader) in readers.iter_mut().enumerate() {
        reader.events(2).await;
        assert!(reader.data().eq([n.to_string(), n.to_string()]));
    }
    all.events(2 * TOPICS).await;
    assert!(all.data().eq((0..TOPICS).chain((0..TOPICS).rev()).map(|n| n.to_string())));
    running.wait_for("tidings_deliveries_total", 4 * TOPICS as u64).await;
}
