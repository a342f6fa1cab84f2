//! Processes: forking a role, re-executing RECV, being told of a parent's death, and reaping.

use std::ffi::{CStr, CString};
#[cfg(target_os = "freebsd")]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
#[cfg(target_os = "linux")]
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks this (single-threaded) process; `role` runs in the child and never returns.
pub fn fork_role(role: impl FnOnce() -> std::convert::Infallible) -> Result<Pid, Errno> {
    // SAFETY: the daemon's processes are single-threaded, so the child is a whole copy in which
    // every lock and allocator is in a consistent state.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => in_child(role),
    }
}

/// All of a forked child's life.
fn in_child(role: impl FnOnce() -> std::convert::Infallible) -> ! {
    // A panic must not unwind into the parent's frames, of which this is a copy.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(role));
    exit_now(101)
}

/// A child of a confined process, which ends when its parent does, and of whose end the parent is
/// told. In FreeBSD's capability mode neither a death signal can be asked for nor a child be waited
/// for; there the parent holds its child's process open, and the kernel kills it when that closes.
#[derive(Debug)]
pub struct BoundChild {
    /// Its process id.
    pub pid: Pid,
    #[cfg(target_os = "freebsd")]
    process: OwnedFd,
}

/// Forks this (single-threaded) process, as [`fork_role`]; the child sees to its death signal. By
/// _Fork(3), which leaves out what fork(3) does for threads and for those who asked to be told of it:
/// nobody here has, and pages that neither of the two writes to stay the same memory.
#[cfg(target_os = "linux")]
pub fn fork_bound(role: impl FnOnce() -> std::convert::Infallible) -> Result<BoundChild, Errno> {
    unsafe extern "C" {
        /// POSIX.1-2024; glibc has it since 2.34, musl since 1.2.2.
        fn _Fork() -> libc::pid_t;
    }
    // SAFETY: as in `fork_role`; there is no other thread that could hold a lock of the C library.
    match Errno::result(unsafe { _Fork() })? {
        0 => in_child(role),
        pid => Ok(BoundChild { pid: Pid::from_raw(pid) }),
    }
}

/// Forks this (single-threaded) process, as [`fork_role`].
#[cfg(target_os = "freebsd")]
pub fn fork_bound(role: impl FnOnce() -> std::convert::Infallible) -> Result<BoundChild, Errno> {
    let mut process: RawFd = -1;
    // SAFETY: as in `fork_role`; the pointer is to an int of this frame.
    match Errno::result(unsafe { libc::pdfork(&raw mut process, libc::PD_CLOEXEC) })? {
        0 => in_child(role),
        pid => Ok(BoundChild { pid: Pid::from_raw(pid), process: super::fd::own(process)? }),
    }
}

impl BoundChild {
    /// The descriptor that this process holds its child by, if it does.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        {
            None
        }
        #[cfg(target_os = "freebsd")]
        {
            Some(self.process.as_fd())
        }
    }

    /// How it ended, `None` as long as it runs; it stays to be reaped by its next parent.
    #[cfg(target_os = "linux")]
    pub fn ended(&self) -> Option<Ended> {
        let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid), how) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(status) => Some(status),
            Err(_) => Some(WaitStatus::Exited(self.pid, 0)),
        }
    }

    /// How it ended; `None` as long as it runs.
    #[cfg(target_os = "freebsd")]
    pub fn ended(&self) -> Option<Ended> {
        use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
        let gone = Some(WaitStatus::Exited(self.pid, 0));
        let Ok(queue) = Kqueue::new() else { return gone };
        let which = self.process.as_raw_fd() as usize;
        let (filter, exit) = (EventFilter::EVFILT_PROCDESC, FilterFlag::NOTE_EXIT);
        let watch = KEvent::new(which, filter, EvFlags::EV_ADD, exit, 0, 0);
        let mut told = [watch];
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        match queue.kevent(&[watch], &mut told, Some(at_once)) {
            Ok(0) => None,
            // As wait(2) tells it.
            Ok(_) => WaitStatus::from_raw(self.pid, told[0].data() as i32).ok().or(gone),
            Err(_) => gone,
        }
    }
}

/// Forks this (single-threaded) process; both go on from here. The child, or `None` in it.
pub fn fork_here() -> Result<Option<Pid>, Errno> {
    // SAFETY: as in `fork_role`.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// All of a re-executed process's environment: its malloc has no cache of freed pieces (tcache),
/// some kilobytes for each worker; it does not try to give back the heap's end, which takes a call for each
/// large piece that is freed and finds nothing (the threshold is a gigabyte); and its C library registers no
/// restartable sequences, at which the kernel would look after each signal and each change of
/// context, and which nothing here uses. None has another name (glibc manual, "Tunables").
pub const ENVIRONMENT: &[&CStr] = if cfg!(all(target_os = "linux", target_env = "gnu")) {
    &[c"GLIBC_TUNABLES=glibc.malloc.tcache_count=0:\
        glibc.malloc.trim_threshold=1073741824:glibc.pthread.rseq=0"]
} else {
    &[]
};

/// Starts `program` (an open executable) in a child that holds `table[i]` as descriptor `i` and
/// nothing else, with `arguments` and [`ENVIRONMENT`].
///
/// The child shares nothing with this process but what the table names: a new program image with
/// an address-space layout of its own.
pub fn spawn(program: &OwnedFd, arguments: &[CString], table: &[RawFd]) -> Result<Pid, Errno> {
    fork_role(|| {
        // The program's descriptor goes last in the table; fexecve needs it, and its close-on-exec
        // flag has to be set again because dup2 clears it.
        let mut wanted = table.to_vec();
        wanted.push(program.as_raw_fd());
        let _ =
            super::fd::install_table(&wanted).and_then(|()| exec(table.len() as RawFd, arguments));
        exit_now(70)
    })
}

fn exec(program: RawFd, arguments: &[CString]) -> Result<(), Errno> {
    let program = super::fd::own(program)?;
    super::fd::set_inherited(&program, false)?;
    nix::unistd::fexecve(&program, arguments, ENVIRONMENT).map(|_| ())
}

/// Ends this process at once, without running destructors: for the child of a fork, whose copies
/// of its parent's values must not be dropped.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) ends the process and touches no memory of it.
    unsafe { libc::_exit(code) }
}

/// Asks the kernel to send this process SIGKILL when its parent dies, and ends it at once if
/// `parent` is no longer its parent. (prctl(2) PR_SET_PDEATHSIG, procctl(2) PROC_PDEATHSIG_CTL.)
pub fn die_with_parent(parent: Pid) -> Result<(), Errno> {
    set_parent_death_signal(Signal::SIGKILL)?;
    if nix::unistd::getppid() != parent {
        exit_now(0);
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(signal)
}

#[cfg(target_os = "freebsd")]
fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    if capsicum::sandboxed() {
        return Ok(()); // A [`BoundChild`], which needs none.
    }
    let mut number = signal as libc::c_int;
    // SAFETY: the pointer is to a live int, as PROC_PDEATHSIG_CTL wants.
    let done = unsafe {
        libc::procctl(libc::P_PID, 0, libc::PROC_PDEATHSIG_CTL, (&raw mut number).cast())
    };
    Errno::result(done).map(drop)
}

/// Makes this process the one that orphaned descendants are handed to, so that it can reap them.
pub fn become_reaper() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_child_subreaper(true)
    }
    #[cfg(target_os = "freebsd")]
    {
        // SAFETY: PROC_REAP_ACQUIRE takes no data.
        let done =
            unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_ACQUIRE, std::ptr::null_mut()) };
        Errno::result(done).map(drop)
    }
}

/// A child that ended, and how.
pub type Ended = WaitStatus;

/// Reaps one ended child, if there is one.
pub fn reap() -> Option<Ended> {
    match wait_without_waiting(Pid::from_raw(-1)) {
        Ok(WaitStatus::StillAlive) | Err(_) => None,
        Ok(status) => Some(status),
    }
}

/// As waitpid(2) with `WNOHANG`. Not nix's: that loses a child which a real-time signal killed, since
/// it has no name for the signal; here such a child ended with 128 and the number, as shells say it.
fn wait_without_waiting(child: Pid) -> Result<Ended, Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a live int.
    let found = unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::WNOHANG) };
    match Errno::result(found)? {
        0 => Ok(WaitStatus::StillAlive),
        pid => {
            let pid = Pid::from_raw(pid);
            let unnamed = WaitStatus::Exited(pid, 128 + libc::WTERMSIG(status));
            Ok(WaitStatus::from_raw(pid, status).unwrap_or(unnamed))
        }
    }
}

/// This process's children, also those that it was handed as the reaper. Empty where the system
/// does not tell.
pub fn children() -> Vec<Pid> {
    let own = std::process::id();
    // proc(5); built into the kernels of the distributions (CONFIG_PROC_CHILDREN).
    let list = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    let list = list.unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Reaps this child if it has ended.
pub fn reap_child(child: Pid) -> Option<Ended> {
    match wait_without_waiting(child) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(status) => Some(status),
        // Not a child any more: there is nothing to wait for.
        Err(_) => Some(WaitStatus::Exited(child, 0)),
    }
}

/// The hard limit of a resource; the largest number for none.
pub fn hard_limit(resource: Resource) -> Result<u64, Errno> {
    let (_, hard) = getrlimit(resource)?;
    #[allow(clippy::useless_conversion)] // FreeBSD's are signed, and never negative.
    Ok(u64::try_from(hard).unwrap_or(u64::MAX))
}

/// Lowers both limits of a resource; never raises them.
pub fn lower_limit(resource: Resource, wanted: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    #[allow(clippy::useless_conversion)] // As above.
    let wanted = libc::rlim_t::try_from(wanted).unwrap_or(hard).min(hard);
    setrlimit(resource, wanted, wanted)
}

/// Names this process for `top` and `pgrep` (`execveat` would leave a descriptor's number there).
pub fn set_command_name(name: &std::ffi::CStr) {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_name(name);
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
