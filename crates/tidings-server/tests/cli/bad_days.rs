//! Bad days of a running hub's disk, from outside: no room, no rights, no directory, large events, and topics without end.
//! `TIDINGS_MANY_TOPICS` sets how many topics.

use crate::{
    program::{DEADLINE, Hub, Program, tidings},
    trial::post,
};
use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Instant,
};

/// The whole answer of a publish, whatever it is.
fn answer(hub: &Hub, data: &[u8]) -> String {
    let mut socket = TcpStream::connect(hub.address()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let (address, length) = (hub.address(), data.len());
    let head = format!("POST /publish/t HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(data).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// N-5: a file that may not grow further, as with a quota: 507, readers stay, and publishing goes on by itself in a new file. Nobody who was
/// answered loses anything by it, and nothing that was refused appears.
#[test]
fn no_room() {
    let directory = tempfile::tempdir().unwrap();
    // Units of 512 bytes or of a kibibyte, depending on the shell. Without the signal a write that is too long is an error like any other.
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$@\"";
    let mut limited = Command::new("sh");
    limited.env_clear().args(["-c", script, "sh", env!("CARGO_BIN_EXE_tidings"), "serve", "--listen", "127.0.0.1:0"]);
    limited.args(["--retry", "50ms", "--data"]).arg(directory.path());
    let hub = Hub::take(Program::start(&mut limited));
    let mut reader = Program::start(&mut hub.command(&["subscribe", "t", "--since-id", "earliest"]));
    let (mut kept, mut refused) = (Vec::new(), 0);
    for n in 0..60 {
        let data = format!("{n} {}", "x".repeat(100_000));
        let got = answer(&hub, data.as_bytes());
        if got.starts_with("HTTP/1.1 200") {
            assert!(reader.line() == data, "the stream goes on");
            kept.push(data);
        } else {
            assert!(got.starts_with("HTTP/1.1 507") && got.contains("no space left") && got.contains("retry-after: "), "{got}");
            refused += 1;
            // It comes back without being asked.
            wait_until("ready", || ask(&hub, "GET /readyz").starts_with("HTTP/1.1 200"));
        }
    }
    assert!(refused >= 1 && kept.len() > 40, "{refused} {}", kept.len());
    hub.program.kill();
    let again = Hub::start(&["--data", directory.path().to_str().unwrap()]);
    let count = kept.len().to_string();
    let mut read = again.command(&["subscribe", "t", "--since-id", "earliest", "--count", &count]);
    let exit = Program::start(&mut read).exit();
    assert!(exit.code == Some(0) && exit.out.lines().eq(kept.iter().map(String::as_str)) && exit.err.is_empty(), "{}", exit.err);
    assert!(answer(&again, b"end").starts_with("HTTP/1.1 200"));
}

fn ask(hub: &Hub, request: &str) -> String {
    let mut socket = TcpStream::connect(hub.address()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", hub.address());
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// A directory without the right to write: said at the start, with what to do.
#[test]
fn read_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(path.join("may"), "").is_ok() {
        // Rights do not bind root; here nobody may make anything.
        path = "/sys/tidings".into();
    }
    let started = Program::start(&mut tidings(&["serve", "--listen", "127.0.0.1:0", "--data", path.to_str().unwrap()]));
    let exit = started.exit();
    assert_eq!((exit.code, &*exit.out), (Some(1), ""), "{exit:?}");
    for text in [&*path.to_string_lossy(), "cannot be used", "--data DIR"] {
        assert!(exit.err.contains(text), "{text:?} is not said: {exit:?}");
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

/// The directory goes away under a running hub: streams go on, publishing is refused, and after a restart there is a new log, which readers are told.
#[test]
fn the_directory_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let hub = Hub::start(&["--data", data.to_str().unwrap()]);
    let id = hub.publish("t", "before");
    let mut reader = Program::start(&mut hub.command(&["subscribe", "t", "--json", "--since-id", "earliest"]));
    assert!(reader.line().contains("before"));
    fs::remove_dir_all(&data).unwrap();
    let refused = answer(&hub, b"refused");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("restart to begin a new log"), "{refused}");
    let address = hub.address().to_owned();
    hub.program.kill();
    let again = Hub::listen(&address, &["--data", data.to_str().unwrap()]);
    let gap = reader.line();
    assert!(gap.contains("tidings.gap") && gap.contains(r#"\"reason\":\"epoch\""#) && gap.contains(&id[1..]), "{gap}");
    again.publish("t", "after");
    assert!(reader.line().contains("after"));
}

/// N-40: an event as large as the default allows, live and after a crash; one byte more is refused and says so.
#[test]
fn one_mebibyte() {
    let directory = tempfile::tempdir().unwrap();
    let large = "x".repeat(1 << 20);
    for life in 0..2 {
        let hub = Hub::start(&["--data", directory.path().to_str().unwrap()]);
        if life == 0 {
            let mut live = Program::start(&mut hub.command(&["subscribe", "t", "--since-id", "earliest", "--count", "1"]));
            assert!(answer(&hub, large.as_bytes()).starts_with("HTTP/1.1 200"));
            assert!(live.line() == large);
            let refused = answer(&hub, (large.clone() + "x").as_bytes());
            assert!(refused.starts_with("HTTP/1.1 413") && refused.contains("1048576"), "{refused}");
        } else {
            let mut later = hub.command(&["subscribe", "t", "--last", "1", "--count", "1"]);
            assert!(Program::start(&mut later).exit().out.trim_end() == large);
        }
        hub.program.kill();
    }
}

/// The resident memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Topics without end, an event each: memory has a bound that does not depend on their number, on disk and in memory.
#[cfg(target_os = "linux")]
#[test]
fn many_topics() {
    const BATCH: usize = 10_000;
    let topics: usize = std::env::var("TIDINGS_MANY_TOPICS").map_or(150_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    for store in [&["--data", directory.path().to_str().unwrap()][..], &["--store", "memory"]] {
        // The window holds events, whatever their topics; here it is small.
        let window = ["--window-bytes", "4MiB", "--event-data", "1MiB", "--retention-bytes", "64GiB"];
        let hub = Hub::start(&[store, &window].concat());
        let before = resident(hub.program.id());
        let mut most = 0;
        for batch in 0..topics.div_ceil(BATCH) {
            let mut lines = String::new();
            for n in batch * BATCH..((batch + 1) * BATCH).min(topics) {
                let _ = writeln!(lines, r#"{{"topic":"devices/{n:08}/temperature","data":"{n}"}}"#);
            }
            assert!(post(hub.address(), "/publish", "content-type: application/x-ndjson", &lines).is_some());
            most = most.max(resident(hub.program.id()));
        }
        println!("{topics} topics, {}: {before} KiB before, {most} at the most, {} after", store[0], resident(hub.program.id()));
        // The index of the segment being written, those on their way to their files, the window, and the pages of a request: as much with
        // four million topics as with one.
        assert!(most - before < 192 << 10, "{most} KiB, {before} before");
        let last = format!("devices/{:08}/temperature", topics - 1);
        let mut newest = hub.command(&["subscribe", &last, "--last", "1", "--count", "1"]);
        assert_eq!(Program::start(&mut newest).exit().out.trim_end(), (topics - 1).to_string());
    }
    assert!(Path::new(directory.path()).join("state").exists());
}
