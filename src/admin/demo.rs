//! `papayad demo`: a room on loopback in a temporary directory, a token, and the person in it.

use clap::Args;

use crate::exit::Failure;

/// Options of `papayad demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Play a short conversation between two clients, and end
    #[arg(long)]
    script: bool,
}

/// Runs the demo.
///
/// # Errors
/// The room does not start.
pub fn run(_demo: &Demo) -> Result<(), Failure> {
    Ok(())
}
