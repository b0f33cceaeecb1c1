//! Topics and matchers as the words of a shard's interest.
//!
//! It knows names and hashes; who asks is the shards' to know.

use super::wake::{Interest, Word};
use std::{collections::hash_map::RandomState, hash::BuildHasher};
use tidings_core::{Filter, Key, Topic};

/// The hash all shards of a hub share; secret, so that nobody can choose topics that wake shards in vain.
#[derive(Debug, Default)]
pub(super) struct Words(RandomState);

impl Words {
    fn word(&self, key: Key<'_>) -> Word {
        match key {
            // Whoever asks for a pattern is woken for everything.
            Key::All | Key::Head(_) => Word::All,
            Key::Exact(name) => Word::Exact(self.0.hash_one(name)),
            Key::Prefix(name) => Word::Prefix(self.0.hash_one((name, true))),
        }
    }

    /// What a filter asks for.
    pub(super) fn of(&self, filter: &Filter, take: impl FnMut(Word)) {
        filter.matchers().as_slice().iter().map(|matcher| self.word(matcher.key())).for_each(take);
    }

    /// Whether somebody may want an event with these topics.
    pub(super) fn wanted(&self, interest: &Interest, topics: &[Topic]) -> bool {
        let prefixes = interest.wants_prefixes();
        let keys = topics.iter().flat_map(Topic::keys).filter(|key| prefixes || !matches!(key, Key::Prefix(_)));
        keys.map(|key| self.word(key)).any(|word| interest.wants(word))
    }
}
