//! A live dashboard of this very process: every second its figures go out as named events, and a page shows them (Z-19).
//!
//! ```sh
//! cargo run -p tidings-examples --example runtime_figures
//! ```
//! Then open <http://localhost:3000/>. While nobody looks nothing is collected.

use axum::{Router, response::Html, routing::get};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};
use tidings::{Event, Hub};
use tokio::{net::TcpListener, runtime::Handle, time};

/// The page and the hub on a given listener.
pub(crate) async fn run(listener: TcpListener) -> anyhow::Result<()> {
    let hub = Hub::new()?;
    tokio::spawn(publish_figures(hub.clone()));
    // What the application does not answer itself is the hub's: `/subscribe/sysenv`, and `/publish/...` for whoever is on this machine.
    let service = hub.service().check_host(vec![listener.local_addr()?.to_string()]);
    let app = Router::new().route("/", get(|| async { Html(include_str!("runtime_figures.html")) })).fallback_service(service);
    Ok(axum::serve(listener, app).await?)
}

async fn publish_figures(hub: Hub) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut seconds = time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        if hub.subscribers() == 0 {
            continue;
        }
        for (name, figures) in figures(&hub, started) {
            // The topic says what it is about, the type which listener of the page gets it.
            hub.publish(Event::new(&format!("sysenv/{name}"), figures.to_string())?.with_type(name)?).await?;
        }
    }
}

/// One snapshot for each event name. What only Linux tells is `null` elsewhere.
fn figures(hub: &Hub, started: Instant) -> [(&'static str, Value); 4] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |field: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let load = fs::read_to_string("/proc/loadavg").ok();
    let tokio = Handle::current().metrics();
    [
        ("mem", json!({ "resident_kb": number("VmRSS"), "peak_kb": number("VmHWM") })),
        ("cpu", json!({ "seconds": cpu_seconds(), "cores": std::thread::available_parallelism().map_or(1, usize::from) })),
        ("sysLoad", json!({ "load": load.map(|load| load.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()) })),
        (
            "runtime",
            json!({
                "uptime_s": started.elapsed().as_secs(),
                "threads": number("Threads"),
                "tasks": tokio.num_alive_tasks(),
                "subscribers": hub.subscribers(),
            }),
        ),
    ]
}

/// User and system time of this process so far.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    // A tick is a hundredth of a second on Linux.
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(TcpListener::bind("127.0.0.1:3000").await?).await
}
