//! Events as they are published, valid by construction (N-1a): nothing that could break the framing or forge the hub's own events
//! can be put into one.
//!
//! It does not know how an event is written on the wire, nor which place in the log it gets.

use crate::{KnownTopics, Topic, Topics, limits, text, topic::TopicError};

/// Something published: one or more topics, data, and optionally a type, an id, a reconnection time and the private flag.
///
/// ```
/// use tidings_core::Event;
/// let event = Event::new("orders/42", r#"{"state":"shipped"}"#)?.with_type("order")?;
/// assert_eq!(event.topics()[0].as_str(), "orders/42");
/// assert!(Event::new("orders/42", "x")?.with_type("line\nbreak").is_err());
/// # Ok::<(), tidings_core::EventError>(())
/// ```
///
/// The data may be borrowed: then nothing of it is copied before it is encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_field_names, reason = "`type` is a keyword, and the field's name on the wire")]
pub struct Event<D = String> {
    topics: Topics,
    data: D,
    event_type: Option<Box<str>>,
    id: Option<Box<str>>,
    retry: Option<u32>,
    private: bool,
}

/// Why something is not an event. Texts tell the publisher what to change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A topic is not one.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// More topics than any door allows.
    #[error("an event may have at most {} topics, this one has more", limits::TOPICS_PER_EVENT_MAX)]
    TooManyTopics,
    /// Data over the highest limit any hub may set.
    #[error("the data of an event may have at most {limit} bytes, this has {len}; publish a link to it instead")]
    DataTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The data is not text.
    #[error("the data of an event must be valid UTF-8; encode binary data, for example with base64")]
    DataNotUtf8,
    /// An event type with a control or format character (M-46).
    #[error("an event type must not contain control or format characters, this one has U+{c:04X}", c = *.0 as u32)]
    TypeHidden(char),
    /// An event type that belongs to the hub (M-46, S-7).
    #[error("event types beginning with `tidings.` and the type `mercure` belong to the hub; choose another type")]
    TypeReserved,
    /// An event type over [`limits::EVENT_TYPE`].
    #[error("an event type may have at most {limit} bytes, this one has {0}", limit = limits::EVENT_TYPE)]
    TypeTooLong(usize),
    /// An id with a control or format character (M-43).
    #[error("an id must not contain control or format characters, this one has U+{c:04X}", c = *.0 as u32)]
    IdHidden(char),
    /// An id that the hub could mint, or that means a place (M-43).
    #[error("an id must not begin with `#` and must not be `earliest`: those are the hub's; choose another id or leave it out")]
    IdReserved,
    /// An id that a header would not carry back unchanged.
    #[error("an id must not begin or end with a space: clients send it back in a header, where it would be trimmed")]
    IdSpace,
    /// An id over [`limits::EVENT_ID`].
    #[error("an id may have at most {limit} bytes, this one has {0}", limit = limits::EVENT_ID)]
    IdTooLong(usize),
    /// `retry` is not a number of milliseconds (M-47).
    #[error("`retry` must be a whole number of milliseconds from 0 to {} in digits", limits::RETRY_MS)]
    Retry,
}

impl EventError {
    /// Whether a size limit was broken (413) rather than a rule (400).
    pub fn is_size(&self) -> bool {
        use EventError::{DataTooLong, IdTooLong, TooManyTopics, Topic, TypeTooLong};
        matches!(self, DataTooLong { .. } | TypeTooLong(_) | IdTooLong(_) | TooManyTopics | Topic(TopicError::TooLong(_)))
    }
}

impl Event {
    /// An event for one topic. Line ends in the data (CR, LF, CRLF) reach readers as LF (S-6).
    pub fn new(topic: &str, data: impl Into<String>) -> Result<Event, EventError> {
        Event::on(Topics::new(topic)?, data)
    }

    /// The same for topics that were checked before, perhaps for another event.
    pub fn on(topics: Topics, data: impl Into<String>) -> Result<Event, EventError> {
        Event::with_data(topics, data.into())
    }

    /// A private event of the hub's own, in its own namespace.
    pub(crate) fn of_hub(topics: Topics, event_type: Option<&str>, data: String) -> Event {
        Event { topics, data, event_type: event_type.map(Into::into), id: None, retry: None, private: true }
    }
}

impl<D: AsRef<str>> Event<D> {
    /// An event for topics that were checked before, with data of any kind, borrowed perhaps.
    pub fn with_data(topics: Topics, data: D) -> Result<Self, EventError> {
        let len = data.as_ref().len();
        if len > limits::EVENT_DATA_MAX {
            return Err(EventError::DataTooLong { len, limit: limits::EVENT_DATA_MAX });
        }
        Ok(Event { topics, data, event_type: None, id: None, retry: None, private: false })
    }

    /// One more topic: an alternate. Whoever asked for any of an event's topics receives it once (M-2).
    pub fn with_topic(mut self, topic: &str) -> Result<Self, EventError> {
        self.topics = self.topics.with(topic)?;
        Ok(self)
    }

    /// The event type that `addEventListener` names; empty is none, which clients see as `message` (S-11).
    pub fn with_type(mut self, event_type: &str) -> Result<Self, EventError> {
        if event_type.len() > limits::EVENT_TYPE {
            return Err(EventError::TypeTooLong(event_type.len()));
        }
        if let Some(c) = text::first_hidden(event_type) {
            return Err(EventError::TypeHidden(c));
        }
        if event_type == "mercure" || event_type.starts_with("tidings.") {
            return Err(EventError::TypeReserved);
        }
        self.event_type = Some(event_type).filter(|t| !t.is_empty()).map(Into::into);
        Ok(self)
    }

    /// An id of the publisher's own instead of the one the hub mints; empty is none. It is kept and compared byte for byte (M-43).
    pub fn with_id(mut self, id: &str) -> Result<Self, EventError> {
        if id.len() > limits::EVENT_ID {
            return Err(EventError::IdTooLong(id.len()));
        }
        if let Some(c) = text::first_hidden(id) {
            return Err(EventError::IdHidden(c));
        }
        if id.starts_with('#') || id == "earliest" {
            return Err(EventError::IdReserved);
        }
        if id.starts_with(' ') || id.ends_with(' ') {
            return Err(EventError::IdSpace);
        }
        self.id = Some(id).filter(|id| !id.is_empty()).map(Into::into);
        Ok(self)
    }

    /// The reconnection time told to every reader, in milliseconds, at most [`limits::RETRY_MS`].
    pub fn with_retry(mut self, milliseconds: u32) -> Result<Self, EventError> {
        if milliseconds > limits::RETRY_MS {
            return Err(EventError::Retry);
        }
        self.retry = Some(milliseconds);
        Ok(self)
    }

    /// The reconnection time as text: ASCII digits; empty is none (M-47, N-1a).
    pub fn with_retry_text(self, digits: &str) -> Result<Self, EventError> {
        if digits.is_empty() {
            return Ok(self);
        }
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EventError::Retry);
        }
        // Leading zeros are digits too; whatever does not fit 32 bits is over the limit anyway.
        self.with_retry(digits.parse().map_err(|_| EventError::Retry)?)
    }

    /// Only for readers with a grant for one of its topics (M-3).
    #[must_use]
    pub fn private(self) -> Self {
        Event { private: true, ..self }
    }

    /// Lets it share its topics with events that came before.
    #[must_use]
    pub fn sharing(self, known: &KnownTopics) -> Self {
        Event { topics: known.same(self.topics), ..self }
    }

    /// The topics; the first is the canonical one. Never empty, without repeats.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Whether it has the same topics as another; for those that share them without a look at the names.
    pub fn has_topics_of(&self, other: &Self) -> bool {
        self.topics == other.topics
    }

    /// The data as it was given.
    pub fn data(&self) -> &str {
        self.data.as_ref()
    }

    /// The type, if it has one.
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    /// The publisher's id, if it gave one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The reconnection time in milliseconds, if it has one.
    pub fn retry(&self) -> Option<u32> {
        self.retry
    }

    /// Whether it is private.
    pub fn is_private(&self) -> bool {
        self.private
    }

    pub(crate) fn into_topics(self) -> Topics {
        self.topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new("t", "d").unwrap()
    }

    /// N-1a, M-43, S-7: ids of 0 to 10,000 bytes and every forbidden shape.
    #[test]
    fn ids() {
        use EventError::*;
        let table: &[(&str, Result<Option<&str>, EventError>)] = &[
            ("", Ok(None)),
            ("a", Ok(Some("a"))),
            ("urn:uuid:1", Ok(Some("urn:uuid:1"))),
            ("5f3a9c01-000000000000002a", Ok(Some("5f3a9c01-000000000000002a"))),
            ("a b", Ok(Some("a b"))),
            ("a#b", Ok(Some("a#b"))),
            ("é", Ok(Some("é"))),
            ("#a", Err(IdReserved)),
            ("#", Err(IdReserved)),
            ("earliest", Err(IdReserved)),
            (" a", Err(IdSpace)),
            ("a ", Err(IdSpace)),
            ("a\nb", Err(IdHidden('\n'))),
            ("a\rb", Err(IdHidden('\r'))),
            ("a\0b", Err(IdHidden('\0'))),
            ("\u{FEFF}a", Err(IdHidden('\u{FEFF}'))),
        ];
        for (id, expected) in table {
            let got = event().with_id(id).map(|e| e.id().map(str::to_owned));
            assert_eq!(got, expected.clone().map(|id| id.map(str::to_owned)), "{id:?}");
        }
        for len in [1, limits::EVENT_ID] {
            assert!(event().with_id(&"x".repeat(len)).is_ok());
        }
        for len in [limits::EVENT_ID + 1, 10_000] {
            assert_eq!(event().with_id(&"x".repeat(len)), Err(IdTooLong(len)));
            assert!(IdTooLong(len).is_size());
        }
    }

    /// M-46, S-7: nobody but the hub says `tidings.gap`.
    #[test]
    fn types() {
        use EventError::*;
        for ok in ["message", "a", "mercury", "tidings", "Tidings.gap", "tidings-gap", "ünïcode"] {
            assert_eq!(event().with_type(ok).unwrap().event_type(), Some(ok));
        }
        assert_eq!(event().with_type("").unwrap().event_type(), None);
        for (bad, error) in [
            ("tidings.gap", TypeReserved),
            ("tidings.", TypeReserved),
            ("mercure", TypeReserved),
            ("a\nid: 1", TypeHidden('\n')),
            ("a\rb", TypeHidden('\r')),
            ("\0", TypeHidden('\0')),
        ] {
            assert_eq!(event().with_type(bad), Err(error), "{bad:?}");
        }
        assert!(event().with_type(&"x".repeat(limits::EVENT_TYPE)).is_ok());
        assert!(event().with_type(&"x".repeat(limits::EVENT_TYPE + 1)).unwrap_err().is_size());
    }

    /// M-47, N-1a.
    #[test]
    fn retry() {
        for (text, expected) in [("", None), ("0", Some(0)), ("007", Some(7)), ("2147483647", Some(limits::RETRY_MS))] {
            assert_eq!(event().with_retry_text(text).unwrap().retry(), expected);
        }
        for bad in ["2147483648", "99999999999999999999", "-1", "+1", "1.5", " 1", "1s", "٣"] {
            assert_eq!(event().with_retry_text(bad), Err(EventError::Retry), "{bad:?}");
        }
    }

    #[test]
    fn topics_and_sizes() {
        assert_eq!(event().with_topic("t").unwrap().with_topic("u").unwrap().topics().len(), 2);
        let mut many = event();
        for n in 1..limits::TOPICS_PER_EVENT_MAX {
            many = many.with_topic(&n.to_string()).unwrap();
        }
        assert!(many.with_topic("one too many").unwrap_err().is_size());
        assert!(Event::new("t", "x".repeat(limits::EVENT_DATA_MAX)).is_ok());
        assert!(Event::new("t", "x".repeat(limits::EVENT_DATA_MAX + 1)).unwrap_err().is_size());
        assert!(matches!(Event::new("*", ""), Err(EventError::Topic(TopicError::Wildcard))));
    }
}
