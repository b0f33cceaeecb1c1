//! `tidings bench` from outside: it counts right on a hub, with one process and with several, and finds each fault of a server that has it.

use crate::{
    faulty::{self, Fault, STALL},
    program::{Exit, Hub, Program, run, tidings},
};
use serde_json::Value;
use std::net::TcpListener;

/// Runs it with JSON on `url`, and returns how it ended with its figures.
fn bench(url: &str, args: &str) -> (Exit, Value) {
    let mut all: Vec<&str> = vec!["bench"];
    let mut words = args.split(' ');
    all.extend(words.next());
    all.push(url);
    all.extend(words);
    all.push("--json");
    let exit = run(&all);
    let figures = serde_json::from_str(&exit.out).unwrap_or(Value::Null);
    (exit, figures)
}

fn number(figures: &Value, name: &str) -> u64 {
    figures.pointer(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {name} in {figures}"))
}

/// Every event of every subscriber, in one process and in three.
#[test]
fn fanout_counts() {
    let hub = Hub::start(&[]);
    for (loading, processes) in [
        ("fanout --subscribers 25 --publishers 2 --rate 200 --warmup 100ms --duration 400ms", 1),
        ("fanout --subscribers 25 --publishers 2 --rate 200 --warmup 100ms --duration 400ms --per-process 10", 3),
        ("fanout --subscribers 25 --publishers 4 --in-flight 4 --warmup 100ms --duration 300ms", 1),
        ("fanout --subscribers 25 --publishers 4 --in-flight 4 --warmup 100ms --duration 300ms --per-process 10", 3),
    ] {
        let (exit, figures) = bench(&hub.url, loading);
        assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{loading}: {figures}");
        let published = number(&figures, "/published");
        assert!(published > 0, "{figures}");
        if loading.contains("--rate") {
            assert_eq!(published, 80, "{loading}: {figures}");
        }
        assert_eq!(number(&figures, "/deliveries"), published * 25, "{loading}: {figures}");
        assert_eq!(number(&figures, "/processes"), processes, "{loading}: {figures}");
        for fault in ["missing", "duplicates", "out_of_order", "gaps", "ended"] {
            assert_eq!(number(&figures, &format!("/{fault}")), 0, "{loading}: {figures}");
        }
    }
}

/// The names that programs read.
#[test]
fn figures_have_names() {
    let hub = Hub::start(&[]);
    let pid = hub.program.id().to_string();
    let (_, figures) = bench(&hub.url, &format!("fanout --subscribers 3 --rate 50 --warmup 0s --duration 200ms --pid {pid}"));
    let mut names = vec!["/mode", "/subscribers", "/expected", "/seconds", "/deliveries_per_s", "/publishes_per_s", "/generator/cpu_s"];
    for of in ["latency_ms", "publish_ms"] {
        for part in ["p50", "p90", "p99", "p999", "max"] {
            names.push(Box::leak(format!("/{of}/{part}").into_boxed_str()));
        }
    }
    if cfg!(target_os = "linux") {
        names.extend(["/cpu/total_s", "/cpu/us_per_delivery", "/cpu/us_per_publish", "/memory/pss_before", "/memory/pss_after"]);
    }
    for name in names {
        assert!(figures.pointer(name).is_some_and(|value| !value.is_null()), "no {name} in {figures}");
    }
}

/// Each mode does what it says, held by one process and by several.
#[test]
fn modes() {
    let hub = Hub::start(&[]);
    let pid = hub.program.id().to_string();
    for split in ["", " --per-process 7"] {
        let check = |args: &str, expected: &[(&str, u64)]| {
            let (exit, figures) = bench(&hub.url, &format!("{args}{split}"));
            assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{args}{split}: {figures}");
            for (name, value) in expected {
                assert_eq!(number(&figures, name), *value, "{args}{split}: {name} of {figures}");
            }
            figures
        };
        check(
            "topics --subscribers 20 --publishers 3 --rate 100 --warmup 100ms --duration 300ms",
            &[("/deliveries", 30), ("/expected", 30)],
        );
        check(
            "storm --subscribers 20 --connecting 8 --rounds 2 --settle 50ms",
            &[("/connect/count", 40), ("/connect/refused", 0), ("/connect/failed", 0)],
        );
        check("replay --subscribers 20 --events 60 --behind 15", &[("/deliveries", 300), ("/expected", 300)]);
        check(
            "slow --subscribers 20 --stalled 10 --rate 50 --warmup 0s --duration 200ms",
            &[("/published", 10), ("/deliveries", 180), ("/stalled/count", 2)],
        );
        let idle = check(&format!("idle --from 5 --to 20 --rounds 1 --settle 50ms --pid {pid}"), &[("/subscribers", 20)]);
        assert!(idle.pointer("/memory/bytes_per_connection").is_some_and(Value::is_number), "{idle}");
        let soak = check(&format!("soak --subscribers 20 --rate 50 --warmup 0s --duration 200ms --pid {pid}"), &[("/deliveries", 200)]);
        assert!(soak.pointer("/memory/series/0").is_some(), "{soak}");
    }
    let (exit, figures) = bench(&hub.url, "publish --publishers 2 --batch 10 --pipeline 3 --warmup 0s --duration 200ms");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(number(&figures, "/published") >= 10 && number(&figures, "/published").is_multiple_of(10), "{figures}");
}

/// A check that finds nothing in a faulty server checks nothing.
#[test]
fn faults_are_found() {
    let none = [("missing", 0), ("duplicates", 0), ("out_of_order", 0), ("gaps", 0), ("ended", 0)];
    for (fault, code, found) in [
        (Fault::Nothing, 0, &[][..]),
        (Fault::Lose, 1, &[("missing", 4)]),
        (Fault::Repeat, 1, &[("duplicates", 4)]),
        (Fault::Swap, 1, &[("out_of_order", 4)]),
        (Fault::Cut, 1, &[("ended", 1), ("missing", 15)]),
        (Fault::Gap, 1, &[("gaps", 4)]),
    ] {
        for split in ["", " --per-process 3"] {
            let url = faulty::start(fault);
            let load = format!("fanout --subscribers 4 --publishers 1 --rate 100 --warmup 0s --duration 200ms --patience 400ms{split}");
            let (exit, figures) = bench(&url, &load);
            assert_eq!(exit.code, Some(code), "{fault:?}{split}: {exit:?}");
            for (name, expected) in none {
                let expected = found.iter().find(|(other, _)| *other == name).map_or(expected, |(_, count)| *count);
                assert_eq!(number(&figures, &format!("/{name}")), expected, "{fault:?}{split}: {name} of {figures}");
            }
            assert_eq!(number(&figures, "/published"), 20, "{figures}");
        }
    }
}

/// Events that were due while the server stood still are sent all the same, and charged with their waiting: without them, more than half of
/// what was to be sent would be missing from the percentiles.
#[test]
fn a_stall_is_charged_to_everybody_who_waited() {
    let load = "fanout --subscribers 2 --publishers 1 --rate 100 --warmup 0s --duration 100ms";
    let (exit, figures) = bench(&faulty::start(Fault::Stall), load);
    assert_eq!((exit.code, number(&figures, "/published"), number(&figures, "/deliveries")), (Some(0), 10, 20), "{exit:?}");
    let half = figures.pointer("/latency_ms/p50").and_then(Value::as_f64).unwrap();
    assert!(half >= STALL.as_millis() as f64 - 100.0, "{figures}");
}

/// Refusals end a run with the reason; in a storm they are counted, and tried again.
#[test]
fn refusals_are_told() {
    for split in ["", " --per-process 3"] {
        let refused = bench(&faulty::start(Fault::RefuseReaders), &format!("fanout --subscribers 4{split}")).0;
        assert!(refused.code == Some(1) && refused.err.contains("refused") && refused.err.contains("ulimit"), "{refused:?}");
        let (exit, figures) = bench(&faulty::start(Fault::RefuseOnce), &format!("storm --subscribers 4 --settle 50ms{split}"));
        assert_eq!((exit.code, number(&figures, "/connect/refused")), (Some(1), 1), "{exit:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for mode in ["publish", "fanout"] {
        let exit = bench(&format!("http://{closed}"), mode).0;
        assert!(exit.code == Some(1) && (exit.err.contains("refused") || exit.err.contains("could not connect")), "{exit:?}");
    }
    let exit = bench(&faulty::start(Fault::RefusePublishers), "fanout --subscribers 2 --rate 50 --warmup 0s --duration 100ms").0;
    assert!(exit.code == Some(1) && exit.err.contains("413") && exit.err.contains("too large"), "{exit:?}");
}

/// A load tool is for one's own machine; what cannot be meant is refused before anything is connected.
#[test]
fn other_machines_need_leave() {
    let exit = bench("http://192.0.2.1:4680", "fanout").0;
    assert!(exit.code == Some(2) && exit.err.contains("--allow-host 192.0.2.1"), "{exit:?}");
    let exit = bench("http://127.0.0.1:1", "fanout --rate 0").0;
    assert!(exit.code == Some(2) && exit.err.contains("--rate"), "{exit:?}");
    let exit = bench("https://127.0.0.1", "fanout").0;
    assert!(exit.code == Some(2) && exit.err.contains("http://"), "{exit:?}");
}

/// Standard error is silent where nobody looks, and says how far it is when asked to.
#[test]
fn progress_is_told_when_asked_for() {
    let hub = Hub::start(&[]);
    let load = "fanout --subscribers 2 --rate 50 --warmup 0s --duration 100ms";
    assert_eq!(bench(&hub.url, load).0.err, "");
    let told = bench(&hub.url, &format!("{load} --progress")).0;
    assert!(told.code == Some(0) && told.err.contains("% ") && !told.err.contains('\r'), "{told:?}");
}

/// A process with a share ends when whoever started it is gone.
#[test]
fn workers_do_not_outlive_the_run() {
    let hub = Hub::start(&[]);
    let mut worker = Program::start(&mut tidings(&["bench", "fanout", &hub.url, "--subscribers", "2", "--share", "0,2,"]));
    worker.feed_more(b"connect 2 2 0 \n");
    assert_eq!([worker.line(), worker.line()].last().map(String::as_str), Some("seen 0 0 2"));
    assert_eq!(worker.exit().code, Some(0));
}
