//! Where connections come from. One address has some 28,000 ports to reach one server from, so processes that share a load come from loopback
//! addresses of their own. It knows addresses, not what is asked over them.

use mio::net::TcpStream;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// The next connection's origin.
#[derive(Debug)]
pub(super) struct Source {
    /// Which of several processes this is; `None` leaves the choice to the system.
    place: Option<u8>,
    /// Ports tried so far.
    #[cfg(target_os = "linux")]
    used: u32,
}

/// Whether processes that load this address need origins of their own, and can have them: elsewhere only one loopback address is set up.
pub(super) fn is_divided(to: IpAddr) -> bool {
    cfg!(target_os = "linux") && to.is_loopback() && to.is_ipv4()
}

impl Source {
    pub(super) fn new(place: Option<u8>) -> Source {
        Source {
            place,
            #[cfg(target_os = "linux")]
            used: 0,
        }
    }

    /// A connection under way.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        debug_assert!(self.place.is_none());
        TcpStream::connect(to)
    }

    /// A connection under way.
    #[cfg(target_os = "linux")]
    pub(super) fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        /// Others may hold a port; whoever finds this many taken has another problem.
        const ATTEMPTS: u32 = 1_000;
        let Some(place) = self.place else { return TcpStream::connect(to) };
        let mut attempt = 1;
        loop {
            let from = origin(place, std::process::id(), self.used);
            self.used = self.used.wrapping_add(1);
            match connect_from(from, to) {
                Err(error) if attempt < ATTEMPTS && matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

/// The origin of a connection by its number. Ports below those the system gives out by itself, so that nobody else's are taken, and each
/// once before the next address is taken: a port that was closed a moment ago cannot be used again.
#[cfg(target_os = "linux")]
fn origin(place: u8, run: u32, number: u32) -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    let address = [127, place.max(1), (run + number / COUNT) as u8, 1];
    SocketAddr::new(address.into(), (FIRST + number % COUNT) as u16)
}

/// The system choosing the port would search among all that are taken, for each connection anew.
#[cfg(target_os = "linux")]
fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    /// What the system says of a connection it has begun; the standard library has no stable name for it.
    const IN_PROGRESS: i32 = 115;
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn no_origin_comes_twice() {
        let text = |number| origin(3, 258, number).to_string();
        assert_eq!([text(0), text(21_999), text(22_000)], ["127.3.2.1:10000", "127.3.2.1:31999", "127.3.3.1:10000"]);
        assert_ne!(origin(1, 7, 5), origin(2, 7, 5));
    }
}
