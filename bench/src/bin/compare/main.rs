//! `compare`: the hub beside the bare system calls and other servers, row by row, in interleaved repetitions, with ratios.
//!
//! Ratios of runs that followed each other within a minute carry from one machine to another; times do not. Every run is a line of JSON in
//! a file, and the table is made of the whole file, so that repetitions can be collected in as many calls as one likes.

mod keys;
mod mercure;
mod rows;
mod run;
mod servers;
mod table;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use rows::Row;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::SystemTime,
};

/// Runs the hub side by side with the floor and other servers, and prints ratios.
#[derive(Parser, Debug)]
#[command(name = "compare", version, after_help = help())]
struct Args {
    /// Rows to run, by name or by its beginning (`rate` is all of rate-...); all if none is named.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Servers to run beside the one that a row is measured against; missing ones are left out with a word.
    #[arg(long, value_delimiter = ',', default_value = "hub,embedded,axum,nchan,node")]
    servers: Vec<String>,
    /// Repetitions; 0 only makes the table of what is in the file.
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Where the runs are kept, one JSON object a line; what is there already counts too. The table goes beside it.
    #[arg(long, default_value = "target/compare.jsonl")]
    out: PathBuf,
    /// Names of rows and servers, and nothing else.
    #[arg(long)]
    list: bool,
}

fn help() -> String {
    let list = |names: Vec<(&str, &str)>| names.iter().map(|(name, what)| format!("  {name:<15} {what}")).collect::<Vec<_>>().join("\n");
    let rows = list(rows::all().map(|row| (row.name, row.title)).collect());
    format!("Rows:\n{rows}\n\nServers:\n{}", list(servers::ALL.to_vec()))
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.list {
        println!("{}", help());
        return Ok(());
    }
    for name in &args.servers {
        ensure!(servers::ALL.iter().any(|(known, _)| known == name), "no server is called {name}; see --list");
    }
    let rows = chosen(&args.rows)?;
    let left_out: BTreeSet<&str> = args.servers.iter().map(|name| &**name).filter(|name| servers::missing(name).is_some()).collect();
    for name in &left_out {
        eprintln!("without {name}: {}", servers::missing(name).unwrap_or_default());
    }
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = tidings::serve::raise_open_files_limit();
    let keys = keys::Keys::default();
    for repetition in 1..=args.reps {
        for row in &rows {
            // What belongs together is found by this, whichever call it came from.
            let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
            for (place, server) in row.servers.iter().enumerate() {
                if (place > 0 && !args.servers.iter().any(|name| name == server)) || left_out.contains(server) {
                    continue;
                }
                for variant in row.variants.iter().filter(|variant| !variant.hub_only || ["hub", "embedded"].contains(server)) {
                    eprintln!("[{repetition}/{}] {} {server} {}", args.reps, row.name, variant.name);
                    let done = match run::run(server, variant, &keys) {
                        Ok(done) => done,
                        // One server that cannot do it is no reason to stop the others.
                        Err(error) => {
                            eprintln!("  {error:#}");
                            json!({"error": format!("{error:#}")})
                        }
                    };
                    let line = json!({"repetition": moment, "row": row.name, "server": server, "variant": variant.name,
                        "bench": variant.bench, "serve": variant.serve, "run": done});
                    let mut file = OpenOptions::new().create(true).append(true).open(&args.out)?;
                    writeln!(file, "{line}")?;
                }
            }
        }
    }
    let text = fs::read_to_string(&args.out).unwrap_or_default();
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if lines.is_empty() {
        bail!("nothing was run, and {} has no runs", args.out.display());
    }
    let table = table::markdown(&rows, &lines);
    fs::write(args.out.with_extension("md"), &table)?;
    print!("{table}");
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    let meant = |row: &Row, name: &str| row.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(unknown) = names.iter().find(|name| !rows::all().any(|row| meant(row, name))) {
        bail!("no row is called {unknown}; see --list");
    }
    Ok(rows::all().filter(|row| names.is_empty() || names.iter().any(|name| meant(row, name))).collect())
}
