//! Crash trials of retention by class and of what is kept because it is the latest: what is removed is told to whoever lost something and
//! stays removed, what is kept stays, and what was replaced or taken back does not come again.
//!
//! `TIDINGS_DISK_CRASHES` sets how many crashes a run has, `TIDINGS_DISK_SEED` runs one seed.

use super::{
    DiskOptions, Parts, assemble,
    files::{Files as _, Why},
    format::serial_of,
    log::Log,
    simulated::{Random, Simulated},
    standing,
    writer::{Waiting, Writer},
};
use crate::{Keep, PrefixRule, store::PageLimits};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, atomic::Ordering::Relaxed},
};
use tidings_core::{Event, Filter, Grant, Matchers, Record, TopicMatcher, shard::Page};
use tokio::sync::oneshot;

/// Of four classes; those below `k` and `n` keep the latest.
const TOPICS: [&str; 7] = ["a/1", "a/2", "k/1", "k/2", "n/1", "d", "presence"];
const ALL: PageLimits = PageLimits { bytes: usize::MAX, events: usize::MAX, scanned: usize::MAX };

struct Trial {
    random: Random,
    disk: Simulated,
    options: DiskOptions,
    delivered: Arc<Mutex<Vec<Record>>>,
    /// Every event that there ever was.
    model: BTreeMap<u64, Record>,
    floors: BTreeMap<Box<str>, u64>,
    /// Whether it is known exactly what was removed of what: not after a start, nor when something that was begun could not be finished.
    exact: bool,
    /// How many segments were.
    rewritten: u64,
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn rule(prefix: &str, events: Option<u64>, bytes: Option<u64>, keep: bool) -> PrefixRule {
    let mut rule = PrefixRule::new(prefix);
    (rule.retention_events, rule.retention_bytes) = (events, bytes);
    rule.keep = keep.then_some(Keep::Latest);
    rule
}

fn filter(matcher: TopicMatcher) -> Filter {
    Filter::new(Matchers::from(matcher), &Grant::full())
}

impl Trial {
    fn new(seed: u64, ignored: Option<Why>) -> Trial {
        let mut random = Random(seed);
        let prefixes = vec![
            rule("a", Some(3 + random.below(20)), None, false),
            rule("k", Some(2 + random.below(6)), None, true),
            rule("n", None, None, true),
            rule("presence", None, Some(300 + random.below(2_000)), false),
        ];
        let options = DiskOptions {
            segment_bytes: 600 + random.below(2_000),
            retention_age: None,
            // A quarter of it has room for all that is the latest.
            retention_bytes: 9_000 + random.below(6_000),
            prefixes,
            ..DiskOptions::default()
        };
        let disk = Simulated::new(seed ^ 0xC1A5, ignored);
        let (model, floors, delivered) = (BTreeMap::new(), BTreeMap::new(), Arc::default());
        Trial { random, disk, options, delivered, model, floors, exact: true, rewritten: 0 }
    }

    fn life(&mut self) -> Result<(), String> {
        if self.random.one_in(4) {
            self.disk.crash_after(self.random.below(20));
        }
        // What is derived may be missing, like any file.
        let derived = |name: &String| name == standing::NAME || serial_of(name, "index").is_some();
        for name in self.disk.names().unwrap().iter().filter(|name| derived(name)) {
            if self.random.one_in(8) {
                let _ = self.disk.remove(name);
            }
        }
        if let Ok(parts) = assemble(Arc::new(self.disk.clone()), self.options.clone(), Box::new(|| ())) {
            let Parts { log, mut writer, keeper, .. } = parts;
            let (delivered, follower) = (self.delivered.clone(), Arc::<OnceLock<crate::store::Follower>>::default());
            assert!(follower.set(Box::new(move |records| delivered.lock().unwrap().extend(records.iter().cloned()))).is_ok());
            writer.follower = follower;
            // What was written and not answered may be there.
            let mut found = Page::new(Vec::new(), 0);
            let all = filter(TopicMatcher::all());
            log.read_on(&mut found, log.bounds().head, &all, ALL, &|_| true).map_err(|error| error.to_string())?;
            self.model.extend(found.records.into_iter().map(|record| (record.position().sequence, record)));
            self.check(&log)?;
            if self.random.one_in(4) {
                self.disk.fail_one_in(10 + self.random.below(20));
                self.exact = false;
            }
            self.disk.crash_after(10 + self.random.below(250));
            for _ in 0..self.random.below(40) {
                match self.random.below(6) {
                    0 => keeper.tidy(None),
                    // A part of a segment, or several of them. What fails is tried again.
                    1 => drop(keeper.rewrite(1 + self.random.below(3_000), None)),
                    2 if self.random.one_in(4) => self.check(&log)?,
                    _ => self.publish(&mut writer),
                }
                // What was begun may be noted and not done.
                self.exact &= self.disk.has_power();
            }
            // The power may have gone in the middle of something.
            self.exact = false;
            self.check(&log)?;
            if self.random.one_in(4) {
                writer.queue.close();
                writer.run();
                keeper.work(None);
            }
            self.rewritten += log.rewritten.segments.load(Relaxed);
        }
        self.exact = false;
        if self.random.one_in(3) {
            self.disk.kill();
        } else {
            self.disk.crash();
        }
        Ok(())
    }

    fn publish(&mut self, writer: &mut Writer) {
        let mut drafts = Vec::new();
        for _ in 0..=self.random.below(4) {
            let topic = TOPICS[self.random.below(7) as usize];
            let data = if self.random.one_in(5) { String::new() } else { "x".repeat(1 + self.random.below(40) as usize) };
            let mut event = Event::new(topic, data).unwrap();
            if self.random.one_in(3) {
                event = event.with_type("x").unwrap();
            }
            if self.random.one_in(8) {
                event = event.with_topic(TOPICS[self.random.below(7) as usize]).unwrap();
            }
            if self.random.one_in(8) {
                event = event.with_id(&format!("id-{}", self.random.below(40))).unwrap();
            }
            drafts.push(Record::draft(event));
        }
        let (answer, _answered) = oneshot::channel();
        writer.refusing = None;
        writer.commit(vec![Waiting { drafts: drafts.into_iter().collect(), key: None, now: 1, answer }]);
        let delivered = std::mem::take(&mut *self.delivered.lock().unwrap());
        self.model.extend(delivered.into_iter().map(|record| (record.position().sequence, record)));
    }

    /// The latest of each topic and type, by the model.
    fn latest(&self) -> BTreeSet<u64> {
        let mut latest = BTreeMap::new();
        for (sequence, record) in &self.model {
            let topic = record.topics()[0].as_str();
            if topic.starts_with('k') || topic.starts_with('n') {
                let kind = (topic, record.event_type().unwrap_or("message"));
                latest.insert(kind, (!record.data().is_empty()).then_some(*sequence));
            }
        }
        latest.into_values().flatten().collect()
    }

    fn pages(&mut self, log: &Log, filter: &Filter, mut after: u64, latest: bool) -> Result<Vec<Record>, String> {
        let (head, floors) = (log.bounds().head, log.sight().floors);
        let mut records: Vec<Record> = Vec::new();
        while after < head {
            let limits = PageLimits {
                bytes: 1 + self.random.below(2_000) as usize,
                events: 1 + self.random.below(20) as usize,
                scanned: 1 + self.random.below(30) as usize,
            };
            let page =
                if latest { log.read_latest(after, head, filter, limits) } else { log.read_beyond(after, head, filter, &floors, limits) };
            let page = page.map_err(|error| format!("reading after {after}: {error}"))?;
            expect(page.covered_through > after, || format!("no progress after {after}"))?;
            expect(page.lost.is_none(), || format!("{:?} after {after} is told to one who knows", page.lost))?;
            after = page.covered_through;
            records.extend(page.records);
        }
        expect(records.is_sorted_by_key(|record| record.position().sequence), || "out of order".into())?;
        Ok(records)
    }

    fn check(&mut self, log: &Log) -> Result<(), String> {
        let sight = log.sight();
        for (class, &floor) in log.rules.classes().iter().zip(&*sight.floors) {
            let before = self.floors.insert(class.prefix.clone(), floor).unwrap_or(0);
            expect(floor >= before, || format!("what was removed of {:?} came back: {floor} after {before}", class.prefix))?;
        }
        let latest = self.latest();
        let served: BTreeSet<u64> = self
            .model
            .iter()
            .filter(|(at, record)| **at > sight.floors[log.rules.class_of(record.topics())] || latest.contains(at))
            .map(|(at, _)| *at)
            .collect();
        let all = filter(TopicMatcher::all());
        let read = self.pages(log, &all, 0, false)?;
        expect(read.iter().map(|record| record.position().sequence).eq(served.iter().copied()), || {
            format!("{:?} instead of {served:?}", read.iter().map(|record| record.position().sequence).collect::<Vec<_>>())
        })?;
        for record in &read {
            let of = &self.model[&record.position().sequence];
            expect(format!("{record:?}") == format!("{of:?}"), || format!("{record:?} is another event, {of:?}"))?;
        }
        let found = self.pages(log, &all, 0, true)?;
        let found: Vec<u64> = found.iter().map(|record| record.position().sequence).collect();
        expect(found.iter().eq(&latest), || format!("the latest are {found:?} instead of {latest:?}"))?;
        self.check_names(log, &served)?;
        for topic in TOPICS {
            let filter = filter(TopicMatcher::exact(topic).unwrap());
            let read: Vec<u64> = self.pages(log, &filter, 0, false)?.iter().map(|record| record.position().sequence).collect();
            let wanted = |at: &u64| filter.wants_record(&self.model[at]);
            expect(served.iter().copied().filter(wanted).eq(read.iter().copied()), || format!("{topic}: {read:?}"))?;
            let after = self.random.below(sight.high + 3);
            let told = log.missing_after(after, &filter).map_err(|error| error.to_string())?.is_some();
            let lost = self.model.range(after + 1..).any(|(at, record)| filter.wants_record(record) && !served.contains(at));
            expect(told || !lost, || format!("what was removed of {topic} after {after} is not told"))?;
            expect(!told || lost || !self.exact, || format!("a gap of {topic} is told after {after}, and nothing is lost"))?;
        }
        Ok(())
    }

    fn check_names(&self, log: &Log, served: &BTreeSet<u64>) -> Result<(), String> {
        let (mut ids, mut newest) = (BTreeMap::new(), BTreeMap::new());
        for (at, record) in served.iter().map(|at| (at, &self.model[at])) {
            if let Some(id) = record.publisher_id() {
                ids.entry(id.to_owned()).or_insert(*at);
            }
            newest.extend(record.topics().iter().map(|topic| (topic.to_string(), record.id().to_string())));
        }
        for n in 0..40 {
            let id = format!("id-{n}");
            let found = log.resolve(&id).map_err(|error| error.to_string())?.map(|position| position.sequence);
            expect(found == ids.get(&id).copied(), || format!("{id} is at {found:?}, not {:?}", ids.get(&id)))?;
        }
        for limit in [2, 100] {
            let (mut listed, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = log.topics(after.as_deref(), limit).map_err(|error| error.to_string())?;
                let full = page.len() == limit;
                after = page.last().map(|(topic, _)| topic.to_string());
                listed.extend(page.into_iter().map(|(topic, id)| (topic.to_string(), id.to_string())));
                if !full {
                    break;
                }
            }
            expect(newest.clone().into_iter().eq(listed.clone()), || format!("the topics are {listed:?} instead of {newest:?}"))?;
        }
        let topic = tidings_core::Topic::stored(TOPICS[(served.len()) % TOPICS.len()]);
        let found = log.newest(&topic).map_err(|error| error.to_string())?.map(|id| id.to_string());
        expect(found.as_ref() == newest.get(topic.as_str()), || format!("the newest of {topic} is {found:?}"))
    }
}

const LIVES: u64 = 15;

/// How many segments were rewritten.
fn run(seed: u64, ignored: Option<Why>) -> Result<u64, String> {
    let mut trial = Trial::new(seed, ignored);
    (0..LIVES).try_for_each(|life| trial.life().map_err(|what| format!("seed {seed}, life {life}: {what}")))?;
    Ok(trial.rewritten)
}

/// The power goes somewhere while segments are removed, and nowhere else.
fn while_removing(seed: u64, ignored: Option<Why>) -> Result<(), String> {
    let mut trial = Trial::new(seed, ignored);
    trial.exact = false;
    let open = |trial: &Trial| assemble(Arc::new(trial.disk.clone()), trial.options.clone(), Box::new(|| ()));
    let Parts { mut writer, keeper, log, .. } = open(&trial).map_err(|error| error.to_string())?;
    let (delivered, follower) = (trial.delivered.clone(), Arc::<OnceLock<crate::store::Follower>>::default());
    assert!(follower.set(Box::new(move |records| delivered.lock().unwrap().extend(records.iter().cloned()))).is_ok());
    writer.follower = follower;
    for step in 0..90 {
        trial.publish(&mut writer);
        if step == 70 {
            keeper.work(None);
        }
    }
    trial.disk.crash_after(trial.random.below(90));
    keeper.work(None);
    drop((log, writer, keeper));
    trial.disk.crash();
    let Parts { log, .. } = open(&trial).map_err(|error| error.to_string())?;
    trial.check(&log).map_err(|what| format!("seed {seed}: {what}"))
}

#[test]
fn segments_are_removed_at_once_or_not() {
    (0..400).try_for_each(|seed| while_removing(seed, None)).unwrap();
}

#[test]
fn classes_and_the_latest_survive_crashes() {
    let setting = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let crashes = setting("TIDINGS_DISK_CRASHES").unwrap_or(600);
    let one = setting("TIDINGS_DISK_SEED");
    let rewritten: u64 = one.map_or(0..crashes / LIVES, |seed| seed..seed + 1).map(|seed| run(seed, None).unwrap()).sum();
    println!("{rewritten} segments were rewritten");
    assert!(one.is_some() || rewritten > crashes / 10, "{rewritten}");
}

/// Without any one of the syncs some crash breaks a promise.
#[test]
fn every_sync_of_retention_is_needed() {
    for why in [Why::State, Why::Aside, Why::Rewritten, Why::RewrittenName] {
        let broken = (0..600).find_map(|seed| run(seed, Some(why)).err());
        println!("without the sync of {why:?}: {broken:?}");
        assert!(broken.is_some(), "nothing breaks without the sync of {why:?}");
    }
}
