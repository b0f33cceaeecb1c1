//! Feeds: all subscribers who asked the same question with the same rights, interned.
//!
//! An event is matched against feeds, never against connections. This file knows questions and rights; which feeds an event concerns is
//! found by the routes, and what a subscriber has already received is the shard's.

use crate::{Framing, Grant, Matchers, Record, Topic, View, names::Names, presence, wire};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// A question and the rights it is asked with: which events somebody gets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    matchers: Matchers,
    views: Views,
    read_public: bool,
    read_private: Matchers,
}

/// In which view somebody gets an event that has two (M-405). All who cannot ask for such an event count as one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Views {
    First,
    Second,
    /// Some of the matchers ask for the first, some for the second.
    Either(Box<(Matchers, Matchers)>),
}

impl Filter {
    /// What a client with this grant gets when it asks for these topics.
    pub fn new(matchers: Matchers, grant: &Grant) -> Filter {
        Filter::in_views(matchers, Matchers::none(), grant)
    }

    /// The same where some topics are asked for in the older dialect of Mercure, which has a view of its own of who has subscribed (M-405).
    pub fn in_views(first: Matchers, second: Matchers, grant: &Grant) -> Filter {
        let (in_first, in_second) = (presence::among(&first), presence::among(&second));
        let views = match (in_first.is_empty(), in_second.is_empty()) {
            (_, true) => Views::First,
            (true, false) => Views::Second,
            (false, false) => Views::Either(Box::new((in_first, in_second))),
        };
        let matchers = if second.is_empty() { first } else { Matchers::new(first.as_slice().iter().chain(second.as_slice()).cloned()) };
        Filter { matchers, views, read_public: grant.read_public, read_private: grant.read_private.clone() }
    }

    /// Whether an event with these topics belongs to it: one topic is asked for, and if it is private one topic, not necessarily the
    /// same, is granted (M-22, M-81).
    pub fn wants(&self, topics: &[Topic], private: bool) -> bool {
        let names = Names::new(topics);
        self.matchers.hit_any(&names) && self.may_read(&names, private)
    }

    /// Whether an event may be read that is among those asked for.
    pub(crate) fn may_read(&self, names: &Names<'_>, private: bool) -> bool {
        if private { self.read_private.hit_any(names) } else { self.read_public }
    }

    /// Whether a record belongs to it that has a topic among those asked for.
    pub(crate) fn wants_asked(&self, record: &Record, names: &Names<'_>) -> bool {
        // Which topic was asked for matters where each view has its own.
        if record.has_two_views() { self.wants_record(record) } else { self.may_read(names, record.is_private()) }
    }

    /// Whether a record belongs to it.
    pub fn wants_record(&self, record: &Record) -> bool {
        self.view_of(record).is_some()
    }

    /// The view in which a record belongs to it, if it does. Each view is asked for and granted by its own topics.
    pub fn view_of(&self, record: &Record) -> Option<View> {
        if !record.has_two_views() {
            return self.wants(record.topics(), record.is_private()).then_some(View::First);
        }
        let wants = |matchers: &Matchers, view| {
            let topics = record.topics_in(view);
            (matchers.match_any(topics) && self.read_private.match_any(topics)).then_some(view)
        };
        match &self.views {
            Views::First => wants(&self.matchers, View::First),
            Views::Second => wants(&self.matchers, View::Second),
            Views::Either(of) => wants(&of.0, View::First).or_else(|| wants(&of.1, View::Second)),
        }
    }

    /// Whether it may want an event about subscriptions, of which nothing is known but that it is one; conservative.
    pub(crate) fn may_want_presence(&self) -> bool {
        presence::any_of(&self.matchers) && presence::any_of(&self.read_private)
    }

    /// The topics asked for.
    pub fn matchers(&self) -> &Matchers {
        &self.matchers
    }

    /// The topics of a record that may be named to this reader: all of a public event, the granted ones of a private (M-130).
    fn disclosed<'a>(&'a self, record: &'a Record, view: View) -> impl Iterator<Item = &'a str> {
        let granted = move |topic: &&Topic| !record.is_private() || self.read_private.matches(topic);
        record.topics_in(view).iter().filter(granted).map(Topic::as_str)
    }

    /// The view in which to write a record that it wants.
    fn writes(&self, record: &Record) -> View {
        if record.has_two_views() { self.view_of(record).unwrap_or(View::First) } else { View::First }
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
            return record.wire_shared(self.filter.writes(record), self.framing);
        }
        let mut bytes = BytesMut::new();
        self.append(record, &mut bytes);
        bytes.freeze()
    }

    /// The same, behind others.
    pub(crate) fn append(&self, record: &Record, bytes: &mut BytesMut) {
        let view = self.filter.writes(record);
        if self.topics_field {
            let lines = wire::topics_lines(self.filter.disclosed(record, view));
            if !lines.is_empty() {
                bytes.put(wire::frame(self.framing, lines.as_bytes()));
            }
        }
        bytes.put_slice(record.wire_in(view, self.framing));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Event, Position, TopicMatcher};

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
}
