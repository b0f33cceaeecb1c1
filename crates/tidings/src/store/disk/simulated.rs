//! A disk for tests: what was not synced may be lost, torn or reordered by a crash, contents, lengths and names each by itself; operations
//! fail when told to; and everything follows from a seed.
//!
//! A failed sync drops what it should have written: a later one says that all is well, as the kernel does.

use super::files::{File, Files, Why};
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard},
};

const SECTOR: usize = 512;

/// Numbers that only depend on the seed: the generator splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Simulated(Arc<Mutex<Disk>>);

/// Somebody who is told of each operation before it is done, on the thread that waits for it.
#[derive(Clone)]
struct Told(Arc<dyn Fn(Operation) + Send + Sync>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

#[derive(Clone, Debug)]
struct Disk {
    random: Random,
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_after_crash: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    /// A sync that does nothing, to see that it is needed.
    ignored: Option<Why>,
    /// Operations of some kinds that fail, and how.
    refusing: Option<(&'static [Operation], ErrorKind)>,
    /// Operations until the power goes.
    left: Option<u64>,
    /// One operation in so many fails; none at 0.
    failing: u64,
    /// Bytes that all files together have room for.
    capacity: Option<u64>,
    told: Option<Told>,
    /// Files opened before the last crash are gone.
    life: u64,
    gone: bool,
}

/// What can be asked of a disk, and refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Create,
    Write,
    Truncate,
    Sync,
    Rename,
    Remove,
    SyncNames,
    Read,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    contents: Vec<u8>,
    on_disk: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
struct Handle {
    disk: Simulated,
    file: usize,
    life: u64,
}

fn apply(contents: &mut Vec<u8>, change: &Change, mut keep: impl FnMut() -> bool) {
    match change {
        Change::Truncate(len) if keep() => contents.resize(*len, 0),
        Change::Truncate(_) => {}
        Change::Write(at, bytes) => {
            // The length is kept or lost by itself.
            if keep() && contents.len() < at + bytes.len() {
                contents.resize(at + bytes.len(), 0);
            }
            let mut from = 0;
            while from < bytes.len() {
                let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
                if keep() {
                    if contents.len() < at + to {
                        contents.resize(at + to, 0);
                    }
                    contents[at + from..at + to].copy_from_slice(&bytes[from..to]);
                }
                from = to;
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Create(name, file) => drop(names.insert(name.clone(), *file)),
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(name) => drop(names.remove(name)),
    }
}

impl Simulated {
    pub(super) fn new(seed: u64, ignored: Option<Why>) -> Simulated {
        Simulated(Arc::new(Mutex::new(Disk {
            random: Random(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            names_after_crash: BTreeMap::new(),
            unsynced_names: Vec::new(),
            ignored,
            left: None,
            failing: 0,
            refusing: None,
            capacity: None,
            told: None,
            life: 0,
            gone: false,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// From now on this is called before each operation, while nobody else waits for the disk.
    pub(super) fn tell(&self, told: impl Fn(Operation) + Send + Sync + 'static) {
        self.disk().told = Some(Told(Arc::new(told)));
    }

    fn about_to(&self, operation: Operation) {
        let told = self.disk().told.clone();
        if let Some(Told(told)) = told {
            told(operation);
        }
    }

    /// The power goes after so many operations.
    pub(super) fn crash_after(&self, operations: u64) {
        self.disk().left = Some(operations);
    }

    /// Whether the power is there still.
    pub(super) fn has_power(&self) -> bool {
        self.disk().left != Some(0)
    }

    pub(super) fn fail_one_in(&self, many: u64) {
        self.disk().failing = many;
    }

    /// From now on all operations of these kinds fail in this way; none with none.
    pub(super) fn refuse(&self, operations: &'static [Operation], kind: ErrorKind) {
        self.disk().refusing = Some((operations, kind));
    }

    /// From now on it has room for so many bytes.
    pub(super) fn set_capacity(&self, bytes: u64) {
        self.disk().capacity = Some(bytes);
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Another disk with the same contents.
    pub(super) fn copy(&self) -> Simulated {
        Simulated(Arc::new(Mutex::new(self.disk().clone())))
    }

    /// Changes what is in a file.
    pub(super) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let disk = &mut *self.disk();
        let inode = &mut disk.files[disk.names[name]];
        change(&mut inode.contents);
        inode.on_disk.clone_from(&inode.contents);
    }

    /// The directory goes, under whoever has it open.
    pub(super) fn take_away(&self) {
        self.disk().gone = true;
    }

    /// The program ends: what it has written stays, unsynced as it is.
    pub(super) fn kill(&self) {
        let mut disk = self.disk();
        disk.life += 1;
        (disk.left, disk.failing, disk.refusing) = (None, 0, None);
    }

    /// The power goes: of what was not synced anything may be left.
    pub(super) fn crash(&self) {
        self.kill();
        let disk = &mut *self.disk();
        // Of everything something; or nothing of anything, or all of it.
        let mode = disk.random.below(4);
        let random = &mut disk.random;
        let mut keep = || match mode {
            0 => false,
            1 => true,
            _ => random.one_in(2),
        };
        for file in &mut disk.files {
            for change in std::mem::take(&mut file.unsynced) {
                apply(&mut file.on_disk, &change, &mut keep);
            }
            file.contents.clone_from(&file.on_disk);
        }
        for change in std::mem::take(&mut disk.unsynced_names) {
            if keep() {
                apply_name(&mut disk.names_after_crash, &change);
            }
        }
        disk.names.clone_from(&disk.names_after_crash);
    }
}

impl Disk {
    /// One operation more; an error if the power is gone or this one is to fail.
    fn step(&mut self, operation: Operation) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Err(io::Error::other("the power is gone"));
            }
            *left -= 1;
        }
        if let Some((operations, kind)) = self.refusing
            && operations.contains(&operation)
        {
            return Err(io::Error::new(kind, "told to fail"));
        }
        let failing = self.failing;
        if failing > 0 && self.random.one_in(failing) {
            let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other];
            let kind = kinds[self.random.below(3) as usize];
            return Err(io::Error::new(kind, "told to fail"));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&file| self.files[file].contents.len() as u64).sum()
    }

    /// How many of the bytes that a file is to have beyond those it has there is room for, if that is not all of them.
    fn short_of_room(&self, file: usize, end: usize) -> Option<usize> {
        let len = self.files[file].contents.len();
        let free = self.capacity?.saturating_sub(self.used()) as usize;
        (end > len + free).then(|| len + free)
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(ErrorKind::NotFound, name.to_owned()))
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.unsynced_names.push(change);
    }
}

impl Files for Simulated {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.about_to(Operation::Create);
        let mut disk = self.disk();
        disk.step(Operation::Create)?;
        if disk.names.contains_key(name) {
            return Err(io::Error::new(ErrorKind::AlreadyExists, name.to_owned()));
        }
        let (file, life) = (disk.files.len(), disk.life);
        disk.files.push(Inode::default());
        disk.change_name(NameChange::Create(name.to_owned(), file));
        drop(disk);
        Ok(Arc::new(Handle { disk: self.clone(), file, life }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.disk();
        let (file, life) = (disk.find(name)?, disk.life);
        drop(disk);
        Ok(Arc::new(Handle { disk: self.clone(), file, life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.about_to(Operation::Rename);
        let mut disk = self.disk();
        disk.step(Operation::Rename)?;
        disk.find(from)?;
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.about_to(Operation::Remove);
        let mut disk = self.disk();
        disk.step(Operation::Remove)?;
        disk.find(name)?;
        disk.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn sync_names(&self, why: Why) -> io::Result<()> {
        self.about_to(Operation::SyncNames);
        let mut disk = self.disk();
        disk.step(Operation::SyncNames)?;
        if disk.ignored != Some(why) {
            for change in std::mem::take(&mut disk.unsynced_names) {
                apply_name(&mut disk.names_after_crash, &change);
            }
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        !self.disk().gone
    }

    fn random(&self) -> io::Result<u32> {
        Ok(self.disk().random.next() as u32)
    }
}

impl File for Handle {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.about_to(Operation::Write);
        let mut disk = self.disk.disk();
        assert_eq!(disk.life, self.life, "a file of a program that is no more");
        let mut failed = disk.step(Operation::Write);
        // A write that fails may have begun.
        let mut len = if failed.is_ok() { bytes.len() } else { disk.random.below(bytes.len() as u64 + 1) as usize };
        if let Some(end) = disk.short_of_room(self.file, at as usize + len) {
            failed = Err(io::Error::new(ErrorKind::StorageFull, "there is no more room"));
            len = end.saturating_sub(at as usize);
        }
        let inode = &mut disk.files[self.file];
        apply(&mut inode.contents, &Change::Write(at as usize, bytes[..len].to_vec()), || true);
        // A sector reaches the disk as it is in memory, with what was written to it before.
        let from = (at as usize / SECTOR * SECTOR).min(inode.contents.len());
        let to = (at as usize + len).next_multiple_of(SECTOR).min(inode.contents.len());
        let sectors = inode.contents[from..to].to_vec();
        inode.unsynced.push(Change::Write(from, sectors));
        failed
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.disk.about_to(Operation::Read);
        let disk = self.disk.disk();
        assert_eq!(disk.life, self.life, "a file of a program that is no more");
        let contents = &disk.files[self.file].contents;
        let from = contents.get(at as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.file].contents.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.about_to(Operation::Truncate);
        let mut disk = self.disk.disk();
        disk.step(Operation::Truncate)?;
        let inode = &mut disk.files[self.file];
        inode.contents.resize(len as usize, 0);
        inode.unsynced.push(Change::Truncate(len as usize));
        Ok(())
    }

    fn sync(&self, why: Why) -> io::Result<()> {
        self.disk.about_to(Operation::Sync);
        let mut disk = self.disk.disk();
        assert_eq!(disk.life, self.life, "a file of a program that is no more");
        let failed = disk.step(Operation::Sync);
        if failed.is_err() && disk.left == Some(0) {
            return failed;
        }
        if disk.ignored == Some(why) {
            return Ok(());
        }
        let Disk { files, random, .. } = &mut *disk;
        let inode = &mut files[self.file];
        for change in std::mem::take(&mut inode.unsynced) {
            apply(&mut inode.on_disk, &change, || failed.is_ok() || random.one_in(2));
        }
        failed
    }
}
