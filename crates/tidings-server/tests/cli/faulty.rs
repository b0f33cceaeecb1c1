//! A server of event streams that breaks one promise, so that a check can be seen to find it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What goes wrong with the fifth event, or from the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Nothing,
    /// Nobody gets it.
    Lose,
    /// Everybody gets it twice.
    Repeat,
    /// It comes after the sixth.
    Swap,
    /// One stream ends after it, and that reader gets no more.
    Cut,
    /// Everybody is told that something is missing.
    Gap,
    /// It is not answered for a while, and neither is what comes after it.
    Stall,
    /// Subscriptions are refused.
    RefuseReaders,
    /// The first subscription is refused, and no other.
    RefuseOnce,
    /// Publishes are refused.
    RefusePublishers,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    readers: Vec<TcpStream>,
    subscriptions: usize,
    published: usize,
    /// Kept back until the next event.
    late: Option<String>,
}

/// For how long at least.
pub(crate) const STALL: Duration = Duration::from_millis(400);

fn wait_while_stalled() {
    thread::sleep(STALL);
}

/// Starts one, and returns its address. It ends with the test.
pub(crate) fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::new(Mutex::new(State { fault, readers: Vec::new(), subscriptions: 0, published: 0, late: None }));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = state.clone();
            thread::spawn(move || serve(stream, &state));
        }
    });
    url
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if first.is_empty() {
                first.clone_from(&line);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().ok()?;
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut state = state.lock().ok()?;
        if first.starts_with("GET") {
            state.subscriptions += 1;
            if state.fault == Fault::RefuseReaders || (state.fault == Fault::RefuseOnce && state.subscriptions == 1) {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").ok()?;
                return None;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: ok\n\n").ok()?;
            state.readers.push(stream.try_clone().ok()?);
        } else if state.fault == Fault::RefusePublishers {
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large").ok()?;
        } else {
            state.publish(&String::from_utf8_lossy(&body));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
        }
    }
}

impl State {
    fn publish(&mut self, data: &str) {
        self.published += 1;
        let event = format!("data: {data}\n\n");
        let fifth = self.published == 5;
        match self.fault {
            Fault::Lose if fifth => {}
            Fault::Repeat if fifth => self.send(&format!("{event}{event}")),
            Fault::Swap if fifth => self.late = Some(event),
            Fault::Cut if fifth => {
                self.send(&event);
                let _ = self.readers.remove(0).shutdown(Shutdown::Both);
            }
            Fault::Stall if fifth => {
                wait_while_stalled();
                self.send(&event);
            }
            Fault::Gap if fifth => self.send(&format!("event: tidings.gap\ndata: {{}}\n\n{event}")),
            _ => {
                let late = self.late.take().unwrap_or_default();
                self.send(&format!("{event}{late}"));
            }
        }
    }

    fn send(&mut self, text: &str) {
        // Who is gone gets nothing; that is the client's to notice.
        self.readers.retain_mut(|reader| reader.write_all(text.as_bytes()).is_ok());
    }
}
