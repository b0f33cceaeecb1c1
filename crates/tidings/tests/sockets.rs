//! A hub behind real sockets in this process, with readers that reconnect as browsers do: what they see when a shard fails (Z-15) and
//! when the hub stops (Z-1, Z-17).

use std::{net::SocketAddr, time::Duration};
use tidings::{Config, Event, Hub, Item, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reader over HTTP/1.1: takes the chunks apart, keeps its cursor, and comes back when it is cut.
struct Reader {
    address: SocketAddr,
    stream: Option<TcpStream>,
    bytes: Vec<u8>,
    in_body: bool,
    parser: Parser,
    data: Vec<String>,
    connects: usize,
}

impl Reader {
    fn new(address: SocketAddr) -> Reader {
        Reader { address, stream: None, bytes: Vec::new(), in_body: false, parser: Parser::new(1 << 20), data: Vec::new(), connects: 0 }
    }

    async fn connect(&mut self) {
        self.bytes.clear();
        self.in_body = false;
        self.parser.reconnect();
        self.connects += 1;
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let cursor = match self.parser.last_event_id() {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let request = format!("GET /subscribe/t HTTP/1.1\r\nHost: {}\r\n{cursor}\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        self.stream = Some(stream);
    }

    /// Reads once; false when the connection broke or the body ended.
    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let stream = self.stream.as_mut().unwrap();
        let Ok(Ok(len @ 1..)) = timeout(PATIENCE, stream.read(&mut buffer)).await else { return false };
        self.bytes.extend_from_slice(&buffer[..len]);
        if !self.in_body {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return true };
            assert!(self.bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
            self.bytes.drain(..end + 4);
            self.in_body = true;
        }
        while let Some(line) = self.bytes.windows(2).position(|window| window == b"\r\n") {
            let len = usize::from_str_radix(std::str::from_utf8(&self.bytes[..line]).unwrap(), 16).unwrap();
            if len == 0 {
                return false;
            }
            if self.bytes.len() < line + 2 + len + 2 {
                break;
            }
            let chunk: Vec<u8> = self.bytes.drain(..line + 2 + len + 2).skip(line + 2).take(len).collect();
            let data = &mut self.data;
            let take = |item| {
                if let Item::Message(message) = item {
                    assert_eq!(message.event_type, "message", "{message:?}");
                    data.push(message.data);
                }
            };
            self.parser.push(&chunk, take).unwrap();
        }
        true
    }

    /// Reads on, reconnecting whenever it is cut, until it has so many events.
    async fn until(&mut self, events: usize) {
        while self.data.len() < events {
            if self.stream.is_none() {
                self.connect().await;
            }
            if !self.read().await {
                self.stream = None;
            }
        }
    }
}

async fn hub(shards: usize) -> (Hub, SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<std::io::Result<()>>) {
    let mut config = Config::default();
    config.shards = shards;
    let hub = Hub::builder().config(config).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn({
        let hub = hub.clone();
        async move { hub.serve_listener(listener, stopped).await }
    });
    (hub, address, stop, serving)
}

/// Z-15: the clients of a failed shard come back and miss nothing, the others notice nothing, the process lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_shard_costs_connections_and_no_events() {
    const READERS: usize = 40;
    const EVENTS: usize = 3_000;
    let (hub, address, _stop, _serving) = hub(2).await;
    let mut readers: Vec<Reader> = (0..READERS).map(|_| Reader::new(address)).collect();
    for reader in &mut readers {
        reader.connect().await;
        // The opening has arrived, so the cursor is set: nothing published from here on may be missed.
        while reader.parser.last_event_id().is_empty() {
            assert!(reader.read().await);
        }
    }
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            tokio::spawn(async move {
                reader.until(EVENTS).await;
                reader
            })
        })
        .collect();
    for n in 0..EVENTS {
        if n == EVENTS / 3 {
            hub.fail_shard(0);
        }
        if n == EVENTS * 2 / 3 {
            // A shard in the middle of a turn might deliver all there is before it hears that it fails; of the last third it cannot.
            timeout(PATIENCE, wait_for_failure(&hub)).await.expect("the shard fails");
        }
        hub.publish(Event::new("t", n.to_string()).unwrap()).await.unwrap();
    }
    let expected: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    let mut came_back = 0;
    for reader in readers {
        let reader = timeout(PATIENCE, reader).await.expect("every reader gets everything").unwrap();
        assert_eq!(reader.data, expected);
        came_back += usize::from(reader.connects > 1);
    }
    assert_eq!(came_back, READERS / 2, "the clients of one shard, and nobody else, had to come back");
    assert!(hub.metrics().contains("tidings_shard_failures_total 1\n"));
}

async fn wait_for_failure(hub: &Hub) {
    while !hub.metrics().contains("tidings_shard_failures_total 1\n") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A reconnect storm fills the listener's queue; everybody who waits in it is answered, however many are taken at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_in_the_queue_is_served() {
    const CLIENTS: usize = 400;
    let listener = tidings::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut readers: Vec<Reader> = (0..CLIENTS).map(|_| Reader::new(address)).collect();
    for reader in &mut readers {
        reader.connect().await;
    }
    let hub = Hub::new().unwrap();
    let serving = tokio::spawn(async move { hub.serve_listener(listener, std::future::pending::<()>()).await });
    for reader in &mut readers {
        while reader.parser.last_event_id().is_empty() {
            assert!(reader.read().await, "a client in the queue was turned away");
        }
    }
    serving.abort();
}

/// Z-1, Z-17, S-43: told to stop, the hub ends its streams with a `retry` line and the proper end, and returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_streams_and_returns() {
    let (hub, address, stop, serving) = hub(2).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET /subscribe/t HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4096];
    let opened = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes[..opened].starts_with(b"HTTP/1.1 200 OK\r\n"));
    hub.publish(Event::new("t", "last").unwrap()).await.unwrap();
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("data: last\n"));
    let last_lines = rest.strip_suffix("\r\n0\r\n\r\n").expect("the proper end of the body");
    assert!(last_lines.lines().last().unwrap().starts_with("retry: "), "{rest:?}");
    timeout(PATIENCE, serving).await.expect("returns").unwrap().unwrap();
}
