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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        PageLimits,
        disk::{DiskOptions, Parts, assemble, files::Files as _, format::segment_name, segment, simulated::Simulated, writer::Waiting},
    };
    use std::sync::Arc;
    use tidings_core::{Event, Filter, Framing, GapReason, Grant, Matchers, TopicMatcher, View, shard::Page};
    use tokio::sync::oneshot;

    const LIMITS: PageLimits = PageLimits { bytes: 1 << 20, events: 1_024, scanned: 4_096 };
    const RARE: usize = 24;

    /// A log of several segments, some of them with an index file, in which the events of a topic lie apart.
    fn log(disk: &Simulated) -> Parts {
        let options = DiskOptions { segment_bytes: 64 << 10, retention_age: None, ..DiskOptions::default() };
        let mut parts = assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap();
        for round in 0..RARE {
            let others = (0..10).map(|n| Event::new(&format!("other/{n}"), "x".repeat(1_000)).unwrap());
            let events = others.chain([Event::new("rare", format!("{round}")).unwrap()]);
            let (answer, mut answered) = oneshot::channel();
            parts.writer.commit(vec![Waiting { drafts: events.map(Record::draft).collect(), key: None, now: 1_000, answer }]);
            assert!(answered.try_recv().unwrap().is_ok());
            if round == RARE / 2 {
                parts.keeper.work(None);
            }
        }
        parts
    }

    fn rare() -> Filter {
        Filter::new(Matchers::from(TopicMatcher::exact("rare").unwrap()), &Grant::open())
    }

    fn sequences(page: &Page) -> Vec<u64> {
        page.records.iter().map(|record| record.position().sequence).collect()
    }

    /// Who asks next gets the same records, out of memory alone, and nobody gets less there than from the disk.
    #[test]
    fn shared_with_the_next_reader() {
        let disk = Simulated::new(1, None);
        let Parts { log, .. } = log(&disk);
        assert!(log.view().segments.len() > 1);
        let head = log.bounds().head;
        let again = |after, up_to| log.read_at_hand(after, up_to, &rare(), LIMITS);
        assert!(again(0, head).is_none(), "nothing was read yet");
        let first = log.read_beyond(0, head, &rare(), &[], LIMITS).unwrap();
        assert_eq!(first.records.len(), RARE);
        let bytes = |record: &Record| record.wire_shared(View::First, Framing::Plain);
        let second = again(0, head).expect("it was read before");
        assert!(first.records.iter().zip(&second.records).all(|(one, other)| bytes(one).as_ptr() == bytes(other).as_ptr()));
        for (after, up_to) in [(0, head), (0, head - 1), (11, head), (20, 50), (head, head), (head - 1, head)] {
            let (here, there) = (again(after, up_to).unwrap(), log.read_beyond(after, up_to, &rare(), &[], LIMITS).unwrap());
            assert_eq!((sequences(&here), here.covered_through, here.lost), (sequences(&there), there.covered_through, there.lost));
        }
        let two =
            Filter::new(Matchers::new([TopicMatcher::exact("rare").unwrap(), TopicMatcher::prefix("other").unwrap()]), &Grant::open());
        assert!(log.read_at_hand(0, head, &two, LIMITS).is_none(), "more to look at than a moment's work");
    }

    /// N-14: what is damaged is never at hand, and told to whoever reads it, whatever was kept of its neighbours.
    #[test]
    fn damage_is_told() {
        let disk = Simulated::new(1, None);
        let Parts { log, .. } = log(&disk);
        let head = log.bounds().head;
        let place = log.view().segments[0].place();
        let candidates = log.by_position(0, |index, _, last| {
            let part = segment::Part { first: 1, after: 0, through: last, limit: 10 };
            segment::candidates(index, rare().matchers(), part)
        });
        let (segment::Candidates { events: found, .. }, _) = candidates.unwrap().unwrap();
        let (sequence, offset) = found[1];
        disk.damage(&segment_name(place.header.serial), |contents| contents[offset as usize + 30] ^= 1);
        for _ in 0..2 {
            let page = log.read_beyond(0, head, &rare(), &[], LIMITS).unwrap();
            assert_eq!((sequences(&page), page.covered_through), (vec![found[0].0], sequence - 1));
            assert!(log.read_at_hand(0, head, &rare(), LIMITS).is_none());
            let page = log.read_beyond(sequence - 1, head, &rare(), &[], LIMITS).unwrap();
            assert_eq!((page.lost, page.records.len()), (Some(GapReason::Damaged), RARE - 2));
            assert!(log.read_at_hand(sequence - 1, head, &rare(), LIMITS).is_none());
        }
    }

    /// What goes with its segment is forgotten, and there are never more than so many bytes.
    #[test]
    fn bounded() {
        let disk = Simulated::new(1, None);
        let Parts { log, .. } = log(&disk);
        log.read_beyond(0, log.bounds().head, &rare(), &[], LIMITS).unwrap();
        let all: &Records = &log.files.records;
        let sizes = || {
            let held = all.held();
            let sum: usize = held.records.values().map(cost).sum();
            assert_eq!((held.names.len(), held.bytes), (held.records.len(), sum));
            (held.records.len(), held.bytes)
        };
        assert_eq!(sizes().0, RARE);
        let serials: Vec<u64> = log.view().segments.iter().map(|segment| segment.header.serial).collect();
        let of = |serial| {
            let held = all.held();
            held.names.iter().filter(|name| name.0 == serial).count()
        };
        let gone = of(serials[0]);
        assert!(gone > 0);
        log.files.remove(&segment_name(serials[0])).unwrap();
        assert_eq!((of(serials[0]), sizes().0), (0, RARE - gone));
        let record = all.held().records.values().next().unwrap().clone();
        let many = limits::APART_BYTES / cost(&record) + 10;
        for n in 0..many as u64 {
            all.put((9, n), &record);
            all.put((9, n), &record);
        }
        let (count, bytes) = sizes();
        assert!(bytes <= limits::APART_BYTES && count > many - 30);
        assert_eq!(of(serials[1]), 0);
        all.forget(9);
        assert_eq!(sizes(), (0, 0));
    }
}
