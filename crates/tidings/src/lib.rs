//! A hub for Server-Sent Events to embed: an ordered log with readers.

mod auth;
mod config;
mod delivery;
mod http;
mod hub;

pub use self::http::{HubService, PeerAddr, Refusal, ResponseBody};
pub use config::{AfterGap, Config, EndStyle, LagPolicy, PrefixRule};
pub use delivery::{Aborted, EventBody, EventStream};
pub use hub::{Cursor, Granted, Hub, Opened, PublishError, SubscribeError, Subscription, TopicInfo};
pub use tidings_core::{Event, EventError, EventId, Grant, Item, Matchers, Message, Parser, Topic, TopicError, TopicMatcher, limits, wire};
