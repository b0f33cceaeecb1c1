//! Issuers of tokens and their keys as settings: `[[issuer]]` in the file for any number of them, and flat settings for one (M-70, M-71).
//!
//! It knows how they are written and reads the files they name; whether a key is fit for its purpose is the library's to say.

use super::{Settings, sources::unknown};
use std::{fs, path::Path};
use tidings::{Algorithm, Issuer, KeySource, Secret, TokenKey};

/// The one issuer that flags and the environment can name.
#[derive(Clone, Default)]
pub(crate) struct Flat {
    pub(super) id: Option<String>,
    pub(super) keys: Vec<(Roles, Source)>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) legacy: bool,
}

/// Whose tokens a key verifies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Roles {
    Both,
    Publishers,
    Subscribers,
}

/// Where a key is written.
#[derive(Clone)]
pub(super) enum Source {
    Here(Secret),
    File(String),
    Set(String),
    SetFile(String),
}

/// The secret that the reference hub's documentation uses; everybody knows it (M-70).
const DEVELOPMENT_SECRET: &str = "!ChangeThisMercureHubJWTSecretKey!";

/// The names of an `[[issuer]]`, and of an `[[issuer.key]]`.
const ISSUER: &[&str] = &["id", "authorization_server", "key"];
const KEY: &[&str] = &["key", "key_file", "jwks_url", "jwks_file", "roles", "algorithms", "legacy", "insecure", "kid"];

impl Source {
    fn into_key(self, insecure: bool) -> Result<KeySource, String> {
        Ok(match self {
            Source::Here(text) => KeySource::Text(text),
            Source::File(path) => KeySource::Text(read(Path::new(&path))?),
            Source::Set(url) => KeySource::SetUrl { url, insecure },
            Source::SetFile(path) => KeySource::SetFile(path.into()),
        })
    }
}

/// A key in a file; the line end after it is the editor's.
pub(crate) fn read(path: &Path) -> Result<Secret, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read the key in {}: {error}", path.display()))?;
    Ok(Secret::from(text.trim_end_matches(['\r', '\n'])))
}

impl Flat {
    /// What the flat settings say, if they say anything. With legacy claims there is an issuer without a name beside it, for tokens that
    /// name none or one that nobody knows.
    pub(super) fn into_issuers(self) -> Result<Vec<Issuer>, String> {
        if self.keys.is_empty() {
            let alone = self.id.is_some() || self.legacy || !self.algorithms.is_empty();
            return if alone {
                Err("an issuer needs keys: set token-key, token-key-file or token-jwks-url too".into())
            } else {
                Ok(Vec::new())
            };
        }
        if self.id.is_none() && !self.legacy {
            return Err(
                "keys of tokens are somebody's: set token-issuer to the `iss` of the tokens, or allow those of Mercure 0.x, which name \
                        no issuer, with legacy-tokens"
                    .into(),
            );
        }
        let mut keys = Vec::new();
        for (roles, source) in self.keys {
            let mut key = TokenKey::new(source.into_key(false)?);
            (key.publish, key.subscribe) = (roles != Roles::Subscribers, roles != Roles::Publishers);
            key.algorithms.clone_from(&self.algorithms);
            key.legacy = self.legacy;
            keys.push(key);
        }
        let issuer = |id| {
            let mut issuer = Issuer::new(id);
            issuer.keys.clone_from(&keys);
            issuer
        };
        let nameless = (self.legacy && self.id.is_some()).then_some(None);
        Ok([Some(self.id), nameless].into_iter().flatten().map(issuer).collect())
    }
}

/// The tables `[[issuer]]` of a settings file.
pub(super) fn from_file(place: &str, value: toml::Value) -> Result<Vec<Issuer>, String> {
    let form = || format!("`issuer` in {place}: write a table that begins with [[issuer]], once for each issuer");
    let toml::Value::Array(tables) = value else { return Err(form()) };
    let table = |table: toml::Value| if let toml::Value::Table(table) = table { issuer(place, table) } else { Err(form()) };
    tables.into_iter().map(table).collect()
}

fn issuer(place: &str, table: toml::Table) -> Result<Issuer, String> {
    known(&table, ISSUER, &format!(" of an [[issuer]] in {place}"))?;
    let id = text(&table, "id").map_err(|why| format!("an [[issuer]] in {place}: {why}"))?;
    let place = format!("[[issuer]] {} in {place}", id.as_deref().map_or("without an id".into(), |id| format!("\"{id}\"")));
    let mut issuer = Issuer::new(id);
    issuer.authorization_server = switch(&table, "authorization_server").map_err(|why| format!("{place}: {why}"))?;
    let keys = match table.get("key") {
        Some(toml::Value::Array(keys)) => keys.as_slice(),
        _ => return Err(format!("{place} has no keys; write them below it, each in a table that begins with [[issuer.key]]")),
    };
    for entry in keys {
        let toml::Value::Table(entry) = entry else {
            return Err(format!("`key` of {place}: write a table that begins with [[issuer.key]]"));
        };
        known(entry, KEY, &format!(" of a key of {place}"))?;
        issuer.keys.push(key(entry).map_err(|why| format!("a key of {place}: {why}"))?);
    }
    Ok(issuer)
}

fn key(table: &toml::Table) -> Result<TokenKey, String> {
    let mut sources = Vec::new();
    for (name, source) in [
        ("key", (|text: String| Source::Here(text.into())) as fn(String) -> Source),
        ("key_file", Source::File),
        ("jwks_url", Source::Set),
        ("jwks_file", Source::SetFile),
    ] {
        sources.extend(text(table, name)?.map(source));
    }
    let Ok([source]) = <[Source; 1]>::try_from(sources) else {
        return Err("give one of key, key_file, jwks_url and jwks_file".into());
    };
    let mut key = TokenKey::new(source.into_key(switch(table, "insecure")?)?);
    key.algorithms = match table.get("algorithms") {
        None => Vec::new(),
        Some(toml::Value::String(name)) => vec![name.parse()?],
        Some(toml::Value::Array(names)) => {
            let name = |name: &toml::Value| name.as_str().unwrap_or_default().parse();
            names.iter().map(name).collect::<Result<_, _>>()?
        }
        Some(_) => return Err("`algorithms` is a list of texts, as in [\"RS256\"]".into()),
    };
    (key.publish, key.subscribe) = match text(table, "roles")?.as_deref() {
        None | Some("both") => (true, true),
        Some("publish") => (true, false),
        Some("subscribe") => (false, true),
        Some(other) => return Err(format!("`roles` is publish, subscribe or both, not `{other}`")),
    };
    key.legacy = switch(table, "legacy")?;
    key.kid = text(table, "kid")?;
    Ok(key)
}

fn known(table: &toml::Table, names: &[&str], place: &str) -> Result<(), String> {
    let stranger = table.keys().find(|name| !names.contains(&name.as_str()));
    stranger.map_or(Ok(()), |name| Err(unknown("the setting", name, place, names.iter().map(|&name| name.to_owned()))))
}

fn text(table: &toml::Table, name: &str) -> Result<Option<String>, String> {
    match table.get(name) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` is a text in quotes")),
    }
}

fn switch(table: &toml::Table, name: &str) -> Result<bool, String> {
    table.get(name).map_or(Some(false), toml::Value::as_bool).ok_or_else(|| format!("`{name}` is true or false"))
}

impl Settings {
    /// M-70: the secret that everybody knows proves nothing to others.
    pub(super) fn check_secrets(&self) -> Result<(), String> {
        let is_public = |key: &TokenKey| matches!(&key.source, KeySource::Text(text) if text.expose() == DEVELOPMENT_SECRET);
        let uses_it = self.hub.issuers.iter().flat_map(|issuer| &issuer.keys).any(is_public);
        if uses_it && !self.listen.ip().is_loopback() {
            return Err(format!(
                "refusing to listen on {} with the secret of the documentation, which everybody knows: anybody could make tokens\n  \
                 make one of your own with `openssl rand -base64 48`, or listen on 127.0.0.1",
                self.listen
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, SETTINGS, resolve};

    const SECRET: &str = "a secret that is thirty-two bytes long";

    fn file(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidings.toml");
        fs::write(&path, text).unwrap();
        resolve(Given::default(), std::iter::empty(), Some(&path))
    }

    fn env(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        resolve(Given::default(), pairs.into_iter(), None)
    }

    /// M-70, M-71: several issuers in the file, each with its keys.
    #[test]
    fn issuers_in_the_file() {
        let settings = file(&format!(
            "public_url = 'https://hub.example'\n\
             [[issuer]]\nid = 'https://one.example'\nauthorization_server = true\n\
             [[issuer.key]]\nkey = '{SECRET}'\nroles = 'publish'\nkid = 'k'\n\
             [[issuer.key]]\njwks_url = 'https://one.example/keys'\nalgorithms = ['RS256', 'ES256']\nroles = 'subscribe'\n\
             [[issuer]]\n[[issuer.key]]\nkey = '{SECRET}'\nalgorithms = 'HS512'\nlegacy = true\n"
        ))
        .unwrap();
        let [one, nameless] = &settings.hub.issuers[..] else { panic!() };
        assert_eq!((one.id.as_deref(), one.authorization_server, one.keys.len()), (Some("https://one.example"), true, 2));
        assert_eq!((one.keys[0].publish, one.keys[0].subscribe, one.keys[0].kid.as_deref()), (true, false, Some("k")));
        assert_eq!(one.keys[1].source, KeySource::SetUrl { url: "https://one.example/keys".into(), insecure: false });
        assert_eq!(one.keys[1].algorithms, [Algorithm::Rs256, Algorithm::Es256]);
        assert_eq!(
            (nameless.id.as_deref(), nameless.keys[0].legacy, &nameless.keys[0].algorithms[..]),
            (None, true, &[Algorithm::Hs512][..])
        );
        for (text, complaint) in [
            ("issuer = 'x'", "begins with [[issuer]]"),
            ("[issuer]\nid = 'x'", "begins with [[issuer]]"),
            ("[[issuer]]\nid = 'x'", "[[issuer]] \"x\" in"),
            ("[[issuer]]\nid = 'x'", "has no keys"),
            ("[[issuer]]\nname = 'x'", "`name` of an [[issuer]] in"),
            ("[[issuer]]\nid = 1", "`id` is a text"),
            ("[[issuer]]\n[[issuer.key]]\nsecret = 'x'", "`secret` of a key of [[issuer]] without an id"),
            ("[[issuer]]\n[[issuer.key]]\nkid = 'x'", "give one of key, key_file"),
            ("[[issuer]]\n[[issuer.key]]\nkey = 'x'\nkey_file = 'y'", "give one of key, key_file"),
            ("[[issuer]]\n[[issuer.key]]\nkey_file = '/does/not/exist'", "cannot read the key in /does/not/exist"),
            ("[[issuer]]\n[[issuer.key]]\nkey = 'x'\nroles = 'all'", "`roles` is publish, subscribe or both"),
            ("[[issuer]]\n[[issuer.key]]\nkey = 'x'\nalgorithms = ['none']", "`none` is not an algorithm"),
            ("[[issuer]]\n[[issuer.key]]\nkey = 'x'\nlegacy = 1", "`legacy` is true or false"),
        ] {
            let got = file(text);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint)), "{text}: {got:?}");
        }
    }

    /// N-41: one issuer from the environment; with legacy tokens its keys verify those that name no issuer, too.
    #[test]
    fn one_issuer_in_the_environment() {
        let publisher = ("TIDINGS_PUBLISHER_TOKEN_KEY", SECRET);
        let settings = env(&[publisher, ("TIDINGS_TOKEN_ISSUER", "https://one.example"), ("TIDINGS_LEGACY_TOKENS", "true")]).unwrap();
        let [named, nameless] = &settings.hub.issuers[..] else { panic!() };
        assert_eq!((named.id.as_deref(), nameless.id.as_deref(), &named.keys), (Some("https://one.example"), None, &nameless.keys));
        assert!(named.keys[0].publish && !named.keys[0].subscribe && named.keys[0].legacy && !settings.is_open());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, format!("{SECRET}\n")).unwrap();
        let settings = env(&[("TIDINGS_TOKEN_KEY_FILE", path.to_str().unwrap()), ("TIDINGS_LEGACY_TOKENS", "true")]).unwrap();
        assert_eq!(settings.hub.issuers[0].keys[0].source, KeySource::Text(SECRET.into()));
        for (pairs, complaint) in [
            (&[publisher][..], "set token-issuer"),
            (&[("TIDINGS_TOKEN_ISSUER", "x")], "needs keys"),
            (&[("TIDINGS_LEGACY_TOKENS", "true")], "needs keys"),
            (&[("TIDINGS_TOKEN_ALGORITHMS", "HS1024")], "`HS1024` is not an algorithm"),
        ] {
            let got = env(pairs);
            assert!(got.as_ref().is_err_and(|why| why.contains(complaint) && !why.contains(SECRET)), "{pairs:?}: {got:?}");
        }
        assert!(!format!("{settings:?}{:?}", settings.hub).contains(SECRET));
        assert!(SETTINGS.iter().any(|setting| setting.name == "token-jwks-url"));
    }

    /// M-70: the secret of the documentation is for loopback only.
    #[test]
    fn the_secret_that_everybody_knows() {
        let with =
            |listen| env(&[("TIDINGS_TOKEN_KEY", DEVELOPMENT_SECRET), ("TIDINGS_LEGACY_TOKENS", "true"), ("TIDINGS_LISTEN", listen)]);
        assert!(with("127.0.0.1:0").is_ok() && with("[::1]:0").is_ok());
        assert!(with("0.0.0.0:0").is_err_and(|why| why.contains("which everybody knows")));
    }
}
