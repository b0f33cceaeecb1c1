//! What the suite has to be told of the hub under test: where it is, which keys it trusts, what is switched on.
//!
//! It knows no check. What is not told is not tested, and the report says so.

use crate::token::Key;
use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

/// The two generations of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// 0.x: `topic`, the claim `mercure`, `lastEventID`.
    Seven,
    /// 1.0: `match`, access tokens with `authorization_details`, `last_event_id`.
    Eight,
}

impl Dialect {
    /// As it is written in reports: `7` or `8`.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Seven => "7",
            Dialect::Eight => "8",
        }
    }
}

/// What a key may sign for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tokens of publishers.
    Publish,
    /// Tokens of subscribers.
    Subscribe,
}

/// One more key that the hub trusts, beside the main two.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What the hub lets it sign for.
    pub role: Role,
    /// The issuer that it belongs to.
    pub issuer: String,
    /// The key itself.
    pub key: Key,
}

/// The hub under test, as its operator set it up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the hub answers, `http` only: `http://127.0.0.1:4680/.well-known/mercure`.
    pub url: String,
    /// The hub URL it believes to have (M-73), when that is another one; its authority is what `Host` says then.
    pub public_url: Option<String>,
    /// The audience of dialect 8; the public URL if absent.
    pub audience: Option<String>,
    /// The issuer of the two main keys.
    pub issuer: String,
    /// Signs publishers' tokens.
    pub publisher: Key,
    /// Signs subscribers' tokens.
    pub subscriber: Key,
    /// Further keys, of other algorithms or issuers.
    pub others: Vec<Identity>,
    /// The dialects that are switched on.
    pub dialects: Vec<Dialect>,
    /// Presence events and their API are switched on.
    pub presence: bool,
    /// Subscribing without a token is allowed.
    pub anonymous: bool,
    /// The query parameter `authorization` of dialect 7 is switched on.
    pub query_token: bool,
    /// A configured cookie name, the only one then.
    pub cookie_name: Option<String>,
    /// An origin that may read from other pages, with credentials.
    pub cors_origin: Option<String>,
    /// An origin whose pages may publish by cookie.
    pub publish_origin: Option<String>,
    /// Where metrics are shown.
    pub metrics_url: Option<String>,
    /// Where health is told.
    pub health_url: Option<String>,
    /// The keep-alive interval, when short enough to be waited for.
    pub heartbeat: Option<Duration>,
    /// The longest life of a stream, when short enough to be waited for.
    pub lifetime: Option<Duration>,
    /// The largest body that may be published, in bytes.
    pub body_limit: usize,
    /// How long an answer or an event may take.
    pub patience: Duration,
    /// Checks that run at once.
    pub jobs: usize,
    /// Hosts other than this machine that may be tested.
    pub allowed_hosts: Vec<String>,
    /// Checks the group `tidings` too, and counts warnings and notes as failures.
    pub strict: bool,
}

impl Settings {
    /// With everything else as a hub has it when only keys are configured.
    pub fn new(url: &str, issuer: &str, publisher: Key, subscriber: Key) -> Settings {
        Settings {
            url: url.into(),
            public_url: None,
            audience: None,
            issuer: issuer.into(),
            publisher,
            subscriber,
            others: vec![],
            dialects: vec![Dialect::Seven, Dialect::Eight],
            presence: true,
            anonymous: false,
            query_token: false,
            cookie_name: None,
            cors_origin: None,
            publish_origin: None,
            metrics_url: None,
            health_url: None,
            heartbeat: None,
            lifetime: None,
            body_limit: 1024 * 1024,
            patience: Duration::from_secs(10),
            jobs: 24,
            allowed_hosts: vec![],
            strict: false,
        }
    }
}

/// A place on the network and a path there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `host:port` as the URL wrote it.
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl Place {
    /// Of an `http` URL without a query.
    pub(crate) fn parse(url: &str, allowed_hosts: &[String]) -> Result<Place, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: the suite speaks http only; test behind the TLS end"))?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let with_port =
            if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { host.to_owned() } else { format!("{host}:80") };
        let address =
            with_port.to_socket_addrs().map_err(|error| format!("{url}: {error}"))?.next().ok_or_else(|| format!("{url}: no address"))?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !address.ip().is_loopback() && !allowed_hosts.iter().any(|allowed| allowed == name) {
            return Err(format!("{name} is not this machine: the suite publishes and tries bad tokens; allow it with --allow-host {name}"));
        }
        Ok(Place { host: host.to_owned(), address, path: path.to_owned() })
    }
}

/// The settings with what follows from them.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Settings,
    pub(crate) place: Place,
    /// The hub URL as the hub believes to have it.
    pub(crate) public_url: String,
    pub(crate) audience: String,
}

impl Hub {
    pub(crate) fn new(settings: Settings) -> Result<Hub, String> {
        let mut place = Place::parse(&settings.url, &settings.allowed_hosts)?;
        if place.path.contains(['?', '#']) {
            return Err(format!("{}: a hub URL has no query and no fragment", settings.url));
        }
        let public_url = settings.public_url.clone().unwrap_or_else(|| settings.url.clone());
        let audience = settings.audience.clone().unwrap_or_else(|| public_url.clone());
        if let Some((_, rest)) = settings.public_url.as_deref().and_then(|url| url.split_once("://")) {
            // The hub is asked by the name that it believes to have.
            rest.split('/').next().unwrap_or_default().clone_into(&mut place.host);
        }
        Ok(Hub { settings, place, public_url, audience })
    }

    /// Scheme and authority of the public URL.
    pub(crate) fn public_origin(&self) -> &str {
        let after = self.public_url.find("://").map_or(0, |at| at + 3);
        let end = self.public_url[after..].find('/').map_or(self.public_url.len(), |at| after + at);
        &self.public_url[..end]
    }

    /// A path below the hub's own.
    pub(crate) fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.place.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_have_to_be_allowed() {
        assert!(Place::parse("http://192.0.2.1:80/x", &[]).unwrap_err().contains("--allow-host 192.0.2.1"));
        let place = Place::parse("http://192.0.2.1/x/y", &["192.0.2.1".into()]).unwrap();
        assert_eq!((place.host.as_str(), place.path.as_str(), place.address.port()), ("192.0.2.1", "/x/y", 80));
        assert!(Place::parse("https://127.0.0.1/", &[]).unwrap_err().contains("http only"));
    }

    #[test]
    fn the_public_url_is_the_audience_unless_told() {
        let key = Key::secret("s");
        let mut settings = Settings::new("http://127.0.0.1:1/.well-known/mercure", "i", key.clone(), key);
        assert_eq!(Hub::new(settings.clone()).unwrap().audience, settings.url);
        settings.public_url = Some("https://hub.example/.well-known/mercure".into());
        let hub = Hub::new(settings).unwrap();
        assert_eq!(hub.place.host, "hub.example");
        assert_eq!((hub.public_origin(), hub.audience.as_str()), ("https://hub.example", "https://hub.example/.well-known/mercure"));
    }
}
