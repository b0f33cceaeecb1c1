//! The pages of an index, written one after another, each with its checksum.
//!
//! It knows pages, and nothing of what they hold.

use super::{
    files::File,
    index::{CONTENTS, PAGE, page_checksum},
};
use std::{io, sync::Arc};

/// Makes pages of what is put into it, and writes them some at a time: an index is not in memory twice.
pub(super) struct PageWriter {
    file: Arc<dyn File>,
    serial: u64,
    /// Pages that are full.
    page: u64,
    contents: Vec<u8>,
    /// Those of them that are not written.
    full: Vec<u8>,
}

impl PageWriter {
    pub(super) fn new(file: Arc<dyn File>, serial: u64) -> PageWriter {
        PageWriter { file, serial, page: 0, contents: Vec::with_capacity(PAGE), full: Vec::new() }
    }

    /// Bytes of one write.
    const WRITE: usize = 16 * PAGE;

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CONTENTS - self.contents.len()));
            self.contents.extend(now);
            bytes = later;
            if self.contents.len() == CONTENTS {
                self.end_page()?;
            }
        }
        Ok(())
    }

    fn end_page(&mut self) -> io::Result<()> {
        self.contents.resize(CONTENTS, 0);
        self.full.extend(&self.contents);
        self.full.extend(page_checksum(self.serial, self.page, &self.contents).to_le_bytes());
        self.contents.clear();
        self.page += 1;
        if self.full.len() >= Self::WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.full, self.page * PAGE as u64 - self.full.len() as u64)?;
        self.full.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.contents.is_empty() {
            self.end_page()?;
        }
        self.write()
    }
}
