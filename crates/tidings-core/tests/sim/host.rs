//! One shard with its fake sockets: it is driven as the shard's documentation says, and every answer is checked against what a driver
//! may rely on: who is written, the rest of what was begun, why and when somebody is closed, and that the counters add up.

use super::{
    log::{Log, PageBounds},
    reader::{Mood, Reader},
    rng::Rng,
    sabotage::{Fault, Sabotage},
    stream::Chunks,
    trace::{Counts, Trace},
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use tidings_core::{
    Framing, GapReason, Item, Parser, Position, limits,
    shard::{
        CloseReason, Closed, EndStyle, LagPolicy, Millis, NewSubscriber, PageFailed, PageId, PageRequest, Poll, Shard, ShardConfig,
        SubscriberId, Transmit,
    },
    wire,
};

type Outcome = Result<(), String>;

/// What all parts of a run share.
pub(crate) struct Context {
    pub(crate) rng: Rng,
    pub(crate) now: Millis,
    /// Nothing breaks any more.
    pub(crate) calm: bool,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) sabotage: Sabotage,
}

/// What was done when somebody was closed: it decides which reasons are right.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    Poll,
    Tick,
    Page { failed: bool, lost: bool },
    Abort(CloseReason),
}

/// What a driver counts for itself.
#[derive(Default)]
struct Tally {
    deliveries: u64,
    bytes: u64,
    closed: [u64; CloseReason::ALL.len()],
    gaps: [u64; GapReason::ALL.len()],
}

pub(crate) struct Host {
    number: usize,
    pub(crate) shard: Shard,
    pub(crate) config: ShardConfig,
    members: BTreeMap<SubscriberId, usize>,
    /// Subscribers on their way to the shard.
    pub(crate) inbox: VecDeque<(usize, NewSubscriber)>,
    /// Pages to be read, and pages that were read and are on their way back.
    pub(crate) requests: Vec<PageRequest>,
    pub(crate) pages: Vec<(PageId, Result<tidings_core::shard::Page, PageFailed>)>,
    pub(crate) draining: bool,
    tally: Tally,
    /// Up to which sequence the shard was at which time.
    taken: Vec<(u64, Millis)>,
    ticked_at: Millis,
    /// Everything there was to do was done since the last tick.
    rested: bool,
}

impl Host {
    pub(crate) fn new(number: usize, config: ShardConfig, after: u64, now: Millis) -> Host {
        Host {
            number,
            shard: Shard::new(config.clone(), after, now),
            config,
            members: BTreeMap::new(),
            inbox: VecDeque::new(),
            requests: Vec::new(),
            pages: Vec::new(),
            draining: false,
            tally: Tally::default(),
            taken: Vec::new(),
            ticked_at: now,
            rested: false,
        }
    }

    pub(crate) fn knows(&self, id: SubscriberId) -> bool {
        self.members.contains_key(&id)
    }

    pub(crate) fn has_work_with_pages(&self) -> bool {
        !self.requests.is_empty() || !self.pages.is_empty()
    }

    /// The shard takes over those who wait for it.
    pub(crate) fn take_inbox(&mut self, count: usize, readers: &mut [Reader], ctx: &mut Context) -> Outcome {
        for _ in 0..count {
            let Some((reader, new)) = self.inbox.pop_front() else { return Ok(()) };
            let Some(conn) = &mut readers[reader].conn else { continue };
            if new.after > self.shard.tail() {
                ctx.counts.add("subscribed ahead of the shard", 1);
            }
            let ends = new.ends;
            let id = self.shard.subscribe(new, ctx.now);
            ctx.trace.note("subscribe", &[self.number as u64, reader as u64, id.index() as u64, conn.begun]);
            (conn.id, conn.ends, conn.last_write) = (Some(id), ends, ctx.now);
            if self.members.insert(id, reader).is_some() {
                return Err(format!("{id:?} names two subscribers"));
            }
        }
        Ok(())
    }

    /// The shard takes the next events of the log, if it wants some.
    pub(crate) fn pull(&mut self, events: usize, readers: &mut [Reader], log: &Log, ctx: &mut Context) {
        let tail = self.shard.tail();
        if !self.shard.wants_batch() || tail >= log.head() {
            return;
        }
        self.judge(readers, log, ctx.now);
        if self.shard.subscribers() == 0 {
            self.shard.handle_skipped(log.head());
            ctx.counts.add("skips", 1);
        } else {
            let batch = log.batch(tail, events);
            self.shard.handle_batch(&batch);
        }
        self.taken.push((self.shard.tail(), ctx.now));
        ctx.trace.note("batch", &[self.number as u64, tail, self.shard.tail()]);
        ctx.counts.add("batches", 1);
    }

    /// One turn: writes and reads up to a number of times. True when nothing is left to do.
    pub(crate) fn turn(&mut self, polls: usize, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Result<bool, String> {
        let mut idle = false;
        for _ in 0..polls {
            let was_idle = std::mem::take(&mut idle);
            match self.shard.poll_transmit(ctx.now) {
                Poll::Transmit(Transmit { id, bytes }) => {
                    let bytes = bytes.clone();
                    self.write(id, bytes, readers, log, ctx)?;
                }
                Poll::Working => ctx.counts.add("polls that only read", 1),
                Poll::Idle => {
                    idle = true;
                    if was_idle {
                        break;
                    }
                    // Somebody who wants a page that another has at hand gets it here, and can be written at once.
                    self.take_requests(ctx)?;
                }
            }
        }
        self.take_requests(ctx)?;
        self.take_closed(Cause::Poll, readers, log, ctx)?;
        // Somebody may be written when a feed has rested.
        let settled = idle && self.shard.next_write().is_none();
        self.rested |= settled;
        if settled && !self.has_work_with_pages() {
            self.note_who_is_settled(readers);
        }
        Ok(idle)
    }

    fn take_requests(&mut self, ctx: &mut Context) -> Outcome {
        while let Some(request) = self.shard.poll_page_request() {
            ctx.trace.note("page wanted", &[self.number as u64, request.after, request.up_to]);
            if request.up_to != self.shard.tail() || request.after >= request.up_to {
                return Err(format!("a page request that makes no sense: {request:?} at {}", self.shard.tail()));
            }
            ctx.counts.add("pages", 1);
            self.requests.push(request);
        }
        if self.requests.len() + self.pages.len() > limits::PAGES_IN_FLIGHT {
            return Err("more pages under way than the bound".into());
        }
        Ok(())
    }

    fn write(&mut self, id: SubscriberId, bytes: Bytes, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Outcome {
        let &reader = self.members.get(&id).ok_or_else(|| format!("bytes for {id:?}, who is gone"))?;
        let name = reader as u64;
        let reader = &mut readers[reader];
        let topics_field = reader.question.topics_field;
        let framing = reader.question.framing;
        let conn = reader.conn.as_mut().ok_or("bytes for a reader without a connection")?;
        if conn.blocked {
            return Err(format!("reader {name} is written although it takes nothing"));
        }
        if bytes.is_empty() || (!conn.rest.is_empty() && !conn.rest.starts_with(&bytes)) {
            return Err(format!("reader {name} does not get the rest of what was begun (S-3)"));
        }
        let mut said = if conn.rest.is_empty() { Said::read(framing, &bytes, log)? } else { Said::default() };
        if said.events.len() > 1 && !topics_field && bytes.len() > self.config.frame_bytes {
            return Err(format!("a write of {} bytes, merged over the bound", bytes.len()));
        }
        if let (Some(reason), true) = (said.gap, conn.refused != bytes) {
            self.tally.gaps[reason as usize] += 1;
        }
        if said.is_heartbeat {
            self.heartbeat_is_due(conn.last_write, ctx.now)?;
            ctx.counts.add("heartbeats", 1);
        }
        let taken = match conn.mood {
            Mood::Fast => bytes.len(),
            Mood::Choppy => ctx.rng.index(bytes.len() + 1),
            Mood::Trickle => ctx.rng.index(8).min(bytes.len()),
            Mood::Stalled => 0,
        };
        ctx.trace.bytes("write", &[self.number as u64, name, id.index() as u64, bytes.len() as u64, taken as u64], &bytes);
        if !ctx.calm && ctx.rng.chance(1, 400) {
            // The connection breaks in the middle of the write.
            ctx.counts.add("broken while writing", 1);
            conn.wire.extend(&bytes[..taken]);
            let received = ctx.rng.index(conn.wire.len() + 1);
            reader.receive(received, log, &mut ctx.counts)?;
            self.client_gone(id, readers);
            return Ok(());
        }
        let all = taken == bytes.len();
        // What was begun has to be ended; no more than that is owed.
        let owed = if all || said.events.is_empty() { bytes.len() } else { said.cut(taken) };
        if taken > 0 {
            conn.last_write = ctx.now;
            conn.begun = conn.begun.max(said.through);
            if said.gap.is_some() {
                conn.gaps_under_way.push_back(conn.lag_seen);
            }
            self.tally.deliveries += said.events.len() as u64;
            self.tally.bytes += taken as u64;
        }
        let one_event = all && said.events.len() == 1;
        if one_event && ctx.sabotage.strikes(Fault::DropEvent) {
            conn.wire.extend(&bytes[..0]);
        } else if one_event && ctx.sabotage.strikes(Fault::RepeatEvent) {
            conn.wire.extend(bytes.iter().chain(&bytes));
        } else {
            conn.wire.extend(&bytes[..taken]);
        }
        conn.blocked = !all;
        conn.wavered |= !all;
        conn.starved_since = match conn.starved_since {
            _ if all => None,
            Some(since) if taken == 0 => Some(since),
            _ => Some(ctx.now),
        };
        conn.refused = if taken == 0 { bytes.clone() } else { Bytes::new() };
        if taken > 0 || !conn.rest.is_empty() {
            conn.rest = bytes.slice(taken..owed);
        }
        match taken {
            _ if all => {}
            0 => ctx.counts.add("writes refused", 1),
            _ => ctx.counts.add("writes in part", 1),
        }
        if ctx.rng.chance(5, 6) {
            reader.receive(usize::MAX, log, &mut ctx.counts)?;
        }
        self.shard.handle_written(taken, ctx.now);
        Ok(())
    }

    fn heartbeat_is_due(&self, last_write: Millis, now: Millis) -> Outcome {
        let every = self.config.heartbeat_ms.ok_or("a heartbeat although there are none")?;
        if now.0 + self.pass_ms() + 2 * limits::TICK_MS < last_write.0 + every {
            return Err(format!("a heartbeat {} ms after the last write", now.0 - last_write.0));
        }
        Ok(())
    }

    /// Ticks of one pass over the table.
    fn slices(&self) -> u64 {
        let of_heartbeat = self.config.heartbeat_ms.map_or(u64::MAX, |every| every / 5 / limits::TICK_MS);
        of_heartbeat.clamp(1, limits::TICK_SLICES as u64)
    }

    fn pass_ms(&self) -> u64 {
        self.slices() * limits::TICK_MS
    }

    pub(crate) fn tick(&mut self, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Outcome {
        if ctx.now < self.shard.next_tick() {
            self.shard.handle_tick(ctx.now);
            return self.take_closed(Cause::Abort(CloseReason::Client), readers, log, ctx);
        }
        self.nobody_is_overdue(readers)?;
        self.judge(readers, log, ctx.now);
        ctx.trace.note("tick", &[self.number as u64, ctx.now.0]);
        self.shard.handle_tick(ctx.now);
        self.ticked_at = ctx.now;
        self.rested = false;
        self.take_closed(Cause::Tick, readers, log, ctx)
    }

    /// What was due at the last tick, and had a pass and time to be done since, must have been done.
    fn nobody_is_overdue(&self, readers: &mut [Reader]) -> Outcome {
        let (at, pass) = (self.ticked_at, self.slices() + 1);
        for (id, &reader) in &self.members {
            let Some(conn) = &mut readers[reader].conn else { continue };
            let due = [
                !conn.blocked && self.config.heartbeat_ms.is_some_and(|every| conn.last_write.plus(every) < at),
                conn.blocked && conn.starved_since.is_some_and(|since| since.plus(self.config.stalled_ms) <= at),
                conn.ends.is_some_and(|(ends, why)| ends < at && (!conn.blocked || why == CloseReason::Expired))
                    || conn.drained_by.is_some_and(|by| by < at && !conn.blocked),
            ];
            let wavered = std::mem::take(&mut conn.wavered);
            let overdue = [&mut conn.overdue.heartbeat, &mut conn.overdue.stall, &mut conn.overdue.end];
            let names = ["sent a heartbeat (S-24)", "closed as stalled (S-28)", "ended (M-82)"];
            for ((due, count), what) in due.into_iter().zip(overdue).zip(names) {
                *count = if due && !wavered { *count + u64::from(self.rested) } else { 0 };
                if *count > pass {
                    return Err(format!("{id:?} (reader {reader}) should have been {what} for {count} ticks"));
                }
            }
        }
        Ok(())
    }

    fn note_who_is_settled(&self, readers: &mut [Reader]) {
        for &reader in self.members.values() {
            if let Some(conn) = readers[reader].conn.as_mut().filter(|conn| !conn.blocked) {
                conn.settled = self.shard.tail();
            }
        }
    }

    /// Notes who has everything and who is beyond a bound of lag. Before the tail moves, and before the shard judges for itself.
    fn judge(&self, readers: &mut [Reader], log: &Log, now: Millis) {
        let tail = self.shard.tail();
        for &reader in self.members.values() {
            let reader = &mut readers[reader];
            let Some(conn) = &mut reader.conn else { continue };
            let Some(first) = log.wanted(conn.begun, tail, &reader.question).next() else {
                (conn.caught_up, conn.lag_seen) = (true, false);
                continue;
            };
            let (Some(lag), true) = (self.config.lag, conn.caught_up) else { continue };
            let (mut events, mut bytes) = (0, 0);
            for entry in log.between(first.sequence - 1, tail) {
                (events, bytes) = (events + 1, bytes + entry.cost);
            }
            let taken = self.taken.partition_point(|&(last, _)| last < first.sequence);
            let late = self.taken.get(taken).is_some_and(|&(_, at)| at.plus(lag.ms) <= now);
            conn.lag_seen |= events > lag.events || bytes > lag.bytes || late;
        }
    }

    /// A socket takes bytes again, or only says so.
    pub(crate) fn writable(&mut self, reader: &mut Reader) {
        if let Some(conn) = &mut reader.conn
            && let Some(id) = conn.id
        {
            (conn.blocked, conn.wavered) = (false, true);
            self.shard.handle_writable(id);
        }
    }

    /// The client went, or its connection broke.
    pub(crate) fn client_gone(&mut self, id: SubscriberId, readers: &mut [Reader]) {
        self.shard.handle_closed(id);
        if let Some(reader) = self.members.remove(&id) {
            self.tally.closed[CloseReason::Client as usize] += 1;
            readers[reader].conn = None;
        }
    }

    /// The store reads the page that was asked for at this place of the queue.
    pub(crate) fn read_page(&mut self, at: usize, fails: bool, log: &mut Log, bounds: &PageBounds, ctx: &mut Context) {
        let request = self.requests.swap_remove(at);
        if fails {
            ctx.counts.add("pages that failed", 1);
            self.pages.push((request.id, Err(PageFailed)));
            return;
        }
        let mut page = log.page(&request, bounds, ctx.rng.chance(2, 3));
        if page.covered_through < request.up_to {
            ctx.counts.add("pages cut by a bound", 1);
        }
        if !ctx.calm && ctx.rng.chance(1, 60) && log.damage(&request, &mut page) {
            ctx.counts.add("pages with damage", 1);
        }
        if page.lost.is_none() && ctx.sabotage.strikes(Fault::InventGapInPage) {
            page.lost = Some(GapReason::Evicted);
        } else if page.lost.is_some() && ctx.sabotage.strikes(Fault::ForgetGapInPage) {
            page.lost = None;
        }
        ctx.trace.note("page read", &[self.number as u64, request.after, page.covered_through, page.records.len() as u64]);
        self.pages.push((request.id, Ok(page)));
    }

    /// A page comes back.
    pub(crate) fn return_page(&mut self, at: usize, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Outcome {
        let (id, page) = self.pages.swap_remove(at);
        let cause = Cause::Page { failed: page.is_err(), lost: page.as_ref().is_ok_and(|page| page.lost.is_some()) };
        ctx.trace.note("page returns", &[self.number as u64]);
        self.shard.handle_page(id, page);
        self.take_closed(cause, readers, log, ctx)
    }

    pub(crate) fn drain(&mut self, spread_ms: u64, readers: &mut [Reader], ctx: &mut Context) {
        self.draining = true;
        self.shard.drain(spread_ms, ctx.now);
        for &reader in self.members.values() {
            if let Some(conn) = &mut readers[reader].conn {
                conn.drained_by = Some(ctx.now.plus(spread_ms));
            }
        }
    }

    /// Breaks everybody off, as after a panic or at the end of a drain, and begins anew with the tail at the head of the log.
    pub(crate) fn rebuild(&mut self, reason: CloseReason, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Outcome {
        if ctx.rng.chance(1, 2) {
            self.shard.abort_all(reason);
            self.take_closed(Cause::Abort(reason), readers, log, ctx)?;
            if self.shard.subscribers() != 0 || !self.members.is_empty() {
                return Err("somebody is left after all were broken off".into());
            }
        } else {
            // The table is not to be trusted: the sockets are broken off without it.
            for &reader in self.members.values() {
                readers[reader].conn = None;
            }
        }
        self.tally_is_right()?;
        self.book(ctx);
        let inbox = std::mem::take(&mut self.inbox);
        self.config.epoch = log.epoch;
        *self = Host { inbox, ..Host::new(self.number, self.config.clone(), log.head(), ctx.now) };
        Ok(())
    }

    /// Adds what this shard did to the counts of the run.
    pub(crate) fn book(&self, ctx: &mut Context) {
        ctx.counts.add("deliveries", self.tally.deliveries);
        for reason in CloseReason::ALL {
            ctx.counts.add(&format!("closed: {}", reason.as_str()), self.tally.closed[reason as usize]);
        }
        for reason in GapReason::ALL {
            ctx.counts.add(&format!("gaps: {}", reason.as_str()), self.tally.gaps[reason as usize]);
        }
    }

    pub(crate) fn tally_is_right(&self) -> Outcome {
        let (stats, tally) = (self.shard.stats(), &self.tally);
        let said = (stats.deliveries, stats.bytes, stats.closed, stats.gaps);
        let counted = (tally.deliveries, tally.bytes, tally.closed, tally.gaps);
        if said != counted {
            return Err(format!("the counters say {said:?}, and it was {counted:?}"));
        }
        Ok(())
    }

    pub(crate) fn nobody_else_is_there(&self) -> Outcome {
        if self.shard.subscribers() != self.members.len() {
            return Err(format!("{} subscribers in the shard, {} connections", self.shard.subscribers(), self.members.len()));
        }
        Ok(())
    }

    fn take_closed(&mut self, cause: Cause, readers: &mut [Reader], log: &Log, ctx: &mut Context) -> Outcome {
        while let Some(closed) = self.shard.poll_closed() {
            let reader = self.members.remove(&closed.id).ok_or_else(|| format!("closed, but not there: {closed:?}"))?;
            ctx.trace.note(closed.reason.as_str(), &[self.number as u64, reader as u64]);
            self.tally.closed[closed.reason as usize] += 1;
            let reader = &mut readers[reader];
            if !self.may_close(&closed, cause, reader, log, ctx.now) {
                return Err(format!("reader {} closed without reason: {closed:?}", reader.name));
            }
            let planned = cause == Cause::Poll && closed.reason != CloseReason::Lagged;
            if planned && (closed.end == EndStyle::Clean || ctx.rng.chance(1, 2)) {
                reader.planned_end(closed.end, log, &mut ctx.counts)?;
            } else {
                // What is in the kernel's buffers when a connection is broken off may or may not arrive.
                let received = reader.conn.as_ref().map_or(0, |conn| ctx.rng.index(conn.wire.len() + 1));
                reader.receive(received, log, &mut ctx.counts)?;
            }
            if planned {
                ctx.counts.add(if closed.end == EndStyle::Clean { "planned ends, clean" } else { "planned ends, by abort" }, 1);
            }
            reader.conn = None;
        }
        Ok(())
    }

    /// Whether this end, at this moment, has the reason it names.
    fn may_close(&self, closed: &Closed, cause: Cause, reader: &Reader, log: &Log, now: Millis) -> bool {
        let Some(conn) = &reader.conn else { return false };
        let aborted = closed.end == EndStyle::Abort;
        let near_its_end = |why| conn.ends.is_some_and(|(ends, of)| of == why && now.0 + self.pass_ms() + 2 * limits::TICK_MS >= ends.0);
        let gone = || log.wanted(conn.begun, self.shard.tail(), &reader.question).any(|entry| log.is_gone(entry));
        let lagged = |gone: bool| reader.lag_policy == LagPolicy::Disconnect && conn.caught_up && (conn.lag_seen || gone);
        match (cause, closed.reason) {
            (Cause::Poll, CloseReason::Age | CloseReason::Expired) => {
                near_its_end(closed.reason) && closed.end == reader.end && !conn.blocked
            }
            (Cause::Poll, CloseReason::Drain) => conn.drained_by.is_some() && closed.end == reader.end && !conn.blocked,
            (Cause::Poll, CloseReason::Lagged) => aborted && lagged(gone() || log.is_forgetful()),
            (Cause::Tick, CloseReason::Expired) => near_its_end(closed.reason) && aborted && conn.blocked,
            (Cause::Tick, CloseReason::Stalled) => {
                aborted && conn.blocked && conn.starved_since.is_some_and(|since| since.plus(self.config.stalled_ms) <= now)
            }
            (Cause::Tick, CloseReason::Lagged) => aborted && lagged(false),
            (Cause::Page { lost: true, .. }, CloseReason::Lagged) => aborted && lagged(gone() || log.is_forgetful()),
            (Cause::Page { failed: true, .. }, CloseReason::Store) => aborted,
            (Cause::Abort(reason), _) => aborted && reason == closed.reason,
            _ => false,
        }
    }
}

/// What stands in a fresh write, which always begins at the beginning of something.
#[derive(Default)]
struct Said {
    events: Vec<u64>,
    /// Where in the bytes each of them ends.
    ends: Vec<usize>,
    gap: Option<GapReason>,
    is_heartbeat: bool,
    /// Everything up to here is settled by it.
    through: u64,
}

impl Said {
    fn read(framing: Framing, bytes: &[u8], log: &Log) -> Result<Said, String> {
        let mut stream = Vec::new();
        match framing {
            Framing::Plain => stream.extend_from_slice(bytes),
            Framing::Chunked => Chunks::default().push(bytes, &mut stream)?,
        }
        let mut said = Said { is_heartbeat: stream == wire::HEARTBEAT.as_bytes(), ..Said::default() };
        let mut items = Vec::new();
        Parser::new(1 << 20).push(&stream, |item| items.push(item)).map_err(|error| error.to_string())?;
        for item in items {
            let Item::Message(message) = item else { continue };
            if message.event_type == wire::GAP_TYPE {
                let reason =
                    GapReason::ALL.into_iter().find(|reason| message.data.contains(&format!("\"reason\":\"{}\"", reason.as_str())));
                said.gap = Some(reason.ok_or("a gap without a reason")?);
                said.through = Position::parse(&message.id).map_or(0, |at| at.sequence);
            } else {
                let entry = log.by_id(&message.id).ok_or_else(|| format!("nobody published {message:?}"))?;
                said.events.push(entry.sequence);
                said.through = entry.sequence;
            }
        }
        let blank_line: &[u8] = if framing == Framing::Chunked { b"\n\n\r\n" } else { b"\n\n" };
        let ends = bytes.windows(blank_line.len()).enumerate().filter(|(_, found)| *found == blank_line);
        said.ends = ends.map(|(at, _)| at + blank_line.len()).collect();
        if !said.events.is_empty() && said.ends.len() != said.events.len() {
            return Err("events that do not end".into());
        }
        Ok(said)
    }

    /// What is left of it when so many bytes were taken: events that were not begun were not said. Returns where the last one begun ends.
    fn cut(&mut self, taken: usize) -> usize {
        let begun = self.ends.iter().position(|&end| end >= taken).unwrap_or_default();
        self.events.truncate(begun + 1);
        self.through = self.events.last().copied().unwrap_or(self.through);
        self.ends.get(begun).copied().unwrap_or_default()
    }
}
