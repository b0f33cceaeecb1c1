//! The load itself: subscribers and publishers as plain sockets in one thread, which looks at them in turn and naps when nothing came. A
//! reader that blocked would have to be woken by the server's own write, and its price would be in the server's bill.
//!
//! It knows when to send and what came; which load is meant, and what is made of the figures, is the modes' to know.

use super::{
    source::Source,
    stamp::{Checker, Phase, Stamp},
    stream::{Item, Stream},
    tally::Counts,
    target::Target,
};
use crate::Failure;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant, SystemTime},
};

/// How long the thread sleeps when there was nothing to do.
const NAP: Duration = Duration::from_micros(200);
/// Subscribers looked at before the publishers are looked at again: their answers, and what they send next, must not wait behind
/// thousands of readers, or the tool measures itself.
const READERS: usize = 256;

#[derive(Debug, Default)]
struct Subscriber {
    /// `None` before it connects and after it ended.
    socket: Option<TcpStream>,
    stream: Stream,
    asked: bool,
    open: bool,
    /// It reads nothing any more.
    stalled: bool,
}

#[derive(Debug)]
struct Publisher {
    socket: TcpStream,
    out: Vec<u8>,
    answers: Vec<u8>,
    /// Intended times of the requests that are not answered.
    waiting: VecDeque<u64>,
}

/// Which part of the load this process is.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) target: Target,
    /// The number of the first subscriber here, and how many there are.
    pub(super) first: usize,
    pub(super) subscribers: usize,
    /// Publishers here, and in the whole run.
    pub(super) publishers: usize,
    pub(super) senders: usize,
    /// Topics in the whole run.
    pub(super) topics: usize,
    /// Bytes of data of an event.
    pub(super) size: usize,
    /// Which of several processes this is, if their origins have to differ.
    pub(super) place: Option<u8>,
}

/// How subscribers are opened.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// Connections being opened at once.
    pub(super) at_once: usize,
    /// The cursor each of them brings; empty for none.
    pub(super) cursor: String,
    /// Those that fail are counted and tried again, instead of ending the run.
    pub(super) again: bool,
}

pub(super) struct Load {
    readers: Poll,
    events: Events,
    writers: Poll,
    writer_events: Events,
    share: Share,
    began: Instant,
    /// The shared clock when this process began.
    origin: u64,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    buffer: Vec<u8>,
    /// By subscriber, and by publisher unless each has a topic of its own.
    checker: Checker,
    per_subscriber: usize,
    /// The last number given, by publisher or by topic.
    numbers: Vec<u32>,
    open: usize,
    /// Connections that were begun and are neither open nor gone.
    opening: usize,
    /// Subscribers to be tried again.
    lost: Vec<usize>,
    cursor: String,
    source: Source,
    /// Why publishing failed.
    broken: Option<Failure>,
    pub(super) counts: Counts,
    padding: Vec<u8>,
    /// By subscriber, the line of its request that carries its token.
    tokens: Vec<String>,
    /// Events published so far.
    sent: usize,
    pub(super) pipeline: usize,
    pub(super) batch: usize,
    /// The newest answers' bodies are kept: the ids of what was published.
    pub(super) ids: Option<Vec<u8>>,
}

fn running(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Running(format!("{what}: {error}"))
}

fn look(poll: &mut Poll, events: &mut Events) -> Result<(), Failure> {
    match poll.poll(events, Some(Duration::ZERO)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(running("waiting for sockets failed", error)),
        _ => Ok(()),
    }
}

impl Load {
    pub(super) fn new(share: Share) -> Result<Load, Failure> {
        let poll = || Poll::new().map_err(|error| running("cannot wait for sockets", error));
        let Share { subscribers, publishers, senders, topics, size, .. } = share;
        let (own_topics, source) = (share.target.own_topics(), Source::new(share.place));
        let per_subscriber = if own_topics { 1 } else { senders.max(1) };
        let origin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut load = Load {
            readers: poll()?,
            events: Events::with_capacity(READERS),
            writers: poll()?,
            writer_events: Events::with_capacity(READERS),
            share,
            began: Instant::now(),
            origin,
            subscribers: Vec::new(),
            publishers: Vec::new(),
            buffer: vec![0; 256 << 10],
            checker: Checker::new(subscribers * per_subscriber),
            per_subscriber,
            numbers: vec![0; if own_topics { topics } else { publishers }.max(1)],
            open: 0,
            opening: 0,
            lost: Vec::new(),
            cursor: String::new(),
            source,
            broken: None,
            counts: Counts::default(),
            padding: vec![b'x'; size.saturating_sub(super::stamp::LEN)],
            tokens: Vec::new(),
            sent: 0,
            pipeline: 1,
            batch: 1,
            ids: None,
        };
        load.tokens = load.share.target.tokens.of_subscribers(load.share.first, subscribers)?;
        load.subscribers.resize_with(subscribers, Subscriber::default);
        for number in 0..publishers {
            let mut socket = TcpStream::connect(load.share.target.address).map_err(|error| running("cannot connect a publisher", error))?;
            let _ = socket.set_nodelay(true);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = load.writers.registry();
            registry.register(&mut socket, Token(number), interest).map_err(|error| running("cannot wait for a publisher", error))?;
            load.publishers.push(Publisher { socket, out: Vec::new(), answers: Vec::new(), waiting: VecDeque::new() });
        }
        Ok(load)
    }

    /// Nanoseconds of a clock that all processes of the run share: the wall clock when each began, and steady since.
    pub(super) fn now(&self) -> u64 {
        self.origin + u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// Connects the subscribers that are not there, up to `to` of them, and waits for the first bytes of each. `told` is called often.
    pub(super) fn connect(&mut self, to: usize, opening: &Opening, told: &mut dyn FnMut(usize)) -> Result<(), Failure> {
        let started = Instant::now();
        let to = to.min(self.subscribers.len());
        self.cursor.clone_from(&opening.cursor);
        self.lost.clear();
        let failures = |counts: &Counts| counts.refused + counts.failed;
        let before = failures(&self.counts);
        // Whoever fails again and again is not in a storm, but at the wrong address.
        let patience = if opening.again { 10 * to as u64 } else { 0 };
        let mut next = 0;
        while self.open < to {
            while self.opening < opening.at_once {
                let index = match self.lost.pop() {
                    Some(index) => index,
                    None if next < to => {
                        next += 1;
                        next - 1
                    }
                    None => break,
                };
                if self.subscribers[index].socket.is_none() {
                    self.begin(index)?;
                }
            }
            self.turn()?;
            told(self.open);
            if failures(&self.counts) - before > patience || self.counts.ended > 0 {
                let Counts { refused, failed, ended, .. } = self.counts;
                return Err(Failure::Running(format!(
                    "{} of {to} subscribers are open; {refused} were refused, {failed} could not connect, {ended} were closed again; look at the server's limits, and at `ulimit -n` on both sides",
                    self.open
                )));
            }
            if started.elapsed() > Duration::from_mins(2) {
                return Err(Failure::Running(format!("only {} of {to} subscribers were answered within two minutes", self.open)));
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) -> Result<(), Failure> {
        let mut socket =
            self.source.connect(self.share.target.address).map_err(|error| running("cannot connect (see `ulimit -n`)", error))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.readers
            .registry()
            .register(&mut socket, Token(index), interest)
            .map_err(|error| running("cannot wait for a socket", error))?;
        self.subscribers[index] = Subscriber { socket: Some(socket), ..Subscriber::default() };
        self.opening += 1;
        Ok(())
    }

    /// Everybody starts with this number.
    pub(super) fn expect(&mut self, number: u32) {
        self.checker.expect(number);
    }

    /// Closes all subscribers, with the next numbers they would expect kept for when they come back.
    pub(super) fn close_all(&mut self) {
        for subscriber in &mut self.subscribers {
            *subscriber = Subscriber::default();
        }
        (self.open, self.opening) = (0, 0);
    }

    /// From now on the last `count` subscribers read nothing.
    pub(super) fn stall(&mut self, count: usize) {
        for subscriber in self.subscribers.iter_mut().rev().take(count) {
            subscriber.stalled = true;
        }
    }

    /// The stalled ones read again, until nothing comes for a while. Returns how many were closed or told of a gap.
    pub(super) fn unstall(&mut self) -> Result<usize, Failure> {
        let stalled: Vec<usize> = (0..self.subscribers.len()).filter(|&index| self.subscribers[index].stalled).collect();
        let gaps = self.counts.gaps;
        for &index in &stalled {
            self.subscribers[index].stalled = false;
            self.read(index, true);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let (mut reads, mut last) = (self.counts.reads, Instant::now());
        while last.elapsed() < Duration::from_millis(500) && Instant::now() < deadline {
            self.turn()?;
            if self.counts.reads > reads {
                (reads, last) = (self.counts.reads, Instant::now());
            }
        }
        let closed = stalled.iter().filter(|&&index| self.subscribers[index].socket.is_none()).count();
        Ok(closed + (self.counts.gaps - gaps) as usize)
    }

    /// A publisher that may send; the first after `from`.
    pub(super) fn free_publisher(&self, from: usize) -> Option<usize> {
        let count = self.publishers.len();
        (0..count).map(|offset| (from + offset) % count).find(|&at| self.is_free(at))
    }

    pub(super) fn is_free(&self, publisher: usize) -> bool {
        self.publishers[publisher].waiting.len() < self.pipeline
    }

    /// Sends one request; with topics of their own `topic` says which.
    pub(super) fn publish(&mut self, publisher: usize, topic: usize, phase: Phase, intended: u64) {
        let own = self.share.target.own_topics();
        let counter = if own { topic } else { publisher };
        let mut payloads = Vec::with_capacity(self.batch);
        for _ in 0..self.batch {
            self.numbers[counter] += 1;
            let stamp = Stamp { publisher: if own { 0 } else { publisher as u8 }, phase, number: self.numbers[counter], intended };
            let mut payload = Vec::with_capacity(super::stamp::LEN + self.padding.len());
            stamp.write(&mut payload);
            payload.extend_from_slice(&self.padding);
            payloads.push(payload);
        }
        let to = &mut self.publishers[publisher];
        self.share.target.publish_request(topic, self.sent, &payloads, &mut to.out);
        self.sent += self.batch;
        to.waiting.push_back(intended);
        let count = if phase == Phase::Measured { &mut self.counts.published } else { &mut self.counts.warm_up_published };
        *count += self.batch as u64;
        self.flush(publisher);
    }

    fn flush(&mut self, publisher: usize) {
        let to = &mut self.publishers[publisher];
        while !to.out.is_empty() {
            match to.socket.write(&to.out) {
                Ok(n) => drop(to.out.drain(..n)),
                // The system tells a failure once, here; the next read would only find an end.
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    self.broken.get_or_insert_with(|| running("cannot publish", error));
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Looks at every publisher and at some subscribers once; naps if there was nothing.
    pub(super) fn turn(&mut self) -> Result<(), Failure> {
        let mut written = std::mem::replace(&mut self.writer_events, Events::with_capacity(0));
        look(&mut self.writers, &mut written)?;
        for event in &written {
            self.flush(event.token().0);
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            self.answers(event.token().0)?;
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        look(&mut self.readers, &mut events)?;
        let nothing = events.is_empty() && written.is_empty();
        for event in &events {
            let index = event.token().0;
            if event.is_writable() && !self.subscribers[index].asked {
                self.ask(index);
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(index, event.is_read_closed());
            }
        }
        (self.events, self.writer_events) = (events, written);
        if nothing {
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    fn ask(&mut self, index: usize) {
        let token = self.tokens.get(index).map_or("", String::as_str);
        let request = self.share.target.subscribe_request(self.share.first + index, &self.cursor, token);
        let subscriber = &mut self.subscribers[index];
        subscriber.asked = true;
        let written = subscriber.socket.as_mut().map(|socket| socket.write(request.as_bytes()));
        if !matches!(written, Some(Ok(n)) if n == request.len()) {
            self.counts.failed += 1;
            self.opening -= 1;
            self.lost.push(index);
            subscriber.socket = None;
        }
    }

    /// Takes what came. A short read is the last one, unless an end came with it: there is no second notice of that.
    fn read(&mut self, index: usize, to_the_end: bool) {
        let now = self.now();
        let Load { subscribers, buffer, counts, checker, per_subscriber, open, opening, lost, .. } = self;
        let subscriber = &mut subscribers[index];
        if subscriber.stalled {
            return;
        }
        loop {
            let Some(socket) = &mut subscriber.socket else { return };
            let (mut ended, mut refused) = (false, false);
            match socket.read(buffer) {
                Ok(0) => ended = true,
                Ok(n) => {
                    counts.reads += 1;
                    subscriber.stream.push(&buffer[..n], |item| match item {
                        Item::Event(stamp) => {
                            let publisher = usize::from(stamp.publisher).min(*per_subscriber - 1);
                            if !checker.take(index * *per_subscriber + publisher, stamp.number, &mut counts.faults) {
                                return;
                            }
                            if stamp.phase == Phase::Measured {
                                counts.deliveries += 1;
                                counts.latency.add(now.saturating_sub(stamp.intended));
                                counts.last = now;
                            } else {
                                counts.warm_up_deliveries += 1;
                            }
                        }
                        Item::Line if !subscriber.open => {
                            subscriber.open = true;
                            *open += 1;
                            *opening -= 1;
                        }
                        Item::Line | Item::Head => {}
                        Item::Gap => counts.gaps += 1,
                        Item::End => ended = true,
                        Item::Refused(_) => refused = true,
                    });
                    if n < buffer.len() && !to_the_end && !ended && !refused {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => ended = true,
            }
            if ended || refused {
                if subscriber.open {
                    counts.ended += 1;
                    *open -= 1;
                } else {
                    let count = if refused { &mut counts.refused } else { &mut counts.failed };
                    *count += 1;
                    *opening -= 1;
                    lost.push(index);
                }
                subscriber.open = false;
                subscriber.socket = None;
                return;
            }
        }
    }

    fn answers(&mut self, index: usize) -> Result<(), Failure> {
        let now = self.now();
        let publisher = &mut self.publishers[index];
        loop {
            match publisher.socket.read(&mut self.buffer) {
                Ok(0) => return Err(Failure::Running("the server closed a publisher's connection".into())),
                Ok(n) => publisher.answers.extend_from_slice(&self.buffer[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(running("a publisher's connection broke", error)),
            }
        }
        while let Some(end) = publisher.answers.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&publisher.answers[..end]).to_ascii_lowercase();
            let status = head.get(9..12).unwrap_or_default().to_owned();
            let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok()).unwrap_or(0);
            if publisher.answers.len() < end + 4 + length {
                break;
            }
            if !status.starts_with('2') {
                let body = String::from_utf8_lossy(&publisher.answers[end + 4..end + 4 + length]).into_owned();
                return Err(Failure::Running(format!("a publish was answered {status}: {}", body.trim())));
            }
            if let Some(ids) = &mut self.ids {
                ids.extend_from_slice(&publisher.answers[end + 4..end + 4 + length]);
            }
            publisher.answers.drain(..end + 4 + length);
            if let Some(intended) = publisher.waiting.pop_front() {
                self.counts.answered.add(now.saturating_sub(intended));
            }
        }
        Ok(())
    }

    /// Whether every publish is answered.
    pub(super) fn all_answered(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.waiting.is_empty())
    }
}
