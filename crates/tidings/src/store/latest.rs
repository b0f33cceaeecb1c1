//! Which events are the latest of their kind, where a prefix rule keeps those: one for each canonical topic and event type (Z-30).
//!
//! It knows places and audiences. Where the events are, and what becomes of one that is no longer the latest, is the store's.

use super::retention::Rules;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};
use tidings_core::{Filter, Key, Matchers, Record, Topic, limits};

/// One of them, as it is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) topics: Arc<[Topic]>,
    pub(super) event_type: Box<str>,
    pub(super) private: bool,
    /// What it costs where it is kept.
    pub(super) bytes: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Latest {
    by_sequence: BTreeMap<u64, Entry>,
    by_kind: HashMap<(Topic, Box<str>), u64>,
    /// By every topic, not only the canonical one.
    by_name: BTreeSet<(Topic, u64)>,
    bytes: u64,
    max_events: usize,
    max_bytes: u64,
    cost: fn(&Record) -> u64,
    warned: bool,
}

/// An event without a type is a `message` to its readers.
fn type_of(record: &Record) -> &str {
    record.event_type().unwrap_or("message")
}

impl Latest {
    /// `cost` says how many bytes an event costs where it is kept: of memory, or of a disk.
    pub(super) fn new(max_events: usize, max_bytes: u64, cost: fn(&Record) -> u64) -> Latest {
        let (by_sequence, by_kind, by_name) = (BTreeMap::new(), HashMap::new(), BTreeSet::new());
        Latest { by_sequence, by_kind, by_name, bytes: 0, max_events, max_bytes, cost, warned: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_sequence.is_empty()
    }

    /// What all of them cost.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.by_sequence.contains_key(&sequence)
    }

    /// Takes an event in, newer than all before; hands over those that are no longer the latest, or for which there is no room.
    pub(super) fn push(&mut self, rules: &Rules, record: &Record, mut left: impl FnMut(u64, Entry)) {
        if !rules.keeps_latest(record.topics()) {
            return;
        }
        let kind = (record.topics()[0].clone(), type_of(record).into());
        if let Some(&before) = self.by_kind.get(&kind)
            && let Some(entry) = self.remove(before)
        {
            left(before, entry);
        }
        // Nothing is the newest word on a topic too, and needs no keeping.
        if record.is_empty() {
            return;
        }
        let (topics, private) = (record.topics().into(), record.is_private());
        self.insert(record.position().sequence, Entry { topics, event_type: kind.1, private, bytes: (self.cost)(record) });
        while self.by_sequence.len() > self.max_events || (self.bytes > self.max_bytes && self.by_sequence.len() > 1) {
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(
                    events = self.by_sequence.len(),
                    bytes = self.bytes,
                    "more topics keep their latest event than there is room for; those that changed longest ago are kept like any other event"
                );
            }
            let Some(&oldest) = self.by_sequence.keys().next() else { break };
            if let Some(entry) = self.remove(oldest) {
                left(oldest, entry);
            }
        }
    }

    /// The place of the latest event of a record's kind, if there is one.
    pub(super) fn of_kind(&self, record: &Record) -> Option<u64> {
        let topic = record.topics().first()?;
        self.by_kind.get(&(topic.clone(), type_of(record).into())).copied()
    }

    /// Those between two places, the second one included.
    pub(super) fn between(&self, after: u64, up_to: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let range = (Bound::Excluded(after), Bound::Included(up_to.max(after + 1)));
        self.by_sequence.range(range).map(|(sequence, entry)| (*sequence, entry)).filter(move |(sequence, _)| *sequence <= up_to)
    }

    /// Takes one over from an earlier life.
    pub(super) fn insert(&mut self, sequence: u64, entry: Entry) {
        self.bytes += entry.bytes;
        self.by_kind.insert((entry.topics[0].clone(), entry.event_type.clone()), sequence);
        self.by_name.extend(entry.topics.iter().map(|topic| (topic.clone(), sequence)));
        self.by_sequence.insert(sequence, entry);
    }

    /// Forgets one, whose event is gone.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Entry> {
        let entry = self.by_sequence.remove(&sequence)?;
        self.bytes -= entry.bytes;
        let kind = (entry.topics[0].clone(), entry.event_type.clone());
        if self.by_kind.get(&kind) == Some(&sequence) {
            self.by_kind.remove(&kind);
        }
        for topic in entry.topics.iter() {
            self.by_name.remove(&(topic.clone(), sequence));
        }
        Some(entry)
    }

    /// Forgets those after a place, whose events were lost. What they had replaced is found again at the next start.
    pub(super) fn forget_after(&mut self, after: u64) {
        while let Some((&sequence, _)) = self.by_sequence.range(after + 1..).next() {
            self.remove(sequence);
        }
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.by_sequence.iter().map(|(sequence, entry)| (*sequence, entry))
    }

    /// Those between two places that a reader wants, oldest first.
    pub(super) fn wanted(&self, after: u64, up_to: u64, filter: &Filter) -> Vec<u64> {
        if after >= up_to {
            return Vec::new();
        }
        let mut found = Vec::new();
        let wants = |entry: &Entry| filter.wants(&entry.topics, entry.private);
        for matcher in filter.matchers().as_slice() {
            match names(matcher.key()) {
                None => {
                    let all = self.by_sequence.range((Bound::Excluded(after), Bound::Included(up_to)));
                    return all.filter(|(_, entry)| wants(entry)).map(|(sequence, _)| *sequence).collect();
                }
                Some(ranges) => {
                    for (from, to) in ranges {
                        let range = self.by_name.range((Topic::stored(&from), 0)..(Topic::stored(&to), 0));
                        found.extend(range.map(|(_, sequence)| *sequence).filter(|&sequence| after < sequence && sequence <= up_to));
                    }
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|sequence| self.by_sequence.get(sequence).is_some_and(wants));
        found
    }
}

impl Rules {
    /// Whether the newest event of this canonical topic is kept.
    pub(super) fn keeps_latest(&self, topics: &[Topic]) -> bool {
        self.has_latest() && topics.first().is_some_and(|topic| self.keeps(topic))
    }

    /// Whether somebody who asks for these topics may be asking for ones whose newest event is kept. An event may have such a topic as
    /// its canonical one, and be asked for by another.
    pub(super) fn may_keep_latest(&self, asked: &Matchers) -> bool {
        self.has_latest() && !asked.is_empty()
    }
}

/// Ranges of names with all those that a matcher matches; `None` is every one.
fn names(key: Key<'_>) -> Option<Vec<(String, String)>> {
    Some(match key {
        // Of templates and patterns any may match.
        Key::All | Key::Head(_) => return None,
        // The next name there is.
        Key::Exact(name) => vec![(name.to_owned(), format!("{name}\0"))],
        // With a slash in front or without; itself, and everything between `name/` and `name0`, for `0` follows `/`.
        Key::Prefix(name) => ["", "/"]
            .into_iter()
            .flat_map(|slash| {
                [(format!("{slash}{name}"), format!("{slash}{name}\0")), (format!("{slash}{name}/"), format!("{slash}{name}0"))]
            })
            .collect(),
    })
}

/// Room for as many as a store may keep for ever, beside `bytes` of its own choice.
pub(super) fn latest_within(bytes: u64, cost: fn(&Record) -> u64) -> Latest {
    Latest::new(limits::LATEST_EVENTS, bytes.min(limits::LATEST_BYTES), cost)
}

#[cfg(test)]
mod tests {
    use super::{super::retention::Limits, *};
    use crate::{Keep, PrefixRule};
    use proptest::prelude::*;
    use tidings_core::{Epoch, Event, Grant, Position, TopicMatcher};

    const TOPICS: [&str; 4] = ["k/a", "/k/b", "k", "other"];

    fn rules() -> Rules {
        let mut rule = PrefixRule::new("k");
        rule.keep = Some(Keep::Latest);
        Rules::new(Limits::new(u64::MAX, u64::MAX, None), &[rule], std::iter::empty())
    }

    proptest! {
        /// Z-30: against the plain list of what was published. Bounds take from the oldest.
        #[test]
        fn like_a_list(
            events in prop::collection::vec((0usize..4, 0usize..4, 0u8..3, any::<(bool, bool)>()), 0..60),
            most in 1usize..8, after in 0u64..70, up_to in 0u64..70, asked in 0usize..6,
        ) {
            let (rules, mut latest) = (rules(), Latest::new(most, u64::MAX, |_| 1));
            let mut model: BTreeMap<(usize, u8), Option<u64>> = BTreeMap::new();
            let mut left = Vec::new();
            let mut records = Vec::new();
            for (n, &(topic, other, kind, (private, empty))) in events.iter().enumerate() {
                let event = Event::new(TOPICS[topic], if empty { "" } else { "d" }).unwrap();
                let event = event.with_topic(TOPICS[other]).unwrap().with_type(["", "message", "x"][usize::from(kind)]).unwrap();
                let event = if private { event.private() } else { event };
                let record = Record::draft(event).seal(Position { epoch: Epoch(1), sequence: n as u64 + 1 }, 0);
                latest.push(&rules, &record, |sequence, _| left.push(sequence));
                if topic < 3 {
                    model.insert((topic, kind.max(1)), (!empty).then_some(n as u64 + 1));
                    let mut kept: Vec<_> = model.iter().filter_map(|(kind, sequence)| Some((sequence.as_ref().copied()?, *kind))).collect();
                    kept.sort_unstable();
                    for (_, kind) in &kept[..kept.len().saturating_sub(most)] {
                        model.remove(kind);
                    }
                }
                records.push(record);
            }
            let kept: BTreeSet<u64> = model.values().filter_map(|sequence| *sequence).collect();
            prop_assert!(latest.iter().map(|(sequence, _)| sequence).eq(kept.iter().copied()));
            prop_assert!(left.iter().all(|sequence| !kept.contains(sequence)));
            let matcher = match asked {
                4 => TopicMatcher::prefix("k").unwrap(),
                5 => TopicMatcher::all(),
                topic => TopicMatcher::exact(TOPICS[topic]).unwrap(),
            };
            for grant in [Grant::open(), Grant::full()] {
                let filter = Filter::new(Matchers::from(matcher.clone()), &grant);
                let wanted = kept.iter().copied().filter(|&at| after < at && at <= up_to && filter.wants_record(&records[at as usize - 1]));
                prop_assert_eq!(latest.wanted(after, up_to, &filter), wanted.collect::<Vec<_>>());
            }
            for sequence in kept {
                latest.remove(sequence);
            }
            prop_assert!(latest.is_empty() && latest.by_kind.is_empty() && latest.by_name.is_empty() && latest.bytes == 0);
        }
    }
}
