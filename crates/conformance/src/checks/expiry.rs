//! What ends or keeps a stream: the token's end, the longest life, heartbeats.

use super::{
    Check,
    When::{Each, Eight, Once, Seven},
    must, observed, ours, should,
};
use crate::{
    probe::{Outcome, Probe, bearer, describe, expect, now, skipped},
    settings::Role,
};
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[82, 72], "a stream ends no later than its token", ends_with_token),
    must(Seven, &[209], "a stream ends no later than its token in dialect 7", ends_with_token),
    ours(Each, &[412, 72], "a token that was accepted before is refused past its end", no_trust_past_the_end),
    should(Once, &[83, 306], "a stream ends within the longest life", longest_life),
    should(Once, &[27], "an idle stream carries a comment within the interval", heartbeat),
    observed(Once, &[305], "heartbeats are comments and make no event", heartbeat_is_comment),
];

/// Seconds that such a token lives: enough to open a stream on a busy machine.
const LIFE: u64 = 4;

fn short_token(p: &Probe<'_>) -> (String, u64) {
    let exp = now() + LIFE;
    (p.token(Role::Subscribe, &["*"]).claim("exp", json!(exp)).signed(p.key(Role::Subscribe)), exp)
}

fn ends_with_token(p: &Probe<'_>) -> Outcome {
    let (token, exp) = short_token(p);
    let mut stream = p.open(bearer(p.get(&p.select(&[&p.topic("a")])), &token))?;
    stream.end(Duration::from_secs(LIFE + 2), "the end of the stream at the token's exp")?;
    // A second is the clock's own grain, and another the machine's.
    expect(now() <= exp + 1, format!("the end by {exp}"), format!("it came at {}", now()))
}

fn no_trust_past_the_end(p: &Probe<'_>) -> Outcome {
    let (token, exp) = short_token(p);
    let ask = || p.send(bearer(p.get(&p.select(&[&p.topic("a")])), &token));
    let first = ask()?;
    expect(first.status() == 200, "200 while the token lives", describe(&first))?;
    p.wait_until("the clock passes exp", || Ok((now() > exp).then_some(())))?;
    let later = ask()?;
    expect(later.status() == 401, "401 once it is over", describe(&later))
}

fn longest_life(p: &Probe<'_>) -> Outcome {
    let Some(life) = p.hub.settings.lifetime else { return skipped("the suite was told of no short longest life") };
    let mut stream = p.subscribe(&[&p.topic("a")], &[])?;
    stream.end(life + Duration::from_secs(2), "the end of the stream at the longest life")
}

fn interval(p: &Probe<'_>) -> Result<Duration, crate::probe::Verdict> {
    p.hub.settings.heartbeat.map_or_else(|| skipped("the suite was told of no short heartbeat"), Ok)
}

fn heartbeat(p: &Probe<'_>) -> Outcome {
    let interval = interval(p)?;
    let mut stream = p.subscribe(&[&p.topic("a")], &[])?;
    let deadline = || Instant::now() + 2 * interval + Duration::from_secs(1);
    // The first bytes belong to the opening.
    stream.bytes(deadline())?;
    let beat = stream.bytes(deadline())?;
    expect(beat.starts_with(':'), "a comment", beat)
}

fn heartbeat_is_comment(p: &Probe<'_>) -> Outcome {
    let interval = interval(p)?;
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[])?;
    let deadline = Instant::now() + 3 * interval;
    let mut seen = String::new();
    while seen.matches(':').count() < 2 && Instant::now() < deadline {
        seen += &stream.bytes(deadline + interval)?;
    }
    let only_comments = seen.lines().all(|line| line.is_empty() || line.starts_with(':') || line.starts_with("retry:"));
    expect(only_comments, "comments (and a retry)", &seen)?;
    let id = p.published(&[("topic", &topic), ("data", "x")])?;
    stream.next_is(&id, "no event came before").map(drop)
}
