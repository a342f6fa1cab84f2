//! The command line of `papayad`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, default_path};
use crate::exit::Failure;

/// A hardened chat daemon, and its administration
#[derive(Parser, Debug)]
#[command(name = "papayad", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(Args, Debug, Clone)]
pub struct Configured {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "PAPAYAD_CONFIG", default_value = default_path())]
    pub config: PathBuf,
}

impl Configured {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or has mistakes.
    pub fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.config)
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve in the foreground, until SIGTERM
    Run(Configured),
    /// Give out and take back the tokens that people join with
    Token {
        #[command(subcommand)]
        action: super::token::Action,
    },
    /// Who is here
    Status(super::service::Status),
    /// End the sessions of a name, or of one RECV by its process id
    Kick(super::service::Kick),
    /// Close the door; whoever is connected stays
    Pause(Configured),
    /// Open the door again
    Resume(Configured),
    /// A room of your own on this machine, a token, and you in it; nothing stays behind
    Demo(super::demo::Demo),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// The command's own.
    pub fn run(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Run(configured) => super::run::run(configured),
            Command::Token { action } => super::token::run(action),
            Command::Status(status) => super::service::status(status),
            Command::Kick(kick) => super::service::kick(kick),
            Command::Pause(configured) => super::service::pause(configured),
            Command::Resume(configured) => super::service::resume(configured),
            Command::Demo(demo) => super::demo::run(demo),
        }
    }
}
