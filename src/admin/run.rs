//! `papayad run`: the service, in the foreground.

use clap::Args;

use super::cli::Configured;
use crate::config::Config;
use crate::daemon::launcher;
use crate::exit::Failure;

/// Options of `papayad run`.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    configured: Configured,
    /// End when standard input does, so that whoever started the service cannot leave it behind
    #[arg(long)]
    while_stdin_is_open: bool,
    /// Standard output is papayad-session, open, whose directory may be closed to this user (Linux)
    #[arg(long, hide = true)]
    session_is_stdout: bool,
}

/// Runs the service until it is told to stop.
///
/// # Errors
/// Why it could not start, or why it ended by itself.
pub fn run(run: &Run) -> Result<(), Failure> {
    let given = &run.configured.config;
    let path = std::path::absolute(given).unwrap_or_else(|_| given.clone());
    launcher::run(Config::load(&path)?, &path, run.while_stdin_is_open, run.session_is_stdout)
}
