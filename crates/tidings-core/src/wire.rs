//! The bytes of `text/event-stream` as the hub writes them: events, comments, priming, gaps, ends (rules S-1...S-16, S-24, S-43).
//!
//! It knows bytes. Who receives them, when, and over which socket is decided elsewhere.

use crate::{
    Event, EventId, Position,
    record::{Frame, NAMED, PRIVATE},
};
use bytes::{BufMut, Bytes, BytesMut};

/// How bytes are put on a connection. Exhaustive on purpose: who takes bytes apart has to know every way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Framing {
    /// The bytes of the stream as they are: for HTTP/2, for HTTP/1.0, and wherever an HTTP library frames by itself.
    Plain,
    /// HTTP/1.1 chunks, one around each event.
    Chunked,
}

/// The end of a chunked body: the empty chunk.
pub const FINAL_CHUNK: &[u8] = b"0\r\n\r\n";
/// One comment line with text in it and no blank line after it, which every known client skips without a phantom event (S-24).
pub const HEARTBEAT: &str = ": hb\n";
/// A heartbeat that consumers see who ignore comments when they time idleness (S-26). It moves no cursor, and its data is JSON.
pub const HEARTBEAT_EVENT: &str = "event: tidings.heartbeat\ndata: {}\n\n";
/// The type of the event that says that others are missing (N-14).
pub const GAP_TYPE: &str = "tidings.gap";

/// Why events that a cursor asked for are not served (N-14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention removed them.
    Evicted,
    /// No event has or had that id, as far as is known.
    Unknown,
    /// The cursor belongs to another log.
    Epoch,
    /// The reader fell behind a bound.
    Lagged,
    /// A crash undid them.
    Lost,
    /// The store cannot read them.
    Damaged,
}

impl GapReason {
    /// Every reason, for counters by reason.
    pub const ALL: [GapReason; 6] =
        [GapReason::Evicted, GapReason::Unknown, GapReason::Epoch, GapReason::Lagged, GapReason::Lost, GapReason::Damaged];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Evicted => "evicted",
            GapReason::Unknown => "unknown",
            GapReason::Epoch => "epoch",
            GapReason::Lagged => "lagged",
            GapReason::Lost => "lost",
            GapReason::Damaged => "damaged",
        }
    }
}

/// What has to be known of an event before it is written: its length stands in front.
#[derive(Debug)]
pub(crate) struct Shape {
    header: ChunkHeader,
    /// Bytes of the whole chunk.
    len: u32,
    data_lines: u32,
}

impl Shape {
    /// One scan over the data.
    pub(crate) fn of<D: AsRef<str>>(event: &Event<D>) -> Shape {
        let (lines, data_text) = Lines::new(event.data()).fold((0, 0), |(lines, text), line| (lines + 1, text + line.len()));
        let mut retry_digits = itoa::Buffer::new();
        let stream = event.event_type().map_or(0, |t| "event: \n".len() + t.len())
            + event.retry().map_or(0, |ms| "retry: \n".len() + retry_digits.format(ms).len())
            + lines * "data: \n".len()
            + data_text
            + "id: \n\n".len()
            + event.id().map_or(Position::ID_LEN, str::len);
        let header = chunk_header(stream);
        let len = (header.as_slice().len() + stream + "\r\n".len()) as u32;
        Shape { header, len, data_lines: lines as u32 }
    }

    /// Bytes of the whole chunk.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Writes an event once, for everybody: `event`, `retry`, `data`, and `id` last (S-9), inside one HTTP/1.1 chunk. A minted id is still to
    /// be filled in.
    pub(crate) fn encode<D: AsRef<str>>(&self, event: &Event<D>, bytes: &mut BytesMut) -> Frame {
        let from = bytes.len();
        bytes.put_slice(self.header.as_slice());
        let start = bytes.len() - from;
        if let Some(event_type) = event.event_type() {
            put_line(bytes, "event: ", event_type);
        }
        if let Some(retry) = event.retry() {
            put_line(bytes, "retry: ", itoa::Buffer::new().format(retry));
        }
        let data_start = bytes.len() - from + "data: ".len();
        if self.data_lines == 1 {
            put_line(bytes, "data: ", event.data());
        } else {
            Lines::new(event.data()).for_each(|line| put_line(bytes, "data: ", line));
        }
        let data_end = bytes.len() - from - 1;
        bytes.put_slice(b"id: ");
        bytes.put_slice(event.id().map_or(&[b'0'; Position::ID_LEN], str::as_bytes));
        bytes.put_slice(b"\n\n\r\n");
        debug_assert_eq!(bytes.len() - from, self.len());
        let flags = if event.id().is_some() { NAMED } else { 0 } | if event.is_private() { PRIVATE } else { 0 };
        // A chunk's length line has at most ten bytes, and before the data there are a type and a number.
        let (start, data_start) = (start as u8, data_start as u16);
        Frame { at: from as u32, len: self.len() as u32, data_end: data_end as u32, data_start, start, flags }
    }
}

fn put_line(bytes: &mut BytesMut, field: &str, value: &str) {
    bytes.put_slice(field.as_bytes());
    bytes.put_slice(value.as_bytes());
    bytes.put_u8(b'\n');
}

/// The pieces of a text between its line ends: CR, LF and CRLF each end a line (S-6). A text has one piece more than line ends.
struct Lines<'a> {
    rest: Option<&'a str>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Lines { rest: Some(text) }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest?;
        let Some(at) = memchr::memchr2(b'\r', b'\n', text.as_bytes()) else {
            self.rest = None;
            return Some(text);
        };
        let after = if text[at..].starts_with("\r\n") { at + 2 } else { at + 1 };
        self.rest = Some(&text[after..]);
        Some(&text[..at])
    }
}

/// A chunk's length line.
#[derive(Debug)]
struct ChunkHeader {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHeader {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

fn chunk_header(mut len: usize) -> ChunkHeader {
    let mut header = ChunkHeader { bytes: [0; 18], start: 16 };
    header.bytes[16..].copy_from_slice(b"\r\n");
    loop {
        header.start -= 1;
        header.bytes[usize::from(header.start)] = b"0123456789abcdef"[len & 15];
        len >>= 4;
        if len == 0 {
            return header;
        }
    }
}

/// Puts stream bytes that belong to one connection (opening, gap, end) into its framing.
pub fn frame(framing: Framing, stream: &[u8]) -> Bytes {
    match framing {
        Framing::Plain => Bytes::copy_from_slice(stream),
        Framing::Chunked => {
            let mut bytes = Vec::with_capacity(chunk_header(stream.len()).as_slice().len() + stream.len() + 2);
            put_frame(&mut bytes, framing, stream);
            bytes.into()
        }
    }
}

/// Appends the same to a buffer.
pub fn put_frame(bytes: &mut Vec<u8>, framing: Framing, stream: &[u8]) {
    match framing {
        Framing::Plain => bytes.extend_from_slice(stream),
        Framing::Chunked => {
            bytes.extend_from_slice(chunk_header(stream.len()).as_slice());
            bytes.extend_from_slice(stream);
            bytes.extend_from_slice(b"\r\n");
        }
    }
}

/// The first bytes of a stream: a comment, so that proxies start their clocks and `open` fires (S-27), this connection's `retry`
/// (S-41), and with priming the cursor of the place where the stream starts (S-13, N-13a).
pub fn opening(retry_ms: u32, prime: Option<EventId>) -> String {
    const BEGIN: &str = ": ok\nretry: ";
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(retry_ms);
    // One for every subscriber that comes: no more than it needs, in one piece.
    let primed = prime.as_ref().map_or(0, |id| PRIME.0.len() + id.as_str().len() + PRIME.1.len());
    let mut text = String::with_capacity(BEGIN.len() + digits.len() + 1 + primed);
    text.push_str(BEGIN);
    text.push_str(digits);
    text.push('\n');
    if let Some(id) = prime {
        put_prime(&mut text, &id);
    }
    text
}

/// The last bytes of a planned end: the cursor moved forward if priming is on, then a bare `retry` line (S-43).
pub fn ending(retry_ms: u32, prime: Option<EventId>) -> String {
    let mut text = String::new();
    if let Some(id) = prime {
        put_prime(&mut text, &id);
    }
    text + &format!("retry: {retry_ms}\n")
}

/// A cursor by itself, for a client that has everything up to a place without an event there (N-13a).
pub fn prime(id: &EventId) -> String {
    let mut text = String::new();
    put_prime(&mut text, id);
    text
}

/// What stands around the id.
const PRIME: (&str, &str) = ("id: ", "\n\n");

fn put_prime(text: &mut String, id: &EventId) {
    text.push_str(PRIME.0);
    text.push_str(id.as_str());
    text.push_str(PRIME.1);
}

/// The event that says that events are missing (N-14). `resume_at` is the id of the place before the first event that follows.
pub fn gap(requested: &str, earliest: Option<&str>, reason: GapReason, resume_at: &EventId) -> String {
    let data = serde_json::json!({ "requested": requested, "earliest": earliest, "reason": reason.as_str() });
    format!("event: {GAP_TYPE}\ndata: {data}\nid: {resume_at}\n\n")
}

/// The `topics` field lines of an event, which go in front of it (N-13b, M-130).
pub(crate) fn topics_lines<'a>(topics: impl Iterator<Item = &'a str>) -> String {
    topics.fold(String::new(), |text, topic| text + "topics: " + topic + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Record, limits};

    fn record(event: Event) -> Record {
        Record::draft(event).seal(Position { epoch: Epoch(0x5f3a_9c01), sequence: 42 }, 0)
    }

    fn check(event: Event, stream: &str) {
        let record = record(event);
        assert_eq!(std::str::from_utf8(record.wire(Framing::Plain)).unwrap(), stream);
        let chunked = format!("{:x}\r\n{stream}\r\n", stream.len());
        assert_eq!(std::str::from_utf8(record.wire(Framing::Chunked)).unwrap(), chunked);
    }

    fn event(data: &str) -> Event {
        Event::new("t", data).unwrap()
    }

    /// S-2, S-3, S-6, S-8, S-9, S-12, S-16: the literal bytes.
    #[test]
    fn bytes_of_events() {
        check(event("hello"), "data: hello\nid: #5f3a9c01-000000000000002a\n\n");
        check(event(""), "data: \nid: #5f3a9c01-000000000000002a\n\n");
        check(event(" lead"), "data:  lead\nid: #5f3a9c01-000000000000002a\n\n");
        check(event("a\nb"), "data: a\ndata: b\nid: #5f3a9c01-000000000000002a\n\n");
        check(event("a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \nid: #5f3a9c01-000000000000002a\n\n");
        check(event("\n\r"), "data: \ndata: \ndata: \nid: #5f3a9c01-000000000000002a\n\n");
        check(event("x\nevent: forged\n\nid: 1"), "data: x\ndata: event: forged\ndata: \ndata: id: 1\nid: #5f3a9c01-000000000000002a\n\n");
        check(event("a\0b\u{FEFF}é"), "data: a\0b\u{FEFF}é\nid: #5f3a9c01-000000000000002a\n\n");
        let full = event("d").with_type("news").unwrap().with_retry(1500).unwrap().with_id("urn:1").unwrap();
        check(full, "event: news\nretry: 1500\ndata: d\nid: urn:1\n\n");
    }

    /// Events of one append have the bytes they would have alone, whichever of them share a buffer.
    #[test]
    fn events_share_buffers() {
        let sizes = [0, 10, limits::SHARED_BUFFER, 100, 3 * limits::SHARED_BUFFER, 1, 1].into_iter().chain(std::iter::repeat_n(1_000, 99));
        let events: Vec<Event> = sizes.map(|size| event(&"x\n".repeat(size / 2))).collect();
        let at = Position { epoch: Epoch(1), sequence: 2 };
        let place = |sequence| Position { sequence, ..at };
        let alone: Vec<Record> = (2..).zip(&events).map(|(n, event)| Record::draft(event.clone()).seal(place(n), 0)).collect();
        let together = Record::seal(Record::drafts(events), at, 0);
        for (alone, together) in alone.iter().zip(&together) {
            assert_eq!(format!("{together:?}"), format!("{alone:?}"));
        }
    }

    /// S-6: what a reader gets back is the data with LF for every line end.
    #[test]
    fn data_reads_back() {
        for (given, back) in [("", ""), ("a", "a"), ("a\nb", "a\nb"), ("a\r\nb\rc\n", "a\nb\nc\n"), ("\n", "\n")] {
            assert_eq!(record(event(given)).data(), back);
        }
    }

    /// N-13, N-13a, N-14, S-13, S-15, S-24, S-43.
    #[test]
    fn bytes_of_the_hub() {
        let at = Position { epoch: Epoch(1), sequence: 2 };
        assert_eq!(opening(2500, Some(at.into())), ": ok\nretry: 2500\nid: #00000001-0000000000000002\n\n");
        assert_eq!(opening(2500, None), ": ok\nretry: 2500\n");
        assert_eq!(ending(9, Some(at.into())), "id: #00000001-0000000000000002\n\nretry: 9\n");
        assert_eq!(ending(9, None), "retry: 9\n");
        assert_eq!(
            gap("we\"ird\n", Some("urn:1"), GapReason::Evicted, &at.into()),
            "event: tidings.gap\ndata: {\"earliest\":\"urn:1\",\"reason\":\"evicted\",\"requested\":\"we\\\"ird\\n\"}\nid: #00000001-0000000000000002\n\n"
        );
        assert_eq!(
            gap("", None, GapReason::Lost, &at.into()),
            "event: tidings.gap\ndata: {\"earliest\":null,\"reason\":\"lost\",\"requested\":\"\"}\nid: #00000001-0000000000000002\n\n"
        );
        assert_eq!(&frame(Framing::Chunked, HEARTBEAT.as_bytes())[..], b"5\r\n: hb\n\r\n");
        assert_eq!(&frame(Framing::Chunked, &[b'x'; 256])[..5], b"100\r\n");
    }
}
