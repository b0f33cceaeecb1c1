//! Tokens: no bytes panic the hub, none that its keys did not sign are accepted, and none that are signed are accepted after their end or
//! for what they do not grant.
//!
//! It knows tokens as text and as claims to sign, not requests.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};
use tidings::{
    Algorithm, Config, Issuer, KeySource, Secret, TokenKey,
    token::{Question, SigningKey, decode, explain},
};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// Bytes as anybody may send them.
    Text(&'a str),
    /// Three parts, of which nobody signed anything.
    Parts(&'a str, &'a str, &'a str),
    /// Members of the header and claims that a trusted issuer signed, laid over good ones.
    Signed { eight: bool, publish: bool, header: &'a str, claims: &'a str, topic: &'a str },
}

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "a secret of more than thirty-two bytes";

fn hub() -> Config {
    let mut key = TokenKey::new(KeySource::Text(SECRET.into()));
    key.legacy = true;
    let mut issuer = Issuer::new(Some("issuer".into()));
    issuer.keys = vec![key];
    let mut config = Config::default();
    (config.issuers, config.resource) = (vec![issuer], Some("hub".into()));
    config
}

/// Nothing is fetched here, so nothing is waited for.
fn status(token: &str, question: &Question) -> u16 {
    let config = hub();
    let mut asking = pin!(explain(&config, token, question));
    match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(explanation) => explanation.expect("the settings are good").status,
        Poll::Pending => panic!("it waits"),
    }
}

fn over(mut base: Map<String, Value>, text: &str) -> Map<String, Value> {
    if let Ok(Value::Object(members)) = serde_json::from_str(text) {
        base.extend(members);
    }
    base
}

fuzz_target!(|input: Input<'_>| {
    let ask = |publish, topic: &str| Question::new(publish, vec![topic.to_owned()], NOW * 1_000);
    match input {
        Input::Text(text) => {
            let _ = decode(text);
            assert_ne!(status(text, &ask(true, "a")), 200);
        }
        Input::Parts(header, claims, signature) => {
            let part = |text: &str| base64(text.as_bytes());
            assert_ne!(status(&format!("{}.{}.{}", part(header), part(claims), part(signature)), &ask(true, "a")), 200);
        }
        Input::Signed { eight, publish, header, claims, topic } => {
            let base = json!({ "alg": "HS256", "typ": if eight { "at+jwt" } else { "JWT" } });
            let header = over(base.as_object().unwrap().clone(), header);
            let detail =
                json!({ "type": "https://mercure.rocks/authorization-detail", "actions": ["publish"], "topics": [{ "match": "a" }] });
            let base = json!({ "iss": "issuer", "aud": "hub", "exp": NOW + 60, "authorization_details": [detail], "mercure": { "publish": ["a"] } });
            let claims = over(base.as_object().unwrap().clone(), claims);
            let key = SigningKey::new(&Secret::from(SECRET), Algorithm::Hs256).unwrap();
            let token = key.sign(header, &claims).unwrap();
            let status = status(&token, &ask(publish, topic));
            let ended = claims.get("exp").and_then(Value::as_f64).is_some_and(|end| end <= NOW as f64);
            assert!(status != 200 || !ended, "{claims:?}");
            let granted = topic == "a"
                || claims.get("mercure") != base.get("mercure")
                || claims.get("authorization_details") != base.get("authorization_details");
            assert!(status != 200 || !publish || granted, "{topic:?} {claims:?}");
        }
    }
});

/// Base64url without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|at| char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize])));
    }
    text
}
