//! Who holds the log's lock and does not go on is removed, and the room goes on without losing a
//! word; a holder that is not of the service is named, and nobody is killed for it.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;
#[path = "common/stall.rs"]
mod stall;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use papayachat::token::Token;
use people::{Person, read_token};
use service::{PATIENCE, Service, descendants};
use stall::{ALWAYS, stop_inside};

/// Talks until told to stop; whoever it was, and what was said.
fn talk(server: std::net::SocketAddr, token: &Token, over: &AtomicBool) -> (Person, Vec<String>) {
    let mut person = Person::join(server, token);
    let mut said = Vec::new();
    while !over.load(Ordering::Relaxed) {
        said.push(format!("line {}", said.len()));
        person.say_all(said.last().cloned());
    }
    (person, said)
}

/// Tells everybody to stop, also when a test fails among them, who would be waited for otherwise.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Until one of her lines is stored: before that the service may know of somebody who has not heard
/// yet that she is in the room, and she would not come back.
fn wait_until_she_talks(service: &Service, name: &str) {
    let end = Instant::now() + PATIENCE;
    while !service.messages_among_torn().iter().any(|m| m.from == name) {
        assert!(Instant::now() < end, "{name} says nothing");
        thread::yield_now();
    }
}

/// The RECV of somebody who is here once.
fn recv_of(service: &Service, name: &str) -> i32 {
    let here =
        |clients: &[serde_json::Value]| clients.iter().filter(|c| c["name"] == name).count() == 1;
    service.wait_for_status(|_, clients| here(clients));
    service.recvs_of(name)[0]
}

/// RECV is known as a member a moment before it forks SEND.
fn send_of(recv: i32) -> i32 {
    let end = Instant::now() + PATIENCE;
    loop {
        if let [(send, _), ..] = descendants(recv)[..] {
            return send;
        }
        assert!(Instant::now() < end, "RECV {recv} has no SEND");
        thread::yield_now();
    }
}

/// `recv` or `send` in the hands of the test, stopped inside the lock.
fn stalled(which: &str) {
    let mut service =
        Service::start(&format!("[limits]\nrate = \"1000000/s\"\nburst = 10000\n{ALWAYS}"));
    let address = service.address();
    let names = ["alice", "bob", "carol"];
    let tokens = names.map(|name| read_token(&service.token(name, &[])));
    let over = AtomicBool::new(false);
    let everyone = thread::scope(|scope| {
        let talkers = tokens.each_ref().map(|token| scope.spawn(|| talk(address, token, &over)));
        let ends = Ends(&over);
        wait_until_she_talks(&service, "alice");
        let recv = recv_of(&service, "alice");
        let victim = match which {
            "send" => send_of(recv),
            _ => recv,
        };
        stop_inside(victim);
        let line = service.wait_for_line("holds the log's lock and lets nobody in; removed");
        assert!(line.contains("recv alice"), "{line}");
        service.wait_for_line("recv alice");
        // The launcher may not have reaped the old one yet.
        service.wait_for_status(|_, clients| {
            let of: Vec<_> = clients.iter().filter(|c| c["name"] == "alice").collect();
            of.len() == 1 && of[0]["pid"] != recv
        });
        drop(ends);
        talkers.map(|talker| talker.join().unwrap())
    });
    let log = service.messages_among_torn();
    for (name, (person, said)) in names.iter().zip(&everyone) {
        let stored = log.iter().filter(|m| m.from == *name).map(|m| &m.text);
        assert!(stored.eq(said), "{name}: not every line is there once and in order");
        assert_eq!(person.returns, usize::from(*name == "alice"), "{name}");
    }
}

#[test]
fn a_recv_that_stalls_inside_the_lock_is_removed_and_its_client_comes_back() {
    stalled("recv");
}

#[test]
fn a_send_that_stalls_inside_the_lock_is_removed_and_its_client_comes_back() {
    stalled("send");
}

#[test]
fn a_foreign_holder_is_named_and_nobody_is_killed_for_it() {
    let mut service = Service::start("");
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let mut alice = Person::join(service.address(), &read_token(&alice));
    let mut bob = Person::join(service.address(), &read_token(&bob));
    let before = [recv_of(&service, "alice"), recv_of(&service, "bob")];
    let log = File::open(service.state.join("room.log")).unwrap();
    let lock = Flock::lock(log, FlockArg::LockExclusive).unwrap();
    alice.say("does anybody hear me?");
    let own = std::process::id();
    let expected = format!("process {own}, which is not of this service, holds the log's lock");
    thread::scope(|scope| {
        // Somebody has to work the client's connection while the log is waited for.
        let talker = scope.spawn(|| alice.say_all(["still here".to_owned()]));
        service.wait_for_line(&expected);
        drop(lock);
        talker.join().unwrap();
    });
    bob.until(|bob, _| bob.seen.len() == 2);
    assert_eq!([recv_of(&service, "alice"), recv_of(&service, "bob")], before);
    assert_eq!((alice.returns, bob.returns), (0, 0));
}
