//! Wire format: whatever a publisher says, the bytes are whole events, a reader gets back what was published, and no text leaves its
//! field. Whatever a stream says, the parser neither panics nor depends on how the bytes were cut.
//!
//! It knows bytes, not shards; those are the target `shard`.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidings_core::{Epoch, Event, EventError, Framing, Item, Message, Parser, Position, Record, wire};

#[derive(Arbitrary, Debug)]
enum Input {
    /// Events as publishers may try to make them, and the lengths into which their bytes are cut.
    Events(Vec<Publish>, Vec<u8>),
    /// Bytes as a hostile hub may send them.
    Bytes(Vec<u8>, Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Publish {
    topic: String,
    other_topic: Option<String>,
    event_type: Option<String>,
    id: Option<String>,
    retry: Option<u32>,
    data: String,
    private: bool,
    position: u64,
}

impl Publish {
    fn event(&self) -> Result<Event, EventError> {
        let mut event = Event::new(&self.topic, self.data.clone())?;
        if let Some(topic) = &self.other_topic {
            event = event.with_topic(topic)?;
        }
        if let Some(event_type) = &self.event_type {
            event = event.with_type(event_type)?;
        }
        if let Some(id) = &self.id {
            event = event.with_id(id)?;
        }
        if let Some(retry) = self.retry {
            event = event.with_retry(retry)?;
        }
        Ok(if self.private { event.private() } else { event })
    }
}

fuzz_target!(|input: Input| match input {
    Input::Events(publishes, cuts) => round_trip(&publishes, &cuts),
    Input::Bytes(bytes, cuts) => {
        assert_eq!(parse(&bytes, &cuts), parse(&bytes, &[]), "how the bytes were cut must not matter");
        // A tight bound: an error or not, but no panic and no memory without end.
        let mut parser = Parser::new(16);
        for piece in pieces(&bytes, &cuts) {
            if parser.push(piece, |_| {}).is_err() {
                parser.reconnect();
            }
        }
    }
});

fn round_trip(publishes: &[Publish], cuts: &[u8]) {
    let mut stream = wire::opening(2_000, None).into_bytes();
    let mut expected = Vec::new();
    for publish in publishes {
        let Ok(event) = publish.event() else { continue };
        let (event_type, retry) = (event.event_type().unwrap_or("message").to_owned(), event.retry());
        let record = Record::draft(event).seal(Position { epoch: Epoch(7), sequence: publish.position }, 0);
        let plain = record.wire(Framing::Plain);
        check_lines(plain);
        let length = format!("{:x}\r\n", plain.len());
        assert_eq!(record.wire(Framing::Chunked), [length.as_bytes(), plain, b"\r\n"].concat());

        let data = publish.data.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(record.data(), data);
        expected.extend(retry.map(|ms| Item::Retry(ms.into())));
        expected.push(message(event_type, data, record.id().to_string()));
        stream.extend_from_slice(plain);
        stream.extend_from_slice(wire::HEARTBEAT.as_bytes());
    }
    stream.extend_from_slice(wire::ending(3_000, None).as_bytes());
    expected.insert(0, Item::Retry(2_000));
    expected.push(Item::Retry(3_000));
    let items: Vec<Item> = parse(&stream, cuts).into_iter().filter(|item| !matches!(item, Item::Comment(_))).collect();
    assert_eq!(items, expected);
}

/// S-2, S-3, S-6: LF only, no blank line but the last, and every line begins with a field that the hub wrote.
fn check_lines(plain: &[u8]) {
    assert!(!plain.contains(&b'\r'));
    let body = plain.strip_suffix(b"\n\n").expect("a blank line ends an event");
    for line in body.split(|&b| b == b'\n') {
        assert!([&b"event: "[..], b"retry: ", b"data: ", b"id: "].iter().any(|field| line.starts_with(field)), "{line:?}");
    }
    let ids = body.split(|&b| b == b'\n').filter(|line| line.starts_with(b"id: ")).count();
    assert_eq!(ids, 1, "one id, and no publisher can add another");
}

fn message(event_type: String, data: String, id: String) -> Item {
    let mut message = Message::default();
    (message.event_type, message.data, message.id) = (event_type, data, id);
    Item::Message(message)
}

fn parse(stream: &[u8], cuts: &[u8]) -> Vec<Item> {
    let mut parser = Parser::new(64 << 20);
    let mut items = Vec::new();
    for piece in pieces(stream, cuts) {
        parser.push(piece, |item| items.push(item)).expect("nothing here is that long");
    }
    items
}

/// The bytes in pieces of these lengths (empty pieces too), the rest as one.
fn pieces<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &cut in cuts {
        let (piece, rest) = bytes.split_at(bytes.len().min(cut.into()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
