//! `tidings log`: what an operator does with a log on disk, from a look at it to a restore from a backup.

use crate::program::{Exit, Hub, Program, run, tidings};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn hub(data: &Path) -> Hub {
    Hub::start(&["--data", data.to_str().unwrap()])
}

fn log(command: &str, data: &Path, flags: &[&str]) -> Exit {
    run(&[&["log", command, data.to_str().unwrap()], flags].concat())
}

/// Clean, with nothing on standard error; what it printed.
fn done(exit: Exit) -> String {
    assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{exit:?}");
    exit.out
}

fn publish_lines(hub: &Hub, lines: &str) {
    let mut publish = Program::start(&mut hub.command(&["publish", "--lines", "lines"]));
    publish.feed(lines.as_bytes());
    assert_eq!(publish.exit().code, Some(0));
}

/// The members of an exported line that a publisher chose.
fn chosen(line: &str) -> String {
    let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
    let members = event.as_object_mut().unwrap();
    members.remove("accepted_at").unwrap();
    if members["id"].as_str().unwrap().starts_with('#') {
        members.remove("id");
    }
    event.to_string()
}

fn segment(data: &Path) -> PathBuf {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).min().unwrap()
}

/// Every event, with all that a publisher can say of one, and the same again after it was published again.
#[test]
fn what_was_exported_can_be_published() {
    let directory = tempfile::tempdir().unwrap();
    let first = hub(directory.path());
    for args in [
        &["orders/1", "plain"][..],
        &["orders/1", "two\nlines", "--type", "shipped", "--topic", "all", "--retry", "7s"],
        &["orders/2", "{\"parcel\":7}", "--id", "urn:mine", "--private"],
        &["all", ""],
    ] {
        assert_eq!(Program::start(&mut first.command(&[&["publish"], args].concat())).exit().code, Some(0));
    }
    // Beside a running hub, too.
    let export = done(log("export", directory.path(), &[]));
    first.program.kill();
    assert_eq!(done(log("export", directory.path(), &[])), export);
    let lines: Vec<&str> = export.lines().collect();
    assert_eq!(lines.len(), 4, "{export}");
    for part in
        [r#""data":"two\nlines""#, r#""retry":7000"#, r#""topics":["orders/1","all"]"#, r#""type":"shipped""#, r#""accepted_at":"20"#]
    {
        assert!(lines[1].contains(part), "{part} is not in {}", lines[1]);
    }
    assert!(lines[2].contains(r#""id":"urn:mine","private":true"#) && lines[0].contains("\"id\":\"#"), "{export}");
    assert_eq!(done(log("export", directory.path(), &["--topic", "all"])).lines().collect::<Vec<_>>(), [lines[1], lines[3]]);
    assert_eq!(done(log("export", directory.path(), &["--since", "1h"])), export);
    assert_eq!(done(log("export", directory.path(), &["--since", "9999999999999"])), "");

    let again = tempfile::tempdir().unwrap();
    let second = hub(again.path());
    let publishable = done(log("export", directory.path(), &["--publishable"]));
    assert!(publishable.lines().eq(lines.iter().map(|line| chosen(line))), "{publishable}");
    let answer = crate::trial::post(second.address(), "/publish", "content-type: application/x-ndjson", &publishable);
    assert!(answer.is_some_and(|answer| answer.contains("urn:mine")));
    second.program.kill();
    let republished = done(log("export", again.path(), &[]));
    assert!(republished.lines().map(chosen).eq(lines.iter().map(|line| chosen(line))), "{republished}");
}

/// A look at a running log and a stopped one; what writes refuses the running one.
#[test]
fn inspect_and_compact() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let running = hub(data);
    let line = "x".repeat(1_000) + "\n";
    publish_lines(&running, &line.repeat(3_000));
    let process = running.program.id().to_string();
    let out = done(log("inspect", data, &[]));
    for part in [&*format!("in use by process {process}"), "events     3000, after 0 up to 3000, accepted 20", "0000000000000001.log"] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    for command in ["compact", "new-epoch"] {
        let exit = log(command, data, &[]);
        let refused = format!("is in use by process {process}, and this changes it: stop the hub first");
        assert!(exit.code == Some(1) && exit.err.contains(&refused), "{exit:?}");
    }
    running.program.signal("TERM");
    assert_eq!(running.program.exit().code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&done(log("inspect", data, &["--json"]))).unwrap();
    assert_eq!((&report["closed"], &report["events"], &report["used_by"]), (&true.into(), &3_000.into(), &().into()));
    assert_eq!((&report["segments"][0]["first"], &report["segments"][0]["indexed"]), (&1.into(), &true.into()), "{report}");
    assert!(done(log("verify", data, &[])).starts_with("3000 events in 1 segments check"));

    // Nothing is too much for the defaults; all of it is too old for one second.
    assert!(done(log("compact", data, &[])).contains("at most 1GiB, not older than 1d"));
    assert_eq!(done(log("export", data, &[])).lines().count(), 3_000);
    wait_until_older_than_a_second(&report);
    done(log("compact", data, &["--retention-age", "1s"]));
    assert_eq!(done(log("export", data, &[])), "");
    let report: serde_json::Value = serde_json::from_str(&done(log("inspect", data, &["--json"]))).unwrap();
    assert!(report["events"] == 0 && report["bytes"].as_u64().unwrap() < 1_000_000, "{report}");
    // And a hub goes on where it was.
    assert!(hub(data).publish("t", "next").ends_with("0bb9"));

    for (command, path) in [("inspect", data.join("nothing")), ("verify", data.join("lock")), ("compact", data.join("nothing"))] {
        let exit = log(command, &path, &[]);
        assert!(exit.code == Some(1) && exit.err.contains(&*path.to_string_lossy()), "{exit:?}");
        assert!(!data.join("nothing").exists(), "{command} made a directory");
    }
}

fn wait_until_older_than_a_second(report: &serde_json::Value) {
    let newest = tidings::moment::parse(report["segments"][0]["last_at"].as_str().unwrap()).unwrap();
    let deadline = std::time::Instant::now() + crate::program::DEADLINE;
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    while now() <= newest + 1_000 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// N-14: damage has a place, and an exit code.
#[test]
fn verify_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let running = hub(data);
    for n in 0..20 {
        running.publish("t", &n.to_string());
    }
    running.program.kill();
    // What a crash leaves is no damage.
    assert!(done(log("verify", data, &[])).starts_with("20 events in 1 segments check"));
    let file = segment(data);
    let mut bytes = fs::read(&file).unwrap();
    bytes[300] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let exit = log("verify", data, &[]);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(exit.code == Some(1) && exit.out.contains(&format!("damage in {name} at byte ")), "{exit:?}");
    assert!(exit.out.contains("their readers are told `damaged`") || exit.out.contains("bytes do not check"), "{exit:?}");
    let exit = log("export", data, &[]);
    assert!(exit.code == Some(1) && exit.err.contains("damaged") && exit.out.lines().count() == 19, "{exit:?}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "looking changes nothing");
}

/// N-14: a directory restored from an older backup: cursors beyond it are told `lost`; with a new epoch nobody can take a new event for
/// one that was seen, and all that was kept is there.
#[test]
fn restored_from_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let stop = |hub: Hub| {
        hub.program.signal("TERM");
        assert_eq!(hub.program.exit().code, Some(0));
    };
    let first = hub(&data);
    let kept = first.publish("t", "1");
    first.publish("t", "2");
    stop(first);
    copy(&data, &backup);
    let second = hub(&data);
    let gone = second.publish("t", "after the backup");
    stop(second);

    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let restored = hub(&data);
    let read = |hub: &Hub, since: &str, count: &str| {
        done_with_gap(Program::start(&mut hub.command(&["subscribe", "t", "--json", "--since-id", since, "--count", count])))
    };
    let reader = Program::start(&mut restored.command(&["subscribe", "t", "--json", "--since-id", &gone, "--count", "1"]));
    let told = wait_for_gap(reader, &restored);
    assert!(told.contains("lost"), "{told}");
    stop(restored);

    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let out = done(log("new-epoch", &data, &[]));
    assert!(out.starts_with("epoch ") && out.contains(", with 2 events;"), "{out}");
    assert!(done(log("verify", &data, &[])).starts_with("2 events"));
    let renewed = hub(&data);
    for cursor in [&kept, &gone] {
        let out = read(&renewed, cursor, "2");
        assert!(out.contains(r#"\"reason\":\"epoch\""#) && out.contains(r#""data":"1""#) && out.contains(r#""data":"2""#), "{out}");
    }
    assert!(!renewed.publish("t", "3").starts_with(&kept[..9]), "the epoch is another one");
}

fn done_with_gap(program: Program) -> String {
    let exit = program.exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.out
}

/// The line of the gap; an event ends the reader.
fn wait_for_gap(mut reader: Program, hub: &Hub) -> String {
    let line = reader.line();
    hub.publish("t", "end");
    assert_eq!(reader.exit().code, Some(0));
    line
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// The commands are named where they are looked for.
#[test]
fn help() {
    let out = done(run(&["log", "--help"]));
    for command in ["inspect", "verify", "export", "compact", "new-epoch"] {
        assert!(out.contains(command), "{command} is not in {out}");
    }
    let exit = Program::start(&mut tidings(&["log", "compact"])).exit();
    assert!(exit.code == Some(2) && exit.err.contains("<DIR>"), "{exit:?}");
}
