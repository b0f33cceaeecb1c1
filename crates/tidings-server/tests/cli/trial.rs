//! Who takes part in a crash trial: publishers who come again with the same key until they are answered, and readers who resume; and what
//! must be true of what they saw (N-4, N-6, N-14).
//!
//! It knows one hub's address at a time, not when the hub dies.

use crate::program::DEADLINE;
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What was published: publisher, number of its request, place in the batch, size of the batch.
pub(crate) type Name = (u64, u64, u64, u64);

/// The whole answer to a request, or nothing if the hub is gone.
pub(crate) fn exchange(address: &str, request: &str, body: &str) -> Option<String> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let fields = format!("host: {address}\r\nconnection: close\r\ncontent-length: {}", body.len());
    socket.write_all(format!("{request}\r\n{fields}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    (body.len() == length).then_some(answer)
}

/// Publishes; the ids, or nothing if the hub is gone.
pub(crate) fn post(address: &str, path: &str, fields: &str, body: &str) -> Option<String> {
    loop {
        let answer = exchange(address, &format!("POST {path} HTTP/1.1\r\n{fields}"), body)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, ids)) if head.starts_with("HTTP/1.1 200") => return Some(ids.to_owned()),
            // A busy machine: delivery did not keep up.
            _ if answer.starts_with("HTTP/1.1 503") => {}
            _ => panic!("{answer}"),
        }
    }
}

/// One whose requests are numbered, and each is answered before the next one is sent.
#[derive(Default)]
pub(crate) struct Publisher {
    number: u64,
    topic: &'static str,
    /// Bytes added to each event.
    padding: usize,
    /// The ids of each request that was answered.
    pub(crate) answered: Vec<String>,
    /// The next request was sent and not answered.
    open: bool,
    /// Requests that were sent again because they were not answered.
    pub(crate) retried: u64,
}

impl Publisher {
    pub(crate) fn new(number: u64, topic: &'static str, padding: usize) -> Publisher {
        Publisher { number, topic, padding, ..Publisher::default() }
    }

    /// Events of a request: every fifth is a batch.
    fn size(request: u64) -> u64 {
        if request.is_multiple_of(5) { 4 } else { 1 }
    }

    fn send(&self, address: &str, request: u64) -> Option<String> {
        let (size, padding, topic) = (Publisher::size(request), "x".repeat(self.padding), self.topic);
        let data: Vec<String> = (0..size).map(|place| format!("{} {request} {place} {size} {padding}", self.number)).collect();
        let key = format!("idempotency-key: \"{}-{request}\"", self.number);
        if size == 1 {
            return post(address, &format!("/publish/{topic}"), &key, &data[0]);
        }
        let events: Vec<String> = data.iter().map(|data| format!(r#"{{"topic":"{topic}","data":"{data}"}}"#)).collect();
        post(address, "/publish", &format!("{key}\r\ncontent-type: application/json"), &format!("[{}]", events.join(",")))
    }

    /// Publishes until the hub is gone, beginning with what was not answered; now and then something old once more. Counts events.
    pub(crate) fn publish(&mut self, address: &str, events: &AtomicUsize) {
        while self.publish_one(address, events).is_some() {
            let request = self.answered.len() as u64;
            if request.is_multiple_of(7) {
                let old = request * 7_919 % request;
                let Some(ids) = self.send(address, old) else { return };
                assert_eq!(ids, self.answered[old as usize], "request {old} of {} has other ids now", self.number);
            }
        }
    }

    /// Publishes the next, or what was not answered.
    pub(crate) fn publish_one(&mut self, address: &str, events: &AtomicUsize) -> Option<()> {
        let request = self.answered.len() as u64;
        self.retried += u64::from(self.open);
        self.open = true;
        let ids = self.send(address, request)?;
        assert_eq!(ids.lines().count() as u64, Publisher::size(request), "{ids}");
        self.open = false;
        self.answered.push(ids);
        events.fetch_add(Publisher::size(request) as usize, Ordering::Relaxed);
        Some(())
    }

    /// Everything once more: the same ids, although most of the events may be gone.
    pub(crate) fn repeat_all(&mut self, address: &str) {
        for (request, ids) in self.answered.iter().enumerate() {
            assert_eq!(self.send(address, request as u64).as_ref(), Some(ids), "request {request} of {}", self.number);
        }
    }

    /// Whatever may be stored is answered; whether there was anything.
    pub(crate) fn finish(&mut self, address: &str, events: &AtomicUsize) -> bool {
        if self.open {
            self.publish_one(address, events).expect("nobody kills this hub");
            return true;
        }
        false
    }

    /// The name of its last event.
    fn last(&self) -> Name {
        let request = self.answered.len() as u64 - 1;
        let size = Publisher::size(request);
        (self.number, request, size - 1, size)
    }
}

/// What a reader got, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Event(Name, String),
    Gap(String),
}

/// A reader that resumes with the id of its last whole event.
#[derive(Default)]
pub(crate) struct Reader {
    topic: &'static str,
    cursor: Option<String>,
    pub(crate) items: Vec<Item>,
    /// The last of each publisher.
    newest: BTreeMap<u64, Name>,
}

impl Reader {
    pub(crate) fn new(topic: &'static str) -> Reader {
        Reader { topic, ..Reader::default() }
    }

    /// Reads until the hub is gone, or there was enough.
    pub(crate) fn read(&mut self, address: &str, enough: impl Fn(&Reader) -> bool) {
        let Ok(mut socket) = TcpStream::connect(address) else { return };
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let (topic, cursor) = (self.topic, self.cursor.as_deref().unwrap_or("earliest"));
        // HTTP/1.0 gets the stream without chunks around it.
        let fields = format!("host: {address}\r\naccept: text/event-stream\r\nlast-event-id: {cursor}");
        if socket.write_all(format!("GET /subscribe?topic={topic} HTTP/1.0\r\n{fields}\r\n\r\n").as_bytes()).is_err() {
            return;
        }
        let (mut buffer, mut text, mut begun) = (vec![0; 65_536], String::new(), false);
        while !enough(self)
            && let Ok(count) = socket.read(&mut buffer)
            && count > 0
        {
            text += std::str::from_utf8(&buffer[..count]).unwrap();
            if !begun && let Some((_, stream)) = text.split_once("\r\n\r\n") {
                (text, begun) = (stream.to_owned(), true);
            }
            if !begun {
                continue;
            }
            let whole = text.rfind("\n\n").map_or(0, |at| at + 2);
            for block in text[..whole].split_terminator("\n\n") {
                self.take(block);
            }
            text.drain(..whole);
        }
    }

    fn take(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            self.cursor = Some(id.to_owned());
        }
        match (field("event: "), field("data: ")) {
            (Some("tidings.gap"), data) => self.items.push(Item::Gap(data.unwrap_or_default().to_owned())),
            (_, Some(data)) => {
                let numbers: Vec<u64> = data.split(' ').take(4).map(|number| number.parse().unwrap()).collect();
                let name = (numbers[0], numbers[1], numbers[2], numbers[3]);
                self.newest.insert(name.0, name);
                self.items.push(Item::Event(name, self.cursor.clone().unwrap_or_default()));
            }
            _ => {}
        }
    }

    /// Reads up to the last event of each publisher to its topic.
    pub(crate) fn read_all(&mut self, address: &str, publishers: &[Publisher]) {
        let last: Vec<Name> = publishers.iter().filter(|publisher| publisher.topic == self.topic).map(Publisher::last).collect();
        self.read(address, |reader| last.iter().all(|name| reader.newest.get(&name.0) == Some(name)));
        assert!(last.iter().all(|name| self.newest.get(&name.0) == Some(name)), "{last:?} of {:?}", self.newest);
    }
}

/// What a reader got, counted by the publishers' own numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) received: usize,
    /// Missing, with a gap told where they would have been.
    pub(crate) announced: u64,
    /// Missing without a word.
    pub(crate) lost: u64,
    pub(crate) twice_or_out_of_order: u64,
    /// With another id than its publisher was answered.
    pub(crate) other_ids: u64,
    pub(crate) gaps: usize,
    /// Gaps told where nothing is missing.
    pub(crate) false_gaps: usize,
}

/// Holds what a reader got from the beginning to the end against what was published.
pub(crate) fn seen(reader: &Reader, publishers: &[Publisher]) -> Seen {
    let mut seen = Seen::default();
    // Of each publisher: the next event, and where in the reader's items the one before stands.
    let mut next: BTreeMap<u64, (u64, u64, usize)> = publishers.iter().map(|publisher| (publisher.number, (0, 0, 0))).collect();
    let mut gaps: BTreeMap<usize, bool> = BTreeMap::new();
    for (at, item) in reader.items.iter().enumerate() {
        let Item::Event((publisher, request, place, size), id) = item else {
            gaps.insert(at, false);
            continue;
        };
        seen.received += 1;
        let (next_request, next_place, before) = next[publisher];
        if (*request, *place) < (next_request, next_place) {
            seen.twice_or_out_of_order += 1;
            continue;
        }
        let missing = (next_request..*request).map(Publisher::size).sum::<u64>() + place - next_place;
        let mut told = false;
        for (_, explains) in gaps.range_mut(before..at).filter(|_| missing > 0) {
            (told, *explains) = (true, true);
        }
        *(if told { &mut seen.announced } else { &mut seen.lost }) += missing;
        let answered = &publishers.iter().find(|known| known.number == *publisher).unwrap().answered;
        let given = answered.get(*request as usize).and_then(|ids| ids.lines().nth(*place as usize));
        seen.other_ids += u64::from(given != Some(id));
        let after = if place + 1 == *size { (request + 1, 0) } else { (*request, place + 1) };
        next.insert(*publisher, (after.0, after.1, at));
    }
    // The last of each publisher was received, so whatever is missing was found.
    (seen.gaps, seen.false_gaps) = (gaps.len(), gaps.values().filter(|explains| !**explains).count());
    seen
}

/// A trial that cannot fail holds nothing: each way to break a promise is counted.
#[test]
fn what_is_wrong_is_counted() {
    let mut publisher = Publisher::new(1, "t", 0);
    // A batch of four, and two single events.
    publisher.answered = vec!["a\nb\nc\nd\n".into(), "e\n".into(), "f\n".into()];
    let event = |name: &str| match name {
        "gap" => Item::Gap(String::new()),
        "e" | "f" => Item::Event((1, u64::from(name == "f") + 1, 0, 1), name.into()),
        _ => Item::Event((1, 0, u64::from(name.as_bytes()[0] - b'a'), 4), name.into()),
    };
    let count = |items: &str| {
        let mut reader = Reader::new("t");
        reader.items = items.split(' ').map(event).collect();
        let Seen { announced, lost, twice_or_out_of_order, gaps, false_gaps, .. } = seen(&reader, std::slice::from_ref(&publisher));
        (announced, lost, twice_or_out_of_order, gaps - false_gaps, false_gaps)
    };
    for (items, expected) in [
        ("a b c d e f", (0, 0, 0, 0, 0)),
        ("a b d e f", (0, 1, 0, 0, 0)),
        ("a b gap d e f", (1, 0, 0, 1, 0)),
        ("gap c d e f", (2, 0, 0, 1, 0)),
        ("a b c d f", (0, 1, 0, 0, 0)),
        ("a b gap f", (3, 0, 0, 1, 0)),
        ("a b c d gap e f", (0, 0, 0, 0, 1)),
        ("a b c gap d f", (0, 1, 0, 0, 1)),
        ("a b c d e e f", (0, 0, 1, 0, 0)),
        ("a b c d f e", (0, 1, 1, 0, 0)),
        ("a b c d a b c d e f", (0, 0, 4, 0, 0)),
    ] {
        assert_eq!(count(items), expected, "{items}");
    }
    let mut reader = Reader::new("t");
    reader.items = vec![Item::Event((1, 0, 0, 4), "x".into())];
    assert_eq!(seen(&reader, std::slice::from_ref(&publisher)).other_ids, 1);
}
