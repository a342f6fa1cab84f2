//! Listener: accepts connections, turns away what is too much, and hands the rest to the launcher.
//!
//! Runs as the workers' user. It holds the listening sockets and the table of sources; it never
//! reads a byte from a client, has no key, and cannot start a process. Killing it touches nobody
//! who is connected: SIGTERM closes the door, anything else is a crash, and it is started again.

pub mod door;
pub mod limits;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockFlag, SockaddrStorage, accept4, getpeername, send, shutdown,
};
use nix::unistd::Pid;

use self::limits::{Limits, Refusal, Why};
use super::channel::launcher_listener::{FromListener, ToListener, TurnedAway, Verdict};
use super::channel::report::Reporter;
use super::channel::{Channel, ChannelError, WorkerId};
use super::start;
use crate::config;
use crate::confine::{self, Role, policy::rights};
use crate::sys::{self, signal};
use crate::wire::handshake::Status;

/// Connections accepted in one round before the launcher's messages are looked at again.
const ROUND: usize = 64;
/// How long accepting rests after the system had no descriptor or memory for a connection.
const REST: Duration = Duration::from_millis(100);

/// What a listener starts with.
pub struct Start<'a> {
    /// To the launcher.
    pub channel: RawFd,
    /// The pipe of log lines.
    pub report: RawFd,
    /// /dev/null.
    pub null: RawFd,
    /// The listening sockets.
    pub sockets: &'a [RawFd],
    /// Whether they are the service manager's, and only lent.
    pub lent: bool,
    /// The launcher's process id.
    pub launcher: Pid,
    /// What the operator allows.
    pub config: &'a config::Config,
    /// The first number that was not used yet.
    pub next: WorkerId,
    /// Who is connected already (a listener that crashed leaves them untouched): number, source,
    /// and whether the token was good.
    pub clients: Vec<(WorkerId, SocketAddr, bool)>,
}

struct Listener {
    channel: Channel,
    sockets: Vec<OwnedFd>,
    lent: bool,
    limits: Limits,
    next: WorkerId,
    rest: Option<Instant>,
    report: Reporter,
    /// What the launcher was not told yet.
    turned_away: TurnedAway,
}

/// The listener's life, in a process forked for it.
pub fn run(start: Start<'_>) -> Infallible {
    let report = Reporter::new("listener");
    match Listener::begin(start, report.clone()).and_then(|mut l| l.serve()) {
        Ok(never) => match never {},
        Err(problem) => {
            report.error(problem);
            sys::process::exit_now(70)
        }
    }
}

impl Listener {
    fn begin(start: Start<'_>, report: Reporter) -> Result<Self, start::StartError> {
        let mut table = vec![start.null, start.channel, start.report];
        table.extend_from_slice(start.sockets);
        let mut fds = start::forked("listener", &table, &[Signal::SIGTERM], start.launcher)?;
        let sockets = fds.split_off(3);
        let channel = Channel::from_fd(fds.swap_remove(1));
        let mut limits = Limits::new(&start.config.limits, Instant::now());
        for (id, source, joined) in start.clients {
            limits.started(id, source);
            if joined {
                limits.joined(id);
            }
        }
        let context = start.config.sandbox.context();
        let level = confine::enter(Role::Listener, &context)?;
        report.info(level);
        for fd in fds {
            std::mem::forget(fd); // 0 and 2 stay open for good: nothing else may take their place.
        }
        // One that cannot say so is started again: the launcher waits for this word.
        channel.send(&FromListener::Open, &[]).map_err(|_| Errno::EPIPE)?;
        let (next, lent) = (start.next, start.lent);
        let turned_away = TurnedAway::default();
        Ok(Self { channel, sockets, lent, limits, next, rest: None, report, turned_away })
    }

    fn serve(&mut self) -> Result<Infallible, start::StartError> {
        loop {
            let (told, ready) = self.wait()?;
            if signal::take(Signal::SIGTERM) {
                self.close_door("it was told to stop (SIGTERM)");
            }
            if told {
                self.hear();
            }
            for index in ready {
                self.accept_round(index);
            }
            self.tell_count();
        }
    }

    /// Sleeps; says whether the launcher spoke and which sockets have connections.
    fn wait(&mut self) -> Result<(bool, Vec<usize>), Errno> {
        let now = Instant::now();
        let rest = self.rest.and_then(|end| end.checked_duration_since(now));
        if rest.is_none() {
            self.rest = None;
        }
        let mut fds = vec![PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        if rest.is_none() {
            fds.extend(self.sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)));
        }
        signal::wait(&mut fds, rest)?;
        let ready = (0..fds.len() - 1).filter(|i| signal::ready(&fds[i + 1])).collect();
        Ok((signal::ready(&fds[0]), ready))
    }

    /// Takes what the launcher says.
    fn hear(&mut self) {
        loop {
            match self.channel.receive::<ToListener>() {
                Ok(ToListener::Joined(id)) => self.limits.joined(id),
                Ok(ToListener::Ended(id, verdict)) => self.ended(id, verdict),
                Ok(ToListener::Close) => self.close_door("it was told to pause"),
                Err(ChannelError::WouldBlock) => return,
                // The launcher is gone, and so is the service.
                Err(_) => sys::process::exit_now(0),
            }
        }
    }

    fn ended(&mut self, id: WorkerId, verdict: Verdict) {
        if let Some(penalty) = self.limits.ended(id, verdict, Instant::now()) {
            self.report.notice(format_args!(
                "{} is turned away for {} s after {}",
                penalty.source,
                penalty.lasts.as_secs(),
                verdict.describe()
            ));
            // Only for the count: where there is no room, it is one too low.
            let _ = self.channel.send(&FromListener::Penalty, &[]);
        }
    }

    /// Once for a whole round: a flood costs the launcher little. Where there is no room for it, it
    /// is told with what comes next.
    fn tell_count(&mut self) {
        let news = self.turned_away != TurnedAway::default();
        if news && self.channel.send(&FromListener::TurnedAway(self.turned_away), &[]).is_ok() {
            self.turned_away = TurnedAway::default();
        }
    }

    fn accept_round(&mut self, index: usize) {
        for _ in 0..ROUND {
            let Some(socket) = self.sockets.get(index) else { return };
            match accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
                Ok(raw) => {
                    if let Ok(client) = sys::fd::own(raw) {
                        self.admit(client);
                    }
                }
                Err(Errno::EAGAIN) => return,
                // The client went away, or sent something odd: not our trouble (accept(2)).
                Err(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO | Errno::EPERM) => {}
                Err(cause @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => {
                    self.report.warning(format_args!("accepting rests: {}", cause.desc()));
                    self.rest = Some(Instant::now() + REST);
                    return;
                }
                Err(cause) => {
                    self.report.warning(format_args!("accept: {}", cause.desc()));
                    self.rest = Some(Instant::now() + REST);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, client: OwnedFd) {
        let Some(source) = peer(&client) else { return };
        if let Err(refusal) = self.limits.allow(source, Instant::now(), dice) {
            if refusal.is_news {
                self.report.notice(format_args!("{source} is turned away: {refusal}"));
            }
            *match refusal.why {
                Why::Punished => &mut self.turned_away.penalised,
                Why::Full => &mut self.turned_away.full,
                Why::Source | Why::Network => &mut self.turned_away.per_source,
                Why::StartupsNear | Why::Startups => &mut self.turned_away.startups,
            } += 1;
            return turn_away(&client);
        }
        let id = self.next;
        match self.hand_on(id, &client) {
            Ok(()) => {
                // 2^64 connections are out of reach.
                self.next = id.next().unwrap_or(id);
                self.limits.started(id, source);
            }
            Err(problem) => {
                if self.limits.is_news(source, Instant::now()) {
                    self.report.notice(format_args!(
                        "{source} is turned away, since {}",
                        why_not_handed_on(&problem)
                    ));
                }
                self.turned_away.busy += 1;
                turn_away(&client);
            }
        }
    }

    fn hand_on(&self, id: WorkerId, client: &OwnedFd) -> Result<(), ChannelError> {
        confine::limit_rights(client, rights::CLIENT_ACCEPTED)?;
        self.channel.send(&FromListener::Start { id }, &[client.as_fd()])
    }

    /// Refuses connections until the launcher starts another listener. The sockets stay bound:
    /// nobody else can take the port, and listening again needs no root.
    ///
    /// Sockets that are only lent stay as they are: whether the service ends, so that connections
    /// are to wait for the next one, or the door is to be closed, the launcher knows.
    fn close_door(&self, why: &str) -> ! {
        for socket in self.sockets.iter().filter(|_| !self.lent) {
            if let Err(cause) = door::close(socket) {
                self.report.error(format_args!("the door does not close: {}", cause.desc()));
            }
        }
        self.report.notice(format_args!("the door is closed: {why}"));
        sys::process::exit_now(0)
    }
}

/// Says "busy" if that needs no waiting, and hangs up.
fn turn_away(client: &OwnedFd) {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = send(client.as_raw_fd(), &[Status::Busy as u8], flags);
    let _ = shutdown(client.as_raw_fd(), Shutdown::Write);
}

/// Why a connection cannot be handed on. The kernel counts the descriptors that all of a user's processes
/// have on their way, and compares them with the sender's limit (unix(7)).
fn why_not_handed_on(problem: &ChannelError) -> String {
    match problem {
        ChannelError::WouldBlock | ChannelError::System(Errno::ETOOMANYREFS) => {
            "the launcher takes no more at the moment".to_owned()
        }
        other => other.to_string(),
    }
}

/// Where a connection comes from; `None` if it is gone already.
pub fn peer(client: &OwnedFd) -> Option<SocketAddr> {
    let address = door::address(&getpeername::<SockaddrStorage>(client.as_raw_fd()).ok()?)?;
    // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d; people and limits want a.b.c.d.
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// A random number below 100.
fn dice() -> u32 {
    getrandom::u32().map_or(0, |n| n % 100)
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.why {
            Why::Punished => "its source is being punished",
            Why::Full => "the room is full (limits.clients)",
            Why::Source => "its source has too many connections (limits.per_source)",
            Why::Network => "its network has too many connections (limits.per_source)",
            Why::StartupsNear => {
                "too many clients of its network have not shown a token yet (limits.startups)"
            }
            Why::Startups => "too many clients have not shown a token yet (limits.startups)",
        })
    }
}
