//! What retention removed, by audience, kept across restarts so that a reader who lost nothing is told nothing (N-14).
//!
//! It is a memory aid: never synced, and without it, or if it does not check, everybody who is behind the oldest event is told.

use super::{
    files::Files,
    format::{check_version, invalid, u16_at, u32_at, u64_at},
};
use std::{io, sync::Arc};
use tidings_core::{Epoch, Evicted, Topic, limits};

const NAME: &str = "evicted";
const NEW: &str = "evicted.new";
const MAGIC: &[u8; 8] = b"TIDGONE\n";
const HEADER: usize = 32;

/// Writes it down, as far as that works.
pub(super) fn save(files: &dyn Files, epoch: Epoch, through: u64, evicted: &Evicted) {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(super::format::VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(epoch.0.to_le_bytes());
    bytes.extend(through.to_le_bytes());
    bytes.extend(evicted.forgotten().to_le_bytes());
    for (sequence, topics, private) in evicted.remembered() {
        bytes.extend(sequence.to_le_bytes());
        bytes.push(private.into());
        bytes.extend((topics.len() as u16).to_le_bytes());
        for topic in topics {
            bytes.extend((topic.as_str().len() as u16).to_le_bytes());
            bytes.extend(topic.as_str().as_bytes());
        }
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let write = || {
        let _ = files.remove(NEW);
        files.create(NEW)?.write_at(&bytes, 0)?;
        files.rename(NEW, NAME)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "which topics were removed could not be noted; after a restart more readers may be told of a gap");
    }
}

/// What is remembered of everything removed up to a sequence: nothing in particular, if there is no file that knows all of it.
pub(super) fn load(files: &dyn Files, epoch: Epoch, removed: u64) -> Evicted {
    let blank = |before| Evicted::new(before, limits::EVICTED_AUDIENCES, limits::EVICTED_BYTES);
    let read = || -> io::Result<Evicted> {
        let file = files.open(NAME)?;
        let mut bytes = vec![0; file.len()? as usize];
        let count = file.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        parse(&bytes, epoch, removed, blank).ok_or_else(|| invalid("it does not check"))
    };
    if removed == 0 {
        return blank(0);
    }
    read().unwrap_or_else(|error| {
        tracing::info!(%error, "which topics were removed is not known; readers behind the oldest event are told of a gap");
        blank(removed)
    })
}

/// Whether the file is what was written, if there is one.
pub(super) fn check(files: &dyn Files) -> io::Result<()> {
    let file = match files.open(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    let count = file.read_at(&mut bytes, 0)?;
    let whole = bytes.get(..count).and_then(|bytes| bytes.split_at_checked(count.checked_sub(4)?));
    let checks = whole.is_some_and(|(contents, checksum)| crc32c::crc32c(contents) == u32_at(checksum, 0));
    if checks { Ok(()) } else { Err(invalid("it does not check")) }
}

fn parse(bytes: &[u8], epoch: Epoch, removed: u64, blank: impl Fn(u64) -> Evicted) -> Option<Evicted> {
    let (contents, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let checks = contents.len() >= HEADER && contents[..8] == *MAGIC && crc32c::crc32c(contents) == u32_at(checksum, 0);
    if !checks || check_version(contents, "the file of removed topics").is_err() || u32_at(contents, 12) != epoch.0 {
        return None;
    }
    // One that knows more than was removed comes from a removal that was not finished; one that knows less is of no use.
    if u64_at(contents, 16) < removed {
        return None;
    }
    let mut evicted = blank(u64_at(contents, 24));
    let mut rest = &contents[HEADER..];
    while !rest.is_empty() {
        let (fixed, after) = rest.split_at_checked(11)?;
        rest = after;
        let topics = (0..u16_at(fixed, 9)).map(|_| {
            let (len, after) = rest.split_at_checked(2)?;
            let (name, after) = after.split_at_checked(u16_at(len, 0).into())?;
            rest = after;
            Some(Topic::stored(std::str::from_utf8(name).ok()?))
        });
        let topics: Arc<[Topic]> = topics.collect::<Option<Vec<Topic>>>()?.into();
        evicted.remember(u64_at(fixed, 0), topics, fixed[8] != 0);
    }
    Some(evicted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::simulated::Simulated;
    use tidings_core::{Filter, Grant, Matchers, TopicMatcher};

    /// N-14: after a restart too only those are told who can have lost something, as long as the file is whole.
    #[test]
    fn remembered_across_restarts() {
        let disk = Simulated::new(1, None);
        let filter = |topic: &str| Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::open());
        let mut evicted = load(&disk, Epoch(7), 0);
        evicted.remember(3, [Topic::stored("a")].into(), false);
        evicted.remember(5, [Topic::stored("b"), Topic::stored("c")].into(), true);
        save(&disk, Epoch(7), 6, &evicted);
        let told = |evicted: &Evicted| ["a", "b", "d"].map(|topic| [0, 3, 6].map(|after| evicted.may_miss(after, &filter(topic))));
        // The second is private, and nobody here has a grant.
        let exact = [[true, false, false], [false; 3], [false; 3]];
        assert_eq!(told(&load(&disk, Epoch(7), 6)), exact);
        let everybody = [[true, true, false]; 3];
        assert_eq!(told(&load(&disk, Epoch(8), 6)), everybody, "of another log");
        assert_eq!(told(&load(&disk, Epoch(7), 7)), [[true; 3]; 3], "of an earlier time");
        let len = disk.open(NAME).unwrap().len().unwrap();
        for at in 0..len {
            let damaged = disk.copy();
            damaged.damage(NAME, |contents| contents[at as usize] ^= 1);
            assert_eq!(told(&load(&damaged, Epoch(7), 6)), everybody, "flipped at {at}");
            damaged.damage(NAME, |contents| contents.truncate(at as usize));
            assert_eq!(told(&load(&damaged, Epoch(7), 6)), everybody, "cut at {at}");
        }
    }
}
