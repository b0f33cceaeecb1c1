//! Tokens over HTTP (N-32, M-53 ... M-84): the literal status and challenge of everything that may be wrong with one, on the native routes
//! and on the Mercure path, and what a good one opens.
//!
//! It uses the library as an application does. Which rule refused is looked at where tokens are verified.

use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidings::{Algorithm, Config, Dialects, Hub, HubService, Issuer, KeySource, Secret, TokenKey, token::SigningKey};
use tower_service::Service as _;

const RESOURCE: &str = "https://hub.example/.well-known/mercure";
const ISSUER: &str = "https://issuer.example";
const PUBLISHER: &str = "the secret of publishers, long enough";
const SUBSCRIBER: &str = "the secret of subscribers, long enough";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn hub(change: impl FnOnce(&mut Config)) -> HubService {
    let key = |secret: &str, publish, subscribe| {
        let mut key = TokenKey::new(KeySource::Text(secret.into()));
        (key.publish, key.subscribe, key.legacy) = (publish, subscribe, true);
        key
    };
    let mut issuer = Issuer::new(Some(ISSUER.into()));
    issuer.keys = vec![key(PUBLISHER, true, false), key(SUBSCRIBER, false, true)];
    let mut config = Config::default();
    config.issuers = vec![issuer];
    config.resource = Some(RESOURCE.into());
    config.query_token = true;
    change(&mut config);
    Hub::builder().config(config).build().unwrap().service()
}

fn sign(secret: &str, header: &Value, claims: &Value) -> String {
    let key = SigningKey::new(&Secret::from(secret), Algorithm::Hs256).unwrap();
    key.sign(header.as_object().unwrap().clone(), claims.as_object().unwrap()).unwrap()
}

/// A token of dialect 8 for a role's topics, with some claims changed.
fn eight(secret: &str, action: &str, topics: &[&str], changes: &Value) -> String {
    let topics: Vec<Value> = topics.iter().map(|topic| json!({ "match": topic })).collect();
    let details = json!([{ "type": "https://mercure.rocks/authorization-detail", "actions": [action], "topics": topics }]);
    let mut claims = json!({ "iss": ISSUER, "aud": RESOURCE, "exp": now() + 60, "sub": "ada" });
    if !topics.is_empty() {
        claims["authorization_details"] = details;
    }
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    sign(secret, &json!({ "typ": "at+jwt" }), &claims)
}

fn seven(secret: &str, claim: &Value) -> String {
    sign(secret, &json!({ "typ": "JWT" }), &json!({ "mercure": claim }))
}

struct Answer {
    status: u16,
    challenge: Option<String>,
    body: tidings::ResponseBody,
}

/// A head as text, one field a line, and a body.
async fn send(service: &HubService, head: &str, body: &str) -> Answer {
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let response = service.clone().call(request.body(Full::<bytes::Bytes>::from(body.to_owned())).unwrap()).await.unwrap();
    let challenge = response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
    Answer { status: response.status().as_u16(), challenge, body: response.into_body() }
}

/// Reads a stream until a text has come.
async fn wait_for(body: &mut tidings::ResponseBody, text: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(text) {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it comes");
    seen
}

const INVALID: &str = "Bearer error=\"invalid_token\"";
const MALFORMED: &str = "Bearer error=\"invalid_request\"";
const INSUFFICIENT: &str = "Bearer error=\"insufficient_scope\"";

/// M-60 ... M-64, M-408, N-32: every refusal, for a publisher and for a reader, natively and on the Mercure path.
#[tokio::test]
async fn refusals() {
    let service = hub(|_| {});
    let huge = |n: usize| {
        let details =
            vec![json!({ "type": "https://mercure.rocks/authorization-detail", "actions": ["publish"], "topics": [{ "match": "a" }] }); n];
        eight(PUBLISHER, "publish", &[], &json!({ "authorization_details": details }))
    };
    let good = eight(PUBLISHER, "publish", &["a"], &json!({}));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let with = |header: Value| sign(PUBLISHER, &header, &json!({ "iss": ISSUER, "aud": RESOURCE, "exp": now() + 60 }));
    let bearer = |token: &str| format!("\nAuthorization: Bearer {token}");
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let changed = |changes: Value| bearer(&eight(PUBLISHER, "publish", &["a"], &changes));
    // What is presented; status and challenge natively, and on the Mercure path.
    type Seen = (u16, Option<&'static str>);
    let table: Vec<(&str, String, Seen, Seen)> = vec![
        ("good", bearer(&good), (200, None), (200, None)),
        ("nothing", String::new(), (401, Some("Bearer")), (401, Some("Bearer"))),
        ("another scheme", "\nAuthorization: Basic eDp5".into(), (401, Some("Bearer")), (400, Some(MALFORMED))),
        ("two fields", format!("{0}{0}", bearer(&good)), (400, Some(MALFORMED)), (400, Some(MALFORMED))),
        ("no token", "\nAuthorization: Bearer".into(), (400, Some(MALFORMED)), (400, Some(MALFORMED))),
        ("short", bearer("x.y.z"), (401, Some(INVALID)), (400, Some(MALFORMED))),
        ("no token at all", bearer(&"x".repeat(60)), (401, Some(INVALID)), (401, Some(INVALID))),
        ("huge", bearer(&"x".repeat(60_000)), (401, Some(INVALID)), (401, Some(INVALID))),
        ("no signature", bearer(&format!("{head}.")), (401, Some(INVALID)), (401, Some(INVALID))),
        ("half a signature", bearer(&format!("{head}.{}", &signature[..20])), (401, Some(INVALID)), (401, Some(INVALID))),
        ("alg none", bearer(&format!("{none}.{}.", head.split_once('.').unwrap().1)), (401, Some(INVALID)), (401, Some(INVALID))),
        ("a reader's key", bearer(&eight(SUBSCRIBER, "publish", &["a"], &json!({}))), (401, Some(INVALID)), (401, Some(INVALID))),
        ("expired", changed(json!({ "exp": now() })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("exp as text", changed(json!({ "exp": (now() + 60).to_string() })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("no exp", changed(json!({ "exp": null })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("future", changed(json!({ "nbf": now() + 60 })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("wrong issuer", changed(json!({ "iss": "https://other.example" })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("wrong audience", changed(json!({ "aud": "https://other.example" })), (401, Some(INVALID)), (401, Some(INVALID))),
        ("crit", bearer(&with(json!({ "typ": "at+jwt", "crit": ["exp"] }))), (401, Some(INVALID)), (401, Some(INVALID))),
        (
            "jwk and jku",
            bearer(&with(json!({ "typ": "at+jwt", "jku": "https://x.example", "jwk": {} }))),
            (403, Some(INSUFFICIENT)),
            (403, Some(INSUFFICIENT)),
        ),
        ("1,000 grants", bearer(&huge(1_000)), (401, Some(INVALID)), (401, Some(INVALID))),
        ("100 grants", bearer(&huge(100)), (200, None), (200, None)),
        (
            "bad details",
            changed(json!({ "authorization_details": [{ "type": "https://mercure.rocks/authorization-detail" }] })),
            (401, Some(INVALID)),
            (401, Some(INVALID)),
        ),
        ("no grant", bearer(&eight(PUBLISHER, "publish", &[], &json!({}))), (403, Some(INSUFFICIENT)), (403, Some(INSUFFICIENT))),
        ("another topic", bearer(&eight(PUBLISHER, "publish", &["b"], &json!({}))), (403, Some(INSUFFICIENT)), (403, Some(INSUFFICIENT))),
        ("dialect 7", bearer(&seven(PUBLISHER, &json!({ "publish": ["a"] }))), (200, None), (200, None)),
        ("dialect 7, no grant", bearer(&seven(PUBLISHER, &json!({}))), (403, Some(INSUFFICIENT)), (401, Some(INSUFFICIENT))),
        (
            "dialect 7, another topic",
            bearer(&seven(PUBLISHER, &json!({ "publish": ["b"] }))),
            (403, Some(INSUFFICIENT)),
            (401, Some(INSUFFICIENT)),
        ),
        ("dialect 7, a reader's key", bearer(&seven(SUBSCRIBER, &json!({ "publish": ["a"] }))), (401, Some(INVALID)), (401, Some(INVALID))),
        (
            "cookie",
            format!("\nHost: hub.example\nOrigin: https://hub.example\nCookie: mercureAuthorization={good}"),
            (200, None),
            (200, None),
        ),
        (
            "cookie of a stranger",
            format!("\nHost: hub.example\nOrigin: https://evil.example\nCookie: mercureAuthorization={good}"),
            (403, None),
            (403, None),
        ),
        ("cookie without origin", format!("\nCookie: mercureAuthorization={good}"), (400, Some(MALFORMED)), (400, Some(MALFORMED))),
        ("bad cookie beside a good field", format!("{}\nCookie: mercureAuthorization=x", bearer(&good)), (200, None), (200, None)),
    ];
    for (name, fields, native, mercure) in &table {
        let native_answer = send(&service, &format!("POST /publish/a{fields}"), "hello").await;
        assert_eq!((native_answer.status, native_answer.challenge.as_deref()), *native, "{name}, natively");
        let form = "\nContent-Type: application/x-www-form-urlencoded";
        let answer = send(&service, &format!("POST /.well-known/mercure{form}{fields}"), "topic=a").await;
        // The metadata of M-60 follows the challenge where the hub knows its URL; here it does not.
        assert_eq!((answer.status, answer.challenge.as_deref()), *mercure, "{name}, on the Mercure path");
    }
    let query = format!("POST /publish/a?authorization={good}");
    assert_eq!(send(&service, &query, "hello").await.status, 200);
    assert_eq!(send(&hub(|config| config.query_token = false), &query, "hello").await.status, 401, "M-406");
    assert_eq!(send(&service, &format!("{query}&authorization={good}"), "hello").await.status, 400);
}

/// M-68, M-401, M-402: a token of a dialect that is switched off is 401, though its key verifies tokens of both.
#[tokio::test]
async fn dialects_switched_off() {
    let token = |typ: Value| {
        // The claims are good in both dialects, so that the type alone decides.
        let details = json!([{ "type": "https://mercure.rocks/authorization-detail", "actions": ["publish", "subscribe"], "topics": [{ "match": "a" }] }]);
        let mut claims = json!({ "iss": ISSUER, "aud": RESOURCE, "exp": now() + 60, "authorization_details": details });
        claims["mercure"] = json!({ "publish": ["a"], "subscribe": ["a"] });
        let mut header = json!({});
        if typ != Value::Null {
            header["typ"] = typ;
        }
        move |secret: &str| sign(secret, &header, &claims)
    };
    for (dialects, good, bad, parameter) in [
        (
            Dialects::Eight,
            &[json!("at+jwt"), json!("application/AT+JWT")][..],
            &[json!("JWT"), json!(""), json!("at+jwtx"), Value::Null][..],
            "match",
        ),
        (Dialects::Seven, &[json!("JWT"), Value::Null], &[json!("at+jwt"), json!("application/AT+JWT")], "topic"),
    ] {
        let service = hub(|config| config.mercure_dialects = dialects);
        let expected: [(&[Value], _); 2] = [(good, (200, None)), (bad, (401, Some(INVALID)))];
        for (typ, expected) in expected.iter().flat_map(|(types, expected)| types.iter().map(move |typ| (typ, *expected))) {
            let (publisher, subscriber) = (token(typ.clone())(PUBLISHER), token(typ.clone())(SUBSCRIBER));
            let form = "POST /.well-known/mercure\nContent-Type: application/x-www-form-urlencoded";
            for (head, token) in [
                ("POST /publish/a", &publisher),
                (form, &publisher),
                ("GET /subscribe/a", &subscriber),
                (&format!("GET /.well-known/mercure?{parameter}=a"), &subscriber),
            ] {
                let answer = send(&service, &format!("{head}\nAuthorization: Bearer {token}"), "topic=a").await;
                assert_eq!((answer.status, answer.challenge.as_deref()), expected, "{dialects:?} {typ} {head}");
            }
        }
    }
}

/// M-328, M-329, N-32: what a reader needs, and that a bad token is never treated as none.
#[tokio::test]
async fn readers() {
    let (closed, anonymous) = (hub(|_| {}), hub(|config| config.anonymous = true));
    let valid = eight(SUBSCRIBER, "subscribe", &[], &json!({}));
    let publisher = eight(PUBLISHER, "publish", &["a"], &json!({}));
    for (service, token, expected) in [
        (&closed, None, (401, Some("Bearer"))),
        (&anonymous, None, (200, None)),
        (&closed, Some(&valid), (200, None)),
        (&anonymous, Some(&valid), (200, None)),
        (&closed, Some(&publisher), (401, Some(INVALID))),
        (&anonymous, Some(&publisher), (401, Some(INVALID))),
    ] {
        let field = token.map(|token| format!("\nAuthorization: Bearer {token}")).unwrap_or_default();
        for path in ["/subscribe/a", "/subscribe?topic=a", "/.well-known/mercure?match=a"] {
            let answer = send(service, &format!("GET {path}{field}"), "").await;
            assert_eq!((answer.status, answer.challenge.as_deref()), expected, "{path} {token:?}");
        }
    }
}

/// M-25, M-81, M-88, N-32: private events reach only readers whose token grants one of their topics, live and replayed.
#[tokio::test]
async fn private_events() {
    let service = hub(|_| {});
    let publisher = eight(PUBLISHER, "publish", &["*"], &json!({}));
    let publish = async |target: &str| {
        let head = format!("POST {target}\nAuthorization: Bearer {publisher}");
        assert_eq!(send(&service, &head, target).await.status, 200);
    };
    publish("/publish/a/1?private").await;
    publish("/publish/a/2?private").await;
    let token = |topics: &[&str]| eight(SUBSCRIBER, "subscribe", topics, &json!({}));
    let subscribe = async |token: &str| {
        let head = format!("GET /subscribe/a?last_event_id=earliest\nAuthorization: Bearer {token}");
        send(&service, &head, "").await.body
    };
    let (mut one, mut all, mut none) = (subscribe(&token(&["a/1"])).await, subscribe(&token(&["*"])).await, subscribe(&token(&[])).await);
    publish("/publish/a/3?private").await;
    publish("/publish/a/2?private&topic=a/1").await;
    publish("/publish/a/end").await;
    let private = ["/publish/a/1?private\n", "/publish/a/2?private\n", "/publish/a/3?private\n", "/publish/a/2?private&topic=a/1\n"];
    for (body, expected) in [(&mut one, [true, false, false, true]), (&mut all, [true; 4]), (&mut none, [false; 4])] {
        let seen = wait_for(body, "data: /publish/a/end\n").await;
        assert_eq!(private.map(|event| seen.contains(&format!("data: {event}"))), expected, "{seen}");
    }
}

/// M-72, M-82: a stream ends with its token. That it is never later is the simulation's to show, which has a clock of its own.
#[tokio::test]
async fn streams_end_with_their_token() {
    let service = hub(|_| {});
    let token = eight(SUBSCRIBER, "subscribe", &["*"], &json!({ "exp": now() + 2 }));
    let mut answer = send(&service, &format!("GET /subscribe/a\nAuthorization: Bearer {token}"), "").await;
    assert_eq!(answer.status, 200);
    let to_the_end = async {
        while let Some(frame) = answer.body.frame().await {
            frame.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), to_the_end).await.expect("the stream ends");
}

/// M-70, M-73: what a hub does not start with, said by the setting's name.
#[tokio::test]
async fn refuses_to_start() {
    let start = |change: fn(&mut Config)| {
        let mut config = Config::default();
        let mut issuer = Issuer::new(Some(ISSUER.into()));
        issuer.keys = vec![TokenKey::new(KeySource::Text(PUBLISHER.into()))];
        config.issuers = vec![issuer];
        config.resource = Some(RESOURCE.into());
        change(&mut config);
        Hub::builder().config(config).build().map_or_else(|error| error.to_string(), |_| "it starts".into())
    };
    assert_eq!(start(|_| {}), "it starts");
    assert_eq!(
        start(|config| config.resource = None),
        "setting `public_url`: tokens are for one hub, so it must know its own name: set the URL under which the public reaches it, \
         or `resource`"
    );
    assert_eq!(
        start(|config| config.issuers[0].keys[0].source = KeySource::Text("short".into())),
        "setting `issuers`: a key of the issuer \"https://issuer.example\": a secret has at least 32 bytes, this one has 5; \
         make one with `openssl rand -base64 48`"
    );
}

/// M-23, M-79, N-40: what the patterns of a connection take together is bounded: too many in a token make it invalid, too many in a request,
/// or in both together, make that a bad one.
#[tokio::test]
async fn compiled_patterns() {
    let service = hub(|_| {});
    // About 18 kB each, so thirty are under half of the bound.
    let pattern = |n: usize| format!("/{n}/((?:a|b)*a(?:a|b){{7}})");
    let token = |n: usize| {
        let topics: Vec<Value> = (0..n).map(|n| json!({ "match": pattern(n), "match_type": "urlpattern" })).collect();
        let details = json!([{ "type": "https://mercure.rocks/authorization-detail", "actions": ["subscribe"], "topics": topics }]);
        eight(SUBSCRIBER, "subscribe", &[], &json!({ "authorization_details": details }))
    };
    let asked =
        |n: usize| (0..n).map(|n| format!("&match_urlpattern={}", pattern(100 + n))).collect::<Vec<_>>().concat().replace('+', "%2B");
    for (in_token, in_request, status, challenge) in [
        (1, 30, 200, None),
        (30, 1, 200, None),
        (1, 70, 400, None),
        (30, 70, 400, None),
        (40, 40, 400, None),
        (70, 1, 401, Some(INVALID)),
        (40, 1, 200, None),
        (1, 40, 200, None),
    ] {
        let head = format!("GET /.well-known/mercure?{}\nAuthorization: Bearer {}", asked(in_request), token(in_token));
        let mut answer = send(&service, &head, "").await;
        assert_eq!((answer.status, answer.challenge.as_deref()), (status, challenge), "{in_token} and {in_request}");
        if status == 400 {
            let text = wait_for(&mut answer.body, "}").await;
            assert!(text.contains("may take at most 1048576 bytes when compiled"), "{text}");
        }
    }
    // Templates count too, and so does a body (M-16).
    let templates = |n: usize| vec![format!("topic={}", "{a}b".repeat(1_000)); n].join("&");
    for (n, status) in [(20, 200), (200, 400)] {
        let head = "QUERY /.well-known/mercure\nContent-Type: application/x-www-form-urlencoded\nAuthorization: Bearer ";
        let answer = send(&service, &format!("{head}{}", token(1)), &templates(n)).await;
        assert_eq!(answer.status, status, "{n} templates");
    }
}
