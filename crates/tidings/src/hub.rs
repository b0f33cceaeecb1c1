//! The hub: publish, subscribe, shut down, and the handle that carries rights.
//!
//! It joins the store, the window and the shards. It knows no HTTP, and it never touches a subscriber while it publishes.

mod error;
mod log;
mod once;
mod pages;
mod presence;
mod register;
mod start;
mod subscription;
#[cfg(test)]
mod tests;

use crate::{
    Config, EventBody, EventStore, EventStream, KeyWindow, MemoryStore, Once, StoreError,
    auth::Guard,
    delivery::{Arrival, Clock, Delivery, Ticket},
    telemetry::{Accepted, Counters, Snapshot},
};
use bytes::Bytes;
pub use error::{PublishError, StartError, SubscribeError};
use log::Log;
pub use once::{IdempotencyKey, KeyError};
use register::Register;
pub(crate) use register::{Told, Which};
use start::Start;
use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
pub use subscription::{Cursor, Subscription};
use tidings_core::{
    Event, EventId, FeedKey, Framing, GapReason, Grant, IdForm, Matchers, Position, Record, Topic, TopicMatcher, UrlPatterns, limits,
    shard::{CloseReason, Lag, Millis, MissingEvents, NewSubscriber, ShardConfig},
    wire,
};

/// A running hub. Clones are handles to the same hub; when the last one is gone, so is the hub.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use tidings::{Event, Hub};
/// let hub = Hub::new()?;
/// let id = hub.publish(Event::new("news", "hello")?).await?;
/// assert!(id.as_str().starts_with('#'));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    config: Config,
    ids: IdForm,
    /// What proves rights. It is the hub's because keys that cannot be read are a reason not to start; what it says is only asked by HTTP.
    guard: Guard,
    /// Compiled URL patterns, shared by all who ask for the same.
    patterns: UrlPatterns,
    rules: Vec<(TopicMatcher, crate::PrefixRule)>,
    store: Arc<dyn EventStore>,
    log: Arc<Log>,
    delivery: Delivery,
    clock: Clock,
    counters: Counters,
    spread: Spread,
    draining: AtomicBool,
    /// Who has subscribed, if that is told.
    register: Option<Arc<Register>>,
}

/// Makes a hub.
#[derive(Debug, Default)]
pub struct HubBuilder {
    config: Config,
    store: Option<Arc<dyn EventStore>>,
}

/// An opened stream of wire bytes, and what the response header has to say about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The bytes, from the first comment on.
    pub body: EventBody,
    /// With a cursor, a moment or a count: where the stream really starts, an id or `earliest` (M-91, M-92). `None` for live.
    pub starts_after: Option<String>,
    /// With a cursor that could not be honoured: why (N-14).
    pub gap: Option<GapReason>,
}

/// The hub as seen by a client with certain rights: the only handle that HTTP has.
#[derive(Clone, Debug)]
pub struct Granted {
    hub: Hub,
    grant: Grant,
    /// In which idempotency keys count.
    scope: Cow<'static, str>,
}

/// When a stream ends and why, and when its rights do.
type Ends = (Option<(Millis, CloseReason)>, Option<Millis>);

/// A topic as [`Granted::topic`] reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic.
    pub topic: Topic,
    /// Subscribers who would receive a public event published to it now.
    pub subscribers: u64,
    /// Id of its newest kept event.
    pub last_event_id: Option<EventId>,
}

impl HubBuilder {
    /// Other settings than the defaults.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        HubBuilder { config, ..self }
    }

    /// Another store than a [`MemoryStore`] of the configured window.
    #[must_use]
    pub fn store(self, store: Arc<dyn EventStore>) -> Self {
        HubBuilder { store: Some(store), ..self }
    }

    /// Starts the hub's tasks on the current tokio runtime.
    pub fn build(self) -> Result<Hub, StartError> {
        let HubBuilder { config, store } = self;
        tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let random = |error: getrandom::Error| StartError::NoRandomness(error.to_string());
        let rules = check(&config)?;
        let ids = start::id_form(&config)?;
        let patterns = UrlPatterns::new(&config.pattern_base(), limits::URL_PATTERNS);
        let patterns = patterns.map_err(|error| StartError::Setting { name: "public_url", problem: error.to_string() })?;
        let guard = Guard::new(&config, patterns.clone()).map_err(|(name, problem)| StartError::Setting { name, problem })?;
        let store = match store {
            Some(store) => store,
            None => {
                let keys = KeyWindow { time: config.idempotency_window, keys: config.idempotency_keys };
                let store = MemoryStore::with_prefixes(config.window_bytes, config.window_events, &config.prefixes);
                Arc::new(store.map_err(random)?.key_window(keys))
            }
        };
        let bounds = store.bounds();
        let clock = Clock::start();
        let log = Arc::new(Log::new(bounds.head, &config));
        let mut shard_configs = Vec::new();
        for _ in 0..config.shards {
            shard_configs.push(shard_config(&config, ids, &*store, getrandom::u64().map_err(random)?));
        }
        let read = pages::reading(store.clone());
        let (events, bytes) = log.lead();
        let lag = ((events / limits::SLEEPING_LAG) as u64, (bytes / limits::SLEEPING_LAG) as u64);
        let delivery = Delivery::start(shard_configs, bounds.head, clock, log.clone(), read, lag).map_err(StartError::NoThreads)?;
        let counters = Counters::default();
        let spread = Spread(AtomicU64::new(getrandom::u64().map_err(random)?));
        let draining = AtomicBool::new(false);
        let register = config.subscriptions.then(Arc::<Register>::default);
        let inner = Inner { config, ids, guard, patterns, rules, store, log, delivery, clock, counters, spread, draining, register };
        let hub = Hub(Arc::new(inner));
        hub.follow();
        if let Some(register) = &hub.0.register {
            tokio::spawn(presence::publish(register.clone(), Arc::downgrade(&hub.0), bounds.head));
        }
        Ok(hub)
    }
}

/// Settings that cannot work are refused at the start, by name.
fn check(config: &Config) -> Result<Vec<(TopicMatcher, crate::PrefixRule)>, StartError> {
    let refuse = |name, problem: String| Err(StartError::Setting { name, problem });
    if config.shards == 0 {
        return refuse("shards", "there must be at least one".into());
    }
    if config.event_data > limits::EVENT_DATA_MAX {
        return refuse("event_data", format!("at most {} bytes", limits::EVENT_DATA_MAX));
    }
    if config.topics_per_event > limits::TOPICS_PER_EVENT_MAX {
        return refuse("topics_per_event", format!("at most {}", limits::TOPICS_PER_EVENT_MAX));
    }
    if config.matchers == 0 || config.matchers > limits::MATCHERS_MAX {
        return refuse("matchers", format!("from 1 to {}", limits::MATCHERS_MAX));
    }
    if config.retry.0 > config.retry.1 || config.retry.1.as_millis() > u128::from(limits::RETRY_MS) {
        return refuse("retry", format!("the lower end must not exceed the upper, nor the upper {} ms", limits::RETRY_MS));
    }
    if config.idempotency_keys == 0 || config.idempotency_keys > limits::IDEMPOTENCY_KEYS_MAX {
        return refuse("idempotency_keys", format!("from 1 to {}", limits::IDEMPOTENCY_KEYS_MAX));
    }
    if config.window_events < 4 {
        return refuse("window_events", "at least 4".into());
    }
    let rule = |rule: &crate::PrefixRule| match TopicMatcher::prefix(&rule.prefix) {
        Ok(matcher) => Ok((matcher, rule.clone())),
        Err(error) => Err(StartError::Setting { name: "prefixes", problem: format!("prefix {:?}: {error}", rule.prefix) }),
    };
    let mut rules = config.prefixes.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    // The longest that applies wins.
    rules.sort_by_key(|(_, rule)| std::cmp::Reverse(rule.prefix.len()));
    Ok(rules)
}

fn shard_config(config: &Config, ids: IdForm, store: &dyn EventStore, seed: u64) -> ShardConfig {
    let mut shard = ShardConfig::new(store.bounds().epoch, seed);
    shard.ids = ids;
    shard.window_bytes = config.window_bytes;
    shard.window_events = config.window_events;
    shard.heartbeat_ms = config.heartbeat.map(ms);
    shard.stalled_ms = ms(config.stalled_write);
    shard.retry_ms = retry_ms(config);
    shard.lag =
        (!store.promises().serves_any_lag).then(|| Lag { bytes: config.lag_bytes, events: config.lag_events, ms: ms(config.lag_time) });
    shard
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn retry_ms(config: &Config) -> (u32, u32) {
    (ms(config.retry.0) as u32, ms(config.retry.1) as u32)
}

/// Numbers that spread times, and keep no secret: a reconnect storm asks for two per client, and the system's source is a call each.
#[derive(Debug)]
struct Spread(AtomicU64);

impl Spread {
    fn between(&self, from: u64, to: u64) -> u64 {
        // The generator splitmix64: a counter with an odd step, mixed.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (z ^ (z >> 31)) % (to.saturating_sub(from) + 1)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}

impl Hub {
    /// A hub with the default settings and a store in memory. Must be called inside a tokio runtime.
    pub fn new() -> Result<Hub, StartError> {
        Hub::builder().build()
    }

    /// A hub with settings or a store of one's own.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// The same hub for a client with certain rights.
    pub fn with(&self, grant: Grant) -> Granted {
        Granted { hub: self.clone(), grant, scope: Cow::Borrowed("") }
    }

    /// Publishes one event with full rights. Answered when the store has kept it as firmly as it promises.
    pub async fn publish(&self, event: Event) -> Result<EventId, PublishError> {
        self.with(Grant::full()).publish(event).await
    }

    /// Publishes several events as one append, all or none, with full rights.
    pub async fn publish_batch(&self, events: Vec<Event>) -> Result<Vec<EventId>, PublishError> {
        self.with(Grant::full()).publish_batch(events).await
    }

    /// Subscribes inside the process with full rights, private events included.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<EventStream, SubscribeError> {
        self.with(Grant::full()).subscribe(subscription).await
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Its URL patterns, for [`TopicMatcher::url_pattern`].
    pub fn url_patterns(&self) -> &UrlPatterns {
        &self.0.patterns
    }

    /// What proves the rights of its clients.
    pub(crate) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// Whether it takes publishes and subscriptions: false from the beginning of [`Hub::shut_down`].
    pub fn is_ready(&self) -> bool {
        !self.0.draining.load(Ordering::Acquire)
    }

    /// Why the store takes no events now, if it does not; it tries again by itself.
    pub fn store_trouble(&self) -> Option<StoreError> {
        self.0.store.report().refusing
    }

    /// Subscribers now.
    pub fn subscribers(&self) -> u64 {
        self.0.delivery.subscribers()
    }

    /// The metrics as Prometheus text.
    pub fn metrics(&self) -> String {
        let counters = &self.0.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (shards, shard_failures) = self.0.delivery.stats();
        let (kept_events, kept_bytes) = {
            let (events, bytes) = self.0.log.kept();
            (events as u64, bytes as u64)
        };
        let report = self.0.store.report();
        Snapshot {
            subscribers: self.subscribers(),
            events: load(&counters.events),
            event_bytes: load(&counters.event_bytes),
            large_events: load(&counters.large_events),
            refused_publishes: load(&counters.refused_publishes),
            repeated_publishes: load(&counters.repeated_publishes),
            subscriptions: load(&counters.subscriptions),
            broken_cursors: load(&counters.broken_cursors),
            shard_failures,
            kept_events,
            kept_bytes,
            store_bytes: report.bytes,
            store_refusing: report.refusing.is_some().into(),
            store_torn_bytes: report.torn_bytes,
            store_damaged_gaps: report.damaged_gaps,
            store_rewritten: report.rewritten,
            idempotency_keys: report.keys,
            presence: self.0.register.as_ref().map_or((0, 0), |register| register.counts()),
            shards,
            tokens: self.0.guard.counters().clone(),
            token_cache: self.0.guard.remembered() as u64,
        }
        .text()
    }

    /// Refuses what is new, ends all streams spread over `config.drain_spread` or most of `deadline`, whichever is shorter, and breaks
    /// off what is left at the deadline. Never hangs.
    pub async fn shut_down(&self, deadline: Duration) {
        self.0.draining.store(true, Ordering::Release);
        // A hundred reconnects a second disturb nobody, so a few clients need not be spread over the whole time.
        let few = Duration::from_millis(10) * u32::try_from(self.subscribers()).unwrap_or(u32::MAX);
        let spread = self.0.config.drain_spread.min(deadline.mul_f32(0.8)).min(few);
        self.0.delivery.drain(spread, deadline).await;
        if let Some(register) = &self.0.register {
            let flush = Duration::from_millis(limits::PRESENCE_FLUSH_MS);
            if tokio::time::timeout(flush, register.everything_ended()).await.is_err() {
                tracing::warn!("the end of some subscriptions could not be told; the next start tells it");
            }
        }
    }

    /// Makes a shard fail, to see that its clients come back and the others notice nothing.
    #[doc(hidden)]
    pub fn fail_shard(&self, shard: usize) {
        self.0.delivery.fail(shard);
    }

    /// From the store into the window, and the shards are told.
    fn follow(&self) {
        let (log, register) = (self.0.log.clone(), self.0.register.clone());
        // The store is owned by the hub; it must not own the hub.
        let hub = Arc::downgrade(&self.0);
        self.0.store.follow(Box::new(move |records| {
            if let Some(register) = &register {
                register.apply(records);
            }
            log.push(records);
            if let Some(hub) = hub.upgrade() {
                hub.delivery.wake(records);
            }
        }));
    }

    fn rule(&self, matchers: &Matchers) -> Option<&crate::PrefixRule> {
        let applies = |(prefix, _): &&(TopicMatcher, _)| matchers.as_slice().iter().any(|matcher| prefix.covers(matcher));
        self.0.rules.iter().find(applies).map(|(_, rule)| rule)
    }
}

impl Granted {
    /// The hub behind.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The rights.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The most events and bytes, as they are kept, that one append may hold.
    pub(crate) fn batch_limit(&self) -> (usize, usize) {
        self.hub.0.log.lead()
    }

    /// Publishes one event.
    pub async fn publish(&self, event: Event) -> Result<EventId, PublishError> {
        let ids = self.publish_as(vec![event.sharing(self.hub.known_topics())], None).await?;
        ids.into_iter().next().ok_or(PublishError::Store(StoreError::Unavailable("the store gave no id".into())))
    }

    /// Publishes several as one append: all or none.
    pub async fn publish_batch(&self, events: Vec<Event>) -> Result<Vec<EventId>, PublishError> {
        self.publish_as(events.into_iter().map(|event| event.sharing(self.hub.known_topics())).collect(), None).await
    }

    pub(crate) async fn publish_as<D: AsRef<str>>(
        &self,
        events: Vec<Event<D>>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<EventId>, PublishError> {
        let result = self.append(events, key).await;
        if result.is_err() {
            self.hub.0.counters.refused_publishes.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn append<D: AsRef<str>>(&self, events: Vec<Event<D>>, key: Option<&IdempotencyKey>) -> Result<Vec<EventId>, PublishError> {
        let inner = &*self.hub.0;
        let limit = inner.config.event_data;
        let (mut granted, mut accepted) = (None, Accepted::default());
        for event in &events {
            // What the event before was allowed needs no second look.
            if !granted.is_some_and(|before| event.has_topics_of(before))
                && let Some(topic) = event.topics().iter().find(|topic| !self.grant.may_publish(std::slice::from_ref(topic)))
            {
                return Err(PublishError::Forbidden(topic.clone()));
            }
            granted = Some(event);
            accepted.add(event.data().len());
            if event.data().len() > limit {
                return Err(PublishError::DataTooLong { len: event.data().len(), limit });
            }
        }
        if !self.hub.is_ready() {
            return Err(PublishError::ShuttingDown);
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (max_events, max_bytes) = inner.log.lead();
        let key = key.map(|key| key.digest(&self.scope, &events));
        let drafts = Record::drafts(events).with_ids(inner.ids);
        let (count, cost) = (drafts.len(), drafts.cost());
        if count > 1 && (count > max_events || cost > max_bytes) {
            return Err(PublishError::BatchTooLarge { events: max_events, bytes: max_bytes });
        }
        let reserved = inner.log.admit(count, cost, || inner.delivery.slowest(), || inner.delivery.wake_all()).await?;
        let kept = match key {
            None => Once::Kept(inner.store.append(drafts, unix_ms()).await?),
            Some(key) => inner.store.append_once(drafts, key, unix_ms()).await?,
        };
        drop(reserved);
        match kept {
            Once::Kept(ids) => {
                inner.counters.accepted(&accepted);
                Ok(ids)
            }
            Once::Before(ids) => {
                inner.counters.repeated_publishes.fetch_add(1, Ordering::Relaxed);
                Ok(ids)
            }
            Once::Other => Err(PublishError::KeyReused),
        }
    }

    /// Opens a stream of wire bytes, as HTTP/2, HTTP/1.0 and HTTP libraries send them (without chunks).
    pub async fn open(&self, subscription: Subscription) -> Result<Opened, SubscribeError> {
        let (arrival, starts_after, gap) = self.prepare(subscription).await?;
        let body = self.hub.0.delivery.open(arrival).await.ok_or(SubscribeError::ShuttingDown)?;
        Ok(Opened { body, starts_after, gap })
    }

    /// The same for a response whose connection the server may take over: with the ticket for that.
    pub(crate) async fn open_detachable(&self, subscription: Subscription) -> Result<(Opened, Ticket), SubscribeError> {
        let (arrival, starts_after, gap) = self.prepare(subscription).await?;
        let (body, ticket) = self.hub.0.delivery.prepare(arrival);
        Ok((Opened { body, starts_after, gap }, ticket))
    }

    /// What the header of a response says of where a subscription would start, and why not where it asks to. Nothing is opened or counted.
    pub(crate) async fn would_start(&self, subscription: &Subscription) -> Result<(Option<String>, Option<GapReason>), SubscribeError> {
        let inner = &*self.hub.0;
        self.ends(inner.clock.now())?;
        let after_gap = subscription.after_gap.unwrap_or(inner.config.after_gap);
        let start = start::start(&subscription.cursor, inner.at(&subscription.filter(&self.grant), after_gap)).await?;
        Ok((start.header, start.gap.map(|gap| gap.reason)))
    }

    /// A subscriber, what a response header says of where it starts, and why it does not start where it asked to.
    async fn prepare(&self, subscription: Subscription) -> Result<(Arrival, Option<String>, Option<GapReason>), SubscribeError> {
        let inner = &*self.hub.0;
        let config = &inner.config;
        let now = inner.clock.now();
        let (ends, expires_at) = self.ends(now)?;
        if !self.hub.is_ready() {
            return Err(SubscribeError::ShuttingDown);
        }
        let rule = self.hub.rule(&subscription.matchers).or_else(|| self.hub.rule(&subscription.older));
        let prime = subscription.prime.or(rule.and_then(|rule| rule.prime)).unwrap_or(config.prime);
        let filter = Arc::new(subscription.filter(&self.grant));
        let after_gap = subscription.after_gap.unwrap_or(config.after_gap);
        let start = start::start(&subscription.cursor, inner.at(&filter, after_gap)).await?;
        let Start { after, latest_until, known, gap, header, unprimed } = start;
        if gap.is_some() {
            inner.counters.broken_cursors.fetch_add(1, Ordering::Relaxed);
        }
        let place = inner.ids.id(Position { epoch: inner.store.bounds().epoch, sequence: after });
        let (from, to) = retry_ms(config);
        let retry = inner.spread.between(from.into(), to.into()) as u32;
        let opening = wire::opening(retry, (prime && unprimed).then_some(place));
        let feed = FeedKey { filter, framing: Framing::Plain, topics_field: subscription.topics_field };
        let mut new = NewSubscriber::new(feed, after, Bytes::from(opening));
        (new.latest_until, new.known) = (latest_until, known);
        let reason = gap.as_ref().map(|gap| gap.reason);
        if subscription.gap_event {
            new.gap = gap;
        } else {
            let told = reason.is_some() || header.as_deref() == Some("earliest");
            new.missing = if told { MissingEvents::Skip } else { MissingEvents::End };
        }
        new.prime = prime;
        new.end = subscription.end.or(rule.and_then(|rule| rule.end)).unwrap_or(config.end);
        new.lag_policy = subscription.lag_policy.or(rule.and_then(|rule| rule.lag_policy)).unwrap_or(config.lag_policy);
        new.heartbeat = subscription.heartbeat_form.or(rule.and_then(|rule| rule.heartbeat_form)).unwrap_or(config.heartbeat_form);
        new.ends = ends;
        new.expires_at = expires_at;
        let mut arrival = Arrival::from(new);
        arrival.guest = inner.guest(subscription.told)?;
        inner.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok((arrival, header, reason))
    }

    /// Opens a stream of events.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<EventStream, SubscribeError> {
        let opened = self.open(Subscription { topics_field: true, ..subscription }).await?;
        Ok(EventStream::new(opened.body))
    }

    /// What is known of a topic (N-20).
    pub async fn topic(&self, topic: &Topic) -> Result<TopicInfo, StoreError> {
        let last_event_id = self.hub.0.store.newest(topic).await?;
        let subscribers = self.hub.0.delivery.count(std::slice::from_ref(topic)).await[0];
        Ok(TopicInfo { topic: topic.clone(), subscribers, last_event_id })
    }

    /// The topics of kept events in byte order, after `after`, at most `limit` (N-20).
    pub async fn topics(&self, after: Option<&str>, limit: usize) -> Result<Vec<TopicInfo>, StoreError> {
        let found = self.hub.0.topics(after, limit).await?;
        let topics: Vec<Topic> = found.iter().map(|(topic, _)| topic.clone()).collect();
        let counts = self.hub.0.delivery.count(&topics).await;
        let info = |((topic, id), subscribers)| TopicInfo { topic, subscribers, last_event_id: Some(id) };
        Ok(found.into_iter().zip(counts).map(info).collect())
    }

    /// When a stream opened now ends, at its maximum age or before its rights do, and when those do.
    fn ends(&self, now: Millis) -> Result<Ends, SubscribeError> {
        let age = self.hub.0.config.max_age.map(|age| {
            let (from, to) = self.hub.0.config.max_age_spread.range(ms(age));
            (now.plus(self.hub.0.spread.between(from, to)), CloseReason::Age)
        });
        let Some(expires_at) = self.grant.expires_at else { return Ok((age, None)) };
        let left = expires_at.checked_sub(unix_ms()).filter(|&left| left > 0).ok_or(SubscribeError::Expired)?;
        let expiry = now.plus(left);
        Ok((age.filter(|(at, _)| *at < expiry).or(Some((expiry, CloseReason::Expired))), Some(expiry)))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(register) = &self.register {
            register.close();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("store", &self.0.store).field("delivery", &self.0.delivery).finish_non_exhaustive()
    }
}
