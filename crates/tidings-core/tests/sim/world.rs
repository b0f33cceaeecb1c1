//! One run: a log, two or three shards, readers who come and go between them, and a clock, all moved by one seed.
//!
//! Each step is one thing that happens, chosen from a table of weights. After the last step everything that is under way is let come to
//! rest, and then nobody may miss anything.

use super::{
    host::{Context, Host},
    log::{Cursor, Keeps, Log, PageBounds},
    question::{Question, TOPICS},
    reader::{Mood, Reader},
    rng::Rng,
    sabotage::{Fault, Sabotage},
    trace::{Counts, Trace},
};
use tidings_core::{
    Epoch, Topic,
    shard::{CloseReason, EndStyle, Lag, LagPolicy, Millis, NewSubscriber, ShardConfig},
    wire,
};

type Outcome = Result<(), String>;

#[derive(Clone, Copy)]
enum Step {
    Publish,
    PublishMany,
    Pull,
    Turn,
    Advance,
    Connect,
    TakeInbox,
    Writable,
    Receive,
    ChangeMood,
    ClientGone,
    ReadPage,
    ReturnPage,
    Spurious,
    Drain,
    Panic,
    Crash,
    Wipe,
}

const STEPS: [(Step, u64); 18] = [
    (Step::Publish, 400),
    (Step::PublishMany, 25),
    (Step::Pull, 700),
    (Step::Turn, 1100),
    (Step::Advance, 400),
    (Step::Connect, 260),
    (Step::TakeInbox, 260),
    (Step::Writable, 350),
    (Step::Receive, 120),
    (Step::ChangeMood, 120),
    (Step::ClientGone, 15),
    (Step::ReadPage, 300),
    (Step::ReturnPage, 300),
    (Step::Spurious, 20),
    (Step::Drain, 4),
    (Step::Panic, 3),
    (Step::Crash, 3),
    (Step::Wipe, 2),
];

const MOODS: [(Mood, u64); 4] = [(Mood::Fast, 5), (Mood::Choppy, 4), (Mood::Trickle, 1), (Mood::Stalled, 2)];

/// Milliseconds that pass in one step.
const PAUSES: [((u64, u64), u64); 5] = [((0, 0), 2), ((1, 20), 8), ((20, 70), 10), ((70, 400), 2), ((400, 4_000), 1)];

/// What differs from seed to seed.
struct Profile {
    keeps: Keeps,
    /// Whether publishers wait for the slowest shard, as `SHARD_LEAD` says; without that, shards can lose their place.
    admission: bool,
    event_size: u64,
    many: u64,
    pull: u64,
    page: PageBounds,
    pages_fail: bool,
}

impl Profile {
    fn random(rng: &mut Rng) -> Profile {
        // Now and then everything is large, so that the bounds that are constants are reached too.
        let is_large = rng.chance(1, 40);
        let events = if is_large { 6_000 } else { rng.between(4, 80) };
        Profile {
            keeps: Keeps {
                bytes: if rng.chance(1, 3) { rng.between(2_000, 20_000) as usize } else { usize::MAX },
                events: events as usize,
                audiences: if rng.chance(1, 5) { 3 } else { 10_000 },
            },
            admission: rng.chance(5, 6),
            event_size: rng.pick(&[0, 40, 300, 3_000]),
            many: if is_large { 1_200 } else { 12 },
            pull: if is_large { 1_024 } else { rng.between(1, 12) },
            page: PageBounds {
                events: if is_large { 1_500 } else { rng.between(1, 8) as usize },
                scan: if is_large { 5_000 } else { rng.between(1, 30) as usize },
            },
            pages_fail: rng.chance(1, 3),
        }
    }

    fn shard(&self, rng: &mut Rng, epoch: Epoch) -> ShardConfig {
        let mut config = ShardConfig::new(epoch, rng.next());
        config.window_events = rng.between(1, (self.keeps.events as u64).min(3_000)) as usize;
        config.window_bytes = if rng.chance(1, 3) { rng.between(600, 8_000) as usize } else { usize::MAX };
        config.frame_bytes = rng.pick(&[64, 256, 1_024, 4_096]);
        config.heartbeat_ms = rng.pick(&[Some(120), Some(500), Some(2_000), Some(9_000), None]);
        config.stalled_ms = rng.between(200, 9_000);
        config.lag =
            rng.chance(2, 3).then(|| Lag { bytes: rng.between(300, 9_000), events: rng.between(1, 30), ms: rng.between(50, 3_000) });
        config
    }
}

/// How a run went: the hash of all of it, what happened how often, and how many steps it took.
pub(crate) struct Run {
    pub(crate) hash: u64,
    pub(crate) counts: Counts,
    pub(crate) has_struck: bool,
}

/// What a run failed of, and the last things that happened before.
pub(crate) struct Failure {
    pub(crate) why: String,
    pub(crate) tail: String,
}

struct World {
    ctx: Context,
    log: Log,
    profile: Profile,
    hosts: Vec<Host>,
    readers: Vec<Reader>,
}

/// Runs a seed. With `readable` the last lines of what happened are kept.
pub(crate) fn run(seed: u64, steps: u64, fault: Option<Fault>, readable: bool) -> Result<Run, Failure> {
    let mut world = World::new(seed, fault, readable);
    let outcome = world.play(steps);
    let World { ctx, .. } = world;
    match outcome {
        Ok(()) => Ok(Run { hash: ctx.trace.hash(), counts: ctx.counts, has_struck: ctx.sabotage.has_struck() }),
        Err(why) => Err(Failure { why, tail: ctx.trace.tail() }),
    }
}

impl World {
    fn new(seed: u64, fault: Option<Fault>, readable: bool) -> World {
        let mut rng = Rng::new(seed);
        let profile = Profile::random(&mut rng);
        let sabotage = Sabotage::new(fault, &mut rng);
        let log = Log::new(Epoch(rng.next() as u32), profile.keeps.clone());
        let now = Millis(rng.below(100_000));
        let hosts = (0..rng.between(2, 3)).map(|number| Host::new(number as usize, profile.shard(&mut rng, log.epoch), 0, now)).collect();
        let questions: Vec<Question> = (0..rng.between(1, 6)).map(|_| Question::random(&mut rng)).collect();
        let readers = (0..rng.between(2, 24) as usize)
            .map(|name| {
                let question = rng.pick(&questions);
                let end = rng.pick(&[EndStyle::Clean, EndStyle::Abort]);
                let lag_policy = rng.pick(&[LagPolicy::Disconnect, LagPolicy::Gap]);
                Reader::new(name, question, rng.chance(2, 3), end, lag_policy)
            })
            .collect();
        let ctx = Context { rng, now, calm: false, trace: Trace::new(readable), counts: Counts::default(), sabotage };
        World { ctx, log, profile, hosts, readers }
    }

    fn play(&mut self, steps: u64) -> Outcome {
        for _ in 0..steps {
            let step = self.ctx.rng.weighted(&STEPS);
            self.step(step)?;
        }
        self.ctx.counts.add("steps", steps);
        self.come_to_rest()
    }

    fn step(&mut self, step: Step) -> Outcome {
        let host = self.ctx.rng.index(self.hosts.len());
        let reader = self.ctx.rng.index(self.readers.len());
        match step {
            Step::Publish => self.publish(1),
            Step::PublishMany => {
                let many = self.ctx.rng.between(2, self.profile.many);
                self.publish(many)
            }
            Step::Pull => {
                let events = self.ctx.rng.between(1, self.profile.pull) as usize;
                self.hosts[host].pull(events, &mut self.readers, &self.log, &mut self.ctx);
                Ok(())
            }
            Step::Turn => {
                let polls = if self.ctx.rng.chance(1, 2) { 10_000 } else { self.ctx.rng.between(1, 6) as usize };
                self.hosts[host].turn(polls, &mut self.readers, &self.log, &mut self.ctx).map(drop)
            }
            Step::Advance => self.advance(),
            Step::Connect => {
                if self.readers[reader].conn.is_none() {
                    self.connect(reader)?;
                }
                Ok(())
            }
            Step::TakeInbox => {
                let count = self.ctx.rng.index(4);
                self.hosts[host].take_inbox(count, &mut self.readers, &mut self.ctx)
            }
            Step::Writable => {
                // Most say so when it is true; a stalled one may say so too, and then takes nothing.
                let of = self.readers[reader].conn.as_ref().map(|conn| (conn.host, conn.blocked, conn.mood == Mood::Stalled));
                if let Some((host, true, is_stalled)) = of
                    && (!is_stalled || self.ctx.rng.chance(1, 4))
                {
                    self.hosts[host].writable(&mut self.readers[reader]);
                }
                Ok(())
            }
            Step::Receive => {
                let count = if self.ctx.rng.chance(1, 2) { usize::MAX } else { self.ctx.rng.index(100) };
                self.readers[reader].receive(count, &self.log, &mut self.ctx.counts)
            }
            Step::ChangeMood => {
                if let Some(conn) = &mut self.readers[reader].conn {
                    conn.mood = self.ctx.rng.weighted(&MOODS);
                }
                Ok(())
            }
            Step::ClientGone => self.client_gone(reader),
            Step::ReadPage => {
                self.read_page(host);
                Ok(())
            }
            Step::ReturnPage => self.return_page(host),
            Step::Spurious => {
                self.spurious(host, reader);
                Ok(())
            }
            Step::Drain => self.drain(host),
            Step::Panic => {
                self.ctx.counts.add("shards rebuilt", 1);
                self.rebuild(host, CloseReason::Failed)
            }
            Step::Crash => {
                self.ctx.counts.add("logs cut by a crash", 1);
                self.break_everybody_off()?;
                let (undo, reserved) = (self.ctx.rng.index(6), self.ctx.rng.between(1, 40));
                self.log.crash(undo, reserved);
                self.begin_anew();
                Ok(())
            }
            Step::Wipe => {
                self.ctx.counts.add("logs begun anew", 1);
                self.break_everybody_off()?;
                self.log = Log::new(Epoch(self.ctx.rng.next() as u32), self.profile.keeps.clone());
                self.begin_anew();
                Ok(())
            }
        }
    }

    fn publish(&mut self, events: u64) -> Outcome {
        for _ in 0..events {
            let slowest = self.hosts.iter().map(|host| host.shard.tail()).min().unwrap_or(0);
            if self.profile.admission && !self.log.has_room_after(slowest) {
                self.ctx.counts.add("publishes refused", 1);
                break;
            }
            let size = self.profile.event_size;
            let size = if self.ctx.rng.chance(1, 20) { 2 * size + 100 } else { size };
            let gone = self.log.publish(&mut self.ctx.rng, size);
            self.ctx.counts.add("events", 1);
            self.ctx.counts.add("evicted", gone);
            self.ctx.trace.note("publish", &[self.log.head(), self.log.floor()]);
        }
        // A shard whose place left the log cannot go on without a hole.
        for host in 0..self.hosts.len() {
            if self.hosts[host].shard.tail() < self.log.floor() {
                self.ctx.counts.add("shards overrun", 1);
                self.rebuild(host, CloseReason::Failed)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Outcome {
        let (from, to) = self.ctx.rng.weighted(&PAUSES);
        self.ctx.now = self.ctx.now.plus(self.ctx.rng.between(from, to));
        for host in &mut self.hosts {
            // Sometimes the driver is late.
            if self.ctx.rng.chance(7, 8) {
                host.tick(&mut self.readers, &self.log, &mut self.ctx)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, reader: usize) -> Outcome {
        let (ctx, log) = (&mut self.ctx, &self.log);
        let open: Vec<usize> = (0..self.hosts.len()).filter(|&host| !self.hosts[host].draining).collect();
        if open.is_empty() {
            return Ok(());
        }
        let host = ctx.rng.pick(&open);
        let this = &mut self.readers[reader];
        let cursor = match this.cursor() {
            "" if ctx.rng.chance(1, 4) => Cursor::Earliest,
            "" => Cursor::Live,
            known => Cursor::After(match ctx.rng.below(60) {
                0 => "never seen".into(),
                1 => log.at(log.head() + ctx.rng.between(1, 9)).to_string(),
                2 => known.strip_prefix('#').unwrap_or(known).to_owned(),
                _ => known.to_owned(),
            }),
        };
        let with_cursor = matches!(cursor, Cursor::After(_));
        let mut start = log.start(&cursor, &this.feed.filter, ctx.rng.chance(1, 6));
        let prime = (this.prime && !with_cursor).then(|| log.at(start.after));
        let opening = wire::opening(ctx.rng.between(2_000, 5_000) as u32, prime.map(Into::into));
        if let Some(last) = this.last_host {
            ctx.counts.add("reconnects", 1);
            ctx.counts.add("reconnects to another shard", u64::from(last != host));
        }
        ctx.trace.note("connect", &[reader as u64, host as u64, start.after, u64::from(start.gap.is_some())]);
        this.connect(host, &start, with_cursor, opening.clone().into_bytes(), log, ctx.now)?;
        if start.gap.is_none() && with_cursor && ctx.sabotage.strikes(Fault::InventGapAtStart) {
            let Cursor::After(requested) = &cursor else { return Ok(()) };
            start.gap = Some(tidings_core::shard::Gap { requested: requested.as_str().into(), reason: tidings_core::GapReason::Evicted });
        } else if start.gap.is_some() && ctx.sabotage.strikes(Fault::ForgetGapAtStart) {
            start.gap = None;
        }
        let mut new = NewSubscriber::new(this.feed.clone(), start.after, wire::frame(this.question.framing, opening.as_bytes()));
        (new.gap, new.prime, new.end, new.lag_policy) = (start.gap, this.prime, this.end, this.lag_policy);
        if ctx.rng.chance(1, 3) {
            let why = ctx.rng.pick(&[CloseReason::Age, CloseReason::Expired]);
            new.ends = Some((ctx.now.plus(ctx.rng.between(0, 6_000)), why));
        }
        if let Some(conn) = &mut this.conn {
            conn.mood = if ctx.calm { Mood::Fast } else { ctx.rng.weighted(&MOODS) };
        }
        self.hosts[host].inbox.push_back((reader, new));
        Ok(())
    }

    fn client_gone(&mut self, reader: usize) -> Outcome {
        let this = &mut self.readers[reader];
        let Some(conn) = &this.conn else { return Ok(()) };
        // One that still waits for its shard is taken over first.
        let (host, Some(id)) = (conn.host, conn.id) else { return Ok(()) };
        let received = self.ctx.rng.index(conn.wire.len() + 1);
        this.receive(received, &self.log, &mut self.ctx.counts)?;
        self.ctx.trace.note("client gone", &[reader as u64]);
        self.hosts[host].client_gone(id, &mut self.readers);
        Ok(())
    }

    fn read_page(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        if !this.requests.is_empty() {
            let at = self.ctx.rng.index(this.requests.len());
            let fails = self.profile.pages_fail && self.ctx.rng.chance(1, 15);
            this.read_page(at, fails, &mut self.log, &self.profile.page, &mut self.ctx);
        }
    }

    fn return_page(&mut self, host: usize) -> Outcome {
        let this = &mut self.hosts[host];
        if this.pages.is_empty() {
            return Ok(());
        }
        let at = self.ctx.rng.index(this.pages.len());
        this.return_page(at, &mut self.readers, &self.log, &mut self.ctx)
    }

    /// Things that a driver may say too often, or too late.
    fn spurious(&mut self, host: usize, reader: usize) {
        if let Some((of, Some(id))) = self.readers[reader].conn.as_ref().map(|conn| (conn.host, conn.id))
            && !self.readers[reader].conn.as_ref().is_some_and(|conn| conn.blocked)
        {
            self.hosts[of].shard.handle_writable(id);
            // Somebody whom this shard may not know, or knew under another connection.
            if of != host && !self.hosts[host].knows(id) {
                self.hosts[host].shard.handle_writable(id);
                self.hosts[host].shard.handle_closed(id);
            }
        }
    }

    fn drain(&mut self, host: usize) -> Outcome {
        if self.hosts[host].draining {
            return self.rebuild(host, CloseReason::Drain);
        }
        self.ctx.counts.add("drains", 1);
        // Those who still wait for it go in first, so that they too are drained.
        self.hosts[host].take_inbox(usize::MAX, &mut self.readers, &mut self.ctx)?;
        let spread = self.ctx.rng.below(3_000);
        self.hosts[host].drain(spread, &mut self.readers, &mut self.ctx);
        Ok(())
    }

    fn rebuild(&mut self, host: usize, reason: CloseReason) -> Outcome {
        self.ctx.trace.note("rebuild", &[host as u64]);
        self.hosts[host].rebuild(reason, &mut self.readers, &self.log, &mut self.ctx)
    }

    /// The log is about to break: everything that hangs on it breaks first.
    fn break_everybody_off(&mut self) -> Outcome {
        for host in 0..self.hosts.len() {
            self.rebuild(host, CloseReason::Failed)?;
            self.hosts[host].inbox.clear();
        }
        for reader in &mut self.readers {
            reader.conn = None;
        }
        Ok(())
    }

    fn begin_anew(&mut self) {
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let mut config = host.config.clone();
            config.epoch = self.log.epoch;
            *host = Host::new(number, config, self.log.head(), self.ctx.now);
        }
    }

    /// Everybody connects, takes everything, and every page is read: then nobody may miss anything, and nothing is left to do.
    fn come_to_rest(&mut self) -> Outcome {
        for host in 0..self.hosts.len() {
            if self.hosts[host].draining {
                self.rebuild(host, CloseReason::Drain)?;
            }
        }
        self.ctx.calm = true;
        self.settle()?;
        self.look_around()?;
        // All are live now: each of them gets what is published next.
        for topic in TOPICS {
            self.log.publish_to(&mut self.ctx.rng, vec![topic], 20);
            self.settle()?;
        }
        self.look_around()?;
        for reader in 0..self.readers.len() {
            self.client_gone(reader)?;
        }
        for host in &self.hosts {
            host.nobody_else_is_there()?;
            host.tally_is_right()?;
            host.book(&mut self.ctx);
        }
        Ok(())
    }

    fn settle(&mut self) -> Outcome {
        const ROUNDS: usize = 100_000;
        for _ in 0..ROUNDS {
            let mut at_rest = true;
            for reader in 0..self.readers.len() {
                if self.readers[reader].conn.is_none() {
                    at_rest = false;
                    self.connect(reader)?;
                }
                let this = &mut self.readers[reader];
                if let Some(conn) = &mut this.conn {
                    conn.mood = Mood::Fast;
                    if conn.blocked {
                        self.hosts[conn.host].writable(this);
                    }
                }
                self.readers[reader].receive(usize::MAX, &self.log, &mut self.ctx.counts)?;
            }
            for host in 0..self.hosts.len() {
                let this = &mut self.hosts[host];
                at_rest &= this.shard.tail() == self.log.head() && !this.has_work_with_pages() && this.inbox.is_empty();
                let written = this.shard.stats().bytes;
                this.take_inbox(usize::MAX, &mut self.readers, &mut self.ctx)?;
                this.pull(64, &mut self.readers, &self.log, &mut self.ctx);
                if !this.turn(1_000_000, &mut self.readers, &self.log, &mut self.ctx)? {
                    return Err("a shard that never comes to an end".into());
                }
                let shard = &self.hosts[host].shard;
                at_rest &= written == shard.stats().bytes && shard.next_write().is_none();
                while !self.hosts[host].requests.is_empty() {
                    self.hosts[host].read_page(0, false, &mut self.log, &self.profile.page, &mut self.ctx);
                }
                while !self.hosts[host].pages.is_empty() {
                    self.return_page(host)?;
                    at_rest = false;
                }
            }
            if at_rest && self.readers.iter().all(|reader| reader.conn.is_some()) {
                return Ok(());
            }
        }
        Err("it never comes to rest".into())
    }

    fn look_around(&self) -> Outcome {
        for reader in &self.readers {
            reader.has_everything(&self.log).map_err(|why| format!("reader {} at rest: {why}", reader.name))?;
        }
        for (number, host) in self.hosts.iter().enumerate() {
            host.nobody_else_is_there()?;
            host.tally_is_right()?;
            for name in TOPICS {
                let here = |reader: &&Reader| reader.conn.as_ref().is_some_and(|conn| conn.host == number);
                let wanted = self.readers.iter().filter(here).filter(|reader| reader.question.wants(&[name], false)).count() as u64;
                let topic = Topic::parse(name).map_err(|error| error.to_string())?;
                let said = host.shard.subscribers_of(&topic);
                if said != wanted {
                    return Err(format!("{said} subscribers of {name}, and it is {wanted}"));
                }
            }
        }
        Ok(())
    }
}
