//! Promise: however the service ends, it ends as a whole: told to, with a goodbye to everyone; or
//! because a part that it cannot do without is gone. A second one harms nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use papayachat::exit::Exit;
use papayachat::wire::event::{ByeReason, Event};
use processes::{all, below, titled, wait_for_titles, wait_until};
use raw_client::{RawClient, connect, join_line, read_to_end, read_token};
use service::{PAPAYAD, Service, unseal, wait_child};

/// Three people in the room.
fn crowd(service: &Service) -> Vec<RawClient> {
    let names = ["alice", "bob", "carol"];
    let join = |name: &&str| {
        let token = read_token(&service.token(name, &[]));
        RawClient::join(service.port, &token, 1).0
    };
    names.iter().map(join).collect()
}

fn told(client: &mut RawClient, wanted: ByeReason, may_return: bool) {
    let events = client.events_to_end();
    let last = events.last();
    let right = matches!(last, Some(Event::Bye { reason, retry, message })
        if *reason == wanted && *retry == may_return && !message.is_empty());
    assert!(right, "{events:?}");
}

#[test]
fn sigterm_ends_everything_and_tells_everyone_to_come_back() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = Service::start("");
        let mut clients = crowd(&service);
        let mut stranger = connect(service.port);
        let token = service.dir.path().join("alice.token");
        let mut shaken = RawClient::shake(service.port, &read_token(&token));
        let processes = all(&service);
        service.signal(signal);
        for client in &mut clients {
            told(client, ByeReason::Shutdown, true);
        }
        assert_eq!(read_to_end(&mut stranger), b"");
        assert!(shaken.events_to_end().is_empty());
        assert_eq!(wait_child(&mut service.launcher).code(), Some(Exit::Ok as i32));
        processes.iter().for_each(processes::Process::wait_gone);
        service.wait_for_line("stopped");
        let verify = service.admin(&["log", "verify"]);
        assert!(verify.status.success());
    }
}

#[test]
fn sigterm_does_not_wait_for_clients_that_do_not_read() {
    let mut service = Service::start("[limits]\nmessage_bytes = 65536");
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &["--role", "operator"]));
    let (stuck, _) = RawClient::join(service.port, &read_token(&alice), 1);
    let (mut loud, _) = RawClient::join(service.port, &read_token(&bob), 1);
    // More than the socket buffers of both sides can ever hold.
    let text = "x".repeat(60_000);
    for number in 0..200 {
        loud.say(&format!("m{number}"), &text);
    }
    loud.hear("\"id\":\"m199\"");
    let processes = all(&service);
    service.signal(Signal::SIGTERM);
    assert_eq!(wait_child(&mut service.launcher).code(), Some(Exit::Ok as i32));
    processes.iter().for_each(processes::Process::wait_gone);
    told(&mut loud, ByeReason::Shutdown, true);
    // It gets what was under way, whole or cut, and then the end.
    let mut rest = stuck.stream.try_clone().unwrap();
    assert!(!read_to_end(&mut rest).is_empty());
}

#[test]
fn a_crowd_is_told_in_groups_and_one_that_is_stuck_keeps_nobody() {
    let limits =
        "[limits]\nclients = 400\nper_source = 400\nsessions = 300\nstartups = \"300:30:400\"";
    let mut service = Service::start(limits);
    let token = read_token(&service.token("alice", &[]));
    let (first, welcome) = RawClient::join(service.port, &token, 1);
    let join = |session| RawClient::join_by(&welcome.ticket, service.port, &token, session).0;
    let mut clients: Vec<RawClient> = [first].into_iter().chain((2..=300).map(join)).collect();
    // Each of a crowd is heard by the keeper, which notices also who leaves: there is a seat again.
    clients[7].say_bytes(b"{\"cmd\":\"ticket\"}\n");
    while !matches!(clients[7].event().expect("an answer"), Event::Ticket { .. }) {}
    drop(clients.pop());
    wait_until("a seat is free", || {
        let mut client = RawClient::shake(service.port, &token);
        client.say_bytes(join_line(&token, 301, "").as_bytes());
        let is_in = matches!(client.event(), Some(Event::Welcome(_)));
        clients.extend(is_in.then_some(client));
        is_in
    });
    let processes = all(&service);
    assert!(processes.len() > 600, "{}", processes.len());
    // The oldest, and so of the first group: it can neither say goodbye nor end.
    let address = clients[0].stream.local_addr().unwrap();
    titled(&service, &format!("papayad: recv alice {address}")).signal(Signal::SIGSTOP);
    service.signal(Signal::SIGTERM);
    service.wait_for_line("300 clients are told in groups of 64");
    for client in &mut clients[1..] {
        told(client, ByeReason::Shutdown, true);
    }
    assert_eq!(wait_child(&mut service.launcher).code(), Some(Exit::Ok as i32));
    processes.iter().for_each(processes::Process::wait_gone);
    clients[0].events_to_end();
}

#[test]
fn a_service_that_waits_for_its_end_sleeps_also_if_its_listener_had_crashed() {
    let mut service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let (_alice, _) = RawClient::join(service.port, &token, 1);
    // The pause before the next start is long enough to be met, and over before the service ends.
    for _ in 0..3 {
        titled(&service, "papayad: listener").signal(Signal::SIGKILL);
        service.wait_for_line("the listener ended");
    }
    // One that does not end by itself keeps the launcher waiting.
    titled(&service, "papayad: recv").signal(Signal::SIGSTOP);
    service.signal(Signal::SIGTERM);
    service.wait_for_line("stopping");
    let launcher = service.launcher.id() as i32;
    let ticks = || {
        let stat = processes::stat(launcher)?;
        Some(stat[11].parse::<u64>().ok()? + stat[12].parse::<u64>().ok()?)
    };
    let before = ticks().expect("the launcher is there");
    let mut last = before;
    while let Ok(None) = service.launcher.try_wait() {
        last = ticks().unwrap_or(last).max(last);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(last - before < 20, "it used {} ticks while it waited", last - before);
}

#[test]
fn without_its_keeper_the_service_ends_and_says_so() {
    let mut service = Service::start("");
    let mut clients = crowd(&service);
    let processes = all(&service);
    titled(&service, "papayad: keeper").signal(Signal::SIGKILL);
    assert_eq!(wait_child(&mut service.launcher).code(), Some(Exit::Internal as i32));
    processes.iter().for_each(processes::Process::wait_gone);
    let line = service.wait_for_line("the keeper ended");
    assert!(line.contains("SIGKILL") && line.contains("nobody can join"), "{line}");
    for client in &mut clients {
        // Whether the goodbye or the keeper's end came first: the connection is closed.
        client.events_to_end();
    }
    // Nothing is in the way of the next one.
    service.restart();
    let file = service.dir.path().join("alice.token");
    let sent = service.papaya(&file, "send", &["again"]).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

#[test]
fn without_its_launcher_everything_goes() {
    let mut service = Service::start("");
    let mut clients = crowd(&service);
    let _stranger = connect(service.port);
    wait_until("the stranger's RECV", || below(&service).len() == 9);
    let processes = all(&service);
    service.signal(Signal::SIGKILL);
    assert!(wait_child(&mut service.launcher).code().is_none());
    processes.iter().for_each(processes::Process::wait_gone);
    for client in &mut clients {
        assert!(client.events_to_end().is_empty());
    }
    service.restart();
}

#[test]
fn a_second_service_is_refused_and_harms_nothing() {
    let mut service = Service::start("");
    let mut clients = crowd(&service);
    let processes = all(&service);
    let before = fs::read(service.dir.path().join("state/tokens")).unwrap();
    let other = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = |address: &str| Service::config_text(other.path(), address, "");
    let of_first = |word: &str| format!("{word} = \"{}", service.dir.path().display());
    let of_other = |word: &str| format!("{word} = \"{}", other.path().display());
    // The same port; the same runtime directory; the same of everything.
    let cases = [
        (text(&service.server()), "another papayad"),
        (
            text("127.0.0.1:0").replace(&of_other("runtime"), &of_first("runtime")),
            "running already",
        ),
        (fs::read_to_string(&service.config).unwrap(), "running already"),
    ];
    for (config, words) in cases {
        let path = other.path().join("papayad.toml");
        fs::write(&path, config).unwrap();
        let mut second = Command::new(PAPAYAD)
            .args(["run", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = wait_child(&mut second);
        let output = second.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(status.code(), Some(Exit::Unavailable as i32), "{said}");
        assert!(said.contains(words), "{said}");
    }
    // What the first of them had begun is to go with its directory.
    unseal(other.path());
    assert!(processes.iter().all(|p| p.exists() && !p.is_zombie()));
    assert_eq!(fs::read(service.dir.path().join("state/tokens")).unwrap(), before);
    clients[0].say("1", "we are all still here");
    for client in &mut clients {
        client.hear("we are all still here");
    }
    assert_eq!(service.status().1.len(), 3);
    assert_eq!(service.stop().code(), Some(0));
}

#[test]
fn a_service_that_cannot_start_leaves_no_process() {
    let mut service = Service::start("");
    let port = service.port;
    assert_eq!(service.stop().code(), Some(0));
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let text = fs::read_to_string(&service.config).unwrap();
    fs::write(&service.config, text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))).unwrap();
    let output = service.admin(&["run"]);
    assert_eq!(output.status.code(), Some(Exit::Unavailable as i32));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("ss -tlnp"), "{said}");
}

#[test]
fn a_service_that_ended_can_be_started_again_at_once() {
    let mut service = Service::start("");
    for _ in 0..5 {
        let pillars = [titled(&service, "papayad: keeper"), titled(&service, "papayad: listener")];
        assert_eq!(service.stop().code(), Some(0));
        // Not "soon": who waits for the launcher, as a service manager does, waits for all of it.
        assert!(!pillars.iter().any(processes::Process::exists), "{pillars:?}");
        service.restart();
    }
}

#[test]
fn a_client_that_is_told_to_come_back_can() {
    let mut service = Service::start("");
    let file = service.token("alice", &[]);
    let token = read_token(&file);
    let (mut alice, _) = RawClient::join(service.port, &token, 1);
    alice.say("1", "before the restart");
    alice.hear("before the restart");
    service.signal(Signal::SIGTERM);
    told(&mut alice, ByeReason::Shutdown, true);
    assert_eq!(wait_child(&mut service.launcher).code(), Some(0));
    service.restart();
    let mut again = RawClient::shake(service.port, &token);
    again.say_bytes(join_line(&token, 1, ",\"history\":1").as_bytes());
    again.hear("before the restart");
    wait_for_titles(
        &service,
        &["papayad: keeper", "papayad: listener", "papayad: recv alice", "papayad: send alice"],
    );
}
