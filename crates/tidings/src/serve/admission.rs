//! Who may connect: the number of connections, the number of one client's, and what the limit on open files allows.
//!
//! It counts and decides; it neither accepts nor closes anything, and it does not know what a refusal looks like over HTTP.

use crate::{Refusal, delivery::Door};
use http::HeaderMap;
use slab::Slab;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// Open files that are not connections: listeners, the store's files, logs, the runtime's own.
const FILES_RESERVE: usize = 64;
/// The part of the limit on open files kept back on top of it, one in so many: half of it lets refused clients be answered.
const FILES_RESERVE_PART: usize = 20;
/// When the system names no limit at all.
const CONNECTIONS_UNKNOWN: usize = 1_000_000;
/// Connections beyond a set limit that are still answered with a refusal: at least so many, and one in twenty.
const REFUSED_AT_LEAST: usize = 16;
/// The place of a connection whose client is not counted.
const NOBODY: u32 = u32::MAX;

/// The counts of a server, and its limits.
#[derive(Debug)]
pub(super) struct Admission {
    limit: usize,
    hard: usize,
    per_address: Option<usize>,
    trusted: Vec<IpAddr>,
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// Clients of connections that were taken over, where one client's connections are counted.
    taken_over: Mutex<Slab<[Option<IpAddr>; 2]>>,
}

/// A connection or request that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    admission: Arc<Admission>,
    connection: bool,
    client: Option<IpAddr>,
}

impl Admission {
    pub(super) fn new(connections: Option<usize>, per_address: Option<usize>, trusted: &[IpAddr]) -> Self {
        let files = open_files_limit();
        let (limit, hard) = limits(connections, files);
        Admission {
            limit,
            hard,
            per_address,
            trusted: trusted.iter().map(IpAddr::to_canonical).collect(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            addresses: Mutex::default(),
            taken_over: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts a new connection. `None`: not even a refusal can be afforded, close it. A refusal: its requests are to be refused.
    pub(super) fn connection(self: &Arc<Self>, peer: SocketAddr) -> Option<(Counted, Option<Refusal>)> {
        self.accepted.fetch_add(1, Relaxed);
        let open = self.open.fetch_add(1, Relaxed) + 1;
        let mut counted = Counted { admission: self.clone(), connection: true, client: None };
        let mut refusal = (open > self.limit).then_some(Refusal::Overloaded);
        let mut affordable = open <= self.hard;
        if let Some(most) = self.per_address
            && !self.is_trusted(peer.ip())
        {
            let client = client_key(peer.ip());
            counted.client = Some(client);
            let of_client = self.count(client);
            if of_client > most {
                refusal = Some(Refusal::PerClient);
                // One client may not use up what is kept for refusals.
                affordable &= of_client <= most + REFUSED_AT_LEAST;
            }
        }
        if refusal.is_some() {
            self.refused.fetch_add(1, Relaxed);
        }
        affordable.then_some((counted, refusal))
    }

    /// Counts a request that came through a trusted proxy for the client it names; `None` when there is nothing to count.
    pub(super) fn forwarded(self: &Arc<Self>, peer: SocketAddr, headers: &HeaderMap) -> Option<(Counted, Option<Refusal>)> {
        let most = self.per_address?;
        let client = client_key(self.forwarded_client(peer, headers)?);
        let counted = Counted { admission: self.clone(), connection: false, client: Some(client) };
        let refusal = (self.count(client) > most).then_some(Refusal::PerClient);
        if refusal.is_some() {
            self.refused.fetch_add(1, Relaxed);
        }
        Some((counted, refusal))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.contains(&address.to_canonical())
    }

    /// The client named by `X-Forwarded-For`: the last address that no trusted proxy has, for what stands before it is the client's own
    /// claim. `None` if the peer is no trusted proxy, or names nobody.
    fn forwarded_client(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.is_trusted(peer.ip()) {
            return None;
        }
        for line in headers.get_all("x-forwarded-for").iter().rev() {
            for entry in line.to_str().ok()?.rsplit(',') {
                let address = parse_address(entry.trim())?;
                if !self.is_trusted(address) {
                    return Some(address);
                }
            }
        }
        None
    }

    fn count(&self, client: IpAddr) -> usize {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(client).or_insert(0);
        *count += 1;
        *count
    }

    fn uncount(&self, client: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&client);
            }
        }
    }

    /// Turns what a connection that is taken over is counted by into a number, which is all that is kept of it.
    pub(super) fn hand_over(&self, mut connection: Counted, mut forwarded: Option<Counted>) -> u32 {
        connection.connection = false;
        let clients = [connection.client.take(), forwarded.as_mut().and_then(|counted| counted.client.take())];
        if clients == [None, None] {
            return NOBODY;
        }
        let mut taken_over = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner);
        taken_over.insert(clients) as u32
    }

    /// A connection that was taken over is gone.
    pub(super) fn left(&self, place: u32) {
        self.open.fetch_sub(1, Relaxed);
        if place != NOBODY {
            let clients = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).remove(place as usize);
            clients.into_iter().flatten().for_each(|client| self.uncount(client));
        }
    }
}

impl Door for Arc<Admission> {
    fn left(&self, place: u32) {
        Admission::left(self, place);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.connection {
            self.admission.open.fetch_sub(1, Relaxed);
        }
        if let Some(client) = self.client {
            self.admission.uncount(client);
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 one, for whoever has one address of it has all of them.
fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// An address as proxies write it: bare, in brackets, with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bracketed = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).or_else(|| bracketed(text))
}

/// The number of connections served, and the number beyond which a socket is closed without an answer.
fn limits(wanted: Option<usize>, files: Option<usize>) -> (usize, usize) {
    let Some(files) = files else {
        let limit = wanted.unwrap_or(CONNECTIONS_UNKNOWN);
        return (limit, limit + REFUSED_AT_LEAST.max(limit / FILES_RESERVE_PART));
    };
    let reserve = FILES_RESERVE + files / FILES_RESERVE_PART;
    // A tiny limit on files still serves somebody.
    let allowed = files.saturating_sub(reserve).max(files / 2).max(1);
    let most = files.saturating_sub(reserve / 2).max(allowed);
    match wanted {
        None => (allowed, most),
        Some(wanted) => (wanted, (wanted + REFUSED_AT_LEAST.max(wanted / FILES_RESERVE_PART)).min(most.max(wanted))),
    }
}

#[cfg(unix)]
fn open_files_limit() -> Option<usize> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.and_then(|files| usize::try_from(files).ok())
}

#[cfg(not(unix))]
fn open_files_limit() -> Option<usize> {
    None
}

/// Raises this process's limit on open files as far as it may be raised without privileges, and returns it; `None` is no limit.
///
/// Every connection is an open file, and the usual soft limit of 1,024 is there for programs that use `select`. Call it before
/// [`Server::new`](super::Server::new); a library does not do this to its host unasked.
pub fn raise_open_files_limit() -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        }
        Ok(maximum)
    }
    #[cfg(not(unix))]
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_forwarded_client_is_the_last_one_no_trusted_proxy_has() {
        let trusted = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let admission = Arc::new(Admission::new(Some(10), Some(1), &trusted));
        let cases: &[(&str, &str, &[&str], Option<&str>)] = &[
            ("one client", "10.0.0.1:99", &["203.0.113.7"], Some("203.0.113.7")),
            ("a forged entry before it", "10.0.0.1:99", &["1.2.3.4, 203.0.113.7"], Some("203.0.113.7")),
            ("two proxies", "10.0.0.1:99", &["203.0.113.7, 10.0.0.2"], Some("203.0.113.7")),
            ("two lines", "10.0.0.1:99", &["1.2.3.4", "203.0.113.7, 10.0.0.2"], Some("203.0.113.7")),
            ("with a port", "10.0.0.1:99", &["203.0.113.7:4711"], Some("203.0.113.7")),
            ("IPv6 in brackets", "10.0.0.1:99", &["[2001:db8::1]"], Some("2001:db8::1")),
            ("IPv6 with a port", "10.0.0.1:99", &["[2001:db8::1]:80"], Some("2001:db8::1")),
            ("a proxy seen over a dual-stack socket", "[::ffff:10.0.0.1]:99", &["203.0.113.7"], Some("203.0.113.7")),
            ("nobody trusted says so", "192.0.2.1:99", &["203.0.113.7"], None),
            ("nonsense", "10.0.0.1:99", &["203.0.113.7, unknown"], None),
            ("no header", "10.0.0.1:99", &[], None),
        ];
        for (name, peer, lines, client) in cases {
            let found = admission.forwarded_client(peer.parse().unwrap(), &headers(lines));
            assert_eq!(found, client.map(|client| client.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_slash_64() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.2"), key("192.0.2.1"));
    }

    #[test]
    fn counts_go_back_when_a_connection_ends() {
        let admission = Arc::new(Admission::new(Some(100), Some(1), &[]));
        let peer = "192.0.2.1:1".parse().unwrap();
        let (first, refusal) = admission.connection(peer).unwrap();
        assert!(refusal.is_none());
        let (second, refusal) = admission.connection(peer).unwrap();
        assert!(matches!(refusal, Some(Refusal::PerClient)));
        assert_eq!((admission.open(), admission.accepted(), admission.refused()), (2, 2, 1));
        drop((first, second));
        assert_eq!(admission.open(), 0);
        assert!(admission.addresses.lock().unwrap().is_empty());
        assert!(admission.connection(peer).unwrap().1.is_none());
    }

    #[test]
    fn one_client_does_not_use_up_the_reserve() {
        let admission = Arc::new(Admission::new(Some(1_000), Some(2), &[]));
        let peer = "192.0.2.1:1".parse().unwrap();
        let held: Vec<_> = (0..50).filter_map(|_| admission.connection(peer)).collect();
        assert_eq!(held.len(), 2 + REFUSED_AT_LEAST);
        assert_eq!(admission.open(), held.len());
    }

    #[test]
    fn the_limit_leaves_files_for_everything_else() {
        for (name, wanted, files, expected) in [
            ("what 1,024 files allow", None, Some(1_024), (909, 967)),
            ("what a million allow", None, Some(1_048_576), (996_084, 1_022_330)),
            ("a tiny limit", None, Some(10), (5, 5)),
            ("a setting", Some(100), Some(1_024), (100, 116)),
            ("a setting as large as the files", Some(1_000), Some(1_024), (1_000, 1_000)),
            ("no limit known", None, None, (1_000_000, 1_050_000)),
        ] {
            assert_eq!(limits(wanted, files), expected, "{name}");
        }
    }
}
