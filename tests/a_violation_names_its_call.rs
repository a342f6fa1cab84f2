//! Promise: where the kernel's log can be read, the log line about a process that its filter killed
//! names the system call, beside role, name and address; `status` shows it too.
#![allow(clippy::unwrap_used)]

#[path = "common/intruder.rs"]
mod intruder;
#[path = "common/service.rs"]
mod service;

use std::fs;
use std::process::{Child, ExitCode, Stdio};
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::Pid;
use serde_json::Value;
use service::{PATIENCE, Service, is_root, wait_child};

fn main() -> ExitCode {
    // An audit daemon takes the records, and the kernel's log has none.
    let names = fs::read_dir("/proc").unwrap().flatten();
    let mut names = names.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    let told = fs::File::open("/dev/kmsg").is_ok() && !names.any(|name| name == "auditd\n");
    let trials = vec![
        Trial::test("of a client's RECV and SEND (needs root and the kernel's log)", workers)
            .with_ignored_flag(!is_root() || !told),
        Trial::test("of the listener (needs root and the kernel's log)", listener)
            .with_ignored_flag(!is_root() || !told),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Somebody who comes back whenever his processes end.
struct Guest(Child);

impl Guest {
    fn join(service: &Service, name: &str) -> Self {
        let token = service.token(name, &[]);
        let mut tail = service.papaya(&token, "tail", &["--follow"]);
        Self(tail.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        wait_child(&mut self.0);
    }
}

/// The kernel writes no more than ten records in five seconds, whoever they are about
/// (`kernel.printk_ratelimit`), so where other programs are killed by the dozen a record may be
/// missing; then the line says so. Tries until one is told, for longer than any of that may last.
fn until_told(
    service: &mut Service,
    pid: impl Fn(&Service) -> Pid,
    line: &str,
    call: &str,
) -> String {
    let end = Instant::now() + 4 * PATIENCE;
    loop {
        intruder::call(pid(service), libc::SYS_socket, [0; 3]);
        let said = service.wait_for_line(line);
        if said.contains(call) {
            return said;
        }
        assert!(said.contains("not told here"), "{said}");
        assert!(Instant::now() < end, "the kernel's log has told nothing all the time: {said}");
    }
}

fn socket() -> String {
    format!("system call socket ({})", libc::SYS_socket)
}

fn recv(service: &Service) -> Pid {
    // A RECV whose SEND is there is in its second stage.
    send(service).0
}

fn send(service: &Service) -> (Pid, Pid) {
    let end = Instant::now() + PATIENCE;
    loop {
        for recv in service.recvs_of("alice") {
            let below = service::descendants(recv);
            if let Some((send, _)) = below.iter().find(|(_, t)| t.starts_with("papayad: send")) {
                return (Pid::from_raw(recv), Pid::from_raw(*send));
            }
        }
        assert!(Instant::now() < end, "alice does not come");
        std::thread::yield_now();
    }
}

fn last(service: &Service) -> Value {
    let (status, _) = service.status();
    status["violations"].as_array().unwrap().last().unwrap().clone()
}

fn workers() -> Result<(), Failed> {
    let mut service = Service::start("");
    let _alice = Guest::join(&service, "alice");
    let told = format!("killed by its filter: {}", socket());
    let line = until_told(&mut service, recv, "ended (killed by its filter", &told);
    assert!(line.contains("recv alice 127.0.0.1:"), "{line}");
    let seen = last(&service);
    assert_eq!((&seen["role"], &seen["name"]), (&"recv-joined".into(), &"alice".into()));
    assert!(line.contains(seen["address"].as_str().unwrap()), "{line} {seen}");
    assert_eq!(seen["call"], format!("socket ({})", libc::SYS_socket));

    let line = until_told(&mut service, |s| send(s).1, ": a SEND or a stray", &socket());
    let seen = last(&service);
    assert_eq!((&seen["role"], &seen["name"]), (&"send".into(), &Value::Null));
    assert!(line.contains(&format!("a stray, process {}: ended", seen["pid"])), "{line} {seen}");
    assert!(service.admin_ok(&["status"]).contains("by send"));
    Ok(())
}

fn listener() -> Result<(), Failed> {
    let mut service = Service::start("");
    let pid = |service: &Service| {
        let (status, _) = service.wait_for_status(|status, _| !status["listener"].is_null());
        Pid::from_raw(status["listener"].as_i64().unwrap().try_into().unwrap())
    };
    let told = format!("killed by its filter: {}", socket());
    until_told(&mut service, pid, "listener: ended (", &told);
    assert_eq!(last(&service)["role"], "listener");
    Ok(())
}
