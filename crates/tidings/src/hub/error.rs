//! What can go wrong with a hub, one type for each thing asked of it. It knows reasons, not statuses.

use crate::{Aborted, StoreError};
use std::time::Duration;
use tidings_core::Topic;

/// Why a hub could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The hub's tasks need a tokio runtime to run on.
    #[error("a hub is started inside a tokio runtime; call this from an async function or after `Runtime::enter`")]
    NoRuntime,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    NoRandomness(String),
    /// The system gives no thread or no means to wait for sockets.
    #[error("a shard could not be started: {0}; raise the limits on threads and open files, or lower `shards`")]
    NoThreads(std::io::Error),
    /// A setting contradicts itself or another.
    #[error("setting `{name}`: {problem}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// Why a publish was refused; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The grant does not cover one of the topics (403).
    #[error("publishing to topic {0:?} is not granted")]
    Forbidden(Topic),
    /// The data is over the hub's setting (413).
    #[error(
        "the data of an event may have at most {limit} bytes here, this has {len}; publish a link to it instead, or raise `event_data`"
    )]
    DataTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The batch would not fit into memory beside what is kept (413).
    #[error("a batch may have at most {events} events and {bytes} bytes here; split it")]
    BatchTooLarge {
        /// Events allowed.
        events: usize,
        /// Bytes allowed.
        bytes: usize,
    },
    /// Delivery cannot keep up; try again (503 with `Retry-After`).
    #[error("the hub is overloaded: delivery has not kept up for {} s; try again later", .0.as_secs())]
    Overloaded(Duration),
    /// The hub is shutting down (503).
    #[error("the hub is shutting down")]
    ShuttingDown,
    /// The idempotency key came with other content before (422, N-6).
    #[error("this idempotency key was used with other content; use a new key for new content")]
    KeyReused,
    /// The store could not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a subscription was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The hub is draining (soft refusal, N-16).
    #[error("the hub is shutting down")]
    ShuttingDown,
    /// The grant has expired (401).
    #[error("the grant has expired")]
    Expired,
    /// There are as many subscriptions as presence can tell of (soft refusal, N-16).
    #[error("there are as many subscriptions as presence can tell of")]
    TooMany,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A broken-off stream is what an application sees of a reader that fell behind; both ways of reading say it alike.
impl From<Aborted> for std::io::Error {
    fn from(aborted: Aborted) -> Self {
        std::io::Error::new(std::io::ErrorKind::ConnectionAborted, aborted)
    }
}
