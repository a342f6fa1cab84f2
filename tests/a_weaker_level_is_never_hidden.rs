//! Promise: a service that is confined less than it could be says so: at its start, as a warning
//! with the level's name, in its status and to doctor. Each process of it is at that level. Where
//! the kernel has less than is required, it does not start, and says what the kernel has.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/service.rs"]
mod service;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use papayachat::confine::Level;
use papayachat::exit::Exit;
use people::{Person, read_token};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use service::{PAPAYAD, PATIENCE, Service, level};

/// LOG_DAEMON and LOG_WARNING of syslog(3), as they stand before a line.
const WARNING: &str = "<28>";

/// Lines for syslog up to the one that says that the service is there.
fn start_lines(socket: &UnixDatagram) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        lines.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        if lines.iter().any(|line| line.contains("serves room")) {
            return lines;
        }
    }
}

fn is_told(asked: Level) {
    let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let more = format!(
        "[sandbox]\nrequire = \"{asked}\"\nceiling = \"{asked}\"\n\
         [syslog]\nfacility = \"daemon\"\nsocket = \"{}\"",
        path.display()
    );
    // Which asserts that the status has this level.
    let mut service = Service::start(&more);
    let warnings: Vec<String> =
        start_lines(&socket).into_iter().filter(|line| line.starts_with(WARNING)).collect();
    let named = format!("the sandbox level is \"{asked}\", weaker than \"full\"");
    let expected = usize::from(asked < Level::Full);
    assert_eq!(warnings.iter().filter(|l| l.contains(&named)).count(), expected, "{warnings:?}");

    let token = read_token(&service.token("alice", &[]));
    Person::join(service.address(), &token).session.leave();
    for role in ["launcher", "keeper", "listener"] {
        let line = format!("{role} confined, level {asked}: ");
        let said = service.log_so_far().iter().any(|said| said.contains(&line));
        assert!(said || !service.wait_for_line(&line).is_empty());
    }

    let doctor = service.admin(&["doctor", "--json"]);
    let findings = String::from_utf8(doctor.stdout).unwrap();
    let findings = findings.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let found: Vec<_> = findings.filter(|finding| finding["check"] == "sandbox").collect();
    let [found] = &found[..] else { panic!("doctor found {found:?}") };
    let text = found.to_string();
    assert!(text.contains(&format!("{asked}, {asked} is required")), "{text}");
    let could = papayachat::confine::available().unwrap();
    assert_eq!(text.contains("sandbox.ceiling asks for no more"), asked < could, "{text}");
}

/// A program of ours as on a kernel without Landlock: a filter that descends to it says so.
fn without_landlock(config: &Path, command: &str) -> Output {
    let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let missing = SeccompAction::Errno(libc::EOPNOTSUPP as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // A filter is the thread's, and its children's.
    let run = || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        seccompiler::apply_filter(&filter).unwrap();
        Command::new(PAPAYAD).arg(command).arg("--config").arg(config).output().unwrap()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_kernel_that_reaches_less_than_is_required_is_refused_and_told_why() {
    let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let config = dir.path().join("papayad.toml");
    let text = Service::config_text(dir.path(), "127.0.0.1:0", "");
    let (above, _) = text.split_once("[sandbox]\n").unwrap();
    for (require, from) in [("landlock-2", "landlock-2"), ("full", "full"), ("", "full")] {
        let line =
            if require.is_empty() { String::new() } else { format!("require = \"{require}\"") };
        fs::write(&config, format!("{above}[sandbox]\n{line}\n")).unwrap();
        let why =
            format!("this kernel reaches sandbox level \"seccomp\", but \"{from}\" is required");
        let run = without_landlock(&config, "run");
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(Exit::Config as i32), "{said}");
        assert!(said.contains(&why) && said.contains("sandbox.require = \"seccomp\""), "{said}");
        let check = without_landlock(&config, "check");
        let said = String::from_utf8(check.stdout).unwrap();
        assert_eq!(check.status.code(), Some(Exit::Config as i32), "{said}");
        assert!(said.contains(&why), "{said}");
    }
    service::unseal(dir.path());
}

#[test]
fn every_level_is_told_as_it_is() {
    for asked in Level::ALL.into_iter().filter(|asked| *asked <= level()) {
        is_told(asked);
    }
}
