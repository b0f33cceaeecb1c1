//! The checks: what each shows, in which dialect, how firmly, and the function that does it.
//!
//! Each is independent of all others. A negative (somebody does not receive something) is shown by publishing a later public update and
//! seeing only that one.

mod api;
mod cookies;
mod cors;
mod cursors;
mod details;
mod expiry;
mod framing;
mod keys;
mod limits;
mod matchers;
mod metadata;
mod patterns;
mod presence;
mod presentation;
mod private;
mod publishing;
mod replay;
mod reserved;
mod selectors;
mod subscribing;
mod templates;
mod tidings;
mod token_checks;
mod views;

use crate::{
    probe::{Outcome, Probe},
    requirements::Level,
};

/// In which dialects a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// In every dialect that the hub speaks.
    Each,
    /// In dialect 7.
    Seven,
    /// In dialect 8.
    Eight,
    /// Once, and only if the hub speaks both.
    Both,
    /// Once, in the newest dialect that the hub speaks.
    Once,
}

impl When {
    pub(crate) fn name(self) -> &'static str {
        match self {
            When::Each => "each dialect",
            When::Seven => "dialect 7",
            When::Eight => "dialect 8",
            When::Both => "both at once",
            When::Once => "once",
        }
    }
}

/// One check.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) rules: &'static [u16],
    pub(crate) when: When,
    pub(crate) level: Level,
    pub(crate) run: fn(&Probe<'_>) -> Outcome,
    /// It looks at something that other checks change.
    pub(crate) alone: bool,
}

type Run = fn(&Probe<'_>) -> Outcome;

const fn must(when: When, rules: &'static [u16], name: &'static str, run: Run) -> Check {
    Check { name, rules, when, level: Level::Must, run, alone: false }
}

const fn should(when: When, rules: &'static [u16], name: &'static str, run: Run) -> Check {
    Check { name, rules, when, level: Level::Should, run, alone: false }
}

const fn observed(when: When, rules: &'static [u16], name: &'static str, run: Run) -> Check {
    Check { name, rules, when, level: Level::Observed, run, alone: false }
}

const fn ours(when: When, rules: &'static [u16], name: &'static str, run: Run) -> Check {
    Check { name, rules, when, level: Level::Ours, run, alone: false }
}

/// All checks.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    // Long ones first, so that they do not end the run alone.
    [
        expiry::CHECKS,
        patterns::CHECKS,
        replay::CHECKS,
        limits::CHECKS,
        api::CHECKS,
        cookies::CHECKS,
        cors::CHECKS,
        cursors::CHECKS,
        details::CHECKS,
        framing::CHECKS,
        keys::CHECKS,
        matchers::CHECKS,
        metadata::CHECKS,
        presence::CHECKS,
        presentation::CHECKS,
        private::CHECKS,
        publishing::CHECKS,
        reserved::CHECKS,
        selectors::CHECKS,
        subscribing::CHECKS,
        templates::CHECKS,
        tidings::CHECKS,
        token_checks::CHECKS,
        views::CHECKS,
    ]
    .into_iter()
    .flatten()
}
