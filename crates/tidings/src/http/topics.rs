//! Who listens, and what came last (N-20): for producers that stop collecting when nobody looks.
//!
//! It knows how the answer is written; the numbers are the hub's.

use super::{
    problem::Problem,
    query::{decode_path, url_pairs},
    response::{JSON, ResponseBody, answer},
};
use crate::{Granted, PublishError, TopicInfo};
use http::{Response, request::Parts};
use serde::Serialize;
use tidings_core::{Topic, limits};

#[derive(Serialize)]
struct One<'a> {
    topic: &'a str,
    subscribers: u64,
    last_event_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Page<'a> {
    topics: Vec<One<'a>>,
    /// What to give as `after` for the page that follows; null when there is none.
    next: Option<&'a str>,
}

/// Answers for one topic (the rest of the path, still encoded) or, without one, for a page of topics.
pub(crate) async fn topics(hub: &Granted, parts: &Parts, topic: Option<&str>) -> Result<Response<ResponseBody>, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let Some(topic) = topic else { return page(hub, query).await };
    if let Some((name, _)) = url_pairs(query)?.next() {
        return Err(Problem::UnknownName { name: name.into_owned(), known: "none" });
    }
    let topic = Topic::parse(&decode_path(topic)?).map_err(|error| Problem::Event(error.into()))?;
    if !hub.grant().publish.matches(&topic) {
        return Err(PublishError::Forbidden(topic).into());
    }
    Ok(json(&One::from(&hub.topic(&topic).await?)))
}

async fn page(hub: &Granted, query: &str) -> Result<Response<ResponseBody>, Problem> {
    let (mut after, mut limit) = (None, limits::TOPICS_PAGE);
    for (name, value) in url_pairs(query)? {
        match &*name {
            "after" => after = Some(value.into_owned()).filter(|after| !after.is_empty()),
            "limit" => {
                let given = Some(&*value).filter(|value| value.bytes().all(|b| b.is_ascii_digit())).and_then(|value| value.parse().ok());
                limit = given.filter(|limit| (1..=limits::TOPICS_PAGE).contains(limit)).ok_or_else(|| Problem::Value {
                    name: "limit",
                    allowed: "a number from 1 to 1000",
                    given: value.into_owned(),
                })?;
            }
            _ => return Err(Problem::UnknownName { name: name.into_owned(), known: "`after`, `limit`" }),
        }
    }
    // One more than asked for tells whether another page follows.
    let found = hub.topics(after.as_deref(), limit + 1).await?;
    let next = (found.len() > limit).then(|| found[limit - 1].topic.as_str());
    let topics = found.iter().take(limit).filter(|info| hub.grant().publish.matches(&info.topic)).map(One::from).collect();
    Ok(json(&Page { topics, next }))
}

impl<'a> From<&'a TopicInfo> for One<'a> {
    fn from(info: &'a TopicInfo) -> Self {
        One {
            topic: info.topic.as_str(),
            subscribers: info.subscribers,
            last_event_id: info.last_event_id.as_ref().map(tidings_core::EventId::as_str),
        }
    }
}

fn json(value: &impl Serialize) -> Response<ResponseBody> {
    // Strings and numbers always serialise.
    answer(JSON, serde_json::to_vec(value).unwrap_or_default())
}

const _: () = assert!(limits::TOPICS_PAGE == 1_000, "the text of the refusal names it");

#[cfg(test)]
mod tests {
    use super::*;

    /// N-20: the literal document.
    #[test]
    fn documents() {
        let one = One { topic: "a/\"b", subscribers: 2, last_event_id: Some("#5f3a9c01-000000000000002a") };
        let document = r##"{"topic":"a/\"b","subscribers":2,"last_event_id":"#5f3a9c01-000000000000002a"}"##;
        assert_eq!(json(&one).into_body().into_text(), document);
        let page = Page { topics: vec![One { topic: "a", subscribers: 0, last_event_id: None }], next: Some("a") };
        let document = r#"{"topics":[{"topic":"a","subscribers":0,"last_event_id":null}],"next":"a"}"#;
        assert_eq!(json(&page).into_body().into_text(), document);
    }
}
