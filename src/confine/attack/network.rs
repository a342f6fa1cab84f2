//! Attacks over the network and over sockets of this machine.

use libc::{
    AF_ALG, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT, MSG_FASTOPEN, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW,
    SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

use super::super::policy::recv::LOG_APPEND;
use super::Value::{Bytes, Scratch};
use super::linux::{attack, n};
use super::{Attack, Role};

/// The flags that the roles themselves send and receive with, so that an attack is not stopped by
/// those.
const SENDING: super::Value = n(MSG_DONTWAIT | MSG_NOSIGNAL);
const DIALLING: super::Value = n(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_FASTOPEN);
const RECEIVING: super::Value = n(MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

/// A socket's name, as `struct sockaddr_un`, that nobody has.
const NAMED: &[u8] = b"\x01\0/nonexistent/papaya\0";

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack("socket-tcp", "speaks to anyone", "socket", &[n(AF_INET), n(SOCK_STREAM), n(0)]),
        attack("socket-tcp6", "speaks to anyone", "socket", &[n(AF_INET6), n(SOCK_STREAM), n(0)]),
        attack("socket-udp", "speaks to anyone", "socket", &[n(AF_INET), n(SOCK_DGRAM), n(0)]),
        attack("socket-raw", "forges packets", "socket", &[n(AF_INET), n(SOCK_RAW), n(1)]),
        attack("socket-packet", "sees all packets", "socket", &[n(AF_PACKET), n(SOCK_RAW), n(0)]),
        attack(
            "socket-netlink",
            "the kernel's tables",
            "socket",
            &[n(AF_NETLINK), n(SOCK_RAW), n(0)],
        ),
        attack(
            "socket-vsock",
            "speaks to the host",
            "socket",
            &[n(AF_VSOCK), n(SOCK_STREAM), n(0)],
        ),
        attack(
            "socket-crypto",
            "the kernel's ciphers",
            "socket",
            &[n(AF_ALG), n(SOCK_SEQPACKET), n(0)],
        ),
        attack(
            "socket-unix",
            "speaks to other services",
            "socket",
            &[n(AF_UNIX), n(SOCK_STREAM), n(0)],
        ),
        attack(
            "socket-unix-datagram",
            "sends to the socket of another service by its name",
            "socket",
            &[n(AF_UNIX), n(SOCK_DGRAM), n(0)],
        ),
        attack(
            "socket-unix-closing",
            "speaks to other services",
            "socket",
            &[n(AF_UNIX), n(SOCK_STREAM | SOCK_CLOEXEC), n(0)],
        )
        .not_for_launcher(),
        attack(
            "socket-unix-datagram-closing",
            "sends to the socket of another service by its name",
            "socket",
            &[n(AF_UNIX), n(SOCK_DGRAM | SOCK_CLOEXEC), n(0)],
        )
        .not_for_launcher(),
        attack(
            "socket-pair-closing",
            "a channel that nobody checks",
            "socketpair",
            &[n(AF_UNIX), n(SOCK_SEQPACKET | SOCK_CLOEXEC), n(0), Scratch],
        )
        .not_for(&[Role::Launcher, Role::Recv]),
        attack(
            "socket-pair",
            "a channel that nobody checks",
            "socketpair",
            &[n(AF_UNIX), n(SOCK_DGRAM), n(0), Scratch],
        ),
        attack("connect", "speaks to anyone", "connect", &[n(0), Scratch, n(16)])
            .not_for_launcher(),
        attack("bind", "listens in the room's name", "bind", &[n(0), Scratch, n(16)]),
        attack("listen", "listens in the room's name", "listen", &[n(0), n(1)]).not_for_launcher(),
        attack(
            "accept",
            "takes a client from the listener",
            "accept4",
            &[n(0), n(0), n(0), n(SOCK_CLOEXEC | SOCK_NONBLOCK)],
        )
        .not_for_launcher(),
        attack(
            "send-to",
            "sends to an address of its own choice",
            "sendto",
            &[n(0), Scratch, n(1), SENDING, Scratch, n(16)],
        ),
        attack(
            "send-to-over-channel",
            "sends to the UNIX socket of another service",
            "sendto",
            &[n(1), Scratch, n(1), SENDING, Scratch, n(110)],
        ),
        attack(
            "send-to-unix-name",
            "sends to the UNIX socket of another service by its name",
            "sendto",
            &[n(1), Scratch, n(1), SENDING, Bytes(NAMED), n(NAMED.len() as i32)],
        ),
        attack(
            "dial",
            "speaks to anyone, by a socket that was shut down (TCP Fast Open)",
            "sendto",
            &[n(0), Scratch, n(1), DIALLING, Scratch, n(16)],
        ),
        attack(
            "dial-by-flag",
            "connects without naming an address where the filter sees it",
            "sendto",
            &[n(0), Scratch, n(1), DIALLING],
        ),
        attack(
            "dial-by-channel",
            "the same by number 1",
            "sendto",
            &[n(1), Scratch, n(1), DIALLING],
        ),
        attack(
            "dial-by-socket",
            "the same by number 5",
            "sendto",
            &[n(5), Scratch, n(1), DIALLING],
        ),
        attack(
            "dial-by-message",
            "speaks to anyone, by an address in memory",
            "sendmsg",
            &[n(1), Scratch, DIALLING],
        ),
        attack(
            "dial-by-message-on-socket",
            "the same by number 5",
            "sendmsg",
            &[n(5), Scratch, DIALLING],
        ),
        attack(
            "send-by-log",
            "a call that is not for files",
            "sendto",
            &[n(LOG_APPEND), Scratch, n(1), SENDING],
        )
        .not_for(&[Role::Launcher, Role::Listener]),
        attack(
            "reuse-port",
            "shares the room's port with a stranger",
            "setsockopt",
            &[n(0), n(SOL_SOCKET), n(libc::SO_REUSEPORT), Scratch, n(4)],
        ),
        attack(
            "mark-packets",
            "another route",
            "setsockopt",
            &[n(0), n(SOL_SOCKET), n(libc::SO_MARK), Scratch, n(4)],
        ),
        attack(
            "filter-socket",
            "a program in the kernel",
            "setsockopt",
            &[n(0), n(SOL_SOCKET), n(libc::SO_ATTACH_FILTER), Scratch, n(16)],
        ),
        attack(
            "send-many",
            "descriptors past the check",
            "sendmmsg",
            &[n(1), Scratch, n(1), n(MSG_DONTWAIT)],
        ),
        attack(
            "receive-many",
            "descriptors past the check",
            "recvmmsg",
            &[n(1), Scratch, n(1), n(MSG_DONTWAIT), n(0)],
        ),
        attack(
            "receive-descriptor",
            "a descriptor after joining",
            "recvmsg",
            &[n(1), Scratch, RECEIVING],
        )
        .not_for(&[Role::Launcher, Role::Keeper, Role::Recv]),
        attack(
            "receive-descriptor-from-client",
            "a descriptor from outside",
            "recvmsg",
            &[n(0), Scratch, RECEIVING],
        )
        .not_for_launcher(),
        attack("pass-descriptor", "gives the log to another", "sendmsg", &[n(1), Scratch, SENDING])
            .not_for(&[Role::Launcher, Role::Listener]),
    ]
}
