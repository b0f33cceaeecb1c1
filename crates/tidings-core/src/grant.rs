//! What a client may publish and receive: a value that every handle carries, so that permission cannot be forgotten.
//!
//! It knows rights, not how they were proved: tokens, keys and cookies end where a grant begins.

use crate::{Matchers, Topic};

/// The rights of one client.
///
/// ```
/// use tidings_core::{Grant, Topic};
/// let news = Topic::parse("news")?;
/// assert!(Grant::full().may_publish(&[news.clone()]));
/// assert!(!Grant::none().may_publish(&[news]));
/// # Ok::<(), tidings_core::TopicError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Topics that may be published to.
    pub publish: Matchers,
    /// Whether public events may be received.
    pub read_public: bool,
    /// Topics whose private events may be received (M-81).
    pub read_private: Matchers,
    /// When the rights end, in milliseconds since 1970; streams end before it (M-82). `None` is never.
    pub expires_at: Option<u64>,
}

impl Grant {
    /// Everything, for ever: the rights of the process that embeds the hub.
    pub fn full() -> Self {
        Grant { publish: Matchers::all(), read_public: true, read_private: Matchers::all(), expires_at: None }
    }

    /// Open access: publish anything, receive what is public. Private events go to nobody without a grant of their own (N-32).
    pub fn open() -> Self {
        Grant { publish: Matchers::all(), read_public: true, read_private: Matchers::none(), expires_at: None }
    }

    /// Receive what is public, publish nothing.
    pub fn reader() -> Self {
        Grant { publish: Matchers::none(), ..Grant::open() }
    }

    /// Nothing at all.
    pub fn none() -> Self {
        Grant { read_public: false, ..Grant::reader() }
    }

    /// The same rights, ending at a time in milliseconds since 1970.
    #[must_use]
    pub fn until(self, expires_at: u64) -> Self {
        Grant { expires_at: Some(expires_at), ..self }
    }

    /// Whether an event with these topics may be published: each of them must be granted (M-80).
    pub fn may_publish(&self, topics: &[Topic]) -> bool {
        topics.iter().all(|topic| self.publish.matches(topic))
    }
}
