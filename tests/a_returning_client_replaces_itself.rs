//! A client that comes back while the server still believes in its old connection takes its own
//! place: the old RECV is gone before the new one is let in, and nobody else is touched.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use papayachat::client::session::{Happening, Step};
use papayachat::exit::Exit;
use people::{Person, read_token};
use proxy::Proxy;
use serde_json::Value;
use service::{PATIENCE, Service};

const TWO_SESSIONS: &str = "[limits]\nsessions = 2\nrate = \"1000000/s\"\nburst = 10000\n";
/// Set in the ninth word of /proc/PID/stat once a process is on its way out (PF_EXITING).
const EXITING: u64 = 4;

/// Whether this process can do nothing any more.
fn is_gone(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let words: Vec<&str> = stat[stat.rfind(')').unwrap() + 1..].split_ascii_whitespace().collect();
    matches!(words[0], "Z" | "X") || words[6].parse::<u64>().unwrap() & EXITING != 0
}

/// Works the client's connection until it is so, whatever happens there.
fn work_until(person: &mut Person, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "nothing of what was said has come to the proxy");
        let soon = Instant::now() + Duration::from_millis(1);
        if let Step::Happened(happening) = person.session.step(None, Some(soon)).unwrap() {
            person.note(happening);
        }
    }
}

fn returned(_: &Person, happening: &Happening) -> bool {
    matches!(happening, Happening::Joined { again: true })
}

#[test]
fn the_old_connection_is_gone_before_the_new_one_is_let_in() {
    let service = Service::start(TWO_SESSIONS);
    let token = read_token(&service.token("alice", &[]));
    let mut other = Person::join(service.address(), &token);
    let others = [own_recv(&service, &[])];
    let proxy = Proxy::start(service.address());
    let mut alice = Person::join(proxy.address, &token);
    let mut said = Vec::new();
    for round in 0..10 {
        let old = own_recv(&service, &others);
        proxy.freeze();
        for n in 0..20 {
            said.push(format!("{round}.{n}"));
            alice.say(said.last().unwrap());
        }
        // Until it has sent them: they wait on the old connection's way.
        work_until(&mut alice, || proxy.holds_back());
        proxy.hang_up_on_clients();
        alice.until(returned);
        assert!(is_gone(old), "RECV {old} lives on beside its successor");
        alice.until(|alice, _| alice.session.unacknowledged().is_empty());
        // What was held back comes too late to be said twice.
        proxy.thaw();
    }
    assert_eq!(alice.returns, 10);
    other.until(|other, _| other.seen.len() >= said.len());
    assert_eq!(other.returns, 0, "the other session of the same token is not touched");
    assert!(service.recvs_of("alice").contains(&others[0]));
    let stored: Vec<String> = service.messages().into_iter().map(|m| m.text).collect();
    assert_eq!(stored, said);
    assert_eq!(other.seen, alice.seen);
}

#[test]
fn a_recv_that_does_not_leave_is_removed_and_what_it_had_read_is_not_said_twice() {
    let service = Service::start(TWO_SESSIONS);
    let token = read_token(&service.token("alice", &[]));
    let proxy = Proxy::start(service.address());
    let mut alice = Person::join(proxy.address, &token);
    let mut said = Vec::new();
    for round in 0..2 {
        let old = own_recv(&service, &[]);
        // Stopped, it has the client's messages in its socket, and could store them later.
        kill(Pid::from_raw(old), Signal::SIGSTOP).unwrap();
        let before = proxy.passed();
        for n in 0..50 {
            said.push(format!("{round}.{n}"));
            alice.say(said.last().unwrap());
        }
        work_until(&mut alice, || proxy.passed() > before);
        proxy.freeze();
        proxy.hang_up_on_clients();
        alice.until(returned);
        assert!(is_gone(old), "RECV {old} lives on beside its successor");
        alice.until(|alice, _| alice.session.unacknowledged().is_empty());
        proxy.thaw();
    }
    let stored: Vec<String> = service.messages().into_iter().map(|m| m.text).collect();
    assert_eq!(stored, said);
}

#[test]
fn one_session_too_many_is_refused_with_its_reason_and_a_returning_one_is_not() {
    let service = Service::start(TWO_SESSIONS);
    let file = service.token("alice", &[]);
    let token = read_token(&file);
    let _first = Person::join(service.address(), &token);
    let proxy = Proxy::start(service.address());
    let mut second = Person::join(proxy.address, &token);
    let third = service.papaya(&file, "tail", &["--follow"]).output().unwrap();
    assert_eq!(third.status.code(), Some(Exit::Unavailable as i32));
    let words = String::from_utf8(third.stderr).unwrap();
    assert!(words.contains("too many clients are connected with this token"), "{words}");
    assert!(words.contains("2 sessions already (limits.sessions)"), "{words}");
    proxy.cut_all();
    second.until(returned);
    // A token of its own has places of its own.
    let bob = read_token(&service.token("bob", &[]));
    Person::join(service.address(), &bob);
}

/// The only living RECV that is not one of the others'; it is known to the launcher before long.
fn own_recv(service: &Service, others: &[i32]) -> i32 {
    let own = |clients: &[Value]| {
        let mut pids = clients.iter().map(|c| c["pid"].as_i64().unwrap() as i32);
        pids.find(|pid| !others.contains(pid) && !is_gone(*pid))
    };
    let (_, clients) = service.wait_for_status(|_, clients| own(clients).is_some());
    own(&clients).unwrap()
}
