//! The configuration's file: reading it, and what a running service can take over.

use std::io;
use std::path::Path;

use super::{Config, default_path};
use crate::exit::{Exit, Failure};

/// The largest configuration file in bytes.
const FILE_MAX: u64 = 1 << 20;

impl Config {
    /// Reads a configuration file. The default file may be missing: every key has a default.
    ///
    /// # Errors
    /// It cannot be read, or has mistakes; the failure's message has a line for each.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && path == Path::new(default_path()) => {
                return Ok(Self::default());
            }
            other => other.map_err(|e| {
                let message = format!("cannot read {}: {e}; see --config", path.display());
                Failure::new(Exit::Config, message)
            })?,
        };
        Self::parse(&text, &path.display().to_string()).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(Exit::Config, lines.join("\n"))
        })
    }

    /// The keys that differ from `running` and cannot change while a service runs.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let different = [
            (self.listen != running.listen, "listen"),
            (self.identity != running.identity, "identity"),
            (self.paths != running.paths, "paths"),
            (self.sandbox != running.sandbox, "sandbox"),
            (self.log.presence != running.log.presence, "log.presence"),
            (self.limits.clients != running.limits.clients, "limits.clients"),
            (self.limits.startups != running.limits.startups, "limits.startups"),
        ];
        different.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key).collect()
    }
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}
