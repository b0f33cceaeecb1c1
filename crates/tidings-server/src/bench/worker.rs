//! The processes that hold subscribers when there are more of them than one process may open files: the parent's handle to one, and what
//! such a process does. They speak in lines over the worker's standard input and output.
//!
//! A worker ends when its input does, so that none outlives its parent. Which load is meant is the parent's to know.

use super::{
    load::{Load, Opening},
    tally::Counts,
};
use crate::Failure;
use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

/// How often a worker says what it has seen; a closed loop waits for it.
const SAY: Duration = Duration::from_millis(1);

/// The parent's end.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    pub(super) deliveries: u64,
    pub(super) warm_up_deliveries: u64,
    pub(super) open: usize,
    /// Answers that were not asked for yet.
    answer: Option<String>,
}

fn ended() -> Failure {
    Failure::Running("a process with a share of the subscribers ended".into())
}

impl Worker {
    /// Starts this program once more, with the same arguments and a share of the subscribers.
    pub(super) fn start(share: &str) -> Result<Worker, Failure> {
        let failed = |error: io::Error| Failure::Running(format!("cannot start a further process: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(std::env::args_os().skip(1)).args(["--share", share]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(input), Some(out)) = (child.stdin.take(), child.stdout.take()) else { return Err(ended()) };
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Worker { child, input, lines, deliveries: 0, warm_up_deliveries: 0, open: 0, answer: None })
    }

    pub(super) fn send(&mut self, command: &str) -> Result<(), Failure> {
        writeln!(self.input, "{command}").and_then(|()| self.input.flush()).map_err(|_| ended())
    }

    /// Takes what it has said so far.
    pub(super) fn drain(&mut self) -> Result<(), Failure> {
        loop {
            let line = match self.lines.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) if self.answer.is_some() => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(ended()),
            };
            match line.split_once(' ') {
                Some(("seen", numbers)) => {
                    let mut numbers = numbers.split(' ').filter_map(|number| number.parse().ok());
                    let mut next = || numbers.next().unwrap_or_default();
                    (self.deliveries, self.warm_up_deliveries, self.open) = (next(), next(), next() as usize);
                }
                Some(("failed", why)) => return Err(Failure::Running(why.to_owned())),
                _ => self.answer = Some(line),
            }
        }
    }

    /// The answer to the last command that has one, once it is there.
    pub(super) fn answer(&mut self) -> Result<Option<String>, Failure> {
        self.drain()?;
        Ok(self.answer.take())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It would end by itself when its input does; a killed one cannot be in the way of what comes next.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a worker does until its input ends.
pub(super) fn serve(mut load: Load) -> Result<(), Failure> {
    let (send, commands) = channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let mut said = (0, 0, 0);
    let mut next = Instant::now();
    loop {
        match commands.try_recv() {
            Ok(command) => {
                let answer = match obey(&mut load, &command) {
                    Ok(answer) => answer,
                    Err(Failure::Running(why) | Failure::Usage(why)) => Some(format!("failed {why}")),
                };
                if let Some(answer) = answer {
                    say(&seen(&load))?;
                    say(&answer)?;
                }
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
        load.turn()?;
        let now = (load.counts.deliveries, load.counts.warm_up_deliveries, load.open());
        if now != said && Instant::now() >= next {
            said = now;
            next = Instant::now() + SAY;
            say(&seen(&load))?;
        }
    }
}

fn seen(load: &Load) -> String {
    format!("seen {} {} {}", load.counts.deliveries, load.counts.warm_up_deliveries, load.open())
}

/// Does what a line says; some lines are answered.
fn obey(load: &mut Load, command: &str) -> Result<Option<String>, Failure> {
    let mut words = command.split(' ');
    let verb = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
    match verb {
        "connect" => {
            let (to, at_once, again) = (number(), number().max(1), number() != 0);
            let opening = Opening { at_once, again, cursor: words.next().unwrap_or_default().to_owned() };
            let mut next = Instant::now();
            load.connect(to, &opening, &mut |open| {
                if Instant::now() >= next {
                    next = Instant::now() + 50 * SAY;
                    // Whoever reads it has ended if this fails, and that is noticed in the next turn.
                    let _ = say(&format!("seen 0 0 {open}"));
                }
            })?;
            return Ok(Some("open".into()));
        }
        "close" => load.close_all(),
        "expect" => load.expect(number() as u32),
        "stall" => load.stall(number()),
        "unstall" => return Ok(Some(format!("told {}", load.unstall()?))),
        "counts" => return Ok(Some(std::mem::take(&mut load.counts).into_json().to_string())),
        _ => {}
    }
    Ok(None)
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|_| ended())
}

/// The counts in an answer.
pub(super) fn counts(answer: &str) -> Result<Counts, Failure> {
    let value = serde_json::from_str(answer).ok();
    value
        .as_ref()
        .and_then(Counts::from_json)
        .ok_or_else(|| Failure::Running("a process with a share of the subscribers spoke nonsense".into()))
}
