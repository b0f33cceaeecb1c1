//! What a check works with: requests, streams and tokens of one dialect, and a record of everything that was sent and seen.
//!
//! It knows how both dialects say the same thing, and no requirement.

use crate::{
    http::{Answer, Connection, Head, Request},
    settings::{Dialect, Hub, Role},
    stream::{Event, next_event},
    token::{DETAIL_TYPE, Key, Token, random_name},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    fmt::Display,
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Why a check did not pass.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The hub did something else.
    Failed { expected: String, seen: String },
    /// The hub was not told to be like that, or the suite was not told of it.
    Skipped(String),
}

pub(crate) type Outcome = Result<(), Verdict>;

/// The hub did something else than expected.
pub(crate) fn failed<T>(expected: impl Display, seen: impl Display) -> Result<T, Verdict> {
    Err(Verdict::Failed { expected: expected.to_string(), seen: seen.to_string() })
}

/// Nothing can be said about this hub.
pub(crate) fn skipped<T>(why: impl Display) -> Result<T, Verdict> {
    Err(Verdict::Skipped(why.to_string()))
}

/// Fails with what was expected and seen unless `holds`.
pub(crate) fn expect(holds: bool, expected: impl Display, seen: impl Display) -> Outcome {
    if holds { Ok(()) } else { failed(expected, seen) }
}

/// Everything but the unreserved characters.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One value of a query, a form or a path segment.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Names and values as a form or a query.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

/// Seconds of the Unix clock.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One run of one check.
#[derive(Debug)]
pub(crate) struct Probe<'h> {
    pub(crate) hub: &'h Hub,
    pub(crate) dialect: Dialect,
    /// Part of all topics of this run, so that nobody else has them.
    run: String,
    record: RefCell<Vec<String>>,
}

impl<'h> Probe<'h> {
    pub(crate) fn new(hub: &'h Hub, dialect: Dialect) -> Probe<'h> {
        Probe { hub, dialect, run: random_name(), record: RefCell::default() }
    }

    /// What was sent and seen, in order.
    pub(crate) fn into_record(self) -> Vec<String> {
        self.record.into_inner()
    }

    fn note(&self, mark: &str, bytes: &[u8]) {
        const SHOWN: usize = 1500;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).replace('\r', "");
        let more = if bytes.len() > SHOWN { format!(" ... ({} bytes)", bytes.len()) } else { String::new() };
        self.record.borrow_mut().push(format!("{mark} {}{more}", text.trim_end()));
    }

    pub(crate) fn is_eight(&self) -> bool {
        self.dialect == Dialect::Eight
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.hub.settings.patience
    }

    /// A topic that nobody else uses.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("https://conformance.example/{}/{name}", self.run)
    }

    /// A word that nobody else uses.
    pub(crate) fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    // Requests.

    /// Sends and waits for the whole answer.
    pub(crate) fn send(&self, request: Request) -> Result<Answer, Verdict> {
        let (mut connection, head) = self.begin(&request)?;
        let streams = head.status == 200 && head.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if streams {
            // Whoever wanted a refusal gets to see that there was none, without waiting for the end.
            return Ok(Answer { head, body: b"(an event stream)".to_vec() });
        }
        match connection.whole(self.deadline()) {
            Ok(body) => {
                self.note("<", format!("{}\n\n{}", head.text, String::from_utf8_lossy(&body)).as_bytes());
                Ok(Answer { head, body })
            }
            Err(error) => failed("a complete answer", format!("{}\n{error}", head.text)),
        }
    }

    fn begin(&self, request: &Request) -> Result<(Connection, Head), Verdict> {
        self.begin_at(request, self.hub.place.address, &self.hub.place.host)
    }

    fn begin_at(&self, request: &Request, address: std::net::SocketAddr, host: &str) -> Result<(Connection, Head), Verdict> {
        let bytes = request.bytes(host);
        self.note(">", &bytes);
        let begun = || -> io::Result<(Connection, Head)> {
            let mut connection = Connection::open(address, self.hub.settings.patience)?;
            connection.send(&bytes)?;
            let head = connection.head(request, self.deadline())?;
            Ok((connection, head))
        };
        begun().or_else(|error| failed("an answer", error))
    }

    /// Asks another place than the hub URL: metrics, health.
    pub(crate) fn fetch(&self, url: &str) -> Result<Answer, Verdict> {
        let place = crate::settings::Place::parse(url, &self.hub.settings.allowed_hosts).or_else(skipped)?;
        let request = Request::new("GET", &place.path).header("Connection", "close");
        let (mut connection, head) = self.begin_at(&request, place.address, &self.hub.place.host)?;
        let body = connection.whole(self.deadline()).or_else(|error| failed("a complete answer", error))?;
        self.note("<", format!("{}\n\n{}", head.text, String::from_utf8_lossy(&body)).as_bytes());
        Ok(Answer { head, body })
    }

    /// A request to the hub URL with this query.
    pub(crate) fn get(&self, query: &str) -> Request {
        let path = &self.hub.place.path;
        Request::new("GET", &if query.is_empty() { path.clone() } else { format!("{path}?{query}") })
    }

    /// A publication, without any token.
    pub(crate) fn post(&self, body: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", &self.hub.place.path).header("Connection", "close").form(body)
    }

    /// Publishes as somebody who may publish everything.
    pub(crate) fn publish(&self, fields: &[(&str, &str)]) -> Result<Answer, Verdict> {
        self.publish_form(form(fields))
    }

    /// The same with a body of exactly these bytes.
    pub(crate) fn publish_form(&self, body: impl Into<Vec<u8>>) -> Result<Answer, Verdict> {
        self.send(bearer(self.post(body), &self.publisher()))
    }

    /// Publishes, expects success, and answers the id.
    pub(crate) fn published(&self, fields: &[(&str, &str)]) -> Result<String, Verdict> {
        let answer = self.publish(fields)?;
        expect(answer.status() == 200, "200 with the id", describe(&answer))?;
        // Hubs that end the id with LF mean the same id.
        Ok(answer.text().trim_end_matches('\n').to_owned())
    }

    // Streams.

    /// Opens a stream; anything but 200 and an event stream fails the check.
    pub(crate) fn open(&self, request: Request) -> Result<Stream<'_>, Verdict> {
        let (connection, head) = self.begin(&request)?;
        self.note("<", head.text.as_bytes());
        let mut stream = Stream { probe: self, connection, head };
        let is_stream = stream.head.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if stream.head.status != 200 || !is_stream {
            let body = stream.connection.whole(self.deadline()).unwrap_or_default();
            return failed("200 and an event stream", format!("{}\n{}", stream.head.text, String::from_utf8_lossy(&body)));
        }
        Ok(stream)
    }

    /// The parameter that selects a topic exactly, in this dialect.
    pub(crate) fn selector(&self) -> &'static str {
        if self.is_eight() { "match" } else { "topic" }
    }

    /// The query parameter that carries a cursor in this dialect.
    pub(crate) fn cursor(&self) -> &'static str {
        if self.is_eight() { "last_event_id" } else { "lastEventID" }
    }

    /// The response field that tells where a stream begins in this dialect.
    pub(crate) fn start_field(&self) -> &'static str {
        if self.is_eight() { "Mercure-Last-Event-ID" } else { "Last-Event-ID" }
    }

    /// A query that selects these topics.
    pub(crate) fn select(&self, topics: &[&str]) -> String {
        form(&topics.iter().map(|topic| (self.selector(), *topic)).collect::<Vec<_>>())
    }

    /// Subscribes to the topics with a token that grants private updates on `granted`.
    pub(crate) fn subscribe(&self, topics: &[&str], granted: &[&str]) -> Result<Stream<'_>, Verdict> {
        self.subscribe_query(&self.select(topics), granted)
    }

    /// Subscribes and receives a first event, so that the lines that open a stream (a comment, a `retry`) belong to no later one.
    pub(crate) fn settled(&self, topic: &str) -> Result<Stream<'_>, Verdict> {
        let mut stream = self.subscribe(&[topic], &[])?;
        let first = self.published(&[("topic", topic), ("data", "first")])?;
        stream.next_is(&first, "the first event")?;
        Ok(stream)
    }

    /// The same with a query of exactly this text.
    pub(crate) fn subscribe_query(&self, query: &str, granted: &[&str]) -> Result<Stream<'_>, Verdict> {
        self.open(bearer(self.get(query), &self.subscriber(granted)))
    }

    /// The status of subscribing, whatever it is, with a token that grants nothing private.
    pub(crate) fn subscribing(&self, query: &str) -> Result<Answer, Verdict> {
        self.send(bearer(self.get(query), &self.subscriber(&[])))
    }

    // Tokens.

    pub(crate) fn key(&self, role: Role) -> &'h Key {
        match role {
            Role::Publish => &self.hub.settings.publisher,
            Role::Subscribe => &self.hub.settings.subscriber,
        }
    }

    /// A complete token of this dialect, not yet signed, that grants `role` on exactly these topics (or `*`).
    pub(crate) fn token(&self, role: Role, topics: &[&str]) -> Token {
        let action = match role {
            Role::Publish => "publish",
            Role::Subscribe => "subscribe",
        };
        if self.is_eight() {
            let topics: Vec<Value> = topics.iter().map(|topic| json!({"match": topic})).collect();
            let details = if topics.is_empty() { json!([]) } else { json!([{"type": DETAIL_TYPE, "actions": [action], "topics": topics}]) };
            self.access_token(details)
        } else {
            legacy_token(json!({action: topics}))
        }
    }

    /// A complete access token of dialect 8 with these details.
    pub(crate) fn access_token(&self, details: Value) -> Token {
        Token {
            header: json!({"typ": "at+jwt"}),
            claims: json!({
                "iss": self.hub.settings.issuer,
                "aud": self.hub.audience,
                "sub": "conformance",
                "client_id": "conformance",
                "iat": now(),
                "jti": random_name(),
                "exp": now() + 3600,
                "authorization_details": details,
            }),
        }
    }

    /// Signed for its role with the hub's main key.
    pub(crate) fn signed(&self, role: Role, topics: &[&str]) -> String {
        self.token(role, topics).signed(self.key(role))
    }

    /// Somebody who may publish everything.
    pub(crate) fn publisher(&self) -> String {
        self.signed(Role::Publish, &["*"])
    }

    /// Somebody who may receive private updates of these topics; of none, everybody's public ones only.
    pub(crate) fn subscriber(&self, topics: &[&str]) -> String {
        self.signed(Role::Subscribe, topics)
    }

    /// The names under which a hub looks for the cookie of this dialect.
    pub(crate) fn cookie_name(&self) -> &str {
        let recommended = if self.is_eight() { "__Secure-mercure_access_token" } else { "mercureAuthorization" };
        self.hub.settings.cookie_name.as_deref().unwrap_or(recommended)
    }

    /// Retries until the condition holds; for what a hub may do a moment later.
    pub(crate) fn wait_until<T>(&self, expected: &str, mut attempt: impl FnMut() -> Result<Option<T>, Verdict>) -> Result<T, Verdict> {
        let deadline = self.deadline();
        loop {
            if let Some(value) = attempt()? {
                return Ok(value);
            }
            if Instant::now() > deadline {
                return failed(expected, format!("not within {:?}", self.hub.settings.patience));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A token of dialect 7 with this claim.
pub(crate) fn legacy_token(mercure: Value) -> Token {
    Token { header: json!({"typ": "JWT"}), claims: json!({"mercure": mercure}) }
}

/// With a token in the `Authorization` header.
pub(crate) fn bearer(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

/// An answer in a few lines.
pub(crate) fn describe(answer: &Answer) -> String {
    let body: String = answer.text().chars().take(600).collect();
    format!("{}\n\n{body}", answer.head.text.replace('\r', ""))
}

/// An open subscription.
#[derive(Debug)]
pub(crate) struct Stream<'p> {
    probe: &'p Probe<'p>,
    connection: Connection,
    pub(crate) head: Head,
}

impl Stream<'_> {
    /// The next event with data; none within the patience fails the check.
    pub(crate) fn event(&mut self) -> Result<Event, Verdict> {
        let deadline = self.probe.deadline();
        loop {
            if let Some(event) = next_event(&mut self.connection.body) {
                self.probe.note("<", event.lines.join("\n").as_bytes());
                return Ok(event);
            }
            match self.connection.more(deadline) {
                Ok(true) => {}
                Ok(false) => return failed("an event", "the end of the stream"),
                Err(error) => return failed("an event", format!("none: {error}")),
            }
        }
    }

    /// The next event is the one with this id: nothing that was published before it may come.
    pub(crate) fn next_is(&mut self, id: &str, meaning: &str) -> Result<Event, Verdict> {
        let event = self.event()?;
        expect(event.id.as_deref() == Some(id), format!("{meaning}: next the event with id {id}"), event.lines.join("\n"))?;
        Ok(event)
    }

    /// The next events are those with these ids.
    pub(crate) fn then(&mut self, ids: &[&str], meaning: &str) -> Outcome {
        ids.iter().try_for_each(|id| self.next_is(id, meaning).map(drop))
    }

    /// The next event that satisfies the condition; others are passed over, because somebody else may cause them.
    pub(crate) fn first(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Result<Event, Verdict> {
        let deadline = self.probe.deadline();
        loop {
            let event = self.event()?;
            if wanted(&event) {
                return Ok(event);
            }
            if Instant::now() > deadline {
                return failed(what, "only other events");
            }
        }
    }

    /// Bytes that came so far and belong to no event yet, after waiting for at least one.
    pub(crate) fn bytes(&mut self, deadline: Instant) -> Result<String, Verdict> {
        while self.connection.body.is_empty() {
            match self.connection.more(deadline) {
                Ok(true) => {}
                Ok(false) => return failed("bytes", "the end of the stream"),
                Err(error) => return failed("bytes of the stream", error),
            }
        }
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.connection.body)).into_owned())
    }

    /// Waits for the end of the stream; a stream that lives past the deadline fails the check.
    pub(crate) fn end(&mut self, within: Duration, meaning: &str) -> Outcome {
        let deadline = Instant::now() + within;
        loop {
            match self.connection.more(deadline) {
                Ok(true) => self.connection.body.clear(),
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return failed(meaning, format!("still open after {within:?}")),
                // However it was cut: it is over.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Closes it and lets the hub notice.
    pub(crate) fn close(self) {
        drop(self.connection);
    }
}
