//! `tidings log`: a log's directory looked at, checked, read out, cut down, or begun anew.
//!
//! What is in a log and what may be done to it is the library's; this says it in words, as JSON and by exit code.

use crate::{Failure, quantity, text::printable};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tidings::{DiskOptions, GapReason, LogDirectory, LogReport, Matchers, OpenError, PrefixRule, Record, TopicMatcher, moment};

/// Which events are read out, and how.
pub(crate) struct Export {
    pub(crate) topics: Vec<String>,
    /// In milliseconds since 1970.
    pub(crate) since: Option<u64>,
    /// As `/publish` takes them.
    pub(crate) publishable: bool,
}

/// A log, and the rules of the hub whose log it is, as far as they were said.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) prefixes: Vec<PrefixRule>,
}

impl Place {
    fn open(&self) -> Result<LogDirectory, OpenError> {
        LogDirectory::open(&self.path).map(|log| log.prefixes(self.prefixes.clone()))
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::Running(error.to_string())
}

/// To standard output; whoever closed it has seen enough.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(format!("cannot write to standard output: {error}"))),
        _ => Ok(()),
    }
}

pub(crate) fn inspect(place: &Place, as_json: bool) -> Result<(), Failure> {
    let path = &*place.path;
    let report = place.open().and_then(|log| log.inspect()).map_err(failed)?;
    let text = if as_json { format!("{}\n", as_value(path, &report)) } else { table(path, &report) };
    written(io::stdout().write_all(text.as_bytes()))
}

fn reason(reason: GapReason) -> String {
    format!("{reason:?}").to_lowercase()
}

fn as_value(path: &Path, report: &LogReport) -> Value {
    let segments = report.segments.iter().map(|segment| {
        json!({
            "file": segment.file, "first": segment.first, "last": segment.last, "bytes": segment.bytes, "dead": segment.dead,
            "indexed": segment.indexed,
            "first_at": segment.first_at.map(moment::show), "last_at": moment::show(segment.last_at),
        })
    });
    let missing = report.missing.iter().map(|run| json!({"first": run.first, "last": run.last, "reason": run.reason.map(reason)}));
    json!({
        "directory": path.display().to_string(), "used_by": report.used_by, "closed": report.closed,
        "epoch": format!("{:08x}", report.epoch.0), "floor": report.floor, "head": report.head, "events": report.events,
        "bytes": report.bytes, "torn_bytes": report.torn_bytes,
        "segments": segments.collect::<Vec<_>>(), "missing": missing.collect::<Vec<_>>(),
    })
}

fn table(path: &Path, report: &LogReport) -> String {
    let state = match (&report.used_by, report.closed) {
        (Some(process), _) => format!("in use by process {process}; it may change meanwhile"),
        (None, Some(true)) => "closed properly".into(),
        (None, Some(false)) => "not closed properly: the next start looks for what a crash left unfinished".into(),
        (None, None) => "the state file is missing or damaged; see tidings log verify".into(),
    };
    let times = match (report.segments.first().and_then(|first| first.first_at), report.segments.last()) {
        (Some(first), Some(last)) => format!(", accepted {} to {}", moment::show(first), moment::show(last.last_at)),
        _ => String::new(),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "{name:<10} {value}").unwrap_or_default();
    line("directory", printable(&path.display().to_string()).into_owned());
    line("state", state);
    line("epoch", format!("{:08x}", report.epoch.0));
    line("events", format!("{}, after {} up to {}{times}", report.events, report.floor, report.head));
    line("bytes", format!("{} in {} segments", human(report.bytes), report.segments.len()));
    if report.torn_bytes > 0 {
        line("torn", format!("{} bytes of an unfinished append, which the next start cuts off", report.torn_bytes));
    }
    for run in &report.missing {
        if let Some(why) = run.reason {
            line("missing", format!("{} to {}: {}", run.first, run.last, reason(why)));
        }
    }
    if !report.segments.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<21} {:>12} {:>12} {:>10} {:>10}  {:<24}  {:<24}  index",
            "segment", "first", "last", "size", "dead", "first accepted", "last accepted"
        );
    }
    for segment in &report.segments {
        let _ = writeln!(
            text,
            "{:<21} {:>12} {:>12} {:>10} {:>10}  {:<24}  {:<24}  {}",
            segment.file,
            segment.first,
            segment.last,
            human(segment.bytes),
            human(segment.dead),
            segment.first_at.map_or("unreadable".into(), moment::show),
            moment::show(segment.last_at),
            if segment.indexed { "yes" } else { "no" }
        );
    }
    text
}

/// About so many bytes.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let Some(at) = (0..UNITS.len()).rfind(|at| bytes >> (10 * (at + 1)) > 0) else { return format!("{bytes} B") };
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * (at + 1))) as f64, UNITS[at])
}

pub(crate) fn verify(place: &Place) -> Result<(), Failure> {
    let path = &place.path;
    let mut out = io::stdout().lock();
    let (mut damages, mut said) = (0u64, Ok(()));
    let verified = place.open().and_then(|log| {
        log.verify(|finding| {
            damages += u64::from(finding.damage);
            let kind = if finding.damage { "damage" } else { "note" };
            let place = match (&*finding.file, finding.at) {
                ("", _) => String::new(),
                (file, None) => format!(" in {file}"),
                (file, Some(at)) => format!(" in {file} at byte {at}"),
            };
            if said.is_ok() {
                said = writeln!(out, "{kind}{place}: {}", finding.what);
            }
        })
    });
    let verified = verified.map_err(failed)?;
    let size = human(verified.bytes);
    let summary = format!("{} events in {} segments check, {size}", verified.events, verified.segments);
    written(said.and_then(|()| writeln!(out, "{summary}")))?;
    match damages {
        0 => Ok(()),
        damages => Err(failed(format!("{}: {damages} damages, listed above", path.display()))),
    }
}

pub(crate) fn export(place: &Place, export: &Export) -> Result<(), Failure> {
    let path = &place.path;
    let topics = export.topics.iter().map(|topic| TopicMatcher::exact(topic)).collect::<Result<Vec<_>, _>>();
    let topics = topics.map_err(|error| Failure::Usage(format!("--topic: {error}")))?;
    let matchers = if topics.is_empty() { Matchers::all() } else { Matchers::new(topics) };
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut result, mut gaps) = (Ok(()), 0u64);
    let log = place.open().map_err(failed)?;
    let read = log.read(matchers, export.since, |read| {
        match read {
            Ok(record) => result = writeln!(out, "{}", event(record, export.publishable)),
            Err((after, why)) => {
                gaps += 1;
                let _ = writeln!(io::stderr(), "tidings: events are missing after {after}: {}", reason(why));
            }
        }
        result.is_ok()
    });
    read.map_err(failed)?;
    written(result.and_then(|()| out.flush()))?;
    match gaps {
        0 => Ok(()),
        gaps => Err(failed(format!("{}: {gaps} gaps, listed above; everything else was read", path.display()))),
    }
}

/// One event as JSON. What is published again gets its id and its time from the hub it is published to.
fn event(record: &Record, publishable: bool) -> Value {
    let topics: Vec<&str> = record.topics().iter().map(tidings::Topic::as_str).collect();
    let mut event = json!({"topics": topics, "data": record.data()});
    if let Some(event_type) = record.event_type() {
        event["type"] = event_type.into();
    }
    if let Some(retry) = record.retry() {
        event["retry"] = retry.into();
    }
    if record.is_private() {
        event["private"] = true.into();
    }
    if let Some(id) = record.publisher_id() {
        event["id"] = id.into();
    }
    if !publishable {
        event["id"] = record.id().as_str().into();
        event["accepted_at"] = moment::show(record.accepted_at()).into();
    }
    event
}

pub(crate) fn compact(place: &Place, options: DiskOptions) -> Result<(), Failure> {
    let age = options.retention_age.map_or("of any age".into(), |age| format!("not older than {}", quantity::show_time(age)));
    let applied = format!("at most {}, {age}", quantity::show_size(options.retention_bytes));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| failed("the clock stands before 1970"))?;
    let compacted = place.open().and_then(|log| log.compact(options, now.as_millis() as u64));
    let (before, after) = compacted.map_err(stop_first)?;
    written(writeln!(io::stdout(), "{} before, {} now ({applied})", human(before), human(after)))
}

pub(crate) fn new_epoch(place: &Place, hub: Option<DiskOptions>, without_damaged: bool) -> Result<(), Failure> {
    let begun = place.open().and_then(|log| log.begin_new_epoch(hub, without_damaged)).map_err(stop_first)?;
    let (epoch, events) = (begun.epoch.0, begun.events);
    let left_out = if begun.damaged > 0 { format!("; left out in {} damaged places", begun.damaged) } else { String::new() };
    let text = format!("epoch {epoch:08x}, with {events} events; readers with an older cursor are told, and get all of them{left_out}");
    written(writeln!(io::stdout(), "{text}"))
}

fn stop_first(error: OpenError) -> Failure {
    match error {
        OpenError::InUse { path, by } => {
            failed(format!("the log in {path} is in use by process {by}, and this changes it: stop the hub first"))
        }
        OpenError::Damaged { path, places } => failed(format!(
            "the log in {path} is damaged in {places} places, which nobody could be told of in a new one: tidings log verify says where, and with \
             --without-damaged the new one begins without them"
        )),
        other => failed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, shown) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_600, "1.6 KiB"), (5 << 30, "5.0 GiB"), (1 << 50, "1024.0 TiB")]
        {
            assert_eq!(human(bytes), shown);
        }
    }
}
