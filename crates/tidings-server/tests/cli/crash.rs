//! The durable log from outside: `kill -9` under load, restart, resume (N-4, N-14, N-41). `TIDINGS_CRASH_KILLS` sets how many kills.

use crate::program::{DEADLINE, Hub, Program, tidings};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Publishers at once.
const PUBLISHERS: u64 = 4;
/// Answered publishes before each kill.
const ANSWERED: usize = 150;

fn start(data: &Path, flags: &[&str]) -> Hub {
    let mut all = vec!["--data", data.to_str().unwrap(), "--retention-bytes", "256MiB"];
    all.extend(flags);
    Hub::start(&all)
}

/// The whole answer, or nothing if the hub is gone.
fn post(address: &str, path: &str, media_type: &str, body: &str) -> Option<String> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: {media_type}\r\ncontent-length: {length}");
    socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// What was published: publisher, number of its request, place in the batch, size of the batch.
type Name = (u64, u64, u64, u64);

/// Publishes until the hub is gone, single events and batches; what was answered.
fn publish(address: &str, publisher: u64, next: &mut u64, answered: &Mutex<BTreeSet<Name>>) {
    loop {
        let request = *next;
        *next += 1;
        let size = if request.is_multiple_of(5) { 4 } else { 1 };
        let data: Vec<String> = (0..size).map(|place| format!("{publisher} {request} {place} {size}")).collect();
        let answer = if size == 1 {
            post(address, "/publish/t", "text/plain", &data[0])
        } else {
            let events: Vec<String> = data.iter().map(|data| format!(r#"{{"topic":"t","data":"{data}"}}"#)).collect();
            post(address, "/publish", "application/json", &format!("[{}]", events.join(",")))
        };
        if answer.is_none() {
            return;
        }
        answered.lock().unwrap().extend((0..size).map(|place| (publisher, request, place, size)));
    }
}

/// A reader that resumes with the id of its last whole event.
#[derive(Default)]
struct Reader {
    cursor: Option<String>,
    received: Vec<Name>,
    gaps: Vec<String>,
}

impl Reader {
    /// Reads until the hub is gone, or there was enough.
    fn read(&mut self, address: &str, enough: impl Fn(&[Name]) -> bool) {
        let Ok(mut socket) = TcpStream::connect(address) else { return };
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let cursor = self.cursor.as_deref().unwrap_or("earliest");
        // HTTP/1.0 gets the stream without chunks around it.
        let request =
            format!("GET /subscribe?topic=t HTTP/1.0\r\nhost: {address}\r\naccept: text/event-stream\r\nlast-event-id: {cursor}\r\n\r\n");
        if socket.write_all(request.as_bytes()).is_err() {
            return;
        }
        let (mut buffer, mut text, mut begun) = ([0; 16_384], String::new(), false);
        while let Ok(count) = socket.read(&mut buffer) {
            text += std::str::from_utf8(&buffer[..count]).unwrap();
            if !begun && let Some((_, stream)) = text.split_once("\r\n\r\n") {
                (text, begun) = (stream.to_owned(), true);
            }
            while begun && let Some((block, rest)) = text.split_once("\n\n") {
                self.take(block);
                text = rest.to_owned();
            }
            if count == 0 || enough(&self.received) {
                return;
            }
        }
    }

    fn take(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            self.cursor = Some(id.to_owned());
        }
        match (field("event: "), field("data: ")) {
            (Some("tidings.gap"), data) => self.gaps.push(data.unwrap_or_default().to_owned()),
            (_, Some(data)) => {
                let numbers: Vec<u64> = data.split(' ').map(|number| number.parse().unwrap()).collect();
                self.received.push((numbers[0], numbers[1], numbers[2], numbers[3]));
            }
            _ => {}
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// N-4, N-14: whatever was answered is there after a kill, once, in order, batches whole; and a resuming reader is told of no gap.
#[test]
fn nothing_answered_is_lost_by_kill_9() {
    let kills = std::env::var("TIDINGS_CRASH_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    let mut next = vec![0; PUBLISHERS as usize];
    let mut reader = Reader::default();
    for _ in 0..kills {
        let hub = start(&data, &[]);
        let address = hub.address().to_owned();
        let before = answered.lock().unwrap().len();
        thread::scope(|scope| {
            for (publisher, next) in next.iter_mut().enumerate() {
                let (address, answered) = (&address, &answered);
                scope.spawn(move || publish(address, publisher as u64, next, answered));
            }
            scope.spawn(|| reader.read(&address, |_| false));
            wait_until("enough was answered", || answered.lock().unwrap().len() >= before + ANSWERED);
            hub.program.kill();
        });
    }
    let hub = start(&data, &[]);
    let answered = answered.lock().unwrap().clone();
    reader.read(hub.address(), |received| {
        let received: BTreeSet<&Name> = received.iter().collect();
        answered.iter().all(|name| received.contains(name))
    });
    let received: BTreeSet<Name> = reader.received.iter().copied().collect();
    println!("{kills} kills: {} events answered, {} received", answered.len(), reader.received.len());
    assert_eq!(answered.difference(&received).count(), 0, "answered events that are lost");
    assert_eq!(received.len(), reader.received.len(), "events delivered twice");
    assert_eq!(reader.gaps, Vec::<String>::new(), "gaps that nobody can have");
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for &(publisher, request, place, size) in &reader.received {
        let before = last.insert(publisher, (request, place));
        assert!(before < Some((request, place)), "out of order: {publisher} {request} after {before:?}");
        assert!((0..size).all(|place| received.contains(&(publisher, request, place, size))), "half a batch: {publisher} {request}");
    }
    // A reader from the beginning gets the same, and perhaps what came after.
    let mut late = Reader::default();
    late.read(hub.address(), |received| received.len() >= reader.received.len());
    assert!(late.received.starts_with(&reader.received), "another order for a later reader");
}

/// A proper stop leaves nothing to be read through, and readers go on where they were.
#[test]
fn a_restart_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    for durability in ["sync", "interval", "none"] {
        let data = directory.path().join(durability);
        let mut reader = Reader::default();
        for life in 0..3 {
            let hub = start(&data, &["--durability", durability]);
            assert!(post(hub.address(), "/publish/t", "text/plain", &format!("0 {life} 0 1")).is_some());
            reader.read(hub.address(), |received| received.len() > life);
            hub.program.signal("TERM");
            let exit = hub.program.exit();
            assert!(exit.code == Some(0) && !exit.err.contains("unfinished"), "{exit:?}");
        }
        assert_eq!(reader.received, [(0, 0, 0, 1), (0, 1, 0, 1), (0, 2, 0, 1)], "{durability}");
        assert!(reader.gaps.is_empty(), "{durability}: {:?}", reader.gaps);
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
    assert!(post(hub.address(), "/publish/k/b", "text/plain", "").is_some(), "empty data takes it back");
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
    assert!(post(hub.address(), "/publish/t", "text/plain", "0 0 0 1").is_some());
    std::fs::remove_dir_all(&data).unwrap();
    let get = |path: &str| {
        let mut socket = TcpStream::connect(hub.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let (method, path) = path.split_once(' ').unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", hub.address());
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
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
