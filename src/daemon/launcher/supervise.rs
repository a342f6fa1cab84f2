//! The launcher without root: waits, rings, reaps, and ends the service.

mod door;
mod manage;
mod requests;
mod staff;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ffi::CString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getpid};

use super::bell::Bell;
use super::control::Request;
use super::counters::Counters;
use super::flush::Flush;
use super::journal::Journal;
use super::locks::{Holder, Locks, ancestor};
use super::manager::Manager;
use super::prepare::failed;
use super::violations::{Seen, Violations};
use super::workers::{Worker, Workers, verdict};
use super::{KEEPER_END, KeeperChild, Plumbing, Start};
use crate::config::{Config, Sandbox};
use crate::confine::{self, Level, Report, Role, policy::rights};
use crate::daemon::channel::bell;
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
/// within two seconds, or, with a crowd, two seconds after the last group was told.
const GOODBYE: Duration = Duration::from_millis(1500);
/// Clients whose processes are told to end at once. Each frees its filters as it ends, and thousands
/// together keep a kernel's own workers waiting for each other (docs/admin.md, "Many clients").
const GROUP: usize = 64;
/// The next of them are told when those before are gone, or after this time.
const GROUP_PATIENCE: Duration = Duration::from_millis(50);
/// How long those who are killed then may take to be gone: no longer than the kernel takes.
const LAST_KILLS: Duration = Duration::from_millis(300);
/// The pause before a crashed listener is started again, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A listener that lived this long is not one that crashes at once.
const SETTLED: Duration = Duration::from_secs(30);
/// How often the bell's pipe is read at once: that empties a full one.
const BELL_READS: usize = 16;
/// Room for a title that names a client: `papayad: recv NAME [ADDRESS]:PORT`.
const TITLE_ROOM: usize = 112;
/// How long a worker may live on once its channel to the keeper is closed, which is its end …
const ENDING: Duration = Duration::from_secs(1);
/// … and once it was kicked; its client is told first.
const KICKED: Duration = Duration::from_secs(5);
/// Whether a SEND is handed to the launcher when its RECV has ended, and so is reaped by it.
const HANDED_OVER: bool = cfg!(target_os = "linux");
/// Messages taken from one channel before the others have their turn.
const ROUND: usize = 64;
/// Children that are reaped, or killed as strays, before all else has its turn.
const REAPED_MAX: usize = 256;

enum Door {
    Open(Listener),
    /// The listener has ended: when it is started again.
    Restarting(Instant),
    Closed,
}

/// The listener that is running.
struct Listener {
    pid: Pid,
    channel: Channel,
    since: Instant,
    /// It has said that it listens.
    listening: bool,
    /// It was killed in order to start one with new limits.
    renewed: bool,
    then: Then,
}

/// What comes when the listener has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nobody asked it to end: if it crashed, another after a pause.
    Unasked,
    /// It was told to close the door.
    Closed,
    /// It was told to close the door, and the door was opened again before it had: another.
    Reopened,
}

/// The end of the service, once it has begun.
struct Stop {
    /// As long as a crowd is told in groups: the last worker who was told. The others are not yet.
    told: Option<WorkerId>,
    /// When the next group is told, or whoever is left is killed.
    until: Instant,
    outcome: Result<(), Failure>,
}

/// Who has something to say, besides the bell.
struct Heard {
    report: bool,
    keeper: bool,
    listener: bool,
    /// Somebody asks for something, or has had the time for it.
    control: bool,
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
    manager: Manager,
    /// The manager was told that the configuration is read again, and waits for the end of it.
    reloading: bool,
    /// How often the keeper was asked to read the tokens again, and has not answered.
    keeper_owes: u32,
    door: Door,
    back_off: Duration,
    /// The room was open once: the manager and the log know.
    announced: bool,
    workers: Workers,
    /// Workers that the launcher killed itself, because they had to go.
    removed: HashSet<Pid>,
    /// Workers that are to be gone by then.
    doomed: BTreeSet<(Instant, WorkerId)>,
    next_id: WorkerId,
    /// What the listener could not be told yet; bounded, as no worker is started for one that lets
    /// it grow.
    untold: VecDeque<ToListener>,
    locks: Locks,
    bell: Bell,
    flush: Flush,
    /// More children may be there to reap.
    reap_due: bool,
    tokens: u32,
    /// What is in force in the launcher; `None` before it is.
    confined: Option<Report>,
    counters: Counters,
    violations: Violations,
    /// Since when the log has not been append-only, by root's own hand.
    unsealed_since: Option<Timestamp>,
    began: Instant,
    /// Once the service has to end.
    stop: Option<Stop>,
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
        let Start { config, config_path, leashed, users, kernel_log, manager } = start;
        let leash = if leashed { sys::fd::own(0).ok() } else { None };
        let flush = Flush::new(config.log.durability);
        let mut supervisor = Self {
            config,
            config_path,
            was_root: users.is_some(),
            leash,
            journal,
            plumbing,
            keeper,
            manager,
            reloading: false,
            keeper_owes: 0,
            door: Door::Closed,
            back_off: BACK_OFF.0,
            announced: false,
            workers: Workers::default(),
            removed: HashSet::new(),
            doomed: BTreeSet::new(),
            next_id: WorkerId(1),
            untold: VecDeque::new(),
            locks: Locks::open(files),
            bell: Bell::new(Instant::now()),
            flush,
            reap_due: false,
            tokens,
            confined: None,
            counters: Counters::default(),
            violations: Violations::new(kernel_log),
            unsealed_since: None,
            began: Instant::now(),
            stop: None,
        };
        if new_key {
            supervisor.log(Severity::Notice, "a new host key was made");
        }
        supervisor.log(Severity::Info, &confined);
        Ok(supervisor)
    }

    /// The program that it executes for each client.
    pub fn session(&self) -> &OwnedFd {
        &self.plumbing.program
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the configuration and its drop-ins are.
    pub fn configuration_directory(&self) -> Option<&Path> {
        self.config_path.parent()
    }

    /// What the launcher opens again while it runs: the configuration, and processes' parents.
    pub fn readable_paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = vec![self.config_path.clone()];
        // The directory, because editors replace the file.
        paths.extend(self.configuration_directory().map(PathBuf::from));
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
        if confined.level < Level::Full {
            let Sandbox { require, ceiling } = self.config.sandbox;
            let why = if confined.level < ceiling {
                "this kernel reaches no more".to_owned()
            } else {
                format!("sandbox.ceiling = \"{ceiling}\" asks for no more")
            };
            let text = format!(
                "the sandbox level is \"{}\", weaker than \"{}\": {why}, and sandbox.require = \"{require}\" accepts it",
                confined.level,
                Level::Full,
            );
            self.log(Severity::Warning, &text);
        }
        if !self.was_root {
            self.log(
                Severity::Notice,
                "started without root: all processes run as this user, and only the confinement keeps them apart",
            );
        }
        if !self.locks.works() {
            self.log(Severity::Notice, "this system does not tell who holds a lock");
        }
        if self.plumbing.lent {
            let text = "the sockets are the service manager's; listen.addresses is not used";
            self.log(Severity::Notice, text);
        }
        self.open_door();
        Ok(())
    }

    /// The listener listens: the room is open, and whoever waits for that is told.
    fn door_is_open(&mut self) {
        if let Door::Open(listener) = &mut self.door {
            listener.listening = true;
        }
        self.manager.status_changed();
        if self.stop.is_some() || std::mem::replace(&mut self.announced, true) {
            return;
        }
        let addresses: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let text = format!(
            "papayad {} serves room {:?} on {} with {} tokens",
            env!("CARGO_PKG_VERSION"),
            self.config.room.name,
            addresses.join(", "),
            self.tokens
        );
        self.log(Severity::Notice, &text);
        let status = self.summary();
        self.manager.ready(&status);
    }

    /// The addresses as bound: a configured port 0 became a real one.
    fn addresses(&self) -> Vec<SocketAddr> {
        self.plumbing.sockets.iter().filter_map(listener::door::bound).collect()
    }

    /// Serves until the service has to end.
    pub fn serve(mut self) -> Result<(), Failure> {
        loop {
            let heard = self.wait()?;
            self.take_signals();
            self.mind_leash();
            self.ring();
            self.mind_disk();
            if heard.report {
                self.journal.drain(&self.plumbing.report.0);
            }
            if heard.keeper {
                self.hear_keeper();
            }
            if heard.listener {
                self.hear_listener();
            }
            self.tell_listener();
            if heard.control {
                self.take_callers();
            }
            self.restart_listener();
            self.watch_locks();
            self.kill_doomed();
            self.tell_violations();
            self.mind_manager();
            if self.stop.is_some() && self.is_over() {
                break;
            }
        }
        self.journal.drain(&self.plumbing.report.0);
        for line in self.violations.untold() {
            self.journal.line(Severity::Warning, &line);
        }
        if self.flush.is_owed() {
            // It does this before it sees that its channel is closed.
            let _ = self.keeper.channel.send(&ToKeeper::Flush, &[]);
        }
        let outcome = self.stop.take().map_or(Ok(()), |stop| stop.outcome);
        match &outcome {
            Ok(()) => self.log(Severity::Notice, "stopped"),
            Err(failure) => self.log(Severity::Error, &failure.message),
        }
        if self.plumbing.lent {
            // The manager waits for connections on them again, and gives up one that is shut.
            for socket in &self.plumbing.sockets {
                let _ = listener::door::open(socket);
            }
        }
        self.keeper.end();
        outcome
    }

    /// Sleeps until there is something to do; says who has something to say.
    fn wait(&self) -> Result<Heard, Failure> {
        let now = Instant::now();
        let restart = if let Door::Restarting(at) = self.door { Some(at) } else { None };
        let locks = if self.workers.is_empty() { None } else { self.locks.next_due() };
        // Once that is over, what is left to wait for is the end of those who were killed.
        let stop = self.stop.as_ref();
        let stop = stop.map(|s| if s.until > now { s.until } else { s.until + LAST_KILLS });
        let bell = self.bell.due(now);
        let flush = self.flush.next_due();
        let violations = self.violations.next_due();
        let (control, manager) = (self.plumbing.control.next_due(), self.manager.next_due());
        let doomed = self.doomed.first().map(|(end, _)| *end);
        let reap = self.reap_due.then_some(now);
        let journal = self.journal.next_due();
        let due = [
            restart, locks, stop, bell, flush, violations, control, manager, doomed, reap, journal,
        ];
        let due = due.into_iter().flatten().min();
        let limit = due.map(|due| due.saturating_duration_since(now));
        let read = PollFlags::POLLIN;
        let mut fds = vec![
            PollFd::new(
                self.plumbing.bell.0.as_fd(),
                if self.bell.is_awake(now) { read } else { PollFlags::empty() },
            ),
            PollFd::new(self.plumbing.report.0.as_fd(), read),
        ];
        let keeper_at = fds.len();
        if self.stop.is_none() {
            fds.push(PollFd::new(self.keeper.channel.as_fd(), read));
        }
        let listener_at = fds.len();
        if let Door::Open(Listener { channel, .. }) = &self.door {
            let room = if self.untold.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            fds.push(PollFd::new(channel.as_fd(), read | room));
        }
        let others_at = fds.len();
        fds.extend(self.violations.watch().map(|log| PollFd::new(log, read)));
        fds.extend(self.leash.iter().map(|leash| PollFd::new(leash.as_fd(), read)));
        let control_at = fds.len();
        fds.extend(self.plumbing.control.watch());
        signal::wait(&mut fds, limit).map_err(failed("wait"))?;
        let any = |range: std::ops::Range<usize>| fds[range].iter().any(signal::ready);
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        Ok(Heard {
            report: any(1..keeper_at) || is_due(journal),
            // While the service ends its channel is not waited for, since that may be closed.
            keeper: any(keeper_at..listener_at) || self.stop.is_some(),
            listener: any(listener_at..others_at),
            control: any(control_at..fds.len()) || is_due(control),
        })
    }

    fn log(&mut self, severity: Severity, text: &str) {
        self.journal.line(severity, &format!("launcher: {text}"));
    }

    /// One ring for all that was written since the last one: only SENDs listen. When, says [`Bell`].
    fn ring(&mut self) {
        let now = Instant::now();
        if !self.bell.is_awake(now) {
            return;
        }
        let mut buffer = [0u8; 4096];
        // As much as a pipe can hold, and not what is written meanwhile.
        for _ in 0..BELL_READS {
            let Ok(length) = nix::unistd::read(&self.plumbing.bell.0, &mut buffer) else { break };
            self.bell.pulled(length);
            self.flush.stored(now);
            let messages = buffer[..length].iter().filter(|byte| **byte == bell::MESSAGE).count();
            self.counters.messages += messages as u64;
            if length < buffer.len() {
                break;
            }
        }
        if self.bell.ring(now, self.workers.len()) {
            // Process 0 is this process group. The keeper, of another user, is left out.
            let _ = kill(Pid::from_raw(0), Signal::SIGUSR1);
        }
    }

    /// Has the keeper flush the log when that is due.
    fn mind_disk(&mut self) {
        let now = Instant::now();
        if self.flush.begin(now) && self.keeper.channel.send(&ToKeeper::Flush, &[]).is_err() {
            self.flush.put_off(now);
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

    fn take_signals(&mut self) {
        if signal::take(Signal::SIGTERM) || signal::take(Signal::SIGINT) {
            self.end(Ok(()));
        }
        if signal::take(Signal::SIGHUP) {
            self.reload();
        }
        if signal::take(Signal::SIGCHLD) || self.reap_due {
            self.reap();
        }
    }

    fn reap(&mut self) {
        let mut reaped = 0;
        while reaped < REAPED_MAX
            && let Some(status) = sys::process::reap()
        {
            self.reaped(status);
            reaped += 1;
        }
        self.reap_due = reaped == REAPED_MAX;
        // Not while a crowd ends: what is left behind then is swept at the end, and to look for it among
        // thousands takes longer than they take to end.
        let crowd_ends = self.stop.as_ref().is_some_and(|stop| stop.told.is_some());
        if reaped > 0 && !crowd_ends {
            self.sweep();
        }
    }

    /// Ends processes that this one was handed when their parent ended: a SEND whose RECV is gone,
    /// or what an attacker made of one. They are own children, not reaped yet, so their numbers
    /// cannot be somebody else's. How many there were.
    fn sweep(&self) -> usize {
        let listener = self.door.listener().map(|listener| listener.pid);
        let mut unknown = 0;
        for pid in sys::process::children() {
            let known = pid == self.keeper.pid
                || Some(pid) == listener
                || self.workers.id_of(pid).is_some();
            if !known {
                unknown += 1;
                if unknown > REAPED_MAX {
                    // Those before it are reaped first, and then it is looked again.
                    break;
                }
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        unknown
    }

    fn reaped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let violated = matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
        self.manager.status_changed();
        if pid == self.keeper.pid {
            if violated {
                self.note_violation(Role::Keeper, Some(pid), None);
            }
            self.keeper_ended(&describe(status));
        } else if self.door.listener().is_some_and(|listener| listener.pid == pid) {
            if violated {
                self.note_violation(Role::Listener, Some(pid), None);
            }
            self.listener_ended(status);
        } else if let Some(id) = self.workers.reaped(pid) {
            // It may be only now that the keeper's word is read that it has joined.
            self.hear_keeper();
            if let Some(worker) = self.workers.remove(id) {
                self.worker_ended(id, &worker, status);
            }
        } else if violated {
            // No client is named: the kernel does not tell whose it was.
            self.counters.ended(Verdict::Violation);
            self.note_violation(Role::Send, Some(pid), None);
        } else if let WaitStatus::Signaled(_, signal, _) = status {
            // A SEND whose RECV has ended: the kernel ends it with SIGKILL, so that is no news.
            let severity =
                if signal == Signal::SIGKILL { Severity::Debug } else { Severity::Warning };
            if !matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
                self.counters.ended(Verdict::Violation);
            }
            let text = format!("SEND, process {pid}, ended ({})", describe(status));
            self.log(severity, &text);
        }
    }

    fn worker_ended(&mut self, id: WorkerId, worker: &Worker, status: WaitStatus) {
        let removed = self.removed.remove(&worker.pid);
        let verdict = verdict(worker, status, removed);
        let by_its_word = worker.member.is_some()
            && matches!(status, WaitStatus::Exited(_, code) if code == i32::from(recv::EXIT_SEND_KILLED));
        match (status, worker.member.is_some()) {
            (WaitStatus::Signaled(_, Signal::SIGSYS, _), is_member) => {
                let role = if is_member { Role::RecvJoined } else { Role::Recv };
                self.note_violation(role, Some(worker.pid), Some(worker));
            }
            _ if by_its_word && HANDED_OVER => {
                let text = format!("{}: ended (it says that its SEND was killed)", worker.label());
                self.journal.line(Severity::Warning, &text);
            }
            _ if by_its_word => self.note_violation(Role::Send, None, Some(worker)),
            (_, is_member) => {
                let severity = match status {
                    WaitStatus::Signaled(..) => Severity::Warning,
                    _ if is_member => Severity::Info,
                    _ => Severity::Debug,
                };
                let text = format!("{}: ended ({})", worker.label(), describe(status));
                self.journal.line(severity, &text);
            }
        }
        // Where a SEND is handed over it was counted, or will be, by the kernel's word.
        if !(by_its_word && HANDED_OVER && worker.judged.is_none()) {
            self.counters.ended(verdict);
        }
        self.untold.push_back(ToListener::Ended(id, verdict));
        // It may have ended between its last record and the bell.
        if worker.member.is_some() {
            self.bell.pulled(1);
            self.flush.stored(Instant::now());
        }
    }

    /// It is logged once the kernel has told which call it was.
    fn note_violation(&mut self, role: Role, pid: Option<Pid>, worker: Option<&Worker>) {
        let name = worker.and_then(|w| w.member.as_ref()).map(|(name, ..)| name.to_string());
        let label = match (worker, pid) {
            (Some(worker), _) => worker.label(),
            (None, Some(pid)) if role == Role::Send => format!("a SEND or a stray, process {pid}"),
            (None, _) => role.to_string(),
        };
        let seen = Seen {
            time: Timestamp::now(),
            role,
            name,
            address: worker.map(|w| w.source),
            pid: pid.map(Pid::as_raw),
            call: None,
        };
        self.violations.add(label, seen);
    }

    fn tell_violations(&mut self) {
        for line in self.violations.told() {
            self.journal.line(Severity::Warning, &line);
        }
    }

    /// Begins the end of the service: everyone is told, and then killed.
    fn end(&mut self, outcome: Result<(), Failure>) {
        if self.stop.is_some() {
            return;
        }
        self.log(Severity::Notice, "stopping");
        let why = outcome.as_ref().err().map_or("stopping", |failure| failure.message.as_str());
        self.manager.stopping(why);
        if let Door::Restarting(_) = self.door {
            self.door = Door::Closed;
        }
        let mut stop = Stop { told: None, until: Instant::now(), outcome };
        if self.workers.len() > GROUP {
            let text = format!("{} clients are told in groups of {GROUP}", self.workers.len());
            self.log(Severity::Notice, &text);
            // Nobody yet: numbers begin with 1.
            stop.told = Some(WorkerId(0));
            if let Some(listener) = self.door.listener() {
                let _ = kill(listener.pid, Signal::SIGTERM);
            }
        } else {
            tell_all(&mut stop);
        }
        self.stop = Some(stop);
    }

    /// Tells the next group of a crowd, or all once those who were not told are no more than one.
    fn tell_group(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        let Some(last) = stop.told else { return };
        let now = Instant::now();
        if self.workers.has_up_to(last) && now < stop.until {
            return;
        }
        let Some(group) = self.workers.group_behind(last, GROUP) else { return tell_all(stop) };
        for (id, pid) in group {
            // An own child that was not reaped yet: the number cannot be somebody else's.
            let _ = kill(pid, Signal::SIGTERM);
            stop.told = Some(id);
        }
        stop.until = now + GROUP_PATIENCE;
    }

    /// Whether the service may end now; when the time is over, whoever is left is killed. What an
    /// attacker made of a worker is handed over only when that has ended, and must not be left
    /// behind.
    fn is_over(&mut self) -> bool {
        self.tell_group();
        let Some(Stop { told: None, until, .. }) = self.stop else { return false };
        let now = Instant::now();
        let late = until <= now;
        if late {
            let pids: Vec<Pid> = self.workers.iter().map(|(_, w)| w.pid).collect();
            for pid in pids {
                self.remove_process(pid);
            }
        }
        let door_closed = late || self.door.listener().is_none();
        let all_gone = self.sweep() == 0 && self.workers.is_empty() && door_closed;
        all_gone || until + LAST_KILLS <= now
    }

    /// Kills this worker if it is still there after this time.
    fn doom(&mut self, id: WorkerId, patience: Duration) {
        if self.workers.get(id).is_some() {
            self.doomed.insert((Instant::now() + patience, id));
        }
    }

    fn kill_doomed(&mut self) {
        let now = Instant::now();
        while self.doomed.first().is_some_and(|(end, _)| *end <= now)
            && let Some((_, id)) = self.doomed.pop_first()
        {
            if let Some(worker) = self.workers.get(id) {
                let text = format!("{}: did not end by itself, and is killed", worker.label());
                let pid = worker.pid;
                self.journal.line(Severity::Warning, &text);
                self.remove_process(pid);
            }
        }
    }

    fn remove_process(&mut self, pid: Pid) {
        // Only own children that were not reaped yet are ever killed: the number cannot be somebody
        // else's.
        if self.workers.id_of(pid).is_some() {
            self.removed.insert(pid);
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// RECV and SEND tell their clients that they may come back; the listener closes the door.
fn tell_all(stop: &mut Stop) {
    stop.told = None;
    stop.until = Instant::now() + GOODBYE;
    let _ = kill(Pid::from_raw(0), Signal::SIGTERM);
}

/// How a process ended, in words.
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
