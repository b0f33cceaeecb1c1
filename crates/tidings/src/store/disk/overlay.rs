//! A directory to be looked at: whoever opens a log here finds what a hub would find, and nothing on disk changes.
//!
//! What is written is kept in memory until nobody looks any more. It knows files, not what is in them.

use super::files::{File, Files, Why};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The directory, and what was changed in memory: a file that is not there any more is `None`.
#[derive(Debug)]
pub(super) struct Overlay {
    path: PathBuf,
    changed: Mutex<BTreeMap<String, Option<Arc<Made>>>>,
}

/// A file that exists in memory only.
#[derive(Debug, Default)]
struct Made(Mutex<Vec<u8>>);

/// A file on disk.
#[derive(Debug)]
struct Found(fs::File);

impl Overlay {
    pub(super) fn new(path: PathBuf) -> Overlay {
        Overlay { path, changed: Mutex::default() }
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<Made>>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for Overlay {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if self.open(name).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(Made::default());
        self.changed().insert(name.into(), Some(file.clone()));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        match self.changed().get(name) {
            Some(Some(made)) => Ok(made.clone()),
            Some(None) => Err(ErrorKind::NotFound.into()),
            None => Ok(Arc::new(Found(fs::File::open(self.path.join(name))?))),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut changed = self.changed();
        // Only what was made is ever renamed.
        let Some(Some(file)) = changed.insert(from.into(), None) else { return Err(ErrorKind::Unsupported.into()) };
        changed.insert(to.into(), Some(file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open(name)?;
        self.changed().insert(name.into(), None);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let changed = self.changed();
        let mut names = names.filter(|name| !matches!(name, Ok(name) if changed.contains_key(name))).collect::<io::Result<Vec<_>>>()?;
        names.extend(changed.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name.clone()));
        Ok(names)
    }

    fn sync_names(&self, _why: Why) -> io::Result<()> {
        Ok(())
    }

    fn is_there(&self) -> bool {
        true
    }

    fn random(&self) -> io::Result<u32> {
        getrandom::u32().map_err(io::Error::other)
    }
}

impl File for Made {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = at as usize + bytes.len();
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[at as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = contents.get(at as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).truncate(len as usize);
        Ok(())
    }

    fn sync(&self, _why: Why) -> io::Result<()> {
        Ok(())
    }
}

impl File for Found {
    /// Recovery writes a tail again as it stands, so that it is on disk for certain; anything else would be lost here.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut there = vec![0; bytes.len()];
        let count = File::read_at(&self.0, &mut there, at)?;
        if there[..count] == *bytes { Ok(()) } else { Err(ErrorKind::ReadOnlyFilesystem.into()) }
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        File::read_at(&self.0, buffer, at)
    }

    fn len(&self) -> io::Result<u64> {
        File::len(&self.0)
    }

    /// What is cut off is not read any more: the log knows where its segments end.
    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _why: Why) -> io::Result<()> {
        Ok(())
    }
}
