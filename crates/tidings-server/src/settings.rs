//! What `tidings serve` can be told, from one table: name, kind, default, bounds, reason, and what it changes (N-40, N-41).
//!
//! The flags, the environment, the file, the help text and the reference page are all made from [`table::SETTINGS`], so a setting cannot
//! exist in one of them only. This module knows what a value means; where it was written is [`sources`]'s, what it does is the hub's.

mod compat;
mod data;
mod directives;
mod issuers;
mod mercure;
mod page;
mod sources;
mod table;

use crate::quantity;
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub(crate) use issuers::read as read_key;
pub(crate) use page::markdown;
pub(crate) use sources::{Given, resolve};
pub(crate) use table::SETTINGS;
use tidings::Durability;

/// Everything `tidings serve` runs with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) hub: tidings::Config,
    pub(crate) listen: SocketAddr,
    pub(crate) insecure_open: bool,
    /// Whether it stands in for the reference hub of the Mercure protocol.
    pub(crate) compat: bool,
    /// What an operator should know of how settings were understood; logged at the start.
    pub(crate) notes: Vec<String>,
    /// The issuer that flat settings describe, until it is one of the hub's.
    pub(crate) issuer: issuers::Flat,
    pub(crate) publish_key_file: Option<PathBuf>,
    pub(crate) log_json: bool,
    pub(crate) log_level: String,
    /// Whether the log is kept on disk.
    pub(crate) disk: bool,
    pub(crate) data: Option<PathBuf>,
    pub(crate) durability: Durable,
    pub(crate) sync_interval: Duration,
    /// All of the log's options but its durability.
    pub(crate) log: tidings::DiskOptions,
}

/// The words for `durability`.
#[derive(Clone, Copy)]
pub(crate) enum Durable {
    Sync,
    Interval,
    None,
}

/// One setting. Its name is `cors-origins` here and as a flag, `TIDINGS_CORS_ORIGINS` in the environment, `cors_origins` in the file.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) kind: Kind,
    /// As it would be written; a test holds it against what the program really starts with.
    pub(crate) default: &'static str,
    /// The rule of the specification that asks for it.
    pub(crate) rule: &'static str,
    pub(crate) help: &'static str,
}

type Set<T> = fn(&mut Settings, T);
type TrySet = fn(&mut Settings, &str) -> Result<(), String>;

/// What may be written for a setting, and where it goes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Time {
        least: Duration,
        most: Duration,
        set: Set<Duration>,
    },
    /// A time, or `off`.
    TimeOrOff {
        least: Duration,
        most: Duration,
        set: Set<Option<Duration>>,
    },
    /// `2s-5s`, or one time for both ends.
    TimeRange {
        most: Duration,
        set: Set<(Duration, Duration)>,
    },
    Size {
        least: u64,
        most: u64,
        set: Set<u64>,
    },
    Count {
        least: u64,
        most: u64,
        set: Set<u64>,
    },
    /// A count, or the word that leaves it open.
    CountOr {
        word: &'static str,
        most: u64,
        set: Set<Option<u64>>,
    },
    Switch {
        set: Set<bool>,
    },
    Choice {
        of: &'static [&'static str],
        set: TrySet,
    },
    Text {
        form: &'static str,
        set: TrySet,
    },
    List {
        form: &'static str,
        add: TrySet,
    },
}

impl Default for Settings {
    /// The library's defaults, and what the binary adds: a maximum age, since its streams come through other people's proxies (N-40).
    fn default() -> Self {
        let mut hub = tidings::Config::default();
        hub.max_age = Some(Duration::from_millis(tidings::limits::MAX_AGE_MS));
        Settings {
            hub,
            listen: SocketAddr::from(([127, 0, 0, 1], 4680)),
            insecure_open: false,
            compat: false,
            notes: Vec::new(),
            issuer: issuers::Flat::default(),
            publish_key_file: None,
            log_json: false,
            log_level: "info".into(),
            disk: true,
            data: None,
            durability: Durable::Sync,
            sync_interval: Duration::from_secs(1),
            log: tidings::DiskOptions::default(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the hub's settings: they hold the publisher keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Settings {
    /// The rules between settings, once all are known; what is wrong otherwise.
    fn check(&self) -> Result<(), String> {
        self.check_secrets()?;
        if self.is_open() && !self.listen.ip().is_loopback() && !self.insecure_open {
            return Err(format!(
                "refusing to listen on {} with open access: anybody who can reach it could publish\n  \
                 set a publisher key (--publish-key KEY, TIDINGS_PUBLISH_KEY, or publish_key in the file),\n  \
                 or say that this is meant with --insecure-open",
                self.listen
            ));
        }
        if self.hub.drain_spread > self.hub.drain_hard {
            return Err(format!(
                "drain-spread ({}) must not be longer than drain-hard ({}); set both",
                quantity::show_time(self.hub.drain_spread),
                quantity::show_time(self.hub.drain_hard)
            ));
        }
        if self.hub.event_data > self.hub.publish_body {
            return Err("event-data must not be larger than publish-body, or the largest event could not be sent; set both".into());
        }
        if self.hub.event_data > self.hub.window_bytes / 2 {
            return Err("event-data must be at most half of window-bytes, or one event would push out all others; set both".into());
        }
        Ok(())
    }

    /// Where the log is kept on disk and how, if it is.
    pub(crate) fn disk(&self) -> Result<Option<(PathBuf, tidings::DiskOptions)>, String> {
        if !self.disk {
            return Ok(None);
        }
        let durability = match self.durability {
            Durable::Sync => Durability::Sync,
            Durable::Interval => Durability::Interval(self.sync_interval),
            Durable::None => Durability::None,
        };
        let segment_bytes = (self.log.retention_bytes / 16).min(self.log.segment_bytes);
        let keys = tidings::KeyWindow { time: self.hub.idempotency_window, keys: self.hub.idempotency_keys };
        let options = tidings::DiskOptions { durability, segment_bytes, keys, prefixes: self.hub.prefixes.clone(), ..self.log.clone() };
        match self.data.clone().or_else(data::usual) {
            Some(data) => Ok(Some((data, options))),
            None => Err("the environment names no directory to keep events in; say where with --data DIR, or keep them in memory only \
                         with --store memory"
                .into()),
        }
    }

    /// Whether anybody who reaches the hub may publish (N-30).
    pub(crate) fn is_open(&self) -> bool {
        self.hub.is_open()
    }
}

impl Setting {
    /// `TIDINGS_CORS_ORIGINS`
    pub(crate) fn env_name(&self) -> String {
        format!("TIDINGS_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// `cors_origins`
    pub(crate) fn file_name(&self) -> String {
        self.name.replace('-', "_")
    }

    /// What stands for the value in help texts.
    pub(crate) fn form(&self) -> String {
        match &self.kind {
            Kind::Time { .. } => "TIME".into(),
            Kind::TimeOrOff { .. } => "TIME|off".into(),
            Kind::TimeRange { .. } => "TIME-TIME".into(),
            Kind::Size { .. } => "SIZE".into(),
            Kind::Count { .. } => "COUNT".into(),
            Kind::CountOr { word, .. } => format!("COUNT|{word}"),
            Kind::Switch { .. } => "true|false".into(),
            Kind::Choice { of, .. } => of.join("|"),
            Kind::Text { form, .. } | Kind::List { form, .. } => (*form).into(),
        }
    }

    /// The lowest and highest allowed value, as written; empty where there is none.
    pub(crate) fn bounds(&self) -> String {
        match &self.kind {
            Kind::Time { least, most, .. } | Kind::TimeOrOff { least, most, .. } => {
                format!("{} to {}", quantity::show_time(*least), quantity::show_time(*most))
            }
            Kind::TimeRange { most, .. } => format!("up to {}", quantity::show_time(*most)),
            Kind::Size { least, most, .. } => format!("{} to {}", quantity::show_size(*least), quantity::show_size(*most)),
            Kind::Count { least, most, .. } => format!("{least} to {most}"),
            Kind::CountOr { most, .. } => format!("1 to {most}"),
            Kind::Switch { .. } | Kind::Choice { .. } | Kind::Text { .. } | Kind::List { .. } => String::new(),
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List { .. })
    }

    /// Takes one written value over into `settings`; a list takes each of its values by itself.
    fn apply(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let out_of_bounds = || format!("`{text}` is outside of what is allowed, {}", self.bounds());
        match &self.kind {
            Kind::Time { least, most, set } => {
                let time = quantity::parse_time(text)?;
                within(&time, least, most).then(|| set(settings, time)).ok_or_else(out_of_bounds)
            }
            Kind::TimeOrOff { set, .. } if is_off(text) => {
                set(settings, None);
                Ok(())
            }
            Kind::TimeOrOff { least, most, set } => {
                let time = quantity::parse_time(text).map_err(|why| format!("{why}, or `off`"))?;
                within(&time, least, most).then(|| set(settings, Some(time))).ok_or_else(out_of_bounds)
            }
            Kind::TimeRange { most, set } => {
                let (low, high) = text.split_once('-').unwrap_or((text, text));
                let (low, high) = (quantity::parse_time(low.trim())?, quantity::parse_time(high.trim())?);
                if low > high {
                    return Err(format!("`{text}` begins above its end; write the smaller time first"));
                }
                within(&high, &Duration::ZERO, most).then(|| set(settings, (low, high))).ok_or_else(out_of_bounds)
            }
            Kind::Size { least, most, set } => {
                let size = quantity::parse_size(text)?;
                within(&size, least, most).then(|| set(settings, size)).ok_or_else(out_of_bounds)
            }
            Kind::Count { least, most, set } => {
                let count = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
                within(&count, least, most).then(|| set(settings, count)).ok_or_else(out_of_bounds)
            }
            Kind::CountOr { word, set, .. } if text == *word || (*word == "off" && is_off(text)) => {
                set(settings, None);
                Ok(())
            }
            Kind::CountOr { word, most, set } => {
                let count = text.parse().map_err(|_| format!("`{text}` is neither a whole number nor `{word}`"))?;
                within(&count, &1, most).then(|| set(settings, Some(count))).ok_or_else(out_of_bounds)
            }
            Kind::Switch { set } => {
                let on = match text {
                    "true" | "on" => true,
                    "false" | "off" => false,
                    _ => return Err(format!("`{text}` is neither `true` nor `false`")),
                };
                set(settings, on);
                Ok(())
            }
            Kind::Choice { of, set } => {
                set(settings, text)?;
                if of.contains(&text) { Ok(()) } else { Err(format!("`{text}` is not one of {}", of.join(", "))) }
            }
            Kind::Text { set, .. } => set(settings, text),
            Kind::List { add, .. } => add(settings, text),
        }
    }
}

fn within<T: PartialOrd>(value: &T, least: &T, most: &T) -> bool {
    (least..=most).contains(&value)
}

fn is_off(text: &str) -> bool {
    matches!(text, "off" | "none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The fields of the hub's settings by name, each with its value as shown.
    fn fields(hub: &tidings::Config) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let mut name = String::new();
        for line in format!("{hub:#?}").lines().filter_map(|line| line.strip_prefix("    ")) {
            if let Some((field, _)) = line.split_once(": ").filter(|_| !line.starts_with(' ')) {
                field.clone_into(&mut name);
            }
            *fields.entry(name.clone()).or_default() += line;
        }
        assert!(fields.len() > 30, "{hub:#?}");
        fields
    }

    fn field_of(setting: &str) -> String {
        if setting == "publish-key" { "publish_keys".to_owned() } else { setting.replace('-', "_") }
    }

    /// N-40, N-41: what the table says the default is, is what the program starts with.
    #[test]
    fn stated_defaults_are_the_real_ones() {
        let (mut written, real) = (Settings::default(), Settings::default());
        for setting in SETTINGS.iter().filter(|s| !s.default.is_empty()) {
            setting.apply(&mut written, setting.default).unwrap_or_else(|why| panic!("{}: {why}", setting.name));
        }
        assert_eq!(fields(&written.hub), fields(&real.hub));
        assert_eq!((written.listen, written.log_json, &written.log_level), (real.listen, real.log_json, &real.log_level));
        assert!(real.check().is_ok());
    }

    /// N-41: every field of the hub's settings can be set from outside, and a setting changes its own field and no other.
    #[test]
    fn every_field_of_the_hub_has_its_setting() {
        let before = fields(&Settings::default().hub);
        // Tables have tests of their own, and where it listens the hub is told when that is so: port 0 is no address yet.
        for field in before.keys().filter(|&field| !["prefixes", "issuers", "listen"].contains(&&**field)) {
            let setting = SETTINGS.iter().find(|s| field_of(s.name) == *field);
            let setting = setting.unwrap_or_else(|| panic!("no setting for the field `{field}`"));
            let example = match &setting.kind {
                Kind::Time { most, .. } | Kind::TimeRange { most, .. } => quantity::show_time(*most),
                Kind::Size { most, .. } => quantity::show_size(*most),
                Kind::Count { least, most, .. } if setting.default == most.to_string() => least.to_string(),
                Kind::Count { most, .. } | Kind::CountOr { most, .. } => most.to_string(),
                Kind::TimeOrOff { .. } => "off".into(),
                Kind::Switch { .. } => (setting.default == "false").to_string(),
                Kind::Choice { of, .. } => (*of.iter().find(|choice| **choice != setting.default).unwrap()).to_owned(),
                Kind::Text { form: "NAME", .. } => "session".into(),
                Kind::Text { .. } => "https://hub.example".into(),
                Kind::List { form, .. } => ["KEY", "NAME", "ORIGIN", "ADDRESS", "FIELD", "URL"]
                    .iter()
                    .zip(["key", "hub.example", "https://a.example", "10.0.0.1", "x-one", "https://b.example"])
                    .find(|(known, _)| *known == form)
                    .unwrap()
                    .1
                    .into(),
            };
            let mut settings = Settings::default();
            setting.apply(&mut settings, &example).unwrap();
            let after = fields(&settings.hub);
            let changed: Vec<_> = before.iter().filter(|(name, shown)| after[*name] != **shown).map(|(name, _)| name).collect();
            assert_eq!(changed, [field], "--{} {example}", setting.name);
        }
    }

    /// N-41: one name, three forms, no two alike; every setting has a reason a reader can act on.
    #[test]
    fn names_and_helps() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(setting.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{}", setting.name);
            assert!(SETTINGS[..at].iter().all(|other| other.name != setting.name), "{} twice", setting.name);
            assert!(setting.help.len() > 20 && !setting.help.ends_with('.'), "{}", setting.name);
            assert!(setting.rule.contains('-'), "{}", setting.name);
        }
    }

    /// N-41: what each kind takes and what it says otherwise.
    #[test]
    fn kinds() {
        let table: &[(&str, &str, &str)] = &[
            ("heartbeat", "20s", ""),
            ("heartbeat", "off", ""),
            ("heartbeat", "none", ""),
            ("heartbeat", "0s", "outside of what is allowed"),
            ("heartbeat", "15", "write a whole number and a unit"),
            ("heartbeat", "fast", "or `off`"),
            ("stalled-write", "off", "is not a time"),
            ("retry", "2s-5s", ""),
            ("retry", "3s", ""),
            ("retry", "5s-2s", "smaller time first"),
            ("retry", "2s-", "is not a time"),
            ("retry", "2s-25d", "outside of what is allowed, up to"),
            ("event-data", "16MiB", ""),
            ("event-data", "17MiB", "outside of what is allowed, 1B to 16MiB"),
            ("event-data", "1048576", "is not a size"),
            ("topics-per-event", "1000", ""),
            ("topics-per-event", "1001", "1 to 1000"),
            ("topics-per-event", "-1", "is not a whole number"),
            ("connections", "auto", ""),
            ("connections", "off", "neither a whole number nor `auto`"),
            ("connections-per-address", "off", ""),
            ("connections-per-address", "0", "1 to"),
            ("prime", "off", ""),
            ("prime", "maybe", "neither `true` nor `false`"),
            ("end", "abort", ""),
            ("end", "never", "not one of clean, abort"),
            ("store", "memory", ""),
            ("store", "disk", ""),
            ("store", "redis", "not one of memory, disk"),
            ("durability", "interval", ""),
            ("durability", "maybe", "not one of sync, interval, none"),
            ("retention-bytes", "1KiB", "outside of what is allowed"),
            ("retention-age", "off", ""),
            ("retention-events", "off", ""),
            ("listen", "[::1]:0", ""),
            ("listen", "localhost:4680", ""),
            ("listen", ":4680", "0.0.0.0:4680"),
            ("listen", "4680", "127.0.0.1:4680"),
            ("listen", "127.0.0.1:65536", "127.0.0.1:4680"),
            ("trusted-proxies", "10.0.0.1", ""),
            ("trusted-proxies", "proxy", "is not an IP address"),
            ("cors-origins", "https://example.com", ""),
            ("cors-origins", "https://*.example.com", ""),
            ("cors-origins", "*", ""),
            ("cors-origins", "https://example.com/", "without a path"),
            ("cors-origins", "example.com", "https://example.com"),
            ("cors-headers", "X-Request-Id", ""),
            ("cors-headers", "two words", "not the name of a header field"),
            ("public-url", "https://example.com/hub", ""),
            ("public-url", "example.com", "https://"),
            ("hosts", "hub.example.com", ""),
            ("hosts", "http://hub.example.com", "only the name"),
            ("publish-key", "c2VjcmV0LWtleQ==", ""),
            ("publish-key", "two words", "letters, digits"),
            ("publish-key", "", "letters, digits"),
            ("log-level", "info,tidings::serve=debug", ""),
            ("log-level", "tidings=loud", "is not a log level"),
            ("log-format", "json", ""),
            ("log-format", "xml", "not one of text, json"),
        ];
        for (name, text, complaint) in table {
            let setting = SETTINGS.iter().find(|s| s.name == *name).unwrap();
            let got = setting.apply(&mut Settings::default(), text);
            if complaint.is_empty() {
                assert_eq!(got, Ok(()), "{name} = {text}");
            } else {
                assert!(got.as_ref().is_err_and(|why| why.contains(complaint)), "{name} = {text}: {got:?}");
            }
        }
    }

    /// N-30: open access is for this machine only, unless it is meant.
    #[test]
    fn open_access() {
        let with = |listen: &str, key: bool, insecure_open| {
            let mut settings = Settings { listen: listen.parse().unwrap(), insecure_open, ..Settings::default() };
            if key {
                settings.hub.publish_keys.push("k".into());
            }
            settings.check()
        };
        for (listen, key, insecure, fine) in [
            ("127.0.0.1:4680", false, false, true),
            ("127.9.9.9:4680", false, false, true),
            ("[::1]:4680", false, false, true),
            ("0.0.0.0:4680", false, false, false),
            ("[::]:4680", false, false, false),
            ("192.0.2.1:4680", false, false, false),
            ("0.0.0.0:4680", true, false, true),
            ("0.0.0.0:4680", false, true, true),
        ] {
            let got = with(listen, key, insecure);
            assert_eq!(got.is_ok(), fine, "{listen} {key} {insecure}: {got:?}");
            if let Err(why) = got {
                assert!(why.contains("--publish-key") && why.contains("--insecure-open"), "{why}");
            }
        }
    }
}
