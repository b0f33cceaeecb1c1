//! Engine A's connection: a mailbox for one frame, which an HTTP library empties as fast as its client reads.
//!
//! It knows bytes and wakers. What is put into a mailbox, and when, is the shard's; there is no cursor, filter or lag logic here.

use super::{
    driver::{Incarnated, Shared},
    ticket::Ticket,
};
use bytes::Bytes;
use http_body::{Body, Frame};
use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tidings_core::shard::EndStyle;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};

/// What an HTTP library gets to write the last bytes of a stream that is broken off after them: more than a busy machine keeps a task waiting.
const FLUSH: Duration = Duration::from_millis(500);

/// The slot between a shard and a response body.
pub(crate) struct Mailbox {
    shard: Arc<Shared>,
    state: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Known once the shard has taken the subscriber over.
    id: Option<Incarnated>,
    frame: Option<Bytes>,
    /// The shard was told that there is no room, and waits to hear that there is.
    blocked: bool,
    end: Option<EndStyle>,
    /// The body was dropped.
    gone: bool,
    /// It has been taken off the shard's account of bodies.
    settled: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn new(shard: Arc<Shared>) -> Arc<Mailbox> {
        Arc::new(Mailbox { shard, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, Slot> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard took the subscriber over; false if the body is gone already.
    pub(super) fn attach(&self, id: Incarnated) -> bool {
        let mut state = self.state();
        state.id = Some(id);
        !state.gone
    }

    /// Takes all of the bytes or none.
    pub(super) fn write(&self, bytes: &Bytes) -> usize {
        let waker = {
            let mut state = self.state();
            if state.gone || state.frame.is_some() {
                state.blocked = true;
                return 0;
            }
            state.frame = Some(bytes.clone());
            state.waker.take()
        };
        wake(waker);
        bytes.len()
    }

    /// Ends the body: after its frame if the end is clean, at once otherwise.
    pub(super) fn finish(&self, end: EndStyle) {
        let waker = {
            let mut state = self.state();
            // A planned end may abort too, but only after its last bytes; a forced one has nothing left that has to arrive.
            state.end = Some(end);
            self.settle(&mut state);
            state.waker.take()
        };
        wake(waker);
    }

    /// A body that has ended or gone does not count any more: who drains does not wait for somebody who holds one and never reads it.
    fn settle(&self, state: &mut Slot) {
        if !mem::replace(&mut state.settled, true) {
            self.shard.left();
        }
    }

    /// Breaks the body off and forgets what it held.
    pub(super) fn break_off(&self) {
        self.state().frame = None;
        self.finish(EndStyle::Abort);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// The wire bytes of one subscription as a response body: the first comment is ready at once, the end is clean or an error as the
/// hub decided. Dropping it unsubscribes.
pub struct EventBody(State);

enum State {
    /// Nobody has asked for its bytes yet; the server may still take its connection over instead.
    Waiting(Ticket),
    Opening(Pin<Box<dyn Future<Output = Option<Attached>> + Send + Sync>>),
    Attached(Attached),
    /// Its subscription went elsewhere, or the hub has stopped.
    Nothing,
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBody").finish_non_exhaustive()
    }
}

impl EventBody {
    pub(super) fn attached(attached: Attached) -> EventBody {
        EventBody(State::Attached(attached))
    }

    /// A body that subscribes when it is read first.
    pub(super) fn waiting(ticket: Ticket) -> EventBody {
        EventBody(State::Waiting(ticket))
    }

    /// The next bytes; `None` after a clean end.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        loop {
            self.0 = match &mut self.0 {
                State::Attached(attached) => return attached.poll_bytes(cx),
                State::Nothing => return Poll::Ready(Some(Err(Aborted))),
                State::Waiting(ticket) => match ticket.take() {
                    Some(prepared) => State::Opening(Box::pin(prepared.open())),
                    None => State::Nothing,
                },
                State::Opening(opening) => ready!(opening.as_mut().poll(cx)).map_or(State::Nothing, State::Attached),
            };
        }
    }
}

/// The reading end of a mailbox.
pub(super) struct Attached {
    mailbox: Arc<Mailbox>,
    /// Bytes were handed over that the HTTP library may still hold.
    unflushed: bool,
    /// It is given time to write them.
    flushing: Option<Pin<Box<Sleep>>>,
}

/// The hub broke the stream off (lag, stalled write, a failed shard, a deadline). The client reconnects and resumes by its cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the hub broke the stream off")]
pub struct Aborted;

impl Attached {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Attached {
        Attached { mailbox, unflushed: false, flushing: None }
    }

    /// The next bytes; `None` after a clean end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let mut state = self.mailbox.state();
        if let Some(bytes) = state.frame.take() {
            if mem::take(&mut state.blocked)
                && let Some(id) = state.id
            {
                drop(state);
                self.mailbox.shard.writable(id);
            }
            self.unflushed = true;
            return Poll::Ready(Some(Ok(bytes)));
        }
        match state.end {
            Some(EndStyle::Clean) => Poll::Ready(None),
            Some(_) => {
                drop(state);
                if self.unflushed {
                    // An HTTP library that is told of an error drops what it has not written. Being told to wait it writes first; over
                    // HTTP/2 another task does, and nothing says when.
                    if Handle::try_current().is_ok() {
                        ready!(self.flushing.get_or_insert_with(|| Box::pin(sleep(FLUSH))).as_mut().poll(cx));
                    }
                    self.unflushed = false;
                }
                Poll::Ready(Some(Err(Aborted)))
            }
            None => {
                self.unflushed = false;
                if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        self.poll_bytes(cx).map_ok(Frame::data)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.mailbox.state();
        state.gone = true;
        state.frame = None;
        // A waker holds the task of its connection: it must not stay in a mailbox that the shard still has.
        let waker = state.waker.take();
        let (id, ended) = (state.id, state.end.is_some());
        self.mailbox.settle(&mut state);
        drop(state);
        drop(waker);
        if let (Some(id), false) = (id, ended) {
            self.mailbox.shard.gone(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    /// An HTTP library whose tasks get their turn late, as on a machine with more to do than it can, has time to write what it was given
    /// before it hears that the stream was broken off. One that has written everything hears it at once.
    #[tokio::test(start_paused = true)]
    async fn the_last_bytes_have_time_to_be_written() {
        const TURN: Duration = Duration::from_millis(400);
        let (shard, _poll) = Shared::new(0).unwrap();
        for written in [false, true] {
            shard.bodies.fetch_add(1, Ordering::Relaxed);
            let mailbox = Mailbox::new(shard.clone());
            let (mut body, mut cx) = (Attached::new(mailbox.clone()), Context::from_waker(Waker::noop()));
            assert_eq!(mailbox.write(&Bytes::from_static(b"data: 1\n\n")), 9);
            assert_eq!(body.poll_bytes(&mut cx), Poll::Ready(Some(Ok(Bytes::from_static(b"data: 1\n\n")))));
            if written {
                assert!(body.poll_bytes(&mut cx).is_pending());
            }
            mailbox.finish(EndStyle::Abort);
            assert_eq!(body.poll_bytes(&mut cx).is_pending(), !written);
            if !written {
                tokio::time::advance(TURN).await;
                assert!(body.poll_bytes(&mut cx).is_pending(), "they may not be written yet");
                tokio::time::advance(TURN).await;
                assert_eq!(body.poll_bytes(&mut cx), Poll::Ready(Some(Err(Aborted))));
            }
        }
    }
}
