//! The launcher without root: starts, reaps, rings, logs, and ends the service.

use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getpid};

use super::control::Request;
use super::counters::Counters;
use super::journal::Journal;
use super::locks::{Locks, parent_of};
use super::prepare::failed;
use super::workers::{Worker, Workers, verdict};
use super::{KeeperChild, Plumbing, Start};
use crate::config::Config;
use crate::confine::Report;
use crate::daemon::channel::keeper_recv::{Settings, ToRecv};
use crate::daemon::channel::launcher_keeper::{FromKeeper, ToKeeper};
use crate::daemon::channel::launcher_listener::{FromListener, ToListener, Verdict};
use crate::daemon::channel::report::Severity;
use crate::daemon::channel::{Channel, ChannelError, WorkerId};
use crate::daemon::{listener, recv};
use crate::exit::{Exit, Failure};
use crate::sys::{self, signal};
use crate::wire::event::ByeReason;

/// How long clients have to be told goodbye before the rest is killed. The service is to be gone
/// within two seconds.
const GOODBYE: Duration = Duration::from_millis(1500);
/// The pause before a crashed listener is started again, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A listener that lived this long is not one that crashes at once.
const SETTLED: Duration = Duration::from_secs(30);
/// How long the bell rests after a ring, for each worker and at most: about what waking one costs.
const BELL_REST: Duration = Duration::from_micros(20);
const BELL_REST_MAX: Duration = Duration::from_millis(20);
/// Room for a title that names a client: `papayad: recv NAME [ADDRESS]:PORT`.
const TITLE_ROOM: usize = 112;
/// Messages taken from one channel before the others have their turn.
const ROUND: usize = 64;

enum Door {
    Open {
        pid: Pid,
        channel: Channel,
        since: Instant,
    },
    /// Crashed: when it is started again, and the pause after the next crash.
    Restarting(Instant),
    Closed,
}

/// The supervisor.
pub struct Supervisor {
    config: Config,
    config_path: PathBuf,
    was_root: bool,
    /// Standard input, if the service ends with it.
    leash: Option<OwnedFd>,
    journal: Journal,
    plumbing: Plumbing,
    keeper: KeeperChild,
    door: Door,
    back_off: Duration,
    /// The door was opened again before its listener had closed it.
    reopen: bool,
    /// A listener that was killed in order to start one with new limits.
    renewing: Option<Pid>,
    /// The listener was told to close the door, and has not ended yet.
    pausing: bool,
    workers: Workers,
    /// Workers that the launcher killed itself, because they had to go.
    removed: HashSet<Pid>,
    next_id: WorkerId,
    /// What the listener could not be told yet; bounded by the number of workers.
    untold: VecDeque<ToListener>,
    locks: Locks,
    bell_rests_until: Instant,
    /// The bell has to be rung although nobody pulled it.
    bell_due: bool,
    tokens: u32,
    /// What is in force in the launcher; `None` before it is.
    confined: Option<Report>,
    counters: Counters,
    began: Instant,
    /// Once the service has to end: until when, and with what.
    stop: Option<(Instant, Result<(), Failure>)>,
}

impl Supervisor {
    /// A supervisor whose keeper is ready.
    pub fn new(
        start: Start,
        journal: Journal,
        plumbing: Plumbing,
        keeper: KeeperChild,
        ready: FromKeeper,
    ) -> Result<Self, Failure> {
        let FromKeeper::Ready { files, tokens, confined, new_key } = ready else {
            return Err(Failure::new(Exit::Internal, "the keeper's first word was not \"ready\""));
        };
        let Start { config, config_path, leashed, users } = start;
        let leash = if leashed { sys::fd::own(0).ok() } else { None };
        let mut supervisor = Self {
            config,
            config_path,
            was_root: users.is_some(),
            leash,
            journal,
            plumbing,
            keeper,
            door: Door::Closed,
            back_off: BACK_OFF.0,
            reopen: false,
            renewing: None,
            pausing: false,
            workers: Workers::default(),
            removed: HashSet::new(),
            next_id: WorkerId(1),
            untold: VecDeque::new(),
            locks: Locks::open(files),
            bell_rests_until: Instant::now(),
            bell_due: false,
            tokens,
            confined: None,
            counters: Counters::default(),
            began: Instant::now(),
            stop: None,
        };
        if new_key {
            supervisor.log(Severity::Notice, "a new host key was made");
        }
        supervisor.log(Severity::Info, &confined);
        Ok(supervisor)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the launcher opens again while it runs: the configuration, and processes' parents.
    pub fn readable_paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = vec![self.config_path.clone()];
        // The directory, because editors replace the file.
        paths.extend(self.config_path.parent().map(PathBuf::from));
        if cfg!(target_os = "linux") {
            paths.push("/proc".into());
        }
        paths
    }

    /// Opens the door for the first time.
    pub fn start(&mut self, confined: &Report) -> Result<(), Failure> {
        self.confined = Some(confined.clone());
        let noted = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
        let ignored = [Signal::SIGUSR1, Signal::SIGPIPE];
        signal::apply(&signal::Plan { noted: &noted, ignored: &ignored, defaulted: &[] })
            .map_err(failed("set signals up"))?;
        // Whoever ended before signals were noted.
        self.reap();
        self.log(Severity::Info, &confined.to_string());
        if !self.was_root {
            self.log(
                Severity::Notice,
                "started without root: all processes run as this user, and only the confinement keeps them apart",
            );
        }
        if !self.locks.works() {
            self.log(Severity::Notice, "this system does not tell who holds a lock");
        }
        self.open_door();
        let addresses: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let text = format!(
            "papayad {} serves room {:?} on {} with {} tokens",
            env!("CARGO_PKG_VERSION"),
            self.config.room.name,
            addresses.join(", "),
            self.tokens
        );
        self.log(Severity::Notice, &text);
        Ok(())
    }

    /// The addresses as bound: a configured port 0 became a real one.
    fn addresses(&self) -> Vec<SocketAddr> {
        let bound = |socket: &OwnedFd| {
            let address = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrStorage>(
                socket.as_raw_fd(),
            )
            .ok()?;
            let v4 = address.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::from((a.ip(), a.port()))))
        };
        self.plumbing.sockets.iter().filter_map(bound).collect()
    }

    /// Serves until the service has to end.
    pub fn serve(mut self) -> Result<(), Failure> {
        loop {
            self.wait()?;
            self.take_signals();
            self.mind_leash();
            self.ring();
            self.journal.drain(&self.plumbing.report.0);
            self.hear_keeper();
            self.hear_listener();
            self.tell_listener();
            self.take_callers();
            self.restart_listener();
            self.watch_locks();
            if self.stop.is_some() && self.is_over() {
                break;
            }
        }
        self.journal.drain(&self.plumbing.report.0);
        let outcome = self.stop.take().map_or(Ok(()), |(_, outcome)| outcome);
        match &outcome {
            Ok(()) => self.log(Severity::Notice, "stopped"),
            Err(failure) => self.log(Severity::Error, &failure.message),
        }
        outcome
    }

    fn wait(&self) -> Result<(), Failure> {
        let restart = if let Door::Restarting(at) = self.door { Some(at) } else { None };
        let locks = if self.workers.is_empty() { None } else { self.locks.next_due() };
        let stop = self.stop.as_ref().map(|(end, _)| *end);
        let bell_rests = self.bell_rests_until > Instant::now();
        let bell = (bell_rests || self.bell_due).then_some(self.bell_rests_until);
        let due = [restart, locks, stop, bell, self.plumbing.control.next_due()];
        let due = due.into_iter().flatten().min();
        let limit = due.map(|due| due.saturating_duration_since(Instant::now()));
        let read = PollFlags::POLLIN;
        let mut fds = vec![
            PollFd::new(
                self.plumbing.bell.0.as_fd(),
                if bell_rests { PollFlags::empty() } else { read },
            ),
            PollFd::new(self.plumbing.report.0.as_fd(), read),
        ];
        if self.stop.is_none() {
            fds.push(PollFd::new(self.keeper.channel.as_fd(), read));
        }
        if let Door::Open { channel, .. } = &self.door {
            let room = if self.untold.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            fds.push(PollFd::new(channel.as_fd(), read | room));
        }
        fds.extend(self.leash.iter().map(|leash| PollFd::new(leash.as_fd(), read)));
        fds.extend(self.plumbing.control.watch());
        signal::wait(&mut fds, limit).map_err(failed("wait"))
    }

    fn log(&mut self, severity: Severity, text: &str) {
        self.journal.line(severity, &format!("launcher: {text}"));
    }

    // The bell ---------------------------------------------------------------------------------

    /// One ring for all that was written since the last one: only SENDs listen. The first one is
    /// immediate; the next waits a moment that grows with the number of listeners, since each ring
    /// wakes them all: so the bell takes at most a part of the machine, whoever pulls it.
    fn ring(&mut self) {
        let now = Instant::now();
        if now < self.bell_rests_until {
            return;
        }
        let mut rung = std::mem::take(&mut self.bell_due);
        let mut buffer = [0u8; 4096];
        while let Ok(length) = nix::unistd::read(&self.plumbing.bell.0, &mut buffer) {
            rung |= length > 0;
            if length < buffer.len() {
                break;
            }
        }
        if rung {
            // Process 0 is this process group. The keeper, of another user, is left out.
            let _ = kill(Pid::from_raw(0), Signal::SIGUSR1);
            let rest = BELL_REST * u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
            self.bell_rests_until = now + rest.min(BELL_REST_MAX);
        }
    }

    /// Ends the service once its standard input has ended.
    fn mind_leash(&mut self) {
        let Some(leash) = &self.leash else { return };
        let mut fds = [PollFd::new(leash.as_fd(), PollFlags::POLLIN)];
        if !matches!(nix::poll::poll(&mut fds, 0u8), Ok(1..)) {
            return;
        }
        if !matches!(nix::unistd::read(leash, &mut [0; 512]), Ok(1..)) {
            self.leash = None;
            self.end(Ok(()));
        }
    }

    // Signals and processes --------------------------------------------------------------------

    fn take_signals(&mut self) {
        if signal::take(Signal::SIGTERM) || signal::take(Signal::SIGINT) {
            self.end(Ok(()));
        }
        if signal::take(Signal::SIGHUP) {
            self.reload();
        }
        if signal::take(Signal::SIGCHLD) {
            self.reap();
        }
    }

    fn reap(&mut self) {
        let mut any = false;
        while let Some(status) = sys::process::reap() {
            self.reaped(status);
            any = true;
        }
        if any {
            self.sweep();
        }
    }

    /// Ends processes that this one was handed when their parent ended: a SEND whose RECV is gone,
    /// or what an attacker made of one. They are own children, not reaped yet, so their numbers
    /// cannot be somebody else's.
    fn sweep(&self) {
        let listener = if let Door::Open { pid, .. } = self.door { Some(pid) } else { None };
        for pid in sys::process::children() {
            let known = pid == self.keeper.pid
                || Some(pid) == listener
                || self.workers.id_of(pid).is_some();
            if !known {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    fn reaped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        if pid == self.keeper.pid {
            let what =
                format!("the keeper ended ({}); without it nobody can join", describe(status));
            self.end(Err(Failure::new(Exit::Internal, what)));
        } else if matches!(&self.door, Door::Open { pid: p, .. } if *p == pid) {
            self.listener_ended(status);
        } else if let Some((id, worker)) = self.workers.remove(pid) {
            self.worker_ended(id, &worker, status);
        } else if let WaitStatus::Signaled(_, signal, _) = status {
            // A SEND whose RECV went first: the kernel ends it with SIGKILL, so that is no news.
            let severity =
                if signal == Signal::SIGKILL { Severity::Debug } else { Severity::Warning };
            let text = format!("SEND, process {pid}, ended ({})", describe(status));
            self.log(severity, &text);
        }
    }

    fn worker_ended(&mut self, id: WorkerId, worker: &Worker, status: WaitStatus) {
        let removed = self.removed.remove(&worker.pid);
        let verdict = verdict(worker, status, removed);
        let text = format!("{}: ended ({})", worker.label(), describe(status));
        let severity = match status {
            WaitStatus::Signaled(..) => Severity::Warning,
            _ if worker.member.is_some() => Severity::Info,
            _ => Severity::Debug,
        };
        self.journal.line(severity, &text);
        self.counters.ended(verdict);
        self.untold.push_back(ToListener::Ended(id, verdict));
        // It may have ended between its last record and the bell.
        self.bell_due |= worker.member.is_some();
    }

    /// Begins the end of the service: everyone is told, and then killed.
    fn end(&mut self, outcome: Result<(), Failure>) {
        if self.stop.is_some() {
            return;
        }
        self.log(Severity::Notice, "stopping");
        self.stop = Some((Instant::now() + GOODBYE, outcome));
        // RECV and SEND tell their clients that they may come back; the listener closes the door.
        let _ = kill(Pid::from_raw(0), Signal::SIGTERM);
    }

    /// Whether the service may end now; when the time is over, whoever is left is killed.
    fn is_over(&mut self) -> bool {
        let late = self.stop.as_ref().is_some_and(|(end, _)| *end <= Instant::now());
        if late {
            let pids: Vec<Pid> = self.workers.iter().map(|(_, w)| w.pid).collect();
            for pid in pids {
                self.remove_process(pid);
            }
        }
        if late {
            self.sweep();
        }
        late || (self.workers.is_empty() && !matches!(self.door, Door::Open { .. }))
    }

    fn remove_process(&mut self, pid: Pid) {
        // Only own children that were not reaped yet are ever killed: the number cannot be somebody
        // else's.
        if self.workers.id_of(pid).is_some() {
            self.removed.insert(pid);
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    // The listener -----------------------------------------------------------------------------

    fn open_door(&mut self) {
        if matches!(self.door, Door::Open { .. }) || self.stop.is_some() {
            return;
        }
        for index in 0..self.plumbing.sockets.len() {
            if let Err(cause) = listener::door::open(&self.plumbing.sockets[index]) {
                let text = format!("the door does not open: {}", cause.desc());
                self.log(Severity::Error, &text);
            }
        }
        match self.fork_listener() {
            Ok(door) => self.door = door,
            Err(cause) => {
                let text = format!("the listener does not start: {}", cause.desc());
                self.log(Severity::Error, &text);
                self.door = Door::Restarting(Instant::now() + self.back_off);
            }
        }
    }

    fn fork_listener(&mut self) -> Result<Door, Errno> {
        let (mine, theirs) = Channel::pair()?;
        self.untold.clear(); // The new listener is told by `clients` who is here.
        let sockets: Vec<i32> = self.plumbing.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let clients = self.workers.iter().map(|(id, w)| (id, w.source, w.member.is_some()));
        let start = listener::Start {
            channel: theirs.raw(),
            report: self.plumbing.report.1.as_raw_fd(),
            null: self.plumbing.null.as_raw_fd(),
            sockets: &sockets,
            launcher: getpid(),
            config: &self.config,
            next: self.next_id,
            clients: clients.collect(),
        };
        let pid = sys::process::fork_role(|| listener::run(start))?;
        Ok(Door::Open { pid, channel: mine, since: Instant::now() })
    }

    fn listener_ended(&mut self, status: WaitStatus) {
        let since = match &self.door {
            Door::Open { since, .. } => *since,
            _ => return,
        };
        // What it accepted before it ended is served.
        self.take_connections();
        let pausing = std::mem::take(&mut self.pausing);
        let reopen = std::mem::take(&mut self.reopen);
        if let WaitStatus::Exited(_, 0) = status {
            self.door = Door::Closed;
            if reopen {
                return self.open_door();
            }
            if self.stop.is_none() {
                self.log(Severity::Notice, "the door is closed; `papayad resume` opens it");
            }
            return;
        }
        if pausing && !reopen {
            self.close_door();
            return;
        }
        if self.renewing.take() == status.pid() {
            self.door = Door::Restarting(Instant::now());
            return self.log(Severity::Info, "the listener is started again with the new limits");
        }
        if since.elapsed() >= SETTLED {
            self.back_off = BACK_OFF.0;
        }
        let text = format!(
            "the listener ended ({}); nobody who is connected is touched; it is started again in {} ms",
            describe(status),
            self.back_off.as_millis()
        );
        self.log(Severity::Error, &text);
        self.door = Door::Restarting(Instant::now() + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    fn restart_listener(&mut self) {
        if matches!(self.door, Door::Restarting(at) if at <= Instant::now()) {
            self.open_door();
        }
    }

    fn hear_listener(&mut self) {
        if !self.take_connections() {
            self.distrust_listener();
        }
    }

    /// Starts workers for what the listener handed over; whether it keeps to the protocol.
    fn take_connections(&mut self) -> bool {
        for _ in 0..ROUND {
            let Door::Open { channel, .. } = &self.door else { return true };
            match channel.receive_fds::<FromListener>() {
                Ok(got) => {
                    let full = self.workers.len() >= self.workers_max();
                    match (got.message, got.fds.into_iter().next()) {
                        (FromListener::Penalty, None) => self.counters.penalties += 1,
                        (FromListener::Start { id }, Some(client))
                            if id >= self.next_id && !full =>
                        {
                            let Some(next) = id.next() else { return false };
                            self.next_id = next;
                            self.start_worker(id, client);
                        }
                        _ => return false,
                    }
                }
                Err(ChannelError::WouldBlock | ChannelError::Closed) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// A listener that says what no listener says is killed, and so started again.
    fn distrust_listener(&mut self) {
        if let Door::Open { pid, .. } = self.door {
            self.log(Severity::Error, "the listener does not keep to the protocol");
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    fn tell_listener(&mut self) {
        while let (Door::Open { channel, .. }, Some(message)) = (&self.door, self.untold.front()) {
            if channel.send(message, &[]).is_err() {
                return;
            }
            self.untold.pop_front();
        }
        if !matches!(self.door, Door::Open { .. }) {
            self.untold.clear();
        }
    }

    // Workers ----------------------------------------------------------------------------------

    fn start_worker(&mut self, id: WorkerId, client: OwnedFd) {
        // A client that is gone already has no address, and needs no worker.
        let Some(source) = listener::peer(&client) else {
            return self.untold.push_back(ToListener::Ended(id, Verdict::Orderly));
        };
        match self.spawn_worker(id, source, &client) {
            Ok(pid) => {
                let since = Instant::now();
                self.workers.insert(id, Worker { pid, source, member: None, judged: None, since });
            }
            Err(problem) => {
                let text = format!("no process for {source}: {problem}");
                self.log(Severity::Error, &text);
                self.untold.push_back(ToListener::Ended(id, Verdict::Orderly));
            }
        }
    }

    /// The listener counts too; this holds even if somebody else speaks in its place.
    fn workers_max(&self) -> usize {
        self.config.limits.clients as usize + self.config.limits.startups.full as usize
    }

    fn spawn_worker(
        &self,
        id: WorkerId,
        source: SocketAddr,
        client: &OwnedFd,
    ) -> Result<Pid, ChannelError> {
        let (theirs, keepers) = Channel::pair()?;
        keepers.send(&ToRecv::Settings(Box::new(self.settings(id, source))), &[])?;
        self.keeper.channel.send(&ToKeeper::Worker { id, source }, &[keepers.as_fd()])?;
        let title = format!("{}- {source}", recv::ARGUMENT);
        let argument = |text: String| CString::new(text).map_err(|_| Errno::EINVAL);
        let arguments = [argument(title)?, argument(" ".repeat(TITLE_ROOM))?];
        let table = [
            client.as_raw_fd(),
            theirs.raw(),
            self.plumbing.report.1.as_raw_fd(),
            self.plumbing.bell.1.as_raw_fd(),
        ];
        Ok(sys::process::spawn(&self.plumbing.program, &arguments, &table)?)
    }

    fn settings(&self, id: WorkerId, source: SocketAddr) -> Settings {
        let Config { room, limits, log, sandbox, .. } = &self.config;
        Settings {
            id,
            source,
            launcher: getpid().as_raw(),
            room: room.name.clone(),
            motd: room.motd.clone(),
            message_bytes: limits.message_bytes,
            rate: limits.rate.messages,
            rate_per: limits.rate.per,
            burst: limits.burst,
            grace: limits.grace,
            durability: log.durability,
            require: sandbox.require,
        }
    }

    // The keeper -------------------------------------------------------------------------------

    fn hear_keeper(&mut self) {
        for _ in 0..ROUND {
            match self.keeper.channel.receive::<FromKeeper>() {
                Ok(message) => self.keeper_says(message),
                Err(ChannelError::WouldBlock) => return,
                Err(_) => {
                    // It is reaped in a moment; until then its channel would wake us for ever.
                    let what = "the keeper is gone; without it nobody can join";
                    return self.end(Err(Failure::new(Exit::Internal, what)));
                }
            }
        }
    }

    fn keeper_says(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Joined { id, name, role, token } => {
                let Some(worker) = self.workers.get_mut(id) else { return };
                worker.member = Some((name, role, token));
                self.counters.joins += 1;
                let text = format!("{}: joined ({role}, token {token})", worker.label());
                self.journal.line(Severity::Info, &text);
                self.untold.push_back(ToListener::Joined(id));
            }
            FromKeeper::Judged { id, verdict } => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.judged = Some(verdict);
                }
            }
            FromKeeper::Remove { id } => {
                if let Some(pid) = self.workers.get(id).map(|w| w.pid) {
                    self.remove_process(pid);
                }
            }
            FromKeeper::Reloaded { outcome: Ok(tokens) } => {
                self.tokens = tokens;
                let text = format!("the tokens were read again: {tokens} can join");
                self.log(Severity::Info, &text);
            }
            FromKeeper::Reloaded { outcome: Err(problem) } => {
                let text = format!("the tokens stay as they were: {problem}");
                self.log(Severity::Error, &text);
            }
            FromKeeper::Ready { .. } | FromKeeper::Failed { .. } => {}
        }
    }

    /// Never waits: the keeper may be waiting for the launcher at that moment. Says whether it
    /// was told.
    fn tell_keeper(&mut self, message: &ToKeeper) -> bool {
        let told = self.keeper.channel.send(message, &[]);
        if let Err(problem) = &told {
            let text = format!("the keeper was not told: {problem}");
            self.log(Severity::Error, &text);
        }
        told.is_ok()
    }

    // Administration ---------------------------------------------------------------------------

    fn take_callers(&mut self) {
        for (place, request) in self.plumbing.control.take() {
            let answer = match request {
                Some(Request::Status) => self.status(),
                Some(Request::Reload) => self.reload(),
                Some(Request::Tokens) => self.reload_tokens(),
                Some(Request::Pause) => self.pause(),
                Some(Request::Resume) => self.resume(),
                Some(Request::Kick(whom)) => self.kick(&whom),
                None => "error: this service does not know that request\n".to_owned(),
            };
            self.plumbing.control.answer(place, answer);
        }
    }

    /// One JSON object a line: the service first, then every client.
    fn status(&self) -> String {
        let door = match self.door {
            Door::Open { .. } => "open",
            Door::Restarting(_) => "restarting",
            Door::Closed => "closed",
        };
        let listener = match self.door {
            Door::Open { pid, .. } => Some(pid.as_raw()),
            _ => None,
        };
        let starting = self.workers.iter().filter(|(_, w)| w.member.is_none());
        let starting: Vec<i32> = starting.map(|(_, w)| w.pid.as_raw()).collect();
        let service = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "room": self.config.room.name,
            "pid": getpid().as_raw(),
            "keeper": self.keeper.pid.as_raw(),
            "listener": listener,
            "rootless": !self.was_root,
            "uptime_seconds": self.began.elapsed().as_secs(),
            "door": door,
            "addresses": self.addresses(),
            "sandbox": self.confined.as_ref().map(Report::to_string),
            "level": self.confined.as_ref().map(|report| report.level),
            "tokens": self.tokens,
            "clients": self.workers.iter().filter(|(_, w)| w.member.is_some()).count(),
            "starting": starting.len(),
            "starting_pids": starting,
            "counters": self.counters,
        });
        let mut text = format!("{service}\n");
        for (_, worker) in self.workers.iter() {
            let Some((name, role, token)) = &worker.member else { continue };
            let client = serde_json::json!({
                "name": name,
                "role": role,
                "token": token,
                "address": worker.source.to_string(),
                "pid": worker.pid.as_raw(),
                "age_seconds": worker.since.elapsed().as_secs(),
            });
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{client}");
        }
        text
    }

    fn pause(&mut self) -> String {
        let channel = match &self.door {
            Door::Open { channel, .. } => channel,
            Door::Restarting(_) => return self.close_door(),
            Door::Closed => return "the door is closed already\n".into(),
        };
        self.reopen = false;
        match channel.send(&ToListener::Close, &[]) {
            // A listener that crashes first is not started again.
            Ok(()) | Err(ChannelError::Closed) => {
                self.pausing = true;
                "the door closes; whoever is connected stays\n".into()
            }
            Err(problem) => format!("error: the listener does not answer: {problem}\n"),
        }
    }

    /// Closes the door while there is no listener to do it.
    fn close_door(&mut self) -> String {
        self.door = Door::Closed;
        for index in 0..self.plumbing.sockets.len() {
            if let Err(cause) = listener::door::close(&self.plumbing.sockets[index]) {
                let text = format!("the door does not close: {}", cause.desc());
                self.log(Severity::Error, &text);
            }
        }
        self.log(Severity::Notice, "the door is closed; `papayad resume` opens it");
        "the door is closed; whoever is connected stays\n".into()
    }

    fn resume(&mut self) -> String {
        if matches!(self.door, Door::Open { .. }) {
            // It may be about to close.
            self.reopen = self.pausing;
            return "the door is open\n".into();
        }
        self.open_door();
        match self.door {
            Door::Open { .. } => {
                self.log(Severity::Notice, "the door is open again");
                "the door is open\n".into()
            }
            _ => "error: the door does not open; see the log\n".into(),
        }
    }

    fn kick(&mut self, whom: &str) -> String {
        let is_meant = |w: &Worker| {
            w.pid.as_raw().to_string() == whom
                || w.member.as_ref().is_some_and(|(name, ..)| name.as_str() == whom)
        };
        let meant: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| is_meant(w)).map(|(id, _)| id).collect();
        for id in &meant {
            if !self.tell_keeper(&ToKeeper::End { id: *id, reason: ByeReason::Kicked }) {
                return "error: the keeper is busy; try again\n".into();
            }
        }
        match meant.len() {
            0 => format!("error: nobody here has the name or process id {whom:?}\n"),
            n => {
                let text = format!("{whom} was kicked ({n} sessions)");
                self.log(Severity::Notice, &text);
                format!("{text}\n")
            }
        }
    }

    /// SIGHUP: tokens, and what of the configuration can change while the service runs.
    fn reload(&mut self) -> String {
        let text = match Config::load(&self.config_path) {
            Ok(new) => self.change(new),
            Err(failure) => format!("the configuration stays as it was: {failure}"),
        };
        self.log(Severity::Notice, &text);
        let keeper = self.reload_tokens();
        format!("{text}\n{keeper}")
    }

    /// Has the keeper read the tokens again; it says itself in the log what came of it.
    fn reload_tokens(&mut self) -> String {
        let limits = &self.config.limits;
        let reload = ToKeeper::Reload { sessions: limits.sessions, grace: limits.grace };
        if self.tell_keeper(&reload) {
            "the tokens are read again\n".into()
        } else {
            "error: the keeper is busy; send the service SIGHUP\n".into()
        }
    }

    fn change(&mut self, new: Config) -> String {
        let fixed = new.needs_restart(&self.config);
        let limits_changed = new.limits != self.config.limits;
        if new.syslog != self.config.syslog {
            self.journal.change(&new.syslog);
        }
        let (listen, identity, paths, sandbox) = (
            self.config.listen.clone(),
            self.config.identity.clone(),
            self.config.paths.clone(),
            self.config.sandbox.clone(),
        );
        let presence = self.config.log.presence;
        let (clients, startups) = (self.config.limits.clients, self.config.limits.startups);
        self.config = Config { listen, identity, paths, sandbox, ..new };
        self.config.log.presence = presence;
        (self.config.limits.clients, self.config.limits.startups) = (clients, startups);
        if limits_changed && let Door::Open { pid, .. } = self.door {
            // The sockets stay open, so connections wait while a listener with the new limits starts.
            let _ = kill(pid, Signal::SIGKILL);
            self.renewing = Some(pid);
        }
        if fixed.is_empty() {
            "the configuration was read again; new clients get it".into()
        } else {
            format!("the configuration was read again, but {} needs a restart", fixed.join(", "))
        }
    }

    // Locks ------------------------------------------------------------------------------------

    fn watch_locks(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        for holder in self.locks.look() {
            // RECV itself, or the RECV whose SEND it is.
            let known = |pid: Pid| self.workers.id_of(pid).is_some().then_some(pid);
            match known(holder).or_else(|| parent_of(holder).and_then(known)) {
                Some(pid) => {
                    let label = self
                        .workers
                        .id_of(pid)
                        .and_then(|id| self.workers.get(id))
                        .map_or(String::new(), Worker::label);
                    let text = format!("{label}: holds the log's lock and lets nobody in; removed");
                    self.journal.line(Severity::Error, &text);
                    self.remove_process(pid);
                }
                None => {
                    let text = format!(
                        "process {holder}, which is not of this service, holds the log's lock; end it"
                    );
                    self.log(Severity::Error, &text);
                }
            }
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("status {code}"),
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => {
            "killed by its filter: it tried a system call that its policy forbids".into()
        }
        WaitStatus::Signaled(_, signal, _) => format!("killed by {}", signal.as_str()),
        other => format!("{other:?}"),
    }
}
