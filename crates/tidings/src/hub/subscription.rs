//! What a reader asks for: topics, a place to start, and how the stream is to behave. It knows no store, and rights only as something that is handed on.

use super::register::Told;
use crate::{AfterGap, EndStyle, HeartbeatForm, LagPolicy};
#[cfg(doc)]
use tidings_core::limits;
use tidings_core::{Filter, Grant, Matchers};

/// Where a stream starts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cursor {
    /// From now.
    Live,
    /// Everything that is kept.
    Earliest,
    /// After the event with this id: as a client sent it, minted (with or without `#`) or a publisher's. `earliest` means
    /// [`Cursor::Earliest`], and the empty id [`Cursor::Live`].
    After(String),
    /// With the kept events accepted at this moment or later, in milliseconds since 1970. If some of those may have been removed that
    /// this reader could have had, the stream begins with a gap.
    Since(u64),
    /// With the newest kept events that this reader may have, so many of them; at most [`limits::LAST_EVENTS`], more count as that.
    /// There are fewer if fewer are kept, or found among the newest [`limits::LAST_SCAN`] that it could be.
    Last(usize),
}

/// What to subscribe to, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// The topics.
    pub matchers: Matchers,
    /// Topics asked for in the older dialect of Mercure: events about subscriptions come in its view to them (M-405).
    pub(crate) older: Matchers,
    /// What presence tells of it: nothing, but on the Mercure path.
    pub(crate) told: Vec<Told>,
    /// Where to start.
    pub cursor: Cursor,
    /// Whether events name their topics (`topics` field lines, N-13b). Always on for [`crate::Granted::subscribe`].
    pub topics_field: bool,
    /// Priming (N-13a); `None` is the hub's setting for these topics.
    pub prime: Option<bool>,
    /// How a planned end ends (N-17); `None` is the hub's setting.
    pub end: Option<EndStyle>,
    /// What follows a gap (N-14); `None` is the hub's setting.
    pub after_gap: Option<AfterGap>,
    /// What happens when the reader falls too far behind; `None` is the hub's setting.
    pub lag_policy: Option<LagPolicy>,
    /// Whether missing events are told by an event (N-14). Without it only [`crate::Opened::gap`] says so, and a stream in which events turn
    /// out to be missing later is broken off, so that its client resumes and is told then (M-407).
    pub gap_event: bool,
    /// What is sent in silence (S-26); `None` is the hub's setting.
    pub heartbeat_form: Option<HeartbeatForm>,
}

impl Subscription {
    /// Live, with the hub's settings.
    pub fn new(matchers: impl Into<Matchers>) -> Self {
        Subscription {
            matchers: matchers.into(),
            older: Matchers::none(),
            told: Vec::new(),
            cursor: Cursor::Live,
            topics_field: false,
            prime: None,
            end: None,
            after_gap: None,
            lag_policy: None,
            gap_event: true,
            heartbeat_form: None,
        }
    }

    /// The same from another place.
    #[must_use]
    pub fn from_cursor(self, cursor: Cursor) -> Self {
        Subscription { cursor, ..self }
    }

    /// The same from a moment on, in milliseconds since 1970.
    #[must_use]
    pub fn since(self, moment: u64) -> Self {
        self.from_cursor(Cursor::Since(moment))
    }

    /// The same with the newest events first, so many of them.
    #[must_use]
    pub fn last(self, count: usize) -> Self {
        self.from_cursor(Cursor::Last(count))
    }

    /// The same after an event, by its id.
    #[must_use]
    pub fn after(self, id: impl Into<String>) -> Self {
        self.from_cursor(Cursor::After(id.into()))
    }

    /// Which events a reader with these rights gets.
    pub(super) fn filter(&self, grant: &Grant) -> Filter {
        Filter::in_views(self.matchers.clone(), self.older.clone(), grant)
    }
}
