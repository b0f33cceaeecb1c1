//! What the programs of this package print for the harness: one JSON object per line.

use serde_json::{Value, json};
use std::{env, io::Write};

/// The URL to subscribe to: the only argument.
pub fn url() -> String {
    env::args().nth(1).expect("usage: PROGRAM URL")
}

fn print(line: Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("the harness reads");
}

/// The client says that it is connected.
pub fn opened() {
    print(json!({"open": true}));
}

/// The client says what went wrong.
pub fn failed(error: impl std::fmt::Debug) {
    print(json!({"error": format!("{error:?}")}));
}

/// The client shows an event.
pub fn received(event_type: &str, id: Option<&str>, data: &str) {
    print(json!({"type": event_type, "id": id, "data": data}));
}
