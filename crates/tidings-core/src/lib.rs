//! The pure rules of the Tidings hub: events and topics that are valid by construction, matching, the `text/event-stream` wire
//! format, the window of recent events, and the shard that decides who is sent what and when.
//!
//! Nothing here reads a clock, opens a socket or a file, starts a thread or needs a runtime. Time and bytes are arguments, so one seed
//! replays a whole hub. Applications use the crate `tidings`, which drives these rules and re-exports what they need.

pub mod limits;
pub mod moment;

mod event;
mod feed;
mod grant;
mod heads;
mod ids;
mod index;
mod matcher;
mod names;
mod parser;
mod pattern;
mod position;
pub mod presence;
mod record;
mod routes;
pub mod shard;
mod template;
mod text;
mod topic;
mod topics;
mod window;
pub mod wire;

pub use event::{Event, EventError};
pub use feed::{FeedKey, Filter};
pub use grant::Grant;
pub use ids::IdForm;
pub use matcher::{Key, Matchers, TopicMatcher};
pub use parser::{Item, Message, Parser, TooLong};
pub use pattern::{BaseError, PatternError, UrlPatterns};
pub use position::{Epoch, EventId, Position};
pub use record::{Draft, Drafts, Record, View};
pub use routes::found_by_index;
pub use topic::{Topic, TopicError};
pub use topics::{KnownTopics, Topics};
pub use window::{Evicted, Window};
pub use wire::{Framing, GapReason};
