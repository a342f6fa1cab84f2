//! `papayad sandbox test`: the policies attacked, in processes that are confined as each role is.
//!
//! For each attack of `confine::attack` this program starts itself again (`sandbox attack`, a
//! hidden command) in a process group of its own. That process gives up root for `nobody`, if it
//! has it, confines itself as the role, and tries. One run a role tries nothing and must survive,
//! or the others would show nothing; and one tries every rule of the role's filter (`proof`).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{alarm, geteuid};
use serde_json::json;

use crate::confine::attack::{self, Attack, Refusal};
use crate::confine::{self, Context, Level, Report, Role, identity, policy};
use crate::daemon::launcher::prepare;
use crate::daemon::session;
use crate::exit::{Exit, Failure};

/// The name of the run that attacks nothing.
const CONTROL: &str = "nothing";
/// The name of the run that tries every rule, and what it says if all is as the rules say.
const EVERY_RULE: &str = "every-rule";
const AS_THE_RULES_SAY: &str = "as the rules say";
/// How long, in seconds, an attack may take; one that waits for something was not refused.
const PATIENCE: u32 = 10;
/// The user that attacks when root asked for it.
const NOBODY: &str = "nobody";
/// Attacks name descriptors below this number.
const MOST: u64 = policy::recv::LAST as u64 + 1;
/// How a run that attacks nothing ends.
const SURVIVED: &str = "survived";
/// What a call that came back says, on standard error.
const CAME_BACK: &str = "came back: ";

/// What is done in a process.
#[derive(Clone, Copy)]
enum Try<'a> {
    /// Nothing but that it confines itself.
    Control,
    /// Every rule of the filter, with the arguments that it names and with others.
    EveryRule,
    /// An attack of the catalogue.
    Attack(&'a Attack),
}

impl Try<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Control => CONTROL,
            Self::EveryRule => EVERY_RULE,
            Self::Attack(attack) => attack.name(),
        }
    }

    fn call(self) -> &'static str {
        match self {
            Self::Control | Self::EveryRule => "-",
            Self::Attack(attack) => attack.call(),
        }
    }

    fn gain(self) -> &'static str {
        match self {
            Self::Control => "the control: a confined process lives",
            Self::EveryRule => "what a rule names passes, and what is beside it kills",
            Self::Attack(attack) => attack.gain(),
        }
    }

    /// How it must end.
    fn expected(self, role: Role, level: Level) -> String {
        match self {
            Self::Control => SURVIVED.to_owned(),
            Self::EveryRule => AS_THE_RULES_SAY.to_owned(),
            Self::Attack(attack) => attack.refusal(role, level).to_string(),
        }
    }
}

/// What is done, and how it ended.
struct Run<'a> {
    role: Role,
    what: Try<'a>,
    expected: String,
    happened: String,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    AsItMust,
    /// Only a stronger level would stop it; what happened shows nothing.
    Open,
    Failed,
}

/// Attacks each of `roles`, confined at `most` or what the kernel has below it, and prints each
/// attempt. With `json`, one JSON object a line.
///
/// # Errors
/// A process cannot be started, or the output cannot be written. An attack that was not refused
/// is no error but [`Exit::Refused`].
pub fn run(
    out: &mut dyn Write,
    roles: impl Iterator<Item = Role>,
    most: Level,
    json: bool,
) -> Result<Exit, Failure> {
    let attacks = attack::all();
    if attacks.is_empty() {
        let message = "there is no catalogue of attacks for this operating system";
        return Err(Failure::new(Exit::Unavailable, message));
    }
    let level = confine::available().map_err(|e| {
        Failure::new(Exit::Unavailable, format!("cannot ask this kernel what it reaches: {e}"))
    })?;
    let mut totals = Totals { level: level.min(most), tried: 0, open: 0, failed: 0 };
    for role in roles {
        let tried = attacks.iter().filter(|attack| attack.is_for(role));
        // A call that this processor lacks cannot be tried, nor refused.
        let tried = tried.filter(|attack| exists(attack)).map(Try::Attack);
        for what in [Try::Control, Try::EveryRule].into_iter().chain(tried) {
            let run = attempt(role, what, totals.level)?;
            totals.tried += 1;
            totals.open += usize::from(run.outcome == Outcome::Open);
            totals.failed += usize::from(run.outcome == Outcome::Failed);
            super::written(print(out, &run, json))?;
        }
    }
    super::written(summary(out, &totals, json))?;
    Ok(if totals.failed == 0 { Exit::Ok } else { Exit::Refused })
}

struct Totals {
    level: Level,
    tried: usize,
    open: usize,
    failed: usize,
}

#[cfg(target_os = "linux")]
fn exists(attack: &Attack) -> bool {
    attack.number().is_some()
}

#[cfg(not(target_os = "linux"))]
fn exists(_: &Attack) -> bool {
    false
}

fn attempt(role: Role, what: Try<'_>, level: Level) -> Result<Run<'_>, Failure> {
    let failed = |e| Failure::new(Exit::Internal, format!("cannot start an attack: {e}"));
    let program = prepare::program_path()
        .ok_or_else(|| Failure::new(Exit::Internal, "cannot find this program's own file"))?;
    let output = Command::new(program)
        .args(["sandbox", "attack", &role.to_string(), what.name(), level.name()])
        .env_clear() // A backtrace would open files, which is a violation like any other.
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .map_err(failed)?;
    let happened = ending(&output, matches!(what, Try::Attack(_)));
    let expected = what.expected(role, level);
    let outcome = match what {
        Try::Attack(attack) if attack.refusal(role, level) == Refusal::Open => Outcome::Open,
        _ if happened == expected => Outcome::AsItMust,
        _ => Outcome::Failed,
    };
    Ok(Run { role, what, expected, happened, outcome })
}

/// How it ended, in the words of [`Refusal`].
fn ending(output: &Output, attacked: bool) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGSYS)) => return Refusal::Killed.to_string(),
        Some(Ok(Signal::SIGALRM)) => return "waited".to_owned(),
        Some(Ok(signal)) => return format!("killed by {signal}"),
        Some(Err(_)) => return "killed by a signal".to_owned(),
        None => {}
    }
    match said.lines().find_map(|line| line.strip_prefix(CAME_BACK)) {
        Some(answer) => answer.to_owned(),
        // After an attack this program does not end well: it was another one.
        None if output.status.success() && attacked => "ran a program".to_owned(),
        None if output.status.success() => SURVIVED.to_owned(),
        None => format!("not attempted: {}", said.trim()),
    }
}

fn print(out: &mut dyn Write, run: &Run, json: bool) -> io::Result<()> {
    let Run { role, what, expected, happened, outcome } = run;
    let (name, call, gain) = (what.name(), what.call(), what.gain());
    if json {
        let line = json!({
            "role": role, "attack": name, "call": call, "gain": gain,
            "expected": expected, "happened": happened,
            "ok": *outcome == Outcome::AsItMust, "open": *outcome == Outcome::Open,
        });
        return writeln!(out, "{line}");
    }
    let word = match outcome {
        Outcome::AsItMust => "ok",
        Outcome::Open => "open",
        Outcome::Failed => "FAILED",
    };
    let role = role.to_string();
    writeln!(
        out,
        "{word:<6}  {role:<11}  {name:<28}  {call:<22}  {expected:<20}  {happened:<20}  {gain}"
    )
}

fn summary(out: &mut dyn Write, totals: &Totals, json: bool) -> io::Result<()> {
    let Totals { level, tried, open, failed } = totals;
    if json {
        let line = json!({ "level": level, "tried": tried, "open": open, "failed": failed });
        writeln!(out, "{line}")?;
        return out.flush();
    }
    if *failed == 0 {
        writeln!(out, "level {level}: {tried} runs, each ended as it must")?;
    } else {
        writeln!(out, "level {level}: {tried} runs, {failed} did NOT end as they must: see above")?;
    }
    if *open > 0 {
        writeln!(out, "{open} attacks are open at this level; see SECURITY.md")?;
    }
    out.flush()
}

/// `papayad sandbox attack ROLE NAME`: confines this process and attacks. Does not return if the
/// policy holds; in the control it does.
///
/// # Errors
/// The process cannot be confined, or there is no such attack.
pub fn attack(role: Role, name: &str, level: Level) -> Result<Exit, Failure> {
    let internal = |e: &dyn std::fmt::Display| Failure::new(Exit::Internal, e.to_string());
    alarm::set(PATIENCE);
    give_up_root().map_err(|e| internal(&e))?;
    if name == EVERY_RULE {
        // Some thousand processes, one after the other.
        alarm::set(PATIENCE * 30);
        let answer = every_rule(role).unwrap_or_else(|why| why);
        eprintln!("{CAME_BACK}{answer}");
        return Ok(if answer == AS_THE_RULES_SAY { Exit::Ok } else { Exit::Refused });
    }
    enter(role, level).map_err(|e| internal(&e))?;
    if name == CONTROL {
        return Ok(Exit::Ok);
    }
    let attack = attack::find(name)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no attack {name:?}")))?;
    eprintln!("{CAME_BACK}{}", perform(&attack));
    Ok(Exit::Refused)
}

fn give_up_root() -> Result<(), identity::IdentityError> {
    if geteuid().is_root() {
        identity::become_forever(&identity::lookup(NOBODY)?)
    } else {
        identity::rootless()
    }
}

fn enter(role: Role, level: Level) -> Result<Report, Box<dyn std::error::Error>> {
    // Whoever started the test may have left descriptors open.
    crate::sys::fd::close_from(3)?;
    // The first free number, which is where the keeper has its directory. What it could open
    // beneath it is what this user could anyway.
    let directory = File::open("/usr")?;
    // Open, as in the role's table; a filter compares numbers, whatever is behind them. One is left
    // for Landlock's ruleset.
    let limit = policy::limits(role).descriptors.unwrap_or(MOST).min(MOST);
    for _ in 1..limit {
        if File::open("/dev/null")?.into_raw_fd() as u64 + 2 >= limit {
            break;
        }
    }
    // What the launcher executes, where it is; else this program in its place.
    let session = std::env::current_exe().ok().and_then(|papayad| session::of(&papayad).ok());
    let program = session.or_else(prepare::program_path);
    let mut context = Context::new(level);
    context.ceiling = level;
    context.state_dir = Some(directory.as_fd());
    context.descriptors = Some(256);
    context.executable = program.as_deref();
    let earlier =
        if role == Role::RecvJoined { Some(confine::enter(Role::Recv, &context)?) } else { None };
    context.earlier = earlier.as_ref();
    let report = confine::enter(role, &context)?;
    let _ = directory.into_raw_fd();
    Ok(report)
}

/// Tries a role's filter with the calls that its rules name and with those beside them.
#[cfg(target_os = "linux")]
fn every_rule(role: Role) -> Result<String, String> {
    use crate::confine::filter::Filter;
    use crate::confine::proof::{Prover, calls_beside};

    let rules = policy::rules(role);
    let filter = Filter::compile(&rules).map_err(|e| e.to_string())?;
    let proof = Prover::start()?.prove(&filter, &rules, &calls_beside(&rules));
    let wrong = proof.map_err(|e| e.to_string())?.wrong;
    Ok(wrong.into_iter().next().unwrap_or_else(|| AS_THE_RULES_SAY.to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn every_rule(_: Role) -> Result<String, String> {
    Err(Errno::ENOSYS.to_string())
}

#[cfg(target_os = "linux")]
fn perform(attack: &Attack) -> String {
    match crate::sys::confine_linux::perform(attack) {
        Some(Ok(result)) => format!("it worked ({result})"),
        Some(Err(errno)) => Refusal::Fails(errno as i32).to_string(),
        None => Errno::ENOSYS.to_string(),
    }
}

#[cfg(not(target_os = "linux"))]
fn perform(_: &Attack) -> String {
    Errno::ENOSYS.to_string()
}
