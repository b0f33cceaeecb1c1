//! Grants as texts, made matchers: dialect 8's types by name (M-35, M-77), dialect 7's selectors by their form (M-203).
//!
//! It knows how a grant is written; what a matcher matches is the core's.

use tidings_core::{TopicMatcher, UrlPatterns, limits};

/// A matcher of a dialect-8 grant; what is wrong with it otherwise.
pub(super) fn typed(match_type: &str, text: &str, patterns: &UrlPatterns) -> Result<TopicMatcher, String> {
    if text.len() > limits::PATTERN {
        return Err(format!("a pattern of more than {} bytes", limits::PATTERN));
    }
    // `*` is everything in every type (M-30), and still in none that does not exist.
    match match_type {
        "exact" => TopicMatcher::exact(text).map_err(|error| format!("a topic that is none: {error}")),
        "urlpattern" => TopicMatcher::url_pattern(text, patterns).map_err(|error| format!("a URL pattern that is none: {error}")),
        _ => Err("a `match_type` that is not supported".into()),
    }
}

/// A selector of a dialect-7 grant. One that no topic can match grants nothing, and is no reason to refuse the rest: 0.x took any text.
pub(super) fn selector(text: &str) -> Option<TopicMatcher> {
    TopicMatcher::template(text).ok()
}
