//! Where a stream starts: from a cursor or a moment to live, a place in the log, or a gap (N-12, N-14), settled before the first byte because a
//! response header has to name it (M-91, M-92). It knows cursors and the store; rights are in the filter it is given.

use super::{Cursor, Inner, StartError};
use crate::{AfterGap, Bounds, Config, EventStore, PageLimits, StoreError};
use sha2::{Digest, Sha256};
use tidings_core::{
    Filter, GapReason, IdForm, Position, limits,
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

/// How this hub writes ids (M-95).
pub(super) fn id_form(config: &Config) -> Result<IdForm, StartError> {
    let Some(secret) = &config.opaque_ids else { return Ok(IdForm::PLAIN) };
    if secret.expose().len() < limits::SECRET_MIN {
        let problem = format!("a secret of at least {} bytes", limits::SECRET_MIN);
        return Err(StartError::Setting { name: "opaque_ids", problem });
    }
    let digest = Sha256::new().chain_update("tidings opaque ids").chain_update(secret.expose()).finalize();
    Ok(IdForm::opaque(std::array::from_fn(|at| digest[at])))
}

/// What decides beside the cursor.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) store: &'a dyn EventStore,
    pub(super) ids: IdForm,
    pub(super) filter: &'a Filter,
    pub(super) after_gap: AfterGap,
}

impl Inner {
    pub(super) fn at<'a>(&'a self, filter: &'a Filter, after_gap: AfterGap) -> At<'a> {
        At { store: &*self.store, ids: self.ids, filter, after_gap }
    }
}

pub(super) async fn start(cursor: &Cursor, at: At<'_>) -> Result<Start, StoreError> {
    let At { store, ids, filter, after_gap } = at;
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
                (Some(gap), AfterGap::Live) => jump(at, after, gap).await,
                (gap, _) => Ok(looked_up(at, after, known, gap)),
            };
        }
        Cursor::Last(count) => {
            let known = store.floors();
            let after = store.last((*count).min(limits::LAST_EVENTS), filter).await?;
            return Ok(looked_up(at, after, known, None));
        }
    };
    // The form without `#` is a cursor too, but a publisher's id that looks like one comes first (S-17).
    let minted = text.starts_with('#');
    let place = match if minted { None } else { store.resolve(text).await? } {
        Some(place) => Some(place),
        None => match ids.parse(text) {
            Some(place) => Some(place),
            None => plainly(text, at).await?,
        },
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
                let id = if minted || ids.parse(text).is_none() { text.clone() } else { ids.text(place) };
                return Ok(Start::at(place.sequence, Some(id)));
            }
        },
    };
    let gap = Gap { requested: text.as_str().into(), reason };
    match after_gap {
        AfterGap::Replay => Ok(Start { known: Some(known), gap: Some(gap), ..Start::at(replay_after, earliest()) }),
        // A place that means something says which of the latest events its reader has.
        AfterGap::Live => jump(at, if reason == GapReason::Evicted { replay_after } else { bounds.low }, gap).await,
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

/// A plain id where ids are opaque: that of an event which was stored with it, before they were, and which its reader may have. Any other
/// would tell whoever tries them out how far the log has come.
async fn plainly(text: &str, At { store, ids, filter, .. }: At<'_>) -> Result<Option<Position>, StoreError> {
    let bounds = store.bounds();
    let Some(place) = Position::parse(text).filter(|place| ids.is_opaque() && place.epoch == bounds.epoch) else { return Ok(None) };
    let Some(before) = place.sequence.checked_sub(1).filter(|_| place.sequence <= bounds.head) else { return Ok(None) };
    let one = PageLimits { bytes: 1, events: 1, scanned: usize::MAX };
    let page = store.read_after(before, place.sequence, filter, one).await?;
    Ok(page.records.first().filter(|record| *record.id().as_str() == place.to_string()).map(|_| place))
}

/// The same after a gap.
async fn jump(at: At<'_>, after: u64, gap: Gap) -> Result<Start, StoreError> {
    let start = live(at.store, after, at.filter).await?;
    let id = (start.after > 0).then(|| at.ids.text(Position { epoch: at.store.bounds().epoch, sequence: start.after }));
    Ok(Start { gap: Some(gap), header: Some(id.unwrap_or_else(|| "earliest".into())), unprimed: false, ..start })
}

/// A place that the client did not name by an id. It has none to come back with, so that it is primed like one without a cursor.
fn looked_up(at: At<'_>, after: u64, known: Floors, gap: Option<Gap>) -> Start {
    let Bounds { epoch, low, .. } = at.store.bounds();
    let id = (after > low).then(|| at.ids.text(Position { epoch, sequence: after }));
    let unprimed = gap.is_none();
    Start { known: Some(known), gap, unprimed, ..Start::at(after, Some(id.unwrap_or_else(|| "earliest".into()))) }
}
