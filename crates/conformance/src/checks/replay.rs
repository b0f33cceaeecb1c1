//! Replay: everything after the cursor, in order, judged event by event by the token that asks.

use super::{
    Check,
    When::{Each, Once},
    must, observed,
};
use crate::{
    http::Connection,
    probe::{Outcome, Probe, bearer, expect, failed, form},
};
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    observed(Once, &[343, 87], "a replay of more than a thousand events is whole, and goes on live", long_replay),
    must(Each, &[87, 211], "everything of the selected topics after the cursor, in order, then live", everything_after),
    must(Each, &[88], "replayed private updates need a grant of the token that asks", authorised_again),
    must(Each, &[89, 92], "earliest begins with the oldest event that is kept", earliest),
    must(Each, &[90], "an id that occurs twice means its first occurrence", duplicates),
    must(Each, &[85, 110], "a replayed event is the one that was delivered", the_same),
    must(Each, &[86, 43], "ids of publishers are cursors, whatever characters they have", odd_ids),
];

fn publish_numbers(p: &Probe<'_>, topic: &str, count: usize) -> Result<Vec<String>, crate::probe::Verdict> {
    (0..count).map(|number| p.published(&[("topic", topic), ("data", &number.to_string())])).collect()
}

fn everything_after(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let mut ids = vec![];
    for number in 0..20 {
        ids.push(p.published(&[("topic", &a), ("data", &number.to_string())])?);
        p.published(&[("topic", &b), ("data", "of another topic")])?;
    }
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &a), (p.cursor(), &ids[4])]), &[])?;
    ids.push(p.published(&[("topic", &a), ("data", "live")])?);
    let expected: Vec<&str> = ids[5..].iter().map(String::as_str).collect();
    stream.then(&expected, "no loss, no duplicate, no other topic, in order")
}

fn authorised_again(p: &Probe<'_>) -> Outcome {
    let [a, b] = ["a", "b"].map(|name| p.topic(name));
    let first = p.published(&[("topic", &a), ("data", "1")])?;
    let of_a = p.published(&[("topic", &a), ("data", "2"), ("private", "on")])?;
    let of_b = p.published(&[("topic", &b), ("data", "3"), ("private", "on")])?;
    let last = p.published(&[("topic", &a), ("data", "4")])?;
    let query = form(&[(p.selector(), &a), (p.selector(), &b), (p.cursor(), &first)]);
    for (granted, expected) in
        [(vec![], vec![&last]), (vec![&a], vec![&of_a, &last]), (vec![&b], vec![&of_b, &last]), (vec![&a, &b], vec![&of_a, &of_b, &last])]
    {
        let granted: Vec<&str> = granted.into_iter().map(String::as_str).collect();
        let expected: Vec<&str> = expected.into_iter().map(String::as_str).collect();
        p.subscribe_query(&query, &granted)?.then(&expected, &format!("the grant {granted:?}"))?;
    }
    // A cursor may name an event that the reader may not see.
    p.subscribe_query(&form(&[(p.selector(), &a), (p.cursor(), &of_a)]), &[])?.then(&[&last], "a cursor that the reader may not see")
}

fn earliest(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let ids = publish_numbers(p, &topic, 3)?;
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), "earliest")]), &[])?;
    stream.then(&ids.iter().map(String::as_str).collect::<Vec<_>>(), "everything that is kept of the topic")?;
    let mut by_header = p.open(bearer(p.get(&p.select(&[&topic])), &p.subscriber(&[])).header("Last-Event-ID", "earliest"))?;
    by_header.then(&[&ids[0]], "earliest in the header")
}

fn duplicates(p: &Probe<'_>) -> Outcome {
    let (topic, id) = (p.topic("a"), p.unique("urn:twice"));
    if p.published(&[("topic", &topic), ("data", "1"), ("id", &id)])? != id {
        return crate::probe::skipped("the hub makes ids of its own");
    }
    let between = p.published(&[("topic", &topic), ("data", "2")])?;
    p.published(&[("topic", &topic), ("data", "3"), ("id", &id)])?;
    let last = p.published(&[("topic", &topic), ("data", "4")])?;
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &id)]), &[])?;
    stream.then(&[&between, &id, &last], "everything after the first occurrence, later ones too")
}

fn the_same(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let first = p.published(&[("topic", &topic), ("data", "1")])?;
    let mut live = p.subscribe(&[&topic], &[])?;
    // Encrypted data in compact form, as a publisher would send it.
    let jwe = "eyJhbGciOiJSU0EtT0FFUC0yNTYiLCJlbmMiOiJBMjU2R0NNIn0.a-_b.c.d-_e.f";
    let id = p.published(&[("topic", &topic), ("data", jwe), ("type", "kind"), ("retry", "1234"), ("topic", &p.topic("b"))])?;
    let mut replayed = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &first)]), &[])?;
    let shown = live.next_is(&id, "live")?;
    let again = replayed.next_is(&id, "replayed")?;
    let fields = |event: &crate::stream::Event| (event.kind.clone(), event.data.clone(), event.retry.clone());
    expect(
        fields(&shown) == (Some("kind".into()), jwe.into(), Some("1234".into())),
        "type, data and retry as published",
        shown.lines.join("\n"),
    )?;
    expect(fields(&shown) == fields(&again), shown.lines.join("\n"), again.lines.join("\n"))
}

fn odd_ids(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for odd in ["urn:x:\"quoted\\\"", "a b", "é🦀", "%41", "a&b=c", "<x>", "0", "a,b;c"] {
        let id = p.unique(odd);
        if p.published(&[("topic", &topic), ("data", "1"), ("id", &id)])? != id {
            return crate::probe::skipped("the hub makes ids of its own");
        }
        let next = p.published(&[("topic", &topic), ("data", "2")])?;
        let mut by_query = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &id)]), &[])?;
        by_query.then(&[&next], &format!("the cursor {id:?} in the query"))?;
        let mut by_header = p.open(bearer(p.get(&p.select(&[&topic])), &p.subscriber(&[])).header("Last-Event-ID", &id))?;
        by_header.then(&[&next], &format!("the cursor {id:?} in the header"))?;
    }
    Ok(())
}

fn long_replay(p: &Probe<'_>) -> Outcome {
    const COUNT: usize = 1100;
    let topic = p.topic("a");
    // One connection for all of them: a thousand handshakes are not what is tested.
    let request =
        bearer(crate::http::Request::new("POST", &p.hub.place.path), &p.publisher()).form(form(&[("topic", &topic), ("data", "x")]));
    let bytes = request.bytes(&p.hub.place.host);
    let patience = p.hub.settings.patience;
    let mut ids = vec![];
    let published = Connection::open(p.hub.place.address, patience).and_then(|mut connection| {
        for _ in 0..COUNT {
            connection.send(&bytes)?;
            let head = connection.head(&request, Instant::now() + patience)?;
            let body = connection.whole(Instant::now() + patience)?;
            ids.push((head.status, String::from_utf8_lossy(&body).trim().to_owned()));
        }
        Ok(())
    });
    if let Err(error) = published {
        return failed(format!("{COUNT} publications on one connection"), format!("{error} after {}", ids.len()));
    }
    let mut stream = p.subscribe_query(&form(&[(p.selector(), &topic), (p.cursor(), &ids[0].1)]), &[])?;
    for (number, (_, id)) in ids.iter().enumerate().skip(1) {
        stream.next_is(id, &format!("event {number} of {COUNT}"))?;
    }
    let live = p.published(&[("topic", &topic), ("data", "live")])?;
    stream.next_is(&live, "then live").map(drop)
}
