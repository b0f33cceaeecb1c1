//! A set of keys that an issuer publishes at a URL, kept fresh (M-411).
//!
//! It knows when to fetch and what to keep when that fails; how bytes are fetched is `fetch`'s, what a key is `key`'s. Nothing here waits
//! with a lock held, and whoever asks while a fetch is under way waits for that one.

use super::key::{self, VerifyingKey};
use crate::{
    Algorithm,
    fetch::{self, Target},
    telemetry::TokenCounters,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};
use tidings_core::limits;

/// The keys of one URL.
pub(super) struct KeySet {
    target: Target,
    /// Empty: all asymmetric ones.
    algorithms: Vec<Algorithm>,
    state: Mutex<State>,
    /// Held by whoever fetches.
    flight: tokio::sync::Mutex<()>,
    changed: Mutex<Option<Changed>>,
    counters: Arc<TokenCounters>,
}

/// Called when other keys have come.
type Changed = Box<dyn Fn() + Send + Sync>;

/// Times in milliseconds since 1970.
struct State {
    keys: Arc<[VerifyingKey]>,
    /// The text the keys were read from, to see whether it has changed.
    text: Vec<u8>,
    /// The last time the keys came; 0 before the first.
    fetched_at: u64,
    /// When they are to be fetched again.
    fresh_until: u64,
    /// The last attempt.
    tried_at: u64,
    /// Counts the times they came.
    fetches: u64,
}

impl KeySet {
    /// The set at a URL; it is fetched when it is first needed, or by [`KeySet::refresh`].
    pub(super) fn new(url: &str, insecure: bool, algorithms: Vec<Algorithm>, counters: Arc<TokenCounters>) -> Result<Arc<Self>, String> {
        let target = Target::parse(url, insecure)?;
        let state = State { keys: Arc::default(), text: Vec::new(), fetched_at: 0, fresh_until: 0, tried_at: 0, fetches: 0 };
        Ok(Arc::new(KeySet {
            target,
            algorithms,
            state: Mutex::new(state),
            flight: tokio::sync::Mutex::default(),
            changed: Mutex::default(),
            counters,
        }))
    }

    /// Whom to tell when other keys have come.
    pub(super) fn on_change(&self, changed: Changed) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(changed);
    }

    /// The keys now; none before the first fetch, and none when they could not be fetched again for too long.
    pub(super) fn keys(self: &Arc<Self>, now: u64) -> Arc<[VerifyingKey]> {
        let state = self.lock();
        if now >= state.fresh_until && now >= state.tried_at.saturating_add(limits::KEY_SET_ASK_MS) && state.fetched_at > 0 {
            self.refresh(now);
        }
        let served_until = state.fresh_until.saturating_add(limits::KEY_SET_STALE_MS);
        if now < served_until { state.keys.clone() } else { Arc::default() }
    }

    /// Fetches in the background.
    pub(super) fn refresh(self: &Arc<Self>, now: u64) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let set = self.clone();
            runtime.spawn(async move { set.fetch(now).await });
        }
    }

    /// For a token whose key is not among those that are known: fetches again, unless that was tried a moment ago. Whether it was fetched.
    pub(super) async fn ask(self: &Arc<Self>, now: u64) -> bool {
        let set = self.clone();
        // The fetch goes on when the client who caused it is gone: the next one would have to begin again.
        tokio::spawn(async move { set.fetch(now).await }).await.unwrap_or(false)
    }

    async fn fetch(&self, now: u64) -> bool {
        let before = self.lock().fetches;
        let _flight = self.flight.lock().await;
        {
            let mut state = self.lock();
            if state.fetches != before {
                return true;
            }
            let pause = if state.keys.is_empty() { limits::KEY_SET_RETRY_MS } else { limits::KEY_SET_ASK_MS };
            if state.tried_at > 0 && now < state.tried_at.saturating_add(pause) {
                return false;
            }
            state.tried_at = now;
        }
        let result = match fetch::get(&self.target, limits::KEY_SET_BYTES).await {
            Ok(fetched) => key::jwk_set(&fetched.body, &self.algorithms).map(|keys| (keys, fetched)),
            Err(error) => Err(error),
        };
        self.counters.key_set_fetches.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok((keys, fetched)) => {
                self.take(keys, fetched, now);
                true
            }
            Err(why) => {
                self.counters.key_set_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(url = %self.target, %why, "a JWK Set could not be fetched; the keys that are known serve on for a day");
                false
            }
        }
    }

    fn take(&self, keys: Vec<VerifyingKey>, fetched: fetch::Fetched, now: u64) {
        let (least, most) = limits::KEY_SET_AGE_MS;
        let age = fetched.max_age.map_or(least, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).clamp(least, most);
        let changed = {
            let mut state = self.lock();
            state.fetched_at = now;
            state.fetches += 1;
            state.fresh_until = now.saturating_add(age);
            let changed = state.text != fetched.body;
            if changed {
                state.keys = keys.into();
                state.text = fetched.body;
            }
            changed
        };
        if changed && let Some(tell) = &*self.changed.lock().unwrap_or_else(PoisonError::into_inner) {
            tell();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here is half-done when something panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("target", &self.target).finish_non_exhaustive()
    }
}
