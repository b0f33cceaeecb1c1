//! Serving those who are behind: what was begun, a planned end, a gap, or the next events after the cursor, a bounded piece at a time.
//!
//! It knows cursors and sources (ring and pages), not when a subscriber fell behind or why.

use super::{Closed, EndStyle, Found, Gap, InFlight, Millis, Page, Shard, SubscriberId, Writing};
use crate::{EventId, Framing, Record, feed::FeedKey, limits, wire};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

impl Shard {
    pub(super) fn poll_ready(&mut self) -> Found {
        while let Some(id) = self.ready.pop_front() {
            if !self.is_behind(id) {
                continue;
            }
            let behind = self.behind_of(id);
            behind.queued = false;
            if behind.blocked {
                continue;
            }
            match self.serve(id) {
                Found::Nothing => {}
                found => return found,
            }
        }
        Found::Nothing
    }

    /// The next thing for somebody behind whose connection takes bytes.
    fn serve(&mut self, id: SubscriberId) -> Found {
        let behind = self.behind_of(id);
        if !behind.pinned.is_empty() {
            return self.transmit_pinned(id);
        }
        if let Some(reason) = behind.ending {
            if behind.end_written {
                let end = self.slots[id.index()].end;
                self.remove(id, reason);
                self.closed.push_back(Closed { id, reason, end, forced: false });
                return Found::Working;
            }
            self.pin_ending(id);
            return self.transmit_pinned(id);
        }
        self.read_on(id)
    }

    fn transmit_pinned(&mut self, id: SubscriberId) -> Found {
        let len = self.behind_of(id).pinned.len();
        self.in_flight = Some(InFlight { id, len, what: Writing::Pinned });
        Found::Transmit
    }

    /// Reads what comes after the cursor, from a page or from the ring, a bounded piece at a time.
    fn read_on(&mut self, id: SubscriberId) -> Found {
        let cursor = self.slots[id.index()].cursor;
        let key = self.feeds[self.slots[id.index()].feed as usize].key.clone();
        let slot_behind = self.slots[id.index()].behind as usize;
        let page = self.behind[slot_behind].page.clone();
        let told_gap = self.behind[slot_behind].gap.is_none();
        let latest_until = self.behind[slot_behind].latest_until;
        if latest_until > 0 && cursor >= latest_until {
            self.behind[slot_behind].latest_until = 0;
            return self.leave_latest(id);
        }
        // Of a page that somebody else asked for later only the part before this reader's own beginning is its.
        let last = if latest_until > 0 { latest_until } else { u64::MAX };

        let frame_bytes = self.config.frame_bytes_of(key.framing);
        // `end` is where this source ends: reading up to there means having everything up to there.
        let mut found = std::mem::take(&mut self.scratch);
        found.clear();
        let mut reading = Piece { covered: cursor, bytes: 0, found, full: false };
        let (used, end) = match &page {
            Some((page, used)) => {
                let records = &page.records[*used..];
                let records = &records[..records.partition_point(|record| record.position().sequence <= last)];
                let used = used + reading.collect(&key, records.iter(), frame_bytes, told_gap);
                (used, page.covered_through.min(last))
            }
            None if latest_until == 0 && self.ring.covers(cursor) => {
                let used = reading.collect(&key, self.ring.after(cursor), frame_bytes, told_gap);
                (used, self.ring.head())
            }
            None => {
                self.scratch = reading.found;
                self.want_page(id);
                return Found::Nothing;
            }
        };
        let Piece { mut covered, found, full, .. } = reading;
        if !full {
            covered = covered.max(end);
        }
        let poll = self.use_reading(id, &key, page.map(|(page, _)| (page, used)), covered, full, &found);
        // Until they are written: where a write stops, one of them was begun.
        self.scratch = found;
        poll
    }

    fn use_reading(
        &mut self,
        id: SubscriberId,
        key: &FeedKey,
        page: Option<(Arc<Page>, usize)>,
        covered: u64,
        full: bool,
        found: &[Record],
    ) -> Found {
        let at_tail = page.is_none() && !full;
        let slot = self.slots[id.index()].behind as usize;
        if let Some(first) = found.first() {
            if let Some(gap) = self.behind[slot].gap.take() {
                // The gap stands before the first event that follows it, and points there.
                let resume_at = first.position().sequence - 1;
                self.slots[id.index()].cursor = resume_at;
                self.behind[slot].page = page.map(|(page, used)| (page, used - 1));
                self.pin_gap(id, key, &gap, Some(first.id()), resume_at);
                return self.transmit_pinned(id);
            }
            let in_hand = page.as_ref().map(|(page, _)| page.clone());
            self.behind[slot].page = page.filter(|_| full);
            let bytes = if let [record] = found {
                key.bytes(record)
            } else {
                let mut bytes = BytesMut::with_capacity(found.iter().map(|record| record.wire(key.framing).len()).sum());
                for record in found {
                    key.append(record, &mut bytes);
                }
                bytes.freeze()
            };
            self.in_flight = Some(InFlight { id, len: bytes.len(), what: Writing::Events { covered, page: in_hand } });
            self.behind[slot].pinned = bytes;
            return Found::Transmit;
        }
        self.slots[id.index()].cursor = covered;
        self.behind[slot].page = page.filter(|_| full);
        if at_tail {
            if let Some(gap) = self.behind[slot].gap.take() {
                self.pin_gap(id, key, &gap, None, covered);
                return self.transmit_pinned(id);
            }
            self.make_live(id);
            return Found::Working;
        }
        self.queue(id);
        Found::Working
    }

    /// What was latest is written. A client that comes back now must not be served from the place of the last of those events.
    fn leave_latest(&mut self, id: SubscriberId) -> Found {
        let slot = &mut self.slots[id.index()];
        let behind = &mut self.behind[slot.behind as usize];
        if !slot.prime || behind.gap.is_some() || slot.cursor <= slot.told {
            self.queue(id);
            return Found::Working;
        }
        slot.told = slot.cursor;
        let place = self.config.id_of(slot.cursor);
        let framing = self.feeds[slot.feed as usize].key.framing;
        behind.pinned = wire::frame(framing, wire::prime(&place).as_bytes());
        self.transmit_pinned(id)
    }

    fn pin_gap(&mut self, id: SubscriberId, key: &FeedKey, gap: &Gap, earliest: Option<EventId>, resume_at: u64) {
        let place = self.config.id_of(resume_at);
        let text = wire::gap(&gap.requested, earliest.as_ref().map(EventId::as_str), gap.reason, &place);
        self.stats.gaps[gap.reason as usize] += 1;
        self.slots[id.index()].told = resume_at;
        self.behind_of(id).pinned = wire::frame(key.framing, text.as_bytes());
    }

    fn pin_ending(&mut self, id: SubscriberId) {
        let slot = &self.slots[id.index()];
        let framing = self.feeds[slot.feed as usize].key.framing;
        let behind = &self.behind[slot.behind as usize];
        // With a gap untold the old cursor must stay: moved forward, it would hide the loss for ever. One that stands where the reader
        // has got to needs no move.
        let prime = (slot.prime && behind.gap.is_none() && slot.cursor > slot.told).then(|| self.config.id_of(slot.cursor));
        let end = slot.end;
        let text = wire::ending(self.rng.between(self.config.retry_ms), prime);
        let mut bytes = BytesMut::from(&wire::frame(framing, text.as_bytes())[..]);
        if framing == Framing::Chunked && end == EndStyle::Clean {
            bytes.extend_from_slice(wire::FINAL_CHUNK);
        }
        let behind = self.behind_of(id);
        behind.pinned = bytes.freeze();
        behind.end_written = true;
    }

    /// So many of the bytes of [`Writing::Events`] were taken.
    pub(super) fn handle_events_written(&mut self, id: SubscriberId, taken: usize, covered: u64, page: Option<Arc<Page>>) {
        let slot = &mut self.slots[id.index()];
        let behind = &mut self.behind[slot.behind as usize];
        if taken >= behind.pinned.len() {
            slot.cursor = covered;
            slot.told = self.scratch.last().map_or(covered, |record| record.position().sequence);
            self.stats.deliveries += self.scratch.len() as u64;
            behind.pinned = Bytes::new();
            return;
        }
        let begun = begun(&self.feeds[slot.feed as usize].key, self.scratch.iter(), taken);
        self.stats.deliveries += begun.events;
        if let Some(last) = begun.last {
            slot.cursor = last;
            slot.told = last;
        }
        // What follows is read again from the cursor when there is room.
        let cursor = slot.cursor;
        behind.page = page.map(|page| {
            let used = page.records.partition_point(|record| record.position().sequence <= cursor);
            (page, used)
        });
        behind.pinned = begun.rest;
    }

    pub(super) fn after_behind_write(&mut self, id: SubscriberId, taken: usize, all: bool, now: Millis) {
        let behind = self.behind_of(id);
        if all {
            behind.starved_since = None;
            self.queue(id);
        } else {
            behind.blocked = true;
            if taken > 0 || behind.starved_since.is_none() {
                behind.starved_since = Some(now);
            }
        }
    }
}

/// What was begun of a write that was taken in part.
pub(super) struct Begun {
    pub(super) last: Option<u64>,
    pub(super) events: u64,
    /// Of the last one: all that is kept of the write.
    pub(super) rest: Bytes,
}

/// Finds in the records of a write where it stopped.
pub(super) fn begun<'a>(key: &FeedKey, records: impl Iterator<Item = &'a Record>, taken: usize) -> Begun {
    let mut begun = Begun { last: None, events: 0, rest: Bytes::new() };
    let mut left = taken;
    for record in records {
        if left == 0 {
            break;
        }
        let bytes = key.bytes(record);
        begun = Begun { last: Some(record.position().sequence), events: begun.events + 1, rest: bytes.slice(left.min(bytes.len())..) };
        left = left.saturating_sub(bytes.len());
    }
    begun
}

/// A bounded piece of reading forward.
struct Piece {
    covered: u64,
    bytes: usize,
    found: Vec<Record>,
    /// It stopped before the end of its source.
    full: bool,
}

impl Piece {
    /// Takes what the feed wants, and returns how many records were looked at. With a gap to be told the first find is enough.
    fn collect<'a>(&mut self, key: &FeedKey, records: impl Iterator<Item = &'a Record>, frame_bytes: usize, told_gap: bool) -> usize {
        let mut looked_at = 0;
        for record in records {
            if looked_at == limits::SCAN_RECORDS || (!told_gap && !self.found.is_empty()) {
                self.full = true;
                break;
            }
            if key.filter.wants_record(record) {
                let len = record.wire(key.framing).len();
                if !self.found.is_empty() && self.bytes + len > frame_bytes {
                    self.full = true;
                    break;
                }
                self.bytes += len;
                self.found.push(record.clone());
            }
            self.covered = record.position().sequence;
            looked_at += 1;
        }
        looked_at
    }
}
