//! Retention classes: which one an event belongs to, how much each may keep, and what is remembered of what each has removed.
//!
//! It knows prefixes, numbers and audiences, neither files nor readers. A class is made of the prefix rules that limit something, and one
//! is built in, for the events of presence.

use crate::{PrefixRule, config::Keep};
use std::{cmp::Reverse, sync::Arc, time::Duration};
use tidings_core::{Evicted, Filter, Key, Matchers, Record, Topic, TopicMatcher, limits};

/// The topics of presence events (M-410), as a prefix is written.
const PRESENCE: &str = ".well-known/mercure/subscriptions";

/// How much a class may keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) age_ms: Option<u64>,
}

impl Limits {
    pub(super) fn new(bytes: u64, events: u64, age: Option<Duration>) -> Limits {
        Limits { bytes, events, age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)) }
    }
}

/// A class: the topics at and below a prefix, without those of longer ones. The first one is all other topics, and has the empty prefix.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) prefix: Box<str>,
    pub(super) matcher: TopicMatcher,
    pub(super) limits: Limits,
}

/// The rules of a store.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    classes: Vec<Class>,
    /// Prefixes with their class and whether they keep the latest, the longest first.
    lookup: Vec<(TopicMatcher, usize, bool)>,
}

impl Rules {
    /// Classes for these prefixes beside the first one, which has `limits`; what a rule leaves out it has from there. `former` are prefixes
    /// that had a class in an earlier life: it stays while somebody may have lost something to it. Rules whose prefix can be none are left out;
    /// a hub refuses to start with them.
    pub(super) fn new<'a>(limits: Limits, prefixes: &[PrefixRule], former: impl Iterator<Item = &'a str>) -> Rules {
        let mut rules = Rules { classes: vec![Class { prefix: "".into(), matcher: TopicMatcher::all(), limits }], lookup: Vec::new() };
        let presence =
            Limits { bytes: limits::PRESENCE_BYTES.min(limits.bytes / 4), events: limits.events, age_ms: Some(limits::PRESENCE_MS) };
        for rule in prefixes {
            let Some((matcher, name)) = prefix(&rule.prefix) else { continue };
            let base = if name == PRESENCE { presence } else { limits };
            let given = rule.retention_bytes.is_some() || rule.retention_events.is_some() || rule.retention_age.is_some();
            let limits = Limits {
                bytes: rule.retention_bytes.unwrap_or(base.bytes),
                events: rule.retention_events.unwrap_or(base.events),
                age_ms: rule.retention_age.map_or(base.age_ms, |age| Limits::new(0, 0, Some(age)).age_ms),
            };
            let class = if given || name == PRESENCE { rules.class(&name, &matcher, limits) } else { 0 };
            rules.lookup.push((matcher, class, rule.keep == Some(Keep::Latest)));
        }
        for (name, limits) in [(PRESENCE, presence)].into_iter().chain(former.map(|name| (name, limits))) {
            if let Some((matcher, name)) = prefix(name)
                && !rules.classes.iter().any(|class| *class.prefix == *name)
            {
                let class = rules.class(&name, &matcher, limits);
                let keep = rules.lookup.iter().find(|(other, ..)| *other == matcher).is_some_and(|&(_, _, keep)| keep);
                rules.lookup.insert(0, (matcher, class, keep));
            }
        }
        rules.lookup.sort_by_key(|(matcher, ..)| Reverse(name_of(matcher).len()));
        rules
    }

    fn class(&mut self, name: &str, matcher: &TopicMatcher, limits: Limits) -> usize {
        self.classes.push(Class { prefix: name.into(), matcher: matcher.clone(), limits });
        self.classes.len() - 1
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn rule(&self, topic: &Topic) -> Option<&(TopicMatcher, usize, bool)> {
        self.lookup.iter().find(|(matcher, ..)| matcher.matches(topic))
    }

    /// The class of an event: of its canonical topic.
    pub(super) fn class_of(&self, topics: &[Topic]) -> usize {
        topics.first().and_then(|topic| self.rule(topic)).map_or(0, |&(_, class, _)| class)
    }

    /// Whether the newest event of a topic is kept.
    pub(super) fn keeps(&self, topic: &Topic) -> bool {
        self.rule(topic).is_some_and(|&(_, _, keeps)| keeps)
    }

    /// Whether that is so for any topic.
    pub(super) fn has_latest(&self) -> bool {
        self.lookup.iter().any(|&(_, _, keeps)| keeps)
    }

    /// The prefixes where that is so.
    pub(super) fn latest_prefixes(&self) -> impl Iterator<Item = &TopicMatcher> {
        self.lookup.iter().filter(|(_, _, keeps)| *keeps).map(|(matcher, ..)| matcher)
    }

    /// What a table of latest events depends on: with other rules it says nothing.
    pub(super) fn latest_terms(&self) -> Vec<u8> {
        let mut terms = Vec::new();
        for (matcher, _, keeps) in &self.lookup {
            terms.extend(name_of(matcher).as_bytes());
            terms.push((*keeps).into());
        }
        terms
    }

    /// Whether one of its other topics belongs to another class than it does: then readers of that one may miss it too.
    pub(super) fn is_foreign(&self, class: usize, topics: &[Topic]) -> bool {
        topics.iter().skip(1).any(|topic| self.class_of(std::slice::from_ref(topic)) != class)
    }

    /// Whether a topic of this class may be among those asked for.
    fn concerns(&self, class: usize, asked: &Matchers) -> bool {
        let own = &self.classes[class].matcher;
        match class {
            // What is left when every other class has taken its topics.
            0 => !asked.as_slice().iter().all(|asked| self.classes[1..].iter().any(|class| class.matcher.covers(asked))),
            // A template or a pattern may match some of it.
            _ => asked.as_slice().iter().any(|asked| matches!(asked.key(), Key::Head(_)) || own.covers(asked) || asked.covers(own)),
        }
    }
}

fn prefix(name: &str) -> Option<(TopicMatcher, String)> {
    let matcher = TopicMatcher::prefix(name).ok()?;
    let name = name_of(&matcher).to_owned();
    Some((matcher, name)).filter(|(_, name)| !name.is_empty())
}

fn name_of(matcher: &TopicMatcher) -> &str {
    match matcher.key() {
        Key::Prefix(name) => name,
        Key::All | Key::Exact(_) | Key::Head(_) => "",
    }
}

/// What is remembered of the events that a class has removed (N-14).
#[derive(Debug)]
pub(super) struct Gone {
    /// Every event of the class up to here that is not the latest of its kind is gone, and remembered or forgotten below.
    pub(super) through: u64,
    /// While it is being removed, as far as that will go.
    pub(super) noted: u64,
    pub(super) evicted: Evicted,
    /// The newest one that had a topic of another class.
    pub(super) foreign: u64,
}

impl Gone {
    /// Of the first class more audiences are remembered: those of the others are asked for by fewer readers.
    pub(super) fn blank(class: usize, through: u64, forgotten: u64) -> Gone {
        let part = if class == 0 { 1 } else { limits::EVICTED_OTHERS };
        let evicted = Evicted::new(forgotten, limits::EVICTED_AUDIENCES / part, limits::EVICTED_BYTES / part);
        Gone { through, noted: through, evicted, foreign: 0 }
    }

    /// One more.
    pub(super) fn push(&mut self, rules: &Rules, class: usize, record: &Record) {
        self.note_foreign(rules, class, record.topics(), record.position().sequence);
        self.evicted.push(record);
    }

    /// The same by its audience.
    pub(super) fn remember(&mut self, rules: &Rules, class: usize, sequence: u64, topics: Arc<[Topic]>, private: bool) {
        self.note_foreign(rules, class, &topics, sequence);
        self.evicted.remember(sequence, topics, private);
    }

    pub(super) fn note_foreign(&mut self, rules: &Rules, class: usize, topics: &[Topic], sequence: u64) {
        if sequence > self.foreign && rules.is_foreign(class, topics) {
            self.foreign = sequence;
        }
    }

    /// Whether a reader at a cursor may have missed an event of this class.
    pub(super) fn may_miss(&self, rules: &Rules, class: usize, after: u64, filter: &Filter) -> bool {
        let forgot = self.evicted.forgot_for(after, filter) && (after < self.foreign || rules.concerns(class, filter.matchers()));
        forgot || self.evicted.remembers_for(after, filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidings_core::{Epoch, Event, Grant, Position};

    fn rule(prefix: &str, events: Option<u64>, keep: bool) -> PrefixRule {
        let mut rule = PrefixRule::new(prefix);
        rule.retention_events = events;
        rule.keep = keep.then_some(Keep::Latest);
        rule
    }

    fn rules(prefixes: &[PrefixRule]) -> Rules {
        Rules::new(Limits::new(1 << 30, 200, None), prefixes, ["old"].into_iter())
    }

    /// The longest prefix decides as a whole, by the canonical topic.
    #[test]
    fn classes_of_topics() {
        let rules =
            rules(&[rule("a", Some(1), false), rule("/a/b/", None, true), rule("a/b/c", Some(3), true), rule("\u{0}", Some(9), true)]);
        let of = |name: &str| &*rules.classes()[rules.class_of(&[Topic::stored(name), Topic::stored("a")])].prefix;
        for (name, class) in [
            ("a", "a"),
            ("/a/x", "a"),
            ("ab", ""),
            ("a/b", ""),
            ("a/b/c/d", "a/b/c"),
            ("old/x", "old"),
            ("/.well-known/mercure/subscriptions/t/s", PRESENCE),
            ("/.well-known/mercure", ""),
        ] {
            assert_eq!(of(name), class, "{name}");
        }
        let limits = |prefix: &str| rules.classes().iter().find(|class| *class.prefix == *prefix).unwrap().limits;
        assert_eq!((limits("a").events, limits("a").bytes, limits("old").events), (1, 1 << 30, 200));
        assert_eq!(limits(PRESENCE), Limits { bytes: 64 << 20, events: 200, age_ms: Some(600_000) });
    }

    /// The built-in class can be given other limits, one by one.
    #[test]
    fn presence_can_be_limited_otherwise() {
        let rules = rules(&[rule("/.well-known/mercure/subscriptions", Some(7), false)]);
        let presence: Vec<Limits> = rules.classes().iter().filter(|class| *class.prefix == *PRESENCE).map(|class| class.limits).collect();
        assert_eq!(presence, [Limits { bytes: 64 << 20, events: 7, age_ms: Some(600_000) }]);
    }

    proptest! {
        /// N-14: whoever may have missed something is told, whatever was forgotten; and who asks for topics of another class only is not
        /// told of what a class has forgotten.
        #[test]
        fn who_is_told(events in prop::collection::vec((0usize..6, 0usize..6, any::<bool>()), 0..30), wanted in 0usize..6, private: bool, after in 0u64..32, keeps in 1usize..4) {
            const NAMES: [&str; 6] = ["a/1", "a/2", "a/3", "b", "c", "d"];
            let rules = rules(&[rule("a", Some(1), false)]);
            let mut gone: Vec<Gone> = (0..rules.classes().len()).map(|class| Gone::blank(class, 0, 0)).collect();
            for gone in &mut gone {
                gone.evicted = Evicted::new(0, keeps, usize::MAX);
            }
            let grant = if private { Grant::full() } else { Grant::open() };
            let filter = Filter::new(Matchers::from(TopicMatcher::exact(NAMES[wanted]).unwrap()), &grant);
            let (mut lost, mut foreign) = (false, false);
            for (n, &(topic, other, private)) in events.iter().enumerate() {
                let event = Event::new(NAMES[topic], "d").unwrap().with_topic(NAMES[other]).unwrap();
                let event = if private { event.private() } else { event };
                let record = Record::draft(event).seal(Position { epoch: Epoch(1), sequence: n as u64 + 1 }, 0);
                let class = rules.class_of(record.topics());
                gone[class].push(&rules, class, &record);
                lost |= n as u64 + 1 > after && filter.wants_record(&record);
                foreign |= (topic < 3) != (other < 3);
            }
            let told: Vec<bool> = gone.iter().enumerate().map(|(class, gone)| gone.may_miss(&rules, class, after, &filter)).collect();
            prop_assert!(!lost || told.contains(&true));
            if !foreign {
                let class = rules.class_of(&[Topic::stored(NAMES[wanted])]);
                prop_assert!(told.iter().enumerate().all(|(of, told)| of == class || !told));
            }
        }
    }
}
