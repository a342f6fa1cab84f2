//! Promise: whoever closes the pipe has read enough: `papayad … | head -n 1` neither panics nor fails.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::process::{Command, Stdio};

use service::{PAPAYAD, Service};

#[test]
fn no_command_minds_a_closed_pipe() {
    let service = Service::start("");
    service.token("alice", &[]);
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "--json"],
        &["status", "--prometheus"],
        &["token", "list"],
        &["token", "list", "--json"],
        &["pause"],
        &["resume"],
        &["check"],
        &["check", "--print"],
        &["log", "verify"],
        &["log", "export"],
        &["sandbox", "show"],
    ];
    for arguments in commands {
        let (nobody, pipe) = std::io::pipe().unwrap();
        drop(nobody);
        let output = Command::new(PAPAYAD)
            .args(*arguments)
            .env("PAPAYAD_CONFIG", service.dir.path().join("papayad.toml"))
            .stdin(Stdio::null())
            .stdout(pipe)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}
