//! What only Tidings promises: both dialects at once on one URL, neither weakening the other.

use super::{
    Check,
    When::{Both, Each, Eight, Once, Seven},
    observed, ours, presentation,
};
use crate::{
    probe::{Outcome, Probe, bearer, describe, encoded, expect, form, now, skipped},
    settings::{Dialect, Role},
};
use serde_json::json;

pub(super) const CHECKS: &[Check] = &[
    ours(Both, &[401], "parameters of both dialects mix on one connection, with a token of either", mixed),
    ours(Both, &[401, 409], "an update published with a token of one dialect is read in the other", across),
    ours(Each, &[401, 308], "parameters of a dialect that is switched off are 400", switched_off),
    ours(Each, &[68, 402], "a token of a dialect that is switched off is 401, with a key that verifies both", token_switched_off),
    ours(Eight, &[402], "a failed token of dialect 8 is never tried as one of dialect 7", no_fall_back),
    ours(Both, &[402], "a token of dialect 7 has no rights from authorization_details, and the other way round", claims_apart),
    ours(Eight, &[406], "the query parameter authorization is 401 while it is off, and says which setting", query_token_off),
    ours(Once, &[73], "once the public URL is set, another Host is 421", other_host),
    ours(Both, &[408], "the style of errors follows the token, without one the parameters", error_styles),
    observed(Eight, &[130], "topics that the reader may see come as topics: lines, before the data", disclosed_topics),
    observed(Seven, &[130], "for topic parameters alone there are no topics: lines", no_disclosed_topics),
];

fn seven<'h>(p: &Probe<'h>) -> Probe<'h> {
    Probe::new(p.hub, Dialect::Seven)
}

fn mixed(p: &Probe<'_>) -> Outcome {
    let topics = ["a", "b/1", "c/1"].map(|name| p.topic(name));
    let granted = topics.each_ref().map(String::as_str);
    let query = form(&[("match", &topics[0]), ("topic", &p.topic("b/{id}")), ("match_urlpattern", &p.topic("c/:id"))]);
    for token in [p.subscriber(&granted), seven(p).subscriber(&[granted[0], &p.topic("{x}/{id}")])] {
        let mut stream = p.open(bearer(p.get(&query), &token))?;
        let mut ids = vec![];
        for topic in &topics {
            ids.push(p.published(&[("topic", topic), ("data", "x"), ("private", "on")])?);
        }
        stream.then(&ids.iter().map(String::as_str).collect::<Vec<_>>(), "each parameter selects, each grant counts")?;
    }
    Ok(())
}

fn across(p: &Probe<'_>) -> Outcome {
    let q = seven(p);
    let topic = p.topic("a");
    let mut new = p.subscribe(&[&topic], &[&topic])?;
    let mut old = q.subscribe(&[&topic], &[&topic])?;
    for publisher in [p, &q] {
        let id = publisher.published(&[("topic", &topic), ("data", "x"), ("private", "on")])?;
        new.next_is(&id, "read in dialect 8")?;
        old.next_is(&id, "read in dialect 7")?;
        let next = p.published(&[("topic", &topic), ("data", "y")])?;
        new.next_is(&next, "read in dialect 8")?;
        old.next_is(&next, "read in dialect 7")?;
        // One log: a cursor that was got in one dialect is one in the other.
        q.subscribe_query(&form(&[("topic", &topic), ("lastEventID", &id)]), &[])?.next_is(&next, "resumed in dialect 7")?;
        p.subscribe_query(&form(&[("match", &topic), ("last_event_id", &id)]), &[])?.next_is(&next, "resumed in dialect 8")?;
    }
    Ok(())
}

fn switched_off(p: &Probe<'_>) -> Outcome {
    let dialects = &p.hub.settings.dialects;
    if dialects.len() > 1 {
        return skipped("both dialects are switched on");
    }
    let off = if p.is_eight() { Dialect::Seven } else { Dialect::Eight };
    let other = Probe::new(p.hub, off);
    let answer = p.send(bearer(p.get(&other.select(&[&p.topic("a")])), &p.subscriber(&[])))?;
    expect(answer.status() == 400, format!("400 for {}", other.selector()), describe(&answer))?;
    let beside = format!("{}&{}", p.select(&[&p.topic("a")]), other.select(&[&p.topic("a")]));
    let answer = p.subscribing(&beside)?;
    expect(answer.status() == 400, format!("400 for {} beside {}", other.selector(), p.selector()), describe(&answer))
}

fn token_switched_off(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.dialects.len() > 1 {
        return skipped("both dialects are switched on");
    }
    let other = Probe::new(p.hub, if p.is_eight() { Dialect::Seven } else { Dialect::Eight });
    let topic = p.topic("a");
    let legacy = json!({"publish": ["*"], "subscribe": ["*"]});
    for role in [Role::Publish, Role::Subscribe] {
        // The second has the claims of both, so that nothing but its type can be wrong with it.
        for token in [other.token(role, &["*"]), p.token(role, &["*"]).header("typ", other.token(role, &[]).header["typ"].clone())] {
            let token = token.claim("mercure", legacy.clone()).signed(p.key(role));
            let answer = p.send(match role {
                Role::Publish => bearer(p.post(form(&[("topic", &topic), ("data", "x")])), &token),
                Role::Subscribe => bearer(p.get(&p.select(&[&topic])), &token),
            })?;
            presentation::challenges(&answer, 401, "invalid_token")?;
        }
    }
    Ok(())
}

fn no_fall_back(p: &Probe<'_>) -> Outcome {
    let legacy = json!({"publish": ["*"], "subscribe": ["*"]});
    let topic = p.topic("a");
    for (why, claim, value) in [
        ("exp", "exp", json!(now() - 10)),
        ("aud", "aud", json!("https://other.example")),
        ("iss", "iss", json!("https://other.example")),
        ("details", "authorization_details", json!("x")),
    ] {
        let token = p.token(Role::Publish, &["*"]).claim("mercure", legacy.clone()).claim(claim, value);
        let answer = p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x")])), &token.signed(p.key(Role::Publish))))?;
        presentation::challenges(&answer, 401, "invalid_token")?;
        let answer = p.send(bearer(p.get(&p.select(&[&topic])), &token.signed(p.key(Role::Subscribe))))?;
        expect(answer.status() == 401, format!("401 with a bad {why} beside a good claim of dialect 7"), describe(&answer))?;
    }
    Ok(())
}

fn claims_apart(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let publish = |token: String| p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x")])), &token));
    let new = p.token(Role::Publish, &[&p.topic("b")]).claim("mercure", json!({"publish": ["*"]})).signed(p.key(Role::Publish));
    presentation::challenges(&publish(new)?, 403, "insufficient_scope")?;
    let old = p.token(Role::Publish, &["*"]).header("typ", json!("JWT")).claim("mercure", json!({"publish": [p.topic("b")]}));
    let answer = publish(old.signed(p.key(Role::Publish)))?;
    expect(answer.status() == 401, "401: only the claim of its own dialect counts", describe(&answer))
}

fn query_token_off(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.query_token {
        return skipped("tokens in the URL are switched on");
    }
    let topic = p.topic("a");
    let query = format!("{}&authorization={}", p.select(&[&topic]), encoded(&p.subscriber(&[])));
    for request in [p.get(&query), bearer(p.get(&query), &p.subscriber(&[]))] {
        let answer = p.send(request)?;
        expect(answer.status() == 401 && answer.text().contains("query"), "401, and the setting's name", describe(&answer))?;
    }
    Ok(())
}

fn other_host(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.public_url.is_none() {
        return skipped("the suite was told of no public URL");
    }
    let request = bearer(p.get(&p.select(&[&p.topic("a")])), &p.subscriber(&[])).header("Host", "evil.example");
    let answer = p.send(request)?;
    expect(answer.status() == 421, "421", describe(&answer))
}

fn error_styles(p: &Probe<'_>) -> Outcome {
    let q = seven(p);
    let topic = p.topic("a");
    let fields = form(&[("topic", &topic), ("data", "x")]);
    // A token of dialect 7 without the grant: 401; one of dialect 8: 403.
    let old = p.send(bearer(p.post(fields.clone()), &q.signed(Role::Publish, &["other"])))?;
    expect(old.status() == 401, "401 with a token of dialect 7", describe(&old))?;
    let new = p.send(bearer(p.post(fields), &p.signed(Role::Publish, &["other"])))?;
    expect(new.status() == 403, "403 with a token of dialect 8", describe(&new))?;
    if p.hub.settings.anonymous {
        return Ok(());
    }
    let none = p.send(p.get(&p.select(&[&topic])))?;
    expect(none.status() == 401 && none.field("www-authenticate").is_some(), "401 with a challenge", describe(&none))?;
    let none = p.send(q.get(&q.select(&[&topic])))?;
    expect(none.status() == 401, "401", describe(&none))
}

fn disclosed_topics(p: &Probe<'_>) -> Outcome {
    let [a, b, c] = ["a", "b", "c"].map(|name| p.topic(name));
    let mut stream = p.subscribe(&[&a], &[&a, &c])?;
    let public = p.published(&[("topic", &b), ("topic", &a), ("data", "x")])?;
    let event = stream.next_is(&public, "a public update")?;
    expect(event.topics == [b.clone(), a.clone()], "all its topics, in order", event.lines.join("\n"))?;
    let place = |start: &str| event.lines.iter().position(|line| line.starts_with(start));
    expect(place("topics:") < place("data"), "topics: before data", event.lines.join("\n"))?;
    let private = p.published(&[("topic", &b), ("topic", &a), ("topic", &c), ("data", "x"), ("private", "on")])?;
    let event = stream.next_is(&private, "a private update")?;
    expect(event.topics == [a.clone(), c.clone()], "only the granted topics", event.lines.join("\n"))
}

fn no_disclosed_topics(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let id = p.published(&[("topic", &topic), ("data", "x")])?;
    let event = stream.next_is(&id, "an update")?;
    expect(event.topics.is_empty(), "no topics: lines", event.lines.join("\n"))
}
