//! Delivery: the shards, and who is given to which.
//!
//! It is handed a function that pulls the newest events and a reader of pages; it never names a store, and it knows no HTTP but the
//! shape of a response body.

mod body;
mod connection;
mod driver;
mod guest;
mod stream;
#[cfg(test)]
mod tests;
mod ticket;
mod wake;
mod words;

/// What `wake.rs` is made of; its test puts a model in this place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

pub use body::{Aborted, EventBody};
#[cfg(feature = "server")]
pub(crate) use connection::{Door, Doorway, Socket};
pub(crate) use guest::{Arrival, Guest};
pub use stream::EventStream;
pub(crate) use ticket::{MayDetach, Ticket};
#[cfg(feature = "server")]
pub(crate) use ticket::{Prepared, Ring};

use driver::{Command, Driver, Shared};
use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};
use ticket::Shards;
use tidings_core::{
    Record, Topic,
    shard::{Millis, Page, PageFailed, PageRequest, ShardConfig, ShardStats},
};
use tokio::sync::oneshot;
use words::Words;

/// Reads a page for somebody behind; from what, is the hub's to know. Says whether the page may be given at once.
pub(crate) type ReadPage = dyn Fn(PageRequest, bool) -> Reading + Send + Sync;

/// A page that is asked for.
pub(crate) enum Reading {
    /// It is here.
    AtHand(Page),
    /// It is read by a thread that may wait for a disk.
    Elsewhere(Box<dyn FnOnce() -> Result<Page, PageFailed> + Send>),
    /// It is read by a task.
    Later(Pin<Box<dyn Future<Output = Result<Page, PageFailed>> + Send>>),
}

/// Where shards take new events from.
pub(crate) trait Source: Send + Sync {
    /// Appends the next records after a sequence to a list, bounded, and returns their cost; `None` if that place is lost.
    fn pull(&self, after: u64, batch: &mut Vec<Record>) -> Option<u64>;

    /// The newest sequence, and the cost of everything up to it.
    fn head(&self) -> (u64, u64);

    /// The newest sequence, without waiting for anybody.
    fn newest(&self) -> u64;

    /// The same as [`Source::head`] without waiting for anybody; the two may be of different moments.
    fn progress(&self) -> (u64, u64);

    /// A shard has accounted for what it pulled.
    fn taken(&self);
}

/// Milliseconds since the hub was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How long it is until then.
    fn until(self, at: Millis) -> Duration {
        (self.0 + Duration::from_millis(at.0)).saturating_duration_since(Instant::now())
    }
}

/// Records in a row with the same topics.
fn runs(records: &[Record]) -> impl Iterator<Item = &[Record]> {
    records.chunk_by(Record::has_topics_of)
}

/// The shards.
pub(crate) struct Delivery {
    shards: Shards,
    source: Arc<dyn Source>,
    words: Arc<Words>,
    /// Events and bytes that a sleeping shard may be behind.
    lag: (u64, u64),
}

impl Delivery {
    /// Starts one thread for each configuration; pages are read on the current runtime.
    pub(crate) fn start(
        configs: Vec<ShardConfig>,
        tail: u64,
        clock: Clock,
        source: Arc<dyn Source>,
        read: Arc<ReadPage>,
        lag: (u64, u64),
    ) -> io::Result<Delivery> {
        let runtime = tokio::runtime::Handle::current();
        let words = Arc::new(Words::default());
        let start = |(number, config)| {
            let (shared, poll) = Shared::new(tail)?;
            let (source, read, words, runtime) = (source.clone(), read.clone(), words.clone(), runtime.clone());
            let driver = Driver { shared: shared.clone(), config, clock, source, read, words, runtime };
            thread::Builder::new().name(format!("shard-{number}")).spawn(move || driver.run(poll))?;
            Ok(shared)
        };
        let shards: io::Result<Vec<_>> = configs.into_iter().enumerate().map(start).collect();
        Ok(Delivery { shards: Shards(shards?.into()), source, words, lag })
    }

    /// Wakes the shards that have subscribers for one of these records, and those further behind than they may be.
    ///
    /// A shard that sleeps with an old tail costs nobody anything, for nobody there wants what it has not taken; but publishers wait for
    /// it when it is too far behind, so it is woken long before.
    pub(crate) fn wake(&self, records: &[Record]) {
        let (head, total) = self.source.progress();
        for shard in self.shards.0.iter() {
            shard.wake_if(|| {
                head.saturating_sub(shard.tail.load(Ordering::Relaxed)) > self.lag.0
                    || total.saturating_sub(shard.taken_bytes.load(Ordering::Relaxed)) > self.lag.1
                    || !shard.interest.is_empty() && runs(records).any(|run| self.words.wanted(&shard.interest, run[0].topics()))
            });
        }
    }

    /// Wakes all shards: publishers wait for them.
    pub(crate) fn wake_all(&self) {
        for shard in self.shards.0.iter() {
            shard.wake_if(|| true);
        }
    }

    /// How far the slowest shard is: sequence, and cost of everything taken.
    pub(crate) fn slowest(&self) -> (u64, u64) {
        let tail = self.shards.0.iter().map(|shard| shard.tail.load(Ordering::Acquire)).min();
        let taken = self.shards.0.iter().map(|shard| shard.taken_bytes.load(Ordering::Acquire)).min();
        (tail.unwrap_or(u64::MAX), taken.unwrap_or(u64::MAX))
    }

    /// Gives a subscriber to the shard with the fewest.
    pub(crate) async fn open(&self, arrival: Arrival) -> Option<EventBody> {
        self.shards.open(arrival).await.map(EventBody::attached)
    }

    /// A body that subscribes when it is read first, unless the server has used the ticket to take the connection over.
    pub(crate) fn prepare(&self, arrival: Arrival) -> (EventBody, Ticket) {
        let ticket = Ticket::new(arrival, self.shards.clone());
        (EventBody::waiting(ticket.clone()), ticket)
    }

    /// Subscribers now.
    pub(crate) fn subscribers(&self) -> u64 {
        self.shards.0.iter().map(|shard| shard.subscribers.load(Ordering::Acquire) as u64).sum()
    }

    /// Subscribers of each topic now.
    pub(crate) async fn count(&self, topics: &[Topic]) -> Vec<u64> {
        let mut sums = vec![0; topics.len()];
        for shard in self.shards.0.iter() {
            let (answer, counted) = oneshot::channel();
            shard.send(Command::Count(topics.to_vec(), answer));
            // A shard that has stopped has no subscribers.
            for (sum, count) in sums.iter_mut().zip(counted.await.unwrap_or_default()) {
                *sum += count;
            }
        }
        sums
    }

    /// What all shards have counted.
    pub(crate) fn stats(&self) -> (ShardStats, u64) {
        let mut sum = ShardStats::default();
        let mut failures = 0;
        for shard in self.shards.0.iter() {
            sum.add(&shard.stats());
            failures += shard.failures.load(Ordering::Relaxed);
        }
        (sum, failures)
    }

    /// Ends every stream within `spread`, waits for that until `hard`, then breaks off what is left.
    pub(crate) async fn drain(&self, spread: Duration, hard: Duration) {
        let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        for shard in self.shards.0.iter() {
            shard.send(Command::Drain(spread_ms));
        }
        if tokio::time::timeout(hard, self.everybody_left()).await.is_err() {
            tracing::warn!(left = self.subscribers(), "the deadline for draining has passed; the rest is broken off");
        }
        for shard in self.shards.0.iter() {
            shard.send(Command::AbortAll);
            shard.send(Command::Stop);
        }
    }

    async fn everybody_left(&self) {
        for shard in self.shards.0.iter() {
            while shard.bodies.load(Ordering::Relaxed) > 0 && !shard.stopped.load(Ordering::Acquire) {
                // Bodies end without a word here; the pause bounds how late the last one is noticed.
                let _ = tokio::time::timeout(Duration::from_millis(20), shard.left.notified()).await;
            }
        }
    }

    pub(crate) fn fail(&self, shard: usize) {
        if let Some(shard) = self.shards.0.get(shard) {
            shard.send(Command::Panic);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        for shard in self.shards.0.iter() {
            shard.send(Command::AbortAll);
            shard.send(Command::Stop);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("shards", &self.shards.0.len()).finish_non_exhaustive()
    }
}
