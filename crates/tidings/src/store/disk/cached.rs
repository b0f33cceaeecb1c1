//! What readers of the log would otherwise do again and again, kept within bounds: opened files, checked pages of indexes, and events that
//! lie apart.
//!
//! It knows names and page numbers, not what is in them. A file that is removed or replaced is let go at once, so that its space comes back.

use super::{
    apart::Records,
    files::{File, Files, Why},
    format::serial_of,
};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tidings_core::limits;

/// A directory whose files stay open for a while after they were read.
#[derive(Debug)]
pub(super) struct Cached {
    files: Arc<dyn Files>,
    opened: Mutex<Opened>,
    pub(super) pages: Arc<Pages>,
    pub(super) records: Arc<Records>,
    /// Whether a file may be opened: if not, there is only what is in memory.
    opens: bool,
}

#[derive(Debug, Default)]
struct Opened {
    /// The one used last is at the back.
    handles: VecDeque<(Box<str>, Arc<dyn File>)>,
    /// Counts the names that got another meaning: a handle that was opened before is not kept.
    changes: u64,
}

impl Cached {
    pub(super) fn new(files: Arc<dyn Files>) -> Cached {
        Cached { files, opened: Mutex::default(), pages: Arc::default(), records: Arc::default(), opens: true }
    }

    /// What of it is in memory: whoever needs a file is told that it would have to wait ([`io::ErrorKind::WouldBlock`]).
    pub(super) fn at_hand(&self) -> Cached {
        let Cached { files, pages, records, .. } = self;
        Cached { files: files.clone(), opened: Mutex::default(), pages: pages.clone(), records: records.clone(), opens: false }
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        // Nothing in here panics half-way through a change.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, names: &[&str]) {
        let mut opened = self.opened();
        opened.changes += 1;
        opened.handles.retain(|(name, _)| !names.contains(&&**name));
    }
}

impl Files for Cached {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if !self.opens {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let changes = {
            let mut opened = self.opened();
            if let Some(at) = opened.handles.iter().rposition(|(known, _)| **known == *name)
                && let Some(handle) = opened.handles.remove(at)
            {
                let file = handle.1.clone();
                opened.handles.push_back(handle);
                return Ok(file);
            }
            opened.changes
        };
        let file = self.files.open(name)?;
        let mut opened = self.opened();
        if opened.changes == changes {
            if opened.handles.len() == limits::LOG_OPEN_FILES {
                opened.handles.pop_front();
            }
            opened.handles.push_back((name.into(), file.clone()));
        }
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = self.files.rename(from, to);
        self.forget(&[from, to]);
        renamed
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.remove(name);
        self.forget(&[name]);
        if let Some(serial) = serial_of(name, "log") {
            self.records.forget(serial);
        }
        removed
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.files.names()
    }

    fn sync_names(&self, why: Why) -> io::Result<()> {
        self.files.sync_names(why)
    }

    fn is_there(&self) -> bool {
        self.files.is_there()
    }

    fn random(&self) -> io::Result<u32> {
        self.files.random()
    }
}

/// Which page: the number that its index got when it was opened, and the page's own.
pub(super) type PageKey = (u64, u64);

/// Places where a page may stand, so that few pages push each other out while there is room.
const WAYS: usize = 16;

/// Pages that were read and checked. Each may stand in a few places, so that nothing has to be kept in order.
#[derive(Debug)]
pub(super) struct Pages(Box<[Mutex<Places>]>);

#[derive(Debug, Default)]
struct Places {
    pages: [Option<(PageKey, Arc<[u8]>)>; WAYS],
    /// Where the next one goes.
    next: usize,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages((0..limits::INDEX_PAGES / WAYS).map(|_| Mutex::default()).collect())
    }
}

impl Pages {
    fn places(&self, (index, page): PageKey) -> MutexGuard<'_, Places> {
        let mixed = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ page).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let at = (mixed >> 32) as usize % self.0.len();
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: PageKey) -> Option<Arc<[u8]>> {
        self.places(key).pages.iter().flatten().find(|(known, _)| *known == key).map(|(_, page)| page.clone())
    }

    pub(super) fn put(&self, key: PageKey, page: &Arc<[u8]>) {
        let Places { pages, next } = &mut *self.places(key);
        // Another reader may have brought it meanwhile.
        let at = pages.iter().position(|place| matches!(place, Some((known, _)) if *known == key)).unwrap_or(*next);
        pages[at] = Some((key, page.clone()));
        *next = (at + 1) % WAYS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::files::Directory;

    /// A handle is used again, never for a file that has another name or none by then, and never more than so many.
    #[test]
    fn handles() {
        let directory = tempfile::tempdir().unwrap();
        let cached = Cached::new(Arc::new(Directory::take(directory.path().into()).unwrap()));
        let first_byte = |name: &str| {
            let mut byte = [0];
            cached.open(name).map(|file| file.read_at(&mut byte, 0).map(|_| byte[0]))
        };
        for (name, byte) in [("a", 1), ("b", 2)] {
            cached.create(name).unwrap().write_at(&[byte], 0).unwrap();
            assert_eq!(first_byte(name).unwrap().unwrap(), byte);
        }
        assert!(Arc::ptr_eq(&cached.open("a").unwrap(), &cached.open("a").unwrap()));
        cached.rename("b", "a").unwrap();
        assert_eq!(first_byte("a").unwrap().unwrap(), 2);
        assert!(first_byte("b").is_err());
        cached.remove("a").unwrap();
        assert!(first_byte("a").is_err());
        for n in 0..=limits::LOG_OPEN_FILES {
            let name = n.to_string();
            cached.create(&name).unwrap();
            cached.open(&name).unwrap();
        }
        assert_eq!(cached.opened().handles.len(), limits::LOG_OPEN_FILES);
    }

    /// The pages that a question about every one of a hundred segments needs are all still there, and there are never more than so many.
    #[test]
    fn pages() {
        let pages = Pages::default();
        let page = |key: PageKey| -> Arc<[u8]> { [key.0 as u8, key.1 as u8].into() };
        assert_eq!(pages.get((1, 2)), None);
        let asked: Vec<PageKey> = (0..100).flat_map(|index| [(index, 0), (index, 87 + index % 3)]).collect();
        for &key in &asked {
            pages.put(key, &page(key));
        }
        let kept = asked.iter().filter(|&&key| pages.get(key) == Some(page(key))).count();
        assert!(kept > 190, "{kept} of {}", asked.len());
        for key in (0..10_000).map(|n| (n % 7, n)) {
            pages.put(key, &page(key));
            pages.put(key, &page(key));
            assert_eq!(pages.get(key), Some(page(key)));
        }
        assert_eq!(pages.0.iter().flat_map(|places| places.lock().unwrap().pages.clone()).flatten().count(), limits::INDEX_PAGES);
    }
}
