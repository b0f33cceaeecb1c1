//! Delivery: the shards, and who is given to which.
//!
//! It is handed a function that pulls the newest events and a reader of pages; it never names a store, and it knows no HTTP but the
//! shape of a response body.

mod body;
mod driver;
mod stream;

pub use body::{Aborted, EventBody};
pub use stream::EventStream;

use body::Mailbox;
use driver::{Command, Driver, Shared};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tidings_core::{
    Record, Topic,
    shard::{Millis, NewSubscriber, Page, PageFailed, PageRequest, ShardConfig, ShardStats},
};
use tokio::sync::oneshot;

/// Reads a page for somebody behind; from what, is the hub's to know.
pub(crate) type ReadPage = dyn Fn(PageRequest) -> Pin<Box<dyn Future<Output = Result<Page, PageFailed>> + Send>> + Send + Sync;

/// Where shards take new events from.
pub(crate) trait Source: Send + Sync {
    /// Appends the next records after a sequence to a list, bounded, and returns their cost; `None` if that place is lost.
    fn pull(&self, after: u64, batch: &mut Vec<Arc<Record>>) -> Option<u64>;

    /// The newest sequence, and the cost of everything up to it.
    fn head(&self) -> (u64, u64);

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

    fn instant(self, at: Millis) -> tokio::time::Instant {
        (self.0 + Duration::from_millis(at.0)).into()
    }
}

/// The shards.
pub(crate) struct Delivery {
    shards: Vec<Arc<Shared>>,
}

impl Delivery {
    /// Starts one task for each configuration on the current runtime.
    pub(crate) fn start(configs: Vec<ShardConfig>, tail: u64, clock: Clock, source: Arc<dyn Source>, read: Arc<ReadPage>) -> Delivery {
        let start = |config| {
            let shared = Shared::new(tail);
            let driver = Driver { shared: shared.clone(), config, clock, source: source.clone(), read: read.clone() };
            tokio::spawn(driver.run());
            shared
        };
        Delivery { shards: configs.into_iter().map(start).collect() }
    }

    /// Tells the shards that there may be new events.
    pub(crate) fn wake(&self) {
        for shard in &self.shards {
            shard.wake();
        }
    }

    /// How far the slowest shard is: sequence, and cost of everything taken.
    pub(crate) fn slowest(&self) -> (u64, u64) {
        let tail = self.shards.iter().map(|shard| shard.tail.load(Ordering::Acquire)).min();
        let taken = self.shards.iter().map(|shard| shard.taken_bytes.load(Ordering::Acquire)).min();
        (tail.unwrap_or(u64::MAX), taken.unwrap_or(u64::MAX))
    }

    /// Gives a subscriber to the shard with the fewest.
    pub(crate) async fn open(&self, new: NewSubscriber) -> Option<EventBody> {
        let shard = self.shards.iter().min_by_key(|shard| shard.bodies.load(Ordering::Relaxed))?;
        shard.bodies.fetch_add(1, Ordering::Relaxed);
        let mailbox = Mailbox::new(shard.clone());
        // From here on dropping the body settles the account, also when this future is dropped.
        let body = EventBody::new(mailbox.clone());
        let permit = shard.inbox.clone().acquire_owned().await.ok()?;
        shard.send(Command::Subscribe(Box::new(new), mailbox, permit)).then_some(body)
    }

    /// Subscribers now.
    pub(crate) fn subscribers(&self) -> u64 {
        self.shards.iter().map(|shard| shard.subscribers.load(Ordering::Acquire) as u64).sum()
    }

    /// Subscribers of each topic now.
    pub(crate) async fn count(&self, topics: &[Topic]) -> Vec<u64> {
        let mut sums = vec![0; topics.len()];
        for shard in &self.shards {
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
        for shard in &self.shards {
            sum.add(&shard.stats());
            failures += shard.failures.load(Ordering::Relaxed);
        }
        (sum, failures)
    }

    /// Ends every stream within `spread`, waits for that until `hard`, then breaks off what is left.
    pub(crate) async fn drain(&self, spread: Duration, hard: Duration) {
        let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        for shard in &self.shards {
            shard.send(Command::Drain(spread_ms));
        }
        if tokio::time::timeout(hard, self.everybody_left()).await.is_err() {
            tracing::warn!(left = self.subscribers(), "the deadline for draining has passed; the rest is broken off");
        }
        for shard in &self.shards {
            shard.send(Command::AbortAll);
            shard.send(Command::Stop);
        }
    }

    async fn everybody_left(&self) {
        for shard in &self.shards {
            while shard.bodies.load(Ordering::Relaxed) > 0 && !shard.stopped.load(Ordering::Acquire) {
                // Bodies end without a word here; the pause bounds how late the last one is noticed.
                let _ = tokio::time::timeout(Duration::from_millis(20), shard.left.notified()).await;
            }
        }
    }

    pub(crate) fn fail(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            shard.send(Command::Panic);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.send(Command::AbortAll);
            shard.send(Command::Stop);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}
