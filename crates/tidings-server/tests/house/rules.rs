//! The rules for single files: comments, names, loose ends, sizes, what the core never calls, what public types promise, links.
//!
//! It knows one file at a time; which part of the house may know which other part is in `arrows`.

use crate::{
    Finding, Rule,
    source::{Source, is, words},
};

/// Lines after which a file is asked to split.
const LINES: usize = 600;

/// Files that are longer, with the length they must not pass. The list only shrinks: split, and strike the line.
const LARGE: &[(&str, usize)] = &[("crates/tidings/src/serve/tests.rs", 680)];

/// This test names what it bans.
const HOUSE: &str = "crates/tidings-server/tests/house/";

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "module comment",
        check: |source, _| {
            let opens = !source.is("rs") || source.text.starts_with("//! ");
            if opens { vec![] } else { found(0, "opens with `//!`: what the file is for, and what it does not know") }
        },
        bad: &[("crates/tidings/src/x.rs", "use std::fmt;\n"), ("fuzz/x.rs", "#![no_main]\n//! Late.\n"), ("x.rs", "")],
        good: &[("crates/tidings/src/x.rs", "//! What it is for.\n")],
    },
    Rule {
        name: "file names",
        check: |source, _| {
            let nothing = ["utils", "util", "common", "helpers", "helper", "misc", "imp"];
            let said_nothing = source.is("rs") && source.path.split(['/', '.']).any(|part| nothing.contains(&part));
            if said_nothing { found(0, "a name that says nothing; name the file after the noun it holds") } else { vec![] }
        },
        bad: &[("crates/tidings/src/utils.rs", ""), ("crates/tidings/src/http/helpers.rs", ""), ("crates/x/tests/common/x.rs", "")],
        good: &[("crates/tidings/src/commons.rs", "")],
    },
    Rule {
        name: "loose ends",
        check: |source, _| {
            if !source.is("rs") || source.path.starts_with(HOUSE) {
                return vec![];
            }
            let marks = ["FIXME", "TODO", "XXX"].iter().flat_map(|word| words(&source.text, word).map(move |at| (at, *word)));
            let code = ["todo!", "unimplemented!", "#[ignore"].iter().flat_map(|word| source.places(word).map(move |at| (at, *word)));
            marks.chain(code).map(|(at, word)| (at, format!("`{word}`: finish it, or open an issue"))).collect()
        },
        bad: &[
            ("a.rs", "// FIXME: later\n"),
            ("a.rs", "//! TODO\n"),
            ("a.rs", "fn f() { todo!() }"),
            ("a.rs", "fn f() { unimplemented!() }"),
            ("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
        ],
        good: &[("a.rs", "/// A todo list: `todo!()` in prose.\nfn f() { \"#[ignore\"; }"), ("a.md", "TODO")],
    },
    Rule {
        name: "tests wait for conditions",
        check: |source, _| {
            if !source.is("rs") || !source.path.contains("/tests/") {
                return vec![];
            }
            let waits = |at: usize| {
                let (_, name) = source.code[..at].rsplit_once("fn ").unwrap_or_default();
                name.starts_with("wait_")
            };
            let naps = source.places("sleep(").filter(|&at| !waits(at));
            naps.map(|at| (at, "a sleep proves nothing: poll a condition up to a deadline, in a function named `wait_...`".into()))
                .collect()
        },
        bad: &[
            ("crates/x/tests/a.rs", "fn f() { thread::sleep(SECOND); }"),
            ("examples/tests/a.rs", "async fn wait_for() {} async fn f() { sleep(SECOND).await; }"),
        ],
        good: &[
            ("crates/x/tests/a.rs", "fn wait_until(done: impl Fn() -> bool) { while !done() { thread::sleep(MOMENT); } }"),
            ("crates/x/src/a.rs", "fn f() { sleep(x); }"),
            // Tools of the foreign clients, which have their own ways to wait.
            ("tests/clients/rust/src/a.rs", "fn f() { sleep(x); }"),
        ],
    },
    Rule {
        name: "file size",
        check: |source, _| {
            let lines = source.text.lines().count();
            let ceiling = LARGE.iter().find(|(path, _)| *path == source.path).map_or(LINES, |(_, ceiling)| *ceiling);
            if !source.is("rs") || lines <= ceiling {
                return vec![];
            }
            found(0, &format!("{lines} lines, at most {ceiling}: split it by a sub-state that has an invariant of its own"))
        },
        bad: &[("a.rs", LONG)],
        good: &[("a.rs", "//! Short.\n"), ("a.md", LONG)],
    },
    Rule {
        name: "the core is pure",
        check: |source, _| {
            if !source.path.starts_with("crates/tidings-core/src/") {
                return vec![];
            }
            BANNED_IN_CORE.iter().flat_map(|(call, why)| source.places(call).map(move |at| (at, format!("`{call}`: {why}")))).collect()
        },
        bad: &[
            ("crates/tidings-core/src/a.rs", "fn f() { Instant::now(); }"),
            ("crates/tidings-core/src/a.rs", "use std::time::SystemTime; fn f() { SystemTime::now(); }"),
            ("crates/tidings-core/src/a.rs", "use std::thread;"),
            ("crates/tidings-core/src/a.rs", "use std::net::TcpStream;"),
            ("crates/tidings-core/src/a.rs", "fn f() { std::fs::read(x); }"),
            ("crates/tidings-core/src/a.rs", "use tokio::sync::Mutex;"),
            ("crates/tidings-core/src/a.rs", "async fn f() {}"),
            ("crates/tidings-core/src/a.rs", "use std::collections::HashMap;"),
            ("crates/tidings-core/src/a.rs", "fn f(s: RandomState) {}"),
        ],
        good: &[
            (
                "crates/tidings-core/src/a.rs",
                "/// Not `std::fs`.\nuse std::collections::BTreeMap; use hashbrown::HashMap; fn f(asynchronous: bool) {}",
            ),
            ("crates/tidings/src/a.rs", "fn f() { Instant::now(); }"),
        ],
    },
    Rule {
        name: "public types may grow",
        check: |source, _| {
            if !source.is("rs") || !source.path.starts_with("crates/tidings/src/") {
                return vec![];
            }
            let enums = source.places("pub enum ");
            // What callers hand in may grow; what an implementer of a store has to make must be makeable.
            let options = source.path.ends_with("/config.rs") || source.path.contains("/hub");
            let structs = source.places("pub struct ").filter(|&at| options && has_public_field(&source.code[at..]));
            let closed = enums.chain(structs).filter(|&at| !attributes(&source.code[..at]).contains("non_exhaustive"));
            closed.map(|at| (at, "`#[non_exhaustive]` is missing: another variant or field would break who uses it".into())).collect()
        },
        bad: &[
            ("crates/tidings/src/a.rs", "/// E.\n#[derive(Debug)]\npub enum E { A }"),
            ("crates/tidings/src/a.rs", "#[non_exhaustive]\npub enum A { X }\npub enum B { Y }"),
            ("crates/tidings/src/config.rs", "pub struct Options {\n    /// Size.\n    pub size: usize,\n}"),
        ],
        good: &[
            ("crates/tidings/src/a.rs", "#[non_exhaustive]\n/// E.\n#[derive(Debug)]\npub enum E { A }\npub(crate) enum F { B }"),
            ("crates/tidings/src/store.rs", "pub struct Bounds {\n    pub head: u64,\n}"),
            (
                "crates/tidings/src/hub.rs",
                "pub struct Handle {\n    size: usize,\n}\npub struct Unit;\npub(crate) struct P {\n    pub x: u8,\n}",
            ),
        ],
    },
    Rule {
        name: "manifest facts",
        check: |source, _| {
            let Some(folder) = source.path.strip_suffix("/Cargo.toml") else { return vec![] };
            let mut facts = vec!["license.workspace = true", "edition.workspace = true", "rust-version.workspace = true"];
            facts.push("[lints]\nworkspace = true");
            match folder {
                // Their own workspaces: nothing to inherit.
                "fuzz" => facts = vec!["license = \"MIT OR Apache-2.0\"", "publish = false"],
                _ if folder.starts_with("tests/") => facts = vec!["publish = false"],
                "bench" | "examples" => facts.push("publish = false"),
                _ => {}
            }
            facts.iter().filter(|fact| !source.text.contains(*fact)).map(|fact| (0, format!("`{fact}` is missing"))).collect()
        },
        bad: &[
            ("crates/x/Cargo.toml", "[package]\nlicense.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n"),
            (
                "crates/x/Cargo.toml",
                "[package]\nlicense = \"GPL-3.0\"\nedition.workspace = true\nrust-version.workspace = true\n[lints]\nworkspace = true",
            ),
            (
                "bench/Cargo.toml",
                "license.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n[lints]\nworkspace = true",
            ),
        ],
        good: &[
            (
                "crates/x/Cargo.toml",
                "license.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n[lints]\nworkspace = true",
            ),
            ("deny.toml", ""),
        ],
    },
    Rule {
        name: "links lead somewhere",
        check: |source, tree| {
            if !source.is("md") {
                return vec![];
            }
            let targets = source.text.match_indices("](").map(|(at, _)| {
                let rest = &source.text[at + 2..];
                (at, &rest[..rest.find([')', '#']).unwrap_or(0)])
            });
            let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let pages = targets.filter(|(_, target)| !target.contains("://") && is(target, "md"));
            let lost = pages.filter(|(_, target)| !tree.iter().any(|page| page.path == resolve(folder, target)));
            lost.map(|(at, target)| (at, format!("`{target}` is not there"))).collect()
        },
        bad: &[("docs/guide/a.md", "See [b](b.md)."), ("README.md", "[a](docs/a.md#part)")],
        good: &[("docs/a.md", "[self](a.md#x) [up](../docs/a.md) [web](https://example.com/x.md) [here](#part)")],
    },
];

/// What would make two runs of one seed differ, or tie the rules to one runtime.
const BANNED_IN_CORE: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument in the core, or a seed would not replay a run"),
    ("SystemTime::now", "time is an argument in the core, or a seed would not replay a run"),
    ("std::thread", "the core has no threads; the library drives it"),
    ("std::net", "bytes are arguments in the core; sockets belong to the library"),
    ("std::fs", "the core has no files; stores belong to the library"),
    ("tokio", "the core has no runtime; both engines and the simulation drive it"),
    ("async", "the core never waits; it returns what to wait for"),
    ("collections::HashMap", "its random seed makes the order of iteration differ from run to run; use the crate's own map"),
    ("collections::HashSet", "its random seed makes the order of iteration differ from run to run; use the crate's own map"),
    ("RandomState", "its random seed makes the order of iteration differ from run to run"),
];

/// A list of large files that names one that is small, or gone, would let it grow again.
pub(crate) fn stale_ceilings(tree: &[Source]) -> Vec<String> {
    let is_large = |path: &str| tree.iter().any(|source| source.path == path && source.text.lines().count() > LINES);
    LARGE
        .iter()
        .filter(|(path, _)| !is_large(path))
        .map(|(path, _)| format!("{path}: no longer over {LINES} lines; strike it from the list"))
        .collect()
}

pub(crate) fn found(at: usize, text: &str) -> Vec<Finding> {
    vec![(at, text.to_owned())]
}

/// The attributes (and blanked comments) right before an item: all since the end of the item before it.
fn attributes(before: &str) -> &str {
    let end = before.rfind(['}', ';', '{']).map_or(0, |at| at + 1);
    &before[end..]
}

/// Whether the struct that begins here has a field that anybody may set.
fn has_public_field(item: &str) -> bool {
    let fields = item.find(['{', ';', '(']).filter(|&at| item.as_bytes()[at] == b'{').map(|at| &item[at..]);
    fields.is_some_and(|fields| fields[..fields.find("\n}").unwrap_or(fields.len())].contains("\n    pub "))
}

/// A link's target from the root of the project.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// One line more than a file should have.
const LONG: &str = {
    const BYTES: [u8; LINES + 1] = [b'\n'; LINES + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!(),
    }
};
