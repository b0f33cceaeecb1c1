//! URL patterns against the data of the web platform's tests, which travel in the source of the crate `urlpattern`: what becomes of a pattern
//! here must match what browsers agree on.
//!
//! The data are read where Cargo has put that source. A copy of the crate without them fails the test: it must not pass for lack of cases.

#[expect(dead_code, reason = "how much a pattern takes is not asked here")]
#[path = "../src/pattern/compiled.rs"]
mod compiled;

use compiled::{Compiled, Part, line};
use serde_json::Value;
use std::{path::PathBuf, process::Command};
use tidings_core::{PatternError, limits};
use urlpattern::quirks::{self, MatchInput, StringOrInit};

fn said(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().expect("the toolchain runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where the data are.
fn data() -> PathBuf {
    let about = String::from_utf8(said(env!("CARGO"), &["-vV"])).expect("text");
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    // Of other platforms' crates, and of those of packages that this test was not built with, none need be here: so only this platform's
    // are asked for, and Cargo may fetch what it lacks.
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", host, "--manifest-path", manifest];
    let metadata: Value = serde_json::from_slice(&said(env!("CARGO"), &arguments)).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let manifest = packages.iter().find(|package| package["name"] == "urlpattern").map(|package| &package["manifest_path"]);
    let manifest = PathBuf::from(manifest.and_then(Value::as_str).expect("the crate is a dependency"));
    manifest.with_file_name("src").join("testdata").join("urlpatterntestdata.json")
}

fn given(value: &Value) -> StringOrInit<'static> {
    serde_json::from_value(value.clone()).expect("a string or an object of parts")
}

/// The pattern of a case; nothing if it cannot be made.
fn compile(arguments: &[Value]) -> Option<Compiled> {
    let base = arguments.get(1).and_then(Value::as_str);
    if arguments.len() > 1 && base.is_none() && !arguments[1]["ignoreCase"].is_boolean() {
        return None;
    }
    let init = match arguments.first() {
        Some(first) => quirks::process_construct_pattern_input(given(first), base).ok()?,
        None => urlpattern::UrlPatternInit::default(),
    };
    Compiled::of(init).ok()
}

fn part(input: &MatchInput, part: Part) -> &str {
    match part {
        Part::Pathname => &input.pathname,
        Part::Hostname => &input.hostname,
        Part::Protocol => &input.protocol,
        Part::Search => &input.search,
        Part::Hash => &input.hash,
        Part::Port => &input.port,
        Part::Username => &input.username,
        Part::Password => &input.password,
    }
}

/// Whether the pattern matches what a case gives it; nothing where that is an error.
fn matches(pattern: &Compiled, inputs: &[Value]) -> Option<bool> {
    let first = inputs.first().map_or(StringOrInit::Init(quirks::UrlPatternInit::default()), given);
    let Some((input, _)) = quirks::process_match_input(first, inputs.get(1).and_then(Value::as_str)).ok()? else { return Some(false) };
    if let urlpattern::UrlPatternMatchInput::Url(url) = &input {
        let matches = pattern.matches(url);
        assert!(!matches || line(url).starts_with(&*pattern.head), "an index would not find it");
        return Some(matches);
    }
    Some(quirks::parse_match_input(input).is_some_and(|input| pattern.matches_parts(|of| part(&input, of))))
}

/// The constructor that takes a text: absolute and relative to a base.
#[test]
fn from_a_text() {
    let base = url::Url::parse("https://hub.example/").unwrap();
    let url = url::Url::parse("https://hub.example/a").unwrap();
    assert!(Compiled::new("/a", &base).unwrap().matches(&url) && !Compiled::new("https://a.example/a", &base).unwrap().matches(&url));
    assert!(matches!(Compiled::new("/(", &base), Err(PatternError::Invalid(_))));
}

/// M-32: every case of the web platform's tests that is about matching, but for those that ask for what this hub never does.
#[test]
fn web_platform_tests() {
    let path = data();
    let text =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; this version of the crate has no test data", path.display()));
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let (mut checked, mut wrong) = (0, Vec::new());
    for case in cases.iter().filter(|case| case.is_object()) {
        let arguments = case["pattern"].as_array().expect("arguments");
        // Upper and lower case are never the same here.
        let ignores_case = arguments.iter().any(|argument| argument["ignoreCase"] == true);
        // A quantifier on a quantifier, which only ECMAScript's syntax takes.
        if ignores_case || case.get("skip").is_some() {
            continue;
        }
        checked += 1;
        let compiled = compile(arguments);
        let error = case["expected_obj"] == "error";
        let expected = match &case["expected_match"] {
            Value::String(_) => None,
            other => Some(!other.is_null()),
        };
        let found = compiled.as_ref().map(|pattern| matches(pattern, case["inputs"].as_array().map_or(&[], Vec::as_slice)));
        let right = if error { found.is_none() } else { found.is_some() && (case.get("inputs").is_none() || found == Some(expected)) };
        if !right {
            wrong.push(format!(
                "{}: {found:?}",
                serde_json::json!([case["pattern"], case["inputs"], case["expected_obj"], case["expected_match"]])
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked >= 340, "only {checked} cases");
}
