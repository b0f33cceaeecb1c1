//! A server that answers with literal bytes, one answer for each request, and tells what it was asked.

use crate::program::DEADLINE;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

/// What follows an answer on its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request.
    Keep,
    /// The end, wherever the answer stands.
    Cut,
    /// Nothing, until the client closes.
    Wait,
}

/// A scripted server.
pub(crate) struct Scripted {
    pub(crate) url: String,
    requests: Receiver<String>,
}

impl Scripted {
    /// Serves the answers in order, over as many connections as it takes.
    pub(crate) fn start(answers: Vec<(String, Then)>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, requests) = channel();
        thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut connection: Option<TcpStream> = None;
            for (answer, then) in &mut answers {
                let request = loop {
                    let mut open = connection.take().unwrap_or_else(|| listener.accept().unwrap().0);
                    if let Some(request) = read_request(&mut open) {
                        connection = Some(open);
                        break request;
                    }
                };
                let _ = send.send(request);
                let open = connection.as_mut().unwrap();
                open.write_all(answer.as_bytes()).unwrap();
                match then {
                    Then::Keep => {}
                    Then::Cut => connection = None,
                    Then::Wait => {
                        let _ = open.read(&mut [0; 1]);
                        connection = None;
                    }
                }
            }
        });
        Scripted { url, requests }
    }

    /// The next request as it was sent.
    pub(crate) fn request(&self) -> String {
        self.requests.recv_timeout(DEADLINE).unwrap()
    }
}

/// One request with its body; `None` when the client closed instead.
fn read_request(from: &mut TcpStream) -> Option<String> {
    from.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = Vec::new();
    let mut byte = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        if from.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// A stream with these bytes; ended properly, or left in the middle.
pub(crate) fn stream(bytes: &str, ended: bool) -> String {
    let end = if ended { "0\r\n\r\n" } else { "" };
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{bytes}\r\n{end}", bytes.len())
}

/// A response with a body.
pub(crate) fn response(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// A problem document (N-5).
pub(crate) fn problem(status: &str, fields: &str, body: &str) -> String {
    response(status, &format!("content-type: application/problem+json\r\n{fields}"), body)
}
