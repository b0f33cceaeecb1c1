//! How the hub writes the places of its log as ids: as they are (S-17), or so that ids tell nothing of their order (M-95).
//!
//! It knows the form of an id and a key, not which places a log holds, nor where the key comes from.

use crate::{Epoch, EventId, Position};
use std::fmt;

/// The form of the ids that a hub mints. Both have [`Position::ID_LEN`] bytes and name their epoch.
///
/// The opaque one has the number of the event under a permutation that nobody knows without its key: whoever holds two ids can neither say which
/// is later nor how many lie between them, and whoever makes one up will not meet an event.
///
/// ```
/// use tidings_core::{Epoch, IdForm, Position};
/// let position = Position { epoch: Epoch(0x5f3a_9c01), sequence: 42 };
/// assert_eq!(IdForm::PLAIN.text(position), "#5f3a9c01-000000000000002a");
/// let opaque = IdForm::opaque(*b"sixteen bytes...");
/// assert_eq!(opaque.parse(&opaque.text(position)), Some(position));
/// assert_eq!(opaque.parse("#5f3a9c01-000000000000002a"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdForm(Option<[u8; 16]>);

/// What stands in an opaque id where a plain one has a hyphen. It is safe in fields that pages send to other origins (S-17).
const MARK: u8 = b'_';
/// The place of it, behind `#` and the epoch.
const MARK_AT: usize = 9;

/// No log gets here: a million events a second take nine years. What an id of another key, or one that was made up, comes to mean lies
/// beyond it but for one in 65,536, and so is an unknown id rather than a place that was lost.
const BEYOND: u64 = 1 << 48;

impl IdForm {
    /// Epoch and sequence as they are.
    pub const PLAIN: IdForm = IdForm(None);

    /// The sequence permuted under a key. Another key makes ids of this one unknown.
    pub fn opaque(key: [u8; 16]) -> IdForm {
        IdForm(Some(key))
    }

    /// Whether ids say nothing of their order.
    pub fn is_opaque(self) -> bool {
        self.0.is_some()
    }

    /// The bytes on the wire.
    pub fn bytes(self, position: Position) -> [u8; Position::ID_LEN] {
        let Some(key) = self.0 else { return position.id_bytes() };
        let sequence = Rounds::new(key).permute(tweaked(position.sequence, position.epoch));
        let mut id = Position { sequence, ..position }.id_bytes();
        id[MARK_AT] = MARK;
        id
    }

    /// The id of the event at a place.
    pub fn id(self, position: Position) -> EventId {
        EventId::minted(self.bytes(position))
    }

    /// The same as text.
    pub fn text(self, position: Position) -> String {
        self.id(position).as_str().to_owned()
    }

    /// Reads an id of this form, with or without the leading `#` (S-17).
    pub fn parse(self, text: &str) -> Option<Position> {
        let Some(key) = self.0 else { return Position::parse(text) };
        let digits = text.strip_prefix('#').unwrap_or(text).as_bytes();
        let mut plain: [u8; Position::ID_LEN - 1] = digits.try_into().ok()?;
        let mark = &mut plain[MARK_AT - 1];
        if *mark != MARK {
            return None;
        }
        *mark = b'-';
        let Position { epoch, sequence } = Position::parse(std::str::from_utf8(&plain).ok()?)?;
        let sequence = tweaked(Rounds::new(key).restore(sequence), epoch);
        (sequence < BEYOND).then_some(Position { epoch, sequence })
    }
}

impl fmt::Debug for IdForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_opaque() { "opaque" } else { "plain" })
    }
}

/// The same sequence in another epoch becomes another id.
fn tweaked(sequence: u64, epoch: Epoch) -> u64 {
    sequence ^ u64::from(epoch.0) << 32
}

/// The block cipher Speck64/128, whose blocks have the size of a sequence: 27 rounds of an addition, two rotations and an exclusive or.
struct Rounds([u32; 27]);

impl Rounds {
    fn new(key: [u8; 16]) -> Rounds {
        let word = |at: usize| u32::from_le_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
        let (mut first, mut others) = (word(0), [word(4), word(8), word(12)]);
        let mut keys = [0; 27];
        for (round, key) in keys.iter_mut().enumerate() {
            *key = first;
            (others[round % 3], first) = forward(others[round % 3], first, round as u32);
        }
        Rounds(keys)
    }

    fn permute(&self, block: u64) -> u64 {
        let halves = ((block >> 32) as u32, block as u32);
        let (x, y) = self.0.iter().fold(halves, |(x, y), &key| forward(x, y, key));
        u64::from(x) << 32 | u64::from(y)
    }

    fn restore(&self, block: u64) -> u64 {
        let halves = ((block >> 32) as u32, block as u32);
        let (x, y) = self.0.iter().rev().fold(halves, |(x, y), &key| {
            let y = (y ^ x).rotate_right(3);
            ((x ^ key).wrapping_sub(y).rotate_left(8), y)
        });
        u64::from(x) << 32 | u64::from(y)
    }
}

fn forward(x: u32, y: u32, key: u32) -> (u32, u32) {
    let x = x.rotate_right(8).wrapping_add(y) ^ key;
    (x, y.rotate_left(3) ^ x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The published example of the cipher: key 1b1a1918 13121110 0b0a0908 03020100.
    #[test]
    fn published_vector() {
        let mut key = [0; 16];
        for (at, word) in [0x0302_0100_u32, 0x0b0a_0908, 0x1312_1110, 0x1b1a_1918].into_iter().enumerate() {
            key[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let rounds = Rounds::new(key);
        assert_eq!(rounds.permute(0x3b72_6574_7475_432d), 0x8c6f_a548_454e_028b);
        assert_eq!(rounds.restore(0x8c6f_a548_454e_028b), 0x3b72_6574_7475_432d);
    }

    /// M-95, S-17: literally, and what is some other id.
    #[test]
    fn literal_ids() {
        let opaque = IdForm::opaque(*b"0123456789abcdef");
        let at = |sequence| Position { epoch: Epoch(0x5f3a_9c01), sequence };
        assert_eq!(opaque.text(at(1)), "#5f3a9c01_df96182005a8d9d3");
        assert_eq!(opaque.text(at(2)), "#5f3a9c01_4412a8fc6784df95");
        let id = opaque.text(at(42));
        assert_eq!(opaque.parse(&id[1..]), Some(at(42)));
        assert_eq!((IdForm::PLAIN.parse(&id), Position::parse(&id)), (None, None));
        for other in [at(42).to_string(), id.to_uppercase(), id[..25].to_owned(), format!("#{id}"), id.replace('_', "é"), String::new()] {
            assert_eq!(opaque.parse(&other), None, "{other}");
        }
        assert_eq!(IdForm::opaque(*b"another key.....").parse(&id), None);
    }

    proptest! {
        /// M-95: every place has an id of its own, in every epoch, and it reads back.
        #[test]
        fn round_trip(key: [u8; 16], epoch: u32, sequence in 0..BEYOND) {
            let (form, position) = (IdForm::opaque(key), Position { epoch: Epoch(epoch), sequence });
            let elsewhere = Position { epoch: Epoch(epoch ^ 1), ..position };
            prop_assert_eq!(form.parse(&form.text(position)), Some(position));
            prop_assert_eq!(form.parse(&form.text(position)[1..]), Some(position));
            prop_assert_ne!(&form.bytes(position)[10..], &form.bytes(elsewhere)[10..]);
        }
    }
}
