//! The figures of a run, for people and for programs.

use super::{system::Cpu, tally::Counts};
use serde_json::{Map, Value, json};

/// What a run found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) mode: String,
    pub(super) subscribers: usize,
    /// Processes that hold them.
    pub(super) processes: usize,
    /// Processes of the server were named.
    pub(super) measured: bool,
    pub(super) counts: Counts,
    /// Deliveries that had to come.
    pub(super) expected: u64,
    pub(super) seconds: f64,
    pub(super) connects: u64,
    pub(super) cpu: Cpu,
    pub(super) ksoftirqd: f64,
    pub(super) generator: f64,
    pub(super) pss_before: u64,
    pub(super) pss_after: u64,
    /// Memory before anybody connected.
    pub(super) pss_empty: Option<u64>,
    /// Connections when memory was taken before and after.
    pub(super) idle: Option<(usize, usize)>,
    pub(super) series: Vec<(f64, u64)>,
    pub(super) syn_retransmits: Option<u64>,
    pub(super) listen_overflows: Option<u64>,
    pub(super) stalled: u64,
    pub(super) stalled_told: u64,
}

impl Report {
    /// Everything that had to come came, once and in order.
    pub(super) fn is_clean(&self) -> bool {
        let counts = &self.counts;
        let faults = counts.faults.missing + counts.faults.duplicates + counts.faults.out_of_order;
        faults + counts.gaps + counts.ended + counts.refused + counts.failed == 0 && counts.deliveries == self.expected
    }

    fn json(&self) -> Value {
        let counts = &self.counts;
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| all.insert(name.into(), value);
        put("mode", json!(self.mode));
        put("subscribers", json!(self.subscribers));
        put("processes", json!(self.processes));
        put("published", json!(counts.published));
        put("expected", json!(self.expected));
        put("deliveries", json!(counts.deliveries));
        // Those at the end that nothing came after are no holes in anybody's numbers.
        put("missing", json!(counts.faults.missing.max(self.expected.saturating_sub(counts.deliveries))));
        put("duplicates", json!(counts.faults.duplicates));
        put("out_of_order", json!(counts.faults.out_of_order));
        put("gaps", json!(counts.gaps));
        put("ended", json!(counts.ended));
        if self.seconds > 0.0 {
            put("seconds", json!(self.seconds));
            put("deliveries_per_s", json!(counts.deliveries as f64 / self.seconds));
            put("publishes_per_s", json!(counts.published as f64 / self.seconds));
            put("events_per_read", json!((counts.deliveries + counts.warm_up_deliveries) as f64 / counts.reads.max(1) as f64));
        }
        for (name, histogram) in [("latency_ms", &counts.latency), ("publish_ms", &counts.answered)] {
            if !histogram.is_empty() {
                let at = |part| histogram.percentile(part);
                let percentiles = json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": histogram.max()});
                put(name, percentiles);
            }
        }
        if self.measured {
            let per = |count: u64| if count == 0 { Value::Null } else { json!(self.cpu.total * 1e6 / count as f64) };
            put(
                "cpu",
                json!({
                    "total_s": self.cpu.total, "user_s": self.cpu.user, "system_s": self.cpu.system, "ksoftirqd_s": self.ksoftirqd,
                    "us_per_delivery": per(counts.deliveries), "us_per_publish": per(counts.published), "us_per_connection": per(self.connects),
                }),
            );
            let mut memory = json!({"pss_before": self.pss_before, "pss_after": self.pss_after, "series": self.series});
            if let (Some(empty), Some((from, to))) = (self.pss_empty, self.idle) {
                let after = self.pss_after as f64;
                memory["pss_empty"] = json!(empty);
                memory["bytes_per_connection"] = json!((after - self.pss_before as f64) / (to - from) as f64);
                memory["bytes_per_connection_of_all"] = json!((after - empty as f64) / to as f64);
            }
            put("memory", memory);
        }
        if self.connects > 0 {
            put(
                "connect",
                json!({
                    "count": self.connects, "per_s": self.connects as f64 / self.seconds, "refused": counts.refused, "failed": counts.failed,
                    "syn_retrans": self.syn_retransmits, "listen_overflows": self.listen_overflows,
                }),
            );
        }
        if self.stalled > 0 {
            put("stalled", json!({"count": self.stalled, "closed_or_told": self.stalled_told}));
        }
        put("generator", json!({"cpu_s": self.generator}));
        Value::Object(all)
    }

    pub(super) fn print(&self, as_json: bool) {
        let all = self.json();
        if as_json {
            println!("{all}");
            return;
        }
        let Value::Object(mut all) = all else { return };
        // What was asked, whether it is right, how fast, at what price; what has no place here comes last.
        let first =
            ["mode", "subscribers", "processes", "published", "expected", "deliveries", "missing", "duplicates", "out_of_order", "gaps"];
        let then =
            ["ended", "stalled", "connect", "seconds", "deliveries_per_s", "publishes_per_s", "latency_ms", "publish_ms", "cpu", "memory"];
        let mut lines: Vec<(String, Value)> = first.iter().chain(&then).filter_map(|name| all.remove_entry(*name)).collect();
        lines.extend(all);
        for (name, value) in lines {
            match value {
                Value::Object(inner) => {
                    let parts: Vec<String> = inner
                        .iter()
                        .filter(|(key, value)| !value.is_null() && *key != "series")
                        .map(|(key, value)| format!("{key} {}", short(value)))
                        .collect();
                    println!("{name:<17} {}", parts.join(", "));
                }
                value => println!("{name:<17} {}", short(&value)),
            }
        }
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.abs() < 1_000.0 => format!("{float:.3}"),
            Some(float) if number.is_f64() => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
