//! The Mercure path from outside, over sockets: in place of the reference hub, with the variables of its image.

use crate::program::{DEADLINE, Hub, Program, tidings};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

const SECRET: &str = "a-secret-of-publishers-and-nobody-else";
/// `{"alg":"HS256","typ":"JWT"}` and `{"mercure":{"publish":["*"]}}`, signed with it (M-205, M-207).
const TOKEN: &str =
    concat!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.", "eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.EVRx7iAcz_hSZXC56uqB4-wJKhl7I6_d8Ojau0g5OZ8");

fn send(hub: &Hub, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(hub.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// Lines up to and including one that contains a text.
fn lines_until(answer: &mut BufReader<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        assert!(answer.read_line(&mut text).unwrap() > 0, "no {end:?} in {text}");
    }
    text
}

fn post(hub: &Hub, form: &str, fields: &str) -> String {
    let length = form.len();
    let head =
        "POST /.well-known/mercure HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let mut answer = send(hub, &format!("{head}{fields}Content-Length: {length}\r\n\r\n{form}"));
    let mut text = String::new();
    answer.read_to_string(&mut text).unwrap();
    text
}

fn get(hub: &Hub, target: &str) -> BufReader<TcpStream> {
    send(hub, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// M-14, M-49, M-91, M-211, M-401: both dialects over one socket each, one after the other on the same log.
#[test]
fn both_dialects() {
    let hub = Hub::start(&["--store", "memory"]);
    let mut old = get(&hub, "/.well-known/mercure?topic=a%7B/x%7D&lastEventID=earliest");
    let mut new = get(&hub, "/.well-known/mercure?match=a/1&last_event_id=");
    let head = lines_until(&mut old, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.contains("\r\nlast-event-id: earliest\r\n") && head.contains("\r\nmercure-last-event-id: earliest\r\n"), "{head}");
    let head = lines_until(&mut new, "\r\n\r\n").to_ascii_lowercase();
    assert!(!head.contains("\r\nlast-event-id:") && head.contains("\r\nmercure-last-event-id: earliest\r\n"), "{head}");
    let answer = post(&hub, "topic=a/1&data=hello&id=urn:x", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nurn:x"), "{answer}");
    for answer in [&mut old, &mut new] {
        lines_until(answer, "data: hello\nid: urn:x\n\n");
    }
}

/// M-32, M-73: without a public URL relative patterns are relative to where the hub listens.
#[test]
fn relative_patterns() {
    let hub = Hub::start(&["--store", "memory"]);
    let mut stream = get(&hub, "/.well-known/mercure?match_urlpattern=/a/:id");
    lines_until(&mut stream, "\r\n\r\n");
    for topic in ["http://localhost/a/1".to_owned(), format!("http://{}/a/2", hub.address())] {
        assert!(post(&hub, &format!("topic={topic}&data={topic}"), "").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let text = lines_until(&mut stream, "data: http");
    assert!(text.contains(&format!("data: http://{}/a/2\n", hub.address())), "{text}");
}

/// M-406, M-407, section 2.1: the flag makes the difference; what cannot be followed is said.
#[test]
fn in_place_of_the_reference_hub() {
    let in_place = |env: &[(&str, &str)]| {
        let mut command = tidings(&["serve", "--listen", "127.0.0.1:0", "--store", "memory", "--compat", "mercure"]);
        command.env_remove("SERVER_NAME").env("MERCURE_PUBLISHER_JWT_KEY", SECRET).env("MERCURE_SUBSCRIBER_JWT_KEY", SECRET);
        Program::start(command.envs(env.iter().copied()))
    };
    for (name, value, says) in [
        ("MERCURE_LICENSE", "x", "nothing here needs a licence key"),
        ("MERCURE_EXTRA_DIRECTIVES", "hearbeat 3s", "the nearest name is `heartbeat`"),
        ("MERCURE_EXTRA_DIRECTIVES", "playground", "`playground` is not followed"),
    ] {
        let exit = in_place(&[(name, value)]).exit();
        assert!(exit.code == Some(2) && exit.err.contains(says), "{name}={value}: {exit:?}");
    }
    let mut program = in_place(&[("MERCURE_EXTRA_DIRECTIVES", "anonymous\nui\nname x")]);
    let url = program.line().split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
    program.wait_for_notice("name has no effect: the health paths here have no names");
    let hub = Hub { program, url };
    assert!(post(&hub, "topic=a", "").starts_with("HTTP/1.1 401 Unauthorized\r\n"));
    let mut stream = get(&hub, "/.well-known/mercure?topic=a");
    assert!(lines_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"), "anonymous");
    let answer = post(&hub, "topic=a&data=x&id=1", &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    lines_until(&mut stream, "id: 1\n\n");
    let mut page = get(&hub, "/.well-known/mercure/debug/");
    assert!(lines_until(&mut page, "\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
}
