//! Time in a shard: heartbeats, planned ends, stalled writes and lag, from coarse ticks that visit a slice of the table each, never
//! from a timer per connection. It knows milliseconds that somebody else counts.

use super::{CloseReason, Gap, HeartbeatForm, LagPolicy, NONE, Shard, SubscriberId};
use crate::{GapReason, limits, wire};

/// Milliseconds on a clock that never goes back; where it starts is its owner's business.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The start of the clock.
    pub const ZERO: Millis = Millis(0);

    /// This much later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    pub(super) fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A time in the 32 bits that a slot has for it: steps of [`Coarse::STEP_MS`], good for more than six years after the clock's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Coarse(u32);

impl Coarse {
    const STEP_MS: u64 = 50;
    pub(super) const NEVER: Coarse = Coarse(u32::MAX);

    /// Rounded down, so that an end comes before its time and never after (M-72).
    pub(super) fn floor(at: Millis) -> Coarse {
        Coarse(u32::try_from(at.0 / Coarse::STEP_MS).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }

    fn millis(self) -> Millis {
        Millis(u64::from(self.0) * Coarse::STEP_MS)
    }
}

/// Time between two looks at the same subscriber.
const PASS_MS: u64 = limits::TICK_MS * limits::TICK_SLICES as u64;

impl Shard {
    /// When [`Shard::handle_tick`] wants to be called next.
    pub fn next_tick(&self) -> Millis {
        self.tick_at
    }

    /// Visits a slice of the table. Call it at [`Shard::next_tick`] or as soon after as possible.
    pub fn handle_tick(&mut self, now: Millis) {
        if now < self.tick_at {
            return;
        }
        self.tick_at = now.plus(limits::TICK_MS);
        let slices = self.slices();
        self.tick_slice = (self.tick_slice + 1) % slices;
        let mut index = self.tick_slice;
        while index < self.slots.capacity() {
            if let Some(slot) = self.slots.get(index) {
                self.check(SubscriberId { slot: index as u32, generation: slot.generation }, now);
            }
            index += slices;
        }
    }

    /// Ends every stream, each at a random time within `spread_ms` (N-16, S-41).
    pub fn drain(&mut self, spread_ms: u64, now: Millis) {
        for index in 0..self.slots.capacity() {
            if let Some(slot) = self.slots.get_mut(index) {
                let at = Coarse::floor(now.plus(self.rng.below(spread_ms + 1)));
                if at < slot.ends_at {
                    slot.ends_at = at;
                    slot.ends_why = CloseReason::Drain;
                }
            }
        }
    }

    /// Breaks every stream off.
    pub fn abort_all(&mut self, reason: CloseReason) {
        for index in 0..self.slots.capacity() {
            if let Some(slot) = self.slots.get(index) {
                self.force(SubscriberId { slot: index as u32, generation: slot.generation }, reason);
            }
        }
    }

    /// A pass over the table takes a fifth of the heartbeat interval, and at most as long as [`limits::TICK_SLICES`] ticks.
    fn slices(&self) -> usize {
        let wanted = self.config.heartbeat_ms.map_or(u64::MAX, |ms| ms / (5 * limits::TICK_MS));
        wanted.clamp(1, limits::TICK_SLICES as u64) as usize
    }

    fn check(&mut self, id: SubscriberId, now: Millis) {
        let slot = &self.slots[id.index()];
        let pass_ms = self.slices() as u64 * limits::TICK_MS;
        // The next visit would be too late.
        let is_due = |at: Coarse| at != Coarse::NEVER && now.plus(pass_ms) > at.millis();
        let (ends, expires) = (is_due(slot.ends_at), is_due(slot.expires_at));
        if ends {
            let why = slot.ends_why;
            self.end(id, why, now);
            if expires && self.behind_of(id).blocked {
                // A connection that takes nothing must not outlive its rights (M-82), also when it was to end before for another reason.
                self.force(id, CloseReason::Expired);
                return;
            }
        }
        if self.slots[id.index()].behind != NONE {
            let stalled_ms = self.config.stalled_ms;
            let behind = self.behind_of(id);
            if behind.blocked && behind.starved_since.is_some_and(|since| now.since(since) >= stalled_ms) {
                self.force(id, CloseReason::Stalled);
                return;
            }
            if behind.starved_since.is_some_and(|since| now.since(since) >= PASS_MS) {
                // It may take nothing for long: the page is read again when it does.
                behind.page = None;
            }
            if !self.check_lag(id, now) {
                return;
            }
        }
        self.check_heartbeat(id, now);
    }

    /// Decides on a planned end; it comes when what is being written is complete.
    fn end(&mut self, id: SubscriberId, reason: CloseReason, now: Millis) {
        if self.slots[id.index()].behind == NONE {
            self.put_behind(id, now, false);
        }
        let behind = self.behind_of(id);
        if behind.ending.is_none() {
            behind.ending = Some(reason);
            self.queue(id);
        }
    }

    fn check_heartbeat(&mut self, id: SubscriberId, now: Millis) {
        let Some(heartbeat_ms) = self.config.heartbeat_ms else { return };
        let pass_ms = self.slices() as u64 * limits::TICK_MS;
        let slot = &self.slots[id.index()];
        // Never later than the interval: at the next visit it would be. The slot's place in the pass spreads the phases.
        if now.since(slot.last_write.millis()) + pass_ms <= heartbeat_ms {
            return;
        }
        self.beat(id, now);
    }

    /// The client has ended its half of the connection; false if it is gone, and forgotten here.
    ///
    /// A client that has nothing more to say may end its half with its request and read on. One that leaves looks the same, but later:
    /// within [`limits::HALF_CLOSE_MS`] of its arrival it is sent a heartbeat, and who is gone answers that with a reset.
    pub fn handle_half_closed(&mut self, id: SubscriberId, now: Millis) -> bool {
        if !self.is_there(id) {
            return true;
        }
        let slot = &mut self.slots[id.index()];
        if slot.half_closed {
            // Said before: whoever drives this hears it again with everything else the connection has to say.
            return true;
        }
        if now.since(slot.since.millis()) > limits::HALF_CLOSE_MS {
            self.handle_closed(id);
            return false;
        }
        slot.half_closed = true;
        self.beat(id, now);
        true
    }

    fn beat(&mut self, id: SubscriberId, now: Millis) {
        let slot = &self.slots[id.index()];
        let framing = self.feeds[slot.feed as usize].key.framing;
        let heartbeat = match slot.heartbeat {
            HeartbeatForm::Comment => wire::HEARTBEAT,
            HeartbeatForm::Event => wire::HEARTBEAT_EVENT,
        };
        if slot.behind == NONE {
            self.put_behind(id, now, false);
        }
        let behind = self.behind_of(id);
        if behind.pinned.is_empty() && !behind.blocked && behind.ending.is_none() {
            behind.pinned = wire::frame(framing, heartbeat.as_bytes());
            self.queue(id);
        }
    }

    /// Applies the lag policy to a reader that was live; false when it is gone.
    fn check_lag(&mut self, id: SubscriberId, now: Millis) -> bool {
        let Some(lag) = self.config.lag else { return true };
        if !self.slots[id.index()].was_live || self.behind_of(id).ending.is_some() {
            return true;
        }
        // Only an event that it would get makes it late: what does not concern it is passed over first.
        let cursor = self.slots[id.index()].cursor;
        if !self.ring.covers(cursor) || self.behind_of(id).page.is_some() {
            return true;
        }
        let filter = self.filter_of(id).clone();
        let mut covered = cursor;
        let mut missing = false;
        for record in self.ring.after(cursor).take(limits::SCAN_RECORDS) {
            if filter.wants_record(record) {
                missing = true;
                break;
            }
            covered = record.position().sequence;
        }
        self.slots[id.index()].cursor = covered;
        let tail = self.ring.head();
        let behind = self.behind_of(id);
        if covered >= behind.mark.0 {
            // It has caught up with where the tail was then; how late it is now shows when it reaches where the tail is now.
            behind.mark = (tail, now);
        }
        if !missing {
            return true;
        }
        let late = now.since(behind.mark.1) >= lag.ms;
        if !late && self.ring.events_after(covered) as u64 <= lag.events && self.ring.bytes_after(covered) <= lag.bytes {
            return true;
        }
        match self.slots[id.index()].lag_policy {
            LagPolicy::Disconnect => {
                self.force(id, CloseReason::Lagged);
                false
            }
            LagPolicy::Gap => {
                let requested = self.config.id_of(covered).as_str().into();
                let behind = self.behind_of(id);
                behind.gap.get_or_insert(Gap { requested, reason: GapReason::Lagged });
                behind.mark = (tail, now);
                self.slots[id.index()].cursor = tail;
                self.queue(id);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Epoch, FeedKey, Filter, Framing, Grant, Matchers,
        shard::{NewSubscriber, Poll, ShardConfig},
    };
    use bytes::Bytes;
    use std::sync::Arc;

    /// S-24, S-26: after silence, and never later than the interval, comes what was chosen: a comment or an event.
    #[test]
    fn heartbeats() {
        for (form, framing, expected) in [
            (HeartbeatForm::Comment, Framing::Plain, ": hb\n"),
            (HeartbeatForm::Comment, Framing::Chunked, "5\r\n: hb\n\r\n"),
            (HeartbeatForm::Event, Framing::Plain, "event: tidings.heartbeat\ndata: {}\n\n"),
        ] {
            let mut shard = Shard::new(ShardConfig::new(Epoch(1), 1), 0, Millis::ZERO);
            let feed = FeedKey { filter: Arc::new(Filter::new(Matchers::all(), &Grant::open())), framing, topics_field: false };
            let mut new = NewSubscriber::new(feed, 0, Bytes::from_static(b": ok\n"));
            new.heartbeat = form;
            shard.subscribe(new, Millis::ZERO);
            let mut written = Vec::new();
            for now in (0..=2 * limits::HEARTBEAT_MS).step_by(10).map(Millis) {
                shard.handle_tick(now);
                loop {
                    match shard.poll_transmit(now) {
                        Poll::Transmit(transmit) => {
                            written.push((now.0, transmit.bytes.clone()));
                            let taken = transmit.bytes.len();
                            shard.handle_written(taken, now);
                        }
                        Poll::Working => {}
                        Poll::Idle => break,
                    }
                }
            }
            assert_eq!(written[0], (0, Bytes::from_static(b": ok\n")));
            assert!(written.len() >= 3, "{written:?}");
            for pair in written.windows(2) {
                assert_eq!(pair[1].1, expected);
                let silence = pair[1].0 - pair[0].0;
                assert!((limits::HEARTBEAT_MS * 4 / 5..=limits::HEARTBEAT_MS).contains(&silence), "{silence} ms of silence");
            }
        }
    }
}
