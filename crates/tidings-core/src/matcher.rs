//! What a subscription asks for: every topic, one topic, a topic and everything below it, or what a URI Template or a URL pattern says.
//!
//! Matching is one small closed type, so that the routing index of a shard can hold each kind in the structure that suits it. It does
//! not know who may receive what it matches; that is [`crate::Grant`]'s.

use crate::{
    PatternError, Topic, UrlPatterns, limits,
    names::{Name, Names},
    pattern::UrlPattern,
    template::Template,
    topic::{TopicError, check_hidden, check_name},
};
use std::{fmt, sync::Arc};

/// One question put to the log: which topics a subscription wants.
///
/// ```
/// use tidings_core::{Topic, TopicMatcher};
/// let below = TopicMatcher::prefix("sysenv")?;
/// assert!(below.matches(&Topic::parse("/sysenv/cpu")?));
/// assert!(!below.matches(&Topic::parse("sysenvironment")?));
/// # Ok::<(), tidings_core::TopicError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicMatcher(pub(crate) Kind);

/// The kinds; private to the crate so that no matcher exists that its constructor did not check.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    All,
    /// Byte for byte (M-31).
    Exact(Arc<str>),
    /// By `/` segments; written without a slash at either end (N-10).
    Prefix(Arc<str>),
    /// A URI Template, and its own text (M-203).
    Template(Arc<Template>),
    /// A URL pattern (M-32).
    Pattern(Arc<UrlPattern>),
}

impl TopicMatcher {
    /// Every topic.
    pub fn all() -> Self {
        TopicMatcher(Kind::All)
    }

    /// Exactly this topic, byte for byte; `*` is every topic (M-30, M-31). The name obeys the character and length rules of a topic
    /// (M-21) but may lie in the hub's own namespace.
    pub fn exact(name: &str) -> Result<Self, TopicError> {
        check_name(name)?;
        Ok(TopicMatcher(if name == "*" { Kind::All } else { Kind::Exact(name.into()) }))
    }

    /// This topic and everything below it, by `/` segments: `a` matches `a` and `a/b`, not `ab`. One slash at either end is not
    /// significant, here and in the topic (N-10); the empty prefix is every topic.
    pub fn prefix(name: &str) -> Result<Self, TopicError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        let name = name.strip_suffix('/').unwrap_or(name);
        if name.is_empty() {
            return Ok(TopicMatcher::all());
        }
        check_name(name)?;
        Ok(TopicMatcher(Kind::Prefix(name.into())))
    }

    /// What a topic selector of the older dialect means (M-203): `*` is every topic, a valid URI Template with an expression is what it
    /// expands to and its own text, and anything else is one topic, byte for byte; the empty one matches nothing that can be published
    /// (M-337). At most [`limits::PATTERN`] bytes.
    ///
    /// ```
    /// use tidings_core::{Topic, TopicMatcher};
    /// let books = TopicMatcher::template("https://example.com/books/{id}")?;
    /// assert!(books.matches(&Topic::parse("https://example.com/books/1")?));
    /// assert!(!books.matches(&Topic::parse("https://example.com/books/1/pages")?));
    /// # Ok::<(), tidings_core::TopicError>(())
    /// ```
    pub fn template(selector: &str) -> Result<Self, TopicError> {
        match check_name(selector) {
            Err(TopicError::TooLong(len)) if len > limits::PATTERN => return Err(TopicError::SelectorTooLong(len)),
            // `check_name` looks at the length first.
            Err(TopicError::TooLong(_)) => check_hidden(selector)?,
            Err(TopicError::Empty) => {}
            checked => checked?,
        }
        Ok(TopicMatcher(match Template::parse(selector) {
            Some(template) => Kind::Template(Arc::new(template)),
            None if selector == "*" => Kind::All,
            None => Kind::Exact(selector.into()),
        }))
    }

    /// Topics that a WHATWG URL pattern matches (M-32): relative patterns and relative topics are relative to the hub's public URL. `*` is
    /// every topic (M-30).
    pub fn url_pattern(pattern: &str, patterns: &UrlPatterns) -> Result<Self, PatternError> {
        Ok(TopicMatcher(if pattern == "*" { Kind::All } else { Kind::Pattern(patterns.get(pattern)?) }))
    }

    /// Whether a topic is among those asked for.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_name(topic.as_str())
    }

    /// The same for any string taken as a topic, such as the text of another matcher (M-84, M-203).
    pub fn matches_name(&self, name: &str) -> bool {
        Names::with(name, |name| self.hits(name))
    }

    pub(crate) fn hits(&self, name: Name<'_>) -> bool {
        match &self.0 {
            Kind::All => true,
            Kind::Exact(exact) => **exact == *name.as_str(),
            Kind::Prefix(prefix) => is_below(prefix, name.as_str()),
            Kind::Template(template) => template.matches(name.as_str()),
            Kind::Pattern(pattern) => pattern.matches(name),
        }
    }

    /// Bytes that its compiled form takes, shared or not: nothing for what is compared as it is written. See [`limits::PATTERNS`].
    pub fn compiled_bytes(&self) -> usize {
        match &self.0 {
            Kind::All | Kind::Exact(_) | Kind::Prefix(_) => 0,
            Kind::Template(template) => template.memory(),
            Kind::Pattern(pattern) => pattern.memory(),
        }
    }

    /// Whether everything that another matcher matches is certainly matched by this one too.
    pub fn covers(&self, other: &TopicMatcher) -> bool {
        match (&self.0, &other.0) {
            (Kind::All, _) => true,
            (_, Kind::All) => false,
            (_, Kind::Exact(other)) => self.matches_name(other),
            (Kind::Prefix(name), Kind::Prefix(other)) => is_below(name, other),
            // All of it begins with its head, and what comes after a slash is below.
            (Kind::Prefix(name), Kind::Template(other)) => other.head().rfind('/').is_some_and(|end| is_below(name, &other.head()[..end])),
            _ => self == other,
        }
    }
}

/// What a matcher is found by in an index: see [`TopicMatcher::key`] and [`Topic::keys`]. Exhaustive on purpose: an index that does not know
/// a kind would lose events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key<'a> {
    /// Every topic has it.
    All,
    /// The name of one topic.
    Exact(&'a str),
    /// A prefix, without a slash at either end.
    Prefix(&'a str),
    /// Topics that begin with this, byte for byte, are to be shown to the matcher.
    Head(&'a str),
}

impl TopicMatcher {
    /// The key under which an index finds this matcher: it matches a topic if and only if the topic has that key. For [`Key::Head`] it is only
    /// if: what begins so has to be shown to [`TopicMatcher::matches`].
    ///
    /// ```
    /// use tidings_core::{Key, Topic, TopicMatcher};
    /// assert_eq!(TopicMatcher::prefix("/a/b/")?.key(), Key::Prefix("a/b"));
    /// let keys: Vec<_> = Topic::parse("a/b")?.keys().map(|key| format!("{key:?}")).collect();
    /// assert_eq!(keys, ["All", r#"Exact("a/b")"#, r#"Prefix("a")"#, r#"Prefix("a/b")"#]);
    /// # Ok::<(), tidings_core::TopicError>(())
    /// ```
    pub fn key(&self) -> Key<'_> {
        match &self.0 {
            Kind::All => Key::All,
            Kind::Exact(name) => Key::Exact(name),
            Kind::Prefix(name) => Key::Prefix(name),
            Kind::Template(template) => Key::Head(template.head()),
            // The same topic can be written in more than one way.
            Kind::Pattern(_) => Key::Head(""),
        }
    }
}

impl Topic {
    /// The keys of the matchers that match this topic: as many as it has segments, and two. Every beginning of it is a [`Key::Head`] too;
    /// those are not among them.
    pub fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let name = below(self.as_str());
        let ends = memchr::memchr_iter(b'/', name.as_bytes()).chain([name.len()]);
        [Key::All, Key::Exact(self.as_str())].into_iter().chain(ends.map(move |end| Key::Prefix(&name[..end])))
    }
}

/// Whether a topic is a prefix's own or lies below it.
fn is_below(prefix: &str, topic: &str) -> bool {
    below(topic).strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A topic as the prefix rule sees it: without one leading slash (N-10).
pub(crate) fn below(topic: &str) -> &str {
    topic.strip_prefix('/').unwrap_or(topic)
}

impl fmt::Debug for TopicMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::All => f.write_str("*"),
            Kind::Exact(name) => write!(f, "={name}"),
            Kind::Prefix(name) => write!(f, "{name}/**"),
            Kind::Template(template) => write!(f, "template {}", template.text()),
            Kind::Pattern(pattern) => write!(f, "pattern {}", pattern.text()),
        }
    }
}

/// Several matchers in canonical order without repeats, so that two subscriptions that ask the same compare equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Matchers(
    /// Never an empty list: asking for nothing is common in some places, and costs no memory.
    Option<Arc<[TopicMatcher]>>,
);

impl Matchers {
    /// Sorts and removes repeats; with `*` among them the others say nothing and go.
    pub fn new(matchers: impl IntoIterator<Item = TopicMatcher>) -> Self {
        let mut matchers: Vec<_> = matchers.into_iter().collect();
        matchers.sort();
        matchers.dedup();
        if matchers.contains(&TopicMatcher::all()) {
            return Matchers::all();
        }
        Matchers((!matchers.is_empty()).then(|| matchers.into()))
    }

    /// Every topic.
    pub fn all() -> Self {
        Matchers(Some([TopicMatcher::all()].into()))
    }

    /// No topic.
    pub const fn none() -> Self {
        Matchers(None)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether any of them matches.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_name(topic.as_str())
    }

    /// The same for any string taken as a topic (M-84).
    pub fn matches_name(&self, name: &str) -> bool {
        Names::with(name, |name| self.hit(name))
    }

    pub(crate) fn hit(&self, name: Name<'_>) -> bool {
        // Sorted: everything first, then exact ones, then the others. A long list of topics costs a binary search.
        let all = self.as_slice();
        let (named, others) = all.split_at(all.partition_point(|matcher| matches!(matcher.0, Kind::All | Kind::Exact(_))));
        let among_named = |matcher: &TopicMatcher| match &matcher.0 {
            Kind::Exact(exact) => (**exact).cmp(name.as_str()),
            _ => std::cmp::Ordering::Equal,
        };
        named.binary_search_by(among_named).is_ok() || others.iter().any(|matcher| matcher.hits(name))
    }

    /// Whether any of them matches any of the topics (M-2, M-22).
    pub fn match_any(&self, topics: &[Topic]) -> bool {
        self.hit_any(&Names::new(topics))
    }

    pub(crate) fn hit_any(&self, names: &Names<'_>) -> bool {
        names.iter().any(|name| self.hit(name))
    }

    /// The matchers in canonical order.
    pub fn as_slice(&self) -> &[TopicMatcher] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<TopicMatcher> for Matchers {
    fn from(matcher: TopicMatcher) -> Self {
        Matchers::new([matcher])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    /// N-10, N-11, M-30, M-31.
    #[test]
    fn what_matches() {
        let table: &[(TopicMatcher, &[&str], &[&str])] = &[
            (TopicMatcher::prefix("a").unwrap(), &["a", "/a", "a/b", "/a/b", "a/", "a//b"], &["ab", "b", "b/a", "A", "//a"]),
            (TopicMatcher::prefix("/a/").unwrap(), &["a", "a/b"], &["ab"]),
            (TopicMatcher::prefix("a/b").unwrap(), &["a/b", "a/b/c"], &["a", "a/bc", "a/c"]),
            (TopicMatcher::prefix("").unwrap(), &["a", "/"], &[]),
            (TopicMatcher::prefix("/").unwrap(), &["a"], &[]),
            (TopicMatcher::exact("a").unwrap(), &["a"], &["/a", "a/b", "A"]),
            (TopicMatcher::exact("*").unwrap(), &["a", "/a/b"], &[]),
            (TopicMatcher::prefix("*").unwrap(), &["*/a"], &["a"]),
        ];
        for (matcher, yes, no) in table {
            for name in *yes {
                assert!(matcher.matches(&topic(name)), "{matcher:?} matches {name}");
            }
            for name in *no {
                assert!(!matcher.matches(&topic(name)), "{matcher:?} does not match {name}");
            }
        }
    }

    #[test]
    fn covering() {
        let (exact, prefix, all) = (|n| TopicMatcher::exact(n).unwrap(), |n| TopicMatcher::prefix(n).unwrap(), TopicMatcher::all());
        assert!(all.covers(&exact("a")) && all.covers(&all) && prefix("a").covers(&prefix("a/b")) && prefix("a").covers(&exact("/a")));
        assert!(
            !prefix("a").covers(&all)
                && !prefix("a/b").covers(&prefix("a"))
                && !exact("a").covers(&prefix("a"))
                && !prefix("a").covers(&exact("ab"))
        );
    }

    #[test]
    fn canonical_form() {
        let exact = |name| TopicMatcher::exact(name).unwrap();
        assert_eq!(Matchers::new([exact("b"), exact("a"), exact("b")]), Matchers::new([exact("a"), exact("b")]));
        assert_eq!(Matchers::new([exact("b"), TopicMatcher::all()]), Matchers::all());
        assert!(TopicMatcher::exact("a\nb").is_err() && TopicMatcher::prefix("a\u{200B}").is_err());
        assert!(TopicMatcher::exact("/.well-known/mercure/subscriptions").is_ok());
    }

    proptest! {
        /// A prefix matches exactly the topics whose first segments are its own.
        #[test]
        fn prefix_is_by_segments(prefix in "[ab/]{1,5}", name in "[ab/]{1,7}") {
            let segments = |text: &str| -> Vec<String> { below(text).split('/').map(str::to_owned).collect() };
            let bare = below(&prefix).strip_suffix('/').unwrap_or(below(&prefix)).to_owned();
            let expected = bare.is_empty() || segments(&name).starts_with(&bare.split('/').map(str::to_owned).collect::<Vec<_>>());
            prop_assert_eq!(TopicMatcher::prefix(&prefix).unwrap().matches(&topic(&name)), expected);
        }
    }
}
