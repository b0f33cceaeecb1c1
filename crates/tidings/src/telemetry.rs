//! What a hub counts, as Prometheus text. A leaf: it is told numbers and knows nobody.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidings_core::{
    GapReason, limits,
    shard::{CloseReason, ShardStats},
};

/// Counted where events come in.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events: AtomicU64,
    pub(crate) event_bytes: AtomicU64,
    pub(crate) large_events: AtomicU64,
    pub(crate) refused_publishes: AtomicU64,
    /// Publishes that were answered with the ids of an earlier one (N-6).
    pub(crate) repeated_publishes: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
    /// Gaps announced before the first byte are counted by the shards too; these are the cursors that could not be honoured.
    pub(crate) broken_cursors: AtomicU64,
}

impl Counters {
    /// What an append accepted.
    pub(crate) fn accepted(&self, accepted: &Accepted) {
        self.events.fetch_add(accepted.events, Ordering::Relaxed);
        self.event_bytes.fetch_add(accepted.bytes, Ordering::Relaxed);
        if accepted.large > 0 {
            self.large_events.fetch_add(accepted.large, Ordering::Relaxed);
        }
    }
}

/// Counted where tokens are verified.
#[derive(Debug, Default)]
pub(crate) struct TokenCounters {
    /// Signatures that were checked.
    pub(crate) verified: AtomicU64,
    /// Tokens that needed no check, because they were known (M-412).
    pub(crate) remembered: AtomicU64,
    /// Requests refused for their token or the want of one.
    pub(crate) refused: AtomicU64,
    /// Attempts to fetch a JWK Set, and those that failed (M-411).
    pub(crate) key_set_fetches: AtomicU64,
    pub(crate) key_set_failures: AtomicU64,
}

/// The events of one append.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    events: u64,
    bytes: u64,
    large: u64,
}

impl Accepted {
    /// One event with so much data.
    pub(crate) fn add(&mut self, data_len: usize) {
        self.events += 1;
        self.bytes += data_len as u64;
        self.large += u64::from(data_len > limits::EVENT_DATA_LARGE);
    }
}

/// Everything at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) subscribers: u64,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    pub(crate) large_events: u64,
    pub(crate) refused_publishes: u64,
    pub(crate) repeated_publishes: u64,
    pub(crate) subscriptions: u64,
    pub(crate) broken_cursors: u64,
    pub(crate) shard_failures: u64,
    pub(crate) kept_events: u64,
    pub(crate) kept_bytes: u64,
    pub(crate) store_bytes: u64,
    pub(crate) store_refusing: u64,
    pub(crate) store_torn_bytes: u64,
    pub(crate) store_damaged_gaps: u64,
    /// Segments that were rewritten, and bytes written for it.
    pub(crate) store_rewritten: (u64, u64),
    pub(crate) idempotency_keys: u64,
    /// Subscriptions that presence tells of, and changes of them that wait to be published.
    pub(crate) presence: (u64, u64),
    pub(crate) shards: ShardStats,
    pub(crate) tokens: Arc<TokenCounters>,
    pub(crate) token_cache: u64,
}

impl Snapshot {
    /// The text that scrapers read.
    pub(crate) fn text(self) -> String {
        let mut registry = Registry::default();
        // The names that are scraped from other hubs of the Mercure protocol; they count every interface, for there is one log.
        let other = Other { subscribers: self.subscribers, subscriptions: self.subscriptions, events: self.events };
        registry.sub_registry_with_prefix("mercure").register_collector(Box::new(other));
        registry.sub_registry_with_prefix("tidings").register_collector(Box::new(self));
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            ("connections", "Subscribers now", self.subscribers),
            ("window_events", "Events kept in memory", self.kept_events),
            ("window_bytes", "Bytes of events kept in memory", self.kept_bytes),
            ("store_bytes", "Bytes of events kept on disk", self.store_bytes),
            ("store_refusing", "1 while the store takes no events", self.store_refusing),
            ("store_torn_bytes", "Bytes of an unfinished append that were cut off at the start", self.store_torn_bytes),
            ("token_cache", "Verified tokens that are remembered", self.token_cache),
            ("store_damaged_gaps", "Runs of events on disk that are damaged or missing", self.store_damaged_gaps),
            ("idempotency_keys", "Idempotency keys remembered, about 80 bytes of memory each", self.idempotency_keys),
            ("presence_subscriptions", "Subscriptions that presence tells of", self.presence.0),
            ("presence_waiting", "Events about subscriptions that wait to be published", self.presence.1),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = [
            ("events", "Events accepted from publishers", self.events),
            ("event_bytes", "Bytes of data of accepted events", self.event_bytes),
            ("large_events", "Accepted events with more than 64 KiB of data, which many clients cannot read", self.large_events),
            ("publishes_refused", "Publishes refused for want of rights, room or time", self.refused_publishes),
            (
                "publishes_repeated",
                "Publishes that came again with their idempotency key, and were answered with the ids of the first time",
                self.repeated_publishes,
            ),
            ("subscriptions", "Streams opened", self.subscriptions),
            ("broken_cursors", "Streams opened with a cursor that could not be honoured", self.broken_cursors),
            ("deliveries", "Events written to subscribers", self.shards.deliveries),
            ("writes", "Writes to subscribers; under load each carries many events", self.shards.writes),
            ("delivery_bytes", "Bytes written to subscribers", self.shards.bytes),
            ("token_checks", "Tokens whose signature was checked", load(&self.tokens.verified)),
            ("token_cache_hits", "Tokens that were known, and cost no check", load(&self.tokens.remembered)),
            ("token_refusals", "Requests refused for their token, or for want of one", load(&self.tokens.refused)),
            ("key_set_fetches", "Attempts to fetch the JWK Set of an issuer", load(&self.tokens.key_set_fetches)),
            (
                "key_set_failures",
                "Attempts to fetch a JWK Set that failed; the old keys serve on for a day",
                load(&self.tokens.key_set_failures),
            ),
            ("store_rewritten_segments", "Parts of the log rewritten without what retention removed of them", self.store_rewritten.0),
            ("store_rewritten_bytes", "Bytes written for that", self.store_rewritten.1),
            ("shard_failures", "Shards that failed and were rebuilt", self.shard_failures),
        ];
        for (name, help, value) in counters {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let mut closed = encoder.encode_descriptor("closed", "Streams ended, by reason", None, MetricType::Counter)?;
        for reason in CloseReason::ALL {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(self.shards.closed[reason as usize]).encode(closed.encode_family(&labels)?)?;
        }
        let mut gaps = encoder.encode_descriptor("gaps", "Gaps told to subscribers, by reason", None, MetricType::Counter)?;
        for reason in GapReason::ALL {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(self.shards.gaps[reason as usize]).encode(gaps.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Other {
    subscribers: u64,
    subscriptions: u64,
    events: u64,
}

impl Collector for Other {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::try_from(self.subscribers).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor("subscribers_connected", "Subscribers now", None, MetricType::Gauge)?)?;
        for (name, help, value) in [
            ("subscribers", "Subscribers since the start", self.subscriptions),
            ("updates", "Events accepted from publishers", self.events),
        ] {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
