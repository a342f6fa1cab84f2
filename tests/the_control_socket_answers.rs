//! Promise: each administrator's command has a clear answer, also where no service is running or
//! where it hangs; and whatever is said to the control socket, the service goes on as it was.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/random.rs"]
mod random;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use papayachat::daemon::launcher::control::REQUEST_MAX;
use random::Random;
use raw_client::{RawClient, read_token};
use service::{PATIENCE, Service, wait_child};

/// Every command that is of no use without a running service.
const NEED_IT: [&[&str]; 8] = [
    &["status"],
    &["status", "--json"],
    &["status", "--prometheus"],
    &["kick", "alice"],
    &["pause"],
    &["resume"],
    &["doctor"],
    &["doctor", "--json"],
];
/// Every command that does its work with or without.
const DO_NOT: [&[&str]; 8] = [
    &["token", "list"],
    &["token", "add", "bob"],
    &["token", "rotate", "bob"],
    &["token", "revoke", "bob"],
    &["log", "verify"],
    &["log", "export"],
    &["log", "prune", "--keep", "1G"],
    &["sandbox", "show"],
];

#[test]
fn without_a_service_each_command_says_so() {
    let mut service = Service::start("");
    let socket = service.dir.path().join("run/control");
    assert_eq!(service.stop().code(), Some(0));
    all_say_so(&service);
    // Killed, with its socket left behind; and as if it had never run.
    service.restart();
    service.signal(Signal::SIGKILL);
    wait_child(&mut service.launcher);
    assert!(socket.exists());
    all_say_so(&service);
    fs::remove_dir_all(service.dir.path().join("run")).unwrap();
    all_say_so(&service);
    for command in DO_NOT {
        service.admin_ok(command);
    }
}

fn all_say_so(service: &Service) {
    for command in NEED_IT {
        let output = service.admin(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "papayad {command:?}: {said}");
        let place = service.dir.path().join("run");
        assert!(said.contains("no papayad is running"), "papayad {command:?}: {said}");
        assert!(said.contains(&place.display().to_string()), "papayad {command:?}: {said}");
        let out = String::from_utf8_lossy(&output.stdout);
        let known = out.is_empty() || out.ends_with("papayachat_up{room=\"lobby\"} 0\n");
        assert!(known, "papayad {command:?} prints {out}");
    }
}

#[test]
fn a_service_that_hangs_is_told_from_one_that_is_not_there() {
    let service = Service::start("");
    service.signal(Signal::SIGSTOP);
    let output = service.admin(&["status"]);
    service.signal(Signal::SIGCONT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("cannot talk to the running service"), "{said}");
    service.admin_ok(&["status"]);
}

/// What can be asked, to begin with.
const REQUESTS: [&str; 9] = [
    "status\n",
    "reload\n",
    "tokens\n",
    "pause\n",
    "resume\n",
    "kick nobody\n",
    "kick 1\n",
    "kick\n",
    "help me\n",
];

/// A request, damaged in one of several ways.
fn damaged(random: &mut Random) -> Vec<u8> {
    let mut bytes = REQUESTS[random.below(REQUESTS.len())].as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => bytes.splice(at..at, vec![b'x'; random.below(2 * REQUEST_MAX)]).for_each(drop),
            3 => bytes.extend_from_slice(REQUESTS[random.below(REQUESTS.len())].as_bytes()),
            _ => bytes.splice(at..at, [0, 0xff, b'\n', b'\x1b']).for_each(drop),
        }
    }
    bytes
}

#[test]
fn whatever_is_said_to_the_control_socket_nobody_is_touched() {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let (mut alice, _) = RawClient::join(service.port, &token, 1);
    let socket = service.dir.path().join("run/control");
    let mut random = Random::new(7);
    let mut lingering = Vec::new();
    for round in 0..400 {
        let mut caller = UnixStream::connect(&socket).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = damaged(&mut random);
        // One that was dropped for its length may not take all of it.
        let _ = match random.below(3) {
            0 => bytes.chunks(3).try_for_each(|part| caller.write_all(part)),
            _ => caller.write_all(&bytes),
        };
        match random.below(4) {
            // Goes without an answer, or stays and never ends its line.
            0 => drop(caller),
            1 if lingering.len() < 6 => lingering.push(caller),
            _ => {
                let _ = caller.shutdown(Shutdown::Write);
                let mut answer = Vec::new();
                match caller.read_to_end(&mut answer) {
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        panic!("no answer and no end to {:?}", String::from_utf8_lossy(&bytes))
                    }
                    _ => {}
                }
                let answer = String::from_utf8(answer).expect("answers are text");
                let control = |c: char| c.is_control() && c != '\n';
                assert!(!answer.contains(control), "{answer:?}");
            }
        }
        if round % 100 == 99 {
            alice.say(&round.to_string(), &format!("still here {round}"));
            alice.hear(&format!("still here {round}"));
        }
    }
    drop(lingering);
    service.admin_ok(&["resume"]);
    let (state, clients) = service.wait_for_status(|s, _| s["door"] == "open");
    assert_eq!((clients.len(), &state["counters"]["violations"]), (1, &0.into()));
    RawClient::join(service.port, &token, 2);
}
