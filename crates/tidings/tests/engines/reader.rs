//! A reader of one stream over HTTP/1.1 or HTTP/2 that keeps its cursor and can come back with it.
//!
//! It knows how bytes are framed and what a stream says, not what it should say.

use crate::{
    Engine,
    running::{PATIENCE, Running},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tidings::{Item, Message, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// With the proper end of the response.
    Clean,
    /// Broken off.
    Abort,
}

enum Wire {
    Http1 { stream: TcpStream, bytes: Vec<u8> },
    Http2 { body: Incoming, _connection: Connection },
}

/// An HTTP/2 connection, until it is dropped.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Empty<Bytes>>,
    task: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(crate) async fn new(stream: TcpStream) -> Connection {
        // Or each word about its window would wait for the answer to the one before.
        stream.set_nodelay(true).unwrap();
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        // So small that a reader that does not read is noticed.
        http2.initial_stream_window_size(16 << 10).initial_connection_window_size(64 << 10);
        let (sender, connection) = http2.handshake(TokioIo::new(stream)).await.unwrap();
        Connection { sender, task: tokio::spawn(connection) }
    }
}

/// A reader.
pub(crate) struct Reader {
    engine: Engine,
    address: SocketAddr,
    reads: Arc<AtomicUsize>,
    path: String,
    /// The kernel takes little for it.
    narrow: bool,
    wire: Option<Wire>,
    parser: Parser,
    /// The head of the last response.
    pub(crate) headers: HeaderMap,
    /// Everything that was said, over all connections.
    pub(crate) items: Vec<Item>,
    pub(crate) connects: usize,
}

impl Reader {
    /// A reader that has not connected yet.
    pub(crate) fn new(running: &Running, path: &str) -> Reader {
        Reader {
            engine: running.engine,
            address: running.address,
            reads: running.reads.clone(),
            path: path.to_owned(),
            narrow: false,
            wire: None,
            parser: Parser::new(4 << 20),
            headers: HeaderMap::new(),
            items: Vec::new(),
            connects: 0,
        }
    }

    /// One that has read its opening: nothing published from now on may be missing.
    pub(crate) async fn open(running: &Running, path: &str) -> Reader {
        let mut reader = Reader::new(running, path);
        reader.connect().await;
        reader
    }

    /// The same with small buffers on the way, for one that will not read.
    pub(crate) async fn open_narrow(running: &Running, path: &str) -> Reader {
        let mut reader = Reader::new(running, path);
        reader.narrow = true;
        reader.connect().await;
        reader
    }

    /// Connects, with a cursor if it has one, and reads the opening.
    pub(crate) async fn connect(&mut self) {
        self.wire = None;
        self.parser.reconnect();
        self.connects += 1;
        let socket = TcpSocket::new_v4().unwrap();
        // Over HTTP/2 its window is small already.
        if self.narrow && self.engine != Engine::Http2 {
            socket.set_recv_buffer_size(4 << 10).unwrap();
        }
        let stream = socket.connect(self.address).await.unwrap();
        let cursor = Some(self.parser.last_event_id().to_owned()).filter(|id| !id.is_empty());
        let before = self.items.len();
        self.wire = Some(match self.engine {
            Engine::Body | Engine::Socket => self.ask_http1(stream, cursor).await,
            Engine::Http2 => self.ask_http2(stream, cursor).await,
        });
        let retry = |items: &[Item]| items.iter().any(|item| matches!(item, Item::Retry(_)));
        while !retry(&self.items[before..]) {
            assert_eq!(self.read().await, None, "ended in its opening");
        }
        // Otherwise a test would prove something about another engine than it says.
        assert_eq!(self.reads.load(SeqCst) == 0, self.engine == Engine::Socket, "who reads the body");
    }

    async fn ask_http1(&mut self, mut stream: TcpStream, cursor: Option<String>) -> Wire {
        let cursor = cursor.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!("GET {} HTTP/1.1\r\nHost: h\r\n{cursor}\r\n", self.path);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let end = loop {
            let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("a head").unwrap();
            assert!(read > 0, "ended before its head: {:?}", String::from_utf8_lossy(&bytes));
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
        };
        let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().lines();
        assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
        self.headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap();
                (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
            })
            .collect();
        Wire::Http1 { stream, bytes }
    }

    async fn ask_http2(&mut self, stream: TcpStream, cursor: Option<String>) -> Wire {
        let mut connection = Connection::new(stream).await;
        let mut request = Request::get(format!("http://h{}", self.path)).version(Version::HTTP_2);
        if let Some(id) = cursor {
            request = request.header("last-event-id", id);
        }
        let answer = connection.sender.send_request(request.body(Empty::new()).unwrap());
        let response = timeout(PATIENCE, answer).await.expect("a head").unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        let (parts, body) = response.into_parts();
        self.headers = parts.headers;
        Wire::Http2 { body, _connection: connection }
    }

    /// Reads once; says if that was the end.
    pub(crate) async fn read(&mut self) -> Option<End> {
        let wire = self.wire.as_mut().expect("connected");
        let read = timeout(PATIENCE, wire.read()).await;
        let read = read.unwrap_or_else(|_| panic!("silence after {:?}", self.items.iter().rev().take(3).collect::<Vec<_>>()));
        match read {
            Ok(bytes) => {
                self.parser.push(&bytes, |item| self.items.push(item)).unwrap();
                None
            }
            Err(end) => {
                self.wire = None;
                Some(end)
            }
        }
    }

    /// Reads on until this holds.
    pub(crate) async fn until(&mut self, mut holds: impl FnMut(&[Item]) -> bool) {
        let reading = async {
            while !holds(&self.items) {
                assert_eq!(self.read().await, None, "ended after {:?}", self.items.last());
            }
        };
        timeout(PATIENCE, reading).await.expect("it comes");
    }

    /// Reads on until it has so many events, the hub's own not counted; comes back whenever it is cut.
    pub(crate) async fn events(&mut self, count: usize) {
        let reading = async {
            while self.data().count() < count {
                if self.wire.is_none() {
                    self.connect().await;
                } else {
                    self.read().await;
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("they come");
    }

    /// Reads to the end.
    pub(crate) async fn end(&mut self) -> End {
        let reading = async {
            loop {
                if let Some(end) = self.read().await {
                    return end;
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("it ends")
    }

    /// Ends its half of the connection and reads on (HTTP/1 only).
    pub(crate) async fn end_half(&mut self) {
        match self.wire.as_mut() {
            Some(Wire::Http1 { stream, .. }) => stream.shutdown().await.unwrap(),
            _ => panic!("an HTTP/1 connection has a half to end"),
        }
    }

    /// Leaves, and keeps its cursor.
    pub(crate) fn leave(&mut self) {
        self.wire = None;
    }

    pub(crate) fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// The events, the hub's own included.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            _ => None,
        })
    }

    /// What was published: the data of the events that are not the hub's own.
    pub(crate) fn data(&self) -> impl Iterator<Item = &str> {
        self.messages().filter(|message| message.event_type == "message").map(|message| &*message.data)
    }
}

impl Wire {
    async fn read(&mut self) -> Result<Bytes, End> {
        match self {
            Wire::Http1 { stream, bytes } => loop {
                if let Some(chunk) = next_chunk(bytes) {
                    return if chunk.is_empty() { Err(End::Clean) } else { Ok(chunk) };
                }
                bytes.reserve(16 << 10);
                let Ok(1..) = stream.read_buf(bytes).await else { return Err(End::Abort) };
            },
            Wire::Http2 { body, .. } => match body.frame().await {
                Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
                Some(Err(_)) => Err(End::Abort),
                None => Err(End::Clean),
            },
        }
    }
}

/// Takes the next complete chunk off what was read; the last one is empty.
fn next_chunk(bytes: &mut Vec<u8>) -> Option<Bytes> {
    let line = bytes.windows(2).position(|window| window == b"\r\n")?;
    let len = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
    let (start, end) = (line + 2, line + 2 + len);
    if bytes.len() < end + 2 {
        return None;
    }
    assert_eq!(&bytes[end..end + 2], b"\r\n", "a chunk ends where its length says");
    let chunk = Bytes::copy_from_slice(&bytes[start..end]);
    bytes.drain(..end + 2);
    Some(chunk)
}
