//! Memory that holds keys, kept out of swap: the keeper calls it for its key buffers. And memory
//! that is not needed any more, given back: there is one of RECV and SEND for each client.

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

/// Gives the kernel back what is free in the heap: compiling a filter needs some hundred kilobytes
/// for a moment. Calls brk(2) and madvise(2).
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: what is free is nobody's; there is one thread, so nothing else is in malloc.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_small_buffer_can_be_locked() {
        let key = Box::new([0u8; 32]);
        assert_eq!(super::lock(&*key), Ok(()));
    }
}
