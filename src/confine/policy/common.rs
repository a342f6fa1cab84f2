//! What the language's runtime and the C library do in every process, whatever its role.
//! None of it takes a path or reaches another process.

use libc::{
    FUTEX_PRIVATE_FLAG, FUTEX_WAKE, MADV_DONTNEED, MADV_FREE, MAP_ANONYMOUS, MAP_NORESERVE,
    MAP_PRIVATE, MREMAP_MAYMOVE, PROT_EXEC,
};

use super::{Arg, Rule, Test, allow, int};

/// glibc 2.42 guards stacks with these instead of `mprotect` (linux/mman.h).
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// Memory that the kernel may drop, with this and `MAP_ANONYMOUS`: the state of vDSO getrandom,
/// which glibc uses since 2.41 (linux/mman.h).
const MAP_DROPPABLE: i32 = 0x08;

/// An anonymous mapping that cannot be executed.
const NO_CODE: Arg = Arg { index: 2, name: "prot", test: Test::LongWithout(PROT_EXEC as u64) };
/// Private memory alone: neither shared memory nor a stack that grows is counted by RLIMIT_DATA.
const ANONYMOUS: Arg = int(
    3,
    "flags",
    &[
        MAP_PRIVATE | MAP_ANONYMOUS,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
        MAP_DROPPABLE | MAP_ANONYMOUS,
    ],
);

/// The rules.
pub const RULES: &[Rule] = &[
    allow("exit", &[], "ends a thread; the only one")
        .rare("a C library may end so where exit_group fails; it takes nothing but its own life"),
    allow("exit_group", &[], "ends the process"),
    allow("rt_sigreturn", &[], "the kernel's way out of a signal handler"),
    allow("restart_syscall", &[], "the kernel's way back into a call after a stop").rare(
        "the kernel makes it itself when a process that waits is stopped and goes on: by a \
         debugger, SIGSTOP, or the freezer before a suspend",
    ),
    allow("rt_sigprocmask", &[], "SIGUSR1 is blocked outside the wait; vDSO getrandom since 2.41"),
    allow("sigaltstack", &[], "papayad's runtime removes its overflow stack at the end of main"),
    allow("gettid", &[], "the runtime names the thread in the message of a panic"),
    allow(
        "fcntl",
        &[int(1, "cmd", &[libc::F_GETFD])],
        "the runtime makes sure that a descriptor is open before it closes it, in debug builds",
    ),
    allow("clock_gettime", &[], "time stamps, where the vDSO has no fast clock")
        .rare("machines without a steady counter, many virtual ones among them, always call"),
    allow(
        "getrandom",
        &[int(2, "flags", &[0, libc::GRND_NONBLOCK as i32, libc::GRND_INSECURE as i32])],
        "nonces, and the seeds of hash maps",
    ),
    allow(
        "futex",
        &[int(1, "op", &[FUTEX_WAKE | FUTEX_PRIVATE_FLAG])],
        "the runtime's locks wake whoever waits, though with one thread nobody does",
    )
    .rare(
        "pthread_once of the C library wakes whether anyone waits or not, as when a panic unwinds",
    ),
    allow("brk", &[], "the keeper's heap; the launcher's filter, above all others, does nothing"),
    allow(
        "mmap",
        &[NO_CODE, ANONYMOUS],
        "malloc and getrandom; never a file, never code, all counted",
    ),
    allow("munmap", &[], "the heap of malloc"),
    allow("mremap", &[int(3, "flags", &[MREMAP_MAYMOVE])], "realloc of large buffers")
        .rare("malloc grows only buffers of 128 KiB and more so, and raises that bound as it goes"),
    allow(
        "madvise",
        &[int(2, "advice", &[MADV_DONTNEED, MADV_FREE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE])],
        "the heap is given back once a filter is compiled, the stack after loading one; glibc 2.42 \
         sets guard pages so",
    ),
];
