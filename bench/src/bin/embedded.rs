//! The hub as a library: mounted in an axum application and served by axum's own accept loop, which hands no socket over. What streams cost
//! there is what HTTP libraries charge for them.

use axum::Router;
use clap::Parser;
use std::io;
use tidings::{Config, Hub};

/// A hub inside somebody else's server.
#[derive(Parser)]
struct Settings {
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bytes of events kept in memory.
    #[arg(long, value_parser = size)]
    window_bytes: Option<usize>,
    /// How far a reader may fall behind, in bytes.
    #[arg(long, value_parser = size)]
    lag_bytes: Option<usize>,
    /// Largest data of one event.
    #[arg(long, value_parser = size)]
    event_data: Option<usize>,
}

/// A size as the settings of the binary write it, so that both can be started with the same ones.
fn size(text: &str) -> Result<usize, String> {
    let units = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let parsed = units.iter().find_map(|(unit, size)| text.strip_suffix(unit)?.parse::<usize>().ok()?.checked_mul(*size));
    parsed.ok_or_else(|| format!("`{text}` is not a size such as 64KiB"))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let _ = tidings::serve::raise_open_files_limit();
    let settings = Settings::parse();
    let mut config = Config::default();
    config.window_bytes = settings.window_bytes.unwrap_or(config.window_bytes);
    config.lag_bytes = settings.lag_bytes.map_or(config.lag_bytes, |bytes| bytes as u64);
    config.event_data = settings.event_data.unwrap_or(config.event_data);
    let hub = Hub::builder().config(config).build().map_err(io::Error::other)?;
    let listener = tidings::serve::bind(([127, 0, 0, 1], settings.port).into())?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().merge(hub.router())).await
}
