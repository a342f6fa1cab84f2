//! The commands of `papayad`, one file a command.

pub mod check;
mod cli;
mod demo;
mod doctor;
pub mod log;
mod prune;
mod run;
mod sandbox;
mod seal;
mod service;
mod token;

use std::process::ExitCode;

use clap::Parser;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return usage(&message),
    };
    match cli.run() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => failure.report("papayad").into(),
    }
}

/// The definition of the command line, of which manual page and completions are made.
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// Help and version go to stdout and are no error; everything else is exit code 64.
fn usage(message: &clap::Error) -> ExitCode {
    let _ = message.print();
    ExitCode::from(if message.use_stderr() { crate::exit::Exit::Usage as u8 } else { 0 })
}
