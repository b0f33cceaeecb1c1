//! The event stream's framing: nothing that is published can forge a line, and text arrives as it was sent.

use super::{
    Check,
    When::{Each, Eight, Once},
    must, observed, ours,
};
use crate::probe::{Outcome, Probe, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[26, 41, 204], "every field arrives: type, retry, id, data of several lines", fields),
    must(Each, &[41, 112], "CR, LF and CRLF in data end lines and forge nothing", line_ends),
    must(Eight, &[112, 43, 46, 1], "CR, LF and NUL are 400 in topic, id, type and retry", forged_fields),
    observed(Each, &[303], "data is always there, and one space follows each colon", spaces),
    ours(Once, &[303], "the id is the last line of an event", id_last),
    observed(Each, &[110], "long, binary-looking and right-to-left text arrives unchanged", text),
];

fn fields(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.settled(&topic)?;
    let id = p.published(&[("topic", &topic), ("data", "one\ntwo\n\nfour"), ("type", "kind é"), ("retry", "0123")])?;
    let event = stream.next_is(&id, "an event with everything")?;
    let all = event.kind.as_deref() == Some("kind é")
        && event.data == "one\ntwo\n\nfour"
        && event.retry.as_deref().map(|retry| retry.trim_start_matches('0')) == Some("123");
    expect(all, "event: kind é, retry: 123, four lines of data", event.lines.join("\n"))
}

fn line_ends(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.settled(&topic)?;
    for (sent, shown) in [
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\r\r\nb", "a\n\nb"),
        ("x\nid: forged\nevent: forged\nretry: 1", "x\nid: forged\nevent: forged\nretry: 1"),
        ("x\r\rdata: forged\r\r", "x\n\ndata: forged\n\n"),
        ("x\n\nid: forged\n\ndata: forged\n\n", "x\n\nid: forged\n\ndata: forged\n\n"),
        ("\n", "\n"),
        ("\r\n", "\n"),
        ("a\n", "a\n"),
        ("\u{85}\u{2028}\u{b}\u{c}", "\u{85}\u{2028}\u{b}\u{c}"),
    ] {
        let id = p.published(&[("topic", &topic), ("data", sent)])?;
        let event = stream.next_is(&id, &format!("data {sent:?}"))?;
        expect(
            event.data == shown && event.kind.is_none() && event.retry.is_none(),
            format!("{shown:?} and nothing else"),
            format!("{event:?}"),
        )?;
    }
    Ok(())
}

fn forged_fields(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for bad in ["x\ndata: y", "x\rdata: y", "x\0", "\n", "\r", "\0"] {
        for fields in [
            vec![("topic", bad)],
            vec![("topic", topic.as_str()), ("id", bad)],
            vec![("topic", topic.as_str()), ("type", bad)],
            vec![("topic", topic.as_str()), ("retry", bad)],
        ] {
            let answer = p.publish(&fields)?;
            expect(answer.status() == 400, format!("400 for {:?}", fields[fields.len() - 1]), crate::probe::describe(&answer))?;
        }
    }
    Ok(())
}

fn spaces(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.settled(&topic)?;
    for data in [Some("  two in front"), Some(""), None, Some(":")] {
        let mut fields = vec![("topic", topic.as_str()), ("type", "t")];
        fields.extend(data.map(|data| ("data", data)));
        let id = p.published(&fields)?;
        let event = stream.next_is(&id, &format!("data {data:?}"))?;
        expect(event.data == data.unwrap_or_default(), format!("{data:?}"), event.lines.join("\n"))?;
        let spaced =
            event.lines.iter().filter(|line| !line.starts_with(':')).all(|line| line.contains(": ") || line == "data" || line == "data:");
        expect(spaced, "a space after each colon", event.lines.join("\n"))?;
    }
    Ok(())
}

fn id_last(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.settled(&topic)?;
    let id = p.published(&[("topic", &topic), ("data", "one\ntwo"), ("type", "t"), ("retry", "5")])?;
    let event = stream.next_is(&id, "an event with everything")?;
    let own = |line: &&String| !line.starts_with(':') && !line.starts_with("topics:");
    let lines: Vec<&str> = event.lines.iter().filter(own).map(String::as_str).collect();
    let last = format!("id: {id}");
    let expected = ["event: t", "retry: 5", "data: one", "data: two", &last];
    expect(lines == expected, expected.join("\n"), event.lines.join("\n"))
}

fn text(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    for data in ["\u{202e}abc\u{2066}", "\u{0}\u{1}\u{7f}\u{80}\u{feff}", "🦀".repeat(20_000).as_str(), "\u{feff}first"] {
        let answer = p.publish_form(form(&[("topic", &topic), ("data", data)]))?;
        expect(answer.status() == 200, "200", crate::probe::describe(&answer))?;
        let event = stream.next_is(answer.text().trim(), "any text")?;
        expect(event.data == data, format!("{} bytes unchanged", data.len()), format!("{} bytes", event.data.len()))?;
    }
    Ok(())
}
