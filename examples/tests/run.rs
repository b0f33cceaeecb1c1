//! Runs every example on a free port and sees it work from outside, byte by byte.
//!
//! It knows HTTP over a socket, not the library: what a reader of an example would try with `curl`.

#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../axum_app.rs"]
mod axum_app;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../plain_hyper.rs"]
mod plain_hyper;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../runtime_figures.rs"]
mod runtime_figures;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts an example; the runtime stops it when it is dropped.
fn start<F>(run: impl FnOnce(TcpListener) -> F) -> (tokio::runtime::Runtime, SocketAddr)
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(run(listener));
    (runtime, address)
}

/// Sends a request and reads until the answer contains `expected`; all of it.
fn check(connection: &mut TcpStream, request: &str, expected: &str) -> String {
    connection.write_all(request.as_bytes()).unwrap();
    wait_for(connection, expected)
}

fn wait_for(connection: &mut TcpStream, expected: &str) -> String {
    let (mut read, mut buffer, started) = (String::new(), [0; 4_096], Instant::now());
    while !read.contains(expected) {
        assert!(started.elapsed() < DEADLINE, "no {expected:?} in {read:?}");
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = connection.read(&mut buffer).unwrap_or_else(|e| panic!("{e}: no {expected:?} in {read:?}"));
        assert!(length > 0, "the end, and no {expected:?} in {read:?}");
        read.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    read
}

fn request(address: SocketAddr, line: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn get(address: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: */*\r\n\r\n")
}

#[test]
fn axum_app_tells_watchers_of_orders() {
    let (_runtime, address) = start(axum_app::run);
    let mut watcher = TcpStream::connect(address).unwrap();
    check(&mut watcher, &get(address, "/events/subscribe/orders"), ": ok\nretry: ");
    let mut client = TcpStream::connect(address).unwrap();
    let answer = check(&mut client, &request(address, "POST /orders/42/ship", ""), "told as #");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    wait_for(&mut watcher, "data: {\"state\":\"shipped\"}\nid: #");
}

#[test]
fn plain_hyper_publishes_and_subscribes() {
    let (_runtime, address) = start(plain_hyper::run);
    let mut reader = TcpStream::connect(address).unwrap();
    check(&mut reader, &get(address, "/subscribe/news"), ": ok\nretry: ");
    let mut client = TcpStream::connect(address).unwrap();
    check(&mut client, &request(address, "POST /publish/news", "hello"), "HTTP/1.1 200 OK\r\n");
    wait_for(&mut reader, "data: hello\nid: #");
}

/// Z-19: the page is served, and its four event names arrive.
#[test]
fn runtime_figures_are_live() {
    let (_runtime, address) = start(runtime_figures::run);
    let mut browser = TcpStream::connect(address).unwrap();
    check(&mut browser, &get(address, "/"), "new EventSource('/subscribe/sysenv')");
    let mut source = TcpStream::connect(address).unwrap();
    let read = check(&mut source, &get(address, "/subscribe/sysenv"), "event: runtime\ndata: {");
    for name in ["mem", "cpu", "sysLoad"] {
        assert!(read.contains(&format!("event: {name}\ndata: {{")), "{name} in {read}");
    }
}
