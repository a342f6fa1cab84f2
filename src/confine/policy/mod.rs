//! Policies as data: one file a role, a reason beside each rule, and nothing that acts.
//!
//! `linux.rs` and `freebsd.rs` of [`super`] enforce them, `sandbox show` prints them, `doctor`
//! compares a running service with them. A role's file holds its fixed table of descriptors and
//! the system calls that the role makes itself. A filter is inherited and can only be tightened,
//! so the filter of an early stage must also let through what the later ones do: see [`stages`].

use serde::Serialize;

use super::Role;

pub use rights::Right;

pub mod keeper;
pub mod launcher;
pub mod listener;
pub mod recv;
pub mod recv_joined;
pub mod rights;
pub mod send;

#[cfg(target_os = "linux")]
pub mod calls;
#[cfg(target_os = "linux")]
pub mod common;
#[cfg(all(test, target_os = "linux"))]
mod never;
#[cfg(target_os = "linux")]
pub mod startup;

/// What the filter answers to a call that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries it out.
    Allow,
    /// The kernel fails it with `ENOSYS`, as one that does not know it: for calls that the C
    /// library only tries before it takes an older one.
    NotThere,
    /// The kernel does nothing and answers 0. To brk(2) that is a break which cannot be moved.
    Nothing,
}

impl Answer {
    /// Those that a filter of their own gives, in the order in which it is loaded before the main one.
    pub const OTHERS: [Self; 2] = [Self::NotThere, Self::Nothing];
}

/// What an argument must be. The kernel reads an `int` from the lower half of a register and
/// ignores the upper, so an `int` must be compared on 32 bits, or the check can be walked around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// An `int` that is one of these.
    Int(&'static [i32]),
    /// An `int` from the first to the second, both included and neither negative.
    IntRange(i32, i32),
    /// An `int` without any of these bits.
    IntWithout(i32),
    /// A register-wide number that is one of these.
    Long(&'static [u64]),
    /// A register-wide number without any of these bits.
    LongWithout(u64),
}

/// One checked argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Which, from 0.
    pub index: u8,
    /// Its name in the manual page.
    pub name: &'static str,
    /// What it must be.
    pub test: Test,
}

/// One way in which a call may be made. Several rules for the same call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The system call's name.
    pub call: &'static str,
    /// All of these must hold.
    pub args: &'static [Arg],
    /// What happens then.
    pub answer: Answer,
    /// Why the role cannot do without it.
    pub why: &'static str,
    /// Why it is there although the whole test suite does not use it. A rule without is used, or
    /// `tests/every_rule_is_used.rs` fails.
    pub rare: Option<&'static str>,
}

impl Rule {
    /// A rule that the test suite does not use, and why it stays.
    pub const fn rare(mut self, why: &'static str) -> Self {
        self.rare = Some(why);
        self
    }
}

/// A rule that lets a call through.
pub const fn allow(call: &'static str, args: &'static [Arg], why: &'static str) -> Rule {
    Rule { call, args, answer: Answer::Allow, why, rare: None }
}

/// A rule for a call that the C library only tries.
pub const fn not_there(call: &'static str, why: &'static str) -> Rule {
    Rule { call, args: &[], answer: Answer::NotThere, why, rare: None }
}

/// A rule for a call that does nothing.
pub const fn nothing(call: &'static str, why: &'static str) -> Rule {
    Rule { call, args: &[], answer: Answer::Nothing, why, rare: None }
}

/// The descriptor, which most calls take first.
pub const fn fd(numbers: &'static [i32]) -> Arg {
    Arg { index: 0, name: "fd", test: Test::Int(numbers) }
}

/// A descriptor, first of the arguments, from one number to another.
pub const fn fd_range(first: i32, last: i32) -> Arg {
    Arg { index: 0, name: "fd", test: Test::IntRange(first, last) }
}

/// An `int` that is one of these.
pub const fn int(index: u8, name: &'static str, values: &'static [i32]) -> Arg {
    Arg { index, name, test: Test::Int(values) }
}

/// `sendto` without an address: a connected socket's peer and nobody else, whatever kind it is.
#[cfg(target_os = "linux")]
pub const NO_ADDRESS: Arg = Arg { index: 4, name: "address", test: Test::Long(&[0]) };

/// `sendto` that does not wait. With any flag `MSG_FASTOPEN` would be one, which connects.
#[cfg(target_os = "linux")]
pub const SEND_AT_ONCE: Arg = int(3, "flags", &[libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL]);

/// `sendto` that may wait for room, towards a more trusted role.
#[cfg(target_os = "linux")]
pub const SEND: Arg =
    int(3, "flags", &[libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL, libc::MSG_NOSIGNAL]);

/// `sendmsg`: its address stands in memory, where no filter sees it, so the flags alone keep it
/// from connecting.
#[cfg(target_os = "linux")]
pub const SEND_MESSAGE: Arg = int(2, "flags", &[libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL]);

/// `recvfrom` that does not wait.
#[cfg(target_os = "linux")]
pub const RECEIVE_AT_ONCE: Arg = int(3, "flags", &[libc::MSG_DONTWAIT]);

/// `recvmsg` that does not wait; descriptors that come with it close on exec.
#[cfg(target_os = "linux")]
pub const RECEIVE_MESSAGE: Arg = int(2, "flags", &[libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC]);

/// What kind of file a descriptor is, and how it is open, as the system tells it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `/dev/null`.
    Null,
    /// A connected TCP socket.
    Client,
    /// A listening TCP socket.
    Listening,
    /// One end of a UNIX socket pair (SEQPACKET).
    Channel,
    /// A pipe's writing end.
    PipeEnd,
    /// The state directory.
    StateDirectory,
    /// `room.log`, write-only and append-only.
    LogAppend,
    /// `room.log`, read-only.
    LogRead,
    /// `room.gate`, read-only: it is only locked.
    Gate,
}

/// One entry of a role's fixed table of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Its number, the first one of a range.
    pub first: i32,
    /// The last number of the range; the same as `first` for a single one.
    pub last: i32,
    /// What it must be.
    pub kind: Kind,
    /// What is behind it.
    pub what: &'static str,
    /// The rights that it is limited to on FreeBSD.
    pub rights: &'static [Right],
}

/// A single descriptor.
pub const fn descriptor(
    number: i32,
    kind: Kind,
    what: &'static str,
    rights: &'static [Right],
) -> Descriptor {
    Descriptor { first: number, last: number, kind, what, rights }
}

/// Limits of a role's resources (setrlimit(2)), soft and hard alike; `None`: as it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Whether it may start processes. Where it may, the launcher has limited their number as root,
    /// for the whole user: the kernel counts a user's processes, not a role's.
    pub processes: bool,
    /// Number one above the highest descriptor. With `None` it is `Context::descriptors`.
    pub descriptors: Option<u64>,
    /// Size of a file in bytes that it may write.
    pub file_bytes: Option<u64>,
    /// Writable memory in bytes.
    pub data_bytes: Option<u64>,
}

/// The roles whose own rules are in the filter that a role is started with: its own, and those of
/// every role and stage that inherits the filter.
pub const fn stages(role: Role) -> &'static [Role] {
    match role {
        Role::Launcher => {
            &[Role::Launcher, Role::Listener, Role::Recv, Role::RecvJoined, Role::Send]
        }
        Role::Recv => &[Role::Recv, Role::RecvJoined, Role::Send],
        Role::Keeper => &[Role::Keeper],
        Role::Listener => &[Role::Listener],
        Role::RecvJoined => &[Role::RecvJoined],
        Role::Send => &[Role::Send],
    }
}

/// The stages whose filters a process of this role is under: what it inherited, and its own.
pub const fn lineage(role: Role) -> &'static [Role] {
    match role {
        Role::Launcher => &[Role::Launcher],
        // Forked before the launcher confines itself.
        Role::Keeper => &[Role::Keeper],
        Role::Listener => &[Role::Launcher, Role::Listener],
        Role::Recv => &[Role::Launcher, Role::Recv],
        Role::RecvJoined => &[Role::Launcher, Role::Recv, Role::RecvJoined],
        Role::Send => &[Role::Launcher, Role::Recv, Role::Send],
    }
}

/// How many filters a role loads itself: one, and one more for each other answer of its rules.
#[cfg(target_os = "linux")]
pub fn filters(role: Role) -> usize {
    let rules = filter_rules(role);
    let given = |answer: &&Answer| rules.iter().any(|(_, rule)| rule.answer == **answer);
    1 + Answer::OTHERS.iter().filter(given).count()
}

/// How many filters a role loads itself: this system has none.
#[cfg(not(target_os = "linux"))]
pub fn filters(_: Role) -> usize {
    0
}

/// A role's fixed table of descriptors. The launcher's is empty: it makes them all.
pub const fn descriptors(role: Role) -> &'static [Descriptor] {
    match role {
        Role::Launcher => &[],
        Role::Keeper => keeper::DESCRIPTORS,
        Role::Listener => listener::DESCRIPTORS,
        Role::Recv => recv::DESCRIPTORS,
        Role::RecvJoined => recv_joined::DESCRIPTORS,
        Role::Send => send::DESCRIPTORS,
    }
}

/// A role's resource limits.
pub const fn limits(role: Role) -> Limits {
    match role {
        Role::Launcher => launcher::LIMITS,
        Role::Keeper => keeper::LIMITS,
        Role::Listener => listener::LIMITS,
        Role::Recv => recv::LIMITS,
        Role::RecvJoined => recv_joined::LIMITS,
        Role::Send => send::LIMITS,
    }
}

/// A role's own system calls, without the ones in `common` and without later stages'.
#[cfg(target_os = "linux")]
pub const fn own_rules(role: Role) -> &'static [Rule] {
    match role {
        Role::Launcher => launcher::RULES,
        Role::Keeper => keeper::RULES,
        Role::Listener => listener::RULES,
        Role::Recv => recv::RULES,
        Role::RecvJoined => recv_joined::RULES,
        Role::Send => send::RULES,
    }
}

/// Every rule of a role's filter, each with the file that it stands in.
#[cfg(target_os = "linux")]
pub fn filter_rules(role: Role) -> Vec<(&'static str, &'static Rule)> {
    let mut parts = vec![("common", common::RULES)];
    if role == Role::Launcher {
        parts.push(("startup", startup::RULES));
    }
    parts.extend(stages(role).iter().map(|stage| (file_of(*stage), own_rules(*stage))));
    parts.into_iter().flat_map(|(file, rules)| rules.iter().map(move |rule| (file, rule))).collect()
}

/// The rules of a role's filter.
#[cfg(target_os = "linux")]
pub fn rules(role: Role) -> Vec<&'static Rule> {
    filter_rules(role).into_iter().map(|(_, rule)| rule).collect()
}

impl Test {
    /// Whether a register with this content passes.
    pub fn accepts(self, register: u64) -> bool {
        // The kernel's own view of an `int`: the lower half.
        let int = register as u32;
        match self {
            Self::Int(values) => values.iter().any(|value| *value as u32 == int),
            Self::IntRange(first, last) => (first as u32..=last as u32).contains(&int),
            Self::IntWithout(bits) => int & bits as u32 == 0,
            Self::Long(values) => values.contains(&register),
            Self::LongWithout(bits) => register & bits == 0,
        }
    }
}

impl Rule {
    /// Whether this rule is about a call with these registers.
    pub fn matches(&self, call: &str, registers: &[u64; 6]) -> bool {
        self.call == call
            && self.args.iter().all(|arg| arg.test.accepts(registers[usize::from(arg.index)]))
    }
}

/// What a filter of these rules answers to a call with these registers, by the data alone; `None`:
/// it kills. The tests of the attacks and `proof` compare it with what the kernel does.
#[cfg(target_os = "linux")]
pub fn answer(rules: &[&Rule], call: &str, registers: &[u64; 6]) -> Option<Answer> {
    let matching = rules.iter().filter(|rule| rule.matches(call, registers));
    // Another answer counts even where a rule lets the call through: see `filter.rs`.
    matching.map(|rule| rule.answer).max_by_key(|answer| *answer != Answer::Allow)
}

#[cfg(target_os = "linux")]
const fn file_of(role: Role) -> &'static str {
    match role {
        Role::Launcher => "launcher",
        Role::Keeper => "keeper",
        Role::Listener => "listener",
        Role::Recv => "recv",
        Role::RecvJoined => "recv_joined",
        Role::Send => "send",
    }
}

/// A line of a policy's table, for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The policy file, without its suffix.
    pub file: &'static str,
    /// The system call, or on FreeBSD the descriptor.
    pub subject: String,
    /// The arguments that it must have, or the rights that the descriptor has.
    pub condition: String,
    /// What happens when they match.
    pub answer: &'static str,
    /// Why it is needed.
    pub why: &'static str,
    /// Why it stays although no test uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rare: Option<&'static str>,
}

/// A role's policy on this operating system as a table.
#[cfg(target_os = "linux")]
pub fn table(role: Role) -> Vec<Row> {
    let row = |(file, rule): (&'static str, &'static Rule)| Row {
        file,
        subject: rule.call.to_owned(),
        condition: rule.args.iter().map(Arg::to_string).collect::<Vec<_>>().join(", "),
        answer: match rule.answer {
            Answer::Allow => "allow",
            Answer::NotThere => "ENOSYS",
            Answer::Nothing => "0, and nothing is done",
        },
        why: rule.why,
        rare: rule.rare,
    };
    filter_rules(role).into_iter().map(row).collect()
}

/// A role's policy on this operating system as a table.
#[cfg(not(target_os = "linux"))]
pub fn table(role: Role) -> Vec<Row> {
    let row = |entry: &'static Descriptor| Row {
        file: "descriptors",
        subject: if entry.first == entry.last {
            entry.first.to_string()
        } else {
            format!("{}..={}", entry.first, entry.last)
        },
        condition: format!("{:?}", entry.rights),
        answer: "allow",
        why: entry.what,
        rare: None,
    };
    descriptors(role).iter().map(row).collect()
}

impl std::fmt::Display for Arg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn list<T: ToString>(values: &[T]) -> String {
            values.iter().map(T::to_string).collect::<Vec<_>>().join("|")
        }
        let name = self.name;
        match self.test {
            Test::Int(values) => write!(f, "{name}={}", list(values)),
            Test::IntRange(first, last) => write!(f, "{name}={first}..={last}"),
            Test::IntWithout(bits) => write!(f, "{name} without {bits:#x}"),
            Test::Long(values) => write!(f, "{name}={}", list(values)),
            Test::LongWithout(bits) => write!(f, "{name} without {bits:#x}"),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_a_known_call_and_says_why() {
        for role in Role::ALL {
            for (file, rule) in filter_rules(role) {
                assert!(calls::number(rule.call).is_some(), "{file}: {}", rule.call);
                assert!(rule.why.len() >= 6, "{file}: {}: {:?}", rule.call, rule.why);
                // The sixth is what `sys::disarmed` knows its calls by.
                assert!(rule.args.iter().all(|arg| arg.index < 5), "{file}: {}", rule.call);
            }
        }
    }

    #[test]
    fn a_later_stage_is_inside_the_earlier() {
        for (outer, inner) in [
            (Role::Launcher, Role::Listener),
            (Role::Launcher, Role::Recv),
            (Role::Recv, Role::RecvJoined),
            (Role::Recv, Role::Send),
        ] {
            let outer_rules = filter_rules(outer);
            for rule in filter_rules(inner) {
                assert!(outer_rules.contains(&rule), "{outer} lacks {inner}'s {rule:?}");
            }
        }
    }

    #[test]
    fn a_descriptor_of_the_table_has_one_meaning() {
        for role in Role::ALL {
            let mut entries = descriptors(role).to_vec();
            entries.sort_by_key(|entry| entry.first);
            for pair in entries.windows(2) {
                assert!(pair[0].last < pair[1].first, "{role}: {pair:?}");
            }
        }
    }
}
