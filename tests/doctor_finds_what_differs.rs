//! Promise: `papayad doctor` finds nothing in a fresh service, and every difference that is there.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use service::{Service, is_root, wait_child};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

fn main() -> ExitCode {
    let root = is_root();
    let trials = vec![
        Trial::test("a fresh service is as it must be, with three clients", fresh),
        Trial::test("as root everything is seen (needs root)", all_is_seen)
            .with_ignored_flag(!root),
        Trial::test("each planted difference is named (needs root)", planted)
            .with_ignored_flag(!root),
        Trial::test("processes of another user are named (needs root)", others)
            .with_ignored_flag(!root),
        Trial::test("without a service there is nothing to look at", no_service),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A service with everybody in it, until it is dropped.
struct Room {
    service: Service,
    people: Vec<Child>,
}

impl Room {
    fn open() -> Self {
        let service = Service::start("");
        let people = PEOPLE.map(|name| {
            let token = service.token(name, &[]);
            let mut tail = service.papaya(&token, "tail", &["--follow"]);
            tail.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        service.wait_for_status(|_, clients| clients.len() == PEOPLE.len());
        Self { service, people: people.into() }
    }

    /// The exit code and the findings.
    fn examine(&self) -> (Option<i32>, Vec<Value>) {
        let output = self.service.admin(&["doctor", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let findings: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!findings.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), findings)
    }

    fn must_be_clean(&self) -> Vec<Value> {
        let (code, findings) = self.examine();
        let wrong: Vec<&Value> = with(&findings, "differs").collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(code, Some(0));
        findings
    }

    fn state(&self, name: &str) -> std::path::PathBuf {
        self.service.dir.path().join("state").join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for person in &mut self.people {
            let _ = person.kill();
            wait_child(person);
        }
    }
}

fn with<'a>(findings: &'a [Value], outcome: &str) -> impl Iterator<Item = &'a Value> {
    findings.iter().filter(move |finding| finding["outcome"] == outcome)
}

fn place(finding: &Value) -> &str {
    finding["place"].as_str().unwrap()
}

fn fresh() -> Result<(), Failed> {
    let room = Room::open();
    let findings = room.must_be_clean();
    let processes = ["launcher (", "keeper (", "listener ("].map(str::to_owned);
    let people =
        PEOPLE.iter().flat_map(|name| ["recv", "send"].map(|half| format!("{half} {name} ")));
    for expected in processes.into_iter().chain(people) {
        for check in ["identity", "capabilities", "filter", "tracing", "limits", "group"] {
            let is_good = |f: &Value| place(f).starts_with(&expected) && f["check"] == check;
            if !with(&findings, "ok").any(is_good) {
                return Err(format!("{expected}: {check} was not looked at: {findings:#?}").into());
            }
        }
    }
    // For people, the same and a summary.
    let text = room.service.admin_ok(&["doctor"]);
    assert!(text.lines().last().unwrap().contains(" 0 differ"), "{text}");
    Ok(())
}

fn all_is_seen() -> Result<(), Failed> {
    let room = Room::open();
    // A worker that is stopped is slow, and no difference.
    let (_, clients) = room.service.status();
    let stopped = pid(&clients[0]);
    kill(stopped, Signal::SIGSTOP)?;
    let findings = room.must_be_clean();
    kill(stopped, Signal::SIGCONT)?;
    match with(&findings, "unseen").next() {
        Some(unseen) => Err(format!("{unseen}").into()),
        None => Ok(()),
    }
}

fn pid(client: &Value) -> Pid {
    Pid::from_raw(client["pid"].as_i64().unwrap().try_into().unwrap())
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn planted() -> Result<(), Failed> {
    let room = Room::open();
    room.must_be_clean();
    let control = room.service.dir.path().join("run/control");
    let (key, gate, log) =
        (room.state("host.key"), room.state("room.gate"), room.state("room.log"));

    mode(&key, 0o644);
    chown(&gate, Some(0), None)?;
    mode(&control, 0o666);
    room.service.admin_ok(&["log", "unseal", "--force"]);

    let (code, findings) = room.examine();
    assert_eq!(code, Some(77));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let expected = [
        (path(&key), "owner and mode", "0644", "chmod"),
        (path(&gate), "owner and mode", "uid 0", "chown"),
        (path(&control), "owner and mode", "0666", "chmod"),
        (path(&log), "append-only", "cut", "papayad log seal"),
    ];
    for (wanted, check, what, remedy) in &expected {
        let is_it = |f: &&Value| {
            let says = |key: &str, text: &str| f[key].as_str().unwrap().contains(text);
            place(f).starts_with(wanted.as_str())
                && f["check"] == *check
                && says("what", what)
                && says("remedy", remedy)
        };
        if with(&findings, "differs").find(is_it).is_none() {
            return Err(format!("{wanted}: {check} was not found: {findings:#?}").into());
        }
    }
    let found = with(&findings, "differs").count();
    assert_eq!(found, expected.len(), "{findings:#?}");

    // What the remedies say is enough.
    mode(&key, 0o400);
    chown(&gate, Some(nix::unistd::User::from_name("daemon")?.unwrap().uid.as_raw()), None)?;
    mode(&control, 0o600);
    room.service.admin_ok(&["log", "seal"]);
    room.must_be_clean();
    Ok(())
}

/// The configuration names another user than the one that the processes were started as.
fn others() -> Result<(), Failed> {
    let room = Room::open();
    let text = fs::read_to_string(&room.service.config)?;
    let other = text.replace("user = \"nobody\"", "user = \"games\"");
    assert_ne!(text, other);
    fs::write(&room.service.config, other)?;
    let (code, findings) = room.examine();
    assert_eq!(code, Some(77));
    let wrong: Vec<&Value> = with(&findings, "differs").collect();
    let named = |who: &str| wrong.iter().any(|f| place(f).starts_with(who));
    for who in ["launcher (", "listener (", "recv alice ", "send bob "] {
        assert!(named(who), "{who}: {wrong:#?}");
    }
    assert!(!named("keeper ("), "{wrong:#?}");
    assert!(wrong.iter().all(|f| f["check"] == "identity"), "{wrong:#?}");
    Ok(())
}

fn no_service() -> Result<(), Failed> {
    let mut service = Service::start("");
    service.stop();
    let output = service.admin(&["doctor"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    Ok(())
}
