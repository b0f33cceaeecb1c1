//! The Mercure protocol at `/.well-known/mercure`.

pub(super) mod subscriptions;
