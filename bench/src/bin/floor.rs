//! The floor: what delivering costs when nothing is done but the system calls. One thread, one prebuilt event, one non-blocking `send` for
//! each subscriber; with `--coalesce` one for everything that publishers sent since the last look.
//!
//! It keeps nothing, replays nothing and checks nothing: a subscriber that takes less than everything is closed. `GET` subscribes to its
//! path behind `/subscribe/`, `POST` publishes to its path behind `/publish/`.

use clap::Parser;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use slab::Slab;
use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

/// One thread, one `send` for each subscriber and event.
#[derive(Parser)]
struct Settings {
    /// Everything pending in one `send` for each subscriber.
    #[arg(long)]
    coalesce: bool,
    #[arg(long, default_value_t = 0)]
    port: u16,
}

const LISTENER: Token = Token(usize::MAX);
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n5\r\n: ok\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

struct Connection {
    stream: TcpStream,
    /// What was read of a request that is not complete; empty for subscribers.
    read: Vec<u8>,
    /// The topic, and the place among its subscribers.
    subscribed: Option<(usize, usize)>,
}

#[derive(Default)]
struct Topic {
    members: Vec<usize>,
    pending: Vec<u8>,
}

struct Floor {
    settings: Settings,
    connections: Slab<Connection>,
    topics: Vec<Topic>,
    names: HashMap<Vec<u8>, usize>,
    /// Topics with something pending.
    dirty: Vec<usize>,
}

fn main() -> io::Result<()> {
    let _ = tidings::serve::raise_open_files_limit();
    let settings = Settings::parse();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], settings.port).into();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Inherited by the connections.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::MAX)?;
    let mut listener = TcpListener::from_std(socket.into());
    println!("listening on http://{}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let (connections, topics, names, dirty) = Default::default();
    let mut floor = Floor { settings, connections, topics, names, dirty };
    let mut scratch = vec![0; 64 << 10];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let entry = floor.connections.vacant_entry();
                    let token = Token(entry.key());
                    let connection = entry.insert(Connection { stream, read: Vec::new(), subscribed: None });
                    poll.registry().register(&mut connection.stream, token, Interest::READABLE)?;
                }
            } else {
                floor.readable(event.token().0, &mut scratch);
            }
        }
        floor.flush();
    }
}

impl Floor {
    fn readable(&mut self, index: usize, scratch: &mut [u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(index) else { return };
            match connection.stream.read(scratch) {
                Ok(0) => return self.close(index),
                Ok(n) => {
                    if connection.subscribed.is_none() {
                        connection.read.extend_from_slice(&scratch[..n]);
                        self.requests(index);
                    }
                    if n < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            }
        }
    }

    fn requests(&mut self, index: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(index) else { return };
            let Some(end) = connection.read.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            let head = &connection.read[..end];
            let path = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
            if head.starts_with(b"GET") {
                let topic = topic(&mut self.names, &mut self.topics, path.strip_prefix(b"/subscribe/").unwrap_or(path));
                let members = &mut self.topics[topic].members;
                connection.subscribed = Some((topic, members.len()));
                connection.read = Vec::new();
                members.push(index);
                if connection.stream.write(HEAD).is_err() {
                    self.close(index);
                }
                return;
            }
            let field = head.split(|&b| b == b'\n').find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:"));
            let length = field.and_then(|line| std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok()).unwrap_or(0);
            let (from, to) = (end + 4, end + 4 + length);
            if connection.read.len() < to {
                return;
            }
            let topic = topic(&mut self.names, &mut self.topics, path.strip_prefix(b"/publish/").unwrap_or(path));
            let pending = &mut self.topics[topic].pending;
            if pending.is_empty() {
                self.dirty.push(topic);
            }
            let data = &connection.read[from..to];
            let _ = write!(pending, "{:x}\r\ndata: ", data.len() + 8);
            pending.extend_from_slice(data);
            pending.extend_from_slice(b"\n\n\r\n");
            connection.read.drain(..to);
            if connection.stream.write(ANSWER).is_err() {
                self.close(index);
            }
            if !self.settings.coalesce {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        for topic in std::mem::take(&mut self.dirty) {
            let pending = std::mem::take(&mut self.topics[topic].pending);
            let mut place = 0;
            while let Some(&index) = self.topics[topic].members.get(place) {
                match self.connections[index].stream.write(&pending) {
                    Ok(n) if n == pending.len() => place += 1,
                    // Who was last in the list has this place now.
                    _ => self.close(index),
                }
            }
            self.topics[topic].pending = pending;
            self.topics[topic].pending.clear();
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(connection) = self.connections.try_remove(index)
            && let Some((topic, place)) = connection.subscribed
        {
            let members = &mut self.topics[topic].members;
            members.swap_remove(place);
            if let Some(&moved) = members.get(place) {
                self.connections[moved].subscribed = Some((topic, place));
            }
        }
    }
}

fn topic(names: &mut HashMap<Vec<u8>, usize>, topics: &mut Vec<Topic>, name: &[u8]) -> usize {
    if let Some(&topic) = names.get(name) {
        return topic;
    }
    topics.push(Topic::default());
    names.insert(name.to_vec(), topics.len() - 1);
    topics.len() - 1
}
