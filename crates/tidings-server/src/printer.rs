//! How `tidings subscribe` shows events: as they are, with a heading, or as JSON lines.
//!
//! It writes to whatever it is given and knows nothing of connections.

use crate::text;
use serde_json::Value;
use std::{
    borrow::Cow,
    io::{self, Write},
};
use tidings::Message;

/// The type of the event by which a hub says that events are missing (N-14).
pub(crate) const GAP: &str = "tidings.gap";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// The data, and a line end.
    Data,
    /// A line with topic, type and id before it.
    Heading,
    /// One JSON object a line.
    Json,
}

/// Writes events to `out`.
pub(crate) struct Printer<W> {
    pub(crate) out: W,
    pub(crate) style: Style,
    /// Somebody's screen: control characters are written out.
    pub(crate) is_terminal: bool,
}

impl<W: Write> Printer<W> {
    /// Writes one event. A gap is said on standard error and is data only for programs, that is, as JSON.
    pub(crate) fn event(&mut self, message: &Message) -> io::Result<()> {
        match self.style {
            Style::Json => {
                let topic = message.topics.first();
                let line = serde_json::json!({
                    "topic": topic, "topics": message.topics, "id": message.id, "type": message.event_type, "data": message.data,
                });
                serde_json::to_writer(&mut self.out, &line)?;
                writeln!(self.out)
            }
            Style::Data | Style::Heading if message.event_type == GAP => Ok(()),
            Style::Data => writeln!(self.out, "{}", self.shown(&message.data)),
            Style::Heading => {
                let topics = message.topics.join(" ");
                let heading = format!("topic={topics} type={} id={}", message.event_type, message.id);
                // Always on one line: a topic cannot have a line break, but this reads what any server sent.
                writeln!(self.out, "{}", text::printable(&heading).replace('\n', " "))?;
                writeln!(self.out, "{}", self.shown(&message.data))
            }
        }
    }

    fn shown<'a>(&self, data: &'a str) -> Cow<'a, str> {
        if self.is_terminal { text::printable(data) } else { Cow::Borrowed(data) }
    }
}

/// What a gap event says, for a person.
pub(crate) fn gap(message: &Message) -> String {
    let said: Value = serde_json::from_str(&message.data).unwrap_or_default();
    let member = |name: &str| said.get(name).and_then(Value::as_str);
    let after = member("requested").map_or_else(String::new, |id| format!(" after {id}"));
    let reason = member("reason").unwrap_or("unknown");
    let because = match reason {
        "evicted" => "they are no longer kept",
        "epoch" => "the hub began a new log",
        "lagged" => "this reader fell too far behind",
        "lost" => "a crash of the hub undid them",
        "damaged" => "the store of the hub cannot read them",
        _ => "the hub does not know that id",
    };
    let on = member("earliest").map_or_else(|| "going on with what is new".to_owned(), |id| format!("going on with {id}"));
    format!("gap: events{after} may be missing ({reason}: {because}); {on}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event_type: &str, data: &str, topics: &[&str]) -> Message {
        let topics: String = topics.iter().flat_map(|topic| ["topics: ", topic, "\n"]).collect();
        let stream = format!("{topics}event: {event_type}\ndata: {data}\nid: 7\n\n");
        let mut message = None;
        let take = |item| {
            if let tidings::Item::Message(found) = item {
                message = Some(found);
            }
        };
        tidings::Parser::new(1 << 16).push(stream.as_bytes(), take).unwrap();
        message.unwrap()
    }

    fn print(style: Style, is_terminal: bool, message: &Message) -> String {
        let mut printer = Printer { out: Vec::new(), style, is_terminal };
        printer.event(message).unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn styles() {
        let event = message("order", "a\u{1b}[1mé", &["orders/1", "orders"]);
        assert_eq!(print(Style::Data, false, &event), "a\u{1b}[1mé\n");
        assert_eq!(print(Style::Data, true, &event), "a\\u{1b}[1mé\n");
        assert_eq!(print(Style::Heading, false, &event), "topic=orders/1 orders type=order id=7\na\u{1b}[1mé\n");
        assert_eq!(
            print(Style::Json, false, &event),
            "{\"data\":\"a\\u001b[1mé\",\"id\":\"7\",\"topic\":\"orders/1\",\"topics\":[\"orders/1\",\"orders\"],\"type\":\"order\"}\n"
        );
        assert!(print(Style::Json, false, &message("message", "", &[])).contains("\"topic\":null,\"topics\":[]"));
    }

    /// N-14: a gap is an event for programs and a sentence for people.
    #[test]
    fn gaps() {
        let event = message(GAP, r##"{"requested":"#1-2","earliest":"#3-4","reason":"epoch"}"##, &[]);
        assert_eq!(print(Style::Data, false, &event), "");
        assert!(print(Style::Json, false, &event).contains("\"type\":\"tidings.gap\""));
        assert_eq!(gap(&event), "gap: events after #1-2 may be missing (epoch: the hub began a new log); going on with #3-4");
        let nothing = message(GAP, "not JSON", &[]);
        assert_eq!(gap(&nothing), "gap: events may be missing (unknown: the hub does not know that id); going on with what is new");
    }
}
