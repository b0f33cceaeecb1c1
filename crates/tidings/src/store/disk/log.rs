//! The log as readers see it: which segments there are, what retention hides of them, which numbers are missing and why; and the answers
//! to every question a reader may have.
//!
//! It knows what has been shown. Writing, syncing and removing are done elsewhere and told to it.

use super::{
    apart::fetch_apart,
    cached::Cached,
    format::{Gap, Missing, SegmentHeader},
    index::{DAMAGED, Index, MemoryIndex},
    ledger::Ledger,
    places::trying_again,
    room::Room,
    segment::{self, Candidates, Kept, Place, Segment, candidates, fetch},
};
use crate::store::{
    Bounds, PageLimits,
    latest::{Entry, Latest},
    retention::{Gone, Rules},
};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};
use tidings_core::{
    Epoch, Filter, GapReason, Key, Record, Topic, limits,
    shard::{Floors, Page},
};

/// Candidates asked for at once; further ones are asked for when these were not enough.
const STEP: usize = 2_048;
/// A question is not answered on the spot if there are more segments than these.
const FEW: usize = 64;

/// What readers share.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) files: Arc<Cached>,
    /// What of them is in memory.
    at_hand: Cached,
    pub(super) epoch: Epoch,
    pub(super) rules: Rules,
    /// Where several of the three are locked, it is in this order.
    view: Mutex<View>,
    latest: Mutex<Latest>,
    /// What was removed of each class, by audience (N-14).
    gone: Mutex<Vec<Gone>>,
    pub(super) rewritten: RewrittenTotals,
    pub(super) room: Room,
}

/// What rewriting has done since the start.
#[derive(Debug, Default)]
pub(super) struct RewrittenTotals {
    /// Segments that were rewritten.
    pub(super) segments: AtomicU64,
    /// Bytes written for that.
    pub(super) bytes: AtomicU64,
}

/// What there is to read.
#[derive(Debug)]
pub(super) struct View {
    /// Finished segments, oldest first.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// The one being written.
    pub(super) active: Option<Active>,
    pub(super) head: u64,
    /// The books of retention, with the floor of each class: what is not above it is no longer served, unless it is the latest of its kind.
    pub(super) ledger: Ledger,
    pub(super) gaps: Vec<Gap>,
    /// How often events went from disk.
    pub(super) changes: u64,
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

/// What is served, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) floors: Floors,
    /// Nothing up to here is served.
    pub(super) low: u64,
    /// Everything after this is.
    pub(super) high: u64,
    pub(super) head: u64,
    changes: u64,
}

impl Log {
    pub(super) fn new(files: Arc<Cached>, epoch: Epoch, rules: Rules, view: View, latest: Latest, gone: Vec<Gone>) -> Log {
        let (view, latest, gone) = (Mutex::new(view), Mutex::new(latest), Mutex::new(gone));
        let at_hand = files.at_hand();
        let log = Log { files, at_hand, epoch, rules, view, latest, gone, rewritten: RewrittenTotals::default(), room: Room::default() };
        log.view().ledger.trim(log.rules.classes());
        log
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // Nothing in here panics half-way through a change.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gone(&self) -> MutexGuard<'_, Vec<Gone>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds what readers wait for, and the writer when it shows them something.
    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.view.try_lock().is_ok() && self.latest.try_lock().is_ok() && self.gone.try_lock().is_ok()
    }

    pub(super) fn sight(&self) -> Sight {
        let view = self.view();
        let floors: Floors = view.ledger.floors().collect();
        let high = floors.iter().copied().max().unwrap_or(0);
        let (low, head, changes) = (view.ledger.low(), view.head, view.changes);
        let first = if self.rules.has_latest() { self.latest().iter().next().map(|(sequence, _)| sequence - 1) } else { None };
        Sight { floors, low: first.map_or(low, |first| first.min(low)), high, head, changes }
    }

    /// Reads what is served at one moment. What retention takes from disk meanwhile would be missed without a word, so then it is read again.
    fn at_one_moment<T>(&self, read: impl Fn(&Sight) -> io::Result<T>) -> io::Result<T> {
        trying_again(|| {
            let sight = self.sight();
            let answer = read(&sight)?;
            if self.view().changes != sight.changes {
                return Err(io::Error::new(io::ErrorKind::NotFound, "events went while they were read"));
            }
            Ok(answer)
        })
    }

    /// Whether an event that is there is served.
    pub(super) fn serves(&self, sight: &Sight, sequence: u64, topics: &[Topic]) -> bool {
        sequence > sight.high || sequence > sight.floors[self.rules.class_of(topics)] || self.is_latest(sequence)
    }

    pub(super) fn is_latest(&self, sequence: u64) -> bool {
        self.rules.has_latest() && self.latest().contains(sequence)
    }

    pub(super) fn bounds(&self) -> Bounds {
        let Sight { low, high, head, .. } = self.sight();
        Bounds { epoch: self.epoch, low, floor: high, head }
    }

    /// Bytes of all segments, and how many gaps of damage there are.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let view = self.view();
        let active = view.active.as_ref().map_or(0, |active| active.len);
        let damaged = view.gaps.iter().filter(|gap| gap.why == Missing::Damaged).count();
        (active + view.segments.iter().map(|segment| segment.len).sum::<u64>(), damaged as u64)
    }

    /// Shows what was appended to the active segment.
    pub(super) fn show(&self, records: &[Record], offsets: &[u32], len: u64) {
        let view = &mut *self.view();
        if let (Some(active), Some(last)) = (&mut view.active, records.last()) {
            let mut latest = self.rules.has_latest().then(|| self.latest());
            for (record, offset) in records.iter().zip(offsets) {
                active.index.push(*offset, record);
                view.ledger.push(self.rules.class_of(record.topics()), active.header.serial, record);
                if let Some(latest) = &mut latest {
                    latest.push(&self.rules, record, |sequence, entry| self.replaced(sequence, entry));
                }
            }
            (active.len, active.accepted_at) = (len, last.accepted_at());
            view.head = last.position().sequence;
            view.ledger.trim(self.rules.classes());
        }
    }

    /// What is no longer the latest of its kind is gone if its class has removed what was around it.
    pub(super) fn replaced(&self, sequence: u64, entry: Entry) {
        let class = self.rules.class_of(&entry.topics);
        let gone = &mut self.gone()[class];
        if sequence <= gone.noted {
            gone.remember(&self.rules, class, sequence, entry.topics, entry.private);
        }
    }

    pub(super) fn by_position<T>(
        &self,
        after: u64,
        ask: impl Fn(&dyn Index, Place, u64) -> io::Result<T>,
    ) -> io::Result<Option<(T, Place)>> {
        self.by_position_in(&self.files, after, ask)
    }

    fn by_position_in<T>(
        &self,
        files: &Cached,
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
                Ok(Some((segment.ask(files, |index| ask(index, place, segment.last))?, place)))
            }
        }
    }

    /// One page; see [`crate::EventStore::read_beyond`].
    pub(super) fn read_beyond(&self, after: u64, up_to: u64, filter: &Filter, known: &[u64], limits: PageLimits) -> io::Result<Page> {
        self.at_one_moment(|sight| {
            let mut page = Page::new(Vec::new(), after);
            if after < sight.high && self.may_miss(after, sight, known, filter)? {
                page.lost = Some(GapReason::Evicted);
            }
            page.covered_through = after.max(sight.low.min(up_to));
            let end = self.cross_gaps(&mut page, up_to.min(sight.head), sight.low);
            self.read_on(&mut page, end, filter, limits, &|record| self.serves(sight, record.position().sequence, record.topics()))?;
            Ok(page)
        })
    }

    /// The same if all of it is in memory, so that nobody has to wait for a disk, and little has to be looked at.
    pub(super) fn read_at_hand(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> Option<Page> {
        let one = matches!(filter.matchers().as_slice(), [matcher] if matches!(matcher.key(), Key::Exact(_)));
        // Whoever holds one of these may wait for the disk, or have very much to look at.
        let free = one && self.view.try_lock().is_ok_and(|view| view.segments.len() <= FEW) && self.latest.try_lock().is_ok();
        let sight = free.then(|| self.sight()).filter(|sight| after >= sight.high)?;
        let mut page = Page::new(Vec::new(), after);
        let end = self.cross_gaps(&mut page, up_to.min(sight.head), sight.low);
        self.read_on_in(&self.at_hand, &mut page, end, filter, limits, &|_| true).ok()?;
        (self.view().changes == sight.changes).then_some(page)
    }

    /// Before the first event that is there, and the head.
    pub(super) fn extent(&self) -> (u64, u64) {
        let view = self.view();
        let first = view.segments.front().map(|segment| segment.header.first).or(view.active.as_ref().map(|active| active.header.first));
        (first.map_or(view.head, |first| first - 1), view.head)
    }

    /// One page of everything that is there, or as much of it as is asked for, with every gap.
    pub(super) fn read_all(
        &self,
        after: u64,
        up_to: u64,
        filter: &Filter,
        limits: PageLimits,
        served: &dyn Fn(&Record) -> bool,
    ) -> io::Result<Page> {
        let mut page = Page::new(Vec::new(), after);
        let end = self.cross_gaps(&mut page, up_to, 0);
        self.read_on(&mut page, end, filter, limits, served)?;
        Ok(page)
    }

    /// One page of what is the latest of its kind; see [`crate::EventStore::read_latest`].
    pub(super) fn read_latest(&self, after: u64, up_to: u64, filter: &Filter, limits: PageLimits) -> io::Result<Page> {
        trying_again(|| {
            let mut page = Page::new(Vec::new(), after);
            let wanted = self.latest().wanted(after, up_to, filter);
            let (mut rest, mut bytes) = (&wanted[..wanted.len().min(limits.events)], 0);
            while let Some(&first) = rest.first() {
                let found = self.by_position(first - 1, |index, place, last| {
                    let part = &rest[..rest.partition_point(|&sequence| sequence <= last)];
                    let places = part.iter().filter_map(|&sequence| place_in(index, place.header.first, last, sequence).transpose());
                    Ok((part.len(), places.collect::<io::Result<Vec<_>>>()?))
                })?;
                let Some(((count, places), place)) = found.filter(|((count, _), _)| *count > 0) else { break };
                rest = &rest[count..];
                let mut full = false;
                fetch(&*self.files, place, &places, |sequence, record| {
                    let cost = record.as_ref().map_or(0, Record::cost);
                    full = !page.records.is_empty() && bytes + cost > limits.bytes;
                    if !full {
                        bytes += cost;
                        match record {
                            Some(record) => page.records.push(record),
                            None => page.lost = Some(GapReason::Damaged),
                        }
                        page.covered_through = sequence;
                    }
                    !full
                })?;
                if full {
                    return Ok(page);
                }
            }
            if wanted.len() <= limits.events {
                page.covered_through = after.max(up_to);
            }
            Ok(page)
        })
    }

    /// Goes over the gap at the beginning of the page, and stops it before the next one.
    fn cross_gaps(&self, page: &mut Page, end: u64, low: u64) -> u64 {
        let view = self.view();
        // Those below everything that is served are among what is gone.
        for gap in view.gaps.iter().filter(|gap| gap.through > low) {
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

    pub(super) fn read_on(
        &self,
        page: &mut Page,
        end: u64,
        filter: &Filter,
        limits: PageLimits,
        served: &dyn Fn(&Record) -> bool,
    ) -> io::Result<()> {
        self.read_on_in(&self.files, page, end, filter, limits, served)
    }

    fn read_on_in(
        &self,
        files: &Cached,
        page: &mut Page,
        end: u64,
        filter: &Filter,
        limits: PageLimits,
        served: &dyn Fn(&Record) -> bool,
    ) -> io::Result<()> {
        let (mut bytes, mut scanned) = (0, 0);
        while page.covered_through < end {
            let after = page.covered_through;
            let found = self.by_position_in(files, after, |index, place, last| {
                let first = place.header.first;
                if first > end {
                    return Ok(Candidates { events: Vec::new(), through: 0 });
                }
                let wanted = limits.events - page.records.len();
                let limit = STEP.min(wanted).min(limits.scanned - scanned);
                candidates(index, filter.matchers(), segment::Part { first, after, through: last.min(end), limit })
            })?;
            let Some((Candidates { events, through }, place)) = found.filter(|(_, place)| place.header.first <= end) else {
                page.covered_through = end;
                return Ok(());
            };
            let mut full = false;
            fetch_apart(files, place, &events, |sequence, record| {
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
                    Some(record) if filter.wants_record(&record) && served(&record) => {
                        if page.records.len() == limits.events || (!page.records.is_empty() && bytes + record.cost() > limits.bytes) {
                            full = true;
                            return false;
                        }
                        bytes += record.cost();
                        page.records.push(record);
                    }
                    Some(_) => {}
                }
                page.covered_through = sequence;
                true
            })?;
            if full {
                return Ok(());
            }
            page.covered_through = through;
            if scanned >= limits.scanned || page.records.len() == limits.events {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether an event after a place that is no longer served may have been this reader's, and is none of those it knows of.
    fn may_miss(&self, after: u64, sight: &Sight, known: &[u64], filter: &Filter) -> io::Result<bool> {
        let from: Vec<u64> = sight.floors.iter().enumerate().map(|(class, _)| after.max(known.get(class).copied().unwrap_or(0))).collect();
        let through: Vec<u64> = {
            let gone = self.gone();
            let missed =
                |(class, gone): (usize, &Gone)| from[class] < sight.floors[class] && gone.may_miss(&self.rules, class, from[class], filter);
            if gone.iter().enumerate().any(missed) {
                return Ok(true);
            }
            gone.iter().map(|gone| gone.through).collect()
        };
        let lowest = from.iter().copied().min().unwrap_or(after);
        let is_gone = |gap: &Gap| gap.reason().is_some() && gap.through > lowest && gap.after < sight.low;
        if after < sight.low && self.view().gaps.iter().any(is_gone) {
            return Ok(true);
        }
        // What is hidden, but not removed yet, can be asked.
        let is_hidden = |class: usize, sequence: u64| from[class].max(through[class]) < sequence && sequence <= sight.floors[class];
        let hidden = |class: &usize| from[*class].max(through[*class]) < sight.floors[*class];
        let classes: Vec<usize> = (0..from.len()).filter(hidden).collect();
        let (Some(begin), Some(end)) =
            (classes.iter().map(|&class| from[class].max(through[class])).min(), classes.iter().map(|&class| sight.floors[class]).max())
        else {
            return Ok(false);
        };
        let mut page = Page::new(Vec::new(), begin);
        let limits = PageLimits { bytes: usize::MAX, events: 1, scanned: limits::PAGE_SCAN };
        self.read_on(&mut page, end, filter, limits, &|record| {
            let sequence = record.position().sequence;
            is_hidden(self.rules.class_of(record.topics()), sequence) && !self.is_latest(sequence)
        })?;
        Ok(!page.records.is_empty() || page.lost.is_some() || page.covered_through < end)
    }

    /// Whether nothing after a place is gone, as far as can be said without a read.
    pub(super) fn keeps_all_after(&self, after: u64) -> bool {
        after >= self.sight().high && !self.view().gaps.iter().any(|gap| gap.after < after && after < gap.through)
    }

    /// See [`crate::EventStore::missing_after`].
    pub(super) fn missing_after(&self, after: u64, filter: &Filter) -> io::Result<Option<GapReason>> {
        // A cursor among numbers that are gone: its events are no longer there. What is missing further on is told where it was.
        if let Some(gap) = self.view().gaps.iter().find(|gap| gap.after < after && after < gap.through) {
            return Ok(gap.reason().or(Some(GapReason::Lost)));
        }
        let missed = self.at_one_moment(|sight| Ok(after < sight.high && self.may_miss(after, sight, &[], filter)?));
        Ok(missed?.then_some(GapReason::Evicted))
    }

    /// All segments, oldest first; the active one answers at once.
    pub(super) fn parts<T>(&self, ask: impl FnOnce(&Active) -> io::Result<T>) -> io::Result<Vec<Part<T>>> {
        let view = self.view();
        let mut parts: Vec<Part<T>> = view.segments.iter().cloned().map(Part::Finished).collect();
        if let Some(active) = &view.active {
            parts.push(Part::Active(ask(active)?));
        }
        Ok(parts)
    }
}

/// An event that was the latest of its kind a moment ago, in a segment that begins with `first` and stands for all up to `last`. It may have been
/// replaced since, and be gone.
fn place_in(index: &dyn Index, first: u64, last: u64, sequence: u64) -> io::Result<Option<(u64, u32)>> {
    let event = index.rank(first, sequence)?;
    if event >= index.rank(first, last + 1)? {
        return Ok(None);
    }
    let offset = index.offset(event)?;
    // What is damaged stands for all that there may have been before it.
    Ok((offset == DAMAGED || index.sequence(first, event)? == sequence).then_some((sequence, offset)))
}

impl View {
    /// Events that were shown are gone after all.
    pub(super) fn lose(&mut self, gap: Gap) {
        self.ledger.truncate(gap.after);
        self.add_gap(gap);
    }

    /// Adds a gap, in order. With very many of them the oldest two neighbours become one that have no event between them: what retention left
    /// of them is one stretch of numbers that are gone. Where there are events all gaps stay, for those are to be read.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        const MANY: usize = 1_000;
        self.gaps.push(gap);
        self.gaps.sort_by_key(|gap| gap.after);
        if self.gaps.len() > MANY
            && let Some(at) = (1..self.gaps.len()).find(|&at| !self.has_events(self.gaps[at - 1].through, self.gaps[at].after))
        {
            let (second, first) = (self.gaps.remove(at), &mut self.gaps[at - 1]);
            first.through = first.through.max(second.through);
            // What a reader is told of both: the worse of the two.
            first.why = if first.why as u8 > second.why as u8 { first.why } else { second.why };
        }
    }

    /// Whether there may be events after a number and up to another.
    fn has_events(&self, after: u64, up_to: u64) -> bool {
        let in_segment = |segment: &Arc<Segment>| match (segment.header.has_holes(), segment.kept()) {
            // One that stands aside stands for all that is removed, and has few of its events.
            (true, Kept::Memory(index)) => {
                let first = segment.header.first;
                !matches!((index.rank(first, after + 1), index.rank(first, up_to + 1)), (Ok(from), Ok(to)) if from >= to)
            }
            _ => segment.header.first <= up_to && after < segment.last,
        };
        let in_active = |active: &Active| active.header.first <= up_to && after < active.last();
        after < up_to && (self.segments.iter().any(in_segment) || self.active.as_ref().is_some_and(in_active))
    }
}
