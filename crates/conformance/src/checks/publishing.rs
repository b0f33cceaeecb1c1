//! Publications: what is accepted, what is refused, and what the answer says.

use super::{
    Check,
    When::{Each, Eight, Once, Seven},
    must, observed, ours,
};
use crate::probe::{Outcome, Probe, bearer, describe, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[37, 44, 85, 204], "a form with topic and data is published, and delivered under the id that was answered", published),
    must(Eight, &[49], "success is exactly 200 with the id as text/plain in UTF-8", the_answer),
    must(Each, &[38, 64, 204], "a publication without a topic is 400", without_topic),
    must(Each, &[2, 22, 38], "any topic of an update selects it, once per stream", alternates),
    must(Eight, &[1, 39], "topics with control or format characters, and *, are 400", bad_topics),
    ours(Seven, &[1, 39, 332, 409], "the rules for topics hold for tokens of dialect 7 too", bad_topics),
    must(Each, &[1], "topics may have any other character of Unicode", odd_topics),
    must(Eight, &[43], "ids with control characters, beginning with # or being earliest are 400", bad_ids),
    ours(Seven, &[43, 332, 409], "the rules for ids hold for tokens of dialect 7 too", bad_ids),
    must(Seven, &[204], "an id that begins with # is refused", hash_id),
    observed(Each, &[43, 204], "an id that was given is kept", given_id),
    must(Each, &[44], "ids that the hub makes are distinct IRIs or fragments", made_ids),
    observed(Once, &[304], "generated ids are never repeated", distinct_ids),
    must(Eight, &[46, 113], "types with control characters, and the reserved one, are 400", bad_types),
    ours(Seven, &[46, 113, 332, 409], "the rules for types hold for tokens of dialect 7 too", bad_types),
    must(Each, &[47, 204], "retry is ASCII digits, anything else 400", bad_retry),
    must(Each, &[48], "unknown fields are ignored", unknown_fields),
    must(Eight, &[41], "data that is not UTF-8 is 400", bad_data),
    ours(Seven, &[41, 332, 409], "data that is not UTF-8 is 400 with tokens of dialect 7 too", bad_data),
    observed(Each, &[323], "of repeated fields the first counts, and an empty retry is none", repeated_fields),
    observed(Each, &[323], "a body that is no form is 400 for want of a topic", other_content_type),
    must(Each, &[53, 60], "publishing without a token is 401", without_token),
];

fn published(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let id = p.published(&[("topic", &topic), ("data", "héllo + % & =")])?;
    expect(!id.is_empty(), "an id in the body", "nothing")?;
    let event = stream.next_is(&id, "what was published is delivered")?;
    expect(event.data == "héllo + % & =" && event.kind.is_none(), "the data as published, of the default type", event.lines.join("\n"))
}

fn the_answer(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let answer = p.publish(&[("topic", &topic), ("data", "x"), ("id", &p.unique("urn:x"))])?;
    expect(answer.status() == 200, "200", describe(&answer))?;
    stream.next_is(&answer.text(), "the body is the id that is delivered, with nothing beside it")?;
    let kind = answer.field("content-type").unwrap_or_default().to_ascii_lowercase().replace(' ', "");
    expect(kind == "text/plain;charset=utf-8", "Content-Type: text/plain; charset=utf-8", describe(&answer))
}

fn without_topic(p: &Probe<'_>) -> Outcome {
    for body in ["data=x", "", "Topic=x&data=x"] {
        let answer = p.publish_form(body)?;
        expect(answer.status() == 400, format!("400 for the body {body:?}"), describe(&answer))?;
    }
    Ok(())
}

fn alternates(p: &Probe<'_>) -> Outcome {
    let [a, b, c] = ["a", "b", "c"].map(|name| p.topic(name));
    let mut first = p.subscribe(&[&a], &[])?;
    let mut both = p.subscribe(&[&b, &c], &[])?;
    let id = p.published(&[("topic", &a), ("topic", &b), ("topic", &c), ("data", "1")])?;
    let marker = p.published(&[("topic", &a), ("topic", &c), ("data", "2")])?;
    first.then(&[&id, &marker], "the canonical topic selects")?;
    both.then(&[&id, &marker], "alternates select, and two hits deliver once")
}

/// C0, DEL, C1 and the general category Cf, at each place of a topic, id or type.
const FORBIDDEN: &[(&str, char)] = &[
    ("NUL", '\0'),
    ("TAB", '\t'),
    ("LF", '\n'),
    ("CR", '\r'),
    ("ESC", '\u{1b}'),
    ("DEL", '\u{7f}'),
    ("NEL", '\u{85}'),
    ("C1", '\u{9f}'),
    ("SOFT HYPHEN", '\u{ad}'),
    ("ARABIC NUMBER SIGN", '\u{600}'),
    ("ZERO WIDTH SPACE", '\u{200b}'),
    ("ZERO WIDTH JOINER", '\u{200d}'),
    ("RIGHT-TO-LEFT MARK", '\u{200f}'),
    ("RIGHT-TO-LEFT OVERRIDE", '\u{202e}'),
    ("RIGHT-TO-LEFT ISOLATE", '\u{2067}'),
    ("BYTE ORDER MARK", '\u{feff}'),
    ("INTERLINEAR ANNOTATION", '\u{fff9}'),
    ("TAG", '\u{e0041}'),
];

fn bad_topics(p: &Probe<'_>) -> Outcome {
    let good = p.topic("good");
    for (name, character) in FORBIDDEN {
        for topic in [format!("{}{character}", p.topic("a")), format!("{character}{}", p.topic("a")), format!("a{character}b")] {
            let answer = p.publish(&[("topic", &topic), ("data", "x")])?;
            expect(answer.status() == 400, format!("400 for {name} in a topic"), describe(&answer))?;
        }
        let answer = p.publish(&[("topic", &good), ("topic", &format!("a{character}")), ("data", "x")])?;
        expect(answer.status() == 400, format!("400 for {name} in an alternate topic"), describe(&answer))?;
    }
    for topics in [&["*"][..], &[&good, "*"]] {
        let fields: Vec<(&str, &str)> = topics.iter().map(|topic| ("topic", *topic)).collect();
        let answer = p.publish(&fields)?;
        expect(answer.status() == 400, "400 for the topic *", describe(&answer))?;
    }
    let answer = p.publish_form("topic=caf%E9&data=x")?;
    expect(answer.status() == 400, "400 for a topic that is not UTF-8", describe(&answer))
}

fn odd_topics(p: &Probe<'_>) -> Outcome {
    for odd in ["é 🦀 \u{fe0f}", "\u{2028}", "a b", "#?&=+%41", "日本語", "\u{a0}", "<script>", "{id}", "\u{1f468}"] {
        let topic = format!("{}{odd}", p.unique("t"));
        let mut stream = p.subscribe(&[&topic], &[])?;
        let id = p.published(&[("topic", &topic), ("data", odd)])?;
        stream.next_is(&id, &format!("the topic {topic:?} is one"))?;
    }
    Ok(())
}

fn bad_ids(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let refuse = |id: &str, what: &str| {
        let answer = p.publish(&[("topic", &topic), ("data", "x"), ("id", id)])?;
        expect(answer.status() == 400, format!("400 for {what} in an id"), describe(&answer))
    };
    for (name, character) in FORBIDDEN {
        refuse(&format!("a{character}b"), name)?;
    }
    refuse("earliest", "the reserved word earliest")?;
    refuse("#1", "a leading #")
}

fn hash_id(p: &Probe<'_>) -> Outcome {
    let answer = p.publish(&[("topic", &p.topic("a")), ("data", "x"), ("id", "#1")])?;
    // [C0] takes it and puts an id of its own in its place.
    expect(answer.status() == 400 || answer.text().trim() != "#1", "400, or another id", describe(&answer))
}

fn given_id(p: &Probe<'_>) -> Outcome {
    let (topic, id) = (p.topic("a"), p.unique("urn:x:é~1"));
    let mut stream = p.subscribe(&[&topic], &[])?;
    let answered = p.published(&[("topic", &topic), ("data", "x"), ("id", &id)])?;
    expect(answered == id, format!("the id {id}"), &answered)?;
    stream.next_is(&id, "the id that was given is sent").map(drop)
}

fn made_ids(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let first = p.published(&[("topic", &topic), ("data", "x")])?;
    let second = p.published(&[("topic", &topic), ("data", "x"), ("id", "")])?;
    expect(first != second, "two ids", format!("{first} twice"))?;
    for id in [first, second] {
        let scheme = id.split_once(':').is_some_and(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()));
        expect(id.starts_with('#') || scheme, "an IRI or a fragment", id)?;
    }
    Ok(())
}

fn distinct_ids(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut ids = (0..50).map(|_| p.published(&[("topic", &topic)])).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    expect(ids.len() == 50, "50 ids", ids.len())
}

fn bad_types(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for (name, character) in FORBIDDEN {
        let answer = p.publish(&[("topic", &topic), ("data", "x"), ("type", &format!("a{character}b"))])?;
        expect(answer.status() == 400, format!("400 for {name} in a type"), describe(&answer))?;
    }
    let answer = p.publish(&[("topic", &topic), ("data", "x"), ("type", "mercure")])?;
    expect(answer.status() == 400, "400 for the reserved type", describe(&answer))
}

fn bad_retry(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for retry in ["1a", "-1", "+1", "1.0", " 1", "1 ", "0x1", "\u{661}", "1\n2", "one"] {
        let answer = p.publish(&[("topic", &topic), ("data", "x"), ("retry", retry)])?;
        expect(answer.status() == 400, format!("400 for retry {retry:?}"), describe(&answer))?;
    }
    let mut stream = p.settled(&topic)?;
    let id = p.published(&[("topic", &topic), ("data", "x"), ("retry", "4321")])?;
    let event = stream.next_is(&id, "digits are taken")?;
    expect(event.retry.as_deref() == Some("4321"), "retry: 4321", event.lines.join("\n"))
}

fn unknown_fields(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let fields =
        [("target", "x"), ("topic", topic.as_str()), ("topics", "*"), ("Data", "no"), ("data", "yes"), ("event", "no"), ("match", "x")];
    let id = p.published(&fields)?;
    let event = stream.next_is(&id, "unknown fields are no obstacle")?;
    expect(event.data == "yes" && event.kind.is_none(), "data yes, no type", event.lines.join("\n"))
}

fn bad_data(p: &Probe<'_>) -> Outcome {
    let topic = form(&[("topic", &p.topic("a"))]);
    for data in ["%ff", "caf%E9", "%C3%28", "%ED%A0%80", "%C0%AF", "%F0%9F%A6"] {
        let answer = p.publish_form(format!("{topic}&data={data}"))?;
        expect(answer.status() == 400, format!("400 for data {data}"), describe(&answer))?;
    }
    Ok(())
}

fn repeated_fields(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.settled(&topic)?;
    let fields =
        [("topic", topic.as_str()), ("data", "first"), ("data", "second"), ("type", "one"), ("type", "two"), ("retry", ""), ("retry", "x")];
    let id = p.published(&fields)?;
    let event = stream.next_is(&id, "repeated fields are no obstacle")?;
    let kept = event.data == "first" && event.kind.as_deref() == Some("one") && event.retry.is_none();
    expect(kept, "data first, type one, no retry", event.lines.join("\n"))
}

fn other_content_type(p: &Probe<'_>) -> Outcome {
    let body = form(&[("topic", &p.topic("a")), ("data", "x")]);
    let request = crate::http::Request::new("POST", &p.hub.place.path).header("Content-Type", "text/plain").body(body);
    let answer = p.send(bearer(request, &p.publisher()))?;
    expect(matches!(answer.status(), 400 | 415), "400 (or 415)", describe(&answer))
}

fn without_token(p: &Probe<'_>) -> Outcome {
    let answer = p.send(p.post(form(&[("topic", &p.topic("a")), ("data", "x")])))?;
    expect(answer.status() == 401, "401", describe(&answer))
}
