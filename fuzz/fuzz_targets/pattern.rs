//! URL patterns: any text and any topic end in an answer, within the bounds of size, whatever the crate that knows the syntax makes of them;
//! equal patterns are one, and what nobody uses is forgotten.
//!
//! It knows URL patterns; URI Templates are the target `template`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tidings_core::{Matchers, PatternError, TopicMatcher, UrlPatterns, limits};

static PATTERNS: LazyLock<UrlPatterns> = LazyLock::new(|| {
    // What the crate that reads patterns panics on is caught and refused; the fuzzer's own hook would end the run there. A panic that nobody
    // catches still does.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("urlpattern-")) {
            before(panic);
        }
    }));
    UrlPatterns::new("https://hub.example/.well-known/mercure", 2).expect("a URL")
});

fuzz_target!(|input: (&str, Vec<&str>)| {
    let (text, names) = input;
    match TopicMatcher::url_pattern(text, &PATTERNS) {
        Ok(matcher) => {
            assert!(text.len() <= limits::PATTERN);
            let again = TopicMatcher::url_pattern(text, &PATTERNS).expect("it is in use");
            assert!(again == matcher && PATTERNS.len() <= 1);
            for name in names {
                assert_eq!(matcher.matches_name(name), Matchers::from(again.clone()).matches_name(name));
            }
        }
        Err(error) => assert!(!matches!(error, PatternError::TooMany(_)), "nothing else is in use"),
    }
    assert!(PATTERNS.is_empty());
});
