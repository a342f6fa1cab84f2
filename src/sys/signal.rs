//! Signals as flags: a handler only notes that its signal came; the role asks when it is ready.
//!
//! All signals a role handles stay blocked except inside [`wait`], which opens the mask and sleeps
//! in one step (ppoll(2)): so no signal falls between the check and the sleep.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeSpec;

/// The signals a role may handle; one flag each.
const HANDLED: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];

/// How many waits in a row may end with a descriptor that is ready before pending signals are let
/// in all the same.
const READY_MAX: u8 = 16;

/// What changes with each signal and each wait.
#[derive(Default)]
struct State {
    came: [AtomicBool; HANDLED.len()],
    /// Waits in a row that ended with a descriptor.
    ready: AtomicU8,
}

/// In the heap, whose pages RECV and SEND have each for itself anyway: among the other statics it would cost
/// each client another page.
static STATE: OnceLock<Box<State>> = OnceLock::new();

fn state() -> &'static State {
    STATE.get_or_init(Box::default)
}

extern "C" fn note(number: libc::c_int) {
    // There since `apply`, before which there is no handler.
    if let Some(state) = STATE.get()
        && let Some(slot) = HANDLED.iter().position(|s| *s as libc::c_int == number)
    {
        state.came[slot].store(true, Ordering::Relaxed);
    }
}

/// What a role does with each signal it names; the rest keep what they had.
pub struct Plan<'a> {
    /// Noted, and blocked outside [`wait`].
    pub noted: &'a [Signal],
    /// Ignored.
    pub ignored: &'a [Signal],
    /// Back to the system's default action.
    pub defaulted: &'a [Signal],
}

/// Puts the plan into effect and forgets what came before. Noted signals are blocked first, so
/// that none takes its old action in between.
pub fn apply(plan: &Plan<'_>) -> Result<(), Errno> {
    let mut blocked = SigSet::empty();
    plan.noted.iter().for_each(|s| blocked.add(*s));
    blocked.thread_set_mask()?;
    state().came.iter().for_each(|flag| flag.store(false, Ordering::Relaxed));
    set(plan.noted, SigHandler::Handler(note))?;
    set(plan.ignored, SigHandler::SigIgn)?;
    set(plan.defaulted, SigHandler::SigDfl)
}

fn set(signals: &[Signal], handler: SigHandler) -> Result<(), Errno> {
    // No SA_RESTART: a blocked flock(2) has to come back and look at the flags.
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for signal in signals {
        // SAFETY: the only handler is `note`, which does nothing but load and store atomics, and so is
        // async-signal-safe.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Gives faults back to the system's default action: the runtime's handler for stack overflows
/// would have to undo itself first, which no filter allows, so that a crash would look like a
/// forbidden call. Inherited by fork; to be called before the confinement. (`papayad-session` has no such
/// handler with glibc; but who started the service may have had these signals ignored.)
pub fn let_faults_kill() -> Result<(), Errno> {
    set(&[Signal::SIGSEGV, Signal::SIGBUS], SigHandler::SigDfl)
}

/// Has a write to a closed pipe be an error of the write, and not the end of the program. Rust's runtime
/// does it where it begins the program.
pub fn let_closed_pipes_fail() -> Result<(), Errno> {
    set(&[Signal::SIGPIPE], SigHandler::SigIgn)
}

/// Whether `signal` came since the last call for it.
pub fn take(signal: Signal) -> bool {
    HANDLED
        .iter()
        .position(|s| *s == signal)
        .is_some_and(|slot| state().came[slot].swap(false, Ordering::Relaxed))
}

/// Whether `signal` came, without taking it.
pub fn pending(signal: Signal) -> bool {
    let slot = HANDLED.iter().position(|s| *s == signal);
    slot.is_some_and(|slot| state().came[slot].load(Ordering::Relaxed))
}

/// Sleeps until a descriptor is ready, a noted signal comes, or `limit` is over. A signal ends the
/// sleep with `Ok`; no descriptor is ready then. While descriptors are ready, a signal may have to
/// wait for a few calls more.
pub fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), Errno> {
    let limit = limit.map(TimeSpec::from_duration);
    let woken = ppoll(fds, limit, Some(SigSet::empty()));
    let before = &state().ready;
    let ready = if matches!(woken, Ok(1..)) { before.load(Ordering::Relaxed) + 1 } else { 0 };
    before.store(ready % READY_MAX, Ordering::Relaxed);
    match woken {
        Ok(_) if ready == READY_MAX => {
            // With a descriptor ready, ppoll(2) returns without delivering pending signals; one
            // that is always ready would keep them out for ever. Without descriptors it does.
            // FreeBSD may look for signals only where it would sleep.
            let moment = Duration::from_nanos(u64::from(cfg!(target_os = "freebsd")));
            let now = Some(TimeSpec::from_duration(moment));
            let _ = ppoll(&mut [], now, Some(SigSet::empty()));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(Errno::EINTR) => {
            // POSIX leaves the answers undefined after an error: nothing is ready.
            fds.iter_mut().for_each(clear);
            Ok(())
        }
        Err(problem) => Err(problem),
    }
}

fn clear(fd: &mut PollFd<'_>) {
    // SAFETY: the descriptor is borrowed only for this statement, from an entry that is alive and
    // borrows it itself for longer.
    let same = unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd())) };
    *fd = PollFd::new(same, fd.events());
}

/// Whether a poll entry has anything to say (readable, writable, hung up, or in error).
pub fn ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|r| !r.is_empty())
}

/// Whether a poll entry says that writing is possible.
pub fn writable(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|r| r.contains(PollFlags::POLLOUT))
}
