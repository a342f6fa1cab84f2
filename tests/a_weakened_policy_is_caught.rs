//! Promise: the tests of the policies find a policy that is weaker than it says. Each kind of
//! weakness is made here, put into the kernel, and found by what `every_rule_holds` relies on.

mod confined;

use std::collections::BTreeMap;
use std::process::ExitCode;

use confined::{again, must_end, outcome, part};
use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::confine::Role;
use papayachat::confine::filter::Filter;
use papayachat::confine::policy::{self, Arg, Rule, Test, allow};
use papayachat::confine::proof::{
    Call, Prover, calls_beside, calls_not_named, checks_without_effect,
};

/// A worse test in place of a good one; `None` where this kind of test cannot be made worse so.
type Change = fn(Test) -> Option<Test>;

/// What can go wrong with the check of an argument, besides that it is forgotten.
const CHANGES: &[(&str, Change)] = &[
    ("an int may have one more value", |test| match test {
        Test::Int(values) => Some(Test::Int(leak(&[values, &[values[0] ^ i32::MIN]].concat()))),
        _ => None,
    }),
    ("a range begins one too early", |test| match test {
        Test::IntRange(first, last) if first > 0 => Some(Test::IntRange(first - 1, last)),
        _ => None,
    }),
    ("a range ends one too late", |test| match test {
        Test::IntRange(first, last) => Some(Test::IntRange(first, last.checked_add(1)?)),
        _ => None,
    }),
    ("one of the forbidden bits is forgotten", |test| match test {
        Test::IntWithout(bits) => Some(Test::IntWithout(bits & (bits - 1))),
        Test::LongWithout(bits) => Some(Test::LongWithout(bits & (bits - 1))),
        _ => None,
    }),
    ("a long is compared on 32 bits", |test| match test {
        Test::Long(values) => {
            Some(Test::Int(leak(&values.iter().map(|value| *value as i32).collect::<Vec<_>>())))
        }
        _ => None,
    }),
    (TOO_NARROW, |test| match test {
        Test::Int(values) => {
            let long = values.iter().map(|value| u64::from(*value as u32));
            Some(Test::Long(leak(&long.collect::<Vec<_>>())))
        }
        _ => None,
    }),
];
/// Not weaker but stricter: what the kernel takes is refused.
const TOO_NARROW: &str = "an int is compared on 64 bits";
const FORGOTTEN: &str = "a check is forgotten";
const ONE_CALL_MORE: &str = "one call more";
const NONE: &str = "no weakness";

/// Policies are static data.
fn leak<T: Clone>(values: &[T]) -> &'static [T] {
    Box::leak(values.to_vec().into_boxed_slice())
}

fn main() -> ExitCode {
    if let Some((weakness, role)) = part() {
        return outcome(find_in_the_kernel(&weakness, &role));
    }
    let mut trials =
        vec![Trial::test("each weakness of each check has a call that shows it", each_has_a_call)];
    let kinds = CHANGES.iter().map(|(kind, _)| *kind);
    for weakness in kinds.chain([FORGOTTEN, ONE_CALL_MORE, NONE]) {
        let name = format!("in the kernel: {weakness}");
        trials.push(Trial::test(name, move || found(weakness)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The weaker forms of one of a rule's checks.
fn weaker(rule: &Rule, place: usize) -> Vec<(&'static str, Rule)> {
    let with = |test: Option<Test>| {
        let mut args = rule.args.to_vec();
        match test {
            Some(test) => args[place].test = test,
            None => drop(args.remove(place)),
        }
        Rule { args: leak::<Arg>(&args), ..*rule }
    };
    let changed = CHANGES.iter().filter_map(|(kind, change)| {
        change(rule.args[place].test).map(|test| (*kind, with(Some(test))))
    });
    changed.chain([(FORGOTTEN, with(None))]).collect()
}

/// A role's rules, with `worse` in the place of one of them.
fn instead<'r>(rules: &[&'r Rule], one: &Rule, worse: &'r Rule) -> Vec<&'r Rule> {
    rules.iter().map(|rule| if *rule == one { worse } else { rule }).collect()
}

/// Weaknesses that are none: file, call, condition, kind.
const NO_WEAKNESS: &[(&str, &str, &str, &str)] = &[
    // The number before the range is the doorbell's, which another rule lets it write to.
    ("keeper", "write", "fd=5..=2147483647", "a range begins one too early"),
    // The same of a later stage, which closes any of its descriptors.
    ("recv", "close", "fd=4..=10", "a range begins one too early"),
];

/// By the data alone, so that every check of every rule can be weakened in every way. A filter that
/// others inherit lets much through whatever a single rule says; in some role it must be seen.
fn each_has_a_call() -> Result<(), Failed> {
    let mut seen: BTreeMap<(&str, &str, String, &str), bool> = BTreeMap::new();
    for role in Role::ALL {
        let rules = policy::rules(role);
        for (file, rule) in policy::filter_rules(role) {
            let about = calls_beside(&[rule]);
            let others: Vec<&Rule> = rules.iter().copied().filter(|r| *r != rule).collect();
            let needed = about.iter().any(|call| call.answer(&rules) != call.answer(&others));
            for (place, arg) in rule.args.iter().enumerate() {
                for (kind, worse) in weaker(rule, place) {
                    if kind == TOO_NARROW && !needed {
                        continue; // A later stage has a rule that says the same.
                    }
                    let worse_rules = instead(&rules, rule, &worse);
                    let differs = |call: &Call| call.answer(&rules) != call.answer(&worse_rules);
                    *seen.entry((file, rule.call, arg.to_string(), kind)).or_default() |=
                        about.iter().any(differs);
                }
            }
        }
    }
    for (file, call, condition, kind) in NO_WEAKNESS {
        if seen.remove(&(*file, *call, (*condition).to_owned(), *kind)) != Some(false) {
            return Err(format!("{file}: {call}: {condition}: {kind}: is a weakness").into());
        }
    }
    let missed: Vec<_> = seen.iter().filter(|(_, seen)| !**seen).collect();
    match (missed.is_empty(), seen.len()) {
        (true, 200..) => Ok(()),
        (true, few) => Err(format!("only {few} weaknesses were made").into()),
        (false, _) => Err(format!("{missed:#?}").into()),
    }
}

/// In the kernel one of each kind is enough; in the first role that has something of the kind.
fn found(weakness: &'static str) -> Result<(), Failed> {
    let role = match weakness {
        "one of the forbidden bits is forgotten" | "a long is compared on 32 bits" => Role::Recv,
        "a range begins one too early" => Role::Listener,
        _ => Role::RecvJoined,
    };
    must_end(&again(weakness, &role.to_string()).output()?, "exit 0")
}

/// The part: what `Prover` says of a filter with this weakness.
fn find_in_the_kernel(weakness: &str, role: &str) -> Result<(), String> {
    let role: Role = role.parse().map_err(|_| "no such role")?;
    let rules = policy::rules(role);
    let prover = Prover::start()?;
    let (weakened, calls) = match weakness {
        NONE => (rules.clone(), calls_beside(&rules)),
        ONE_CALL_MORE => {
            const MORE: Rule = allow("ftruncate", &[], "a rule that was forgotten in a policy");
            let calls = calls_not_named(&rules, &prover).map_err(|e| e.to_string())?;
            ([&rules[..], &[&MORE]].concat(), calls)
        }
        _ => {
            let (rule, worse) = a_weaker_rule(&rules, weakness)?;
            (instead(&rules, rule, Box::leak(Box::new(worse))), calls_beside(&[rule]))
        }
    };
    let filter = Filter::compile(&weakened).map_err(|e| e.to_string())?;
    let proof = prover.prove(&filter, &rules, &calls).map_err(|e| e.to_string())?;
    match (weakness == NONE, proof.wrong.is_empty()) {
        (true, true) | (false, false) => Ok(()),
        (true, false) => Err(proof.wrong.join("\n")),
        (false, true) => Err("nobody noticed".to_owned()),
    }
}

/// The first rule that can be weakened so, with some effect, and its weaker form.
fn a_weaker_rule<'r>(rules: &[&'r Rule], weakness: &str) -> Result<(&'r Rule, Rule), String> {
    let void = checks_without_effect(rules);
    for rule in rules {
        let places =
            (0..rule.args.len()).filter(|at| !void.contains(&(**rule, rule.args[*at].name)));
        let mut made = places.flat_map(|place| weaker(rule, place));
        if let Some((_, worse)) = made.find(|(kind, _)| *kind == weakness) {
            return Ok((rule, worse));
        }
    }
    Err(format!("this role has nothing to weaken so: {weakness}"))
}
