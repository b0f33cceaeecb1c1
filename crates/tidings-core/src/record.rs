//! An event in the log: its position, what matching needs, and its bytes, encoded once and shared by everyone.
//!
//! It knows what was stored, not who wants it.

mod block;
mod drafts;
mod stored;

use crate::{EventId, Position, Topic, Topics, wire::Framing};
use block::{Block, OWN_TOPICS, Part, Parts};
pub(crate) use block::{Frame, NAMED, PRIVATE};
use bytes::{Bytes, BytesMut};
pub use drafts::{Draft, Drafts};
use std::{borrow::Cow, fmt, sync::Arc};

/// Which of the two forms of an event somebody gets: nearly all events have only the first. The hub's events about subscriptions have a
/// second, with another topic and other bytes, for readers who asked in the older dialect of Mercure (M-405).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// Of every event.
    First,
    /// Of those that have two.
    Second,
}

/// One event of the log. Clones share it, and events of one append share their buffer and what else they have in common.
#[derive(Clone)]
pub struct Record {
    block: Arc<Block>,
    index: u32,
}

impl Record {
    fn part(&self) -> &Part {
        self.block.parts.get(self.index)
    }

    fn frame(&self, view: View) -> &Frame {
        match view {
            View::First => &self.part().frame,
            View::Second => self.second().unwrap_or(&self.part().frame),
        }
    }

    fn second(&self) -> Option<&Frame> {
        self.block.second.as_deref()
    }

    /// Its bytes in the first view.
    fn bytes(&self) -> &[u8] {
        self.block.bytes_of(&self.part().frame)
    }

    pub(crate) fn shared_topics(&self) -> &Topics {
        &self.part().topics
    }

    /// Its place in the log.
    pub fn position(&self) -> Position {
        Position { epoch: self.block.epoch, sequence: self.block.first + u64::from(self.index) }
    }

    /// When the store accepted it, in milliseconds since 1970; never earlier than its predecessor.
    pub fn accepted_at(&self) -> u64 {
        self.block.accepted_at
    }

    /// The topics; the first is the canonical one. With two views those of both.
    pub fn topics(&self) -> &[Topic] {
        &self.part().topics
    }

    /// Whether it has the same topics as another; for those that share them without a look at the names.
    pub fn has_topics_of(&self, other: &Record) -> bool {
        self.shared_topics() == other.shared_topics()
    }

    /// The type, if it has one; in the first view.
    pub fn event_type(&self) -> Option<&str> {
        self.part().frame.event_type(self.bytes())
    }

    /// The publisher's id, if it gave one.
    pub fn publisher_id(&self) -> Option<&str> {
        self.part().frame.given_id(self.bytes())
    }

    /// The id on the wire: the publisher's, or the minted one.
    pub fn id(&self) -> EventId {
        let (frame, bytes) = (&self.part().frame, self.bytes());
        // In the form it was minted in, whatever that of the hub is now.
        let minted = || frame.id(bytes).try_into().ok().map_or_else(|| self.position().into(), EventId::minted);
        frame.given_id(bytes).map_or_else(minted, EventId::given)
    }

    /// Whether only readers with a grant may have it.
    pub fn is_private(&self) -> bool {
        self.part().frame.flags & PRIVATE != 0
    }

    /// The data as readers get it: line ends are LF. Of the first view.
    pub fn data(&self) -> Cow<'_, str> {
        self.part().frame.data(self.bytes())
    }

    /// Whether it has no data.
    pub fn is_empty(&self) -> bool {
        let frame = &self.part().frame;
        u32::from(frame.data_start) == frame.data_end
    }

    /// The reconnection time that it tells its readers, in milliseconds, if it does.
    pub fn retry(&self) -> Option<u32> {
        let Frame { start, data_start, .. } = self.part().frame;
        let before_data = self.bytes().get(start.into()..usize::from(data_start).saturating_sub("data: ".len()))?;
        let mut lines = before_data.split(|&byte| byte == b'\n');
        let digits = lines.find_map(|line| line.strip_prefix(b"retry: "))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The same record in a buffer of its own, for who keeps it longer than those it came with, and in its place: it answers for the memory of
    /// its topics if the record did.
    #[must_use]
    pub fn alone(&self) -> Record {
        let Block { first, accepted_at, epoch, .. } = *self.block;
        let (bytes, mut frame, second) = self.copied();
        frame.flags = self.part().frame.flags;
        let (extra, second) = (block::block_cost(bytes.len()) as u32, second.map(Box::new));
        let parts = Parts::One(Part { topics: self.part().topics.clone(), frame });
        let block = Block { bytes: bytes.freeze(), parts, second, first: first + u64::from(self.index), accepted_at, epoch, extra };
        Record { block: Arc::new(block), index: 0 }
    }

    /// Its bytes, and where they are then.
    fn copied(&self) -> (BytesMut, Frame, Option<Frame>) {
        let (first, second) = (self.part().frame, self.second());
        let mut bytes = BytesMut::with_capacity(first.len as usize + second.map_or(0, |second| second.len as usize));
        bytes.extend_from_slice(self.bytes());
        let second = second.map(|second| {
            bytes.extend_from_slice(self.block.bytes_of(second));
            second.moved_to(first.len as usize)
        });
        let flags = first.flags & !OWN_TOPICS;
        (bytes, Frame { flags, ..first.moved_to(0) }, second)
    }

    /// Its bytes on a connection, in the first view.
    pub fn wire(&self, framing: Framing) -> &[u8] {
        self.wire_in(View::First, framing)
    }

    /// Its bytes on a connection in one of its views; the first where there is no second.
    pub fn wire_in(&self, view: View, framing: Framing) -> &[u8] {
        let frame = self.frame(view);
        &self.block.bytes_of(frame)[frame.framed(framing)]
    }

    /// The same, sharing the buffer.
    pub fn wire_shared(&self, view: View, framing: Framing) -> Bytes {
        let frame = self.frame(view);
        let (range, at) = (frame.framed(framing), frame.at as usize);
        self.block.bytes.slice(at + range.start..at + range.end)
    }

    /// Whether it has a second view.
    pub fn has_two_views(&self) -> bool {
        self.block.second.is_some()
    }

    /// The topics of one of its views; those of an event with one view are all in the first.
    pub fn topics_in(&self, view: View) -> &[Topic] {
        match (view, self.has_two_views()) {
            (View::First, false) => self.topics(),
            (View::First, true) => &self.topics()[..1],
            (View::Second, _) => &self.topics()[1..],
        }
    }

    /// Bytes of memory that it takes while it is kept in a [`crate::Window`]: its bytes, the fixed parts, and its topics if those are not another
    /// record's too. What several records of an append share is counted once, with the first of them.
    pub fn cost(&self) -> usize {
        let extra = if self.index == 0 { self.block.extra } else { 0 };
        cost(self.part(), self.second(), extra)
    }
}

impl fmt::Debug for Record {
    /// What it says, not how it lies in memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let views = [View::First, View::Second].map(|view| String::from_utf8_lossy(self.wire_in(view, Framing::Chunked)));
        f.debug_struct("Record")
            .field("position", &self.position())
            .field("accepted_at", &self.accepted_at())
            .field("topics", &self.topics())
            .field("event_type", &self.event_type())
            .field("publisher_id", &self.publisher_id())
            .field("private", &self.is_private())
            .field("data", &self.data())
            .field("views", &&views[..=usize::from(self.has_two_views())])
            .finish()
    }
}

fn cost(part: &Part, second: Option<&Frame>, extra: u32) -> usize {
    let topics = if part.frame.flags & OWN_TOPICS == 0 { 0 } else { part.topics.memory() };
    block::part_cost(&part.frame, second) + topics + extra as usize
}
