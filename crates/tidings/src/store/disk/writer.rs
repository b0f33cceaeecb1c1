//! The one thread that writes: it takes every append that waits, numbers and writes them with one call, syncs once, shows them, and
//! answers (group commit). Every sync, and what happens after a failed one, is decided here.
//!
//! It knows what is on disk. What readers are shown is the log's.

use super::{
    DiskOptions, Durability,
    files::{File, Files, Why},
    format::{AppendHeader, Footer, Gap, HEADER, Missing, SegmentHeader, segment_name},
    index::MemoryIndex,
    keyring::Keyring,
    log::{Active, Log},
    state::Durable,
};
use crate::store::{
    Follower, Once, OnceKey, StoreError,
    keys::{Entry, ids},
};
use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tidings_core::{Drafts, EventId, Position, Record, limits};
use tokio::sync::oneshot;

/// Bytes of events written with one call, more or less: further appends wait for the next one.
const GROUP: usize = 8 << 20;
/// A segment ends when its index in memory takes this much.
const INDEX: usize = 16 << 20;
/// Numbers are reserved so many at a time: each reservation is a sync, and each crash leaves up to so many of them unused.
const BLOCK: u64 = 1 << 16;
/// After a failure a new file is tried this often.
const AGAIN: Duration = Duration::from_secs(1);

/// An append that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) drafts: Drafts,
    /// Under which it is appended once (N-6).
    pub(super) key: Option<OnceKey>,
    pub(super) now: u64,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What became of an append.
pub(super) type Answer = Result<Once, StoreError>;

impl Waiting {
    fn cost(&self) -> usize {
        self.drafts.cost()
    }
}

/// Appends on their way to the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Lane>,
    arrived: Condvar,
    /// Why the writer refuses, if it does.
    refusing: Mutex<Option<StoreError>>,
}

#[derive(Debug, Default)]
struct Lane {
    appends: VecDeque<Waiting>,
    /// What they cost.
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an append over, unless nobody writes any more, or too much waits already.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), StoreError> {
        let cost = waiting.cost();
        let mut lane = self.lane();
        if lane.closed {
            return Err(StoreError::Unavailable("the log is closed".into()));
        }
        if !lane.appends.is_empty() && lane.bytes + cost > limits::STORE_QUEUE_BYTES {
            return Err(StoreError::Unavailable("more events wait than the disk keeps up with; publish again in a moment".into()));
        }
        lane.bytes += cost;
        lane.appends.push_back(waiting);
        // The writer only waits when there was nothing.
        if lane.appends.len() == 1 {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Why appends are refused now.
    pub(super) fn refusing(&self) -> Option<StoreError> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_refusing(&self, error: Option<StoreError>) {
        *self.refusing.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Nothing more is accepted; what waits is still written.
    pub(super) fn close(&self) {
        self.lane().closed = true;
        self.arrived.notify_one();
    }

    /// The writer is gone: who waits must not wait for ever.
    fn abandon(&self) {
        self.set_refusing(Some(StoreError::Unavailable("the log is closed".into())));
        let mut lane = self.lane();
        lane.closed = true;
        lane.bytes = 0;
        lane.appends.clear();
    }

    /// What waits, up to a group; nothing when the time is over; `None` when nothing will ever come.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Waiting>> {
        let mut lane = self.lane();
        while lane.appends.is_empty() {
            if lane.closed {
                return None;
            }
            lane = match until {
                None => self.arrived.wait(lane).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Some(Vec::new());
                    }
                    self.arrived.wait_timeout(lane, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP
            && let Some(waiting) = lane.appends.pop_front()
        {
            bytes += waiting.cost();
            group.push(waiting);
        }
        lane.bytes -= bytes;
        Some(group)
    }
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) log: Arc<Log>,
    pub(super) durable: Arc<Durable>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) queue: Arc<Queue>,
    pub(super) follower: Arc<OnceLock<Follower>>,
    pub(super) options: DiskOptions,
    /// Told when a segment was finished: there is an index to write, and perhaps something to remove.
    pub(super) finished: Box<dyn Fn() + Send>,
    pub(super) file: Option<Open>,
    /// The serial of the newest segment, and how much of it counts.
    pub(super) prior: (u64, u64),
    /// The last number given out.
    pub(super) given: u64,
    /// The last one that is kept.
    pub(super) kept: u64,
    pub(super) accepted_at: u64,
    /// After a failure: when a new file is tried, and what publishers are told until then.
    pub(super) refusing: Option<(Instant, StoreError)>,
    /// What the log took when the last segment was begun, and how long the next one waits for room.
    pub(super) taken: u64,
    pub(super) patience: Duration,
}

/// The file being written.
#[derive(Debug)]
pub(super) struct Open {
    file: Arc<dyn File>,
    header: SegmentHeader,
    len: u64,
    /// Everything before this place was on disk, and so was every event up to this one.
    synced: (u64, u64),
    /// Since when something is not.
    dirty: Option<Instant>,
}

/// An append to be written.
struct Append {
    drafts: Drafts,
    key: Option<OnceKey>,
    now: u64,
}

/// Who is told of an append: who asked for it, and who came with its key before it was written.
struct Asked {
    answer: oneshot::Sender<Answer>,
    count: usize,
    same: Vec<oneshot::Sender<Answer>>,
    other: Vec<oneshot::Sender<Answer>>,
}

/// One group, written down.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    records: Vec<Record>,
    offsets: Vec<u32>,
    keys: Vec<Entry>,
}

/// What a publisher is told.
pub(super) fn store_error(error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::NoSpace,
        _ => StoreError::Unavailable(error.to_string()),
    }
}

impl Writer {
    /// Runs until the queue is closed, and then closes the log properly.
    pub(super) fn run(mut self) {
        loop {
            let sync_at = self.file.as_ref().and_then(|open| Some(open.dirty? + self.interval()?));
            let again_at = self.refusing.as_ref().map(|(at, _)| *at);
            let Some(group) = self.queue.take(sync_at.into_iter().chain(again_at).min()) else { break };
            if sync_at.is_some_and(|at| at <= Instant::now()) {
                self.sync_late();
            }
            if !group.is_empty() {
                self.commit(group);
            } else if again_at.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the log could not be closed properly; the next start reads its newest part through");
        }
    }

    fn interval(&self) -> Option<Duration> {
        match self.options.durability {
            Durability::Interval(every) => Some(every),
            Durability::Sync | Durability::None => None,
        }
    }

    /// One group from the queue to its answers.
    pub(super) fn commit(&mut self, waiting: Vec<Waiting>) {
        let (appends, asked) = self.sort_out(waiting);
        if appends.is_empty() {
            return;
        }
        let events = appends.iter().map(|append| append.drafts.len() as u64).sum();
        let ready = match &self.refusing {
            Some((at, error)) if Instant::now() < *at => Err(error.clone()),
            _ => self.prepare(events).map_err(|error| self.refuse(&error)),
        };
        let written = ready.and_then(|()| self.write(appends).map_err(|error| self.refuse(&error)));
        match written {
            Err(error) => {
                for Asked { answer, same, other, .. } in asked {
                    for answer in [answer].into_iter().chain(same).chain(other) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
            Ok(records) => {
                self.accept();
                if let Some(follower) = self.follower.get() {
                    follower(&records);
                }
                let mut ids = records.iter().map(Record::id);
                // Whoever waited may be gone; the event is kept all the same.
                for Asked { answer, count, same, other } in asked {
                    let ids: Vec<EventId> = ids.by_ref().take(count).collect();
                    for answer in same {
                        let _ = answer.send(Ok(Once::Before(ids.clone())));
                    }
                    for answer in other {
                        let _ = answer.send(Ok(Once::Other));
                    }
                    let _ = answer.send(Ok(Once::Kept(ids)));
                }
            }
        }
    }

    /// Answers what was appended before, whatever the disk does now, and joins those who came with the same key to the first of them.
    fn sort_out(&self, waiting: Vec<Waiting>) -> (Vec<Append>, Vec<Asked>) {
        let (mut appends, mut asked): (Vec<Append>, Vec<Asked>) = (Vec::new(), Vec::new());
        let mut first: HashMap<[u8; 16], usize> = HashMap::new();
        for Waiting { drafts, key, now, answer } in waiting {
            if let Some(key) = &key {
                if let Some(entry) = self.keyring.table().find(&key.name, now.max(self.accepted_at)) {
                    let same = entry.key == *key;
                    let outcome = if same { Once::Before(ids(self.log.epoch, entry.first, &drafts)) } else { Once::Other };
                    let _ = answer.send(Ok(outcome));
                    continue;
                }
                if let Some(&at) = first.get(&key.name) {
                    let Asked { same, other, .. } = &mut asked[at];
                    if appends[at].key.as_ref() == Some(key) {
                        same.push(answer);
                    } else {
                        other.push(answer);
                    }
                    continue;
                }
                first.insert(key.name, appends.len());
            }
            asked.push(Asked { answer, count: drafts.len(), same: Vec::new(), other: Vec::new() });
            appends.push(Append { drafts, key, now });
        }
        (appends, asked)
    }

    pub(super) fn refuse(&mut self, error: &io::Error) -> StoreError {
        if self.refusing.is_none() {
            tracing::error!(%error, "the log cannot be written; publishing is refused until a new file can be");
        }
        let answer = store_error(error);
        self.refusing = Some((Instant::now() + AGAIN, answer.clone()));
        self.queue.set_refusing(Some(answer.clone()));
        answer
    }

    fn accept(&mut self) {
        if self.refusing.take().is_some() {
            tracing::info!("the log can be written again");
            self.queue.set_refusing(None);
        }
    }

    /// Whether a new file works by now: a hub that says it is not ready gets no publishes that would find out.
    fn try_again(&mut self) {
        match self.prepare(0) {
            Ok(()) => self.accept(),
            Err(error) => drop(self.refuse(&error)),
        }
    }

    /// Everything that has to be on disk before so many numbers can be given out.
    fn prepare(&mut self, events: u64) -> io::Result<()> {
        if !self.log.files.is_there() {
            return Err(io::Error::new(ErrorKind::NotFound, "the data directory was removed or replaced; restart to begin a new log"));
        }
        let index = self.log.view().active.as_ref().map_or(0, |active| active.index.bytes);
        if self.file.as_ref().is_some_and(|open| open.len >= self.options.segment_bytes || index >= INDEX) {
            self.finish()?;
        }
        if self.durable.is_unsaved() {
            self.durable.update(|_| ())?;
        }
        if self.given + events > self.durable.reserved() {
            let reserved = self.given + events + BLOCK;
            self.durable.update(|state| state.reserved = reserved)?;
        }
        if self.file.is_some() {
            return Ok(());
        }
        self.taken = self.log.wait_for_room(self.taken, self.patience);
        self.begin()
    }

    fn begin(&mut self) -> io::Result<()> {
        let files = &*self.log.files;
        let header = SegmentHeader {
            epoch: self.log.epoch,
            serial: self.prior.0 + 1,
            first: self.given + 1,
            follows: self.kept,
            prior_len: self.prior.1,
            created: self.accepted_at,
            seed: files.random()?,
            rewritten: None,
        };
        let name = segment_name(header.serial);
        let make = || {
            let file = match files.create(&name) {
                // Left over from an attempt that failed; nothing in it was ever answered.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    files.remove(&name)?;
                    files.create(&name)?
                }
                other => other?,
            };
            file.write_at(&header.to_bytes(), 0)?;
            files.sync_names(Why::SegmentName)?;
            Ok(file)
        };
        let file = make().inspect_err(|_: &io::Error| drop(files.remove(&name)))?;
        let len = HEADER as u64;
        self.file = Some(Open { file, header, len, synced: (len, self.kept), dirty: None });
        self.log.view().active = Some(Active { header, len, accepted_at: self.accepted_at, index: MemoryIndex::default() });
        Ok(())
    }

    /// Ends the segment that is being written: nothing is in a later one before all of this one is on disk.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(open) = &self.file else { return Ok(()) };
        let Some(count) = (self.kept + 1).checked_sub(open.header.first).filter(|&count| count > 0) else {
            self.give_up(false);
            return Ok(());
        };
        let count = count as u32;
        let footer = Footer { epoch: self.log.epoch, count, last: self.kept, at: open.len, accepted_at: self.accepted_at };
        let ended = open.file.write_at(&footer.to_bytes(), open.len).and_then(|()| open.file.sync(Why::Finished));
        if let Err(error) = ended {
            self.give_up(true);
            return Err(error);
        }
        self.put_away();
        Ok(())
    }

    /// The active segment becomes a finished one.
    fn put_away(&mut self) {
        let Some(open) = self.file.take() else { return };
        let mut view = self.log.view();
        if let Some(active) = view.active.take() {
            self.prior = (open.header.serial, active.len);
            view.segments.push_back(Arc::new(active.finish()));
        }
        drop(view);
        (self.finished)();
    }

    /// Numbers, writes, syncs and shows.
    fn write(&mut self, appends: Vec<Append>) -> io::Result<Vec<Record>> {
        let Some(open) = &mut self.file else { return Err(io::Error::other("no segment is open")) };
        let mut group = Group::default();
        for Append { drafts, key, now } in appends {
            self.accepted_at = self.accepted_at.max(now);
            let first = self.given + 1;
            let count = drafts.len() as u32;
            if count == 0 {
                continue;
            }
            let from = group.records.len();
            let place = Position { epoch: open.header.epoch, sequence: first };
            group.records.extend(Record::seal(drafts, place, self.accepted_at));
            self.given += u64::from(count);
            let Group { bytes, records, offsets, keys } = &mut group;
            keys.extend(key.map(|key| Entry { key, first, at: self.accepted_at }));
            let placed = |at: usize| offsets.push((open.len + at as u64) as u32);
            AppendHeader {
                epoch: open.header.epoch,
                first,
                synced: open.synced.0,
                accepted_at: self.accepted_at,
                count,
                body_len: 0,
                key_len: 0,
            }
            .put(open.header.seed, bytes, key, records[from..].iter(), placed);
        }
        if let Err(error) = open.file.write_at(&group.bytes, open.len) {
            self.give_up(false);
            return Err(error);
        }
        let len = open.len + group.bytes.len() as u64;
        if self.options.durability == Durability::Sync {
            if let Err(error) = open.file.sync(Why::Appends) {
                self.give_up(true);
                return Err(error);
            }
            open.synced = (len, self.given);
        } else {
            open.dirty.get_or_insert_with(Instant::now);
        }
        open.len = len;
        self.kept = self.given;
        self.log.show(&group.records, &group.offsets, len);
        let mut table = self.keyring.table();
        table.forget(self.accepted_at);
        group.keys.into_iter().for_each(|entry| table.push(entry));
        drop(table);
        Ok(group.records)
    }

    /// Syncs what was answered before it was on disk.
    fn sync_late(&mut self) {
        let Some(open) = &mut self.file else { return };
        match open.file.sync(Why::Appends) {
            Ok(()) => (open.synced, open.dirty) = ((open.len, self.kept), None),
            Err(error) => {
                self.give_up(true);
                let _ = self.refuse(&error);
            }
        }
    }

    /// A write or a sync failed: nothing more goes to this file. After a failed sync nobody knows what is on disk, so only what was synced
    /// before counts, and the sync is not tried again, for the system may have dropped the pages. The next segment's header says how much
    /// of this one counts, so it does not matter whether cutting it off works.
    fn give_up(&mut self, sync_failed: bool) {
        let Some(open) = self.file.take() else { return };
        // Nothing is in a later segment before all of this one is on disk.
        let sync_failed = sync_failed || (open.dirty.is_some() && open.file.sync(Why::Finished).is_err());
        let (len, last) = if sync_failed { open.synced } else { (open.len, self.kept) };
        if let Err(error) = open.file.truncate(len) {
            tracing::warn!(%error, serial = open.header.serial, "a segment could not be cut off");
        }
        let gap = Gap { after: last, through: self.kept, why: Missing::Lost };
        self.kept = last;
        self.keyring.table().truncate(last);
        let mut view = self.log.view();
        let Some(mut active) = view.active.take() else { return };
        active.index.truncate((last + 1).saturating_sub(open.header.first) as usize);
        active.len = len;
        let lost = gap.after < gap.through;
        if lost {
            view.lose(gap);
            self.log.latest().forget_after(last);
        }
        let empty = active.index.offsets.is_empty();
        if !empty {
            self.prior = (open.header.serial, len);
            view.segments.push_back(Arc::new(active.finish()));
        }
        drop(view);
        if lost {
            tracing::error!(events = gap.through - gap.after, "events were delivered that are not on disk and are gone; readers are told");
            // Somebody may be saving the state: readers must not wait for that.
            self.durable.note_gap(gap);
        }
        if empty {
            let _ = self.log.files.remove(&segment_name(open.header.serial));
        } else {
            (self.finished)();
        }
    }

    /// Finishes what is open, and says that nothing is missing.
    fn close(&mut self) -> io::Result<()> {
        self.finish()?;
        let (head, last, newest) = (self.log.view().head, self.kept, self.prior);
        self.durable.update(|state| (state.closed, state.head, state.last, state.newest) = (true, head, last, newest))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::Event;

    fn waiting(bytes: usize) -> Waiting {
        let event = Event::new("t", "x".repeat(bytes)).unwrap();
        Waiting { drafts: Record::draft(event).into(), key: None, now: 0, answer: oneshot::channel().0 }
    }

    /// What waits for a disk that does not keep up is bounded, and there is room again when it was taken.
    #[test]
    fn the_queue_is_bounded() {
        const EACH: usize = 1 << 20;
        let queue = Queue::default();
        for _ in 0..limits::STORE_QUEUE_BYTES / EACH - 1 {
            queue.push(waiting(EACH)).unwrap();
        }
        assert!(queue.push(waiting(EACH)).unwrap_err().to_string().contains("publish again"));
        assert!(!queue.take(None).unwrap().is_empty());
        queue.push(waiting(EACH)).unwrap();
    }
}
