//! Promise: a configuration or a state file that is wrong is named with its place and what to do,
//! the program ends with the documented exit code, and not a byte of what is there is changed.
//! A log with torn and foreign lines is no reason not to start: they stay, and are stepped over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/service.rs"]
mod service;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use papayachat::exit::Exit;
use papayachat::room::record::TORN_MARK;
use service::{PAPAYAD, Service, is_root, unseal, wait_child};

/// A room that has been made, with one token, and that is not running.
struct Room {
    dir: tempfile::TempDir,
}

impl Drop for Room {
    fn drop(&mut self) {
        unseal(self.dir.path());
    }
}

impl Room {
    fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let room = Self { dir };
        room.configure(&Service::config_text(room.dir.path(), "127.0.0.1:0", ""));
        let added = room.papayad(&["token", "add", "alice"]);
        assert!(added.status.success(), "{}", said(&added));
        room
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("papayad.toml")
    }

    fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    /// Puts these bytes into a file of the state directory, with its owner and mode.
    fn put(&self, name: &str, bytes: &[u8], mode: u32) {
        use std::os::unix::fs::MetadataExt;
        let path = self.state(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if is_root() {
            let owner = fs::metadata(self.dir.path().join("state")).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }

    /// A command that must end by itself.
    fn papayad(&self, arguments: &[&str]) -> Output {
        self.command(Path::new(PAPAYAD), arguments)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut child = Command::new(program)
            .args(arguments)
            .env("PAPAYAD_CONFIG", self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_child(&mut child);
        child.wait_with_output().unwrap()
    }

    /// Every file of the state directory, and what is in it.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.dir.path().join("state")).unwrap();
        entries.map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(p).unwrap())).collect()
    }

    /// The service does not start, says why and where, and changes nothing that was there.
    fn does_not_start(&self, exit: Exit, words: &[&str]) {
        self.does_not_start_by(Path::new(PAPAYAD), exit, words);
    }

    fn does_not_start_by(&self, program: &Path, exit: Exit, words: &[&str]) {
        let before = self.files();
        let run = self.command(program, &["run"]);
        let text = said(&run);
        assert_eq!(run.status.code(), Some(exit as i32), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
        for (path, content) in &before {
            assert_eq!(&fs::read(path).unwrap(), content, "{path:?} was changed");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_configuration_is_named_by_line_and_key() {
    let room = Room::make();
    let good = fs::read_to_string(room.config()).unwrap();
    let lines = good.lines().count() + 1;
    let at = |line: usize| format!("papayad.toml:{line}");
    let cases = [
        ("[limitz]\nclients = 1\n", at(lines), "limitz"),
        ("[room]\nnmae = \"x\"\n", at(lines + 1), "nmae"),
        ("[room]\nname = 7\n", at(lines + 1), "room.name"),
        ("[log]\ndurability = \"sometimes\"\n", at(lines + 1), "log.durability"),
        ("[room]\nname = \"unterminated\n", at(lines + 1), "papayad.toml"),
        ("\u{0}", at(lines), "papayad.toml"),
    ];
    for (more, place, key) in cases {
        room.configure(&format!("{good}{more}"));
        room.does_not_start(Exit::Config, &[&place, key]);
        // Every other command says the same, and touches nothing.
        let listed = room.papayad(&["token", "list"]);
        assert_eq!(listed.status.code(), Some(Exit::Config as i32), "{}", said(&listed));
    }
    // The last section is one that has no default that fits every test.
    let (above, _) = good.split_once("[sandbox]\n").unwrap();
    let place = at(above.lines().count() + 2);
    for (line, key) in [
        ("require = \"none\"", "sandbox.require"),
        ("ceiling = \"none\"", "sandbox.ceiling"),
        // Below what is required by default.
        ("ceiling = \"landlock-6\"", "sandbox.ceiling"),
    ] {
        room.configure(&format!("{above}[sandbox]\n{line}\n"));
        room.does_not_start(Exit::Config, &[&place, key]);
    }
    // All mistakes at once, not the first only.
    room.configure(&format!("{good}[room]\nnmae = \"x\"\n[log]\ndurability = \"no\"\n"));
    room.does_not_start(Exit::Config, &["nmae", "log.durability"]);
    fs::write(room.config(), [0xff, 0xfe, b'\n']).unwrap();
    room.does_not_start(Exit::Config, &["papayad.toml"]);
    fs::remove_file(room.config()).unwrap();
    room.does_not_start(Exit::Config, &["papayad.toml"]);
}

#[test]
fn a_damaged_host_key_is_never_replaced() {
    let room = Room::make();
    let good = fs::read(room.state("host.key")).unwrap();
    let longer = [&good[..], b"\n"].concat();
    let no_digit = String::from_utf8(good.clone()).unwrap().replace(' ', " g").into_bytes();
    for bad in [&b""[..], b"\n", b"hello\n", &good[..20], &good[1..], &longer, &no_digit] {
        room.put("host.key", bad, 0o400);
        room.does_not_start(Exit::CannotCreate, &["host.key", "backup"]);
        let add = room.papayad(&["token", "add", "bob"]);
        assert_eq!(add.status.code(), Some(Exit::BadData as i32), "{}", said(&add));
        assert_eq!(fs::read(room.state("host.key")).unwrap(), bad);
    }
    // Readable by others, it is no secret any more: that is said, not mended in silence.
    room.put("host.key", &good, 0o444);
    room.does_not_start(Exit::CannotCreate, &["host.key", "chmod"]);
    // In order again, the same tokens work.
    room.put("host.key", &good, 0o400);
    assert!(room.papayad(&["token", "add", "bob"]).status.success());
}

#[test]
fn damaged_tokens_are_named_by_line_and_stay_as_they_are() {
    let room = Room::make();
    let good = fs::read_to_string(room.state("tokens")).unwrap();
    let cut = &good[..good.len() / 2];
    let no_hash = good.replace("argon2id", "argon2d");
    let twice = format!("{good}{good}");
    let foreign = format!("{good}alice:hunter2\n");
    let extra = good.replacen('{', "{\"admin\":true,", 1);
    let role = good.replace("member", "emperor");
    let cases = [
        (cut, 1),
        (&no_hash[..], 1),
        (&twice, 2),
        (&foreign, 2),
        (&extra, 1),
        (&role, 1),
        ("\u{0}\n", 1),
    ];
    for (bad, line) in cases {
        room.put("tokens", bad.as_bytes(), 0o600);
        let place = format!("tokens:{line}");
        room.does_not_start(Exit::CannotCreate, &[&place]);
        for command in
            [&["token", "list"][..], &["token", "add", "bob"], &["token", "revoke", "alice"]]
        {
            let output = room.papayad(command);
            assert_eq!(output.status.code(), Some(Exit::BadData as i32), "{command:?} {bad:?}");
            assert!(said(&output).contains(&place), "{}", said(&output));
        }
        assert_eq!(fs::read_to_string(room.state("tokens")).unwrap(), bad);
    }
    room.put("tokens", good.as_bytes(), 0o644);
    room.does_not_start(Exit::CannotCreate, &["tokens", "chmod"]);
}

#[test]
fn a_running_service_keeps_its_tokens_when_the_file_is_damaged() {
    let mut service = Service::start("");
    let alice = service.token("alice", &[]);
    service.wait_for_line("1 can join");
    let path = service.dir.path().join("state/tokens");
    let good = fs::read(&path).unwrap();
    // In place, so that owner and mode stay.
    fs::write(&path, b"damage\n").unwrap();
    service.signal(nix::sys::signal::Signal::SIGHUP);
    let line = service.wait_for_line("the tokens stay as they were");
    assert!(line.contains("tokens:1"), "{line}");
    let sent = service.papaya(&alice, "send", &["still", "good"]).output().unwrap();
    assert!(sent.status.success(), "{}", said(&sent));
    assert_eq!(fs::read(&path).unwrap(), b"damage\n");
    fs::write(&path, good).unwrap();
    service.signal(nix::sys::signal::Signal::SIGHUP);
    service.wait_for_line("1 can join");
}

#[test]
fn a_running_service_keeps_its_configuration_when_the_new_one_is_wrong() {
    let mut service = Service::start("");
    let alice = service.token("alice", &[]);
    let good = fs::read_to_string(&service.config).unwrap();
    fs::write(&service.config, format!("{good}[limitz]\n")).unwrap();
    service.signal(nix::sys::signal::Signal::SIGHUP);
    let line = service.wait_for_line("the configuration stays as it was");
    assert!(line.contains("limitz"), "{line}");
    fs::write(&service.config, good).unwrap();
    let sent = service.papaya(&alice, "send", &["still", "here"]).output().unwrap();
    assert!(sent.status.success(), "{}", said(&sent));
}

#[test]
fn torn_and_foreign_lines_in_the_log_stay_and_are_stepped_over() {
    let mut service = Service::start("");
    let alice = service.token("alice", &[]);
    let sent = service.papaya(&alice, "send", &["before"]).output().unwrap();
    assert!(sent.status.success(), "{}", said(&sent));
    assert_eq!(service.stop().code(), Some(0));
    let path = service.dir.path().join("state/room.log");
    let foreign: &[&[u8]] = &[
        b"not json\n",
        b"{\"ts\":\"yesterday\",\"from\":\"x\",\"text\":\"bad time\"}\n",
        b"\xff\xfe\x00\x1b[2J\n",
        b"\n",
        &[b'x'; 200_000],
        b"\n{\"ts\":\"2026-11-22T22:23:01.123Z\",\"id\":\"t\",\"from\":\"mallory\",\"text\":\"to",
    ];
    let damaged = [&fs::read(&path).unwrap()[..], &foreign.concat()].concat();
    unseal(service.dir.path());
    fs::write(&path, &damaged).unwrap();
    service.restart();
    let sent = service.papaya(&alice, "send", &["after"]).output().unwrap();
    assert!(sent.status.success(), "{}", said(&sent));
    let log = fs::read(&path).unwrap();
    assert!(log.starts_with(&damaged), "what was there was changed");
    // Whoever wrote first after the torn record has ended it.
    assert!(log[damaged.len()..].starts_with(TORN_MARK));
    let heard = service.papaya(&alice, "tail", &["--json", "--from", "0"]).output().unwrap();
    assert!(heard.status.success(), "{}", said(&heard));
    let heard = String::from_utf8(heard.stdout).unwrap();
    let texts: Vec<String> = heard
        .lines()
        .filter_map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["text"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(texts, ["before", "after"]);
    let verify = service.admin(&["log", "verify"]);
    assert_eq!(verify.status.code(), Some(Exit::BadData as i32));
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let room = Room::make();
    let state = room.dir.path().join("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    room.does_not_start(Exit::Config, &["state", "chmod"]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o750)).unwrap();
    // Not through a link either, wherever it leads.
    let moved = room.dir.path().join("moved");
    fs::rename(&state, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &state).unwrap();
    room.does_not_start(Exit::CannotCreate, &["state"]);
    assert!(Path::new(&moved).join("host.key").exists());
}

#[test]
fn a_missing_or_another_versions_session_program_stops_the_start_and_is_found_by_check() {
    let room = Room::make();
    let programs = room.dir.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let (papayad, session) = (programs.join("papayad"), programs.join("papayad-session"));
    fs::copy(PAPAYAD, &papayad).unwrap();
    let is_told = |words: &[&str]| {
        room.does_not_start_by(&papayad, Exit::Unavailable, words);
        let check = room.command(&papayad, &["check"]);
        let text = String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(Exit::Config as i32), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    is_told(&["papayad-session", programs.to_str().unwrap(), "install the package again"]);
    fs::write(&session, "#!/bin/sh\necho papayad-session 0.0.9\n").unwrap();
    is_told(&[session.to_str().unwrap(), "cannot be executed"]);
    fs::set_permissions(&session, fs::Permissions::from_mode(0o755)).unwrap();
    is_told(&[session.to_str().unwrap(), "0.0.9", "one package"]);
    // With the right one all is as it was.
    fs::copy(Path::new(PAPAYAD).with_file_name("papayad-session"), &session).unwrap();
    let check = room.command(&papayad, &["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", said(&check));
}
