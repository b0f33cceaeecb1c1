//! Room for the log: how many bytes all of it may take, how near it is to that, and a writer who waits until some came back.
//!
//! It knows sizes, not what is in a segment. What goes, and how, is the keeper's.

use super::{aside::ASIDE, log::Log};
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tidings_core::limits;

/// How full a log is, and so how much of a segment has to be dead for it to be rewritten: with less that is free, more is written for each
/// byte that comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fill {
    /// All classes together take no more than all of them may.
    Within,
    /// They take more.
    Above,
    /// They take so much more that the writer waits.
    Full,
}

impl Fill {
    /// How many of a segment's bytes of events have to be dead. What is left of them when the log is full is less than
    /// [`limits::LOG_OVER`] of what is alive, so rewriting always gets there.
    pub(super) fn least(self, written: u64) -> u64 {
        match self {
            Fill::Within => written - written / 2,
            Fill::Above => written / 4,
            Fill::Full => written / 16,
        }
    }
}

/// Where the writer and the keeper meet.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The writer waited in vain: the log must not take more than this, whatever has to go.
    demanded: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Room {
    fn demand(&self) -> MutexGuard<'_, Option<u64>> {
        self.demanded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn demanded(&self) -> Option<u64> {
        *self.demand()
    }

    /// As much was done about a demand as can be.
    pub(super) fn settle(&self) {
        *self.demand() = None;
    }

    /// There may be room by now.
    pub(super) fn tell(&self) {
        drop(self.demand());
        self.changed.notify_all();
    }
}

/// Bytes that finished segments may take beside what classes may: `most`, and a part of it for what is dead in segments that are mostly alive.
fn full(most: u64) -> u64 {
    most.saturating_add(most / limits::LOG_OVER)
}

impl Log {
    /// Bytes of the files of finished segments, but for the one that stands aside.
    pub(super) fn taken(&self) -> u64 {
        let view = self.view();
        view.segments.iter().filter(|segment| segment.header.serial & ASIDE == 0).map(|segment| segment.taken()).sum()
    }

    /// Bytes that all classes together may take, and what they keep beside that because it is the latest of its kind.
    pub(super) fn most(&self) -> u64 {
        let latest = if self.rules.has_latest() { self.latest().bytes() } else { 0 };
        self.rules.classes().iter().fold(latest, |sum, class| sum.saturating_add(class.limits.bytes))
    }

    pub(super) fn fill(&self) -> Fill {
        let (taken, most) = (self.taken(), self.most());
        let active = self.view().active.as_ref().map_or(0, |active| active.len);
        match () {
            () if taken > full(most) => Fill::Full,
            () if taken + active > most => Fill::Above,
            () => Fill::Within,
        }
    }

    /// What finished segments may take at the most.
    pub(super) fn bound(&self) -> u64 {
        full(self.most())
    }

    /// Waits until there is room for another segment, and says what is taken then. A log that takes more than it may, because it was allowed
    /// more before or was killed over and over, must not grow: when the last segment was begun it took `before`. After so long the writer goes
    /// on all the same, and the keeper is told to remove what it takes.
    pub(super) fn wait_for_room(&self, before: u64, patience: Duration) -> u64 {
        let until = Instant::now() + patience;
        let mut demanded = self.room.demand();
        loop {
            let (taken, bound) = (self.taken(), self.bound().max(before));
            if taken <= bound {
                return taken;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    bytes = taken,
                    bound,
                    "the log could not be rewritten as fast as it is written; its oldest part goes as a whole"
                );
                *demanded = Some(bound);
                return bound;
            }
            demanded = self.room.changed.wait_timeout(demanded, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However little of each segment may be dead, all of them together are within the bound.
    #[test]
    fn rewriting_is_enough() {
        for most in [1u64 << 10, 11 << 20, 1 << 40] {
            let dead = Fill::Full.least(16 * 1_000_000);
            assert!(u128::from(most) * 16_000_000 / u128::from(16_000_000 - dead) < u128::from(full(most)));
        }
        assert_eq!(full(u64::MAX), u64::MAX);
    }
}
