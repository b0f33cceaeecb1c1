//! A log's directory in an operator's hands: looked at, checked, read out, cut down, or begun anew.
//!
//! Looking changes nothing and works beside a running hub, which may go on meanwhile. Whatever writes needs the lock.

use super::{
    DiskOptions, OpenError, Parts, assemble, epoch,
    files::{Directory, Files},
    format::{Missing, index_name, segment_name, serial_of},
    index::FileIndex,
    overlay::Overlay,
    state, take,
    verify::{self, Finding, Verified},
};
use crate::store::PageLimits;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidings_core::{Epoch, Filter, GapReason, Grant, Matchers, Record, limits};

/// The directory of a log.
///
/// ```
/// use tidings::{DiskOptions, DiskStore, LogDirectory};
/// # let temporary = tempfile::tempdir()?;
/// # let path = temporary.path();
/// DiskStore::open(path, DiskOptions::default())?.close();
/// let log = LogDirectory::open(path)?;
/// assert_eq!(log.inspect()?.events, 0);
/// assert_eq!(log.verify(|finding| panic!("{finding:?}"))?.events, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
}

/// What is in a log. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogReport {
    /// The process that has the log open, if one does.
    pub used_by: Option<String>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it was closed properly; `None` if the state does not say.
    pub closed: Option<bool>,
    /// Everything after this sequence is kept.
    pub floor: u64,
    /// The newest sequence given out.
    pub head: u64,
    /// Events that are kept.
    pub events: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of an unfinished append at the end, which the next start cuts off.
    pub torn_bytes: u64,
    /// Finished and unfinished segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Runs of numbers that are missing.
    pub missing: Vec<MissingReport>,
}

/// A segment of a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its file.
    pub file: String,
    /// Sequence of its first event.
    pub first: u64,
    /// Sequence of its last event.
    pub last: u64,
    /// Bytes of the file and of its index.
    pub bytes: u64,
    /// Whether its index is there and checks; one that does not is made again when it is needed.
    pub indexed: bool,
    /// When its first event was accepted, if that can be read.
    pub first_at: Option<u64>,
    /// When its last event was accepted.
    pub last_at: u64,
}

/// Numbers without events.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MissingReport {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What readers are told; `None` for numbers that nobody was ever given.
    pub reason: Option<GapReason>,
}

impl LogDirectory {
    /// A directory with a log in it.
    pub fn open(path: impl AsRef<Path>) -> Result<LogDirectory, OpenError> {
        let log = LogDirectory { path: path.as_ref().into() };
        let names = log.overlay().names().map_err(|error| log.unusable(error))?;
        if names.iter().any(|name| name == state::NAME || serial_of(name, "log").is_some()) {
            return Ok(log);
        }
        Err(log.unusable(io::Error::new(ErrorKind::NotFound, "there is no log in it")))
    }

    /// What is in it, as a hub would find it.
    pub fn inspect(&self) -> Result<LogReport, OpenError> {
        let report = || {
            let overlay = self.overlay();
            let closed = state::load(&*overlay).ok().flatten().map(|state| state.closed);
            let Parts { log, torn, .. } = parts(&overlay)?;
            let bounds = log.bounds();
            let (segments, gaps, events) = {
                let view = log.view();
                (view.segments.clone(), view.gaps.clone(), view.ledger.events())
            };
            let size = |name: &str| overlay.open(name).and_then(|file| file.len()).unwrap_or(0);
            let segment = |segment: &Arc<super::segment::Segment>| {
                let header = segment.header;
                let first = log.by_position(header.first - 1, |index, place, _| {
                    Ok((place, (index.sequence(place.header.first, 0)?, index.offset(0)?)))
                })?;
                let first_at = first.map(|((place, event), _)| log.accepted_at(place, event)).transpose()?.flatten();
                Ok(SegmentReport {
                    file: segment_name(header.serial),
                    first: header.first,
                    last: segment.last,
                    bytes: size(&segment_name(header.serial)) + size(&index_name(header.serial)),
                    indexed: FileIndex::open(&*log.files, header.serial).is_ok(),
                    first_at,
                    last_at: segment.accepted_at,
                })
            };
            let missing = gaps.iter().map(|gap| MissingReport { first: gap.after + 1, last: gap.through, reason: gap.reason() });
            Ok(LogReport {
                used_by: self.used_by(),
                epoch: bounds.epoch,
                closed,
                floor: bounds.floor,
                head: gaps
                    .iter()
                    .filter(|gap| gap.why == Missing::Unused && gap.through == bounds.head)
                    .fold(bounds.head, |_, gap| gap.after),
                events,
                bytes: overlay.names()?.iter().map(|name| size(name)).sum(),
                torn_bytes: torn,
                segments: segments.iter().map(segment).collect::<io::Result<_>>()?,
                missing: missing.collect(),
            })
        };
        report().map_err(|error| self.unusable(error))
    }

    /// Checks every checksum, and says what was found, damage or not. Beside a running hub what it writes at that moment may look like the end
    /// of an unfinished append.
    pub fn verify(&self, mut found: impl FnMut(Finding)) -> Result<Verified, OpenError> {
        verify::verify(&self.overlay(), &mut found).map_err(|error| self.unusable(error))
    }

    /// Shows the kept events, private ones included, of these topics and accepted since a moment, in order, until told to stop. What is missing among them is
    /// shown as the place before it and the reason.
    pub fn read(
        &self,
        matchers: Matchers,
        since: Option<u64>,
        mut each: impl FnMut(Result<&Record, (u64, GapReason)>) -> bool,
    ) -> Result<(), OpenError> {
        let mut read = || {
            let Parts { log, .. } = parts(&self.overlay())?;
            let (sight, bounds, filter) = (log.sight(), log.bounds(), Filter::new(matchers.clone(), &Grant::full()));
            let mut after = match since {
                Some(moment) => log.since(moment, &filter)?.0,
                None => sight.low,
            };
            let page = PageLimits { bytes: limits::TAKEN_BYTES, events: usize::MAX, scanned: limits::PAGE_SCAN };
            while after < bounds.head {
                let page = log.read_beyond(after, bounds.head, &filter, &sight.floors, page)?;
                if page.lost.is_some_and(|reason| !each(Err((after, reason)))) || !page.records.iter().all(|record| each(Ok(record))) {
                    return Ok(());
                }
                after = page.covered_through;
            }
            Ok(())
        };
        read().map_err(|error| self.unusable(error))
    }

    /// Applies retention once, as a hub with these options would over time; the bytes of all files before and after. `now` is in
    /// milliseconds since 1970. An error if the log is in use.
    pub fn compact(&self, options: DiskOptions, now: u64) -> Result<(u64, u64), OpenError> {
        let files = self.lock()?;
        let compact = || {
            let size = || -> io::Result<u64> { files.names()?.iter().map(|name| files.open(name)?.len()).sum() };
            let before = size()?;
            let Parts { writer, keeper, .. } = assemble(files.clone(), options, Box::new(|| ()))?;
            keeper.work(Some(now));
            writer.queue.close();
            writer.run();
            Ok((before, size()?))
        };
        compact().map_err(|error| self.unusable(error))
    }

    /// Begins a new log with the kept events of this one: another epoch, numbers from 1. Readers with a cursor of the old one are told `epoch`, and get everything.
    /// The new epoch, and how many events there are. An error if the log is in use; it needs as much space again while it works.
    pub fn begin_new_epoch(&self) -> Result<(Epoch, u64), OpenError> {
        let files = self.lock()?;
        epoch::begin_new(&files).map_err(|error| self.unusable(error))
    }

    fn overlay(&self) -> Arc<dyn Files> {
        Arc::new(Overlay::new(self.path.clone()))
    }

    fn lock(&self) -> Result<Arc<dyn Files>, OpenError> {
        take(&self.path).map(|directory: Directory| Arc::new(directory) as Arc<dyn Files>)
    }

    /// The process that holds the lock.
    fn used_by(&self) -> Option<String> {
        let path = self.path.join("lock");
        let held = matches!(fs::File::open(&path).ok()?.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
        held.then(|| fs::read_to_string(&path).unwrap_or_default())
    }

    fn unusable(&self, error: io::Error) -> OpenError {
        OpenError::Io { path: self.path.display().to_string(), error }
    }
}

/// The log, with nothing removed for its age or size.
fn parts(files: &Arc<dyn Files>) -> io::Result<Parts> {
    let options = DiskOptions { retention_bytes: u64::MAX, retention_events: u64::MAX, retention_age: None, ..DiskOptions::default() };
    assemble(files.clone(), options, Box::new(|| ()))
}
