//! Tokens that a load brings: one for each subscriber and one for all publishers, read from a file or made here.
//!
//! It knows header lines and claims of today's Mercure clients; who checks them is the server's to know.

use crate::{Failure, settings};
use serde_json::{Map, Value, json};
use std::{
    fmt, fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tidings::{Algorithm, token::SigningKey};

/// Longer than any run.
const VALID: Duration = Duration::from_hours(24);

/// Where tokens come from.
#[derive(Clone, Default)]
pub(super) struct Tokens {
    of: Of,
    /// The header line of publishes, with its end; empty without tokens.
    publishers: String,
}

#[derive(Clone, Default)]
enum Of {
    #[default]
    Nobody,
    /// The first subscriber has the first of them, and so on, and again.
    Lines(Arc<[String]>),
    /// What each may receive, with `{i}` for its number.
    Minted(Arc<SigningKey>, String),
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn line(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

impl Tokens {
    /// One a line, for the subscribers only: a publisher's can be given as a header field.
    pub(super) fn read(file: &Path) -> Result<Tokens, Failure> {
        let text = fs::read_to_string(file).map_err(|error| Failure::Usage(format!("--tokens: {}: {error}", file.display())))?;
        let lines: Arc<[String]> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(line).collect();
        if lines.is_empty() {
            return Err(Failure::Usage(format!("--tokens: {} has no token; write one a line", file.display())));
        }
        Ok(Tokens { of: Of::Lines(lines), publishers: String::new() })
    }

    /// To be signed with a key: publishers may publish everything, subscribers may receive what the grant says.
    pub(super) fn minted(key: &Path, algorithm: Algorithm, grant: &str) -> Result<Tokens, Failure> {
        let usage = |why: String| Failure::Usage(format!("--token-key: {}: {why}", key.display()));
        let key = SigningKey::new(&settings::read_key(key).map_err(usage)?, algorithm).map_err(usage)?;
        let publishers = mint(&key, "publisher", &json!({"publish": ["*"]})).map_err(usage)?;
        Ok(Tokens { of: Of::Minted(Arc::new(key), grant.to_owned()), publishers })
    }

    pub(super) fn of_publishers(&self) -> &str {
        &self.publishers
    }

    /// The header lines of so many subscribers from a number on; none without tokens. To sign them takes a while.
    pub(super) fn of_subscribers(&self, first: usize, count: usize) -> Result<Vec<String>, Failure> {
        let numbers = first..first + count;
        match &self.of {
            Of::Nobody => Ok(Vec::new()),
            Of::Lines(lines) => Ok(numbers.map(|number| lines[number % lines.len()].clone()).collect()),
            Of::Minted(key, grant) => {
                let minted = numbers.map(|number| {
                    let grant = grant.replace("{i}", &number.to_string());
                    mint(key, &number.to_string(), &json!({"subscribe": [grant]}))
                });
                minted.collect::<Result<_, _>>().map_err(|why| Failure::Running(format!("cannot make tokens: {why}")))
            }
        }
    }
}

fn mint(key: &SigningKey, subject: &str, grants: &Value) -> Result<String, String> {
    let until = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| (now + VALID).as_secs());
    let (mut header, mut claims) = (Map::new(), Map::new());
    header.insert("typ".into(), "JWT".into());
    claims.insert("sub".into(), subject.into());
    claims.insert("exp".into(), until.into());
    claims.insert("mercure".into(), grants.clone());
    key.sign(header, &claims).map(|token| line(&token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn lines_go_round() {
        let tokens = Tokens::read(file("a\n\n b \n").path()).unwrap();
        let lines = tokens.of_subscribers(1, 2).unwrap();
        assert_eq!(lines, ["authorization: Bearer b\r\n", "authorization: Bearer a\r\n"]);
        assert_eq!(tokens.of_publishers(), "");
        assert!(Tokens::read(file("\n").path()).is_err());
    }

    #[test]
    fn everybody_has_a_token_of_its_own() {
        let key = file("0123456789abcdef0123456789abcdef");
        let tokens = Tokens::minted(key.path(), Algorithm::Hs256, "chat/{i}").unwrap();
        let lines = tokens.of_subscribers(7, 2).unwrap();
        let claims = |line: &str| tidings::token::decode(line.trim_start_matches("authorization: Bearer ").trim()).unwrap().1;
        assert_eq!(claims(&lines[1])["sub"], "8");
        assert_eq!(claims(&lines[1])["mercure"], json!({"subscribe": ["chat/8"]}));
        assert_eq!(claims(tokens.of_publishers())["mercure"], json!({"publish": ["*"]}));
        assert!(Tokens::default().of_subscribers(0, 9).unwrap().is_empty());
    }
}
