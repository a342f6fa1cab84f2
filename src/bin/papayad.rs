//! The daemon and its administration; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    papayachat::admin::main()
}
