//! What a delivery and a quiet subscriber cost in memory, counted by an allocator: a regression fails here, whatever the machine.
//!
//! It counts the core only; sockets and bodies have their sizes asserted where they are defined.

use allocation_counter::measure;
use bytes::Bytes;
use std::sync::Arc;
use tidings_core::{
    Drafts, Epoch, Event, FeedKey, Filter, Framing, Grant, KnownTopics, Matchers, Position, Record, TopicMatcher, UrlPatterns, Window,
    presence::{ActiveSubscription, MatchType, Subscriber},
    shard::{Millis, NewSubscriber, Poll, Shard, ShardConfig},
};

const NOW: Millis = Millis::ZERO;

fn feed(matcher: TopicMatcher) -> FeedKey {
    let filter = Filter::new(Matchers::from(matcher), &Grant::open());
    FeedKey { filter: Arc::new(filter), framing: Framing::Chunked, topics_field: false }
}

fn record(sequence: u64, topic: &str) -> Record {
    let event = Event::new(topic, "x".repeat(100)).unwrap();
    Record::draft(event).seal(Position { epoch: Epoch(1), sequence }, 0)
}

/// Writes everything; returns how many writes that were.
fn write_all(shard: &mut Shard, mut now: Millis) -> usize {
    let mut writes = 0;
    loop {
        match shard.poll_transmit(now) {
            Poll::Transmit(transmit) => {
                let taken = transmit.bytes.len();
                shard.handle_written(taken, now);
                writes += 1;
            }
            Poll::Working => {}
            Poll::Idle => match shard.next_write() {
                Some(at) => now = at.max(now),
                None => return writes,
            },
        }
    }
}

fn exact(topic: &str) -> TopicMatcher {
    TopicMatcher::exact(topic).unwrap()
}

fn shard_with(subscribers: usize, matcher: impl Fn(usize) -> TopicMatcher) -> Shard {
    let mut config = ShardConfig::new(Epoch(1), 1);
    config.window_events = 64;
    let mut shard = Shard::new(config, 0, NOW);
    for n in 0..subscribers {
        shard.subscribe(NewSubscriber::new(feed(matcher(n)), shard.tail(), Bytes::from_static(b": ok\n")), NOW);
        write_all(&mut shard, NOW);
        while shard.poll_interest().is_some() {}
    }
    shard
}

/// Z-7: what is allocated for an event does not depend on how many receive it, alone or many in one write.
#[test]
fn nothing_is_allocated_per_delivery() {
    for events in [1u64, 16] {
        let allocations = [10, 1_000].map(|members| {
            let mut shard = shard_with(members, |_| exact("t"));
            let mut sequence = 0;
            let mut batch = || -> Vec<Record> {
                std::iter::repeat_with(|| {
                    sequence += 1;
                    record(sequence, "t")
                })
                .take(events as usize)
                .collect()
            };
            // The ring, and the room of sweeps, are there after some.
            for _ in 0..100 {
                shard.handle_batch(&batch());
                write_all(&mut shard, NOW);
            }
            let records = batch();
            let mut writes = 0;
            let counted = measure(|| {
                shard.handle_batch(&records);
                writes = write_all(&mut shard, NOW);
            });
            assert_eq!(writes, members, "one write for everybody");
            counted.count_total
        });
        assert_eq!(allocations[0], allocations[1], "{events} events to 10 and to 1,000");
        assert!(allocations[0] <= 2, "{events} events are merged into one buffer, once: {}", allocations[0]);
    }
}

/// Z-7: an idle connection owns one slot. With vectors that grow by doubling, at the worst moment.
#[test]
fn a_quiet_subscriber_is_small() {
    const COUNT: usize = 8_193;
    for (topics, most) in [(1, 128), (COUNT, 464)] {
        let mut shard = None;
        let counted = measure(|| shard = Some(shard_with(COUNT, |n| exact(&format!("topic/{}", n % topics)))));
        let each = counted.bytes_current as usize / COUNT;
        println!("{each} bytes for a subscriber with {topics} topics");
        assert!(each <= most, "{each} bytes for a subscriber with {topics} topics");
    }
}

/// W3 of the Mercure page: an event about a subscription, whose topic nobody has seen before, costs the same whoever else is connected.
#[test]
fn presence_costs_the_same_among_few_and_many() {
    let allocations = [10, 10_000].map(|subscribers| {
        let mut shard = shard_with(subscribers, |n| TopicMatcher::exact(&format!("topic/{n}")).unwrap());
        let mut sequence = shard.tail();
        let mut begins = || {
            sequence += 1;
            let (subscriber, matcher) = (Subscriber::from_random(sequence.into()), format!("topic/{sequence}").into());
            let subscription = ActiveSubscription { match_type: MatchType::Exact, matcher, subscriber, payload: None };
            subscription.draft(true).seal(Position { epoch: Epoch(1), sequence }, 0)
        };
        // The ring is there after some.
        for _ in 0..100 {
            shard.handle_batch(&[begins()]);
            assert_eq!(write_all(&mut shard, NOW), 0);
        }
        let batch = [begins()];
        measure(|| shard.handle_batch(&batch)).count_total
    });
    assert_eq!(allocations, [0, 0]);
}

/// The URI Template of a subscriber who is one of many.
fn template(n: usize) -> TopicMatcher {
    TopicMatcher::template(&format!("https://example.com/users/{n:05}/messages/{{id}}{{?page}}")).unwrap()
}

/// M-34, M-218: a subscriber with a template of its own takes less than 2 KiB, and costs a publish that is not for it no memory.
#[test]
fn a_template_is_small() {
    const COUNT: usize = 10_000;
    let mut shard = None;
    let counted = measure(|| shard = Some(shard_with(COUNT, template)));
    let each = counted.bytes_current as usize / COUNT;
    println!("{each} bytes for a subscriber with a template of its own");
    assert!(each <= 1_024, "{each} bytes for a subscriber with a template of its own");
    let allocations = [10, COUNT].map(|count| {
        let mut shard = shard_with(count, template);
        let mut sequence = 0;
        let mut publish = || {
            sequence += 1;
            [record(sequence, "https://example.com/users/00007/messages/1?page=2")]
        };
        for _ in 0..100 {
            shard.handle_batch(&publish());
            write_all(&mut shard, NOW);
        }
        let records = publish();
        let mut writes = 0;
        let counted = measure(|| {
            shard.handle_batch(&records);
            writes = write_all(&mut shard, NOW);
        });
        assert_eq!(writes, 1, "one of them is meant");
        counted.count_total
    });
    assert_eq!(allocations[0], allocations[1], "one event to one of 10 and to one of 10,000");
    assert!(allocations[0] <= 1, "the bytes are shared by whoever gets them: {}", allocations[0]);
}

/// M-23, M-32: the compiled form of a URL pattern is shared by those who ask for it, and small unless it contains regular expressions.
#[test]
fn a_url_pattern_is_shared() {
    const COUNT: usize = 1_000;
    let patterns = UrlPatterns::new("https://hub.example/.well-known/mercure", COUNT).unwrap();
    let make = |n: usize| TopicMatcher::url_pattern(&format!("https://example.com/users/{n:05}/messages/:id"), &patterns).unwrap();
    let bytes = [1, COUNT].map(|distinct| {
        let mut matchers = Vec::with_capacity(COUNT);
        let counted = measure(|| matchers.extend((0..COUNT).map(|n| make(n % distinct))));
        assert_eq!(patterns.len(), distinct);
        counted.bytes_current as usize / COUNT
    });
    println!("{bytes:?} bytes for each of those who share one pattern, and for each with its own");
    assert!(bytes[0] <= 2 && bytes[1] <= 1_024, "{bytes:?} bytes for each of those who share one, and for each with its own");
}

/// A window of so many records, which came in appends of so many, and what it holds in memory.
fn window_of(count: usize, append: usize, mut drafts: impl FnMut(usize, usize) -> Drafts) -> (Window, u64) {
    let mut sequence = 0;
    let mut window = Window::new(0, usize::MAX, count);
    let counted = measure(|| {
        for from in (0..count).step_by(append) {
            let records = Record::seal(drafts(from, append), Position { epoch: Epoch(1), sequence: sequence + 1 }, 0);
            sequence += records.len() as u64;
            for record in records {
                window.push(record, drop);
            }
        }
    });
    (window, counted.bytes_current as u64)
}

/// N-40: the bounds of a window are about memory, so what it says it holds is what it holds. And that is little more than the bytes of its events.
#[test]
fn a_window_takes_what_it_says() {
    const COUNT: usize = 20_000;
    let event = |topic: &str, size: usize| Event::new(topic, "x".repeat(size)).unwrap();
    let known = KnownTopics::default();
    let known = &known;
    let many = |topics: usize, size: usize| {
        let event = move |n: usize| event(&format!("room/{:05}", n % topics), size).sharing(known);
        move |from: usize, append: usize| Record::drafts((from..from + append).map(event).collect())
    };
    let presence = |from: usize, append: usize| {
        let drafts = (from..from + append).map(|n| {
            let (subscriber, matcher) = (Subscriber::from_random(n as u128), format!("room/{n}").into());
            ActiveSubscription { match_type: MatchType::Exact, matcher, subscriber, payload: None }.draft(true)
        });
        drafts.collect::<Drafts>()
    };
    let table = [
        ("100 B, one topic, appends of 100", 230, window_of(COUNT, 100, many(1, 100))),
        ("100 B, one topic, alone", 350, window_of(COUNT, 1, many(1, 100))),
        ("100 B, 500 topics in turn, appends of 100", 235, window_of(COUNT, 100, many(500, 100))),
        ("100 B, 500 topics in turn, appends of 1,000", 235, window_of(COUNT, 1_000, many(500, 100))),
        ("100 B, a topic each, appends of 100", 300, window_of(COUNT, 100, many(COUNT, 100))),
        ("100 B, a topic each, alone", 400, window_of(COUNT, 1, many(COUNT, 100))),
        ("1 kB, 500 topics in turn, appends of 20", 1_150, window_of(COUNT, 20, many(500, 1_000))),
        ("20 kB, alone", 21_000, window_of(COUNT / 10, 1, many(500, 20_000))),
        ("subscriptions", 1_500, window_of(COUNT, 100, presence)),
    ];
    for (what, most, (window, held)) in table {
        let (said, each) = (window.bytes() as f64, held / window.len() as u64);
        println!("{what}: {each} bytes each, {:.3} of what it says", held as f64 / said);
        // What allocators round up is counted there, and not seen here.
        assert!((0.92..=1.02).contains(&(held as f64 / said)), "{what}: {held} bytes, and it says {said}");
        assert!(each <= most, "{what}: {each} bytes each");
    }
}
