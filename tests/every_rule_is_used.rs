//! Promise: each rule of each policy is used by the test suite, or its file says why it is there all
//! the same; as found in traces of the whole suite, which `.ci/run` makes (`.ci/watch-calls`).
//!
//! What is tested here is the reading of traces. With the names of files in `PAPAYA_TRACES` this
//! program reads them instead, prints what was not used, and fails if a rule does not say why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::confine::Role;
use papayachat::confine::policy::{self, Answer, Rule, Test, calls};

fn main() -> ExitCode {
    if let Ok(files) = std::env::var("PAPAYA_TRACES") {
        return match report(files.split_whitespace()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    let trials = vec![
        Trial::test("a process is told by what it descends from", tells_the_processes),
        Trial::test("what is lost is an error", loses_nothing),
        Trial::test("every reason for a rare rule says something", rare_rules_say_why),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A rule's place: the file that it stands in and the number of rules before it there.
type Place = (&'static str, usize);

/// What a process of the service is under. Its name tells nothing: all are called papayad.
#[derive(Clone, Copy, Default)]
struct Process {
    /// The policy of the last filter; none yet; or not one of a service's processes.
    stage: Option<Role>,
    /// Whether it loaded that filter itself, and did not inherit it.
    by_itself: bool,
    /// Whether it has executed a program since it was forked.
    executed: bool,
    /// Whether it has forked since it was executed.
    forked: bool,
    /// Some other papayad that confined itself, such as an attacker of `sandbox test`.
    stranger: bool,
}

impl Process {
    fn child(&mut self) -> Self {
        self.forked = true;
        Self { by_itself: false, executed: false, forked: false, ..*self }
    }

    fn executes(&mut self) {
        self.executed = true;
        self.forked = false;
    }

    /// The order in which a service's processes come to be tells which filter this is.
    fn loads_a_filter(&mut self) {
        let stage = match (self.stage, self.by_itself, self.executed) {
            (None, _, true) if self.forked => Some(Role::Launcher),
            (None, _, false) => Some(Role::Keeper),
            (None, _, true) => None,
            // It loads two.
            (Some(Role::Launcher), true, _) => Some(Role::Launcher),
            (Some(Role::Launcher), false, false) => Some(Role::Listener),
            (Some(Role::Launcher), false, true) => Some(Role::Recv),
            (Some(Role::Recv), true, _) => Some(Role::RecvJoined),
            (Some(Role::Recv), false, _) => Some(Role::Send),
            _ => None,
        };
        self.stranger |= stage.is_none();
        (self.stage, self.by_itself) = (stage, true);
    }
}

/// What traces tell.
struct Use {
    /// By stage, the rules that a process in it goes by, with their places: those that all have,
    /// its own, and for the launcher's children those of a program's start.
    rules: HashMap<Role, Vec<(Place, &'static Rule)>>,
    processes: HashMap<u32, Process>,
    used: BTreeMap<Place, u64>,
    /// The values that an argument was seen with, of those that a rule lists.
    values: BTreeSet<(Place, u8, u64)>,
}

impl Use {
    fn new() -> Self {
        let rules = Role::ALL.map(|role| (role, rules_of(role)));
        Self {
            rules: HashMap::from(rules),
            processes: HashMap::new(),
            used: BTreeMap::new(),
            values: BTreeSet::new(),
        }
    }

    /// Reads a trace in the kernel's words (ftrace).
    fn read(&mut self, trace: impl BufRead) -> Result<(), String> {
        self.processes.clear();
        for line in trace.lines() {
            let line = line.map_err(|e| e.to_string())?;
            if line.ends_with(": the end") {
                return Ok(());
            }
            if line.contains("LOST") {
                return Err(format!("the trace is not whole: {line}"));
            }
            // One that cannot be read would be a use that is not seen.
            self.event(&line).ok_or_else(|| format!("a line of a form not known: {line}"))?;
        }
        Err("the trace has no end".to_owned())
    }

    fn event(&mut self, line: &str) -> Option<()> {
        let (task, rest) = line.split_once(" [")?;
        let pid: u32 = task.trim_end().rsplit('-').next()?.parse().ok()?;
        let (_, event) = rest.split_once(": ")?;
        let (name, text) = event.split_once(": ")?;
        let number = |key: &str| -> Option<u32> {
            text.split_whitespace().find_map(|word| word.strip_prefix(key))?.parse().ok()
        };
        match name {
            "sched_process_fork" => {
                let child = self.processes.entry(number("pid=")?).or_default().child();
                self.processes.insert(number("child_pid=")?, child);
            }
            "sched_process_exec" => self.processes.entry(pid).or_default().executes(),
            "sched_process_exit" => drop(self.processes.remove(&pid)),
            "sys_enter" => {
                let (call, registers) = text.strip_prefix("NR ")?.split_once(" (")?;
                let mut values = [0; 6];
                let given = registers.trim_end().strip_suffix(')')?.split(", ");
                for (value, given) in values.iter_mut().zip(given) {
                    *value = u64::from_str_radix(given, 16).ok()?;
                }
                self.call(pid, call.parse().ok()?, Ok(&values));
            }
            // A filter's own answer shows only as what came back.
            "sys_exit" => {
                let (call, result) = text.strip_prefix("NR ")?.split_once(" = ")?;
                let answer = match result.trim_end() {
                    "-38" => Answer::NotThere,
                    "0" => Answer::Nothing,
                    _ => return None,
                };
                self.call(pid, call.parse().ok()?, Err(answer));
            }
            _ => return None,
        }
        Some(())
    }

    /// A call that was let through, with its registers, or one that a filter answered so.
    fn call(&mut self, pid: u32, number: i64, seen: Result<&[u64; 6], Answer>) {
        let process = self.processes.entry(pid).or_default();
        let Some(name) = calls::name(number) else { return };
        if let (Some(stage), false) = (process.stage, process.stranger) {
            for (place, rule) in self.rules.get(&stage).into_iter().flatten() {
                let matches = match seen {
                    Ok(registers) => rule.answer == Answer::Allow && rule.matches(name, registers),
                    Err(answer) => rule.answer == answer && rule.call == name,
                };
                if matches {
                    *self.used.entry(*place).or_default() += 1;
                    for (arg, seen) in rule.args.iter().zip(std::iter::repeat(seen)) {
                        let value = seen.map_or(0, |r| r[usize::from(arg.index)]);
                        self.values.insert((*place, arg.index, as_listed(arg.test, value)));
                    }
                }
            }
        }
        let set_filter = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        if name == "seccomp" && seen.is_ok_and(|r| r[0] == set_filter) {
            process.loads_a_filter();
        }
    }
}

/// A value as a list of values has it: an `int` without what the kernel does not see of it.
fn as_listed(test: Test, value: u64) -> u64 {
    if matches!(test, Test::Long(_)) { value } else { u64::from(value as u32) }
}

/// The rules of every file.
fn every_rule() -> Vec<(Place, &'static Rule)> {
    let mut all = BTreeMap::new();
    for role in Role::ALL {
        let mut before: HashMap<&str, usize> = HashMap::new();
        for (file, rule) in policy::filter_rules(role) {
            let number = before.entry(file).or_default();
            all.insert((file, *number), rule);
            *number += 1;
        }
    }
    all.into_iter().collect()
}

fn rules_of(stage: Role) -> Vec<(Place, &'static Rule)> {
    let own = stage.to_string().replace('-', "_");
    let is_for = |file: &str| {
        file == "common" || file == own || file == "startup" && stage == Role::Launcher
    };
    every_rule().into_iter().filter(|((file, _), _)| is_for(file)).collect()
}

fn in_words(file: &str, rule: &Rule) -> String {
    let args: Vec<String> = rule.args.iter().map(ToString::to_string).collect();
    format!("{file}: {}({}): {}", rule.call, args.join(", "), rule.why)
}

/// Prints which rules no trace has a use of; an error, if one of them does not say why it is there.
fn report<'f>(files: impl Iterator<Item = &'f str>) -> Result<(), String> {
    let mut found = Use::new();
    for file in files {
        let trace = File::open(file).map_err(|e| format!("{file}: {e}"))?;
        found.read(BufReader::new(trace)).map_err(|e| format!("{file}: {e}"))?;
    }
    if found.used.len() < 50 {
        return Err("these are no traces of a service".to_owned());
    }
    let (mut unused, mut unexplained) = (0, 0);
    for (place, rule) in every_rule() {
        let here = calls::number(rule.call) != Some(calls::Number::NotHere);
        let times = found.used.get(&place).copied().unwrap_or(0);
        let line = in_words(place.0, rule);
        match (times, rule.rare) {
            _ if !here => println!("not on this processor: {line}"),
            (0, Some(why)) => println!("not used: {line}\n    there because {why}"),
            (0, None) => {
                unexplained += 1;
                println!("NOT USED, WITHOUT A REASON: {line}");
            }
            (1.., Some(why)) => println!("used {times} times: {line}\n    though {why}"),
            (1.., None) => print_values(&found, place, rule),
        }
        unused += usize::from(times == 0);
    }
    println!("{} rules, {unused} not used, {unexplained} without a reason", every_rule().len());
    match unexplained {
        0 => Ok(()),
        count => Err(format!("{count} rules are not used: remove them, or say `.rare(why)`")),
    }
}

/// Values that a rule lists and nobody used.
fn print_values(found: &Use, place: Place, rule: &Rule) {
    for arg in rule.args {
        let listed: Vec<u64> = match arg.test {
            Test::Int(values) => values.iter().map(|value| u64::from(*value as u32)).collect(),
            Test::Long(values) => values.to_vec(),
            _ => continue,
        };
        let seen = |value: &u64| found.values.contains(&(place, arg.index, *value));
        let not: Vec<String> =
            listed.iter().filter(|value| !seen(value)).map(|value| format!("{value:#x}")).collect();
        if !not.is_empty() {
            println!("never with {}={}: {}", arg.name, not.join("|"), in_words(place.0, rule));
        }
    }
}

/// A trace of a made-up service: what its processes do, one word a line.
fn trace(events: &[(u32, &str)]) -> String {
    let number = |name: &str| match calls::number(name) {
        Some(calls::Number::Is(number)) => number,
        _ => -1,
    };
    let filter = format!("sys_enter: NR {} (1, 0, 7ffe2a5c1d08, 0, 0, 0)", number("seccomp"));
    let line = |(pid, what): &(u32, &str)| {
        let (what, more) = what.split_once(' ').unwrap_or((what, ""));
        let event = match what {
            "fork" => format!(
                "sched_process_fork: comm=papayad pid={pid} child_comm=papayad child_pid={more}"
            ),
            "exec" => {
                format!("sched_process_exec: filename=/dev/fd/4 pid={pid} old_pid={pid}")
            }
            "exit" => format!("sched_process_exit: comm=papayad pid={pid} prio=120"),
            "filter" => filter.clone(),
            "not-there" => format!("sys_exit: NR {} = -38", number(more)),
            call => format!("sys_enter: NR {} ({more})", number(call)),
        };
        format!("         papayad-{pid:<7} [001] ..... 13158.800726: {event}\n")
    };
    events.iter().map(line).collect::<String>() + "tracing_mark_write: the end\n"
}

fn used_by(events: &[(u32, &str)]) -> Result<BTreeSet<String>, String> {
    let mut found = Use::new();
    found.read(trace(events).as_bytes())?;
    let rules = every_rule().into_iter().filter(|(place, _)| found.used.contains_key(place));
    Ok(rules.map(|((file, _), rule)| format!("{file}: {}", rule.call)).collect())
}

fn tells_the_processes() -> Result<(), Failed> {
    let start = [(10, "exec"), (10, "fork 11"), (11, "filter"), (10, "filter"), (10, "filter")];
    let doing = |what: &[(u32, &'static str)]| -> Result<Vec<String>, Failed> {
        let events: Vec<(u32, &str)> = start.iter().chain(what).copied().collect();
        let used = used_by(&events)?;
        Ok(used.into_iter().filter(|rule| !rule.ends_with(": seccomp")).collect())
    };
    let recv = [(10, "fork 20"), (20, "exec"), (20, "filter")];
    let send = [(20, "fork 21"), (21, "filter")];
    let stranger = [(30, "exec"), (30, "filter"), (30, "lseek 5, 0, 0")];
    for (what, used) in [
        (vec![(11, "pread64 5, 0, 0, 0")], vec!["keeper: pread64"]),
        (vec![(11, "pread64 4, 0, 0, 0")], vec![]),
        (vec![(10, "lseek 4, 0, 0")], vec!["launcher: lseek"]),
        (vec![(10, "not-there clone3")], vec!["startup: clone3"]),
        (
            vec![(10, "fork 12"), (12, "filter"), (12, "accept4 3, 0, 0, 80800")],
            vec!["listener: accept4"],
        ),
        (vec![(10, "fork 20"), (20, "exec"), (20, "uname 0, 0")], vec!["startup: uname"]),
        ([&recv[..], &[(20, "getppid 0")]].concat(), vec!["recv: getppid"]),
        // An int has no upper half.
        (
            [&recv[..], &[(20, "recvmsg ffffffff00000001, 0, 40000040")]].concat(),
            vec!["recv: recvmsg"],
        ),
        (
            [&recv[..], &[(20, "filter"), (20, "fdatasync 4")]].concat(),
            vec!["recv_joined: fdatasync"],
        ),
        ([&recv[..], &[(20, "fork 21"), (21, "getppid 0")]].concat(), vec!["recv: getppid"]),
        (
            [&recv[..], &send[..], &[(21, "recvfrom a, 0, 0, 40, 0, 0")]].concat(),
            vec!["send: recvfrom"],
        ),
        ([&recv[..], &send[..], &[(21, "recvfrom 0, 0, 0, 40, 0, 0")]].concat(), vec![]),
        // The next process of this number is another one.
        ([&recv[..], &[(20, "exit"), (20, "getppid 0")]].concat(), vec![]),
        (stranger.to_vec(), vec![]),
    ] {
        let found = doing(&what)?;
        if found != used {
            return Err(format!("{what:?}: {found:?}, not {used:?}").into());
        }
    }
    Ok(())
}

fn loses_nothing() -> Result<(), Failed> {
    for damaged in
        ["", "CPU:1 [LOST 12 EVENTS]\n", "papayad-1 [000] ..... 1.0: sys_enter: NR 1 (1,\n"]
    {
        let whole = trace(&[(1, "exec")]);
        let start = &whole[..whole.rfind("tracing").unwrap_or(0)];
        if Use::new().read(format!("{start}{damaged}").as_bytes()).is_ok() {
            return Err(format!("{damaged:?} was taken for a trace").into());
        }
    }
    Ok(())
}

fn rare_rules_say_why() -> Result<(), Failed> {
    let rare = every_rule().into_iter().filter_map(|(place, rule)| Some((place, rule, rule.rare?)));
    for (place, rule, why) in rare {
        if why.len() < 20 {
            return Err(format!("{}: {why:?}", in_words(place.0, rule)).into());
        }
    }
    Ok(())
}
