//! Engine B's way out of the HTTP library: an event stream over HTTP/1 leaves it with its socket, and the response head is written by us.
//!
//! Every route and layer has run before. What a layer wraps around the body is not run for a stream that leaves: a layer that changes
//! bytes says so with `Content-Encoding` or a length, and then the stream stays. This file knows heads, no events.
//!
//! A stream stays with the HTTP library too when output of an earlier, pipelined request has not reached the socket, and when the
//! request's own body was not read: leaving would lose either.

use super::admission::Counted;
use crate::delivery::{Prepared, Ticket};
use http::{HeaderName, Method, Request, StatusCode, Version, header, response};
use http_body::Body;
use std::{
    cell::RefCell,
    io::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tidings_core::Framing;

/// Bytes that a head and the opening of its stream nearly always fit in.
const HEAD: usize = 512;

/// A stream that leaves.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) prepared: Prepared,
    pub(super) framing: Framing,
    pub(super) head: Vec<u8>,
    /// The place of the client behind a trusted proxy.
    pub(super) forwarded: Option<Counted>,
}

/// Where the service leaves what the connection's driver takes: both run in one task.
#[derive(Debug, Default)]
pub(super) struct Exit(Mutex<Option<Leaving>>);

impl Exit {
    fn place(&self) -> MutexGuard<'_, Option<Leaving>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leave(&self, leaving: Leaving) {
        *self.place() = Some(leaving);
    }

    /// Whether somebody leaves.
    pub(super) fn is_used(&self) -> bool {
        self.place().is_some()
    }

    pub(super) fn take(&self) -> Option<Leaving> {
        self.place().take()
    }
}

/// Whether the connection of a request can be taken over. A form (N-15) is read to its end before there is a stream.
pub(super) fn may_detach<B: Body>(request: &Request<B>) -> bool {
    let has_form = request.method() == Method::POST || request.method().as_str() == "QUERY";
    request.version() < Version::HTTP_2 && (request.body().is_end_stream() || has_form)
}

/// The way out for a response, if it has one. It has none any more when its body was read by a layer: what that got is not said twice.
pub(super) fn leaving(parts: &mut response::Parts, version: Version) -> Option<(Prepared, Framing, Vec<u8>)> {
    let ticket = parts.extensions.remove::<Ticket>()?;
    let changed = parts.headers.contains_key(header::CONTENT_ENCODING) || parts.headers.contains_key(header::CONTENT_LENGTH);
    if parts.status != StatusCode::OK || changed {
        return None;
    }
    let framing = if version == Version::HTTP_11 { Framing::Chunked } else { Framing::Plain };
    Some((ticket.take()?, framing, head(parts, framing)))
}

/// The head as it goes over the wire. Names and values have been checked by their types, so nothing can be smuggled in.
fn head(parts: &response::Parts, framing: Framing) -> Vec<u8> {
    // The first bytes of the stream fit in too.
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(match framing {
        Framing::Chunked => b"HTTP/1.1 200 OK\r\n",
        Framing::Plain => b"HTTP/1.0 200 OK\r\n",
    });
    let mut put = |name: &HeaderName, value: &[u8]| {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    };
    for (name, value) in &parts.headers {
        let ours = *name == header::TRANSFER_ENCODING || (*name == header::CONNECTION && framing == Framing::Plain);
        if !ours {
            put(name, value.as_bytes());
        }
    }
    match framing {
        Framing::Chunked => put(&header::TRANSFER_ENCODING, b"chunked"),
        Framing::Plain => put(&header::CONNECTION, b"close"),
    }
    if !parts.headers.contains_key(header::DATE) {
        head.extend_from_slice(b"date: ");
        put_date(&mut head);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Appends the time. Its text is good for a second, in which thousands may come.
fn put_date(head: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(of, text)| {
        if *of != second {
            *of = second;
            text.clear();
            // Writing into a vector cannot fail.
            let _ = write!(text, "{}", httpdate::HttpDate::from(now));
        }
        head.extend_from_slice(text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};

    fn parts(fields: &[(&'static str, &'static str)]) -> response::Parts {
        let (mut parts, ()) = Response::new(()).into_parts();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    /// S-29: both forms, byte for byte; a second field of a name stays a second line.
    #[test]
    fn heads() {
        let fields = [("content-type", "text/event-stream"), ("vary", "a"), ("vary", "b"), ("connection", "keep-alive"), ("date", "D")];
        let parts = parts(&fields);
        assert_eq!(
            String::from_utf8(head(&parts, Framing::Chunked)).unwrap(),
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nvary: a\r\nvary: b\r\nconnection: keep-alive\r\ndate: D\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            String::from_utf8(head(&parts, Framing::Plain)).unwrap(),
            "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\nvary: a\r\nvary: b\r\ndate: D\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_date_is_added() {
        let head = String::from_utf8(head(&parts(&[]), Framing::Chunked)).unwrap();
        let date = head.split("date: ").nth(1).unwrap().trim_end();
        assert!(httpdate::parse_http_date(date).is_ok(), "{head}");
    }
}
