//! Making tokens: a private key or secret, and the signing of claims, for tests, tools and the command line.
//!
//! It knows signatures, not what claims mean; a hub never signs.

use super::key::hmac_algorithm;
use crate::{Algorithm, Family, Secret};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use std::fmt;
use tidings_core::limits;

/// The header and the claims of a token, neither of them verified: nothing in there may be believed.
pub fn decode(token: &str) -> Result<(Value, Value), String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else {
        return Err(format!("a token has three parts with dots between them, this has {}", parts.len()));
    };
    let part = |name: &str, text: &str| -> Result<Value, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("the {name} is not base64url"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("the {name} is not JSON: {error}"))
    };
    Ok((part("header", header)?, part("claims", claims)?))
}

/// A key that signs tokens with one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    /// A secret of at least 32 bytes, or a private key as PEM (`PRIVATE KEY`, `RSA PRIVATE KEY`, `EC PRIVATE KEY`). The error says what
    /// to change, and holds nothing of the key.
    pub fn new(text: &Secret, algorithm: Algorithm) -> Result<Self, String> {
        let text = text.expose();
        let is_pem = text.trim_start().starts_with("-----BEGIN");
        let key = match (algorithm.family(), is_pem) {
            (Family::Hmac, true) => return Err(format!("a key in PEM is not a secret for {}; name its own algorithm", algorithm.name())),
            (Family::Hmac, false) if text.len() < limits::SECRET_MIN => {
                return Err(format!("a secret has at least {} bytes, this one has {}", limits::SECRET_MIN, text.len()));
            }
            (Family::Hmac, false) => Key::Hmac(Box::new(hmac::Key::new(hmac_algorithm(algorithm), text.as_bytes()))),
            (_, false) => return Err(format!("{} needs a private key in PEM", algorithm.name())),
            (family, true) => {
                let text = text.replace("\\n", "\n");
                let (kind, der) =
                    <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()).map_err(|_| "this PEM text holds no key".to_owned())?;
                if !matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) {
                    return Err("this PEM text is not a private key, which signing needs".into());
                }
                private(family, algorithm, &der)
                    .ok_or_else(|| format!("this key is not one for {}; look which algorithm it was made for", algorithm.name()))?
            }
        };
        Ok(SigningKey { algorithm, key })
    }

    /// The token with this header and these claims, as compact JWS; `alg` is set to the key's.
    pub fn sign(&self, mut header: Map<String, Value>, claims: &Map<String, Value>) -> Result<String, String> {
        header.insert("alg".into(), self.algorithm.name().into());
        let part = |object: &Map<String, Value>| {
            serde_json::to_vec(object).map(|text| URL_SAFE_NO_PAD.encode(text)).map_err(|error| error.to_string())
        };
        let signed = format!("{}.{}", part(&header)?, part(claims)?);
        let signature = self.signature(signed.as_bytes()).ok_or("the key does not sign; it may be damaged")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Key::Rsa(key) => {
                let encoding: &'static dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Key::Ec(key) => key.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec()),
            Key::Ed(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn private(family: Family, algorithm: Algorithm, der: &[u8]) -> Option<Key> {
    match family {
        Family::Hmac => None,
        Family::Rsa => RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok().map(Key::Rsa),
        Family::Ec => {
            let curve = match algorithm {
                Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            };
            EcdsaKeyPair::from_pkcs8(curve, der).or_else(|_| EcdsaKeyPair::from_private_key_der(curve, der)).ok().map(Key::Ec)
        }
        Family::Ed => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Key::Ed),
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
