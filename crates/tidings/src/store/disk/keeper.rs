//! The second thread: writes the indexes of finished segments, removes what retention no longer wants, and rewrites segments of which little
//! is left.
//!
//! It never writes events, and takes none away before it is on disk that they are gone.

use super::{
    aside::{self, ASIDE},
    evicted,
    files::Files,
    format::{index_name, segment_name},
    index::{About, FileIndex},
    keyring::Keyring,
    ledger::{self, Run},
    log::Log,
    rewrite::{Pace, Rewriter},
    room::Fill,
    segment::{Kept, Segment},
    standing,
    state::Durable,
};
use crate::store::{PageLimits, retention::Class};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tidings_core::{Filter, Grant, Matchers, Record, limits, shard::Page};

/// Age is looked at this often.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// A wall clock that runs ahead of the monotonic one by more than this says nothing about the age of events.
const JUMP: Duration = Duration::from_hours(1);

/// The keeper's own state.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) log: Arc<Log>,
    durable: Arc<Durable>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) rewriter: RefCell<Rewriter>,
    /// Both clocks when it began.
    began: (Instant, Duration),
    jumped: bool,
}

pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Keeper {
    pub(super) fn new(log: Arc<Log>, durable: Arc<Durable>, keyring: Arc<Keyring>) -> Keeper {
        Keeper { log, durable, keyring, rewriter: RefCell::default(), began: (Instant::now(), wall()), jumped: false }
    }

    /// Works whenever it is told to, and now and then, until nobody is left to tell it; without a pause while the log takes more than it may.
    pub(super) fn run(mut self, told: &mpsc::Receiver<()>) {
        let mut pace = Pace::new();
        let mut at_once = self.log.fill() > Fill::Within;
        loop {
            let pause = if at_once { Duration::ZERO } else { LOOK };
            if matches!(told.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Disconnected)) {
                return;
            }
            told.try_iter().for_each(drop);
            let now = self.now(wall(), self.began.0.elapsed());
            at_once = self.round(&mut pace, Instant::now(), now);
        }
    }

    /// What is to be done now; whether there is more to do at once.
    pub(super) fn round(&self, pace: &mut Pace, moment: Instant, now: Option<u64>) -> bool {
        self.tidy(now);
        let more = pace.go_on(moment, self.log.fill(), |bytes| self.rewrite(bytes, now));
        if !more && (self.log.fill() == Fill::Full || self.rewriter.borrow().failed()) {
            // Somebody may be waiting for what rewriting cannot give.
            self.tidy(now);
        }
        more
    }

    /// The time in milliseconds, unless the clock jumped ahead: what it shows now, and the time that really passed since the beginning.
    pub(super) fn now(&mut self, now: Duration, passed: Duration) -> Option<u64> {
        let ahead = now.saturating_sub(self.began.1 + passed);
        if (ahead > JUMP) != self.jumped {
            self.jumped = !self.jumped;
            if self.jumped {
                tracing::warn!(
                    seconds = ahead.as_secs(),
                    "the clock jumped ahead; nothing is removed for its age until it is right or the hub restarts"
                );
            } else {
                tracing::info!("the clock is right again; age counts again");
            }
        }
        (!self.jumped).then_some(now.as_millis() as u64)
    }

    /// All that there is to do, at once.
    pub(super) fn work(&self, now: Option<u64>) {
        loop {
            self.tidy(now);
            match self.rewrite(u64::MAX, now) {
                Ok(0) => return,
                // There may be segments now of which nothing is left.
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a segment could not be rewritten");
                    return self.tidy(now);
                }
            }
        }
    }

    /// One round: indexes, then retention. `now` is the time in milliseconds since 1970, if it is known.
    pub(super) fn tidy(&self, now: Option<u64>) {
        match self.write_indexes() {
            Ok(false) => {}
            Ok(true) => {
                self.write_books();
                standing::save(&self.log);
            }
            // In memory they serve as well; the next round tries again.
            Err(error) => tracing::warn!(%error, "an index could not be written"),
        }
        let retained = self.retain(now).or_else(|error| {
            // The new state is on disk before anything goes, and there may not even be room for that.
            let no_room = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            if no_room && self.remove_something_derived() { self.retain(now) } else { Err(error) }
        });
        if let Err(error) = retained {
            tracing::warn!(%error, "old events could not be removed");
        }
        self.keyring.clean(&*self.log.files, now);
    }

    pub(super) fn write_books(&self) {
        let (ledger, finished) = {
            let view = self.log.view();
            (view.ledger.clone(), view.segments.iter().map(|segment| (segment.header.serial, segment.len)).collect())
        };
        ledger::save(&*self.log.files, self.log.epoch, &self.log.rules, &ledger, &finished);
    }

    /// Whether there was one to write.
    pub(super) fn write_indexes(&self) -> io::Result<bool> {
        let mut wrote = false;
        let segments: Vec<Arc<Segment>> = self.log.view().segments.iter().cloned().collect();
        for segment in segments {
            // What stands aside is small, and has no index of its own on disk; nor has what little is left of others.
            let Kept::Memory(index) = segment.kept() else { continue };
            if segment.header.serial & ASIDE != 0 || segment.is_small() {
                continue;
            }
            let (serial, first) = (segment.header.serial, segment.header.first);
            // Before the index, which says that they are there. Those of a segment that was rewritten are on disk already.
            let rewritten = segment.header.rewritten.is_some();
            let keys = if rewritten { 0 } else { self.keyring.write(&*self.log.files, serial, first, segment.last)? };
            let about = About {
                epoch: self.log.epoch,
                first,
                len: segment.len,
                accepted_at: segment.accepted_at,
                count: index.offsets.len() as u32,
                keys,
            };
            index.save(&*self.log.files, serial, &about)?;
            segment.set_kept(Kept::File(Arc::new(FileIndex::open(&*self.log.files, serial)?)));
            wrote = true;
        }
        Ok(wrote)
    }

    /// Moves the floors of the classes on, and gives back the space of segments that nothing is left of. All classes together take no more than
    /// all of them may and a little: what one has removed holds space until the others have removed what stands in the same segments, or these
    /// are rewritten. Where that cannot be, or is too slow, the oldest go as they are.
    fn retain(&self, now: Option<u64>) -> io::Result<()> {
        let classes = self.log.rules.classes();
        let sizes = self.sizes();
        let due: Vec<u64> = {
            let view = self.log.view();
            let spared = view.active.as_ref().map(|active| active.header.serial);
            // What a run takes on disk is its part of its segment's files.
            let cost = |run: &Run| match (sizes.get(&run.segment), view.ledger.written_of(run.segment)) {
                (Some(size), written) if written > 0 => (u128::from(run.bytes) * u128::from(*size) / u128::from(written)) as u64,
                _ => run.bytes,
            };
            let due = |(class, Class { limits, .. }): (usize, &Class)| {
                let before = now.zip(limits.age_ms).map(|(now, age)| now.saturating_sub(age));
                // The first class keeps what is in the segment being written.
                view.ledger.due(class, *limits, before, cost, spared.filter(|_| class == 0))
            };
            classes.iter().enumerate().map(due).collect()
        };
        self.give_back(&due, now)?;
        if let Some(bound) = self.last_resort() {
            let mut taken = self.log.taken();
            let oldest: Vec<Arc<Segment>> =
                self.log.view().segments.iter().filter(|segment| segment.header.serial & ASIDE == 0).cloned().collect();
            let goes = oldest.into_iter().take_while(|segment| {
                let goes = taken > bound;
                taken = taken.saturating_sub(segment.taken());
                goes
            });
            let through = goes.last().map_or(0, |segment| segment.last);
            self.give_back(&vec![through; classes.len()], now)?;
            self.log.room.settle();
            self.rewriter.borrow_mut().relieve();
        }
        self.log.room.tell();
        Ok(())
    }

    /// Removes the events of each class up to a place, and the oldest segments as long as nothing is left of them.
    fn give_back(&self, due: &[u64], now: Option<u64>) -> io::Result<()> {
        self.retire(due)?;
        while let Some(segment) = self.oldest_if_empty() {
            self.remove(&segment, now)?;
        }
        Ok(())
    }

    /// Bytes of the files of each segment, by serial.
    fn sizes(&self) -> BTreeMap<u64, u64> {
        let view = self.log.view();
        let active = view.active.as_ref().map(|active| (active.header.serial, active.len));
        let segments = view.segments.iter().filter(|segment| segment.header.serial & ASIDE == 0);
        segments.map(|segment| (segment.header.serial, segment.taken())).chain(active).collect()
    }

    /// Removes the events of each class up to a place: they are remembered by audience, and that they are gone is on disk before they are no
    /// longer served or their space is taken.
    fn retire(&self, due: &[u64]) -> io::Result<()> {
        let log = &self.log;
        let through: Vec<u64> = {
            let view = log.view();
            // What is hidden by number is removed when that may empty a segment.
            let whole = |hidden: u64| {
                let at = view.segments.partition_point(|segment| segment.last <= hidden);
                at.checked_sub(1).map_or(0, |at| view.segments[at].last)
            };
            view.ledger.floors().zip(due).map(|(hidden, &due)| if due > hidden { due } else { whole(hidden) }).collect()
        };
        self.take_back(&through)
    }

    /// Removes the events of each class up to a place.
    pub(super) fn take_back(&self, through: &[u64]) -> io::Result<()> {
        let (log, mut moved) = (&self.log, false);
        for (class, &through) in through.iter().enumerate() {
            let from = {
                let gone = &mut log.gone()[class];
                // From now on what was the latest of its kind is noted when it is replaced.
                gone.noted = gone.noted.max(through);
                gone.through
            };
            if from < through {
                self.note(class, from, through)?;
                moved = true;
            }
        }
        if !moved {
            return Ok(());
        }
        let (bytes, removed): (_, Vec<(u64, u64)>) = {
            let gone = log.gone();
            let removed = gone.iter().map(|gone| (gone.noted, gone.foreign)).collect();
            (evicted::to_bytes(log.epoch, &log.rules, &gone), removed)
        };
        // Without the lock: the writer takes it to show what it wrote, and readers wait for that.
        evicted::save(&*log.files, &bytes);
        self.durable.update(|state| {
            for (class, (through, foreign)) in state.classes.iter_mut().zip(&removed) {
                (class.through, class.foreign) = (*through, *foreign);
            }
        })?;
        let mut view = log.view();
        for ((class, gone), (through, _)) in log.gone().iter_mut().enumerate().zip(&removed) {
            gone.through = *through;
            view.ledger.raise(class, *through);
        }
        Ok(())
    }

    /// Remembers the audiences of a class's events between two places.
    fn note(&self, class: usize, from: u64, through: u64) -> io::Result<()> {
        let log = &self.log;
        let filter = Filter::new(Matchers::from(log.rules.classes()[class].matcher.clone()), &Grant::full());
        let limits = PageLimits { bytes: 1 << 20, events: limits::PAGE_SCAN, scanned: limits::PAGE_SCAN };
        let is_gone = |record: &Record| log.rules.class_of(record.topics()) == class && !log.is_latest(record.position().sequence);
        let mut page = Page::new(Vec::new(), from);
        while page.covered_through < through {
            let at = page.covered_through;
            page = Page::new(Vec::new(), at);
            log.read_on(&mut page, through, &filter, limits, &is_gone)?;
            if page.covered_through == at {
                // The next event cannot be read: whoever wanted it is told of damage.
                page.covered_through = at + 1;
            }
            let gone = &mut log.gone()[class];
            page.records.iter().for_each(|record| gone.push(&log.rules, class, record));
        }
        Ok(())
    }

    /// Makes a little room: what follows from the segments can be made again. Whether there was anything.
    fn remove_something_derived(&self) -> bool {
        let serials: Vec<u64> = self.log.view().segments.iter().map(|segment| segment.header.serial).collect();
        let derived = serials.into_iter().map(index_name).chain([ledger::NAME.into(), standing::NAME.into()]);
        derived.into_iter().any(|name| self.log.files.remove(&name).is_ok())
    }

    /// The oldest segment, if nothing in it is served.
    fn oldest_if_empty(&self) -> Option<Arc<Segment>> {
        let view = self.log.view();
        let oldest = view.segments.iter().find(|segment| segment.header.serial & ASIDE == 0)?;
        // What is hidden by number only is not removed yet.
        let removed = self.log.gone().iter().zip(view.ledger.floors()).all(|(gone, floor)| gone.through >= floor.min(oldest.last));
        (removed && view.ledger.kept_of(oldest.header.serial) == 0).then(|| oldest.clone())
    }

    /// Gives back the space of the oldest segment, whose events are all removed but for those that are the latest of their kind: they are
    /// written again first, with those of segments before it. Its keys are carried over.
    fn remove(&self, segment: &Segment, now: Option<u64>) -> io::Result<()> {
        let files = &*self.log.files;
        let name = segment_name(segment.header.serial);
        let carry = self.keyring.carry(files, segment.header.serial, segment.header.first, segment.last, now)?;
        // This syncs all names, that of the carried keys among them.
        let before = self.log.view().segments.front().filter(|first| first.header.serial & ASIDE != 0).cloned();
        let number = before.as_ref().map_or(0, |before| before.header.serial & !ASIDE) + 1;
        let aside = aside::write(&self.log, segment.last, number)?;
        let named = aside.as_ref().map_or((0, 0), |(_, len)| (number, *len));
        self.durable.update(|state| (state.removed, state.aside) = (segment.last, named))?;
        self.keyring.settle(files, carry);
        {
            let mut view = self.log.view();
            if let Some(before) = &before {
                view.segments.retain(|other| other.header.serial != before.header.serial);
            }
            if let Some((aside, _)) = aside {
                view.segments.push_front(aside);
            }
            view.changes += 1;
            view.ledger.forget(segment.header.serial);
            view.segments.retain(|other| other.header.serial != segment.header.serial);
        }
        if let Some(before) = before {
            let _ = files.remove(&segment_name(before.header.serial));
        }
        files.remove(&name)?;
        // One that was never written is no loss.
        let _ = files.remove(&index_name(segment.header.serial));
        Ok(())
    }
}
