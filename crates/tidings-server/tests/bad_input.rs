//! What bad input gets, from outside and byte by byte: each a clear refusal or a documented meaning, and nobody else notices.
//!
//! Every test has a hub of its own and a bystander who has subscribed before and receives an event after every case. It knows the
//! interface on the wire and nothing of the program.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running hub, with a bystander.
struct Hub {
    process: Child,
    address: SocketAddr,
    bystander: Connection,
    said: usize,
    /// Events that were accepted on purpose: the hub must have counted no other.
    published: u64,
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, read: Vec::new() }
    }

    /// Sends bytes; a server that has already refused may not take all of them.
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
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

    fn wait_for(&mut self, text: &str) {
        let found = self.read_until(text, |read| contains(read, text.as_bytes()));
        assert!(found, "the stream ended before {text:?}, after {:?}", self.seen());
    }

    /// The whole answer, or its head if it is a stream.
    fn answer(&mut self) -> String {
        self.read_until("the end of the answer", |read| {
            contains(read, b"\r\n\r\n") && contains(&read.to_ascii_lowercase(), b"content-type: text/event-stream\r\n")
        });
        self.seen()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn status_of(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

impl Hub {
    fn start(settings: &[&str]) -> Hub {
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

    fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut connection = Connection::open(self.address);
        connection.send(request);
        connection.answer()
    }

    fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).trim().parse().unwrap()
    }

    /// What a reader who asks for everything under this topic is told, up to `expected`.
    fn kept(&self, topic: &str, expected: &str) {
        let mut reader = Connection::open(self.address);
        reader.send(format!("GET /subscribe?topic={topic}&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reader.wait_for(expected);
    }

    /// The bystander receives what is published now, the process lives, and nobody but the bystander is left.
    fn undisturbed(&mut self, after: &str) {
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
        let deadline = Instant::now() + PATIENCE;
        while self.metric("tidings_connections") != 1 {
            assert!(Instant::now() < deadline, "after {after} a connection was left: {}", self.get("/metrics"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.metric("tidings_events_total"), self.published, "after {after} something else was published");
    }

    #[cfg(target_os = "linux")]
    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a case gets.
enum Gets {
    /// A problem document of this status, with this text in it.
    Refused(u16, &'static str),
    /// 200, and a reader of `odd` then finds this in the stream.
    Kept(&'static str),
    /// 200, a stream with this in its first bytes.
    Stream(&'static str),
    /// 200 with this in the answer.
    Answered(&'static str),
}
use Gets::{Answered, Kept, Refused, Stream};

fn post(target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn data(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("/publish/odd", "", body)
}

fn json(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("/publish", "Content-Type: application/json\r\n", body)
}

fn raw(request: &str) -> Vec<u8> {
    request.as_bytes().to_vec()
}

/// `topic=t0&topic=t1&...`
fn topics(count: usize) -> String {
    (0..count).map(|n| format!("topic=t{n}")).collect::<Vec<_>>().join("&")
}

fn text() -> Vec<(&'static str, Vec<u8>, Gets)> {
    vec![
        // S-6: every line end comes back as LF, and forges nothing.
        ("LF in data", data("a\nb"), Kept("\ndata: a\ndata: b\nid: #")),
        ("CR in data", data("c\rd"), Kept("\ndata: c\ndata: d\nid: #")),
        ("CRLF in data", data("e\r\nf"), Kept("\ndata: e\ndata: f\nid: #")),
        (
            "a forged event in data",
            data("g\n\nevent: tidings.gap\rid: 9\r\n\r\n"),
            Kept("\ndata: g\ndata: \ndata: event: tidings.gap\ndata: id: 9\ndata: \ndata: \nid: #"),
        ),
        // S-7, S-4: text like any other.
        ("NUL in data", data("h\0i"), Kept("\ndata: h\0i\nid: #")),
        ("BOM in data", data("\u{FEFF}j"), Kept("\ndata: \u{FEFF}j\nid: #")),
        ("a leading space in data", data(" k"), Kept("\ndata:  k\nid: #")),
        // S-12: an event like any other.
        ("empty data", data(""), Kept("\ndata: \nid: #")),
        ("no length and no data", raw("POST /publish/odd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), Answered("#")),
        ("invalid UTF-8 in data", data(b"a\xffb"), Refused(400, "UTF-8")),
        ("an overlong form in data", data(b"\xc0\x80"), Refused(400, "UTF-8")),
        ("a lone surrogate in data", data(b"\xed\xa0\x80"), Refused(400, "UTF-8")),
        ("half a character in data", data(b"\xe6\x97"), Refused(400, "UTF-8")),
        ("a lone surrogate in a JSON string", json(r#"{"topic":"odd","data":"\ud800"}"#), Refused(400, "JSON")),
        ("a lone surrogate inside a JSON value", json(r#"{"topic":"odd","data":{"a":["\udc00"]}}"#), Refused(400, "JSON")),
        ("a lone surrogate in a JSON topic", json(r#"{"topic":"\udfff","data":""}"#), Refused(400, "JSON")),
        ("a lone surrogate in the path", post("/publish/%ED%A0%80", "", "x"), Refused(400, "UTF-8")),
        ("invalid UTF-8 in the path", post("/publish/%FF", "", "x"), Refused(400, "UTF-8")),
        ("invalid UTF-8 in the query", post("/publish/odd?type=%FF", "", "x"), Refused(400, "UTF-8")),
        ("invalid UTF-8 in JSON", json(b"{\"topic\":\"odd\",\"data\":\"\xff\"}"), Refused(400, "UTF-8")),
        (
            "invalid UTF-8 in a subscription",
            raw("GET /subscribe?topic=%FF HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            Refused(400, "UTF-8"),
        ),
        ("CR in a topic", post("/publish/a%0Db", "", "x"), Refused(400, "U+000D")),
        ("LF in a topic", post("/publish/a%0Ab", "", "x"), Refused(400, "U+000A")),
        ("NUL in a topic", post("/publish/a%00b", "", "x"), Refused(400, "U+0000")),
        ("BOM in a topic", post("/publish/%EF%BB%BFa", "", "x"), Refused(400, "U+FEFF")),
        ("LF in a second topic", post("/publish/odd?topic=a%0Ab", "", "x"), Refused(400, "U+000A")),
        ("LF in a JSON topic", json(r#"{"topic":"a\nb","data":""}"#), Refused(400, "U+000A")),
        ("CR in an id", post("/publish/odd?id=a%0Db", "", "x"), Refused(400, "U+000D")),
        ("LF in an id", post("/publish/odd?id=a%0Ab", "", "x"), Refused(400, "U+000A")),
        ("NUL in an id", post("/publish/odd?id=a%00b", "", "x"), Refused(400, "U+0000")),
        ("BOM in an id", post("/publish/odd?id=%EF%BB%BFa", "", "x"), Refused(400, "U+FEFF")),
        ("CR in a type", post("/publish/odd?type=a%0Db", "", "x"), Refused(400, "U+000D")),
        ("LF in a type", post("/publish/odd?type=a%0Ab", "", "x"), Refused(400, "U+000A")),
        ("NUL in a type", post("/publish/odd?type=a%00b", "", "x"), Refused(400, "U+0000")),
        ("LF in a retry", post("/publish/odd?retry=1%0A2", "", "x"), Refused(400, "retry")),
        ("a raw CR in a header", post("/publish/odd", "X: a\rb\r\n", "x"), Refused(400, "head")),
        ("a raw NUL in a header", post("/publish/odd", "X: a\0b\r\n", "x"), Refused(400, "head")),
        ("a BOM before the request", raw("\u{FEFF}GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Refused(400, "head")),
    ]
}

fn sizes() -> Vec<(&'static str, Vec<u8>, Gets)> {
    let id = |bytes: usize| post(&format!("/publish/odd?id={}", "i".repeat(bytes)), "", "x");
    let cursor = |bytes: usize| {
        raw(&format!("GET /subscribe/odd HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {}\r\nConnection: close\r\n\r\n", "c".repeat(bytes)))
    };
    let header = "X: y\r\n".repeat(100);
    vec![
        ("the largest data", data("d".repeat(1 << 20)), Answered("#")),
        ("a byte too much", data("d".repeat((1 << 20) + 1)), Refused(413, "1048576")),
        ("32 MB of data", data("d".repeat(32 << 20)), Refused(413, "1048576")),
        ("32 MB of JSON", json("d".repeat(32 << 20)), Refused(413, "16777216")),
        ("an id of 0 bytes", id(0), Answered("#")),
        ("an id of 1 byte", id(1), Answered("\r\n\r\ni\n")),
        ("an id of 512 bytes", id(512), Answered("iiii\n")),
        ("an id of 513 bytes", id(513), Refused(413, "513")),
        ("an id of 2,048 bytes", id(2_048), Refused(413, "2048")),
        ("an id of 10,000 bytes", id(10_000), Refused(413, "10000")),
        ("an id that is minted by the hub", post("/publish/odd?id=%235f3a9c01-000000000000002a", "", "x"), Refused(400, "#")),
        ("an id that begins with #", post("/publish/odd?id=%23", "", "x"), Refused(400, "#")),
        ("an id with # inside", post("/publish/odd?id=a%23b", "", "x"), Answered("\r\n\r\na#b\n")),
        ("an id in the URL after an unescaped #", post("/publish/odd?id=a#b", "", "x"), Answered("\r\n\r\na\n")),
        // N-14: an unknown cursor is said to be one, however long; an empty one is none.
        ("a cursor of 0 bytes", cursor(0), Stream("\nretry: ")),
        ("a cursor of 10,000 bytes", cursor(10_000), Stream("event: tidings.gap\n")),
        (
            "a cursor of two bytes that are no text",
            b"GET /subscribe/odd HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \xff\xfe\r\n\r\n".to_vec(),
            Stream("\"reason\":\"unknown\""),
        ),
        ("10,000 topics of an event in its URL", post(&format!("/publish/odd?{}", topics(10_000)), "", "x"), Refused(431, "head")),
        (
            "10,000 topics of an event in JSON",
            json(format!(r#"{{"topics":[{}"z"],"data":""}}"#, "\"a\",".repeat(9_999))),
            Refused(413, "100 topics"),
        ),
        (
            "10,000 topics of a subscription in its URL",
            raw(&format!("GET /subscribe?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", topics(10_000))),
            Refused(431, "head"),
        ),
        (
            "101 topics of a subscription",
            raw(&format!("GET /subscribe?{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", topics(101))),
            Refused(400, "100 topics"),
        ),
        (
            "10,000 topics of a subscription in a form",
            post("/subscribe", "Content-Type: application/x-www-form-urlencoded\r\n", topics(10_000)),
            Refused(400, "100 topics"),
        ),
        (
            "a header of 1 MB",
            raw(&format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))),
            Refused(431, "head"),
        ),
        (
            "a header of 1 MB that does not end",
            raw(&format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(1 << 20))),
            Refused(431, "head"),
        ),
        ("a path of 1 MB", raw(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1 << 20))), Refused(431, "head")),
        ("101 header fields", raw(&format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{header}\r\n")), Refused(431, "head")),
    ]
}

fn requests() -> Vec<(&'static str, Vec<u8>, Gets)> {
    let get = |target: &str, headers: &str| raw(&format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"));
    let local = "Host: localhost\r\n";
    vec![
        // A misspelt name of a publisher would be lost silently; readers' URLs get names added by polyfills.
        ("an unknown query name of a publisher", post("/publish/odd?retyr=5", "", "x"), Refused(400, "retyr")),
        ("an unknown query name beside JSON", post("/publish?topic=a", "Content-Type: application/json\r\n", "{}"), Refused(400, "topic")),
        ("an unknown JSON member", json(r#"{"topic":"odd","data":"","retyr":5}"#), Refused(400, "retyr")),
        ("an unknown query name of a reader", get("/subscribe/odd?_=1732230000", local), Stream("\nretry: ")),
        ("a known query name with an unknown value", get("/subscribe/odd?prime=perhaps", local), Refused(400, "perhaps")),
        ("two lengths that differ", post("/publish/odd", "Content-Length: 2\r\n", "x"), Refused(400, "head")),
        (
            "a length that is no number",
            raw("POST /publish/odd HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx"),
            Refused(400, "head"),
        ),
        (
            "a chunk whose size is no number",
            raw("POST /publish/odd HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Refused(400, "broke off"),
        ),
        (
            "a GET with a body",
            get("/health", "Host: localhost\r\nContent-Length: 5\r\n").into_iter().chain(*b"topic").collect(),
            Answered("Active connections: 1"),
        ),
        (
            "a GET that subscribes with a body",
            get("/subscribe/odd", "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n")
                .into_iter()
                .chain(*b"topic=\xff\xff\xff")
                .collect(),
            Stream("\nretry: "),
        ),
        // N-31: pages of other origins, and names that somebody else's DNS points here.
        (
            "a foreign origin that posts",
            post("/publish/odd", "Origin: https://attacker.example\r\n", "x"),
            Refused(403, "attacker.example"),
        ),
        (
            "a foreign origin that posts as a form may",
            post("/publish/odd", "Origin: https://attacker.example\r\nContent-Type: text/plain\r\n", "x"),
            Refused(403, "attacker.example"),
        ),
        ("an origin without a name", post("/publish/odd", "Origin: null\r\n", "x"), Refused(403, "null")),
        (
            "a foreign origin that looks like us",
            post("/publish/odd", "Origin: http://localhost.attacker.example\r\n", "x"),
            Refused(403, "attacker.example"),
        ),
        (
            "a foreign origin's preflight",
            raw(
                "OPTIONS /publish/odd HTTP/1.1\r\nHost: localhost\r\nOrigin: https://attacker.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
            ),
            Refused(403, "attacker.example"),
        ),
        ("a rebound name that reads", get("/subscribe/odd", "Host: attacker.example\r\n"), Refused(421, "attacker.example")),
        (
            "a rebound name that publishes",
            raw(
                "POST /publish/odd HTTP/1.1\r\nHost: attacker.example:4680\r\nOrigin: http://attacker.example:4680\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
            ),
            Refused(421, "attacker.example"),
        ),
        ("a rebound name in the target", get("http://attacker.example/health", local), Refused(421, "attacker.example")),
        ("two hosts", get("/health", "Host: localhost\r\nHost: attacker.example\r\n"), Refused(400, "host")),
        ("no host", get("/health", ""), Refused(400, "Host")),
        // S-7: what belongs to the hub.
        ("a forged gap", post("/publish/odd?type=tidings.gap", "", "{}"), Refused(400, "tidings.")),
        ("a forged gap in JSON", json(r#"{"topic":"odd","type":"tidings.gap","data":{}}"#), Refused(400, "tidings.")),
        (
            "a forged gap in a line",
            post("/publish", "Content-Type: application/x-ndjson\r\n", "{\"topic\":\"odd\",\"type\":\"tidings.gap\",\"data\":{}}\n"),
            Refused(400, "\"line\":1"),
        ),
        (
            "one bad event in an array",
            json(r#"[{"topic":"odd","data":""},{"topic":"odd","type":"tidings.gap","data":""}]"#),
            Refused(400, "event 2"),
        ),
        (
            "a topic of the hub's own",
            post("/publish/.well-known/mercure/x?topic=/.well-known/mercure/x", "", "x"),
            Refused(400, "/.well-known/mercure"),
        ),
        ("another method", raw("DELETE /publish/odd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), Refused(405, "POST")),
        ("another path", get("/admin", local), Refused(404, "/publish/")),
        ("no HTTP at all", raw("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n"), Refused(400, "head")),
    ]
}

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
    {
        let deadline = Instant::now() + PATIENCE;
        while hub.open_files() > files {
            assert!(Instant::now() < deadline, "{} open files, {files} at the start", hub.open_files());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
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
