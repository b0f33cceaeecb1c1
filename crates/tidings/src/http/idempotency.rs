//! The `Idempotency-Key` field (N-6; draft-ietf-httpapi-idempotency-key-header): a string of RFC 9651, so it stands in double quotes.
//!
//! It knows one header field. What a key means is the hub's.
//!
//! A bare word is refused, not taken as it is: the draft has one form for one key, a UUID that begins with a digit is not even a token of
//! RFC 9651, and two forms of one key would be an argument at the worst moment.

use super::{origin, problem::Problem};
use crate::IdempotencyKey;
use http::{HeaderMap, HeaderName};

const FIELD: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = origin::single(headers, FIELD)? else { return Ok(None) };
    let text = string(value.as_bytes()).ok_or(Problem::BadKey)?;
    Ok(Some(IdempotencyKey::new(text)?))
}

/// The string that an item is: printable ASCII in double quotes, quotes and backslashes escaped. Parameters behind it mean nothing here.
fn string(field: &[u8]) -> Option<String> {
    let mut bytes = field.trim_ascii().strip_prefix(b"\"")?.iter();
    let mut text = String::new();
    loop {
        match *bytes.next()? {
            b'"' => break,
            b'\\' => text.push(char::from(*bytes.next().filter(|byte| b"\\\"".contains(byte))?)),
            byte @ b' '..=b'~' => text.push(char::from(byte)),
            _ => return None,
        }
    }
    let rest = bytes.as_slice();
    (rest.is_empty() || rest.starts_with(b";")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{get, hub, read_until, request, send};

    const JSON: &str = "POST /publish\nContent-Type: application/json";

    /// N-6: the same again is answered and not published; the same key with other content is refused.
    #[tokio::test]
    async fn once() {
        let hub = hub(|_| {});
        let service = hub.service();
        let with = |head: &str, key: &str| format!("{head}\nIdempotency-Key: {key}");
        let post = async |head: &str, key: &str, body: &str| {
            let answer = send(&service, request(&with(head, key), body)).await;
            (answer.status, answer.text())
        };
        let (status, first) = post("POST /publish/a", "\"1\"", "x").await;
        assert_eq!((status, first.len()), (200, 27));
        assert_eq!(post("POST /publish/a", "\"1\"", "x").await, (200, first.clone()));
        assert_eq!(post(JSON, "\"1\"", r#"{ "topic": "a", "data": "x" }"#).await, (200, first.clone()), "the same in another form");
        let batch = r#"[{"topic":"a","data":1},{"topic":"a","data":2,"id":"own"},{"topic":"b","data":3}]"#;
        let (status, ids) = post(JSON, "\"2\"", batch).await;
        assert!(status == 200 && ids.lines().count() == 3 && ids.contains("\nown\n"), "{ids}");
        assert_eq!(post(JSON, "\"2\"", batch).await, (200, ids));
        for (head, key, body) in [
            ("POST /publish/a", "\"1\"", "y"),
            ("POST /publish/b", "\"1\"", "x"),
            ("POST /publish/a?type=t", "\"1\"", "x"),
            (JSON, "\"2\"", r#"{"topic":"a","data":1}"#),
        ] {
            let (status, text) = post(head, key, body).await;
            assert!(status == 422 && text.contains("urn:tidings:problem:idempotency-key-reused"), "{head} {body}: {status} {text}");
        }
        // What was refused for another reason left no key behind, and nothing is nothing.
        assert_eq!(post("POST /publish/a?retyr=1", "\"3\"", "x").await.0, 400);
        assert_eq!(post(JSON, "\"3\"", "[]").await, (200, String::new()));
        assert_eq!(post("POST /publish/a", "\"3\"", "z").await.0, 200);
        assert_eq!(post("POST /publish/a", "\"4\"", "end").await.0, 200);
        let mut answer = get(&service, "GET /subscribe?topic=a&topic=b&last_event_id=earliest").await;
        let text = read_until(&mut answer.body, "data: end").await;
        let data: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data, ["x", "1", "2", "3", "z", "end"]);
        let metrics = get(&service, "GET /metrics").await.text();
        for line in ["tidings_publishes_repeated_total 3", "tidings_idempotency_keys 4", "tidings_events_total 6"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
    }

    /// N-6: many at once with one key are one publish, whoever comes first; a scope is a scope.
    #[tokio::test]
    async fn at_once() {
        let hub = hub(|_| {});
        let service = hub.service();
        let publish = || {
            let service = service.clone();
            tokio::spawn(async move { send(&service, request("POST /publish/a\nIdempotency-Key: \"k\"", "x")).await.text() })
        };
        let requests: Vec<_> = (0..20).map(|_| publish()).collect();
        let mut ids = Vec::new();
        for request in requests {
            ids.push(request.await.unwrap());
        }
        assert!(ids.iter().all(|id| *id == ids[0] && id.ends_with("-0000000000000001\n")), "{ids:?}");
        let key = IdempotencyKey::new("k").unwrap();
        let event = || vec![tidings_core::Event::new("a", "x").unwrap()];
        let elsewhere = hub.publish_once(&key, event()).await.unwrap();
        assert!(elsewhere[0].as_str().ends_with("-0000000000000002"), "a scope of its own: {elsewhere:?}");
    }

    /// N-6: every form of the field.
    #[test]
    fn forms() {
        for (field, expected) in [
            (r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#, Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (r#" "a b"  "#, Some("a b")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#""""#, Some("")),
            (r#""a";foo=1"#, Some("a")),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", None),
            ("token", None),
            ("42", None),
            (":YQ==:", None),
            ("'a'", None),
            ("", None),
            ("\"", None),
            (r#""a"#, None),
            (r#""a\""#, None),
            (r#""a\n""#, None),
            (r#""a" b"#, None),
            (r#""a", "b""#, None),
            ("\"\u{e9}\"", None),
            ("\"a\tb\"", None),
        ] {
            assert_eq!(string(field.as_bytes()).as_deref(), expected, "{field}");
        }
    }
}
