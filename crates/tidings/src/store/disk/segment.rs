//! One segment as readers see it: which events of it may be wanted, and the events themselves.
//!
//! It knows its own numbers. Which segments there are, and what retention hides of them, is the log's.

use super::{
    cached::Cached,
    files::{File, Files},
    format::{EVENT, EventFrame, FOOTER, SegmentHeader, segment_name},
    index::{DAMAGED, FileIndex, Index, List, MemoryIndex, Names, UNREADABLE},
    scan::{End, scan},
};
use bytes::Bytes;
use std::{
    io::{self, ErrorKind},
    sync::{Arc, Mutex, PoisonError},
};
use tidings_core::{Key, Matchers, Record, Topic, TopicMatcher};

/// Bytes of one read. Large enough that the call costs nothing per event, small enough for a thousand readers.
const CHUNK: u64 = 128 << 10;
/// Wanted events this near to each other are read at once.
pub(super) const NEAR: u32 = 4_096;
/// Read of an event whose length is not known yet: twice what the one before it had, within these bounds.
const GUESS: (u64, u64) = (256, 2_048);
/// A rewritten segment of no more bytes has no index on disk.
const SMALL: u64 = 1 << 10;
/// A question that concerns more names than these is answered by looking at every event.
const LISTS: usize = 256;
/// So is one for which more names than these would have to be looked at.
const LOOKED: usize = 1 << 16;

/// A finished segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) last: u64,
    /// Bytes that count, without the footer.
    pub(super) len: u64,
    pub(super) accepted_at: u64,
    index: Mutex<Kept>,
}

/// Where its index is.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Memory(Arc<MemoryIndex>),
    File(Arc<FileIndex>),
}

impl Segment {
    pub(super) fn new(header: SegmentHeader, last: u64, len: u64, accepted_at: u64, index: Kept) -> Segment {
        Segment { header, last, len, accepted_at, index: Mutex::new(index) }
    }

    /// Bytes of its file.
    pub(super) fn file_len(&self) -> u64 {
        self.len + if self.header.rewritten.is_some() { 0 } else { FOOTER as u64 }
    }

    /// Whether so little is left of it that its index would take more: that is made again at a start, and stays in memory.
    pub(super) fn is_small(&self) -> bool {
        self.header.rewritten.is_some() && self.len <= SMALL
    }

    /// Bytes of all its files but that of its keys.
    pub(super) fn taken(&self) -> u64 {
        let index = if let Kept::File(index) = self.kept() { index.len } else { 0 };
        self.file_len() + index
    }

    pub(super) fn kept(&self) -> Kept {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_kept(&self, index: Kept) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = index;
    }

    /// Asks the index. One that does not check is made again from the segment.
    pub(super) fn ask<T>(&self, files: &Cached, question: impl Fn(&dyn Index) -> io::Result<T>) -> io::Result<T> {
        let asked = match self.kept() {
            Kept::Memory(index) => return question(&*index),
            Kept::File(index) => question(&index.reader(files)),
        };
        match asked {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound) => {
                let file = files.open(&segment_name(self.header.serial))?;
                tracing::warn!(%error, serial = self.header.serial, "an index is made again from its segment");
                let index = Arc::new(scan(&*file, &self.header, End::Known(self.len), |_| ())?.index);
                self.set_kept(Kept::Memory(index.clone()));
                question(&*index)
            }
            other => other,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place { header: self.header, len: self.len }
    }
}

/// What is needed to read events of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) header: SegmentHeader,
    pub(super) len: u64,
}

/// Events that may be wanted: sequence and offset, ascending; and up to which sequence all of those are among them.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) events: Vec<(u64, u32)>,
    pub(super) through: u64,
}

/// A part of a segment that is asked for events: after a sequence and up to another that is in it, and about how many of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) limit: usize,
}

impl Part {
    /// The first event, and the one after the last.
    fn range(&self, index: &dyn Index) -> io::Result<(u32, u32)> {
        Ok((index.rank(self.first, self.after + 1)?, index.rank(self.first, self.through + 1)?))
    }

    fn places(&self, index: &dyn Index, events: Vec<u32>) -> io::Result<Vec<(u64, u32)>> {
        events.into_iter().map(|event| Ok((index.sequence(self.first, event)?, index.offset(event)?))).collect()
    }
}

/// The oldest events of a part that these matchers may want.
pub(super) fn candidates(index: &dyn Index, matchers: &Matchers, part: Part) -> io::Result<Candidates> {
    let (from, all) = part.range(index)?;
    let (mut found, mut end) = (Vec::new(), all);
    let by_name = by_names(index, matchers, &mut |list| {
        let start = list.below(from)?;
        for at in start..list.len() {
            let event = list.get(at)?;
            if event >= end {
                break;
            }
            found.push(event);
            if at - start + 1 >= part.limit {
                end = event + 1;
                break;
            }
        }
        Ok(())
    })?;
    if by_name {
        found.sort_unstable();
        found.dedup();
        found.truncate(found.partition_point(|&event| event < end));
    } else {
        end = all.min(from.saturating_add(u32::try_from(part.limit).unwrap_or(u32::MAX)));
        found = (from..end).collect();
    }
    let through = if end < all { index.sequence(part.first, end - 1)? } else { part.through };
    Ok(Candidates { events: part.places(index, found)?, through })
}

/// The newest events of a part that these matchers may want, ascending; all events from the first of them on that may be wanted are among
/// them.
pub(super) fn newest_candidates(index: &dyn Index, matchers: &Matchers, part: Part) -> io::Result<Vec<(u64, u32)>> {
    let (from, to) = part.range(index)?;
    let (mut found, mut since) = (Vec::new(), from);
    let by_name = by_names(index, matchers, &mut |list| {
        let end = list.below(to)?;
        let first = end.saturating_sub(part.limit);
        for at in (first..end).rev() {
            let event = list.get(at)?;
            if event < since {
                break;
            }
            found.push(event);
            // What is older than the last one of a list that was cut off is not all there.
            if at == first && first > 0 {
                since = event;
            }
        }
        Ok(())
    })?;
    if by_name {
        found.retain(|&event| event >= since);
        found.sort_unstable();
        found.dedup();
        found.drain(..found.len().saturating_sub(part.limit));
    } else {
        found = (to.saturating_sub(part.limit as u32).max(from)..to).collect();
    }
    part.places(index, found)
}

/// Shows the lists of all names that these matchers match; false if there are too many, so that it is cheaper to look at every event.
fn by_names(index: &dyn Index, matchers: &Matchers, each: &mut dyn FnMut(&List<'_>) -> io::Result<()>) -> io::Result<bool> {
    let (mut looked, mut lists) = (0, 0);
    let unreadable = Range::One(UNREADABLE.to_owned());
    let ranges = matchers.as_slice().iter().flat_map(ranges).chain([Some((unreadable, None))]);
    for range in ranges {
        let Some((range, matcher)) = range else { return Ok(false) };
        if matches!(&range, Range::One(name) if !index.may_have(Names::Topics, name)) {
            continue;
        }
        index.visit(Names::Topics, range.first(), &mut |name, list| {
            if !range.contains(name) {
                return Ok(false);
            }
            looked += 1;
            if looked > LOOKED {
                return Ok(false);
            }
            // Each name is asked about once, however many events it has.
            if matcher.is_some_and(|matcher| !matcher.matches_name(name)) {
                return Ok(true);
            }
            lists += 1;
            if lists <= LISTS {
                each(&list)?;
            }
            Ok(lists <= LISTS && !matches!(range, Range::One(_)))
        })?;
        if lists > LISTS || looked > LOOKED {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names that lie together in byte order.
#[derive(Debug)]
enum Range {
    One(String),
    /// From one name up to another.
    Between(String, String),
    /// Those that begin with this.
    Beginning(String),
}

impl Range {
    fn first(&self) -> &str {
        match self {
            Range::One(first) | Range::Between(first, _) | Range::Beginning(first) => first,
        }
    }

    /// Whether a name that does not come before the first is in it.
    fn contains(&self, name: &str) -> bool {
        match self {
            Range::One(one) => *name == **one,
            Range::Between(_, end) => *name < **end,
            Range::Beginning(head) => name.starts_with(&**head),
        }
    }
}

/// The names that a matcher may match, and the matcher if it has to be asked about each of them; nothing if it matches every name.
fn ranges(matcher: &TopicMatcher) -> Vec<Option<(Range, Option<&TopicMatcher>)>> {
    match matcher.key() {
        Key::All => vec![None],
        Key::Exact(name) => vec![Some((Range::One(name.to_owned()), None))],
        // With a slash in front or without; itself, and everything between `name/` and `name0`, for `0` follows `/`.
        Key::Prefix(name) => ["", "/"]
            .into_iter()
            .flat_map(|slash| {
                let below = Range::Between(format!("{slash}{name}/"), format!("{slash}{name}0"));
                [Some((Range::One(format!("{slash}{name}")), None)), Some((below, None))]
            })
            .collect(),
        Key::Head(head) => vec![Some((Range::Beginning(head.to_owned()), Some(matcher)))],
    }
}

/// Reads events, in order, until `take` has had enough. An event that cannot be read is `None`.
pub(super) fn fetch(
    files: &dyn Files,
    place: Place,
    events: &[(u64, u32)],
    mut take: impl FnMut(u64, Option<Record>) -> bool,
) -> io::Result<()> {
    let file = files.open(&segment_name(place.header.serial))?;
    let mut near: Vec<Topic> = Vec::new();
    let (mut alone, mut guess) = (Vec::new(), GUESS.1);
    let mut rest = events;
    while let Some(&(first, start)) = rest.first() {
        if start == DAMAGED {
            if !take(first, None) {
                return Ok(());
            }
            rest = &rest[1..];
            continue;
        }
        let together = rest.windows(2).take_while(|pair| {
            let (before, after) = (pair[0].1, pair[1].1);
            after != DAMAGED && after - before <= NEAR && u64::from(after - start) + GUESS.1 <= CHUNK
        });
        let (run, others) = rest.split_at(together.count() + 1);
        rest = others;
        let (last, last_at) = run[run.len() - 1];
        let end = (u64::from(last_at) + guess).min(place.len);
        let len = end.saturating_sub(start.into()) as usize;
        // Sharing the chunk keeps all of it in memory for as long as one of its events is held.
        let dense = run.len() > 1 && (last - first) as usize <= 2 * run.len();
        let shared = if dense { Some(read(&*file, start.into(), len)?) } else { None };
        let chunk = match &shared {
            Some(chunk) => &**chunk,
            None => read_into(&*file, start.into(), len, &mut alone)?,
        };
        for &(sequence, offset) in run {
            let record = event_at(&*file, &place, chunk, shared.as_ref(), offset, (offset - start) as usize)?;
            if let Some((_, bytes)) = &record {
                guess = (2 * bytes.len() as u64).clamp(GUESS.0, GUESS.1);
            }
            let record = record.filter(|(frame, _)| frame.sequence == sequence);
            let record = record.and_then(|(frame, bytes)| frame.record(place.header.epoch, &bytes, &near));
            let damaged = record.is_none();
            if damaged {
                tracing::error!(
                    serial = place.header.serial,
                    offset,
                    sequence,
                    "an event on disk is damaged; its readers are told of a gap"
                );
            }
            if let Some(record) = record.as_ref().filter(|record| near != record.topics()) {
                near = record.topics().to_vec();
            }
            if !take(sequence, record) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The event at an offset, out of a chunk that begins so far before it, or by a read of its own if it is not all in there.
fn event_at(
    file: &dyn File,
    place: &Place,
    chunk: &[u8],
    shared: Option<&Bytes>,
    offset: u32,
    from: usize,
) -> io::Result<Option<(EventFrame, Bytes)>> {
    let seed = place.header.seed;
    let bytes = chunk.get(from..).unwrap_or_default();
    let len = match EventFrame::len_at(bytes) {
        Some(len) => len,
        None => {
            let head = read(file, offset.into(), EVENT)?;
            let Some(len) = EventFrame::len_at(&head) else { return Ok(None) };
            len
        }
    };
    if u64::from(offset) + len as u64 > place.len {
        return Ok(None);
    }
    let whole = match (bytes.get(..len), shared) {
        (Some(_), Some(chunk)) => chunk.slice(from..from + len),
        (Some(bytes), None) => Bytes::copy_from_slice(bytes),
        (None, _) => read(file, offset.into(), len)?,
    };
    Ok(EventFrame::parse(seed, &whole).map(|frame| (frame, whole)))
}

/// Reads into a buffer that is used again.
fn read_into<'a>(file: &dyn File, at: u64, len: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let count = file.read_at(&mut buffer[..len], at)?;
    Ok(&buffer[..count])
}

fn read(file: &dyn File, at: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, at)?;
    bytes.truncate(count);
    Ok(bytes.into())
}
