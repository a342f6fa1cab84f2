//! Promise: `papayad status` says of each client what is true, without any message costing more for
//! it: the numbers are the kernel's. Its three forms say the same, and Prometheus can read one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::collections::{HashMap, HashSet};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use processes::titled;
use raw_client::{RawClient, connect, read_to_end, read_token};
use serde_json::Value;
use service::{Service, is_root, level};

fn main() -> ExitCode {
    type Test = fn();
    let tests: [(&str, Test, bool); 8] = [
        ("numbers_are_those_of_the_conversation", numbers_are_true, true),
        ("every_message_is_counted_once_and_presence_is_not", every_message_is_counted, true),
        ("offset_lag_and_idle_time_are_told_to_root (needs root)", root_is_told_all, is_root()),
        ("a_reader_that_does_not_read_lags (needs root)", a_slow_reader_lags, is_root()),
        ("the_table_shows_each_client_and_no_control_character", the_table, true),
        ("whoever_is_turned_away_is_counted_by_the_limit", turned_away_is_counted, true),
        (
            "who_cannot_be_handed_on_is_told_and_counted_and_the_log_says_why (needs root)",
            no_room,
            is_root(),
        ),
        ("prometheus_can_read_it", prometheus_can_read_it, true),
    ];
    let trial = |(name, test, possible): (&str, Test, bool)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!possible)
    };
    let trials = tests.into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const FAST: &str = "[limits]\nrate = \"1000000/s\"\nburst = 10000\n";

struct Room {
    service: Service,
    alice: RawClient,
    bob: RawClient,
}

impl Room {
    fn open(more: &str) -> Self {
        let service = Service::start(more);
        let join = |name: &str| {
            let token = read_token(&service.token(name, &[]));
            RawClient::join(service.port, &token, 1).0
        };
        let (alice, bob) = (join("alice"), join("bob"));
        Self { service, alice, bob }
    }

    /// Until the launcher knows that both have joined, and of the one message: it may hear of each
    /// later than whoever is in the room.
    fn wait_for_counts(&self) {
        self.service.wait_for_status(|s, _| {
            s["counters"]["messages"] == 1 && s["counters"]["joins"] == 2 && s["clients"] == 2
        });
    }

    /// The client with this name.
    fn client(&self, name: &str) -> Value {
        let (_, clients) = self.service.status();
        clients.into_iter().find(|c| c["name"] == name).expect("the client is here")
    }
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no {key} in {object}"))
}

fn numbers_are_true() {
    let mut room = Room::open(FAST);
    let text = "x".repeat(4000);
    for n in 0..50 {
        room.alice.say(&n.to_string(), &format!("{n:03} {text}"));
    }
    room.bob.hear("049 x");
    room.alice.hear("049 x");
    // What alice said went in once, and out twice; the kernel counts it once it is acknowledged.
    let said = 50.0 * 4004.0;
    room.service.wait_for_status(|_, clients| {
        clients.iter().all(|client| number(client, "sent_bytes") > said)
    });
    let (alice, bob) = (room.client("alice"), room.client("bob"));
    for (client, name) in [(&alice, "alice"), (&bob, "bob")] {
        let recv = titled(&room.service, &format!("papayad: recv {name}"));
        let send = titled(&room.service, &format!("papayad: send {name}"));
        assert_eq!(client["pid"], recv.pid);
        assert_eq!(client["send_pid"], send.pid);
        // Their own memory at least, and not the whole program in each.
        let memory = client["memory_bytes"].as_f64();
        assert_eq!(memory.is_some(), is_root(), "{client}");
        assert!(memory.is_none_or(|bytes| bytes > 100_000.0), "{client}");
        assert!(number(client, "cpu_seconds") >= 0.0);
    }
    // Bob said next to nothing.
    assert!(number(&alice, "received_bytes") > said && number(&bob, "received_bytes") < 4004.0);
    let (service, _) = room.service.status();
    assert!(number(&service, "log_bytes") > said);
    let roles: Vec<&Value> =
        service["processes"].as_array().unwrap().iter().map(|p| &p["role"]).collect();
    assert_eq!(roles, ["launcher", "keeper", "listener"]);
    assert_eq!(service["processes"][0]["pid"], room.service.launcher.id());
    assert_eq!(service["socket_activated"], false);
}

fn every_message_is_counted() {
    let mut room = Room::open(FAST);
    let token = read_token(&room.service.token("carol", &[]));
    let mut sent = 0;
    // Singly, and many at once; and somebody comes and goes meanwhile.
    for burst in [1, 1, 7, 300, 1000] {
        let line =
            |n: usize| format!("{{\"cmd\":\"say\",\"id\":\"{n}\",\"text\":\"word {n:05}\"}}\n");
        let lines: String = (sent..sent + burst).map(line).collect();
        sent += burst;
        room.alice.say_bytes(lines.as_bytes());
        room.bob.hear(&format!("word {:05}", sent - 1));
        RawClient::join(room.service.port, &token, 1);
    }
    // The launcher hears of the last of them after they are here.
    room.service.wait_for_status(|s, _| {
        s["counters"]["messages"] == sent && s["counters"]["joins"] == 2 + 5
    });
    let stored = room.service.messages().len();
    assert_eq!(stored, sent);
}

fn turned_away_is_counted() {
    let counted = |service: &Service, reason: &str, count: u64| {
        let (status, _) =
            service.wait_for_status(|s, _| s["counters"]["refusals"][reason] == count);
        let of = |r: &str| status["counters"]["refusals"][r].as_u64();
        for other in ["full", "per_source", "startups", "penalised", "busy"] {
            let expected = if other == reason { count } else { 0 };
            assert_eq!(of(other), Some(expected), "{other}: {status}");
        }
        let text = service.admin_ok(&["status", "--prometheus"]);
        let line =
            format!("papayachat_refusals_total{{room=\"lobby\",reason=\"{reason}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    };
    let refused = |service: &Service| {
        assert_eq!(read_to_end(&mut connect(service.port)), [1], "it is told that it is busy");
    };
    for (reason, limits) in
        [("full", "clients = 1\nper_source = 1"), ("per_source", "per_source = 1")]
    {
        let service = Service::start(&format!("[limits]\n{limits}\n"));
        let token = read_token(&service.token("alice", &[]));
        let _alice = RawClient::join(service.port, &token, 1);
        service.wait_for_status(|s, _| s["clients"] == 1);
        for count in 1..=3 {
            refused(&service);
            counted(&service, reason, count);
        }
        // A new listener begins at nothing; the count does not.
        service.admin_ok(&["pause"]);
        service.wait_for_status(|s, _| s["door"] == "closed");
        service.admin_ok(&["resume"]);
        refused(&service);
        counted(&service, reason, 4);
        let table = service.admin_ok(&["status"]);
        let line = table.lines().find(|l| l.starts_with("turned away at the door: ")).unwrap();
        assert!(line.contains(" 4 ") && !line.contains(" 3 "), "{line}");
    }
    let service = Service::start("[limits]\nstartups = \"1:100:1\"\ngrace = \"600s\"\n");
    let _silent = connect(service.port);
    service.wait_for_status(|s, _| s["starting"] == 1);
    refused(&service);
    counted(&service, "startups", 1);
    let service = Service::start("[limits]\npenalties = true\n");
    let token = read_token(&service.token("alice", &[]));
    let _alice = RawClient::join(service.port, &token, 1);
    service.wait_for_status(|s, _| s["clients"] == 1);
    // Of all that is punished this is punished longest: it is not over before it was looked at.
    titled(&service, "papayad: recv alice").signal(Signal::SIGSYS);
    service.wait_for_status(|s, _| s["counters"]["penalties"] == 1);
    refused(&service);
    counted(&service, "penalised", 1);
}

fn no_room() {
    // With a user of its own, since the kernel counts all that a user has on its way between processes:
    // until the launcher goes on, no service of this user can hand a connection on.
    let mut service =
        Service::start("[identity]\nuser = \"mail\"\n[limits]\nstartups = \"2000:30:2000\"\n");
    service.signal(Signal::SIGSTOP);
    // So many that the channel to the launcher has no room for them, whatever the system allows.
    let mut clients: Vec<TcpStream> = Vec::new();
    let told = loop {
        assert!(clients.len() < 500, "the channel takes all of {}", clients.len());
        clients.extend((0..25).map(|_| connect(service.port)));
        let mut fds: Vec<_> =
            clients.iter().map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, 200_u16).unwrap();
        if let Some(told) = fds.iter().position(|fd| fd.any() == Some(true)) {
            break told;
        }
    };
    assert_eq!(read_to_end(&mut clients[told]), [1], "it is told that it is busy");
    service.signal(Signal::SIGCONT);
    service.wait_for_line(" is turned away, since the launcher takes no more at the moment");
    drop(clients);
    let (status, _) = service.wait_for_status(|s, _| s["starting"] == 0);
    assert!(status["counters"]["refusals"]["busy"].as_u64() >= Some(1), "{status}");
    let token = read_token(&service.token("alice", &[]));
    RawClient::join(service.port, &token, 1);
}

fn root_is_told_all() {
    let mut room = Room::open("");
    room.alice.say("1", "a word");
    room.bob.hear("a word");
    // Read each time: that bob came may be recorded only now.
    let (_, clients) = room.service.wait_for_status(|_, clients| {
        let size = room.service.room_log().len();
        clients.iter().all(|c| c["offset"] == size && c["lag_bytes"] == 0)
    });
    for client in clients {
        // One has just spoken, the other has just come. The kernel is asked for the one after the
        // service was asked for the other, so the age must be a later one.
        let later = room.client(client["name"].as_str().unwrap());
        assert!(number(&client, "idle_seconds") <= number(&later, "age_seconds") + 1.0);
    }
    // What she said stands far back now, and she is asked by its time all the same.
    for n in 0..20 {
        room.bob.say(&n.to_string(), &format!("another {n:02} {}", "y".repeat(500)));
    }
    room.alice.hear("another 19");
    let idle = number(&room.client("alice"), "idle_seconds");
    assert!(idle <= number(&room.client("alice"), "age_seconds") + 1.0);
}

fn a_slow_reader_lags() {
    let mut room = Room::open(FAST);
    let text = "z".repeat(4000);
    // More than any socket buffer: bob reads nothing of it.
    let mut said = 0;
    loop {
        for _ in 0..200 {
            said += 1;
            room.alice.say(&said.to_string(), &text);
        }
        room.alice.say("mark", &format!("mark {said}."));
        room.alice.hear(&format!("mark {said}."));
        if number(&room.client("bob"), "lag_bytes") > 1_000_000.0 {
            break;
        }
        assert!(said < 20_000, "he does not read, and has no lag: {}", room.client("bob"));
    }
    room.service.wait_for_status(|_, clients| {
        clients.iter().any(|c| c["name"] == "alice" && c["lag_bytes"] == 0)
    });
    // He reads, and has caught up.
    room.bob.hear(&format!("mark {said}."));
    room.service.wait_for_status(|_, clients| clients.iter().all(|c| c["lag_bytes"] == 0));
}

fn the_table() {
    let mut room = Room::open("[room]\nname = \"a \\\"room\\\"\"\n");
    room.alice.say("1", "a word");
    room.bob.hear("a word");
    room.wait_for_counts();
    let table = room.service.admin_ok(&["status"]);
    assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
    for name in ["alice", "bob"] {
        let line = table.lines().find(|l| l.contains(&format!(" {name} 127.0.0.1:"))).unwrap();
        let pid = room.client(name)["pid"].to_string();
        assert!(line.split_whitespace().any(|word| word == pid), "{line}");
    }
    assert!(table.contains("1 messages, 2 joins"), "{table}");
}

fn prometheus_can_read_it() {
    let name = r#"l\\ob\"by} 1"#;
    let mut room = Room::open(&format!("[room]\nname = \"{name}\"\n"));
    room.alice.say("1", "a word");
    room.bob.hear("a word");
    room.wait_for_counts();
    let text = room.service.admin_ok(&["status", "--prometheus"]);
    let series = exposition(&text);
    // Each has the room's label first; what stands here is without it.
    let value = |key: &str| {
        let room = r#"room="l\\ob\"by} 1""#;
        let key = match key.split_once('{') {
            Some((metric, labels)) => format!("{metric}{{{room},{labels}"),
            None => format!("{key}{{{room}}}"),
        };
        *series.get(&key).unwrap_or_else(|| panic!("no {key} in\n{text}"))
    };
    assert_eq!(value("papayachat_up"), 1.0);
    assert_eq!(value("papayachat_clients"), 2.0);
    assert_eq!(value("papayachat_messages_total"), 1.0);
    assert_eq!(value("papayachat_joins_total"), 2.0);
    assert_eq!(value("papayachat_door_open"), 1.0);
    assert_eq!(value(r#"papayachat_refusals_total{reason="bad_token"}"#), 0.0);
    assert_eq!(value(r#"papayachat_client_sessions{name="alice",role="member"}"#), 1.0);
    assert!(value(r#"papayachat_client_sent_bytes{name="bob",role="member"}"#) > 0.0);
    assert!(value(r#"papayachat_process_cpu_seconds_total{role="keeper"}"#) >= 0.0);
    assert_eq!(
        value(&format!("papayachat_info{{version=\"{VERSION}\",level=\"{}\"}}", level())),
        1.0
    );
    // A service that is not there is a number too, and an error.
    assert_eq!(room.service.stop().code(), Some(0));
    let output = room.service.admin(&["status", "--prometheus"]);
    assert_eq!(output.status.code(), Some(69));
    let series = exposition(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(series, HashMap::from([(r#"papayachat_up{room="l\\ob\"by} 1"}"#.to_owned(), 0.0)]));
}

/// Reads Prometheus' text format 0.0.4 as its documentation has it, and refuses what it refuses.
fn exposition(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let (mut series, mut families) = (HashMap::new(), HashSet::new());
    let mut current: Option<(String, String)> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').expect("a help text");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            let kind = lines.next().and_then(|l| l.strip_prefix("# TYPE ")).expect("its type");
            let (of, kind) = kind.split_once(' ').unwrap();
            assert!(of == name && ["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            current = Some((name.to_owned(), kind.to_owned()));
            assert!(lines.peek().is_some_and(|l| l.starts_with(name)), "{name} has no sample");
            continue;
        }
        let (name, kind) = current.as_ref().expect("a sample has a family");
        let (key, value) = line.rsplit_once(' ').unwrap();
        let labels = key.strip_prefix(name.as_str()).expect("the sample is of its family");
        assert!(name.starts_with("papayachat_") && is_name(name), "{line}");
        check_labels(labels);
        let value: f64 = value.parse().unwrap();
        assert!(kind != "counter" || value >= 0.0, "{line}");
        assert!(series.insert(key.to_owned(), value).is_none(), "{key} comes twice");
    }
    series
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// `{name="value",…}`, in whose values only backslash, quotes and line ends are escaped.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let mut rest = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).expect(labels);
    loop {
        let (name, value) = rest.split_once("=\"").expect(labels);
        assert!(is_name(name), "{labels}");
        let mut bytes = value.bytes().enumerate();
        let end = loop {
            match bytes.next().expect(labels) {
                (_, b'\\') => {
                    let (_, escaped) = bytes.next().expect(labels);
                    assert!([b'\\', b'"', b'n'].contains(&escaped), "{labels}");
                }
                (at, b'"') => break at,
                _ => {}
            }
        };
        match &value[end + 1..] {
            "" => return,
            more => rest = more.strip_prefix(',').expect(labels),
        }
    }
}
