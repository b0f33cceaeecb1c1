//! Ids that tell nothing of their order (M-95): everywhere an id is shown, every way back by one, and a log from before they were asked for.
//!
//! It uses the library as an application does. The permutation itself is looked at in the core.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use std::{sync::Arc, time::Duration};
use tidings::{
    Config, DiskOptions, DiskStore, Event, EventStore, EventStream, Grant, Hub, HubService, IdempotencyKey, Message, Position,
    Subscription, TopicMatcher,
};
use tower_service::Service as _;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn hub(store: Option<Arc<dyn EventStore>>, secret: Option<&str>) -> Hub {
    let mut config = Config::default();
    config.opaque_ids = secret.map(Into::into);
    config.subscriptions = true;
    config.public_url = Some("https://hub.example".into());
    let builder = Hub::builder().config(config);
    match store {
        Some(store) => builder.store(store),
        None => builder,
    }
    .build()
    .unwrap()
}

async fn publish(hub: &Hub, data: &str) -> String {
    hub.publish(Event::new("a", data).unwrap()).await.unwrap().to_string()
}

fn after(id: &str) -> Subscription {
    Subscription::new(TopicMatcher::prefix("a").unwrap()).after(id)
}

async fn next(stream: &mut EventStream) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(10), stream.next());
    next.await.expect("an event within ten seconds").expect("the stream goes on").expect("the stream is whole")
}

/// The head and the first bytes of an answer, up to a text.
async fn ask(service: &HubService, target: &str, until: &str) -> (http::HeaderMap, String) {
    let request = Request::builder().uri(target).header("host", "hub.example").body(Full::<bytes::Bytes>::default()).unwrap();
    let (head, mut body) = service.clone().call(request).await.unwrap().into_parts();
    let mut text = String::new();
    let reading = async {
        while !text.contains(until) {
            let Some(frame) = body.frame().await else { break };
            text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it comes");
    (head.headers, text)
}

/// M-95, S-17: where ids are shown, literally; none has a number that could be counted.
#[tokio::test]
async fn shown_everywhere() {
    let hub = hub(None, Some(SECRET));
    let mut ids = Vec::new();
    for n in 1..=20 {
        ids.push(publish(&hub, &n.to_string()).await);
    }
    let epoch = &ids[0][..9];
    for id in &ids {
        assert!(id.len() == Position::ID_LEN && id.starts_with(epoch) && id.as_bytes()[9] == b'_' && Position::parse(id).is_none(), "{id}");
    }
    let mut sorted = ids.clone();
    sorted.sort();
    sorted.dedup();
    assert!(sorted.len() == 20 && sorted != ids, "they are different, and in no order: {ids:?}");

    let service = hub.service();
    let encoded = |id: &str| id.replace('#', "%23");
    let (head, text) = ask(&service, &format!("/subscribe/a?last_event_id={}", encoded(&ids[17])), &ids[19]).await;
    assert_eq!(head["mercure-last-event-id"], ids[17]);
    assert!(text.ends_with(&format!("data: 19\nid: {}\n\ndata: 20\nid: {}\n\n", ids[18], ids[19])), "{text}");
    // The place without an event of its own (N-13a), and the places that a gap names (N-14).
    let (_, primed) = ask(&service, "/subscribe/a", "\n\n").await;
    assert!(primed.ends_with(&format!("\nid: {}\n\n", ids[19])), "{primed}");
    let (head, text) = ask(&service, "/subscribe/a?last_event_id=unknown", "data: 1\n").await;
    assert_eq!(head["mercure-last-event-id"], "earliest");
    assert!(text.contains(&format!("\"earliest\":\"{}\"", ids[0])) && text.contains(&format!("}}\nid: {epoch}_")), "{text}");
    // Without `#`, on the Mercure path in either dialect, and as the newest of a topic (N-20).
    let bare = &ids[18][1..];
    for query in [format!("match=a&last_event_id={bare}"), format!("topic=a&lastEventID={bare}")] {
        let (head, text) = ask(&service, &format!("/.well-known/mercure?{query}"), &ids[19]).await;
        assert_eq!(head["mercure-last-event-id"], ids[18]);
        assert!(text.ends_with(&format!("data: 20\nid: {}\n\n", ids[19])), "{text}");
    }
    let (_, text) = ask(&service, "/topics/a", "}").await;
    assert!(text.contains(&ids[19]), "{text}");
    // What was published once is answered with the ids of the first time (N-6).
    let key = IdempotencyKey::new("key").unwrap();
    let publisher = hub.with(Grant::full());
    let once = async || publisher.publish_once(&key, vec![Event::new("a", "once").unwrap()]).await.unwrap();
    let first = once().await;
    assert_eq!((first[0].as_str().get(..10), once().await), (Some(&*format!("{epoch}_")), first.clone()));
}

/// M-92, M-95: a plain id, one of another secret and one that was made up are unknown, so nobody finds out how far the log has come.
#[tokio::test]
async fn other_ids_are_unknown() {
    let (here, other) = (hub(None, Some(SECRET)), hub(None, Some("another secret of more than thirty-two bytes")));
    let first = publish(&here, "1").await;
    publish(&here, "2").await;
    let elsewhere = publish(&other, "1").await;
    let epoch = &first[..9];
    for id in [format!("{epoch}-0000000000000001"), format!("{epoch}-00000000000000ff"), format!("{epoch}_0000000000000001"), elsewhere] {
        let mut stream = here.subscribe(after(&id)).await.unwrap();
        let gap = next(&mut stream).await;
        assert_eq!(gap.event_type, "tidings.gap", "{id}");
        assert_eq!(next(&mut stream).await.data, "1");
    }
    let mut config = Config::default();
    config.opaque_ids = Some("short".into());
    assert!(Hub::builder().config(config).build().unwrap_err().to_string().contains("`opaque_ids`"));
}

/// M-95, S-20: the ids of a log on disk hold across restarts, and those that were plain when they were written still are, for whoever has them.
#[tokio::test]
async fn across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let store = || Some(Arc::new(DiskStore::open(directory.path(), DiskOptions::default()).unwrap()) as Arc<dyn EventStore>);
    let before = hub(store(), None);
    let (plain, last_plain) = (publish(&before, "1").await, publish(&before, "2").await);
    before.shut_down(Duration::from_secs(5)).await;
    drop(before);
    let mut known = Vec::new();
    for run in 0..2 {
        let hub = hub(store(), Some(SECRET));
        known.push(publish(&hub, &format!("run {run}")).await);
        let mut stream = hub.subscribe(after(&plain)).await.unwrap();
        assert_eq!((next(&mut stream).await.id, next(&mut stream).await.id), (last_plain.clone(), known[0].clone()));
        let mut stream = hub.subscribe(after(&last_plain)).await.unwrap();
        assert_eq!(next(&mut stream).await.id, known[0]);
        if run == 1 {
            let mut stream = hub.subscribe(after(&known[0])).await.unwrap();
            assert_eq!(next(&mut stream).await.id, known[1]);
        }
        // The place of an event that never had a plain id.
        let hidden = format!("{}{:016x}", &plain[..10], u64::from_str_radix(&last_plain[10..], 16).unwrap() + 1);
        assert_eq!(next(&mut hub.subscribe(after(&hidden)).await.unwrap()).await.event_type, "tidings.gap", "{hidden}");
        hub.shut_down(Duration::from_secs(5)).await;
    }
}
