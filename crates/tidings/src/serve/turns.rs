//! Who gets a turn on a thread, and when: tests with one thread for the server and everybody it serves.

use super::{ACCEPT_BATCH, Server, bind};
use crate::Config;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    io::Write,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// Notes how many connections had been accepted when it was called first.
#[derive(Clone)]
struct Notes {
    server: Server,
    accepted: Arc<OnceLock<u64>>,
}

impl tower_service::Service<Request<Incoming>> for Notes {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        self.accepted.get_or_init(|| self.server.accepted());
        ready(Ok(Response::new(Empty::new())))
    }
}

/// Somebody always waits to be accepted: those who were get their turn all the same, and not after all who come.
#[tokio::test]
async fn who_was_accepted_is_not_kept_waiting_by_those_who_come() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    // The server runs on this thread and sees none of them before all are there.
    let connect = |_| {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        client
    };
    let mut clients: Vec<_> = (0..4 * ACCEPT_BATCH).map(connect).collect();
    let server = Server::new(&Config::default());
    let service = Notes { server: server.clone(), accepted: Arc::default() };
    let task = tokio::spawn(server.serve(listener, service.clone(), pending::<()>()));
    let last = clients.pop().unwrap();
    last.set_nonblocking(true).unwrap();
    let mut answer = [0; 15];
    let read = async { TcpStream::from_std(last).unwrap().read_exact(&mut answer).await };
    timeout(Duration::from_secs(10), read).await.expect("all are served").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!((service.accepted.get(), server.accepted()), (Some(&(ACCEPT_BATCH as u64)), 4 * ACCEPT_BATCH as u64));
    task.abort();
}
