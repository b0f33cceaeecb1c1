//! URL patterns as matchers, from outside: what they match, what is refused and why, and how many there may be.

use std::sync::Arc;
use tidings_core::{Matchers, PatternError, TopicMatcher, UrlPatterns, limits};

const BASE: &str = "https://hub.example/.well-known/mercure";

fn patterns() -> UrlPatterns {
    UrlPatterns::new(BASE, limits::URL_PATTERNS).unwrap()
}

/// M-30 to M-33: absolute and relative ones, against absolute and relative topics.
#[test]
fn what_patterns_match() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("*", &["a", "https://elsewhere.example/", "http://["], &[]),
        (
            "/books/:id",
            &["/books/1", "https://hub.example/books/1", "HTTPS://HUB.example/books/1", "/x/../books/1"],
            &["/books/", "/books/1/2", "/Books/1", "http://hub.example/books/1", "https://hub.example:8443/books/1", "books/1"],
        ),
        ("books/:id", &["books/1", "/.well-known/books/1"], &["/books/1"]),
        (
            "https://example.com/books/:id",
            &[
                "https://example.com/books/1",
                "https://EXAMPLE.com/books/1",
                "https://example.com:443/books/1",
                "https://example.com/books/1?x#y",
            ],
            &["/books/1", "https://example.com./books/1"],
        ),
        (
            "https://example.com/books/:id\\?page=*",
            &["https://example.com/books/1?page=2"],
            &["https://example.com/books/1", "https://example.com/books/1/2?page=2"],
        ),
        (
            "https://*.example.com/*",
            &["https://a.example.com/x", "https://a.b.example.com/"],
            &["https://example.com/", "https://example.com.evil.example/"],
        ),
        (
            "https://example.com/books/(\\d+)",
            &["https://example.com/books/12"],
            &["https://example.com/books/a", "https://example.com/books/"],
        ),
        (
            "https://example.com/(books|authors)/:id/:more*",
            &["https://example.com/books/1", "https://example.com/authors/1/2/3"],
            &["https://example.com/films/1"],
        ),
        ("https://example.com/{books/}?:id", &["https://example.com/1", "https://example.com/books/1"], &["https://example.com/films/1"]),
        ("https://example.com/é", &["https://example.com/é", "https://example.com/%C3%A9"], &["https://example.com/e"]),
        ("https://日本.example/*", &["https://日本.example/", "https://xn--wgv71a.example/a"], &["https://example/"]),
        ("urn\\:isbn\\:*", &["urn:isbn:1"], &["urn:uuid:1"]),
        ("*://example.com/a", &["https://example.com/a", "ftp://example.com/a"], &["https://example.com/b"]),
        // What cannot be read as a URL against the base never matches (M-33), not even a pattern for anything.
        ("*:*", &["a"], &["http://[", "https://a b/"]),
        // Where the hub is; no topic of an event can be written so.
        ("", &["."], &["/", "a"]),
    ];
    let patterns = patterns();
    for (pattern, yes, no) in table {
        let matcher = TopicMatcher::url_pattern(pattern, &patterns).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for name in *yes {
            assert!(matcher.matches_name(name), "{pattern:?} matches {name:?}");
            assert!(Matchers::from(matcher.clone()).matches_name(name));
        }
        for name in *no {
            assert!(!matcher.matches_name(name), "{pattern:?} does not match {name:?}");
        }
    }
}

/// M-21, M-34: what is refused says why; nothing takes long, and nothing panics.
#[test]
fn what_is_refused() {
    let patterns = patterns();
    let refused = |pattern: &str| TopicMatcher::url_pattern(pattern, &patterns).expect_err(pattern);
    let long = "/".repeat(limits::PATTERN);
    assert!(TopicMatcher::url_pattern(&long, &patterns).is_ok());
    assert_eq!(refused(&(long + "/")), PatternError::TooLong(limits::PATTERN + 1));
    assert!(matches!(refused("/a\u{200B}"), PatternError::Text(_)));
    for invalid in
        ["/:", "/(", "/{", "/}", "/(a", "/:a/:a", "https://exa mple.com/", "https://[::1/", "/(?:a)", "/(é)", "/((a))", "/a**b?+"]
    {
        assert!(matches!(refused(invalid), PatternError::Invalid(_)), "{invalid}: {:?}", refused(invalid));
    }
    for expression in ["/(a{2,1})", "/((?=a)b)", "/((?<!a)b)", "/((?:a)\\1)", "/([z-a])", "/(\\p{L})", "/((?u:é)a)"] {
        assert!(
            matches!(refused(expression), PatternError::Expression { part: "path", .. } | PatternError::Invalid(_)),
            "{expression}: {:?}",
            refused(expression)
        );
    }
    for large in ["/(a{100000})", "/((?:(?:a{1000}){1000}){1000})", "/((?:a|b)*a(?:a|b){20})", "/((?u:\\w){1000})", "/:a?:b?(.*x.{40})"] {
        assert_eq!(refused(large), PatternError::TooComplicated, "{large}");
    }
    // Found by fuzzing: the crate that reads patterns counts brackets below zero.
    let _ = TopicMatcher::url_pattern("*:*?]+*]", &patterns);
    let _ = TopicMatcher::url_pattern("https://a]", &patterns);
    assert!(patterns.is_empty(), "nothing of them is kept");
}

/// M-34: the longest patterns with the most parts, and the worst expressions that are accepted, are matched in one pass.
#[test]
fn hostile_patterns() {
    let patterns = patterns();
    let topics = ["a", "/", "-", "a-", "/a", "b"].map(|piece| format!("/{}", piece.repeat((limits::TOPIC - 1) / piece.len())));
    let fill = |piece: &str| format!("/{}", piece.repeat(limits::PATTERN / piece.len() - 1));
    let (mut accepted, mut refused) = (0, 0);
    for piece in [
        "*",
        "*a",
        "*-",
        "(a*)",
        "(.*)a",
        "{a}?",
        "{a}*",
        "{*a}?",
        "(a|b|ab)*",
        "(?:a)",
        "\\a",
        "(?",
        "(?:",
        "((?:a",
        ":",
        "{",
        "é",
        "[a",
        "%",
        "[",
        "]",
        "@",
        "#",
        "?",
        "&",
    ] {
        match TopicMatcher::url_pattern(&fill(piece), &patterns) {
            Ok(matcher) => {
                accepted += 1;
                assert!(topics.iter().filter(|topic| matcher.matches_name(topic)).count() <= topics.len());
            }
            Err(_) => refused += 1,
        }
    }
    let named = (0..100).fold(String::new(), |named, n| named + &format!("/:a{n}-b"));
    assert!(TopicMatcher::url_pattern(&named, &patterns).is_ok_and(|matcher| !matcher.matches_name(&topics[0])));
    assert!(accepted > 5 && refused > 5, "{accepted} and {refused}");
    let expression = TopicMatcher::url_pattern("/((?:a|b)*a(?:a|b){6})", &patterns).unwrap();
    assert!(expression.matches_name(&topics[0]) && !expression.matches_name(&topics[5]));
}

/// M-23, M-79: equal patterns are one; those nobody uses are forgotten; and there are no more than the hub allows.
#[test]
fn sharing_and_the_limit() {
    let patterns = UrlPatterns::new(BASE, 2).unwrap();
    let make = |pattern: &str| TopicMatcher::url_pattern(pattern, &patterns);
    let (first, again, second) = (make("/a").unwrap(), make("/a").unwrap(), make("/b").unwrap());
    assert_eq!((first.clone(), patterns.len()), (again, 2));
    assert!(first != second && first < second);
    assert_eq!(make("/c"), Err(PatternError::TooMany(2)));
    assert!(make("/b").is_ok() && make("*").is_ok(), "what is there already needs no room");
    drop(second);
    assert_eq!(patterns.len(), 1);
    let third = make("/c").unwrap();
    assert_eq!(make("/b"), Err(PatternError::TooMany(2)));
    // They outlive the table, and one of another hub is another one.
    let elsewhere = UrlPatterns::new("https://other.example/", 2).unwrap();
    assert!(TopicMatcher::url_pattern("/c", &elsewhere).unwrap() != third);
    drop((elsewhere, patterns));
    assert!(third.matches_name("/c") && first.matches_name("https://hub.example/a"));
}

/// Threads that make and drop the same patterns neither lose one that is in use nor keep one that is not.
#[test]
fn from_many_threads() {
    let patterns = UrlPatterns::new(BASE, 8).unwrap();
    let kept = Arc::new(TopicMatcher::url_pattern("/kept", &patterns).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let patterns = &patterns;
            scope.spawn(move || {
                for n in 0..300 {
                    let text = format!("/{}", (thread + n) % 3);
                    let matcher = TopicMatcher::url_pattern(&text, patterns).unwrap();
                    assert!(matcher.matches_name(&text));
                    assert!(TopicMatcher::url_pattern("/kept", patterns).is_ok());
                }
            });
        }
    });
    assert!(kept.matches_name("/kept"));
    assert_eq!(patterns.len(), 1);
}

/// M-73: a base that nothing can be relative to is refused.
#[test]
fn bases() {
    for base in ["", "/a", "example.com", "urn:a", "mailto:a@b", "data:,a", "https://"] {
        assert!(UrlPatterns::new(base, 1).is_err(), "{base}");
    }
    assert_eq!(UrlPatterns::new("http://127.0.0.1:3000/hub", 1).unwrap().base(), "http://127.0.0.1:3000/hub");
}
