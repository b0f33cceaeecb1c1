//! The names of an index as they are written: postings, entries and fences.
//!
//! It knows names and numbers, not what they are of.

use super::page_writer::PageWriter;
use std::{collections::BTreeMap, io};

/// Entries between two fences.
const FENCED: usize = 16;

/// Lengths of postings, entries and fences.
pub(super) fn lengths(names: &BTreeMap<Box<str>, Vec<u32>>) -> [u32; 3] {
    let [mut postings, mut entries, mut fences] = [0, 0, 0];
    for (n, (name, list)) in names.iter().enumerate() {
        postings += 4 * list.len() as u32;
        entries += 2 + name.len() as u32 + 8;
        fences += if n % FENCED == 0 { 2 + name.len() as u32 + 4 } else { 0 };
    }
    [postings, entries, fences]
}

/// Postings, entries and fences.
pub(super) fn put_sections(pages: &mut PageWriter, names: &BTreeMap<Box<str>, Vec<u32>>) -> io::Result<()> {
    for event in names.values().flatten() {
        pages.put(&event.to_le_bytes())?;
    }
    let put_name = |pages: &mut PageWriter, name: &str| {
        pages.put(&(name.len() as u16).to_le_bytes())?;
        pages.put(name.as_bytes())
    };
    let mut posting = 0;
    for (name, list) in names {
        put_name(pages, name)?;
        pages.put(&(list.len() as u32).to_le_bytes())?;
        pages.put(&u32::to_le_bytes(posting))?;
        posting += list.len() as u32;
    }
    let mut entry = 0;
    for (n, name) in names.keys().enumerate() {
        if n % FENCED == 0 {
            put_name(pages, name)?;
            pages.put(&u32::to_le_bytes(entry))?;
        }
        entry += 2 + name.len() as u32 + 8;
    }
    Ok(())
}
