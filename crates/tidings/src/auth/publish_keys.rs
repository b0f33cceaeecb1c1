//! Static bearer keys that guard publishing (N-33).
//!
//! It knows which bytes are a key, not where they stood nor what a key gives.

use std::fmt;

/// The publish keys.
#[derive(Clone)]
pub(crate) struct Keys(Vec<Box<[u8]>>);

impl Keys {
    pub(crate) fn new<K: AsRef<str>>(keys: &[K]) -> Self {
        Keys(keys.iter().map(|key| key.as_ref().as_bytes().into()).collect())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key is compared to its end, so that the time taken says neither which key was close nor how close.
    pub(crate) fn contains(&self, given: &[u8]) -> bool {
        self.0.iter().fold(false, |found, key| found | constant_time_eq::constant_time_eq(key, given))
    }
}

/// Keys are secrets; a debug print of a service must not show them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N-33: a key is itself, byte for byte; an empty key guards, and nobody has it.
    #[test]
    fn what_is_a_key() {
        let keys = Keys::new(&["s3cret", "other-key"]);
        for (given, expected) in
            [("s3cret", true), ("other-key", true), ("s3cre", false), ("s3crets", false), ("S3CRET", false), ("", false)]
        {
            assert_eq!(keys.contains(given.as_bytes()), expected, "{given}");
        }
        assert!(!Keys::new(&[""]).is_empty() && Keys::new::<&str>(&[]).is_empty());
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Keys::new(&["s3cret"])), "Keys(1)");
    }
}
