//! Channels between two roles: one module a channel, with both ends' messages.
//!
//! A channel is a SEQPACKET socket pair: messages keep their boundaries, both ends know when the
//! other is gone, and descriptors can be handed over. A message is at most [`MESSAGE_MAX`] bytes
//! and [`FDS_MAX`] descriptors; whatever does not parse ends the channel, as an attacker's word.

pub mod bell;
pub mod keeper_recv;
pub mod launcher_keeper;
pub mod launcher_listener;
pub mod recv_send;
pub mod report;

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::confine::{self, policy::rights};
use crate::sys;

/// The largest message in bytes. A welcome with a long message of the day, and RECV's filter, are the
/// largest there are.
pub const MESSAGE_MAX: usize = 8192;
/// The most descriptors one message may carry.
pub const FDS_MAX: usize = 5;

/// Names a client's process cluster for as long as the daemon runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

impl WorkerId {
    /// The next number; `None` after the last one there is.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// 48 bytes (a Noise message, a ticket) in the form that serde knows.
pub type Bytes48 = [[u8; 16]; 3];

/// Splits 48 bytes for a message.
pub fn pack48(bytes: &[u8; 48]) -> Bytes48 {
    std::array::from_fn(|i| std::array::from_fn(|j| bytes[16 * i + j]))
}

/// Joins what [`pack48`] split.
pub fn unpack48(parts: &Bytes48) -> [u8; 48] {
    std::array::from_fn(|i| parts[i / 16][i % 16])
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Why a message could not be sent or received.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The other end is gone.
    Closed,
    /// There is nothing to receive, or no room to send, at the moment.
    WouldBlock,
    /// What came is no message of this channel.
    Malformed,
    /// The system refused.
    System(Errno),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other end is gone"),
            Self::WouldBlock => f.write_str("no room in the channel"),
            Self::Malformed => f.write_str("what came is no message of this channel"),
            Self::System(e) => write!(f, "{}", e.desc()),
        }
    }
}

impl std::error::Error for ChannelError {}

impl From<Errno> for ChannelError {
    fn from(problem: Errno) -> Self {
        match problem {
            Errno::EAGAIN => Self::WouldBlock,
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Self::Closed,
            other => Self::System(other),
        }
    }
}

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The descriptors, in the sender's order.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// A connected pair; both ends close on exec, and can do nothing but what a channel is for.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        confine::limit_rights(&a, rights::CHANNEL_AT_START)?;
        confine::limit_rights(&b, rights::CHANNEL_AT_START)?;
        Ok((Self(a), Self(b)))
    }

    /// The end that this descriptor is.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor's number, for a child's table.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends without ever waiting: a role that does not take its messages is not worth waiting for.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, fds, MsgFlags::MSG_DONTWAIT)
    }

    /// Sends, and waits for room if there is none. Only towards a more trusted role.
    pub fn send_patiently<M: Serialize>(&self, message: &M) -> Result<(), ChannelError> {
        self.send_with(message, &[], MsgFlags::empty())
    }

    fn send_with<M: Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> Result<(), ChannelError> {
        let mut buffer = Buffer::new();
        let bytes = buffer.encode(message)?;
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        if fds.is_empty() {
            // By the simpler call, so that a role that hands nothing over needs no right to.
            return self.send_slice(bytes, flags);
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        loop {
            match sendmsg::<()>(self.raw(), &[IoSlice::new(bytes)], &rights, flags, None) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop).map_err(ChannelError::from),
            }
        }
    }

    /// Receives one message without waiting; descriptors that come with it are closed unseen.
    pub fn receive<M: for<'a> Deserialize<'a>>(&self) -> Result<M, ChannelError> {
        self.receive_bytes(|bytes| parse(bytes).ok())
    }

    /// Sends bytes that are a message as they are, without waiting.
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(ChannelError::System(Errno::EMSGSIZE));
        }
        self.send_slice(bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
    }

    fn send_slice(&self, bytes: &[u8], flags: MsgFlags) -> Result<(), ChannelError> {
        loop {
            match send(self.raw(), bytes, flags) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop).map_err(ChannelError::from),
            }
        }
    }

    /// Receives what [`Channel::send_bytes`] sent, without waiting, and gives what `take` makes of
    /// it; descriptors that come with it are closed unseen.
    pub fn receive_bytes<T>(
        &self,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, ChannelError> {
        let mut buffer = Buffer::new();
        buffer.used = loop {
            match recv(self.raw(), &mut buffer.bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                done => break done?,
            }
        };
        match buffer.used {
            0 => Err(ChannelError::Closed),
            1..=MESSAGE_MAX => take(&buffer.bytes[..buffer.used]).ok_or(ChannelError::Malformed),
            _ => Err(ChannelError::Malformed),
        }
    }

    /// Receives one message, and the descriptors that come with it, without waiting.
    pub fn receive_fds<M: for<'a> Deserialize<'a>>(&self) -> Result<Received<M>, ChannelError> {
        let mut buffer = Buffer::new();
        let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, truncated, fds) = {
            let mut slices = [IoSliceMut::new(&mut buffer.bytes[..MESSAGE_MAX])];
            let got = loop {
                match recvmsg::<()>(self.raw(), &mut slices, Some(&mut control), flags) {
                    Err(Errno::EINTR) => {}
                    done => break done?,
                }
            };
            // Descriptors that did not fit (MSG_CTRUNC) are merely missing: whoever needs them sees
            // that, and this process being short of descriptors is not the sender's fault.
            let truncated = got.flags.intersects(MsgFlags::MSG_TRUNC);
            let mut fds = Vec::new();
            // An iterator that fails has nothing to give: the truncation flag says so too.
            for message in got.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmRights(raw) = message {
                    fds.extend(raw.into_iter().filter_map(|fd| sys::fd::own(fd).ok()));
                }
            }
            (got.bytes, truncated, fds)
        };
        buffer.used = length;
        match length {
            0 => Err(ChannelError::Closed),
            _ if truncated => Err(ChannelError::Malformed),
            _ => parse(&buffer.bytes[..length]).map(|message| Received { message, fds }),
        }
    }
}

/// Where a message is made or taken apart. What was used of it is wiped: some messages carry keys
/// and secrets.
struct Buffer {
    /// One byte more than a message has, to notice a longer one.
    bytes: [u8; MESSAGE_MAX + 1],
    used: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; MESSAGE_MAX + 1], used: 0 }
    }

    fn encode<M: Serialize>(&mut self, message: &M) -> Result<&[u8], ChannelError> {
        // Also when it fails halfway.
        self.used = MESSAGE_MAX;
        let length = postcard::to_slice(message, &mut self.bytes[..MESSAGE_MAX])
            .map_err(|_| ChannelError::System(Errno::EMSGSIZE))?
            .len();
        self.used = length;
        Ok(&self.bytes[..length])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        sys::memory::wipe(&mut self.bytes[..self.used]);
    }
}

/// A message, with nothing behind it.
fn parse<M: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<M, ChannelError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(ChannelError::Malformed),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (a, b) = Channel::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        a.send(&WorkerId(7), &[writer.as_fd()]).unwrap();
        drop(writer);
        let got: Received<WorkerId> = b.receive_fds().unwrap();
        assert_eq!(got.message, WorkerId(7));
        let mut copy = std::fs::File::from(got.fds.into_iter().next().unwrap());
        copy.write_all(b"x").unwrap();
        drop(copy);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn the_other_end_is_known_to_be_gone_or_merely_silent() {
        let (a, b) = Channel::pair().unwrap();
        assert_eq!(b.receive::<WorkerId>().unwrap_err(), ChannelError::WouldBlock);
        drop(a);
        assert_eq!(b.receive::<WorkerId>().unwrap_err(), ChannelError::Closed);
        assert_eq!(b.send(&WorkerId(1), &[]).unwrap_err(), ChannelError::Closed);
    }

    #[test]
    fn a_message_that_does_not_parse_or_is_too_long_is_malformed() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[0xffu8; 64].as_slice(), &[]).unwrap();
        assert_eq!(b.receive::<(String, u8)>().unwrap_err(), ChannelError::Malformed);
        a.send(&(WorkerId(1), 2u8), &[]).unwrap();
        assert_eq!(b.receive::<WorkerId>().unwrap_err(), ChannelError::Malformed);
        assert!(a.send(&[0u8; MESSAGE_MAX].as_slice(), &[]).is_err());
        for _ in 0..2 {
            send(a.raw(), &[1; MESSAGE_MAX + 1], MsgFlags::empty()).unwrap();
        }
        assert_eq!(b.receive::<WorkerId>().unwrap_err(), ChannelError::Malformed);
        assert_eq!(b.receive_fds::<WorkerId>().unwrap_err(), ChannelError::Malformed);
    }

    #[test]
    fn forty_eight_bytes_survive_their_parts() {
        let bytes: [u8; 48] = std::array::from_fn(|i| i as u8);
        assert_eq!(unpack48(&pack48(&bytes)), bytes);
    }
}
