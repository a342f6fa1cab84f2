//! The launcher's watch over the log's locks: who blocks all others is found and removed.
//!
//! Linux shows in `/proc/locks` who holds and who waits; the file is opened before confinement.
//! Elsewhere the holder cannot be named.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::room::holder::{self, LockIds, Verdict, Watch};

/// The watch.
pub struct Locks {
    list: Option<File>,
    watch: Watch,
    began: Instant,
    next: Instant,
}

impl Locks {
    /// Opens the list of locks.
    pub fn open(ids: LockIds) -> Self {
        let list = if cfg!(target_os = "linux") { File::open(holder::LOCKS).ok() } else { None };
        let now = Instant::now();
        Self { list, watch: Watch::new(ids), began: now, next: now + holder::CALM_INTERVAL }
    }

    /// Whether holders can be found here.
    pub fn works(&self) -> bool {
        self.list.is_some()
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Instant> {
        self.works().then_some(self.next)
    }

    /// Looks, if it is time; gives the processes that must be removed.
    pub fn look(&mut self) -> Vec<Pid> {
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
        // Anybody on the machine can make the list long: looking must not become a load.
        self.next = Instant::now() + pause.max(20 * now.elapsed());
        holders.into_iter().filter_map(|pid| i32::try_from(pid).ok()).map(Pid::from_raw).collect()
    }
}

/// The parent of a process: a SEND that holds a lock is removed through its RECV, which is a child
/// of the launcher and so cannot be mistaken for another process with a recycled number.
pub fn parent_of(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (command) state ppid …; the command may contain anything, also blanks and parentheses.
    let behind = &status[status.rfind(')')? + 1..];
    behind.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
