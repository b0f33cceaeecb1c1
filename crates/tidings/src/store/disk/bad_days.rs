//! Bad days that come from outside: disks that refuse one kind of operation after another, clocks that jump, events as large as they may be,
//! and topics without end. What a file may suffer is in `damage`, crashes are in `trials`.

use super::{
    DiskOptions, Parts, assemble,
    simulated::{Operation, Simulated},
    writer::{Waiting, Writer},
};
use crate::store::{Once, PageLimits, StoreError};
use std::{io::ErrorKind, sync::Arc, time::Duration};
use tidings_core::{Event, Filter, Grant, Matchers, Record, limits};
use tokio::sync::oneshot;

fn open(disk: &Simulated, options: DiskOptions) -> std::io::Result<Parts> {
    assemble(Arc::new(disk.clone()), options, Box::new(|| ()))
}

fn small() -> DiskOptions {
    DiskOptions { segment_bytes: 1_500, retention_age: None, ..DiskOptions::default() }
}

fn append(writer: &mut Writer, data: &[&str], now: u64) -> Result<Once, StoreError> {
    let (answer, mut answered) = oneshot::channel();
    let drafts = data.iter().map(|data| Record::draft(Event::new("a", *data).unwrap())).collect();
    writer.commit(vec![Waiting { drafts, key: None, now, answer }]);
    answered.try_recv().expect("an answer")
}

/// Everything that a reader gets, each with its time; nothing may be missing.
fn read(log: &super::log::Log) -> Vec<(String, u64)> {
    let filter = Filter::new(Matchers::all(), &Grant::full());
    let bounds = log.bounds();
    let (mut events, mut after) = (Vec::new(), bounds.floor);
    while after < bounds.head {
        let page = log.read_beyond(after, bounds.head, &filter, &[], PageLimits { bytes: 1 << 20, events: 100, scanned: 1_000 }).unwrap();
        assert_eq!(page.lost, None);
        events.extend(page.records.iter().map(|record| (record.data().into_owned(), record.accepted_at())));
        after = page.covered_through;
    }
    events
}

/// N-5: whatever the disk refuses, and how: 507 for want of room, 503 otherwise; nothing is half-stored, readers get on, and so does
/// publishing when the disk works again, over a restart too.
#[test]
fn each_operation_refused_in_each_way() {
    use Operation::{Create, Remove, Rename, Sync, SyncNames, Truncate, Write};
    const ALL: &[&[Operation]] = &[
        &[Write],
        &[Sync],
        &[Truncate, Write],
        &[Truncate, Sync],
        &[Create, Write],
        &[Create, Sync],
        &[Rename, Sync],
        &[SyncNames, Sync],
        &[Remove, Sync],
        &[Create, Write, Truncate, Sync, Rename, Remove, SyncNames],
    ];
    for operations in ALL {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
            let disk = Simulated::new(1, None);
            let Parts { mut writer, keeper, log, .. } = open(&disk, small()).unwrap();
            let mut kept = Vec::new();
            for n in 0..35 {
                let data = [format!("{n} a"), format!("{n} b")];
                let refused = n % 10 >= 5;
                disk.refuse(if refused { operations } else { &[] }, kind);
                // As if the second had passed after which a new file is tried.
                writer.refusing = None;
                match append(&mut writer, &[&data[0], &data[1]], n) {
                    Ok(_) => {
                        assert!(!refused, "{operations:?} {kind:?} {n}");
                        kept.extend(data.map(|data| (data, n)));
                    }
                    Err(error) => {
                        assert!(refused, "{operations:?} {kind:?} {n}: {error}");
                        let no_space = matches!(error, StoreError::NoSpace);
                        assert_eq!(no_space, kind != ErrorKind::Other, "{operations:?} {kind:?}: {error}");
                        // Killed right now: a disk that does not let itself be cut may still have the append, but never a part of it.
                        let killed = disk.copy();
                        killed.kill();
                        let found = read(&open(&killed, small()).unwrap().log);
                        let rest = found.strip_prefix(&*kept).unwrap_or_else(|| panic!("{operations:?} {kind:?} {n}: {found:?}"));
                        assert!(
                            rest.is_empty() || rest.len() == 2 && operations.contains(&Truncate),
                            "{operations:?} {kind:?} {n}: {rest:?}"
                        );
                    }
                }
                // The keeper meets the same disk, and readers notice neither.
                keeper.work(None);
                assert_eq!(read(&log), kept, "{operations:?} {kind:?} after {n}");
            }
            disk.kill();
            assert_eq!(read(&open(&disk, small()).unwrap().log), kept, "{operations:?} {kind:?} after a restart");
        }
    }
}

/// A directory that can be read and not written is an error at the start that says so, and not a hub that refuses everything.
#[test]
fn a_directory_that_is_read_only() {
    let disk = Simulated::new(1, None);
    let Parts { mut writer, .. } = open(&disk, small()).unwrap();
    append(&mut writer, &["1"], 1).unwrap();
    disk.kill();
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
        disk.refuse(&[Operation::Create, Operation::Write, Operation::Truncate, Operation::Rename, Operation::Remove], kind);
        assert_eq!(open(&disk, small()).err().map(|error| error.kind()), Some(kind));
        disk.kill();
    }
    assert_eq!(read(&open(&disk, small()).unwrap().log), [("1".to_owned(), 1)]);
}

/// The wall clock jumps by an hour, either way: numbers and times keep their order, and moments find their place.
#[test]
fn the_clock_jumps() {
    const HOUR: u64 = 3_600_000;
    let disk = Simulated::new(1, None);
    let mut shown = Vec::new();
    for (life, clock) in [[10 * HOUR, 11 * HOUR, 10 * HOUR], [9 * HOUR, 11 * HOUR, 12 * HOUR]].into_iter().enumerate() {
        let Parts { mut writer, .. } = open(&disk, small()).unwrap();
        for now in clock {
            append(&mut writer, &[&format!("{life} {now}")], now).unwrap();
            shown.push((format!("{life} {now}"), now));
        }
        disk.kill();
    }
    let Parts { log, .. } = open(&disk, small()).unwrap();
    let events = read(&log);
    assert!(events.iter().map(|(data, _)| data).eq(shown.iter().map(|(data, _)| data)), "in the order in which they came");
    assert!(events.iter().map(|(_, at)| at / HOUR).eq([10, 11, 11, 11, 11, 12]), "{events:?}");
    let filter = Filter::new(Matchers::all(), &Grant::full());
    let after = |moment| {
        let (place, missing) = log.since(moment, &filter).unwrap();
        assert_eq!(missing, None);
        let page = log.read_beyond(place, u64::MAX, &filter, &[], PageLimits { bytes: 1 << 20, events: 100, scanned: 100 }).unwrap();
        page.records.len()
    };
    assert_eq!([9, 10, 11, 12, 13].map(|hour| after(hour * HOUR)), [6, 6, 5, 1, 0]);
}

/// A clock that runs ahead of the time that really passed says nothing about age; one that goes back only keeps events longer.
#[test]
fn age_and_a_clock_that_jumps() {
    const MINUTE: Duration = Duration::from_mins(1);
    let ms = |time: Duration| time.as_millis() as u64;
    let disk = Simulated::new(1, None);
    let options = DiskOptions { retention_age: Some(30 * MINUTE), ..small() };
    let Parts { mut writer, mut keeper, log, .. } = open(&disk, options).unwrap();
    // The keeper began at this moment.
    let began = Duration::from_millis(keeper.now(Duration::ZERO, Duration::ZERO).map_or(0, |_| ms(super::keeper::wall())));
    for n in 0..60 {
        append(&mut writer, &[&format!("{n} {}", "x".repeat(50))], ms(began)).unwrap();
    }
    let all = log.view().segments.len();
    assert!(all > 3);
    let mut look = |clock: Duration, passed: Duration| {
        let now = keeper.now(clock, passed);
        keeper.work(now);
        (now.is_some(), log.view().segments.len())
    };
    for (clock, passed, expected) in [
        (began + MINUTE, MINUTE, (true, all)),
        // An hour and more ahead: it would all be too old, and stays.
        (began + 63 * MINUTE, 2 * MINUTE, (false, all)),
        (began + 24 * 60 * MINUTE, 3 * MINUTE, (false, all)),
        // An hour back: younger than it is.
        (began.saturating_sub(60 * MINUTE), 4 * MINUTE, (true, all)),
        // Right again, and the time has really come.
        (began + 29 * MINUTE, 29 * MINUTE, (true, all)),
        (began + 31 * MINUTE, 31 * MINUTE, (true, 0)),
    ] {
        assert_eq!(look(clock, passed), expected, "{clock:?} after {passed:?}");
    }
}

/// N-40: an event as large as the default allows, several times larger than a segment, alone and between small ones.
#[test]
fn an_event_of_one_mebibyte() {
    let disk = Simulated::new(1, None);
    let large = "0123456789abcde\n".repeat(limits::EVENT_DATA / 16);
    assert_eq!(large.len(), 1 << 20);
    let mut expected = Vec::new();
    for life in 0..2 {
        let Parts { mut writer, keeper, log, .. } = open(&disk, small()).unwrap();
        for data in ["small", &large, "small again", &large] {
            append(&mut writer, &[data], life).unwrap();
            expected.push((data.to_owned(), life));
            keeper.work(None);
        }
        assert!(read(&log) == expected, "in life {life}");
        disk.kill();
    }
    assert!(read(&open(&disk, small()).unwrap().log) == expected, "after a restart");
}
