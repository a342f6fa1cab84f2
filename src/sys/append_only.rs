//! The file system's append-only flag, which holds for root's processes too.
//!
//! Linux: `FS_APPEND_FL` (ioctl_iflags(2)), which wants `CAP_LINUX_IMMUTABLE` to be changed.
//! FreeBSD: `SF_APPEND` (chflags(2)), which only root can set. Called by the launcher before it
//! drops root, and by the administration.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Whether the file can only grow.
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP` and the like: this file system has no such flag.
#[cfg(target_os = "linux")]
pub fn is_set(file: &impl AsFd) -> Result<bool, Errno> {
    get(file).map(|flags| flags & APPEND != 0)
}

/// Sets the flag, or clears it.
///
/// # Errors
/// As [`is_set`]; `EPERM` without the right to.
#[cfg(target_os = "linux")]
pub fn set(file: &impl AsFd, append_only: bool) -> Result<(), Errno> {
    let now = get(file)?;
    let wanted = if append_only { now | APPEND } else { now & !APPEND };
    if wanted == now {
        return Ok(());
    }
    let flags: [libc::c_int; 2] = [wanted, 0];
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel reads one int, or on
    // some file systems one long, from an array that has room for both.
    let done = unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS as _, flags.as_ptr()) };
    Errno::result(done).map(drop)
}

/// `FS_APPEND_FL` of linux/fs.h.
#[cfg(target_os = "linux")]
const APPEND: libc::c_int = 0x20;

#[cfg(target_os = "linux")]
fn get(file: &impl AsFd) -> Result<libc::c_int, Errno> {
    let mut flags: [libc::c_int; 2] = [0; 2];
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes one int, or on
    // some file systems one long, to an array that has room for both.
    let done = unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS as _, flags.as_mut_ptr()) };
    Errno::result(done).map(|_| flags[0])
}

/// Whether the file can only grow.
///
/// # Errors
/// The system's.
#[cfg(target_os = "freebsd")]
pub fn is_set(file: &impl AsFd) -> Result<bool, Errno> {
    get(file).map(|flags| flags & libc::SF_APPEND != 0)
}

/// Sets the flag, or clears it.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no such flag, `EPERM` without the right to.
#[cfg(target_os = "freebsd")]
pub fn set(file: &impl AsFd, append_only: bool) -> Result<(), Errno> {
    let now = get(file)?;
    let wanted = if append_only { now | libc::SF_APPEND } else { now & !libc::SF_APPEND };
    if wanted == now {
        return Ok(());
    }
    // SAFETY: takes numbers only; the descriptor is open as long as it is borrowed.
    Errno::result(unsafe { libc::fchflags(file.as_fd().as_raw_fd(), wanted) }).map(drop)
}

#[cfg(target_os = "freebsd")]
fn get(file: &impl AsFd) -> Result<libc::c_ulong, Errno> {
    super::fd::status(file).map(|status| status.st_flags.into())
}
