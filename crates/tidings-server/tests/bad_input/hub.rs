//! The hub as a process, with a bystander who must not notice anything, and connections that say exactly what a test wants said.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is true, and says so when it never is.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running hub, with a bystander.
pub(crate) struct Hub {
    process: Child,
    pub(crate) address: SocketAddr,
    bystander: Connection,
    said: usize,
    /// Events that were accepted on purpose: the hub must have counted no other.
    pub(crate) published: u64,
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, read: Vec::new() }
    }

    /// Sends bytes; a server that has already refused may not take all of them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        match self.stream.write_all(bytes.as_ref()) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => panic!("{error}"),
            _ => {}
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads until the condition holds of everything read so far; `false` at the end of the stream.
    fn read_until(&mut self, what: &str, condition: impl Fn(&[u8]) -> bool) -> bool {
        let mut piece = [0; 16 << 10];
        // Heartbeats are no progress.
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.read) {
            assert!(Instant::now() < deadline, "waiting for {what}, after {:?}", self.seen());
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(n) => self.read.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("waiting for {what}: {error}, after {:?}", self.seen()),
            }
        }
        true
    }

    pub(crate) fn wait_for(&mut self, text: &str) {
        let found = self.read_until(text, |read| contains(read, text.as_bytes()));
        assert!(found, "the stream ended before {text:?}, after {:?}", self.seen());
    }

    /// The whole answer, or its head if it is a stream.
    pub(crate) fn answer(&mut self) -> String {
        self.read_until("the end of the answer", |read| {
            contains(read, b"\r\n\r\n") && contains(&read.to_ascii_lowercase(), b"content-type: text/event-stream\r\n")
        });
        self.seen()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub(crate) fn status_of(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

impl Hub {
    pub(crate) fn start(settings: &[&str]) -> Hub {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", "memory"]).args(settings);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // N-42: one line, with the address it really bound.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let from = line.find("127.0.0.1:").unwrap_or_else(|| panic!("no address in {line:?}"));
        let end = line[from..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').map_or(line.len(), |at| from + at);
        let address = line[from..end].parse().unwrap();
        let mut bystander = Connection::open(address);
        bystander.send("GET /subscribe/bystander HTTP/1.1\r\nHost: localhost\r\n\r\n");
        bystander.wait_for("\r\n\r\n");
        let mut hub = Hub { process, address, bystander, said: 0, published: 0 };
        hub.undisturbed("at the start");
        hub
    }

    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut connection = Connection::open(self.address);
        connection.send(request);
        connection.answer()
    }

    fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).trim().parse().unwrap()
    }

    /// What a reader who asks for everything under this topic is told, up to `expected`.
    pub(crate) fn kept(&self, topic: &str, expected: &str) {
        let mut reader = Connection::open(self.address);
        reader.send(format!("GET /subscribe?topic={topic}&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reader.wait_for(expected);
    }

    /// The bystander receives what is published now, the process lives, and nobody but the bystander is left.
    pub(crate) fn undisturbed(&mut self, after: &str) {
        self.said += 1;
        let data = format!("still here {}", self.said);
        let request = format!(
            "POST /publish/bystander HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{data}",
            data.len()
        );
        let answer = self.ask(request);
        assert_eq!(status_of(&answer), 200, "after {after}: {answer}");
        self.published += 1;
        self.bystander.wait_for(&format!("\ndata: {data}\nid: "));
        assert!(self.process.try_wait().unwrap().is_none(), "the process has ended after {after}");
        wait_until(&format!("after {after} only the bystander is connected"), || self.metric("tidings_connections") == 1);
        assert_eq!(self.metric("tidings_events_total"), self.published, "after {after} something else was published");
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
