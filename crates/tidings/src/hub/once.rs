//! Publishing once (N-6): keys as publishers write them, and the digests by which a store knows them and what came with them.
//!
//! It knows keys, scopes and events; how long a key counts, and what came with it first, is the store's.

use super::{Granted, Hub, PublishError};
use crate::store::OnceKey;
use sha2::{Digest, Sha256};
use std::{borrow::Cow, fmt};
use tidings_core::{Event, EventId, Grant, limits};

/// A key under which something is published once: who comes again with the same key and content gets the ids of the first time.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use tidings::{Event, Hub, IdempotencyKey};
/// let hub = Hub::new()?;
/// let key = IdempotencyKey::new("order-42-shipped")?;
/// let first = hub.publish_once(&key, vec![Event::new("orders/42", "shipped")?]).await?;
/// let again = hub.publish_once(&key, vec![Event::new("orders/42", "shipped")?]).await?;
/// assert_eq!(first, again);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IdempotencyKey(Box<str>);

/// Why a text is not a key. The texts tell the publisher what to change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing in it.
    #[error("an idempotency key must not be empty; use a random UUID, or what names the request on your side")]
    Empty,
    /// Over [`limits::IDEMPOTENCY_KEY`].
    #[error("an idempotency key may have at most {limit} bytes, this one has {0}", limit = limits::IDEMPOTENCY_KEY)]
    TooLong(usize),
}

impl IdempotencyKey {
    /// Any text of 1 to [`limits::IDEMPOTENCY_KEY`] bytes; compared byte for byte.
    pub fn new(text: impl Into<String>) -> Result<IdempotencyKey, KeyError> {
        let text = text.into();
        match text.len() {
            0 => Err(KeyError::Empty),
            1..=limits::IDEMPOTENCY_KEY => Ok(IdempotencyKey(text.into())),
            len => Err(KeyError::TooLong(len)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a store keeps: digests, so that a key costs the same whatever its length and whoever sent it.
    pub(super) fn digest<D: AsRef<str>>(&self, scope: &str, events: &[Event<D>]) -> OnceKey {
        let mut name = Digested(Sha256::new());
        name.text(scope);
        name.text(&self.0);
        let [name, _] = name.halves();
        OnceKey { name, request: request(events) }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest of values that are told apart by their lengths.
struct Digested(Sha256);

impl Digested {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn halves(self) -> [[u8; 16]; 2] {
        let digest: [u8; 32] = self.0.finalize().into();
        let (first, second) = digest.split_at(16);
        [first, second].map(|half| std::array::from_fn(|at| half[at]))
    }
}

/// SHA-256 of what was parsed: two requests that say the same in other bytes are the same. It is kept on disk, so another form of it would
/// make every retry over an update one with other content.
fn request<D: AsRef<str>>(events: &[Event<D>]) -> [u8; 32] {
    let mut digest = Digested(Sha256::new());
    digest.number(events.len() as u64);
    for event in events {
        digest.number(event.topics().len() as u64);
        for topic in event.topics() {
            digest.text(topic.as_str());
        }
        digest.text(event.data());
        // Neither can be empty, so nothing stands for itself.
        digest.text(event.event_type().unwrap_or_default());
        digest.text(event.id().unwrap_or_default());
        digest.number(event.retry().map_or(u64::MAX, u64::from));
        digest.number(event.is_private().into());
    }
    digest.0.finalize().into()
}

impl Hub {
    /// Publishes events as one append with full rights, once for all who come with this key (N-6); see [`Granted::publish_once`].
    pub async fn publish_once(&self, key: &IdempotencyKey, events: Vec<Event>) -> Result<Vec<EventId>, PublishError> {
        self.with(Grant::full()).publish_once(key, events).await
    }
}

impl Granted {
    /// The same handle with a scope in which its keys count: two clients with different scopes may use the same key for different things.
    #[must_use]
    pub fn in_scope(self, scope: impl Into<Cow<'static, str>>) -> Granted {
        Granted { scope: scope.into(), ..self }
    }

    /// Publishes several as one append, once (N-6): while the key counts, the same key and content answer the same ids and publish nothing
    /// again, even after the events themselves were removed; the same key with other content is refused. Who comes while the first is under
    /// way waits for it. A publish that failed leaves no key behind. How long and how many keys count is set by
    /// [`crate::Config::idempotency_window`] and [`crate::Config::idempotency_keys`], or with a store of one's own by that store.
    pub async fn publish_once(&self, key: &IdempotencyKey, events: Vec<Event>) -> Result<Vec<EventId>, PublishError> {
        self.publish_as(events, Some(key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, data: &str) -> Event {
        Event::new(topic, data).unwrap()
    }

    /// N-6: whatever differs in a request is another request, and nothing runs into its neighbour.
    #[test]
    fn digests() {
        let requests = [
            vec![event("t", "d")],
            vec![event("t", "d"), event("t", "d")],
            vec![event("td", "")],
            vec![event("t", "d").with_topic("u").unwrap()],
            vec![event("t", "d").with_type("x").unwrap()],
            vec![event("t", "d").with_id("x").unwrap()],
            vec![event("t", "d").with_retry(0).unwrap()],
            vec![event("t", "d").private()],
            vec![event("t", "d\n")],
        ];
        for (at, one) in requests.iter().enumerate() {
            for (other_at, other) in requests.iter().enumerate() {
                assert_eq!(request(one) == request(other), at == other_at, "{one:?} and {other:?}");
            }
        }
        let key = |text: &str| IdempotencyKey::new(text).unwrap();
        let name = |scope: &str, text: &str| key(text).digest(scope, &requests[0]).name;
        assert_eq!(name("a", "b"), name("a", "b"));
        for (scope, text) in [("", "ab"), ("ab", "c"), ("b", "a"), ("a", "b ")] {
            assert_ne!(name("a", "b"), name(scope, text));
        }
        // It is on disk: a release that digests otherwise would take every retry over an update for other content.
        let digest = key("k").digest("publish", &requests[0]);
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hex(&digest.name), "20c618b78764c996307f0894d0b18620");
        assert_eq!(hex(&digest.request), "c6472c94e308bea67bee4d963ca843a32ce7733d84190f42d351dedd126a4ec6");
    }

    #[test]
    fn keys() {
        assert_eq!(IdempotencyKey::new("").unwrap_err(), KeyError::Empty);
        assert!(IdempotencyKey::new("x".repeat(limits::IDEMPOTENCY_KEY)).is_ok());
        assert_eq!(IdempotencyKey::new("x".repeat(257)).unwrap_err(), KeyError::TooLong(257));
    }
}
