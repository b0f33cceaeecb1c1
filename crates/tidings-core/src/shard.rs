//! A shard: the state machine that owns a part of the subscribers and decides who is written what, and when.
//!
//! It owns no socket, clock or thread. Whoever drives it tells it what happened (`handle_*`) and asks what to do (`poll_*`):
//!
//! 1. [`Shard::subscribe`], [`Shard::handle_batch`], [`Shard::handle_writable`], [`Shard::handle_closed`], [`Shard::handle_page`] and
//!    [`Shard::handle_tick`] in any order, with a `now` that never goes back. A batch is taken only while [`Shard::wants_batch`].
//! 2. [`Shard::poll_transmit`] until it is idle or enough was done for one turn; each [`Transmit`] is answered at once by
//!    [`Shard::handle_written`] or [`Shard::handle_closed`].
//! 3. [`Shard::poll_page_request`] and [`Shard::poll_closed`] until they are empty. The first may find a page at hand and make somebody
//!    ready, and writing may make somebody want one: before sleeping go on until [`Shard::poll_transmit`] is idle and not
//!    [`Shard::wants_page`]. The second comes before the next [`Shard::subscribe`], which may use
//!    the slot of somebody closed again.
//!
//! Every subscriber is a cursor. *Live* means that everything up to the shard's tail has been written to it: it costs a slot and nothing
//! else. *Behind* means that it reads forward: from the shard's ring of recent records, or from pages of the store when it is further
//! back. A subscriber whose cursor is beyond the tail (*ahead*: it comes from a quicker shard) counts as live and skips what it has.
//! New, resumed, slow and interrupted subscribers are all just behind, and a subscriber may be put behind at any time without loss,
//! because what it gets next depends on its cursor alone.

mod deadlines;
mod pages;
mod reading;
mod sweep;
mod terms;

pub use deadlines::Millis;
pub use pages::{Floors, Page, PageFailed, PageId, PageRequest, Reading};
pub use terms::{
    CloseReason, Closed, EndStyle, Gap, HeartbeatForm, InterestChange, Lag, LagPolicy, MissingEvents, NewSubscriber, Poll, ShardConfig,
    ShardStats, SubscriberId, Transmit,
};

use crate::{
    Record, Window,
    feed::{Feed, FeedKey, Filter},
    index::Index,
    names::Names,
    routes::Routes,
};
use bytes::Bytes;
use deadlines::Coarse;
use pages::Pages;
use slab::Slab;
use std::{collections::VecDeque, hash::BuildHasher, sync::Arc};
use sweep::Sweeps;

const NONE: u32 = u32::MAX;

/// One connection: a feed, a cursor, a state. A cache line, so that a round over many touches one line each.
#[derive(Debug)]
struct Slot {
    /// Lower bound while live (see [`Shard::put_behind`]), exact while behind: everything up to here was begun to be written.
    cursor: u64,
    /// The cursor its client holds: of the last event or gap it was sent, or what it came or was primed with.
    told: u64,
    generation: u32,
    feed: u32,
    /// Place in the feed's members while live.
    place: u32,
    /// Place in the table of those behind.
    behind: u32,
    last_write: Coarse,
    /// When it came.
    since: Coarse,
    ends_at: Coarse,
    ends_why: CloseReason,
    /// When its rights end, whatever else ends it before.
    expires_at: Coarse,
    end: EndStyle,
    lag_policy: LagPolicy,
    missing: MissingEvents,
    prime: bool,
    heartbeat: HeartbeatForm,
    /// Its client has ended its half early, and may read on.
    half_closed: bool,
    /// It has been live, so from now on falling behind is lag and not replay.
    was_live: bool,
}

const _: () = assert!(size_of::<Slot>() <= 64);

/// What a connection needs only while it is not live.
#[derive(Debug)]
struct Behind {
    /// The rest of what was begun; nothing else is written before its last byte.
    pinned: Bytes,
    /// Read from the store, and how much of it was used.
    page: Option<(Arc<Page>, usize)>,
    gap: Option<Gap>,
    /// Up to here it gets only the newest event of each topic and type, as far as the store keeps those.
    latest_until: u64,
    /// What was gone when it started.
    known: Option<Floors>,
    /// It has taken less than it was offered and not said since that it takes more.
    blocked: bool,
    queued: bool,
    waits_for_page: bool,
    /// A planned end was decided on.
    ending: Option<CloseReason>,
    /// The last bytes of the planned end are pinned or written.
    end_written: bool,
    /// The tail at some time. What is missing up to there has been missing for at least as long.
    mark: (u64, Millis),
    /// Since when bytes have waited for it without one being taken.
    starved_since: Option<Millis>,
}

#[derive(Debug)]
struct InFlight {
    id: SubscriberId,
    len: usize,
    what: Writing,
}

/// What was found to do; a transmit stands in [`Shard::in_flight`].
enum Found {
    Transmit,
    Working,
    Nothing,
}

#[derive(Debug)]
enum Writing {
    /// A sweep's frame, to a live subscriber.
    Live,
    /// Something pinned.
    Pinned,
    /// The events in `scratch`, to somebody behind who then has everything up to `covered`; and the page they are from.
    Events { covered: u64, page: Option<Arc<Page>> },
}

/// The state machine. See the module documentation for the order of calls.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    ring: Window,
    slots: Slab<Slot>,
    behind: Slab<Behind>,
    feeds: Slab<Feed>,
    feed_ids: Index,
    routes: Routes,
    ready: VecDeque<SubscriberId>,
    sweeps: Sweeps,
    in_flight: Option<InFlight>,
    pages: Pages,
    closed: VecDeque<Closed>,
    interest: VecDeque<InterestChange>,
    generation: u32,
    prefer_ready: bool,
    rng: Rng,
    tick_at: Millis,
    tick_slice: usize,
    stats: ShardStats,
    /// What the last reading for somebody behind found.
    scratch: Vec<Record>,
}

impl Shard {
    /// A shard without subscribers, whose tail is `after`.
    pub fn new(config: ShardConfig, after: u64, now: Millis) -> Shard {
        let seed = config.seed;
        Shard {
            ring: Window::new(after, config.window_bytes, config.window_events),
            slots: Slab::new(),
            behind: Slab::new(),
            feeds: Slab::new(),
            feed_ids: Index::new(seed),
            routes: Routes::new(seed),
            ready: VecDeque::new(),
            sweeps: Sweeps::default(),
            in_flight: None,
            pages: Pages::default(),
            closed: VecDeque::new(),
            interest: VecDeque::new(),
            generation: 0,
            prefer_ready: false,
            rng: Rng(seed),
            tick_at: now,
            tick_slice: 0,
            stats: ShardStats::default(),
            scratch: Vec::new(),
            config,
        }
    }

    /// The sequence up to which this shard has taken the log.
    pub fn tail(&self) -> u64 {
        self.ring.head()
    }

    /// Subscribers, live or not.
    pub fn subscribers(&self) -> usize {
        self.slots.len()
    }

    /// Subscribers who would receive a public event with this topic.
    pub fn subscribers_of(&self, topic: &crate::Topic) -> u64 {
        let mut feeds = Vec::new();
        let names = Names::new(std::slice::from_ref(topic));
        self.routes.asking(&names, |feed| feeds.push(feed));
        feeds.sort_unstable();
        feeds.dedup();
        let wants = |feed: &&Feed| feed.key.filter.may_read(&names, false);
        feeds.iter().filter_map(|&feed| self.feeds.get(feed as usize)).filter(wants).map(|feed| u64::from(feed.subscribers)).sum()
    }

    /// What was counted.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    /// Takes over a subscriber. Its opening is the first thing it is written.
    pub fn subscribe(&mut self, new: NewSubscriber, now: Millis) -> SubscriberId {
        let feed = self.intern(new.feed);
        self.generation = self.generation.wrapping_add(1);
        let behind = Behind {
            pinned: new.opening,
            page: None,
            gap: new.gap,
            latest_until: new.latest_until,
            known: new.known,
            blocked: false,
            queued: false,
            waits_for_page: false,
            ending: None,
            end_written: false,
            mark: (self.ring.head(), now),
            starved_since: None,
        };
        let expires_at = new.expires_at.or(new.ends.filter(|&(_, why)| why == CloseReason::Expired).map(|(at, _)| at));
        let slot = Slot {
            cursor: new.after,
            told: new.after,
            generation: self.generation,
            feed,
            place: NONE,
            behind: self.behind.insert(behind) as u32,
            last_write: Coarse::floor(now),
            since: Coarse::floor(now),
            ends_at: new.ends.map_or(Coarse::NEVER, |(at, _)| Coarse::floor(at)),
            ends_why: new.ends.map_or(CloseReason::Age, |(_, why)| why),
            expires_at: expires_at.map_or(Coarse::NEVER, Coarse::floor),
            end: new.end,
            lag_policy: new.lag_policy,
            missing: new.missing,
            prime: new.prime,
            heartbeat: new.heartbeat,
            half_closed: false,
            was_live: false,
        };
        let id = SubscriberId { slot: self.slots.insert(slot) as u32, generation: self.generation };
        self.queue(id);
        id
    }

    /// What to write next. Answer a [`Transmit`] before asking again.
    pub fn poll_transmit(&mut self, now: Millis) -> Poll<'_> {
        assert!(self.in_flight.is_none(), "the last transmit was not answered");
        // Those behind and those live take turns, so that neither waits for all of the other.
        self.prefer_ready = !self.prefer_ready;
        let mut found = if self.prefer_ready { self.poll_ready() } else { Found::Nothing };
        if matches!(found, Found::Nothing) {
            self.in_flight = self.poll_sweeps(now);
            found = if self.in_flight.is_some() { Found::Transmit } else { self.poll_ready() };
        }
        match (found, &self.in_flight) {
            (Found::Transmit, Some(InFlight { id, what: Writing::Live, .. })) => {
                Poll::Transmit(Transmit { id: *id, bytes: self.live_bytes() })
            }
            (Found::Transmit, Some(InFlight { id, .. })) => {
                Poll::Transmit(Transmit { id: *id, bytes: &self.behind[self.slots[id.index()].behind as usize].pinned })
            }
            (Found::Nothing, _) => Poll::Idle,
            _ => Poll::Working,
        }
    }

    /// How many bytes of the last [`Transmit`] the connection took; fewer than all means that it takes no more until
    /// [`Shard::handle_writable`].
    pub fn handle_written(&mut self, taken: usize, now: Millis) {
        let Some(InFlight { id, len, what }) = self.in_flight.take() else { return };
        let all = taken >= len;
        self.stats.bytes += taken as u64;
        let slot = &mut self.slots[id.index()];
        if taken > 0 {
            slot.last_write = Coarse::floor(now);
            self.stats.writes += 1;
        }
        match what {
            Writing::Live => self.handle_live_written(id, taken, now),
            Writing::Pinned => {
                let behind = self.behind_of(id);
                behind.pinned = behind.pinned.slice(taken.min(len)..);
                self.after_behind_write(id, taken, all, now);
            }
            Writing::Events { covered, page } => {
                self.handle_events_written(id, taken, covered, page);
                self.after_behind_write(id, taken, all, now);
            }
        }
    }

    /// A connection that had taken less than it was offered takes bytes again. It is still starved until it has taken one.
    pub fn handle_writable(&mut self, id: SubscriberId) {
        if self.is_behind(id) && self.behind_of(id).blocked {
            self.behind_of(id).blocked = false;
            self.queue(id);
        }
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, id: SubscriberId) {
        if self.is_there(id) {
            self.remove(id, CloseReason::Client);
        }
    }

    /// The next subscriber that was removed for another reason than [`Shard::handle_closed`].
    pub fn poll_closed(&mut self) -> Option<Closed> {
        self.closed.pop_front()
    }

    /// The next change of what is asked for here; to be looked at after whatever may have brought it, and before [`Shard::wants_batch`].
    pub fn poll_interest(&mut self) -> Option<InterestChange> {
        self.interest.pop_front()
    }

    fn make_live(&mut self, id: SubscriberId) {
        let slot = &mut self.slots[id.index()];
        self.behind.remove(slot.behind as usize);
        slot.behind = NONE;
        slot.was_live = true;
        let feed = &mut self.feeds[slot.feed as usize];
        slot.place = feed.members.len() as u32;
        feed.members.push(id.slot);
        self.sweeps.joined(feed);
    }

    /// Takes a live subscriber out of its feed's members; what it gets next it reads by its cursor.
    fn put_behind(&mut self, id: SubscriberId, now: Millis, blocked: bool) {
        self.leave_members(id);
        let slot = &mut self.slots[id.index()];
        // A live cursor is not moved while nothing matches.
        slot.cursor = self.sweeps.settled(&self.feeds[slot.feed as usize], slot.cursor, self.ring.head());
        slot.behind = self.behind.insert(Behind {
            pinned: Bytes::new(),
            page: None,
            gap: None,
            latest_until: 0,
            known: None,
            blocked,
            queued: false,
            waits_for_page: false,
            ending: None,
            end_written: false,
            mark: (self.ring.head(), now),
            starved_since: blocked.then_some(now),
        }) as u32;
    }

    fn remove(&mut self, id: SubscriberId, reason: CloseReason) {
        if self.in_flight.as_ref().is_some_and(|in_flight| in_flight.id == id) {
            self.in_flight = None;
        }
        if self.slots[id.index()].behind == NONE {
            self.leave_members(id);
        }
        let slot = self.slots.remove(id.index());
        if slot.behind != NONE && self.behind.remove(slot.behind as usize).waits_for_page {
            self.stopped_waiting();
        }
        self.stats.closed[reason as usize] += 1;
        let feed = &mut self.feeds[slot.feed as usize];
        feed.subscribers -= 1;
        if feed.subscribers == 0 {
            let feed = self.feeds.remove(slot.feed as usize);
            self.feed_ids.remove(&feed.key, |id| id == slot.feed);
            self.interest.push_back(InterestChange::Lost(feed.key.filter.clone()));
            self.routes.remove(slot.feed, feed.key.filter.matchers());
            self.pages.forget_feed(slot.feed);
            self.sweeps.abandon(feed.sweep);
        }
    }

    /// A forced end: wherever the connection is.
    fn force(&mut self, id: SubscriberId, reason: CloseReason) {
        self.remove(id, reason);
        self.closed.push_back(Closed { id, reason, end: EndStyle::Abort, forced: true });
    }

    fn intern(&mut self, key: FeedKey) -> u32 {
        if let Some(feed) = self.feed_ids.get(&key, |id| self.feeds[id as usize].key == key) {
            self.feeds[feed as usize].subscribers += 1;
            return feed;
        }
        self.interest.push_back(InterestChange::Gained(key.filter.clone()));
        self.routes.insert(self.feeds.vacant_key() as u32, key.filter.matchers());
        // Most feeds have one member where there are many.
        let feed = self.feeds.insert(Feed { key, members: Vec::with_capacity(1), subscribers: 1, sweep: NONE, seen: 0 });
        let feeds = &self.feeds;
        self.feed_ids.insert(&feeds[feed].key, feed as u32, |state, id| state.hash_one(&feeds[id as usize].key));
        feed as u32
    }

    fn is_there(&self, id: SubscriberId) -> bool {
        self.slots.get(id.index()).is_some_and(|slot| slot.generation == id.generation)
    }

    fn is_behind(&self, id: SubscriberId) -> bool {
        self.is_there(id) && self.slots[id.index()].behind != NONE
    }

    fn behind_of(&mut self, id: SubscriberId) -> &mut Behind {
        &mut self.behind[self.slots[id.index()].behind as usize]
    }

    fn queue(&mut self, id: SubscriberId) {
        let behind = self.behind_of(id);
        if !behind.queued {
            behind.queued = true;
            self.ready.push_back(id);
        }
    }

    fn filter_of(&self, id: SubscriberId) -> &Arc<Filter> {
        &self.feeds[self.slots[id.index()].feed as usize].key.filter
    }
}

/// A small generator (SplitMix64): spreads times, guards nothing.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    fn between(&mut self, (from, to): (u32, u32)) -> u32 {
        from + self.below(u64::from(to.saturating_sub(from)) + 1) as u32
    }
}
