//! Doctor: one session, one process group, known parents, honest titles; and nobody else in it.

use super::proc::{self, Process};
use super::service::{Service, Subject};
use super::{Finding, Outcome, RESTART};
use crate::confine::Role;

/// Where a process stands, and as what ps(1) shows it.
pub fn check(service: &Service, subject: &Subject, process: &Process) -> Outcome {
    let launcher = service.launcher();
    let (parent, group, session) = process.family;
    let mut wrong = Vec::new();
    // The bell is rung for the group: who is not in it does not hear, who is too many is disturbed.
    if group != launcher {
        wrong.push(format!("its process group is {group}, not {launcher}"));
    }
    if session != launcher {
        wrong.push(format!("its session is {session}, not {launcher}"));
    }
    if let Some(expected) = subject.parent.filter(|expected| *expected != parent) {
        wrong.push(format!("its parent is {parent}, not {expected}"));
    }
    if !is_titled(subject, &process.title) {
        wrong.push(format!("its title is {:?}, not {:?}", process.title, subject.title));
    }
    Outcome::of(format!("group and session {launcher}, titled"), wrong, RESTART)
}

/// The title has the room of the arguments and the environment that the process was started with:
/// the service's own processes may have had little.
fn is_titled(subject: &Subject, title: &str) -> bool {
    match subject.role {
        Role::Launcher | Role::Keeper | Role::Listener => {
            title.len() >= "papayad: ".len() && subject.title.starts_with(title)
        }
        Role::Recv => title.starts_with(&subject.title),
        Role::RecvJoined | Role::Send => title == subject.title,
    }
}

/// Processes below the launcher that it does not know.
pub fn strangers(service: &Service) -> Vec<Finding> {
    let all = proc::parents();
    let mut found = vec![service.launcher()];
    let mut strangers = Vec::new();
    while let Some(parent) = found.pop() {
        for (pid, _) in all.iter().filter(|(pid, of)| *of == parent && *pid != parent) {
            found.push(*pid);
            if service.subjects.iter().all(|subject| subject.pid != *pid) {
                strangers.push(*pid);
            }
        }
    }
    if strangers.is_empty() {
        let count = service.subjects.len();
        let outcome = Outcome::Good(format!("{count}, all of them known"));
        return vec![Finding { place: "service".into(), check: "processes", outcome }];
    }
    let finding = |pid: i32| {
        let title = Process::read(pid).map_or_else(|_| "?".into(), |process| process.title);
        Finding {
            place: format!("process {pid}"),
            check: "processes",
            outcome: Outcome::differs(
                format!("{title:?} descends from the launcher, which does not know it"),
                RESTART,
            ),
        }
    };
    strangers.into_iter().map(finding).collect()
}
