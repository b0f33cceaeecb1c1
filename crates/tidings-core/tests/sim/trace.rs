//! What a run did: a hash of all of it, so that two runs can be compared; its last lines, when somebody wants to read them; and how
//! often each thing happened. It judges nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

const TAIL_LINES: usize = 60;

pub(crate) struct Trace {
    hasher: DefaultHasher,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn new(readable: bool) -> Trace {
        Trace { hasher: DefaultHasher::new(), lines: readable.then(VecDeque::new) }
    }

    pub(crate) fn note(&mut self, what: &str, numbers: &[u64]) {
        (what, numbers).hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            if lines.len() == TAIL_LINES {
                lines.pop_front();
            }
            lines.push_back(format!("{what} {numbers:?}"));
        }
    }

    /// Bytes written to a connection: all of them decide the hash.
    pub(crate) fn bytes(&mut self, what: &str, numbers: &[u64], bytes: &[u8]) {
        bytes.hash(&mut self.hasher);
        self.note(what, numbers);
        if let Some(line) = self.lines.as_mut().and_then(VecDeque::back_mut) {
            line.extend([" ", &String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).escape_debug().to_string()]);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn tail(&self) -> String {
        self.lines.iter().flatten().fold(String::new(), |text, line| text + "  " + line + "\n")
    }
}

/// How often each thing happened, by name.
#[derive(Clone, Default)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &str, times: u64) {
        match self.0.get_mut(what) {
            Some(count) => *count += times,
            None => {
                self.0.insert(what.to_owned(), times);
            }
        }
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Counts) {
        for (what, &times) in &other.0 {
            self.add(what, times);
        }
    }

    pub(crate) fn table(&self) -> String {
        self.0.iter().fold(String::new(), |text, (what, times)| text + &format!("  {times:>12}  {what}\n"))
    }
}
