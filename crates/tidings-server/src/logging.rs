//! Logs: lines on standard error, human or JSON, whose level can be changed while the program runs (Z-16).
//!
//! Standard output is not for logs: it carries the one line of N-42. What is worth a line is decided where it happens.

use std::io::IsTerminal as _;
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

/// The running logs; the level can be switched through it.
pub(crate) struct Logs {
    handle: reload::Handle<Targets, Registry>,
    configured: Targets,
    verbose: bool,
}

/// Reads a level such as `info`, or levels by target such as `info,tidings=debug`.
pub(crate) fn parse_level(text: &str) -> Result<Targets, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong =
        |part: &str| format!("`{part}` is not a log level; write one of {}, also by target as in info,tidings=debug", LEVELS.join(", "));
    for part in text.split(',') {
        // The parser below takes a lone word for a target, so that a misspelt level would log everything.
        let level = part.split_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.contains(&level) {
            return Err(wrong(part));
        }
    }
    text.parse().map_err(|_| wrong(text))
}

/// Starts logging for the whole process.
pub(crate) fn start(level: &str, json: bool) -> Result<Logs, String> {
    let configured = parse_level(level)?;
    let (filter, handle) = reload::Layer::new(configured.clone());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()
    };
    started.map_err(|error| format!("cannot start logging: {error}"))?;
    Ok(Logs { handle, configured, verbose: false })
}

impl Logs {
    /// Switches between the configured level and `debug` for everything of the hub.
    pub(crate) fn toggle(&mut self) {
        self.verbose = !self.verbose;
        // Of this program only: its libraries log every frame at that level.
        let filter =
            if self.verbose { self.configured.clone().with_target("tidings", tracing::Level::DEBUG) } else { self.configured.clone() };
        if self.handle.reload(filter).is_ok() {
            tracing::warn!("log level is now {}", if self.verbose { "debug" } else { "as configured" });
        }
    }
}
