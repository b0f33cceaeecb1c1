//! Presence events of both dialects: what is published when a subscription starts or ends, and who sees it.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed,
};
use crate::{
    probe::{Outcome, Probe, Stream, Verdict, bearer, describe, encoded, expect, form, legacy_token, skipped},
    settings::Role,
    stream::Event,
    token::DETAIL_TYPE,
};
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[97, 98, 100, 101, 6], "a subscription that starts and ends is told, with its document", told),
    must(Seven, &[212, 97], "a subscription that starts and ends is told as JSON-LD, with the default event", told),
    must(Each, &[98, 319], "what is subscribed to is encoded once, as a whole, in the topic", encoding),
    must(Each, &[99, 304], "the subscriber's name is the hub's, unique, and shared by the connection's subscriptions", names),
    must(Each, &[101, 212], "presence is private: without a grant nobody sees it", private),
    must(Eight, &[84], "the payload is of the first entry whose matchers accept the matcher", payloads),
    observed(Seven, &[210], "mercure.payload is attached to every subscription", payload_claim),
    observed(Each, &[318], "once the end is told, the subscription is gone", end_comes_after),
    observed(Each, &[317, 112], "presence documents are JSON, over however many lines", is_json),
];

/// Skips unless presence is switched on.
pub(super) fn on(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.presence { Ok(()) } else { skipped("presence is switched off") }
}

/// The path of one matcher's subscriptions, as this dialect names it.
pub(super) fn path(p: &Probe<'_>, kind: &str, matcher: &str) -> String {
    let kind = if p.is_eight() { format!("{kind}/") } else { String::new() };
    p.hub.below(&format!("subscriptions/{kind}{}", encoded(matcher)))
}

/// Somebody who watches the subscriptions of one matcher, and may.
pub(super) fn watch<'p>(p: &'p Probe<'p>, kind: &str, matcher: &str) -> Result<Stream<'p>, Verdict> {
    on(p)?;
    let below = path(p, kind, matcher);
    let (query, token) = if p.is_eight() {
        let pattern = format!("{below}/:subscriber");
        let topics = json!([{"match": pattern, "match_type": "urlpattern"}]);
        let details = json!([{"type": DETAIL_TYPE, "actions": ["subscribe"], "topics": topics}]);
        (form(&[("match_urlpattern", &pattern)]), p.access_token(details))
    } else {
        let template = format!("{below}/{{subscriber}}");
        (form(&[("topic", &template)]), legacy_token(json!({"subscribe": [template]})))
    };
    p.open(bearer(p.get(&query), &token.signed(p.key(Role::Subscribe))))
}

/// The document of an event.
pub(super) fn document(event: &Event) -> Result<Value, Verdict> {
    serde_json::from_str(&event.data)
        .or_else(|error| crate::probe::failed("a JSON document", format!("{error}\n{}", event.lines.join("\n"))))
}

/// The document says what it has to of a subscription.
pub(super) fn says(p: &Probe<'_>, document: &Value, kind: &str, matcher: &str, active: Option<bool>) -> Outcome {
    let subscriber = document["subscriber"].as_str().unwrap_or_default();
    let id = format!("{}/{}", path(p, kind, matcher), encoded(subscriber));
    let mut wanted = if p.is_eight() {
        json!({"id": id, "type": "subscription", "match_type": kind, "match": matcher})
    } else {
        json!({"@context": "https://mercure.rocks/", "id": id, "type": "Subscription", "topic": matcher})
    };
    if let Some(active) = active {
        wanted["active"] = json!(active);
    }
    // An item of a collection need not repeat the context.
    let members = wanted.as_object().expect("an object").iter().filter(|(name, _)| *name != "@context" || active.is_some());
    let all = !subscriber.is_empty() && members.into_iter().all(|(name, value)| document[name] == *value);
    expect(all, format!("at least the members {wanted} and a subscriber"), document)
}

fn told(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut watcher = watch(p, "exact", &topic)?;
    let stream = p.subscribe(&[&topic], &[])?;
    let started = watcher.event()?;
    stream.close();
    let ended = watcher.event()?;
    for (event, active) in [(&started, true), (&ended, false)] {
        let kind = if p.is_eight() { Some("mercure") } else { None };
        expect(event.kind.as_deref() == kind, format!("the event {kind:?}"), event.lines.join("\n"))?;
        expect(event.id.as_ref().is_some_and(|id| !id.is_empty()), "an id", event.lines.join("\n"))?;
        says(p, &document(event)?, "exact", &topic, Some(active))?;
    }
    let (first, last) = (document(&started)?, document(&ended)?);
    expect(first["subscriber"] == last["subscriber"] && first["id"] == last["id"], first, last)
}

fn encoding(p: &Probe<'_>) -> Outcome {
    for odd in ["a b/c", "100%", "x%20y", "é", "a+b&c=d", "https://x.example/{id}"] {
        let topic = p.unique(odd);
        let mut watcher = watch(p, "exact", &topic)?;
        let _stream = p.subscribe(&[&topic], &[])?;
        let event = watcher.event()?;
        let document = document(&event)?;
        // [C0] writes a space as a plus sign.
        let told = if p.is_eight() { document["match"].as_str() } else { document["topic"].as_str() };
        expect(told == Some(&topic), format!("the matcher {topic:?}"), &document)?;
        let id = document["id"].as_str().unwrap_or_default();
        let part = if p.is_eight() { encoded(&topic) } else { encoded(&topic).replace("%20", if id.contains('+') { "+" } else { "%20" }) };
        expect(id.contains(&format!("/{part}/")), format!("{part} in the id"), id)?;
    }
    Ok(())
}

fn names(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let (mut of_a, mut of_b) = (watch(p, "exact", &a)?, watch(p, "exact", &b)?);
    let query = format!("{}&subscriber=me", p.select(&[&a, &b]));
    let _first = p.subscribe_query(&query, &[])?;
    let _second = p.subscribe_query(&query, &[])?;
    let of = |stream: &mut Stream<'_>| Ok::<_, Verdict>(document(&stream.event()?)?["subscriber"].clone());
    let (a1, a2) = (of(&mut of_a)?, of(&mut of_a)?);
    let (b1, b2) = (of(&mut of_b)?, of(&mut of_b)?);
    expect(a1 != a2, "another name for each connection", &a1)?;
    expect(a1 == b1 && a2 == b2, "one name for all subscriptions of a connection", format!("{a1} {a2} {b1} {b2}"))?;
    expect(a1 != json!("me") && a1 != json!("conformance"), "no name that the client chose", a1)
}

fn private(p: &Probe<'_>) -> Outcome {
    on(p)?;
    let topic = p.topic("a");
    let marker = p.topic("marker");
    let below = path(p, "exact", &topic);
    let query = if p.is_eight() {
        form(&[("match_urlpattern", &format!("{below}/:subscriber")), ("match", &marker)])
    } else {
        form(&[("topic", &format!("{below}/{{subscriber}}")), ("topic", &marker)])
    };
    let mut outsider = p.subscribe_query(&query, &[&topic])?;
    let mut insider = watch(p, "exact", &topic)?;
    p.subscribe(&[&topic], &[])?.close();
    insider.event()?;
    insider.event()?;
    let id = p.published(&[("topic", &marker), ("data", "x")])?;
    outsider.next_is(&id, "nothing of presence without a grant for it").map(drop)
}

fn payloads(p: &Probe<'_>) -> Outcome {
    let [a, b, other] = ["a", "b/1", "c"].map(|name| p.topic(name));
    let entry =
        |matcher: Value, payload: Value| json!({"type": DETAIL_TYPE, "actions": ["subscribe"], "topics": [matcher], "payload": payload});
    let details = json!([
        {"type": DETAIL_TYPE, "actions": ["publish"], "topics": [{"match": "*"}], "payload": {"of": "a publisher"}},
        entry(json!({"match": a}), json!({"of": "a"})),
        entry(json!({"match": p.topic("b/:id"), "match_type": "urlpattern"}), json!({"of": "b"})),
        entry(json!({"match": a}), json!({"of": "a again"})),
        entry(json!({"match": "*"}), json!({"of": "anything"})),
    ]);
    let token = p.access_token(details).signed(p.key(Role::Subscribe));
    let mut watchers = [watch(p, "exact", &a)?, watch(p, "exact", &b)?, watch(p, "exact", &other)?];
    let _stream = p.open(bearer(p.get(&p.select(&[&a, &b, &other])), &token))?;
    for (watcher, of) in watchers.iter_mut().zip(["a", "b", "anything"]) {
        let document = document(&watcher.event()?)?;
        expect(document["payload"] == json!({"of": of}), format!("the payload of {of}"), &document)?;
    }
    // Without any payload there is no such member.
    let plain = p.topic("d");
    let mut watcher = watch(p, "exact", &plain)?;
    let _plain = p.subscribe(&[&plain], &["*"])?;
    let document = document(&watcher.event()?)?;
    expect(document.get("payload").is_none(), "no member payload", &document)
}

fn payload_claim(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    for payload in [json!({"user": "é", "n": [1]}), json!("text"), json!(7)] {
        let mut watchers = [watch(p, "exact", &a)?, watch(p, "exact", &b)?];
        let token = legacy_token(json!({"subscribe": [], "payload": payload})).signed(p.key(Role::Subscribe));
        let stream = p.open(bearer(p.get(&p.select(&[&a, &b])), &token))?;
        for watcher in &mut watchers {
            let document = document(&watcher.event()?)?;
            expect(document["payload"] == payload, format!("the payload {payload}"), &document)?;
        }
        stream.close();
        for watcher in &mut watchers {
            watcher.event()?;
        }
    }
    Ok(())
}

fn end_comes_after(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut watcher = watch(p, "exact", &topic)?;
    p.subscribe(&[&topic], &[])?.close();
    let started = document(&watcher.event()?)?;
    watcher.event()?;
    let id = started["id"].as_str().unwrap_or_default().to_owned();
    let answer = p.send(bearer(crate::http::Request::new("GET", &id), &p.subscriber(&["*"])))?;
    let gone = answer.status() == 404 || serde_json::from_str::<Value>(&answer.text()).is_ok_and(|document| document["active"] == false);
    expect(gone, "404, or active: false", describe(&answer))
}

fn is_json(p: &Probe<'_>) -> Outcome {
    let topic = p.unique("a\"b\\c");
    let mut watcher = watch(p, "exact", &topic)?;
    let _stream = p.subscribe(&[&topic], &[])?;
    says(p, &document(&watcher.event()?)?, "exact", &topic, Some(true))
}
