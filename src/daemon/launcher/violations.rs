//! The launcher's account of processes that their filters killed: who it was is known at once, the
//! call a moment later, when the kernel's log has it. The newest are kept for `papayad status`.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::unistd::Pid;
use serde::Serialize;

use super::kernel_log::KernelLog;
use crate::confine::Role;
use crate::confine::violation::{Call, Violation};

/// How long the kernel's record may take: a thread of the kernel's own writes it, so that a death
/// can be reaped before it is there.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a record waits for its process to be reaped.
const KEPT: Duration = Duration::from_secs(2);
/// Records that wait.
const KEPT_MAX: usize = 64;
/// Processes that wait for a record.
const WAITING_MAX: usize = 64;
/// Violations that the status shows.
const LAST_MAX: usize = 8;

const NOT_TOLD: &str = "the system call is not told here";

/// A process that its filter killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// When it was reaped.
    pub time: Timestamp,
    /// What it was.
    pub role: Role,
    /// Whose token it had.
    pub name: Option<String>,
    /// Where its client came from.
    pub address: Option<SocketAddr>,
    /// Its number; not where RECV says that its SEND was killed.
    pub pid: Option<i32>,
    /// The system call, where the kernel told.
    pub call: Option<Call>,
}

/// One that waits for the kernel's word.
struct Waiting {
    label: String,
    seen: Seen,
    until: Instant,
}

/// The account.
pub struct Violations {
    log: Option<KernelLog>,
    /// Records of processes that are not reaped yet, and when they were read.
    records: VecDeque<(Instant, Violation)>,
    waiting: Vec<Waiting>,
    /// How many more there were than can wait.
    unlisted: u64,
    last: VecDeque<Seen>,
}

impl Violations {
    /// An empty account.
    pub fn new(log: Option<KernelLog>) -> Self {
        Self {
            log,
            records: VecDeque::new(),
            waiting: Vec::new(),
            unlisted: 0,
            last: VecDeque::new(),
        }
    }

    /// A process was reaped, and its filter had killed it; `label` names it in the log.
    pub fn add(&mut self, label: String, seen: Seen) {
        if self.waiting.len() >= WAITING_MAX {
            self.unlisted += 1;
            return;
        }
        let patience = if self.log.is_some() { PATIENCE } else { Duration::ZERO };
        self.waiting.push(Waiting { label, seen, until: Instant::now() + patience });
    }

    /// A process has this number now: what was read of an earlier one is not about it.
    pub fn forget(&mut self, pid: Pid) {
        self.records.retain(|(_, violation)| violation.pid != pid.as_raw());
    }

    /// What to watch while somebody waits.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().filter(|_| !self.waiting.is_empty()).map(KernelLog::as_fd)
    }

    /// When to look at the latest.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// The lines of all about whom the kernel has told, or will not any more.
    pub fn told(&mut self) -> Vec<String> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.read();
        let mut lines = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let found = self.take_record(waiting.seen.pid);
            if found.is_none() && waiting.until > Instant::now() {
                self.waiting.push(waiting);
                continue;
            }
            waiting.seen.call = found.map(|record| record.call);
            lines.push(self.keep(waiting));
        }
        lines.extend(self.surplus());
        lines
    }

    /// The lines of all that still wait.
    pub fn untold(&mut self) -> Vec<String> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut lines: Vec<String> =
            waiting.into_iter().map(|waiting| self.keep(waiting)).collect();
        lines.extend(self.surplus());
        lines
    }

    fn surplus(&mut self) -> Option<String> {
        let more = std::mem::take(&mut self.unlisted);
        (more > 0).then(|| format!("launcher: {more} more were killed by their filters"))
    }

    /// The newest, the oldest of them first.
    pub fn last(&self) -> &VecDeque<Seen> {
        &self.last
    }

    /// Takes what the kernel has said so far.
    pub fn read(&mut self) {
        let now = Instant::now();
        self.records.retain(|(read, _)| now.duration_since(*read) < KEPT);
        let new = self.log.as_mut().map_or_else(Vec::new, KernelLog::violations);
        self.records.extend(new.into_iter().map(|violation| (now, violation)));
        let surplus = self.records.len().saturating_sub(KEPT_MAX);
        self.records.drain(..surplus);
    }

    fn take_record(&mut self, pid: Option<i32>) -> Option<Violation> {
        let place = self.records.iter().position(|(_, found)| Some(found.pid) == pid)?;
        self.records.remove(place).map(|(_, violation)| violation)
    }

    fn keep(&mut self, Waiting { label, seen, .. }: Waiting) -> String {
        let line = format!("{label}: ended ({seen})");
        self.last.push_back(seen);
        let surplus = self.last.len().saturating_sub(LAST_MAX);
        self.last.drain(..surplus);
        line
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.role == Role::Send && self.name.is_some() {
            // RECV's word; its own line has the number, and by which signal.
            f.write_str("its SEND was ")?;
        }
        match (self.call, self.pid) {
            (Some(call), _) => write!(f, "killed by its filter: system call {call}"),
            (None, Some(pid)) => write!(
                f,
                "killed by its filter; {NOT_TOLD}: dmesg | grep 'type=1326.*pid={pid}' may name it"
            ),
            (None, None) => {
                write!(f, "killed; {NOT_TOLD}: dmesg | grep type=1326 may name it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(role: Role, pid: Option<i32>) -> Seen {
        let address = Some("192.0.2.1:5".parse().unwrap());
        let name = Some("alice".to_owned());
        Seen { time: Timestamp::now(), role, name, address, pid, call: None }
    }

    fn record(pid: i32) -> Violation {
        let line = format!("5,1,2,-;audit: type=1326 audit(1:1): pid={pid} arch=0 syscall=41");
        Violation::parse(&line).unwrap()
    }

    /// As if the kernel's log had been there, with these records in it.
    fn account(records: &[Violation]) -> Violations {
        let mut account = Violations::new(None);
        // Read only now, however slow the machine is.
        let read = Instant::now() + KEPT;
        account.records.extend(records.iter().map(|record| (read, *record)));
        account
    }

    #[test]
    fn a_call_is_told_of_the_process_that_made_it_and_of_no_other() {
        let mut account = account(&[record(8), record(7)]);
        account.add("recv alice 192.0.2.1:5".into(), seen(Role::RecvJoined, Some(7)));
        account.add("recv bob 192.0.2.1:6".into(), seen(Role::RecvJoined, Some(9)));
        let lines = account.told();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("recv alice 192.0.2.1:5: ended (killed by its filter: sys"));
        assert!(lines[1].contains("not told here: dmesg | grep 'type=1326.*pid=9'"), "{lines:?}");
        assert!(account.last()[0].call.is_some() && account.last()[1].call.is_none());
    }

    #[test]
    fn what_a_recv_says_of_its_send_and_what_the_kernel_says_are_never_joined_by_guess() {
        let mut account = account(&[record(9)]);
        let orphan = Seen { name: None, address: None, ..seen(Role::Send, Some(9)) };
        account.add("a SEND or a stray, process 9".into(), orphan);
        account.add("recv alice 192.0.2.1:5".into(), seen(Role::Send, None));
        let lines = account.told();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("a SEND or a stray, process 9: ended (killed by its filter: ")
        );
        assert!(lines[1].contains("its SEND was killed; the system call is not told"), "{lines:?}");
        assert!(account.last()[0].name.is_none() && account.last()[1].call.is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut account = account(&vec![record(7); 1000]);
        for pid in 0..100 {
            account.add("recv".into(), seen(Role::Recv, Some(1000 + pid)));
        }
        let lines = account.told();
        assert_eq!(lines.len(), WAITING_MAX + 1);
        assert_eq!(lines[WAITING_MAX], "launcher: 36 more were killed by their filters");
        assert_eq!(account.last().len(), LAST_MAX);
        assert_eq!(account.last().back().unwrap().pid, Some(1063));
        assert_eq!(account.records.len(), KEPT_MAX);
        assert!(account.told().is_empty() && account.next_due().is_none());
    }
}
