//! Promise: what `papayad sandbox show` prints is the policy that is enforced, all of it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use papayachat::confine::Role;
use papayachat::confine::policy;
use serde_json::{Value, json};

fn show(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_papayad"))
        .args(["sandbox", "show"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str, role: Role, part: &str) -> Vec<Value> {
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_part = all.filter(|line| line["role"] == json!(role) && line["part"] == part);
    of_part
        .map(|mut line| {
            let object = line.as_object_mut().unwrap();
            object.remove("role");
            object.remove("part");
            line
        })
        .collect()
}

#[test]
fn every_rule_descriptor_and_limit_of_every_role_is_printed() {
    let text = show(&["--json"]);
    let mut expected = 0;
    for role in Role::ALL {
        let rules: Vec<Value> = policy::table(role).iter().map(|row| json!(row)).collect();
        assert_eq!(lines(&text, role, "rule"), rules, "{role}");
        let descriptors: Vec<Value> = policy::descriptors(role).iter().map(|d| json!(d)).collect();
        assert_eq!(lines(&text, role, "descriptor"), descriptors, "{role}");
        assert_eq!(lines(&text, role, "limits"), [json!(policy::limits(role))], "{role}");
        expected += rules.len() + descriptors.len() + 1;
    }
    assert_eq!(text.lines().count(), expected, "there are lines of no policy");
}

#[test]
fn the_table_for_people_has_every_rule_with_its_reason() {
    for role in Role::ALL {
        let text = show(&["--role", &role.to_string()]);
        for row in policy::table(role) {
            let rare = row.rare.unwrap_or_default();
            let words = [row.file, &row.subject, &row.condition, row.answer, row.why, rare];
            let is_row = |line: &str| words.iter().all(|word| line.contains(word));
            assert!(text.lines().any(is_row), "{role}: {row:?} is missing");
        }
        for entry in policy::descriptors(role) {
            assert!(text.contains(entry.what), "{role}: {entry:?} is missing");
        }
    }
}

#[test]
fn a_word_that_is_no_role_is_a_usage_error_that_names_the_roles() {
    let output = Command::new(env!("CARGO_BIN_EXE_papayad"))
        .args(["sandbox", "show", "--role", "root"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(Role::ALL.iter().all(|role| said.contains(&role.to_string())), "{said}");
}
