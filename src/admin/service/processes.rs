//! What the kernel tells of a process under `/proc` (proc(5)): so that nobody has to count for
//! `papayad status`, and no worker's word is taken for it. Where the system or the caller's rights
//! do not reach (FreeBSD; positions and memory, without root) the answer is `None`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Processor time in seconds, in user and kernel mode.
    pub cpu_seconds: f64,
    /// Its share of memory in bytes (PSS): a page that ten processes have counts a tenth in each,
    /// so that the sum over many clients is true. The resident memory that ps(1) shows counts the
    /// program and its libraries in every one of them.
    pub memory_bytes: Option<u64>,
}

/// What a process has used, if it is still the child of `parent`: another process may have the
/// number by now.
pub fn used(pid: i32, parent: i32) -> Option<Used> {
    look(pid).filter(|(found, _)| *found == parent).map(|(_, used)| used)
}

/// What a process has used, whosever child it is.
pub fn used_by(pid: i32) -> Option<Used> {
    look(pid).map(|(_, used)| used)
}

/// Its parent, and what it has used.
fn look(pid: i32) -> Option<(i32, Used)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    let (parent, time) = stat(&text)?;
    let cpu_seconds = time as f64 / ticks as f64;
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let memory_bytes = memory.as_deref().and_then(share);
    Some((parent, Used { cpu_seconds, memory_bytes }))
}

/// Parent, and processor time in ticks, of proc_pid_stat(5).
fn stat(text: &str) -> Option<(i32, u64)> {
    // pid (command) state ppid …; the command may contain anything, also blanks and parentheses.
    let behind = text.get(text.rfind(')')? + 1..)?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    // Numbered from 1 in the manual page, and the first one here is the third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((i32::try_from(number(4)?).ok()?, number(14)?.checked_add(number(15)?)?))
}

/// The share of memory of proc_pid_smaps(5).
fn share(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The child of a process that has one: RECV's is SEND.
pub fn child(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Where in its file an open descriptor of a process is.
pub fn position(pid: i32, descriptor: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_move_the_fields() {
        let rest = "S 7 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5000 9000000 321 184467440";
        for command in ["papayad", ") S 1 (", "a b", ""] {
            assert_eq!(stat(&format!("9 ({command}) {rest}")), Some((7, 42)), "{command:?}");
        }
        for odd in ["", ")", "9 (papayad) S 7", "9 papayad S 7 7"] {
            assert_eq!(stat(odd), None, "{odd:?}");
        }
        let memory =
            "55e0-7ffd ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss:     321 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(share(memory), Some(321 << 10));
        assert_eq!(share("Pss: many kB\n"), None);
    }
}
