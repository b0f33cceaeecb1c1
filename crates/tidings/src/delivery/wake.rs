//! How publishers wake a shard that sleeps, and only one that somebody has subscribed to what they publish.
//!
//! A lost wake-up would be an event that stays where it is until something else happens, so the protocol is this one small file, and
//! `tests/wake.rs` runs it through every interleaving. It knows counters and flags, neither events nor threads.
//!
//! Both sides write, pass a full fence, and read what the other has written: at least one of them sees the other. The publisher writes the
//! head and reads interest and flag; the shard writes interest and flag and reads the head.

use super::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// Whether a shard's thread blocks.
#[derive(Debug)]
pub(super) struct Bell {
    asleep: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Bell {
        Bell { asleep: AtomicBool::new(false) }
    }

    /// The shard is about to block; `idle` looks once more whether there is nothing to do. It may block if this is true.
    pub(super) fn may_sleep(&self, idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        idle()
    }

    /// The shard goes on.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Something was handed over; true if the shard has to be woken for it, which is then the caller's to do. Who finds it awake may leave
    /// it alone: it looks again before it sleeps.
    pub(super) fn ring(&self, concerns: impl FnOnce() -> bool) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && concerns() && self.asleep.swap(false, Ordering::Relaxed)
    }
}

/// What somebody has subscribed to, as a word that costs nothing to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Every topic.
    All,
    /// One topic, by the hash of its name.
    Exact(u64),
    /// A topic and what lies below it, by the hash of its name.
    Prefix(u64),
    /// Topics that begin alike: which of [`HEADS`] bytes, and their hash.
    Head(usize, u64),
}

/// Of what topics begin with only so many bytes are looked at: the most of these that there are.
pub(super) const HEADS: [usize; 8] = [8, 16, 24, 32, 40, 48, 56, 64];

/// What a shard's subscribers have asked for: counted by hash, so that two that collide cost a needless waking and nothing else.
#[derive(Debug)]
pub(super) struct Interest {
    /// A power of two of them.
    counts: Box<[AtomicU32]>,
    all: AtomicU32,
    prefixes: AtomicU32,
    heads: [AtomicU32; HEADS.len()],
    /// Words of every kind.
    words: AtomicU32,
}

impl Interest {
    pub(super) fn new(counts: usize) -> Interest {
        assert!(counts.is_power_of_two(), "hashes are cut to a number of bits");
        let counts = (0..counts).map(|_| AtomicU32::new(0)).collect();
        let heads = std::array::from_fn(|_| AtomicU32::new(0));
        Interest { counts, all: AtomicU32::new(0), prefixes: AtomicU32::new(0), heads, words: AtomicU32::new(0) }
    }

    fn count(&self, hash: u64) -> &AtomicU32 {
        &self.counts[hash as usize & (self.counts.len() - 1)]
    }

    /// By the shard alone, before it looks for events the last time before it sleeps.
    pub(super) fn add(&self, word: Word) {
        self.words.fetch_add(1, Ordering::Relaxed);
        match word {
            Word::All => self.all.fetch_add(1, Ordering::Relaxed),
            Word::Exact(hash) => self.count(hash).fetch_add(1, Ordering::Relaxed),
            Word::Prefix(hash) => {
                self.prefixes.fetch_add(1, Ordering::Relaxed);
                self.count(hash).fetch_add(1, Ordering::Relaxed)
            }
            Word::Head(which, hash) => {
                self.heads[which].fetch_add(1, Ordering::Relaxed);
                self.count(hash).fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    /// By the shard alone, once for each [`Interest::add`].
    pub(super) fn remove(&self, word: Word) {
        self.words.fetch_sub(1, Ordering::Relaxed);
        match word {
            Word::All => self.all.fetch_sub(1, Ordering::Relaxed),
            Word::Exact(hash) => self.count(hash).fetch_sub(1, Ordering::Relaxed),
            Word::Prefix(hash) => {
                self.count(hash).fetch_sub(1, Ordering::Relaxed);
                self.prefixes.fetch_sub(1, Ordering::Relaxed)
            }
            Word::Head(which, hash) => {
                self.count(hash).fetch_sub(1, Ordering::Relaxed);
                self.heads[which].fetch_sub(1, Ordering::Relaxed)
            }
        };
    }

    /// Forgets everything: for a shard that is made anew.
    pub(super) fn clear(&self) {
        for count in self.counts.iter().chain(&self.heads).chain([&self.all, &self.prefixes, &self.words]) {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Whether nothing was asked for, so that no word need be made.
    pub(super) fn is_empty(&self) -> bool {
        self.words.load(Ordering::Relaxed) == 0
    }

    /// Whether a word was asked for.
    pub(super) fn wants(&self, word: Word) -> bool {
        match word {
            Word::All => self.all.load(Ordering::Relaxed) > 0,
            Word::Exact(hash) => self.count(hash).load(Ordering::Relaxed) > 0,
            Word::Prefix(hash) => self.wants_prefixes() && self.count(hash).load(Ordering::Relaxed) > 0,
            Word::Head(which, hash) => self.wants_heads(which) && self.count(hash).load(Ordering::Relaxed) > 0,
        }
    }

    /// Whether any prefix was asked for, so that a topic's need not be looked at otherwise.
    pub(super) fn wants_prefixes(&self) -> bool {
        self.prefixes.load(Ordering::Relaxed) > 0
    }

    /// Whether any beginning of so many bytes was asked for.
    pub(super) fn wants_heads(&self, which: usize) -> bool {
        self.heads[which].load(Ordering::Relaxed) > 0
    }
}
