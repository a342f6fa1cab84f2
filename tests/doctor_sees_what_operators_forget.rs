//! Promise: `papayad doctor` names a port that is closed, a disk that fills, a logger that is gone,
//! and an upgrade without a restart, each with what to do; and has nothing to say about a service
//! that is well.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use service::{PAPAYAD, Service, is_root, unseal, wait_child};

fn main() -> ExitCode {
    let root = is_root();
    let trials = vec![
        Trial::test("a service that is well", passing(well)),
        Trial::test("a door that is closed, and a logger that is gone", passing(door_and_logger)),
        Trial::test("a disk that fills (needs root)", passing(disk)).with_ignored_flag(!root),
        Trial::test("an upgrade without a restart (needs root)", passing(upgrade))
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

/// Runs the doctor of this program; its exit code and findings.
fn examine(program: &Path, config: &Path) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(program)
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(!findings.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), findings)
}

fn doctor(service: &Service) -> (Option<i32>, Vec<Value>) {
    examine(Path::new(PAPAYAD), &service.config)
}

fn of<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    let found: Vec<&Value> = findings.iter().filter(|f| f["check"] == check).collect();
    assert_eq!(found.len(), 1, "{check}: {found:?}");
    found[0]
}

/// This and nothing else differs, and there is something to do about it.
fn only(findings: &[Value], check: &str) -> String {
    let differing: Vec<&Value> = findings.iter().filter(|f| f["outcome"] == "differs").collect();
    assert_eq!(differing.len(), 1, "{differing:#?}");
    assert_eq!(differing[0]["check"], check);
    assert!(differing[0]["remedy"].as_str().unwrap().len() > 10);
    differing[0]["what"].as_str().unwrap().to_owned()
}

fn well() {
    let service = Service::start("");
    let token = service.token("alice", &[]);
    assert!(service.papaya(&token, "send", &["hello"]).status().unwrap().success());
    // A process on its way out is not as it was.
    service.wait_for_status(|status, clients| clients.is_empty() && status["starting"] == 0);
    let (code, findings) = doctor(&service);
    assert_eq!(code, Some(0), "{findings:#?}");
    for check in ["port", "disk space", "clock", "syslog", "unit"] {
        assert_eq!(of(&findings, check)["outcome"], "ok", "{check}");
    }
    assert_eq!(of(&findings, "port")["place"], format!("127.0.0.1:{}", service.port));
    // Which program a process runs, only root may see: the launcher cannot be looked into.
    let expected = if is_root() { "ok" } else { "unseen" };
    assert_eq!(of(&findings, "program")["outcome"], expected, "{findings:#?}");
}

fn door_and_logger() {
    let mut service =
        Service::start("[syslog]\nfacility = \"daemon\"\nsocket = \"/nonexistent/log\"");
    let (code, findings) = doctor(&service);
    assert_eq!(code, Some(77));
    assert!(only(&findings, "syslog").contains("/nonexistent/log"));
    // A door that was closed on purpose is no difference.
    service.admin_ok(&["pause"]);
    service.wait_for_line("the door is closed");
    service.wait_for_status(|status, _| status["door"] == "closed");
    let (_, findings) = doctor(&service);
    only(&findings, "syslog");
    assert!(of(&findings, "port")["what"].as_str().unwrap().contains("papayad resume"));
}

/// A small file system, gone when dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: descriptors may still be open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn disk() {
    let mut disk = None;
    let service = Service::start_in("small/state", "", |dir| {
        let place = dir.join("small");
        fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=755", "papayachat-test"]).arg(&place);
        assert!(mount.status().unwrap().success(), "this test needs a file system of its own");
        disk = Some(Disk(place));
    });
    let (code, findings) = doctor(&service);
    assert_eq!(code, Some(77));
    let what = only(&findings, "disk space");
    assert!(what.starts_with("7 MiB are free"), "{what}");
    // Before the service's directory, which could not be removed with it.
    drop(disk);
}

fn upgrade() {
    let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("papayad");
    let install = |names: &[&str]| {
        // A file that is executed cannot be written, so each is put in the other's place.
        for name in names {
            let new = dir.path().join("new");
            fs::copy(Path::new(PAPAYAD).with_file_name(name), &new).unwrap();
            fs::rename(&new, dir.path().join(name)).unwrap();
        }
    };
    install(&["papayad", "papayad-session"]);
    let config = dir.path().join("papayad.toml");
    fs::write(&config, Service::config_text(dir.path(), "127.0.0.1:0", "")).unwrap();
    let mut service = Command::new(&program)
        .args(["run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let runs = || {
        let mut status = Command::new(&program);
        status
            .args(["status", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        status.status().unwrap().success()
    };
    let end = std::time::Instant::now() + service::PATIENCE;
    while !runs() {
        assert!(std::time::Instant::now() < end, "the service does not start");
    }
    let before = examine(&program, &config);
    // Another copy of the same version, and then new files in the programs' places.
    let other = examine(Path::new(PAPAYAD), &config);
    install(&["papayad-session"]);
    let half = examine(&program, &config);
    install(&["papayad"]);
    let after = examine(&program, &config);
    kill(Pid::from_raw(service.id() as i32), Signal::SIGTERM).unwrap();
    wait_child(&mut service);
    unseal(dir.path());

    assert_eq!(before.0, Some(0), "{:#?}", before.1);
    assert!(only(&other.1, "program").contains("is running, this is"));
    assert_eq!(half.0, Some(77));
    let what = only(&half.1, "program");
    assert_eq!(what, "papayad-session was replaced since the service was started");
    assert_eq!(after.0, Some(77));
    let what = only(&after.1, "program");
    assert!(what.contains("was replaced since the service was started"), "{what}");
    let program = of(&after.1, "program");
    assert!(program["remedy"].as_str().unwrap().contains("systemctl restart"));
}
