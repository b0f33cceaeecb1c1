//! A subscriber beside the load that notes the ids of events, for servers whose answers to publishes do not name them.
//!
//! It knows lines of a stream; a line that is cut by the transfer coding is lost, and found missing when the ids are counted.

use super::target::Target;
use crate::Failure;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Ids in the order of their events.
pub(super) struct Watcher {
    ids: Receiver<String>,
    stream: TcpStream,
}

/// How long it waits for the stream to begin, and for an event that was published.
const PATIENCE: Duration = Duration::from_secs(10);

impl Watcher {
    /// Subscribes; returns once the stream has begun.
    pub(super) fn start(target: &Target) -> Result<Watcher, Failure> {
        let fail = |error: std::io::Error| Failure::Running(format!("watching the stream: {error}"));
        let mut stream = TcpStream::connect(target.address).map_err(fail)?;
        let token = target.tokens.of_subscribers(0, 1)?.pop().unwrap_or_default();
        stream.write_all(target.subscribe_request(0, "", &token).as_bytes()).map_err(fail)?;
        let reader = stream.try_clone().map_err(fail)?;
        let (send, ids) = channel();
        let (begun, has_begun) = channel();
        thread::spawn(move || {
            let mut head = true;
            let mut event = (None, false);
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if head {
                    if line == b"\r" {
                        head = false;
                        let _ = begun.send(());
                    }
                    continue;
                }
                let line = String::from_utf8_lossy(&line);
                if let Some(id) = line.strip_prefix("id:") {
                    event.0 = Some(id.trim_start_matches(' ').to_owned());
                } else if line.starts_with("data:") {
                    event.1 = true;
                } else if line.is_empty()
                    && let (Some(id), true) = std::mem::take(&mut event)
                    && send.send(id).is_err()
                {
                    return;
                }
            }
        });
        has_begun.recv_timeout(PATIENCE).map_err(|_| Failure::Running("the stream to be watched does not begin".into()))?;
        Ok(Watcher { ids, stream })
    }

    /// The id of an event by its number, from 0.
    pub(super) fn id(&self, number: usize) -> Option<String> {
        let mut ids = (0..=number).map(|_| self.ids.recv_timeout(PATIENCE).ok());
        ids.nth(number).flatten()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // What the thread waits for ends with it; that the other side was first does no harm.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
