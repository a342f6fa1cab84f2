//! `papayad log prune`: removes the oldest part of the log, openly, while the service may run.
//!
//! Runs as root, or as the user of a rootless service. The log records who did it and up to where;
//! the service is told and logs it. The append-only attribute is off for each step's moment only.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use clap::Args;
use jiff::Timestamp;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{User, geteuid};
use serde_json::json;

use super::cli::Configured;
use super::log;
use crate::config::Config;
use crate::confine::identity;
use crate::daemon::launcher::control::{Caller, Request};
use crate::daemon::launcher::seal::{self, SealError};
use crate::exit::{Exit, Failure};
use crate::room::log::LogError;
use crate::room::offset::Offset;
use crate::room::prune::{self, Keep, Pruner};
use crate::token::Name;
use crate::visible::visible;

/// Options of `papayad log prune`.
#[derive(Args, Debug)]
pub struct Prune {
    #[command(flatten)]
    what: What,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Remove the records from before this time: 2026-11-22T22:00:00Z, 2026-11-22, or an age: 30d
    #[arg(long, value_name = "TIME", value_parser = crate::moment::parse_now)]
    before: Option<Timestamp>,
    /// Keep the newest records, of this size at most: bytes, or with K, M, G, T (1024 of the next)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep: Option<u64>,
}

/// Why it stopped.
enum Stop {
    Log(LogError),
    Seal(SealError),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Runs `papayad log prune`.
///
/// # Errors
/// The log cannot be pruned; what was removed before the trouble is told.
pub fn run(options: &Prune, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = options.configured.load()?;
    let keep = match (options.what.before, options.what.keep) {
        (Some(time), _) => Keep::Since(time),
        (None, bytes) => Keep::Bytes(bytes.unwrap_or(u64::MAX)),
    };
    let reader = log::open(&config)?;
    let broken = |error: LogError| log::failure(&config, &error);
    let floor = reader.floor();
    let to = prune::cut(&reader, keep).map_err(broken)?;
    let end = reader.end().map_err(broken)?;
    let pruner = open(&config)?;
    let before = blocks(&pruner);
    let mut result = Ok(());
    if to > floor {
        eprintln!(
            "papayad: removing offsets {floor} to {to} of {end}; {} bytes of records stay",
            end.0 - to.0
        );
        result = remove(&config, &pruner, &reader, to);
        let service = Caller::connect(&config.paths.runtime);
        // Some steps may have been done, even if not all were.
        let now = reader.find_floor().map_err(broken)?.floor();
        if now > floor {
            tell(service, now);
        }
    }
    result?;
    let freed = before.saturating_sub(blocks(&pruner)).saturating_mul(512);
    let line = if options.json {
        json!({ "from": floor, "to": to, "end": end, "freed_bytes": freed }).to_string()
    } else if to > floor {
        format!("the log begins at offset {to} now; {freed} bytes of the disk are free again")
    } else {
        format!("there is nothing to remove: the log begins at offset {floor}")
    };
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| {
        Failure::new(Exit::CannotCreate, format!("cannot write to standard output: {e}"))
    })?;
    Ok(Exit::Ok)
}

fn open(config: &Config) -> Result<Pruner, Failure> {
    let dir = File::open(&config.paths.state).map_err(|e| {
        let message = format!("{}: cannot open it: {e}", config.paths.state.display());
        Failure::new(Exit::Refused, message)
    })?;
    let pruner = Pruner::open(dir.as_fd()).map_err(|e| log::failure(config, &e))?;
    Ok(pruner)
}

fn remove(
    config: &Config,
    pruner: &Pruner,
    reader: &crate::room::log::Reader,
    to: Offset,
) -> Result<(), Failure> {
    let keeper = match geteuid().is_root() {
        true => Some(
            identity::lookup(&config.identity.keeper_user)
                .map_err(|e| Failure::new(Exit::Config, e.to_string()))?
                .uid,
        ),
        false => None,
    };
    let result = pruner.prune(
        reader,
        to,
        &who(),
        &mut |job| {
            let mut done = Ok(());
            let held = HeldSignals::hold();
            let sealed = seal::lifted(pruner.file(), keeper, &mut || done = job());
            drop(held);
            done.map_err(Stop::Log)?;
            sealed.map_err(Stop::Seal)
        },
        &mut |_| {},
    );
    result.map_err(|stop| match stop {
        Stop::Log(error) => log::failure(config, &error),
        Stop::Seal(error @ (SealError::NotRoot | SealError::NotPermitted)) => Failure::new(
            Exit::Refused,
            format!("the log is append-only in the file system: {error}; run this as root"),
        ),
        Stop::Seal(error) => Failure::new(Exit::Unavailable, format!("room.log: {error}")),
    })
}

/// Ctrl-C waits until the log is append-only again.
struct HeldSignals(SigSet);

impl HeldSignals {
    fn hold() -> Self {
        let mut all = SigSet::all();
        // What this process does wrong itself must not be held back.
        [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGSYS]
            .into_iter()
            .for_each(|signal| all.remove(signal));
        let mut before = SigSet::empty();
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all), Some(&mut before));
        Self(before)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Who does this, as the record says: the system's name for this user.
fn who() -> Name {
    let user = User::from_uid(geteuid()).ok().flatten();
    let name = user.and_then(|user| user.name.parse().ok());
    name.or_else(|| format!("uid{}", geteuid()).parse().ok())
        .unwrap_or_else(|| unreachable!("a number makes a name"))
}

fn tell(service: Result<Option<Caller>, Failure>, to: Offset) {
    let request = Request::Pruned(to.0, who().to_string());
    match service.map(|caller| caller.map(|c| c.ask(&request))) {
        Ok(Some(Ok(answer))) if !answer.starts_with("error") => {}
        Ok(None) => eprintln!("papayad: no service is running; it will see for itself"),
        Ok(Some(Ok(answer))) => {
            eprintln!("papayad: the service was not told: {}", visible(answer.trim()));
        }
        Ok(Some(Err(failure))) | Err(failure) => {
            eprintln!("papayad: the service was not told: {failure}");
        }
    }
}

/// What the log takes of the disk, in units of 512 bytes.
fn blocks(pruner: &Pruner) -> u64 {
    let found = crate::sys::fd::status(pruner.file());
    found.map_or(0, |found| u64::try_from(found.st_blocks).unwrap_or(0))
}

/// A number of bytes, with a unit or without.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write bytes, or a number and K, M, G or T: 500M");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim_end_matches("iB").to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("3m", 3 << 20),
            ("2GiB", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5G", "1KB", "1 G", "99999999999T", "iB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
