//! The command line of `papaya`.

use clap::{Parser, Subcommand};

use super::history::History;
use super::join::Join;
use super::profile::Action;
use super::send::Send;
use super::tail::Tail;
use crate::exit::Failure;

/// Talk in a papayachat room
#[derive(Parser, Debug)]
#[command(name = "papaya", version, arg_required_else_help = false)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Enter the room and talk
    Join(Join),
    /// Send messages; ends with 0 when all are stored
    Send(Send),
    /// Print the last messages, and what comes
    Tail(Tail),
    /// Print what was said
    History(History),
    /// Store servers and tokens under names
    Profile {
        #[command(subcommand)]
        action: Action,
    },
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// The command's own.
    pub fn run(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Join(join) => super::join::command(join),
            Command::Send(send) => super::send::run(send),
            Command::Tail(tail) => super::tail::run(tail),
            Command::History(history) => super::history::run(history),
            Command::Profile { action } => super::profile::run(action),
        }
    }
}
