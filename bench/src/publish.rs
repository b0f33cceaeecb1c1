//! The publisher: one kept-alive connection, one event at a time, each answered before the next, so that their order is known.
//!
//! It knows the hub's publish route, not who listens.

use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// What to publish: `per_topic` rounds over all topics.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) topics: u32,
    pub(crate) per_topic: u32,
    pub(crate) rate: u32,
    pub(crate) size: usize,
    pub(crate) key: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) events: u64,
    /// How often the hub said to come back later (503).
    pub(crate) refused: u64,
    pub(crate) took: Duration,
}

/// The topic of a number; below one prefix, so that one connection could watch them all.
pub(crate) fn topic(number: u32) -> String {
    format!("bench/{number}")
}

pub(crate) fn run(address: SocketAddr, plan: &Plan) -> Result<Published> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let mut answers = BufReader::new(connection.try_clone()?);
    let mut connection = connection;
    let key = plan.key.as_ref().map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
    let started = Instant::now();
    let (mut events, mut refused) = (0, 0);
    for number in 1..=plan.per_topic {
        for topic_number in 0..plan.topics {
            if plan.rate > 0 {
                let due = Duration::from_secs_f64(events as f64 / f64::from(plan.rate));
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
            let mut data = format!("{topic_number}:{number}");
            if data.len() < plan.size {
                data.push(' ');
                data.extend(std::iter::repeat_n('x', plan.size - data.len()));
            }
            let head =
                format!("POST /publish/{} HTTP/1.1\r\nhost: {address}\r\n{key}content-length: {}\r\n\r\n", topic(topic_number), data.len());
            let request = head + &data;
            loop {
                connection.write_all(request.as_bytes())?;
                match answer(&mut answers)? {
                    200 => break,
                    503 => {
                        refused += 1;
                        thread::sleep(Duration::from_millis(100));
                    }
                    status => bail!("publishing to {} was answered with {status}", topic(topic_number)),
                }
            }
            events += 1;
        }
    }
    Ok(Published { events, refused, took: started.elapsed() })
}

/// Reads one answer to its end; its status.
fn answer(answers: &mut impl BufRead) -> Result<u16> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("not an answer: {line:?}"))?;
    let mut length = 0;
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            None if line.trim_end().is_empty() => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    Ok(status)
}

#[test]
fn answers_are_read_to_their_end() {
    let mut bytes = &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 503 No\r\nx: y\r\ncontent-length:0\r\n\r\n"[..];
    assert_eq!(answer(&mut bytes).unwrap(), 200);
    assert_eq!(answer(&mut bytes).unwrap(), 503);
    assert!(bytes.is_empty() && answer(&mut bytes).is_err());
}
