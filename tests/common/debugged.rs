//! The frame of tests in which live processes of a service do an attacker's bidding, through a
//! debugger: what they need, and who can run them. Root alone may have another process do its
//! bidding, and the debugger knows x86_64 alone: elsewhere they are reported as ignored.
//!
//! A test of this kind has its trials in a module for x86_64, and in its place this one for others.

#[cfg(target_arch = "x86_64")]
#[path = "people.rs"]
pub mod people;
#[cfg(target_arch = "x86_64")]
#[path = "processes.rs"]
pub mod processes;
#[cfg(target_arch = "x86_64")]
#[path = "raw_client.rs"]
pub mod raw_client;
#[path = "service.rs"]
pub mod service;
#[cfg(target_arch = "x86_64")]
#[path = "tracer.rs"]
pub mod tracer;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Runs the trials, as root.
#[allow(dead_code)] // One test needs the other.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    run_with(&Arguments::from_args(), trials)
}

/// The same, one after the other: what the kernel counts by users, as descriptors that are under way,
/// must not make one trial fail by what another does on purpose.
#[allow(dead_code)]
pub fn run_one_by_one(trials: Vec<Trial>) -> ExitCode {
    run_with(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials)
}

fn run_with(arguments: &Arguments, trials: Vec<Trial>) -> ExitCode {
    let trials = trials.into_iter().map(|trial| {
        let ignored = !service::is_root() || trial.has_ignored_flag();
        trial.with_ignored_flag(ignored)
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

/// What takes the place of a test's trials on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub fn trials() -> Vec<Trial> {
    let trial = Trial::test("live processes (x86_64 only)", || Err("not on this processor".into()));
    vec![trial.with_ignored_flag(true)]
}
