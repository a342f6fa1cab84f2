//! What a process gives up: one interface, one backend per operating system.
//!
//! Each role calls [`enter`] at one visible line of its own file in `daemon`, before it reads the
//! first byte that it did not make itself. What it is confined to stands in [`policy`], one data
//! file a role; [`identity`] takes root away for good; [`attack`] is the list of what must fail.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use serde::{Deserialize, Serialize};

use crate::sys::process::lower_limit;

pub mod attack;
#[cfg(target_os = "linux")]
pub mod filter;
pub mod identity;
pub mod policy;
#[cfg(target_os = "linux")]
pub mod proof;
pub mod violation;

#[cfg(target_os = "freebsd")]
pub use backend::Filter;
#[cfg(target_os = "linux")]
pub use filter::Filter;

#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod backend;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod backend;

/// A process of the daemon, or a stage of one, with a policy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The supervisor, once it has dropped root. Everything but the keeper descends from it and
    /// therefore stays inside its confinement.
    Launcher,
    /// Host key, token hashes, the log's directory.
    Keeper,
    /// Accepts connections and hands them on.
    Listener,
    /// RECV before the token was accepted.
    Recv,
    /// The same process as [`Role::Recv`] once it has the log and has forked SEND.
    RecvJoined,
    /// Sends the log to its client.
    Send,
}

impl Role {
    /// Every role, in the order in which a service starts them.
    pub const ALL: [Self; 6] =
        [Self::Launcher, Self::Keeper, Self::Listener, Self::Recv, Self::RecvJoined, Self::Send];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launcher => "launcher",
            Self::Keeper => "keeper",
            Self::Listener => "listener",
            Self::Recv => "recv",
            Self::RecvJoined => "recv-joined",
            Self::Send => "send",
        })
    }
}

/// The word names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRole;

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a role; write one of")?;
        Role::ALL.into_iter().try_for_each(|role| write!(f, " {role}"))
    }
}

impl std::error::Error for UnknownRole {}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.to_string() == word).ok_or(UnknownRole)
    }
}

/// How much of the confinement is in force; greater is stronger.
///
/// The names below [`Level::Full`] are the words with which an operator accepts less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// seccomp alone: no Landlock in the kernel, or none that can be trusted with a policy.
    #[serde(rename = "seccomp")]
    Seccomp,
    /// Landlock ABI 2 to 5 (Debian 12's kernel 6.1 has 2): truncation, TCP and signals are left to
    /// seccomp, and memory may be made executable if seccomp is passed.
    #[serde(rename = "landlock-2")]
    Landlock2,
    /// Landlock ABI 6 (Debian 13's kernel 6.12): like [`Level::Full`], but refusals are not in the
    /// kernel's audit log.
    #[serde(rename = "landlock-6")]
    Landlock6,
    /// Everything that this build knows how to ask for. On FreeBSD: capability mode.
    #[serde(rename = "full")]
    Full,
}

impl Level {
    /// Every level, the weakest first.
    pub const ALL: [Self; 4] = [Self::Seccomp, Self::Landlock2, Self::Landlock6, Self::Full];

    /// The level's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock2 => "landlock-2",
            Self::Landlock6 => "landlock-6",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word names no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a sandbox level; write \"full\", \"landlock-6\", \"landlock-2\" or \"seccomp\"",
        )
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.name() == word).ok_or(UnknownLevel)
    }
}

/// What a role must be told in order to confine itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The weakest level that the operator accepts; below it [`enter`] fails.
    pub require: Level,
    /// The strongest level to ask for. [`Level::Full`], save to see what weaker ones do.
    pub ceiling: Level,
    /// Keeper: the only directory it may open anything beneath.
    pub state_dir: Option<BorrowedFd<'a>>,
    /// Launcher: the program that it executes for each client.
    pub executable: Option<&'a Path>,
    /// Launcher: files, or directories with all beneath them, that it reads again while it runs
    /// (the configuration's directory, `/proc/locks`). What does not exist is left out.
    pub readable: &'a [&'a Path],
    /// Launcher: a directory that it also lists, with those beneath it (the configuration's, for
    /// its drop-ins).
    pub listable: Option<&'a Path>,
    /// Launcher: UNIX sockets that it connects to again while it runs (`/dev/log`, the service
    /// manager's). Only kernels with Landlock ABI 9 can tell them from others.
    pub sockets: &'a [&'a Path],
    /// Highest number of descriptors, for the roles whose number depends on the configuration
    /// (keeper, launcher); the others have a fixed table.
    pub descriptors: Option<u64>,
    /// What the process has open besides its fixed table, with the rights that it keeps (FreeBSD):
    /// all else it can close, and nothing more.
    pub held: &'a [(BorrowedFd<'a>, &'static [policy::Right])],
    /// RECV after the token: what the same process reached before it.
    pub earlier: Option<&'a Report>,
}

impl Context<'_> {
    /// A context that requires this level and has nothing else to tell.
    pub const fn new(require: Level) -> Self {
        Self {
            require,
            ceiling: Level::Full,
            state_dir: None,
            executable: None,
            readable: &[],
            listable: None,
            sockets: &[],
            descriptors: None,
            held: &[],
            earlier: None,
        }
    }
}

/// What is in force in this process, as told by the kernel. Its `Display` is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whose.
    pub role: Role,
    /// The level reached: that of the weakest part.
    pub level: Level,
    /// Landlock's ABI that was enforced completely; `None` without Landlock.
    pub landlock: Option<u32>,
    /// Whether the kernel refuses to make memory executable, besides the filter.
    pub memory_sealed: bool,
    /// Number of system calls that the filter lets through at all.
    pub calls: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} confined, level {}", self.role, self.level)?;
        if cfg!(target_os = "freebsd") {
            return write!(f, ": capability mode, limited descriptors");
        }
        write!(f, ": seccomp with {} calls, ", self.calls)?;
        match self.landlock {
            Some(abi) => write!(f, "Landlock ABI {abi}")?,
            None => f.write_str("no Landlock")?,
        }
        f.write_str(if self.memory_sealed { ", memory sealed" } else { ", memory not sealed" })
    }
}

/// Why a process is not confined. It must not go on.
#[derive(Debug)]
pub enum ConfineError {
    /// A step failed.
    Step {
        /// Whose confinement.
        role: Role,
        /// What was attempted, as in "cannot …".
        attempted: &'static str,
        /// What the system or the library said.
        cause: String,
    },
    /// A path that the policy is about cannot be opened.
    Path {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        cause: String,
    },
    /// The kernel offers less than the configuration requires.
    Weaker {
        /// Whose confinement.
        role: Role,
        /// What the configuration requires.
        require: Level,
        /// What could be reached.
        reached: Level,
    },
    /// [`Context`] lacks what this role needs, or the process is not in the state it must be in.
    Misused {
        /// Whose confinement.
        role: Role,
        /// What is wrong.
        what: &'static str,
    },
}

impl ConfineError {
    /// A failed step with the system's reason.
    fn step(role: Role, attempted: &'static str, cause: impl fmt::Display) -> Self {
        Self::Step { role, attempted, cause: cause.to_string() }
    }
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { role, attempted, cause } => {
                write!(f, "{role}: cannot {attempted}: {cause}")
            }
            Self::Path { path, cause } => {
                write!(f, "cannot open {} to confine a process to it: {cause}", path.display())
            }
            Self::Weaker { role, require, reached } => write!(
                f,
                "{role}: this kernel reaches sandbox level \"{reached}\", but \"{require}\" is \
                 required; use a newer kernel, or accept it with sandbox.require = \"{reached}\""
            ),
            Self::Misused { role, what } => write!(f, "{role}: {what}"),
        }
    }
}

impl std::error::Error for ConfineError {}

/// Confines this process to its role's policy; nothing that follows can loosen it.
///
/// The process must have a single thread. Succeeds only when the level that was really reached is
/// at least `context.require`; after an error the process may be half confined and must end.
///
/// # Errors
/// See [`ConfineError`].
pub fn enter(role: Role, context: &Context<'_>) -> Result<Report, ConfineError> {
    enter_with(role, context, compile(role)?)
}

/// The filter that a role's policy is, for [`enter_with`] in another process.
///
/// # Errors
/// A rule cannot be expressed.
pub fn compile(role: Role) -> Result<Filter, ConfineError> {
    backend::compile(role)
}

/// As [`enter`], with the role's filter: for RECV and SEND, in whose program there are no policies.
///
/// # Errors
/// See [`ConfineError`].
pub fn enter_with(
    role: Role,
    context: &Context<'_>,
    filter: Filter,
) -> Result<Report, ConfineError> {
    let report = backend::enter(role, context, filter)?;
    if report.level < context.require {
        return Err(ConfineError::Weaker { role, require: context.require, reached: report.level });
    }
    Ok(report)
}

/// Lowers the limits of this process's resources to its role's.
fn limit(role: Role, context: &Context<'_>) -> Result<(), ConfineError> {
    let limits = policy::limits(role);
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.descriptors.or(context.descriptors)),
        (Resource::RLIMIT_DATA, limits.data_bytes),
        (Resource::RLIMIT_NPROC, (!limits.processes).then_some(0)),
    ];
    for (resource, value) in wanted {
        if let Some(value) = value {
            lower_limit(resource, value)
                .map_err(|e| ConfineError::step(role, "lower its resource limits", e))?;
        }
    }
    Ok(())
}

/// Limits a descriptor that is in no fixed table, before it is handed to another process or when
/// it has come. Only FreeBSD has rights of descriptors; on Linux nothing happens here.
///
/// # Errors
/// The system's; `ENOTCAPABLE` when it has fewer rights already.
pub fn limit_rights(fd: impl AsFd, rights: &[policy::Right]) -> Result<(), Errno> {
    backend::limit_rights(fd.as_fd(), rights)
}

/// The level that [`enter`] would reach on this system, without entering; for `papayad check`.
///
/// # Errors
/// The system's, when it cannot be asked.
pub fn available() -> Result<Level, io::Error> {
    backend::available()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_an_order_and_survive_their_names() {
        assert!(Level::Full > Level::Landlock6);
        assert!(Level::Landlock6 > Level::Landlock2);
        assert!(Level::Landlock2 > Level::Seccomp);
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!("best-effort".parse::<Level>(), Err(UnknownLevel));
    }
}
