//! A connection may break at any byte, in either direction, by an orderly end or by a reset:
//! nothing is lost, nothing comes twice, and the log and its readers agree.

#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;
#[path = "common/texts.rs"]
mod texts;

use std::sync::mpsc::{Sender, channel};
use std::thread;

use papayachat::client::session::Happening;
use people::{Person, read_token};
use proxy::{Proxy, Treatment};
use random::Random;
use service::{Message, Service};

const CUTS: usize = 500;
/// Steps after which the test gives up.
const STEPS_MAX: usize = 3_000_000;

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_connection_is_cut_500_times() {
    let service = Service::start("[limits]\nrate = \"1000000/s\"\nburst = 10000\n");
    let (alice, bob) = (service.token("alice", &[]), service.token("bob", &[]));
    let (alice, bob) = (read_token(&alice), read_token(&bob));
    let mut random = Random::new(2);
    // Some end within the handshake or the join (some 900 bytes in both directions), most within
    // the conversation. The first one is left alone until the session has begun, and so are those after the last cut.
    let proxy = Proxy::treating(service.address(), move |number| match number {
        0 => Treatment::Kind,
        n if n > CUTS => Treatment::Kind,
        n if n % 4 == 0 => Treatment::CutAfter(random.below(1_500)),
        _ => Treatment::CutAfter(1_500 + random.below(30_000)),
    });
    let texts = texts::lines(10_000);
    let address = service.address();
    let (granted, grants) = channel();
    let (said, mut alice, talk) = thread::scope(|scope| {
        // Somebody else talks, too, so that there is always something to lose in both directions.
        let talker = scope.spawn(|| {
            let mut bob = Person::join(address, &bob);
            let mut talk = Vec::new();
            for (_, line) in grants.into_iter().zip(texts.iter().rev().cycle()) {
                bob.say_all([line.clone()]);
                talk.push(line.clone());
            }
            talk
        });
        let mut alice = Person::join(proxy.address, &alice);
        proxy.cut_all();
        let said = say_while_cut(&mut alice, &proxy, &texts, granted);
        (said, alice, talker.join().unwrap())
    });
    // What remains comes over a connection that nobody cuts.
    let all = said.len() + talk.len();
    while alice.seen.len() < all {
        alice.next();
    }
    let log = service.messages();
    assert_eq!(log.len(), all);
    assert_eq!(texts_of(&log, "alice"), said, "the log has every message once and in order");
    assert_eq!(texts_of(&log, "bob"), talk);
    assert!(alice.seen == log, "the client was shown something else than the log");
    assert!(said.len() > CUTS && talk.len() > CUTS, "{} and {}", said.len(), talk.len());
}

/// Talks until it was cut often enough, and until everything was acknowledged; what it said.
/// Each acknowledgement grants the other one a message, so that neither is left behind.
fn say_while_cut(
    alice: &mut Person,
    proxy: &Proxy,
    texts: &[String],
    granted: Sender<()>,
) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..STEPS_MAX {
        let more = proxy.connections() <= CUTS;
        if !more && alice.session.unacknowledged().is_empty() {
            return said;
        }
        while more && alice.session.has_room() {
            let text = texts[said.len() % texts.len()].clone();
            alice.say(&text);
            said.push(text);
        }
        if let Happening::Acknowledged { .. } = alice.next() {
            granted.send(()).unwrap();
        }
    }
    panic!("{} connections after {STEPS_MAX} steps", proxy.connections());
}

fn texts_of(log: &[Message], name: &str) -> Vec<String> {
    log.iter().filter(|m| m.from == name).map(|m| m.text.clone()).collect()
}
