//! The hub on plain hyper: your own listener, your own accept loop, no framework.
//!
//! ```sh
//! cargo run -p tidings-examples --example plain_hyper
//! curl -N localhost:3000/subscribe/news
//! curl -d hello localhost:3000/publish/news
//! ```

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tidings::Hub;
use tokio::net::TcpListener;

/// The hub on a given listener.
pub(crate) async fn run(listener: TcpListener) -> anyhow::Result<()> {
    let hub = Hub::new()?;
    // Nobody else's web page gets at it by pointing a name of its own at this machine.
    let service = hub.service().check_host(vec![listener.local_addr()?.to_string()]);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // Without a timer hyper waits for a slow request head for ever. A small buffer, because a slow reader is to fall behind in
            // the hub's log, where that costs nothing.
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).max_buf_size(16 << 10).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(TcpListener::bind("127.0.0.1:3000").await?).await
}
