//! Attacks for privileges, and on the kernel's wider surface.

use libc::{
    CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, PR_CAP_AMBIENT, PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_MM, PR_SET_PDEATHSIG, PR_SET_PTRACER, PR_SET_SECCOMP,
    PR_SET_SECUREBITS, PR_SET_TIMERSLACK, RLIMIT_NOFILE,
};

use super::Value::{Path, Scratch};
use super::linux::{attack, n};
use super::{Attack, Role};

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack("become-root", "root", "setuid", &[n(0)]),
        attack("become-root-all", "root", "setresuid", &[n(0), n(0), n(0)]),
        attack("become-root-real", "root", "setreuid", &[n(0), n(0)]),
        attack("become-roots-group", "root's group", "setgid", &[n(0)]),
        attack("become-roots-group-all", "root's group", "setresgid", &[n(0), n(0), n(0)]),
        attack("join-groups", "other groups", "setgroups", &[n(0), n(0)]),
        attack("become-for-files", "root's files", "setfsuid", &[n(0)]),
        attack("capabilities", "capabilities", "capset", &[Scratch, Scratch]),
        attack("ambient-capability", "capabilities", "prctl", &[n(PR_CAP_AMBIENT), n(2), n(0)]),
        attack("keep-capabilities", "capabilities", "prctl", &[n(PR_SET_KEEPCAPS), n(1)]),
        attack("secure-bits", "what root may", "prctl", &[n(PR_SET_SECUREBITS), n(0)]),
        attack("be-dumpable", "can be traced and dumped", "prctl", &[n(PR_SET_DUMPABLE), n(1)]),
        attack("name-a-tracer", "can be traced", "prctl", &[n(PR_SET_PTRACER), n(-1)]),
        attack("outlive-parent", "outlives RECV", "prctl", &[n(PR_SET_PDEATHSIG), n(0)]),
        attack(
            "adopt-orphans",
            "takes processes over",
            "prctl",
            &[n(PR_SET_CHILD_SUBREAPER), n(1)],
        ),
        attack("move-own-memory-map", "hides what it is", "prctl", &[n(PR_SET_MM), n(1), n(0)]),
        attack("timer-slack", "another's time", "prctl", &[n(PR_SET_TIMERSLACK), n(0)]),
        attack("strict-filter", "another filter", "prctl", &[n(PR_SET_SECCOMP), n(1)]),
        attack(
            "own-filter",
            "a filter that fails calls as it likes",
            "seccomp",
            &[n(1), n(0), Scratch],
        )
        .not_for(&[Role::Launcher, Role::Recv]),
        attack("listening-filter", "answers another's calls", "seccomp", &[n(1), n(8), Scratch]),
        attack("raise-limit", "more descriptors", "setrlimit", &[n(RLIMIT_NOFILE as i32), Scratch]),
        attack(
            "raise-own-limit",
            "more descriptors",
            "prlimit64",
            &[n(0), n(RLIMIT_NOFILE as i32), Scratch, n(0)],
        )
        .not_for(&[Role::Launcher, Role::Recv]),
        attack("personality", "another address-space layout", "personality", &[n(0x004_0000)]),
        attack("namespace", "root in a namespace", "unshare", &[n(CLONE_NEWUSER)]),
        attack("namespace-mounts", "another view", "unshare", &[n(CLONE_NEWNS)]),
        attack("namespace-network", "another network", "unshare", &[n(CLONE_NEWNET)]),
        attack("io-uring", "calls past the filter", "io_uring_setup", &[n(1), Scratch]),
        attack(
            "io-uring-enter",
            "calls past the filter",
            "io_uring_enter",
            &[n(3), n(0), n(0), n(0)],
        ),
        attack(
            "io-uring-register",
            "calls past the filter",
            "io_uring_register",
            &[n(3), n(0), n(0)],
        ),
        attack("old-async", "calls past the filter", "io_setup", &[n(1), Scratch]),
        attack("bpf", "code in the kernel", "bpf", &[n(0), Scratch, n(16)]),
        attack("userfaultfd", "halts the kernel half-way", "userfaultfd", &[n(0)]),
        attack("keyring", "the user's keys", "keyctl", &[n(0), n(-4), n(0)]),
        attack(
            "keyring-add",
            "the user's keys",
            "add_key",
            &[Path(c"user"), Path(c"x"), n(0), n(0)],
        ),
        attack(
            "keyring-request",
            "the user's keys",
            "request_key",
            &[Path(c"user"), Path(c"x"), n(0), n(0)],
        ),
        attack(
            "perf",
            "watches other processes",
            "perf_event_open",
            &[Scratch, n(0), n(-1), n(-1), n(0)],
        ),
        attack(
            "terminal-input",
            "types into the operator's terminal",
            "ioctl",
            &[n(0), n(libc::TIOCSTI as i32), Scratch],
        ),
        attack("hang-up", "takes the operator's terminal", "vhangup", &[]),
        attack("kernel-log", "addresses of the kernel", "syslog", &[n(10), n(0), n(0)]),
        attack("load-module", "code in the kernel", "init_module", &[n(0), n(0), n(0)]),
        attack("load-module-file", "code in the kernel", "finit_module", &[n(3), n(0), n(0)]),
        attack("load-kernel", "another kernel", "kexec_load", &[n(0), n(0), n(0), n(0)]),
        attack("set-clock", "false time stamps", "clock_settime", &[n(0), n(0)]),
        attack("set-host-name", "another name for the machine", "sethostname", &[n(0), n(-1)]),
        attack(
            "accounting",
            "a file that the kernel writes",
            "acct",
            &[Path(c"/nonexistent/papaya")],
        ),
        attack(
            "swap",
            "memory on a disk of its own",
            "swapon",
            &[Path(c"/nonexistent/papaya"), n(0)],
        ),
        attack("shared-memory", "memory for others", "shmget", &[n(0), n(0), n(0o600)]),
        attack("semaphore", "a channel to others", "semget", &[n(0), n(-1), n(0o600)]),
        attack("message-queue", "a channel to others", "msgget", &[n(0x7061_7061), n(0)]),
        attack("named-queue", "a channel to others", "mq_open", &[Path(c"x"), n(0), n(0), n(0)]),
        attack("barrier", "interrupts other processors", "membarrier", &[n(0), n(0), n(0)]),
        attack("port-access", "the machine's ports", "iopl", &[n(3)]),
        attack("segments", "a wider kernel surface", "modify_ldt", &[n(0), Scratch, n(16)]),
        attack("lock-memory", "takes the machine's memory", "mlock", &[Scratch, n(4096)]),
        attack("lock-all-memory", "takes the machine's memory", "mlockall", &[n(1)]),
        attack("unlock-memory", "the keys go to swap", "munlock", &[Scratch, n(4096)]),
    ]
}
