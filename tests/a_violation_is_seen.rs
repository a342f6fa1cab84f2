//! Promise: a worker that its filter kills is logged with the client's name and address, and
//! counted; so is what else becomes of visits. The rest of the room does not notice.
#![allow(clippy::unwrap_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use processes::titled;
use raw_client::{RawClient, join_line, read_token};
use serde_json::{Value, json};
use service::{PATIENCE, Service, wait_child};

fn listen(service: &Service, name: &str) -> Child {
    let token = service.token(name, &[]);
    let mut tail = service.papaya(&token, "tail", &["--follow", "--json"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Until it has heard something it has not joined by its own account: a client that loses its very
    // first connection says so and ends.
    let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (say, heard) = channel();
    thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(say.send(line))));
    heard.recv_timeout(PATIENCE).unwrap();
    tail
}

fn end(mut child: Child) {
    child.kill().unwrap();
    wait_child(&mut child);
}

fn client<'a>(clients: &'a [Value], name: &str) -> &'a Value {
    clients.iter().find(|client| client["name"] == name).unwrap()
}

fn pid(of: &Value) -> Pid {
    Pid::from_raw(of["pid"].as_i64().unwrap().try_into().unwrap())
}

/// The signal that a filter kills with, from outside: what the launcher sees is the same.
fn kill_as_a_filter_does(pid: Pid) {
    kill(pid, Signal::SIGSYS).unwrap();
}

#[test]
fn a_recv_and_a_send_that_die_of_their_filter_are_named_and_counted() {
    let mut service = Service::start("");
    let (alice, bob) = (listen(&service, "alice"), listen(&service, "bob"));
    let (before, clients) = service.wait_for_status(|_, clients| clients.len() == 2);
    assert_eq!(before["counters"]["violations"], 0);
    assert_eq!(before["counters"]["joins"], 2);
    let stays = pid(client(&clients, "bob"));
    let first = client(&clients, "alice").clone();

    kill_as_a_filter_does(pid(&first));
    let label = format!("recv alice {}", first["address"].as_str().unwrap());
    let line = service.wait_for_line(&format!("{label}: ended"));
    // It did not: nobody is told of a call that the kernel has not told of.
    assert!(line.contains("killed by its filter; the system call is not told"), "{line}");
    assert!(line.contains(&format!("type=1326.*pid={}'", pid(&first))), "{line}");
    // The client comes back by itself, with a new RECV.
    let (_, clients) = service.wait_for_status(|status, clients| {
        status["counters"]["violations"] == 1 && clients.len() == 2
    });

    let second = client(&clients, "alice").clone();
    let send = send_of(&service, pid(&second));
    kill_as_a_filter_does(send);
    let label = format!("recv alice {}", second["address"].as_str().unwrap());
    service.wait_for_line(&format!("{label}: SEND (process {send}) was killed by SIGSYS"));
    let (status, clients) = service.wait_for_status(|status, clients| {
        status["counters"]["violations"] == 2 && clients.len() == 2
    });
    assert_eq!(status["counters"]["joins"], 4);
    service.wait_for_line(&format!(
        "a SEND or a stray, process {send}: ended (killed by its filter; the"
    ));
    let (status, _) = service.wait_for_status(|status, _| list(status).len() == 2);
    let seen = &list(&status)[0];
    assert_eq!((&seen["role"], &seen["name"]), (&json!("recv-joined"), &json!("alice")));
    assert_eq!((&seen["address"], &seen["call"]), (&first["address"], &Value::Null));
    assert_eq!(list(&status)[1]["role"], "send");
    assert_eq!(pid(client(&clients, "bob")), stays, "somebody else noticed");
    let table = service.admin_ok(&["status"]);
    assert!(table.contains("4 joins"), "{table}");
    assert!(table.contains("2 violations"), "{table}");
    let line = format!("by recv-joined of alice {}", first["address"].as_str().unwrap());
    let line = format!("{line}, process {}: not told", pid(&first));
    assert!(table.contains(&line), "{table}");
    end(alice);
    end(bob);
}

/// The newest violations.
fn list(status: &Value) -> &[Value] {
    status["violations"].as_array().unwrap()
}

/// What the keeper said of it before its end counts, however late the launcher gets to hear it.
#[test]
fn a_recv_that_dies_right_after_joining_is_named_too() {
    let mut service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let mut client = RawClient::shake(service.port, &token);
    let address = client.stream.local_addr().unwrap();
    service.signal(Signal::SIGSTOP);
    client.say_bytes(join_line(&token, 1, "").as_bytes());
    assert!(client.event().is_some(), "no welcome");
    kill_as_a_filter_does(Pid::from_raw(titled(&service, "papayad: recv alice").pid));
    service.signal(Signal::SIGCONT);
    let line = service.wait_for_line(&format!("{address}: ended"));
    assert!(line.contains("recv alice"), "{line}");
    service.wait_for_status(|status, _| status["counters"]["violations"] == 1);
}

/// Signals without a name are ones too: such a worker is reaped, and not forgotten.
#[test]
fn a_worker_that_a_real_time_signal_kills_is_not_forgotten() {
    let mut service = Service::start("");
    let alice = listen(&service, "alice");
    let (_, clients) = service.wait_for_status(|_, clients| clients.len() == 1);
    let first = client(&clients, "alice").clone();
    let kill = format!("kill -36 {}", first["pid"]);
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success());
    let line = service.wait_for_line("recv alice");
    let line = if line.contains("ended") { line } else { service.wait_for_line("ended (status") };
    assert!(line.contains("status 164"), "{line}");
    // It comes back by itself, and there is one of it.
    let (status, _) = service
        .wait_for_status(|status, clients| status["counters"]["joins"] == 2 && clients.len() == 1);
    assert_eq!(status["starting"], 0);
    end(alice);
}

#[test]
fn a_keeper_that_dies_of_its_filter_is_accounted_for() {
    let mut service = Service::start("");
    kill_as_a_filter_does(Pid::from_raw(titled(&service, "papayad: keeper").pid));
    service.wait_for_line("keeper: ended (killed by its filter");
    wait_child(&mut service.launcher);
}

#[test]
fn a_listener_that_dies_of_its_filter_is_counted() {
    let mut service = Service::start("");
    kill_as_a_filter_does(Pid::from_raw(titled(&service, "papayad: listener").pid));
    let line = service.wait_for_line("the listener ended");
    assert!(line.contains("killed by its filter"), "{line}");
    service.wait_for_status(|status, _| status["counters"]["violations"] == 1);
}

/// RECV is known as a member a moment before it forks SEND.
fn send_of(service: &Service, recv: Pid) -> Pid {
    let end = Instant::now() + service::PATIENCE;
    loop {
        let found = service::descendants(recv.as_raw());
        if let Some((pid, _)) = found.iter().find(|(_, title)| title.starts_with("papayad: send")) {
            return Pid::from_raw(*pid);
        }
        assert!(Instant::now() < end, "no SEND in {:?}", service.processes());
        std::thread::yield_now();
    }
}

#[test]
fn visits_without_a_good_token_are_counted_by_what_was_wrong() {
    // Long enough for whoever has something to say, also on a busy machine.
    let mut service = Service::start("[limits]\ngrace = \"10s\"");
    let mut garbage = TcpStream::connect(service.server()).unwrap();
    garbage.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer); // Until the service has hung up.
    let silent = TcpStream::connect(service.server()).unwrap();
    service.wait_for_status(|status, _| {
        let refusals = &status["counters"]["refusals"];
        refusals["no_token"] == 1 && refusals["too_slow"] == 1
    });
    drop(silent);
    let token = service.token("carol", &[]);
    service.admin_ok(&["token", "revoke", "carol"]);
    service.wait_for_line("the tokens were read again: 0");
    let refused = service.papaya(&token, "tail", &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    service.wait_for_status(|status, _| status["counters"]["refusals"]["bad_token"] == 1);
}

/// What is held against a source wears off with time. So all of these are at the last step before
/// the first takes it.
#[test]
fn penalties_are_counted() {
    const VISITS: usize = 5;
    let service = Service::start("[limits]\npenalties = true");
    let mut unknown = read_token(&service.token("carol", &[]));
    unknown.id.0[0] ^= 1;
    let mut visits = [(); VISITS].map(|()| RawClient::shake(service.port, &unknown));
    for visit in &mut visits {
        visit.say_bytes(join_line(&unknown, 1, "").as_bytes());
    }
    service.wait_for_status(|status, _| {
        let counters = &status["counters"];
        counters["refusals"]["bad_token"] == VISITS && counters["penalties"] == 1
    });
}
