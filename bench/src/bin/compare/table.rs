//! The table: medians and spreads over the repetitions, ratios made within each repetition, and whether the goals hold. Text of numbers; it
//! knows no processes.

use crate::rows::{Against, Goal, Measure, Row};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

/// One figure over the repetitions.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max, count) = (*values.first()?, *values.last()?, values.len());
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Spread { median, min, max, count })
    }

    fn shown(&self) -> String {
        if self.count == 1 {
            return short(self.median);
        }
        format!("{} ({} to {})", short(self.median), short(self.min), short(self.max))
    }
}

/// The rows' tables in Markdown, made of all runs there are.
pub(crate) fn markdown(rows: &[&Row], lines: &[Value]) -> String {
    let mut text = format!("{}\n\n", machine());
    let _ = writeln!(
        text,
        "Medians with the least and the greatest of the repetitions. A ratio is the median of the ratios within each repetition. Goals are the \
         hub's as a binary (`hub`)."
    );
    for row in rows {
        let runs: Vec<&Value> = lines.iter().filter(|line| line["row"] == row.name).collect();
        if runs.is_empty() {
            continue;
        }
        let repetitions: BTreeSet<u64> = runs.iter().filter_map(|run| run["repetition"].as_u64()).collect();
        let _ = write!(text, "\n### {}: {}\n\n", row.name, row.title);
        let _ = write!(text, "{} repetition(s)", repetitions.len());
        for variant in row.variants {
            let _ = write!(text, "; `tidings bench {}`", variant.bench);
        }
        text.push_str("\n\n| figure | server | median | ratio | goal | holds |\n|---|---|---|---|---|---|\n");
        for measure in row.measures {
            for server in row.servers {
                lines_of(measure, server, &runs, &mut text);
            }
        }
        trouble(&runs, &mut text);
    }
    text
}

/// One line: a figure of a server.
fn lines_of(measure: &Measure, server: &str, runs: &[&Value], text: &mut String) {
    let figures = |server: &str, variant: &str| -> BTreeMap<u64, f64> {
        let of = runs.iter().filter(|run| run["server"] == server && run["variant"] == variant);
        of.filter_map(|run| Some((run["repetition"].as_u64()?, (measure.figure)(&run["run"])?))).collect()
    };
    let own = figures(server, measure.variant);
    let Some(spread) = Spread::of(own.values().copied().collect()) else { return };
    let (against, what) = match measure.against {
        Against::Nothing => (None, String::new()),
        Against::Server(other, variant) => (Some(figures(other, variant)), format!(" x {other}")),
        Against::Variant(variant) => (Some(figures(server, variant)), format!(" x {variant}")),
    };
    let ratio = against.and_then(|against| {
        let ratios = own.iter().filter_map(|(repetition, figure)| Some(figure / against.get(repetition).filter(|other| **other > 0.0)?));
        Spread::of(ratios.collect())
    });
    let is_reference = matches!(measure.against, Against::Server(other, variant) if other == server && variant == measure.variant);
    let shown = if is_reference { "1".into() } else { ratio.as_ref().map_or(String::new(), |ratio| format!("{}{what}", ratio.shown())) };
    let judged = if measure.against == Against::Nothing { Some(spread.median) } else { ratio.map(|ratio| ratio.median) };
    let (goal, holds) = match (measure.goal.filter(|_| server == "hub"), judged) {
        (Some(goal), judged) => {
            let (sign, bound) = match goal {
                Goal::AtMost(bound) => ("<=", bound),
                Goal::AtLeast(bound) => (">=", bound),
            };
            (format!("{sign} {}{what}", short(bound)), judged.map_or("unknown", |value| if goal.holds(value) { "yes" } else { "**no**" }))
        }
        (None, _) => (String::new(), ""),
    };
    let _ = writeln!(text, "| {} | {server} | {} | {shown} | {goal} | {holds} |", measure.what, spread.shown());
}

/// Runs whose figures are not to be trusted without a look.
fn trouble(runs: &[&Value], text: &mut String) {
    let mut notes = Vec::new();
    for run in runs {
        let (server, variant, figures) =
            (run["server"].as_str().unwrap_or_default(), run["variant"].as_str().unwrap_or_default(), &run["run"]);
        if let Some(error) = figures["error"].as_str() {
            notes.push(format!("{server} {variant}: {error}"));
        } else if figures["clean"] == false {
            let count = |name: &str| figures[name].as_u64().unwrap_or(0);
            notes.push(format!(
                "{server} {variant}: {} of {} deliveries, {} duplicates, {} out of order, {} gaps, {} streams ended",
                count("deliveries"),
                count("expected"),
                count("duplicates"),
                count("out_of_order"),
                count("gaps"),
                count("ended")
            ));
        }
        if let Some(foreign) = figures["foreign_cores"].as_f64().filter(|&foreign| foreign > 0.4) {
            notes.push(format!("{server} {variant}: others used {foreign:.2} cores meanwhile"));
        }
    }
    if !notes.is_empty() {
        text.push_str("\nNot clean:\n\n");
        for note in notes {
            let _ = writeln!(text, "- {}", note.replace("  ", " ").replace(" :", ":"));
        }
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    let places = match magnitude {
        0.0 => 0,
        x if x < 0.1 => 4,
        x if x < 10.0 => 2,
        x if x < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    if magnitude < 1_000.0 {
        return text;
    }
    let digits = text.trim_start_matches('-').len();
    let grouped: String = text
        .trim_start_matches('-')
        .chars()
        .enumerate()
        .flat_map(|(at, c)| ((at > 0 && (digits - at).is_multiple_of(3)).then_some(',')).into_iter().chain([c]))
        .collect();
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo").lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) >> 20;
    format!(
        "{cores} cores ({}), {memory} GiB, Linux {}, {}, loopback.",
        cpu.unwrap_or_else(|| "unknown".into()),
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/net/ipv4/tcp_congestion_control")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{self, ROWS};
    use serde_json::json;

    fn run(repetition: u64, server: &str, cpu: f64) -> Value {
        json!({"repetition": repetition, "row": "rate-1k-100", "server": server, "variant": "",
            "run": {"clean": true, "cpu": {"us_per_delivery": cpu}}})
    }

    /// The ratio is made within a repetition: a slow hour does not count against whoever ran in it.
    #[test]
    fn ratios_belong_to_their_repetition() {
        let lines = [run(1, "floor", 5.0), run(1, "hub", 5.5), run(2, "floor", 10.0), run(2, "hub", 10.5), run(3, "hub", 99.0)];
        let text = markdown(&ROWS.iter().collect::<Vec<_>>(), &lines);
        assert!(text.contains("| CPU us per delivery | floor | 7.50 (5.00 to 10.0) | 1 |  |  |"), "{text}");
        assert!(text.contains("| hub | 10.5 (5.50 to 99.0) | 1.08 (1.05 to 1.10) x floor | <= 1.10 x floor | yes |"), "{text}");
        let worse = [run(1, "floor", 5.0), run(1, "hub", 6.0)];
        assert!(markdown(&[&ROWS[0]], &worse).contains("| hub | 6.00 | 1.20 x floor | <= 1.10 x floor | **no** |"));
    }

    #[test]
    fn trouble_is_told() {
        let mut bad = run(1, "axum", 5.0);
        bad["run"]["clean"] = json!(false);
        bad["run"]["expected"] = json!(7);
        let text = markdown(&[&ROWS[0]], &[bad]);
        assert!(text.contains("- axum: 0 of 7 deliveries"), "{text}");
    }

    #[test]
    fn numbers() {
        for (value, shown) in [(0.0, "0"), (0.0667, "0.0667"), (1.1, "1.10"), (12.34, "12.3"), (200.0, "200"), (1_234_567.8, "1,234,568")] {
            assert_eq!(short(value), shown);
        }
        assert_eq!(short(-1_234.0), "-1,234");
    }

    /// Every figure names a variant that is run, on a server that runs it.
    #[test]
    fn rows_are_whole() {
        for row in rows::all() {
            let has = |variant: &str| row.variants.iter().any(|other| other.name == variant);
            for measure in row.measures {
                let against = match measure.against {
                    Against::Nothing => true,
                    Against::Server(server, variant) => row.servers[0] == server && has(variant),
                    Against::Variant(variant) => has(variant),
                };
                assert!(has(measure.variant) && against, "{}: {}", row.name, measure.what);
            }
        }
    }
}
