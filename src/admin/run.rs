//! `papayad run`: the service, in the foreground.

use super::cli::Configured;
use crate::daemon::launcher;
use crate::exit::Failure;

/// Runs the service until it is told to stop.
///
/// # Errors
/// Why it could not start, or why it ended by itself.
pub fn run(configured: &Configured) -> Result<(), Failure> {
    let path = std::path::absolute(&configured.config).unwrap_or(configured.config.clone());
    launcher::run(Config::load(&path)?, &path)
}

use crate::config::Config;
