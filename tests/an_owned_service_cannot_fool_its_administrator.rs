//! Promise: whatever a service that was taken over answers, and whatever stands in its directories,
//! the tools of the administrator, who may be root, end, take little memory, and show nothing that a
//! terminal obeys.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use service::{PAPAYAD, Service, wait_child};

/// Moves the cursor, sets the title, turns the text around, and is no character of its own.
const TREACHEROUS: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\u{200b}";

/// A directory in which somebody answers every request alike.
struct Owned {
    dir: tempfile::TempDir,
}

impl Owned {
    /// `says` is said once, or, if `endless`, again and again.
    fn service(says: Vec<u8>, endless: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
        for name in ["run", "state"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = Service::config_text(dir.path(), "127.0.0.1:0", "");
        std::fs::write(dir.path().join("papayad.toml"), config).unwrap();
        let door = UnixListener::bind(dir.path().join("run/control")).unwrap();
        thread::spawn(move || {
            for caller in door.incoming() {
                let mut caller = BufReader::new(caller.unwrap());
                let _ = caller.read_line(&mut String::new());
                while caller.get_mut().write_all(&says).is_ok() && endless {}
            }
        });
        Self { dir }
    }

    fn ask(&self, arguments: &[&str]) -> Child {
        let mut papayad = Command::new(PAPAYAD);
        papayad.args(arguments).arg("--config").arg(self.dir.path().join("papayad.toml"));
        papayad.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        papayad.spawn().unwrap()
    }

    fn answer(&self, arguments: &[&str]) -> Output {
        let mut asked = self.ask(arguments);
        wait_child(&mut asked);
        asked.wait_with_output().unwrap()
    }
}

/// What was printed, which must be harmless.
fn shown(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let obeyed =
        |c: char| c != '\n' && (c.is_control() || TREACHEROUS.contains(c) && !c.is_ascii());
    assert!(!text.contains(obeyed), "{text:?}");
    text
}

#[test]
fn nothing_that_it_says_drives_a_terminal() {
    for kind in ["error: ", "unknown: ", ""] {
        let owned = Owned::service(format!("{kind}so {TREACHEROUS} so\n").into(), false);
        for asked in [&["kick", "alice"][..], &["pause"], &["resume"], &["status"]] {
            let text = shown(&owned.answer(asked));
            assert!(asked == ["status"] || text.contains("so ^[]0;owned^G"), "{text:?}");
        }
    }
    let service = json!({"room": TREACHEROUS, "version": TREACHEROUS, "level": TREACHEROUS});
    let client = json!({"name": TREACHEROUS, "role": TREACHEROUS, "address": TREACHEROUS});
    let owned = Owned::service(format!("{service}\n{client}\n").into(), false);
    for form in [&["status"][..], &["status", "--json"], &["status", "--prometheus"]] {
        let output = owned.answer(form);
        assert!(output.status.success(), "{output:?}");
        assert!(shown(&output).contains("owned"));
    }
    // Shown as something else, it is the same value still.
    let output = owned.answer(&["status", "--json"]);
    let first = output.stdout.split(|b| *b == b'\n').next().unwrap();
    let read: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(read["room"], TREACHEROUS);
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() {
    let owned = Owned::service(vec![b'x'; 1 << 16], true);
    for asked in [&["status"][..], &["kick", "alice"]] {
        let output = owned.answer(asked);
        assert_eq!(output.status.code(), Some(69), "{asked:?}");
        assert!(shown(&output).contains("more than a service has to say"));
    }
}

#[test]
fn what_stands_in_the_place_of_the_log_keeps_nobody_waiting() {
    let owned = Owned::service(format!("{}\n", json!({"room": "lobby"})).into(), false);
    let log = owned.dir.path().join("state/room.log");
    mkfifo(&log, Mode::from_bits_truncate(0o600)).unwrap();
    assert!(owned.answer(&["status"]).status.success());
    std::fs::remove_file(&log).unwrap();
    // A link is not followed: the size of what it leads to would be told.
    std::os::unix::fs::symlink("/etc/passwd", &log).unwrap();
    let output = owned.answer(&["status", "--json"]);
    let first = output.stdout.split(|b| *b == b'\n').next().unwrap();
    let read: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(read["log_bytes"], serde_json::Value::Null, "{read}");
}
