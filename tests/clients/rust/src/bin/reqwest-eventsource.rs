//! Crate `reqwest-eventsource`: a stream that reconnects by itself, always with the header, be it empty.

use futures_util::StreamExt;
use reqwest_eventsource::{Event, EventSource};
use tidings_rust_clients::{failed, opened, received, url};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut source = EventSource::get(url());
    while let Some(event) = source.next().await {
        match event {
            Ok(Event::Open) => opened(),
            Ok(Event::Message(message)) => received(&message.event, Some(&message.id), &message.data),
            Err(error) => failed(error),
        }
    }
    failed("the client stopped");
}
