//! The locks of the room: `flock` on the log, and a gate in front of it so that nobody starves.
//!
//! `flock` belongs to the open file description, so every process needs descriptions of its own.
//! A writer passes the gate, locks the log exclusively, and only then opens the gate again. A
//! reader that has much to catch up with does the same with a shared lock; a reader at the end
//! of the log locks without the gate. So while a writer waits for the log it holds the gate, only
//! readers at the end come in, and each of them at most once until the log grows.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::FlockArg;

/// A lock that is held; unlocks when dropped.
pub(super) struct Held<'f>(BorrowedFd<'f>);

/// Waits for the lock on `file`.
///
/// # Errors
/// What flock(2) says, for example `ENOLCK`.
pub(super) fn exclusive<'f>(file: &'f impl AsFd) -> Result<Held<'f>, Errno> {
    lock(file.as_fd(), FlockArg::LockExclusive)
}

/// The exclusive lock on `file`, if nobody has one; does not wait.
///
/// # Errors
/// What flock(2) says, for example `ENOLCK`.
pub(super) fn try_exclusive(file: &impl AsFd) -> Result<Option<Held<'_>>, Errno> {
    match flock(file.as_fd(), FlockArg::LockExclusiveNonblock) {
        Ok(()) => Ok(Some(Held(file.as_fd()))),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Waits for a shared lock on `file`; errors as [`exclusive`].
pub(super) fn shared<'f>(file: &'f impl AsFd) -> Result<Held<'f>, Errno> {
    lock(file.as_fd(), FlockArg::LockShared)
}

fn lock<'f>(file: BorrowedFd<'f>, how: FlockArg) -> Result<Held<'f>, Errno> {
    loop {
        match flock(file, how) {
            Ok(()) => return Ok(Held(file)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Unlocking what is locked cannot fail (flock(2)); and if it did, the lock watch of the
        // launcher would end this process.
        let _ = flock(self.0, FlockArg::Unlock);
    }
}

// nix offers the lock as a wrapper that owns the descriptor; ours are locked again and again.
#[allow(deprecated)]
fn flock(file: BorrowedFd<'_>, how: FlockArg) -> Result<(), Errno> {
    nix::fcntl::flock(file.as_raw_fd(), how)
}
