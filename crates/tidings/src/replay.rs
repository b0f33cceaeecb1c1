//! Reading back: pages for those who are further behind than a shard's memory, at most so many at once.
//!
//! It knows the store and how much to ask of it, not who is waiting.

use crate::store::{EventStore, PageLimits};
use std::sync::Arc;
use tidings_core::{
    limits,
    shard::{Page, PageFailed, PageRequest},
};
use tokio::sync::Semaphore;

/// The bounded reader.
#[derive(Debug)]
pub(crate) struct Replay {
    store: Arc<dyn EventStore>,
    permits: Semaphore,
}

impl Replay {
    pub(crate) fn new(store: Arc<dyn EventStore>) -> Replay {
        Replay { store, permits: Semaphore::new(limits::PAGES_IN_FLIGHT) }
    }

    /// Reads one page.
    pub(crate) async fn page(&self, request: &PageRequest) -> Result<Page, PageFailed> {
        let _permit = self.permits.acquire().await.map_err(|_| PageFailed)?;
        let limits = PageLimits { bytes: limits::PAGE_BYTES, events: limits::PAGE_EVENTS, scanned: limits::PAGE_SCAN };
        let (after, up_to, filter) = (request.after, request.up_to, &*request.filter);
        let page = match &request.how {
            how if how.latest => self.store.read_latest(after, up_to, filter, limits),
            how => self.store.read_beyond(after, up_to, filter, how.known.as_deref().unwrap_or_default(), limits),
        };
        page.await.map_err(|error| {
            tracing::error!(%error, after = request.after, "reading a page failed; its readers are disconnected and will resume");
            PageFailed
        })
    }
}
