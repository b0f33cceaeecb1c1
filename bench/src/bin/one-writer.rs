//! The floor of a durable log: one writer that appends a record and syncs it before the next. It keeps nothing beyond the file.
//!
//! It prints what `tidings bench publish --json` would, as far as there is something to compare.

use clap::Parser;
use serde_json::json;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Appends records to a file, a sync each.
#[derive(Parser)]
struct Settings {
    /// The directory for the file, on the disk that is measured.
    directory: PathBuf,
    /// Bytes of a record: what an event of 100 bytes takes in a log.
    #[arg(long, default_value_t = 250)]
    size: usize,
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

fn main() -> io::Result<()> {
    let settings = Settings::parse();
    let file = File::create(settings.directory.join("records"))?;
    let record = vec![b'x'; settings.size];
    let mut took = Vec::new();
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < Duration::from_secs(settings.seconds) {
        let before = Instant::now();
        file.write_all_at(&record, at)?;
        file.sync_data()?;
        at += record.len() as u64;
        took.push(before.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort();
    let p99 = took[took.len() * 99 / 100].as_secs_f64() * 1e3;
    println!("{}", json!({"publishes_per_s": took.len() as f64 / seconds, "publish_ms": {"p99": p99}}));
    Ok(())
}
