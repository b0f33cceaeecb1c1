//! The keys under which something was appended (N-6): what a store looks up before it appends, bounded in time and number.
//!
//! It knows digests and numbers, neither keys as publishers write them nor what was appended. The ids of a repeated append follow from its
//! first number and from the request itself, which says which of its events have an id of the publisher's: so a key costs the same
//! whatever it stands for.

use hashbrown::{HashTable, hash_table::Entry as Slot};
use std::{collections::VecDeque, time::Duration};
use tidings_core::{Drafts, Epoch, EventId, Position, limits};

/// A key as a store knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnceKey {
    /// Digest of the key and its scope. 128 bits: by chance no two of a million keys are the same, and to hit somebody else's on purpose
    /// one would have to try 2^128.
    pub name: [u8; 16],
    /// SHA-256 of the parsed request.
    pub request: [u8; 32],
}

/// What became of an append with a key.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Once {
    /// It was appended.
    Kept(Vec<EventId>),
    /// The same was appended before, and nothing now. The ids of then.
    Before(Vec<EventId>),
    /// The key came with another request before; nothing was appended.
    Other,
}

/// How long keys count, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyWindow {
    /// Time after the append.
    pub time: Duration,
    /// Beyond so many the oldest are forgotten.
    pub keys: usize,
}

impl Default for KeyWindow {
    fn default() -> Self {
        KeyWindow { time: Duration::from_millis(limits::IDEMPOTENCY_MS), keys: limits::IDEMPOTENCY_KEYS }
    }
}

/// A key and what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: OnceKey,
    /// The number of the append's first event.
    pub(super) first: u64,
    /// When it was accepted, milliseconds since 1970.
    pub(super) at: u64,
}

/// The table: in the order of the log, so that the oldest are in front.
#[derive(Debug)]
pub(super) struct Keys {
    window: KeyWindow,
    entries: VecDeque<Entry>,
    /// How many entries were in front of the first one, modulo 2^32: a place in the table is counted from the beginning of time.
    gone: u32,
    places: HashTable<u32>,
}

/// A digest needs no further hash.
fn hash(name: &[u8; 16]) -> u64 {
    name.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

impl Keys {
    pub(super) fn new(window: KeyWindow) -> Keys {
        Keys { window, entries: VecDeque::new(), gone: 0, places: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sequence of the oldest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.first)
    }

    /// Whether the window of something accepted at a time is over.
    pub(super) fn is_over(&self, at: u64, now: u64) -> bool {
        u128::from(now.saturating_sub(at)) >= self.window.time.as_millis()
    }

    /// What the key stands for, if it counts.
    pub(super) fn find(&self, name: &[u8; 16], now: u64) -> Option<Entry> {
        let same = |&place: &u32| self.at(place).key.name == *name;
        let entry = *self.at(*self.places.find(hash(name), same)?);
        (!self.is_over(entry.at, now)).then_some(entry)
    }

    fn at(&self, place: u32) -> &Entry {
        &self.entries[place.wrapping_sub(self.gone) as usize]
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, entry: Entry) {
        self.forget(entry.at);
        while self.entries.len() >= self.window.keys.max(1) {
            self.pop_front();
        }
        let Keys { entries, gone, places, .. } = self;
        let name_at = |place: u32| entries[place.wrapping_sub(*gone) as usize].key.name;
        let place = gone.wrapping_add(entries.len() as u32);
        match places.entry(hash(&entry.key.name), |&at| name_at(at) == entry.key.name, |&at| hash(&name_at(at))) {
            // Its window was over, or it was used again while the store did not know it.
            Slot::Occupied(mut slot) => *slot.get_mut() = place,
            Slot::Vacant(slot) => drop(slot.insert(place)),
        }
        self.entries.push_back(entry);
    }

    /// Forgets those whose window is over, and gives memory back that is not needed.
    pub(super) fn forget(&mut self, now: u64) {
        while self.entries.front().is_some_and(|oldest| self.is_over(oldest.at, now)) {
            self.pop_front();
        }
        let len = self.entries.len();
        if self.entries.capacity() > 4_096 && len < self.entries.capacity() / 4 {
            self.entries.shrink_to(2 * len);
            let Keys { entries, gone, places, .. } = self;
            places.shrink_to(2 * len, |&place| hash(&entries[place.wrapping_sub(*gone) as usize].key.name));
        }
    }

    /// Forgets those of everything after a sequence: it is gone, and may be appended again.
    pub(super) fn truncate(&mut self, last: u64) {
        while self.entries.back().is_some_and(|newest| newest.first > last) {
            let place = self.gone.wrapping_add(self.entries.len() as u32 - 1);
            self.unlink(place);
            self.entries.pop_back();
        }
    }

    fn pop_front(&mut self) {
        self.unlink(self.gone);
        if self.entries.pop_front().is_some() {
            self.gone = self.gone.wrapping_add(1);
        }
    }

    /// Takes an entry's place out of the table, unless another one has come under its name.
    fn unlink(&mut self, place: u32) {
        let name = self.at(place).key.name;
        if let Ok(slot) = self.places.find_entry(hash(&name), |&at| at == place) {
            slot.remove();
        }
    }

    /// Those of the events from one to another, in order.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Entry> {
        let (start, end) = (self.place_of(from), self.place_of(to.saturating_add(1)));
        self.entries.range(start.min(end)..end)
    }

    /// How many come before a sequence.
    fn place_of(&self, sequence: u64) -> usize {
        self.entries.partition_point(|entry| entry.first < sequence)
    }
}

/// The ids of an append that began at a sequence.
pub(super) fn ids(epoch: Epoch, first: u64, drafts: &Drafts) -> Vec<EventId> {
    drafts.event_ids(Position { epoch, sequence: first }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: u8, first: u64, at: u64) -> Entry {
        Entry { key: OnceKey { name: [name; 16], request: [name; 32] }, first, at }
    }

    fn table(keys: usize) -> Keys {
        Keys::new(KeyWindow { time: Duration::from_millis(100), keys })
    }

    fn found(keys: &Keys, now: u64) -> Vec<u8> {
        (0..=255).filter(|name| keys.find(&[*name; 16], now).is_some()).collect()
    }

    /// N-6: the window in time and number.
    #[test]
    fn the_window_is_bounded() {
        let mut keys = table(3);
        for name in 1..=4 {
            keys.push(entry(name, name.into(), 10 * u64::from(name)));
        }
        assert_eq!((keys.len(), found(&keys, 0)), (3, vec![2, 3, 4]), "the oldest of too many is forgotten");
        assert_eq!((found(&keys, 119), found(&keys, 120), found(&keys, 139)), (vec![2, 3, 4], vec![3, 4], vec![4]));
        assert_eq!(keys.len(), 3, "asking changes nothing");
        keys.forget(130);
        assert_eq!((keys.len(), keys.oldest()), (1, Some(4)));
    }

    /// A name that comes again after its window counts from then on, and the end of its first window does not end the second.
    #[test]
    fn a_name_used_again() {
        let mut keys = table(10);
        keys.push(entry(1, 1, 0));
        keys.push(entry(2, 2, 50));
        keys.push(entry(1, 3, 100));
        assert_eq!(keys.find(&[1; 16], 100).unwrap().first, 3);
        keys.push(entry(1, 4, 120));
        keys.forget(199);
        assert_eq!((keys.len(), keys.find(&[1; 16], 199).unwrap().first), (2, 4));
        keys.truncate(3);
        assert_eq!(found(&keys, 199), Vec::<u8>::new(), "what replaced an older one does not bring it back");
    }

    #[test]
    fn what_is_gone_may_come_again() {
        let mut keys = table(10);
        for name in 1..=5 {
            keys.push(entry(name, 10 * u64::from(name), 0));
        }
        assert!(keys.range(20, 40).map(|entry| entry.key.name[0]).eq([2, 3, 4]));
        assert_eq!((keys.range(51, 90).count(), keys.range(30, 20).count()), (0, 0));
        keys.truncate(29);
        assert_eq!((found(&keys, 0), keys.len()), (vec![1, 2], 2));
    }

    /// Places wrap around, and memory that is not needed is given back.
    #[test]
    fn many_keys() {
        let mut keys = table(5_000);
        keys.gone = u32::MAX - 7_000;
        let name = |n: u64| {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            name
        };
        for n in 0..20_000 {
            keys.push(Entry { key: OnceKey { name: name(n), request: [0; 32] }, first: n, at: 0 });
        }
        assert_eq!((keys.len(), keys.places.len(), keys.oldest()), (5_000, 5_000, Some(15_000)));
        assert!((15_000..20_000).all(|n| keys.find(&name(n), 0).is_some_and(|entry| entry.first == n)));
        assert!(keys.find(&name(14_999), 0).is_none());
        keys.forget(100);
        assert!(keys.entries.capacity() < 100 && keys.places.capacity() < 100, "{}", keys.entries.capacity());
    }

    /// What `limits::IDEMPOTENCY_KEYS` says of the memory: entries grow by doubling, and places are at most twice as many as keys.
    #[test]
    fn the_cost_of_a_key() {
        assert_eq!(size_of::<Entry>(), 64);
        let mut keys = Keys::new(KeyWindow { keys: limits::IDEMPOTENCY_KEYS, ..KeyWindow::default() });
        for n in 0..limits::IDEMPOTENCY_KEYS as u64 {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            keys.push(Entry { key: OnceKey { name, request: [0; 32] }, first: n, at: 0 });
        }
        let places = keys.places.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        let bytes = keys.entries.capacity() * size_of::<Entry>() + places;
        assert!(bytes <= limits::IDEMPOTENCY_KEYS * limits::IDEMPOTENCY_KEY_COST, "{}", bytes / limits::IDEMPOTENCY_KEYS);
    }
}
