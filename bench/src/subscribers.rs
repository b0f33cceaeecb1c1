//! The subscribers: plain sockets in one poll, each with its stream and its check.
//!
//! It knows sockets; what the bytes mean is the stream's, what should come is the check's.

use crate::{
    check::{Check, Tally},
    publish::topic,
    stream::{Said, Stream},
};
use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Connections asked for at once: well under the backlog of any listener.
const OPENING: usize = 128;

#[derive(Debug)]
pub(crate) struct Subscribers {
    poll: Poll,
    all: Vec<Subscriber>,
    open: usize,
    tally: Tally,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Subscriber {
    /// `None` once it ended.
    socket: Option<TcpStream>,
    stream: Stream,
    check: Check,
}

impl Subscribers {
    /// Opens `count` subscribers over `topics` topics and waits until each got its first line.
    pub(crate) fn open(address: SocketAddr, count: u32, topics: u32, patience: Duration) -> Result<Subscribers> {
        let mut subscribers =
            Subscribers { poll: Poll::new()?, all: Vec::new(), open: 0, tally: Tally::default(), buffer: vec![0; 256 << 10] };
        for number in 0..count {
            subscribers.add(address, number % topics).with_context(|| format!("opening subscriber {number} (ulimit -n bounds them)"))?;
            if subscribers.all.len() - subscribers.open >= OPENING {
                subscribers.run(patience, |it| it.all.len() - it.open < OPENING / 2 || it.tally.ended > 0)?;
            }
            ensure!(subscribers.tally.ended == 0, "the hub closed a connection while the first {} were opened", number + 1);
        }
        subscribers.run(patience, |it| it.open == it.all.len() || it.tally.ended > 0)?;
        let (open, ended) = (subscribers.open, subscribers.tally.ended);
        ensure!(open == subscribers.all.len() && ended == 0, "{open} of {count} subscribers were let in, {ended} connections closed");
        Ok(subscribers)
    }

    fn add(&mut self, address: SocketAddr, topic_number: u32) -> Result<()> {
        // Connecting blocks, which on one machine is short; everything after it does not.
        let mut socket = std::net::TcpStream::connect(address)?;
        let target = format!("/subscribe?topic={}&prime=0", topic(topic_number));
        socket.write_all(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n").as_bytes())?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(self.all.len()), Interest::READABLE)?;
        self.all.push(Subscriber { socket: Some(socket), stream: Stream::new(), check: Check::new(topic_number) });
        Ok(())
    }

    /// Reads until `expected` events were received, or nothing came for as long as `patience` lasts.
    pub(crate) fn check(&mut self, per_topic: u32, expected: u64, patience: Duration) -> Result<Tally> {
        self.run(patience, |it| it.tally.received >= expected)?;
        // What comes now is too much.
        self.run(Duration::from_millis(300), |_| false)?;
        let missing = self.all.iter().map(|subscriber| subscriber.check.missing(per_topic)).sum();
        Ok(Tally { missing, ..self.tally })
    }

    /// Turns the poll until `done`, or until nothing happened for `patience`.
    fn run(&mut self, patience: Duration, done: impl Fn(&Subscribers) -> bool) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut progress = Instant::now();
        while !done(self) && progress.elapsed() < patience {
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let before = (self.tally, self.open);
            for event in &events {
                self.read(event.token().0)?;
            }
            // Heartbeats are not progress.
            if before != (self.tally, self.open) {
                progress = Instant::now();
            }
        }
        Ok(())
    }

    fn read(&mut self, number: usize) -> Result<()> {
        let subscriber = &mut self.all[number];
        while let Some(socket) = &mut subscriber.socket {
            let length = match socket.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let (tally, open, check) = (&mut self.tally, &mut self.open, &mut subscriber.check);
            let mut ended = length == 0;
            let result = subscriber.stream.push(&self.buffer[..length], |said| match said {
                Said::Open => *open += 1,
                Said::Event { data, id } => check.event(data, id, tally),
                Said::Gap => tally.gaps += 1,
                Said::End => ended = true,
            });
            if let Err(broken) = result {
                bail!("subscriber {number}: {}", broken.0);
            }
            if ended {
                tally.ended += 1;
                subscriber.socket = None;
            }
        }
        Ok(())
    }
}
