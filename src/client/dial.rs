//! Opening a TCP connection without waiting for it: every address of the server in turn, each with
//! its own bound of time, while the caller polls.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket,
};

use super::address::ServerAddress;
use super::trouble::Trouble;

/// An attempt to connect.
pub struct Dial {
    remaining: VecDeque<SocketAddr>,
    current: TcpStream,
    address: SocketAddr,
    deadline: Instant,
    each: Duration,
    several: bool,
}

impl Dial {
    /// Resolves the name (which waits for the system's resolver) and begins with the first
    /// address; each may take as long as `each`.
    pub fn start(server: &ServerAddress, each: Duration) -> Result<Self, Trouble> {
        let found = server.resolve().map_err(|e| Trouble::Unreachable(cause(&e)))?;
        let several = found.len() > 1;
        next(&mut found.into_iter().collect(), each, several, None)
    }

    /// When the current address has had its time.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on after the socket has become writable or the time is over: the connected stream, or
    /// the next attempt.
    pub fn advance(mut self, writable: bool) -> Result<Result<TcpStream, Self>, Trouble> {
        let problem = if writable {
            match self.current.take_error() {
                Ok(None) if self.current.peer_addr().is_ok() => return Ok(Ok(self.current)),
                Ok(None) => return Ok(Err(self)),
                Ok(Some(error)) | Err(error) => cause(&error),
            }
        } else if Instant::now() < self.deadline {
            return Ok(Err(self));
        } else {
            "no answer in time".to_owned()
        };
        let problem = describe(self.address, self.several, &problem);
        next(&mut self.remaining, self.each, self.several, Some(problem)).map(Err)
    }
}

impl AsFd for Dial {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.current.as_fd()
    }
}

/// Begins with the first of `addresses` that does not fail at once.
fn next(
    addresses: &mut VecDeque<SocketAddr>,
    each: Duration,
    several: bool,
    mut problem: Option<String>,
) -> Result<Dial, Trouble> {
    while let Some(address) = addresses.pop_front() {
        match begin(address) {
            Ok(current) => {
                let remaining = std::mem::take(addresses);
                let deadline = Instant::now() + each;
                return Ok(Dial { remaining, current, address, deadline, each, several });
            }
            Err(errno) => problem = Some(describe(address, several, &cause(&errno.into()))),
        }
    }
    Err(Trouble::Unreachable(problem.unwrap_or_else(|| "the name has no address".to_owned())))
}

fn begin(address: SocketAddr) -> nix::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    let stream = TcpStream::from(fd);
    match connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(stream),
        Err(errno) => Err(errno),
    }
}

fn describe(address: SocketAddr, several: bool, problem: &str) -> String {
    if several { format!("{problem} (last tried: {address})") } else { problem.to_owned() }
}

/// The system's words without Rust's appendix "(os error 111)".
fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.strip_prefix("failed to lookup address information: ").unwrap_or(text).to_lowercase()
}
