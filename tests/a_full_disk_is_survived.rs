//! A full disk loses nothing: the client keeps what was not stored and tries again, and when there
//! is space everything arrives exactly once. Needs root, for a small file system of its own.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/service.rs"]
mod service;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use papayachat::client::session::Happening;
use people::{Person, read_token};
use service::{Service, is_root, wait_child};

const MESSAGES: usize = 300;

fn main() -> ExitCode {
    let trial = Trial::test("everything_arrives_once_when_there_is_space_again", || {
        everything_arrives_once_when_there_is_space_again();
        Ok(())
    });
    let trial = trial.with_ignored_flag(!can_mount());
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// A small file system, gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=400k,mode=755", "papayachat-test"]).arg(place);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(place.to_owned()))
    }

    /// Leaves not a byte free.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        while ballast.write(&[0; 512]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: descriptors may still be open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    is_root() && Disk::mount(dir.path()).is_some()
}

fn everything_arrives_once_when_there_is_space_again() {
    let mut disk = None;
    let limits = "[limits]\nrate = \"1000000/s\"\nburst = 10000\n";
    let mut service = Service::start_in("disk/state", limits, |dir| {
        disk = Disk::mount(&dir.join("disk"));
    });
    let disk = disk.unwrap();
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let mut alice = Person::join(service.address(), &read_token(&alice));
    alice.say_all((0..20).map(text));
    disk.fill();

    let mut send = service.papaya(&bob, "send", &[]);
    let mut send = send.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = send.stdin.take().unwrap();
    (0..50).for_each(|n| writeln!(lines, "{}", text(n)).unwrap());
    drop(lines);

    let mut next = 20;
    let mut stalls = 0;
    while stalls < 3 {
        while alice.session.has_room() && next < MESSAGES {
            alice.say(&text(next));
            next += 1;
        }
        stalls += usize::from(matches!(alice.next(), Happening::Stalled { .. }));
    }
    assert!(!alice.session.unacknowledged().is_empty(), "the client keeps what was not stored");
    service.wait_for_line("the log takes no messages");
    disk.free();
    alice.say_all((next..MESSAGES).map(text));
    assert!(wait_child(&mut send).success());
    while alice.seen.len() < MESSAGES + 50 {
        alice.next();
    }

    let log = service.messages_among_torn();
    assert_eq!(alice.seen, log);
    for (name, count) in [("alice", MESSAGES), ("bob", 50)] {
        let mut texts: Vec<&str> =
            log.iter().filter(|m| m.from == name).map(|m| m.text.as_str()).collect();
        texts.sort_unstable();
        assert!(
            texts.iter().map(|t| (*t).to_owned()).eq((0..count).map(text)),
            "{name}: {texts:?}"
        );
    }
    // Before the service's directory, which could not be removed with it.
    drop(disk);
}

/// Some hundred bytes, in alphabetical order.
fn text(n: usize) -> String {
    format!("{n:04} {}", "x".repeat(n * 7 % 700))
}
