//! What must be true of a log that takes as much as it may: what a class keeps is not removed for the sake of others as long as rewriting
//! helps, and where it does not, space has a bound all the same and whoever lost something is told (N-14).

use super::{
    DiskOptions, DiskStore, Durability, Parts, assemble,
    keeper::Keeper,
    log::Log,
    rewrite::Pace,
    room::Fill,
    simulated::{Operation, Random, Simulated},
    writer::{Waiting, Writer},
};
use crate::{
    PrefixRule,
    store::{EventStore as _, Once, PageLimits, StoreError},
};
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tidings_core::{Event, Filter, GapReason, Grant, Matchers, Record, TopicMatcher, limits};
use tokio::sync::oneshot;

const SEGMENT: u64 = 3_000;

/// Of what is below `short` little stays, and of all else more than any of these tests publishes, or as much as is said.
fn options(others: u64) -> DiskOptions {
    let mut short = PrefixRule::new("short");
    short.retention_bytes = Some(5_000);
    DiskOptions { segment_bytes: SEGMENT, retention_age: None, retention_bytes: others, prefixes: vec![short], ..DiskOptions::default() }
}

fn open(disk: &Simulated, options: DiskOptions) -> Parts {
    assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap()
}

fn publish(writer: &mut Writer, topic: &str, n: u64, bytes: usize) -> Result<Once, StoreError> {
    let (answer, mut answered) = oneshot::channel();
    let event = Event::new(topic, format!("{n} {}", "x".repeat(bytes))).unwrap();
    writer.refusing = None;
    writer.commit(vec![Waiting { drafts: Record::draft(event).into(), key: None, now: 1, answer }]);
    answered.try_recv().unwrap()
}

/// The numbers in the data of what is served of a topic, and whether a reader from the beginning is told that anything is missing.
fn read(log: &Log, topic: &str) -> (BTreeSet<u64>, Option<GapReason>) {
    let filter = Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::full());
    let (sight, mut events, mut after, mut lost) = (log.sight(), BTreeSet::new(), 0, None);
    while after < sight.head {
        let limits = PageLimits { bytes: 2_000, events: 9, scanned: 50 };
        let page = log.read_beyond(after, sight.head, &filter, &sight.floors, limits).unwrap();
        lost = lost.or(page.lost);
        events.extend(page.records.iter().map(|record| record.data().split(' ').next().unwrap().parse::<u64>().unwrap()));
        after = page.covered_through;
    }
    (events, lost.or(log.missing_after(0, &filter).unwrap()))
}

/// Works as the keeper does, but that no time passes: so nothing is rewritten unless the log takes too much.
fn in_no_time(keeper: &Keeper, moment: Instant) {
    let mut pace = Pace::new();
    while keeper.round(&mut pace, moment, None) {}
}

/// A class below its limit keeps everything, however much others publish, and all of it together has the bound that is documented.
#[test]
fn what_is_kept_outlives_what_is_not() {
    let disk = Simulated::new(1, None);
    let (mut random, moment, mut n) = (Random(1), Instant::now(), 0);
    for life in 0..4 {
        let Parts { mut writer, keeper, log, .. } = open(&disk, options(100_000));
        let mut most = 0;
        for _ in 0..400 {
            publish(&mut writer, "short", n, 100 + random.below(400) as usize).unwrap();
            if n % 200 < 3 {
                publish(&mut writer, "kept", n, 20).unwrap();
            }
            n += 1;
            in_no_time(&keeper, moment);
            most = most.max(log.taken());
            assert!(log.fill() < Fill::Full, "it takes {} of {}", log.taken(), log.bound());
        }
        let kept: BTreeSet<u64> = (0..n).filter(|n| n % 200 < 3).collect();
        assert_eq!(read(&log, "kept"), (kept, None), "life {life}");
        let sum = 100_000 + 5_000 + 25_000;
        assert!(log.most() == sum && most <= sum + sum / limits::LOG_OVER && most > sum / 2, "{most}");
        println!("{most} of {sum} bytes at the most, {} segments rewritten", log.rewritten.segments.load(Relaxed));
        disk.kill();
    }
}

/// The same at the limits of all classes at once: each keeps what it may, and not much less than it may.
#[test]
fn all_classes_at_their_limits() {
    let disk = Simulated::new(1, None);
    let (mut random, moment) = (Random(2), Instant::now());
    let mut options = DiskOptions { segment_bytes: 4 * SEGMENT, ..options(200_000) };
    let mut other = PrefixRule::new("other");
    other.retention_bytes = Some(60_000);
    options.prefixes.push(other);
    let Parts { mut writer, keeper, log, .. } = open(&disk, options);
    let mut least = u64::MAX;
    for n in 0..4_000 {
        let topic = ["short", "short", "short", "other", "other", "kept"][random.below(6) as usize];
        publish(&mut writer, topic, n, 100).unwrap();
        in_no_time(&keeper, moment);
        assert!(log.fill() < Fill::Full, "it takes {} of {}", log.taken(), log.bound());
        if n > 2_000 && n % 50 == 0 {
            least = least.min(read(&log, "kept").0.len() as u64);
        }
    }
    println!("{least} events at the least, {} bytes rewritten", log.rewritten.bytes.load(Relaxed));
    // Some ten of them are left of a segment, and take 6,500 bytes with their index.
    assert!(least > 200, "{least}");
}

/// The segment of which most is dead comes first.
#[test]
fn most_dead_bytes_first() {
    let disk = Simulated::new(1, None);
    let Parts { mut writer, keeper, log, .. } = open(&disk, options(40_000));
    let mut random = Random(3);
    for n in 0..200 {
        let topic = if random.below(8) < n / 10 % 8 { "short" } else { "kept" };
        publish(&mut writer, topic, n, 150).unwrap();
        keeper.tidy(None);
    }
    assert_eq!(log.fill(), Fill::Above);
    let mut before = u64::MAX;
    let mut rewritten = 0;
    while log.fill() == Fill::Above {
        let dead: Vec<(u64, u64)> = {
            let (view, latest) = (log.view(), log.latest());
            view.segments.iter().map(|segment| (view.dead_in(&log.rules, &latest, segment), segment.header.serial)).collect()
        };
        let &(most, serial) = dead.iter().max_by_key(|(dead, _)| *dead).unwrap();
        let count = log.rewritten.segments.load(Relaxed);
        while log.rewritten.segments.load(Relaxed) == count && keeper.rewrite(1, None).unwrap() > 0 {}
        if log.rewritten.segments.load(Relaxed) == count {
            break;
        }
        assert!(log.view().segments.iter().all(|segment| segment.header.serial != serial), "{dead:?}");
        assert!(most <= before, "{most} after {before}");
        (before, rewritten) = (most, rewritten + 1);
    }
    assert!(rewritten > 2, "{rewritten}");
}

/// A keeper that never comes to rewriting: the writer does not wait for it for ever, space has its bound, and what goes is told.
#[test]
fn nobody_waits_for_ever() {
    let disk = Simulated::new(1, None);
    let Parts { mut writer, keeper, log, .. } = open(&disk, options(20_000));
    for n in 0..1_500 {
        publish(&mut writer, if n % 40 == 0 { "kept" } else { "short" }, n, 300).unwrap();
        keeper.tidy(None);
        // What was finished since the keeper looked is beyond the bound.
        assert!(log.taken() <= log.bound() + 2 * SEGMENT, "{} of {}", log.taken(), log.bound());
    }
    let (kept, lost) = read(&log, "kept");
    assert!(lost == Some(GapReason::Evicted) && !kept.is_empty() && !kept.contains(&0), "{kept:?} {lost:?}");
}

/// N-5: the disk is full before the log takes what it may and there is no room for a rewritten copy: then the oldest segment goes, what it
/// kept is told, and publishing goes on by itself again and again.
#[test]
fn a_disk_without_room_for_a_copy() {
    for room in [76_000, 79_000, 82_000, 90_000, 110_000] {
        let disk = Simulated::new(room, None);
        disk.set_capacity(room);
        let Parts { mut writer, keeper, log, .. } = open(&disk, options(40_000));
        let (mut moment, mut refused, mut longest, mut answered) = (Instant::now(), 0, 0, Vec::new());
        for n in 0..2_000 {
            let topic = if n % 40 == 0 { "kept" } else { "short" };
            match publish(&mut writer, topic, n, 300) {
                Ok(_) => {
                    refused = 0;
                    answered.extend((n % 40 == 0).then_some(n));
                }
                Err(StoreError::NoSpace) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            longest = longest.max(refused);
            moment += super::keeper::LOOK;
            in_no_time(&keeper, moment);
            assert!(disk.used() <= room, "{} of {room}", disk.used());
        }
        let (kept, lost) = read(&log, "kept");
        println!("{room}: refused {longest} times in a row at the most; {} of {} kept, {lost:?}", kept.len(), answered.len());
        assert!(longest < 10, "{room}: refused {longest} times in a row");
        assert!(lost.is_some() || kept.iter().eq(&answered), "{room}: lost silently");
        assert!(kept.last() == answered.last() && (room < 110_000 || lost.is_none()), "{room}");
    }
}

/// The same where rewriting fails for another reason: space has its bound.
#[test]
fn a_disk_that_cannot_be_read() {
    let disk = Simulated::new(1, None);
    let Parts { mut writer, keeper, log, .. } = open(&disk, options(20_000));
    let moment = Instant::now();
    for n in 0..1_000 {
        publish(&mut writer, if n % 40 == 0 { "kept" } else { "short" }, n, 300).unwrap();
        keeper.tidy(None);
        // Whatever is created while it rewrites: nothing else of this keeper is refused.
        disk.refuse(&[Operation::Create], ErrorKind::Other);
        let _ = keeper.rewrite(u64::MAX, None);
        disk.refuse(&[], ErrorKind::Other);
        assert!(log.taken() <= log.bound() + 2 * SEGMENT, "{} of {}", log.taken(), log.bound());
    }
    assert_eq!(read(&log, "kept").1, Some(GapReason::Evicted));
    // And once it works again nothing more goes.
    in_no_time(&keeper, moment);
    let before = read(&log, "kept").0;
    for n in 1_000..1_400 {
        publish(&mut writer, "short", n, 300).unwrap();
        in_no_time(&keeper, moment);
    }
    assert_eq!(read(&log, "kept").0, before);
}

/// With both threads, and publishers who outrun the keeper if nothing holds them: they wait, and nothing that is kept goes.
#[test]
fn publishers_wait_for_the_keeper() {
    const FLOOD: u64 = 40 << 20;
    let directory = tempfile::tempdir().unwrap();
    let mut short = PrefixRule::new("short");
    short.retention_bytes = Some(256 << 10);
    let options = DiskOptions {
        durability: Durability::None,
        retention_age: None,
        segment_bytes: 64 << 10,
        retention_bytes: 1 << 20,
        prefixes: vec![short],
        ..DiskOptions::default()
    };
    let store = DiskStore::open(directory.path(), options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut published, mut kept, mut most) = (0, 0, 0);
    let draft = |topic: &str, bytes: usize| Record::draft(Event::new(topic, "x".repeat(bytes)).unwrap());
    while published < FLOOD {
        let mut batch: Vec<_> = (0..16).map(|_| draft("short", 2_000)).collect();
        if published % (40 * 32_000) == 0 {
            batch.push(draft("kept", 20));
            kept += 1;
        }
        runtime.block_on(store.append(batch.into_iter().collect(), 1)).unwrap();
        (published, most) = (published + 32_000, most.max(store.log.taken()));
    }
    let filter = Filter::new(Matchers::from(TopicMatcher::exact("kept").unwrap()), &Grant::full());
    let (bounds, mut after, mut found) = (store.bounds(), 0, 0);
    while after < bounds.head {
        let limits = PageLimits { bytes: 1 << 20, events: 1_000, scanned: 100_000 };
        let page = runtime.block_on(store.read_after(after, bounds.head, &filter, limits)).unwrap();
        assert_eq!(page.lost, None);
        (after, found) = (page.covered_through, found + page.records.len());
    }
    println!("{found} of {kept}; {most} bytes at the most of {}", store.log.bound());
    assert!(found == kept && most <= store.log.bound() + (256 << 10), "{found} of {kept}; {most} bytes of {}", store.log.bound());
}
