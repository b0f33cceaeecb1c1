//! The table of settings: every one of them, once (N-40, N-41).
//!
//! A line says what may be written and which field it changes; how values are read is the parent module's.

use super::{Durable, Kind, Setting, mercure};
use std::{net::SocketAddr, time::Duration};
use tidings::{AfterGap, AgeSpread, EndStyle, HeartbeatForm, Keep, LagPolicy, limits};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const ACCESS: &str = "Listening and access";
const STREAMS: &str = "Streams";
const EVENTS: &str = "Events and requests";
const KEEPING: &str = "Keeping events";
const MEMORY: &str = "Memory and connections";
const OPERATION: &str = "Operation";

/// Every setting, in the order of the help text.
pub(crate) static SETTINGS: &[Setting] = &join::<{ HUB.len() + mercure::SETTINGS.len() }>(HUB, mercure::SETTINGS);

const fn join<const N: usize>(first: &[Setting], then: &[Setting]) -> [Setting; N] {
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { then[at - first.len()] };
        at += 1;
    }
    all
}

const HUB: &[Setting] = &[
    Setting {
        name: "listen",
        group: ACCESS,
        kind: Kind::Text { form: "ADDRESS:PORT", set: |s, text| address(text).map(|address| s.listen = address) },
        default: "127.0.0.1:4680",
        rule: "N-30",
        help: "Where to listen; port 0 takes a free one. Any address but loopback needs a publisher key",
    },
    Setting {
        name: "publish-key",
        group: ACCESS,
        kind: Kind::List { form: "KEY", add: |s, text| publish_key(text).map(|key| s.hub.publish_keys.push(key.into())) },
        default: "",
        rule: "N-33",
        help: "A bearer key that publishers must send. Prefer the environment or a file: flags can be seen by other users of the machine",
    },
    Setting {
        name: "publish-key-file",
        group: ACCESS,
        kind: Kind::Text {
            form: "FILE",
            set: |s, text| {
                s.publish_key_file = Some(text.into());
                Ok(())
            },
        },
        default: "",
        rule: "N-33",
        help: "A file with further publisher keys, one a line",
    },
    Setting {
        name: "insecure-open",
        group: ACCESS,
        kind: Kind::Switch { set: |s, on| s.insecure_open = on },
        default: "false",
        rule: "N-30",
        help: "Allow open access on an address that others can reach",
    },
    Setting {
        name: "anonymous",
        group: ACCESS,
        kind: Kind::Switch { set: |s, on| s.hub.anonymous = on },
        default: "false",
        rule: "N-32",
        help: "Whether readers without a token get public events, once a key to verify readers' tokens is configured",
    },
    Setting {
        name: "public-url",
        group: ACCESS,
        kind: Kind::Text { form: "URL", set: |s, text| url(text).map(|url| s.hub.public_url = Some(url)) },
        default: "",
        rule: "N-31",
        help: "The URL under which the public reaches this hub",
    },
    Setting {
        name: "hosts",
        group: ACCESS,
        kind: Kind::List { form: "NAME", add: |s, text| host(text).map(|host| s.hub.hosts.push(host)) },
        default: "",
        rule: "N-31",
        help: "Further host names to answer to while access is open; a request for any other name is refused, against DNS rebinding",
    },
    Setting {
        name: "cors-origins",
        group: ACCESS,
        kind: Kind::List { form: "ORIGIN", add: |s, text| origin(text).map(|origin| s.hub.cors_origins.push(origin)) },
        default: "",
        rule: "N-31, Z-11",
        help: "Origins whose pages may read and publish: https://example.com, https://*.example.com or *",
    },
    Setting {
        name: "publish-origins",
        group: ACCESS,
        kind: Kind::List { form: "ORIGIN", add: |s, text| origin(text).map(|origin| s.hub.publish_origins.push(origin)) },
        default: "",
        rule: "N-31, S-40",
        help: "Further origins whose pages may publish",
    },
    Setting {
        name: "cors-headers",
        group: ACCESS,
        kind: Kind::List { form: "FIELD", add: |s, text| field(text).map(|field| s.hub.cors_headers.push(field)) },
        default: "",
        rule: "Z-11, S-39",
        help: "Further header fields that pages may send, besides those every client of event streams needs",
    },
    Setting {
        name: "cors-max-age",
        group: ACCESS,
        kind: Kind::Time { least: Duration::ZERO, most: DAY, set: |s, time| s.hub.cors_max_age = time },
        default: "10m",
        rule: "Z-11",
        help: "How long a browser may remember the answer to a preflight",
    },
    Setting {
        name: "trusted-proxies",
        group: ACCESS,
        kind: Kind::List {
            form: "ADDRESS",
            add: |s, text| {
                let address = text.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
                s.hub.trusted_proxies.push(address);
                Ok(())
            },
        },
        default: "",
        rule: "Z-13",
        help: "Addresses of proxies whose X-Forwarded-For is believed; nobody else's is",
    },
    Setting {
        name: "heartbeat",
        group: STREAMS,
        kind: Kind::TimeOrOff { least: MS, most: HOUR, set: |s, time| s.hub.heartbeat = time },
        default: "15s",
        rule: "S-24, S-25",
        help: "Silence after which a comment is sent, so that proxies and clients see that the stream lives",
    },
    Setting {
        name: "retry",
        group: STREAMS,
        kind: Kind::TimeRange { most: DAY, set: |s, range| s.hub.retry = range },
        default: "2s-5s",
        rule: "S-41",
        help: "Range of the random reconnection time told to each connection, so that clients do not come back all at once",
    },
    Setting {
        name: "max-age",
        group: STREAMS,
        kind: Kind::TimeOrOff { least: SECOND, most: DAY, set: |s, time| s.hub.max_age = time },
        default: "30m",
        rule: "N-40",
        help: "Age, spread by a fifth, at which a stream is ended so that its client reconnects and resumes, as balancers and rolling updates need",
    },
    Setting {
        name: "max-age-spread",
        group: STREAMS,
        kind: Kind::Choice {
            of: &["around", "below"],
            set: |s, text| {
                s.hub.max_age_spread = if text == "below" { AgeSpread::Below } else { AgeSpread::Around };
                Ok(())
            },
        },
        default: "around",
        rule: "N-40, M-306",
        help: "Where the fifth lies: from 80 to 120 percent of that age, or from 80 to 100, so that no stream grows older",
    },
    Setting {
        name: "stalled-write",
        group: STREAMS,
        kind: Kind::Time { least: MS, most: HOUR, set: |s, time| s.hub.stalled_write = time },
        default: "10s",
        rule: "S-28",
        help: "A reader that takes no byte for this long while some wait is disconnected",
    },
    Setting {
        name: "lag-bytes",
        group: STREAMS,
        kind: Kind::Size { least: 64 << 10, most: 16 * GIB, set: |s, bytes| s.hub.lag_bytes = bytes },
        default: "16MiB",
        rule: "N-40",
        help: "How far a reader may fall behind, in bytes of events; past any of the three bounds the lag policy applies",
    },
    Setting {
        name: "lag-events",
        group: STREAMS,
        kind: Kind::Count { least: 1, most: 100_000_000, set: |s, count| s.hub.lag_events = count },
        default: "100000",
        rule: "N-40",
        help: "How far a reader may fall behind, in events",
    },
    Setting {
        name: "lag-time",
        group: STREAMS,
        kind: Kind::Time { least: MS, most: DAY, set: |s, time| s.hub.lag_time = time },
        default: "1m",
        rule: "N-40",
        help: "How far a reader may fall behind, in time",
    },
    Setting {
        name: "lag-policy",
        group: STREAMS,
        kind: Kind::Choice { of: &["disconnect", "gap"], set: |s, text| lag_policy(text).map(|policy| s.hub.lag_policy = policy) },
        default: "disconnect",
        rule: "N-14",
        help: "What happens to such a reader when the store cannot serve it: disconnect, to resume with its cursor, or skip ahead and say so with a gap event",
    },
    Setting {
        name: "after-gap",
        group: STREAMS,
        kind: Kind::Choice {
            of: &["replay", "live"],
            set: |s, text| {
                s.hub.after_gap = if text == "live" { AfterGap::Live } else { AfterGap::Replay };
                Ok(())
            },
        },
        default: "replay",
        rule: "N-14",
        help: "What a reader gets whose place in the log is gone, after it was told: everything that is kept, or only what is new",
    },
    Setting {
        name: "heartbeat-form",
        group: STREAMS,
        kind: Kind::Choice { of: &["comment", "event"], set: |s, text| heartbeat_form(text).map(|form| s.hub.heartbeat_form = form) },
        default: "comment",
        rule: "S-24, S-26",
        help: "What is sent in silence: a comment, or an event of type tidings.heartbeat for consumers that do not count comments as life",
    },
    Setting {
        name: "end",
        group: STREAMS,
        kind: Kind::Choice { of: &["clean", "abort"], set: |s, text| end_style(text).map(|end| s.hub.end = end) },
        default: "clean",
        rule: "N-17, S-42",
        help: "How planned ends look: properly ended, or broken off for clients that stop for good at a proper end",
    },
    Setting {
        name: "prime",
        group: STREAMS,
        kind: Kind::Switch { set: |s, on| s.hub.prime = on },
        default: "true",
        rule: "N-13a",
        help: "Give readers a cursor before their first event, so that a cut before it loses nothing",
    },
    Setting {
        name: "event-data",
        group: EVENTS,
        kind: Kind::Size { least: 1, most: limits::EVENT_DATA_MAX as u64, set: |s, bytes| s.hub.event_data = bytes as usize },
        default: "1MiB",
        rule: "N-40",
        help: "Largest data of one event; many clients take no more than 64KiB",
    },
    Setting {
        name: "publish-body",
        group: EVENTS,
        kind: Kind::Size { least: 1 << 10, most: GIB, set: |s, bytes| s.hub.publish_body = bytes as usize },
        default: "16MiB",
        rule: "N-40",
        help: "Largest body of one publish request",
    },
    Setting {
        name: "topics-per-event",
        group: EVENTS,
        kind: Kind::Count { least: 1, most: limits::TOPICS_PER_EVENT_MAX as u64, set: |s, count| s.hub.topics_per_event = count as usize },
        default: "100",
        rule: "N-40",
        help: "Most topics of one event",
    },
    Setting {
        name: "matchers",
        group: EVENTS,
        kind: Kind::Count { least: 1, most: limits::MATCHERS_MAX as u64, set: |s, count| s.hub.matchers = count as usize },
        default: "100",
        rule: "N-40",
        help: "Most topics of one subscription",
    },
    Setting {
        name: "idempotency-window",
        group: EVENTS,
        kind: Kind::Time { least: SECOND, most: Duration::from_hours(24 * 365), set: |s, time| s.hub.idempotency_window = time },
        default: "1d",
        rule: "N-6",
        help: "How long a publish that comes again with its Idempotency-Key is answered with the ids of the first time",
    },
    Setting {
        name: "idempotency-keys",
        group: EVENTS,
        kind: Kind::Count { least: 1, most: limits::IDEMPOTENCY_KEYS_MAX as u64, set: |s, count| s.hub.idempotency_keys = count as usize },
        default: "1000000",
        rule: "N-6",
        help: "Idempotency keys remembered, the newest, if that bound is reached before the window ends; each costs 80 bytes of memory",
    },
    Setting {
        name: "request-head",
        group: EVENTS,
        kind: Kind::Size { least: 8 << 10, most: MIB, set: |s, bytes| s.hub.request_head = bytes as usize },
        default: "64KiB",
        rule: "N-40",
        help: "Largest head of a request: its line and header fields",
    },
    Setting {
        name: "request-time",
        group: EVENTS,
        kind: Kind::Time { least: Duration::from_millis(100), most: HOUR, set: |s, time| s.hub.request_time = time },
        default: "10s",
        rule: "N-40",
        help: "Time for the head of a request, for the first byte of its body, and over which the rate of the body is averaged",
    },
    Setting {
        name: "keep-alive",
        group: EVENTS,
        kind: Kind::Time { least: Duration::from_millis(100), most: DAY, set: |s, time| s.hub.keep_alive = time },
        default: "1m",
        rule: "N-40",
        help: "How long a connection with no request under way stays open",
    },
    Setting {
        name: "store",
        group: KEEPING,
        kind: Kind::Choice {
            of: &["memory", "disk"],
            set: |s, text| {
                s.disk = text == "disk";
                Ok(())
            },
        },
        default: "disk",
        rule: "N-41",
        help: "Where events are kept. With `memory` they are gone after a restart, and readers are told",
    },
    Setting {
        name: "data",
        group: KEEPING,
        kind: Kind::Text {
            form: "DIR",
            set: |s, text| {
                s.data = Some(text.into());
                Ok(())
            },
        },
        default: "",
        rule: "N-41",
        help: "The directory of the log on disk. Without it: $STATE_DIRECTORY, $XDG_DATA_HOME/tidings, /var/lib/tidings for root, \
               ~/.local/share/tidings, and what other systems have instead",
    },
    Setting {
        name: "durability",
        group: KEEPING,
        kind: Kind::Choice {
            of: &["sync", "interval", "none"],
            set: |s, text| {
                s.durability = match text {
                    "interval" => Durable::Interval,
                    "none" => Durable::None,
                    _ => Durable::Sync,
                };
                Ok(())
            },
        },
        default: "sync",
        rule: "N-4",
        help: "When a publish is answered and delivered: once it is on disk, or once the system has it, to be synced now and then or whenever the system likes",
    },
    Setting {
        name: "sync-interval",
        group: KEEPING,
        kind: Kind::Time { least: MS, most: HOUR, set: |s, time| s.sync_interval = time },
        default: "1s",
        rule: "N-4",
        help: "How much a crash of the machine may undo with `durability = interval`",
    },
    Setting {
        name: "retention-bytes",
        group: KEEPING,
        kind: Kind::Size { least: MIB, most: 1024 * 1024 * GIB, set: |s, bytes| s.log.retention_bytes = bytes },
        default: "1GiB",
        rule: "N-40",
        help: "Bytes of the log on disk; beyond it the oldest events are removed, a sixteenth of it at a time",
    },
    Setting {
        name: "retention-age",
        group: KEEPING,
        kind: Kind::TimeOrOff { least: SECOND, most: Duration::from_hours(24 * 3_650), set: |s, age| s.log.retention_age = age },
        default: "1d",
        rule: "N-40",
        help: "Age after which events on disk may be removed",
    },
    Setting {
        name: "retention-events",
        group: KEEPING,
        kind: Kind::CountOr { word: "off", most: 1 << 40, set: |s, count| s.log.retention_events = count.unwrap_or(u64::MAX) },
        default: "off",
        rule: "N-40",
        help: "Events kept on disk; beyond it the oldest are no longer served",
    },
    Setting {
        name: "window-bytes",
        group: MEMORY,
        kind: Kind::Size { least: MIB, most: 1024 * GIB, set: |s, bytes| s.hub.window_bytes = bytes as usize },
        default: "64MiB",
        rule: "N-40",
        help: "Bytes of events kept in memory; all that the `memory` store keeps for readers who come back",
    },
    Setting {
        name: "window-events",
        group: MEMORY,
        kind: Kind::Count { least: 16, most: 100_000_000, set: |s, count| s.hub.window_events = count as usize },
        default: "100000",
        rule: "N-40",
        help: "Events kept in memory, if that bound is reached before the bytes",
    },
    Setting {
        name: "connections",
        group: MEMORY,
        kind: Kind::CountOr { word: "auto", most: 100_000_000, set: |s, count| s.hub.connections = count.map(|n| n as usize) },
        default: "auto",
        rule: "N-40",
        help: "Connections served at once; `auto` is what the limit on open files allows, less a reserve",
    },
    Setting {
        name: "connections-per-address",
        group: MEMORY,
        kind: Kind::CountOr { word: "off", most: 100_000_000, set: |s, count| s.hub.connections_per_address = count.map(|n| n as usize) },
        default: "off",
        rule: "N-40, Z-13",
        help: "Connections of one client address (IPv6 by /64); 256 is good advice where clients connect directly",
    },
    Setting {
        name: "h2-streams",
        group: MEMORY,
        kind: Kind::Count { least: 1, most: 100_000, set: |s, count| s.hub.h2_streams = count as u32 },
        default: "250",
        rule: "N-40, S-48",
        help: "HTTP/2 streams of one connection; set 1000 behind proxies that put many readers on one",
    },
    Setting {
        name: "shards",
        group: MEMORY,
        kind: Kind::CountOr {
            word: "auto",
            most: 1_024,
            set: |s, count| s.hub.shards = count.map_or_else(|| tidings::Config::default().shards, |n| n as usize),
        },
        default: "auto",
        rule: "N-41",
        help: "Parts the readers are divided into, each served by one task; `auto` is one per core",
    },
    Setting {
        name: "drain-spread",
        group: OPERATION,
        kind: Kind::Time { least: Duration::ZERO, most: HOUR, set: |s, time| s.hub.drain_spread = time },
        default: "30s",
        rule: "N-40, Z-17",
        help: "When stopping, the time over which the ends of streams are spread",
    },
    Setting {
        name: "drain-hard",
        group: OPERATION,
        kind: Kind::Time { least: Duration::ZERO, most: HOUR, set: |s, time| s.hub.drain_hard = time },
        default: "35s",
        rule: "N-40, Z-17",
        help: "When stopping, the time after which nothing is waited for any more",
    },
    Setting {
        name: "log-format",
        group: OPERATION,
        kind: Kind::Choice {
            of: &["text", "json"],
            set: |s, text| {
                s.log_json = text == "json";
                Ok(())
            },
        },
        default: "text",
        rule: "Z-16",
        help: "How log lines on standard error look",
    },
    Setting {
        name: "log-level",
        group: OPERATION,
        kind: Kind::Text {
            form: "LEVEL",
            set: |s, text| {
                crate::logging::parse_level(text)?;
                text.clone_into(&mut s.log_level);
                Ok(())
            },
        },
        default: "info",
        rule: "Z-16",
        help: "What to log: off, error, warn, info, debug or trace, also by target as in info,tidings::serve=debug. The signal USR1 switches to debug and back",
    },
];

pub(super) fn heartbeat_form(text: &str) -> Result<HeartbeatForm, String> {
    match text {
        "comment" => Ok(HeartbeatForm::Comment),
        "event" => Ok(HeartbeatForm::Event),
        _ => Err(format!("`{text}` is not one of comment, event")),
    }
}

pub(super) fn end_style(text: &str) -> Result<EndStyle, String> {
    match text {
        "clean" => Ok(EndStyle::Clean),
        "abort" => Ok(EndStyle::Abort),
        _ => Err(format!("`{text}` is not one of clean, abort")),
    }
}

pub(super) fn lag_policy(text: &str) -> Result<LagPolicy, String> {
    match text {
        "disconnect" => Ok(LagPolicy::Disconnect),
        "gap" => Ok(LagPolicy::Gap),
        _ => Err(format!("`{text}` is not one of disconnect, gap")),
    }
}

pub(super) fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "latest" => Ok(Keep::Latest),
        "nothing" => Ok(Keep::Nothing),
        _ => Err(format!("`{text}` is not one of latest, nothing")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("`{text}` is not an address and port; write 127.0.0.1:4680 for this machine only, 0.0.0.0:4680 or [::]:4680 for everybody")
    })
}

/// A key is sent as `Authorization: Bearer KEY`, so it has the alphabet of RFC 6750; commas and spaces separate keys in lists.
pub(super) fn publish_key(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a key has at least one character, and only letters, digits and - . _ ~ + / =".into())
    }
}

pub(super) fn url(text: &str) -> Result<String, String> {
    let fits = text.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if fits { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a URL; write it with https:// or http://")) }
}

fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    match text.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']) => Ok(text.to_owned()),
        Some(_) => Err(format!("`{text}` is not an origin; write scheme, host and port without a path or a slash at the end")),
        None => Err(format!("`{text}` is not an origin; write it like https://example.com, or * for all")),
    }
}

pub(super) fn field(text: &str) -> Result<String, String> {
    let fits = text.parse::<http::HeaderName>().is_ok();
    if fits { Ok(text.to_owned()) } else { Err(format!("`{text}` is not the name of a header field")) }
}

fn host(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && !text.contains(['/', ' ', '@', ',']) && text.parse::<http::uri::Authority>().is_ok();
    if fits { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a host name; write only the name, as in hub.example.com")) }
}
