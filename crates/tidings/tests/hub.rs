//! A hub inside a process: what publishers are answered and readers receive, across gaps, failures and the end.

use std::time::Duration;
use tidings::{Config, Cursor, Event, EventStream, Grant, Hub, Message, PublishError, SubscribeError, Subscription, TopicMatcher, wire};

fn event(topic: &str, data: &str) -> Event {
    Event::new(topic, data).unwrap()
}

fn to(prefix: &str) -> Subscription {
    Subscription::new(TopicMatcher::prefix(prefix).unwrap())
}

async fn next(stream: &mut EventStream) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(10), stream.next());
    next.await.expect("an event within ten seconds").expect("the stream goes on").expect("the stream is whole")
}

async fn data(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        data.push(next(stream).await.data);
    }
    data
}

fn small_window(events: usize) -> Hub {
    let mut config = Config::default();
    config.window_events = events;
    config.lag_events = events as u64;
    Hub::builder().config(config).build().unwrap()
}

#[test]
fn a_hub_needs_a_runtime_and_says_so() {
    assert!(Hub::new().unwrap_err().to_string().contains("tokio runtime"));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let mut config = Config::default();
    config.shards = 0;
    assert!(Hub::builder().config(config).build().unwrap_err().to_string().contains("`shards`"));
}

/// Z-3, Z-6: one order for everybody, whoever publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_one_order() {
    let hub = Hub::new().unwrap();
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(hub.subscribe(to("t")).await.unwrap());
    }
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for n in 0..500 {
                    hub.publish(event("t/x", &format!("{publisher}-{n}"))).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let first = data(&mut streams[0], 2_000).await;
    for stream in &mut streams[1..] {
        assert_eq!(data(stream, 2_000).await, first);
    }
    for publisher in 0..4 {
        let of_one = first.iter().filter(|d| d.starts_with(&format!("{publisher}-")));
        assert!(of_one.cloned().eq((0..500).map(|n| format!("{publisher}-{n}"))), "each publisher's events keep their order");
    }
}

/// S-21, N-12: after an id comes exactly what follows it, by either kind of id, without `#` too.
#[tokio::test]
async fn resuming_by_id() {
    let hub = Hub::new().unwrap();
    let first = hub.publish(event("t", "1")).await.unwrap();
    hub.publish(event("t", "2").with_id("two").unwrap()).await.unwrap();
    hub.publish(event("other", "x")).await.unwrap();
    hub.publish(event("t", "3")).await.unwrap();
    for (cursor, expected) in [
        (Cursor::After(first.to_string()), vec!["2", "3"]),
        (Cursor::After(first.as_str()[1..].to_owned()), vec!["2", "3"]),
        (Cursor::After("two".into()), vec!["3"]),
        (Cursor::After("earliest".into()), vec!["1", "2", "3"]),
        (Cursor::Earliest, vec!["1", "2", "3"]),
    ] {
        let mut stream = hub.subscribe(to("t").from_cursor(cursor.clone())).await.unwrap();
        assert_eq!(data(&mut stream, expected.len()).await, expected, "{cursor:?}");
    }
}

/// N-12, N-13a: from a moment on, or with the newest events; whoever comes back without having seen one goes on from the same place.
#[tokio::test]
async fn beginning_without_an_id() {
    let hub = small_window(10);
    for n in 1..=8 {
        hub.publish(event(if n % 2 == 0 { "t" } else { "other" }, &n.to_string())).await.unwrap();
    }
    let mut stream = hub.subscribe(to("t").last(3)).await.unwrap();
    assert_eq!(data(&mut stream, 3).await, ["4", "6", "8"]);
    let mut stream = hub.subscribe(to("t").since(1)).await.unwrap();
    assert_eq!(data(&mut stream, 4).await, ["2", "4", "6", "8"]);
    let mut nothing = hub.subscribe(to("new").last(5)).await.unwrap();
    let mut future = hub.subscribe(to("new").since(u64::MAX)).await.unwrap();
    hub.publish(event("new", "now")).await.unwrap();
    assert_eq!((data(&mut nothing, 1).await, data(&mut future, 1).await), (vec!["now".to_owned()], vec!["now".to_owned()]));
    // Some of the events since then are gone.
    for n in 9..=12 {
        hub.publish(event("t", &n.to_string())).await.unwrap();
    }
    let mut stream = hub.subscribe(to("t").since(1)).await.unwrap();
    let gap = next(&mut stream).await;
    assert!(gap.event_type == wire::GAP_TYPE && gap.data.contains(r#""reason":"evicted","requested":"since=1""#), "{gap:?}");
    assert_eq!(data(&mut stream, 2).await, ["4", "6"]);
    let mut stream = hub.subscribe(to("new").since(1)).await.unwrap();
    assert_eq!(data(&mut stream, 1).await, ["now"], "nothing of this topic was lost");
}

/// N-14: what cannot be honoured is told, with what follows it; what was not lost is not.
#[tokio::test]
async fn gaps_are_told() {
    let hub = small_window(10);
    let first = hub.publish(event("a", "first")).await.unwrap();
    let rare = hub.publish(event("rare", "kept in mind")).await.unwrap();
    for n in 0..20 {
        hub.publish(event("a", &n.to_string())).await.unwrap();
    }
    let mut stream = hub.subscribe(to("a").after(first.to_string())).await.unwrap();
    let gap = next(&mut stream).await;
    assert_eq!(gap.event_type, wire::GAP_TYPE);
    let earliest = next(&mut stream).await;
    assert_eq!(earliest.data, "10");
    assert_eq!(gap.data, format!(r#"{{"earliest":"{}","reason":"evicted","requested":"{first}"}}"#, earliest.id));

    let mut stream = hub.subscribe(to("rare").after(rare.to_string())).await.unwrap();
    hub.publish(event("rare", "new")).await.unwrap();
    assert_eq!(next(&mut stream).await.data, "new", "nothing of this topic was lost, so there is no gap");

    for (cursor, reason) in [
        ("never-published".to_owned(), "unknown"),
        ("#00000000-0000000000000001".to_owned(), "epoch"),
        (format!("{}-{:016x}", &first.as_str()[..9], 999), "lost"),
    ] {
        let mut stream = hub.subscribe(to("a").after(cursor.clone())).await.unwrap();
        let gap = next(&mut stream).await;
        assert_eq!(gap.event_type, wire::GAP_TYPE);
        assert!(gap.data.contains(&format!(r#""reason":"{reason}","requested":"{cursor}""#)), "{}", gap.data);
    }
}

/// N-32: private events need a grant, and in process the hub has full rights.
#[tokio::test]
async fn private_events_need_a_grant() {
    let hub = Hub::new().unwrap();
    let mut full = hub.subscribe(to("t")).await.unwrap();
    let mut open = hub.with(Grant::open()).subscribe(to("t")).await.unwrap();
    hub.publish(event("t", "secret").private()).await.unwrap();
    hub.publish(event("t", "public")).await.unwrap();
    assert_eq!(data(&mut full, 2).await, ["secret", "public"]);
    assert_eq!(data(&mut open, 1).await, ["public"]);
    let refused = hub.with(Grant::reader()).publish(event("t", "x")).await;
    assert!(matches!(refused, Err(PublishError::Forbidden(_))));
    assert!(matches!(hub.with(Grant::full().until(1)).subscribe(to("t")).await, Err(SubscribeError::Expired)));
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_bounded() {
    let hub = small_window(100);
    let ids = hub.publish_batch((0..40).map(|n| event("t", &n.to_string())).collect()).await.unwrap();
    assert_eq!(ids.len(), 40);
    let too_many = hub.publish_batch((0..41).map(|n| event("t", &n.to_string())).collect()).await;
    assert!(matches!(too_many, Err(PublishError::BatchTooLarge { events: 40, .. })));
    let long = "x".repeat(tidings::limits::EVENT_DATA + 1);
    let refused = hub.publish_batch(vec![event("t", "fine"), event("t", &long)]).await;
    assert!(matches!(refused, Err(PublishError::DataTooLong { .. })));
    let info = hub.with(Grant::full()).topic(&tidings::Topic::parse("t").unwrap()).await.unwrap();
    assert_eq!(info.last_event_id.as_ref(), ids.last(), "nothing of the refused batches was kept");
}

/// Publishers much quicker than the shards wait for them, so that no shard loses its place however small the window is. They do not
/// wait for readers: one that is slower than the window is cut off or told of the gap, and never misses an event in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_wait_for_the_shards() {
    let hub = small_window(200);
    let mut stream = hub.subscribe(to("t")).await.unwrap();
    let reader = tokio::spawn({
        let hub = hub.clone();
        async move {
            let mut last = 0;
            while last < 20_000 {
                match tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("something within ten seconds") {
                    Some(Ok(message)) => {
                        let sequence = tidings::Position::parse(&message.id).expect("the hub's own id").sequence;
                        assert!(sequence > last || message.event_type == wire::GAP_TYPE, "in order, and once");
                        assert!(sequence == last + 1 || message.event_type == wire::GAP_TYPE, "after {last} came {sequence}");
                        last = sequence;
                    }
                    _ => stream = hub.subscribe(to("t").after(stream.last_event_id())).await.unwrap(),
                }
            }
        }
    });
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    hub.publish_batch((0..50).map(|_| event("t", "x")).collect()).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    reader.await.unwrap();
    assert!(hub.metrics().contains("tidings_shard_failures_total 0"), "no shard has lost its place: {}", hub.metrics());
}

/// Z-15: a shard that fails costs its own clients their connections, and nobody an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_shard_loses_nothing() {
    let mut config = Config::default();
    config.shards = 2;
    let hub = Hub::builder().config(config).build().unwrap();
    let mut streams = vec![hub.subscribe(to("t")).await.unwrap(), hub.subscribe(to("t")).await.unwrap()];
    hub.publish(event("t", "before")).await.unwrap();
    for stream in &mut streams {
        assert_eq!(next(stream).await.data, "before");
    }
    hub.fail_shard(0);
    let mut cut = 0;
    for stream in &mut streams {
        // The one on the failed shard ends, the other receives what comes next.
        let published = hub.publish(event("t", "after")).await.unwrap();
        match tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap() {
            Ok(message) => assert_eq!(message.data, "after"),
            Err(tidings::Aborted) => {
                cut += 1;
                let mut resumed = hub.subscribe(to("t").after(stream.last_event_id())).await.unwrap();
                assert!(loop {
                    let message = next(&mut resumed).await;
                    assert_eq!((&*message.event_type, &*message.data), ("message", "after"));
                    if message.id == published.as_str() {
                        break true;
                    }
                });
            }
        }
    }
    assert_eq!(cut, 1);
    assert!(hub.metrics().contains("tidings_shard_failures_total 1"));
}

/// Z-17: the end comes, is clean, and nothing new begins.
#[tokio::test]
async fn shutting_down_ends_streams() {
    let hub = Hub::new().unwrap();
    let mut stream = hub.subscribe(to("t")).await.unwrap();
    hub.publish(event("t", "last")).await.unwrap();
    let shut_down = tokio::spawn({
        let hub = hub.clone();
        async move { hub.shut_down(Duration::from_secs(20)).await }
    });
    assert_eq!(next(&mut stream).await.data, "last");
    assert!(tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().is_none());
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), shut_down).await.unwrap().unwrap();
    assert!(!hub.is_ready());
    assert!(matches!(hub.publish(event("t", "x")).await, Err(PublishError::ShuttingDown)));
    assert!(matches!(hub.subscribe(to("t")).await, Err(SubscribeError::ShuttingDown)));
}

/// A body nobody reads cannot hold the end up beyond the deadline.
#[tokio::test]
async fn shutting_down_never_hangs() {
    let hub = Hub::new().unwrap();
    let _never_read = hub.with(Grant::open()).open(to("t")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), hub.shut_down(Duration::from_millis(200))).await.unwrap();
}

/// A stream that was ended but is still held does not hold the end up, and afterwards every question has an answer.
#[tokio::test]
async fn after_the_end_nothing_hangs() {
    let hub = Hub::new().unwrap();
    let mut held = hub.subscribe(to("t")).await.unwrap();
    hub.publish(event("t", "x")).await.unwrap();
    assert_eq!(next(&mut held).await.data, "x");
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, hub.shut_down(Duration::from_mins(10))).await.expect("the held stream does not count");
    let topic = tidings::Topic::parse("t").unwrap();
    let full = hub.with(Grant::full());
    let info = tokio::time::timeout(patience, full.topic(&topic)).await.expect("an answer").unwrap();
    assert_eq!(info.subscribers, 0);
    assert!(held.next().await.is_none(), "its end was clean");
}

#[tokio::test]
async fn leaving_is_noticed() {
    let hub = Hub::new().unwrap();
    let stream = hub.subscribe(to("t")).await.unwrap();
    let topic = tidings::Topic::parse("t").unwrap();
    let count = async || hub.with(Grant::full()).topic(&topic).await.unwrap().subscribers;
    assert_eq!(count().await, 1);
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), async {
        while count().await != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the subscriber is gone");
}
