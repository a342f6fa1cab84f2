//! Linux calls of the confinement that no crate wraps: three `prctl` options, one query, and the
//! attacks of [`crate::confine::attack`]. Called by `confine` only.

use std::ffi::{c_int, c_long, c_ulong};

use nix::errno::Errno;

use crate::confine::attack::{Attack, Value};

/// `PR_SET_MDWE` (linux/prctl.h, since 6.3): memory-deny-write-execute.
pub const PR_SET_MDWE: c_int = 65;
/// `PR_GET_MDWE`.
pub const PR_GET_MDWE: c_int = 66;
/// `PR_MDWE_REFUSE_EXEC_GAIN`.
const REFUSE_EXEC_GAIN: c_ulong = 1;
/// `LANDLOCK_CREATE_RULESET_VERSION` (linux/landlock.h).
const RULESET_VERSION: c_ulong = 1;

fn prctl(option: c_int, argument: c_ulong) -> Result<c_int, Errno> {
    const UNUSED: c_ulong = 0;
    // SAFETY: this module passes only options whose argument is a number, never a pointer; none of
    // them changes memory of this process. The kernel demands zeroes for the rest.
    Errno::result(unsafe { libc::prctl(option, argument, UNUSED, UNUSED, UNUSED) })
}

/// Whether the bounding set has this capability; `None` where the kernel knows no such number.
pub fn bounding_set_has(capability: u32) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into()).ok().map(|set| set == 1)
}

/// Takes a capability out of the bounding set, for good.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`, `EINVAL` for a number that the kernel does not know.
pub fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into()).map(drop)
}

/// From now on no memory of this process and its children becomes executable that was not mapped so.
///
/// # Errors
/// `EINVAL` on kernels before 6.3.
pub fn refuse_new_code() -> Result<(), Errno> {
    prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN).map(drop)
}

/// Whether [`refuse_new_code`] is in force.
pub fn refuses_new_code() -> bool {
    prctl(PR_GET_MDWE, 0).is_ok_and(|bits| bits as c_ulong & REFUSE_EXEC_GAIN != 0)
}

/// The kernel's Landlock ABI; 0 where it has none or it is switched off at boot.
pub fn landlock_abi() -> u32 {
    let none: *const u8 = std::ptr::null();
    let size: usize = 0;
    // SAFETY: with this flag the kernel demands a null pointer and size 0 and only returns a number.
    let version: c_long =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, RULESET_VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Makes the system call of an attack; `None` where this processor has no such call.
///
/// Under a filter this does not return. It is meant for a process that exists only to be attacked
/// in: what the call does to it stays done.
pub fn perform(attack: &Attack) -> Option<Result<i64, Errno>> {
    /// A page that calls may read from and write to, with an address for `mprotect`.
    #[repr(align(4096))]
    struct Scratch([u8; 4096]);

    let number = attack.number()?;
    let mut scratch = Box::new(Scratch([0; 4096]));
    let scratch_address = scratch.0.as_mut_ptr() as c_long;
    let register = |value: &Value| match value {
        Value::Number(number) => *number as c_long,
        Value::Path(path) => path.as_ptr() as c_long,
        Value::Bytes(bytes) => bytes.as_ptr() as c_long,
        Value::Scratch => scratch_address,
    };
    let [a, b, c, d, e, f] = attack.arguments().each_ref().map(register);
    // SAFETY: `Attack`s are made only in `confine::attack`, whose rule is that each
    // pointer argument is null, static bytes that the call only reads, or `scratch`, which is
    // owned here, writable, one page long and zeroed, and that no other memory is changed by it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    let answer = if result == -1 { Err(Errno::last()) } else { Ok(result) };
    // The call may have taken the page's protection away: it is never freed or touched again.
    Box::leak(scratch);
    Some(answer)
}
