//! Server-sent events as they are on the wire: blocks of lines, with the lines kept for those who look at bytes.
//!
//! It knows the event stream format and nothing of who sends it.

/// One block of a stream that has data: what a client would dispatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Every line of the block as received, comments too.
    pub(crate) lines: Vec<String>,
    /// Of the field `event`.
    pub(crate) kind: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<String>,
    /// Lines joined by LF.
    pub(crate) data: String,
    /// Values of `topics:` lines (M-130).
    pub(crate) topics: Vec<String>,
}

/// Takes the next event with data out of the received bytes; blocks without data are passed over.
///
/// A hub that ends its lines with CR or CRLF is read too, as clients must.
pub(crate) fn next_event(received: &mut Vec<u8>) -> Option<Event> {
    loop {
        let (block, length) = next_block(received)?;
        received.drain(..length);
        if block.lines.iter().any(|line| line == "data" || line.starts_with("data:")) {
            return Some(block);
        }
    }
}

/// The lines up to the next blank one, and how many bytes that is.
fn next_block(received: &[u8]) -> Option<(Event, usize)> {
    let mut event = Event::default();
    let mut data: Vec<String> = vec![];
    let mut at = 0;
    loop {
        let rest = &received[at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        let width = match (rest[end], rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => 2,
            // Whether an LF follows is not known yet.
            (b'\r', None) => return None,
            _ => 1,
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        at += end + width;
        if line.is_empty() {
            event.data = data.join("\n");
            return Some((event, at));
        }
        let (field, value) =
            line.split_once(':').map_or((line.as_str(), ""), |(field, value)| (field, value.strip_prefix(' ').unwrap_or(value)));
        match field {
            "event" => event.kind = Some(value.to_owned()),
            "id" => event.id = Some(value.to_owned()),
            "retry" => event.retry = Some(value.to_owned()),
            "data" => data.push(value.to_owned()),
            "topics" => event.topics.push(value.to_owned()),
            _ => {}
        }
        event.lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_data_are_passed_over() {
        let mut received =
            b": hb\nretry: 5\nid: 1\n\n: hb\nevent: e\nretry: 7\ndata: a\ndata:  b\ndata\ntopics: t\nid: 2\n\ndata: half\n".to_vec();
        let event = next_event(&mut received).unwrap();
        assert_eq!((event.kind.as_deref(), event.id.as_deref(), event.retry.as_deref()), (Some("e"), Some("2"), Some("7")));
        assert_eq!((event.data.as_str(), event.topics.as_slice()), ("a\n b\n", &["t".to_owned()][..]));
        assert_eq!(event.lines[0], ": hb");
        assert_eq!(next_event(&mut received), None);
        assert_eq!(received, b"data: half\n");
    }

    #[test]
    fn other_line_ends_are_read_too() {
        let mut received = b"data: a\r\ndata: b\r\r\ndata: c\r".to_vec();
        // A lone CR before CRLF ends a line; the CRLF that follows is the blank one.
        assert_eq!(next_event(&mut received).unwrap().data, "a\nb");
        assert_eq!(next_event(&mut received), None);
    }
}
