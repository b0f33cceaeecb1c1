//! Topics while matchers look at them: what a topic is as a URL is found out once for all of them, and only if one asks.
//!
//! It knows names and URLs, neither matchers nor events.

use crate::Topic;
use std::{cell::OnceCell, sync::Arc};
use url::Url;

/// The topics of one event. Making it costs nothing.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    topics: &'a [Topic],
    first: Parsed,
    others: OnceCell<Box<[Parsed]>>,
}

/// A base, and what the name is as a reference against it, if anything.
type Parsed = OnceCell<(Arc<Url>, Option<Url>)>;

/// One of them, or any other string taken as a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    text: &'a str,
    of: &'a Names<'a>,
    place: usize,
}

impl<'a> Names<'a> {
    pub(crate) fn new(topics: &'a [Topic]) -> Names<'a> {
        Names { topics, first: OnceCell::new(), others: OnceCell::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Name<'_>> {
        self.topics.iter().enumerate().map(|(place, topic)| Name { text: topic.as_str(), of: self, place })
    }

    /// A string that is no topic of an event, looked at alone.
    pub(crate) fn with<T>(text: &str, look: impl FnOnce(Name<'_>) -> T) -> T {
        look(Name { text, of: &Names::new(&[]), place: 0 })
    }
}

impl<'a> Name<'a> {
    pub(crate) fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether it is a URL, as a reference against a base, of which something is true.
    pub(crate) fn is_url(&self, base: &Arc<Url>, which: impl FnOnce(&Url) -> bool) -> bool {
        let parse = || base.join(self.text).ok();
        let parsed = match self.place.checked_sub(1) {
            None => &self.of.first,
            Some(other) => &self.of.others.get_or_init(|| self.of.topics[1..].iter().map(|_| OnceCell::new()).collect())[other],
        };
        let (of, url) = parsed.get_or_init(|| {
            #[cfg(test)]
            PARSED.with(|parsed| parsed.set(parsed.get() + 1));
            (base.clone(), parse())
        });
        // A hub has one base; whoever mixes matchers of two pays for it.
        if Arc::ptr_eq(of, base) || of == base { url.as_ref().is_some_and(which) } else { parse().as_ref().is_some_and(which) }
    }
}

#[cfg(test)]
thread_local! {
    /// How often a name was parsed.
    pub(crate) static PARSED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
