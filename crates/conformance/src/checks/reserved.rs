//! The reserved namespace below the hub's path: nobody publishes there, however it is written.

use super::{
    Check,
    When::{Eight, Seven},
    must, observed, ours,
};
use crate::probe::{Outcome, Probe, describe, expect};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[6, 40, 113], "topics that address the hub's own path are 400, however written", reserved),
    must(Eight, &[40], "topics that only look like it are none of the hub's", not_reserved),
    observed(Seven, &[310, 113], "a topic in the reserved namespace is refused", plainly_reserved),
    ours(Seven, &[40, 332, 409], "the reserved namespace is 400 with tokens of dialect 7 too", reserved),
];

fn spellings(p: &Probe<'_>) -> Vec<String> {
    let path = p.hub.public_url[p.hub.public_origin().len()..].to_owned();
    // One unreserved octet of the path written as an escape.
    let escaped = path.replacen('m', "%6d", 1).replacen('k', "%6B", 1);
    let backslashes = path.replace('/', "\\");
    let last = path.rsplit('/').next().unwrap_or_default().to_owned();
    vec![
        path.clone(),
        format!("{path}/"),
        format!("{path}/subscriptions/exact/x/y"),
        format!("{path}?x"),
        format!("{path}#x"),
        p.hub.public_url.clone(),
        format!("https://elsewhere.example{path}/x"),
        format!("//elsewhere.example{path}/x"),
        format!("ftp://elsewhere.example{path}/x"),
        format!("other:{path}/x"),
        format!("/a/..{path}/x"),
        format!("/a/%2e%2e{path}/x"),
        format!("/.{path}/x"),
        format!("{path}/../{last}/x"),
        format!("{path}/a/../b"),
        escaped.clone(),
        format!("{escaped}/x"),
        format!("https://elsewhere.example{escaped}/%78"),
        backslashes.clone(),
        format!("{backslashes}\\x"),
        format!("./{last}/x"),
        format!("./x/../{last}/y"),
        last,
        "?x".into(),
        "#x".into(),
    ]
}

fn reserved(p: &Probe<'_>) -> Outcome {
    let good = p.topic("good");
    for topic in spellings(p) {
        for fields in [vec![("topic", topic.as_str())], vec![("topic", good.as_str()), ("topic", topic.as_str())]] {
            let answer = p.publish(&fields)?;
            expect(answer.status() == 400, format!("400 for the topic {topic:?}"), describe(&answer))?;
        }
    }
    Ok(())
}

fn plainly_reserved(p: &Probe<'_>) -> Outcome {
    let topic = format!("{}/subscriptions/x/y", p.hub.place.path);
    let answer = p.publish(&[("topic", &topic), ("data", "x")])?;
    expect(matches!(answer.status(), 400 | 403), "400 or 403", describe(&answer))
}

fn not_reserved(p: &Probe<'_>) -> Outcome {
    let path = p.hub.public_url[p.hub.public_origin().len()..].to_owned();
    let name = p.unique("x");
    for topic in [
        format!("{path}{name}"),
        format!("{}/{name}", path.to_ascii_uppercase()),
        // An encoded slash is no slash.
        format!("{path}%2F{name}"),
        format!("/{name}{path}"),
        format!("{path}/../{name}"),
        format!("https://elsewhere.example/?{path}/{name}"),
        format!("https://elsewhere.example/#{path}/{name}"),
        // What cannot be parsed addresses nothing.
        format!("https://[{path}/{name}"),
        format!("urn:{name}"),
    ] {
        let answer = p.publish(&[("topic", &topic), ("data", "x")])?;
        expect(answer.status() == 200, format!("200 for the topic {topic:?}"), describe(&answer))?;
    }
    Ok(())
}
