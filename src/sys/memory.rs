//! Memory that holds keys, kept out of swap: the keeper calls it for its key buffers. And memory
//! that is not needed any more, wiped or given back: there is one of RECV and SEND for each client.

use nix::errno::Errno;

/// Keeps the pages on which `value` itself stands in memory until the process ends; what it points
/// to is not included.
///
/// # Errors
/// The system's, most often that the limit of locked memory is reached.
pub fn lock<T>(value: &T) -> Result<(), Errno> {
    // SAFETY: the range is that of a live value; mlock(2) neither reads nor changes its bytes.
    let result = unsafe { libc::mlock(std::ptr::from_ref(value).cast(), size_of::<T>()) };
    Errno::result(result).map(drop)
}

/// Gives the kernel back what deeper calls have left of the stack. What they left of secrets there is
/// gone, too. Calls madvise(2).
pub fn give_back() {
    wipe_below();
    #[cfg(target_os = "linux")]
    give_back_stack();
}

/// Gives the kernel back what is free in the heap: compiling a filter needs some hundred kilobytes for a
/// moment. Calls brk(2) and madvise(2).
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: what is free is nobody's; there is one thread, so nothing else is in malloc.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Wipes 16 KiB of the stack below its caller's frame, where calls that have returned had theirs.
#[inline(never)]
pub fn wipe_below() {
    wipe(&mut [0; 16 << 10]);
}

/// Only of the stack that the kernel made: below another there may be anything.
#[cfg(target_os = "linux")]
#[inline(never)]
fn give_back_stack() {
    use nix::unistd::{SysconfVar, sysconf};

    /// No call that has returned went deeper than this, or what is deeper stays.
    const DEPTH: usize = 64 << 10;
    /// Nearer than this to the stack's top there is nothing but the stack.
    const NEAR: usize = 1 << 20;
    /// Left for madvise(2), which is called from here and has next to nothing on the stack.
    const MARGIN: usize = 512;

    let Ok(Some(page)) = sysconf(SysconfVar::PAGE_SIZE) else { return };
    let (Ok(page), Some(top)) = (usize::try_from(page), super::title::stack_top()) else { return };
    let below = below_the_callers_frame();
    if top.wrapping_sub(below.addr()) > NEAR {
        return;
    }
    let end = (below.addr() - MARGIN) / page * page;
    let first = below.with_addr(end - DEPTH / page * page).cast_mut();
    // SAFETY: `below` is less than 1 MiB below the top of the stack that the kernel made, and the
    // kernel puts no mapping into the 128 MiB below that top (mmap_base; nothing here asks for a
    // place of its own, MAP_FIXED). So the range is of this stack or of nothing, which is ENOMEM. It
    // ends below this function's frame, and there is one thread: nobody's frame is in it.
    let _ = unsafe { libc::madvise(first.cast(), end - first.addr(), libc::MADV_DONTNEED) };
}

/// An address in the frame of a call, and so below all of its caller's frame.
#[cfg(target_os = "linux")]
#[inline(never)]
fn below_the_callers_frame() -> *const u8 {
    let here = 0u8;
    std::hint::black_box(std::ptr::from_ref(&here))
}

/// Wipes bytes that were secret, so that the compiler cannot leave it out: explicit_bzero(3). The
/// crate zeroize does the same byte by byte, which for whole frames takes longer than their cipher.
pub fn wipe(bytes: &mut [u8]) {
    // SAFETY: the range is that of a live slice of plain bytes, which may all be zero.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_wiped_is_gone_and_nothing_else() {
        let mut bytes = *b"public secret";
        super::wipe(&mut bytes[7..]);
        assert_eq!(&bytes, b"public \0\0\0\0\0\0");
        super::wipe(&mut bytes[13..]);
    }

    #[test]
    fn a_small_buffer_can_be_locked() {
        let key = Box::new([0u8; 32]);
        assert_eq!(super::lock(&*key), Ok(()));
    }
}
