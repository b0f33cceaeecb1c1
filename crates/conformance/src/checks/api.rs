//! The subscription API: documents, collections, who may ask, conditional requests.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed, ours, presence, should,
};
use crate::{
    http::{Answer, Request},
    probe::{Outcome, Probe, Verdict, bearer, describe, encoded, expect, failed},
    settings::Role,
};
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    should(Eight, &[102], "the API is there", exists),
    must(Eight, &[104, 105, 106], "items and collections are JSON documents", documents),
    must(Seven, &[213], "items and collections are JSON-LD documents with lastEventID", documents),
    must(Eight, &[103, 62], "the grant has to match the path that is asked for: else 403", granted_path),
    must(Seven, &[213], "mercure.subscribe has to match the URL that is asked for", granted_path),
    must(Each, &[103, 330], "without a token it is 401, anonymous subscribers or not", without_token),
    must(Each, &[105, 213], "what is not there is 404", unknown),
    must(Each, &[105, 106], "an ended subscription is 404 or inactive", ended),
    must(Eight, &[107], "every answer links the hub with the last event's id", link),
    should(Eight, &[107], "the link says type and content-type", link_attributes),
    observed(Each, &[108, 320], "an ETag that is sent back is 304", conditional),
    observed(Eight, &[321, 106], "a collection's id is the path that was asked for", collection_id),
    ours(Eight, &[340], "the query does not count for authorisation, and HEAD is answered", path_only),
    ours(Eight, &[340, 108], "conditional requests as RFC 9110 compares: weak tags, lists, *", weak_tags),
    ours(Eight, &[406, 321], "a collection's id is the path without the query", collection_id_without_query),
    ours(Each, &[410], "the last event's id of the API is a cursor", link_is_cursor),
];

fn ask(p: &Probe<'_>, path: &str) -> Result<Answer, Verdict> {
    presence::on(p)?;
    p.send(bearer(Request::new("GET", path).header("Connection", "close"), &p.subscriber(&["*"])))
}

fn json_of(answer: &Answer) -> Result<Value, Verdict> {
    serde_json::from_str(&answer.text()).or_else(|error| failed("a JSON document", format!("{error}\n{}", describe(answer))))
}

fn collection(p: &Probe<'_>) -> String {
    p.hub.below("subscriptions")
}

/// The path of the one subscription to this topic, once the hub shows it.
fn item(p: &Probe<'_>, topic: &str) -> Result<String, Verdict> {
    let path = presence::path(p, "exact", topic);
    p.wait_until("the subscription in the collection of its matcher", || {
        let listed = json_of(&ask(p, &path)?)?;
        Ok(listed["subscriptions"][0]["subscriber"].as_str().map(|subscriber| format!("{path}/{}", encoded(subscriber))))
    })
}

fn exists(p: &Probe<'_>) -> Outcome {
    let answer = ask(p, &collection(p))?;
    expect(answer.status() == 200, "200", describe(&answer))
}

fn documents(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let topic = p.topic("a b/é");
    let _stream = p.subscribe(&[&topic], &[])?;
    let item = item(p, &topic)?;
    let kind = if p.is_eight() { "application/json" } else { "application/ld+json" };
    let is_kind = |answer: &Answer| answer.field("content-type").is_some_and(|own| own.split(';').next() == Some(kind));
    let answer = ask(p, &item)?;
    expect(answer.status() == 200 && is_kind(&answer), format!("200 and {kind}"), describe(&answer))?;
    let document = json_of(&answer)?;
    presence::says(p, &document, "exact", &topic, Some(true))?;
    expect(document["id"] == item, &item, &document)?;
    if !p.is_eight() {
        expect(document["lastEventID"].is_string(), "lastEventID", &document)?;
    }
    for path in [collection(p), presence::path(p, "exact", &topic)] {
        let answer = ask(p, &path)?;
        expect(answer.status() == 200 && is_kind(&answer), format!("200 and {kind}"), describe(&answer))?;
        let document = json_of(&answer)?;
        let of_type = if p.is_eight() { "subscriptions" } else { "Subscriptions" };
        expect(document["type"] == of_type && document["id"] == path, format!("type {of_type}, id {path}"), &document)?;
        let list = document["subscriptions"].as_array().cloned().unwrap_or_default();
        if !p.is_eight() {
            let root = document["lastEventID"].is_string() && document["@context"] == "https://mercure.rocks/";
            expect(root, "@context and lastEventID", &document)?;
        }
        // The collection of all may be cut into pages.
        let Some(own) = list.iter().find(|own| own["id"] == item) else {
            let shown = path == collection(p);
            expect(shown && !list.is_empty(), "the subscription among the others", &document)?;
            continue;
        };
        presence::says(p, own, "exact", &topic, None)?;
    }
    Ok(())
}

fn granted_path(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let topic = p.topic("a");
    let _stream = p.subscribe(&[&topic], &[])?;
    let item = item(p, &topic)?;
    let of_topic = presence::path(p, "exact", &topic);
    for (asked, granted) in [
        (&item, &item),
        (&of_topic, &of_topic),
        (&collection(p), &collection(p)),
        (&of_topic, &item),
        (&item, &of_topic),
        (&item, &topic),
        (&collection(p), &of_topic),
    ] {
        let answer = p.send(bearer(Request::new("GET", asked).header("Connection", "close"), &p.subscriber(&[granted])))?;
        let refused = if p.is_eight() { answer.status() == 403 } else { matches!(answer.status(), 401 | 403) };
        let fits = if asked == granted { answer.status() == 200 } else { refused };
        expect(
            fits,
            format!("{asked} with a grant for {granted}: {}", if asked == granted { "200" } else { "refused" }),
            describe(&answer),
        )?;
    }
    Ok(())
}

fn without_token(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    for path in [collection(p), presence::path(p, "exact", &p.topic("a"))] {
        let answer = p.send(Request::new("GET", &path).header("Connection", "close"))?;
        expect(answer.status() == 401, "401", describe(&answer))?;
        let bad = p.token(Role::Subscribe, &["*"]).signed(&crate::token::Key::stranger());
        let answer = p.send(bearer(Request::new("GET", &path).header("Connection", "close"), &bad))?;
        expect(answer.status() == 401, "401 for a bad token", describe(&answer))?;
    }
    Ok(())
}

fn unknown(p: &Probe<'_>) -> Outcome {
    let answer = ask(p, &format!("{}/{}", presence::path(p, "exact", &p.topic("a")), "urn%3Auuid%3Anobody"))?;
    expect(answer.status() == 404, "404 for a subscriber that is not there", describe(&answer))
}

fn ended(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let topic = p.topic("a");
    let stream = p.subscribe(&[&topic], &[])?;
    let item = item(p, &topic)?;
    stream.close();
    p.wait_until("404, or active: false, for a subscription that ended", || {
        let answer = ask(p, &item)?;
        Ok((answer.status() == 404 || json_of(&answer)?["active"] == false).then_some(()))
    })?;
    let listed = json_of(&ask(p, &presence::path(p, "exact", &topic))?)?;
    let active = listed["subscriptions"].as_array().is_some_and(|list| list.iter().any(|own| own["active"] != false));
    expect(!active, "no active subscription in the collection", listed)
}

/// The value of an attribute of the hub's link, unescaped.
fn attribute(link: &str, name: &str) -> Option<String> {
    let rest = &link[link.find(&format!("{name}=\""))? + name.len() + 2..];
    let mut value = String::new();
    let mut escaped = false;
    for character in rest.chars() {
        match character {
            _ if escaped => value.push(character),
            '\\' => {}
            '"' => return Some(value),
            _ => value.push(character),
        }
        escaped = character == '\\' && !escaped;
    }
    None
}

fn hub_link(answer: &Answer) -> Result<String, Verdict> {
    match answer.head.all("link").find(|link| link.contains("rel=\"mercure\"") || link.contains("rel=mercure")) {
        Some(link) => Ok(link.to_owned()),
        None => failed("Link with rel=\"mercure\"", describe(answer)),
    }
}

fn link(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let topic = p.topic("a");
    let quoted = p.unique("urn:x:\"q\\");
    let _stream = p.subscribe(&[&topic], &[])?;
    let item = item(p, &topic)?;
    p.published(&[("topic", &topic), ("data", "x"), ("id", &quoted)])?;
    for path in [collection(p), presence::path(p, "exact", &topic), item] {
        let link = hub_link(&ask(p, &path)?)?;
        let id = attribute(&link, "last-event-id").unwrap_or_default();
        expect(link.starts_with('<') && !id.is_empty(), "<hub>; rel=\"mercure\"; last-event-id=\"...\"", &link)?;
    }
    Ok(())
}

fn link_attributes(p: &Probe<'_>) -> Outcome {
    let link = hub_link(&ask(p, &collection(p))?)?;
    let said =
        attribute(&link, "type").as_deref() == Some("mercure") && attribute(&link, "content-type").as_deref() == Some("application/json");
    expect(said, "type=\"mercure\"; content-type=\"application/json\"", link)
}

fn get_if_none_match(p: &Probe<'_>, path: &str, tag: &str) -> Result<Answer, Verdict> {
    p.send(bearer(Request::new("GET", path).header("If-None-Match", tag).header("Connection", "close"), &p.subscriber(&["*"])))
}

/// Asks again at once until nobody published in between: on a hub in use the tag moves.
fn unchanged(p: &Probe<'_>, shape: impl Fn(&str) -> String) -> Outcome {
    presence::on(p)?;
    let path = presence::path(p, "exact", &p.topic("a"));
    p.wait_until("304 for a tag that was just given", || {
        let Some(tag) = ask(p, &path)?.field("etag") else { return failed("an ETag", "none") };
        let again = get_if_none_match(p, &path, &shape(&tag))?;
        expect(matches!(again.status(), 200 | 304), "304 (or 200 after a change)", describe(&again))?;
        Ok((again.status() == 304).then_some(()))
    })
}

fn conditional(p: &Probe<'_>) -> Outcome {
    unchanged(p, str::to_owned)?;
    let path = presence::path(p, "exact", &p.topic("a"));
    let other = get_if_none_match(p, &path, "\"something-else\"")?;
    expect(other.status() == 200, "200 for another tag", describe(&other))
}

fn weak_tags(p: &Probe<'_>) -> Outcome {
    unchanged(p, |tag| format!("W/{tag}"))?;
    unchanged(p, |tag| format!("\"x\", {tag}"))?;
    unchanged(p, |_| "*".to_owned())
}

fn collection_id(p: &Probe<'_>) -> Outcome {
    let document = json_of(&ask(p, &collection(p))?)?;
    expect(document["id"] == collection(p), collection(p), document)
}

fn collection_id_without_query(p: &Probe<'_>) -> Outcome {
    let document = json_of(&ask(p, &format!("{}?x=y", collection(p)))?)?;
    expect(document["id"] == collection(p), collection(p), document)
}

fn path_only(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let path = collection(p);
    let token = p.subscriber(&[&path]);
    let answer = p.send(bearer(Request::new("GET", &format!("{path}?x=y")).header("Connection", "close"), &token))?;
    expect(answer.status() == 200, "200", describe(&answer))?;
    let head = p.send(bearer(Request::new("HEAD", &path).header("Connection", "close"), &token))?;
    expect(head.status() == 200 && head.field("link").is_some(), "200 with the fields of GET", describe(&head))
}

fn link_is_cursor(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let topic = p.topic("a");
    p.published(&[("topic", &topic), ("data", "before")])?;
    let answer = ask(p, &collection(p))?;
    let cursor = if p.is_eight() {
        attribute(&hub_link(&answer)?, "last-event-id")
    } else {
        json_of(&answer)?["lastEventID"].as_str().map(str::to_owned)
    };
    let cursor = cursor.unwrap_or_default();
    let id = p.published(&[("topic", &topic), ("data", "after")])?;
    let mut stream = p.subscribe_query(&crate::probe::form(&[(p.selector(), &topic), (p.cursor(), &cursor)]), &[])?;
    expect(stream.head.field(p.start_field()).as_ref() == Some(&cursor), format!("{}: {cursor}", p.start_field()), &stream.head.text)?;
    stream.next_is(&id, "everything after the API's answer")?;
    // Presence events have ids of the same kind.
    let mut watcher = presence::watch(p, "exact", &topic)?;
    p.subscribe(&[&topic], &[])?.close();
    let started = watcher.event()?;
    let ended = watcher.event()?;
    let id = started.id.clone().unwrap_or_default();
    let below = presence::path(p, "exact", &topic);
    let query = if p.is_eight() { [("match_urlpattern", format!("{below}/:id"))] } else { [("topic", format!("{below}/{{id}}"))] };
    let query = crate::probe::form(&[(query[0].0, query[0].1.as_str()), (p.cursor(), &id)]);
    let mut resumed = p.subscribe_query(&query, &["*"])?;
    resumed.next_is(&ended.id.unwrap_or_default(), "a watcher resumes after a presence event").map(|event| drop(json!(event.data)))
}
