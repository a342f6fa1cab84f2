//! The program `papaya` as scripts see it: what it prints, and its exit codes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::fake_server::{FakeServer, Mood, record};
use papayachat::wire::event::{ByeReason, Refusal, Rejection};

struct Desk {
    home: tempfile::TempDir,
    server: FakeServer,
}

impl Desk {
    fn new(mood: Mood) -> Self {
        let desk = Self { home: tempfile::tempdir().unwrap(), server: FakeServer::start_in(mood) };
        fs::write(desk.token_file(), desk.server.token.encode().as_bytes()).unwrap();
        fs::set_permissions(desk.token_file(), fs::Permissions::from_mode(0o600)).unwrap();
        desk
    }

    fn token_file(&self) -> PathBuf {
        self.home.path().join("token")
    }

    /// Runs `papaya COMMAND --server … --token-file … ARGUMENTS`.
    fn with_server(&self, command: &str, arguments: &[&str], stdin: &str) -> Output {
        let address = self.server.address.to_string();
        let file = self.token_file().display().to_string();
        let access = [command, "--server", &address, "--token-file", &file];
        self.run(&[&access[..], arguments].concat(), stdin)
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_papaya"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that ends early does not read everything.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        child.wait_with_output().unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn send_joins_its_words_and_ends_with_0_once_they_are_stored() {
    let desk = Desk::new(Mood::Kind);
    let sent = desk.with_server("send", &["hello", "there"], "");
    assert_eq!((code(&sent), err(&sent)), (0, String::new()));
    assert_eq!(desk.server.texts(), ["hello there"]);
}

#[test]
fn send_streams_far_more_lines_than_fit_into_the_window_over_a_bad_line() {
    let desk = Desk::new(Mood::Cuts(60_000));
    let lines: Vec<String> =
        (0..3000).map(|n| format!("line {n} {}", "ä".repeat(n % 90))).collect();
    let sent = desk.with_server("send", &[], &(lines.join("\n\n") + "\r\n"));
    assert_eq!(code(&sent), 0, "{}", err(&sent));
    assert_eq!(desk.server.texts(), lines);
    assert!(desk.server.connections() > 1);
}

#[test]
fn send_names_each_line_that_the_room_cannot_take() {
    let desk = Desk::new(Mood::Kind);
    let lines = format!("good\n{}\nb\0d\nlast", "x".repeat(5000));
    let sent = desk.with_server("send", &[], &lines);
    assert_eq!(code(&sent), 65);
    assert!(err(&sent).contains("line 2 was not sent: it has more than 4096 bytes"));
    assert!(err(&sent).contains("line 3 was not sent: a message cannot contain the NUL"));
    assert_eq!(desk.server.texts(), ["good", "last"]);
    let desk = Desk::new(Mood::Rejects(Rejection::Role));
    let sent = desk.with_server("send", &["let", "me"], "");
    assert_eq!(code(&sent), 65);
    assert!(err(&sent).contains("\"let me\" was not sent: not now"), "{}", err(&sent));
}

#[test]
fn send_says_which_messages_were_not_acknowledged() {
    let desk = Desk::new(Mood::Deaf);
    let sent = desk.with_server("send", &["--timeout", "0", "is anybody there?"], "");
    assert_eq!(code(&sent), 69);
    assert!(err(&sent).contains("1 messages were not acknowledged"), "{}", err(&sent));
    assert!(err(&sent).contains("is anybody there?"));
}

#[test]
fn tail_prints_what_is_there_and_follow_waits_for_more() {
    let desk = Desk::new(Mood::Kind);
    for n in 0..20 {
        desk.server.say("bob", &format!("old {n}"));
    }
    desk.server.append(record("eve", None, Some("join"), None).as_bytes());
    let tail = desk.with_server("tail", &[], "");
    assert_eq!(code(&tail), 0);
    assert_eq!(out(&tail).matches("bob: old").count(), 10);
    assert!(out(&tail).starts_with("-- Sunday, 22 November 2026\n22:23 bob: old 10\n"));
    assert!(out(&tail).ends_with("22:23 -- eve joined\n"));
    // What ends it is sent by other clients while it waits, or before it came.
    let from = desk.server.log().len().to_string();
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| desk.with_server("tail", &["--from", &from, "--count", "2"], ""));
        for text in ["new 1", "new 2"] {
            assert_eq!(code(&desk.with_server("send", &[text], "")), 0);
        }
        let tail = tail.join().unwrap();
        assert_eq!(code(&tail), 0);
        assert!(out(&tail).ends_with("alice: new 1\n22:23 alice: new 2\n"), "{}", out(&tail));
    });
}

#[test]
fn json_is_the_record_with_its_offset_and_harmless() {
    let desk = Desk::new(Mood::Kind);
    desk.server.say("bob", "one");
    let second = desk.server.log().len();
    desk.server.say("bob", "a\u{202e}b\u{1b}");
    let history = desk.with_server("history", &["--json"], "");
    let lines: Vec<String> = out(&history).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    let value: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(value["offset"], second);
    assert_eq!(value["text"], "a\u{202e}b\u{1b}");
    assert!(!lines[1].contains('\u{202e}'));
    let from = desk.with_server("tail", &["--json", "--from", &second.to_string()], "");
    assert_eq!(out(&from).trim_end(), lines[1]);
    let wrong = desk.with_server("tail", &["--from", "3"], "");
    assert_eq!(code(&wrong), 65);
}

#[test]
fn join_without_a_terminal_reads_and_writes_plain_lines() {
    let desk = Desk::new(Mood::Kind);
    desk.server.say("bob", "earlier\n22:24 bob: forged\u{1b}[2J");
    let joined = desk.with_server("join", &[], "hi\n/help\n//slash\n/nonsense\nbye\n");
    assert_eq!(code(&joined), 0, "{}", err(&joined));
    let shown = out(&joined);
    assert!(shown.starts_with("-- connected to lobby as alice (member)"), "{shown}");
    assert!(shown.contains("22:23 bob: earlier\n      22:24 bob: forged^[[2J\n"), "{shown}");
    assert!(shown.contains("22:23 alice: /slash\n22:23 alice: bye\n"), "{shown}");
    assert!(shown.contains("-- there is no command /nonsense"), "{shown}");
    assert_eq!(desk.server.texts()[1..], ["hi", "/slash", "bye"]);
}

#[test]
fn each_failure_has_its_code() {
    for (mood, expected) in [
        (Mood::Refuses(Refusal::Unknown), 77),
        (Mood::Refuses(Refusal::Revoked), 77),
        (Mood::Refuses(Refusal::Expired), 77),
        (Mood::Dismisses(ByeReason::Kicked, false), 77),
        (Mood::Greets(vec![3]), 77),
        (Mood::Greets(vec![1]), 69),
        (Mood::Says(b"Cx".to_vec()), 70),
    ] {
        let desk = Desk::new(mood.clone());
        let output = desk.with_server("tail", &["--follow"], "");
        assert_eq!(code(&output), expected, "{mood:?}: {}", err(&output));
        assert!(err(&output).starts_with("papaya: "), "{}", err(&output));
    }
    let desk = Desk::new(Mood::Kind);
    let damaged = desk.server.token.encode().replace('q', "p");
    fs::write(desk.token_file(), damaged).unwrap();
    let output = desk.with_server("tail", &[], "");
    assert_eq!(code(&output), 65);
    assert!(err(&output).contains("damaged"));
    fs::remove_file(desk.token_file()).unwrap();
    assert_eq!(code(&desk.with_server("tail", &[], "")), 69);
    for wrong in [&["tail", "--server", "a b"][..], &["frobnicate"], &[], &["tail"], &["tail", "x"]]
    {
        assert_eq!(code(&desk.run(wrong, "")), 64, "{wrong:?}");
    }
    assert_eq!(code(&desk.run(&["--help"], "")), 0);
}

#[test]
fn a_token_in_the_arguments_is_refused_and_not_repeated() {
    let desk = Desk::new(Mood::Kind);
    let token = desk.server.token.encode();
    let output = desk.run(&["send", &token, "hi"], "");
    assert_eq!(code(&output), 64);
    assert!(err(&output).contains("does not belong on the command line"));
    assert!(!err(&output).contains(&token[20..60]));
}

#[test]
fn a_token_file_that_others_can_read_is_complained_about() {
    let desk = Desk::new(Mood::Kind);
    fs::set_permissions(desk.token_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let output = desk.with_server("send", &["hi"], "");
    assert_eq!(code(&output), 0);
    assert!(err(&output).contains("others can read"));
}

#[test]
fn profiles_are_private_files_and_are_found_without_a_name() {
    let desk = Desk::new(Mood::Kind);
    let added = desk.with_server("profile", &[], "");
    assert_eq!(code(&added), 64, "an action is needed");
    let (address, file) =
        (desk.server.address.to_string(), desk.token_file().display().to_string());
    let add = ["profile", "add", "home", "--server", &address, "--token-file", &file];
    assert_eq!(code(&desk.run(&add, "")), 0);
    assert_eq!(code(&desk.run(&add, "")), 73, "it exists");
    let path = desk.home.path().join("config/papayachat/home.toml");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");

    assert_eq!(code(&desk.run(&["send", "home", "by", "profile"], "")), 0);
    assert!(out(&desk.run(&["tail"], "")).contains("alice: by profile"));
    let listed = out(&desk.run(&["profile", "list"], ""));
    assert!(listed.contains("home") && listed.contains(&address) && !listed.contains("papaya1"));
    let row: serde_json::Value =
        serde_json::from_str(&out(&desk.run(&["profile", "list", "--json"], ""))).unwrap();
    assert_eq!(row["token"], "0101010101010101");

    assert_eq!(code(&desk.run(&["send", "elsewhere", "hi"], "")), 64);
    assert_eq!(code(&desk.run(&["profile", "remove", "../home"], "")), 64);
    assert_eq!(code(&desk.run(&["profile", "remove", "home"], "")), 0);
    assert_eq!(code(&desk.run(&["profile", "remove", "home"], "")), 64);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let desk = Desk::new(Mood::Kind);
    desk.server.append(record("bob", Some("x"), None, Some("y")).repeat(20_000).as_bytes());
    let file = desk.token_file().display().to_string();
    let address = desk.server.address.to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_papaya"))
        .args(["tail", "--server", &address, "--token-file", &file, "--from", "0", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, String::new()));
}
