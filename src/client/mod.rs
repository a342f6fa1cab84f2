//! The commands of `papaya`, one file a command, and the session that they share. Everything that
//! comes from the server is hostile here: it is bounded before it is kept, and filtered before it
//! is shown.

pub mod access;
pub mod address;
pub mod backoff;
pub mod cli;
pub mod dial;
pub mod display;
pub mod history;
pub mod join;
pub mod lines;
pub mod link;
pub mod outbox;
pub mod output;
pub mod profile;
pub mod reader;
pub mod send;
pub mod session;
pub mod stdin;
pub mod tail;
pub mod trouble;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;

/// The definition of the command line, of which manual page and completions are made.
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// The whole program `papaya`.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Err(failure) = access::refuse_tokens(arguments.iter().map(OsString::as_os_str)) {
        return failure.report("papaya").into();
    }
    match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report("papaya").into(),
        },
        Err(error) => {
            // Help and version are errors to the parser, and go to stdout.
            let asked_for = !error.use_stderr();
            let _ = error.print();
            if asked_for { ExitCode::SUCCESS } else { ExitCode::from(Exit::Usage as u8) }
        }
    }
}
