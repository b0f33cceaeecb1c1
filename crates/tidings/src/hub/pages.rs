//! How a shard's pages are read: on the spot where the store can and the shard has time, on a thread that may wait, or by the store's own
//! means. It knows the three ways, not what is in a page.

use crate::{
    EventStore,
    delivery::{ReadPage, Reading},
    replay::Replay,
};
use std::sync::Arc;

/// For all shards of a hub, which share the bound on pages being read.
pub(super) fn reading(store: Arc<dyn EventStore>) -> Arc<ReadPage> {
    let replay = Arc::new(Replay::new(store));
    Arc::new(move |request, at_once| {
        let at_hand = if at_once { replay.at_hand(&request) } else { None };
        if let Some(page) = at_hand {
            return Reading::AtHand(page);
        }
        if let Some(job) = replay.elsewhere(&request) {
            return Reading::Elsewhere(Box::new(job));
        }
        let replay = replay.clone();
        Reading::Later(Box::pin(async move { replay.page(&request).await }))
    })
}
