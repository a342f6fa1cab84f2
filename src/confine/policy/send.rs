//! SEND: reads the log, encrypts, writes to the client's socket, and waits for the bell or for
//! what RECV tells it. It cannot write to the log, nor receive a byte from the client.

use super::{Descriptor, Kind, Limits, Right, descriptor, rights};

/// The client's TCP socket.
pub const CLIENT: i32 = super::recv::CLIENT;
/// The pipe for log lines; it is standard error.
pub const REPORT: i32 = super::recv::REPORT;
/// The log, to read.
pub const LOG: i32 = super::recv::LOG_READ;
/// The gate, this process's own description of it.
pub const GATE: i32 = super::recv::SEND_GATE;
/// The channel to RECV (SEQPACKET).
pub const RECV: i32 = super::recv::SEND_END;

/// The table of descriptors.
pub const DESCRIPTORS: &[Descriptor] = &[
    descriptor(
        CLIENT,
        Kind::Client,
        "the client's socket",
        &[Right::Write, Right::Event, Right::Shutdown],
    ),
    descriptor(REPORT, Kind::PipeEnd, "the pipe for log lines", &[Right::Write]),
    descriptor(LOG, Kind::LogRead, "the log, to read", rights::READ),
    descriptor(GATE, Kind::Gate, "the gate", rights::LOCK),
    descriptor(RECV, Kind::Channel, "the channel to RECV", &[Right::Read, Right::Event]),
];

/// The limits. It writes to no file at all.
pub const LIMITS: Limits = Limits {
    processes: false,
    descriptors: Some(RECV as u64 + 1),
    file_bytes: Some(0),
    data_bytes: Some(64 << 20),
};

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{LOCK_EX, LOCK_SH, LOCK_UN, SEEK_SET};

    use super::super::{NO_ADDRESS, RECEIVE_AT_ONCE, Rule, SEND_AT_ONCE, allow, fd, fd_range, int};
    use super::*;

    /// The rules.
    pub const RULES: &[Rule] = &[
        allow("recvfrom", &[fd(&[RECV]), RECEIVE_AT_ONCE], "what RECV tells it"),
        allow("sendto", &[fd(&[CLIENT]), SEND_AT_ONCE, NO_ADDRESS], "frames to the client"),
        allow("write", &[fd(&[REPORT])], "log lines")
            .rare("it has a line only when it fails or panics, and no test makes it"),
        allow(
            "flock",
            &[fd(&[LOG]), int(1, "op", &[LOCK_SH, LOCK_UN])],
            "nobody writes while it reads",
        ),
        allow(
            "flock",
            &[fd(&[GATE]), int(1, "op", &[LOCK_EX, LOCK_UN])],
            "a reader that is behind goes through the gate",
        ),
        allow("fstat", &[fd(&[LOG])], "the log's size"),
        allow("read", &[fd(&[LOG])], "the records, where its place is shown"),
        allow(
            "pread64",
            &[fd(&[LOG])],
            "the log's beginning, and the records as long as it has not caught up",
        ),
        allow(
            "lseek",
            &[fd(&[LOG]), int(2, "whence", &[SEEK_SET])],
            "shows its place in the log to `papayad status`, which finds it under /proc",
        ),
        allow("ppoll", &[], "waits with SIGUSR1 unblocked; atomically, so that no bell is lost"),
        allow("close", &[fd_range(0, RECV)], "its own descriptors, at the end"),
    ];
}
