//! A connection's socket, which the runtime watches only from the moment somebody has to wait for it.
//!
//! A request is mostly there when its connection is accepted, and a stream then leaves with its socket for a shard, which watches it
//! itself: watched by the runtime as well, it would have been registered and taken off again without ever being waited for. This file
//! knows no protocol, and nothing of who waits for what.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    sync::{Mutex, OnceLock, PoisonError},
};
use tokio::net::{TcpListener, TcpStream};

/// A listener whose connections begin unwatched, all but the first of those that come together.
#[derive(Debug)]
pub(super) struct Listener {
    /// Says when there is somebody; the runtime tells that only together with a connection that it watches already.
    watched: TcpListener,
    /// The same socket.
    #[cfg(unix)]
    bare: mio::net::TcpListener,
}

impl Listener {
    pub(super) fn new(watched: TcpListener) -> io::Result<Listener> {
        #[cfg(unix)]
        let bare = {
            use std::os::fd::AsFd;
            let other = watched.as_fd().try_clone_to_owned()?;
            mio::net::TcpListener::from_std(other.into())
        };
        Ok(Listener {
            watched,
            #[cfg(unix)]
            bare,
        })
    }

    /// Waits for a connection.
    pub(super) async fn accept(&self) -> io::Result<(Line, SocketAddr)> {
        self.watched.accept().await.map(|(stream, peer)| (Line::watched_already(stream), peer))
    }

    /// A connection that waits to be accepted, if there is one.
    #[cfg(unix)]
    pub(super) fn accept_now(&self) -> Option<io::Result<(Line, SocketAddr)>> {
        match self.bare.accept() {
            // The next wait finds nothing either, and only then begins.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted.map(|(stream, peer)| (Line::new(stream), peer))),
        }
    }

    /// A connection that waits to be accepted, if there is one.
    #[cfg(not(unix))]
    pub(super) fn accept_now(&self) -> Option<io::Result<(Line, SocketAddr)>> {
        use std::task::{Context, Poll, Waker};
        // Nobody has to be woken: the next wait asks for that.
        match self.watched.poll_accept(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => Some(accepted.map(|(stream, peer)| (Line::watched_already(stream), peer))),
            Poll::Pending => None,
        }
    }
}

/// The socket of one connection.
#[derive(Debug)]
pub(super) struct Line {
    /// Before it is watched; `None` afterwards.
    bare: Mutex<Option<mio::net::TcpStream>>,
    watched: OnceLock<TcpStream>,
}

impl Line {
    /// A non-blocking socket that nobody watches.
    #[cfg(unix)]
    pub(super) fn new(stream: mio::net::TcpStream) -> Line {
        Line { bare: Mutex::new(Some(stream)), watched: OnceLock::new() }
    }

    fn watched_already(stream: TcpStream) -> Line {
        Line { bare: Mutex::new(None), watched: OnceLock::from(stream) }
    }

    fn bare(&self) -> std::sync::MutexGuard<'_, Option<mio::net::TcpStream>> {
        self.bare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.get().is_some()
    }

    /// The socket as the runtime watches it, from now on at the latest. An error means that it cannot be used any more.
    pub(super) fn watched(&self) -> io::Result<&TcpStream> {
        if let Some(stream) = self.watched.get() {
            return Ok(stream);
        }
        let bare = self.bare().take().ok_or(io::ErrorKind::NotConnected)?;
        let stream = TcpStream::from_std(bare.into())?;
        Ok(self.watched.get_or_init(|| stream))
    }

    /// Uses the socket while nobody watches it; `None` if somebody does, or if there was nothing to do and it has to be waited for.
    pub(super) fn at_once<R>(&self, mut attempt: impl FnMut(&mio::net::TcpStream) -> io::Result<R>) -> Option<io::Result<R>> {
        if self.is_watched() {
            return None;
        }
        let bare = self.bare();
        let stream = bare.as_ref()?;
        loop {
            match attempt(stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                result => return Some(result),
            }
        }
    }

    fn with_socket<R>(&self, then: impl FnOnce(socket2::SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        match (self.watched.get(), &*self.bare()) {
            (Some(stream), _) => then(stream.into()),
            (None, Some(stream)) => then(stream.into()),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends our half of the connection.
    pub(super) fn shut_down_write(&self) -> io::Result<()> {
        self.with_socket(|socket| socket.shutdown(Shutdown::Write))
    }

    /// What the kernel holds for the peer is thrown away at the end.
    pub(super) fn throw_away(&self) {
        let _ = self.with_socket(|socket| socket.set_linger(Some(std::time::Duration::ZERO)));
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set_options(&self, times: super::connection::Times) {
        let _ = self.with_socket(|socket| {
            super::connection::set_options(&socket, times);
            Ok(())
        });
    }

    /// The socket without anybody who watches it.
    pub(super) fn into_bare(self) -> io::Result<mio::net::TcpStream> {
        match self.watched.into_inner() {
            Some(stream) => Ok(mio::net::TcpStream::from_std(stream.into_std()?)),
            None => self.bare.into_inner().unwrap_or_else(PoisonError::into_inner).ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }
}
