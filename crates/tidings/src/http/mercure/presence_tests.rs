//! Presence over HTTP: what watchers are sent and what the subscription API answers, literally, in both dialects.

use super::tests::HUB;
use crate::{
    Algorithm, Config, Dialects, Hub, Issuer, KeySource, TokenKey,
    auth::SigningKey,
    http::{
        PeerAddr,
        tests::{Answer, get, hub, read_until, request, send},
    },
};
use serde_json::{Value, json};
use std::time::Duration;
use tidings_core::{Event, limits, presence::PATH};

const SECRET: &str = "the secret of subscribers, long enough";
const ISSUER: &str = "https://issuer.example";
const RESOURCE: &str = "https://hub.example/.well-known/mercure";

fn guarded(config: &mut Config) {
    let key = TokenKey { legacy: true, ..TokenKey::new(KeySource::Text(SECRET.into())) };
    config.issuers = vec![Issuer { keys: vec![key], ..Issuer::new(Some(ISSUER.into())) }];
    config.resource = Some(RESOURCE.into());
    config.anonymous = true;
    config.subscriptions = true;
}

fn mint(typ: &str, claims: &Value) -> String {
    let key = SigningKey::new(&SECRET.into(), Algorithm::Hs256).unwrap();
    let token = key.sign(json!({ "typ": typ }).as_object().unwrap().clone(), claims.as_object().unwrap()).unwrap();
    format!("\nAuthorization: Bearer {token}")
}

/// The field with a token of dialect 8 for these topics.
fn eight(topics: &Value, payload: &Value) -> String {
    let detail = json!({
        "type": "https://mercure.rocks/authorization-detail", "actions": ["subscribe"], "topics": topics, "payload": payload,
    });
    let claims = json!({
        "iss": ISSUER, "aud": RESOURCE, "exp": 4_102_444_800_u64, "iat": 0, "sub": "ada", "client_id": "app", "jti": "1",
        "authorization_details": [detail],
    });
    mint("at+jwt", &claims)
}

/// The same of dialect 7.
fn seven(selectors: &Value) -> String {
    mint("JWT", &json!({ "iss": ISSUER, "mercure": { "subscribe": selectors, "payload": { "user": 7 } } }))
}

async fn open(hub: &Hub, query: &str, field: &str) -> Answer {
    let mut answer = get(&hub.service(), &format!("GET {HUB}?{query}{field}")).await;
    assert_eq!(answer.status, 200, "{query}");
    read_until(&mut answer.body, ": ok\n").await;
    answer
}

/// The next event with this text, and the subscriber's name in it.
async fn event(watch: &mut Answer, part: &str) -> (String, String) {
    let mut text = String::new();
    loop {
        text += &read_until(&mut watch.body, "\n\n").await;
        if let Some(event) = text.split_inclusive("\n\n").find(|event| event.contains(part) && event.ends_with("\n\n")) {
            let at = event.find("urn:uuid:").expect("a subscriber");
            return (event[at..at + 45].to_owned(), event.to_owned());
        }
    }
}

async fn wait_listed(hub: &Hub, field: &str, count: usize) {
    let listed = async {
        loop {
            let answer = get(&hub.service(), &format!("GET {PATH}{field}")).await;
            let document: Value = serde_json::from_str(&answer.text()).unwrap();
            if document["subscriptions"].as_array().unwrap().len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listed).await.unwrap_or_else(|_| panic!("never {count} subscriptions"));
}

/// M-84, M-97 ... M-101, M-210, M-212, M-318, M-405: two watchers, each in its dialect, of subscriptions made in both.
#[tokio::test]
async fn events_in_both_dialects() {
    let hub = hub(guarded);
    let all = json!([{ "match": "*" }]);
    let mut newer = open(&hub, "match=*", &eight(&all, &Value::Null)).await;
    let mut older =
        open(&hub, "topic=%2F.well-known%2Fmercure%2Fsubscriptions%7B%2Ftopic%7D%7B%2Fsubscriber%7D", &seven(&json!(["*"]))).await;
    let topics = json!([{ "match": "https://example.com/a b" }]);
    let visitor = open(&hub, "match=https://example.com/a+b", &eight(&topics, &json!({ "user": 8 }))).await;

    let (who, text) = event(&mut newer, "a b").await;
    let (path, encoded) = (PATH, who.replace(':', "%3A"));
    let (body, id) = text.split_once("\nid: ").unwrap();
    assert_eq!(
        body,
        format!(
            "event: mercure\ndata: {{\"id\":\"{path}/exact/https%3A%2F%2Fexample.com%2Fa%20b/{encoded}\",\"type\":\"subscription\",\
             \"match_type\":\"exact\",\"match\":\"https://example.com/a b\",\"subscriber\":\"{who}\",\"active\":true,\
             \"payload\":{{\"user\":8}}}}"
        )
    );
    // The same event has the same id in both views. The selector does not match the topic of the newer one.
    let (_, text) = event(&mut older, "a b").await;
    assert_eq!(
        text,
        format!(
            "data: {{\"@context\":\"https://mercure.rocks/\",\"id\":\"{path}/https%3A%2F%2Fexample.com%2Fa%20b/{encoded}\",\
             \"type\":\"Subscription\",\"topic\":\"https://example.com/a b\",\"subscriber\":\"{who}\",\"active\":true,\
             \"payload\":{{\"user\":8}}}}\nid: {id}"
        )
    );
    drop(visitor);
    for watch in [&mut newer, &mut older] {
        let (gone, text) = event(watch, "\"active\":false").await;
        assert_eq!(text.contains("event:"), text.contains("match_type"));
        assert_eq!(gone, who);
    }
}

/// M-103, M-322, M-330, M-340, M-405, M-408: who may ask.
#[tokio::test]
async fn rights() {
    let hub = hub(guarded);
    let none = hub_without_subscribers();
    let narrow = eight(&json!([{ "match": format!("{PATH}/exact/a") }]), &Value::Null);
    let pattern = eight(&json!([{ "match": format!("{PATH}/exact/:match/:subscriber?"), "match_type": "urlpattern" }]), &Value::Null);
    let older = seven(&json!([format!("{PATH}{{/topic}}{{/subscriber}}")]));
    let nobody = "urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef";
    let one = &format!("/exact/a/{nobody}");
    let older_one = &format!("/a/{nobody}");
    for (of, path, field, status) in [
        (&hub, "", "", 401),
        (&hub, "/exact/a", "", 401),
        (&hub, "/exact/a", &narrow, 200),
        (&hub, "/exact/a?x=y", &narrow, 200),
        (&hub, "/exact/b", &narrow, 403),
        (&hub, "/exact/%61", &narrow, 403),
        (&hub, one, &narrow, 403),
        (&hub, "", &narrow, 403),
        (&hub, "/exact/a", &pattern, 200),
        (&hub, one, &pattern, 404),
        (&hub, "/a", &pattern, 403),
        (&hub, "", &pattern, 403),
        (&hub, "", &older, 200),
        (&hub, "/a", &older, 200),
        (&hub, older_one, &older, 404),
        (&hub, one, &older, 401),
        (&hub, "/a", &seven(&json!(["b"])), 401),
        (&hub, "/regexp/a/b", &narrow, 400),
        (&hub, "/", &older, 200),
        (&hub, "/exact/a/b/c", &older, 404),
        (&none, "", "", 403),
        (&none, "", "\nAuthorization: Bearer s3cret", 403),
    ] {
        let answer = get(&of.service(), &format!("GET {PATH}{path}{field}")).await;
        let got = answer.status;
        assert_eq!(got, status, "{path} {field}: {}", answer.text());
    }
    let open = self::hub(|config| config.subscriptions = true);
    for (address, status) in [("127.0.0.1:1", 200), ("[::ffff:127.0.0.1]:1", 200), ("192.0.2.1:1", 403)] {
        let mut near = request(&format!("GET {PATH}"), "");
        near.extensions_mut().insert(PeerAddr(address.parse().unwrap()));
        assert_eq!(send(&open.service(), near).await.status, status, "{address}");
    }
    let off = self::hub(|_| {});
    assert_eq!(get(&off.service(), &format!("GET {PATH}")).await.status, 404);
    let only_older = self::hub(|config| {
        guarded(config);
        config.mercure_dialects = Dialects::Seven;
    });
    let [newer, older] = [format!("GET {PATH}/exact/a{pattern}"), format!("GET {PATH}/a{older}")];
    assert_eq!((get(&only_older.service(), &newer).await.status, get(&only_older.service(), &older).await.status), (404, 200));
    assert_eq!(get(&hub.service(), &format!("POST {PATH}{pattern}")).await.status, 405);
}

fn hub_without_subscribers() -> Hub {
    hub(|config| {
        config.publish_keys = vec!["s3cret".into()];
        config.subscriptions = true;
    })
}

/// M-104 ... M-108, M-213, M-319, M-320, M-321, M-340: documents, fields, and requests whether something has changed.
#[tokio::test]
async fn documents() {
    let hub = hub(guarded);
    let (all, every) = (eight(&json!([{ "match": "*" }]), &Value::Null), seven(&json!(["*"])));
    let answer = get(&hub.service(), &format!("GET {PATH}{all}")).await;
    assert_eq!(
        answer.header("link").unwrap(),
        r#"</.well-known/mercure>; rel="mercure"; last-event-id="earliest"; type="mercure"; content-type="application/json""#
    );
    assert_eq!(answer.text(), format!("{{\"id\":\"{PATH}\",\"type\":\"subscriptions\",\"subscriptions\":[]}}"));

    let mut stream = open(&hub, "match=a+b&match=*", &all).await;
    let (who, _) = event(&mut stream, "a b").await;
    wait_listed(&hub, &all, 2).await;
    hub.publish(Event::new("x", "").unwrap().with_id("urn:\"1\"").unwrap()).await.unwrap();
    let encoded = who.replace(':', "%3A");
    let (newer, older) = (format!("{PATH}/exact/a%20b/{encoded}"), format!("{PATH}/a%20b/{encoded}"));
    let newer_members = format!(
        "\"id\":\"{newer}\",\"type\":\"subscription\",\"match_type\":\"exact\",\"match\":\"a b\",\"subscriber\":\"{who}\",\"active\":true,\
         \"payload\":null"
    );
    let older_members =
        format!("\"id\":\"{older}\",\"type\":\"Subscription\",\"topic\":\"a b\",\"subscriber\":\"{who}\",\"active\":true,\"payload\":null");
    let (context, last) = ("\"@context\":\"https://mercure.rocks/\"", "\"lastEventID\":\"urn:\\\"1\\\"\"");
    let older_collection =
        |id: &str| format!("{{{context},\"id\":\"{id}\",\"type\":\"Subscriptions\",{last},\"subscriptions\":[{{{older_members}}}]}}");
    let newer_list = format!("{PATH}/exact/a%20b");
    for (path, field, content_type, expected) in [
        (newer.clone(), &all, "application/json", format!("{{{newer_members}}}")),
        (
            newer_list.clone(),
            &all,
            "application/json",
            format!("{{\"id\":\"{newer_list}\",\"type\":\"subscriptions\",\"subscriptions\":[{{{newer_members}}}]}}"),
        ),
        (older.clone(), &every, "application/ld+json", format!("{{{context},{older_members},{last}}}")),
        (format!("{PATH}/a+b"), &every, "application/ld+json", older_collection(&format!("{PATH}/a+b"))),
        (format!("{PATH}/a%20b"), &all, "application/ld+json", older_collection(&format!("{PATH}/a%20b"))),
    ] {
        let answer = get(&hub.service(), &format!("GET {path}?x=y{field}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("etag"), Some("\"urn%3A%221%22\""));
        assert_eq!(answer.header("cache-control"), Some("private, no-cache, must-revalidate"));
        let link = answer.header("link").unwrap().to_owned();
        assert!(link.starts_with("</.well-known/mercure>; rel=\"mercure\"; last-event-id=\"urn:\\\"1\\\"\"; "), "{link}");
        assert_eq!(link.contains("type=\"mercure\""), content_type == "application/json");
        assert_eq!(answer.text(), expected);

        let known = get(&hub.service(), &format!("GET {path}{field}\nIf-None-Match: \"x\", W/\"urn%3A%221%22\"")).await;
        assert_eq!((known.status, known.header("etag"), known.header("link")), (304, Some("\"urn%3A%221%22\""), Some(&*link)));
        assert_eq!(known.text(), "");
        let head = get(&hub.service(), &format!("HEAD {path}{field}")).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*expected.len().to_string())));
    }
    // The collection of all is in the dialect of the token.
    for (field, content_type) in [(&all, "application/json"), (&every, "application/ld+json")] {
        assert_eq!(get(&hub.service(), &format!("GET {PATH}{field}")).await.header("content-type"), Some(content_type));
    }
    drop(stream);
    wait_listed(&hub, &all, 0).await;
    let gone = get(&hub.service(), &format!("GET {newer}{all}\nIf-None-Match: *")).await;
    assert!(gone.header("link").unwrap().contains("last-event-id=\"#"));
    assert_eq!(gone.status, 404);
}

/// M-106: more than one page, one after the other, complete.
#[tokio::test]
async fn pages() {
    let hub = hub(|config| {
        guarded(config);
        config.matchers = limits::MATCHERS_MAX;
    });
    let all = eight(&json!([{ "match": "*" }]), &Value::Null);
    let query: Vec<String> = (0..limits::PRESENCE_PAGE).map(|n| format!("match=t{n:04}")).collect();
    let _stream = open(&hub, &query.join("&"), "").await;
    wait_listed(&hub, &all, limits::PRESENCE_PAGE).await;
    let more = open(&hub, "match=t0000&match=%3F%26&match=zz", "").await;
    let matchers = wait_pages(&hub, &all, limits::PRESENCE_PAGE + 3).await;
    let mut expected: Vec<String> = (0..limits::PRESENCE_PAGE).map(|n| format!("t{n:04}")).collect();
    expected.extend(["t0000", "?&", "zz"].map(str::to_owned));
    expected.sort();
    assert_eq!(matchers, expected);
    drop(more);
    for bad in ["x", "%2Fexact%2Fa", "%2Fexact%2Fa%2Fme"] {
        assert_eq!(get(&hub.service(), &format!("GET {PATH}?after={bad}{all}")).await.status, 400, "{bad}");
    }
}

/// The matchers of all subscriptions, page by page, once there are so many.
async fn wait_pages(hub: &Hub, field: &str, count: usize) -> Vec<String> {
    let mut matchers = Vec::new();
    let mut path = PATH.to_owned();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while matchers.len() < count {
        assert!(std::time::Instant::now() < until, "never {count}: {matchers:?}");
        let answer = get(&hub.service(), &format!("GET {path}{field}")).await;
        assert_eq!(answer.status, 200, "{path}");
        let links: Vec<String> = answer.headers.get_all("link").iter().map(|link| link.to_str().unwrap().to_owned()).collect();
        let document: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(document["id"], PATH);
        matchers.extend(document["subscriptions"].as_array().unwrap().iter().map(|of| of["match"].as_str().unwrap().to_owned()));
        if let Some(next) = links.get(1) {
            path = next.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        } else if matchers.len() < count {
            // They are listed once they are in the log.
            (path, matchers) = (PATH.to_owned(), Vec::new());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    matchers
}
