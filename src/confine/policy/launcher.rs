//! The launcher after it dropped root: it starts workers, reaps them, writes syslog and rings the
//! bell. Its filter is inherited by all that it starts, so it is the union of theirs and its own.
//!
//! What protects it is that no byte of a client ever reaches it; what limits it is Landlock: it can
//! open nothing but its program, the libraries, and the few files named in [`super::super::Context`].

use super::Limits;

/// The limits. All are inherited by workers, who set tighter ones.
pub const LIMITS: Limits =
    Limits { processes: true, descriptors: None, file_bytes: None, data_bytes: None };

#[cfg(target_os = "linux")]
pub use rules::RULES;

#[cfg(target_os = "linux")]
mod rules {
    use libc::{
        AF_UNIX, SIGKILL, SIGTERM, SIGUSR1, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK,
        SOCK_SEQPACKET, SOCK_STREAM,
    };

    use super::super::{
        Arg, NO_ADDRESS, RECEIVE_MESSAGE, Rule, SEND, SEND_MESSAGE, Test, allow, int, nothing,
    };

    const UNIX: Arg = int(0, "family", &[AF_UNIX]);
    /// The rules, besides those of `startup` and of all that it starts.
    pub const RULES: &[Rule] = &[
        allow(
            "kill",
            &[int(0, "pid", &[0]), int(1, "signal", &[SIGUSR1, SIGTERM])],
            "the bell, and the end of the service",
        ),
        allow(
            "kill",
            &[
                Arg { index: 0, name: "pid", test: Test::IntRange(2, i32::MAX) },
                int(1, "signal", &[SIGKILL, SIGTERM]),
            ],
            "ends one worker; never a group",
        ),
        allow("wait4", &[int(2, "options", &[libc::WNOHANG])], "reaps workers"),
        allow(
            "socketpair",
            &[UNIX, int(1, "type", &[SOCK_SEQPACKET | SOCK_CLOEXEC]), int(2, "protocol", &[0])],
            "the channels of a new client",
        ),
        allow(
            "socket",
            &[
                UNIX,
                int(1, "type", &[SOCK_DGRAM | SOCK_CLOEXEC, SOCK_STREAM | SOCK_CLOEXEC]),
                int(2, "protocol", &[0]),
            ],
            "syslog and the service manager, again after their restart",
        ),
        // Where a static program's heap begins, older kernels choose from eight thousand places, and
        // newer ones from some hundred thousand; where a mapping is, from 2^28.
        nothing(
            "brk",
            "malloc takes mappings then: no heap beside a program, in whatever it starts",
        ),
        // The family is that of the socket, which may be a listening one that was shut down: TCP is
        // Landlock's matter, from ABI 4 on.
        allow("connect", &[], "the same"),
        allow(
            "accept4",
            &[int(3, "flags", &[SOCK_CLOEXEC | SOCK_NONBLOCK])],
            "the administrator's socket",
        ),
        allow("getsockname", &[], "the port that the system chose, for log and status"),
        allow(
            "getpeername",
            &[],
            "where a client comes from, which the listener need not be believed",
        ),
        allow(
            "shutdown",
            &[int(1, "how", &[libc::SHUT_RD])],
            "closes the door while no listener runs",
        ),
        allow("listen", &[], "opens the door, and opens it again"),
        allow(
            "setsockopt",
            &[int(1, "level", &[libc::SOL_SOCKET]), int(2, "option", &[libc::SO_REUSEADDR])],
            "the same: while the door is closed nobody else may take its address",
        ),
        allow(
            "sendmsg",
            &[SEND_MESSAGE],
            "descriptors to the keeper and the listener, lines to syslog",
        ),
        allow("recvmsg", &[RECEIVE_MESSAGE], "connections from the listener"),
        allow("sendto", &[SEND, NO_ADDRESS], "the same without descriptors"),
        allow(
            "recvfrom",
            &[int(3, "flags", &[0, libc::MSG_DONTWAIT])],
            "the same without descriptors, and the administrator's questions",
        ),
        allow(
            "read",
            &[],
            "log lines, the doorbell, configuration; the kernel's log, which it opened as root; the \
             loader reads libraries",
        ),
        allow("write", &[], "standard error in the foreground"),
        allow("ppoll", &[], "waits for all of them and for signals"),
        allow("poll", &[], "whether there is more to hear, or room for a line, without a wait"),
        allow(
            "dup3",
            &[int(2, "flags", &[0])],
            "the fixed descriptors of a worker, between fork and execve",
        )
        .rare("processors without dup2, such as aarch64"),
        allow("dup2", &[], "the same on processors that have it"),
        allow("close", &[], "after fork and when a worker is gone"),
        allow(
            "close_range",
            &[int(1, "last", &[-1]), int(2, "flags", &[0])],
            "a worker gets the fixed descriptors and no other",
        ),
        allow(
            "fcntl",
            &[int(1, "cmd", &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL])],
            "close-on-exec of a worker's descriptors",
        ),
        allow(
            "lseek",
            &[int(2, "whence", &[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END])],
            "reads files",
        ),
        allow(
            "getdents64",
            &[],
            "the configuration's drop-ins; Landlock lets it open no other directory",
        ),
        allow("rt_sigaction", &[], "a worker starts with signals as they are by default"),
        allow("getpid", &[], "log lines, and the check of a death signal's race"),
        allow("tgkill", &[int(2, "signal", &[libc::SIGABRT])], "the C library aborts so")
            .rare("a launcher that finds its memory damaged shall end by that, not as a violation"),
        allow("getuid", &[], "the C library's start asks whether it runs for someone else")
            .rare("only those that do not find it in the auxiliary vector"),
        allow("geteuid", &[], "the same").rare("as getuid: C libraries of other kinds"),
        allow("getgid", &[], "the same").rare("as getuid: C libraries of other kinds"),
        allow("getegid", &[], "the same").rare("as getuid: C libraries of other kinds"),
    ];
}
