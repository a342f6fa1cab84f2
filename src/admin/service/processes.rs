//! What the kernel tells of a process under `/proc` (proc(5)): so that nobody has to count for
//! `papayad status`, and no worker's word is taken for it. Where the system or the caller's rights
//! do not reach (FreeBSD; positions, without root) the answer is `None`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Processor time in seconds, in user and kernel mode.
    pub cpu_seconds: f64,
    /// Resident memory in bytes, as ps(1) shows it: pages that processes share count in each.
    pub memory_bytes: u64,
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
    let setting = |variable| u64::try_from(sysconf(variable).ok()??).ok();
    let ticks = setting(SysconfVar::CLK_TCK)?;
    let page = setting(SysconfVar::PAGE_SIZE)?;
    let (parent, time, pages) = stat(&text)?;
    let cpu_seconds = time as f64 / ticks as f64;
    Some((parent, Used { cpu_seconds, memory_bytes: pages * page }))
}

/// Parent, processor time in ticks, and resident pages of proc_pid_stat(5).
fn stat(text: &str) -> Option<(i32, u64, u64)> {
    // pid (command) state ppid …; the command may contain anything, also blanks and parentheses.
    let behind = text.get(text.rfind(')')? + 1..)?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    // Numbered from 1 in the manual page, and the first one here is the third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((i32::try_from(number(4)?).ok()?, number(14)?.checked_add(number(15)?)?, number(24)?))
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
            assert_eq!(stat(&format!("9 ({command}) {rest}")), Some((7, 42, 321)), "{command:?}");
        }
        for odd in ["", ")", "9 (papayad) S 7", "9 papayad S 7 7"] {
            assert_eq!(stat(odd), None, "{odd:?}");
        }
    }
}
