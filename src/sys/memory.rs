//! Memory that holds keys: kept out of swap. The keeper calls it for its key buffers.

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

#[cfg(test)]
mod tests {
    #[test]
    fn a_small_buffer_can_be_locked() {
        let key = Box::new([0u8; 32]);
        assert_eq!(super::lock(&*key), Ok(()));
    }
}
