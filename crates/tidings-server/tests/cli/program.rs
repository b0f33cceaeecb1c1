//! The binary as a child process whose lines and exit can be waited for.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine; reached only by a failure.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A running `tidings`. It is killed when dropped.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
    /// What was read of standard error so far, to show when a test fails.
    said: Vec<String>,
}

/// How a program ended, and what it printed that had not been read.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary with nothing of this process's own settings.
pub(crate) fn tidings(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    // Whoever forgets to say where events are kept does not find those of this machine's user.
    let home = concat!(env!("CARGO_TARGET_TMPDIR"), "/home");
    command.env_remove("STATE_DIRECTORY").env("XDG_DATA_HOME", home).args(args);
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Exit {
    Program::start(&mut tidings(args)).exit()
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Program { input: child.stdin.take(), child, out, err, said: Vec::new() }
    }

    /// The next line on standard output.
    pub(crate) fn line(&mut self) -> String {
        match self.out.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(why) => {
                self.said.extend(self.err.try_iter());
                panic!("no further line ({why}); on standard error: {:#?}", self.said)
            }
        }
    }

    /// Reads standard error up to a line with this text.
    pub(crate) fn wait_for_notice(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = self.err.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no notice with {text:?}; on standard error: {:#?}", self.said)
    }

    /// Gives the program this input, and its end.
    pub(crate) fn feed(&mut self, input: &[u8]) {
        self.input.take().unwrap().write_all(input).unwrap();
    }

    /// Gives the program this input and keeps standard input open.
    pub(crate) fn feed_more(&mut self, input: &[u8]) {
        self.input.as_mut().unwrap().write_all(input).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end. A process that ends closes what it prints to, so that is waited for, with a deadline.
    pub(crate) fn exit(mut self) -> Exit {
        self.input.take();
        let deadline = Instant::now() + DEADLINE;
        let mut rest = [String::new(), String::new()];
        for (lines, rest) in [&self.out, &self.err].into_iter().zip(&mut rest) {
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => rest.extend([&line, "\n"]),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => panic!("still running after {DEADLINE:?}; it printed {rest}"),
                }
            }
        }
        let [out, err] = rest;
        Exit { code: self.child.wait().unwrap().code(), out, err }
    }

    /// Ends it without any word, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            if send.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receive
}

/// `tidings serve` on a free port.
pub(crate) struct Hub {
    pub(crate) program: Program,
    pub(crate) url: String,
}

impl Hub {
    /// Starts one, in memory and with quick reconnects unless the flags say otherwise.
    pub(crate) fn start(flags: &[&str]) -> Hub {
        Hub::listen("127.0.0.1:0", flags)
    }

    pub(crate) fn listen(address: &str, flags: &[&str]) -> Hub {
        let mut args = vec!["serve", "--listen", address];
        args.extend(flags);
        if !flags.iter().any(|flag| ["--store", "--data", "--config"].contains(flag)) {
            args.extend(["--store", "memory"]);
        }
        if !flags.contains(&"--retry") {
            args.extend(["--retry", "50ms"]);
        }
        Hub::take(Program::start(&mut tidings(&args)))
    }

    /// One that was started in another way.
    pub(crate) fn take(mut program: Program) -> Hub {
        let line = program.line();
        let url = line.strip_prefix("tidings listening on ").and_then(|line| Some(line.split_once(' ')?.0));
        let url = url.unwrap_or_else(|| panic!("{line}")).to_owned();
        Hub { program, url }
    }

    /// The address it really bound.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// A command of the client against this hub.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tidings(args);
        command.env("TIDINGS_URL", &self.url);
        command
    }

    /// Publishes one event and returns its id.
    pub(crate) fn publish(&self, topic: &str, data: &str) -> String {
        let exit = Program::start(&mut self.command(&["publish", topic, data])).exit();
        assert_eq!((exit.code, &*exit.err), (Some(0), ""), "{exit:?}");
        exit.out.trim_end().to_owned()
    }
}
