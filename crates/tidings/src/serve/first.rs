//! The first turns of connections that were accepted together, in one task.
//!
//! Most of them need no other: their request is there, it is for a stream, and that leaves for a shard. So they cost one task together, and
//! the shard is woken once for all of them. It knows no sockets and no requests.

use crate::delivery::Ring;
use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// How often those that had nothing to say are looked at again, before the runtime is asked to say when they have.
pub(super) const LOOKS: u8 = 2;
/// How long after the look before. A request that is on its way when its connection is accepted is there by then; being watched instead
/// would cost two calls for the system, a timer and a task of its own.
const REST: Duration = Duration::from_millis(1);
/// After so long the others no longer wait for those before them: one whose handler keeps its thread would hold up all of them. A turn takes some
/// tens of microseconds, so this is over only when something is wrong.
const ENOUGH: Duration = Duration::from_millis(10);

/// Gives each of several connections its first turns and resolves to those that need more, for which somebody has to find a task. One that
/// is alone keeps this one.
pub(super) struct First<F> {
    fresh: Vec<Pin<Box<F>>>,
    looks: u8,
    rest: Option<Pin<Box<Sleep>>>,
}

impl<F> First<F> {
    pub(super) fn of(fresh: Vec<Pin<Box<F>>>) -> First<F> {
        First { fresh, looks: LOOKS, rest: None }
    }
}

impl<F: Future<Output = Option<Ring>>> Future for First<F> {
    type Output = Vec<Pin<Box<F>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let ([alone], true) = (&mut *this.fresh, this.looks == LOOKS) {
            return alone.as_mut().poll(cx).map(|_| Vec::new());
        }
        loop {
            if let Some(rest) = &mut this.rest {
                ready!(rest.as_mut().poll(cx));
                this.rest = None;
            }
            // Nobody has to wake this task for one of them: all are looked at again, here or in a task of their own.
            let mut quiet = Context::from_waker(Waker::noop());
            let mut rings = Vec::with_capacity(this.fresh.len());
            let (begun, mut late) = (Instant::now(), false);
            this.fresh.retain_mut(|connection| {
                if late {
                    return true;
                }
                let polled = connection.as_mut().poll(&mut quiet);
                late = begun.elapsed() > ENOUGH;
                match polled {
                    Poll::Ready(ring) => {
                        rings.extend(ring);
                        false
                    }
                    Poll::Pending => true,
                }
            });
            drop(rings);
            if this.fresh.is_empty() || this.looks == 0 || late {
                return Poll::Ready(mem::take(&mut this.fresh));
            }
            this.looks -= 1;
            this.rest = Some(Box::pin(tokio::time::sleep(REST)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Hub, serve::bind};
    use std::{cell::Cell, future::pending, io::Write, net::Shutdown, pin::pin, rc::Rc};
    use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

    type Connection = Pin<Box<dyn Future<Output = Option<Ring>>>>;

    /// One that is done when it was looked at so often.
    fn done_after(mut looks: u8) -> Pin<Box<Connection>> {
        Box::pin(Box::pin(std::future::poll_fn(move |_| {
            looks -= 1;
            if looks == 0 { Poll::Ready(None) } else { Poll::Pending }
        })))
    }

    fn waits() -> Pin<Box<Connection>> {
        Box::pin(Box::pin(pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_done_after_some_looks_is_handed_back() {
        assert_eq!(First::of(vec![done_after(1), waits(), done_after(LOOKS + 1), done_after(LOOKS + 2), waits()]).await.len(), 3);
        assert!(First::of(vec![done_after(1), done_after(LOOKS)]).await.is_empty());
    }

    #[test]
    fn who_is_alone_stays() {
        let mut first = First::of(vec![waits()]);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..=LOOKS + 1 {
            assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
        }
    }

    /// Who comes after one that keeps the thread gets a task of its own, and is not looked at here before.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_all_of_those_before() {
        let slow = || -> Pin<Box<Connection>> {
            Box::pin(Box::pin(async {
                // As long as it takes while nobody else gets a turn.
                let mut cx = Context::from_waker(Waker::noop());
                let _ = pin!(tokio::time::advance(2 * ENOUGH)).poll(&mut cx);
                None
            }))
        };
        let looked_at = |looks: &Rc<Cell<u8>>| -> Pin<Box<Connection>> {
            let looks = looks.clone();
            Box::pin(Box::pin(std::future::poll_fn(move |_| {
                looks.set(looks.get() + 1);
                Poll::Pending
            })))
        };
        let (before, after) = (Rc::default(), Rc::default());
        let rest = First::of(vec![looked_at(&before), slow(), looked_at(&after), slow()]).await;
        assert_eq!((rest.len(), before.get(), after.get()), (3, 1, 0));
    }

    const PATIENCE: Duration = Duration::from_secs(10);
    const STREAM: &str = "GET /subscribe/a HTTP/1.1\r\nhost: x\r\n\r\n";
    const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

    async fn wait_for(client: &mut TcpStream, read: &mut Vec<u8>, name: &str, what: &[u8]) {
        while !read.windows(what.len()).any(|bytes| bytes == what) {
            let more = timeout(PATIENCE, client.read_buf(read)).await;
            let n = more.unwrap_or_else(|_| panic!("{name}: in vain, after {:?}", String::from_utf8_lossy(read))).unwrap();
            assert!(n > 0, "{name}: closed after {:?}", String::from_utf8_lossy(read));
        }
    }

    /// Connections that are accepted together are served as if each had come alone, whatever they have sent by then.
    #[tokio::test]
    async fn together_as_alone() {
        let hub = Hub::new().unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let long = format!("GET /subscribe/a HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(3_000));
        let pipelined = format!("{LIVE}{STREAM}");
        // What was sent before the connection is accepted, what is sent afterwards, what comes back, and whether it is a stream.
        let cases: &[(&str, &str, &str, &[u8], bool)] = &[
            ("the first, which the runtime accepts", STREAM, "", b"text/event-stream", true),
            ("its request is there", STREAM, "", b"text/event-stream", true),
            ("its request comes later", "", STREAM, b"text/event-stream", true),
            ("half of its head is there", &STREAM[..20], &STREAM[20..], b"text/event-stream", true),
            ("its head is long", &long, "", b"text/event-stream", true),
            ("half of a long head is there", &long[..2_000], &long[2_000..], b"text/event-stream", true),
            ("a request before the stream", &pipelined, "", b"text/event-stream", true),
            ("a second request later", LIVE, STREAM, b"text/event-stream", true),
            ("no stream", LIVE, "", b"HTTP/1.1 200 OK\r\n", false),
            ("no HTTP", "what\r\n\r\n", "", b"HTTP/1.1 400 Bad Request\r\n", false),
            ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "", b"\0\0\0\x04\x01\0\0\0\0", false),
            ("one that ends its half with its request", STREAM, "FIN", b"text/event-stream", true),
        ];
        let connect = |&(_, before, after, ..): &(&str, &str, &str, &[u8], bool)| {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(before.as_bytes()).unwrap();
            if after == "FIN" {
                client.shutdown(Shutdown::Write).unwrap();
            }
            client
        };
        // The server runs on this thread and sees none of them before all are there.
        let clients: Vec<_> = cases.iter().map(connect).collect();
        let server = crate::serve::Server::new(hub.config()).serve(listener, hub.service(), pending::<()>());
        let server = tokio::spawn(server);
        let mut open = Vec::new();
        for (client, &(name, before, after, answer, _)) in clients.into_iter().zip(cases) {
            client.set_nonblocking(true).unwrap();
            let mut client = TcpStream::from_std(client).unwrap();
            let mut read = Vec::new();
            if before == LIVE && after == STREAM {
                wait_for(&mut client, &mut read, name, b"HTTP/1.1 200 OK\r\n").await;
            }
            if after != "FIN" {
                tokio::io::AsyncWriteExt::write_all(&mut client, after.as_bytes()).await.unwrap();
            }
            wait_for(&mut client, &mut read, name, answer).await;
            open.push((client, read));
        }
        hub.publish(Event::new("a", "hello").unwrap()).await.unwrap();
        for ((mut client, mut read), &(name, .., streams)) in open.into_iter().zip(cases) {
            if streams {
                wait_for(&mut client, &mut read, name, b"data: hello\n").await;
            }
        }
        server.abort();
    }
}
