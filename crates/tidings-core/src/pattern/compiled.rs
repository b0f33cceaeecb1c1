//! What is kept of a URL pattern: a small matcher for each part of a URL.
//!
//! It knows the parts of one pattern and of one URL; sharing and limits of number are its caller's.

use super::PatternError;
use crate::limits;
use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson,
    util::syntax,
};
use std::sync::OnceLock;
use url::Url;
use urlpattern::{
    RegexSyntax, UrlPatternInit, UrlPatternOptions,
    component::Component,
    matcher::{InnerMatcher, Matcher},
    regexp::RegExp,
};

type Automata = dense::DFA<Vec<u32>>;

/// One matcher for each part that is asked about; what is left out may be anything.
pub(super) struct Compiled {
    parts: Box<[(Part, PartMatcher)]>,
    /// What [`line`] begins with for every URL that matches.
    pub(super) head: Box<str>,
}

/// The parts of a URL, in the order in which asking is most likely to be over soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Pathname,
    Hostname,
    Protocol,
    Search,
    Hash,
    Port,
    Username,
    Password,
}

enum PartMatcher {
    Literal(Box<str>),
    /// Something between two literals: anything, or one or more characters other than one.
    Between {
        before: Box<str>,
        after: Box<str>,
        without: Option<char>,
        may_be_empty: bool,
    },
    Automaton(Box<Automata>),
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Pathname => "path",
            Part::Hostname => "host",
            Part::Protocol => "scheme",
            Part::Search => "query",
            Part::Hash => "fragment",
            Part::Port => "port",
            Part::Username => "user name",
            Part::Password => "password",
        }
    }

    fn of(self, url: &Url) -> &str {
        match self {
            Part::Pathname => url.path(),
            Part::Hostname => url.host_str().unwrap_or_default(),
            Part::Protocol => url.scheme(),
            Part::Search => url.query().unwrap_or_default(),
            Part::Hash => url.fragment().unwrap_or_default(),
            Part::Port => url::quirks::port(url),
            Part::Username => url.username(),
            Part::Password => url.password().unwrap_or_default(),
        }
    }
}

impl Compiled {
    /// The crate that reads patterns panics on some (`*:*?]` where overflow is checked): no text of a client's may do more than be refused.
    pub(super) fn new(text: &str, base: &Url) -> Result<Compiled, PatternError> {
        let read = || Compiled::read(text, base);
        std::panic::catch_unwind(read).unwrap_or_else(|_| Err(PatternError::Invalid("it cannot be read".to_owned())))
    }

    fn read(text: &str, base: &Url) -> Result<Compiled, PatternError> {
        let parse = |base| UrlPatternInit::parse_constructor_string::<Expression>(text, base);
        // With a base the standard makes the paths of absolute patterns relative to it too, where they have no slash: `urn:` could not be asked for.
        let init = match parse(None) {
            Err(urlpattern::Error::BaseUrlRequired) => parse(Some(base.clone())),
            other => other,
        };
        Compiled::of(init.map_err(invalid)?)
    }

    pub(super) fn of(init: UrlPatternInit) -> Result<Compiled, PatternError> {
        // Upper and lower case are never the same (M-32).
        let options = UrlPatternOptions { regex_syntax: RegexSyntax::Rust, ignore_case: false };
        let pattern = urlpattern::UrlPattern::<Expression>::parse(init, options).map_err(invalid)?;
        let parts = [
            (Part::Pathname, pattern.pathname),
            (Part::Hostname, pattern.hostname),
            (Part::Protocol, pattern.protocol),
            (Part::Search, pattern.search),
            (Part::Hash, pattern.hash),
            (Part::Port, pattern.port),
            (Part::Username, pattern.username),
            (Part::Password, pattern.password),
        ];
        let mut head = String::new();
        let of = |part: Part| parts.iter().find(|(of, _)| *of == part).map(|(_, component)| &component.matcher);
        for matcher in LINE.into_iter().filter_map(of) {
            head += &matcher.prefix;
            let InnerMatcher::Literal { literal } = &matcher.inner else { break };
            head.extend([literal, &matcher.suffix, "\n"]);
        }
        let mut room = limits::PATTERN_AUTOMATA;
        let mut compiled = Vec::new();
        for (part, component) in parts {
            match PartMatcher::new(part, component, &mut room)? {
                PartMatcher::Between { before, after, without: None, may_be_empty: true } if before.is_empty() && after.is_empty() => {}
                matcher => compiled.push((part, matcher)),
            }
        }
        Ok(Compiled { parts: compiled.into(), head: head.into() })
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.head.len() + self.parts.iter().map(|(_, matcher)| size_of_val(matcher) + matcher.memory()).sum::<usize>()
    }

    pub(super) fn matches(&self, url: &Url) -> bool {
        self.matches_parts(|part| part.of(url))
    }

    pub(super) fn matches_parts<'a>(&self, text: impl Fn(Part) -> &'a str) -> bool {
        self.parts.iter().all(|(part, matcher)| matcher.matches(text(*part)))
    }
}

/// The parts by which patterns are told apart.
const LINE: [Part; 4] = [Part::Protocol, Part::Hostname, Part::Port, Part::Pathname];

/// Those parts of a URL, each with an end that it cannot contain.
pub(crate) fn line(url: &Url) -> String {
    LINE.iter().flat_map(|part| [part.of(url), "\n"]).collect()
}

fn invalid(error: urlpattern::Error) -> PatternError {
    PatternError::Invalid(error.to_string())
}

impl PartMatcher {
    fn new(part: Part, component: Component<Expression>, room: &mut usize) -> Result<PartMatcher, PatternError> {
        let Matcher { prefix, suffix, inner, .. } = component.matcher;
        Ok(match inner {
            InnerMatcher::Literal { literal } => PartMatcher::Literal((prefix + &literal + &suffix).into()),
            InnerMatcher::SingleCapture { filter, allow_empty } => {
                PartMatcher::Between { before: prefix.into(), after: suffix.into(), without: filter, may_be_empty: allow_empty }
            }
            // The whole of it: what looks at the borders of words sees what stands before and behind.
            InnerMatcher::RegExp { .. } => {
                let Ok(Expression { text, .. }) = component.regexp else { return Err(PatternError::TooComplicated) };
                let automaton = automaton(&text, *room).map_err(|error| error.of(part))?;
                *room = room.saturating_sub(automaton.memory_usage());
                PartMatcher::Automaton(Box::new(automaton))
            }
        })
    }

    fn memory(&self) -> usize {
        match self {
            PartMatcher::Literal(literal) => literal.len(),
            PartMatcher::Between { before, after, .. } => before.len() + after.len(),
            PartMatcher::Automaton(automaton) => size_of::<Automata>() + automaton.memory_usage(),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            PartMatcher::Literal(literal) => **literal == *text,
            PartMatcher::Between { before, after, without, may_be_empty } => {
                let between = text.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                between.is_some_and(|between| (*may_be_empty || !between.is_empty()) && without.is_none_or(|c| !between.contains(c)))
            }
            PartMatcher::Automaton(automaton) => accepts(automaton, text),
        }
    }
}

/// What the crate that knows the syntax takes for a compiled regular expression: it is compiled when somebody asks, which is only the
/// scheme while the pattern is read.
struct Expression {
    text: String,
    compiled: OnceLock<Option<Automata>>,
}

impl RegExp for Expression {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        Ok(Expression { text: pattern.to_owned(), compiled: OnceLock::new() })
    }

    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        let compiled = self.compiled.get_or_init(|| automaton(&self.text, limits::PATTERN_AUTOMATA).ok());
        compiled.as_ref().is_some_and(|automaton| accepts(automaton, text)).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        &self.text
    }
}

enum CompileError {
    Syntax(String),
    Size,
}

impl CompileError {
    fn of(self, part: Part) -> PatternError {
        match self {
            CompileError::Syntax(why) => PatternError::Expression { part: part.name(), why },
            CompileError::Size => PatternError::TooComplicated,
        }
    }
}

/// Every state at once, so that matching takes a step per byte whatever the expression. Parts of a parsed URL are ASCII, and so are the
/// expressions: no table of Unicode is needed.
fn automaton(text: &str, room: usize) -> Result<Automata, CompileError> {
    let parsed = syntax::parse_with(text, &syntax::Config::new().unicode(false).utf8(false)).map_err(|error| {
        // The last line says what is wrong, those before it show where.
        let shown = error.to_string();
        CompileError::Syntax(shown.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })?;
    let config = thompson::Config::new().utf8(false).which_captures(thompson::WhichCaptures::None).nfa_size_limit(Some(room));
    let nfa = thompson::Compiler::new().configure(config).build_from_hir(&parsed).map_err(|error| match error.size_limit() {
        Some(_) => CompileError::Size,
        None => CompileError::Syntax(error.to_string()),
    })?;
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(room))
        .determinize_size_limit(Some(4 * room));
    dense::Builder::new()
        .configure(config)
        .build_from_nfa(&nfa)
        .map_err(|error| if error.is_size_limit_exceeded() { CompileError::Size } else { CompileError::Syntax(error.to_string()) })
}

fn accepts(automaton: &Automata, text: &str) -> bool {
    let input = Input::new(text).anchored(Anchored::Yes);
    // An automaton gives up only on bytes that it was told to give up on, and it was told of none.
    automaton.try_search_fwd(&input).is_ok_and(|found| found.is_some())
}
