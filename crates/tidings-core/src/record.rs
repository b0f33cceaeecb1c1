//! An event in the log: its position, what matching needs, and its bytes, encoded once and shared by everyone.
//!
//! It knows what was stored, not who wants it.

mod stored;

use crate::{
    Event, EventId, Position, Topic, Topics, limits,
    wire::{Encoded, Framing, Shape},
};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// An encoded event that has no position yet: what a store is asked to append.
#[derive(Debug)]
pub struct Draft {
    topics: Topics,
    event_type: Option<Box<str>>,
    id: Option<Box<str>>,
    private: bool,
    cost: u32,
    encoded: Encoded,
}

impl Draft {
    /// Gives it its place, writing the minted id into the bytes where the publisher gave none. `accepted_at` is in milliseconds since 1970.
    pub fn seal(mut self, position: Position, accepted_at: u64) -> Record {
        if let Some(at) = self.encoded.id_at {
            let at = at as usize;
            self.encoded.bytes[at..at + Position::ID_LEN].copy_from_slice(&position.id_bytes());
        }
        Record {
            position,
            accepted_at,
            topics: self.topics,
            event_type: self.event_type,
            id: self.id,
            private: self.private,
            cost: self.cost,
            wire: self.encoded.bytes.freeze(),
            start: self.encoded.start,
            data_start: self.encoded.data_start,
            data_end: self.encoded.data_end,
            data_lines: self.encoded.data_lines,
        }
    }

    /// The topics; the first is the canonical one.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The publisher's id, if it gave one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id it has at a position: the publisher's, or the one minted there.
    pub fn event_id(&self, position: Position) -> EventId {
        self.id.as_deref().map_or_else(|| position.into(), EventId::given)
    }

    /// Bytes it will cost while it is kept; see [`Record::cost`].
    pub fn cost(&self) -> usize {
        self.cost as usize
    }

    fn new(event: Event, shape: &Shape, bytes: BytesMut) -> Draft {
        let encoded = shape.encode(&event, bytes);
        let private = event.is_private();
        let (topics, event_type, id) = event.into_parts();
        let cost = cost(encoded.bytes.len(), &topics) as u32;
        Draft { topics, event_type, id, private, cost, encoded }
    }
}

/// One event of the log.
#[derive(Debug)]
pub struct Record {
    position: Position,
    accepted_at: u64,
    topics: Topics,
    event_type: Option<Box<str>>,
    id: Option<Box<str>>,
    private: bool,
    cost: u32,
    wire: Bytes,
    start: u32,
    data_start: u32,
    data_end: u32,
    data_lines: u32,
}

impl Record {
    /// Encodes an event. Costly work belongs here, before the store's lock is taken.
    pub fn draft(event: Event) -> Draft {
        let shape = Shape::of(&event);
        let bytes = BytesMut::with_capacity(shape.len());
        Draft::new(event, &shape, bytes)
    }

    /// Encodes the events of one append. Small ones share buffers of at most [`limits::SHARED_BUFFER`] bytes.
    pub fn drafts(events: Vec<Event>) -> Vec<Draft> {
        let shapes: Vec<Shape> = events.iter().map(Shape::of).collect();
        let mut drafts = Vec::with_capacity(events.len());
        let mut buffer = BytesMut::new();
        for (at, event) in events.into_iter().enumerate() {
            if buffer.capacity() < shapes[at].len() {
                buffer = BytesMut::with_capacity(buffer_len(&shapes[at..]));
            }
            let alone = buffer.capacity() == shapes[at].len();
            let rest = if alone { BytesMut::new() } else { buffer.split_off(shapes[at].len()) };
            drafts.push(Draft::new(event, &shapes[at], buffer));
            buffer = rest;
        }
        drafts
    }

    pub(crate) fn shared_topics(&self) -> &Topics {
        &self.topics
    }

    /// Its place in the log.
    pub fn position(&self) -> Position {
        self.position
    }

    /// When the store accepted it, in milliseconds since 1970; never earlier than its predecessor.
    pub fn accepted_at(&self) -> u64 {
        self.accepted_at
    }

    /// The topics; the first is the canonical one.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The type, if it has one.
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    /// The publisher's id, if it gave one.
    pub fn publisher_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id on the wire: the publisher's, or the minted one.
    pub fn id(&self) -> EventId {
        self.id.as_deref().map_or_else(|| self.position.into(), EventId::given)
    }

    /// Whether only readers with a grant may have it.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// The data as readers get it: line ends are LF.
    pub fn data(&self) -> Cow<'_, str> {
        let lines = &self.wire[self.data_start as usize..self.data_end as usize];
        let text = String::from_utf8_lossy(lines);
        if self.data_lines == 1 { text } else { text.replace("\ndata: ", "\n").into() }
    }

    /// Whether it has no data.
    pub fn is_empty(&self) -> bool {
        self.data_start == self.data_end
    }

    /// The reconnection time that it tells its readers, in milliseconds, if it does.
    pub fn retry(&self) -> Option<u32> {
        let before_data = self.wire.get(self.start as usize..self.data_start as usize - "data: ".len())?;
        let mut lines = before_data.split(|&byte| byte == b'\n');
        let digits = lines.find_map(|line| line.strip_prefix(b"retry: "))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The same event for a place in another log.
    pub fn redraft(&self) -> Draft {
        // The id is the last line: after the data, and before the blank line and the end of the chunk.
        let id_at = self.id.is_none().then(|| self.data_end + "\nid: ".len() as u32);
        let bytes = BytesMut::from(&self.wire[..]);
        let Record { start, data_start, data_end, data_lines, cost, private, .. } = *self;
        let encoded = Encoded { bytes, start, data_start, data_end, data_lines, id_at };
        let (topics, event_type, id) = (self.topics.clone(), self.event_type.clone(), self.id.clone());
        Draft { topics, event_type, id, private, cost, encoded }
    }

    /// Its bytes on a connection.
    pub fn wire(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Chunked => &self.wire,
            Framing::Plain => &self.wire[self.start as usize..self.wire.len() - 2],
        }
    }

    /// The same, sharing the buffer.
    pub fn wire_shared(&self, framing: Framing) -> Bytes {
        match framing {
            Framing::Chunked => self.wire.clone(),
            Framing::Plain => self.wire.slice(self.start as usize..self.wire.len() - 2),
        }
    }

    /// Bytes it costs while it is kept: what was encoded, its topics, and the fixed parts.
    pub fn cost(&self) -> usize {
        self.cost as usize
    }
}

/// The length of a buffer for the first of some events, and for as many after it as may share one.
fn buffer_len(shapes: &[Shape]) -> usize {
    let mut sums = shapes.iter().scan(0, |sum, shape| {
        *sum += shape.len();
        Some(*sum)
    });
    let first = sums.next().unwrap_or_default();
    sums.take_while(|&sum| sum <= limits::SHARED_BUFFER).last().unwrap_or(first)
}

fn cost(wire: usize, topics: &[Topic]) -> usize {
    // Reference counts of the buffer and of each topic, and the entries that point here.
    const FIXED: usize = size_of::<Record>() + 48;
    FIXED + wire + topics.iter().map(|topic| size_of::<Topic>() + 16 + topic.as_str().len()).sum::<usize>()
}
