//! A server for tests: it answers every connection with the next of a list of texts, the last one for ever, and keeps the requests.
//!
//! It knows no HTTP: what it says is written out in the test.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    answers: Arc<Mutex<Vec<String>>>,
    served: Arc<AtomicUsize>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

/// The answer 200 with a body, and further fields, each with its line end.
pub(crate) fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

impl Server {
    /// Answers over plain HTTP. An empty text is no answer at all: the connection stays open.
    pub(crate) async fn start(answers: &[String]) -> Server {
        Server::start_with(answers, None).await
    }

    pub(crate) async fn start_with(answers: &[String], tls: Option<tokio_rustls::TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server { address, answers: Arc::new(Mutex::new(answers.to_vec())), served: Arc::default(), requests: Arc::default() };
        let (answers, served, requests) = (server.answers.clone(), server.served.clone(), server.requests.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = served.fetch_add(1, Ordering::SeqCst);
                let answer = {
                    let answers = answers.lock().unwrap();
                    answers[number.min(answers.len() - 1)].clone()
                };
                let (tls, requests) = (tls.clone(), requests.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, &answer, &requests).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                serve(stream, &answer, &requests).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// Connections so far.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Other answers from the next connection on.
    pub(crate) fn answer(&self, answer: String) {
        *self.answers.lock().unwrap() = vec![answer];
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str, requests: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    requests.lock().unwrap().push(String::from_utf8(request).unwrap());
    let _ = stream.write_all(answer.as_bytes()).await;
    if answer.is_empty() {
        // Until the client goes.
        let _ = stream.read_u8().await;
    }
    let _ = stream.shutdown().await;
}
