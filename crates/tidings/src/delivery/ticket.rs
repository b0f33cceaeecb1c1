//! A subscription that has been granted and not been given to a shard yet: whoever comes first takes it, the response body it came with
//! (engine A) or the server that owns the socket (engine B).
//!
//! It knows neither requests nor responses.

use super::{
    body::{Attached, Mailbox},
    connection::Socket,
    driver::{Command, Shared},
    guest::Arrival,
};
use std::{
    fmt,
    mem::ManuallyDrop,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};
use tidings_core::{Framing, limits, wire};

/// The shards, as somebody sees them who has a subscriber for one.
#[derive(Clone)]
pub(super) struct Shards(pub(super) Arc<[Arc<Shared>]>);

/// One more in a shard's account of connections, until somebody else answers for it.
struct Load<'a>(&'a Arc<Shared>);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.left();
    }
}

impl Load<'_> {
    fn hand_over(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Shards {
    /// The shard with the fewest connections: in turn while they are few, later in runs.
    fn least_loaded(&self) -> Option<Load<'_>> {
        let shard = self.0.iter().min_by_key(|shard| {
            let connections = shard.bodies.load(Ordering::Relaxed);
            if connections < limits::SHARD_RUN { connections } else { limits::SHARD_RUN + connections / limits::SHARD_RUN }
        })?;
        shard.bodies.fetch_add(1, Ordering::Relaxed);
        Some(Load(shard))
    }

    pub(super) async fn open(&self, arrival: Arrival) -> Option<Attached> {
        let load = self.least_loaded()?;
        let shard = load.0;
        let mailbox = Mailbox::new(shard.clone());
        // From here on dropping it settles the account, also when this future is dropped.
        let attached = Attached::new(mailbox.clone());
        load.hand_over();
        let permit = shard.inbox.clone().acquire_owned().await.ok()?;
        shard.send(Command::Subscribe(arrival, mailbox, permit)).then_some(attached)
    }
}

/// In the extensions of a request whose connection the server can take over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MayDetach;

/// A granted subscription; clones are the same one.
#[derive(Clone)]
pub(crate) struct Ticket(Arc<Mutex<Option<Prepared>>>);

/// What a ticket stands for.
pub(crate) struct Prepared {
    arrival: Arrival,
    shards: Shards,
}

impl Ticket {
    pub(super) fn new(arrival: Arrival, shards: Shards) -> Ticket {
        Ticket(Arc::new(Mutex::new(Some(Prepared { arrival, shards }))))
    }

    /// The subscription, for the first who asks.
    pub(crate) fn take(&self) -> Option<Prepared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("new", &self.arrival.new).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Engine A: into a mailbox.
    pub(super) async fn open(self) -> Option<Attached> {
        self.shards.open(self.arrival).await
    }

    /// Engine B: onto a socket, to which nothing of the answer was written yet. `head` is written in front of the stream, in one piece
    /// with its first bytes, for which it should have room. `None` if the hub has stopped; the socket is closed then.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only the server has sockets to give"))]
    pub(crate) async fn attach(self, socket: Socket, framing: Framing, mut head: Vec<u8>) -> Option<Ring> {
        let Prepared { mut arrival, shards } = self;
        let new = &mut arrival.new;
        new.feed.framing = framing;
        wire::put_frame(&mut head, framing, &new.opening);
        new.opening = head.into();
        let load = shards.least_loaded()?;
        let shard = load.0;
        let permit = shard.inbox.clone().acquire_owned().await.ok()?;
        let sent = shard.put(Command::Attach(arrival, socket, permit));
        sent.then(|| {
            load.hand_over();
            Ring(shard.clone())
        })
    }
}

/// A shard that something was handed over to, and that is woken for it when this is dropped. Who hands over several things drops what
/// it got for them together, and the shard is woken once.
#[must_use]
pub(crate) struct Ring(Arc<Shared>);

impl Drop for Ring {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}
