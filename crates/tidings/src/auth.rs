//! Who may do what: static bearer keys that guard publishing (N-33), turned into a grant.
//!
//! It knows the values of `Authorization` fields, not requests or responses; what a refusal looks like is decided in `http/problem.rs`.

use std::fmt;
use tidings_core::Grant;

/// The publish keys. Without any, access is open (N-30).
#[derive(Clone)]
pub(crate) struct Keys(Vec<Box<[u8]>>);

/// Why credentials were not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuthError {
    /// `Bearer` without a key, with more than one word, or more than one `Authorization` field.
    Malformed,
    /// A bearer key that is none of ours.
    Unknown,
}

impl Keys {
    pub(crate) fn new<K: AsRef<str>>(keys: &[K]) -> Self {
        Keys(keys.iter().map(|key| key.as_ref().as_bytes().into()).collect())
    }

    /// Whether nothing guards publishing.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// The rights of a request with these `Authorization` fields. Without bearer credentials it is a reader: another scheme is somebody
    /// else's (a proxy's password, say) and passes unread. Bearer credentials that are wrong are refused even where none are needed,
    /// because who sends them believes to have rights.
    pub(crate) fn grant<'a>(&self, mut authorization: impl Iterator<Item = &'a [u8]>) -> Result<Grant, AuthError> {
        if self.is_open() {
            return Ok(Grant::open());
        }
        let (field, further) = (authorization.next(), authorization.next());
        if further.is_some() {
            return Err(AuthError::Malformed);
        }
        let Some(field) = field else { return Ok(Grant::reader()) };
        let scheme_end = field.iter().position(|&b| b == b' ').unwrap_or(field.len());
        let (scheme, rest) = field.split_at(scheme_end);
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Ok(Grant::reader());
        }
        let key = rest.trim_ascii();
        if key.is_empty() || key.contains(&b' ') {
            return Err(AuthError::Malformed);
        }
        if self.contains(key) { Ok(Grant::open()) } else { Err(AuthError::Unknown) }
    }

    /// Every key is compared to its end, so that the time taken says neither which key was close nor how close.
    fn contains(&self, given: &[u8]) -> bool {
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

    /// N-33: every shape of the field and what it gives.
    #[test]
    fn grants() {
        let keys = Keys::new(&["s3cret", "other-key"]);
        let table: &[(&str, &[&str], Result<Grant, AuthError>)] = &[
            ("none", &[], Ok(Grant::reader())),
            ("the key", &["Bearer s3cret"], Ok(Grant::open())),
            ("another key", &["Bearer other-key"], Ok(Grant::open())),
            ("scheme in capitals", &["BEARER s3cret"], Ok(Grant::open())),
            ("more spaces", &["bearer   s3cret "], Ok(Grant::open())),
            ("another scheme", &["Basic czNjcmV0"], Ok(Grant::reader())),
            ("empty", &[""], Ok(Grant::reader())),
            ("beginning of the key", &["Bearer s3cre"], Err(AuthError::Unknown)),
            ("more than the key", &["Bearer s3crets"], Err(AuthError::Unknown)),
            ("other case", &["Bearer S3CRET"], Err(AuthError::Unknown)),
            ("no key", &["Bearer"], Err(AuthError::Malformed)),
            ("blank key", &["Bearer  "], Err(AuthError::Malformed)),
            ("two words", &["Bearer s3cret x"], Err(AuthError::Malformed)),
            ("twice", &["Bearer s3cret", "Bearer s3cret"], Err(AuthError::Malformed)),
        ];
        for (name, fields, expected) in table {
            assert_eq!(&keys.grant(fields.iter().map(|f| f.as_bytes())), expected, "{name}");
        }
    }

    /// N-30: with no key configured everybody has open access, and a stray field does not matter.
    #[test]
    fn open_access() {
        let keys = Keys::new::<&str>(&[]);
        assert!(keys.is_open());
        for fields in [&[][..], &["Bearer x"], &["a", "b"]] {
            assert_eq!(keys.grant(fields.iter().map(|f| f.as_bytes())), Ok(Grant::open()));
        }
    }

    /// An empty key guards, and nobody has it.
    #[test]
    fn an_empty_key_opens_nothing() {
        let keys = Keys::new(&[""]);
        assert_eq!(keys.grant([&b"Bearer "[..]].into_iter()), Err(AuthError::Malformed));
        assert_eq!(keys.grant([].into_iter()), Ok(Grant::reader()));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Keys::new(&["s3cret"])), "Keys(1)");
    }
}
