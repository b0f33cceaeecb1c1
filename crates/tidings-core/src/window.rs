//! The most recent events in memory, by position, bounded in bytes and in number; and what is remembered of those that left it.
//!
//! It knows positions and sizes. Whether an event concerns somebody is asked of a [`Filter`].

use crate::{Filter, Record, Topic, Topics, presence};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

/// A bounded run of records in order of position. Everything after [`Window::floor`] that was pushed is still there.
#[derive(Debug)]
pub struct Window {
    entries: VecDeque<Entry>,
    max_bytes: usize,
    max_events: usize,
    bytes: usize,
    /// Bytes of all records ever pushed, so that the distance between two places is one subtraction.
    total: u64,
    floor: u64,
    head: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// The record's own. Here because the record of an entry that leaves has not been looked at for long, and would be fetched from afar.
    sequence: u64,
    /// [`Window::total`] when this record had been pushed.
    total: u64,
}

/// Bytes of an entry, which are part of what a record costs.
pub(crate) const ENTRY: usize = size_of::<Entry>();
/// Room for so many entries is made first.
const FEW: usize = 64;

impl Window {
    /// An empty window that begins after a sequence number.
    pub fn new(after: u64, max_bytes: usize, max_events: usize) -> Window {
        Window { entries: VecDeque::new(), max_bytes, max_events, bytes: 0, total: 0, floor: after, head: after }
    }

    /// Appends a record, which must come after the head, and hands over what no longer fits. The newest record always stays.
    pub fn push(&mut self, record: Record, mut evicted: impl FnMut(Record)) {
        let (sequence, cost) = (record.position().sequence, record.cost());
        debug_assert!(sequence > self.head, "records come in order");
        self.head = sequence;
        self.bytes += cost;
        self.total += cost as u64;
        if self.entries.len() == self.entries.capacity() {
            // One more than may stay. Twice as much would be room that nothing ever uses.
            let most = self.max_events.saturating_add(1) - self.entries.len();
            self.entries.reserve_exact(self.entries.len().clamp(FEW, most.max(FEW)));
        }
        self.entries.push_back(Entry { record, sequence, total: self.total });
        while self.entries.len() > 1 && (self.bytes > self.max_bytes || self.entries.len() > self.max_events) {
            evicted(self.pop_oldest().expect("there are several"));
        }
    }

    /// Takes the oldest record out, whatever there is room for.
    pub fn pop_oldest(&mut self) -> Option<Record> {
        let Entry { record, sequence, total } = self.entries.pop_front()?;
        self.bytes = (self.total - total) as usize;
        self.floor = sequence;
        Some(record)
    }

    /// Sequence number of the newest record, or of the place the window began at.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// A reader at this sequence number or above has lost nothing.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether everything after a sequence number is still here.
    pub fn covers(&self, after: u64) -> bool {
        after >= self.floor
    }

    /// The records after a sequence number, oldest first.
    pub fn after(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Record> {
        self.entries.range(self.index_after(sequence)..).map(|entry| &entry.record)
    }

    /// The record at a sequence number, if it is here.
    pub fn get(&self, sequence: u64) -> Option<&Record> {
        let entry = self.entries.get(self.index_after(sequence.checked_sub(1)?))?;
        (entry.sequence == sequence).then_some(&entry.record)
    }

    /// The last record accepted before a moment, in milliseconds since 1970; the floor if there is none. Everything accepted then or later
    /// comes after it.
    pub fn before(&self, moment: u64) -> u64 {
        let at = self.entries.partition_point(|entry| entry.record.accepted_at() < moment);
        at.checked_sub(1).map_or(self.floor, |at| self.entries[at].sequence)
    }

    /// The oldest record.
    pub fn first(&self) -> Option<&Record> {
        self.entries.front().map(|entry| &entry.record)
    }

    /// Records between a place and the head; numbers may have holes.
    pub fn events_after(&self, sequence: u64) -> usize {
        self.entries.len() - self.index_after(sequence)
    }

    /// Bytes between a place and the head; a place below the floor counts as the floor.
    pub fn bytes_after(&self, sequence: u64) -> u64 {
        match self.index_after(sequence).checked_sub(1) {
            Some(index) => self.total - self.entries[index].total,
            None => self.bytes as u64,
        }
    }

    /// Bytes of all records ever pushed.
    pub fn pushed_bytes(&self) -> u64 {
        self.total
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn index_after(&self, sequence: u64) -> usize {
        // Sequences rarely have holes: the first guess is nearly always right.
        let at = |index: usize| self.entries[index].sequence;
        if sequence >= self.head {
            return self.entries.len();
        }
        let Some(first) = self.entries.front().map(|entry| entry.sequence) else { return 0 };
        if sequence < first {
            return 0;
        }
        let guess = (sequence - first) as usize;
        if guess < self.entries.len() && at(guess) == sequence {
            return guess + 1;
        }
        self.entries.partition_point(|entry| entry.sequence <= sequence)
    }
}

/// What is remembered of events that a window evicted: for each distinct audience the newest one that is gone, so that a reader whose
/// own events are all still there is not told of a gap (N-14). Bounded; what does not fit is answered conservatively.
#[derive(Debug)]
pub struct Evicted {
    /// Newest evicted sequence of each audience. Sorted by sequence, so that a look-up reads only what a cursor can have missed.
    by_sequence: BTreeMap<u64, Audience>,
    by_audience: BTreeMap<Audience, u64>,
    /// The audience that lost an event last. It is in neither map: events often leave in runs of the same audience.
    newest: Option<(u64, Audience)>,
    bytes: usize,
    max_audiences: usize,
    max_bytes: usize,
    /// A public and a private event with an audience that is no longer remembered were evicted at or below these sequences.
    forgotten: [u64; 2],
}

type Audience = (Topics, bool);

impl Evicted {
    /// Nothing evicted yet, but everything up to `before` is gone without a trace.
    pub fn new(before: u64, max_audiences: usize, max_bytes: usize) -> Evicted {
        let (by_sequence, by_audience) = (BTreeMap::new(), BTreeMap::new());
        Evicted { by_sequence, by_audience, newest: None, bytes: 0, max_audiences, max_bytes, forgotten: [before; 2] }
    }

    /// Remembers that a record is gone.
    pub fn push(&mut self, record: &Record) {
        let sequence = record.position().sequence;
        // Each event about a subscription has topics of its own: all of them are one audience, or they would push out every other.
        let of = if record.has_two_views() { presence::audience() } else { record.shared_topics() };
        if let Some((newest, (topics, private))) = &mut self.newest
            && topics == of
            && *private == record.is_private()
        {
            *newest = sequence.max(*newest);
            return;
        }
        self.insert(sequence, (of.clone(), record.is_private()));
    }

    /// Of an audience that is not the newest. One that is known may have lost something later already.
    fn insert(&mut self, mut sequence: u64, audience: Audience) {
        match self.by_audience.remove(&audience) {
            Some(previous) => {
                self.by_sequence.remove(&previous);
                sequence = sequence.max(previous);
            }
            None => self.bytes += audience_bytes(&audience),
        }
        if let Some((sequence, audience)) = self.newest.replace((sequence, audience)) {
            self.by_audience.insert(audience.clone(), sequence);
            self.by_sequence.insert(sequence, audience);
        }
        while self.by_sequence.len() >= self.max_audiences || self.bytes > self.max_bytes {
            let Some((sequence, audience)) = self.by_sequence.pop_first() else { break };
            self.bytes -= audience_bytes(&audience);
            self.by_audience.remove(&audience);
            let forgotten = &mut self.forgotten[usize::from(audience.1)];
            *forgotten = sequence.max(*forgotten);
        }
    }

    /// What it remembers, for a store that wants to remember it longer: each audience with its newest event that is gone, ascending.
    pub fn remembered(&self) -> impl Iterator<Item = (u64, &[Topic], bool)> {
        let older = self.by_sequence.iter().map(|(sequence, audience)| (*sequence, audience));
        older
            .chain(self.newest.iter().map(|(sequence, audience)| (*sequence, audience)))
            .map(|(sequence, (topics, private))| (sequence, &topics[..], *private))
    }

    /// A public and a private event with an audience that is not remembered may be gone up to these sequences.
    pub fn forgotten(&self) -> [u64; 2] {
        self.forgotten
    }

    /// Takes over what somebody else does not remember either.
    pub fn forget(&mut self, up_to: [u64; 2]) {
        self.forgotten = [self.forgotten[0].max(up_to[0]), self.forgotten[1].max(up_to[1])];
    }

    /// Remembers that an event of an audience is gone that had this sequence.
    pub fn remember(&mut self, sequence: u64, topics: Arc<[Topic]>, private: bool) {
        let Some(topics) = Topics::stored(topics.iter().cloned()) else { return };
        let audience = (topics, private);
        match &mut self.newest {
            Some((newest, of)) if *of == audience => *newest = sequence.max(*newest),
            _ => self.insert(sequence, audience),
        }
    }

    /// Whether a reader at a cursor may have missed an event that it could have received.
    pub fn may_miss(&self, after: u64, filter: &Filter) -> bool {
        self.forgot_for(after, filter) || self.remembers_for(after, filter)
    }

    /// Whether something that is not remembered may be what this reader missed, as far as its rights go.
    pub fn forgot_for(&self, after: u64, filter: &Filter) -> bool {
        (after < self.forgotten[0] && filter.reads(false)) || (after < self.forgotten[1] && filter.reads(true))
    }

    /// Whether something that is remembered is what this reader missed.
    pub fn remembers_for(&self, after: u64, filter: &Filter) -> bool {
        let newer = (Bound::Excluded(after), Bound::Unbounded);
        let mut lost = self.newest.iter().filter(|(sequence, _)| *sequence > after).map(|(_, audience)| audience);
        let wanted = |(topics, private): &Audience| {
            if topics == presence::audience() { filter.may_want_presence() } else { filter.wants(topics, *private) }
        };
        lost.any(wanted) || self.by_sequence.range(newer).rev().any(|(_, audience)| wanted(audience))
    }
}

fn audience_bytes(audience: &Audience) -> usize {
    audience.0.iter().map(|topic| topic.as_str().len() + size_of::<Topic>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Event, Grant, Matchers, Position, TopicMatcher};
    use proptest::prelude::*;

    fn record(sequence: u64, topic: &str) -> Record {
        Record::draft(Event::new(topic, "data").unwrap()).seal(Position { epoch: Epoch(1), sequence }, 10 * sequence)
    }

    fn sequences<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<u64> {
        records.map(|record| record.position().sequence).collect()
    }

    #[test]
    fn keeps_the_newest_even_if_it_is_too_large() {
        let mut window = Window::new(0, 1, 10);
        window.push(record(1, "a"), |_| panic!("the newest stays"));
        let mut evicted = Vec::new();
        window.push(record(2, "a"), |record| evicted.push(record.position().sequence));
        assert_eq!((evicted, window.floor(), window.head(), window.len()), (vec![1], 1, 2, 1));
    }

    proptest! {
        /// Against the plain list of what was pushed, with holes between the numbers.
        #[test]
        fn like_a_list(steps in prop::collection::vec(1u64..4, 0..60), max in 1usize..20, probe in 0u64..200) {
            let mut window = Window::new(5, usize::MAX, max);
            let mut list = Vec::new();
            let mut evicted = Vec::new();
            let mut sequence = 5;
            for step in steps {
                sequence += step;
                list.push(sequence);
                window.push(record(sequence, "t"), |record| evicted.push(record.position().sequence));
            }
            let kept = list.split_off(list.len().saturating_sub(max));
            prop_assert_eq!(&evicted, &list);
            prop_assert_eq!(window.floor(), list.last().copied().unwrap_or(5));
            prop_assert_eq!(sequences(window.after(probe)), kept.iter().copied().filter(|&s| s > probe).collect::<Vec<_>>());
            prop_assert_eq!(window.get(probe).is_some(), kept.contains(&probe));
            let before = kept.iter().rfind(|&&s| s < probe).copied().unwrap_or(window.floor());
            prop_assert_eq!((window.before(10 * probe), window.before(10 * probe - 9.min(10 * probe))), (before, before));
            let cost = record(1, "t").cost() as u64;
            prop_assert_eq!(window.events_after(probe), kept.iter().filter(|&&s| s > probe).count());
            prop_assert_eq!(window.bytes_after(probe), cost * kept.iter().filter(|&&s| s > probe).count() as u64);
        }

        /// N-14: nobody is told of a gap who lost nothing, and everybody who did is; beyond the bound, only the second half holds.
        #[test]
        fn evictions_are_remembered_by_audience(topics in prop::collection::vec(0u8..6, 0..40), max in 1usize..8, after in 0u64..45, wanted in 0u8..6) {
            let mut evicted = Evicted::new(0, max, usize::MAX);
            let distinct = topics.iter().collect::<std::collections::BTreeSet<_>>().len();
            for (at, topic) in topics.iter().enumerate() {
                evicted.push(&record(at as u64 + 1, &format!("t{topic}")));
            }
            let filter = Filter::new(Matchers::from(TopicMatcher::exact(&format!("t{wanted}")).unwrap()), &Grant::open());
            let lost = topics.iter().enumerate().any(|(at, &topic)| at as u64 + 1 > after && topic == wanted);
            let told = evicted.may_miss(after, &filter);
            prop_assert!(!lost || told);
            if distinct <= max {
                prop_assert_eq!(told, lost);
            }
        }
    }
}
