//! RECV after the token, once SEND is forked: it reads its client's socket, appends to the log and
//! rings the bell. It can no longer receive descriptors, fork, or write to the client.

use super::recv::{BELL, CLIENT, GATE, KEEPER, LAST, LOG_APPEND, LOG_TAIL, REPORT, SEND};
use super::{Descriptor, Kind, Limits, Right, descriptor, rights};

/// The table of descriptors in this stage.
pub const DESCRIPTORS: &[Descriptor] = &[
    descriptor(
        CLIENT,
        Kind::Client,
        "the client's socket",
        &[Right::Read, Right::Event, Right::Shutdown],
    ),
    descriptor(
        KEEPER,
        Kind::Channel,
        "the keeper's channel",
        &[Right::Read, Right::Write, Right::Event],
    ),
    descriptor(REPORT, Kind::PipeEnd, "the pipe for log lines", &[Right::Write]),
    descriptor(BELL, Kind::PipeEnd, "the doorbell", &[Right::Write]),
    descriptor(LOG_APPEND, Kind::LogAppend, "the log, to append", rights::APPEND),
    descriptor(LOG_TAIL, Kind::LogRead, "the log, to see its last byte", rights::TAIL),
    descriptor(GATE, Kind::Gate, "the gate", rights::LOCK),
    descriptor(
        SEND,
        Kind::Channel,
        "the channel to SEND",
        &[Right::Read, Right::Write, Right::Event],
    ),
];

/// The limits.
pub const LIMITS: Limits = Limits {
    processes: false,
    descriptors: Some(LAST as u64 + 1),
    file_bytes: None,
    data_bytes: Some(64 << 20),
};

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{LOCK_EX, LOCK_UN, P_PID, WEXITED, WNOHANG, WNOWAIT};

    use super::super::{
        self as policy, NO_ADDRESS, RECEIVE_AT_ONCE, Rule, allow, fd, fd_range, int,
    };
    use super::*;

    /// The rules.
    pub const RULES: &[Rule] = &[
        allow(
            "recvfrom",
            &[fd(&[CLIENT, KEEPER, SEND]), RECEIVE_AT_ONCE],
            "what the client, keeper and SEND say",
        ),
        allow(
            "sendto",
            &[fd(&[KEEPER, SEND]), policy::SEND, NO_ADDRESS],
            "what the keeper and SEND are asked and told",
        ),
        allow("write", &[fd(&[REPORT, BELL])], "log lines, and the bell"),
        allow("write", &[fd(&[LOG_APPEND])], "the client's records, at the log's end"),
        allow(
            "flock",
            &[fd(&[LOG_APPEND, GATE]), int(1, "op", &[LOCK_EX, LOCK_UN])],
            "one writer at a time, and none while another reads",
        ),
        allow("fdatasync", &[fd(&[LOG_APPEND])], "log.durability = \"always\""),
        allow("fstat", &[fd(&[LOG_APPEND])], "the log's size"),
        allow("pread64", &[fd(&[LOG_TAIL])], "whether the last record was cut"),
        allow("ppoll", &[], "waits for its sockets"),
        allow("close", &[fd_range(0, LAST)], "its own descriptors, at the end"),
        allow(
            "waitid",
            &[int(0, "idtype", &[P_PID as i32]), int(3, "options", &[WEXITED | WNOHANG | WNOWAIT])],
            "how SEND ended; the launcher reaps it",
        ),
    ];
}
