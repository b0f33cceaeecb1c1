//! `log-probe`: fills a hub's log over HTTP, then asks it what readers ask who come late: where a cursor in the middle goes on, a rare
//! topic among the others, everything at once, everything slowly.
//!
//! Every event carries its number, and every number is checked: all of them, once, in order.

mod fill;
mod reader;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use reader::Reader;
use serde_json::json;
use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Fills a hub's log and reads it back in the ways of readers who come late. Prints one JSON object.
#[derive(Parser)]
struct Settings {
    /// The hub, `http://127.0.0.1:PORT`.
    url: String,
    /// Its process, for its memory.
    #[arg(long)]
    pid: u32,
    /// Events that are published first, on a thousand topics.
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    /// Events of a rare topic, spread among them.
    #[arg(long, default_value_t = 100)]
    rare: u64,
    /// Bytes of data in each.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How often short questions are asked.
    #[arg(long, default_value_t = 200)]
    times: usize,
    /// Read everything, at once and slowly.
    #[arg(long)]
    behind: bool,
    /// For those who call every load alike.
    #[arg(long)]
    json: bool,
}

/// A slow reader takes so many bytes every few milliseconds: some two megabytes a second.
const SIP: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(8);
/// And reads as fast as it can after so long.
const SLOW: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let settings = Settings::parse();
    let address: SocketAddr = settings.url.strip_prefix("http://").context("the URL begins with http://")?.parse()?;
    ensure!(address.ip().is_loopback(), "only servers on this machine are loaded");
    let empty = memory(settings.pid)?;
    let began = Instant::now();
    let middle = fill::fill(address, &settings)?;
    let filled = began.elapsed();

    let mut first = times(settings.times, || Reader::open(address, "/subscribe", &middle)?.first())?;
    let rare = "/subscribe?topic=rare";
    let mut hundred = times(settings.times, || {
        let mut reader = Reader::open(address, rare, "earliest")?;
        reader.numbers(settings.rare, None).map(drop)
    })?;
    let held = memory(settings.pid)?;
    let mut figures = json!({
        "events": settings.events,
        "filled": {"seconds": filled.as_secs_f64(), "events_per_s": settings.events as f64 / filled.as_secs_f64()},
        "first_event_us": median(&mut first),
        "rare_topic_us": median(&mut hundred),
        "memory": {"empty_bytes": empty, "bytes": held, "grew_bytes": held.saturating_sub(empty)},
    });
    if settings.behind {
        let before = memory(settings.pid)?;
        let began = Instant::now();
        let mut most = before;
        let watch = |highest: &mut u64| -> Result<()> {
            *highest = (*highest).max(memory(settings.pid)?);
            Ok(())
        };
        let mut reader = Reader::open(address, "/subscribe", "earliest")?;
        let fast = reader.numbers(settings.events, None)?;
        let seconds = began.elapsed().as_secs_f64();
        watch(&mut most)?;
        ensure!(fast.is_whole(settings.events), "the fast reader missed something: {fast:?}");
        let mut reader = Reader::open(address, "/subscribe", "earliest")?;
        let mut look = Instant::now();
        let slow = reader.sip(settings.events, SIP, PAUSE, SLOW, || {
            if look.elapsed() > Duration::from_millis(500) {
                look = Instant::now();
                watch(&mut most)?;
            }
            Ok(())
        })?;
        ensure!(slow.is_whole(settings.events), "the slow reader missed something: {slow:?}");
        figures["behind"] = json!({
            "events_per_s": settings.events as f64 / seconds,
            "grew_bytes": most.saturating_sub(before),
            "slow_was_slow_for_events": slow.slowly,
        });
    }
    println!("{figures}");
    Ok(())
}

/// How long something took, so many times, in microseconds.
fn times(count: usize, mut what: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            what()?;
            Ok(began.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Resident memory of a process, in bytes.
fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process of --pid")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process with memory")?;
    Ok(line.split_whitespace().next().context("a number")?.parse::<u64>()? * 1_024)
}
