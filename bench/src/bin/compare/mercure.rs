//! What the Mercure protocol adds to the price of an event and of a connection: topics never seen before, templates, tokens and presence.
//!
//! Each row is the hub against itself, so that it says what grows with subscribers; it knows the hub's settings as they are typed.

use crate::rows::{
    Against, Goal, Measure, Row, Variant, absolute, bytes_of_all, bytes_per_connection, cpu_per_connection, cpu_per_publish,
    publishes_per_s, refused, to,
};

const HUB: &[&str] = &["hub"];

macro_rules! publishing {
    () => {
        " --publish /.well-known/mercure --publish-header content-type:application/x-www-form-urlencoded --body topic={topic:url}&data={payload:url} "
    };
}

/// Subscribers of one topic each, with events for others.
macro_rules! fresh {
    ($subscribers:literal) => {
        concat!(
            "publish --publishers 8 --duration 6s --topic https://example.com/new/{n} --subscribe /.well-known/mercure?topic=https%3A%2F%2Fexample.com%2Fothers%2F{i}",
            publishing!(),
            "--subscribers ",
            $subscribers
        )
    };
}

/// Subscribers of one template each, with events for one of them.
macro_rules! templates {
    ($subscribers:literal, $topic:literal, $template:literal) => {
        concat!(
            "topics --publishers 8 --in-flight 16 --duration 6s --topic https://example.com/",
            $topic,
            " --subscribe /.well-known/mercure?topic=https%3A%2F%2Fexample.com%2F",
            $template,
            publishing!(),
            "--subscribers ",
            $subscribers
        )
    };
}

macro_rules! idle {
    ($template:literal) => {
        concat!("idle --from 5000 --to 15000 --rounds 1 --subscribe /.well-known/mercure?topic=https%3A%2F%2Fexample.com%2F", $template)
    };
}

macro_rules! storm {
    ($more:literal) => {
        concat!(
            "storm --subscribers 5000 --connecting 512 --rounds 3 --topic https://example.com/users/{i} --subscribe /.well-known/mercure?topic={topic:url}",
            $more
        )
    };
}

const TOKENS: &str = storm!(" --token-key {private-key} --token-alg RS256 --token-grant https://example.com/users/{i}");
const KEYS: &str = "--token-key-file {public-key} --token-algorithms RS256 --legacy-tokens";
const PRESENCE: &str = "--subscriptions";
const KEYS_AND_PRESENCE: &str = "--token-key-file {public-key} --token-algorithms RS256 --legacy-tokens --subscriptions";

const fn variant(name: &'static str, bench: &'static str, serve: &'static str) -> Variant {
    Variant { name, bench, serve, hub_only: false, apart: false }
}

const fn at_least(
    what: &'static str,
    variant: &'static str,
    figure: fn(&serde_json::Value) -> Option<f64>,
    other: &'static str,
    least: f64,
) -> Measure {
    Measure { what, variant, figure, against: Against::Variant(other), goal: Some(Goal::AtLeast(least)) }
}

const fn beside(what: &'static str, variant: &'static str, figure: fn(&serde_json::Value) -> Option<f64>, other: &'static str) -> Measure {
    Measure { what, variant, figure, against: Against::Variant(other), goal: None }
}

const CPU: &str = "CPU us per publish";
const OF_ALL: &str = "(Pss at 15,000 less Pss at none) / 15,000, a template each";
const BYTES: &str = "bytes per connection with a template of its own";

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "mercure-fresh",
        title: "publishing to topics never seen before, presence on, subscribers on other topics",
        servers: HUB,
        variants: &[variant("10", fresh!("10"), PRESENCE), variant("10000", fresh!("10000"), PRESENCE)],
        measures: &[at_least("publishes/s", "10000", publishes_per_s, "10", 0.8), beside(CPU, "10000", cpu_per_publish, "10")],
    },
    Row {
        name: "mercure-templates-front",
        title: "a template each, different in front: https://example.com/books/{i}/{id}",
        servers: HUB,
        variants: &[
            variant("10", templates!("10", "books/{i}/1", "books%2F{i}%2F%7Bid%7D"), ""),
            variant("10000", templates!("10000", "books/{i}/1", "books%2F{i}%2F%7Bid%7D"), ""),
            variant("memory", idle!("books%2F{i}%2F%7Bid%7D"), ""),
            variant("memory of topics", idle!("books%2F{i}%2F1"), ""),
        ],
        measures: &[
            to(CPU, "10000", cpu_per_publish, "10", 2.0),
            absolute(BYTES, "memory", bytes_per_connection, Some(Goal::AtMost(2_048.0))),
            absolute("the same with a topic of its own", "memory of topics", bytes_per_connection, None),
            absolute(OF_ALL, "memory", bytes_of_all, None),
            absolute("the same with a topic of its own", "memory of topics", bytes_of_all, None),
        ],
    },
    Row {
        name: "mercure-templates-behind",
        title: "a template each, different behind an expression: https://example.com/users/{id}/orders/{i}",
        servers: HUB,
        variants: &[
            variant("10", templates!("10", "users/7/orders/{i}", "users%2F%7Bid%7D%2Forders%2F{i}"), ""),
            variant("10000", templates!("10000", "users/7/orders/{i}", "users%2F%7Bid%7D%2Forders%2F{i}"), ""),
            variant("memory", idle!("users%2F%7Bid%7D%2Forders%2F{i}"), ""),
        ],
        measures: &[
            to(CPU, "10000", cpu_per_publish, "10", 2.0),
            absolute(BYTES, "memory", bytes_per_connection, Some(Goal::AtMost(2_048.0))),
            absolute(OF_ALL, "memory", bytes_of_all, None),
        ],
    },
    Row {
        name: "mercure-storm",
        title: "5,000 clients, a topic each, drop and come back three times: without tokens, and with an RS256 token each and presence",
        servers: HUB,
        variants: &[
            variant("plain", storm!(""), ""),
            variant("presence", storm!(""), PRESENCE),
            variant("tokens", TOKENS, KEYS),
            variant("both", TOKENS, KEYS_AND_PRESENCE),
        ],
        measures: &[
            absolute("CPU us per connection, plain", "plain", cpu_per_connection, None),
            beside("with presence", "presence", cpu_per_connection, "plain"),
            beside("with tokens", "tokens", cpu_per_connection, "plain"),
            to("with tokens and presence", "both", cpu_per_connection, "plain", 2.0),
            absolute("refused", "both", refused, Some(Goal::AtMost(0.0))),
        ],
    },
];
