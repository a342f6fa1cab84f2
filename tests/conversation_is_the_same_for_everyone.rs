//! Sixteen people talk at once, and half of them lose their connection or leave and come back all
//! the time: in the end everyone was shown the same, every line exactly once, each speaker's lines
//! in order; and the log file itself says so, too.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;
#[path = "common/texts.rs"]
mod texts;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use papayachat::room::record::Record;
use papayachat::token::Token;
use papayachat::wire::command::Start;
use people::{Person, hurried, read_token};
use proxy::{Proxy, Treatment};
use random::Random;
use service::{Message, Service, wait_child};

const STEADY: usize = 8;
const WANDERERS: usize = 8;
const LINES: usize = 2_000;
const ALL: usize = (STEADY + WANDERERS) * LINES;
/// Attempts to come back before it counts as impossible: the proxy may cut each of them.
const ATTEMPTS: usize = 100;

/// A program that is ended with the test, whatever becomes of it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody who uses the programs, as from a script: one that reads and one that sends.
struct Steady {
    tail: Program,
    send: Program,
    shown: PathBuf,
}

impl Steady {
    fn start(service: &Service, name: &str, lines: &[String]) -> Self {
        let token = service.token(name, &[]);
        let said = service.dir.path().join(format!("{name}.said"));
        let shown = service.dir.path().join(format!("{name}.shown"));
        fs::write(&said, lines.join("\n") + "\n").unwrap();
        let count = ALL.to_string();
        let all = ["--follow", "--json", "--from", "0", "--count", &count];
        let mut tail = service.papaya(&token, "tail", &all);
        let mut send = service.papaya(&token, "send", &[]);
        let tail = tail.stdout(File::create(&shown).unwrap()).stderr(Stdio::inherit());
        let send = send.stdin(File::open(&said).unwrap()).stderr(Stdio::inherit());
        let (tail, send) = (Program(tail.spawn().unwrap()), Program(send.spawn().unwrap()));
        Self { tail, send, shown }
    }

    /// What it was shown, once both programs have done what they were asked for.
    fn finish(mut self) -> Vec<Message> {
        assert!(wait_child(&mut self.send.0).success());
        assert!(wait_child(&mut self.tail.0).success());
        shown(&self.shown)
    }
}

fn shown(file: &Path) -> Vec<Message> {
    let text = fs::read_to_string(file).unwrap();
    let message = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let record = Record::parse(line.as_bytes()).unwrap();
        Message::of(value["offset"].as_u64().unwrap(), &record)
    };
    text.lines().filter_map(message).collect()
}

/// Somebody whose connection breaks, and who leaves in between; what it was shown.
fn wander(server: SocketAddr, token: &Token, lines: &[String], seed: u64) -> Vec<Message> {
    let mut random = Random::new(seed);
    let mut cuts = Random::new(seed + 1000);
    let proxy = Proxy::treating(server, move |_| {
        // Some end before the welcome.
        let short = cuts.below(8) == 0;
        Treatment::CutAfter(if short { cuts.below(2_000) } else { 20_000 + cuts.below(400_000) })
    });
    let mut person = join(&proxy, token, Start::From(papayachat::room::offset::Offset(0)));
    let mut left = 0;
    let mut rest = lines;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(200 + random.below(400)));
        person.say_all(now.iter().cloned());
        rest = later;
        // Leaves, and comes back as another client that goes on where this one has stopped.
        let (seen, position) = (person.seen, person.session.position());
        person.session.leave();
        person = join(&proxy, token, Start::From(position));
        person.seen = seen;
        left += 1;
    }
    while person.seen.len() < ALL {
        person.next();
    }
    assert!(left > 1 && proxy.connections() > 10, "it was here all the time");
    person.session.leave();
    person.seen
}

fn join(proxy: &Proxy, token: &Token, start: Start) -> Person {
    for _ in 0..ATTEMPTS {
        match Person::join_with(proxy.address, token, hurried(start)) {
            Ok(person) => return person,
            Err(failure) => assert!(failure.message.contains("connection"), "{failure}"),
        }
    }
    panic!("no way back in {ATTEMPTS} attempts")
}

#[test]
fn sixteen_talk_and_half_of_them_come_and_go() {
    // Whoever comes back may be faster than the server notices that he has left.
    let service = Service::start("[limits]\nrate = \"1000000/s\"\nburst = 10000\nsessions = 100\n");
    let address = service.address();
    let texts = texts::lines(ALL);
    let mut parts = texts.chunks(LINES);
    let mut expected: Vec<(String, &[String])> = Vec::new();
    let mut next = |name: String| {
        let lines = parts.next().unwrap();
        expected.push((name.clone(), lines));
        (name, lines)
    };
    let steady: Vec<(String, &[String])> =
        (0..STEADY).map(|n| next(format!("steady{n}"))).collect();
    let wanderers: Vec<(Token, &[String])> = (0..WANDERERS)
        .map(|n| next(format!("wanderer{n}")))
        .map(|(name, lines)| (read_token(&service.token(&name, &[])), lines))
        .collect();

    let all_shown: Vec<Vec<Message>> = thread::scope(|scope| {
        let threads: Vec<_> = wanderers
            .iter()
            .enumerate()
            .map(|(n, (token, lines))| scope.spawn(move || wander(address, token, lines, n as u64)))
            .collect();
        let steady: Vec<Steady> =
            steady.iter().map(|(name, lines)| Steady::start(&service, name, lines)).collect();
        let wandered = threads.into_iter().map(|thread| thread.join().unwrap());
        let mut shown: Vec<_> = wandered.collect();
        shown.extend(steady.into_iter().map(Steady::finish));
        shown
    });

    let log = service.messages();
    assert_eq!(log.len(), ALL);
    for (name, lines) in expected {
        let said = log.iter().filter(|m| m.from == name).map(|m| &m.text);
        assert!(said.eq(lines), "{name}: its lines are not there once and in order");
    }
    for (n, shown) in all_shown.iter().enumerate() {
        assert!(*shown == log, "client {n} was shown {} messages, not the log", shown.len());
    }
}
