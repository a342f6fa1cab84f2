//! From a policy's rules to what the kernel runs: seccomp programs, compiled and loaded.
//!
//! The backend loads a role's; `proof` loads the same, and worse ones, to see what they do. Those of
//! RECV and SEND are compiled by the launcher, once for all clients, and handed over as bytes.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::policy::{Answer, Arg, Rule, Test, calls};

/// The most instructions that the kernel takes (BPF_MAXINSNS, linux/bpf_common.h).
const MOST: usize = 4096;
/// Bytes of an instruction (struct sock_filter, linux/filter.h), and of the count of calls.
const WORD: usize = 8;

/// A role's filters, compiled before anything is taken away that compiling might need.
pub struct Filter {
    /// One for each other answer, loaded first. The main filter lets the same calls through, for
    /// the kernel takes the harsher answer of the two.
    others: Vec<BpfProgram>,
    /// Kills the process on anything but what the policy names.
    main: BpfProgram,
    calls: usize,
}

impl Filter {
    /// What these rules say, for this processor.
    ///
    /// # Errors
    /// A rule cannot be expressed: it names an argument that no call has, or there are too many.
    pub fn compile(rules: &[&Rule]) -> Result<Self, BackendError> {
        let mut others = Vec::new();
        for answer in Answer::OTHERS {
            let answered = alternatives(rules.iter().filter(|rule| rule.answer == answer))?;
            if !answered.is_empty() {
                others.push(assemble(answered, SeccompAction::Allow, action(answer))?);
            }
        }
        let all = alternatives(rules.iter())?;
        let calls = all.len();
        let main = assemble(all, SeccompAction::KillProcess, action(Answer::Allow))?;
        Ok(Self { others, main, calls })
    }

    /// Puts this thread, and all that it starts, under the filter for good; sets `no_new_privs`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn load(&self) -> Result<(), seccompiler::Error> {
        self.others.iter().chain([&self.main]).try_for_each(|program| apply_filter(program))
    }

    /// It as bytes, for a process that has no policy to compile; `None` for one of several programs,
    /// which no worker has. The number of calls, then the instructions in their order.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        if !self.others.is_empty() {
            return None;
        }
        let words = self.main.iter().map(|i| {
            let [code, k] = [u64::from(i.code), u64::from(i.k)];
            code | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | k << 32
        });
        let words = [self.calls as u64].into_iter().chain(words);
        Some(words.flat_map(u64::to_le_bytes).collect())
    }

    /// What [`Filter::to_bytes`] gave. `None` if it cannot be that; whether it is a program, the
    /// kernel decides.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<WORD>();
        let (calls, program) = words.split_first()?;
        if !rest.is_empty() || program.is_empty() || program.len() > MOST {
            return None;
        }
        // So large that malloc gives it a mapping of its own, and the memory back (`sys::allocator`).
        let mut main = BpfProgram::with_capacity(MOST);
        main.extend(program.iter().map(|word| {
            let [a, b, jt, jf, k @ ..] = *word;
            sock_filter { code: u16::from_le_bytes([a, b]), jt, jf, k: u32::from_le_bytes(k) }
        }));
        let calls = usize::try_from(u64::from_le_bytes(*calls)).ok()?;
        Some(Self { others: Vec::new(), main, calls })
    }

    /// Number of system calls that are let through at all.
    pub const fn calls(&self) -> usize {
        self.calls
    }
}

fn action(answer: Answer) -> SeccompAction {
    match answer {
        Answer::Allow => SeccompAction::Allow,
        Answer::NotThere => SeccompAction::Errno(libc::ENOSYS as u32),
        Answer::Nothing => SeccompAction::Errno(0),
    }
}

/// By system call: the conditions of each alternative. None at all: whatever the arguments.
type Alternatives = BTreeMap<i64, Vec<Vec<SeccompCondition>>>;

fn alternatives<'a>(
    rules: impl Iterator<Item = &'a &'a Rule>,
) -> Result<Alternatives, BackendError> {
    let mut calls = Alternatives::new();
    let mut unconditional = BTreeSet::new();
    for rule in rules {
        // A call that this processor lacks needs no rule; a test knows that no name is unknown.
        let Some(calls::Number::Is(number)) = calls::number(rule.call) else { continue };
        if rule.args.is_empty() {
            unconditional.insert(number);
        }
        let known = calls.entry(number).or_default();
        for chain in expand(rule.args)? {
            if !known.contains(&chain) {
                known.push(chain);
            }
        }
    }
    for number in unconditional {
        calls.insert(number, Vec::new());
    }
    Ok(calls)
}

fn assemble(
    calls: Alternatives,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let rules = calls
        .into_iter()
        .map(|(number, chains)| {
            let rules: Result<Vec<_>, _> = chains.into_iter().map(SeccompRule::new).collect();
            rules.map(|rules| (number, rules))
        })
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

/// A filter's rule is a conjunction, so a choice of values becomes one rule a value.
fn expand(args: &[Arg]) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let mut chains = vec![Vec::new()];
    for arg in args {
        let choices = conditions(arg)?;
        chains = chains
            .iter()
            .flat_map(|chain| choices.iter().map(move |choice| [&chain[..], choice].concat()))
            .collect();
    }
    Ok(chains)
}

/// The choices that an argument's test leaves, each a conjunction.
fn conditions(arg: &Arg) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    use SeccompCmpOp::{Eq, Ge, Le, MaskedEq};
    // Through u32: a negative int must not be extended to 64 bits.
    let bits = |value: i32| u64::from(value as u32);
    let int =
        |op, value| SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, op, bits(value));
    let long = |op, value| SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, op, value);
    match arg.test {
        Test::Int(values) => values.iter().map(|value| Ok(vec![int(Eq, *value)?])).collect(),
        Test::IntRange(first, last) => Ok(vec![vec![int(Ge, first)?, int(Le, last)?]]),
        Test::IntWithout(mask) => Ok(vec![vec![int(MaskedEq(bits(mask)), 0)?]]),
        Test::Long(values) => values.iter().map(|value| Ok(vec![long(Eq, *value)?])).collect(),
        Test::LongWithout(mask) => Ok(vec![vec![long(MaskedEq(mask), 0)?]]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, policy};
    use super::*;
    use crate::daemon::channel::MESSAGE_MAX;

    #[test]
    fn every_policy_compiles_for_this_processor() {
        for role in Role::ALL {
            let filter = Filter::compile(&policy::rules(role)).unwrap();
            assert!(filter.main.len() < 4096, "{role}: {}", filter.main.len());
            let others = if role == Role::Launcher { Answer::OTHERS.len() } else { 0 };
            assert_eq!(filter.others.len(), others, "{role}");
            assert_eq!(policy::filters(role), 1 + others);
        }
    }

    #[test]
    fn a_workers_filter_is_the_same_once_it_was_handed_over() {
        for role in [Role::Recv, Role::RecvJoined, Role::Send] {
            let filter = Filter::compile(&policy::rules(role)).unwrap();
            let bytes = filter.to_bytes().unwrap();
            // It must fit into a message, with room for what a policy may grow by.
            assert!(bytes.len() < MESSAGE_MAX * 4 / 5, "{role}: {} bytes", bytes.len());
            let same = Filter::from_bytes(&bytes).unwrap();
            assert_eq!((same.main, same.calls), (filter.main, filter.calls));
        }
        let launchers = Filter::compile(&policy::rules(Role::Launcher)).unwrap();
        assert_eq!(launchers.to_bytes(), None);
    }

    #[test]
    fn what_is_no_filter_is_not_taken_for_one() {
        for length in [0, 7, 8, 15, 17, WORD * (MOST + 2)] {
            assert!(Filter::from_bytes(&vec![0; length]).is_none(), "{length}");
        }
        assert!(Filter::from_bytes(&[0; WORD * (MOST + 1)]).is_some());
        // An empty conjunction would let everything pass; the kernel refuses what is no program.
        assert!(Filter::from_bytes(&[0; 16]).unwrap().load().is_err());
    }

    #[test]
    fn a_choice_in_two_arguments_becomes_every_pair() {
        const PAIR: &[Arg] = &[policy::fd(&[4, 6]), policy::int(1, "op", &[1, 2, 8])];
        let chains = expand(PAIR).unwrap();
        assert_eq!(chains.len(), 6);
        assert!(chains.iter().all(|chain| chain.len() == 2));
    }

    #[test]
    fn a_damaged_rule_is_an_error_and_not_a_call_without_conditions() {
        const BEYOND: Rule =
            policy::allow("dup", &[policy::int(6, "none", &[1])], "there is no argument 6");
        assert!(alternatives([&BEYOND].iter()).is_err());
    }
}
