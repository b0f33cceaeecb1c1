//! The three commands together: what is published is printed, in order, through restarts of the hub.

use crate::program::{Hub, Program};
use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// A reader that misses nothing published from here on: it begins after an event that is in the log already, so it need not be there
/// yet when the next one is published (S-21).
fn reader(hub: &Hub, args: &[&str]) -> Program {
    let before = hub.publish("marker", "ready");
    Program::start(&mut hub.command(&[&["subscribe"], args, &["--since-id", &before]].concat()))
}

/// N-1a, N-4, N-13b: what goes in comes out, with its topics, type and id.
#[test]
fn publish_and_subscribe() {
    let hub = Hub::start(&[]);
    let mut reader = reader(&hub, &["--json", "--count", "2", "orders/1", "orders/2"]);
    let mut publish = Program::start(&mut hub.command(&["publish", "orders/1", "--type", "shipped", "--topic", "all"]));
    publish.feed("{\"parcel\":7}\nsecond \u{e9}\n".as_bytes());
    let id = publish.exit().out;
    hub.publish("orders/10", "not asked for");
    let second = hub.publish("orders/2", "");
    let line = reader.line();
    for part in [
        r#""data":"{\"parcel\":7}\nsecond é""#,
        &format!("\"id\":\"{}\"", id.trim_end()),
        r#""topic":"orders/1","topics":["orders/1""#,
        r#""type":"shipped""#,
    ] {
        assert!(line.contains(part), "{line} has no {part}");
    }
    let line = reader.line();
    assert!(line.contains(&format!("\"id\":\"{second}\"")) && line.contains("\"data\":\"\""), "{line}");
    let exit = reader.exit();
    assert_eq!((exit.code, &*exit.out, &*exit.err), (Some(0), "", ""));
}

/// N-10, N-11, N-12: exact topics, a prefix, everything; from the oldest event that is kept; as it is and with a heading.
#[test]
fn selections() {
    let hub = Hub::start(&[]);
    for (topic, data) in [("a", "1"), ("a/b", "2"), ("ab", "3"), ("c d/é", "4")] {
        hub.publish(topic, data);
    }
    for (args, count, out) in [
        (&["a"][..], "1", "1\n"),
        (&["a", "ab"], "2", "1\n3\n"),
        (&["--prefix", "a"], "2", "1\n2\n"),
        (&["--prefix", "/c d"], "1", "4\n"),
        (&["c d/é"], "1", "4\n"),
        (&[], "4", "1\n2\n3\n4\n"),
    ] {
        let all = [&["subscribe", "--since-id", "earliest", "--count", count], args].concat();
        let exit = Program::start(&mut hub.command(&all)).exit();
        assert_eq!((exit.code, &*exit.out, &*exit.err), (Some(0), out, ""), "{args:?}");
    }
    let exit = Program::start(&mut hub.command(&["subscribe", "-v", "--since-id", "earliest", "--count", "1", "ab"])).exit();
    assert!(exit.out.starts_with("topic=ab type=message id=#") && exit.out.ends_with("\n3\n"), "{exit:?}");
}

/// N-12: the newest events, or those since a moment, and then what is new.
#[test]
fn since_and_last() {
    let hub = Hub::start(&[]);
    for n in 1..=4 {
        hub.publish("a", &n.to_string());
        hub.publish("b", "other");
    }
    for (args, count, out) in [
        (&["--last", "2"][..], "2", "3\n4\n"),
        (&["--last", "10000"], "4", "1\n2\n3\n4\n"),
        (&["--since", "1h"], "1", "1\n"),
        (&["--since", "2026-01-01T00:00:00+01:00"], "1", "1\n"),
    ] {
        let exit = Program::start(&mut hub.command(&[&["subscribe", "a", "--count", count], args].concat())).exit();
        assert_eq!((exit.code, &*exit.out, &*exit.err), (Some(0), out, ""), "{args:?}");
    }
    for args in [&["--last", "10001"][..], &["--since", "soon"], &["--since", "1h", "--last", "1"], &["--last", "1", "--since-id", "x"]] {
        let exit = Program::start(&mut hub.command(&[&["subscribe", "a"], args].concat())).exit();
        assert_eq!(exit.code, Some(2), "{args:?}: {exit:?}");
    }
}

/// N-3: 10,000 lines of standard input arrive, each once, in order, with an id each.
#[test]
fn lines_arrive_in_order() {
    const LINES: usize = 10_000;
    let hub = Hub::start(&[]);
    let reader = reader(&hub, &["lines", "--count", &LINES.to_string()]);
    let mut publish = Program::start(&mut hub.command(&["publish", "--lines", "lines"]));
    let mut expected = String::new();
    for number in 0..LINES {
        let _ = writeln!(expected, "line {number} {}", "x".repeat(number % 97));
    }
    publish.feed(expected.as_bytes());
    let published = publish.exit();
    assert_eq!((published.code, published.out.lines().count(), &*published.err), (Some(0), LINES, ""));
    let exit = reader.exit();
    assert_eq!((exit.code, &*exit.err), (Some(0), ""));
    assert!(exit.out == expected, "{} lines arrived", exit.out.lines().count());
}

/// N-3: a line is published when it comes, not when the input ends.
#[test]
fn lines_do_not_wait_for_the_end() {
    let hub = Hub::start(&[]);
    let mut reader = reader(&hub, &["live"]);
    let mut publish = Program::start(&mut hub.command(&["publish", "--lines", "live"]));
    for line in ["one", "two", "three"] {
        publish.feed_more(format!("{line}\n").as_bytes());
        assert_eq!(reader.line(), line);
        assert!(publish.line().starts_with('#'));
    }
    assert_eq!(publish.exit().code, Some(0));
}

/// N-5: what the hub does not take is told with its reason, and the input stops there.
#[test]
fn refusals() {
    let hub = Hub::start(&["--event-data", "16B"]);
    for (args, text) in [
        (&["publish", "*", "d"][..], "`*` is not a topic"),
        (&["publish", "t", "d", "--id", "#1"], "id"),
        (&["publish", "t", "12345678901234567"], "16"),
        (&["publish", "t", "d", "--type", "tidings.gap"], "belong to the hub"),
    ] {
        let exit = Program::start(&mut hub.command(args)).exit();
        assert!(exit.code == Some(1) && exit.out.is_empty(), "{exit:?}");
        assert!(exit.err.starts_with("error: ") && exit.err.contains(text), "{args:?}: {}", exit.err);
    }
    let mut publish = Program::start(&mut hub.command(&["publish", "--lines", "t"]));
    publish.feed(b"one\ntwo\n12345678901234567\nfour\n");
    let exit = publish.exit();
    assert_eq!((exit.code, exit.out.lines().count()), (Some(1), 2), "{exit:?}");
    assert!(exit.err.contains("line 3 of the input; 2 events were published before"), "{}", exit.err);
}

/// N-14, N-17, S-22: a hub that was killed and comes back empty on the same port: the reader says that events may be missing, and goes on.
#[test]
fn resumes_after_a_crash() {
    let hub = Hub::start(&[]);
    let mut human = reader(&hub, &["news"]);
    let mut program = reader(&hub, &["--json", "news"]);
    hub.publish("news", "before");
    assert_eq!(human.line(), "before");
    assert!(program.line().contains("\"data\":\"before\""));
    let address = hub.address().to_owned();
    hub.program.kill();
    let hub = Hub::listen(&address, &[]);
    let gap = human.wait_for_notice("gap: events after #");
    assert!(gap.contains("(epoch: the hub began a new log)"), "{gap}");
    hub.publish("news", "after");
    assert_eq!(human.line(), "after");
    let line = program.line();
    assert!(line.contains("\"type\":\"tidings.gap\"") && line.contains("\\\"reason\\\":\\\"epoch\\\""), "{line}");
    assert!(program.line().contains("\"data\":\"after\""));
}

/// S-5, S-21: a connection that breaks every few events, wherever it happens to: nothing is lost and nothing repeated.
#[test]
fn resumes_after_any_cut() {
    const EVENTS: usize = 200;
    let hub = Hub::start(&["--retry", "20ms"]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let (upstream, cuts) = (hub.address().to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = cuts.clone();
    // Passes a request on, and of the answer the head and so many bytes; each connection breaks at another place.
    thread::spawn(move || {
        for (number, client) in proxy.incoming().enumerate() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&upstream).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            let mut answer = BufReader::new(&mut server);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                answer.read_line(&mut line).unwrap();
                client.write_all(line.as_bytes()).unwrap();
            }
            let some = 400 + (number as u64 * 37) % 300;
            let _ = std::io::copy(&mut answer.take(some), &mut client);
            counted.fetch_add(1, Relaxed);
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        }
    });
    let before = hub.publish("marker", "ready");
    let count = EVENTS.to_string();
    let mut reader = hub.command(&["subscribe", "ticks", "--since-id", &before, "--count", &count]);
    let reader = Program::start(reader.env("TIDINGS_URL", &url));
    let mut publish = Program::start(&mut hub.command(&["publish", "--lines", "ticks"]));
    let expected: String = (0..EVENTS).flat_map(|number| [number.to_string(), "\n".to_owned()]).collect();
    publish.feed(expected.as_bytes());
    assert_eq!(publish.exit().code, Some(0));
    let exit = reader.exit();
    assert_eq!((exit.code, &*exit.out), (Some(0), &*expected), "{}", exit.err);
    assert!(cuts.load(Relaxed) > 5, "{cuts:?} cuts only");
}
