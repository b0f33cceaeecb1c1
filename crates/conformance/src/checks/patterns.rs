//! URL patterns: what they match, their base, and what hostile ones cost.

use super::{Check, When::Eight, must, ours};
use crate::probe::{Outcome, Probe, describe, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[34, 115], "patterns that blow up other engines cost no more than others", catastrophic),
    must(Eight, &[32], "URL patterns match as WHATWG says", standard),
    must(Eight, &[32, 73], "relative patterns and topics have the hub URL as their base", relative),
    must(Eight, &[33], "a topic that is no URL matches no pattern", no_url),
    must(Eight, &[21, 64], "an invalid pattern is 400", invalid),
    ours(Eight, &[34], "a pattern that compiles to megabytes is 400", too_large),
];

/// Publishes every topic and expects exactly the wanted ones, in order.
fn selects(p: &Probe<'_>, pattern: &str, topics: &[(&str, bool)]) -> Outcome {
    let marker = p.topic("marker");
    let mut stream = p.subscribe_query(&form(&[("match_urlpattern", pattern), ("match", &marker)]), &[])?;
    for (topic, wanted) in topics {
        let id = p.published(&[("topic", topic), ("data", topic)])?;
        if *wanted {
            stream.next_is(&id, &format!("{pattern} matches {topic}"))?;
        } else {
            let id = p.published(&[("topic", &marker), ("data", "marker")])?;
            stream.next_is(&id, &format!("{pattern} does not match {topic}"))?;
        }
    }
    Ok(())
}

fn standard(p: &Probe<'_>) -> Outcome {
    let name = p.unique("u");
    let base = format!("https://conformance.example/{name}");
    let at = |rest: &str| format!("{base}/{rest}");
    let cases: &[(&str, &[(&str, bool)])] = &[
        ("books/:id", &[("books/1", true), ("books/1/2", false), ("books/", false), ("books/a%20b", true), ("Books/1", false)]),
        ("a/*", &[("a/", true), ("a/b/c", true), ("a", false)]),
        ("b/:x(\\d+)", &[("b/12", true), ("b/1a", false)]),
        ("c{/:x}?", &[("c", true), ("c/1", true), ("c/1/2", false)]),
        ("d/:x+", &[("d/1", true), ("d/1/2", true), ("d", false)]),
        ("e/(one|two)", &[("e/one", true), ("e/three", false)]),
        ("f", &[("f?q=1", true), ("f#h", true), ("f/", false), ("./f", true), ("x/../f", true)]),
        ("g?q=:v", &[("g?q=1", true), ("g", false)]),
    ];
    for (pattern, topics) in cases {
        let topics: Vec<(String, bool)> = topics.iter().map(|(topic, wanted)| (at(topic), *wanted)).collect();
        let topics: Vec<(&str, bool)> = topics.iter().map(|(topic, wanted)| (topic.as_str(), *wanted)).collect();
        selects(p, &at(pattern), &topics)?;
    }
    let path = format!("{name}/h");
    let upper = format!("https://CONFORMANCE.example/{path}");
    selects(p, &upper, &[(&format!("https://conformance.example/{path}"), true), (&upper, true)])?;
    let any_host = format!("https://*.example/{path}");
    selects(p, &any_host, &[(&format!("https://a.b.example/{path}"), true), (&format!("http://a.example/{path}"), false)])
}

fn relative(p: &Probe<'_>) -> Outcome {
    let name = p.unique("r");
    let (origin, path) = (p.hub.public_origin(), format!("/{name}/1"));
    let topics = [(path.clone(), true), (format!("{origin}{path}"), true), (format!("https://other.example{path}"), false)];
    let topics: Vec<(&str, bool)> = topics.iter().map(|(topic, wanted)| (topic.as_str(), *wanted)).collect();
    selects(p, &format!("/{name}/:id"), &topics)?;
    selects(p, &format!("{origin}/{name}/:id"), &topics)
}

fn no_url(p: &Probe<'_>) -> Outcome {
    let name = p.unique("n");
    let topics = [(format!("https://[{name}"), false), (format!("http://a b/{name}"), false), (format!("https://x.example/{name}"), true)];
    let topics: Vec<(&str, bool)> = topics.iter().map(|(topic, wanted)| (topic.as_str(), *wanted)).collect();
    selects(p, &format!("http{{s}}?://*/{name}"), &topics[2..])?;
    // As broad as a pattern can be, without being the wildcard itself.
    let marker = p.topic("marker");
    let mut stream = p.subscribe_query(&form(&[("match_urlpattern", &format!("*://*/*{name}")), ("match", &marker)]), &[])?;
    for (topic, _) in &topics[..2] {
        p.published(&[("topic", topic), ("data", topic)])?;
    }
    let id = p.published(&[("topic", &marker), ("data", "marker")])?;
    stream.next_is(&id, "what is no URL matches no pattern").map(drop)
}

fn invalid(p: &Probe<'_>) -> Outcome {
    for pattern in [
        "https://a.example/(",
        "https://a.example/{",
        "https://a.example/:",
        "https://a.example/(?<x>",
        "https://a.example/(é)",
        "https://a.example/([)",
        "/:a/:a",
    ] {
        let answer = p.subscribing(&form(&[("match", &p.topic("a")), ("match_urlpattern", pattern)]))?;
        expect(answer.status() == 400, format!("400 for the pattern {pattern}"), describe(&answer))?;
    }
    Ok(())
}

fn catastrophic(p: &Probe<'_>) -> Outcome {
    let name = p.unique("c");
    let attack = "a".repeat(1500);
    for group in ["(?:a+)+", "(?:a|a)*", "(?:a*)*b", "(?:a|aa)+", "(?:.*a){12}"] {
        let pattern = format!("/{name}/({group})c");
        let marker = p.topic("marker");
        let query = form(&[("match_urlpattern", &pattern), ("match", &marker)]);
        let answer = p.subscribing(&query)?;
        if answer.status() == 400 {
            continue;
        }
        let mut stream = p.subscribe_query(&query, &[])?;
        p.published(&[("topic", &format!("/{name}/{attack}d")), ("data", "attack")])?;
        let id = p.published(&[("topic", &marker), ("data", "marker")])?;
        stream.next_is(&id, &format!("{pattern} is evaluated in time, and does not match"))?;
    }
    Ok(())
}

fn too_large(p: &Probe<'_>) -> Outcome {
    for group in ["(?:a{1000}){1000}", "(?:(?:\\w{100}){100}){100}"] {
        let answer = p.subscribing(&form(&[("match_urlpattern", &format!("/x/({group})"))]))?;
        expect(answer.status() == 400, format!("400 for {group}"), describe(&answer))?;
    }
    Ok(())
}
