//! Attacks on other processes: signals, tracing, limits, and leaving the service's group.

use libc::{
    F_SETOWN, PRIO_USER, PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME, RLIMIT_CORE, RLIMIT_NOFILE,
    SIGKILL, SIGTERM, SIGUSR1,
};

use super::Attack;
use super::Value::{Number, Scratch};
use super::linux::{attack, n};

const OWNER_EX: i32 = 15; // F_SETOWN_EX
const SOCKET_OWNER: i32 = 0x8901; // FIOSETOWN
const F_SETSIG: i32 = 10; // fcntl(2)

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack("kill-group", "stops the room", "kill", &[n(0), n(SIGKILL)]),
        attack("kill-all", "stops all that the user runs", "kill", &[n(-1), n(0)]),
        attack("kill-init", "a signal to a stranger", "kill", &[n(1), n(0)]),
        attack("ring-by-signal", "wakes others unasked", "kill", &[n(0), n(SIGUSR1)])
            .not_for_launcher(),
        attack("end-by-signal", "ends the room", "kill", &[n(0), n(SIGTERM)]).not_for_launcher(),
        attack(
            "kill-upper-half",
            "a group's number hidden in the upper half of a register",
            "kill",
            &[Number(0x1_0000_0000), n(SIGKILL)],
        ),
        attack("tkill", "stops another process", "tkill", &[n(1), n(0)]),
        attack("tgkill", "stops another process", "tgkill", &[n(1), n(1), n(0)]),
        attack(
            "queue-signal",
            "forges a signal's origin",
            "rt_sigqueueinfo",
            &[n(1), n(SIGUSR1), Scratch],
        ),
        attack(
            "queue-thread-signal",
            "forges a signal's origin",
            "rt_tgsigqueueinfo",
            &[n(1), n(1), n(SIGUSR1), Scratch],
        ),
        attack("pidfd-open", "a handle on another process", "pidfd_open", &[n(1), n(0)]),
        attack(
            "pidfd-signal",
            "a signal by handle",
            "pidfd_send_signal",
            &[n(3), n(0), n(0), n(0)],
        ),
        attack("pidfd-getfd", "another's descriptors", "pidfd_getfd", &[n(3), n(0), n(0)]),
        attack(
            "trace",
            "reads and changes another process",
            "ptrace",
            &[n(PTRACE_ATTACH as i32), n(1)],
        ),
        attack(
            "trace-seize",
            "reads and changes another process",
            "ptrace",
            &[n(PTRACE_SEIZE as i32), n(1)],
        ),
        attack("trace-me", "lets its parent change it", "ptrace", &[n(PTRACE_TRACEME as i32)]),
        attack(
            "read-memory",
            "reads another's keys",
            "process_vm_readv",
            &[n(1), Scratch, n(1), Scratch, n(1)],
        ),
        attack(
            "write-memory",
            "changes another process",
            "process_vm_writev",
            &[n(1), Scratch, n(1), Scratch, n(1)],
        ),
        attack(
            "advise-other",
            "takes another's memory away",
            "process_madvise",
            &[n(3), Scratch, n(1), n(4), n(0)],
        ),
        attack("reap-memory", "takes another's memory away", "process_mrelease", &[n(3), n(0)]),
        attack("compare", "learns another's descriptors", "kcmp", &[n(1), n(1), n(0), n(0), n(0)]),
        attack(
            "limit-other",
            "starves another process",
            "prlimit64",
            &[n(1), n(RLIMIT_CORE as i32), Scratch],
        ),
        attack(
            "limit-other-descriptors",
            "starves another process",
            "prlimit64",
            &[n(1), n(RLIMIT_NOFILE as i32), Scratch],
        ),
        attack("renice", "starves another process", "setpriority", &[n(0), n(1), n(19)]),
        attack(
            "renice-user",
            "starves all that the user runs",
            "setpriority",
            &[n(PRIO_USER as i32), n(0x7fff_fff0), n(0)],
        ),
        attack("pin-other", "starves another process", "sched_setaffinity", &[n(1), n(8), Scratch]),
        attack(
            "schedule-other",
            "starves another process",
            "sched_setscheduler",
            &[n(1), n(0), Scratch],
        ),
        attack("schedule-attributes", "starves others", "sched_setattr", &[n(1), Scratch, n(0)]),
        attack("disk-priority", "starves others", "ioprio_set", &[n(1), n(1), n(0)]),
        attack(
            "move-pages",
            "moves another's memory",
            "move_pages",
            &[n(1), n(0), n(0), n(0), n(0)],
        ),
        attack(
            "migrate-pages",
            "moves another's memory",
            "migrate_pages",
            &[n(1), n(0), n(0), n(0)],
        ),
        attack(
            "robust-list",
            "an address in another process",
            "get_robust_list",
            &[n(1), Scratch, Scratch],
        ),
        attack("signal-by-io", "signals by F_SETOWN", "fcntl", &[n(0), n(F_SETOWN), n(1)]),
        attack("signal-by-io-ex", "signals by F_SETOWN_EX", "fcntl", &[n(0), n(OWNER_EX), Scratch]),
        attack(
            "signal-number-by-io",
            "signals by F_SETSIG",
            "fcntl",
            &[n(0), n(F_SETSIG), n(SIGKILL)],
        ),
        attack(
            "signal-by-socket",
            "signals by FIOSETOWN",
            "ioctl",
            &[n(0), n(SOCKET_OWNER), Scratch],
        ),
        attack("leave-group", "the bell no longer reaches it", "setpgid", &[n(0), n(0)]),
        attack("leave-session", "the bell no longer reaches it", "setsid", &[]),
        attack("join-other-namespace", "another's view", "setns", &[n(3), n(0)]),
    ]
}
