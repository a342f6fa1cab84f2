//! FreeBSD calls of the confinement that no crate wraps. Called by `confine` only.

use std::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};

use capsicum::{CapRights, FcntlRights, FileRights, IoctlsBuilder};
use nix::errno::Errno;

fn procctl(command: c_int, value: &mut c_int) -> Result<(), Errno> {
    let data: *mut c_void = std::ptr::from_mut(value).cast();
    // SAFETY: id 0 with P_PID is the caller itself; both commands used here take a pointer to one
    // int, which lives for the call and may be written.
    let result = unsafe { libc::procctl(libc::P_PID, 0, command, data) };
    Errno::result(result).map(drop)
}

/// No program that this process or its children execute gets more privileges.
///
/// # Errors
/// The system's.
pub fn set_no_new_privs() -> Result<(), Errno> {
    procctl(libc::PROC_NO_NEW_PRIVS_CTL, &mut { libc::PROC_NO_NEW_PRIVS_ENABLE })
}

/// Whether [`set_no_new_privs`] is in force.
///
/// # Errors
/// The system's.
pub fn no_new_privs() -> Result<bool, Errno> {
    let mut status: c_int = 0;
    procctl(libc::PROC_NO_NEW_PRIVS_STATUS, &mut status)?;
    Ok(status == libc::PROC_NO_NEW_PRIVS_ENABLE)
}

/// No debugger attaches to this process and no core of it is written.
///
/// # Errors
/// The system's.
pub fn refuse_tracing() -> Result<(), Errno> {
    procctl(libc::PROC_TRACE_CTL, &mut { libc::PROC_TRACE_CTL_DISABLE })
}

/// Limits a descriptor of this process to these rights, and to no command of fcntl(2) that can be
/// limited, nor of ioctl(2). Whether it is open the kernel says.
///
/// # Errors
/// `EBADF` when the number is not open, `ENOTCAPABLE` when it has fewer rights already.
pub fn limit_descriptor(number: RawFd, rights: &FileRights) -> Result<(), Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the number is not negative, and the borrow ends with this function, which neither
    // keeps nor closes the descriptor; were it not open, the kernel answers EBADF.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let limited = FcntlRights::new()
        .limit(&descriptor)
        .and_then(|()| IoctlsBuilder::new().finalize().limit(&descriptor))
        .and_then(|()| rights.limit(&descriptor));
    limited.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}
