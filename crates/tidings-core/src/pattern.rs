//! URL patterns (M-32 to M-34): compiled once for a hub, matched in a time linear in the topic, and kept as long as somebody uses them.
//!
//! The standard's syntax is the crate `urlpattern`'s to know; what it makes of a pattern is turned into something small here. This file
//! knows patterns and URLs, not who asks.

mod compiled;

use crate::{TopicError, limits, names::Name, topic::check_hidden};
use compiled::Compiled;
pub(crate) use compiled::line;
use std::{
    cmp,
    collections::BTreeMap,
    fmt, hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use url::Url;

/// The URL patterns of one hub: what relative ones, and relative topics, are relative to (M-32), and those in use now. Equal patterns are one
/// in memory, and one that nobody uses any more is forgotten.
///
/// ```
/// use tidings_core::{Topic, TopicMatcher, UrlPatterns};
/// let patterns = UrlPatterns::new("https://example.com/.well-known/mercure", 10).unwrap();
/// let books = TopicMatcher::url_pattern("/books/:id", &patterns)?;
/// assert!(books.matches(&Topic::parse("https://example.com/books/1").unwrap()));
/// assert!(books.matches(&Topic::parse("/books/1").unwrap()));
/// assert!(!books.matches(&Topic::parse("/books/1/pages").unwrap()));
/// # Ok::<(), tidings_core::PatternError>(())
/// ```
#[derive(Clone)]
pub struct UrlPatterns(Arc<Table>);

struct Table {
    base: Arc<Url>,
    most: usize,
    /// Those in use, and for a moment those that are about to be forgotten.
    in_use: Mutex<BTreeMap<Box<str>, Weak<UrlPattern>>>,
}

/// Why a string is not accepted as a URL pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// What no topic may contain either (M-21).
    #[error(transparent)]
    Text(TopicError),
    /// Longer than [`limits::PATTERN`].
    #[error("a URL pattern may have at most {limit} bytes, this one has {0}", limit = limits::PATTERN)]
    TooLong(usize),
    /// It is none by the standard's syntax.
    #[error("not a valid URL pattern: {0}")]
    Invalid(String),
    /// A part of it that contains a regular expression cannot be compiled: it is no regular expression, or looks around or back, which
    /// cannot be matched in linear time (M-34).
    #[error("the {part} of the URL pattern contains a regular expression that is not supported: {why}")]
    Expression {
        /// Which part of the URL.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Its automata would take more than [`limits::PATTERN_AUTOMATA`].
    #[error("the URL pattern is too complicated; use fewer or simpler regular expressions, or several patterns")]
    TooComplicated,
    /// As many distinct patterns are in use as the hub allows; it says how many (M-23).
    #[error("{0} different URL patterns are in use, which is as many as this hub allows; use one that others use, or try later")]
    TooMany(usize),
}

/// Why a string cannot be what relative patterns and topics are relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the base of URL patterns must be an absolute URL with a path, such as https://example.com/.well-known/mercure")]
pub struct BaseError;

impl UrlPatterns {
    /// No pattern yet, at most so many ([`limits::URL_PATTERNS`] unless there is a reason), and the hub's public URL.
    pub fn new(base: &str, most: usize) -> Result<UrlPatterns, BaseError> {
        let base = Url::parse(base).ok().filter(|url| !url.cannot_be_a_base()).ok_or(BaseError)?;
        Ok(UrlPatterns(Arc::new(Table { base: Arc::new(base), most, in_use: Mutex::default() })))
    }

    /// What relative patterns and topics are relative to.
    pub fn base(&self) -> &str {
        self.0.base.as_str()
    }

    /// How many different patterns are in use.
    pub fn len(&self) -> usize {
        self.0.in_use().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The compiled form of a pattern, shared by everybody who uses it.
    pub(crate) fn get(&self, text: &str) -> Result<Arc<UrlPattern>, PatternError> {
        if text.len() > limits::PATTERN {
            return Err(PatternError::TooLong(text.len()));
        }
        if let Some(pattern) = self.0.in_use().get(text).and_then(Weak::upgrade) {
            return Ok(pattern);
        }
        check_hidden(text).map_err(PatternError::Text)?;
        let full = || PatternError::TooMany(self.0.most);
        if self.len() >= self.0.most {
            return Err(full());
        }
        // Without the lock: this may take milliseconds.
        let compiled = Compiled::new(text, &self.0.base)?;
        let mut in_use = self.0.in_use();
        let kept = in_use.get(text).and_then(Weak::upgrade);
        if let Some(pattern) = kept {
            return Ok(pattern);
        }
        if in_use.len() >= self.0.most && !in_use.contains_key(text) {
            return Err(full());
        }
        let pattern = Arc::new(UrlPattern { text: text.into(), base: self.0.base.clone(), compiled, of: Arc::downgrade(&self.0) });
        in_use.insert(text.into(), Arc::downgrade(&pattern));
        Ok(pattern)
    }
}

impl Table {
    fn in_use(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Weak<UrlPattern>>> {
        // Nothing in here panics half-way through a change.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for UrlPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlPatterns").field("base", &self.base()).field("in_use", &self.len()).field("most", &self.0.most).finish()
    }
}

/// A compiled pattern. Two are equal if their texts and bases are.
pub(crate) struct UrlPattern {
    text: Box<str>,
    base: Arc<Url>,
    compiled: Compiled,
    of: Weak<Table>,
}

impl UrlPattern {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What the pattern and topics are relative to.
    pub(crate) fn base(&self) -> &Arc<Url> {
        &self.base
    }

    /// What [`line`] begins with for every URL that matches.
    pub(crate) fn head(&self) -> &str {
        &self.compiled.head
    }

    /// Bytes that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<UrlPattern>() + self.text.len() + self.compiled.memory()
    }

    /// Whether a topic, read as a reference against the base, is among those meant; one that cannot be read so never is (M-33).
    pub(crate) fn matches(&self, name: Name<'_>) -> bool {
        name.is_url(&self.base, |url| self.matches_url(url))
    }

    pub(crate) fn matches_url(&self, url: &Url) -> bool {
        self.compiled.matches(url)
    }
}

impl Drop for UrlPattern {
    /// Nobody uses it any more.
    fn drop(&mut self) {
        if let Some(table) = self.of.upgrade() {
            let mut in_use = table.in_use();
            // Somebody may have compiled it anew meanwhile.
            if in_use.get(&*self.text).is_some_and(|pattern| pattern.strong_count() == 0) {
                in_use.remove(&*self.text);
            }
        }
    }
}

impl PartialEq for UrlPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.base == other.base
    }
}

impl Eq for UrlPattern {}

impl hash::Hash for UrlPattern {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for UrlPattern {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.text.cmp(&other.text).then_with(|| self.base.cmp(&other.base))
    }
}

impl PartialOrd for UrlPattern {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
