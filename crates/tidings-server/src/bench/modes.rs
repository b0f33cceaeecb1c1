//! The modes: which load each of them is, and which figures are taken when. It knows neither the command line nor sockets.

use super::{
    fleet::Fleet,
    load::{Opening, Share},
    pace::Pace,
    progress::Progress,
    report::Report,
    stamp::Phase,
    system::{self, Cpu, Family},
    target::Target,
    watcher::Watcher,
};
use crate::Failure;
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

/// Settings of a run.
pub(super) struct Run {
    pub(super) mode: String,
    pub(super) target: Target,
    pub(super) subscribers: usize,
    pub(super) publishers: usize,
    pub(super) size: usize,
    pub(super) rate: Option<f64>,
    pub(super) in_flight: usize,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    pub(super) connecting: usize,
    pub(super) pipeline: usize,
    pub(super) batch: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) rounds: usize,
    pub(super) stalled: usize,
    pub(super) events: usize,
    pub(super) behind: usize,
    /// How long is waited for what is still on its way at the end.
    pub(super) patience: Duration,
    /// How long idle and storm let the server come to rest.
    pub(super) settle: Duration,
    pub(super) per_process: usize,
    /// The server.
    pub(super) family: Family,
    pub(super) progress: RefCell<Progress>,
}

/// What everybody had used at a moment.
struct Meters {
    server: Cpu,
    softirq: f64,
    generator: Cpu,
}

impl Run {
    /// The most subscribers there are at any time.
    pub(super) fn most(&self) -> usize {
        if self.mode == "idle" { self.to.max(self.from) } else { self.subscribers }
    }

    fn publishers(&self) -> usize {
        match &*self.mode {
            "idle" | "storm" => 0,
            "replay" => 1,
            _ => self.publishers,
        }
    }

    /// The whole run as one share.
    pub(super) fn share(&self, subscribers: usize) -> Share {
        let (target, publishers, size) = (self.target.clone(), self.publishers(), self.size);
        let topics = if self.target.own_topics() { subscribers.max(1) } else { 1 };
        Share { target, first: 0, subscribers, publishers, senders: publishers, topics, size, place: None }
    }

    fn fleet(&self) -> Result<Fleet, Failure> {
        let mut fleet = Fleet::new(self.share(self.most()), self.per_process)?;
        (fleet.pipeline, fleet.batch) = (self.pipeline, self.batch);
        if fleet.processes() > 1 {
            self.say(&format!("{} processes hold the subscribers", fleet.processes()));
        }
        Ok(fleet)
    }

    fn report(&self, subscribers: usize, fleet: &Fleet) -> Report {
        Report {
            mode: self.mode.clone(),
            subscribers,
            processes: fleet.processes(),
            measured: !self.family.is_empty(),
            ..Report::default()
        }
    }

    fn say(&self, text: &str) {
        self.progress.borrow_mut().say(text);
    }

    fn show(&self, part: f64, text: impl FnOnce() -> String) {
        self.progress.borrow_mut().show(part, text);
    }

    fn meters(&self) -> Meters {
        Meters { server: self.family.cpu(), softirq: system::ksoftirqd(), generator: system::own().cpu() }
    }

    fn read_meters(&self, before: &Meters, report: &mut Report) {
        let now = self.meters();
        report.cpu = now.server.since(before.server);
        report.ksoftirqd = now.softirq - before.softirq;
        report.generator = now.generator.since(before.generator).total;
        report.pss_after = self.family.pss();
    }

    fn connect(&self, fleet: &mut Fleet, to: usize, cursor: &str) -> Result<(), Failure> {
        let opening = Opening { at_once: self.connecting, cursor: cursor.to_owned(), again: self.mode == "storm" };
        fleet
            .connect(to, &opening, &mut |open| self.show(open as f64 / to.max(1) as f64, || format!("connecting: {open} of {to} are open")))
    }

    /// Fanout, topics, slow, soak and publish.
    pub(super) fn stream(&self) -> Result<Report, Failure> {
        if self.mode == "slow" && self.target.own_topics() {
            return Err(Failure::Usage("slow: one topic for all, or nobody could say who waits for whom".into()));
        }
        let mut fleet = self.fleet()?;
        self.connect(&mut fleet, self.subscribers, "")?;
        let stalled = if self.mode == "slow" { self.subscribers * self.stalled / 100 } else { 0 };
        fleet.stall(stalled)?;
        let readers = self.subscribers - stalled;
        let mut report = self.report(self.subscribers, &fleet);
        let begin = fleet.now();
        let measured_from = begin + nanoseconds(self.warmup);
        let until = measured_from + nanoseconds(self.duration);
        let topics = if self.target.own_topics() { self.subscribers.max(1) } else { 1 };
        let reach = match (&*self.mode, self.target.own_topics()) {
            // Whoever is connected is to get nothing.
            ("publish", _) => 0,
            (_, true) => readers.min(1),
            (_, false) => readers,
        } as u64;
        let mut pace = Pace::new(self.rate, self.in_flight, self.batch, topics, reach, begin);
        let patience = nanoseconds(self.patience);
        while fleet.now() < measured_from || (pace.owes(measured_from) && fleet.now() < measured_from + patience) {
            pace.send(&mut fleet, Phase::WarmUp, measured_from);
            fleet.turn()?;
            self.show(0.0, || "warming up".into());
        }
        // What was sent before is no part of what is measured.
        let before = self.meters();
        let started = fleet.now();
        report.pss_before = self.family.pss();
        let mut sample = started;
        let sampled = self.mode == "slow" || self.mode == "soak";
        loop {
            let now = fleet.now();
            if now >= until && !(pace.owes(until) && now < until + patience) {
                break;
            }
            pace.send(&mut fleet, Phase::Measured, until);
            fleet.turn()?;
            if sampled && now >= sample {
                report.series.push(((sample - started) as f64 / 1e9, self.family.pss()));
                sample += 1_000_000_000;
            }
            let seconds = now.saturating_sub(started) as f64 / 1e9;
            self.show(seconds / self.duration.as_secs_f64().max(1e-9), || {
                format!("{seconds:.0} s, {} events, {} deliveries", fleet.counts.published, fleet.deliveries())
            });
        }
        let patience = Instant::now() + self.patience;
        report.expected = fleet.counts.published * reach;
        while (fleet.deliveries() < report.expected || !fleet.all_answered()) && Instant::now() < patience {
            fleet.turn()?;
            self.show(1.0, || format!("{} of {} deliveries", fleet.deliveries(), report.expected));
        }
        let ended = fleet.now();
        self.read_meters(&before, &mut report);
        // What the stalled ones find when they read again is no delivery in time.
        report.counts = fleet.take_counts()?;
        let ended = if reach > 0 { report.counts.last.max(started) } else { ended };
        report.seconds = (ended - started) as f64 / 1e9;
        if stalled > 0 {
            report.stalled = stalled as u64;
            report.stalled_told = fleet.unstall()? as u64;
        }
        Ok(report)
    }

    /// Memory for each connection that only stands there.
    pub(super) fn idle(&self) -> Result<Report, Failure> {
        if self.from >= self.to {
            return Err(Failure::Usage("idle: --to is greater than --from".into()));
        }
        let mut fleet = self.fleet()?;
        let mut report = self.report(self.to, &fleet);
        report.pss_empty = Some(self.family.pss());
        // Only the smaller number: a server that had seen the larger one would keep the memory of it, and more connections would look free.
        for round in 1..=self.rounds {
            self.say(&format!("warm-up round {round}"));
            self.connect(&mut fleet, self.from, "")?;
            self.settle(&mut fleet)?;
            fleet.close_all()?;
            self.settle(&mut fleet)?;
        }
        self.connect(&mut fleet, self.from, "")?;
        self.settle(&mut fleet)?;
        report.pss_before = self.family.pss();
        self.connect(&mut fleet, self.to, "")?;
        self.settle(&mut fleet)?;
        report.pss_after = self.family.pss();
        report.idle = Some((self.from, self.to));
        report.counts = fleet.take_counts()?;
        Ok(report)
    }

    /// Everybody drops and comes back.
    pub(super) fn storm(&self) -> Result<Report, Failure> {
        let mut fleet = self.fleet()?;
        self.connect(&mut fleet, self.subscribers, "")?;
        self.settle(&mut fleet)?;
        let mut report = self.report(self.subscribers, &fleet);
        let (before, network) = (self.meters(), system::network());
        for round in 1..=self.rounds.max(1) {
            let started = fleet.now();
            fleet.close_all()?;
            self.connect(&mut fleet, self.subscribers, "")?;
            report.seconds += (fleet.now() - started) as f64 / 1e9;
            report.connects += self.subscribers as u64;
            self.say(&format!("round {round}: all {} are back", self.subscribers));
            self.settle(&mut fleet)?;
        }
        self.read_meters(&before, &mut report);
        let after = system::network();
        report.syn_retransmits = Some(after.syn_retransmits - network.syn_retransmits);
        report.listen_overflows = Some(after.listen_overflows - network.listen_overflows);
        report.counts = fleet.take_counts()?;
        Ok(report)
    }

    /// Everybody asks for the same last events.
    pub(super) fn replay(&self) -> Result<Report, Failure> {
        if self.target.own_topics() || self.behind >= self.events {
            return Err(Failure::Usage("replay: one topic, and fewer events --behind than --events".into()));
        }
        let mut fleet = self.fleet()?;
        fleet.ids = Some(Vec::new());
        let watcher = Watcher::start(&self.target)?;
        let mut sent = 0;
        while sent < self.events || !fleet.all_answered() {
            if sent < self.events && fleet.is_free(0) {
                let phase = if sent + self.behind < self.events { Phase::WarmUp } else { Phase::Measured };
                let now = fleet.now();
                fleet.publish(0, 0, phase, now);
                sent += self.batch;
            }
            fleet.turn()?;
            self.show(sent as f64 / self.events as f64, || format!("{sent} of {} events are published", self.events));
        }
        let ids = String::from_utf8_lossy(&fleet.ids.take().unwrap_or_default()).into_owned();
        let last = self.events - self.behind - 1;
        let answered = ids.lines().nth(last).filter(|id| !id.is_empty() && !id.contains(' ')).map(str::to_owned);
        let Some(cursor) = answered.or_else(|| watcher.id(last)) else {
            return Err(Failure::Running("the server names no id, neither when it answers a publish nor in its stream".into()));
        };
        drop(watcher);
        fleet.expect((self.events - self.behind) as u32 + 1)?;
        let mut report = self.report(self.subscribers, &fleet);
        let (before, started) = (self.meters(), fleet.now());
        self.connect(&mut fleet, self.subscribers, &cursor)?;
        report.expected = (self.behind * self.subscribers) as u64;
        let patience = Instant::now() + self.patience;
        while fleet.deliveries() < report.expected && Instant::now() < patience {
            fleet.turn()?;
            self.show(fleet.deliveries() as f64 / report.expected as f64, || format!("{} deliveries", fleet.deliveries()));
        }
        self.read_meters(&before, &mut report);
        report.counts = fleet.take_counts()?;
        report.seconds = (report.counts.last.max(started) - started) as f64 / 1e9;
        report.connects = self.subscribers as u64;
        // How old the events were says nothing about the replay.
        report.counts.latency = super::histogram::Histogram::default();
        Ok(report)
    }

    /// A server comes to rest unseen from here, so that it is given time.
    fn settle(&self, fleet: &mut Fleet) -> Result<(), Failure> {
        let until = Instant::now() + self.settle;
        while Instant::now() < until {
            fleet.turn()?;
            self.show(1.0, || "settling".into());
        }
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
