//! Engine B from outside: streams over HTTP/1 leave the HTTP library with their sockets, those that may not stay, and both say the same.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidings::{Config, Event, Hub, HubService, ResponseBody, serve::Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tower_service::Service;

const PATIENCE: Duration = Duration::from_secs(20);

/// A layer around the hub that counts how often its bodies are read, and may claim to change them.
#[derive(Clone)]
struct Layer {
    hub: HubService,
    reads: Arc<AtomicUsize>,
    encoding: Option<HeaderValue>,
}

struct Counted {
    body: ResponseBody,
    reads: Arc<AtomicUsize>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = tidings::Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tidings::Aborted>>> {
        self.reads.fetch_add(1, SeqCst);
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl Service<Request<Incoming>> for Layer {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Layer { mut hub, reads, encoding } = self.clone();
        Box::pin(async move {
            let mut response = hub.call(request).await?;
            if let Some(encoding) = encoding {
                response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
            }
            Ok(response.map(|body| Counted { body, reads }))
        })
    }
}

struct Running {
    hub: Hub,
    server: Server,
    address: SocketAddr,
    reads: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

fn start(config: Config, encoding: Option<&'static str>) -> Running {
    let server = Server::new(&config);
    let hub = Hub::builder().config(config).build().unwrap();
    let listener = tidings::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let layer = Layer { hub: hub.service(), reads: reads.clone(), encoding: encoding.map(HeaderValue::from_static) };
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.serve(listener, layer, stopped));
    Running { hub, server, address, reads, _stop: stop }
}

struct Client {
    stream: TcpStream,
    read: String,
}

impl Client {
    async fn ask(running: &Running, request: &str) -> Client {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Client { stream, read: String::new() }
    }

    async fn until(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.read.contains(text) {
            let n =
                timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.read)).unwrap();
            assert!(n > 0, "ended before {text:?}: {:?}", self.read);
            self.read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
    }

    async fn rest(mut self) -> String {
        timeout(PATIENCE, self.stream.read_to_string(&mut self.read)).await.unwrap().unwrap();
        self.read
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

const GET: &str = "GET /subscribe/t HTTP/1.1\r\nHost: h\r\n\r\n";

async fn publish(running: &Running, data: &str) {
    running.hub.publish(Event::new("t", data).unwrap()).await.unwrap();
}

/// The same request over both engines: the same fields and the same body, byte for byte; only one of them is read as a body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_say_the_same() {
    let mut said = Vec::new();
    for encoding in [None, Some("identity")] {
        let running = start(Config::default(), encoding);
        let mut client = Client::ask(&running, "GET /subscribe/t?prime=0 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        client.until("retry: ").await;
        for data in ["one", "two\nlines"] {
            publish(&running, data).await;
            client.until(&format!("data: {}\n", data.lines().last().unwrap())).await;
        }
        assert_eq!(running.reads.load(SeqCst) > 0, encoding.is_some(), "who reads the body");
        running.hub.shut_down(PATIENCE).await;
        client.until("\r\n0\r\n\r\n").await;
        let (head, body) = client.read.split_once("\r\n\r\n").unwrap();
        let mut fields: Vec<String> =
            head.lines().filter(|line| !line.starts_with("date: ") && !line.starts_with("content-encoding: ")).map(str::to_owned).collect();
        fields.sort();
        // Ids and times to come back are drawn at random, and how lines are cut into chunks is each engine's own.
        let lines = body.split("\r\n").filter(|line| !line.chars().all(|c| c.is_ascii_hexdigit()));
        let text: String = lines
            .flat_map(|chunk| chunk.split_inclusive('\n'))
            .filter(|line| !line.starts_with("id: ") && !line.starts_with("retry: "))
            .collect();
        said.push((fields, text.trim_end().to_owned()));
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0].1, ": ok\ndata: one\n\ndata: two\ndata: lines");
}

/// A proxy that speaks HTTP/1.0 gets bytes without chunks, and the end of the connection as the end (S-29).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_ends_with_the_connection() {
    let running = start(Config::default(), None);
    let mut client = Client::ask(&running, "GET /subscribe/t HTTP/1.0\r\nHost: h\r\n\r\n").await;
    client.until("\r\n\r\n: ok\nretry: ").await;
    publish(&running, "x").await;
    client.until("\ndata: x\nid: ").await;
    assert!(client.read.starts_with("HTTP/1.0 200 OK\r\n") && client.read.contains("\r\nconnection: close\r\n"), "{}", client.read);
    assert!(!client.read.contains("transfer-encoding"));
    running.hub.shut_down(PATIENCE).await;
    assert!(client.rest().await.lines().last().unwrap().starts_with("retry: "));
    assert_eq!(running.reads.load(SeqCst), 0);
}

/// Requests on one connection before the stream are answered, what is sent behind it is thrown away, however much it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_around_a_stream() {
    let running = start(Config::default(), None);
    let mut client = Client::ask(&running, "POST /publish/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n0").await;
    client.until("\n#").await;
    let answered = running.reads.load(SeqCst);
    client.stream.write_all(GET.as_bytes()).await.unwrap();
    client.until("\nretry: ").await;
    client.stream.write_all(&vec![b'j'; 1 << 20]).await.unwrap();
    publish(&running, "still there").await;
    client.until("\ndata: still there\n").await;
    assert!(answered > 0, "the answer to the publish is read as a body");
    assert_eq!(running.reads.load(SeqCst), answered, "the stream is not");
}

/// A form is read to its end before its stream leaves (N-15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_opens_a_stream() {
    let running = start(Config::default(), None);
    for method in ["POST", "QUERY"] {
        let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntopic=t";
        let mut client = Client::ask(&running, &format!("{method} /subscribe HTTP/1.1\r\nHost: h\r\n{form}")).await;
        client.until("\nretry: ").await;
        publish(&running, method).await;
        client.until(&format!("\ndata: {method}\n")).await;
    }
    assert_eq!(running.reads.load(SeqCst), 0);
}

/// Whoever leaves is forgotten everywhere: by the shard, in the number of connections, and in what one address may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_given_back() {
    let mut config = Config::default();
    config.connections_per_address = Some(2);
    config.heartbeat = Some(Duration::from_secs(1));
    let running = start(config, None);
    for _ in 0..3 {
        let mut clients = vec![Client::ask(&running, GET).await, Client::ask(&running, GET).await];
        for client in &mut clients {
            client.until("\nretry: ").await;
        }
        // A shard counts at the end of its turn, after the bytes are out.
        wait_until("both are counted", || (running.hub.subscribers(), running.server.connections()) == (2, 2)).await;
        let mut third = Client::ask(&running, GET).await;
        third.until(": busy").await;
        drop((clients, third));
        wait_until("all have left", || running.hub.subscribers() == 0 && running.server.connections() == 0).await;
    }
}

/// S-28: a client that takes nothing is given up, and nobody else waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_given_up() {
    let mut config = Config::default();
    config.stalled_write = Duration::from_secs(1);
    let running = start(config, None);
    let mut stalled = Client::ask(&running, GET).await;
    stalled.until("\nretry: ").await;
    let mut reader = Client::ask(&running, GET).await;
    reader.until("\nretry: ").await;
    let large = "x".repeat(1 << 20);
    for _ in 0..24 {
        publish(&running, &large).await;
        reader.read.clear();
        reader.until("\nid: #").await;
    }
    wait_until("it is given up", || running.hub.subscribers() == 1).await;
    assert!(running.hub.metrics().lines().any(|line| line.contains("stalled") && line.ends_with(" 1")), "{}", running.hub.metrics());
}
