//! The transport ciphers: one [`Sealer`] and one [`Opener`] per direction, made from the two keys
//! of the handshake. ChaCha20-Poly1305 (RFC 8439) in place, a counter as nonce, a new key every
//! [`REKEY_EVERY`] frames. Pure. Any error is final: the key is wiped and every later call fails,
//! because a stream with a hole in it must not go on.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::frame::{HEADER, MAX_PLAINTEXT, TAG};
use crate::sys::memory;

/// After this many frames in one direction its key is replaced.
pub const REKEY_EVERY: u64 = 65536;

/// Why a frame was not sealed or not opened. The direction is unusable afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherError {
    /// The plaintext is empty or too long, the buffer too short, or header and ciphertext disagree.
    Length,
    /// The frame was not made by the holder of the key, or not at this place in the stream.
    NotAuthentic,
    /// All counters are used up (2^64-1 frames).
    Exhausted,
    /// An earlier call failed.
    Poisoned,
}

impl fmt::Display for CipherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a frame has an impossible length",
            Self::NotAuthentic => "a frame is not authentic: it was damaged or replayed on the way",
            Self::Exhausted => "the cipher's counter is used up",
            Self::Poisoned => "the cipher failed before and is closed",
        })
    }
}

impl std::error::Error for CipherError {}

/// Seals the frames of one direction. Its key is wiped when dropped.
pub struct Sealer(Direction);

/// Opens the frames of one direction. Its key is wiped when dropped.
pub struct Opener(Direction);

impl Sealer {
    /// A sealer with this key, at counter 0; the argument's copy is wiped.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Direction::new(key))
    }

    /// Seals `buf[HEADER..HEADER + len]` in place and writes header and tag around it; gives the
    /// frame's length, `HEADER + len + TAG`, which must fit into `buf`. `len` is 1 to
    /// [`MAX_PLAINTEXT`].
    pub fn seal(&mut self, buf: &mut [u8], len: usize) -> Result<usize, CipherError> {
        self.0.frame(|key, nonce| seal_with(key, nonce, buf, len))
    }

    /// How many frames were sealed.
    pub fn frames(&self) -> u64 {
        self.0.counter
    }
}

impl Opener {
    /// An opener with this key, at counter 0; the argument's copy is wiped.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Direction::new(key))
    }

    /// Opens a frame in place: `header` is its two length bytes, `ciphertext` the rest with the
    /// tag. Gives the plaintext, which is the beginning of `ciphertext`.
    pub fn open<'a>(
        &mut self,
        header: [u8; 2],
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], CipherError> {
        self.0.frame(|key, nonce| open_with(key, nonce, header, ciphertext))
    }

    /// How many frames were opened.
    pub fn frames(&self) -> u64 {
        self.0.counter
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.0)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({})", self.0)
    }
}

/// A key and its counter; `key` is `None` after an error.
struct Direction {
    key: Option<Key>,
    counter: u64,
}

impl Direction {
    fn new(mut key: [u8; 32]) -> Self {
        let boxed = Key(Box::new(Zeroizing::new(key)));
        key.zeroize();
        Self { key: Some(boxed), counter: 0 }
    }

    /// Does the next frame's work, and counts the frame or closes the direction.
    ///
    /// ring does not wipe what it takes a key into. All that is below this function's own frame, since
    /// neither this nor what it calls for that is inlined; it is wiped where a key goes.
    #[inline(never)]
    fn frame<T>(
        &mut self,
        work: impl FnOnce(&Key, Nonce) -> Result<T, CipherError>,
    ) -> Result<T, CipherError> {
        let renewed = self.renew();
        let done = renewed.and_then(|_| {
            let key = self.key.as_ref().ok_or(CipherError::Poisoned)?;
            work(key, nonce(self.counter))
        });
        match done {
            Ok(_) => self.counter += 1,
            Err(_) => self.key = None,
        }
        if done.is_err() || renewed == Ok(true) {
            memory::wipe_below();
        }
        done
    }

    /// Replaces the key where that is due; whether it did.
    fn renew(&mut self) -> Result<bool, CipherError> {
        let key = self.key.as_mut().ok_or(CipherError::Poisoned)?;
        if self.counter == u64::MAX {
            return Err(CipherError::Exhausted);
        }
        let due = self.counter != 0 && self.counter.is_multiple_of(REKEY_EVERY);
        if due {
            *key = key.next()?;
        }
        Ok(due)
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.key = None;
        memory::wipe_below();
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.key.is_some() { "open" } else { "closed" };
        write!(f, "{state}, {} frames", self.counter)
    }
}

/// A key, which stays at its place in the heap when it is moved, and is wiped there when it is
/// dropped, which includes being replaced. ring has it for one frame at a time.
struct Key(Box<Zeroizing<[u8; 32]>>);

impl Key {
    fn aead(&self) -> Result<LessSafeKey, CipherError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.0[..]);
        key.map(LessSafeKey::new).map_err(|_| CipherError::Length)
    }

    /// Noise's REKEY(k): the first 32 bytes of ENCRYPT(k, 2^64-1, empty, 32 zero bytes).
    #[inline(never)]
    fn next(&self) -> Result<Self, CipherError> {
        let mut next = Box::new(Zeroizing::new([0; 32]));
        let _tag = self
            .aead()?
            .seal_in_place_separate_tag(nonce(u64::MAX), Aad::empty(), &mut next[..])
            .map_err(|_| CipherError::Length)?;
        Ok(Self(next))
    }
}

/// Noise's nonce for ChaChaPoly: four zero bytes, then the counter in little-endian order.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[inline(never)]
fn seal_with(key: &Key, nonce: Nonce, buf: &mut [u8], len: usize) -> Result<usize, CipherError> {
    if len == 0 || len > MAX_PLAINTEXT || buf.len() < HEADER + len + TAG {
        return Err(CipherError::Length);
    }
    let length = u16::try_from(len + TAG).map_err(|_| CipherError::Length)?;
    let header = length.to_be_bytes();
    let (place, rest) = buf.split_at_mut(HEADER);
    place.copy_from_slice(&header);
    let (plaintext, rest) = rest.split_at_mut(len);
    let tag = key
        .aead()?
        .seal_in_place_separate_tag(nonce, Aad::from(header), plaintext)
        .map_err(|_| CipherError::Length)?;
    rest[..TAG].copy_from_slice(tag.as_ref());
    Ok(HEADER + len + TAG)
}

#[inline(never)]
fn open_with<'a>(
    key: &Key,
    nonce: Nonce,
    header: [u8; 2],
    ciphertext: &'a mut [u8],
) -> Result<&'a mut [u8], CipherError> {
    if ciphertext.len() <= TAG || ciphertext.len() != usize::from(u16::from_be_bytes(header)) {
        return Err(CipherError::Length);
    }
    key.aead()?
        .open_in_place(nonce, Aad::from(header), ciphertext)
        .map_err(|_| CipherError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; HEADER + plaintext.len() + TAG];
        buf[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        let length = sealer.seal(&mut buf, plaintext.len()).unwrap();
        assert_eq!(length, buf.len());
        buf
    }

    fn opened(opener: &mut Opener, frame: &[u8]) -> Result<Vec<u8>, CipherError> {
        let mut ciphertext = frame[HEADER..].to_vec();
        opener.open([frame[0], frame[1]], &mut ciphertext).map(|p| p.to_vec())
    }

    #[test]
    fn what_was_sealed_is_opened_in_order() {
        let (mut sealer, mut opener) = (Sealer::new(KEY), Opener::new(KEY));
        for text in [&b"a"[..], b"hello", &[0x55; MAX_PLAINTEXT]] {
            let frame = sealed(&mut sealer, text);
            assert_eq!(opened(&mut opener, &frame).unwrap(), text);
        }
        assert_eq!((sealer.frames(), opener.frames()), (3, 3));
    }

    #[test]
    fn no_bit_of_a_frame_can_be_changed() {
        let frame = sealed(&mut Sealer::new(KEY), b"pay 1");
        for bit in 0..frame.len() * 8 {
            let mut forged = frame.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&mut Opener::new(KEY), &forged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_replayed_or_skipped_frame_closes_the_direction_for_good() {
        let mut sealer = Sealer::new(KEY);
        let (first, second) = (sealed(&mut sealer, b"1"), sealed(&mut sealer, b"2"));
        let mut opener = Opener::new(KEY);
        assert_eq!(opened(&mut opener, &second), Err(CipherError::NotAuthentic));
        assert_eq!(opened(&mut opener, &first), Err(CipherError::Poisoned));
        let mut opener = Opener::new(KEY);
        opened(&mut opener, &first).unwrap();
        assert_eq!(opened(&mut opener, &first), Err(CipherError::NotAuthentic));
        assert_eq!(opened(&mut opener, &second), Err(CipherError::Poisoned));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (space, len) in [(100, 0), (20, 3), (HEADER + MAX_PLAINTEXT + 100, MAX_PLAINTEXT + 1)] {
            let mut sealer = Sealer::new(KEY);
            assert_eq!(sealer.seal(&mut vec![0; space], len), Err(CipherError::Length));
            assert_eq!(sealer.seal(&mut [0; 64], 1), Err(CipherError::Poisoned));
        }
        for (claimed, real) in [(17, 18), (16, 16), (0, 0)] {
            let header = u16::to_be_bytes(claimed);
            let mut ciphertext = vec![0; real];
            let error = Opener::new(KEY).open(header, &mut ciphertext).map(|_| ());
            assert_eq!(error, Err(CipherError::Length));
        }
    }

    #[test]
    fn the_key_changes_after_65536_frames_and_both_sides_agree() {
        let (mut sealer, mut opener) = (Sealer::new(KEY), Opener::new(KEY));
        sealer.0.counter = REKEY_EVERY - 1;
        opener.0.counter = REKEY_EVERY - 1;
        let frame = sealed(&mut sealer, b"the last one of the first key");
        opened(&mut opener, &frame).unwrap();
        let frame = sealed(&mut sealer, b"the first one of the second key");
        let old = Key(Box::new(Zeroizing::new(KEY)));
        let header = [frame[0], frame[1]];
        let with_old_key =
            open_with(&old, nonce(REKEY_EVERY), header, &mut frame[2..].to_vec()).map(|_| ());
        assert_eq!(with_old_key, Err(CipherError::NotAuthentic));
        assert_eq!(opened(&mut opener, &frame).unwrap(), b"the first one of the second key");
    }

    #[test]
    fn the_last_counter_is_never_used() {
        let mut sealer = Sealer::new(KEY);
        sealer.0.counter = u64::MAX;
        assert_eq!(sealer.seal(&mut [0; 64], 1), Err(CipherError::Exhausted));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", Sealer::new(KEY)), "Sealer(open, 0 frames)");
        assert_eq!(format!("{:?}", Opener::new(KEY)), "Opener(open, 0 frames)");
    }
}
