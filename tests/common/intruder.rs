//! Makes a live process try one system call of somebody else's choice, as code that an attacker had
//! brought into it would. Needs root: the service's processes cannot be traced by their own user.
#![allow(clippy::unwrap_used)]

use std::thread;

use libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Has a process make the call `number`, in the place of one that it waits in; until it has made it,
/// or is dead of it.
pub fn call(pid: Pid, number: i64, arguments: [u64; 3]) {
    ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD).unwrap();
    let mut registers = loop {
        ptrace::interrupt(pid).unwrap();
        stopped(pid);
        let registers = ptrace::getregs(pid).unwrap();
        if let Some(at_call) = at_call(pid, registers) {
            break at_call;
        }
        // It has something to do yet before it waits again.
        ptrace::cont(pid, None).unwrap();
        thread::yield_now();
    };
    #[cfg(target_arch = "x86_64")]
    {
        registers.rax = number as u64;
        // The interrupted call must not be begun again.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
    }
    #[cfg(target_arch = "aarch64")]
    {
        registers.regs[8] = number as u64;
        registers.regs[..3].copy_from_slice(&arguments);
    }
    ptrace::setregs(pid, registers).unwrap();
    run_through(pid, number);
    // It may be dead.
    let _ = ptrace::detach(pid, None);
}

/// Waits until it has stopped; the bell may ring just before.
fn stopped(pid: Pid) {
    loop {
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceEvent(..) => return,
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// Lets it go on until it has made the call. A signal's handler may come before, with a call of its
/// own.
fn run_through(pid: Pid, number: i64) {
    let (mut entered, mut signal) = (false, None);
    while ptrace::syscall(pid, signal.take()).is_ok() {
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) if entered => return,
            WaitStatus::PtraceSyscall(_) => {
                entered = number_of(&ptrace::getregs(pid).unwrap()) == number as u64;
            }
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            WaitStatus::Signaled(..) => return,
            other => panic!("{other:?}"),
        }
    }
}

/// Before the instruction that makes a call, if it is in one.
#[cfg(target_arch = "x86_64")]
fn at_call(pid: Pid, mut registers: user_regs_struct) -> Option<user_regs_struct> {
    const SYSCALL: i64 = 0x050f;
    registers.rip -= 2;
    let code = ptrace::read(pid, registers.rip as ptrace::AddressType).unwrap();
    (code & 0xffff == SYSCALL).then_some(registers)
}

#[cfg(target_arch = "aarch64")]
fn at_call(pid: Pid, mut registers: user_regs_struct) -> Option<user_regs_struct> {
    const SVC: u32 = 0xd400_0001;
    let is_svc = |at: u64| ptrace::read(pid, at as ptrace::AddressType).unwrap() as u32 == SVC;
    // Where the kernel is to begin a call again, the process stands before it already.
    if !is_svc(registers.pc) {
        registers.pc -= 4;
    }
    is_svc(registers.pc).then_some(registers)
}

#[cfg(target_arch = "x86_64")]
fn number_of(registers: &user_regs_struct) -> u64 {
    registers.orig_rax
}

#[cfg(target_arch = "aarch64")]
fn number_of(registers: &user_regs_struct) -> u64 {
    registers.regs[8]
}
