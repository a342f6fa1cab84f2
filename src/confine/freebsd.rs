//! The FreeBSD backend: capability mode, and every descriptor limited to its rights in
//! [`super::policy`]; what no policy knows is left none. Called by `confine` only. Compiled and
//! linked by this project, not run.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use capsicum::FileRights;
use nix::errno::Errno;

use super::policy::{self, Right};
use super::{ConfineError, Context, Level, Report, Role};
use crate::sys::confine_freebsd as sys;

/// Capability mode is the same for all, and has nothing to compile.
#[derive(Debug)]
pub struct Filter;

impl Filter {
    /// A byte: a message has at least one.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        Some(vec![0])
    }

    /// What [`Filter::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes == [0]).then_some(Self)
    }
}

/// See [`super::compile`].
pub(super) fn compile(_: Role) -> Result<Filter, ConfineError> {
    Ok(Filter)
}

/// See [`super::enter`].
pub(super) fn enter(role: Role, context: &Context<'_>, _: Filter) -> Result<Report, ConfineError> {
    // SEND, and RECV after the token, come from a process that is in capability mode, where
    // procctl(2) is out of reach; both of these are inherited.
    if !capsicum::sandboxed() {
        sys::refuse_tracing().map_err(|e| ConfineError::step(role, "refuse tracing", e))?;
        sys::set_no_new_privs().map_err(|e| ConfineError::step(role, "set no_new_privs", e))?;
    }
    super::limit(role, context)?;
    // The launcher signals the process group, executes RECV and connects to syslog again; capability
    // mode allows none of it. What it gives up is root. It limits what it hands on.
    if role != Role::Launcher {
        limit_all(role, context)?;
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

/// See [`super::limit_rights`].
pub(super) fn limit_rights(fd: BorrowedFd<'_>, rights: &[Right]) -> Result<(), Errno> {
    sys::limit_descriptor(fd.as_raw_fd(), &native(rights))
}

/// Limits every number that this process may have open.
fn limit_all(role: Role, context: &Context<'_>) -> Result<(), ConfineError> {
    let end = policy::limits(role).descriptors.or(context.descriptors);
    let end = end.and_then(|end| RawFd::try_from(end).ok());
    let end = end.ok_or(ConfineError::Misused { role, what: "its descriptors have no limit" })?;
    for number in 0..end {
        match sys::limit_descriptor(number, &native(rights_of(role, context, number))) {
            // What is not open has nothing to be limited.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(cause) => return Err(ConfineError::step(role, "limit a descriptor", cause)),
        }
    }
    Ok(())
}

/// By the fixed table, or else by what the role says that it holds besides; otherwise none.
fn rights_of(role: Role, context: &Context<'_>, number: RawFd) -> &'static [Right] {
    let table = policy::descriptors(role).iter();
    let mut listed = table.filter(|e| (e.first..=e.last).contains(&number)).map(|e| e.rights);
    let held = context.held.iter().find(|(fd, _)| fd.as_raw_fd() == number);
    listed.next().or(held.map(|(_, rights)| *rights)).unwrap_or(&[])
}

fn native(list: &[Right]) -> FileRights {
    let mut rights = FileRights::new();
    for right in list {
        rights.allow(name(*right));
    }
    rights
}

const fn name(right: Right) -> capsicum::Right {
    match right {
        Right::Read => capsicum::Right::Read,
        Right::Write => capsicum::Right::Write,
        Right::Seek => capsicum::Right::Seek,
        Right::Pread => capsicum::Right::Pread,
        Right::Fexecve => capsicum::Right::Fexecve,
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
        Right::Getsockname => capsicum::Right::Getsockname,
        Right::Lookup => capsicum::Right::Lookup,
    }
}

/// The bits by which the tests on every system compare rights are this system's: the compiler
/// refuses the build otherwise. A right's word is told by one of its highest bits.
const _: () = {
    let mut place = 0;
    while place < Right::ALL.len() {
        let right = Right::ALL[place];
        let policy::rights::Rights([first, second]) = right.bits();
        let wanted = if first != 0 { 1 << 57 | first } else { 1 << 58 | second };
        assert!(name(right) as u64 == wanted, "a right has other bits here");
        place += 1;
    }
};
