//! `tidings bench`: load on any server of event streams, with every event checked.
//!
//! Intended times of sending are fixed before the run (open loop), so that a server that stalls is charged for everybody who waited; or
//! so many events are kept on their way (closed loop), which finds the highest rate without loss. This file knows what can be typed; the modes
//! are in `bench/modes.rs`, sockets in `bench/load.rs`.

mod fleet;

mod histogram;
mod load;
mod modes;
mod pace;
mod progress;
mod report;
mod source;
mod stamp;
mod stream;
mod system;
mod tally;
mod target;
mod tokens;
mod watcher;
mod worker;

use crate::Failure;
use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource, value_parser};
use load::{Load, Share};
use modes::Run;
use progress::Progress;
use std::{cell::RefCell, path::PathBuf, time::Duration};
use system::Family;
use target::Target;
use tidings::Algorithm;
use tokens::Tokens;

const ABOUT: &str = "Put load on a server of event streams, and check every event";
const EXAMPLES: &str = "\
Modes:
  fanout   all subscribers on one topic (with {i} in --topic: one each)
  topics   a topic for each subscriber, published to in turn
  idle     memory per idle connection: --to less --from, after --rounds warm-up rounds of --from
  storm    all subscribers drop and come back, --rounds times
  slow     like fanout, while --stalled percent of the subscribers read nothing
  replay   --events are published, then everybody asks for the last --behind of them
  soak     like fanout, with memory once a second
  publish  no subscriber, or with --subscribers so many who are to get nothing; with --batch N requests of N events

Examples:
  tidings bench fanout http://127.0.0.1:4680 --subscribers 1000 --rate 40 --duration 10s --pid $(pidof tidings)
  tidings bench fanout http://127.0.0.1:4680 --subscribers 1000 --in-flight 16 --publishers 16
  tidings bench idle http://127.0.0.1:4680 --from 5000 --to 15000 --pid $(pidof tidings)
  tidings bench fanout http://127.0.0.1:3000 --subscribe '/events?t={topic}' --publish /send --body 'topic={topic}&data={payload:url}'

Only servers on this machine are loaded, unless --allow-host names another. Subscribers beyond --per-process are held by further processes,
which this one starts and ends. docs/guide/bench.md says what each figure means.
Exit codes: 0 clean, 1 events were missing, repeated or out of order, or the run failed, 2 wrong usage.";

/// Open files that a process needs beside its connections.
const RESERVE: u64 = 200;
/// Subscribers of one process at most, whatever the limit on open files: one address has no more ports to spare for one server.
const PER_PROCESS_MAX: usize = 19_000;

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
        .arg(text(
            "topic",
            "TEMPLATE",
            "Topic; {i} is the subscriber's number, and gives each one of its own; {n} is the event's, for publish",
        ))
        .arg(text("subscribe", "TEMPLATE", "Path to subscribe at").default_value("/subscribe/{topic}"))
        .arg(text("publish", "TEMPLATE", "Path to publish to").default_value("/publish/{topic}"))
        .arg(text("body", "TEMPLATE", "Body of a publish").default_value("{payload}"))
        .arg(text("header", "LINE", "Header field of every request").action(ArgAction::Append))
        .arg(text("subscribe-header", "LINE", "Header field of subscriptions").action(ArgAction::Append))
        .arg(text("publish-header", "LINE", "Header field of publishes").action(ArgAction::Append))
        .arg(text("tokens", "FILE", "Tokens of subscribers, one a line").value_parser(value_parser!(PathBuf)).conflicts_with("token-key"))
        .arg(
            text("token-key", "FILE", "Sign a token of Mercure 0.x for each subscriber, and one for publishers, with this key")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(text("token-alg", "ALG", "How to sign").default_value("HS256").value_parser(|name: &str| name.parse::<Algorithm>()))
        .arg(text("token-grant", "TEMPLATE", "What such a token lets its subscriber receive; {i} is its number").default_value("*"))
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
        .arg(duration("patience", "20s", "How long is waited at the end for what is still on its way"))
        .arg(duration("settle", "1500ms", "idle, storm: how long the server is given to come to rest"))
        .arg(
            text("per-process", "N", "Subscribers that one process holds [default: what open files allow, at most 19000]")
                .value_parser(value_parser!(usize)),
        )
        .arg(text("share", "FIRST,COUNT,PLACE", "The subscribers of this process; it takes commands from standard input").hide(true))
        .arg(text("allow-host", "HOST", "Another machine that may be loaded").action(ArgAction::Append))
        .arg(Arg::new("progress").long("progress").action(ArgAction::SetTrue).help("Say how far it is, even where there is no terminal"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the figures as JSON"))
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
        topic: text("topic").unwrap_or_else(|| if mode == "topics" { "bench/{i}".into() } else { "bench".into() }),
        body: text("body").unwrap_or_default(),
        subscribe_headers: lines(["header", "subscribe-header"]),
        publish_headers: lines(["header", "publish-header"]),
        batch: (batch > 1).then(|| "/publish".into()),
        tokens: tokens(&matches)?,
    };
    if target.fresh_topics() && mode != "publish" {
        return Err(Failure::Usage("--topic with {n} is for the mode publish: nobody can wait for topics that nobody has heard of".into()));
    }
    let files = tidings::serve::raise_open_files_limit().ok().flatten();
    let fitting = files.map_or(PER_PROCESS_MAX, |files| (files.saturating_sub(RESERVE) as usize).clamp(1, PER_PROCESS_MAX));
    let pids: Vec<u32> = matches.get_many("pid").into_iter().flatten().copied().collect();
    let duration = |name: &str| matches.get_one::<Duration>(name).copied().unwrap_or_default();
    let rate: Option<f64> = matches.get_one("rate").copied();
    if rate.is_some_and(|rate| !(1e-3..=1e9).contains(&rate)) {
        return Err(Failure::Usage("--rate: events a second, more than none".into()));
    }
    let is_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let run = Run {
        subscribers: if mode == "publish" && !is_given("subscribers") { 0 } else { number("subscribers") },
        publishers: number("publishers").clamp(1, 256),
        size: number("size").max(stamp::LEN),
        rate,
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
        patience: duration("patience"),
        settle: duration("settle"),
        per_process: matches.get_one::<usize>("per-process").map_or(fitting, |&most| most.max(1)),
        family: Family::of(&pids),
        progress: RefCell::new(Progress::new(matches.get_flag("progress"))),
        mode,
        target,
    };
    if let Some(share) = text("share") {
        let parsed = fleet::parse_share(&share).ok_or_else(|| Failure::Usage("--share is for processes that this one starts".into()));
        let (first, subscribers, place) = parsed?;
        return worker::serve(Load::new(Share { first, subscribers, place, publishers: 0, ..run.share(run.most()) })?);
    }
    let report = match &*run.mode {
        "idle" => run.idle()?,
        "storm" => run.storm()?,
        "replay" => run.replay()?,
        _ => run.stream()?,
    };
    run.progress.borrow_mut().clear();
    report.print(matches.get_flag("json"));
    if report.is_clean() {
        Ok(())
    } else {
        Err(Failure::Running("events were missing, repeated, out of order or announced as lost, or streams ended or were refused".into()))
    }
}

fn tokens(matches: &ArgMatches) -> Result<Tokens, Failure> {
    let file = |name: &str| matches.get_one::<PathBuf>(name);
    match (file("tokens"), file("token-key"), matches.get_one::<Algorithm>("token-alg"), matches.get_one::<String>("token-grant")) {
        (Some(file), ..) => Tokens::read(file),
        (None, Some(key), Some(&algorithm), Some(grant)) => Tokens::minted(key, algorithm, grant),
        _ => Ok(Tokens::default()),
    }
}
