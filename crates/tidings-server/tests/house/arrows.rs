//! The arrows: which crate may use which, which module of the library may name which, and where HTTP's own types may be.
//!
//! It knows names and paths, not what is behind them. The picture is in ARCHITECTURE.md; a new arrow is discussed before it is drawn.

use crate::{Finding, Rule, rules::found};

/// Crates of this project that another one may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/tidings-core", &[]),
    ("crates/tidings", &["tidings-core"]),
    ("crates/tidings-server", &["tidings"]),
    // A black-box suite: it knows no hub from inside.
    ("crates/conformance", &[]),
    ("examples", &["tidings"]),
    ("bench", &["tidings"]),
    ("fuzz", &["tidings", "tidings-core"]),
];

/// What does I/O, waits, or draws random numbers: none of it is for the core.
const NOT_FOR_CORE: &[&str] = &[
    "async-std",
    "axum",
    "futures",
    "futures-core",
    "futures-util",
    "getrandom",
    "http",
    "http-body",
    "hyper",
    "hyper-util",
    "mio",
    "rand",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// Modules of the library and those they may name. The leaves `config` and `telemetry` may be named by all and name nobody.
const MODULES: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("telemetry", &[]),
    ("store", &["config", "telemetry"]),
    ("delivery", &["config", "telemetry"]),
    ("replay", &["store", "config", "telemetry"]),
    ("fetch", &["config", "telemetry"]),
    ("auth", &["fetch", "config", "telemetry"]),
    ("hub", &["replay", "store", "delivery", "config", "telemetry"]),
    ("http", &["auth", "hub", "config", "telemetry"]),
    ("serve", &["http", "auth", "hub", "config", "telemetry"]),
];

/// What a module may name beside its arrows, and why.
const HANDED_OVER: &[(&str, &str)] = &[
    // The hub's answer to a subscription carries it; HTTP passes it on as the response body and knows nothing of it.
    ("http", "delivery::EventBody"),
    ("http", "delivery::Aborted"),
    // Engine B: who may take a connection over, the ticket that says for which subscription, and the socket that goes with it.
    ("http", "delivery::MayDetach"),
    ("serve", "delivery::MayDetach"),
    ("serve", "delivery::Ticket"),
    ("serve", "delivery::Prepared"),
    ("serve", "delivery::Door"),
    ("serve", "delivery::Doorway"),
    ("serve", "delivery::Socket"),
    // What wakes a shard for sockets that were handed over together.
    ("serve", "delivery::Ring"),
    // The hub reads the keys at its start, so that bad ones are a reason not to start, and holds what they became for HTTP.
    ("hub", "auth::Guard"),
    // The hub's errors carry it; which status it becomes is decided where all of them are.
    ("http", "store::StoreError"),
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "arrows between crates",
        check: |source, _| {
            let Some(folder) = source.path.strip_suffix("/Cargo.toml") else { return vec![] };
            let Some((_, allowed)) = CRATES.iter().find(|(of, _)| *of == folder) else {
                return if folder.starts_with("crates/") { found(0, "a new crate: draw its arrows first") } else { vec![] };
            };
            let ours = |name: &str| name == "tidings" || name.starts_with("tidings-");
            let forbidden = dependencies(&source.text).filter(|(_, name)| ours(name) && !allowed.contains(name));
            forbidden.map(|(at, name)| (at, format!("`{folder}` does not know `{name}`; it may use {allowed:?}"))).collect()
        },
        bad: &[
            ("crates/tidings-core/Cargo.toml", "[dependencies]\ntidings.workspace = true\n"),
            ("crates/tidings/Cargo.toml", "[dev-dependencies]\ntidings-server = { path = \"x\" }\n"),
            ("crates/tidings-server/Cargo.toml", "[dependencies]\ntidings-core.workspace = true\n"),
            ("crates/new/Cargo.toml", ""),
        ],
        good: &[
            ("crates/tidings/Cargo.toml", "[package]\nname = \"tidings\"\n[dependencies]\ntidings-core.workspace = true\nbytes = \"1\"\n"),
            ("fuzz/Cargo.toml", "[dependencies]\ntidings-core = { path = \"x\" }\n"),
        ],
    },
    Rule {
        name: "the core has no runtime",
        check: |source, _| {
            if source.path != "crates/tidings-core/Cargo.toml" {
                return vec![];
            }
            let found = dependencies(&source.text).filter(|(_, name)| NOT_FOR_CORE.contains(name));
            found
                .map(|(at, name)| (at, format!("`{name}`: the core has no runtime, socket or random source; bytes and time are arguments")))
                .collect()
        },
        bad: &[
            ("crates/tidings-core/Cargo.toml", "[dependencies]\ntokio.workspace = true\n"),
            ("crates/tidings-core/Cargo.toml", "[dependencies.mio]\nversion = \"1\"\n"),
            ("crates/tidings-core/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nsocket2 = \"0.6\"\n"),
        ],
        good: &[("crates/tidings-core/Cargo.toml", "[dependencies]\nbytes.workspace = true\n[features]\ntokio = []\n")],
    },
    Rule {
        name: "arrows between modules",
        check: |source, tree| {
            let Some(module) = module_of(&source.path) else { return vec![] };
            let Some((_, allowed)) = MODULES.iter().find(|(of, _)| *of == module) else {
                return found(0, &format!("`{module}` is a new module of the library: draw its arrows first"));
            };
            let mut findings: Vec<Finding> = source
                .places("super::super::")
                .map(|at| (at, "write the path from `crate::`, so that its arrow can be seen".into()))
                .collect();
            let root = tree.iter().find(|source| source.path == "crates/tidings/src/lib.rs").map_or("", |root| &root.code);
            for (at, path) in named_paths(&source.code) {
                let path = from_root(root, &path);
                let to = path.split("::").next().unwrap_or_default();
                let is_module = MODULES.iter().any(|(of, _)| *of == to);
                if is_module && to != module && !allowed.contains(&to) && !HANDED_OVER.contains(&(module, &path)) {
                    findings.push((at, format!("`{module}` does not know `{path}`; it may name {allowed:?}")));
                }
            }
            findings
        },
        bad: &[
            ("crates/tidings/src/store.rs", "use crate::delivery::Frame;"),
            ("crates/tidings/src/delivery/body.rs", "fn f(x: crate::store::Store) {}"),
            ("crates/tidings/src/hub.rs", "use crate::{Config, http::Reply};"),
            ("crates/tidings/src/hub.rs", "use crate::{\n    config::{A, B},\n    auth::Key,\n};"),
            ("crates/tidings/src/config.rs", "use crate::Hub;"),
            ("crates/tidings/src/replay.rs", "use crate::{Config, Hub};"),
            ("crates/tidings/src/http/publish.rs", "use crate::store::Store;"),
            ("crates/tidings/src/http/publish.rs", "use crate::delivery::Mailbox;"),
            ("crates/tidings/src/store/memory.rs", "use super::super::hub::Hub;"),
            ("crates/tidings/src/queue.rs", ""),
        ],
        good: &[
            ("crates/tidings/src/http/publish.rs", "use crate::{Hub, auth, http::problem, delivery::EventBody, config::{Config}};"),
            ("crates/tidings/src/hub.rs", "use crate::{Config, store::{Store, memory}, delivery}; use tidings_core::http::X;"),
            ("crates/tidings/src/delivery/body.rs", "use crate::delivery::Frame; use super::Mailbox; // crate::store"),
            ("crates/tidings/src/config.rs", "use tidings_core::limits; use crate::Event;"),
        ],
    },
    Rule {
        name: "HTTP stays in its rooms",
        check: |source, _| {
            let Some(module) = module_of(&source.path) else { return vec![] };
            if ["http", "serve", "fetch"].contains(&module) || source.path == "crates/tidings/src/delivery/body.rs" {
                return vec![];
            }
            let own = |at: usize| source.code[..at].ends_with("::");
            let crates = ["http::", "hyper::", "hyper_util::", "axum::"].into_iter();
            let paths = crates.flat_map(|name| source.places(name).map(move |at| (at, name))).filter(|(at, _)| !own(*at));
            let types = source.places("HeaderMap").map(|at| (at, "HeaderMap"));
            paths.chain(types).map(|(at, name)| (at, format!("`{name}`: requests, responses and headers never leave `http/`"))).collect()
        },
        bad: &[
            ("crates/tidings/src/hub.rs", "use http::StatusCode;"),
            ("crates/tidings/src/store/memory.rs", "fn f(headers: &HeaderMap) {}"),
            ("crates/tidings/src/auth.rs", "fn f(r: hyper::Request<()>) {}"),
            ("crates/tidings/src/delivery.rs", "use axum::body::Body;"),
        ],
        good: &[
            ("crates/tidings/src/http/publish.rs", "use http::StatusCode;"),
            ("crates/tidings/src/serve.rs", "use hyper::server;"),
            ("crates/tidings/src/fetch.rs", "use hyper::client;"),
            ("crates/tidings/src/delivery/body.rs", "use http::HeaderMap;"),
            ("crates/tidings/src/delivery.rs", "use http_body::Body; // http::Request"),
            ("crates/tidings/src/lib.rs", "pub use http::Service;"),
        ],
    },
];

/// The module of the library that a file belongs to; `None` for the root, which names all, and for files elsewhere.
fn module_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("crates/tidings/src/")?;
    let module = inner.split(['/', '.']).next()?;
    (module != "lib").then_some(module)
}

/// The dependencies that a manifest names, of every kind.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    let mut start = 0;
    manifest.split_inclusive('\n').filter_map(move |line| {
        let at = start;
        start += line.len();
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            return section.rsplit_once("dependencies.").map(|(_, name)| (at, name));
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        (inside && !name.is_empty() && !name.starts_with('#')).then_some((at, name))
    })
}

/// Every path that begins at the crate's root, as `first::second` (or `first` alone), lists of imports taken apart.
fn named_paths(code: &str) -> Vec<(usize, String)> {
    let places = crate::source::words(code, "crate::").filter(|&at| !code[..at].ends_with('$'));
    places.flat_map(|at| paths_after(&code[at + "crate::".len()..]).into_iter().map(move |path| (at, path))).collect()
}

fn paths_after(rest: &str) -> Vec<String> {
    match rest.strip_prefix('{') {
        None => {
            let Some((first, after)) = name(rest) else { return vec![] };
            match after.strip_prefix("::") {
                Some(inner) => below(first, inner),
                None => vec![first.to_owned()],
            }
        }
        Some(list) => items(list).into_iter().flat_map(paths_after).collect(),
    }
}

/// `first::` and what follows, each name of a list for itself.
fn below(first: &str, inner: &str) -> Vec<String> {
    let seconds = match inner.strip_prefix('{') {
        None => vec![inner],
        Some(list) => items(list),
    };
    seconds.iter().map(|second| name(second).map_or(first.to_owned(), |(second, _)| format!("{first}::{second}"))).collect()
}

/// The items of a list of imports, up to its closing brace.
fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                items.push(list[from..at].trim());
                from = at + 1;
            }
            '}' if depth == 0 => {
                items.push(list[from..at].trim());
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// The name at the beginning, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A name that the root of the library gives out counts as where it comes from.
fn from_root(root: &str, path: &str) -> String {
    let first = path.split("::").next().unwrap_or_default();
    let exports = crate::source::words(root, "pub use ").map(|at| &root[at + "pub use ".len()..]);
    let home = exports.flat_map(paths_after).find(|export| export.split("::").nth(1) == Some(first));
    home.unwrap_or_else(|| path.to_owned())
}

#[test]
fn paths_are_taken_apart() {
    let code = "use crate::{A, b::{C, d::E}, f::*, g}; fn x(y: crate::h::I) {} use crate::J;";
    let paths: Vec<String> = named_paths(code).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["A", "b::C", "b::d", "f", "g", "h::I", "J"]);
}
