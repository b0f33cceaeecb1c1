//! The least that answering a request costs with the same HTTP library: keep-alive, the body read whole, a short answer.

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io};

#[derive(Parser)]
struct Settings {
    #[arg(long, default_value_t = 0)]
    port: u16,
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let read = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    Ok(Response::new(Full::from(format!("{read}\n"))))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let settings = Settings::parse();
    let listener = tidings::serve::bind(([127, 0, 0, 1], settings.port).into())?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
