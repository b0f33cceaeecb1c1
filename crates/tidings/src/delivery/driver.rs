//! Engine A's driver: one task that drives one shard of the core, feeding it events, frees and time, and putting what it says into
//! mailboxes. A panic in a turn costs the shard its connections, never the process (Z-15).
//!
//! It decides nothing about who gets what.

use super::{Clock, ReadPage, Source, body::Mailbox};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tidings_core::{
    Record, Topic, limits,
    shard::{CloseReason, Millis, NewSubscriber, Page, PageFailed, PageId, Poll, Shard, ShardConfig, ShardStats, SubscriberId, Transmit},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Transmits in one turn before the driver looks at what happened meanwhile, so that closes and arrivals stay quick.
const TRANSMITS_PER_TURN: usize = 512;

/// What a shard is told from outside.
pub(super) enum Command {
    Subscribe(Box<NewSubscriber>, Arc<Mailbox>, OwnedSemaphorePermit),
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
    wake: Notify,
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
    pub(super) fn new(tail: u64) -> Arc<Shared> {
        Arc::new(Shared {
            commands: Mutex::default(),
            signals: Mutex::default(),
            wake: Notify::new(),
            inbox: Arc::new(Semaphore::new(limits::SHARD_INBOX)),
            bodies: AtomicUsize::new(0),
            left: Notify::new(),
            tail: AtomicU64::new(tail),
            taken_bytes: AtomicU64::new(0),
            subscribers: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            stats: Mutex::default(),
        })
    }

    /// False if the shard has stopped: then a body is broken off, and whoever waits for an answer sees that there is none.
    pub(super) fn send(&self, command: Command) -> bool {
        let refused = {
            let mut commands = lock(&self.commands);
            if commands.closed {
                Some(command)
            } else {
                commands.waiting.push_back(command);
                None
            }
        };
        self.wake.notify_one();
        refused.map(refuse).is_none()
    }

    /// There may be new events.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
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
        self.wake.notify_one();
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
}

struct Turn {
    shard: Shard,
    /// By slot.
    mailboxes: Vec<Option<Arc<Mailbox>>>,
    signals: Vec<(Incarnated, Signal)>,
    batch: Vec<Arc<Record>>,
    /// Which of the shards that stood here in turn: late pages of an earlier one are not this one's.
    incarnation: u64,
    /// Counted by earlier ones.
    before: ShardStats,
    stop: bool,
    /// When the last stream ends, once the shard is told to let everybody go; whoever arrives late ends by then too.
    draining: Option<Millis>,
    /// Being taken over just now: not in the table yet, and not to be forgotten if that fails.
    arriving: Option<Arc<Mailbox>>,
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
    pub(super) async fn run(self) {
        let tail = self.shared.tail.load(Ordering::Acquire);
        let mut turn = Turn {
            shard: Shard::new(self.config.clone(), tail, self.clock.now()),
            mailboxes: Vec::new(),
            signals: Vec::new(),
            batch: Vec::new(),
            incarnation: 0,
            before: ShardStats::default(),
            stop: false,
            draining: None,
            arriving: None,
        };
        while !turn.stop {
            let more = catch_unwind(AssertUnwindSafe(|| self.turn(&mut turn))).unwrap_or_else(|panic| {
                self.rebuild(&mut turn, &panic);
                true
            });
            if more {
                tokio::task::yield_now().await;
            } else {
                let tick = self.clock.instant(turn.shard.next_tick());
                tokio::select! {
                    () = self.shared.wake.notified() => {}
                    () = tokio::time::sleep_until(tick), if turn.shard.subscribers() > 0 => {}
                }
            }
        }
        let left = {
            let mut commands = lock(&self.shared.commands);
            commands.closed = true;
            std::mem::take(&mut commands.waiting)
        };
        left.into_iter().for_each(refuse);
        for mailbox in turn.mailboxes.drain(..).flatten() {
            mailbox.break_off();
        }
        self.shared.inbox.close();
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.left.notify_one();
    }

    /// One round of listening and speaking. True if there is more to do at once.
    fn turn(&self, turn: &mut Turn) -> bool {
        let now = self.clock.now();
        while !turn.stop {
            let command = lock(&self.shared.commands).waiting.pop_front();
            let Some(command) = command else { break };
            Self::obey(turn, command, now);
        }
        std::mem::swap(&mut turn.signals, &mut lock(&self.shared.signals));
        for (who, signal) in turn.signals.drain(..) {
            if who.incarnation != turn.incarnation {
                continue;
            }
            match signal {
                Signal::Writable => turn.shard.handle_writable(who.id),
                Signal::Gone => {
                    turn.shard.handle_closed(who.id);
                    if let Some(mailbox) = turn.mailboxes.get_mut(who.id.index()) {
                        mailbox.take_if(|mailbox| mailbox.is_of(who));
                    }
                }
            }
        }
        turn.shard.handle_tick(now);
        let mut more = false;
        if turn.shard.wants_batch() {
            let tail = turn.shard.tail();
            let cost = self.source.pull(tail, &mut turn.batch).expect("admission keeps every shard's place in the window");
            if !turn.batch.is_empty() {
                turn.shard.handle_batch(&turn.batch);
                turn.batch.clear();
                self.shared.taken_bytes.fetch_add(cost, Ordering::AcqRel);
                self.shared.tail.store(turn.shard.tail(), Ordering::Release);
                self.source.taken();
                more = true;
            }
        } else {
            more = true;
        }
        more |= Self::transmit(turn, now);
        while let Some(request) = turn.shard.poll_page_request() {
            let (id, shared) = (request.id, self.shared.clone());
            let answer = Answer { shared, incarnation: turn.incarnation, id, page: Err(PageFailed) };
            let read = (self.read)(request);
            tokio::spawn(async move { answer.give(read.await) });
        }
        // A page that somebody else is reading already may have made its reader ready.
        more |= Self::transmit(turn, now);
        more |= Self::settle(turn) || turn.shard.wants_page();
        self.publish_counters(turn);
        more
    }

    /// Writes what there is to write, up to a bound; true if it was reached.
    fn transmit(turn: &mut Turn, now: Millis) -> bool {
        for _ in 0..TRANSMITS_PER_TURN {
            match turn.shard.poll_transmit(now) {
                Poll::Transmit(Transmit { id, bytes }) => {
                    let taken = turn.mailboxes[id.index()].as_ref().map_or(0, |mailbox| mailbox.write(&bytes));
                    turn.shard.handle_written(taken, now);
                }
                Poll::Working => {}
                Poll::Idle => return false,
            }
        }
        true
    }

    /// Ends the bodies of those the shard has closed; true if there were any.
    fn settle(turn: &mut Turn) -> bool {
        let mut any = false;
        while let Some(closed) = turn.shard.poll_closed() {
            any = true;
            if let Some(mailbox) = turn.mailboxes.get_mut(closed.id.index()).and_then(Option::take) {
                if closed.forced {
                    mailbox.break_off();
                } else {
                    mailbox.finish(closed.end);
                }
            }
        }
        any
    }

    fn obey(turn: &mut Turn, command: Command, now: Millis) {
        match command {
            Command::Subscribe(mut new, mailbox, _permit) => {
                turn.arriving = Some(mailbox.clone());
                if let Some(until) = turn.draining.map(|until| until.max(now))
                    && new.ends.is_none_or(|(at, _)| at > until)
                {
                    new.ends = Some((until, CloseReason::Drain));
                }
                // A new subscriber may get the slot of somebody just closed, whose body has to be ended first.
                Self::settle(turn);
                let id = turn.shard.subscribe(*new, now);
                if turn.mailboxes.len() <= id.index() {
                    turn.mailboxes.resize(id.index() + 1, None);
                }
                let there = mailbox.attach(Incarnated { incarnation: turn.incarnation, id });
                turn.mailboxes[id.index()] = Some(mailbox);
                turn.arriving = None;
                if !there {
                    turn.shard.handle_closed(id);
                }
            }
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
        for mailbox in turn.mailboxes.drain(..).flatten().chain(turn.arriving.take()) {
            mailbox.break_off();
        }
        turn.signals.clear();
        turn.batch.clear();
        turn.incarnation += 1;
        // The new shard starts at the head: whatever brought the old one down, it is not met again on the live path.
        let (head, total) = self.source.head();
        turn.shard = Shard::new(self.config.clone(), head, self.clock.now());
        self.shared.tail.store(head, Ordering::Release);
        self.shared.taken_bytes.store(total, Ordering::Release);
        self.source.taken();
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        self.publish_counters(turn);
    }
}
