//! What the kernel says of a service's processes, and that none is left over.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each test uses its part.

use std::fs;
use std::thread;
use std::time::Instant;

use papayachat::confine::{Role, policy};

use super::service::{PATIENCE, Service, descendants};

/// One process: its number and when it started, so that a number used again is another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub title: String,
    started: String,
}

/// The fields of `/proc/PID/stat` from the state (field 3) on; `None` for no such process.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind = &stat[stat.rfind(')')? + 1..];
    Some(behind.split_ascii_whitespace().map(str::to_owned).collect())
}

impl Process {
    pub fn find(pid: i32, title: String) -> Option<Self> {
        Some(Self { pid, title, started: stat(pid)?.get(19)?.clone() })
    }

    /// Whether it is still there, be it as a zombie.
    pub fn exists(&self) -> bool {
        stat(self.pid).is_some_and(|s| s[19] == self.started)
    }

    pub fn is_zombie(&self) -> bool {
        stat(self.pid).is_some_and(|s| s[19] == self.started && s[0] == "Z")
    }

    /// SIGKILL, or another signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal).unwrap();
    }

    pub fn wait_gone(&self) {
        wait_until(&format!("{self:?} is gone"), || !self.exists());
    }
}

/// Asks again until it is so, at most for [`PATIENCE`].
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::yield_now();
    }
}

/// All processes below the launcher.
pub fn below(service: &Service) -> Vec<Process> {
    let all = descendants(service.launcher.id() as i32);
    all.into_iter().filter_map(|(pid, title)| Process::find(pid, title)).collect()
}

/// The launcher and all below it.
pub fn all(service: &Service) -> Vec<Process> {
    let launcher = service.launcher.id() as i32;
    let mut all: Vec<Process> = Process::find(launcher, "launcher".into()).into_iter().collect();
    all.extend(below(service));
    all
}

/// The process whose title begins so; waits for it.
pub fn titled(service: &Service, title: &str) -> Process {
    let mut found = None;
    wait_until(&format!("a process {title:?}"), || {
        found = below(service).into_iter().find(|p| p.title.starts_with(title));
        found.is_some()
    });
    found.unwrap()
}

/// The child of a process whose title begins so; waits for it. Faster than [`titled`] where many
/// are asked for.
pub fn child_titled(parent: i32, title: &str) -> i32 {
    let mut found = None;
    wait_until(&format!("a child {title:?} of process {parent}"), || {
        found = children(parent).into_iter().find(|pid| command_line(*pid).starts_with(title));
        found.is_some()
    });
    found.unwrap()
}

/// A process's children, also those that it was handed; none for a process that is gone.
pub fn children(parent: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let list = list.unwrap_or_default();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Empty for a zombie, or none.
pub fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

/// Waits until a process has loaded all its role's filters: the last step of its confinement.
pub fn wait_confined(pid: i32, role: Role) {
    let wanted: usize = policy::lineage(role).iter().map(|stage| policy::filters(*stage)).sum();
    let wanted = format!("Seccomp_filters:\t{wanted}");
    wait_until(&format!("process {pid} is confined as {role}"), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == wanted)
    });
}

/// Waits until exactly these titles (beginnings of them) are there below the launcher.
pub fn wait_for_titles(service: &Service, titles: &[&str]) -> Vec<Process> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = below(service);
        let all_there = titles.iter().all(|t| found.iter().any(|p| p.title.starts_with(t)));
        if all_there && found.len() == titles.len() {
            return found;
        }
        assert!(Instant::now() < end, "instead of {titles:?} there is {found:?}");
        thread::yield_now();
    }
}

/// Every process that ended was reaped: a zombie that is there now is gone a moment later.
pub fn no_zombie_stays(service: &Service) {
    for process in below(service).into_iter().filter(Process::is_zombie) {
        wait_until(&format!("{process:?} is reaped"), || !process.is_zombie());
    }
}

/// What must be the same after an attack as before: launcher, keeper and listener.
pub struct Unharmed {
    pillars: [Process; 2],
}

impl Unharmed {
    pub fn note(service: &Service) -> Self {
        let pillars = [titled(service, "papayad: keeper"), titled(service, "papayad: listener")];
        Self { pillars }
    }

    /// The same processes serve; nothing was killed by its filter; the log is sound; a client talks.
    pub fn check(&self, service: &mut Service, token: &std::path::Path) {
        let said = service.papaya(token, "send", &["still", "here"]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let verified = service.admin(&["log", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        for pillar in &self.pillars {
            assert!(pillar.exists() && !pillar.is_zombie(), "{pillar:?} was replaced");
        }
        assert!(service.launcher.try_wait().unwrap().is_none(), "the launcher ended");
        no_zombie_stays(service);
        for line in service.log_so_far() {
            // A SEND that its RECV left behind ends by SIGKILL; nothing else ends by a signal.
            let killed = line.contains("killed by") && !line.contains("SEND, process");
            let killed = killed || line.contains("killed by its filter");
            let bad = killed || line.contains("panicked") || line.contains("misbehaves");
            assert!(!bad, "{line}");
        }
    }
}
