//! Doctor's checks of a process, against a process that is as it must be and one difference at a
//! time. What can be planted in a running service is: see `tests/doctor_finds_what_differs.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};

use libc::{O_APPEND, O_RDONLY, O_RDWR, O_WRONLY};
use nix::unistd::{Gid, Uid};

use super::descriptors::{Around, Socket};
use super::proc::{self, Open, Process};
use super::service::{Service, Subject};
use super::{Outcome, compare, files, level};
use crate::config::Sandbox;
use crate::confine::policy::{self, Kind};
use crate::confine::{Level, Role};
use crate::daemon::launcher::seal::SealError;

const LAUNCHER: i32 = 100;
const PID: i32 = 107;
/// The room's files: device and inode.
const DIRECTORY: (u64, u64) = (1, 1);
const LOG: (u64, u64) = (1, 2);
const GATE: (u64, u64) = (1, 3);
const PROGRAM: (u64, u64) = (1, 4);
/// Sockets, by inode.
const CLIENT: u64 = 11;
const LISTENING: u64 = 12;
const CHANNEL: u64 = 13;
const OTHER: u64 = 14;

/// What `/proc/PID/status` of a worker says, as far as it is looked at.
const STATUS: &str = "Name:\tpapayad\nUid:\t65534\t65534\t65534\t65534\n\
    Gid:\t65533\t65533\t65533\t65533\nGroups:\t \nCapInh:\t0000000000000000\n\
    CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
    CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t0\n";

/// A service, one of its processes, and what is around them.
struct World {
    service: Service,
    subject: Subject,
    process: Process,
    around: Around,
    launchers: Option<Option<usize>>,
}

impl World {
    /// As it must be.
    fn sound(role: Role) -> Self {
        let pid = if role == Role::Launcher { LAUNCHER } else { PID };
        let title = format!("papayad: {role} alice 192.0.2.1:5");
        let subject = |pid, role| Subject {
            pid,
            role,
            parent: (role != Role::Launcher).then_some(LAUNCHER),
            title: title.clone(),
            descriptors: (role == Role::Keeper).then_some(500),
        };
        let user = (Uid::from_raw(65534), Some(Gid::from_raw(65533)));
        let service = Service {
            subjects: vec![subject(LAUNCHER, Role::Launcher), subject(pid, role)],
            rootless: false,
            workers: user,
            keeper: (Uid::from_raw(1), Some(Gid::from_raw(1))),
            level: Some(Level::Full),
            confined: "confined".into(),
            unsealed_since: None,
            addresses: 1,
            state: "/nowhere".into(),
            status: serde_json::Value::Null,
        };
        let sockets = [
            (CLIENT, Socket::Connected),
            (LISTENING, Socket::Listening),
            (CHANNEL, Socket::Channel),
            (OTHER, Socket::OtherUnix),
        ];
        let around = Around {
            sockets: HashMap::from(sockets),
            directory: Some(DIRECTORY),
            log: Some(LOG),
            gate: Some(GATE),
            program: Some(PROGRAM),
            addresses: 1,
            closed: false,
        };
        let mut process = Process {
            status: proc::status(STATUS),
            limits: limits(role),
            family: (LAUNCHER, LAUNCHER, LAUNCHER),
            title: title.clone(),
            owner: 0,
            descriptors: Ok(descriptors(role)),
        };
        if role == Role::Keeper {
            set(&mut process, "Uid", "1\t1\t1\t1");
            set(&mut process, "Gid", "1\t1\t1\t1");
        }
        let filters: usize = policy::lineage(role).iter().map(|role| policy::filters(*role)).sum();
        set(&mut process, "Seccomp_filters", &filters.to_string());
        let launchers = Some(Some(policy::filters(Role::Launcher)));
        Self { subject: subject(pid, role), service, process, around, launchers }
    }

    fn examine(&self) -> [(&'static str, Outcome); 7] {
        compare(&self.service, &self.subject, &self.process, &self.around, self.launchers)
    }

    /// The checks that differ, with what they say.
    fn differing(&self) -> Vec<(&'static str, String)> {
        let differs = |(check, outcome)| match outcome {
            Outcome::Differs { what, .. } => Some((check, what)),
            _ => None,
        };
        self.examine().into_iter().filter_map(differs).collect()
    }

    fn open(&mut self) -> &mut Vec<Open> {
        self.process.descriptors.as_mut().unwrap()
    }
}

fn set(process: &mut Process, key: &str, value: &str) {
    process.status.insert(key.to_owned(), value.to_owned());
}

/// Exactly the policy's.
fn limits(role: Role) -> Vec<(String, Option<u64>, Option<u64>)> {
    let limits = policy::limits(role);
    let wanted = [
        ("Max core file size", Some(0)),
        ("Max open files", limits.descriptors.or((role == Role::Keeper).then_some(500))),
        ("Max file size", limits.file_bytes),
        ("Max data size", limits.data_bytes),
        ("Max processes", (!limits.processes).then_some(0)),
    ];
    wanted.map(|(name, value)| (name.to_owned(), value, value)).into()
}

fn socket(inode: u64) -> String {
    format!("socket:[{inode}]")
}

fn open(number: i32, link: &str, flags: i32, file: Option<(u64, u64)>) -> Open {
    Open { number, link: link.to_owned(), flags, file }
}

/// Exactly the policy's; of the listening sockets one.
fn descriptors(role: Role) -> Vec<Open> {
    let of = |entry: &policy::Descriptor| {
        let n = entry.first;
        match entry.kind {
            Kind::Null => open(n, "/dev/null", O_RDWR, None),
            Kind::Client => open(n, &socket(CLIENT), O_RDWR, None),
            Kind::Listening => open(n, &socket(LISTENING), O_RDWR, None),
            Kind::Channel => open(n, &socket(CHANNEL), O_RDWR, None),
            Kind::PipeEnd => open(n, "pipe:[1]", O_WRONLY, None),
            Kind::StateDirectory => open(n, "/state", O_RDONLY, Some(DIRECTORY)),
            Kind::LogAppend => open(n, "/state/room.log", O_WRONLY | O_APPEND, Some(LOG)),
            Kind::LogRead => open(n, "/state/room.log", O_RDONLY, Some(LOG)),
            Kind::Gate => open(n, "/state/room.gate", O_RDONLY, Some(GATE)),
        }
    };
    if role == Role::Launcher {
        return vec![
            open(0, "/dev/null", O_RDONLY, None),
            open(1, "/var/log/anything", O_WRONLY, Some((9, 9))),
            open(3, &socket(LISTENING), O_RDWR, None),
            open(4, &socket(OTHER), O_RDWR, None),
            open(5, &socket(CHANNEL), O_RDWR, None),
            open(6, "pipe:[1]", O_RDONLY, None),
            open(7, "/dev/kmsg", O_RDONLY, None),
            open(8, "/proc/locks", O_RDONLY, None),
            open(9, "/usr/libexec/papayachat/papayad-session", O_RDONLY, Some(PROGRAM)),
        ];
    }
    policy::descriptors(role).iter().map(of).collect()
}

/// A difference: of which roles, what it is, the check that must find it, a word that must be said.
type Planted = (&'static [Role], fn(&mut World), &'static str, &'static str);

const WORKERS: &[Role] = &[Role::Keeper, Role::Listener, Role::Recv, Role::RecvJoined, Role::Send];
const PLANTED: &[Planted] = &[
    (&Role::ALL, |w| set(&mut w.process, "Uid", "0\t0\t0\t0"), "identity", "its user is 0"),
    // Only one of the four: saved, so that it could be taken back.
    (
        &Role::ALL,
        |w| {
            let ids = w.process.status("Uid").replacen('\t', " ", 1);
            let first = ids.split_ascii_whitespace().next().unwrap().to_owned();
            set(&mut w.process, "Uid", &format!("{first}\t{first}\t0\t{first}"));
        },
        "identity",
        "its user is",
    ),
    (&Role::ALL, |w| set(&mut w.process, "Gid", "0\t0\t0\t0"), "identity", "its group is 0"),
    (&Role::ALL, |w| set(&mut w.process, "Groups", "27"), "identity", "it has the groups 27"),
    (&Role::ALL, |w| set(&mut w.process, "Uid", ""), "identity", "its user is"),
    (&Role::ALL, |w| set(&mut w.process, "CapInh", "400"), "capabilities", "CapInh is 400"),
    (&Role::ALL, |w| set(&mut w.process, "CapPrm", "400"), "capabilities", "CapPrm is 400"),
    (&Role::ALL, |w| set(&mut w.process, "CapEff", "400"), "capabilities", "CapEff is 400"),
    (&Role::ALL, |w| set(&mut w.process, "CapBnd", "400"), "capabilities", "CapBnd is 400"),
    (&Role::ALL, |w| set(&mut w.process, "CapAmb", "400"), "capabilities", "CapAmb is 400"),
    (&Role::ALL, |w| drop(w.process.status.remove("CapEff")), "capabilities", "CapEff is"),
    (&Role::ALL, |w| set(&mut w.process, "NoNewPrivs", "0"), "filter", "no_new_privs is not set"),
    (&Role::ALL, |w| set(&mut w.process, "Seccomp", "0"), "filter", "mode \"0\""),
    (&Role::ALL, |w| set(&mut w.process, "Seccomp", "1"), "filter", "mode \"1\""),
    (&Role::ALL, |w| fewer(w, 1), "filter", "filters, not"),
    (WORKERS, |w| set(&mut w.process, "Seccomp_filters", "99"), "filter", "99 filters, not"),
    (&Role::ALL, |w| drop(w.process.status.remove("Seccomp_filters")), "filter", "does not tell"),
    (&Role::ALL, |w| w.launchers = Some(Some(0)), "filter", "the launcher has 0 filters"),
    (&Role::ALL, |w| w.process.owner = 65534, "tracing", "can trace and dump it"),
    (&Role::ALL, |w| raise(w, "Max core file size", true), "limits", "Max core file size is"),
    (&Role::ALL, |w| raise(w, "Max core file size", false), "limits", "Max core file size is"),
    (WORKERS, |w| raise(w, "Max open files", true), "limits", "Max open files is"),
    (WORKERS, |w| raise(w, "Max open files", false), "limits", "Max open files is"),
    (WORKERS, |w| raise(w, "Max data size", true), "limits", "Max data size is"),
    (WORKERS, |w| raise(w, "Max data size", false), "limits", "Max data size is"),
    (
        &[Role::Listener, Role::Send],
        |w| raise(w, "Max file size", false),
        "limits",
        "Max file size",
    ),
    (FORKLESS, |w| raise(w, "Max processes", false), "limits", "Max processes is"),
    (&Role::ALL, |w| w.process.limits.clear(), "limits", "is not told"),
    (WORKERS, |w| drop(w.open().remove(0)), "descriptors", "is missing"),
    (WORKERS, |w| drop(w.open().pop()), "descriptors", "is missing"),
    (
        &[Role::Listener, Role::Recv, Role::RecvJoined, Role::Send],
        |w| w.open().push(open(70, &socket(CHANNEL), O_RDWR, None)),
        "descriptors",
        "70 is socket:[13], open 2: it is not in the policy's table",
    ),
    (
        &[Role::Keeper],
        |w| w.open().push(open(70, "/state/host.key", O_RDONLY, Some((1, 7)))),
        "descriptors",
        "it is none of what this role may have there",
    ),
    (WORKERS, |w| w.open()[0].link = "/etc/shadow".into(), "descriptors", "is /etc/shadow"),
    (WORKERS, |w| w.open()[1].link = socket(OTHER), "descriptors", "is socket:[14]"),
    // The right file at the wrong number.
    (&[Role::RecvJoined], |w| swap(w, 0, 1), "descriptors", "0 is socket:[13]"),
    // The log, but not only to be appended to; or to be written by whom it is only to be read.
    (&[Role::RecvJoined], |w| reopen(w, O_WRONLY | O_APPEND, O_WRONLY), "descriptors", "room.log"),
    (
        &[Role::RecvJoined],
        |w| reopen(w, O_WRONLY | O_APPEND, O_RDWR | O_APPEND),
        "descriptors",
        "ro",
    ),
    (&[Role::Send, Role::RecvJoined], |w| reopen(w, O_RDONLY, O_RDWR), "descriptors", "room.log"),
    (&[Role::Launcher], |w| add(w, &socket(CLIENT), None), "descriptors", "is socket:[11]"),
    // While the door is closed there is one shut socket an address, and no more.
    (
        &[Role::Launcher],
        |w| {
            w.around.closed = true;
            add(w, "socket:[98]", None);
            w.open().push(open(71, "socket:[99]", O_RDWR, None));
        },
        "descriptors",
        "71 is socket:[99]",
    ),
    (&[Role::Launcher], |w| add(w, "/state/room.log", Some(LOG)), "descriptors", "room.log"),
    (&[Role::Launcher], |w| add(w, "/state/room.gate", Some(GATE)), "descriptors", "room.gate"),
    (&[Role::Launcher], |w| add(w, "/state", Some(DIRECTORY)), "descriptors", "is /state"),
    (&[Role::Launcher], |w| add(w, "/etc/shadow", Some((1, 9))), "descriptors", "/etc/shadow"),
    (&Role::ALL, |w| w.process.family.1 = 5, "group", "its process group is 5"),
    (&Role::ALL, |w| w.process.family.2 = 5, "group", "its session is 5"),
    (WORKERS, |w| w.process.family.0 = 1, "group", "its parent is 1, not 100"),
    (&Role::ALL, |w| w.process.title = "sh".into(), "group", "its title is \"sh\""),
];

/// Roles that may not start a process.
const FORKLESS: &[Role] = &[Role::Keeper, Role::Listener, Role::RecvJoined, Role::Send];

fn fewer(world: &mut World, by: usize) {
    let filters = world.process.filters().unwrap() - by;
    set(&mut world.process, "Seccomp_filters", &filters.to_string());
}

fn raise(world: &mut World, name: &str, only_hard: bool) {
    let limit = world.process.limits.iter_mut().find(|(known, ..)| known == name).unwrap();
    limit.2 = None;
    if !only_hard {
        limit.1 = limit.1.map(|soft| soft + 1);
    }
}

fn swap(world: &mut World, one: usize, other: usize) {
    let open = world.open();
    (open[one].number, open[other].number) = (open[other].number, open[one].number);
}

fn reopen(world: &mut World, from: i32, to: i32) {
    let is_log = |open: &&mut Open| open.file == Some(LOG) && open.flags == from;
    world.open().iter_mut().find(is_log).unwrap().flags = to;
}

fn add(world: &mut World, link: &str, file: Option<(u64, u64)>) {
    world.open().push(open(42, link, O_RDONLY, file));
}

#[test]
fn a_process_that_is_as_it_must_be_has_no_difference() {
    for role in Role::ALL {
        for (check, outcome) in World::sound(role).examine() {
            assert!(matches!(outcome, Outcome::Good(_)), "{role}: {check}: {outcome:?}");
        }
    }
}

#[test]
fn each_difference_is_found_by_its_check_and_by_no_other() {
    for (roles, plant, check, says) in PLANTED {
        for role in *roles {
            let mut world = World::sound(*role);
            plant(&mut world);
            let found = world.differing();
            let is_named = matches!(&found[..], [(c, what)] if c == check && what.contains(says));
            assert!(is_named, "{role}: {check} does not say {says:?}: {found:?}");
        }
    }
}

/// A check that is added, or a role, needs its difference in the table.
#[test]
fn every_check_has_a_difference_in_every_role() {
    for role in Role::ALL {
        let sound = World::sound(role).examine();
        let checks: BTreeSet<_> = sound.iter().map(|(check, _)| *check).collect();
        let planted = PLANTED.iter().filter(|(roles, ..)| roles.contains(&role));
        let planted: BTreeSet<_> = planted.map(|(_, _, check, _)| *check).collect();
        assert_eq!(checks, planted, "{role}");
    }
}

#[test]
fn a_level_that_is_too_low_overstated_or_not_told_is_a_difference() {
    let mut service = World::sound(Role::Launcher).service;
    let mut differs = |told, require, best| {
        service.level = told;
        let sandbox = Sandbox { require, ceiling: Level::Full };
        matches!(level::compare(&sandbox, &service, best), Outcome::Differs { .. })
    };
    let (full, old) = (Level::Full, Level::Landlock2);
    assert!(!differs(Some(full), full, Some(full)));
    assert!(!differs(Some(old), old, Some(full)), "weaker than could be, as accepted");
    assert!(differs(Some(old), full, Some(full)), "less than is required");
    assert!(differs(Some(full), full, Some(old)), "more than this kernel can do");
    assert!(differs(None, old, Some(full)), "not told");
}

#[test]
fn an_unsealed_log_is_a_difference_and_so_is_a_service_that_believes_it_is_unsealed() {
    let mut service = World::sound(Role::Launcher).service;
    let differs = |found: Result<bool, SealError>, service: &Service| {
        matches!(files::append_only_outcome(&found, service), Outcome::Differs { .. })
    };
    assert!(!differs(Ok(true), &service));
    assert!(differs(Ok(false), &service));
    assert!(!differs(Err(SealError::Unsupported), &service), "it is said, and cannot be helped");
    service.unsealed_since = Some("2026-11-22T22:23:01Z".into());
    assert!(differs(Ok(true), &service));
    assert!(differs(Ok(false), &service));
    service.rootless = true;
    assert!(!differs(Ok(false), &service), "without root it never was");
}
