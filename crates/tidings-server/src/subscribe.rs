//! `tidings subscribe`: prints events, and comes back with the cursor after any cut.
//!
//! A stream that ended or broke is asked for again after the time the hub told (`retry`); a hub that is away or overloaded after growing,
//! random times, so that many such readers do not return at once. Only a refusal that asking again cannot change ends the program.

use crate::{
    Failure,
    client::{Endpoint, Problem, describe},
    printer::{self, Printer, Style},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    time::Duration,
};
use tidings::{Item, Parser};

/// Reconnection time until the hub tells one.
const RETRY: Duration = Duration::from_secs(2);
/// Even a hub that says `retry: 0` is not asked more often.
const RETRY_LEAST: Duration = Duration::from_millis(20);
/// The first and the longest wait while the hub is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What a line has besides the data the limit is about: `data: `.
const LINE_EXTRA: usize = 16;
/// A longer query goes into the body of a POST (N-15): proxies refuse long URLs.
const QUERY_BYTES: usize = 4_096;
/// What may stand in the path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is read.
pub(crate) enum Selection {
    Everything,
    /// A topic and everything below it.
    Prefix(String),
    /// Exactly these.
    Topics(Vec<String>),
}

/// Where the first connection begins, as the hub is asked.
pub(crate) enum Begin {
    Now,
    /// After this id, or `earliest`.
    Id(String),
    /// With what came at this moment, in milliseconds since 1970.
    Since(u64),
    /// With so many of the newest events.
    Last(usize),
}

pub(crate) struct Options {
    pub(crate) endpoint: Endpoint,
    pub(crate) selection: Selection,
    pub(crate) begin: Begin,
    /// Events after which to stop.
    pub(crate) count: Option<u64>,
    pub(crate) reconnect: bool,
    pub(crate) max_event: usize,
    pub(crate) style: Style,
}

/// How one connection went.
enum Outcome {
    /// Everything that was wanted has been printed, or nobody reads it any more.
    Done,
    /// It was a stream, and it ended: properly, or by a cut that says why.
    Ended(Option<String>),
    /// The hub is away or asks to come back later.
    Later(String, Option<Duration>),
}

/// Prints events until there is a reason to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("cannot start: {error}")))?;
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let printer = Printer { out: BufWriter::new(stdout.lock()), style: options.style, is_terminal };
    let parser = Parser::new(options.max_event.saturating_add(LINE_EXTRA));
    let mut reader = Reader { left: options.count, retry: None, parser, printer, options };
    runtime.block_on(reader.read())
}

struct Reader<W> {
    options: Options,
    parser: Parser,
    printer: Printer<W>,
    /// As the hub told last.
    retry: Option<Duration>,
    /// Events still wanted.
    left: Option<u64>,
}

impl<W: Write> Reader<W> {
    async fn read(&mut self) -> Result<(), Failure> {
        let mut refusals = 0;
        loop {
            let wait = match self.connection().await? {
                Outcome::Done => return Ok(()),
                Outcome::Ended(None) if !self.options.reconnect => return Ok(()),
                Outcome::Ended(Some(why)) | Outcome::Later(why, _) if !self.options.reconnect => return Err(Failure::Running(why)),
                Outcome::Ended(why) => {
                    refusals = 0;
                    if let Some(why) = why {
                        notice(&format!("{why}; resuming"));
                    }
                    self.retry.unwrap_or_else(|| jitter(RETRY)).max(RETRY_LEAST)
                }
                Outcome::Later(why, after) => {
                    let wait = backoff(refusals).max(after.unwrap_or_default());
                    refusals += 1;
                    notice(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64()));
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection from its request to its end.
    async fn connection(&mut self) -> Result<Outcome, Failure> {
        self.parser.reconnect();
        let request = self.request()?;
        let mut connection = match self.options.endpoint.connect().await {
            Ok(connection) => connection,
            Err(why) => return Ok(Outcome::Later(why, None)),
        };
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err(why) => return Ok(Outcome::Later(format!("{} did not answer: {why}", self.options.endpoint), None)),
        };
        match response.status() {
            StatusCode::OK => {}
            // The hub says not to come back (S-32).
            StatusCode::NO_CONTENT => return Ok(Outcome::Done),
            status => {
                let problem = Problem::read(response).await;
                let passes = status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                return if passes {
                    Ok(Outcome::Later(problem.to_string(), problem.retry_after))
                } else {
                    Err(Failure::Running(problem.to_string()))
                };
            }
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type.split(';').next().map(str::trim) != Some("text/event-stream") {
            let what = if content_type.is_empty() { "nothing that is named" } else { content_type };
            return Err(Failure::Running(format!("{} answered with {what}, not an event stream; is it a hub?", self.options.endpoint)));
        }
        let mut body = response.into_body();
        loop {
            match body.frame().await {
                None => return Ok(Outcome::Ended(None)),
                Some(Err(error)) => return Ok(Outcome::Ended(Some(format!("the stream was cut: {}", describe(&error))))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && self.take(&bytes)?
                    {
                        return Ok(Outcome::Done);
                    }
                }
            }
        }
    }

    /// Prints what the next bytes complete; whether that was all that is wanted.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut items = Vec::new();
        let pushed = self.parser.push(bytes, |item| items.push(item));
        let printed = self.print(&items).and_then(|done| self.printer.out.flush().map(|()| done));
        match printed {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // Whoever reads has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            Err(error) => return Err(Failure::Running(format!("cannot write to standard output: {error}"))),
        }
        pushed.map(|()| false).map_err(|error| Failure::Running(format!("{error}; raise --max-event to read it")))
    }

    fn print(&mut self, items: &[Item]) -> io::Result<bool> {
        for item in items {
            match item {
                Item::Message(message) => {
                    self.printer.event(message)?;
                    // The hub's word about the stream, not an event of it (N-14).
                    if message.event_type == printer::GAP {
                        notice(&printer::gap(message));
                    } else if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(1);
                        if *left == 0 {
                            return Ok(true);
                        }
                    }
                }
                Item::Retry(ms) => self.retry = Some(Duration::from_millis((*ms).min(tidings::limits::RETRY_MS.into()))),
                _ => {}
            }
        }
        Ok(false)
    }

    fn request(&self) -> Result<http::Request<Full<Bytes>>, Failure> {
        let mut path = "/subscribe".to_owned();
        let mut query = form_urlencoded::Serializer::new(String::new());
        match &self.options.selection {
            Selection::Everything => {}
            Selection::Prefix(prefix) => {
                path.push('/');
                path.extend(utf8_percent_encode(prefix.trim_start_matches('/'), PATH));
            }
            Selection::Topics(topics) => {
                query.extend_pairs(topics.iter().map(|topic| ("topic", topic)));
            }
        }
        query.append_pair("fields", "topic");
        let mut cursor = None;
        match (self.parser.last_event_id(), &self.options.begin) {
            // Bytes of UTF-8 are allowed in a header and controls are not; an id with controls is not one (S-19).
            (id, _) if !id.is_empty() => cursor = HeaderValue::from_bytes(id.as_bytes()).ok(),
            (_, Begin::Id(id)) => drop(query.append_pair("last_event_id", id)),
            (_, Begin::Since(moment)) => drop(query.append_pair("since", &moment.to_string())),
            (_, Begin::Last(count)) => drop(query.append_pair("last", &count.to_string())),
            (_, Begin::Now) => {}
        }
        let query = query.finish();
        let endpoint = &self.options.endpoint;
        let (mut request, body) = if query.len() > QUERY_BYTES {
            let request = endpoint.request("POST", &path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            (request, Bytes::from(query))
        } else {
            (endpoint.request("GET", &format!("{path}?{query}")), Bytes::new())
        };
        // `Prefer: status`: a true status with `Retry-After` instead of the stream that browsers need (N-16).
        request = request.header(header::ACCEPT, "text/event-stream").header("prefer", "status");
        if let Some(id) = cursor {
            request = request.header("last-event-id", id);
        }
        request.body(Full::new(body)).map_err(|error| Failure::Running(error.to_string()))
    }
}

/// How long to wait after so many refusals in a row: doubled each time, and at random between half of that and all of it.
fn backoff(refusals: u32) -> Duration {
    jitter(BACKOFF.0.saturating_mul(1 << refusals.min(16)).min(BACKOFF.1))
}

fn jitter(most: Duration) -> Duration {
    // Without a random source all wait for the longest time: no worse for the hub than being early together.
    let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    most.mul_f64(0.5 + share / 2.0)
}

/// Said beside the events. Standard error may be closed, and that is no reason to stop.
fn notice(what: &str) {
    let _ = writeln!(io::stderr(), "tidings: {}", crate::text::printable(what));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(selection: Selection, begin: Begin) -> Reader<Vec<u8>> {
        let options = Options {
            endpoint: Endpoint::new("http://127.0.0.1:1/live", Some("key")).unwrap(),
            selection,
            begin,
            count: Some(2),
            reconnect: true,
            max_event: 64,
            style: Style::Data,
        };
        let printer = Printer { out: Vec::new(), style: Style::Data, is_terminal: false };
        Reader { options, parser: Parser::new(64 + LINE_EXTRA), printer, retry: None, left: Some(2) }
    }

    /// N-10, N-11, N-12, N-13b, N-15: what is asked of the hub.
    #[test]
    fn requests() {
        for (selection, begin, asked) in [
            (Selection::Everything, Begin::Now, "GET /live/subscribe?fields=topic"),
            (Selection::Prefix("/a b/ü".into()), Begin::Now, "GET /live/subscribe/a%20b/%C3%BC?fields=topic"),
            (Selection::Topics(vec!["a".into(), "b&c".into()]), Begin::Now, "GET /live/subscribe?topic=a&topic=b%26c&fields=topic"),
            (Selection::Everything, Begin::Id("#1-2".into()), "GET /live/subscribe?fields=topic&last_event_id=%231-2"),
            (Selection::Everything, Begin::Since(7), "GET /live/subscribe?fields=topic&since=7"),
            (Selection::Everything, Begin::Last(10), "GET /live/subscribe?fields=topic&last=10"),
            (Selection::Topics(vec!["x".repeat(5_000)]), Begin::Now, "POST /live/subscribe"),
        ] {
            let request = reader(selection, begin).request().unwrap();
            assert_eq!(format!("{} {}", request.method(), request.uri()), asked);
            assert_eq!(request.headers()["authorization"], "Bearer key");
            assert!(!request.headers().contains_key("last-event-id"));
        }
    }

    /// N-12, S-18: once an id was seen it is the cursor, whatever the command line said.
    #[test]
    fn cursor_and_count() {
        let mut reader = reader(Selection::Everything, Begin::Last(3));
        assert!(!reader.take(b"retry: 70\nid: #1-2\n\nevent: tidings.gap\ndata: {}\nid: #1-3\n\n").unwrap());
        assert!(!reader.take(b"data: one\nid: #1-4\n\ndata: cut o").unwrap());
        assert_eq!((reader.left, reader.retry), (Some(1), Some(Duration::from_millis(70))));
        reader.parser.reconnect();
        let request = reader.request().unwrap();
        assert_eq!((request.uri().query(), &request.headers()["last-event-id"]), (Some("fields=topic"), &HeaderValue::from_static("#1-4")));
        assert!(reader.take(b"data: two\nid: #1-5\n\ndata: three\n\n").unwrap());
        assert_eq!(String::from_utf8(reader.printer.out).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn bounds() {
        let mut reader = reader(Selection::Everything, Begin::Now);
        assert!(reader.take(&[b'x'; 100]).is_err_and(|failure| failure.to_string().contains("--max-event")));
        for refusals in [0, 1, 5, 6, 40, u32::MAX] {
            let most = BACKOFF.0.saturating_mul(1 << refusals.min(16)).min(BACKOFF.1);
            let wait = backoff(refusals);
            assert!(wait >= most / 2 && wait <= most, "{refusals}: {wait:?}");
        }
        assert!(backoff(u32::MAX) <= Duration::from_secs(30));
    }
}
