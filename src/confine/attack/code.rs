//! Attacks that end in code or processes of the attacker's own.

use libc::{
    AT_EMPTY_PATH, AT_FDCWD, CLONE_FILES, CLONE_NEWUSER, CLONE_PARENT, CLONE_THREAD, CLONE_VM,
    EACCES, ENOSYS, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ,
    PROT_WRITE, SIGCHLD,
};

use super::super::Level;
use super::Value::{Path, Scratch};
use super::linux::{attack, n};
use super::{Attack, Role};

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack("execute", "runs another program", "execve", &[Path(c"/bin/true"), n(0), n(0)]),
        attack(
            "execute-at",
            "runs another program",
            "execveat",
            &[n(AT_FDCWD), Path(c"/bin/true"), n(0), n(0), n(AT_EMPTY_PATH)],
        )
        .fails_in_launcher(EACCES, Level::Landlock2),
        attack(
            "execute-descriptor",
            "runs what it has open",
            "execveat",
            &[n(5), Path(c""), n(0), n(0), n(AT_EMPTY_PATH)],
        )
        .fails_in_launcher(EACCES, Level::Landlock2),
        attack("execute-memory", "a file to run from memory", "memfd_create", &[Path(c"x"), n(0)]),
        attack("secret-memory", "memory that nobody sees", "memfd_secret", &[n(0)]),
        attack(
            "map-code",
            "runs code of its own",
            "mmap",
            &[
                n(0),
                n(4096),
                n(PROT_READ | PROT_WRITE | PROT_EXEC),
                n(MAP_PRIVATE | MAP_ANONYMOUS),
                n(-1),
                n(0),
            ],
        ),
        attack(
            "map-shared",
            "more memory than its limit",
            "mmap",
            &[n(0), n(4096), n(PROT_READ | PROT_WRITE), n(MAP_SHARED | MAP_ANONYMOUS), n(-1), n(0)],
        ),
        attack(
            "map-growsdown",
            "more memory than its limit",
            "mmap",
            &[
                n(0),
                n(4096),
                n(PROT_READ | PROT_WRITE),
                n(MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN),
                n(-1),
                n(0),
            ],
        ),
        attack(
            "map-code-file",
            "runs code from the log",
            "mmap",
            &[n(0), n(4096), n(PROT_READ | PROT_EXEC), n(MAP_PRIVATE), n(5), n(0)],
        )
        .not_for_launcher(),
        attack(
            "make-code",
            "runs code of its own",
            "mprotect",
            &[Scratch, n(4096), n(PROT_READ | PROT_EXEC)],
        ),
        attack(
            "make-code-by-key",
            "runs code of its own",
            "pkey_mprotect",
            &[Scratch, n(4096), n(PROT_READ | PROT_EXEC), n(-1)],
        ),
        attack(
            "reorder-pages",
            "one page in another's place",
            "remap_file_pages",
            &[Scratch, n(0), n(0), n(0), n(0)],
        ),
        attack(
            "thread",
            "a thread that shares all",
            "clone",
            &[n(CLONE_VM | CLONE_THREAD), n(0), n(0), n(0), n(0)],
        ),
        attack(
            "share-descriptors",
            "a process that shares its descriptors",
            "clone",
            &[n(CLONE_FILES | SIGCHLD), n(0), n(0), n(0), n(0)],
        ),
        attack(
            "clone-as-sibling",
            "a child of the launcher",
            "clone",
            &[n(CLONE_PARENT | SIGCHLD), n(0), n(0), n(0), n(0)],
        ),
        attack(
            "clone-namespace",
            "root in a namespace",
            "clone",
            &[n(CLONE_NEWUSER | SIGCHLD), n(0), n(0), n(0), n(0)],
        ),
        attack("clone3", "a process with flags nobody sees", "clone3", &[Scratch, n(88)])
            .fails_in_launcher(ENOSYS, Level::Seccomp),
        attack("fork", "more processes", "clone", &[n(SIGCHLD), n(0), n(0), n(0), n(0)])
            .not_for(&[Role::Launcher, Role::Recv]),
        attack("fork-old", "more processes", "fork", &[]),
        attack("new-pipe", "a channel that nobody checks", "pipe2", &[Scratch, n(0)]),
        attack("new-event", "a channel that nobody checks", "eventfd2", &[n(0), n(0)]),
        attack("new-epoll", "waits past the policy", "epoll_create1", &[n(0)]),
        attack(
            "new-signal-descriptor",
            "takes signals",
            "signalfd4",
            &[n(-1), Scratch, n(8), n(0)],
        ),
        attack("new-timer", "time past the policy", "timerfd_create", &[n(1), n(0)]),
        attack("timer-signal", "signals by a timer", "timer_create", &[n(1), Scratch, Scratch]),
        attack("interval-signal", "signals by a timer", "setitimer", &[n(0), n(0), n(0)]),
    ]
}
