//! What every event of a load run carries at the beginning of its data, and the check that each subscriber gets each of them, once and
//! in order.
//!
//! A stamp has a fixed width, so that it is written and read without looking for its end: `~` publisher (2 hex digits), phase (1), number
//! (8), intended time of sending in nanoseconds (16). It knows no sockets.

use std::collections::HashSet;

/// Bytes of a stamp.
pub(super) const LEN: usize = 28;

/// Part of a run that an event belongs to; only those of the measured part are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    WarmUp,
    Measured,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub(super) publisher: u8,
    pub(super) phase: Phase,
    /// From 1, by publisher.
    pub(super) number: u32,
    /// When it was to be sent, in nanoseconds of a clock that all processes of the run share.
    pub(super) intended: u64,
}

impl Stamp {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut put = |value: u64, digits: u32| {
            for place in (0..digits).rev() {
                out.push(DIGITS[(value >> (4 * place)) as usize & 15]);
            }
        };
        put(u64::from(self.publisher), 2);
        put(u64::from(self.phase == Phase::Measured), 1);
        put(u64::from(self.number), 8);
        put(self.intended, 16);
        let at = out.len() + 1 - LEN;
        out.insert(at, b'~');
    }

    /// The stamp that data begins with.
    pub(super) fn read(data: &[u8]) -> Option<Stamp> {
        let digits = data.get(..LEN)?.strip_prefix(b"~")?;
        let hex = |from: usize, to: usize| {
            digits[from..to].iter().try_fold(0, |value, &digit| {
                let digit = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                Some(value << 4 | u64::from(digit))
            })
        };
        let phase = if hex(2, 3)? == 0 { Phase::WarmUp } else { Phase::Measured };
        Some(Stamp { publisher: hex(0, 2)? as u8, phase, number: hex(3, 11)? as u32, intended: hex(11, 27)? })
    }
}

/// What went wrong, over all subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Faults {
    pub(super) missing: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
}

/// Numbers that are remembered as skipped; beyond it a number that comes late counts as missing and as a duplicate.
const SKIPPED_MAX: usize = 1 << 20;

/// What each reader expects next of each sender, and what it missed so far. A slot is one reader's view of one sender.
#[derive(Debug)]
pub(super) struct Checker {
    expected: Vec<u32>,
    skipped: HashSet<(usize, u32)>,
}

impl Checker {
    pub(super) fn new(slots: usize) -> Checker {
        Checker { expected: vec![1; slots], skipped: HashSet::new() }
    }

    /// Everybody starts with this number.
    pub(super) fn expect(&mut self, number: u32) {
        self.expected.fill(number);
    }

    /// Takes one number; says whether it came for the first time. Numbers skipped are missing until they come.
    pub(super) fn take(&mut self, slot: usize, number: u32, faults: &mut Faults) -> bool {
        let expected = &mut self.expected[slot];
        if number >= *expected {
            faults.missing += u64::from(number - *expected);
            let room = SKIPPED_MAX.saturating_sub(self.skipped.len());
            self.skipped.extend((*expected..number).take(room).map(|skipped| (slot, skipped)));
            *expected = number + 1;
            true
        } else if !self.skipped.is_empty() && self.skipped.remove(&(slot, number)) {
            faults.missing -= 1;
            faults.out_of_order += 1;
            true
        } else {
            faults.duplicates += 1;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back() {
        for (publisher, phase, number, intended) in
            [(0, Phase::WarmUp, 1, 0), (255, Phase::Measured, u32::MAX, u64::MAX), (15, Phase::Measured, 4_096, 1_234_567)]
        {
            let stamp = Stamp { publisher, phase, number, intended };
            let mut bytes = b"before".to_vec();
            stamp.write(&mut bytes);
            assert_eq!(bytes.len(), 6 + LEN);
            assert_eq!(Stamp::read(&bytes[6..]), Some(stamp));
        }
        assert_eq!(Stamp::read(b"hello"), None);
        assert_eq!(Stamp::read(&[b'~'; LEN]), None);
    }

    #[test]
    fn faults_are_seen() {
        let take = |numbers: &[u32]| {
            let (mut checker, mut faults) = (Checker::new(2), Faults::default());
            let fresh = numbers.iter().filter(|&&number| checker.take(1, number, &mut faults)).count();
            (fresh, faults)
        };
        let none = Faults::default();
        assert_eq!(take(&[1, 2, 3]), (3, none));
        assert_eq!(take(&[1, 3]), (2, Faults { missing: 1, ..none }));
        assert_eq!(take(&[1, 1]), (1, Faults { duplicates: 1, ..none }));
        assert_eq!(take(&[2, 1]), (2, Faults { out_of_order: 1, ..none }));
        assert_eq!(take(&[3, 1, 1]), (2, Faults { missing: 1, duplicates: 1, out_of_order: 1 }));
    }
}
