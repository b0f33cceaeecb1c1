//! The settings of a hub as one value, with the defaults of table N-40.
//!
//! It knows what can be set and what each setting means, not where a value was read from (flags, environment and files are the binary's)
//! nor what is done with it.

mod issuer;

pub use issuer::{Algorithm, Family, Issuer, KeySource, TokenKey};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tidings_core::limits;

/// Everything that can be set. Start from [`Config::default`] and change fields.
///
/// ```
/// use std::time::Duration;
/// let mut config = tidings::Config::default();
/// config.heartbeat = Some(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Shards: owners of a part of the subscribers each. Default: one per core.
    pub shards: usize,

    /// Largest data of one event, in bytes; at most [`limits::EVENT_DATA_MAX`].
    pub event_data: usize,
    /// Largest body of a publish request, in bytes.
    pub publish_body: usize,
    /// Topics of one event.
    pub topics_per_event: usize,
    /// Matchers of one subscription.
    pub matchers: usize,
    /// Time for which an idempotency key counts (N-6), in a store that the hub makes for itself.
    pub idempotency_window: Duration,
    /// Idempotency keys that such a store remembers, from 1 to [`limits::IDEMPOTENCY_KEYS_MAX`]; each costs
    /// [`limits::IDEMPOTENCY_KEY_COST`] bytes of memory.
    pub idempotency_keys: usize,

    /// A secret of at least [`limits::SECRET_MIN`] bytes under which the numbers of events are hidden in ids, so that nobody who has two of them
    /// can tell how many events lie between (M-95). It must stay the same as long as the log does: ids under another are unknown.
    pub opaque_ids: Option<Secret>,

    /// Silence after which a comment is sent; `None` never sends one (S-24).
    pub heartbeat: Option<Duration>,
    /// Whether it is a comment or an event (S-26).
    pub heartbeat_form: HeartbeatForm,
    /// Range of the random reconnection time told to each connection (S-41).
    pub retry: (Duration, Duration),
    /// Age at which a stream is ended so that its client reconnects, spread as the next field says; `None` never ends one.
    pub max_age: Option<Duration>,
    /// How that age is spread, so that streams opened together do not end together.
    pub max_age_spread: AgeSpread,
    /// A connection that takes no byte for this long while some wait is closed.
    pub stalled_write: Duration,
    /// How far a live reader may fall behind, in bytes of encoded events.
    pub lag_bytes: u64,
    /// The same in events.
    pub lag_events: u64,
    /// The same in time.
    pub lag_time: Duration,
    /// What happens to a reader past one of them, when the store cannot serve it.
    pub lag_policy: LagPolicy,
    /// What a reader gets whose cursor cannot be honoured (N-14).
    pub after_gap: AfterGap,
    /// How planned ends end (N-17).
    pub end: EndStyle,
    /// Whether streams without a cursor are primed (N-13a).
    pub prime: bool,
    /// Exceptions to `end`, `prime`, `lag_policy` and `heartbeat_form` by topic prefix; the longest prefix that applies wins.
    pub prefixes: Vec<PrefixRule>,

    /// Bytes of events kept in memory.
    pub window_bytes: usize,
    /// Events kept in memory.
    pub window_events: usize,

    /// Connections served at once; `None` is what the limit on open files allows.
    pub connections: Option<usize>,
    /// Connections of one client address (IPv6 by /64); `None` is no limit.
    pub connections_per_address: Option<usize>,
    /// Addresses whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Largest request head, in bytes.
    pub request_head: usize,
    /// Time for a request head from its first byte, for the first byte of a body, and over which the rate of a body is averaged.
    pub request_time: Duration,
    /// Time an idle kept-alive connection stays open.
    pub keep_alive: Duration,
    /// HTTP/2 streams of one connection.
    pub h2_streams: u32,
    /// Time over which draining spreads the ends of streams.
    pub drain_spread: Duration,
    /// Time after which draining stops waiting.
    pub drain_hard: Duration,

    /// Static bearer keys that guard publishing (N-33). Without them and without issuers access is open.
    pub publish_keys: Vec<Secret>,
    /// Who may issue tokens, and with which keys (M-70, M-71).
    pub issuers: Vec<Issuer>,
    /// What tokens must be meant for (`aud`, M-73). `None`: [`Config::hub_url`].
    pub resource: Option<String>,
    /// The only cookie that a token is taken from. `None`: `__Secure-mercure_access_token`, then `mercureAuthorization` (M-406).
    pub cookie_name: Option<String>,
    /// Whether a token may stand in the query, as `authorization` (M-205, M-406).
    pub query_token: bool,
    /// Tokens whose verification is remembered (M-412); 0 remembers none.
    pub token_cache: usize,
    /// Origins whose pages may read and publish, as `https://example.com`, `https://*.example.com` or `*` (Z-11).
    pub cors_origins: Vec<String>,
    /// Further origins whose pages may publish.
    pub publish_origins: Vec<String>,
    /// Further header fields that pages may send, besides those every client of event streams needs (Z-11).
    pub cors_headers: Vec<String>,
    /// Seconds a browser may remember the answer to a preflight.
    pub cors_max_age: Duration,
    /// The URL under which the public reaches this hub; its host is answered, others get 421 (N-31, M-73).
    pub public_url: Option<String>,
    /// Further URLs under which it is reached: with a public URL the hosts of all of them are answered, and no others (M-73).
    pub more_public_urls: Vec<String>,
    /// The address the hub listens on, which names it where `public_url` does not (M-73). A hub that is embedded may have none.
    pub listen: Option<SocketAddr>,
    /// Further host names that are answered in open mode.
    pub hosts: Vec<String>,
    /// Whether readers without a token get public events once tokens can be verified (N-32).
    pub anonymous: bool,

    /// The dialects of the Mercure protocol spoken at `/.well-known/mercure` (M-401).
    pub mercure_dialects: Dialects,
    /// Largest body of a request there, in bytes.
    pub mercure_body: usize,
    /// Topics of one event published there.
    pub mercure_topics: usize,
    /// `topic` parameters of one subscription there; `match` parameters are bounded by `matchers`.
    pub mercure_selectors: usize,
    /// What a reader there gets whose cursor cannot be honoured (M-407).
    pub mercure_after_gap: AfterGap,
    /// Whether such a reader is told by an event too, besides the response header (M-407).
    pub mercure_gap_event: bool,
    /// Whether events name their topics to subscriptions by `match` (M-130).
    pub mercure_topics_field: bool,
    /// Whether there is a page to subscribe and publish by hand.
    pub mercure_debug: bool,
    /// Whether presence is told: who subscribes on the Mercure path, by events and by an interface to ask (M-97, M-102).
    pub subscriptions: bool,
}

impl Default for Config {
    fn default() -> Self {
        let ms = |ms: u64| Duration::from_millis(ms);
        Config {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            event_data: limits::EVENT_DATA,
            publish_body: limits::PUBLISH_BODY,
            topics_per_event: limits::TOPICS_PER_EVENT,
            matchers: limits::MATCHERS,
            idempotency_window: ms(limits::IDEMPOTENCY_MS),
            idempotency_keys: limits::IDEMPOTENCY_KEYS,
            opaque_ids: None,
            heartbeat: Some(ms(limits::HEARTBEAT_MS)),
            heartbeat_form: HeartbeatForm::Comment,
            retry: (ms(limits::RETRY_RANGE_MS.0.into()), ms(limits::RETRY_RANGE_MS.1.into())),
            max_age: None,
            max_age_spread: AgeSpread::Around,
            stalled_write: ms(limits::STALLED_WRITE_MS),
            lag_bytes: limits::LAG_BYTES,
            lag_events: limits::LAG_EVENTS,
            lag_time: ms(limits::LAG_MS),
            lag_policy: LagPolicy::Disconnect,
            after_gap: AfterGap::Replay,
            end: EndStyle::Clean,
            prime: true,
            prefixes: Vec::new(),
            window_bytes: limits::WINDOW_BYTES,
            window_events: limits::WINDOW_EVENTS,
            connections: None,
            connections_per_address: None,
            trusted_proxies: Vec::new(),
            request_head: limits::REQUEST_HEAD,
            request_time: ms(limits::REQUEST_HEAD_MS),
            keep_alive: ms(limits::KEEP_ALIVE_MS),
            h2_streams: limits::H2_STREAMS,
            drain_spread: ms(limits::DRAIN_SPREAD_MS),
            drain_hard: ms(limits::DRAIN_HARD_MS),
            publish_keys: Vec::new(),
            issuers: Vec::new(),
            resource: None,
            cookie_name: None,
            query_token: false,
            token_cache: limits::TOKEN_CACHE,
            cors_origins: Vec::new(),
            publish_origins: Vec::new(),
            cors_max_age: Duration::from_mins(10),
            cors_headers: Vec::new(),
            public_url: None,
            more_public_urls: Vec::new(),
            listen: None,
            hosts: Vec::new(),
            anonymous: false,
            mercure_dialects: Dialects::Both,
            mercure_body: limits::MERCURE_BODY,
            mercure_topics: limits::TOPICS_PER_EVENT_MAX,
            mercure_selectors: limits::MATCHERS_MAX,
            mercure_after_gap: AfterGap::Live,
            mercure_gap_event: false,
            mercure_topics_field: false,
            mercure_debug: false,
            subscriptions: false,
        }
    }
}

impl Config {
    /// The URL of the hub's Mercure interface as the public knows it: `public_url`, with the well-known path where it has none, else
    /// that of the address it listens on (M-73). It comes from these settings alone, never from a request.
    pub fn hub_url(&self) -> Option<String> {
        let Some(url) = self.public_url.as_deref().map(|url| url.trim_end_matches('/')) else {
            return self.listen.map(|address| format!("http://{address}{HUB_PATH}"));
        };
        Some(if url.ends_with(HUB_PATH) { url.to_owned() } else { format!("{url}{HUB_PATH}") })
    }

    /// What relative URL patterns and topics are relative to (M-32): [`Config::hub_url`], and for an embedded hub that was told neither
    /// of its settings a name that nobody has.
    pub(crate) fn pattern_base(&self) -> String {
        self.hub_url().unwrap_or_else(|| format!("https://hub.invalid{HUB_PATH}"))
    }

    /// Whether nothing proves rights: anybody may publish, and read what is public (N-30).
    pub fn is_open(&self) -> bool {
        self.publish_keys.is_empty() && self.issuers.iter().all(|issuer| issuer.keys.is_empty())
    }

    /// What the claim `aud` of a token must name (M-73).
    pub fn resource_identifier(&self) -> Option<String> {
        self.resource.clone().or_else(|| self.hub_url())
    }
}

/// Where the Mercure interface lies (M-5).
const HUB_PATH: &str = "/.well-known/mercure";

pub use tidings_core::shard::{EndStyle, HeartbeatForm, LagPolicy};

/// A text that is compared and never shown: printing settings must not print keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Secret {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the spread of the maximum age lies, which is [`limits::MAX_AGE_SPREAD_PERCENT`] of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AgeSpread {
    /// To either side of it (N-40).
    Around,
    /// Below it: no stream grows older than that (M-306).
    Below,
}

impl AgeSpread {
    /// The least and the highest age, in the unit of `age`.
    pub(crate) fn range(self, age: u64) -> (u64, u64) {
        let spread = age.saturating_mul(limits::MAX_AGE_SPREAD_PERCENT) / 100;
        (age - spread, if self == AgeSpread::Around { age.saturating_add(spread) } else { age })
    }
}

/// What a reader gets after a gap (N-14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AfterGap {
    /// Every kept event after the place it asked for.
    Replay,
    /// Only what is new.
    Live,
}

/// Which dialects of the Mercure protocol are spoken: 7 with `topic` parameters (0.x), 8 with `match` parameters (1.0). Each is decided
/// parameter by parameter, and neither weakens the other (M-401).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Dialects {
    /// Both at once.
    Both,
    /// Dialect 7 only.
    Seven,
    /// Dialect 8 only.
    Eight,
    /// Neither: nothing is at the path.
    Off,
}

impl Dialects {
    /// Whether dialect 7 is spoken.
    pub fn seven(self) -> bool {
        matches!(self, Dialects::Both | Dialects::Seven)
    }

    /// Whether dialect 8 is spoken.
    pub fn eight(self) -> bool {
        matches!(self, Dialects::Both | Dialects::Eight)
    }
}

/// An exception for the topics below a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PrefixRule {
    /// The prefix, by `/` segments.
    pub prefix: String,
    /// Priming there, if set.
    pub prime: Option<bool>,
    /// The end style there, if set.
    pub end: Option<EndStyle>,
    /// The lag policy there, if set.
    pub lag_policy: Option<LagPolicy>,
    /// The form of heartbeats there, if set.
    pub heartbeat_form: Option<HeartbeatForm>,
    /// Bytes that its events may take in the store, counted by themselves, if set.
    pub retention_bytes: Option<u64>,
    /// Events kept there, counted by themselves, if set.
    pub retention_events: Option<u64>,
    /// Age after which they may be removed, if set.
    pub retention_age: Option<Duration>,
    /// What outlives retention there, if set.
    pub keep: Option<Keep>,
}

/// What outlives retention (Z-30).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The newest event of each canonical topic and event type, until a newer one replaces it. One without data is not kept, and so removes it.
    Latest,
}

impl PrefixRule {
    /// A rule that changes nothing yet.
    pub fn new(prefix: impl Into<String>) -> Self {
        PrefixRule {
            prefix: prefix.into(),
            prime: None,
            end: None,
            lag_policy: None,
            heartbeat_form: None,
            retention_bytes: None,
            retention_events: None,
            retention_age: None,
            keep: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N-40, M-306.
    #[test]
    fn spread_of_ages() {
        assert_eq!(AgeSpread::Around.range(600_000), (480_000, 720_000));
        assert_eq!(AgeSpread::Below.range(600_000), (480_000, 600_000));
        assert_eq!(AgeSpread::Around.range(u64::MAX).1, u64::MAX);
    }
}
