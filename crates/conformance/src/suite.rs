//! Runs the checks against a hub, many at once, each alone with its own topics.
//!
//! It knows when a check applies and what its outcome means; what it does is its own business.

use crate::{
    checks::{Check, When, all},
    probe::{Probe, Verdict},
    report::{Finding, Report, Result},
    requirements::{Level, OUTSIDE, REQUIREMENTS},
    settings::{Dialect, Hub, Settings},
};
use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// Runs every check that applies and whose name, numbers (`M-38`) or dialect contain all of the words.
///
/// Errors say what of the settings cannot be used; a hub that does not answer is a finding of each check.
pub fn run(settings: Settings, words: &[String]) -> std::result::Result<Report, String> {
    let hub = Hub::new(settings)?;
    let begun = Instant::now();
    let chosen: Vec<(&'static Check, Dialect)> = all()
        .flat_map(|check| dialects(check, &hub.settings).into_iter().map(move |dialect| (check, dialect)))
        .filter(|(check, _)| check.level != Level::Ours || hub.settings.strict)
        .filter(|(check, dialect)| words.iter().all(|word| mentions(check, *dialect, word)))
        .collect();
    // What counts something hub-wide runs when the others are done.
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(check, _)| check.alone);
    let mut findings = at_once(&hub, &together, hub.settings.jobs.max(1));
    findings.extend(at_once(&hub, &alone, 1));
    findings.sort_by_key(|finding| (finding.rules[0], finding.dialect, finding.name));
    Ok(Report { url: hub.settings.url.clone(), findings, strict: hub.settings.strict, took: begun.elapsed() })
}

fn dialects(check: &Check, settings: &Settings) -> Vec<Dialect> {
    let speaks = |dialect: &Dialect| settings.dialects.contains(dialect);
    match check.when {
        When::Each => [Dialect::Seven, Dialect::Eight].into_iter().filter(speaks).collect(),
        When::Seven => Some(Dialect::Seven).into_iter().filter(speaks).collect(),
        When::Eight => Some(Dialect::Eight).into_iter().filter(speaks).collect(),
        When::Both if settings.dialects.len() > 1 => vec![Dialect::Eight],
        When::Both => vec![],
        When::Once => settings.dialects.iter().max().copied().into_iter().collect(),
    }
}

fn mentions(check: &Check, dialect: Dialect, word: &str) -> bool {
    let number = word.strip_prefix("M-").and_then(|number| number.parse().ok());
    number.map_or_else(|| check.name.contains(word) || dialect.name() == word, |number: u16| check.rules.contains(&number))
}

fn at_once(hub: &Hub, chosen: &[(&'static Check, Dialect)], jobs: usize) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(vec![]);
    thread::scope(|scope| {
        for _ in 0..jobs.min(chosen.len()) {
            scope.spawn(|| {
                while let Some((check, dialect)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let finding = perform(hub, check, *dialect);
                    findings.lock().expect("nobody panics with it").push(finding);
                }
            });
        }
    });
    findings.into_inner().expect("nobody panics with it")
}

fn perform(hub: &Hub, check: &'static Check, dialect: Dialect) -> Finding {
    let begun = Instant::now();
    let probe = Probe::new(hub, dialect);
    let outcome = catch_unwind(AssertUnwindSafe(|| (check.run)(&probe)));
    let (result, detail) = match outcome {
        Ok(Ok(())) => (Result::Passed, String::new()),
        Ok(Err(Verdict::Skipped(why))) => (Result::Skipped, why),
        Ok(Err(Verdict::Failed { expected, seen })) => {
            let result = match check.level {
                Level::Must | Level::Ours => Result::Failed,
                Level::Should => Result::Warning,
                Level::Observed => Result::Note,
            };
            (result, format!("expected: {expected}\nsaw: {seen}"))
        }
        Err(_) => (Result::Failed, "the suite itself has a fault in this check".to_owned()),
    };
    let record = if result > Result::Passed { probe.into_record() } else { vec![] };
    Finding {
        name: check.name,
        rules: check.rules,
        dialect: dialect.name(),
        level: check.level,
        ours: check.level == Level::Ours,
        result,
        detail,
        record,
        took: begun.elapsed(),
    }
}

/// Every requirement with the checks that show it, or the reason why none can.
pub fn list() -> String {
    let mut text = String::new();
    for requirement in REQUIREMENTS {
        let _ = writeln!(text, "M-{} {}: {}", requirement.number, requirement.level.name(), requirement.title);
        for check in all().filter(|check| check.rules.contains(&requirement.number)) {
            let ours = if check.level == Level::Ours { " (only asked of Tidings)" } else { "" };
            let _ = writeln!(text, "    {} [{}]{ours}", check.name, check.when.name());
        }
        if let Some((_, reason)) = OUTSIDE.iter().find(|(number, _)| *number == requirement.number) {
            let _ = writeln!(text, "    not testable from outside: {reason}");
        }
    }
    text
}
