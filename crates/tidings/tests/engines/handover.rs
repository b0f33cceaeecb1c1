//! The hand-over itself: streams over HTTP/1 leave the HTTP library with their sockets, those that may not stay, and nothing that stands
//! around one is lost, said twice or kept.
//!
//! It speaks HTTP/1 byte by byte. What streams say is tried elsewhere.

use crate::{
    Engine,
    reader::Reader,
    running::{PATIENCE, Running, attentive, wait_until},
};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};
use tidings::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

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

const GET: &str = "GET /subscribe/t HTTP/1.1\r\nHost: h\r\n\r\n";

/// The same request over both engines: the same fields and the same body, byte for byte; only one of them is read as a body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_say_the_same() {
    let mut said = Vec::new();
    for engine in [Engine::Socket, Engine::Body] {
        let running = Running::start(engine, attentive());
        let mut client = Client::ask(&running, "GET /subscribe/t?prime=0 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        client.until("retry: ").await;
        for data in ["one", "two\nlines"] {
            running.publish("t", data).await;
            client.until(&format!("data: {}\n", data.lines().last().unwrap())).await;
        }
        assert_eq!(running.reads.load(SeqCst) > 0, engine == Engine::Body, "who reads the body");
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
    let running = Running::start(Engine::Socket, attentive());
    let mut client = Client::ask(&running, "GET /subscribe/t HTTP/1.0\r\nHost: h\r\n\r\n").await;
    client.until("\r\n\r\n: ok\nretry: ").await;
    running.publish("t", "x").await;
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
    let running = Running::start(Engine::Socket, Config::default());
    let mut client = Client::ask(&running, "POST /publish/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n0").await;
    client.until("\n#").await;
    let answered = running.reads.load(SeqCst);
    client.stream.write_all(GET.as_bytes()).await.unwrap();
    client.until("\nretry: ").await;
    client.stream.write_all(&vec![b'j'; 1 << 20]).await.unwrap();
    running.publish("t", "still there").await;
    client.until("\ndata: still there\n").await;
    assert!(answered > 0, "the answer to the publish is read as a body");
    assert_eq!(running.reads.load(SeqCst), answered, "the stream is not");
}

/// A form is read to its end before its stream leaves (N-15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_opens_a_stream() {
    let running = Running::start(Engine::Socket, Config::default());
    for method in ["POST", "QUERY"] {
        let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntopic=t";
        let mut client = Client::ask(&running, &format!("{method} /subscribe HTTP/1.1\r\nHost: h\r\n{form}")).await;
        client.until("\nretry: ").await;
        running.publish("t", method).await;
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
    let running = Running::start(Engine::Socket, config);
    for _ in 0..3 {
        let mut clients = vec![Client::ask(&running, GET).await, Client::ask(&running, GET).await];
        for client in &mut clients {
            client.until("\nretry: ").await;
        }
        // A shard says how many it has after it has written.
        wait_until("both are there", || (running.hub.subscribers(), running.server.connections()) == (2, 2)).await;
        let mut third = Client::ask(&running, GET).await;
        third.until(": busy").await;
        drop((clients, third));
        wait_until("all have left", || running.hub.subscribers() == 0 && running.server.connections() == 0).await;
    }
}

/// A layer that has read the beginning of a stream keeps all of it: what is left is not said to the socket, nor is the stream cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_read_from_stays() {
    let running = Running::reading_ahead(Engine::Socket, Config::default());
    let mut client = Client::ask(&running, GET).await;
    client.until("\nretry: ").await;
    running.publish("t", "x").await;
    client.until("\ndata: x\n").await;
    assert_eq!(client.read.matches(": ok\n").count(), 1);
    assert!(running.reads.load(SeqCst) > 0);
}

/// Clients that reset their connection at any moment around the hand-over are forgotten everywhere, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_around_the_hand_over() {
    let mut config = attentive();
    config.connections_per_address = Some(500);
    let running = Running::start(Engine::Socket, config);
    let mut reader = Reader::open(&running, "/subscribe/t").await;
    for n in 0..200 {
        let mut client = Client::ask(&running, GET).await;
        // Sooner or later in the life of its request, by how often others get a turn first.
        for _ in 0..n % 20 {
            tokio::task::yield_now().await;
        }
        if n % 40 == 0 {
            client.until("\nretry: ").await;
        }
        client.stream.set_zero_linger().unwrap();
        drop(client);
        running.publish("t", &n.to_string()).await;
    }
    reader.events(200).await;
    assert!(reader.data().eq((0..200).map(|n| n.to_string())) && reader.connects == 1);
    wait_until("all others have left", || (running.hub.subscribers(), running.server.connections()) == (1, 1)).await;
}

/// A client that talks on and on takes nothing away from others, and gets its events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_talks_on() {
    let running = Running::start(Engine::Socket, Config::default());
    let mut reader = Reader::open(&running, "/subscribe/t").await;
    let mut talker = Client::ask(&running, GET).await;
    talker.until("\nretry: ").await;
    let (mut events, mut talk) = talker.stream.into_split();
    let talking = tokio::spawn(async move { while talk.write_all(&[b'j'; 8 << 10]).await.is_ok() {} });
    for n in 0..200 {
        running.publish("t", &n.to_string()).await;
        reader.events(n + 1).await;
    }
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("\ndata: 199\n") {
        assert!(timeout(PATIENCE, events.read_buf(&mut heard)).await.unwrap().unwrap() > 0);
    }
    talking.abort();
}
