//! For tests of the confinement: a test starts its own program again as a process that confines
//! itself and does something; the test looks at how that process ended.
#![allow(clippy::expect_used)]

use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Output, Stdio};

use nix::sys::signal::Signal;
use papayachat::confine::violation::Violation;

#[allow(clippy::duplicate_mod)] // A test may use both that have it.
#[path = "../common/level.rs"]
mod level;

#[allow(unused_imports)]
pub use level::{exactly, level};

const PART: &str = "PAPAYA_TEST_PART";
const GIVEN: &str = "PAPAYA_TEST_GIVEN";

/// The part that this process is to play, when a test started it, and what it was given.
pub fn part() -> Option<(String, String)> {
    Some((std::env::var(PART).ok()?, std::env::var(GIVEN).unwrap_or_default()))
}

/// This test program again, in a process group of its own, in a part.
pub fn again(part: &str, given: &str) -> Command {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(program);
    command.env(PART, part).env(GIVEN, given).stdin(Stdio::null()).process_group(0);
    // A backtrace would open files, which is a violation like any other.
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    command
}

/// How a part ended, in words: "exit 0", "SIGSYS".
pub fn ending(output: &Output) -> String {
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(number)) => {
            Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string())
        }
        (None, None) => "neither ended nor killed".to_owned(),
    }
}

/// Fails unless a part ended as expected.
pub fn must_end(output: &Output, expected: &str) -> Result<(), libtest_mimic::Failed> {
    let found = ending(output);
    if found == expected {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let calls = if found == "SIGSYS" { recent_violations() } else { String::new() };
    Err(format!("expected {expected}, found {found}; it said:\n{said}\n{calls}").into())
}

/// The last few calls that the kernel's log says a filter killed for: which one it was this time.
fn recent_violations() -> String {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    let log =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut log) = log else { return "(the kernel's log cannot be read)".to_owned() };
    let mut record = [0; 8192];
    let mut found = Vec::new();
    // A read gives one record, and an error at the end.
    while let Ok(length) = log.read(&mut record) {
        found.extend(Violation::parse(&String::from_utf8_lossy(&record[..length])));
    }
    let last = found.iter().rev().take(5).map(|v| format!("kernel: {v}"));
    last.collect::<Vec<_>>().join("\n")
}

/// The exit code of a part that ends with this result.
#[allow(dead_code)]
pub fn outcome<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens files until the next one would have this number, and leaves them open.
#[allow(dead_code)]
pub fn fill_descriptors_below(number: i32) {
    for _ in 0..number {
        let file = std::fs::File::open("/dev/null").expect("/dev/null opens");
        let taken = OwnedFd::from(file).into_raw_fd();
        if taken + 1 >= number {
            break;
        }
    }
}

/// A child process with a copy of this one's memory; `None` in the child.
#[allow(dead_code, unsafe_code)]
pub fn fork() -> nix::Result<Option<nix::unistd::Pid>> {
    // SAFETY: called by parts only, which have a single thread, so that no lock is held by another
    // one that would not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}
