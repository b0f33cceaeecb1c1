//! A token taken apart: JWS compact serialisation with a JWT in it (M-55), before anything in it is believed.
//!
//! It knows the three parts and the header; what the claims must say is checked elsewhere, and only after the signature.

use super::{Dialect, error::Reason, strict};
use crate::Algorithm;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use tidings_core::limits;

/// A token whose signature is not verified yet.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    pub(super) header: Header,
    pub(super) claims: Map<String, Value>,
    /// What is signed: the first two parts and the dot between them.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// What is read of a header. `jwk`, `jku`, `x5u` and `x5c` are not read at all: a token does not say which key verifies it (M-70).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) dialect: Dialect,
    pub(super) kid: Option<String>,
}

/// Takes a token apart. The error carries the dialect as soon as it is known, for the style of the refusal (M-408).
pub(super) fn parse(token: &[u8]) -> Result<Unverified<'_>, (Reason, Option<Dialect>)> {
    if token.len() > limits::TOKEN {
        return Err((Reason::TooLong { limit: limits::TOKEN }, None));
    }
    let (signed, signature) = split_last(token).ok_or((Reason::Shape, None))?;
    let (header, claims) = split_last(signed).ok_or((Reason::Shape, None))?;
    let header = decode(header).ok_or((Reason::Shape, None))?;
    let header = strict::object(&header).map_err(|problem| (Reason::Json { part: "header", problem }, None))?;
    let dialect = dialect(&header).map_err(|reason| (reason, None))?;
    let fail = |reason| (reason, Some(dialect));
    let header = read_header(&header, dialect).map_err(fail)?;
    let claims = decode(claims).ok_or(fail(Reason::Shape))?;
    let claims = strict::object(&claims).map_err(|problem| fail(Reason::Json { part: "claims", problem }))?;
    let signature = decode(signature).ok_or(fail(Reason::Shape))?;
    Ok(Unverified { header, claims, signed, signature })
}

fn split_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b'.', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Base64url without padding, and without bits that say nothing.
fn decode(part: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// M-68, M-402: by `typ` alone, whatever else the token holds.
fn dialect(header: &Map<String, Value>) -> Result<Dialect, Reason> {
    let typ = text(header, "typ")?.unwrap_or_default();
    let prefix = "application/";
    let bare = match typ.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => &typ[prefix.len()..],
        _ => typ,
    };
    Ok(if bare.eq_ignore_ascii_case("at+jwt") { Dialect::Eight } else { Dialect::Seven })
}

fn read_header(header: &Map<String, Value>, dialect: Dialect) -> Result<Header, Reason> {
    if header.contains_key("crit") {
        return Err(Reason::Critical);
    }
    let algorithm = text(header, "alg")?.ok_or(Reason::Algorithm)?.parse().map_err(|_| Reason::Algorithm)?;
    Ok(Header { algorithm, dialect, kid: text(header, "kid")?.map(str::to_owned) })
}

fn text<'a>(header: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Reason> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::Json { part: "header", problem: format!("`{name}` is not a text") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode("signature"))
    }

    fn check(token: &str, expected: Result<Dialect, (Reason, Option<Dialect>)>) {
        assert_eq!(parse(token.as_bytes()).map(|token| token.header.dialect), expected, "{token}");
    }

    /// M-68, M-69, M-70, M-402: headers, the dialect they say, and what is refused before any key is looked for.
    #[test]
    fn headers() {
        use Dialect::{Eight, Seven};
        for (typ, dialect) in [
            (r#","typ":"at+jwt""#, Eight),
            (r#","typ":"AT+JWT""#, Eight),
            (r#","typ":"application/at+jwt""#, Eight),
            (r#","typ":"Application/At+Jwt""#, Eight),
            (r#","typ":"JWT""#, Seven),
            (r#","typ":"at+jwt ""#, Seven),
            (r#","typ":"text/at+jwt""#, Seven),
            (r#","typ":"""#, Seven),
            ("", Seven),
            // Not honoured, and no reason to refuse: a key that a token brings along is never looked at.
            (r#","typ":"at+jwt","jwk":{"kty":"oct","k":"AA"},"jku":"https://evil.example","x5u":1,"x5c":["x"]"#, Eight),
        ] {
            check(&token(&format!(r#"{{"alg":"HS256"{typ}}}"#), "{}"), Ok(dialect));
        }
        let json = |part, problem: &str| Reason::Json { part, problem: problem.into() };
        for (header, reason, dialect) in [
            (r#"{"typ":"at+jwt"}"#, Reason::Algorithm, Some(Eight)),
            (r#"{"alg":"none"}"#, Reason::Algorithm, Some(Seven)),
            (r#"{"alg":"None","typ":"at+jwt"}"#, Reason::Algorithm, Some(Eight)),
            (r#"{"alg":"hs256"}"#, Reason::Algorithm, Some(Seven)),
            (r#"{"alg":"HS256 "}"#, Reason::Algorithm, Some(Seven)),
            (r#"{"alg":["HS256"]}"#, json("header", "`alg` is not a text"), Some(Seven)),
            (r#"{"alg":null}"#, json("header", "`alg` is not a text"), Some(Seven)),
            (r#"{"alg":"HS256","typ":1}"#, json("header", "`typ` is not a text"), None),
            (r#"{"alg":"HS256","kid":7}"#, json("header", "`kid` is not a text"), Some(Seven)),
            (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Reason::Critical, Some(Seven)),
            (r#"{"alg":"HS256","crit":[]}"#, Reason::Critical, Some(Seven)),
            (r#"{"alg":"HS256","typ":"at+jwt","crit":null}"#, Reason::Critical, Some(Eight)),
            (r#"["HS256"]"#, json("header", "it is not a JSON object"), None),
        ] {
            check(&token(header, "{}"), Err((reason, dialect)));
        }
    }

    /// M-55: what is not three parts of base64url, two of them objects.
    #[test]
    fn shapes() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        for token in
            ["", ".", "..", "...", "a.b", "token", &format!("{header}.e30"), &format!("{header}.e30=."), &format!("{header}=.e30.")]
        {
            assert!(parse(token.as_bytes()).is_err(), "{token}");
        }
        // `f` leaves four bits that are not zero, padding is not for tokens, five parts are an encrypted one.
        let wrong = [format!("{header}.e31f.e31"), format!("{header}.e30.AB=="), format!("{header}.a.b.c.d"), format!("{header}.e30.+/+/")];
        for token in wrong {
            assert!(parse(token.as_bytes()).is_err(), "{token}");
        }
        check(
            &format!("{header}.{}.AA", URL_SAFE_NO_PAD.encode("[]")),
            Err((Reason::Json { part: "claims", problem: "it is not a JSON object".into() }, Some(Dialect::Seven))),
        );
        let huge = "a".repeat(limits::TOKEN + 1);
        check(&huge, Err((Reason::TooLong { limit: limits::TOKEN }, None)));
        check(&huge[1..], Err((Reason::Shape, None)));
    }

    proptest! {
        /// No bytes panic, and what is signed is always the text before the last dot.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in ".*", claims in ".*") {
            let _ = parse(&bytes);
            let token = token(&header, &claims);
            if let Ok(parsed) = parse(token.as_bytes()) {
                prop_assert!(token.as_bytes().starts_with(parsed.signed));
            }
        }
    }
}
