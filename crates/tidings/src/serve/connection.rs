//! One connection from accept to close: which protocol it speaks, how long it may take, how it ends.
//!
//! It drives hyper and never parses or answers a request itself, except those that never became one. It does not know how many
//! connections there are or when the server stops; it is told.
//!
//! **Time-outs.** A connection that waits owns one coarse timer. While a request is answered it owns none unless a write makes no
//! progress, so a stream that nobody writes to costs no timer.
//!
//! **Half-closed connections.** Ending one's half after the request is legal: the answer is delivered, an event stream goes on. A client
//! that is gone looks the same at first, so the stream is sent a comment line (`service.rs`); the reset that comes back ends it.

use super::{
    Engines,
    admission::Counted,
    detach::{Exit, Leaving},
    line::Line,
    refusal,
    service::{ConnectionService, Origin},
    transport::{Phase, State, Transport},
};
use crate::{
    Refusal,
    delivery::{Ring, Socket},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::watch,
    time::{Instant, Sleep},
};
use tower_service::Service;

/// What every client that speaks HTTP/2 with prior knowledge sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read before it is clear what the peer speaks.
const SNIFF: usize = 1_024;
/// How long a peer may go on sending after our last byte: closing earlier would reset the connection, and the answer could be lost with it.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is read and thrown away.
const LINGER_BYTES: usize = 32 << 20;
/// How long an HTTP/2 connection may stay open after it was told to go away and its last stream has ended.
const GO_AWAY: Duration = Duration::from_secs(5);
/// Bytes the kernel may hold for a connection that its client's window has no room for.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;
/// While no further heads can be taken, an unfinished one gets no more time than this: slow heads must not lock out complete ones.
const HEAD_UNDER_PRESSURE: Duration = Duration::from_secs(1);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) stalled_write: Duration,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) line: Line,
    pub(super) peer: SocketAddr,
    pub(super) counted: Counted,
    pub(super) refusal: Option<Refusal>,
}

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// Nothing more to say.
    Close,
    /// A last answer, then close.
    Refuse(u16),
    /// The peer may still be sending: let it see what was answered.
    Linger,
    /// The peer takes nothing: throw away what waits for it.
    Reset,
    /// An event stream goes on without the HTTP library. It waits at the exit.
    Detach,
}

/// Serves one connection until it ends, or until it is a shard's, which is woken for it when what is returned is dropped.
pub(super) async fn serve<S, B>(accepted: Accepted, engines: Arc<Engines>, service: S, mut stop: watch::Receiver<bool>) -> Option<Ring>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Accepted { line, peer, counted, refusal } = accepted;
    #[cfg(not(target_os = "linux"))]
    line.set_options(engines.times);
    let line = Arc::new(line);
    let state = Arc::new(State::new(engines.heads.clone()));
    let mut watch = Watch { times: engines.times, state: state.clone(), sleep: None };
    if refusal.is_some() {
        // Who is refused does not keep a place for long.
        watch.times.idle = watch.times.idle.min(watch.times.head);
    }
    let origin = Arc::new(Origin { peer, refusal, admission: engines.admission.clone(), state: state.clone(), exit: Exit::default() });
    let service = ConnectionService::new(service, origin.clone());
    let mut transport = Transport::new(line.clone(), state.clone());
    let end = {
        let mut stopping = pin!(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        });
        match sniff(&mut transport, &mut watch, stopping.as_mut()).await {
            Ok(Protocol::Http1) => http1(transport, &line, &engines, service, &origin.exit, &mut watch, stopping).await,
            Ok(Protocol::Http2) => {
                state.set_multiplexed();
                http2(transport, &engines, service, &mut watch, stopping).await
            }
            Err(end) => end,
        }
    };
    match end {
        End::Close => {}
        End::Reset => line.throw_away(),
        End::Linger => linger(&line, &[]).await,
        End::Refuse(status) => linger(&line, &refusal::response(status, engines.times.head)).await,
        End::Detach => {
            let leaving = origin.exit.take()?;
            return detach(leaving, line, &engines, counted).await;
        }
    }
    drop(counted);
    None
}

/// Gives a stream and its socket to a shard.
async fn detach(leaving: Leaving, line: Arc<Line>, engines: &Engines, counted: Counted) -> Option<Ring> {
    let Leaving { prepared, framing, head, forwarded } = leaving;
    // The HTTP library has let go of its end, and nobody else holds one.
    let line = Arc::into_inner(line)?;
    let place = engines.admission.hand_over(counted, forwarded);
    match line.into_bare() {
        Ok(stream) => {
            let socket = Socket::adopt(stream, engines.doorway.clone(), place);
            // A hub that has stopped closes it.
            prepared.attach(socket, framing, head).await
        }
        Err(error) => {
            engines.admission.left(place);
            tracing::warn!(%error, "a connection could not be handed to its shard; its client will reconnect");
            None
        }
    }
}

/// Options without which events are late or dead peers stay; a socket that takes none of them still works. On Linux connections inherit
/// them from their listener, which saves four calls for each.
pub(super) fn set_options(socket: &socket2::SockRef<'_>, times: Times) {
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15));
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        // A slow reader's backlog belongs into the log, not into megabytes of kernel buffers.
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        let _ = socket.set_tcp_user_timeout(Some(2 * times.stalled_write.max(Duration::from_secs(5))));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = times;
}

enum Protocol {
    Http1,
    Http2,
}

/// Reads until it is clear what the peer speaks, and puts it back.
async fn sniff(transport: &mut Transport, watch: &mut Watch, mut stopping: Pin<&mut impl Future>) -> Result<Protocol, End> {
    // Most heads fit in, and are then read in one call.
    let mut bytes = [0; SNIFF];
    let mut read = ReadBuf::new(&mut bytes);
    let protocol = poll_fn(|cx| {
        loop {
            let before = read.filled().len();
            match Pin::new(&mut *transport).poll_read(cx, &mut read) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Close)),
                Poll::Ready(Ok(())) => {
                    let bytes = read.filled();
                    if bytes.is_empty() {
                        return Poll::Ready(Err(End::Close));
                    }
                    if bytes.starts_with(PREFACE) {
                        return Poll::Ready(Ok(Protocol::Http2));
                    }
                    if bytes.len() == before || !PREFACE.starts_with(bytes) {
                        return Poll::Ready(Ok(Protocol::Http1));
                    }
                }
                Poll::Pending if transport.looks_again() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(End::Close));
        }
        watch.poll(cx).map(|late| Err(late.end()))
    })
    .await?;
    transport.unread(Bytes::copy_from_slice(read.filled()));
    Ok(protocol)
}

async fn http1<S, B>(
    transport: Transport,
    line: &Line,
    engines: &Engines,
    service: ConnectionService<S>,
    exit: &Exit,
    watch: &mut Watch,
    mut stopping: Pin<&mut impl Future>,
) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let state = watch.state.clone();
    let mut connection = engines.http1.serve_connection(TokioIo::new(transport), service);
    let mut gone = pin!(peer_gone(line, &state));
    let mut stopped = false;
    let result = poll_fn(|cx| {
        loop {
            // First, because it marks the connection as half-closed for what follows.
            let watched = line.is_watched();
            if watched && gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(End::Close));
            }
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Ok(result));
            }
            if exit.is_used() {
                return Poll::Ready(Err(End::Detach));
            }
            // A request that has to wait for something must hear when its client leaves.
            if !watched && gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(End::Close));
            }
            // Last, so that a request that was there before is answered.
            if stopped || stopping.as_mut().poll(cx).is_pending() {
                return watch.poll(cx).map(|late| Err(late.end()));
            }
            stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;
    match result {
        Err(end) => end,
        Ok(Ok(())) if state.is_half_closed() || stopped => End::Close,
        Ok(Ok(())) => End::Linger,
        Ok(Err(error)) => match state.refused_status() {
            Some(status) => End::Refuse(status),
            None if error.is_incomplete_message() && state.phase().0 == Phase::Head && state.may_answer() => End::Refuse(400),
            None if error.is_parse() => End::Linger,
            None => End::Close,
        },
    }
}

async fn http2<S, B>(
    transport: Transport,
    engines: &Engines,
    service: ConnectionService<S>,
    watch: &mut Watch,
    mut stopping: Pin<&mut impl Future>,
) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Boxed: it is several times the size of everything else in this task.
    let mut connection = Box::pin(engines.http2.serve_connection(TokioIo::new(transport), service));
    let mut going_away = false;
    let mut stopped = false;
    poll_fn(|cx| {
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Close);
            }
            match watch.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Late::Idle) if !going_away => {
                    going_away = true;
                    connection.as_mut().graceful_shutdown();
                    watch.times.idle += GO_AWAY;
                }
                Poll::Ready(late) => return Poll::Ready(late.end()),
            }
        }
    })
    .await
}

/// Resolves when the peer has reset the connection; marks it as half-closed when the peer has ended its half.
///
/// hyper reads nothing while it answers a request, so it would not notice either.
#[cfg(target_os = "linux")]
async fn peer_gone(line: &Line, state: &State) {
    use tokio::io::Interest;
    let Ok(stream) = line.watched() else { return };
    // Urgent data is never asked for, so this is the one readiness that says "read side closed" and not "bytes to read".
    let _ = stream.ready(Interest::PRIORITY).await;
    state.set_half_closed();
    let _ = stream.ready(Interest::ERROR).await;
}

/// Elsewhere a peer that is gone is found by the next write.
#[cfg(not(target_os = "linux"))]
async fn peer_gone(_: &Line, _: &State) {
    std::future::pending().await
}

/// Writes a last answer, ends our half, and waits for the peer to end its own, within bounds.
async fn linger(line: &Line, answer: &[u8]) {
    let lingering = async {
        let stream = line.watched()?;
        let mut rest = answer;
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        line.shut_down_write()?;
        let mut scrap = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            stream.readable().await?;
            match stream.try_read(&mut scrap) {
                Ok(0) => break,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let _ = tokio::time::timeout(LINGER, lingering).await;
}

/// What took too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Late {
    Idle,
    Head,
    Write,
}

impl Late {
    fn end(self) -> End {
        match self {
            Late::Idle => End::Close,
            Late::Head => End::Refuse(408),
            Late::Write => End::Reset,
        }
    }
}

/// The one timer of a connection.
struct Watch {
    times: Times,
    state: Arc<State>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            let Some((late, due, look)) = self.next() else {
                // A timer that is armed is left to fire rather than taken down for every request of a kept-alive connection.
                if let Some(sleep) = &mut self.sleep
                    && sleep.as_mut().poll(cx).is_ready()
                {
                    self.sleep = None;
                }
                return Poll::Pending;
            };
            if Instant::now() >= due {
                return Poll::Ready(late);
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(look)));
            if sleep.deadline() > look {
                sleep.as_mut().reset(look);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }

    /// What will be late, when, and when to look again.
    fn next(&self) -> Option<(Late, Instant, Instant)> {
        if let Some(since) = self.state.write_blocked() {
            let due = since + self.times.stalled_write;
            return Some((Late::Write, due, due));
        }
        let (phase, since) = self.state.phase();
        match phase {
            Phase::Busy => None,
            Phase::Idle => Some((Late::Idle, since + self.times.idle, since + self.times.idle)),
            Phase::Head => {
                let pressed = self.times.head.min(HEAD_UNDER_PRESSURE);
                let time = if self.state.heads_exhausted() { pressed } else { self.times.head };
                Some((Late::Head, since + time, (since + time).min(Instant::now() + pressed)))
            }
        }
    }
}
