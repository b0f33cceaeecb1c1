//! What bad input gets, from outside and byte by byte: each a clear refusal or a documented meaning, and nobody else notices.
//!
//! Every test has a hub of its own and a bystander who has subscribed before and receives an event after every case. It knows the
//! interface on the wire and nothing of the program.

mod cases;
mod hub;

use cases::{
    Gets::{self, Answered, Kept, Refused, Stream},
    post, requests, sizes, text,
};
use hub::{Connection, Hub, PATIENCE, status_of, wait_until};
use std::{
    io::Read,
    net::Shutdown,
    time::{Duration, Instant},
};

fn run(cases: Vec<(&'static str, Vec<u8>, Gets)>) {
    let mut hub = Hub::start(&[]);
    #[cfg(target_os = "linux")]
    let files = hub.open_files();
    for (name, request, gets) in cases {
        let mut connection = Connection::open(hub.address);
        connection.send(&request);
        let answer = connection.answer();
        let status = status_of(&answer);
        match gets {
            Refused(expected, says) => {
                assert_eq!(status, expected, "{name}: {answer}");
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let head = head.to_ascii_lowercase();
                assert!(head.contains("\r\ncontent-type: application/problem+json"), "{name}: {answer}");
                assert!(!head.contains("access-control-allow-origin"), "{name}: {answer}");
                assert!(body.contains(says), "{name} does not say {says:?}: {answer}");
                for member in ["\"type\":\"urn:", "\"title\":\"", &format!("\"status\":{expected}"), "\"detail\":\""] {
                    assert!(body.contains(member), "{name} has no {member}: {answer}");
                }
            }
            Kept(expected) => {
                assert_eq!(status, 200, "{name}: {answer}");
                hub.published += 1;
                hub.kept("odd", expected);
            }
            Stream(expected) => {
                assert_eq!(status, 200, "{name}: {answer}");
                connection.wait_for(expected);
            }
            Answered(expected) => {
                assert_eq!(status, 200, "{name}: {answer}");
                hub.published += u64::from(request.starts_with(b"POST /publish"));
                assert!(answer.contains(expected), "{name} does not say {expected:?}: {answer}");
            }
        }
        drop(connection);
        hub.undisturbed(name);
    }
    #[cfg(target_os = "linux")]
    wait_until("no file is left open", || hub.open_files() <= files);
}

/// S-1 ... S-12, N-1a: bytes that could break the framing.
#[test]
fn bad_text() {
    run(text());
}

/// N-40, S-46: what is too large, too long, too many.
#[test]
fn bad_sizes() {
    run(sizes());
}

/// N-5, N-31: requests that mean something else than they say, or that nobody may make.
#[test]
fn bad_requests() {
    run(requests());
}

/// N-5: nothing of a body that was cut is published, and who can still hear is told.
#[test]
fn a_body_cut_in_the_middle() {
    let mut hub = Hub::start(&[]);
    let publish = "POST /publish/odd HTTP/1.1\r\nHost: localhost\r\n";
    for (name, request) in [
        ("by length", format!("{publish}Content-Length: 100\r\n\r\nhalf")),
        ("chunked", format!("{publish}Transfer-Encoding: chunked\r\n\r\n64\r\nhalf")),
        ("before its first byte", format!("{publish}Content-Length: 100\r\n\r\n")),
    ] {
        let mut half_closed = Connection::open(hub.address);
        half_closed.send(&request);
        half_closed.stream.shutdown(Shutdown::Write).unwrap();
        let answer = half_closed.answer();
        assert!(status_of(&answer) == 400 && answer.contains("urn:tidings:problem:body-cut"), "{name}: {answer}");
        hub.undisturbed(name);
        let mut gone = Connection::open(hub.address);
        gone.send(&request);
        drop(gone);
        hub.undisturbed(name);
    }
}

/// N-40: a head that comes one byte at a time is given up at its deadline, also on a connection that was in use.
#[test]
fn a_slow_head() {
    let mut hub = Hub::start(&["--request-time", "500ms"]);
    for first in ["", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut slow = Connection::open(hub.address);
        if !first.is_empty() {
            slow.send(first);
            slow.wait_for("Active connections: 1");
            slow.read.clear();
        }
        let begun = Instant::now();
        slow.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        for byte in b"GET /health HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            assert!(begun.elapsed() < PATIENCE, "no answer");
            slow.send([*byte]);
            // The pause between two bytes is the wait for an answer.
            let mut piece = [0; 4096];
            if let Ok(n) = slow.stream.read(&mut piece) {
                slow.read.extend_from_slice(&piece[..n]);
                break;
            }
        }
        assert!(begun.elapsed() >= Duration::from_millis(500), "given up after {:?}", begun.elapsed());
        slow.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let answer = slow.answer();
        assert_eq!(status_of(&answer), 408, "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n") && answer.contains("\"status\":408"), "{answer}");
        hub.undisturbed("a slow head");
    }
}

/// Requests that come in one piece are answered one after the other, each as if it were alone, up to the first bad one.
#[test]
fn pipelined_requests() {
    let mut hub = Hub::start(&[]);
    let one = |data: &str| format!("POST /publish/odd?id={data} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{data}");
    let mut connection = Connection::open(hub.address);
    connection.send(one("1") + &one("2") + &one("#") + &one("3") + "GET /\0 HTTP/1.1\r\n\r\n" + &one("4"));
    let answer = connection.answer();
    let statuses: Vec<u16> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| status_of(&answer[at..])).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 400], "{answer}");
    for id in ["\r\n\r\n1\n", "\r\n\r\n2\n", "\r\n\r\n3\n"] {
        assert!(answer.contains(id), "{answer}");
    }
    hub.published += 4;
    hub.kept("odd", "\ndata: 3\nid: 3\n");
    hub.undisturbed("pipelined requests");

    // A stream has no end, so what comes after it is never looked at.
    let mut stream = Connection::open(hub.address);
    stream.send("GET /subscribe/odd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned() + &one("5"));
    stream.wait_for("\nretry: ");
    let answer = hub.ask(post("/publish/odd", "", "6"));
    assert_eq!(status_of(&answer), 200, "{answer}");
    hub.published += 1;
    stream.wait_for("\ndata: 6\n");
    drop(stream);
    hub.undisturbed("a request behind a stream");
}

/// Who ends one half of the connection is answered, and goes on receiving; who is gone is noticed without an event.
#[test]
fn a_client_that_half_closes() {
    let mut hub = Hub::start(&["--heartbeat", "1h"]);
    let mut publisher = Connection::open(hub.address);
    publisher.send("POST /publish/odd HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1");
    publisher.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(status_of(&publisher.answer()), 200);
    hub.published += 1;
    hub.undisturbed("a publisher that half-closes");

    let mut subscriber = Connection::open(hub.address);
    subscriber.send("GET /subscribe/odd HTTP/1.1\r\nHost: localhost\r\n\r\n");
    subscriber.wait_for("\nretry: ");
    subscriber.stream.shutdown(Shutdown::Write).unwrap();
    for data in ["2", "3"] {
        assert_eq!(status_of(&hub.ask(post("/publish/odd", "", data))), 200);
        hub.published += 1;
        subscriber.wait_for(&format!("\ndata: {data}\nid: #"));
    }
    assert_eq!(hub.metric("tidings_connections"), 2);
    drop(subscriber);
    // It had said its last word before, so only the next write can find that nobody is there.
    assert_eq!(status_of(&hub.ask(post("/publish/odd", "", "4"))), 200);
    hub.published += 1;
    hub.undisturbed("a subscriber that half-closed, and left");

    let mut leaver = Connection::open(hub.address);
    leaver.send("GET /subscribe/odd HTTP/1.1\r\nHost: localhost\r\n\r\n");
    leaver.wait_for("\nretry: ");
    drop(leaver);
    hub.undisturbed("a subscriber that left");

    let mut cut = Connection::open(hub.address);
    cut.send("GET /subscribe/odd HTTP/1.1\r\nHo");
    cut.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(status_of(&cut.answer()), 400);
    hub.undisturbed("a head that was cut");
}
