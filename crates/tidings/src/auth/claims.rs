//! What the claims of a verified token say, in both dialects: times, audience, and rights (M-72 ... M-84, M-205 ... M-210, M-215).
//!
//! It knows claims and the time, not keys. The issuer is compared where keys are chosen, because a key belongs to one.

use super::{Dialect, Payloads, Role, Verified, details, error::Reason, matchers::selector};
use serde_json::{Map, Value};
use std::sync::Arc;
use tidings_core::{Grant, Matchers, UrlPatterns, limits};

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// The names of the claim of dialect 7, the stronger first (M-215).
const LEGACY: [&str; 2] = ["https://mercure.rocks/", "mercure"];

/// A claim that must be a text where it is.
pub(super) fn text<'a>(claims: &'a Claims, claim: &'static str) -> Result<Option<&'a str>, Reason> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::Claim { claim, wanted: "a text" }),
    }
}

/// What claims are checked against.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) role: Role,
    /// What the token must be meant for (M-73).
    pub(super) resource: Option<&'a str>,
    pub(super) patterns: &'a UrlPatterns,
    /// Milliseconds since 1970.
    pub(super) now: u64,
}

/// Everything but the signature and the issuer, which is the one whose key verified it.
pub(super) fn check(claims: &Claims, dialect: Dialect, issuer: Option<&str>, setting: Setting<'_>) -> Result<Verified, Reason> {
    let Setting { role, resource, patterns, now } = setting;
    let (expires_at, not_before) = times(claims, dialect, now)?;
    if dialect == Dialect::Eight {
        audience(claims, resource)?;
    }
    let subject = text(claims, "sub")?.map(Into::into);
    let (matchers, payloads) = match dialect {
        Dialect::Seven => legacy(claims, role)?,
        Dialect::Eight => details::parse(claims.get("authorization_details"), role, patterns)?,
    };
    let mut grant = Grant::reader();
    grant.expires_at = expires_at;
    match role {
        Role::Publish => grant.publish = matchers,
        Role::Subscribe => grant.read_private = matchers,
    }
    Ok(Verified { dialect, grant, payloads, issuer: issuer.map(Into::into), subject, not_before })
}

/// M-72, M-209: `exp` and `nbf` without any leeway, in whole milliseconds on the safe side.
fn times(claims: &Claims, dialect: Dialect, now: u64) -> Result<(Option<u64>, u64), Reason> {
    let expires_at = claims.get("exp").map(|exp| milliseconds("exp", exp, f64::floor)).transpose()?;
    let not_before = claims.get("nbf").map(|nbf| milliseconds("nbf", nbf, f64::ceil)).transpose()?.unwrap_or(0);
    match expires_at {
        None if dialect == Dialect::Eight => return Err(Reason::ClaimMissing { claim: "exp" }),
        Some(end) if end <= now => return Err(Reason::Expired),
        _ => {}
    }
    if not_before > now { Err(Reason::NotYet) } else { Ok((expires_at, not_before)) }
}

/// A `NumericDate`: seconds since 1970, whole or not.
fn milliseconds(claim: &'static str, value: &Value, round: fn(f64) -> f64) -> Result<u64, Reason> {
    let Value::Number(seconds) = value else {
        return Err(Reason::Claim { claim, wanted: "a number of seconds since 1970" });
    };
    Ok(match (seconds.as_u64(), seconds.as_f64()) {
        (Some(seconds), _) => seconds.saturating_mul(1_000),
        // A conversion from a number with a fraction ends at the bounds of the whole ones.
        (None, Some(seconds)) => round(seconds * 1_000.0) as u64,
        (None, None) => return Err(Reason::Claim { claim, wanted: "a number of seconds since 1970" }),
    })
}

/// M-73, M-336: the hub must be the audience or one of them, and every one of them a text.
fn audience(claims: &Claims, resource: Option<&str>) -> Result<(), Reason> {
    const WRONG: Reason = Reason::Claim { claim: "aud", wanted: "a text or an array of texts" };
    let texts = match claims.get("aud").ok_or(Reason::ClaimMissing { claim: "aud" })? {
        Value::Array(texts) => texts.as_slice(),
        text => std::slice::from_ref(text),
    };
    let texts: Vec<&str> = texts.iter().map(Value::as_str).collect::<Option<_>>().ok_or(WRONG)?;
    if resource.is_some_and(|resource| texts.contains(&resource)) { Ok(()) } else { Err(Reason::Audience) }
}

/// The rights in the claim `mercure` (M-207, M-208, M-210). A token without it has none, and is a token all the same (M-328).
fn legacy(claims: &Claims, role: Role) -> Result<(Matchers, Payloads), Reason> {
    let wrong = |what, problem: &str| Reason::Grants { rule: "M-207", what, problem: problem.into() };
    let Some(claim) = LEGACY.iter().find_map(|name| claims.get(*name)) else { return Ok((Matchers::none(), Payloads::None)) };
    let claim = claim.as_object().ok_or_else(|| wrong("the claim `mercure`", "to be an object"))?;
    let (name, what) = match role {
        Role::Publish => ("publish", "the claim `mercure.publish`"),
        Role::Subscribe => ("subscribe", "the claim `mercure.subscribe`"),
    };
    let selectors = match claim.get(name) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(selectors)) => selectors.as_slice(),
        Some(_) => return Err(wrong(what, "to be an array of texts")),
    };
    if selectors.len() > limits::TOKEN_SELECTORS {
        return Err(wrong(what, &format!("more than {} selectors", limits::TOKEN_SELECTORS)));
    }
    let mut matchers = Vec::with_capacity(selectors.len());
    for text in selectors {
        let text = text.as_str().ok_or_else(|| wrong(what, "to be an array of texts"))?;
        if text.len() > limits::PATTERN {
            return Err(wrong(what, &format!("a selector of more than {} bytes", limits::PATTERN)));
        }
        matchers.extend(selector(text));
    }
    let payload = claim.get("payload").filter(|payload| !payload.is_null() && role == Role::Subscribe);
    let payload = payload.map_or(Payloads::None, |payload| Payloads::All(Arc::from(payload.to_string())));
    Ok((Matchers::new(matchers), payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000_000;

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { panic!("{value}") };
        claims
    }

    fn checked(claims: &Claims, dialect: Dialect, role: Role, resource: Option<&str>) -> Result<Verified, Reason> {
        let patterns = UrlPatterns::new("https://hub.example/.well-known/mercure", 100).unwrap();
        check(claims, dialect, None, Setting { role, resource, patterns: &patterns, now: NOW })
    }

    fn eight(extra: Value) -> Result<Verified, Reason> {
        let mut all = claims(json!({ "exp": 1_800_000_001, "aud": "hub" }));
        for (name, value) in claims(extra) {
            if value == json!("(absent)") {
                all.remove(&name)
            } else {
                all.insert(name, value)
            };
        }
        checked(&all, Dialect::Eight, Role::Subscribe, Some("hub"))
    }

    /// M-72, M-335: times, to the millisecond, of the right type, without leeway.
    #[test]
    fn times_are_exact() {
        let wrong = |claim| Err(Reason::Claim { claim, wanted: "a number of seconds since 1970" });
        for (extra, expected) in [
            (json!({}), Ok(Some(1_800_000_001_000))),
            (json!({ "exp": 1_800_000_000.5 }), Ok(Some(1_800_000_000_500))),
            (json!({ "exp": 1.8e10 }), Ok(Some(18_000_000_000_000))),
            (json!({ "exp": u64::MAX }), Ok(Some(u64::MAX))),
            (json!({ "exp": 1e300 }), Ok(Some(u64::MAX))),
            (json!({ "exp": 1_800_000_000 }), Err(Reason::Expired)),
            (json!({ "exp": 1_800_000_000.000_9 }), Err(Reason::Expired)),
            (json!({ "exp": 1_799_999_999 }), Err(Reason::Expired)),
            (json!({ "exp": 0 }), Err(Reason::Expired)),
            (json!({ "exp": -1 }), Err(Reason::Expired)),
            (json!({ "exp": -1e300 }), Err(Reason::Expired)),
            (json!({ "exp": "(absent)" }), Err(Reason::ClaimMissing { claim: "exp" })),
            (json!({ "exp": null }), wrong("exp")),
            (json!({ "exp": "1800000001" }), wrong("exp")),
            (json!({ "exp": [1_800_000_001] }), wrong("exp")),
            (json!({ "exp": true }), wrong("exp")),
            (json!({ "nbf": 1_800_000_000 }), Ok(Some(1_800_000_001_000))),
            (json!({ "nbf": 1_800_000_000.000_1 }), Err(Reason::NotYet)),
            (json!({ "nbf": 1_800_000_001 }), Err(Reason::NotYet)),
            (json!({ "nbf": -5 }), Ok(Some(1_800_000_001_000))),
            (json!({ "nbf": null }), wrong("nbf")),
            (json!({ "nbf": "0" }), wrong("nbf")),
        ] {
            assert_eq!(eight(extra.clone()).map(|token| token.grant.expires_at), expected, "{extra}");
        }
    }

    /// M-73, M-336: whom a token is for.
    #[test]
    fn audiences() {
        let wrong = Err(Reason::Claim { claim: "aud", wanted: "a text or an array of texts" });
        for (aud, expected) in [
            (json!("hub"), Ok(())),
            (json!(["other", "hub"]), Ok(())),
            (json!("(absent)"), Err(Reason::ClaimMissing { claim: "aud" })),
            (json!("Hub"), Err(Reason::Audience)),
            (json!("hub/"), Err(Reason::Audience)),
            (json!([]), Err(Reason::Audience)),
            (json!(["other"]), Err(Reason::Audience)),
            (json!(["hub", 1]), wrong.clone()),
            (json!(null), wrong.clone()),
            (json!({ "hub": 1 }), wrong.clone()),
            (json!([["hub"]]), wrong.clone()),
        ] {
            assert_eq!(eight(json!({ "aud": aud })).map(|_| ()), expected, "{aud}");
        }
        let claims = claims(json!({ "exp": 1_800_000_001, "aud": "hub" }));
        let unknown = checked(&claims, Dialect::Eight, Role::Subscribe, None);
        assert_eq!(unknown.map(|_| ()), Err(Reason::Audience), "a hub that does not know its name is nobody's audience");
        assert_eq!(eight(json!({ "sub": 7 })).map(|_| ()), Err(Reason::Claim { claim: "sub", wanted: "a text" }));
    }

    fn seven(role: Role, extra: Value) -> Result<Verified, Reason> {
        checked(&claims(extra), Dialect::Seven, role, None)
    }

    /// M-207 ... M-210, M-215, M-312: the claim of dialect 7.
    #[test]
    fn legacy_claim() {
        let topic = |name: &str| tidings_core::Topic::parse(name).unwrap();
        let claim = json!({ "mercure": { "publish": ["a"], "subscribe": ["*"], "payload": { "user": 1 } } });
        let publisher = seven(Role::Publish, claim.clone()).unwrap();
        assert!(publisher.grant.may_publish(&[topic("a")]) && !publisher.grant.may_publish(&[topic("b")]));
        assert!(publisher.grant.read_private.is_empty() && matches!(publisher.payloads, Payloads::None));
        let reader = seven(Role::Subscribe, claim).unwrap();
        assert!(reader.grant.publish.is_empty() && reader.grant.read_private.matches(&topic("b")));
        assert!(matches!(&reader.payloads, Payloads::All(payload) if &**payload == r#"{"user":1}"#));
        assert_eq!(reader.grant.expires_at, None);

        let template = json!({ "mercure": { "publish": ["https://example.com/{id}", "\u{202E}", ""] } });
        let template = seven(Role::Publish, template).unwrap();
        assert!(
            template.grant.may_publish(&[topic("https://example.com/1")])
                && !template.grant.may_publish(&[topic("https://example.com/1/2")])
        );

        let both = json!({ "mercure": { "publish": ["a"] }, "https://mercure.rocks/": { "publish": ["b"] } });
        let both = seven(Role::Publish, both).unwrap();
        assert!(both.grant.may_publish(&[topic("b")]) && !both.grant.may_publish(&[topic("a")]), "M-215");

        for nothing in
            [json!({}), json!({ "mercure": {} }), json!({ "mercure": { "publish": null } }), json!({ "mercure": { "publish": [] } })]
        {
            assert!(seven(Role::Publish, nothing).unwrap().grant.publish.is_empty());
        }
        let thousand = |n: usize| json!({ "mercure": { "publish": (0..n).map(|i| i.to_string()).collect::<Vec<_>>() } });
        assert!(seven(Role::Publish, thousand(1_000)).unwrap().grant.may_publish(&[topic("999")]));
        for wrong in [
            thousand(1_001),
            json!({ "mercure": [] }),
            json!({ "mercure": null }),
            json!({ "mercure": { "publish": "*" } }),
            json!({ "mercure": { "publish": [1] } }),
            json!({ "mercure": { "publish": [["*"]] } }),
            json!({ "mercure": { "publish": ["a".repeat(limits::PATTERN + 1)] } }),
        ] {
            assert!(matches!(seven(Role::Publish, wrong.clone()), Err(Reason::Grants { rule: "M-207", .. })), "{wrong}");
        }
        for (extra, expected) in [
            (json!({ "exp": 1_800_000_000 }), Err(Reason::Expired)),
            (json!({ "exp": "1800000001" }), Err(Reason::Claim { claim: "exp", wanted: "a number of seconds since 1970" })),
            (json!({ "nbf": 1_800_000_001 }), Err(Reason::NotYet)),
            (json!({ "aud": "someone else" }), Ok(())),
        ] {
            assert_eq!(seven(Role::Subscribe, extra.clone()).map(|_| ()), expected, "{extra}");
        }
    }
}
