//! Promise: of 200 clients no two have a RECV with its program, heap, stack or C library at the
//! same address, and none has a heap beside its program, for whose place there are fewer choices: what an attacker learns of one is of no use against another. Needs root, for
//! nobody else may look at where a non-dumpable process has its memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::confine::Role;
use processes::{child_titled, stat, wait_confined};
use raw_client::{RawClient, connect, read_token};
use service::{Service, is_root};

const STRANGERS: usize = 150;
const MEMBERS: usize = 50;
/// Where the stack begins, among the fields of /proc/PID/stat from the third on (proc_pid_stat(5)).
const START_STACK: usize = 28 - 3;

fn main() -> ExitCode {
    let trial = Trial::test("200 receivers are at 200 places", receivers);
    let trials = vec![trial.with_ignored_flag(!is_root())];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn receivers() -> Result<(), Failed> {
    let on = fs::read_to_string("/proc/sys/kernel/randomize_va_space")?;
    assert_eq!(on.trim(), "2", "this machine does not randomise addresses");
    let service = Service::start("[limits]\ngrace = \"600s\"\nsessions = 50");
    let launcher = service.launcher.id() as i32;
    let mut connections: Vec<Box<dyn Any>> = Vec::new();
    let mut recvs = Vec::new();
    for _ in 0..STRANGERS {
        let stream = connect(service.port);
        let title = format!("papayad: recv - {}", stream.local_addr()?);
        recvs.push((child_titled(launcher, &title), Role::Recv));
        connections.push(Box::new(stream));
    }
    let token = read_token(&service.token("alice", &[]));
    let mut ticket = None;
    for session in 0..MEMBERS as u128 {
        let (client, welcome) = match &ticket {
            None => RawClient::join(service.port, &token, session),
            Some(ticket) => RawClient::join_by(ticket, service.port, &token, session),
        };
        ticket = Some(welcome.ticket);
        let title = format!("papayad: recv alice {}", client.stream.local_addr()?);
        recvs.push((child_titled(launcher, &title), Role::RecvJoined));
        connections.push(Box::new(client));
    }
    let mut places: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (pid, role) in &recvs {
        // Titled, it is not yet all that it will be.
        wait_confined(*pid, *role);
        for (what, address) in addresses(*pid) {
            places.entry(what).or_default().insert(address);
        }
    }
    // By chance: less than once in 4000 runs, where the kernel has 28 bits to choose from.
    for what in ["program", "heap", "stack"] {
        assert_eq!(places[what].len(), STRANGERS + MEMBERS, "{what}: {:x?}", places[what]);
    }
    // The packages' program has it inside.
    if let Some(libraries) = places.get("C library") {
        assert_eq!(libraries.len(), STRANGERS + MEMBERS, "{libraries:x?}");
    }
    assert!(!places.contains_key("brk"), "{:x?}", places["brk"]);
    let (_, clients) = service.status();
    assert_eq!(clients.len(), MEMBERS);
    Ok(())
}

/// Where the program, its heap, its stack and the C library begin.
fn addresses(pid: i32) -> BTreeMap<&'static str, u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = BTreeMap::new();
    for line in maps.lines() {
        let path = line.split_whitespace().nth(5).unwrap_or_default();
        let what = match path {
            "[heap]" => "brk",
            // The lowest mapping of memory, which is where malloc has its own.
            "" => "heap",
            _ if path.ends_with("/papayad-session") => "program",
            _ if path.contains("/libc") => "C library",
            _ => continue,
        };
        let address = line.split('-').next().unwrap();
        found.entry(what).or_insert(u64::from_str_radix(address, 16).unwrap());
    }
    // Not where its pages begin, which are too few places for 200 never to meet.
    found.insert("stack", stat(pid).unwrap()[START_STACK].parse().unwrap());
    found
}
