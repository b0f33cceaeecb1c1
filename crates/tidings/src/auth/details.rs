//! The claim `authorization_details` (M-75 ... M-79, M-84, M-336): all of it is right, or the whole token is refused.
//!
//! It knows the shape of the claim; which topics a matcher takes is the core's.

use super::{Payloads, Role, error::Reason, matchers::typed};
use serde_json::{Map, Value};
use std::sync::Arc;
use tidings_core::{Matchers, UrlPatterns, limits};

/// The entries that concern the hub (M-75).
const TYPE: &str = "https://mercure.rocks/authorization-detail";

/// What a role is granted, and the payloads of its subscriptions.
pub(super) fn parse(claim: Option<&Value>, role: Role, patterns: &UrlPatterns) -> Result<(Matchers, Payloads), Reason> {
    let entries = match claim {
        None => return Ok((Matchers::none(), Payloads::None)),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(wrong("M-75", "the claim `authorization_details`", "to be an array")),
    };
    // Entries of other types, and what is no object with a type, belong to somebody else.
    let entries = entries.iter().filter_map(Value::as_object);
    let entries: Vec<_> = entries.filter(|entry| entry.get("type").and_then(Value::as_str) == Some(TYPE)).collect();
    if entries.len() > limits::TOKEN_DETAILS {
        return Err(wrong("M-79", "the token", &format!("more than {} authorization details", limits::TOKEN_DETAILS)));
    }
    let (mut all, mut payloads, mut size) = (Vec::new(), Vec::new(), Size::default());
    for entry in entries {
        let actions = actions(entry)?;
        let matchers = matchers(entry, &mut size, patterns)?;
        if !actions.contains(&role) {
            continue;
        }
        all.extend_from_slice(matchers.as_slice());
        if role == Role::Subscribe {
            payloads.push((matchers, entry.get("payload").map(|payload| Arc::from(payload.to_string()))));
        }
    }
    let shown = payloads.iter().any(|(_, payload): &(_, Option<_>)| payload.is_some());
    Ok((Matchers::new(all), if shown { Payloads::ByEntry(payloads) } else { Payloads::None }))
}

fn wrong(rule: &'static str, what: &'static str, problem: &str) -> Reason {
    Reason::Grants { rule, what, problem: problem.into() }
}

/// M-76: unknown actions are somebody else's, but they are texts.
fn actions(entry: &Map<String, Value>) -> Result<Vec<Role>, Reason> {
    let error = || wrong("M-76", "an authorization detail", "`actions` that are not a non-empty array of texts");
    let actions = entry.get("actions").and_then(Value::as_array).filter(|actions| !actions.is_empty()).ok_or_else(error)?;
    let texts: Vec<&str> = actions.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(error)?;
    Ok(texts
        .into_iter()
        .filter_map(|action| match action {
            "publish" => Some(Role::Publish),
            "subscribe" => Some(Role::Subscribe),
            _ => None,
        })
        .collect())
}

/// What all entries have together (M-79).
#[derive(Default)]
struct Size {
    topics: usize,
    /// Bytes of compiled patterns.
    compiled: usize,
}

/// M-76, M-77, M-79.
fn matchers(entry: &Map<String, Value>, size: &mut Size, patterns: &UrlPatterns) -> Result<Matchers, Reason> {
    let error = || wrong("M-76", "an authorization detail", "`topics` that are not a non-empty array of objects");
    let topics = entry.get("topics").and_then(Value::as_array).filter(|topics| !topics.is_empty()).ok_or_else(error)?;
    size.topics += topics.len();
    if size.topics > limits::TOKEN_TOPICS {
        return Err(wrong("M-79", "the token", &format!("more than {} topics in its authorization details", limits::TOKEN_TOPICS)));
    }
    let matchers = topics.iter().map(|topic| {
        let topic = topic.as_object().ok_or_else(|| wrong("M-77", "an authorization detail", "a topic that is not an object"))?;
        let text = topic.get("match").and_then(Value::as_str);
        let text = text.ok_or_else(|| wrong("M-77", "an authorization detail", "a topic without `match`, which must be a text"))?;
        let match_type = match topic.get("match_type") {
            None => "exact",
            Some(Value::String(name)) => name,
            Some(_) => return Err(wrong("M-77", "an authorization detail", "a `match_type` that is not a text")),
        };
        let matcher = typed(match_type, text, patterns).map_err(|problem| wrong("M-78", "an authorization detail", &problem))?;
        size.compiled += matcher.compiled_bytes();
        if size.compiled > limits::PATTERNS {
            return Err(wrong("M-79", "the token", &format!("patterns that take more than {} bytes when compiled", limits::PATTERNS)));
        }
        Ok(matcher)
    });
    Ok(Matchers::new(matchers.collect::<Result<Vec<_>, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidings_core::Topic;

    fn entry(extra: &Value) -> Value {
        let mut entry = json!({ "type": TYPE, "actions": ["publish", "subscribe"], "topics": [{ "match": "a" }] });
        for (name, value) in extra.as_object().unwrap() {
            if value == "(absent)" {
                entry.as_object_mut().unwrap().remove(name);
            } else {
                entry[name] = value.clone();
            }
        }
        entry
    }

    fn grants(claim: &Value, role: Role) -> Result<Vec<&'static str>, &'static str> {
        let patterns = UrlPatterns::new("https://hub.example/.well-known/mercure", 100).unwrap();
        match parse(Some(claim), role, &patterns) {
            Ok((matchers, _)) => Ok(["a", "b", "c"].into_iter().filter(|name| matchers.matches(&Topic::parse(name).unwrap())).collect()),
            Err(Reason::Grants { rule, .. }) => Err(rule),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// M-75 ... M-79, M-336: what one entry may be, and by which rule it takes the whole token with it.
    #[test]
    fn entries() {
        let topics = |n: usize| Value::Array(vec![json!({ "match": "a" }); n]);
        // About 18 kB each.
        let large = |n| json!({ "match": format!("/{n}((?:a|b)*a(?:a|b){{7}})"), "match_type": "urlpattern" });
        let patterns = |n: usize| (0..n).map(large).collect::<Value>();
        for (extra, expected) in [
            (json!({}), Ok(vec!["a"])),
            (json!({ "topics": [{ "match": "*" }] }), Ok(vec!["a", "b", "c"])),
            (json!({ "topics": [{ "match": "*", "match_type": "exact" }] }), Ok(vec!["a", "b", "c"])),
            (json!({ "topics": [{ "match": "*", "match_type": "nonsense" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "a" }, { "match": "b", "match_type": "exact", "more": 1 }] }), Ok(vec!["a", "b"])),
            (json!({ "topics": topics(100) }), Ok(vec!["a"])),
            (json!({ "topics": topics(101) }), Err("M-79")),
            (json!({ "topics": patterns(30) }), Ok(vec![])),
            (json!({ "topics": patterns(70) }), Err("M-79")),
            (json!({ "topics": "(absent)" }), Err("M-76")),
            (json!({ "topics": [] }), Err("M-76")),
            (json!({ "topics": "a" }), Err("M-76")),
            (json!({ "topics": { "match": "a" } }), Err("M-76")),
            (json!({ "topics": ["a"] }), Err("M-77")),
            (json!({ "topics": [null] }), Err("M-77")),
            (json!({ "topics": [["a"]] }), Err("M-77")),
            (json!({ "topics": [{ "match": "a" }, {}] }), Err("M-77")),
            (json!({ "topics": [{ "match": 1 }] }), Err("M-77")),
            (json!({ "topics": [{ "match": null }] }), Err("M-77")),
            (json!({ "topics": [{ "Match": "a" }] }), Err("M-77")),
            (json!({ "topics": [{ "match": "a", "match_type": null }] }), Err("M-77")),
            (json!({ "topics": [{ "match": "a", "match_type": "" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "a", "match_type": "Exact" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "a", "match_type": "regex" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "(", "match_type": "urlpattern" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "/.well-known/(a|b)", "match_type": "urlpattern" }] }), Ok(vec!["a", "b"])),
            (json!({ "topics": [{ "match": "" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "a\u{202E}" }] }), Err("M-78")),
            (json!({ "topics": [{ "match": "a".repeat(limits::PATTERN + 1) }] }), Err("M-78")),
            (json!({ "actions": "(absent)" }), Err("M-76")),
            (json!({ "actions": [] }), Err("M-76")),
            (json!({ "actions": "publish" }), Err("M-76")),
            (json!({ "actions": ["publish", null] }), Err("M-76")),
            (json!({ "actions": ["publish", "fly"] }), Ok(vec!["a"])),
            (json!({ "actions": ["Publish"] }), Ok(vec![])),
            (json!({ "actions": ["fly"], "topics": [1] }), Err("M-77")),
            (json!({ "payload": 7 }), Ok(vec!["a"])),
            (json!({ "type": "https://mercure.rocks/authorization-detail/", "topics": 1 }), Ok(vec![])),
            (json!({ "type": 1, "topics": 1 }), Ok(vec![])),
            (json!({ "type": "(absent)", "topics": 1 }), Ok(vec![])),
        ] {
            assert_eq!(grants(&json!([entry(&extra)]), Role::Publish), expected, "{extra}");
            // M-78: an entry beside it changes nothing about a bad one.
            let beside = grants(&json!([entry(&json!({})), entry(&extra)]), Role::Publish);
            assert!(beside.is_err() || expected.is_ok(), "{extra}");
        }
        for (claim, expected) in [
            (json!({}), Err("M-75")),
            (json!(null), Err("M-75")),
            (json!("x"), Err("M-75")),
            (json!([]), Ok(vec![])),
            (json!([null, 1, "x", []]), Ok(vec![])),
            (Value::Array(vec![entry(&json!({})); 100]), Ok(vec!["a"])),
            (Value::Array(vec![entry(&json!({})); 101]), Err("M-79")),
            (Value::Array(vec![entry(&json!({})); 1_000]), Err("M-79")),
        ] {
            assert_eq!(grants(&claim, Role::Subscribe), expected, "{claim:.60}");
        }
        let claim =
            json!([entry(&json!({ "actions": ["publish"] })), entry(&json!({ "actions": ["subscribe"], "topics": [{ "match": "b" }] }))]);
        assert_eq!((grants(&claim, Role::Publish), grants(&claim, Role::Subscribe)), (Ok(vec!["a"]), Ok(vec!["b"])));
        assert_eq!(
            grants(&json!([entry(&json!({ "topics": [{ "match": "/.well-known/:x", "match_type": "urlpattern" }] }))]), Role::Publish),
            Ok(vec!["a", "b", "c"])
        );
    }
}
