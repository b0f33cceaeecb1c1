//! Publishing (N-1 ... N-5): a body becomes events, the answer names their ids.
//!
//! It knows the three forms of a publish request. What an event may say is decided in the core, who may publish by the grant, and how long
//! a body may take in `http/body.rs`.
//!
//! Unknown names in the query are refused, because a misspelt `retyr` would be lost silently.

use super::{
    body::{Incoming, Reader},
    json::{self, Draft},
    problem::Problem,
    query::{decode_path, url_pairs},
    response::{PLAIN_TEXT, ResponseBody, answer},
};
use crate::{Config, Granted, PublishError};
use bytes::{Buf, BytesMut};
use http::{HeaderMap, Response, header, request::Parts};
use tidings_core::{Event, EventError, EventId, Position, limits};

/// The names of N-1, for the refusal of others.
const KNOWN: &str = "`type`, `id`, `retry`, `private`, `topic`";

/// Answers a publish request; `topic` is the rest of the path, still encoded.
pub(crate) async fn publish(hub: &Granted, parts: &Parts, topic: Option<&str>, body: Incoming) -> Result<Response<ResponseBody>, Problem> {
    let config = hub.hub().config();
    check_head(&parts.headers)?;
    let query = parts.uri.query().unwrap_or_default();
    let body = Reader::new(body, config.request_time);
    let ids = match topic {
        Some(topic) => {
            let (topics, draft) = parse_query(&decode_path(topic)?, query)?;
            let event = read_data(config, body, draft).await?.into_event(&topics, config.topics_per_event)?;
            text_of(&[hub.publish(event).await?])
        }
        None => {
            if let Some((name, _)) = url_pairs(query)?.next() {
                return Err(Problem::UnknownName { name: name.into_owned(), known: "none; they go into the JSON" });
            }
            match media_type(&parts.headers)?.as_deref() {
                Some("application/json") => {
                    let limit = config.publish_body;
                    let text = text(body.all(limit, || Problem::BodyTooLong { limit }).await?)?;
                    let (events, _) = json::one_or_many(&text, config.topics_per_event)?;
                    if events.is_empty() { String::new() } else { text_of(&hub.publish_batch(events).await?) }
                }
                Some("application/x-ndjson") => Lines::new(hub, config).run(body).await?,
                _ => return Err(Problem::PublishType),
            }
        }
    };
    Ok(answer(PLAIN_TEXT, ids))
}

/// What is refused whatever the form.
fn check_head(headers: &HeaderMap) -> Result<(), Problem> {
    // The bytes would be taken for the text itself.
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Problem::Encoding);
    }
    // Whoever sends one relies on it (N-6); publishing twice in silence would be worse than a refusal.
    if headers.contains_key("idempotency-key") {
        return Err(Problem::Idempotency);
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
fn parse_query(topic: &str, query: &str) -> Result<(Vec<String>, Draft), Problem> {
    let mut topics = vec![topic.to_owned()];
    let mut draft = Draft::default();
    let (mut event_type, mut id, mut retry) = (None, None, None);
    for (name, value) in url_pairs(query)? {
        let (place, name) = match &*name {
            "topic" => {
                topics.push(value.into_owned());
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
        if place.replace(value.into_owned()).is_some() {
            return Err(Problem::RepeatedName(name));
        }
    }
    draft.event_type = event_type.unwrap_or_default();
    draft.id = id.unwrap_or_default();
    draft.retry = retry.unwrap_or_default();
    Ok((topics, draft))
}

/// The body is the data (N-1), so whichever of the two limits is lower holds while it comes in.
async fn read_data(config: &Config, body: Reader, draft: Draft) -> Result<Draft, Problem> {
    let limit = config.publish_body.min(config.event_data);
    let too_long = || if limit == config.event_data { Problem::DataTooLong { limit } } else { Problem::BodyTooLong { limit } };
    Ok(Draft { data: text(body.all(limit, too_long).await?)?, ..draft })
}

fn text(bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| EventError::DataNotUtf8.into())
}

/// N-4: one id per line.
fn text_of(ids: &[EventId]) -> String {
    let mut text = String::with_capacity(ids.iter().map(|id| id.as_str().len() + 1).sum());
    for id in ids {
        text.push_str(id.as_str());
        text.push('\n');
    }
    text
}

/// Bytes of lines that have come in together and are made one append.
const APPEND_BYTES: usize = 1 << 20;

/// What an event costs at the most while it is kept: each line end in its data becomes a line of its own.
fn cost_at_most(event: &Event) -> usize {
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
    rest: BytesMut,
    /// The number of the line looked at, from 1.
    line: u64,
    /// Events of the lines that came in together, and where the first of them stood.
    pending: Vec<Event>,
    pending_from: u64,
    pending_cost: usize,
    /// Ids of what is kept.
    ids: String,
    /// Bytes of ids with those of what is pending.
    answer_len: usize,
}

impl<'a> Lines<'a> {
    fn new(hub: &'a Granted, config: &'a Config) -> Self {
        Lines {
            hub,
            config,
            rest: BytesMut::new(),
            line: 0,
            pending: vec![],
            pending_from: 0,
            pending_cost: 0,
            ids: String::new(),
            answer_len: 0,
        }
    }

    async fn run(mut self, mut body: Reader) -> Result<String, Problem> {
        let problem = match self.read(&mut body).await {
            Ok(()) => return Ok(self.ids),
            Err(problem) => problem,
        };
        Err(Problem::Line { line: self.line, ids: self.ids, problem: Box::new(problem) })
    }

    async fn read(&mut self, body: &mut Reader) -> Result<(), Problem> {
        loop {
            let piece = match body.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    // The last line may lack its line end, but not after a break: half a line is none.
                    let last = self.rest.split();
                    if !last.is_empty() {
                        self.line += 1;
                        self.take(&last).await?;
                    }
                    return self.append().await;
                }
                Err(problem) => {
                    self.line += 1;
                    return Err(problem);
                }
            };
            self.rest.extend_from_slice(&piece);
            let searched = self.rest.len() - piece.len();
            let before = self.line;
            let taken = self.take_lines(searched).await;
            // What stood before a bad line is kept; if that fails, it is the earlier problem.
            self.append().await?;
            taken?;
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

    /// Takes every whole line that is there; the first `searched` bytes are known to have no line end.
    async fn take_lines(&mut self, mut searched: usize) -> Result<(), Problem> {
        while let Some(at) = self.rest[searched..].iter().position(|&b| b == b'\n') {
            let line = self.rest.split_to(searched + at);
            self.rest.advance(1);
            searched = 0;
            self.line += 1;
            self.take(&line).await?;
        }
        Ok(())
    }

    /// Checks one line entirely, so that what is pending can only fail as a whole.
    async fn take(&mut self, line: &[u8]) -> Result<(), Problem> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if line.len() > self.config.publish_body {
            return Err(Problem::LineTooLong { limit: self.config.publish_body });
        }
        let text = std::str::from_utf8(line).map_err(|_| EventError::DataNotUtf8)?;
        let event = json::event(text, self.config.topics_per_event)?;
        if event.data().len() > self.config.event_data {
            return Err(Problem::DataTooLong { limit: self.config.event_data });
        }
        if let Some(topic) = event.topics().iter().find(|topic| !self.hub.grant().publish.matches(topic)) {
            return Err(PublishError::Forbidden(topic.clone()).into());
        }
        self.answer_len += event.id().map_or(Position::ID_LEN, str::len) + 1;
        if self.answer_len > limits::ANSWER_IDS {
            return Err(Problem::TooManyLines { limit: limits::ANSWER_IDS });
        }
        let cost = cost_at_most(&event);
        let (events, bytes) = self.hub.batch_limit();
        if self.pending.len() >= events.min(limits::BATCH_EVENTS) || self.pending_cost + cost > bytes.min(APPEND_BYTES) {
            self.append().await?;
        }
        if self.pending.is_empty() {
            self.pending_from = self.line;
        }
        self.pending.push(event);
        self.pending_cost += cost;
        Ok(())
    }

    async fn append(&mut self) -> Result<(), Problem> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.pending);
        self.pending_cost = 0;
        match self.hub.publish_batch(events).await {
            Ok(ids) => {
                self.ids.push_str(&text_of(&ids));
                Ok(())
            }
            Err(error) => {
                self.line = self.pending_from;
                Err(error.into())
            }
        }
    }
}
