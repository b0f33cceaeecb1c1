//! A subscriber on a blocking socket that looks for nothing but the numbers of events.

use anyhow::{Result, bail};
use memchr::memmem;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

pub(super) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read and not looked at.
    unread: usize,
}

/// What came.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    count: u64,
    last: u64,
    /// How often a number did not follow the one before.
    jumps: u64,
    /// How many came while the reader was slow.
    pub(super) slowly: u64,
}

impl Seen {
    /// Whether all numbers from 1 to the last came, once and in order.
    pub(super) fn is_whole(self, events: u64) -> bool {
        (self.count, self.last, self.jumps) == (events, events, 0)
    }
}

const DATA: &[u8] = b"\ndata: ";
/// Digits of a number.
const DIGITS: usize = 20;
const PATIENCE: Duration = Duration::from_mins(1);

impl Reader {
    pub(super) fn open(address: SocketAddr, path: &str, cursor: &str) -> Result<Reader> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A cursor that begins with `#` may stand in a header as it is.
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nlast-event-id: {cursor}\r\n\r\n")?;
        Ok(Reader { stream, buffer: vec![0; 1 << 20], unread: 0 })
    }

    /// Waits for one event.
    pub(super) fn first(&mut self) -> Result<()> {
        self.numbers(1, None).map(drop)
    }

    /// Reads so many events; with `most`, so many bytes at a time.
    pub(super) fn numbers(&mut self, events: u64, most: Option<usize>) -> Result<Seen> {
        let mut seen = Seen::default();
        while seen.count < events {
            self.more(&mut seen, most)?;
        }
        Ok(seen)
    }

    /// Reads so many events, the first of them slowly.
    pub(super) fn sip(
        &mut self,
        events: u64,
        bytes: usize,
        pause: Duration,
        slow: Duration,
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<Seen> {
        let began = Instant::now();
        let mut seen = Seen::default();
        while seen.count < events {
            let slowly = began.elapsed() < slow;
            self.more(&mut seen, slowly.then_some(bytes))?;
            if slowly {
                seen.slowly = seen.count;
                thread::sleep(pause);
            }
            meanwhile()?;
        }
        Ok(seen)
    }

    fn more(&mut self, seen: &mut Seen, most: Option<usize>) -> Result<()> {
        let room = &mut self.buffer[self.unread..];
        let len = room.len().min(most.unwrap_or(usize::MAX));
        let count = self.stream.read(&mut room[..len])?;
        if count == 0 {
            bail!("the stream ended after {} events", seen.count);
        }
        let bytes = &self.buffer[..self.unread + count];
        let mut at = 0;
        // Events of many sizes come in chunks cut anywhere: what may be cut off is looked at again with what follows.
        while let Some(found) = memmem::find(&bytes[at..], DATA) {
            let from = at + found + DATA.len();
            let Some(digits) = bytes.get(from..from + DIGITS) else { break };
            let Some(number) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()) else {
                at = from;
                continue;
            };
            seen.jumps += u64::from(number != seen.last + 1);
            (seen.count, seen.last) = (seen.count + 1, number);
            at = from + DIGITS;
        }
        let rest = bytes.len() - at.max(bytes.len().saturating_sub(DATA.len() + DIGITS));
        let end = bytes.len();
        self.buffer.copy_within(end - rest..end, 0);
        self.unread = rest;
        Ok(())
    }
}
