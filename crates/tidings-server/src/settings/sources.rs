//! Where settings are written: flags beat the environment, the environment beats the file, the file beats the defaults (N-41).
//!
//! An unknown name in any of them is an error that suggests the nearest one: a misspelt limit that is silently ignored is found out
//! during the incident it was meant to prevent. What a value means is the parent module's.

use super::{Kind, SETTINGS, Setting, Settings, compat::Compat, issuers, table};
use std::{collections::BTreeMap, fs, path::Path};
use tidings::PrefixRule;

/// What one place gave, by setting name: the written values (one, but for lists), and how to call the place in an error.
#[derive(Default)]
pub(crate) struct Given(BTreeMap<&'static str, (String, Vec<String>)>);

/// What a file says in tables: exceptions for prefixes, and issuers of tokens.
type Tables = (Vec<PrefixRule>, Vec<tidings::Issuer>);

/// Names in the environment that are not settings of `serve`: of the other commands, and of the file itself.
const OTHER_ENV: &[&str] = &["TIDINGS_CONFIG", "TIDINGS_URL", "TIDINGS_KEY"];

/// Settles every setting. `file` is the path given by `--config` or `TIDINGS_CONFIG`.
pub(crate) fn resolve(flags: Given, env: impl Iterator<Item = (String, String)>, file: Option<&Path>) -> Result<Settings, String> {
    let env: Vec<_> = env.collect();
    let mercure = env.clone();
    let env = Given::from_env(env.into_iter())?;
    let mut settings = Settings::default();
    let file = match file {
        None => Given::default(),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("cannot read the settings file {}: {error}", path.display()))?;
            let (given, tables) = Given::from_file(&path.display().to_string(), &text)?;
            (settings.hub.prefixes, settings.hub.issuers) = tables;
            given
        }
    };
    // The variables of another hub's image are read only by somebody who says so, and anything said in a form of ours is stronger.
    let is_compat = |given: &Given| given.0.get("compat").map(|(_, values)| values.last().is_some_and(|value| value == "mercure"));
    let compat = [&flags, &env, &file].into_iter().find_map(is_compat).unwrap_or(false);
    let compat = if compat { Compat::read(mercure.into_iter())? } else { Compat::default() };
    settings.hub.issuers.extend(compat.issuers);
    settings.notes = compat.notes;
    for setting in SETTINGS {
        let Some((place, values)) = [&flags, &env, &file, &compat.given].into_iter().find_map(|given| given.0.get(setting.name)) else {
            continue;
        };
        for value in values {
            setting.apply(&mut settings, value).map_err(|why| format!("{place}: {why}"))?;
        }
    }
    if let Some(path) = &settings.publish_key_file {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read publish-key-file {}: {error}", path.display()))?;
        let keys = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(table::publish_key);
        let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(|why| format!("publish-key-file {}: {why}", path.display()))?;
        if keys.is_empty() {
            return Err(format!("publish-key-file {} holds no key; write one a line", path.display()));
        }
        settings.hub.publish_keys.extend(keys.into_iter().map(tidings::Secret::from));
    }
    let flat = std::mem::take(&mut settings.issuer).into_issuers()?;
    settings.hub.issuers.extend(flat);
    settings.check()?;
    Ok(settings)
}

impl Given {
    /// Adds one value of a setting, as if it had been written at `place`.
    pub(super) fn add(&mut self, setting: &'static str, place: &str, value: impl Into<String>) {
        let (_, values) = self.0.entry(setting).or_insert_with(|| (place.to_owned(), Vec::new()));
        values.push(value.into());
    }

    pub(super) fn has(&self, setting: &str) -> bool {
        self.0.contains_key(setting)
    }

    pub(super) fn forget(&mut self, setting: &str) {
        self.0.remove(setting);
    }

    /// The same instead of what was there.
    pub(super) fn replace(&mut self, setting: &'static str, place: &str, value: impl Into<String>) {
        self.0.remove(setting);
        self.add(setting, place, value);
    }

    /// Adds what one flag was given; lists may also be separated by commas, as in the environment.
    pub(crate) fn flag(&mut self, setting: &'static Setting, values: impl Iterator<Item = String>) {
        let values = values.flat_map(|value| setting.split(&value)).collect();
        self.0.insert(setting.name, (format!("--{}", setting.name), values));
    }

    fn from_env(env: impl Iterator<Item = (String, String)>) -> Result<Given, String> {
        let mut given = Given::default();
        for (name, value) in env {
            if !name.starts_with("TIDINGS_") || OTHER_ENV.contains(&&*name) || is_service_link(&name, &value) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.env_name() == name) else {
                let known = SETTINGS.iter().map(Setting::env_name).chain(OTHER_ENV.iter().map(|&name| name.to_owned()));
                return Err(unknown("the environment variable", &name, "", known));
            };
            // Set but empty is how deployments leave a variable out.
            if !value.is_empty() {
                given.0.insert(setting.name, (name, setting.split(&value)));
            }
        }
        Ok(given)
    }

    fn from_file(place: &str, text: &str) -> Result<(Given, Tables), String> {
        let file: toml::Table = text.parse().map_err(|error| format!("{place} is not valid TOML: {error}"))?;
        let (mut given, mut prefixes, mut issuers) = (Given::default(), Vec::new(), Vec::new());
        for (name, value) in file {
            if name == "prefix" {
                prefixes = prefix_rules(place, value)?;
                continue;
            }
            if name == "issuer" {
                issuers = issuers::from_file(place, value)?;
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.file_name() == name) else {
                let known = SETTINGS.iter().map(Setting::file_name).chain(["prefix".into(), "issuer".into()]);
                return Err(unknown("the setting", &name, &format!(" in {place}"), known));
            };
            let named = format!("`{name}` in {place}");
            let values = file_values(setting, value).ok_or_else(|| format!("{named}: {}", file_form(setting)))?;
            given.0.insert(setting.name, (named, values));
        }
        Ok((given, (prefixes, issuers)))
    }
}

impl Setting {
    fn split(&self, value: &str) -> Vec<String> {
        if self.is_list() { value.split(',').map(|item| item.trim().to_owned()).collect() } else { vec![value.to_owned()] }
    }
}

/// Kubernetes puts variables such as `TIDINGS_SERVICE_HOST` and `TIDINGS_PORT_4680_TCP` into every container beside a service of that name;
/// they are nobody's misspelt setting.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_link = |value: &str| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_link(value))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn file_values(setting: &Setting, value: toml::Value) -> Option<Vec<String>> {
    let scalar = |value: toml::Value| match (&setting.kind, value) {
        (_, toml::Value::String(text)) => Some(text),
        (Kind::Count { .. } | Kind::CountOr { .. }, toml::Value::Integer(number)) => Some(number.to_string()),
        (Kind::Switch { .. }, toml::Value::Boolean(on)) => Some(on.to_string()),
        _ => None,
    };
    match value {
        toml::Value::Array(items) if setting.is_list() => items.into_iter().map(scalar).collect(),
        value => scalar(value).map(|text| vec![text]),
    }
}

fn file_form(setting: &Setting) -> String {
    match &setting.kind {
        Kind::Count { .. } | Kind::CountOr { .. } => "write a number".into(),
        Kind::Switch { .. } => "write true or false".into(),
        Kind::List { .. } => "write a list of texts, as in [\"a\", \"b\"]".into(),
        _ if setting.default.is_empty() => "write a text in quotes".into(),
        _ => format!("write a text in quotes, as in \"{}\"", setting.default),
    }
}

fn prefix_rules(place: &str, value: toml::Value) -> Result<Vec<PrefixRule>, String> {
    let toml::Value::Array(tables) = value else {
        return Err(format!("`prefix` in {place}: write a table that begins with [[prefix]], once for each prefix"));
    };
    tables.into_iter().map(|table| prefix_rule(place, table)).collect()
}

fn prefix_rule(place: &str, table: toml::Value) -> Result<PrefixRule, String> {
    let toml::Value::Table(table) = table else {
        return Err(format!("`prefix` in {place}: write a table that begins with [[prefix]], once for each prefix"));
    };
    let prefix = table.get("prefix").and_then(toml::Value::as_str).filter(|prefix| !prefix.is_empty());
    let mut rule = PrefixRule::new(prefix.ok_or_else(|| format!("a [[prefix]] in {place} has no prefix; write prefix = \"chat\""))?);
    let place = format!("[[prefix]] \"{}\" in {place}", rule.prefix);
    for (name, value) in &table {
        let text = || value.as_str().unwrap_or_default();
        let wrong = |why: String| format!("`{name}` of {place}: {why}");
        match name.as_str() {
            "prefix" => {}
            "prime" => rule.prime = Some(value.as_bool().ok_or_else(|| wrong("write true or false".into()))?),
            "end" => rule.end = Some(table::end_style(text()).map_err(wrong)?),
            "heartbeat_form" => rule.heartbeat_form = Some(table::heartbeat_form(text()).map_err(wrong)?),
            "lag_policy" => rule.lag_policy = Some(table::lag_policy(text()).map_err(wrong)?),
            _ => {
                let known = ["prefix", "prime", "end", "lag_policy", "heartbeat_form"].map(str::to_owned);
                return Err(unknown("the setting", name, &format!(" of {place}"), known.into_iter()));
            }
        }
    }
    Ok(rule)
}

pub(super) fn unknown(what: &str, name: &str, place: &str, known: impl Iterator<Item = String>) -> String {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(known, name)).unwrap_or_default();
    format!("{what} `{name}`{place} does not exist; the nearest name is `{nearest}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn from_file(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidings.toml");
        fs::write(&path, text).unwrap();
        resolve(Given::default(), env(&[]), Some(&path))
    }

    fn flag(name: &str, value: &str) -> Given {
        let mut given = Given::default();
        given.flag(SETTINGS.iter().find(|s| s.name == name).unwrap(), [value.to_owned()].into_iter());
        given
    }

    /// N-41: flag beats environment beats file beats default, and a list is replaced as a whole.
    #[test]
    fn precedence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidings.toml");
        fs::write(&path, "heartbeat = '1s'\nkeep_alive = '1s'\nmatchers = 1\nhosts = ['file']\n").unwrap();
        let env = env(&[
            ("TIDINGS_HEARTBEAT", "2s"),
            ("TIDINGS_KEEP_ALIVE", "2s"),
            ("TIDINGS_HOSTS", "a, b"),
            ("TIDINGS_LAG_TIME", ""),
            ("PATH", "/"),
        ]);
        let hub = resolve(flag("heartbeat", "3s"), env, Some(&path)).unwrap().hub;
        assert_eq!(hub.heartbeat.unwrap().as_secs(), 3);
        assert_eq!(hub.keep_alive.as_secs(), 2);
        assert_eq!(hub.matchers, 1);
        assert_eq!(hub.hosts, ["a", "b"]);
        assert_eq!(hub.lag_time.as_secs(), 60);
    }

    /// N-41: an unknown name in any place is an error that suggests the nearest one, and so is a value that does not fit.
    #[test]
    fn what_is_refused_in_the_environment() {
        for (name, value, complaint) in [
            ("TIDINGS_HERTBEAT", "1s", "`TIDINGS_HERTBEAT` does not exist; the nearest name is `TIDINGS_HEARTBEAT`"),
            ("TIDINGS_CONFG", "f", "`TIDINGS_CONFIG`"),
            ("TIDINGS_PORT", "8080", "does not exist"),
            ("TIDINGS_HEARTBEAT", "1", "TIDINGS_HEARTBEAT: `1` is not a time"),
        ] {
            let got = resolve(Given::default(), env(&[(name, value)]), None);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint)), "{name}={value}: {got:?}");
        }
        let links = [
            ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
            ("TIDINGS_SERVICE_PORT", "4680"),
            ("TIDINGS_SERVICE_PORT_HTTP", "4680"),
            ("TIDINGS_PORT", "tcp://10.0.0.1:4680"),
            ("TIDINGS_PORT_4680_TCP_ADDR", "10.0.0.1"),
            ("TIDINGS_REDIS_PORT", "tcp://10.0.0.2:6379"),
            ("TIDINGS_URL", "http://127.0.0.1"),
        ];
        assert!(resolve(Given::default(), env(&links), None).is_ok());
    }

    /// N-41: names of several words have underscores in the file, units are written out, lists are lists.
    #[test]
    fn what_the_file_takes() {
        let settings = from_file(
            "listen = '0.0.0.0:0'\ninsecure_open = true\nheartbeat = 'off'\nmax_age = '2h'\nconnections = 7\nwindow_bytes = '32MiB'\n\
             cors_origins = ['https://a.example', 'https://b.example']\npublish_origins = 'https://c.example'\n\
             [[prefix]]\nprefix = 'chat'\nprime = false\nend = 'abort'\nheartbeat_form = 'event'\n[[prefix]]\nprefix = 'quotes'\nlag_policy = 'gap'\n",
        )
        .unwrap();
        assert!(settings.insecure_open && settings.listen.port() == 0);
        assert_eq!((settings.hub.heartbeat, settings.hub.connections, settings.hub.window_bytes), (None, Some(7), 32 << 20));
        assert_eq!(settings.hub.cors_origins, ["https://a.example", "https://b.example"]);
        assert_eq!(settings.hub.publish_origins, ["https://c.example"]);
        let [chat, quotes] = &settings.hub.prefixes[..] else { panic!("{:?}", settings.hub.prefixes) };
        assert_eq!((&*chat.prefix, chat.prime, chat.end), ("chat", Some(false), Some(tidings::EndStyle::Abort)));
        assert_eq!((&*quotes.prefix, quotes.prime, quotes.lag_policy), ("quotes", None, Some(tidings::LagPolicy::Gap)));

        for (text, complaint) in [
            ("hearbeat = '1s'", "the nearest name is `heartbeat`"),
            ("keep-alive = '1s'", "the nearest name is `keep_alive`"),
            ("config = 'x'", "does not exist"),
            ("heartbeat = 15", "`heartbeat` in"),
            ("heartbeat = 15", "write a text in quotes, as in \"15s\""),
            ("matchers = true", "write a number"),
            ("matchers = 1.5", "write a number"),
            ("anonymous = 1", "write true or false"),
            ("hosts = [1]", "write a list of texts"),
            ("heartbeat = ['1s']", "write a text in quotes"),
            ("heartbeat = '1s", "is not valid TOML"),
            ("[prefix]\nprefix = 'a'", "begins with [[prefix]]"),
            ("[[prefix]]\nprime = true", "has no prefix"),
            ("[[prefix]]\nprefix = 'a'\nprimed = true", "the nearest name is `prime`"),
            ("[[prefix]]\nprefix = 'a'\nend = 1", "not one of clean, abort"),
            ("drain_spread = '10m'", "must not be longer than drain-hard"),
            ("window_bytes = '1MiB'", "at most half of window-bytes"),
            ("publish_body = '1KiB'", "must not be larger than publish-body"),
        ] {
            let got = from_file(text);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint)), "{text}: {got:?}");
        }
    }

    /// N-33: keys from flags, environment and a file; a file that holds none is a mistake, not open access.
    #[test]
    fn publish_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let file = path.to_str().unwrap();
        fs::write(&path, "one\n\n  two \n").unwrap();
        let settings = resolve(flag("publish-key", "three"), env(&[("TIDINGS_PUBLISH_KEY_FILE", file)]), None).unwrap();
        assert_eq!(settings.hub.publish_keys, ["three", "one", "two"].map(tidings::Secret::from));
        for (text, complaint) in [("", "holds no key"), ("two words\n", "letters, digits")] {
            fs::write(&path, text).unwrap();
            let got = resolve(flag("publish-key-file", file), env(&[]), None);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint) && !why.contains("two words")), "{text:?}: {got:?}");
        }
        let got = resolve(flag("publish-key-file", "/does/not/exist"), env(&[]), None);
        assert!(got.is_err_and(|why| why.contains("cannot read publish-key-file")));
    }
}
