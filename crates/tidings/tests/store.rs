//! The behaviour suite that every store must pass: order, resume, ids, gaps, retention. One table of stores, one list of behaviours.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tidings::{
    DiskOptions, DiskStore, Event, EventId, EventStore, Filter, GapReason, Grant, KeyWindow, Matchers, MemoryStore, Once, OnceKey,
    PageLimits, Record, Topic, TopicMatcher,
};

/// Keys count for a minute, three of them.
const WINDOW: KeyWindow = KeyWindow { time: Duration::from_mins(1), keys: 3 };

/// Room for so many events; the directory, if it needs one, goes when the test is over.
type Make = fn(events: usize) -> (Arc<dyn EventStore>, Option<TempDir>);

const STORES: &[(&str, Make)] = &[
    ("memory", |events| (Arc::new(MemoryStore::new(usize::MAX, events).unwrap().key_window(WINDOW)), None)),
    ("disk", |events| {
        let directory = tempfile::tempdir().unwrap();
        let options = DiskOptions { retention_events: events as u64, keys: WINDOW, ..DiskOptions::default() };
        (Arc::new(DiskStore::open(directory.path(), options).unwrap()), Some(directory))
    }),
];

const ALL: PageLimits = PageLimits { bytes: usize::MAX, events: usize::MAX, scanned: usize::MAX };

fn filter(topic: &str) -> Filter {
    Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::open())
}

async fn append(store: &dyn EventStore, topics: &[&str]) -> Vec<String> {
    let drafts = topics.iter().map(|topic| Record::draft(Event::new(topic, "data").unwrap())).collect();
    store.append(drafts, 1).await.unwrap().iter().map(ToString::to_string).collect()
}

async fn read(store: &dyn EventStore, after: u64, topic: &str) -> (Vec<u64>, u64) {
    let page = store.read_after(after, u64::MAX, &filter(topic), ALL).await.unwrap();
    (page.records.iter().map(|record| record.position().sequence).collect(), page.covered_through)
}

async fn for_every_store(events: usize, behaviour: impl AsyncFn(Arc<dyn EventStore>)) {
    for (name, make) in STORES {
        println!("store: {name}");
        let (store, _directory) = make(events);
        behaviour(store).await;
    }
}

#[tokio::test]
async fn numbers_are_consecutive_and_read_back_in_order() {
    for_every_store(100, async |store| {
        assert_eq!(store.bounds().head, 0);
        let ids = append(&*store, &["a", "b", "a"]).await;
        let epoch = store.bounds().epoch.0;
        assert_eq!(ids, [1, 2, 3].map(|n| format!("#{epoch:08x}-{n:016x}")));
        assert_eq!(read(&*store, 0, "a").await, (vec![1, 3], 3));
        assert_eq!(read(&*store, 1, "a").await, (vec![3], 3));
        assert_eq!(read(&*store, 1, "nothing").await, (vec![], 3), "covered_through advances though nothing matched");
    })
    .await;
}

#[tokio::test]
async fn pages_are_bounded_and_never_beyond_what_was_asked() {
    for_every_store(100, async |store| {
        append(&*store, &["a"; 10]).await;
        let page = store.read_after(0, 7, &filter("a"), PageLimits { events: 3, ..ALL }).await.unwrap();
        assert_eq!((page.records.len(), page.covered_through), (3, 3));
        let page = store.read_after(3, 7, &filter("a"), PageLimits { bytes: 1, ..ALL }).await.unwrap();
        assert_eq!((page.records.len(), page.covered_through), (1, 4), "one event may exceed the bound alone");
        let page = store.read_after(4, 7, &filter("b"), PageLimits { scanned: 2, ..ALL }).await.unwrap();
        // One that looks up what it is asked for gets further with the same effort.
        assert!(page.records.is_empty() && (6..=7).contains(&page.covered_through), "{page:?}");
        let page = store.read_after(6, 7, &filter("a"), ALL).await.unwrap();
        assert_eq!((page.records.len(), page.covered_through), (1, 7));
    })
    .await;
}

/// N-14: only who can have lost something is told.
#[tokio::test]
async fn retention_is_told_to_those_it_concerns() {
    for_every_store(3, async |store| {
        append(&*store, &["a", "b", "b", "b", "b"]).await;
        assert_eq!((store.bounds().floor, store.bounds().head), (2, 5));
        assert_eq!(store.missing_after(0, &filter("a")).await.unwrap(), Some(GapReason::Evicted));
        assert_eq!(store.missing_after(1, &filter("a")).await.unwrap(), None, "its only event was before its cursor");
        assert_eq!(store.missing_after(1, &filter("b")).await.unwrap(), Some(GapReason::Evicted));
        assert_eq!(store.missing_after(2, &filter("b")).await.unwrap(), None);
        assert_eq!(store.missing_after(0, &filter("c")).await.unwrap(), None);
        let page = store.read_after(0, u64::MAX, &filter("a"), ALL).await.unwrap();
        assert_eq!((page.lost, page.records.len(), page.covered_through), (Some(GapReason::Evicted), 0, 5));
    })
    .await;
}

/// N-12, N-14: a moment is a place; and a gap only where something may have gone that came since then.
#[tokio::test]
async fn moments_are_places() {
    for_every_store(6, async |store| {
        for (time, topic) in [(10, "a"), (20, "a"), (20, "b"), (20, "a"), (30, "b"), (15, "a")] {
            store.append(vec![Record::draft(Event::new(topic, "data").unwrap())], time).await.unwrap();
        }
        let since = async |moment: u64, topic: &str| store.since(moment, &filter(topic)).await.unwrap();
        for (moment, place) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 4), (30, 4), (31, 6), (u64::MAX, 6)] {
            assert_eq!(since(moment, "a").await, (place, None), "since {moment}");
        }
        store
            .append(vec![Record::draft(Event::new("a", "data").unwrap()), Record::draft(Event::new("a", "data").unwrap())], 40)
            .await
            .unwrap();
        assert_eq!(store.bounds().floor, 2);
        for (moment, topic, expected) in [
            (21, "a", (4, None)),
            (20, "a", (2, Some(GapReason::Evicted))),
            (20, "b", (2, None)),
            (0, "a", (2, Some(GapReason::Evicted))),
            (41, "a", (8, None)),
        ] {
            assert_eq!(since(moment, topic).await, expected, "{topic} since {moment}");
        }
    })
    .await;
}

/// N-12, N-32: the newest events are counted among those that the reader may have.
#[tokio::test]
async fn the_newest_that_a_reader_may_have() {
    for_every_store(6, async |store| {
        assert_eq!(store.last(3, &filter("a")).await.unwrap(), 0, "of nothing");
        let public = |topic: &str| Record::draft(Event::new(topic, "data").unwrap());
        let private = |topic: &str| Record::draft(Event::new(topic, "data").unwrap().private());
        store
            .append(vec![public("gone"), public("a"), private("a"), public("b"), public("a"), private("a"), public("b")], 1)
            .await
            .unwrap();
        let full = |topic: &str| Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::full());
        let everything = Filter::new(Matchers::all(), &Grant::open());
        for (count, filter, place) in [
            (0, filter("a"), 7),
            (1, filter("a"), 4),
            (2, filter("a"), 1),
            (3, filter("a"), 1),
            (usize::MAX, filter("a"), 1),
            (1, full("a"), 5),
            (2, full("a"), 4),
            (3, full("a"), 2),
            (1, filter("b"), 6),
            (1, filter("gone"), 1),
            (3, everything, 3),
        ] {
            assert_eq!(store.last(count, &filter).await.unwrap(), place, "{count} of {filter:?}");
        }
    })
    .await;
}

/// M-90: of several events with one id the earliest kept one counts.
#[tokio::test]
async fn publishers_ids_resolve_to_their_first_kept_event() {
    for_every_store(3, async |store| {
        let with_id = |id: &str| Record::draft(Event::new("t", "d").unwrap().with_id(id).unwrap());
        let answered = store.append(vec![with_id("x"), with_id("y"), with_id("x")], 1).await.unwrap();
        assert_eq!(answered.iter().map(tidings::EventId::as_str).collect::<Vec<_>>(), ["x", "y", "x"]);
        let at = async |id: &str| store.resolve(id).await.unwrap().map(|position| position.sequence);
        assert_eq!((at("x").await, at("y").await, at("z").await), (Some(1), Some(2), None));
        append(&*store, &["t"]).await;
        assert_eq!((at("x").await, at("y").await), (Some(3), Some(2)));
        append(&*store, &["t", "t"]).await;
        assert_eq!((at("x").await, at("y").await), (None, None));
    })
    .await;
}

#[tokio::test]
async fn topics_are_listed_with_their_newest_event() {
    for_every_store(3, async |store| {
        let ids = append(&*store, &["gone", "b", "a", "b"]).await;
        let listed =
            |listed: Vec<(Topic, tidings::EventId)>| listed.into_iter().map(|(t, id)| (t.to_string(), id.to_string())).collect::<Vec<_>>();
        assert_eq!(listed(store.topics(None, 10).await.unwrap()), [("a".into(), ids[2].clone()), ("b".into(), ids[3].clone())]);
        assert_eq!(listed(store.topics(Some("a"), 10).await.unwrap()), [("b".into(), ids[3].clone())]);
        assert_eq!(listed(store.topics(None, 1).await.unwrap()).len(), 1);
        let newest = async |topic: &str| store.newest(&Topic::parse(topic).unwrap()).await.unwrap().map(|id| id.to_string());
        assert_eq!((newest("b").await, newest("gone").await), (Some(ids[3].clone()), None));
    })
    .await;
}

#[tokio::test]
async fn the_follower_gets_every_batch_in_order_and_times_never_go_back() {
    for_every_store(1_000, async |store| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let follower = seen.clone();
        store.follow(Box::new(move |records| {
            follower.lock().unwrap().extend(records.iter().map(|record| (record.position().sequence, record.accepted_at())));
        }));
        let writers: Vec<_> = (0..8u64)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..20 {
                        let drafts = vec![Record::draft(Event::new("t", "d").unwrap()), Record::draft(Event::new("t", "d").unwrap())];
                        store.append(drafts, if writer % 2 == 0 { n } else { 100 - n }).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().map(|(sequence, _)| *sequence).eq(1..=320));
        assert!(seen.is_sorted_by_key(|(_, accepted_at)| *accepted_at));
    })
    .await;
}

/// An append of so many events under a key that stands for a name and a request.
async fn once(store: &dyn EventStore, (name, request): (u8, u8), count: usize, now: u64) -> Once {
    let drafts = (0..count).map(|n| {
        let event = Event::new("t", "d").unwrap();
        Record::draft(if n == 1 { event.with_id("own").unwrap() } else { event })
    });
    store.append_once(drafts.collect(), OnceKey { name: [name; 16], request: [request; 32] }, now).await.unwrap()
}

fn ids(once: &Once) -> &[EventId] {
    match once {
        Once::Kept(ids) | Once::Before(ids) => ids,
        _ => &[],
    }
}

/// N-6: the same again is answered with the same ids, long after the events are gone; other content is refused.
#[tokio::test]
async fn a_key_is_appended_once() {
    for_every_store(3, async |store| {
        let first = once(&*store, (1, 1), 3, 0).await;
        let epoch = store.bounds().epoch.0;
        let expected = [format!("#{epoch:08x}-{:016x}", 1), "own".into(), format!("#{epoch:08x}-{:016x}", 3)];
        assert!(matches!(first, Once::Kept(_)) && ids(&first).iter().map(EventId::as_str).eq(&expected), "{first:?}");
        assert_eq!(once(&*store, (1, 1), 3, 0).await, Once::Before(ids(&first).to_vec()));
        assert_eq!(once(&*store, (1, 2), 3, 0).await, Once::Other);
        assert!(matches!(once(&*store, (2, 1), 1, 0).await, Once::Kept(_)), "another name");
        append(&*store, &["t"; 5]).await;
        assert!(store.bounds().floor > 3);
        assert_eq!(once(&*store, (1, 1), 3, 0).await, Once::Before(ids(&first).to_vec()), "its events are gone");
        assert_eq!((store.bounds().head, store.report().keys), (9, 2));
    })
    .await;
}

/// N-6: the window in time and in number. Afterwards a key may stand for something else.
#[tokio::test]
async fn keys_count_for_a_while() {
    for_every_store(100, async |store| {
        let minute = WINDOW.time.as_millis() as u64;
        once(&*store, (1, 1), 1, 1_000).await;
        assert!(matches!(once(&*store, (1, 1), 1, 999 + minute).await, Once::Before(_)));
        assert!(matches!(once(&*store, (1, 2), 1, 1_000 + minute).await, Once::Kept(_)));
        assert_eq!(once(&*store, (1, 1), 1, 1_000 + minute).await, Once::Other);
        for name in 2..=4 {
            assert!(matches!(once(&*store, (name, 1), 1, 1_000 + minute).await, Once::Kept(_)));
        }
        assert_eq!(store.report().keys, 3);
        assert!(matches!(once(&*store, (1, 1), 1, 1_000 + minute).await, Once::Kept(_)), "the oldest of four is forgotten");
        // A clock that goes back ends no window early, and lets none begin anew.
        assert!(matches!(once(&*store, (4, 1), 1, 0).await, Once::Before(_)));
    })
    .await;
}

/// N-6: who comes while the first is under way gets its ids, and an append without a key is nobody's repeat.
#[tokio::test]
async fn many_with_one_key_at_once() {
    for_every_store(1_000, async |store| {
        let tasks: Vec<_> = (0..40u8)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    append(&*store, &["t"]).await;
                    once(&*store, (7, n % 4 / 3), 2, 0).await
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        let kept: Vec<&Once> = outcomes.iter().filter(|outcome| matches!(outcome, Once::Kept(_))).collect();
        let &[kept] = &kept[..] else { panic!("{} were appended", kept.len()) };
        let before: Vec<&Once> = outcomes.iter().filter(|outcome| matches!(outcome, Once::Before(_))).collect();
        assert!(before.iter().all(|outcome| ids(outcome) == ids(kept)), "{outcomes:?}");
        let other = outcomes.iter().filter(|outcome| **outcome == Once::Other).count();
        assert!([(29, 10), (9, 30)].contains(&(before.len(), other)), "{} and {other}", before.len());
        assert_eq!(store.bounds().head, 42);
    })
    .await;
}

#[tokio::test]
async fn a_new_log_has_a_new_epoch() {
    for (_, make) in STORES {
        assert_ne!(make(1).0.bounds().epoch, make(1).0.bounds().epoch);
    }
}
