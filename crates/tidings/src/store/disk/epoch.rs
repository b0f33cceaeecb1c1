//! A log's events as a new log: another epoch and numbers from 1, in the same directory. For a directory that was restored from a backup,
//! whose next numbers some reader may have seen already with other events. Idempotency keys stay behind: the ids that they stand for are gone.
//!
//! The new segments are those of a foreign log until the state names their epoch; that one rename makes them the log, and the old ones foreign.

use super::{
    DiskOptions, Durability,
    aside::ASIDE,
    cached::Cached,
    files::Files,
    format::{HEADER, Removed, State, place_of, serial_of},
    keeper::Keeper,
    keyring::{Found, Keyring},
    ledger::Ledger,
    log::{Log, View},
    recovery::{Recovered, recover},
    standing,
    state::{self, Durable},
    writer::{Waiting, Writer, store_error},
};
use crate::{
    PrefixRule,
    store::{
        PageLimits, StoreError,
        latest::Latest,
        retention::{Gone, Limits, Rules},
    },
};
use std::{io, sync::Arc};
use tidings_core::{Epoch, Filter, GapReason, Grant, Matchers, Record, limits, shard::Page};
use tokio::sync::oneshot;

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    /// There is a new log, with so many events, without what could not be read in so many places.
    New { epoch: Epoch, events: u64, damaged: u64 },
    /// There is not, because something cannot be read in so many places.
    Damaged(u64),
}

/// Writes the kept events as a new log, and then lets go of the old one. `hub` is how the hub keeps it: then nothing comes back that was no
/// longer served. A gap cannot be taken along, so without being told to leave out what is damaged nothing is done.
pub(super) fn begin_new(files: &Arc<dyn Files>, hub: Option<DiskOptions>, without_damaged: bool) -> io::Result<Begun> {
    // Synced once a segment is whole, and not for each page: until the state changes nobody reads it.
    let options = DiskOptions {
        durability: Durability::None,
        retention_bytes: u64::MAX,
        retention_events: u64::MAX,
        retention_age: None,
        ..DiskOptions::default()
    };
    // As many classes as there were: if this comes to nothing, each of them has removed what it had, and no more.
    let of = |class: Removed| PrefixRule { retention_events: Some(u64::MAX), ..PrefixRule::new(&*class.prefix) };
    let state = state::load(&**files).ok().flatten();
    // Without its rules nobody knows what is the latest of its kind, if anything is: then all goes along that is there.
    let exact = hub.is_some() || (files.open(standing::NAME).is_err() && state.as_ref().is_some_and(|state| state.aside.0 == 0));
    let hub = hub.unwrap_or_else(|| {
        let prefixes = state.map(|state| state.classes).unwrap_or_default().into_iter().map(of).collect();
        DiskOptions { prefixes, ..options.clone() }
    });
    let closing = DiskOptions { durability: Durability::Sync, ..hub };
    let Recovered { epoch: old, rules, view, latest, gone, prior, .. } = recover(files, &closing)?;
    let old = Log::new(Arc::new(Cached::new(files.clone())), old, rules, view, latest, gone);
    old.find_latest()?;
    let remove = |which: &dyn Fn(u64) -> bool| -> io::Result<()> {
        for name in files.names()? {
            let serial = ["log", "index", "keys"].iter().find_map(|ending| serial_of(&name, ending));
            if serial.is_some_and(which) {
                let _ = files.remove(&name);
            }
        }
        Ok(())
    };
    let copied = copy(files, &old, prior.0, options, exact, without_damaged);
    let (durable, begun, damaged) = match copied {
        Ok((durable, begun, damaged)) if damaged == 0 || without_damaged => (durable, begun, damaged),
        other => {
            // What stands aside belongs to the old log.
            remove(&|serial| place_of(serial) > prior.0 && serial & ASIDE == 0)?;
            return other.map(|(_, _, damaged)| Begun::Damaged(damaged));
        }
    };
    let State { epoch, head, .. } = begun;
    // If this fails nobody knows which of the two it is after a crash, so that both stay.
    durable.update(|state| *state = begun)?;
    remove(&|serial| place_of(serial) <= prior.0 || serial & ASIDE != 0)?;
    Ok(Begun::New { epoch, events: head, damaged })
}

/// The segments of the new log, the state that makes them one, and in how many places something could not be read. Only what is served is
/// taken, or everything; after damage nothing more if that is not to be left out.
fn copy(
    files: &Arc<dyn Files>,
    old: &Log,
    newest: u64,
    options: DiskOptions,
    exact: bool,
    without_damaged: bool,
) -> io::Result<(Arc<Durable>, State, u64)> {
    let epoch = loop {
        let epoch = Epoch(files.random()?);
        if epoch != old.epoch {
            break epoch;
        }
    };
    // Nothing is to be saved on the way: with all numbers reserved there is no reason to.
    let state = State { reserved: u64::MAX, ..State::new(epoch) };
    let durable = Arc::new(Durable::unsaved(files.clone(), state)?);
    let rules = Rules::new(Limits::new(u64::MAX, u64::MAX, None), &[], std::iter::empty());
    let classes = rules.classes().len();
    let ledger = Ledger::new(rules.classes(), &vec![0; classes]);
    let view = View { segments: std::collections::VecDeque::new(), active: None, head: 0, ledger, gaps: Vec::new(), changes: 0 };
    let gone = (0..classes).map(|class| Gone::blank(class, 0, 0)).collect();
    let log =
        Arc::new(Log::new(Arc::new(Cached::new(files.clone())), epoch, rules, view, Latest::new(0, 0, super::ledger::bytes_of), gone));
    let keyring = Arc::new(Keyring::new(epoch, options.keys, Found::default(), 0));
    let keeper = Keeper::new(log.clone(), durable.clone(), keyring.clone());
    let mut writer = Writer {
        log: log.clone(),
        durable: durable.clone(),
        keyring,
        queue: Arc::default(),
        follower: Arc::default(),
        options,
        finished: Box::new(|| ()),
        file: None,
        prior: (newest, HEADER as u64),
        given: 0,
        kept: 0,
        accepted_at: 0,
        refusing: None,
        taken: 0,
        patience: std::time::Duration::ZERO,
    };
    let filter = Filter::new(Matchers::all(), &Grant::full());
    let (mut after, head) = old.extent();
    let (sight, mut damaged) = (old.sight(), 0);
    let served = |record: &Record| !exact || old.serves(&sight, record.position().sequence, record.topics());
    while after < head {
        let page = PageLimits { bytes: limits::TAKEN_BYTES, events: usize::MAX, scanned: usize::MAX };
        let Page { records, covered_through, lost, .. } = old.read_all(after, head, &filter, page, &served)?;
        after = covered_through;
        damaged += u64::from(lost == Some(GapReason::Damaged));
        if damaged > 0 && !without_damaged {
            continue;
        }
        append(&mut writer, &records)?;
        // In memory indexes would grow with the log.
        keeper.write_indexes()?;
    }
    writer.finish()?;
    keeper.write_indexes()?;
    let (head, newest) = (writer.kept, writer.prior);
    Ok((durable, State { closed: true, reserved: head, head, last: head, newest, ..State::new(epoch) }, damaged))
}

/// As if they were published now, at the time at which they were.
fn append(writer: &mut Writer, records: &[Record]) -> io::Result<()> {
    let (mut group, mut answers) = (Vec::new(), Vec::new());
    for run in records.chunk_by(|one, next| one.accepted_at() == next.accepted_at()) {
        let (answer, answered) = oneshot::channel();
        let drafts = run.iter().map(Record::redraft).collect();
        group.push(Waiting { drafts, key: None, now: run[0].accepted_at(), answer });
        answers.push(answered);
    }
    writer.commit(group);
    let refused = |error: StoreError| match error {
        StoreError::NoSpace => io::Error::from(io::ErrorKind::StorageFull),
        other => io::Error::other(other.to_string()),
    };
    answers.into_iter().try_for_each(|mut answered| {
        let lost = |_| store_error(&io::Error::other("the writer is gone"));
        answered.try_recv().map_err(lost).and_then(|answer| answer.map(drop)).map_err(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{aside, assemble, simulated::Simulated};
    use tidings_core::Event;

    fn events(disk: &Simulated) -> (Epoch, Vec<(u64, String, u64)>) {
        let parts =
            assemble(Arc::new(disk.clone()), DiskOptions { retention_age: None, ..DiskOptions::default() }, Box::new(|| ())).unwrap();
        let filter = Filter::new(Matchers::all(), &Grant::full());
        let bounds = parts.log.bounds();
        let (mut events, mut after) = (Vec::new(), bounds.floor);
        while after < bounds.head {
            let page = PageLimits { bytes: 10_000, events: 100, scanned: 1_000 };
            let page = parts.log.read_beyond(after, bounds.head, &filter, &[], page).unwrap();
            assert!(page.lost.is_none());
            events.extend(page.records.iter().map(|record| (record.position().sequence, record.data().into_owned(), record.accepted_at())));
            after = page.covered_through;
        }
        (parts.log.epoch, events)
    }

    fn filled() -> Simulated {
        let disk = Simulated::new(1, None);
        for life in 0..3u64 {
            let options = DiskOptions { segment_bytes: 1_500, retention_age: None, ..DiskOptions::default() };
            let mut parts = assemble(Arc::new(disk.clone()), options, Box::new(|| ())).unwrap();
            for n in 0..20 {
                let (answer, mut answered) = oneshot::channel();
                let event = Event::new("a", format!("{life} {n}")).unwrap();
                parts.writer.commit(vec![Waiting { drafts: Record::draft(event).into(), key: None, now: 100 * life + n / 2, answer }]);
                answered.try_recv().unwrap().unwrap();
            }
            parts.keeper.work(None);
            disk.kill();
        }
        disk
    }

    /// Every event with its time, renumbered; nothing of the old log is left.
    #[test]
    fn all_events_under_a_new_epoch() {
        let disk = filled();
        let (old, before) = events(&disk.copy());
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let Begun::New { epoch, events: count, damaged: 0 } = begin_new(&files, None, false).unwrap() else { panic!("all can be read") };
        assert_ne!(epoch, old);
        disk.kill();
        assert_eq!(disk.names().unwrap().iter().filter(|name| serial_of(name, "log").is_some()).count(), 1);
        let (now, after) = events(&disk);
        assert_eq!((now, count), (epoch, before.len() as u64));
        let renumbered = before.into_iter().zip(1..).map(|((_, data, time), n)| (n, data, time));
        assert!(after.into_iter().eq(renumbered));
    }

    /// Whenever the power goes, or an operation fails: it is the old log or the new one, and all of it.
    #[test]
    fn one_or_the_other_after_a_crash() {
        let filled = filled();
        let (old, before) = events(&filled.copy());
        let data = |events: &[(u64, String, u64)]| events.iter().map(|(_, data, _)| data.clone()).collect::<Vec<_>>();
        let mut seen = [0; 2];
        for operations in 0..200 {
            for way in ["crash", "failure"] {
                let disk = filled.copy();
                let files: Arc<dyn Files> = Arc::new(disk.clone());
                if way == "crash" {
                    disk.crash_after(operations);
                    let _ = begin_new(&files, None, false);
                    disk.crash();
                } else {
                    disk.fail_one_in(operations + 2);
                    let _ = begin_new(&files, None, false);
                    disk.kill();
                }
                let (epoch, after) = events(&disk);
                assert_eq!(data(&after), data(&before), "{way} {operations}");
                seen[usize::from(epoch != old)] += 1;
            }
        }
        assert!(seen.iter().all(|&count| count > 20), "{seen:?}");
    }

    fn served(disk: &Simulated) -> (Epoch, Vec<String>, Vec<String>) {
        let log = assemble(Arc::new(disk.clone()), aside::tests::options(), Box::new(|| ())).unwrap().log;
        let (latest, all) = aside::tests::served(&log);
        (log.epoch, latest, all)
    }

    /// Whether all of some are among others, in this order.
    fn in_order(some: &[String], others: &[String]) -> bool {
        let mut others = others.iter();
        some.iter().all(|one| others.any(|other| other == one))
    }

    /// Z-30: what is kept as the latest of its kind goes along, whether it stands aside or is hidden by its class, and it goes on being kept.
    #[test]
    fn what_is_the_latest_goes_along() {
        let disk = Simulated::new(1, None);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        aside::tests::fill(&files);
        disk.kill();
        let (old, latest, all) = served(&disk.copy());
        let kept = [0, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(|n| format!("k/{n} first {n}"));
        assert!(latest.iter().eq(kept.iter().chain([&"k/1 second 1".to_owned()])), "{latest:?}");
        begin_new(&files, None, false).unwrap();
        disk.kill();
        assert!(disk.names().unwrap().iter().all(|name| serial_of(name, "log").is_none_or(|serial| serial & ASIDE == 0)));
        for _ in 0..2 {
            let (epoch, latest_now, all_now) = served(&disk);
            assert_ne!(epoch, old);
            assert_eq!(latest_now, latest);
            assert!(in_order(&all, &all_now), "{all_now:?} instead of {all:?}");
            disk.kill();
        }
    }

    /// With the hub's rules, or where none can matter, nothing comes back that retention took from readers and not yet from disk.
    #[test]
    fn what_was_no_longer_served_stays_away() {
        let disk = Simulated::new(1, None);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        aside::tests::fill(&files);
        disk.kill();
        let (_, latest, all) = served(&disk.copy());
        let begun = begin_new(&files, Some(aside::tests::options()), false).unwrap();
        assert!(matches!(begun, Begun::New { events, damaged: 0, .. } if events == all.len() as u64), "{begun:?}");
        disk.kill();
        let (_, latest_now, all_now) = served(&disk);
        assert!(latest_now == latest && all_now == all, "{all_now:?} instead of {all:?}");

        let disk = filled();
        let options = DiskOptions { retention_events: 25, retention_age: None, ..DiskOptions::default() };
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        drop(assemble(files.clone(), options.clone(), Box::new(|| ())).unwrap());
        begin_new(&files, Some(options), false).unwrap();
        disk.kill();
        assert_eq!(events(&disk).1.len(), 25);
    }

    /// N-14: what cannot be read is not left out without being asked for, and then it is counted.
    #[test]
    fn damage_is_left_out_only_if_told_to() {
        let disk = filled();
        let (old, before) = events(&disk.copy());
        let name = crate::store::disk::format::segment_name(2);
        disk.damage(&name, |contents| contents[150..160].fill(0xff));
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let names = || files.names().unwrap().into_iter().filter(|name| serial_of(name, "log").is_some()).collect::<Vec<_>>();
        let then = names();
        assert_eq!(begin_new(&files, None, false).unwrap(), Begun::Damaged(1));
        disk.kill();
        assert_eq!(names(), then, "it is the old log, and all of it");
        let Begun::New { epoch, events: count, damaged: 1 } = begin_new(&files, None, true).unwrap() else { panic!("it was told to") };
        disk.kill();
        let (now, after) = events(&disk);
        assert!(now == epoch && now != old && after.len() as u64 == count && after.len() < before.len(), "{count}");
    }

    /// Whenever the power goes, or an operation fails, with events that stand aside: nothing that was served is missing.
    #[test]
    fn what_is_the_latest_survives_a_crash() {
        let filled = Simulated::new(1, None);
        let files: Arc<dyn Files> = Arc::new(filled.clone());
        aside::tests::fill(&files);
        filled.kill();
        let (old, latest, all) = served(&filled.copy());
        let mut seen = [0; 2];
        for operations in 0..80 {
            for crash in [true, false] {
                let disk = filled.copy();
                let files: Arc<dyn Files> = Arc::new(disk.clone());
                if crash {
                    disk.crash_after(operations);
                } else {
                    disk.fail_one_in(operations + 2);
                }
                let _ = begin_new(&files, None, false);
                if crash {
                    disk.crash();
                } else {
                    disk.kill();
                }
                let (epoch, latest_now, all_now) = served(&disk);
                assert_eq!(latest_now, latest, "{operations}");
                assert!(in_order(&all, &all_now), "{operations}: {all_now:?} instead of {all:?}");
                seen[usize::from(epoch != old)] += 1;
            }
        }
        assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
    }
}
