//! `papayad doctor`: compares the running service with what it must be, process by process.
//!
//! Asks the service over its control socket who its processes are, and the kernel (`/proc`) what
//! each of them is; the expectations are the policies' data and the configuration. Changes nothing.
//! Runs as root; a rootless service's own user sees less, and it says what it could not see.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))] // Processes can be read on Linux alone.

mod descriptors;
mod files;
mod filter;
mod group;
mod identity;
mod level;
mod limits;
mod operator;
#[cfg(all(test, target_os = "linux"))]
mod planted;
mod proc;
mod service;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::cli::Configured;
use crate::config::Config;
use crate::exit::{Exit, Failure, written};
use crate::visible::visible;

/// A running service changes: a client comes, RECV is not confined yet. What differs only at
/// first is not a difference; it has to be there this many times …
const LOOKS: u32 = 10;
/// … with this pause between them.
const PAUSE: Duration = Duration::from_millis(100);

/// Options of `papayad doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// What one check found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// A process or a file.
    place: String,
    /// What was looked at.
    check: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// As it must be: how it is.
    Good(String),
    /// Not as it must be: what is, and what to do.
    Differs { what: String, remedy: String },
    /// Could not be looked at: why.
    Unseen(String),
}

impl Outcome {
    fn differs(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Differs { what: what.into(), remedy: remedy.into() }
    }

    /// As it must be, or a list of what is not.
    fn of(good: impl Into<String>, wrong: Vec<String>, remedy: impl Into<String>) -> Self {
        if wrong.is_empty() {
            Self::Good(good.into())
        } else {
            Self::differs(wrong.join("; "), remedy)
        }
    }
}

/// What to do about a process that is not as its policy says: it is not a matter of settings.
const RESTART: &str = "restart the service; if it comes back, report it as a bug";

/// Runs `papayad doctor`.
///
/// # Errors
/// No service is running, or it cannot be asked. Differences are no error but [`Exit::Refused`].
pub fn run(options: &Doctor) -> Result<Exit, Failure> {
    let config = options.configured.load()?;
    let mut findings = look_until_calm(&config)?;
    findings.extend(operator::check(&config, &service::Service::ask(&config)?));
    let mut out = io::stdout().lock();
    written(print(&mut out, &findings, options.json))?;
    let differs = |f: &Finding| matches!(f.outcome, Outcome::Differs { .. });
    Ok(if findings.iter().any(differs) { Exit::Refused } else { Exit::Ok })
}

/// Looks until nothing differs, or the same things have differed [`LOOKS`] times.
fn look_until_calm(config: &Config) -> Result<Vec<Finding>, Failure> {
    let key = |finding: &Finding| (finding.place.clone(), finding.check);
    let mut lasting: Option<HashSet<(String, &'static str)>> = None;
    for look in 1.. {
        let mut findings = look_once(config)?;
        let differing = findings.iter().filter(|f| matches!(f.outcome, Outcome::Differs { .. }));
        let now: HashSet<_> = differing.map(key).collect();
        let still = match &lasting {
            None => now,
            Some(before) => before.intersection(&now).cloned().collect(),
        };
        if still.is_empty() || look >= LOOKS {
            for finding in &mut findings {
                let passing = matches!(finding.outcome, Outcome::Differs { .. });
                if passing && !still.contains(&key(finding)) {
                    finding.outcome = Outcome::Unseen("it was changing while looked at".into());
                }
            }
            return Ok(findings);
        }
        lasting = Some(still);
        std::thread::sleep(PAUSE);
    }
    Ok(Vec::new())
}

fn look_once(config: &Config) -> Result<Vec<Finding>, Failure> {
    let service = service::Service::ask(config)?;
    let mut findings = vec![level::check(config, &service)];
    findings.extend(files::check(config, &service));
    findings.extend(processes(&service));
    Ok(findings)
}

#[cfg(target_os = "linux")]
fn processes(service: &service::Service) -> Vec<Finding> {
    let mut findings = group::strangers(service);
    let launcher = proc::Process::read(service.launcher());
    let around = descriptors::Around::look(service);
    let filters = launcher.as_ref().map(|l| l.filters());
    for subject in &service.subjects {
        let found: Vec<(&'static str, Outcome)> = match proc::Process::read(subject.pid) {
            Ok(process) => {
                let filters = filters.as_ref().ok().copied();
                compare(service, subject, &process, &around, filters).into()
            }
            Err(cause) => {
                let what = format!("it is gone, or cannot be seen: {cause}");
                vec![("process", Outcome::differs(what, "see the service's log"))]
            }
        };
        let place = subject.place();
        let finding = |(check, outcome)| Finding { place: place.clone(), check, outcome };
        findings.extend(found.into_iter().map(finding));
    }
    findings
}

/// All that is checked of a process. `launchers`: how many filters the launcher has.
fn compare(
    service: &service::Service,
    subject: &service::Subject,
    process: &proc::Process,
    around: &descriptors::Around,
    launchers: Option<Option<usize>>,
) -> [(&'static str, Outcome); 7] {
    [
        ("identity", identity::check(service, subject, process)),
        ("capabilities", identity::capabilities(service, process)),
        ("filter", filter::check(subject, process, launchers)),
        ("tracing", filter::dumpable(process)),
        ("limits", limits::check(subject, process)),
        ("descriptors", descriptors::check(subject, process, around)),
        ("group", group::check(service, subject, process)),
    ]
}

#[cfg(not(target_os = "linux"))]
fn processes(service: &service::Service) -> Vec<Finding> {
    let unseen = |subject: &service::Subject| Finding {
        place: subject.place(),
        check: "process",
        outcome: Outcome::Unseen("this system does not tell; see procstat(1)".into()),
    };
    service.subjects.iter().map(unseen).collect()
}

fn print(out: &mut dyn Write, findings: &[Finding], as_json: bool) -> io::Result<()> {
    for finding in findings {
        if as_json {
            writeln!(out, "{}", to_json(finding))?;
        } else {
            writeln!(out, "{finding}")?;
        }
    }
    if !as_json {
        let count = |is: fn(&Outcome) -> bool| findings.iter().filter(|f| is(&f.outcome)).count();
        let differ = count(|o| matches!(o, Outcome::Differs { .. }));
        let unseen = count(|o| matches!(o, Outcome::Unseen(_)));
        writeln!(out, "{} checks: {differ} differ, {unseen} not seen", findings.len())?;
    }
    out.flush()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.outcome {
            Outcome::Good(what) => ("ok", what.clone()),
            Outcome::Differs { what, remedy } => ("DIFFERS", format!("{what}; {remedy}")),
            Outcome::Unseen(why) => ("unseen", why.clone()),
        };
        let place = visible(&self.place);
        write!(f, "{word:<8} {place}: {}: {}", self.check, visible(&text))
    }
}

fn to_json(finding: &Finding) -> serde_json::Value {
    let Finding { place, check, outcome } = finding;
    match outcome {
        Outcome::Good(what) => {
            json!({ "outcome": "ok", "place": place, "check": check, "what": what })
        }
        Outcome::Differs { what, remedy } => json!({
            "outcome": "differs", "place": place, "check": check, "what": what, "remedy": remedy,
        }),
        Outcome::Unseen(why) => {
            json!({ "outcome": "unseen", "place": place, "check": check, "what": why })
        }
    }
}
