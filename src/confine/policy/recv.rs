//! RECV before the token: it has its client's socket, the keeper's channel, the pipe for its log
//! lines and the bell, and nothing else. It waits for a hello, lets the keeper answer it, passes
//! the token on, and receives the log's descriptors. Then it forks SEND.

use super::{Descriptor, Kind, Limits, Right, descriptor};

/// The client's TCP socket.
pub const CLIENT: i32 = 0;
/// The private channel to the keeper (SEQPACKET).
pub const KEEPER: i32 = 1;
/// The pipe for log lines; it is standard error.
pub const REPORT: i32 = 2;
/// The doorbell's writing end, non-blocking.
pub const BELL: i32 = 3;
/// After the token: the log, to append.
pub const LOG_APPEND: i32 = 4;
/// After the token: the log, to read.
pub const LOG_READ: i32 = 5;
/// After the token: the gate, this process's own description of it.
pub const GATE: i32 = 6;
/// After the token: the gate for SEND; closed here after the fork.
pub const SEND_GATE: i32 = 7;
/// After the token: the log, to see its last byte. A description of its own: SEND locks the one that
/// it reads by, and a lock must not outlive it in here.
pub const LOG_TAIL: i32 = 8;
/// The channel to SEND (SEQPACKET), this end.
pub const SEND: i32 = 9;
/// The channel to SEND, SEND's end; closed here after the fork.
pub const SEND_END: i32 = 10;
/// SEND's process (FreeBSD): RECV's hold on it, as in capability mode there is no waiting for one.
pub const SEND_PROCESS: i32 = 11;
/// The highest number in the table.
pub const LAST: i32 = if cfg!(target_os = "freebsd") { SEND_PROCESS } else { SEND_END };

/// The table of descriptors at its start.
pub const DESCRIPTORS: &[Descriptor] = &[
    descriptor(
        CLIENT,
        Kind::Client,
        "the client's socket",
        &[Right::Read, Right::Write, Right::Event, Right::Shutdown],
    ),
    descriptor(
        KEEPER,
        Kind::Channel,
        "the keeper's channel",
        &[Right::Read, Right::Write, Right::Event],
    ),
    descriptor(REPORT, Kind::PipeEnd, "the pipe for log lines", &[Right::Write]),
    descriptor(BELL, Kind::PipeEnd, "the doorbell", &[Right::Write]),
];

/// The limits. Files: the same process appends to the log later.
pub const LIMITS: Limits = Limits {
    processes: true,
    descriptors: Some(LAST as u64 + 1),
    file_bytes: None,
    data_bytes: Some(64 << 20),
};

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{
        AF_UNIX, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, F_GETFD, F_GETFL, SIGCHLD, SOCK_CLOEXEC,
        SOCK_SEQPACKET,
    };

    use super::super::{
        Arg, NO_ADDRESS, RECEIVE_MESSAGE, Rule, SEND_AT_ONCE, Test, allow, fd, fd_range, int,
    };
    use super::*;
    use crate::sys::confine_linux::{PR_GET_MDWE, PR_SET_MDWE};

    /// Asks for the ABI alone (LANDLOCK_CREATE_RULESET_VERSION).
    const LANDLOCK_VERSION: i32 = 1;
    const FORK: Arg = Arg {
        index: 0,
        name: "flags",
        test: Test::Long(&[
            (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD) as u64,
            SIGCHLD as u64,
        ]),
    };
    const THE_CLIENT: Arg = fd(&[CLIENT]);
    const LIMIT: Arg = int(
        1,
        "resource",
        &[
            libc::RLIMIT_CORE as i32,
            libc::RLIMIT_FSIZE as i32,
            libc::RLIMIT_NOFILE as i32,
            libc::RLIMIT_DATA as i32,
            libc::RLIMIT_NPROC as i32,
        ],
    );
    const RECEIVED: Arg = fd(&[LOG_APPEND, LOG_READ, GATE, SEND_GATE, LOG_TAIL]);

    /// The rules, besides those of the stages that follow.
    pub const RULES: &[Rule] = &[
        allow(
            "sendto",
            &[THE_CLIENT, SEND_AT_ONCE, NO_ADDRESS],
            "the handshake's answer and the refusal",
        ),
        allow("recvmsg", &[fd(&[KEEPER]), RECEIVE_MESSAGE], "the log's descriptors, once"),
        allow(
            "fcntl",
            &[RECEIVED, int(1, "cmd", &[F_GETFL, F_GETFD])],
            "what was received is checked",
        ),
        allow("fstat", &[RECEIVED], "what was received is checked"),
        allow(
            "fcntl",
            &[fd(&[CLIENT, KEEPER, BELL, SEND, SEND_END]), int(1, "cmd", &[F_GETFL, F_GETFD])],
            "the table of descriptors is checked at the start",
        ),
        allow(
            "socketpair",
            &[
                int(0, "family", &[AF_UNIX]),
                int(1, "type", &[SOCK_SEQPACKET | SOCK_CLOEXEC]),
                int(2, "protocol", &[0]),
            ],
            "the channel to SEND",
        ),
        allow("clone", &[FORK], "SEND is forked; a thread cannot be made"),
        allow("set_robust_list", &[], "the C library in the forked child"),
        allow("getpid", &[], "SEND is told who its parent is"),
        allow("getppid", &[], "SEND makes sure that RECV still lives once its death signal is set"),
        // Not SIGCHLD: a dead child that was ignored cannot be traced back to here.
        allow(
            "rt_sigaction",
            &[int(
                0,
                "signal",
                &[libc::SIGUSR1, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE],
            )],
            "SEND listens to the bell; set before its own filter",
        ),
        // This stage's own. The later stages' rules, which are in its filter too, close the lowest
        // as well: what is received could take such a place, and gains nothing there.
        allow("close", &[fd_range(LOG_APPEND, LAST)], "each of the two closes what is the other's"),
        // Tightening: each of these can only take something away from this process.
        allow(
            "prctl",
            &[int(
                0,
                "option",
                &[
                    libc::PR_SET_NAME,
                    libc::PR_SET_NO_NEW_PRIVS,
                    libc::PR_GET_NO_NEW_PRIVS,
                    libc::PR_GET_DUMPABLE,
                    PR_SET_MDWE,
                    PR_GET_MDWE,
                ],
            )],
            "the next stage's confinement, and the titles, which have the client's name then",
        ),
        allow(
            "prctl",
            &[int(0, "option", &[libc::PR_SET_DUMPABLE]), int(1, "value", &[0])],
            "the next stage's confinement",
        ),
        allow(
            "prctl",
            &[int(0, "option", &[libc::PR_SET_PDEATHSIG]), int(1, "signal", &[libc::SIGKILL])],
            "SEND dies with RECV",
        ),
        allow(
            "prlimit64",
            &[int(0, "pid", &[0]), LIMIT],
            "the next stage's limits; without root only down",
        ),
        allow(
            "seccomp",
            &[int(0, "operation", &[libc::SECCOMP_SET_MODE_FILTER as i32]), int(1, "flags", &[0])],
            "the next stage's filter",
        ),
        allow(
            "landlock_create_ruleset",
            &[int(2, "flags", &[0, LANDLOCK_VERSION])],
            "SEND's own domain",
        ),
        allow("landlock_restrict_self", &[int(1, "flags", &[0])], "SEND's own domain"),
    ];
}
