//! What a run counted, and how the counts of several processes are added up. It knows numbers only.

use super::{histogram::Histogram, stamp::Faults};
use serde_json::{Value, json};

/// What was counted.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    /// Events that came for the first time.
    pub(super) deliveries: u64,
    pub(super) warm_up_published: u64,
    pub(super) warm_up_deliveries: u64,
    pub(super) faults: Faults,
    pub(super) gaps: u64,
    /// Streams that ended after they were open.
    pub(super) ended: u64,
    /// Subscriptions answered with something else than a stream.
    pub(super) refused: u64,
    /// Connections that failed before any answer.
    pub(super) failed: u64,
    pub(super) reads: u64,
    pub(super) latency: Histogram,
    pub(super) answered: Histogram,
    /// When the last measured event came.
    pub(super) last: u64,
}

impl Counts {
    /// Every number with its name, so that no list of them can forget one.
    fn numbers(&mut self) -> [(&'static str, &mut u64); 12] {
        [
            ("published", &mut self.published),
            ("deliveries", &mut self.deliveries),
            ("warm_up_published", &mut self.warm_up_published),
            ("warm_up_deliveries", &mut self.warm_up_deliveries),
            ("missing", &mut self.faults.missing),
            ("duplicates", &mut self.faults.duplicates),
            ("out_of_order", &mut self.faults.out_of_order),
            ("gaps", &mut self.gaps),
            ("ended", &mut self.ended),
            ("refused", &mut self.refused),
            ("failed", &mut self.failed),
            ("reads", &mut self.reads),
        ]
    }

    /// Adds what another process counted.
    pub(super) fn add(&mut self, mut other: Counts) {
        for ((_, sum), (_, more)) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *more;
        }
        self.latency.merge(&other.latency);
        self.answered.merge(&other.answered);
        self.last = self.last.max(other.last);
    }

    /// For the way from one process to another.
    pub(super) fn into_json(mut self) -> Value {
        let numbers = self.numbers().map(|(name, value)| (name.to_owned(), json!(*value)));
        json!({"numbers": Value::Object(numbers.into_iter().collect()), "last": self.last,
            "latency": self.latency.to_json(), "answered": self.answered.to_json()})
    }

    pub(super) fn from_json(value: &Value) -> Option<Counts> {
        let mut counts = Counts { last: value["last"].as_u64()?, ..Counts::default() };
        for (name, number) in counts.numbers() {
            *number = value["numbers"][name].as_u64()?;
        }
        counts.latency = Histogram::from_json(&value["latency"])?;
        counts.answered = Histogram::from_json(&value["answered"])?;
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes together say what one would have said: percentiles are those of all events, not means of percentiles.
    #[test]
    fn processes_add_up() {
        let (mut one, mut two, mut all) = (Counts::default(), Counts::default(), Counts::default());
        for (number, (_, value)) in one.numbers().into_iter().enumerate() {
            *value = number as u64 + 1;
        }
        for ms in 1..=1_000 {
            let part = if ms > 900 { &mut two } else { &mut one };
            part.latency.add(ms * 1_000_000);
            all.latency.add(ms * 1_000_000);
        }
        (one.last, two.last) = (5, 9);
        for part in [one.clone(), two] {
            let sent = part.clone().into_json().to_string();
            let came = Counts::from_json(&serde_json::from_str(&sent).unwrap()).unwrap();
            assert_eq!(came, part);
        }
        let mut sum = one.clone();
        let mut two = Counts { last: 9, deliveries: 10, ..Counts::default() };
        (901..=1_000).for_each(|ms| two.latency.add(ms * 1_000_000));
        sum.add(two);
        assert_eq!((sum.deliveries, sum.published, sum.last), (12, 1, 9));
        assert_eq!(sum.latency, all.latency);
    }

    #[test]
    fn half_a_message_is_none() {
        assert_eq!(Counts::from_json(&json!({"last": 1, "numbers": {}})), None);
    }
}
