//! What operators and newcomers look at: health, metrics and the page (N-21, N-22). It knows how they are written, not what they count.

use super::response::{JSON, PLAIN_TEXT, ResponseBody, answer};
use crate::Hub;
use http::{HeaderValue, Response, StatusCode, header};

/// The answer of the library that this hub's paths come from, to the byte (Z-10).
pub(crate) fn health(hub: &Hub) -> Response<ResponseBody> {
    answer(PLAIN_TEXT, format!("Active connections: {}", hub.subscribers()))
}

/// The process runs and answers.
pub(crate) fn live() -> Response<ResponseBody> {
    answer(JSON, "{\"status\":\"ok\",\"reasons\":[]}")
}

/// The same for probes that were written for another hub of the Mercure protocol, to the byte: ready, or only alive.
pub(crate) fn mercure_health(hub: &Hub, ready: bool) -> Response<ResponseBody> {
    let fine = !ready || hub.is_ready() && hub.store_trouble().is_none();
    if fine { answer(JSON, "{\"status\":\"ok\"}") } else { self::ready(hub) }
}

/// The hub takes publishes and subscriptions, and its store takes events.
pub(crate) fn ready(hub: &Hub) -> Response<ResponseBody> {
    let trouble = hub.store_trouble().is_some();
    let reasons = match (hub.is_ready(), trouble) {
        (true, false) => return live(),
        (true, true) => "\"store\"",
        (false, false) => "\"draining\"",
        (false, true) => "\"draining\",\"store\"",
    };
    let mut response = answer(JSON, format!("{{\"status\":\"unavailable\",\"reasons\":[{reasons}]}}"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Prometheus text.
pub(crate) fn metrics(hub: &Hub) -> Response<ResponseBody> {
    let text = hub.metrics();
    // The two text formats differ in their last line, and a collector takes the type at its word.
    let open = text.ends_with("# EOF\n");
    let content_type =
        if open { "application/openmetrics-text; version=1.0.0; charset=utf-8" } else { "text/plain; version=0.0.4; charset=utf-8" };
    answer(content_type, text)
}

/// The page.
pub(crate) fn page(open: bool) -> Response<ResponseBody> {
    html(include_str!("page.html"), &[("{{access}}", if open { "open" } else { "keys" })])
}

/// A page of ours. Its script and style are let in by a number that is drawn anew each time; nothing else may run, load or be framed.
pub(crate) fn html(template: &str, values: &[(&str, &str)]) -> Response<ResponseBody> {
    let Ok(nonce) = getrandom::u64() else {
        // Without random numbers the page stays still, which is better than letting anything in.
        return html_with("", template, values);
    };
    html_with(&format!("{nonce:016x}"), template, values)
}

fn html_with(nonce: &str, template: &str, values: &[(&str, &str)]) -> Response<ResponseBody> {
    let html = template.replace("{{nonce}}", nonce).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let html = values.iter().fold(html, |html, (place, value)| html.replace(place, value));
    let mut response = answer("text/html; charset=utf-8", html);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N-22: every script and style is let in by the policy, and nothing is loaded from elsewhere.
    #[test]
    fn pages_and_policy() {
        let pages: [(&str, &[(&str, &str)], &str); 3] = [
            (include_str!("page.html"), &[("{{access}}", "open")], "data-access=\"open\""),
            (include_str!("page.html"), &[("{{access}}", "keys")], "data-access=\"keys\""),
            (include_str!("mercure/debug.html"), &[], "by hand"),
        ];
        for (template, values, says) in pages {
            let response = html_with("0123456789abcdef", template, values);
            assert_eq!(
                response.headers()["content-security-policy"],
                "default-src 'none'; script-src 'nonce-0123456789abcdef'; style-src 'nonce-0123456789abcdef'; connect-src 'self'; \
                 img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            );
            let html = response.into_body().into_text();
            assert!(html.contains(says));
            assert!(!html.contains("{{"), "every placeholder is filled");
            for tag in ["<script", "<style"] {
                assert_eq!(html.matches(tag).count(), html.matches(&format!("{tag} nonce=\"0123456789abcdef\"")).count());
            }
            assert!(!html.contains("innerHTML"), "events are untrusted text");
            assert!(!html.contains(" style=") && !html.contains(" onclick="), "the policy would refuse them");
        }
    }
}
