//! Promise: the tables in docs/confinement.md and SECURITY.md are the policies that are enforced.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))] // Their numbers are this system's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use papayachat::confine::Role;
use papayachat::confine::policy;

const SECURITY: &str = include_str!("../SECURITY.md");
const TABLES: &str = include_str!("../docs/confinement.md");

fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_papayad"))
        .args(["sandbox", "show", "--markdown"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The first table, with its two marks.
fn overview(text: &str) -> &str {
    let begin = text.find("<!-- the overview: generated -->").expect("the overview's first mark");
    let last = "<!-- end of the overview -->";
    let end = text.find(last).expect("the overview's last mark") + last.len();
    &text[begin..end]
}

#[test]
fn docs_confinement_md_is_what_the_program_prints() {
    let printed = printed();
    let differs = TABLES.lines().zip(printed.lines()).find(|(written, right)| written != right);
    assert!(
        TABLES == printed,
        "make it anew: papayad sandbox show --markdown > docs/confinement.md\nfirst difference, or \
         none but in length: {differs:#?}"
    );
}

#[test]
fn security_md_has_the_same_overview() {
    let right = printed();
    assert_eq!(
        overview(SECURITY),
        overview(&right),
        "put the overview of `papayad sandbox show --markdown` into SECURITY.md, with its marks"
    );
}

/// The printer itself could leave something out.
#[test]
fn no_rule_and_no_descriptor_is_left_out() {
    let rows: BTreeSet<&str> = TABLES.lines().filter(|line| line.starts_with("| ")).collect();
    for role in Role::ALL {
        for row in policy::table(role) {
            let (call, why) = (format!("| `{}` | ", row.subject), format!(" | {} |", row.why));
            let words: Vec<String> =
                row.condition.split(", ").map(|word| word.replace('|', " or ")).collect();
            let is_it = |line: &&&str| {
                line.starts_with(&call)
                    && line.ends_with(&why)
                    && words.iter().all(|word| line.contains(word))
            };
            assert!(rows.iter().any(|line| is_it(&line)), "{role}: {row:?}");
        }
        for entry in policy::descriptors(role) {
            let is_it = |line: &&str| {
                line.starts_with(&format!("| {role} | {}", entry.first))
                    && line.contains(entry.what)
            };
            assert!(rows.iter().any(is_it), "{role}: {entry:?}");
        }
    }
}
