//! The behaviour suite that every store must pass: order, resume, ids, gaps, retention. One table of stores, one list of behaviours.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidings::{
    DiskOptions, DiskStore, Drafts, Event, EventId, EventStore, Filter, GapReason, Grant, Keep, KeyWindow, Matchers, MemoryStore, Once,
    OnceKey, PageLimits, PrefixRule, Record, Topic, TopicMatcher, UrlPatterns,
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

/// A store, and the directory it is in.
type Begin = fn() -> (Arc<dyn EventStore>, Option<TempDir>);

/// The topics below `k` keep the latest, and two events; those below `few` three; all others eight.
const CLASSES: &[(&str, Begin)] = &[
    ("memory", || (Arc::new(MemoryStore::with_prefixes(usize::MAX, 8, &prefixes()).unwrap()), None)),
    ("disk", || {
        let directory = tempfile::tempdir().unwrap();
        let options = DiskOptions { retention_events: 8, prefixes: prefixes(), ..DiskOptions::default() };
        (Arc::new(DiskStore::open(directory.path(), options).unwrap()), Some(directory))
    }),
];

fn prefixes() -> Vec<PrefixRule> {
    let rule = |prefix: &str, events, keep| {
        let mut rule = PrefixRule::new(prefix);
        (rule.retention_events, rule.keep) = (Some(events), keep);
        rule
    };
    vec![rule("k", 2, Some(Keep::Latest)), rule("few", 3, None)]
}

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

/// M-32, M-218, N-14: pages, gaps and what counts as newest are exact for templates and URL patterns too, with far more topics than match.
#[tokio::test]
async fn patterns_are_answered_exactly() {
    let patterns = UrlPatterns::new("https://hub.example/", 10).unwrap();
    let asking = [TopicMatcher::template("/rooms/{n}1{?page}").unwrap(), TopicMatcher::url_pattern("/rooms/(\\d*1)", &patterns).unwrap()];
    for_every_store(1_000, async |store| {
        let topics: Vec<String> = (1..=600).map(|n| if n % 2 == 0 { format!("/rooms/{n}/x") } else { format!("/rooms/{n}") }).collect();
        append(&*store, &topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let wanted: Vec<u64> = (1..=600).filter(|n| n % 10 == 1).collect();
        for matcher in &asking {
            let filter = Filter::new(Matchers::from(matcher.clone()), &Grant::open());
            let (mut found, mut after) = (Vec::new(), 0);
            while after < 600 {
                let page = store.read_after(after, 600, &filter, PageLimits { events: 7, ..ALL }).await.unwrap();
                assert!(page.covered_through > after && page.lost.is_none());
                found.extend(page.records.iter().filter(|record| filter.wants_record(record)).map(|record| record.position().sequence));
                after = page.covered_through;
            }
            assert_eq!(found, wanted, "{matcher:?}");
            assert_eq!(store.last(2, &filter).await.unwrap(), 580, "{matcher:?}");
        }
        // Of those that are gone two were wanted, the second of them the eleventh.
        append(&*store, &["other"; 411]).await;
        assert!((11..16).contains(&store.bounds().floor));
        for matcher in &asking {
            let filter = Filter::new(Matchers::from(matcher.clone()), &Grant::open());
            let told = async |after| store.missing_after(after, &filter).await.unwrap();
            assert_eq!((told(0).await, told(10).await, told(11).await), (Some(GapReason::Evicted), Some(GapReason::Evicted), None));
        }
        append(&*store, &["other"; 4]).await;
        for matcher in &asking {
            let filter = Filter::new(Matchers::from(matcher.clone()), &Grant::open());
            assert_eq!(store.missing_after(11, &filter).await.unwrap(), None, "what has gone since then was for others");
        }
    })
    .await;
}

/// N-12, N-14: a moment is a place; and a gap only where something may have gone that came since then.
#[tokio::test]
async fn moments_are_places() {
    for_every_store(6, async |store| {
        for (time, topic) in [(10, "a"), (20, "a"), (20, "b"), (20, "a"), (30, "b"), (15, "a")] {
            store.append(Record::draft(Event::new(topic, "data").unwrap()).into(), time).await.unwrap();
        }
        let since = async |moment: u64, topic: &str| store.since(moment, &filter(topic)).await.unwrap();
        for (moment, place) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 4), (30, 4), (31, 6), (u64::MAX, 6)] {
            assert_eq!(since(moment, "a").await, (place, None), "since {moment}");
        }
        store
            .append(
                Drafts::from_iter([Record::draft(Event::new("a", "data").unwrap()), Record::draft(Event::new("a", "data").unwrap())]),
                40,
            )
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
            .append(Drafts::from_iter([public("gone"), public("a"), private("a"), public("b"), public("a"), private("a"), public("b")]), 1)
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
        let answered = store.append(Drafts::from_iter([with_id("x"), with_id("y"), with_id("x")]), 1).await.unwrap();
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
                        let drafts = [0; 2].map(|_| Record::draft(Event::new("t", "d").unwrap())).into_iter().collect();
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

async fn for_every_store_of_classes(behaviour: impl AsyncFn(Arc<dyn EventStore>)) {
    for (name, make) in CLASSES {
        println!("store: {name}");
        let (store, _directory) = make();
        behaviour(store).await;
    }
}

fn sequences(page: &tidings::Page) -> Vec<u64> {
    page.records.iter().map(|record| record.position().sequence).collect()
}

/// N-14: each class keeps what it may, and what it removes is told to those who may have lost some of it.
#[tokio::test]
async fn classes_are_counted_by_themselves() {
    for_every_store_of_classes(async |store| {
        append(&*store, &["few/a", "b", "few/b", "few/a", "few/b", "few/a", "b"]).await;
        assert_eq!(read(&*store, 0, "few/a").await, (vec![4, 6], 7));
        assert_eq!(read(&*store, 0, "few/b").await, (vec![5], 7));
        assert_eq!(read(&*store, 0, "b").await, (vec![2, 7], 7), "another class");
        let bounds = store.bounds();
        assert!(bounds.low <= 1 && bounds.floor == 3, "{bounds:?}");
        for (topic, after, told) in [("few/a", 0, true), ("few/a", 1, false), ("few/b", 2, true), ("few/b", 3, false), ("b", 0, false)] {
            assert_eq!(store.missing_after(after, &filter(topic)).await.unwrap().is_some(), told, "{topic} after {after}");
        }
        let newest = store.newest(&Topic::parse("few/b").unwrap()).await.unwrap().unwrap();
        assert!(newest.to_string().ends_with("05"), "{newest}");
    })
    .await;
}

/// N-14: who was told what is gone is told only of what goes after that.
#[tokio::test]
async fn what_is_known_to_be_gone_is_no_news() {
    for_every_store_of_classes(async |store| {
        append(&*store, &["few/a", "few/a", "few/a", "few/a", "b"]).await;
        let lost = async |known: &[u64]| {
            let everything = Filter::new(Matchers::all(), &Grant::open());
            store.read_beyond(0, u64::MAX, &everything, known, ALL).await.unwrap().lost
        };
        let known = store.floors();
        assert_eq!((lost(&[]).await, lost(&known).await), (Some(GapReason::Evicted), None));
        append(&*store, &["b"]).await;
        assert_eq!(lost(&known).await, None, "nothing went");
        append(&*store, &["few/a"]).await;
        assert_eq!(lost(&known).await, Some(GapReason::Evicted));
        assert_eq!(lost(&store.floors()).await, None);
    })
    .await;
}

/// In memory events age while nothing is published, too: a reader gets none that is too old, and is told.
#[tokio::test]
async fn events_age_in_an_idle_store() {
    let mut rule = PrefixRule::new("short");
    rule.retention_age = Some(Duration::from_millis(50));
    let store = MemoryStore::with_prefixes(1 << 20, 100, &[rule]).unwrap();
    append(&store, &["short", "long"]).await;
    wait_until_gone(&store).await;
    assert_eq!(read(&store, 0, "long").await.0, [2]);
    assert_eq!(store.missing_after(0, &filter("short")).await.unwrap(), Some(GapReason::Evicted));
    assert_eq!(store.missing_after(0, &filter("long")).await.unwrap(), None);
}

async fn wait_until_gone(store: &MemoryStore) {
    let began = Instant::now();
    while !read(store, 0, "short").await.0.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is there still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Z-30: the newest event of a topic and type stays until it is replaced, and one without data takes it back.
#[tokio::test]
async fn the_latest_outlives_retention() {
    for_every_store_of_classes(async |store| {
        let event = |topic: &str, kind: &str, data: &str| Record::draft(Event::new(topic, data).unwrap().with_type(kind).unwrap());
        let all = Filter::new(Matchers::from(TopicMatcher::prefix("k").unwrap()), &Grant::open());
        let latest = async || sequences(&store.read_latest(0, store.bounds().head, &all, ALL).await.unwrap());
        let kept = async || sequences(&store.read_after(0, u64::MAX, &all, ALL).await.unwrap());
        store.append(Drafts::from_iter([event("k/a", "", "1"), event("k/a", "x", "2"), event("k/b", "message", "3")]), 1).await.unwrap();
        assert_eq!((latest().await, kept().await), (vec![1, 2, 3], vec![1, 2, 3]));
        // Two more than there is room for, and untyped events are messages.
        store.append(Drafts::from_iter([event("k/b", "", "4"), event("k/a", "x", "5"), event("k/c", "", "6")]), 1).await.unwrap();
        assert_eq!((latest().await, kept().await), (vec![1, 4, 5, 6], vec![1, 4, 5, 6]));
        assert_eq!(store.missing_after(1, &all).await.unwrap(), Some(GapReason::Evicted), "2 and 3 are gone");
        assert_eq!(store.missing_after(3, &all).await.unwrap(), None);
        let first = PageLimits { events: 1, ..ALL };
        let page = store.read_latest(1, 5, &all, first).await.unwrap();
        assert_eq!((sequences(&page), page.covered_through), (vec![4], 4));
        let page = store.read_latest(4, 5, &all, first).await.unwrap();
        assert_eq!((sequences(&page), page.covered_through), (vec![5], 5));
        assert_eq!(store.newest(&Topic::parse("k/b").unwrap()).await.unwrap().unwrap().to_string()[25..], *"4");
        // Taken back: the events without data are events like any other, and go like any other.
        store.append(Drafts::from_iter([event("k/a", "x", ""), event("k/b", "", "")]), 1).await.unwrap();
        assert_eq!((latest().await, kept().await), (vec![1, 6], vec![1, 6, 7, 8]));
        store.append(Drafts::from_iter([event("k/c", "", "9"), event("k/c", "", "10")]), 1).await.unwrap();
        assert_eq!((latest().await, kept().await), (vec![1, 10], vec![1, 9, 10]));
        assert!(store.keeps_latest(all.matchers()));
        assert_eq!(store.read_latest(0, 10, &filter("other"), ALL).await.unwrap().records.len(), 0);
    })
    .await;
}
