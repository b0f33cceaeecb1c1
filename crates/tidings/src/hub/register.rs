//! The register of who has subscribed on the Mercure path, and the changes that wait to be published (M-97, M-105, M-106).
//!
//! A subscription that a shard has taken over, and one that has ended, is a change. What the register lists follows from the events as the
//! log hands them over, so whoever reads it and then follows the log from the id it named misses nothing.
//!
//! It knows subscriptions and records, neither stores nor connections.

use crate::delivery::Guest;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tidings_core::{
    Draft, Record, limits,
    presence::{ActiveSubscription, MatchType, Subscriber},
};
use tokio::sync::Notify;

/// What a subscription costs beside its text, here and in the shard: measured by a test.
const FIXED: usize = 448;

/// The register.
#[derive(Debug, Default)]
pub(crate) struct Register {
    state: Mutex<State>,
    /// There are changes to publish, or there will be none any more.
    changed: Notify,
    /// A connection's subscriptions have ended, and their ends are published.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// As the log says.
    active: BTreeMap<Key, Option<Arc<str>>>,
    /// Yet to be published, in order.
    changes: VecDeque<Change>,
    /// Bytes of the connections with subscriptions, including those whose end is not published yet.
    bytes: usize,
    connections: usize,
    closed: bool,
}

/// In an order in which everything that is asked for together lies together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    matcher: Arc<str>,
    match_type: MatchType,
    subscriber: Subscriber,
}

/// All subscriptions of a connection begin or end.
#[derive(Clone, Debug)]
struct Change {
    of: Arc<Visit>,
    active: bool,
    /// So many of them are published.
    published: usize,
}

/// One subscription begins or ends.
#[derive(Debug)]
pub(super) struct Single {
    of: Arc<Visit>,
    at: usize,
    active: bool,
}

/// The subscriptions of one connection.
#[derive(Debug)]
struct Visit {
    subscriptions: Box<[ActiveSubscription]>,
    /// What they count for in the bound, and where.
    bytes: usize,
    register: Arc<Register>,
}

/// A matcher as its subscriber wrote it, and what its token says beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) match_type: MatchType,
    pub(crate) matcher: Arc<str>,
    pub(crate) payload: Option<Arc<str>>,
}

/// Which subscriptions somebody wants to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    All,
    /// By the matcher, whatever it is taken for: as the older dialect knows them.
    Matcher(Arc<str>),
    Typed(MatchType, Arc<str>),
}

/// Some of the subscriptions that are active, at one moment.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    pub(crate) listed: Vec<ActiveSubscription>,
    /// There are more after the last of them.
    pub(crate) more: bool,
}

/// There are as many subscriptions as may be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl Register {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection with these subscriptions is about to come; each distinct one is told once.
    pub(super) fn expect(self: &Arc<Self>, subscriber: Subscriber, told: Vec<Told>) -> Result<Box<dyn Guest>, Full> {
        let mut subscriptions: Vec<ActiveSubscription> = Vec::with_capacity(told.len());
        let mut state = self.state();
        for Told { match_type, matcher, payload } in told {
            if !subscriptions.iter().any(|of| of.match_type == match_type && of.matcher == matcher) {
                let matcher = state.shared(matcher);
                subscriptions.push(ActiveSubscription { match_type, matcher, subscriber, payload });
            }
        }
        // Its text is kept here, and with the connection.
        let bytes = subscriptions.iter().map(|of| FIXED + 2 * text_of(of)).sum();
        if state.bytes + bytes > limits::PRESENCE_REGISTER_BYTES {
            return Err(Full);
        }
        state.bytes += bytes;
        state.connections += 1;
        drop(state);
        let visit = Visit { subscriptions: subscriptions.into(), bytes, register: self.clone() };
        Ok(Box::new(Visitor { visit: Arc::new(visit), has_arrived: false }))
    }

    /// Takes note of what the log says; before anybody can learn from the log that it says so.
    pub(super) fn apply(&self, records: &[Record]) {
        for record in records.iter().filter(|record| record.has_two_views()) {
            let Some((ActiveSubscription { match_type, matcher, subscriber, payload }, active)) = ActiveSubscription::read(record) else {
                continue;
            };
            let mut state = self.state();
            let key = Key { matcher: state.shared(matcher), match_type, subscriber };
            if active {
                state.active.insert(key, payload);
            } else {
                state.active.remove(&key);
            }
        }
    }

    /// The next subscriptions after a place in their order, at most `limit`.
    pub(super) fn list(&self, which: &Which, after: Option<&ActiveSubscription>, limit: usize) -> Subscriptions {
        let key = |matcher: &Arc<str>, match_type, subscriber| Key { matcher: matcher.clone(), match_type, subscriber };
        let (from, to) = match which {
            Which::All => (Bound::Unbounded, Bound::Unbounded),
            Which::Matcher(matcher) => {
                let (first, last) = (MatchType::Exact, MatchType::UriTemplate);
                (Bound::Included(key(matcher, first, Subscriber::MIN)), Bound::Included(key(matcher, last, Subscriber::MAX)))
            }
            Which::Typed(of, matcher) => {
                (Bound::Included(key(matcher, *of, Subscriber::MIN)), Bound::Included(key(matcher, *of, Subscriber::MAX)))
            }
        };
        let after = after.map(|of| key(&of.matcher, of.match_type, of.subscriber));
        let from = match (after, from) {
            (None, from) => from,
            (Some(after), Bound::Included(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
        };
        if let (Bound::Excluded(from) | Bound::Included(from), Bound::Included(to)) = (&from, &to)
            && from >= to
        {
            return Subscriptions { listed: Vec::new(), more: false };
        }
        let state = self.state();
        let (mut listed, mut bytes) = (Vec::new(), 0);
        for (key, payload) in state.active.range((from, to)) {
            if listed.len() == limit || bytes > limits::PRESENCE_PAGE_BYTES {
                return Subscriptions { listed, more: true };
            }
            let subscription = key.subscription(payload.as_ref());
            bytes += text_of(&subscription);
            listed.push(subscription);
        }
        Subscriptions { listed, more: false }
    }

    /// One subscription; of those with the same matcher the first, unless the type is named.
    pub(super) fn find(&self, of: Option<MatchType>, matcher: &Arc<str>, subscriber: Subscriber) -> Option<ActiveSubscription> {
        let types = of.map_or(MatchType::ALL.to_vec(), |of| vec![of]);
        let state = self.state();
        types.into_iter().find_map(|match_type| {
            let key = Key { matcher: matcher.clone(), match_type, subscriber };
            state.active.get(&key).map(|payload| key.subscription(payload.as_ref()))
        })
    }

    /// How many are active, and how many changes wait to be published.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.active.len() as u64, state.changes.iter().map(Change::left).sum::<usize>() as u64)
    }

    /// Waits until the ends of all subscriptions are published, when no more come.
    pub(super) async fn everything_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.state().connections == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Nothing is published any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.changes);
        drop(state);
        // What is dropped with them takes the lock.
        drop(forgotten);
        self.changed.notify_one();
    }

    /// These ended with a process that could not say so.
    pub(super) fn left_behind(self: &Arc<Self>, subscriptions: Box<[ActiveSubscription]>) {
        self.state().connections += 1;
        self.change(&Arc::new(Visit { subscriptions, bytes: 0, register: self.clone() }), false);
    }

    fn change(&self, of: &Arc<Visit>, active: bool) {
        let mut state = self.state();
        if !state.closed {
            state.changes.push_back(Change { of: of.clone(), active, published: 0 });
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next changes to be published, so many as go into one append; `None` when there will be none any more.
    pub(super) async fn next(&self) -> Option<Vec<Single>> {
        loop {
            let changes = self.pending()?;
            if !changes.is_empty() {
                return Some(changes);
            }
            self.changed.notified().await;
        }
    }

    fn pending(&self) -> Option<Vec<Single>> {
        let state = self.state();
        let each = |change: &Change| {
            let (of, active) = (change.of.clone(), change.active);
            (change.published..of.subscriptions.len()).map(move |at| Single { of: of.clone(), at, active })
        };
        let mut bytes = 0;
        let fits = |change: &Single| {
            let is_first = bytes == 0;
            bytes += change.cost();
            is_first || bytes <= limits::PRESENCE_APPEND_BYTES
        };
        (!state.closed).then(|| state.changes.iter().flat_map(each).take(limits::PRESENCE_APPEND).take_while(fits).collect())
    }

    /// So many of the changes were published.
    pub(super) fn published(&self, mut count: usize) {
        let mut over = Vec::new();
        let mut state = self.state();
        while count > 0
            && let Some(first) = state.changes.front_mut()
        {
            let now = count.min(first.left());
            first.published += now;
            count -= now;
            if first.left() == 0 {
                over.extend(state.changes.pop_front());
            }
        }
        drop(state);
        // What is dropped with them takes the lock.
        drop(over);
    }
}

fn text_of(subscription: &ActiveSubscription) -> usize {
    subscription.matcher.len() + subscription.payload.as_ref().map_or(0, |payload| payload.len())
}

impl State {
    /// The same text as that of a subscription that is active already.
    fn shared(&self, matcher: Arc<str>) -> Arc<str> {
        let least = Key { matcher, match_type: MatchType::Exact, subscriber: Subscriber::MIN };
        match self.active.range(&least..).next() {
            Some((key, _)) if key.matcher == least.matcher => key.matcher.clone(),
            _ => least.matcher,
        }
    }
}

impl Key {
    fn subscription(&self, payload: Option<&Arc<str>>) -> ActiveSubscription {
        let Key { matcher, match_type, subscriber } = self.clone();
        ActiveSubscription { match_type, matcher, subscriber, payload: payload.cloned() }
    }
}

impl Change {
    fn left(&self) -> usize {
        self.of.subscriptions.len() - self.published
    }
}

impl Single {
    /// The event that says so.
    pub(super) fn draft(&self) -> Draft {
        self.of.subscriptions[self.at].draft(self.active)
    }

    /// About how many bytes that has.
    fn cost(&self) -> usize {
        // Two documents, each with the matcher as it is and percent-encoded.
        FIXED + 8 * text_of(&self.of.subscriptions[self.at])
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.register.state();
        state.bytes -= self.bytes;
        state.connections -= 1;
        drop(state);
        self.register.ended.notify_waiters();
    }
}

/// What a shard holds of it.
struct Visitor {
    visit: Arc<Visit>,
    has_arrived: bool,
}

impl Guest for Visitor {
    fn arrived(&mut self) {
        self.has_arrived = true;
        self.visit.register.change(&self.visit, true);
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if self.has_arrived {
            self.visit.register.change(&self.visit, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;
    use tidings_core::{Epoch, Position};

    /// What becomes of changes, without a store: they are published at once.
    struct Published {
        register: Arc<Register>,
        sequence: u64,
    }

    impl Published {
        fn new() -> Published {
            Published { register: Arc::default(), sequence: 0 }
        }

        fn arrive(&self, number: u128, matchers: &[(MatchType, &str)], payload: Option<&str>) -> Result<Box<dyn Guest>, Full> {
            let payload: Option<Arc<str>> = payload.map(Into::into);
            let told = |&(match_type, matcher): &(MatchType, &str)| Told { match_type, matcher: matcher.into(), payload: payload.clone() };
            // Spread over the whole range, as random ones are.
            let subscriber = Subscriber::from_random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            let mut guest = self.register.expect(subscriber, matchers.iter().map(told).collect())?;
            guest.arrived();
            Ok(guest)
        }

        /// All that wait, in appends of so many.
        fn publish(&mut self) -> Vec<usize> {
            let mut appends = Vec::new();
            loop {
                let changes = self.register.pending().unwrap();
                if changes.is_empty() {
                    return appends;
                }
                let seal = |change: &Single| {
                    self.sequence += 1;
                    change.draft().seal(Position { epoch: Epoch(1), sequence: self.sequence }, 0)
                };
                let records: Vec<Record> = changes.iter().map(seal).collect();
                self.register.apply(&records);
                self.register.published(changes.len());
                appends.push(changes.len());
            }
        }
    }

    fn matchers(found: &Subscriptions) -> Vec<&str> {
        found.listed.iter().map(|of| &*of.matcher).collect()
    }

    /// M-105, M-106, M-213: by nothing, by matcher, by matcher and type, by name; pages are complete and do not overlap.
    #[test]
    fn lists() {
        let mut of = Published::new();
        let (exact, pattern) = (MatchType::Exact, MatchType::UrlPattern);
        let _guests = [
            of.arrive(1, &[(exact, "b"), (exact, "a"), (exact, "b")], Some("1")).unwrap(),
            of.arrive(2, &[(pattern, "b"), (exact, "ba")], None).unwrap(),
            of.arrive(3, &[(exact, "b")], None).unwrap(),
        ];
        assert_eq!(matchers(&of.register.list(&Which::All, None, 9)), [] as [&str; 0], "not in the log yet");
        assert_eq!(of.publish(), [5]);
        let all = of.register.list(&Which::All, None, 9);
        assert_eq!((matchers(&all), all.more), (vec!["a", "b", "b", "b", "ba"], false));
        for (which, count) in [
            (Which::Matcher("b".into()), 3),
            (Which::Typed(exact, "b".into()), 2),
            (Which::Typed(pattern, "b".into()), 1),
            (Which::Matcher("c".into()), 0),
        ] {
            assert_eq!(of.register.list(&which, None, 9).listed.len(), count, "{which:?}");
            assert_eq!(of.register.list(&which, all.listed.last(), 9).listed.len(), 0, "{which:?} after all");
            assert_eq!(of.register.list(&which, all.listed.first(), 9).listed.len(), count, "{which:?} from before");
        }
        for limit in 1..6 {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = of.register.list(&Which::All, after.as_ref(), limit);
                assert!(page.listed.len() == limit || !page.more);
                after = page.listed.last().cloned();
                pages.extend(page.listed);
                if !page.more {
                    break;
                }
            }
            assert_eq!(pages, all.listed);
        }
        let found = |of_type, of_whom: usize| of.register.find(of_type, &"b".into(), all.listed[of_whom].subscriber);
        assert_eq!(found(None, 0).unwrap().payload.as_deref(), Some("1"));
        assert_eq!(found(Some(pattern), 0), None);
        assert_eq!(found(None, 4).unwrap().match_type, pattern);
    }

    /// M-97: nothing is left out, however fast somebody comes and goes; and many at once go into appends that are bounded.
    #[test]
    fn nothing_is_coalesced() {
        let mut of = Published::new();
        for number in 0..2_000 {
            drop(of.arrive(number, &[(MatchType::Exact, "a")], None).unwrap());
        }
        let appends = of.publish();
        assert_eq!((appends.iter().sum::<usize>(), appends.iter().max()), (4_000, Some(&limits::PRESENCE_APPEND)));
        let long = "x".repeat(limits::PRESENCE_APPEND_BYTES / 20);
        let guest = of.arrive(1, &[(MatchType::Exact, "a"), (MatchType::Exact, "b"), (MatchType::Exact, "c")], Some(&long)).unwrap();
        assert_eq!(of.publish(), [2, 1]);
        drop(guest);
        of.publish();
        let state = of.register.state();
        assert_eq!((state.active.len(), state.changes.len(), state.connections, state.bytes), (0, 0, 0, 0));
    }

    /// The register is bounded, and gives back what was taken when the end is published, not before.
    #[test]
    fn it_is_bounded() {
        let of = Published::new();
        let large = "x".repeat(limits::PRESENCE_REGISTER_BYTES / 8);
        let subscriptions = [(MatchType::Exact, "a")];
        let mut guests: Vec<_> = (0..3).map(|number| of.arrive(number, &subscriptions, Some(&large)).unwrap()).collect();
        assert!(of.arrive(3, &subscriptions, Some(&large)).is_err());
        assert!(of.arrive(3, &subscriptions, None).is_ok());
        guests.pop();
        assert!(of.arrive(4, &subscriptions, Some(&large)).is_err(), "its end is not published");
        // Without the events themselves, which would be large.
        of.register.published(usize::MAX);
        assert!(of.arrive(5, &subscriptions, Some(&large)).is_ok());
        of.register.close();
        assert!(of.register.pending().is_none());
    }

    /// What a subscription counts for in the bound is what it costs.
    #[test]
    fn bytes_of_a_subscription() {
        const COUNT: usize = 10_000;
        let (payload, text) = (r#"{"user":"https://example.com/users/1234"}"#, 40 + 41);
        let mut of = Published::new();
        let mut guests = Vec::with_capacity(COUNT);
        let counted = measure(|| {
            for number in 0..COUNT {
                let matcher = format!("https://example.com/rooms/{number:014}");
                guests.push(of.arrive(number as u128, &[(MatchType::Exact, &matcher)], Some(payload)).unwrap());
            }
            of.publish();
        });
        let each = counted.bytes_current as usize / COUNT;
        assert!(each <= FIXED + 2 * text, "{each} bytes for a subscription");
    }

    /// W3 of the Mercure page: coming and going costs the same among few and many, in a storm of reconnects too.
    #[test]
    fn cost_does_not_grow() {
        const STORM: usize = 3_000;
        let allocations = [10, 10_000].map(|others| {
            let mut of = Published::new();
            let matcher = |number: usize| format!("room/{number}");
            let arrive = |of: &Published, number: usize| of.arrive(number as u128, &[(MatchType::Exact, &matcher(number))], None).unwrap();
            let _others: Vec<_> = (STORM..STORM + others).map(|number| arrive(&of, number)).collect();
            of.publish();
            measure(|| {
                let guests: Vec<_> = (0..STORM).map(|number| arrive(&of, number)).collect();
                of.publish();
                drop(guests);
                of.publish();
            })
            .count_total
        });
        // Nodes of the tree are shared by several, in another way each time.
        assert!(allocations[1] <= allocations[0] + allocations[0] / 20, "{allocations:?} for {STORM} subscriptions");
    }
}
