//! What one subscriber should receive, and the tally of what all of them did.
//!
//! It knows numbers; where they come from is the stream's.

use std::{collections::BTreeSet, fmt};

/// The sums over all subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) missing: u64,
    pub(crate) out_of_order: u64,
    pub(crate) duplicates: u64,
    /// Events of a topic that was not asked for, or with data nobody published.
    pub(crate) foreign: u64,
    pub(crate) gaps: u64,
    /// Streams that ended or broke before everything had come.
    pub(crate) ended: u64,
}

impl Tally {
    /// Whether every subscriber received `expected` events in all, each once and in order.
    pub(crate) fn is_clean(self, expected: u64) -> bool {
        self == Tally { received: expected, ..Tally::default() }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {}, missing {}, out of order {}, duplicates {}, foreign {}, gaps {}, ended {}",
            self.received, self.missing, self.out_of_order, self.duplicates, self.foreign, self.gaps, self.ended
        )
    }
}

/// One subscriber: it expects `topic:1`, `topic:2` and so on, with ids that grow.
#[derive(Debug)]
pub(crate) struct Check {
    topic: u32,
    next: u32,
    /// Numbers that were jumped over.
    missing: BTreeSet<u32>,
    /// The id before; minted ids have a fixed width, so that they sort as text.
    id: [u8; 26],
}

impl Check {
    pub(crate) fn new(topic: u32) -> Check {
        Check { topic, next: 1, missing: BTreeSet::new(), id: [0; 26] }
    }

    /// An event came.
    pub(crate) fn event(&mut self, data: &[u8], id: &[u8], tally: &mut Tally) {
        let Some(number) = number_in(data, self.topic) else {
            tally.foreign += 1;
            return;
        };
        if number < self.next {
            // It was jumped over, and is late; or it was here before.
            if self.missing.remove(&number) {
                tally.received += 1;
                tally.out_of_order += 1;
            } else {
                tally.duplicates += 1;
            }
            return;
        }
        self.missing.extend(self.next..number);
        self.next = number + 1;
        tally.received += 1;
        match <[u8; 26]>::try_from(id) {
            Ok(id) if id > self.id => self.id = id,
            _ => tally.out_of_order += 1,
        }
    }

    /// Nothing more will come of the `expected` events: how many did not.
    pub(crate) fn missing(&self, expected: u32) -> u64 {
        self.missing.len() as u64 + u64::from((expected + 1).saturating_sub(self.next))
    }
}

fn number_in(data: &[u8], topic: u32) -> Option<u32> {
    let (of, number) = std::str::from_utf8(data).ok()?.split_once(':')?;
    // A payload may be padded to a size.
    let number = number.split(' ').next()?;
    (of.parse::<u32>().ok()? == topic).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(numbers: &[u32]) -> Tally {
        let (mut check, mut tally) = (Check::new(7), Tally::default());
        for (at, number) in numbers.iter().enumerate() {
            check.event(format!("7:{number}").as_bytes(), format!("#5f3a9c01-{at:016x}").as_bytes(), &mut tally);
        }
        tally.missing = check.missing(3);
        tally
    }

    #[test]
    fn each_fault_is_seen() {
        let clean = Tally { received: 3, ..Tally::default() };
        assert!(run(&[1, 2, 3]).is_clean(3));
        assert_eq!(run(&[1, 3]), Tally { received: 2, missing: 1, ..clean });
        assert_eq!(run(&[1, 2]), Tally { received: 2, missing: 1, ..clean });
        assert_eq!(run(&[1, 3, 2]), Tally { out_of_order: 1, ..clean });
        assert_eq!(run(&[1, 2, 2, 3]), Tally { duplicates: 1, ..clean });
    }

    #[test]
    fn foreign_data_and_falling_ids_are_seen() {
        let (mut check, mut tally) = (Check::new(7), Tally::default());
        check.event(b"8:1", b"#5f3a9c01-0000000000000001", &mut tally);
        check.event(b"hello", b"#5f3a9c01-0000000000000002", &mut tally);
        assert_eq!(tally, Tally { foreign: 2, ..Tally::default() });
        check.event(b"7:1 padding", b"#5f3a9c01-0000000000000003", &mut tally);
        check.event(b"7:2", b"#5f3a9c01-0000000000000003", &mut tally);
        assert_eq!(tally, Tally { foreign: 2, received: 2, out_of_order: 1, ..Tally::default() });
    }
}
