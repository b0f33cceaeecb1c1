//! Pages: how subscribers that are further back than the shard's ring read from the store, sharing what they read.
//!
//! It knows who waits for which page, not how a page is read.

use super::{CloseReason, Gap, LagPolicy, MissingEvents, Shard, SubscriberId};
use crate::{Filter, GapReason, Record, limits};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

/// A bounded run of records read for somebody who is behind.
#[derive(Debug)]
#[non_exhaustive]
pub struct Page {
    /// Records with sequences after the one asked for, in order. They may contain some that the filter does not want.
    pub records: Vec<Record>,
    /// How far the store looked; advances even when nothing matched. At least the sequence of the last record.
    pub covered_through: u64,
    /// Set when an event that the filter wants, and that came after the place asked for, is no longer there.
    pub lost: Option<GapReason>,
}

impl Page {
    /// A page without loss.
    pub fn new(records: Vec<Record>, covered_through: u64) -> Page {
        Page { records, covered_through, lost: None }
    }
}

/// What was gone when a reader started, in the store's own terms: for each of its retention classes a sequence. Who was told of a gap, or
/// asked for whatever is kept, is not told of it again.
pub type Floors = Arc<[u64]>;

/// The store could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFailed;

/// Names a page request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageId(u64);

/// A page to be read.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// To be given back with the page.
    pub id: PageId,
    /// What is wanted. A page may contain more.
    pub filter: Arc<Filter>,
    /// Read what comes after this sequence,
    pub after: u64,
    /// and nothing beyond this one: it is the shard's tail, so that a page can never overtake the live stream.
    pub up_to: u64,
    /// How it is read.
    pub how: Reading,
}

/// How somebody behind reads. Only those who read alike share pages.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// Only the newest event of each topic and type, where the store keeps those (Z-30).
    pub latest: bool,
    /// What was gone when it started.
    pub known: Option<Floors>,
}

/// The pages of a shard: asked for, being read, and read but still in somebody's hands.
#[derive(Debug, Default)]
pub(super) struct Pages {
    wanted: VecDeque<SubscriberId>,
    entries: BTreeMap<(u32, u64, Reading), Entry>,
    next: u64,
    in_flight: usize,
    /// Of those who waited, how many have left since the lists were cleared.
    left: usize,
}

#[derive(Debug)]
enum Entry {
    Reading { id: PageId, waiting: Vec<SubscriberId> },
    Read(Weak<Page>),
}

impl Pages {
    /// A feed has no subscribers left: whoever gets its number next asks another question.
    pub(super) fn forget_feed(&mut self, feed: u32) {
        let mut rest = self.entries.split_off(&(feed, 0, Reading::default()));
        let mut after = rest.split_off(&(feed + 1, 0, Reading::default()));
        self.entries.append(&mut after);
    }

    /// Drops entries of pages that nobody holds any more.
    fn sweep(&mut self) {
        if self.entries.len() > 4 * limits::PAGES_IN_FLIGHT {
            self.entries.retain(|_, entry| !matches!(entry, Entry::Read(page) if page.strong_count() == 0));
        }
    }
}

impl Shard {
    pub(super) fn want_page(&mut self, id: SubscriberId) {
        let behind = self.behind_of(id);
        if !behind.waits_for_page {
            behind.waits_for_page = true;
            self.pages.wanted.push_back(id);
        }
    }

    /// The next page to be read, while not too many are under way.
    pub fn poll_page_request(&mut self) -> Option<PageRequest> {
        while self.pages.in_flight < limits::PAGES_IN_FLIGHT {
            let subscriber = self.pages.wanted.pop_front()?;
            if !self.is_behind(subscriber) {
                continue;
            }
            let slot = &self.slots[subscriber.index()];
            let behind = &self.behind[slot.behind as usize];
            let how = Reading { latest: slot.cursor < behind.latest_until, known: behind.known.clone() };
            let up_to = if how.latest { behind.latest_until } else { self.ring.head() };
            let (key, after) = ((slot.feed, slot.cursor, how.clone()), slot.cursor);
            match self.pages.entries.get_mut(&key) {
                Some(Entry::Reading { waiting, .. }) => {
                    waiting.push(subscriber);
                    continue;
                }
                Some(Entry::Read(page)) => {
                    if let Some(page) = page.upgrade() {
                        self.hand_over(subscriber, &page);
                        continue;
                    }
                }
                None => {}
            }
            let id = PageId(self.pages.next);
            self.pages.next += 1;
            self.pages.in_flight += 1;
            self.pages.sweep();
            self.pages.entries.insert(key, Entry::Reading { id, waiting: vec![subscriber] });
            return Some(PageRequest { id, filter: self.filter_of(subscriber).clone(), after, up_to, how });
        }
        None
    }

    /// A page was read, or could not be. Every request is answered once, in any order.
    pub fn handle_page(&mut self, id: PageId, page: Result<Page, PageFailed>) {
        self.pages.in_flight -= 1;
        let found = self.pages.entries.iter_mut().find_map(|(key, entry)| match entry {
            Entry::Reading { id: of, waiting } if *of == id => Some((key.clone(), std::mem::take(waiting))),
            _ => None,
        });
        let Some((key, waiting)) = found else { return };
        match page {
            Ok(page) => {
                let page = Arc::new(page);
                self.pages.entries.insert(key, Entry::Read(Arc::downgrade(&page)));
                for subscriber in waiting {
                    self.hand_over(subscriber, &page);
                }
            }
            Err(PageFailed) => {
                self.pages.entries.remove(&key);
                for subscriber in waiting {
                    if self.is_behind(subscriber) {
                        self.force(subscriber, CloseReason::Store);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, id: SubscriberId, page: &Arc<Page>) {
        if !self.is_behind(id) {
            return;
        }
        let slot = &self.slots[id.index()];
        let (cursor, was_live, lag_policy, missing) = (slot.cursor, slot.was_live, slot.lag_policy, slot.missing);
        let ends = was_live && lag_policy == LagPolicy::Disconnect || missing == MissingEvents::End;
        if page.lost.is_some() && ends {
            self.force(id, CloseReason::Lagged);
            return;
        }
        let stands_at = self.config.id_of(cursor);
        let behind = self.behind_of(id);
        behind.waits_for_page = false;
        if let (Some(reason), None, MissingEvents::Tell) = (page.lost, &behind.gap, missing) {
            let reason = if was_live && reason == GapReason::Evicted { GapReason::Lagged } else { reason };
            behind.gap = Some(Gap { requested: stands_at.as_str().into(), reason });
        }
        behind.page = Some((page.clone(), 0));
        self.queue(id);
    }

    /// Whether [`Shard::poll_page_request`] has somebody to look at.
    pub fn wants_page(&self) -> bool {
        !self.pages.wanted.is_empty() && self.pages.in_flight < limits::PAGES_IN_FLIGHT
    }

    /// Somebody left who waited for a page. Such entries are skipped when their turn comes, which with a store that hangs is never: so
    /// now and then all of them are cleared, at a cost that is shared by many.
    pub(super) fn stopped_waiting(&mut self) {
        const MANY: usize = 1_024;
        self.pages.left += 1;
        if self.pages.left < MANY {
            return;
        }
        self.pages.left = 0;
        let Shard { pages, slots, .. } = self;
        let is_there = |id: &SubscriberId| slots.get(id.index()).is_some_and(|slot| slot.generation == id.generation);
        pages.wanted.retain(is_there);
        for entry in pages.entries.values_mut() {
            if let Entry::Reading { waiting, .. } = entry {
                waiting.retain(is_there);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Epoch, Event, FeedKey, Framing, Grant, Matchers, Position, TopicMatcher,
        shard::{Millis, NewSubscriber, Poll, ShardConfig},
    };
    use bytes::Bytes;

    const NOW: Millis = Millis::ZERO;

    fn record(sequence: u64, topic: &str) -> Record {
        let position = Position { epoch: Epoch(1), sequence };
        Record::draft(Event::new(topic, "d").unwrap()).seal(position, 0)
    }

    fn new(topic: &str) -> NewSubscriber {
        let filter = Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::open());
        let feed = FeedKey { filter: Arc::new(filter), framing: Framing::Plain, topics_field: false };
        NewSubscriber::new(feed, 0, Bytes::from_static(b": ok\n"))
    }

    fn written(shard: &mut Shard) -> String {
        let mut text = String::new();
        loop {
            match shard.poll_transmit(NOW) {
                Poll::Transmit(transmit) => {
                    text += std::str::from_utf8(transmit.bytes).unwrap();
                    let taken = transmit.bytes.len();
                    shard.handle_written(taken, NOW);
                }
                Poll::Working => {}
                Poll::Idle => return text,
            }
        }
    }

    /// The last reader of a feed leaves while its page is read, and another feed gets its number: it must not get that page.
    #[test]
    fn a_page_of_a_feed_that_is_gone() {
        let mut config = ShardConfig::new(Epoch(1), 1);
        config.window_events = 1;
        let mut shard = Shard::new(config, 0, NOW);
        shard.handle_batch(&[record(1, "a"), record(2, "b"), record(3, "c")]);

        let gone = shard.subscribe(new("a"), NOW);
        assert_eq!(written(&mut shard), ": ok\n");
        let old = shard.poll_page_request().unwrap();
        shard.handle_closed(gone);
        shard.subscribe(new("b"), NOW);
        assert_eq!(written(&mut shard), ": ok\n");
        let request = shard.poll_page_request().expect("a page of its own");
        assert_eq!((request.after, request.up_to), (0, 3));
        shard.handle_page(old.id, Ok(Page::new(vec![record(1, "a")], 3)));
        assert_eq!(written(&mut shard), "");
        shard.handle_page(request.id, Ok(Page::new(vec![record(2, "b")], 3)));
        assert_eq!(written(&mut shard), "data: d\nid: #00000001-0000000000000002\n\n");
    }

    fn as_page(shard: &mut Shard, of: &PageRequest, sequences: &[u64], covered: u64) {
        let records = sequences.iter().map(|&sequence| record(sequence, "a")).collect();
        shard.handle_page(of.id, Ok(Page::new(records, covered)));
    }

    /// Z-30: the latest first, then everything after the place where the reader began, whoever it shares pages with; and a cursor that
    /// says so in between (N-13a).
    #[test]
    fn the_latest_and_then_everything() {
        let mut shard = Shard::new(ShardConfig::new(Epoch(1), 1), 0, NOW);
        let all: Vec<_> = (1..=9).map(|sequence| record(sequence, "a")).collect();
        shard.handle_batch(&all[..6]);
        let latest = |until: u64| NewSubscriber { latest_until: until, ..new("a") };
        shard.subscribe(latest(6), NOW);
        assert_eq!(written(&mut shard), ": ok\n", "not from the ring, which holds more than the latest");
        let request = shard.poll_page_request().unwrap();
        assert!((request.after, request.up_to, request.how.latest) == (0, 6, true), "{request:?}");
        // Another one comes later, with a later beginning, and waits for the same page.
        shard.handle_batch(&all[6..8]);
        shard.subscribe(latest(4), NOW);
        assert_eq!(written(&mut shard), ": ok\n");
        assert!(shard.poll_page_request().is_none());
        as_page(&mut shard, &request, &[2, 6], 6);
        let event = |sequence: u64| format!("data: d\nid: #00000001-{sequence:016x}\n\n");
        let cursor = |sequence: u64| format!("id: #00000001-{sequence:016x}\n\n");
        let [one, other] =
            [[event(2), event(6), event(7), event(8)].concat(), [event(2), cursor(4), event(5), event(6), event(7), event(8)].concat()];
        let both = written(&mut shard);
        assert_eq!(both.len(), one.len() + other.len());
        assert!(both.contains(&cursor(4)) && both.matches("data").count() == 9, "{both}");
        shard.handle_batch(&all[8..]);
        assert_eq!(written(&mut shard), event(9).repeat(2));
    }

    /// What was gone when a reader began is asked for with its pages, and pages are shared only among those who know the same.
    #[test]
    fn what_is_known_to_be_gone() {
        let mut config = ShardConfig::new(Epoch(1), 1);
        config.window_events = 1;
        let mut shard = Shard::new(config, 0, NOW);
        shard.handle_batch(&[record(1, "a"), record(2, "a"), record(3, "a")]);
        shard.subscribe(NewSubscriber { known: Some([2].into()), ..new("a") }, NOW);
        shard.subscribe(new("a"), NOW);
        assert_eq!(written(&mut shard), ": ok\n".repeat(2));
        let known: Vec<_> = std::iter::from_fn(|| shard.poll_page_request()).map(|request| request.how.known).collect();
        assert_eq!(known, [Some([2].into()), None]);
    }
}
