//! Promise: whoever closes the pipe has read enough: `papayad … | head -n 1` neither panics nor fails.
#![allow(clippy::unwrap_used)]

#[path = "common/service.rs"]
mod service;

use std::process::{Command, Stdio};

use service::{PAPAYAD, Service};

const SESSION: &str = env!("CARGO_BIN_EXE_papayad-session");

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
    let session = (SESSION, &["--version"][..]);
    for (program, arguments) in commands.iter().map(|c| (PAPAYAD, *c)).chain([session]) {
        let (nobody, pipe) = std::io::pipe().unwrap();
        drop(nobody);
        let output = Command::new(program)
            .args(arguments)
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
