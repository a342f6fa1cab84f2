//! The program of RECV and SEND, which the daemon executes anew for each client; see the library.

use std::process::ExitCode;

use papayachat::sys::allocator::LargeBuffersApart;

#[global_allocator]
static MEMORY: LargeBuffersApart = LargeBuffersApart;

fn main() -> ExitCode {
    papayachat::daemon::session::main()
}
