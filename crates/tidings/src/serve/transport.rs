//! A socket as the HTTP engine sees it, and what its connection is doing.
//!
//! hyper cannot tell a connection that waits between two requests from one that sends a head byte by byte, and it cannot see that a
//! write makes no progress. Both are seen here, where every byte passes. What follows from it is decided in `connection.rs`; this file
//! knows no request, no response and no timer.

use super::{first::LOOKS, line::Line};
use bytes::{Buf, Bytes};
use std::{
    future::Future,
    io::{self, Read, Write},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing was read since the last response ended, or ever.
    Idle,
    /// A request head has begun and is not complete.
    Head,
    /// Some request is being answered.
    Busy,
}

/// hyper's own answer to a bad head is 70 to 120 bytes; what is longer is not one.
const ANSWER_MAX: usize = 512;

/// What a connection is doing, shared by its socket, its requests and its driver: all of them run in one task over HTTP/1.1.
#[derive(Debug)]
pub(super) struct State {
    heads: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    since: Instant,
    /// Requests being answered: at most one over HTTP/1.1.
    active: usize,
    multiplexed: bool,
    half_closed: bool,
    write_blocked: Option<Instant>,
    /// Held from the first byte of a head until the request is dispatched: bounds the buffers of unfinished heads.
    head_permit: Option<OwnedSemaphorePermit>,
    /// All output of earlier requests has reached the socket, so that what is written before a request is dispatched can only be hyper's
    /// own answer to a bad head.
    clean: bool,
    answer: Vec<u8>,
}

impl State {
    pub(super) fn new(heads: Arc<Semaphore>) -> Self {
        State {
            heads,
            inner: Mutex::new(Inner {
                phase: Phase::Idle,
                since: Instant::now(),
                active: 0,
                multiplexed: false,
                half_closed: false,
                write_blocked: None,
                head_permit: None,
                clean: true,
                answer: Vec::new(),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic in a handler unwinds through guards of this state; every change to it is complete at any moment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The phase, and since when.
    pub(super) fn phase(&self) -> (Phase, Instant) {
        let inner = self.lock();
        (inner.phase, inner.since)
    }

    /// Since when the peer has taken no byte although some wait.
    pub(super) fn write_blocked(&self) -> Option<Instant> {
        self.lock().write_blocked
    }

    /// Whether heads wait for a permit, or would.
    pub(super) fn heads_exhausted(&self) -> bool {
        self.heads.available_permits() == 0
    }

    /// The connection speaks HTTP/2: from now on only requests count, its heads are bounded by the engine.
    pub(super) fn set_multiplexed(&self) {
        let mut inner = self.lock();
        inner.multiplexed = true;
        inner.head_permit = None;
        inner.phase = Phase::Idle;
        inner.since = Instant::now();
    }

    /// The peer has ended its half of the connection.
    #[cfg(target_os = "linux")]
    pub(super) fn set_half_closed(&self) {
        self.lock().half_closed = true;
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.lock().half_closed
    }

    /// A complete head was read and its request goes to the service.
    pub(super) fn request_begins(&self) {
        let mut inner = self.lock();
        inner.active += 1;
        // Since when is nobody's question: only what waits for the peer can be late.
        inner.phase = Phase::Busy;
        inner.head_permit = None;
    }

    /// The response was handed to the engine whole, or given up.
    pub(super) fn request_ends(&self) {
        let mut inner = self.lock();
        inner.active -= 1;
        if inner.active == 0 {
            inner.phase = Phase::Idle;
            inner.since = Instant::now();
            inner.clean = false;
        }
    }

    /// Whether nothing of an earlier response is under way, so that the driver may write an answer of its own.
    pub(super) fn may_answer(&self) -> bool {
        let inner = self.lock();
        inner.phase != Phase::Busy && inner.clean
    }

    /// Whether nothing of an earlier response waits to be written, so that the connection can be taken over.
    pub(super) fn may_detach(&self) -> bool {
        let inner = self.lock();
        inner.clean && inner.active == 0 && !inner.half_closed && !inner.multiplexed
    }

    /// The status of hyper's own answer to a bad head, which was kept from the peer.
    pub(super) fn refused_status(&self) -> Option<u16> {
        let inner = self.lock();
        std::str::from_utf8(inner.answer.get(9..12)?).ok()?.parse().ok()
    }

    /// Keeps `bytes` from the peer if they are hyper's own answer to a bad head.
    fn intercept(&self, bytes: &[u8]) -> bool {
        let mut inner = self.lock();
        let ours = !inner.multiplexed && inner.phase != Phase::Busy && inner.clean && inner.answer.len() + bytes.len() <= ANSWER_MAX;
        if ours {
            inner.answer.extend_from_slice(bytes);
        }
        ours
    }

    fn read(&self, bytes: usize) {
        let mut inner = self.lock();
        if bytes == 0 {
            inner.half_closed = true;
        }
        if inner.phase == Phase::Idle && !inner.multiplexed {
            if bytes == 0 {
                inner.head_permit = None;
            } else {
                inner.phase = Phase::Head;
                inner.since = Instant::now();
            }
        }
    }

    fn wrote(&self, progress: bool) {
        let mut inner = self.lock();
        if progress {
            inner.write_blocked = None;
        } else if inner.write_blocked.is_none() {
            inner.write_blocked = Some(Instant::now());
        }
    }

    fn flushed(&self) {
        self.lock().clean = true;
    }

    /// Whether the next bytes would begin a head and need a permit first; takes one if it is free.
    fn needs_permit(&self) -> bool {
        let mut inner = self.lock();
        if inner.multiplexed || inner.phase != Phase::Idle || inner.head_permit.is_some() {
            return false;
        }
        inner.head_permit = self.heads.clone().try_acquire_owned().ok();
        inner.head_permit.is_none()
    }

    /// A read that found nothing gives its permit back.
    fn return_permit(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Idle {
            inner.head_permit = None;
        }
    }
}

type WaitForPermit = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// The socket, with bytes that were read ahead put back.
pub(super) struct Transport {
    line: Arc<Line>,
    state: Arc<State>,
    read_ahead: Bytes,
    waiting: Option<WaitForPermit>,
    /// How often an unwatched socket that had nothing to say is looked at again before it is watched.
    looks: u8,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("line", &self.line).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(line: Arc<Line>, state: Arc<State>) -> Self {
        let looks = if line.is_watched() { 0 } else { LOOKS };
        Transport { line, state, read_ahead: Bytes::new(), waiting: None, looks }
    }

    /// Whether it is to be polled again rather than waited for.
    pub(super) fn looks_again(&self) -> bool {
        self.waiting.is_none() && !self.line.is_watched()
    }

    /// Puts bytes back that were read from here.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.read_ahead = bytes;
    }

    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            if !self.state.needs_permit() {
                return Poll::Ready(());
            }
            let heads = self.state.heads.clone();
            self.waiting = Some(Box::pin(async move { heads.acquire_owned().await.ok() }));
        }
        if let Some(waiting) = &mut self.waiting {
            let permit = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.state.lock().head_permit = permit;
        }
        Poll::Ready(())
    }

    /// The first write needs nobody to say that there is room.
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        at_once: impl FnMut(&mio::net::TcpStream) -> io::Result<usize>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if let Some(result) = self.line.at_once(at_once) {
            self.state.wrote(true);
            return Poll::Ready(result);
        }
        let stream = self.line.watched()?;
        loop {
            if stream.poll_write_ready(cx)?.is_pending() {
                self.state.wrote(false);
                return Poll::Pending;
            }
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.state.wrote(true);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.read_ahead.is_empty() {
            let n = this.read_ahead.len().min(buf.remaining());
            buf.put_slice(&this.read_ahead[..n]);
            this.read_ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
        if !this.line.is_watched() {
            ready!(this.poll_permit(cx));
            if let Some(result) = this.line.at_once(|mut stream| stream.read(buf.initialize_unfilled())) {
                let n = result?;
                buf.advance(n);
                this.looks = 0;
                this.state.read(n);
                return Poll::Ready(Ok(()));
            }
            this.state.return_permit();
            if let Some(left) = this.looks.checked_sub(1) {
                this.looks = left;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        loop {
            let Poll::Ready(ready) = this.line.watched()?.poll_read_ready(cx) else {
                // One that was waited for before the socket was watched must not stay with a client that sends nothing.
                this.waiting = None;
                this.state.return_permit();
                return Poll::Pending;
            };
            ready?;
            ready!(this.poll_permit(cx));
            let stream = this.line.watched()?;
            let (room, mut read) = (buf.remaining(), None);
            let result = stream.try_io(Interest::READABLE, || {
                let n = stream.try_read_buf(buf)?;
                read = Some(n);
                // Less than there was room for is all there was: said here, it spares a call for each request that would only find
                // nothing more. What comes meanwhile is a new edge.
                if cfg!(target_os = "linux") && 0 < n && n < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
            });
            match (read, result) {
                (Some(n), _) => {
                    this.state.read(n);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => this.state.return_permit(),
                (None, result) => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.state.intercept(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_write_with(cx, |mut stream| stream.write(buf), |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && self.state.intercept(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        self.poll_write_with(cx, |mut stream| stream.write_vectored(bufs), |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The engine calls this when its own buffer is empty, so everything it had has reached the socket.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.line.shut_down_write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt;

    /// A place among the requests being read that came when its connection had become a watched one is not kept for a client that sends
    /// nothing: others wait for it.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_client_that_sends_nothing_has_no_permit() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        let heads = Arc::new(Semaphore::new(1));
        let (line, state) = (Arc::new(Line::new(mio::net::TcpStream::from_std(accepted))), Arc::new(State::new(heads.clone())));
        let mut transport = Transport::new(line.clone(), state);
        let (mut cx, mut bytes) = (Context::from_waker(Waker::noop()), [0; 16]);
        let mut poll = || Pin::new(&mut transport).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes)).is_pending();
        let others = heads.clone().try_acquire_owned().unwrap();
        assert!(poll(), "nobody may read just now");
        line.watched().unwrap();
        drop(others);
        assert!(poll() && heads.available_permits() == 1, "there is nothing to read");
        // And it gets one when it sends.
        client.write_all(b"GET ").await.unwrap();
        line.watched().unwrap().readable().await.unwrap();
        assert!(!poll() && heads.available_permits() == 0);
    }
}
