//! The HTTP interface as a tower service: routes, methods, and the order of checks before a handler sees a request.
//!
//! It knows requests and responses; sockets, connection limits and time-outs of heads belong to the server in front. Requests, responses
//! and header fields stay below this module, and of the hub it reaches only the handle that carries rights.
//!
//! A request passes, in this order: host (N-31), origin (N-31), path and method (N-5), rights (N-33), then its handler. What a publisher
//! misspells is refused (unknown names in the query, unknown members of an event); unknown names in the query of a subscription are
//! ignored, because clients add their own.

mod body;
mod cursor;
mod idempotency;
mod json;
mod look;
mod mercure;
mod origin;
mod plain;
mod problem;
mod publish;
mod query;
mod response;
mod subscribe;
#[cfg(test)]
mod tests;
mod topics;

pub use response::ResponseBody;

use crate::{
    Hub,
    auth::{Access, Dialect, Door, Presented, Role},
};
use body::Incoming;
use bytes::Buf;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use mercure::Place;
use origin::{Hosts, Origins, Standing};
use problem::Problem;
use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower_service::Service;

/// The address a request came from: a request extension that the server in front inserts. Absent where an application embeds the hub.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddr(pub SocketAddr);

/// Why the server in front wants a subscription refused: a request extension. Such a request to subscribe gets the soft refusal that
/// browsers survive, or, where the client can read it, the status (N-16); every other request goes on as if it were not there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The hub has as many connections as it can hold (503).
    Overloaded,
    /// This client has as many connections as it may (429).
    PerClient,
}

impl Hub {
    /// The HTTP interface of this hub, for any server or framework that takes a tower service.
    ///
    /// It answers every host: that is the embedding application's to decide, see [`HubService::check_host`]. Origins are always checked.
    pub fn service(&self) -> HubService {
        let config = self.config();
        let origins = Origins::new(config);
        HubService(Arc::new(Shared { hub: self.clone(), origins, hosts: None, prefix: None, hub_url: config.hub_url() }))
    }

    /// The HTTP interface as an axum `Router`, to be served as it is or nested: `app.nest("/events", hub.router())`. Where the path with
    /// a slash at its end (`/events/`) shall be answered too, nest the service: `app.nest_service("/events", hub.service())`.
    #[cfg(feature = "axum")]
    pub fn router(&self) -> axum::Router {
        // Routes and no fallback, so that the application keeps its own, also where routers are nested in each other or merged.
        let service = self.service();
        axum::Router::new().route_service("/", service.clone()).route_service("/{*path}", service)
    }
}

/// The HTTP interface of a [`Hub`]; see [`Hub::service`]. Clones are cheap and serve the same hub.
#[derive(Clone)]
pub struct HubService(Arc<Shared>);

#[derive(Clone)]
struct Shared {
    hub: Hub,
    origins: Origins,
    hosts: Option<Hosts>,
    /// Without a slash at its end; `None` at the root.
    prefix: Option<Box<str>>,
    /// Where the public finds the Mercure interface, or where it listens; never what a request says (M-73).
    hub_url: Option<String>,
}

impl HubService {
    /// The same service for a server that passes paths on as they are: `/events/subscribe/a` is served as `/subscribe/a`, and what is not
    /// below the prefix is 404. Frameworks that nest services take the prefix off themselves.
    #[must_use]
    pub fn at_prefix(mut self, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Arc::make_mut(&mut self.0).prefix = (!prefix.is_empty()).then(|| format!("/{prefix}").into());
        self
    }

    /// Answers only requests that are addressed to this machine's loopback names, to the addresses or names the server listens on, to
    /// `hosts` of the settings, or to the public URL; others get 421 (N-31). This is what stops a web page from reaching a hub on its
    /// visitor's machine by pointing a name of its own there. With publish keys it needs a public URL to be on, for then the names under
    /// which a hub is reached are not known otherwise.
    #[must_use]
    pub fn check_host(mut self, listen: Vec<String>) -> Self {
        let shared = Arc::make_mut(&mut self.0);
        shared.hosts = Hosts::new(shared.hub.config(), &listen);
        if let (None, Some(listen)) = (&shared.hub_url, listen.first()) {
            shared.hub_url = Some(format!("http://{listen}/.well-known/mercure"));
        }
        self
    }
}

impl fmt::Debug for HubService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubService").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for HubService
where
    B: http_body::Body<Data: Buf> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.0.clone();
        let (parts, body) = request.into_parts();
        // A body that comes with another method says nothing and is not read. `QUERY` is a `GET` with a body (M-132).
        let reads_body = parts.method == Method::POST || parts.method.as_str() == "QUERY";
        let body = reads_body.then(|| body::incoming(body));
        Box::pin(async move { Ok(shared.answer(parts, body).await) })
    }
}

/// What lies at a path; with the rest of it, still encoded, where it names a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'a> {
    Page,
    Publish(Option<&'a str>),
    Subscribe(Option<&'a str>),
    Topics(Option<&'a str>),
    Health,
    Live,
    Ready,
    Metrics,
    Mercure(Place),
    /// For probes written for another hub: whether it is ready, or only alive.
    MercureHealth {
        ready: bool,
    },
}

impl<'a> Route<'a> {
    fn find(path: &'a str) -> Option<Self> {
        if let Some(place) = Place::find(path) {
            return Some(Route::Mercure(place));
        }
        let (name, rest) = match path.strip_prefix('/')?.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (&path[1..], None),
        };
        let topic = rest.filter(|rest| !rest.is_empty());
        match (name, rest) {
            ("", None) => Some(Route::Page),
            ("publish", _) => Some(Route::Publish(topic)),
            ("subscribe", _) => Some(Route::Subscribe(topic)),
            ("topics", _) => Some(Route::Topics(topic)),
            ("health", None) => Some(Route::Health),
            ("livez", None) => Some(Route::Live),
            ("readyz" | "healthz", None) => Some(Route::Ready),
            ("metrics", None) => Some(Route::Metrics),
            ("mercure", Some("health/live")) => Some(Route::MercureHealth { ready: false }),
            ("mercure", Some("health/ready")) => Some(Route::MercureHealth { ready: true }),
            _ => None,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Route::Publish(_) => "POST, OPTIONS",
            Route::Subscribe(_) => "GET, HEAD, POST, QUERY, OPTIONS",
            Route::Mercure(place) => place.methods(),
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether a page that may publish but not read has business here.
    fn publishes(self, parts: &Parts) -> bool {
        let wants = |method: &HeaderValue| method == Method::POST.as_str();
        match self {
            Route::Publish(_) | Route::Topics(_) => true,
            // Both at one path: a preflight says which is meant.
            Route::Mercure(Place::Hub) => {
                parts.method == Method::POST || parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some_and(wants)
            }
            _ => false,
        }
    }
}

/// The methods of the hub as a whole (`OPTIONS *`).
const ALL_METHODS: &str = "GET, HEAD, POST, QUERY, OPTIONS";

impl Shared {
    async fn answer(&self, parts: Parts, body: Option<Incoming>) -> Response<ResponseBody> {
        let route = self.path(&parts).and_then(Route::find);
        let mut response = match self.admit(&parts) {
            Ok(standing) => {
                let mut response = self.dispatch(&parts, route, body).await.unwrap_or_else(Problem::into_response);
                let publishes = route.is_some_and(|route| route.publishes(&parts));
                let preflight = parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
                self.origins.mark(&standing, publishes, preflight, &mut response);
                response
            }
            Err(problem) => problem.into_response(),
        };
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(Route::Mercure(_)) = route {
            mercure::mark(self, headers);
        }
        if parts.method == Method::HEAD { ResponseBody::for_head(response) } else { response }
    }

    /// Who a request comes from, and whether it is for this hub at all (N-31).
    fn admit(&self, parts: &Parts) -> Result<Standing, Problem> {
        origin::single(&parts.headers, header::HOST)?;
        if let Some(hosts) = &self.hosts {
            hosts.check(parts)?;
        }
        let standing = self.origins.standing(parts)?;
        let harmless = parts.method == Method::GET || parts.method == Method::HEAD;
        if standing == Standing::Foreign && !harmless {
            let origin = parts.headers.get(header::ORIGIN).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            return Err(Problem::ForeignOrigin(origin.unwrap_or_default()));
        }
        Ok(standing)
    }

    /// The path below the prefix, or `None` if it is not below.
    fn path<'a>(&self, parts: &'a Parts) -> Option<&'a str> {
        let path = parts.uri.path();
        let path = self.prefix.as_deref().map_or(Some(path), |prefix| path.strip_prefix(prefix))?;
        if path.is_empty() { Some("/") } else { Some(path) }
    }

    async fn dispatch(&self, parts: &Parts, route: Option<Route<'_>>, body: Option<Incoming>) -> Result<Response<ResponseBody>, Problem> {
        let Some(route) = route else {
            let whole_hub = parts.method == Method::OPTIONS && parts.uri.path() == "*";
            return if whole_hub { Ok(options(ALL_METHODS)) } else { Err(Problem::NotFound) };
        };
        let methods = route.methods();
        if !methods.split(',').any(|method| method.trim_ascii_start() == parts.method.as_str()) {
            return Err(Problem::Method(methods));
        }
        if parts.method == Method::OPTIONS {
            return Ok(options(methods));
        }
        match route {
            Route::Page => Ok(look::page(self.hub.guard().is_open())),
            Route::Health => Ok(look::health(&self.hub)),
            Route::Live => Ok(look::live()),
            Route::Ready => Ok(look::ready(&self.hub)),
            Route::Metrics => Ok(look::metrics(&self.hub)),
            Route::Subscribe(prefix) => {
                let hub = self.hub.with(self.access(parts, Role::Subscribe).await?.grant);
                subscribe::subscribe(&hub, parts, prefix, body).await
            }
            Route::Topics(topic) => {
                let hub = self.hub.with(self.publisher(parts).await?.grant);
                topics::topics(&hub, parts, topic).await
            }
            Route::Mercure(place) => mercure::answer(self, place, parts, body).await,
            Route::MercureHealth { ready } => Ok(look::mercure_health(&self.hub, ready)),
            Route::Publish(topic) => {
                let access = self.publisher(parts).await?;
                let scope = scope("publish", &access);
                let hub = self.hub.with(access.grant).in_scope(scope);
                // `POST` is the only method here, and it always has a body.
                let body = body.ok_or(Problem::Method(methods))?;
                publish::publish(&hub, parts, topic, body).await
            }
        }
    }

    /// The rights of a request on a native route.
    async fn access(&self, parts: &Parts, role: Role) -> Result<Access, Problem> {
        let guard = self.hub.guard();
        // An open hub looks at nothing on these routes.
        let presented = if guard.is_open() { Presented::nothing(Door::Native) } else { presented(Door::Native, parts) };
        Ok(guard.access(role, &presented).await?)
    }

    /// The rights of a request that needs some to publish; asked before its body is read.
    async fn publisher(&self, parts: &Parts) -> Result<Access, Problem> {
        let access = self.access(parts, Role::Publish).await?;
        self.origins.check_cookie(&access, parts, Dialect::Eight)?;
        if access.grant.publish.is_empty() { Err(access.insufficient().into()) } else { Ok(access) }
    }
}

/// Keys count within a route and a publisher (N-6). With the length in front no two publishers share one.
fn scope(route: &'static str, access: &Access) -> Cow<'static, str> {
    match (access.issuer(), access.subject()) {
        (None, None) => route.into(),
        (issuer, subject) => {
            let issuer = issuer.unwrap_or_default();
            format!("{route} {} {issuer}{}", issuer.len(), subject.unwrap_or_default()).into()
        }
    }
}

/// What a request presents to prove its rights, wherever it may stand.
fn presented(door: Door, parts: &Parts) -> Presented<'_> {
    let fields = |name| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let query = query.filter(|(name, _)| name == "authorization").map(|(_, value)| value).collect();
    Presented { door, authorization: fields(header::AUTHORIZATION), cookies: fields(header::COOKIE), query }
}

/// The answer to `OPTIONS`; what CORS adds to a preflight comes on top.
fn options(methods: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
