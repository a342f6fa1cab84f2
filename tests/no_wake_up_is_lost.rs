//! One message after a pause of any length reaches a reader that was about to fall asleep, without
//! a second message: the bell that rings between SEND's last look and its sleep is not lost.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/processes.rs"]
mod processes;
#[path = "common/random.rs"]
mod random;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;
#[path = "common/stall.rs"]
mod stall;
#[path = "common/texts.rs"]
mod texts;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::{Pid, pipe, write};
use papayachat::client::session::{Options, Step};
use papayachat::room::offset::Offset;
use papayachat::sys::signal;
use papayachat::wire::command::Start;
use people::{Person, read_token};
use processes::wait_until;
use random::Random;
use raw_client::{RawClient, join_line};
use serde_json::Value;
use service::Service;

const ROUNDS: usize = 3_000;
/// How often a reader asks before a message counts as lost, and how long each time.
const POLLS: usize = 60;
const POLL: Duration = Duration::from_secs(1);
/// The longest pause before a message, in turns of an empty loop: more than SEND takes to send a
/// line and to fall asleep.
const PAUSE: usize = 100_000;

#[test]
fn every_single_message_wakes_an_idle_reader() {
    // Nobody else may ring: neither presence records nor a second message.
    let limits = "[limits]\nrate = \"1000000/s\"\nburst = 10000\n[log]\npresence = false\n";
    let service = Service::start(limits);
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let mut alice = Person::join(service.address(), &read_token(&alice));
    let mut bob = Person::join(service.address(), &read_token(&bob));
    let mut random = Random::new(3);
    for round in 0..ROUNDS {
        for _ in 0..random.below(PAUSE) {
            std::hint::spin_loop();
        }
        alice.say(&round.to_string());
        alice.until(|alice, _| alice.session.unacknowledged().is_empty());
        assert!(hears(&mut bob, round + 1), "message {round} did not wake the reader");
    }
    let heard: Vec<usize> = bob.seen.iter().map(|m| m.text.parse().unwrap()).collect();
    assert!(heard.iter().copied().eq(0..ROUNDS));
}

/// Whether the reader gets its `count`th message within a bounded number of polls.
fn hears(reader: &mut Person, count: usize) -> bool {
    for _ in 0..POLLS {
        match reader.session.step(None, Some(Instant::now() + POLL)).unwrap() {
            Step::Happened(happening) => drop(reader.note(happening)),
            Step::TimedOut | Step::Woken => {}
        }
        if reader.seen.len() >= count {
            return true;
        }
    }
    false
}

/// A RECV that dies between storing and ringing: what it stored must not wait for the next message.
#[test]
fn what_a_killed_recv_had_stored_is_rung_for() {
    let limits = format!("[limits]\nrate = \"1000000/s\"\nburst = 10000\n{}", stall::ALWAYS);
    let service = Service::start(&limits);
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let said = Arc::new(texts::lines(50_000).join("\n") + "\n");
    // The answer to a ping would wake its SEND, too.
    let options = Options {
        ping_every: Duration::from_secs(3600),
        ..people::hurried(Start::From(Offset(0)))
    };
    let mut bob = Person::join_with(service.address(), &read_token(&bob), options).unwrap();
    for _ in 0..5 {
        let mut send = service.papaya(&alice, "send", &[]);
        let mut send = send.stdin(Stdio::piped()).spawn().unwrap();
        // She never comes to an end by herself, however long it takes to catch her RECV.
        let (mut mouth, said) = (send.stdin.take().unwrap(), said.clone());
        let speaks = thread::spawn(move || while mouth.write_all(said.as_bytes()).is_ok() {});
        let is_alice = |c: &Value| c["name"] == "alice";
        let (_, here) = service.wait_for_status(|_, clients| clients.iter().any(is_alice));
        let recv = here.iter().find(|c| is_alice(c)).unwrap()["pid"].as_i64().unwrap() as i32;
        stall::stop_inside(recv);
        // The client must not come back: it would ring.
        send.kill().unwrap();
        send.wait().unwrap();
        speaks.join().unwrap();
        // If that took too long, the service has removed who holds the lock.
        let killed = kill(Pid::from_raw(recv), Signal::SIGKILL);
        assert!(matches!(killed, Ok(()) | Err(Errno::ESRCH)), "{killed:?}");
        service.wait_for_status(|_, clients| !clients.iter().any(is_alice));
        let stored = service.messages_among_torn();
        while bob.seen.len() < stored.len() {
            bob.next();
        }
        assert!(bob.seen == stored);
    }
}

/// Lines that came too fast are held back for a moment. If that moment passes while RECV waits for the
/// log, it must not sleep until the client says something more: there is nothing more to be said.
#[test]
fn a_line_that_was_held_back_is_stored_though_its_time_came_while_the_log_was_locked() {
    let service = Service::start("[limits]\nrate = \"1000/s\"\nburst = 1\n");
    let token = read_token(&service.token("alice", &[]));
    let (mut alice, _) = RawClient::join(service.address().port(), &token, 1);
    let recv = service.recvs_of("alice")[0];
    for round in 0..5 {
        let log = File::open(service.state.join("room.log")).unwrap();
        let lock = Flock::lock(log, FlockArg::LockExclusive).unwrap();
        let line = |n: usize| {
            let id = format!("{round}-{n}");
            format!("{}\n", serde_json::json!({"cmd": "say", "id": id, "text": id}))
        };
        alice.say_bytes((0..3).map(line).collect::<String>().as_bytes());
        wait_until("RECV waits for the log", || stall::waits_for_a_lock(recv));
        // The first one is about to be stored; of the others, one is allowed each millisecond.
        let passed = Instant::now() + Duration::from_millis(20);
        while Instant::now() < passed {
            thread::yield_now();
        }
        drop(lock);
        alice.hear(&format!("\"id\":\"{round}-2\""));
    }
}

#[test]
fn a_bell_between_the_look_and_the_sleep_ends_the_sleep() {
    let _alone = prepare();
    for _ in 0..100 {
        signal::take(Signal::SIGUSR1);
        ring();
        assert!(!signal::pending(Signal::SIGUSR1), "it waits for the sleep");
        let began = Instant::now();
        signal::wait(&mut [], Some(service::PATIENCE)).unwrap();
        assert!(began.elapsed() < service::PATIENCE);
        assert!(signal::take(Signal::SIGUSR1));
    }
}

#[test]
fn a_bell_is_heard_though_a_descriptor_is_always_ready() {
    let _alone = prepare();
    let (ready, full) = pipe().unwrap();
    write(&full, b"x").unwrap();
    ring();
    let heard = (0..100).any(|_| {
        let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
        signal::wait(&mut fds, None).unwrap();
        assert!(signal::ready(&fds[0]));
        signal::take(Signal::SIGUSR1)
    });
    assert!(heard);
}

/// The test of the tests above: with the same bell, a sleep that opens the mask before it sleeps,
/// in two steps, as the original's `pause()`, sleeps on.
#[test]
fn without_the_atomic_mask_that_bell_is_lost() {
    let _alone = prepare();
    let mut open = SigSet::empty();
    open.add(Signal::SIGUSR1);
    signal::take(Signal::SIGUSR1);
    open.thread_unblock().unwrap();
    ring();
    assert_eq!(poll(&mut [], PollTimeout::from(50_u16)), Ok(0), "nothing ended the sleep");
    assert!(signal::take(Signal::SIGUSR1), "though the bell had rung");
}

/// Sets this thread's mask and the process's handler as SEND does, for one test at a time: what notes
/// that a bell has rung is the whole process's.
fn prepare() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    signal::apply(&signal::Plan { noted: &[Signal::SIGUSR1], ignored: &[], defaulted: &[] })
        .unwrap();
    alone
}

/// Rings for this thread alone.
fn ring() {
    raise(Signal::SIGUSR1).unwrap();
}

#[test]
fn what_comes_together_with_the_token_does_not_wait_for_more() {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let mut alice = RawClient::shake(service.port, &token);
    // One write, so that one read of RECV's has all of it.
    let mut bytes = alice.seal(join_line(&token, 1, "").as_bytes());
    for number in 0..3 {
        let line = format!("{{\"cmd\":\"say\",\"id\":\"{number}\",\"text\":\"word {number}\"}}\n");
        bytes.extend(alice.seal(line.as_bytes()));
    }
    raw_client::write(&mut alice.stream, &bytes);
    alice.hear("word 2");
}
