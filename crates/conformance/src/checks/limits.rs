//! Limits: what is over them is refused with the status of the specification, what is within them works.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed, ours, should,
};
use crate::probe::{Outcome, Probe, bearer, describe, expect, form, skipped};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[23, 64, 115, 312], "101 matchers are 400", many_matchers),
    observed(Eight, &[23, 312], "100 matchers are served", hundred_matchers),
    must(Eight, &[23, 64, 115, 312], "a pattern of 5,000 bytes is 400", long_pattern),
    observed(Eight, &[23], "the same matcher twice delivers once", merged),
    observed(Seven, &[202, 312], "1,000 topic parameters are served, 1,001 are 400", many_topic_parameters),
    must(Each, &[51, 65, 115], "a body over the limit is 413", large_body),
    should(Each, &[51, 312], "1,000 topics in one update are taken", thousand_topics),
    must(Eight, &[51, 65, 115], "1,001 topics in one update are 413", many_topics),
    ours(Each, &[51, 312, 409], "a topic, id or type over its limit is 413", long_fields),
    must(Each, &[51], "an event just below the body's limit is delivered whole", large_event),
];

fn matchers(p: &Probe<'_>, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|number| p.unique(&number.to_string())).collect();
    p.select(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn many_matchers(p: &Probe<'_>) -> Outcome {
    let answer = p.subscribing(&matchers(p, 101))?;
    expect(answer.status() == 400, "400", describe(&answer))?;
    let patterns: Vec<String> = (0..101).map(|number| p.topic(&format!("{number}/:id"))).collect();
    let answer = p.subscribing(&form(&patterns.iter().map(|pattern| ("match_urlpattern", pattern.as_str())).collect::<Vec<_>>()))?;
    expect(answer.status() == 400, "400 for 101 patterns", describe(&answer))
}

fn hundred_matchers(p: &Probe<'_>) -> Outcome {
    let mut stream = p.subscribe_query(&matchers(p, 100), &[])?;
    for number in [0, 99] {
        let id = p.published(&[("topic", &p.unique(&number.to_string())), ("data", "x")])?;
        stream.next_is(&id, "each of a hundred counts")?;
    }
    Ok(())
}

fn long_pattern(p: &Probe<'_>) -> Outcome {
    for name in ["match", "match_exact", "match_urlpattern"] {
        let answer = p.subscribing(&form(&[(name, &p.topic(&"x".repeat(5000)))]))?;
        expect(answer.status() == 400, format!("400 for {name}"), describe(&answer))?;
    }
    Ok(())
}

fn merged(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe_query(&form(&[("match", &topic), ("match", &topic), ("match_exact", &topic)]), &[])?;
    let first = p.published(&[("topic", &topic), ("data", "1")])?;
    let second = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.then(&[&first, &second], "once each")
}

fn many_topic_parameters(p: &Probe<'_>) -> Outcome {
    let query = |count: usize| (0..count).map(|number| format!("topic={number}")).collect::<Vec<_>>().join("&");
    let most = p.subscribing(&query(1000))?;
    expect(most.status() == 200, "200 for 1,000", describe(&most))?;
    let more = p.subscribing(&query(1001))?;
    expect(more.status() == 400, "400 for 1,001", describe(&more))
}

fn large_body(p: &Probe<'_>) -> Outcome {
    let limit = p.hub.settings.body_limit;
    if limit == 0 {
        return skipped("the hub has no limit on bodies");
    }
    let body = format!("{}&data={}", form(&[("topic", &p.topic("a"))]), "x".repeat(limit + 4096));
    let answer = p.send(bearer(p.post(body), &p.publisher()))?;
    expect(answer.status() == 413, "413", describe(&answer))
}

fn topics(p: &Probe<'_>, count: usize) -> String {
    let name = p.unique("t");
    (0..count).map(|number| format!("topic={name}{number}")).collect::<Vec<_>>().join("&")
}

fn thousand_topics(p: &Probe<'_>) -> Outcome {
    let last = format!("{}999", p.unique("t"));
    let mut stream = p.subscribe(&[&last], &[])?;
    let answer = p.publish_form(format!("{}&data=x", topics(p, 1000)))?;
    expect(answer.status() == 200, "200", describe(&answer))?;
    stream.next_is(answer.text().trim(), "the last of them selects").map(drop)
}

fn many_topics(p: &Probe<'_>) -> Outcome {
    let answer = p.publish_form(format!("{}&data=x", topics(p, 1001)))?;
    expect(answer.status() == 413, "413", describe(&answer))
}

fn long_fields(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let long = |length: usize| "x".repeat(length);
    for fields in [
        vec![("topic", long(2049))],
        vec![("topic", topic.clone()), ("id", long(513))],
        vec![("topic", topic.clone()), ("type", long(129))],
    ] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = p.publish(&fields)?;
        let (name, value) = fields[fields.len() - 1];
        expect(answer.status() == 413, format!("413 for {} bytes of {name}", value.len()), describe(&answer))?;
    }
    Ok(())
}

fn large_event(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let data = "0123456789abcde\n".repeat(p.hub.settings.body_limit.clamp(1024, 512 * 1024) / 16 / 2);
    let id = p.published(&[("topic", &topic), ("data", &data)])?;
    let event = stream.next_is(&id, "a large event")?;
    expect(event.data == data, format!("{} bytes, unchanged", data.len()), format!("{} bytes", event.data.len()))
}
