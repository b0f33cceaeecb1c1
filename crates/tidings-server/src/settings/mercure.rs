//! The settings of the Mercure path, part of the table of settings.
//!
//! A line says what may be written and which field it changes; how values are read is the parent module's.

use super::{Kind, Setting};
use tidings::{AfterGap, Dialects, limits};

const MERCURE: &str = "The Mercure protocol";

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "mercure-dialects",
        group: MERCURE,
        kind: Kind::Choice {
            of: &["both", "7", "8", "off"],
            set: |s, text| {
                s.hub.mercure_dialects = match text {
                    "7" => Dialects::Seven,
                    "8" => Dialects::Eight,
                    "off" => Dialects::Off,
                    _ => Dialects::Both,
                };
                Ok(())
            },
        },
        default: "both",
        rule: "M-401",
        help: "Dialects spoken at /.well-known/mercure: 7 has `topic` parameters (versions 0.x), 8 has `match` parameters (1.0)",
    },
    Setting {
        name: "mercure-body",
        group: MERCURE,
        kind: Kind::Size { least: 1 << 10, most: 1 << 30, set: |s, bytes| s.hub.mercure_body = bytes as usize },
        default: "1MiB",
        rule: "N-40, M-51",
        help: "Largest body of a request there; the percent-encoding of the form counts",
    },
    Setting {
        name: "mercure-topics",
        group: MERCURE,
        kind: Kind::Count { least: 1, most: limits::TOPICS_PER_EVENT_MAX as u64, set: |s, count| s.hub.mercure_topics = count as usize },
        default: "1000",
        rule: "N-40, M-312",
        help: "Most topics of one event published there",
    },
    Setting {
        name: "mercure-selectors",
        group: MERCURE,
        kind: Kind::Count { least: 1, most: limits::MATCHERS_MAX as u64, set: |s, count| s.hub.mercure_selectors = count as usize },
        default: "1000",
        rule: "N-40, M-312",
        help: "Most `topic` parameters of one subscription there; the setting `matchers` bounds its `match` parameters",
    },
    Setting {
        name: "mercure-after-gap",
        group: MERCURE,
        kind: Kind::Choice {
            of: &["replay", "live"],
            set: |s, text| {
                s.hub.mercure_after_gap = if text == "replay" { AfterGap::Replay } else { AfterGap::Live };
                Ok(())
            },
        },
        default: "live",
        rule: "M-407",
        help: "What a reader there gets whose place in the log is gone, which the response header tells: everything that is kept, or only what is new",
    },
    Setting {
        name: "mercure-gap-event",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_gap_event = on },
        default: "false",
        rule: "M-407",
        help: "Tell such a reader by a tidings.gap event too",
    },
    Setting {
        name: "mercure-topics-field",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_topics_field = on },
        default: "false",
        rule: "M-130",
        help: "Name the topics of each event in `topics` lines, for subscriptions by `match`",
    },
    Setting {
        name: "mercure-debug",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_debug = on },
        default: "false",
        rule: "M-401",
        help: "Serve a page at /.well-known/mercure/debug/ to subscribe and publish by hand",
    },
];
