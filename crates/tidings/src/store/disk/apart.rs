//! Events that lie apart from each other, as those of a rare topic do: each of them costs a read, so the newest that were read are kept for
//! the next reader, within a bound in bytes.
//!
//! It knows events by segment and number, not who may have them. Only what was checked is kept, and what goes with its segment is forgotten.

use super::{
    cached::Cached,
    index::DAMAGED,
    segment::{NEAR, Place, fetch},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tidings_core::{Record, limits};

/// The serial of its segment, and its sequence: no number is given twice.
type Name = (u64, u64);

/// Events that were read alone.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    records: HashMap<Name, Record>,
    /// In the order in which they came.
    names: VecDeque<Name>,
    /// What all of them cost.
    bytes: usize,
}

/// What an entry costs beside its record.
const ENTRY: usize = 64;

fn cost(record: &Record) -> usize {
    record.cost() + ENTRY
}

impl Records {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: Name, record: &Record) {
        let cost = cost(record);
        // One large event would push out very many.
        if cost > limits::APART_BYTES / 64 {
            return;
        }
        let held = &mut *self.held();
        if held.records.insert(name, record.clone()).is_some() {
            return;
        }
        held.names.push_back(name);
        held.bytes += cost;
        while held.bytes > limits::APART_BYTES {
            let Some(oldest) = held.names.pop_front() else { break };
            held.bytes -= held.records.remove(&oldest).map_or(0, |record| self::cost(&record));
        }
    }

    /// A segment goes.
    pub(super) fn forget(&self, serial: u64) {
        let Held { records, names, bytes } = &mut *self.held();
        records.retain(|name, record| {
            let stays = name.0 != serial;
            *bytes -= if stays { 0 } else { cost(record) };
            stays
        });
        names.retain(|name| name.0 != serial);
    }
}

/// Reads events as [`fetch`] does. Those that lie apart come from memory if they were read before.
pub(super) fn fetch_apart(
    files: &Cached,
    place: Place,
    events: &[(u64, u32)],
    mut take: impl FnMut(u64, Option<Record>) -> bool,
) -> io::Result<()> {
    let near = |at: usize| matches!(events[at..], [(_, one), (_, next), ..] if one == DAMAGED || next == DAMAGED || next - one <= NEAR);
    let apart = |at: usize| events[at].1 != DAMAGED && !near(at) && (at == 0 || !near(at - 1));
    let name = |at: usize| (place.header.serial, events[at].0);
    let known: Vec<Option<Record>> = {
        let mut held = None;
        let mut get = |at| held.get_or_insert_with(|| files.records.held()).records.get(&name(at)).cloned();
        (0..events.len()).map(|at| if apart(at) { get(at) } else { None }).collect()
    };
    let (mut at, mut wanted) = (0, true);
    while wanted && at < events.len() {
        if let Some(record) = &known[at] {
            wanted = take(events[at].0, Some(record.clone()));
            at += 1;
            continue;
        }
        let end = (at..events.len()).find(|&next| known[next].is_some()).unwrap_or(events.len());
        fetch(files, place, &events[at..end], |sequence, record| {
            if let Some(record) = record.as_ref().filter(|_| apart(at)) {
                files.records.put(name(at), record);
            }
            at += 1;
            wanted = take(sequence, record);
            wanted
        })?;
    }
    Ok(())
}
