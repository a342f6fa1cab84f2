//! The control socket: how `papayad status`, `kick`, `pause`, `resume`, `token` and `log` talk to the
//! running service. Root's alone (rootless: its user's alone), by the socket's owner and mode.
//!
//! One request a connection: a line of at most [`REQUEST_MAX`] bytes; the answer is lines of text
//! until the service closes. A caller that does not send or read in time is dropped.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{SockFlag, accept4};
use nix::sys::stat::{Mode, umask};

use crate::exit::{Exit, Failure};
use crate::sys;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "control";
/// The longest request in bytes.
pub const REQUEST_MAX: usize = 512;
/// Callers at a time.
const CALLERS_MAX: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer in bytes: a line for each client, and far more than that.
const ANSWER_MAX: usize = 16 << 20;
const CALLER: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who is here.
    Status,
    /// Read configuration and tokens again.
    Reload,
    /// Read the tokens again.
    Tokens,
    /// Close the door.
    Pause,
    /// Open the door.
    Resume,
    /// The log's append-only flag was set by hand.
    Sealed,
    /// The log's append-only flag was cleared by hand.
    Unsealed,
    /// The log's beginning up to this offset was removed, by this administrator.
    Pruned(u64, String),
    /// End the sessions of a name, or one worker by the process id of its RECV.
    Kick(String),
}

impl Request {
    /// Reads a whole request as it came.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let line = bytes.strip_suffix(b"\n").filter(|line| line.len() < REQUEST_MAX)?;
        std::str::from_utf8(line).ok().and_then(Self::parse)
    }

    /// Reads a request's line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let request = match (words.next()?, words.next()) {
            ("pruned", Some(to)) => Self::Pruned(to.parse().ok()?, words.next()?.to_owned()),
            ("status", None) => Self::Status,
            ("reload", None) => Self::Reload,
            ("tokens", None) => Self::Tokens,
            ("pause", None) => Self::Pause,
            ("resume", None) => Self::Resume,
            ("sealed", None) => Self::Sealed,
            ("unsealed", None) => Self::Unsealed,
            ("kick", Some(whom)) => Self::Kick(whom.to_owned()),
            _ => return None,
        };
        words.next().is_none().then_some(request)
    }

    /// The request as a line.
    pub fn encode(&self) -> String {
        match self {
            Self::Status => "status\n".into(),
            Self::Reload => "reload\n".into(),
            Self::Tokens => "tokens\n".into(),
            Self::Pause => "pause\n".into(),
            Self::Resume => "resume\n".into(),
            Self::Sealed => "sealed\n".into(),
            Self::Unsealed => "unsealed\n".into(),
            Self::Pruned(to, who) => format!("pruned {to} {who}\n"),
            Self::Kick(whom) => format!("kick {whom}\n"),
        }
    }
}

struct Visitor {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
    end: Instant,
}

/// The listening socket and whoever is connected to it.
pub struct Door {
    listener: UnixListener,
    callers: Vec<Visitor>,
}

impl Door {
    /// Binds the socket; refuses to take the place of a running service.
    pub fn open(runtime: &Path) -> Result<Self, Failure> {
        let path: PathBuf = runtime.join(SOCKET);
        if UnixStream::connect(&path).is_ok() {
            let message = format!(
                "a papayad is running already: it answers on {}; see `papayad status`",
                path.display()
            );
            return Err(Failure::new(Exit::Unavailable, message));
        }
        let failed = |e: io::Error| {
            Failure::new(Exit::CannotCreate, format!("cannot create {}: {e}", path.display()))
        };
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&path);
        umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, callers: Vec::new() })
    }

    /// The descriptors to watch.
    pub fn watch(&self) -> Vec<PollFd<'_>> {
        let listen =
            if self.callers.len() < CALLERS_MAX { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.listener.as_fd(), listen)];
        for caller in &self.callers {
            let want = if caller.answer.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            fds.push(PollFd::new(caller.stream.as_fd(), want));
        }
        fds
    }

    /// When the next caller has had its time.
    pub fn next_due(&self) -> Option<Instant> {
        self.callers.iter().map(|c| c.end).min()
    }

    /// Takes callers and their requests; gives those that are whole, with the caller's place.
    pub fn take(&mut self) -> Vec<(usize, Option<Request>)> {
        while self.callers.len() < CALLERS_MAX
            && let Ok(raw) = accept4(self.listener.as_raw_fd(), CALLER)
            && let Ok(fd) = sys::fd::own(raw)
        {
            let end = Instant::now() + PATIENCE;
            let stream = UnixStream::from(fd);
            self.callers.push(Visitor { stream, request: Vec::new(), answer: None, end });
        }
        self.callers.retain_mut(|caller| caller.end > Instant::now() && caller.advance());
        let whole = |c: &Visitor| c.answer.is_none() && c.request.ends_with(b"\n");
        let callers = self.callers.iter().enumerate();
        callers
            .filter(|(_, c)| whole(c))
            .map(|(place, c)| (place, Request::read(&c.request)))
            .collect()
    }

    /// Answers the caller at this place.
    pub fn answer(&mut self, place: usize, text: String) {
        if let Some(caller) = self.callers.get_mut(place) {
            caller.answer = Some(text.into_bytes());
            caller.advance();
        }
    }
}

impl Visitor {
    /// Reads or writes what is possible now; whether it stays.
    fn advance(&mut self) -> bool {
        match &mut self.answer {
            None => {
                let mut buffer = [0; REQUEST_MAX];
                match self.stream.read(&mut buffer) {
                    Ok(0) => false,
                    Ok(length) => {
                        self.request.extend_from_slice(&buffer[..length]);
                        self.request.len() <= REQUEST_MAX
                    }
                    Err(e) => e.kind() == io::ErrorKind::WouldBlock,
                }
            }
            Some(answer) => match self.stream.write(answer) {
                Ok(length) => {
                    answer.drain(..length);
                    !answer.is_empty()
                }
                Err(e) => e.kind() == io::ErrorKind::WouldBlock,
            },
        }
    }
}

/// A connection to the running service.
#[derive(Debug)]
pub struct Caller {
    stream: UnixStream,
    path: PathBuf,
}

impl Caller {
    /// Connects; `None` if no service is running.
    ///
    /// # Errors
    /// The socket is there, but cannot be used.
    pub fn connect(runtime: &Path) -> Result<Option<Self>, Failure> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let path = runtime.join(SOCKET);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Some(Self { stream, path })),
            Err(e) if matches!(e.kind(), NotFound | ConnectionRefused) => Ok(None),
            Err(e) => Err(unusable(&path, &e)),
        }
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// The service does not answer in time, or says more than a service has to say: a launcher that
    /// somebody has taken over shall not fill the memory of whoever asks.
    pub fn ask(self, request: &Request) -> Result<String, Failure> {
        self.ask_until(request, Instant::now() + 2 * PATIENCE)
    }

    fn ask_until(mut self, request: &Request, end: Instant) -> Result<String, Failure> {
        let answer = self.try_ask(request, end).map_err(|e| unusable(&self.path, &e))?;
        String::from_utf8(answer).map_err(|e| unusable(&self.path, &io::Error::other(e)))
    }

    fn try_ask(&mut self, request: &Request, end: Instant) -> io::Result<Vec<u8>> {
        let (mut answer, mut part) = (Vec::new(), [0; 8192]);
        self.stream.write_all(request.encode().as_bytes())?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let length = self.stream.read(&mut part)?;
            if length == 0 {
                return Ok(answer);
            }
            answer.extend_from_slice(&part[..length]);
            if answer.len() > ANSWER_MAX {
                return Err(io::Error::other("it says more than a service has to say"));
            }
        }
    }
}

fn unusable(path: &Path, cause: &io::Error) -> Failure {
    let message = format!("cannot talk to the running service on {}: {cause}", path.display());
    let exit = match cause.kind() {
        io::ErrorKind::PermissionDenied => Exit::Refused,
        _ => Exit::Unavailable,
    };
    Failure::new(exit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_their_lines_and_nothing_else_is_one() {
        let all = [
            Request::Status,
            Request::Reload,
            Request::Tokens,
            Request::Pause,
            Request::Resume,
            Request::Sealed,
            Request::Unsealed,
        ];
        let more = [Request::Kick("alice".into()), Request::Pruned(17, "root".into())];
        for request in all.into_iter().chain(more) {
            assert_eq!(Request::parse(&request.encode()), Some(request));
        }
        for odd in ["", "kick", "status now", "kick a b", "KICK a", "pruned 1", "pruned x a", "\0"]
        {
            assert_eq!(Request::parse(odd), None, "{odd:?}");
        }
    }

    /// What becomes of a question until `end`, to a service that `says` this.
    fn asked(
        end: Instant,
        says: impl FnOnce(UnixStream) + std::marker::Send + 'static,
    ) -> Result<String, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let service = std::thread::spawn(move || {
            let mut caller = socket.accept().unwrap().0;
            let length = caller.read(&mut [0; REQUEST_MAX]).unwrap();
            assert_eq!(length, Request::Status.encode().len());
            says(caller);
        });
        let answer = Caller::connect(dir.path()).unwrap().unwrap().ask_until(&Request::Status, end);
        service.join().unwrap();
        answer
    }

    #[test]
    fn a_service_cannot_keep_who_asks_for_ever_nor_fill_its_memory() {
        let far = Instant::now() + Duration::from_secs(600);
        let answer = asked(far, |mut service| service.write_all(b"well").unwrap());
        assert_eq!(answer.unwrap(), "well");
        let endless = asked(far, |mut service| while service.write_all(&[b'x'; 8192]).is_ok() {});
        assert!(endless.unwrap_err().message.contains("more than a service has to say"));
        // A word now and then is no reason to go on.
        let soon = Instant::now() + Duration::from_millis(50);
        let slow = asked(soon, |mut service| while service.write_all(b"x").is_ok() {});
        assert_eq!(slow.unwrap_err().exit, Exit::Unavailable);
        let odd = asked(far, |mut service| service.write_all(&[0xff]).unwrap());
        assert_eq!(odd.unwrap_err().exit, Exit::Unavailable);
    }

    #[test]
    fn a_second_service_does_not_take_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Door::open(dir.path()).unwrap();
        assert_eq!(Door::open(dir.path()).err().unwrap().exit, Exit::Unavailable);
        drop(first);
        assert!(Door::open(dir.path()).is_ok(), "a stale socket is replaced");
    }
}
