//! Launcher: THE ONLY CODE THAT RUNS AS ROOT, from `run` to `drop_root`. Then the supervisor.
//!
//! It validates everything before its first side effect, binds, opens, forks the keeper, gives up
//! root for good, forks the listener, and stays: it starts RECV for each connection that the
//! listener hands over, reaps, writes syslog for everyone, and rings the bell. It reads no byte
//! that a client sent, and holds no key.

mod activation;
mod bell;
pub mod control;
pub(crate) mod counters;
mod flush;
mod journal;
mod kernel_log;
mod locks;
mod manager;
pub mod prepare;
pub mod seal;
mod supervise;
mod violations;
mod workers;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, geteuid, getpid};

use self::journal::Journal;
pub use self::journal::SOCKETS as SYSLOG_SOCKETS;
use self::kernel_log::KernelLog;
use self::manager::Manager;
use self::supervise::Supervisor;
use super::channel::Channel;
use super::channel::keeper_recv::STAGES;
use super::channel::launcher_keeper::FromKeeper;
use super::channel::report::Severity;
use super::{keeper, session};
use crate::config::Config;
use crate::confine::identity::{self, Ids};
use crate::confine::{self, Role};
use crate::exit::{Exit, Failure};
use crate::sys::{self, signal};

/// How long the keeper may take to load its files (a host key has to be made once).
const KEEPER_START: Duration = Duration::from_secs(30);
/// How long it may take to end; it may be at a token's hash.
const KEEPER_END: Duration = Duration::from_millis(500);
/// How long it may take once it was told to end: it may have to flush the log first, to a slow disk.
const KEEPER_FLUSH: Duration = Duration::from_secs(5);

/// Whom the daemon's two kinds of processes run as; `None` without root.
pub struct Users {
    /// Everything but the keeper.
    pub workers: Ids,
    /// The keeper.
    pub keeper: Ids,
}

/// Descriptors that the launcher makes before anything else, for itself and for its children.
struct Plumbing {
    null: OwnedFd,
    program: OwnedFd,
    /// The filters of [`STAGES`], for each RECV.
    filters: [Vec<u8>; STAGES.len()],
    report: (OwnedFd, OwnedFd),
    bell: (OwnedFd, OwnedFd),
    sockets: Vec<OwnedFd>,
    /// Whether the sockets are the service manager's, and only lent.
    lent: bool,
    control: control::Door,
}

/// Runs the service in the foreground until it is told to stop, or, `leashed`, until its standard
/// input ends. `session_is_stdout`: the program for each client is open as standard output.
///
/// # Errors
/// Why it could not start, or why it ended without being told.
pub fn run(
    config: Config,
    config_path: &Path,
    leashed: bool,
    session_is_stdout: bool,
) -> Result<(), Failure> {
    let lent = activation::sockets()?;
    // Whatever else the starter left open, perhaps as root, is no business of this service's.
    let first = 3 + lent.as_ref().map_or(0, Vec::len) as RawFd;
    sys::fd::close_from(first).map_err(prepare::failed("close inherited descriptors"))?;
    let (manager, problem) = Manager::from_environment();
    let users = users(&config)?;
    let (lent, manager) = prepare::own_session(users.as_ref(), (lent, manager))?;
    signal::let_faults_kill().map_err(prepare::failed("set signals up"))?;
    let mut journal = Journal::open(&config.syslog);
    if let Some(problem) = problem {
        journal.line(Severity::Warning, &format!("launcher: {problem}"));
    }
    if !prepare::addresses_are_random() {
        let text = "launcher: this system does not randomise addresses (kernel.randomize_va_space, or \
                    it was switched off for this process): all workers have the same layout";
        journal.line(Severity::Warning, text);
    }
    let (plumbing, keeper) = begin(&config, users.as_ref(), lent, session_is_stdout, &mut journal)?;
    let kernel_log = kernel_log(&mut journal);
    match &users {
        Some(users) => {
            drop_root(&users.workers)?;
            prepare::limit_processes(&config)?;
        }
        None => identity::rootless().map_err(|e| Failure::new(Exit::Internal, e.to_string()))?,
    }
    let config_path = config_path.to_owned();
    let start = Start { config, config_path, leashed, users, kernel_log, manager };
    supervise(start, journal, plumbing, keeper)
}

/// Looks up both users, if this is root; otherwise the service is rootless.
fn users(config: &Config) -> Result<Option<Users>, Failure> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let lookup =
        |user: &str| identity::lookup(user).map_err(|e| Failure::new(Exit::Config, e.to_string()));
    let workers = lookup(&config.identity.user)?;
    let keeper = lookup(&config.identity.keeper_user)?;
    if workers.uid == keeper.uid {
        let what = "identity.user and identity.keeper_user are the same uid; they must differ";
        return Err(Failure::new(Exit::Config, what));
    }
    if workers.gid == keeper.gid {
        let what = "identity.user and identity.keeper_user have the same group, which the state's \
                    files are open to; give each a group of its own (`usermod -g`)";
        return Err(Failure::new(Exit::Config, what));
    }
    Ok(Some(Users { workers, keeper }))
}

/// As root: directories, sockets, pipes, and the keeper, which becomes its own user itself.
fn begin(
    config: &Config,
    users: Option<&Users>,
    lent: Option<Vec<OwnedFd>>,
    session_is_stdout: bool,
    journal: &mut Journal,
) -> Result<(Plumbing, KeeperChild), Failure> {
    let is_lent = lent.is_some();
    // First what can fail because of others: a port that is taken must leave nothing behind.
    let sockets = match lent {
        Some(sockets) => sockets,
        None => prepare::bind(&config.listen.addresses)?,
    };
    let program = if session_is_stdout { session::of_stdout()? } else { session::own()? };
    prepare::directories(config, users)?;
    if let Err(why) = seal::seal(config, users.map(|users| users.keeper)) {
        let text = format!("launcher: room.log is not append-only in the file system: {why}");
        journal.line(Severity::Notice, &text);
    }
    let control = control::Door::open(&config.paths.runtime)?;
    let plumbing = Plumbing {
        null: prepare::null()?,
        program,
        filters: prepare::filters()?,
        report: prepare::pipe()?,
        bell: prepare::pipe()?,
        sockets,
        lent: is_lent,
        control,
    };
    let (mine, theirs) = Channel::pair().map_err(prepare::failed("make a channel"))?;
    let start = keeper::Start {
        channel: theirs.raw(),
        report: plumbing.report.1.as_raw_fd(),
        null: plumbing.null.as_raw_fd(),
        bell: plumbing.bell.1.as_raw_fd(),
        launcher: getpid(),
        ids: users.map(|u| u.keeper),
        config,
    };
    let pid = sys::process::fork_role(|| keeper::run(&start))
        .map_err(prepare::failed("start the keeper"))?;
    Ok((plumbing, KeeperChild { pid, channel: mine }))
}

/// As root, after the keeper was forked, which has no use for it. Optional: without it violations
/// are noticed all the same, but not which call it was.
fn kernel_log(journal: &mut Journal) -> Option<KernelLog> {
    match KernelLog::open() {
        Ok(log) => Some(log),
        Err(cause) => {
            let text = format!(
                "launcher: the kernel's log cannot be opened ({cause}): the system call of a \
                 violation will not be named"
            );
            journal.line(Severity::Debug, &text);
            None
        }
    }
}

/// From here on nothing of this service is root any more.
fn drop_root(ids: &Ids) -> Result<(), Failure> {
    identity::become_forever(ids).map_err(|e| Failure::new(Exit::Internal, e.to_string()))
}

/// How the service was started.
struct Start {
    config: Config,
    config_path: PathBuf,
    leashed: bool,
    /// `None` without root.
    users: Option<Users>,
    kernel_log: Option<KernelLog>,
    manager: Manager,
}

struct KeeperChild {
    pid: Pid,
    channel: Channel,
}

impl KeeperChild {
    /// Ends it, and waits until it is gone: it holds the state directory, and whoever starts the
    /// service again at once must find that free. It belongs to another user, so that only the
    /// channel's end can be its signal.
    fn end(self) {
        let Self { pid, channel } = self;
        drop(channel);
        Self::reap(pid, KEEPER_FLUSH);
    }

    /// How it ended; `None` if it is still there although its channel is closed.
    fn reap(pid: Pid, patience: Duration) -> Option<WaitStatus> {
        let end = Instant::now() + patience;
        loop {
            let ended = sys::process::reap_child(pid);
            if ended.is_some() || Instant::now() >= end {
                return ended;
            }
            let _ = signal::wait(&mut [], Some(Duration::from_millis(5)));
        }
    }
}

/// The rest of the launcher's life, without root.
fn supervise(
    start: Start,
    mut journal: Journal,
    plumbing: Plumbing,
    keeper: KeeperChild,
) -> Result<(), Failure> {
    let ready = match await_keeper(&keeper, &plumbing, &mut journal) {
        Ok(ready) => ready,
        Err(failure) => {
            keeper.end();
            return Err(failure);
        }
    };
    sys::process::become_reaper().map_err(prepare::failed("become the reaper"))?;
    sys::title::set("launcher");
    let mut supervisor = Supervisor::new(start, journal, plumbing, keeper, ready)?;
    let confined = supervisor.confine()?;
    supervisor.start(&confined)?;
    supervisor.serve()
}

/// Confines the launcher: see the policy file for what it keeps, and why.
impl Supervisor {
    fn confine(&self) -> Result<confine::Report, Failure> {
        let readable = self.readable_paths();
        let readable: Vec<&Path> = readable.iter().map(PathBuf::as_path).collect();
        let session = prepare::path_of(self.session());
        let mut context = self.config().sandbox.context();
        context.executable = session.as_deref();
        context.readable = &readable;
        context.listable = self.configuration_directory();
        let sockets: Vec<&Path> = journal::SOCKETS.iter().map(Path::new).collect();
        context.sockets = &sockets;
        confine::enter(Role::Launcher, &context)
            .map_err(|e| Failure::new(Exit::Config, e.to_string()))
    }
}

/// Waits for the keeper to be ready; passes on why it is not.
fn await_keeper(
    keeper: &KeeperChild,
    plumbing: &Plumbing,
    journal: &mut Journal,
) -> Result<FromKeeper, Failure> {
    let end = Instant::now() + KEEPER_START;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(keeper.channel.as_fd(), PollFlags::POLLIN)];
        signal::wait(&mut fds, Some(left)).map_err(prepare::failed("wait for the keeper"))?;
        journal.drain(&plumbing.report.0);
        match keeper.channel.receive::<FromKeeper>() {
            Ok(FromKeeper::Failed { exit, message }) => {
                let exit = match exit {
                    73 => Exit::CannotCreate,
                    78 => Exit::Config,
                    _ => Exit::Internal,
                };
                return Err(Failure::new(exit, format!("keeper: {message}")));
            }
            Ok(ready) => return Ok(ready),
            Err(super::channel::ChannelError::WouldBlock) if !left.is_zero() => {}
            Err(problem) => {
                let message = format!("the keeper did not start: {problem}");
                journal.line(Severity::Error, &message);
                return Err(Failure::new(Exit::Internal, message));
            }
        }
    }
}
