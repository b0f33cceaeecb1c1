//! Ways to break a shard from outside: one thing it says or is told is changed on the way, once. The model knows nothing of it and has
//! to notice.

use super::rng::Rng;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fault {
    /// An event the shard wrote never reaches the socket.
    DropEvent,
    /// An event reaches it twice.
    RepeatEvent,
    /// A start that lost nothing is announced as a gap.
    InventGapAtStart,
    /// A page that lost nothing is announced as a gap.
    InventGapInPage,
    /// A start that lost something is not announced.
    ForgetGapAtStart,
    /// A page that lost something is not announced.
    ForgetGapInPage,
}

pub(crate) struct Sabotage {
    fault: Option<Fault>,
    /// Opportunities that are let pass first.
    patience: u64,
}

impl Sabotage {
    pub(crate) fn new(fault: Option<Fault>, rng: &mut Rng) -> Sabotage {
        Sabotage { fault, patience: rng.below(8) }
    }

    /// Whether this opportunity is the one.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        if self.fault != Some(fault) {
            return false;
        }
        if self.patience > 0 {
            self.patience -= 1;
            return false;
        }
        self.fault = None;
        true
    }

    pub(crate) fn has_struck(&self) -> bool {
        self.fault.is_none()
    }
}
