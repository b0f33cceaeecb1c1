//! Topics: the names events are published under, valid by construction (M-1, M-39, M-40, N-1a).
//!
//! It knows which strings may be published to; it does not know who may, nor who listens.

use crate::{limits, text};
use std::{fmt, sync::Arc, sync::LazyLock};
use url::Url;

/// The name an event is published under: any printable UTF-8 string of at most [`limits::TOPIC`] bytes that is neither `*` nor
/// inside the hub's own namespace.
///
/// ```
/// use tidings_core::Topic;
/// assert!(Topic::parse("chat/room-1").is_ok());
/// assert!(Topic::parse("https://example.com/books/1").is_ok());
/// assert!(Topic::parse("*").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a string is not a topic.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The empty string names nothing (and would address the hub itself, M-40).
    #[error("a topic must not be empty")]
    Empty,
    /// Longer than [`limits::TOPIC`]; a size limit (413), unlike the others (400).
    #[error("a topic may have at most {limit} bytes, this one has {0}", limit = limits::TOPIC)]
    TooLong(usize),
    /// A topic selector longer than [`limits::PATTERN`] (400).
    #[error("a topic selector may have at most {limit} bytes, this one has {0}", limit = limits::PATTERN)]
    SelectorTooLong(usize),
    /// A control or format character (M-1).
    #[error("a topic must not contain control or format characters, this one has U+{c:04X}", c = *.0 as u32)]
    Hidden(char),
    /// `*` means every topic in a subscription, so nothing is published to it (M-39).
    #[error("`*` is not a topic: it stands for all topics in a subscription; name one to publish to")]
    Wildcard,
    /// The hub's own namespace (M-40).
    #[error("topics at or below `/.well-known/mercure` belong to the hub; choose another topic")]
    Reserved,
}

impl Topic {
    /// Checks a string by the rules of N-1a.
    pub fn parse(name: &str) -> Result<Topic, TopicError> {
        check_name(name)?;
        match name {
            "*" => Err(TopicError::Wildcard),
            _ if is_reserved(name) => Err(TopicError::Reserved),
            _ => Ok(Topic(name.into())),
        }
    }

    /// A name that was a topic when it was stored: it is not checked again, for rules may change and old events stay.
    pub fn stored(name: &str) -> Topic {
        Topic(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Topics sort and compare as their names do, so that ordered maps can be searched by name.
impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Topic {
    type Error = TopicError;
    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Topic::parse(name)
    }
}

/// The rules that hold for the names of topics and for matchers alike (M-1, M-21).
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > limits::TOPIC {
        return Err(TopicError::TooLong(name.len()));
    }
    check_hidden(name)
}

/// The rule about characters alone.
pub(crate) fn check_hidden(name: &str) -> Result<(), TopicError> {
    text::first_hidden(name).map_or(Ok(()), |c| Err(TopicError::Hidden(c)))
}

/// The hub's own path, under which its presence topics live.
const HUB_PATH: &str = "/.well-known/mercure";

/// M-40: whether a topic, read as a reference against the hub's URL, addresses the hub or anything below it, whatever its scheme or host.
fn is_reserved(topic: &str) -> bool {
    // A name of ordinary characters that does not contain the last word of the hub's path cannot come to lie there; this spares
    // almost every publish the parse of a URL.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_');
    let starts_plain = topic.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    if starts_plain && topic.bytes().all(plain) && !topic.contains("mercure") {
        return false;
    }
    // A reference such as `https:x` is relative only to a base of the same scheme, and the hub may be either.
    static BASES: LazyLock<[Url; 2]> =
        LazyLock::new(|| ["https", "http"].map(|scheme| Url::parse(&format!("{scheme}://hub.invalid{HUB_PATH}")).expect("a constant URL")));
    BASES.iter().any(|base| {
        base.join(topic).is_ok_and(|url| {
            let path = decode_unreserved(url.path());
            path.strip_prefix(HUB_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    })
}

/// Removes dot segments (for URLs whose scheme leaves them) after decoding percent-encoded unreserved octets, which name the same resource.
fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let octet = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match octet {
            Some(octet) if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => {
                decoded.push(octet as char);
                rest = &rest[at + 3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    segments.iter().fold(String::with_capacity(decoded.len()), |path, segment| path + "/" + segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N-1a with M-1, M-39, M-40: the table of names and what each gets.
    #[test]
    fn what_may_be_published_to() {
        use TopicError::*;
        let long = "a".repeat(limits::TOPIC);
        let too_long = "a".repeat(limits::TOPIC + 1);
        let table: &[(&str, Result<(), TopicError>)] = &[
            ("news", Ok(())),
            ("/sysenv/cpu", Ok(())),
            ("a b", Ok(())),
            ("日本/天気", Ok(())),
            ("https://example.com/books/1?x=1#y", Ok(())),
            ("urn:uuid:1", Ok(())),
            ("mercure", Err(Reserved)),
            ("a/mercure", Ok(())),
            ("/mercure", Ok(())),
            ("**", Ok(())),
            (&long, Ok(())),
            (&too_long, Err(TooLong(limits::TOPIC + 1))),
            ("", Err(Empty)),
            ("*", Err(Wildcard)),
            ("a\nb", Err(Hidden('\n'))),
            ("a\0", Err(Hidden('\0'))),
            ("\u{FEFF}a", Err(Hidden('\u{FEFF}'))),
            ("a\u{200B}b", Err(Hidden('\u{200B}'))),
            ("/.well-known/mercure", Err(Reserved)),
            ("/.well-known/mercure/", Err(Reserved)),
            ("/.well-known/mercure/subscriptions/a/b", Err(Reserved)),
            ("/.well-known/mercury", Ok(())),
            ("/.well-known/mercurex", Ok(())),
            ("https://anywhere.example/.well-known/mercure/x", Err(Reserved)),
            ("/.well-known/%6dercure", Err(Reserved)),
            ("/.well-known/%6Dercur%65/x", Err(Reserved)),
            ("/%2ewell-known/mercure", Err(Reserved)),
            ("/a/../.well-known/mercure", Err(Reserved)),
            ("/a/%2e%2e/.well-known/mercure", Err(Reserved)),
            ("\\.well-known\\mercure", Err(Reserved)),
            ("mercure/subscriptions", Err(Reserved)),
            ("./mercure", Err(Reserved)),
            ("?x", Err(Reserved)),
            ("#x", Err(Reserved)),
            ("https:", Err(Reserved)),
            ("http:mercure", Err(Reserved)),
            ("custom://h/x/../.well-known/mercure", Err(Reserved)),
            ("/.well-known/mercure%2Fx", Ok(())),
        ];
        for (name, expected) in table {
            assert_eq!(Topic::parse(name).map(|_| ()), *expected, "{name:?}");
        }
    }
}
