//! The log as readers see it: which segments there are, what retention hides of them, which numbers are missing and why; and the answers
//! to every question a reader may have.
//!
//! It knows what has been shown. Writing, syncing and removing are done elsewhere and told to it.

use super::{
    DiskOptions,
    cached::Cached,
    evicted,
    format::{Gap, Missing, SegmentHeader},
    index::{Index, List, MemoryIndex, Names, UNREADABLE, find},
    segment::{Candidates, Kept, Place, Segment, candidates, fetch},
};
use crate::store::{Bounds, PageLimits};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tidings_core::{Epoch, EventId, Evicted, Filter, GapReason, Position, Record, Topic, limits, shard::Page};

/// Candidates asked for at once; further ones are asked for when these were not enough.
const STEP: usize = 2_048;

/// What readers share.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) files: Arc<Cached>,
    pub(super) epoch: Epoch,
    max_events: u64,
    view: Mutex<View>,
    /// What was removed, by audience (N-14).
    evicted: Mutex<Evicted>,
}

/// What there is to read.
#[derive(Debug)]
pub(super) struct View {
    /// Finished segments, oldest first.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// The one being written.
    pub(super) active: Option<Active>,
    pub(super) head: u64,
    /// Everything after this is kept.
    pub(super) floor: u64,
    /// Events after the floor.
    pub(super) events: u64,
    pub(super) gaps: Vec<Gap>,
}

/// The segment being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) header: SegmentHeader,
    pub(super) len: u64,
    pub(super) accepted_at: u64,
    pub(super) index: MemoryIndex,
}

impl Active {
    pub(super) fn last(&self) -> u64 {
        self.header.first + self.index.offsets.len() as u64 - 1
    }

    /// What it is once nothing more is written to it.
    pub(super) fn finish(self) -> Segment {
        let last = self.last();
        Segment::new(self.header, last, self.len, self.accepted_at, Kept::Memory(Arc::new(self.index)))
    }
}

/// A segment to be asked, outside of the lock if it is finished.
pub(super) enum Part<T> {
    Finished(Arc<Segment>),
    /// Answered already.
    Active(T),
}

impl Log {
    pub(super) fn new(files: Arc<Cached>, epoch: Epoch, options: &DiskOptions, view: View) -> Log {
        let evicted = evicted::load(&*files, epoch, view.floor);
        let log = Log { files, epoch, max_events: options.retention_events, view: Mutex::new(view), evicted: Mutex::new(evicted) };
        log.view().trim(log.max_events);
        log
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // Nothing in here panics half-way through a change.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evicted(&self) -> MutexGuard<'_, Evicted> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bounds(&self) -> Bounds {
        let view = self.view();
        Bounds { epoch: self.epoch, floor: view.floor, head: view.head }
    }

    /// Bytes of all segments, and how many gaps of damage there are.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let view = self.view();
        let active = view.active.as_ref().map_or(0, |active| active.len);
        let damaged = view.gaps.iter().filter(|gap| gap.why == Missing::Damaged).count();
        (active + view.segments.iter().map(|segment| segment.len).sum::<u64>(), damaged as u64)
    }

    /// Shows what was appended to the active segment.
    pub(super) fn show(&self, records: &[Arc<Record>], offsets: &[u32], len: u64) {
        let mut view = self.view();
        if let (Some(active), Some(last)) = (&mut view.active, records.last()) {
            for (record, offset) in records.iter().zip(offsets) {
                active.index.push(*offset, record);
            }
            (active.len, active.accepted_at) = (len, last.accepted_at());
            view.head = last.position().sequence;
            view.events += records.len() as u64;
            view.trim(self.max_events);
        }
    }

    pub(super) fn by_position<T>(
        &self,
        after: u64,
        ask: impl Fn(&dyn Index, Place, u64) -> io::Result<T>,
    ) -> io::Result<Option<(T, Place)>> {
        let part = {
            let view = self.view();
            let at = view.segments.partition_point(|segment| segment.last <= after);
            match (view.segments.get(at), &view.active) {
                (Some(segment), _) => Part::Finished(segment.clone()),
                (None, Some(active)) if !active.index.offsets.is_empty() && active.last() > after => {
                    let place = Place { header: active.header, len: active.len };
                    Part::Active((ask(&active.index, place, active.last())?, place))
                }
                _ => return Ok(None),
            }
        };
        match part {
            Part::Active(answer) => Ok(Some(answer)),
            Part::Finished(segment) => {
                let place = segment.place();
                Ok(Some((segment.ask(&self.files, |index| ask(index, place, segment.last))?, place)))
            }
        }
    }

    /// One page; see [`crate::EventStore::read_after`].
    pub(super) fn read_after(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> io::Result<Page> {
        // Retention may remove a segment between a look at the list and a read.
        let mut tries = 0;
        loop {
            match self.read_once(after, up_to, filter, limits) {
                Err(error) if error.kind() == ErrorKind::NotFound && tries < 8 => tries += 1,
                other => return other,
            }
        }
    }

    fn read_once(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> io::Result<Page> {
        let (floor, head) = {
            let view = self.view();
            (view.floor, view.head)
        };
        let mut page = Page::new(Vec::new(), after);
        let end = up_to.min(head);
        if after < floor && self.may_miss(after, floor, filter)? {
            page.lost = Some(GapReason::Evicted);
        }
        page.covered_through = after.max(floor.min(up_to));
        let end = self.cross_gaps(&mut page, end);
        self.read_on(&mut page, end, filter, limits)?;
        Ok(page)
    }

    /// Goes over the gap at the beginning of the page, and stops it before the next one.
    fn cross_gaps(&self, page: &mut Page, end: u64) -> u64 {
        let view = self.view();
        for gap in &view.gaps {
            let at = page.covered_through;
            if gap.after <= at && at < gap.through {
                if gap.after == at && page.lost.is_none() {
                    page.lost = gap.reason();
                }
                page.covered_through = gap.through.min(end.max(at));
            } else if gap.after > at && gap.after < end && gap.reason().is_some() {
                return gap.after;
            }
        }
        end
    }

    fn read_on(&self, page: &mut Page, end: u64, filter: &Filter, limits: PageLimits) -> io::Result<()> {
        let (mut bytes, mut scanned) = (0, 0);
        while page.covered_through < end {
            let covered = page.covered_through;
            let found = self.by_position(covered, |index, place, last| {
                let first = place.header.first;
                if first > end {
                    return Ok(Candidates { events: Vec::new(), through: 0 });
                }
                let from = (covered + 1).saturating_sub(first) as u32;
                let to = (last.min(end) - first) as u32;
                let wanted = limits.events - page.records.len();
                candidates(index, filter.matchers(), from, to, STEP.min(wanted).min(limits.scanned - scanned))
            })?;
            let Some((Candidates { events, through }, place)) = found.filter(|(_, place)| place.header.first <= end) else {
                page.covered_through = end;
                return Ok(());
            };
            let mut full = false;
            fetch(&*self.files, place, &events, |sequence, record| {
                scanned += 1;
                match record {
                    // What cannot be read is told where it would have been: alone at the beginning of a page.
                    None if page.records.is_empty() => {
                        page.lost.get_or_insert(GapReason::Damaged);
                    }
                    None => {
                        page.covered_through = sequence - 1;
                        full = true;
                        return false;
                    }
                    Some(record) if filter.wants_record(&record) => {
                        if page.records.len() == limits.events || (!page.records.is_empty() && bytes + record.cost() > limits.bytes) {
                            full = true;
                            return false;
                        }
                        bytes += record.cost();
                        page.records.push(Arc::new(record));
                    }
                    Some(_) => {}
                }
                page.covered_through = sequence;
                true
            })?;
            if full {
                return Ok(());
            }
            page.covered_through = place.header.first + u64::from(through);
            if scanned >= limits.scanned || page.records.len() == limits.events {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether an event after a place and up to the floor may have been this reader's.
    fn may_miss(&self, after: u64, floor: u64, filter: &Filter) -> io::Result<bool> {
        let gone = |gap: &Gap| gap.reason().is_some() && gap.through > after && gap.after < floor;
        if self.evicted().may_miss(after, filter) || self.view().gaps.iter().any(gone) {
            return Ok(true);
        }
        // What is hidden, but not removed yet, can be asked.
        let mut page = Page::new(Vec::new(), after);
        let limits = PageLimits { bytes: usize::MAX, events: 1, scanned: limits::PAGE_SCAN };
        self.read_on(&mut page, floor, filter, limits)?;
        Ok(!page.records.is_empty() || page.lost.is_some() || page.covered_through < floor)
    }

    /// Whether nothing after a place is gone, as far as can be said without a read.
    pub(super) fn keeps_all_after(&self, after: u64) -> bool {
        let view = self.view();
        after >= view.floor && !view.gaps.iter().any(|gap| gap.after < after && after < gap.through)
    }

    /// See [`crate::EventStore::missing_after`].
    pub(super) fn missing_after(&self, after: u64, filter: &Filter) -> io::Result<Option<GapReason>> {
        let floor = {
            let view = self.view();
            // A cursor among numbers that are gone: its events are no longer there. What is missing further on is told where it was.
            if let Some(gap) = view.gaps.iter().find(|gap| gap.after < after && after < gap.through) {
                return Ok(gap.reason().or(Some(GapReason::Lost)));
            }
            view.floor
        };
        Ok((after < floor && self.may_miss(after, floor, filter)?).then_some(GapReason::Evicted))
    }

    /// See [`crate::EventStore::resolve`].
    pub(super) fn resolve(&self, id: &str) -> io::Result<Option<Position>> {
        let floor = self.view().floor;
        let first_kept = |index: &dyn Index, first: u64| {
            find(index, Names::Ids, id, |list| {
                let at = list.below((floor + 1).saturating_sub(first).min(u64::from(u32::MAX)) as u32)?;
                (at < list.len()).then(|| list.get(at)).transpose()
            })
            .map(|found| found.map(|event| Position { epoch: self.epoch, sequence: first + u64::from(event) }))
        };
        for part in self.parts(|active| first_kept(&active.index, active.header.first))? {
            let found = match part {
                Part::Active(found) => found,
                Part::Finished(segment) => segment.ask(&self.files, |index| first_kept(index, segment.header.first))?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// See [`crate::EventStore::newest`].
    pub(super) fn newest(&self, topic: &Topic) -> io::Result<Option<EventId>> {
        let last = |index: &dyn Index, place: Place| -> io::Result<Option<(Place, u32, u32)>> {
            let event = find(index, Names::Topics, topic.as_str(), |list| list.last())?;
            event.map(|event| Ok((place, event, index.offset(event)?))).transpose()
        };
        let parts = self.parts(|active| last(&active.index, Place { header: active.header, len: active.len }))?;
        for part in parts.into_iter().rev() {
            let found = match part {
                Part::Active(found) => found,
                Part::Finished(segment) => segment.ask(&self.files, |index| last(index, segment.place()))?,
            };
            if let Some((place, event, offset)) = found {
                let kept = place.header.first + u64::from(event) > self.view().floor;
                return if kept { self.id_at(place, event, offset) } else { Ok(None) };
            }
        }
        Ok(None)
    }

    /// See [`crate::EventStore::topics`].
    pub(super) fn topics(&self, after: Option<&str>, limit: usize) -> io::Result<Vec<(Topic, EventId)>> {
        type Found = BTreeMap<Box<str>, (Place, u32, u32)>;
        let floor = self.view().floor;
        let list = |index: &dyn Index, place: Place| -> io::Result<Found> {
            let mut found = Found::new();
            index.visit(Names::Topics, after.unwrap_or_default(), &mut |name, list: List<'_>| {
                if after != Some(name)
                    && name != UNREADABLE
                    && let Some(event) = list.last()?
                    && place.header.first + u64::from(event) > floor
                {
                    found.insert(name.into(), (place, event, index.offset(event)?));
                }
                Ok(found.len() < limit)
            })?;
            Ok(found)
        };
        let mut all = Found::new();
        for part in self.parts(|active| list(&active.index, Place { header: active.header, len: active.len }))? {
            all.extend(match part {
                Part::Active(found) => found,
                Part::Finished(segment) => segment.ask(&self.files, |index| list(index, segment.place()))?,
            });
        }
        let mut topics = Vec::new();
        for (name, (place, event, offset)) in all.into_iter().take(limit) {
            if let Some(id) = self.id_at(place, event, offset)? {
                topics.push((Topic::stored(&name), id));
            }
        }
        Ok(topics)
    }

    fn id_at(&self, place: Place, event: u32, offset: u32) -> io::Result<Option<EventId>> {
        let mut id = None;
        fetch(&*self.files, place, &[(event, offset)], |_, record| {
            id = record.map(|record| record.id());
            false
        })?;
        Ok(id)
    }

    /// All segments, oldest first; the active one answers at once.
    fn parts<T>(&self, ask: impl FnOnce(&Active) -> io::Result<T>) -> io::Result<Vec<Part<T>>> {
        let view = self.view();
        let mut parts: Vec<Part<T>> = view.segments.iter().cloned().map(Part::Finished).collect();
        if let Some(active) = &view.active {
            parts.push(Part::Active(ask(active)?));
        }
        Ok(parts)
    }
}

impl View {
    /// Hides what is too many.
    pub(super) fn trim(&mut self, max_events: u64) {
        while self.events > max_events {
            let at = self.segments.partition_point(|segment| segment.last <= self.floor);
            let (first, last) = match (self.segments.get(at), &self.active) {
                (Some(segment), _) => (segment.header.first, segment.last),
                (None, Some(active)) => (active.header.first, active.last()),
                (None, None) => break,
            };
            let hidden_before = self.floor.max(first - 1);
            let step = (self.events - max_events).min(last - hidden_before);
            self.floor = hidden_before + step;
            self.events -= step;
        }
    }

    /// Events that were shown are gone after all, out of a segment that begins with this number.
    pub(super) fn lose(&mut self, gap: Gap, first: u64) {
        self.events -= gap.through - gap.after.max(first - 1).max(self.floor).min(gap.through);
        self.add_gap(gap);
    }

    /// Adds a gap, in order; with very many of them neighbours become one.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        const MANY: usize = 1_000;
        self.gaps.push(gap);
        self.gaps.sort_by_key(|gap| gap.after);
        if self.gaps.len() > MANY {
            let second = self.gaps.remove(1);
            self.gaps[0].through = self.gaps[0].through.max(second.through);
            self.gaps[0].why = Missing::Damaged;
        }
    }
}
