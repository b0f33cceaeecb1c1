//! Tokens that were verified, so that clients who come back all at once cost a hash each and not a signature check (M-412).
//!
//! It knows hashes and times, not what is in a token. Only accepted tokens are kept: refusals would let anybody fill it.
//!
//! There are two generations. When the younger is full it becomes the older, and what was the older goes: what is used stays, for it is
//! taken along into the younger.

use super::{Role, Verified};
use aws_lc_rs::digest;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tidings_core::limits;

/// The SHA-256 of a whole token, and the role it was verified for.
type Key = ([u8; 32], Role);

/// Verified tokens, at most so many and so many bytes of them.
pub(super) struct Cache {
    tokens: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    young: Generation,
    old: Generation,
    /// Counts the times it was emptied, so that what was verified before is not kept after.
    epoch: u64,
}

#[derive(Default)]
struct Generation {
    tokens: HashMap<Key, Entry>,
    bytes: usize,
}

#[derive(Clone)]
struct Entry {
    token: Arc<Verified>,
    /// Milliseconds since 1970.
    until: u64,
    bytes: usize,
}

/// The key of a token, and the state of the cache it was asked with.
pub(super) struct Ticket {
    key: Key,
    bytes: usize,
    epoch: u64,
}

impl Cache {
    pub(super) fn new(tokens: usize) -> Self {
        Cache { tokens, state: Mutex::default() }
    }

    /// What is known of a token, or the ticket to keep it with once it is verified.
    pub(super) fn find(&self, token: &[u8], role: Role, now: u64) -> Result<Arc<Verified>, Ticket> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        let key = (hash, role);
        let mut state = self.lock();
        if let Some(entry) = state.young.tokens.get(&key).filter(|entry| entry.is_valid(now)) {
            return Ok(entry.token.clone());
        }
        if let Some(entry) = state.old.tokens.remove(&key) {
            state.old.bytes -= entry.bytes;
            if entry.is_valid(now) {
                let token = entry.token.clone();
                state.insert(key, entry, self.tokens);
                return Ok(token);
            }
        }
        Err(Ticket { key, bytes: token.len(), epoch: state.epoch })
    }

    /// Keeps a token until it ends, or for a while if it has no end.
    pub(super) fn keep(&self, ticket: Ticket, token: &Arc<Verified>, now: u64) {
        let mut state = self.lock();
        if self.tokens > 0 && ticket.bytes <= limits::TOKEN_CACHE_BYTES / 2 && ticket.epoch == state.epoch {
            let until = token.grant.expires_at.unwrap_or(now.saturating_add(limits::TOKEN_CACHE_MS));
            state.insert(ticket.key, Entry { token: token.clone(), until, bytes: ticket.bytes }, self.tokens);
        }
    }

    /// Forgets all, because keys have changed.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        *state = State { epoch: state.epoch + 1, ..State::default() };
    }

    /// Tokens now.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.young.tokens.len() + state.old.tokens.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here is half-done when something panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, key: Key, entry: Entry, tokens: usize) {
        let full = self.young.tokens.len() >= (tokens / 2).max(1) || self.young.bytes + entry.bytes > limits::TOKEN_CACHE_BYTES / 2;
        if full {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += entry.bytes;
        if let Some(before) = self.young.tokens.insert(key, entry) {
            self.young.bytes -= before.bytes;
        }
    }
}

impl Entry {
    /// A clock that was set back must not make a token valid before its time either.
    fn is_valid(&self, now: u64) -> bool {
        (self.token.not_before..self.until).contains(&now)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("tokens", &self.len()).finish_non_exhaustive()
    }
}
