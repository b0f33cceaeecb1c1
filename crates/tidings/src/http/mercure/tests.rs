//! Requests to the Mercure path and what they get, literally, through the whole service on a running hub.

use crate::{
    AfterGap, Dialects, Hub,
    http::tests::{Answer, case, check, get, hub, read_until, request, send},
};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tidings_core::{Event, limits};

pub(super) const HUB: &str = "/.well-known/mercure";
pub(super) const POST: &str = "POST /.well-known/mercure\nContent-Type: application/x-www-form-urlencoded";

pub(super) async fn publish(hub: &Hub, form: &str) -> String {
    let answer = send(&hub.service(), request(POST, form)).await;
    assert_eq!(answer.status, 200, "{form}");
    answer.text()
}

pub(super) async fn subscribe(hub: &Hub, query: &str) -> Answer {
    let answer = get(&hub.service(), &format!("GET {HUB}?{query}")).await;
    assert_eq!(answer.status, 200, "{query}");
    answer
}

fn fields(answer: &Answer) -> String {
    let mut fields: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    fields.sort();
    fields.concat()
}

/// M-14, M-132, M-301, M-302, M-313, S-27, S-29 ... S-31: the head and the first bytes of a stream; no priming (N-13a).
#[tokio::test]
async fn stream_heads() {
    let hub = hub(|_| {});
    let expected = "accept-query: application/x-www-form-urlencoded\n\
                    cache-control: private, no-cache, no-store, no-transform\n\
                    connection: keep-alive\n\
                    content-security-policy: default-src 'self'\n\
                    content-type: text/event-stream\n\
                    incremental: ?1\n\
                    vary: Origin\n\
                    x-accel-buffering: no\n\
                    x-content-type-options: nosniff\n\
                    x-frame-options: DENY\n\
                    x-xss-protection: 1; mode=block\n";
    for head in ["GET /.well-known/mercure?topic=a", "GET /.well-known/mercure?match=a", "HEAD /.well-known/mercure?match=a"] {
        let answer = get(&hub.service(), head).await;
        assert_eq!((answer.status, &*fields(&answer)), (200, expected), "{head}");
        assert_eq!(answer.body.is_stream(), head.starts_with("GET"), "M-311: {head}");
    }
    let mut stream = subscribe(&hub, "match=a").await;
    let id = publish(&hub, "topic=a&data=x").await;
    let text = read_until(&mut stream.body, "\n\n").await;
    let (opening, event) = text.split_at(text.find("data").unwrap());
    assert!(opening.starts_with(": ok\nretry: ") && opening.lines().count() == 2, "{text}");
    assert_eq!(event, format!("data: x\nid: {id}\n\n"));
}

/// M-2, M-18, M-22, M-30, M-31, M-202, M-203, M-401: which parameters receive what, in both dialects and mixed.
#[tokio::test]
async fn routing() {
    let hub = hub(|_| {});
    let table: &[(&str, &[&str])] = &[
        ("topic=a", &["1"]),
        ("match=a", &["1"]),
        ("match_exact=a", &["1"]),
        ("match=A", &[]),
        ("topic=a&match=b", &["1", "2"]),
        ("topic=alternate", &["2"]),
        ("match=b&match=alternate", &["2"]),
        ("topic=*", &["1", "2", "3"]),
        ("match=*", &["1", "2", "3"]),
        ("match_exact=*", &["1", "2", "3"]),
        ("match=c%20d%2B", &["3"]),
        ("match=c+d%2B", &["3"]),
        ("match=", &[]),
        ("match", &[]),
        ("topic=", &[]),
        ("topic", &[]),
        ("match_exact=", &[]),
        ("match_exact", &[]),
        ("match=&topic=a", &["1"]),
        // M-19: what is no percent-encoding stands for itself, and `;` separates nothing.
        ("match=%zz&match=a", &["1"]),
        ("match=a;b", &[]),
        // Templates are dialect 7's, URL patterns dialect 8's.
        ("topic=%7Bx%7D", &["1", "2"]),
        ("match=%7Bx%7D", &[]),
        ("match_urlpattern=*", &["1", "2", "3"]),
        ("match_urlpattern=%2F.well-known%2F(a|b)", &["1", "2"]),
        ("match_urlpattern=b&topic=%7Bunclosed", &["2"]),
        ("match=a&authorisation=x&Topic=b&_=1", &["1"]),
    ];
    let mut streams = Vec::new();
    for (query, _) in table {
        streams.push(subscribe(&hub, &format!("{query}&match=end")).await);
    }
    publish(&hub, "topic=a&id=1&data=").await;
    publish(&hub, "topic=b&topic=alternate&id=2&data=").await;
    publish(&hub, "topic=c+d%2B&id=3&data=").await;
    publish(&hub, "topic=end&id=end&data=").await;
    for ((query, expected), mut stream) in table.iter().zip(streams) {
        let text = read_until(&mut stream.body, "id: end\n").await;
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids[..ids.len() - 1], **expected, "{query}");
    }
}

/// M-337: an empty matcher alone opens a stream, in each dialect with the other switched off too, and matches nothing of what is published.
#[tokio::test]
async fn empty_matchers() {
    for (dialects, names) in [
        (Dialects::Both, &["match", "match_exact", "topic"][..]),
        (Dialects::Eight, &["match", "match_exact"]),
        (Dialects::Seven, &["topic"]),
    ] {
        let hub = hub(|config| config.mercure_dialects = dialects);
        let mut streams = Vec::new();
        for query in names.iter().flat_map(|name| [format!("{name}="), (*name).to_owned()]) {
            streams.push((format!("GET ?{query}"), subscribe(&hub, &query).await));
            let head = format!("QUERY {HUB}\nContent-Type: application/x-www-form-urlencoded");
            let answer = send(&hub.service(), request(&head, &*query)).await;
            assert_eq!(answer.status, 200, "QUERY {query}");
            streams.push((format!("QUERY {query}"), answer));
        }
        assert!(streams.iter().all(|(_, answer)| answer.body.is_stream()));
        publish(&hub, "topic=a&topic=b&data=x").await;
        let reading = streams.into_iter().map(|(name, answer)| (name, tokio::spawn(answer.body.collect())));
        let reading: Vec<_> = reading.collect();
        hub.shut_down(Duration::from_secs(10)).await;
        for (name, whole) in reading {
            let seen = whole.await.unwrap().unwrap().to_bytes();
            assert!(seen.starts_with(b": ok\n") && !seen.windows(5).any(|field| field == b"data:"), "{name}: {seen:?}");
        }
    }
}

/// M-32, M-73: what relative patterns and topics are relative to: the public URL, else where the hub listens, and never `Host`. A hub that
/// is embedded and knows neither has a base of its own.
#[tokio::test]
async fn relative_patterns() {
    let listen = Some("127.0.0.1:4680".parse().unwrap());
    for (public_url, listen, base) in [
        (Some("https://hub.example"), listen, "https://hub.example"),
        (None, listen, "http://127.0.0.1:4680"),
        (None, Some("[::1]:4680".parse().unwrap()), "http://[::1]:4680"),
        (None, None, "https://hub.invalid"),
    ] {
        let hub = hub(|config| (config.public_url, config.listen) = (public_url.map(str::to_owned), listen));
        assert_eq!(hub.url_patterns().base(), format!("{base}{HUB}"));
        let target = format!("GET {HUB}?match_urlpattern=%2Fa%2F:id&match=end\nHost: host.example");
        let mut stream = get(&hub.service(), &target).await;
        for (id, topic) in
            [("host", "https://host.example/a/1"), ("relative", "/a/1"), ("absolute", &format!("{base}/a/1")), ("end", "end")]
        {
            publish(&hub, &format!("topic={topic}&id={id}")).await;
        }
        let text = read_until(&mut stream.body, "id: end\n").await;
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["relative", "absolute", "end"], "{base}");
    }
}

/// M-15, M-16: the parameters of a `QUERY` are those of the URL and of the body together.
#[tokio::test]
async fn query_method() {
    let hub = hub(|_| {});
    let first = publish(&hub, "topic=a&data=1").await;
    let second = publish(&hub, "topic=b&data=2").await;
    publish(&hub, "topic=c&data=3").await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (head, body, start) in [
        (format!("QUERY {HUB}?match=b\n{form}"), format!("match=c&last_event_id=%23{}", &first[1..]), &first),
        (
            format!("QUERY {HUB}?match=c&last_event_id=%23{}\n{form}", &first[1..]),
            format!("match=b&last_event_id=%23{}", &second[1..]),
            &first,
        ),
        (format!("QUERY {HUB}?match=c&match=b\n{form}\nLast-Event-ID: {first}"), format!("last_event_id=%23{}", &second[1..]), &first),
        (format!("QUERY {HUB}?match=c&match=b&last_event_id=%23{}", &first[1..]), String::new(), &first),
    ] {
        let mut answer = send(&hub.service(), request(&head, body)).await;
        assert_eq!((answer.status, answer.header("mercure-last-event-id")), (200, Some(&**start)), "{head}");
        let text = read_until(&mut answer.body, "data: 3\n").await;
        assert!(text.contains("data: 2\n") && !text.contains("data: 1\n"), "{head}: {text}");
    }
    let query = format!("QUERY {HUB}\n{form}");
    check(
        &hub.service(),
        vec![
            case("nothing asked", &query, "x=y", 400, "missing \\\"match\\\" subscription parameter"),
            case("M-20 in the body", &query, "match=a&matched=b", 400, "the parameter \\\"matched\\\" is not a matcher"),
            case("bad UTF-8 in the body", &query, "match=%FF", 400, "not valid UTF-8"),
            case("another type", format!("QUERY {HUB}\nContent-Type: text/plain"), "match=a", 415, "x-www-form-urlencoded"),
            case("a huge body", &query, vec![b'x'; limits::MERCURE_BODY + 1], 413, "at most 1048576 bytes"),
        ],
    )
    .await;
}

/// M-20, M-21, M-23, M-308, M-312, M-401: subscriptions that are refused, with the texts.
#[tokio::test]
async fn bad_subscriptions() {
    let get = |query: &str| format!("GET {HUB}?{query}");
    let times = |pair: &str, count: usize| get(&vec![pair; count].join("&"));
    let both = hub(|_| {});
    check(
        &both.service(),
        vec![
            case("no query", format!("GET {HUB}"), "", 400, "missing \\\"match\\\" subscription parameter"),
            case("other names", get("x=y&last_event_id=a"), "", 400, "missing \\\"match\\\" subscription parameter"),
            case("an unknown type", get("match_regexp=a"), "", 400, "the parameter \\\"match_regexp\\\" is not a matcher"),
            case("beside a good one", get("match=a&match_=b"), "", 400, "\\\"match_\\\""),
            case("beside a topic", get("topic=a&matches=b"), "", 400, "\\\"matches\\\""),
            case("capitals", get("Match=a"), "", 400, "\\\"Match\\\""),
            case("all capitals", get("MATCH_EXACT=a"), "", 400, "\\\"MATCH_EXACT\\\""),
            case("hidden by encoding", get("%6Datchx=a"), "", 400, "\\\"matchx\\\""),
            case("not the prefix", get("topic=a&mathc=b&rematch=c"), "", 200, ""),
            case("LF", get("match=a%0Ab"), "", 400, "U+000A"),
            case("bidi", get("match=a%E2%80%AEb"), "", 400, "U+202E"),
            case("LF in a topic", get("topic=a%0Ab"), "", 400, "U+000A"),
            case("bad UTF-8", get("match=%FF"), "", 400, "the query is not valid UTF-8"),
            case("100 matchers", times("match=a", 100), "", 200, ""),
            case("101 matchers", times("match=a", 101), "", 400, "at most 100 topics"),
            case("1,000 topics", times("topic=a", 1_000), "", 200, ""),
            case("1,001 topics", times("topic=a", 1_001), "", 400, "at most 1000 topics"),
            case("both to the brim", times("topic=a", 1_000) + "&match=b", "", 200, ""),
            case("a pattern that is none", get("match_urlpattern=%7B"), "", 400, "the pattern of a subscription is none"),
            case("a catastrophic pattern", get("match_urlpattern=/((?:(?:a%2B)%2B)%2Bb)"), "", 200, ""),
            case("101 patterns", times("match_urlpattern=*", 101), "", 400, "at most 100 topics"),
            case("4,096 bytes", get(&format!("match={}&topic={0}", "x".repeat(4_096))), "", 200, ""),
            case("a pattern of 5,000 bytes", get(&format!("match_urlpattern={}", "x".repeat(5_000))), "", 400, "at most 4096 bytes"),
            case("a topic of 5,000 bytes", get(&format!("topic={}", "x".repeat(5_000))), "", 400, "at most 4096 bytes"),
            case("5,000 bytes", get(&format!("match={}", "x".repeat(5_000))), "", 400, "at most"),
            case("the reserved namespace may be asked for", get("match=%2F.well-known%2Fmercure%2Fx"), "", 200, ""),
            case("DELETE", format!("DELETE {HUB}"), "", 405, "GET, HEAD, POST, QUERY, OPTIONS"),
            case("a slash at the end", format!("GET {HUB}/?match=a"), "", 404, "not-found"),
        ],
    )
    .await;
    let eight = hub(|config| config.mercure_dialects = Dialects::Eight);
    check(
        &eight.service(),
        vec![
            case("topic", get("topic=a"), "", 400, "use `match`"),
            case("topic beside match", get("match=a&topic=a"), "", 400, "use `match`"),
            case("match", get("match=a"), "", 200, ""),
        ],
    )
    .await;
    let seven = hub(|config| config.mercure_dialects = Dialects::Seven);
    check(
        &seven.service(),
        vec![
            case("nothing", format!("GET {HUB}"), "", 400, "Missing \\\"topic\\\" parameter."),
            case("match", get("match=a&topic=a"), "", 400, "use `topic`"),
            case("topic", get("topic=a"), "", 200, ""),
        ],
    )
    .await;
    let off = hub(|config| config.mercure_dialects = Dialects::Off);
    check(&off.service(), vec![case("off", get("topic=a"), "", 404, "not-found"), case("off", POST, "topic=a", 404, "not-found")]).await;
}

/// M-37 ... M-49, M-323, M-409: the answer is the id, exactly, and what was sent arrives as it was meant.
#[tokio::test]
async fn publishing() {
    let hub = hub(|_| {});
    let answer = send(&hub.service(), request(POST, "topic=a&data=b&id=urn:x")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "M-313");
    assert_eq!(answer.text(), "urn:x", "M-49");
    let minted = publish(&hub, "topic=a").await;
    assert!(minted.starts_with('#') && minted.len() == 26, "M-44: {minted}");
    for (form, expected) in [
        ("topic=a&data=hello&id=e", "data: hello\nid: e\n\n"),
        ("topic=a&id=e", "data: \nid: e\n\n"),
        ("topic=a&id=e&data=1%0A2%0D3%0D%0A4", "data: 1\ndata: 2\ndata: 3\ndata: 4\nid: e\n\n"),
        ("topic=a&id=e&data=x%0Aid:+forged", "data: x\ndata: id: forged\nid: e\n\n"),
        ("topic=a&id=e&data=+x+%2B", "data:  x +\nid: e\n\n"),
        ("topic=a&id=e&type=t&retry=10&data=x", "event: t\nretry: 10\ndata: x\nid: e\n\n"),
        ("topic=a&id=e&retry=&type=&data=x", "data: x\nid: e\n\n"),
        ("data=1&data=2&id=e&id=f&type=t&type=u&retry=1&retry=2&topic=a", "event: t\nretry: 1\ndata: 1\nid: e\n\n"),
        ("topic=a&id=e&data=x&target=y&unknown[]=%F0%9F%98%80", "data: x\nid: e\n\n"),
        ("topic=a&id=e&data=100%&x=%zz;y", "data: 100%\nid: e\n\n"),
        ("topic=a&id=e&data=%E6%97%A5", "data: 日\nid: e\n\n"),
    ] {
        let mut stream = subscribe(&hub, "topic=a").await;
        assert_eq!(publish(&hub, form).await, "e", "{form}");
        let text = read_until(&mut stream.body, "\n\n").await;
        let (_, event) = text.split_once('\n').unwrap().1.split_once('\n').unwrap();
        assert_eq!(event, expected, "{form}");
    }
    // M-25, M-42: private by the name alone, and then for nobody without a grant.
    let mut stream = subscribe(&hub, "match=a").await;
    for private in ["private", "private=", "private=0", "private=false", "private=on"] {
        publish(&hub, &format!("topic=a&data=secret&{private}")).await;
    }
    publish(&hub, "topic=a&data=public").await;
    assert!(!read_until(&mut stream.body, "data: public\n").await.contains("secret"));
}

/// M-38 ... M-51, M-323, M-332: what is not published.
#[tokio::test]
async fn bad_publishes() {
    let hub = hub(|_| {});
    let long = |name: &str, len: usize| format!("topic=a&{name}={}", "x".repeat(len));
    let missing = "Missing \\\"topic\\\" parameter";
    check(
        &hub.service(),
        vec![
            case("nothing", POST, "", 400, missing),
            case("no topic", POST, "data=x", 400, missing),
            case("another type", format!("POST {HUB}\nContent-Type: application/json"), "{\"topic\":\"a\"}", 400, missing),
            case("no type", format!("POST {HUB}"), "topic=a", 400, missing),
            case("multipart", format!("POST {HUB}\nContent-Type: multipart/form-data; boundary=x"), "topic=a", 400, missing),
            case("an empty topic", POST, "topic=", 400, "a topic must not be empty"),
            case("the topic *", POST, "topic=*", 400, "`*` is not a topic"),
            case("an alternate *", POST, "topic=a&topic=*", 400, "`*` is not a topic"),
            case("LF in a topic", POST, "topic=a%0A", 400, "U+000A"),
            case("bidi in a topic", POST, "topic=%E2%80%AE", 400, "U+202E"),
            case("the reserved namespace", POST, "topic=/.well-known/mercure/subscriptions/x", 400, "belong to the hub"),
            case("the same elsewhere", POST, "topic=https://x.example/.well-known/%6Dercure", 400, "belong to the hub"),
            case("an id with #", POST, "topic=a&id=%23x", 400, "must not begin with `#`"),
            case("the id earliest", POST, "topic=a&id=earliest", 400, "must not be `earliest`"),
            case("NUL in an id", POST, "topic=a&id=%00", 400, "U+0000"),
            case("LF in a type", POST, "topic=a&type=a%0Ab", 400, "U+000A"),
            case("the reserved type", POST, "topic=a&type=mercure", 400, "belong to the hub"),
            case("a word as retry", POST, "topic=a&retry=soon", 400, "`retry` must be"),
            case("a signed retry", POST, "topic=a&retry=%2B1", 400, "`retry` must be"),
            case("data in bad UTF-8", POST, "topic=a&data=%FF", 400, "not valid UTF-8"),
            case("data in raw bad UTF-8", POST, &b"topic=a&data=\xff"[..], 400, "not valid UTF-8"),
            case("1,000 topics", POST, "topic=a&".repeat(1_000), 200, ""),
            case("1,001 topics", POST, "topic=a&".repeat(1_001), 413, "at most 1000 topics"),
            case("a long id", POST, long("id", limits::EVENT_ID + 1), 413, "at most 512 bytes"),
            case("a long topic", POST, long("topic", limits::TOPIC + 1), 413, "at most 2048 bytes"),
            case("a large body", POST, long("data", limits::MERCURE_BODY), 413, "at most 1048576 bytes"),
            case("M-309: topics before retry", POST, "topic=*&retry=x", 400, "`*` is not a topic"),
            case("M-309: retry before the rest", POST, "topic=a&retry=x&id=%23", 400, "`retry` must be"),
        ],
    )
    .await;
    assert!(hub.metrics().contains("tidings_events_total 1\n"), "only the good one");
}

/// M-86 ... M-92, M-211, M-403, M-404, S-18: what the response says of the cursor, in the names of the dialects that were used.
#[tokio::test]
async fn cursors() {
    let hub = hub(|_| {});
    let head = |answer: &Answer| {
        let (new, old) = (answer.header("mercure-last-event-id"), answer.header("last-event-id"));
        (new.map(str::to_owned), old.map(str::to_owned))
    };
    let both = |id: &str| (Some(id.to_owned()), Some(id.to_owned()));
    let new = |id: &str| (Some(id.to_owned()), None);
    for name in ["last_event_id=x", "last_event_id=earliest", "last_event_id"] {
        assert_eq!(head(&subscribe(&hub, &format!("match=a&{name}")).await), new("earliest"), "an empty history: {name}");
    }
    for n in 1..=3 {
        publish(&hub, &format!("topic=a&id=e{n}&data={n}")).await;
    }
    let table = [
        ("match=a", "", (None, None)),
        ("topic=a", "", (None, None)),
        ("match=a&last_event_id=e1", "", new("e1")),
        ("topic=a&lastEventID=e1", "", both("e1")),
        ("topic=a&last_event_id=e1", "", both("e1")),
        ("match=a&lastEventID=e1", "", both("e1")),
        ("match=a&Last-Event-ID=e1", "", both("e1")),
        ("topic=a&lastEventID=earliest&Last-Event-ID=earliest&lastEventId=e1", "", both("e1")),
        ("match=a&lastEventId=e1", "", new("e1")),
        ("match=a&last_event_id=e3", "\nLast-Event-ID: e1", new("e1")),
        ("topic=a", "\nLast-Event-ID: e1", both("e1")),
        ("topic=a&match=a", "\nLast-Event-ID: e1", both("e1")),
        ("match=a&last_event_id=e1", "\nLast-Event-ID:", new("e1")),
        ("match=a&last_event_id=earliest", "", new("earliest")),
        ("match=a&last_event_id=", "", new("earliest")),
        ("topic=a", "\nLast-Event-ID:", both("earliest")),
        ("match=a&last_event_id=unknown", "", new("earliest")),
        ("match=a&last_event_id=%2300000000-0000000000000001", "", new("earliest")),
    ];
    for (query, field, expected) in table {
        let mut answer = get(&hub.service(), &format!("GET {HUB}?{query}{field}")).await;
        assert_eq!(head(&answer), expected, "{query}{field}");
        let same = get(&hub.service(), &format!("HEAD {HUB}?{query}{field}")).await;
        assert_eq!((fields(&same), same.body.is_stream()), (fields(&answer), false), "M-311: HEAD {query}{field}");
        // What is sent: everything after the cursor, everything for `earliest`, and only what is new otherwise (M-407).
        publish(&hub, "topic=a&id=live&data=live").await;
        let text = read_until(&mut answer.body, "id: live\n").await;
        let first = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
        let expected = match expected.0.as_deref() {
            Some("e1") => "2",
            Some(_) if query.ends_with("=earliest") => "1",
            _ => "live",
        };
        assert_eq!(first, expected, "{query}{field}: {text}");
        assert!(!text.contains("tidings.gap"), "{text}");
    }
}

/// M-407, N-14: other settings for a place that is gone.
#[tokio::test]
async fn after_gap() {
    let hub = hub(|config| {
        config.mercure_after_gap = AfterGap::Replay;
        config.mercure_gap_event = true;
    });
    publish(&hub, "topic=a&id=e1&data=1").await;
    let mut answer = subscribe(&hub, "match=a&last_event_id=x").await;
    assert_eq!(answer.header("mercure-last-event-id"), Some("earliest"));
    let text = read_until(&mut answer.body, "id: e1\n").await;
    assert!(text.contains("event: tidings.gap\n") && text.contains(r#""reason":"unknown""#), "{text}");
}

/// M-130: topics are named to subscriptions by `match` where that is on.
#[tokio::test]
async fn topics_field() {
    let hub = hub(|config| config.mercure_topics_field = true);
    let mut streams = Vec::new();
    for query in ["match=a", "topic=b", "topic=b&match=c"] {
        streams.push((query, subscribe(&hub, query).await));
    }
    publish(&hub, "topic=a&topic=b&id=x&data=d").await;
    for (query, mut stream) in streams {
        let text = read_until(&mut stream.body, "id: x\n").await;
        assert_eq!(text.contains("topics: a\ntopics: b\ndata: d\n"), query.contains("match"), "{query}: {text}");
    }
}

/// One log: what is published here is received there, and the other way round.
#[tokio::test]
async fn one_log() {
    let hub = hub(|_| {});
    let mut native = get(&hub.service(), "GET /subscribe/a?prime=0").await;
    let mut stream = subscribe(&hub, "match=a").await;
    publish(&hub, "topic=a&id=1&data=x").await;
    hub.publish(Event::new("a", "y").unwrap().with_id("2").unwrap()).await.unwrap();
    for body in [&mut native.body, &mut stream.body] {
        let text = read_until(body, "id: 2\n").await;
        assert!(text.contains("data: x\nid: 1\n\ndata: y\nid: 2\n"), "{text}");
    }
    drop(stream);
    hub.shut_down(Duration::from_secs(10)).await;
    let refused = get(&hub.service(), &format!("GET {HUB}?topic=a")).await;
    assert!(refused.status == 200 && refused.text().starts_with(": busy\nretry: "), "N-16");
    while native.body.frame().await.is_some() {}
}
