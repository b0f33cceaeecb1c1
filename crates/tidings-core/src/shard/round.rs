//! The live round: one frozen batch on its way to the live members of the feeds that want it, each feed's bytes built once.
//!
//! It knows members and frames; sockets, time and those who are behind are not its business.

use super::{InFlight, Millis, NONE, Shard, SubscriberId, Transmit, Writing};
use crate::{Record, Window, feed::FeedKey};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A frozen batch on its way to the live members of the feeds that want it.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The tail before the batch: what every live subscriber not yet visited has.
    pub(super) before: u64,
    pub(super) feeds: Vec<(u32, std::ops::Range<usize>)>,
    pub(super) frames: Vec<Frame>,
    /// Where the round stands: which feed, from which member it started, which member and frame come next, and whether it wrapped.
    pub(super) feed_at: usize,
    pub(super) start: usize,
    pub(super) member: usize,
    pub(super) wrapped: bool,
    pub(super) frame: usize,
    pub(super) matched: Vec<(u32, u32)>,
}

/// Events of one feed, merged into one write.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) events: u32,
}

impl Shard {
    /// Whether the last batch has reached everybody it could, so that the next one may come.
    pub fn wants_batch(&self) -> bool {
        self.round.feed_at == self.round.feeds.len()
    }

    /// Takes the next records of the log, in order and without a hole. Only while [`Shard::wants_batch`]; a round is frozen.
    pub fn handle_batch(&mut self, records: &[Arc<Record>]) {
        assert!(self.wants_batch(), "a round is frozen: the next batch waits until it is over");
        let round = &mut self.round;
        round.before = self.ring.head();
        round.feeds.clear();
        round.frames.clear();
        round.matched.clear();
        for (at, record) in records.iter().enumerate() {
            self.ring.push(record.clone(), drop);
            let (feeds, matched, sequence) = (&mut self.feeds, &mut round.matched, record.position().sequence);
            self.routes.candidates(record.topics(), |id| {
                let feed = &mut feeds[id as usize];
                if feed.seen != sequence {
                    feed.seen = sequence;
                    if !feed.members.is_empty() && feed.key.filter.wants_record(record) {
                        matched.push((id, at as u32));
                    }
                }
            });
        }
        round.matched.sort_unstable();
        let mut matched = &round.matched[..];
        while let Some(&(feed, _)) = matched.first() {
            let (of_feed, rest) = matched.split_at(matched.partition_point(|&(other, _)| other == feed));
            let start = round.frames.len();
            merge(
                &self.feeds[feed as usize].key,
                of_feed.iter().map(|&(_, at)| &records[at as usize]),
                self.config.frame_bytes,
                &mut round.frames,
            );
            round.feeds.push((feed, start..round.frames.len()));
            matched = rest;
        }
        round.feed_at = 0;
        self.enter_feed();
    }

    /// Goes to a later place without looking at what lies between: only while there are no subscribers, whom it could concern. Who comes
    /// later with an older cursor reads pages of the store.
    pub fn handle_skipped(&mut self, to: u64) {
        assert!(self.slots.is_empty() && to >= self.tail(), "records are skipped forward, and only while nobody is here");
        self.ring = Window::new(to, self.config.window_bytes, self.config.window_events);
        self.round.before = to;
    }

    /// Starts the feed at `feed_at`, or ends the round.
    fn enter_feed(&mut self) {
        let round = &mut self.round;
        round.frame = 0;
        round.wrapped = false;
        match round.feeds.get(round.feed_at) {
            Some(&(feed, _)) => {
                // Not always the same ones last.
                let members = self.feeds.get(feed as usize).map_or(0, |feed| feed.members.len());
                self.rotation = self.rotation.wrapping_add(61);
                round.start = self.rotation.checked_rem(members).unwrap_or(0);
                round.member = round.start;
            }
            None => {
                round.before = self.ring.head();
                round.frames.clear();
            }
        }
    }

    pub(super) fn next_frame(&mut self) {
        self.round.frame += 1;
        let frames = &self.round.feeds[self.round.feed_at].1;
        if self.round.frame == frames.len() {
            self.next_member();
        }
    }

    fn next_member(&mut self) {
        self.round.member += 1;
        self.round.frame = 0;
    }

    pub(super) fn poll_round(&mut self, now: Millis) -> Option<Transmit> {
        while let Some((feed, frames)) = self.round.feeds.get(self.round.feed_at).cloned() {
            let members = self.feeds.get(feed as usize).map_or(&[][..], |feed| &feed.members);
            let end = if self.round.wrapped { self.round.start.min(members.len()) } else { members.len() };
            if self.round.member >= end {
                if self.round.wrapped {
                    self.round.feed_at += 1;
                    self.enter_feed();
                } else {
                    self.round.wrapped = true;
                    self.round.member = 0;
                    self.round.frame = 0;
                }
                continue;
            }
            let index = members[self.round.member];
            let at = frames.start + self.round.frame;
            let frame = &self.round.frames[at];
            let slot = &self.slots[index as usize];
            let id = SubscriberId { slot: index, generation: slot.generation };
            if slot.cursor >= frame.last {
                // It is ahead, or became live during this round.
                self.next_frame();
            } else if slot.cursor >= frame.first {
                // It is ahead into the middle of what was merged: let it read for itself.
                self.put_behind(id, now, false);
                self.queue(id);
            } else {
                let bytes = frame.bytes.clone();
                self.in_flight = Some(InFlight { id, len: bytes.len(), what: Writing::Live(at) });
                return Some(Transmit { id, bytes });
            }
        }
        None
    }

    /// Removes a live slot from its feed without making the round miss anybody.
    pub(super) fn leave_members(&mut self, id: SubscriberId) {
        let slot = &mut self.slots[id.index()];
        let (feed, mut place) = (slot.feed, slot.place as usize);
        slot.place = NONE;
        let members = &mut self.feeds[feed as usize].members;
        let round = &mut self.round;
        let visiting = round.feeds.get(round.feed_at).is_some_and(|&(current, _)| current == feed);
        if visiting && place == round.member {
            // Whoever takes its place starts with the first frame.
            round.frame = 0;
        }
        let visited = if round.wrapped { 0..round.member } else { round.start..round.member };
        if visiting && visited.contains(&place) {
            // The last member, not visited yet, must not come to lie among those that were: close the ranks of the visited first.
            round.member -= 1;
            round.frame = 0;
            if place != round.member {
                let moved = members[round.member];
                members[place] = moved;
                self.slots[moved as usize].place = place as u32;
                place = round.member;
            }
        }
        members.swap_remove(place);
        if let Some(&moved) = members.get(place) {
            self.slots[moved as usize].place = place as u32;
        }
        if visiting {
            // Past the last member already, and now there is one less.
            round.member = round.member.min(members.len());
        }
    }
}

/// Merges the records of one feed into as few writes as the bound allows.
fn merge<'a>(key: &FeedKey, records: impl Iterator<Item = &'a Arc<Record>>, frame_bytes: usize, frames: &mut Vec<Frame>) {
    let mut run: Vec<&Arc<Record>> = Vec::new();
    let mut bytes = 0;
    let mut flush = |run: &mut Vec<&Arc<Record>>| {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        let bytes = if let [record] = run[..] {
            key.bytes(record)
        } else {
            let mut bytes = BytesMut::with_capacity(run.iter().map(|record| record.wire(key.framing).len()).sum());
            for record in &*run {
                key.append(record, &mut bytes);
            }
            bytes.freeze()
        };
        frames.push(Frame { bytes, first: first.position().sequence, last: last.position().sequence, events: run.len() as u32 });
        run.clear();
    };
    for record in records {
        let len = record.wire(key.framing).len();
        if bytes + len > frame_bytes {
            flush(&mut run);
            bytes = 0;
        }
        bytes += len;
        run.push(record);
    }
    flush(&mut run);
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

    fn batch(sequence: u64) -> Vec<Arc<Record>> {
        let position = Position { epoch: Epoch(1), sequence };
        vec![Arc::new(Record::draft(Event::new("t", "d").unwrap()).seal(position, 0))]
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
                    shard.handle_written(transmit.bytes.len(), NOW);
                    return Some(transmit.id);
                }
                Poll::Working => {}
                Poll::Idle => return None,
            }
        }
    }

    fn rest(shard: &mut Shard) -> Vec<SubscriberId> {
        std::iter::from_fn(|| write_one(shard)).collect()
    }

    /// Members leave at every point of a round, in every order: nobody who stays is missed or written twice.
    #[test]
    fn leaving_during_a_round() {
        for members in 1..=5 {
            for written_before in 0..=members {
                for first in 0..members {
                    for second in 0..members {
                        let (mut shard, ids) = with_members(members);
                        shard.handle_batch(&batch(1));
                        let mut written: Vec<SubscriberId> = (0..written_before).filter_map(|_| write_one(&mut shard)).collect();
                        shard.handle_closed(ids[first]);
                        shard.handle_closed(ids[second]);
                        written.extend(rest(&mut shard));
                        let case = format!("{members} members, {written_before} written, then {first} and {second} leave");
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
}
