//! Feeds: all subscribers who asked the same question with the same rights, interned, and the index that finds the feeds of an event.
//!
//! An event is matched against feeds, never against connections. This file knows questions and rights; what a subscriber has already
//! received is the shard's.

use crate::{
    Framing, Grant, Map, Matchers, Record, Topic, TopicMatcher,
    matcher::{Kind, below},
    wire,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// A question and the rights it is asked with: which events somebody gets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    matchers: Matchers,
    read_public: bool,
    read_private: Matchers,
}

impl Filter {
    /// What a client with this grant gets when it asks for these topics.
    pub fn new(matchers: Matchers, grant: &Grant) -> Filter {
        Filter { matchers, read_public: grant.read_public, read_private: grant.read_private.clone() }
    }

    /// Whether an event with these topics belongs to it: one topic is asked for, and if it is private one topic, not necessarily the
    /// same, is granted (M-22, M-81).
    pub fn wants(&self, topics: &[Topic], private: bool) -> bool {
        self.matchers.match_any(topics) && if private { self.read_private.match_any(topics) } else { self.read_public }
    }

    /// Whether a record belongs to it.
    pub fn wants_record(&self, record: &Record) -> bool {
        self.wants(record.topics(), record.is_private())
    }

    /// The topics asked for.
    pub fn matchers(&self) -> &Matchers {
        &self.matchers
    }

    /// The topics of a record that may be named to this reader: all of a public event, the granted ones of a private (M-130).
    fn disclosed<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = &'a str> {
        let granted = move |topic: &&Topic| !record.is_private() || self.read_private.matches(topic);
        record.topics().iter().filter(granted).map(Topic::as_str)
    }
}

/// What makes two subscribers members of one feed: the same events as the same bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FeedKey {
    /// Which events.
    pub filter: Arc<Filter>,
    /// How they are framed.
    pub framing: Framing,
    /// Whether each event names its topics (N-13b).
    pub topics_field: bool,
}

impl FeedKey {
    /// The bytes this feed's members get for a record.
    pub(crate) fn bytes(&self, record: &Record) -> Bytes {
        if !self.topics_field {
            return record.wire_shared(self.framing);
        }
        let mut bytes = BytesMut::new();
        self.append(record, &mut bytes);
        bytes.freeze()
    }

    /// The same, behind others.
    pub(crate) fn append(&self, record: &Record, bytes: &mut BytesMut) {
        if self.topics_field {
            let lines = wire::topics_lines(self.filter.disclosed(record));
            if !lines.is_empty() {
                bytes.put(wire::frame(self.framing, lines.as_bytes()));
            }
        }
        bytes.put_slice(record.wire(self.framing));
    }
}

/// Members and place of a feed in a shard.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) key: FeedKey,
    /// Slots of the live subscribers, in no order.
    pub(crate) members: Vec<u32>,
    /// All subscribers, live or not.
    pub(crate) subscribers: u32,
    /// What its live members have yet to be written, if there is something.
    pub(crate) sweep: u32,
    /// The last record this feed was found for, so that two matchers that hit the same event count once.
    pub(crate) seen: u64,
}

/// Finds the feeds that may want an event, at a cost that depends on those feeds and on the depth of its topics only.
#[derive(Debug)]
pub(crate) struct Routes {
    exact: Map<Arc<str>, Vec<u32>>,
    prefix: Map<Arc<str>, Vec<u32>>,
    all: Vec<u32>,
    /// Templates and URL patterns, each once.
    patterns: Vec<(TopicMatcher, Vec<u32>)>,
    /// Bytes of the longest prefix since there was none: look-ups stop there, however many slashes a topic has.
    longest_prefix: usize,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Routes {
        Routes { exact: crate::map(seed), prefix: crate::map(seed), all: Vec::new(), patterns: Vec::new(), longest_prefix: 0 }
    }

    pub(crate) fn insert(&mut self, feed: u32, matchers: &Matchers) {
        for matcher in matchers.as_slice() {
            match &matcher.0 {
                Kind::All => self.all.push(feed),
                Kind::Exact(name) => self.exact.entry(name.clone()).or_default().push(feed),
                Kind::Prefix(name) => {
                    self.longest_prefix = self.longest_prefix.max(name.len());
                    self.prefix.entry(name.clone()).or_default().push(feed);
                }
                Kind::Template(_) | Kind::Pattern(_) => match self.patterns.iter_mut().find(|(of, _)| of == matcher) {
                    Some((_, feeds)) => feeds.push(feed),
                    None => self.patterns.push((matcher.clone(), vec![feed])),
                },
            }
        }
    }

    pub(crate) fn remove(&mut self, feed: u32, matchers: &Matchers) {
        fn remove_from(map: &mut Map<Arc<str>, Vec<u32>>, name: &str, feed: u32) {
            if let Some(feeds) = map.get_mut(name) {
                feeds.retain(|&other| other != feed);
                if feeds.is_empty() {
                    map.remove(name);
                }
            }
        }
        for matcher in matchers.as_slice() {
            match &matcher.0 {
                Kind::All => self.all.retain(|&other| other != feed),
                Kind::Exact(name) => remove_from(&mut self.exact, name, feed),
                Kind::Prefix(name) => remove_from(&mut self.prefix, name, feed),
                Kind::Template(_) | Kind::Pattern(_) => self.patterns.retain_mut(|(of, feeds)| {
                    feeds.retain(|&other| other != feed || of != matcher);
                    !feeds.is_empty()
                }),
            }
        }
        if self.prefix.is_empty() {
            self.longest_prefix = 0;
        }
    }

    /// Visits the feeds with a matcher for one of the topics; a feed may be visited more than once, and its rights are not looked at.
    pub(crate) fn candidates(&self, topics: &[Topic], mut visit: impl FnMut(u32)) {
        self.all.iter().copied().for_each(&mut visit);
        for topic in topics {
            if let Some(feeds) = self.exact.get(topic.as_str()) {
                feeds.iter().copied().for_each(&mut visit);
            }
            for (_, feeds) in self.patterns.iter().filter(|(matcher, _)| matcher.matches(topic)) {
                feeds.iter().copied().for_each(&mut visit);
            }
            if self.prefix.is_empty() {
                continue;
            }
            let name = below(topic.as_str());
            let ends = memchr::memchr_iter(b'/', name.as_bytes()).chain([name.len()]);
            for end in ends.take_while(|&end| end <= self.longest_prefix) {
                if let Some(feeds) = self.prefix.get(&name[..end]) {
                    feeds.iter().copied().for_each(&mut visit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Event, Position};
    use proptest::prelude::*;

    fn matcher(text: &str) -> TopicMatcher {
        match text.strip_prefix('=') {
            Some(exact) => TopicMatcher::exact(exact).unwrap(),
            None => TopicMatcher::prefix(text).unwrap(),
        }
    }

    fn record(topics: &[&str], private: bool) -> Record {
        let mut event = Event::new(topics[0], "d").unwrap();
        for topic in &topics[1..] {
            event = event.with_topic(topic).unwrap();
        }
        Record::draft(if private { event.private() } else { event }).seal(Position { epoch: Epoch(0), sequence: 1 }, 0)
    }

    /// M-22, M-81, N-32: who gets a private event.
    #[test]
    fn rights() {
        let mut grant = Grant::open();
        grant.read_private = Matchers::from(matcher("=b"));
        let filter = Filter::new(Matchers::from(matcher("=a")), &grant);
        assert!(filter.wants_record(&record(&["a"], false)));
        assert!(!filter.wants_record(&record(&["a"], true)));
        assert!(filter.wants_record(&record(&["a", "b"], true)), "asked for by one topic, granted by another");
        assert!(!filter.wants_record(&record(&["b"], true)), "granted, but not asked for");
        let open = Filter::new(Matchers::all(), &Grant::open());
        assert!(open.wants_record(&record(&["a"], false)) && !open.wants_record(&record(&["a"], true)));
        assert!(!Filter::new(Matchers::all(), &Grant::none()).wants_record(&record(&["a"], false)));
        assert!(Filter::new(Matchers::all(), &Grant::full()).wants_record(&record(&["a"], true)));
    }

    /// N-13b, M-130: the topics line goes in front, and a private event names only what was granted.
    #[test]
    fn topics_field() {
        let mut grant = Grant::open();
        grant.read_private = Matchers::from(matcher("=b"));
        let key = |framing| FeedKey { filter: Arc::new(Filter::new(Matchers::all(), &grant)), framing, topics_field: true };
        let id = "id: #00000000-0000000000000001";
        assert_eq!(key(Framing::Plain).bytes(&record(&["a", "b"], false)), format!("topics: a\ntopics: b\ndata: d\n{id}\n\n"));
        assert_eq!(key(Framing::Plain).bytes(&record(&["a", "b"], true)), format!("topics: b\ndata: d\n{id}\n\n"));
        assert_eq!(key(Framing::Chunked).bytes(&record(&["a"], false)), format!("a\r\ntopics: a\n\r\n28\r\ndata: d\n{id}\n\n\r\n"));
    }

    proptest! {
        /// The index finds exactly the feeds whose matchers hit, also after removals.
        #[test]
        fn routes_like_matchers(feeds in prop::collection::vec(prop::collection::vec("=?[ab/]{1,4}", 1..4), 0..12), gone in prop::collection::vec(any::<bool>(), 12), topics in prop::collection::vec("[ab/]{1,6}", 1..4)) {
            let matchers: Vec<Matchers> = feeds.iter().map(|texts| Matchers::new(texts.iter().filter(|t| *t != "=").map(|t| matcher(t)))).collect();
            let mut routes = Routes::new(1);
            for (feed, matchers) in matchers.iter().enumerate() {
                routes.insert(feed as u32, matchers);
            }
            for (feed, matchers) in matchers.iter().enumerate().filter(|(feed, _)| gone[*feed]) {
                routes.remove(feed as u32, matchers);
            }
            let topics: Vec<Topic> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
            let mut found = Vec::new();
            routes.candidates(&topics, |feed| found.push(feed as usize));
            found.sort_unstable();
            found.dedup();
            let expected: Vec<usize> = (0..matchers.len()).filter(|&feed| !gone[feed] && matchers[feed].match_any(&topics)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
