//! The log of the simulation: what was ever published, in plain values, beside a bounded window of it as a memory store keeps one.
//!
//! It answers as a store does (pages, starts) and as a witness (what was published, what is gone). It knows no shard and no reader.

use super::{
    question::{PRESENCE, Question, TOPICS},
    rng::Rng,
};
use std::collections::BTreeMap;
use tidings_core::{
    Draft, Epoch, Event, Evicted, Filter, GapReason, Position, Record, Window, limits,
    presence::{ActiveSubscription, MatchType, Subscriber},
    shard::{Gap, Page, PageRequest},
};

/// How much the log keeps.
#[derive(Clone)]
pub(crate) struct Keeps {
    pub(crate) bytes: usize,
    pub(crate) events: usize,
    /// Audiences remembered of evicted events; few make it forgetful, and then it may tell of gaps out of caution.
    pub(crate) audiences: usize,
}

/// An event as it was published.
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) id: String,
    pub(crate) topics: Vec<&'static str>,
    pub(crate) private: bool,
    pub(crate) event_type: String,
    pub(crate) data: String,
    /// With two views: topic and data of the older one, which has no type.
    older: Option<(&'static str, String)>,
    pub(crate) cost: u64,
    /// A crash undid it: who has it has it, nobody can ask for it.
    pub(crate) undone: bool,
    /// The store failed to read it at least once.
    pub(crate) damaged: bool,
}

impl Entry {
    pub(crate) fn wanted_by(&self, question: &Question) -> bool {
        match &self.older {
            Some((topic, _)) => question.wants_newer(self.topics[0]) || question.wants_older(topic),
            None => question.wants(&self.topics, self.private),
        }
    }

    /// Topics, type and data as a reader gets them who wants it (M-405).
    pub(crate) fn as_read_by(&self, question: &Question) -> (&[&'static str], &str, &str) {
        match &self.older {
            Some((topic, data)) if !question.wants_newer(self.topics[0]) => (std::slice::from_ref(topic), "message", data),
            _ => (&self.topics, &self.event_type, &self.data),
        }
    }
}

/// A cursor as somebody sends it.
pub(crate) enum Cursor {
    Live,
    Earliest,
    After(String),
}

/// Where a stream starts.
pub(crate) struct Start {
    pub(crate) after: u64,
    pub(crate) gap: Option<Gap>,
    /// The place in this log that was asked for: everything kept after it follows,
    pub(crate) from: u64,
    /// but nothing up to here (`after_gap = live`).
    pub(crate) skip_to: u64,
}

/// Bounds of one page.
pub(crate) struct PageBounds {
    pub(crate) events: usize,
    pub(crate) scan: usize,
}

pub(crate) struct Log {
    pub(crate) epoch: Epoch,
    keeps: Keeps,
    window: Window,
    evicted: Evicted,
    entries: Vec<Entry>,
    ids: BTreeMap<String, u64>,
    /// Numbers that a crash made meaningless: after the first, up to and with the second.
    holes: Vec<(u64, u64)>,
    next: u64,
}

impl Log {
    pub(crate) fn new(epoch: Epoch, keeps: Keeps) -> Log {
        Log {
            epoch,
            window: Window::new(0, keeps.bytes, keeps.events),
            evicted: Evicted::new(0, keeps.audiences, usize::MAX),
            keeps,
            entries: Vec::new(),
            ids: BTreeMap::new(),
            holes: Vec::new(),
            next: 1,
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.window.head()
    }

    pub(crate) fn floor(&self) -> u64 {
        self.window.floor()
    }

    pub(crate) fn is_forgetful(&self) -> bool {
        self.keeps.audiences < 100
    }

    pub(crate) fn at(&self, sequence: u64) -> Position {
        Position { epoch: self.epoch, sequence }
    }

    /// Appends a random event of up to `size` bytes, and returns how many left the window for it.
    pub(crate) fn publish(&mut self, rng: &mut Rng, size: u64) -> u64 {
        if rng.chance(1, 8) {
            return self.publish_presence(rng);
        }
        let mut topics = vec![rng.pick(&TOPICS)];
        while rng.chance(1, 4) && topics.len() < 4 {
            let topic = rng.pick(&TOPICS);
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        self.publish_to(rng, topics, size)
    }

    pub(crate) fn publish_to(&mut self, rng: &mut Rng, topics: Vec<&'static str>, size: u64) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let mut data = String::new();
        let size = rng.below(size + 1) as usize;
        while data.len() < size {
            data += rng.pick(&[
                "x",
                "some words ",
                "\n",
                "\r\n",
                "\r",
                "data: ",
                "id: 7\n\n",
                "é",
                ": hb\n",
                "0123456789abcdef0123456789abcdef",
            ]);
        }
        let mut event = Event::new(topics[0], data.clone()).unwrap();
        for topic in &topics[1..] {
            event = event.with_topic(topic).unwrap();
        }
        let event_type = if rng.chance(1, 4) { "news" } else { "message" };
        if event_type != "message" {
            event = event.with_type(event_type).unwrap();
        }
        if rng.chance(1, 10) {
            event = event.with_retry(1234).unwrap();
        }
        let private = rng.chance(1, 4);
        if private {
            event = event.private();
        }
        let mut id = self.at(sequence).to_string();
        if rng.chance(1, 5) {
            id = format!("urn:{:x}:{sequence}", self.epoch.0);
            event = event.with_id(&id).unwrap();
        }
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        let entry = Entry {
            sequence,
            id,
            topics,
            private,
            event_type: event_type.to_owned(),
            data,
            older: None,
            cost: 0,
            undone: false,
            damaged: false,
        };
        self.push(Record::draft(event), entry)
    }

    /// A subscription begins or ends: one event with two views (M-405).
    fn publish_presence(&mut self, rng: &mut Rng) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let (matcher, topic, older) = rng.pick(&PRESENCE);
        let active = rng.chance(1, 2);
        let subscriber = Subscriber::from_random(7);
        let subscription = ActiveSubscription { match_type: MatchType::Exact, matcher: matcher.into(), subscriber, payload: None };
        let of = format!(r#""subscriber":"urn:uuid:00000000-0000-4000-8000-000000000007","active":{active}"#);
        let data = format!(r#"{{"id":"{topic}","type":"subscription","match_type":"exact","match":"{matcher}",{of}}}"#);
        let context = r#""@context":"https://mercure.rocks/""#;
        let older_data = format!(r#"{{{context},"id":"{older}","type":"Subscription","topic":"{matcher}",{of}}}"#);
        let entry = Entry {
            sequence,
            id: self.at(sequence).to_string(),
            topics: vec![topic],
            private: true,
            event_type: "mercure".to_owned(),
            data,
            older: Some((older, older_data)),
            cost: 0,
            undone: false,
            damaged: false,
        };
        self.push(subscription.draft(active), entry)
    }

    fn push(&mut self, draft: Draft, entry: Entry) -> u64 {
        let record = draft.seal(self.at(entry.sequence), 0);
        self.ids.insert(entry.id.clone(), entry.sequence);
        self.entries.push(Entry { cost: record.cost() as u64, ..entry });
        let mut gone = 0;
        self.window.push(record, |record| {
            gone += 1;
            self.evicted.push(&record);
        });
        gone
    }

    /// Whether the slowest shard's place is safe: under half of what is kept lies after it.
    pub(crate) fn has_room_after(&self, slowest: u64) -> bool {
        let events = self.window.events_after(slowest);
        events * 5 < self.keeps.events * 2 && self.window.bytes_after(slowest) < self.keeps.bytes as u64 / 5 * 2
    }

    /// The newest events were not on the disk yet: they are undone, and their numbers and some more are never used again.
    pub(crate) fn crash(&mut self, undo: usize, reserved: u64) {
        let mut kept: Vec<Record> = self.window.after(self.floor()).cloned().collect();
        kept.truncate(kept.len().saturating_sub(undo));
        let floor = self.floor();
        self.window = Window::new(floor, self.keeps.bytes, self.keeps.events);
        for record in kept {
            self.window.push(record, |_| unreachable!("it fitted before"));
        }
        let head = self.head();
        for entry in self.entries.iter_mut().rev().take_while(|entry| entry.sequence > head) {
            entry.undone = true;
        }
        self.next += reserved;
        self.holes.push((head, self.next - 1));
    }

    /// The records after a place, for a shard's next batch.
    pub(crate) fn batch(&self, after: u64, events: usize) -> Vec<Record> {
        self.window.after(after).take(events).cloned().collect()
    }

    pub(crate) fn start(&self, cursor: &Cursor, filter: &Filter, live_after_gap: bool) -> Start {
        let honoured = |after| Start { after, gap: None, from: after, skip_to: 0 };
        let text = match cursor {
            Cursor::Live => return honoured(self.head()),
            Cursor::Earliest => return honoured(self.floor()),
            Cursor::After(text) => text,
        };
        let publishers = self.ids.get(text).filter(|&&sequence| self.window.get(sequence).is_some());
        let place = publishers.map(|&sequence| self.at(sequence)).or_else(|| Position::parse(text));
        let (reason, from, after) = match place {
            None => (GapReason::Unknown, 0, self.floor()),
            Some(at) if at.epoch != self.epoch => (GapReason::Epoch, 0, self.floor()),
            Some(at) => match self.hole_at(at.sequence) {
                Some(before) => (GapReason::Lost, before, before),
                None if at.sequence < self.floor() && self.evicted.may_miss(at.sequence, filter) => {
                    (GapReason::Evicted, at.sequence, at.sequence)
                }
                None => return honoured(at.sequence),
            },
        };
        let gap = Some(Gap { requested: text.as_str().into(), reason });
        let skip_to = if live_after_gap { self.head() } else { 0 };
        Start { after: after.max(skip_to), gap, from, skip_to }
    }

    /// The last good place before a number that no event has any more or has yet.
    fn hole_at(&self, sequence: u64) -> Option<u64> {
        let hole = self.holes.iter().find(|&&(before, last)| (before + 1..=last).contains(&sequence)).map(|&(before, _)| before);
        hole.or_else(|| (sequence > self.head()).then(|| self.head()))
    }

    /// Reads as a store does: bounded, with what the filter wants and sometimes more.
    pub(crate) fn page(&self, request: &PageRequest, bounds: &PageBounds, only_wanted: bool) -> Page {
        let mut page = Page::new(Vec::new(), request.up_to);
        for (looked_at, record) in self.window.after(request.after).enumerate() {
            let sequence = record.position().sequence;
            if sequence > request.up_to {
                break;
            }
            if looked_at == bounds.scan || page.records.len() == bounds.events {
                page.covered_through = self.window.after(request.after).nth(looked_at - 1).map_or(0, |last| last.position().sequence);
                break;
            }
            if !only_wanted || request.filter.wants_record(record) {
                page.records.push(record.clone());
            }
        }
        if request.after < self.floor() && self.evicted.may_miss(request.after, &request.filter) {
            page.lost = Some(GapReason::Evicted);
        }
        page
    }

    /// Makes the store fail on the first event of a page that is wanted; false when there is none.
    pub(crate) fn damage(&mut self, request: &PageRequest, page: &mut Page) -> bool {
        let Some(at) = page.records.iter().position(|record| request.filter.wants_record(record)) else { return false };
        let sequence = page.records.remove(at).position().sequence;
        if let Ok(at) = self.entries.binary_search_by_key(&sequence, |entry| entry.sequence) {
            self.entries[at].damaged = true;
        }
        page.lost.get_or_insert(GapReason::Damaged);
        true
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Entry> {
        let sequence = self.ids.get(id)?;
        self.entries.binary_search_by_key(sequence, |entry| entry.sequence).ok().map(|at| &self.entries[at])
    }

    /// What a reader has a claim to between two places: after the first, up to and with the second.
    pub(crate) fn wanted<'a>(&'a self, after: u64, up_to: u64, question: &'a Question) -> impl Iterator<Item = &'a Entry> {
        self.between(after, up_to).filter(move |entry| entry.wanted_by(question))
    }

    /// Everything between two places that no crash undid.
    pub(crate) fn between(&self, after: u64, up_to: u64) -> impl Iterator<Item = &Entry> {
        let from = self.entries.partition_point(|entry| entry.sequence <= after);
        self.entries[from..].iter().take_while(move |entry| entry.sequence <= up_to).filter(|entry| !entry.undone)
    }

    /// Whether a store may tell this reader of a gap out of caution: of events about subscriptions it remembers only that some are gone.
    pub(crate) fn is_vague(&self, after: u64, up_to: u64, question: &Question) -> bool {
        question.may_want_presence() && self.between(after, up_to).any(|entry| entry.older.is_some() && self.is_gone(entry))
    }

    /// Whether the store no longer has it, or failed to read it.
    pub(crate) fn is_gone(&self, entry: &Entry) -> bool {
        entry.sequence <= self.floor() || entry.damaged
    }
}

// A page that looks at nothing would never get anywhere.
const _: () = assert!(limits::PAGE_SCAN > 0 && limits::PAGE_EVENTS > 0);
