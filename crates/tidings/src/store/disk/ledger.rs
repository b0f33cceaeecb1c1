//! The books of retention: of each class how many events and bytes there are, in runs from the oldest on, and where its floor is.
//!
//! It knows numbers and sizes, no file and no event. What it says of a segment follows from the segment alone, so that after a restart it
//! says the same again.

use super::{
    files::{Files, read_whole},
    format::{check_version, invalid, u32_at, u64_at},
};
use crate::store::retention::{Class, Limits, Rules};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
};
use tidings_core::{Epoch, Record};

/// Runs that a class at its limit is divided into, by number and by bytes or age: retention takes so large a part of it at a time. What is
/// hidden by number costs nothing more; what is removed is put on disk first.
const PARTS: (u64, u64) = (256, 16);
pub(super) const NAME: &str = "ledger";
const NEW: &str = "ledger.new";
const MAGIC: &[u8; 8] = b"TIDBOOK\n";
const HEADER: usize = 16;

/// Events of one class in one segment that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) segment: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// When its first event was accepted, and its last.
    pub(super) from: u64,
    pub(super) accepted_at: u64,
}

/// One class.
#[derive(Clone, Debug, Default)]
struct Account {
    runs: VecDeque<Run>,
    events: u64,
    bytes: u64,
    floor: u64,
    /// A run is no longer than this, in events, bytes and milliseconds.
    step: (u64, u64, u64),
}

/// All classes.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    accounts: Vec<Account>,
    /// Bytes of all events that a segment had when it was written, by its serial.
    written: BTreeMap<u64, u64>,
}

/// Bytes of an event in a segment.
pub(super) fn bytes_of(record: &Record) -> u64 {
    (super::format::EVENT + record.stored_len()) as u64
}

impl Ledger {
    /// Empty books with these floors.
    pub(super) fn new(classes: &[Class], floors: &[u64]) -> Ledger {
        let account = |(class, &floor): (&Class, &u64)| {
            let Limits { bytes, events, age_ms } = class.limits;
            // By bytes and by age the first class goes by whole segments: all else takes care that they can be removed.
            let others = if class.prefix.is_empty() { u64::MAX } else { 1 };
            let part = |limit: u64| (limit / PARTS.1).max(1).saturating_mul(others);
            let step = ((events / PARTS.0).max(1), part(bytes), age_ms.map_or(u64::MAX, part));
            Account { floor, step, ..Account::default() }
        };
        Ledger { accounts: classes.iter().zip(floors).map(account).collect(), written: BTreeMap::new() }
    }

    /// Events above the floor of their class.
    pub(super) fn events(&self) -> u64 {
        self.accounts.iter().map(|account| account.events).sum()
    }

    /// The next event of the log.
    pub(super) fn push(&mut self, class: usize, segment: u64, record: &Record) {
        let (sequence, accepted_at) = (record.position().sequence, record.accepted_at());
        let bytes = bytes_of(record);
        *self.written.entry(segment).or_default() += bytes;
        let account = &mut self.accounts[class];
        if sequence <= account.floor {
            return;
        }
        (account.events, account.bytes) = (account.events + 1, account.bytes + bytes);
        let (events, most, time) = account.step;
        match account.runs.back_mut() {
            Some(run)
                if run.segment == segment && run.events < events && run.bytes < most && accepted_at.saturating_sub(run.from) < time =>
            {
                (run.last, run.accepted_at) = (sequence, accepted_at);
                (run.events, run.bytes) = (run.events + 1, run.bytes + bytes);
            }
            _ => {
                let (first, last, from) = (sequence, sequence, accepted_at);
                account.runs.push_back(Run { segment, first, last, events: 1, bytes, from, accepted_at });
            }
        }
    }

    /// Moves floors on until no class has more events than it may; whether one moved.
    pub(super) fn trim(&mut self, classes: &[Class]) -> bool {
        let mut moved = false;
        for (account, class) in self.accounts.iter_mut().zip(classes) {
            while account.events > class.limits.events && account.pop().is_some() {
                moved = true;
            }
        }
        moved
    }

    /// Where the floor of a class would be if it kept no more bytes than it may, taking so many bytes of disk for each byte of a segment's events,
    /// and nothing accepted before a moment. Runs of a segment may be left out of it.
    pub(super) fn due(&self, class: usize, limits: Limits, before: Option<u64>, cost: impl Fn(&Run) -> u64, spared: Option<u64>) -> u64 {
        let account = &self.accounts[class];
        let mut total: u64 = account.runs.iter().map(&cost).sum();
        let mut floor = account.floor;
        for run in &account.runs {
            let too_old = before.is_some_and(|before| run.accepted_at < before);
            if Some(run.segment) == spared || (total <= limits.bytes && !too_old) {
                break;
            }
            total -= cost(run);
            floor = run.last;
        }
        floor
    }

    /// Moves a floor on.
    pub(super) fn raise(&mut self, class: usize, floor: u64) {
        let account = &mut self.accounts[class];
        while account.runs.front().is_some_and(|run| run.last <= floor) {
            account.pop();
        }
        account.floor = account.floor.max(floor);
    }

    pub(super) fn floors(&self) -> impl Iterator<Item = u64> {
        self.accounts.iter().map(|account| account.floor)
    }

    /// The highest floor of those classes that have something, or of all if none has: nothing but the latest of a kind is below it.
    pub(super) fn low(&self) -> u64 {
        let filled = self.accounts.iter().filter(|account| account.events > 0).map(|account| account.floor);
        filled.min().or(self.floors().max()).unwrap_or(0)
    }

    /// Events after a place were lost after all.
    pub(super) fn truncate(&mut self, after: u64) {
        for account in &mut self.accounts {
            while let Some(run) = account.runs.back_mut().filter(|run| run.last > after) {
                if run.first > after {
                    (account.events, account.bytes) = (account.events - run.events, account.bytes - run.bytes);
                    account.runs.pop_back();
                } else {
                    // How many of them is not known; that some seem to be there that are not does no harm.
                    run.last = after;
                    break;
                }
            }
        }
    }

    /// Bytes of the events of a segment that are above their floors.
    pub(super) fn kept_of(&self, serial: u64) -> u64 {
        let runs = self.accounts.iter().flat_map(|account| &account.runs).filter(|run| run.segment == serial);
        runs.map(|run| run.bytes).sum()
    }

    /// Of each segment how many bytes of its events are above their floors, and how many of these are of a class whose floor is in the segment:
    /// they are the next to go.
    pub(super) fn kept(&self, first_of: &BTreeMap<u64, u64>) -> BTreeMap<u64, (u64, u64)> {
        let mut all: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for account in &self.accounts {
            for run in &account.runs {
                let (kept, next) = all.entry(run.segment).or_default();
                *kept += run.bytes;
                if first_of.get(&run.segment).is_some_and(|&first| first <= account.floor) {
                    *next += run.bytes;
                }
            }
        }
        all
    }

    /// Bytes of all events that a segment had when it was written.
    pub(super) fn written_of(&self, serial: u64) -> u64 {
        self.written.get(&serial).copied().unwrap_or(0)
    }

    /// A segment is gone, or others are in its place.
    pub(super) fn forget(&mut self, serial: u64) {
        self.written.remove(&serial);
    }

    /// A segment was rewritten: it has another serial, and so many bytes of events. None of those above their floors are missing.
    pub(super) fn rename(&mut self, before: u64, serial: u64, written: u64) {
        for run in self.accounts.iter_mut().flat_map(|account| &mut account.runs).filter(|run| run.segment == before) {
            run.segment = serial;
        }
        self.written.remove(&before);
        self.written.insert(serial, written);
    }

    /// The books of one segment, to be added to others that end before it.
    pub(super) fn append(&mut self, later: &Ledger) {
        for (account, later) in self.accounts.iter_mut().zip(&later.accounts) {
            let kept = later.runs.iter().filter(|run| run.last > account.floor);
            for run in kept {
                (account.events, account.bytes) = (account.events + run.events, account.bytes + run.bytes);
                account.runs.push_back(*run);
            }
        }
        self.written.extend(&later.written);
    }
}

impl Account {
    fn pop(&mut self) -> Option<()> {
        let run = self.runs.pop_front()?;
        (self.events, self.bytes) = (self.events - run.events, self.bytes - run.bytes);
        self.floor = self.floor.max(run.last);
        Some(())
    }
}

/// What the books were kept by: with other rules they say nothing.
fn terms(rules: &Rules, ledger: &Ledger) -> Vec<u8> {
    let mut terms = Vec::new();
    for (class, account) in rules.classes().iter().zip(&ledger.accounts) {
        terms.extend((class.prefix.len() as u16).to_le_bytes());
        terms.extend(class.prefix.as_bytes());
        for number in [account.step.0, account.step.1, account.step.2] {
            terms.extend(number.to_le_bytes());
        }
    }
    terms
}

/// Writes down what is known of finished segments, by serial with how many of their bytes count, as far as that works: it saves reading
/// them through.
pub(super) fn save(files: &dyn Files, epoch: Epoch, rules: &Rules, ledger: &Ledger, finished: &BTreeMap<u64, u64>) {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(super::format::VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(epoch.0.to_le_bytes());
    let terms = terms(rules, ledger);
    bytes.extend((terms.len() as u32).to_le_bytes());
    bytes.extend(terms);
    let written: Vec<_> = ledger.written.iter().filter_map(|(serial, total)| Some((serial, finished.get(serial)?, total))).collect();
    bytes.extend((written.len() as u32).to_le_bytes());
    for (serial, len, total) in written {
        for number in [serial, len, total] {
            bytes.extend(number.to_le_bytes());
        }
    }
    for floor in ledger.floors() {
        bytes.extend(floor.to_le_bytes());
    }
    for (class, account) in ledger.accounts.iter().enumerate() {
        for run in account.runs.iter().filter(|run| finished.contains_key(&run.segment)) {
            for number in [class as u64, run.segment, run.first, run.last, run.events, run.bytes, run.from, run.accepted_at] {
                bytes.extend(number.to_le_bytes());
            }
        }
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let write = || {
        let _ = files.remove(NEW);
        files.create(NEW)?.write_at(&bytes, 0)?;
        files.rename(NEW, NAME)
    };
    if let Err(error) = write() {
        // On a full disk it would take the room that removing needs.
        let _ = files.remove(NEW);
        tracing::warn!(%error, "the books of retention could not be written; the next start reads the log through");
    }
}

/// What is known of segments. `blank` are empty books.
pub(super) fn load(files: &dyn Files, epoch: Epoch, rules: &Rules, blank: &Ledger) -> Known {
    let read = || -> io::Result<Known> {
        parse(&read_whole(files, NAME)?, epoch, rules, blank).ok_or_else(|| invalid("it does not check, or is of other rules"))
    };
    read().unwrap_or_else(|error| {
        tracing::debug!(%error, "there are no books of retention; the log is read through");
        Known::default()
    })
}

/// What was written down.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The floors then. They follow from the log as well, but only together with the runs that were below them.
    pub(super) floors: Vec<u64>,
    /// The books of segments, by serial and length.
    pub(super) segments: BTreeMap<(u64, u64), Ledger>,
}

fn parse(bytes: &[u8], epoch: Epoch, rules: &Rules, blank: &Ledger) -> Option<Known> {
    let (contents, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let checks = contents.len() >= HEADER + 4 && contents[..8] == *MAGIC && crc32c::crc32c(contents) == u32_at(checksum, 0);
    if !checks || check_version(contents, "the books of retention").is_err() || u32_at(contents, 12) != epoch.0 {
        return None;
    }
    let (len, rest) = contents[HEADER..].split_at_checked(4)?;
    let (terms_then, rest) = rest.split_at_checked(u32_at(len, 0) as usize)?;
    if terms_then != terms(rules, blank) {
        return None;
    }
    let (count, rest) = rest.split_at_checked(4)?;
    let (written, runs) = rest.split_at_checked(24 * u32_at(count, 0) as usize)?;
    let (floors, runs) = runs.split_at_checked(8 * blank.accounts.len())?;
    let mut found: BTreeMap<u64, Ledger> = BTreeMap::new();
    let mut lengths = BTreeMap::new();
    for entry in written.chunks_exact(24) {
        let mut books = blank.clone();
        books.written.insert(u64_at(entry, 0), u64_at(entry, 16));
        lengths.insert(u64_at(entry, 0), u64_at(entry, 8));
        found.insert(u64_at(entry, 0), books);
    }
    for entry in runs.chunks_exact(64) {
        let number = |n: usize| u64_at(entry, 8 * n);
        let run = Run {
            segment: number(1),
            first: number(2),
            last: number(3),
            events: number(4),
            bytes: number(5),
            from: number(6),
            accepted_at: number(7),
        };
        let account = found.get_mut(&run.segment)?.accounts.get_mut(number(0) as usize)?;
        account.runs.push_back(run);
    }
    let floors = floors.chunks_exact(8).map(|floor| u64_at(floor, 0)).collect();
    let segments = found.into_iter().filter_map(|(serial, books)| Some(((serial, *lengths.get(&serial)?), books))).collect();
    Some(Known { floors, segments })
}
