//! The browser's end of a connection, as bytes: HTTP/1.1 chunks, lines, and where comments and ends may stand. A decoder of its own,
//! so that the core's framing is not judged by itself. It knows no events; the core's parser, which clients use, reads those.

/// The reconnection time that events of the simulation carry: outside of the range that the hub says for itself.
pub(crate) const RETRY_OF_EVENT: &str = "retry: 1234";

/// Takes chunks apart, however they are cut.
#[derive(Default)]
pub(crate) struct Chunks {
    /// The chunk's length line, or the line end after its data, as far as it came.
    line: Vec<u8>,
    left: usize,
    data_ended: bool,
    /// After the empty chunk.
    last: bool,
    done: bool,
}

impl Chunks {
    pub(crate) fn push(&mut self, bytes: &[u8], stream: &mut Vec<u8>) -> Result<(), String> {
        for &byte in bytes {
            if self.done {
                return Err("bytes after the final chunk".into());
            }
            if self.left > 0 {
                stream.push(byte);
                self.left -= 1;
                self.data_ended = self.left == 0;
                continue;
            }
            self.line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let text = line.strip_suffix(b"\r\n").ok_or("a chunk's line ends without CR")?;
            if self.data_ended || self.last {
                if !text.is_empty() {
                    return Err(format!("a chunk is longer than it says: {text:?}"));
                }
                (self.data_ended, self.done) = (false, self.last);
                continue;
            }
            let digits = std::str::from_utf8(text).ok().filter(|digits| !digits.is_empty()).ok_or("a chunk without a length")?;
            self.left = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk's length is {digits:?}"))?;
            self.last = self.left == 0;
        }
        Ok(())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }
}

/// Watches the lines of a stream.
#[derive(Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    /// An event has begun and its blank line has not come.
    in_event: bool,
    /// The last complete line was a `retry` outside of an event.
    ends_with_retry: bool,
}

impl Lines {
    pub(crate) fn push(&mut self, stream: &[u8]) -> Result<(), String> {
        for &byte in stream {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.ends_with_retry = false;
            if line.contains(&b'\r') {
                return Err("CR in the stream (S-2)".into());
            }
            if line.is_empty() {
                if !self.in_event {
                    return Err("a blank line that ends nothing (S-3)".into());
                }
                self.in_event = false;
            } else if line.starts_with(b":") {
                if self.in_event {
                    return Err("a comment inside an event".into());
                }
            } else if line.starts_with(b"retry: ") && line != RETRY_OF_EVENT.as_bytes() {
                self.ends_with_retry = !self.in_event;
            } else {
                self.in_event = true;
            }
        }
        Ok(())
    }

    /// S-43: after a complete event, with a bare `retry` line last.
    pub(crate) fn is_planned_end(&self) -> bool {
        self.line.is_empty() && !self.in_event && self.ends_with_retry
    }
}
