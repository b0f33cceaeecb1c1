//! The state file: replaced as a whole, and believed only once the new one is on disk under its name.
//!
//! It knows how, not when.

use super::{
    files::{Files, Why, read_whole},
    format::{Gap, State},
};
use std::{
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub(super) const NAME: &str = "state";
/// What a new state is called until it replaces the old one, with a number that no other attempt had: names reach the disk in any
/// order, and what is left of a failed attempt must never be renamed.
const NEW: &str = "state.";

/// The state as it is on disk.
#[derive(Debug)]
pub(super) struct Durable {
    files: Arc<dyn Files>,
    state: Mutex<State>,
    /// Gaps that are in the state and not on disk.
    unsaved: AtomicBool,
    /// The number of the next attempt.
    attempt: AtomicU64,
}

impl Durable {
    /// Writes a state, and keeps it.
    pub(super) fn begin(files: Arc<dyn Files>, state: State) -> io::Result<Durable> {
        let left = attempts(&*files)?;
        let durable = Durable::unsaved(files, state)?;
        durable.update(|_| ())?;
        for number in left {
            let _ = durable.files.remove(&format!("{NEW}{number}"));
        }
        Ok(durable)
    }

    /// Keeps a state that is written with its first change.
    pub(super) fn unsaved(files: Arc<dyn Files>, state: State) -> io::Result<Durable> {
        let attempt = attempts(&*files)?.into_iter().max().map_or(0, |last| last + 1);
        Ok(Durable { files, state: Mutex::new(state), unsaved: AtomicBool::new(false), attempt: AtomicU64::new(attempt) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers up to this one may be given out.
    pub(super) fn reserved(&self) -> u64 {
        self.state().reserved
    }

    /// Changes it, on disk first.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state();
        let mut next = state.clone();
        change(&mut next);
        save(&*self.files, &next, self.attempt.fetch_add(1, Ordering::Relaxed))?;
        *state = next;
        self.unsaved.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is a gap that is not on disk yet.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// A gap to be saved before anything else is written: it comes about when the disk fails, and then this may fail too.
    pub(super) fn note_gap(&self, gap: Gap) {
        self.state().gaps.push(gap);
        self.unsaved.store(true, Ordering::Relaxed);
    }
}

/// Numbers of attempts that were not finished.
fn attempts(files: &dyn Files) -> io::Result<Vec<u64>> {
    Ok(files.names()?.iter().filter_map(|name| name.strip_prefix(NEW)?.parse().ok()).collect())
}

/// The state on disk, if there is one.
pub(super) fn load(files: &dyn Files) -> io::Result<Option<State>> {
    match read_whole(files, NAME) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => State::parse(&other?).map(Some),
    }
}

fn save(files: &dyn Files, state: &State, attempt: u64) -> io::Result<()> {
    let new = format!("{NEW}{attempt}");
    let file = files.create(&new)?;
    let written = file.write_at(&state.to_bytes(), 0).and_then(|()| file.sync(Why::State)).and_then(|()| files.rename(&new, NAME));
    if written.is_err() {
        let _ = files.remove(&new);
    }
    written?;
    files.sync_names(Why::StateName)
}
