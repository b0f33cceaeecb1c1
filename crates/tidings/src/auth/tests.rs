//! Tokens as requests present them: which rights they give, and by which rule they are refused.
//!
//! One function mints, one asks; the tables say the rest. Parts are tested where they are.

use super::{cache::Cache, *};
use crate::{Algorithm, Issuer, KeySource, Secret, TokenKey};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tidings_core::{Topic, limits};

const NOW: u64 = 1_800_000_000_000;
const RESOURCE: &str = "https://hub.example/.well-known/mercure";
const PUBLISHER: &str = "the secret of publishers, long enough";
const SUBSCRIBER: &str = "the secret of subscribers, long enough";
const STRANGER: &str = "a secret that nobody configured, long";

/// A private key and its public one, as PEM.
struct Pair {
    private: String,
    public: String,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn pair<'a>(private: &[u8], public: &impl AsDer<PublicKeyX509Der<'a>>) -> Pair {
    let public: PublicKeyX509Der<'a> = public.as_der().unwrap();
    Pair { private: pem("PRIVATE KEY", private), public: pem("PUBLIC KEY", public.as_ref()) }
}

fn ec_pair(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Pair {
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap();
    pair(document.as_ref(), key.public_key())
}

fn rsa_pair(size: KeySize) -> Pair {
    let key = RsaKeyPair::generate(size).unwrap();
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    pair(private.as_ref(), key.public_key())
}

static RSA: LazyLock<Pair> = LazyLock::new(|| rsa_pair(KeySize::Rsa2048));
static P256: LazyLock<Pair> = LazyLock::new(|| ec_pair(&signature::ECDSA_P256_SHA256_FIXED_SIGNING));
static P384: LazyLock<Pair> = LazyLock::new(|| ec_pair(&signature::ECDSA_P384_SHA384_FIXED_SIGNING));
static P521: LazyLock<Pair> = LazyLock::new(|| ec_pair(&signature::ECDSA_P521_SHA512_FIXED_SIGNING));
static ED: LazyLock<Pair> = LazyLock::new(|| {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    pair(document.as_ref(), Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap().public_key())
});

fn sign(key: &str, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    let key = SigningKey::new(&Secret::from(key), algorithm).unwrap();
    key.sign(header.as_object().unwrap().clone(), claims.as_object().unwrap()).unwrap()
}

/// What a token of dialect 8 says, with some of it changed; `"(absent)"` takes a claim away.
fn claims8(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer.example", "aud": RESOURCE, "exp": NOW / 1_000 + 60, "iat": NOW / 1_000, "sub": "ada",
        "client_id": "app", "jti": "1",
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": ["publish", "subscribe"],
            "topics": [{ "match": "a" }],
            "payload": { "name": "Ada" },
        }],
    });
    for (name, value) in changes.as_object().unwrap() {
        if value == "(absent)" {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn token8(key: &str, changes: &Value) -> String {
    sign(key, Algorithm::Hs256, &json!({ "typ": "at+jwt" }), &claims8(changes))
}

fn token7(key: &str, claims: &Value) -> String {
    sign(key, Algorithm::Hs256, &json!({ "typ": "JWT" }), claims)
}

fn key(text: &str, publish: bool, subscribe: bool, legacy: bool) -> TokenKey {
    TokenKey { publish, subscribe, legacy, ..TokenKey::new(KeySource::Text(text.into())) }
}

fn issuer(id: Option<&str>, keys: Vec<TokenKey>) -> Issuer {
    Issuer { keys, ..Issuer::new(id.map(Into::into)) }
}

/// One issuer with a secret for each role; dialect 7 allowed for both.
fn config() -> Config {
    let keys = vec![key(PUBLISHER, true, false, true), key(SUBSCRIBER, false, true, true)];
    Config { issuers: vec![issuer(Some("https://issuer.example"), keys)], resource: Some(RESOURCE.into()), ..Config::default() }
}

fn guard(config: &Config) -> Result<Guard, BadSetting> {
    Guard::new(config, UrlPatterns::new(RESOURCE, 100).unwrap())
}

fn presented(door: Door, fields: &[String]) -> Presented<'_> {
    Presented { door, authorization: fields.iter().map(String::as_bytes).collect(), cookies: Vec::new(), query: Vec::new() }
}

async fn ask(guard: &Guard, role: Role, token: &str) -> Result<Access, AuthError> {
    guard.access_at(role, &presented(Door::Mercure, &[format!("Bearer {token}")]), NOW).await
}

/// Asks with a publisher's token and says which of the topics `a` and `b` it may publish to, or the rule that refused it.
async fn check(config: &Config, token: &str, expected: Result<&[&str], (&str, Option<Dialect>)>) {
    let guard = guard(config).unwrap();
    let got = ask(&guard, Role::Publish, token).await;
    let topics = |access: Access| -> Vec<&str> {
        ["a", "b"].into_iter().filter(|name| access.grant.may_publish(&[Topic::parse(name).unwrap()])).collect()
    };
    let got = got.map(topics).map_err(|error| (error.rule(), error.dialect));
    assert_eq!(got, expected.map(<[_]>::to_vec), "{token}");
}

/// M-55 ... M-79: everything that may be wrong with a token of dialect 8, each by its rule.
#[tokio::test]
async fn dialect_8() {
    use Dialect::Eight;
    check(&config(), &token8(PUBLISHER, &json!({})), Ok(&["a"])).await;
    for (changes, rule) in [
        (json!({ "iss": "(absent)" }), "M-74"),
        (json!({ "iss": "https://issuer.example/" }), "M-74"),
        (json!({ "iss": ["https://issuer.example"] }), "M-74"),
        (json!({ "iss": null }), "M-74"),
        (json!({ "aud": "(absent)" }), "M-73"),
        (json!({ "aud": "https://other.example" }), "M-73"),
        (json!({ "aud": [RESOURCE, 1] }), "M-73"),
        (json!({ "exp": "(absent)" }), "M-72"),
        (json!({ "exp": NOW / 1_000 }), "M-72"),
        (json!({ "exp": (NOW / 1_000 + 60).to_string() }), "M-72"),
        (json!({ "nbf": NOW / 1_000 + 1 }), "M-72"),
        (json!({ "nbf": "soon" }), "M-72"),
        (json!({ "sub": 1 }), "M-55"),
        (json!({ "authorization_details": "x" }), "M-75"),
        (json!({ "authorization_details": [{ "type": "https://mercure.rocks/authorization-detail" }] }), "M-76"),
    ] {
        check(&config(), &token8(PUBLISHER, &changes), Err((rule, Some(Eight)))).await;
    }
    for (changes, topics) in [
        (json!({ "authorization_details": "(absent)" }), &[][..]),
        (json!({ "exp": NOW as f64 / 1_000.0 + 0.5 }), &["a"]),
        (json!({ "aud": ["x", RESOURCE] }), &["a"]),
        (json!({ "sub": "(absent)", "client_id": "(absent)", "iat": "(absent)", "jti": "(absent)" }), &["a"]),
        // M-402: no fallback, and nothing is taken from the other dialect's claim.
        (json!({ "authorization_details": "(absent)", "mercure": { "publish": ["*"] } }), &[]),
    ] {
        check(&config(), &token8(PUBLISHER, &changes), Ok(topics)).await;
    }
    let good = token8(PUBLISHER, &json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let other = token8(PUBLISHER, &json!({ "sub": "eve" }));
    let none = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let unsigned = none(r#"{"alg":"none","typ":"at+jwt"}"#);
    for (token, rule, dialect) in [
        (token8(SUBSCRIBER, &json!({})), "M-70", Some(Eight)),
        (token8(STRANGER, &json!({})), "M-70", Some(Eight)),
        (format!("{signed}."), "M-70", Some(Eight)),
        (format!("{signed}.{}", &signature[..40]), "M-70", Some(Eight)),
        (format!("{signed}.{}", &signature[..41]), "M-55", Some(Eight)),
        (format!("{signed}.{signature}="), "M-55", Some(Eight)),
        (format!("{signed}.{}", other.rsplit_once('.').unwrap().1), "M-70", Some(Eight)),
        (format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap()), "M-70", Some(Eight)),
        (format!("{unsigned}.{claims}."), "M-69", Some(Eight)),
        (format!("{unsigned}.{claims}.{signature}"), "M-69", Some(Eight)),
        (good[1..].to_owned(), "M-55", None),
        (format!("{good}.x"), "M-55", None),
        ("x".repeat(limits::TOKEN + 1), "M-79", None),
        ("x".repeat(60), "M-55", None),
        ("x".repeat(20), "M-315", None),
    ] {
        check(&config(), &token, Err((rule, dialect))).await;
    }
}

/// M-69, M-70: the header's algorithm must be one the key was configured for; what a token brings along is not looked at.
#[tokio::test]
async fn headers() {
    let with = |algorithm, header: Value| sign(PUBLISHER, algorithm, &header, &claims8(&json!({})));
    for (token, expected) in [
        (with(Algorithm::Hs256, json!({ "typ": "application/AT+JWT" })), Ok(&["a"][..])),
        (with(Algorithm::Hs256, json!({ "typ": "at+jwt", "kid": "unknown" })), Ok(&["a"])),
        (with(Algorithm::Hs256, json!({ "typ": "at+jwt", "jku": "https://evil.example/keys", "jwk": { "kty": "oct" } })), Ok(&["a"])),
        (with(Algorithm::Hs384, json!({ "typ": "at+jwt" })), Err(("M-69", Some(Dialect::Eight)))),
        (with(Algorithm::Hs512, json!({ "typ": "at+jwt" })), Err(("M-69", Some(Dialect::Eight)))),
        (with(Algorithm::Hs256, json!({ "typ": "at+jwt", "crit": ["b64"], "b64": false })), Err(("M-70", Some(Dialect::Eight)))),
        (with(Algorithm::Hs256, json!({ "typ": "at+jwt", "kid": 1 })), Err(("M-55", Some(Dialect::Eight)))),
    ] {
        check(&config(), &token, expected).await;
    }
    // A public key is no secret: the hub refuses HS256 with a key configured for RS256, and does not take the PEM for a secret.
    let rsa = TokenKey { algorithms: vec![Algorithm::Rs256], ..key(&RSA.public, true, true, false) };
    let config = Config { issuers: vec![issuer(Some("https://issuer.example"), vec![rsa])], ..config() };
    // The signing key refuses a PEM as a secret too, so the attacker's signature is made by hand.
    let signed = token8(PUBLISHER, &json!({})).rsplit_once('.').unwrap().0.to_owned();
    let mac = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, RSA.public.as_bytes()), signed.as_bytes());
    let confused = format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.as_ref()));
    check(&config, &confused, Err(("M-69", Some(Dialect::Eight)))).await;
    let genuine = sign(&RSA.private, Algorithm::Rs256, &json!({ "typ": "at+jwt" }), &claims8(&json!({})));
    check(&config, &genuine, Ok(&["a"])).await;
    let pss = sign(&RSA.private, Algorithm::Ps256, &json!({ "typ": "at+jwt" }), &claims8(&json!({})));
    check(&config, &pss, Err(("M-69", Some(Dialect::Eight)))).await;
}

/// M-69, M-325: every algorithm, with a key of its own and with nobody else's.
#[tokio::test]
async fn algorithms() {
    let pairs: [(&[Algorithm], &Pair); 5] = [
        (&[Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512], &RSA),
        (&[Algorithm::Es256], &P256),
        (&[Algorithm::Es384], &P384),
        (&[Algorithm::Es512], &P521),
        (&[Algorithm::EdDsa], &ED),
    ];
    for (algorithms, pair) in pairs {
        let own = TokenKey { algorithms: algorithms.to_vec(), ..key(&pair.public.replace('\n', "\\n"), true, true, false) };
        let config = Config { issuers: vec![issuer(Some("https://issuer.example"), vec![own])], ..config() };
        for &algorithm in algorithms {
            let token = sign(&pair.private, algorithm, &json!({ "typ": "at+jwt" }), &claims8(&json!({})));
            check(&config, &token, Ok(&["a"])).await;
        }
        for (others, other) in pairs.iter().filter(|(others, _)| others[0] != algorithms[0]) {
            let token = sign(&other.private, others[0], &json!({ "typ": "at+jwt" }), &claims8(&json!({})));
            check(&config, &token, Err(("M-69", Some(Dialect::Eight)))).await;
        }
    }
    let stranger = ec_pair(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let own = TokenKey { algorithms: vec![Algorithm::Es256], ..key(&P256.public, true, true, false) };
    let config = Config { issuers: vec![issuer(Some("https://issuer.example"), vec![own])], ..config() };
    let token = sign(&stranger.private, Algorithm::Es256, &json!({ "typ": "at+jwt" }), &claims8(&json!({})));
    check(&config, &token, Err(("M-70", Some(Dialect::Eight)))).await;
}

/// M-205 ... M-210, M-402: tokens of dialect 7, and the keys that must allow them.
#[tokio::test]
async fn dialect_7() {
    use Dialect::Seven;
    let claim = json!({ "mercure": { "publish": ["a"] } });
    check(&config(), &token7(PUBLISHER, &claim), Ok(&["a"])).await;
    check(&config(), &sign(PUBLISHER, Algorithm::Hs256, &json!({}), &claim), Ok(&["a"])).await;
    check(&config(), &token7(PUBLISHER, &json!({})), Ok(&[])).await;
    check(&config(), &token7(PUBLISHER, &json!({ "mercure": { "publish": ["*"] } })), Ok(&["a", "b"])).await;
    check(&config(), &token7(PUBLISHER, &json!({ "mercure": { "publish": "a" } })), Err(("M-207", Some(Seven)))).await;
    check(&config(), &token7(PUBLISHER, &json!({ "mercure": { "publish": ["a"] }, "exp": 5 })), Err(("M-72", Some(Seven)))).await;
    check(&config(), &token7(SUBSCRIBER, &claim), Err(("M-70", Some(Seven)))).await;
    check(&config(), &token7(PUBLISHER, &json!({ "iss": 1 })), Err(("M-74", Some(Seven)))).await;
    // Details are dialect 8's; a token that does not say it is one gets nothing from them.
    check(&config(), &token7(PUBLISHER, &claims8(&json!({}))), Ok(&[])).await;

    let mut strict = config();
    strict.issuers[0].keys[0].legacy = false;
    check(&strict, &token7(PUBLISHER, &claim), Err(("M-402", Some(Seven)))).await;
    check(&strict, &token8(PUBLISHER, &json!({})), Ok(&["a"])).await;
}

/// M-71: keys of several issuers are no pool.
#[tokio::test]
async fn issuers() {
    let (one, two) = ("https://one.example", "https://two.example");
    let config = Config {
        issuers: vec![
            issuer(Some(one), vec![key(PUBLISHER, true, true, false)]),
            issuer(Some(two), vec![key(SUBSCRIBER, true, true, true)]),
            issuer(None, vec![key(STRANGER, true, true, true)]),
        ],
        ..config()
    };
    let eight = |key, iss: &str| token8(key, &json!({ "iss": iss }));
    let seven = |key, iss: Value| token7(key, &json!({ "iss": iss, "mercure": { "publish": ["a"] } }));
    let bare = |key| token7(key, &json!({ "mercure": { "publish": ["a"] } }));
    for (token, expected) in [
        (eight(PUBLISHER, one), Ok(&["a"][..])),
        (eight(SUBSCRIBER, two), Ok(&["a"])),
        (eight(SUBSCRIBER, one), Err(("M-70", Some(Dialect::Eight)))),
        (eight(PUBLISHER, two), Err(("M-70", Some(Dialect::Eight)))),
        (eight(STRANGER, one), Err(("M-70", Some(Dialect::Eight)))),
        (eight(STRANGER, "https://three.example"), Err(("M-74", Some(Dialect::Eight)))),
        (eight(STRANGER, ""), Err(("M-74", Some(Dialect::Eight)))),
        (seven(SUBSCRIBER, two.into()), Ok(&["a"])),
        (seven(SUBSCRIBER, one.into()), Err(("M-402", Some(Dialect::Seven)))),
        (seven(STRANGER, two.into()), Err(("M-70", Some(Dialect::Seven)))),
        (seven(STRANGER, "anybody".into()), Ok(&["a"])),
        (seven(SUBSCRIBER, "anybody".into()), Err(("M-70", Some(Dialect::Seven)))),
        (bare(STRANGER), Ok(&["a"])),
        (bare(SUBSCRIBER), Ok(&["a"])),
        (bare(PUBLISHER), Err(("M-70", Some(Dialect::Seven)))),
    ] {
        check(&config, &token, expected).await;
    }
}

/// M-53, M-54, N-32, N-33, M-328, M-329, M-341: who gets in without a token, and that a bad one is never treated as none.
#[tokio::test]
async fn without_a_token() {
    let publishers = |config: &mut Config| config.issuers[0].keys.truncate(1);
    let subscribers = |config: &mut Config| drop(config.issuers[0].keys.remove(0));
    let static_key = |config: &mut Config| {
        config.issuers.clear();
        config.publish_keys = vec!["s3cret".into()];
    };
    let both = |config: &mut Config| config.publish_keys = vec!["s3cret".into()];
    let anonymous = |config: &mut Config| config.anonymous = true;
    let open = |config: &mut Config| config.issuers.clear();
    type Change<'a> = &'a dyn Fn(&mut Config);
    let reader = Ok(Grant::reader());
    let (no_token, no_publishers, no_subscribers) = (Err("M-60"), Err("M-53"), Err("M-341"));
    let table: [(Change<'_>, _, _); 6] = [
        (&|_| {}, no_token.clone(), no_token.clone()),
        (&publishers, no_token.clone(), reader.clone()),
        (&subscribers, no_publishers, no_token.clone()),
        (&static_key, no_token.clone(), reader.clone()),
        (&anonymous, no_token, reader),
        (&open, Ok(Grant::open()), Ok(Grant::open())),
    ];
    for (change, publish, subscribe) in &table {
        let mut config = config();
        change(&mut config);
        let guard = guard(&config).unwrap();
        for door in [Door::Native, Door::Mercure] {
            for (role, expected) in [(Role::Publish, publish), (Role::Subscribe, subscribe)] {
                let got = guard.access_at(role, &presented(door, &[]), NOW).await;
                assert_eq!(&got.map(|access| access.grant).map_err(|error| error.rule()), expected, "{door:?} {role:?} {config:?}");
            }
        }
    }
    let good = token8(SUBSCRIBER, &json!({ "authorization_details": "(absent)" }));
    let bad = token8(STRANGER, &json!({}));
    let table: [(Change<'_>, &str, _); 7] = [
        (&|_| {}, &good, Ok(Grant::reader().until(NOW + 60_000))),
        (&anonymous, &bad, Err("M-70")),
        (&publishers, &good, no_subscribers.clone()),
        (&static_key, &good, Err("N-33")),
        (&both, "s3cret", Err("N-33")),
        (&static_key, "s3cret", Ok(Grant::reader())),
        (&open, &good, no_subscribers),
    ];
    for (change, token, expected) in &table {
        let mut config = config();
        change(&mut config);
        let got = ask(&guard(&config).unwrap(), Role::Subscribe, token).await;
        assert_eq!(&got.map(|access| access.grant).map_err(|error| error.rule()), expected, "{config:?} {token}");
    }
}

/// M-84, M-210: the payload of a subscription, by its matcher taken as a topic.
#[tokio::test]
async fn payloads() {
    let detail = |topics: Value, payload: Value| {
        let mut detail = json!({ "type": "https://mercure.rocks/authorization-detail", "actions": ["subscribe"], "topics": topics });
        if !payload.is_null() {
            detail["payload"] = payload;
        }
        detail
    };
    let details = json!([
        detail(json!([{ "match": "a" }]), json!({ "b": 1, "a": 2 })),
        detail(json!([{ "match": "silent" }]), json!(null)),
        detail(json!([{ "match": "*" }]), json!("rest")),
    ]);
    let guard = guard(&config()).unwrap();
    let access = ask(&guard, Role::Subscribe, &token8(SUBSCRIBER, &json!({ "authorization_details": details }))).await.unwrap();
    for (matcher, payload) in
        [("a", Some(r#"{"a":2,"b":1}"#)), ("silent", None), ("*", Some(r#""rest""#)), ("/b{c}", Some(r#""rest""#)), ("", Some(r#""rest""#))]
    {
        assert_eq!(access.payload(matcher).map(|payload| &**payload), payload, "{matcher}");
    }
    assert_eq!((access.issuer(), access.subject(), access.dialect()), (Some("https://issuer.example"), Some("ada"), Some(Dialect::Eight)));
    let legacy = token7(SUBSCRIBER, &json!({ "mercure": { "payload": [1] } }));
    let access = ask(&guard, Role::Subscribe, &legacy).await.unwrap();
    assert_eq!(access.payload("anything").map(|payload| &**payload), Some("[1]"));
    assert_eq!((access.issuer(), access.subject()), (Some("https://issuer.example"), None));
}

/// M-412: a known token costs no signature check, for each role by itself, until its end; refusals are not kept.
#[tokio::test]
async fn known_tokens_are_not_checked_again() {
    let guard = guard(&config()).unwrap();
    let count = || {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (load(&guard.counters.verified), load(&guard.counters.remembered), load(&guard.counters.refused), guard.remembered())
    };
    let token = token8(SUBSCRIBER, &json!({}));
    let at = async |now| guard.access_at(Role::Subscribe, &presented(Door::Native, &[format!("Bearer {token}")]), now).await.map(|_| ());
    for _ in 0..100 {
        at(NOW).await.unwrap();
    }
    assert_eq!(count(), (1, 99, 0, 1));
    assert!(ask(&guard, Role::Publish, &token).await.is_err(), "it was verified for the other role");
    assert_eq!(count(), (2, 99, 1, 1));
    at(NOW + 59_999).await.unwrap();
    assert_eq!(at(NOW + 60_000).await.unwrap_err().reason, Reason::Expired);
    assert_eq!(count(), (3, 100, 2, 1));
    let endless = token7(SUBSCRIBER, &json!({}));
    for (now, verified) in [(NOW, 4), (NOW + limits::TOKEN_CACHE_MS - 1, 4), (NOW + limits::TOKEN_CACHE_MS, 5)] {
        guard.access_at(Role::Subscribe, &presented(Door::Native, &[format!("Bearer {endless}")]), now).await.unwrap();
        assert_eq!(count().0, verified);
    }
    guard.cache.clear();
    assert_eq!(count().3, 0);
    at(NOW).await.unwrap();
    assert_eq!(count().0, 6);
}

/// M-412: it is bounded, what is used stays, and what was verified before it was emptied is not kept after.
#[test]
fn the_cache_is_bounded() {
    let verified = || {
        Arc::new(Verified {
            dialect: Dialect::Eight,
            grant: Grant::reader().until(NOW + 60_000),
            payloads: Payloads::None,
            issuer: None,
            subject: None,
            not_before: NOW,
        })
    };
    let cache = Cache::new(64);
    let keep = |token: &[u8]| {
        if let Err(ticket) = cache.find(token, Role::Publish, NOW) {
            cache.keep(ticket, &verified(), NOW);
        }
    };
    for n in 0..10_000_u32 {
        keep(b"always used");
        keep(&n.to_be_bytes());
        assert!(cache.len() <= 64);
    }
    assert!(cache.find(b"always used", Role::Publish, NOW).is_ok());
    assert!(cache.find(b"always used", Role::Subscribe, NOW).is_err());
    assert!(cache.find(b"always used", Role::Publish, NOW - 1).is_err(), "M-72: the clock was set back");
    assert!(
        cache.find(&9_999_u32.to_be_bytes(), Role::Publish, NOW).is_ok() && cache.find(&0_u32.to_be_bytes(), Role::Publish, NOW).is_err()
    );
    let Err(ticket) = cache.find(b"late", Role::Publish, NOW) else { panic!() };
    cache.clear();
    cache.keep(ticket, &verified(), NOW);
    assert_eq!(cache.len(), 0);
    let huge = vec![b'x'; limits::TOKEN_CACHE_BYTES / 8];
    let cache = Cache::new(1_000);
    for n in 0..100_u32 {
        let token = [&n.to_be_bytes()[..], &huge].concat();
        let Err(ticket) = cache.find(&token, Role::Publish, NOW) else { panic!() };
        cache.keep(ticket, &verified(), NOW);
        assert!(cache.len() <= 8, "by bytes");
    }
    let none = Cache::new(0);
    let Err(ticket) = none.find(b"x", Role::Publish, NOW) else { panic!() };
    none.keep(ticket, &verified(), NOW);
    assert_eq!(none.len(), 0);
}

fn refused(change: impl FnOnce(&mut Config)) -> String {
    let mut config = config();
    change(&mut config);
    let (name, problem) = guard(&config).err().unwrap_or_default();
    format!("{name}: {problem}")
}

/// M-70, M-73: what a hub does not start with, and that it says why without showing the key.
#[test]
fn bad_keys() {
    let text = |text: &str, algorithms: &[Algorithm]| {
        let text = text.to_owned();
        let algorithms = algorithms.to_vec();
        refused(move |config| config.issuers[0].keys[0] = TokenKey { algorithms, ..key(&text, true, true, false) })
    };
    let small = pem("PUBLIC KEY", &STANDARD.decode(SMALL_RSA).unwrap());
    for (got, complaint) in [
        (text("31 bytes are less than wanted..", &[]), "at least 32 bytes, this one has 31"),
        (text("", &[]), "at least 32 bytes"),
        (text(&RSA.public, &[]), "name its algorithm"),
        (text(&RSA.public, &[Algorithm::Hs256]), "is not a secret"),
        (text(&format!(" \n{}", RSA.public), &[Algorithm::Hs512]), "is not a secret"),
        (text(&RSA.public, &[Algorithm::Es256]), "not one for ES256"),
        (text(&P256.public, &[Algorithm::Es384]), "not one for ES384"),
        (text(&P256.public, &[Algorithm::Es256, Algorithm::Es384]), "not one for ES384"),
        (text(&ED.public, &[Algorithm::Rs256]), "not one for RS256"),
        (text(&small, &[Algorithm::Rs256]), "at least 2048 bits"),
        (text(&RSA.private, &[Algorithm::Rs256]), "a private key"),
        (text("-----BEGIN PUBLIC KEY-----\nAAAA", &[Algorithm::Rs256]), "holds no key"),
        (text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &[Algorithm::Rs256]), "certificate"),
        (text(PUBLISHER, &[Algorithm::Rs256]), "needs a public key"),
        (text(PUBLISHER, &[Algorithm::Hs256, Algorithm::Rs256]), "one family"),
        (refused(|config| config.issuers[0].keys[0] = key(PUBLISHER, false, false, false)), "for publishers, for subscribers"),
        (refused(|config| config.issuers[0].id = Some(String::new())), "must not be empty"),
        (refused(|config| config.issuers.push(config.issuers[0].clone())), "stands twice"),
        (refused(|config| config.issuers.push(issuer(None, vec![key(STRANGER, true, true, false)]))), "can verify none"),
        (refused(|config| config.resource = None), "must know its own name"),
    ] {
        assert!(got.contains(complaint), "{complaint}: {got}");
        assert!(!got.contains("less than wanted") && !got.contains("the secret of"), "{got}");
    }
    assert!(!format!("{:?}", guard(&config()).unwrap()).contains("secret of"));
}

/// A public RSA key of 1,024 bits.
const SMALL_RSA: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugdUWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQsHUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5Do2kQ+X5xK9cipRgEKwIDAQAB";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// No byte of a token can be changed: every one is signed, or is the signature.
    #[test]
    fn no_byte_can_be_changed(at in 0_usize..10_000, to in "[A-Za-z0-9_.-]") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let guard = guard(&config()).unwrap();
            let good = token8(PUBLISHER, &json!({}));
            let at = at % good.len();
            let changed = format!("{}{to}{}", &good[..at], &good[at + 1..]);
            let got = ask(&guard, Role::Publish, &changed).await;
            assert_eq!(got.is_ok(), changed == good, "{changed}");
        });
    }

    /// Whatever is signed by a configured key, no claims panic, and rights only come from where they may.
    #[test]
    fn any_claims(name in "exp|nbf|aud|iss|sub|mercure|authorization_details|x", json in "\\PC{0,40}", eight in any::<bool>()) {
        let value = serde_json::from_str::<Value>(&json).unwrap_or(Value::String(json));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let guard = guard(&config()).unwrap();
            let token = if eight { token8(PUBLISHER, &json!({ name.clone(): value })) } else { token7(PUBLISHER, &json!({ name.clone(): value })) };
            let got = ask(&guard, Role::Publish, &token).await;
            if let Ok(access) = got {
                assert!(access.grant.publish.is_empty() || eight || name == "mercure");
            }
        });
    }
}
