//! The launcher's table of workers: who runs for whom, and how it ended. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::daemon::channel::WorkerId;
use crate::daemon::channel::launcher_listener::Verdict;
use crate::daemon::recv::{EXIT_NO_TOKEN, EXIT_SEND_KILLED, EXIT_TOO_SLOW};
use crate::token::{Name, Role, TokenId};

/// One client's RECV.
#[derive(Debug)]
pub struct Worker {
    /// RECV's process id.
    pub pid: Pid,
    /// Where the client comes from.
    pub source: SocketAddr,
    /// Once its token was good: name, rights and token.
    pub member: Option<(Name, Role, TokenId)>,
    /// What the keeper found about it.
    pub judged: Option<Verdict>,
    /// When it was started.
    pub since: Instant,
}

impl Worker {
    /// How it is shown in log lines.
    pub fn label(&self) -> String {
        let name = self.member.as_ref().map_or("-", |(name, ..)| name.as_str());
        format!("recv {name} {}", self.source)
    }
}

/// All workers.
#[derive(Debug, Default)]
pub struct Workers {
    by_id: BTreeMap<WorkerId, Worker>,
    by_pid: HashMap<Pid, WorkerId>,
}

impl Workers {
    /// Adds a worker.
    pub fn insert(&mut self, id: WorkerId, worker: Worker) {
        self.by_pid.insert(worker.pid, id);
        self.by_id.insert(id, worker);
    }

    /// The worker with this number.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.by_id.get_mut(&id)
    }

    /// The worker with this number.
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.by_id.get(&id)
    }

    /// The number of the worker with this process id.
    pub fn id_of(&self, pid: Pid) -> Option<WorkerId> {
        self.by_pid.get(&pid).copied()
    }

    /// The worker with this process id was reaped: the process id is not its any more.
    pub fn reaped(&mut self, pid: Pid) -> Option<WorkerId> {
        self.by_pid.remove(&pid)
    }

    /// Removes a worker that was reaped.
    pub fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.by_id.remove(&id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.by_id.iter().map(|(id, worker)| (*id, worker))
    }

    /// The next of those behind `last`, the oldest first, if there are more than `most`.
    pub fn group_behind(&self, last: WorkerId, most: usize) -> Option<Vec<(WorkerId, Pid)>> {
        let mut behind = self.by_id.range((Bound::Excluded(last), Bound::Unbounded));
        let group: Vec<_> = behind.by_ref().take(most).map(|(id, w)| (*id, w.pid)).collect();
        behind.next().map(|_| group)
    }

    /// Whether somebody up to `last` is still there.
    pub fn has_up_to(&self, last: WorkerId) -> bool {
        self.by_id.first_key_value().is_some_and(|(id, _)| *id <= last)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

/// What a worker's end means for the penalties. `removed`: the launcher killed it itself.
pub fn verdict(worker: &Worker, status: WaitStatus, removed: bool) -> Verdict {
    // What it was guilty of before does not hide that its filter had to kill it.
    if let WaitStatus::Signaled(_, Signal::SIGSYS, _) = status {
        return Verdict::Violation;
    }
    if let Some(judged) = worker.judged {
        return judged;
    }
    match status {
        WaitStatus::Signaled(_, Signal::SIGTERM | Signal::SIGKILL, _) if !removed => {
            Verdict::Orderly // The administrator's doing.
        }
        WaitStatus::Signaled(..) => Verdict::Violation,
        WaitStatus::Exited(_, code) if worker.member.is_some() => {
            if code == i32::from(EXIT_SEND_KILLED) { Verdict::Violation } else { Verdict::Orderly }
        }
        WaitStatus::Exited(_, code) if code == i32::from(EXIT_TOO_SLOW) => Verdict::TooSlow,
        WaitStatus::Exited(_, code) if code == i32::from(EXIT_NO_TOKEN) => Verdict::NoToken,
        _ => Verdict::Orderly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(member: bool) -> Worker {
        let name = || ("alice".parse().unwrap(), Role::Member, TokenId([1; 8]));
        Worker {
            pid: Pid::from_raw(7),
            source: "192.0.2.1:5".parse().unwrap(),
            member: member.then(name),
            judged: None,
            since: Instant::now(),
        }
    }

    #[test]
    fn a_process_killed_by_its_filter_is_a_violation_and_one_killed_by_the_admin_is_not() {
        let pid = Pid::from_raw(7);
        let killed = |signal| WaitStatus::Signaled(pid, signal, false);
        assert_eq!(verdict(&worker(true), killed(Signal::SIGSYS), false), Verdict::Violation);
        assert_eq!(verdict(&worker(true), killed(Signal::SIGSEGV), false), Verdict::Violation);
        assert_eq!(verdict(&worker(true), killed(Signal::SIGTERM), false), Verdict::Orderly);
        assert_eq!(verdict(&worker(true), killed(Signal::SIGKILL), false), Verdict::Orderly);
        assert_eq!(verdict(&worker(true), killed(Signal::SIGKILL), true), Verdict::Violation);
    }

    #[test]
    fn a_crowd_is_told_in_groups_of_the_oldest_until_the_rest_is_no_more_than_one() {
        let mut workers = Workers::default();
        for number in 1..=10 {
            workers.insert(WorkerId(number), Worker { pid: Pid::from_raw(100), ..worker(true) });
        }
        let ids = |group: Option<Vec<(WorkerId, Pid)>>| {
            group.map(|group| group.into_iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        };
        let mut told = Vec::new();
        let mut last = WorkerId(0);
        while let Some(group) = ids(workers.group_behind(last, 4)) {
            last = WorkerId(*group.last().unwrap());
            told.push(group);
        }
        assert_eq!(told, [[1, 2, 3, 4], [5, 6, 7, 8]]);
        // The next is told only when nobody of these is left.
        for number in (2..=8).rev() {
            workers.remove(WorkerId(number));
        }
        assert!(workers.has_up_to(last));
        workers.remove(WorkerId(1));
        assert!(!workers.has_up_to(last) && workers.has_up_to(WorkerId(9)));
        assert_eq!(ids(workers.group_behind(WorkerId(0), 1)), Some(vec![9]));
        assert_eq!(ids(workers.group_behind(WorkerId(0), 2)), None);
    }

    #[test]
    fn the_keepers_word_counts_more_than_the_exit_status() {
        let mut worker = worker(false);
        worker.judged = Some(Verdict::BadToken);
        let status = WaitStatus::Exited(Pid::from_raw(7), 0);
        assert_eq!(verdict(&worker, status, false), Verdict::BadToken);
        // But a bad token does not hide what came after it.
        let killed = WaitStatus::Signaled(Pid::from_raw(7), Signal::SIGSYS, false);
        assert_eq!(verdict(&worker, killed, false), Verdict::Violation);
    }

    #[test]
    fn a_member_who_leaves_is_never_blamed() {
        for code in [0, i32::from(EXIT_NO_TOKEN), i32::from(EXIT_TOO_SLOW), 70] {
            let status = WaitStatus::Exited(Pid::from_raw(7), code);
            assert_eq!(verdict(&worker(true), status, false), Verdict::Orderly);
        }
    }
}
