//! Promise: once a client is in the room, its token's secret is in the memory of no process of the
//! service, neither as it travels nor as the keeper checks it, and each of its two processes has the
//! key of its own direction alone. So who reads a process's memory then learns nobody's token, and
//! who owns SEND cannot read what the client says. And a connection's key that was replaced, or that
//! an error has closed, is in no memory either. The first needs root, for nobody else may read a
//! non-dumpable process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use papayachat::sys::memory::wipe_below;
use papayachat::wire::cipher::{Opener, REKEY_EVERY, Sealer};
use papayachat::wire::hex;
use processes::{all, wait_until};
use raw_client::{RawClient, read_token};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use service::{Service, is_root};

/// As much of a secret in one piece counts as the secret. Of a register's 16 bytes, wherever they
/// were taken from, eight are one of the pieces.
const PIECE: usize = 8;

/// What a process of this program's is to be, instead of a test: see [`hold`].
const HOLDER: &str = "PAPAYA_TEST_HOLDER";

fn main() -> ExitCode {
    if let Ok(what) = std::env::var(HOLDER) {
        return hold(&what);
    }
    let trial = Trial::test("a secret is where it is needed and nowhere else", secrets);
    let trials = vec![
        trial.with_ignored_flag(!is_root()),
        Trial::test("a key that was replaced or closed is nowhere", replaced_keys),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A process with a key in use, or one that has none any more: another one looks into its memory.
fn hold(what: &str) -> ExitCode {
    let (mut sealer, frames) = sealed(if what.ends_with("replaced") { REKEY_EVERY } else { 9 });
    let mut opener = None;
    if what.starts_with("sealer") {
        wipe_below(); // What this test itself has left of the key.
        last_of_sealer(what, &mut sealer);
    } else {
        drop(sealer);
        opener = Some(an_opener());
        wipe_below();
        last_of_opener(what, opener.as_mut().unwrap(), frames);
        sealer = Sealer::new([0; 32]);
    }
    if what == "opener left" {
        left_by_ring();
    }
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
    drop(black_box((sealer, opener)));
    ExitCode::SUCCESS
}

#[inline(never)]
fn sealed(count: u64) -> (Sealer, Vec<Vec<u8>>) {
    let mut sealer = Sealer::new(a_key());
    let mut seal = || {
        let mut frame = vec![b'x'; 26];
        sealer.seal(&mut frame, 8).unwrap();
        frame
    };
    let frames = (0..count).map(|_| seal()).collect();
    (sealer, frames)
}

#[inline(never)]
fn an_opener() -> Opener {
    Opener::new(a_key())
}

/// The next frame needs a new key; or an error closes the direction; or it goes on.
#[inline(never)]
fn last_of_sealer(what: &str, sealer: &mut Sealer) {
    let length = if what.ends_with("closed") { 0 } else { 8 };
    let outcome = sealer.seal(&mut [b'x'; 26], length);
    assert_eq!(outcome.is_ok(), length > 0);
}

/// Opens them all, and then the same.
#[inline(never)]
fn last_of_opener(what: &str, opener: &mut Opener, frames: Vec<Vec<u8>>) {
    for mut frame in frames {
        let (header, text) = frame.split_at_mut(2);
        opener.open([header[0], header[1]], text).unwrap();
    }
    if what != "opener" {
        // Not authentic, with the key that is due: a key that was replaced is gone in any case.
        opener.open([0, 24], &mut [0; 24]).unwrap_err();
    }
}

/// What ring leaves if nobody wipes it.
#[inline(never)]
fn left_by_ring() {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &a_key()).map(LessSafeKey::new).unwrap();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let _tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut [0; 8]).unwrap();
}

/// Not one that stands in the program's text, or in that of its caller.
#[inline(never)]
fn a_key() -> [u8; 32] {
    std::array::from_fn(|i| black_box(i as u8).wrapping_mul(37).wrapping_add(11))
}

fn replaced_keys() -> Result<(), Failed> {
    // The first two have it in the heap, the third has left it on the stack.
    for (what, there) in [
        ("sealer", true),
        ("opener", true),
        ("opener left", true),
        ("sealer replaced", false),
        ("opener replaced", false),
        ("sealer closed", false),
        ("opener closed", false),
    ] {
        let mut holder = Command::new(std::env::current_exe()?)
            .env(HOLDER, what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line)?;
        assert_eq!(line, "ready\n");
        let memory = memory(holder.id() as i32);
        drop(holder.stdin.take());
        assert!(holder.wait()?.success());
        let key = a_key();
        let pieces = pieces(&key);
        let found = memory.windows(PIECE).any(|window| pieces.contains(&window));
        assert_eq!(found, there, "the key's pieces, {what}");
    }
    Ok(())
}

fn secrets() -> Result<(), Failed> {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let (stream, keys) = RawClient::keys(service.port, &token);
    let (mut alice, _) = RawClient::with_keys(stream, &keys).enter(&token, 1);
    // Both of her processes have come as far as their work, and so has the launcher.
    alice.say("1", "hello");
    alice.hear("hello");
    service.status();
    let digits = hex::encode(&token.secret.0);
    let secret = [pieces(&token.secret.0), pieces(digits.as_bytes())].concat();
    let (heard, said) = (pieces(&keys.client_to_server), pieces(&keys.server_to_client));
    let processes = all(&service);
    assert!(processes.len() >= 5, "{processes:?}");
    let mut hers = 0;
    for process in processes {
        let memory = memory(process.pid);
        let has = |pieces: &[&[u8]]| {
            memory.windows(PIECE).any(|window| window[0] != 0 && pieces.contains(&window))
        };
        let title = &process.title;
        assert!(!has(&secret), "{title} has a piece of the secret");
        // What is there is found: each has the key of its direction, and not the other.
        let (wants_heard, wants_said) = if title.starts_with("papayad: recv alice") {
            (true, false)
        } else if title.starts_with("papayad: send alice") {
            (false, true)
        } else {
            continue;
        };
        hers += 1;
        assert_eq!(has(&heard), wants_heard, "{title}: the key to what she says");
        assert_eq!(has(&said), wants_said, "{title}: the key to what she is sent");
    }
    assert_eq!(hers, 2);
    Ok(())
}

fn pieces(secret: &[u8]) -> Vec<&[u8]> {
    secret.chunks_exact(PIECE).filter(|piece| piece[0] != 0).collect()
}

/// All that a process can write to, one mapping after the other.
fn memory(pid: i32) -> Vec<u8> {
    let mut bytes = None;
    // Again if a mapping changes meanwhile.
    wait_until("a process's memory can be read", || {
        bytes = read(pid).ok();
        bytes.is_some()
    });
    bytes.unwrap()
}

fn read(pid: i32) -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut bytes = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (first, last) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let mut part = vec![0; (address(last) - address(first)) as usize];
        memory.read_exact_at(&mut part, address(first))?;
        bytes.extend(part);
    }
    Ok(bytes)
}
