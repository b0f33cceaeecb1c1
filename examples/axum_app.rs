//! An axum application with a hub inside: browsers listen below `/events`, and a handler publishes.
//!
//! ```sh
//! cargo run -p tidings-examples --example axum_app
//! curl -N localhost:3000/events/subscribe/orders
//! curl -X POST localhost:3000/orders/42/ship
//! ```

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use tidings::{Event, Hub};
use tokio::net::TcpListener;

/// The application on a given listener.
pub(crate) async fn run(listener: TcpListener) -> anyhow::Result<()> {
    let hub = Hub::new()?;
    let orders = Router::new().route("/orders/{id}/ship", post(ship)).with_state(hub.clone());
    let app = orders.nest("/events", hub.router());
    Ok(axum::serve(listener, app).await?)
}

/// Ships an order and tells everybody who watches it.
async fn ship(State(hub): State<Hub>, Path(id): Path<String>) -> Result<String, (StatusCode, String)> {
    let event = Event::new(&format!("orders/{id}"), r#"{"state":"shipped"}"#).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let id = hub.publish(event).await.map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    Ok(format!("told as {id}\n"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(TcpListener::bind("127.0.0.1:3000").await?).await
}
