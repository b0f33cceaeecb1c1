//! The binary against the black-box suite of the Mercure protocol, strictly: no failure, no warning, no note.
//!
//! It knows how the binary is set up for it; what is checked, and how, is the suite's.

use sse_hub_conformance::{Dialect, Identity, Key, Report, Role, Settings, run};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const PUBLISHER: &str = "a secret of publishers that is long enough";
const SUBSCRIBER: &str = "a secret of subscribers that is long enough";
const ISSUER: &str = "https://issuer.example";
const RESOURCE: &str = "https://hub.example/.well-known/mercure";
const READS: &str = "https://reads.example";
const PUBLISHES: &str = "https://publishes.example";

/// The keys of both roles, which verify tokens of both dialects.
const KEYS: &[(&str, &str)] =
    &[("MERCURE_PUBLISHER_JWT_KEY", PUBLISHER), ("MERCURE_SUBSCRIBER_JWT_KEY", SUBSCRIBER), ("MERCURE_TRUSTED_ISSUERS", ISSUER)];

/// A hub that ends with the test.
struct Hub {
    child: Child,
    address: String,
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Hub {
    /// Set up as people bring it along: keys, issuers and origins by the reference hub's variables and directives.
    fn start(flags: &[&str], variables: &[(&str, &str)], directives: &str) -> Hub {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--listen", "127.0.0.1:0", "--compat", "mercure", "--store", "memory", "--public-url", "https://hub.example"])
            .args(["--heartbeat", "2s", "--mercure-topics-field"])
            .args(flags)
            .env_clear()
            .envs(variables.iter().copied())
            .env("MERCURE_EXTRA_DIRECTIVES", directives)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the hub says where it listens");
        let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("not an address: {line:?}"));
        Hub { child, address: address.split([' ', '/', '\n']).next().expect("an address").to_owned() }
    }

    fn settings(&self) -> Settings {
        let url = format!("http://{}/.well-known/mercure", self.address);
        let key = |text| Key::parse("HS256", text).expect("a secret");
        let mut settings = Settings::new(&url, ISSUER, key(PUBLISHER), key(SUBSCRIBER));
        settings.public_url = Some(RESOURCE.into());
        settings.cors_origin = Some(READS.into());
        settings.publish_origin = Some(PUBLISHES.into());
        settings.metrics_url = Some(format!("http://{}/metrics", self.address));
        settings.health_url = Some(format!("http://{}/healthz", self.address));
        settings.heartbeat = Some(Duration::from_secs(2));
        settings.strict = true;
        settings
    }
}

/// Three issuers beside the main one, each with a key pair: the directives, and what the suite signs with.
fn issuers() -> (String, Vec<Identity>) {
    let mut directives = format!("subscriptions\ncors_origins {READS}\npublish_origins {PUBLISHES}\n");
    let mut identities = vec![];
    for (algorithm, roles) in [("RS256", &[Role::Publish][..]), ("ES256", &[Role::Publish, Role::Subscribe]), ("EdDSA", &[Role::Subscribe])]
    {
        let key = Key::generate(algorithm).expect("randomness");
        let issuer = format!("https://{}.example", algorithm.to_lowercase());
        let pem = key.public_pem().expect("a public half");
        let mut blocks = String::new();
        for role in roles {
            let name = if *role == Role::Publish { "publisher" } else { "subscriber" };
            blocks += &[name, " {\njwt \"", pem.trim_end(), "\" ", algorithm, "\n}\n"].concat();
        }
        directives += &["issuer ", &issuer, " {\n", &blocks, "}\n"].concat();
        identities.extend(roles.iter().map(|role| Identity { role: *role, issuer: issuer.clone(), key: key.clone() }));
    }
    (directives, identities)
}

fn expect_conforming(report: &Report) {
    assert!(report.passed(), "{}", report.table());
}

/// Runs the whole suite against a hub, and beside it what it shows of streams' longest life against another, where that is so short that
/// the other checks would be cut off.
fn conforms(flags: &[&str], variables: &[(&str, &str)], directives: &str, change: &(dyn Fn(&mut Settings) + Sync)) -> Report {
    const LONGEST_LIFE: &str = "longest life";
    let short_lives = || {
        let hub = Hub::start(&[flags, &["--max-age", "5s"]].concat(), variables, directives);
        let mut settings = hub.settings();
        change(&mut settings);
        // Spread below it, never above (M-306).
        settings.lifetime = Some(Duration::from_secs(5));
        // A run in which nothing could be checked has not passed either.
        expect_conforming(&run(settings, &[LONGEST_LIFE.into()]).expect("usable settings"));
    };
    thread::scope(|scope| {
        let beside = scope.spawn(short_lives);
        let hub = Hub::start(flags, variables, directives);
        let mut settings = hub.settings();
        change(&mut settings);
        let report = run(settings, &[]).expect("usable settings");
        expect_conforming(&report);
        beside.join().expect("streams end at their longest life");
        report
    })
}

/// Every requirement that can be seen from outside, in both dialects, and what only Tidings promises (M-401 ...).
#[test]
fn both_dialects() {
    let (directives, others) = issuers();
    let report = conforms(&[], KEYS, &directives, &|settings| {
        settings.others.clone_from(&others);
        settings.query_token = true;
    });
    assert!(report.covered(Some("7")) >= 100 && report.covered(Some("8")) >= 140, "{}", report.table());
}

fn one_dialect(name: &str, dialect: Dialect, variables: &[(&str, &str)], keys: &str) {
    let directives = format!("cors_origins {READS}\npublish_origins {PUBLISHES}\n{keys}");
    conforms(&["--mercure-dialects", name, "--query-token=false"], variables, &directives, &|settings| {
        settings.dialects = vec![dialect];
        settings.presence = false;
    });
}

/// M-401: parameters of dialect 8 are refused when it is off, and dialect 7 is all that it was.
#[test]
fn dialect_7_alone() {
    one_dialect("7", Dialect::Seven, KEYS, "");
}

/// M-401, M-402: the same the other way round, with keys that verify tokens of dialect 8 only.
#[test]
fn dialect_8_alone() {
    let key = |role, secret| format!("{role} {{\njwt \"{secret}\" HS256\n}}\n");
    let keys = format!("issuer {ISSUER} {{\n{}{}}}", key("publisher", PUBLISHER), key("subscriber", SUBSCRIBER));
    one_dialect("8", Dialect::Eight, &[], &keys);
}

/// M-68, M-402: keys that would verify legacy claims make no difference while dialect 7 is off.
#[test]
fn dialect_8_alone_with_legacy_keys() {
    one_dialect("8", Dialect::Eight, KEYS, "");
}
