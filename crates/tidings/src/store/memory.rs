//! A store in memory: a bounded ring for each retention class, for tests, for embedding and for ephemeral hubs. It promises nothing
//! beyond the process's life.

use super::{
    Bounds, EventStore, Follower, KeyWindow, Once, OnceKey, PageLimits, Promises, StoreFuture, StoreReport,
    keys::{Entry, Keys, ids},
    latest::{Latest, latest_within},
    retention::{Gone, Limits, Rules},
};
use crate::PrefixRule;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    future::ready,
    ops::Bound,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};
use tidings_core::{
    Drafts, Epoch, EventId, Filter, GapReason, Matchers, Position, Record, Topic, Window, limits,
    shard::{Floors, Page},
};

/// The rings, bounded in bytes and events.
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
    rules: Rules,
    /// A ring for each class of the rules.
    rings: Vec<Ring>,
    latest: Latest,
    /// Those of the latest that have left their rings.
    beside: BTreeMap<u64, Record>,
    /// How many events are there that have topics of several classes.
    foreign: usize,
    head: u64,
    /// Places of a publisher's id, oldest first (M-90).
    ids: HashMap<Box<str>, VecDeque<u64>>,
    /// Newest event of each topic that has one.
    topics: BTreeMap<Topic, u64>,
    accepted_at: u64,
    /// The time when something was appended last, and since when it has gone on.
    told: Option<(u64, Instant)>,
    keys: Keys,
}

struct Ring {
    window: Window,
    gone: Gone,
    /// When its newest event was accepted that is gone.
    gone_at: u64,
    age_ms: Option<u64>,
}

impl MemoryStore {
    /// An empty log with a new epoch. Fails only where the system has no random bytes.
    pub fn new(max_bytes: usize, max_events: usize) -> Result<MemoryStore, getrandom::Error> {
        MemoryStore::with_prefixes(max_bytes, max_events, &[])
    }

    /// The same with exceptions for some topics: what [`PrefixRule`] says of retention and of what is kept. Each prefix that limits something
    /// has its own room beside the rest, and presence has a quarter of what the rest has, or 64 MiB. Ages count on
    /// while nothing is appended, by the clock that does not jump.
    pub fn with_prefixes(max_bytes: usize, max_events: usize, prefixes: &[PrefixRule]) -> Result<MemoryStore, getrandom::Error> {
        let epoch = Epoch(getrandom::u32()?);
        let rules = Rules::new(Limits::new(max_bytes as u64, max_events as u64, None), prefixes, std::iter::empty());
        let ring = |(class, limits): (usize, Limits)| Ring {
            window: Window::new(0, limits.bytes as usize, limits.events as usize),
            gone: Gone::blank(class, 0, 0),
            gone_at: 0,
            age_ms: limits.age_ms,
        };
        let rings = rules.classes().iter().map(|class| class.limits).enumerate().map(ring).collect();
        let log = Log {
            rules,
            rings,
            latest: latest_within(max_bytes as u64 / 2, |record| record.cost() as u64),
            beside: BTreeMap::new(),
            foreign: 0,
            head: 0,
            ids: HashMap::new(),
            topics: BTreeMap::new(),
            accepted_at: 0,
            told: None,
            keys: Keys::new(KeyWindow::default()),
        };
        Ok(MemoryStore { epoch, log: Mutex::new(log), follower: OnceLock::new() })
    }

    /// Remembers keys for another time or number than by default (N-6).
    #[must_use]
    pub fn key_window(self, window: KeyWindow) -> MemoryStore {
        self.log().keys = Keys::new(window);
        self
    }

    /// Appends under the lock, so that whoever follows gets the batches in the order of the log. The second list is what has left it: to be
    /// dropped without the lock, for it was not looked at for long and takes its time.
    fn append_to(&self, log: &mut Log, batch: Drafts, now: u64) -> (Vec<EventId>, Vec<Record>) {
        log.accepted_at = log.accepted_at.max(now);
        let (first, accepted_at) = (Position { epoch: self.epoch, sequence: log.head + 1 }, log.accepted_at);
        let records = Record::seal(batch, first, accepted_at);
        let ids = records.iter().map(Record::id).collect();
        // Whoever follows cannot look at the log before the lock is let go.
        if let Some(follower) = self.follower.get() {
            follower(&records);
        }
        let mut left = Vec::new();
        log.push(records, &mut left);
        log.retain(now, &mut left);
        // Where nothing ages, nobody looks at the clock.
        let ages = log.rings.iter().any(|ring| ring.age_ms.is_some() && !ring.window.is_empty());
        log.told = ages.then(|| (now, Instant::now()));
        log.keys.forget(accepted_at);
        (ids, left)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing in here panics half-way through a change; a panic elsewhere must not take the log away.
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((now, since)) = log.told {
            // Nobody reads what is too old by now, whether anything came since or not.
            log.retain(now.saturating_add(since.elapsed().as_millis() as u64), &mut Vec::new());
        }
        log
    }
}

impl Log {
    /// Appends records in order. Of those in a row with the same topics only the last is the topics' newest, both where they come in and
    /// where they leave.
    fn push(&mut self, records: Vec<Record>, gone: &mut Vec<Record>) {
        let run = |records: &[Record]| records.chunk_by(Record::has_topics_of).next().map_or(0, <[Record]>::len);
        let mut len = run(&records);
        // Those of one run are of one class, and nearly every append is one.
        let mixed = len < records.len() && self.rings.len() > 1 && {
            let mut classes = records.chunk_by(Record::has_topics_of).map(|run| self.rules.class_of(run[0].topics()));
            let first = classes.next();
            classes.any(|class| Some(class) != first)
        };
        let mut records = records.into_iter();
        while len > 0 {
            let newest = &records.as_slice()[len - 1];
            for topic in newest.topics() {
                match self.topics.get_mut(topic) {
                    Some(sequence) => *sequence = newest.position().sequence,
                    None => drop(self.topics.insert(topic.clone(), newest.position().sequence)),
                }
            }
            let class = self.rules.class_of(newest.topics());
            if self.rules.is_foreign(class, newest.topics()) {
                self.foreign += len;
            }
            let keeps = self.rules.keeps_latest(newest.topics());
            let from = gone.len();
            for record in records.by_ref().take(len) {
                self.head = record.position().sequence;
                if let Some(id) = record.publisher_id() {
                    self.ids.entry(id.into()).or_default().push_back(self.head);
                }
                // Those of another class may be gone long before it: it must not hold what they shared.
                let record = if mixed { record.alone() } else { record };
                if keeps {
                    self.replace(&record);
                }
                self.rings[class].window.push(record, |old| gone.push(old));
            }
            self.leave(class, &gone[from..]);
            len = run(records.as_slice());
        }
    }

    /// Takes one in that is the latest now.
    fn replace(&mut self, record: &Record) {
        let Log { rules, latest, beside, .. } = self;
        let mut gone = Vec::new();
        latest.push(rules, record, |sequence, _| gone.extend(beside.remove(&sequence)));
        for old in gone {
            let class = self.rules.class_of(old.topics());
            self.forget(class, &[old]);
        }
    }

    /// Some have left the ring of their class, in order.
    fn leave(&mut self, class: usize, left: &[Record]) {
        if self.latest.is_empty() {
            // Of those in a row with one audience it is enough to remember the last.
            let alike = |one: &Record, next: &Record| one.has_topics_of(next) && one.is_private() == next.is_private();
            for run in left.chunk_by(alike) {
                self.forget(class, run);
            }
            return;
        }
        for old in left {
            if self.latest.contains(old.position().sequence) {
                // It stays when those it came with have left.
                self.beside.insert(old.position().sequence, old.alone());
            } else {
                self.forget(class, std::slice::from_ref(old));
            }
        }
    }

    /// A run with one audience is gone for good.
    fn forget(&mut self, class: usize, run: &[Record]) {
        let Some(newest) = run.last() else { return };
        let ring = &mut self.rings[class];
        ring.gone.push(&self.rules, class, newest);
        ring.gone_at = ring.gone_at.max(newest.accepted_at());
        if !self.ids.is_empty() {
            for old in run {
                self.forget_id(old);
            }
        }
        let among_others = self.foreign > 0 || !self.beside.is_empty();
        if self.rules.is_foreign(class, newest.topics()) {
            self.foreign -= run.len();
        }
        for topic in newest.topics() {
            if self.topics.get(topic) == Some(&newest.position().sequence) {
                // Older ones can only be there where events of several classes share a topic, or some are kept longer than others.
                match among_others.then(|| self.newest_with(topic)).flatten() {
                    Some(older) => drop(self.topics.insert(topic.clone(), older)),
                    None => drop(self.topics.remove(topic)),
                }
            }
        }
    }

    fn forget_id(&mut self, old: &Record) {
        if let Some(id) = old.publisher_id()
            && let Some(places) = self.ids.get_mut(id)
        {
            if let Ok(at) = places.binary_search(&old.position().sequence) {
                places.remove(at);
            }
            if places.is_empty() {
                self.ids.remove(id);
            }
        }
    }

    fn newest_with(&self, topic: &Topic) -> Option<u64> {
        let all = self.rings.iter().flat_map(|ring| ring.window.after(0)).chain(self.beside.values());
        all.filter(|record| record.topics().contains(topic)).map(|record| record.position().sequence).max()
    }

    /// Removes what is too old.
    fn retain(&mut self, now: u64, gone: &mut Vec<Record>) {
        for class in 0..self.rings.len() {
            let Some(age) = self.rings[class].age_ms else { continue };
            let window = &mut self.rings[class].window;
            let from = gone.len();
            while window.first().is_some_and(|oldest| oldest.accepted_at().saturating_add(age) < now) {
                gone.extend(window.pop_oldest());
            }
            self.leave(class, &gone[from..]);
        }
    }

    fn floor(&self) -> u64 {
        self.rings.iter().map(|ring| ring.window.floor()).max().unwrap_or(0)
    }

    /// Nothing is kept up to here.
    fn low(&self) -> u64 {
        let first = self.rings.iter().filter_map(|ring| ring.window.first()).chain(self.beside.values().next());
        first.map(|record| record.position().sequence - 1).min().unwrap_or(self.head)
    }

    fn get(&self, sequence: u64) -> Option<&Record> {
        self.rings.iter().find_map(|ring| ring.window.get(sequence)).or_else(|| self.beside.get(&sequence))
    }

    fn id_at(&self, sequence: u64) -> Option<EventId> {
        self.get(sequence).map(Record::id)
    }

    /// Whether something after a place is gone that a reader wants and has not been told of.
    fn may_miss(&self, after: u64, filter: &Filter, known: &[u64]) -> bool {
        self.rings.iter().enumerate().any(|(class, ring)| {
            let after = after.max(known.get(class).copied().unwrap_or(0));
            after < ring.window.floor() && ring.gone.may_miss(&self.rules, class, after, filter)
        })
    }

    /// Everything after a place, in order.
    fn after(&self, after: u64) -> Merged<'_> {
        let rings = self.rings.iter().map(|ring| Box::new(ring.window.after(after)) as Box<dyn Iterator<Item = _>>);
        let beside = self.beside.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, record)| record);
        Merged::new(rings.chain([Box::new(beside) as Box<_>]), false)
    }

    /// Everything that is there, from the newest to the oldest.
    fn newest_first(&self) -> Merged<'_> {
        let rings = self.rings.iter().map(|ring| Box::new(ring.window.after(0).rev()) as Box<dyn Iterator<Item = _>>);
        Merged::new(rings.chain([Box::new(self.beside.values().rev()) as Box<_>]), true)
    }
}

type Run<'a> = Box<dyn Iterator<Item = &'a Record> + 'a>;

/// Several runs in order as one, each with what it gives next.
struct Merged<'a> {
    runs: Vec<(&'a Record, Run<'a>)>,
    descending: bool,
}

impl<'a> Merged<'a> {
    fn new(runs: impl Iterator<Item = Run<'a>>, descending: bool) -> Merged<'a> {
        Merged { runs: runs.filter_map(|mut run| Some((run.next()?, run))).collect(), descending }
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = &'a Record;

    fn next(&mut self) -> Option<Self::Item> {
        let sequence = |(_, (next, _)): &(usize, &(&Record, _))| next.position().sequence;
        let runs = self.runs.iter().enumerate();
        let (at, _) = if self.descending { runs.max_by_key(sequence) } else { runs.min_by_key(sequence) }?;
        let (next, run) = &mut self.runs[at];
        match run.next() {
            Some(further) => Some(std::mem::replace(next, further)),
            None => Some(self.runs.swap_remove(at).0),
        }
    }
}

/// A page of what comes, in order.
fn page<'a>(records: impl Iterator<Item = &'a Record>, after: u64, end: u64, filter: &Filter, limits: PageLimits) -> Page {
    let mut page = Page::new(Vec::new(), after);
    let mut bytes = 0;
    for (scanned, record) in records.take_while(|record| record.position().sequence <= end).enumerate() {
        let too_many = !page.records.is_empty() && bytes + record.cost() > limits.bytes;
        if scanned == limits.scanned || page.records.len() == limits.events || too_many {
            return page;
        }
        if filter.wants_record(record) {
            bytes += record.cost();
            page.records.push(record.clone());
        }
        page.covered_through = record.position().sequence;
    }
    page.covered_through = page.covered_through.max(end);
    page
}

impl EventStore for MemoryStore {
    fn promises(&self) -> Promises {
        Promises { durable: false, serves_any_lag: false }
    }

    fn bounds(&self) -> Bounds {
        let log = self.log();
        Bounds { epoch: self.epoch, low: log.low(), floor: log.floor(), head: log.head }
    }

    fn append(&self, batch: Drafts, now: u64) -> StoreFuture<'_, Vec<EventId>> {
        let (ids, _left) = self.append_to(&mut self.log(), batch, now);
        Box::pin(ready(Ok(ids)))
    }

    fn append_once(&self, batch: Drafts, key: OnceKey, now: u64) -> StoreFuture<'_, Once> {
        let (mut log, mut left) = (self.log(), Vec::new());
        let outcome = match log.keys.find(&key.name, now.max(log.accepted_at)) {
            Some(entry) if entry.key == key => Once::Before(ids(self.epoch, entry.first, &batch)),
            Some(_) => Once::Other,
            None => {
                let (first, ids);
                (first, (ids, left)) = (log.head + 1, self.append_to(&mut log, batch, now));
                if !ids.is_empty() {
                    let at = log.accepted_at;
                    log.keys.push(Entry { key, first, at });
                }
                Once::Kept(ids)
            }
        };
        drop(log);
        drop(left);
        Box::pin(ready(Ok(outcome)))
    }

    fn read_after<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        self.read_beyond(after, up_to, filter, &[], limits)
    }

    fn floors(&self) -> Floors {
        self.log().rings.iter().map(|ring| ring.window.floor()).collect()
    }

    fn read_beyond<'a>(
        &'a self,
        after: u64,
        up_to: u64,
        filter: &'a Filter,
        known: &'a [u64],
        limits: PageLimits,
    ) -> StoreFuture<'a, Page> {
        let log = self.log();
        let mut page = page(log.after(after), after, up_to.min(log.head), filter, limits);
        page.lost = log.may_miss(after, filter, known).then_some(GapReason::Evicted);
        Box::pin(ready(Ok(page)))
    }

    fn keeps_latest(&self, asked: &Matchers) -> bool {
        self.log().rules.may_keep_latest(asked)
    }

    fn read_latest<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        let log = self.log();
        let wanted = log.latest.wanted(after, up_to, filter);
        let records = wanted.iter().filter_map(|&sequence| log.get(sequence));
        Box::pin(ready(Ok(page(records, after, up_to, filter, limits))))
    }

    fn missing_after<'a>(&'a self, after: u64, filter: &'a Filter) -> StoreFuture<'a, Option<GapReason>> {
        Box::pin(ready(Ok(self.log().may_miss(after, filter, &[]).then_some(GapReason::Evicted))))
    }

    fn since<'a>(&'a self, moment: u64, filter: &'a Filter) -> StoreFuture<'a, (u64, Option<GapReason>)> {
        let log = self.log();
        // Times never decrease in the order of the log, of each ring and of all.
        let before = log.rings.iter().map(|ring| ring.window.before(moment)).max().unwrap_or(0);
        let missing = log
            .rings
            .iter()
            .enumerate()
            .any(|(class, ring)| ring.window.floor() > 0 && ring.gone_at >= moment && ring.gone.may_miss(&log.rules, class, 0, filter));
        Box::pin(ready(Ok((before, missing.then_some(GapReason::Evicted)))))
    }

    fn last<'a>(&'a self, count: usize, filter: &'a Filter) -> StoreFuture<'a, u64> {
        let log = self.log();
        let (mut left, mut after) = (count, if count == 0 { log.head } else { log.low() });
        for record in log.newest_first().take(limits::LAST_SCAN) {
            if left == 0 {
                break;
            }
            left -= usize::from(filter.wants_record(record));
            after = record.position().sequence - 1;
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
        let (events, bytes) =
            log.rings.iter().fold((0, 0), |(events, bytes), ring| (events + ring.window.len(), bytes + ring.window.bytes()));
        f.debug_struct("MemoryStore").field("events", &events).field("bytes", &bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Event, Framing, View};

    /// One event that stays of an append whose others go with their class: the store holds it and nothing of them, and counts what it holds.
    #[tokio::test]
    async fn one_that_stays_holds_none_of_those_it_came_with() {
        let mut short = PrefixRule::new("short");
        short.retention_events = Some(1);
        let store = MemoryStore::with_prefixes(1 << 20, 1_000, &[short]).unwrap();
        let (kept, others) = (Event::new("kept", "d").unwrap(), (0..50).map(|_| Event::new("short", "x".repeat(200)).unwrap()));
        store.append(Record::drafts([kept].into_iter().chain(others).collect()), 1).await.unwrap();
        let record = store.log().rings.iter_mut().find_map(|ring| ring.window.pop_oldest()).unwrap();
        assert_eq!(record.topics()[0].as_str(), "kept");
        assert_eq!(record.cost(), record.alone().cost());
        let bytes = record.wire_shared(View::First, Framing::Chunked);
        drop(record);
        let (len, buffer) = (bytes.len(), bytes.try_into_mut().expect("nobody else has it"));
        assert!(buffer.capacity() < 2 * len, "{} bytes are held for {len}", buffer.capacity());
    }
}
