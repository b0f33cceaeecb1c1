//! Reading back: pages for those who are further behind than a shard's memory, at most so many at once.
//!
//! It knows the store and how much to ask of it, not who is waiting.

use crate::store::{EventStore, PageLimits, StoreError};
use std::sync::Arc;
use tidings_core::{
    limits,
    shard::{Page, PageFailed, PageRequest},
};
use tokio::sync::Semaphore;

const LIMITS: PageLimits = PageLimits { bytes: limits::PAGE_BYTES, events: limits::PAGE_EVENTS, scanned: limits::PAGE_SCAN };

/// The bounded reader.
#[derive(Debug)]
pub(crate) struct Replay {
    store: Arc<dyn EventStore>,
    permits: Arc<Semaphore>,
}

impl Replay {
    pub(crate) fn new(store: Arc<dyn EventStore>) -> Replay {
        Replay { store, permits: Arc::new(Semaphore::new(limits::PAGES_IN_FLIGHT)) }
    }

    /// A page that nobody has to wait for, if it is one.
    pub(crate) fn at_hand(&self, request: &PageRequest) -> Option<Page> {
        let PageRequest { after, up_to, filter, how, .. } = request;
        if how.latest { None } else { self.store.read_at_hand(*after, *up_to, filter, LIMITS) }
    }

    /// The reading of a page as work for a thread that may wait, if the store has such work, and not too many are at it.
    pub(crate) fn elsewhere(&self, request: &PageRequest) -> Option<impl FnOnce() -> Result<Page, PageFailed> + Send + use<>> {
        let PageRequest { after, up_to, filter, how, .. } = request;
        if how.latest {
            return None;
        }
        let after = *after;
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let job = self.store.read_elsewhere(after, *up_to, filter.clone(), how.known.clone(), LIMITS)?;
        Some(move || {
            let page = job().map_err(|error| failed(&error, after));
            drop(permit);
            page
        })
    }

    /// Reads one page.
    pub(crate) async fn page(&self, request: &PageRequest) -> Result<Page, PageFailed> {
        let _permit = self.permits.acquire().await.map_err(|_| PageFailed)?;
        let (after, up_to, filter) = (request.after, request.up_to, &*request.filter);
        let page = match &request.how {
            how if how.latest => self.store.read_latest(after, up_to, filter, LIMITS),
            how => self.store.read_beyond(after, up_to, filter, how.known.as_deref().unwrap_or_default(), LIMITS),
        };
        page.await.map_err(|error| failed(&error, after))
    }
}

fn failed(error: &StoreError, after: u64) -> PageFailed {
    tracing::error!(%error, after, "reading a page failed; its readers are disconnected and will resume");
    PageFailed
}
