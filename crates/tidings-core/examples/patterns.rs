//! Publishes many events to a shard whose subscribers each have a matcher of their own, and prints only how many were written: what it costs
//! is measured from outside, for example by counting instructions with 10 and with 10,000 subscribers.
//!
//! `cargo run --release --example patterns -- template|pattern|exact SUBSCRIBERS EVENTS`

use bytes::Bytes;
use std::sync::Arc;
use tidings_core::{
    Epoch, Event, FeedKey, Filter, Framing, Grant, Matchers, Position, Record, TopicMatcher, UrlPatterns,
    shard::{Millis, NewSubscriber, Poll, Shard, ShardConfig},
};

const NOW: Millis = Millis::ZERO;

fn write_all(shard: &mut Shard) -> usize {
    let mut writes = 0;
    loop {
        match shard.poll_transmit(NOW) {
            Poll::Transmit(transmit) => {
                let taken = transmit.bytes.len();
                shard.handle_written(taken, NOW);
                writes += 1;
            }
            Poll::Working => {}
            Poll::Idle => return writes,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, subscribers, events] = &arguments[..] else { return Err("which matchers, how many subscribers, how many events".into()) };
    let (subscribers, events): (u64, u64) = (subscribers.parse()?, events.parse()?);
    let patterns = UrlPatterns::new("https://hub.example/.well-known/mercure", usize::MAX)?;
    let matcher = |n: u64| -> Result<TopicMatcher, Box<dyn std::error::Error>> {
        Ok(match kind.as_str() {
            "template" => TopicMatcher::template(&format!("https://example.com/users/{n:05}/messages/{{id}}"))?,
            "pattern" => TopicMatcher::url_pattern(&format!("https://example.com/users/{n:05}/messages/:id"), &patterns)?,
            // All begin alike, so that each of them has to be asked.
            "suffixed" => TopicMatcher::template(&format!("https://example.com/users/{{id}}/messages/{n:05}"))?,
            "exact" => TopicMatcher::exact(&format!("https://example.com/users/{n:05}/messages/1"))?,
            _ => return Err("template, pattern, suffixed or exact".into()),
        })
    };
    let mut shard = Shard::new(ShardConfig::new(Epoch(1), 1), 0, NOW);
    for n in 0..subscribers {
        let filter = Arc::new(Filter::new(Matchers::from(matcher(n)?), &Grant::open()));
        let feed = FeedKey { filter, framing: Framing::Chunked, topics_field: false };
        shard.subscribe(NewSubscriber::new(feed, 0, Bytes::from_static(b": ok\n")), NOW);
        write_all(&mut shard);
        while shard.poll_interest().is_some() {}
    }
    let mut written = 0;
    for sequence in 1..=events {
        // Each event is for one of ten, whether there are more or not.
        let event = Event::new(&format!("https://example.com/users/{:05}/messages/1", sequence % 10), "x")?;
        let record = Record::draft(event).seal(Position { epoch: Epoch(1), sequence }, 0);
        shard.handle_batch(&[record]);
        written += write_all(&mut shard);
    }
    println!("{written} written");
    Ok(())
}
