//! Selectors and claims of dialect 7: routing, publish grants, private updates, the other places of the claim.

use super::{Check, When::Seven, must, observed, ours};
use crate::{
    probe::{Outcome, Probe, bearer, describe, expect, form, legacy_token},
    settings::Role,
};
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    must(Seven, &[203, 30], "the selector * receives everything", star),
    must(Seven, &[207, 50], "mercure.publish has to match every topic, else nothing is published", publish_claim),
    must(Seven, &[207], "without mercure.publish, or with an empty one, nobody publishes", no_publish_claim),
    must(Seven, &[208, 203], "mercure.subscribe takes exact strings, templates and *", subscribe_claim),
    observed(Seven, &[310], "a refused publication is 401 or 403", refused_status),
    ours(Seven, &[408, 310], "with tokens of dialect 7 every refusal of authorisation is 401", refused_is_401),
    observed(Seven, &[215], "the claim may sit under its URL, and that one wins", claim_under_url),
    must(Seven, &[207, 61], "claims of the wrong shape are no grant", wrong_shapes),
];

fn publish_as(p: &Probe<'_>, mercure: Value, topics: &[&str]) -> Result<crate::http::Answer, crate::probe::Verdict> {
    let mut fields: Vec<(&str, &str)> = topics.iter().map(|topic| ("topic", *topic)).collect();
    fields.push(("data", "x"));
    p.send(bearer(p.post(form(&fields)), &legacy_token(mercure).signed(p.key(Role::Publish))))
}

fn star(p: &Probe<'_>) -> Outcome {
    let mut stream = p.subscribe_query("topic=*", &[])?;
    let id = p.published(&[("topic", &p.unique("{odd ")), ("data", "x")])?;
    stream.first("* selects everything", |event| event.id.as_deref() == Some(&id)).map(drop)
}

fn publish_claim(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a/1", "b"].map(|name| p.topic(name));
    let template = p.topic("a/{id}");
    let mut stream = p.subscribe(&[&a, &b], &[])?;
    for granted in [json!([a]), json!([template]), json!([b, template]), json!(["*"])] {
        let answer = publish_as(p, json!({"publish": granted}), &[&a])?;
        expect(answer.status() == 200, format!("200 with the claim {granted}"), describe(&answer))?;
        stream.next_is(answer.text().trim(), "what was granted is published")?;
        let both = publish_as(p, json!({"publish": granted}), &[&a, &b])?;
        let all = granted.as_array().is_some_and(|list| list.contains(&json!("*")) || list.contains(&json!(b)));
        expect(
            (both.status() == 200) == all,
            format!("{} with the claim {granted} for both topics", if all { "200" } else { "a refusal" }),
            describe(&both),
        )?;
        if all {
            stream.next_is(both.text().trim(), "what was granted is published")?;
        }
    }
    let marker = p.published(&[("topic", &b), ("data", "marker")])?;
    stream.next_is(&marker, "nothing of a refused publication is dispatched").map(drop)
}

fn refusals(p: &Probe<'_>) -> Result<Vec<(String, crate::http::Answer)>, crate::probe::Verdict> {
    let a = p.topic("a");
    let claims = [json!({}), json!({"publish": []}), json!({"publish": [p.topic("b")]}), json!({"subscribe": ["*"]})];
    claims.into_iter().map(|claim| Ok((claim.to_string(), publish_as(p, claim, &[&a])?))).collect()
}

fn no_publish_claim(p: &Probe<'_>) -> Outcome {
    for (claim, answer) in refusals(p)? {
        expect(matches!(answer.status(), 401 | 403), format!("a refusal with the claim {claim}"), describe(&answer))?;
    }
    Ok(())
}

fn refused_status(p: &Probe<'_>) -> Outcome {
    no_publish_claim(p)
}

fn refused_is_401(p: &Probe<'_>) -> Outcome {
    for (claim, answer) in refusals(p)? {
        expect(answer.status() == 401, format!("401 with the claim {claim}"), describe(&answer))?;
    }
    Ok(())
}

fn subscribe_claim(p: &Probe<'_>) -> Outcome {
    let (a, other) = (p.topic("a/1"), p.topic("other"));
    for (granted, wanted) in [
        (json!([a]), true),
        (json!([p.topic("a/{id}")]), true),
        (json!(["*"]), true),
        (json!([other, p.topic("{x}/{y}")]), true),
        (json!([p.topic("{id}")]), false),
        (json!([other]), false),
        (json!([]), false),
    ] {
        let token = legacy_token(json!({"subscribe": granted})).signed(p.key(Role::Subscribe));
        let mut stream = p.open(bearer(p.get(&p.select(&[&a])), &token))?;
        let private = p.published(&[("topic", &a), ("data", "1"), ("private", "on")])?;
        let marker = p.published(&[("topic", &a), ("data", "2")])?;
        if wanted {
            stream.next_is(&private, &format!("{granted} grants {a}"))?;
        }
        stream.next_is(&marker, &format!("{granted} for {a}"))?;
    }
    Ok(())
}

fn claim_under_url(p: &Probe<'_>) -> Outcome {
    let a = p.topic("a");
    let token = |claims: Value| crate::token::Token { header: json!({"typ": "JWT"}), claims }.signed(p.key(Role::Publish));
    let publish = |claims: Value| p.send(bearer(p.post(form(&[("topic", &a), ("data", "x")])), &token(claims)));
    let under_url = publish(json!({"https://mercure.rocks/": {"publish": ["*"]}}))?;
    expect(under_url.status() == 200, "200", describe(&under_url))?;
    let both = publish(json!({"https://mercure.rocks/": {"publish": []}, "mercure": {"publish": ["*"]}}))?;
    expect(matches!(both.status(), 401 | 403), "the claim under the URL wins: a refusal", describe(&both))
}

fn wrong_shapes(p: &Probe<'_>) -> Outcome {
    let a = p.topic("a");
    for claim in [
        json!({"publish": "*"}),
        json!({"publish": {"0": "*"}}),
        json!({"publish": true}),
        json!({"publish": [{"match": "*"}]}),
        json!(["*"]),
        json!("*"),
        json!(null),
    ] {
        let answer = publish_as(p, claim.clone(), &[&a])?;
        expect(matches!(answer.status(), 401 | 403), format!("a refusal with the claim {claim}"), describe(&answer))?;
    }
    Ok(())
}
