//! What a run found: a table by requirement number for people, and the same as JSON.
//!
//! It knows results, not how they came about.

use crate::requirements::{Level, OUTSIDE, REQUIREMENTS, Requirement};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// How a check, or a requirement as the worst of its checks, came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Result {
    /// Nothing could be said: the hub is not set up for it, or the suite was not told.
    Skipped,
    /// As required.
    Passed,
    /// Other than the reference lines were observed to do.
    Note,
    /// A SHOULD does not hold.
    Warning,
    /// A MUST does not hold.
    Failed,
}

impl Result {
    fn name(self) -> &'static str {
        match self {
            Result::Skipped => "skipped",
            Result::Passed => "passed",
            Result::Note => "note",
            Result::Warning => "warning",
            Result::Failed => "FAILED",
        }
    }
}

/// One check in one dialect.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What is checked, in words.
    pub name: &'static str,
    /// The requirements that it shows.
    pub rules: &'static [u16],
    /// `7` or `8`.
    pub dialect: &'static str,
    /// How firmly it is demanded.
    pub level: Level,
    /// Whether only Tidings promises it.
    pub ours: bool,
    /// How it came out.
    pub result: Result,
    /// Why it was skipped, or what was expected and seen.
    pub detail: String,
    /// What was sent and received, in order; empty unless something is wrong.
    pub record: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// All findings of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The hub URL.
    pub url: String,
    /// Sorted by requirement.
    pub findings: Vec<Finding>,
    /// Whether warnings and notes are failures too.
    pub strict: bool,
    /// How long the whole run took.
    pub took: Duration,
}

impl Report {
    /// Whether the hub may call itself conforming, as strictly as asked.
    pub fn passed(&self) -> bool {
        let worst = self.findings.iter().map(|finding| finding.result).max().unwrap_or(Result::Skipped);
        worst != Result::Skipped && if self.strict { worst <= Result::Passed } else { worst < Result::Failed }
    }

    /// Requirements for which at least one check could say something.
    pub fn covered(&self, dialect: Option<&str>) -> usize {
        let said =
            self.findings.iter().filter(|finding| finding.result > Result::Skipped && dialect.is_none_or(|name| finding.dialect == name));
        let mut numbers: Vec<u16> = said.flat_map(|finding| finding.rules.iter().copied()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    fn by_requirement(&self) -> BTreeMap<u16, Vec<&Finding>> {
        let mut rows: BTreeMap<u16, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            for rule in finding.rules {
                rows.entry(*rule).or_default().push(finding);
            }
        }
        rows
    }

    fn count(&self, result: Result) -> usize {
        self.findings.iter().filter(|finding| finding.result == result).count()
    }

    /// The table by requirement, then every finding that is not as it should be.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = self.by_requirement();
        let _ = writeln!(text, "{:<6} {:<6} {:<8} {:<8} requirement", "", "level", "7", "8");
        for Requirement { number, level, title } in REQUIREMENTS {
            let Some(findings) = rows.get(number) else { continue };
            let of =
                |dialect: &str| findings.iter().filter(|one| one.dialect == dialect).map(|one| one.result).max().map_or("-", Result::name);
            let _ = writeln!(text, "M-{number:<4} {:<6} {:<8} {:<8} {title}", level.name(), of("7"), of("8"));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for finding in self.findings.iter().filter(|finding| finding.result == Result::Skipped) {
            reasons.entry(&finding.detail).or_default().push(finding.name);
        }
        for (reason, names) in reasons {
            let _ = writeln!(text, "\nskipped, {reason}:\n  {}", names.join("\n  "));
        }
        for finding in self.findings.iter().filter(|finding| finding.result > Result::Passed) {
            let numbers: Vec<String> = finding.rules.iter().map(|rule| format!("M-{rule}")).collect();
            let ours = if finding.ours { ", tidings only" } else { "" };
            let heading = format!("{} (dialect {}, {}{ours}): {}", finding.result.name(), finding.dialect, numbers.join(" "), finding.name);
            let _ = writeln!(text, "\n{heading}\n{}", indent(&finding.detail));
            let shown = finding.record.len().saturating_sub(12);
            for line in &finding.record[shown..] {
                let _ = writeln!(text, "{}", indent(line));
            }
        }
        let _ = writeln!(
            text,
            "\n{} checks in {:.1} s: {} passed, {} failed, {} warnings, {} notes, {} skipped.\n\
            {} requirements covered ({} in dialect 7, {} in dialect 8); {} cannot be seen from outside (--list says why).",
            self.findings.len(),
            self.took.as_secs_f64(),
            self.count(Result::Passed),
            self.count(Result::Failed),
            self.count(Result::Warning),
            self.count(Result::Note),
            self.count(Result::Skipped),
            self.covered(None),
            self.covered(Some("7")),
            self.covered(Some("8")),
            OUTSIDE.len(),
        );
        text
    }

    /// The same for programs: `requirements` with a result per dialect, `checks` with their details, `not_testable` with reasons.
    pub fn json(&self) -> Value {
        let rows = self.by_requirement();
        let number = |rule: &u16| format!("M-{rule}");
        let requirements: Vec<Value> = REQUIREMENTS
            .iter()
            .filter_map(|requirement| {
                let findings = rows.get(&requirement.number)?;
                let worst = |dialect: &str| findings.iter().filter(|one| one.dialect == dialect).map(|one| one.result).max().map(Result::name);
                let results = json!({"7": worst("7"), "8": worst("8")});
                Some(json!({"id": number(&requirement.number), "level": requirement.level.name(), "title": requirement.title, "results": results}))
            })
            .collect();
        let checks: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name,
                    "requirements": finding.rules.iter().map(number).collect::<Vec<_>>(),
                    "dialect": finding.dialect,
                    "level": finding.level.name(),
                    "tidings": finding.ours,
                    "result": finding.result.name(),
                    "detail": finding.detail,
                    "record": finding.record,
                    "milliseconds": finding.took.as_millis() as u64,
                })
            })
            .collect();
        let outside: Vec<Value> = OUTSIDE.iter().map(|(rule, reason)| json!({"id": number(rule), "reason": reason})).collect();
        json!({
            "hub": self.url,
            "passed": self.passed(),
            "strict": self.strict,
            "covered": {"all": self.covered(None), "7": self.covered(Some("7")), "8": self.covered(Some("8"))},
            "requirements": requirements,
            "checks": checks,
            "not_testable": outside,
        })
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
