//! Promise: `papayad log prune` removes the oldest part of the log while people talk. Nobody is cut,
//! nothing else is lost or doubled, offsets stay what they were, the disk is free again; and a crash
//! at any step leaves a sound log.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, raise};
use papayachat::client::session::Happening;
use papayachat::config::Durability;
use papayachat::room::log::{Files, LogError, Reader, open_for_reading};
use papayachat::room::offset::Offset;
use papayachat::room::prune::{self, Keep, Moment, Pruner};
use papayachat::room::record::{Batch, Kind, MAX_LINE, Record};
use papayachat::room::verify;
use papayachat::sys::append_only;
use people::{Person, read_token};
use proxy::Proxy;
use serde_json::Value;
use service::{PAPAYAD, Service, is_root, unseal};

/// Set where this program runs as the one that is killed: the directory, and the step at which.
const VICTIM: &str = "PAPAYA_TEST_PRUNES";

fn main() -> ExitCode {
    if let Ok(job) = std::env::var(VICTIM) {
        victim(&job);
    }
    let root = is_root();
    let trials = vec![
        Trial::test("nobody who talks notices", passing(nobody_notices)),
        Trial::test("who was away goes on behind what was removed", passing(away)),
        Trial::test("who is far behind goes on behind what was removed", passing(far_behind)),
        Trial::test("whoever asks for what was removed begins at the floor", passing(readers)),
        Trial::test("a size and a time cut exactly, and offsets stay", passing(exact)),
        Trial::test("a crash at any step leaves a sound log", passing(crashes)),
        Trial::test("a hole of gigabytes costs nothing to pass", passing(gigabytes)),
        Trial::test("it is append-only before and after (needs root)", passing(sealed))
            .with_ignored_flag(!root),
        Trial::test(
            "a file system without holes is refused, unchanged (needs root)",
            passing(ramfs),
        )
        .with_ignored_flag(!root),
        Trial::test("the keeper's user cannot prune a sealed log (needs root)", passing(not_root))
            .with_ignored_flag(!root),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn passing(test: fn()) -> impl FnOnce() -> Result<(), Failed> {
    move || {
        test();
        Ok(())
    }
}

fn long(n: usize) -> String {
    format!("{n} {}", "x".repeat(1000))
}

fn log(service: &Service) -> PathBuf {
    service.state.join("room.log")
}

fn blocks(service: &Service) -> u64 {
    fs::metadata(log(service)).unwrap().blocks()
}

/// Prunes with `--json`; what was printed.
fn prune(service: &Service, arguments: &[&str]) -> Value {
    let text = service.admin_ok(&[&["log", "prune", "--json"][..], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

fn verified(service: &Service) -> Value {
    let text = service.admin_ok(&["log", "verify", "--json"]);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// The messages that `log export` prints, as (offset, text).
fn exported(service: &Service, more: &[&str]) -> Vec<(u64, String)> {
    let text = service.admin_ok(&[&["log", "export", "--json"][..], more].concat());
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["kind"] == Value::Null)
        .map(|line| (line["offset"].as_u64().unwrap(), line["text"].as_str().unwrap().to_owned()))
        .collect()
}

fn seen(person: &Person) -> Vec<(u64, String)> {
    person.seen.iter().map(|m| (m.offset, m.text.clone())).collect()
}

fn nobody_notices() {
    let mut service = Service::start("");
    let operator = |name| read_token(&service.token(name, &["--role", "operator"]));
    let (alice, bob) = (operator("alice"), operator("bob"));
    let address = service.address();
    let talk = move |token, name: &'static str| {
        std::thread::spawn(move || {
            let mut person = Person::join(address, &token);
            say_in_step(&mut person, name);
            person
        })
    };
    let talkers = [talk(alice, "alice"), talk(bob, "bob")];
    let mut prunings = 0;
    while talkers.iter().any(|talker| !talker.is_finished()) {
        let line = prune(&service, &["--keep", "300K"]);
        prunings += u64::from(line["to"].as_u64() > line["from"].as_u64());
    }
    let [mut alice, mut bob] = talkers.map(|talker| talker.join().unwrap());
    assert!(prunings > 0);
    let all = |person: &Person| person.seen.len() == 3000;
    for person in [&mut alice, &mut bob] {
        while !all(person) {
            person.next();
        }
        assert_eq!(person.returns, 0, "somebody was cut");
    }
    // Both were shown the same, at the same offsets, and everybody's own words in order.
    assert!(seen(&alice) == seen(&bob), "the transcripts differ");
    for name in ["alice", "bob"] {
        let said: Vec<String> = (0..1500).map(|n| format!("{name} {}", long(n))).collect();
        let heard = alice.seen.iter().filter(|m| m.from == name).map(|m| &m.text);
        assert!(heard.eq(said.iter()), "{name} was not heard as said");
    }
    let last = prune(&service, &["--keep", "300K"]);
    let line = verified(&service);
    assert_eq!((&line["sound"], &line["pruned"]), (&true.into(), &last["to"]));
    assert!(line["prunings"].as_u64() > Some(0), "{line}");
    // What is left is what was there, at the same places.
    let left = exported(&service, &[]);
    let floor = line["pruned"].as_u64().unwrap();
    let kept: Vec<(u64, String)> =
        seen(&alice).into_iter().filter(|(offset, _)| *offset >= floor).collect();
    assert!(left == kept, "what is left is not what was there");
    assert!(left.len() > 200, "{}", left.len());
    // 3 MB were written, and about 300 KiB of them are on the disk.
    assert!(blocks(&service) * 512 < 600 << 10, "{} blocks", blocks(&service));
    // The last of these lines may still be on its way.
    for _ in 0..prunings {
        service.wait_for_line("removed everything before");
    }
    service.stop();
    // The keeper heard of each when the next was done already, or not.
    let wrong = service.log_so_far().iter().find(|line| line.contains("keeper: the log"));
    assert_eq!(wrong, None, "the keeper takes a later pruning for none");
}

/// Says 1,500 lines, and is never more than twenty before what it has seen of the other. So
/// nobody is further behind the end than two outboxes and forty lines, which is less than what
/// is kept, however slowly one of the processes is served: nobody can miss anything.
fn say_in_step(person: &mut Person, name: &str) {
    let (mut said, mut heard, mut looked) = (0, 0, 0);
    while said < 1500 || !person.session.unacknowledged().is_empty() {
        while said < 1500.min(heard + 20) && person.session.has_room() {
            person.say(&format!("{name} {}", long(said)));
            said += 1;
        }
        person.next();
        heard += person.seen[looked..].iter().filter(|m| m.from != name).count();
        looked = person.seen.len();
    }
    person.drain();
}

fn away() {
    let service = Service::start("");
    let alice = read_token(&service.token("alice", &[]));
    let mut bob = Person::join(
        service.address(),
        &read_token(&service.token("bob", &["--role", "operator"])),
    );
    let proxy = Proxy::start(service.address());
    let address = proxy.address.to_string().parse().unwrap();
    let mut alice = Person::join(address, &alice);
    alice.say_all(["before".to_owned()]);
    proxy.freeze();
    proxy.cut_all();
    bob.say_all((0..300).map(long));
    let line = prune(&service, &["--keep", "20K"]);
    let floor = line["to"].as_u64().unwrap();
    proxy.thaw();
    proxy.cut_all();
    let mut holes = Vec::new();
    alice.until(|_, h| {
        if let Happening::Pruned { from, to } = h {
            holes.push((from.0, to.0));
        }
        matches!(h, Happening::CaughtUp) && !holes.is_empty()
    });
    alice.say_all(["after".to_owned()]);
    bob.until(|bob, _| bob.seen.last().is_some_and(|m| m.text == "after"));
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert_eq!(holes[0].1, floor);
    // What it had seen stays seen; what was not removed came once and in order.
    let expected: Vec<(u64, String)> = seen(&bob)
        .into_iter()
        .filter(|(offset, text)| *offset >= floor || text == "before")
        .collect();
    assert!(seen(&alice) == expected, "{:?}", alice.seen.len());
}

/// Puts so many messages of bob's into the log of a service that does not run.
fn fill(service: &mut Service, count: usize) {
    assert!(service.stop().success());
    unseal(service.dir.path());
    let dir = File::open(&service.state).unwrap();
    write(&dir, count);
    service.restart();
}

fn write(dir: &File, count: usize) {
    let files = Files::open(dir.as_fd()).unwrap();
    let mut appender = files.appender().unwrap();
    let mut batch = Batch::with_capacity(MAX_LINE);
    for n in 0..count {
        let second = jiff::Timestamp::from_second(n as i64).unwrap();
        batch.push(Some("i"), &"bob".parse().unwrap(), Kind::Message, Some(&long(n))).unwrap();
        appender.append(&mut batch, || second, Durability::Never).unwrap();
        batch.clear();
    }
}

fn far_behind() {
    const COUNT: usize = 40_000;
    let mut service = Service::start("[log]\npresence = false");
    let alice = read_token(&service.token("alice", &[]));
    fill(&mut service, COUNT);
    // It joins at the beginning of 40 MB, and does not read.
    let mut alice = Person::join(service.address(), &alice);
    let line = prune(&service, &["--keep", "1M"]);
    let floor = line["to"].as_u64().unwrap();
    let mut holes = Vec::new();
    alice.until(|_, h| {
        if let Happening::Pruned { from, to } = h {
            holes.push((from.0, to.0));
        }
        matches!(h, Happening::CaughtUp)
    });
    assert_eq!(holes.iter().map(|hole| hole.1).collect::<Vec<_>>(), [floor], "{holes:?}");
    let numbers: Vec<usize> =
        alice.seen.iter().map(|m| m.text.split(' ').next().unwrap().parse().unwrap()).collect();
    let behind = alice.seen.iter().position(|m| m.offset >= floor).unwrap();
    let first = numbers[behind];
    assert!(numbers[..behind].iter().copied().eq(0..behind), "what came first is in order");
    assert!(numbers[behind..].iter().copied().eq(first..COUNT), "what stayed is whole");
    assert_eq!(alice.returns, 0);
    assert!(behind < first, "it had read everything already: this tested nothing");
}

fn readers() {
    let mut service = Service::start("[log]\npresence = false");
    let token = service.token("alice", &[]);
    fill(&mut service, 500);
    let floor = prune(&service, &["--keep", "50K"])["to"].as_u64().unwrap();
    let left = exported(&service, &[]);
    assert!((40..50).contains(&left.len()), "{}", left.len());
    let read = |service: &Service, command, more: &[&str]| {
        let more = [more, &["--json"]].concat();
        let output = service.papaya(&token, command, &more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let offsets: Vec<u64> = lines
            .filter(|line| line["kind"] == Value::Null)
            .map(|line| line["offset"].as_u64().unwrap())
            .collect();
        (offsets, String::from_utf8(output.stderr).unwrap())
    };
    let expected: Vec<u64> = left.iter().map(|(offset, _)| *offset).collect();
    // The same before and after a restart, which finds the floor by itself.
    for restart in [false, true] {
        if restart {
            assert!(service.stop().success());
            service.restart();
        }
        for from in ["0", "1", "1077"] {
            let (offsets, said) = read(&service, "tail", &["--from", from]);
            assert_eq!(offsets, expected);
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains(&format!("to {floor} was removed")), "{said}");
        }
        let at = floor.to_string();
        assert_eq!(read(&service, "tail", &["--from", &at]), (expected.clone(), String::new()));
        assert_eq!(
            read(&service, "tail", &["--history", "9999"]),
            (expected.clone(), String::new())
        );
        let since = ["--since", "1970-01-01T00:00:01Z"];
        assert_eq!(read(&service, "history", &since), (expected.clone(), String::new()));
        assert!(exported(&service, &since) == left);
        assert!(exported(&service, &["--from", "7"]) == left);
    }
    // An age, as `papaya history` takes it: all of these messages are old.
    assert!(exported(&service, &["--since", "1h"]).is_empty());
    assert!(exported(&service, &["--since", "30000d"]) == left);
}

fn exact() {
    let mut service = Service::start("[log]\npresence = false");
    fill(&mut service, 100);
    let all = exported(&service, &[]);
    let at = |n: usize| all[n].0;
    let to_keep = |from: u64| service.room_log().len() as u64 - from;
    for (before, first) in
        [(Some("1970-01-01T00:00:10Z"), 10), (Some("1970-01-01T00:00:10.001Z"), 11), (None, 20)]
    {
        let line = match before {
            Some(time) => prune(&service, &["--before", time]),
            None => prune(&service, &["--keep", &to_keep(at(first)).to_string()]),
        };
        assert_eq!(line["to"], at(first), "{first}");
        let left = exported(&service, &[]);
        assert!(left == all[first..]);
        // Each of them stands where it stood.
        let bytes = service.room_log();
        assert!(left.iter().all(|(offset, text)| {
            let line = bytes[*offset as usize..].split(|b| *b == b'\n').next().unwrap();
            Record::parse(line).unwrap().text.as_deref() == Some(text)
        }));
    }
    // Nothing of what was removed is left, and nothing more is recorded where nothing was done.
    let bytes = service.room_log();
    assert!(bytes[..at(20) as usize - 1].iter().all(|b| *b == 0), "something is left");
    let before = bytes.len();
    let line = prune(&service, &["--before", "1970-01-01T00:00:05Z"]);
    assert_eq!((&line["to"], &line["freed_bytes"]), (&at(20).into(), &0.into()));
    assert_eq!(service.room_log().len(), before);
    let records: Vec<Record> = bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| Record::parse(line).ok())
        .filter(|record| record.kind == Kind::Pruned)
        .collect();
    let texts: Vec<&str> = records.iter().map(|r| r.text.as_deref().unwrap()).collect();
    let expected = [10, 11, 20].map(|n| format!("everything before offset {}", at(n)));
    assert_eq!(texts, expected);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    assert!(records.iter().all(|r| r.from == user.name));
    for wrong in [
        &["--keep", "some"][..],
        &["--before", "tomorrow"],
        &[],
        &["--keep", "1", "--before", "1d"],
    ] {
        let output = service.admin(&[&["log", "prune"][..], wrong].concat());
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}

/// In a process of its own: prunes in small steps, and is killed at the one it was told.
fn victim(job: &str) -> ! {
    let (at, dir) = job.split_once(' ').unwrap();
    let mut left: usize = at.parse().unwrap();
    let mut watch = |_: Moment| {
        if left == 0 {
            let _ = raise(Signal::SIGKILL);
        }
        left -= 1;
    };
    prune_in_steps(Path::new(dir), &mut watch);
    std::process::exit(0)
}

fn prune_in_steps(dir: &Path, watch: &mut dyn FnMut(Moment)) -> Offset {
    let dir = File::open(dir).unwrap();
    let reader = Reader::new(open_for_reading(dir.as_fd()).unwrap(), Offset(0));
    let reader = reader.find_floor().unwrap();
    let to = prune::cut(&reader, Keep::Bytes(30_000)).unwrap();
    let pruner = Pruner::open(dir.as_fd()).unwrap().with_step(30_000);
    let opening = &mut |job: &mut dyn FnMut() -> Result<(), LogError>| job();
    pruner.prune(&reader, to, &"root".parse().unwrap(), opening, watch).unwrap();
    to
}

/// The texts of the messages from the floor on; every line must be a record.
fn texts(dir: &Path) -> Vec<String> {
    let dir = File::open(dir).unwrap();
    let reader = Reader::new(open_for_reading(dir.as_fd()).unwrap(), Offset(0));
    let reader = reader.find_floor().unwrap();
    let report = verify::walk(&reader, |finding| {
        let backwards = matches!(finding.what, verify::Problem::Backwards { .. });
        assert!(backwards, "{finding:?}");
        Ok::<(), LogError>(())
    });
    assert!(report.unwrap().is_sound());
    let mut bytes = vec![0; reader.size().unwrap().0 as usize];
    reader.read_at(&mut bytes, Offset(0)).unwrap();
    let bytes = &bytes[reader.floor().0 as usize..];
    let records = bytes.split(|b| *b == b'\n').filter_map(|line| Record::parse(line).ok());
    records.filter(Record::is_message).filter_map(|record| record.text).collect()
}

fn crashes() {
    let all: Vec<String> = (0..200).map(long).collect();
    let mut killed = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        write(&File::open(dir.path()).unwrap(), all.len());
        let before = fs::metadata(dir.path().join("room.log")).unwrap().len();
        let status = Command::new(std::env::current_exe().unwrap())
            .env(VICTIM, format!("{killed} {}", dir.path().display()))
            .status()
            .unwrap();
        let left = texts(dir.path());
        assert!(all.ends_with(&left), "killed at {killed}: {} are left", left.len());
        // The next one finishes it, and the room goes on.
        let floor = prune_in_steps(dir.path(), &mut |_| {});
        assert!(texts(dir.path()).len() <= 30, "killed at {killed}");
        write(&File::open(dir.path()).unwrap(), 1);
        assert_eq!(texts(dir.path()).last(), Some(&long(0)));
        let bytes = fs::read(dir.path().join("room.log")).unwrap();
        assert!(bytes.len() as u64 > before && bytes[floor.0 as usize - 1] == b'\n');
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
        killed += 1;
    }
    assert!(killed > 20, "only {killed} places to be killed at");
}

fn gigabytes() {
    let mut service = Service::start("[log]\npresence = false");
    let token = service.token("alice", &[]);
    assert!(service.stop().success());
    unseal(service.dir.path());
    // A log of which a terabyte was removed: reading that would take minutes.
    let floor = 1 << 40;
    let file = File::options().write(true).open(log(&service)).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"\n", floor - 1).unwrap();
    drop(file);
    write(&File::open(&service.state).unwrap(), 10);
    service.restart();
    let output = service.papaya(&token, "tail", &["--from", "5", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((text.lines().count(), &first["offset"]), (10, &floor.into()));
    let output = service.papaya(&token, "history", &["--json"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    assert_eq!(exported(&service, &[]).len(), 10);
    let line = verified(&service);
    assert_eq!((&line["pruned"], &line["messages"]), (&floor.into(), &10.into()));
    let line = prune(&service, &["--keep", "3K"]);
    assert!(line["to"].as_u64() > Some(floor), "{line}");
    assert_eq!(exported(&service, &[]).len(), 2);
}

fn sealed() {
    let mut service = Service::start("");
    let token = service.token("alice", &["--role", "operator"]);
    let is_set = |service: &Service| append_only::is_set(&File::open(log(service)).unwrap());
    let say = |service: &Service| {
        let said = service.papaya(&token, "send", &[&long(0)[..1000]]).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    };
    (0..10).for_each(|_| say(&service));
    assert_eq!(is_set(&service), Ok(true), "this test needs a file system that has the flag");
    prune(&service, &["--keep", "3000"]);
    assert_eq!(is_set(&service), Ok(true));
    say(&service);
    // By itself too, and one that was opened up by hand stays so.
    assert!(service.stop().success());
    prune(&service, &["--keep", "1500"]);
    assert_eq!(is_set(&service), Ok(true));
    service.admin_ok(&["log", "unseal"]);
    prune(&service, &["--keep", "500"]);
    assert_eq!(is_set(&service), Ok(false));
    assert_eq!(verified(&service)["sound"], true);
    let owner = fs::metadata(log(&service)).unwrap().uid();
    assert_eq!(nix::unistd::User::from_uid(owner.into()).unwrap().unwrap().name, "daemon");
    // Somebody else's file under the log's name is not touched.
    let other = service.dir.path().join("other");
    let content = "a line of somebody else's\n".repeat(1000);
    fs::write(&other, &content).unwrap();
    fs::rename(log(&service), service.dir.path().join("kept")).unwrap();
    fs::hard_link(&other, log(&service)).unwrap();
    let refused = service.admin(&["log", "prune", "--keep", "10"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(fs::read_to_string(&other).unwrap(), content);
}

fn not_root() {
    // Without presence nobody else writes: the client's end would, at a moment of its own.
    let service = Service::start("[log]\npresence = false");
    let token = service.token("alice", &[]);
    assert!(service.papaya(&token, "send", &["hello"]).status().unwrap().success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "daemon", "--clear-groups", "--regid", "daemon", PAPAYAD]);
    command.args(["log", "prune", "--keep", "0"]).env("PAPAYAD_CONFIG", &service.config);
    let before = service.room_log();
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("run this as root"));
    assert_eq!(service.room_log(), before);
}

fn ramfs() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    // A mount name space of its own, which ends with the command.
    let script = format!(
        "mount --make-rprivate / && mount -t ramfs none {at} && mkdir -m 700 {at}/state && \
         cp {at}.log {at}/state/room.log && touch {at}/state/room.gate && \
         chown -R daemon {at}/state && {PAPAYAD} log prune --keep 10 --config {at}.toml; code=$?; \
         cmp {at}.log {at}/state/room.log && exit $code"
    );
    let source = tempfile::tempdir().unwrap();
    write(&File::open(source.path()).unwrap(), 20);
    let beside = |ending: &str| PathBuf::from(format!("{at}.{ending}"));
    fs::copy(source.path().join("room.log"), beside("log")).unwrap();
    let config = Service::config_text(dir.path(), "127.0.0.1:0", "");
    fs::write(beside("toml"), config).unwrap();
    let mounted = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    for ending in ["log", "toml"] {
        fs::remove_file(beside(ending)).unwrap();
    }
    let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert_eq!(mounted.status.code(), Some(69), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
}
