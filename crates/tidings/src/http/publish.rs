//! Publishing (N-1 ... N-6): a body becomes events, the answer names their ids.
//!
//! It knows the three forms of a publish request. What an event may say is decided in the core, who may publish by the grant, and how long
//! a body may take in `http/body.rs`.
//!
//! Unknown names in the query are refused, because a misspelt `retyr` would be lost silently.

use super::{
    body::{Incoming, Reader},
    idempotency,
    json::{self, Borrowed, Draft, Recent},
    problem::Problem,
    query::{decode_path, url_pairs},
    response::{PLAIN_TEXT, ResponseBody, answer},
};
use crate::{Config, Granted, PublishError};
use http::{HeaderMap, Response, header, request::Parts};
use std::borrow::Cow;
use tidings_core::{Event, EventError, EventId, Position, limits};

/// The names of N-1, for the refusal of others.
const KNOWN: &str = "`type`, `id`, `retry`, `private`, `topic`";

/// Answers a publish request; `topic` is the rest of the path, still encoded.
pub(crate) async fn publish(hub: &Granted, parts: &Parts, topic: Option<&str>, body: Incoming) -> Result<Response<ResponseBody>, Problem> {
    let config = hub.hub().config();
    check_head(&parts.headers)?;
    let key = idempotency::key(&parts.headers)?;
    let query = parts.uri.query().unwrap_or_default();
    let body = Reader::new(body, config.request_time);
    let ids = match topic {
        Some(topic) => {
            let (topics, draft) = parse_query(decode_path(topic)?, query)?;
            let draft = read_data(config, body, draft).await?;
            let event = draft.into_event(json::topics(hub.hub().known_topics(), &topics, config.topics_per_event)?)?;
            text_of(&hub.publish_as(vec![event], key.as_ref()).await?)
        }
        None => {
            if let Some((name, _)) = url_pairs(query)?.next() {
                return Err(Problem::UnknownName { name: name.into_owned(), known: "none; they go into the JSON" });
            }
            match media_type(&parts.headers)?.as_deref() {
                Some("application/json") => {
                    let limit = config.publish_body;
                    let text = text(body.all(limit, || Problem::BodyTooLong { limit }).await?)?;
                    let (events, _) = json::one_or_many(&text, config.topics_per_event, hub.hub().known_topics())?;
                    if events.is_empty() { Vec::new() } else { text_of(&hub.publish_as(events, key.as_ref()).await?) }
                }
                // Its lines are appended as they come, so there is no one answer that could be given again.
                Some("application/x-ndjson") if key.is_some() => return Err(Problem::KeyOfLines),
                Some("application/x-ndjson") => Lines::new(hub, config).run(body).await?,
                _ => return Err(Problem::PublishType),
            }
        }
    };
    Ok(answer(PLAIN_TEXT, ids))
}

/// What is refused whatever the form.
pub(crate) fn check_head(headers: &HeaderMap) -> Result<(), Problem> {
    // The bytes would be taken for the text itself.
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Problem::Encoding);
    }
    Ok(())
}

/// The media type in lower case without parameters, of which only `charset=utf-8` may matter.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let (media_type, parameters) = text.split_once(';').unwrap_or((&text, ""));
    for parameter in parameters.split(';') {
        if let Some((name, value)) = parameter.split_once('=') {
            let value = value.trim().trim_matches('"');
            if name.trim() == "charset" && !matches!(value, "utf-8" | "utf8" | "us-ascii") {
                return Err(Problem::Charset(value.to_owned()));
            }
        }
    }
    Ok(Some(media_type.trim().to_owned()))
}

/// The topics and all of the event but its data (N-1).
fn parse_query<'a>(topic: Cow<'a, str>, query: &'a str) -> Result<(Vec<Cow<'a, str>>, Draft<'a>), Problem> {
    let mut topics = vec![topic];
    let mut draft = Draft::default();
    let (mut event_type, mut id, mut retry) = (None, None, None);
    for (name, value) in url_pairs(query)? {
        let (place, name) = match &*name {
            "topic" => {
                topics.push(value);
                continue;
            }
            "private" => {
                draft.private = true;
                continue;
            }
            "type" => (&mut event_type, "type"),
            "id" => (&mut id, "id"),
            "retry" => (&mut retry, "retry"),
            _ => return Err(Problem::UnknownName { name: name.into_owned(), known: KNOWN }),
        };
        if place.replace(value).is_some() {
            return Err(Problem::RepeatedName(name));
        }
    }
    draft.event_type = event_type.unwrap_or_default();
    draft.id = id.unwrap_or_default();
    draft.retry = retry.unwrap_or_default();
    Ok((topics, draft))
}

/// The body is the data (N-1), so whichever of the two limits is lower holds while it comes in.
async fn read_data<'a>(config: &Config, body: Reader, draft: Draft<'a>) -> Result<Draft<'a>, Problem> {
    let limit = config.publish_body.min(config.event_data);
    let too_long = || if limit == config.event_data { Problem::DataTooLong { limit } } else { Problem::BodyTooLong { limit } };
    Ok(Draft { data: text(body.all(limit, too_long).await?)?.into(), ..draft })
}

fn text(bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| EventError::DataNotUtf8.into())
}

/// N-4: one id per line.
fn text_of(ids: &[EventId]) -> Vec<u8> {
    let mut text = Vec::new();
    add(&mut text, ids);
    text
}

fn add(text: &mut Vec<u8>, ids: &[EventId]) {
    text.reserve(ids.len() * (Position::ID_LEN + 1));
    for id in ids {
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
}

/// Bytes of lines that have come in together and are made one append.
const APPEND_BYTES: usize = 1 << 20;

/// What an event costs at the most while it is kept: each line end in its data becomes a line of its own.
fn cost_at_most<D: AsRef<str>>(event: &Event<D>) -> usize {
    let topics: usize = event.topics().iter().map(|topic| topic.as_str().len() + 64).sum();
    1_024 + topics + event.data().len() * "\ndata: ".len() + event.event_type().map_or(0, str::len) + event.id().map_or(0, str::len)
}

/// A stream of events, one per line (N-3).
///
/// Whatever lines have come in together are one append, so that a fast publisher does not wait for the store once per line. Only lines that
/// can be kept get that far: a bad one ends the request after those before it.
struct Lines<'a> {
    hub: &'a Granted,
    config: &'a Config,
    /// Bytes that are not yet a whole line.
    rest: Vec<u8>,
    /// The number of the line looked at, from 1.
    line: u64,
    recent: Recent<'a>,
    /// Ids of what is kept.
    ids: Vec<u8>,
    /// Bytes of ids with those of what is pending.
    answer_len: usize,
}

/// Events of the lines that came in together, what they cost at the most, and where the first of them stood.
#[derive(Default)]
struct Pending<'l> {
    events: Vec<Borrowed<'l>>,
    cost: usize,
    from: u64,
}

impl<'l> Pending<'l> {
    fn push(&mut self, event: Borrowed<'l>, cost: usize, line: u64) {
        if self.events.is_empty() {
            self.from = line;
        }
        self.events.push(event);
        self.cost += cost;
    }
}

/// Lines that are all there, and which of them come next.
struct Whole<'l> {
    bytes: &'l [u8],
    /// The same, if it is text.
    text: Option<&'l str>,
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(hub: &'a Granted, config: &'a Config) -> Self {
        let recent = Recent::new(hub.hub().known_topics());
        Lines { hub, config, rest: Vec::new(), line: 0, recent, ids: Vec::new(), answer_len: 0 }
    }

    async fn run(mut self, mut body: Reader) -> Result<Vec<u8>, Problem> {
        let problem = match self.read(&mut body).await {
            Ok(()) => return Ok(self.ids),
            Err(problem) => problem,
        };
        let ids = String::from_utf8_lossy(&self.ids).into_owned();
        Err(Problem::Line { line: self.line, ids, problem: Box::new(problem) })
    }

    async fn read(&mut self, body: &mut Reader) -> Result<(), Problem> {
        loop {
            let piece = match body.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    // The last line may lack its line end, but not after a break: half a line is none.
                    return if self.rest.is_empty() { Ok(()) } else { self.take_piece(b"\n").await };
                }
                Err(problem) => {
                    self.line += 1;
                    return Err(problem);
                }
            };
            let before = self.line;
            self.take_piece(&piece).await?;
            if self.rest.is_empty() {
                body.pause(self.config.keep_alive);
            } else if self.rest.len() > self.config.publish_body {
                self.line += 1;
                return Err(Problem::LineTooLong { limit: self.config.publish_body });
            } else if self.line > before {
                // The rate holds per line, and the time of the append was not the client's.
                body.resume();
            }
        }
    }

    /// Takes every whole line that is there now, and keeps what is left.
    async fn take_piece(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let (mut lines, rest) = piece.split_at(memchr::memrchr(b'\n', piece).map_or(0, |at| at + 1));
        let mut begun;
        if !lines.is_empty() && !self.rest.is_empty() {
            begun = std::mem::take(&mut self.rest);
            begun.extend_from_slice(lines);
            lines = &begun;
        }
        let mut pending = Pending::default();
        let taken = self.take_lines(lines, &mut pending).await;
        // What stood before a bad line is kept; if that fails, it is the earlier problem.
        self.append(&mut pending).await?;
        taken?;
        self.rest.extend_from_slice(rest);
        Ok(())
    }

    /// Takes lines that are all there, each with its line end.
    async fn take_lines<'l>(&mut self, lines: &'l [u8], pending: &mut Pending<'l>) -> Result<(), Problem> {
        // Of lines that are text altogether each is.
        let mut lines = Whole { bytes: lines, text: std::str::from_utf8(lines).ok(), at: 0 };
        while let Some((event, cost)) = self.gather(&mut lines, pending)? {
            self.append(pending).await?;
            pending.push(event, cost, self.line);
        }
        Ok(())
    }

    /// Puts lines to what is pending as long as it is not too much for one append; hands back the event with which it would be, and its cost.
    fn gather<'l>(&mut self, lines: &mut Whole<'l>, pending: &mut Pending<'l>) -> Result<Option<(Borrowed<'l>, usize)>, Problem> {
        let (events, bytes) = self.hub.batch_limit();
        let (events, bytes) = (events.min(limits::BATCH_EVENTS), bytes.min(APPEND_BYTES));
        while lines.at < lines.bytes.len() {
            let from = lines.at;
            self.line += 1;
            let Some(event) = self.next(lines)? else { continue };
            self.check(&event, pending.events.last())?;
            let cost = cost_at_most(&event);
            if pending.events.len() >= events || pending.cost + cost > bytes {
                return Ok(Some((event, cost)));
            }
            if pending.events.is_empty() {
                // The others are as long, probably.
                pending.events.reserve(((lines.bytes.len() - from) / (lines.at - from)).min(events));
            }
            pending.push(event, cost, self.line);
        }
        Ok(None)
    }

    /// The event of the next line, if there is something in it.
    fn next<'l>(&mut self, lines: &mut Whole<'l>) -> Result<Option<Borrowed<'l>>, Problem> {
        let (limit, topics_limit) = (self.config.publish_body, self.config.topics_per_event);
        let rest = lines.text.map(|text| &text[lines.at..]);
        if let Some((event, len)) = rest.and_then(|rest| json::first_line(rest, topics_limit, &mut self.recent)) {
            lines.at += len + 1;
            return if len > limit { Err(Problem::LineTooLong { limit }) } else { event.map(Some) };
        }
        let rest = &lines.bytes[lines.at..];
        let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
        lines.at += line.len() + 1;
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if line.len() > limit {
            return Err(Problem::LineTooLong { limit });
        }
        let text = std::str::from_utf8(line).map_err(|_| EventError::DataNotUtf8)?;
        json::event(text, topics_limit, &mut self.recent).map(Some)
    }

    /// Checks what is left to check of an event, so that what is pending can only fail as a whole. `before` is one that may.
    fn check<'l>(&mut self, event: &Borrowed<'l>, before: Option<&Borrowed<'l>>) -> Result<(), Problem> {
        if event.data().len() > self.config.event_data {
            return Err(Problem::DataTooLong { limit: self.config.event_data });
        }
        // What the line before was allowed needs no second look.
        if !before.is_some_and(|before| event.has_topics_of(before))
            && let Some(topic) = event.topics().iter().find(|topic| !self.hub.grant().publish.matches(topic))
        {
            return Err(PublishError::Forbidden(topic.clone()).into());
        }
        self.answer_len += event.id().map_or(Position::ID_LEN, str::len) + 1;
        if self.answer_len > limits::ANSWER_IDS {
            return Err(Problem::TooManyLines { limit: limits::ANSWER_IDS });
        }
        Ok(())
    }

    async fn append(&mut self, pending: &mut Pending<'_>) -> Result<(), Problem> {
        let Pending { events, from, .. } = std::mem::take(pending);
        if events.is_empty() {
            return Ok(());
        }
        match self.hub.publish_as(events, None).await {
            Ok(ids) => {
                add(&mut self.ids, &ids);
                Ok(())
            }
            Err(error) => {
                self.line = from;
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        HubService,
        body::tests::slow,
        tests::{Answer, case, check, get, hub, read_until, request, send},
    };
    use http::Request;
    use tower_service::Service;

    /// N-1a, N-5, S-7, S-46: bad input on the publish routes. Nothing of it is published.
    #[tokio::test]
    async fn bad_publishes() {
        let hub = hub(|_| {});
        let query = |query: &str| format!("POST /publish/a?{query}");
        let json = "POST /publish\nContent-Type: application/json";
        let long = |name: &str, len: usize| format!("POST /publish/a?{name}={}", "x".repeat(len));
        let many = format!("POST /publish/a?{}", "topic=b&".repeat(100));
        let topics = |count: usize| format!("{{\"topics\":[{}],\"data\":\"\"}}", vec!["\"t\""; count].join(","));
        let big = vec![b'x'; limits::EVENT_DATA + 1];
        check(
            &hub.service(),
            vec![
                case("CR in the topic", "POST /publish/a%0Db", "x", 400, "U+000D"),
                case("LF in the topic", "POST /publish/a%0Ab", "x", 400, "U+000A"),
                case("NUL in the topic", "POST /publish/a%00b", "x", 400, "U+0000"),
                case("BOM in the topic", "POST /publish/%EF%BB%BFa", "x", 400, "U+FEFF"),
                case("a surrogate in the topic", "POST /publish/%ED%A0%80", "x", 400, "the path is not valid UTF-8"),
                case("invalid UTF-8 in the topic", "POST /publish/%FF", "x", 400, "the path is not valid UTF-8"),
                case("the topic *", "POST /publish/*", "x", 400, "`*` is not a topic"),
                case("a reserved topic", "POST /publish//.well-known/mercure/x", "x", 400, "belong to the hub"),
                case("a long topic", format!("POST /publish/{}", "a".repeat(2_049)), "x", 413, "at most 2048 bytes"),
                case("101 topics", many, "x", 413, "at most 100 topics"),
                case("10,000 topics", json, topics(10_000), 413, "at most 100 topics"),
                case("an empty alternate", query("topic="), "x", 400, "a topic must not be empty"),
                case("CR in the id", query("id=a%0Db"), "x", 400, "U+000D"),
                case("LF in the id", query("id=a%0Aid:b"), "x", 400, "U+000A"),
                case("NUL in the id", query("id=%00"), "x", 400, "U+0000"),
                case("an id with #", query("id=%235f3a9c01-000000000000002a"), "x", 400, "must not begin with `#`"),
                case("the id earliest", query("id=earliest"), "x", 400, "must not be `earliest`"),
                case("a space before the id", query("id=+a"), "x", 400, "must not begin or end with a space"),
                case("an id of 513 bytes", long("id", 513), "x", 413, "at most 512 bytes, this one has 513"),
                case("an id of 10,000 bytes", long("id", 10_000), "x", 413, "at most 512 bytes, this one has 10000"),
                case("a forged gap", query("type=tidings.gap"), "x", 400, "belong to the hub"),
                case("a forged Mercure event", query("type=mercure"), "x", 400, "belong to the hub"),
                case("LF in the type", query("type=a%0Adata:b"), "x", 400, "U+000A"),
                case("a long type", long("type", 129), "x", 413, "at most 128 bytes"),
                case("a retry that is none", query("retry=1s"), "x", 400, "`retry` must be a whole number"),
                case("a retry too far", query("retry=2147483648"), "x", 400, "`retry` must be a whole number"),
                case("an unknown name", query("retyr=1"), "x", 400, "unknown name \\\"retyr\\\"; known here: `type`, `id`, `retry`"),
                case("type twice", query("type=a&type=b"), "x", 400, "`type` more than once"),
                case("id twice", query("id=a&id=a"), "x", 400, "`id` more than once"),
                case("retry twice", query("retry=&retry=1"), "x", 400, "`retry` more than once"),
                case("invalid UTF-8 in the query", query("type=%C3"), "x", 400, "the query is not valid UTF-8"),
                case("invalid UTF-8 in the data", "POST /publish/a", b"\xff".to_vec(), 400, "must be valid UTF-8"),
                case("a surrogate in the data", "POST /publish/a", b"\xed\xa0\x80".to_vec(), 400, "must be valid UTF-8"),
                case("huge data", "POST /publish/a", big, 413, "at most 1048576 bytes here"),
                case("gzip", "POST /publish/a\nContent-Encoding: gzip", "x", 415, "without `Content-Encoding`"),
                case(
                    "a bare idempotency key",
                    "POST /publish/a\nIdempotency-Key: k",
                    "x",
                    400,
                    "double quotes, as in `Idempotency-Key: \\\"8e03",
                ),
                case("an empty idempotency key", "POST /publish/a\nIdempotency-Key: \"\"", "x", 400, "must not be empty"),
                case(
                    "a long idempotency key",
                    format!("POST /publish/a\nIdempotency-Key: \"{}\"", "x".repeat(257)),
                    "x",
                    400,
                    "at most 256 bytes",
                ),
                case(
                    "two idempotency keys",
                    "POST /publish/a\nIdempotency-Key: \"a\"\nIdempotency-Key: \"a\"",
                    "x",
                    400,
                    "more than one `idempotency-key`",
                ),
                case(
                    "an idempotency key for a stream",
                    "POST /publish\nContent-Type: application/x-ndjson\nIdempotency-Key: \"k\"",
                    "{\"topic\":\"a\",\"data\":\"\"}\n",
                    400,
                    "send the events as a JSON array",
                ),
                case("no topic", "POST /publish\nContent-Type: application/x-www-form-urlencoded", "x", 415, "put the topic into the path"),
                case("no topic and no type", "POST /publish/", "x", 415, "`application/json` or `application/x-ndjson`"),
                case("JSON in UTF-16", "POST /publish\nContent-Type: application/json; charset=utf-16", "x", 415, "as UTF-8"),
                case("JSON and a query", "POST /publish?type=a\nContent-Type: application/json", "{}", 400, "unknown name \\\"type\\\""),
                case("invalid UTF-8 in JSON", json, b"\"\xff\"".to_vec(), 400, "must be valid UTF-8"),
                case("a lone surrogate in JSON", json, r#"{"topic":"a","data":"\ud800"}"#, 400, "hex escape"),
                case("a misspelt member", json, r#"{"topic":"a","data":"","tpye":"x"}"#, 400, "unknown field `tpye`"),
                case("a BOM before JSON", json, "\u{FEFF}{}", 400, "expected an object"),
                case("half a JSON document", json, r#"{"topic":"a","#, 400, "EOF while parsing"),
                case("an empty body as JSON", json, "", 400, "expected an object"),
                case("a bad event in an array", json, r#"[{"topic":"a","data":1},{"topic":"*","data":2}]"#, 400, "event 2 of the array"),
                case("a deep bomb", json, "[".repeat(1_000_000), 400, "EOF while parsing"),
                case(
                    "a deep bomb as data",
                    json,
                    format!("{{\"topic\":\"a\",\"data\":{}", "[".repeat(1_000_000)),
                    400,
                    "EOF while parsing",
                ),
            ],
        )
        .await;
        assert!(hub.with(tidings_core::Grant::full()).topics(None, 10).await.unwrap().is_empty());
    }

    /// Odd input with a documented meaning.
    #[tokio::test]
    async fn odd_publishes() {
        let hub = hub(|_| {});
        let exact = |id: &str| format!("{id}\n");
        let service = hub.service();
        let id = "i".repeat(512);
        for (head, body, answer) in [
            ("POST /publish/a?id=x", &b"line\r\nline\rline\nx"[..], exact("x")),
            ("POST /publish/a?id=y&type=&retry=&private", b"\xef\xbb\xbfa\0b", exact("y")),
            ("POST /publish/a?id=z\nContent-Type: application/json", b"{not json}", exact("z")),
            ("POST /publish/a?id=a#b", b"", exact("a")),
            ("POST /publish/a?id=a%23b", b"", exact("a#b")),
            ("POST /publish/%E6%97%A5/x%2Fy+z?id=%C3%A9", b"", exact("é")),
            (&format!("POST /publish/a?id={id}"), b"", exact(&id)),
            (
                "POST /publish\nContent-Type: Application/JSON; charset=\"UTF-8\"",
                br#"{"topic":"a","data":{"b": 1.0},"id":"j"}"#,
                exact("j"),
            ),
            (
                "POST /publish\nContent-Type: application/json",
                br#"[{"topic":"a","data":1,"id":"k"},{"topic":"a","data":2,"id":"l"}]"#,
                "k\nl\n".into(),
            ),
            ("POST /publish\nContent-Type: application/json", b" [ ] ", String::new()),
            ("POST /publish\nContent-Type: application/x-ndjson", b"", String::new()),
        ] {
            let answer_to = send(&service, request(head, body)).await;
            assert_eq!((answer_to.status, answer_to.header("content-type")), (200, Some("text/plain; charset=utf-8")), "{head}");
            assert_eq!(answer_to.text(), answer, "{head}");
        }
        let minted = send(&service, request("POST /publish/a", "x")).await.text();
        assert!(minted.len() == 27 && minted.starts_with('#') && minted.ends_with('\n'), "{minted:?}");

        // What a reader gets of them: the private one not, and everything in order.
        let mut answer = get(&service, "GET /subscribe/a?last_event_id=earliest").await;
        let text = read_until(&mut answer.body, minted.trim_end()).await;
        let (opening, events) = text.split_once("data: ").unwrap();
        assert!(opening.starts_with(": ok\nretry: ") && !opening.contains("id:"), "{opening}");
        assert!(
            events.starts_with("line\ndata: line\ndata: line\ndata: x\nid: x\n\ndata: {not json}\nid: z\n\ndata: \nid: a\n\n"),
            "{events}"
        );
        assert!(events.contains("data: {\"b\":1.0}\nid: j\n\ndata: 1\nid: k\n\ndata: 2\nid: l\n\ndata: x\nid: #"), "{events}");
        assert_eq!(answer.headers["mercure-last-event-id"], "earliest");
        // The decoded topic is one topic, by its segments.
        let info = get(&service, "GET /topics/%E6%97%A5/x/y%2Bz").await.text();
        assert_eq!(info, r#"{"topic":"日/x/y+z","subscribers":0,"last_event_id":"é"}"#);
    }

    /// A body that is cut or slow publishes nothing (N-40, N-5).
    #[tokio::test(start_paused = true)]
    async fn broken_bodies() {
        let hub = hub(|_| {});
        let service = hub.service();
        let some = |text: &str| Some(text.as_bytes().to_vec());
        for (name, head, pieces, status) in [
            ("cut", "POST /publish/a", vec![(0, some("ab")), (0, None)], 400),
            ("cut JSON", "POST /publish\nContent-Type: application/json", vec![(0, some(r#"{"topic":"a","data":1}"#)), (0, None)], 400),
            ("late", "POST /publish/a", vec![(limits::REQUEST_BODY_MS + 1, some("a"))], 408),
            ("one byte a second", "POST /publish/a", vec![(1_000, some("a")); 30], 408),
            ("cut form", "POST /subscribe\nContent-Type: application/x-www-form-urlencoded", vec![(0, some("topic=a")), (0, None)], 400),
        ] {
            let (parts, _) = request(head, "").into_parts();
            let answer = send_unhurried(&service, Request::from_parts(parts, slow(pieces))).await;
            assert_eq!(answer.status, status, "{name}");
        }
        assert!(hub.with(tidings_core::Grant::full()).topics(None, 10).await.unwrap().is_empty());
    }

    /// Without the deadline of the tests: the clock is paused and jumps.
    async fn send_unhurried(service: &HubService, request: Request<Incoming>) -> Answer {
        let (parts, body) = service.clone().call(request).await.unwrap().into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// N-3: lines are kept as they come; the first bad one ends the request and says where.
    #[tokio::test]
    async fn streams_of_lines() {
        let hub = hub(|config| {
            config.event_data = 10;
            config.publish_body = 200;
        });
        let service = hub.service();
        let lines = |ids: &[&str]| ids.iter().fold(String::new(), |all, id| all + r#"{"topic":"a","data":"","id":""# + id + "\"}\n");
        let head = "POST /publish\nContent-Type: application/x-ndjson";
        let good = format!("{}\r\n\n{}", lines(&["1", "2"]), lines(&["3"]).trim_end());
        assert_eq!(send(&service, request(head, good)).await.text(), "1\n2\n3\n");
        for (name, body, status, line, ids, says) in [
            ("no JSON", lines(&["4", "5"]) + "nonsense\n" + &lines(&["never"]), 400, 3, r#"["4","5"]"#, "expected an object"),
            ("the first", "{}\n".into(), 400, 1, "[]", "missing field `data`"),
            ("the last, without its end", lines(&["6"]) + "{", 400, 2, r#"["6"]"#, "EOF"),
            ("an array", lines(&["7"]) + "\n[]\n", 400, 3, r#"["7"]"#, "expected an object"),
            ("large data", lines(&["8"]) + r#"{"topic":"a","data":"12345678901"}"#, 413, 2, r#"["8"]"#, "at most 10 bytes"),
            ("a long line", lines(&["9"]) + &"x".repeat(201), 413, 2, r#"["9"]"#, "a line may have at most 200 bytes"),
            ("a forged gap", r#"{"topic":"a","data":"","type":"tidings.gap"}"#.into(), 400, 1, "[]", "belong to the hub"),
        ] {
            let answer = send(&service, request(head, body)).await;
            assert_eq!(answer.status, status, "{name}");
            let text = answer.text();
            assert!(text.ends_with(&format!("\"line\":{line},\"ids\":{ids}}}")) && text.contains(says), "{name}: {text}");
        }
        // Broken off in the middle of a line: the whole lines are kept.
        let pieces = vec![(0, Some(lines(&["10"]).into_bytes())), (0, Some(b"{\"topic\":\"a\",".to_vec())), (0, None)];
        let answer = send(&service, Request::from_parts(request(head, "").into_parts().0, slow(pieces))).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().ends_with("\"line\":2,\"ids\":[\"10\"]}"));
        // A line in many pieces.
        let pieces = lines(&["11", "12"]).into_bytes().into_iter().map(|byte| (0, Some(vec![byte]))).collect();
        let answer = send(&service, Request::from_parts(request(head, "").into_parts().0, slow(pieces))).await;
        assert_eq!(answer.text(), "11\n12\n");
        let mut answer = get(&service, "GET /subscribe?last_event_id=earliest").await;
        let ids: Vec<_> = read_until(&mut answer.body, "id: 12\n\n")
            .await
            .lines()
            .filter_map(|line| line.strip_prefix("id: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
    }

    /// N-3: a batch that a small window could not hold goes in as several appends.
    #[tokio::test]
    async fn lines_in_a_small_window() {
        let hub = hub(|config| config.window_events = 10);
        let body = "{\"topic\":\"a\",\"data\":\"\"}\n".repeat(50);
        let answer = send(&hub.service(), request("POST /publish\nContent-Type: application/x-ndjson", body)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text().lines().count(), 50);
    }
}
