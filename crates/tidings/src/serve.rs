//! The part that owns listeners and connections, for whoever has no HTTP server of their own.
//!
//! It accepts, limits, times out and ends connections, over HTTP/1.1 and HTTP/2 (with prior knowledge), and hands their requests to any
//! tower service. It knows no route, no event and no subscriber. Why not a ready-made server: an event stream is open for hours, and
//! what protects a server from slow and idle clients elsewhere would either cut it off or wait for it for ever.
//!
//! | a connection that | is |
//! |---|---|
//! | has sent nothing since its last response, for `keep_alive` | closed |
//! | sends a request head for longer than `request_time` | answered 408 and closed |
//! | sends a head over `request_head` or with over 100 fields | answered 431 and closed |
//! | takes no byte for `stalled_write` while some wait | reset |
//! | has ended its half after a request | answered; an event stream goes on |
//! | is beyond `connections` or `connections_per_address` | served, its requests marked with a [`Refusal`](crate::Refusal) |

mod admission;
mod connection;
mod detach;
mod first;
mod line;
mod refusal;
mod service;
#[cfg(test)]
mod tests;
mod transport;
#[cfg(test)]
mod turns;

pub use admission::raise_open_files_limit;

use crate::{Config, Hub, delivery::Doorway, limits};
use admission::Admission;
use bytes::Bytes;
use connection::{Accepted, Times};
use first::First;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::TokioTimer;
use line::{Line, Listener};
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};
use tower_service::Service;

/// The smallest buffer hyper works with.
const BUFFER_MIN: usize = 8_192;
/// Bytes one HTTP/2 stream may buffer: a reader that is slower must fall behind in the log, where it costs nothing.
const H2_SEND_BUFFER: usize = 32 << 10;
/// All uploads of one HTTP/2 connection together: the default 64 KiB would let one slow upload stall the others (S-48).
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// An HTTP/2 peer that is silent for so long is asked for a sign of life, and has half of it to give one.
const H2_PING: Duration = Duration::from_secs(20);
/// Connections accepted before other things get a turn.
const ACCEPT_BATCH: usize = 64;
/// Of these, how many are begun in one task: few enough that the next worker has something to do too.
const BEGUN_TOGETHER: usize = 16;
/// The wait after a failed accept, doubled up to the second: files run out for as long as somebody holds them.
const ACCEPT_WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));

/// A listening socket with the longest queue the system allows.
///
/// tokio's own has 1,024 places (128 in the standard library): a reconnect storm fills them, and clients then wait seconds for the
/// retransmission of their first packet.
///
/// Must be called within a tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // Elsewhere this lets a restart bind at once; on Windows it would let another program take the port over.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Every system cuts this down to its own maximum (`net.core.somaxconn`).
    socket.listen(i32::MAX)?;
    TcpListener::from_std(socket.into())
}

/// Serves connections. Clones are handles to the same server: its limits hold for all its listeners together.
///
/// ```no_run
/// # use tidings::serve::{self, Server};
/// # async fn example(service: axum::Router) -> std::io::Result<()> {
/// let server = Server::new(&tidings::Config::default());
/// let listener = serve::bind("127.0.0.1:4680".parse().unwrap())?;
/// server.serve(listener, service, async { tokio::signal::ctrl_c().await }).await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    engines: Arc<Engines>,
    drain_hard: Duration,
}

/// The tasks of a listener's connections.
type Connections<F> = JoinSet<Vec<Pin<Box<F>>>>;

/// What all connections share.
#[derive(Debug)]
struct Engines {
    times: Times,
    admission: Arc<Admission>,
    /// The same, as sockets know it that were taken over.
    doorway: Doorway,
    heads: Arc<Semaphore>,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Server {
    /// A server with these limits and times. Reads the limit on open files once.
    pub fn new(config: &Config) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .half_close(true)
            .header_read_timeout(None)
            .max_headers(limits::REQUEST_FIELDS)
            .max_header_size(config.request_head)
            .max_buf_size(config.request_head.max(BUFFER_MIN))
            .pipeline_flush(false);
        let mut http2 = http2::Builder::new(Streams);
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING / 2)
            .max_concurrent_streams(config.h2_streams)
            .max_header_list_size(u32::try_from(config.request_head).unwrap_or(u32::MAX))
            .max_send_buf_size(H2_SEND_BUFFER)
            .initial_connection_window_size(H2_CONNECTION_WINDOW);
        let times = Times { head: config.request_time, idle: config.keep_alive, stalled_write: config.stalled_write };
        let admission = Arc::new(Admission::new(config.connections, config.connections_per_address, &config.trusted_proxies));
        let engines = Engines {
            times,
            doorway: Doorway::new(admission.clone()),
            admission,
            heads: Arc::new(Semaphore::new(limits::HEADS_IN_FLIGHT)),
            http1,
            http2,
        };
        Server { engines: Arc::new(engines), drain_hard: config.drain_hard }
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.engines.admission.open()
    }

    /// Connections served at once; beyond it requests are marked with [`Refusal::Overloaded`](crate::Refusal::Overloaded).
    pub fn connection_limit(&self) -> usize {
        self.engines.admission.limit()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.engines.admission.accepted()
    }

    /// Connections, and requests through trusted proxies, refused so far.
    pub fn refused(&self) -> u64 {
        self.engines.admission.refused()
    }

    /// Serves the connections of a listener until `stop` resolves.
    ///
    /// Then it stops accepting, lets requests that are under way finish, and returns when all connections are gone or
    /// [`Config::drain_hard`] is over; what is open then is cut off. Whoever holds event streams open ends them meanwhile
    /// (`Hub::shut_down`). Dropping the future cuts everything off at once. Neither waits for nor cuts off event streams over HTTP/1 that the
    /// hub's own threads write: their connections have left the server, although its limits still count them.
    ///
    /// A panic in the service ends the connection it was called for (over HTTP/2: the stream) and nothing else. The service must be
    /// called within a tokio runtime with its clock and sockets enabled.
    pub fn serve<S, B, F>(&self, listener: TcpListener, service: S, stop: F) -> impl Future<Output = io::Result<()>> + Send + use<S, B, F>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Future + Send,
    {
        let Server { engines, drain_hard } = self.clone();
        #[cfg(target_os = "linux")]
        connection::set_options(&socket2::SockRef::from(&listener), engines.times);
        async move {
            let listener = Listener::new(listener)?;
            let mut connections = JoinSet::new();
            let (stop_connections, stopping) = watch::channel(false);
            let mut stop = pin!(stop);
            let mut failures = Failures::default();
            loop {
                let accept = async {
                    if let Some(retry) = failures.retry {
                        tokio::time::sleep_until(retry.into()).await;
                    }
                    listener.accept().await
                };
                let mut next = tokio::select! {
                    biased;
                    _ = &mut stop => break,
                    accepted = accept => Some(accepted),
                    Some(ended) = connections.join_next() => {
                        go_on(&mut connections, ended);
                        None
                    }
                };
                let mut left = ACCEPT_BATCH;
                let mut fresh = Vec::new();
                while let Some(accepted) = next {
                    match accepted {
                        Ok((line, peer)) => {
                            failures.ended();
                            if let Some(accepted) = admit(&engines, line, peer) {
                                let serve = connection::serve(accepted, engines.clone(), service.clone(), stopping.clone());
                                fresh.push(Box::pin(Contained { future: serve }));
                            }
                        }
                        Err(error) => {
                            if failures.another(&error) {
                                break;
                            }
                        }
                    }
                    if fresh.len() == BEGUN_TOGETHER {
                        connections.spawn(First::of(std::mem::take(&mut fresh)));
                    }
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                    // Whatever is taken from the queue here is served by the next turn of this loop: to drop it would reset its client.
                    next = listener.accept_now();
                }
                if !fresh.is_empty() {
                    connections.spawn(First::of(fresh));
                }
                while let Some(ended) = connections.try_join_next() {
                    go_on(&mut connections, ended);
                }
                if left == 0 {
                    // Taking what is in the queue waits for nothing, so those accepted would wait for all who come.
                    tokio::task::yield_now().await;
                }
            }
            drain(connections, listener, stop_connections, drain_hard).await
        }
    }
}

impl Hub {
    /// Listens on an address and serves the HTTP interface until `stop` resolves, then drains: Z-1 in one line.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = tidings::Hub::new()?;
    /// hub.serve("127.0.0.1:4680".parse()?, tokio::signal::ctrl_c()).await?;
    /// # Ok(()) }
    /// ```
    pub async fn serve(&self, address: SocketAddr, stop: impl Future + Send) -> io::Result<()> {
        self.serve_listener(bind(address)?, stop).await
    }

    /// The same on a listener that is there already. Only requests addressed to this machine, to the listener's address or to
    /// configured names are answered (N-31).
    pub async fn serve_listener(&self, listener: TcpListener, stop: impl Future + Send) -> io::Result<()> {
        let hard = self.config().drain_hard;
        let service = self.service().check_host(vec![listener.local_addr()?.to_string()]);
        let (drained, wait) = tokio::sync::oneshot::channel::<()>();
        // The listener stays open while streams end, so that readers who come meanwhile are told when to come back (N-16).
        let drain = async {
            stop.await;
            self.shut_down(hard).await;
            drop(drained);
        };
        tokio::join!(Server::new(self.config()).serve(listener, service, wait), drain).0
    }
}

fn admit(engines: &Engines, line: Line, peer: SocketAddr) -> Option<Accepted> {
    let (counted, refusal) = engines.admission.connection(peer)?;
    Some(Accepted { line, peer, counted, refusal })
}

/// Those who wait get a task each.
fn go_on<F>(connections: &mut Connections<F>, ended: Result<Vec<Pin<Box<F>>>, JoinError>)
where
    First<F>: Future<Output = Vec<Pin<Box<F>>>>,
    F: Send + 'static,
{
    for connection in ended.unwrap_or_default() {
        connections.spawn(First::of(vec![connection]));
    }
}

/// Stops accepting, lets connections finish, and cuts off what is left when the time is over.
async fn drain<F>(mut connections: Connections<F>, listener: Listener, stop: watch::Sender<bool>, hard: Duration) -> io::Result<()>
where
    First<F>: Future<Output = Vec<Pin<Box<F>>>>,
    F: Send + 'static,
{
    drop(listener);
    stop.send_replace(true);
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            go_on(&mut connections, ended);
        }
    };
    if tokio::time::timeout(hard, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), after = ?hard, "cutting off connections that have not ended in time");
    }
    // Dropping the set aborts its tasks without waiting for them: one that blocks its thread cannot hold this up.
    Ok(())
}

/// Accepts that failed, one after the other.
#[derive(Default)]
struct Failures {
    wait: Duration,
    retry: Option<Instant>,
    logged: Option<Instant>,
}

impl Failures {
    fn ended(&mut self) {
        self.wait = Duration::ZERO;
        self.retry = None;
    }

    /// Whether to wait until `retry` before the next accept: not when the failure was one connection's own.
    fn another(&mut self, error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return false;
        }
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now - logged >= Duration::from_secs(1)) {
            self.logged = Some(now);
            tracing::warn!(%error, "a connection could not be accepted; if files have run out, raise the limit on open files");
        }
        self.wait = (2 * self.wait).clamp(ACCEPT_WAIT.0, ACCEPT_WAIT.1);
        self.retry = Some(now + self.wait);
        true
    }
}

/// Runs the streams of HTTP/2 connections. They end with their connection, so nobody has to hold them.
#[derive(Clone, Copy, Debug)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        tokio::spawn(Contained { future });
    }
}

pin_project! {
    /// A future whose panic ends it and nothing else, and is logged (Z-15).
    struct Contained<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future<Output: Default>> Future for Contained<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.project().future;
        // A future that has panicked is not polled again, so nobody sees what state it is in.
        catch_unwind(AssertUnwindSafe(|| future.poll(cx))).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(panic = message.unwrap_or("of unknown kind"), "a request handler panicked; its connection is closed");
            Poll::Ready(F::Output::default())
        })
    }
}
