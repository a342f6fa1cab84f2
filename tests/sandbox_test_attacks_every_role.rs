//! Promise: `papayad sandbox test` attacks every role with the whole catalogue, says what happened,
//! and tells a policy that holds from one that does not.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

use papayachat::confine::attack::{Refusal, all};
use papayachat::confine::{Level, Role};
use serde_json::Value;

#[path = "common/level.rs"]
mod level;

fn papayad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_papayad"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_attack_on_every_role_is_tried_and_refused() {
    let level = level::level();
    let output = papayad(&["sandbox", "test", "--json", "--level", level.name()]);
    let mut lines = lines(&output);
    let summary = lines.pop().unwrap();
    let (open, rest): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line["open"] == true);
    let failed: Vec<&Value> = rest.into_iter().filter(|line| line["ok"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for role in Role::ALL {
        let tried = |name: &str| {
            lines.iter().any(|line| line["role"] == role.to_string() && line["attack"] == name)
        };
        assert!(tried("nothing"), "{role} has no control");
        assert!(tried("every-rule"), "{role}'s rules were not tried");
        for attack in all().iter().filter(|a| a.is_for(role) && a.number().is_some()) {
            assert!(tried(attack.name()), "{role}: {} was not tried", attack.name());
        }
    }
    assert_eq!(summary["level"], level.name());
    assert_eq!(summary["tried"], lines.len());
    assert_eq!(summary["failed"], 0);
    // What is open is so by the catalogue, and to nobody who talks to clients.
    let known: Vec<(String, &str)> = Role::ALL
        .into_iter()
        .flat_map(|role| all().into_iter().map(move |attack| (role, attack)))
        .filter(|(role, a)| a.is_for(*role) && a.number().is_some())
        .filter(|(role, a)| a.refusal(*role, level) == Refusal::Open)
        .map(|(role, attack)| (role.to_string(), attack.name()))
        .collect();
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let open: Vec<_> = open.iter().map(|line| (word(line, "role"), word(line, "attack"))).collect();
    assert!(open.iter().all(|(role, _)| role == "launcher" || role == "keeper"), "{open:?}");
    assert!(open.iter().map(|(role, name)| (role.clone(), name.as_str())).eq(known), "{open:?}");
    assert_eq!(open.is_empty(), level >= Level::Landlock2);
}

#[test]
fn an_attack_in_a_role_that_may_do_it_is_told_from_a_refusal() {
    // The launcher may look at files: so the call comes back, and is not taken for a refusal.
    let output = papayad(&["sandbox", "attack", "launcher", "stat", level::level().name()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it worked"), "{said}");
    assert_eq!(output.status.code(), Some(77));
}

#[test]
fn one_role_can_be_tested_alone() {
    let output =
        papayad(&["sandbox", "test", "--role", "send", "--json", "--level", level::level().name()]);
    let lines = lines(&output);
    let (summary, runs) = lines.split_last().unwrap();
    assert!(runs.iter().all(|line| line["role"] == "send"));
    assert!(runs.len() > 100, "{summary}");
}
