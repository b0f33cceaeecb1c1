//! Who may issue tokens, and with which keys: the settings as they are written, before any key is read (M-70, M-71).
//!
//! It knows what can be said about an issuer, not what a key's bytes mean.

use super::Secret;
use std::{path::PathBuf, str::FromStr};

/// An issuer of tokens. Its keys verify its own tokens and nobody else's (M-71).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Issuer {
    /// The claim `iss` of its tokens, compared byte for byte (M-74). `None`: an issuer without a name, whose keys verify tokens of dialect 7
    /// only and must allow legacy claims.
    pub id: Option<String>,
    /// Its keys.
    pub keys: Vec<TokenKey>,
    /// Whether the hub's metadata names it as an authorization server (M-12).
    pub authorization_server: bool,
}

impl Issuer {
    /// An issuer without keys.
    pub fn new(id: Option<String>) -> Self {
        Issuer { id, keys: Vec::new(), authorization_server: false }
    }
}

/// A key, or a set of keys, and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TokenKey {
    /// Where it is.
    pub source: KeySource,
    /// What it may verify; one family for a single key. Empty: HS256 for a secret, all asymmetric algorithms for a set (M-70).
    pub algorithms: Vec<Algorithm>,
    /// Whether it verifies tokens of publishers.
    pub publish: bool,
    /// Whether it verifies tokens of subscribers.
    pub subscribe: bool,
    /// Whether it also verifies tokens of dialect 7, by their claim `mercure` (M-402).
    pub legacy: bool,
    /// Its name; a token's `kid` only decides which key is tried first.
    pub kid: Option<String>,
}

impl TokenKey {
    /// A key for both roles that verifies tokens of dialect 8 only.
    pub fn new(source: KeySource) -> Self {
        TokenKey { source, algorithms: Vec::new(), publish: true, subscribe: true, legacy: false, kid: None }
    }
}

/// Where a key is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A secret of at least 32 bytes for HS256 and its kind, or a public key as PEM.
    Text(Secret),
    /// A file with a JWK Set, read once at the start (M-325).
    SetFile(PathBuf),
    /// The URL of a JWK Set (M-411): `https`, or any on loopback.
    SetUrl {
        /// The URL.
        url: String,
        /// Whether `http` is allowed on any address.
        insecure: bool,
    },
}

/// The signature algorithms of tokens (M-69).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA, PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA, PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA, PSS with SHA-256.
    Ps256,
    /// RSA, PSS with SHA-384.
    Ps384,
    /// RSA, PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

/// Algorithms that one key can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Family {
    /// A shared secret.
    Hmac,
    /// An RSA key.
    Rsa,
    /// A key on one of the NIST curves.
    Ec,
    /// A key on the curve Ed25519.
    Ed,
}

impl Algorithm {
    /// All of them, by the names that tokens use.
    pub const ALL: [(&'static str, Algorithm); 13] = [
        ("HS256", Algorithm::Hs256),
        ("HS384", Algorithm::Hs384),
        ("HS512", Algorithm::Hs512),
        ("RS256", Algorithm::Rs256),
        ("RS384", Algorithm::Rs384),
        ("RS512", Algorithm::Rs512),
        ("PS256", Algorithm::Ps256),
        ("PS384", Algorithm::Ps384),
        ("PS512", Algorithm::Ps512),
        ("ES256", Algorithm::Es256),
        ("ES384", Algorithm::Es384),
        ("ES512", Algorithm::Es512),
        ("EdDSA", Algorithm::EdDsa),
    ];

    /// The name that tokens use.
    pub fn name(self) -> &'static str {
        Algorithm::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }

    /// Which kind of key it needs.
    pub fn family(self) -> Family {
        use Algorithm as A;
        match self {
            A::Hs256 | A::Hs384 | A::Hs512 => Family::Hmac,
            A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512 => Family::Rsa,
            A::Es256 | A::Es384 | A::Es512 => Family::Ec,
            A::EdDsa => Family::Ed,
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    /// By its exact name; `none` is not one (M-69).
    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Algorithm::ALL.map(|(name, _)| name).join(", ");
        Algorithm::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| format!("`{name}` is not an algorithm that tokens can be verified with; there are {}", known()))
    }
}
