//! Many URI Templates in one index: it finds exactly the feeds whose template matches when asked alone, whatever was taken out meanwhile.
//!
//! It knows the index; what a template matches is asked of the target `template`'s matcher.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_core::{Topic, TopicMatcher, found_by_index};

fuzz_target!(|input: (Vec<(&str, bool)>, &str)| {
    let (selectors, name) = input;
    let Ok(topic) = Topic::parse(name) else { return };
    let feeds: Vec<_> = selectors.iter().filter_map(|(selector, gone)| Some((TopicMatcher::template(selector).ok()?, *gone))).collect();
    let expected: Vec<usize> = (0..feeds.len()).filter(|&feed| !feeds[feed].1 && feeds[feed].0.matches_name(name)).collect();
    assert_eq!(found_by_index(&feeds, &topic), expected);
});
