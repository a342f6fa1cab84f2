//! Doctor: what seccomp and the kernel's tracing rules hold against a process.

use super::proc::Process;
use super::service::Subject;
use super::{Outcome, RESTART};
use crate::confine::policy;

/// `no_new_privs`, seccomp's mode, and the number of filters. `launchers`: how many the launcher
/// has, for a service manager may have added some, which all then have.
pub fn check(subject: &Subject, process: &Process, launchers: Option<Option<usize>>) -> Outcome {
    let mut wrong = Vec::new();
    if process.status("NoNewPrivs") != "1" {
        wrong.push("no_new_privs is not set".to_owned());
    }
    if process.status("Seccomp") != "2" {
        wrong.push(format!("seccomp is in mode {:?}, not 2", process.status("Seccomp")));
    }
    let own: usize = policy::lineage(subject.role).iter().map(|role| policy::filters(*role)).sum();
    let (Some(found), Some(Some(launchers))) = (process.filters(), launchers) else {
        wrong.push("the kernel does not tell the number of filters (Linux 5.9 does)".to_owned());
        return Outcome::of("", wrong, "use a newer kernel");
    };
    let Some(managers) = launchers.checked_sub(policy::filters(crate::confine::Role::Launcher))
    else {
        wrong.push(format!("the launcher has {launchers} filters"));
        return Outcome::of("", wrong, RESTART);
    };
    if found != managers + own {
        wrong.push(format!("it has {found} filters, not {}", managers + own));
    }
    let calls = policy::table(subject.role).len();
    let mut good = format!("no_new_privs, seccomp mode 2, {own} filters, {calls} rules");
    if managers > 0 {
        good += &format!(", and {managers} filters of the service manager");
    }
    Outcome::of(good, wrong, RESTART)
}

/// A process that is not dumpable cannot be traced by its own user, nor its memory be read: the
/// kernel gives the files in its `/proc` directory to root (proc(5)).
pub fn dumpable(process: &Process) -> Outcome {
    if process.owner == 0 {
        Outcome::Good("cannot be traced or dumped".into())
    } else {
        Outcome::differs("its own user can trace and dump it", RESTART)
    }
}
