//! `tidings publish`: one event from the command line or standard input, or one event a line (N-2, N-3).
//!
//! Lines are sent in batches of whatever has arrived while the batch before was under way: a quick producer fills large requests, a slow
//! one has every line sent at once, and never more than one batch is in memory. Which events are good is the hub's to say.

use crate::{
    Failure,
    client::{Connection, Endpoint, Problem},
    text,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Map, Value, json};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    time::Duration,
};
use tidings::limits;
use tokio::{runtime::Runtime, time::timeout};

/// Lines of one request.
const BATCH_LINES: usize = 1_000;
/// Bytes after which no further line is added to a request; one line may exceed it alone.
const BATCH_BYTES: usize = 1 << 20;
/// The hub itself gives up earlier, so this is reached only when nobody answers at all.
const ANSWER: Duration = Duration::from_mins(1);
/// Ids are at most 512 bytes each.
const ANSWER_BYTES: usize = 1 << 20;

/// What is published.
pub(crate) enum Input {
    /// One event with this data.
    Data(String),
    /// Standard input to its end as one event.
    Whole,
    /// Standard input, one event a line.
    Lines,
}

/// What every event of this call has besides its data: the members of N-2.
pub(crate) type Members = Map<String, Value>;

/// Publishes, and prints the ids.
pub(crate) fn run(endpoint: Endpoint, input: Input, members: Members) -> Result<(), Failure> {
    // A thread of its own drives the connection, so that its end is noticed while this one waits for standard input.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("cannot start a thread: {error}")))?;
    let mut publisher = Publisher { runtime, endpoint, connection: None, members, published: 0 };
    match input {
        Input::Data(data) => publisher.one(data),
        Input::Whole => publisher.one(whole(io::stdin().lock())?),
        Input::Lines => publisher.lines(&mut BufReader::with_capacity(BATCH_BYTES, io::stdin().lock())),
    }
}

struct Publisher {
    runtime: Runtime,
    endpoint: Endpoint,
    connection: Option<Connection>,
    members: Members,
    /// Events confirmed so far.
    published: u64,
}

impl Publisher {
    fn one(&mut self, data: String) -> Result<(), Failure> {
        let body = self.event(data);
        self.post("application/json", body.into_bytes())
    }

    fn lines(&mut self, input: &mut BufReader<impl Read>) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            let mut body = String::new();
            for count in 0..BATCH_LINES {
                let may_wait = count == 0;
                if body.len() >= BATCH_BYTES || !(may_wait || input.buffer().contains(&b'\n')) || !read_line(input, &mut line)? {
                    break;
                }
                let number = self.published + count as u64 + 1;
                let data = String::from_utf8(std::mem::take(&mut line))
                    .map_err(|_| Failure::Running(format!("line {number} of the input is not valid UTF-8{}", self.so_far())))?;
                body.push_str(&self.event(data));
                body.push('\n');
            }
            if body.is_empty() {
                return Ok(());
            }
            self.post("application/x-ndjson", body.into_bytes())?;
        }
    }

    /// One event as the compact JSON of N-2, which has no line break of its own.
    fn event(&mut self, data: String) -> String {
        self.members.insert("data".into(), data.into());
        let text = serde_json::to_string(&self.members).unwrap_or_default();
        self.members.remove("data");
        text
    }

    fn post(&mut self, content_type: &str, body: Vec<u8>) -> Result<(), Failure> {
        let request = self.endpoint.request("POST", "/publish").header(http::header::CONTENT_TYPE, content_type);
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Failure::Running(error.to_string()))?;
        // The clock of the timeout is the runtime's, so it is set inside of it.
        let exchange = exchange(&self.endpoint, &mut self.connection, request);
        let answer = self.runtime.block_on(async { timeout(ANSWER, exchange).await });
        let answer = answer.unwrap_or_else(|_| Err(format!("{} did not answer within {} s", self.endpoint, ANSWER.as_secs())));
        match answer.map_err(|why| Failure::Running(format!("{why}{}", self.so_far())))? {
            Ok(ids) => self.confirm(ids.lines()),
            Err(problem) => {
                let kept = problem.members.get("ids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let line = problem.members.get("line").and_then(Value::as_u64).map(|line| self.published + line);
                self.confirm(kept.iter().filter_map(Value::as_str))?;
                let place = line.map_or_else(String::new, |line| format!(" (line {line} of the input{})", self.so_far()));
                Err(Failure::Running(format!("{problem}{place}")))
            }
        }
    }

    /// Prints ids. Nobody reading them is no reason to stop publishing, so a closed standard output is not an error.
    fn confirm<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for id in ids {
            self.published += 1;
            match writeln!(out, "{}", text::printable(id)) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(Failure::Running(format!("cannot write to standard output: {error}")));
                }
                _ => {}
            }
        }
        let _ = out.flush();
        Ok(())
    }

    fn so_far(&self) -> String {
        match self.published {
            0 => String::new(),
            1 => "; 1 event was published before".into(),
            count => format!("; {count} events were published before"),
        }
    }
}

/// Sends one request, on the connection of the one before if that is still there.
async fn exchange(
    endpoint: &Endpoint,
    connection: &mut Option<Connection>,
    request: http::Request<Full<Bytes>>,
) -> Result<Result<String, Problem>, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => endpoint.connect().await?,
    };
    if !open.is_ready().await {
        open = endpoint.connect().await?;
    }
    let lost = |why: String| format!("{endpoint} did not answer: {why}; the hub may have kept what was sent last");
    let response = open.send(request).await.map_err(lost)?;
    if response.status() != http::StatusCode::OK {
        return Ok(Err(Problem::read(response).await));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.map_err(|error| lost(error.to_string()))?.to_bytes();
    *connection = Some(open);
    Ok(Ok(String::from_utf8_lossy(&body).into_owned()))
}

/// Everything to the end, as text. One line end at the end is taken off: `echo` puts it there, and nobody means it.
fn whole(input: impl Read) -> Result<String, Failure> {
    let mut data = Vec::new();
    let limit = limits::EVENT_DATA_MAX as u64 + 2;
    input.take(limit + 1).read_to_end(&mut data).map_err(|error| unreadable(&error))?;
    if data.len() as u64 > limit {
        return Err(too_long());
    }
    trim_line_end(&mut data);
    String::from_utf8(data)
        .map_err(|_| Failure::Running("the input is not valid UTF-8; encode binary data, for example with base64".into()))
}

/// Reads one line without its end; `false` at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Failure> {
    let limit = limits::EVENT_DATA_MAX as u64 + 2;
    line.clear();
    input.take(limit + 1).read_until(b'\n', line).map_err(|error| unreadable(&error))?;
    if line.len() as u64 > limit {
        return Err(too_long());
    }
    let read = !line.is_empty();
    trim_line_end(line);
    Ok(read)
}

fn trim_line_end(data: &mut Vec<u8>) {
    if data.last() == Some(&b'\n') {
        data.pop();
        if data.last() == Some(&b'\r') {
            data.pop();
        }
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::Running(format!("cannot read standard input: {error}"))
}

fn too_long() -> Failure {
    let limit = crate::quantity::show_size(limits::EVENT_DATA_MAX as u64);
    Failure::Running(format!("the data is over {limit}, more than any hub takes; with --lines each line is an event of its own"))
}

/// The members of every event of this call.
pub(crate) fn members(topics: &[String], event_type: Option<&str>, id: Option<&str>, retry: Option<Duration>, private: bool) -> Members {
    let mut members = Members::new();
    members.insert("topics".into(), json!(topics));
    let texts = [("type", event_type), ("id", id)];
    members.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
    if let Some(retry) = retry {
        members.insert("retry".into(), json!(retry.as_millis() as u64));
    }
    if private {
        members.insert("private".into(), true.into());
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends() {
        for (input, data) in [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("\n", ""), ("", ""), ("a\r", "a\r")] {
            assert_eq!(whole(input.as_bytes()).unwrap(), data, "{input:?}");
        }
        assert!(whole(&b"\xff"[..]).is_err());
        assert!(whole(io::repeat(b'x')).is_err());

        let mut input = BufReader::new(&b"a\r\n\nb"[..]);
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut input, &mut line).unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(lines, ["a", "", "b"]);
        assert!(read_line(&mut BufReader::new(io::repeat(b'x')), &mut line).is_err());
    }

    /// N-2: only what was given is said.
    #[test]
    fn what_is_said_of_an_event() {
        let one = members(&["a".into()], None, None, None, false);
        assert_eq!(serde_json::to_string(&one).unwrap(), r#"{"topics":["a"]}"#);
        let all = members(&["a".into(), "b".into()], Some("t"), Some("i"), Some(Duration::from_secs(3)), true);
        assert_eq!(Value::Object(all), json!({"topics": ["a", "b"], "type": "t", "id": "i", "retry": 3000, "private": true}));
    }
}
