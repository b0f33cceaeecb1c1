//! Pages of other origins: which may read, what they are shown, and that nobody is reflected blindly.

use super::{
    Check,
    When::{Each, Once},
    must, observed, ours,
};
use crate::{
    http::{Head, Request},
    probe::{Outcome, Probe, Verdict, bearer, describe, expect, skipped},
};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[28], "an origin that is not listed gets no CORS headers, and is never reflected", no_reflection),
    must(Each, &[28], "a listed origin is named, with credentials", listed),
    observed(Once, &[314, 339], "the preflight of a listed origin allows methods and headers", preflight),
    observed(Once, &[339], "origins are compared without case and echoed as sent", origin_case),
    ours(Each, &[404, 314, 107], "cursor fields and Link are exposed to other origins", exposed),
];

fn origin<'p>(p: &'p Probe<'_>) -> Result<&'p str, Verdict> {
    p.hub.settings.cors_origin.as_deref().map_or_else(|| skipped("the suite was told of no CORS origin"), Ok)
}

fn allows(head: &Head) -> Option<String> {
    head.field("access-control-allow-origin")
}

fn stream_head(p: &Probe<'_>, origin: &str) -> Result<Head, Verdict> {
    let request = bearer(p.get(&p.select(&[&p.topic("a")])), &p.subscriber(&[])).header("Origin", origin);
    Ok(p.send(request)?.head)
}

fn no_reflection(p: &Probe<'_>) -> Outcome {
    for other in ["https://evil.example", "null"] {
        let head = stream_head(p, other)?;
        expect(allows(&head).is_none_or(|allowed| allowed != other), "no reflection of a strange origin", &head.text)?;
        expect(
            head.field("access-control-allow-credentials").is_none() || allows(&head).is_none(),
            "no credentials for a strange origin",
            &head.text,
        )?;
    }
    if let Ok(origin) = origin(p) {
        for near in [format!("{origin}.evil.example"), format!("{origin}0")] {
            let head = stream_head(p, &near)?;
            expect(allows(&head).is_none_or(|allowed| allowed != near), format!("no reflection of {near}"), &head.text)?;
        }
    }
    let request =
        Request::new("OPTIONS", &p.hub.place.path).header("Origin", "https://evil.example").header("Access-Control-Request-Method", "POST");
    let answer = p.send(request)?;
    expect(allows(&answer.head).is_none_or(|allowed| allowed != "https://evil.example"), "no permission in a preflight", describe(&answer))
}

fn listed(p: &Probe<'_>) -> Outcome {
    let origin = origin(p)?;
    let head = stream_head(p, origin)?;
    expect(
        head.status == 200 && allows(&head).as_deref() == Some(origin),
        format!("200 and Access-Control-Allow-Origin: {origin}"),
        &head.text,
    )?;
    expect(
        head.field("access-control-allow-credentials").as_deref() == Some("true"),
        "Access-Control-Allow-Credentials: true",
        &head.text,
    )?;
    expect(head.field("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")), "Vary: Origin", &head.text)
}

fn preflight(p: &Probe<'_>) -> Outcome {
    let origin = origin(p)?;
    for method in ["GET", "HEAD", "POST"] {
        let request = Request::new("OPTIONS", &p.hub.place.path)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", method)
            .header("Access-Control-Request-Headers", "authorization,cache-control,last-event-id");
        let answer = p.send(request)?;
        expect(
            matches!(answer.status(), 200 | 204) && allows(&answer.head).as_deref() == Some(origin),
            "200 or 204, allowed",
            describe(&answer),
        )?;
        let methods = answer.field("access-control-allow-methods").unwrap_or_default();
        expect(methods.contains(method), format!("{method} among the methods"), describe(&answer))?;
        let headers = answer.field("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
        let all = ["authorization", "cache-control", "last-event-id"].iter().all(|name| headers.contains(name));
        expect(all, "authorization, cache-control and last-event-id", describe(&answer))?;
    }
    Ok(())
}

fn origin_case(p: &Probe<'_>) -> Outcome {
    let upper = origin(p)?.to_ascii_uppercase();
    let head = stream_head(p, &upper)?;
    expect(allows(&head).as_deref() == Some(&upper), format!("Access-Control-Allow-Origin: {upper}"), &head.text)
}

fn exposed(p: &Probe<'_>) -> Outcome {
    let head = stream_head(p, origin(p)?)?;
    let names = head.field("access-control-expose-headers").unwrap_or_default().to_ascii_lowercase();
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let all = ["mercure-last-event-id", "last-event-id", "link"].iter().all(|name| names.contains(name));
    expect(all, "Mercure-Last-Event-ID, Last-Event-ID and Link exposed", &head.text)
}
