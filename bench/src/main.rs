//! `fanout-check`: subscribers by the thousand against a running hub, every event of every one of them checked for loss, order and
//! repetition. Fails if anything is wrong, so that it can stand in a pipeline.
//!
//! It knows the hub's HTTP interface only; it runs in a process of its own so that the hub's CPU time is the hub's alone.

mod check;
mod publish;
mod stream;
mod subscribers;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use subscribers::Subscribers;

/// Opens subscribers, publishes, and checks that each of them received everything once and in order.
#[derive(Parser, Debug)]
#[command(name = "fanout-check", version)]
struct Args {
    /// Where the hub listens.
    #[arg(long, default_value = "127.0.0.1:4680")]
    address: SocketAddr,
    /// All subscribers on one topic.
    #[arg(long, conflicts_with = "own_topics", required_unless_present = "own_topics")]
    one_topic: bool,
    /// A topic for each subscriber.
    #[arg(long)]
    own_topics: bool,
    /// Subscribers; each is one connection.
    #[arg(long, default_value_t = 10_000)]
    subscribers: u32,
    /// Events on the one topic.
    #[arg(long, default_value_t = 1_000)]
    events: u32,
    /// Rounds of one event per topic.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Events published per second at the most; 0 is as fast as the hub answers.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of data per event at the least.
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// Key for publishing, if the hub asks for one.
    #[arg(long)]
    key: Option<String>,
    /// The hub's process, to report its CPU time and memory (Linux).
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds without any progress after which it gives up.
    #[arg(long, default_value_t = 20)]
    patience: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let topics = if args.one_topic { 1 } else { args.subscribers };
    let per_topic = if args.one_topic { args.events } else { args.rounds };
    ensure!(args.subscribers > 0 && per_topic > 0, "nothing to do: set --subscribers and --events or --rounds above 0");
    let expected = u64::from(args.subscribers) * u64::from(per_topic);
    let patience = Duration::from_secs(args.patience);

    let started = Instant::now();
    let mut subscribers = Subscribers::open(args.address, args.subscribers, topics, patience)?;
    println!("{} subscribers on {topics} topics open after {:.2} s", args.subscribers, started.elapsed().as_secs_f64());

    let cpu_before = args.pid.map(cpu_seconds).transpose()?;
    let started = Instant::now();
    let plan = publish::Plan { topics, per_topic, rate: args.rate, size: args.size, key: args.key.clone() };
    let address = args.address;
    let publisher = thread::spawn(move || publish::run(address, &plan));
    let tally = subscribers.check(per_topic, expected, patience)?;
    let took = started.elapsed().as_secs_f64();
    let published = publisher.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?.context("publishing")?;

    println!("published {} events in {:.2} s ({} times told to wait)", published.events, published.took.as_secs_f64(), published.refused);
    println!("{tally}");
    println!("{:.2} s, {:.0} deliveries per second", took, tally.received as f64 / took);
    if let (Some(pid), Some(before)) = (args.pid, cpu_before) {
        let cpu = cpu_seconds(pid)? - before;
        println!(
            "hub: {cpu:.2} s of CPU, {:.2} us per delivery, {} kB resident",
            cpu * 1e6 / tally.received.max(1) as f64,
            resident_kilobytes(pid)?
        );
    }
    if !tally.is_clean(expected) {
        bail!("{expected} deliveries were expected, each once and in order");
    }
    println!("clean: {expected} deliveries, each once and in order");
    Ok(())
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    // Ticks have been 100 per second on every Linux of the last decades, whatever the kernel's own clock.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid} to look at"))?;
    // The name, in parentheses, may contain anything; the fields after it are numbers.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("an unknown form of /proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

fn resident_kilobytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("an unknown form of /proc/PID/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn own_process_has_figures() {
    let pid = std::process::id();
    assert!(cpu_seconds(pid).unwrap() >= 0.0 && resident_kilobytes(pid).unwrap() > 0);
}
