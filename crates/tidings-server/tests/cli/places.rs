//! Where `tidings serve` keeps its events when nobody says, and what it says when it cannot (N-41, N-42).

use crate::program::{Hub, Program, tidings};
use std::path::Path;

/// `tidings serve` of a user with this data directory.
fn serve(data: &Path, flags: &[&str]) -> Program {
    let mut command = tidings(&["serve", "--listen", "127.0.0.1:0"]);
    Program::start(command.args(flags).env("XDG_DATA_HOME", data))
}

fn listening(mut program: Program, data: &Path) -> Hub {
    let line = program.line();
    let kept = format!(" (events in {})", data.join("tidings").display());
    let url = line.strip_prefix("tidings listening on ").and_then(|line| line.strip_suffix(&kept));
    Hub { url: url.unwrap_or_else(|| panic!("{line}")).to_owned(), program }
}

/// The two commands of the README, on a fresh machine and once more: what was published is there after a stop and after a crash.
#[test]
fn events_are_kept_without_any_setting() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("not/there/yet");
    let mut ids = Vec::new();
    for life in 0..3 {
        let hub = listening(serve(&data, &[]), &data);
        ids.push(hub.publish("news", &life.to_string()));
        let count = ids.len().to_string();
        let mut command = hub.command(&["subscribe", "news", "-v", "--since-id", "earliest", "--count", &count]);
        let exit = Program::start(&mut command).exit();
        for (n, id) in ids.iter().enumerate() {
            assert!(exit.out.contains(&format!("id={id}\n{n}\n")), "{exit:?}");
        }
        if life == 0 {
            hub.program.signal("TERM");
            assert_eq!(hub.program.exit().code, Some(0));
        } else {
            hub.program.kill();
        }
    }
}

/// N-42: two hubs of one user are told apart by a setting, and the second says which.
#[test]
fn two_hubs_of_one_user() {
    let home = tempfile::tempdir().unwrap();
    let first = listening(serve(home.path(), &[]), home.path());
    let exit = serve(home.path(), &[]).exit();
    assert_eq!((exit.code, &*exit.out), (Some(1), ""), "{exit:?}");
    for text in [&format!("used by another hub, process {}:", first.program.id()), "--data DIR", "--store memory"] {
        assert!(exit.err.contains(text), "{text:?} is not said: {exit:?}");
    }
    let other = home.path().join("other");
    for flags in [&["--data", other.to_str().unwrap()][..], &["--store", "memory"]] {
        assert!(serve(home.path(), flags).line().starts_with("tidings listening on "), "{flags:?}");
    }
}

/// A service without a home, and a directory that cannot be written: what to say instead.
#[test]
fn nowhere_to_keep_events() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let exit = serve(&file, &[]).exit();
    assert_eq!((exit.code, &*exit.out), (Some(1), ""), "{exit:?}");
    for text in [&*file.join("tidings").to_string_lossy(), "cannot be used", "--data DIR", "--store memory"] {
        assert!(exit.err.contains(text), "{text:?} is not said: {exit:?}");
    }
    let exit = Program::start(tidings(&["serve", "--listen", "127.0.0.1:0"]).env("STATE_DIRECTORY", &file)).exit();
    assert!(exit.err.contains(&format!("the data directory {} cannot be used", file.display())), "{exit:?}");
}
