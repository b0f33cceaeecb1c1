//! Where events rest: the contract of every store (section 6 of the architecture).
//!
//! A store orders events, keeps them as firmly as it promises, and reads them back. It knows no subscriber, token or HTTP.

mod disk;
mod keys;
mod latest;
mod memory;
mod retention;

pub use disk::{
    DiskOptions, DiskStore, Durability, Finding, LogDirectory, LogReport, MissingReport, NewEpoch, OpenError, SegmentReport, Verified,
};
pub use keys::{KeyWindow, Once, OnceKey};
pub use memory::MemoryStore;

use std::{fmt, pin::Pin, sync::Arc};
use tidings_core::{
    Drafts, Epoch, EventId, Filter, GapReason, Matchers, Position, Record, Topic,
    shard::{Floors, Page},
};

/// The future of one store operation; one allocation per batch or page, none per event.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The reading of a page, for a thread that may wait for a disk.
pub type PageJob = Box<dyn FnOnce() -> Result<Page, StoreError> + Send>;

/// Is handed every record once the store's promise for it is kept: in order, without a hole, never from two threads at once.
pub type Follower = Box<dyn Fn(&[Record]) + Send + Sync>;

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no room (507).
    #[error("the store has no space left; free some, or shorten the retention")]
    NoSpace,
    /// It cannot be used now (503).
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// What is in a store now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The log's epoch.
    pub epoch: Epoch,
    /// Nothing up to this sequence is kept.
    pub low: u64,
    /// Everything after this sequence is kept. Between the two it depends on the topic.
    pub floor: u64,
    /// The newest sequence given out.
    pub head: u64,
}

/// What a store can promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promises {
    /// Acknowledged events survive a crash of the process.
    pub durable: bool,
    /// Readers may be behind by more than fits into memory; otherwise the lag policy applies to them.
    pub serves_any_lag: bool,
}

/// What an operator should know of a store now.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreReport {
    /// Why it takes no events; it tries again by itself.
    pub refusing: Option<StoreError>,
    /// Bytes that the events take, where they are kept beside memory.
    pub bytes: u64,
    /// Bytes of an unfinished append that were cut off when it was opened.
    pub torn_bytes: u64,
    /// Runs of numbers that readers are told are damaged.
    pub damaged_gaps: u64,
    /// Keys of appends that are remembered (N-6).
    pub keys: u64,
    /// Segments that were rewritten since the start, without what retention removed of them, and bytes that were written for it.
    pub rewritten: (u64, u64),
}

/// How much to read at once.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Bytes of records; one record may exceed it alone.
    pub bytes: usize,
    /// Records in the page.
    pub events: usize,
    /// Records looked at.
    pub scanned: usize,
}

/// The log.
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// What it can promise.
    fn promises(&self) -> Promises;

    /// What it holds.
    fn bounds(&self) -> Bounds;

    /// Appends a batch: all of it or nothing, with consecutive positions, answered when the promise is kept. `now` is in milliseconds
    /// since 1970; a record is never accepted earlier than its predecessor, whatever the clock says.
    fn append(&self, batch: Drafts, now: u64) -> StoreFuture<'_, Vec<EventId>>;

    /// The same once for all who come with the key while it counts (N-6). The first that reaches the store is appended, and the key is kept as
    /// firmly as the batch and with it: after a crash there are both or neither. Who comes meanwhile waits for the first, and fails with it; a
    /// failed append leaves no key behind. The ids of a repeated append are answered even if its events were removed since.
    fn append_once(&self, batch: Drafts, key: OnceKey, now: u64) -> StoreFuture<'_, Once>;

    /// Records after a sequence and up to another that the filter may want. `covered_through` advances by at least one record.
    fn read_after<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page>;

    /// What is gone now, for [`EventStore::read_beyond`].
    fn floors(&self) -> Floors {
        [self.bounds().low].into()
    }

    /// As [`EventStore::read_after`], for a reader who was told what is gone already, or asked for whatever is kept: only what is gone since
    /// it was given these floors is lost.
    fn read_beyond<'a>(
        &'a self,
        after: u64,
        up_to: u64,
        filter: &'a Filter,
        known: &'a [u64],
        limits: PageLimits,
    ) -> StoreFuture<'a, Page> {
        let _ = known;
        self.read_after(after, up_to, filter, limits)
    }

    /// The same if it can be given at once, on a thread that many wait for: without waiting for a disk, within some tens of microseconds.
    /// `None` says nothing but that it was not done.
    fn read_at_hand(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> Option<Page> {
        let _ = (after, up_to, filter, limits);
        None
    }

    /// The same as work for a thread that may wait for a disk, which saves whoever has such threads the way there and back. `None` from a
    /// store that needs none: then [`EventStore::read_beyond`] is asked.
    fn read_elsewhere(&self, after: u64, up_to: u64, filter: Arc<Filter>, known: Option<Floors>, limits: PageLimits) -> Option<PageJob> {
        let _ = (after, up_to, filter, known, limits);
        None
    }

    /// Whether there may be events among these topics that are kept because they are the latest of their kind (Z-30).
    fn keeps_latest(&self, asked: &Matchers) -> bool {
        let _ = asked;
        false
    }

    /// As [`EventStore::read_after`], of those events only. One that is replaced meanwhile may be left out if what replaced it comes
    /// after `up_to`.
    fn read_latest<'a>(&'a self, after: u64, up_to: u64, filter: &'a Filter, limits: PageLimits) -> StoreFuture<'a, Page> {
        let _ = (filter, limits);
        Box::pin(std::future::ready(Ok(Page::new(Vec::new(), after.max(up_to)))))
    }

    /// Whether a reader with this filter and cursor may have missed an event that it could have received, and why. Exact as far as
    /// the store remembers, conservative beyond.
    fn missing_after<'a>(&'a self, after: u64, filter: &'a Filter) -> StoreFuture<'a, Option<GapReason>>;

    /// The place after which come the events accepted at a moment (milliseconds since 1970) or later; and why some of those may be missing
    /// that a reader with this filter could have received. Conservative: it does not know when each removed event was accepted.
    fn since<'a>(&'a self, moment: u64, filter: &'a Filter) -> StoreFuture<'a, (u64, Option<GapReason>)>;

    /// The place after which come the newest `count` kept events that the filter wants, or fewer: all that are kept, or those among
    /// about [`tidings_core::limits::LAST_SCAN`] events that it looked at.
    fn last<'a>(&'a self, count: usize, filter: &'a Filter) -> StoreFuture<'a, u64>;

    /// The place of the first kept event with this id of a publisher's (M-90).
    fn resolve<'a>(&'a self, id: &'a str) -> StoreFuture<'a, Option<Position>>;

    /// The newest kept event of a topic.
    fn newest<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Option<EventId>>;

    /// Topics of kept events in byte order after `after`, at most `limit`, each with its newest event.
    fn topics<'a>(&'a self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<(Topic, EventId)>>;

    /// What an operator should know of it.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// Sets who is handed what is appended from now on. Called once, before the first append.
    fn follow(&self, follower: Follower);
}
