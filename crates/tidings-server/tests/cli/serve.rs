//! `tidings serve`: where settings come from, what it says, and how it stops (N-30, N-41, N-42).

use crate::program::{DEADLINE, Hub, Program, tidings};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

/// One request, and the whole answer up to the end of the connection.
fn ask(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(format!("{request}\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// A stream that has begun: what was read stands in the string.
fn open_stream(address: &str, begun: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(format!("GET /subscribe HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n").as_bytes()).unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 4_096];
    while !String::from_utf8_lossy(&read).contains(begun) {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    (socket, String::from_utf8(read).unwrap())
}

/// N-42: one line with the address it really bound, and nothing else on standard output; N-30: open access is said.
#[test]
fn says_where_it_listens() {
    let mut hub = Hub::start(&[]);
    assert!(!hub.address().ends_with(":0"), "{}", hub.url);
    assert!(ask(hub.address(), "GET /livez HTTP/1.1").starts_with("HTTP/1.1 200"), "not listening");
    hub.program.wait_for_notice("connections");
    hub.program.wait_for_notice("access is open");
    hub.program.signal("TERM");
    let exit = hub.program.exit();
    assert_eq!((exit.code, &*exit.out), (Some(0), ""), "{}", exit.err);
}

/// N-30: with a key it may listen anywhere, and says nothing of open access; N-33: the key guards publishing.
#[test]
fn keys_guard_publishing() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "a-key-from-the-file-0123456789\n").unwrap();
    let hub = Hub::listen("0.0.0.0:0", &["--publish-key-file", keys.to_str().unwrap()]);
    let url = hub.url.replace("0.0.0.0", "127.0.0.1");
    let publish = |key: &str| Program::start(tidings(&["publish", "t", "d", "--url", &url]).env("TIDINGS_KEY", key)).exit();
    assert_eq!(publish("a-key-from-the-file-0123456789").code, Some(0));
    for key in ["", "another"] {
        let exit = publish(key);
        assert!(exit.code == Some(1) && exit.err.starts_with("error: ") && exit.out.is_empty(), "{exit:?}");
    }
    hub.program.signal("INT");
    let exit = hub.program.exit();
    assert!(exit.code == Some(0) && !exit.err.contains("access is open") && !exit.err.contains("a-key-from"), "{}", exit.err);
}

/// N-41: flag beats environment beats file beats default, seen in the `retry` that a stream tells (N-13).
#[test]
fn strongest_source_wins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidings.toml");
    std::fs::write(&path, "listen = '127.0.0.1:0'\nretry = '1111ms'\n").unwrap();
    for (flag, env, expected) in [(None, None, 1111), (None, Some("2222ms"), 2222), (Some("3333ms"), Some("2222ms"), 3333)] {
        let mut command = tidings(&["serve", "--store", "memory", "--config", path.to_str().unwrap()]);
        command.args(flag.map(|value| format!("--retry={value}"))).envs(env.map(|value| ("TIDINGS_RETRY", value)));
        let mut program = Program::start(&mut command);
        let line = program.line();
        let address = line.strip_prefix("tidings listening on http://").and_then(|line| line.strip_suffix(" (events in memory)")).unwrap();
        // The blank line after `id:` ends the first block of the stream (N-13a).
        let (_, begun) = open_stream(address, "\nid: ");
        assert!(begun.contains(&format!("retry: {expected}\n")), "{begun}");
    }
}

/// N-42: a port that is taken is exit code 1, with the address and what to do.
#[test]
fn address_in_use() {
    let hub = Hub::start(&[]);
    let exit = Program::start(&mut tidings(&["serve", "--store", "memory", "--listen", hub.address()])).exit();
    assert_eq!((exit.code, &*exit.out), (Some(1), ""), "{exit:?}");
    assert!(exit.err.contains(hub.address()) && exit.err.contains("choose with --listen"), "{exit:?}");
}

/// N-42, Z-17, S-43: SIGTERM ends open streams properly, spread over a time, and then the program.
#[test]
fn drains() {
    let hub = Hub::start(&["--drain-spread", "100ms", "--drain-hard", "30s"]);
    let (mut socket, _) = open_stream(hub.address(), "retry: ");
    let began = Instant::now();
    hub.program.signal("TERM");
    let mut rest = String::new();
    socket.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("retry: ") && rest.ends_with("0\r\n\r\n"), "{rest:?}");
    drop(socket);
    let exit = hub.program.exit();
    assert_eq!((exit.code, &*exit.out), (Some(0), ""), "{}", exit.err);
    // Far below the hard end: nothing was waited for that had ended.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// N-16, Z-17: while it drains it is not ready, and readers who come are told when to come back.
#[test]
fn refuses_gently_while_draining() {
    let mut hub = Hub::start(&["--drain-spread", "1h", "--drain-hard", "1h"]);
    let (_reader, _) = open_stream(hub.address(), "retry: ");
    hub.program.signal("TERM");
    hub.program.wait_for_notice("draining");
    let began = Instant::now();
    while !ask(hub.address(), "GET /readyz HTTP/1.1").starts_with("HTTP/1.1 503") {
        assert!(began.elapsed() < DEADLINE, "still ready");
    }
    let answer = ask(hub.address(), "GET /subscribe/a HTTP/1.1\r\naccept: text/event-stream");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("retry: "), "{answer}");
    let exit = Program::start(&mut hub.command(&["subscribe", "--no-reconnect"])).exit();
    assert!(exit.code == Some(1) && exit.err.starts_with("error: "), "{exit:?}");
}

/// N-31: a name that was pointed at this machine by somebody else is not answered.
#[test]
fn refuses_rebound_host_names() {
    let hub = Hub::start(&["--hosts", "hub.example"]);
    let port = hub.address().rsplit(':').next().unwrap();
    for (host, status) in [("evil.example", "421"), ("localhost", "200"), ("hub.example", "200"), ("127.0.0.1", "200")] {
        let mut socket = TcpStream::connect(hub.address()).unwrap();
        let request = format!("GET /health HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

/// N-42: the hard end holds, whatever a client does.
#[test]
fn drains_within_its_bound() {
    let hub = Hub::start(&["--drain-spread", "0s", "--drain-hard", "200ms"]);
    let mut upload = TcpStream::connect(hub.address()).unwrap();
    let head = format!("POST /publish/t HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\nhalf", hub.address());
    upload.write_all(head.as_bytes()).unwrap();
    let (_reader, _) = open_stream(hub.address(), "retry: ");
    hub.program.signal("TERM");
    assert_eq!(hub.program.exit().code, Some(0));
}

/// N-42: a second signal stops at once, though a stream still has its time.
#[test]
fn second_signal_stops_at_once() {
    for second in ["TERM", "INT"] {
        let mut hub = Hub::start(&["--drain-spread", "1h", "--drain-hard", "1h"]);
        let (_reader, _) = open_stream(hub.address(), "retry: ");
        hub.program.signal("TERM");
        hub.program.wait_for_notice("draining");
        hub.program.signal(second);
        let exit = hub.program.exit();
        assert!(exit.code == Some(1) && exit.err.contains("stopped at once"), "{exit:?}");
    }
}

/// Z-16: logs as JSON on request, and more or less of them while it runs.
#[test]
fn logs() {
    let mut hub = Hub::start(&["--log-format", "json"]);
    let line = hub.program.wait_for_notice("access is open");
    assert!(line.starts_with('{') && line.contains("\"level\":\"WARN\""), "{line}");
    hub.program.signal("USR1");
    hub.program.wait_for_notice("log level is now debug");
    hub.program.signal("USR1");
    hub.program.wait_for_notice("log level is now as configured");
    hub.program.signal("TERM");
    assert_eq!(hub.program.exit().code, Some(0));
}

/// From the start of the process to its line. Printed for whoever looks; the bound only catches what has gone badly wrong.
#[test]
fn listens_soon() {
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let began = Instant::now();
            let hub = Hub::start(&[]);
            let time = began.elapsed();
            hub.program.kill();
            time
        })
        .collect();
    times.sort();
    println!("time to listening, five times: {times:?}");
    assert!(times[0].as_secs() < 10, "{times:?}");
}
