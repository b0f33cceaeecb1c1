//! The caller's service as one connection sees it: requests marked with where they came from, responses watched until they end.
//!
//! It counts and marks. It reads no body, writes no header but `Connection: close`, and knows no route.

use super::{
    admission::{Admission, Counted},
    detach::{Exit, Leaving, leaving, may_detach},
    transport::State,
};
use crate::{
    PeerAddr, Refusal,
    delivery::{MayDetach, Ticket},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tidings_core::wire;
use tower_service::Service;

/// What all requests of one connection share.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) refusal: Option<Refusal>,
    pub(super) admission: Arc<Admission>,
    pub(super) state: Arc<State>,
    pub(super) exit: Exit,
}

/// The caller's service on one connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionService<S> {
    service: S,
    origin: Arc<Origin>,
}

// The service is never pinned: it is cloned for each request, and only the clone's future is.
impl<S> Unpin for ConnectionService<S> {}

impl<S> ConnectionService<S> {
    pub(super) fn new(service: S, origin: Arc<Origin>) -> Self {
        ConnectionService { service, origin }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Watched<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let origin = self.origin.clone();
        let (counted, refusal) = match origin.admission.forwarded(origin.peer, request.headers()) {
            Some((counted, refusal)) => (Some(counted), refusal),
            None => (None, None),
        };
        if let Some(refusal) = origin.refusal.or(refusal) {
            request.extensions_mut().insert(refusal);
        }
        request.extensions_mut().insert(PeerAddr(origin.peer));
        // Said in full, because the engine would only add its own word to a `keep-alive` of the service's.
        let close = request.version() < Version::HTTP_2 && (origin.refusal.is_some() || wants_close(&request));
        let version = request.version();
        if origin.state.may_detach() && may_detach(&request) {
            request.extensions_mut().insert(MayDetach);
        }
        origin.state.request_begins();
        let mut under_way = UnderWay { origin, counted };
        let mut service = self.service.clone();
        Box::pin(async move {
            let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
            let Ok(mut response) = service.call(request).await;
            if close {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if response.extensions().get::<Ticket>().is_some() && version < Version::HTTP_2 {
                let (mut parts, body) = response.into_parts();
                if let Some((prepared, framing, head)) = leaving(&mut parts, version) {
                    let forwarded = under_way.counted.take();
                    under_way.origin.exit.leave(Leaving { prepared, framing, head, forwarded });
                    // The driver takes the connection away before anything more is asked of it.
                    return std::future::pending().await;
                }
                response = Response::from_parts(parts, body);
            }
            let events = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
                && !response.headers().contains_key(header::CONTENT_ENCODING)
                && !response.headers().contains_key(header::CONTENT_LENGTH);
            Ok(response.map(|body| Watched { body, probe: if events { Probe::Ready } else { Probe::Never }, under_way }))
        })
    }
}

fn wants_close<B>(request: &Request<B>) -> bool {
    let mut options =
        request.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// A request that is being answered, until its response has ended or was given up.
#[derive(Debug)]
struct UnderWay {
    origin: Arc<Origin>,
    counted: Option<Counted>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.origin.state.request_ends();
    }
}

/// Whether a client that has ended its half of the connection is asked for a sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// The body is no event stream, or the client was asked.
    Never,
    /// The stream stands between two lines.
    Ready,
    /// The stream stands inside a line, where nothing can be put.
    InLine,
}

pin_project! {
    /// A response body, watched until it ends.
    ///
    /// A client may end its half of the connection after the request and read on; one that is gone looks just like it, until something
    /// is written to it. So an event stream whose client has done so is sent one comment line: who is gone answers it with a reset,
    /// who is not ignores it (S-24).
    #[derive(Debug)]
    pub(super) struct Watched<B> {
        #[pin]
        body: B,
        probe: Probe,
        under_way: UnderWay,
    }
}

impl<B: Body<Data = Bytes>> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if *this.probe != Probe::Never => {
                if let Some(last) = frame.data_ref().and_then(|data| data.last()) {
                    *this.probe = if *last == b'\n' { Probe::Ready } else { Probe::InLine };
                }
            }
            Poll::Pending if *this.probe == Probe::Ready && this.under_way.origin.state.is_half_closed() => {
                *this.probe = Probe::Never;
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(wire::HEARTBEAT.as_bytes())))));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
