//! Whether the kernel does what the rules of a filter say: calls made up from the rules are tried
//! against it, and what comes back is compared.
//!
//! For tests and `papayad sandbox test`. The calls do nothing, whatever they are (`sys::disarmed`),
//! so a process can try all that a filter lets through; those that it kills cost a process each.

use std::collections::BTreeSet;
use std::ffi::c_long;
use std::fmt;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use super::filter::Filter;
use super::policy::calls::{self, Number};
use super::policy::{self, Answer, Rule, Test};
use crate::sys::disarmed::{Disarmed, PASSED};
use crate::sys::process::{exit_now, fork_role, lower_limit};

/// Content of registers that a rule does not look at: neither an address nor a number of anything.
const ANY: [u64; 3] = [0x7777_7777_7777_7777, 0, u64::MAX];
/// The upper half of a register, which the kernel does not see in an `int`.
const UPPER: u64 = 0xffff_ffff_0000_0000;
/// What x86_64 adds to the numbers of the calls of its 32-bit variant with long registers.
#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;
/// Kernels have numbered their calls up to some 470 by now.
const LAST_NUMBER: c_long = 600;

/// x86_64's uretprobe and uprobe, which newer kernels do not show to filters: only the kernel's own
/// trampolines can make them, and anyone else dies of SIGILL.
const UNSEEN: &[c_long] = if cfg!(target_arch = "x86_64") { &[335, 336] } else { &[] };

/// By which of the processor's entries a call reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Native,
    #[cfg(target_arch = "x86_64")]
    Of32Bit,
}

/// A system call to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    entry: Entry,
    number: c_long,
    registers: [u64; 6],
}

impl Call {
    fn of_rule(rule: &Rule, registers: [u64; 6]) -> Option<Self> {
        match calls::number(rule.call) {
            Some(Number::Is(number)) => Some(Self { entry: Entry::Native, number, registers }),
            Some(Number::NotHere) | None => None,
        }
    }

    const fn without_arguments(entry: Entry, number: c_long) -> Self {
        Self { entry, number, registers: [0; 6] }
    }

    /// What these rules say to it; `None`: it kills.
    pub fn answer(&self, rules: &[&Rule]) -> Option<Answer> {
        if self.entry != Entry::Native {
            return None;
        }
        policy::answer(rules, calls::name(self.number)?, &self.registers)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = calls::name(self.number).unwrap_or("call");
        write!(f, "{name} {:#x} ({:?}) with", self.number, self.entry)?;
        self.registers[..5].iter().try_for_each(|register| write!(f, " {register:#x}"))
    }
}

/// Every call that a rule is about, with each value that it names, and with values beside them.
///
/// All but one of the arguments that a rule looks at are as it wants them, so
/// that the check of each one counts by itself.
pub fn calls_beside(rules: &[&Rule]) -> Vec<Call> {
    let mut made = BTreeSet::new();
    for rule in rules {
        let call = |registers| Call::of_rule(rule, registers);
        for any in ANY {
            made.extend(as_wanted(rule, any, None).into_iter().filter_map(call));
        }
        for place in 0..rule.args.len() {
            made.extend(mutations(rule, place).into_iter().filter_map(call));
        }
    }
    made.into_iter().collect()
}

/// Registers with which a rule matches, but for the argument at this place of its list.
fn mutations(rule: &Rule, place: usize) -> Vec<[u64; 6]> {
    let values = candidates(rule.args[place].test).into_iter();
    values.flat_map(|value| as_wanted(rule, ANY[0], Some((place, value)))).collect()
}

/// The arguments whose checks refuse nothing: whatever they are, another rule lets the call through.
pub fn checks_without_effect(rules: &[&Rule]) -> Vec<(Rule, &'static str)> {
    let pointless = |rule: &Rule, place: usize| {
        mutations(rule, place).iter().all(|r| policy::answer(rules, rule.call, r).is_some())
    };
    let of_rule = |rule: &Rule| {
        let places = (0..rule.args.len()).filter(|place| pointless(rule, *place));
        places.map(|place| (*rule, rule.args[place].name)).collect::<Vec<_>>()
    };
    rules.iter().flat_map(|rule| of_rule(rule)).collect()
}

/// Every number of a call that no rule names, and every number by the processor's other entries.
///
/// Without the other entries, if the kernel has none.
pub fn calls_not_named(rules: &[&Rule], prover: &Prover) -> Result<Vec<Call>, Errno> {
    let named = |number| {
        let name = calls::name(number);
        name.is_some_and(|name| rules.iter().any(|rule| rule.call == name))
    };
    let native = (0..=LAST_NUMBER).filter(|number| !named(*number) && !UNSEEN.contains(number));
    let native = native.map(|number| Call::without_arguments(Entry::Native, number));
    Ok(native.chain(calls_by_other_entries(prover)?).collect())
}

#[cfg(target_arch = "x86_64")]
fn calls_by_other_entries(prover: &Prover) -> Result<Vec<Call>, Errno> {
    let all = 0..=LAST_NUMBER;
    let of_x32 = all.clone().map(|number| Call::without_arguments(Entry::Native, number | X32));
    let of_32_bit = all.map(|number| Call::without_arguments(Entry::Of32Bit, number));
    let is_there = prover.has_the_32_bit_entry()?;
    Ok(of_x32.chain(of_32_bit.filter(|_| is_there)).collect())
}

#[cfg(not(target_arch = "x86_64"))]
fn calls_by_other_entries(_: &Prover) -> Result<Vec<Call>, Errno> {
    Ok(Vec::new())
}

/// Registers with which a rule matches: every combination of the values that it names. Where `but`
/// says so, this value instead at this place in the list of arguments, and of what the others name
/// the first and the last.
fn as_wanted(rule: &Rule, any: u64, but: Option<(usize, u64)>) -> Vec<[u64; 6]> {
    let mut made = vec![[any; 6]];
    for (place, arg) in rule.args.iter().enumerate() {
        let values = match (but, named_values(arg.test).as_slice()) {
            (Some((other, value)), _) if other == place => vec![value],
            (Some(_), [first, .., last]) => vec![*first, *last],
            (_, values) => values.to_vec(),
        };
        let with = |registers: &[u64; 6], value: u64| {
            let mut registers = *registers;
            registers[usize::from(arg.index)] = value;
            registers
        };
        made = made.iter().flat_map(|r| values.iter().map(move |v| with(r, *v))).collect();
    }
    made
}

/// An `int` as a C library passes it: what is above it is not set.
fn low(value: i32) -> u64 {
    u64::from(value as u32)
}

/// Values that a test names and accepts.
fn named_values(test: Test) -> Vec<u64> {
    match test {
        Test::Int(values) => values.iter().copied().map(low).collect(),
        Test::IntRange(first, last) => vec![low(first), low(last)],
        Test::IntWithout(_) | Test::LongWithout(_) => vec![0],
        Test::Long(values) => values.to_vec(),
    }
}

/// Values on either side of a test's edges: what it names, its neighbours, each with one bit more or
/// less, and the extremes; for an `int` also with the register's upper half set.
pub(super) fn candidates(test: Test) -> BTreeSet<u64> {
    let flips = |value: u64, bits: u32| (0..bits).map(move |bit| value ^ (1 << bit));
    let beside = |value: u64, bits: u32| {
        flips(value, bits).chain([value, value.wrapping_add(1), value.wrapping_sub(1)])
    };
    let ints = |named: &[u64], more: &mut dyn Iterator<Item = u64>| -> BTreeSet<u64> {
        let plain = named.iter().copied().chain([0, -1, i32::MIN, i32::MAX].map(low));
        let both = plain.flat_map(|value| [value, value | UPPER, value | 1 << 32]);
        both.chain(more.map(|value| value & !UPPER)).collect()
    };
    let named = named_values(test);
    match test {
        Test::Int(_) => {
            let beside = named.iter().flat_map(|value| beside(*value, 32));
            // Of what an int mostly is: descriptors of the fixed tables, small numbers of options.
            ints(&named, &mut beside.chain(0..=18))
        }
        Test::IntRange(first, last) => {
            let edges = [first, first + (last - first) / 2, last].map(low);
            ints(&edges, &mut edges.iter().flat_map(|edge| beside(*edge, 0)))
        }
        Test::IntWithout(bits) => {
            let some = [0, low(bits), low(!bits)];
            ints(&some, &mut some.iter().flat_map(|value| beside(*value, 32)))
        }
        Test::Long(_) => named.iter().flat_map(|value| beside(*value, 64)).collect(),
        Test::LongWithout(bits) => {
            [0, bits, !bits].iter().flat_map(|value| beside(*value, 64)).collect()
        }
    }
}

/// What was tried and came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Number of calls that had to get through, and did.
    pub passed: usize,
    /// Number of calls that had to kill, and did.
    pub killed: usize,
    /// What came out otherwise than the rules say, in words.
    pub wrong: Vec<String>,
}

/// How a process that made calls ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// A filter killed it.
    Killed,
    /// It made all of its calls, and each was answered as it had to be.
    AsExpected,
    /// A call got through that had to be answered otherwise.
    Passed,
    /// A call was answered with `ENOSYS` that had to be answered otherwise.
    NotThere,
    /// A call was answered with 0 that had to be answered otherwise.
    Nothing,
    /// Neither: another error, another signal, or the filter could not be loaded.
    Otherwise,
}

impl Ending {
    const EXITS: [(i32, Self); 4] =
        [(0, Self::AsExpected), (1, Self::Passed), (2, Self::NotThere), (4, Self::Nothing)];

    fn code(self) -> i32 {
        Self::EXITS.iter().find(|(_, ending)| *ending == self).map_or(3, |(code, _)| *code)
    }

    fn of(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => Self::Killed,
            WaitStatus::Exited(_, code) => Self::EXITS
                .iter()
                .find(|(known, _)| *known == code)
                .map_or(Self::Otherwise, |(_, ending)| *ending),
            _ => Self::Otherwise,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "it killed",
            Self::AsExpected => "it was answered as expected",
            Self::Passed => "it got through",
            Self::NotThere => "it seemed not to be there",
            Self::Nothing => "it did nothing",
            Self::Otherwise => "it ended otherwise",
        })
    }
}

/// A process that tries calls in its children. It must have a single thread.
pub struct Prover {
    disarmed: Disarmed,
}

impl Prover {
    /// From here on this process is non-dumpable, so that no child that is killed leaves a core,
    /// and it and its children make disarmed calls.
    ///
    /// # Errors
    /// In words.
    pub fn start() -> Result<Self, String> {
        let failed = |e: Errno| format!("cannot keep what is killed from leaving a core: {e}");
        prctl::set_dumpable(false).map_err(failed)?;
        lower_limit(Resource::RLIMIT_CORE, 0).map_err(failed)?;
        let disarmed =
            Disarmed::load().map_err(|e| format!("cannot disarm this process's calls: {e}"))?;
        Ok(Self { disarmed })
    }

    /// Tries calls against a filter and compares with what `rules` say that it ought to answer.
    ///
    /// # Errors
    /// A child cannot be made.
    pub fn prove(&self, filter: &Filter, rules: &[&Rule], calls: &[Call]) -> Result<Proof, Errno> {
        let mut proof = Proof::default();
        let expected = calls.iter().map(|call| (*call, call.answer(rules)));
        let (passing, killing): (Vec<_>, Vec<_>) =
            expected.partition(|(_, answer)| answer.is_some());
        if self.ending(Some(filter), &passing)? == Ending::AsExpected {
            proof.passed = passing.len();
        } else {
            // One of them: which?
            for one in &passing {
                match self.ending(Some(filter), &[*one])? {
                    Ending::AsExpected => proof.passed += 1,
                    other => proof.wrong.push(format!("{}: must pass, but {other}", one.0)),
                }
            }
        }
        for one in &killing {
            match self.ending(Some(filter), &[*one])? {
                Ending::Killed => proof.killed += 1,
                other => proof.wrong.push(format!("{}: must kill, but {other}", one.0)),
            }
        }
        Ok(proof)
    }

    /// Whether this kernel has the entry of 32-bit programs. Without it, a call by it kills anyhow,
    /// though by another signal.
    ///
    /// # Errors
    /// A child cannot be made.
    #[cfg(target_arch = "x86_64")]
    pub fn has_the_32_bit_entry(&self) -> Result<bool, Errno> {
        let call = Call::without_arguments(Entry::Of32Bit, 0);
        Ok(self.ending(None, &[(call, Some(Answer::Allow))])? == Ending::AsExpected)
    }

    /// Makes those of the calls that get through by the rules in this very process, which is under
    /// the filter already, and under one of the rules `above`, whose other answers are harsher; the
    /// first that is answered otherwise, in words.
    ///
    /// # Errors
    /// That.
    pub fn pass_here(
        &self,
        rules: &[&Rule],
        above: &[&Rule],
        calls: &[Call],
    ) -> Result<usize, String> {
        let answer = |call: &Call| {
            let harsher = call.answer(above).filter(|answer| *answer != Answer::Allow);
            call.answer(rules).map(|answer| harsher.unwrap_or(answer))
        };
        let expected = calls.iter().map(|call| (*call, answer(call)));
        let passing: Vec<_> = expected.filter(|(_, answer)| answer.is_some()).collect();
        match self.first_otherwise(&passing) {
            None => Ok(passing.len()),
            Some((call, found)) => Err(format!("{call}: must pass, but {found}")),
        }
    }

    /// Makes these calls in a child, under a filter, up to the first that is not answered so.
    fn ending(
        &self,
        filter: Option<&Filter>,
        calls: &[(Call, Option<Answer>)],
    ) -> Result<Ending, Errno> {
        let child = fork_role(|| {
            if filter.is_some_and(|filter| filter.load().is_err()) {
                exit_now(Ending::Otherwise.code());
            }
            let otherwise = self.first_otherwise(calls);
            exit_now(otherwise.map_or(Ending::AsExpected, |(_, found)| found).code())
        })?;
        waitpid(child, None).map(Ending::of)
    }

    fn first_otherwise(&self, calls: &[(Call, Option<Answer>)]) -> Option<(Call, Ending)> {
        let found = calls.iter().map(|(call, expected)| (*call, self.attempt(call), *expected));
        let wanted = |expected| match expected {
            Some(Answer::Allow) => Ending::Passed,
            Some(Answer::NotThere) => Ending::NotThere,
            Some(Answer::Nothing) => Ending::Nothing,
            None => Ending::Killed,
        };
        let mut otherwise = found.filter(|(_, found, expected)| *found != wanted(*expected));
        otherwise.next().map(|(call, found, _)| (call, found))
    }

    fn attempt(&self, call: &Call) -> Ending {
        let [a, b, c, d, e, _] = call.registers;
        let result = match call.entry {
            Entry::Native => self.disarmed.call(call.number, [a, b, c, d, e]),
            #[cfg(target_arch = "x86_64")]
            Entry::Of32Bit => self.disarmed.call_by_the_32_bit_entry(call.number as u32),
        };
        match result {
            Err(PASSED) => Ending::Passed,
            Err(Errno::ENOSYS) => Ending::NotThere,
            Ok(0) => Ending::Nothing,
            _ => Ending::Otherwise,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Role;
    use super::*;

    /// The data's idea of a test, by hand: what each kind takes and what it does not.
    #[test]
    fn each_kind_of_test_takes_what_it_names_and_nothing_beside_it() {
        const I: Test = Test::Int(&[0, 5, -100]);
        const M1: u64 = u64::MAX;
        for (test, taken, refused) in [
            (I, vec![0, 5, UPPER | 5, 0xffff_ff9c, -100_i64 as u64], vec![1, 4, 6, M1, 1 << 31]),
            (Test::IntRange(3, 9), vec![3, 9, UPPER | 3, 1 << 32 | 9], vec![2, 10, 0, M1, 1 << 31]),
            (Test::IntRange(3, i32::MAX), vec![3, 0x7fff_ffff], vec![2, M1, 1 << 31, 0xffff_ff9c]),
            (Test::IntWithout(6), vec![0, 1, 8, UPPER], vec![2, 4, 6, 7, UPPER | 2, M1]),
            (Test::Long(&[0, 17]), vec![0, 17], vec![1, 16, 1 << 32, 1 << 63 | 17, UPPER | 17]),
            (Test::LongWithout(4), vec![0, 3, 8, UPPER, 4 << 32], vec![4, 5, UPPER | 4, M1]),
        ] {
            for value in taken {
                assert!(test.accepts(value), "{test:?} refuses {value:#x}");
            }
            for value in refused {
                assert!(!test.accepts(value), "{test:?} takes {value:#x}");
            }
        }
    }

    #[test]
    fn every_test_is_tried_with_values_that_it_takes_and_with_values_that_it_refuses() {
        for rule in Role::ALL.into_iter().flat_map(policy::rules) {
            for arg in rule.args {
                let values = candidates(arg.test);
                let taken = values.iter().filter(|value| arg.test.accepts(**value)).count();
                assert!(taken >= 1 && values.len() - taken >= 2, "{}: {arg}", rule.call);
            }
        }
    }

    /// A filter that others inherit has to let through what they do, and so makes many of its own
    /// checks void; but each must have its effect in the filter of some role.
    #[test]
    fn every_check_of_an_argument_refuses_something_in_some_role() {
        let mut effect: BTreeMap<String, bool> = BTreeMap::new();
        for role in Role::ALL {
            let void = checks_without_effect(&policy::rules(role));
            for (file, rule) in policy::filter_rules(role) {
                for arg in rule.args {
                    let name = format!("{file}: {}: {arg} ({})", rule.call, rule.why);
                    *effect.entry(name).or_default() |= !void.contains(&(*rule, arg.name));
                }
            }
        }
        let void: Vec<_> = effect.iter().filter(|(_, effect)| !**effect).collect();
        assert!(void.is_empty(), "{void:#?}");
    }
}
