//! The hub: publish, subscribe, shut down, and the handle that carries rights.

use crate::{AfterGap, Config, EndStyle, EventBody, EventStream, LagPolicy};
use std::{sync::Arc, time::Duration};
use tidings_core::{Event, EventId, Grant, Matchers, Topic};

/// A running hub. Clones are handles to the same hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {}

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
    /// Delivery cannot keep up; try again (503 with `Retry-After`).
    #[error("the hub is overloaded: delivery has not kept up for {} s; try again later", .0.as_secs())]
    Overloaded(Duration),
    /// The hub is shutting down (503).
    #[error("the hub is shutting down")]
    ShuttingDown,
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
}

/// Where a stream starts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cursor {
    /// From now.
    Live,
    /// Everything that is kept.
    Earliest,
    /// After the event with this id: as a client sent it, minted (with or without `#`) or a publisher's.
    After(String),
}

/// What to subscribe to, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// The topics.
    pub matchers: Matchers,
    /// Where to start.
    pub cursor: Cursor,
    /// Whether events name their topics (`topics` field lines, N-13b).
    pub topics_field: bool,
    /// Priming (N-13a); `None` is the hub's setting for these topics.
    pub prime: Option<bool>,
    /// How a planned end ends (N-17); `None` is the hub's setting.
    pub end: Option<EndStyle>,
    /// What follows a gap (N-14); `None` is the hub's setting.
    pub after_gap: Option<AfterGap>,
    /// What happens when the reader falls too far behind; `None` is the hub's setting.
    pub lag_policy: Option<LagPolicy>,
}

/// An opened stream of wire bytes, and what the response header has to say about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The bytes, from the first comment on.
    pub body: EventBody,
    /// With a cursor: where the stream really starts, an id or `earliest` (M-91, M-92). `None` without a cursor.
    pub starts_after: Option<String>,
}

/// The hub as seen by a client with certain rights.
#[derive(Clone, Debug)]
pub struct Granted {
    hub: Hub,
    grant: Grant,
}

/// A topic as [`Granted::topic`] reports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic.
    pub topic: Topic,
    /// Subscribers who would receive an event published to it now.
    pub subscribers: u64,
    /// Id of its newest kept event.
    pub last_event_id: Option<EventId>,
}

impl Hub {
    /// A hub with the rights of `grant` in front of it: what HTTP uses.
    pub fn with(&self, grant: Grant) -> Granted {
        Granted { hub: self.clone(), grant }
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        todo!()
    }

    /// Whether it takes publishes and subscriptions: false while draining.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// Subscribers now.
    pub fn subscribers(&self) -> u64 {
        todo!()
    }

    /// The metrics as Prometheus text.
    pub fn metrics(&self) -> String {
        todo!()
    }

    /// Ends all streams, spread over `config.drain_spread` but within `deadline`, and refuses new ones. Never hangs.
    pub async fn shut_down(&self, deadline: Duration) {
        todo!("{deadline:?}")
    }
}

impl Granted {
    /// The hub behind.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Publishes one event.
    pub async fn publish(&self, event: Event) -> Result<EventId, PublishError> {
        todo!("{event:?}")
    }

    /// Publishes several as one append: all or none.
    pub async fn publish_batch(&self, events: Vec<Event>) -> Result<Vec<EventId>, PublishError> {
        todo!("{events:?}")
    }

    /// Opens a stream of wire bytes.
    pub async fn open(&self, subscription: Subscription) -> Result<Opened, SubscribeError> {
        todo!("{subscription:?}")
    }

    /// Opens a stream of events.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<EventStream, SubscribeError> {
        todo!("{subscription:?}")
    }

    /// What is known of a topic (N-20).
    pub async fn topic(&self, topic: &Topic) -> TopicInfo {
        todo!("{topic}")
    }

    /// The topics of kept events in byte order, after `after`, at most `limit` (N-20).
    pub async fn topics(&self, after: Option<&str>, limit: usize) -> Vec<TopicInfo> {
        todo!("{after:?} {limit}")
    }
}

impl Subscription {
    /// Live, with the hub's settings.
    pub fn new(matchers: impl Into<Matchers>) -> Self {
        Subscription {
            matchers: matchers.into(),
            cursor: Cursor::Live,
            topics_field: false,
            prime: None,
            end: None,
            after_gap: None,
            lag_policy: None,
        }
    }
}
