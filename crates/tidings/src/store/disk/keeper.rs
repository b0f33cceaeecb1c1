//! The second thread: writes the indexes of finished segments, and removes what retention no longer wants.
//!
//! It never writes events, and takes none away before it is on disk that they are gone.

use super::{
    DiskOptions, evicted,
    files::{File, Files},
    format::{FOOTER, index_name, segment_name},
    index::{About, FileIndex},
    keyring::Keyring,
    log::Log,
    scan::{End, scan},
    segment::{Kept, Segment},
    state::Durable,
};
use std::{
    io,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Age is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// A wall clock that runs ahead of the monotonic one by more than this says nothing about the age of events.
const JUMP: Duration = Duration::from_hours(1);

/// The keeper's own state.
#[derive(Debug)]
pub(super) struct Keeper {
    log: Arc<Log>,
    durable: Arc<Durable>,
    keyring: Arc<Keyring>,
    options: DiskOptions,
    /// Both clocks when it began.
    began: (Instant, Duration),
    jumped: bool,
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Keeper {
    pub(super) fn new(log: Arc<Log>, durable: Arc<Durable>, keyring: Arc<Keyring>, options: DiskOptions) -> Keeper {
        Keeper { log, durable, keyring, options, began: (Instant::now(), wall()), jumped: false }
    }

    /// Works whenever it is told to, and now and then, until nobody is left to tell it.
    pub(super) fn run(mut self, told: &mpsc::Receiver<()>) {
        while !matches!(told.recv_timeout(LOOK), Err(mpsc::RecvTimeoutError::Disconnected)) {
            let now = self.now();
            self.work(now);
        }
    }

    /// The time, unless the clock jumped ahead.
    fn now(&mut self) -> Option<u64> {
        let now = wall();
        let ahead = now.saturating_sub(self.began.1 + self.began.0.elapsed());
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

    /// One round: indexes, then retention. `now` is the time in milliseconds since 1970, if it is known.
    pub(super) fn work(&self, now: Option<u64>) {
        if let Err(error) = self.write_indexes() {
            // In memory they serve as well; the next round tries again.
            tracing::warn!(%error, "an index could not be written");
        }
        if let Err(error) = self.retain(now) {
            tracing::warn!(%error, "old events could not be removed");
        }
        self.keyring.clean(&*self.log.files, now);
    }

    fn write_indexes(&self) -> io::Result<()> {
        let segments: Vec<Arc<Segment>> = self.log.view().segments.iter().cloned().collect();
        for segment in segments {
            let Kept::Memory(index) = segment.kept() else { continue };
            let (serial, first) = (segment.header.serial, segment.header.first);
            // Before the index, which says that they are there.
            let keys = self.keyring.write(&*self.log.files, serial, first, segment.last)?;
            let about = About {
                epoch: self.log.epoch,
                first,
                len: segment.len,
                accepted_at: segment.accepted_at,
                count: segment.count() as u32,
                keys,
            };
            index.save(&*self.log.files, serial, &about)?;
            segment.set_kept(Kept::File(Arc::new(FileIndex::open(&*self.log.files, serial)?)));
        }
        Ok(())
    }

    fn retain(&self, now: Option<u64>) -> io::Result<()> {
        let files = &*self.log.files;
        let size = |name: &str| files.open(name).and_then(|file| file.len()).unwrap_or(0);
        let (mut segments, active, floor) = {
            let view = self.log.view();
            (view.segments.clone(), view.active.as_ref().map_or(0, |active| active.len), view.floor)
        };
        let sizes = segments.iter().map(|segment| segment.len + FOOTER as u64 + size(&index_name(segment.header.serial)));
        let mut sizes: std::collections::VecDeque<u64> = sizes.collect();
        let mut total = active + sizes.iter().sum::<u64>();
        while let Some(segment) = segments.pop_front() {
            let too_old = match (now, self.options.retention_age) {
                (Some(now), Some(age)) => u128::from(now.saturating_sub(segment.accepted_at)) > age.as_millis(),
                _ => false,
            };
            if total <= self.options.retention_bytes && !too_old && segment.last > floor {
                break;
            }
            self.remove(&segment, now)?;
            total -= sizes.pop_front().unwrap_or(0);
        }
        Ok(())
    }

    /// Removes the oldest segment. What it held is remembered by audience and by key, and that it is gone is on disk before it is gone.
    fn remove(&self, segment: &Segment, now: Option<u64>) -> io::Result<()> {
        let files = &*self.log.files;
        let name = segment_name(segment.header.serial);
        let file: Arc<dyn File> = files.open(&name)?;
        scan(&*file, &segment.header, End::Known(segment.len), |record| self.log.evicted().push(record))?;
        evicted::save(files, self.log.epoch, segment.last, &self.log.evicted());
        let carry = self.keyring.carry(files, segment.header.serial, segment.header.first, segment.last, now)?;
        // This syncs all names, that of the carried keys among them.
        self.durable.update(|state| state.removed = segment.last)?;
        self.keyring.settle(files, carry);
        {
            let mut view = self.log.view();
            let hidden = view.floor.max(segment.header.first - 1).min(segment.last);
            view.events -= segment.last - hidden;
            view.floor = view.floor.max(segment.last);
            view.segments.retain(|other| other.header.serial != segment.header.serial);
        }
        files.remove(&name)?;
        // One that was never written is no loss.
        let _ = files.remove(&index_name(segment.header.serial));
        Ok(())
    }
}
