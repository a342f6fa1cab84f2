//! How a program of this package ends: the exit codes of sysexits(3), and the one error that
//! `main` prints. Every layer below has an error type of its own and converts it here.

use std::fmt;
use std::io::{self, Write};

use crate::visible::visible;

/// The exit codes that scripts may rely on (a subset of sysexits(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// The command line was wrong (`EX_USAGE`).
    Usage = 64,
    /// Data that was given is damaged or malformed (`EX_DATAERR`).
    BadData = 65,
    /// A service, a host or a file is not reachable at the moment (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A bug or a broken promise of the system (`EX_SOFTWARE`).
    Internal = 70,
    /// A file or a socket could not be created (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// The other side says no, or fails to prove who it is (`EX_NOPERM`).
    Refused = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

/// Prints on stdout. Whoever closed the pipe has read enough, which is no error.
///
/// # Errors
/// The text cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What becomes of an output: whoever closed the pipe has read enough.
///
/// # Errors
/// Any other problem than a closed pipe.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::CannotCreate, format!("cannot write the output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Why a program ends without success: a sentence for a person, and a code for a script.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What was wrong, where, and what to do; may have several lines.
    pub message: String,
}

impl Failure {
    /// A failure with this exit code and sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Prints the sentence behind the program's name on stderr, and gives the exit status for `main`.
    pub fn report(&self, program: &str) -> u8 {
        for line in self.message.lines() {
            // Some sentences hold what a service, a file or a peer has said.
            eprintln!("{program}: {}", visible(line));
        }
        self.exit as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
