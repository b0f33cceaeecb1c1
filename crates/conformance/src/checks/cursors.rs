//! Where a cursor is read from, and which response field tells where the stream begins.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed, ours,
};
use crate::probe::{Outcome, Probe, bearer, encoded, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[86, 211, 87], "the cursor comes by header or query", both_places),
    must(Each, &[86, 211], "the header beats the query", header_first),
    must(Each, &[91, 92, 211], "whenever a cursor was sent, the field names the event before the first", start_field),
    must(Each, &[92, 93, 333], "an unknown cursor is told, and the stream is live", unknown),
    must(Eight, &[91], "an empty cursor is a cursor: the field is there", empty_tells),
    observed(Each, &[324], "an empty cursor opens a live stream", empty_is_live),
    observed(Seven, &[216, 217], "the query parameter Last-Event-ID is read, alone and beside lastEventID", old_name),
    ours(
        Each,
        &[403, 217],
        "lastEventId beats last_event_id, which beats lastEventID and Last-Event-ID; of repeated ones the last wins",
        order,
    ),
    ours(Each, &[403, 324], "an empty cursor means live, and earliest in the field", empty_is_earliest),
    ours(Seven, &[404], "with a parameter of dialect 7 both fields are sent", both_fields),
    ours(Eight, &[404], "without any parameter of dialect 7 only the newer field is sent", one_field),
    ours(Each, &[407], "a cursor that cannot be honoured: earliest in the field, then live, no extra event", unhonoured),
    must(Each, &[91], "without a cursor nothing is told", no_cursor),
];

/// Three events, and where they were published.
fn three(p: &Probe<'_>) -> Result<(String, [String; 3]), crate::probe::Verdict> {
    let topic = p.topic("a");
    let publish = |data| p.published(&[("topic", &topic), ("data", data)]);
    let ids = [publish("1")?, publish("2")?, publish("3")?];
    Ok((topic, ids))
}

fn both_places(p: &Probe<'_>) -> Outcome {
    let (topic, [first, second, third]) = three(p)?;
    let token = p.subscriber(&[]);
    for name in ["Last-Event-ID", "last-event-id"] {
        let mut by_header = p.open(bearer(p.get(&p.select(&[&topic])), &token).header(name, &first))?;
        by_header.then(&[&second, &third], "everything after the cursor of the header")?;
    }
    let mut by_query = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &second)]), &[])?;
    by_query.then(&[&third], "everything after the cursor of the query")?;
    let live = p.published(&[("topic", &topic), ("data", "4")])?;
    by_query.then(&[&live], "then live")
}

fn header_first(p: &Probe<'_>) -> Outcome {
    let (topic, [first, second, third]) = three(p)?;
    let request = bearer(p.get(&form(&[(p.selector(), &topic), (p.cursor(), &first)])), &p.subscriber(&[]));
    let mut stream = p.open(request.header("Last-Event-ID", &second))?;
    stream.then(&[&third], "the header's cursor counts")
}

fn start_field(p: &Probe<'_>) -> Outcome {
    let (topic, [first, _, third]) = three(p)?;
    for cursor in [&first, &third] {
        let stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), cursor)]), &[])?;
        let told = stream.head.field(p.start_field());
        expect(told.as_ref() == Some(cursor), format!("{}: {cursor}", p.start_field()), &stream.head.text)?;
    }
    let stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), "earliest")]), &[])?;
    expect(stream.head.field(p.start_field()).as_deref() == Some("earliest"), format!("{}: earliest", p.start_field()), &stream.head.text)
}

fn unknown(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    let cursor = p.unique("urn:unknown");
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &cursor)]), &[])?;
    let told = stream.head.field(p.start_field());
    let as_said = if p.is_eight() { told.as_deref() == Some("earliest") } else { told.as_ref().is_some_and(|told| *told != cursor) };
    expect(as_said, format!("{}: earliest (in dialect 7 anything but the cursor)", p.start_field()), &stream.head.text)?;
    let live = p.published(&[("topic", &topic), ("data", "4")])?;
    stream.first("what is published now", |event| event.id.as_deref() == Some(&live)).map(drop)
}

fn unhonoured(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    let cursor = p.unique("urn:unknown");
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &cursor)]), &[])?;
    expect(
        stream.head.field("mercure-last-event-id").as_deref() == Some("earliest"),
        "Mercure-Last-Event-ID: earliest",
        &stream.head.text,
    )?;
    let live = p.published(&[("topic", &topic), ("data", "4")])?;
    stream.next_is(&live, "nothing but live events").map(drop)
}

fn with_empty(p: &Probe<'_>, topic: &str) -> [String; 3] {
    let select = p.select(&[topic]);
    [format!("{select}&{}=", p.cursor()), format!("{select}&{}", p.cursor()), select]
}

fn empty_tells(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    let [by_value, by_name, plain] = with_empty(p, &topic);
    for query in [by_value, by_name] {
        let stream = p.subscribe_query(&query, &[])?;
        expect(stream.head.field(p.start_field()).is_some(), p.start_field(), &stream.head.text)?;
    }
    let stream = p.open(bearer(p.get(&plain), &p.subscriber(&[])).header("Last-Event-ID", ""))?;
    expect(stream.head.field(p.start_field()).is_some(), format!("{} for an empty header", p.start_field()), &stream.head.text)
}

fn empty_is_live(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    for query in &with_empty(p, &topic)[..2] {
        let mut stream = p.subscribe_query(query, &[])?;
        let live = p.published(&[("topic", &topic), ("data", "4")])?;
        stream.next_is(&live, "nothing older comes")?;
    }
    Ok(())
}

fn empty_is_earliest(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    for query in &with_empty(p, &topic)[..2] {
        let stream = p.subscribe_query(query, &[])?;
        expect(
            stream.head.field("mercure-last-event-id").as_deref() == Some("earliest"),
            "Mercure-Last-Event-ID: earliest",
            &stream.head.text,
        )?;
    }
    empty_is_live(p)
}

fn old_name(p: &Probe<'_>) -> Outcome {
    let (topic, [first, second, third]) = three(p)?;
    let mut alone = p.subscribe_query(&form(&[("topic", &topic), ("Last-Event-ID", &first)]), &[])?;
    alone.then(&[&second, &third], "Last-Event-ID as a query parameter")?;
    let mut both = p.subscribe_query(&form(&[("topic", &topic), ("lastEventID", &second), ("Last-Event-ID", &second)]), &[])?;
    both.then(&[&third], "both, with the same value")
}

fn order(p: &Probe<'_>) -> Outcome {
    let (topic, [first, second, third]) = three(p)?;
    let select = p.select(&[&topic]);
    let names = ["lastEventId", "last_event_id", "lastEventID", "Last-Event-ID"];
    for (at, stronger) in names.iter().enumerate() {
        for weaker in &names[at + 1..] {
            for query in [
                format!("{weaker}={}&{stronger}={}", encoded(&first), encoded(&second)),
                format!("{stronger}={}&{weaker}={}", encoded(&second), encoded(&first)),
                format!("{stronger}=&{weaker}={}", encoded(&second)),
            ] {
                let mut stream = p.subscribe_query(&format!("{select}&{query}"), &[])?;
                stream.then(&[&third], &query)?;
            }
        }
        let repeated = format!("{select}&{stronger}={}&{stronger}={}", encoded(&first), encoded(&second));
        p.subscribe_query(&repeated, &[])?.then(&[&third], &repeated)?;
    }
    // An empty header is none.
    let request = bearer(p.get(&format!("{select}&{}={}", p.cursor(), encoded(&second))), &p.subscriber(&[]));
    p.open(request.header("Last-Event-ID", ""))?.then(&[&third], "an empty header beside a cursor in the query")
}

fn both_fields(p: &Probe<'_>) -> Outcome {
    let (topic, [first, ..]) = three(p)?;
    for query in [form(&[("topic", &topic), ("lastEventID", &first)]), form(&[("topic", &topic), ("last_event_id", &first)])] {
        let stream = p.subscribe_query(&query, &[])?;
        for name in ["Mercure-Last-Event-ID", "Last-Event-ID"] {
            expect(stream.head.field(name).as_ref() == Some(&first), format!("{name}: {first}"), &stream.head.text)?;
        }
    }
    Ok(())
}

fn one_field(p: &Probe<'_>) -> Outcome {
    let (topic, [first, ..]) = three(p)?;
    let stream = p.subscribe_query(&form(&[("match", &topic), ("last_event_id", &first)]), &[])?;
    expect(stream.head.field("last-event-id").is_none(), "no Last-Event-ID", &stream.head.text)
}

fn no_cursor(p: &Probe<'_>) -> Outcome {
    let (topic, _) = three(p)?;
    let mut stream = p.subscribe(&[&topic], &[])?;
    expect(stream.head.field(p.start_field()).is_none(), format!("no {}", p.start_field()), &stream.head.text)?;
    let live = p.published(&[("topic", &topic), ("data", "4")])?;
    stream.next_is(&live, "nothing older comes").map(drop)
}
