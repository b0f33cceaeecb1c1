//! The bytes of segments and of the state, as `docs/formats/log.md` draws them. It knows no file.

use super::keyring::KEY;
use crate::store::OnceKey;
use std::io;
use tidings_core::{Epoch, GapReason, Position, Record, Topic};

/// Of most files.
pub(super) const VERSION: u16 = 1;
/// Of the state: since 2 it tells what each class of retention removed, since 3 there may be segments that were rewritten. That a directory
/// holds what only this version understands is said here, so that an older one refuses it.
const STATE_VERSION: u16 = 3;
/// Of a segment that was rewritten.
const REWRITTEN_VERSION: u16 = 2;
pub(super) const HEADER: usize = 64;
/// What follows the header of a segment that was rewritten.
pub(super) const REWRITTEN: usize = 32;
pub(super) const APPEND: usize = 48;
pub(super) const EVENT: usize = 24;
pub(super) const FOOTER: usize = 40;

const SEGMENT_MAGIC: &[u8; 8] = b"TIDLOG\r\n";
const STATE_MAGIC: &[u8; 8] = b"TIDSTATE";
pub(super) const APPEND_MAGIC: [u8; 4] = *b"TIDA";
const FOOTER_MAGIC: [u8; 4] = *b"TIDF";

/// A file that is not what it should be.
pub(super) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The version at its place in a file that begins with a magic; a newer one is said, and not guessed at.
pub(super) fn check_version(bytes: &[u8], what: &str) -> io::Result<()> {
    version_up_to(bytes, what, VERSION).map(drop)
}

pub(super) fn version_up_to(bytes: &[u8], what: &str, newest: u16) -> io::Result<u16> {
    match u16_at(bytes, 8) {
        0 => Err(invalid(format!("{what} has version 0, which never was"))),
        other if other > newest => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{what} has version {other}, this program reads up to {newest}; use a newer one, or another directory"),
        )),
        known => Ok(known),
    }
}

/// Serials count in steps of one; how often a segment was rewritten stands above this bit of its serial.
pub(super) const GENERATION: u64 = 1 << 48;

/// A serial without how often its segment was rewritten: its place among the others.
pub(super) fn place_of(serial: u64) -> u64 {
    serial % GENERATION
}

/// What the header of a segment that was rewritten says beside: its numbers have holes, so they do not say where it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rewritten {
    /// It stands for all numbers up to this one.
    pub(super) last: u64,
    /// How long its file is.
    pub(super) len: u64,
    /// When the last event was accepted, whether it is still there or not.
    pub(super) accepted_at: u64,
    /// How many events it has.
    pub(super) events: u32,
}

/// The beginning of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) epoch: Epoch,
    pub(super) serial: u64,
    pub(super) first: u64,
    /// The last sequence kept before it.
    pub(super) follows: u64,
    /// How much of the segment before it counts.
    pub(super) prior_len: u64,
    pub(super) created: u64,
    /// Where the checksums of this segment begin: random and never told, so that nobody can publish data that reads as an append.
    pub(super) seed: u32,
    pub(super) rewritten: Option<Rewritten>,
}

impl SegmentHeader {
    /// How many bytes it takes: the first append follows.
    pub(super) fn size(&self) -> u64 {
        (HEADER + self.rewritten.map_or(0, |_| REWRITTEN)) as u64
    }

    /// Whether its numbers have holes: it was rewritten, or stands aside.
    pub(super) fn has_holes(&self) -> bool {
        self.serial >= GENERATION
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        let version = if self.rewritten.is_some() { REWRITTEN_VERSION } else { VERSION };
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        for (n, number) in [self.serial, self.first, self.follows, self.prior_len, self.created].into_iter().enumerate() {
            bytes[16 + 8 * n..24 + 8 * n].copy_from_slice(&number.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.seed.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        if let Some(Rewritten { last, len, accepted_at, events }) = self.rewritten {
            for number in [last, len, accepted_at] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(events.to_le_bytes());
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend(checksum.to_le_bytes());
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> io::Result<SegmentHeader> {
        if bytes.len() < HEADER || bytes[..8] != *SEGMENT_MAGIC {
            return Err(invalid("not the beginning of a segment"));
        }
        // Checked first: a flipped bit is not a newer version.
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(invalid("the header of a segment does not check"));
        }
        let rewritten = match version_up_to(bytes, "a segment", REWRITTEN_VERSION)? {
            VERSION => None,
            _ if bytes.len() < HEADER + REWRITTEN || crc32c::crc32c(&bytes[..92]) != u32_at(bytes, 92) => {
                return Err(invalid("the header of a segment that was rewritten does not check"));
            }
            _ => {
                let number = |n: usize| u64_at(bytes, HEADER + 8 * n);
                Some(Rewritten { last: number(0), len: number(1), accepted_at: number(2), events: u32_at(bytes, HEADER + 24) })
            }
        };
        let number = |n: usize| u64_at(bytes, 16 + 8 * n);
        Ok(SegmentHeader {
            epoch: Epoch(u32_at(bytes, 12)),
            serial: number(0),
            first: number(1),
            follows: number(2),
            prior_len: number(3),
            created: number(4),
            seed: u32_at(bytes, 56),
            rewritten,
        })
    }
}

/// What stands in front of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AppendHeader {
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    pub(super) synced: u64,
    pub(super) accepted_at: u64,
    pub(super) count: u32,
    pub(super) body_len: u32,
    pub(super) key_len: u32,
}

impl AppendHeader {
    /// Appends header, key and records, and says where each record begins behind the beginning of `to`.
    pub(super) fn put<'a>(
        self,
        seed: u32,
        to: &mut Vec<u8>,
        key: Option<OnceKey>,
        records: impl Iterator<Item = &'a Record>,
        mut placed: impl FnMut(usize),
    ) {
        self.put_body(seed, to, key, |to| {
            for record in records {
                placed(to.len());
                put_event(seed, to, record);
            }
        });
    }

    /// Appends header, key and whatever events this puts behind them.
    pub(super) fn put_body(self, seed: u32, to: &mut Vec<u8>, key: Option<OnceKey>, put_events: impl FnOnce(&mut Vec<u8>)) {
        let from = to.len();
        to.extend(APPEND_MAGIC);
        to.extend([0; 8]);
        to.extend(self.epoch.0.to_le_bytes());
        for number in [self.first, self.synced, self.accepted_at] {
            to.extend(number.to_le_bytes());
        }
        to.extend(self.count.to_le_bytes());
        to.extend(key.map_or(0, |_| KEY as u32).to_le_bytes());
        if let Some(key) = key {
            key.put(to);
        }
        put_events(to);
        let body = (to.len() - from - APPEND) as u32;
        to[from + 4..from + 8].copy_from_slice(&body.to_le_bytes());
        let checksum = append_checksum(seed, &to[from..]);
        to[from + 8..from + 12].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the fixed part; whether it is good is known once the body was read.
    pub(super) fn parse(bytes: &[u8]) -> Option<AppendHeader> {
        (bytes.len() >= APPEND && bytes[..4] == APPEND_MAGIC).then(|| AppendHeader {
            epoch: Epoch(u32_at(bytes, 12)),
            first: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            accepted_at: u64_at(bytes, 32),
            count: u32_at(bytes, 40),
            body_len: u32_at(bytes, 4),
            key_len: u32_at(bytes, 44),
        })
    }
}

/// Whether header and body are what was written.
pub(super) fn append_checks(seed: u32, bytes: &[u8]) -> bool {
    append_checksum(seed, bytes) == u32_at(bytes, 8)
}

fn append_checksum(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..8]), &bytes[12..])
}

fn put_event(seed: u32, to: &mut Vec<u8>, record: &Record) {
    let from = to.len();
    to.extend([0; 8]);
    to.extend(record.position().sequence.to_le_bytes());
    to.extend(record.accepted_at().to_le_bytes());
    record.put_stored(to);
    let body = (to.len() - from - EVENT) as u32;
    to[from..from + 4].copy_from_slice(&body.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed, &to[from + 8..]);
    to[from + 4..from + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// An event in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventFrame {
    /// Header and body.
    pub(super) len: usize,
    pub(super) sequence: u64,
    pub(super) accepted_at: u64,
}

impl EventFrame {
    /// How long the event is that begins here; `None` if fewer bytes than its header are given.
    pub(super) fn len_at(bytes: &[u8]) -> Option<usize> {
        (bytes.len() >= EVENT).then(|| EVENT + u32_at(bytes, 0) as usize)
    }

    /// The event that begins here, if all of it is here and checks.
    pub(super) fn parse(seed: u32, bytes: &[u8]) -> Option<EventFrame> {
        let len = EventFrame::len_at(bytes)?;
        let whole = bytes.get(..len)?;
        let checks = crc32c::crc32c_append(seed, &whole[8..]) == u32_at(whole, 4);
        checks.then(|| EventFrame { len, sequence: u64_at(whole, 8), accepted_at: u64_at(whole, 16) })
    }

    /// The record of the whole bytes of this event.
    pub(super) fn record(self, epoch: Epoch, bytes: &bytes::Bytes, near: &[Topic]) -> Option<Record> {
        let position = Position { epoch, sequence: self.sequence };
        Record::from_stored(position, self.accepted_at, &bytes.slice(EVENT..), near)
    }
}

/// The end of a finished segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) epoch: Epoch,
    pub(super) count: u32,
    pub(super) last: u64,
    /// Where it stands: the bytes before it count.
    pub(super) at: u64,
    pub(super) accepted_at: u64,
}

impl Footer {
    pub(super) fn to_bytes(self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..4].copy_from_slice(&FOOTER_MAGIC);
        bytes[8..12].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        for (n, number) in [self.last, self.at, self.accepted_at].into_iter().enumerate() {
            bytes[16 + 8 * n..24 + 8 * n].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Footer> {
        let good = bytes.len() == FOOTER && bytes[..4] == FOOTER_MAGIC && crc32c::crc32c(&bytes[8..]) == u32_at(bytes, 4);
        good.then(|| Footer {
            epoch: Epoch(u32_at(bytes, 8)),
            count: u32_at(bytes, 12),
            last: u64_at(bytes, 16),
            at: u64_at(bytes, 24),
            accepted_at: u64_at(bytes, 32),
        })
    }
}

/// Why numbers are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// They were never given to anybody: a cursor among them comes from another life of this log.
    Unused,
    /// They may have been delivered, and a crash undid them.
    Lost,
    /// They cannot be read.
    Damaged,
}

/// A run of numbers without events that a reader may have to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) why: Missing,
}

impl Gap {
    /// What a reader is told whose stream comes to this place.
    pub(super) fn reason(self) -> Option<GapReason> {
        match self.why {
            Missing::Unused => None,
            Missing::Lost => Some(GapReason::Lost),
            Missing::Damaged => Some(GapReason::Damaged),
        }
    }
}

/// What a class of retention has removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Removed {
    /// The prefix of its topics, without slashes at its ends; empty for the class of all others.
    pub(super) prefix: Box<str>,
    /// Everything of the class up to here may be gone, but for the latest of its kind.
    pub(super) through: u64,
    /// The newest of those events that had a topic of another class.
    pub(super) foreign: u64,
}

/// What has to survive beside the events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    /// Set if the log was closed properly.
    pub(super) closed: bool,
    /// Whether events were delivered before they were on disk.
    pub(super) early: bool,
    /// Numbers up to this one may have been given out.
    pub(super) reserved: u64,
    /// Everything up to here is gone, whatever its class: there is no segment before it.
    pub(super) removed: u64,
    /// The class of all topics without one of their own first.
    pub(super) classes: Vec<Removed>,
    /// Head and last event when it was closed.
    pub(super) head: u64,
    pub(super) last: u64,
    /// The serial of the newest segment when it was closed, and how much of it counts.
    pub(super) newest: (u64, u64),
    pub(super) gaps: Vec<Gap>,
    /// The number and the length of the segment that stands aside; 0 if there is none.
    pub(super) aside: (u64, u64),
}

impl State {
    pub(super) fn new(epoch: Epoch) -> State {
        let (classes, gaps) = (vec![Removed { prefix: "".into(), through: 0, foreign: 0 }], Vec::new());
        State {
            epoch,
            closed: false,
            early: false,
            reserved: 0,
            removed: 0,
            classes,
            head: 0,
            last: 0,
            newest: (0, 0),
            gaps,
            aside: (0, 0),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::from(STATE_MAGIC);
        bytes.extend(STATE_VERSION.to_le_bytes());
        bytes.extend((u16::from(self.closed) | u16::from(self.early) << 1).to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        for number in [self.reserved, self.removed, self.head, self.last, self.newest.0, self.newest.1] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend((self.gaps.len() as u32).to_le_bytes());
        for gap in &self.gaps {
            bytes.extend(gap.after.to_le_bytes());
            bytes.extend(gap.through.to_le_bytes());
            bytes.push(gap.why as u8);
        }
        bytes.extend(self.aside.0.to_le_bytes());
        bytes.extend(self.aside.1.to_le_bytes());
        bytes.extend((self.classes.len() as u32).to_le_bytes());
        for class in &self.classes {
            bytes.extend(class.through.to_le_bytes());
            bytes.extend(class.foreign.to_le_bytes());
            bytes.extend((class.prefix.len() as u16).to_le_bytes());
            bytes.extend(class.prefix.as_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> io::Result<State> {
        if bytes.len() < 72 || bytes[..8] != *STATE_MAGIC {
            return Err(invalid("not a state file"));
        }
        let (contents, checksum) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(contents) != u32_at(checksum, 0) {
            return Err(invalid("the state file does not check"));
        }
        let version = version_up_to(bytes, "the state file", STATE_VERSION)?;
        let (gaps, classes) = contents[68..]
            .split_at_checked(17 * u32_at(bytes, 64) as usize)
            .filter(|(_, classes)| version > 1 || classes.is_empty())
            .ok_or_else(|| invalid("the state file does not check"))?;
        let removed = u64_at(bytes, 24);
        let (aside, classes) = match version {
            1 => ((0, 0), vec![Removed { prefix: "".into(), through: removed, foreign: 0 }]),
            _ => classes
                .split_at_checked(16)
                .and_then(|(aside, classes)| Some(((u64_at(aside, 0), u64_at(aside, 8)), read_classes(classes)?)))
                .ok_or_else(|| invalid("the state file does not check"))?,
        };
        let gap = |bytes: &[u8]| {
            let why = match bytes[16] {
                0 => Missing::Unused,
                1 => Missing::Lost,
                _ => Missing::Damaged,
            };
            Gap { after: u64_at(bytes, 0), through: u64_at(bytes, 8), why }
        };
        Ok(State {
            epoch: Epoch(u32_at(bytes, 12)),
            closed: bytes[10] & 1 != 0,
            early: bytes[10] & 2 != 0,
            reserved: u64_at(bytes, 16),
            removed,
            classes,
            head: u64_at(bytes, 32),
            last: u64_at(bytes, 40),
            newest: (u64_at(bytes, 48), u64_at(bytes, 56)),
            gaps: gaps.chunks_exact(17).map(gap).collect(),
            aside,
        })
    }
}

fn read_classes(bytes: &[u8]) -> Option<Vec<Removed>> {
    let (count, mut rest) = bytes.split_at_checked(4)?;
    let mut classes = Vec::new();
    for _ in 0..u32_at(count, 0) {
        let (fixed, after) = rest.split_at_checked(18)?;
        let (prefix, after) = after.split_at_checked(u16_at(fixed, 16).into())?;
        let prefix = std::str::from_utf8(prefix).ok()?.into();
        classes.push(Removed { prefix, through: u64_at(fixed, 0), foreign: u64_at(fixed, 8) });
        rest = after;
    }
    let whole = rest.is_empty() && classes.first().is_some_and(|first| first.prefix.is_empty());
    whole.then_some(classes)
}

/// A segment's name.
pub(super) fn segment_name(serial: u64) -> String {
    format!("{serial:016x}.log")
}

/// The name of its index.
pub(super) fn index_name(serial: u64) -> String {
    format!("{serial:016x}.index")
}

/// The name of the file with its keys.
pub(super) fn keys_name(serial: u64) -> String {
    format!("{serial:016x}.keys")
}

/// The serial of a file with this ending.
pub(super) fn serial_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?.strip_suffix('.')?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}
