//! The bytes of one subscription as they come in: head, chunks, lines, events. It allocates only for what a read cuts in two.
//!
//! It knows HTTP/1 and `text/event-stream` as far as a load run needs them, no sockets and no checks.

use super::stamp::Stamp;

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// The head of a 200, or the first line of the body.
    Head,
    Line,
    Event(Stamp),
    /// A gap the hub announced.
    Gap,
    /// The end of a chunked body.
    End,
    /// Another answer than 200.
    Refused(u16),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// Lines until the connection ends.
    Plain,
    /// Before a chunk's length.
    ChunkLength,
    /// So many bytes of a chunk are left.
    Chunk(usize),
    /// So many of the two bytes behind a chunk.
    ChunkEnd(usize),
    Ended,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    state: State,
    /// The beginning of what a read cut off: of the head, a chunk's length, or a line.
    rest: Vec<u8>,
    line: Vec<u8>,
    event: Option<Stamp>,
    gap: bool,
}

impl Stream {
    pub(super) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Item)) {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = cut(&mut self.rest, &mut bytes, b"\r\n\r\n") else { return };
                    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
                    if status != 200 {
                        self.state = State::Ended;
                        return take(Item::Refused(status));
                    }
                    let chunked = head.to_ascii_lowercase().windows(26).any(|field| field == b"transfer-encoding: chunked");
                    self.state = if chunked { State::ChunkLength } else { State::Plain };
                    take(Item::Head);
                }
                State::Plain => return self.lines(bytes, &mut take),
                State::ChunkLength => {
                    // The common case without a copy: the whole length is here.
                    let length = match memchr::memchr(b'\n', bytes) {
                        Some(end) if self.rest.is_empty() => {
                            let line = &bytes[..end];
                            bytes = &bytes[end + 1..];
                            parse_length(line)
                        }
                        _ => match cut(&mut self.rest, &mut bytes, b"\n") {
                            Some(line) => parse_length(&line),
                            None => return,
                        },
                    };
                    if length == 0 {
                        self.state = State::Ended;
                        return take(Item::End);
                    }
                    self.state = State::Chunk(length);
                }
                State::Chunk(left) => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    self.lines(now, &mut take);
                    bytes = later;
                    self.state = if now.len() == left { State::ChunkEnd(2) } else { State::Chunk(left - now.len()) };
                }
                State::ChunkEnd(left) => {
                    let now = left.min(bytes.len());
                    bytes = &bytes[now..];
                    self.state = if now == left { State::ChunkLength } else { State::ChunkEnd(left - now) };
                }
                State::Ended => return,
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    fn lines(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Item)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.line.is_empty() {
                self.take_line(&bytes[..end], take);
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, take);
            }
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
    }

    fn take_line(&mut self, line: &[u8], take: &mut impl FnMut(Item)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if let Some(event) = self.event.take() {
                take(Item::Event(event));
            }
            if std::mem::take(&mut self.gap) {
                take(Item::Gap);
            }
        } else if let Some(data) = line.strip_prefix(b"data:") {
            self.event = Stamp::read(data.strip_prefix(b" ").unwrap_or(data)).or(self.event);
        } else if line == b"event: tidings.gap" {
            self.gap = true;
        } else {
            take(Item::Line);
        }
    }
}

/// Everything before `end`, taken together with what earlier reads left; `None` while it is not complete.
fn cut(rest: &mut Vec<u8>, bytes: &mut &[u8], end: &[u8]) -> Option<Vec<u8>> {
    let from = rest.len().saturating_sub(end.len() - 1);
    rest.extend_from_slice(bytes);
    let Some(at) = rest[from..].windows(end.len()).position(|window| window == end) else {
        *bytes = &[];
        return None;
    };
    let after = rest.len() - (from + at + end.len());
    *bytes = &bytes[bytes.len() - after..];
    let mut found = std::mem::take(rest);
    found.truncate(from + at);
    Some(found)
}

fn parse_length(line: &[u8]) -> usize {
    let digits = line.iter().take_while(|digit| digit.is_ascii_hexdigit());
    digits.fold(0, |length, &digit| length << 4 | (digit as char).to_digit(16).unwrap_or_default() as usize)
}

#[cfg(test)]
mod tests {
    use super::{super::stamp::Phase, *};

    fn stamp(number: u32) -> (Stamp, String) {
        let stamp = Stamp { publisher: 3, phase: Phase::Measured, number, intended: 9 };
        let mut text = Vec::new();
        stamp.write(&mut text);
        (stamp, String::from_utf8(text).unwrap())
    }

    /// However the bytes are cut, the same comes out; chunk boundaries inside an event included.
    #[test]
    fn cuts_change_nothing() {
        let (first, one) = stamp(1);
        let (second, two) = stamp(2);
        let (a, b) = (format!(": ok\n\ndata: {one}xx\nid: 1\n\nda"), format!("ta: {two}\n\nevent: tidings.gap\ndata: {{}}\n\n"));
        let chunked = format!("{:x}\r\n{a}\r\n{:X}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len());
        for (head, body, end) in [("Transfer-Encoding: chunked", chunked, true), ("x: y", format!("{a}{b}"), false)] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes();
            for size in 1..bytes.len() {
                let (mut stream, mut items) = (Stream::default(), Vec::new());
                for piece in bytes.chunks(size) {
                    stream.push(piece, |item| items.push(item));
                }
                let mut expected = vec![Item::Head, Item::Line, Item::Line, Item::Event(first), Item::Event(second), Item::Gap];
                expected.extend(end.then_some(Item::End));
                assert_eq!(items, expected, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn refusals_are_seen() {
        let mut items = Vec::new();
        Stream::default().push(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", |item| items.push(item));
        assert_eq!(items, [Item::Refused(503)]);
    }
}
