//! What can be typed, what the help says, and exit code 2 for what cannot be done (N-41, N-42).

use crate::program::{Program, run, tidings};

/// A newcomer finds the three commands and something to try.
#[test]
fn help() {
    for (args, texts) in [
        (&["--help"][..], &["serve", "publish", "subscribe", "completions", "tidings publish news 'hello'", "Exit codes"][..]),
        (&["serve", "--help"], &["--listen", "127.0.0.1:4680", "--drain-hard", "TIDINGS_LAG_TIME", "SIGTERM"]),
        (&["serve", "-h"], &["--listen", "--publish-key", "--help all of them"]),
        (&["publish", "--help"], &["--lines", "TIDINGS_URL", "--key"]),
        (&["subscribe", "--help"], &["--since-id", "--count", "--prefix"]),
        (&["--version"], &["tidings 0."]),
        (&["completions", "bash"], &["--since-id", "--heartbeat"]),
        (&["completions", "zsh"], &["#compdef tidings"]),
        (&["settings"], &["# Settings of `tidings serve`", "`heartbeat`"]),
    ] {
        let exit = run(args);
        assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{args:?}");
        for text in texts {
            assert!(exit.out.contains(text), "{args:?} does not say {text:?}:\n{}", exit.out);
        }
    }
    let short = run(&["serve", "-h"]);
    assert!(!short.out.contains("--lag-time"), "{}", short.out);
}

/// N-42: wrong usage and settings are exit code 2, and the text says what to change.
#[test]
fn wrong_usage() {
    let none: &[(&str, &str)] = &[];
    for (args, env, text) in [
        (&[][..], none, "Usage: tidings <COMMAND>"),
        (&["sreve"], none, "'serve'"),
        (&["serve", "--hartbeat", "1s"], none, "'--heartbeat'"),
        (&["serve", "--heartbeat", "15"], none, "--heartbeat: `15` is not a time; write a whole number and a unit"),
        (&["serve", "--store", "redis"], none, "not one of memory, disk"),
        (&["serve", "--config", "/does/not/exist.toml"], none, "cannot read the settings file /does/not/exist.toml"),
        (&["serve", "--insecure-open=maybe"], none, "neither `true` nor `false`"),
        (&["serve"], &[("TIDINGS_LISTN", "x")], "`TIDINGS_LISTN` does not exist; the nearest name is `TIDINGS_LISTEN`"),
        (&["serve"], &[("TIDINGS_LISTEN", "x")], "TIDINGS_LISTEN: `x` is not an address and port"),
        (&["serve", "--listen", "0.0.0.0:0"], none, "--publish-key"),
        (&["serve", "--listen", "0.0.0.0:0"], none, "--insecure-open"),
        (&["serve", "--listen", "[::]:0"], &[("TIDINGS_INSECURE_OPEN", "false")], "refusing to listen"),
        (&["publish"], none, "<TOPIC>"),
        (&["publish", "t", "--retry", "3"], none, "write a whole number and a unit"),
        (&["publish", "t", "data", "--lines"], none, "--lines reads standard input"),
        (&["publish", "t", "--lines", "--id", "1"], none, "cannot be used with"),
        (&["publish", "t", "d", "--url", "https://hub"], none, "https is not supported"),
        (&["publish", "t", "d", "--url", "hub:4680"], none, "http://127.0.0.1:4680"),
        (&["subscribe", "--count", "0"], none, "--count"),
        (&["subscribe", "t", "--prefix", "p"], none, "cannot be used with"),
        (&["subscribe", "--max-event", "1"], none, "write a whole number and a unit"),
        (&["completions", "tcl"], none, "possible values"),
    ] {
        let exit = Program::start(tidings(args).envs(env.iter().copied())).exit();
        assert_eq!((exit.code, &*exit.out), (Some(2), ""), "{args:?} {env:?}: {exit:?}");
        assert!(exit.err.contains(text), "{args:?} {env:?} does not say {text:?}:\n{}", exit.err);
    }
}

/// N-41: an unknown name in the file suggests the nearest, and nothing is started.
#[test]
fn wrong_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidings.toml");
    std::fs::write(&path, "listen = '127.0.0.1:0'\nhearbeat = '1s'\n").unwrap();
    let exit = Program::start(tidings(&["serve"]).env("TIDINGS_CONFIG", &path)).exit();
    assert_eq!((exit.code, &*exit.out), (Some(2), ""), "{exit:?}");
    assert!(exit.err.contains("`hearbeat`") && exit.err.contains("the nearest name is `heartbeat`"), "{exit:?}");
}
