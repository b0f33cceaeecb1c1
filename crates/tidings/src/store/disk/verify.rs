//! Every checksum of a log: segments append by append and event by event, indexes page by page and against their segments, the state, and the
//! list of what was removed.
//!
//! It only reads. What recovery would make of the damage is recovery's, and is said as it would be told to readers.

use super::{
    DiskOptions, Parts,
    aside::ASIDE,
    assemble,
    cached::Cached,
    evicted,
    files::{File, Files, read_whole},
    format::{FOOTER, Footer, HEADER, Missing, REWRITTEN, SegmentHeader, index_name, invalid, place_of, segment_name, serial_of, u32_at},
    index::{FileIndex, Index, List, MemoryIndex, Names},
    keyring, ledger,
    scan::{End, scan},
    segment::Segment,
    standing, state,
};
use std::{
    io::{self, ErrorKind},
    sync::Arc,
};
use tidings_core::Epoch;

/// Something that was found in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The file in the directory; empty for what concerns all of them.
    pub file: String,
    /// Where in the file, in bytes.
    pub at: Option<u64>,
    /// What it is, and what it means for readers.
    pub what: String,
    /// Whether something is not as it was written. Otherwise it is what a crash leaves, and costs nothing that was promised.
    pub damage: bool,
}

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Segments read through.
    pub segments: u64,
    /// Events in them that check.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Looks at everything in a directory that nobody changes, or at a copy of it.
pub(super) fn verify(files: &Arc<dyn Files>, found: &mut dyn FnMut(Finding)) -> io::Result<Verified> {
    let serials: Vec<u64> = files.names()?.iter().filter_map(|name| serial_of(name, "log")).collect();
    let mut report = |file: &str, at: Option<u64>, what: String, damage: bool| found(Finding { file: file.into(), at, what, damage });
    match state::load(&**files) {
        Ok(Some(_)) => {}
        Ok(None) => {
            report("state", None, "it is missing; the next start opens the log without it, and readers may be told of gaps".into(), true);
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            report("state", None, format!("{error}; the next start opens the log without it, and readers may be told of gaps"), true);
        }
        Err(error) => return Err(error),
    }
    for (name, meaning) in [
        (evicted::NAME, "more readers than necessary are told of what was removed"),
        (ledger::NAME, "the next start reads the log through"),
        (standing::NAME, "the next start looks for the latest events itself"),
    ] {
        if let Err(error) = check_sum(&**files, name) {
            report(name, None, format!("{error}; {meaning}"), true);
        }
    }
    let mut headers = Vec::new();
    for &serial in &serials {
        let name = segment_name(serial);
        let instead = |&other: &u64| other < serial && serial & ASIDE == 0 && place_of(other) == place_of(serial);
        if serials.iter().any(instead) {
            report(&name, None, "it was to replace a segment that is still there; the next start removes it".into(), false);
            continue;
        }
        match header(&**files, serial)? {
            Header::Good(header) => headers.push(header),
            Header::Begun => report(&name, None, "it was begun and has no events".into(), false),
            Header::Damaged(why) => report(&name, Some(0), format!("{why}; its events are not served, and told as missing"), true),
        }
    }
    let options = DiskOptions { retention_age: None, ..DiskOptions::default() };
    let Parts { log, torn, .. } = assemble(files.clone(), options, Box::new(|| ()))?;
    for header in headers.iter().filter(|header| header.epoch != log.epoch) {
        let what = format!("it belongs to another log, of epoch {}, and is not served", show(header.epoch));
        report(&segment_name(header.serial), None, what, false);
    }
    let (segments, gaps) = {
        let view = log.view();
        (view.segments.clone(), view.gaps.clone())
    };
    for name in files.names()? {
        if let Some(serial) = serial_of(&name, "keys")
            && let Err(error) = keyring::load(&**files, log.epoch, serial)
        {
            report(&name, None, format!("{error}; if its segment is gone, requests that used its keys count as new"), true);
        }
    }
    let mut verified = Verified::default();
    for segment in &segments {
        let read = contents(&log.files, segment, &mut report)?;
        verified.segments += 1;
        verified.events += read;
        verified.bytes += segment.len;
    }
    for gap in gaps {
        let range = format!("events {} to {}", gap.after + 1, gap.through);
        match gap.why {
            Missing::Damaged => report("", None, format!("{range} are missing or damaged; their readers are told `damaged`"), true),
            Missing::Lost => {
                report("", None, format!("{range} may have been lost in a crash; readers from before it are told `lost`"), false);
            }
            Missing::Unused => {}
        }
    }
    if torn > 0 {
        let newest = segments.back().map(|segment| segment_name(segment.header.serial)).unwrap_or_default();
        let at = segments.back().map(|segment| segment.len);
        report(&newest, at, format!("{torn} bytes of an append that was never answered; the next start cuts them off"), false);
    }
    Ok(verified)
}

enum Header {
    Good(SegmentHeader),
    /// Left by a start of a segment that was not finished.
    Begun,
    Damaged(String),
}

fn header(files: &dyn Files, serial: u64) -> io::Result<Header> {
    let file = files.open(&segment_name(serial))?;
    let mut bytes = [0; HEADER + REWRITTEN];
    let count = file.read_at(&mut bytes, 0)?;
    Ok(match SegmentHeader::parse(&bytes[..count]) {
        Ok(header) if header.serial == serial => Header::Good(header),
        Ok(header) => Header::Damaged(format!("it is the segment {} under another name", segment_name(header.serial))),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(_) if file.len()? <= HEADER as u64 && (count < HEADER || bytes[..HEADER].iter().all(|&byte| byte == 0)) => Header::Begun,
        Err(error) => Header::Damaged(error.to_string()),
    })
}

/// A segment and its index; how many of its events check.
fn contents(files: &Arc<Cached>, segment: &Segment, report: &mut impl FnMut(&str, Option<u64>, String, bool)) -> io::Result<u64> {
    let name = segment_name(segment.header.serial);
    let file: Arc<dyn File> = files.open(&name)?;
    let found = scan(&*file, &segment.header, End::Known(segment.len), |_| ())?;
    for hole in &found.holes {
        report(&name, Some(hole.start), format!("{} bytes do not check", hole.end - hole.start), true);
    }
    if found.end < segment.len {
        let there = file.len()?;
        let what = if there < segment.len { "the file ends" } else { "from here on nothing checks" };
        let what = format!("{what}, and should go on to {}: events {} to {} are gone", segment.len, found.last + 1, segment.last);
        report(&name, Some(found.end), what, true);
    }
    // The end mark is left out where a crash or a full disk ended the segment.
    if segment.header.rewritten.is_none() && file.len()? == segment.len + FOOTER as u64 {
        let mut bytes = [0; FOOTER];
        file.read_at(&mut bytes, segment.len)?;
        if Footer::parse(&bytes).is_none_or(|footer| footer.at != segment.len) {
            report(&name, Some(segment.len), "the end mark does not check; nothing is lost with it".into(), true);
        }
    }
    let events = (found.index.offsets.len() as u64).saturating_sub(found.damaged);
    let index = index_name(segment.header.serial);
    match FileIndex::open(&**files, segment.header.serial) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => report(&index, None, format!("{error}; it is made again from its segment when it is needed"), true),
        // Against a damaged segment an index that was made before says more, not less.
        Ok(_) if found.damaged > 0 || found.end < segment.len => {}
        Ok(made) => {
            let first = segment.header.first;
            let said = |index: &dyn Index| listing(index, &found.index, first);
            let agrees = said(&made.reader(files)).and_then(|made| Ok(made == said(&found.index)?));
            match agrees {
                Ok(true) => {}
                Ok(false) => report(&index, None, "it checks, and says something else than its segment; remove it".into(), true),
                Err(error) => report(&index, None, format!("{error}; it is made again from its segment when it is needed"), true),
            }
        }
    }
    Ok(events)
}

/// All that an index says, as one checksum of each part: numbers and offsets, topics, ids.
fn listing(index: &dyn Index, of: &MemoryIndex, first: u64) -> io::Result<[u32; 3]> {
    let mut sums = [0; 3];
    for event in 0..of.offsets.len() as u32 {
        sums[0] = crc32c::crc32c_append(sums[0], &index.offset(event)?.to_le_bytes());
        sums[0] = crc32c::crc32c_append(sums[0], &index.sequence(first, event)?.to_le_bytes());
    }
    for (names, at) in [(Names::Topics, 1), (Names::Ids, 2)] {
        index.visit(names, "", &mut |name, list: List<'_>| {
            sums[at] = crc32c::crc32c_append(sums[at], name.as_bytes());
            for n in 0..list.len() {
                sums[at] = crc32c::crc32c_append(sums[at], &list.get(n)?.to_le_bytes());
            }
            Ok(true)
        })?;
    }
    Ok(sums)
}

pub(super) fn show(epoch: Epoch) -> String {
    format!("{:08x}", epoch.0)
}

/// Whether a file that ends in its checksum is what was written, if there is one.
fn check_sum(files: &dyn Files, name: &str) -> io::Result<()> {
    let bytes = match read_whole(files, name) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let whole = bytes.len().checked_sub(4).and_then(|end| bytes.split_at_checked(end));
    let checks = whole.is_some_and(|(contents, checksum)| crc32c::crc32c(contents) == u32_at(checksum, 0));
    if checks { Ok(()) } else { Err(invalid("it does not check")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{
        aside,
        damage::filled,
        simulated::{Random, Simulated},
    };

    fn findings(disk: &Simulated) -> (Verified, Vec<Finding>) {
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let mut findings = Vec::new();
        let verified = verify(&files, &mut |finding| findings.push(finding)).unwrap();
        (verified, findings)
    }

    /// Nothing is found in a log that is whole, closed or killed; and wherever a bit is flipped or a file is cut, it is.
    #[test]
    fn every_byte_is_checked() {
        for closed in [true, false] {
            let (disk, all) = filled(closed);
            let (verified, found) = findings(&disk.copy());
            assert_eq!((verified.events, found), (all.len() as u64, vec![]));
        }
        let (disk, _) = filled(true);
        let mut random = Random(3);
        for name in disk.names().unwrap() {
            let mut len = 0;
            disk.damage(&name, |contents| len = contents.len() as u64);
            let places: Vec<u64> = (0..12).map(|_| random.below(len)).chain([0, 8, 63, 64, 70, len - 41, len - 40, len - 1]).collect();
            for place in places.into_iter().filter(|place| *place < len) {
                for way in ["flipped", "cut"] {
                    let damaged = disk.copy();
                    damaged.damage(&name, |contents| match way {
                        "cut" => contents.truncate(place as usize),
                        _ => contents[place as usize] ^= 1 << random.below(8),
                    });
                    // A segment may lose its end mark: then it ends like one that a crash ended.
                    let in_mark = way == "cut" && serial_of(&name, "log").is_some() && place >= len - FOOTER as u64;
                    let (_, found) = findings(&damaged);
                    assert!(in_mark || found.iter().any(|finding| finding.damage), "{name} {way} at {place} of {len}: {found:?}");
                }
            }
            let without = disk.copy();
            without.remove(&name).unwrap();
            let (_, found) = findings(&without);
            // Made again from the segments, which are all there.
            let derived = ["index", "keys"].iter().any(|ending| serial_of(&name, ending).is_some()) || name == ledger::NAME;
            assert_eq!(found.iter().any(|finding| finding.damage), !derived, "without {name}: {found:?}");
        }
    }

    /// Where it is, and what it means.
    #[test]
    fn damage_has_a_place() {
        let (disk, _) = filled(true);
        let name = disk.names().unwrap().into_iter().find(|name| serial_of(name, "log").is_some()).unwrap();
        disk.damage(&name, |contents| contents[130] ^= 1);
        let (_, found) = findings(&disk);
        assert!(found.iter().any(|finding| finding.file == name && finding.at.is_some_and(|at| at <= 130)), "{found:?}");
    }

    /// Z-30: what stands aside is read through once like any other segment, and every byte of it is checked.
    #[test]
    fn so_is_what_stands_aside() {
        let disk = Simulated::new(1, None);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        aside::tests::fill(&files);
        disk.kill();
        let logs: Vec<u64> = disk.names().unwrap().iter().filter_map(|name| serial_of(name, "log")).collect();
        let (mut events, mut bytes) = (0, 0);
        for &serial in &logs {
            let name = segment_name(serial);
            let file = disk.open(&name).unwrap();
            let Header::Good(header) = header(&disk, serial).unwrap() else { panic!("{name}") };
            let found = scan(&*file, &header, End::Known(file.len().unwrap()), |_| events += 1).unwrap();
            bytes += found.end;
        }
        let (verified, found) = findings(&disk.copy());
        assert_eq!((verified.segments, verified.events, verified.bytes, found), (logs.len() as u64, events, bytes, vec![]));
        let name = segment_name(*logs.iter().find(|&&serial| serial & aside::ASIDE != 0).unwrap());
        let mut len = 0;
        disk.damage(&name, |contents| len = contents.len());
        for place in 0..len {
            for way in ["flipped", "cut"] {
                let damaged = disk.copy();
                damaged.damage(&name, |contents| match way {
                    "cut" => contents.truncate(place),
                    _ => contents[place] ^= 1 << (place % 8),
                });
                let (_, found) = findings(&damaged);
                assert!(found.iter().any(|finding| finding.damage), "{way} at {place} of {len}: {found:?}");
                assert!(place < HEADER || found.iter().any(|finding| finding.file == name), "{way} at {place} of {len}: {found:?}");
            }
        }
        disk.remove(&name).unwrap();
        let (_, found) = findings(&disk);
        assert!(found.iter().any(|finding| finding.damage), "without it: {found:?}");
    }
}
