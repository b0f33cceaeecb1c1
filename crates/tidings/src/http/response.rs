//! Bodies and small answers. It knows bytes and header fields, not what a request asked for.

use crate::{Aborted, EventBody};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// For every answer that is not a stream: what it says is true now only.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The body of an answer: a stream of events, or bytes that are all there.
#[derive(Debug)]
pub struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    /// Bytes of a known length.
    Full(Bytes),
    /// Bytes that pass for a stream: no length is announced (S-30).
    Unsized(Option<Bytes>),
    Events(EventBody),
}

impl ResponseBody {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        ResponseBody(Kind::Full(bytes.into()))
    }

    pub(crate) fn empty() -> Self {
        ResponseBody::full(Bytes::new())
    }

    pub(crate) fn without_length(bytes: impl Into<Bytes>) -> Self {
        ResponseBody(Kind::Unsized(Some(bytes.into())))
    }

    pub(crate) fn events(body: EventBody) -> Self {
        ResponseBody(Kind::Events(body))
    }

    /// Whether it is a stream of events, which stays open until its client leaves or the hub ends it.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Events(_))
    }

    /// The same answer to a HEAD request: its length is kept in the header, its bytes are not sent, a stream is not opened (N-15).
    pub(crate) fn for_head(response: Response<Self>) -> Response<Self> {
        let (mut parts, body) = response.into_parts();
        let body = match body.0 {
            Kind::Full(bytes) => {
                parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
                ResponseBody::empty()
            }
            Kind::Unsized(_) | Kind::Events(_) => ResponseBody(Kind::Unsized(None)),
        };
        Response::from_parts(parts, body)
    }

    #[cfg(test)]
    pub(crate) fn into_text(self) -> String {
        match self.0 {
            Kind::Full(bytes) | Kind::Unsized(Some(bytes)) => String::from_utf8(bytes.into()).unwrap(),
            Kind::Unsized(None) => String::new(),
            Kind::Events(_) => panic!("a stream has no whole text"),
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut self.0 {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Unsized(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Events(events) => Pin::new(events).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_empty(),
            // Said only after a poll: an HTTP library that hears of the end before the head would announce a length of 0.
            Kind::Unsized(_) => false,
            Kind::Events(events) => events.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Unsized(_) => SizeHint::default(),
            Kind::Events(events) => events.size_hint(),
        }
    }
}

/// A short answer of one of our own types.
pub(crate) fn answer(content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    // Those that are added later fit in too.
    *response.headers_mut() = HeaderMap::with_capacity(6);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

pub(crate) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
