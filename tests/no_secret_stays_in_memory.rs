//! Promise: once a client is in the room, its token's secret is in the memory of no process of the
//! service, neither as it travels nor as the keeper checks it: who reads a process's memory then
//! learns nobody's token. Needs root, for nobody else may read a non-dumpable process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::wire::hex;
use processes::all;
use raw_client::{RawClient, read_token};
use service::{Service, is_root};

/// As much of a secret in one piece counts as the secret.
const PIECE: usize = 12;

fn main() -> ExitCode {
    let trial = Trial::test("a secret is gone when its client is in", secrets);
    let trials = vec![trial.with_ignored_flag(!is_root())];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn secrets() -> Result<(), Failed> {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let (mut alice, _) = RawClient::join(service.port, &token, 1);
    // Both of her processes have come as far as their work, and so has the launcher.
    alice.say("1", "hello");
    alice.hear("hello");
    service.status();
    let digits = hex::encode(&token.secret.0);
    let pieces: Vec<&[u8]> =
        token.secret.0.chunks(PIECE).chain(digits.as_bytes().chunks(2 * PIECE)).collect();
    let whole = |piece: &&[u8]| piece.len() >= PIECE;
    let pieces: Vec<&[u8]> = pieces.into_iter().filter(whole).collect();
    assert!(pieces.len() >= 4);
    let processes = all(&service);
    assert!(processes.len() >= 5, "{processes:?}");
    let mut named = 0;
    for process in processes {
        let memory = memory(process.pid);
        named += usize::from(has(&memory, b"alice"));
        for piece in &pieces {
            assert!(!has(&memory, piece), "{} has a piece of the secret", process.title);
        }
    }
    // What is not secret is found: the launcher, the keeper and her own two processes know her name.
    assert!(named >= 4, "only {named} have her name");
    Ok(())
}

/// All that a process can write to, one mapping after the other.
fn memory(pid: i32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (first, last) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let mut part = vec![0; (address(last) - address(first)) as usize];
        memory.read_exact_at(&mut part, address(first)).unwrap();
        bytes.extend(part);
    }
    bytes
}

fn has(memory: &[u8], piece: &[u8]) -> bool {
    memory.windows(piece.len()).any(|window| window == piece)
}
