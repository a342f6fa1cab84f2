//! papayachat's transport cipher (docs/PROTOCOL.md, "Frames") by ring, which makes the TLS records
//! too: the load generator shall not take more of the processor for one server than for another.

use papayachat::wire::cipher::REKEY_EVERY;
use papayachat::wire::frame::HEADER;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// A direction's key and counter.
pub struct Cipher {
    key: LessSafeKey,
    counter: u64,
}

impl Cipher {
    pub fn new(key: [u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("its length");
        Self { key: LessSafeKey::new(key), counter: 0 }
    }

    /// The next frame's nonce; REKEY comes before it where it is due.
    fn next(&mut self) -> Nonce {
        if self.counter != 0 && self.counter.is_multiple_of(REKEY_EVERY) {
            let mut key = [0; 32];
            let _tag = self
                .key
                .seal_in_place_separate_tag(nonce(u64::MAX), Aad::empty(), &mut key)
                .expect("a short text");
            let counter = self.counter;
            *self = Self { counter, ..Self::new(key) };
        }
        self.counter += 1;
        nonce(self.counter - 1)
    }

    /// Appends the frame of `text` to `out`.
    pub fn seal(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let length = text.len() + CHACHA20_POLY1305.tag_len();
        let header = u16::try_from(length).expect("a frame's length").to_be_bytes();
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(text);
        let nonce = self.next();
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[start..])
            .expect("a short text");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a frame in place.
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<&'a [u8], String> {
        let (header, ciphertext) = frame.split_at_mut(HEADER);
        let nonce = self.next();
        self.key
            .open_in_place(nonce, Aad::from(&*header), ciphertext)
            .map(|text| &*text)
            .map_err(|_| "a frame is not authentic".into())
    }
}

/// Four zero bytes, then the counter in little-endian order.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
