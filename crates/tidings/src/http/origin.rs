//! Which hosts are answered and which pages of the web may do what (N-31, S-39, S-40, Z-11): `Host`, `Origin` and CORS.
//!
//! It knows names and header fields, not what a route does with the request afterwards.

use super::{problem::Problem, response::ResponseBody};
use crate::{
    Config,
    auth::{Access, Dialect, Reason, Source},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, Version, header, request::Parts};
use std::net::IpAddr;

/// Fields that pages may send (S-39); those that the settings add follow.
const ALLOW_HEADERS: &str = "Accept, Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer";
/// Fields that pages may read.
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static("Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After");

/// An origin as browsers send it, in lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    scheme: String,
    host: String,
    /// 0 where the scheme has no port of its own and none was given.
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`; `null` and everything else is no origin that could be told from others.
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let valid = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ', ',']);
        valid.then(|| {
            let scheme = scheme.to_ascii_lowercase();
            let port = port.unwrap_or(default_port(&scheme));
            Origin { host: host.to_ascii_lowercase(), port, scheme }
        })
    }
}

fn default_port(scheme: &str) -> u16 {
    match scheme {
        "https" => 443,
        "http" => 80,
        _ => 0,
    }
}

/// Splits `host[:port]`; an IPv6 address stands in brackets, which the host keeps. `None` if that is not its shape.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_len = if authority.starts_with('[') { authority.find(']')? + 1 } else { authority.find(':').unwrap_or(authority.len()) };
    let (host, rest) = authority.split_at(host_len);
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some((host, None)),
        Some("") => Some((host, None)),
        // `u16` would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(digits.parse().ok()?))),
        Some(_) => None,
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// `localhost` and names below it, and loopback addresses: what only a program on the same machine can mean.
fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let named = host.eq_ignore_ascii_case("localhost")
        || host.len() > ".localhost".len()
            && host.get(host.len() - ".localhost".len()..).is_some_and(|end| end.eq_ignore_ascii_case(".localhost"));
    named || ip(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// What a configured origin stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    /// `*`.
    Any,
    /// Exactly this origin.
    Exact(Origin),
    /// `https://*.example.com`: every name below, not the name itself. Without a scheme, `http` and `https` at their own ports.
    Below { scheme: Option<String>, suffix: String, port: Option<u16> },
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        if text == "*" {
            return Some(Pattern::Any);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let (scheme, authority) = text.split_once("://").map_or((None, text), |(scheme, authority)| (Some(scheme), authority));
        let Some(name) = authority.strip_prefix("*.") else { return Origin::parse(text).map(Pattern::Exact) };
        let (suffix, port) = split_port(name)?;
        let valid = !suffix.is_empty() && !suffix.contains(['*', '/', '@', ' ']);
        valid.then(|| Pattern::Below {
            scheme: scheme.map(str::to_ascii_lowercase),
            suffix: format!(".{}", suffix.to_ascii_lowercase()),
            port,
        })
    }

    fn matches(&self, origin: Option<&Origin>) -> bool {
        match (self, origin) {
            (Pattern::Any, _) => true,
            (_, None) => false,
            (Pattern::Exact(exact), Some(origin)) => exact == origin,
            (Pattern::Below { scheme, suffix, port }, Some(origin)) => {
                let scheme_fits = match scheme {
                    Some(scheme) => *scheme == origin.scheme,
                    None => matches!(&*origin.scheme, "http" | "https"),
                };
                let below = origin.host.len() > suffix.len() && origin.host.ends_with(&**suffix);
                scheme_fits && below && origin.port == port.unwrap_or(default_port(&origin.scheme))
            }
        }
    }
}

/// What the origin of a request may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// No page sent it, or one of the hub's own did.
    Own,
    /// A page that may read and publish, and the value that tells its browser so.
    Allowed(HeaderValue),
    /// A page that may publish only.
    Publisher(HeaderValue),
    /// Any other page: it may cause what a link or an image could, and read nothing.
    Foreign,
}

/// The settings about origins, made ready.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    readers: Vec<Pattern>,
    publishers: Vec<Pattern>,
    own: Option<Origin>,
    open: bool,
    allow_headers: HeaderValue,
    max_age: HeaderValue,
}

impl Origins {
    pub(crate) fn new(config: &Config) -> Self {
        let patterns = |setting: &'static str, texts: &[String]| {
            let parse = |text: &String| {
                let pattern = Pattern::parse(text);
                if pattern.is_none() {
                    // It allows nobody, which is the safe reading.
                    tracing::warn!(setting, value = %text, "not an origin; write it as https://example.com or https://*.example.com");
                }
                pattern
            };
            texts.iter().filter_map(parse).collect()
        };
        let allow_headers = config.cors_headers.iter().fold(ALLOW_HEADERS.to_owned(), |all, name| all + ", " + name);
        Origins {
            readers: patterns("cors_origins", &config.cors_origins),
            publishers: patterns("publish_origins", &config.publish_origins),
            own: config.public_url.as_deref().and_then(url_origin),
            open: config.is_open(),
            allow_headers: HeaderValue::try_from(allow_headers).unwrap_or(HeaderValue::from_static(ALLOW_HEADERS)),
            max_age: config.cors_max_age.as_secs().into(),
        }
    }

    /// The standing of a request, from its `Origin` and the host it is addressed to.
    pub(crate) fn standing(&self, parts: &Parts) -> Result<Standing, Problem> {
        let Some(field) = single(&parts.headers, header::ORIGIN)? else { return Ok(Standing::Own) };
        let origin = field.to_str().ok().and_then(Origin::parse);
        let host = effective_host(parts);
        if origin.as_ref().is_some_and(|origin| self.is_own(origin, parts)) {
            return Ok(Standing::Own);
        }
        let allowed = |patterns: &[Pattern]| {
            // A named origin is answered by name, so that credentials may be used; `*` never goes with credentials.
            if patterns.iter().any(|pattern| *pattern != Pattern::Any && pattern.matches(origin.as_ref())) {
                Some(field.clone())
            } else {
                patterns.contains(&Pattern::Any).then(|| HeaderValue::from_static("*"))
            }
        };
        if let Some(value) = allowed(&self.readers) {
            return Ok(Standing::Allowed(value));
        }
        let on_loopback = || host.and_then(split_port).is_some_and(|(host, _)| is_loopback(host));
        if self.open && origin.as_ref().is_some_and(|origin| is_loopback(&origin.host)) && on_loopback() {
            return Ok(Standing::Allowed(field.clone()));
        }
        Ok(allowed(&self.publishers).map_or(Standing::Foreign, Standing::Publisher))
    }

    /// Publishing by a cookie, which browsers send along whoever asks them to: the page must say that it may (M-59, M-316, S-40). `*` in
    /// `cors_origins` is not enough for that, in `publish_origins` it is meant.
    pub(crate) fn check_cookie(&self, access: &Access, parts: &Parts, dialect: Dialect) -> Result<(), Problem> {
        if access.source != Some(Source::Cookie) {
            return Ok(());
        }
        let origin = single(&parts.headers, header::ORIGIN)?;
        let Some(page) = origin.or(single(&parts.headers, header::REFERER)?) else {
            return Err(Problem::Auth(Reason::NoOrigin.into(), access.dialect().unwrap_or(dialect)));
        };
        let text = page.to_str().unwrap_or_default();
        let page = if origin.is_some() { Origin::parse(text) } else { url_origin(text) };
        let named = |pattern: &Pattern| *pattern != Pattern::Any && pattern.matches(page.as_ref());
        let own = page.as_ref().is_some_and(|page| self.is_own(page, parts));
        if own || self.readers.iter().any(named) || self.publishers.iter().any(|pattern| pattern.matches(page.as_ref())) {
            Ok(())
        } else {
            Err(Problem::ForeignOrigin(text.to_owned()))
        }
    }

    /// Whether a page is the hub's own: of the host the request is addressed to, or of the public URL.
    fn is_own(&self, origin: &Origin, parts: &Parts) -> bool {
        // Behind a proxy that ends TLS the scheme seen here is not the page's, so the ports are compared by the page's scheme.
        let same = effective_host(parts).and_then(split_port).is_some_and(|(host, port)| {
            host.eq_ignore_ascii_case(&origin.host) && port.unwrap_or(default_port(&origin.scheme)) == origin.port
        });
        same || self.own.as_ref() == Some(origin)
    }

    /// Adds what CORS says about an answer. `publishes` is whether the route is one for publishers.
    pub(crate) fn mark(&self, standing: &Standing, publishes: bool, preflight: bool, response: &mut Response<ResponseBody>) {
        let headers = response.headers_mut();
        let value = match standing {
            Standing::Allowed(value) => value,
            Standing::Publisher(value) if publishes => value,
            _ => return,
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
        if value != "*" {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if preflight {
            if let Some(methods) = headers.get(header::ALLOW).cloned() {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone());
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
        }
    }
}

/// The hosts a hub answers to (N-31): a name that somebody else's DNS points to this machine is not among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hosts {
    names: Vec<String>,
    /// Listening on every address: then any address in a `Host` is this machine's, and only names can be rebound.
    any_address: bool,
}

impl Hosts {
    /// The hosts for a hub that listens on `listen` (addresses or names, with or without a port). With keys and without a public
    /// URL nothing is checked: who has no key can only read what is public.
    pub(crate) fn new(config: &Config, listen: &[String]) -> Option<Hosts> {
        let public = config.public_url.as_deref().and_then(url_origin).map(|origin| origin.host);
        if !config.is_open() && public.is_none() {
            return None;
        }
        let more = config.more_public_urls.iter().filter_map(|url| url_origin(url)).map(|origin| origin.host);
        let mut hosts = Hosts { names: public.into_iter().chain(more).collect(), any_address: false };
        for name in listen.iter().chain(&config.hosts) {
            let name = match name.parse::<IpAddr>() {
                Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
                _ => split_port(name).map_or(&**name, |(host, _)| host).to_ascii_lowercase(),
            };
            hosts.any_address |= ip(&name).is_some_and(|ip| ip.is_unspecified());
            hosts.names.push(name);
        }
        Some(hosts)
    }

    fn answers(&self, authority: &str) -> bool {
        let Some((host, _)) = split_port(authority) else { return false };
        // Nearly all say the name that is known, and then it is not taken apart.
        let address = || ip(host).is_some_and(|given| self.any_address || self.names.iter().any(|name| ip(name) == Some(given)));
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) || is_loopback(host) || address()
    }

    /// Checks every name the request gives for its host: target and field may differ, and either may be believed by somebody.
    pub(crate) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let target = authority(&parts.uri);
        let field = single(&parts.headers, header::HOST)?.map(|value| value.to_str().unwrap_or_default());
        if target.is_none() && field.is_none() && parts.version > Version::HTTP_10 {
            return Err(Problem::NoHost);
        }
        match target.into_iter().chain(field).find(|name| !self.answers(name)) {
            Some(name) => Err(Problem::WrongHost(name.to_owned())),
            None => Ok(()),
        }
    }
}

/// A field that may occur once: of two, a proxy and the hub might each believe another (N-31).
pub(crate) fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Problem> {
    // Few fields are looked through faster than a name is hashed.
    let mut values = headers.iter().filter(|(other, _)| **other == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Problem::Repeated(name)),
        (value, None) => Ok(value),
    }
}

/// The authority of an absolute target or of `:authority`, without user information.
fn authority(uri: &Uri) -> Option<&str> {
    let text = uri.authority()?.as_str();
    Some(text.rsplit_once('@').map_or(text, |(_, host)| host))
}

fn effective_host(parts: &Parts) -> Option<&str> {
    authority(&parts.uri).or_else(|| parts.headers.get(header::HOST)?.to_str().ok())
}

/// The origin of a URL.
fn url_origin(url: &str) -> Option<Origin> {
    let after_scheme = url.find("://")? + 3;
    let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
    Origin::parse(&url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    /// A request addressed to `host` from a page of `origin`.
    fn request(host: &str, origin: &str) -> Parts {
        Request::post("/publish/a").header("host", host).header("origin", origin).body(()).unwrap().into_parts().0
    }

    fn check(config: &Config, host: &str, origin: &str, expected: &Standing) {
        assert_eq!(&Origins::new(config).standing(&request(host, origin)).unwrap(), expected, "{origin} at {host}");
    }

    fn allowed(value: &'static str) -> Standing {
        Standing::Allowed(HeaderValue::from_static(value))
    }

    /// N-31: open mode, nothing configured.
    #[test]
    fn open_mode() {
        let open = Config::default();
        for (host, origin) in [
            ("localhost:4680", "http://localhost:4680"),
            ("127.0.0.1:4680", "http://127.0.0.1:4680"),
            ("[::1]:4680", "http://[::1]:4680"),
            ("hub.example", "https://hub.example"),
            ("hub.example:443", "https://hub.example"),
            ("hub.example", "http://HUB.example:80"),
        ] {
            check(&open, host, origin, &Standing::Own);
        }
        for origin in ["http://localhost:3000", "https://app.localhost", "http://127.0.0.2:8080", "http://[::1]:9"] {
            let field = HeaderValue::from_static(origin);
            check(&open, "localhost:4680", origin, &Standing::Allowed(field));
            // A page on somebody's machine is no friend of a hub elsewhere.
            check(&open, "hub.example", origin, &Standing::Foreign);
        }
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://localhost.evil.example",
            "http://evil-localhost",
            "http://127.0.0.1.evil.example",
            "http://localhost:4680@evil.example",
            "http://localhost:4680/",
            "file://",
            "http://localhost:4680, http://evil.example",
            "http://localhost:+80",
            "http://[::1",
        ] {
            check(&open, "localhost:4680", origin, &Standing::Foreign);
        }
        let keyed = config(|config| config.publish_keys = vec!["k".into()]);
        check(&keyed, "localhost:4680", "http://localhost:3000", &Standing::Foreign);
        check(&keyed, "localhost:4680", "http://localhost:4680", &Standing::Own);
    }

    /// Z-11, S-39: exact names, names below, ports, schemes, and `*` without credentials.
    #[test]
    fn configured() {
        let named = config(|config| {
            config.cors_origins =
                texts(&["https://app.example", "https://*.example.com", "*.example.org", "https://x.example:8443/", "not an origin"]);
            config.publish_origins = texts(&["https://writer.example"]);
            config.public_url = Some("https://hub.example/.well-known/mercure".to_owned());
        });
        let table: &[(&'static str, Standing)] = &[
            ("https://app.example", allowed("https://app.example")),
            ("https://app.example:443", allowed("https://app.example:443")),
            ("HTTPS://APP.example", allowed("HTTPS://APP.example")),
            ("http://app.example", Standing::Foreign),
            ("https://app.example:444", Standing::Foreign),
            ("https://a.example.com", allowed("https://a.example.com")),
            ("https://a.b.example.com", allowed("https://a.b.example.com")),
            ("https://example.com", Standing::Foreign),
            ("https://.example.com", Standing::Foreign),
            ("https://evilexample.com", Standing::Foreign),
            ("https://a.example.com.evil.net", Standing::Foreign),
            ("https://a.example.com:8443", Standing::Foreign),
            ("http://a.example.org", allowed("http://a.example.org")),
            ("https://a.example.org", allowed("https://a.example.org")),
            ("ftp://a.example.org", Standing::Foreign),
            ("https://x.example:8443", allowed("https://x.example:8443")),
            ("https://writer.example", Standing::Publisher(HeaderValue::from_static("https://writer.example"))),
            ("https://hub.example", Standing::Own),
            ("null", Standing::Foreign),
        ];
        for (origin, standing) in table {
            check(&named, "10.0.0.1:4680", origin, standing);
        }
        let any = config(|config| config.cors_origins = texts(&["*", "https://app.example"]));
        check(&any, "hub.example", "https://anywhere.example", &allowed("*"));
        check(&any, "hub.example", "null", &allowed("*"));
        check(&any, "hub.example", "https://app.example", &allowed("https://app.example"));
    }

    /// The fields of an answer, sorted, as text.
    fn marked(config: &Config, standing: &Standing, publishes: bool, preflight: bool) -> String {
        let mut response = Response::new(ResponseBody::empty());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        Origins::new(config).mark(standing, publishes, preflight, &mut response);
        let mut fields: Vec<_> = response.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
        fields.sort();
        fields.concat()
    }

    #[test]
    fn fields() {
        let config = config(|config| config.cors_headers = texts(&["X-Trace"]));
        assert_eq!(marked(&config, &Standing::Own, true, true), "allow: POST, OPTIONS\n");
        assert_eq!(marked(&config, &Standing::Foreign, true, false), "allow: POST, OPTIONS\n");
        assert_eq!(
            marked(&config, &allowed("https://app.example"), false, true),
            "access-control-allow-credentials: true\n\
             access-control-allow-headers: Accept, Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, \
             Last-Event-ID, Prefer, X-Trace\n\
             access-control-allow-methods: POST, OPTIONS\n\
             access-control-allow-origin: https://app.example\n\
             access-control-max-age: 600\n\
             allow: POST, OPTIONS\n"
        );
        assert_eq!(
            marked(&config, &allowed("*"), false, false),
            "access-control-allow-origin: *\n\
             access-control-expose-headers: Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After\n\
             allow: POST, OPTIONS\n"
        );
        let publisher = Standing::Publisher(HeaderValue::from_static("https://writer.example"));
        assert!(marked(&config, &publisher, true, false).contains("access-control-allow-origin: https://writer.example\n"));
        assert_eq!(marked(&config, &publisher, false, false), "allow: POST, OPTIONS\n");
    }

    /// N-31: DNS rebinding.
    #[test]
    fn hosts() {
        let status = |config: &Config, listen: &[&str], host: &str| {
            let hosts = Hosts::new(config, &texts(listen));
            let parts = Request::get("/").header("host", host).body(()).unwrap().into_parts().0;
            hosts.is_none_or(|hosts| hosts.check(&parts).is_ok())
        };
        let open = config(|config| config.hosts = texts(&["Hub.lan", "[fd00::1]"]));
        let local = ["127.0.0.1:4680"];
        for host in [
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "app.localhost:4680",
            "127.0.0.1:4680",
            "127.255.0.9",
            "[::1]:4680",
            "[::ffff:127.0.0.1]",
            "hub.lan:4680",
            "[fd00:0::1]",
        ] {
            assert!(status(&open, &local, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:4680",
            "localhost.evil.example",
            "evillocalhost",
            "10.0.0.1",
            "",
            ":4680",
            "[::1",
            "127.0.0.1:x",
            "0.0.0.0",
        ] {
            assert!(!status(&open, &local, host), "{host}");
        }
        // Listening everywhere: any address, still no foreign name.
        assert!(status(&open, &["0.0.0.0:80"], "10.0.0.1:80") && status(&open, &["[::]:80"], "[fd00::7]"));
        assert!(status(&open, &["192.168.1.5:80"], "192.168.1.5") && !status(&open, &["192.168.1.5:80"], "192.168.1.6"));
        assert!(!status(&open, &["0.0.0.0:80"], "evil.example"));
        // With keys only a public URL turns the check on.
        let keyed = config(|config| config.publish_keys = vec!["k".into()]);
        assert!(status(&keyed, &local, "anything.example"));
        let public = config(|config| {
            config.publish_keys = vec!["k".into()];
            config.public_url = Some("https://hub.example:8443/x".to_owned());
            config.more_public_urls = texts(&["https://hub.example.org"]);
        });
        assert!(status(&public, &local, "hub.example.org"));
        assert!(status(&public, &local, "hub.example") && !status(&public, &local, "anything.example"));
    }

    /// Every name a request gives counts, and HTTP/1.0 may give none.
    #[test]
    fn host_of_target_and_field() {
        let hosts = Hosts::new(&Config::default(), &[]).unwrap();
        let check = |version: Version, target: &str, fields: &[&str]| {
            let mut request = Request::get(target).version(version);
            for field in fields {
                request = request.header("host", *field);
            }
            hosts.check(&request.body(()).unwrap().into_parts().0)
        };
        assert!(check(Version::HTTP_11, "http://localhost/", &["localhost"]).is_ok());
        assert!(check(Version::HTTP_2, "http://localhost:4680/", &[]).is_ok());
        assert!(check(Version::HTTP_10, "/", &[]).is_ok());
        assert!(matches!(check(Version::HTTP_11, "/", &[]), Err(Problem::NoHost)));
        assert!(matches!(check(Version::HTTP_2, "http://evil.example/", &[]), Err(Problem::WrongHost(_))));
        assert!(matches!(check(Version::HTTP_11, "http://localhost/", &["evil.example"]), Err(Problem::WrongHost(_))));
        assert!(matches!(check(Version::HTTP_11, "http://evil.example/", &["localhost"]), Err(Problem::WrongHost(_))));
        assert!(matches!(check(Version::HTTP_11, "http://localhost@evil.example/", &[]), Err(Problem::WrongHost(_))));
        assert!(matches!(check(Version::HTTP_11, "/", &["localhost", "localhost"]), Err(Problem::Repeated(_))));
    }
}
