//! Delivery: stubs.
use bytes::Bytes;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The wire bytes of one subscription as a response body.
#[derive(Debug)]
pub struct EventBody {}

/// The hub broke the stream off (lag, stalled write, shutdown deadline); the client reconnects and resumes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the hub broke the stream off")]
pub struct Aborted;

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Aborted;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Aborted>>> {
        todo!()
    }
}

/// The events of one subscription.
#[derive(Debug)]
pub struct EventStream {}
