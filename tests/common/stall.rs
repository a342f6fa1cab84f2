//! Catching a process of the service inside the lock, as chance will have it: nobody outside of the
//! service can make it stop there.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses its part.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::random::Random;

/// Every append waits for the disk inside the lock: so it is held most of the time.
pub const ALWAYS: &str = "[log]\ndurability = \"always\"\npresence = false\n";
/// How often a process is stopped in the hope to find it inside the lock.
const TRIES: usize = 50_000;
const STOPS_MAX: usize = 10_000_000;

/// Stops a process at a moment at which it holds one of the room's locks.
pub fn stop_inside(pid: i32) {
    let mut random = Random::new(7);
    let signal = |signal| kill(Pid::from_raw(pid), signal).unwrap();
    for _ in 0..TRIES {
        signal(Signal::SIGSTOP);
        assert!((0..STOPS_MAX).any(|_| state(pid) == "T"), "process {pid} does not stop");
        if holds_a_lock(pid) {
            return;
        }
        signal(Signal::SIGCONT);
        for _ in 0..random.below(20_000) {
            std::hint::spin_loop();
        }
    }
    panic!("process {pid} was never found inside the lock");
}

fn state(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat[stat.rfind(')').unwrap() + 1..].split_ascii_whitespace().next().unwrap().to_owned()
}

/// Whether it waits for one of the room's locks.
pub fn waits_for_a_lock(pid: i32) -> bool {
    is_listed(pid, &["->", "FLOCK"])
}

fn holds_a_lock(pid: i32) -> bool {
    is_listed(pid, &["FLOCK"])
}

/// By the kernel's list (proc_locks(5)): `1: FLOCK ADVISORY WRITE 123 fe:00:456 0 EOF`, with `->`
/// for those who wait. The service's processes lock nothing but the log and its gate.
fn is_listed(pid: i32, marks: &[&str]) -> bool {
    let list = std::fs::read_to_string("/proc/locks").unwrap();
    list.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
        words.starts_with(marks) && words.get(marks.len() + 2) == Some(&pid.to_string().as_str())
    })
}
