//! Answers to requests that never became one: a head that is late, too large or not HTTP.
//!
//! No handler sees these, so the bytes are written here, as problem documents like every other refusal (N-5).

use std::fmt::Write as _;

/// A refusal as the bytes of a whole HTTP/1.1 response, after which the connection closes.
pub(super) fn response(status: u16, time: std::time::Duration) -> Vec<u8> {
    let (reason, name, detail) = match status {
        408 => (
            "Request Timeout",
            "request-timeout",
            format!("the request head was not complete {} s after its first byte; send it at once", time.as_secs_f32()),
        ),
        414 => ("URI Too Long", "uri-too-long", "the request target is too long; send long topic lists as a form with POST".to_owned()),
        431 => (
            "Request Header Fields Too Large",
            "head-too-large",
            "the request head has too many bytes or fields; send fewer or shorter headers, and long topic lists as a form with POST"
                .to_owned(),
        ),
        _ => ("Bad Request", "bad-request", "the request is not valid HTTP/1.1: its head is malformed, ambiguous or cut off".to_owned()),
    };
    let status = if matches!(status, 408 | 414 | 431) { status } else { 400 };
    let body = format!(r#"{{"type":"urn:tidings:problem:{name}","title":"{reason}","status":{status},"detail":"{detail}"}}"#);
    let mut response = String::new();
    let _ = write!(
        response,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    response.into_bytes()
}
