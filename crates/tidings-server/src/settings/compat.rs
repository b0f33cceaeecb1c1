//! `--compat mercure`: what people bring along from the reference hub's image becomes settings of ours.
//!
//! It knows the variables and directives of both lines of that hub and what each of them is here; a value is checked where settings are.
//! What has no meaning here is said, and what would be less safe than it was is a reason not to start.

use super::{
    directives::{self, Directive},
    sources::{Given, unknown},
};
use std::collections::BTreeMap;
use tidings::{Issuer, KeySource, TokenKey};

/// What was read: settings weaker than any of ours, and the issuers with their keys.
#[derive(Default)]
pub(super) struct Compat {
    pub(super) given: Given,
    pub(super) issuers: Vec<Issuer>,
    /// Keys that are no issuer's: `publisher_jwt` and its kind. They verify tokens of both dialects, of the trusted issuers.
    keys: Vec<TokenKey>,
    trusted: Vec<String>,
    /// What an operator should know, to be logged once the hub starts.
    pub(super) notes: Vec<String>,
}

const EXTRA: &str = "MERCURE_EXTRA_DIRECTIVES";

/// Variables of the image, and what is wrong with those that cannot be followed.
const VARIABLES: &[(&str, Option<&str>)] = &[
    ("SERVER_NAME", None),
    ("MERCURE_PUBLISHER_JWT_KEY", None),
    ("MERCURE_PUBLISHER_JWT_ALG", None),
    ("MERCURE_SUBSCRIBER_JWT_KEY", None),
    ("MERCURE_SUBSCRIBER_JWT_ALG", None),
    ("MERCURE_TRUSTED_ISSUERS", None),
    (EXTRA, None),
    ("GLOBAL_OPTIONS", Some("it configures the web server around the other hub; set up a proxy for what it did, and leave it out")),
    ("CADDY_EXTRA_CONFIG", Some("it configures the web server around the other hub; set up a proxy for what it did, and leave it out")),
    (
        "CADDY_SERVER_EXTRA_DIRECTIVES",
        Some("it configures the web server around the other hub; set up a proxy for what it did, and leave it out"),
    ),
    ("MERCURE_LICENSE", Some("it is for the other hub's paid version; nothing here needs a licence key, leave it out")),
];

/// Directives that have nothing to act on here, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("topic_selector_cache", "matching needs no cache here"),
    ("topic_matcher_cache", "matching needs no cache here"),
    ("subscriber_list_cache_size", "routing needs no cache here"),
    ("protocol_version_compatibility", "both dialects are always spoken, see the setting mercure-dialects"),
    ("name", "the health paths here have no names"),
];

/// Directives that are not followed, and why.
const REFUSED: &[(&str, &str)] = &[
    ("demo", "it sets cookies for whoever asks; use the page of `ui`, or the setting mercure-debug"),
    ("playground", "it hands a token for everything to whoever asks; use the page of `debugger`, or the setting mercure-debug"),
    ("events_query", "that experiment is not part of this hub"),
];

impl Compat {
    /// The defaults of the reference hub that can be observed, and what the environment says.
    pub(super) fn read(env: impl Iterator<Item = (String, String)>) -> Result<Compat, String> {
        let mut compat = Compat::default();
        let observed =
            [("heartbeat", "40s"), ("max-age", "10m"), ("max-age-spread", "below"), ("stalled-write", "5s"), ("query-token", "true")];
        for (setting, value) in observed {
            compat.given.add(setting, "--compat mercure", value);
        }
        let mut found = BTreeMap::new();
        for (name, value) in env.filter(|(_, value)| !value.trim().is_empty()) {
            let ours = VARIABLES.iter().find(|(known, _)| *known == name);
            match ours {
                Some((_, Some(why))) => return Err(format!("`{name}` is set: {why}")),
                Some((known, None)) => drop(found.insert(*known, value)),
                None if name.starts_with("MERCURE_") => {
                    let known = VARIABLES.iter().map(|(known, _)| (*known).to_owned());
                    return Err(unknown("the environment variable", &name, "", known));
                }
                None => {}
            }
        }
        compat.variables(&found)?;
        if let Some(text) = found.get(EXTRA) {
            let in_extra = |why: String| format!("{EXTRA}: {why}");
            let directives = directives::parse(text).map_err(in_extra)?;
            directives.iter().try_for_each(|directive| compat.directive(directive)).map_err(in_extra)?;
        }
        compat.bind_keys();
        Ok(compat)
    }

    fn variables(&mut self, found: &BTreeMap<&'static str, String>) -> Result<(), String> {
        if let Some(names) = found.get("SERVER_NAME") {
            names.split([',', ' ']).filter(|name| !name.is_empty()).try_for_each(|name| self.server_name(name))?;
        }
        for (key, algorithm, publish) in [
            ("MERCURE_PUBLISHER_JWT_KEY", "MERCURE_PUBLISHER_JWT_ALG", true),
            ("MERCURE_SUBSCRIBER_JWT_KEY", "MERCURE_SUBSCRIBER_JWT_ALG", false),
        ] {
            if let Some(text) = found.get(key) {
                let key = token_key(text, found.get(algorithm).map(|name| name.trim()), publish);
                self.keys.push(key.map_err(|why| format!("{algorithm}: {why}"))?);
            }
        }
        let trusted = found.get("MERCURE_TRUSTED_ISSUERS").map_or("https://localhost", String::as_str);
        self.trusted = trusted.split([',', ' ', '\n']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(())
    }

    /// `:PORT` and `http://...` say where to listen, a bare name says under which name others reach it (M-73).
    fn server_name(&mut self, name: &str) -> Result<(), String> {
        const PLACE: &str = "SERVER_NAME";
        let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{PLACE}: `{text}` is not a port"));
        if let Some(text) = name.strip_prefix(':') {
            self.given.replace("listen", PLACE, format!("0.0.0.0:{}", port(text)?));
        } else if let Some(authority) = name.strip_prefix("http://") {
            let text = authority.rsplit_once(':').map_or("80", |(_, port)| port);
            self.given.replace("listen", PLACE, format!("0.0.0.0:{}", port(text.trim_end_matches('/'))?));
        } else {
            let name = name.strip_prefix("https://").unwrap_or(name).trim_end_matches('/');
            self.public_url(PLACE, &format!("https://{name}/.well-known/mercure"));
            self.notes.push(format!(
                "SERVER_NAME is {name}: this hub does not end TLS, so a proxy in front has to; it passes requests on to the address of `listen`"
            ));
        }
        Ok(())
    }

    /// The first is the hub's own, the others are answered too.
    fn public_url(&mut self, place: &str, url: &str) {
        let setting = if self.given.has("public-url") { "more-public-urls" } else { "public-url" };
        self.given.add(setting, place, url);
    }

    fn directive(&mut self, directive: &Directive) -> Result<(), String> {
        let name = directive.name.as_str();
        let place = format!("{EXTRA}: {name}");
        match name {
            "publisher_jwt" | "subscriber_jwt" => self.keys.push(jwt(directive, name == "publisher_jwt")?),
            "publisher_jwks_url" | "subscriber_jwks_url" => self.keys.push(key_set(directive, name == "publisher_jwks_url")?),
            "issuer" => self.issuers.push(issuer(directive)?),
            "resource_identifier" => self.given.replace("resource", &place, directive.word()?),
            "public_urls" => {
                self.given.forget("public-url");
                directive.some()?.iter().for_each(|url| self.public_url(&place, url));
            }
            "anonymous" => self.switch("anonymous", &place, directive)?,
            "subscriptions" => self.switch("subscriptions", &place, directive)?,
            "ui" | "debugger" => self.switch("mercure-debug", &place, directive)?,
            "publish_origins" => self.list("publish-origins", &place, directive)?,
            "cors_origins" => self.list("cors-origins", &place, directive)?,
            "cookie_name" => self.given.replace("cookie-name", &place, directive.word()?),
            "heartbeat" => self.time("heartbeat", "off", &place, directive)?,
            "write_timeout" => self.time("max-age", "off", &place, directive)?,
            // There is no hub here that waits for ever; an hour is as long as it gets.
            "dispatch_timeout" => self.time("stalled-write", "1h", &place, directive)?,
            "max_request_body_size" => self.given.replace("mercure-body", &place, size(directive.word()?)?),
            "transport" => self.transport(&place, directive)?,
            "transport_url" => self.transport_url(&place, directive.word()?)?,
            _ => {
                if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                    self.notes.push(format!("{place} has no effect: {why}"));
                } else if let Some((_, why)) = REFUSED.iter().find(|(known, _)| *known == name) {
                    return Err(format!("`{name}` is not followed: {why}"));
                } else {
                    let others = [WITHOUT_EFFECT, REFUSED].concat().into_iter().map(|(known, _)| known.to_owned());
                    return Err(unknown("the directive", name, "", KNOWN.iter().map(|known| (*known).to_owned()).chain(others)));
                }
            }
        }
        Ok(())
    }

    fn switch(&mut self, setting: &'static str, place: &str, directive: &Directive) -> Result<(), String> {
        directive.nothing()?;
        self.given.replace(setting, place, "true");
        Ok(())
    }

    fn list(&mut self, setting: &'static str, place: &str, directive: &Directive) -> Result<(), String> {
        directive.some()?.iter().for_each(|word| self.given.add(setting, place, word));
        Ok(())
    }

    fn time(&mut self, setting: &'static str, never: &str, place: &str, directive: &Directive) -> Result<(), String> {
        let ms = duration_ms(directive.word()?)?;
        self.given.replace(setting, place, if ms == 0 { never.to_owned() } else { format!("{ms}ms") });
        Ok(())
    }

    fn transport(&mut self, place: &str, directive: &Directive) -> Result<(), String> {
        match &directive.words[..] {
            [kind] if kind == "local" => {
                self.given.replace("store", place, "memory");
                Ok(())
            }
            [kind] if kind == "bolt" => {
                self.given.replace("store", place, "disk");
                directive.block.iter().try_for_each(|option| self.bolt(place, &option.name, option.word()?))
            }
            _ => Err("`transport` is `bolt` or `local`; others belong to the other hub's paid version".into()),
        }
    }

    /// `bolt://path?size=..`, as it was before the directive `transport`.
    fn transport_url(&mut self, place: &str, url: &str) -> Result<(), String> {
        if url.starts_with("local://") {
            self.given.replace("store", place, "memory");
            return Ok(());
        }
        let rest = url.strip_prefix("bolt://").ok_or_else(|| format!("`{url}` is not `bolt://...` or `local://local`"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        self.given.replace("store", place, "disk");
        if !path.is_empty() {
            self.bolt(place, "path", path)?;
        }
        query.split('&').filter(|pair| !pair.is_empty()).try_for_each(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.bolt(place, name, value)
        })
    }

    fn bolt(&mut self, place: &str, name: &str, value: &str) -> Result<(), String> {
        match name {
            "path" => {
                let data = format!("{}.tidings", value.strip_suffix(".db").unwrap_or(value));
                self.notes
                    .push(format!("{place}: the log is kept in the directory {data}; the file {value} is another hub's and is not read"));
                self.given.replace("data", place, data);
            }
            "size" => {
                let count: u64 = value.parse().map_err(|_| format!("`size {value}` is not a number of events"))?;
                self.given.replace("retention-events", place, if count == 0 { "off".to_owned() } else { count.to_string() });
            }
            "bucket_name" | "cleanup_frequency" => {
                self.notes.push(format!("{place}: {name} has no effect: the log is cleaned as it grows"));
            }
            _ => {
                let known = ["path", "size", "bucket_name", "cleanup_frequency"].map(str::to_owned);
                return Err(unknown("the option", name, " of `transport bolt`", known.into_iter()));
            }
        }
        Ok(())
    }

    /// Keys without an issuer of their own are those of every trusted one, and verify tokens of dialect 7 too.
    fn bind_keys(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        for id in &self.trusted {
            let mut issuer = Issuer::new(Some(id.clone()));
            issuer.keys.clone_from(&self.keys);
            self.issuers.push(issuer);
        }
        // Tokens of 0.x may name an issuer that nobody here knows.
        let mut nameless = Issuer::new(None);
        nameless.keys.clone_from(&self.keys);
        self.issuers.push(nameless);
    }
}

/// Directives that are followed.
const KNOWN: &[&str] = &[
    "publisher_jwt",
    "subscriber_jwt",
    "publisher_jwks_url",
    "subscriber_jwks_url",
    "issuer",
    "resource_identifier",
    "public_urls",
    "anonymous",
    "subscriptions",
    "ui",
    "debugger",
    "publish_origins",
    "cors_origins",
    "cookie_name",
    "heartbeat",
    "write_timeout",
    "dispatch_timeout",
    "max_request_body_size",
    "transport",
    "transport_url",
];

fn token_key(text: &str, algorithm: Option<&str>, publish: bool) -> Result<TokenKey, String> {
    let mut key = TokenKey::new(KeySource::Text(text.into()));
    (key.publish, key.subscribe, key.legacy) = (publish, !publish, true);
    key.algorithms = algorithm.map(str::parse).transpose()?.into_iter().collect();
    Ok(key)
}

/// `<key> [alg]`.
fn jwt(directive: &Directive, publish: bool) -> Result<TokenKey, String> {
    match &directive.words[..] {
        [key] => token_key(key, None, publish),
        [key, algorithm] => token_key(key, Some(algorithm), publish),
        _ => Err(format!("`{}` takes a key and perhaps an algorithm", directive.name)),
    }
}

/// `<url> [alg...]`.
fn key_set(directive: &Directive, publish: bool) -> Result<TokenKey, String> {
    let (url, algorithms) = directive.some()?.split_first().ok_or("a URL is missing")?;
    let source = match url.strip_prefix("file://") {
        Some(path) => KeySource::SetFile(path.into()),
        None => KeySource::SetUrl { url: url.clone(), insecure: false },
    };
    let mut key = TokenKey::new(source);
    (key.publish, key.subscribe, key.legacy) = (publish, !publish, true);
    key.algorithms = algorithms.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    Ok(key)
}

/// `issuer <id> { authorization_server; publisher { ... } subscriber { ... } }`: dialect 8 only.
fn issuer(directive: &Directive) -> Result<Issuer, String> {
    let [id] = &directive.words[..] else { return Err("`issuer` takes one name, and its keys in braces".into()) };
    let mut issuer = Issuer::new(Some(id.clone()));
    for part in &directive.block {
        match part.name.as_str() {
            "authorization_server" => {
                part.nothing()?;
                issuer.authorization_server = true;
            }
            role @ ("publisher" | "subscriber") => {
                for key in &part.block {
                    let publish = role == "publisher";
                    let mut key = match key.name.as_str() {
                        "jwt" => jwt(key, publish)?,
                        "jwks_uri" => key_set(key, publish)?,
                        other => {
                            return Err(unknown(
                                "the directive",
                                other,
                                &format!(" of `{role}`"),
                                ["jwt", "jwks_uri"].map(str::to_owned).into_iter(),
                            ));
                        }
                    };
                    key.legacy = false;
                    issuer.keys.push(key);
                }
            }
            other => {
                let known = ["publisher", "subscriber", "authorization_server"].map(str::to_owned);
                return Err(unknown("the directive", other, " of `issuer`", known.into_iter()));
            }
        }
    }
    if issuer.keys.is_empty() { Err(format!("`issuer {id}` has no key")) } else { Ok(issuer) }
}

/// A time as Go writes it, in milliseconds: `40s`, `1m30s`, `1.5h`, `0`; a day is `1d`.
fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a time; write it like 40s or 1m30s");
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut ms) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|&at| at > 0).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let factor = match &after[..unit] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return Err(wrong()),
        };
        ms += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = &after[unit..];
    }
    // Whatever is not nothing stays something.
    if text.is_empty() { Err(wrong()) } else { Ok(if ms > 0.0 { ms.ceil() as u64 } else { 0 }) }
}

/// A size as it is written there: `1MiB`, `1MB` (a million), or a bare number of bytes; 0 is as much as is allowed.
fn size(text: &str) -> Result<String, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("`{text}` is not a size; write it like 1MiB");
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    Ok(if bytes == 0 { "1GiB".to_owned() } else { format!("{bytes}B") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given as Flags, SETTINGS, Settings, resolve};
    use tidings::AgeSpread;

    fn compat(env: &[(&str, &str)]) -> Result<Settings, String> {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut flags = Flags::default();
        flags.add("compat", "--compat", "mercure");
        resolve(flags, env.into_iter(), None)
    }

    fn extra(directives: &str) -> Result<Settings, String> {
        compat(&[(EXTRA, directives)])
    }

    /// What is observed of the reference hub (M-305, M-306, M-406), unless something stronger says otherwise.
    #[test]
    fn defaults() {
        let settings = compat(&[]).unwrap();
        assert_eq!(settings.hub.heartbeat.unwrap().as_secs(), 40);
        assert_eq!((settings.hub.max_age.unwrap().as_secs(), settings.hub.max_age_spread), (600, AgeSpread::Below));
        assert_eq!(settings.hub.stalled_write.as_secs(), 5);
        assert!(settings.hub.query_token && !settings.hub.anonymous && settings.hub.is_open());
        let settings = compat(&[("TIDINGS_HEARTBEAT", "1s"), (EXTRA, "heartbeat 2s\nwrite_timeout 3s")]).unwrap();
        assert_eq!((settings.hub.heartbeat.unwrap().as_secs(), settings.hub.max_age.unwrap().as_secs()), (1, 3));
        // Without the flag none of it is read.
        let env = [("MERCURE_LICENSE", "x"), ("MERCURE_X", "y"), ("SERVER_NAME", ":1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert!(!resolve(Flags::default(), env.into_iter(), None).unwrap().hub.query_token);
    }

    /// Section 2.1: every variable of the image.
    #[test]
    fn variables() {
        let key = "a secret of this hub's own, for its publishers";
        let settings = compat(&[
            ("SERVER_NAME", "hub.example, :8080 https://other.example"),
            ("MERCURE_PUBLISHER_JWT_KEY", key),
            ("MERCURE_SUBSCRIBER_JWT_KEY", key),
            ("MERCURE_SUBSCRIBER_JWT_ALG", "HS512"),
            ("MERCURE_TRUSTED_ISSUERS", "https://a https://b"),
            ("GLOBAL_OPTIONS", ""),
        ])
        .unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(settings.hub.public_url.as_deref(), Some("https://hub.example/.well-known/mercure"));
        assert_eq!(settings.hub.more_public_urls, ["https://other.example/.well-known/mercure"]);
        // The one without a name verifies tokens of dialect 7, whoever they say they are of.
        let names: Vec<_> = settings.hub.issuers.iter().map(|issuer| issuer.id.as_deref()).collect();
        assert_eq!(names, [Some("https://a"), Some("https://b"), None]);
        for issuer in &settings.hub.issuers {
            let [publisher, subscriber] = &issuer.keys[..] else { panic!("{issuer:?}") };
            assert!(publisher.publish && !publisher.subscribe && publisher.legacy && publisher.algorithms.is_empty());
            assert!(!subscriber.publish && subscriber.subscribe && subscriber.legacy);
            assert_eq!(subscriber.algorithms, [tidings::Algorithm::Hs512]);
        }
        for (name, listen) in [("http://localhost", "0.0.0.0:80"), ("http://hub.example:81/", "0.0.0.0:81")] {
            let settings = compat(&[("SERVER_NAME", name), ("MERCURE_PUBLISHER_JWT_KEY", key)]).unwrap();
            assert_eq!((settings.listen.to_string().as_str(), settings.hub.public_url), (listen, None), "{name}");
        }
        for (name, value, complaint) in [
            ("GLOBAL_OPTIONS", "debug", "`GLOBAL_OPTIONS` is set: it configures the web server"),
            ("CADDY_EXTRA_CONFIG", "x", "set up a proxy"),
            ("CADDY_SERVER_EXTRA_DIRECTIVES", "x", "set up a proxy"),
            ("MERCURE_LICENSE", "x", "nothing here needs a licence key"),
            ("MERCURE_PUBLISHER_JWT_KYE", "x", "the nearest name is `MERCURE_PUBLISHER_JWT_KEY`"),
            ("SERVER_NAME", ":http", "`http` is not a port"),
            ("SERVER_NAME", ":80", "refusing to listen on 0.0.0.0:80 with open access"),
        ] {
            let got = compat(&[(name, value)]);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint)), "{name}={value}: {got:?}");
        }
        let got = compat(&[("MERCURE_PUBLISHER_JWT_KEY", key), ("MERCURE_PUBLISHER_JWT_ALG", "none")]);
        assert!(got.is_err_and(|why| why.contains("MERCURE_PUBLISHER_JWT_ALG: `none` is not an algorithm") && !why.contains(key)));
    }

    /// Section 2.1: every directive of both lines has its equivalent, or a reason.
    #[test]
    fn directives() {
        let settings = extra(
            "publisher_jwt !ChangeThisMercureHubJWTSecretKey!\n\
             subscriber_jwt !ChangeThisMercureHubJWTSecretKey! HS256\n\
             publisher_jwks_url https://a.example/keys\nsubscriber_jwks_url file:///keys.json\n\
             issuer https://as.example {\n authorization_server\n publisher {\n jwks_uri https://as.example/keys RS256 ES256\n }\n\
             subscriber {\n jwt \"a key of its own, for subscribers\" HS256\n }\n}\n\
             resource_identifier urn:hub\npublic_urls https://hub.example https://other.example\nanonymous\nui\n\
             publish_origins https://a.example https://b.example\ncors_origins *\ncookie_name session\nheartbeat 0\nwrite_timeout 1m30s\n\
             dispatch_timeout 0\nmax_request_body_size 2MB\ntransport bolt {\n path /data/mercure.db\n size 1000\n bucket_name b\n\
             cleanup_frequency 0.3\n}\ntopic_selector_cache 1\ntopic_matcher_cache -1\nsubscriber_list_cache_size 0\n\
             protocol_version_compatibility 7\nname here # and a comment",
        )
        .unwrap();
        let hub = &settings.hub;
        let [server, trusted, nameless] = &hub.issuers[..] else { panic!("{:?}", hub.issuers) };
        assert!(server.authorization_server && server.id.as_deref() == Some("https://as.example"));
        assert!(server.keys.iter().all(|key| !key.legacy && key.publish != key.subscribe));
        assert_eq!(server.keys[0].algorithms.len(), 2);
        assert_eq!((trusted.id.as_deref(), trusted.keys.len()), (Some("https://localhost"), 4));
        assert_eq!((nameless.id.as_deref(), nameless.keys.len()), (None, 4));
        assert_eq!(trusted.keys[3].source, KeySource::SetFile("/keys.json".into()));
        assert_eq!((hub.resource.as_deref(), hub.public_url.as_deref()), (Some("urn:hub"), Some("https://hub.example")));
        assert_eq!(hub.more_public_urls, ["https://other.example"]);
        assert!(hub.anonymous && hub.mercure_debug);
        assert_eq!(hub.publish_origins, ["https://a.example", "https://b.example"]);
        assert_eq!((&hub.cors_origins[..], hub.cookie_name.as_deref()), (&["*".to_owned()][..], Some("session")));
        assert_eq!((hub.heartbeat, hub.max_age.unwrap().as_secs(), hub.stalled_write.as_secs()), (None, 90, 3_600));
        assert_eq!(hub.mercure_body, 2_000_000);
        assert_eq!((settings.disk, settings.data.as_deref()), (true, Some("/data/mercure.tidings".as_ref())));
        assert_eq!(settings.log.retention_events, 1_000);
        assert_eq!(settings.notes.len(), 8, "{:?}", settings.notes);
        assert!(!extra("transport local").unwrap().disk);
        assert_eq!(extra("transport_url bolt://m.db?size=5&cleanup_frequency=1").unwrap().log.retention_events, 5);
        assert!(!extra("transport_url local://local").unwrap().disk);
        for (text, complaint) in [
            ("publisher_jwk x", "the nearest name is `publisher_jwt`"),
            ("transport redis", "`bolt` or `local`"),
            ("transport bolt {\n pathh x\n}", "the nearest name is `path`"),
            ("transport_url redis://x", "is not `bolt://...`"),
            ("demo", "`demo` is not followed"),
            ("playground", "a token for everything"),
            ("events_query", "not part of this hub"),
            ("anonymous yes", "`anonymous` takes no value"),
            ("heartbeat", "`heartbeat` takes one value"),
            ("heartbeat soon", "`soon` is not a time"),
            ("max_request_body_size big", "`big` is not a size"),
            ("cors_origins example.com", "`example.com` is not an origin"),
            ("issuer https://a", "`issuer https://a` has no key"),
            ("issuer https://a {\n publisher {\n jwks_url https://x\n }\n}", "the nearest name is `jwks_uri`"),
            ("publisher_jwt k HS999", "`HS999` is not an algorithm"),
            ("publisher_jwt {env.KEY}", "would have to be replaced"),
        ] {
            let got = extra(text);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint) && why.contains(EXTRA)), "{text}: {got:?}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in
            [("40s", 40_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0", 0), ("0s", 0), ("250ms", 250), ("1ns", 1), ("1d", 86_400_000)]
        {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "40", "s", "1x", "-1s", "1..s", "1s2"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    /// Whatever a directive becomes is a setting that exists.
    #[test]
    fn settings_exist() {
        let compat = Compat::read([(EXTRA.to_owned(), "anonymous\nsubscriptions\nui".to_owned())].into_iter()).unwrap();
        for name in
            ["anonymous", "subscriptions", "mercure-debug", "heartbeat", "max-age", "max-age-spread", "stalled-write", "query-token"]
        {
            assert!(compat.given.has(name) && SETTINGS.iter().any(|setting| setting.name == name), "{name}");
        }
    }
}
