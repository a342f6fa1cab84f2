//! From a policy's rules to what the kernel runs: seccomp programs, compiled and loaded.
//!
//! The backend loads a role's; `proof` loads the same, and worse ones, to see what they do. Those of
//! RECV and SEND are compiled by the launcher, once for all clients, and handed over as bytes.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use self::SeccompCmpOp::{Eq, Ge, Le, MaskedEq};
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
    // By system call: what its rules ask, and the values of the first argument. Rules that differ in
    // these alone are one, with the values of all.
    let mut ways = BTreeMap::<i64, Vec<(&[Arg], Vec<i32>)>>::new();
    for rule in rules {
        // A call that this processor lacks needs no rule; a test knows that no name is unknown.
        let Some(calls::Number::Is(number)) = calls::number(rule.call) else { continue };
        let known = ways.entry(number).or_default();
        let values = first_values(rule.args).unwrap_or_default();
        match known.iter_mut().find(|(args, _)| differ_in_first_values(args, rule.args)) {
            Some((_, all)) => all.extend(values),
            None => known.push((rule.args, values.to_vec())),
        }
    }
    let chains = |ways: Vec<(&[Arg], Vec<i32>)>| {
        if ways.iter().any(|(args, _)| args.is_empty()) {
            return Ok(Vec::new());
        }
        let chains = ways.iter().map(|(args, values)| expand(args, values));
        Ok(chains.collect::<Result<Vec<_>, _>>()?.concat())
    };
    ways.into_iter().map(|(number, ways)| Ok((number, chains(ways)?))).collect()
}

/// The values of the first argument, if it is such a choice.
fn first_values(args: &[Arg]) -> Option<&'static [i32]> {
    match args.first()?.test {
        Test::Int(values) => Some(values),
        _ => None,
    }
}

/// Whether two rules of one call differ in the first argument's values at most.
fn differ_in_first_values(a: &[Arg], b: &[Arg]) -> bool {
    let choices = first_values(a).is_some() && first_values(b).is_some();
    a == b || choices && a[0].index == b[0].index && a[1..] == b[1..]
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
    Ok(shorten(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?))
}

/// The same program with half as many instructions: each client has three of its own, besides the
/// launcher's, and goes through them at each call. A jump to a jump goes to its end, and one to an answer
/// to the last of its kind, where it reaches so far; what nobody comes to is left out. Jumps lead forward
/// alone, and none becomes longer than the 255 instructions that fit into a conditional one: leaving out
/// makes all shorter.
fn shorten(mut program: BpfProgram) -> BpfProgram {
    loop {
        let before = program.len();
        for at in (0..before).rev() {
            redirect(&mut program, at);
        }
        program = left_out(&program);
        if program.len() == before {
            return program;
        }
    }
}

/// Where a program goes on from one of its instructions.
enum Next {
    /// It ends with an answer.
    Nowhere,
    /// There.
    Jump(usize),
    /// To the one or the other.
    Branch(usize, usize),
    /// To the instruction behind it.
    Behind,
}

fn next(program: &[sock_filter], at: usize) -> Next {
    let sock_filter { code, jt, jf, k } = program[at];
    match u32::from(code) & 0x07 {
        libc::BPF_RET => Next::Nowhere,
        libc::BPF_JMP if u32::from(code) & 0xf0 == libc::BPF_JA => Next::Jump(at + 1 + k as usize),
        libc::BPF_JMP => Next::Branch(at + 1 + usize::from(jt), at + 1 + usize::from(jf)),
        _ => Next::Behind,
    }
}

/// Has a jump go where the ones behind it would lead in the end, which are redirected already.
fn redirect(program: &mut [sock_filter], at: usize) {
    let end = |target| match next(program, target) {
        Next::Jump(further) => further,
        _ => target,
    };
    let short = |target: usize| {
        let nearest = end(target);
        let same = |there: &usize| program[*there] == program[nearest];
        let answers = matches!(next(program, nearest), Next::Nowhere);
        let reach = nearest..program.len().min(at + 2 + usize::from(u8::MAX));
        let last = reach.rev().find(|there| answers && same(there)).unwrap_or(nearest);
        u8::try_from(last - at - 1).ok()
    };
    match next(program, at) {
        Next::Jump(target) => {
            let target = end(target);
            match next(program, target) {
                Next::Nowhere => program[at] = program[target].clone(),
                _ => program[at].k = (target - at - 1) as u32,
            }
        }
        Next::Branch(yes, no) => {
            let (yes, no) = (short(yes), short(no));
            let instruction = &mut program[at];
            (instruction.jt, instruction.jf) =
                (yes.unwrap_or(instruction.jt), no.unwrap_or(instruction.jf));
        }
        _ => {}
    }
}

/// Without what nobody comes to, and jumps to the instruction behind.
fn left_out(program: &[sock_filter]) -> BpfProgram {
    let mut reached = vec![false; program.len()];
    let mut kept = Vec::with_capacity(program.len());
    reached[0] = true;
    for at in 0..program.len() {
        let (targets, is_needed) = match next(program, at) {
            Next::Nowhere => ([None, None], true),
            Next::Jump(target) => ([Some(target), None], target != at + 1),
            Next::Branch(yes, no) => ([Some(yes), Some(no)], true),
            Next::Behind => ([Some(at + 1), None], true),
        };
        if reached[at] {
            let targets = targets.into_iter().flatten();
            targets.for_each(|target| reached[target] = true);
        }
        kept.push(reached[at] && is_needed);
    }
    // How many before it are kept is the place of one, or of the next that is kept.
    let places = kept.iter().scan(0, |before, kept| {
        let place = *before;
        *before += usize::from(*kept);
        Some(place)
    });
    let place: Vec<usize> = places.collect();
    // It was as long or longer, and did fit.
    let distance = |at: usize, target: usize| place[target] - place[at] - 1;
    let instructions = (0..program.len()).filter(|at| kept[*at]).map(|at| {
        let mut instruction = program[at].clone();
        match next(program, at) {
            Next::Jump(target) => instruction.k = distance(at, target) as u32,
            Next::Branch(yes, no) => {
                let (yes, no) = (distance(at, yes), distance(at, no));
                debug_assert!(yes.max(no) <= usize::from(u8::MAX));
                (instruction.jt, instruction.jf) = (yes as u8, no as u8);
            }
            Next::Nowhere | Next::Behind => {}
        }
        instruction
    });
    instructions.collect()
}

/// A filter's rule is a conjunction, so a choice of values becomes one rule a choice. `first`: the
/// values of the first argument, if it is a choice of values.
fn expand(args: &[Arg], first: &[i32]) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let mut chains = vec![Vec::new()];
    for (i, arg) in args.iter().enumerate() {
        let choices = match arg.test {
            Test::Int(_) if i == 0 => one_of(arg.index, first)?,
            _ => conditions(arg)?,
        };
        chains = chains
            .iter()
            .flat_map(|chain| choices.iter().map(move |choice| [&chain[..], choice].concat()))
            .collect();
    }
    Ok(chains)
}

/// Some of the values of a list, which one conjunction allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// One.
    Value(i32),
    /// This one, and the one that differs from it in this bit.
    Pair(i32, i32),
    /// All from the first to the last.
    Run(i32, i32),
}

/// The values in as few choices as are easily found. A filter goes through them one after another at
/// each call, and those of two arguments are multiplied.
fn gather(values: &[i32]) -> Vec<Choice> {
    // In the order in which the kernel compares them, which knows no sign.
    let mut left: Vec<u32> = values.iter().map(|value| *value as u32).collect();
    left.sort_unstable();
    left.dedup();
    let mut choices = Vec::new();
    while let Some((&first, rest)) = left.split_first() {
        let run = left.iter().zip(first..=u32::MAX).take_while(|(value, next)| *value == next);
        let pair = rest.iter().position(|value| (value ^ first).is_power_of_two());
        match (run.count(), pair) {
            (run, Some(at)) if run < 3 => {
                let other = left.remove(at + 1);
                choices.push(Choice::Pair(first as i32, (other ^ first) as i32));
                left.remove(0);
            }
            (run @ 2.., _) => {
                choices.push(Choice::Run(first as i32, left[run - 1] as i32));
                left.drain(..run);
            }
            _ => {
                choices.push(Choice::Value(first as i32));
                left.remove(0);
            }
        }
    }
    choices
}

/// A condition on an `int`. Through u32: a negative one must not be extended to 64 bits.
fn int(index: u8, op: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value as u32))
}

/// That an `int` is one of these, as choices.
fn one_of(index: u8, values: &[i32]) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let choice = |choice| match choice {
        Choice::Value(value) => Ok(vec![int(index, Eq, value)?]),
        Choice::Pair(value, bit) => Ok(vec![int(index, only(!bit), value & !bit)?]),
        Choice::Run(first, last) => between(index, first, last),
    };
    gather(values).into_iter().map(choice).collect()
}

/// That an `int` is one of these and all between them; none is less than 0, as the kernel compares.
fn between(index: u8, first: i32, last: i32) -> Result<Vec<SeccompCondition>, BackendError> {
    let least = (first != 0).then(|| int(index, Ge, first));
    least.into_iter().chain([int(index, Le, last)]).collect()
}

/// A comparison that looks at these bits of an `int` alone.
fn only(bits: i32) -> SeccompCmpOp {
    MaskedEq(u64::from(bits as u32))
}

/// The choices that an argument's test leaves, each a conjunction.
fn conditions(arg: &Arg) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let int = |op, value| int(arg.index, op, value);
    let long = |op, value| SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, op, value);
    match arg.test {
        Test::Int(values) => one_of(arg.index, values),
        Test::IntRange(first, last) => Ok(vec![between(arg.index, first, last)?]),
        Test::IntWithout(mask) => Ok(vec![vec![int(only(mask), 0)?]]),
        Test::Long(values) => values.iter().map(|value| Ok(vec![long(Eq, *value)?])).collect(),
        Test::LongWithout(mask) => Ok(vec![vec![long(MaskedEq(mask), 0)?]]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, policy, proof};
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

    /// What a program says to a call, as the kernel runs it.
    fn answer(program: &BpfProgram, number: i64, args: &[u64; 6]) -> u32 {
        const LD_ABS: u16 = 0x20;
        const AND: u16 = 0x54;
        const RET: u16 = 0x06;
        const ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        // struct seccomp_data, linux/seccomp.h.
        let mut data = vec![number as u32, ARCH, 0, 0];
        data.extend(args.iter().flat_map(|arg| [*arg as u32, (arg >> 32) as u32]));
        let (mut at, mut a) = (0, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            // linux/bpf_common.h: BPF_JMP with BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE.
            let holds = match code {
                RET => return k,
                LD_ABS => {
                    a = data[k as usize / 4];
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                0x05 => {
                    at += k as usize;
                    continue;
                }
                0x15 => a == k,
                0x25 => a > k,
                0x35 => a >= k,
                _ => panic!("{code:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn a_filter_lets_through_what_the_rules_say_and_nothing_else() {
        for role in Role::ALL {
            let rules = policy::rules(role);
            let main = Filter::compile(&rules).unwrap().main;
            let let_through = |number, args: &_| answer(&main, number, args) == 0x7fff_0000;
            let mut tried = 0;
            for number in 0..600 {
                let of = |rule: &&&Rule| matches!(calls::number(rule.call), Some(calls::Number::Is(n)) if n == number);
                let ways: Vec<&[Arg]> = rules.iter().filter(of).map(|rule| rule.args).collect();
                // Around each way, with one or two of its arguments anything else.
                let all: Vec<Arg> = ways.concat();
                let mut calls = vec![[0; 6], [u64::MAX; 6]];
                for way in &ways {
                    let mut good = vec![[0; 6]];
                    for arg in *way {
                        let candidates = proof::candidates(arg.test).into_iter();
                        let values = candidates.filter(|value| arg.test.accepts(*value)).take(8);
                        let values: Vec<u64> = values.collect();
                        good = (good.iter())
                            .flat_map(|call| {
                                values.iter().map(|value| {
                                    let mut call = *call;
                                    call[usize::from(arg.index)] = *value;
                                    call
                                })
                            })
                            .collect();
                    }
                    for arg in &all {
                        for value in proof::candidates(arg.test) {
                            calls.extend(good.iter().map(|call| {
                                let mut call = *call;
                                call[usize::from(arg.index)] = value;
                                call
                            }));
                        }
                    }
                    calls.extend(good);
                }
                calls.sort_unstable();
                calls.dedup();
                for call in &calls {
                    let wanted = calls::name(number).and_then(|n| policy::answer(&rules, n, call));
                    let found = let_through(number, call);
                    assert_eq!(found, wanted.is_some(), "{role}: {number} {call:x?}");
                }
                tried += calls.len();
            }
            assert!(tried > 2000, "{role}: {tried}");
        }
    }

    /// Longer than a conditional jump reaches, so that jumps to jumps are left.
    #[test]
    fn a_shortened_program_answers_as_it_did_and_has_no_jump_too_many() {
        let allow = SeccompAction::Allow;
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let rules = (0..300i64).map(|number| {
            let one = |index: u8, value| int(index, Ge, value).unwrap();
            let chains = match number % 4 {
                0 => vec![],
                1 => vec![vec![one(0, 3)], vec![one(1, 5)]],
                2 => vec![vec![one(0, 3), one(1, 5), one(2, 7)]],
                _ => vec![vec![one(1, 4)]; 3],
            };
            let rules = chains.into_iter().map(|chain| SeccompRule::new(chain).unwrap());
            (number, rules.collect())
        });
        let filter =
            SeccompFilter::new(rules.collect(), SeccompAction::KillProcess, allow, arch).unwrap();
        let long: BpfProgram = filter.try_into().unwrap();
        let short = shorten(long.clone());
        assert!(short.len() > 1000 && short.len() < long.len() * 2 / 3, "{}", short.len());
        for number in 0..301 {
            for values in 0..4u64 {
                let args = [2 + values, 4 + values % 2, 6 + values / 2, 0, 0, 0];
                let answers = [&long, &short].map(|program| answer(program, number, &args));
                assert_eq!(answers[0], answers[1], "{number} {args:?}");
            }
        }
        let jumps = |at: &usize| matches!(next(&short, *at), Next::Jump(_));
        for at in (0..short.len()).filter(jumps) {
            let Next::Jump(target) = next(&short, at) else { unreachable!() };
            assert!(target > at + 1 && !jumps(&target), "{at} {target}");
        }
        // Nothing is left to shorten.
        assert_eq!(shorten(short.clone()), short);
    }

    #[test]
    fn gathered_values_are_those_of_the_list_and_no_others() {
        let exactly = |values: &[i32]| {
            let choices = gather(values);
            let mut allowed = Vec::new();
            for choice in &choices {
                match *choice {
                    Choice::Value(value) => allowed.push(value),
                    Choice::Pair(value, bit) => {
                        assert_eq!(bit.count_ones(), 1, "{values:?}: {choices:?}");
                        allowed.extend([value, value ^ bit]);
                    }
                    Choice::Run(first, last) => {
                        allowed.extend((first as u32..=last as u32).map(|value| value as i32));
                    }
                }
            }
            allowed.sort_unstable();
            let mut wanted = values.to_vec();
            wanted.sort_unstable();
            wanted.dedup();
            assert_eq!(allowed, wanted, "{choices:?}");
            choices.len()
        };
        assert_eq!(exactly(&[]), 0);
        assert_eq!(exactly(&[7]), 1);
        assert_eq!(exactly(&[8, 2]), 2);
        assert_eq!(exactly(&[0, 1]), 1);
        assert_eq!(exactly(&[1, 2]), 1);
        assert_eq!(exactly(&[8, 4, 5, 7, 6]), 1);
        assert_eq!(exactly(&[0, 1, 3, 9, 10]), 3);
        assert_eq!(exactly(&[-1, -2, -3, 1]), 2);
        assert_eq!(exactly(&[-1, i32::MAX, i32::MIN, 0, i32::MIN]), 2);
        for role in Role::ALL {
            for arg in policy::rules(role).iter().flat_map(|rule| rule.args) {
                if let Test::Int(values) = arg.test {
                    assert!(exactly(values) > 0, "{role}: {}", arg.name);
                }
            }
        }
    }

    #[test]
    fn a_choice_in_two_arguments_becomes_every_pair() {
        const PAIR: &[Arg] = &[policy::fd(&[4, 7]), policy::int(1, "op", &[1, 4, 8])];
        let chains = expand(PAIR, &[4, 7]).unwrap();
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
