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
use crate::{AfterGap, Config, EndStyle, Granted, SubscribeError, Subscription};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header, request::Parts};
use tidings_core::{Matchers, TopicMatcher, limits};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const STARTS_AFTER: HeaderName = HeaderName::from_static("mercure-last-event-id");

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
        let form = read_form(config, parts, body).await?;
        for (name, value) in pairs(&form).ok_or(Problem::FormNotUtf8)? {
            question.take_pair(config, &name, &value, true)?;
        }
    }
    let subscription = question.into_subscription(config, &parts.headers)?;
    let refusal = parts.extensions.get::<Refusal>().copied();
    if let Some(refusal) = refusal.or_else(|| (!hub.hub().is_ready()).then_some(Refusal::Draining)) {
        return refuse(parts, refusal);
    }
    if parts.method == Method::HEAD {
        return Ok(stream_response(parts, ResponseBody::without_length("")));
    }
    match hub.open(subscription).await {
        Ok(opened) => {
            let mut response = stream_response(parts, ResponseBody::events(opened.body));
            // An id that a header cannot carry cannot be in the log either (N-1a).
            let start = opened.starts_after.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
            if let Some(start) = start {
                response.headers_mut().insert(STARTS_AFTER, start);
            }
            Ok(response)
        }
        Err(SubscribeError::Expired) => Err(Problem::Expired),
        Err(_) => refuse(parts, Refusal::Draining),
    }
}

/// What a request asks for, while it is read.
#[derive(Default)]
struct Question {
    matchers: Vec<TopicMatcher>,
    cursors: Cursors,
    prime: Setting<bool>,
    after_gap: Setting<AfterGap>,
    end: Setting<EndStyle>,
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
        *(if in_body { &mut self.in_body } else { &mut self.in_url }) = Some(value);
        Ok(())
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
        subscription.cursor = self.cursors.choose(headers.get_all("last-event-id").iter().map(HeaderValue::as_bytes));
        subscription.topics_field = self.topics_field;
        subscription.prime = self.prime.value();
        subscription.after_gap = self.after_gap.value();
        subscription.end = self.end.value();
        Ok(subscription)
    }
}

/// The form in a body (N-15); an empty body needs no type.
async fn read_form(config: &Config, parts: &Parts, body: Incoming) -> Result<Vec<u8>, Problem> {
    let media_type = media_type(&parts.headers)?;
    let typed = media_type.as_deref() == Some("application/x-www-form-urlencoded");
    if !typed && media_type.is_some() {
        return Err(Problem::FormType);
    }
    // Every matcher as long as it may be with every byte encoded, and the other names.
    let limit = config.matchers.saturating_mul("topic=&".len() + 3 * limits::TOPIC) + 4 * limits::CURSOR;
    let form = Reader::new(body, config.request_time).all(limit, || Problem::BodyTooLong { limit }).await?;
    if typed || form.is_empty() { Ok(form) } else { Err(Problem::FormType) }
}

/// The head of every stream (S-29 ... S-31, M-132).
fn stream_response(parts: &Parts, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("incremental", HeaderValue::from_static("?1"));
    headers.insert("accept-query", HeaderValue::from_static("application/x-www-form-urlencoded"));
    if parts.version == Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    response
}

/// N-16: whoever reads event streams is sent away for a while by the stream itself, for any other status would stop it for ever.
fn refuse(parts: &Parts, refusal: Refusal) -> Result<Response<ResponseBody>, Problem> {
    let retry_ms = random_in(limits::RETRY_REFUSED_MS);
    let soft = parts.method == Method::GET && accepts_events(&parts.headers) && !prefers_status(&parts.headers);
    if soft {
        return Ok(stream_response(parts, ResponseBody::without_length(format!(": busy\nretry: {retry_ms}\n"))));
    }
    let retry_after = retry_ms.div_ceil(1_000);
    Err(match refusal {
        Refusal::Overloaded => Problem::Overloaded { retry_after },
        Refusal::PerClient => Problem::PerClient { retry_after },
        Refusal::Draining => Problem::ShuttingDown { retry_after },
    })
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
