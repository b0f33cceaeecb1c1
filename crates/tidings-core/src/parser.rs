//! An incremental parser of `text/event-stream`, by the WHATWG rules: what a client sees of the bytes, however they are cut.
//!
//! It knows the format, not HTTP: reconnecting and sending the cursor back are its caller's.

use std::mem;

/// One thing a stream said.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Item {
    /// An event was dispatched.
    Message(Message),
    /// The last event id changed without an event (S-13).
    Cursor(String),
    /// A new reconnection time in milliseconds; takes effect when its line is read (S-15).
    Retry(u64),
    /// A comment line, without its colon.
    Comment(String),
}

/// An event as a client sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Message {
    /// The type; `message` when the stream named none (S-11).
    pub event_type: String,
    /// The data.
    pub data: String,
    /// The last event id: this event's, or of an earlier one when this one has none (S-16).
    pub id: String,
    /// The topics the hub disclosed (`topics` field lines, N-13b); empty unless they were asked for.
    pub topics: Vec<String>,
}

/// A stream that does not keep to the bound given to [`Parser::new`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stream has an event or a line of more than {limit} bytes")]
pub struct TooLong {
    /// Bytes allowed for one event.
    pub limit: usize,
}

/// The parser. Feed it bytes as they come, and take the items.
///
/// ```
/// use tidings_core::{Item, Parser};
/// let mut parser = Parser::new(1 << 20);
/// let mut items = Vec::new();
/// parser.push(b"event: greeting\nda", |item| items.push(item))?;
/// parser.push(b"ta: hello\nid: 7\n\n", |item| items.push(item))?;
/// let Item::Message(message) = &items[0] else { panic!() };
/// assert_eq!((&*message.event_type, &*message.data, &*message.id), ("greeting", "hello", "7"));
/// # Ok::<(), tidings_core::TooLong>(())
/// ```
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The last byte was CR, so an LF that follows belongs to it.
    after_cr: bool,
    /// No line has been read yet: one byte order mark is skipped (S-4).
    at_start: bool,
    event_type: String,
    data: String,
    has_data: bool,
    topics: Vec<String>,
    topics_bytes: usize,
    /// What the next dispatch makes the last event id.
    id: String,
    last_event_id: String,
}

impl Parser {
    /// A parser at the beginning of a stream. Events over `limit` bytes end in [`TooLong`] instead of filling memory.
    pub fn new(limit: usize) -> Parser {
        Parser {
            limit,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event_type: String::new(),
            data: String::new(),
            has_data: false,
            topics: Vec::new(),
            topics_bytes: 0,
            id: String::new(),
            last_event_id: String::new(),
        }
    }

    /// The cursor to send back on reconnect; empty if there is none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The stream broke off and a new one begins: what was incomplete is dropped (S-5), the cursor stays.
    pub fn reconnect(&mut self) {
        let last_event_id = mem::take(&mut self.last_event_id);
        *self = Parser { id: last_event_id.clone(), last_event_id, ..Parser::new(self.limit) };
    }

    /// Takes the next bytes and hands over what they complete, in order.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Item)) -> Result<(), TooLong> {
        if mem::take(&mut self.after_cr) && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
        } else if bytes.is_empty() {
            return Ok(());
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', bytes) {
            let (head, rest) = (&bytes[..at], &bytes[at + 1..]);
            if self.line.is_empty() {
                self.end_of_line(head, &mut take)?;
            } else {
                let mut line = mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.end_of_line(&line, &mut take)?;
                line.clear();
                self.line = line;
            }
            if bytes[at] == b'\r' {
                self.after_cr = rest.is_empty();
                bytes = rest.strip_prefix(b"\n").unwrap_or(rest);
            } else {
                bytes = rest;
            }
        }
        if self.line.len() + bytes.len() > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_of_line(&mut self, line: &[u8], take: &mut impl FnMut(Item)) -> Result<(), TooLong> {
        let line = if mem::take(&mut self.at_start) { line.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(line) } else { line };
        if line.is_empty() {
            self.dispatch(take);
            return Ok(());
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &[][..]),
        };
        let value = String::from_utf8_lossy(value);
        match field {
            b"" => take(Item::Comment(value.into_owned())),
            b"data" => {
                if self.data.len() + value.len() >= self.limit {
                    return Err(TooLong { limit: self.limit });
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(&value);
            }
            b"event" => self.event_type = value.into_owned(),
            b"id" if !value.contains('\0') => self.id = value.into_owned(),
            b"retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                // A number over 64 bits is a number all the same.
                take(Item::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            b"topics" => {
                self.topics_bytes += value.len() + size_of::<String>();
                if self.topics_bytes > self.limit {
                    return Err(TooLong { limit: self.limit });
                }
                self.topics.push(value.into_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, take: &mut impl FnMut(Item)) {
        let moved = self.id != self.last_event_id;
        self.last_event_id.clone_from(&self.id);
        let (event_type, data, topics) = (mem::take(&mut self.event_type), mem::take(&mut self.data), mem::take(&mut self.topics));
        self.topics_bytes = 0;
        // One `data` line with an empty value dispatches too (S-12).
        if mem::take(&mut self.has_data) {
            let event_type = if event_type.is_empty() { "message".to_owned() } else { event_type };
            take(Item::Message(Message { event_type, data, id: self.last_event_id.clone(), topics }));
        } else if moved {
            take(Item::Cursor(self.last_event_id.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Event, Framing, Position, Record};
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Item> {
        let mut parser = Parser::new(1 << 16);
        let mut items = Vec::new();
        for piece in pieces {
            parser.push(piece, |item| items.push(item)).unwrap();
        }
        items
    }

    fn message(event_type: &str, data: &str, id: &str) -> Item {
        Item::Message(Message { event_type: event_type.into(), data: data.into(), id: id.into(), topics: vec![] })
    }

    /// The byte sequences browsers are tested with: line ends, byte order marks, empties, ids, comments.
    #[test]
    fn what_streams_say() {
        let table: &[(&str, Vec<Item>)] = &[
            ("data: a\n\n", vec![message("message", "a", "")]),
            ("data:a\r\rdata:b\r\n\r\n", vec![message("message", "a", ""), message("message", "b", "")]),
            ("\u{FEFF}data: a\n\n", vec![message("message", "a", "")]),
            ("\u{FEFF}\u{FEFF}data: a\n\n", vec![]),
            ("data\n\n", vec![message("message", "", "")]),
            ("data:\ndata:\n\n", vec![message("message", "\n", "")]),
            ("data:  a\n\n", vec![message("message", " a", "")]),
            ("event: x\n\ndata: a\n\n", vec![message("message", "a", "")]),
            ("id: 1\n\ndata: a\n\n", vec![Item::Cursor("1".into()), message("message", "a", "1")]),
            ("id: 1\ndata: a\n\nid\ndata: b\n\n", vec![message("message", "a", "1"), message("message", "b", "")]),
            ("id: 1\0\ndata: a\n\n", vec![message("message", "a", "")]),
            ("retry: 10\nretry: 1x\nretry:\n", vec![Item::Retry(10)]),
            (": hb\n:\n", vec![Item::Comment("hb".into()), Item::Comment(String::new())]),
            ("Data: a\n data: b\ndatax: c\n\n", vec![]),
            ("data: cut off", vec![]),
            ("data: cut off\n", vec![]),
        ];
        for (stream, expected) in table {
            assert_eq!(&parse(&[stream.as_bytes()]), expected, "{stream:?}");
        }
    }

    #[test]
    fn bounds_and_reconnects() {
        let mut parser = Parser::new(16);
        assert_eq!(parser.push(&[b'x'; 17], |_| {}), Err(TooLong { limit: 16 }));
        let mut parser = Parser::new(16);
        assert!(parser.push(b"data: 12345678\ndata: 12345678\n", |_| {}).is_err());
        let mut parser = Parser::new(64);
        parser.push(b"id: 1\ndata: a\n\nid: 2\ndata: b", |_| {}).unwrap();
        parser.reconnect();
        assert_eq!(parser.last_event_id(), "1");
        let mut items = Vec::new();
        parser.push(b"data: c\n\n", |item| items.push(item)).unwrap();
        assert_eq!(items, [message("message", "c", "1")]);
    }

    proptest! {
        /// However a stream is cut, it says the same.
        #[test]
        fn cuts_do_not_matter(stream in "([a-z:\r\n é\u{FEFF}]|data|id|event){0,40}", at in any::<prop::sample::Index>(), second in any::<prop::sample::Index>()) {
            let bytes = stream.as_bytes();
            let (a, b) = (at.index(bytes.len() + 1), second.index(bytes.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(parse(&[bytes]), parse(&[&bytes[..a], &bytes[a..b], &bytes[b..]]));
        }

        /// What is encoded is read back: exactly one event, with LF for every line end, and nothing a publisher wrote is taken for a field.
        #[test]
        fn encoded_events_read_back(data in "([a-z \r\n:\0é]|data: |\nid: 1|\n\n){0,20}", event_type in "[a-z]{0,5}", id in "[a-z0-9:]{0,8}", retry in proptest::option::of(0u32..10_000)) {
            let mut event = Event::new("t", data.clone()).unwrap().with_type(&event_type).unwrap().with_id(&id).unwrap();
            if let Some(retry) = retry {
                event = event.with_retry(retry).unwrap();
            }
            let record = Record::draft(event).seal(Position { epoch: Epoch(7), sequence: 9 }, 0);
            let mut items = parse(&[record.wire(Framing::Plain)]);
            prop_assert_eq!(items.pop(), Some(message(
                if event_type.is_empty() { "message" } else { &event_type },
                &data.replace("\r\n", "\n").replace('\r', "\n"),
                record.id().as_str(),
            )));
            prop_assert_eq!(items, retry.map(|retry| Item::Retry(retry.into())).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(record.data(), data.replace("\r\n", "\n").replace('\r', "\n"));
        }
    }
}
