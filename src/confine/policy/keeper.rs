//! The keeper: host key, token hashes, the log's directory. It speaks only over channels that were
//! made for it, and opens files only beneath the state directory.

use super::{Descriptor, Kind, Limits, Right, descriptor, rights};

/// The channel to the launcher (SEQPACKET).
pub const LAUNCHER: i32 = 1;
/// The pipe for log lines; it is standard error.
pub const REPORT: i32 = 2;
/// The state directory.
pub const STATE: i32 = 3;
/// The doorbell's writing end, non-blocking.
pub const BELL: i32 = 4;
/// The first of the channels to workers and of the files beneath the state directory.
pub const FIRST: i32 = 5;

/// The table of descriptors.
pub const DESCRIPTORS: &[Descriptor] = &[
    descriptor(0, Kind::Null, "/dev/null", &[]),
    descriptor(
        LAUNCHER,
        Kind::Channel,
        "the launcher's channel",
        &[Right::Read, Right::Write, Right::Event],
    ),
    descriptor(REPORT, Kind::PipeEnd, "the pipe for log lines", &[Right::Write]),
    descriptor(STATE, Kind::StateDirectory, "the state directory", rights::DIRECTORY),
    descriptor(BELL, Kind::PipeEnd, "the doorbell", &[Right::Write]),
];

/// The limits. Descriptors: one channel a client, so the configuration decides.
pub const LIMITS: Limits =
    Limits { processes: false, descriptors: None, file_bytes: None, data_bytes: Some(256 << 20) };

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{
        F_GETFD, F_GETFL, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_ACCMODE, O_APPEND, O_CLOEXEC,
        O_CREAT, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_TMPFILE, O_TRUNC, O_WRONLY,
    };

    use super::super::{
        Arg, NO_ADDRESS, RECEIVE_AT_ONCE, RECEIVE_MESSAGE, Rule, SEND, SEND_MESSAGE, Test, allow,
        fd, fd_range, int,
    };
    use super::*;

    /// The largest number of descriptors that any kernel gives.
    const LAST: i32 = i32::MAX;
    const CHANNEL_OR_FILE: Arg = fd_range(FIRST, LAST);
    const WORKER: Arg = fd_range(FIRST, LAST);
    const FILE: Arg = fd_range(FIRST, LAST);
    /// Beneath a directory that it has: a name from the working directory would have -100 here.
    const DIRECTORY: Arg = Arg { index: 0, name: "dirfd", test: Test::IntRange(STATE, LAST) };
    const READS: Arg = Arg {
        index: 2,
        name: "flags",
        // O_TMPFILE contains O_DIRECTORY, which is harmless.
        test: Test::IntWithout(
            O_ACCMODE | O_CREAT | O_TRUNC | O_PATH | (O_TMPFILE & !libc::O_DIRECTORY),
        ),
    };
    /// Nothing else is written to, so that neither tokens nor key can be changed by what is confined.
    const APPENDS: Arg =
        int(2, "flags", &[O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY]);
    const NO_MODE: Arg = int(3, "mode", &[0]);

    /// The rules.
    pub const RULES: &[Rule] = &[
        allow(
            "recvmsg",
            &[fd(&[LAUNCHER]), RECEIVE_MESSAGE],
            "what the launcher asks, and a new client's channel",
        ),
        allow("sendto", &[fd(&[LAUNCHER]), SEND, NO_ADDRESS], "what the launcher is told"),
        allow("recvfrom", &[WORKER, RECEIVE_AT_ONCE], "handshake and token of a client"),
        allow("sendto", &[WORKER, SEND, NO_ADDRESS], "the answer"),
        allow("sendmsg", &[WORKER, SEND_MESSAGE], "the answer with the log's descriptors"),
        allow("write", &[fd(&[LAUNCHER, REPORT, BELL])], "log lines, and the bell after presence"),
        allow("write", &[FILE], "presence records, at the log's end"),
        allow("read", &[CHANNEL_OR_FILE], "tokens and the state's other files"),
        allow("pread64", &[FILE], "the log's last byte"),
        allow(
            "openat",
            &[DIRECTORY, READS, NO_MODE],
            "the tokens; the log and the gate once more for each worker, to read",
        ),
        allow("openat", &[DIRECTORY, APPENDS, NO_MODE], "the log for each worker, to append"),
        allow("fstat", &[fd_range(STATE, LAST)], "whether a file is a file, whose, and its size"),
        allow(
            "flock",
            &[
                FILE,
                int(1, "op", &[LOCK_EX, LOCK_EX | LOCK_NB, LOCK_SH, LOCK_SH | LOCK_NB, LOCK_UN]),
            ],
            "presence records and the tokens' file",
        ),
        allow("fdatasync", &[FILE], "the log, once a second: log.durability = \"interval\""),
        allow(
            "fcntl",
            &[fd_range(0, LAST), int(1, "cmd", &[F_GETFL, F_GETFD])],
            "what a descriptor is",
        ),
        allow("ppoll", &[], "waits for its channels"),
        allow("close", &[CHANNEL_OR_FILE], "a client's channel, and files once they are handed on"),
    ];
}
