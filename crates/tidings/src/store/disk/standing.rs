//! The table of what is the latest of its kind, on disk: it saves looking for those events at a start.
//!
//! It is derived, and never synced. What is latest stays in the log until something newer is there, and the log is removed from its beginning,
//! so a table of an earlier time is completed by what came after it, and without one the log says all of it.

use super::{
    files::{Files, read_whole},
    format::{VERSION, invalid, u16_at, u32_at, u64_at},
    log::Log,
};
use crate::store::{
    PageLimits,
    latest::{Entry, Latest},
    retention::Rules,
};
use std::io::{self, ErrorKind};
use tidings_core::{Epoch, Filter, Grant, Matchers, Topic, limits, shard::Page};

pub(super) const NAME: &str = "latest";
const NEW: &str = "latest.new";
const MAGIC: &[u8; 8] = b"TIDLAST\n";
const HEADER: usize = 28;

/// Writes it down as it is now, as far as that works.
pub(super) fn save(log: &Log) {
    if !log.rules.has_latest() {
        return;
    }
    let bytes = {
        let view = log.view();
        to_bytes(log.epoch, &log.rules, view.head, &log.latest())
    };
    let write = || {
        let _ = log.files.remove(NEW);
        log.files.create(NEW)?.write_at(&bytes, 0)?;
        log.files.rename(NEW, NAME)
    };
    if let Err(error) = write() {
        // On a full disk it would take the room that removing needs.
        let _ = log.files.remove(NEW);
        tracing::warn!(%error, "the table of latest events could not be written; the next start looks for them in the log");
    }
}

fn to_bytes(epoch: Epoch, rules: &Rules, through: u64, latest: &Latest) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(epoch.0.to_le_bytes());
    bytes.extend(through.to_le_bytes());
    let terms = rules.latest_terms();
    bytes.extend((terms.len() as u32).to_le_bytes());
    bytes.extend(terms);
    for (sequence, Entry { topics, event_type, private, bytes: cost }) in latest.iter() {
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(cost.to_le_bytes());
        bytes.push((*private).into());
        bytes.push(event_type.len() as u8);
        bytes.extend(event_type.as_bytes());
        bytes.extend((topics.len() as u16).to_le_bytes());
        for topic in topics.iter() {
            bytes.extend((topic.as_str().len() as u16).to_le_bytes());
            bytes.extend(topic.as_str().as_bytes());
        }
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// The last event that a table knew of, and its entries.
type Known = (u64, Vec<(u64, Entry)>);

fn parse(bytes: &[u8], epoch: Epoch, rules: &Rules) -> Option<Known> {
    let (contents, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let checks = contents.len() >= HEADER && contents[..8] == *MAGIC && crc32c::crc32c(contents) == u32_at(checksum, 0);
    if !checks || u16_at(contents, 8) != VERSION || u32_at(contents, 12) != epoch.0 {
        return None;
    }
    let mut rest = &contents[HEADER..];
    let mut take = |len: usize| {
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(part)
    };
    if take(u32_at(contents, 24) as usize)? != rules.latest_terms() {
        return None;
    }
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Box::<str>::from);
    let mut entries = Vec::new();
    while let Some(fixed) = take(18) {
        let event_type = text(take(fixed[17].into())?)?;
        let count = u16_at(take(2)?, 0);
        let topics = (0..count).map(|_| {
            let len = u16_at(take(2)?, 0);
            Some(Topic::stored(&text(take(len.into())?)?))
        });
        let topics = topics.collect::<Option<Vec<_>>>().filter(|topics| !topics.is_empty())?.into();
        entries.push((u64_at(fixed, 0), Entry { topics, event_type, private: fixed[16] != 0, bytes: u64_at(fixed, 8) }));
    }
    Some((u64_at(contents, 16), entries))
}

impl Log {
    /// Finds what is the latest of its kind: what the table says, as far as it is there, and then what came later.
    pub(super) fn find_latest(&self) -> io::Result<()> {
        if !self.rules.has_latest() {
            return Ok(());
        }
        let known = || -> io::Result<Option<Known>> {
            let bytes = match read_whole(&*self.files, NAME) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            parse(&bytes, self.epoch, &self.rules).ok_or_else(|| invalid("it does not check, or is of other rules")).map(Some)
        };
        let (through, entries) = known()
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the table of latest events is made again from the log");
                None
            })
            .unwrap_or_default();
        self.take_over(entries)?;
        let prefixes = Matchers::new(self.rules.latest_prefixes().cloned());
        let filter = Filter::new(prefixes, &Grant::full());
        let limits = PageLimits { bytes: 1 << 20, events: limits::PAGE_SCAN, scanned: limits::PAGE_SCAN };
        let head = self.view().head;
        let mut page = Page::new(Vec::new(), through);
        while page.covered_through < head {
            let at = page.covered_through;
            page = Page::new(Vec::new(), at);
            self.read_on(&mut page, head, &filter, limits, &|_| true)?;
            // One that cannot be read may have been the latest of anything; what is known stays.
            page.covered_through = page.covered_through.max(at + 1);
            let mut latest = self.latest();
            for record in &page.records {
                latest.push(&self.rules, record, |sequence, entry| self.replaced(sequence, entry));
            }
        }
        Ok(())
    }

    /// Takes entries over whose events are there.
    fn take_over(&self, entries: Vec<(u64, Entry)>) -> io::Result<()> {
        let sequences: Vec<u64> = entries.iter().map(|(sequence, _)| *sequence).collect();
        let mut there = Vec::with_capacity(entries.len());
        while let Some(&first) = sequences.get(there.len()) {
            let rest = &sequences[there.len()..];
            let found = self.by_position(first - 1, |index, place, last| {
                let begin = place.header.first;
                let end = index.rank(begin, last + 1)?;
                let is_there = |&sequence: &u64| {
                    let event = index.rank(begin, sequence)?;
                    Ok(event < end && index.sequence(begin, event)? == sequence)
                };
                rest.iter().take_while(|&&sequence| sequence <= last).map(is_there).collect::<io::Result<Vec<bool>>>()
            })?;
            let Some((found, _)) = found else { break };
            there.extend(found);
        }
        let mut latest = self.latest();
        for ((sequence, entry), _) in entries.into_iter().zip(there).filter(|(_, is_there)| *is_there) {
            latest.insert(sequence, entry);
        }
        Ok(())
    }
}
