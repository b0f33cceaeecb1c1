//! Where things are in a segment: offsets by position, events by topic and by publisher's id. In memory while the segment is written,
//! in a file of checked pages afterwards.
//!
//! It knows names and places in one segment, neither records nor what a reader may have.

use super::{
    cached::{Cached, Pages},
    files::{File, Files},
    format::{VERSION, index_name, invalid, u16_at, u32_at, u64_at, version_up_to},
    page_writer::PageWriter,
    sections::{lengths, put_sections},
};
use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    io,
    ops::{Bound, Range},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidings_core::{Epoch, Record};

/// The offset of an event that cannot be read.
pub(super) const DAMAGED: u32 = u32::MAX;
/// The name under which events are found that cannot be read: they may have had any topic, and no topic is empty.
pub(super) const UNREADABLE: &str = "";

pub(super) const PAGE: usize = 4_096;
pub(super) const CONTENTS: usize = PAGE - 4;
const MAGIC: &[u8; 8] = b"TIDINDEX";
/// The version of an index of a segment with holes: it has the number of each event too.
const WITH_HOLES: u16 = 2;
const HEADER: usize = 72;
const NOT_TEXT: &str = "a name in an index is not text";
/// Pages at hand while one question is answered: of each part one or two.
const AT_HAND: usize = 8;

/// What names are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Names {
    Topics,
    Ids,
}

/// The events with a name: how many come before each of them in the segment, ascending.
#[derive(Debug)]
pub(super) enum List<'a> {
    Memory(&'a [u32]),
    File { reader: &'a Reader<'a>, start: u64, count: usize },
}

impl List<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            List::Memory(list) => list.len(),
            List::File { count, .. } => *count,
        }
    }

    pub(super) fn get(&self, at: usize) -> io::Result<u32> {
        match self {
            List::Memory(list) => Ok(list[at]),
            List::File { reader, start, .. } => reader.u32(start + 4 * at as u64),
        }
    }

    /// How many are below.
    pub(super) fn below(&self, event: u32) -> io::Result<usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if self.get(middle)? < event {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(from)
    }
}

/// What both forms answer.
pub(super) trait Index {
    /// Shows the names from one on in byte order until told to stop.
    fn visit(&self, names: Names, from: &str, each: &mut dyn FnMut(&str, List<'_>) -> io::Result<bool>) -> io::Result<()>;
    /// False if every name comes after this one: then a question about it needs no look.
    fn may_have(&self, _names: Names, _name: &str) -> bool {
        true
    }
    /// Where an event begins.
    fn offset(&self, event: u32) -> io::Result<u32>;
    /// The sequence of an event in a segment that begins with `first`.
    fn sequence(&self, first: u64, event: u32) -> io::Result<u64> {
        Ok(first + u64::from(event))
    }
    /// How many events of the segment come before a sequence.
    fn rank(&self, first: u64, sequence: u64) -> io::Result<u32> {
        Ok(u32::try_from(sequence.saturating_sub(first)).unwrap_or(u32::MAX))
    }
}

/// Asks for the events of one name.
pub(super) fn find<T>(
    index: &dyn Index,
    names: Names,
    name: &str,
    mut then: impl FnMut(List<'_>) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let mut found = None;
    index.visit(names, name, &mut |at, list| {
        if at == name {
            found = then(list)?;
        }
        Ok(false)
    })?;
    Ok(found)
}

/// The index of a segment that is being written, or whose file is not there yet.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    pub(super) offsets: Vec<u32>,
    /// Of a segment with holes: the sequence of each event.
    sequences: Option<Vec<u64>>,
    topics: BTreeMap<Box<str>, Vec<u32>>,
    ids: BTreeMap<Box<str>, Vec<u32>>,
    /// About how much memory it takes.
    pub(super) bytes: usize,
}

impl MemoryIndex {
    /// Of a segment whose numbers have holes.
    pub(super) fn with_holes() -> MemoryIndex {
        MemoryIndex { sequences: Some(Vec::new()), ..MemoryIndex::default() }
    }

    /// The next event of the segment.
    pub(super) fn push(&mut self, offset: u32, record: &Record) {
        // A name's entry in the tree, its text and its list; then four bytes an event.
        const NAME: usize = 80;
        let event = self.offsets.len() as u32;
        self.offsets.push(offset);
        self.bytes += 4;
        if let Some(sequences) = &mut self.sequences {
            sequences.push(record.position().sequence);
        }
        let MemoryIndex { topics, ids, bytes, .. } = self;
        let mut put = |names: &mut BTreeMap<Box<str>, Vec<u32>>, name: &str| {
            *bytes += 4;
            match names.get_mut(name) {
                Some(list) => list.push(event),
                None => {
                    *bytes += NAME + name.len();
                    names.insert(name.into(), vec![event]);
                }
            }
        };
        for topic in record.topics() {
            put(topics, topic.as_str());
        }
        if let Some(id) = record.publisher_id() {
            put(ids, id);
        }
    }

    /// An event that is there by its number and cannot be read.
    pub(super) fn push_damaged(&mut self) {
        let event = self.offsets.len() as u32;
        self.topics.entry(UNREADABLE.into()).or_default().push(event);
        self.offsets.push(DAMAGED);
    }

    /// An event of a segment with holes that cannot be read. It stands for all that there may have been since the one before.
    pub(super) fn push_damaged_at(&mut self, sequence: u64) {
        if let Some(sequences) = &mut self.sequences {
            sequences.push(sequence);
        }
        self.push_damaged();
    }

    /// Forgets all events but so many.
    pub(super) fn truncate(&mut self, count: usize) {
        self.offsets.truncate(count);
        for names in [&mut self.topics, &mut self.ids] {
            names.retain(|_, list| {
                list.truncate(list.partition_point(|&event| (event as usize) < count));
                !list.is_empty()
            });
        }
    }

    fn names(&self, names: Names) -> &BTreeMap<Box<str>, Vec<u32>> {
        match names {
            Names::Topics => &self.topics,
            Names::Ids => &self.ids,
        }
    }

    /// Writes it to its file. Not synced: what a crash leaves of it does not check, and is made again.
    pub(super) fn save(&self, files: &dyn Files, serial: u64, about: &About) -> io::Result<()> {
        let name = index_name(serial);
        let _ = files.remove(&name);
        let mut pages = PageWriter::new(files.create(&name)?, serial);
        let [topics, ids] = [&self.topics, &self.ids];
        pages.put(MAGIC)?;
        let version = if self.sequences.is_some() { WITH_HOLES } else { VERSION };
        pages.put(&version.to_le_bytes())?;
        pages.put(&[0; 2])?;
        pages.put(&about.epoch.0.to_le_bytes())?;
        for number in [about.first, about.len, about.accepted_at] {
            pages.put(&number.to_le_bytes())?;
        }
        pages.put(&(self.offsets.len() as u32).to_le_bytes())?;
        for length in lengths(topics).into_iter().chain(lengths(ids)) {
            pages.put(&length.to_le_bytes())?;
        }
        pages.put(&about.keys.to_le_bytes())?;
        for offset in &self.offsets {
            pages.put(&offset.to_le_bytes())?;
        }
        for sequence in self.sequences.iter().flatten() {
            pages.put(&((sequence - about.first) as u32).to_le_bytes())?;
        }
        put_sections(&mut pages, topics)?;
        put_sections(&mut pages, ids)?;
        pages.finish()
    }
}

pub(super) fn page_checksum(serial: u64, page: u64, contents: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&serial.to_le_bytes()), &page.to_le_bytes());
    crc32c::crc32c_append(place, contents)
}

impl Index for MemoryIndex {
    fn visit(&self, names: Names, from: &str, each: &mut dyn FnMut(&str, List<'_>) -> io::Result<bool>) -> io::Result<()> {
        for (name, list) in self.names(names).range::<str, _>((Bound::Included(from), Bound::Unbounded)) {
            if !each(name, List::Memory(list))? {
                break;
            }
        }
        Ok(())
    }

    fn offset(&self, event: u32) -> io::Result<u32> {
        Ok(self.offsets[event as usize])
    }

    fn sequence(&self, first: u64, event: u32) -> io::Result<u64> {
        Ok(self.sequences.as_ref().map_or(first + u64::from(event), |sequences| sequences[event as usize]))
    }

    fn rank(&self, first: u64, sequence: u64) -> io::Result<u32> {
        Ok(match &self.sequences {
            None => u32::try_from(sequence.saturating_sub(first)).unwrap_or(u32::MAX),
            Some(sequences) => sequences.partition_point(|&at| at < sequence) as u32,
        })
    }
}

/// What an index says of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct About {
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    /// Bytes of the segment that count, without its footer.
    pub(super) len: u64,
    pub(super) accepted_at: u64,
    pub(super) count: u32,
    /// Appends with a key, which are in a file of their own.
    pub(super) keys: u32,
}

/// The index of a finished segment, in its file: what is kept of it in memory.
#[derive(Debug)]
pub(super) struct FileIndex {
    serial: u64,
    /// By which its pages are known: an index that was made again is another one.
    number: u64,
    pub(super) about: About,
    /// Bytes of its file.
    pub(super) len: u64,
    has_holes: bool,
    parts: [Part; 2],
}

#[derive(Debug)]
struct Part {
    postings: u64,
    entries: Range<u64>,
    fences: Vec<(Box<str>, u64)>,
}

impl FileIndex {
    /// Opens an index; an error if anything needed later is missing or does not check.
    pub(super) fn open(files: &dyn Files, serial: u64) -> io::Result<FileIndex> {
        let file = files.open(&index_name(serial))?;
        let len = file.len()?;
        let reader = Reader { files, file: file.into(), serial, index: None, pages: RefCell::default() };
        let header = reader.read(0, HEADER)?;
        if header[..8] != *MAGIC {
            return Err(invalid("not an index"));
        }
        let has_holes = version_up_to(&header, "an index", WITH_HOLES)? == WITH_HOLES;
        let about = About {
            epoch: Epoch(u32_at(&header, 12)),
            first: u64_at(&header, 16),
            len: u64_at(&header, 24),
            accepted_at: u64_at(&header, 32),
            count: u32_at(&header, 40),
            keys: u32_at(&header, 68),
        };
        let mut at = HEADER as u64 + 4 * u64::from(about.count) * if has_holes { 2 } else { 1 };
        let mut section = |n: usize| {
            let from = at;
            at += u64::from(u32_at(&header, 44 + 4 * n));
            from..at
        };
        let mut part = |n: usize| -> io::Result<Part> {
            let (postings, entries, fences) = (section(n).start, section(n + 1), section(n + 2));
            Ok(Part { postings, entries, fences: reader.fences(fences)? })
        };
        let parts = [part(0)?, part(3)?];
        if len != at.div_ceil(CONTENTS as u64) * PAGE as u64 {
            return Err(invalid("an index that is cut off"));
        }
        static OPENED: AtomicU64 = AtomicU64::new(0);
        Ok(FileIndex { serial, number: OPENED.fetch_add(1, Ordering::Relaxed), about, len, has_holes, parts })
    }

    /// For the length of one question: readers never keep a file open that retention may remove.
    pub(super) fn reader<'a>(&'a self, files: &'a Cached) -> Reader<'a> {
        Reader { files, file: OnceCell::new(), serial: self.serial, index: Some((self, &files.pages)), pages: RefCell::default() }
    }
}

/// Reads an index's pages, and believes none that does not check.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    files: &'a dyn Files,
    /// Opened when the first page has to be read.
    file: OnceCell<Arc<dyn File>>,
    serial: u64,
    /// The index, once its header is known, and the pages that all readers share.
    index: Option<(&'a FileIndex, &'a Pages)>,
    pages: RefCell<Vec<(u64, Arc<[u8]>)>>,
}

impl Reader<'_> {
    fn file(&self) -> io::Result<&dyn File> {
        if self.file.get().is_none() {
            let _ = self.file.set(self.files.open(&index_name(self.serial))?);
        }
        self.file.get().map(|file| &**file).ok_or_else(|| invalid("an index that is not open"))
    }

    /// A page that was checked.
    fn page(&self, page: u64) -> io::Result<Arc<[u8]>> {
        let shared = self.index.map(|(index, pages)| (pages, (index.number, page)));
        if let Some(contents) = shared.and_then(|(pages, key)| pages.get(key)) {
            return Ok(contents);
        }
        let mut bytes = [0; PAGE];
        if self.file()?.read_at(&mut bytes, page * PAGE as u64)? < PAGE {
            return Err(invalid("an index that is cut off"));
        }
        if page_checksum(self.serial, page, &bytes[..CONTENTS]) != u32_at(&bytes, CONTENTS) {
            return Err(invalid("a page of an index does not check"));
        }
        let contents: Arc<[u8]> = bytes[..CONTENTS].into();
        if let Some((pages, key)) = shared {
            pages.put(key, &contents);
        }
        Ok(contents)
    }

    /// How far an event's number is from the first one of a segment with holes.
    fn distance(&self, index: &FileIndex, event: u32) -> io::Result<u32> {
        self.u32(HEADER as u64 + 4 * (u64::from(index.about.count) + u64::from(event)))
    }

    fn on_page<T>(&self, page: u64, then: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let mut pages = self.pages.borrow_mut();
        if let Some(at) = pages.iter().position(|(of, _)| *of == page) {
            return Ok(then(&pages[at].1));
        }
        let contents = self.page(page)?;
        let answer = then(&contents);
        if pages.len() == AT_HAND {
            pages.remove(0);
        }
        pages.push((page, contents));
        Ok(answer)
    }

    fn read(&self, mut at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let from = (at % CONTENTS as u64) as usize;
            self.on_page(at / CONTENTS as u64, |page| {
                let part = &page[from..CONTENTS.min(from + len - bytes.len())];
                bytes.extend(part);
                at += part.len() as u64;
            })?;
        }
        Ok(bytes)
    }

    fn u32(&self, at: u64) -> io::Result<u32> {
        let from = (at % CONTENTS as u64) as usize;
        if from + 4 <= CONTENTS {
            return self.on_page(at / CONTENTS as u64, |page| u32_at(page, from));
        }
        self.read(at, 4).map(|bytes| u32_at(&bytes, 0))
    }

    fn name(&self, at: &mut u64) -> io::Result<String> {
        let len = usize::from(u16_at(&self.read(*at, 2)?, 0));
        let name = self.read(*at + 2, len)?;
        *at += 2 + len as u64;
        String::from_utf8(name).map_err(|_| invalid(NOT_TEXT))
    }

    /// The entry at a place, its name into a buffer: the number of its postings, and where they begin. Goes on to the next one.
    fn entry(&self, at: &mut u64, name: &mut Vec<u8>) -> io::Result<(u32, u32)> {
        let from = (*at % CONTENTS as u64) as usize;
        // Nearly all are whole on one page.
        let whole = self.on_page(*at / CONTENTS as u64, |page| {
            let rest = &page[from..];
            let len = usize::from(u16_at(rest.get(..2)?, 0));
            let entry = rest.get(2..2 + len + 8)?;
            name.clear();
            name.extend(&entry[..len]);
            Some((u32_at(entry, len), u32_at(entry, len + 4)))
        })?;
        let answer = match whole {
            Some(answer) => answer,
            None => {
                let len = usize::from(u16_at(&self.read(*at, 2)?, 0));
                *name = self.read(*at + 2, len)?;
                let place = *at + 2 + len as u64;
                (self.u32(place)?, self.u32(place + 4)?)
            }
        };
        *at += 2 + name.len() as u64 + 8;
        Ok(answer)
    }

    fn fences(&self, section: Range<u64>) -> io::Result<Vec<(Box<str>, u64)>> {
        let (mut fences, mut at) = (Vec::new(), section.start);
        while at < section.end {
            let name = self.name(&mut at)?;
            fences.push((name.into(), u64::from(self.u32(at)?)));
            at += 4;
        }
        Ok(fences)
    }
}

impl Index for Reader<'_> {
    fn may_have(&self, names: Names, name: &str) -> bool {
        // The first fence is the first name.
        let part = self.index.and_then(|(index, _)| index.parts[names as usize].fences.first());
        part.is_some_and(|(first, _)| **first <= *name)
    }

    fn visit(&self, names: Names, from: &str, each: &mut dyn FnMut(&str, List<'_>) -> io::Result<bool>) -> io::Result<()> {
        let Some((index, _)) = self.index else { return Ok(()) };
        let part = &index.parts[names as usize];
        let fence = part.fences.partition_point(|(name, _)| **name <= *from).saturating_sub(1);
        let Some((_, offset)) = part.fences.get(fence) else { return Ok(()) };
        let (mut at, mut name) = (part.entries.start + offset, Vec::new());
        while at < part.entries.end {
            let (count, start) = self.entry(&mut at, &mut name)?;
            if *name < *from.as_bytes() {
                continue;
            }
            let name = std::str::from_utf8(&name).map_err(|_| invalid(NOT_TEXT))?;
            let list = List::File { reader: self, start: part.postings + 4 * u64::from(start), count: count as usize };
            if !each(name, list)? {
                break;
            }
        }
        Ok(())
    }

    fn offset(&self, event: u32) -> io::Result<u32> {
        self.u32(HEADER as u64 + 4 * u64::from(event))
    }

    fn sequence(&self, first: u64, event: u32) -> io::Result<u64> {
        match self.index {
            Some((index, _)) if index.has_holes => self.distance(index, event).map(|distance| first + u64::from(distance)),
            _ => Ok(first + u64::from(event)),
        }
    }

    fn rank(&self, first: u64, sequence: u64) -> io::Result<u32> {
        let dense = u32::try_from(sequence.saturating_sub(first)).unwrap_or(u32::MAX);
        let Some((index, _)) = self.index.filter(|(index, _)| index.has_holes) else { return Ok(dense) };
        let (mut from, mut to) = (0, index.about.count);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.distance(index, middle)? < dense {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::files::Directory;
    use proptest::prelude::*;
    use tidings_core::{Event, Position};

    fn contents(index: &impl Index, names: Names, from: &str) -> Vec<(String, Vec<u32>)> {
        let mut all = Vec::new();
        let mut each = |name: &str, list: List<'_>| {
            let events = (0..list.len()).map(|at| list.get(at)).collect::<io::Result<_>>()?;
            for &event in &events {
                let events: &Vec<u32> = &events;
                assert_eq!(list.below(event)?, events.partition_point(|&e| e < event));
            }
            all.push((name.to_owned(), events));
            Ok(true)
        };
        index.visit(names, from, &mut each).unwrap();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The file says what the memory said, over many pages; any flipped bit in it is noticed or without effect.
        #[test]
        fn file_and_memory_agree(events in prop::collection::vec((0u32..2_000, prop::option::of(0u8..9)), 1..3_000), from in 0u32..2_000, flip: prop::sample::Index) {
            let directory = tempfile::tempdir().unwrap();
            let files = Cached::new(Arc::new(Directory::take(directory.path().into()).unwrap()));
            let mut index = MemoryIndex::default();
            for (n, (topic, id)) in events.iter().enumerate() {
                let event = Event::new(&format!("topic/{topic}"), "d").unwrap().with_id(&id.map(|id| format!("id-{id}")).unwrap_or_default()).unwrap();
                let position = Position { epoch: Epoch(1), sequence: n as u64 + 1 };
                index.push(n as u32 * 7, &Record::draft(event).seal(position, 0));
            }
            let about = About { epoch: Epoch(1), first: 1, len: 9, accepted_at: 3, count: events.len() as u32, keys: 0 };
            index.save(&files, 5, &about).unwrap();
            let file = FileIndex::open(&files, 5).unwrap();
            prop_assert_eq!(file.about, about);
            let reader = file.reader(&files);
            for names in [Names::Topics, Names::Ids] {
                for from in ["", &format!("topic/{from}"), "zzz"] {
                    prop_assert_eq!(contents(&reader, names, from), contents(&index, names, from));
                }
            }
            for event in 0..events.len() as u32 {
                prop_assert_eq!(reader.offset(event).unwrap(), index.offset(event).unwrap());
            }
            let path = directory.path().join(index_name(5));
            let mut bytes = std::fs::read(&path).unwrap();
            let at = flip.index(bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, bytes).unwrap();
            let read_all = || -> io::Result<()> {
                let file = FileIndex::open(&files, 5)?;
                let reader = file.reader(&files);
                for names in [Names::Topics, Names::Ids] {
                    reader.visit(names, "", &mut |_, list| {
                        for at in 0..list.len() {
                            list.get(at)?;
                        }
                        Ok(true)
                    })?;
                }
                (0..events.len() as u32).try_for_each(|event| reader.offset(event).map(drop))
            };
            prop_assert!(read_all().is_err(), "every page is read, so every flip is seen");
        }
    }
}
