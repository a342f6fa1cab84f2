//! What the kernel's log says about a process that a filter killed: pure, from a line to a value.
//!
//! A parent learns only that its child died of `SIGSYS`; which call it was stands in the kernel's
//! audit records (type 1326), which reach the kernel's log where no audit daemon takes them. The log
//! has lines of everybody's, also of the unprivileged: whatever stands in one, it gives a value or none.

use std::fmt;

use serde::{Serialize, Serializer};

/// A call that a filter did not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The process, as it is numbered outside of all containers.
    pub pid: i32,
    /// What it called.
    pub call: Call,
}

/// A system call as the kernel's log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    number: u32,
    /// It was called as this processor's own programs do: a 32-bit program's numbers are others.
    native: bool,
}

impl Violation {
    /// The violation that a record of /dev/kmsg tells of, if it does.
    pub fn parse(record: &str) -> Option<Self> {
        // At its very beginning: further on may stand what somebody calls a program or a device.
        let told = record.split_once(';')?.1.strip_prefix("audit: type=1326 audit(")?;
        let call = Call {
            number: field(told, "syscall=")?.parse().ok()?,
            native: field(told, "arch=")? == NATIVE,
        };
        Some(Self { pid: field(told, "pid=")?.parse().ok()?, call })
    }
}

/// `AUDIT_ARCH_…` of audit(7) in linux/audit.h, as it is printed.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "c00000b7" } else { "c000003e" };

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} called {}", self.pid, self.call)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match name_of(number) {
            _ if !self.native => write!(f, "number {number} of another architecture's"),
            Some(name) => write!(f, "{name} ({number})"),
            None => write!(f, "number {number}"),
        }
    }
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key))
}

#[cfg(target_os = "linux")]
fn name_of(number: u32) -> Option<&'static str> {
    super::policy::calls::name(number.into())
}

#[cfg(not(target_os = "linux"))]
fn name_of(_: u32) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As read from /dev/kmsg of Linux 6.18.
    fn line(call: &str) -> String {
        format!(
            "5,1185,2960070542,-;audit: type=1326 audit(1795394996.974:501): auid=4294967295 \
             uid=65534 gid=65533 ses=4294967295 pid=25178 comm=\"papayad\" \
             exe=\"/usr/sbin/papayad\" sig=31 arch={NATIVE} {call} compat=0 ip=0x7fbc \
             code=0x80000000\n"
        )
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernels_record_names_process_and_call() {
        let number = libc::SYS_socket;
        let found = Violation::parse(&line(&format!("syscall={number}"))).unwrap();
        assert_eq!(found.pid, 25178);
        assert_eq!(found.call.to_string(), format!("socket ({number})"));
        let found = Violation::parse(&line("syscall=99999")).unwrap();
        assert_eq!(found.call.to_string(), "number 99999");
    }

    #[test]
    fn a_32_bit_call_is_not_given_the_name_that_its_number_has_here() {
        let other = line("syscall=41").replace(NATIVE, "40000003");
        let found = Violation::parse(&other).unwrap();
        assert_eq!(found.call.to_string(), "number 41 of another architecture's");
    }

    #[test]
    fn other_lines_are_none() {
        let good = "5,1,2,-;audit: type=1326 audit(1.0:1): pid=1 arch=c000003e syscall=2";
        assert!(Violation::parse(good).is_some());
        for line in [
            "",
            ";",
            "5,1,2,-;audit: type=1326 audit(",
            "audit: type=1326 audit(1.0:1): pid=1 arch=c000003e syscall=2",
            "5,1,2,-;evil: audit: type=1326 audit(1.0:1): pid=1 arch=c000003e syscall=2",
            &good.replace("1326", "1400"),
            &good.replace("pid=1", "pid=99999999999"),
            &good.replace("pid=1", "pid=-x"),
            &good.replace("syscall=2", "syscall=-2"),
            &good.replace(" arch=c000003e", ""),
        ] {
            assert_eq!(Violation::parse(line), None, "{line}");
        }
    }

    /// audit(8) writes a name with blanks or quotes in hexadecimal, so no word of it can be a field.
    #[test]
    fn what_a_process_calls_itself_does_not_stand_for_a_field() {
        let text = line("syscall=41").replace("\"papayad\"", "706F7720706964 3D31");
        assert_eq!(Violation::parse(&text).unwrap().pid, 25178);
    }
}
