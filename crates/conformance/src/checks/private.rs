//! Private updates: who receives them, and that nothing a subscriber asks for grants anything.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed,
};
use crate::{
    probe::{Outcome, Probe, form, legacy_token},
    settings::Role,
};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[42, 204], "private counts by its presence, whatever its value", by_presence),
    must(Each, &[3, 25, 54], "matchers grant nothing: without a grant nothing private comes", no_grant),
    must(Each, &[81, 208, 327], "a grant for one topic of the update is enough, not only for the selecting one", other_topic),
    must(Each, &[327, 81], "a grant does not select: routing and grant are independent", routing_apart),
    must(Eight, &[25], "selecting everything grants nothing", star_grants_nothing),
    must(Seven, &[25, 208], "a publisher's grant is no subscriber's", publish_claim_grants_nothing),
    observed(Each, &[327], "the grant * gives all private updates that were selected", star_grant),
];

fn by_presence(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut without = p.subscribe(&[&topic], &[])?;
    let mut with = p.subscribe(&[&topic], &[&topic])?;
    let plain = form(&[("topic", &topic), ("data", "1")]);
    for private in ["private", "private=", "private=on", "private=0", "private=false", "private=no"] {
        let answer = p.publish_form(format!("{plain}&{private}"))?;
        with.next_is(answer.text().trim(), &format!("{private}: who is granted receives it"))?;
    }
    let marker = p.published(&[("topic", &topic), ("data", "2"), ("Private", "1")])?;
    with.next_is(&marker, "another name is no private")?;
    without.next_is(&marker, "who is not granted receives nothing private").map(drop)
}

fn no_grant(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let mut stream = p.subscribe(&[&a], &[&b])?;
    p.published(&[("topic", &a), ("data", "1"), ("private", "on")])?;
    let marker = p.published(&[("topic", &a), ("data", "2")])?;
    stream.next_is(&marker, "a grant for another topic").map(drop)
}

fn other_topic(p: &Probe<'_>) -> Outcome {
    let [a, b, c] = ["a", "b", "c"].map(|name| p.topic(name));
    // Selected by a, granted through b.
    let mut stream = p.subscribe(&[&a], &[&b])?;
    let both = p.published(&[("topic", &a), ("topic", &b), ("data", "1"), ("private", "on")])?;
    p.published(&[("topic", &a), ("topic", &c), ("data", "2"), ("private", "on")])?;
    let reversed = p.published(&[("topic", &b), ("topic", &a), ("data", "3"), ("private", "on")])?;
    stream.then(&[&both, &reversed], "any topic of the update may be the granted one")
}

fn routing_apart(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let mut stream = p.subscribe(&[&a], &[&a, &b])?;
    p.published(&[("topic", &b), ("data", "1"), ("private", "on")])?;
    p.published(&[("topic", &b), ("data", "2")])?;
    let wanted = p.published(&[("topic", &a), ("data", "3"), ("private", "on")])?;
    stream.next_is(&wanted, "what is granted and not selected does not come").map(drop)
}

fn star_grants_nothing(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&["*"], &[])?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    let event = stream.first("one of the two", |event| [&private, &marker].iter().any(|id| event.id.as_deref() == Some(id)))?;
    crate::probe::expect(event.id.as_deref() == Some(&marker), "only the public one", event.lines.join("\n"))
}

fn publish_claim_grants_nothing(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let token = legacy_token(serde_json::json!({"publish": ["*"]})).signed(p.key(Role::Subscribe));
    let mut stream = p.open(crate::probe::bearer(p.get(&p.select(&[&topic])), &token))?;
    p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, "a publish claim").map(drop)
}

fn star_grant(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &["*"])?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    stream.next_is(&private, "* grants").map(drop)
}
