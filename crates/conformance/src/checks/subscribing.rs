//! Opening streams: methods, the first answer, and what is refused before anything is streamed.

use super::{
    Check,
    When::{Each, Eight, Once, Seven},
    must, observed, ours, should,
};
use crate::{
    http::{Connection, Request},
    probe::{Outcome, Probe, bearer, describe, encoded, expect, failed, form, legacy_token, skipped},
    settings::Role,
};
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    should(Once, &[5], "the hub URL has the well-known path", the_path),
    must(Seven, &[201], "the hub URL has the well-known path that clients of dialect 7 expect", the_path),
    must(Each, &[14, 202], "GET answers 200 and an event stream", a_stream),
    observed(Each, &[301], "the first bytes of a stream come with its head", first_bytes),
    observed(Each, &[302], "streams are not cached, buffered or given a length", stream_fields),
    observed(Once, &[313], "every answer says nosniff", nosniff),
    observed(Each, &[308], "no matcher at all is 400", no_matcher),
    observed(Eight, &[309], "without a token and without a matcher it is 401", order_of_checks),
    observed(Once, &[311], "methods that mean nothing here are 405", other_methods),
    ours(Each, &[311], "HEAD answers the head of a stream and nothing else", head_only),
    must(Each, &[4, 22, 202], "one connection holds several subscriptions", several),
    must(Each, &[54], "without a token only public updates, or 401", anonymous),
    observed(Each, &[328], "a valid token without any grant opens a stream of public updates", without_grants),
    observed(Eight, &[15], "QUERY with a form body opens a stream", query_method),
    must(Eight, &[16], "parameters are the union of URL and body, and the cursor of the URL wins", query_union),
    should(Once, &[17], "HTTP/2 is spoken", http2),
    observed(Once, &[132], "streams say Incremental and Accept-Query", incremental),
    observed(Once, &[67], "refusals are problem documents", problems),
];

fn the_path(p: &Probe<'_>) -> Outcome {
    let path = &p.hub.place.path;
    expect(path == "/.well-known/mercure", "/.well-known/mercure", path)
}

fn a_stream(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let id = p.published(&[("topic", &topic), ("data", "x")])?;
    stream.next_is(&id, "the stream is live as soon as its head is there").map(drop)
}

fn first_bytes(p: &Probe<'_>) -> Outcome {
    let mut stream = p.subscribe(&[&p.topic("a")], &[])?;
    let first = stream.bytes(Instant::now() + p.hub.settings.patience)?;
    expect(first.starts_with(':'), "a comment", first)
}

fn stream_fields(p: &Probe<'_>) -> Outcome {
    let stream = p.subscribe(&[&p.topic("a")], &[])?;
    let head = &stream.head;
    expect(
        head.field("content-type").as_deref() == Some("text/event-stream"),
        "Content-Type: text/event-stream and nothing more",
        &head.text,
    )?;
    let cache = head.field("cache-control").unwrap_or_default();
    expect(
        ["private", "no-cache", "no-store"].iter().all(|word| cache.contains(word)),
        "Cache-Control: private, no-cache, no-store",
        &head.text,
    )?;
    expect(head.field("x-accel-buffering").as_deref() == Some("no"), "X-Accel-Buffering: no", &head.text)?;
    expect(head.field("content-length").is_none(), "no Content-Length", &head.text)
}

fn nosniff(p: &Probe<'_>) -> Outcome {
    let stream = p.subscribe(&[&p.topic("a")], &[])?;
    expect(stream.head.field("x-content-type-options").as_deref() == Some("nosniff"), "nosniff on streams", &stream.head.text)?;
    let refused = p.send(p.post("data=x"))?;
    expect(refused.field("x-content-type-options").as_deref() == Some("nosniff"), "nosniff on refusals", describe(&refused))
}

fn no_matcher(p: &Probe<'_>) -> Outcome {
    for query in ["", "foo=bar", &form(&[(p.cursor(), "earliest")])] {
        let answer = p.subscribing(query)?;
        expect(answer.status() == 400, format!("400 for the query {query:?}"), describe(&answer))?;
    }
    Ok(())
}

fn order_of_checks(p: &Probe<'_>) -> Outcome {
    let stranger = p.token(Role::Subscribe, &[]).signed(&crate::token::Key::stranger());
    let answer = p.send(bearer(p.get("foo=bar"), &stranger))?;
    expect(answer.status() == 401, "401 for a bad token, whatever else is wrong", describe(&answer))
}

fn other_methods(p: &Probe<'_>) -> Outcome {
    for method in ["PUT", "DELETE", "PATCH"] {
        let request = Request::new(method, &format!("{}?{}", p.hub.place.path, p.select(&[&p.topic("a")])));
        let answer = p.send(bearer(request, &p.subscriber(&[])).header("Content-Length", "0"))?;
        expect(answer.status() == 405, format!("405 for {method}"), describe(&answer))?;
    }
    Ok(())
}

fn head_only(p: &Probe<'_>) -> Outcome {
    let request = Request::new("HEAD", &format!("{}?{}", p.hub.place.path, p.select(&[&p.topic("a")])));
    let answer = p.send(bearer(request, &p.subscriber(&[])).header("Connection", "close"))?;
    expect(answer.status() == 200, "200", describe(&answer))
}

fn several(p: &Probe<'_>) -> Outcome {
    let [a, b, c] = ["a", "b", "c"].map(|name| p.topic(name));
    let mut stream = p.subscribe(&[&a, &b], &[])?;
    let first = p.published(&[("topic", &a), ("data", "1")])?;
    p.published(&[("topic", &c), ("data", "2")])?;
    let last = p.published(&[("topic", &b), ("data", "3")])?;
    stream.then(&[&first, &last], "updates of both topics come, of others none")
}

fn anonymous(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let request = p.get(&p.select(&[&topic]));
    if !p.hub.settings.anonymous {
        let answer = p.send(request)?;
        return expect(answer.status() == 401, "401", describe(&answer));
    }
    let mut stream = p.open(request)?;
    p.published(&[("topic", &topic), ("data", "1"), ("private", "")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, "without a token nothing private comes").map(drop)
}

fn without_grants(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let token =
        if p.is_eight() { p.token(Role::Subscribe, &[]).without("authorization_details") } else { legacy_token(serde_json::json!({})) };
    let mut stream = p.open(bearer(p.get(&p.select(&[&topic])), &token.signed(p.key(Role::Subscribe))))?;
    p.published(&[("topic", &topic), ("data", "1"), ("private", "")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, "public updates come, private ones do not").map(drop)
}

fn query(p: &Probe<'_>, in_url: &str, in_body: &str) -> Request {
    let target = if in_url.is_empty() { p.hub.place.path.clone() } else { format!("{}?{in_url}", p.hub.place.path) };
    bearer(Request::new("QUERY", &target).form(in_body), &p.subscriber(&[]))
}

fn speaks_query(p: &Probe<'_>) -> Outcome {
    let answer = p.send(query(p, "", &p.select(&[&p.topic("probe")])))?;
    if matches!(answer.status(), 405 | 501) { skipped("the hub does not offer QUERY") } else { Ok(()) }
}

fn query_method(p: &Probe<'_>) -> Outcome {
    speaks_query(p)?;
    let topic = p.topic("a");
    let mut stream = p.open(query(p, "", &p.select(&[&topic])))?;
    let id = p.published(&[("topic", &topic), ("data", "x")])?;
    stream.next_is(&id, "the matcher of the body counts").map(drop)
}

fn query_union(p: &Probe<'_>) -> Outcome {
    speaks_query(p)?;
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let first = p.published(&[("topic", &a), ("data", "1")])?;
    let second = p.published(&[("topic", &b), ("data", "2")])?;
    let third = p.published(&[("topic", &a), ("data", "3")])?;
    let in_url = format!("{}&last_event_id={}", p.select(&[&a]), encoded(&first));
    let in_body = format!("{}&last_event_id={}", p.select(&[&b]), encoded(&second));
    p.open(query(p, &in_url, &in_body))?.then(&[&second, &third], "matchers of both, the cursor of the URL")?;
    let with_header = query(p, &in_url, &in_body).header("Last-Event-ID", &second);
    p.open(with_header)?.then(&[&third], "the header beats both")?;
    let typo = p.send(query(p, &p.select(&[&a]), "matches=x"))?;
    expect(typo.status() == 400, "400 for a typo in the body", describe(&typo))
}

fn http2(p: &Probe<'_>) -> Outcome {
    let patience = p.hub.settings.patience;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let connected = Connection::open(p.hub.place.address, patience).and_then(|mut connection| {
        connection.send(preface)?;
        connection.raw(9, Instant::now() + patience)
    });
    match connected {
        // The type of a frame is its fourth byte; a server begins with SETTINGS.
        Ok(frame) if frame[3] == 4 => Ok(()),
        Ok(bytes) => failed("a SETTINGS frame after the preface of HTTP/2", String::from_utf8_lossy(&bytes)),
        Err(error) => failed("a SETTINGS frame after the preface of HTTP/2", error),
    }
}

fn incremental(p: &Probe<'_>) -> Outcome {
    let stream = p.subscribe(&[&p.topic("a")], &[])?;
    expect(stream.head.field("incremental").as_deref() == Some("?1"), "Incremental: ?1", &stream.head.text)?;
    let accepts = stream.head.field("accept-query").unwrap_or_default();
    expect(accepts.contains("application/x-www-form-urlencoded"), "Accept-Query with the form type", &stream.head.text)
}

fn problems(p: &Probe<'_>) -> Outcome {
    let answer = p.publish_form("data=x")?;
    let kind = answer.field("content-type").unwrap_or_default();
    expect(kind.starts_with("application/problem+json"), "application/problem+json", describe(&answer))?;
    let body: serde_json::Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    expect(body["status"] == 400, "a member status of 400", describe(&answer))
}
