//! Presence from inside the process: who sees which subscriptions begin and end, in which order, and what is left after an unclean end.

use super::{
    register::{Subscriptions, Told},
    *,
};
use crate::{DiskOptions, DiskStore};
use http_body_util::BodyExt as _;
use std::future::poll_fn;
use tidings_core::presence::{MatchType, PATH};

/// What a test waits for comes long before this.
const DEADLINE: Duration = Duration::from_secs(20);

fn hub(change: impl FnOnce(&mut Config)) -> Hub {
    let mut config = Config { subscriptions: true, shards: 2, ..Config::default() };
    change(&mut config);
    Hub::builder().config(config).build().unwrap()
}

/// May see all private events.
fn watcher() -> Grant {
    let mut grant = Grant::reader();
    grant.read_private = Matchers::all();
    grant
}

fn told(match_type: MatchType, matcher: &str, payload: Option<&str>) -> Told {
    Told { match_type, matcher: matcher.into(), payload: payload.map(Into::into) }
}

/// As a request on the Mercure path asks: for topics, in the newer dialect.
fn asking(topics: &[&str]) -> Subscription {
    let mut subscription = Subscription::new(Matchers::new(topics.iter().map(|topic| TopicMatcher::exact(topic).unwrap())));
    subscription.told = topics.iter().map(|topic| told(MatchType::Exact, topic, None)).collect();
    subscription.prime = Some(false);
    subscription
}

/// Everything, in one of the dialects, untold.
fn watching(view: tidings_core::View) -> Subscription {
    let mut subscription = Subscription::new(Matchers::none());
    match view {
        tidings_core::View::First => subscription.matchers = Matchers::all(),
        tidings_core::View::Second => subscription.older = Matchers::all(),
    }
    subscription.prime = Some(false);
    subscription
}

struct Reader {
    body: EventBody,
    text: String,
}

impl Reader {
    async fn open(hub: &Hub, grant: Grant, subscription: Subscription) -> Reader {
        let body = hub.with(grant).open(subscription).await.unwrap().body;
        let mut reader = Reader { body, text: String::new() };
        // The shard has it.
        reader.wait_line(": ok").await;
        reader
    }

    async fn wait_line(&mut self, start: &str) -> String {
        let read = async {
            loop {
                let line = self.text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
                if let Some(line) = line.filter(|line| self.text.contains(&format!("{line}\n"))) {
                    let end = self.text.find(&line).unwrap() + line.len() + 1;
                    self.text.drain(..end);
                    return line;
                }
                let frame = self.body.frame().await.expect("the stream goes on").expect("unbroken");
                self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("{start:?} does not come"))
    }

    /// The next event about a subscription: its matcher and whether it is active.
    async fn wait_change(&mut self) -> (String, bool) {
        let line = self.wait_line("data: {").await;
        let document: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
        let matcher = document.get("match").or(document.get("topic")).and_then(|text| text.as_str()).unwrap();
        (matcher.to_owned(), document["active"].as_bool().unwrap())
    }

    async fn wait_end(&mut self) {
        let end = async { while poll_fn(|cx| self.body.poll_bytes(cx)).await.is_some_and(|bytes| bytes.is_ok()) {} };
        tokio::time::timeout(DEADLINE, end).await.expect("it ends");
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// M-97, M-101, M-318, M-405: each watcher sees the view it asked in; whoever subscribes sees itself arrive; the end is told.
#[tokio::test(flavor = "multi_thread")]
async fn arrivals_and_departures() {
    let hub = hub(|_| {});
    let mut newer = Reader::open(&hub, watcher(), watching(tidings_core::View::First)).await;
    let mut older = Reader::open(&hub, watcher(), watching(tidings_core::View::Second)).await;
    let mut both = watching(tidings_core::View::First);
    both.older = Matchers::all();
    let mut both = Reader::open(&hub, watcher(), both).await;
    let mut unprivileged = Reader::open(&hub, Grant::reader(), watching(tidings_core::View::First)).await;

    let mut subscription = asking(&["a"]);
    subscription.matchers = Matchers::all();
    subscription.told.extend([told(MatchType::UriTemplate, "/b/{id}", Some("{\"n\":1}")), told(MatchType::Exact, "a", None)]);
    let mut visitor = Reader::open(&hub, watcher(), subscription).await;
    for reader in [&mut visitor, &mut newer, &mut older, &mut both] {
        assert_eq!(reader.wait_change().await, ("a".to_owned(), true));
        assert_eq!(reader.wait_change().await, ("/b/{id}".to_owned(), true));
    }
    drop(visitor);
    newer.wait_line("event: mercure").await;
    both.wait_line("event: mercure").await;
    assert!(!older.text.contains("event:"), "no type in the older view");
    for reader in [&mut newer, &mut older, &mut both] {
        assert_eq!(reader.wait_change().await, ("a".to_owned(), false));
        assert_eq!(reader.wait_change().await, ("/b/{id}".to_owned(), false));
    }
    // What is public comes after all of that, and nothing of it came to somebody without the right.
    hub.publish(Event::new("end", "end").unwrap()).await.unwrap();
    for reader in [&mut newer, &mut older, &mut both, &mut unprivileged] {
        reader.wait_line("data: end").await;
        assert!(!reader.text.contains("data: {") && !reader.text.contains("event:"), "{}", reader.text);
    }
}

/// M-97: however a subscription ends, it is told: by the client, with its rights, with the shard, in a drain.
#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told() {
    let hub = hub(|config| config.shards = 1);
    let mut watch = Reader::open(&hub, watcher(), watching(tidings_core::View::First)).await;
    let client = Reader::open(&hub, Grant::reader(), asking(&["client"])).await;
    assert_eq!(watch.wait_change().await, ("client".to_owned(), true));
    drop(client);
    assert_eq!(watch.wait_change().await, ("client".to_owned(), false));

    let mut expired = Reader::open(&hub, Grant::reader().until(unix_ms() + 400), asking(&["expired"])).await;
    assert_eq!(watch.wait_change().await, ("expired".to_owned(), true));
    expired.wait_end().await;
    assert_eq!(watch.wait_change().await, ("expired".to_owned(), false));

    let mut failed = Reader::open(&hub, Grant::reader(), asking(&["failed"])).await;
    assert_eq!(watch.wait_change().await, ("failed".to_owned(), true));
    let seen = hub.0.last_event_id();
    hub.fail_shard(0);
    failed.wait_end().await;
    watch.wait_end().await;
    let resumed = watching(tidings_core::View::First).after(seen);
    let mut watch = Reader::open(&hub, watcher(), resumed.clone()).await;
    assert_eq!(watch.wait_change().await, ("failed".to_owned(), false));

    let _drained = Reader::open(&hub, Grant::reader(), asking(&["drained"])).await;
    assert_eq!(watch.wait_change().await, ("drained".to_owned(), true));
    hub.shut_down(Duration::from_millis(200)).await;
    let register = hub.0.register.as_ref().unwrap();
    assert_eq!(register.counts(), (0, 0), "all ends are in the log when draining is over");
}

/// A stream that is opened and never read by anybody is no subscription.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_comes_is_not_told() {
    let hub = hub(|_| {});
    let (opened, ticket) = hub.with(Grant::reader()).open_detachable(asking(&["a"])).await.unwrap();
    drop((opened, ticket));
    let register = hub.0.register.as_ref().unwrap();
    tokio::time::timeout(DEADLINE, register.everything_ended()).await.expect("nobody is left");
    assert_eq!((register.counts(), hub.0.last_event_id().as_str()), ((0, 0), "earliest"));
}

/// Not told unless it is asked for, and never of native streams (M-405).
#[tokio::test(flavor = "multi_thread")]
async fn off_and_native() {
    for on in [false, true] {
        let hub = hub(|config| config.subscriptions = on);
        let mut native = Reader::open(&hub, watcher(), watching(tidings_core::View::First)).await;
        let _mercure = if on { None } else { Some(Reader::open(&hub, Grant::reader(), asking(&["a"])).await) };
        hub.publish(Event::new("end", "end").unwrap()).await.unwrap();
        native.wait_line("data: end").await;
        assert!(!native.text.contains("data: {"));
        assert_eq!(hub.with(watcher()).subscriptions(&Which::All, None).is_some(), on);
    }
}

/// M-85, M-107, M-410: the id of such an event is a cursor, and what the register lists goes with the id it names.
#[tokio::test(flavor = "multi_thread")]
async fn resuming_after_one() {
    let hub = hub(|_| {});
    let mut watch = Reader::open(&hub, watcher(), watching(tidings_core::View::Second)).await;
    let first = Reader::open(&hub, Grant::reader(), asking(&["first"])).await;
    assert_eq!(watch.wait_change().await, ("first".to_owned(), true));
    let id = watch.wait_line("id: ").await;
    let (listed, last) = hub.with(watcher()).subscriptions(&Which::All, None).unwrap();
    let matchers = |listed: Subscriptions| listed.listed.iter().map(|of| of.matcher.to_string()).collect::<Vec<_>>();
    assert_eq!((matchers(listed), format!("id: {last}")), (vec!["first".to_owned()], id));
    drop(watch);
    drop(first);
    let _second = Reader::open(&hub, Grant::reader(), asking(&["second"])).await;
    let register = hub.0.register.as_ref().unwrap();
    wait_until("the second alone", || register.counts() == (1, 0) && !hub.0.last_event_id().ends_with('1')).await;
    let mut resumed = Reader::open(&hub, watcher(), watching(tidings_core::View::Second).after(last)).await;
    let mut changes = vec![resumed.wait_change().await, resumed.wait_change().await];
    changes.sort();
    assert_eq!(changes, [("first".to_owned(), false), ("second".to_owned(), true)]);
}

/// M-326, N-20: not counted as published, and not among the topics that publishers see.
#[tokio::test(flavor = "multi_thread")]
async fn not_counted_and_not_listed() {
    let hub = hub(|_| {});
    hub.publish(Event::new("a", "").unwrap()).await.unwrap();
    hub.publish(Event::new("/z", "").unwrap()).await.unwrap();
    let _visitor = Reader::open(&hub, Grant::reader(), asking(&["a", "b"])).await;
    let register = hub.0.register.as_ref().unwrap();
    wait_until("two subscriptions", || register.counts() == (2, 0)).await;
    let metrics = hub.metrics();
    assert!(metrics.contains("tidings_events_total 2\n") && metrics.contains("tidings_presence_subscriptions 2\n"), "{metrics}");
    for (after, limit, expected) in
        [(None, 9, &["/z", "a"][..]), (None, 1, &["/z"]), (Some(PATH), 9, &["/z", "a"]), (Some("/z"), 9, &["a"])]
    {
        let topics = hub.with(Grant::full()).topics(after, limit).await.unwrap();
        assert_eq!(topics.iter().map(|info| info.topic.as_str()).collect::<Vec<_>>(), expected, "{after:?} {limit}");
    }
}

/// M-410: what a process left open that did not end properly is ended by the next one; and both views are kept on disk.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_unclean_end() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = Arc::new(DiskStore::open(directory.path(), DiskOptions::default()).unwrap());
        let config = Config { subscriptions: true, ..Config::default() };
        (Hub::builder().config(config).store(store.clone()).build().unwrap(), store)
    };
    let (hub, store) = open();
    let mut watch = Reader::open(&hub, watcher(), watching(tidings_core::View::Second)).await;
    drop(Reader::open(&hub, Grant::reader(), asking(&["gone before"])).await);
    let mut seen = vec![watch.wait_change().await, watch.wait_change().await];
    let _left = Reader::open(&hub, Grant::reader(), asking(&["x", "y"])).await;
    seen.extend([watch.wait_change().await, watch.wait_change().await]);
    let id = watch.wait_line("id: ").await;
    // Nobody is told: as after a crash.
    drop((hub, watch));
    store.close();
    drop(store);

    let (hub, store) = open();
    let after = id.strip_prefix("id: ").unwrap();
    let mut watch = Reader::open(&hub, watcher(), watching(tidings_core::View::Second).after(after)).await;
    assert_eq!(watch.wait_change().await, ("x".to_owned(), false));
    assert_eq!(watch.wait_change().await, ("y".to_owned(), false));
    let mut all = Reader::open(&hub, watcher(), watching(tidings_core::View::First).from_cursor(Cursor::Earliest)).await;
    for expected in seen {
        assert_eq!(all.wait_change().await, expected, "from the disk");
    }
    hub.shut_down(Duration::from_millis(200)).await;
    drop((hub, watch, all));
    store.close();
    drop(store);

    let (hub, _store) = open();
    let before = hub.0.last_event_id();
    let _other = Reader::open(&hub, Grant::reader(), asking(&["other"])).await;
    let register = hub.0.register.as_ref().unwrap();
    wait_until("the other", || register.counts() == (1, 0)).await;
    let mut watch = Reader::open(&hub, watcher(), watching(tidings_core::View::First).after(before)).await;
    assert_eq!(watch.wait_change().await, ("other".to_owned(), true), "after a proper end nothing is left to be told");
}
