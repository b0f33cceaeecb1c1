//! Where a stream starts: from a cursor or a moment to live, a place in the log, or a gap (N-12, N-14), settled before the first byte because a
//! response header has to name it (M-91, M-92). It knows cursors and the store; rights are in the filter it is given.

use super::Cursor;
use crate::{AfterGap, Bounds, EventStore, PageLimits, StoreError};
use tidings_core::{
    Filter, GapReason, Position, limits,
    shard::{Floors, Gap},
};

/// The decision.
#[derive(Debug)]
pub(super) struct Start {
    /// Everything after this sequence is sent,
    pub(super) after: u64,
    /// but up to this one only what is the latest of its kind (Z-30).
    pub(super) latest_until: u64,
    /// What is gone and need not be told, because it was told or because whatever is kept was asked for.
    pub(super) known: Option<Floors>,
    /// Told first.
    pub(super) gap: Option<Gap>,
    /// With a cursor: the id of the event before the first one sent, or `earliest`.
    pub(super) header: Option<String>,
    /// Whether the client holds no id yet with which it could come back (N-13a).
    pub(super) unprimed: bool,
}

impl Start {
    /// After a place whose successors are all there.
    fn at(after: u64, header: Option<String>) -> Start {
        Start { after, latest_until: 0, known: None, gap: None, header, unprimed: false }
    }
}

pub(super) async fn start(store: &dyn EventStore, cursor: &Cursor, filter: &Filter, after_gap: AfterGap) -> Result<Start, StoreError> {
    let earliest = || Some("earliest".to_owned());
    let text = match cursor {
        Cursor::Live => return live(store, 0, filter).await,
        Cursor::After(text) if text.is_empty() => {
            // A client that never saw an event, or a page that forgot to fill in the id.
            tracing::debug!("an empty cursor counts as none");
            return live(store, 0, filter).await;
        }
        Cursor::After(text) if text != "earliest" => text,
        Cursor::Earliest | Cursor::After(_) => {
            let known = Some(store.floors());
            return Ok(Start { known, ..Start::at(store.bounds().low, earliest()) });
        }
        Cursor::Since(moment) => {
            let known = store.floors();
            let (after, missing) = store.since(*moment, filter).await?;
            let gap = missing.map(|reason| Gap { requested: format!("since={moment}").into(), reason });
            return match (gap, after_gap) {
                (Some(gap), AfterGap::Live) => jump(store, after, gap, filter).await,
                (gap, _) => Ok(looked_up(store.bounds(), after, known, gap)),
            };
        }
        Cursor::Last(count) => {
            let known = store.floors();
            let after = store.last((*count).min(limits::LAST_EVENTS), filter).await?;
            return Ok(looked_up(store.bounds(), after, known, None));
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
    let known = store.floors();
    // Where the stream goes on after each kind of gap, if what is kept is to be replayed.
    let (reason, replay_after) = match place {
        None => (GapReason::Unknown, bounds.low),
        Some(place) if place.epoch != bounds.epoch => (GapReason::Epoch, bounds.low),
        Some(place) if place.sequence > bounds.head => (GapReason::Lost, bounds.head),
        Some(place) => match store.missing_after(place.sequence, filter).await? {
            Some(reason) => (reason, place.sequence.max(bounds.low)),
            None => {
                let id = if minted || Position::parse(text).is_none() { text.clone() } else { place.to_string() };
                return Ok(Start::at(place.sequence, Some(id)));
            }
        },
    };
    let gap = Gap { requested: text.as_str().into(), reason };
    match after_gap {
        AfterGap::Replay => Ok(Start { known: Some(known), gap: Some(gap), ..Start::at(replay_after, earliest()) }),
        // A place that means something says which of the latest events its reader has.
        AfterGap::Live => jump(store, if reason == GapReason::Evicted { replay_after } else { bounds.low }, gap, filter).await,
    }
}

/// What is new, and before it the latest of its kind that came after a place.
async fn live(store: &dyn EventStore, after: u64, filter: &Filter) -> Result<Start, StoreError> {
    let head = store.bounds().head;
    let mut start = Start { unprimed: true, ..Start::at(head, None) };
    if store.keeps_latest(filter.matchers()) {
        let one = PageLimits { bytes: 1, events: 1, scanned: usize::MAX };
        if let Some(first) = store.read_latest(after, head, filter, one).await?.records.first() {
            (start.after, start.latest_until) = (first.position().sequence - 1, head);
        }
    }
    Ok(start)
}

/// The same after a gap.
async fn jump(store: &dyn EventStore, after: u64, gap: Gap, filter: &Filter) -> Result<Start, StoreError> {
    let start = live(store, after, filter).await?;
    let id = (start.after > 0).then(|| Position { epoch: store.bounds().epoch, sequence: start.after }.to_string());
    Ok(Start { gap: Some(gap), header: Some(id.unwrap_or_else(|| "earliest".into())), unprimed: false, ..start })
}

/// A place that the client did not name by an id. It has none to come back with, so that it is primed like one without a cursor.
fn looked_up(bounds: Bounds, after: u64, known: Floors, gap: Option<Gap>) -> Start {
    let id = (after > bounds.low).then(|| Position { epoch: bounds.epoch, sequence: after }.to_string());
    let unprimed = gap.is_none();
    Start { known: Some(known), gap, unprimed, ..Start::at(after, Some(id.unwrap_or_else(|| "earliest".into()))) }
}
