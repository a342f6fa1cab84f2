//! The FreeBSD backend: capability mode, and each descriptor of [`super::policy`] limited to its
//! rights. Called by `confine::enter` only. Type-checked by this project, not run.

use std::io;

use capsicum::FileRights;
use nix::errno::Errno;

use super::policy::{self, Descriptor, Right};
use super::{ConfineError, Context, Level, Report, Role};
use crate::sys::confine_freebsd as sys;

/// See [`super::enter`].
pub(super) fn enter(role: Role, context: &Context<'_>) -> Result<Report, ConfineError> {
    sys::refuse_tracing().map_err(|e| ConfineError::step(role, "refuse tracing", e))?;
    sys::set_no_new_privs().map_err(|e| ConfineError::step(role, "set no_new_privs", e))?;
    super::limit(role, context)?;
    for entry in policy::descriptors(role) {
        limit_range(role, entry)?;
    }
    // The launcher signals the process group, executes RECV and connects to syslog again; capability
    // mode allows none of it. What it gives up is root.
    if role != Role::Launcher {
        capsicum::enter().map_err(|e| ConfineError::step(role, "enter capability mode", e))?;
        if !capsicum::sandboxed() {
            return Err(ConfineError::Misused { role, what: "is not in capability mode" });
        }
    }
    Ok(Report { role, level: Level::Full, landlock: None, memory_sealed: false, calls: 0 })
}

/// See [`super::available`].
pub(super) fn available() -> io::Result<Level> {
    capsicum::get_mode().map(|_| Level::Full)
}

/// What is not open (fewer listening sockets than there may be) has nothing to be limited.
fn limit_range(role: Role, entry: &Descriptor) -> Result<(), ConfineError> {
    let mut rights = FileRights::new();
    for right in entry.rights {
        rights.allow(native(*right));
    }
    for number in entry.first..=entry.last {
        match sys::limit_descriptor(number, &rights) {
            Err(error) if error.raw_os_error() != Some(Errno::EBADF as i32) => {
                return Err(ConfineError::step(role, "limit a descriptor", error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn native(right: Right) -> capsicum::Right {
    match right {
        Right::Read => capsicum::Right::Read,
        Right::Write => capsicum::Right::Write,
        Right::Seek => capsicum::Right::Seek,
        Right::Pread => capsicum::Right::Pread,
        Right::Fsync => capsicum::Right::Fsync,
        Right::Flock => capsicum::Right::Flock,
        Right::Fstat => capsicum::Right::Fstat,
        Right::Event => capsicum::Right::Event,
        Right::Accept => capsicum::Right::Accept,
        Right::Listen => capsicum::Right::Listen,
        Right::Shutdown => capsicum::Right::Shutdown,
        Right::Getsockopt => capsicum::Right::Getsockopt,
        Right::Setsockopt => capsicum::Right::Setsockopt,
        Right::Getpeername => capsicum::Right::Getpeername,
        Right::Fcntl => capsicum::Right::Fcntl,
        Right::Lookup => capsicum::Right::Lookup,
        Right::Create => capsicum::Right::Create,
    }
}
