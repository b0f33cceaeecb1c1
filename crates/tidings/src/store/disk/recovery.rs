//! Opening a directory: what is in it, what a crash left of it, and from which number on the log goes (the rules stand in
//! `docs/formats/log.md`). Everything that reads well is kept, and everything that is missing becomes a gap.
//!
//! It runs before the first reader and the first publisher.

use super::{
    DiskOptions, Durability,
    aside::{self, ASIDE},
    evicted,
    files::{Files, Why},
    format::{
        FOOTER, Footer, GENERATION, Gap, HEADER, Missing, REWRITTEN, Removed, SegmentHeader, State, index_name, place_of, segment_name,
        serial_of,
    },
    index::FileIndex,
    keyring::{self, Keyring},
    ledger::{self, Ledger},
    log::View,
    scan::{End, scan},
    segment::{Kept, Segment},
    state::{Durable, load},
};
use crate::store::{
    KeyWindow,
    latest::{Latest, latest_within},
    retention::{Class, Gone, Limits, Rules},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    sync::Arc,
};
use tidings_core::{Epoch, Record, TopicMatcher};

/// A log that is ready.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) epoch: Epoch,
    pub(super) durable: Durable,
    pub(super) rules: Rules,
    pub(super) view: View,
    pub(super) latest: Latest,
    pub(super) gone: Vec<Gone>,
    pub(super) keyring: Keyring,
    pub(super) prior: (u64, u64),
    pub(super) kept: u64,
    pub(super) accepted_at: u64,
    /// Bytes of a torn tail that were cut off.
    pub(super) torn: u64,
}

/// Numbers that a lost state file may have reserved beyond what is found.
const UNKNOWN: u64 = 1 << 20;

/// Opens the log in a directory, or begins one.
pub(super) fn recover(files: &Arc<dyn Files>, options: &DiskOptions) -> io::Result<Recovered> {
    let Found { mut headers, surplus, newest, damaged } = headers(&**files)?;
    let (mut state, known) = match load(&**files) {
        Ok(Some(state)) => (state, true),
        Ok(None) if headers.is_empty() => (State::new(Epoch(files.random()?)), true),
        Err(error) if error.kind() != ErrorKind::InvalidData => return Err(error),
        other => {
            tracing::error!(?other, "the state file is missing or damaged; the log is opened without it, and readers may be told of gaps");
            let newest = headers.values().next_back();
            (State::new(newest.map_or(Epoch(files.random()?), |header| header.epoch)), false)
        }
    };
    headers.retain(|serial, header| {
        let ours = header.epoch == state.epoch;
        if !ours {
            tracing::error!(serial, "a segment of another log is left alone");
        }
        ours
    });
    let (segments, keys) = (VecDeque::new(), keyring::Found::default());
    let mut open = Opening { files: &**files, state: &state, window: options.keys, torn: 0, segments, keys };
    let mut next: Option<SegmentHeader> = None;
    for header in headers.values().rev() {
        open.segment(header, next.as_ref())?;
        next = Some(*header);
    }
    let Opening { torn, segments, mut keys, .. } = open;
    let (removed, mut segments): (VecDeque<_>, VecDeque<_>) = segments.into_iter().partition(|segment| segment.last <= state.removed);
    // One that was rewritten has its keys nowhere else.
    let is_there = |serial| serial < GENERATION && segments.iter().any(|segment| segment.header.serial == serial);
    keys.read_carried(&**files, state.epoch, options.keys.keys, is_there)?;
    let oldest = segments.front().map_or(0, |segment| place_of(segment.header.serial));
    if !known {
        state.removed = segments.front().map_or(0, |segment| segment.header.follows);
    }
    state.gaps = state.gaps.iter().flat_map(|gap| without(*gap, &segments)).collect();
    let (mut kept, mut gaps) = (state.removed, Vec::new());
    for segment in &segments {
        if segment.header.follows > kept {
            gaps.push(Gap { after: kept, through: segment.header.follows, why: Missing::Damaged });
        }
        kept = segment.last;
    }
    let head = if state.closed && known {
        if state.last > kept {
            gaps.push(Gap { after: kept, through: state.last, why: Missing::Damaged });
        }
        state.head.max(kept)
    } else {
        let head = state.reserved.max(kept) + if known { 0 } else { UNKNOWN };
        if head > kept {
            let why = match (damaged.is_some_and(|serial| headers.keys().all(|&other| other < serial)), state.early || !known) {
                (true, _) => Missing::Damaged,
                (false, true) => Missing::Lost,
                (false, false) => Missing::Unused,
            };
            gaps.push(Gap { after: kept, through: head, why });
        }
        head
    };
    // Numbers that nobody was ever given between two segments are no gap; a cursor among them is one all the same.
    for gap in gaps {
        let told = state.gaps.iter().any(|known| known.after <= gap.after && gap.through <= known.through);
        if !told {
            if gap.why == Missing::Damaged {
                tracing::error!(?gap, "events are damaged or missing; their readers are told of a gap");
            }
            state.gaps.push(gap);
        }
    }
    let aside = aside::load(&**files, &mut state)?;
    let then = state.classes.clone();
    let rules = rules(&mut state, options);
    let gone = evicted::load(&**files, state.epoch, &rules, &then, &state.classes);
    let ledger = books(&**files, &state, &rules, &segments)?;
    let accepted_at = segments.back().map_or(0, |segment| segment.accepted_at);
    let prior =
        (newest, segments.back().filter(|segment| place_of(segment.header.serial) == newest).map_or(HEADER as u64, |segment| segment.len));
    segments.extend(aside);
    segments.rotate_right(usize::from(state.aside.0 != 0));
    let aside = segment_name(ASIDE | state.aside.0);
    let mut view = View { segments, active: None, head, ledger, gaps: Vec::new(), changes: 0 };
    for gap in &state.gaps {
        view.add_gap(*gap);
    }
    state.gaps.clone_from(&view.gaps);
    state.reserved = state.reserved.max(head);
    state.closed = false;
    state.early = options.durability != Durability::Sync;
    let epoch = state.epoch;
    let keyring = Keyring::new(epoch, options.keys, keys, kept);
    let carry = |removed: &Arc<Segment>| keyring.carry_again(&**files, removed.header.serial, removed.header.first, removed.last);
    let carries = removed.iter().map(carry).collect::<io::Result<Vec<_>>>()?;
    // This syncs all names: after a crash of the program alone they may not be on disk yet, and nobody may read what a second crash
    // could undo.
    let durable = Durable::begin(files.clone(), state)?;
    for carry in carries.into_iter().flatten() {
        keyring.settle(&**files, carry);
    }
    // Files of segments that retention had removed already come back after a crash, and those without events outlive their neighbours.
    // Only now is it on disk that they are gone.
    let removed = headers.range(..oldest).map(|(_, header)| header.serial);
    for serial in removed.chain(surplus) {
        let _ = files.remove(&segment_name(serial));
        let _ = files.remove(&index_name(serial));
    }
    let is_there = |serial: u64| view.segments.iter().any(|segment| segment.header.serial == serial);
    for name in files.names()? {
        let is_other = name != aside && serial_of(&name, "log").is_some_and(|serial| serial & ASIDE != 0);
        // An index whose segment went away alone.
        if is_other || serial_of(&name, "index").is_some_and(|serial| !is_there(serial)) {
            let _ = files.remove(&name);
        }
    }
    let latest = latest_within(options.retention_bytes / 4, ledger::bytes_of);
    Ok(Recovered { epoch, durable, rules, view, latest, gone, keyring, prior, kept, accepted_at, torn })
}

/// The rules of this life, and in the state what each of their classes has removed.
pub(super) fn rules(state: &mut State, options: &DiskOptions) -> Rules {
    let limits = Limits::new(options.retention_bytes, options.retention_events, options.retention_age);
    let rest = state.classes.first().map_or(0, |class| class.through).max(state.removed);
    // A class that was told to be one and is no longer stays until the rest has removed as much.
    let former = state.classes.iter().filter(|class| class.through > rest).map(|class| &*class.prefix);
    let rules = Rules::new(limits, &options.prefixes, former);
    let removed = |class: &Class| {
        let same = state.classes.iter().find(|then| then.prefix == class.prefix);
        // What is a class only now was part of another.
        let around = || {
            let around =
                state.classes.iter().filter(|then| TopicMatcher::prefix(&then.prefix).is_ok_and(|then| then.covers(&class.matcher)));
            around.max_by_key(|then| then.prefix.len())
        };
        let of = same.or_else(around);
        let (through, foreign) = of.map_or((0, 0), |of| (of.through, of.foreign));
        Removed { prefix: class.prefix.clone(), through: through.max(state.removed), foreign }
    };
    state.classes = rules.classes().iter().map(removed).collect();
    rules
}

/// The books: as they were written down, and where they were not, of the segment itself.
fn books(files: &dyn Files, state: &State, rules: &Rules, segments: &VecDeque<Arc<Segment>>) -> io::Result<Ledger> {
    let floors: Vec<u64> = state.classes.iter().map(|class| class.through).collect();
    let mut all = Ledger::new(rules.classes(), &floors);
    let blank = all.clone();
    let known = ledger::load(files, state.epoch, rules, &blank);
    known.floors.iter().enumerate().for_each(|(class, &floor)| all.raise(class, floor));
    for segment in segments {
        let serial = segment.header.serial;
        match known.segments.get(&(serial, segment.len)) {
            Some(books) => all.append(books),
            None => {
                let mut books = blank.clone();
                let file = files.open(&segment_name(serial))?;
                let each = |record: &Record| books.push(rules.class_of(record.topics()), serial, record);
                scan(&*file, &segment.header, End::Known(segment.len), each)?;
                all.append(&books);
            }
        }
    }
    Ok(all)
}

/// The segments of a directory.
struct Found {
    /// By the serial that each had when it was written.
    headers: BTreeMap<u64, SegmentHeader>,
    /// What was to be there instead of one of them, and may not be whole: that one goes last.
    surplus: Vec<u64>,
    /// The highest serial that any file has.
    newest: u64,
    /// The newest file with a header that was written and does not check.
    damaged: Option<u64>,
}

fn headers(files: &dyn Files) -> io::Result<Found> {
    let mut found = Found { headers: BTreeMap::new(), surplus: Vec::new(), newest: 0, damaged: None };
    let names = files.names()?;
    // A serial is not used again as long as anything is left of its segment.
    found.newest = names.iter().filter_map(|name| serial_of(name, "keys")).map(place_of).max().unwrap_or(0);
    let mut serials: Vec<u64> = names.iter().filter_map(|name| serial_of(name, "log")).filter(|serial| serial & ASIDE == 0).collect();
    serials.sort_unstable_by_key(|&serial| (place_of(serial), serial));
    for serial in serials {
        found.newest = found.newest.max(place_of(serial));
        if found.headers.contains_key(&place_of(serial)) {
            found.surplus.push(serial);
            continue;
        }
        let mut bytes = [0; HEADER + REWRITTEN];
        let file = files.open(&segment_name(serial))?;
        let count = file.read_at(&mut bytes, 0)?;
        match SegmentHeader::parse(&bytes[..count]) {
            Ok(header) if header.serial == serial => drop(found.headers.insert(place_of(serial), header)),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            // A file that was being begun is short or empty here: its header is within one sector.
            _ if count < HEADER || bytes[..HEADER].iter().all(|&byte| byte == 0) => {
                if file.len()? <= HEADER as u64 {
                    let _ = files.remove(&segment_name(serial));
                }
            }
            other => {
                tracing::error!(serial, ?other, "a segment with a damaged header is left alone");
                found.damaged = found.damaged.max(Some(place_of(serial)));
            }
        }
    }
    Ok(found)
}

/// What is left of a gap. What was given up for lost may be there after all, when the system had written more than it said.
fn without(gap: Gap, segments: &VecDeque<Arc<Segment>>) -> Vec<Gap> {
    let (mut left, mut after) = (Vec::new(), gap.after);
    for segment in segments.iter().filter(|segment| segment.last > gap.after && segment.header.first <= gap.through) {
        left.push(Gap { after, through: segment.header.first - 1, ..gap });
        after = segment.last;
    }
    left.push(Gap { after, ..gap });
    left.retain(|gap| gap.after < gap.through);
    left
}

/// The segments, opened from the newest to the oldest.
struct Opening<'a> {
    files: &'a dyn Files,
    state: &'a State,
    window: KeyWindow,
    torn: u64,
    segments: VecDeque<Arc<Segment>>,
    keys: keyring::Found,
}

impl Opening<'_> {
    fn segment(&mut self, header: &SegmentHeader, next: Option<&SegmentHeader>) -> io::Result<()> {
        let name = segment_name(header.serial);
        let file = self.files.open(&name)?;
        let file_len = file.len()?;
        let footer = footer(&*file, file_len, header)?;
        let place = place_of(header.serial);
        let told = match (header.rewritten, next) {
            (Some(rewritten), _) => Some(rewritten.len),
            (None, Some(next)) => (place_of(next.serial) == place + 1).then_some(next.prior_len),
            (None, None) => Some(self.state.newest).filter(|newest| self.state.closed && newest.0 == place).map(|newest| newest.1),
        };
        let end = match (told, footer) {
            (Some(len), _) => End::Known(len),
            // A footer may have been written and not synced; only what follows a segment, or a proper close, says that it was.
            (None, footer) => {
                let at = footer.map_or(file_len, |footer| footer.at);
                if next.is_some() || self.state.closed { End::Known(at) } else { End::Open(at) }
            }
        };
        if let End::Known(len) = end
            && let Ok(index) = FileIndex::open(self.files, header.serial)
            && (index.about.epoch, index.about.first, index.about.len) == (header.epoch, header.first, len)
            && file_len >= len
        {
            let last = header.rewritten.map_or_else(|| header.first + u64::from(index.about.count) - 1, |rewritten| rewritten.last);
            let accepted_at = index.about.accepted_at;
            if index.about.keys > 0 && self.may_count(accepted_at) {
                let entries = keyring::load(self.files, header.epoch, header.serial).or_else(|error| {
                    tracing::warn!(%error, serial = header.serial, "a segment is read through for its idempotency keys");
                    scan(&*file, header, end, |_| ()).map(|found| found.keys)
                })?;
                self.keys.entries.extend(entries);
            }
            self.segments.push_front(Arc::new(Segment::new(*header, last, len, accepted_at, Kept::File(Arc::new(index)))));
            return Ok(());
        }
        let found = scan(&*file, header, end, |_| ())?;
        if found.damaged > 0 {
            tracing::error!(serial = header.serial, events = found.damaged, "events are damaged; their readers are told of a gap");
        }
        if matches!(end, End::Open(_)) {
            if found.torn > 0 {
                tracing::warn!(serial = header.serial, bytes = found.torn, "the log ended in an unfinished append, which was cut off");
                file.truncate(found.end)?;
            }
            self.torn += found.torn;
            // Written again: after a sync that failed before the program ended, the system may take for written what is only in memory.
            let from = if found.synced <= HEADER as u64 { 0 } else { found.synced };
            let mut tail = vec![0; found.end.saturating_sub(from) as usize];
            let count = file.read_at(&mut tail, from)?;
            file.write_at(&tail[..count], from)?;
            file.sync(Why::Recovered)?;
        }
        if self.may_count(found.accepted_at) {
            self.keys.entries.extend(found.keys);
        }
        let index = Kept::Memory(Arc::new(found.index));
        if let Some(rewritten) = header.rewritten {
            self.segments.push_front(Arc::new(Segment::new(*header, rewritten.last, rewritten.len, rewritten.accepted_at, index)));
            return Ok(());
        }
        if found.end == header.size() {
            // Its file stays for now: the header says how much of the segment before it counts.
            return Ok(());
        }
        self.segments.push_front(Arc::new(Segment::new(*header, found.last, found.end, found.accepted_at, index)));
        Ok(())
    }
}

impl Opening<'_> {
    /// Whether keys of a segment may still count that took its last event at a time: newer segments were opened before it.
    fn may_count(&self, accepted_at: u64) -> bool {
        let now = self.segments.back().map_or(accepted_at, |newest| newest.accepted_at);
        u128::from(now.saturating_sub(accepted_at)) < self.window.time.as_millis() && self.keys.entries.len() < self.window.keys
    }
}

/// The footer, if the segment has one.
fn footer(file: &dyn super::files::File, file_len: u64, header: &SegmentHeader) -> io::Result<Option<Footer>> {
    let Some(at) = file_len.checked_sub(FOOTER as u64) else { return Ok(None) };
    let mut bytes = [0; FOOTER];
    file.read_at(&mut bytes, at)?;
    Ok(Footer::parse(&bytes).filter(|footer| footer.at == at && footer.epoch == header.epoch))
}
