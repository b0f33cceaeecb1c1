//! One suite of behaviours over everything a stream can be carried by: what a reader sees is the same, whoever writes its bytes.
//!
//! It sees the hub from outside, over sockets of this machine. `running.rs` starts a hub and makes sure that the carrier is the one meant;
//! `reader.rs` reads.

mod arrival;
mod ends;
mod handover;
mod order;
mod presence;
mod reader;
mod running;
mod slow;

/// Who writes the bytes of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Engine {
    /// Engine A over HTTP/1.1: the HTTP library reads a body.
    Body,
    /// Engine B: a shard's thread, into the socket.
    Socket,
    /// Engine A over HTTP/2.
    Http2,
}

/// Makes tests of functions that take an [`Engine`]: one for each.
macro_rules! on_every_engine {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn body() {
                super::$name(crate::Engine::Body).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn socket() {
                super::$name(crate::Engine::Socket).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http2() {
                super::$name(crate::Engine::Http2).await;
            }
        }
    )+ };
}
pub(crate) use on_every_engine;
