//! Who may do what: what a request presents becomes rights, or a refusal that says by which rule.
//!
//! It knows the values of fields, keys and tokens, not requests or responses; what a refusal looks like is decided in `http/problem.rs`.
//!
//! A request is asked for one role at a time. A key verifies tokens for the roles it was configured for and no other (M-70), so what is
//! granted to a publisher opens no stream, and the other way round.

mod error;
mod presented;
mod publish_keys;

use crate::Config;
pub(crate) use error::{AuthError, Class, Reason};
use presented::Places;
pub(crate) use presented::{Door, Presented, Source};
use publish_keys::Keys;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tidings_core::Grant;

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
}

/// What presence shows of a subscriber, as JSON (M-84, M-210).
#[derive(Debug, Default)]
pub(crate) enum Payloads {
    #[default]
    None,
    /// For all subscriptions (M-210).
    All(Arc<str>),
    /// By entry of `authorization_details`, in their order; the first whose matchers accept the subscription decides (M-84).
    ByEntry(Vec<(tidings_core::Matchers, Option<Arc<str>>)>),
}

/// Everything that can prove rights, made ready. One for each hub.
#[derive(Debug)]
pub(crate) struct Guard {
    keys: Keys,
    places: Places,
}

/// A setting that cannot be used: its name, and what is wrong and would be right.
pub(crate) type BadSetting = (&'static str, String);

impl Guard {
    /// Reads the keys. What is wrong with one is a reason not to start (M-70).
    pub(crate) fn new(config: &Config) -> Result<Guard, BadSetting> {
        Ok(Guard { keys: Keys::new(&config.publish_keys), places: Places::new(config) })
    }

    /// Whether nothing is configured: anybody may publish, and read what is public (N-30).
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// The rights of a request in a role, now.
    pub(crate) async fn access(&self, role: Role, presented: &Presented<'_>) -> Result<Access, AuthError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        self.access_at(role, presented, now).await
    }

    /// The same at a time in milliseconds since 1970.
    #[expect(clippy::unused_async, reason = "a token's issuer may have to be asked for its keys")]
    pub(crate) async fn access_at(&self, role: Role, presented: &Presented<'_>, _now: u64) -> Result<Access, AuthError> {
        if self.is_open() {
            return self.open(role, presented);
        }
        match self.places.choose(presented)? {
            Some((source, token)) => self.by_token(role, presented, source, token),
            None if role == Role::Publish => Err(Reason::NoToken.into()),
            None => Ok(Access::new(Grant::reader())),
        }
    }

    /// Open access. A stray token does not matter, but on the Mercure path one that is meant to open private events cannot (M-341).
    fn open(&self, role: Role, presented: &Presented<'_>) -> Result<Access, AuthError> {
        if role == Role::Subscribe && presented.door == Door::Mercure && self.places.choose(presented)?.is_some() {
            return Err(Reason::NoSubscribers.into());
        }
        Ok(Access::new(Grant::open()))
    }

    fn by_token(&self, role: Role, presented: &Presented<'_>, source: Source, token: &[u8]) -> Result<Access, AuthError> {
        if self.keys.contains(token) {
            let grant = if role == Role::Publish { Grant::open() } else { Grant::reader() };
            return Ok(Access { source: Some(source), ..Access::new(grant) });
        }
        Err(if presented::too_short(presented) { Reason::TooShort } else { Reason::UnknownKey }.into())
    }
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
            Payloads::ByEntry(entries) => {
                // What cannot be a topic is accepted by `*` alone.
                let topic = tidings_core::Topic::stored(matcher);
                entries.iter().find(|(matchers, _)| matchers.matches(&topic))?.1.as_ref()
            }
        }
    }

    /// The refusal for a request that these rights do not cover (M-50, M-62).
    pub(crate) fn insufficient(&self) -> AuthError {
        AuthError::new(Reason::NotGranted, self.dialect())
    }
}
