//! Crash trials on the simulated disk: appends, reads, retention and failures, then the power goes or the program is killed, over and
//! over, and after every start the log is held against what was promised. Publishers with a key come again until they are answered, and
//! now and then afterwards.
//!
//! `TIDINGS_DISK_CRASHES` sets how many crashes a run has, `TIDINGS_DISK_SEED` runs one seed.

use super::{
    DiskOptions, Durability, Parts, assemble,
    files::{Files as _, Why},
    log::Log,
    simulated::{Random, Simulated},
    writer::{Answer, Waiting, Writer},
};
use crate::{
    PrefixRule,
    store::{Once, OnceKey, PageLimits},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, OnceLock},
};
use tidings_core::{Event, EventId, Filter, GapReason, Grant, Matchers, Position, Record, Topic, TopicMatcher, UrlPatterns};
use tokio::sync::oneshot;

const TOPICS: [&str; 5] = ["a", "a/b", "/a/c", "ab", "d"];

/// An event as the trial knows it: its topic, and its data, which no other event has.
type Known = (&'static str, u64);

/// What was read, and what was said to be missing: after one number, up to another.
type Read = (BTreeMap<u64, Record>, Vec<(u64, u64, GapReason)>);

/// What a publisher sends, once or again.
#[derive(Clone)]
struct Request {
    events: Vec<Event>,
    numbers: Vec<u64>,
    key: Option<OnceKey>,
    /// Its key was answered with other content before.
    other: bool,
}

impl Request {
    fn waiting(&self, now: u64) -> (Waiting, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let drafts = self.events.iter().cloned().map(Record::draft).collect();
        (Waiting { drafts, key: self.key, now, answer }, answered)
    }
}

#[derive(Default)]
struct Model {
    /// Requests with a key that were not answered yet, or were refused.
    unanswered: Vec<Request>,
    /// Those that were, with their answer.
    answered: Vec<(Request, Vec<EventId>)>,
    /// Where events with a key are, or were until retention removed them.
    places: BTreeMap<u64, u64>,
    /// What somebody was told or has seen: it must stay, at its number.
    seen: BTreeMap<u64, Known>,
    /// Events of each batch.
    batches: BTreeMap<u64, BTreeSet<u64>>,
    /// Every number that ever had an event, and its topic.
    ever: BTreeMap<u64, &'static str>,
    published: u64,
    highest: u64,
    floor: u64,
    epoch: Option<u32>,
    accepted_at: u64,
    /// Everything that may be in the log.
    topics: BTreeMap<u64, &'static str>,
}

struct Trial {
    random: Random,
    disk: Simulated,
    options: DiskOptions,
    model: Model,
    delivered: Arc<Mutex<Vec<Record>>>,
    /// Since the last start: only then is it known exactly what retention took from whom.
    exact: u64,
    gaps_told: u64,
    /// Of everything that was answered and read.
    trace: DefaultHasher,
}

fn filter(matcher: TopicMatcher) -> Filter {
    Filter::new(Matchers::from(matcher), &Grant::full())
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn known(record: &Record) -> Known {
    let topic = TOPICS.into_iter().find(|topic| *topic == record.topics()[0].as_str()).unwrap();
    (topic, record.data().split(' ').next().unwrap().parse().unwrap())
}

impl Trial {
    fn new(seed: u64, durability: Durability, ignored: Option<Why>) -> Trial {
        let mut random = Random(seed);
        let mut options =
            DiskOptions { durability, segment_bytes: 600 + random.below(3_000), retention_age: None, ..DiskOptions::default() };
        if random.one_in(2) {
            options.retention_bytes = 12_000 + random.below(8_000);
        }
        if random.one_in(3) {
            options.retention_events = 5 + random.below(100);
        }
        if random.one_in(2) {
            // It stays longer than all else, so that segments are rewritten.
            let mut rule = PrefixRule::new("d");
            (rule.retention_events, rule.retention_bytes) = (Some(10_000), Some(6_000));
            options.prefixes.push(rule);
        }
        let disk = Simulated::new(seed ^ 0xD15C, ignored);
        Trial {
            random,
            disk,
            options,
            model: Model::default(),
            delivered: Arc::default(),
            exact: 0,
            gaps_told: 0,
            trace: DefaultHasher::new(),
        }
    }

    /// One life of the program, from its start to its end.
    fn life(&mut self) -> Result<(), String> {
        // A crash in the middle of opening, now and then.
        if self.random.one_in(4) {
            self.disk.crash_after(self.random.below(12));
        }
        let Ok(parts) = assemble(Arc::new(self.disk.clone()), self.options.clone(), Box::new(|| ())) else {
            self.end();
            return Ok(());
        };
        let Parts { log, mut writer, keeper, .. } = parts;
        self.exact = log.bounds().floor;
        self.follow(&mut writer);
        self.check(&log)?;
        if self.random.one_in(4) {
            self.disk.fail_one_in(10 + self.random.below(20));
        }
        self.disk.crash_after(5 + self.random.below(150));
        for _ in 0..self.random.below(30) {
            match self.random.below(9) {
                0 => keeper.tidy(None),
                1 => drop(keeper.rewrite(1 + self.random.below(3_000), None)),
                2 if self.random.one_in(2) => self.read_some(&log)?,
                _ => self.publish(&mut writer)?,
            }
        }
        if self.random.one_in(4) {
            self.check(&log)?;
        }
        if self.random.one_in(5) {
            // Closed properly, unless the power goes meanwhile.
            writer.queue.close();
            writer.run();
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        if self.random.one_in(3) {
            self.disk.kill();
        } else {
            self.disk.crash();
        }
    }

    fn follow(&mut self, writer: &mut Writer) {
        let delivered = self.delivered.clone();
        let follower: Arc<OnceLock<crate::store::Follower>> = Arc::default();
        assert!(follower.set(Box::new(move |records| delivered.lock().unwrap().extend(records.iter().cloned()))).is_ok());
        writer.follower = follower;
    }

    /// A new request: one event or several.
    fn request(&mut self) -> Request {
        let count = if self.random.one_in(3) { 1 + self.random.below(6) } else { 1 };
        let batch = self.model.published;
        let (mut events, mut numbers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.model.published += 1;
            let number = self.model.published;
            let topic = TOPICS[self.random.below(5) as usize];
            let longest = if self.random.one_in(20) { 2_000 } else { 60 };
            let padding = "x".repeat(self.random.below(longest) as usize);
            let mut event = Event::new(topic, format!("{number} {batch} {padding}")).unwrap();
            if self.random.one_in(4) {
                event = event.with_id(&format!("id-{}", number / 3)).unwrap();
            }
            self.model.topics.insert(number, topic);
            self.model.batches.entry(batch).or_default().insert(number);
            events.push(event);
            numbers.push(number);
        }
        let digest = |salt: u64| Random(batch ^ salt).next().to_le_bytes();
        let name = [digest(1), digest(2)].as_flattened().try_into().unwrap();
        let request = [digest(3), digest(4), digest(5), digest(6)].as_flattened().try_into().unwrap();
        Request { events, numbers, key: self.random.one_in(2).then_some(OnceKey { name, request }), other: false }
    }

    /// What is sent now: something new, or something again.
    fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..=self.random.below(3) {
            let again = self.random.below(3);
            let (unanswered, answered) = (self.model.unanswered.len() as u64, self.model.answered.len() as u64);
            if again == 0 && unanswered > 0 {
                requests.push(self.model.unanswered.swap_remove(self.random.below(unanswered) as usize));
            } else if again == 1 && answered > 0 {
                requests.push(self.model.answered[self.random.below(answered) as usize].0.clone());
            } else {
                requests.push(self.request());
            }
            let last = requests[requests.len() - 1].clone();
            if self.random.one_in(6) && last.key.is_some() {
                requests.push(last);
            }
            // What a crash undid may come again as something else; otherwise nothing may.
            if self.random.one_in(6) && answered > 0 && self.options.durability == Durability::Sync {
                let mut request = self.model.answered[self.random.below(answered) as usize].0.clone();
                request.other = true;
                request.key.iter_mut().for_each(|key| key.request[0] ^= 1);
                requests.push(request);
            }
        }
        requests
    }

    fn publish(&mut self, writer: &mut Writer) -> Result<(), String> {
        let requests = self.requests();
        let (waiting, answers): (Vec<_>, Vec<_>) = requests.iter().map(|request| request.waiting(self.random.below(1_000))).unzip();
        // In the real program a second passes.
        writer.refusing = None;
        writer.commit(waiting);
        for (request, mut answered) in requests.into_iter().zip(answers) {
            let answer: Answer = answered.try_recv().map_err(|_| "an append was not answered")?;
            format!("{answer:?}").hash(&mut self.trace);
            self.take_answer(request, answer)?;
        }
        let delivered = std::mem::take(&mut *self.delivered.lock().unwrap());
        for record in delivered {
            let Position { epoch, sequence } = record.position();
            expect(self.model.epoch == Some(epoch.0), || "another epoch".into())?;
            expect(sequence > self.model.highest, || format!("number {sequence} was given before"))?;
            expect(record.accepted_at() >= self.model.accepted_at, || "time went back".into())?;
            self.model.highest = sequence;
            self.model.accepted_at = record.accepted_at();
            self.model.seen.insert(sequence, known(&record));
            self.place(&record)?;
        }
        Ok(())
    }

    /// N-6: with a key the same is answered as long as the key counts, and it counts here for ever.
    fn take_answer(&mut self, request: Request, answer: Answer) -> Result<(), String> {
        let early = self.options.durability != Durability::Sync;
        let before = self.model.answered.iter().find(|(known, _)| known.numbers == request.numbers).map(|(_, ids)| ids.clone());
        match (answer, before) {
            (Err(_), None) if request.key.is_some() => self.model.unanswered.push(request),
            (Err(_), _) => {}
            (outcome, _) if request.other => {
                expect(matches!(outcome, Ok(Once::Other)), || format!("{:?} had another content: {outcome:?}", request.numbers))?;
            }
            (Ok(Once::Other), _) => return Err("the same request is taken for another".into()),
            (Ok(Once::Before(_)), _) if request.key.is_none() => return Err("nobody came before without a key".into()),
            (Ok(Once::Kept(ids) | Once::Before(ids)), None) => {
                expect(ids.len() == request.numbers.len(), || "an id for each event".into())?;
                if request.key.is_some() {
                    self.model.answered.push((request, ids));
                }
            }
            (Ok(Once::Before(ids)), Some(before)) => {
                expect(early || ids == before, || format!("{before:?} is {ids:?} now"))?;
            }
            (Ok(Once::Kept(ids)), Some(_)) => {
                // What a crash undid may come again; the gap says so.
                expect(early, || format!("{:?} was published again as {ids:?}", request.numbers))?;
                self.model.answered.retain(|(known, _)| known.numbers != request.numbers);
                self.model.answered.push((request, ids));
            }
        }
        Ok(())
    }

    /// An event with a key is where it was before.
    fn place(&mut self, record: &Record) -> Result<(), String> {
        let (early, number, sequence) = (self.options.durability != Durability::Sync, known(record).1, record.position().sequence);
        let with_key = |request: &Request| request.key.is_some() && request.numbers.contains(&number);
        let again = self.model.unanswered.iter().any(with_key) || self.model.answered.iter().any(|(request, _)| with_key(request));
        if again {
            let place = *self.model.places.entry(number).or_insert(sequence);
            expect(early || place == sequence, || format!("event {number} is at {place} and at {sequence}"))?;
        }
        Ok(())
    }

    fn read_all(&mut self, log: &Log, filter: &Filter, mut after: u64) -> Result<Read, String> {
        let head = log.bounds().head;
        let (mut records, mut lost) = (BTreeMap::new(), Vec::new());
        while after < head {
            let limits = PageLimits {
                bytes: 1 + self.random.below(5_000) as usize,
                events: 1 + self.random.below(30) as usize,
                scanned: 1 + self.random.below(40) as usize,
            };
            let known = log.sight().floors;
            let page = log.read_beyond(after, head, filter, &known, limits).map_err(|error| format!("reading after {after}: {error}"))?;
            expect(page.covered_through > after, || format!("no progress after {after}"))?;
            if let Some(reason) = page.lost {
                let to = page.records.first().map_or(page.covered_through, |record| record.position().sequence - 1);
                lost.push((after, to, reason));
            }
            let mut last = after;
            for record in page.records {
                let sequence = record.position().sequence;
                expect(sequence > last && sequence <= page.covered_through, || format!("{sequence} out of order"))?;
                last = sequence;
                records.insert(sequence, record);
            }
            after = page.covered_through;
        }
        Ok((records, lost))
    }

    /// Everything that can be asked, against everything that is known.
    fn check(&mut self, log: &Log) -> Result<(), String> {
        let bounds = log.bounds();
        expect(*self.model.epoch.get_or_insert(bounds.epoch.0) == bounds.epoch.0, || "another epoch".into())?;
        expect(bounds.head >= self.model.highest, || format!("head {} below {}", bounds.head, self.model.highest))?;
        // Of events that were lost fewer are too many.
        let early = self.options.durability != Durability::Sync;
        expect(early || bounds.floor >= self.model.floor, || "what was removed came back".into())?;
        self.model.floor = bounds.floor;
        let sight = log.sight();
        let (records, mut lost) = self.read_all(log, &filter(TopicMatcher::all()), sight.low)?;
        let is_kept = |sequence: u64, topic: &str| sequence > sight.floors[log.rules.class_of(&[Topic::stored(topic)])];
        // A reader whose own place is gone is told before it reads.
        if let Some(reason) = log.missing_after(bounds.floor, &filter(TopicMatcher::all())).map_err(|error| error.to_string())? {
            let to = records.keys().next().map_or(bounds.head, |first| first - 1);
            lost.push((bounds.floor, to, reason));
        }
        self.gaps_told += lost.len() as u64;
        for (_, _, reason) in &lost {
            expect(early && *reason == GapReason::Lost, || format!("a gap `{}` that nobody caused", reason.as_str()))?;
        }
        for (sequence, event) in self.model.seen.iter().filter(|(at, event)| is_kept(**at, event.0)) {
            match records.get(sequence) {
                Some(record) => expect(known(record) == *event, || format!("{sequence} is another event now"))?,
                None => {
                    expect(lost.iter().any(|(after, to, _)| after < sequence && sequence <= to), || {
                        format!("{sequence} is lost silently")
                    })?;
                }
            }
        }
        let mut whole: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut near_floor = BTreeSet::new();
        for (sequence, record) in &records {
            let data = record.data();
            let batch: u64 = data.split(' ').nth(1).unwrap().parse().unwrap();
            expect(whole.entry(batch).or_default().insert(known(record).1), || "an event is there twice".into())?;
            if *sequence <= bounds.floor + 8 {
                near_floor.insert(batch);
            }
        }
        for (batch, events) in whole {
            expect(near_floor.contains(&batch) || self.model.batches[&batch] == events, || format!("batch {batch} is stored in part"))?;
        }
        // What was found is now seen, whether it was answered or not; a number that was lost is not there to be found.
        self.model.seen.retain(|sequence, _| records.contains_key(sequence));
        for (sequence, record) in &records {
            self.model.seen.insert(*sequence, known(record));
            self.model.ever.insert(*sequence, known(record).0);
            (sequence, known(record)).hash(&mut self.trace);
            self.place(record)?;
        }
        self.model.accepted_at = records.last_key_value().map_or(0, |(_, record)| record.accepted_at());
        self.model.highest = bounds.head;
        self.check_topics(log, &records)?;
        self.check_cursors(log, &records)
    }

    fn check_topics(&mut self, log: &Log, records: &BTreeMap<u64, Record>) -> Result<(), String> {
        let patterns = UrlPatterns::new("https://hub.example/", 10).unwrap();
        let matchers = [TopicMatcher::exact("a"), TopicMatcher::prefix("a"), TopicMatcher::exact("d"), TopicMatcher::exact("none")];
        let templates = ["{x}", "{/x}a{y}", "a/{x}", "none{x}"].map(|text| TopicMatcher::template(text).unwrap());
        let urls = ["/a*", "/:x", "https://elsewhere.example/*"].map(|text| TopicMatcher::url_pattern(text, &patterns).unwrap());
        for matcher in matchers.map(Result::unwrap).into_iter().chain(templates).chain(urls) {
            let (found, _) = self.read_all(log, &filter(matcher.clone()), log.sight().low)?;
            let wanted: Vec<u64> = records.iter().filter(|(_, record)| matcher.matches(&record.topics()[0])).map(|(at, _)| *at).collect();
            expect(found.keys().eq(&wanted), || format!("{matcher:?}: {:?} instead of {wanted:?}", found.keys()))?;
        }
        let mut ids: BTreeMap<String, u64> = BTreeMap::new();
        let mut newest: BTreeMap<&str, String> = BTreeMap::new();
        for (sequence, record) in records {
            if let Some(id) = record.publisher_id() {
                ids.entry(id.to_owned()).or_insert(*sequence);
            }
            newest.insert(record.topics()[0].as_str(), record.id().to_string());
        }
        for (id, sequence) in &ids {
            let found = log.resolve(id).map_err(|error| error.to_string())?.map(|position| position.sequence);
            expect(found == Some(*sequence), || format!("{id} is at {found:?}, not {sequence}"))?;
        }
        let listed = log.topics(None, 100).map_err(|error| error.to_string())?;
        let listed = listed.iter().map(|(topic, id)| (topic.as_str(), id.to_string()));
        expect(newest.into_iter().eq(listed), || "the list of topics is another".into())
    }

    /// N-14: who lost something is told, and, as far as is remembered, nobody else.
    fn check_cursors(&mut self, log: &Log, records: &BTreeMap<u64, Record>) -> Result<(), String> {
        let sight = log.sight();
        for topic in TOPICS {
            let floor = sight.floors[log.rules.class_of(&[Topic::stored(topic)])];
            let filter = filter(TopicMatcher::exact(topic).unwrap());
            let after = self.random.below(sight.high + 3);
            let told = log.missing_after(after, &filter).map_err(|error| error.to_string())?;
            let lost = self.model.ever.range(after + 1..(floor + 1).max(after + 1)).any(|(_, of)| *of == topic);
            expect(!lost || told.is_some(), || format!("what was removed of {topic} after {after} is not told"))?;
            if after >= floor && records.contains_key(&after) {
                expect(told.is_none(), || format!("a gap is told after {after}, though everything after {floor} is there"))?;
            }
        }
        Ok(())
    }

    fn read_some(&mut self, log: &Log) -> Result<(), String> {
        let bounds = log.bounds();
        let after = bounds.floor + self.random.below(bounds.head - bounds.floor + 1);
        self.read_all(log, &filter(TopicMatcher::prefix("a").unwrap()), after).map(drop)
    }
}

/// What was answered and read, and what is on the disk in the end, in one number.
fn run(seed: u64, lives: u64, durability: Durability, ignored: Option<Why>) -> Result<u64, String> {
    let mut trial = Trial::new(seed, durability, ignored);
    for life in 0..lives {
        trial.life().map_err(|what| format!("seed {seed}, life {life}, {durability:?}: {what}"))?;
    }
    for name in trial.disk.names().unwrap() {
        trial.disk.damage(&name, |contents| (&name, contents).hash(&mut trial.trace));
    }
    Ok(trial.trace.finish())
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

const LIVES: u64 = 20;

#[test]
fn nothing_promised_is_lost_in_a_crash() {
    let crashes = setting("TIDINGS_DISK_CRASHES").unwrap_or(1_000);
    let seeds = match setting("TIDINGS_DISK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..crashes / LIVES,
    };
    for seed in seeds {
        let durability = if seed % 4 == 3 { Durability::None } else { Durability::Sync };
        run(seed, LIVES, durability, None).unwrap();
    }
}

/// A seed that finds something finds it again: whatever happens follows from it.
#[test]
fn the_same_seed_gives_the_same_run() {
    let runs = |seed| [Durability::Sync, Durability::None].map(|durability| run(seed, 2 * LIVES, durability, None).unwrap());
    let all: BTreeSet<[u64; 2]> = (0..5).map(runs).collect();
    assert!((0..5).all(|seed| all.contains(&runs(seed))) && all.len() == 5, "{all:?}");
}

/// A test that cannot fail holds nothing: without any one of the syncs, some crash breaks a promise.
#[test]
fn every_sync_is_needed() {
    let table = [
        (Why::Appends, Durability::Sync),
        (Why::SegmentName, Durability::Sync),
        (Why::Finished, Durability::None),
        (Why::State, Durability::Sync),
        (Why::StateName, Durability::None),
        (Why::Recovered, Durability::Sync),
        (Why::Carried, Durability::Sync),
    ];
    for (why, durability) in table {
        let broken = (0..400).find_map(|seed| run(seed, LIVES, durability, Some(why)).err());
        println!("without the sync of {why:?}: {broken:?}");
        assert!(broken.is_some(), "nothing breaks without the sync of {why:?}");
    }
}
