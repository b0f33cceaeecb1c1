//! All connections of a run: in this process, or, when they are too many for one, the publishers here and the subscribers in further
//! processes.
//!
//! The modes see no difference; sockets are `load.rs`'s.

use super::{
    load::{Load, Opening, Share},
    source,
    tally::Counts,
    worker::{self, Worker},
};
use crate::Failure;
use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

pub(super) struct Fleet {
    load: Load,
    workers: Vec<Worker>,
    per_process: usize,
    subscribers: usize,
}

/// The number of subscribers that the process in this place has, of `total`.
fn part(total: usize, place: usize, per_process: usize) -> usize {
    total.saturating_sub(place * per_process).min(per_process)
}

/// The share of a worker: its first subscriber, their number, and its place among workers whose origins have to differ.
pub(super) fn parse_share(text: &str) -> Option<(usize, usize, Option<u8>)> {
    let mut words = text.split(',');
    let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((first, count, words.next()?.parse().ok()))
}

impl Fleet {
    /// `share` is the whole run; at most `per_process` subscribers are held by one process.
    pub(super) fn new(share: Share, per_process: usize) -> Result<Fleet, Failure> {
        let subscribers = share.subscribers;
        let mut workers = Vec::new();
        if subscribers <= per_process {
            return Ok(Fleet { load: Load::new(share)?, workers, per_process, subscribers });
        }
        let divided = source::is_divided(share.target.address.ip());
        for place in 0..subscribers.div_ceil(per_process) {
            let origin = u8::try_from(place + 1).ok().filter(|_| divided).map_or(String::new(), |place| place.to_string());
            let count = part(subscribers, place, per_process);
            workers.push(Worker::start(&format!("{},{count},{origin}", place * per_process))?);
        }
        let load = Load::new(Share { subscribers: 0, ..share })?;
        Ok(Fleet { load, workers, per_process, subscribers })
    }

    /// Processes that hold subscribers.
    pub(super) fn processes(&self) -> usize {
        self.workers.len().max(1)
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.load.counts.deliveries + self.workers.iter().map(|worker| worker.deliveries).sum::<u64>()
    }

    pub(super) fn warm_up_deliveries(&self) -> u64 {
        self.load.counts.warm_up_deliveries + self.workers.iter().map(|worker| worker.warm_up_deliveries).sum::<u64>()
    }

    /// Looks at everything once; naps if there was nothing.
    pub(super) fn turn(&mut self) -> Result<(), Failure> {
        self.load.turn()?;
        self.workers.iter_mut().try_for_each(Worker::drain)
    }

    /// Connects the subscribers that are not there, up to `to` of them, and waits for the first bytes of each.
    pub(super) fn connect(&mut self, to: usize, opening: &Opening, told: &mut dyn FnMut(usize)) -> Result<(), Failure> {
        if self.workers.is_empty() {
            return self.load.connect(to, opening, told);
        }
        let at_once = opening.at_once.div_ceil(self.workers.len());
        for (place, worker) in self.workers.iter_mut().enumerate() {
            let to = part(to, place, self.per_process);
            worker.send(&format!("connect {to} {at_once} {} {}", u8::from(opening.again), opening.cursor))?;
        }
        self.answers(told).map(drop)
    }

    pub(super) fn close_all(&mut self) -> Result<(), Failure> {
        self.load.close_all();
        self.tell("close")
    }

    /// Everybody starts with this number.
    pub(super) fn expect(&mut self, number: u32) -> Result<(), Failure> {
        self.load.expect(number);
        self.tell(&format!("expect {number}"))
    }

    /// From now on the last `count` subscribers read nothing.
    pub(super) fn stall(&mut self, count: usize) -> Result<(), Failure> {
        self.load.stall(count);
        let from = self.subscribers.saturating_sub(count);
        for (place, worker) in self.workers.iter_mut().enumerate() {
            let all = part(self.subscribers, place, self.per_process);
            worker.send(&format!("stall {}", all - part(from, place, self.per_process)))?;
        }
        Ok(())
    }

    /// The stalled ones read again. Returns how many were closed or told of a gap.
    pub(super) fn unstall(&mut self) -> Result<usize, Failure> {
        if self.workers.is_empty() {
            return self.load.unstall();
        }
        self.tell("unstall")?;
        let answers = self.answers(&mut |_| {})?;
        Ok(answers.iter().filter_map(|answer| answer.strip_prefix("told ")?.parse::<usize>().ok()).sum())
    }

    /// All that was counted so far, everywhere.
    pub(super) fn take_counts(&mut self) -> Result<Counts, Failure> {
        let mut counts = std::mem::take(&mut self.load.counts);
        self.tell("counts")?;
        for answer in self.answers(&mut |_| {})? {
            counts.add(worker::counts(&answer)?);
        }
        Ok(counts)
    }

    fn tell(&mut self, command: &str) -> Result<(), Failure> {
        self.workers.iter_mut().try_for_each(|worker| worker.send(command))
    }

    /// Waits for one answer of each worker.
    fn answers(&mut self, told: &mut dyn FnMut(usize)) -> Result<Vec<String>, Failure> {
        let mut answers: Vec<Option<String>> = vec![None; self.workers.len()];
        while answers.iter().any(Option::is_none) {
            for (worker, answer) in self.workers.iter_mut().zip(&mut answers) {
                if answer.is_none() {
                    *answer = worker.answer()?;
                }
            }
            told(self.workers.iter().map(|worker| worker.open).sum());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Publishers are always here.
impl Deref for Fleet {
    type Target = Load;

    fn deref(&self) -> &Load {
        &self.load
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut Load {
        &mut self.load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (total, per_process, parts) in [(25, 10, vec![10, 10, 5]), (20, 10, vec![10, 10, 0]), (3, 10, vec![3, 0, 0])] {
            assert_eq!((0..3).map(|place| part(total, place, per_process)).collect::<Vec<_>>(), parts);
        }
    }

    #[test]
    fn shares() {
        assert_eq!(parse_share("10,5,2"), Some((10, 5, Some(2))));
        assert_eq!(parse_share("10,5,"), Some((10, 5, None)));
        assert_eq!(parse_share("10"), None);
    }
}
