//! Promise: the kernel holds every rule of every policy: a call that a rule names gets through, one
//! with any argument beside what the rule wants kills, and so does every call that no rule names.
//!
//! The calls are made up from the policies themselves (`confine::proof`), so no rule can miss them.

mod confined;

use std::process::ExitCode;
use std::time::Instant;

use confined::{again, must_end, outcome, part};
use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::confine::filter::Filter;
use papayachat::confine::proof::{Prover, calls_beside, calls_not_named};
use papayachat::confine::{Role, policy};

fn main() -> ExitCode {
    if let Some((which, role)) = part() {
        return outcome(prove(&which, &role));
    }
    let mut trials = Vec::new();
    for role in Role::ALL {
        for (which, promise) in [
            ("named", "what its rules name passes, and what is beside it kills"),
            ("not-named", "what no rule names kills"),
        ] {
            let name = format!("{role}: {promise}");
            trials.push(Trial::test(name, move || holds(role, which)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn holds(role: Role, which: &str) -> Result<(), Failed> {
    must_end(&again(which, &role.to_string()).output()?, "exit 0")
}

/// The part: proves a role's filter.
fn prove(which: &str, role: &str) -> Result<(), String> {
    let role: Role = role.parse().map_err(|e| format!("{e}"))?;
    let rules = policy::rules(role);
    let filter = Filter::compile(&rules).map_err(|e| e.to_string())?;
    let prover = Prover::start()?;
    let calls = match which {
        "named" => calls_beside(&rules),
        _ => calls_not_named(&rules, &prover).map_err(|e| e.to_string())?,
    };
    let start = Instant::now();
    let proof = prover.prove(&filter, &rules, &calls).map_err(|e| e.to_string())?;
    eprintln!(
        "{role} {which}: {} passed, {} killed in {:?}",
        proof.passed,
        proof.killed,
        start.elapsed()
    );
    match proof.wrong.is_empty() {
        true => Ok(()),
        false => Err(proof.wrong.join("\n")),
    }
}
