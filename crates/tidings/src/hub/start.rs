//! Where a stream starts: from a cursor or a moment to live, a place in the log, or a gap (N-12, N-14), settled before the first byte because a
//! response header has to name it (M-91, M-92). It knows cursors and the store; rights are in the filter it is given.

use super::Cursor;
use crate::{AfterGap, Bounds, EventStore, StoreError};
use tidings_core::{Filter, GapReason, Position, limits, shard::Gap};

/// The decision.
#[derive(Debug)]
pub(super) struct Start {
    /// Everything after this sequence is sent.
    pub(super) after: u64,
    /// Told first.
    pub(super) gap: Option<Gap>,
    /// With a cursor: the id of the event before the first one sent, or `earliest`.
    pub(super) header: Option<String>,
    /// Whether the client holds no id yet with which it could come back (N-13a).
    pub(super) unprimed: bool,
}

pub(super) async fn start(store: &dyn EventStore, cursor: &Cursor, filter: &Filter, after_gap: AfterGap) -> Result<Start, StoreError> {
    let earliest = || Some("earliest".to_owned());
    let live = || Start { after: store.bounds().head, gap: None, header: None, unprimed: true };
    let text = match cursor {
        Cursor::Live => return Ok(live()),
        Cursor::After(text) if text.is_empty() => {
            // A client that never saw an event, or a page that forgot to fill in the id.
            tracing::debug!("an empty cursor counts as none");
            return Ok(live());
        }
        Cursor::After(text) if text != "earliest" => text,
        Cursor::Earliest | Cursor::After(_) => {
            return Ok(Start { after: store.bounds().floor, gap: None, header: earliest(), unprimed: false });
        }
        Cursor::Since(moment) => {
            let (after, missing) = store.since(*moment, filter).await?;
            let gap = missing.map(|reason| Gap { requested: format!("since={moment}").into(), reason });
            return Ok(match (gap, after_gap) {
                (Some(gap), AfterGap::Live) => jump(store.bounds(), gap),
                (gap, _) => looked_up(store.bounds(), after, gap),
            });
        }
        Cursor::Last(count) => {
            let after = store.last((*count).min(limits::LAST_EVENTS), filter).await?;
            return Ok(looked_up(store.bounds(), after, None));
        }
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
                return Ok(Start { after: place.sequence, gap: None, header: Some(id), unprimed: false });
            }
        },
    };
    let gap = Gap { requested: text.as_str().into(), reason };
    Ok(match after_gap {
        AfterGap::Replay => Start { after: replay_after, gap: Some(gap), header: earliest(), unprimed: false },
        AfterGap::Live => jump(bounds, gap),
    })
}

/// Only what is new, after a gap.
fn jump(bounds: Bounds, gap: Gap) -> Start {
    let id = (bounds.head > 0).then(|| Position { epoch: bounds.epoch, sequence: bounds.head }.to_string());
    Start { after: bounds.head, gap: Some(gap), header: Some(id.unwrap_or_else(|| "earliest".into())), unprimed: false }
}

/// A place that the client did not name by an id. It has none to come back with, so that it is primed like one without a cursor.
fn looked_up(bounds: Bounds, after: u64, gap: Option<Gap>) -> Start {
    let id = (after > bounds.floor).then(|| Position { epoch: bounds.epoch, sequence: after }.to_string());
    let unprimed = gap.is_none();
    Start { after, gap, header: Some(id.unwrap_or_else(|| "earliest".into())), unprimed }
}
