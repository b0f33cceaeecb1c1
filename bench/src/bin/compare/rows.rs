//! What is compared: each row is a load, the servers it makes sense for, and the figures taken from it with what they should be.
//!
//! It knows `tidings bench` by its arguments and the names in its JSON; nothing of processes.

use serde_json::Value;

/// One load, or a few that belong together.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// In the order they run; the first is always run, because the others are measured against it.
    pub(crate) servers: &'static [&'static str],
    pub(crate) variants: &'static [Variant],
    pub(crate) measures: &'static [Measure],
}

/// One run of `tidings bench`.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Arguments of the load, without the address.
    pub(crate) bench: &'static str,
    /// Further settings of the hub.
    pub(crate) serve: &'static str,
    /// Only the hub can do it.
    pub(crate) hub_only: bool,
    /// The server runs on one half of the cores and the load on the other.
    pub(crate) apart: bool,
}

/// One figure of a variant.
pub(crate) struct Measure {
    pub(crate) what: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) figure: fn(&Value) -> Option<f64>,
    pub(crate) against: Against,
    /// What the hub as a binary has to reach: the ratio, or the figure itself if it is measured against nothing.
    pub(crate) goal: Option<Goal>,
}

/// What a figure is divided by, in the same repetition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    Nothing,
    /// The same figure of this server, in the variant named.
    Server(&'static str, &'static str),
    /// The same figure of the same server in another variant.
    Variant(&'static str),
}

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Goal::AtMost(bound) => value <= bound,
            Goal::AtLeast(bound) => value >= bound,
        }
    }
}

const STREAMING: &[&str] = &["floor", "hub", "embedded", "axum", "nchan", "node"];
const SATURATED: &[&str] = &["floor-coalesce", "hub", "embedded", "axum", "nchan", "node"];

const fn plain(name: &'static str, bench: &'static str) -> Variant {
    Variant { name, bench, serve: "", hub_only: false, apart: false }
}

const fn disk(name: &'static str, bench: &'static str, serve: &'static str) -> Variant {
    Variant { name, bench, serve, hub_only: false, apart: false }
}

/// The same load as the scheduler places it, and apart. Clients have machines of their own: without the second a server shares its cores with them, and which of its threads does so is the
/// scheduler's choice.
const fn placed(bench: &'static str) -> [Variant; 2] {
    [plain("", bench), Variant { name: "apart", bench, serve: "", hub_only: false, apart: true }]
}

const fn cpu(variant: &'static str) -> Measure {
    let against = Against::Server("floor", variant);
    Measure { what: "CPU us per delivery", variant, figure: cpu_per_delivery, against, goal: Some(Goal::AtMost(1.10)) }
}

const fn p99(goal: Option<Goal>) -> Measure {
    Measure { what: "p99 ms", variant: "", figure: latency_p99, against: Against::Server("floor", ""), goal }
}

const fn saturated(what: &'static str, figure: fn(&Value) -> Option<f64>, goal: Option<Goal>) -> Measure {
    Measure { what, variant: "", figure, against: Against::Server("floor-coalesce", ""), goal }
}

pub(crate) const fn to(
    what: &'static str,
    variant: &'static str,
    figure: fn(&Value) -> Option<f64>,
    other: &'static str,
    most: f64,
) -> Measure {
    Measure { what, variant, figure, against: Against::Variant(other), goal: Some(Goal::AtMost(most)) }
}

pub(crate) const fn absolute(what: &'static str, variant: &'static str, figure: fn(&Value) -> Option<f64>, goal: Option<Goal>) -> Measure {
    Measure { what, variant, figure, against: Against::Nothing, goal }
}

/// What the stalled readers' hub is started with: a window that is full within seconds.
const SMALL_WINDOW: &str = "--window-bytes 1MiB --lag-bytes 1MiB --event-data 64KiB";

/// A log that keeps everything a run publishes.
const PATIENT: &str = "--data {data} --retention-bytes 100GiB --retention-age off";
const LIVE: &str = "fanout --subscribers 10000 --size 100 --rate 4 --duration 10s";

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "rate-1k-100",
        title: "1,000 subscribers, 100 B, 40 events/s",
        servers: STREAMING,
        variants: &placed("fanout --subscribers 1000 --size 100 --rate 40 --duration 10s"),
        measures: &[cpu(""), cpu("apart"), p99(None)],
    },
    Row {
        name: "rate-1k-1000",
        title: "1,000 subscribers, 1 kB, 40 events/s",
        servers: STREAMING,
        variants: &placed("fanout --subscribers 1000 --size 1000 --rate 40 --duration 10s"),
        measures: &[cpu(""), cpu("apart"), p99(None)],
    },
    Row {
        name: "rate-10k-100",
        title: "10,000 subscribers, 100 B, 4 events/s",
        servers: STREAMING,
        variants: &placed("fanout --subscribers 10000 --size 100 --rate 4 --duration 10s"),
        measures: &[cpu(""), cpu("apart"), p99(Some(Goal::AtMost(0.75)))],
    },
    Row {
        name: "rate-10k-1000",
        title: "10,000 subscribers, 1 kB, 4 events/s",
        servers: STREAMING,
        variants: &placed("fanout --subscribers 10000 --size 1000 --rate 4 --duration 10s"),
        measures: &[cpu(""), cpu("apart"), p99(None)],
    },
    Row {
        name: "saturated-1k",
        title: "1,000 subscribers, 100 B, 16 publishers, at most 16 events in flight",
        servers: SATURATED,
        variants: &[plain("", "fanout --subscribers 1000 --size 100 --publishers 16 --in-flight 16 --duration 8s")],
        measures: &[
            saturated("deliveries/s", deliveries_per_s, Some(Goal::AtLeast(0.8))),
            saturated("CPU us per delivery", cpu_per_delivery, Some(Goal::AtMost(1.25))),
            saturated("p99 ms", latency_p99, None),
        ],
    },
    Row {
        name: "saturated-10k",
        title: "10,000 subscribers, 100 B, 8 publishers, at most 8 events in flight",
        servers: SATURATED,
        variants: &[plain("", "fanout --subscribers 10000 --size 100 --publishers 8 --in-flight 8 --duration 8s")],
        measures: &[
            saturated("deliveries/s", deliveries_per_s, Some(Goal::AtLeast(1.25))),
            saturated("CPU us per delivery", cpu_per_delivery, Some(Goal::AtMost(1.2))),
            saturated("p99 ms", latency_p99, None),
        ],
    },
    Row {
        name: "idle-one",
        title: "memory of an idle connection, all on one topic: (Pss at 15,000 less Pss at 5,000) / 10,000 after a warm-up round of 5,000",
        servers: STREAMING,
        variants: &[plain("", "idle --from 5000 --to 15000 --rounds 1")],
        measures: &[
            absolute("bytes per connection", "", bytes_per_connection, Some(Goal::AtMost(200.0))),
            absolute("(Pss at 15,000 less Pss at none) / 15,000", "", bytes_of_all, None),
        ],
    },
    Row {
        name: "idle-own",
        title: "memory of an idle connection, each on a topic of its own: (Pss at 15,000 less Pss at 5,000) / 10,000 after a warm-up round of 5,000",
        servers: STREAMING,
        variants: &[plain("", "idle --from 5000 --to 15000 --rounds 1 --topic bench/{i}")],
        measures: &[
            absolute("bytes per connection", "", bytes_per_connection, Some(Goal::AtMost(600.0))),
            absolute("(Pss at 15,000 less Pss at none) / 15,000", "", bytes_of_all, None),
        ],
    },
    Row {
        name: "topics",
        title: "18,000 subscribers on a topic each against 256, 8 publishers with two requests under way each, at most 16 events in flight",
        servers: STREAMING,
        variants: &[
            plain("256", "topics --subscribers 256 --publishers 8 --pipeline 2 --in-flight 16 --duration 6s"),
            plain("18000", "topics --subscribers 18000 --publishers 8 --pipeline 2 --in-flight 16 --duration 6s"),
        ],
        measures: &[
            Measure {
                what: "publishes/s",
                variant: "18000",
                figure: publishes_per_s,
                against: Against::Variant("256"),
                goal: Some(Goal::AtLeast(0.8)),
            },
            Measure {
                what: "CPU us per publish",
                variant: "18000",
                figure: cpu_per_publish,
                against: Against::Server("floor", "18000"),
                goal: None,
            },
        ],
    },
    Row {
        name: "publish",
        title: "publishing without a subscriber: single requests, and batches of 100 as JSON lines",
        servers: &["hyper", "hub", "embedded", "axum", "nchan", "node"],
        variants: &[
            plain("single", "publish --publishers 8 --duration 6s"),
            Variant { name: "batch", bench: "publish --publishers 8 --batch 100 --duration 6s", serve: "", hub_only: true, apart: false },
        ],
        measures: &[
            Measure {
                what: "CPU us per request",
                variant: "single",
                figure: cpu_per_publish,
                against: Against::Server("hyper", "single"),
                goal: Some(Goal::AtMost(2.0)),
            },
            Measure {
                what: "CPU us per event of a batch",
                variant: "batch",
                figure: cpu_per_publish,
                against: Against::Server("hyper", "single"),
                goal: Some(Goal::AtMost(1.0 / 15.0)),
            },
            absolute("publishes/s", "single", publishes_per_s, None),
            absolute("events/s in batches", "batch", publishes_per_s, None),
        ],
    },
    Row {
        name: "storm",
        title: "5,000 clients drop and come back three times, at most 512 in progress",
        servers: STREAMING,
        variants: &[plain("", "storm --subscribers 5000 --connecting 512 --rounds 3")],
        measures: &[
            Measure {
                what: "CPU us per connection",
                variant: "",
                figure: cpu_per_connection,
                against: Against::Server("floor", ""),
                goal: Some(Goal::AtMost(1.5)),
            },
            absolute("connections/s", "", |run| number(run, "/connect/per_s"), None),
            absolute("refused", "", refused, Some(Goal::AtMost(0.0))),
            absolute("SYNs sent again", "", |run| number(run, "/connect/syn_retrans"), Some(Goal::AtMost(0.0))),
        ],
    },
    Row {
        name: "log-publish",
        title: "publishing to the log on disk: 64 connections, one event each; 16 connections, 100 events a request",
        servers: &["one-writer", "hub"],
        variants: &[
            disk("none", "publish --publishers 64 --in-flight 64 --duration 4s", "--data {data} --durability none"),
            disk("sync", "publish --publishers 64 --in-flight 64 --duration 4s", "--data {data} --durability sync"),
            disk("batch", "publish --publishers 16 --batch 100 --duration 4s", "--data {data} --durability sync"),
        ],
        measures: &[
            Measure {
                what: "publishes/s of 64 connections, each synced",
                variant: "sync",
                figure: publishes_per_s,
                against: Against::Server("one-writer", "none"),
                goal: Some(Goal::AtLeast(10.0)),
            },
            Measure {
                what: "the same against none synced",
                variant: "sync",
                figure: publishes_per_s,
                against: Against::Variant("none"),
                goal: Some(Goal::AtLeast(0.8)),
            },
            Measure {
                what: "p99 ms until it is answered",
                variant: "sync",
                figure: publish_p99,
                against: Against::Server("one-writer", "none"),
                goal: None,
            },
            absolute("events/s in batches", "batch", publishes_per_s, Some(Goal::AtLeast(200_000.0))),
            Measure {
                what: "CPU us per event of a batch against a single one",
                variant: "batch",
                figure: cpu_per_publish,
                against: Against::Variant("sync"),
                goal: Some(Goal::AtMost(0.1)),
            },
        ],
    },
    Row {
        name: "log-read",
        title: "coming back: a cursor in the middle of the log, and 100 events of a rare topic; a million events behind, at once and slowly",
        servers: &["hub"],
        variants: &[
            disk("own", "probe --events 100", PATIENT),
            disk("10k", "probe --events 10000", PATIENT),
            disk("1M", "probe --events 1000000 --behind", PATIENT),
            disk("10M", "probe --events 10000000", PATIENT),
        ],
        measures: &[
            absolute("us from connecting to the first event, 10,000 kept", "10k", first_event, None),
            to("first event: 1 M against 10,000", "1M", first_event, "10k", 1.5),
            to("first event: 10 M against 10,000", "10M", first_event, "10k", 1.5),
            to("100 of a rare topic: among 10 M against alone", "10M", rare_topic, "own", 2.0),
            absolute("events/s for a reader 1 M behind", "1M", |run| number(run, "/behind/events_per_s"), Some(Goal::AtLeast(1e6))),
            absolute("MiB that memory grew by meanwhile", "1M", |run| mebi(run, "/behind/grew_bytes"), Some(Goal::AtMost(16.0))),
            absolute(
                "MiB that memory grew by while 10 M were published",
                "10M",
                |run| mebi(run, "/memory/grew_bytes"),
                Some(Goal::AtMost(64.0)),
            ),
        ],
    },
    Row {
        name: "log-replay",
        title: "1,000 clients come back for the last 100 of 1,000 events each",
        servers: &["nchan", "hub"],
        variants: &[disk("", "replay --subscribers 1000 --events 1000 --behind 100", "--data {data}")],
        measures: &[
            Measure {
                what: "events/s",
                variant: "",
                figure: deliveries_per_s,
                against: Against::Server("nchan", ""),
                goal: Some(Goal::AtLeast(2.0)),
            },
            Measure {
                what: "CPU us per event",
                variant: "",
                figure: cpu_per_delivery,
                against: Against::Server("nchan", ""),
                goal: Some(Goal::AtMost(0.5)),
            },
        ],
    },
    Row {
        name: "log-fanout",
        title: "10,000 subscribers, 100 B, 4 events/s, every event synced before it is delivered, against the store in memory",
        servers: &["hub"],
        variants: &[
            Variant { name: "memory", bench: LIVE, serve: "--store memory", hub_only: true, apart: false },
            disk("disk", LIVE, "--data {data} --durability sync"),
        ],
        measures: &[to("CPU us per delivery", "disk", cpu_per_delivery, "memory", 1.1)],
    },
    Row {
        name: "slow",
        title: "200 of 2,000 readers stop reading, 20 events/s of 4 kB for 60 s, window and lag cap 1 MiB",
        servers: &["hub", "embedded"],
        variants: &[
            Variant {
                name: "none",
                bench: "slow --stalled 0 --subscribers 2000 --rate 20 --size 4000 --duration 60s",
                serve: SMALL_WINDOW,
                hub_only: true,
                apart: false,
            },
            Variant {
                name: "stalled",
                bench: "slow --stalled 10 --subscribers 2000 --rate 20 --size 4000 --duration 60s",
                serve: SMALL_WINDOW,
                hub_only: true,
                apart: false,
            },
        ],
        measures: &[
            Measure {
                what: "p99 ms of the others",
                variant: "stalled",
                figure: latency_p99,
                against: Against::Variant("none"),
                goal: Some(Goal::AtMost(1.5)),
            },
            absolute("MiB that memory grew by from second 20 to the end", "stalled", growth, Some(Goal::AtMost(1.0))),
            absolute("share of the stalled closed or told", "stalled", told, Some(Goal::AtLeast(1.0))),
            absolute("share of the stalled in the hub's counters", "stalled", counted, Some(Goal::AtLeast(1.0))),
        ],
    },
];

/// Every row there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(crate::mercure::ROWS)
}

fn number(run: &Value, pointer: &str) -> Option<f64> {
    run.pointer(pointer)?.as_f64()
}

fn cpu_per_delivery(run: &Value) -> Option<f64> {
    number(run, "/cpu/us_per_delivery")
}

pub(crate) fn cpu_per_publish(run: &Value) -> Option<f64> {
    number(run, "/cpu/us_per_publish")
}

pub(crate) fn cpu_per_connection(run: &Value) -> Option<f64> {
    number(run, "/cpu/us_per_connection")
}

fn deliveries_per_s(run: &Value) -> Option<f64> {
    number(run, "/deliveries_per_s")
}

pub(crate) fn publishes_per_s(run: &Value) -> Option<f64> {
    number(run, "/publishes_per_s")
}

fn latency_p99(run: &Value) -> Option<f64> {
    number(run, "/latency_ms/p99")
}

fn publish_p99(run: &Value) -> Option<f64> {
    number(run, "/publish_ms/p99")
}

fn first_event(run: &Value) -> Option<f64> {
    number(run, "/first_event_us")
}

fn rare_topic(run: &Value) -> Option<f64> {
    number(run, "/rare_topic_us")
}

fn mebi(run: &Value, pointer: &str) -> Option<f64> {
    Some(number(run, pointer)? / f64::from(1 << 20))
}

pub(crate) fn bytes_per_connection(run: &Value) -> Option<f64> {
    number(run, "/memory/bytes_per_connection")
}

pub(crate) fn bytes_of_all(run: &Value) -> Option<f64> {
    number(run, "/memory/bytes_per_connection_of_all")
}

pub(crate) fn refused(run: &Value) -> Option<f64> {
    Some(number(run, "/connect/refused")? + number(run, "/connect/failed")?)
}

/// Mean of the last ten samples less that of seconds 15 to 25, when the window has been full for a while.
fn growth(run: &Value) -> Option<f64> {
    let samples: Vec<(f64, f64)> = run
        .pointer("/memory/series")?
        .as_array()?
        .iter()
        .filter_map(|sample| Some((sample.get(0)?.as_f64()?, sample.get(1)?.as_f64()?)))
        .collect();
    let mean = |from: f64, to: f64| {
        let within: Vec<f64> = samples.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, bytes)| *bytes).collect();
        (!within.is_empty()).then(|| within.iter().sum::<f64>() / within.len() as f64)
    };
    let end = samples.last()?.0;
    Some((mean(end - 10.0, end)? - mean(15.0, 25.0)?) / f64::from(1 << 20))
}

fn told(run: &Value) -> Option<f64> {
    Some(number(run, "/stalled/closed_or_told")? / number(run, "/stalled/count")?)
}

/// Streams the hub says it ended, or told of a gap, because they lagged or stalled.
fn counted(run: &Value) -> Option<f64> {
    let metrics = run.get("metrics")?.as_object()?;
    let about = |name: &str| (name.starts_with("tidings_closed") || name.starts_with("tidings_gaps")) && name.contains("reason=");
    let reasons = ["lag", "stall", "evicted"];
    let all: f64 = metrics
        .iter()
        .filter(|(name, _)| about(name) && reasons.iter().any(|reason| name.contains(reason)))
        .filter_map(|(_, value)| value.as_f64())
        .sum();
    Some(all / number(run, "/stalled/count")?)
}
