//! Promise: a process that has dropped root cannot become root again, by any way that we know.

mod confined;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use confined::{again, must_end, outcome, part};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::{Gid, Uid, setgid, setgroups, setresgid, setresuid, setuid};
use papayachat::confine::identity::{become_forever, lookup, rootless};

/// Users that every system has.
const USERS: [&str; 2] = ["nobody", "daemon"];

fn main() -> ExitCode {
    if let Some((name, given)) = part() {
        return outcome(match name.as_str() {
            "drop" => dropped(&given),
            "set-uid" => run_set_uid(&given),
            _ => rootless().map_err(|error| error.to_string()),
        });
    }
    let root = Uid::effective().is_root();
    let trials = vec![
        Trial::test("nothing is left of root (needs root)", nothing_is_left)
            .with_ignored_flag(!root),
        Trial::test("a set-uid program gives no root (needs root)", set_uid_is_inert)
            .with_ignored_flag(!root),
        Trial::test("root is not rootless (needs root)", root_is_not_rootless)
            .with_ignored_flag(!root),
        Trial::test(
            "without root there is nothing to drop, and it is an error (needs no root)",
            || must_end(&again("drop", "nobody").output()?, "exit 1"),
        )
        .with_ignored_flag(root),
        Trial::test("rootless is verified (needs no root)", || {
            must_end(&again("rootless", "").output()?, "exit 0")
        })
        .with_ignored_flag(root),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn nothing_is_left() -> Result<(), Failed> {
    USERS.into_iter().try_for_each(|user| must_end(&again("drop", user).output()?, "exit 0"))
}

fn root_is_not_rootless() -> Result<(), Failed> {
    must_end(&again("rootless", "").output()?, "exit 1")
}

fn set_uid_is_inert() -> Result<(), Failed> {
    let directory =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
    let program = directory.path().join("id");
    let path = program.to_str().ok_or("a path that is not text")?;
    must_end(&again("set-uid", path).output()?, "exit 0")
}

/// The part: drops root, looks at itself as the kernel tells, and tries to return.
fn dropped(user: &str) -> Result<(), String> {
    let ids = lookup(user).map_err(|error| error.to_string())?;
    become_forever(&ids).map_err(|error| error.to_string())?;
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let uid = ids.uid;
    let gid = ids.gid;
    for expected in [
        format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
        format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"),
        "Groups:\t".to_owned(),
        "CapInh:\t0000000000000000".to_owned(),
        "CapPrm:\t0000000000000000".to_owned(),
        "CapEff:\t0000000000000000".to_owned(),
        "CapBnd:\t0000000000000000".to_owned(),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
    ] {
        if !status.lines().any(|line| line.trim_end() == expected.trim_end()) {
            return Err(format!("{expected:?} is missing in:\n{status}"));
        }
    }
    let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
    let ways = [
        ("setuid", setuid(root).is_ok()),
        ("setresuid", setresuid(root, root, root).is_ok()),
        ("setgid", setgid(wheel).is_ok()),
        ("setresgid", setresgid(wheel, wheel, wheel).is_ok()),
        ("setgroups", setgroups(&[wheel]).is_ok()),
        ("/etc/shadow", fs::read("/etc/shadow").is_ok()),
    ];
    match ways.iter().find(|(_, regained)| *regained) {
        Some((way, _)) => Err(format!("{way} worked")),
        None => Ok(()),
    }
}

/// The part: drops root and runs a program that belongs to root and is set-uid. It makes that itself:
/// what another thread of the tests starts meanwhile would have it open for writing for a moment,
/// and the kernel runs no such program.
fn run_set_uid(program: &str) -> Result<(), String> {
    fs::copy("/usr/bin/id", program)
        .and_then(|_| fs::set_permissions(program, fs::Permissions::from_mode(0o6755)))
        .map_err(|error| error.to_string())?;
    let ids = lookup("nobody").map_err(|error| error.to_string())?;
    become_forever(&ids).map_err(|error| error.to_string())?;
    let output = Command::new(program).arg("-u").output().map_err(|error| error.to_string())?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if found == ids.uid.to_string() { Ok(()) } else { Err(format!("it ran as {found}")) }
}
