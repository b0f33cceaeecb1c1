//! The few file operations the log is made of, so that a test can put a disk underneath that loses, tears and refuses.
//!
//! It knows names, bytes and syncs, not what is in a file.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Why something has to be on disk before going on. Every sync says it: errors name it, and the simulated disk leaves one kind out
/// after another to see that each is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Appends, before they are answered or delivered.
    Appends,
    /// A finished segment, before a later one is begun.
    Finished,
    /// The name of a new segment, before anything in it is answered.
    SegmentName,
    /// A new state, before it replaces the old one.
    State,
    /// The name of the new state, and of everything that was recovered, before anybody relies on it.
    StateName,
    /// What was recovered, before anybody reads it.
    Recovered,
    /// Events that outlive their segment, before it goes.
    Aside,
    /// The name of the file that they are in, before the state names it.
    AsideName,
    /// Keys of a segment, before it is removed or rewritten.
    Carried,
    /// A segment without what was removed of it, before the one goes that it is made of.
    Rewritten,
    /// Its name, and that of its keys, before the same.
    RewrittenName,
}

/// A directory of files without folders.
pub(super) trait Files: fmt::Debug + Send + Sync + 'static {
    /// Makes a file that must not exist yet.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing whatever had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All names.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Puts all names on disk as they are now.
    fn sync_names(&self, why: Why) -> io::Result<()>;
    /// Whether the directory is still the one that was opened: somebody may have removed it, and files without names still take bytes.
    fn is_there(&self) -> bool;
    /// A random number, for epochs and seeds: a simulated disk has to give the same ones again.
    fn random(&self) -> io::Result<u32>;
}

/// An open file.
pub(super) trait File: fmt::Debug + Send + Sync {
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Reads until the buffer is full or the file ends; says how many bytes there were.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts it.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Puts contents and length on disk.
    fn sync(&self, why: Why) -> io::Result<()>;
}

/// A file that is small enough to be read at once, whole.
pub(super) fn read_whole(files: &dyn Files, name: &str) -> io::Result<Vec<u8>> {
    let file = files.open(name)?;
    let mut bytes = vec![0; file.len()? as usize];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// A directory of the file system, locked for one process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked while this lives.
    lock: fs::File,
}

/// Why a directory could not be taken.
#[derive(Debug)]
pub(super) enum TakeError {
    /// Another process has it; its id, if it is known.
    Locked(String),
    /// The file system refused.
    Io(io::Error),
}

const LOCK: &str = "lock";

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub(super) fn take(path: PathBuf) -> Result<Directory, TakeError> {
        let lock = || {
            make_directory(&path)?;
            open_private(fs::OpenOptions::new().read(true).write(true).create(true).truncate(false), &path.join(LOCK))
        };
        let lock = lock().map_err(TakeError::Io)?;
        match wait_for_lock(&lock) {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(TakeError::Locked(fs::read_to_string(path.join(LOCK)).unwrap_or_default())),
            Err(fs::TryLockError::Error(error)) => return Err(TakeError::Io(error)),
        }
        let id = || {
            lock.set_len(0)?;
            io::Write::write_all(&mut &lock, std::process::id().to_string().as_bytes())
        };
        id().map_err(TakeError::Io)?;
        Ok(Directory { path, lock })
    }
}

/// Tries for a moment: a hub that was told to stop may be at its end, and whoever looks at a log asks whether it is in use.
fn wait_for_lock(lock: &fs::File) -> Result<(), fs::TryLockError> {
    const TRIES: u32 = 10;
    for _ in 1..TRIES {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    lock.try_lock()
}

impl Files for Directory {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = open_private(fs::OpenOptions::new().read(true).write(true).create_new(true), &self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    #[cfg(unix)]
    fn sync_names(&self, _why: Why) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    /// Elsewhere a directory cannot be opened as a file, and names are journalled with the files.
    #[cfg(not(unix))]
    fn sync_names(&self, _why: Why) -> io::Result<()> {
        Ok(())
    }

    fn is_there(&self) -> bool {
        same_file(&self.lock, &self.path.join(LOCK))
    }

    fn random(&self) -> io::Result<u32> {
        getrandom::u32().map_err(io::Error::other)
    }
}

impl File for fs::File {
    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, at)
    }

    #[cfg(windows)]
    fn write_at(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::os::windows::fs::FileExt::seek_write(self, bytes, at)?;
            (bytes, at) = (&bytes[count..], at + count as u64);
        }
        Ok(())
    }

    fn read_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read;
        let mut total = 0;
        while !buffer.is_empty() {
            match read(self, buffer, at) {
                Ok(0) => break,
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    (total, at) = (total + count, at + count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self, _why: Why) -> io::Result<()> {
        self.sync_data()
    }
}

/// Events may be secret: nobody but the owner gets in.
fn make_directory(path: &std::path::Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn open_private(options: &mut fs::OpenOptions, path: &std::path::Path) -> io::Result<fs::File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn same_file(open: &fs::File, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((open.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if place(a.clone()) == place(b.clone()))
}

#[cfg(not(unix))]
fn same_file(_open: &fs::File, path: &std::path::Path) -> bool {
    path.exists()
}
