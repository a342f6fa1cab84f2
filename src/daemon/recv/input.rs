//! From the client's bytes to lines: ciphertext frames in, plaintext lines out, in two buffers of
//! fixed size. Holds no descriptor.

use memchr::memchr;

use crate::sys::memory::wipe;
use crate::wire::cipher::Opener;
use crate::wire::frame::{HEADER, MAX_CIPHERTEXT, MAX_PLAINTEXT, next_frame};

/// What the client sent cannot be read: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// A frame has an illegal length, or was not made with the session's key.
    Frame,
    /// A line is longer than any command can be.
    LongLine,
}

/// The two buffers and the key between them.
pub struct Input {
    opener: Opener,
    sealed: Vec<u8>,
    /// Where the frames begin that are not opened yet, and where they end.
    sealed_start: usize,
    sealed_length: usize,
    /// How far each buffer was ever used: beyond that there is nothing to wipe, and no memory yet.
    sealed_used: usize,
    plain: Vec<u8>,
    plain_used: usize,
    plain_start: usize,
    plain_length: usize,
    line_max: usize,
}

impl Input {
    /// Buffers for lines of up to `line_max` bytes, all allocated here.
    pub fn new(opener: Opener, line_max: usize) -> Self {
        Self {
            opener,
            sealed: vec![0; HEADER + MAX_CIPHERTEXT],
            sealed_start: 0,
            sealed_length: 0,
            sealed_used: 0,
            plain: vec![0; line_max + MAX_PLAINTEXT],
            plain_used: 0,
            plain_start: 0,
            plain_length: 0,
            line_max,
        }
    }

    /// Whether there is room for more bytes: always, unless a whole frame waits for the lines before it.
    pub fn has_space(&self) -> bool {
        self.sealed_length - self.sealed_start < self.sealed.len()
    }

    /// Wipes everything, the key included, in a process that must not have it. There is no room for
    /// anything afterwards.
    pub fn forget(&mut self) {
        self.opener = Opener::new([0; 32]);
        self.wipe();
        (self.sealed, self.plain) = (Vec::new(), Vec::new());
        (self.sealed_used, self.plain_used) = (0, 0);
        (self.sealed_start, self.sealed_length) = (0, 0);
        (self.plain_start, self.plain_length) = (0, 0);
    }

    /// Takes fresh buffers where nothing waits in the old ones: what was used of them, as for the
    /// hello, is memory that who only listens does not need again.
    pub fn give_back(&mut self) {
        self.compact();
        if self.plain_length == 0 {
            wipe(&mut self.plain[..self.plain_used]);
            self.plain = vec![0; self.plain.len()];
            self.plain_used = 0;
        }
        if self.sealed_length == 0 {
            wipe(&mut self.sealed[..self.sealed_used]);
            self.sealed = vec![0; self.sealed.len()];
            self.sealed_used = 0;
        }
    }

    fn wipe(&mut self) {
        wipe(&mut self.plain[..self.plain_used]);
        wipe(&mut self.sealed[..self.sealed_used]);
    }

    /// Where the next bytes from the client belong; see [`Input::has_space`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.sealed_start > 0 {
            self.sealed.copy_within(self.sealed_start..self.sealed_length, 0);
            self.sealed_length -= self.sealed_start;
            self.sealed_start = 0;
        }
        &mut self.sealed[self.sealed_length..]
    }

    /// So many bytes were put into [`Input::space`].
    pub fn filled(&mut self, length: usize) {
        self.sealed_length = (self.sealed_length + length).min(self.sealed.len());
        self.sealed_used = self.sealed_used.max(self.sealed_length);
    }

    /// Opens one whole frame, if there is one and its text has room; says whether it did.
    pub fn unseal(&mut self) -> Result<bool, InputError> {
        self.compact();
        if self.plain_length > self.line_max {
            return Ok(false);
        }
        let waiting = &mut self.sealed[self.sealed_start..self.sealed_length];
        let Some(length) = next_frame(waiting).map_err(|_| InputError::Frame)? else {
            return Ok(false);
        };
        let header = [waiting[0], waiting[1]];
        let text = self
            .opener
            .open(header, &mut waiting[HEADER..length])
            .map_err(|_| InputError::Frame)?;
        let end = self.plain_length + text.len();
        self.plain[self.plain_length..end].copy_from_slice(text);
        wipe(text);
        self.plain_length = end;
        self.plain_used = self.plain_used.max(end);
        self.sealed_start += length;
        if self.sealed_start == self.sealed_length {
            (self.sealed_start, self.sealed_length) = (0, 0);
        }
        Ok(true)
    }

    /// Moves the text that is left to the buffer's beginning, and wipes what was before it.
    fn compact(&mut self) {
        if self.plain_start > 0 {
            self.plain.copy_within(self.plain_start..self.plain_length, 0);
            let left = self.plain_length - self.plain_start;
            wipe(&mut self.plain[left..self.plain_length]);
            (self.plain_start, self.plain_length) = (0, left);
        }
    }

    /// The next whole line, without its end.
    pub fn line(&mut self) -> Result<Option<&[u8]>, InputError> {
        let text = &self.plain[self.plain_start..self.plain_length];
        match memchr(b'\n', text) {
            Some(length) if length > self.line_max => Err(InputError::LongLine),
            Some(length) => {
                let start = self.plain_start;
                self.plain_start += length + 1;
                Ok(Some(&self.plain[start..start + length]))
            }
            None if text.len() > self.line_max => Err(InputError::LongLine),
            None => Ok(None),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cipher::Sealer;
    use crate::wire::frame::TAG;

    fn frame(sealer: &mut Sealer, text: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; HEADER + text.len() + TAG];
        buffer[HEADER..HEADER + text.len()].copy_from_slice(text);
        let length = sealer.seal(&mut buffer, text.len()).unwrap();
        buffer[..length].to_vec()
    }

    fn feed(input: &mut Input, bytes: &[u8]) {
        input.space()[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
    }

    #[test]
    fn lines_come_out_whole_however_the_bytes_arrive() {
        let (mut sealer, mut input) = (Sealer::new([1; 32]), Input::new(Opener::new([1; 32]), 100));
        let mut bytes = frame(&mut sealer, b"one\ntw");
        bytes.extend(frame(&mut sealer, b"o\n"));
        bytes.extend(frame(&mut sealer, b"\nfour"));
        let mut lines = Vec::new();
        for byte in bytes {
            feed(&mut input, &[byte]);
            while input.unseal().unwrap() {
                while let Some(line) = input.line().unwrap() {
                    lines.push(line.to_vec());
                }
            }
        }
        assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
    }

    #[test]
    fn frames_that_wait_are_kept_while_others_are_opened_and_more_arrive() {
        let (mut sealer, mut input) = (Sealer::new([1; 32]), Input::new(Opener::new([1; 32]), 100));
        let frames: Vec<_> =
            (0..200).map(|n| frame(&mut sealer, format!("{n}\n").as_bytes())).collect();
        let mut bytes = &frames.concat()[..];
        let mut lines = Vec::new();
        // Three frames come for each two that are opened, cut anywhere.
        for opened in 0..frames.len() {
            let more = bytes.len().min(31).min(input.space().len());
            feed(&mut input, &bytes[..more]);
            bytes = &bytes[more..];
            assert_eq!(input.unseal(), Ok(true), "{opened}");
            lines.extend(input.line().unwrap().map(<[u8]>::to_vec));
            assert!(input.has_space());
        }
        let expected: Vec<_> = (0..200).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(lines, expected);
        assert_eq!((input.sealed_start, input.sealed_length, input.unseal()), (0, 0, Ok(false)));
        // A buffer that is full has room again once a frame was opened.
        let full = frame(&mut sealer, &[b'x'; MAX_PLAINTEXT]);
        assert_eq!(full.len(), input.sealed.len());
        feed(&mut input, &full);
        assert!(!input.has_space());
        assert_eq!(input.unseal(), Ok(true));
        assert!(input.has_space() && input.space().len() == full.len());
    }

    #[test]
    fn a_line_without_end_and_a_forged_frame_end_the_connection() {
        let (mut sealer, mut input) = (Sealer::new([1; 32]), Input::new(Opener::new([1; 32]), 100));
        let sealed = frame(&mut sealer, &[b'x'; 101]);
        feed(&mut input, &sealed);
        assert_eq!(input.unseal(), Ok(true));
        assert_eq!(input.line(), Err(InputError::LongLine));

        let mut input = Input::new(Opener::new([1; 32]), 100);
        let sealed = frame(&mut Sealer::new([2; 32]), b"x\n");
        feed(&mut input, &sealed);
        assert_eq!(input.unseal(), Err(InputError::Frame));
        let mut input = Input::new(Opener::new([1; 32]), 100);
        feed(&mut input, &[0, 3, 1, 2, 3]);
        assert_eq!(input.unseal(), Err(InputError::Frame));
    }

    #[test]
    fn what_waits_is_kept_when_the_rest_is_given_back_and_nothing_when_all_is_forgotten() {
        let (mut sealer, mut input) = (Sealer::new([1; 32]), Input::new(Opener::new([1; 32]), 100));
        let sizes = (input.sealed.len(), input.plain.len());
        let mut bytes = frame(
            &mut sealer,
            b"hello
first
sec",
        );
        let next = frame(
            &mut sealer,
            b"ond
",
        );
        let (begun, rest) = next.split_at(5);
        bytes.extend(begun);
        feed(&mut input, &bytes);
        assert_eq!(input.unseal(), Ok(true));
        assert_eq!(input.line(), Ok(Some(&b"hello"[..])));
        input.give_back();
        assert_eq!(input.line(), Ok(Some(&b"first"[..])));
        assert_eq!(input.line(), Ok(None));
        input.give_back();
        feed(&mut input, rest);
        assert_eq!(input.unseal(), Ok(true));
        assert_eq!(input.line(), Ok(Some(&b"second"[..])));
        input.give_back();
        assert_eq!((input.sealed_used, input.plain_used), (0, 0));
        assert_eq!(sizes, (input.sealed.len(), input.plain.len()));
        let sealed = frame(
            &mut sealer,
            b"third
",
        );
        feed(&mut input, &sealed);
        assert_eq!(input.unseal(), Ok(true));
        assert_eq!(input.line(), Ok(Some(&b"third"[..])));
        input.forget();
        assert!(!input.has_space() && input.sealed.capacity() + input.plain.capacity() == 0);
        assert_eq!((input.unseal(), input.line()), (Ok(false), Ok(None)));
    }

    #[test]
    fn the_buffers_do_not_grow_with_what_the_client_sends() {
        let (mut sealer, mut input) = (Sealer::new([1; 32]), Input::new(Opener::new([1; 32]), 100));
        let line = [&[b'x'; 99][..], b"\n"].concat().repeat(600);
        let sizes = (input.sealed.capacity(), input.plain.capacity());
        let mut lines = 0;
        for _ in 0..3 {
            let sealed = frame(&mut sealer, &line);
            feed(&mut input, &sealed);
            while input.unseal().unwrap() {}
            while input.line().unwrap().is_some() {
                lines += 1;
            }
        }
        assert_eq!(lines, 1800);
        assert_eq!(sizes, (input.sealed.capacity(), input.plain.capacity()));
    }
}
