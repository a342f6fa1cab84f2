//! RECV: one client's voice. Reads from the client, and appends to the log.
//!
//! Re-executed for each client, so that no two share an address-space layout; it finds its
//! descriptors at fixed numbers. Runs as the workers' user, confined before it reads the client's
//! first byte. Until the keeper accepts the client's token it has no way to the log.

mod door;
mod input;
mod joined;

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use nix::unistd::getppid;

use self::door::Guest;
use super::channel::keeper_recv::{FromRecv, STAGES, Settings, ToRecv};
use super::channel::report::Reporter;
use super::channel::{Channel, ChannelError, Received};
use super::start::{self, StartError};
use crate::confine::{self, Filter, Role, policy};
use crate::sys::{self, signal};

/// How the launcher names a RECV before its token; `session::main` knows it by this.
pub const ARGUMENT: &str = "papayad: recv ";
/// The exit status of a RECV whose client left before it showed a token, or sent no hello.
pub const EXIT_NO_TOKEN: u8 = 65;
/// The exit status of a RECV whose client ran out of the grace time.
pub const EXIT_TOO_SLOW: u8 = 75;

/// The exit status of a RECV whose SEND was killed by a signal.
pub const EXIT_SEND_KILLED: u8 = 71;

/// Why a client is no longer served.
#[derive(Debug)]
enum End {
    /// It left, or its connection broke.
    Gone,
    /// SEND is gone, and without it the client cannot be served.
    SendGone,
    /// What it sent does not belong here.
    Garbage(&'static str),
    /// It did not show a token in time.
    TooSlow,
    /// The keeper refused it; it was told.
    Refused,
    /// SIGTERM, or the keeper ended it; it was told.
    Told,
    /// Something here failed.
    Failed(StartError),
}

impl From<StartError> for End {
    fn from(e: StartError) -> Self {
        Self::Failed(e)
    }
}

/// What RECV has from the start.
struct Recv {
    client: OwnedFd,
    /// Only the process's end closes it: the keeper takes that for the proof that nothing more
    /// will be appended, and lets the session's next connection in.
    keeper: ManuallyDrop<Channel>,
    bell: OwnedFd,
    settings: Settings,
    confined: confine::Report,
    report: Reporter,
}

/// The filters for after the token.
struct Later {
    joined: Filter,
    send: Filter,
}

/// RECV's life. The process was started for it, with its descriptors in place.
pub fn run() -> u8 {
    match Recv::begin() {
        Ok((recv, later)) => {
            let report = recv.report.clone();
            match recv.serve(later) {
                Ok(status) => status,
                Err(end) => account(&report, &end),
            }
        }
        Err(problem) => {
            Reporter::new("recv -").error(problem);
            70
        }
    }
}

/// Says how it ended, and gives the exit status that the launcher's penalties go by.
fn account(report: &Reporter, end: &End) -> u8 {
    match end {
        End::Gone | End::SendGone | End::Refused => EXIT_NO_TOKEN,
        End::Garbage(what) => {
            report.notice(what);
            EXIT_NO_TOKEN
        }
        End::TooSlow => {
            report.notice("no token within the grace time");
            EXIT_TOO_SLOW
        }
        End::Told => 0,
        End::Failed(problem) => {
            report.error(problem);
            70
        }
    }
}

impl Recv {
    /// Takes its descriptors, hears its settings, and confines itself.
    fn begin() -> Result<(Self, Later), StartError> {
        use policy::recv::{BELL, CLIENT, KEEPER, REPORT};
        let [client, keeper, stderr, bell] = take_table([CLIENT, KEEPER, REPORT, BELL])?;
        std::mem::forget(stderr); // Stays open for good: it is where log lines go.
        check_types(&client, &keeper)?;
        let launcher = getppid();
        signal::let_faults_kill()?;
        // SEND finds SIGCHLD as it needs it: no filter lets anybody change it later.
        start::begin("recv -", &[Signal::SIGTERM], &[Signal::SIGCHLD], launcher)?;
        let keeper = ManuallyDrop::new(Channel::from_fd(keeper));
        let settings = match keeper.receive::<ToRecv>() {
            Ok(ToRecv::Settings(settings)) => *settings,
            _ => return Err(StartError::Table("its settings are missing")),
        };
        if launcher.as_raw() != settings.launcher {
            return Err(StartError::Table("its launcher is gone"));
        }
        let [own, joined, send] = receive_filters(&keeper)?;
        sys::title::set(&format!("recv - {}", settings.source));
        let report = Reporter::new(format!("recv - {}", settings.source));
        let confined = confine::enter_with(Role::Recv, &settings.sandbox.context(), own)?;
        let recv = Self { confined, client, keeper, bell, settings, report };
        Ok((recv, Later { joined, send }))
    }

    fn serve(mut self, later: Later) -> Result<u8, End> {
        let deadline = Instant::now() + self.settings.grace;
        let guest = Guest::receive(&mut self, deadline)?;
        // Of token, ticket and keys, what was on the stack on the way: SEND would inherit it.
        sys::memory::give_back();
        joined::serve(self, guest, later)
    }

    /// Sleeps until the keeper has something; a client that hangs up ends it.
    fn wait_keeper(&self, deadline: Instant) -> Result<(), End> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut fds = [
            PollFd::new(self.client.as_fd(), PollFlags::empty()),
            PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN),
        ];
        signal::wait(&mut fds, Some(limit)).map_err(StartError::from)?;
        match (signal::ready(&fds[0]), signal::ready(&fds[1]), limit.is_zero()) {
            (true, _, _) => Err(End::Gone),
            (false, false, true) => Err(End::TooSlow),
            _ => Ok(()),
        }
    }

    /// Sleeps until the client or the keeper has something, or the time is over.
    fn wait(&self, deadline: Option<Instant>) -> Result<Ready, End> {
        let limit = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let mut fds = [
            PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN),
        ];
        signal::wait(&mut fds, limit).map_err(StartError::from)?;
        let ready = Ready { client: signal::ready(&fds[0]), keeper: signal::ready(&fds[1]) };
        if !ready.client && !ready.keeper && limit.is_some_and(|l| l == Duration::ZERO) {
            return Err(End::TooSlow);
        }
        Ok(ready)
    }

    /// What the keeper says, if it says anything now; before the token, with descriptors.
    fn hear_keeper(&self) -> Result<Option<Received<ToRecv>>, End> {
        match self.keeper.receive_fds() {
            Ok(message) => Ok(Some(message)),
            Err(ChannelError::WouldBlock) => Ok(None),
            // The keeper is gone, and so is the service.
            Err(_) => Err(End::Gone),
        }
    }

    fn ask_keeper(&self, request: &FromRecv) -> Result<(), End> {
        self.keeper.send_patiently(request).map_err(|_| End::Gone)
    }
}

struct Ready {
    client: bool,
    keeper: bool,
}

/// Reads what is there, without waiting: `None` for nothing yet, an end for the client's end.
fn read_client(client: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, End> {
    match recv(client.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Err(End::Gone),
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(_) => Err(End::Gone),
    }
}

/// Sends a few bytes as well as the socket takes them: only before a token, when its buffer is
/// empty, so that a short write means that the client is not worth waiting for.
fn send_client(client: &OwnedFd, bytes: &[u8]) -> Result<(), End> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(client.as_raw_fd(), bytes, flags) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        _ => Err(End::Gone),
    }
}

/// Takes ownership of exactly these descriptors, 0 to 3; everything above is closed.
fn take_table(table: [RawFd; 4]) -> Result<[OwnedFd; 4], StartError> {
    sys::fd::close_from(4)?;
    let fds: Vec<OwnedFd> =
        table.into_iter().map(sys::fd::own).collect::<Result<_, _>>().map_err(StartError::from)?;
    <[OwnedFd; 4]>::try_from(fds).map_err(|_| StartError::Table("a descriptor is missing"))
}

fn receive_filters(keeper: &Channel) -> Result<[Filter; STAGES.len()], StartError> {
    let missing = StartError::Table("a filter is missing");
    let filters: Result<Vec<_>, _> =
        STAGES.iter().map(|_| keeper.receive_bytes(Filter::from_bytes)).collect();
    filters.ok().and_then(|filters| filters.try_into().ok()).ok_or(missing)
}

fn check_types(client: &OwnedFd, keeper: &OwnedFd) -> Result<(), StartError> {
    let kind = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType);
    if kind(client) != Ok(SockType::Stream) {
        return Err(StartError::Table("descriptor 0 is no client's socket"));
    }
    if kind(keeper) != Ok(SockType::SeqPacket) {
        return Err(StartError::Table("descriptor 1 is no keeper's channel"));
    }
    Ok(())
}

/// What SEND says when it is told to stop.
pub(super) fn shutdown_bye() -> crate::wire::event::Event {
    door::bye(crate::wire::event::ByeReason::Shutdown)
}

/// How a client is shown in log lines and titles once its name is known.
fn label(name: &str, source: SocketAddr) -> String {
    format!("{name} {source}")
}
