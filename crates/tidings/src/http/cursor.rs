//! Where a client says it stopped (S-16 ... S-19): header before query, URL before body, and among the names of different clients the one
//! that is added on reconnect first.
//!
//! It knows how cursors are sent, not whether one can be honoured.

use crate::Cursor;
use tidings_core::limits;

/// The names in the order of S-18. The first is what polyfills add to the URL when they reconnect, so it is always the newest; pages bake
/// the others into the URL, and taking a baked one would replay from page load on every reconnect.
const NAMES: [&str; 4] = ["lastEventId", "last_event_id", "lastEventID", "Last-Event-ID"];

/// The cursors of one request, gathered from its pairs.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    in_url: [Option<String>; NAMES.len()],
    in_body: [Option<String>; NAMES.len()],
    empty_seen: bool,
    /// By name, whether it was there at all.
    seen: [bool; NAMES.len()],
}

impl Cursors {
    /// Takes a pair if it is a cursor. Of repeated names the last with a value wins.
    pub(crate) fn take(&mut self, name: &str, value: &str, in_body: bool) -> bool {
        let Some(place) = NAMES.iter().position(|known| *known == name) else { return false };
        self.seen[place] = true;
        self.empty_seen |= value.is_empty();
        if !value.is_empty() {
            let places = if in_body { &mut self.in_body } else { &mut self.in_url };
            places[place] = Some(value.to_owned());
        }
        true
    }

    /// Whether a pair was a cursor, even an empty one (M-91).
    pub(crate) fn any(&self) -> bool {
        self.seen.contains(&true)
    }

    /// Whether one had a name of dialect 7 (M-404).
    pub(crate) fn any_of_dialect_7(&self) -> bool {
        NAMES.iter().zip(self.seen).any(|(name, seen)| seen && matches!(*name, "lastEventID" | "Last-Event-ID"))
    }

    /// The cursor of the request, with the `Last-Event-ID` fields of its head. An empty cursor is none (N-14).
    pub(crate) fn choose<'a>(self, header: impl Iterator<Item = &'a [u8]>) -> Cursor {
        let mut empty_seen = self.empty_seen;
        let mut first = None;
        for value in header {
            empty_seen |= value.is_empty();
            if first.is_none() && !value.is_empty() {
                first = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
        let chosen = first.or_else(|| self.in_url.into_iter().chain(self.in_body).flatten().next());
        match chosen {
            Some(id) if id == "earliest" => Cursor::Earliest,
            Some(id) => Cursor::After(bounded(id)),
            None => {
                if empty_seen {
                    tracing::debug!("an empty cursor counts as none");
                }
                Cursor::Live
            }
        }
    }
}

/// A text longer than any id is unknown whatever its end says; the gap event repeats it, so it is cut (S-19).
fn bounded(mut id: String) -> String {
    if id.len() > limits::CURSOR {
        let end = (0..=limits::CURSOR).rev().find(|&at| id.is_char_boundary(at)).unwrap_or(0);
        id.truncate(end);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(id: &str) -> Cursor {
        Cursor::After(id.to_owned())
    }

    /// S-18: the table of what is sent and what counts.
    #[test]
    fn order_of_sources() {
        type Pairs = &'static [(&'static str, &'static str)];
        let table: &[(&str, &[&str], Pairs, Pairs, Cursor)] = &[
            ("nothing", &[], &[], &[], Cursor::Live),
            ("header", &["h"], &[("lastEventId", "q")], &[("lastEventId", "b")], after("h")),
            ("empty header", &[""], &[("last_event_id", "q")], &[], after("q")),
            ("empty header alone", &[""], &[], &[], Cursor::Live),
            ("two headers", &["", "h"], &[], &[], after("h")),
            ("name 1 before 2", &[], &[("last_event_id", "2"), ("lastEventId", "1")], &[], after("1")),
            ("name 2 before 3", &[], &[("lastEventID", "3"), ("last_event_id", "2")], &[], after("2")),
            ("name 3 before 4", &[], &[("Last-Event-ID", "4"), ("lastEventID", "3")], &[], after("3")),
            ("name 4", &[], &[("Last-Event-ID", "4")], &[], after("4")),
            ("empty name 1", &[], &[("lastEventId", ""), ("last_event_id", "2")], &[], after("2")),
            ("last of repeated", &[], &[("last_event_id", "a"), ("last_event_id", "b")], &[], after("b")),
            ("last of repeated that says something", &[], &[("last_event_id", "a"), ("last_event_id", "")], &[], after("a")),
            ("URL before body", &[], &[("Last-Event-ID", "4")], &[("lastEventId", "1")], after("4")),
            ("body", &[], &[], &[("last_event_id", "b")], after("b")),
            ("earliest in header", &["earliest"], &[], &[], Cursor::Earliest),
            ("earliest in query", &[], &[("last_event_id", "earliest")], &[], Cursor::Earliest),
            ("other case is another name", &[], &[("LASTEVENTID", "x")], &[], Cursor::Live),
        ];
        for (name, header, url, body, expected) in table {
            let mut cursors = Cursors::default();
            for (pairs, in_body) in [(url, false), (body, true)] {
                for (name, value) in *pairs {
                    cursors.take(name, value, in_body);
                }
            }
            assert_eq!(&cursors.choose(header.iter().map(|value| value.as_bytes())), expected, "{name}");
        }
    }

    /// S-19: bytes that are no text and endless ids are unknown ids, not errors.
    #[test]
    fn opaque_and_bounded() {
        assert_eq!(Cursors::default().choose([&b"a\xffb"[..]].into_iter()), after("a\u{FFFD}b"));
        let long = "é".repeat(limits::CURSOR);
        let Cursor::After(id) = Cursors::default().choose([long.as_bytes()].into_iter()) else { panic!() };
        assert_eq!(id.len(), limits::CURSOR);
    }

    #[test]
    fn takes_only_cursors() {
        let mut cursors = Cursors::default();
        assert!(cursors.take("lastEventID", "", false));
        assert!(!cursors.take("topic", "x", false));
    }
}
