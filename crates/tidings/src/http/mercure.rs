//! The Mercure protocol at `/.well-known/mercure`: subscribing and publishing in both dialects, on the same log and delivery as the native
//! routes.
//!
//! It knows which method does what there, how a refusal looks, and which fields every answer has; parameters, forms and rights are its
//! submodules'. Rules with M- are those of the protocol. Where they differ on bytes from the rules of event streams (S-), the latter hold
//! on every path: an event is encoded once for all of them.

#[cfg(test)]
mod access_tests;
mod debug;
pub(crate) mod metadata;
mod publish;
mod subscribe;
mod subscriptions;
#[cfg(test)]
mod tests;

use super::{Shared, body::Incoming, presented, problem::Problem, response::ResponseBody};
use crate::{
    Dialects,
    auth::{Access, Dialect, Door, Role},
};
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};

/// What lies at and below the path of the hub, and beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Where clients subscribe and publish (M-5, M-201).
    Hub,
    /// The document of M-11.
    Metadata,
    /// The page to try it by hand.
    Debug,
    /// Who has subscribed, and everything below it (M-102).
    Subscriptions,
}

impl Place {
    pub(crate) fn find(path: &str) -> Option<Place> {
        match path {
            "/.well-known/mercure" => Some(Place::Hub),
            "/.well-known/mercure/debug" | "/.well-known/mercure/debug/" => Some(Place::Debug),
            metadata::PATH => Some(Place::Metadata),
            _ if subscriptions::rest(path).is_some() => Some(Place::Subscriptions),
            _ => None,
        }
    }

    pub(crate) fn methods(self) -> &'static str {
        match self {
            Place::Hub => METHODS,
            Place::Metadata | Place::Debug | Place::Subscriptions => "GET, HEAD, OPTIONS",
        }
    }
}

const METHODS: &str = "GET, HEAD, POST, QUERY, OPTIONS";

/// Answers a request of one of the methods of a place, other than `OPTIONS`.
pub(crate) async fn answer(
    shared: &Shared,
    place: Place,
    parts: &Parts,
    body: Option<Incoming>,
) -> Result<Response<ResponseBody>, Problem> {
    let config = shared.hub.config();
    if config.mercure_dialects == Dialects::Off {
        return Err(Problem::NotFound);
    }
    match place {
        Place::Hub => hub(shared, parts, body).await,
        Place::Metadata => metadata::document(config, shared.hub_url.as_deref()).ok_or(Problem::NotFound),
        Place::Debug if config.mercure_debug => Ok(debug::page()),
        Place::Debug => Err(Problem::NotFound),
        Place::Subscriptions => subscriptions::subscriptions(shared, parts).await,
    }
}

async fn hub(shared: &Shared, parts: &Parts, body: Option<Incoming>) -> Result<Response<ResponseBody>, Problem> {
    if parts.method == Method::POST {
        // Authorised before the body is read (M-309).
        let dialect = usual(shared);
        let access = access(shared, parts, Role::Publish, dialect).await?;
        shared.origins.check_cookie(&access, parts, dialect)?;
        let body = body.ok_or(Problem::Method(METHODS))?;
        return publish::publish(&shared.hub, access, dialect, parts, body).await;
    }
    subscribe::subscribe(shared, parts, body).await
}

/// The fields of every answer here (M-313). A page that brings a policy of its own keeps it.
pub(crate) fn mark(shared: &Shared, headers: &mut HeaderMap) {
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'self'"));
    if let Some(hub_url) = shared.hub_url.as_deref().filter(|_| shared.hub.config().mercure_dialects.eight()) {
        metadata::mark_challenge(hub_url, headers);
    }
}

/// The dialect in which a refusal is said where neither a token nor a parameter decides.
fn usual(shared: &Shared) -> Dialect {
    if shared.hub.config().mercure_dialects.eight() { Dialect::Eight } else { Dialect::Seven }
}

/// The rights of a request in a role, or the refusal in the style of its token, else of `dialect` (M-408).
async fn access(shared: &Shared, parts: &Parts, role: Role, dialect: Dialect) -> Result<Access, Problem> {
    shared.hub.guard().access(role, &presented(Door::Mercure, parts)).await.map_err(|error| {
        let dialect = error.dialect.unwrap_or(dialect);
        Problem::Auth(error, dialect)
    })
}
