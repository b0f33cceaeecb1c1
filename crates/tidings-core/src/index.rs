//! Finding the number of a thing by what the thing is: a hash table of numbers of four bytes, beside the slab that holds the things. A map
//! that held them itself would hold them twice, and has up to 2.3 places for each, more once some are gone.
//!
//! It knows hashes and numbers; the things are asked for when two have to be told apart.

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// Numbers by the hash of what they stand for. Never iterated: its order means nothing.
#[derive(Debug)]
pub(crate) struct Index {
    numbers: HashTable<u32>,
    /// Seeded by an argument, so that a run can be replayed, and secretly in production, so that nobody can choose topics that collide.
    state: FixedState,
}

impl Index {
    pub(crate) fn new(seed: u64) -> Index {
        Index { numbers: HashTable::new(), state: FixedState::with_seed(seed) }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The number of the thing that equals `key`; `is` says whether a number's does.
    pub(crate) fn get<K: Hash + ?Sized>(&self, key: &K, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.numbers.find(self.state.hash_one(key), |&number| is(number)).copied()
    }

    /// Adds the number of a thing that is not here yet; `hash` hashes the thing of a number as `key` is hashed.
    pub(crate) fn insert<K: Hash + ?Sized>(&mut self, key: &K, number: u32, hash: impl Fn(&FixedState, u32) -> u64) {
        let Index { numbers, state } = self;
        numbers.insert_unique(state.hash_one(key), number, |&other| hash(state, other));
    }

    /// Forgets the number of the thing that equals `key`, and returns it.
    pub(crate) fn remove<K: Hash + ?Sized>(&mut self, key: &K, is: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.numbers.find_entry(self.state.hash_one(key), |&number| is(number)).ok()?;
        Some(found.remove().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, btree_map::Entry};

    proptest! {
        /// It finds what a map finds, however often it grew and whatever was removed.
        #[test]
        fn finds_what_a_map_finds(changes in prop::collection::vec((any::<bool>(), "[a-d]{1,3}"), 0..200)) {
            let (mut index, mut map, mut names) = (Index::new(7), BTreeMap::new(), Vec::<String>::new());
            for (comes, name) in changes {
                if !comes {
                    let removed = index.remove(name.as_str(), |number| names[number as usize] == name);
                    prop_assert_eq!(removed, map.remove(&name));
                } else if let Entry::Vacant(place) = map.entry(name.clone()) {
                    let number = names.len() as u32;
                    names.push(name.clone());
                    index.insert(name.as_str(), number, |state, other| state.hash_one(names[other as usize].as_str()));
                    place.insert(number);
                }
                prop_assert_eq!(index.is_empty(), map.is_empty());
                for (number, name) in names.iter().enumerate() {
                    let found = index.get(name.as_str(), |other| names[other as usize] == *name);
                    prop_assert_eq!(found, map.get(name).copied(), "{} {}", number, name);
                }
            }
        }
    }
}
