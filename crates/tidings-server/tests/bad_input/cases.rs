//! The cases: what is sent, byte by byte, and what it gets.

use Gets::{Answered, Kept, Refused, Stream};

/// What a case gets.
pub(crate) enum Gets {
    /// A problem document of this status, with this text in it.
    Refused(u16, &'static str),
    /// 200, and a reader of `odd` then finds this in the stream.
    Kept(&'static str),
    /// 200, a stream with this in its first bytes.
    Stream(&'static str),
    /// 200 with this in the answer.
    Answered(&'static str),
}

pub(crate) fn post(target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
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

pub(crate) fn text() -> Vec<(&'static str, Vec<u8>, Gets)> {
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

pub(crate) fn sizes() -> Vec<(&'static str, Vec<u8>, Gets)> {
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

pub(crate) fn requests() -> Vec<(&'static str, Vec<u8>, Gets)> {
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
