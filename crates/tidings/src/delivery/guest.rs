//! Subscribers that somebody keeps a list of: told when their shard has taken them over, and when it has let them go, however that came.
//!
//! It knows neither what the list is for nor who is on it.

use tidings_core::shard::{NewSubscriber, SubscriberId};

/// Somebody's interest in one subscriber. It is dropped when the subscriber has gone; also when it never came.
pub(crate) trait Guest: Send + Sync {
    /// The shard has taken the subscriber over: every event from now on is for it. Called once, on the shard's thread.
    fn arrived(&mut self);
}

/// A subscriber on its way to a shard.
pub(crate) struct Arrival {
    pub(crate) new: Box<NewSubscriber>,
    pub(crate) guest: Option<Box<dyn Guest>>,
}

impl From<NewSubscriber> for Arrival {
    fn from(new: NewSubscriber) -> Arrival {
        Arrival { new: Box::new(new), guest: None }
    }
}

/// The guests of a shard. A table beside that of the connections, for most of those have none.
#[derive(Default)]
pub(super) struct Guests(std::collections::HashMap<usize, (SubscriberId, Box<dyn Guest>)>);

impl Guests {
    pub(super) fn arrived(&mut self, id: SubscriberId, mut guest: Box<dyn Guest>) {
        guest.arrived();
        self.0.insert(id.index(), (id, guest));
    }

    pub(super) fn gone(&mut self, id: SubscriberId) {
        if self.0.get(&id.index()).is_some_and(|(of, _)| *of == id) {
            self.0.remove(&id.index());
        }
    }

    pub(super) fn all_gone(&mut self) {
        self.0.clear();
    }
}
