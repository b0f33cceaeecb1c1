//! A shard's driver: one thread that feeds one shard of the core with events, sockets' readiness and time, and writes what it says into
//! sockets (engine B) and mailboxes (engine A). A panic in a turn costs the shard its connections, never the process (Z-15).
//!
//! It decides nothing about who gets what.

use super::{
    Clock, ReadPage, Reading, Source,
    body::Mailbox,
    connection::{Connection, Connections, Heard, SCRAP, Socket, Written},
    guest::{Arrival, Guests},
    wake::{Bell, Interest},
    words::Words,
};
use mio::{Events, Token, Waker};
use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidings_core::{
    Record, Topic, limits,
    shard::{CloseReason, InterestChange, Millis, Page, PageFailed, PageId, Poll, Shard, ShardConfig, ShardStats, SubscriberId, Transmit},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Transmits in one turn before the driver looks at what happened meanwhile, so that closes and arrivals stay quick.
const TRANSMITS_PER_TURN: usize = 512;
/// Transmits for which one look at the clock is good.
const TRANSMITS_PER_TIME: usize = 64;
/// What the waker is known by; no slot has this number.
const WAKER: Token = Token(usize::MAX);
/// Readiness taken from the system at once.
const EVENTS: usize = 1_024;

/// What a shard is told from outside.
pub(super) enum Command {
    Subscribe(Arrival, Arc<Mailbox>, OwnedSemaphorePermit),
    Attach(Arrival, Socket, OwnedSemaphorePermit),
    Count(Vec<Topic>, oneshot::Sender<Vec<u64>>),
    Drain(u64),
    AbortAll,
    Page(u64, PageId, Result<Page, PageFailed>),
    Panic,
    Stop,
}

/// The part of a shard that others touch.
pub(crate) struct Shared {
    commands: Mutex<Commands>,
    /// Frees and farewells; each mailbox is in here at most once for each, so the number of connections bounds it.
    signals: Mutex<Vec<(Incarnated, Signal)>>,
    waker: Waker,
    pub(super) bell: Bell,
    /// What its subscribers ask for.
    pub(super) interest: Interest,
    /// Bounds the subscriptions waiting to be taken over.
    pub(super) inbox: Arc<Semaphore>,
    /// Bodies that have not ended: what new ones are balanced by, and what draining waits for.
    pub(super) bodies: AtomicUsize,
    /// The last subscriber has left, or the shard has stopped.
    pub(super) left: Notify,
    pub(super) tail: AtomicU64,
    /// Cost of all records taken, on the same scale as the log's total.
    pub(super) taken_bytes: AtomicU64,
    pub(super) subscribers: AtomicUsize,
    pub(super) failures: AtomicU64,
    pub(super) stopped: AtomicBool,
    stats: Mutex<ShardStats>,
}

/// A subscriber of one of the shards that stood in this place one after the other: a late word about an earlier one's is not about
/// whoever has its slot now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Incarnated {
    incarnation: u64,
    id: SubscriberId,
}

#[derive(Default)]
struct Commands {
    waiting: VecDeque<Command>,
    /// The shard has stopped, and nobody takes them any more.
    closed: bool,
}

#[derive(Clone, Copy)]
enum Signal {
    Writable,
    Gone,
}

impl Shared {
    pub(super) fn new(tail: u64) -> io::Result<(Arc<Shared>, mio::Poll)> {
        let poll = mio::Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            signals: Mutex::default(),
            waker,
            bell: Bell::new(),
            interest: Interest::new(limits::INTEREST_COUNTS),
            inbox: Arc::new(Semaphore::new(limits::SHARD_INBOX)),
            bodies: AtomicUsize::new(0),
            left: Notify::new(),
            tail: AtomicU64::new(tail),
            taken_bytes: AtomicU64::new(0),
            subscribers: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        Ok((shared, poll))
    }

    /// False if the shard has stopped: then a body is broken off, and whoever waits for an answer sees that there is none.
    pub(super) fn send(&self, command: Command) -> bool {
        let taken = self.put(command);
        self.wake();
        taken
    }

    /// The same without waking the shard, which is left to the caller.
    pub(super) fn put(&self, command: Command) -> bool {
        let refused = {
            let mut commands = lock(&self.commands);
            if commands.closed {
                Some(command)
            } else {
                commands.waiting.push_back(command);
                None
            }
        };
        refused.map(refuse).is_none()
    }

    /// Something was handed over.
    pub(super) fn wake(&self) {
        self.wake_if(|| true);
    }

    /// There are new events; `concerns` says whether they have to be looked at now.
    pub(super) fn wake_if(&self, concerns: impl FnOnce() -> bool) {
        if self.bell.ring(concerns)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    pub(super) fn writable(&self, id: Incarnated) {
        self.signal(id, Signal::Writable);
    }

    pub(super) fn gone(&self, id: Incarnated) {
        self.signal(id, Signal::Gone);
    }

    /// A body has ended or was dropped.
    pub(super) fn left(&self) {
        self.bodies.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> ShardStats {
        lock(&self.stats).clone()
    }

    fn signal(&self, id: Incarnated, signal: Signal) {
        lock(&self.signals).push((id, signal));
        self.wake();
    }
}

fn refuse(command: Command) {
    if let Command::Subscribe(_, mailbox, _) = command {
        mailbox.break_off();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shard and its connections.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) config: ShardConfig,
    pub(super) clock: Clock,
    pub(super) source: Arc<dyn Source>,
    pub(super) read: Arc<ReadPage>,
    pub(super) words: Arc<Words>,
    /// Where pages are read.
    pub(super) runtime: tokio::runtime::Handle,
}

struct Turn {
    shard: Shard,
    connections: Connections,
    /// Sockets that have more to say than was listened to in the last turn.
    talkative: Vec<usize>,
    signals: Vec<(Incarnated, Signal)>,
    /// Where goes what clients send.
    scrap: Box<[u8; SCRAP]>,
    batch: Vec<Record>,
    /// Which of the shards that stood here in turn: late pages of an earlier one are not this one's.
    incarnation: u64,
    /// Counted by earlier ones.
    before: ShardStats,
    stop: bool,
    /// When the last stream ends, once the shard is told to let everybody go; whoever arrives late ends by then too.
    draining: Option<Millis>,
    guests: Guests,
    /// Being taken over just now: not in the table yet, and not to be forgotten if that fails.
    arriving: Option<Connection>,
}

/// Answers a page request whatever happens to its reading: readers would wait for ever for one that is never answered.
struct Answer {
    shared: Arc<Shared>,
    incarnation: u64,
    id: PageId,
    page: Result<Page, PageFailed>,
}

impl Answer {
    fn give(mut self, page: Result<Page, PageFailed>) {
        self.page = page;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let page = std::mem::replace(&mut self.page, Err(PageFailed));
        self.shared.send(Command::Page(self.incarnation, self.id, page));
    }
}

impl Driver {
    pub(super) fn run(self, mut poll: mio::Poll) {
        let tail = self.shared.tail.load(Ordering::Acquire);
        let mut turn = Turn {
            shard: Shard::new(self.config.clone(), tail, self.clock.now()),
            connections: Connections::default(),
            talkative: Vec::new(),
            signals: Vec::new(),
            scrap: Box::new([0; SCRAP]),
            batch: Vec::new(),
            incarnation: 0,
            before: ShardStats::default(),
            stop: false,
            draining: None,
            guests: Guests::default(),
            arriving: None,
        };
        let mut events = Events::with_capacity(EVENTS);
        let mut more = false;
        while !turn.stop {
            // Without subscribers time brings nothing.
            let next = turn.shard.next_write().into_iter().fold(turn.shard.next_tick(), Ord::min);
            let tick = (turn.shard.subscribers() > 0).then(|| self.clock.until(next));
            let wait = if more || !self.may_sleep(&turn) { Some(Duration::ZERO) } else { tick };
            let polled = poll.poll(&mut events, wait);
            self.shared.bell.awake();
            if let Err(error) = polled
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The descriptor is ours and open, so this does not happen; a pause, in case it does for ever.
                tracing::error!(%error, "waiting for sockets failed");
                std::thread::sleep(Duration::from_millis(limits::TICK_MS));
            }
            more = catch_unwind(AssertUnwindSafe(|| self.turn(&mut turn, poll.registry(), &events))).unwrap_or_else(|panic| {
                self.rebuild(&mut turn, &panic);
                true
            });
        }
        let left = {
            let mut commands = lock(&self.shared.commands);
            commands.closed = true;
            std::mem::take(&mut commands.waiting)
        };
        left.into_iter().for_each(refuse);
        self.break_off_all(&mut turn);
        self.shared.inbox.close();
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.left.notify_one();
    }

    /// Looks once more whether there is something to do before the thread blocks.
    fn may_sleep(&self, turn: &Turn) -> bool {
        let shared = &self.shared;
        shared.bell.may_sleep(|| {
            self.source.newest() <= turn.shard.tail() && lock(&shared.commands).waiting.is_empty() && lock(&shared.signals).is_empty()
        })
    }

    /// One round of listening and speaking. True if there is more to do at once.
    fn turn(&self, turn: &mut Turn, registry: &mio::Registry, events: &Events) -> bool {
        let now = self.clock.now();
        // Before anybody new gets the slot of somebody who leaves: what is heard here is about those who were there when it was said.
        self.hear(turn, events, now);
        while !turn.stop {
            let command = lock(&self.shared.commands).waiting.pop_front();
            let Some(command) = command else { break };
            self.obey(turn, registry, command, now);
        }
        std::mem::swap(&mut turn.signals, &mut lock(&self.shared.signals));
        for at in 0..turn.signals.len() {
            let (who, signal) = turn.signals[at];
            if who.incarnation == turn.incarnation {
                match signal {
                    Signal::Writable => turn.shard.handle_writable(who.id),
                    Signal::Gone => self.gone(turn, who.id),
                }
            }
        }
        turn.signals.clear();
        turn.shard.handle_tick(now);
        self.publish_interest(turn);
        let mut more;
        let mut transmits = TRANSMITS_PER_TURN;
        loop {
            let pulled = self.pull(turn);
            more = !self.transmit(turn, now, &mut transmits);
            if more || !pulled {
                break;
            }
        }
        let mut at_once = limits::PAGES_AT_ONCE;
        while let Some(request) = turn.shard.poll_page_request() {
            let (id, shared) = (request.id, self.shared.clone());
            let reading = (self.read)(request, at_once > 0);
            // Looking in vain takes its time too.
            at_once = at_once.saturating_sub(1);
            let answer = || Answer { shared, incarnation: turn.incarnation, id, page: Err(PageFailed) };
            match reading {
                Reading::AtHand(page) => turn.shard.handle_page(id, Ok(page)),
                // From here to that thread and back: every hand-over more would wait for one more thread to wake.
                Reading::Elsewhere(job) => {
                    // Where no thread can be made this panics, and keeps the job, which may be done much later: whoever has the answer gives it.
                    let answer = Arc::new(Mutex::new(Some(answer())));
                    let theirs = answer.clone();
                    let read = move || {
                        let answer = lock(&theirs).take();
                        answer.map(|answer| answer.give(job()))
                    };
                    if catch_unwind(AssertUnwindSafe(|| self.runtime.spawn_blocking(read))).is_err() {
                        drop(lock(&answer).take());
                    }
                }
                Reading::Later(read) => {
                    let answer = answer();
                    self.runtime.spawn(async move { answer.give(read.await) });
                }
            }
        }
        // A page that somebody else is reading already may have made its reader ready.
        more |= !self.transmit(turn, now, &mut transmits);
        more |= self.settle(turn) || turn.shard.wants_page() || !turn.talkative.is_empty();
        self.publish_interest(turn);
        self.publish_counters(turn);
        more
    }

    /// Tells publishers what is asked for here, before the last look for events.
    fn publish_interest(&self, turn: &mut Turn) {
        while let Some(change) = turn.shard.poll_interest() {
            match change {
                InterestChange::Gained(filter) => self.words.of(&filter, |word| self.shared.interest.add(word)),
                InterestChange::Lost(filter) => self.words.of(&filter, |word| self.shared.interest.remove(word)),
            }
        }
    }

    /// Takes new events; false if there are none, or none are wanted now.
    fn pull(&self, turn: &mut Turn) -> bool {
        let tail = turn.shard.tail();
        if !turn.shard.wants_batch() || self.source.newest() <= tail {
            return false;
        }
        if turn.shard.subscribers() == 0 {
            let (head, total) = self.source.head();
            turn.shard.handle_skipped(head);
            self.shared.taken_bytes.store(total, Ordering::Release);
            self.shared.tail.store(head, Ordering::Release);
            self.source.taken();
            return true;
        }
        let cost = self.source.pull(tail, &mut turn.batch).expect("admission keeps every shard's place in the window");
        if turn.batch.is_empty() {
            return false;
        }
        turn.shard.handle_batch(&turn.batch);
        turn.batch.clear();
        self.shared.taken_bytes.fetch_add(cost, Ordering::AcqRel);
        self.shared.tail.store(turn.shard.tail(), Ordering::Release);
        self.source.taken();
        true
    }

    /// What the system says of the sockets.
    fn hear(&self, turn: &mut Turn, events: &Events, now: Millis) {
        let mut talkative = std::mem::take(&mut turn.talkative);
        // Who is in here may be among the events too, and would otherwise be listened to once more in every turn.
        talkative.sort_unstable();
        talkative.dedup();
        for index in talkative {
            self.listen(turn, index, now);
        }
        for event in events {
            let index = event.token().0;
            if event.token() == WAKER {
                continue;
            }
            let Some((id, Connection::Socket(socket))) = turn.connections.at(index) else { continue };
            // A reset is an error; a closed write side without one is what the other half of a closing looks like.
            if (event.is_error() || event.is_write_closed()) && socket.is_broken() {
                self.gone(turn, id);
                continue;
            }
            if event.is_readable() || event.is_read_closed() {
                self.listen(turn, index, now);
            }
            if event.is_writable() {
                turn.shard.handle_writable(id);
            }
        }
    }

    fn listen(&self, turn: &mut Turn, index: usize, now: Millis) {
        let Some((id, Connection::Socket(socket))) = turn.connections.at(index) else { return };
        match socket.hear(&mut turn.scrap) {
            Heard::Nothing => {}
            Heard::More => turn.talkative.push(index),
            Heard::HalfClosed if turn.shard.handle_half_closed(id, now) => {}
            Heard::HalfClosed | Heard::Gone => self.gone(turn, id),
        }
    }

    /// The client of a subscriber has left.
    fn gone(&self, turn: &mut Turn, id: SubscriberId) {
        turn.shard.handle_closed(id);
        turn.guests.gone(id);
        if let Some(Connection::Socket(_)) = turn.connections.take(id) {
            self.shared.left();
        }
    }

    /// Writes what there is to write, up to a bound; false if that was reached.
    fn transmit(&self, turn: &mut Turn, mut now: Millis, left: &mut usize) -> bool {
        while *left > 0 {
            if left.is_multiple_of(TRANSMITS_PER_TIME) {
                now = self.clock.now();
            }
            match turn.shard.poll_transmit(now) {
                Poll::Transmit(Transmit { id, bytes }) => {
                    *left -= 1;
                    let written = turn.connections.at(id.index()).map_or(Written::Gone, |(_, connection)| connection.write(bytes));
                    match written {
                        Written::Taken(taken) => turn.shard.handle_written(taken, now),
                        Written::Gone => self.gone(turn, id),
                    }
                }
                Poll::Working => *left -= 1,
                Poll::Idle => return true,
            }
        }
        false
    }

    /// Ends the connections of those the shard has closed; true if there were any.
    fn settle(&self, turn: &mut Turn) -> bool {
        let mut any = false;
        while let Some(closed) = turn.shard.poll_closed() {
            any = true;
            turn.guests.gone(closed.id);
            if turn.connections.take(closed.id).is_some_and(|connection| connection.end(closed)) {
                self.shared.left();
            }
        }
        any
    }

    fn break_off_all(&self, turn: &mut Turn) {
        turn.guests.all_gone();
        for connection in turn.connections.take_all().chain(turn.arriving.take()) {
            if connection.break_off() {
                self.shared.left();
            }
        }
    }

    fn obey(&self, turn: &mut Turn, registry: &mio::Registry, command: Command, now: Millis) {
        match command {
            Command::Subscribe(arrival, mailbox, _permit) => self.take_over(turn, registry, arrival, Connection::Body(mailbox), now),
            Command::Attach(arrival, socket, _permit) => self.take_over(turn, registry, arrival, Connection::Socket(socket), now),
            Command::Count(topics, answer) => {
                // Nobody waits for the answer any more: nothing is lost.
                let _ = answer.send(topics.iter().map(|topic| turn.shard.subscribers_of(topic)).collect());
            }
            Command::Drain(spread_ms) => {
                turn.draining = Some(now.plus(spread_ms));
                turn.shard.drain(spread_ms, now);
            }
            Command::AbortAll => turn.shard.abort_all(CloseReason::Drain),
            Command::Page(incarnation, id, page) => {
                if incarnation == turn.incarnation {
                    turn.shard.handle_page(id, page);
                }
            }
            Command::Panic => panic!("a failure was asked for"),
            Command::Stop => turn.stop = true,
        }
    }

    fn take_over(&self, turn: &mut Turn, registry: &mio::Registry, arrival: Arrival, connection: Connection, now: Millis) {
        let Arrival { mut new, guest } = arrival;
        turn.arriving = Some(connection);
        if let Some(until) = turn.draining.map(|until| until.max(now))
            && new.ends.is_none_or(|(at, _)| at > until)
        {
            new.ends = Some((until, CloseReason::Drain));
        }
        // A new subscriber may get the slot of somebody just closed, whose connection has to be ended first.
        self.settle(turn);
        let id = turn.shard.subscribe(*new, now);
        let there = match turn.arriving.as_mut() {
            Some(Connection::Socket(socket)) => {
                // Once, for both directions, edge-triggered: a connection that is quiet costs no call after this one.
                let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
                registry.register(socket.stream_mut(), Token(id.index()), interest).is_ok()
            }
            Some(connection) => connection.attach(Incarnated { incarnation: turn.incarnation, id }),
            None => false,
        };
        if let Some(connection) = turn.arriving.take() {
            turn.connections.put(id, connection);
        }
        if !there {
            self.gone(turn, id);
        } else if let Some(guest) = guest {
            turn.guests.arrived(id, guest);
        }
    }

    fn publish_counters(&self, turn: &Turn) {
        let now = turn.shard.subscribers();
        let was = self.shared.subscribers.swap(now, Ordering::Release);
        let mut stats = lock(&self.shared.stats);
        stats.clone_from(turn.shard.stats());
        stats.add(&turn.before);
        drop(stats);
        if now == 0 && was > 0 {
            self.shared.left.notify_one();
        }
    }

    /// After a panic nothing of the shard can be trusted but what is outside of it. Its clients are cut and resume by their cursors.
    fn rebuild(&self, turn: &mut Turn, panic: &Box<dyn std::any::Any + Send>) {
        let cause = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(cause, connections = turn.shard.subscribers(), "a shard failed and is rebuilt; its clients will resume");
        let lost = turn.shard.subscribers() as u64;
        turn.before.add(turn.shard.stats());
        turn.before.closed[CloseReason::Failed as usize] += lost;
        self.break_off_all(turn);
        turn.talkative.clear();
        turn.signals.clear();
        turn.batch.clear();
        turn.incarnation += 1;
        // The new shard starts at the head: whatever brought the old one down, it is not met again on the live path.
        let (head, total) = self.source.head();
        self.shared.interest.clear();
        turn.shard = Shard::new(self.config.clone(), head, self.clock.now());
        self.shared.tail.store(head, Ordering::Release);
        self.shared.taken_bytes.store(total, Ordering::Release);
        self.source.taken();
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        self.publish_counters(turn);
    }
}
