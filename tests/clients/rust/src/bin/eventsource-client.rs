//! Crate `eventsource-client` (LaunchDarkly): a stream that reconnects by itself.

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use std::time::Duration;
use tidings_rust_clients::{failed, opened, received, url};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let transport = HyperTransport::builder().read_timeout(Duration::from_secs(60)).build_http().expect("a transport");
    let reconnect = ReconnectOptions::reconnect(true).delay(Duration::from_millis(300)).build();
    let client = ClientBuilder::for_url(&url()).expect("a URL").reconnect(reconnect).build_with_transport(transport);
    let mut stream = client.stream();
    while let Some(item) = stream.next().await {
        match item {
            Ok(SSE::Connected(_)) => opened(),
            Ok(SSE::Event(event)) => received(&event.event_type, event.id.as_deref(), &event.data),
            Ok(SSE::Comment(_)) => {}
            Err(error) => failed(error),
        }
    }
    failed("the client stopped");
}
