//! One key that verifies signatures: read from a secret, a PEM text or a JWK, for one family of algorithms (M-69, M-70).
//!
//! It knows keys and signatures, not whose they are. The cryptography is `aws-lc-rs`; what a key is not fit for is refused when it is read.

use super::strict;
use crate::{Algorithm, Family};
use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use std::fmt;
use tidings_core::limits;

/// A key, ready for each algorithm it may be used with.
pub(super) struct VerifyingKey {
    kid: Option<Box<str>>,
    checks: Vec<(Algorithm, Check)>,
}

enum Check {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Bits of an RSA key, by what is called safe and what a check may cost.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

impl VerifyingKey {
    /// A secret or a PEM text. Without algorithms a secret is one for HS256 (M-70).
    pub(super) fn from_text(text: &str, algorithms: &[Algorithm], kid: Option<&str>) -> Result<Self, String> {
        let is_pem = text.trim_start().starts_with("-----BEGIN");
        let family = match algorithms {
            [] if is_pem => return Err("this is a key in PEM; name its algorithm, as in RS256, ES256 or EdDSA".into()),
            [] => Family::Hmac,
            [first, rest @ ..] => {
                let family = first.family();
                if rest.iter().any(|algorithm| algorithm.family() != family) {
                    return Err("a key serves algorithms of one family; give the others keys of their own".into());
                }
                family
            }
        };
        let algorithms = if algorithms.is_empty() { &[Algorithm::Hs256] } else { algorithms };
        let checks = match (family, is_pem) {
            (Family::Hmac, true) => {
                return Err("a key in PEM is not a secret: anybody who has the public key could sign with it; \
                            name its own algorithm, as in RS256, ES256 or EdDSA"
                    .into());
            }
            (Family::Hmac, false) => secret(text.as_bytes(), algorithms)?,
            (_, false) => return Err("this algorithm needs a public key in PEM, beginning with -----BEGIN PUBLIC KEY-----".into()),
            (_, true) => {
                let der = public_der(text)?;
                let check = |&algorithm: &Algorithm| public(algorithm, &der).map(|check| (algorithm, check));
                algorithms.iter().map(check).collect::<Result<_, _>>()?
            }
        };
        Ok(VerifyingKey { kid: kid.map(Into::into), checks })
    }

    /// A key of a JWK Set; `None` if it is for something else than signatures with these algorithms (M-411).
    fn from_jwk(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Option<Self>, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let family = match text("kty") {
            Some("oct") => return Err("it holds a shared secret (`kty` `oct`), which no set of public keys has".into()),
            Some("RSA") => Family::Rsa,
            Some("EC") => Family::Ec,
            Some("OKP") => Family::Ed,
            _ => return Ok(None),
        };
        let for_signatures = text("use").is_none_or(|purpose| purpose == "sig");
        let verifies = |ops: &Vec<Value>| ops.iter().any(|op| op == "verify");
        if !for_signatures || !jwk.get("key_ops").and_then(Value::as_array).is_none_or(verifies) {
            return Ok(None);
        }
        let fits = |algorithm: &&Algorithm| algorithm.family() == family && text("alg").is_none_or(|name| name == algorithm.name());
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let checks = allowed.iter().filter(fits).filter_map(|&algorithm| {
            let check = match family {
                Family::Hmac => None,
                Family::Rsa => rsa_components(algorithm, &bytes("n")?, &bytes("e")?),
                Family::Ec => {
                    // Each curve has its algorithm, and so the lengths of both coordinates.
                    let (curve, len) = match algorithm {
                        Algorithm::Es256 => ("P-256", 32),
                        Algorithm::Es384 => ("P-384", 48),
                        _ => ("P-521", 66),
                    };
                    let (x, y) = (bytes("x")?, bytes("y")?);
                    let whole = text("crv") == Some(curve) && x.len() == len && y.len() == len;
                    whole.then(|| public(algorithm, &[&[4], &x[..], &y].concat()).ok()).flatten()
                }
                Family::Ed => (text("crv") == Some("Ed25519")).then(|| public(algorithm, &bytes("x")?).ok()).flatten(),
            };
            check.map(|check| (algorithm, check))
        });
        let checks: Vec<_> = checks.collect();
        Ok((!checks.is_empty()).then(|| VerifyingKey { kid: text("kid").map(Into::into), checks }))
    }

    /// Whether the key may be used with an algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(fitting, _)| *fitting == algorithm)
    }

    /// Whether the key has this name.
    pub(super) fn is_named(&self, kid: &str) -> bool {
        self.kid.as_deref() == Some(kid)
    }

    /// Whether the signature of a message holds.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.checks.iter().any(|(fitting, check)| {
            *fitting == algorithm
                && match check {
                    Check::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
                    Check::Public(key) => key.verify_sig(message, signature).is_ok(),
                }
        })
    }
}

/// The usable keys of a JWK Set: asymmetric, for signatures, with an allowed algorithm (M-411). What else is in it is passed over, but a
/// shared secret or too many keys make the whole of it suspect.
pub(super) fn jwk_set(text: &[u8], allowed: &[Algorithm]) -> Result<Vec<VerifyingKey>, String> {
    let asymmetric: Vec<Algorithm> =
        if allowed.is_empty() { Algorithm::ALL.map(|(_, algorithm)| algorithm).to_vec() } else { allowed.to_vec() };
    let asymmetric: Vec<Algorithm> = asymmetric.into_iter().filter(|algorithm| algorithm.family() != Family::Hmac).collect();
    let set = strict::object(text).map_err(|why| format!("it is no JWK Set: {why}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it is no JWK Set: it has no array `keys`")?;
    if keys.len() > limits::KEY_SET_KEYS {
        return Err(format!("it has {} keys, more than the {} that are taken", keys.len(), limits::KEY_SET_KEYS));
    }
    let mut usable = Vec::new();
    for jwk in keys.iter().filter_map(Value::as_object) {
        usable.extend(VerifyingKey::from_jwk(jwk, &asymmetric)?);
    }
    if usable.is_empty() { Err("it has no key for signatures with an allowed algorithm".into()) } else { Ok(usable) }
}

fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Vec<(Algorithm, Check)>, String> {
    if secret.len() < limits::SECRET_MIN {
        return Err(format!(
            "a secret has at least {} bytes, this one has {}; make one with `openssl rand -base64 48`",
            limits::SECRET_MIN,
            secret.len()
        ));
    }
    let key = |&algorithm: &Algorithm| (algorithm, Check::Hmac(Box::new(hmac::Key::new(hmac_algorithm(algorithm), secret))));
    Ok(algorithms.iter().map(key).collect())
}

pub(super) fn hmac_algorithm(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

/// The key in a PEM text. Line ends written as `\n`, as one-line variables have them, are line ends.
fn public_der(text: &str) -> Result<Vec<u8>, String> {
    let text = text.replace("\\n", "\n");
    let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes())
        .map_err(|_| "this PEM text holds no key; it begins with -----BEGIN PUBLIC KEY-----".to_owned())?;
    match kind {
        SectionKind::PublicKey => Ok(der),
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
            Err("this is a private key, which the hub must not have; give the public one, from `openssl pkey -pubout`".into())
        }
        SectionKind::Certificate => Err("this is a certificate; give its public key, from `openssl x509 -noout -pubkey`".into()),
        _ => Err("this PEM text is not a public key; it begins with -----BEGIN PUBLIC KEY-----".into()),
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// A public key: `SubjectPublicKeyInfo`, or the bare point of a curve.
fn public(algorithm: Algorithm, key: &[u8]) -> Result<Check, String> {
    let verification: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::EdDsa => &signature::ED25519,
        other => rsa_parameters(other).ok_or("this algorithm has no public key")?,
    };
    let parsed = ParsedPublicKey::new(verification, key)
        .map_err(|_| format!("this key is not one for {}; look which algorithm it was made for", algorithm.name()))?;
    // The library looks at the length only when it verifies; the key is longer than its modulus by some thirty bytes.
    if algorithm.family() == Family::Rsa && key.len() < RSA_BITS.start() / 8 {
        return Err(format!("an RSA key has at least {} bits", RSA_BITS.start()));
    }
    Ok(Check::Public(parsed))
}

fn rsa_components(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Check> {
    let bare = |number: &[u8]| number.iter().position(|&b| b != 0).map(|start| number[start..].to_vec());
    let (n, e) = (bare(n)?, bare(e)?);
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    let fits = RSA_BITS.contains(&bits) && e.len() <= 8;
    let key = fits.then(|| RsaPublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?).ok());
    key.flatten().map(Check::Public)
}

/// Keys are secrets, or long.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.checks.iter().map(|(algorithm, _)| algorithm.name()).collect();
        f.debug_struct("VerifyingKey").field("kid", &self.kid).field("algorithms", &algorithms).finish_non_exhaustive()
    }
}
