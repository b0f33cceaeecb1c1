//! A store in memory: a bounded ring, for tests, for embedding and for ephemeral hubs. It promises nothing beyond the process's life.

use super::{
    Bounds, EventStore, Follower, KeyWindow, Once, OnceKey, PageLimits, Promises, StoreFuture, StoreReport,
    keys::{Entry, Keys, ids},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    future::ready,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tidings_core::{Draft, Epoch, EventId, Evicted, Filter, GapReason, Position, Record, Topic, Window, limits, shard::Page};

/// The ring, bounded in bytes and events.
///
/// ```
/// use tidings::{EventStore, MemoryStore};
/// let store = MemoryStore::new(1 << 20, 1_000).expect("random bytes for the epoch");
/// assert_eq!(store.bounds().head, 0);
/// assert!(!store.promises().durable);
/// ```
pub struct MemoryStore {
    epoch: Epoch,
    log: Mutex<Log>,
    follower: OnceLock<Follower>,
}

struct Log {
    window: Window,
    evicted: Evicted,
    /// Places of a publisher's id, oldest first (M-90).
    ids: HashMap<Box<str>, VecDeque<u64>>,
    /// Newest event of each topic that has one.
    topics: BTreeMap<Topic, u64>,
    accepted_at: u64,
    keys: Keys,
    /// When the newest event was accepted that is gone.
    evicted_at: u64,
}

impl MemoryStore {
    /// An empty log with a new epoch. Fails only where the system has no random bytes.
    pub fn new(max_bytes: usize, max_events: usize) -> Result<MemoryStore, getrandom::Error> {
        let epoch = Epoch(getrandom::u32()?);
        let log = Log {
            window: Window::new(0, max_bytes, max_events),
            evicted: Evicted::new(0, limits::EVICTED_AUDIENCES, limits::EVICTED_BYTES),
            ids: HashMap::new(),
            topics: BTreeMap::new(),
            accepted_at: 0,
            keys: Keys::new(KeyWindow::default()),
            evicted_at: 0,
        };
        Ok(MemoryStore { epoch, log: Mutex::new(log), follower: OnceLock::new() })
    }

    /// Remembers keys for another time or number than by default (N-6).
    #[must_use]
    pub fn key_window(self, window: KeyWindow) -> MemoryStore {
        self.log().keys = Keys::new(window);
        self
    }

    /// Appends under the lock, so that whoever follows gets the batches in the order of the log.
    fn append_to(&self, log: &mut Log, batch: Vec<Draft>, now: u64) -> Vec<Arc<Record>> {
        log.accepted_at = log.accepted_at.max(now);
        let (mut sequence, accepted_at) = (log.window.head(), log.accepted_at);
        let seal = |draft: Draft| {
            sequence += 1;
            Arc::new(draft.seal(Position { epoch: self.epoch, sequence }, accepted_at))
        };
        let records: Vec<Arc<Record>> = batch.into_iter().map(seal).collect();
        log.push(&records);
        log.keys.forget(accepted_at);
        if let Some(follower) = self.follower.get() {
            follower(&records);
        }
        records
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing in here panics half-way through a change; a panic elsewhere must not take the log away.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Appends records in order. Of those in a row with the same topics only the last is the topics' newest, both where they come in and
    /// where they leave.
    fn push(&mut self, records: &[Arc<Record>]) {
        let Log { window, evicted, ids, topics, evicted_at, .. } = self;
        let mut left: Option<Arc<Record>> = None;
        for run in records.chunk_by(|one, next| one.topics() == next.topics()) {
            let newest = &run[run.len() - 1];
            for topic in newest.topics() {
                match topics.get_mut(topic) {
                    Some(sequence) => *sequence = newest.position().sequence,
                    None => drop(topics.insert(topic.clone(), newest.position().sequence)),
                }
            }
            for record in run {
                if let Some(id) = record.publisher_id() {
                    ids.entry(id.into()).or_default().push_back(record.position().sequence);
                }
                window.push(record.clone(), |old| {
                    evicted.push(&old);
                    *evicted_at = old.accepted_at();
                    if let Some(id) = old.publisher_id() {
                        forget_id(ids, id);
                    }
                    if let Some(before) = left.take_if(|before| before.topics() != old.topics()) {
                        forget_topics(topics, &before);
                    }
                    left = Some(old);
                });
            }
        }
        if let Some(last) = left {
            forget_topics(topics, &last);
        }
    }

    fn id_at(&self, sequence: u64) -> Option<EventId> {
        self.window.get(sequence).map(|record| record.id())
    }
}

/// The oldest event with this id is gone.
fn forget_id(ids: &mut HashMap<Box<str>, VecDeque<u64>>, id: &str) {
    if let Some(places) = ids.get_mut(id) {
        places.pop_front();
        if places.is_empty() {
            ids.remove(id);
        }
    }
}

/// A record is gone, and everything before it.
fn forget_topics(topics: &mut BTreeMap<Topic, u64>, record: &Record) {
    for topic in record.topics() {
        if topics.get(topic) == Some(&record.position().sequence) {
            topics.remove(topic);
        }
    }
}

impl EventStore for MemoryStore {
    fn promises(&self) -> Promises {
        Promises { durable: false, serves_any_lag: false }
    }

    fn bounds(&self) -> Bounds {
        let log = self.log();
        Bounds { epoch: self.epoch, floor: log.window.floor(), head: log.window.head() }
    }

    fn append(&self, batch: Vec<Draft>, now: u64) -> StoreFuture<'_, Vec<EventId>> {
        let records = self.append_to(&mut self.log(), batch, now);
        Box::pin(ready(Ok(records.iter().map(|record| record.id()).collect())))
    }

    fn append_once(&self, batch: Vec<Draft>, key: OnceKey, now: u64) -> StoreFuture<'_, Once> {
        let mut log = self.log();
        let outcome = match log.keys.find(&key.name, now.max(log.accepted_at)) {
            Some(entry) if entry.key == key => Once::Before(ids(self.epoch, entry.first, &batch)),
            Some(_) => Once::Other,
            None => {
                let records = self.append_to(&mut log, batch, now);
                if let Some(first) = records.first() {
                    let (first, at) = (first.position().sequence, log.accepted_at);
                    log.keys.push(Entry { key, first, at });
                }
                Once::Kept(records.iter().map(|record| record.id()).collect())
            }
        };
        drop(log);
        Box::pin(ready(Ok(outcome)))
    }

    fn read_after<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        let log = self.log();
        let lost = log.evicted.may_miss(after, filter).then_some(GapReason::Evicted);
        let mut records: Vec<Arc<Record>> = Vec::new();
        let (mut bytes, mut covered, mut complete) = (0, after, true);
        for (scanned, record) in log.window.after(after).take_while(|record| record.position().sequence <= up_to).enumerate() {
            if scanned == limits.scanned || records.len() == limits.events || (!records.is_empty() && bytes + record.cost() > limits.bytes)
            {
                complete = false;
                break;
            }
            if filter.wants_record(record) {
                bytes += record.cost();
                records.push(record.clone());
            }
            covered = record.position().sequence;
        }
        let covered = if complete { covered.max(up_to.min(log.window.head())) } else { covered };
        let mut page = Page::new(records, covered);
        page.lost = lost;
        Box::pin(ready(Ok(page)))
    }

    fn missing_after<'a>(&'a self, after: u64, filter: &'a Filter) -> StoreFuture<'a, Option<GapReason>> {
        Box::pin(ready(Ok(self.log().evicted.may_miss(after, filter).then_some(GapReason::Evicted))))
    }

    fn since<'a>(&'a self, moment: u64, filter: &'a Filter) -> StoreFuture<'a, (u64, Option<GapReason>)> {
        let log = self.log();
        let missing = log.window.floor() > 0 && log.evicted_at >= moment && log.evicted.may_miss(0, filter);
        Box::pin(ready(Ok((log.window.before(moment), missing.then_some(GapReason::Evicted)))))
    }

    fn last<'a>(&'a self, count: usize, filter: &'a Filter) -> StoreFuture<'a, u64> {
        let log = self.log();
        if count == 0 {
            return Box::pin(ready(Ok(log.window.head())));
        }
        let (mut left, mut after) = (count, log.window.floor());
        for record in log.window.after(0).rev().take(limits::LAST_SCAN) {
            after = record.position().sequence - 1;
            left -= usize::from(filter.wants_record(record));
            if left == 0 {
                break;
            }
        }
        Box::pin(ready(Ok(after)))
    }

    fn resolve<'a>(&'a self, id: &'a str) -> StoreFuture<'a, Option<Position>> {
        let sequence = self.log().ids.get(id).and_then(|places| places.front().copied());
        Box::pin(ready(Ok(sequence.map(|sequence| Position { epoch: self.epoch, sequence }))))
    }

    fn newest<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Option<EventId>> {
        let log = self.log();
        let newest = log.topics.get(topic).and_then(|&sequence| log.id_at(sequence));
        Box::pin(ready(Ok(newest)))
    }

    fn topics<'a>(&'a self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<(Topic, EventId)>> {
        let log = self.log();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = log.topics.range::<str, _>((from, Bound::Unbounded));
        let topics = range.filter_map(|(topic, &sequence)| Some((topic.clone(), log.id_at(sequence)?))).take(limit).collect();
        Box::pin(ready(Ok(topics)))
    }

    fn report(&self) -> StoreReport {
        StoreReport { keys: self.log().keys.len() as u64, ..StoreReport::default() }
    }

    fn follow(&self, follower: Follower) {
        assert!(self.follower.set(follower).is_ok(), "a store has one follower");
    }
}

impl fmt::Debug for MemoryStore {
    /// Sizes, not contents: a log in a log file helps nobody and may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log();
        f.debug_struct("MemoryStore").field("events", &log.window.len()).field("bytes", &log.window.bytes()).finish_non_exhaustive()
    }
}
