//! A record as a durable store keeps it: one run of bytes, drawn field by field in `docs/formats/log.md`.
//!
//! Its position and time are the store's to keep, and so is the checksum that says that the bytes are the ones that were written.

use super::{
    Frame, NAMED, PRIVATE, Record, View,
    block::{Block, OWN_TOPICS, Part, Parts, block_cost},
};
use crate::{Framing, Position, Topic, Topics};
use bytes::Bytes;
use std::sync::Arc;

// What is private or has an id of its publisher's has the same bits as in memory.
const TYPED: u8 = 2;
const TWO_VIEWS: u8 = 8;
/// Bytes before the topics.
const FIXED: usize = 18;
/// Bytes before the wire bytes of a second view.
const SECOND: usize = 17;

impl Record {
    /// Bytes of its stored form.
    pub fn stored_len(&self) -> usize {
        let name = |text: Option<&str>, len: usize| text.map_or(0, |text| len + text.len());
        let topics: usize = self.topics().iter().map(|topic| 2 + topic.as_str().len()).sum();
        let second = self.second().map_or(0, |second| SECOND + second.len as usize);
        FIXED + topics + name(self.event_type(), 1) + name(self.publisher_id(), 2) + second + self.part().frame.len as usize
    }

    /// Appends its stored form.
    pub fn put_stored(&self, to: &mut Vec<u8>) {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let (Part { topics, frame }, bytes) = (self.part(), self.bytes());
        let (event_type, id) = (self.event_type(), self.publisher_id());
        to.push(frame.flags & (PRIVATE | NAMED) | flag(event_type.is_some(), TYPED) | flag(self.has_two_views(), TWO_VIEWS));
        // Topics are at most a thousand, names as long as `limits` allows.
        to.push(frame.start);
        to.extend((topics.len() as u16).to_le_bytes());
        frame.put_places(bytes, to);
        to.extend(0u16.to_le_bytes());
        for topic in topics.iter() {
            to.extend((topic.as_str().len() as u16).to_le_bytes());
            to.extend(topic.as_str().as_bytes());
        }
        if let Some(event_type) = event_type {
            to.push(event_type.len() as u8);
            to.extend(event_type.as_bytes());
        }
        if let Some(id) = id {
            to.extend((id.len() as u16).to_le_bytes());
            to.extend(id.as_bytes());
        }
        if let Some(second) = self.second() {
            let bytes = self.wire_in(View::Second, Framing::Chunked);
            to.extend(second.len.to_le_bytes());
            to.push(second.start);
            second.put_places(bytes, to);
            to.extend(bytes);
        }
        to.extend(bytes);
    }

    /// The same record again, sharing the buffer; `None` if the bytes are not the stored form of one. `near` are the topics of an
    /// event read before it: events that follow each other often have the same ones, which are then shared.
    pub fn from_stored(position: Position, accepted_at: u64, bytes: &Bytes, near: &[Topic]) -> Option<Record> {
        let fixed = bytes.get(..FIXED)?;
        let flags = fixed[0];
        let mut rest = Rest(bytes, FIXED);
        let mut topic = |n: u16| {
            let name = rest.len16().and_then(|len| rest.text(len))?;
            let same = near.get(usize::from(n)).filter(|topic| topic.as_str() == name);
            Some(same.cloned().unwrap_or_else(|| Topic::stored(name)))
        };
        let topics = match u16::from_le_bytes([fixed[2], fixed[3]]) {
            1 => Topics::stored(std::iter::once(topic(0)?)),
            count => Topics::stored((0..count).map(topic).collect::<Option<Vec<Topic>>>()?.into_iter()),
        }?;
        let event_type = if flags & TYPED == 0 { None } else { Some(rest.len8().and_then(|len| rest.text(len))?) };
        let id = if flags & NAMED == 0 { None } else { Some(rest.len16().and_then(|len| rest.text(len))?) };
        rest.bytes(usize::from(u16::from_le_bytes([fixed[16], fixed[17]])))?;
        let from = rest.1;
        let second = if flags & TWO_VIEWS == 0 { None } else { Some(Box::new(rest.second_view()?)) };
        let at = rest.1 - from;
        let bytes = bytes.slice(from + second.as_ref().map_or(0, |_| SECOND)..);
        let at = at - second.as_ref().map_or(0, |_| SECOND);
        let frame = Frame::stored(&bytes[at..], fixed[1], &fixed[4..16])?;
        // Each view has topics of its own.
        if topics.len() < 1 + usize::from(second.is_some()) {
            return None;
        }
        topics.count();
        let frame = Frame { at: at as u32, flags: flags & (PRIVATE | NAMED) | OWN_TOPICS, ..frame };
        let part = Part { topics, frame };
        let Position { epoch, sequence: first } = position;
        let extra = block_cost(bytes.len()) as u32;
        let block = Block { bytes, parts: Parts::One(part), second, first, accepted_at, epoch, extra };
        let record = Record { block: Arc::new(block), index: 0 };
        // They are in its wire bytes too.
        (record.event_type() == event_type && record.publisher_id() == id).then_some(record)
    }
}

impl Frame {
    /// Where its data is.
    fn put_places(&self, bytes: &[u8], to: &mut Vec<u8>) {
        for number in [self.data_start.into(), self.data_end, self.data_lines(bytes)] {
            to.extend(number.to_le_bytes());
        }
    }

    /// Of bytes that are its own; `places` are 12 more. How many lines there are is seen in the data.
    fn stored(bytes: &[u8], start: u8, places: &[u8]) -> Option<Frame> {
        let u32_at = |at: usize| u32::from_le_bytes([places[at], places[at + 1], places[at + 2], places[at + 3]]);
        let (data_start, data_end) = (u16::try_from(u32_at(0)).ok()?, u32_at(4));
        let in_order = u16::from(start) <= data_start && u32::from(data_start) <= data_end && data_end as usize + 2 <= bytes.len();
        in_order.then_some(Frame { at: 0, len: u32::try_from(bytes.len()).ok()?, data_end, data_start, start, flags: 0 })
    }
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8], usize);

impl<'a> Rest<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.0.get(self.1..self.1.checked_add(len)?)?;
        self.1 += len;
        Some(bytes)
    }

    fn len8(&mut self) -> Option<usize> {
        self.bytes(1).map(|bytes| bytes[0].into())
    }

    fn len16(&mut self) -> Option<usize> {
        self.bytes(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]).into())
    }

    /// The length of its bytes, where its parts are, and the bytes.
    fn second_view(&mut self) -> Option<Frame> {
        let fixed = self.bytes(SECOND)?;
        let len = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]) as usize;
        Frame::stored(self.bytes(len)?, fixed[4], &fixed[5..])
    }

    fn text(&mut self, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Event, Framing};
    use proptest::prelude::*;

    const AT: Position = Position { epoch: Epoch(7), sequence: 9 };

    fn events() -> impl Strategy<Value = Event> {
        let name = "[a-z/]{1,8}";
        (
            prop::collection::vec(name, 1..4),
            "[ -~\n\r]{0,300}",
            prop::option::of(name),
            prop::option::of(name),
            any::<(bool, Option<u16>)>(),
        )
            .prop_map(|(topics, data, event_type, id, (private, retry))| {
                let mut event = Event::new(&topics[0], data).unwrap();
                for topic in &topics[1..] {
                    event = event.with_topic(topic).unwrap();
                }
                event = event.with_type(&event_type.unwrap_or_default()).unwrap();
                event = event.with_id(&id.unwrap_or_default()).unwrap();
                if let Some(retry) = retry {
                    event = event.with_retry(retry.into()).unwrap();
                }
                if private { event.private() } else { event }
            })
    }

    proptest! {
        /// Whatever was stored reads back as the same record; whatever else is read does not panic.
        #[test]
        fn round_trip(event in events(), near in events(), cut in any::<prop::sample::Index>(), flip: u8) {
            let record = Record::draft(event.clone()).seal(AT, 5);
            prop_assert_eq!(record.retry(), event.retry());
            let elsewhere = Position { epoch: Epoch(8), sequence: 1 };
            let (again, directly) = (record.redraft().seal(elsewhere, 6), Record::draft(event).seal(elsewhere, 6));
            prop_assert_eq!(format!("{again:?}"), format!("{directly:?}"));
            let near = Record::draft(near).seal(AT, 5);
            let mut bytes = Vec::new();
            record.put_stored(&mut bytes);
            prop_assert_eq!(record.stored_len(), bytes.len());
            prop_assert_eq!(record.is_empty(), record.data().is_empty());
            for near in [&[], near.topics(), record.topics()] {
                let read = Record::from_stored(AT, 5, &Bytes::from(bytes.clone()), near).expect("the stored form");
                prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
            }
            let cut = cut.index(bytes.len());
            let _ = Record::from_stored(AT, 5, &Bytes::copy_from_slice(&bytes[..cut]), &[]);
            bytes[cut] ^= flip;
            if let Some(read) = Record::from_stored(AT, 5, &bytes.into(), &[]) {
                let _ = (read.wire(Framing::Plain), read.wire(Framing::Chunked), read.data());
            }
        }
    }
}
