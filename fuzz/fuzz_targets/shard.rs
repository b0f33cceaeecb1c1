//! Shard: whatever happens in whatever order, nobody is written an event twice, out of order or without right, a loss is always told and
//! never made up, and once the world calms down everybody who is still there has everything.
//!
//! Operations drive one shard whose ring is tiny, beside a log that knows all. The checks read the bytes that connections took.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::{collections::BTreeMap, sync::Arc};
use tidings_core::{
    Epoch, Event, FeedKey, Filter, Framing, GapReason, Grant, Item, Matchers, Parser, Position, Record, TopicMatcher,
    shard::{
        CloseReason, EndStyle, Gap, Lag, LagPolicy, Millis, NewSubscriber, Page, PageFailed, PageRequest, Poll, Shard, ShardConfig,
        SubscriberId, Transmit,
    },
    wire,
};

const EPOCH: Epoch = Epoch(0x5f3a_9c01);
const TOPICS: [&str; 4] = ["a", "a/b", "b", "c"];

#[derive(Arbitrary, Debug)]
struct Input {
    seed: u64,
    window_events: u8,
    /// Whether there is a lag bound, as with a store in memory.
    lag: bool,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Subscribe(Subscribe),
    /// An event in the log, which skips some numbers.
    Append {
        topic: u8,
        other_topic: Option<u8>,
        private: bool,
        len: u8,
        skip: u8,
    },
    /// The shard takes some more of the log.
    Batch(u8),
    /// Some writes; of each so many 255ths are taken.
    Write {
        turns: u8,
        taken: u8,
    },
    /// A write during which the connection breaks.
    WriteAndBreak,
    Writable(u8),
    Break(u8),
    /// The store answers the page request that it likes.
    Page {
        which: u8,
        records: u8,
        all: bool,
        fails: bool,
    },
    /// Retention removes what is older than so many events.
    Evict(u8),
    Pass(u16),
    Drain(u16),
    AbortAll,
}

#[derive(Arbitrary, Debug)]
struct Subscribe {
    prefix: bool,
    topic: u8,
    all: bool,
    rights: bool,
    chunked: bool,
    topics_field: bool,
    /// How far behind the newest event it wants to start.
    back: u8,
    gap: bool,
    prime: bool,
    abort: bool,
    jump: bool,
    ends: Option<u16>,
}

/// What the world outside the shard knows of one subscriber.
struct Reader {
    key: FeedKey,
    after: u64,
    gap: bool,
    taken: Vec<u8>,
}

struct World {
    shard: Shard,
    now: Millis,
    log: Vec<Record>,
    /// Records the shard has taken.
    fed: usize,
    /// Everything up to this sequence was removed from the store.
    floor: u64,
    requests: Vec<PageRequest>,
    readers: BTreeMap<SubscriberId, Reader>,
}

fuzz_target!(|input: Input| {
    let mut config = ShardConfig::new(EPOCH, input.seed);
    config.window_events = 1 + usize::from(input.window_events % 8);
    config.frame_bytes = 256;
    config.lag = input.lag.then_some(Lag { bytes: 4_000, events: 12, ms: 20_000 });
    let mut world = World {
        shard: Shard::new(config, 0, Millis::ZERO),
        now: Millis::ZERO,
        log: Vec::new(),
        fed: 0,
        floor: 0,
        requests: Vec::new(),
        readers: BTreeMap::new(),
    };
    for operation in input.operations {
        world.run(operation);
        world.collect();
    }
    world.calm_down();
});

impl World {
    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Subscribe(subscribe) => self.subscribe(&subscribe),
            Operation::Append { topic, other_topic, private, len, skip } => {
                let name = |topic: u8| TOPICS[usize::from(topic) % TOPICS.len()];
                let mut event = Event::new(name(topic), "x".repeat(len.into())).expect("a good event");
                if let Some(other) = other_topic {
                    event = event.with_topic(name(other)).expect("a good topic");
                }
                let event = if private { event.private() } else { event };
                let position = Position { epoch: EPOCH, sequence: self.head() + 1 + u64::from(skip % 4) };
                self.log.push(Record::draft(event).seal(position, self.now.0));
            }
            Operation::Batch(records) => self.feed(records.into()),
            Operation::Write { turns, taken } => {
                for _ in 0..turns {
                    if !self.write(|len| len * usize::from(taken) / 255) {
                        break;
                    }
                }
            }
            Operation::WriteAndBreak => {
                if let Poll::Transmit(Transmit { id, .. }) = self.shard.poll_transmit(self.now) {
                    self.shard.handle_closed(id);
                    self.part(id, false);
                }
            }
            Operation::Writable(which) => {
                if let Some(id) = self.pick(which) {
                    self.shard.handle_writable(id);
                }
            }
            Operation::Break(which) => {
                if let Some(id) = self.pick(which) {
                    self.shard.handle_closed(id);
                    self.part(id, false);
                }
            }
            Operation::Page { which, records, all, fails } => {
                if !self.requests.is_empty() {
                    let request = self.requests.remove(usize::from(which) % self.requests.len());
                    self.answer(&request, 1 + usize::from(records % 8), all, fails);
                }
            }
            Operation::Evict(kept) => {
                // What the shard has not taken yet cannot be gone: publishers wait for the slowest shard.
                let last = self.fed.min(self.log.len().saturating_sub(kept.into()));
                if let Some(record) = self.log[..last].last() {
                    self.floor = self.floor.max(record.position().sequence);
                }
            }
            Operation::Pass(ms) => {
                self.now = self.now.plus(ms.into());
                self.shard.handle_tick(self.now);
            }
            Operation::Drain(ms) => self.shard.drain(ms.into(), self.now),
            Operation::AbortAll => self.shard.abort_all(CloseReason::Drain),
        }
    }

    fn head(&self) -> u64 {
        self.log.last().map_or(0, |record| record.position().sequence)
    }

    fn pick(&self, which: u8) -> Option<SubscriberId> {
        self.readers.keys().nth(usize::from(which).checked_rem(self.readers.len())?).copied()
    }

    fn subscribe(&mut self, asked: &Subscribe) {
        let topic = TOPICS[usize::from(asked.topic) % TOPICS.len()];
        let matcher = match (asked.all, asked.prefix) {
            (true, _) => TopicMatcher::all(),
            (false, true) => TopicMatcher::prefix(topic).expect("a good prefix"),
            (false, false) => TopicMatcher::exact(topic).expect("a good topic"),
        };
        let grant = if asked.rights { Grant::full() } else { Grant::reader() };
        let framing = if asked.chunked { Framing::Chunked } else { Framing::Plain };
        let filter = Arc::new(Filter::new(Matchers::from(matcher), &grant));
        let key = FeedKey { filter, framing, topics_field: asked.topics_field };
        let after = self.head().saturating_sub(asked.back.into());
        let prime = asked.prime.then_some(Position { epoch: EPOCH, sequence: after });
        let opening = wire::frame(framing, wire::opening(2_000, prime.map(|at| tidings_core::IdForm::PLAIN.id(at))).as_bytes());
        let mut new = NewSubscriber::new(key.clone(), after, opening);
        new.gap = asked.gap.then(|| Gap { requested: "somewhere".into(), reason: GapReason::Unknown });
        new.prime = asked.prime;
        new.end = if asked.abort { EndStyle::Abort } else { EndStyle::Clean };
        new.lag_policy = if asked.jump { LagPolicy::Gap } else { LagPolicy::Disconnect };
        new.ends = asked.ends.map(|ms| (self.now.plus(ms.into()), CloseReason::Age));
        let id = self.shard.subscribe(new, self.now);
        let there = self.readers.insert(id, Reader { key, after, gap: asked.gap, taken: Vec::new() });
        assert!(there.is_none(), "an id names one subscriber");
    }

    fn feed(&mut self, records: usize) {
        if self.shard.wants_batch() {
            let end = self.log.len().min(self.fed + records);
            self.shard.handle_batch(&self.log[self.fed..end]);
            self.fed = end;
        }
    }

    /// One turn; false when there is nothing to do.
    fn write(&mut self, takes: impl Fn(usize) -> usize) -> bool {
        match self.shard.poll_transmit(self.now) {
            Poll::Transmit(transmit) => {
                let taken = takes(transmit.bytes.len());
                let reader = self.readers.get_mut(&transmit.id).expect("bytes for somebody who is there");
                reader.taken.extend_from_slice(&transmit.bytes[..taken]);
                self.shard.handle_written(taken, self.now);
                true
            }
            Poll::Working => true,
            Poll::Idle => false,
        }
    }

    fn answer(&mut self, request: &PageRequest, records: usize, all: bool, fails: bool) {
        if fails {
            self.shard.handle_page(request.id, Err(PageFailed));
            return;
        }
        let wanted = |record: &Record| request.filter.wants_record(record);
        let sequence = |record: &Record| record.position().sequence;
        let asked: Vec<_> = self.log.iter().filter(|r| sequence(r) > request.after && sequence(r) <= request.up_to).collect();
        let lost = asked.iter().any(|record| sequence(record) <= self.floor && wanted(record));
        let kept: Vec<_> = asked.into_iter().filter(|record| sequence(record) > self.floor).collect();
        let looked_at = &kept[..records.min(kept.len())];
        let covered = if looked_at.len() == kept.len() { request.up_to } else { sequence(looked_at.last().expect("one at least")) };
        let found = looked_at.iter().filter(|record| all || wanted(record)).map(|record| (*record).clone()).collect();
        let mut page = Page::new(found, covered);
        page.lost = lost.then_some(GapReason::Evicted);
        self.shard.handle_page(request.id, Ok(page));
    }

    /// What the shard asks for and whom it lets go.
    fn collect(&mut self) {
        while let Some(request) = self.shard.poll_page_request() {
            self.requests.push(request);
        }
        while let Some(closed) = self.shard.poll_closed() {
            self.part(closed.id, closed.end == EndStyle::Clean);
        }
        assert_eq!(self.shard.subscribers(), self.readers.len());
    }

    fn part(&mut self, id: SubscriberId, clean: bool) {
        let reader = self.readers.remove(&id).expect("it was there");
        reader.check(&self.log, clean);
    }

    /// Everything comes through from here on.
    fn calm_down(&mut self) {
        // Each round makes at least one of the finitely many steps that are left.
        for _ in 0..100_000 {
            let ids: Vec<_> = self.readers.keys().copied().collect();
            for id in ids {
                self.shard.handle_writable(id);
            }
            let mut busy = self.write(|len| len);
            self.collect();
            for request in std::mem::take(&mut self.requests) {
                self.answer(&request, 8, false, false);
                busy = true;
            }
            if self.fed < self.log.len() {
                self.feed(8);
                busy = true;
            }
            if let (false, Some(at)) = (busy, self.shard.next_write()) {
                self.now = self.now.max(at);
                continue;
            }
            if !busy {
                for reader in self.readers.values() {
                    let covered = reader.check(&self.log, true);
                    let left = self.log.iter().any(|r| r.position().sequence > covered && reader.key.filter.wants_record(r));
                    assert!(!left, "nothing is left to do and a reader has not everything");
                }
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

impl Reader {
    /// Reads what the connection took; the sequence up to which it was served. `whole`: nothing may be cut.
    fn check(&self, log: &[Record], whole: bool) -> u64 {
        let (stream, rest) = match self.key.framing {
            Framing::Plain => (self.taken.clone(), &[][..]),
            Framing::Chunked => unchunk(&self.taken),
        };
        assert!(!whole || rest.is_empty(), "a chunk is cut in the middle");
        assert!(!whole || stream.is_empty() || stream.ends_with(b"\n"), "a line is cut in the middle");
        let mut items = Vec::new();
        Parser::new(1 << 20).push(&stream, |item| items.push(item)).expect("short events");
        let mut cursor = self.after;
        let mut may_be_told = self.gap;
        for item in items {
            match item {
                Item::Message(message) if message.event_type == wire::GAP_TYPE => {
                    let to = Position::parse(&message.id).expect("a gap has a minted id").sequence;
                    let missed = |record: &&Record| cursor < record.position().sequence && record.position().sequence <= to;
                    let lost = log.iter().filter(missed).any(|record| self.key.filter.wants_record(record));
                    assert!(to >= cursor && (lost || std::mem::take(&mut may_be_told)), "a gap where nothing is missing");
                    cursor = to;
                }
                Item::Message(message) => {
                    let sequence = Position::parse(&message.id).expect("a minted id").sequence;
                    let wanted = |record: &&Record| record.position().sequence > cursor && self.key.filter.wants_record(record);
                    let next = log.iter().find(wanted).expect("an event of the log");
                    assert_eq!(sequence, next.position().sequence, "exactly the next one");
                    assert_eq!(message.data, next.data());
                    if self.key.topics_field && !next.is_private() {
                        assert!(message.topics.iter().map(String::as_str).eq(next.topics().iter().map(|topic| topic.as_str())));
                    }
                    cursor = sequence;
                }
                Item::Cursor(id) => {
                    let to = Position::parse(&id).expect("a minted id").sequence;
                    let passed = |record: &&Record| cursor < record.position().sequence && record.position().sequence <= to;
                    let lost = log.iter().filter(passed).any(|record| self.key.filter.wants_record(record));
                    assert!(to >= cursor && !lost, "the cursor moved over an event that was not written");
                    cursor = to;
                }
                _ => {}
            }
        }
        cursor
    }
}

/// The inside of the chunks that are whole, and what is left.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut stream = Vec::new();
    while let Some(line) = bytes.windows(2).position(|w| w == b"\r\n") {
        let digits = std::str::from_utf8(&bytes[..line]).expect("digits");
        let len = usize::from_str_radix(digits, 16).expect("a chunk length");
        if len == 0 {
            assert_eq!(bytes, &wire::FINAL_CHUNK[..bytes.len()], "nothing follows the end of the body");
            return (stream, &[]);
        }
        let Some(chunk) = bytes.get(line + 2..line + 2 + len + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"));
        stream.extend_from_slice(&chunk[..len]);
        bytes = &bytes[line + 2 + len + 2..];
    }
    (stream, bytes)
}
