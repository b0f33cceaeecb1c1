//! Why a token is accepted or not, rule by rule, for people: what `tidings token explain` prints.
//!
//! It asks the same guard as a request would, and adds what the answer leaves out. It knows no key's secret, and shows none.

use super::{AuthError, Class, Dialect, Door, Guard, Presented, Role, jws};
use crate::Config;
use std::fmt;
use tidings_core::{Topic, UrlPatterns, limits};

/// What somebody wants to know of a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// Whether it shall publish; otherwise it subscribes.
    pub publish: bool,
    /// The topics of one event: to publish it, or to receive it if it is private. None asks about the token alone.
    pub topics: Vec<String>,
    /// The time of the request in milliseconds since 1970.
    pub at: u64,
}

impl Question {
    /// About a request at a time in milliseconds since 1970.
    pub fn new(publish: bool, topics: Vec<String>, at: u64) -> Self {
        Question { publish, topics, at }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Whether it speaks for the request.
    pub holds: bool,
    /// The rule of the specification, as M-72.
    pub rule: &'static str,
    /// What was found.
    pub text: String,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// What was looked at, in order. What is refused is refused by the last one.
    pub findings: Vec<Finding>,
    /// The status that a client of the Mercure path sees.
    pub status: u16,
}

impl Explanation {
    /// Whether the request is allowed.
    pub fn allowed(&self) -> bool {
        self.status == 200
    }

    fn add(&mut self, holds: bool, rule: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { holds, rule, text: text.into() });
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { holds, rule, text } in &self.findings {
            writeln!(f, "{} {rule:<6} {text}", if *holds { "ok " } else { "NO " })?;
        }
        write!(f, "{} ({})", if self.allowed() { "allowed" } else { "refused" }, self.status)
    }
}

/// Why a hub with these settings would accept a token for a request, or not. The error is about the settings. Sets of keys at a URL are
/// fetched, which needs a tokio runtime.
pub async fn explain(config: &Config, token: &str, question: &Question) -> Result<Explanation, String> {
    let patterns = UrlPatterns::new(&config.pattern_base(), limits::URL_PATTERNS).map_err(|error| format!("public_url: {error}"))?;
    let guard = Guard::new(config, patterns).map_err(|(name, problem)| format!("{name}: {problem}"))?;
    let mut explanation = Explanation { findings: Vec::new(), status: 200 };
    let role = if question.publish { Role::Publish } else { Role::Subscribe };
    if let Ok(token) = jws::parse(token.as_bytes()) {
        let text = match token.header.dialect {
            Dialect::Eight => "`typ` is at+jwt, so all of dialect 8 is demanded",
            Dialect::Seven => "`typ` is not at+jwt, so it is a token of dialect 7, and needs a key that allows legacy claims",
        };
        explanation.add(true, "M-402", text);
        explanation.add(true, "M-69", format!("it is signed with {}", token.header.algorithm.name()));
    }
    let field = format!("Bearer {token}");
    let presented = Presented { door: Door::Mercure, authorization: vec![field.as_bytes()], cookies: Vec::new(), query: Vec::new() };
    let access = match guard.access_at(role, &presented, question.at).await {
        Ok(access) => access,
        Err(error) => {
            explanation.refuse(&error);
            return Ok(explanation);
        }
    };
    if access.dialect().is_some() {
        let by = access.issuer().map_or("a key of no named issuer".into(), |id| format!("a key of the issuer {id:?}"));
        explanation.add(
            true,
            "M-70",
            format!("the signature holds, with {by} for {}", if question.publish { "publishers" } else { "subscribers" }),
        );
        if let Some(subject) = access.subject() {
            explanation.add(true, "M-55", format!("its subject is {subject:?}"));
        }
        if access.dialect() == Some(Dialect::Eight) {
            explanation.add(true, "M-73", "it is meant for this hub");
        }
        let text = match access.grant.expires_at {
            Some(end) => format!("it is valid, for {} s more", end.saturating_sub(question.at) / 1_000),
            None => "it is valid, and has no end".into(),
        };
        explanation.add(true, "M-72", text);
    } else if access.source.is_some() {
        explanation.add(true, "N-33", "it is a publish key");
    } else {
        explanation.add(true, "N-30", "access is open: no key is configured");
    }
    let mut topics = Vec::new();
    for name in &question.topics {
        match Topic::parse(name) {
            Ok(topic) => topics.push(topic),
            Err(error) => {
                explanation.add(false, "M-39", format!("{name:?} is not a topic: {error}"));
                explanation.status = 400;
                return Ok(explanation);
            }
        }
    }
    if question.publish {
        explanation.publish(&access, &topics);
    } else {
        explanation.subscribe(&access, &topics);
    }
    Ok(explanation)
}

impl Explanation {
    fn refuse(&mut self, error: &AuthError) {
        self.add(false, error.rule(), error.to_string());
        self.status = match (error.class(), error.dialect) {
            (Class::Unavailable, _) => 503,
            (Class::Malformed, None | Some(Dialect::Eight)) => 400,
            (Class::Insufficient, None | Some(Dialect::Eight)) => 403,
            _ => 401,
        };
    }

    /// M-80: every topic must be granted.
    fn publish(&mut self, access: &super::Access, topics: &[Topic]) {
        if access.grant.publish.is_empty() {
            self.add(false, "M-207", "it grants publishing to no topic");
        }
        for topic in topics {
            let granted = access.grant.publish.matches(topic);
            self.add(granted, "M-80", format!("publishing to {topic:?} is {}granted", if granted { "" } else { "not " }));
        }
        if self.findings.iter().any(|finding| !finding.holds) {
            self.status = if access.dialect() == Some(Dialect::Seven) { 401 } else { 403 };
        }
    }

    /// M-81: one topic is enough, and public events need no grant.
    fn subscribe(&mut self, access: &super::Access, topics: &[Topic]) {
        self.add(access.grant.read_public, "M-328", "public events are received whatever it grants");
        if !topics.is_empty() {
            let granted = access.grant.read_private.match_any(topics);
            let text = if granted {
                "one of the topics is granted, so a private event is received"
            } else {
                "no topic is granted, so a private event is not received"
            };
            self.add(granted, "M-81", text);
        }
        if let Some(payload) = topics.first().and_then(|topic| access.payload(topic.as_str())) {
            self.add(true, "M-84", format!("presence shows the payload {payload}"));
        }
    }
}
