//! File descriptors as a process's fixed table: putting them where a role expects them, closing
//! everything else, and taking ownership of those that the kernel handed over.

#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::FileStat;

/// Takes ownership of a descriptor that the kernel has just installed in this process
/// (`SCM_RIGHTS`), or that a role's fixed table names.
///
/// Callers own it from then on; nobody else in this process may close it.
pub fn own(raw: RawFd) -> Result<OwnedFd, Errno> {
    if !is_open(raw) {
        return Err(Errno::EBADF);
    }
    // SAFETY: `raw` is open (checked above), and by this function's contract no other value in
    // this process owns it: it was just received, or stands in the table the process was started
    // with, which is read once.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether `raw` is an open descriptor.
pub fn is_open(raw: RawFd) -> bool {
    flags(raw).is_ok()
}

fn flags(raw: RawFd) -> Result<FdFlag, Errno> {
    // SAFETY: fcntl(F_GETFD) only reads; a closed descriptor gives EBADF.
    let bits = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    Errno::result(bits).map(FdFlag::from_bits_truncate)
}

/// What fstat(2) says of an open file.
///
/// The C library implements it by a call that also takes paths, which no worker may have; so this
/// is the kernel's own, whose `struct stat` is the C library's on the 64-bit systems we build for.
pub fn status(fd: &impl AsFd) -> Result<FileStat, Errno> {
    #[cfg(target_os = "linux")]
    {
        let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the descriptor is open as long as it is borrowed, and the pointer is to memory
        // of the size that the kernel fills.
        let done =
            unsafe { libc::syscall(libc::SYS_fstat, fd.as_fd().as_raw_fd(), status.as_mut_ptr()) };
        // SAFETY: zeroed is a valid value already, and the kernel has filled it on success.
        Errno::result(done).map(|_| unsafe { status.assume_init() })
    }
    #[cfg(not(target_os = "linux"))]
    {
        nix::sys::stat::fstat(fd)
    }
}

/// Lets `fd` survive `execve`, or not.
pub fn set_inherited(fd: &OwnedFd, inherited: bool) -> Result<(), Errno> {
    let flags = if inherited { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)
}

/// Moves descriptors so that `wanted[i]` becomes number `i`, without close-on-exec, and closes
/// everything from `wanted.len()` on. For a child process right after `fork`: owners in this
/// address space are void from here on, only the numbers count.
pub fn install_table(wanted: &[RawFd]) -> Result<(), Errno> {
    let above = wanted.iter().copied().max().unwrap_or(0).max(wanted.len() as RawFd) + 1;
    // First out of the way (so that no target is overwritten before it is moved), then in place.
    for (target, &source) in wanted.iter().enumerate() {
        // SAFETY: plain descriptor numbers; dup2 fails cleanly on a closed source.
        Errno::result(unsafe { libc::dup2(source, above + target as RawFd) })?;
    }
    for target in 0..wanted.len() as RawFd {
        // SAFETY: as above; the source was made by the loop before.
        Errno::result(unsafe { libc::dup2(above + target, target) })?;
    }
    close_from(wanted.len() as RawFd)
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: closes descriptors by number; the callers (a fresh child, a fresh RECV, the launcher's
        // first line) own none
        // of them by value.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
        Errno::result(done).map(drop)
    }
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: as above; closefrom(2) cannot fail.
        unsafe { libc::closefrom(first) };
        Ok(())
    }
}
