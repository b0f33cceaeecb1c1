//! Reading a segment through: what is good in it, where it ends, and what is damage rather than a torn tail.
//!
//! It knows one file. What follows from a hole between two of them is recovery's.

use super::{
    files::File,
    format::{APPEND, APPEND_MAGIC, AppendHeader, EventFrame, SegmentHeader, append_checks},
    index::MemoryIndex,
};
use crate::store::{OnceKey, keys::Entry};
use bytes::Bytes;
use std::{io, ops::Range};
use tidings_core::{Record, Topic};

/// How much is read at once.
const WINDOW: usize = 1 << 20;
/// More numbers than these in one hole are not believed: the append behind it is not one of this segment.
const HOLE: u64 = 1 << 26;

/// How the end of a segment is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Everything before this offset was on disk.
    Known(u64),
    /// It may have been written until it ended, at this offset at the latest; what does not check at its end was not finished.
    Open(u64),
}

/// What was found.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) index: MemoryIndex,
    /// Keys of the appends (N-6).
    pub(super) keys: Vec<Entry>,
    /// Where the good part ends.
    pub(super) end: u64,
    /// The last sequence, or the one before the first.
    pub(super) last: u64,
    pub(super) accepted_at: u64,
    /// Everything before this offset was on disk, as far as the appends say.
    pub(super) synced: u64,
    /// Bytes of a torn tail.
    pub(super) torn: u64,
    /// Events that cannot be read, in between.
    pub(super) damaged: u64,
    /// Where bytes are that do not check, as offsets.
    pub(super) holes: Vec<Range<u64>>,
}

/// Reads a segment through and shows every good record.
pub(super) fn scan(file: &dyn File, header: &SegmentHeader, end: End, mut each: impl FnMut(&Record)) -> io::Result<Scan> {
    let file_len = file.len()?;
    let (End::Known(at) | End::Open(at)) = end;
    let limit = at.min(file_len);
    let mut window = Window::new(file, limit);
    let last = header.first.saturating_sub(1);
    let has_holes = header.has_holes();
    let index = if has_holes { MemoryIndex::with_holes() } else { MemoryIndex::default() };
    let (keys, holes, end_of_header) = (Vec::new(), Vec::new(), header.size());
    let mut scan = Scan { index, keys, end: end_of_header, last, accepted_at: 0, synced: 0, torn: 0, damaged: 0, holes };
    let mut at = end_of_header;
    while at < limit {
        if let Some(append) = window.append(header, at, scan.last + 1, has_holes)? {
            at = take(&mut scan, header, &mut window, at, append, &mut each)?;
            continue;
        }
        // Either a torn tail, or damage: then something behind it is good, and says that this place was on disk.
        let mut good = None;
        let mut from = at + 1;
        let mut was_synced = matches!(end, End::Known(_));
        while let Some((place, append)) = window.search(header, from, scan.last + 1)? {
            let len = append.body_len;
            was_synced |= append.synced > at;
            good.get_or_insert((place, append));
            if was_synced {
                break;
            }
            from = place + APPEND as u64 + u64::from(len);
        }
        match good {
            Some((place, append)) if was_synced => {
                scan.holes.push(at..place);
                if has_holes {
                    scan.index.push_damaged_at(append.first - 1);
                    scan.damaged += 1;
                } else {
                    for _ in scan.last + 1..append.first {
                        scan.index.push_damaged();
                        scan.damaged += 1;
                    }
                }
                scan.last = append.first - 1;
                at = place;
            }
            _ => {
                scan.torn = limit - at;
                break;
            }
        }
    }
    scan.end = at;
    if let Some(rewritten) = header.rewritten
        && (at < rewritten.len)
    {
        // Nothing else says that there was more.
        scan.index.push_damaged_at(rewritten.last);
        scan.damaged += 1;
    }
    Ok(scan)
}

/// Takes a good append over; where the next one begins.
fn take(
    scan: &mut Scan,
    header: &SegmentHeader,
    window: &mut Window<'_>,
    at: u64,
    append: AppendHeader,
    each: &mut impl FnMut(&Record),
) -> io::Result<u64> {
    let len = APPEND + append.body_len as usize;
    let body = Bytes::copy_from_slice(window.get(at, len)?);
    let mut from = APPEND + append.key_len as usize;
    if let Some(key) = body.get(APPEND..from).and_then(OnceKey::parse) {
        scan.keys.push(Entry { key, first: append.first, at: append.accepted_at });
    }
    let mut near: Vec<Topic> = Vec::new();
    for n in 0..u64::from(append.count) {
        let frame =
            body.get(from..).and_then(|bytes| EventFrame::parse(header.seed, bytes)).filter(|frame| frame.sequence == append.first + n);
        let record = frame.and_then(|frame| frame.record(header.epoch, &body.slice(from..from + frame.len), &near));
        let (Some(frame), Some(record)) = (frame, record) else {
            // The append checks, so these are the bytes that were written; a later version may mean something else by them.
            if header.has_holes() {
                scan.index.push_damaged_at(append.first + n);
            } else {
                scan.index.push_damaged();
            }
            scan.damaged += 1;
            scan.holes.push(at + from as u64..at + len as u64);
            continue;
        };
        let offset = (at + from as u64) as u32;
        scan.index.push(offset, &record);
        each(&record);
        if near != record.topics() {
            near = record.topics().to_vec();
        }
        from += frame.len;
    }
    scan.last = append.first + u64::from(append.count) - 1;
    (scan.accepted_at, scan.synced) = (append.accepted_at, scan.synced.max(append.synced));
    Ok(at + len as u64)
}

/// A part of a file in memory.
pub(super) struct Window<'a> {
    file: &'a dyn File,
    bytes: Vec<u8>,
    at: u64,
    limit: u64,
}

impl<'a> Window<'a> {
    /// Nothing of it beyond the limit is read.
    pub(super) fn new(file: &'a dyn File, limit: u64) -> Window<'a> {
        Window { file, bytes: Vec::new(), at: 0, limit }
    }
}

impl Window<'_> {
    /// The bytes at a place, or as many of them as there are.
    pub(super) fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(self.limit.saturating_sub(at) as usize);
        if at < self.at || at + len as u64 > self.at + self.bytes.len() as u64 {
            let wanted = len.max(WINDOW).min(self.limit.saturating_sub(at) as usize);
            self.bytes.resize(wanted, 0);
            let count = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(count);
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + len)])
    }

    /// What is in memory from a place on, and at least a header's worth.
    fn rest(&mut self, at: u64) -> io::Result<&[u8]> {
        let buffered = (self.at + self.bytes.len() as u64).saturating_sub(at) as usize;
        self.get(at, if at >= self.at && buffered >= APPEND { buffered } else { WINDOW })
    }

    /// The append at a place, if it is whole and checks and could stand there.
    pub(super) fn append(&mut self, header: &SegmentHeader, at: u64, next: u64, may_skip: bool) -> io::Result<Option<AppendHeader>> {
        let Some(append) = AppendHeader::parse(self.get(at, APPEND)?) else { return Ok(None) };
        let fits = append.first == next || (may_skip && append.first > next && (append.first - next < HOLE || header.has_holes()));
        let len = APPEND as u64 + u64::from(append.body_len);
        if !fits || append.epoch != header.epoch || append.count == 0 || append.key_len > append.body_len || at + len > self.limit {
            return Ok(None);
        }
        let whole = self.get(at, len as usize)?;
        Ok((whole.len() as u64 == len && append_checks(header.seed, whole)).then_some(append))
    }

    /// The next good append from a place on.
    fn search(&mut self, header: &SegmentHeader, mut from: u64, next: u64) -> io::Result<Option<(u64, AppendHeader)>> {
        while from + APPEND as u64 <= self.limit {
            let bytes = self.rest(from)?;
            let len = bytes.len() as u64;
            match bytes.windows(APPEND_MAGIC.len()).position(|four| four == APPEND_MAGIC) {
                Some(found) => {
                    let at = from + found as u64;
                    if let Some(append) = self.append(header, at, next, true)? {
                        return Ok(Some((at, append)));
                    }
                    from = at + 1;
                }
                None => from += len.saturating_sub(APPEND_MAGIC.len() as u64 - 1).max(1),
            }
        }
        Ok(None)
    }
}
