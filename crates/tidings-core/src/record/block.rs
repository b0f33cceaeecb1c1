//! How records lie in memory: those of one append side by side, their bytes in one buffer and everything else in a few words each.
//!
//! It knows places in bytes that `wire` wrote. What an event means, and who wants it, is known elsewhere.

use crate::{
    Epoch, Framing, Topics,
    topics::{COUNTS, allocated},
};
use bytes::Bytes;
use std::borrow::Cow;

/// Set in [`Part::flags`] and in the first byte of the stored form.
pub(crate) const PRIVATE: u8 = 1;
/// The publisher gave the id.
pub(crate) const NAMED: u8 = 4;
/// It answers for the memory of its topics.
pub(super) const OWN_TOPICS: u8 = 16;

/// Records of one append whose bytes share a buffer. Whoever holds one of them holds all.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Bytes,
    pub(super) parts: Parts,
    /// The second view of one that stands alone, if it has one.
    pub(super) second: Option<Box<Frame>>,
    pub(super) first: u64,
    pub(super) accepted_at: u64,
    pub(super) epoch: Epoch,
    /// Bytes of memory beside those of its records; the first of them answers for it.
    pub(super) extra: u32,
}

/// A block of one is one allocation beside its bytes.
#[derive(Debug)]
pub(super) enum Parts {
    One(Part),
    Many(Box<[Part]>),
}

/// One record's.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) topics: Topics,
    pub(super) frame: Frame,
}

/// An event's bytes in a buffer: chunk header, stream bytes, CR LF; and where its parts are in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Where they begin.
    pub(crate) at: u32,
    pub(crate) len: u32,
    /// Where the last `data:` line ends, its LF excluded. The id follows it.
    pub(crate) data_end: u32,
    /// Where the text after the first `data: ` begins.
    pub(crate) data_start: u16,
    /// Where the stream bytes begin; they end two bytes before the end.
    pub(crate) start: u8,
    /// Of the record, in its first view.
    pub(crate) flags: u8,
}

// What a hub keeps in memory is a hundred thousand of these and their bytes.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Part>() <= 24);

impl Parts {
    pub(super) fn as_slice(&self) -> &[Part] {
        match self {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    pub(super) fn get(&self, index: u32) -> &Part {
        match self {
            Parts::One(part) => part,
            Parts::Many(parts) => &parts[index as usize],
        }
    }
}

impl Block {
    pub(super) fn bytes_of(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.at as usize..][..frame.len as usize]
    }
}

impl Frame {
    /// The id is the last line: after the data, and before the blank line and the end of the chunk.
    pub(crate) fn id_at(&self) -> usize {
        self.data_end as usize + "\nid: ".len()
    }

    /// The id, the publisher's or a minted one, in the bytes of this frame.
    pub(super) fn id<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.id_at()..bytes.len().saturating_sub(END.len())).unwrap_or_default()
    }

    /// The publisher's id.
    pub(super) fn given_id<'a>(&self, bytes: &'a [u8]) -> Option<&'a str> {
        if self.flags & NAMED == 0 { None } else { std::str::from_utf8(self.id(bytes)).ok() }
    }

    /// The type stands first, if there is one.
    pub(super) fn event_type<'a>(&self, bytes: &'a [u8]) -> Option<&'a str> {
        let rest = bytes.get(self.start.into()..)?.strip_prefix(b"event: ")?;
        std::str::from_utf8(&rest[..memchr::memchr(b'\n', rest)?]).ok()
    }

    /// The data with LF for every line end.
    pub(super) fn data<'a>(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(&bytes[self.data_start.into()..self.data_end as usize]);
        if text.contains('\n') { text.replace("\ndata: ", "\n").into() } else { text }
    }

    /// How many `data:` lines there are.
    pub(super) fn data_lines(&self, bytes: &[u8]) -> u32 {
        1 + memchr::memchr_iter(b'\n', &bytes[self.data_start.into()..self.data_end as usize]).count() as u32
    }

    /// Where the bytes for a connection are, from the beginning of the frame.
    pub(super) fn framed(&self, framing: Framing) -> std::ops::Range<usize> {
        match framing {
            Framing::Chunked => 0..self.len as usize,
            Framing::Plain => self.start.into()..self.len as usize - 2,
        }
    }

    /// The same for a buffer in which it begins elsewhere.
    pub(super) fn moved_to(self, at: usize) -> Frame {
        Frame { at: at as u32, ..self }
    }
}

/// What follows the id.
const END: &[u8] = b"\n\n\r\n";

/// Bytes of memory that a record takes beside its topics and what its block takes: its frames, what else is known of it, and the entry of a
/// [`crate::Window`].
pub(super) fn part_cost(frame: &Frame, second: Option<&Frame>) -> usize {
    let second = second.map_or(0, |second| size_of::<Frame>() + second.len as usize);
    size_of::<Part>() + crate::window::ENTRY + frame.len as usize + second
}

/// Bytes of memory that a block with a buffer of this length takes beside the parts and bytes of its records.
pub(super) fn block_cost(buffer: usize) -> usize {
    COUNTS + size_of::<Block>() - size_of::<Part>() + allocated(buffer) - buffer
}
