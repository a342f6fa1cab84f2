//! A debugger for tests: stops a live process of a service and has it make a system call of the
//! test's choice, as one would whose code an attacker controls. Needs root; x86_64 only, since
//! other processors keep a call's number where nix does not reach.
//!
//! By ptrace(2): the process runs to the entrance of its own next call, where number and arguments
//! are replaced; its filters are asked after that (seccomp(2)) and see what stands there then.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each test uses its part.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use libc::{c_long, user_regs_struct};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use papayachat::confine::attack::{Attack, Value};

use super::service::PATIENCE;

const PAGE: u64 = 4096;
/// What a leaf function may use below the stack pointer (System V ABI).
const RED_ZONE: u64 = 128;
/// The kernel's size of a set of signals, in bytes.
const SIGNALS: u64 = 8;
/// The length of the instruction `syscall`.
const SYSCALL: u64 = 2;
/// A signal came before the fork, the bell's for example: the kernel would begin it again by itself.
const ERESTARTNOINTR: i64 = -513;
/// So often at most.
const FORKS_MAX: u32 = 100;
/// No call is under way that the kernel might restart.
const NO_CALL: u64 = u64::MAX;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It came back, with a value or with an error number below zero.
    Returned(i64),
    /// The process was killed in it.
    Killed(Signal),
    /// The process ended by itself.
    Exited(i32),
}

/// A process under the test's control, until it is dead or this is dropped: then it goes on with
/// what it was at. Only the thread that seized it can control it (ptrace(2)).
pub struct Tracee {
    pid: Pid,
    memory: File,
    /// Its registers. It stands at the entrance of this call of its own.
    own: user_regs_struct,
}

impl Tracee {
    /// Stops a process at the entrance of its next call.
    pub fn seize(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEFORK).unwrap();
        ptrace::interrupt(pid).unwrap();
        Self::stopped(pid, None)
    }

    /// A seized process that is about to stop, or has; it goes on with these registers.
    fn stopped(pid: Pid, registers: Option<user_regs_struct>) -> Self {
        loop {
            match wait(pid) {
                WaitStatus::PtraceEvent(..) => break,
                // The bell may ring just before it stops.
                WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        if let Some(registers) = registers {
            ptrace::setregs(pid, registers).unwrap();
        }
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        run_to_call_stop(pid).expect("it lives");
        Self { pid, memory: memory.unwrap(), own: ptrace::getregs(pid).unwrap() }
    }

    /// Lets it go on with what it is at, up to the entrance of its next such call.
    pub fn run_to(&mut self, number: c_long) {
        while self.own.orig_rax != number as u64 {
            // The call's exit, and the next one's entrance.
            for _ in 0..2 {
                run_to_call_stop(self.pid).expect("it lives");
            }
            self.own = ptrace::getregs(self.pid).unwrap();
        }
    }

    /// Has it make the call of an attack.
    pub fn attempt(&mut self, attack: &Attack) -> End {
        let scratch = self.scratch();
        let mut free = scratch + PAGE;
        let registers = attack.arguments().each_ref().map(|value| match value {
            Value::Number(number) => *number as u64,
            Value::Scratch => scratch,
            Value::Path(path) => self.lay_down(&mut free, path.to_bytes_with_nul()),
            Value::Bytes(bytes) => self.lay_down(&mut free, bytes),
        });
        self.write(scratch, &[0; PAGE as usize]);
        self.call(attack.number().expect("this processor has the call"), registers)
    }

    /// Has it make a call.
    pub fn call(&mut self, number: c_long, arguments: [u64; 6]) -> End {
        self.try_call(number, arguments).map_or_else(|end| end, |(result, _)| End::Returned(result))
    }

    /// Has it send a message over a socket, with one of its descriptors if it is to.
    pub fn send(&mut self, socket: i32, bytes: &[u8], descriptor: Option<i32>) -> End {
        let place = self.scratch();
        self.write(place, &message(place, bytes, descriptor));
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
        self.call(libc::SYS_sendmsg, [socket as u64, place, flags, 0, 0, 0])
    }

    /// Has it receive one byte, and a descriptor if there is one with it.
    pub fn receive(&mut self, socket: i32) -> End {
        let place = self.scratch();
        self.write(place, &message(place, &[0], Some(0)));
        let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as u64;
        self.call(libc::SYS_recvmsg, [socket as u64, place, flags, 0, 0, 0])
    }

    /// The first argument of the call at whose entrance it stands.
    pub fn first_argument(&self) -> u64 {
        self.own.rdi
    }

    /// Lets it go on until it ends.
    pub fn end(self) -> End {
        loop {
            match run_to_call_stop(self.pid) {
                Ok(_) => {}
                Err(end) => return end,
            }
        }
    }

    /// Has it fork (clone(2) with SIGCHLD alone), if it may. The child is under control, too, and
    /// at the same call.
    pub fn fork(&mut self) -> Result<Self, End> {
        let mut tried = 0;
        loop {
            match self.try_call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0])? {
                (_, Some(child)) => return Ok(child),
                (ERESTARTNOINTR, None) if tried < FORKS_MAX => tried += 1,
                (result, None) => return Err(End::Returned(result)),
            }
        }
    }

    /// Lets it go, to sleep for ever: it minds neither its client nor any signal but SIGKILL.
    pub fn release_to_sleep(self) {
        let all_signals = self.scratch();
        self.write(all_signals, &[0xff; SIGNALS as usize]);
        self.enter(libc::SYS_ppoll, [0, 0, 0, all_signals, SIGNALS, 0]).unwrap();
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Two pages of its stack below all that is in use.
    pub fn scratch(&self) -> u64 {
        (self.own.rsp - RED_ZONE - 2 * PAGE) & !(PAGE - 1)
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, address).unwrap();
    }

    /// Writes something there and says where that was; the next goes behind it.
    fn lay_down(&self, free: &mut u64, bytes: &[u8]) -> u64 {
        let place = *free;
        self.write(place, bytes);
        *free += bytes.len() as u64;
        place
    }

    /// Another call in the place of its own.
    fn enter(&self, number: c_long, [rdi, rsi, rdx, r10, r8, r9]: [u64; 6]) -> Result<(), End> {
        let orig_rax = number as u64;
        let asked = user_regs_struct { orig_rax, rdi, rsi, rdx, r10, r8, r9, ..self.own };
        or_killed(self.pid, ptrace::setregs(self.pid, asked))
    }

    /// Makes a call; what it returned, and the child that it made. Then it stands where it stood.
    fn try_call(
        &mut self,
        number: c_long,
        arguments: [u64; 6],
    ) -> Result<(i64, Option<Self>), End> {
        self.enter(number, arguments)?;
        let child = run_to_call_stop(self.pid)?;
        let result = or_killed(self.pid, ptrace::getregs(self.pid))?.rax as i64;
        let again = at_call(&self.own);
        or_killed(self.pid, ptrace::setregs(self.pid, again))?;
        // Only now does it die, if it must: the kernel passes the call's exit before the signal.
        run_to_call_stop(self.pid)?;
        Ok((result, child.map(|child| Self::stopped(child, Some(again)))))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // It may be dead.
        let _ = ptrace::detach(self.pid, None);
    }
}

/// Lets a process run to a call's entrance or exit, whichever is next. The child that it made.
fn run_to_call_stop(pid: Pid) -> Result<Option<Pid>, End> {
    let (mut child, mut signal) = (None, None);
    loop {
        or_killed(pid, ptrace::syscall(pid, signal.take()))?;
        match wait(pid) {
            WaitStatus::PtraceSyscall(_) => return Ok(child),
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_FORK) => {
                child = Some(Pid::from_raw(ptrace::getevent(pid).unwrap() as i32));
            }
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            WaitStatus::Signaled(_, signal, _) => return Err(End::Killed(signal)),
            WaitStatus::Exited(_, code) => return Err(End::Exited(code)),
            other => panic!("{other:?}"),
        }
    }
}

/// A process that somebody kills leaves its stop, and cannot be asked any more.
fn or_killed<T>(pid: Pid, asked: nix::Result<T>) -> Result<T, End> {
    match asked {
        Err(Errno::ESRCH) => match wait(pid) {
            WaitStatus::Signaled(_, signal, _) => Err(End::Killed(signal)),
            other => panic!("{other:?}"),
        },
        asked => Ok(asked.unwrap()),
    }
}

/// A message and one descriptor at most, as sendmsg(2) and recvmsg(2) want it, to be written at this
/// address.
fn message(at: u64, bytes: &[u8], descriptor: Option<i32>) -> Vec<u8> {
    const PARTS: u64 = 56;
    const CONTROL: u64 = PARTS + 16;
    const BYTES: u64 = CONTROL + 24;
    let room = descriptor.map_or(0, |_| BYTES - CONTROL);
    let control_length = (16 + size_of::<i32>()) as u64;
    // msghdr: no address; the parts; the control messages, with room for padding; no flags.
    let header = [0, 0, at + PARTS, 1, at + CONTROL, room, 0];
    let part = [at + BYTES, bytes.len() as u64];
    let rights = (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64;
    let control = [control_length, rights, descriptor.unwrap_or(0) as u64];
    let words = header.iter().chain(&part).chain(&control);
    words.flat_map(|word| word.to_ne_bytes()).chain(bytes.iter().copied()).collect()
}

/// Before the instruction that makes a call.
fn at_call(entered: &user_regs_struct) -> user_regs_struct {
    let rip = entered.rip - SYSCALL;
    user_regs_struct { rip, rax: entered.orig_rax, orig_rax: NO_CALL, ..*entered }
}

fn wait(pid: Pid) -> WaitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => {}
            status => return status,
        }
        assert!(Instant::now() < end, "process {pid} waits in its call");
        thread::yield_now();
    }
}
