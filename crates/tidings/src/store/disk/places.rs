//! Places that are looked for rather than named: before a moment, and before the newest events that a reader may have.
//!
//! It knows the log and its segments; what is sent from a place on is a page like any other.

use super::{
    index::Index,
    log::{Active, Log, Part, Sight},
    segment::{self, Place, fetch, newest_candidates},
};
use std::io::{self, ErrorKind};
use tidings_core::{Filter, GapReason, limits};

/// Candidates asked for at once, at the least and at the most.
const STEP: (usize, usize) = (64, 2_048);

impl Log {
    /// See [`crate::EventStore::since`].
    pub(super) fn since(&self, moment: u64, filter: &Filter) -> io::Result<(u64, Option<GapReason>)> {
        let Sight { low, high, .. } = self.sight();
        let after = trying_again(|| self.before(moment, low))?;
        if high == 0 {
            return Ok((after, None));
        }
        if after > low || self.floor_time(low)?.is_some_and(|time| time < moment) {
            let after = after.max(low);
            return Ok((after, self.missing_after(after, filter)?));
        }
        Ok((low, self.missing_after(0, filter)?))
    }

    /// See [`crate::EventStore::last`].
    pub(super) fn last(&self, count: usize, filter: &Filter) -> io::Result<u64> {
        if count == 0 {
            return Ok(self.view().head);
        }
        trying_again(|| self.before_last(count, filter))
    }

    /// The last event that was accepted before a moment, or the place before the oldest.
    fn before(&self, moment: u64, low: u64) -> io::Result<u64> {
        // Times never decrease in the order of the log, so the segment is found by its last time, and the event in it by halving.
        let (before, part) = {
            let view = self.view();
            let at = view.segments.partition_point(|segment| segment.accepted_at < moment);
            let before = at.checked_sub(1).map_or(low, |at| view.segments[at].last);
            match (view.segments.get(at), &view.active) {
                (Some(segment), _) => (before, Part::Finished(segment.clone())),
                (None, Some(active)) if !active.index.offsets.is_empty() && active.accepted_at >= moment => {
                    (before, Part::Active((active.place(), active.index.offsets.len() as u32)))
                }
                (None, Some(active)) if !active.index.offsets.is_empty() => return Ok(active.last()),
                _ => return Ok(before),
            }
        };
        let earlier = match part {
            Part::Active((place, count)) => {
                // Asked again for each event: the lock is not held while the disk is read.
                let at = |event: u32| {
                    let sequence = place.header.first + u64::from(event);
                    let found = self.by_position(sequence - 1, |index, _, _| index.offset(event))?;
                    found.map(|(offset, _)| (sequence, offset)).ok_or_else(|| io::Error::from(ErrorKind::NotFound))
                };
                self.earlier(place, count, at, moment)?
            }
            Part::Finished(segment) => {
                let place = segment.place();
                segment.ask(&self.files, |index| {
                    let at = |event: u32| Ok((index.sequence(place.header.first, event)?, index.offset(event)?));
                    self.earlier(place, index.rank(place.header.first, segment.last + 1)?, at, moment)
                })?
            }
        };
        Ok(earlier.unwrap_or(before))
    }

    /// The last event of a segment that was accepted before a moment. What cannot be read counts as later: then it is told as missing.
    fn earlier(&self, place: Place, count: u32, at: impl Fn(u32) -> io::Result<(u64, u32)>, moment: u64) -> io::Result<Option<u64>> {
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from + (to - from) / 2;
            let mut readable = (middle..to).map(|event| Ok((event, self.accepted_at(place, at(event)?)?)));
            let found = readable.find(|read: &io::Result<_>| !matches!(read, Ok((_, None)))).transpose()?;
            match found {
                Some((event, Some(time))) if time < moment => from = event + 1,
                _ => to = middle,
            }
        }
        from.checked_sub(1).map(|event| Ok(at(event)?.0)).transpose()
    }

    pub(super) fn accepted_at(&self, place: Place, event: (u64, u32)) -> io::Result<Option<u64>> {
        let mut time = None;
        fetch(&*self.files, place, &[event], |_, record| {
            time = record.map(|record| record.accepted_at());
            false
        })?;
        Ok(time)
    }

    /// When the newest event was accepted that is no longer served, or a moment soon after, if anything says.
    fn floor_time(&self, floor: u64) -> io::Result<Option<u64>> {
        let view = self.view();
        let at = view.segments.partition_point(|segment| segment.last <= floor);
        let header = match (view.segments.get(at), &view.active) {
            (Some(segment), _) => segment.header,
            (None, Some(active)) => active.header,
            (None, None) => return Ok(None),
        };
        drop(view);
        if header.first > floor {
            // Begun when the newest event was this old; 0 if none was known then.
            return Ok(Some(header.created).filter(|&created| created > 0));
        }
        // Hidden by number within its segment, and still to be read, unless the segment was written again without it.
        let place = self.by_position(floor - 1, |index, place, last| {
            let event = index.rank(place.header.first, floor)?;
            let there = event < index.rank(place.header.first, last + 1)? && index.sequence(place.header.first, event)? == floor;
            there.then(|| Ok((place, index.offset(event)?))).transpose()
        })?;
        match place {
            Some((Some((place, offset)), _)) => self.accepted_at(place, (floor, offset)),
            _ => Ok(None),
        }
    }

    fn before_last(&self, count: usize, filter: &Filter) -> io::Result<u64> {
        let (mut left, mut scanned) = (count, 0);
        // Events after this place have been looked at.
        let sight = self.sight();
        let mut place = sight.head;
        loop {
            let step = left.clamp(STEP.0, STEP.1).min(limits::LAST_SCAN - scanned);
            let Some((events, at, whole)) = self.candidates_up_to(place, sight.low, filter, step)? else { return Ok(sight.low) };
            let mut wanted = Vec::new();
            fetch(&*self.files, at, &events, |sequence, record| {
                if record.is_some_and(|record| filter.wants_record(&record) && self.serves(&sight, sequence, record.topics())) {
                    wanted.push(sequence);
                }
                true
            })?;
            scanned += events.len();
            if wanted.len() >= left {
                return Ok(wanted[wanted.len() - left] - 1);
            }
            left -= wanted.len();
            // With fewer than were asked for, this segment has no others.
            place = if whole { at.header.first - 1 } else { events.first().map_or(at.header.first, |(sequence, _)| *sequence) - 1 };
            if place <= sight.low || scanned >= limits::LAST_SCAN {
                return Ok(place.max(sight.low));
            }
        }
    }

    /// The newest events up to a place, out of one segment; and whether it has no others after the floor.
    #[expect(clippy::type_complexity, reason = "taken apart at once by its one caller")]
    fn candidates_up_to(
        &self,
        place: u64,
        floor: u64,
        filter: &Filter,
        limit: usize,
    ) -> io::Result<Option<(Vec<(u64, u32)>, Place, bool)>> {
        let ask = |index: &dyn Index, at: Place, last: u64| {
            let part = segment::Part { first: at.header.first, after: floor, through: last.min(place), limit };
            newest_candidates(index, filter.matchers(), part)
        };
        let part = {
            let view = self.view();
            match &view.active {
                Some(active) if !active.index.offsets.is_empty() && active.header.first <= place => {
                    Part::Active((ask(&active.index, active.place(), active.last())?, active.place()))
                }
                _ => {
                    let at = view.segments.partition_point(|segment| segment.header.first <= place);
                    let segment = at.checked_sub(1).map(|at| view.segments[at].clone()).filter(|segment| segment.last > floor);
                    let Some(segment) = segment else { return Ok(None) };
                    Part::Finished(segment)
                }
            }
        };
        let (events, at) = match part {
            Part::Active(answer) => answer,
            Part::Finished(segment) => (segment.ask(&self.files, |index| ask(index, segment.place(), segment.last))?, segment.place()),
        };
        let whole = events.len() < limit;
        Ok(Some((events, at, whole)))
    }
}

/// Retention may remove a segment between a look at the list and a read.
pub(super) fn trying_again<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::NotFound && tries < 8 => tries += 1,
            other => return other,
        }
    }
}

impl Active {
    pub(super) fn place(&self) -> Place {
        Place { header: self.header, len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::disk::{
        DiskOptions, Parts, assemble,
        format::segment_name,
        simulated::{Random, Simulated},
        writer::Waiting,
    };
    use std::sync::Arc;
    use tidings_core::{Event, Filter, Grant, Matchers, Record, TopicMatcher};
    use tokio::sync::oneshot;

    fn open(disk: &Simulated) -> Parts {
        let options = DiskOptions { segment_bytes: 2_000, retention_age: None, ..DiskOptions::default() };
        assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap()
    }

    /// N-12: against the plain list of what was published, over many segments, restarts with holes between the numbers, and one being written.
    #[test]
    fn like_a_list() {
        let (disk, mut random) = (Simulated::new(1, None), Random(2));
        // Sequence, time, topic, and whether it is private.
        let mut all: Vec<(u64, u64, usize, bool)> = Vec::new();
        let mut time = 1_000;
        for life in 0..4 {
            let Parts { mut writer, keeper, log, .. } = open(&disk);
            for _ in 0..60 {
                time += random.below(3);
                let (topic, private) = (random.below(400).min(3) as usize, random.one_in(3));
                let event = Event::new(["a", "b", "c", "d/many"][topic], "x".repeat(random.below(50) as usize)).unwrap();
                let event = if private { event.private() } else { event };
                let (answer, mut answered) = oneshot::channel();
                writer.commit(vec![Waiting { drafts: Record::draft(event).into(), key: None, now: time, answer }]);
                assert!(answered.try_recv().unwrap().is_ok());
                all.push((log.bounds().head, time, topic, private));
            }
            if life % 2 == 0 {
                keeper.work(None);
            }
            disk.kill();
        }
        let Parts { log, .. } = open(&disk);
        assert!(log.view().segments.len() > 10);
        let matchers = [TopicMatcher::exact("a").unwrap(), TopicMatcher::prefix("d").unwrap(), TopicMatcher::all()];
        for (topics, matcher) in [vec![0], vec![3], vec![0, 1, 2, 3]].into_iter().zip(matchers) {
            for full in [false, true] {
                let grant = if full { Grant::full() } else { Grant::open() };
                let filter = Filter::new(Matchers::from(matcher.clone()), &grant);
                let mine: Vec<_> = all.iter().filter(|(_, _, topic, private)| topics.contains(topic) && (full || !private)).collect();
                for count in [1, 2, 3, 10, 70, 200, 10_000] {
                    let expected = mine.len().checked_sub(count).map_or(0, |at| mine[at].0 - 1);
                    assert_eq!(log.last(count, &filter).unwrap(), expected, "{count} of {filter:?}");
                }
            }
        }
        let filter = Filter::new(Matchers::all(), &Grant::full());
        for moment in 990..time + 3 {
            let expected = all.iter().rev().find(|(_, at, ..)| *at < moment).map_or(0, |(sequence, ..)| *sequence);
            assert_eq!(log.since(moment, &filter).unwrap(), (expected, None), "since {moment}");
        }
        // N-14: what cannot be read is passed over on the side where the stream will tell of it.
        let middle = log.view().segments[5].header;
        disk.damage(&segment_name(middle.serial), |contents| contents[200..].iter_mut().step_by(97).for_each(|byte| *byte ^= 1));
        let mut passed = 0;
        for moment in 990..time + 3 {
            let exact = all.iter().rev().find(|(_, at, ..)| *at < moment).map_or(0, |(sequence, ..)| *sequence);
            let (after, _) = log.since(moment, &filter).unwrap();
            assert!(after <= exact, "since {moment}");
            passed += usize::from(after < exact);
        }
        assert!(passed > 0, "the damage is in the way");
    }
}
