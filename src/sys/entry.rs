//! Where `papayad-session` begins on Linux with glibc: main(3) itself, without what Rust's runtime does
//! before it. That would read `/proc/self/maps` and make a stack to report an overflow on, by a handler that
//! RECV takes away again (`signal::let_faults_kill`), and leave two pages behind in each process of each
//! client. Arguments are noted by the standard library before this, at glibc's word (`.init_array`); which of
//! descriptors 0 to 2 are open RECV looks at itself; SIGPIPE is ignored by `session::main` where it matters.
//!
//! Of that program alone: a library must not have a `main`.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use papayachat::daemon::session;

// SAFETY: the program's only `main`, with the signature that the C library calls it by.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    // A panic must not unwind into the C library; its message is out by then.
    std::panic::catch_unwind(session::main).map_or(101, c_int::from)
}
