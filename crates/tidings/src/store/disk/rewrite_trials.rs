//! What must be true of a log of which segments were rewritten: space is back, and nothing else is another (N-4, N-6, N-14, Z-30).

use super::{
    DiskOptions, LogDirectory, Parts, assemble,
    files::{Directory, Files},
    format::{GENERATION, segment_name, serial_of},
    log::Log,
    rewrite::Pace,
    room::Fill,
    simulated::{Random, Simulated},
    standing,
    writer::{Waiting, Writer},
};
use crate::{
    Keep, PrefixRule,
    store::{Once, OnceKey, PageLimits},
};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tidings_core::{Event, Filter, GapReason, Grant, Matchers, Record, TopicMatcher, limits};
use tokio::sync::oneshot;

/// Of what is below `short` ten events stay, of what is below `k` the latest besides, and of all else everything.
fn options() -> DiskOptions {
    let mut short = PrefixRule::new("short");
    short.retention_events = Some(10);
    let mut latest = PrefixRule::new("k");
    (latest.retention_events, latest.keep) = (Some(3), Some(Keep::Latest));
    DiskOptions { segment_bytes: 3_000, retention_age: None, prefixes: vec![short, latest], ..DiskOptions::default() }
}

fn open(files: &Arc<dyn Files>) -> Parts {
    assemble(files.clone(), options(), Box::new(|| ())).unwrap()
}

fn publish(writer: &mut Writer, events: Vec<Event>, key: Option<OnceKey>, now: u64) -> Once {
    let (answer, mut answered) = oneshot::channel();
    let drafts = events.into_iter().map(Record::draft).collect();
    writer.commit(vec![Waiting { drafts, key, now, answer }]);
    answered.try_recv().unwrap().unwrap()
}

fn event(topic: &str, n: u64) -> Event {
    Event::new(topic, format!("{topic} {n} {}", "x".repeat(40))).unwrap().with_id(&format!("id-{topic}-{n}")).unwrap()
}

/// Request `n`: one event that stays and, in the same batch or by itself, many that go.
fn request(n: u64) -> (Vec<Event>, Option<OnceKey>) {
    let topics: &[&str] = if n % 7 == 3 { &["short/a", "long", "short/b", "short/c", "short/b"] } else { &["short/a", "short/c"] };
    let events = topics.iter().enumerate().map(|(place, topic)| event(topic, 10 * n + place as u64)).collect();
    let key = OnceKey { name: [n as u8; 16], request: [1; 32] };
    (events, n.is_multiple_of(3).then_some(key))
}

const REQUESTS: u64 = 140;

/// The answer to each request with a key.
fn fill(parts: &mut Parts) -> BTreeMap<u64, Once> {
    let mut answers = BTreeMap::new();
    for n in 0..REQUESTS {
        let (events, key) = request(n);
        let answer = publish(&mut parts.writer, events, key, 1_000 + n);
        if key.is_some() {
            answers.insert(n, answer);
        }
    }
    answers
}

fn filter(matcher: TopicMatcher) -> Filter {
    Filter::new(Matchers::from(matcher), &Grant::full())
}

/// All that is served of these topics, and whether anything is told to be missing.
fn read(log: &Log, matcher: TopicMatcher) -> (BTreeMap<u64, (String, u64)>, Option<GapReason>) {
    let (sight, filter) = (log.sight(), filter(matcher));
    let (mut events, mut after, mut lost) = (BTreeMap::new(), 0, None);
    while after < sight.head {
        let limits = PageLimits { bytes: 2_000, events: 9, scanned: 50 };
        let page = log.read_beyond(after, sight.head, &filter, &sight.floors, limits).unwrap();
        lost = lost.or(page.lost);
        events.extend(page.records.iter().map(|record| (record.position().sequence, (record.data().into_owned(), record.accepted_at()))));
        after = page.covered_through;
    }
    (events, lost)
}

fn rewritten(files: &dyn Files) -> Vec<String> {
    let is_rewritten = |name: &String| serial_of(name, "log").is_some_and(|serial| serial >= GENERATION);
    files.names().unwrap().into_iter().filter(is_rewritten).collect()
}

fn bytes_of_logs(files: &dyn Files) -> u64 {
    let logs = files.names().unwrap().into_iter().filter(|name| serial_of(name, "log").is_some());
    logs.map(|name| files.open(&name).unwrap().len().unwrap()).sum()
}

/// Everything that can be asked of it.
fn answers(log: &Log) -> String {
    let all = TopicMatcher::all;
    let of = |topic: &str| TopicMatcher::exact(topic).unwrap();
    let topics = ["long", "short/a", "short/b"].map(|topic| read(log, of(topic)));
    let ids: Vec<_> = (0..REQUESTS).map(|n| log.resolve(&format!("id-long-{}", 10 * n + 1)).unwrap()).collect();
    // The place may be another one before the same event.
    let after = |place: u64| topics[0].0.range(place + 1..).next().map(|(sequence, _)| *sequence);
    let since = (990..1_150).map(|moment| log.since(moment, &filter(of("long"))).unwrap());
    let since: Vec<_> = since.map(|(place, lost)| (after(place), lost)).collect();
    let last: Vec<_> = [1, 2, 5, 15, 100].iter().map(|&count| log.last(count, &filter(of("long"))).unwrap()).collect();
    let everything = read(log, all());
    // After it are numbers that nobody was given.
    let newest = *everything.0.last_key_value().unwrap().0;
    let gone: Vec<_> = (0..newest).map(|after| log.missing_after(after, &filter(of("short/b"))).unwrap()).collect();
    let mine: Vec<_> = (0..newest).map(|after| log.missing_after(after, &filter(of("long"))).unwrap()).collect();
    assert!(mine.iter().all(Option::is_none), "nothing of it was removed");
    format!("{everything:?} {topics:?} {ids:?} {since:?} {last:?} {gone:?} {:?}", log.topics(None, 100).unwrap())
}

/// N-4, N-6: positions, ids, times, keys and gaps are what they were, in this life and in the next, with indexes and without; and most of
/// the space is back, for fewer bytes written than are free now.
#[test]
fn nothing_is_another_but_the_space() {
    let disk = Simulated::new(1, None);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut parts = open(&files);
    let kept = fill(&mut parts);
    parts.keeper.tidy(None);
    let (before, full) = (answers(&parts.log), bytes_of_logs(&*files));
    assert!(rewritten(&*files).is_empty());
    // In small steps, so that many of them end within a segment.
    while parts.keeper.rewrite(700, None).unwrap() > 0 {
        assert!(answers(&parts.log) == before, "on the way");
    }
    let (free, written) = (full - bytes_of_logs(&*files), parts.log.rewritten.bytes.load(Relaxed));
    println!("{free} of {full} bytes are free, {written} were written, for {} segments", parts.log.rewritten.segments.load(Relaxed));
    assert!(free > full * 3 / 4 && written <= free);
    parts.keeper.work(None);
    assert_eq!(parts.log.rewritten.bytes.load(Relaxed), written, "there is nothing more to do");
    disk.kill();
    for without in ["", "index", "ledger", "latest"] {
        for name in files.names().unwrap().iter().filter(|name| !without.is_empty() && name.ends_with(without)) {
            disk.remove(name).unwrap();
        }
        let mut parts = open(&files);
        assert!(answers(&parts.log) == before, "without {without}");
        for (n, answer) in &kept {
            let (Once::Kept(ids), (events, key)) = (answer, request(*n)) else { panic!("{answer:?}") };
            assert_eq!(publish(&mut parts.writer, events, key, 2_000), Once::Before(ids.clone()), "request {n}, without {without}");
        }
        parts.keeper.work(None);
        disk.kill();
    }
}

/// N-14: a segment that is damaged stays as it is, and its damage is told.
#[test]
fn damage_is_not_rewritten_away() {
    let disk = Simulated::new(1, None);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut parts = open(&files);
    fill(&mut parts);
    parts.keeper.tidy(None);
    disk.damage(&segment_name(3), |contents| contents[600..620].fill(0));
    parts.keeper.work(None);
    let names = files.names().unwrap();
    assert!(names.contains(&segment_name(3)) && !names.contains(&segment_name(4)) && rewritten(&*files).len() > 5, "{names:?}");
    disk.kill();
    // The next life does not know yet that the one is damaged.
    let parts = open(&files);
    parts.keeper.work(None);
    assert!(files.names().unwrap().contains(&segment_name(3)));
    for serial in (1..9).filter(|&serial| serial != 3) {
        assert!(!files.names().unwrap().contains(&segment_name(serial)), "{serial}");
    }
}

/// N-14: wherever a rewritten segment is damaged afterwards, what cannot be read is told, and nothing is served that is not what it was.
#[test]
fn damage_of_a_rewritten_segment_is_told() {
    let disk = Simulated::new(1, None);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut parts = open(&files);
    fill(&mut parts);
    parts.keeper.work(None);
    disk.kill();
    let long = || TopicMatcher::exact("long").unwrap();
    let (all, _) = read(&open(&files).log, long());
    disk.kill();
    let (mut random, mut told) = (Random(5), 0);
    let names = rewritten(&*files);
    assert!(names.len() > 5);
    for name in &names {
        let len = files.open(name).unwrap().len().unwrap();
        let index = name.replace(".log", ".index");
        for place in [0, 63, 64, 91, 95, 96, len - 1].into_iter().chain((0..12).map(|_| random.below(len))).filter(|&place| place < len) {
            for (cut, indexed) in [(false, false), (true, false), (false, true), (true, true)] {
                let damaged = disk.copy();
                damaged.damage(name, |contents| if cut { contents.truncate(place as usize) } else { contents[place as usize] ^= 4 });
                if !indexed {
                    let _ = damaged.remove(&index);
                }
                let what = format!("{name} at {place} of {len}, {cut} {indexed}");
                let files: Arc<dyn Files> = Arc::new(damaged.copy());
                let (events, lost) = read(&open(&files).log, long());
                assert!(events.iter().all(|(at, event)| all.get(at) == Some(event)), "{what}");
                assert!(events.len() == all.len() || lost == Some(GapReason::Damaged), "{what}: {lost:?}");
                told += usize::from(lost.is_some());
                let mut found = Vec::new();
                super::verify::verify(&(Arc::new(damaged) as Arc<dyn Files>), &mut |finding| found.push(finding)).unwrap();
                assert!(found.iter().any(|finding| finding.damage), "{what}: {found:?}");
            }
        }
    }
    assert!(told > 100, "{told}");
}

/// Z-30: what was taken back does not come again because the event that says so was removed before what it takes back.
#[test]
fn what_was_taken_back_stays_away() {
    let disk = Simulated::new(1, None);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut parts = open(&files);
    // It holds its segment, where few events go.
    for n in 0..10 {
        publish(&mut parts.writer, vec![event("long", n)], None, 1);
    }
    publish(&mut parts.writer, vec![event("k/1", 0), event("k/2", 0), event("k/3", 0)], None, 1);
    for n in 0..60 {
        publish(&mut parts.writer, vec![event("short/a", n), event(if n < 20 { "long" } else { "short/b" }, n)], None, 1);
    }
    publish(&mut parts.writer, vec![Event::new("k/1", "").unwrap(), event("k/2", 1)], None, 1);
    for n in 0..60 {
        publish(&mut parts.writer, vec![event("short/a", n), event("k/4", n)], None, 1);
    }
    publish(&mut parts.writer, vec![Event::new("k/2", "").unwrap()], None, 1);
    for n in 0..60 {
        publish(&mut parts.writer, vec![event("short/a", n), event("k/4", n)], None, 1);
    }
    parts.keeper.work(None);
    assert!(rewritten(&*files).len() > 3 && files.names().unwrap().contains(&segment_name(1)), "{:?}", files.names());
    parts.keeper.work(None);
    let latest = |log: &Log| {
        let limits = PageLimits { bytes: usize::MAX, events: usize::MAX, scanned: usize::MAX };
        let page = log.read_latest(0, log.sight().head, &filter(TopicMatcher::all()), limits).unwrap();
        page.records.iter().map(|record| record.topics()[0].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(latest(&parts.log), ["k/3", "k/4"]);
    disk.kill();
    disk.remove(standing::NAME).unwrap();
    assert_eq!(latest(&open(&files).log), ["k/3", "k/4"]);
}

/// What stays of a segment because it is the latest of its kind is known to the byte before it is rewritten.
#[test]
fn what_will_stay_is_known() {
    let files: Arc<dyn Files> = Arc::new(Simulated::new(1, None));
    let mut parts = open(&files);
    for n in 0..120 {
        publish(&mut parts.writer, vec![event(&format!("k/{}/{n}", "name".repeat(n as usize % 9)), n), event("short/a", n)], None, 1);
        publish(&mut parts.writer, (0..4).map(|_| event("short/b", n)).collect(), None, 1);
        if n % 5 == 0 {
            // It holds its segment.
            publish(&mut parts.writer, vec![event("long", n)], None, 1);
        }
    }
    parts.keeper.tidy(None);
    let log = &parts.log;
    let known: BTreeMap<u64, u64> = {
        let (view, latest) = (log.view(), log.latest());
        let stays = |serial, segment| view.ledger.written_of(serial) - view.dead_in(&log.rules, &latest, segment);
        let serials = view.segments.iter().map(|segment| (segment.header.serial, segment));
        serials.map(|(serial, segment)| (serial, stays(serial, segment))).collect()
    };
    parts.keeper.work(None);
    let view = log.view();
    let rewritten = known.into_iter().filter(|(serial, _)| view.ledger.written_of(serial + GENERATION) > 0);
    let rewritten: Vec<_> = rewritten.map(|(serial, stays)| (stays, view.ledger.written_of(serial + GENERATION))).collect();
    assert!(rewritten.len() > 5 && rewritten.iter().all(|(known, stays)| known == stays), "{rewritten:?}");
}

/// Readers at work while segments are rewritten and removed: each gets all of what is kept, in order, and hears of no damage.
#[test]
fn readers_go_on_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Directory::take(directory.path().into()).unwrap());
    let Parts { log, mut writer, keeper, .. } = open(&files);
    let (done, acknowledged) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    let reads = std::thread::scope(|scope| {
        // Who asks for all may be told what goes meanwhile, and nobody else.
        let reader = |(matcher, told): (TopicMatcher, Option<GapReason>)| {
            let (log, done, acknowledged) = (log.clone(), &done, &acknowledged);
            scope.spawn(move || {
                let mut reads = 0;
                while !done.load(Relaxed) {
                    let least = acknowledged.load(Relaxed);
                    let (events, lost) = read(&log, matcher.clone());
                    let count = events.values().filter(|(data, _)| data.starts_with("long")).count() as u64;
                    assert!((lost.is_none() || lost == told) && count >= least, "{matcher:?} {lost:?}: {count} of {least}");
                    reads += 1;
                }
                reads
            })
        };
        let readers = [(TopicMatcher::all(), Some(GapReason::Evicted)), (TopicMatcher::exact("long").unwrap(), None)].map(reader);
        for n in 0..400 {
            let (events, key) = request(n);
            let long = events.iter().filter(|event| event.topics()[0].as_str() == "long").count() as u64;
            publish(&mut writer, events, key, 1);
            acknowledged.fetch_add(long, Relaxed);
            if n % 4 == 0 {
                keeper.work(None);
            }
        }
        done.store(true, Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    println!("{reads:?} reads, {} segments rewritten", log.rewritten.segments.load(Relaxed));
    assert!(log.rewritten.segments.load(Relaxed) > 20);
}

/// What is dead in a segment is said, and compacting takes it out.
#[test]
fn an_operator_sees_it_and_can_do_it() {
    let directory = tempfile::tempdir().unwrap();
    {
        let files: Arc<dyn Files> = Arc::new(Directory::take(Path::new(directory.path()).into()).unwrap());
        let mut parts = open(&files);
        fill(&mut parts);
        parts.keeper.tidy(None);
        parts.writer.queue.close();
        parts.writer.run();
    }
    let log = LogDirectory::open(directory.path()).unwrap().prefixes(options().prefixes);
    let dead = |log: &LogDirectory| -> u64 { log.inspect().unwrap().segments.iter().map(|segment| segment.dead).sum() };
    let (events, before) = (log.inspect().unwrap().events, dead(&log));
    assert!(before > 20_000, "{before}");
    let (bytes, left) = log.compact(options(), 5_000).unwrap();
    assert!(left + before / 2 < bytes && dead(&log) < before / 10, "{bytes} {left} {}", dead(&log));
    let after = log.inspect().unwrap();
    assert_eq!(after.events, events);
    assert!(after.segments.iter().all(|segment| segment.first <= segment.last));
    log.verify(|finding| panic!("{finding:?}")).unwrap();
}

/// So many bytes a second and no more, however much is spent at once; and after a failure nothing for a while.
#[test]
fn a_bounded_pace() {
    let (mut pace, begin) = (Pace::new(), Instant::now());
    let (mut spent, mut random, mut now) = (0, Random(3), begin);
    for _ in 0..10_000 {
        now += Duration::from_millis(random.below(300));
        pace.go_on(now, Fill::Within, |bytes| {
            let spends = random.below(2 * bytes + 1_000_000);
            spent += spends;
            Ok(spends)
        });
        let most = limits::REWRITTEN_BYTES * ((now - begin).as_secs() + 2);
        assert!(spent <= 2 * limits::REWRITTEN_BYTES + most, "{spent}");
    }
    assert!(spent > limits::REWRITTEN_BYTES * 100);
    now += Duration::from_secs(9);
    pace.go_on(now, Fill::Within, |_| Err(io::ErrorKind::StorageFull.into()));
    pace.go_on(now + Duration::from_secs(59), Fill::Within, |_| panic!("it rests"));
    let mut again = false;
    pace.go_on(now + Duration::from_secs(61), Fill::Within, |_| {
        again = true;
        Ok(0)
    });
    assert!(again);
    // Above the bound there is neither pace nor a long rest.
    pace.go_on(now, Fill::Within, |_| Err(io::ErrorKind::StorageFull.into()));
    pace.go_on(now + Duration::from_millis(900), Fill::Above, |_| panic!("it rests"));
    for _ in 0..1_000 {
        assert!(pace.go_on(now + Duration::from_secs(1), Fill::Above, Ok), "there is more to do");
    }
    assert!(!pace.go_on(now + Duration::from_secs(1), Fill::Full, |_| Ok(0)), "there is not");
}
