//! What a shard and whoever drives it say to each other: settings, arrivals, transmits, farewells, counts. Values only, no behaviour.

use super::{Floors, Millis};
use crate::{Epoch, EventId, FeedKey, Filter, Framing, GapReason, IdForm, Position, limits};
use bytes::Bytes;
use std::sync::Arc;

/// What happens to a reader that falls too far behind, where the store cannot serve it from the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum LagPolicy {
    /// Close the connection; the client resumes with its cursor, and is told if that place is gone.
    Disconnect,
    /// Jump to the newest event and say so with a gap event.
    Gap,
}

/// How a planned end ends (N-17, S-42).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EndStyle {
    /// The proper end of the response.
    Clean,
    /// Break the response off, for clients that stop on a clean end.
    Abort,
}

/// What is written in silence (S-24, S-26).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum HeartbeatForm {
    /// A comment line, which no client shows.
    Comment,
    /// An event of type `tidings.heartbeat`, for consumers that do not count comments as signs of life.
    Event,
}

/// Why a subscriber is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client went, or its connection broke.
    Client,
    /// Its maximum age was reached.
    Age,
    /// Its rights ended.
    Expired,
    /// The hub is draining.
    Drain,
    /// It fell behind a bound.
    Lagged,
    /// It took no byte for too long.
    Stalled,
    /// The store could not be read.
    Store,
    /// The shard failed and was rebuilt.
    Failed,
}

impl CloseReason {
    /// Every reason, for counters by reason.
    pub const ALL: [CloseReason; 8] = [
        CloseReason::Client,
        CloseReason::Age,
        CloseReason::Expired,
        CloseReason::Drain,
        CloseReason::Lagged,
        CloseReason::Stalled,
        CloseReason::Store,
        CloseReason::Failed,
    ];

    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Client => "client",
            CloseReason::Age => "age",
            CloseReason::Expired => "expired",
            CloseReason::Drain => "drain",
            CloseReason::Lagged => "lagged",
            CloseReason::Stalled => "stalled",
            CloseReason::Store => "store",
            CloseReason::Failed => "failed",
        }
    }
}

/// The settings of a shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardConfig {
    /// The log's epoch, for ids in gaps and priming.
    pub epoch: Epoch,
    /// The form of those ids.
    pub ids: IdForm,
    /// Secret and random in production; it decides retry times, spread and hash order.
    pub seed: u64,
    /// Bytes of records whose pointers the ring keeps.
    pub window_bytes: usize,
    /// Pointers the ring keeps.
    pub window_events: usize,
    /// Bytes merged into one write, without chunks at most [`limits::BODY_FRAME_BYTES`]; and bytes pending for live readers, over all feeds,
    /// from which on no more are taken.
    pub frame_bytes: usize,
    /// Silence after which a comment is written, in milliseconds.
    pub heartbeat_ms: Option<u64>,
    /// Without a byte taken for this long while some wait, a connection is closed.
    pub stalled_ms: u64,
    /// Bounds after which the lag policy applies; `None` when the store serves any lag.
    pub lag: Option<Lag>,
    /// Range of the reconnection time in a planned end.
    pub retry_ms: (u32, u32),
}

/// How far a reader that has been live may fall behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lag {
    /// In bytes of records.
    pub bytes: u64,
    /// In events.
    pub events: u64,
    /// In milliseconds.
    pub ms: u64,
}

impl ShardConfig {
    /// The defaults of table N-40.
    pub fn new(epoch: Epoch, seed: u64) -> ShardConfig {
        ShardConfig {
            epoch,
            ids: IdForm::PLAIN,
            seed,
            window_bytes: limits::WINDOW_BYTES,
            window_events: limits::WINDOW_EVENTS,
            frame_bytes: limits::FRAME_BYTES,
            heartbeat_ms: Some(limits::HEARTBEAT_MS),
            stalled_ms: limits::STALLED_WRITE_MS,
            lag: Some(Lag { bytes: limits::LAG_BYTES, events: limits::LAG_EVENTS, ms: limits::LAG_MS }),
            retry_ms: limits::RETRY_RANGE_MS,
        }
    }

    /// The id of a place in the log.
    pub(super) fn id_of(&self, sequence: u64) -> EventId {
        self.ids.id(Position { epoch: self.epoch, sequence })
    }

    pub(super) fn frame_bytes_of(&self, framing: Framing) -> usize {
        match framing {
            Framing::Chunked => self.frame_bytes,
            Framing::Plain => self.frame_bytes.min(limits::BODY_FRAME_BYTES),
        }
    }
}

/// What happens when events turn out to be missing while a subscriber is read what is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MissingEvents {
    /// It is told by a gap event (N-14).
    Tell,
    /// It is broken off, and told by the answer when it resumes: for readers that take no gap events (M-407).
    End,
    /// It goes on, for it was told before the stream began that not everything follows (M-92).
    Skip,
}

/// A gap that is still to be told to a subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The cursor it asked for.
    pub requested: Box<str>,
    /// Why it cannot be served.
    pub reason: GapReason,
}

/// A subscriber as it arrives.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewSubscriber {
    /// What it asked for, with which rights, in which form.
    pub feed: FeedKey,
    /// It has everything up to this sequence.
    pub after: u64,
    /// Up to this sequence it gets only the newest event of each topic and type, where the store keeps those (Z-30).
    pub latest_until: u64,
    /// What was gone when it started, and is no news for it.
    pub known: Option<Floors>,
    /// A gap to be told before anything else.
    pub gap: Option<Gap>,
    /// What happens when more is missing than that.
    pub missing: MissingEvents,
    /// Its first bytes, framed (comment, `retry`, priming).
    pub opening: Bytes,
    /// Whether a planned end moves its cursor forward (N-13a).
    pub prime: bool,
    /// How a planned end ends.
    pub end: EndStyle,
    /// What happens when it falls too far behind.
    pub lag_policy: LagPolicy,
    /// What it is written in silence.
    pub heartbeat: HeartbeatForm,
    /// When it is ended, and whether because of its age or its rights.
    pub ends: Option<(Millis, CloseReason)>,
    /// When its rights end, if that is not what `ends` says: a connection that takes nothing is broken off then, whatever ends it before (M-82).
    pub expires_at: Option<Millis>,
}

impl NewSubscriber {
    /// With priming, a clean end, `disconnect`, comments as heartbeats, and no end in sight.
    pub fn new(feed: FeedKey, after: u64, opening: Bytes) -> NewSubscriber {
        NewSubscriber {
            feed,
            after,
            latest_until: 0,
            known: None,
            gap: None,
            missing: MissingEvents::Tell,
            opening,
            prime: true,
            end: EndStyle::Clean,
            lag_policy: LagPolicy::Disconnect,
            heartbeat: HeartbeatForm::Comment,
            ends: None,
            expires_at: None,
        }
    }
}

/// Names a subscriber of one shard; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubscriberId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl SubscriberId {
    /// The index of its slot: below the largest number of subscribers there ever were at once, so that the driver can keep its
    /// connections in a table of the same shape.
    pub fn index(self) -> usize {
        self.slot as usize
    }

    /// What tells it from others that had its slot. A table by slots need keep no more of it: see [`SubscriberId::in_slot`].
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The subscriber whose [index](SubscriberId::index) and [generation](SubscriberId::generation) these are.
    ///
    /// ```
    /// # use tidings_core::shard::SubscriberId;
    /// let id = SubscriberId::in_slot(7, 1);
    /// assert_eq!((id.index(), id.generation()), (7, 1));
    /// ```
    pub fn in_slot(index: usize, generation: u32) -> SubscriberId {
        SubscriberId { slot: index as u32, generation }
    }
}

/// Bytes to write to a connection now.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// To whom.
    pub id: SubscriberId,
    /// Shared with everyone who gets the same. Lent: who needs them no longer than the write touches no count of references.
    pub bytes: &'a Bytes,
}

/// What [`super::Shard::poll_transmit`] found. Exhaustive on purpose: whatever a shard may say, every driver has to act on.
#[derive(Debug)]
pub enum Poll<'a> {
    /// Write this, then say how it went.
    Transmit(Transmit<'a>),
    /// A bounded piece of reading was done for somebody; ask again, now or in the next turn.
    Working,
    /// Nothing until something happens.
    Idle,
}

/// A subscriber that was removed; its connection is to be ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// Who.
    pub id: SubscriberId,
    /// Why.
    pub reason: CloseReason,
    /// How.
    pub end: EndStyle,
    /// A forced end aborts wherever the connection is, and what was handed over for it and not sent is not sent any more. A planned one
    /// comes after its last bytes.
    pub forced: bool,
}

/// A question that somebody asks of a shard now and nobody did, or the other way round. Whoever has events knows by it whether the shard
/// needs to be woken for them.
#[derive(Clone, Debug)]
pub enum InterestChange {
    /// The first subscriber with this question.
    Gained(Arc<Filter>),
    /// The last one has gone.
    Lost(Arc<Filter>),
}

/// What a shard has counted since it was made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardStats {
    /// Events written to subscribers.
    pub deliveries: u64,
    /// Writes of which a connection took something; under load each carries many events.
    pub writes: u64,
    /// Bytes taken by connections.
    pub bytes: u64,
    /// Subscribers gone, by [`CloseReason`] as index.
    pub closed: [u64; CloseReason::ALL.len()],
    /// Gaps told, by [`GapReason`] as index.
    pub gaps: [u64; GapReason::ALL.len()],
}

impl ShardStats {
    /// Adds what another shard, or an earlier one in the same place, has counted.
    pub fn add(&mut self, other: &ShardStats) {
        self.deliveries += other.deliveries;
        self.writes += other.writes;
        self.bytes += other.bytes;
        for (sum, count) in self.closed.iter_mut().chain(&mut self.gaps).zip(other.closed.iter().chain(&other.gaps)) {
            *sum += count;
        }
    }
}
