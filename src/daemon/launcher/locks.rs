//! The launcher's watch over the log's locks: who blocks all others is found and removed.
//!
//! Linux shows in `/proc/locks` who holds and who waits; the file is opened before confinement.
//! Elsewhere the holder cannot be named.
//!
//! A lock of flock(2) belongs to an open file, which a process may share with what it forked: it
//! can outlive who took it, and the list still shows that one's number. So a number is believed
//! only as long as it is the same process that has it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::room::holder::{self, LockIds, Verdict, Watch};

/// The most generations between a holder and the launcher; more than the processes of the service's
/// user.
const GENERATIONS: usize = 1 << 16;

/// Who has blocked all others for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The process that took the lock.
    Lives(Pid),
    /// Who took it has just been seen to be gone: the next look tells whether the lock is, too.
    Gone(Pid),
    /// Who took it is gone, and the lock is still there.
    Left(Pid),
}

/// The watch.
pub struct Locks {
    list: Option<File>,
    watch: Watch,
    /// The processes that the holders' numbers stood for when they were first seen.
    births: HashMap<u32, Option<u64>>,
    /// Holders that may have left their locks behind.
    doubted: HashSet<u32>,
    began: Instant,
    next: Instant,
}

impl Locks {
    /// Opens the list of locks.
    pub fn open(ids: LockIds) -> Self {
        let list = if cfg!(target_os = "linux") { File::open(holder::LOCKS).ok() } else { None };
        let now = Instant::now();
        let next = now + holder::CALM_INTERVAL;
        let (births, doubted) = (HashMap::new(), HashSet::new());
        Self { list, watch: Watch::new(ids), births, doubted, began: now, next }
    }

    /// Whether holders can be found here.
    pub fn works(&self) -> bool {
        self.list.is_some()
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Instant> {
        self.works().then_some(self.next)
    }

    /// This holder is about to be gone: the next looks tell whether its lock is, too.
    pub fn doubt(&mut self, pid: Pid) {
        self.doubted.extend(u32::try_from(pid.as_raw()));
    }

    /// Looks, if it is time; gives the holders for whom something must be done.
    pub fn look(&mut self) -> Vec<Holder> {
        let now = Instant::now();
        let Some(list) = self.list.as_mut().filter(|_| now >= self.next) else { return Vec::new() };
        let sampled = list
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.watch.sample(now.duration_since(self.began), list));
        let (pause, holders): (Duration, Vec<u32>) = match sampled {
            Ok(Verdict::Suspicious) => (holder::SUSPICIOUS_INTERVAL, Vec::new()),
            Ok(Verdict::Remove(holders)) => (holder::SUSPICIOUS_INTERVAL, holders),
            Ok(Verdict::Calm) | Err(_) => (holder::CALM_INTERVAL, Vec::new()),
        };
        let found = self.judge(holders);
        // Anybody on the machine can make the list long: looking must not become a load.
        self.next = Instant::now() + pause.max(20 * now.elapsed());
        found
    }

    fn judge(&mut self, reported: Vec<u32>) -> Vec<Holder> {
        let holding = self.watch.holders();
        self.births.retain(|pid, _| holding.contains(pid));
        for pid in holding {
            self.births.entry(*pid).or_insert_with(|| birth(*pid));
        }
        self.doubted.retain(|pid| holding.contains(pid));
        let same = |pid: u32| {
            let then = self.births.get(&pid).copied().flatten();
            then.is_some() && then == birth(pid)
        };
        let id = |pid: u32| i32::try_from(pid).ok().map(Pid::from_raw);
        let left: Vec<u32> = self.doubted.iter().copied().filter(|pid| !same(*pid)).collect();
        let mut found: Vec<Holder> =
            left.iter().filter_map(|pid| id(*pid)).map(Holder::Left).collect();
        for pid in reported.into_iter().filter(|pid| !left.contains(pid)) {
            let lives = same(pid);
            if !lives {
                self.doubted.insert(pid);
            }
            let holder = if lives { Holder::Lives } else { Holder::Gone };
            found.extend(id(pid).map(holder));
        }
        self.doubted.retain(|pid| !left.contains(pid));
        found
    }
}

/// When a process was started, in the kernel's ticks; `None` if there is none of this number.
fn birth(pid: u32) -> Option<u64> {
    stat(pid.try_into().ok().map(Pid::from_raw)?, 19)?.parse().ok()
}

/// The nearest ancestor of a process, or it itself, for which `known` is true.
pub fn ancestor(pid: Pid, known: impl Fn(Pid) -> bool) -> Option<Pid> {
    std::iter::successors(Some(pid), |pid| parent_of(*pid)).take(GENERATIONS).find(|p| known(*p))
}

/// The parent of a process: a SEND that holds a lock is removed through its RECV, which is a child
/// of the launcher and so cannot be mistaken for another process with a recycled number.
fn parent_of(pid: Pid) -> Option<Pid> {
    stat(pid, 1)?.parse().ok().map(Pid::from_raw)
}

/// One of the numbers that proc_pid_stat(5) has behind the command.
fn stat(pid: Pid, index: usize) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (command) state ppid …; the command may contain anything, also blanks and parentheses.
    let behind = &status[status.rfind(')')? + 1..];
    behind.split_ascii_whitespace().nth(index).map(str::to_owned)
}
