//! Doctor: who a process runs as, and that nothing of root is left in it.

use super::proc::Process;
use super::service::{Service, Subject};
use super::{Outcome, RESTART};
use crate::confine::Role;

/// User, group and other groups, in all forms that the kernel keeps.
pub fn check(service: &Service, subject: &Subject, process: &Process) -> Outcome {
    let (uid, gid) = if subject.role == Role::Keeper { service.keeper } else { service.workers };
    let uid = uid.as_raw().to_string();
    let mut wrong = Vec::new();
    if !all_are(process.status("Uid"), &uid) {
        wrong.push(format!("its user is {}, not {uid}", process.status("Uid")));
    }
    let gid = gid.map_or_else(|| first(process.status("Gid")), |gid| gid.as_raw().to_string());
    if !all_are(process.status("Gid"), &gid) {
        wrong.push(format!("its group is {}, not {gid}", process.status("Gid")));
    }
    // Without root a process cannot give up the groups that its user was logged in with.
    if !service.rootless && !process.status("Groups").is_empty() {
        wrong.push(format!("it has the groups {}", process.status("Groups")));
    }
    Outcome::of(format!("user {uid}, group {gid}"), wrong, RESTART)
}

/// The five sets. Without root the bounding set cannot be emptied; it is worth nothing then.
pub fn capabilities(service: &Service, process: &Process) -> Outcome {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let counted = sets.iter().filter(|set| !(service.rootless && **set == "CapBnd"));
    let wrong = counted.filter(|set| !is_empty(process.status(set)));
    let wrong = wrong.map(|set| format!("{set} is {}", process.status(set))).collect();
    let good = if service.rootless { "none (bounding set: rootless)" } else { "none, in all sets" };
    Outcome::of(good, wrong, RESTART)
}

fn first(words: &str) -> String {
    words.split_ascii_whitespace().next().unwrap_or_default().to_owned()
}

/// Real, effective, saved, and for files.
fn all_are(found: &str, wanted: &str) -> bool {
    let mut ids = found.split_ascii_whitespace();
    ids.clone().count() == 4 && ids.all(|id| id == wanted)
}

fn is_empty(set: &str) -> bool {
    u64::from_str_radix(set, 16) == Ok(0)
}
