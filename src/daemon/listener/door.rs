//! The door: listening sockets that are closed and opened again without giving their address up.
//! The listener closes it; the launcher opens it, and closes it when there is no listener.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    Backlog, Shutdown, SockaddrStorage, getsockname, listen, setsockopt, shutdown, sockopt,
};

/// Connections that may wait for the listener.
const BACKLOG: i32 = 1024;

/// Listens, for the first time or again: needs no root, the address is bound.
pub fn open(socket: &OwnedFd) -> Result<(), Errno> {
    // The connections that were accepted before have the same address: they must not be in the way.
    setsockopt(socket, sockopt::ReuseAddr, &true)?;
    listen(socket, Backlog::new(BACKLOG)?)
}

/// The address that a socket is bound to.
pub fn bound(socket: &OwnedFd) -> Option<SocketAddr> {
    address(&getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok()?)
}

/// An address as the standard library has it; `None` if it is not of the internet.
pub fn address(raw: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = raw.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
    v4.or_else(|| raw.as_sockaddr_in6().map(|a| SocketAddr::from((a.ip(), a.port()))))
}

/// Refuses connections from now on. The address stays bound.
pub fn close(socket: &OwnedFd) -> Result<(), Errno> {
    // An address that may be reused is anybody's as soon as nobody listens on it (socket(7)).
    setsockopt(socket, sockopt::ReuseAddr, &false)?;
    shutdown(socket.as_raw_fd(), Shutdown::Read)
}
