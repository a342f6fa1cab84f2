//! Launcher, as root: makes `room.log` append-only in the file system, for everyone and root too.
//!
//! `papayad log seal` and `unseal` do the same by hand. The directory belongs to the keeper's user,
//! so nothing in it is trusted: no link is followed, and only a plain file of the keeper's, with no
//! other name, is touched. Nothing is read or written.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, geteuid};

use crate::config::Config;
use crate::confine::identity::{self, Ids};
use crate::room::log::LOG;
use crate::sys::{self, append_only};

/// Why the flag is not as it was asked to be.
#[derive(Debug, PartialEq, Eq)]
pub enum SealError {
    /// Only root can.
    NotRoot,
    /// The file system has no such flag.
    Unsupported,
    /// This process is root, but was not given the right to (`CAP_LINUX_IMMUTABLE`).
    NotPermitted,
    /// What is there is not a plain file of the keeper's with a single name.
    Suspicious(String),
    /// A call failed.
    Call(&'static str, Errno),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => f.write_str("only root can set that"),
            Self::Unsupported => f.write_str("the file system has no such flag"),
            Self::NotPermitted => {
                f.write_str("root may not set it here; CAP_LINUX_IMMUTABLE is needed at the start")
            }
            Self::Suspicious(what) => f.write_str(what),
            Self::Call(what, errno) => write!(f, "cannot {what}: {}", errno.desc()),
        }
    }
}

impl std::error::Error for SealError {}

/// Makes sure that the log exists and can only grow. `keeper` is `None` without root.
///
/// # Errors
/// See [`SealError`]; the service runs without it.
pub fn seal(config: &Config, keeper: Option<Ids>) -> Result<(), SealError> {
    let keeper = keeper.ok_or(SealError::NotRoot)?;
    let log = identity::acting_as(&keeper, || {
        let directory = directory(config)?;
        let log = match open(&directory) {
            Err(SealError::Call(_, Errno::ENOENT)) => create(&directory)?,
            other => other?,
        };
        // A root without the capability to act on others' files, as in systemd/papayad.service,
        // may do it as its owner; on FreeBSD only root itself may.
        if cfg!(target_os = "linux") {
            change(&log, keeper.uid, true)?;
        }
        Ok(log)
    })
    .map_err(|errno| SealError::Call("act as the keeper", errno))??;
    if cfg!(target_os = "linux") { Ok(()) } else { change(&log, keeper.uid, true) }
}

/// Lets root cut or remove the log again.
///
/// # Errors
/// See [`SealError`].
pub fn unseal(config: &Config, keeper: Uid) -> Result<(), SealError> {
    if !geteuid().is_root() {
        return Err(SealError::NotRoot);
    }
    change(&open(&directory(config)?)?, keeper, false)
}

/// Whether the log can only grow.
///
/// # Errors
/// See [`SealError`].
pub fn is_sealed(config: &Config) -> Result<bool, SealError> {
    append_only::is_set(&open(&directory(config)?)?).map_err(unsupported)
}

/// Lets the log be changed while `job` runs, and not longer, however `job` ends. `keeper` is `None`
/// without root. Only a SIGKILL in that moment leaves it open, until the service starts again.
///
/// # Errors
/// See [`SealError`]; whether `job` has run tells its result.
pub fn lifted(log: &OwnedFd, keeper: Option<Uid>, job: &mut dyn FnMut()) -> Result<(), SealError> {
    if !append_only::is_set(log).is_ok_and(|set| set) {
        if let Some(keeper) = keeper {
            check(log, keeper)?;
        }
        job();
        return Ok(());
    }
    let keeper = keeper.ok_or(SealError::NotRoot)?;
    change(log, keeper, false)?;
    let lifted = Lifted(log);
    job();
    lifted.end()
}

/// An append-only log that is not for a moment.
struct Lifted<'f>(&'f OwnedFd);

impl Lifted<'_> {
    fn end(self) -> Result<(), SealError> {
        append_only::set(self.0, true).map_err(unsupported)
    }
}

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        let _ = append_only::set(self.0, true); // Once more does no harm.
    }
}

fn directory(config: &Config) -> Result<OwnedFd, SealError> {
    let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::open(&config.paths.state, how, Mode::empty())
        .map_err(|errno| SealError::Call("open the state directory", errno))
}

fn open(directory: &impl AsFd) -> Result<OwnedFd, SealError> {
    // O_NONBLOCK: a FIFO in its place must not make us wait.
    let how = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    openat(directory, LOG, how | OFlag::O_NOCTTY, Mode::empty())
        .map_err(|errno| SealError::Call("open it", errno))
}

fn create(directory: &impl AsFd) -> Result<OwnedFd, SealError> {
    let how = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o640);
    let log = openat(directory, LOG, how | OFlag::O_CLOEXEC, mode)
        .map_err(|errno| SealError::Call("create it", errno))?;
    // The umask may have taken bits away.
    nix::sys::stat::fchmod(&log, mode).map_err(|errno| SealError::Call("set its mode", errno))?;
    Ok(log)
}

fn change(log: &OwnedFd, keeper: Uid, append_only: bool) -> Result<(), SealError> {
    check(log, keeper)?;
    append_only::set(log, append_only).map_err(unsupported)
}

/// Nothing but a plain file of the keeper's with a single name is touched.
fn check(log: &OwnedFd, keeper: Uid) -> Result<(), SealError> {
    let found = sys::fd::status(log).map_err(|errno| SealError::Call("look at it", errno))?;
    if found.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(SealError::Suspicious("it is not a regular file".into()));
    }
    if found.st_uid != keeper.as_raw() {
        let text = format!("it belongs to uid {} instead of {keeper}", found.st_uid);
        return Err(SealError::Suspicious(text));
    }
    if found.st_nlink != 1 {
        return Err(SealError::Suspicious(format!("it has {} names", found.st_nlink)));
    }
    Ok(())
}

fn unsupported(errno: Errno) -> SealError {
    match errno {
        Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL => SealError::Unsupported,
        Errno::EPERM => SealError::NotPermitted,
        other => SealError::Call("change its flags", other),
    }
}
