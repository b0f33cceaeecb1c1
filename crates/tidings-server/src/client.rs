//! A small HTTP/1.1 client for one hub: connect, send a request, read a problem document (N-5).
//!
//! Plain HTTP only. It follows no redirects and keeps no pool; when to try again is decided by the commands that use it.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use std::{fmt, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Long enough for a far-away host, short enough for a person who mistyped its name.
const CONNECT: Duration = Duration::from_secs(10);
/// A problem document is a few lines; whatever is longer is not one.
const PROBLEM_BYTES: usize = 64 << 10;
/// A subscriber sends nothing, so only the kernel can find out that its peer is gone without a word.
const PROBE_AFTER: Duration = Duration::from_secs(30);

/// Where the hub is, and what is sent with every request.
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// The path the hub is mounted under, without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
}

/// One connection to the hub, for one request at a time.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

/// What a hub answered instead of doing what was asked.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// The members of the problem document; empty if it was none.
    pub(crate) members: serde_json::Map<String, serde_json::Value>,
}

impl Endpoint {
    /// Reads `--url` and `--key`.
    pub(crate) fn new(url: &str, key: Option<&str>) -> Result<Endpoint, String> {
        let wrong = || format!("`{url}` is not the URL of a hub; write it like http://127.0.0.1:4680");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(format!("`{url}`: https is not supported by this version; use http, or a local TLS tunnel")),
            _ => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let authorization = key.map(|key| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| "the key has characters that no key has".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Endpoint {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            base: uri.path().trim_end_matches('/').to_owned(),
            authorization: authorization.transpose()?,
        })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        let unreachable = |why: &dyn fmt::Display| format!("cannot reach {self}: {why}; is the hub running? (tidings serve)");
        let socket = match timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port))).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(unreachable(&format!("no answer within {} s", CONNECT.as_secs()))),
        };
        // Both only improve matters: without them small requests wait, and a dead peer is found later.
        let _ = socket.set_nodelay(true);
        let probes = socket2::TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_AFTER / 3);
        let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&probes);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// The beginning of a request to `path_and_query` of the hub.
    pub(crate) fn request(&self, method: &str, path_and_query: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path_and_query}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")));
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority.to_str().unwrap_or_default(), self.base)
    }
}

impl Connection {
    /// Whether the next request can be sent on it.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        self.0.send_request(request).await.map_err(|error| describe(&error))
    }
}

/// An error of hyper with its cause, which says what happened ("connection reset").
pub(crate) fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Problem {
    /// Reads the answer of a hub that refused.
    pub(crate) async fn read(response: Response<Incoming>) -> Problem {
        let status = response.status();
        let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), PROBLEM_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
        let members = body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        Problem { status, retry_after: seconds.map(Duration::from_secs), members }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = |name: &str| self.members.get(name).and_then(serde_json::Value::as_str);
        match member("title") {
            Some(title) => f.write_str(title)?,
            None => write!(f, "the server answered {}", self.status)?,
        }
        member("detail").map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, host, port, shown) in [
            ("http://127.0.0.1:4680", "127.0.0.1", 4680, "http://127.0.0.1:4680"),
            ("http://hub.example/", "hub.example", 80, "http://hub.example"),
            ("http://[::1]:9/live/", "::1", 9, "http://[::1]:9/live"),
        ] {
            let endpoint = Endpoint::new(url, None).unwrap();
            assert_eq!((&*endpoint.host, endpoint.port, &*endpoint.to_string()), (host, port, shown));
        }
        for url in ["", "127.0.0.1:4680", "localhost", "ftp://a", "http://", "http://a@b", "http://a/?b", "https://a"] {
            assert!(Endpoint::new(url, None).is_err_and(|why| why.contains("http")), "{url}");
        }
        assert!(Endpoint::new("http://a", Some("line\nbreak")).is_err());
    }

    /// N-5: a problem document is shown by its title and detail, anything else by its status.
    #[test]
    fn problems() {
        for (members, shown) in [
            (r#"{"title":"Not allowed","detail":"send a key"}"#, "Not allowed: send a key"),
            (r#"{"title":"Not allowed"}"#, "Not allowed"),
            ("{}", "the server answered 401 Unauthorized"),
        ] {
            let members = serde_json::from_str(members).unwrap();
            assert_eq!(Problem { status: StatusCode::UNAUTHORIZED, retry_after: None, members }.to_string(), shown);
        }
    }
}
