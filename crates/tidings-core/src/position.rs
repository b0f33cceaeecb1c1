//! Places in the log and how they are written: position, epoch, and the id that carries both (S-17, S-20).
//!
//! It knows the shape of an id, not which ids a log still holds.

use std::fmt;

/// Which log a sequence number belongs to: 32 random bits, drawn anew whenever continuity with an older log is lost, so that a
/// wiped log is never mistaken for a continuous one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Epoch(pub u32);

/// A place in the log. `sequence` 0 stands before the first event.
///
/// ```
/// use tidings_core::{Epoch, Position};
/// let position = Position { epoch: Epoch(0x5f3a_9c01), sequence: 42 };
/// assert_eq!(position.to_string(), "#5f3a9c01-000000000000002a");
/// assert_eq!(Position::parse("5f3a9c01-000000000000002a"), Some(position));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The log.
    pub epoch: Epoch,
    /// The place in it; events are numbered upwards from 1, possibly with holes.
    pub sequence: u64,
}

impl Position {
    /// Length of a minted id on the wire: `#`, 8 digits, `-`, 16 digits.
    pub const ID_LEN: usize = 26;

    /// The fixed-width form on the wire, lower-case hexadecimal (S-17).
    pub fn id_bytes(self) -> [u8; Self::ID_LEN] {
        let mut id = *b"#00000000-0000000000000000";
        id[1..9].copy_from_slice(&hex(self.epoch.0));
        let high = (self.sequence >> 32) as u32;
        // Few logs get there.
        if high != 0 {
            id[10..18].copy_from_slice(&hex(high));
        }
        id[18..].copy_from_slice(&hex(self.sequence as u32));
        id
    }

    /// Reads a minted id, with or without the leading `#` (people forget to write it as `%23` in a URL; S-17). Exactly the form that
    /// [`Position::id_bytes`] writes: upper-case digits or another width are some other id.
    pub fn parse(text: &str) -> Option<Position> {
        let digits = text.strip_prefix('#').unwrap_or(text).as_bytes();
        if digits.len() != Self::ID_LEN - 1 || digits[8] != b'-' {
            return None;
        }
        Some(Position { epoch: Epoch(read_hex(&digits[..8])? as u32), sequence: read_hex(&digits[9..])? })
    }
}

/// The id of an event in the log, as clients see it and send it back: the publisher's, or the one the hub minted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EventId(Text);

/// Minted ids have one length, so that an append need not allocate for each of its events.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Text {
    Minted([u8; Position::ID_LEN]),
    Given(Box<str>),
}

impl EventId {
    pub(crate) fn minted(id: [u8; Position::ID_LEN]) -> Self {
        EventId(Text::Minted(id))
    }

    pub(crate) fn given(id: &str) -> Self {
        EventId(Text::Given(id.into()))
    }

    /// Its bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Minted(bytes) => bytes,
            Text::Given(id) => id.as_bytes(),
        }
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Minted(bytes) => std::str::from_utf8(bytes).expect("hexadecimal digits"),
            Text::Given(id) => id,
        }
    }
}

impl From<Position> for EventId {
    fn from(position: Position) -> Self {
        EventId(Text::Minted(position.id_bytes()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}-{:016x}", self.epoch.0, self.sequence)
    }
}

/// The eight lower-case digits of a number, all at once: an id is written for every event.
fn hex(value: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // One half byte into each byte.
    let mut digits = u64::from(value);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & (EACH * 15);
    // Those above nine are carried into their upper half by six.
    let letters = ((digits + EACH * 6) >> 4) & EACH;
    (digits + EACH * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_every_other_shape() {
        for text in [
            "",
            "#",
            "#5f3a9c01-000000000000002A",
            "#5F3A9C01-000000000000002a",
            "#5f3a9c01_000000000000002a",
            "##5f3a9c01-000000000000002a",
            "#5f3a9c01-00000000000002a",
            "#5f3a9c01-0000000000000002a",
            "#5f3a9c0é-00000000000002a",
        ] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// S-17, S-20: both forms read back, every form of 26 bytes, and ids sort as positions do.
        #[test]
        fn round_trip_and_order(epoch: u32, a: u64, b: u64) {
            let (a, b) = (Position { epoch: Epoch(epoch), sequence: a }, Position { epoch: Epoch(epoch), sequence: b });
            let text = a.to_string();
            prop_assert_eq!(text.as_bytes(), a.id_bytes());
            prop_assert_eq!(Position::parse(&text), Some(a));
            prop_assert_eq!(Position::parse(&text[1..]), Some(a));
            prop_assert_eq!(a.cmp(&b), a.id_bytes().cmp(&b.id_bytes()));
        }
    }
}
