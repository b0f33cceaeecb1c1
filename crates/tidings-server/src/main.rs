//! The binary `tidings`: runs a hub, publishes to one, and prints what one sends.
//!
//! It reads settings, wires the library together, and turns outcomes into exit codes (N-42): 0 clean, 1 failed while running, 2 wrong
//! usage or settings. Nothing about events, delivery or HTTP is decided here.

mod bench;
mod cli;
mod client;
mod log;
mod logging;
mod printer;
mod publish;
mod quantity;
mod serve;
mod settings;
mod signals;
mod subscribe;
mod text;
mod token;

use std::{fmt, process::ExitCode};

/// Musl's allocator is slow under threads; the choice is the program's, never the library's. It is built to ask for no huge pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program ends with another code than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 2: the caller has to change the command or the settings.
    Usage(String),
    /// Exit code 1: it was asked properly and did not work.
    Running(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(why) | Failure::Running(why)) = self;
        write!(f, "error: {}", text::printable(why))
    }
}

fn main() -> ExitCode {
    without_huge_pages();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => 2,
                Failure::Running(_) => 1,
            })
        }
    }
}

/// Two megabytes at a time are too many for what a hub has: with huge pages an empty one takes fifteen megabytes more, and each of the many small
/// pieces in which its memory comes and goes keeps one. Some systems give them unasked.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    // Where it cannot be said, more memory is used.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
