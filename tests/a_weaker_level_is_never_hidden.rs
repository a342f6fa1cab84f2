//! Promise: a service that is confined less than it could be says so: at its start, as a warning
//! with the level's name, in its status and to doctor. Each process of it is at that level.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/service.rs"]
mod service;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use papayachat::confine::Level;
use people::{Person, read_token};
use service::{PATIENCE, Service, level};

/// LOG_DAEMON and LOG_WARNING of syslog(3), as they stand before a line.
const WARNING: &str = "<28>";

/// Lines for syslog up to the one that says that the service is there.
fn start_lines(socket: &UnixDatagram) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a line for syslog");
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

#[test]
fn every_level_is_told_as_it_is() {
    for asked in Level::ALL.into_iter().filter(|asked| *asked <= level()) {
        is_told(asked);
    }
}
