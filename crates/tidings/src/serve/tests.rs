//! The server over real sockets, with literal bytes.

use super::{Server, bind};
use crate::{Config, PeerAddr, Refusal};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A service with one path for each behaviour.
#[derive(Clone, Default)]
struct Answers {
    streams: Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>,
    open_streams: Arc<AtomicUsize>,
}

struct OpenStream(Arc<AtomicUsize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

struct Events {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    _open: OpenStream,
}

impl futures_core::Stream for Events {
    type Item = Result<Frame<Bytes>, io::Error>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Answers {
    fn send(&self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.streams.lock().unwrap().retain(|stream| stream.send(bytes.clone()).is_ok());
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let text = |text: String| Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
        match request.uri().path() {
            "/marks" => {
                let PeerAddr(peer) = request.extensions().get().unwrap();
                text(format!("{} {:?}", peer.ip(), request.extensions().get::<Refusal>()))
            }
            "/echo" => {
                if let Ok(body) = request.into_body().collect().await {
                    return text(String::from_utf8(body.to_bytes().to_vec()).unwrap());
                }
                let mut response = text("cut".into());
                *response.status_mut() = http::StatusCode::BAD_REQUEST;
                response
            }
            "/stream" => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.streams.lock().unwrap().push(sender);
                self.open_streams.fetch_add(1, SeqCst);
                let events = Events { receiver, _open: OpenStream(self.open_streams.clone()) };
                let mut response = Response::new(StreamBody::new(events).boxed_unsync());
                response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                response
            }
            "/empty" => Response::new(http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()),
            "/panic" => panic!("for the test"),
            "/never" => pending().await,
            path => text(path.to_owned()),
        }
    }
}

impl tower_service::Service<Request<Incoming>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answers = self.clone();
        Box::pin(async move { Ok(answers.answer(request).await) })
    }
}

struct Running {
    address: SocketAddr,
    server: Server,
    answers: Answers,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

fn start(config: &Config) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(config);
    let answers = Answers::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(listener, answers.clone(), stopped));
    Running { address, server, answers, stop: Some(stop), task }
}

impl Running {
    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server stops").unwrap().unwrap();
    }
}

/// Waits until something is true, and says so when it never is.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until what was read and not yet taken ends with `end`, and takes it.
    async fn read_until(&mut self, end: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.read.ends_with(end.as_bytes()) {
            let read = tokio::time::timeout_at(deadline, self.stream.read_buf(&mut self.read)).await;
            let seen = String::from_utf8_lossy(&self.read);
            let n = read.unwrap_or_else(|_| panic!("waited in vain for {end:?} after {seen:?}")).unwrap();
            assert!(n > 0, "closed before {end:?}, after {seen:?}");
        }
        without_date(std::mem::take(&mut self.read))
    }

    /// Reads until the server closes; `Err` is a reset.
    async fn read_to_close(&mut self) -> Result<String, String> {
        let end = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await.expect("the server closes");
        let text = without_date(std::mem::take(&mut self.read));
        end.map(|_| text.clone()).map_err(|_| text)
    }
}

fn without_date(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap();
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

fn config() -> Config {
    quick(|_| {})
}

fn quick(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { drain_hard: Duration::from_secs(5), ..Config::default() };
    change(&mut config);
    config
}

const GET_A: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const ANSWER_A: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/a";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// More connections wait than are accepted in one go: the one after the last of a batch was once accepted and dropped.
#[tokio::test]
async fn whoever_waits_to_be_accepted_is_served() {
    let server = start(&config());
    // The server runs on this thread and sees none of them before all are there.
    let connect = |_| {
        let mut connection = std::net::TcpStream::connect(server.address).unwrap();
        io::Write::write_all(&mut connection, b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        connection.set_nonblocking(true).unwrap();
        connection
    };
    let waiting: Vec<_> = (0..2 * super::ACCEPT_BATCH + 2).map(connect).collect();
    for connection in waiting {
        let mut answer = Vec::new();
        TcpStream::from_std(connection).unwrap().read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_further_requests() {
    let server = start(&config());
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(GET_A).await;
        assert_eq!(client.read_until("/a").await, ANSWER_A);
        client.send("GET /empty HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
    assert_eq!((server.server.connections(), server.server.accepted(), server.server.refused()), (1, 1, 0));
    client.send("GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.read_to_close().await.unwrap(), "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n/b");
    drop(client);
    until("the connection is forgotten", || server.server.connections() == 0).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(&config());
    let mut client = server.connect().await;
    let echo = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz";
    client.send(format!("{GET_A}{echo}{GET_A}GET /last HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    let expected =
        format!("{ANSWER_A}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxyz{ANSWER_A}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/last");
    assert_eq!(client.read_until("/last").await, expected);
}

/// Each of these never becomes a request: what the answer is, and that it arrives before the close.
#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let server = start(&quick(|config| config.request_time = Duration::from_millis(300)));
    let head = |rest: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{rest}");
    let table: Vec<(&str, Vec<u8>, u16)> = vec![
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), 400),
        ("NUL in a header", head("X: a\0b\r\n\r\n").into_bytes(), 400),
        ("a bare CR in a header", head("X: a\rb\r\n\r\n").into_bytes(), 400),
        ("a header without a colon", head("nonsense\r\n\r\n").into_bytes(), 400),
        ("a folded header", head("X: a\r\n b\r\n\r\n").into_bytes(), 400),
        ("two lengths", head("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab").into_bytes(), 400),
        ("a length that is none", head("Content-Length: -1\r\n\r\n").into_bytes(), 400),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\n\r\n".to_vec(), 400),
        ("half a preface, then another word", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), 400),
        ("101 fields", head(&("X: y\r\n".repeat(100) + "\r\n")).into_bytes(), 431),
        ("a header of 1 MB", head(&format!("X: {}\r\n\r\n", "a".repeat(1 << 20))).into_bytes(), 431),
        ("a target of 1 MB", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(1 << 20)).into_bytes(), 431),
        ("a head that stops", b"GET / HTTP/1.1\r\nHo".to_vec(), 408),
        ("a preface that stops", b"PRI * HT".to_vec(), 408),
    ];
    for (name, bytes, status) in table {
        for kept_alive in [false, true] {
            let mut client = server.connect().await;
            if kept_alive {
                client.send(GET_A).await;
                assert_eq!(client.read_until("/a").await, ANSWER_A, "{name}");
            }
            client.send(&bytes).await;
            let answer = client.read_to_close().await.unwrap_or_else(|seen| panic!("{name}: reset after {seen:?}"));
            // The preface only counts as the first bytes of a connection: later it is a bad head at once.
            let status = if kept_alive && name.starts_with("a preface") { "HTTP/1.1 4".to_owned() } else { format!("HTTP/1.1 {status} ") };
            assert!(answer.starts_with(&status), "{name}, kept alive {kept_alive}: {answer:?}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains("\r\nConnection: close") && head.contains("\r\nContent-Type: application/problem+json"),
                "{name}: {head}"
            );
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(answer.contains(&format!(" {} ", problem["status"])), "{name}: {answer}");
        }
    }
    until("all connections are forgotten", || server.server.connections() == 0).await;
}

/// More than any buffer between the two holds: the client can finish what it says and then read the answer.
#[tokio::test]
async fn a_client_that_goes_on_sending_still_gets_its_refusal() {
    let server = start(&config());
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nX: ").await;
    client.send(vec![b'x'; 24 << 20]).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.read_to_close().await.unwrap().starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_head_that_is_cut_off_is_refused_literally() {
    let server = start(&config());
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    client.stream.shutdown().await.unwrap();
    let expected = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: 167\r\nConnection: close\r\n\r\n\
        {\"type\":\"urn:tidings:problem:bad-request\",\"title\":\"Bad Request\",\"status\":400,\
        \"detail\":\"the request is not valid HTTP/1.1: its head is malformed, ambiguous or cut off\"}";
    assert_eq!(client.read_to_close().await.unwrap(), expected);
}

#[tokio::test]
async fn a_slow_head_gets_408_in_time_however_it_trickles() {
    let server = start(&quick(|config| config.request_time = Duration::from_millis(300)));
    let mut client = server.connect().await;
    client.send(GET_A).await;
    assert_eq!(client.read_until("/a").await, ANSWER_A);
    let begun = Instant::now();
    let (mut reader, mut writer) = client.stream.split();
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'y')) {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        pending::<()>().await;
    };
    let mut answer = vec![0; 12];
    tokio::select! {
        read = reader.read_exact(&mut answer) => { read.unwrap(); }
        () = trickle => {}
        () = tokio::time::sleep(PATIENCE) => panic!("no answer"),
    }
    assert_eq!(answer, b"HTTP/1.1 408");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word_and_a_busy_one_is_not() {
    let server = start(&quick(|config| {
        config.keep_alive = Duration::from_millis(200);
        config.request_time = Duration::from_millis(100);
    }));
    let mut subscriber = server.connect().await;
    subscriber.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(subscriber.read_until("\r\n\r\n").await, STREAM_HEAD);
    let mut never_sent = server.connect().await;
    let mut used = server.connect().await;
    used.send(GET_A).await;
    assert_eq!(used.read_until("/a").await, ANSWER_A);
    assert_eq!(never_sent.read_to_close().await.unwrap(), "");
    assert_eq!(used.read_to_close().await.unwrap(), "");
    until("idle connections are forgotten", || server.server.connections() == 1).await;
    server.answers.send("data: 1\n\n");
    assert_eq!(subscriber.read_until("\r\n").await, "9\r\ndata: 1\n\n\r\n");
}

#[tokio::test]
async fn a_client_that_ends_its_half_gets_its_answer_and_its_stream() {
    let server = start(&config());
    let mut publisher = server.connect().await;
    publisher.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz").await;
    publisher.stream.shutdown().await.unwrap();
    assert_eq!(publisher.read_to_close().await.unwrap(), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxyz");

    let mut cut = server.connect().await;
    cut.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\nxyz").await;
    cut.stream.shutdown().await.unwrap();
    assert_eq!(cut.read_to_close().await.unwrap(), "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\ncut");

    let mut subscriber = server.connect().await;
    subscriber.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(subscriber.read_until("\r\n\r\n").await, STREAM_HEAD);
    subscriber.stream.shutdown().await.unwrap();
    assert_eq!(subscriber.read_until("\n\r\n").await, "5\r\n: hb\n\r\n");
    for _ in 0..3 {
        server.answers.send("data: 1\n\n");
        assert_eq!(subscriber.read_until("\r\n").await, "9\r\ndata: 1\n\n\r\n");
    }
}

/// Nothing is published and no heartbeat is due: the stream ends although nobody writes to it.
#[tokio::test]
async fn a_subscriber_that_is_gone_is_noticed_at_once() {
    let server = start(&config());
    for reset in [false, true] {
        let mut subscriber = server.connect().await;
        subscriber.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(subscriber.read_until("\r\n\r\n").await, STREAM_HEAD);
        assert_eq!(server.answers.open_streams.load(SeqCst), 1);
        if reset {
            socket2::SockRef::from(&subscriber.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(subscriber);
        until("the stream is dropped", || server.answers.open_streams.load(SeqCst) == 0).await;
        until("the connection is forgotten", || server.server.connections() == 0).await;
    }
}

/// The comment that asks for a sign of life never lands inside a line.
#[tokio::test]
async fn a_half_closed_stream_is_not_broken_inside_a_line() {
    let server = start(&config());
    let mut subscriber = server.connect().await;
    subscriber.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(subscriber.read_until("\r\n\r\n").await, STREAM_HEAD);
    server.answers.send("data: ha");
    assert_eq!(subscriber.read_until("ha\r\n").await, "8\r\ndata: ha\r\n");
    subscriber.stream.shutdown().await.unwrap();
    server.answers.send("lf\n\n");
    assert_eq!(subscriber.read_until(": hb\n\r\n").await, "4\r\nlf\n\n\r\n5\r\n: hb\n\r\n");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let server = start(&quick(|config| config.stalled_write = Duration::from_millis(200)));
    let mut stalled = server.connect().await;
    stalled.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(stalled.read_until("\r\n\r\n").await, STREAM_HEAD);
    let big = Bytes::from(vec![b'\n'; 1 << 20]);
    for _ in 0..32 {
        server.answers.send(big.clone());
    }
    until("the stream is dropped", || server.answers.open_streams.load(SeqCst) == 0).await;
    until("the connection is forgotten", || server.server.connections() == 0).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_answered_but_marked() {
    let server = start(&quick(|config| config.connections = Some(1)));
    let marks = "GET /marks HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut first = server.connect().await;
    first.send(marks).await;
    assert_eq!(first.read_until("None").await, "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n127.0.0.1 None");
    let mut second = server.connect().await;
    second.send(marks).await;
    let expected = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 26\r\n\r\n127.0.0.1 Some(Overloaded)";
    assert_eq!(second.read_to_close().await.unwrap(), expected);
    assert_eq!(server.server.refused(), 1);
    // Beyond the reserve there is no answer.
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(server.connect().await);
    }
    let mut last = server.connect().await;
    assert_eq!(last.read_to_close().await.unwrap_or_default(), "");
    assert!(server.server.connections() <= 17, "{}", server.server.connections());
    drop((first, second, idle));
    until("places are free again", || server.server.connections() == 0).await;
    let mut later = server.connect().await;
    later.send(marks).await;
    assert_eq!(later.read_until("None").await, "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n127.0.0.1 None");
}

#[tokio::test]
async fn one_client_is_limited_directly_and_behind_a_trusted_proxy() {
    let direct = start(&quick(|config| config.connections_per_address = Some(1)));
    let marks = "GET /marks HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    let mut first = direct.connect().await;
    first.send(marks).await;
    first.read_until("127.0.0.1 None").await;
    let mut second = direct.connect().await;
    second.send(marks).await;
    assert!(second.read_to_close().await.unwrap().ends_with("127.0.0.1 Some(PerClient)"));

    let proxied = start(&quick(|config| {
        config.connections_per_address = Some(1);
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    }));
    let mut stream = proxied.connect().await;
    stream.send("GET /stream HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    assert_eq!(stream.read_until("\r\n\r\n").await, STREAM_HEAD);
    let mut other = proxied.connect().await;
    other.send("GET /marks HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    other.read_until("127.0.0.1 Some(PerClient)").await;
    other.send("GET /marks HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n").await;
    other.read_until("127.0.0.1 None").await;
    drop(stream);
    until("the stream is dropped", || proxied.answers.open_streams.load(SeqCst) == 0).await;
    other.send("GET /marks HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    other.read_until("127.0.0.1 None").await;
}

/// Heads that never end do not lock out those that do: under pressure they get a second, not `request_time`.
#[tokio::test]
async fn unfinished_heads_do_not_lock_out_finished_ones() {
    let server = start(&quick(|config| config.request_time = 10 * PATIENCE));
    let permits = server.server.engines.heads.clone();
    let taken = permits.acquire_many(u32::try_from(permits.available_permits() - 1).unwrap()).await.unwrap();
    let mut slow = server.connect().await;
    slow.send("GET / HTTP/1.1\r\nHo").await;
    until("the last permit is taken", || permits.available_permits() == 0).await;
    let mut client = server.connect().await;
    client.send(GET_A).await;
    assert!(slow.read_to_close().await.unwrap().starts_with("HTTP/1.1 408 "));
    assert_eq!(client.read_until("/a").await, ANSWER_A);
    drop(taken);
    until("permits come back", || permits.available_permits() == crate::limits::HEADS_IN_FLIGHT).await;
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_no_other() {
    let server = start(&config());
    let mut bystander = server.connect().await;
    bystander.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(bystander.read_until("\r\n\r\n").await, STREAM_HEAD);
    let mut client = server.connect().await;
    client.send("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.read_to_close().await.unwrap_or_default(), "");
    until("the connection is forgotten", || server.server.connections() == 1).await;
    server.answers.send("data: 1\n\n");
    assert_eq!(bystander.read_until("\r\n").await, "9\r\ndata: 1\n\n\r\n");

    let mut h2 = h2(&server).await;
    h2.send_request(get("/panic")).await.expect_err("the stream is reset");
    assert_eq!(body(h2.send_request(get("/a")).await.unwrap()).await, "/a");
}

type H2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2_connection(server: &Running) -> (H2, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn h2(server: &Running) -> H2 {
    h2_connection(server).await.0
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://h{path}")).body(Full::default()).unwrap()
}

async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn http2_is_spoken_to_whoever_begins_with_its_preface() {
    let server = start(&quick(|config| config.keep_alive = Duration::from_millis(300)));
    let (mut client, connection) = h2_connection(&server).await;
    let (one, two) = tokio::join!(client.clone().send_request(get("/a")), client.clone().send_request(get("/b")));
    assert_eq!((body(one.unwrap()).await, body(two.unwrap()).await), ("/a".into(), "/b".into()));
    let mut stream = client.send_request(get("/stream")).await.unwrap();
    assert_eq!(stream.version(), http::Version::HTTP_2);
    server.answers.send("data: 1\n\n");
    let frame = tokio::time::timeout(PATIENCE, stream.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "data: 1\n\n");
    assert_eq!(server.server.connections(), 1);
    drop(stream);
    until("the idle connection is closed", || server.server.connections() == 0).await;
    connection.await.unwrap().expect("it was told to go away");
}

#[tokio::test]
async fn http2_over_the_limit_is_marked() {
    let server = start(&quick(|config| config.connections = Some(0)));
    let mut client = h2(&server).await;
    assert_eq!(body(client.send_request(get("/marks")).await.unwrap()).await, "127.0.0.1 Some(Overloaded)");
}

#[tokio::test]
async fn the_preface_counts_however_it_is_cut() {
    let server = start(&config());
    let mut client = server.connect().await;
    client.send("P").await;
    let heads = &server.server.engines.heads;
    until("the first byte is read", || heads.available_permits() < crate::limits::HEADS_IN_FLIGHT).await;
    client.send("RI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut frame = [0; 9];
    tokio::time::timeout(PATIENCE, client.stream.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!((frame[3], frame[5..].to_vec()), (4, vec![0, 0, 0, 0]), "a SETTINGS frame");
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_closes_idle_connections() {
    let mut server = start(&config());
    let mut idle = server.connect().await;
    idle.send(GET_A).await;
    assert_eq!(idle.read_until("/a").await, ANSWER_A);
    let mut silent = server.connect().await;
    let mut client = server.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nx").await;
    let mut h2 = h2(&server).await;
    assert_eq!(body(h2.send_request(get("/a")).await.unwrap()).await, "/a");
    until("all are accepted", || server.server.connections() == 4).await;
    server.stop();
    assert_eq!(idle.read_to_close().await.unwrap(), "");
    assert_eq!(silent.read_to_close().await.unwrap(), "");
    client.send("yz").await;
    let answer = client.read_to_close().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nxyz"), "{answer}");
    let address = server.address;
    server.stopped().await;
    TcpStream::connect(address).await.expect_err("nobody listens");
}

#[tokio::test]
async fn stopping_ends_at_the_deadline_whatever_is_open() {
    let mut server = start(&quick(|config| config.drain_hard = Duration::from_millis(300)));
    let mut stream = server.connect().await;
    stream.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(stream.read_until("\r\n\r\n").await, STREAM_HEAD);
    let mut never = server.connect().await;
    never.send("GET /never HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut h2 = h2(&server).await;
    let h2_stream = h2.send_request(get("/stream")).await.unwrap();
    until("both streams are open", || server.answers.open_streams.load(SeqCst) == 2).await;
    let begun = Instant::now();
    let (answers, handle) = (server.answers.clone(), server.server.clone());
    server.stop();
    // Streams go on until they are ended or the deadline comes.
    answers.send("data: 1\n\n");
    assert_eq!(stream.read_until("\r\n").await, "9\r\ndata: 1\n\n\r\n");
    server.stopped().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(stream.read_to_close().await.unwrap_or_default(), "");
    assert_eq!(never.read_to_close().await.unwrap_or_default(), "");
    until("nothing is left", || answers.open_streams.load(SeqCst) == 0 && handle.connections() == 0).await;
    drop(h2_stream);
}

#[tokio::test]
async fn limits_hold_for_all_listeners_together() {
    let first = start(&config());
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let second = tokio::spawn(first.server.serve(listener, first.answers.clone(), pending::<()>()));
    let mut clients = [first.connect().await, Client { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }];
    for client in &mut clients {
        client.send(GET_A).await;
        assert_eq!(client.read_until("/a").await, ANSWER_A);
    }
    assert_eq!(first.server.connections(), 2);
    second.abort();
    assert_eq!(clients[1].read_to_close().await.unwrap(), "", "dropping the future cuts connections off");
}

/// A listener is not given up because files have run out, and the wait between two tries is short.
#[test]
fn a_failed_accept_is_tried_again_soon() {
    let mut failures = super::Failures::default();
    assert!(!failures.another(&io::ErrorKind::ConnectionAborted.into()), "the connection's own failure");
    let out_of_files = io::Error::from_raw_os_error(24);
    for longest in [10, 20, 40, 50, 50] {
        assert!(failures.another(&out_of_files));
        assert_eq!(failures.wait, Duration::from_millis(longest));
    }
    failures.ended();
    assert!(failures.another(&out_of_files) && failures.wait == Duration::from_millis(10));
}

/// Events leave at once, dead peers are found, and the kernel keeps little for slow ones; without a call for each connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_inherit_the_options_of_their_listener() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let seconds = Duration::from_secs;
    let times = super::connection::Times { head: seconds(1), idle: seconds(1), stalled_write: seconds(7) };
    super::connection::set_options(&socket2::SockRef::from(&listener), times);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let accepted = socket2::SockRef::from(&accepted);
    assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(seconds(14)));
    assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 128 << 10);
}
