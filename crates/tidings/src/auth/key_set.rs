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

#[cfg(all(test, feature = "jwks"))]
mod tests {
    use super::*;
    use crate::fetch::server::{Server, ok};
    use std::sync::atomic::AtomicUsize;

    const NOW: u64 = 1_800_000_000_000;

    /// A set with Ed25519 keys of these names; the points are those of RFC 8037 and RFC 8032.
    fn set(names: &[&str]) -> String {
        let points = ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"];
        let keys =
            names.iter().zip(points).map(|(name, x)| format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"{name}","x":"{x}"}}"#));
        format!(r#"{{"keys":[{}]}}"#, keys.collect::<Vec<_>>().join(","))
    }

    async fn start(answers: &[String]) -> (Server, Arc<KeySet>, Arc<TokenCounters>) {
        let server = Server::start(answers).await;
        let counters = Arc::new(TokenCounters::default());
        let keys = KeySet::new(&server.url("/keys"), false, Vec::new(), counters.clone()).unwrap();
        (server, keys, counters)
    }

    fn names(keys: &[VerifyingKey]) -> Vec<&'static str> {
        ["a", "b"].into_iter().filter(|name| keys.iter().any(|key| key.is_named(name))).collect()
    }

    /// M-411: many who ask at once are one fetch, and after it nobody fetches again for a minute.
    #[tokio::test]
    async fn one_fetch_for_all() {
        let (server, set, _) = start(&[ok("", &set(&["a"]))]).await;
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let set = set.clone();
                tokio::spawn(async move { set.ask(NOW).await })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!((server.served(), names(&set.keys(NOW))), (1, vec!["a"]));
        assert!(!set.ask(NOW + limits::KEY_SET_ASK_MS - 1).await);
        assert_eq!(server.served(), 1);
        assert!(set.ask(NOW + limits::KEY_SET_ASK_MS).await);
        assert_eq!(server.served(), 2);
    }

    /// M-411: a new key comes when it is asked for; whoever remembers tokens is told, and only then.
    #[tokio::test]
    async fn keys_change() {
        let (server, keys, counters) = start(&[ok("", &set(&["a"]))]).await;
        let changes = Arc::new(AtomicUsize::new(0));
        let count = changes.clone();
        keys.on_change(Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed)));
        assert!(keys.ask(NOW).await);
        assert!(keys.ask(NOW + 60_000).await);
        assert_eq!(changes.load(Ordering::Relaxed), 1, "the same keys again are no change");
        server.answer(ok("", &set(&["a", "b"])));
        assert!(keys.ask(NOW + 120_000).await);
        assert_eq!((changes.load(Ordering::Relaxed), names(&keys.keys(NOW + 120_000))), (2, vec!["a", "b"]));
        server.answer(ok("", &set(&["b"])));
        assert!(keys.ask(NOW + 180_000).await);
        assert_eq!(names(&keys.keys(NOW + 180_000)), ["b"], "a key that was taken away verifies nothing any more");
        assert_eq!(counters.key_set_failures.load(Ordering::Relaxed), 0);
    }

    /// M-411: when it cannot be fetched, the old set serves for a day more, and what comes must be a set.
    #[tokio::test]
    async fn failures() {
        let (server, keys, counters) = start(&["HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".into()]).await;
        assert!(!keys.ask(NOW).await && keys.keys(NOW).is_empty());
        assert!(!keys.ask(NOW + 1).await);
        assert_eq!(server.served(), 1, "it is not asked without a pause");
        server.answer(ok("Cache-Control: max-age=3600\r\n", &set(&["a"])));
        assert!(keys.ask(NOW + limits::KEY_SET_RETRY_MS).await);
        let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0","kid":"a"}]}"#;
        let many = format!(r#"{{"keys":[{}]}}"#, vec![r#"{"kty":"x"}"#; limits::KEY_SET_KEYS + 1].join(","));
        let huge = " ".repeat(limits::KEY_SET_BYTES + 1);
        for (n, body) in ["", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, secret, &many, &huge].into_iter().enumerate() {
            server.answer(ok("", body));
            assert!(!keys.ask(NOW + (n as u64 + 2) * limits::KEY_SET_ASK_MS).await, "{body:.60}");
            assert_eq!(counters.key_set_failures.load(Ordering::Relaxed), n as u64 + 2);
        }
        let fresh_until = NOW + limits::KEY_SET_RETRY_MS + 3_600_000;
        assert_eq!(names(&keys.keys(fresh_until + limits::KEY_SET_STALE_MS - 1)), ["a"]);
        assert!(keys.keys(fresh_until + limits::KEY_SET_STALE_MS).is_empty());
    }

    /// M-411: what the server says about how long it is good for counts between five minutes and a day.
    #[tokio::test]
    async fn how_long_it_is_fresh() {
        for (fields, fresh_ms) in [
            ("", 300_000),
            ("Cache-Control: no-store\r\n", 300_000),
            ("Cache-Control: max-age=3600\r\n", 3_600_000),
            ("Cache-Control: max-age=31536000\r\n", 86_400_000),
        ] {
            let (server, keys, _) = start(&[ok(fields, &set(&["a"]))]).await;
            assert!(keys.ask(NOW).await);
            assert_eq!(keys.lock().fresh_until, NOW + fresh_ms, "{fields}");
            assert_eq!(names(&keys.keys(NOW + fresh_ms - 1)), ["a"]);
            assert_eq!(server.served(), 1);
            // The old keys serve while new ones are on their way.
            server.answer(ok("", &set(&["b"])));
            assert_eq!(names(&keys.keys(NOW + fresh_ms)), ["a"]);
            wait_until(|| server.served() == 2 && names(&keys.keys(NOW + fresh_ms)) == ["b"]).await;
        }
    }

    async fn wait_until(condition: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it did not come about within ten seconds");
    }
}
