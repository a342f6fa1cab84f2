//! Doctor: a process's resource limits against its policy's.

use super::proc::Process;
use super::service::Subject;
use super::{Outcome, RESTART};
use crate::confine::policy;

/// The limits that the policy names. Lower than that is allowed: limits are never raised.
pub fn check(subject: &Subject, process: &Process) -> Outcome {
    let policy = policy::limits(subject.role);
    let wanted = [
        ("Max core file size", Some(0)),
        ("Max open files", policy.descriptors.or(subject.descriptors)),
        ("Max file size", policy.file_bytes),
        ("Max data size", policy.data_bytes),
        ("Max processes", (!policy.processes).then_some(0)),
    ];
    let mut wrong = Vec::new();
    let mut good = Vec::new();
    for (name, most) in wanted {
        let Some(most) = most else { continue };
        let found = process.limits.iter().find(|(known, ..)| known == name);
        match found {
            Some((_, Some(soft), Some(hard))) if *soft <= most && *hard <= most => {
                good.push(format!("{} {hard}", name.trim_start_matches("Max ")));
            }
            Some((_, soft, hard)) => {
                let shown =
                    |limit: &Option<u64>| limit.map_or("unlimited".into(), |l| l.to_string());
                wrong.push(format!("{name} is {}/{}, not {most}", shown(soft), shown(hard)));
            }
            None => wrong.push(format!("{name} is not told")),
        }
    }
    Outcome::of(good.join(", "), wrong, RESTART)
}
