//! A reader with its browser, across all its reconnects, and the promise it was given: every event it wants exactly once, in order, or
//! word of the gap; and no word of a gap when nothing is missing (N-14). It is judged by the log's plain values and by what came out of
//! the connection, never by the shard's own account.

use super::{
    log::{Entry, Log, Start},
    question::Question,
    stream::{Chunks, Lines},
    trace::Counts,
};
use bytes::Bytes;
use std::collections::VecDeque;
use tidings_core::{
    Epoch, FeedKey, Framing, GapReason, Item, Message, Parser, Position,
    shard::{CloseReason, EndStyle, LagPolicy, Millis, SubscriberId},
    wire,
};

const EVENT_LIMIT: usize = 1 << 20;

/// How the socket takes bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Mood {
    Fast,
    Choppy,
    Trickle,
    Stalled,
}

/// A gap that was found before the stream began, and has to be told first.
pub(crate) struct Owed {
    pub(crate) requested: String,
    pub(crate) reason: GapReason,
    pub(crate) from: u64,
    pub(crate) skip_to: u64,
}

/// Ticks of the shard since something was due, and in which it could have been done.
#[derive(Default)]
pub(crate) struct Overdue {
    pub(crate) heartbeat: u64,
    pub(crate) stall: u64,
    pub(crate) end: u64,
}

pub(crate) struct Conn {
    pub(crate) host: usize,
    /// `None` while it waits for its shard.
    pub(crate) id: Option<SubscriberId>,
    pub(crate) mood: Mood,
    pub(crate) blocked: bool,
    /// It began or ceased to take bytes since the last tick, so a tick may have found it in either state.
    pub(crate) wavered: bool,
    /// Since when bytes have waited without one being taken.
    pub(crate) starved_since: Option<Millis>,
    /// The rest of what was begun: the only bytes that may come next.
    pub(crate) rest: Bytes,
    /// Offered, and not one byte of it taken.
    pub(crate) refused: Bytes,
    pub(crate) last_write: Millis,
    pub(crate) ends: Option<(Millis, CloseReason)>,
    pub(crate) drained_by: Option<Millis>,
    pub(crate) overdue: Overdue,
    /// Everything the reader wants up to here was begun to be written.
    pub(crate) begun: u64,
    /// The shard's tail when it had nothing left to do for this reader.
    pub(crate) settled: u64,
    /// There was a moment when nothing was missing.
    pub(crate) caught_up: bool,
    /// It was beyond a bound of lag at a tick.
    pub(crate) lag_seen: bool,
    /// For each gap on its way to the browser: whether it was beyond a bound then.
    pub(crate) gaps_under_way: VecDeque<bool>,
    /// Taken by the socket, not yet seen by the browser.
    pub(crate) wire: VecDeque<u8>,
    /// What the stream has to begin with, as far as it has not come.
    pub(crate) opening: Vec<u8>,
    pub(crate) owed: Option<Owed>,
    /// The event that the last gap announced.
    earliest: Option<String>,
    chunks: Chunks,
    lines: Lines,
}

pub(crate) struct Reader {
    pub(crate) name: usize,
    pub(crate) question: Question,
    pub(crate) feed: FeedKey,
    pub(crate) prime: bool,
    pub(crate) end: EndStyle,
    pub(crate) lag_policy: LagPolicy,
    parser: Parser,
    /// It got, or was told to be without, everything up to here.
    have: Option<(Epoch, u64)>,
    pub(crate) conn: Option<Conn>,
    pub(crate) last_host: Option<usize>,
}

impl Reader {
    pub(crate) fn new(name: usize, question: Question, prime: bool, end: EndStyle, lag_policy: LagPolicy) -> Reader {
        let feed = question.feed();
        let parser = Parser::new(EVENT_LIMIT);
        Reader { name, question, feed, prime, end, lag_policy, parser, have: None, conn: None, last_host: None }
    }

    pub(crate) fn cursor(&self) -> &str {
        self.parser.last_event_id()
    }

    /// A new connection begins. `with_cursor` is whether the server was sent one.
    pub(crate) fn connect(
        &mut self,
        host: usize,
        start: &Start,
        with_cursor: bool,
        opening: Vec<u8>,
        log: &Log,
        now: Millis,
    ) -> Result<(), String> {
        self.parser.reconnect();
        let owed = start.gap.as_ref().map(|gap| Owed {
            requested: gap.requested.to_string(),
            reason: gap.reason,
            from: start.from,
            skip_to: start.skip_to,
        });
        if let Some(owed) = owed.as_ref().filter(|owed| owed.reason == GapReason::Evicted) {
            // A shard whose ring goes further back than the log may serve what is gone there, so this is judged here and now.
            let missing = log.wanted(owed.from, log.floor(), &self.question).next();
            if missing.is_none() && !log.is_forgetful() && !log.is_vague(owed.from, log.floor(), &self.question) {
                return Err(format!("the log announces a gap after {}, and nothing is missing (N-14)", owed.from));
            }
        }
        if !with_cursor {
            self.have = Some((log.epoch, start.after));
        } else if owed.is_none() {
            let have = self.have_in(log)?;
            let (low, high) = (have.min(start.after), have.max(start.after));
            if let Some(entry) = log.wanted(low, high, &self.question).next() {
                return Err(format!("its cursor says {}, but it has everything up to {have}: {} is between", start.after, entry.id));
            }
        }
        self.last_host = Some(host);
        self.conn = Some(Conn {
            host,
            id: None,
            mood: Mood::Fast,
            blocked: false,
            wavered: false,
            starved_since: None,
            rest: Bytes::new(),
            refused: Bytes::new(),
            last_write: now,
            ends: None,
            drained_by: None,
            overdue: Overdue::default(),
            begun: start.after,
            settled: 0,
            caught_up: false,
            lag_seen: false,
            gaps_under_way: VecDeque::new(),
            wire: VecDeque::new(),
            opening,
            owed,
            earliest: None,
            chunks: Chunks::default(),
            lines: Lines::default(),
        });
        Ok(())
    }

    /// The browser sees the next bytes of the connection.
    pub(crate) fn receive(&mut self, count: usize, log: &Log, counts: &mut Counts) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        let bytes: Vec<u8> = conn.wire.drain(..count.min(conn.wire.len())).collect();
        let stream = match self.question.framing {
            Framing::Plain => bytes,
            Framing::Chunked => {
                let mut stream = Vec::new();
                conn.chunks.push(&bytes, &mut stream)?;
                stream
            }
        };
        let of_opening = stream.len().min(conn.opening.len());
        if !conn.opening.starts_with(&stream[..of_opening]) {
            return Err("something comes before the opening (S-27)".into());
        }
        conn.opening.drain(..of_opening);
        conn.lines.push(&stream)?;
        let mut items = Vec::new();
        self.parser.push(&stream, |item| items.push(item)).map_err(|error| error.to_string())?;
        items.into_iter().try_for_each(|item| self.read(item, log, counts))
    }

    /// The browser saw everything that was written, and the end.
    pub(crate) fn planned_end(&mut self, end: EndStyle, log: &Log, counts: &mut Counts) -> Result<(), String> {
        self.receive(usize::MAX, log, counts)?;
        let Some(conn) = &self.conn else { return Ok(()) };
        if !conn.lines.is_planned_end() {
            return Err("a planned end that is not one: no `retry` line last (S-43)".into());
        }
        if self.question.framing == Framing::Chunked && conn.chunks.is_done() != (end == EndStyle::Clean) {
            return Err("the final chunk comes with a clean end and with no other (S-42)".into());
        }
        // With a gap untold the cursor stays, or the loss would be hidden for ever.
        let untold = log.is_forgetful() || log.wanted(conn.begun, log.head(), &self.question).any(|entry| log.is_gone(entry));
        if self.prime && conn.owed.is_none() && !untold {
            // The id of the last event does as well as a position, if nothing was covered since.
            let cursor = self.cursor();
            let place = Position::parse(cursor).map(|at| at.sequence).or_else(|| log.by_id(cursor).map(|entry| entry.sequence));
            if place.ok_or("a planned end without a cursor (N-13a)")? < conn.begun.max(conn.settled) {
                return Err(format!("a planned end left the cursor at {cursor} (N-13a)"));
            }
        }
        Ok(())
    }

    fn read(&mut self, item: Item, log: &Log, counts: &mut Counts) -> Result<(), String> {
        match item {
            Item::Message(message) if message.event_type == wire::GAP_TYPE => self.read_gap(&message, log, counts),
            Item::Message(message) => self.read_event(&message, log, counts),
            Item::Cursor(cursor) => self.read_cursor(&cursor, log, counts),
            Item::Comment(text) if text == "hb" => {
                counts.add("heartbeats read", 1);
                Ok(())
            }
            Item::Comment(_) | Item::Retry(_) => Ok(()),
            other => Err(format!("an item that no stream has: {other:?}")),
        }
    }

    fn read_event(&mut self, message: &Message, log: &Log, counts: &mut Counts) -> Result<(), String> {
        let entry = log.by_id(&message.id).ok_or_else(|| format!("an event that nobody published: {message:?}"))?;
        let (topics, event_type, data) = entry.as_read_by(&self.question);
        let topics = self.question.told_topics(topics, entry.private);
        if message.data != data || message.event_type != event_type || message.topics != topics {
            return Err(format!("{} arrived as something else: {message:?}", entry.id));
        }
        if !entry.wanted_by(&self.question) {
            return Err(format!("{} is not for this reader", entry.id));
        }
        let conn = self.conn.as_mut().ok_or("an event without a connection")?;
        if conn.owed.is_some() {
            return Err(format!("{} before the gap was told (N-14)", entry.id));
        }
        if let Some(earliest) = conn.earliest.take().filter(|earliest| *earliest != message.id) {
            return Err(format!("a gap announced {earliest}, and {} came", message.id));
        }
        let have = self.have_in(log)?;
        if entry.sequence <= have {
            return Err(format!("{} twice or out of order: it has everything up to {have}", entry.id));
        }
        self.nothing_between(have, entry.sequence - 1, log)?;
        self.have = Some((log.epoch, entry.sequence));
        counts.add("deliveries read", 1);
        match event_type {
            "mercure" => counts.add("read in the newer view", 1),
            _ if data.starts_with("{\"@context\"") => counts.add("read in the older view", 1),
            _ => {}
        }
        Ok(())
    }

    fn read_gap(&mut self, message: &Message, log: &Log, counts: &mut Counts) -> Result<(), String> {
        let (resume_at, told) = Told::parse(message).ok_or_else(|| format!("not a gap as N-14 has it: {message:?}"))?;
        if resume_at.epoch != log.epoch {
            return Err(format!("a gap points to another log: {message:?}"));
        }
        let resume_at = resume_at.sequence;
        let owed = self.conn.as_mut().and_then(|conn| conn.owed.take());
        let (from, skip_to) = match &owed {
            Some(owed) => {
                if told.requested != owed.requested || told.reason != owed.reason.as_str() {
                    return Err(format!("{:?} of {:?} was to be told, not {message:?}", owed.reason, owed.requested));
                }
                (owed.from, owed.skip_to)
            }
            None => {
                let have = self.have_in(log)?;
                let asked = Position::parse(&told.requested).filter(|at| at.epoch == log.epoch);
                let asked = asked.ok_or_else(|| format!("a gap in mid-stream names no place: {message:?}"))?;
                self.nothing_between(have, asked.sequence, log)?;
                (have, 0)
            }
        };
        let conn = self.conn.as_mut().ok_or("a gap without a connection")?;
        let lagged = conn.gaps_under_way.pop_front() == Some(true) && self.lag_policy == LagPolicy::Gap;
        let missing: Vec<&Entry> = log.wanted(from, resume_at, &self.question).collect();
        if let Some(kept) = missing.iter().find(|entry| !log.is_gone(entry) && entry.sequence > skip_to && !lagged) {
            return Err(format!("{} is kept, and a gap passes over it: {message:?}", kept.id));
        }
        // Who may have been told although nothing was missing: a cursor that says nothing about this log, or a store that forgets.
        // A page that came so late that the log has lost events beyond it, which the shard still holds, tells of those.
        let overtaken = log.wanted(resume_at, log.floor(), &self.question).next().is_some();
        let forgotten = log.is_forgetful() && log.between(from, resume_at).any(|entry| log.is_gone(entry));
        let cautious = overtaken || forgotten || log.is_vague(from, resume_at.max(log.floor()), &self.question);
        let possible = match told.reason.as_str() {
            "evicted" | "damaged" => !missing.is_empty() || cautious || owed.is_some(),
            "lagged" => conn.caught_up && self.lag_policy == LagPolicy::Gap && (!missing.is_empty() || cautious),
            "unknown" | "epoch" | "lost" => owed.is_some(),
            _ => false,
        };
        if !possible {
            return Err(format!("told of a gap with nothing missing (N-14): {message:?}"));
        }
        match &told.earliest {
            Some(id) => {
                let next = log.by_id(id).filter(|next| next.wanted_by(&self.question) && next.sequence == resume_at + 1);
                next.ok_or_else(|| format!("a gap whose `earliest` does not follow it: {message:?}"))?;
            }
            None if resume_at < from => return Err(format!("a gap that leads back: {message:?}")),
            None => {}
        }
        conn.earliest = told.earliest;
        self.have = Some((log.epoch, resume_at));
        counts.add(&format!("gaps read: {}", told.reason), 1);
        Ok(())
    }

    fn read_cursor(&mut self, cursor: &str, log: &Log, counts: &mut Counts) -> Result<(), String> {
        let moved = Position::parse(cursor).filter(|at| at.epoch == log.epoch).ok_or_else(|| format!("primed with {cursor:?}"))?;
        if self.conn.as_ref().is_some_and(|conn| conn.owed.is_some()) {
            return Err(format!("primed with {cursor} before the gap was told"));
        }
        let have = self.have_in(log)?;
        if moved.sequence < have {
            self.nothing_between(moved.sequence, have, log)?;
        }
        self.nothing_between(have, moved.sequence, log)?;
        self.have = Some((log.epoch, moved.sequence.max(have)));
        counts.add("cursors moved without an event", 1);
        Ok(())
    }

    /// At rest: nothing is missing, nothing is left to be told.
    pub(crate) fn has_everything(&self, log: &Log) -> Result<(), String> {
        let Some(conn) = &self.conn else { return Err("it is not connected".into()) };
        if conn.owed.is_some() {
            return Err("a gap was never told (N-14)".into());
        }
        if !conn.opening.is_empty() || !conn.rest.is_empty() || conn.blocked {
            return Err("bytes that never came".into());
        }
        self.nothing_between(self.have_in(log)?, log.head(), log)
    }

    fn have_in(&self, log: &Log) -> Result<u64, String> {
        match self.have {
            Some((epoch, sequence)) if epoch == log.epoch => Ok(sequence),
            _ => Err("another log, and no word of it (N-14)".into()),
        }
    }

    fn nothing_between(&self, after: u64, up_to: u64, log: &Log) -> Result<(), String> {
        match log.wanted(after, up_to, &self.question).next() {
            Some(entry) => Err(format!("{} never came, and no gap was told: it had everything up to {after}", entry.id)),
            None => Ok(()),
        }
    }
}

/// The data of a gap event.
struct Told {
    requested: String,
    earliest: Option<String>,
    reason: String,
}

impl Told {
    fn parse(message: &Message) -> Option<(Position, Told)> {
        let data: serde_json::Value = serde_json::from_str(&message.data).ok()?;
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        let earliest = if data["earliest"].is_null() { None } else { Some(text("earliest")?) };
        Some((Position::parse(&message.id)?, Told { requested: text("requested")?, earliest, reason: text("reason")? }))
    }
}
