//! The list of what a confined process must not be able to do, as data. `tests/` and
//! `papayad sandbox test` make a process of each role try them; a filter must kill each.
//!
//! The table is the only place where an [`Attack`] is made, so that the one unsafe line that carries
//! them out can rely on this rule: a pointer argument is null, a static string that the call only
//! reads, or the scratch page; and no call changes other memory of the process.

use std::ffi::CStr;

use super::Role;

/// An argument of an attack.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A number, or a null pointer.
    Number(i64),
    /// A path.
    Path(&'static CStr),
    /// The address of a page that the call may read and write.
    Scratch,
}

/// A system call that no role below the launcher may make, or only some may.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// A name for the table.
    name: &'static str,
    /// What an attacker would gain.
    gain: &'static str,
    call: &'static str,
    arguments: [Value; 6],
    /// Roles whose work includes this call, so that it is no attack there.
    not_for: &'static [Role],
}

impl Attack {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What an attacker would gain.
    pub const fn gain(&self) -> &'static str {
        self.gain
    }

    /// The system call's name.
    pub const fn call(&self) -> &'static str {
        self.call
    }

    /// Whether this must fail in a role.
    pub fn is_for(&self, role: Role) -> bool {
        !self.not_for.contains(&role)
    }

    /// The arguments.
    pub const fn arguments(&self) -> &[Value; 6] {
        &self.arguments
    }

    /// The call's number; `None` where this processor has no such call.
    #[cfg(target_os = "linux")]
    pub fn number(&self) -> Option<std::ffi::c_long> {
        match super::policy::calls::number(self.call)? {
            super::policy::calls::Number::Is(number) => Some(number),
            super::policy::calls::Number::NotHere => None,
        }
    }
}

/// The attack of this name.
pub fn find(name: &str) -> Option<&'static Attack> {
    TABLE.iter().find(|attack| attack.name == name)
}

/// Every attack.
#[cfg(not(target_os = "linux"))]
pub const TABLE: &[Attack] = &[];

#[cfg(target_os = "linux")]
pub use linux::TABLE;

#[cfg(target_os = "linux")]
mod linux {
    use libc::{
        AF_INET, AF_UNIX, AT_EMPTY_PATH, AT_FDCWD, CLONE_THREAD, CLONE_VM, F_DUPFD, F_SETFL,
        F_SETOWN, MAP_ANONYMOUS, MAP_PRIVATE, O_RDONLY, O_RDWR, PROT_EXEC, PROT_READ, PROT_WRITE,
        PTRACE_ATTACH, RLIMIT_CORE, SIGKILL, SIGUSR1, SOCK_DGRAM, SOCK_STREAM,
    };

    use super::super::policy::recv::{LOG_APPEND, LOG_READ};
    use super::Value::{Path, Scratch};
    use super::{Attack, Role, Value};

    const WORKERS_ONLY: &[Role] = &[Role::Launcher, Role::Keeper];
    const NOT_LAUNCHER: &[Role] = &[Role::Launcher];

    const fn n(number: i32) -> Value {
        Value::Number(number as i64)
    }

    const fn attack(
        name: &'static str,
        gain: &'static str,
        call: &'static str,
        given: &[Value],
    ) -> Attack {
        let mut arguments = [Value::Number(0); 6];
        let mut index = 0;
        while index < given.len() {
            arguments[index] = given[index];
            index += 1;
        }
        Attack { name, gain, call, arguments, not_for: NOT_LAUNCHER }
    }

    impl Attack {
        const fn not_for(mut self, roles: &'static [Role]) -> Self {
            self.not_for = roles;
            self
        }
    }

    /// Every attack. The process that tries them has a parent to signal and may be lost.
    pub const TABLE: &[Attack] = &[
        // Signals, and everything else that reaches another process.
        attack("kill-group", "stops the room", "kill", &[n(0), n(SIGKILL)]),
        attack("kill-all", "stops all that the user runs", "kill", &[n(-1), n(0)]),
        attack("ring-by-signal", "wakes others unasked", "kill", &[n(0), n(SIGUSR1)]),
        attack("tgkill", "stops another process", "tgkill", &[n(1), n(1), n(0)]),
        attack(
            "queue-signal",
            "forges a signal's origin",
            "rt_sigqueueinfo",
            &[n(1), n(SIGUSR1), Scratch],
        ),
        attack("pidfd-open", "a handle on another process", "pidfd_open", &[n(1), n(0)]),
        attack(
            "trace",
            "reads and changes another process",
            "ptrace",
            &[n(PTRACE_ATTACH as i32), n(1)],
        ),
        attack(
            "read-memory",
            "reads another's keys",
            "process_vm_readv",
            &[n(1), Scratch, n(1), Scratch, n(1)],
        ),
        attack(
            "limit-other",
            "starves another process",
            "prlimit64",
            &[n(1), n(RLIMIT_CORE as i32), Scratch],
        ),
        attack("renice", "starves another process", "setpriority", &[n(0), n(1), n(19)]),
        attack("pin-other", "starves another process", "sched_setaffinity", &[n(1), n(8), Scratch]),
        attack("signal-by-io", "signals by F_SETOWN", "fcntl", &[n(0), n(F_SETOWN), n(1)]),
        attack("leave-group", "the bell no longer reaches it", "setpgid", &[n(0), n(0)]),
        attack("leave-session", "the bell no longer reaches it", "setsid", &[]),
        // Files.
        attack(
            "open",
            "reads any file",
            "openat",
            &[n(AT_FDCWD), Path(c"/etc/passwd"), n(O_RDONLY)],
        ),
        attack(
            "open2",
            "reads any file",
            "openat2",
            &[n(AT_FDCWD), Path(c"/etc/passwd"), Scratch, n(24)],
        ),
        attack(
            "reopen",
            "the log without its limits",
            "openat",
            &[n(AT_FDCWD), Path(c"/proc/self/fd/4"), n(O_RDWR)],
        ),
        attack(
            "stat",
            "learns of any file",
            "newfstatat",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), Scratch, n(0)],
        ),
        attack(
            "stat-past-descriptor",
            "learns of any file",
            "newfstatat",
            &[n(LOG_READ), Path(c"/etc/shadow"), Scratch, n(AT_EMPTY_PATH)],
        ),
        attack(
            "statx",
            "learns of any file",
            "statx",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), n(0), n(0), Scratch],
        ),
        attack(
            "readlink",
            "learns of any file",
            "readlinkat",
            &[n(AT_FDCWD), Path(c"/proc/self/exe"), Scratch, n(4096)],
        ),
        attack(
            "chmod",
            "opens a file to others",
            "fchmodat",
            &[n(AT_FDCWD), Path(c"/nonexistent"), n(0o777)],
        ),
        attack("unlink", "removes a file", "unlinkat", &[n(AT_FDCWD), Path(c"/nonexistent"), n(0)]),
        attack("list", "lists a directory", "getdents64", &[n(3), Scratch, n(4096)]),
        // The log.
        attack(
            "clear-append",
            "writes anywhere in the log",
            "fcntl",
            &[n(LOG_APPEND), n(F_SETFL), n(0)],
        ),
        attack(
            "write-elsewhere",
            "writes anywhere in the log",
            "pwrite64",
            &[n(LOG_APPEND), Scratch, n(1), n(0)],
        ),
        attack(
            "write-without-append",
            "writes anywhere in the log",
            "pwritev2",
            &[n(LOG_APPEND), Scratch, n(0), n(0), n(0), n(0x20)],
        ),
        attack("truncate", "destroys the log", "ftruncate", &[n(LOG_APPEND), n(0)]),
        attack("punch", "destroys the log", "fallocate", &[n(LOG_APPEND), n(3), n(0), n(4096)]),
        attack(
            "flags-by-ioctl",
            "clears the append-only flag",
            "ioctl",
            &[n(LOG_APPEND), n(0x4008_6602u32 as i32), Scratch],
        ),
        attack(
            "map-log",
            "changes the log in memory",
            "mmap",
            &[n(0), n(4096), n(PROT_READ), n(MAP_PRIVATE), n(LOG_READ), n(0)],
        ),
        attack("duplicate", "a descriptor outside the table", "dup", &[n(LOG_APPEND)]),
        attack(
            "duplicate-by-fcntl",
            "a descriptor outside the table",
            "fcntl",
            &[n(LOG_APPEND), n(F_DUPFD), n(0)],
        ),
        // The network.
        attack("socket-tcp", "speaks to anyone", "socket", &[n(AF_INET), n(SOCK_STREAM), n(0)]),
        attack("socket-udp", "speaks to anyone", "socket", &[n(AF_INET), n(SOCK_DGRAM), n(0)]),
        attack(
            "socket-unix",
            "speaks to other services",
            "socket",
            &[n(AF_UNIX), n(SOCK_STREAM), n(0)],
        ),
        attack("connect", "speaks to anyone", "connect", &[n(0), Scratch, n(16)]),
        attack("bind", "listens in the room's name", "bind", &[n(0), Scratch, n(16)]),
        // Code.
        attack("execute", "runs another program", "execve", &[Path(c"/bin/true"), n(0), n(0)]),
        attack("execute-memory", "a file to run from memory", "memfd_create", &[Path(c"x"), n(0)]),
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
            "make-code",
            "runs code of its own",
            "mprotect",
            &[Scratch, n(4096), n(PROT_READ | PROT_EXEC)],
        ),
        attack(
            "thread",
            "a thread that shares all",
            "clone",
            &[n(CLONE_VM | CLONE_THREAD), n(0), n(0), n(0), n(0)],
        ),
        attack("fork", "more processes", "clone", &[n(libc::SIGCHLD), n(0), n(0), n(0), n(0)])
            .not_for(&[Role::Launcher, Role::Recv]),
        // Privileges and the kernel's wider surface.
        attack("become-root", "root", "setuid", &[n(0)]),
        attack("namespace", "root in a namespace", "unshare", &[n(libc::CLONE_NEWUSER)]),
        attack("io-uring", "calls past the filter", "io_uring_setup", &[n(1), Scratch]),
        attack("bpf", "code in the kernel", "bpf", &[n(0), Scratch, n(16)]),
        attack("userfaultfd", "halts the kernel half-way", "userfaultfd", &[n(0)]),
        attack("keyring", "the user's keys", "keyctl", &[n(0), n(-4), n(0)]),
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
        attack(
            "receive-descriptor",
            "a descriptor after joining",
            "recvmsg",
            &[n(1), Scratch, n(libc::MSG_DONTWAIT)],
        )
        .not_for(&[Role::Launcher, Role::Keeper, Role::Listener, Role::Recv]),
        attack("pass-descriptor", "gives the log to another", "sendmsg", &[n(1), Scratch, n(0)])
            .not_for(&[Role::Launcher, Role::Keeper, Role::Listener]),
        attack(
            "own-filter",
            "a filter that fails calls as it likes",
            "seccomp",
            &[n(1), n(0), Scratch],
        )
        .not_for(&[Role::Launcher, Role::Recv]),
        attack("lock-memory", "takes the machine's memory", "mlock", &[Scratch, n(4096)])
            .not_for(WORKERS_ONLY),
    ];

    #[cfg(test)]
    mod tests {
        use super::super::super::policy::calls;
        use super::*;

        #[test]
        fn every_attack_has_a_name_of_its_own_and_a_known_call() {
            for (index, attack) in TABLE.iter().enumerate() {
                assert!(calls::number(attack.call).is_some(), "{}", attack.call);
                assert!(TABLE[..index].iter().all(|other| other.name != attack.name));
            }
        }
    }
}
