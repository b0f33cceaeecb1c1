//! The metadata of the hub as a protected resource (RFC 9728, M-11, M-12), and how a challenge leads there (M-60).
//!
//! It knows what is configured and how it is written, never a request: names that a client sends must not come back as the hub's own (M-73).

use crate::{
    Config,
    http::response::{JSON, ResponseBody, answer},
};
use http::{HeaderMap, HeaderValue, Response, header};
use serde::Serialize;

/// Where it lies, derived from the hub's own path (M-11).
pub(crate) const PATH: &str = "/.well-known/oauth-protected-resource/.well-known/mercure";

/// The type of the details in tokens that are for hubs (M-75).
const DETAILS_TYPE: &str = "https://mercure.rocks/authorization-detail";

#[derive(Serialize)]
struct Document<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_servers: Vec<&'a str>,
    authorization_details_types_supported: [&'static str; 1],
    bearer_methods_supported: [&'static str; 1],
    mercure_cookie: &'a str,
    /// Whether presence is told (M-109).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mercure_subscriptions: bool,
}

/// The document of a hub at this URL. `None` without dialect 8, for the document is how clients tell that it is spoken (M-13).
pub(super) fn document(config: &Config, hub_url: Option<&str>) -> Option<Response<ResponseBody>> {
    let configured = config.resource_identifier();
    let resource = configured.as_deref().or(hub_url).filter(|_| config.mercure_dialects.eight())?;
    let servers = config.issuers.iter().filter(|issuer| issuer.authorization_server).filter_map(|issuer| issuer.id.as_deref());
    let document = Document {
        resource,
        authorization_servers: servers.collect(),
        authorization_details_types_supported: [DETAILS_TYPE],
        bearer_methods_supported: ["header"],
        mercure_cookie: config.cookie_name.as_deref().unwrap_or("__Secure-mercure_access_token"),
        mercure_subscriptions: config.subscriptions,
    };
    // Strings always serialise.
    Some(answer(JSON, serde_json::to_vec(&document).unwrap_or_default()))
}

/// Adds to a challenge where the metadata is.
pub(super) fn mark_challenge(hub_url: &str, headers: &mut HeaderMap) {
    let Some(challenge) = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()) else { return };
    let Some((scheme, authority, path)) = split(hub_url) else { return };
    let separator = if challenge == "Bearer" { " " } else { ", " };
    let marked = format!("{challenge}{separator}resource_metadata=\"{scheme}://{authority}/.well-known/oauth-protected-resource{path}\"");
    if let Ok(marked) = HeaderValue::try_from(marked) {
        headers.insert(header::WWW_AUTHENTICATE, marked);
    }
}

/// Scheme, authority and path of a URL; what could end the quoted string it goes into is no URL.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://").filter(|_| !url.contains(['"', '\\', '?', '#']))?;
    let path = rest.find('/').unwrap_or(rest.len());
    Some((scheme, &rest[..path], &rest[path..]))
}
