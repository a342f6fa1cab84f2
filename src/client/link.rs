//! One TCP connection to a server, from the hello to the last frame: bytes and ciphers, no
//! meaning. Non-blocking; the caller polls. Reading never waits for writing, so two sides with
//! full buffers cannot block each other. Buffers have fixed bounds whatever the server sends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use zeroize::Zeroizing;

use super::trouble::Trouble;
use crate::sys::memory::wipe;
use crate::token::ServerKey;
use crate::wire::cipher::{Opener, Sealer};
use crate::wire::event::Plaintext;
use crate::wire::frame::{HEADER, MAX_FRAME, TAG, next_frame};
use crate::wire::handshake::{MESSAGE_LEN, NkInitiator, Status};

/// The most bytes of lines in one frame. Less than there could be: a frame is of use to the server
/// only when it is whole, and a connection that breaks often should get something done, too.
const FRAME_LINES: usize = 16 * 1024;

/// One connection.
pub struct Link {
    stream: TcpStream,
    stage: Stage,
    /// What came and is not used yet: `received[..filled]`.
    received: Zeroizing<Vec<u8>>,
    filled: usize,
    /// Lines that are not sealed yet.
    plain: Zeroizing<Vec<u8>>,
    /// What goes out as it is: `sealed[written..]`.
    sealed: Vec<u8>,
    written: usize,
}

enum Stage {
    /// The hello is on its way, and the server's answer is awaited.
    Hello(NkInitiator),
    /// Both directions have their ciphers.
    Open { sealer: Box<Sealer>, opener: Box<Opener> },
    /// It failed.
    Closed,
}

impl Link {
    /// Begins the handshake on a connected, non-blocking stream.
    pub fn start(stream: TcpStream, server: &ServerKey) -> Result<Self, Trouble> {
        let (initiator, hello) = NkInitiator::start(server)?;
        Ok(Self {
            stream,
            stage: Stage::Hello(initiator),
            received: Zeroizing::new(vec![0; 2 * MAX_FRAME]),
            filled: 0,
            plain: Zeroizing::new(Vec::with_capacity(4096)),
            sealed: hello.to_vec(),
            written: 0,
        })
    }

    /// Queues a line; it goes out with the next [`Self::write`] after the handshake.
    pub fn push(&mut self, line: &str) {
        self.plain.extend_from_slice(line.as_bytes());
    }

    /// Whether there is something that could be written now.
    pub fn wants_write(&self) -> bool {
        let open = matches!(self.stage, Stage::Open { .. });
        self.written < self.sealed.len() || (open && !self.plain.is_empty())
    }

    /// Writes as much as the socket takes.
    pub fn write(&mut self) -> Result<(), Trouble> {
        while self.wants_write() {
            if self.written == self.sealed.len() {
                self.seal()?;
            }
            match self.stream.write(&self.sealed[self.written..]) {
                Ok(0) => return Err(Trouble::Closed),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(Trouble::Broken(e.to_string())),
            }
        }
        Ok(())
    }

    /// Reads once, and gives every plaintext that is now whole to `each`. `Ok(false)` when the
    /// socket had nothing.
    pub fn read(
        &mut self,
        mut each: impl FnMut(Plaintext<'_>) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        // A whole frame always fits: the buffer holds two of the largest, and what is left over
        // from the last read is less than one.
        match self.stream.read(&mut self.received[self.filled..]) {
            Ok(0) => return Err(Trouble::Closed),
            Ok(n) => self.filled += n,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                return Ok(false);
            }
            Err(e) => return Err(Trouble::Broken(e.to_string())),
        }
        let mut used = 0;
        if matches!(self.stage, Stage::Hello(_)) {
            used = self.answer()?;
        }
        if let Stage::Open { opener, .. } = &mut self.stage {
            while let Some(length) = next_frame(&self.received[used..self.filled])? {
                let frame = &mut self.received[used..used + length];
                let (header, ciphertext) = frame.split_at_mut(HEADER);
                let plaintext = opener.open([header[0], header[1]], ciphertext)?;
                each(Plaintext::parse(plaintext)?)?;
                used += length;
            }
        }
        self.received.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(true)
    }

    /// The server's answer to the hello, once it is whole; gives its length.
    fn answer(&mut self) -> Result<usize, Trouble> {
        let (status, rest) = match self.received[..self.filled].split_first() {
            Some((status, rest)) => (*status, rest),
            None => return Ok(0),
        };
        match Status::from_byte(status) {
            Some(Status::Ok) => {}
            Some(Status::Busy) => return Err(Trouble::Busy),
            Some(Status::Failed) => return Err(Trouble::WrongKey),
            Some(Status::Version) => {
                return match rest.first() {
                    Some(version) => Err(Trouble::Version(*version)),
                    None => Ok(0),
                };
            }
            None => return Err(Trouble::NotPapaya),
        }
        let Some(message2) = rest.first_chunk::<MESSAGE_LEN>() else {
            return Ok(0);
        };
        if let Stage::Hello(initiator) = std::mem::replace(&mut self.stage, Stage::Closed) {
            let keys = initiator.finish(message2)?;
            self.stage = Stage::Open {
                sealer: Box::new(Sealer::new(keys.client_to_server)),
                opener: Box::new(Opener::new(keys.server_to_client)),
            };
        }
        Ok(1 + MESSAGE_LEN)
    }

    /// Seals the next frame's worth of lines.
    fn seal(&mut self) -> Result<(), Trouble> {
        let Stage::Open { sealer, .. } = &mut self.stage else {
            return Ok(());
        };
        let length = self.plain.len().min(FRAME_LINES);
        self.sealed.resize(HEADER + length + TAG, 0);
        self.sealed[HEADER..HEADER + length].copy_from_slice(&self.plain[..length]);
        let total = sealer.seal(&mut self.sealed, length)?;
        self.sealed.truncate(total);
        self.written = 0;
        wipe(&mut self.plain[..length]);
        self.plain.drain(..length);
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
