//! What one would write in an afternoon: axum's `Sse` over one `tokio::sync::broadcast` for each topic. It forgets events when a reader is
//! slow, and replays nothing.

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
    routing::{get, post},
};
use clap::Parser;
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};
use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};

#[derive(Parser)]
struct Settings {
    #[arg(long, default_value_t = 0)]
    port: u16,
}

type Topics = Arc<Mutex<HashMap<String, broadcast::Sender<String>>>>;

fn topic(topics: &Topics, name: String) -> broadcast::Sender<String> {
    topics.lock().expect("no panic under it").entry(name).or_insert_with(|| broadcast::channel(256).0).clone()
}

async fn subscribe(State(topics): State<Topics>, Path(name): Path<String>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(topic(&topics, name).subscribe()).filter_map(Result::ok);
    let first = tokio_stream::once(Event::default().comment("ok"));
    Sse::new(first.chain(events.map(|data| Event::default().data(data))).map(Ok)).keep_alive(KeepAlive::default())
}

async fn publish(State(topics): State<Topics>, Path(name): Path<String>, body: String) -> StatusCode {
    // Nobody listens: nothing to do.
    let _ = topic(&topics, name).send(body);
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let _ = tidings::serve::raise_open_files_limit();
    let settings = Settings::parse();
    let listener = tidings::serve::bind(([127, 0, 0, 1], settings.port).into())?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new().route("/subscribe/{*name}", get(subscribe)).route("/publish/{*name}", post(publish));
    axum::serve(listener, app.with_state(Topics::default())).await
}
