//! Where a stream starts: from a cursor to live, a place in the log, or a gap (N-12, N-14), settled before the first byte because a
//! response header has to name it (M-91, M-92). It knows cursors and the store; rights are in the filter it is given.

use super::Cursor;
use crate::{AfterGap, EventStore, StoreError};
use tidings_core::{Filter, GapReason, Position, shard::Gap};

/// The decision.
#[derive(Debug)]
pub(super) struct Start {
    /// Everything after this sequence is sent.
    pub(super) after: u64,
    /// Told first.
    pub(super) gap: Option<Gap>,
    /// With a cursor: the id of the event before the first one sent, or `earliest`.
    pub(super) header: Option<String>,
}

pub(super) async fn start(store: &dyn EventStore, cursor: &Cursor, filter: &Filter, after_gap: AfterGap) -> Result<Start, StoreError> {
    let earliest = || Some("earliest".to_owned());
    let text = match cursor {
        Cursor::Live => return Ok(Start { after: store.bounds().head, gap: None, header: None }),
        Cursor::After(text) if text.is_empty() => {
            // A client that never saw an event, or a page that forgot to fill in the id.
            tracing::debug!("an empty cursor counts as none");
            return Ok(Start { after: store.bounds().head, gap: None, header: None });
        }
        Cursor::After(text) if text != "earliest" => text,
        Cursor::Earliest | Cursor::After(_) => return Ok(Start { after: store.bounds().floor, gap: None, header: earliest() }),
    };
    // The form without `#` is a cursor too, but a publisher's id that looks like one comes first (S-17).
    let minted = text.starts_with('#');
    let place = match if minted { None } else { store.resolve(text).await? } {
        Some(place) => Some(place),
        None => Position::parse(text),
    };
    // Looked at after the id was: an event published meanwhile must not lie beyond the head.
    let bounds = store.bounds();
    // Where the stream goes on after each kind of gap, if what is kept is to be replayed.
    let (reason, replay_after) = match place {
        None => (GapReason::Unknown, bounds.floor),
        Some(place) if place.epoch != bounds.epoch => (GapReason::Epoch, bounds.floor),
        Some(place) if place.sequence > bounds.head => (GapReason::Lost, bounds.head),
        Some(place) => match store.missing_after(place.sequence, filter).await? {
            Some(reason) => (reason, place.sequence.max(bounds.floor)),
            None => {
                let id = if minted || Position::parse(text).is_none() { text.clone() } else { place.to_string() };
                return Ok(Start { after: place.sequence, gap: None, header: Some(id) });
            }
        },
    };
    let gap = Some(Gap { requested: text.as_str().into(), reason });
    Ok(match after_gap {
        AfterGap::Replay => Start { after: replay_after, gap, header: earliest() },
        AfterGap::Live if bounds.head == 0 => Start { after: 0, gap, header: earliest() },
        AfterGap::Live => {
            let head = Position { epoch: bounds.epoch, sequence: bounds.head };
            Start { after: bounds.head, gap, header: Some(head.to_string()) }
        }
    })
}
