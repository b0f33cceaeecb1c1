//! `authorization_details` of dialect 8: what grants, what is ignored, and what refuses the whole token.

use super::{Check, When::Eight, must, observed, ours, presentation};
use crate::{
    http::Answer,
    probe::{Outcome, Probe, Verdict, bearer, describe, expect, form},
    settings::Role,
    token::DETAIL_TYPE,
};
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[75], "entries of other types are ignored, whatever is in them", other_entries),
    must(Eight, &[76, 77, 78, 61], "one error in one entry refuses the whole token", malformed),
    must(Eight, &[75, 61], "authorization_details that is no array refuses the token", no_array),
    must(Eight, &[76], "unknown actions are ignored", unknown_actions),
    must(Eight, &[35, 78, 61], "an unsupported match_type refuses the token", unsupported),
    must(Eight, &[79, 115, 61], "1,000 entries, 1,000 topics, a pattern of 5,000 bytes refuse the token", too_many),
    observed(Eight, &[312, 79], "100 entries and 100 topics in all are served", hundred),
    must(Eight, &[50, 62, 80], "publishing needs a grant for every topic: else 403, and nothing is dispatched", publish_grants),
    must(Eight, &[62], "a subscriber's grant does not publish: 403 insufficient_scope", no_publish_grant),
    must(Eight, &[77, 80, 81], "grants by exact, urlpattern and *", grants),
    ours(Eight, &[336], "odd entries are judged by the draft: null, no type, empty match, any payload", odd_entries),
];

fn entry(action: &str, topics: Value) -> Value {
    json!({"type": DETAIL_TYPE, "actions": [action], "topics": topics})
}

fn publish_with(p: &Probe<'_>, details: Value, topics: &[&str]) -> Result<Answer, Verdict> {
    let mut fields: Vec<(&str, &str)> = topics.iter().map(|topic| ("topic", *topic)).collect();
    fields.push(("data", "x"));
    p.send(bearer(p.post(form(&fields)), &p.access_token(details).signed(p.key(Role::Publish))))
}

fn subscribe_with(p: &Probe<'_>, details: Value) -> Result<Answer, Verdict> {
    let token = p.access_token(details).signed(p.key(Role::Subscribe));
    p.send(bearer(p.get(&p.select(&[&p.topic("a")])), &token))
}

/// Refused in both roles, also beside a perfect entry.
fn refuses(p: &Probe<'_>, bad: Value) -> Outcome {
    let good = json!({"type": DETAIL_TYPE, "actions": ["publish", "subscribe"], "topics": [{"match": "*"}]});
    for details in [json!([bad]), json!([good, bad]), json!([bad, good])] {
        for answer in [publish_with(p, details.clone(), &[&p.topic("a")])?, subscribe_with(p, details.clone())?] {
            presentation::challenges(&answer, 401, "invalid_token").map_err(|verdict| match verdict {
                Verdict::Failed { expected, seen } => Verdict::Failed { expected: format!("{expected}, for the details {details}"), seen },
                skipped @ Verdict::Skipped(_) => skipped,
            })?;
        }
    }
    Ok(())
}

fn other_entries(p: &Probe<'_>) -> Outcome {
    let good = entry("publish", json!([{"match": "*"}]));
    for other in [
        json!({"type": "payment", "amount": 1}),
        json!({"type": format!("{DETAIL_TYPE}/"), "actions": 1}),
        json!({"type": DETAIL_TYPE.to_uppercase(), "topics": "x"}),
        json!({"type": "http://mercure.rocks/authorization-detail", "actions": []}),
    ] {
        let answer = publish_with(p, json!([other, good]), &[&p.topic("a")])?;
        expect(answer.status() == 200, format!("200 beside {other}"), describe(&answer))?;
        let answer = publish_with(p, json!([other]), &[&p.topic("a")])?;
        presentation::challenges(&answer, 403, "insufficient_scope")?;
    }
    Ok(())
}

fn malformed(p: &Probe<'_>) -> Outcome {
    let with = |actions: Value, topics: Value| json!({"type": DETAIL_TYPE, "actions": actions, "topics": topics});
    let topics = json!([{"match": "*"}]);
    for bad in [
        json!({"type": DETAIL_TYPE}),
        json!({"type": DETAIL_TYPE, "topics": topics}),
        json!({"type": DETAIL_TYPE, "actions": ["publish"]}),
        with(json!([]), topics.clone()),
        with(json!("publish"), topics.clone()),
        with(json!(null), topics.clone()),
        with(json!(["publish", 1]), topics.clone()),
        with(json!([null]), topics.clone()),
        with(json!([["publish"]]), topics.clone()),
        with(json!(["publish"]), json!([])),
        with(json!(["publish"]), json!("*")),
        with(json!(["publish"]), json!({"match": "*"})),
        with(json!(["publish"]), json!(["*"])),
        with(json!(["publish"]), json!([null])),
        with(json!(["publish"]), json!([{}])),
        with(json!(["publish"]), json!([{"match": 1}])),
        with(json!(["publish"]), json!([{"match": null}])),
        with(json!(["publish"]), json!([{"match": ["*"]}])),
        with(json!(["publish"]), json!([{"match": "*"}, {"topic": "x"}])),
        with(json!(["publish"]), json!([{"match": "x", "match_type": 1}])),
        with(json!(["publish"]), json!([{"match": "https://a.example/(", "match_type": "urlpattern"}])),
        with(json!(["publish"]), json!([{"match": "a\u{202e}b"}])),
    ] {
        refuses(p, bad)?;
    }
    Ok(())
}

fn no_array(p: &Probe<'_>) -> Outcome {
    for details in [json!("x"), json!({}), json!(1), entry("publish", json!([{"match": "*"}]))] {
        let answer = publish_with(p, details.clone(), &[&p.topic("a")])?;
        presentation::challenges(&answer, 401, "invalid_token")?;
        let answer = subscribe_with(p, details)?;
        presentation::challenges(&answer, 401, "invalid_token")?;
    }
    Ok(())
}

fn unknown_actions(p: &Probe<'_>) -> Outcome {
    let details = |actions: Value| json!([{"type": DETAIL_TYPE, "actions": actions, "topics": [{"match": "*"}]}]);
    let answer = publish_with(p, details(json!(["delete", "publish"])), &[&p.topic("a")])?;
    expect(answer.status() == 200, "200 with an unknown action beside publish", describe(&answer))?;
    for actions in [json!(["delete"]), json!(["Publish"]), json!(["publish "])] {
        let answer = publish_with(p, details(actions), &[&p.topic("a")])?;
        presentation::challenges(&answer, 403, "insufficient_scope")?;
    }
    Ok(())
}

fn unsupported(p: &Probe<'_>) -> Outcome {
    for kind in ["regex", "cel", "Exact", "URLPATTERN", "exact ", "urltemplate"] {
        refuses(p, entry("publish", json!([{"match": "x", "match_type": kind}])))?;
    }
    Ok(())
}

fn too_many(p: &Probe<'_>) -> Outcome {
    let one = |number: usize| entry("publish", json!([{"match": format!("{number}")}]));
    let topics: Vec<Value> = (0..1000).map(|number| json!({"match": format!("{number}")})).collect();
    let long = p.topic(&"x".repeat(5000));
    for (what, details) in [
        ("1,000 entries", Value::Array((0..1000).map(one).collect())),
        ("1,000 topics", json!([entry("publish", Value::Array(topics))])),
        ("a long exact matcher", json!([entry("publish", json!([{"match": long}]))])),
        ("a long pattern", json!([entry("publish", json!([{"match": long, "match_type": "urlpattern"}]))])),
    ] {
        for answer in [publish_with(p, details.clone(), &[&p.topic("a")])?, subscribe_with(p, details)?] {
            // A head that is too large for the hub is refused before the token is looked at.
            expect(matches!(answer.status(), 401 | 431), format!("401 for {what}"), describe(&answer))?;
            if answer.status() == 401 {
                presentation::challenges(&answer, 401, "invalid_token")?;
            }
        }
    }
    Ok(())
}

fn hundred(p: &Probe<'_>) -> Outcome {
    let last = p.topic("99");
    let entries: Vec<Value> = (0..100).map(|number| entry("publish", json!([{"match": p.topic(&number.to_string())}]))).collect();
    let answer = publish_with(p, Value::Array(entries), &[&last])?;
    expect(answer.status() == 200, "200 with 100 entries", describe(&answer))?;
    let topics: Vec<Value> = (0..100).map(|number| json!({"match": p.topic(&number.to_string())})).collect();
    let answer = publish_with(p, json!([entry("publish", Value::Array(topics))]), &[&last])?;
    expect(answer.status() == 200, "200 with 100 topics", describe(&answer))
}

fn publish_grants(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let mut stream = p.subscribe(&[&a, &b], &[])?;
    let only_a = json!([entry("publish", json!([{"match": a}])), entry("subscribe", json!([{"match": b}]))]);
    for topics in [&[b.as_str()][..], &[&a, &b], &[&b, &a]] {
        let answer = publish_with(p, only_a.clone(), topics)?;
        presentation::challenges(&answer, 403, "insufficient_scope")?;
    }
    let answer = publish_with(p, only_a, &[&a])?;
    expect(answer.status() == 200, "200", describe(&answer))?;
    stream.next_is(answer.text().trim(), "nothing of a refused publication is dispatched")?;
    let each = json!([entry("publish", json!([{"match": a}])), entry("publish", json!([{"match": b}]))]);
    let answer = publish_with(p, each, &[&a, &b])?;
    expect(answer.status() == 200, "200 when each topic has a grant, in whichever entry", describe(&answer))?;
    stream.next_is(answer.text().trim(), "it is dispatched").map(drop)
}

fn no_publish_grant(p: &Probe<'_>) -> Outcome {
    for details in [json!([]), json!([entry("subscribe", json!([{"match": "*"}]))])] {
        let answer = publish_with(p, details, &[&p.topic("a")])?;
        presentation::challenges(&answer, 403, "insufficient_scope")?;
    }
    let token = p.access_token(json!([])).without("authorization_details").signed(p.key(Role::Publish));
    let answer = p.send(bearer(p.post(form(&[("topic", &p.topic("a")), ("data", "x")])), &token))?;
    presentation::challenges(&answer, 403, "insufficient_scope")
}

fn grants(p: &Probe<'_>) -> Outcome {
    let a = p.topic("a/1");
    for (matcher, wanted) in [
        (json!({"match": a}), true),
        (json!({"match": a, "match_type": "exact"}), true),
        (json!({"match": "*"}), true),
        (json!({"match": "*", "match_type": "urlpattern"}), true),
        (json!({"match": p.topic("a/:id"), "match_type": "urlpattern"}), true),
        (json!({"match": p.topic("a/:id")}), false),
        (json!({"match": p.topic("a/*")}), false),
        (json!({"match": p.topic("b/:id"), "match_type": "urlpattern"}), false),
        (json!({"match": p.topic("A/1")}), false),
    ] {
        let answer = publish_with(p, json!([entry("publish", json!([matcher]))]), &[&a])?;
        expect(
            answer.status() == if wanted { 200 } else { 403 },
            format!("{matcher} {} publishing {a}", if wanted { "grants" } else { "refuses" }),
            describe(&answer),
        )?;
        let token = p.access_token(json!([entry("subscribe", json!([matcher]))])).signed(p.key(Role::Subscribe));
        let mut stream = p.open(bearer(p.get(&p.select(&[&a])), &token))?;
        let private = p.published(&[("topic", &a), ("data", "1"), ("private", "")])?;
        let marker = p.published(&[("topic", &a), ("data", "2")])?;
        if wanted {
            stream.next_is(&private, &format!("{matcher} grants private updates of {a}"))?;
        }
        stream.next_is(&marker, &format!("{matcher} for {a}"))?;
    }
    Ok(())
}

fn odd_entries(p: &Probe<'_>) -> Outcome {
    for payload in [json!(null), json!(1), json!("x"), json!([1]), json!({"a": {}})] {
        let mut one = entry("subscribe", json!([{"match": "*"}]));
        one["payload"] = payload.clone();
        let answer = subscribe_with(p, json!([one]))?;
        expect(answer.status() == 200, format!("200 with the payload {payload}"), describe(&answer))?;
    }
    Ok(())
}
