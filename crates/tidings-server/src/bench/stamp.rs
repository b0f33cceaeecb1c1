//! What every event of a load run carries at the beginning of its data, and the check that each subscriber gets each of them, once and
//! in order.
//!
//! A stamp has a fixed width, so that it is written and read without looking for its end: `~` publisher (2 hex digits), phase (1), number
//! (8), intended time of sending in nanoseconds (16). It knows no sockets.

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
    /// When it was to be sent, in nanoseconds since the run began.
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

/// Takes one number of one publisher as one subscriber sees it. `expected` is the next one; numbers skipped are missing until they come.
pub(super) fn check(expected: &mut u32, number: u32, faults: &mut Faults) {
    if number >= *expected {
        faults.missing += u64::from(number - *expected);
        *expected = number + 1;
    } else {
        // It was missed before, or it was there: which of the two does not matter for a run that has to be clean.
        faults.duplicates += 1;
        faults.out_of_order += 1;
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
            let (mut expected, mut faults) = (1, Faults::default());
            for &number in numbers {
                check(&mut expected, number, &mut faults);
            }
            faults
        };
        assert_eq!(take(&[1, 2, 3]), Faults::default());
        assert_eq!(take(&[1, 3]).missing, 1);
        assert_eq!(take(&[1, 1]).duplicates, 1);
        assert_eq!(take(&[2, 1]), Faults { missing: 1, duplicates: 1, out_of_order: 1 });
    }
}
