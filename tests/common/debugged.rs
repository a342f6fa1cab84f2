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
pub fn run(trials: Vec<Trial>) -> ExitCode {
    let trials = trials.into_iter().map(|trial| {
        let ignored = !service::is_root() || trial.has_ignored_flag();
        trial.with_ignored_flag(ignored)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// What takes the place of a test's trials on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub fn trials() -> Vec<Trial> {
    let trial = Trial::test("live processes (x86_64 only)", || Err("not on this processor".into()));
    vec![trial.with_ignored_flag(true)]
}
