//! The events of one subscription inside the process: the same bytes that go over HTTP, read back by the parser, so that there is one path.
//!
//! It knows the wire format, not where the bytes come from.

use super::body::{Aborted, EventBody};
use futures_core::Stream;
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tidings_core::{Item, Message, Parser, limits};

/// A stream of events. A gap arrives as a message of type [`tidings_core::wire::GAP_TYPE`] (N-14). It ends after the hub has shut
/// down or the grant has expired, and with [`Aborted`] when the reader fell too far behind; subscribe again after
/// [`EventStream::last_event_id`] to go on without loss.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use tidings::{Event, Hub, Subscription, TopicMatcher};
/// let hub = Hub::new()?;
/// let mut events = hub.subscribe(Subscription::new(TopicMatcher::prefix("news")?)).await?;
/// hub.publish(Event::new("news/today", "hello")?).await?;
/// let event = events.next().await.expect("the hub runs")?;
/// assert_eq!((&*event.data, &*event.topics), ("hello", &["news/today".to_owned()][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct EventStream {
    body: EventBody,
    parser: Parser,
    ready: VecDeque<Message>,
}

impl EventStream {
    pub(crate) fn new(body: EventBody) -> EventStream {
        // What the hub itself encoded is within its own limits; the bound is there because a parser has one.
        let parser = Parser::new(8 * limits::EVENT_DATA_MAX);
        EventStream { body, parser, ready: VecDeque::new() }
    }

    /// The next event; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<Message, Aborted>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The cursor to resume after; empty before the hub has sent one.
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }
}

impl Stream for EventStream {
    type Item = Result<Message, Aborted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(bytes) = ready!(this.body.poll_bytes(cx)).transpose()? else { return Poll::Ready(None) };
            let take = |item| {
                if let Item::Message(message) = item {
                    this.ready.push_back(message);
                }
            };
            if this.parser.push(&bytes, take).is_err() {
                return Poll::Ready(Some(Err(Aborted)));
            }
        }
    }
}
