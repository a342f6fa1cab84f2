//! Memory that holds keys: kept out of swap. The keeper calls it for its key buffers.

use nix::errno::Errno;

/// Keeps the pages of `bytes` in memory until the process ends; their pages' neighbours too.
///
/// # Errors
/// The system's, most often that the limit of locked memory is reached.
pub fn lock(bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the range is that of a live slice; mlock(2) neither reads nor changes its bytes.
    let result = unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_small_buffer_can_be_locked() {
        let key = vec![0u8; 32];
        assert_eq!(super::lock(&key), Ok(()));
    }
}
