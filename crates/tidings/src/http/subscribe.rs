//! Subscribing (N-10 ... N-17): a request becomes a subscription, the answer is a stream or a refusal that its client can live with.
//!
//! It knows the question and the header fields; what a stream says is the hub's.
//!
//! Unknown names in the query are ignored here: polyfills and caches' busters add names of their own to every URL they reconnect to.
//! `Accept` never leads to a refusal (S-37), it only tells who understands a soft one (N-16).

use super::{
    Refusal,
    body::{Incoming, Reader},
    cursor::Cursors,
    problem::Problem,
    publish::media_type,
    query::{decode_path, pairs, url_pairs},
    response::ResponseBody,
};
use crate::{AfterGap, Config, Cursor, EndStyle, Granted, HeartbeatForm, Opened, SubscribeError, Subscription, delivery::MayDetach};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header, request::Parts};
use tidings_core::{Matchers, TopicMatcher, limits, moment};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
pub(crate) const STARTS_AFTER: HeaderName = HeaderName::from_static("mercure-last-event-id");
// As constants, because a name given as a text is read and copied whenever it is used.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const INCREMENTAL: HeaderName = HeaderName::from_static("incremental");
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers a subscribe request; `prefix` is the rest of the path, still encoded.
pub(crate) async fn subscribe(
    hub: &Granted,
    parts: &Parts,
    prefix: Option<&str>,
    body: Option<Incoming>,
) -> Result<Response<ResponseBody>, Problem> {
    let config = hub.hub().config();
    let mut question = Question::default();
    if let Some(prefix) = prefix {
        question.take_prefix(&decode_path(prefix)?)?;
    }
    for (name, value) in url_pairs(parts.uri.query().unwrap_or_default())? {
        question.take_pair(config, &name, &value, false)?;
    }
    if let Some(body) = body {
        // Every matcher as long as it may be with every byte encoded, and the other names.
        let limit = config.matchers.saturating_mul("topic=&".len() + 3 * limits::TOPIC) + 4 * limits::CURSOR;
        let form = read_form(config, parts, body, limit).await?;
        for (name, value) in pairs(&form).ok_or(Problem::FormNotUtf8)? {
            question.take_pair(config, &name, &value, true)?;
        }
    }
    let subscription = question.into_subscription(config, &parts.headers)?;
    // An id that a header cannot carry cannot be in the log either (N-1a).
    open(hub, parts, subscription, |headers, start| {
        if let Some(start) = start.after.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert(STARTS_AFTER, start);
        }
    })
    .await
}

/// Where a stream starts, for its head.
pub(crate) struct Start {
    /// With a cursor: an id or `earliest` (M-92).
    pub(crate) after: Option<String>,
    /// Whether the cursor could not be honoured.
    pub(crate) gap: bool,
}

/// Opens a stream, or refuses in a way that its client can live with (N-16). `mark` adds to its head what is known of its start.
pub(crate) async fn open(
    hub: &Granted,
    parts: &Parts,
    subscription: Subscription,
    mark: impl FnOnce(&mut HeaderMap, Start),
) -> Result<Response<ResponseBody>, Problem> {
    match parts.extensions.get::<Refusal>() {
        Some(Refusal::Overloaded) => return refuse(parts, |retry_after| Problem::Overloaded { retry_after }),
        Some(Refusal::PerClient) => return refuse(parts, |retry_after| Problem::PerClient { retry_after }),
        None if !hub.hub().is_ready() => return refuse(parts, |retry_after| Problem::ShuttingDown { retry_after }),
        None => {}
    }
    let told = |opened: Opened| (ResponseBody::events(opened.body), opened.starts_after, opened.gap);
    let opened = match parts.extensions.get::<MayDetach>() {
        // The same head as for `GET`, of a stream that nobody opens.
        _ if parts.method == Method::HEAD => {
            let start = hub.would_start(&subscription).await;
            start.map(|(after, gap)| ((ResponseBody::without_length(""), after, gap), None))
        }
        Some(MayDetach) => hub.open_detachable(subscription).await.map(|(opened, ticket)| (told(opened), Some(ticket))),
        None => hub.open(subscription).await.map(|opened| (told(opened), None)),
    };
    match opened {
        Ok(((body, after, gap), ticket)) => {
            let mut response = stream_response(parts, body);
            if let Some(ticket) = ticket {
                response.extensions_mut().insert(ticket);
            }
            mark(response.headers_mut(), Start { after, gap: gap.is_some() });
            Ok(response)
        }
        Err(SubscribeError::Expired) => Err(Problem::Expired),
        Err(SubscribeError::ShuttingDown) => refuse(parts, |retry_after| Problem::ShuttingDown { retry_after }),
        Err(SubscribeError::TooMany) => refuse(parts, |retry_after| Problem::Overloaded { retry_after }),
        Err(SubscribeError::Store(error)) => refuse(parts, |_| error.into()),
    }
}

/// What a request asks for, while it is read.
#[derive(Default)]
struct Question {
    matchers: Vec<TopicMatcher>,
    cursors: Cursors,
    since: Setting<u64>,
    last: Setting<usize>,
    prime: Setting<bool>,
    after_gap: Setting<AfterGap>,
    end: Setting<EndStyle>,
    heartbeat_form: Setting<HeartbeatForm>,
    topics_field: bool,
}

/// A setting of this one stream: the URL counts before the body, as for cursors, and the last of repeated values.
struct Setting<T> {
    in_url: Option<T>,
    in_body: Option<T>,
}

impl<T> Default for Setting<T> {
    fn default() -> Self {
        Setting { in_url: None, in_body: None }
    }
}

impl<T: Copy> Setting<T> {
    fn take(&mut self, name: &'static str, table: &[(&str, T)], allowed: &'static str, given: &str, in_body: bool) -> Result<(), Problem> {
        let Some(&(_, value)) = table.iter().find(|(text, _)| *text == given) else {
            return Err(Problem::Value { name, allowed, given: given.to_owned() });
        };
        self.put(value, in_body);
        Ok(())
    }

    fn put(&mut self, value: T, in_body: bool) {
        *(if in_body { &mut self.in_body } else { &mut self.in_url }) = Some(value);
    }

    fn value(self) -> Option<T> {
        self.in_url.or(self.in_body)
    }
}

impl Question {
    /// The topic in the path and everything below it (N-10); `*` is everything, as in a query (M-30).
    fn take_prefix(&mut self, prefix: &str) -> Result<(), Problem> {
        let matcher = if prefix == "*" { TopicMatcher::all() } else { TopicMatcher::prefix(prefix).map_err(Problem::Matcher)? };
        self.matchers.push(matcher);
        Ok(())
    }

    fn take_pair(&mut self, config: &Config, name: &str, value: &str, in_body: bool) -> Result<(), Problem> {
        match name {
            "topic" => {
                self.matchers.push(TopicMatcher::exact(value).map_err(Problem::Matcher)?);
                if self.matchers.len() > config.matchers {
                    return Err(Problem::TooManyMatchers { limit: config.matchers });
                }
            }
            "since" => {
                let allowed = "a time as RFC 3339 writes it (`2026-11-25T12:00:00Z`) or milliseconds since 1970";
                let moment = moment::parse(value).ok_or_else(|| Problem::Value { name: "since", allowed, given: value.to_owned() })?;
                self.since.put(moment, in_body);
            }
            "last" => {
                const { assert!(limits::LAST_EVENTS == 10_000, "the text below") };
                let allowed = "a number of events from 0 to 10000";
                let count = value.parse().ok().filter(|&count| count <= limits::LAST_EVENTS);
                self.last.put(count.ok_or_else(|| Problem::Value { name: "last", allowed, given: value.to_owned() })?, in_body);
            }
            "prime" => {
                let table = [("1", true), ("true", true), ("0", false), ("false", false)];
                self.prime.take("prime", &table, "`1` or `0`", value, in_body)?;
            }
            "after_gap" => {
                let table = [("replay", AfterGap::Replay), ("live", AfterGap::Live)];
                self.after_gap.take("after_gap", &table, "`replay` or `live`", value, in_body)?;
            }
            "end" => {
                let table = [("clean", EndStyle::Clean), ("abort", EndStyle::Abort)];
                self.end.take("end", &table, "`clean` or `abort`", value, in_body)?;
            }
            "heartbeat_form" => {
                let table = [("comment", HeartbeatForm::Comment), ("event", HeartbeatForm::Event)];
                self.heartbeat_form.take("heartbeat_form", &table, "`comment` or `event`", value, in_body)?;
            }
            "fields" => {
                if value != "topic" {
                    return Err(Problem::Value { name: "fields", allowed: "`topic`", given: value.to_owned() });
                }
                self.topics_field = true;
            }
            _ => {
                self.cursors.take(name, value, in_body);
            }
        }
        Ok(())
    }

    fn into_subscription(self, config: &Config, headers: &HeaderMap) -> Result<Subscription, Problem> {
        if self.matchers.len() > config.matchers {
            return Err(Problem::TooManyMatchers { limit: config.matchers });
        }
        let matchers = if self.matchers.is_empty() { Matchers::all() } else { Matchers::new(self.matchers) };
        let mut subscription = Subscription::new(matchers);
        let begin = match (self.since.value(), self.last.value()) {
            (Some(_), Some(_)) => return Err(Problem::TwoStarts),
            (Some(moment), None) => Cursor::Since(moment),
            (None, Some(count)) => Cursor::Last(count),
            (None, None) => Cursor::Live,
        };
        // Clients add their cursor to the same URL when they reconnect, and then it says where they are.
        subscription.cursor = match self.cursors.choose(headers.get_all(LAST_EVENT_ID).iter().map(HeaderValue::as_bytes)) {
            Cursor::Live => begin,
            cursor => cursor,
        };
        subscription.topics_field = self.topics_field;
        subscription.prime = self.prime.value();
        subscription.after_gap = self.after_gap.value();
        subscription.end = self.end.value();
        subscription.heartbeat_form = self.heartbeat_form.value();
        Ok(subscription)
    }
}

/// The form in a body (N-15); an empty body needs no type.
pub(crate) async fn read_form(config: &Config, parts: &Parts, body: Incoming, limit: usize) -> Result<Vec<u8>, Problem> {
    let media_type = media_type(&parts.headers)?;
    let typed = media_type.as_deref() == Some("application/x-www-form-urlencoded");
    if !typed && media_type.is_some() {
        return Err(Problem::FormType);
    }
    let form = Reader::new(body, config.request_time).all(limit, || Problem::BodyTooLong { limit }).await?;
    if typed || form.is_empty() { Ok(form) } else { Err(Problem::FormType) }
}

/// The head of every stream (S-29 ... S-31, M-132).
fn stream_response(parts: &Parts, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    // Those that are added later fit in too.
    *headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache, no-store, no-transform"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(INCREMENTAL, HeaderValue::from_static("?1"));
    headers.insert(ACCEPT_QUERY, HeaderValue::from_static("application/x-www-form-urlencoded"));
    if parts.version == Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    response
}

/// N-16: whoever reads event streams is sent away for a while by the stream itself, for any other status would stop it for ever.
fn refuse(parts: &Parts, hard: impl FnOnce(u32) -> Problem) -> Result<Response<ResponseBody>, Problem> {
    let retry_ms = random_in(limits::RETRY_REFUSED_MS);
    let soft = parts.method == Method::GET && accepts_events(&parts.headers) && !prefers_status(&parts.headers);
    if soft {
        return Ok(stream_response(parts, ResponseBody::without_length(format!(": busy\nretry: {retry_ms}\n"))));
    }
    Err(hard(retry_ms.div_ceil(1_000)))
}

fn random_in((from, to): (u32, u32)) -> u32 {
    // Without random numbers the spread is lost, not the refusal.
    from + getrandom::u32().unwrap_or_default() % (to - from + 1)
}

/// Whether `Accept` allows `text/event-stream` (S-37): the most specific range that covers it decides.
fn accepts_events(headers: &HeaderMap) -> bool {
    let mut best: Option<(u8, bool)> = None;
    for element in elements(headers, &header::ACCEPT) {
        let mut parts = element.split(';').map(str::trim);
        let specific = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/event-stream" => 3,
            "text/*" => 2,
            "*/*" | "*" => 1,
            _ => continue,
        };
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|q| q.bytes().any(|b| matches!(b, b'1'..=b'9')));
        if best.is_none_or(|(so_far, _)| specific > so_far) {
            best = Some((specific, wanted));
        }
    }
    best.map_or_else(|| !headers.contains_key(header::ACCEPT), |(_, wanted)| wanted)
}

/// `Prefer: status`: a client that handles statuses asks for them.
fn prefers_status(headers: &HeaderMap) -> bool {
    elements(headers, &HeaderName::from_static("prefer"))
        .any(|element| element.split([';', '=']).next().unwrap_or_default().trim().eq_ignore_ascii_case("status"))
}

/// The elements of a list field, whose lines may be several.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().flat_map(|value| {
        // A field of bytes beyond ASCII is none of the words looked for.
        value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|element| !element.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut all, (name, value)| {
                all.append(name, value);
                all
            },
        )
    }

    fn parse(prefix: Option<&str>, url: &str, body: &str) -> Result<Subscription, Problem> {
        let config = Config::default();
        let mut question = Question::default();
        if let Some(prefix) = prefix {
            question.take_prefix(&decode_path(prefix)?)?;
        }
        for (query, in_body) in [(url, false), (body, true)] {
            for (name, value) in url_pairs(query)? {
                question.take_pair(&config, &name, &value, in_body)?;
            }
        }
        question.into_subscription(&config, &HeaderMap::new())
    }

    /// N-10, N-11: what a path and a query ask for, in the debug form of matchers.
    #[test]
    fn matchers() {
        for (prefix, query, expected) in [
            (None, "", "[*]"),
            (Some("a"), "", "[a/**]"),
            (Some("/a/"), "", "[a/**]"),
            (Some("a/b"), "", "[a/b/**]"),
            (Some("a%2Fb"), "", "[a/b/**]"),
            (Some("%E6%97%A5"), "", "[日/**]"),
            (Some("*"), "", "[*]"),
            (Some("/"), "", "[*]"),
            (None, "topic=a&topic=b", "[=a, =b]"),
            (None, "topic=b&topic=a&topic=b", "[=a, =b]"),
            (None, "topic=*&topic=a", "[*]"),
            (Some("a"), "topic=b", "[=b, a/**]"),
            (None, "cachebust=1&_=2", "[*]"),
        ] {
            let subscription = parse(prefix, query, "").unwrap();
            assert_eq!(format!("{:?}", subscription.matchers.as_slice()), expected, "{prefix:?} {query}");
        }
    }

    /// N-13a, N-13b, N-14, N-17: the settings of one stream.
    #[test]
    fn settings() {
        let plain = parse(None, "", "").unwrap();
        assert_eq!((plain.prime, plain.end, plain.after_gap, plain.topics_field), (None, None, None, false));
        let all = parse(None, "prime=0&end=abort&after_gap=live&fields=topic&last_event_id=%23x", "").unwrap();
        assert_eq!((all.prime, all.end, all.after_gap), (Some(false), Some(EndStyle::Abort), Some(AfterGap::Live)));
        assert!(all.topics_field);
        assert_eq!(all.cursor, Cursor::After("#x".to_owned()));
        // URL before body, the last of repeated values.
        assert_eq!(parse(None, "prime=0", "prime=1").unwrap().prime, Some(false));
        assert_eq!(parse(None, "prime=0&prime=1", "").unwrap().prime, Some(true));
        assert_eq!(parse(None, "", "prime=true&topic=a").unwrap().prime, Some(true));
        assert_eq!(parse(None, "last_event_id=earliest", "").unwrap().cursor, Cursor::Earliest);
    }

    /// N-12, S-18: where a stream starts that has no cursor, or one beside what the URL says.
    #[test]
    fn beginnings() {
        let table: &[(&str, &str, Cursor)] = &[
            ("since=1795608000000", "", Cursor::Since(1_795_608_000_000)),
            ("since=2026-11-25T12:00:00Z", "", Cursor::Since(1_795_608_000_000)),
            ("since=2026-11-25T13:00:00+01:00", "", Cursor::Since(1_795_608_000_000)),
            ("since=2026-11-25T13:00:00%2B01:00", "", Cursor::Since(1_795_608_000_000)),
            ("since=1&since=2", "", Cursor::Since(2)),
            ("since=1", "since=2", Cursor::Since(1)),
            ("last=10", "", Cursor::Last(10)),
            ("", "last=0", Cursor::Last(0)),
            ("last=10&last_event_id=x", "", Cursor::After("x".into())),
            ("since=1&lastEventId=earliest", "", Cursor::Earliest),
            ("since=1", "Last-Event-ID=x", Cursor::After("x".into())),
            ("since=1&last_event_id=", "", Cursor::Since(1)),
        ];
        for (url, body, expected) in table {
            assert_eq!(&parse(None, url, body).unwrap().cursor, expected, "{url} {body}");
        }
    }

    #[test]
    fn refusals() {
        let long = format!("topic={}", "x".repeat(limits::TOPIC + 1));
        let many = "topic=x&".repeat(limits::MATCHERS + 1);
        let table: &[(Option<&str>, &str, &str)] = &[
            (None, "topic=", "the topic of a subscription is none: a topic must not be empty"),
            (None, "topic=a%0Ab", "U+000A"),
            (Some("a%00"), "", "U+0000"),
            (Some("%EF%BB%BFa"), "", "U+FEFF"),
            (Some("%FF"), "", "the path is not valid UTF-8"),
            (None, "topic=%ED%A0%80", "the query is not valid UTF-8"),
            (None, &long, "at most 2048 bytes"),
            (None, &many, "at most 100 topics"),
            (None, "prime=yes", "`prime` must be `1` or `0`, not \"yes\""),
            (None, "end=", "`end` must be `clean` or `abort`"),
            (None, "after_gap=x", "`after_gap` must be `replay` or `live`"),
            (None, "fields=topics", "`fields` must be `topic`"),
            (
                None,
                "since=yesterday",
                "`since` must be a time as RFC 3339 writes it (`2026-11-25T12:00:00Z`) or milliseconds since 1970, not",
            ),
            (None, "since=", "`since` must be"),
            (None, "last=10001", "`last` must be a number of events from 0 to 10000, not \"10001\""),
            (None, "last=-1", "`last` must be"),
            (None, "since=0&last=1", "give either `since` or `last`"),
            (None, "since=0&last=1&last_event_id=x", "give either `since` or `last`"),
        ];
        for (prefix, query, detail) in table {
            let problem = parse(*prefix, query, "").unwrap_err();
            assert_eq!(problem.status(), 400, "{problem}");
            assert!(problem.to_string().contains(detail), "{query:.40}: {problem}");
        }
    }

    /// S-37, N-16: who understands a soft refusal.
    #[test]
    fn accept() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("accept", "text/event-stream")], true),
            (&[("accept", "*/*")], true),
            (&[("accept", "text/*")], true),
            (&[("accept", "application/json, text/event-stream")], true),
            (&[("accept", "application/json"), ("accept", "Text/Event-Stream;q=0.1")], true),
            (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], true),
            (&[("accept", "application/json")], false),
            (&[("accept", "text/event-stream;q=0, */*")], false),
            (&[("accept", "text/event-stream; q=0.0")], false),
            (&[("accept", "")], false),
        ];
        for (fields, expected) in table {
            assert_eq!(accepts_events(&headers(fields)), *expected, "{fields:?}");
        }
    }

    /// N-16: the two forms of a refusal.
    #[test]
    fn soft_and_hard() {
        let parts = |method: Method, fields: &[(&'static str, &'static str)]| {
            let mut parts = Request::new(()).into_parts().0;
            (parts.method, parts.headers) = (method, headers(fields));
            parts
        };
        let overloaded = |retry_after| Problem::Overloaded { retry_after };
        let soft = refuse(&parts(Method::GET, &[]), overloaded).unwrap();
        assert_eq!((soft.status().as_u16(), &soft.headers()["content-type"]), (200, &EVENT_STREAM));
        let retry: u32 = soft.into_body().into_text().strip_prefix(": busy\nretry: ").unwrap().strip_suffix('\n').unwrap().parse().unwrap();
        assert!((limits::RETRY_REFUSED_MS.0..=limits::RETRY_REFUSED_MS.1).contains(&retry));
        let hard: &[(Method, &[(&str, &str)])] = &[
            (Method::POST, &[]),
            (Method::HEAD, &[]),
            (Method::GET, &[("accept", "application/json")]),
            (Method::GET, &[("prefer", "status")]),
            (Method::GET, &[("prefer", "respond-async, Status=1; x")]),
        ];
        for (method, fields) in hard {
            let response = refuse(&parts(method.clone(), fields), overloaded).unwrap_err().into_response();
            assert_eq!(response.status(), 503);
            let seconds: u32 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((15..=60).contains(&seconds));
        }
    }
}
