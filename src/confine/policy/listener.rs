//! The listener: accepts, counts, and hands the socket on. It never reads from a connection, forks
//! or executes, and has nothing of the room.

use super::{Descriptor, Kind, Limits, Right, descriptor};

/// The channel to the launcher (SEQPACKET).
pub const LAUNCHER: i32 = 1;
/// The pipe for log lines; it is standard error.
pub const REPORT: i32 = 2;
/// The first listening socket.
pub const FIRST_SOCKET: i32 = 3;
/// The last listening socket, when all 16 addresses are used.
pub const LAST_SOCKET: i32 = 18;
/// The highest number that an accepted connection can have until it is handed on.
pub const LAST: i32 = 63;

/// The table of descriptors. Number 0 is `/dev/null`, so that no connection gets it.
pub const DESCRIPTORS: &[Descriptor] = &[
    descriptor(0, Kind::Null, "/dev/null", &[]),
    descriptor(
        LAUNCHER,
        Kind::Channel,
        "the launcher's channel",
        &[Right::Read, Right::Write, Right::Event],
    ),
    descriptor(REPORT, Kind::PipeEnd, "the pipe for log lines", &[Right::Write]),
    Descriptor {
        first: FIRST_SOCKET,
        last: LAST_SOCKET,
        kind: Kind::Listening,
        what: "the listening sockets",
        // An accepted socket has its listener's rights: those to read, to write, and to ask what it
        // is and where it comes from are for the sockets that are handed on.
        rights: &[
            Right::Accept,
            Right::Event,
            Right::Setsockopt,
            Right::Shutdown,
            Right::Read,
            Right::Write,
            Right::Getpeername,
            Right::Getsockopt,
        ],
    },
];

/// The limits. It writes to no file at all.
pub const LIMITS: Limits = Limits {
    processes: false,
    descriptors: Some(LAST as u64 + 1),
    file_bytes: Some(0),
    data_bytes: Some(128 << 20),
};

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{SHUT_RD, SHUT_WR, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET};

    use super::super::{
        Arg, NO_ADDRESS, RECEIVE_AT_ONCE, Rule, SEND, SEND_AT_ONCE, SEND_MESSAGE, allow, fd,
        fd_range, int,
    };
    use super::*;

    const LISTENING: Arg = fd_range(FIRST_SOCKET, LAST_SOCKET);
    /// Listening or accepted: with fewer addresses a connection gets the lower numbers.
    const SOCKET: Arg = fd_range(FIRST_SOCKET, LAST);

    /// The rules.
    pub const RULES: &[Rule] = &[
        allow(
            "accept4",
            &[LISTENING, int(3, "flags", &[SOCK_CLOEXEC | SOCK_NONBLOCK])],
            "what it is for",
        ),
        allow("sendmsg", &[fd(&[LAUNCHER]), SEND_MESSAGE], "hands a connection on"),
        allow("sendto", &[fd(&[LAUNCHER]), SEND, NO_ADDRESS], "tells of a penalty, for the count"),
        allow("recvfrom", &[fd(&[LAUNCHER]), RECEIVE_AT_ONCE], "who joined, who left, and pause"),
        allow("write", &[fd(&[REPORT])], "log lines"),
        allow("ppoll", &[], "waits for connections, for the launcher and for signals"),
        allow("getpeername", &[SOCKET], "the source's address"),
        allow(
            "sendto",
            &[SOCKET, SEND_AT_ONCE, NO_ADDRESS],
            "one byte to a client that is turned away: busy",
        ),
        allow(
            "shutdown",
            &[SOCKET, int(1, "how", &[SHUT_RD, SHUT_WR])],
            "closes the door without giving the address up; ends a connection turned away",
        ),
        allow(
            "setsockopt",
            &[LISTENING, int(1, "level", &[SOL_SOCKET]), int(2, "option", &[SO_REUSEADDR])],
            "while the door is closed nobody else may take its address",
        ),
        allow("close", &[SOCKET], "a connection that was handed on or turned away"),
    ];
}
