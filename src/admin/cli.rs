//! The command line of `papayad`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{check, log};
use crate::config::{Config, default_path};
use crate::exit::{Exit, Failure};
use crate::room::offset::Offset;

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
    Run(super::run::Run),
    /// Find every mistake in the configuration and around it; touches nothing
    Check {
        /// Show the configuration that counts, where each value stands, and what a change takes
        #[arg(long)]
        print: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Look into the room's log
    Log {
        #[command(subcommand)]
        action: LogAction,
    },
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
    /// Compare the running service with what it must be; exits 77 on any difference
    Doctor(super::doctor::Doctor),
    /// What each process of the service may do
    Sandbox {
        #[command(subcommand)]
        action: super::sandbox::Action,
    },
    /// A room of your own on this machine, a token, and you in it; nothing stays behind
    Demo(super::demo::Demo),
}

#[derive(Subcommand, Debug)]
enum LogAction {
    /// Walk over the whole log; print what is in it, and every line that is no record
    Verify {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Print the records
    Export {
        /// Begin at this offset, which must be the beginning of a line
        #[arg(long, value_name = "OFFSET")]
        from: Option<u64>,
        /// Begin at this time: 2026-11-22T22:00:00Z, 2026-11-22 (local time), or an age such as 2h
        #[arg(long, value_name = "TIME", value_parser = crate::moment::parse_now)]
        since: Option<jiff::Timestamp>,
        /// How they look
        #[arg(long, value_enum, default_value_t)]
        format: log::Format,
        /// The same as --format json
        #[arg(long, conflicts_with = "format")]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Remove the oldest records for good; the service may run, and offsets stay what they are
    Prune(super::prune::Prune),
    /// Make the log append-only in the file system, as the service does when it starts as root
    Seal(Configured),
    /// Let root cut or remove the log again; the next start of the service seals it
    Unseal {
        /// Also while the service runs
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        configured: Configured,
    },
}

impl LogAction {
    fn run(&self) -> Result<Exit, Failure> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self {
            Self::Verify { json, configured } => log::verify(&configured.load()?, &mut out, *json),
            Self::Export { from, since, format, json, configured } => {
                let start = log::Start { from: from.map(Offset), since: *since };
                let format = if *json { log::Format::Json } else { *format };
                log::export(&configured.load()?, &mut out, start, format)
            }
            Self::Prune(prune) => super::prune::run(prune, &mut out),
            Self::Seal(configured) => super::seal::seal(&configured.load()?),
            Self::Unseal { force, configured } => super::seal::unseal(&configured.load()?, *force),
        }
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// The command's own.
    pub fn run(&self) -> Result<Exit, Failure> {
        match &self.command {
            Command::Check { print, json, configured } => {
                let run = if *print { check::print } else { check::check };
                return run(&configured.config, &mut std::io::stdout().lock(), *json);
            }
            Command::Log { action } => return action.run(),
            Command::Doctor(doctor) => return super::doctor::run(doctor),
            Command::Sandbox { action } => return super::sandbox::run(action),
            Command::Run(run) => super::run::run(run),
            Command::Token { action } => super::token::run(action),
            Command::Status(status) => super::service::status(status),
            Command::Kick(kick) => super::service::kick(kick),
            Command::Pause(configured) => super::service::pause(configured),
            Command::Resume(configured) => super::service::resume(configured),
            Command::Demo(demo) => super::demo::run(demo),
        }?;
        Ok(Exit::Ok)
    }
}
