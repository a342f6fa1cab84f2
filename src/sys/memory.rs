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

/// Has malloc keep buffers of this size and more apart from the heap: fresh from the kernel, they
/// take no memory before they are used. To be called before the first of them is made.
pub fn large_buffers_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes numbers; there is one thread, so nothing else is in malloc.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 10);
    }
}

/// Gives the kernel back what is free in the heap, and what deeper calls have left of the stack:
/// compiling a filter needs some hundred kilobytes for a moment. Calls brk(2) and madvise(2).
pub fn give_back() {
    #[cfg(target_os = "linux")]
    stack::give_back();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: what is free is nobody's; there is one thread, so nothing else is in malloc.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(target_os = "linux")]
mod stack {
    use nix::unistd::{SysconfVar, sysconf};

    /// No call that has returned went deeper than this, or what is deeper stays.
    const DEPTH: usize = 64 << 10;
    /// A kernel has nothing else so close below the stack (stack_guard_gap, 1 MiB).
    const _: () = assert!(DEPTH < 1 << 20);

    /// Wipes the next frames' place, which is too near to be given back.
    #[inline(never)]
    fn wipe_near() {
        super::wipe(&mut [0; 2 * 4096]);
    }

    /// Only on the stack that the kernel made: below another there may be anything.
    #[inline(never)]
    pub fn give_back() {
        wipe_near();
        let here = 0u8;
        let here = std::ptr::from_ref(std::hint::black_box(&here));
        let Ok(Some(page)) = sysconf(SysconfVar::PAGE_SIZE) else { return };
        let (Ok(page), Some(top)) = (usize::try_from(page), crate::sys::title::stack_top()) else {
            return;
        };
        let above = top.wrapping_sub(here.addr());
        if above > 1 << 20 {
            return;
        }
        // A page lies between, for what is called from here; the first whole one below it ends there.
        let end = (here.addr() - page) / page * page;
        let first = here.with_addr(end - DEPTH / page * page).cast_mut();
        // SAFETY: this is the kernel's stack (its top is less than 1 MiB above), which grows down
        // from here, with nothing mapped below it for at least 1 MiB. No frame that is in use lies
        // in the range: it ends a page below this function's. What is not mapped of it is ENOMEM.
        let _ = unsafe { libc::madvise(first.cast(), end - first.addr(), libc::MADV_DONTNEED) };
    }
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
