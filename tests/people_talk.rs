//! What one person says, another one hears; and the log says the same.

#[path = "common/service.rs"]
mod service;

use service::Service;

#[test]
fn what_one_says_another_hears() {
    let service = Service::start("");
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let said = service.papaya(&alice, "send", &["hello", "world"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let heard = service.papaya(&bob, "tail", &["--json", "--history", "5"]).output().unwrap();
    assert!(heard.status.success(), "{}", String::from_utf8_lossy(&heard.stderr));
    let heard = String::from_utf8(heard.stdout).unwrap();
    let message = heard
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .find(|r| r["kind"].is_null())
        .unwrap();
    assert_eq!(
        (message["from"].as_str(), message["text"].as_str()),
        (Some("alice"), Some("hello world"))
    );
    let records = service.records();
    assert!(records.iter().any(|r| r["from"] == "alice" && r["text"] == "hello world"));
}
