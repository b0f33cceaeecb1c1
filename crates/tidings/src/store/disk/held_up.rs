//! Who may be held up by a disk: whoever asked it for something, and nobody who only waits for a lock.

use super::{
    DiskOptions, Durability, Parts, assemble,
    keeper::LOOK,
    log::Log,
    rewrite::Pace,
    simulated::{Operation, Simulated},
    writer::{Waiting, Writer},
};
use crate::{Keep, PrefixRule, store::PageLimits};
use std::{
    io::ErrorKind,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};
use tidings_core::{Event, Filter, Grant, Matchers, Record, Topic, TopicMatcher};
use tokio::sync::oneshot;

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const LIMITS: PageLimits = PageLimits { bytes: 1 << 20, events: 100, scanned: 1_000 };

fn open(disk: &Simulated) -> Parts {
    let mut short = PrefixRule::new("short");
    short.retention_events = Some(10);
    let mut latest = PrefixRule::new("k");
    (latest.retention_events, latest.keep) = (Some(3), Some(Keep::Latest));
    let options = DiskOptions {
        segment_bytes: 2_000,
        retention_age: None,
        durability: Durability::None,
        prefixes: vec![short, latest],
        ..DiskOptions::default()
    };
    assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap()
}

fn publish(writer: &mut Writer, topic: &str) {
    let (answer, _) = oneshot::channel();
    writer.refusing = None;
    let drafts = Record::draft(Event::new(topic, "x".repeat(60)).unwrap().with_id("given").unwrap()).into();
    writer.commit(vec![Waiting { drafts, key: None, now: 1, answer }]);
}

fn exact(topic: &str) -> Filter {
    Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::full())
}

/// Everything that may be asked.
fn ask(log: &Log) {
    for filter in [exact("k/1"), exact("short"), Filter::new(Matchers::all(), &Grant::full())] {
        let head = log.sight().head;
        for after in [0, head / 2, head.saturating_sub(1)] {
            log.read_beyond(after, head, &filter, &[], LIMITS).unwrap();
            log.missing_after(after, &filter).unwrap();
        }
        let _ = log.read_at_hand(log.sight().high, head, &filter, LIMITS);
        log.read_latest(0, head, &filter, LIMITS).unwrap();
        log.since(1, &filter).unwrap();
        log.last(20, &filter).unwrap();
    }
    log.resolve("given").unwrap();
    log.newest(&Topic::parse("k/1").unwrap()).unwrap();
    log.topics(None, 100).unwrap();
}

/// Whatever the disk is asked for, and by whom: meanwhile nobody has a lock that readers take, or the writer when it shows them something.
#[test]
fn nobody_waits_for_the_disk_with_a_lock() {
    let disk = Simulated::new(1, None);
    let Parts { log, mut writer, keeper, .. } = open(&disk);
    let (held, watched) = (Arc::new(Mutex::new(Vec::new())), Arc::downgrade(&log));
    disk.tell({
        let held = held.clone();
        move |operation| {
            if watched.upgrade().is_some_and(|log| !log.is_free()) {
                held.lock().unwrap().push(operation);
            }
        }
    });
    let (mut pace, mut moment, mut lost) = (Pace::new(), Instant::now(), 0);
    for n in 0..400 {
        let topic = ["short".to_owned(), "long".to_owned(), format!("k/{}", n % 7)].into_iter().cycle().nth(n % 11).unwrap();
        publish(&mut writer, &topic);
        if n % 40 == 39 {
            // What was answered is not on disk, and never will be.
            disk.refuse(&[Operation::Sync], ErrorKind::Other);
            writer.finish().unwrap_err();
            disk.refuse(&[], ErrorKind::Other);
            lost = log.view().gaps.len();
        }
        if n % 8 == 0 {
            moment += LOOK;
            keeper.round(&mut pace, moment, Some(1));
            ask(&log);
        }
    }
    keeper.work(Some(1));
    ask(&log);
    let rewritten = log.rewritten.segments.load(std::sync::atomic::Ordering::Relaxed);
    assert!(lost > 3 && rewritten > 3, "{lost} times something was lost, {rewritten} segments were rewritten");
    assert_eq!(*held.lock().unwrap(), []);
}

/// Events are lost while the state is on its way to a disk that takes its time: readers are told of them before it comes back.
#[test]
fn a_loss_is_told_while_the_state_is_saved() {
    let disk = Simulated::new(1, None);
    let Parts { log, mut writer, .. } = open(&disk);
    for _ in 0..3 {
        publish(&mut writer, "long");
    }
    let ((begin, begun), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let released = Mutex::new(released);
    disk.tell(move |operation| {
        if thread::current().name() == Some("saves") && operation == Operation::Sync {
            begin.send(()).unwrap();
            // An error is the end of the test.
            let _ = released.lock().unwrap().recv();
        }
    });
    let durable = writer.durable.clone();
    let saves = thread::Builder::new().name("saves".into()).spawn(move || durable.update(|_| ())).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    disk.refuse(&[Operation::Sync], ErrorKind::Other);
    let writes = thread::spawn(move || writer.finish());
    wait_until("readers are told", || log.is_free() && !log.view().gaps.is_empty());
    drop(release);
    saves.join().unwrap().unwrap_err();
    writes.join().unwrap().unwrap_err();
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A question that is to be answered on the spot is asked by a shard's thread, which has others to serve: it waits for no lock.
#[test]
fn on_the_spot_nobody_is_waited_for() {
    let Parts { log, mut writer, .. } = open(&Simulated::new(1, None));
    publish(&mut writer, "long");
    let asks = |log: &Arc<Log>| {
        let (log, (answer, answered)) = (log.clone(), mpsc::channel());
        thread::spawn(move || answer.send(log.read_at_hand(1, 1, &exact("long"), LIMITS).is_some()));
        answered.recv_timeout(PATIENCE)
    };
    assert_eq!(asks(&log), Ok(true));
    let view = log.view();
    assert_eq!(asks(&log), Ok(false), "somebody has the view");
    drop(view);
    let latest = log.latest();
    assert_eq!(asks(&log), Ok(false), "somebody has what is the latest");
    drop(latest);
    assert_eq!(asks(&log), Ok(true));
}
