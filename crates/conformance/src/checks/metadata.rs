//! Discovery: the protected-resource metadata, and the health and metrics that people already read.

use super::{
    Check,
    When::{Eight, Once},
    must, observed, ours, should,
};
use crate::{
    http::{Answer, Request},
    probe::{Outcome, Probe, Verdict, describe, expect, failed, skipped},
    token::DETAIL_TYPE,
};
use serde_json::Value;

pub(super) const CHECKS: &[Check] = &[
    should(Eight, &[11], "metadata are at the path of RFC 9728", served),
    must(Eight, &[12, 73], "the metadata name the resource that tokens are for", resource),
    observed(Eight, &[12], "the metadata say what the hub takes", members),
    observed(Eight, &[13], "no member tells a version of the protocol", no_version),
    should(Eight, &[36], "further matcher types are well-formed names", matcher_types),
    should(Eight, &[109], "presence is advertised when it is on", presence),
    ours(Once, &[313], "health and the three metrics are where people look for them", health_and_metrics),
    Check { alone: true, ..observed(Once, &[326], "presence events are not counted as updates", presence_not_counted) },
];

fn ask(p: &Probe<'_>) -> Result<Answer, Verdict> {
    let path = format!("/.well-known/oauth-protected-resource{}", p.hub.place.path);
    p.send(Request::new("GET", &path).header("Connection", "close"))
}

fn document(p: &Probe<'_>) -> Result<Value, Verdict> {
    let answer = ask(p)?;
    if answer.status() == 404 {
        return skipped("no metadata are served");
    }
    serde_json::from_str(&answer.text()).or_else(|error| failed("a JSON document", format!("{error}\n{}", describe(&answer))))
}

fn served(p: &Probe<'_>) -> Outcome {
    let answer = ask(p)?;
    let is_json = answer.field("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    expect(answer.status() == 200 && is_json, "200 and application/json", describe(&answer))
}

fn resource(p: &Probe<'_>) -> Outcome {
    let document = document(p)?;
    expect(document["resource"] == p.hub.audience, &p.hub.audience, document)
}

fn has(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|one| one == name))
}

fn members(p: &Probe<'_>) -> Outcome {
    let document = document(p)?;
    expect(has(&document["authorization_details_types_supported"], DETAIL_TYPE), "the type of the hub's details", &document)?;
    expect(has(&document["bearer_methods_supported"], "header"), "bearer_methods_supported: [\"header\"]", &document)?;
    let cookie = &document["mercure_cookie"];
    expect(cookie.is_null() || cookie == p.cookie_name(), format!("mercure_cookie: {}", p.cookie_name()), &document)
}

fn no_version(p: &Probe<'_>) -> Outcome {
    let document = document(p)?;
    let told = document.as_object().is_some_and(|members| members.keys().any(|name| name.contains("version")));
    expect(!told, "no member with a version", document)
}

fn matcher_types(p: &Probe<'_>) -> Outcome {
    let document = document(p)?;
    let types = document["mercure_matcher_types_supported"].as_array().cloned().unwrap_or_default();
    let well_formed = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    expect(types.iter().all(|name| name.as_str().is_some_and(well_formed)), "lower-case letters and digits", document)
}

fn presence(p: &Probe<'_>) -> Outcome {
    let document = document(p)?;
    let expected = if p.hub.settings.presence { Value::Bool(true) } else { Value::Null };
    let told = &document["mercure_subscriptions"];
    expect(*told == expected || (!p.hub.settings.presence && *told == false), format!("mercure_subscriptions: {expected}"), &document)
}

fn metrics(p: &Probe<'_>) -> Result<String, Verdict> {
    let Some(url) = &p.hub.settings.metrics_url else { return skipped("the suite was told of no metrics") };
    let answer = p.fetch(url)?;
    expect(answer.status() == 200, "200", describe(&answer))?;
    Ok(answer.text())
}

/// The value of a metric without labels, or the sum over its labels.
fn value(metrics: &str, name: &str) -> Option<u64> {
    let values: Vec<u64> = metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn health_and_metrics(p: &Probe<'_>) -> Outcome {
    let text = metrics(p)?;
    for name in ["mercure_subscribers_connected", "mercure_subscribers_total", "mercure_updates_total"] {
        expect(value(&text, name).is_some(), format!("the metric {name}"), &text)?;
    }
    let Some(url) = &p.hub.settings.health_url else { return skipped("the suite was told of no health") };
    let place = crate::settings::Place::parse(url, &p.hub.settings.allowed_hosts).or_else(skipped)?;
    let base = url.strip_suffix(place.path.as_str()).unwrap_or(url);
    for path in ["/mercure/health/ready", "/mercure/health/live"] {
        let answer = p.fetch(&format!("{base}{path}"))?;
        let body: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        expect(answer.status() == 200 && body["status"] == "ok", "200 and {\"status\":\"ok\"}", describe(&answer))?;
    }
    let answer = p.fetch(url)?;
    expect(answer.status() == 200, "200", describe(&answer))
}

fn presence_not_counted(p: &Probe<'_>) -> Outcome {
    super::presence::on(p)?;
    let count = || Ok::<_, Verdict>(value(&metrics(p)?, "mercure_updates_total").unwrap_or_default());
    let topic = p.topic("a");
    let mut watcher = super::presence::watch(p, "exact", &topic)?;
    // Whatever ended before has to be over: its updates may still be on their way into the counter.
    p.published(&[("topic", &topic), ("data", "1")])?;
    let before = count()?;
    p.subscribe(&[&topic], &[])?.close();
    watcher.event()?;
    watcher.event()?;
    p.published(&[("topic", &topic), ("data", "2")])?;
    let after = p.wait_until("the update is counted", || Ok(Some(count()?).filter(|count| *count > before)))?;
    expect(after - before == 1, "one update more", format!("{before} and then {after}"))
}
