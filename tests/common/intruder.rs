//! Makes a live process try one system call of somebody else's choice, as code that an attacker had
//! brought into it would. Needs root: the service's processes cannot be traced by their own user.
#![allow(clippy::unwrap_used)]

use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Has a process that waits in the kernel call `number` at once.
pub fn call(pid: Pid, number: i64, arguments: [u64; 3]) {
    ptrace::attach(pid).unwrap();
    let stopped = waitpid(pid, None).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let mut registers = ptrace::getregs(pid).unwrap();
    #[cfg(target_arch = "x86_64")]
    {
        const SYSCALL: i64 = 0x050f;
        registers.rip -= 2;
        let code = ptrace::read(pid, registers.rip as ptrace::AddressType).unwrap();
        assert_eq!(code & 0xffff, SYSCALL, "it was not in a system call");
        registers.rax = number as u64;
        // The interrupted call must not be begun again.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
    }
    #[cfg(target_arch = "aarch64")]
    {
        registers.pc -= 4;
        registers.regs[8] = number as u64;
        registers.regs[..3].copy_from_slice(&arguments);
    }
    ptrace::setregs(pid, registers).unwrap();
    ptrace::detach(pid, None).unwrap();
}
