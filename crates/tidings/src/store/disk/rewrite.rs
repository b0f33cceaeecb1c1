//! Rewriting: a finished segment of which no class of retention keeps more than half is written again without the rest, so that space comes
//! back although what is left holds its place in the log. Numbers stay as they are, with holes between them.
//!
//! One segment at a time, so many bytes a second, and never more bytes than it frees; at any pace, and for less, when the log takes more than it
//! may. The new segment is a file of its own, with the serial of the next generation. As long as the old one is there it is the one that counts,
//! and it goes only when all of the new one is on disk, its name and its keys included.

use super::{
    aside::ASIDE,
    cached::Cached,
    files::{File, Files, Why},
    format::{APPEND, AppendHeader, EventFrame, GENERATION, Rewritten, SegmentHeader, index_name, segment_name},
    index::{About, FileIndex, MemoryIndex},
    keeper::Keeper,
    log::{Log, View},
    room::Fill,
    scan::Window,
    segment::{Kept, Segment},
};
use crate::store::{
    latest::{Entry, Latest},
    retention::Rules,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tidings_core::{Record, Topic, limits};

/// Bytes written with one call, more or less.
const CHUNK: usize = 1 << 20;
/// After a failure nothing is rewritten for so long: a disk without room is not to be filled again and again.
const REST: Duration = Duration::from_mins(1);
/// So long if the log takes more than it may: retention has made room meanwhile.
const SHORT_REST: Duration = Duration::from_secs(1);
/// Bytes read and written at a time when the pace does not count: retention looks in between.
const STEP: u64 = 4 << 20;

/// How much may be rewritten: so many bytes a second, read and written.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes that may be spent, and since when no more were added. Whoever spends too much at once waits the longer.
    left: i64,
    then: Option<Instant>,
    failed: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { left: 0, then: None, failed: None }
    }

    /// Rewrites what it may now; whether there is more to do at once.
    pub(super) fn go_on(&mut self, now: Instant, fill: Fill, rewrite: impl FnOnce(u64) -> io::Result<u64>) -> bool {
        const SECOND: i64 = limits::REWRITTEN_BYTES as i64;
        let passed = self.then.map_or(Duration::ZERO, |then| now.saturating_duration_since(then)).min(Duration::from_secs(1));
        self.then = Some(now);
        self.left = (self.left + SECOND * passed.as_millis() as i64 / 1_000).min(SECOND);
        let presses = fill > Fill::Within;
        let rest = if presses { SHORT_REST } else { REST };
        if (self.left <= 0 && !presses) || self.failed.is_some_and(|failed| now < failed + rest) {
            return false;
        }
        self.failed = None;
        match rewrite(if presses { STEP } else { self.left as u64 }) {
            Ok(spent) if presses => return spent > 0,
            Ok(spent) => self.left = self.left.saturating_sub_unsigned(spent),
            Err(error) => {
                tracing::warn!(%error, "a segment could not be rewritten; it is tried again later");
                self.failed = Some(now);
            }
        }
        false
    }
}

/// What is being rewritten.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    under_way: Option<UnderWay>,
    left_alone: BTreeMap<u64, Alone>,
    /// Why it did not work the last time, when the log took more than it may.
    unable: Option<ErrorKind>,
}

impl Rewriter {
    /// Whether it did not work the last time, when the log took more than it may.
    pub(super) fn failed(&self) -> bool {
        self.unable.is_some()
    }

    /// There may be room by now.
    pub(super) fn relieve(&mut self) {
        self.unable = None;
    }
}

/// A segment that is not to be rewritten.
#[derive(Clone, Copy, Debug)]
enum Alone {
    /// Not in this life: it is damaged.
    Damaged,
    /// More of it has to stay than it seemed. It is looked at again when less than this is kept of it, or the log is fuller than this.
    Until(u64, Fill),
}

/// A segment that is half rewritten. If nothing comes of it its file goes.
#[derive(Debug)]
struct UnderWay {
    files: Arc<Cached>,
    old: Arc<Segment>,
    from: Arc<dyn File>,
    /// How far the old one is read, and the number that is next at the least.
    at: u64,
    next: u64,
    header: SegmentHeader,
    to: Arc<dyn File>,
    len: u64,
    index: MemoryIndex,
    /// Bytes of events that stay, and how many may, for the log is so full.
    stay: u64,
    most: u64,
    fill: Fill,
    /// What each class has removed, and up to where all is on disk: both only ever become more.
    removed: Vec<u64>,
    on_disk: u64,
    done: bool,
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    PartOfTheWay,
    ToTheEnd,
    /// It cannot be read.
    Damaged,
    /// It is not worth it after all.
    TooMuchStays,
}

impl Keeper {
    /// Rewrites for about so many bytes, read and written; how many it were. Less if there is nothing more to do.
    pub(super) fn rewrite(&self, bytes: u64, now: Option<u64>) -> io::Result<u64> {
        let rewriter = &mut *self.rewriter.borrow_mut();
        let presses = self.log.fill() > Fill::Within;
        let rewritten = self.rewrite_on(rewriter, bytes, now);
        rewriter.unable = rewritten.as_ref().err().map(io::Error::kind).filter(|_| presses);
        rewritten
    }

    /// What is still the case when everything was done that retention asks for, and rewriting is no help: how many bytes finished segments may
    /// take, whatever has to go. Nothing if rewriting will do.
    pub(super) fn last_resort(&self) -> Option<u64> {
        let (log, rewriter) = (&self.log, &*self.rewriter.borrow());
        let fill = log.fill();
        match rewriter.unable {
            // Without room for a copy the classes get what they may together, and nothing beside it.
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) if fill > Fill::Within => {
                return Some(log.most().saturating_sub(log.view().active.as_ref().map_or(0, |active| active.len)));
            }
            Some(_) if fill == Fill::Full => return Some(log.bound()),
            _ => {}
        }
        let exhausted = || rewriter.under_way.is_none() && self.worth_rewriting(&rewriter.left_alone).is_none();
        log.room.demanded().or_else(|| (fill == Fill::Full && exhausted()).then(|| log.bound()))
    }

    fn rewrite_on(&self, rewriter: &mut Rewriter, bytes: u64, now: Option<u64>) -> io::Result<u64> {
        let mut spent = 0;
        while spent < bytes {
            let mut under_way = match rewriter.under_way.take() {
                Some(under_way) if self.is_there(&under_way.old) => under_way,
                // Retention was faster.
                Some(_) => continue,
                None => match self.worth_rewriting(&rewriter.left_alone) {
                    Some((segment, fill)) => self.begin_rewriting(segment, fill)?,
                    None => break,
                },
            };
            let (count, came) = under_way.go_on(&self.log, bytes - spent)?;
            spent += count;
            match came {
                Came::PartOfTheWay => rewriter.under_way = Some(under_way),
                Came::ToTheEnd => self.put_in_place(under_way, now)?,
                Came::Damaged => drop(rewriter.left_alone.insert(under_way.old.header.serial, Alone::Damaged)),
                Came::TooMuchStays => {
                    let view = self.log.view();
                    let serial = under_way.old.header.serial;
                    let less = view.ledger.kept_of(serial).saturating_sub(view.ledger.written_of(serial) / 8);
                    rewriter.left_alone.insert(serial, Alone::Until(less, under_way.fill));
                }
            }
        }
        Ok(spent)
    }

    fn is_there(&self, segment: &Arc<Segment>) -> bool {
        self.log.view().segments.iter().any(|other| Arc::ptr_eq(other, segment))
    }

    /// The segment with the most bytes that no class keeps, if they are enough of it. One whose other half is the next to go can wait for that,
    /// unless the log is full.
    fn worth_rewriting(&self, left_alone: &BTreeMap<u64, Alone>) -> Option<(Arc<Segment>, Fill)> {
        let fill = self.log.fill();
        let view = self.log.view();
        let latest = self.log.latest();
        let segments = || view.segments.iter().filter(|segment| segment.header.serial & ASIDE == 0);
        let firsts: BTreeMap<u64, u64> = segments().map(|segment| (segment.header.serial, segment.header.first)).collect();
        let kept = view.ledger.kept(&firsts);
        let dead = |segment: &&Arc<Segment>| {
            let SegmentHeader { serial, first, .. } = segment.header;
            let written = view.ledger.written_of(serial);
            let (kept, next) = kept.get(&serial).copied().unwrap_or_default();
            let alone = match left_alone.get(&serial) {
                None => false,
                Some(Alone::Damaged) => true,
                Some(&Alone::Until(less, then)) => kept >= less && fill <= then,
            };
            let most = written - fill.least(written);
            let waits = next > kept / 2 && fill < Fill::Full;
            if alone || kept > most || waits || serial + GENERATION >= ASIDE {
                return None;
            }
            let stays = kept + view.latest_below(&self.log.rules, &latest, first, segment.last);
            (stays <= most).then(|| written - stays).filter(|&dead| dead > 0)
        };
        let found = segments().filter_map(|segment| Some((dead(&segment)?, segment))).max_by_key(|(dead, _)| *dead);
        found.map(|(_, segment)| (segment.clone(), fill))
    }

    fn begin_rewriting(&self, old: Arc<Segment>, fill: Fill) -> io::Result<UnderWay> {
        let log = &self.log;
        // What is hidden by number is not removed yet.
        let through: Vec<u64> = log.view().ledger.floors().map(|floor| floor.min(old.last)).collect();
        self.take_back(&through)?;
        let removed = log.gone().iter().map(|gone| gone.through).collect();
        let (on_disk, most) = {
            let view = log.view();
            let written = view.ledger.written_of(old.header.serial);
            (view.segments.back().map_or(0, |newest| newest.last), written - fill.least(written))
        };
        let rewritten = Rewritten { last: old.last, len: 0, accepted_at: old.accepted_at, events: 0 };
        // With the same seed events are what they were, checksum included.
        let header = SegmentHeader { serial: old.header.serial + GENERATION, rewritten: Some(rewritten), ..old.header };
        let name = segment_name(header.serial);
        // Left over from an attempt that failed.
        let _ = log.files.remove(&name);
        let (from, to) = (log.files.open(&segment_name(old.header.serial))?, log.files.create(&name)?);
        Ok(UnderWay {
            files: log.files.clone(),
            from,
            at: old.header.size(),
            next: old.header.first,
            header,
            to,
            len: header.size(),
            index: MemoryIndex::with_holes(),
            stay: 0,
            most,
            fill,
            removed,
            on_disk,
            old,
            done: false,
        })
    }

    /// The new segment instead of the old one: on disk first, then for readers, and then the old one goes.
    fn put_in_place(&self, mut under_way: UnderWay, now: Option<u64>) -> io::Result<()> {
        let log = &self.log;
        let files = &*log.files;
        let SegmentHeader { serial: before, first, .. } = under_way.old.header;
        let (serial, last, accepted_at) = (under_way.header.serial, under_way.old.last, under_way.old.accepted_at);
        let carry = self.keyring.carry_on(files, before, serial, first, last, now)?;
        files.sync_names(Why::RewrittenName)?;
        let index = Arc::new(std::mem::take(&mut under_way.index));
        let count = index.offsets.len() as u32;
        let segment = Segment::new(under_way.header, last, under_way.len, accepted_at, Kept::Memory(index.clone()));
        if !segment.is_small() {
            let about = About { epoch: log.epoch, first, len: under_way.len, accepted_at, count, keys: 0 };
            match index.save(files, serial, &about).and_then(|()| FileIndex::open(files, serial)) {
                Ok(index) => segment.set_kept(Kept::File(Arc::new(index))),
                Err(error) => tracing::warn!(%error, "an index could not be written"),
            }
        }
        {
            let mut view = log.view();
            let Some(place) = view.segments.iter_mut().find(|other| Arc::ptr_eq(other, &under_way.old)) else { return Ok(()) };
            *place = Arc::new(segment);
            view.ledger.rename(before, serial, under_way.stay);
            view.changes += 1;
        }
        under_way.done = true;
        log.rewritten.segments.fetch_add(1, Relaxed);
        // If this fails the next start finds both, and goes on with the old one.
        let removed = files.remove(&segment_name(before));
        let _ = files.remove(&index_name(before));
        self.keyring.settle(files, carry);
        self.write_books();
        log.room.tell();
        removed
    }
}

impl View {
    /// Bytes of events between two numbers that only stay because they are the latest of their kind.
    fn latest_below(&self, rules: &Rules, latest: &Latest, first: u64, last: u64) -> u64 {
        let floors: Vec<u64> = self.ledger.floors().collect();
        let below = |(sequence, entry): &(u64, &Entry)| *sequence <= floors[rules.class_of(&entry.topics)];
        latest.between(first - 1, last).filter(below).map(|(_, entry)| entry.bytes).sum()
    }

    /// Bytes of the events of a segment that nobody can read any more.
    pub(super) fn dead_in(&self, rules: &Rules, latest: &Latest, segment: &Segment) -> u64 {
        let SegmentHeader { serial, first, .. } = segment.header;
        let stays = self.ledger.kept_of(serial) + self.latest_below(rules, latest, first, segment.last);
        self.ledger.written_of(serial).saturating_sub(stays)
    }
}

impl UnderWay {
    /// Reads and writes about so many bytes; how many it were, and how far that was.
    fn go_on(&mut self, log: &Log, bytes: u64) -> io::Result<(u64, Came)> {
        let (old, end) = (self.old.header, self.old.len);
        let from = self.from.clone();
        let mut window = Window::new(&*from, end);
        let (mut read, before) = (0, self.len);
        let mut out = Vec::new();
        while self.at < end && read + (self.len - before) < bytes {
            let Some(append) = window.append(&old, self.at, self.next, old.has_holes())? else { return Ok((read, Came::Damaged)) };
            let len = APPEND + append.body_len as usize;
            let whole = Bytes::copy_from_slice(window.get(self.at, len)?);
            if self.take(log, append, &whole, &mut out).is_none() {
                return Ok((read, Came::Damaged));
            }
            if self.stay > self.most {
                return Ok((read, Came::TooMuchStays));
            }
            self.at += len as u64;
            self.next = append.first + u64::from(append.count);
            read += len as u64;
            if out.len() >= CHUNK {
                self.write(log, &mut out)?;
            }
        }
        self.write(log, &mut out)?;
        let came = if self.at < end { Came::PartOfTheWay } else { Came::ToTheEnd };
        if came == Came::ToTheEnd {
            if let Some(rewritten) = &mut self.header.rewritten {
                (rewritten.len, rewritten.events) = (self.len, self.index.offsets.len() as u32);
            }
            self.to.write_at(&self.header.to_bytes(), 0)?;
        }
        // Each part by itself: all of it at the end would hold up whoever else waits for the disk.
        self.to.sync(Why::Rewritten)?;
        Ok((read + (self.len - before), came))
    }

    fn write(&mut self, log: &Log, out: &mut Vec<u8>) -> io::Result<()> {
        self.to.write_at(out, self.len)?;
        self.len += out.len() as u64;
        log.rewritten.bytes.fetch_add(out.len() as u64, Relaxed);
        out.clear();
        Ok(())
    }

    /// Takes over what stays of an append, as it is: events that follow each other in one append again. Nothing if it cannot be read.
    fn take(&mut self, log: &Log, append: AppendHeader, whole: &Bytes, out: &mut Vec<u8>) -> Option<()> {
        let SegmentHeader { epoch, seed, .. } = self.header;
        let (mut from, mut near, mut stay) = (APPEND + append.key_len as usize, Vec::<Topic>::new(), Vec::new());
        for sequence in append.first..append.first + u64::from(append.count) {
            let frame = EventFrame::parse(seed, whole.get(from..)?).filter(|frame| frame.sequence == sequence)?;
            let event = from..from + frame.len;
            from = event.end;
            let record = frame.record(epoch, &whole.slice(event.clone()), &near)?;
            if near != record.topics() {
                near = record.topics().to_vec();
            }
            if self.stays(log, &record) {
                self.stay += frame.len as u64;
                stay.push((event, record));
            }
        }
        for run in stay.chunk_by(|(one, _), (next, _)| one.end == next.start) {
            let first = run[0].1.position().sequence;
            let header = AppendHeader { first, synced: 0, count: run.len() as u32, body_len: 0, key_len: 0, ..append };
            let begin = self.len + out.len() as u64;
            let events = run[0].0.start..run[run.len() - 1].0.end;
            header.put_body(seed, out, None, |to| to.extend(&whole[events.clone()]));
            for (event, record) in run {
                let offset = begin + (APPEND + event.start - events.start) as u64;
                self.index.push(offset as u32, record);
            }
        }
        Some(())
    }

    /// Whether an event has to be there: it is served, or says at a start what is the latest of its kind. Something empty and something that is
    /// no longer remembered say so too, unless the latest is on disk.
    fn stays(&self, log: &Log, record: &Record) -> bool {
        let sequence = record.position().sequence;
        if sequence > self.removed[log.rules.class_of(record.topics())] {
            return true;
        }
        if !log.rules.keeps_latest(record.topics()) {
            return false;
        }
        let latest = log.latest();
        latest.contains(sequence) || latest.of_kind(record).is_none_or(|newer| newer < sequence || newer > self.on_disk)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.files.remove(&segment_name(self.header.serial));
        }
    }
}
