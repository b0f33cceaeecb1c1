//! `tidings bench`: load on any server of event streams, with every event checked.
//!
//! Intended times of sending are fixed before the run (open loop), so that a server that stalls is charged for everybody who waited; or
//! so many events are kept on their way (closed loop), which finds the highest rate without loss. It knows modes and figures; sockets are
//! `bench/load.rs`'s.

mod histogram;
mod load;
mod report;
mod stamp;
mod stream;
mod system;
mod target;

use crate::Failure;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use load::{Counts, Load};
use report::Report;
use stamp::Phase;
use std::time::{Duration, Instant};
use system::Family;
use target::Target;

const ABOUT: &str = "Put load on a server of event streams, and check every event";
const EXAMPLES: &str = "\
Modes:
  fanout   all subscribers on one topic (with {n} in --topic: one each)
  topics   a topic for each subscriber, published to in turn
  idle     memory per idle connection: --to less --from, after --rounds warm-up rounds
  storm    all subscribers drop and come back, --rounds times
  slow     like fanout, while --stalled percent of the subscribers read nothing
  replay   --events are published, then everybody asks for the last --behind of them
  soak     like fanout, with memory once a second
  publish  no subscriber; with --batch N requests of N events

Examples:
  tidings bench fanout http://127.0.0.1:4680 --subscribers 1000 --rate 40 --duration 10s --pid $(pidof tidings)
  tidings bench fanout http://127.0.0.1:4680 --subscribers 1000 --in-flight 16 --publishers 16
  tidings bench idle http://127.0.0.1:4680 --from 5000 --to 15000 --pid $(pidof tidings)
  tidings bench fanout http://127.0.0.1:3000 --subscribe '/events?t={topic}' --publish /send --body 'topic={topic}&data={payload:url}'

Only servers on this machine are loaded, unless --allow-host names another. One process has as many connections as it may have open files.
Exit codes: 0 clean, 1 events were missing, repeated or out of order, or the run failed, 2 wrong usage.";

/// How long is waited for what is still on its way at the end.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        text(name, "N", help).default_value(default).value_parser(value_parser!(usize))
    };
    let duration = |name: &'static str, default: &'static str, help: &'static str| {
        text(name, "TIME", help).default_value(default).value_parser(crate::quantity::parse_time)
    };
    let modes = ["fanout", "topics", "idle", "storm", "slow", "replay", "soak", "publish"];
    Command::new("bench")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(Arg::new("mode").value_name("MODE").required(true).value_parser(modes))
        .arg(Arg::new("url").value_name("URL").required(true).help("The server: http://HOST:PORT"))
        .arg(number("subscribers", "1000", "Connections that subscribe"))
        .arg(number("publishers", "8", "Connections that publish"))
        .arg(number("size", "100", "Bytes of data of an event"))
        .arg(text("rate", "N", "Events a second, at fixed times (open loop)").value_parser(value_parser!(f64)))
        .arg(number("in-flight", "16", "Without --rate: events on their way at once (closed loop)"))
        .arg(duration("warmup", "2s", "Before anything is counted"))
        .arg(duration("duration", "10s", "What is counted"))
        .arg(text("topic", "TEMPLATE", "Topic; {n} is the subscriber's number"))
        .arg(text("subscribe", "TEMPLATE", "Path to subscribe at").default_value("/subscribe/{topic}"))
        .arg(text("publish", "TEMPLATE", "Path to publish to").default_value("/publish/{topic}"))
        .arg(text("body", "TEMPLATE", "Body of a publish").default_value("{payload}"))
        .arg(text("header", "LINE", "Header field of every request").action(ArgAction::Append))
        .arg(text("subscribe-header", "LINE", "Header field of subscriptions").action(ArgAction::Append))
        .arg(text("publish-header", "LINE", "Header field of publishes").action(ArgAction::Append))
        .arg(number("connecting", "512", "Connections being opened at once"))
        .arg(text("pid", "PID", "Process of the server, to be measured").action(ArgAction::Append).value_parser(value_parser!(u32)))
        .arg(number("batch", "1", "publish: events of one request, as JSON lines"))
        .arg(number("pipeline", "1", "Requests of one publisher under way at once"))
        .arg(number("from", "5000", "idle: the smaller number of connections"))
        .arg(number("to", "15000", "idle: the larger number of connections"))
        .arg(number("rounds", "1", "idle: warm-up rounds; storm: rounds"))
        .arg(number("stalled", "10", "slow: percent of the subscribers that read nothing"))
        .arg(number("events", "10000", "replay: events published before"))
        .arg(number("behind", "100", "replay: events each subscriber asks for"))
        .arg(text("allow-host", "HOST", "Another machine that may be loaded").action(ArgAction::Append))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the figures as JSON"))
}

/// Settings of a run.
struct Run {
    mode: String,
    target: Target,
    subscribers: usize,
    publishers: usize,
    size: usize,
    rate: Option<f64>,
    in_flight: usize,
    warmup: Duration,
    duration: Duration,
    connecting: usize,
    pipeline: usize,
    batch: usize,
    from: usize,
    to: usize,
    rounds: usize,
    stalled: usize,
    events: usize,
    behind: usize,
    family: Family,
}

pub(crate) fn run(matches: ArgMatches) -> Result<(), Failure> {
    let number = |name: &str| matches.get_one::<usize>(name).copied().unwrap_or_default();
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let all = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let mode = text("mode").unwrap_or_default();
    let (address, host) = target::address(&text("url").unwrap_or_default(), &all("allow-host"))?;
    let lines = |names: [&str; 2]| {
        let mut lines = all(names[0]);
        lines.extend(all(names[1]));
        lines.iter().flat_map(|line| [line, "\r\n"]).collect::<String>()
    };
    let batch = number("batch").max(1);
    let target = Target {
        address,
        host,
        subscribe: text("subscribe").unwrap_or_default(),
        publish: text("publish").unwrap_or_default(),
        topic: text("topic").unwrap_or_else(|| if mode == "topics" { "bench/{n}".into() } else { "bench".into() }),
        body: text("body").unwrap_or_default(),
        subscribe_headers: lines(["header", "subscribe-header"]),
        publish_headers: lines(["header", "publish-header"]),
        batch: (batch > 1).then(|| "/publish".into()),
    };
    let _ = tidings::serve::raise_open_files_limit();
    let pids: Vec<u32> = matches.get_many("pid").into_iter().flatten().copied().collect();
    let duration = |name: &str| matches.get_one::<Duration>(name).copied().unwrap_or_default();
    let run = Run {
        subscribers: if mode == "publish" { 0 } else { number("subscribers") },
        publishers: number("publishers").clamp(1, 256),
        size: number("size").max(stamp::LEN),
        rate: matches.get_one("rate").copied(),
        in_flight: number("in-flight").max(1),
        warmup: duration("warmup"),
        duration: duration("duration"),
        connecting: number("connecting").max(1),
        pipeline: number("pipeline").max(1),
        batch,
        from: number("from"),
        to: number("to"),
        rounds: number("rounds"),
        stalled: number("stalled").min(100),
        events: number("events"),
        behind: number("behind"),
        family: Family::of(&pids),
        mode,
        target,
    };
    let report = match &*run.mode {
        "idle" => run.idle()?,
        "storm" => run.storm()?,
        "replay" => run.replay()?,
        _ => run.stream()?,
    };
    report.print(matches.get_flag("json"));
    if report.is_clean() {
        Ok(())
    } else {
        Err(Failure::Running("events were missing, repeated, out of order or announced as lost".into()))
    }
}

impl Run {
    fn load(&self, subscribers: usize, publishers: usize) -> Result<Load, Failure> {
        let mut load = Load::new(self.target.clone(), subscribers, publishers, self.size)?;
        (load.pipeline, load.batch) = (self.pipeline, self.batch);
        Ok(load)
    }

    fn report(&self, subscribers: usize) -> Report {
        Report { mode: self.mode.clone(), subscribers, measured: !self.family.is_empty(), ..Report::default() }
    }

    /// Fanout, topics, slow, soak and publish.
    fn stream(&self) -> Result<Report, Failure> {
        let mut load = self.load(self.subscribers, self.publishers)?;
        load.connect(self.subscribers, self.connecting, "")?;
        say(&format!("{} subscribers are open", load.open()));
        let stalled = if self.mode == "slow" { self.subscribers * self.stalled / 100 } else { 0 };
        load.stall(stalled);
        let readers = self.subscribers - stalled;
        let mut report = self.report(self.subscribers);
        let begin = load.now();
        let measured_from = begin + nanoseconds(self.warmup);
        let until = measured_from + nanoseconds(self.duration);
        let mut pace = Pace { run: self, readers, next: begin, sent: 0, publisher: 0 };
        while load.now() < measured_from {
            pace.send(&mut load, Phase::WarmUp, measured_from);
            load.turn("")?;
        }
        // What was sent before is no part of what is measured.
        let (cpu, softirq, own) = (self.family.cpu(), system::ksoftirqd(), system::own().cpu());
        let started = load.now();
        report.pss_before = self.family.pss();
        let mut sample = started;
        while load.now() < until {
            pace.send(&mut load, Phase::Measured, until);
            load.turn("")?;
            if load.now() >= sample {
                let seconds = (sample - started) as f64 / 1e9;
                if self.mode == "slow" || self.mode == "soak" {
                    report.series.push((seconds, self.family.pss()));
                    say(&format!("{seconds:>5.0} s: {} events, {} deliveries", load.counts.published, load.counts.deliveries));
                }
                sample += 1_000_000_000;
            }
        }
        let patience = Instant::now() + PATIENCE;
        let reach = if self.target.own_topics() { 1 } else { readers as u64 };
        while (load.counts.deliveries < load.counts.published * reach && self.subscribers > 0 || !load.all_answered())
            && Instant::now() < patience
        {
            load.turn("")?;
        }
        let ended = if self.subscribers > 0 { load.counts.last.max(started) } else { load.now() };
        report.cpu = self.family.cpu().since(cpu);
        report.ksoftirqd = system::ksoftirqd() - softirq;
        report.generator = system::own().cpu().since(own).total;
        report.pss_after = self.family.pss();
        report.seconds = (ended - started) as f64 / 1e9;
        report.expected = load.counts.published * reach;
        if self.subscribers == 0 {
            report.expected = 0;
        }
        // What the stalled ones find when they read again is no delivery in time.
        report.counts = std::mem::take(&mut load.counts);
        if stalled > 0 {
            report.stalled = stalled as u64;
            report.stalled_told = load.unstall()? as u64;
        }
        Ok(report)
    }

    /// Memory for each connection that only stands there.
    fn idle(&self) -> Result<Report, Failure> {
        let mut load = self.load(self.to, 0)?;
        for round in 0..self.rounds {
            say(&format!("warm-up round {}", round + 1));
            load.connect(self.to, self.connecting, "")?;
            settle(&mut load)?;
            load.close_all();
            settle(&mut load)?;
        }
        let mut report = self.report(self.to);
        load.connect(self.from, self.connecting, "")?;
        settle(&mut load)?;
        report.pss_before = self.family.pss();
        load.connect(self.to, self.connecting, "")?;
        settle(&mut load)?;
        report.pss_after = self.family.pss();
        let more = (self.to.saturating_sub(self.from)).max(1) as f64;
        report.per_connection = Some((report.pss_after as f64 - report.pss_before as f64) / more);
        report.counts = std::mem::take(&mut load.counts);
        Ok(report)
    }

    /// Everybody drops and comes back.
    fn storm(&self) -> Result<Report, Failure> {
        let mut load = self.load(self.subscribers, 0)?;
        load.connect(self.subscribers, self.connecting, "")?;
        settle(&mut load)?;
        let mut report = self.report(self.subscribers);
        let (cpu, softirq, own, network) = (self.family.cpu(), system::ksoftirqd(), system::own().cpu(), system::network());
        for round in 0..self.rounds.max(1) {
            let started = load.now();
            load.close_all();
            load.connect(self.subscribers, self.connecting, "")?;
            report.seconds += (load.now() - started) as f64 / 1e9;
            report.connects += self.subscribers as u64;
            say(&format!("round {}: all {} are back", round + 1, self.subscribers));
            settle(&mut load)?;
        }
        report.cpu = self.family.cpu().since(cpu);
        report.ksoftirqd = system::ksoftirqd() - softirq;
        report.generator = system::own().cpu().since(own).total;
        let after = system::network();
        report.syn_retransmits = Some(after.syn_retransmits - network.syn_retransmits);
        report.listen_overflows = Some(after.listen_overflows - network.listen_overflows);
        report.pss_after = self.family.pss();
        report.counts = std::mem::take(&mut load.counts);
        Ok(report)
    }

    /// Everybody asks for the same last events.
    fn replay(&self) -> Result<Report, Failure> {
        if self.target.own_topics() || self.behind >= self.events {
            return Err(Failure::Usage("replay: one topic, and fewer events --behind than --events".into()));
        }
        let mut load = self.load(self.subscribers, 1)?;
        load.ids = Some(Vec::new());
        let mut sent = 0;
        while sent < self.events || !load.all_answered() {
            if sent < self.events && load.is_free(0) {
                let phase = if sent + self.behind < self.events { Phase::WarmUp } else { Phase::Measured };
                let now = load.now();
                load.publish(0, 0, phase, now);
                sent += self.batch;
            }
            load.turn("")?;
        }
        let ids = String::from_utf8_lossy(&load.ids.take().unwrap_or_default()).into_owned();
        let cursor = ids.lines().nth(self.events - self.behind - 1).unwrap_or_default().to_owned();
        if cursor.is_empty() {
            return Err(Failure::Running("the server does not answer a publish with the id of the event".into()));
        }
        load.expect((self.events - self.behind) as u32 + 1);
        let mut report = self.report(self.subscribers);
        let (cpu, softirq, own, started) = (self.family.cpu(), system::ksoftirqd(), system::own().cpu(), load.now());
        load.connect(self.subscribers, self.connecting, &cursor)?;
        report.expected = (self.behind * self.subscribers) as u64;
        let patience = Instant::now() + PATIENCE;
        while load.counts.deliveries < report.expected && Instant::now() < patience {
            load.turn("")?;
        }
        report.cpu = self.family.cpu().since(cpu);
        report.ksoftirqd = system::ksoftirqd() - softirq;
        report.generator = system::own().cpu().since(own).total;
        report.seconds = (load.counts.last.max(started) - started) as f64 / 1e9;
        report.connects = self.subscribers as u64;
        report.pss_after = self.family.pss();
        report.counts = Counts { latency: histogram::Histogram::default(), ..std::mem::take(&mut load.counts) };
        Ok(report)
    }
}

/// When the next event is sent, and by whom.
struct Pace<'a> {
    run: &'a Run,
    readers: usize,
    /// The next intended time.
    next: u64,
    sent: usize,
    publisher: usize,
}

impl Pace<'_> {
    fn send(&mut self, load: &mut Load, phase: Phase, until: u64) {
        let topics = if self.run.target.own_topics() { self.run.subscribers.max(1) } else { 1 };
        loop {
            let now = load.now();
            let intended = if let Some(rate) = self.run.rate {
                if self.next > now || self.next >= until {
                    return;
                }
                let intended = self.next;
                // Whoever is due waits for a publisher that is free; it was due all the same.
                if self.pick(load, topics).is_none() {
                    return;
                }
                self.next += (1e9 * self.run.batch as f64 / rate) as u64;
                intended
            } else {
                if !self.may_send(load, topics) || self.pick(load, topics).is_none() {
                    return;
                }
                now
            };
            let Some(publisher) = self.pick(load, topics) else { return };
            load.publish(publisher, self.sent % topics, phase, intended);
            self.publisher = publisher + 1;
            self.sent += 1;
        }
    }

    /// One topic has one publisher, so that its events have an order.
    fn pick(&self, load: &Load, topics: usize) -> Option<usize> {
        if topics > 1 {
            let publisher = self.sent % topics % load.publishers();
            return load.is_free(publisher).then_some(publisher);
        }
        load.free_publisher(self.publisher)
    }

    fn may_send(&self, load: &Load, topics: usize) -> bool {
        let counts = &load.counts;
        let published = counts.published + counts.warm_up_published;
        let delivered = counts.deliveries + counts.warm_up_deliveries;
        if self.readers == 0 {
            return true;
        }
        let reach = if topics > 1 { 1 } else { self.readers as u64 };
        published * reach < delivered + self.run.in_flight as u64 * reach
    }
}

/// Until nothing came for a while, as far as can be seen from here.
fn settle(load: &mut Load) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        load.turn("")?;
    }
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Progress goes where it disturbs nobody who reads the figures.
fn say(text: &str) {
    eprintln!("{text}");
}
