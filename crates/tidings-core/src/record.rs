//! An event in the log: its position, what matching needs, and its bytes, encoded once and shared by everyone.
//!
//! It knows what was stored, not who wants it.

mod stored;

use crate::{
    Event, EventId, IdForm, Position, Topic, Topics, limits,
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
    second: Option<Box<Encoded>>,
    ids: IdForm,
}

impl Draft {
    /// Gives it its place, writing the minted id into the bytes where the publisher gave none. `accepted_at` is in milliseconds since 1970.
    pub fn seal(self, position: Position, accepted_at: u64) -> Record {
        Record {
            position,
            accepted_at,
            topics: self.topics,
            event_type: self.event_type,
            id: self.id,
            private: self.private,
            cost: self.cost,
            wire: Wire::seal(self.encoded, position, self.ids),
            second: self.second.map(|encoded| Box::new(Wire::seal(*encoded, position, self.ids))),
        }
    }

    /// Another form of the id that it gets than the plain one.
    #[must_use]
    pub fn with_ids(self, ids: IdForm) -> Draft {
        Draft { ids, ..self }
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
        self.id.as_deref().map_or_else(|| self.ids.id(position), EventId::given)
    }

    /// Bytes it will cost while it is kept; see [`Record::cost`].
    pub fn cost(&self) -> usize {
        self.cost as usize
    }

    fn new<D: AsRef<str>>(event: Event<D>, shape: &Shape, bytes: BytesMut) -> Draft {
        let encoded = shape.encode(&event, bytes);
        let private = event.is_private();
        let (topics, event_type, id) = event.into_parts();
        let cost = cost(encoded.bytes.len(), None, &topics) as u32;
        Draft { topics, event_type, id, private, cost, encoded, second: None, ids: IdForm::PLAIN }
    }

    /// An event of the hub's own in two views, whose topics are the one of the first view and the one of the second (M-405).
    pub(crate) fn in_two_views(first: Event, second: &Event) -> Draft {
        debug_assert_eq!(first.topics().len(), 2, "one topic for each view");
        let encode = |event: &Event, shape: &Shape| shape.encode(event, BytesMut::with_capacity(shape.len()));
        let shape = Shape::of(&first);
        let second = encode(second, &Shape::of(second));
        let draft = Draft::new(first, &shape, BytesMut::with_capacity(shape.len()));
        let cost = cost(draft.encoded.bytes.len(), Some(second.bytes.len()), &draft.topics) as u32;
        Draft { cost, second: Some(Box::new(second)), ..draft }
    }
}

/// Which of the two forms of an event somebody gets: nearly all events have only the first. The hub's events about subscriptions have a
/// second, with another topic and other bytes, for readers who asked in the older dialect of Mercure (M-405).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// Of every event.
    First,
    /// Of those that have two.
    Second,
}

/// An event's bytes, and where its parts are in them.
#[derive(Debug)]
struct Wire {
    bytes: Bytes,
    start: u32,
    data_start: u32,
    data_end: u32,
    data_lines: u32,
}

impl Wire {
    fn seal(mut encoded: Encoded, position: Position, ids: IdForm) -> Wire {
        if let Some(at) = encoded.id_at {
            let at = at as usize;
            encoded.bytes[at..at + Position::ID_LEN].copy_from_slice(&ids.bytes(position));
        }
        let Encoded { bytes, start, data_start, data_end, data_lines, .. } = encoded;
        Wire { bytes: bytes.freeze(), start, data_start, data_end, data_lines }
    }

    /// The id is the last line: after the data, and before the blank line and the end of the chunk.
    fn id_at(&self) -> usize {
        self.data_end as usize + "\nid: ".len()
    }

    /// The same without its place; `minted` if the id in it is the log's.
    fn unseal(&self, minted: bool) -> Encoded {
        let Wire { start, data_start, data_end, data_lines, .. } = *self;
        let id_at = minted.then(|| self.id_at() as u32);
        Encoded { bytes: BytesMut::from(&self.bytes[..]), start, data_start, data_end, data_lines, id_at }
    }

    fn data(&self) -> Cow<'_, str> {
        let text = String::from_utf8_lossy(&self.bytes[self.data_start as usize..self.data_end as usize]);
        if self.data_lines == 1 { text } else { text.replace("\ndata: ", "\n").into() }
    }

    fn framed(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Chunked => &self.bytes,
            Framing::Plain => &self.bytes[self.start as usize..self.bytes.len() - 2],
        }
    }

    fn shared(&self, framing: Framing) -> Bytes {
        match framing {
            Framing::Chunked => self.bytes.clone(),
            Framing::Plain => self.bytes.slice(self.start as usize..self.bytes.len() - 2),
        }
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
    wire: Wire,
    second: Option<Box<Wire>>,
}

// A second view costs those who have none a pointer.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Record>() <= 128 + 8);

impl Record {
    /// Encodes an event. Costly work belongs here, before the store's lock is taken.
    pub fn draft<D: AsRef<str>>(event: Event<D>) -> Draft {
        let shape = Shape::of(&event);
        let bytes = BytesMut::with_capacity(shape.len());
        Draft::new(event, &shape, bytes)
    }

    /// Encodes the events of one append. Small ones share buffers of at most [`limits::SHARED_BUFFER`] bytes.
    pub fn drafts<D: AsRef<str>>(events: Vec<Event<D>>) -> Vec<Draft> {
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

    /// The topics; the first is the canonical one. With two views those of both.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The type, if it has one; in the first view.
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    /// The publisher's id, if it gave one.
    pub fn publisher_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id on the wire: the publisher's, or the minted one.
    pub fn id(&self) -> EventId {
        let at = self.wire.id_at();
        let minted = || self.wire.bytes.get(at..at + Position::ID_LEN).and_then(|id| id.try_into().ok());
        // In the form it was minted in, whatever that of the hub is now.
        self.id.as_deref().map_or_else(|| minted().map_or_else(|| self.position.into(), EventId::minted), EventId::given)
    }

    /// Whether only readers with a grant may have it.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// The data as readers get it: line ends are LF. Of the first view.
    pub fn data(&self) -> Cow<'_, str> {
        self.wire.data()
    }

    /// Whether it has no data.
    pub fn is_empty(&self) -> bool {
        self.wire.data_start == self.wire.data_end
    }

    /// The reconnection time that it tells its readers, in milliseconds, if it does.
    pub fn retry(&self) -> Option<u32> {
        let Wire { bytes, start, data_start, .. } = &self.wire;
        let before_data = bytes.get(*start as usize..*data_start as usize - "data: ".len())?;
        let mut lines = before_data.split(|&byte| byte == b'\n');
        let digits = lines.find_map(|line| line.strip_prefix(b"retry: "))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The same event for a place in another log.
    pub fn redraft(&self) -> Draft {
        let Record { cost, private, .. } = *self;
        let (topics, event_type, id) = (self.topics.clone(), self.event_type.clone(), self.id.clone());
        let encoded = self.wire.unseal(id.is_none());
        let second = self.second.as_ref().map(|wire| Box::new(wire.unseal(id.is_none())));
        Draft { topics, event_type, id, private, cost, encoded, second, ids: IdForm::PLAIN }
    }

    /// Its bytes on a connection, in the first view.
    pub fn wire(&self, framing: Framing) -> &[u8] {
        self.wire.framed(framing)
    }

    /// Its bytes on a connection in one of its views; the first where there is no second.
    pub fn wire_in(&self, view: View, framing: Framing) -> &[u8] {
        self.encoded(view).framed(framing)
    }

    /// The same, sharing the buffer.
    pub fn wire_shared(&self, view: View, framing: Framing) -> Bytes {
        self.encoded(view).shared(framing)
    }

    /// Whether it has a second view.
    pub fn has_two_views(&self) -> bool {
        self.second.is_some()
    }

    /// The topics of one of its views; those of an event with one view are all in the first.
    pub fn topics_in(&self, view: View) -> &[Topic] {
        match (view, &self.second) {
            (View::First, None) => &self.topics,
            (View::First, Some(_)) => &self.topics[..1],
            (View::Second, _) => &self.topics[1..],
        }
    }

    fn encoded(&self, view: View) -> &Wire {
        match (view, &self.second) {
            (View::Second, Some(second)) => second,
            _ => &self.wire,
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

fn cost(wire: usize, second: Option<usize>, topics: &[Topic]) -> usize {
    // Reference counts of the buffer and of each topic, and the entries that point here.
    const FIXED: usize = size_of::<Record>() + 48;
    let second = second.map_or(0, |len| size_of::<Wire>() + len);
    FIXED + wire + second + topics.iter().map(|topic| size_of::<Topic>() + 16 + topic.as_str().len()).sum::<usize>()
}
