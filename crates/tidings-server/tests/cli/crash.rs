//! The durable log from outside: `kill -9` under load and in the middle of retention, restart, resume (N-4, N-6, N-14, N-41).
//! `TIDINGS_CRASH_KILLS` sets how many kills.

use crate::{
    program::{DEADLINE, Hub, Program, run, tidings},
    trial::{Item, Publisher, Reader, Seen, exchange, post, seen},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Publishers at once.
const PUBLISHERS: u64 = 4;
/// Events answered before each kill, at least.
const ANSWERED: usize = 100;

fn start(data: &Path, flags: &[&str]) -> Hub {
    let mut all = vec!["--data", data.to_str().unwrap()];
    all.extend(flags);
    Hub::start(&all)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn metric(address: &str, name: &str) -> u64 {
    let metrics = exchange(address, "GET /metrics HTTP/1.1", "").expect("nobody has killed this hub yet");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().unwrap()
}

/// Kills a hub under load over and over. Each reader resumes in the lives it takes part in, and in the end reads up to the last event.
fn trial(data: &Path, flags: &[&str], publishers: &mut [Publisher], readers: &mut [(Reader, usize)]) -> Hub {
    let kills: usize = std::env::var("TIDINGS_CRASH_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let (events, mut asked, mut stored) = (AtomicUsize::new(0), 0, 0);
    for life in 0..kills {
        let hub = start(data, flags);
        let (address, before) = (hub.address().to_owned(), events.load(Ordering::Relaxed));
        // In every second life before the others come, so that it can be told how many had been stored.
        for publisher in publishers.iter_mut().filter(|_| life % 2 == 1) {
            asked += u64::from(publisher.finish(&address, &events));
        }
        stored += metric(&address, "tidings_publishes_repeated_total");
        let more = ANSWERED + life * 37 % 100;
        thread::scope(|scope| {
            for publisher in publishers.iter_mut() {
                scope.spawn(|| publisher.publish(&address, &events));
            }
            for (reader, _) in readers.iter_mut().filter(|(_, every)| life.is_multiple_of(*every)) {
                scope.spawn(|| reader.read(&address, |_| false));
            }
            wait_until("enough was answered", || events.load(Ordering::Relaxed) >= before + more);
            hub.program.kill();
        });
    }
    let hub = start(data, flags);
    for publisher in publishers.iter_mut() {
        publisher.finish(hub.address(), &events);
    }
    for (reader, _) in readers {
        reader.read_all(hub.address(), publishers);
    }
    let retried: u64 = publishers.iter().map(|publisher| publisher.retried).sum();
    let events = events.load(Ordering::Relaxed);
    println!(
        "{kills} kills: {events} events answered; {retried} unanswered requests came again; of {asked} asked {stored} had been stored"
    );
    hub
}

/// N-4, N-6, N-14: whatever was published is there after a kill, once, in order, batches whole, though publishers repeat what was not
/// answered; and no reader is told of a gap.
#[test]
fn nothing_answered_is_lost_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    let mut publishers: Vec<_> = (0..PUBLISHERS).map(|number| Publisher::new(number, "t", 0)).collect();
    let mut readers = [(Reader::new("t"), 1), (Reader::new("t"), 3)];
    let hub = trial(&data, &["--retention-bytes", "256MiB"], &mut publishers, &mut readers);
    let mut late = Reader::new("t");
    late.read_all(hub.address(), &publishers);
    let published = publishers.iter().flat_map(|publisher| &publisher.answered).flat_map(|ids| ids.lines()).count();
    for reader in [&readers[0].0, &readers[1].0, &late] {
        println!("{:?}", seen(reader, &publishers));
        assert_eq!(seen(reader, &publishers), Seen { received: published, ..Seen::default() });
        assert!(reader.items == late.items, "another order for another reader");
    }
}

/// The same while retention removes segments all the time: what a reader lost it is told, and nobody else is told anything; a request that
/// comes again long after its events were removed is answered with the same ids.
#[test]
fn kill_9_in_the_middle_of_retention() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    let mut publishers: Vec<_> = (0..PUBLISHERS).map(|number| Publisher::new(number, "t", 16_000)).collect();
    let mut readers = [(Reader::new("t"), 1), (Reader::new("t"), 4)];
    let flags = ["--retention-bytes", "1MiB"];
    let quiet = Publisher::new(PUBLISHERS, "quiet", 0);
    let mut quiet = [quiet];
    let mut quiet_reader = Reader::new("quiet");
    let hub = start(&data, &flags);
    quiet[0].publish_one(hub.address(), &AtomicUsize::new(0)).unwrap();
    quiet_reader.read_all(hub.address(), &quiet);
    hub.program.kill();
    let hub = trial(&data, &flags, &mut publishers, &mut readers);
    quiet[0].publish_one(hub.address(), &AtomicUsize::new(0)).unwrap();
    quiet_reader.read_all(hub.address(), &quiet);
    assert_eq!(seen(&quiet_reader, &quiet), Seen { received: 5, ..Seen::default() }, "nothing was removed that it had not read");
    let names: Vec<String> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let removed = names.iter().filter_map(|name| u64::from_str_radix(name.strip_suffix(".log")?, 16).ok()).min().unwrap() - 1;
    println!("{removed} segments were removed; {} keys are kept", metric(hub.address(), "tidings_idempotency_keys"));
    assert!(removed > 0, "nothing was removed: {names:?}");
    for (reader, _) in &readers {
        let seen = seen(reader, &publishers);
        println!("{seen:?}");
        assert_eq!((seen.lost, seen.twice_or_out_of_order, seen.other_ids, seen.false_gaps), (0, 0, 0, 0), "{seen:?}");
    }
    for publisher in &mut publishers {
        publisher.repeat_all(hub.address());
    }
}

/// The same with a log that mixes topics which are kept with others that are not, so that parts of it are rewritten all the time: of what is kept
/// nothing is missing and no gap is told.
#[test]
fn kill_9_while_the_log_is_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let (data, settings) = (directory.path().join("log"), directory.path().join("tidings.toml"));
    std::fs::write(&settings, "retention_bytes = '8MiB'\n[[prefix]]\nprefix = 'short'\nretention_bytes = '1MiB'\n").unwrap();
    let mut publishers: Vec<_> = (0..PUBLISHERS).map(|number| Publisher::new(number, "short", 16_000)).collect();
    publishers.push(Publisher::new(PUBLISHERS, "kept", 0));
    let mut readers = [(Reader::new("short"), 1), (Reader::new("short"), 4), (Reader::new("kept"), 1), (Reader::new("kept"), 4)];
    let hub = trial(&data, &["--config", settings.to_str().unwrap()], &mut publishers, &mut readers);
    let rewritten = || {
        let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.strip_suffix(".log").is_some_and(|serial| !serial.starts_with("0000"))).count()
    };
    wait_until("parts of the log are rewritten", || rewritten() > 0);
    println!("{} parts of the log are rewritten", rewritten());
    let mut late = Reader::new("kept");
    late.read_all(hub.address(), &publishers);
    let published = publishers[PUBLISHERS as usize].answered.iter().flat_map(|ids| ids.lines()).count();
    for reader in [&readers[2].0, &readers[3].0, &late] {
        assert_eq!(seen(reader, &publishers), Seen { received: published, ..Seen::default() });
    }
    for (reader, _) in &readers[..2] {
        let seen = seen(reader, &publishers);
        println!("{seen:?}");
        assert_eq!((seen.lost, seen.twice_or_out_of_order, seen.other_ids, seen.false_gaps), (0, 0, 0, 0), "{seen:?}");
    }
    for publisher in &mut publishers {
        publisher.repeat_all(hub.address());
    }
    hub.program.signal("TERM");
    assert_eq!(hub.program.exit().code, Some(0));
    let exit = run(&["log", "verify", data.to_str().unwrap()]);
    assert!(exit.code == Some(0) && !exit.out.contains("damage"), "{exit:?}");
}

/// A proper stop leaves nothing to be read through, and readers go on where they were.
#[test]
fn a_restart_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    for durability in ["sync", "interval", "none"] {
        let data = directory.path().join(durability);
        let mut reader = Reader::new("t");
        for life in 0..3 {
            let hub = start(&data, &["--durability", durability]);
            assert!(post(hub.address(), "/publish/t", "content-type: text/plain", &format!("0 {life} 0 1")).is_some());
            reader.read(hub.address(), |reader| reader.items.len() > life);
            hub.program.signal("TERM");
            let exit = hub.program.exit();
            assert!(exit.code == Some(0) && !exit.err.contains("unfinished"), "{exit:?}");
        }
        let names = reader.items.iter().filter_map(|item| if let Item::Event(name, _) = item { Some(*name) } else { None });
        assert!(names.eq([(0, 0, 0, 1), (0, 1, 0, 1), (0, 2, 0, 1)]), "{durability}: {:?}", reader.items);
        assert_eq!(reader.items.len(), 3, "{durability}: {:?}", reader.items);
    }
}

/// Z-30: the latest value comes first, is there after `kill -9`, and is gone when it was taken back.
#[test]
fn the_latest_value_survives() {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("tidings.toml");
    std::fs::write(&settings, "retention_events = 3\n[[prefix]]\nprefix = 'k'\nkeep = 'latest'\n").unwrap();
    let flags = ["--config", settings.to_str().unwrap()];
    let data = directory.path().join("data");
    let first_events = |hub: &Hub, count: usize| {
        let mut socket = TcpStream::connect(hub.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(socket, "GET /subscribe/k HTTP/1.1\r\nhost: {}\r\n\r\n", hub.address()).unwrap();
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while text.matches("data: ").count() < count {
            let read = socket.read(&mut bytes).unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text += std::str::from_utf8(&bytes[..read]).unwrap();
        }
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let hub = start(&data, &flags);
    for (topic, data) in [("k/a", "1"), ("k/b", "2"), ("k/a", "3"), ("other", "4"), ("other", "5"), ("other", "6"), ("other", "7")] {
        hub.publish(topic, data);
    }
    assert_eq!(first_events(&hub, 2), ["2", "3"]);
    hub.program.kill();
    let hub = start(&data, &flags);
    assert_eq!(first_events(&hub, 2), ["2", "3"]);
    assert!(post(hub.address(), "/publish/k/b", "content-type: text/plain", "").is_some(), "empty data takes it back");
    hub.publish("k/c", "8");
    assert_eq!(first_events(&hub, 2), ["3", "8"]);
    hub.program.kill();
    let hub = start(&data, &flags);
    assert_eq!(first_events(&hub, 2), ["3", "8"]);
}

/// Two hubs cannot have one directory, and the second says who has it; what cannot be used says why.
#[test]
fn directories_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let _first = start(directory.path(), &[]);
    let exit = Program::start(&mut tidings(&["serve", "--listen", "127.0.0.1:0", "--data", directory.path().to_str().unwrap()])).exit();
    let process = std::fs::read_to_string(directory.path().join("lock")).unwrap();
    assert!(exit.code == Some(1) && exit.err.contains(&format!("used by another hub, process {process}")), "{exit:?}");

    let file = directory.path().join("lock");
    let exit = Program::start(&mut tidings(&["serve", "--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()])).exit();
    assert!(exit.code == Some(1) && exit.err.contains("cannot be used"), "{exit:?}");
}

/// A directory that goes away under a running hub: publishing is refused and says why, readiness too, and streams go on.
#[test]
fn a_directory_removed_under_a_hub() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    let hub = start(&data, &[]);
    assert!(post(hub.address(), "/publish/t", "content-type: text/plain", "0 0 0 1").is_some());
    std::fs::remove_dir_all(&data).unwrap();
    let get = |request: &str| exchange(hub.address(), &format!("{request} HTTP/1.1"), "").unwrap();
    let refused = get("POST /publish/t");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("was removed"), "{refused}");
    let ready = get("GET /readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains(r#"["store"]"#), "{ready}");
    assert!(get("GET /metrics").contains("tidings_store_refusing 1"), "{}", get("GET /metrics"));
    // What is in memory is served all the same.
    let mut socket = TcpStream::connect(hub.address()).unwrap();
    let request = format!("GET /subscribe?topic=t HTTP/1.0\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", hub.address());
    socket.write_all(request.as_bytes()).unwrap();
    let mut begun = [0; 12];
    socket.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.0 200");
}

/// M-410: who was subscribed when the hub was killed is told to have left by the next one, once; and after a proper end there is nobody to tell of.
#[test]
fn subscriptions_that_a_crash_left_open() {
    const TOPICS: [&str; 3] = ["a", "b", "c"];
    let directory = tempfile::tempdir().unwrap();
    let get = |address: &str, path: &str| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).unwrap();
        socket
    };
    let listed = |address: &str| {
        let mut answer = String::new();
        get(address, "/.well-known/mercure/subscriptions").read_to_string(&mut answer).unwrap();
        answer.matches(r#""active":true"#).count()
    };
    // Each event has two views.
    let told = |what: &str| -> usize {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|of| of == "log"));
        logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).matches(what).count()).sum::<usize>() / 2
    };
    let hub = start(directory.path(), &["--subscriptions"]);
    let streams = TOPICS.map(|topic| get(hub.address(), &format!("/.well-known/mercure?topic={topic}")));
    wait_until("all are listed", || listed(hub.address()) == TOPICS.len());
    hub.program.kill();
    drop(streams);
    assert_eq!((told(r#""active":true"#), told(r#""active":false"#)), (3, 0));

    let hub = start(directory.path(), &["--subscriptions"]);
    wait_until("their ends are told", || told(r#""active":false"#) == TOPICS.len());
    assert_eq!(listed(hub.address()), 0);
    let stream = get(hub.address(), "/.well-known/mercure?match=d");
    wait_until("one more is listed", || listed(hub.address()) == 1);
    hub.program.signal("TERM");
    assert_eq!(hub.program.exit().code, Some(0));
    drop(stream);
    assert_eq!(told(r#""active":false"#), TOPICS.len() + 1, "told before the hub has stopped");

    let hub = start(directory.path(), &["--subscriptions"]);
    let stream = get(hub.address(), "/.well-known/mercure?match=e");
    wait_until("the last is listed", || listed(hub.address()) == 1);
    assert_eq!(told(r#""active":false"#), TOPICS.len() + 1);
    drop(stream);
}
