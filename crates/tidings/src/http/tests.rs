//! Requests and what they get, literally, through the whole service on a running hub.

use super::{body::Incoming, *};
use crate::Config;
use http_body_util::{BodyExt, Empty, Full};
use std::time::Duration;
use tidings_core::{Item, Parser, limits};

/// What a test waits for comes long before this.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn hub(change: impl FnOnce(&mut Config)) -> Hub {
    let mut config = Config { shards: 1, ..Config::default() };
    change(&mut config);
    Hub::builder().config(config).build().unwrap()
}

/// A request as it would stand on the wire: request line and fields, and a body.
pub(super) fn request(head: &str, body: impl Into<Vec<u8>>) -> Request<Incoming> {
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        request = request.header(name, value);
    }
    request.body(body::incoming(Full::new(bytes::Bytes::from(body.into())))).unwrap()
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: ResponseBody,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn text(self) -> String {
        self.body.into_text()
    }
}

pub(super) async fn send<B>(service: &HubService, request: Request<B>) -> Answer
where
    B: http_body::Body<Data: Buf> + Send + 'static,
{
    let answer = tokio::time::timeout(DEADLINE, service.clone().call(request)).await.expect("answered in time").unwrap();
    let (parts, body) = answer.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(super) async fn get(service: &HubService, head: &str) -> Answer {
    send(service, request(head, "")).await
}

/// The text of a stream up to and including `end`.
pub(super) async fn read_until(body: &mut ResponseBody, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(end) {
            let frame = body.frame().await.expect("the stream goes on").expect("unbroken");
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, read).await;
    assert!(in_time.is_ok(), "{end:?} does not come after {text:?}");
    text
}

/// One row: what is sent, the status, and what the body of the answer must contain.
pub(super) struct Case {
    name: &'static str,
    head: String,
    body: Vec<u8>,
    status: u16,
    says: &'static str,
}

pub(super) fn case(name: &'static str, head: impl Into<String>, body: impl Into<Vec<u8>>, status: u16, says: &'static str) -> Case {
    Case { name, head: head.into(), body: body.into(), status, says }
}

pub(super) async fn check(service: &HubService, cases: Vec<Case>) {
    for case in cases {
        let answer = send(service, request(&case.head, case.body)).await;
        let (status, content_type) = (answer.status, answer.header("content-type").map(str::to_owned));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{}", case.name);
        if answer.body.is_stream() {
            assert_eq!((status, case.status), (200, 200), "{}", case.name);
            continue;
        }
        let text = answer.text();
        assert_eq!(status, case.status, "{}: {text}", case.name);
        assert!(text.contains(case.says), "{}: {text}", case.name);
        if status >= 400 {
            assert_eq!(content_type.as_deref(), Some("application/problem+json"), "{}", case.name);
            let start = "{\"type\":\"urn:tidings:problem:";
            assert!(text.starts_with(start) && text.contains(&format!("\"status\":{status},")), "{}: {text}", case.name);
        }
    }
}

/// N-10 ... N-15, S-35, S-46: subscribe requests that open no stream.
#[tokio::test]
async fn bad_subscribes() {
    let hub = hub(|_| {});
    let form = "POST /subscribe\nContent-Type: application/x-www-form-urlencoded";
    let topics = |count: usize| "topic=a&".repeat(count);
    check(
        &hub.service(),
        vec![
            case("LF in the topic", "GET /subscribe/a%0Ab", "", 400, "U+000A"),
            case("invalid UTF-8", "GET /subscribe/%FF", "", 400, "the path is not valid UTF-8"),
            case("invalid UTF-8 in the query", "GET /subscribe?topic=%FF", "", 400, "the query is not valid UTF-8"),
            case("an empty topic", "GET /subscribe?topic=", "", 400, "a topic must not be empty"),
            case("10,000 topics", form, topics(10_000), 400, "at most 100 topics"),
            case("101 topics", format!("GET /subscribe?{}", topics(101)), "", 400, "at most 100 topics"),
            case("a huge form", form, vec![b'x'; 1 << 20], 413, "the body may have at most"),
            case("a form of another type", "POST /subscribe\nContent-Type: text/plain", "topic=a", 415, "x-www-form-urlencoded"),
            case("a form without a type", "POST /subscribe", "topic=a", 415, "x-www-form-urlencoded"),
            case("a form in bad UTF-8", form, "topic=%FF", 400, "the form in the body is not valid UTF-8"),
            case("a bad setting", "GET /subscribe?prime=maybe", "", 400, "`prime` must be `1` or `0`"),
            case("another method", "DELETE /subscribe/a", "", 405, "GET, HEAD, POST, QUERY, OPTIONS"),
            case("unknown names are ignored", "GET /subscribe?cachebust=1&topic=a", "", 200, ""),
            case("a body with GET is ignored", "GET /subscribe/a", "topic=%FF", 200, ""),
            case("100 topics", form, topics(100), 200, ""),
            case("an empty POST", "POST /subscribe/a", "", 200, ""),
            case("QUERY", "QUERY /subscribe\nContent-Type: application/x-www-form-urlencoded", "topic=a", 200, ""),
            case("any Accept", "GET /subscribe\nAccept: application/json", "", 200, ""),
        ],
    )
    .await;
}

/// Shards say how many they have after they have written.
async fn wait_for_subscribers(hub: &Hub, count: u64) {
    let wait = async {
        while hub.subscribers() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("so many subscribers");
}

/// S-27, S-29 ... S-31, N-13, N-13a, M-132: the head and the first bytes of a stream.
#[tokio::test]
async fn stream_heads() {
    let hub = hub(|_| {});
    let service = hub.service();
    let fields = |answer: &Answer| {
        let mut fields: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort();
        fields.join("\n")
    };
    let common = "accept-query: application/x-www-form-urlencoded\n\
                  cache-control: private, no-cache, no-store, no-transform\n";
    let rest = "content-type: text/event-stream\nincremental: ?1\nvary: Origin\nx-accel-buffering: no\nx-content-type-options: nosniff";
    let mut answer = get(&service, "GET /subscribe/a").await;
    assert_eq!(fields(&answer), format!("{common}connection: keep-alive\n{rest}"));
    let opening = read_until(&mut answer.body, "\n\n").await;
    let lines: Vec<_> = opening.lines().collect();
    assert!(lines.len() == 4 && lines[0] == ": ok" && lines[1].starts_with("retry: ") && lines[2].starts_with("id: #"), "{opening}");
    let mut h2 = request("GET /subscribe/a", "");
    *h2.version_mut() = http::Version::HTTP_2;
    let h2 = send(&service, h2).await;
    assert_eq!(fields(&h2), format!("{common}{rest}"), "S-31");

    // N-15: HEAD says the same and opens nothing.
    wait_for_subscribers(&hub, 2).await;
    let head = get(&service, "HEAD /subscribe/a").await;
    assert_eq!(fields(&head), format!("{common}connection: keep-alive\n{rest}"));
    assert!(!head.body.is_stream() && http_body::Body::size_hint(&head.body).exact().is_none());
    assert_eq!(hub.metrics().lines().find(|line| line.starts_with("tidings_subscriptions_total")), Some("tidings_subscriptions_total 2"));
    assert_eq!(hub.subscribers(), 2);

    // N-13a: off on request.
    let mut answer = get(&service, "GET /subscribe/a?prime=0").await;
    hub.publish(tidings_core::Event::new("a/b", "x").unwrap()).await.unwrap();
    let text = read_until(&mut answer.body, "data: x\n").await;
    assert_eq!(text.matches("id:").count(), usize::from(text.contains("data: x\nid:")), "{text}");
}

/// S-16 ... S-22, N-12, N-14, M-91: cursors, from where they are sent to what the stream does.
#[tokio::test]
async fn cursors() {
    let hub = hub(|_| {});
    let service = hub.service();
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(send(&service, request("POST /publish/a", format!("e{n}"))).await.text().trim_end().to_owned());
    }
    let bare = ids[0][1..].to_owned();
    let encoded = format!("%23{bare}");
    for (name, head) in [
        ("header", format!("GET /subscribe/a?last_event_id={}\nLast-Event-ID: {}", &ids[2][1..], ids[0])),
        ("header in lower case", format!("GET /subscribe/a\nlast-event-id: {}", ids[0])),
        ("query, bare", format!("GET /subscribe/a?last_event_id={bare}")),
        ("query, encoded", format!("GET /subscribe/a?lastEventID={encoded}")),
        ("what polyfills add", format!("GET /subscribe/a?last_event_id=earliest&lastEventId={encoded}")),
        ("empty header", format!("GET /subscribe/a?Last-Event-ID={bare}\nLast-Event-ID: ")),
    ] {
        let mut answer = get(&service, &head).await;
        assert_eq!(answer.header("mercure-last-event-id"), Some(&*ids[0]), "{name}");
        let same = get(&service, &head.replacen("GET", "HEAD", 1)).await;
        assert_eq!(same.header("mercure-last-event-id"), Some(&*ids[0]), "M-91: {name}, with HEAD");
        let text = read_until(&mut answer.body, &ids[2]).await;
        assert!(!text.contains("data: e1\n") && text.contains("data: e2\n") && text.contains("data: e3\n"), "{name}: {text}");
        assert!(!text.contains("tidings.gap"), "{name}");
    }
    // N-14: an empty cursor is none: primed, and no header.
    let mut answer = get(&service, "GET /subscribe/a?last_event_id=\nLast-Event-ID: ").await;
    assert_eq!(answer.header("mercure-last-event-id"), None);
    assert!(read_until(&mut answer.body, "\n\n").await.contains(&format!("id: {}\n\n", ids[2])));
    // An unknown id is said out loud, with the text that was sent.
    let long = "x".repeat(10_000);
    for (head, requested) in [
        ("GET /subscribe/a\nLast-Event-ID: no such id".to_owned(), "no such id".to_owned()),
        (format!("GET /subscribe/a?last_event_id={long}"), long[..limits::CURSOR].to_owned()),
    ] {
        let mut answer = get(&service, &head).await;
        assert_eq!(answer.header("mercure-last-event-id"), Some("earliest"));
        let text = read_until(&mut answer.body, "data: e3\n").await;
        let (mut parser, mut items) = (Parser::new(1 << 20), Vec::new());
        parser.push(text.as_bytes(), |item| items.push(item)).unwrap();
        let gap = items.into_iter().find_map(|item| match item {
            Item::Message(message) if message.event_type == "tidings.gap" => Some(message.data),
            _ => None,
        });
        let expected = format!(r#"{{"earliest":"{}","reason":"unknown","requested":"{requested}"}}"#, ids[0]);
        assert_eq!(gap.as_deref(), Some(&*expected));
    }
}

/// N-12, N-13, N-13a, S-18, M-91: `since` and `last` beside a cursor, which counts instead; the header says where the stream starts.
#[tokio::test]
async fn since_and_last() {
    let hub = hub(|_| {});
    let service = hub.service();
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(send(&service, request("POST /publish/a", format!("e{n}"))).await.text().trim_end().to_owned());
    }
    for (head, start, first, primed) in [
        ("GET /subscribe/a?last=2".to_owned(), ids[0].as_str(), 2, true),
        ("GET /subscribe/a?last=9".to_owned(), "earliest", 1, true),
        ("GET /subscribe/a?last=2&prime=0".to_owned(), &ids[0], 2, false),
        ("GET /subscribe/a?since=1970-01-01T00:00:00Z".to_owned(), "earliest", 1, true),
        (format!("GET /subscribe/a?since=0&last_event_id={}", &ids[1][1..]), &ids[1], 3, false),
        (format!("GET /subscribe/a?last=9\nLast-Event-ID: {}", ids[1]), &ids[1], 3, false),
    ] {
        let mut answer = get(&service, &head).await;
        assert_eq!((answer.status, answer.header("mercure-last-event-id")), (200, Some(start)), "{head}");
        let text = read_until(&mut answer.body, &format!("data: e3\nid: {}\n\n", ids[2])).await;
        let sent: Vec<_> = (1..=3).filter(|n| text.contains(&format!("data: e{n}\n"))).collect();
        assert_eq!(sent, (first..=3).collect::<Vec<_>>(), "{head}");
        assert_eq!(text.matches("id:").count() > sent.len(), primed, "{head}: {text}");
    }
    let mut answer = get(&service, "GET /subscribe/a?last=0").await;
    assert_eq!(answer.header("mercure-last-event-id"), Some(&*ids[2]));
    assert!(read_until(&mut answer.body, "\n\n").await.ends_with(&format!("id: {}\n\n", ids[2])));
    let answer = get(&service, "GET /subscribe/a?last=1&since=0").await;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(text.contains("give either `since` or `last`, not both") && text.contains("`last_event_id`"), "{text}");
}

/// N-13b, N-14, N-17: the settings reach the stream.
#[tokio::test]
async fn stream_settings() {
    let hub = hub(|_| {});
    let service = hub.service();
    send(&service, request("POST /publish/a?topic=b", "old")).await;
    let mut answer = get(&service, "GET /subscribe/a?fields=topic&last_event_id=unknown&after_gap=live").await;
    send(&service, request("POST /publish/a?topic=b", "new")).await;
    let text = read_until(&mut answer.body, "data: new\n").await;
    assert!(text.contains("topics: a\ntopics: b\n") && text.contains("event: tidings.gap\n") && !text.contains("data: old"), "{text}");

    drop(answer);
    let aborted = get(&service, "GET /subscribe?end=abort").await.body;
    let clean = get(&service, "GET /subscribe").await.body;
    let end = async |mut body: ResponseBody| loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            other => return other.is_none(),
        }
    };
    let all = async { tokio::join!(hub.shut_down(DEADLINE), end(clean), end(aborted)) };
    let ((), clean, aborted) = tokio::time::timeout(DEADLINE, all).await.expect("ended");
    assert!(clean && !aborted);
}

/// N-16, N-5: while draining, and where the server in front wants clients sent away.
#[tokio::test]
async fn refusals() {
    let hub = hub(|_| {});
    let service = hub.service();
    let marked = |head: &str, refusal: Refusal| {
        let mut request = request(head, "");
        request.extensions_mut().insert(refusal);
        request
    };
    for refusal in [Refusal::Overloaded, Refusal::PerClient] {
        let soft = send(&service, marked("GET /subscribe/a", refusal)).await;
        assert_eq!((soft.status, soft.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!((soft.header("content-length"), http_body::Body::size_hint(&soft.body).exact()), (None, None));
        let text = soft.text();
        assert!(text.starts_with(": busy\nretry: ") && text.ends_with('\n') && text.lines().count() == 2, "{text}");
    }
    let hard = send(&service, marked("GET /subscribe/a\nPrefer: status", Refusal::Overloaded)).await;
    assert_eq!(hard.status, 503);
    assert!(hard.header("retry-after").is_some());
    assert_eq!(send(&service, marked("POST /subscribe/a", Refusal::PerClient)).await.status, 429);
    // Every other request goes on.
    assert_eq!(send(&service, marked("POST /publish/a", Refusal::Overloaded)).await.status, 200);
    assert_eq!(send(&service, marked("GET /health", Refusal::PerClient)).await.status, 200);
    // What is wrong with a request is said first.
    assert_eq!(send(&service, marked("GET /subscribe?topic=", Refusal::Overloaded)).await.status, 400);

    assert_eq!(get(&service, "GET /readyz").await.status, 200);
    hub.shut_down(DEADLINE).await;
    assert!(get(&service, "GET /subscribe/a").await.text().starts_with(": busy\n"));
    for (head, status) in [
        ("HEAD /subscribe/a", 503),
        ("POST /subscribe/a", 503),
        ("POST /publish/a", 503),
        ("GET /readyz", 503),
        ("GET /healthz", 503),
        ("GET /livez", 200),
    ] {
        let answer = get(&service, head).await;
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{head}");
    }
}

/// N-20, N-21, N-22, Z-10.
#[tokio::test]
async fn look() {
    let hub = hub(|_| {});
    let service = hub.service();
    let mut stream = get(&service, "GET /subscribe/a").await;
    read_until(&mut stream.body, "\n\n").await;
    for topic in ["a", "b", "c"] {
        send(&service, request(&format!("POST /publish/{topic}?id={topic}1"), "x")).await;
    }
    for (head, status, content_type, body) in [
        ("GET /health", 200, "text/plain; charset=utf-8", "Active connections: 1"),
        ("GET /livez", 200, "application/json", r#"{"status":"ok","reasons":[]}"#),
        ("GET /readyz", 200, "application/json", r#"{"status":"ok","reasons":[]}"#),
        ("GET /healthz", 200, "application/json", r#"{"status":"ok","reasons":[]}"#),
        ("GET /topics/a", 200, "application/json", r#"{"topic":"a","subscribers":1,"last_event_id":"a1"}"#),
        ("GET /topics/a/x", 200, "application/json", r#"{"topic":"a/x","subscribers":1,"last_event_id":null}"#),
        ("GET /topics/nobody", 200, "application/json", r#"{"topic":"nobody","subscribers":0,"last_event_id":null}"#),
        (
            "GET /topics?limit=2",
            200,
            "application/json",
            r#"{"topics":[{"topic":"a","subscribers":1,"last_event_id":"a1"},{"topic":"b","subscribers":0,"last_event_id":"b1"}],"next":"b"}"#,
        ),
        (
            "GET /topics/?limit=2&after=b",
            200,
            "application/json",
            r#"{"topics":[{"topic":"c","subscribers":0,"last_event_id":"c1"}],"next":null}"#,
        ),
    ] {
        let answer = get(&service, head).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(content_type)), "{head}");
        assert_eq!(answer.text(), body, "{head}");
    }
    check(
        &service,
        vec![
            case("limit 0", "GET /topics?limit=0", "", 400, "`limit` must be"),
            case("limit 1001", "GET /topics?limit=1001", "", 400, "`limit` must be"),
            case("limit +1", "GET /topics?limit=%2B1", "", 400, "`limit` must be"),
            case("an unknown name", "GET /topics?page=2", "", 400, "known here: `after`, `limit`"),
            case("the topic *", "GET /topics/*", "", 400, "`*` is not a topic"),
            case("metrics", "GET /metrics", "", 200, "tidings_"),
            case("the page", "GET /", "", 200, "<title>Tidings</title>"),
        ],
    )
    .await;
    let page = get(&service, "HEAD /").await;
    assert!(page.header("content-length").unwrap().parse::<usize>().unwrap() > 1_000);
    assert_eq!(page.text(), "");
    drop(stream);
}

/// N-30, N-32, N-33: what a publish key guards, and what not.
#[tokio::test]
async fn keys() {
    let hub = hub(|config| config.publish_keys = vec!["s3cret".into()]);
    let service = hub.service();
    for (head, status, challenge) in [
        ("POST /publish/a", 401, Some("Bearer")),
        ("POST /publish/a\nAuthorization: Basic eDp5", 401, Some("Bearer")),
        ("POST /publish/a\nAuthorization: Bearer wrong", 401, Some("Bearer error=\"invalid_token\"")),
        ("POST /publish/a\nAuthorization: Bearer", 400, Some("Bearer error=\"invalid_request\"")),
        ("POST /publish/a\nAuthorization: Bearer s3cret\nAuthorization: Bearer s3cret", 400, Some("Bearer error=\"invalid_request\"")),
        ("POST /publish/a\nAuthorization: bearer s3cret", 200, None),
        ("GET /topics/a", 401, Some("Bearer")),
        ("GET /topics", 401, Some("Bearer")),
        ("GET /topics\nAuthorization: Bearer s3cret", 200, None),
        ("GET /subscribe/a", 200, None),
        ("GET /subscribe/a\nAuthorization: Bearer wrong", 401, Some("Bearer error=\"invalid_token\"")),
        ("GET /health", 200, None),
        ("GET /metrics\nAuthorization: Bearer other", 200, None),
    ] {
        let answer = get(&service, head).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (status, challenge), "{head}");
    }
    assert!(get(&service, "GET /").await.text().contains("data-access=\"keys\""));
    // N-32: private events go to nobody, the key is no reader's grant.
    send(&service, request("POST /publish/a?private&id=p\nAuthorization: Bearer s3cret", "secret")).await;
    send(&service, request("POST /publish/a?id=q\nAuthorization: Bearer s3cret", "public")).await;
    let mut answer = get(&service, "GET /subscribe/a?last_event_id=earliest\nAuthorization: Bearer s3cret").await;
    assert!(!read_until(&mut answer.body, "data: public\n").await.contains("secret"));
}

/// N-31, S-39, S-40: pages of other origins, preflights, and hosts.
#[tokio::test]
async fn origins_and_hosts() {
    let hub = hub(|config| {
        config.cors_origins = vec!["https://app.example".to_owned()];
        config.publish_origins = vec!["https://writer.example".to_owned()];
    });
    let service = hub.service();
    let here = "Host: localhost:4680\nOrigin: ";
    for (line, origin, status, allow_origin) in [
        ("POST /publish/a", "https://evil.example", 403, None),
        ("POST /subscribe/a", "https://evil.example", 403, None),
        ("OPTIONS /publish/a", "https://evil.example", 403, None),
        ("POST /publish/a", "null", 403, None),
        ("GET /subscribe/a", "https://evil.example", 200, None),
        ("HEAD /subscribe/a", "https://evil.example", 200, None),
        ("POST /publish/a", "http://localhost:4680", 200, None),
        ("POST /publish/a", "http://localhost:3000", 200, Some("http://localhost:3000")),
        ("POST /publish/a", "https://app.example", 200, Some("https://app.example")),
        ("GET /subscribe/a", "https://app.example", 200, Some("https://app.example")),
        ("GET /nothing", "https://app.example", 404, Some("https://app.example")),
        ("POST /publish/*", "https://app.example", 400, Some("https://app.example")),
        ("POST /publish/a", "https://writer.example", 200, Some("https://writer.example")),
        ("POST /subscribe/a", "https://writer.example", 200, None),
    ] {
        let answer = get(&service, &format!("{line}\n{here}{origin}")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, allow_origin), "{line} {origin}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{line} {origin}");
    }
    let preflight = "OPTIONS /subscribe/a\nHost: hub.example\nOrigin: https://app.example\n\
                     Access-Control-Request-Method: GET\nAccess-Control-Request-Headers: last-event-id";
    let answer = get(&service, preflight).await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD, POST, QUERY, OPTIONS"),
        ("access-control-max-age", "600"),
        ("allow", "GET, HEAD, POST, QUERY, OPTIONS"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let allowed = answer.header("access-control-allow-headers").unwrap().to_owned();
    for name in ["Last-Event-ID", "Authorization", "Cache-Control", "Content-Type", "If-None-Match"] {
        assert!(allowed.split(", ").any(|allowed| allowed == name), "S-39: {name}");
    }
    let answer = get(&service, "GET /health\nHost: h\nOrigin: https://app.example").await;
    assert_eq!(answer.header("access-control-expose-headers"), Some("Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After"));

    check(
        &service.clone().check_host(vec!["127.0.0.1:4680".to_owned()]),
        vec![
            case("a rebound name", "GET /subscribe/a\nHost: evil.example:4680", "", 421, "evil.example:4680"),
            case(
                "a rebound name with its origin",
                "POST /publish/a\nHost: evil.example\nOrigin: http://evil.example",
                "x",
                421,
                "wrong-host",
            ),
            case("loopback", "GET /health\nHost: localhost:4680", "", 200, "Active"),
            case("no host", "GET /health", "", 400, "must have a `Host` field"),
            case("two hosts", "GET /health\nHost: localhost\nHost: localhost", "", 400, "more than one `host` field"),
            case("another host in the target", "GET http://evil.example/health\nHost: localhost", "", 421, "evil.example"),
        ],
    )
    .await;
    check(
        &service,
        vec![
            case("an embedded hub answers every host", "GET /health\nHost: anything.example", "", 200, "Active"),
            case("two hosts", "GET /health\nHost: a\nHost: a", "", 400, "more than one `host` field"),
            case("two origins", "POST /publish/a\nOrigin: null\nOrigin: null", "x", 400, "more than one `origin` field"),
        ],
    )
    .await;
}

/// Targets and methods that no client of ours sends.
#[tokio::test]
async fn odd_targets() {
    let hub = hub(|_| {});
    check(
        &hub.service(),
        vec![
            case("absolute form", "GET http://localhost/health", "", 200, "Active connections: 0"),
            case("absolute form without a path", "GET http://localhost", "", 200, "<title>Tidings</title>"),
            case("authority form", "CONNECT localhost:4680", "", 405, "GET, HEAD, OPTIONS"),
            case("asterisk", "OPTIONS *", "", 204, ""),
            case("asterisk with GET", "GET *", "", 404, "there is nothing at this path"),
            case("unknown path", "GET /nothing", "", 404, "not-found"),
            case("double slash", "GET //health", "", 404, "not-found"),
            case("encoded slash in the route", "GET /subscribe%2Fa", "", 404, "not-found"),
            case("encoded route", "GET /%68ealth", "", 404, "not-found"),
            case("slash after the route", "GET /health/", "", 404, "not-found"),
            case("another case", "GET /Health", "", 404, "not-found"),
            case("dot segments are text", "POST /publish/../a", "x", 200, "#"),
            case("GET on publish", "GET /publish/a", "", 405, "POST, OPTIONS"),
            case("an unknown method", "BREW /health", "", 405, "GET, HEAD, OPTIONS"),
            case("OPTIONS without an origin", "OPTIONS /publish/a", "", 204, ""),
        ],
    )
    .await;
}

/// Z-2: the same under a prefix that a plain server leaves in the path.
#[tokio::test]
async fn at_prefix() {
    let hub = hub(|_| {});
    for prefix in ["/events", "events/", "/events/"] {
        check(
            &hub.service().at_prefix(prefix),
            vec![
                case("the page", "GET /events", "", 200, "<title>Tidings</title>"),
                case("the page with a slash", "GET /events/", "", 200, "<title>Tidings</title>"),
                case("below", "GET /events/health", "", 200, "Active connections"),
                case("a topic", "POST /events/publish/events/a", "x", 200, "#"),
                case("outside", "GET /health", "", 404, "not-found"),
                case("another name", "GET /eventsx/health", "", 404, "not-found"),
                case("another name without a slash", "GET /eventsx", "", 404, "not-found"),
            ],
        )
        .await;
    }
    check(&hub.service().at_prefix("/"), vec![case("the root", "GET /health", "", 200, "Active connections")]).await;
}

/// Z-2: nested in an axum application in every way axum has.
#[cfg(feature = "axum")]
#[tokio::test]
async fn in_axum() {
    let hub = hub(|_| {});
    let apps = [
        ("", hub.router()),
        ("/events", axum::Router::new().nest("/events", hub.router())),
        ("/events", axum::Router::new().nest_service("/events", hub.service())),
        ("/a/b", axum::Router::new().nest("/a", axum::Router::new().nest("/b", hub.router()))),
    ];
    for (prefix, mut app) in apps {
        for (head, status, says) in [
            (format!("GET {}", if prefix.is_empty() { "/" } else { prefix }), 200, "<title>Tidings</title>"),
            (format!("GET {prefix}/health"), 200, "Active connections: 0"),
            (format!("POST {prefix}/publish/x/y"), 200, "#"),
            (format!("GET {prefix}/nothing"), 404, "urn:tidings:problem:not-found"),
        ] {
            let (parts, _) = request(&head, "").into_parts();
            let answer = Service::call(&mut app, Request::from_parts(parts, axum::body::Body::from("x"))).await.unwrap();
            assert_eq!(answer.status(), status, "{head}");
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(std::str::from_utf8(&text).unwrap().contains(says), "{head}");
        }
    }
    // With a slash at the end only a nested service has it: axum gives that path to no nested router.
    let mut app: axum::Router = axum::Router::new().nest_service("/events", hub.service());
    let (parts, _) = request("GET /events/", "").into_parts();
    assert_eq!(Service::call(&mut app, Request::from_parts(parts, axum::body::Body::empty())).await.unwrap().status(), 200);
}

/// The service takes bodies of any type, also such as cannot be moved once polled.
#[tokio::test]
async fn any_body() {
    let hub = hub(|_| {});
    assert_eq!(send(&hub.service(), Request::post("/publish/a").body(Empty::<&[u8]>::new()).unwrap()).await.status, 200);
    assert_eq!(send(&hub.service(), Request::post("/publish/a").body("text".to_owned()).unwrap()).await.status, 200);
}
