//! What happens between `execve` of RECV and the line on which RECV confines itself: the dynamic
//! loader, the C library's and the language's start, the check of the inherited descriptors.
//!
//! It is a part of the launcher's filter alone, which RECV is under until then. Landlock decides
//! which files the loader may open.

use libc::{
    AT_EMPTY_PATH, MAP_GROWSDOWN, MAP_SHARED, O_ACCMODE, O_CREAT, O_TRUNC, PROT_EXEC, PROT_READ,
    PROT_WRITE, R_OK,
};

use super::{Arg, Rule, Test, allow, int, not_there};

const READ_ONLY: Arg =
    Arg { index: 2, name: "flags", test: Test::IntWithout(O_ACCMODE | O_CREAT | O_TRUNC) };

const CODE: Arg = Arg { index: 2, name: "prot", test: Test::LongWithout(PROT_WRITE as u64) };
const DATA: Arg = Arg { index: 2, name: "prot", test: Test::LongWithout(PROT_EXEC as u64) };
const PRIVATE: Arg =
    Arg { index: 3, name: "flags", test: Test::IntWithout(MAP_SHARED | MAP_GROWSDOWN) };
/// Code that may be jumped into at marked places only (`PROT_BTI` of aarch64; elsewhere an error).
const MARKED_CODE: Arg =
    Arg { index: 2, name: "prot", test: Test::Long(&[(PROT_READ | PROT_EXEC) as u64 | 0x10]) };

/// The rules.
pub const RULES: &[Rule] = &[
    allow(
        "execveat",
        &[int(4, "flags", &[AT_EMPTY_PATH])],
        "RECV is executed anew for each client, at fresh addresses",
    ),
    allow("openat", &[READ_ONLY], "the loader opens libraries; the launcher its configuration"),
    allow("pread64", &[], "the loader reads program headers"),
    allow("fstat", &[], "the loader looks at the libraries")
        .rare("other C libraries; glibc 2.36 of Debian 12 calls newfstatat"),
    allow(
        "newfstatat",
        &[int(3, "flags", &[0, AT_EMPTY_PATH])],
        "the same; and the count of threads under /proc",
    ),
    allow("statx", &[], "the runtime's way to look at a file"),
    allow("access", &[int(1, "mode", &[R_OK])], "the loader asks for /etc/ld.so.preload"),
    allow("faccessat", &[int(2, "mode", &[R_OK])], "the same on processors without access")
        .rare("processors without access, such as aarch64"),
    allow("readlinkat", &[], "the loader finds its origin")
        .rare("a static program, or one whose libraries stand beside it ($ORIGIN)"),
    allow("readlink", &[], "the same on processors that have it")
        .rare("a static program, or one whose libraries stand beside it ($ORIGIN)"),
    allow("mmap", &[CODE, PRIVATE], "the loader maps code, which cannot be written"),
    allow("mmap", &[DATA, PRIVATE], "the loader maps data, which cannot be executed"),
    allow("mprotect", &[DATA], "the loader protects what it has relocated"),
    allow("mprotect", &[MARKED_CODE], "the loader marks the program's code on aarch64")
        .rare("aarch64, and a program all of whose code was compiled for it"),
    allow("arch_prctl", &[], "the C library sets the thread pointer and asks for shadow stacks"),
    allow("set_tid_address", &[], "the C library's start"),
    allow("set_robust_list", &[], "the C library's start, and each fork"),
    not_there("rseq", "the C library's start: without it there is less for the kernel to do")
        .rare("a C library that does not heed what it is told in its environment"),
    allow(
        "prlimit64",
        &[int(0, "pid", &[0]), int(1, "resource", &[libc::RLIMIT_STACK as i32])],
        "the C library asks for the stack's size",
    ),
    allow("sched_getaffinity", &[], "Rust's runtime asks for the stack's extent").rare(
        "papayad-session begins with it where the C library is not glibc; a test's stand-in does",
    ),
    allow("uname", &[], "static C libraries ask for the kernel's version")
        .rare("the suite is not linked statically"),
    allow(
        "getsockopt",
        &[int(1, "level", &[libc::SOL_SOCKET]), int(2, "option", &[libc::SO_TYPE])],
        "the check that the fixed descriptors are what they must be",
    ),
    not_there("clone3", "the C library may try it first to make a process; then clone")
        .rare("glibc 2.36 forks by clone, others may not; without this the room would end then"),
];
