//! Who may do what: what a request presents becomes rights, or a refusal that says by which rule.
//!
//! It knows the values of fields, keys and tokens, not requests or responses; what a refusal looks like is decided in `http/problem.rs`.
//!
//! A request is asked for one role at a time. A key verifies tokens for the roles it was configured for and no other (M-70), so what is
//! granted to a publisher opens no stream, and the other way round.

mod cache;
mod claims;
mod details;
mod error;
mod explain;
mod issuers;
mod jws;
mod key;
mod key_set;
mod matchers;
mod presented;
mod publish_keys;
mod sign;
mod strict;
#[cfg(test)]
mod tests;

use crate::{Config, telemetry::TokenCounters};
use cache::Cache;
pub(crate) use error::{AuthError, Class, Reason};
pub use explain::{Explanation, Finding, Question, explain};
use issuers::{Issuers, Outcome};
use jws::Unverified;
use presented::Places;
pub(crate) use presented::{Door, Presented, Source};
use publish_keys::Keys;
pub use sign::{SigningKey, decode};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use tidings_core::{Grant, Matchers, UrlPatterns, limits};

/// The two generations of the Mercure protocol, as far as tokens differ (M-402).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Dialect {
    /// 0.x: the claim `mercure`; every refusal is 401.
    Seven,
    /// 1.0: `typ` `at+jwt` and `authorization_details`; refusals by RFC 6750.
    Eight,
}

/// What a request wants to do. Reading the presence interface is subscribing (M-103), and so is anything that only reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Publish,
    Subscribe,
}

/// The rights of a request in one role, and what is known of who has them.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// What may be published or received. `publish` is empty in the role of a subscriber, `read_private` in that of a publisher.
    pub(crate) grant: Grant,
    /// Where the token or key stood; `None` without one.
    pub(crate) source: Option<Source>,
    token: Option<Arc<Verified>>,
}

/// What a verified token says; shared by all who present it.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) dialect: Dialect,
    pub(crate) grant: Grant,
    pub(crate) payloads: Payloads,
    pub(crate) issuer: Option<Box<str>>,
    pub(crate) subject: Option<Box<str>>,
    /// Milliseconds since 1970.
    pub(crate) not_before: u64,
}

/// What presence shows of a subscriber, as JSON (M-84, M-210).
#[derive(Debug, Default)]
pub(crate) enum Payloads {
    #[default]
    None,
    /// For all subscriptions (M-210).
    All(Arc<str>),
    /// By entry of `authorization_details`, in their order; the first whose matchers accept the subscription decides (M-84).
    ByEntry(Vec<(Matchers, Option<Arc<str>>)>),
}

/// Everything that can prove rights, made ready. One for each hub.
#[derive(Debug)]
pub(crate) struct Guard {
    keys: Keys,
    places: Places,
    issuers: Issuers,
    resource: Option<String>,
    patterns: UrlPatterns,
    anonymous: bool,
    cache: Arc<Cache>,
    counters: Arc<TokenCounters>,
}

/// A setting that cannot be used: its name, and what is wrong and would be right.
pub(crate) type BadSetting = (&'static str, String);

impl Guard {
    /// Reads the keys. What is wrong with one is a reason not to start (M-70). Sets of keys begin to be fetched, if there is a runtime.
    /// `patterns` is where the hub keeps its URL patterns.
    pub(crate) fn new(config: &Config, patterns: UrlPatterns) -> Result<Guard, BadSetting> {
        let counters = Arc::new(TokenCounters::default());
        let issuers = Issuers::new(&config.issuers, &counters)?;
        let resource = config.resource_identifier();
        if resource.is_none() && config.issuers.iter().any(|issuer| issuer.id.is_some()) {
            return Err((
                "public_url",
                "tokens are for one hub, so it must know its own name: set the URL under which the public reaches it, or `resource`".into(),
            ));
        }
        let cache = Arc::new(Cache::new(config.token_cache));
        for set in issuers.fetched() {
            let cache = cache.clone();
            set.on_change(Box::new(move || cache.clear()));
            set.refresh(unix_ms());
        }
        let (keys, places) = (Keys::new(&config.publish_keys), Places::new(config));
        Ok(Guard { keys, places, issuers, resource, patterns, anonymous: config.anonymous, cache, counters })
    }

    /// Whether nothing is configured: anybody may publish, and read what is public (N-30).
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_empty() && self.issuers.is_empty()
    }

    /// Whether tokens can be verified for a role.
    pub(crate) fn verifies(&self, role: Role) -> bool {
        self.issuers.serve(role)
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> &Arc<TokenCounters> {
        &self.counters
    }

    /// Tokens that are remembered now (M-412).
    pub(crate) fn remembered(&self) -> usize {
        self.cache.len()
    }

    /// The rights of a request in a role, now.
    pub(crate) async fn access(&self, role: Role, presented: &Presented<'_>) -> Result<Access, AuthError> {
        self.access_at(role, presented, unix_ms()).await
    }

    /// The same at a time in milliseconds since 1970.
    pub(crate) async fn access_at(&self, role: Role, presented: &Presented<'_>, now: u64) -> Result<Access, AuthError> {
        let access = self.decide(role, presented, now).await;
        if access.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        access
    }

    async fn decide(&self, role: Role, presented: &Presented<'_>, now: u64) -> Result<Access, AuthError> {
        if self.is_open() {
            return self.open(role, presented);
        }
        match self.places.choose(presented)? {
            Some((source, token)) => self.by_token(role, presented, source, token, now).await,
            None => self.without_token(role).map_err(AuthError::from),
        }
    }

    /// Open access. A stray token does not matter, but on the Mercure path one that is meant to open private events cannot (M-341).
    fn open(&self, role: Role, presented: &Presented<'_>) -> Result<Access, AuthError> {
        if role == Role::Subscribe && presented.door == Door::Mercure && self.places.choose(presented)?.is_some() {
            return Err(Reason::NoSubscribers.into());
        }
        Ok(Access::new(Grant::open()))
    }

    /// M-53, M-54, N-32: publishing always needs something; reading only where readers' tokens can be verified, and anonymous ones are off.
    fn without_token(&self, role: Role) -> Result<Access, Reason> {
        match role {
            Role::Publish if self.keys.is_empty() && !self.issuers.serve(Role::Publish) => Err(Reason::NoPublishers),
            Role::Publish => Err(Reason::NoToken),
            Role::Subscribe if self.issuers.serve(Role::Subscribe) && !self.anonymous => Err(Reason::NoToken),
            Role::Subscribe => Ok(Access::new(Grant::reader())),
        }
    }

    async fn by_token(&self, role: Role, presented: &Presented<'_>, source: Source, token: &[u8], now: u64) -> Result<Access, AuthError> {
        if self.keys.contains(token) {
            let grant = match role {
                Role::Publish => Grant::open(),
                Role::Subscribe if self.issuers.serve(Role::Subscribe) => return Err(Reason::KeyForPublishers.into()),
                Role::Subscribe => Grant::reader(),
            };
            return Ok(Access { source: Some(source), ..Access::new(grant) });
        }
        if source == Source::Header && presented::too_short(presented) {
            return Err(Reason::TooShort.into());
        }
        if self.issuers.is_empty() {
            return Err(Reason::UnknownKey.into());
        }
        let verified = match self.cache.find(token, role, now) {
            Ok(known) => {
                self.counters.remembered.fetch_add(1, Ordering::Relaxed);
                known
            }
            Err(ticket) => {
                let verified = Arc::new(self.verify(role, token, now).await?);
                self.cache.keep(ticket, &verified, now);
                verified
            }
        };
        Ok(Access { grant: verified.grant.clone(), source: Some(source), token: Some(verified) })
    }

    async fn verify(&self, role: Role, token: &[u8], now: u64) -> Result<Verified, AuthError> {
        let token = jws::parse(token).map_err(|(reason, dialect)| AuthError::new(reason, dialect))?;
        let dialect = token.header.dialect;
        self.verify_parsed(role, &token, now).await.map_err(|reason| AuthError::new(reason, Some(dialect)))
    }

    async fn verify_parsed(&self, role: Role, token: &Unverified<'_>, now: u64) -> Result<Verified, Reason> {
        if !self.issuers.serve(role) {
            return Err(if role == Role::Publish { Reason::NoKey } else { Reason::NoSubscribers });
        }
        let iss = claims::text(&token.claims, "iss")?;
        let issuer = match self.signature(role, token, iss, now)? {
            Outcome::Holds(issuer) => issuer,
            Outcome::Fails(reason, stale) => {
                // The issuer may have a new key.
                let mut fetched = false;
                for set in stale {
                    fetched |= set.ask(now).await;
                }
                let again = if fetched { self.signature(role, token, iss, now)? } else { Outcome::Fails(reason, Vec::new()) };
                match again {
                    Outcome::Holds(issuer) => issuer,
                    Outcome::Fails(reason, _) => return Err(reason),
                }
            }
        };
        let setting = claims::Setting { role, resource: self.resource.as_deref(), patterns: &self.patterns, now };
        let check = || claims::check(&token.claims, token.header.dialect, issuer, setting);
        check().or_else(|reason| {
            // Tokens that are only remembered must not keep others from having patterns of their own.
            if self.patterns.len() < limits::URL_PATTERNS || self.cache.len() == 0 {
                return Err(reason);
            }
            self.cache.clear();
            check()
        })
    }

    fn signature(&self, role: Role, token: &Unverified<'_>, iss: Option<&str>, now: u64) -> Result<Outcome<'_>, Reason> {
        self.counters.verified.fetch_add(1, Ordering::Relaxed);
        self.issuers.verify(token, role, iss, now)
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

impl Access {
    fn new(grant: Grant) -> Self {
        Access { grant, source: None, token: None }
    }

    /// The dialect of the token; `None` without one, and with a publish key.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        self.token.as_ref().map(|token| token.dialect)
    }

    /// The claim `iss`.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.token.as_ref()?.issuer.as_deref()
    }

    /// The claim `sub`.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.token.as_ref()?.subject.as_deref()
    }

    /// The payload of a subscription with this matcher, as it was written: compact JSON (M-84, M-210).
    pub(crate) fn payload(&self, matcher: &str) -> Option<&Arc<str>> {
        match &self.token.as_ref()?.payloads {
            Payloads::None => None,
            Payloads::All(payload) => Some(payload),
            Payloads::ByEntry(entries) => entries.iter().find(|(matchers, _)| matchers.matches_name(matcher))?.1.as_ref(),
        }
    }

    /// The refusal for a request that these rights do not cover (M-50, M-62).
    pub(crate) fn insufficient(&self) -> AuthError {
        AuthError::new(Reason::NotGranted, self.dialect())
    }
}
