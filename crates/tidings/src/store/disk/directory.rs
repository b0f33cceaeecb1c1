//! A log's directory in an operator's hands: looked at, checked, read out, cut down, or begun anew.
//!
//! Looking changes nothing and works beside a running hub, which may go on meanwhile. Whatever writes needs the lock.

use super::{
    DiskOptions, OpenError, Parts, assemble,
    epoch::{self, Begun},
    files::{Directory, Files},
    format::{Missing, index_name, segment_name, serial_of},
    index::FileIndex,
    overlay::Overlay,
    segment::Segment,
    state, take,
    verify::{self, Finding, Verified},
};
use crate::{
    PrefixRule,
    store::{PageLimits, latest::Entry},
};
use std::{
    collections::BTreeMap,
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
    prefixes: Vec<PrefixRule>,
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
    /// Nothing up to this sequence is kept.
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
    /// Bytes of events in it that nobody can read any more: retention removed them, and something after or among them holds their place. When they
    /// are half of it a hub rewrites the segment without them.
    pub dead: u64,
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

/// A log that was begun with the events of another.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewEpoch {
    /// Its epoch.
    pub epoch: Epoch,
    /// How many events it has.
    pub events: u64,
    /// In how many places something could not be read and was left out.
    pub damaged: u64,
}

impl LogDirectory {
    /// A directory with a log in it.
    pub fn open(path: impl AsRef<Path>) -> Result<LogDirectory, OpenError> {
        let log = LogDirectory { path: path.as_ref().into(), prefixes: Vec::new() };
        let names = log.overlay().names().map_err(|error| log.unusable(error))?;
        if names.iter().any(|name| name == state::NAME || serial_of(name, "log").is_some()) {
            return Ok(log);
        }
        Err(log.unusable(io::Error::new(ErrorKind::NotFound, "there is no log in it")))
    }

    /// With the rules of the hub whose log it is: what is the latest of its kind outlives retention, and is only known by them.
    #[must_use]
    pub fn prefixes(self, prefixes: Vec<PrefixRule>) -> LogDirectory {
        LogDirectory { prefixes, ..self }
    }

    /// What is in it, as a hub would find it.
    pub fn inspect(&self) -> Result<LogReport, OpenError> {
        let report = || {
            let overlay = self.overlay();
            let closed = state::load(&*overlay).ok().flatten().map(|state| state.closed);
            let Parts { log, torn, .. } = self.parts(&overlay)?;
            let bounds = log.bounds();
            let floors = log.sight().floors;
            let (segments, dead, gaps, events) = {
                let view = log.view();
                // The books end at the floors; what is the latest of its kind is kept below them.
                let latest = log.latest();
                let is_below = |(sequence, entry): &(u64, &Entry)| *sequence <= floors[log.rules.class_of(&entry.topics)];
                let dead = |segment: &Arc<Segment>| (segment.header.serial, view.dead_in(&log.rules, &latest, segment));
                let dead: BTreeMap<u64, u64> = view.segments.iter().map(dead).collect();
                (view.segments.clone(), dead, view.gaps.clone(), view.ledger.events() + latest.iter().filter(is_below).count() as u64)
            };
            let size = |name: &str| overlay.open(name).and_then(|file| file.len()).unwrap_or(0);
            let segment = |segment: &Arc<Segment>| {
                let header = segment.header;
                let found = log.by_position(header.first - 1, |index, place, last| {
                    // One with holes stands for more numbers than it has events.
                    let Some(newest) = index.rank(header.first, last + 1)?.checked_sub(1) else { return Ok(None) };
                    let first = (index.sequence(header.first, 0)?, index.offset(0)?);
                    Ok(Some((place, first, index.sequence(header.first, newest)?)))
                })?;
                let found = found.and_then(|(found, _)| found);
                let (first, last) = found.map_or((header.first, segment.last), |(_, (first, _), last)| (first, last));
                let first_at = found.map(|(place, first, _)| log.accepted_at(place, first)).transpose()?.flatten();
                Ok(SegmentReport {
                    file: segment_name(header.serial),
                    first,
                    last,
                    dead: dead.get(&header.serial).copied().unwrap_or(0),
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
                floor: bounds.low,
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
            let Parts { log, .. } = self.parts(&self.overlay())?;
            let (sight, bounds, filter) = (log.sight(), log.bounds(), Filter::new(matchers.clone(), &Grant::full()));
            let mut after = match since {
                Some(moment) => log.since(moment, &filter)?.0,
                None => sight.low,
            };
            let page = PageLimits { bytes: limits::TAKEN_BYTES, events: usize::MAX, scanned: limits::PAGE_SCAN };
            while after < bounds.head {
                let page = log.read_beyond(after, bounds.head, &filter, &sight.floors, page)?;
                // What retention took is not missing here.
                let lost = page.lost.filter(|reason| *reason != GapReason::Evicted);
                if lost.is_some_and(|reason| !each(Err((after, reason)))) || !page.records.iter().all(|record| each(Ok(record))) {
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
    /// `hub` is how the hub keeps it, its rules for prefixes included: without that events come along that are no longer served and not yet removed,
    /// if some may be the latest of their kind. What is damaged cannot be told of in the new log, so it is an error unless told to begin `without_damaged`
    /// events. It is one too if the log is in use. It needs as much space again while it works.
    pub fn begin_new_epoch(&self, hub: Option<DiskOptions>, without_damaged: bool) -> Result<NewEpoch, OpenError> {
        let files = self.lock()?;
        match epoch::begin_new(&files, hub, without_damaged).map_err(|error| self.unusable(error))? {
            Begun::New { epoch, events, damaged } => Ok(NewEpoch { epoch, events, damaged }),
            Begun::Damaged(places) => Err(OpenError::Damaged { path: self.path.display().to_string(), places }),
        }
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

    /// The log, with nothing removed for its age or size.
    fn parts(&self, files: &Arc<dyn Files>) -> io::Result<Parts> {
        let options = DiskOptions {
            retention_bytes: u64::MAX,
            retention_events: u64::MAX,
            retention_age: None,
            prefixes: self.prefixes.clone(),
            ..DiskOptions::default()
        };
        assemble(files.clone(), options, Box::new(|| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::aside;
    use std::collections::BTreeSet;
    use tidings_core::TopicMatcher;

    /// Z-30: what stands aside is counted and read out once, by what the hub keeps; what was replaced or taken back is not.
    #[test]
    fn what_stands_aside_is_there_once() {
        let temporary = tempfile::tempdir().unwrap();
        {
            let files: Arc<dyn Files> = Arc::new(take(temporary.path()).unwrap());
            aside::tests::fill(&files);
        }
        let directory = LogDirectory::open(temporary.path()).unwrap().prefixes(aside::tests::options().prefixes);
        let (latest, served) = aside::tests::served(&directory.parts(&directory.overlay()).unwrap().log);
        assert_eq!(served.iter().collect::<BTreeSet<_>>().len(), served.len(), "each once");
        assert!(latest.iter().all(|event| served.contains(event)));

        let report = directory.inspect().unwrap();
        assert_eq!(report.events, served.len() as u64);
        let files = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap());
        assert_eq!(report.bytes, files.map(|entry| entry.metadata().unwrap().len()).sum::<u64>());
        let (first, others) = report.segments.split_first().unwrap();
        assert!(serial_of(&first.file, "log").is_some_and(|serial| serial & aside::ASIDE != 0));
        assert_eq!(first.bytes, fs::metadata(temporary.path().join(&first.file)).unwrap().len());
        // Times are sequences in this log, and the first six of its topics stand aside, three others after each.
        assert_eq!((first.first, first.last, first.first_at, first.last_at), (1, 21, Some(1), 21));
        assert!(others.iter().all(|other| other.first > first.last && !other.file.starts_with('8')));

        let read = |matchers: Matchers, since| {
            let mut events = Vec::new();
            let each = |event: Result<&Record, _>| {
                let event = event.unwrap();
                events.push(format!("{} {}", event.topics()[0], event.data()));
                true
            };
            directory.read(matchers, since, each).unwrap();
            events
        };
        assert_eq!(read(Matchers::all(), None), served);
        let below: Vec<_> = served.iter().filter(|event| event.starts_with("k/")).cloned().collect();
        assert_eq!(read(TopicMatcher::prefix("k").unwrap().into(), None), below);
        assert_eq!(read(Matchers::all(), Some(13)), served[1..].to_vec(), "after the first");
    }
}
