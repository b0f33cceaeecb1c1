//! A small HTTP/1.1 client that shows exact bytes: one connection, one request at a time, bodies as they come.
//!
//! It knows framing (length, chunks, until the end) and nothing of the protocol above it. It never retries and never follows.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A request as it will be sent, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Request {
        Request { method: method.into(), target: target.into(), headers: vec![], body: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a form as its body.
    pub(crate) fn form(self, body: impl Into<Vec<u8>>) -> Request {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// The bytes on the wire; `host` only if no header of the request says another.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &["Host: ", host, "\r\n"].concat();
        }
        for (name, value) in &self.headers {
            head += &[name, ": ", value, "\r\n"].concat();
        }
        if let Some(body) = &self.body {
            head += &["Content-Length: ", &body.len().to_string(), "\r\n"].concat();
        }
        head += "\r\n";
        [head.into_bytes(), self.body.clone().unwrap_or_default()].concat()
    }

    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// Status line and fields of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// As received, without the last blank line.
    pub(crate) text: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines.map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
        Some(Head { status, text: text.to_owned(), fields: fields.collect::<Option<_>>()? })
    }

    /// The values of all fields of this name, joined as RFC 9110 joins them.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.all(name).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Each field of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How the end of a body is known.
#[derive(Debug)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Over,
}

/// A connection that has sent a request and reads its answer piece by piece.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    /// Bytes that were received and are not decoded yet.
    raw: Vec<u8>,
    framing: Framing,
    /// Decoded bytes of the body that nobody has taken yet.
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Connection { socket, raw: vec![], framing: Framing::Over, body: vec![] })
    }

    /// Sends; a peer that has heard enough may have closed already, which is no error: its answer tells.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            other => other,
        }
    }

    /// Waits for the head of the answer to `request`.
    pub(crate) fn head(&mut self, request: &Request, deadline: Instant) -> io::Result<Head> {
        loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.raw[..end]).into_owned();
                self.raw.drain(..end + 4);
                let head =
                    Head::parse(&text).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("not an HTTP head: {text:?}")))?;
                if head.status / 100 == 1 {
                    continue;
                }
                self.framing = framing(&head, request);
                self.decode()?;
                return Ok(head);
            }
            if !self.receive(deadline)? {
                let raw = String::from_utf8_lossy(&self.raw).into_owned();
                return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("closed before the head of an answer was complete: {raw:?}")));
            }
        }
    }

    /// Reads until the body is complete and takes it.
    pub(crate) fn whole(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.more(deadline)? {}
        Ok(std::mem::take(&mut self.body))
    }

    /// Waits for more of the body; `false` when it is complete, an error when it was cut or the deadline passed.
    pub(crate) fn more(&mut self, deadline: Instant) -> io::Result<bool> {
        let known = self.body.len();
        loop {
            if matches!(self.framing, Framing::Over) {
                return Ok(false);
            }
            if !self.receive(deadline)? {
                let complete = matches!(self.framing, Framing::UntilClose);
                self.framing = Framing::Over;
                return if complete { Ok(false) } else { Err(io::Error::new(ErrorKind::UnexpectedEof, "the body was cut")) };
            }
            self.decode()?;
            if self.body.len() > known {
                return Ok(true);
            }
        }
    }

    /// Waits for so many bytes as they come, before any HTTP.
    pub(crate) fn raw(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.raw.len() < length {
            if !self.receive(deadline)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.raw.drain(..length).collect())
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        match self.socket.read(&mut piece) {
            Ok(read) => {
                self.raw.extend_from_slice(&piece[..read]);
                Ok(read > 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves what is complete from the raw bytes to the body.
    fn decode(&mut self) -> io::Result<()> {
        match &mut self.framing {
            Framing::Length(left) => {
                let taken = (*left).min(self.raw.len());
                self.body.extend(self.raw.drain(..taken));
                *left -= taken;
                if *left == 0 {
                    self.framing = Framing::Over;
                }
            }
            Framing::UntilClose => self.body.append(&mut self.raw),
            Framing::Chunked => {
                while let Some(line) = find(&self.raw, b"\r\n") {
                    let size = String::from_utf8_lossy(&self.raw[..line]).split(';').next().unwrap_or_default().trim().to_owned();
                    let size = usize::from_str_radix(&size, 16)
                        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("not the size of a chunk: {size:?}")))?;
                    let end = line + 2 + size + 2;
                    if self.raw.len() < end {
                        break;
                    }
                    self.body.extend_from_slice(&self.raw[line + 2..end - 2]);
                    self.raw.drain(..end);
                    if size == 0 {
                        self.framing = Framing::Over;
                        break;
                    }
                }
            }
            Framing::Over => {}
        }
        Ok(())
    }
}

fn framing(head: &Head, request: &Request) -> Framing {
    if request.is_head() || matches!(head.status, 204 | 304) {
        return Framing::Over;
    }
    if head.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Framing::Chunked;
    }
    match head.field("content-length").and_then(|value| value.parse().ok()) {
        Some(0) => Framing::Over,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_sent_as_they_are_written() {
        let request = Request::new("POST", "/x?a=%zz").header("authorization", "a").header("Authorization", "b").form("topic=t");
        let expected = "POST /x?a=%zz HTTP/1.1\r\nHost: h\r\nauthorization: a\r\nAuthorization: b\r\n\
            Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntopic=t";
        assert_eq!(String::from_utf8(request.bytes("h")).unwrap(), expected);
        let other = Request::new("GET", "/").header("Host", "elsewhere").bytes("h");
        assert_eq!(String::from_utf8(other).unwrap(), "GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n");
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\na: 2\r\n\r\n3\r\nabc\r\n5;x=y\r\n\r\nde\n\r\n0\r\n\r\n";
        for byte in answer.bytes() {
            peer.write_all(&[byte]).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let head = connection.head(&Request::new("GET", "/"), deadline).unwrap();
        assert_eq!((head.status, head.field("A").as_deref()), (200, Some("1, 2")));
        assert_eq!(connection.whole(deadline).unwrap(), b"abc\r\nde\n");
    }
}
