//! Promise: started as root, the service makes the log append-only for everyone, root included, and
//! goes on writing to it; opening it up is an act of root's that is not done behind its back.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use papayachat::sys::append_only;
use service::{Service, is_root};

fn main() -> ExitCode {
    let root = is_root();
    let trials = vec![
        Trial::test(
            "nobody cuts, replaces or removes it, and everybody writes (needs root)",
            grows,
        )
        .with_ignored_flag(!root),
        Trial::test("a log that was there before is sealed too (needs root)", old_log)
            .with_ignored_flag(!root),
        Trial::test("root follows no link out of the keeper's directory (needs root)", no_link)
            .with_ignored_flag(!root),
        Trial::test("a running service is told that it was unsealed (needs root)", told)
            .with_ignored_flag(!root),
        Trial::test("a rootless service says that it cannot (needs no root)", rootless)
            .with_ignored_flag(root),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn log(service: &Service) -> PathBuf {
    service.dir.path().join("state/room.log")
}

fn say(service: &Service, token: &Path, text: &str) {
    let said = service.papaya(token, "send", &[text]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

fn is_refused<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|e| e.raw_os_error() == Some(Errno::EPERM as i32))
}

fn grows() -> Result<(), Failed> {
    let mut service = Service::start("");
    let alice = service.token("alice", &[]);
    let path = log(&service);
    say(&service, &alice, "one");
    if append_only::is_set(&File::open(&path)?) != Ok(true) {
        return Err("the flag is not set; this test needs a file system that has it".into());
    }
    assert!(is_refused(File::create(&path)), "it was cut");
    assert!(is_refused(File::options().write(true).open(&path)), "it was opened to write anywhere");
    let append = File::options().append(true).open(&path)?;
    assert!(is_refused(append.set_len(0)), "it was cut");
    assert!(is_refused(fs::remove_file(&path)), "it was removed");
    assert!(is_refused(fs::rename(&path, path.with_extension("old"))), "it was replaced");
    say(&service, &alice, "two");
    let said = |r: &&serde_json::Value| r["text"] == "one" || r["text"] == "two";
    assert_eq!(service.records().iter().filter(said).count(), 2);

    let refused = service.admin(&["log", "unseal"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert!(service.stop().success());
    service.admin_ok(&["log", "unseal"]);
    File::create(&path)?;
    service.admin_ok(&["log", "seal"]);
    assert!(is_refused(File::create(&path)), "it was cut");
    Ok(())
}

fn told() -> Result<(), Failed> {
    let mut service = Service::start("");
    let path = log(&service);
    let is_sealed = || append_only::is_set(&File::open(&path).unwrap()) == Ok(true);
    let refused = service.admin(&["log", "unseal"]);
    assert!(!refused.status.success() && is_sealed(), "{refused:?}");
    assert!(service.status().0["unsealed_since"].is_null());

    service.admin_ok(&["log", "unseal", "--force"]);
    assert!(!is_sealed());
    service.wait_for_line("room.log was unsealed by hand");
    let since = service.status().0["unsealed_since"].as_str().unwrap().to_owned();
    let told = format!("the log was unsealed by hand at {since}");
    assert!(service.admin_ok(&["status"]).contains(&told));
    let doctor = service.admin(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(77), "{doctor:?}");
    let text = String::from_utf8(doctor.stdout)?;
    assert!(text.contains(&format!("`papayad log unseal` was run at {since}")), "{text}");

    service.admin_ok(&["log", "seal"]);
    assert!(is_sealed());
    service.wait_for_line("room.log was sealed again");
    assert!(service.status().0["unsealed_since"].is_null());
    assert!(service.admin(&["doctor"]).status.success());
    Ok(())
}

fn old_log() -> Result<(), Failed> {
    let mut service = Service::start("");
    assert!(service.stop().success());
    service.admin_ok(&["log", "unseal"]);
    File::options().append(true).open(log(&service))?.write_all(b"{\"kept\":true}\n")?;
    service.restart();
    assert_eq!(append_only::is_set(&File::open(log(&service))?), Ok(true));
    assert!(service.room_log().starts_with(b"{\"kept\":true}\n"));
    let found = fs::metadata(log(&service))?;
    assert_eq!(found.mode() & 0o7777, 0o640);
    Ok(())
}

fn no_link() -> Result<(), Failed> {
    let mut service = Service::start("");
    assert!(service.stop().success());
    service.admin_ok(&["log", "unseal"]);
    let path = log(&service);
    let outside = service.dir.path().join("outside");
    fs::write(&outside, "not the room's\n")?;
    fs::remove_file(&path)?;
    symlink(&outside, &path)?;
    let refused = service.admin(&["log", "seal"]);
    assert!(!refused.status.success(), "{refused:?}");
    // Nor a second name of somebody else's file.
    fs::remove_file(&path)?;
    fs::hard_link(&outside, &path)?;
    let refused = service.admin(&["log", "seal"]);
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    assert_eq!(append_only::is_set(&File::open(&outside)?), Ok(false));
    fs::write(&outside, "still to be changed\n")?;
    Ok(())
}

fn rootless() -> Result<(), Failed> {
    let mut service = Service::start("");
    let said = |line: &String| line.contains("not append-only") && line.contains("only root");
    if !service.log.iter().any(said) {
        return Err(format!("it was not said: {:?}", service.log).into());
    }
    let refused = service.admin(&["log", "unseal", "--force"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(service.stop().success());
    Ok(())
}
