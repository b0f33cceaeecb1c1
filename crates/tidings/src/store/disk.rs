//! A store on disk: a segmented log with one sync for everybody who waits, an index beside each finished segment, and numbers that are
//! never given twice. The decision stands in `docs/design/durable-log.md`, the bytes in `docs/formats/log.md`.
//!
//! Here its parts are joined: the writer and the keeper, a thread each, and the log that readers see.

mod apart;
mod aside;
#[cfg(test)]
mod bad_days;
mod cached;
#[cfg(test)]
mod class_trials;
#[cfg(test)]
mod damage;
mod directory;
mod epoch;
mod evicted;
mod files;
mod format;
#[cfg(test)]
mod held_up;
mod index;
mod keeper;
mod keyring;
mod ledger;
mod log;
mod names;
mod overlay;
mod page_writer;
mod places;
mod recovery;
mod rewrite;
#[cfg(test)]
mod rewrite_trials;
mod room;
#[cfg(test)]
mod room_trials;
mod scan;
mod sections;
mod segment;
#[cfg(test)]
mod simulated;
mod standing;
mod state;
#[cfg(test)]
mod trials;
mod verify;
mod writer;

use super::{Bounds, EventStore, Follower, KeyWindow, Once, OnceKey, PageJob, PageLimits, Promises, StoreError, StoreFuture, StoreReport};
use crate::PrefixRule;
use cached::Cached;
pub use directory::{LogDirectory, LogReport, MissingReport, NewEpoch, SegmentReport};
use files::{Directory, Files, TakeError};
use keeper::Keeper;
use keyring::Keyring;
use log::{Log, RewrittenTotals};
use recovery::{Recovered, recover};
use state::Durable;
use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tidings_core::{
    Drafts, EventId, Filter, GapReason, Matchers, Position, Topic, limits,
    shard::{Floors, Page},
};
use tokio::sync::oneshot;
pub use verify::{Finding, Verified};
use writer::{Queue, Waiting, Writer, store_error};

/// Bytes that one append may have: offsets in a segment have 32 bits.
const LARGEST: usize = 1 << 30;

/// When an event counts as kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Durability {
    /// Once it is on disk. Only then is it answered and delivered, so no crash undoes what anybody has seen.
    Sync,
    /// Once the system has it; synced at least this often. A crash of the system may undo as much, and readers are told so.
    Interval(Duration),
    /// Once the system has it; when it reaches the disk is the system's business. Readers are told what a crash may have undone.
    None,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// When an event counts as kept.
    pub durability: Durability,
    /// Bytes on disk, indexes included; beyond it the oldest events are removed, by the segment. The segment being written always stays.
    pub retention_bytes: u64,
    /// Events; beyond it the oldest are no longer served, and removed by the segment.
    pub retention_events: u64,
    /// Age after which events may be removed: those of a segment go when the newest of them is older.
    pub retention_age: Option<Duration>,
    /// Bytes after which a new segment is begun, from 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// How long the keys of appends count, and how many (N-6). They outlive the events: retention has no part in it.
    pub keys: KeyWindow,
    /// Exceptions for some topics: what [`PrefixRule`] says of retention and of what is kept. Topics whose rule limits something are a class of
    /// retention: they are counted by themselves, and what they remove is told only to those who may have lost some of it. The canonical topic
    /// of an event decides.
    pub prefixes: Vec<PrefixRule>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions {
            durability: Durability::Sync,
            retention_bytes: limits::RETENTION_BYTES,
            retention_events: u64::MAX,
            retention_age: Some(Duration::from_millis(limits::RETENTION_MS)),
            segment_bytes: limits::SEGMENT_BYTES,
            keys: KeyWindow::default(),
            prefixes: Vec::new(),
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("the data directory {path} is used by another hub, process {by}; stop it, or choose another directory")]
    InUse {
        /// The directory.
        path: String,
        /// The other's process id, or `?`.
        by: String,
    },
    /// It cannot be read or written, or holds something else.
    #[error("the data directory {path} cannot be used: {error}")]
    Io {
        /// The directory.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// Something in it cannot be read, and what was asked for would leave that out without telling anybody.
    #[error("the log in {path} is damaged in {places} places")]
    Damaged {
        /// The directory.
        path: String,
        /// In how many places.
        places: u64,
    },
}

/// The log on disk. Dropping it closes it properly.
///
/// ```
/// use tidings::{DiskOptions, DiskStore, EventStore};
/// # let directory = tempfile::tempdir()?;
/// let store = DiskStore::open(directory.path(), DiskOptions::default())?;
/// assert!(store.promises().durable);
/// assert!(DiskStore::open(directory.path(), DiskOptions::default()).is_err(), "one hub has it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskStore {
    log: Arc<Log>,
    queue: Arc<Queue>,
    keyring: Arc<Keyring>,
    follower: Arc<OnceLock<Follower>>,
    durable: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    torn: u64,
}

/// A log without its threads.
struct Parts {
    log: Arc<Log>,
    writer: Writer,
    keeper: Keeper,
    torn: u64,
}

fn assemble(files: Arc<dyn Files>, options: DiskOptions, finished: Box<dyn Fn() + Send>) -> io::Result<Parts> {
    let Recovered { epoch, durable, rules, view, latest, gone, keyring, prior, kept, accepted_at, torn } = recover(&files, &options)?;
    let given = view.head;
    let log = Arc::new(Log::new(Arc::new(Cached::new(files)), epoch, rules, view, latest, gone));
    log.find_latest()?;
    let durable: Arc<Durable> = Arc::new(durable);
    let keyring = Arc::new(keyring);
    let keeper = Keeper::new(log.clone(), durable.clone(), keyring.clone());
    let newest = log.view().segments.back().filter(|newest| newest.header.serial & aside::ASIDE == 0).map_or(0, |newest| newest.taken());
    let taken = log.taken() - newest;
    let writer = Writer {
        log: log.clone(),
        durable,
        keyring,
        queue: Arc::default(),
        follower: Arc::default(),
        options,
        finished,
        file: None,
        prior,
        given,
        kept,
        accepted_at,
        refusing: None,
        taken,
        patience: Duration::ZERO,
    };
    Ok(Parts { log, writer, keeper, torn })
}

fn take(path: &Path) -> Result<Directory, OpenError> {
    let shown = path.display().to_string();
    Directory::take(path.into()).map_err(|error| match error {
        TakeError::Locked(by) if by.is_empty() => OpenError::InUse { path: shown, by: "?".into() },
        TakeError::Locked(by) => OpenError::InUse { path: shown, by },
        TakeError::Io(error) => OpenError::Io { path: shown, error },
    })
}

impl DiskStore {
    /// Opens the log in a directory, or begins one there. Reads through what a crash may have left unfinished, so it may take a moment.
    pub fn open(path: impl AsRef<Path>, mut options: DiskOptions) -> Result<DiskStore, OpenError> {
        options.segment_bytes = options.segment_bytes.clamp(64 << 10, LARGEST as u64);
        let path = path.as_ref();
        let io = |error| OpenError::Io { path: path.display().to_string(), error };
        let directory = take(path)?;
        let (tell, told) = mpsc::channel();
        let durable = options.durability == Durability::Sync;
        let finished = Box::new(move || {
            // A keeper that is gone has nothing to do any more.
            let _ = tell.send(());
        });
        let Parts { log, mut writer, keeper, torn } = assemble(Arc::new(directory), options, finished).map_err(io)?;
        writer.patience = Duration::from_millis(limits::LOG_ROOM_MS);
        let (queue, follower, keyring) = (writer.queue.clone(), writer.follower.clone(), writer.keyring.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let keeper = thread("log-keeper").spawn(move || keeper.run(&told)).map_err(io)?;
        let writer = thread("log-writer").spawn(move || writer.run()).map_err(io)?;
        Ok(DiskStore { log, queue, keyring, follower, durable, threads: Mutex::new(vec![writer, keeper]), torn })
    }

    /// Closes the log: what was accepted is written and synced, and the next start need not read anything through. Waits for the disk.
    pub fn close(&self) {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Hands an append to the writer, and waits for its answer.
    fn push(&self, drafts: Drafts, key: Option<OnceKey>, now: u64) -> impl Future<Output = Result<Once, StoreError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let pushed = if drafts.cost() > LARGEST {
            Err(StoreError::Unavailable(format!("an append may have at most {LARGEST} bytes")))
        } else {
            self.queue.push(Waiting { drafts, key, now, answer })
        };
        async move {
            pushed?;
            answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the log failed".into())))
        }
    }

    /// Reads where waiting for the disk holds up nobody else.
    fn read<'a, T: Send + 'static>(&self, what: impl FnOnce(&Log) -> io::Result<T> + Send + 'static) -> StoreFuture<'a, T> {
        let log = self.log.clone();
        Box::pin(async move {
            let read = match tokio::runtime::Handle::try_current() {
                Ok(runtime) => runtime.spawn_blocking(move || what(&log)).await.unwrap_or_else(|error| Err(io::Error::other(error))),
                Err(_) => what(&log),
            };
            read.map_err(|error| store_error(&error))
        })
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventStore for DiskStore {
    fn promises(&self) -> Promises {
        Promises { durable: self.durable, serves_any_lag: true }
    }

    fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    fn append(&self, batch: Drafts, now: u64) -> StoreFuture<'_, Vec<EventId>> {
        let kept = self.push(batch, None, now);
        Box::pin(async move {
            match kept.await? {
                Once::Kept(ids) | Once::Before(ids) => Ok(ids),
                Once::Other => Err(StoreError::Unavailable("an append without a key cannot be another's".into())),
            }
        })
    }

    fn append_once(&self, batch: Drafts, key: OnceKey, now: u64) -> StoreFuture<'_, Once> {
        Box::pin(self.push(batch, Some(key), now))
    }

    fn read_after<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        self.read_beyond(after, up_to, filter, &[], limits)
    }

    fn floors(&self) -> Floors {
        self.log.sight().floors
    }

    fn read_beyond<'a>(
        &'a self,
        after: u64,
        up_to: u64,
        filter: &'a Filter,
        known: &'a [u64],
        limits: PageLimits,
    ) -> StoreFuture<'a, Page> {
        let (filter, known) = (filter.clone(), known.to_vec());
        self.read(move |log| log.read_beyond(after, up_to, &filter, &known, limits))
    }

    fn read_at_hand(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> Option<Page> {
        self.log.read_at_hand(after, up_to, filter, limits)
    }

    fn read_elsewhere(&self, after: u64, up_to: u64, filter: Arc<Filter>, known: Option<Floors>, limits: PageLimits) -> Option<PageJob> {
        let log = self.log.clone();
        Some(Box::new(move || {
            let page = log.read_beyond(after, up_to, &filter, known.as_deref().unwrap_or_default(), limits);
            page.map_err(|error| store_error(&error))
        }))
    }

    fn keeps_latest(&self, asked: &Matchers) -> bool {
        self.log.rules.may_keep_latest(asked)
    }

    fn read_latest<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        let filter = filter.clone();
        self.read(move |log| log.read_latest(after, up_to, &filter, limits))
    }

    fn missing_after<'a>(&'a self, after: u64, filter: &'a Filter) -> StoreFuture<'a, Option<GapReason>> {
        if self.log.keeps_all_after(after) {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let filter = filter.clone();
        self.read(move |log| log.missing_after(after, &filter))
    }

    fn since<'a>(&'a self, moment: u64, filter: &'a Filter) -> StoreFuture<'a, (u64, Option<GapReason>)> {
        let filter = filter.clone();
        self.read(move |log| log.since(moment, &filter))
    }

    fn last<'a>(&'a self, count: usize, filter: &'a Filter) -> StoreFuture<'a, u64> {
        let filter = filter.clone();
        self.read(move |log| log.last(count, &filter))
    }

    fn resolve<'a>(&'a self, id: &'a str) -> StoreFuture<'a, Option<Position>> {
        let id = id.to_owned();
        self.read(move |log| log.resolve(&id))
    }

    fn newest<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Option<EventId>> {
        let topic = topic.clone();
        self.read(move |log| log.newest(&topic))
    }

    fn topics<'a>(&'a self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<(Topic, EventId)>> {
        let after = after.map(str::to_owned);
        self.read(move |log| log.topics(after.as_deref(), limit))
    }

    fn report(&self) -> StoreReport {
        let (bytes, damaged_gaps) = self.log.sizes();
        let RewrittenTotals { segments, bytes: rewritten } = &self.log.rewritten;
        StoreReport {
            refusing: self.queue.refusing(),
            bytes,
            torn_bytes: self.torn,
            damaged_gaps,
            keys: self.keyring.table().len() as u64,
            rewritten: (segments.load(Ordering::Relaxed), rewritten.load(Ordering::Relaxed)),
        }
    }

    fn follow(&self, follower: Follower) {
        assert!(self.follower.set(follower).is_ok(), "a store has one follower");
    }
}

impl fmt::Debug for DiskStore {
    /// Sizes, not contents: a log in a log file helps nobody and may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("bounds", &self.log.bounds()).finish_non_exhaustive()
    }
}
