//! `tidings publish` and `tidings subscribe` against a server that says exactly what a test wants said.

use crate::{
    program::{Exit, Program, run, tidings},
    scripted::{Scripted, Then, problem, response, stream},
};
use std::{net::TcpListener, process::Stdio};

fn against(server: &Scripted, args: &[&str]) -> Program {
    Program::start(tidings(args).env("TIDINGS_URL", &server.url))
}

fn body_of(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

/// N-2, N-4, N-33: what is said of an event, and the key.
#[test]
fn publish_says_what_was_typed() {
    let ok = response("200 OK", "", "#5f3a9c01-000000000000002a\n");
    for (args, input, body) in [
        (&["publish", "news", "hello"][..], "", r#"{"data":"hello","topics":["news"]}"#),
        (&["publish", "news"], "two\nlines\n", r#"{"data":"two\nlines","topics":["news"]}"#),
        (&["publish", "news", "-"], "", r#"{"data":"","topics":["news"]}"#),
        (
            &["publish", "a/b", "x", "--type", "t", "--id", "7", "--retry", "2s", "--private", "--topic", "c", "--topic", "d"],
            "",
            r#"{"data":"x","id":"7","private":true,"retry":2000,"topics":["a/b","c","d"],"type":"t"}"#,
        ),
    ] {
        let server = Scripted::start(vec![(ok.clone(), Then::Keep)]);
        let mut program = Program::start(tidings(args).env("TIDINGS_URL", &server.url).env("TIDINGS_KEY", "s3cret"));
        program.feed(input.as_bytes());
        let request = server.request();
        assert!(request.starts_with("POST /publish HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("authorization: Bearer s3cret\r\n") && request.contains("content-type: application/json\r\n"),
            "{request}"
        );
        assert_eq!(body_of(&request), body);
        let Exit { code, out, err } = program.exit();
        assert_eq!((code, &*out, &*err), (Some(0), "#5f3a9c01-000000000000002a\n", ""));
    }
}

/// N-3: lines go as they come, and the line that was refused is named by its place in the whole input.
#[test]
fn publish_lines() {
    let server = Scripted::start(vec![
        (response("200 OK", "", "#1\n"), Then::Keep),
        (problem("400 Bad Request", "", r##"{"title":"Bad line","detail":"no","line":2,"ids":["#2"]}"##), Then::Keep),
    ]);
    let mut program = against(&server, &["publish", "--lines", "t"]);
    program.feed_more(b"one\r\n");
    assert_eq!(body_of(&server.request()), "{\"data\":\"one\",\"topics\":[\"t\"]}\n");
    assert_eq!(program.line(), "#1");
    program.feed(b"two\nthree\n");
    assert_eq!(body_of(&server.request()).matches("data").count(), 2);
    let exit = program.exit();
    assert_eq!((exit.code, &*exit.out), (Some(1), "#2\n"));
    assert_eq!(exit.err, "error: Bad line: no (line 3 of the input; 2 events were published before)\n");
}

/// N-5, N-42: a refusal is shown as title and detail, and is exit code 1; so is nobody there.
#[test]
fn publish_refused() {
    let server =
        Scripted::start(vec![(problem("401 Unauthorized", "", r#"{"title":"Not allowed","detail":"send a key\u001b[2J"}"#), Then::Keep)]);
    let exit = against(&server, &["publish", "t", "d"]).exit();
    assert_eq!((exit.code, &*exit.err), (Some(1), "error: Not allowed: send a key\\u{1b}[2J\n"));

    let server = Scripted::start(vec![("HTTP/1.1 200 OK\r\ncontent-le".into(), Then::Cut)]);
    let exit = against(&server, &["publish", "t", "d"]).exit();
    assert!(exit.code == Some(1) && exit.err.contains("may have kept"), "{exit:?}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exit = run(&["publish", "t", "d", "--url", &format!("http://{closed}")]);
    assert!(exit.code == Some(1) && exit.err.starts_with("error: cannot reach http://127.0.0.1:"), "{exit:?}");

    let server = Scripted::start(vec![]);
    let mut program = against(&server, &["publish", "t"]);
    program.feed(b"\xff\n");
    let exit = program.exit();
    assert!(exit.code == Some(1) && exit.err.contains("not valid UTF-8"), "{exit:?}");
}

/// S-5, S-21, N-12: after a cut in the middle of an event it comes back with the cursor, and each event is printed once.
#[test]
fn subscribe_resumes() {
    let server = Scripted::start(vec![
        (stream("retry: 20\nid: #0\n\n: hb\ndata: one\nid: #1\n\ndata: cut", false), Then::Cut),
        (stream("data: two\nid: #2\n\nretry: 20\n", true), Then::Keep),
        (problem("503 Service Unavailable", "retry-after: 0\r\n", r#"{"title":"Busy","detail":"later"}"#), Then::Keep),
        (stream("data: three\ndata: lines\nid: #3\n\n", true), Then::Wait),
    ]);
    let exit = against(&server, &["subscribe", "a", "b", "--count", "3"]).exit();
    assert_eq!((exit.code, &*exit.out), (Some(0), "one\ntwo\nthree\nlines\n"), "{}", exit.err);
    assert!(exit.err.contains("the stream was cut") && exit.err.contains("Busy: later; trying again in"), "{}", exit.err);
    let first = server.request();
    assert!(first.starts_with("GET /subscribe?topic=a&topic=b&fields=topic HTTP/1.1\r\n"), "{first}");
    assert!(first.contains("accept: text/event-stream\r\n") && !first.contains("last-event-id"), "{first}");
    for id in ["#1", "#2", "#2"] {
        let request = server.request();
        assert!(request.contains(&format!("last-event-id: {id}\r\n")), "{request}");
    }
}

/// N-12, N-13b: the place to begin, and events with their topics as JSON lines.
#[test]
fn subscribe_json() {
    let said = "topics: a/b\ntopics: c\nevent: t\ndata: \"x\"\nid: #1\n\n";
    let server = Scripted::start(vec![(stream(said, false), Then::Wait)]);
    let mut program = against(&server, &["subscribe", "--prefix", "a b", "--json", "--since-id", "earliest"]);
    assert_eq!(program.line(), r##"{"data":"\"x\"","id":"#1","topic":"a/b","topics":["a/b","c"],"type":"t"}"##);
    assert!(server.request().starts_with("GET /subscribe/a%20b?fields=topic&last_event_id=earliest HTTP/1.1\r\n"));
}

/// N-14: a gap is told on standard error, is an event for programs, and does not count.
#[test]
fn subscribe_tells_gaps() {
    let said = "event: tidings.gap\ndata: {\"requested\":\"#1\",\"earliest\":\"#5\",\"reason\":\"evicted\"}\nid: #4\n\ndata: x\nid: #5\n\n";
    for (flags, out) in [(&["--count", "1"][..], "x\n"), (&["--count", "1", "--json"], "tidings.gap")] {
        let server = Scripted::start(vec![(stream(said, false), Then::Wait)]);
        let exit = against(&server, &[&["subscribe"], flags].concat()).exit();
        assert_eq!(exit.code, Some(0));
        assert!(exit.out.contains(out) && exit.out.contains('x'), "{}", exit.out);
        assert_eq!(exit.err, "tidings: gap: events after #1 may be missing (evicted: they are no longer kept); going on with #5\n");
    }
}

/// N-16, N-42, S-32: which ends are final, with which exit code.
#[test]
fn subscribe_ends() {
    let problem = |status: &str| problem(status, "", r#"{"title":"Title","detail":"detail"}"#);
    for (name, answer, then, flags, code, err) in [
        ("forbidden", problem("401 Unauthorized"), Then::Keep, &[][..], 1, "error: Title: detail\n"),
        ("refused", problem("403 Forbidden"), Then::Keep, &[], 1, "error: Title: detail\n"),
        ("no route", response("404 Not Found", "", ""), Then::Keep, &[], 1, "error: the server answered 404 Not Found\n"),
        ("do not come back", "HTTP/1.1 204 No Content\r\n\r\n".into(), Then::Keep, &[], 0, ""),
        ("no stream", response("200 OK", "content-type: text/html\r\n", "<p>"), Then::Keep, &[], 1, "text/html, not an event stream"),
        ("one stream", stream("data: x\n\n", true), Then::Keep, &["--no-reconnect"], 0, ""),
        ("one stream, cut", stream("data: x\n\n", false), Then::Cut, &["--no-reconnect"], 1, "error: the stream was cut"),
        ("busy", problem("503 Service Unavailable"), Then::Keep, &["--no-reconnect"], 1, "error: Title: detail\n"),
        ("too large", stream("data: 123456789012345678901234567890\n\n", false), Then::Wait, &["--max-event", "8B"], 1, "--max-event"),
    ] {
        let server = Scripted::start(vec![(answer, then)]);
        let exit = against(&server, &[&["subscribe"], flags].concat()).exit();
        assert_eq!(exit.code, Some(code), "{name}: {exit:?}");
        assert!(exit.err.contains(err) && exit.err.is_empty() == err.is_empty(), "{name}: {exit:?}");
    }
}

/// `tidings subscribe | head`: whoever reads has seen enough, which is no failure.
#[test]
fn subscribe_into_a_closed_pipe() {
    let server = Scripted::start(vec![(stream("data: x\n\n", false), Then::Wait)]);
    let command = &mut tidings(&["subscribe"]);
    let mut child = command.env("TIDINGS_URL", &server.url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
