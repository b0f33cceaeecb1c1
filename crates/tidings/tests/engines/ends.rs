//! How streams end: at their age, with the hub, with a shard that fails; each so that its reader knows what it was and comes back without loss.

use crate::{
    Engine, on_every_engine,
    reader::{End, Reader},
    running::{PATIENCE, Running, attentive, wait_until},
};
use std::{sync::Arc, time::Duration};
use tidings::{Config, Item};
use tokio::time::timeout;

on_every_engine!(maximum_age, draining, a_failed_shard, a_dropped_hub);

/// N-17, S-42, S-43, N-13a: a planned end comes after whole events, moves the cursor of a reader of a quiet topic, says when to come back,
/// and is clean or not, as its reader asked.
async fn maximum_age(engine: Engine) {
    let mut config = attentive();
    config.max_age = Some(Duration::from_millis(500));
    let running = Arc::new(Running::start(engine, config));
    for (style, expected) in [("clean", End::Clean), ("abort", End::Abort)] {
        let mut reader = Reader::open(&running, &format!("/subscribe/t?end={style}")).await;
        running.publish("t", "x").await;
        reader.events(1).await;
        let elsewhere = running.publish("other", "y").await;
        assert_eq!(reader.end().await, expected, "{style}");
        let last: Vec<_> = reader.items.iter().rev().take(2).collect();
        assert!(matches!(last[0], Item::Retry(2_000..=5_000)), "{style}: {last:?}");
        assert_eq!(*last[1], Item::Cursor(elsewhere.to_string()), "{style}");
        running.publish("t", "missed").await;
        reader.events(2).await;
        assert!(reader.data().eq(["x", "missed"]), "{style}");
    }
    wait_until("both are counted", || running.metric("tidings_closed_total{reason=\"age\"}") >= 2).await;
}

/// N-16, N-17, Z-1: the hub stops; everybody gets everything that was published before, a time to come back, and the end asked for.
async fn draining(engine: Engine) {
    const READERS: usize = 12;
    let running = Running::start(engine, attentive());
    let mut readers = Vec::new();
    for n in 0..READERS {
        let style = if n % 2 == 0 { "clean" } else { "abort" };
        readers.push(Reader::open(&running, &format!("/subscribe/t?end={style}")).await);
    }
    for n in 0..100 {
        running.publish("t", &n.to_string()).await;
    }
    let reading = tokio::spawn(async move {
        let mut ends = Vec::new();
        for reader in &mut readers {
            ends.push(reader.end().await);
        }
        (readers, ends)
    });
    timeout(PATIENCE, running.hub.shut_down(PATIENCE)).await.expect("it stops");
    let (readers, ends) = timeout(PATIENCE, reading).await.expect("all end").unwrap();
    for (n, (reader, end)) in readers.iter().zip(ends).enumerate() {
        assert_eq!(end, if n % 2 == 0 { End::Clean } else { End::Abort }, "reader {n}");
        assert!(reader.data().eq((0..100).map(|n| n.to_string())), "reader {n}");
        assert!(matches!(reader.items.last(), Some(Item::Retry(_))), "reader {n}");
    }
    running.wait_for("tidings_closed_total{reason=\"drain\"}", READERS as u64).await;
    assert_eq!(running.hub.subscribers(), 0);
}

/// Z-15: a shard fails; its readers come back and miss nothing, the others notice nothing.
async fn a_failed_shard(engine: Engine) {
    const READERS: usize = 8;
    const EVENTS: usize = 900;
    let mut config = Config::default();
    config.shards = 2;
    let running = Running::start(engine, config);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Reader::open(&running, "/subscribe/t").await;
        readers.push(tokio::spawn(async move {
            reader.events(EVENTS).await;
            reader
        }));
    }
    for n in 0..EVENTS {
        if n == EVENTS / 3 {
            running.hub.fail_shard(0);
        }
        if n == EVENTS * 2 / 3 {
            // A shard in the middle of a turn might deliver all there is before it hears that it fails; of the last third it cannot.
            running.wait_for("tidings_shard_failures_total", 1).await;
        }
        running.publish("t", &n.to_string()).await;
    }
    let mut came_back = 0;
    for reader in readers {
        let reader = timeout(PATIENCE, reader).await.expect("everybody gets everything").unwrap();
        assert!(reader.data().eq((0..EVENTS).map(|n| n.to_string())), "{:?}", reader.data().collect::<Vec<_>>());
        came_back += reader.connects - 1;
    }
    assert_eq!(came_back, READERS / 2);
    running.wait_for("tidings_closed_total{reason=\"failed\"}", (READERS / 2) as u64).await;
}

/// A hub that is dropped with its server breaks its streams off; no reader waits for ever, or takes it for a proper end.
async fn a_dropped_hub(engine: Engine) {
    let running = Running::start(engine, Config::default());
    let mut reader = Reader::open(&running, "/subscribe/t").await;
    running.publish("t", "x").await;
    reader.events(1).await;
    running.serving.abort();
    drop(running);
    assert_eq!(reader.end().await, End::Abort);
}
