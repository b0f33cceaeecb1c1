//! URI Templates: any selector and any name end in an answer; a selector matches its own text, and what it matches begins with what its
//! index key says.
//!
//! It knows templates; URL patterns are the target `pattern`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_core::{Key, TopicMatcher, limits};

fuzz_target!(|input: (&str, &str)| {
    let (selector, name) = input;
    let Ok(matcher) = TopicMatcher::template(selector) else { return };
    assert!(selector.len() <= limits::PATTERN);
    assert!(matcher.matches_name(selector), "M-203: a selector matches itself");
    let matches = matcher.matches_name(name);
    match matcher.key() {
        Key::All => assert!(selector == "*" && matches),
        Key::Exact(exact) => assert!(exact == selector && matches == (name == selector)),
        Key::Head(head) => {
            assert!(selector.starts_with(head) && (!matches || name.starts_with(head)));
        }
        Key::Prefix(_) => unreachable!("no selector is a prefix"),
    }
});
