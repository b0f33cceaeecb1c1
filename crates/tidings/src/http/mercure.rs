//! The Mercure protocol at `/.well-known/mercure`: subscribing and publishing in both dialects, on the same log and delivery as the native
//! routes.
//!
//! It knows which method does what there, how a refusal looks, and which fields every answer has; parameters, forms and rights are its
//! submodules'. Rules with M- are those of the protocol. Where they differ on bytes from the rules of event streams (S-), the latter hold
//! on every path: an event is encoded once for all of them.

mod access;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

pub(crate) use access::Style;

use super::{Shared, body::Incoming, problem::Problem, response::ResponseBody};
use access::Role;
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};

/// The path of the hub (M-5, M-201).
pub(crate) const PATH: &str = "/.well-known/mercure";
/// What it answers to.
pub(crate) const METHODS: &str = "GET, HEAD, POST, QUERY, OPTIONS";

/// Answers a request to the hub's path, which is one of its methods and not `OPTIONS`.
pub(crate) async fn answer(shared: &Shared, parts: &Parts, body: Option<Incoming>) -> Result<Response<ResponseBody>, Problem> {
    if parts.method == Method::POST {
        // Authorised before the body is read (M-309).
        let access = access::of(shared, parts, Role::Publish, None)?;
        let body = body.ok_or(Problem::Method(METHODS))?;
        let hub = shared.hub.with(access.grant);
        return publish::publish(&hub, parts, body).await.map_err(|problem| problem.in_style(access.style));
    }
    subscribe::subscribe(shared, parts, body).await
}

/// The fields of every answer here (M-313). A page that brings a policy of its own keeps it.
pub(crate) fn mark(headers: &mut HeaderMap) {
    for (name, value) in [(header::X_FRAME_OPTIONS, "DENY"), (header::X_XSS_PROTECTION, "1; mode=block")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'self'"));
}
