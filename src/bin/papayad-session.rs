//! The program of RECV and SEND, which the daemon executes anew for each client; see the library.
#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

use papayachat::sys::allocator::LargeBuffersApart;

#[global_allocator]
static MEMORY: LargeBuffersApart = LargeBuffersApart;

#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
#[path = "../sys/entry.rs"]
mod entry;

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    papayachat::daemon::session::main().into()
}
