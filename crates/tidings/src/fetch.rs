//! A small client for what the hub fetches by itself: one `GET` over HTTP or HTTPS, within bounds (M-411, M-114).
//!
//! It knows URLs that were configured, never any that a client sent. It follows redirects within their origin only, keeps no connections,
//! and believes the certificates that the system trusts.

#[cfg(all(test, feature = "jwks"))]
pub(crate) mod server;
#[cfg(all(test, feature = "jwks"))]
mod tests;

use std::{fmt, time::Duration};

/// Where something is fetched from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As it stands in `Host`.
    authority: String,
    path: String,
}

/// What was fetched.
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    /// How long the server says it is good for; nothing said is `None`.
    pub(crate) max_age: Option<Duration>,
}

impl Target {
    /// Reads a URL: `https`, or `http` on this machine; `insecure` allows `http` anywhere.
    pub(crate) fn parse(url: &str, insecure: bool) -> Result<Target, String> {
        let wrong = || format!("`{url}` is not a URL to fetch from; write it like https://issuer.example/.well-known/jwks.json");
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(format!("the URL for {} must not have a user in it", authority.host()));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback = host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !tls && !loopback && !insecure {
            return Err(format!(
                "`{url}` is not https: whoever is on the way could put in keys of their own; say `insecure` if this is meant"
            ));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Target { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the query, which may hold a secret of the issuer's.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(not(feature = "jwks"))]
pub(crate) async fn get(_: &Target, _: usize) -> Result<Fetched, String> {
    std::future::ready(Err("this program was built without the feature `jwks`; give the set as a file".into())).await
}

#[cfg(feature = "jwks")]
pub(crate) use client::get;

#[cfg(feature = "jwks")]
mod client {
    use super::{Fetched, Target};
    use http::{HeaderMap, Request, header};
    use http_body_util::{BodyExt as _, Empty, Limited};
    use hyper::body::Bytes;
    use hyper_util::rt::TokioIo;
    use std::{
        sync::{Arc, OnceLock},
        time::Duration,
    };
    use tidings_core::limits;
    use tokio::{
        io::{AsyncRead, AsyncWrite},
        net::TcpStream,
        time::timeout,
    };
    use tokio_rustls::TlsConnector;

    /// Fetches at most so many bytes, within the time that is given for it.
    pub(crate) async fn get(target: &Target, bytes: usize) -> Result<Fetched, String> {
        let tls = if target.tls { Some(trusted()?) } else { None };
        get_with(target, bytes, tls).await
    }

    /// The same, with the certificates to believe.
    pub(super) async fn get_with(target: &Target, bytes: usize, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Fetched, String> {
        let within = Duration::from_millis(limits::KEY_SET_FETCH_MS);
        timeout(within, follow(target, bytes, tls)).await.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())))
    }

    async fn follow(target: &Target, bytes: usize, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Fetched, String> {
        let mut target = target.clone();
        for _ in 0..=limits::KEY_SET_REDIRECTS {
            match once(&target, bytes, tls.clone()).await? {
                Answer::Whole(fetched) => return Ok(fetched),
                Answer::Elsewhere(location) => target.path = within_origin(&target, &location)?,
            }
        }
        Err(format!("more than {} redirects", limits::KEY_SET_REDIRECTS))
    }

    enum Answer {
        Whole(Fetched),
        Elsewhere(String),
    }

    async fn once(target: &Target, bytes: usize, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Answer, String> {
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| error.to_string())?;
        match tls {
            None => ask(socket, target, bytes).await,
            Some(config) => {
                let name = target.host.clone().try_into().map_err(|_| "the host is not a name that a certificate could have".to_owned())?;
                let stream = TlsConnector::from(config).connect(name, socket).await.map_err(|error| error.to_string())?;
                ask(stream, target, bytes).await
            }
        }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, target: &Target, bytes: usize) -> Result<Answer, String> {
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let connection = tokio::spawn(connection);
        let request = Request::get(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(text)?;
            let (parts, body) = response.into_parts();
            if parts.status.is_redirection() {
                let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
                return Ok(Answer::Elsewhere(location.ok_or("a redirect without a place")?.to_owned()));
            }
            if parts.status != 200 {
                return Err(format!("the answer is {}", parts.status));
            }
            let body = Limited::new(body, bytes).collect().await.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => error.to_string(),
                Err(_) => format!("it has more than {bytes} bytes"),
            })?;
            Ok(Answer::Whole(Fetched { body: body.to_bytes().into(), max_age: max_age(&parts.headers) }))
        };
        let answer = answer.await;
        connection.abort();
        answer
    }

    /// The new path, if a redirect stays with the same scheme, host and port.
    fn within_origin(target: &Target, location: &str) -> Result<String, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(location.to_owned());
        }
        let to = Target::parse(location, true).map_err(|_| "a redirect to a place that is not understood".to_owned())?;
        let same = (to.tls, to.port) == (target.tls, target.port) && to.host.eq_ignore_ascii_case(&target.host);
        if same { Ok(to.path) } else { Err(format!("it redirects to another origin, {to}, which is not followed")) }
    }

    /// How long `Cache-Control` lets the answer be used.
    fn max_age(headers: &HeaderMap) -> Option<Duration> {
        let fields = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut age = None;
        for directive in fields.flat_map(|field| field.split(',')) {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return Some(Duration::ZERO);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                age = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
            }
        }
        age
    }

    /// The system's certificates, read once; the cryptography is named here, so that nobody's choice for the process matters.
    fn trusted() -> Result<Arc<rustls::ClientConfig>, String> {
        static CONFIG: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
        let load = || {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(
                    "the system has no certificates to check https with; install them (ca-certificates), or set SSL_CERT_FILE".into()
                );
            }
            with_roots(roots)
        };
        CONFIG.get_or_init(load).clone()
    }

    pub(super) fn with_roots(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}
