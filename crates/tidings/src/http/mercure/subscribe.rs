//! Subscribing on the Mercure path (M-14 ... M-36, M-86 ... M-93, M-202, M-203, M-211): parameters in the query and in the body of a
//! `QUERY`, each in its own dialect (M-401).
//!
//! It knows names and limits of parameters; what a matcher matches is decided in the core, where a stream starts by the hub.

use super::{Problem, access, usual};
use crate::{
    Config, Hub, LagPolicy, Subscription,
    auth::{Access, Dialect, Role},
    http::{
        Shared,
        body::Incoming,
        cursor::Cursors,
        query::{Pair, pairs, url_pairs},
        response::ResponseBody,
        subscribe::{STARTS_AFTER, open, read_form},
    },
    hub::Told,
};
use http::{HeaderName, HeaderValue, Response, request::Parts};
use tidings_core::{Key, Matchers, TopicMatcher, limits, presence::MatchType};

/// The name of dialect 7 for [`STARTS_AFTER`] (M-211).
const STARTS_AFTER_7: HeaderName = HeaderName::from_static("last-event-id");

/// Answers `GET`, `HEAD` and `QUERY`.
pub(super) async fn subscribe(shared: &Shared, parts: &Parts, body: Option<Incoming>) -> Result<Response<ResponseBody>, Problem> {
    let config = shared.hub.config();
    // In the order of M-309: size, parse, rights, matchers.
    let form = match body {
        Some(body) => read_form(config, parts, body, config.mercure_body).await?,
        None => Vec::new(),
    };
    let in_url: Vec<Pair<'_>> = url_pairs(parts.uri.query().unwrap_or_default())?.collect();
    let in_body: Vec<Pair<'_>> = pairs(&form).ok_or(Problem::FormNotUtf8)?.collect();
    let pairs = || in_url.iter().map(|pair| (pair, false)).chain(in_body.iter().map(|pair| (pair, true)));
    let dialect = dialect_of(pairs().map(|((name, _), _)| &**name)).unwrap_or(usual(shared));
    let access = access(shared, parts, Role::Subscribe, dialect).await?;
    let granted = access.grant.read_private.as_slice();
    let mut question = Question { compiled: granted.iter().map(TopicMatcher::compiled_bytes).sum(), ..Question::default() };
    for ((name, value), in_body) in pairs() {
        question.take(&shared.hub, name, value, in_body)?;
    }
    let cursor_given = question.cursors.any() || parts.headers.contains_key(STARTS_AFTER_7);
    let dialect_7 = question.selectors > 0 || question.cursors.any_of_dialect_7();
    let subscription = question.into_subscription(config, parts, &access)?;
    let hub = shared.hub.with(access.grant);
    open(&hub, parts, subscription, |headers, start| {
        if !cursor_given {
            return;
        }
        // M-92, M-403: no place to name is `earliest`, and so is one that cannot be honoured.
        let place = start.after.filter(|_| !start.gap).and_then(|id| HeaderValue::try_from(id).ok());
        let place = place.unwrap_or(HeaderValue::from_static("earliest"));
        if dialect_7 {
            headers.insert(STARTS_AFTER_7, place.clone());
        }
        headers.insert(STARTS_AFTER, place);
    })
    .await
}

/// The dialect of a request by its parameters (M-408): dialect 8 is never weakened by a parameter of dialect 7 beside it.
fn dialect_of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Dialect> {
    let mut dialect = None;
    for name in names {
        if is_reserved(name) {
            return Some(Dialect::Eight);
        }
        if name == "topic" {
            dialect = Some(Dialect::Seven);
        }
    }
    dialect
}

/// Names beginning with `match` are all the protocol's, so that a misspelt one fails loudly (M-20).
fn is_reserved(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("match"))
}

/// What a request asks for, while it is read.
#[derive(Default)]
struct Question {
    matchers: Vec<TopicMatcher>,
    /// Those of parameters of dialect 7.
    older: Vec<TopicMatcher>,
    /// All of them as they were written, for presence (M-97).
    written: Vec<(MatchType, String)>,
    /// Parameters of dialect 7.
    selectors: usize,
    /// Parameters of dialect 8.
    matches: usize,
    /// Bytes of compiled patterns, with those of the token.
    compiled: usize,
    cursors: Cursors,
}

impl Question {
    fn take(&mut self, hub: &Hub, name: &str, value: &str, in_body: bool) -> Result<(), Problem> {
        let config = hub.config();
        let dialects = config.mercure_dialects;
        match name {
            "topic" if !dialects.seven() => return Err(Problem::TopicParameter),
            "topic" => {
                self.selectors += 1;
                within(self.selectors, config.mercure_selectors)?;
                let selector = TopicMatcher::template(value).map_err(Problem::Matcher)?;
                self.room_for(&selector)?;
                let of = if matches!(selector.key(), Key::Head(_)) { MatchType::UriTemplate } else { MatchType::Exact };
                self.written.push((of, value.to_owned()));
                self.older.push(selector);
            }
            _ if is_reserved(name) && !dialects.eight() => return Err(Problem::MatchParameter),
            "match" | "match_exact" => {
                self.matches += 1;
                within(self.matches, config.matchers)?;
                // Without an expression a selector is one topic, and may be empty or longer than any topic (M-337).
                let exact = if value.contains('{') { TopicMatcher::exact(value) } else { TopicMatcher::template(value) };
                self.matchers.push(exact.map_err(Problem::Matcher)?);
                self.written.push((MatchType::Exact, value.to_owned()));
            }
            "match_urlpattern" => {
                self.matches += 1;
                within(self.matches, config.matchers)?;
                let pattern = TopicMatcher::url_pattern(value, hub.url_patterns())?;
                self.room_for(&pattern)?;
                self.matchers.push(pattern);
                self.written.push((MatchType::UrlPattern, value.to_owned()));
            }
            _ if is_reserved(name) => return Err(Problem::UnknownMatcher(name.to_owned())),
            _ => {
                self.cursors.take(name, value, in_body);
            }
        }
        Ok(())
    }

    /// Asked for one after the other, so that no more is compiled than may be used (M-23).
    fn room_for(&mut self, matcher: &TopicMatcher) -> Result<(), Problem> {
        self.compiled += matcher.compiled_bytes();
        if self.compiled > limits::PATTERNS { Err(Problem::PatternsTooLarge { limit: limits::PATTERNS }) } else { Ok(()) }
    }

    fn into_subscription(self, config: &Config, parts: &Parts, access: &Access) -> Result<Subscription, Problem> {
        if self.selectors + self.matches == 0 {
            return Err(if config.mercure_dialects.eight() { Problem::NoMatcher } else { Problem::NoSelector });
        }
        let mut subscription = Subscription::new(Matchers::new(self.matchers));
        subscription.older = Matchers::new(self.older);
        if config.subscriptions {
            let told = |(match_type, matcher): (MatchType, String)| {
                let payload = access.payload(&matcher).cloned();
                Told { match_type, matcher: matcher.into(), payload }
            };
            subscription.told = self.written.into_iter().map(told).collect();
        }
        subscription.cursor = self.cursors.choose(parts.headers.get_all(STARTS_AFTER_7).iter().map(HeaderValue::as_bytes));
        subscription.topics_field = config.mercure_topics_field && self.matches > 0;
        subscription.prime = Some(false);
        subscription.after_gap = Some(config.mercure_after_gap);
        subscription.gap_event = config.mercure_gap_event;
        subscription.lag_policy = Some(LagPolicy::Disconnect);
        Ok(subscription)
    }
}

fn within(count: usize, limit: usize) -> Result<(), Problem> {
    if count > limit { Err(Problem::TooManyMatchers { limit }) } else { Ok(()) }
}
