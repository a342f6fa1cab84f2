//! System calls that are made and do nothing: for trying what a seccomp filter answers to any
//! number with any arguments. Called by `confine::proof` only.
//!
//! Filters stack, and the kernel takes the harshest answer. [`Disarmed::load`] adds one that fails
//! each marked call with an error that no call has; so a filter that would kill still kills, and
//! one that would let the call through gets that error instead of the call.

use std::ffi::c_long;

use nix::errno::Errno;
use seccompiler::{apply_filter, sock_filter};

/// What a call answers that no other filter refuses. The kernel itself never does.
pub const PASSED: Errno = Errno::ENOTNAM;

/// The mark: the content of the sixth register, which no rule of a policy looks at.
const MARK: u64 = 0x6469_7361_726d_6564;

/// Proof that marked calls do nothing in this thread and in what it starts.
#[derive(Debug)]
pub struct Disarmed(());

impl Disarmed {
    /// Loads the filter; it stays for good, sets `no_new_privs`, and touches no unmarked call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn load() -> Result<Self, seccompiler::Error> {
        apply_filter(&filter())?;
        Ok(Self(()))
    }

    /// Makes a call; what comes back is [`PASSED`], or the error that another filter gives, or a
    /// filter kills.
    pub fn call(&self, number: c_long, [a, b, c, d, e]: [u64; 5]) -> Result<i64, Errno> {
        // SAFETY: `self` proves that the kernel runs the filter below on every call of this thread,
        // and that answers a marked call before the kernel looks at any argument.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, MARK) };
        let answer = if result == -1 { Err(Errno::last()) } else { Ok(result) };
        // SAFETY: gettid(2) takes no argument. The sixth register keeps what the last call left
        // there, so without this the next one, whatever it is, would be marked too.
        unsafe { libc::syscall(libc::SYS_gettid, 0_u64, 0_u64, 0_u64, 0_u64, 0_u64, 0_u64) };
        answer
    }

    /// Makes a call by the 32-bit entry, if the kernel has one; without it the process dies of
    /// SIGSEGV.
    #[cfg(target_arch = "x86_64")]
    pub fn call_by_the_32_bit_entry(&self, number: u32) -> Result<i64, Errno> {
        let result: i32;
        // SAFETY: as above: the filter answers every call by this entry, marked or not. The entry
        // keeps all registers but the result's and, in older kernels, r8 to r11.
        unsafe {
            std::arch::asm!(
                "int 0x80",
                inlateout("eax") number => result,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result.into()) }
    }
}

/// Fails marked calls, and all that come by another entry than this processor's own.
fn filter() -> Vec<sock_filter> {
    /// Offsets in `struct seccomp_data` (linux/seccomp.h): the architecture, and the halves of the
    /// sixth argument on little-endian processors, which are the only ones.
    const ARCHITECTURE: u32 = 4;
    const SIXTH_LOW: u32 = 56;
    const SIXTH_HIGH: u32 = 60;
    /// linux/audit.h.
    #[cfg(target_arch = "x86_64")]
    const THIS: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const THIS: u32 = 0xc000_00b7;
    let load = |k| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, k);
    let equal = |k, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, k);
    let answer = |k| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    vec![
        load(ARCHITECTURE),
        equal(THIS, 0, 4),
        load(SIXTH_LOW),
        equal(MARK as u32, 0, 3),
        load(SIXTH_HIGH),
        equal((MARK >> 32) as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | PASSED as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
