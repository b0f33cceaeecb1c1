//! One run: a fresh server, `tidings bench` against it, and what both of them and the machine say afterwards.
//!
//! It knows no rows and no goals.

use crate::{
    keys::Keys,
    rows::Variant,
    servers::{Server, built, halves, on},
};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

/// Longer than any run takes; a server that hangs ends here.
const DEADLINE: Duration = Duration::from_mins(5);
/// Cores that others may use while something is measured; beyond it the run is done again, once.
const FOREIGN: f64 = 0.4;
/// Ticks a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;

/// Runs a variant, again if somebody else used the machine meanwhile.
pub(crate) fn run(server: &str, variant: &Variant, keys: &Keys) -> Result<Value> {
    let first = once(server, variant, keys)?;
    let foreign = first["foreign_cores"].as_f64().unwrap_or(0.0);
    if foreign <= FOREIGN {
        return Ok(first);
    }
    eprintln!("  others used {foreign:.2} cores; once more");
    once(server, variant, keys)
}

fn once(name: &str, variant: &Variant, keys: &Keys) -> Result<Value> {
    if name == "one-writer" {
        return one_writer();
    }
    let filled = |text: &str| text.split_whitespace().map(|argument| keys.fill(argument)).collect::<Result<Vec<String>>>();
    let flags = if ["hub", "embedded"].contains(&name) { filled(variant.serve)? } else { Vec::new() };
    let (began, busy, own) = (Instant::now(), busy(), own());
    let (for_server, for_load) = if variant.apart { halves().map(|(first, second)| (Some(first), Some(second)))? } else { (None, None) };
    let server = Server::start(name, &flags, for_server.as_deref())?;
    let arguments = filled(variant.bench)?;
    let (mode, arguments) = arguments.split_first().context("a mode")?;
    let mut command = if mode == "probe" {
        Command::new(built("log-probe")?)
    } else {
        let mut command = Command::new(built("tidings")?);
        command.args(["bench", mode]);
        command
    };
    command.args([&server.url, "--json", "--pid", &server.pid().to_string()]).args(arguments);
    let mut child = on(for_load.as_deref(), command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting tidings bench")?;
    let (mut out, mut err) = (child.stdout.take().context("a pipe")?, child.stderr.take().context("a pipe")?);
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        let _ = send.send(text);
    });
    let said = thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let text = receive.recv_timeout(DEADLINE);
    if text.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let said = said.join().unwrap_or_default();
    let text = text.map_err(|_| anyhow!("tidings bench did not end within {} s", DEADLINE.as_secs()))?;
    let Ok(Value::Object(mut figures)) = serde_json::from_str(text.trim()) else {
        bail!("tidings bench: {}", said.lines().last().unwrap_or("no figures"));
    };
    figures.insert("clean".into(), json!(status.success()));
    if !status.success() {
        eprintln!("  not clean: {}", faults(&figures));
    }
    if ["hub", "embedded"].contains(&name) {
        figures.insert("metrics".into(), metrics(&server.url).unwrap_or_default());
    }
    // What it used is known once it is waited for.
    drop(server);
    let seconds = began.elapsed().as_secs_f64();
    let used = (self::busy() - busy) - (self::own() - own);
    figures.insert("foreign_cores".into(), json!((used / seconds).max(0.0)));
    Ok(Value::Object(figures))
}

/// Not a server, but a loop around the disk that servers use.
fn one_writer() -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("tidings-compare-").tempdir()?;
    let output = Command::new(built("one-writer")?).arg(folder.path()).output().context("starting one-writer")?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn faults(figures: &Map<String, Value>) -> String {
    let names = ["expected", "deliveries", "missing", "duplicates", "out_of_order", "gaps", "ended"];
    let parts = names.iter().filter_map(|name| Some(format!("{name} {}", figures.get(*name)?)));
    parts.collect::<Vec<_>>().join(", ")
}

/// What the hub counts about itself, without what never moved.
fn metrics(url: &str) -> Result<Value> {
    let address = url.strip_prefix("http://").context("an address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| line.starts_with("tidings_"));
    let values = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let value: f64 = value.parse().ok()?;
        (value != 0.0).then(|| (name.to_owned(), json!(value)))
    });
    Ok(Value::Object(values.collect()))
}

/// Seconds that the cores of this machine were busy.
fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|x| x.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; waiting is not work, and guests are in the first two already.
    [0, 1, 2, 5, 6].iter().filter_map(|&at| fields.get(at)).sum::<f64>() / TICKS
}

/// Seconds this process and all children it has waited for were busy.
fn own() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    // utime, stime, cutime, cstime: the 14th to 17th field of all.
    fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}
