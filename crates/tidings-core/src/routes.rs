//! The index that finds the feeds which ask for an event, at a cost that depends on those feeds, on the depth of its topics, and on the
//! patterns that may match them. It knows questions; rights are looked at by whoever is given the feeds.

use crate::{
    Matchers, TopicMatcher,
    heads::Heads,
    index::Index,
    matcher::{Kind, below},
    names::{Name, Names},
    pattern::line,
    template::{Template, Templates},
};
use slab::Slab;
use std::{hash::BuildHasher, sync::Arc};
use url::Url;

/// Feeds by what they ask for.
#[derive(Debug)]
pub(crate) struct Routes {
    exact: Named,
    prefix: Named,
    all: Vec<u32>,
    /// Bytes of the longest prefix since there was none: look-ups stop there, however many slashes a topic has.
    longest_prefix: usize,
    /// Templates and URL patterns, each once however many feeds ask for it.
    patterns: Slab<Pattern>,
    numbers: Index,
    templates: Templates,
    /// URL patterns by what a URL must begin with; a hub has one base.
    urls: Vec<Urls>,
}

#[derive(Debug)]
struct Pattern {
    matcher: TopicMatcher,
    feeds: Vec<u32>,
}

#[derive(Debug)]
struct Urls {
    base: Arc<Url>,
    count: usize,
    heads: Heads,
}

/// Feeds by the name they ask for.
#[derive(Debug)]
struct Named {
    numbers: Index,
    names: Slab<(Arc<str>, Feeds)>,
    /// Of names that several feeds ask for.
    several: Slab<Vec<u32>>,
}

/// Who asks for one name.
#[derive(Debug)]
enum Feeds {
    /// One feed, as for most names where there are many.
    One(u32),
    /// Those in this place of [`Named::several`].
    Several(u32),
}

impl Named {
    fn new(seed: u64) -> Named {
        Named { numbers: Index::new(seed), names: Slab::new(), several: Slab::new() }
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name, |number| *self.names[number as usize].0 == *name)
    }

    fn asking(&self, name: &str) -> &[u32] {
        let Some(number) = self.number(name) else { return &[] };
        match &self.names[number as usize].1 {
            Feeds::One(feed) => std::slice::from_ref(feed),
            Feeds::Several(place) => &self.several[*place as usize],
        }
    }

    fn insert(&mut self, name: &Arc<str>, feed: u32) {
        let Some(number) = self.number(name) else {
            let number = self.names.insert((name.clone(), Feeds::One(feed))) as u32;
            let names = &self.names;
            self.numbers.insert(&**name, number, |state, other| state.hash_one(&*names[other as usize].0));
            return;
        };
        let feeds = &mut self.names[number as usize].1;
        match *feeds {
            Feeds::One(first) => *feeds = Feeds::Several(self.several.insert(vec![first, feed]) as u32),
            Feeds::Several(place) => self.several[place as usize].push(feed),
        }
    }

    fn remove(&mut self, name: &str, feed: u32) {
        let Some(number) = self.number(name) else { return };
        let feeds = &mut self.names[number as usize].1;
        match *feeds {
            Feeds::One(only) if only == feed => {
                self.numbers.remove(name, |other| other == number);
                self.names.remove(number as usize);
            }
            Feeds::One(_) => {}
            Feeds::Several(place) => {
                let several = &mut self.several[place as usize];
                several.retain(|&other| other != feed);
                if let [only] = several[..] {
                    *feeds = Feeds::One(only);
                    self.several.remove(place as usize);
                }
            }
        }
    }
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Routes {
        Routes {
            exact: Named::new(seed),
            prefix: Named::new(seed),
            all: Vec::new(),
            longest_prefix: 0,
            patterns: Slab::new(),
            numbers: Index::new(seed),
            templates: Templates::new(),
            urls: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, feed: u32, matchers: &Matchers) {
        for matcher in matchers.as_slice() {
            match &matcher.0 {
                Kind::All => self.all.push(feed),
                Kind::Exact(name) => self.exact.insert(name, feed),
                Kind::Prefix(name) => {
                    self.longest_prefix = self.longest_prefix.max(name.len());
                    self.prefix.insert(name, feed);
                }
                Kind::Template(_) | Kind::Pattern(_) => self.insert_pattern(feed, matcher),
            }
        }
    }

    fn insert_pattern(&mut self, feed: u32, matcher: &TopicMatcher) {
        if let Some(number) = self.number(matcher) {
            self.patterns[number as usize].feeds.push(feed);
            return;
        }
        // Most are asked for by one feed.
        let number = self.patterns.insert(Pattern { matcher: matcher.clone(), feeds: Vec::from([feed]) }) as u32;
        let patterns = &self.patterns;
        self.numbers.insert(matcher, number, |state, other| state.hash_one(&patterns[other as usize].matcher));
        match &matcher.0 {
            Kind::Template(template) => self.templates.insert(template, number),
            Kind::Pattern(pattern) => {
                let at = self.urls.iter().position(|urls| urls.base == *pattern.base()).unwrap_or_else(|| {
                    self.urls.push(Urls { base: pattern.base().clone(), count: 0, heads: Heads::new() });
                    self.urls.len() - 1
                });
                self.urls[at].count += 1;
                self.urls[at].heads.insert(pattern.head(), number);
            }
            _ => {}
        }
    }

    fn number(&self, matcher: &TopicMatcher) -> Option<u32> {
        self.numbers.get(matcher, |number| self.patterns[number as usize].matcher == *matcher)
    }

    pub(crate) fn remove(&mut self, feed: u32, matchers: &Matchers) {
        for matcher in matchers.as_slice() {
            match &matcher.0 {
                Kind::All => self.all.retain(|&other| other != feed),
                Kind::Exact(name) => self.exact.remove(name, feed),
                Kind::Prefix(name) => self.prefix.remove(name, feed),
                Kind::Template(_) | Kind::Pattern(_) => self.remove_pattern(feed, matcher),
            }
        }
        if self.prefix.is_empty() {
            self.longest_prefix = 0;
        }
    }

    fn remove_pattern(&mut self, feed: u32, matcher: &TopicMatcher) {
        let Some(number) = self.number(matcher) else { return };
        let feeds = &mut self.patterns[number as usize].feeds;
        feeds.retain(|&other| other != feed);
        if !feeds.is_empty() {
            return;
        }
        self.numbers.remove(matcher, |other| other == number);
        self.patterns.remove(number as usize);
        match &matcher.0 {
            Kind::Template(template) => self.templates.remove(template, number),
            Kind::Pattern(pattern) => self.urls.retain_mut(|urls| {
                if urls.base == *pattern.base() {
                    urls.heads.remove(pattern.head(), number);
                    urls.count -= 1;
                }
                urls.count > 0
            }),
            _ => {}
        }
    }

    /// Visits the feeds that ask for one of the topics; a feed may be visited more than once, and its rights are not looked at.
    pub(crate) fn asking(&self, names: &Names<'_>, mut visit: impl FnMut(u32)) {
        self.all.iter().copied().for_each(&mut visit);
        for name in names.iter() {
            self.exact.asking(name.as_str()).iter().copied().for_each(&mut visit);
            if !self.prefix.is_empty() {
                self.asking_by_prefix(name, &mut visit);
            }
            if !self.patterns.is_empty() {
                self.asking_by_pattern(name, &mut visit);
            }
        }
    }

    fn asking_by_prefix(&self, name: Name<'_>, mut visit: impl FnMut(u32)) {
        let name = below(name.as_str());
        let ends = memchr::memchr_iter(b'/', name.as_bytes()).chain([name.len()]);
        for end in ends.take_while(|&end| end <= self.longest_prefix) {
            self.prefix.asking(&name[..end]).iter().copied().for_each(&mut visit);
        }
    }

    fn asking_by_pattern(&self, name: Name<'_>, mut visit: impl FnMut(u32)) {
        self.templates.visit(name.as_str(), |number| self.patterns[number as usize].feeds.iter().copied().for_each(&mut visit));
        // Only a template's own text (M-203) has a brace.
        if name.as_str().contains('{')
            && let Some(template) = Template::parse(name.as_str())
            && let Some(number) = self.number(&TopicMatcher(Kind::Template(Arc::new(template))))
        {
            self.patterns[number as usize].feeds.iter().copied().for_each(&mut visit);
        }
        for urls in &self.urls {
            name.is_url(&urls.base, |url| {
                urls.heads.visit(&line(url), |number| self.ask(number, name, &mut visit));
                true
            });
        }
    }

    /// Each pattern once, whoever asks for it.
    fn ask(&self, number: u32, name: Name<'_>, visit: impl FnMut(u32)) {
        let pattern = &self.patterns[number as usize];
        if pattern.matcher.hits(name) {
            pattern.feeds.iter().copied().for_each(visit);
        }
    }
}

/// For fuzzing: which of the feeds the index finds for a topic, each with one matcher, after those marked were taken out again.
#[doc(hidden)]
pub fn found_by_index(feeds: &[(TopicMatcher, bool)], topic: &crate::Topic) -> Vec<usize> {
    let mut routes = Routes::new(1);
    let matchers: Vec<Matchers> = feeds.iter().map(|(matcher, _)| Matchers::new([matcher.clone()])).collect();
    for (feed, matchers) in matchers.iter().enumerate() {
        routes.insert(feed as u32, matchers);
    }
    for (feed, (_, gone)) in feeds.iter().enumerate() {
        if *gone {
            routes.remove(feed as u32, &matchers[feed]);
        }
    }
    let mut found = Vec::new();
    routes.asking(&Names::new(std::slice::from_ref(topic)), |feed| found.push(feed as usize));
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Topic, UrlPatterns, names::PARSED};
    use proptest::prelude::*;

    fn patterns() -> UrlPatterns {
        UrlPatterns::new("https://h/a/", 100).unwrap()
    }

    fn matcher(text: &str, patterns: &UrlPatterns) -> TopicMatcher {
        match (text.strip_prefix('='), text.strip_prefix('~'), text.strip_prefix('!')) {
            (Some(exact), _, _) => TopicMatcher::exact(exact).unwrap(),
            (_, Some(template), _) => TopicMatcher::template(template).unwrap(),
            (_, _, Some(pattern)) => TopicMatcher::url_pattern(pattern, patterns).unwrap(),
            _ => TopicMatcher::prefix(text).unwrap(),
        }
    }

    fn found(routes: &Routes, topics: &[Topic]) -> Vec<usize> {
        let mut found = Vec::new();
        routes.asking(&Names::new(topics), |feed| found.push(feed as usize));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A matcher of every kind.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "=?[ab/]{1,4}".prop_filter("nothing is not a topic", |text| text != "="),
            "~[ab/]{0,3}(\\{(\\+|/|)a\\}[ab/]{0,2}){0,2}",
            prop::sample::select(vec![
                "!/a/*",
                "!b",
                "!/:x",
                "!/:x/b?",
                "!https://h/a/(a|b)",
                "!https://*/b/*",
                "!x:*",
                "!*://h/a/:x",
                "!https://h:*/*"
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        /// The index finds exactly the feeds whose matchers hit, also after removals and when they come back; and when all are gone it keeps nothing.
        #[test]
        fn routes_like_matchers(
            feeds in prop::collection::vec(prop::collection::vec(text(), 1..4), 0..12),
            gone in prop::collection::vec(any::<bool>(), 12),
            topics in prop::collection::vec("(https://h/|x:|//h|)[ab/]{1,6}", 1..4),
        ) {
            let patterns = patterns();
            let matchers: Vec<Matchers> = feeds.iter().map(|texts| Matchers::new(texts.iter().map(|text| matcher(text, &patterns)))).collect();
            let mut routes = Routes::new(1);
            for (feed, matchers) in matchers.iter().enumerate() {
                routes.insert(feed as u32, matchers);
            }
            for (feed, matchers) in matchers.iter().enumerate().filter(|(feed, _)| gone[*feed]) {
                routes.remove(feed as u32, matchers);
            }
            let topics: Vec<Topic> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
            let expected: Vec<usize> = (0..matchers.len()).filter(|&feed| !gone[feed] && matchers[feed].match_any(&topics)).collect();
            prop_assert_eq!(found(&routes, &topics), expected);
            // Those that went come back in another order, and get the places of others.
            for (feed, matchers) in matchers.iter().enumerate().rev().filter(|(feed, _)| gone[*feed]) {
                routes.insert(feed as u32, matchers);
            }
            // Enough others for the tables to grow over what was removed.
            let others: Vec<Matchers> = (0..30).map(|n| Matchers::from(matcher(&format!("=other/{n}"), &patterns))).collect();
            for (n, others) in others.iter().enumerate() {
                routes.insert(100 + n as u32, others);
            }
            let expected: Vec<usize> = (0..matchers.len()).filter(|&feed| matchers[feed].match_any(&topics)).collect();
            prop_assert_eq!(found(&routes, &topics), expected);
            for (n, others) in others.iter().enumerate() {
                let asked = found(&routes, &[Topic::parse(&format!("other/{n}")).unwrap()]);
                prop_assert!(asked.contains(&(100 + n)), "{:?}", asked);
                routes.remove(100 + n as u32, others);
            }
            for (feed, matchers) in matchers.iter().enumerate() {
                routes.remove(feed as u32, matchers);
            }
            for Named { numbers, names, several } in [&routes.exact, &routes.prefix] {
                prop_assert!(numbers.is_empty() && names.is_empty() && several.is_empty());
            }
            prop_assert!(routes.patterns.is_empty() && routes.numbers.is_empty() && routes.urls.is_empty() && found(&routes, &topics).is_empty());
            drop((matchers, routes));
            prop_assert!(patterns.is_empty());
        }

        /// Every name that a matcher hits has its key, so that stores and shards that sleep miss nothing.
        #[test]
        fn what_is_hit_has_the_key(text in text(), name in "(https://h/|)[ab/]{1,6}") {
            let matcher = matcher(&text, &patterns());
            let topic = Topic::parse(&name).unwrap();
            let has = match matcher.key() {
                crate::Key::Head(head) => name.starts_with(head),
                key => topic.keys().any(|other| other == key),
            };
            let decides = !matches!(matcher.key(), crate::Key::Head(_));
            prop_assert!(has || !matcher.matches(&topic));
            prop_assert!(!decides || has == matcher.matches(&topic));
        }
    }

    /// M-203: a template finds its own text, which the index of templates does not lead to; one that only begins so is another's.
    #[test]
    fn a_template_finds_its_own_text() {
        let patterns = patterns();
        let mut routes = Routes::new(1);
        for (feed, text) in ["~a/{b}", "~a/{c}", "~a/{+b}", "=a/{b}", "~{x}"].into_iter().enumerate() {
            routes.insert(feed as u32, &Matchers::from(matcher(text, &patterns)));
        }
        let of = |name: &str| found(&routes, &[Topic::parse(name).unwrap()]);
        assert_eq!([of("a/{b}"), of("a/{c}"), of("a/{b"), of("a/x")], [vec![0, 3], vec![1], vec![], vec![0, 1, 2]]);
    }

    /// A topic is parsed as a URL once for all that may want it, and not at all if nobody asks for URLs.
    #[test]
    fn a_topic_is_parsed_once() {
        let patterns = patterns();
        let mut routes = Routes::new(1);
        let topics = ["/a/1", "/b/1"].map(|name| Topic::parse(name).unwrap());
        let parsed = |routes: &Routes| {
            let before = PARSED.get();
            (found(routes, &topics).len(), PARSED.get() - before)
        };
        for feed in 0..50 {
            routes.insert(feed, &Matchers::from(matcher(&format!("~/a/{{x}}{{?p{feed}}}"), &patterns)));
        }
        assert_eq!(parsed(&routes), (50, 0));
        for feed in 50..80 {
            routes.insert(feed, &Matchers::from(matcher(&format!("!/a/:x{feed}"), &patterns)));
        }
        assert_eq!(parsed(&routes), (80, 2));
        // Other URLs' patterns are not even asked: they are told apart by their heads.
        for feed in 80..90 {
            routes.insert(feed, &Matchers::from(matcher(&format!("!https://{feed}.example/*"), &patterns)));
        }
        assert_eq!(parsed(&routes), (80, 2));
    }
}
