//! What the kernel's log says about a process that a filter killed: pure, from a line to a value.
//!
//! A parent learns only that its child died of `SIGSYS`; which call it was stands in the kernel's
//! audit records (type 1326), which reach the kernel's log where no audit daemon takes them.

use std::fmt;

use serde::Serialize;

/// A call that a filter did not let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The process.
    pub pid: i32,
    /// The system call: its name, or its number where the policies know no name for it.
    pub call: String,
}

impl Violation {
    /// The violation that a line of the kernel's log tells of, if it does.
    pub fn parse(line: &str) -> Option<Self> {
        if !line.split_ascii_whitespace().any(|word| word.ends_with("type=1326")) {
            return None;
        }
        let pid = field(line, "pid=")?.parse().ok()?;
        let number: u32 = field(line, "syscall=")?.parse().ok()?;
        Some(Self { pid, call: name_of(number) })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} called {}", self.pid, self.call)
    }
}

fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key))
}

#[cfg(target_os = "linux")]
fn name_of(number: u32) -> String {
    super::policy::calls::name(number.into()).map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(not(target_os = "linux"))]
fn name_of(number: u32) -> String {
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "6,1185,2960070542,-;audit: type=1326 audit(1795394996.974:501): \
        auid=4294967295 uid=0 gid=0 ses=4294967295 pid=25178 comm=\"papayad\" \
        exe=\"/usr/sbin/papayad\" sig=31 arch=c000003e syscall=99999 compat=0 ip=0x7fbc code=0x80000000";

    #[test]
    fn the_kernels_record_names_process_and_call() {
        let expected = Violation { pid: 25178, call: "99999".to_owned() };
        assert_eq!(Violation::parse(LINE), Some(expected));
    }

    #[test]
    fn other_lines_are_none() {
        for line in ["", "type=1326", "audit: type=1400 pid=1 syscall=2", "pid=1 syscall=2"] {
            assert_eq!(Violation::parse(line), None, "{line}");
        }
    }
}
