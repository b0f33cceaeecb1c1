//! Publishing a log's worth of events in batches, over a few connections that take turns, so that numbers are in order.

use super::Settings;
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

/// Events in a request.
const BATCH: u64 = 1_000;
const TOPICS: u64 = 1_000;

/// Publishes everything, and gives the id of the event in the middle. Numbers begin at 1; each event's data is its number, filled up.
pub(super) fn fill(address: SocketAddr, settings: &Settings) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let every = (settings.events / settings.rare.max(1)).max(1);
    let padding = "x".repeat(settings.size.saturating_sub(21));
    let (mut next, mut middle, mut body, mut answer) = (1, String::new(), String::new(), Vec::new());
    while next <= settings.events {
        body.clear();
        let end = (next + BATCH).min(settings.events + 1);
        for number in next..end {
            let topic = if number % every == 0 { "rare".to_owned() } else { format!("room/{}", number % TOPICS) };
            writeln!(body, r#"{{"topic":"{topic}","data":"{number:020} {padding}"}}"#)?;
        }
        let head = format!(
            "POST /publish HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let ids = read_answer(&mut stream, &mut answer)?;
        let wanted = settings.events / 2;
        if (next..end).contains(&wanted) {
            ids.lines().nth((wanted - next) as usize).context("an id for each event")?.clone_into(&mut middle);
        }
        next = end;
    }
    Ok(middle)
}

fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<String> {
    answer.clear();
    let mut part = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            bail!("the hub hung up: {}", String::from_utf8_lossy(answer));
        }
        answer.extend_from_slice(&part[..count]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            bail!("a publish was answered {head}\n{}", String::from_utf8_lossy(&answer[end..]));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).context("a length")?.trim().parse::<usize>()?;
        if answer.len() >= end + 4 + length {
            return Ok(String::from_utf8_lossy(&answer[end + 4..]).into_owned());
        }
    }
}
