//! What a reader asks for and may have, in plain strings, with a matching of its own: the model that the core's matchers, grants and
//! feeds are judged by.

use super::rng::Rng;
use std::sync::Arc;
use tidings_core::{FeedKey, Filter, Framing, Grant, Matchers, TopicMatcher};

/// The topics that are published to: some below others, some that only look so, one with a slash in front (N-10).
pub(crate) const TOPICS: [&str; 9] = ["a", "a/b", "/a/c", "ab", "b", "b/x/y", "b/x", "c", "c/d"];

/// Topics of events about subscriptions: what is subscribed to, and the topic in the newer and in the older view (M-405).
pub(crate) const PRESENCE: [(&str, &str, &str); 2] = [
    (
        "a",
        "/.well-known/mercure/subscriptions/exact/a/urn%3Auuid%3A00000000-0000-4000-8000-000000000007",
        "/.well-known/mercure/subscriptions/a/urn%3Auuid%3A00000000-0000-4000-8000-000000000007",
    ),
    (
        "b/x",
        "/.well-known/mercure/subscriptions/exact/b%2Fx/urn%3Auuid%3A00000000-0000-4000-8000-000000000007",
        "/.well-known/mercure/subscriptions/b%2Fx/urn%3Auuid%3A00000000-0000-4000-8000-000000000007",
    ),
];
const ABOUT_SUBSCRIPTIONS: &str = ".well-known/mercure/subscriptions";

#[derive(Clone, PartialEq)]
pub(crate) enum Wish {
    All,
    Exact(&'static str),
    Prefix(&'static str),
}

impl Wish {
    fn random(rng: &mut Rng) -> Wish {
        match rng.below(10) {
            0 => Wish::All,
            1 => Wish::Prefix(ABOUT_SUBSCRIPTIONS),
            2 => {
                let (_, newer, older) = rng.pick(&PRESENCE);
                Wish::Exact(rng.pick(&[newer, older]))
            }
            3..=6 => Wish::Exact(rng.pick(&TOPICS)),
            _ => Wish::Prefix(rng.pick(&["a", "b", "b/x", "c", "x"])),
        }
    }

    fn hits(&self, topic: &str) -> bool {
        match self {
            Wish::All => true,
            Wish::Exact(name) => *name == topic,
            Wish::Prefix(name) => {
                let topic: Vec<&str> = topic.strip_prefix('/').unwrap_or(topic).split('/').collect();
                topic.starts_with(&name.split('/').collect::<Vec<_>>())
            }
        }
    }

    fn matcher(&self) -> TopicMatcher {
        match self {
            Wish::All => TopicMatcher::all(),
            Wish::Exact(name) => TopicMatcher::exact(name).unwrap(),
            Wish::Prefix(name) => TopicMatcher::prefix(name).unwrap(),
        }
    }
}

/// A question with the rights it is asked with, and the form of the answer.
#[derive(Clone)]
pub(crate) struct Question {
    wishes: Vec<Wish>,
    /// Those in the older dialect.
    older: Vec<Wish>,
    public: bool,
    private: Vec<Wish>,
    pub(crate) framing: Framing,
    pub(crate) topics_field: bool,
}

impl Question {
    pub(crate) fn random(rng: &mut Rng) -> Question {
        let wishes: Vec<Wish> = (0..rng.weighted(&[(1, 6), (2, 2), (4, 1)])).map(|_| Wish::random(rng)).collect();
        let (older, wishes) = wishes.into_iter().partition(|_| rng.chance(1, 3));
        let private = (0..rng.weighted(&[(0, 3), (1, 2), (2, 1)])).map(|_| Wish::random(rng)).collect();
        Question {
            wishes,
            older,
            public: rng.chance(9, 10),
            private,
            framing: rng.pick(&[Framing::Plain, Framing::Chunked]),
            topics_field: rng.chance(1, 3),
        }
    }

    pub(crate) fn wants(&self, topics: &[&str], private: bool) -> bool {
        let asked = hit(&self.wishes, topics) || hit(&self.older, topics);
        asked && if private { hit(&self.private, topics) } else { self.public }
    }

    /// Whether it wants an event about a subscription in the newer view, whose topic this is.
    pub(crate) fn wants_newer(&self, topic: &str) -> bool {
        hit(&self.wishes, &[topic]) && hit(&self.private, &[topic])
    }

    /// The same in the older view.
    pub(crate) fn wants_older(&self, topic: &str) -> bool {
        hit(&self.older, &[topic]) && hit(&self.private, &[topic])
    }

    /// Whether it may want some event about a subscription.
    pub(crate) fn may_want_presence(&self) -> bool {
        let may = |wish: &Wish| match wish {
            Wish::All => true,
            Wish::Exact(name) | Wish::Prefix(name) => name.contains(ABOUT_SUBSCRIPTIONS),
        };
        self.wishes.iter().chain(&self.older).any(may) && self.private.iter().any(may)
    }

    /// The topics that this reader may be told (N-13b, M-130).
    pub(crate) fn told_topics<'a>(&self, topics: &[&'a str], private: bool) -> Vec<&'a str> {
        let may_know = |topic: &&str| !private || self.private.iter().any(|wish| wish.hits(topic));
        topics.iter().copied().filter(may_know).filter(|_| self.topics_field).collect()
    }

    pub(crate) fn feed(&self) -> FeedKey {
        let mut grant = Grant::none();
        grant.read_public = self.public;
        grant.read_private = Matchers::new(self.private.iter().map(Wish::matcher));
        let matchers = |wishes: &[Wish]| Matchers::new(wishes.iter().map(Wish::matcher));
        let filter = Filter::in_views(matchers(&self.wishes), matchers(&self.older), &grant);
        FeedKey { filter: Arc::new(filter), framing: self.framing, topics_field: self.topics_field }
    }
}

fn hit(wishes: &[Wish], topics: &[&str]) -> bool {
    topics.iter().any(|topic| wishes.iter().any(|wish| wish.hits(topic)))
}
