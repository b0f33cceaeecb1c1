//! Presence with both dialects on one hub: one record, two views, each watcher its own.

use super::{Check, When::Both, ours, presence};
use crate::{
    probe::{Outcome, Probe, bearer, encoded, expect, form, legacy_token},
    settings::{Dialect, Role},
};
use serde_json::json;

pub(super) const CHECKS: &[Check] = &[
    ours(Both, &[405], "subscriptions of either dialect are seen in both views, under one id", both_views),
    ours(Both, &[405], "with matchers of both kinds a watcher gets the view of dialect 8, once", one_view),
    ours(Both, &[405], "a grant for one view is none for the other", grants_apart),
];

/// The same hub seen through the other dialect; topics differ from this probe's.
fn seven<'h>(p: &Probe<'h>) -> Probe<'h> {
    Probe::new(p.hub, Dialect::Seven)
}

fn both_views(p: &Probe<'_>) -> Outcome {
    let q = seven(p);
    let topic = p.topic("a");
    for subscriber in [p, &q] {
        let mut new = presence::watch(p, "exact", &topic)?;
        let mut old = presence::watch(&q, "exact", &topic)?;
        let stream = subscriber.subscribe(&[&topic], &[])?;
        stream.close();
        for active in [true, false] {
            let (new, old) = (new.event()?, old.event()?);
            expect(new.id == old.id, "one id for both views", format!("{}\n{}", new.lines.join("\n"), old.lines.join("\n")))?;
            expect(
                new.kind.as_deref() == Some("mercure") && old.kind.is_none(),
                "event mercure in dialect 8, none in dialect 7",
                old.lines.join("\n"),
            )?;
            let (new, old) = (presence::document(&new)?, presence::document(&old)?);
            presence::says(p, &new, "exact", &topic, Some(active))?;
            presence::says(&q, &old, "exact", &topic, Some(active))?;
            expect(new["subscriber"] == old["subscriber"], "one subscriber in both views", old)?;
        }
    }
    Ok(())
}

fn one_view(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let q = seven(p);
    let topic = p.topic("a");
    let marker = p.topic("marker");
    let query = form(&[
        ("topic", &format!("{}/{{id}}", presence::path(&q, "exact", &topic))),
        ("match_urlpattern", &format!("{}/:id", presence::path(p, "exact", &topic))),
        ("match", &marker),
    ]);
    let mut watcher = p.subscribe_query(&query, &["*"])?;
    let _stream = p.subscribe(&[&topic], &[])?;
    let event = watcher.event()?;
    presence::says(p, &presence::document(&event)?, "exact", &topic, Some(true))?;
    let id = p.published(&[("topic", &marker), ("data", "x")])?;
    watcher.next_is(&id, "the other view does not come too").map(drop)
}

fn grants_apart(p: &Probe<'_>) -> Outcome {
    presence::on(p)?;
    let q = seven(p);
    let topic = p.topic("a");
    let marker = p.topic("marker");
    // Watches the view of dialect 7 with a grant for that of dialect 8.
    let template = format!("{}/{{id}}", presence::path(&q, "exact", &topic));
    let of_eight = p.hub.below(&format!("subscriptions/exact/{}/{{id}}", encoded(&topic)));
    let token = legacy_token(json!({"subscribe": [of_eight]})).signed(q.key(Role::Subscribe));
    let mut stream = q.open(bearer(q.get(&form(&[("topic", &template), ("topic", &marker)])), &token))?;
    let mut insider = presence::watch(&q, "exact", &topic)?;
    let _stream = p.subscribe(&[&topic], &[])?;
    insider.event()?;
    let id = p.published(&[("topic", &marker), ("data", "x")])?;
    stream.next_is(&id, "no grant for this view").map(drop)
}
