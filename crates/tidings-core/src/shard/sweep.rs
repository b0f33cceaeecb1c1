//! The live path: what the live members of a feed have yet to be written, and who is written next. Each feed's bytes are built once for
//! everybody who lacks the same events.
//!
//! A sweep goes round the members of one feed until everybody has everything. Events that come meanwhile join it: whoever is visited gets
//! all that has come until then, so under load a write carries twice as many events as in rounds that finish with what they began with.
//! After a round through many the feed rests about as long as it took, and during a round that follows on another already: what comes
//! meanwhile is written together.
//!
//! It knows members and bytes; sockets, time and those who are behind are not its business.

use super::{InFlight, Millis, NONE, Shard, SubscriberId, Writing, reading::begun};
use crate::{
    Framing, Record, Window,
    feed::{Feed, FeedKey},
    limits,
    names::Names,
};
use bytes::{Bytes, BytesMut};
use slab::Slab;
use std::collections::VecDeque;

/// The sweeps of a shard, by turns.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    slab: Slab<Sweep>,
    turns: VecDeque<u32>,
    /// Those that rest, and until when.
    resting: Vec<(Millis, u32)>,
    /// All that is pending, once for each feed.
    bytes: usize,
    rotation: usize,
    /// Of sweeps that are over, for the room they have.
    spare: Vec<VecDeque<Pending>>,
}

/// One feed's.
#[derive(Debug)]
struct Sweep {
    /// [`NONE`] when its last subscriber has left.
    feed: u32,
    framing: Framing,
    /// In order; begins with the first event that somebody may lack.
    pending: VecDeque<Pending>,
    /// Place of the member to be visited next; they are visited in the order of their places, round and round.
    next: usize,
    /// Visits made, less one for each that a change among the members put off.
    visits: i64,
    /// Visits before another feed has its turn.
    turn: usize,
    /// Visits that make this round complete.
    round: Option<i64>,
    /// Writes made since it began, or since the last rest.
    writes: u64,
    /// The round before ended with more to write.
    follows: bool,
    /// What the last one visited was written.
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Pending {
    record: Record,
    /// Everybody has it after so many visits.
    until: i64,
}

/// Events merged into one write, for everybody with a cursor from `after` to `first`.
#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    after: u64,
    first: u64,
    last: u64,
    events: u32,
}

impl Sweeps {
    fn push(&mut self, id: u32, feed: &mut Feed, record: &Record) {
        if feed.sweep == NONE {
            self.rotation = self.rotation.wrapping_add(61);
            let sweep = Sweep {
                feed: id,
                framing: feed.key.framing,
                pending: self.spare.pop().unwrap_or_default(),
                // Not always the same ones last.
                next: self.rotation.checked_rem(feed.members.len()).unwrap_or(0),
                visits: 0,
                turn: limits::SWEEP_VISITS,
                round: None,
                writes: 0,
                follows: false,
                frame: None,
            };
            feed.sweep = self.slab.insert(sweep) as u32;
            self.turns.push_back(feed.sweep);
        }
        let sweep = &mut self.slab[feed.sweep as usize];
        self.bytes += record.wire(feed.key.framing).len();
        let until = sweep.visits + feed.members.len() as i64;
        sweep.pending.push_back(Pending { record: record.clone(), until });
        sweep.frame = None;
    }

    /// The sweep whose turn it is.
    fn current(&mut self) -> Option<&mut Sweep> {
        let &id = self.turns.front()?;
        Some(&mut self.slab[id as usize])
    }

    fn begin_turn(&mut self) {
        if let Some(sweep) = self.current() {
            sweep.turn = limits::SWEEP_VISITS;
        }
    }

    fn end_current(&mut self) {
        let Some(id) = self.turns.pop_front() else { return };
        let mut sweep = self.slab.remove(id as usize);
        self.bytes -= sweep.pending.drain(..).map(|pending| pending.len(sweep.framing)).sum::<usize>();
        if self.spare.len() < limits::SPARE_SWEEPS && sweep.pending.capacity() <= limits::TAKEN_EVENTS {
            self.spare.push(sweep.pending);
        }
        self.begin_turn();
    }

    /// The last subscriber of the feed has left.
    pub(super) fn abandon(&mut self, sweep: u32) {
        if sweep != NONE {
            self.slab[sweep as usize].feed = NONE;
        }
    }

    /// Up to where a live member of the feed has everything, exactly.
    pub(super) fn settled(&self, feed: &Feed, cursor: u64, tail: u64) -> u64 {
        let lacking = self.slab.get(feed.sweep as usize).and_then(|sweep| sweep.pending.get(sweep.lacks(cursor)));
        lacking.map_or(tail, |pending| pending.sequence() - 1).max(cursor)
    }

    /// The member that just became live stands last in its feed: everybody who waits for a visit may wait for one more.
    pub(super) fn joined(&mut self, feed: &Feed) {
        if let Some(sweep) = self.slab.get_mut(feed.sweep as usize) {
            sweep.visits -= 1;
        }
    }

    /// Lets go on who has rested, or all when so much is pending that waiting would save nothing more.
    fn rested(&mut self, now: Millis, frame_bytes: usize) {
        let full = self.bytes >= frame_bytes;
        let turns = &mut self.turns;
        self.resting.retain(|&(until, sweep)| {
            let rests = until > now && !full;
            if !rests {
                turns.push_back(sweep);
            }
            rests
        });
    }
}

impl Pending {
    fn sequence(&self) -> u64 {
        self.record.position().sequence
    }

    /// What it counts for in the bounds.
    fn len(&self, framing: Framing) -> usize {
        self.record.wire(framing).len()
    }
}

impl Sweep {
    /// Where in `pending` stands what a member lacks.
    fn lacks(&self, cursor: u64) -> usize {
        self.pending.partition_point(|pending| pending.sequence() <= cursor)
    }

    fn visited(&mut self) {
        self.next += 1;
        self.visits += 1;
        self.turn = self.turn.saturating_sub(1);
    }

    /// The bytes for somebody with this cursor, up to a bound; nothing if it lacks nothing.
    fn frame(&mut self, key: &FeedKey, cursor: u64, frame_bytes: usize) -> Option<&Frame> {
        if !self.frame.as_ref().is_some_and(|frame| (frame.after..frame.first).contains(&cursor)) {
            let from = self.lacks(cursor);
            let first = self.pending.get(from)?;
            let after = from.checked_sub(1).map_or(0, |before| self.pending[before].sequence());
            let (mut events, mut len) = (1, first.len(self.framing));
            for pending in self.pending.range(from + 1..) {
                if len + pending.len(self.framing) > frame_bytes {
                    break;
                }
                len += pending.len(self.framing);
                events += 1;
            }
            let bytes = if events == 1 {
                key.bytes(&first.record)
            } else {
                let mut bytes = BytesMut::with_capacity(len);
                self.pending.range(from..from + events).for_each(|pending| key.append(&pending.record, &mut bytes));
                bytes.freeze()
            };
            let last = self.pending[from + events - 1].sequence();
            self.frame = Some(Frame { bytes, after, first: first.sequence(), last, events: events as u32 });
        }
        self.frame.as_ref()
    }
}

impl Shard {
    /// Whether the next batch may come: most of what came before has reached everybody it could.
    pub fn wants_batch(&self) -> bool {
        self.sweeps.bytes < self.config.frame_bytes
    }

    /// Takes the next records of the log, in order and without a hole. Only while [`Shard::wants_batch`].
    pub fn handle_batch(&mut self, records: &[Record]) {
        assert!(self.wants_batch(), "what is pending is bounded: the next batch waits until it is written");
        for record in records {
            self.ring.push(record.clone(), drop);
            let (feeds, sweeps, sequence) = (&mut self.feeds, &mut self.sweeps, record.position().sequence);
            let names = Names::new(record.topics());
            self.routes.asking(&names, |id| {
                let feed = &mut feeds[id as usize];
                if feed.seen != sequence {
                    feed.seen = sequence;
                    let filter = &feed.key.filter;
                    if !feed.members.is_empty() && filter.wants_asked(record, &names) {
                        sweeps.push(id, feed, record);
                    }
                }
            });
        }
    }

    /// Goes to a later place without looking at what lies between: only while there are no subscribers, whom it could concern. Who comes
    /// later with an older cursor reads pages of the store.
    pub fn handle_skipped(&mut self, to: u64) {
        assert!(self.slots.is_empty() && to >= self.tail(), "records are skipped forward, and only while nobody is here");
        self.ring = Window::new(to, self.config.window_bytes, self.config.window_events);
    }

    /// The next write to somebody live; what to write stands in the sweep's frame.
    pub(super) fn poll_sweeps(&mut self, now: Millis) -> Option<InFlight> {
        if !self.sweeps.resting.is_empty() {
            self.sweeps.rested(now, self.config.frame_bytes);
        }
        while let Some(&at) = self.sweeps.turns.front() {
            let Sweeps { slab, turns, resting, bytes, .. } = &mut self.sweeps;
            let sweep = &mut slab[at as usize];
            let visits = sweep.visits;
            while let Some(pending) = sweep.pending.pop_front_if(|pending| pending.until <= visits) {
                *bytes -= pending.len(sweep.framing);
            }
            let members = self.feeds.get(sweep.feed as usize).map_or(0, |feed| feed.members.len());
            let round_ends = visits >= *sweep.round.get_or_insert(visits + members as i64);
            if round_ends {
                sweep.round = None;
                sweep.follows = !sweep.pending.is_empty();
            }
            if round_ends || (sweep.follows && sweep.writes >= limits::WRITES_BETWEEN_RESTS) {
                let rest = (std::mem::take(&mut sweep.writes) * limits::REST_PER_WRITE_US / 1_000).min(limits::SWEEP_REST_MS);
                if rest > 0 {
                    sweep.frame = None;
                    turns.pop_front();
                    resting.push((now.plus(rest), at));
                    self.sweeps.begin_turn();
                    continue;
                }
            }
            let feed = self.feeds.get_mut(sweep.feed as usize);
            let Some(feed) = feed.filter(|feed| !sweep.pending.is_empty() && !feed.members.is_empty()) else {
                if let Some(feed) = self.feeds.get_mut(sweep.feed as usize) {
                    feed.sweep = NONE;
                }
                self.sweeps.end_current();
                continue;
            };
            if sweep.turn == 0 && turns.len() > 1 {
                sweep.frame = None;
                turns.rotate_left(1);
                self.sweeps.begin_turn();
                continue;
            }
            if sweep.next >= feed.members.len() {
                sweep.next = 0;
            }
            let index = feed.members[sweep.next];
            let slot = &self.slots[index as usize];
            if let Some(frame) = sweep.frame(&feed.key, slot.cursor, self.config.frame_bytes_of(sweep.framing)) {
                let id = SubscriberId { slot: index, generation: slot.generation };
                return Some(InFlight { id, len: frame.bytes.len(), what: Writing::Live });
            }
            // It is ahead, or became live after all this came, or has it already.
            sweep.visited();
        }
        None
    }

    /// When [`Shard::poll_transmit`] has something to do that it has not now, if nothing happens before.
    pub fn next_write(&self) -> Option<Millis> {
        // One with nothing pending only has to end, which waits for whatever comes next.
        let Sweeps { slab, resting, .. } = &self.sweeps;
        resting.iter().filter(|&&(_, sweep)| !slab[sweep as usize].pending.is_empty()).map(|&(until, _)| until).min()
    }

    /// The bytes that [`Shard::poll_sweeps`] found.
    pub(super) fn live_bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        let current = self.sweeps.turns.front().map(|&id| &self.sweeps.slab[id as usize]);
        current.and_then(|sweep| sweep.frame.as_ref()).map_or(&NOTHING, |frame| &frame.bytes)
    }

    /// So many of the bytes that [`Shard::poll_sweeps`] found were taken.
    pub(super) fn handle_live_written(&mut self, id: SubscriberId, taken: usize, now: Millis) {
        let Some(sweep) = self.sweeps.current() else { return };
        let Some(frame) = &sweep.frame else { return };
        sweep.writes += 1;
        let slot = &mut self.slots[id.index()];
        if taken >= frame.bytes.len() {
            slot.cursor = frame.last;
            slot.told = frame.last;
            self.stats.deliveries += u64::from(frame.events);
            if sweep.pending.back().is_none_or(|pending| pending.sequence() <= frame.last) {
                sweep.visited();
            }
            return;
        }
        // What follows the event that was begun is read by its cursor.
        let lacking = sweep.pending.range(sweep.lacks(slot.cursor)..).map(|pending| &pending.record);
        let begun = begun(&self.feeds[slot.feed as usize].key, lacking, taken);
        self.stats.deliveries += begun.events;
        if let Some(last) = begun.last {
            slot.cursor = last;
            slot.told = last;
        }
        self.put_behind(id, now, true);
        self.behind_of(id).pinned = begun.rest;
    }

    /// Removes a live slot from its feed. Nobody's visit comes later for it than the sweep waits.
    pub(super) fn leave_members(&mut self, id: SubscriberId) {
        let slot = &mut self.slots[id.index()];
        let (feed, mut place) = (slot.feed, slot.place as usize);
        slot.place = NONE;
        let feed = &mut self.feeds[feed as usize];
        let members = &mut feed.members;
        if let Some(sweep) = self.sweeps.slab.get_mut(feed.sweep as usize)
            && place < sweep.next
        {
            // Whoever was visited last takes its place, and so waits less; into that place comes the last member, who is visited at once:
            // one visit more for all others.
            sweep.next -= 1;
            sweep.visits -= 1;
            if place != sweep.next {
                let moved = members[sweep.next];
                members[place] = moved;
                self.slots[moved as usize].place = place as u32;
                place = sweep.next;
            }
        }
        // The last member may come to stand earlier, never later.
        members.swap_remove(place);
        if let Some(&moved) = members.get(place) {
            self.slots[moved as usize].place = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Epoch, Event, FeedKey, Filter, Framing, Grant, Matchers, Position, Record,
        shard::{Millis, NewSubscriber, Poll, Shard, ShardConfig, SubscriberId},
    };
    use bytes::Bytes;
    use std::sync::Arc;

    const NOW: Millis = Millis::ZERO;

    fn batch(sequence: u64) -> Vec<Record> {
        let position = Position { epoch: Epoch(1), sequence };
        vec![Record::draft(Event::new("t", "d").unwrap()).seal(position, 0)]
    }

    /// A shard with live members of one feed.
    fn with_members(count: usize) -> (Shard, Vec<SubscriberId>) {
        let mut shard = Shard::new(ShardConfig::new(Epoch(1), 1), 0, NOW);
        let feed = FeedKey { filter: Arc::new(Filter::new(Matchers::all(), &Grant::open())), framing: Framing::Plain, topics_field: false };
        let new = || NewSubscriber::new(feed.clone(), 0, Bytes::from_static(b": ok\n"));
        let ids = (0..count).map(|_| shard.subscribe(new(), NOW)).collect();
        rest(&mut shard);
        (shard, ids)
    }

    fn write_one(shard: &mut Shard) -> Option<SubscriberId> {
        loop {
            match shard.poll_transmit(NOW) {
                Poll::Transmit(transmit) => {
                    let (id, len) = (transmit.id, transmit.bytes.len());
                    shard.handle_written(len, NOW);
                    return Some(id);
                }
                Poll::Working => {}
                Poll::Idle => return None,
            }
        }
    }

    fn rest(shard: &mut Shard) -> Vec<SubscriberId> {
        std::iter::from_fn(|| write_one(shard)).collect()
    }

    /// Members leave at every point of a round, in every order, wherever it began: nobody who stays is missed or written twice.
    #[test]
    fn leaving_during_a_round() {
        for members in 1..=5 {
            for (earlier, written_before) in (0..members).flat_map(|earlier| (0..=members).map(move |written| (earlier, written))) {
                for (first, second) in (0..members).flat_map(|first| (0..members).map(move |second| (first, second))) {
                    let (mut shard, ids) = with_members(members);
                    // Each round begins elsewhere.
                    for sequence in 1..=earlier as u64 {
                        shard.handle_batch(&batch(sequence));
                        rest(&mut shard);
                    }
                    shard.handle_batch(&batch(earlier as u64 + 1));
                    let mut written: Vec<SubscriberId> = (0..written_before).filter_map(|_| write_one(&mut shard)).collect();
                    shard.handle_closed(ids[first]);
                    shard.handle_closed(ids[second]);
                    written.extend(rest(&mut shard));
                    let case = format!("{members} members, {earlier} rounds, {written_before} written, then {first} and {second} leave");
                    for (at, id) in ids.iter().enumerate() {
                        let times = written.iter().filter(|&other| other == id).count();
                        let may_miss = at == first || at == second;
                        assert!(times == 1 || (may_miss && times == 0), "{case}: {at} is written {times} times");
                    }
                    assert!(shard.wants_batch(), "{case}: the round ends");
                }
            }
        }
    }
}
