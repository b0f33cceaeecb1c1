//! Bad days: files that were cut, zeroed, flipped or taken away, disks without room, directories that are gone. Whatever is served is what
//! was published, and whatever is not served is told (N-14).

use super::{
    DiskOptions, Durability, Parts, assemble, evicted,
    files::Files,
    format::{index_name, segment_name, serial_of},
    ledger,
    log::Log,
    simulated::{Random, Simulated},
    state,
    writer::{Waiting, Writer},
};
use crate::{
    PrefixRule,
    store::{Once, OnceKey, PageLimits, StoreError},
};
use std::{collections::BTreeMap, sync::Arc};
use tidings_core::{Event, EventId, Filter, GapReason, Grant, Matchers, Record, TopicMatcher};
use tokio::sync::oneshot;

const TOPICS: [&str; 3] = ["a", "b", "c"];

fn open(disk: &Simulated) -> Parts {
    let options = DiskOptions { segment_bytes: 1_500, retention_age: None, ..DiskOptions::default() };
    assemble(Arc::new(disk.clone()), options, Box::new(|| ())).expect("a damaged log opens")
}

fn append(writer: &mut Writer, events: Vec<Event>) -> Result<Vec<EventId>, StoreError> {
    append_with(writer, events, None).map(|once| match once {
        Once::Kept(ids) | Once::Before(ids) => ids,
        Once::Other => panic!("no key"),
    })
}

fn append_with(writer: &mut Writer, events: Vec<Event>, key: Option<OnceKey>) -> Result<Once, StoreError> {
    let (answer, mut answered) = oneshot::channel();
    writer.refusing = None;
    writer.commit(vec![Waiting { drafts: events.into_iter().map(Record::draft).collect(), key, now: 1, answer }]);
    answered.try_recv().expect("an answer")
}

/// Every second request has a key.
fn key(life: u8, request: u8) -> Option<OnceKey> {
    request.is_multiple_of(2).then_some(OnceKey { name: [1 + 16 * life + request; 16], request: [request; 32] })
}

/// A log of several segments, single events and batches, closed properly or not.
pub(super) fn filled(closed: bool) -> (Simulated, BTreeMap<u64, String>) {
    let (disk, mut all) = (Simulated::new(1, None), BTreeMap::new());
    for life in 0..3 {
        let Parts { mut writer, keeper, log, .. } = open(&disk);
        for request in 0..16u8 {
            let count = if request % 4 == 0 { 3 } else { 1 };
            let event = |n: u64| Event::new(TOPICS[(u64::from(request) + n) as usize % 3], format!("{life} {request} {n}")).unwrap();
            append_with(&mut writer, (0..count).map(event).collect(), key(life, request)).unwrap();
            let head = log.bounds().head;
            all.extend((0..count).map(|n| (head + 1 + n - count, format!("{life} {request} {n}"))));
        }
        keeper.work(None);
        if closed || life < 2 {
            writer.queue.close();
            writer.run();
            keeper.work(None);
        }
        disk.kill();
    }
    (disk, all)
}

/// What a reader of these topics gets, and which numbers it is told are gone.
fn read(log: &Log, matcher: TopicMatcher) -> (BTreeMap<u64, String>, Vec<(u64, u64)>) {
    let filter = Filter::new(Matchers::from(matcher), &Grant::full());
    let (mut after, head) = (log.bounds().floor, log.bounds().head);
    let (mut events, mut gone) = (BTreeMap::new(), Vec::new());
    while after < head {
        let page = log.read_beyond(after, head, &filter, &[], PageLimits { bytes: 4_000, events: 7, scanned: 100 }).unwrap();
        assert!(page.covered_through > after, "no progress after {after}");
        if page.lost.is_some() {
            let to = page.records.first().map_or(page.covered_through, |record| record.position().sequence - 1);
            gone.push((after, to));
        }
        events.extend(page.records.iter().map(|record| (record.position().sequence, record.data().into_owned())));
        after = page.covered_through;
    }
    (events, gone)
}

fn check(what: &str, log: &Log, all: &BTreeMap<u64, String>, by_sequence: &BTreeMap<u64, &str>) {
    for matcher in [TopicMatcher::all(), TopicMatcher::exact("b").unwrap(), TopicMatcher::prefix("c").unwrap()] {
        let (events, gone) = read(log, matcher.clone());
        for (sequence, data) in &events {
            assert_eq!(all.get(sequence), Some(data), "{what}: {sequence} is another event");
        }
        for sequence in all.keys().filter(|sequence| matcher == TopicMatcher::all() || by_sequence[sequence] == format!("{matcher:?}")) {
            let told = gone.iter().any(|(after, to)| after < sequence && sequence <= to);
            assert!(events.contains_key(sequence) || told, "{what}: {sequence} is missing silently for {matcher:?}; told {gone:?}");
        }
    }
}

/// Every file, at every place where something begins or ends and at random ones.
#[test]
fn damage_is_never_served_and_never_hidden() {
    let (disk, all) = filled(true);
    let by_sequence: BTreeMap<u64, &str> = {
        let Parts { log, .. } = open(&disk.copy());
        let mut topics = BTreeMap::new();
        for (topic, shown) in [("a", "=a"), ("b", "=b"), ("c", "c/**")] {
            topics.extend(read(&log, TopicMatcher::exact(topic).unwrap()).0.into_keys().map(|sequence| (sequence, shown)));
        }
        topics
    };
    assert_eq!(by_sequence.len(), all.len(), "the undamaged log");
    let mut random = Random(7);
    let names = disk.names().unwrap();
    assert!(names.len() > 8, "{names:?}");
    for name in &names {
        let mut len = 0;
        disk.damage(name, |contents| len = contents.len() as u64);
        let mut places: Vec<u64> = vec![0, 1, 8, 63, 64, 65, 112, len - 41, len - 40, len - 1];
        places.extend((0..30).map(|_| random.below(len)));
        for place in places.into_iter().filter(|place| *place < len) {
            let bit = 1 << random.below(8);
            let stretch = (1 + random.below(200)) as usize;
            let at = place as usize;
            for way in ["cut", "flipped", "zeroed"] {
                let damaged = disk.copy();
                damaged.damage(name, |contents| match way {
                    "cut" => contents.truncate(at),
                    "flipped" => contents[at] ^= bit,
                    _ => contents[at..].iter_mut().take(stretch).for_each(|byte| *byte = 0),
                });
                let Parts { log, mut writer, keeper, .. } = open(&damaged);
                let what = format!("{name} {way} at {place} of {len}");
                check(&what, &log, &all, &by_sequence);
                assert!(
                    serial_of(name, "keys").is_none() || writer.keyring.table().len() == 3 * 8,
                    "{what}: keys are lost that are in the segment"
                );
                // It goes on, above every number that was given, and the same is found once more.
                let id = append(&mut writer, vec![Event::new("new", "event").unwrap()]).unwrap();
                assert_eq!(id.len(), 1);
                let head = log.bounds().head;
                assert!(head > *all.last_key_value().unwrap().0, "{what}: {head} was given before");
                keeper.work(None);
                damaged.kill();
                let mut more = all.clone();
                more.insert(head, "event".into());
                let mut topics = by_sequence.clone();
                topics.insert(head, "new");
                check(&format!("{what}, opened again"), &open(&damaged).log, &more, &topics);
            }
        }
    }
}

#[test]
fn files_that_are_gone() {
    let (disk, all) = filled(true);
    let topics: BTreeMap<u64, &str> = all.keys().map(|sequence| (*sequence, "")).collect();
    for name in disk.names().unwrap() {
        let damaged = disk.copy();
        damaged.remove(&name).unwrap();
        check(&format!("without {name}"), &open(&damaged).log, &all, &topics);
    }
}

/// N-6: the keys of removed segments are in files of their own. Damage there costs its keys and nothing else, and no key stands for
/// anything but what it was used for.
#[test]
fn keys_that_were_carried_over() {
    let disk = Simulated::new(9, None);
    let open = |disk: &Simulated| {
        let options = DiskOptions { segment_bytes: 1_000, retention_bytes: 5_000, retention_age: None, ..DiskOptions::default() };
        assemble(Arc::new(disk.clone()), options, Box::new(|| ())).expect("a damaged log opens")
    };
    let name = |n: u8| Some(OnceKey { name: [n; 16], request: [n; 32] });
    let event = |n: u8| vec![Event::new("a", "x".repeat(100 + usize::from(n))).unwrap()];
    let Parts { mut writer, keeper, .. } = open(&disk);
    let mut answers = BTreeMap::new();
    for n in 1..=97u8 {
        answers.insert(n, append_with(&mut writer, event(n), name(n)).unwrap());
        keeper.work(None);
    }
    writer.queue.close();
    writer.run();
    disk.kill();
    let again = |disk: &Simulated, what: &str| {
        let Parts { mut writer, .. } = open(disk);
        let known = answers.iter().filter(|(n, first)| match (append_with(&mut writer, event(**n), name(**n)).unwrap(), first) {
            (Once::Before(ids), Once::Kept(first)) => {
                assert_eq!(ids, *first, "{what}: {n}");
                true
            }
            (Once::Kept(_), _) => false,
            (other, _) => panic!("{what}: {n} is {other:?}"),
        });
        let known = known.count();
        disk.kill();
        known
    };
    let carried: Vec<String> = {
        let names = disk.names().unwrap();
        let gone = |serial| !names.contains(&segment_name(serial));
        names.iter().filter(|name| serial_of(name, "keys").is_some_and(gone)).cloned().collect()
    };
    assert!(carried.len() > 1, "{carried:?}");
    assert_eq!(again(&disk.copy(), "undamaged"), 97);
    for name in &carried {
        let mut len = 0;
        disk.damage(name, |contents| len = contents.len());
        for at in [0, 8, 9, 12, 16, 24, 31, 32, 48, 80, 95, len - 5, len - 4, len - 1] {
            for way in ["cut", "flipped", "zeroed"] {
                let damaged = disk.copy();
                damaged.damage(name, |contents| match way {
                    "cut" => contents.truncate(at),
                    "flipped" => contents[at] ^= 1,
                    _ => contents[at..].fill(0),
                });
                let mut same = false;
                disk.damage(name, |contents| damaged.damage(name, |other| same = contents == other));
                let known = again(&damaged, &format!("{name} {way} at {at}"));
                assert!(same || (5..97).contains(&known), "{name} {way} at {at}: {known} keys");
            }
        }
        let damaged = disk.copy();
        damaged.remove(name).unwrap();
        assert!((5..97).contains(&again(&damaged, name)));
    }
    // One that cannot be read goes with the next round.
    let damaged = disk.copy();
    damaged.damage(&carried[0], |contents| contents.truncate(40));
    open(&damaged).keeper.work(None);
    assert!(!damaged.names().unwrap().contains(&carried[0]));
}

/// N-6: keys of events that were answered and then undone are undone with them; a full disk does not keep what was answered before from
/// being answered again.
#[test]
fn keys_and_a_disk_that_refuses() {
    let disk = Simulated::new(10, None);
    let options = DiskOptions { durability: Durability::None, ..DiskOptions::default() };
    let Parts { mut writer, .. } = assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap();
    let event = || vec![Event::new("a", "x").unwrap()];
    let first = append_with(&mut writer, event(), key(0, 0)).unwrap();
    assert!(matches!(first, Once::Kept(_)));
    disk.fail_one_in(1);
    assert!(append_with(&mut writer, event(), key(0, 2)).is_err());
    // The failed write gave the segment up, and its sync failed: the first is gone too, and readers are told.
    disk.fail_one_in(0);
    assert!(matches!(append_with(&mut writer, event(), key(0, 0)).unwrap(), Once::Kept(_)));

    let Parts { mut writer, .. } = open(&Simulated::new(11, None));
    let Once::Kept(ids) = append_with(&mut writer, event(), key(0, 0)).unwrap() else { panic!("it is new") };
    writer.refuse(&std::io::ErrorKind::StorageFull.into());
    let (answer, mut answered) = oneshot::channel();
    writer.commit(vec![Waiting { drafts: event().into_iter().map(Record::draft).collect(), key: key(0, 0), now: 1, answer }]);
    assert_eq!(answered.try_recv().unwrap().unwrap(), Once::Before(ids));
}

/// A killed program's newest segment: what stands before something that was synced later is damage, not a torn tail.
#[test]
fn damage_before_a_later_sync_is_told() {
    let (disk, all) = filled(false);
    let newest = disk.names().unwrap().into_iter().filter_map(|name| serial_of(&name, "log")).max().unwrap();
    let newest = segment_name(newest);
    disk.damage(&newest, |contents| contents[70] ^= 1);
    let Parts { log, .. } = open(&disk);
    let (events, gone) = read(&log, TopicMatcher::all());
    assert!(!gone.is_empty() && events.len() < all.len());
    let reason = log.read_beyond(
        gone[0].0,
        u64::MAX,
        &Filter::new(Matchers::all(), &Grant::full()),
        &[],
        PageLimits { bytes: 1, events: 1, scanned: 100 },
    );
    assert_eq!(reason.unwrap().lost, Some(GapReason::Damaged));
    assert!(all.keys().all(|sequence| events.contains_key(sequence) || gone.iter().any(|(after, to)| after < sequence && sequence <= to)));
}

/// N-5: no space is 507, everything else 503; nothing is half-stored, and it goes on by itself.
#[test]
fn a_disk_that_refuses() {
    let disk = Simulated::new(3, None);
    let Parts { mut writer, log, .. } = open(&disk);
    let event = |n: usize| Event::new("a", n.to_string()).unwrap();
    let mut kept = Vec::new();
    for n in 0..300 {
        disk.fail_one_in(if n % 50 < 25 { 3 } else { 0 });
        match append(&mut writer, vec![event(n), event(n)]) {
            Ok(_) => kept.extend([n.to_string(), n.to_string()]),
            Err(error) => {
                assert!(n % 50 < 25, "{error}");
                assert!(matches!(error, StoreError::NoSpace | StoreError::Unavailable(_)));
            }
        }
        disk.fail_one_in(0);
        assert!(read(&log, TopicMatcher::all()).0.into_values().eq(kept.iter().cloned()), "after {n}");
    }
    assert!((300..600).contains(&kept.len()), "{}", kept.len());
    drop(writer);
    disk.kill();
    assert!(read(&open(&disk).log, TopicMatcher::all()).0.into_values().eq(kept), "after a restart");
}

#[test]
fn a_directory_that_is_gone() {
    let disk = Simulated::new(4, None);
    let Parts { mut writer, .. } = open(&disk);
    append(&mut writer, vec![Event::new("a", "1").unwrap()]).unwrap();
    disk.take_away();
    let refused = append(&mut writer, vec![Event::new("a", "2").unwrap()]);
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("removed")), "{refused:?}");
}

/// Nobody publishes to a hub that says it is not ready: it finds out by itself that the disk works again.
#[test]
fn it_recovers_without_a_publish() {
    let disk = Simulated::new(5, None);
    let Parts { writer, .. } = open(&disk);
    let queue = writer.queue.clone();
    let thread = std::thread::spawn(move || writer.run());
    disk.fail_one_in(1);
    let (answer, answered) = oneshot::channel();
    queue.push(Waiting { drafts: Record::draft(Event::new("a", "1").unwrap()).into(), key: None, now: 1, answer }).unwrap();
    assert!(answered.blocking_recv().unwrap().is_err());
    assert!(queue.refusing().is_some());
    disk.fail_one_in(0);
    let began = std::time::Instant::now();
    while queue.refusing().is_some() {
        assert!(began.elapsed().as_secs() < 60, "still refusing");
        std::thread::yield_now();
    }
    queue.close();
    thread.join().unwrap();
}

/// A directory of version 1 is read, all classes begin where it ends, and the first start makes it version 3.
#[test]
fn a_directory_of_version_1() {
    let (disk, all) = filled(true);
    let state = state::load(&disk).unwrap().unwrap();
    let first = open(&disk.copy()).log.view().segments[0].clone();
    for name in [segment_name(first.header.serial), index_name(first.header.serial), ledger::NAME.into(), evicted::NAME.into()] {
        let _ = disk.remove(&name);
    }
    let mut bytes = b"TIDSTATE\x01\0\x01\0".to_vec();
    bytes.extend(state.epoch.0.to_le_bytes());
    for number in [state.reserved, first.last, state.head, state.last, state.newest.0, state.newest.1] {
        bytes.extend(number.to_le_bytes());
    }
    // One gap, behind everything: numbers that nobody was given.
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(state.last.to_le_bytes());
    bytes.extend((state.last + 5).to_le_bytes());
    bytes.push(0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    disk.damage(state::NAME, |contents| *contents = bytes);

    let mut rule = PrefixRule::new("a");
    rule.retention_events = Some(1_000);
    let options = DiskOptions { segment_bytes: 1_500, retention_age: None, prefixes: vec![rule], ..DiskOptions::default() };
    for _ in 0..2 {
        let Parts { log, .. } = assemble(Arc::new(disk.clone()), options.clone(), Box::new(|| ())).unwrap();
        assert_eq!(log.epoch, state.epoch);
        assert!(log.sight().floors.len() > 2 && log.sight().floors.iter().all(|&floor| floor == first.last));
        let kept = all.range(first.last + 1..).map(|(sequence, data)| (*sequence, data.clone()));
        let (events, gone) = read(&log, TopicMatcher::all());
        assert!(kept.eq(events) && gone.is_empty(), "{gone:?}");
        let filter = Filter::new(Matchers::all(), &Grant::full());
        assert_eq!(log.missing_after(0, &filter).unwrap(), Some(GapReason::Evicted));
        assert_eq!(log.missing_after(first.last, &filter).unwrap(), None);
        disk.damage(state::NAME, |contents| assert_eq!(contents[8..10], [3, 0]));
        disk.kill();
    }
}
