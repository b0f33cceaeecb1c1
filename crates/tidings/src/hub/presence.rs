//! Presence: what the hub publishes of its own accord about who has subscribed on the Mercure path, and what it answers about it (M-97,
//! M-105 to M-107, M-410).
//!
//! It knows the register and the log, neither requests nor connections.

use super::{
    Granted, Inner, PublishError, SubscribeError,
    register::{Full, Register, Single, Subscriptions, Told, Which},
    unix_ms,
};
use crate::{PageLimits, StoreError, delivery::Guest};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tidings_core::{
    Drafts, EventId, Filter, Grant, Matchers, Position, Topic, TopicMatcher, limits,
    presence::{self, ActiveSubscription, MatchType, Subscriber},
};

/// Between two tries to publish when the store takes no events.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries to read what was open in the log of the process before.
const TRIES: usize = 5;
/// Every topic of the hub's own is before it, and every other that begins so is after it.
const AFTER_OWN: &str = "/.well-known/mercure/\u{10ffff}";

impl Granted {
    /// Active subscriptions, as they were after the event with the id that is returned, or a moment later (M-106, M-107); `None` unless
    /// presence is told.
    pub(crate) fn subscriptions(&self, which: &Which, after: Option<&ActiveSubscription>) -> Option<(Subscriptions, String)> {
        let register = self.hub.0.register.as_ref()?;
        let last = self.hub.0.last_event_id();
        Some((register.list(which, after, limits::PRESENCE_PAGE), last))
    }

    /// The answer about a subscription of nobody.
    pub(crate) fn no_subscription(&self) -> Option<(Option<ActiveSubscription>, String)> {
        self.hub.0.register.as_ref().map(|_| (None, self.hub.0.last_event_id()))
    }

    /// One of them; of those with the same matcher the first, unless its type is named.
    pub(crate) fn subscription(
        &self,
        of: Option<MatchType>,
        matcher: &Arc<str>,
        subscriber: Subscriber,
    ) -> Option<(Option<ActiveSubscription>, String)> {
        let register = self.hub.0.register.as_ref()?;
        let last = self.hub.0.last_event_id();
        Some((register.find(of, matcher, subscriber), last))
    }
}

impl Inner {
    /// The topics of kept events without the hub's own: those are not for publishers to see.
    pub(super) async fn topics(&self, after: Option<&str>, limit: usize) -> Result<Vec<(Topic, EventId)>, StoreError> {
        let is_own = |(topic, _): &(Topic, EventId)| topic.as_str().starts_with(presence::PATH);
        let mut topics = self.store.topics(after, limit).await?;
        if let Some(first) = topics.iter().position(is_own) {
            topics.truncate(first);
            topics.extend(self.store.topics(Some(AFTER_OWN), limit - first).await?);
        }
        Ok(topics)
    }

    /// Who takes note of a subscriber with these subscriptions, if presence is told and there are any.
    pub(super) fn guest(&self, told: Vec<Told>) -> Result<Option<Box<dyn Guest>>, SubscribeError> {
        let Some(register) = self.register.as_ref().filter(|_| !told.is_empty()) else { return Ok(None) };
        // Random, for rights may be granted to see a subscriber by its name.
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let subscriber = Subscriber::from_random(u128::from_ne_bytes(bits));
        register.expect(subscriber, told).map(Some).map_err(|Full| SubscribeError::TooMany)
    }

    /// The id of the newest event, or `earliest` before there is one (M-107).
    pub(super) fn last_event_id(&self) -> String {
        let bounds = self.store.bounds();
        match self.log.newest_id() {
            Some(id) => id.to_string(),
            None if bounds.head == 0 => "earliest".to_owned(),
            None => self.ids.text(Position { epoch: bounds.epoch, sequence: bounds.head }),
        }
    }

    /// Appends events of the hub's own: those need no rights, and are not counted as published (M-326).
    async fn append_own(&self, drafts: Drafts) -> Result<(), PublishError> {
        let drafts = drafts.with_ids(self.ids);
        let _reserved = self.log.admit(drafts.len(), drafts.cost(), || self.delivery.slowest(), || self.delivery.wake_all()).await?;
        self.store.append(drafts, unix_ms()).await?;
        Ok(())
    }
}

/// Publishes the changes, as long as there is a hub; first the ends of those that the log says are active and whose process is gone.
pub(super) async fn publish(register: Arc<Register>, hub: Weak<Inner>, up_to: u64) {
    if let Some(inner) = hub.upgrade() {
        let left = left_open(&inner, up_to).await;
        drop(inner);
        for subscriptions in left {
            register.left_behind(subscriptions);
        }
    }
    let mut complained = false;
    while let Some(changes) = register.next().await {
        let Some(inner) = hub.upgrade() else { return };
        match inner.append_own(changes.iter().map(Single::draft).collect()).await {
            Ok(()) => {
                complained = false;
                register.published(changes.len());
            }
            Err(error) => {
                // They wait; new subscriptions are refused when too many do.
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "events about subscriptions wait until the store takes events again");
                }
                drop(inner);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What the log of an earlier process says is active, by connection (M-410). After a proper end that is nothing.
async fn left_open(hub: &Inner, up_to: u64) -> Vec<Box<[ActiveSubscription]>> {
    let mut tries = 0;
    loop {
        match read_open(hub, up_to).await {
            Ok(left) => return left,
            Err(error) if tries == TRIES => {
                tracing::error!(%error, "which subscriptions a crash has left open could not be read; their end is not told");
                return Vec::new();
            }
            Err(_) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn read_open(hub: &Inner, up_to: u64) -> Result<Vec<Box<[ActiveSubscription]>>, StoreError> {
    let matchers = Matchers::from(TopicMatcher::prefix(presence::PATH).map_err(|error| StoreError::Unavailable(error.to_string()))?);
    let mut grant = Grant::none();
    grant.read_private = matchers.clone();
    let filter = Filter::new(matchers, &grant);
    let mut open: BTreeMap<(Subscriber, u64), ActiveSubscription> = BTreeMap::new();
    let mut begun = BTreeMap::new();
    let mut after = hub.store.bounds().floor;
    while after < up_to {
        let limits = PageLimits { bytes: limits::PAGE_BYTES, events: limits::PAGE_EVENTS, scanned: limits::PAGE_SCAN };
        let page = hub.store.read_after(after, up_to, &filter, limits).await?;
        for record in &page.records {
            let Some((of, active)) = ActiveSubscription::read(record) else { continue };
            let key = (of.subscriber, of.match_type, of.matcher.clone());
            if active {
                begun.insert(key, record.position().sequence);
                open.insert((of.subscriber, record.position().sequence), of);
            } else if let Some(sequence) = begun.remove(&key) {
                open.remove(&(of.subscriber, sequence));
            }
        }
        after = page.covered_through.max(after + 1);
    }
    let open: Vec<((Subscriber, u64), ActiveSubscription)> = open.into_iter().collect();
    let connections = open.chunk_by(|one, next| one.0.0 == next.0.0);
    Ok(connections.map(|same| same.iter().map(|(_, subscription)| subscription.clone()).collect()).collect())
}
