//! The subscription API: who has subscribed, as documents, in both dialects (M-102 to M-108, M-213, M-405).
//!
//! It knows paths, header fields and documents. Which subscriptions there are is the hub's to know, and what rights a request has is found
//! out before.
//!
//! A collection is answered in pages of [`tidings_core::limits::PRESENCE_PAGE`]; a `Link` with `rel="next"` leads on. The pages are not of one moment:
//! who wants to be sure follows the events from the id that the *first* page names.

use super::{Problem, access, usual};
use crate::{
    Granted, Hub, PeerAddr,
    auth::{Access, Dialect, Reason, Role},
    http::{
        Shared,
        query::url_pairs,
        response::{ResponseBody, answer},
    },
    hub::Which,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, sync::Arc};
use tidings_core::{
    Topic, View,
    presence::{self, ActiveSubscription, CONTEXT, MatchType, Subscriber, encoded},
};

/// What a path asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    Collection(Which),
    One(Option<MatchType>, Arc<str>, Option<Subscriber>),
}

/// What follows [`presence::PATH`] in a path at or below it, still encoded.
pub(super) fn rest(path: &str) -> Option<&str> {
    path.strip_prefix(presence::PATH).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers `GET` and `HEAD`.
pub(super) async fn subscriptions(shared: &Shared, parts: &Parts) -> Result<Response<ResponseBody>, Problem> {
    let dialects = shared.hub.config().mercure_dialects;
    let rest = shared.path(parts).and_then(rest).filter(|_| shared.hub.config().subscriptions).ok_or(Problem::NotFound)?;
    let (asked, view) = read(rest)?;
    if view.is_some_and(|view| !if view == View::First { dialects.eight() } else { dialects.seven() }) {
        return Err(Problem::NotFound);
    }
    let dialect = view.map_or(usual(shared), |view| if view == View::First { Dialect::Eight } else { Dialect::Seven });
    let access = access(shared, parts, Role::Subscribe, dialect).await?;
    let view = view.unwrap_or_else(|| whole_collection(&parts.headers, access.dialect(), usual(shared)));
    authorize(&shared.hub, parts, rest, &access, dialect)?;
    document(&shared.hub.with(access.grant), parts, rest, asked, view)
}

fn document(hub: &Granted, parts: &Parts, rest: &str, asked: Asked, view: View) -> Result<Response<ResponseBody>, Problem> {
    match asked {
        Asked::One(of, matcher, subscriber) => {
            let Some((found, last)) = subscriber.map_or_else(|| hub.no_subscription(), |of_whom| hub.subscription(of, &matcher, of_whom))
            else {
                return Err(Problem::NotFound);
            };
            let Some(found) = found else {
                let mut response = Problem::NoSubscription.into_response();
                response.headers_mut().append(header::LINK, hub_link(view, &last));
                return Ok(response);
            };
            Ok(respond(parts, view, &last, || match view {
                View::First => format!("{{{}}}", found.members(view, true)),
                View::Second => format!(r#"{{{CONTEXT},{},"lastEventID":{}}}"#, found.members(view, true), quoted(&last)),
            }))
        }
        Asked::Collection(which) => {
            let after = after(parts)?;
            let Some((found, last)) = hub.subscriptions(&which, after.as_ref()) else { return Err(Problem::NotFound) };
            let id = quoted(&format!("{}{rest}", presence::PATH));
            let mut response = respond(parts, view, &last, || {
                let mut text = match view {
                    View::First => format!(r#"{{"id":{id},"type":"subscriptions","subscriptions":["#),
                    View::Second => {
                        format!(r#"{{{CONTEXT},"id":{id},"type":"Subscriptions","lastEventID":{},"subscriptions":["#, quoted(&last))
                    }
                };
                for (at, subscription) in found.listed.iter().enumerate() {
                    text.extend([if at == 0 { "{" } else { ",{" }, &subscription.members(view, true), "}"]);
                }
                text + "]}"
            });
            if let Some(last) = found.listed.last().filter(|_| found.more) {
                let place = encoded(last.path(View::First).trim_start_matches(presence::PATH));
                let link = format!("<{}{rest}?after={place}>; rel=\"next\"", presence::PATH);
                response.headers_mut().append(header::LINK, HeaderValue::try_from(link).unwrap_or(HeaderValue::from_static("")));
            }
            Ok(response)
        }
    }
}

/// What a path asks for and in which view; no view for the collection of all, which both dialects have at the same place.
fn read(rest: &str) -> Result<(Asked, Option<View>), Problem> {
    if rest.is_empty() {
        return Ok((Asked::Collection(Which::All), None));
    }
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    let newer = |part: &str| decoded(Cow::Borrowed(part));
    // Go's escaping of queries writes a space so (M-319), and a plus always encoded.
    let older = |part: &str| decoded(Cow::Owned(part.replace('+', "%20")));
    let (first, second) = (Some(View::First), Some(View::Second));
    match parts[..] {
        [matcher] => Ok((Asked::Collection(Which::Matcher(older(matcher)?)), second)),
        [of, matcher] if let Some(of) = MatchType::parse(of) => Ok((Asked::Collection(Which::Typed(of, newer(matcher)?)), first)),
        [matcher, subscriber] => Ok((Asked::One(None, older(matcher)?, Subscriber::parse(&older(subscriber)?)), second)),
        [of, matcher, subscriber] => {
            let of = MatchType::parse(of).ok_or(Problem::UnknownMatchType)?;
            Ok((Asked::One(Some(of), newer(matcher)?, Subscriber::parse(&newer(subscriber)?)), first))
        }
        _ => Err(Problem::NotFound),
    }
}

fn decoded(part: Cow<'_, str>) -> Result<Arc<str>, Problem> {
    percent_decode_str(&part).decode_utf8().map(Into::into).map_err(|_| Problem::PathNotUtf8)
}

/// The view in which the collection of all is wanted: that of the token, else of the document that is asked for.
fn whole_collection(headers: &HeaderMap, of_token: Option<Dialect>, usual: Dialect) -> View {
    let accepts_older = || {
        let fields = headers.get_all(header::ACCEPT).iter();
        fields.filter_map(|field| field.to_str().ok()).any(|field| field.contains("application/ld+json"))
    };
    match of_token {
        Some(Dialect::Eight) => View::First,
        Some(Dialect::Seven) => View::Second,
        None if usual == Dialect::Seven || accepts_older() => View::Second,
        None => View::First,
    }
}

/// A grant to receive private events of the path, as if it were a topic (M-103, M-213); the query does not count (M-340). Nobody is let
/// in without a token (M-330), but where access is open and the request comes from the same machine (M-322).
fn authorize(hub: &Hub, parts: &Parts, rest: &str, access: &Access, dialect: Dialect) -> Result<(), Problem> {
    let path = Topic::stored(&format!("{}{rest}", presence::PATH));
    // Whoever embeds the hub and says nothing of addresses decides who gets here.
    let is_near = || parts.extensions.get::<PeerAddr>().is_none_or(|peer| peer.0.ip().to_canonical().is_loopback());
    if access.grant.read_private.matches(&path) || (hub.guard().is_open() && is_near()) {
        return Ok(());
    }
    if access.source.is_none() && hub.guard().verifies(Role::Subscribe) {
        return Err(Problem::Auth(Reason::NoToken.into(), dialect));
    }
    Err(Problem::Auth(access.insufficient(), access.dialect().unwrap_or(Dialect::Eight)))
}

/// The place after which a page begins.
fn after(parts: &Parts) -> Result<Option<ActiveSubscription>, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let Some((_, given)) = url_pairs(query)?.find(|(name, _)| name == "after") else { return Ok(None) };
    let place = presence::read_path(&format!("{}{given}", presence::PATH));
    let allowed = "taken from the link to the next page";
    let (match_type, matcher, subscriber) = place.ok_or_else(|| Problem::Value { name: "after", allowed, given: given.into_owned() })?;
    Ok(Some(ActiveSubscription { match_type, matcher: matcher.into(), subscriber, payload: None }))
}

/// An answer that has not changed since somebody asked last, or the document (M-104, M-107, M-108).
fn respond(parts: &Parts, view: View, last: &str, document: impl FnOnce() -> String) -> Response<ResponseBody> {
    let tag = format!("\"{}\"", encoded(last));
    let mut response = if is_known(&parts.headers, &tag) {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let content_type = match view {
            View::First => "application/json",
            View::Second => "application/ld+json",
        };
        answer(content_type, document())
    };
    let headers = response.headers_mut();
    headers.append(header::LINK, hub_link(view, last));
    // Percent-encoded, so it is made of characters that a field can hold.
    headers.insert(header::ETAG, HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache, must-revalidate"));
    headers.append(header::VARY, HeaderValue::from_static("Accept, Authorization, Cookie"));
    response
}

/// `If-None-Match` as RFC 9110 compares it: weakly, any of a list, `*` for whatever there is (M-340).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let fields = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
    // A tag here is free of commas.
    fields.flat_map(|field| field.split(',').map(str::trim)).any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

/// Where to go on from what this says (M-107).
fn hub_link(view: View, last: &str) -> HeaderValue {
    let path = presence::PATH.trim_end_matches("/subscriptions");
    let last = last.replace('\\', "\\\\").replace('"', "\\\"");
    let about = match view {
        View::First => r#"type="mercure"; content-type="application/json""#,
        View::Second => r#"content-type="application/ld+json""#,
    };
    let link = format!("<{path}>; rel=\"mercure\"; last-event-id=\"{last}\"; {about}");
    // An id that a field cannot carry cannot be in the log either (N-1a).
    HeaderValue::from_bytes(link.as_bytes()).unwrap_or(HeaderValue::from_static("</.well-known/mercure>; rel=\"mercure\""))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-98, M-319, M-405: which dialect a path is of, and what it names, decoded once.
    #[test]
    fn paths() {
        const WHO: &str = "urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef";
        let who = Subscriber::parse("urn:uuid:01234567-89ab-4def-8123-456789abcdef");
        let collection = |which, view| Ok((Asked::Collection(which), view));
        let one = |of, matcher: &str, who, view| Ok((Asked::One(of, matcher.into(), who), Some(view)));
        let (first, second) = (Some(View::First), Some(View::Second));
        let exact = Some(MatchType::Exact);
        let table = [
            (String::new(), collection(Which::All, None)),
            ("/a".into(), collection(Which::Matcher("a".into()), second)),
            ("/exact".into(), collection(Which::Matcher("exact".into()), second)),
            ("/https%3A%2F%2Fexample.com%2Fa%2520b".into(), collection(Which::Matcher("https://example.com/a%20b".into()), second)),
            ("/a+b%2B".into(), collection(Which::Matcher("a b+".into()), second)),
            ("/exact/a".into(), collection(Which::Typed(MatchType::Exact, "a".into()), first)),
            ("/exact/a+b%2B".into(), collection(Which::Typed(MatchType::Exact, "a+b+".into()), first)),
            ("/urlpattern/%2F*".into(), collection(Which::Typed(MatchType::UrlPattern, "/*".into()), first)),
            ("/uritemplate/%7Ba%7D".into(), collection(Which::Typed(MatchType::UriTemplate, "{a}".into()), first)),
            (format!("/a/{WHO}"), one(None, "a", who, View::Second)),
            (format!("/Exact/{WHO}"), one(None, "Exact", who, View::Second)),
            (format!("/exact/a/{WHO}"), one(exact, "a", who, View::First)),
            (format!("/exact/a/{}", WHO.replace("%3A", ":")), one(exact, "a", who, View::First)),
            ("/exact/a/somebody".into(), one(exact, "a", None, View::First)),
        ];
        for (path, expected) in table {
            assert_eq!(read(&path).map_err(|problem: Problem| problem.to_string()), expected, "{path}");
        }
        for (path, status) in [(format!("/regexp/a/{WHO}"), 400), (format!("/exact/a/b/{WHO}"), 404), ("/%FF".into(), 400)] {
            assert_eq!(read(&path).unwrap_err().status(), status, "{path}");
        }
    }

    /// M-107: an id may contain anything but control characters.
    #[test]
    fn links() {
        let link = hub_link(View::First, "urn:\"a\\é\"");
        let expected = "</.well-known/mercure>; rel=\"mercure\"; last-event-id=\"urn:\\\"a\\\\é\\\"\"; type=\"mercure\"; \
                        content-type=\"application/json\"";
        assert_eq!(link.as_bytes(), expected.as_bytes());
    }

    /// M-108, M-340.
    #[test]
    fn conditional_requests() {
        for (given, known) in
            [("\"a\"", true), ("W/\"a\"", true), ("*", true), ("\"b\", W/\"a\"", true), ("\"b\"", false), ("a", false), ("", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(given));
            assert_eq!(is_known(&headers, "\"a\""), known, "{given}");
        }
    }
}
