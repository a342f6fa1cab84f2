//! The first steps that every role takes: its descriptors, its signals, its title.

use std::fmt;
use std::os::fd::{OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::confine::{ConfineError, identity::IdentityError};
use crate::room::log::LogError;
use crate::state::StateError;
use crate::sys::{self, signal};

/// Why a role cannot begin, or cannot go on.
#[derive(Debug)]
pub enum StartError {
    /// It could not be confined.
    Confine(ConfineError),
    /// It could not become the user it must be.
    Identity(IdentityError),
    /// A file of the state directory is not usable.
    State(StateError),
    /// The log is not usable.
    Log(LogError),
    /// The system allows fewer descriptors than the configured limits need.
    TooFewDescriptors {
        /// The hard limit.
        hard: u64,
        /// What is needed.
        needed: u64,
    },
    /// A system call failed.
    System(&'static str, Errno),
    /// The process was not started as this role is.
    Table(&'static str),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confine(e) => e.fmt(f),
            Self::Identity(e) => e.fmt(f),
            Self::State(e) => e.fmt(f),
            Self::Log(e) => e.fmt(f),
            Self::TooFewDescriptors { hard, needed } => write!(
                f,
                "limits.clients and limits.startups need {needed} descriptors, but {hard} are \
                 allowed (RLIMIT_NOFILE); raise the limit (LimitNOFILE=, ulimit -Hn), or lower them"
            ),
            Self::System(action, cause) => write!(f, "{action}: {}", cause.desc()),
            Self::Table(problem) => write!(f, "not started as papayad starts this role: {problem}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfineError> for StartError {
    fn from(e: ConfineError) -> Self {
        Self::Confine(e)
    }
}

impl From<IdentityError> for StartError {
    fn from(e: IdentityError) -> Self {
        Self::Identity(e)
    }
}

impl From<StateError> for StartError {
    fn from(e: StateError) -> Self {
        Self::State(e)
    }
}

impl From<LogError> for StartError {
    fn from(e: LogError) -> Self {
        Self::Log(e)
    }
}

impl From<Errno> for StartError {
    fn from(e: Errno) -> Self {
        Self::System("a system call failed", e)
    }
}

/// Signals that are for the launcher, or for SEND alone: the terminal's and the bell.
const IGNORED: [Signal; 4] = [Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGPIPE];

/// Begins a role in a process that was forked for it: exactly the descriptors of `table`, the
/// role's signals, its title, and its life bound to the launcher's.
pub fn forked(
    title: &str,
    table: &[RawFd],
    noted: &[Signal],
    launcher: Pid,
) -> Result<Vec<OwnedFd>, StartError> {
    sys::fd::install_table(table)?;
    begin(title, noted, &[Signal::SIGCHLD], launcher)?;
    (0..table.len() as RawFd).map(|fd| sys::fd::own(fd).map_err(StartError::from)).collect()
}

/// The same for a process that was re-executed, or forked, with its table in place already.
/// `defaulted`: signals that it may have been left with another action for.
pub fn begin(
    title: &str,
    noted: &[Signal],
    defaulted: &[Signal],
    parent: Pid,
) -> Result<(), StartError> {
    let ignored: Vec<Signal> = IGNORED.into_iter().filter(|s| !noted.contains(s)).collect();
    signal::apply(&signal::Plan { noted, ignored: &ignored, defaulted })?;
    sys::title::set(title);
    sys::process::set_command_name(c"papayad");
    sys::process::die_with_parent(parent)?;
    Ok(())
}
