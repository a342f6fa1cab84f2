//! `papaya`, the terminal client. All of it is in the library: [`papayachat::client`].

use std::process::ExitCode;

fn main() -> ExitCode {
    papayachat::client::main()
}
