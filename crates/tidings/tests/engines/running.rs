//! A hub that serves, behind a layer by which a test decides who carries its streams, and sees who does.
//!
//! It knows nothing of what streams say.

use crate::Engine;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidings::{Aborted, Config, Event, EventId, Hub, HubService, ResponseBody, serve::Server};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tower_service::Service;

/// Long enough for a loaded machine; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with which shards look at their connections often, for what happens in time.
pub(crate) fn attentive() -> Config {
    let mut config = Config::default();
    config.heartbeat = Some(Duration::from_millis(250));
    config
}

/// A layer around the hub that counts how often its bodies are read.
#[derive(Clone)]
struct Layer {
    hub: HubService,
    reads: Arc<AtomicUsize>,
    /// A claim to change bodies keeps streams where they are.
    encoding: Option<HeaderValue>,
    /// It reads the beginning of each stream before it hands it on.
    reads_ahead: bool,
}

/// A body whose reads are counted.
struct Counted {
    body: ResponseBody,
    ahead: Option<Frame<Bytes>>,
    reads: Arc<AtomicUsize>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        self.reads.fetch_add(1, SeqCst);
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl Service<Request<Incoming>> for Layer {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Layer { mut hub, reads, encoding, reads_ahead } = self.clone();
        Box::pin(async move {
            let mut response = hub.call(request).await?;
            if let Some(encoding) = encoding {
                response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
            }
            let mut ahead = None;
            if reads_ahead {
                let frame = poll_fn(|cx| Pin::new(response.body_mut()).poll_frame(cx)).await;
                ahead = Some(frame.expect("a beginning").expect("whole"));
            }
            Ok(response.map(|body| Counted { body, ahead, reads }))
        })
    }
}

/// A hub and its server.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) hub: Hub,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    /// How often bodies were read.
    pub(crate) reads: Arc<AtomicUsize>,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    _stop: oneshot::Sender<()>,
}

impl Running {
    pub(crate) fn start(engine: Engine, config: Config) -> Running {
        Running::with_layer(engine, config, false)
    }

    /// Behind a layer that reads the beginning of streams itself.
    pub(crate) fn reading_ahead(engine: Engine, config: Config) -> Running {
        Running::with_layer(engine, config, true)
    }

    fn with_layer(engine: Engine, config: Config, reads_ahead: bool) -> Running {
        let server = Server::new(&config);
        let hub = Hub::builder().config(config).build().unwrap();
        let listener = tidings::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let encoding = (engine == Engine::Body).then(|| HeaderValue::from_static("identity"));
        let layer = Layer { hub: hub.service(), reads: reads.clone(), encoding, reads_ahead };
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, layer, stopped));
        Running { engine, hub, server, address, reads, serving, _stop: stop }
    }

    pub(crate) async fn publish(&self, topic: &str, data: &str) -> EventId {
        self.hub.publish(Event::new(topic, data).unwrap()).await.unwrap()
    }

    /// Waits for a counter: shards say what they have counted after they have written.
    pub(crate) async fn wait_for(&self, name: &str, value: u64) {
        wait_until(name, || self.metric(name) >= value).await;
        assert_eq!(self.metric(name), value, "{name}");
    }

    /// A counter or gauge by its name and labels, as scrapers see it.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.hub.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}
