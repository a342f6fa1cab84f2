//! The program of RECV and SEND, which the daemon executes anew for each client; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    papayachat::daemon::session::main()
}
