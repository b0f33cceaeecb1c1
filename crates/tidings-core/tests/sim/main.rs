//! The seeded simulation of the core: shards, a log, readers, sockets and a clock, of which one seed decides everything.
//!
//! A run is some hundred random steps (publishing, batches, writes that are taken in part or not at all, stalls, broken connections,
//! late and failing pages, ticks that come late, drains, panics, crashes), and then everything comes to rest. A model that shares no
//! code with the shard (plain strings, what was published, what each browser saw) says whether everybody got everything exactly once
//! and in order, or was told of the gap, and whether nobody was told of a gap who had lost nothing.
//!
//! ```text
//! cargo test -p tidings-core --test sim -- --nocapture                            a share of the seeds, with what happened how often
//! TIDINGS_SIM_SEEDS=2500 TIDINGS_SIM_STEPS=500 cargo test --release ...           the full run: 1,250,000 steps
//! TIDINGS_SIM_SEED=17 cargo test -p tidings-core --test sim seeds -- --nocapture  one seed again, from its number alone
//! ```
//!
//! A failure names its seed and ends with the last things that happened. The number of steps belongs to a replay: a seed found with
//! other steps needs the same `TIDINGS_SIM_STEPS`.

mod host;
mod log;
mod question;
mod reader;
mod rng;
mod sabotage;
mod stream;
mod trace;
mod world;

use sabotage::Fault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trace::Counts;
use world::{Failure, Run};

const SEEDS: u64 = 400;
const STEPS: u64 = 500;

/// Everything that has to have happened in a run of the usual size: a simulation that never gets somewhere proves nothing about it.
const MUST_HAPPEN: [&str; 49] = [
    "batches",
    "broken while writing",
    "closed: age",
    "closed: client",
    "closed: drain",
    "closed: expired",
    "closed: failed",
    "closed: lagged",
    "closed: stalled",
    "closed: store",
    "cursors moved without an event",
    "deliveries",
    "deliveries read",
    "drains",
    "events",
    "evicted",
    "gaps read: damaged",
    "gaps read: epoch",
    "gaps read: evicted",
    "gaps read: lagged",
    "gaps read: lost",
    "gaps read: unknown",
    "gaps: damaged",
    "gaps: epoch",
    "gaps: evicted",
    "gaps: lagged",
    "gaps: lost",
    "gaps: unknown",
    "heartbeats",
    "heartbeats read",
    "logs begun anew",
    "logs cut by a crash",
    "pages",
    "pages cut by a bound",
    "pages that failed",
    "pages with damage",
    "planned ends, by abort",
    "planned ends, clean",
    "polls that only read",
    "publishes refused",
    "read in the newer view",
    "read in the older view",
    "reconnects",
    "reconnects to another shard",
    "shards overrun",
    "shards rebuilt",
    "subscribed ahead of the shard",
    "writes in part",
    "writes refused",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, it is {text:?}")))
}

/// A run whose panics are failures too.
fn run(seed: u64, steps: u64, fault: Option<Fault>, readable: bool) -> Result<Run, Failure> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, steps, fault, readable)))
        .unwrap_or_else(|_| Err(Failure { why: "it panicked".into(), tail: String::new() }))
}

fn must_succeed(seed: u64, steps: u64) -> Run {
    run(seed, steps, None, false).unwrap_or_else(|Failure { why, .. }| {
        // Once more, and this time with a record of it.
        let tail = run(seed, steps, None, true).err().map(|failure| failure.tail).unwrap_or_default();
        panic!("seed {seed} with {steps} steps: {why}\n{tail}replay with TIDINGS_SIM_SEED={seed} TIDINGS_SIM_STEPS={steps}");
    })
}

/// S-21, N-13a, N-14, N-17, S-24, S-28, S-43, M-82: whatever happens, everybody gets everything once and in order or is told, and
/// nobody else is told.
#[test]
fn seeds() {
    let steps = number("TIDINGS_SIM_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("TIDINGS_SIM_SEED") {
        let run = must_succeed(seed, steps);
        println!("seed {seed}: hash {:016x}\n{}", run.hash, run.counts.table());
        return;
    }
    let seeds = number("TIDINGS_SIM_SEEDS").unwrap_or(SEEDS);
    let mut counts = Counts::default();
    for seed in 0..seeds {
        counts.merge(&must_succeed(seed, steps).counts);
    }
    println!("{seeds} seeds, {} steps\n{}", counts.of("steps"), counts.table());
    if seeds >= SEEDS && steps >= STEPS {
        let never: Vec<&str> = MUST_HAPPEN.into_iter().filter(|what| counts.of(what) == 0).collect();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}

/// A seed decides everything: twice the same run, to the last byte; and another one is another run.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(must_succeed(seed, STEPS).hash, must_succeed(seed, STEPS).hash, "seed {seed}");
    }
    assert_ne!(must_succeed(1, STEPS).hash, must_succeed(2, STEPS).hash);
}

/// One fault each, from outside: the model has to find it soon, or it would not find the shard's own.
fn is_caught(fault: Fault) {
    const SEEDS_AT_MOST: u64 = 40;
    let mut struck = 0;
    for seed in 0..SEEDS_AT_MOST {
        match run(seed, STEPS, Some(fault), false) {
            Err(Failure { why, .. }) => {
                println!("{fault:?} is caught at seed {seed}: {why}");
                return;
            }
            Ok(run) => struck += u64::from(run.has_struck),
        }
    }
    panic!("{fault:?} is not caught within {SEEDS_AT_MOST} seeds; it was done in {struck}");
}

#[test]
fn a_dropped_event_is_caught() {
    is_caught(Fault::DropEvent);
}

#[test]
fn a_repeated_event_is_caught() {
    is_caught(Fault::RepeatEvent);
}

#[test]
fn an_invented_gap_is_caught() {
    is_caught(Fault::InventGapAtStart);
    is_caught(Fault::InventGapInPage);
}

#[test]
fn a_forgotten_gap_is_caught() {
    is_caught(Fault::ForgetGapAtStart);
    is_caught(Fault::ForgetGapInPage);
}
