//! The house test: reads the tree and holds what ARCHITECTURE.md promises about it.
//!
//! It knows the files, not what the program does. Each rule comes with samples that break it and samples that keep it, because a rule
//! that cannot fail holds nothing.

mod arrows;
mod rules;
mod source;

use source::{Source, read_tree};
use std::path::Path;

/// One rule of the house.
struct Rule {
    name: &'static str,
    check: fn(&Source, &[Source]) -> Vec<Finding>,
    /// Files (path and text) that break it, each on its own.
    bad: &'static [(&'static str, &'static str)],
    /// Files that keep it, near the border.
    good: &'static [(&'static str, &'static str)],
}

/// A place and what is wrong there.
type Finding = (usize, String);

/// What the samples are read against: the names that the library's root gives out.
const SAMPLE_ROOT: (&str, &str) =
    ("crates/tidings/src/lib.rs", "//! Root.\nmod config;\nmod delivery;\nmod hub;\npub use config::{Config};\npub use hub::Hub;\n");

fn all_rules() -> impl Iterator<Item = &'static Rule> {
    rules::RULES.iter().chain(arrows::RULES)
}

#[test]
fn the_tree_keeps_every_rule() {
    let tree = read_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    // A walk that misses the house would find nothing wrong in it.
    for path in ["crates/tidings-core/src/wire.rs", "crates/tidings/src/hub.rs", "crates/tidings-core/Cargo.toml", "README.md"] {
        assert!(tree.iter().any(|source| source.path == path), "{path} was not read");
    }
    let mut findings: Vec<String> = all_rules()
        .flat_map(|rule| {
            tree.iter().flat_map(|source| {
                (rule.check)(source, &tree)
                    .into_iter()
                    .map(|(at, text)| format!("{}:{}: {}: {text}", source.path, source.line(at), rule.name))
            })
        })
        .collect();
    findings.extend(rules::stale_ceilings(&tree));
    assert!(findings.is_empty(), "{} findings\n{}\n", findings.len(), findings.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    for rule in all_rules() {
        assert!(!rule.bad.is_empty() && !rule.good.is_empty(), "{} has no samples", rule.name);
        for (samples, expected) in [(rule.bad, true), (rule.good, false)] {
            for (path, text) in samples {
                let tree = [Source::new(SAMPLE_ROOT.0, SAMPLE_ROOT.1), Source::new(path, text)];
                let findings = (rule.check)(&tree[1], &tree);
                assert_eq!(!findings.is_empty(), expected, "{} on {path}:\n{text}\n{findings:?}", rule.name);
            }
        }
    }
}
