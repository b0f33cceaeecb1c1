//! The newest events as every shard takes them, and the rule that publishers wait when they outrun the shards.
//!
//! It knows positions, sizes and names, but no readers.

use super::{Hub, PublishError};
use crate::{Config, delivery::Source};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidings_core::{EventId, KnownTopics, Record, Window, limits};
use tokio::sync::Notify;

/// The window in front of the shards.
#[derive(Debug)]
pub(super) struct Log {
    /// Those that events had lately.
    topics: KnownTopics,
    window: Mutex<Window>,
    /// Cost of all records ever put into the window; what shards have taken is measured against it.
    total: AtomicU64,
    head: AtomicU64,
    /// Events and bytes of appends that were admitted and have not arrived yet.
    reserved: Mutex<(usize, usize)>,
    /// A shard has taken events, or a reservation ended.
    moved: Notify,
    /// How far the head may run ahead of the slowest shard, in events and bytes.
    lead: (usize, usize),
}

fn lead_of(window: usize) -> usize {
    let (part, of) = limits::SHARD_LEAD;
    // Divided last, for small windows; in 128 bits, for endless ones.
    (window as u128 * part as u128 / of as u128) as usize
}

/// Room in the window for one append; given back when it has arrived or failed.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    log: &'a Log,
    events: usize,
    bytes: usize,
}

impl Hub {
    /// For who makes events of what clients send.
    pub(crate) fn known_topics(&self) -> &KnownTopics {
        &self.0.log.topics
    }
}

impl Log {
    pub(super) fn new(head: u64, config: &Config) -> Log {
        Log {
            topics: KnownTopics::default(),
            window: Mutex::new(Window::new(head, config.window_bytes, config.window_events)),
            total: AtomicU64::new(0),
            head: AtomicU64::new(head),
            reserved: Mutex::default(),
            moved: Notify::new(),
            lead: (lead_of(config.window_events), lead_of(config.window_bytes)),
        }
    }

    /// The lead, which is also the most that one batch may hold.
    pub(super) fn lead(&self) -> (usize, usize) {
        self.lead
    }

    /// Events and bytes in the window.
    pub(super) fn kept(&self) -> (usize, usize) {
        let window = self.window();
        (window.len(), window.bytes())
    }

    /// The id of the newest event, if it came since the hub was started.
    pub(super) fn newest_id(&self) -> Option<EventId> {
        let window = self.window();
        window.get(window.head()).map(Record::id)
    }

    /// Appends what a store has kept.
    pub(super) fn push(&self, records: &[Record]) {
        let mut window = self.window();
        for record in records {
            window.push(record.clone(), drop);
        }
        self.total.store(window.pushed_bytes(), Ordering::Release);
        self.head.store(window.head(), Ordering::Release);
    }

    /// Waits until the slowest shard is near enough (section 4 of the architecture); `slowest` is its sequence and what it has taken,
    /// `wake` sees to it that it moves.
    pub(super) async fn admit(
        &self,
        events: usize,
        bytes: usize,
        slowest: impl Fn() -> (u64, u64),
        wake: impl Fn(),
    ) -> Result<Reservation<'_>, PublishError> {
        if self.reserve(events, bytes, slowest()) {
            return Ok(Reservation { log: self, events, bytes });
        }
        let wait = Duration::from_millis(limits::SHARD_LEAD_MS);
        let until = tokio::time::Instant::now() + wait;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            // A shard may sleep over what nobody there wants.
            wake();
            if self.reserve(events, bytes, slowest()) {
                return Ok(Reservation { log: self, events, bytes });
            }
            tokio::time::timeout_at(until, moved).await.map_err(|_| PublishError::Overloaded(wait))?;
        }
    }

    fn reserve(&self, events: usize, bytes: usize, (tail, taken): (u64, u64)) -> bool {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = self.head.load(Ordering::Acquire).saturating_sub(tail) as usize + reserved.0;
        let ahead_bytes = self.total.load(Ordering::Acquire).saturating_sub(taken) as usize + reserved.1;
        // What is larger than the lead goes in alone, when every shard is at the head: then whatever it evicts was taken.
        let fits = ahead == 0 || (events <= self.lead.0 && bytes <= self.lead.1);
        let near = ahead <= self.lead.0 && ahead_bytes <= self.lead.1 && fits;
        if near {
            *reserved = (reserved.0 + events, reserved.1 + bytes);
        }
        near
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Log {
    fn pull(&self, after: u64, batch: &mut Vec<Record>) -> Option<u64> {
        if self.head.load(Ordering::Acquire) <= after {
            return Some(0);
        }
        let window = self.window();
        if !window.covers(after) {
            return None;
        }
        let mut cost = 0;
        for record in window.after(after).take(limits::TAKEN_EVENTS) {
            if cost > 0 && cost + record.cost() > limits::TAKEN_BYTES {
                break;
            }
            cost += record.cost();
            batch.push(record.clone());
        }
        Some(cost as u64)
    }

    fn head(&self) -> (u64, u64) {
        let window = self.window();
        (window.head(), self.total.load(Ordering::Acquire))
    }

    fn newest(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    fn progress(&self) -> (u64, u64) {
        (self.head.load(Ordering::Acquire), self.total.load(Ordering::Acquire))
    }

    fn taken(&self) {
        self.moved.notify_waiters();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut reserved = self.log.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = (reserved.0 - self.events, reserved.1 - self.bytes);
        drop(reserved);
        self.log.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Epoch, Event, Position};

    fn record(sequence: u64) -> Record {
        Record::draft(Event::new("t", "d").unwrap()).seal(Position { epoch: Epoch(1), sequence }, 0)
    }

    /// Whatever is admitted, what it evicts has been taken by the slowest shard.
    #[test]
    fn who_may_append() {
        let mut config = Config::default();
        (config.window_events, config.window_bytes) = (10, 100_000);
        let log = Log::new(0, &config);
        let taken = |sequence| (sequence, sequence * record(1).cost() as u64);
        log.push(&[record(1), record(2), record(3)]);
        let table: &[(usize, usize, u64, bool, &str)] = &[
            (1, 100, 3, true, "every shard is at the head"),
            (4, 40_000, 3, true, "as much as the lead"),
            (5, 100, 3, true, "more events than the lead, alone"),
            (1, 90_000, 3, true, "more bytes than the lead, alone"),
            (1, 100, 0, true, "three events ahead"),
            (5, 100, 2, false, "more events than the lead, with one not taken"),
            (1, 90_000, 2, false, "more bytes than the lead, with one not taken"),
        ];
        for &(events, bytes, tail, admitted, why) in table {
            assert_eq!(log.reserve(events, bytes, taken(tail)), admitted, "{why}");
            *log.reserved.lock().unwrap() = (0, 0);
        }
        // What was admitted and has not arrived counts as if it had.
        assert!(log.reserve(4, 100, taken(1)));
        assert!(!log.reserve(1, 100, taken(1)), "two that are there and four that are coming");
    }
}
