//! The keys of the log (N-6): the table that the writer asks, and beside each finished segment a file with the keys of its appends.
//!
//! While a segment is there as it was written, its file only saves reading it through at a start: it is derived, and never synced. When retention
//! removes the segment, or it is rewritten, the keys that still count are written again and synced first, and the file stays: it is then the only
//! place they are in.
//!
//! It knows digests and numbers of the log, neither events nor what retention wants.

use super::{
    files::{Files, Why, read_whole},
    format::{GENERATION, VERSION, check_version, invalid, keys_name, place_of, serial_of, u32_at, u64_at},
};
use crate::store::keys::{Entry, Keys};
use crate::store::{KeyWindow, OnceKey};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tidings_core::Epoch;

const MAGIC: &[u8; 8] = b"TIDKEYS\n";
const HEADER: usize = 32;
const ENTRY: usize = 64;
/// With so many files of segments that are gone the next one takes all of their keys over: a day of small segments must not fill the
/// directory, and a key is not written again more often than once per so many segments.
#[cfg(not(test))]
const MANY: usize = 64;
/// Few enough that the trials come to it.
#[cfg(test)]
const MANY: usize = 3;

/// The part of an append that holds its key.
pub(super) const KEY: usize = 48;

impl OnceKey {
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        to.extend(self.name);
        to.extend(self.request);
    }

    /// Reads it back from the beginning of an append's body; `None` for what a later version may have put there.
    pub(super) fn parse(part: &[u8]) -> Option<OnceKey> {
        let (name, request) = part.split_first_chunk()?;
        Some(OnceKey { name: *name, request: request.try_into().ok()? })
    }
}

/// The keys of a log on disk.
#[derive(Debug)]
pub(super) struct Keyring {
    epoch: Epoch,
    table: Mutex<Keys>,
    /// Files that are the only place of their keys: of segments that are gone or were rewritten.
    carried: Mutex<Vec<Carried>>,
}

/// A file of a segment that is gone or was rewritten.
#[derive(Clone, Copy, Debug)]
struct Carried {
    serial: u64,
    /// The sequence of its newest key.
    newest: u64,
}

/// What is to be done once it is on disk that a segment is gone.
#[derive(Debug, Default)]
pub(super) struct Carry {
    file: Option<Carried>,
    obsolete: Vec<u64>,
}

impl Keyring {
    /// Everything that was found, in any order and perhaps more than once. `head` is the newest number there can be.
    pub(super) fn new(epoch: Epoch, window: KeyWindow, found: Found, head: u64) -> Keyring {
        let Found { mut entries, carried } = found;
        entries.retain(|entry| entry.first <= head);
        entries.sort_unstable_by_key(|entry| entry.first);
        entries.dedup_by_key(|entry| entry.first);
        let mut table = Keys::new(window);
        for entry in entries {
            table.push(entry);
        }
        Keyring { epoch, table: Mutex::new(table), carried: Mutex::new(carried) }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Keys> {
        // Nothing in here panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carried(&self) -> MutexGuard<'_, Vec<Carried>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the keys of a finished segment beside it, if it has any; how many.
    pub(super) fn write(&self, files: &dyn Files, serial: u64, first: u64, last: u64) -> io::Result<u32> {
        let entries: Vec<Entry> = self.table().range(first, last).copied().collect();
        if !entries.is_empty() {
            save(files, self.epoch, serial, &entries)?;
        }
        Ok(entries.len() as u32)
    }

    /// Puts the keys of a segment that is to be removed on disk. The name of their file has to be there too before the segment goes; then
    /// the caller settles what this gives.
    pub(super) fn carry(&self, files: &dyn Files, serial: u64, first: u64, last: u64, now: Option<u64>) -> io::Result<Carry> {
        // Those of segments that were rewritten and are still there do not count.
        let merges = self.carried().iter().filter(|carried| carried.newest < first).count() >= MANY;
        match (serial >= GENERATION, merges) {
            // Carried when it was rewritten. All others' keys need a file of another name.
            (true, false) => Ok(Carry::default()),
            (true, true) => self.carry_from(files, serial + GENERATION, 0, last, now),
            (false, merges) => self.carry_from(files, serial, if merges { 0 } else { first }, last, now),
        }
    }

    /// The same for a segment that is to be rewritten, under another serial.
    pub(super) fn carry_on(&self, files: &dyn Files, from: u64, to: u64, first: u64, last: u64, now: Option<u64>) -> io::Result<Carry> {
        if from >= GENERATION {
            return Ok(Carry::default());
        }
        let mut carry = self.carry_from(files, to, first, last, now)?;
        // Until the name of the old segment is gone from the disk it can be read through, so this one is of no more use.
        carry.obsolete.push(from);
        Ok(carry)
    }

    /// The same for a segment that is to be gone and is still there after a crash. A file that checks stays as it is: it was synced, and may
    /// hold the keys of others that are gone.
    pub(super) fn carry_again(&self, files: &dyn Files, serial: u64, first: u64, last: u64) -> io::Result<Option<Carry>> {
        if serial >= GENERATION { Ok(None) } else { self.carry_from(files, serial, first, last, None).map(Some) }
    }

    /// Keys from one sequence up to another, in a file of their own. With those of all others before, if it begins at 0.
    fn carry_from(&self, files: &dyn Files, serial: u64, from: u64, last: u64, now: Option<u64>) -> io::Result<Carry> {
        // It was synced, and there may be no other place of its keys.
        if self.carried().iter().any(|carried| carried.serial == serial && carried.newest > 0) {
            return Ok(Carry::default());
        }
        let entries: Vec<Entry> = {
            let mut table = self.table();
            if let Some(now) = now {
                table.forget(now);
            }
            table.range(from, last).copied().collect()
        };
        let others = |carried: &Carried| from == 0 && carried.serial != serial && carried.newest <= last;
        let mut obsolete: Vec<u64> = self.carried().iter().filter(|carried| others(carried)).map(|carried| carried.serial).collect();
        let file = entries.last().map(|newest| Carried { serial, newest: newest.first });
        if file.is_some() {
            save(files, self.epoch, serial, &entries)?.sync(Why::Carried)?;
        } else {
            obsolete.push(serial);
        }
        Ok(Carry { file, obsolete })
    }

    /// What was carried over is the only place now, and what it replaces can go.
    pub(super) fn settle(&self, files: &dyn Files, carry: Carry) {
        let mut carried = self.carried();
        carried.retain(|known| !carry.obsolete.contains(&known.serial) && carry.file.is_none_or(|file| file.serial != known.serial));
        carried.extend(carry.file);
        for serial in carry.obsolete {
            let _ = files.remove(&keys_name(serial));
        }
    }

    /// Forgets what is over, files included.
    pub(super) fn clean(&self, files: &dyn Files, now: Option<u64>) {
        let mut table = self.table();
        if let Some(now) = now {
            table.forget(now);
        }
        let oldest = table.oldest();
        drop(table);
        self.carried().retain(|carried| {
            let counts = oldest.is_some_and(|oldest| oldest <= carried.newest);
            if !counts {
                let _ = files.remove(&keys_name(carried.serial));
            }
            counts
        });
    }
}

/// What was found at a start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    carried: Vec<Carried>,
}

impl Found {
    /// Reads the files that are not beside a segment as it was written, newest first, as long as there is room for their keys. One that does not check costs its
    /// keys and nothing else: who comes again with one of them publishes twice.
    pub(super) fn read_carried(&mut self, files: &dyn Files, epoch: Epoch, most: usize, is_there: impl Fn(u64) -> bool) -> io::Result<()> {
        let mut serials: Vec<u64> = files.names()?.iter().filter_map(|name| serial_of(name, "keys")).collect();
        serials.retain(|&serial| !is_there(serial));
        serials.sort_unstable_by_key(|&serial| std::cmp::Reverse((place_of(serial), serial)));
        for serial in serials {
            let mut file = Carried { serial, newest: 0 };
            if self.entries.len() < most {
                match load(files, epoch, serial) {
                    Ok(entries) => {
                        file.newest = entries.last().map_or(0, |newest| newest.first);
                        self.entries.extend(entries);
                    }
                    Err(error) => {
                        tracing::error!(%error, serial, "a file of idempotency keys does not check; requests that used them count as new");
                    }
                }
            }
            self.carried.push(file);
        }
        Ok(())
    }
}

/// Writes a file of keys, replacing the one that is there: the segment they are from is still there too.
fn save(files: &dyn Files, epoch: Epoch, serial: u64, entries: &[Entry]) -> io::Result<std::sync::Arc<dyn super::files::File>> {
    let mut bytes = Vec::with_capacity(HEADER + ENTRY * entries.len() + 4);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(epoch.0.to_le_bytes());
    bytes.extend(serial.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for Entry { key, first, at } in entries {
        key.put(&mut bytes);
        bytes.extend(first.to_le_bytes());
        bytes.extend(at.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let name = keys_name(serial);
    let _ = files.remove(&name);
    let file = files.create(&name)?;
    file.write_at(&bytes, 0)?;
    Ok(file)
}

/// The keys in a file, in the order of the log.
pub(super) fn load(files: &dyn Files, epoch: Epoch, serial: u64) -> io::Result<Vec<Entry>> {
    let bytes = read_whole(files, &keys_name(serial))?;
    let (contents, checksum) = bytes.split_at(bytes.len().saturating_sub(4));
    if contents.len() < HEADER || contents[..8] != *MAGIC || crc32c::crc32c(contents) != u32_at(checksum, 0) {
        return Err(invalid("a file of keys does not check"));
    }
    check_version(contents, "a file of keys")?;
    let entries = &contents[HEADER..];
    let whole = entries.len() as u64 == u64_at(contents, 24).saturating_mul(ENTRY as u64);
    if u32_at(contents, 12) != epoch.0 || u64_at(contents, 16) != serial || !whole {
        return Err(invalid("a file of keys is another log's or another segment's"));
    }
    let entry = |bytes: &[u8]| Some(Entry { key: OnceKey::parse(&bytes[..KEY])?, first: u64_at(bytes, KEY), at: u64_at(bytes, KEY + 8) });
    entries.chunks_exact(ENTRY).map(|bytes| entry(bytes).ok_or_else(|| invalid("a file of keys does not check"))).collect()
}
