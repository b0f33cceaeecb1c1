//! `tidings token` and a hub that believes what it makes: minted, looked into, explained, used (M-55, M-70, M-73, M-402).

use crate::program::{Hub, Program, run, tidings};
use std::fs;

const ISSUER: &str = "https://app.example";
const RESOURCE: &str = "https://hub.example/.well-known/mercure";

/// A file with a secret, and what a hub is told of it.
fn settings(directory: &tempfile::TempDir) -> (String, String) {
    let (key, config) = (directory.path().join("key"), directory.path().join("tidings.toml"));
    fs::write(&key, "a secret of more than thirty-two bytes\n").unwrap();
    let (key, config_path) = (key.to_str().unwrap().to_owned(), config.to_str().unwrap().to_owned());
    let text = format!("resource = '{RESOURCE}'\n[[issuer]]\nid = '{ISSUER}'\n[[issuer.key]]\nkey_file = '{key}'\nlegacy = true\n");
    fs::write(config, text).unwrap();
    (key, config_path)
}

fn mint(key: &str, args: &[&str]) -> String {
    let exit = run(&[&["token", "mint", "--key-file", key], args].concat());
    assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{args:?}");
    exit.out.trim_end().to_owned()
}

/// A token that is minted is accepted for what it grants, in both dialects, and explained by rule where it is not.
#[test]
fn minted_explained_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let (key, config) = settings(&directory);
    let eight = mint(&key, &["--iss", ISSUER, "--aud", RESOURCE, "--publish", "news", "--subscribe", "*", "--payload", "{\"a\":1}"]);
    let seven = mint(&key, &["--dialect", "7", "--publish", "news"]);
    let other = mint(&key, &["--iss", ISSUER, "--aud", "https://other.example", "--publish", "news"]);
    for (token, args, code, texts) in [
        (
            &eight,
            &["--publish", "news"][..],
            Some(0),
            &["ok  M-402", "ok  M-73", "ok  M-80   publishing to \"news\" is granted", "allowed (200)"][..],
        ),
        (&eight, &["--publish", "sport"], Some(1), &["NO  M-80   publishing to \"sport\" is not granted", "refused (403)"]),
        (&eight, &["--subscribe", "x"], Some(0), &["ok  M-81", "ok  M-84   presence shows the payload {\"a\":1}"]),
        (&seven, &["--publish", "news"], Some(0), &["ok  M-402  `typ` is not at+jwt", "allowed (200)"]),
        (&seven, &["--publish", "sport"], Some(1), &["NO  M-80", "refused (401)"]),
        (&other, &["--publish", "news"], Some(1), &["NO  M-73   the token is for another audience", "refused (401)"]),
    ] {
        let exit = run(&[&["token", "explain", "--config", &config, token], args].concat());
        assert_eq!(exit.code, code, "{args:?}: {} {}", exit.out, exit.err);
        for text in texts {
            assert!(exit.out.contains(text), "{args:?} does not say {text:?}:\n{}", exit.out);
        }
        assert!(!exit.out.contains("a secret of"), "{}", exit.out);
    }
    let inspected = run(&["token", "inspect", &eight]);
    assert!(inspected.out.contains("\"typ\": \"at+jwt\"") && inspected.out.contains("nothing of this is verified"), "{}", inspected.out);

    let hub = Hub::start(&["--config", &config, "--store", "memory"]);
    let publish = |token: &str, topic: &str| Program::start(hub.command(&["publish", topic, "hello"]).env("TIDINGS_KEY", token)).exit();
    for (token, topic, code, text) in [
        (&eight, "news", Some(0), ""),
        (&seven, "news", Some(0), ""),
        (&eight, "sport", Some(1), "not granted"),
        (&other, "news", Some(1), "another audience"),
    ] {
        let exit = publish(token, topic);
        assert_eq!(exit.code, code, "{topic}: {}", exit.err);
        assert!(exit.err.contains(text), "{topic}: {}", exit.err);
    }
    let anonymous = Program::start(&mut hub.command(&["subscribe", "news", "--no-reconnect"])).exit();
    assert_eq!(anonymous.code, Some(1), "N-32: {}", anonymous.err);
    let mut reading = hub.command(&["subscribe", "news", "--since-id", "earliest", "--count", "2"]);
    assert_eq!(Program::start(reading.env("TIDINGS_KEY", &eight)).exit().out, "hello\nhello\n");
}

/// What cannot be made or read is exit code 2, and says what to change without showing a key.
#[test]
fn wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let (key, config) = settings(&directory);
    let short = directory.path().join("short");
    fs::write(&short, "hush").unwrap();
    let short = short.to_str().unwrap();
    for (args, text) in [
        (&["token"][..], "Usage: tidings token <COMMAND>"),
        (&["token", "mint", "--key-file", "/does/not/exist"], "cannot read the key in /does/not/exist"),
        (&["token", "mint", "--key-file", short], "at least 32 bytes, this one has 4"),
        (&["token", "mint", "--key-file", &key, "--alg", "none"], "`none` is not an algorithm"),
        (&["token", "mint", "--key-file", &key, "--alg", "ES256"], "ES256 needs a private key in PEM"),
        (&["token", "mint", "--key-file", &key], "needs `iss`; give --iss"),
        (&["token", "mint", "--key-file", &key, "--iss", "x"], "needs `aud`; give --aud"),
        (&["token", "mint", "--key-file", &key, "--dialect", "7", "--publish-urlpattern", "/x"], "URL patterns are dialect 8's"),
        (&["token", "mint", "--key-file", &key, "--dialect", "7", "--payload", "Ada"], "it is not JSON"),
        (&["token", "inspect", "x.y"], "three parts with dots between them, this has 2"),
        (&["token", "explain", "x", "--config", "/does/not/exist"], "cannot read the settings file"),
        (&["token", "explain", "x", "--config", &config, "--publish", "a", "--subscribe", "b"], "cannot be used with"),
        (&["serve", "--token-key", "hush", "--legacy-tokens"], "at least 32 bytes, this one has 4"),
        (
            &["serve", "--token-key", "!ChangeThisMercureHubJWTSecretKey!", "--legacy-tokens", "--listen", "0.0.0.0:0"],
            "which everybody knows",
        ),
    ] {
        let exit = Program::start(&mut tidings(args)).exit();
        assert_eq!(exit.code, Some(2), "{args:?}: {}", exit.err);
        assert!(exit.err.contains(text), "{args:?} does not say {text:?}:\n{}", exit.err);
    }
}
