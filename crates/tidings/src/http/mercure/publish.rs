//! Publishing on the Mercure path (M-37 ... M-51, M-323): a form becomes an event, the answer is its id.
//!
//! It knows the names of the form and the order in which mistakes are found (M-309); what an event may say is decided in the core.

use super::Problem;
use crate::{
    Hub,
    auth::{Access, Dialect},
    http::{
        body::{Incoming, Reader},
        idempotency, json,
        publish::{check_head, media_type},
        query::pairs,
        response::{PLAIN_TEXT, ResponseBody, answer},
        scope,
    },
};
use http::{Response, request::Parts};
use std::borrow::Cow;
use tidings_core::{Event, KnownTopics, Topic};

/// Answers `POST`.
pub(super) async fn publish(
    hub: &Hub,
    access: Access,
    dialect: Dialect,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<ResponseBody>, Problem> {
    let config = hub.config();
    check_head(&parts.headers)?;
    let key = idempotency::key(&parts.headers)?;
    // Another type carries no form, and so no topic (M-323).
    if media_type(&parts.headers)?.as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(Problem::MercureForm);
    }
    let limit = config.mercure_body;
    let form = Reader::new(body, config.request_time).all(limit, || Problem::BodyTooLong { limit }).await?;
    let dialect = access.dialect().unwrap_or(dialect);
    let event = Form::read(&form)?.into_event(hub.known_topics(), config.mercure_topics, |topic| {
        let granted = access.grant.publish.matches(topic);
        if granted { Ok(()) } else { Err(Problem::Auth(access.insufficient(), dialect)) }
    })?;
    let scope = scope("mercure", &access);
    let hub = hub.with(access.grant).in_scope(scope);
    let ids = match key {
        Some(key) => hub.publish_once(&key, vec![event]).await?,
        None => vec![hub.publish(event).await?],
    };
    // Exactly the id (M-49): unlike the native routes, without a line end.
    Ok(answer(PLAIN_TEXT, ids.first().map(|id| id.as_str().to_owned()).unwrap_or_default()))
}

/// A form as it was sent; unknown names are ignored (M-48), and of repeated ones the first counts (M-323).
#[derive(Default)]
struct Form<'a> {
    topics: Vec<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    retry: Option<Cow<'a, str>>,
    private: bool,
}

impl<'a> Form<'a> {
    fn read(form: &'a [u8]) -> Result<Form<'a>, Problem> {
        let mut read = Form::default();
        for (name, value) in pairs(form).ok_or(Problem::FormNotUtf8)? {
            let place = match &*name {
                "topic" => {
                    read.topics.push(value);
                    continue;
                }
                // Whatever its value (M-42).
                "private" => {
                    read.private = true;
                    continue;
                }
                "data" => &mut read.data,
                "id" => &mut read.id,
                "type" => &mut read.event_type,
                "retry" => &mut read.retry,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        Ok(read)
    }

    /// In the order of M-309: topics, `retry`, rights, and then the rest.
    fn into_event(
        self,
        known: &KnownTopics,
        most_topics: usize,
        granted: impl Fn(&Topic) -> Result<(), Problem>,
    ) -> Result<Event, Problem> {
        if self.topics.is_empty() {
            return Err(Problem::MercureNoTopic);
        }
        let topics = json::topics(known, &self.topics, most_topics)?;
        let mut event = Event::on(topics, self.data.unwrap_or_default())?;
        if let Some(retry) = self.retry {
            event = event.with_retry_text(&retry)?;
        }
        event.topics().iter().try_for_each(granted)?;
        event = event.with_type(&self.event_type.unwrap_or_default())?.with_id(&self.id.unwrap_or_default())?;
        Ok(if self.private { event.private() } else { event })
    }
}
