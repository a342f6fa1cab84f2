//! Promise: `papayad token rotate` gives a name a new token; the old one goes on for the grace and
//! then ends with its sessions and its tickets; who uses the new one notices nothing.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/service.rs"]
mod service;

use std::time::Instant;

use papayachat::client::session::Step;
use papayachat::exit::{Exit, Failure};
use papayachat::token::Token;
use papayachat::wire::command::Start;
use people::{Person, hurried, read_token};
use serde_json::Value;
use service::{PATIENCE, Service};

/// Runs `token rotate --json`; the new token, and what was printed.
fn rotate(service: &Service, more: &[&str]) -> (Token, Value) {
    let text = service.admin_ok(&[&["token", "rotate", "alice", "--json"][..], more].concat());
    let line: Value = serde_json::from_str(&text).unwrap();
    (Token::parse(line["token"].as_str().unwrap()).unwrap(), line)
}

/// Waits for the end of a session; why it ended.
fn end_of(person: &mut Person) -> Failure {
    let until = Instant::now() + PATIENCE;
    loop {
        match person.session.step(None, Some(until)) {
            Ok(Step::Happened(_)) => {}
            Ok(other) => panic!("{other:?}: the session goes on"),
            Err(failure) => return failure,
        }
    }
}

fn join(service: &Service, token: &Token) -> Result<Person, Failure> {
    Person::join_with(service.address(), token, hurried(Start::End))
}

#[test]
fn both_tokens_work_during_the_grace_and_the_old_one_ends_with_its_sessions() {
    let service = Service::start("");
    let old = read_token(&service.token("alice", &[]));
    let mut before = join(&service, &old).unwrap();

    let (new, line) = rotate(&service, &["--grace", "1h"]);
    assert_eq!((&line["state"], &line["replaces"]["state"]), (&"good".into(), &"good".into()));
    assert_eq!(line["expires"], Value::Null);
    assert!(line["replaces"]["expires"].is_string(), "{line}");
    assert_ne!(old.id, new.id);
    before.say_all(["with the old token, as before".to_owned()]);
    let mut late = join(&service, &old).unwrap();
    let mut after = join(&service, &new).unwrap();
    late.say_all(["with the old token, joined anew".to_owned()]);
    after.say_all(["with the new token".to_owned()]);
    // The name has one voice.
    assert!(service.messages().iter().all(|m| m.from == "alice"));

    // The same end for the next one, only sooner, and for the first, which had an hour: whoever rotates
    // because one has leaked need not know which.
    let (newest, _) = rotate(&service, &["--grace", "2s"]);
    for (person, token) in [(&mut after, &new), (&mut before, &old)] {
        assert_eq!(end_of(person).exit, Exit::Refused);
        assert_eq!(join(&service, token).err().unwrap().exit, Exit::Refused);
    }
    join(&service, &newest).unwrap().say_all(["with the newest token".to_owned()]);
}

#[test]
fn a_ticket_of_the_old_token_ends_with_it_across_a_restart_too() {
    let mut service = Service::start("");
    let old = read_token(&service.token("alice", &[]));
    let mut person = join(&service, &old).unwrap();
    let (new, _) = rotate(&service, &["--grace", "3s"]);
    assert!(service.stop().success());
    service.restart();
    // It comes back with its ticket if that is still good, and is refused after the grace.
    assert_eq!(end_of(&mut person).exit, Exit::Refused);
    join(&service, &new).unwrap().say_all(["here".to_owned()]);
}

#[test]
fn without_a_grace_the_old_token_ends_at_once_and_what_is_revoked_by_name_ends_whole() {
    let service = Service::start("");
    let old = read_token(&service.token("alice", &[]));
    let mut person = join(&service, &old).unwrap();
    let (new, line) = rotate(&service, &["--grace", "0s"]);
    assert_eq!(line["replaces"]["state"], "revoked");
    assert_eq!(end_of(&mut person).exit, Exit::Refused);
    let mut second = join(&service, &new).unwrap();
    let (newest, _) = rotate(&service, &[]);
    let mut third = join(&service, &newest).unwrap();
    let text = service.admin_ok(&["token", "revoke", "alice", "--json"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    for person in [&mut second, &mut third] {
        assert_eq!(end_of(person).exit, Exit::Refused);
    }
}

#[test]
fn rotate_and_add_print_exactly_the_token_or_one_object() {
    let service = Service::start("");
    let text = service.admin_ok(&["token", "add", "bob", "--role", "readonly", "--json"]);
    let added: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&added["name"], &added["role"]), (&"bob".into(), &"readonly".into()));
    let printed = service.admin_ok(&["token", "rotate", added["id"].as_str().unwrap()]);
    let token = Token::parse(&printed).unwrap();
    assert_eq!(printed, format!("{}\n", *token.encode()));
    let listed = service.admin_ok(&["token", "list", "--json"]);
    let listed: Vec<Value> = listed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["role"], &listed[1]["state"]), (&"readonly".into(), &"good".into()));
    assert!(listed.iter().all(|line| line.get("token").is_none() && line.get("hash").is_none()));
    let nobody = service.admin(&["token", "rotate", "carol"]);
    assert_eq!(nobody.status.code(), Some(65), "{nobody:?}");
    assert!(nobody.stdout.is_empty());
}
