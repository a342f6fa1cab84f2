//! A ticket lets its holder in without the secret, across a restart of the service; it ends with
//! its token; and who comes with a bad one is let in by the secret.
#![allow(clippy::unwrap_used)]

#[path = "common/people.rs"]
mod people;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/random.rs"]
mod random;
#[path = "common/service.rs"]
mod service;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use papayachat::client::session::Happening;
use papayachat::state::tokens::{Entry, Hasher};
use papayachat::ticket::Ticket;
use papayachat::token::{Secret, Token};
use papayachat::wire::cipher::{Opener, Sealer};
use papayachat::wire::command::{Command, Credential, Join, SessionId, Start};
use papayachat::wire::event::{ByeReason, Event, Plaintext, Refusal, Welcome};
use papayachat::wire::frame::{HEADER, TAG};
use papayachat::wire::handshake::NkInitiator;
use people::{Person, read_token};
use proxy::Proxy;
use service::{PATIENCE, Service};

/// A connection by hand, on which this test decides what proves the token.
struct Raw {
    stream: TcpStream,
    opener: Opener,
}

impl Raw {
    /// Joins, with the ticket if there is one and else with the secret; the server's answer.
    fn join(server: SocketAddr, token: &Token, ticket: Option<&Ticket>) -> (Self, Event) {
        let (initiator, hello) = NkInitiator::start(&token.server).unwrap();
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello).unwrap();
        let mut reply = [0; 49];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[0], 0);
        let keys = initiator.finish(reply[1..].try_into().unwrap()).unwrap();
        let credential = match ticket {
            Some(ticket) => Credential::Ticket(ticket.clone()),
            None => Credential::Secret(token.secret.clone()),
        };
        let join = Command::Join(Join {
            id: token.id,
            credential,
            session: SessionId([7; 16]),
            start: Start::End,
            client: None,
        });
        let line = join.encode();
        let mut frame = vec![0; HEADER + line.len() + TAG];
        frame[HEADER..HEADER + line.len()].copy_from_slice(line.as_bytes());
        Sealer::new(keys.client_to_server).seal(&mut frame, line.len()).unwrap();
        stream.write_all(&frame).unwrap();
        let mut raw = Self { stream, opener: Opener::new(keys.server_to_client) };
        let answer = raw.control();
        (raw, answer)
    }

    /// The next control event; log bytes are passed over.
    fn control(&mut self) -> Event {
        loop {
            let mut header = [0; HEADER];
            self.stream.read_exact(&mut header).unwrap();
            let mut frame = vec![0; usize::from(u16::from_be_bytes(header))];
            self.stream.read_exact(&mut frame).unwrap();
            let plaintext = self.opener.open(header, &mut frame).unwrap();
            if let Plaintext::Control(json) = Plaintext::parse(plaintext).unwrap() {
                return Event::parse(json).unwrap();
            }
        }
    }
}

fn welcome(event: Event) -> Welcome {
    match event {
        Event::Welcome(welcome) => *welcome,
        other => panic!("not let in: {other:?}"),
    }
}

/// The same, of one that may have come too late.
fn unless_expired(event: Event) -> Option<Welcome> {
    match event {
        Event::Refused { reason: Refusal::Expired, .. } => None,
        other => Some(welcome(other)),
    }
}

/// What the server says to someone who has a ticket, but no secret.
fn knock(service: &Service, token: &Token, ticket: &Ticket) -> Event {
    let without = Token { secret: Secret([0; 32]), ..token.clone() };
    Raw::join(service.address(), &without, Some(ticket)).1
}

fn first_ticket(service: &Service, token: &Token) -> Ticket {
    welcome(Raw::join(service.address(), token, None).1).ticket
}

fn refusal(event: Event) -> Refusal {
    match event {
        Event::Refused { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_ticket_joins_without_the_secret_and_survives_a_restart() {
    let mut service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let ticket = first_ticket(&service, &token);
    let next = welcome(knock(&service, &token, &ticket)).ticket;
    assert!(service.stop().success());
    service.restart();
    for ticket in [&ticket, &next] {
        let welcome = welcome(knock(&service, &token, ticket));
        assert_eq!(welcome.name.as_str(), "alice");
    }
}

#[test]
fn a_ticket_ends_when_its_token_is_revoked() {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let ticket = first_ticket(&service, &token);
    let (mut live, event) = Raw::join(service.address(), &token, Some(&ticket));
    welcome(event);
    service.admin_ok(&["token", "revoke", "alice"]);
    let told = live.control();
    assert!(
        matches!(told, Event::Bye { reason: ByeReason::Revoked, retry: false, .. }),
        "{told:?}"
    );
    assert_eq!(refusal(knock(&service, &token, &ticket)), Refusal::Revoked);
}

#[test]
fn a_ticket_ends_when_its_tokens_time_is_over() {
    let service = Service::start("");
    // A slow machine takes longer to join than a short life lasts.
    let (token, ticket, mut live) = ["5s", "15s", "60s"]
        .into_iter()
        .enumerate()
        .find_map(|(number, life)| {
            let file = service.token(&format!("alice{number}"), &["--expires", life]);
            let token = read_token(&file);
            let first = Raw::join(service.address(), &token, None).1;
            let ticket = unless_expired(first)?.ticket;
            let (live, event) = Raw::join(service.address(), &token, Some(&ticket));
            unless_expired(event)?;
            Some((token, ticket, live))
        })
        .unwrap();
    // The session itself says when: this read waits for it.
    let told = live.control();
    assert!(
        matches!(told, Event::Bye { reason: ByeReason::Expired, retry: false, .. }),
        "{told:?}"
    );
    assert_eq!(refusal(knock(&service, &token, &ticket)), Refusal::Expired);
}

#[test]
fn a_forged_ticket_and_the_ticket_of_another_let_nobody_in() {
    let service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    let other = read_token(&service.token("bob", &[]));
    let ticket = first_ticket(&service, &token);
    for place in 0..ticket.0.len() {
        let mut forged = ticket.clone();
        forged.0[place] ^= 1;
        assert_eq!(refusal(knock(&service, &token, &forged)), Refusal::Ticket, "byte {place}");
    }
    assert_eq!(refusal(knock(&service, &other, &ticket)), Refusal::Ticket);
    welcome(knock(&service, &token, &ticket));
}

#[test]
fn who_comes_back_with_a_bad_ticket_is_let_in_by_the_secret() {
    let mut service = Service::start("");
    let token = read_token(&service.token("alice", &[]));
    // That it was added is told by the same words, which must not be taken for those below.
    service.wait_for_line("the tokens were read again");
    let proxy = Proxy::start(service.address());
    let mut alice = Person::join(proxy.address, &token);
    // Another hash of the same secret: all tickets of this token are bad from now on.
    let file = service.state.join("tokens");
    let mut entry: Entry = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    entry.hash = Hasher::new().hash(&token.secret, &[9; 16]).unwrap();
    std::fs::write(&file, serde_json::to_string(&entry).unwrap() + "\n").unwrap();
    service.signal(nix::sys::signal::Signal::SIGHUP);
    service.wait_for_line("the tokens were read again");
    proxy.cut_all();
    alice.say("I am back");
    alice.until(|_, happening| matches!(happening, Happening::Joined { again: true }));
    alice.until(|alice, _| alice.session.unacknowledged().is_empty());
    service.wait_for_line("is refused: the ticket is over");
    assert_eq!(service.messages().len(), 1);
    assert_eq!(alice.returns, 1);
}
