//! Keys and tokens of the suite: every claim and header can be set, left out or spoilt before it is signed.
//!
//! It signs and never verifies. It knows the shapes of both dialects' tokens, not what a hub makes of them.

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    rsa,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

/// The value of `type` that concerns a hub in `authorization_details` (M-75).
pub(crate) const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";

/// A key that signs tokens.
#[derive(Clone)]
pub struct Key {
    algorithm: String,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(Arc<[u8]>),
    Rsa(Arc<rsa::KeyPair>),
    P256(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm)
    }
}

impl Key {
    /// `HS256`, `HS384` and `HS512` take the secret itself; `RS256`, `ES256` and `EdDSA` a private key as PKCS #8 in PEM.
    pub fn parse(algorithm: &str, text: &str) -> Result<Key, String> {
        let said = |error: aws_lc_rs::error::KeyRejected| format!("this is no private key for {algorithm}: {error}");
        let material = match algorithm {
            "HS256" | "HS384" | "HS512" => Material::Secret(text.as_bytes().into()),
            "RS256" => Material::Rsa(Arc::new(rsa::KeyPair::from_pkcs8(&der(text)?).map_err(said)?)),
            "ES256" => {
                let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der(text)?);
                Material::P256(Arc::new(pair.map_err(said)?))
            }
            "EdDSA" => Material::Ed25519(Arc::new(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(text)?).map_err(said)?)),
            other => return Err(format!("the suite signs with HS256, HS384, HS512, RS256, ES256 and EdDSA, not with {other}")),
        };
        Ok(Key { algorithm: algorithm.into(), material })
    }

    /// A fresh key pair for `RS256`, `ES256` or `EdDSA`; its public half is what a hub is configured with.
    pub fn generate(algorithm: &str) -> Result<Key, String> {
        let random = SystemRandom::new();
        let no_randomness = |_| "no randomness".to_owned();
        let rejected = |error: aws_lc_rs::error::KeyRejected| error.to_string();
        let material = match algorithm {
            "RS256" => Material::Rsa(Arc::new(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(no_randomness)?)),
            "ES256" => {
                let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                let document = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(no_randomness)?;
                Material::P256(Arc::new(EcdsaKeyPair::from_pkcs8(kind, document.as_ref()).map_err(rejected)?))
            }
            "EdDSA" => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).map_err(no_randomness)?;
                Material::Ed25519(Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(rejected)?))
            }
            other => return Err(format!("there are no key pairs for {other}")),
        };
        Ok(Key { algorithm: algorithm.into(), material })
    }

    /// A fresh key on the curve of `ES256` that no hub knows.
    pub(crate) fn stranger() -> Key {
        Key::generate("ES256").expect("randomness")
    }

    /// A secret of the suite's own that no hub knows.
    pub(crate) fn secret(text: &str) -> Key {
        Key { algorithm: "HS256".into(), material: Material::Secret(text.as_bytes().into()) }
    }

    /// Its name as tokens say it.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The public half in the form that configurations hold; `None` for a secret.
    pub fn public_pem(&self) -> Option<String> {
        // SubjectPublicKeyInfo up to the key itself, as RFC 8017, RFC 5480 and RFC 8410 give it.
        let info = match &self.material {
            Material::Secret(_) => return None,
            Material::Rsa(pair) => {
                let algorithm = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
                let bits = tagged(0x03, &[&[0], pair.public_key().as_ref()].concat());
                tagged(0x30, &[&algorithm[..], &bits].concat())
            }
            Material::P256(pair) => {
                let algorithm = [
                    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
                    0x07,
                ];
                let bits = tagged(0x03, &[&[0], pair.public_key().as_ref()].concat());
                tagged(0x30, &[&algorithm[..], &bits].concat())
            }
            Material::Ed25519(pair) => {
                let bits = tagged(0x03, &[&[0], pair.public_key().as_ref()].concat());
                tagged(0x30, &[&[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70][..], &bits].concat())
            }
        };
        let text = STANDARD.encode(info);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
        Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }

    /// Signs as this key's own algorithm does.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Secret(secret) => {
                let kind = match self.algorithm.as_str() {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(kind, secret), message).as_ref().to_vec()
            }
            Material::Rsa(pair) => {
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signed).expect("a key of enough bits");
                signed
            }
            Material::P256(pair) => pair.sign(&random, message).expect("randomness").as_ref().to_vec(),
            Material::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A DER value.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=127 => vec![tag, length as u8],
        128..=255 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head.as_slice(), content].concat()
}

fn der(pem: &str) -> Result<Vec<u8>, String> {
    let body: String = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).map_err(|error| format!("a private key is expected as PKCS #8 in PEM: {error}"))
}

/// A token before it is signed.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

impl Token {
    /// Signed with the key; its algorithm is named unless the header names one already.
    pub(crate) fn signed(&self, key: &Key) -> String {
        let mut header = self.header.clone();
        if header.get("alg").is_none() {
            header["alg"] = json!(key.algorithm);
        }
        let message = message(&header, &self.claims);
        format!("{message}.{}", encode(&key.sign(message.as_bytes())))
    }

    /// With an empty signature, whatever the header says.
    pub(crate) fn unsigned(&self) -> String {
        format!("{}.", message(&self.header, &self.claims))
    }

    pub(crate) fn header(mut self, name: &str, value: Value) -> Token {
        self.header[name] = value;
        self
    }

    pub(crate) fn claim(mut self, name: &str, value: Value) -> Token {
        self.claims[name] = value;
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Token {
        for part in [&mut self.header, &mut self.claims] {
            part.as_object_mut().map(|members| members.remove(name));
        }
        self
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

/// Base64 as JWS writes it.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Hexadecimal digits that nobody has seen before.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("randomness");
    format!("{:016x}", u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::UnparsedPublicKey;

    #[test]
    fn tokens_carry_what_they_were_given() {
        let token = Token { header: json!({"typ": "JWT"}), claims: json!({"a": 1, "b": 2}) };
        let text = token.clone().without("b").claim("c", json!([null])).signed(&Key::secret("s"));
        let parts: Vec<Vec<u8>> = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts[0], br#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(parts[1], br#"{"a":1,"c":[null]}"#);
        assert_eq!(parts[2].len(), 32);
        let unsigned = token.header("alg", json!("none")).unsigned();
        assert!(unsigned.ends_with('.') && unsigned.matches('.').count() == 2);
    }

    /// The public half that a configuration would hold verifies what the private half signed.
    #[test]
    fn a_stranger_signs_with_the_key_it_shows() {
        let key = Key::stranger();
        let info = der(&key.public_pem().unwrap()).unwrap();
        let point = &info[info.len() - 65..];
        UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(b"m", &key.sign(b"m")).unwrap();
        assert_eq!(info.len(), 91);
    }
}
