//! The outer form of everything after the handshake: `length (2 bytes, big-endian) | ciphertext`.
//! Used by whoever reads a socket, to know when a frame is whole; [`super::cipher`] opens it.
//! Pure, and the first code that meets hostile bytes.

use std::fmt;

/// Length in bytes of the authentication tag at the end of each ciphertext.
pub const TAG: usize = 16;
/// Length in bytes of the header in front of each ciphertext.
pub const HEADER: usize = 2;
/// Largest ciphertext in bytes, tag included.
pub const MAX_CIPHERTEXT: usize = 65535;
/// Largest plaintext in bytes.
pub const MAX_PLAINTEXT: usize = MAX_CIPHERTEXT - TAG;
/// Largest frame in bytes, header and tag included.
pub const MAX_FRAME: usize = HEADER + MAX_CIPHERTEXT;

/// A frame whose header cannot be right: it says `length`, and an empty plaintext would make 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What the header says, in bytes.
    pub length: u16,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame claims {} bytes, the smallest possible is {}", self.length, TAG + 1)
    }
}

impl std::error::Error for FrameError {}

/// Looks at the beginning of `buf`: the total length of the first frame (header included, at most
/// [`MAX_FRAME`]) once it is there whole, `None` while bytes are missing. An impossible header is
/// an error as soon as it can be seen.
pub fn next_frame(buf: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = buf.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u16::from_be_bytes(*header);
    if usize::from(length) <= TAG {
        return Err(FrameError { length });
    }
    let total = HEADER + usize::from(length);
    Ok((buf.len() >= total).then_some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_given_only_when_it_is_whole() {
        let mut buf = vec![0, 17];
        buf.resize(HEADER + 17, 0xee);
        for cut in 0..buf.len() {
            assert_eq!(next_frame(&buf[..cut]), Ok(None), "{cut} bytes");
        }
        assert_eq!(next_frame(&buf), Ok(Some(19)));
        buf.push(0);
        assert_eq!(next_frame(&buf), Ok(Some(19)));
    }

    #[test]
    fn an_impossible_length_is_refused_from_the_header_alone() {
        for length in 0..=16u16 {
            assert_eq!(next_frame(&length.to_be_bytes()), Err(FrameError { length }));
        }
        assert_eq!(next_frame(&[0xff, 0xff]), Ok(None));
        assert_eq!(next_frame(&[0xff; MAX_FRAME]), Ok(Some(MAX_FRAME)));
    }
}
