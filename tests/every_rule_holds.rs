//! Promise: the kernel holds every rule of every policy: a call that a rule names gets through, one
//! with any argument beside what the rule wants kills, and so does every call that no rule names.
//!
//! The calls are made up from the policies themselves (`confine::proof`), so no rule can miss them;
//! what no policy may say, whatever its rules are, stands in `confine::policy::never`.

mod confined;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

use confined::{again, fill_descriptors_below, must_end, outcome, part};
use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::confine::filter::Filter;
use papayachat::confine::proof::{Prover, calls_beside, calls_not_named};
use papayachat::confine::{self, Context, Level, Report, Role, policy};

/// What is shown of each role, and the part that shows it.
const PROMISES: [(&str, &str); 3] = [
    ("beside", "what its rules name passes, and what is beside it kills"),
    ("not-named", "what no rule names kills"),
    ("entered", "what its rules name passes inside all that it descends from"),
];

fn main() -> ExitCode {
    if let Some((which, role)) = part() {
        return outcome(prove(&which, &role));
    }
    let mut trials = Vec::new();
    for role in Role::ALL {
        for (which, promise) in PROMISES {
            let name = format!("{role}: {promise}");
            trials.push(Trial::test(name, move || holds(role, which)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn holds(role: Role, which: &str) -> Result<(), Failed> {
    must_end(&again(which, &role.to_string()).output()?, "exit 0")
}

/// The part: fails with what is not as the rules say.
fn prove(which: &str, role: &str) -> Result<(), String> {
    let role: Role = role.parse().map_err(|_| "no such role")?;
    let rules = policy::rules(role);
    let prover = Prover::start()?;
    if which == "entered" {
        enter_all(role).map_err(|e| e.to_string())?;
        let above: Vec<_> = policy::lineage(role).iter().flat_map(|r| policy::rules(*r)).collect();
        let passed = prover.pass_here(&rules, &above, &calls_beside(&rules))?;
        return if passed > 100 { Ok(()) } else { Err(format!("only {passed} calls were made")) };
    }
    let calls = match which {
        "beside" => calls_beside(&rules),
        _ => calls_not_named(&rules, &prover).map_err(|e| e.to_string())?,
    };
    let filter = Filter::compile(&rules).map_err(|e| e.to_string())?;
    let proof = prover.prove(&filter, &rules, &calls).map_err(|e| e.to_string())?;
    match (proof.wrong.is_empty(), proof.killed) {
        (true, 1000..) => Ok(()),
        (true, few) => Err(format!("only {few} calls were made that must kill")),
        (false, _) => Err(proof.wrong.join("\n")),
    }
}

/// Confines this process as one of this role is: stage after stage, as it would come to be.
fn enter_all(role: Role) -> Result<(), Box<dyn std::error::Error>> {
    let directory = File::open("/usr")?;
    let program = std::env::current_exe()?;
    fill_descriptors_below(9);
    let mut earlier: Option<Report> = None;
    for stage in policy::lineage(role) {
        let mut context = Context::new(Level::Seccomp);
        context.state_dir = Some(directory.as_fd());
        context.executable = Some(&program);
        context.descriptors = Some(256);
        context.earlier = earlier.as_ref();
        earlier = Some(confine::enter(*stage, &context)?);
    }
    std::mem::forget(directory);
    Ok(())
}
