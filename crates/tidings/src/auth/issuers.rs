//! Which keys may verify a token: those of its issuer, for its role, its dialect and its algorithm (M-69 ... M-71, M-402).
//!
//! It knows whose keys are whose, and asks for new ones (M-411); what the claims say is checked afterwards.

use super::{
    BadSetting, Dialect, Role,
    error::Reason,
    jws::Unverified,
    key::{self, VerifyingKey},
    key_set::KeySet,
};
use crate::{Issuer, KeySource, TokenKey, telemetry::TokenCounters};
use std::{fs, sync::Arc};
use tidings_core::limits;

/// All issuers, with their keys read.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Bound>);

/// The keys of one issuer.
#[derive(Debug)]
struct Bound {
    id: Option<Box<str>>,
    keys: Vec<BoundKeys>,
}

/// Keys that are for the same.
#[derive(Debug)]
struct BoundKeys {
    keys: Keys,
    publish: bool,
    subscribe: bool,
    legacy: bool,
}

#[derive(Debug)]
enum Keys {
    Fixed(Arc<[VerifyingKey]>),
    Fetched(Arc<KeySet>),
}

/// What became of a signature.
pub(super) enum Outcome<'a> {
    /// It holds, with a key of this issuer.
    Holds(Option<&'a str>),
    /// It does not, for this reason; and these sets may by now have the key that it names.
    Fails(Reason, Vec<&'a Arc<KeySet>>),
}

impl BoundKeys {
    fn new(key: &TokenKey, named: bool, counters: &Arc<TokenCounters>) -> Result<Self, String> {
        if !key.publish && !key.subscribe {
            return Err("a key is for publishers, for subscribers, or for both".into());
        }
        if !named && !key.legacy {
            return Err("tokens without legacy claims name their issuer, so this key can verify none; give the issuer an id, or allow legacy claims".into());
        }
        let set = |text: &[u8]| key::jwk_set(text, &key.algorithms);
        let keys = match &key.source {
            KeySource::Text(text) => Keys::Fixed([VerifyingKey::from_text(text.expose(), &key.algorithms, key.kid.as_deref())?].into()),
            KeySource::SetFile(path) => {
                let place = path.display();
                let text = fs::read(path).map_err(|error| format!("the JWK Set {place} cannot be read: {error}"))?;
                Keys::Fixed(set(&text).map_err(|why| format!("the JWK Set {place} cannot be used: {why}"))?.into())
            }
            KeySource::SetUrl { url, insecure } => Keys::Fetched(KeySet::new(url, *insecure, key.algorithms.clone(), counters.clone())?),
        };
        Ok(BoundKeys { keys, publish: key.publish, subscribe: key.subscribe, legacy: key.legacy })
    }

    fn is_for(&self, role: Role, dialect: Dialect) -> bool {
        (if role == Role::Publish { self.publish } else { self.subscribe }) && (dialect == Dialect::Eight || self.legacy)
    }
}

impl Issuers {
    /// Reads every key; what is wrong with one is a reason not to start.
    pub(super) fn new(issuers: &[Issuer], counters: &Arc<TokenCounters>) -> Result<Self, BadSetting> {
        let mut bound: Vec<Bound> = Vec::new();
        for issuer in issuers {
            let name = issuer.id.as_deref().map_or("without an id".to_owned(), |id| format!("{id:?}"));
            if issuer.id.as_deref() == Some("") {
                return Err(("issuers", "the id of an issuer must not be empty; leave it out for tokens that name none".into()));
            }
            if bound.iter().any(|other| other.id.as_deref() == issuer.id.as_deref()) {
                return Err(("issuers", format!("the issuer {name} stands twice; write all its keys below one")));
            }
            let keys = issuer.keys.iter().map(|key| BoundKeys::new(key, issuer.id.is_some(), counters)).collect::<Result<_, _>>();
            let keys = keys.map_err(|why| ("issuers", format!("a key of the issuer {name}: {why}")))?;
            bound.push(Bound { id: issuer.id.as_deref().map(Into::into), keys });
        }
        Ok(Issuers(bound))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|issuer| issuer.keys.is_empty())
    }

    /// Whether any key verifies tokens for a role.
    pub(super) fn serve(&self, role: Role) -> bool {
        let mut keys = self.0.iter().flat_map(|issuer| &issuer.keys);
        keys.any(|key| key.is_for(role, Dialect::Eight))
    }

    /// The sets that have to be fetched.
    pub(super) fn fetched(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        let keys = self.0.iter().flat_map(|issuer| &issuer.keys);
        keys.filter_map(|keys| if let Keys::Fetched(set) = &keys.keys { Some(set) } else { None })
    }

    /// The issuers whose keys may be tried, by the token's own word (M-71). Only a token of dialect 7 may name none, or one that is
    /// unknown here: then it is verified by keys that were marked for such tokens.
    fn of(&self, dialect: Dialect, iss: Option<&str>) -> Result<Vec<&Bound>, Reason> {
        let named = iss.and_then(|iss| self.0.iter().find(|issuer| issuer.id.as_deref() == Some(iss)));
        match (dialect, named) {
            (_, Some(issuer)) => Ok(vec![issuer]),
            (Dialect::Eight, None) if iss.is_none() => Err(Reason::ClaimMissing { claim: "iss" }),
            (Dialect::Eight, None) => Err(Reason::Issuer),
            (Dialect::Seven, None) => Ok(self.0.iter().filter(|issuer| iss.is_none() || issuer.id.is_none()).collect()),
        }
    }

    /// Checks the signature of a token with the keys that may verify it, those of its `kid` first (M-70).
    pub(super) fn verify(&self, token: &Unverified<'_>, role: Role, iss: Option<&str>, now: u64) -> Result<Outcome<'_>, Reason> {
        let (dialect, algorithm) = (token.header.dialect, token.header.algorithm);
        let kid = token.header.kid.as_deref();
        let named = |key: &VerifyingKey| kid.is_some_and(|kid| key.is_named(kid));
        let issuers = self.of(dialect, iss)?;
        let groups: Vec<_> = issuers
            .iter()
            .flat_map(|issuer| issuer.keys.iter().map(|keys| (issuer.id.as_deref(), keys)))
            .filter(|(_, keys)| keys.is_for(role, dialect))
            .collect();
        if groups.is_empty() {
            return Err(if dialect == Dialect::Seven { Reason::NoLegacy } else { Reason::NoKey });
        }
        let (mut candidates, mut stale, mut unfetched) = (Vec::new(), Vec::new(), false);
        for (id, group) in groups {
            let keys = match &group.keys {
                Keys::Fixed(keys) => keys.clone(),
                Keys::Fetched(set) => {
                    let keys = set.keys(now);
                    unfetched |= keys.is_empty();
                    if keys.is_empty() || kid.is_some() && !keys.iter().any(named) {
                        stale.push(set);
                    }
                    keys
                }
            };
            let fitting = (0..keys.len()).filter(|&at| keys[at].fits(algorithm));
            candidates.extend(fitting.map(|at| (!named(&keys[at]), id, keys.clone(), at)));
        }
        candidates.sort_by_key(|(other, ..)| *other);
        let none_fits = candidates.is_empty();
        for (_, id, keys, at) in candidates.into_iter().take(limits::TOKEN_KEYS_TRIED) {
            if keys[at].verify(algorithm, token.signed, &token.signature) {
                return Ok(Outcome::Holds(id));
            }
        }
        let reason = match (unfetched, none_fits) {
            (true, _) => Reason::NoKeySet,
            (false, true) => Reason::Algorithm,
            (false, false) => Reason::Signature,
        };
        Ok(Outcome::Fails(reason, stale))
    }
}
