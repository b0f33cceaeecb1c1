//! The signals a running hub listens to: to stop, and to log more or less (N-42, Z-16).
//!
//! What stopping means is decided by who waits.

use crate::logging::Logs;
use std::io;

#[cfg(unix)]
pub(crate) struct Signals {
    logs: Logs,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From here on these signals no longer end the process by themselves.
    pub(crate) fn new(logs: Logs) -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            logs,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal to stop, and switches the log level meanwhile. Dropping the future loses no signal.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "Ctrl-C",
                _ = self.user1.recv() => self.logs.toggle(),
            }
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new(_: Logs) -> io::Result<Signals> {
        Ok(Signals)
    }

    /// Waits for Ctrl-C.
    pub(crate) async fn stop(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
