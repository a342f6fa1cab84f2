//! What no policy may ever come to allow, written by hand: tests that are made of a policy's own
//! rules hold for a bad one too.

use super::*;

/// The processes that a client's bytes reach, once their work has begun.
const WORKERS: [Role; 2] = [Role::RecvJoined, Role::Send];
/// All but the launcher, whose filter is the union of theirs.
const BELOW_THE_LAUNCHER: [Role; 5] =
    [Role::Keeper, Role::Listener, Role::Recv, Role::RecvJoined, Role::Send];

/// Fails for rules of these roles that are about one of these calls.
fn none_has(roles: &[Role], calls: &[&str]) {
    for role in roles {
        for (file, rule) in filter_rules(*role) {
            assert!(!calls.contains(&rule.call), "{role}: {file}: {}", rule.call);
        }
    }
}

#[test]
fn no_worker_has_a_call_that_takes_a_path_or_reaches_another_process() {
    #[rustfmt::skip]
    const NEVER: &[&str] = &[
        // Paths.
        "access", "chdir", "chmod", "chroot", "creat", "execve", "execveat", "faccessat",
        "faccessat2", "fchmodat", "fchownat", "getcwd", "link", "linkat", "mkdir", "mkdirat",
        "mknodat", "mount", "name_to_handle_at", "newfstatat", "open", "open_by_handle_at",
        "open_tree", "openat", "openat2", "readlink", "readlinkat", "rename", "renameat2",
        "setxattr", "stat", "statfs", "statx", "symlink", "symlinkat", "truncate", "unlink",
        "unlinkat", "utimensat",
        // Other processes, and being one with others.
        "clone", "clone3", "fork", "ioprio_set", "kcmp", "kill", "pidfd_getfd", "pidfd_open",
        "pidfd_send_signal", "process_madvise", "process_vm_readv", "process_vm_writev", "prlimit64",
        "ptrace", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sched_setaffinity", "sched_setattr",
        "sched_setparam", "sched_setscheduler", "setns", "setpgid", "setpriority", "setsid",
        "tgkill", "tkill", "unshare", "vfork", "wait4",
        // New descriptors, and what changes the ones that there are.
        "accept4", "bind", "connect", "copy_file_range", "dup", "dup2", "dup3", "epoll_create1",
        "eventfd2", "fallocate", "fchmod", "fchown", "fsetxattr", "ftruncate", "io_uring_setup",
        "ioctl", "memfd_create", "memfd_secret", "pipe", "pipe2", "pwrite64", "pwritev",
        "pwritev2", "recvmmsg", "recvmsg", "sendfile", "sendmmsg", "sendmsg", "setsockopt",
        "signalfd4", "socket", "socketpair", "splice", "timerfd_create", "writev",
        // Code, and the confinement itself.
        "bpf", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "mprotect",
        "personality", "pkey_mprotect", "prctl", "remap_file_pages", "seccomp", "setrlimit", "setuid",
        "userfaultfd",
    ];
    // What is not here although it takes a process: `waitid` looks at a child of one's own.
    none_has(&WORKERS, NEVER);
    // SEND shows its place in what it reads by it; whoever appends must not have a place at all.
    none_has(&[Role::RecvJoined], &["lseek"]);
    assert!(NEVER.iter().all(|call| calls::number(call).is_some()), "a call that is not known");
}

#[test]
fn nobody_below_the_launcher_executes_connects_signals_or_makes_code() {
    #[rustfmt::skip]
    none_has(&BELOW_THE_LAUNCHER, &[
        "execve", "execveat", "connect", "socket", "bind", "listen", "kill", "tgkill", "tkill",
        "ptrace", "mprotect", "pkey_mprotect", "dup", "dup2", "dup3", "ioctl", "setsid", "setpgid",
        "ftruncate", "fallocate", "unlinkat", "renameat2", "linkat", "pwrite64", "pwritev2",
    ]);
}

/// Whatever stands behind the other descriptors, and will stand there one day.
#[test]
fn a_descriptor_is_looked_at_wherever_a_call_takes_one() {
    #[rustfmt::skip]
    const TAKE_A_DESCRIPTOR: &[&str] = &[
        "accept4", "close", "close_range", "fcntl", "fdatasync", "flock", "fstat", "fsync",
        "getdents64", "getpeername", "getsockname", "getsockopt", "landlock_add_rule",
        "landlock_restrict_self", "listen", "lseek", "openat", "pread64", "preadv", "read", "readv",
        "recvfrom", "recvmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "write", "writev",
    ];
    // Whether a descriptor closes at an exec is no secret, and there is no exec. A domain, whatever
    // the number stands for, can only take something away from this process.
    let harmless = |rule: &Rule| {
        rule.call == "landlock_restrict_self"
            || rule.call == "fcntl"
                && rule.args.iter().any(|arg| arg.test == Test::Int(&[libc::F_GETFD]))
    };
    for role in BELOW_THE_LAUNCHER {
        let rules = filter_rules(role);
        let takes = |rule: &Rule| TAKE_A_DESCRIPTOR.contains(&rule.call) && !harmless(rule);
        for (file, rule) in rules.into_iter().filter(|(_, rule)| takes(rule)) {
            let checked = rule.args.iter().find(|arg| arg.index == 0).map(|arg| arg.test);
            let narrow = match checked {
                Some(Test::Int(numbers)) => numbers.iter().all(|number| *number >= 0),
                Some(Test::IntRange(first, _)) => first >= 0,
                _ => false,
            };
            assert!(narrow, "{role}: {file}: {} with {checked:?}", rule.call);
        }
    }
}

/// Questions with the one good answer. A register that is not given is one that no rule may need.
#[test]
fn the_room_s_rules_are_in_the_filters() {
    use super::{keeper, listener, recv, send};
    const SENDING: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    const RECEIVING: i32 = libc::MSG_DONTWAIT;
    const CLOSING: i32 = libc::MSG_CMSG_CLOEXEC;
    let refuses = |role: Role, call: &str, given: &[i32]| {
        let mut registers = [0x7000_0000; 6];
        for (register, value) in registers.iter_mut().zip(given) {
            *register = u64::from(*value as u32);
        }
        let found = answer(&rules(role), call, &registers);
        assert_eq!(found, None, "{role}: {call} {given:?}");
    };
    for fd in [recv::CLIENT, recv::LOG_APPEND, recv::LOG_TAIL, 3, 64, 1000, -100] {
        refuses(Role::Send, "recvfrom", &[fd, 0, 0, RECEIVING, 0, 0]); // SEND hears RECV alone,
        refuses(Role::Send, "read", &[fd]);
    }
    for fd in [send::LOG, recv::LOG_APPEND, send::GATE, recv::KEEPER, recv::BELL, send::CLIENT] {
        refuses(Role::Send, "write", &[fd]); // writes to no file, rings no bell,
    }
    for call in ["sendto", "write", "sendmsg"] {
        refuses(Role::RecvJoined, call, &[recv::CLIENT, 0, SENDING, SENDING, 0, 0]); // RECV does not answer,
        refuses(Role::Recv, call, &[recv::LOG_READ, 0, SENDING, SENDING, 0, 0]);
    }
    for fd in [recv::LOG_READ, recv::LOG_TAIL, recv::GATE] {
        refuses(Role::RecvJoined, "write", &[fd]); // and writes to the log only at its end.
    }
    for role in WORKERS {
        for cmd in [libc::F_SETFL, libc::F_SETFD, libc::F_DUPFD, libc::F_SETOWN, libc::F_SETLK] {
            for fd in 0..16 {
                refuses(role, "fcntl", &[fd, cmd]);
            }
        }
        for option in 0..80 {
            refuses(role, "prctl", &[option, 0, 0, 0, 0]);
        }
    }
    for role in BELOW_THE_LAUNCHER {
        for prot in [libc::PROT_EXEC, libc::PROT_EXEC | libc::PROT_READ, 7] {
            refuses(role, "mmap", &[0, 4096, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0]);
        }
        refuses(role, "mmap", &[0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, 5, 0]);
        let uncounted = [libc::MAP_SHARED, libc::MAP_PRIVATE | libc::MAP_GROWSDOWN, 3];
        for flags in uncounted.map(|flags| flags | libc::MAP_ANONYMOUS) {
            refuses(role, "mmap", &[0, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0]);
        }
        refuses(role, "clone", &[libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND]);
        refuses(role, "openat", &[libc::AT_FDCWD, 0, libc::O_RDONLY]);
    }
    for role in Role::ALL {
        refuses(role, "prctl", &[libc::PR_SET_DUMPABLE, 1, 0, 0, 0]);
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        refuses(role, "mmap", &[0, 4096, all, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0]);
        refuses(role, "mmap", &[0, 4096, all, libc::MAP_PRIVATE, 5, 0]);
        refuses(role, "mprotect", &[0x1000, 4096, libc::PROT_READ | libc::PROT_EXEC]);
        // What is sent connects nobody (TCP Fast Open), the launcher neither.
        for fd in 0..64 {
            refuses(role, "sendto", &[fd, 0, 0, SENDING, 0x1000, 16]);
            refuses(role, "sendto", &[fd, 0, 0, SENDING | libc::MSG_FASTOPEN, 0, 0]);
            refuses(role, "sendmsg", &[fd, 0, SENDING | libc::MSG_FASTOPEN]);
        }
    }
    for flags in [
        libc::O_WRONLY | libc::O_TRUNC,
        libc::O_WRONLY,
        libc::O_RDWR | libc::O_APPEND,
        libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT,
        libc::O_RDONLY | libc::O_CREAT,
    ] {
        refuses(Role::Keeper, "openat", &[keeper::STATE, 0, flags]);
    }
    for fd in [listener::FIRST_SOCKET, 20, listener::LAST] {
        for call in ["read", "recvfrom", "recvmsg"] {
            refuses(Role::Listener, call, &[fd, 0, RECEIVING | CLOSING, RECEIVING, 0, 0]); // It reads no client's byte.
        }
    }
}
