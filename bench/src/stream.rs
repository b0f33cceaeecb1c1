//! The bytes of one subscription taken apart: response head, HTTP/1.1 chunks, lines, events.
//!
//! Written by hand and without the hub's own parser, so that a mistake in that one cannot hide itself; nothing is allocated per event.
//! It knows bytes, not which events should come.

/// What a stream says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said<'a> {
    /// The response head was a 200 and the first line came.
    Open,
    /// An event: its data and id.
    Event { data: &'a [u8], id: &'a [u8] },
    /// The hub says that events are missing.
    Gap,
    /// The body ended properly.
    End,
}

/// Something that is not a stream of the hub.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Broken(pub(crate) String);

#[derive(Debug)]
enum Place {
    Head,
    ChunkLength,
    /// Bytes left of the chunk.
    Chunk(usize),
    /// Bytes left of the CR LF after a chunk.
    ChunkEnd(usize),
    Ended,
}

/// One stream being read.
#[derive(Debug)]
pub(crate) struct Stream {
    place: Place,
    /// The head, or a line of the framing, or a line of the stream, as far as it came.
    pending: Vec<u8>,
    line: Vec<u8>,
    open: bool,
    data: Vec<u8>,
    id: Vec<u8>,
    gap: bool,
}

impl Stream {
    pub(crate) fn new() -> Stream {
        Stream { place: Place::Head, pending: Vec::new(), line: Vec::new(), open: false, data: Vec::new(), id: Vec::new(), gap: false }
    }

    /// Takes the next bytes and hands over what they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Said<'_>)) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.place {
                Place::Head => {
                    let Some(rest) = self.collect(bytes, b"\r\n\r\n") else { return Ok(()) };
                    let head = String::from_utf8_lossy(&self.pending).to_ascii_lowercase();
                    let chunked = head.contains("\r\ntransfer-encoding: chunked\r\n");
                    if !head.starts_with("http/1.1 200 ") || !chunked || !head.contains("\r\ncontent-type: text/event-stream\r\n") {
                        return Err(Broken(format!("not a stream: {head}")));
                    }
                    self.pending = Vec::new();
                    self.place = Place::ChunkLength;
                    bytes = rest;
                }
                Place::ChunkLength => {
                    let Some(rest) = self.collect(bytes, b"\r\n") else { return Ok(()) };
                    let digits = std::str::from_utf8(&self.pending).unwrap_or_default().trim_end();
                    let length = usize::from_str_radix(digits, 16).map_err(|_| Broken(format!("chunk length {digits:?}")))?;
                    self.pending.clear();
                    if length == 0 {
                        self.place = Place::Ended;
                        take(Said::End);
                        return Ok(());
                    }
                    self.place = Place::Chunk(length);
                    bytes = rest;
                }
                Place::Chunk(left) => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    self.place = if now.len() == left { Place::ChunkEnd(2) } else { Place::Chunk(left - now.len()) };
                    self.lines(now, &mut take);
                    bytes = rest;
                }
                Place::ChunkEnd(left) => {
                    if bytes[0] != b"\r\n"[2 - left] {
                        return Err(Broken("no line end after a chunk".into()));
                    }
                    self.place = if left == 1 { Place::ChunkLength } else { Place::ChunkEnd(1) };
                    bytes = &bytes[1..];
                }
                Place::Ended => return Err(Broken("bytes after the end".into())),
            }
        }
        Ok(())
    }

    /// Gathers bytes in `pending` until they end in `end`; what follows then, or nothing if more is to come.
    fn collect<'b>(&mut self, bytes: &'b [u8], end: &[u8]) -> Option<&'b [u8]> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.pending.push(byte);
            if self.pending.ends_with(end) {
                return Some(&bytes[at + 1..]);
            }
        }
        None
    }

    fn lines(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Said<'_>)) {
        while let Some(at) = bytes.iter().position(|&b| b == b'\n') {
            if self.line.is_empty() {
                self.end_of_line(&bytes[..at], take);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..at]);
                self.end_of_line(&line, take);
            }
            bytes = &bytes[at + 1..];
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_of_line(&mut self, line: &[u8], take: &mut impl FnMut(Said<'_>)) {
        if !std::mem::replace(&mut self.open, true) {
            take(Said::Open);
        }
        if let Some(data) = line.strip_prefix(b"data: ") {
            self.data.extend_from_slice(data);
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            self.id.clear();
            self.id.extend_from_slice(id);
        } else if line == b"event: tidings.gap" {
            self.gap = true;
        } else if line.is_empty() {
            if std::mem::take(&mut self.gap) {
                take(Said::Gap);
            } else if !self.data.is_empty() {
                take(Said::Event { data: &self.data, id: &self.id });
            }
            self.data.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, Broken> {
        let (mut stream, mut said) = (Stream::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            stream.push(piece, |what| {
                said.push(match what {
                    Said::Event { data, id } => format!("{} at {}", String::from_utf8_lossy(data), String::from_utf8_lossy(id)),
                    other => format!("{other:?}"),
                });
            })?;
        }
        Ok(said)
    }

    #[test]
    fn the_same_however_it_is_cut() {
        let body =
            b"5\r\n: ok\n\r\n20\r\ndata: 1:1\nid: a\n\ndata: 1:2\nid: b\r\n12\r\n\n\n: hb\nretry: 10\nx\r\n8\r\n\n: more\n\r\n0\r\n\r\n";
        let bytes = [HEAD, body].concat();
        for piece in 1..bytes.len() {
            // What follows the last chunk's length line is of no interest once the end was said.
            let said = read(&bytes[..bytes.len() - 2], piece).unwrap();
            assert_eq!(said, ["Open", "1:1 at a", "1:2 at b", "End"], "pieces of {piece}");
        }
    }

    #[test]
    fn gaps_are_heard() {
        let bytes = [HEAD, b"34\r\n: ok\nevent: tidings.gap\ndata: {\"reason\":0}\nid: c\n\n\r\n"].concat();
        assert_eq!(read(&bytes, 7).unwrap(), ["Open", "Gap"]);
    }

    #[test]
    fn what_is_not_a_stream_is_said() {
        for bytes in [&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"] {
            assert!(read(bytes, 9).is_err());
        }
        assert!(read(&[HEAD, b"x\r\n"].concat(), 9).is_err());
        assert!(read(&[HEAD, b"1\r\nab\r\n"].concat(), 9).is_err());
    }
}
