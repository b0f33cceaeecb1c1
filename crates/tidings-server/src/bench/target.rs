//! What is loaded: an address, and the requests made from templates.
//!
//! In templates `{i}` is the subscriber's number, `{n}` the publish's, `{topic}` the topic, `{payload}` the data; `{topic:url}` and
//! `{payload:url}` are percent-encoded. It knows text, no sockets.

use super::tokens::Tokens;
use crate::Failure;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    fmt::Write as _,
    net::{SocketAddr, ToSocketAddrs},
};

/// The server, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) subscribe: String,
    pub(super) publish: String,
    pub(super) topic: String,
    pub(super) body: String,
    /// Header lines, each with its line end.
    pub(super) subscribe_headers: String,
    pub(super) publish_headers: String,
    /// Where a batch goes, as one JSON object a line.
    pub(super) batch: Option<String>,
    pub(super) tokens: Tokens,
}

/// The address of a URL, which has to be this machine's unless the host is allowed: a load tool in wrong hands is a weapon, and in tired
/// ones an accident.
pub(super) fn address(url: &str, allowed: &[String]) -> Result<(SocketAddr, String), Failure> {
    let host = url.strip_prefix("http://").ok_or_else(|| Failure::Usage(format!("{url}: the URL begins with http://")))?;
    let host = host.split('/').next().unwrap_or_default().to_owned();
    let with_port =
        if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) { host.clone() } else { format!("{host}:80") };
    let found = with_port.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = found.ok_or_else(|| Failure::Usage(format!("{host}: no such host")))?;
    let name = with_port.rsplit_once(':').map_or(&*host, |(name, _)| name);
    if !address.ip().is_loopback() && !allowed.iter().any(|allowed| allowed == name) {
        return Err(Failure::Usage(format!("{name} is not this machine; say --allow-host {name} if you may put load on it")));
    }
    Ok((address, host))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Target {
    /// Whether each subscriber has a topic of its own.
    pub(super) fn own_topics(&self) -> bool {
        self.topic.contains("{i}")
    }

    /// Whether each event has a topic of its own, which nobody has asked for.
    pub(super) fn fresh_topics(&self) -> bool {
        self.topic.contains("{n}")
    }

    /// The topic of a subscriber, or of a publish.
    fn topic(&self, number: usize, nth: usize) -> String {
        let topic = self.topic.replace("{i}", &number.to_string());
        if self.fresh_topics() { topic.replace("{n}", &nth.to_string()) } else { topic }
    }

    fn path(template: &str, topic: &str) -> String {
        template.replace("{topic:url}", &encoded(topic)).replace("{topic}", topic)
    }

    /// With the line that carries the token, if there is one.
    pub(super) fn subscribe_request(&self, number: usize, cursor: &str, token: &str) -> String {
        let path =
            Self::path(&self.subscribe, &self.topic(number, 0)).replace("{i}", &number.to_string()).replace("{cursor}", &encoded(cursor));
        let cursor = if cursor.is_empty() { String::new() } else { format!("last-event-id: {cursor}\r\n") };
        let (host, headers) = (&self.host, &self.subscribe_headers);
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{cursor}{token}{headers}\r\n")
    }

    /// `nth` is how many events were published before.
    pub(super) fn publish_request(&self, number: usize, nth: usize, payloads: &[Vec<u8>], out: &mut Vec<u8>) {
        let (path, body, kind) = match (&self.batch, payloads) {
            (Some(path), payloads) => {
                let mut body = String::new();
                for (place, payload) in payloads.iter().enumerate() {
                    let topic = self.topic(number, nth + place);
                    let _ = writeln!(body, r#"{{"topic":"{topic}","data":"{}"}}"#, String::from_utf8_lossy(payload));
                }
                (path.clone(), body, "content-type: application/x-ndjson\r\n")
            }
            (None, payloads) => {
                let topic = self.topic(number, nth);
                let payload = String::from_utf8_lossy(payloads.first().map_or(&[][..], Vec::as_slice));
                let body = Self::path(&self.body, &topic).replace("{payload:url}", &encoded(&payload)).replace("{payload}", &payload);
                (Self::path(&self.publish, &topic), body, "")
            }
        };
        let (host, token, headers, length) = (&self.host, self.tokens.of_publishers(), &self.publish_headers, body.len());
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{kind}{token}{headers}\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_without_leave() {
        assert!(address("http://127.0.0.1:4680", &[]).is_ok());
        assert!(address("http://127.0.0.7", &[]).is_ok());
        let Err(Failure::Usage(refused)) = address("http://192.0.2.1:80/x", &[]) else { panic!("another machine") };
        assert!(refused.contains("--allow-host 192.0.2.1"), "{refused}");
        assert!(address("http://192.0.2.1:80/x", &["192.0.2.1".into()]).is_ok());
        assert!(address("https://127.0.0.1", &[]).is_err());
    }

    #[test]
    fn templates() {
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            host: "h".into(),
            subscribe: "/s?topic={topic:url}".into(),
            publish: "/p/{topic}".into(),
            topic: "a/{i}".into(),
            body: "data={payload:url}".into(),
            subscribe_headers: "x: y\r\n".into(),
            publish_headers: String::new(),
            batch: None,
            tokens: Tokens::default(),
        };
        assert_eq!(
            target.subscribe_request(7, "#1", ""),
            "GET /s?topic=a%2F7 HTTP/1.1\r\nhost: h\r\naccept: text/event-stream\r\nlast-event-id: #1\r\nx: y\r\n\r\n"
        );
        let mut out = Vec::new();
        target.publish_request(7, 9, &[b"~1".to_vec()], &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "POST /p/a/7 HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\ndata=%7E1");
        let (mut out, batch) = (Vec::new(), Target { batch: Some("/b".into()), ..target });
        batch.publish_request(7, 9, &[b"1".to_vec(), b"2".to_vec()], &mut out);
        let body = "{\"topic\":\"a/7\",\"data\":\"1\"}\n{\"topic\":\"a/7\",\"data\":\"2\"}\n";
        assert!(String::from_utf8(out).unwrap().ends_with(body));
        let (mut out, fresh) = (Vec::new(), Target { topic: "new/{n}".into(), ..batch });
        fresh.publish_request(0, 9, &[b"1".to_vec(), b"2".to_vec()], &mut out);
        let body = "{\"topic\":\"new/9\",\"data\":\"1\"}\n{\"topic\":\"new/10\",\"data\":\"2\"}\n";
        assert!(fresh.fresh_topics() && String::from_utf8(out).unwrap().ends_with(body));
    }
}
