//! Refusals as clients read them (N-5): every status, URN and sentence of the HTTP interface is decided here.
//!
//! It knows what can go wrong, not where it was noticed.

use super::response::{NO_STORE, ResponseBody};
use crate::{
    KeyError, PublishError, StoreError,
    auth::{AuthError, Class, Dialect},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use std::{borrow::Cow, time::Duration};
use tidings_core::{EventError, PatternError, TopicError, limits};

/// Why a request is refused. The texts are the `detail` of the answer: they tell the caller what to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("there is nothing at this path; publish to `/publish/{{topic}}`, subscribe at `/subscribe/{{topic}}`")]
    NotFound,
    #[error("this path answers {0}")]
    Method(&'static str),
    #[error("a request must not have more than one `{0}` field")]
    Repeated(HeaderName),
    #[error("an HTTP/1.1 request must have a `Host` field")]
    NoHost,
    #[error("this hub does not answer to the host {0:?}; add the name to the setting `hosts`, or set `public_url`")]
    WrongHost(String),
    #[error("pages of the origin {0:?} may not do this; add it to the setting `cors_origins` or `publish_origins`")]
    ForeignOrigin(String),
    #[error("the path is not valid UTF-8 after percent-decoding")]
    PathNotUtf8,
    #[error("the query is not valid UTF-8 after percent-decoding")]
    QueryNotUtf8,
    #[error("the form in the body is not valid UTF-8 after percent-decoding")]
    FormNotUtf8,
    #[error("the query has an unknown name {name:?}; known here: {known}")]
    UnknownName { name: String, known: &'static str },
    #[error("give either `since` or `last`, not both; a cursor (`last_event_id`) may stand beside one of them, and counts instead of it")]
    TwoStarts,
    #[error("the query has `{0}` more than once")]
    RepeatedName(&'static str),
    #[error("`{name}` must be {allowed}, not {given:?}")]
    Value { name: &'static str, allowed: &'static str, given: String },
    #[error("send the events as `application/json` or `application/x-ndjson`, or put the topic into the path: `/publish/{{topic}}`")]
    PublishType,
    #[error("send the form as `application/x-www-form-urlencoded`")]
    FormType,
    #[error("send the body as UTF-8, not in the character set {0:?}")]
    Charset(String),
    #[error("send the body without `Content-Encoding`")]
    Encoding,
    #[error("the `Idempotency-Key` must stand in double quotes, as in `Idempotency-Key: \"8e03978e-40d5-43dd-bc93-6894a57f9324\"`")]
    BadKey,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("a stream of lines cannot have an `Idempotency-Key`, for its lines are published one by one; send the events as a JSON array")]
    KeyOfLines,
    #[error("{0}")]
    KeyReused(String),
    #[error("the JSON is not an event: {0}")]
    Json(String),
    #[error("event {index} of the array is not one: {problem}")]
    Element { index: usize, problem: Box<Problem> },
    #[error("an event needs a topic: give `topic`, a string, or `topics`, an array of strings")]
    NoTopic,
    #[error("give either `topic` or `topics`, not both")]
    TwoTopics,
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("the topic of a subscription is none: {0}")]
    Matcher(TopicError),
    #[error("the pattern of a subscription is none: {0}")]
    Pattern(#[from] PatternError),
    #[error("a subscription may name at most {limit} topics, this one names more; subscribe to a prefix with `/subscribe/{{prefix}}`")]
    TooManyMatchers { limit: usize },
    #[error(
        "the patterns of a subscription and of its token may take at most {limit} bytes when compiled, these take more; use fewer or simpler ones"
    )]
    PatternsTooLarge { limit: usize },
    #[error("an event may have at most {limit} topics here, this one has more")]
    TooManyTopics { limit: usize },
    #[error("an array may have at most {limit} events; send several, or a stream of lines as `application/x-ndjson`")]
    TooManyEvents { limit: usize },
    #[error("one request may carry at most {limit} bytes of ids in its answer; continue in a new request")]
    TooManyLines { limit: usize },
    #[error("the body may have at most {limit} bytes; send less at once")]
    BodyTooLong { limit: usize },
    #[error("the data of an event may have at most {limit} bytes here; publish a link to it instead, or raise `event_data`")]
    DataTooLong { limit: usize },
    #[error("a line may have at most {limit} bytes")]
    LineTooLong { limit: usize },
    #[error("the body broke off before its end; send it again")]
    BodyCut,
    #[error(
        "the body came too slowly: its first byte must come within {} s, then at least {} bytes per second",
        .0.as_secs(),
        limits::REQUEST_BODY_RATE
    )]
    BodySlow(Duration),
    #[error("no line came for {} s; end the body when there is nothing to publish for long", .0.as_secs())]
    LineSlow(Duration),
    /// Rights that were refused, in the style of a dialect (M-408): RFC 6750, or 401 for everything.
    #[error("{0}")]
    Auth(AuthError, Dialect),
    #[error("nobody has this subscription now")]
    NoSubscription,
    #[error("a subscription is of type `exact`, `urlpattern` or `uritemplate`")]
    UnknownMatchType,
    #[error("the rights of this client have ended; get new ones")]
    Expired,
    #[error("{0}")]
    Forbidden(String),
    #[error("too many connections of this client; close some, or try again later")]
    PerClient { retry_after: u32 },
    #[error("the hub is overloaded; try again later")]
    Overloaded { retry_after: u32 },
    #[error("the hub is shutting down; try again later")]
    ShuttingDown { retry_after: u32 },
    #[error("one request may carry at most {events} events and {bytes} bytes of them at once here; send several, or a stream of lines")]
    BatchTooLarge { events: usize, bytes: usize },
    #[error("{0}")]
    NoSpace(String),
    #[error("{0}")]
    Store(String),
    #[error(
        "missing \"match\" subscription parameter: give `match` for a topic, `match_urlpattern` for a URL pattern (or `topic`, as before 1.0)"
    )]
    NoMatcher,
    #[error("Missing \"topic\" parameter.")]
    NoSelector,
    #[error(
        "the parameter `topic` of earlier versions is switched off here (setting `mercure_dialects`): use `match`, or `match_urlpattern`"
    )]
    TopicParameter,
    #[error("the parameters `match` and `match_...` are switched off here (setting `mercure_dialects`): use `topic`")]
    MatchParameter,
    #[error("the parameter {0:?} is not a matcher; known are `match`, `match_exact` and `match_urlpattern`")]
    UnknownMatcher(String),
    #[error("Missing \"topic\" parameter: send the event as a form, `application/x-www-form-urlencoded`")]
    MercureForm,
    #[error("Missing \"topic\" parameter.")]
    MercureNoTopic,
    /// A line of a stream of events (N-3), with the ids of those before it.
    #[error("{problem}")]
    Line { line: u64, ids: String, problem: Box<Problem> },
}

/// Seconds after which a client whom the hub or the store refused tries again; the hub has waited [`limits::SHARD_LEAD_MS`] already.
const PUBLISH_RETRY_AFTER: u32 = 5;

/// A URN, unique to the kind of problem and stable; and its title.
type Kind = (StatusCode, &'static str, &'static str);

impl Problem {
    fn kind(&self) -> Kind {
        use Problem as P;
        const MALFORMED: Kind = (StatusCode::BAD_REQUEST, "malformed", "The request is malformed");
        const TOO_LARGE: Kind = (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large");
        const TOO_SLOW: Kind = (StatusCode::REQUEST_TIMEOUT, "too-slow", "The body came too slowly");
        const MEDIA_TYPE: Kind = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The type of the body is not supported");
        const UNAUTHORIZED: Kind = (StatusCode::UNAUTHORIZED, "unauthorized", "Valid credentials are needed");
        const FORBIDDEN: Kind = (StatusCode::FORBIDDEN, "forbidden", "Not allowed");
        match self {
            P::NotFound => (StatusCode::NOT_FOUND, "not-found", "No such path"),
            P::NoSubscription => (StatusCode::NOT_FOUND, "no-subscription", "No such subscription"),
            P::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not have this method"),
            P::WrongHost(_) => (StatusCode::MISDIRECTED_REQUEST, "wrong-host", "The request is for another host"),
            P::ForeignOrigin(_) => (StatusCode::FORBIDDEN, "foreign-origin", "The origin is not allowed"),
            P::UnknownName { .. } => (StatusCode::BAD_REQUEST, "unknown-name", "The query has an unknown name"),
            P::PublishType | P::FormType | P::Charset(_) | P::Encoding => MEDIA_TYPE,
            P::BadKey | P::Key(_) | P::KeyOfLines => (StatusCode::BAD_REQUEST, "bad-idempotency-key", "The idempotency key cannot be used"),
            P::KeyReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The idempotency key was used before"),
            P::Event(error) if error.is_size() => TOO_LARGE,
            P::Event(_) | P::NoTopic | P::TwoTopics | P::Json(_) => (StatusCode::BAD_REQUEST, "bad-event", "This is not an event"),
            P::MercureForm | P::MercureNoTopic => (StatusCode::BAD_REQUEST, "bad-event", "This is not an event"),
            P::Element { problem, .. } | P::Line { problem, .. } => problem.kind(),
            P::NoMatcher
            | P::NoSelector
            | P::TopicParameter
            | P::MatchParameter
            | P::UnknownMatcher(_)
            | P::Matcher(_)
            | P::Pattern(_)
            | P::UnknownMatchType
            | P::PatternsTooLarge { .. }
            | P::TooManyMatchers { .. } => (StatusCode::BAD_REQUEST, "bad-subscription", "This is not a subscription"),
            P::TooManyTopics { .. } | P::TooManyEvents { .. } | P::TooManyLines { .. } | P::BatchTooLarge { .. } => TOO_LARGE,
            P::BodyTooLong { .. } | P::DataTooLong { .. } | P::LineTooLong { .. } => TOO_LARGE,
            P::BodyCut => (StatusCode::BAD_REQUEST, "body-cut", "The body broke off"),
            P::BodySlow(_) | P::LineSlow(_) => TOO_SLOW,
            P::Expired => UNAUTHORIZED,
            P::Auth(error, dialect) => match (error.class(), dialect) {
                (Class::Missing | Class::Invalid, _) | (Class::Malformed | Class::Insufficient, Dialect::Seven) => UNAUTHORIZED,
                (Class::Malformed, Dialect::Eight) => MALFORMED,
                (Class::Insufficient, Dialect::Eight) => FORBIDDEN,
                (Class::Unavailable, _) => (StatusCode::SERVICE_UNAVAILABLE, "keys-unavailable", "The keys of an issuer are not available"),
            },
            P::Forbidden(_) => FORBIDDEN,
            P::PerClient { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-connections", "Too many connections"),
            P::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The hub is overloaded"),
            P::ShuttingDown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "shutting-down", "The hub is shutting down"),
            P::NoSpace(_) => (StatusCode::INSUFFICIENT_STORAGE, "no-space", "The store is full"),
            P::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The store is not available"),
            P::Repeated(_) | P::NoHost | P::PathNotUtf8 | P::QueryNotUtf8 | P::FormNotUtf8 => MALFORMED,
            P::RepeatedName(_) | P::TwoStarts | P::Value { .. } => MALFORMED,
        }
    }

    /// The one header field that some problems come with.
    fn field(&self) -> Option<(HeaderName, HeaderValue)> {
        let challenge = |value| Some((header::WWW_AUTHENTICATE, HeaderValue::from_static(value)));
        match self {
            Problem::Method(allow) => Some((header::ALLOW, HeaderValue::from_static(allow))),
            Problem::Auth(error, dialect) => match (error.class(), dialect) {
                (Class::Unavailable, _) => Some((header::RETRY_AFTER, PUBLISH_RETRY_AFTER.into())),
                (Class::Missing, _) => challenge("Bearer"),
                (Class::Malformed, _) => challenge("Bearer error=\"invalid_request\""),
                (Class::Invalid, _) => challenge("Bearer error=\"invalid_token\""),
                (Class::Insufficient, _) => challenge("Bearer error=\"insufficient_scope\""),
            },
            Problem::Expired => challenge("Bearer error=\"invalid_token\""),
            Problem::Forbidden(_) => challenge("Bearer error=\"insufficient_scope\""),
            Problem::PerClient { retry_after } | Problem::Overloaded { retry_after } | Problem::ShuttingDown { retry_after } => {
                Some((header::RETRY_AFTER, (*retry_after).into()))
            }
            Problem::NoSpace(_) | Problem::Store(_) => Some((header::RETRY_AFTER, PUBLISH_RETRY_AFTER.into())),
            Problem::Line { problem, .. } => problem.field(),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// The answer, as RFC 9457 wants it.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let (status, name, title) = self.kind();
        tracing::debug!(status = status.as_u16(), problem = name, "request refused");
        let lines = match &self {
            Problem::Line { line, ids, .. } => Some((*line, ids.lines().collect::<Vec<_>>())),
            _ => None,
        };
        let document = Document {
            kind: format!("urn:tidings:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.to_string().into(),
            line: lines.as_ref().map(|(line, _)| *line),
            ids: lines.as_ref().map(|(_, ids)| &**ids),
        };
        // Strings and numbers always serialise; a panic over an error document would be the worse answer.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(ResponseBody::full(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        if let Some((name, value)) = self.field() {
            headers.insert(name, value);
        }
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<&'a [&'a str]>,
}

/// On the native routes refusals are RFC 6750's, whatever the token.
impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        Problem::Auth(error, Dialect::Eight)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => Problem::NoSpace(error.to_string()),
            StoreError::Unavailable(_) => Problem::Store(error.to_string()),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Forbidden(_) => Problem::Forbidden(error.to_string()),
            PublishError::DataTooLong { limit, .. } => Problem::DataTooLong { limit },
            PublishError::BatchTooLarge { events, bytes } => Problem::BatchTooLarge { events, bytes },
            PublishError::Overloaded(_) => Problem::Overloaded { retry_after: PUBLISH_RETRY_AFTER },
            PublishError::KeyReused => Problem::KeyReused(error.to_string()),
            PublishError::ShuttingDown => Problem::ShuttingDown { retry_after: PUBLISH_RETRY_AFTER },
            PublishError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(problem: Problem, status: u16, field: Option<(&str, &str)>, body: &str) {
        let response = problem.into_response();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        if let Some((name, value)) = field {
            assert_eq!(response.headers()[name], value);
        }
        assert_eq!(response.into_body().into_text(), body);
    }

    /// N-5: the literal documents.
    #[test]
    fn documents() {
        check(
            Problem::NotFound,
            404,
            None,
            concat!(
                r#"{"type":"urn:tidings:problem:not-found","title":"No such path","status":404,"detail":"there is nothing at this path; "#,
                r#"publish to `/publish/{topic}`, subscribe at `/subscribe/{topic}`"}"#
            ),
        );
        check(
            Problem::Method("GET, HEAD, OPTIONS"),
            405,
            Some(("allow", "GET, HEAD, OPTIONS")),
            concat!(
                r#"{"type":"urn:tidings:problem:method-not-allowed","title":"The path does not have this method","status":405,"#,
                r#""detail":"this path answers GET, HEAD, OPTIONS"}"#
            ),
        );
        check(
            Problem::Line { line: 3, ids: "#a\nb\n".into(), problem: Box::new(Problem::NoTopic) },
            400,
            None,
            concat!(
                r#"{"type":"urn:tidings:problem:bad-event","title":"This is not an event","status":400,"detail":"an event needs a topic: "#,
                r#"give `topic`, a string, or `topics`, an array of strings","line":3,"ids":["#,
                "\"#a\",\"b\"]}"
            ),
        );
        check(
            PublishError::Overloaded(Duration::from_secs(5)).into(),
            503,
            Some(("retry-after", "5")),
            concat!(
                r#"{"type":"urn:tidings:problem:overloaded","title":"The hub is overloaded","status":503,"#,
                r#""detail":"the hub is overloaded; try again later"}"#
            ),
        );
        check(
            PublishError::Store(StoreError::NoSpace).into(),
            507,
            Some(("retry-after", "5")),
            concat!(
                r#"{"type":"urn:tidings:problem:no-space","title":"The store is full","status":507,"#,
                r#""detail":"the store has no space left; free some, or shorten the retention"}"#
            ),
        );
        check(
            PublishError::Store(StoreError::Unavailable("it restarts".into())).into(),
            503,
            Some(("retry-after", "5")),
            concat!(
                r#"{"type":"urn:tidings:problem:store-unavailable","title":"The store is not available","status":503,"#,
                r#""detail":"the store is not available: it restarts"}"#
            ),
        );
        check(
            AuthError::from(crate::auth::Reason::UnknownKey).into(),
            401,
            Some(("www-authenticate", "Bearer error=\"invalid_token\"")),
            concat!(
                r#"{"type":"urn:tidings:problem:unauthorized","title":"Valid credentials are needed","status":401,"#,
                r#""detail":"the key is not one of this hub's publish keys"}"#
            ),
        );
    }

    /// N-1a: a value over a size limit is 413 wherever it stands, a broken rule 400.
    #[test]
    fn sizes_and_rules() {
        for (error, status) in
            [(EventError::IdTooLong(513), 413), (EventError::Topic(TopicError::TooLong(2_049)), 413), (EventError::IdReserved, 400)]
        {
            assert_eq!(Problem::Event(error.clone()).status(), status);
            assert_eq!(Problem::Element { index: 1, problem: Box::new(Problem::Event(error.clone())) }.status(), status);
            assert_eq!(Problem::Line { line: 1, ids: String::new(), problem: Box::new(Problem::Event(error)) }.status(), status);
        }
    }
}
