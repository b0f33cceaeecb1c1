//! What a shard holds for each subscriber: a mailbox in front of an HTTP library (engine A), or the client's socket itself (engine B).
//!
//! It writes bytes, throws away what a client sends, and ends connections. What is written, and when, is the shard's to say.

use super::{body::Mailbox, driver::Incarnated};
use bytes::Bytes;
use mio::net::TcpStream;
use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    sync::Arc,
    time::Duration,
};
use tidings_core::shard::{CloseReason, Closed, SubscriberId};

/// Bytes thrown away in one turn: a client has nothing to say after its request, and may not keep a shard busy with it.
pub(super) const SCRAP: usize = 16 << 10;
/// Reads in one turn, for a client that sends as fast as it is read, a little at a time.
const READS: usize = 8;

/// Told when a connection it has let in is gone.
pub(crate) trait Door: Send + Sync {
    fn left(&self, place: u32);
}

/// A door as each of its sockets keeps it: one word.
#[derive(Clone)]
pub(crate) struct Doorway(Arc<Box<dyn Door>>);

impl Doorway {
    #[cfg(feature = "server")]
    pub(crate) fn new(door: impl Door + 'static) -> Doorway {
        Doorway(Arc::new(Box::new(door)))
    }
}

impl fmt::Debug for Doorway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorway").finish_non_exhaustive()
    }
}

/// A socket that has left its HTTP library. Its place in the counts of whoever accepted it is given back when it is dropped.
pub(crate) struct Socket {
    stream: TcpStream,
    place: u32,
    door: Doorway,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("stream", &self.stream).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.door.0.left(self.place);
    }
}

#[derive(Debug)]
pub(super) enum Connection {
    Body(Arc<Mailbox>),
    Socket(Socket),
}

/// The connections of a shard, by slot.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Seat>);

#[derive(Debug)]
enum Seat {
    Free,
    /// By whom; the slot is where it stands.
    Taken(u32, Connection),
}

// One for each idle connection, beside the shard's own slot. (With debug assertions a socket remembers where it is registered.)
#[cfg(all(unix, not(debug_assertions)))]
const _: () = assert!(size_of::<Seat>() <= 24);

impl Connections {
    /// Whoever is in a slot.
    pub(super) fn at(&mut self, index: usize) -> Option<(SubscriberId, &mut Connection)> {
        match self.0.get_mut(index)? {
            Seat::Free => None,
            Seat::Taken(generation, connection) => Some((SubscriberId::in_slot(index, *generation), connection)),
        }
    }

    /// Takes a subscriber's connection out, if it is still there.
    pub(super) fn take(&mut self, id: SubscriberId) -> Option<Connection> {
        let seat =
            self.0.get_mut(id.index()).filter(|seat| matches!(seat, Seat::Taken(generation, _) if *generation == id.generation()))?;
        match std::mem::replace(seat, Seat::Free) {
            Seat::Taken(_, connection) => Some(connection),
            Seat::Free => None,
        }
    }

    pub(super) fn put(&mut self, id: SubscriberId, connection: Connection) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, || Seat::Free);
        }
        self.0[id.index()] = Seat::Taken(id.generation(), connection);
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Connection> {
        self.0.drain(..).filter_map(|seat| match seat {
            Seat::Taken(_, connection) => Some(connection),
            Seat::Free => None,
        })
    }
}

/// What became of a write.
pub(super) enum Written {
    /// So many bytes were taken; fewer than all means that there is no room now.
    Taken(usize),
    Gone,
}

/// What a socket had to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Nothing more now.
    Nothing,
    /// More than is looked at in one turn.
    More,
    /// The client has ended its half; it may read on.
    HalfClosed,
    Gone,
}

impl Socket {
    /// A socket that nobody else watches, with its place in the counts of `door`.
    #[cfg(feature = "server")]
    pub(crate) fn adopt(stream: TcpStream, door: Doorway, place: u32) -> Socket {
        Socket { stream, place, door }
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    fn write(&mut self, bytes: &[u8]) -> Written {
        loop {
            match self.stream.write(bytes) {
                Ok(taken) => return Written::Taken(taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Written::Taken(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Written::Gone,
            }
        }
    }

    /// Reads and forgets; `scrap` is where to.
    pub(super) fn hear(&mut self, scrap: &mut [u8; SCRAP]) -> Heard {
        for _ in 0..READS {
            match self.stream.read(scrap) {
                Ok(0) => return Heard::HalfClosed,
                // A short read is not the end of what is there when the client's end stands behind it.
                Ok(n) if n < SCRAP => {}
                Ok(_) => return Heard::More,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
        }
        Heard::More
    }

    /// Whether the connection was reset.
    pub(super) fn is_broken(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }

    fn end(mut self, closed: Closed) {
        if closed.reason == CloseReason::Stalled {
            // It takes nothing: throw away what the kernel holds for it.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
            return;
        }
        // Closing with unread bytes would send a reset, and what the client has not read yet would be lost with it.
        self.hear(&mut [0; SCRAP]);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

impl Connection {
    pub(super) fn write(&mut self, bytes: &Bytes) -> Written {
        match self {
            Connection::Body(mailbox) => Written::Taken(mailbox.write(bytes)),
            Connection::Socket(socket) => socket.write(bytes),
        }
    }

    /// The shard took the subscriber over; false if its client has left already.
    pub(super) fn attach(&self, id: Incarnated) -> bool {
        match self {
            Connection::Body(mailbox) => mailbox.attach(id),
            Connection::Socket(_) => true,
        }
    }

    /// Ends it as the shard has decided. True if it was a socket, which nobody else accounts for.
    pub(super) fn end(self, closed: Closed) -> bool {
        match self {
            Connection::Body(mailbox) => {
                if closed.forced {
                    mailbox.break_off();
                } else {
                    mailbox.finish(closed.end);
                }
                false
            }
            Connection::Socket(socket) => {
                socket.end(closed);
                true
            }
        }
    }

    /// Breaks it off. True if it was a socket.
    pub(super) fn break_off(self) -> bool {
        match self {
            Connection::Body(mailbox) => {
                mailbox.break_off();
                false
            }
            Connection::Socket(_) => true,
        }
    }
}
