//! A hub for Server-Sent Events to embed: an ordered log with readers.
//!
//! Applications publish events to topics; any number of browsers, apps and services receive them over plain `text/event-stream`,
//! live and after every reconnect. Publishing appends to a log, delivery follows it, and every subscriber is a cursor with a filter.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use tidings::{Event, Hub, Subscription, TopicMatcher};
//! let hub = Hub::new()?;
//! let mut events = hub.subscribe(Subscription::new(TopicMatcher::prefix("chat")?)).await?;
//! hub.publish(Event::new("chat/room-1", "hello")?).await?;
//! assert_eq!(events.next().await.expect("the hub runs")?.data, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod auth;
mod config;
mod delivery;
mod fetch;
mod http;
mod hub;
mod replay;
#[cfg(feature = "server")]
pub mod serve;
mod store;
mod telemetry;

/// Tokens for tools and tests: making them, looking into them, and asking why a hub accepts one or does not.
pub mod token {
    pub use crate::auth::{Explanation, Finding, Question, SigningKey, decode, explain};
}

pub use self::http::{HubService, PeerAddr, Refusal, ResponseBody};
pub use config::{
    AfterGap, AgeSpread, Algorithm, Config, Dialects, EndStyle, Family, HeartbeatForm, Issuer, Keep, KeySource, LagPolicy, PrefixRule,
    Secret, TokenKey,
};
pub use delivery::{Aborted, EventBody, EventStream};
pub use hub::{
    Cursor, Granted, Hub, HubBuilder, IdempotencyKey, KeyError, Opened, PublishError, StartError, SubscribeError, Subscription, TopicInfo,
};
pub use store::{
    Bounds, DiskOptions, DiskStore, Durability, EventStore, Finding, Follower, KeyWindow, LogDirectory, LogReport, MemoryStore,
    MissingReport, NewEpoch, Once, OnceKey, OpenError, PageJob, PageLimits, Promises, SegmentReport, StoreError, StoreFuture, StoreReport,
    Verified,
};
pub use tidings_core::{
    BaseError, Draft, Drafts, Epoch, Event, EventError, EventId, Filter, GapReason, Grant, Item, Matchers, Message, Parser, PatternError,
    Position, Record, Topic, TopicError, TopicMatcher, UrlPatterns, limits, moment, shard::Page, wire,
};
