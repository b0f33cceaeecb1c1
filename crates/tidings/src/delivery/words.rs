//! Topics and matchers as the words of a shard's interest.
//!
//! It knows names and hashes; who asks is the shards' to know.

use super::wake::{HEADS, Interest, Word};
use std::{collections::hash_map::RandomState, hash::BuildHasher};
use tidings_core::{Filter, Key, Topic};

/// The hash all shards of a hub share; secret, so that nobody can choose topics that wake shards in vain.
#[derive(Debug, Default)]
pub(super) struct Words(RandomState);

impl Words {
    fn word(&self, key: Key<'_>) -> Word {
        match key {
            Key::All => Word::All,
            Key::Exact(name) => Word::Exact(self.0.hash_one(name)),
            Key::Prefix(name) => Word::Prefix(self.0.hash_one((name, true))),
            // A beginning that tells nothing apart is every topic's.
            Key::Head(head) => HEADS.iter().rposition(|&len| len <= head.len()).map_or(Word::All, |which| self.head(which, head)),
        }
    }

    fn head(&self, which: usize, name: &str) -> Word {
        Word::Head(which, self.0.hash_one((&name.as_bytes()[..HEADS[which]], which)))
    }

    /// What a filter asks for.
    pub(super) fn of(&self, filter: &Filter, take: impl FnMut(Word)) {
        filter.matchers().as_slice().iter().map(|matcher| self.word(matcher.key())).for_each(take);
    }

    /// Whether somebody may want an event with these topics.
    pub(super) fn wanted(&self, interest: &Interest, topics: &[Topic]) -> bool {
        let prefixes = interest.wants_prefixes();
        let keys = topics.iter().flat_map(Topic::keys).filter(|key| prefixes || !matches!(key, Key::Prefix(_)));
        let beginnings = (0..HEADS.len()).filter(|&which| interest.wants_heads(which));
        keys.map(|key| self.word(key)).any(|word| interest.wants(word))
            || beginnings.into_iter().any(|which| {
                let long_enough = topics.iter().map(Topic::as_str).filter(|name| name.len() >= HEADS[which]);
                long_enough.map(|name| self.head(which, name)).any(|word| interest.wants(word))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Grant, Matchers, TopicMatcher, UrlPatterns};

    /// Whoever gets an event wakes for it, whatever the kind of matcher; who asks for other beginnings does not.
    #[test]
    fn who_is_woken() {
        let patterns = UrlPatterns::new("https://hub.example/", 10).unwrap();
        let template = |text| TopicMatcher::template(text).unwrap();
        let long = "https://example.com/";
        let table = [
            (template("{x}"), "a", true),
            (template("abc/{x}"), "other", true),
            (template("https://example.com/books/{x}"), &*format!("{long}books/1"), true),
            (template("https://example.com/books/{x}"), &*format!("{long}users/1"), false),
            (template("https://example.com/books/{x}"), "https://example.org/books/1", false),
            (template("https://example.com/books/{x}"), "https:/", false),
            (TopicMatcher::url_pattern("/books/:x", &patterns).unwrap(), "anything", true),
        ];
        for (matcher, name, woken) in table {
            let (words, interest, topic) = (Words::default(), Interest::new(1 << 16), Topic::parse(name).unwrap());
            let filter = Filter::new(Matchers::from(matcher.clone()), &Grant::open());
            words.of(&filter, |word| interest.add(word));
            assert!(words.wanted(&interest, &[Topic::parse("b").unwrap(), topic.clone()]) == woken, "{matcher:?} and {name}");
            assert!(woken || !matcher.matches(&topic));
            words.of(&filter, |word| interest.remove(word));
            assert!(interest.is_empty() && !words.wanted(&interest, &[topic]));
        }
    }
}
