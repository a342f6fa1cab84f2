//! What SECURITY.md, the README and Cargo.toml say of each other and of the source: the counts of
//! `unsafe`, the tests that are named, the dependencies, the configuration; and that each test with
//! a main of its own is run as one, for otherwise it passes with no test in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use papayachat::config::Config;
use papayachat::config::keys::{Effect, KEYS, Key};

const SECURITY: &str = include_str!("../SECURITY.md");
const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Blocks, functions and attributes that are unsafe; comments do not count.
fn unsafe_count(text: &str) -> usize {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let words = code.flat_map(|line| line.split("unsafe").skip(1).map(str::trim_start));
    words
        .filter(|rest| ["{", "(", "fn ", "impl ", "extern "].iter().any(|s| rest.starts_with(s)))
        .count()
}

/// The cells of the tables whose first cell is something in backticks, without the backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let table = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| {
        line.trim_matches('|').split(" | ").map(|c| c.trim().trim_matches('`').to_owned()).collect()
    };
    table.map(cells).collect()
}

/// The part of a document from a heading to the next one.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = text.find(heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let rest = &text[start + heading.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn the_inventory_of_unsafe_code_is_complete() {
    let mut found = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let count = unsafe_count(&fs::read_to_string(&file).unwrap());
        if count > 0 {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            assert!(name.starts_with("src/sys/"), "{name} has unsafe code");
            found.insert((name, count));
        }
    }
    let table = rows(section(SECURITY, "\n## Unsafe code\n"));
    let told: BTreeSet<_> = table.iter().map(|r| (r[0].clone(), r[1].parse().unwrap())).collect();
    assert_eq!(told, found);
}

#[test]
fn every_file_and_test_that_security_md_names_exists() {
    let named: Vec<&str> = SECURITY.split('`').skip(1).step_by(2).collect();
    let mut checked = 0;
    for name in named.iter().filter(|n| n.starts_with("tests/") || n.starts_with("src/")) {
        let (file, test) = name.split_once("::").unwrap_or((name, ""));
        let path = root().join(file);
        assert!(path.exists(), "SECURITY.md names {file}, which does not exist");
        if !test.is_empty() {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains(&format!("fn {test}(")), "{file} has no {test}");
        }
        checked += 1;
    }
    assert!(checked > 20, "only {checked} names were found: the page has another form");
}

#[test]
fn every_direct_dependency_has_its_row_in_the_readme_and_no_other_has() {
    let manifest: toml::Table = MANIFEST.parse().unwrap();
    let mut known = BTreeSet::new();
    let mut take = |table: &toml::Table| {
        for part in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let part = table.get(part).and_then(toml::Value::as_table);
            known.extend(part.into_iter().flat_map(toml::Table::keys).cloned());
        }
    };
    take(&manifest);
    for target in manifest["target"].as_table().unwrap().values() {
        take(target.as_table().unwrap());
    }
    let table = rows(section(README, "\n## Dependencies\n"));
    let told: BTreeSet<String> = table.iter().map(|row| row[0].clone()).collect();
    assert_eq!(told, known);
    assert!(table.iter().all(|row| row.len() >= 4 && row[1].len() > 3), "a row says nothing");
}

/// The table's defaults, put together as a file, are the defaults; and it has every key.
#[test]
#[cfg(target_os = "linux")]
fn the_table_of_the_configuration_has_every_key_and_its_default() {
    let table = rows(section(README, "\n## Configuration\n"));
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for row in &table {
        let (section, key) = row[0].split_once('.').unwrap();
        // TOML takes a section only once, but dotted keys in any order.
        text.push_str(&format!("{section}.{key} = {}\n", row[1]));
        told.insert(row[0].clone());
    }
    assert_eq!(Config::parse(&text, "README.md"), Ok(Config::default()));
    let known: BTreeSet<String> = KEYS.iter().map(Key::full).collect();
    assert_eq!(told, known);
    for key in KEYS {
        let row = table.iter().find(|row| row[0] == key.full()).unwrap();
        let restart = key.effect == Effect::Restart;
        assert_eq!(row[2].ends_with("restart"), restart, "{}: {}", key.full(), row[2]);
    }
}

#[test]
fn a_test_with_a_main_of_its_own_is_run_as_one() {
    let manifest: toml::Table = MANIFEST.parse().unwrap();
    let listed = manifest["test"].as_array().unwrap();
    let own = |name: &str| {
        let entry = listed.iter().find(|t| t["name"].as_str() == Some(name));
        entry.and_then(|t| t.get("harness")).and_then(toml::Value::as_bool) == Some(false)
    };
    for file in fs::read_dir(root().join("tests")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let has_main = text.lines().any(|line| line.starts_with("fn main("));
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert_eq!(has_main, own(name), "{name}: a main, and `harness = false` in Cargo.toml");
        }
    }
}
