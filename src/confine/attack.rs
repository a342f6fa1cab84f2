//! The list of what a confined process must not be able to do. `tests/` and
//! `papayad sandbox test` make a process of each role try them; a filter must kill each.
//!
//! Functions make it rather than constants: the dynamic loader writes the addresses of a constant's
//! texts into every process, and no process of the service but those two needs them.
//!
//! This module is the only place where an [`Attack`] is made, so that the one unsafe line that carries
//! them out can rely on this rule: a pointer argument is null, static bytes that the call only
//! reads, or the scratch page; and no call changes other memory of the process. Besides, an attack
//! that nothing stops must do no harm beyond the process that tries it and its group: signals to
//! others are number 0, names of files are ones that nobody has.

use std::ffi::CStr;

use super::{Level, Role};

/// An argument of an attack.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A number, or a null pointer.
    Number(i64),
    /// A path.
    Path(&'static CStr),
    /// What else the call only reads.
    Bytes(&'static [u8]),
    /// The address of a page that the call may read and write.
    Scratch,
}

/// A system call that no role below the launcher may make, or only some may.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// A name for the table.
    name: &'static str,
    /// What an attacker would gain.
    gain: &'static str,
    call: &'static str,
    arguments: [Value; 6],
    /// Roles whose work includes this call, so that it is no attack there.
    not_for: &'static [Role],
    /// What stops it in the launcher, whose filter has to let it through: the error, and the
    /// weakest level that gives it.
    launcher: Option<(i32, Level)>,
    /// The same in the keeper.
    keeper: Option<(i32, Level)>,
}

/// How an attack must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The filter kills the process.
    Killed,
    /// The call fails with this error number, by Landlock, by sealed memory or by the filter.
    Fails(i32),
    /// Nothing stops it: only a stronger level would.
    Open,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Killed => f.write_str("killed by the filter"),
            Self::Fails(number) => write!(f, "{:?}", nix::errno::Errno::from_raw(*number)),
            Self::Open => f.write_str("open at this level"),
        }
    }
}

impl Attack {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What an attacker would gain.
    pub const fn gain(&self) -> &'static str {
        self.gain
    }

    /// The system call's name.
    pub const fn call(&self) -> &'static str {
        self.call
    }

    /// Whether this must fail in a role.
    pub fn is_for(&self, role: Role) -> bool {
        !self.not_for.contains(&role)
    }

    /// How it must end, at a level, in a role that [`Attack::is_for`] says it is for.
    pub fn refusal(&self, role: Role, level: Level) -> Refusal {
        let fails = match role {
            Role::Launcher => self.launcher,
            Role::Keeper => self.keeper,
            _ => None,
        };
        match fails {
            None => Refusal::Killed,
            Some((_, from)) if level < from => Refusal::Open,
            Some((number, _)) => Refusal::Fails(number),
        }
    }

    /// The arguments.
    pub const fn arguments(&self) -> &[Value; 6] {
        &self.arguments
    }

    /// The call's number; `None` where this processor has no such call.
    #[cfg(target_os = "linux")]
    pub fn number(&self) -> Option<std::ffi::c_long> {
        match super::policy::calls::number(self.call)? {
            super::policy::calls::Number::Is(number) => Some(number),
            super::policy::calls::Number::NotHere => None,
        }
    }
}

/// The attack of this name.
pub fn find(name: &str) -> Option<Attack> {
    all().into_iter().find(|attack| attack.name == name)
}

/// Every attack.
#[cfg(not(target_os = "linux"))]
pub fn all() -> Vec<Attack> {
    Vec::new()
}

#[cfg(target_os = "linux")]
pub use linux::all;

#[cfg(target_os = "linux")]
mod code;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod others;
#[cfg(target_os = "linux")]
mod room;

/// What the parts of the table are written with.
#[cfg(target_os = "linux")]
mod linux {
    use super::{Attack, Level, Role, Value, code, files, kernel, network, others, room};

    pub(super) const fn n(number: i32) -> Value {
        Value::Number(number as i64)
    }

    pub(super) const fn attack(
        name: &'static str,
        gain: &'static str,
        call: &'static str,
        given: &[Value],
    ) -> Attack {
        let mut arguments = [Value::Number(0); 6];
        let mut index = 0;
        while index < given.len() {
            arguments[index] = given[index];
            index += 1;
        }
        Attack { name, gain, call, arguments, not_for: &[], launcher: None, keeper: None }
    }

    impl Attack {
        /// Roles whose policy has to let it through.
        pub(super) const fn not_for(mut self, roles: &'static [Role]) -> Self {
            self.not_for = roles;
            self
        }

        /// The launcher's filter has to let it through, for all that descends from it.
        pub(super) const fn not_for_launcher(self) -> Self {
            self.not_for(&[Role::Launcher])
        }

        /// The same, but something else stops it there, with this error, from this level on.
        pub(super) const fn fails_in_launcher(mut self, errno: i32, from: Level) -> Self {
            self.launcher = Some((errno, from));
            self
        }

        /// The same in the keeper.
        pub(super) const fn fails_in_keeper(mut self, errno: i32, from: Level) -> Self {
            self.keeper = Some((errno, from));
            self
        }
    }

    /// Every attack. The process that tries them has a group of its own and may be lost.
    pub fn all() -> Vec<Attack> {
        [
            others::attacks(),
            files::attacks(),
            room::attacks(),
            network::attacks(),
            code::attacks(),
            kernel::attacks(),
        ]
        .concat()
    }

    #[cfg(test)]
    mod tests {
        use super::super::super::policy::{self, Answer, calls};
        use super::super::Refusal;
        use super::*;

        #[test]
        fn every_attack_has_a_name_of_its_own_and_a_known_call() {
            let attacks = all();
            for (index, attack) in attacks.iter().enumerate() {
                assert!(calls::number(attack.call).is_some(), "{}", attack.call);
                assert!(
                    attacks[..index].iter().all(|other| other.name != attack.name),
                    "{}",
                    attack.name
                );
            }
        }

        /// What a filter answers, by its data; an address is any number but zero.
        fn answer(role: Role, attack: &Attack) -> Option<Answer> {
            let register = |value: &Value| match value {
                Value::Number(number) => *number as u64,
                Value::Path(_) | Value::Bytes(_) | Value::Scratch => 0x7fff_dead_b000,
            };
            let rules = policy::rules(role);
            policy::answer(&rules, attack.call, &attack.arguments.each_ref().map(register))
        }

        #[test]
        fn what_a_role_is_excused_from_is_what_its_policy_lets_through_and_nothing_else() {
            let mut wrong = Vec::new();
            for role in Role::ALL {
                for attack in all().iter().filter(|attack| attack.number().is_some()) {
                    let found = answer(role, attack);
                    let fits = match (attack.is_for(role), attack.refusal(role, Level::Full)) {
                        (true, Refusal::Killed) => found.is_none(),
                        (true, Refusal::Open) => false,
                        (true, Refusal::Fails(libc::ENOSYS)) => found == Some(Answer::NotThere),
                        (true, Refusal::Fails(_)) | (false, _) => found == Some(Answer::Allow),
                    };
                    if !fits {
                        wrong.push(format!("{role}: {}: the policy says {found:?}", attack.name));
                    }
                }
            }
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }

        #[test]
        fn a_weaker_level_opens_nothing_to_who_talks_to_clients() {
            let open = |role, level| {
                let mut names: Vec<&str> = Vec::new();
                for attack in all().iter().filter(|attack| attack.is_for(role)) {
                    if attack.refusal(role, level) == Refusal::Open {
                        names.push(attack.name());
                    }
                }
                names
            };
            let (launchers, keepers) = (
                ["open", "open-past-directory", "execute-at", "execute-descriptor"],
                ["open-past-directory", "open-above-directory"],
            );
            for role in Role::ALL {
                for level in Level::ALL {
                    let paths = level < Level::Landlock2;
                    let expected = match role {
                        Role::Launcher if paths => launchers.to_vec(),
                        Role::Keeper if paths => keepers.to_vec(),
                        _ => vec![],
                    };
                    assert_eq!(open(role, level), expected, "{role} {level}");
                }
            }
        }

        #[test]
        fn each_worker_has_to_withstand_a_hundred_attacks() {
            for role in Role::ALL {
                let count = all().iter().filter(|attack| attack.is_for(role)).count();
                let enough = if role == Role::Launcher { 80 } else { 100 };
                assert!(count >= enough, "{role}: {count}");
            }
        }
    }
}
