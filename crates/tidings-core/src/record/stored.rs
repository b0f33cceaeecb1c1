//! A record as a durable store keeps it: one run of bytes, drawn field by field in `docs/formats/log.md`.
//!
//! Its position and time are the store's to keep, and so is the checksum that says that the bytes are the ones that were written.

use super::Record;
use crate::{Position, Topic, Topics};
use bytes::Bytes;
use std::sync::Arc;

const PRIVATE: u8 = 1;
const TYPED: u8 = 2;
const NAMED: u8 = 4;
/// Bytes before the topics.
const FIXED: usize = 18;

impl Record {
    /// Bytes of its stored form.
    pub fn stored_len(&self) -> usize {
        let name = |text: &Option<Box<str>>, len: usize| text.as_ref().map_or(0, |text| len + text.len());
        let topics: usize = self.topics.iter().map(|topic| 2 + topic.as_str().len()).sum();
        FIXED + topics + name(&self.event_type, 1) + name(&self.id, 2) + self.wire.len()
    }

    /// Appends its stored form.
    pub fn put_stored(&self, to: &mut Vec<u8>) {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        to.push(flag(self.private, PRIVATE) | flag(self.event_type.is_some(), TYPED) | flag(self.id.is_some(), NAMED));
        // A chunk's length line has at most ten bytes, topics are at most a thousand, names as long as `limits` allows.
        to.push(self.start as u8);
        to.extend((self.topics.len() as u16).to_le_bytes());
        for number in [self.data_start, self.data_end, self.data_lines] {
            to.extend(number.to_le_bytes());
        }
        to.extend(0u16.to_le_bytes());
        for topic in self.topics.iter() {
            to.extend((topic.as_str().len() as u16).to_le_bytes());
            to.extend(topic.as_str().as_bytes());
        }
        if let Some(event_type) = &self.event_type {
            to.push(event_type.len() as u8);
            to.extend(event_type.as_bytes());
        }
        if let Some(id) = &self.id {
            to.extend((id.len() as u16).to_le_bytes());
            to.extend(id.as_bytes());
        }
        to.extend(&self.wire[..]);
    }

    /// The same record again, sharing the buffer; `None` if the bytes are not the stored form of one. `near` are the topics of an
    /// event read before it: events that follow each other often have the same ones, which are then shared.
    pub fn from_stored(position: Position, accepted_at: u64, bytes: &Bytes, near: &[Topic]) -> Option<Record> {
        let fixed = bytes.get(..FIXED)?;
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let flags = fixed[0];
        let mut rest = Rest(bytes, FIXED);
        let topics = (0..u16::from_le_bytes([fixed[2], fixed[3]]))
            .map(|n| {
                let len = rest.len16()?;
                let name = rest.text(len)?;
                let same = near.get(usize::from(n)).filter(|topic| topic.as_str() == name);
                Some(same.cloned().unwrap_or_else(|| Topic::stored(name)))
            })
            .collect::<Option<Arc<[Topic]>>>()?;
        let event_type = if flags & TYPED == 0 { None } else { Some(rest.len8().and_then(|len| rest.text(len))?.into()) };
        let id = if flags & NAMED == 0 { None } else { Some(rest.len16().and_then(|len| rest.text(len))?.into()) };
        rest.bytes(usize::from(u16::from_le_bytes([fixed[16], fixed[17]])))?;
        let wire = bytes.slice(rest.1..);
        let (start, data_start, data_end, data_lines) = (u32::from(fixed[1]), u32_at(4), u32_at(8), u32_at(12));
        let in_order = start <= data_start && data_start <= data_end && data_end as usize + 2 <= wire.len();
        let whole = in_order && !topics.is_empty();
        whole.then_some(Record {
            position,
            accepted_at,
            cost: super::cost(wire.len(), &topics) as u32,
            topics: Topics::stored(topics),
            event_type,
            id,
            private: flags & PRIVATE != 0,
            wire,
            start,
            data_start,
            data_end,
            data_lines,
        })
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
