//! What a reader asks for and may have, in plain strings, with a matching of its own: the model that the core's matchers, grants and
//! feeds are judged by.

use super::rng::Rng;
use std::sync::{Arc, LazyLock};
use tidings_core::{FeedKey, Filter, Framing, Grant, Matchers, TopicMatcher, UrlPatterns};

/// The topics that are published to: some below others, some that only look so, one with a slash in front (N-10).
pub(crate) const TOPICS: [&str; 9] = ["a", "a/b", "/a/c", "ab", "b", "b/x/y", "b/x", "c", "c/d"];

#[derive(Clone, PartialEq)]
pub(crate) enum Wish {
    All,
    Exact(&'static str),
    Prefix(&'static str),
    /// A URI Template and what it matches.
    Template(&'static str, &'static [&'static str]),
    /// A URL pattern and what it matches.
    Pattern(&'static str, &'static [&'static str]),
}

/// M-218: each with all of the topics that it matches.
const TEMPLATES: [(&str, &[&str]); 6] = [
    ("{x}", &["a", "ab", "b", "c"]),
    ("a{x}", &["a", "ab"]),
    ("b/{x}", &["b/x"]),
    ("b{/x*}", &["b", "b/x/y", "b/x"]),
    ("{+x}/{y}", &["a/b", "/a/c", "b/x/y", "b/x", "c/d"]),
    ("c/d{x}/", &[]),
];

/// M-32: the same; relative to `https://hub.example/`.
const PATTERNS: [(&str, &[&str]); 6] = [
    ("/a/:x", &["a/b", "/a/c"]),
    ("/:x", &["a", "ab", "b", "c"]),
    ("b/*", &["b/x/y", "b/x"]),
    ("https://hub.example/(b|c)/:x/:y?", &["b/x/y", "b/x", "c/d"]),
    ("*://*:*/ab", &["ab"]),
    ("https://elsewhere.example/*", &[]),
];

impl Wish {
    fn random(rng: &mut Rng) -> Wish {
        let of = |(text, hits): (&'static str, &'static [&'static str]), kind: fn(_, _) -> Wish| kind(text, hits);
        match rng.below(12) {
            0 => Wish::All,
            1..=4 => Wish::Exact(rng.pick(&TOPICS)),
            5..=6 => of(rng.pick(&TEMPLATES), Wish::Template),
            7..=8 => of(rng.pick(&PATTERNS), Wish::Pattern),
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
            Wish::Template(_, hits) | Wish::Pattern(_, hits) => hits.contains(&topic),
        }
    }

    fn matcher(&self) -> TopicMatcher {
        match self {
            Wish::All => TopicMatcher::all(),
            Wish::Exact(name) => TopicMatcher::exact(name).unwrap(),
            Wish::Prefix(name) => TopicMatcher::prefix(name).unwrap(),
            Wish::Template(text, _) => TopicMatcher::template(text).unwrap(),
            Wish::Pattern(text, _) => {
                // One for all runs, as a process has one: what is compiled does not depend on what came before.
                static OF_THE_HUB: LazyLock<UrlPatterns> = LazyLock::new(|| UrlPatterns::new("https://hub.example/", 100).unwrap());
                TopicMatcher::url_pattern(text, &OF_THE_HUB).unwrap()
            }
        }
    }
}

/// A question with the rights it is asked with, and the form of the answer.
#[derive(Clone)]
pub(crate) struct Question {
    wishes: Vec<Wish>,
    public: bool,
    private: Vec<Wish>,
    pub(crate) framing: Framing,
    pub(crate) topics_field: bool,
}

impl Question {
    pub(crate) fn random(rng: &mut Rng) -> Question {
        let wishes = (0..rng.weighted(&[(1, 6), (2, 2), (4, 1)])).map(|_| Wish::random(rng)).collect();
        let private = (0..rng.weighted(&[(0, 3), (1, 2), (2, 1)])).map(|_| Wish::random(rng)).collect();
        Question {
            wishes,
            public: rng.chance(9, 10),
            private,
            framing: rng.pick(&[Framing::Plain, Framing::Chunked]),
            topics_field: rng.chance(1, 3),
        }
    }

    pub(crate) fn wants(&self, topics: &[&str], private: bool) -> bool {
        let hit = |wishes: &[Wish]| topics.iter().any(|topic| wishes.iter().any(|wish| wish.hits(topic)));
        hit(&self.wishes) && if private { hit(&self.private) } else { self.public }
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
        let matchers = Matchers::new(self.wishes.iter().map(Wish::matcher));
        FeedKey { filter: Arc::new(Filter::new(matchers, &grant)), framing: self.framing, topics_field: self.topics_field }
    }
}
