//! The client's session against a server in this process: nothing is lost and nothing comes twice,
//! however the connection breaks; every refusal is told from every other; no byte of a hostile
//! server makes the client panic or hang.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::fake_server::{FakeServer, Mood, record};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use papayachat::client::backoff::Backoff;
use papayachat::client::outbox::Manner;
use papayachat::client::session::{Happening, Options, Session, Step, TextError};
use papayachat::exit::{Exit, Failure};
use papayachat::room::offset::Offset;
use papayachat::token::Secret;
use papayachat::wire::command::Start;
use papayachat::wire::event::{ByeReason, Event, Refusal, Rejection, log_header};

/// Far beyond what anything here takes: reaching it is a failure, not a measurement.
const LONG: Duration = Duration::from_secs(60);

fn hurried(start: Start) -> Options {
    let backoff = Backoff::beginning_with(Duration::from_millis(1));
    Options { start, backoff, ..Options::default() }
}

fn connect_with(server: &FakeServer, options: Options) -> Result<Session, Failure> {
    Session::connect(server.address.to_string().parse().unwrap(), server.token.clone(), options)
}

fn connect(server: &FakeServer, start: Start) -> Session {
    connect_with(server, hurried(start)).unwrap()
}

/// Steps until `enough`, and gives everything that happened.
fn run(
    session: &mut Session,
    mut enough: impl FnMut(&Session, &Happening) -> bool,
) -> Vec<Happening> {
    let until = Instant::now() + LONG;
    let mut all = Vec::new();
    loop {
        match session.step(None, Some(until)).unwrap() {
            Step::Happened(happening) => {
                let done = enough(session, &happening);
                all.push(happening);
                if done {
                    return all;
                }
            }
            other => panic!("{other:?} after {all:?}"),
        }
    }
}

fn failure(server: &FakeServer, options: Options) -> Failure {
    let mut session = match connect_with(server, options) {
        Ok(session) => session,
        Err(failure) => return failure,
    };
    let until = Instant::now() + LONG;
    loop {
        match session.step(None, Some(until)) {
            Ok(Step::Happened(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(failure) => return failure,
        }
    }
}

fn texts(happenings: &[Happening]) -> Vec<String> {
    let text = |h: &Happening| match h {
        Happening::Line { record, .. } => record.text.clone(),
        _ => None,
    };
    happenings.iter().filter_map(text).collect()
}

#[test]
fn a_message_is_acknowledged_by_its_echo() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::End);
    assert_eq!(session.welcome().room, "lobby");
    let id = session.say(Manner::Say, "hello".into()).unwrap();
    let all = run(&mut session, |_, h| matches!(h, Happening::Acknowledged { .. }));
    assert!(matches!(all.last(), Some(Happening::Acknowledged { id: acked }) if *acked == id));
    assert_eq!(texts(&all), ["hello"]);
    assert!(session.unacknowledged().is_empty());
    session.leave();
}

#[test]
fn an_echo_of_someone_else_with_the_same_id_acknowledges_nothing() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::End);
    server.set_mood(Mood::Full(usize::MAX));
    let id = session.say(Manner::Say, "mine".into()).unwrap();
    server.append(record("mallory", Some(id.as_str()), None, Some("forged")).as_bytes());
    run(&mut session, |_, h| matches!(h, Happening::Line { .. }));
    assert_eq!(session.unacknowledged().len(), 1);
}

#[test]
fn history_comes_before_the_end_is_reached_and_foreign_lines_are_left_out() {
    let server = FakeServer::start();
    server.say("bob", "one");
    server.append(b"torn {\"ts\"\n\xff\xfe\n\n[]\n{\"ts\":\"2026-11-22T22:23:01Z\"}\n");
    server.append(record("\u{1b}[2J", Some("i"), None, Some("bad name")).as_bytes());
    server.append(&[&vec![b'x'; 700_000][..], b"\n"].concat());
    server.say("bob", "two");
    let mut session = connect(&server, Start::From(Offset(0)));
    let all = run(&mut session, |_, h| matches!(h, Happening::CaughtUp));
    assert_eq!(texts(&all), ["one", "two"]);
    assert_eq!(session.position(), Offset(server.log().len() as u64));
    let log = server.log();
    for happening in &all {
        if let Happening::Line { offset, line, .. } = happening {
            assert!(log[offset.0 as usize..].starts_with(line));
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_twice_when_the_connection_is_cut_500_times() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::From(Offset(0)));
    server.set_mood(Mood::Cuts(40_000));
    server.cut_all();
    let mut said = Vec::new();
    let mut seen = Vec::new();
    let mut rounds = 0;
    while server.connections() < 500 || !session.unacknowledged().is_empty() {
        rounds += 1;
        assert!(rounds < 2_000_000, "{} connections", server.connections());
        while session.has_room() && server.connections() < 500 {
            let text = format!("message {} {}", said.len(), "x".repeat(said.len() % 300));
            session.say(Manner::Say, text.clone()).unwrap();
            said.push(text);
        }
        match session.step(None, Some(Instant::now() + LONG)).unwrap() {
            Step::Happened(Happening::Line { record, .. }) => seen.extend(record.text),
            Step::Happened(_) => {}
            other => panic!("{other:?}"),
        }
    }
    while let Some(happening) = session.take() {
        if let Happening::Line { record, .. } = happening {
            seen.extend(record.text);
        }
    }
    assert!(said.len() > 500, "only {} messages", said.len());
    assert_eq!(server.texts(), said, "the log has every message once and in order");
    assert_eq!(seen, said, "the client has seen the same");
}

#[test]
fn what_may_have_been_stored_and_removed_is_not_sent_twice_and_the_sender_is_told() {
    let server = FakeServer::start();
    server.say("bob", "one");
    let mut session = connect(&server, Start::From(Offset(0)));
    run(&mut session, |_, h| matches!(h, Happening::CaughtUp));
    // It is sent; whether it was stored before the log was removed, nobody can see any more.
    server.set_mood(Mood::Swallows);
    session.say(Manner::Say, "perhaps".into()).unwrap();
    // Not only sent: what the server has not read yet when it is cut off, it would read later.
    while server.swallowed() == 0 {
        session.step(None, Some(Instant::now() + Duration::from_millis(1))).unwrap();
    }
    let before = session.position();
    server.cut_all();
    server.say("carol", "removed");
    server.prune();
    server.say("bob", "two");
    server.set_mood(Mood::Kind);
    let all = run(&mut session, |_, h| matches!(h, Happening::CaughtUp));
    let hole = |h: &Happening| matches!(h, Happening::Pruned { from, .. } if *from == before);
    assert_eq!(all.iter().filter(|h| hole(h)).count(), 1, "{all:?}");
    let told = |h: &Happening| match h {
        Happening::Uncertain { pending } => Some(pending.text.clone()),
        _ => None,
    };
    assert_eq!(all.iter().filter_map(told).collect::<Vec<_>>(), ["perhaps"]);
    session.say(Manner::Say, "for sure".into()).unwrap();
    run(&mut session, |_, h| matches!(h, Happening::Acknowledged { .. }));
    assert_eq!(server.texts(), ["one", "removed", "two", "for sure"]);
}

#[test]
fn a_server_that_removes_what_was_shown_already_breaks_the_protocol() {
    let server = FakeServer::start();
    server.say("bob", "one");
    let mood = Mood::Says(Event::Pruned { to: Offset(0) }.encode_plaintext().to_vec());
    let mut session = connect(&server, Start::From(Offset(0)));
    run(&mut session, |_, h| matches!(h, Happening::CaughtUp));
    server.set_mood(mood);
    server.cut_all();
    let until = Instant::now() + LONG;
    let failure = loop {
        match session.step(None, Some(until)) {
            Ok(Step::Happened(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.exit, Exit::Internal);
}

#[test]
fn a_returning_session_uses_its_ticket_and_falls_back_to_the_secret() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::End);
    assert_eq!(server.joins(), (1, 0));
    server.cut_all();
    run(&mut session, |_, h| matches!(h, Happening::Joined { again: true }));
    assert_eq!(server.joins(), (1, 1));
    server.set_mood(Mood::RefusesTickets);
    server.cut_all();
    let all = run(&mut session, |_, h| matches!(h, Happening::Joined { again: true }));
    assert_eq!(server.joins(), (2, 2));
    let lost = all.iter().filter(|h| matches!(h, Happening::Lost { .. })).count();
    assert_eq!(lost, 1, "the fall-back is no second loss: {all:?}");
}

#[test]
fn a_full_disk_delays_messages_but_loses_none() {
    let server = FakeServer::start_in(Mood::Full(30));
    let mut session = connect(&server, Start::End);
    for n in 0..10 {
        session.say(Manner::Say, n.to_string()).unwrap();
    }
    let all = run(&mut session, |s, _| s.unacknowledged().is_empty());
    assert!(all.iter().any(|h| matches!(h, Happening::Stalled { .. })));
    let mut stored = server.texts();
    stored.sort();
    assert_eq!(stored, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_rejected_message_is_given_back() {
    let server = FakeServer::start_in(Mood::Rejects(Rejection::Role));
    let mut session = connect(&server, Start::End);
    session.say(Manner::Say, "may I?".into()).unwrap();
    let all = run(&mut session, |_, h| matches!(h, Happening::Rejected { .. }));
    let Some(Happening::Rejected { pending, reason, .. }) = all.last() else { unreachable!() };
    assert_eq!((pending.text.as_str(), *reason), ("may I?", Rejection::Role));
    assert!(session.unacknowledged().is_empty());
}

#[test]
fn texts_that_the_room_cannot_take_are_refused_before_they_are_sent() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::End);
    let mut say = |text: &str| session.say(Manner::Say, text.into()).map(|_| ());
    assert_eq!(say(""), Err(TextError::Empty));
    assert_eq!(say("a\0"), Err(TextError::Nul));
    let too_long = TextError::TooLong { bytes: 4098, limit: 4096 };
    assert_eq!(say(&"ä".repeat(2049)), Err(too_long));
    assert_eq!(say(&"ä".repeat(2048)), Ok(()));
}

#[test]
fn every_refusal_has_its_own_sentence_and_code() {
    let mut sentences = Vec::new();
    for (reason, exit) in [
        (Refusal::Unknown, Exit::Refused),
        (Refusal::WrongSecret, Exit::Refused),
        (Refusal::Expired, Exit::Refused),
        (Refusal::Revoked, Exit::Refused),
        (Refusal::Sessions, Exit::Unavailable),
        (Refusal::Offset, Exit::BadData),
        (Refusal::BadJoin, Exit::Internal),
        (Refusal::Internal, Exit::Unavailable),
    ] {
        let server = FakeServer::start_in(Mood::Refuses(reason));
        let failure = failure(&server, hurried(Start::End));
        assert_eq!(failure.exit, exit, "{reason:?}");
        assert!(failure.message.contains(&server.address.to_string()));
        assert!(!failure.message.contains(char::is_control), "{}", failure.message);
        sentences.push(failure.message.replace(&server.address.to_string(), ""));
    }
    sentences.sort();
    sentences.dedup();
    assert_eq!(sentences.len(), 8, "{sentences:#?}");
}

#[test]
fn a_wrong_secret_a_wrong_key_and_an_unreachable_server_are_told_apart() {
    let mut server = FakeServer::start();
    server.token.secret = Secret([9; 32]);
    let wrong = failure(&server, hurried(Start::End));
    assert_eq!(wrong.exit, Exit::Refused);
    assert!(wrong.message.contains("secret"), "{wrong}");

    server.token.server = FakeServer::start().token.server;
    let wrong = failure(&server, hurried(Start::End));
    assert_eq!(wrong.exit, Exit::Refused);
    assert!(wrong.message.contains("does not hold the key that this token names"), "{wrong}");

    // Nobody listens there, and nobody else is given the port meanwhile.
    let (taken, address) = port_without_a_listener();
    let token = server.token.clone();
    let gone = Session::connect(address.to_string().parse().unwrap(), token, hurried(Start::End));
    let gone = gone.err().unwrap();
    assert_eq!(gone.exit, Exit::Unavailable);
    assert!(
        gone.message.contains(&format!("cannot reach {address}: connection refused")),
        "{gone}"
    );
    drop(taken);
}

/// A socket that is bound and does not listen, and its address.
fn port_without_a_listener() -> (OwnedFd, SocketAddr) {
    let any = SockaddrIn::new(127, 0, 0, 1, 0);
    let taken =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(taken.as_raw_fd(), &any).unwrap();
    let address: SockaddrIn = getsockname(taken.as_raw_fd()).unwrap();
    (taken, SocketAddrV4::from(address).into())
}

#[test]
fn what_answers_the_hello_is_named() {
    for (answer, exit, words) in [
        (vec![1], Exit::Unavailable, "full or closing"),
        (vec![2, 9], Exit::Unavailable, "version 9"),
        (vec![3], Exit::Refused, "does not hold the key"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Exit::Unavailable,
            "not a papayachat server",
        ),
        (vec![0; 49], Exit::Refused, "does not hold the key"),
        (vec![0; 48], Exit::Unavailable, "closed"),
        (vec![2], Exit::Unavailable, "closed"),
        (vec![], Exit::Unavailable, "closed"),
    ] {
        let server = FakeServer::start_in(Mood::Greets(answer.clone()));
        let failure = failure(&server, hurried(Start::End));
        assert_eq!(failure.exit, exit, "{answer:?}: {failure}");
        assert!(failure.message.contains(words), "{answer:?}: {failure}");
    }
}

#[test]
fn garbage_after_the_handshake_ends_in_an_error_and_never_in_a_panic() {
    let pong = Event::Pong { n: 1 }.encode_plaintext().to_vec();
    let log = [&log_header(Offset(0))[..], b"{}\n"].concat();
    for plaintext in
        [log, b"L123".to_vec(), b"C".to_vec(), b"C[]".to_vec(), b"C{\"event\":1}".to_vec()]
    {
        let server = FakeServer::start_in(Mood::Says(plaintext.clone()));
        let failure = failure(&server, hurried(Start::End));
        assert_eq!(failure.exit, Exit::Internal, "{plaintext:?}: {failure}");
    }
    for bytes in [vec![0, 0], vec![0, 16], [0, 17].repeat(30), vec![0xff; 70_000]] {
        let server = FakeServer::start_in(Mood::Spits(bytes));
        assert_eq!(failure(&server, hurried(Start::End)).exit, Exit::Unavailable);
    }
    // Harmless: an early pong, and a type of a newer server. The server then stays silent.
    for plaintext in [pong, b"Znew".to_vec()] {
        let server = FakeServer::start_in(Mood::Says(plaintext));
        let options = Options { join_within: Duration::from_millis(50), ..hurried(Start::End) };
        assert!(failure(&server, options).message.contains("nothing came"));
    }
}

#[test]
fn a_server_that_never_answers_is_not_waited_for_for_ever() {
    let server = FakeServer::start_in(Mood::Mute);
    let options = Options { join_within: Duration::from_millis(50), ..hurried(Start::End) };
    let failure = failure(&server, options);
    assert_eq!(failure.exit, Exit::Unavailable);
}

#[test]
fn an_orderly_end_is_final_or_not_as_the_server_says() {
    for (reason, exit) in [
        (ByeReason::Kicked, Exit::Refused),
        (ByeReason::Revoked, Exit::Refused),
        (ByeReason::Expired, Exit::Refused),
        (ByeReason::Protocol, Exit::Internal),
    ] {
        let server = FakeServer::start_in(Mood::Dismisses(reason, false));
        assert_eq!(failure(&server, hurried(Start::End)).exit, exit, "{reason:?}");
    }
    let server = FakeServer::start_in(Mood::Dismisses(ByeReason::Shutdown, true));
    let mut session = connect(&server, Start::End);
    run(&mut session, |_, h| matches!(h, Happening::Lost { .. }));
    server.set_mood(Mood::Kind);
    session.say(Manner::Say, "back".into()).unwrap();
    run(&mut session, |s, _| s.unacknowledged().is_empty());
    assert_eq!(server.texts(), ["back"]);
}

#[test]
fn a_server_that_does_not_read_cannot_stop_the_client_from_reading() {
    let server = FakeServer::start_in(Mood::Deaf);
    let mut session = connect(&server, Start::End);
    // Far more in both directions than any socket buffer holds.
    while session.has_room() {
        session.say(Manner::Say, "x".repeat(4096)).unwrap();
    }
    let line = record("bob", Some("i"), None, Some(&"y".repeat(4000)));
    server.append(line.repeat(3_000).as_bytes());
    let mut lines = 0;
    run(&mut session, |_, h| {
        lines += usize::from(matches!(h, Happening::Line { .. }));
        lines == 3_000
    });
    assert!(!session.unacknowledged().is_empty());
}

#[test]
fn a_dead_connection_is_noticed_by_its_silence() {
    let server = FakeServer::start_in(Mood::Deaf);
    let options = Options {
        ping_every: Duration::from_millis(20),
        patience: Duration::from_millis(40),
        ..hurried(Start::End)
    };
    let mut session = connect_with(&server, options).unwrap();
    let all = run(&mut session, |_, h| matches!(h, Happening::Lost { .. }));
    let Some(Happening::Lost { why, .. }) = all.last() else { unreachable!() };
    assert!(why.contains("nothing came"), "{why}");
}

#[test]
fn a_caller_is_woken_even_when_the_room_is_busy() {
    let server = FakeServer::start();
    let mut session = connect(&server, Start::End);
    server.append(record("bob", Some("i"), None, Some("z")).repeat(100_000).as_bytes());
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut theirs, b"x").unwrap();
    let wake = std::os::fd::AsFd::as_fd(&ours);
    for _ in 0..10_000 {
        if matches!(session.step(Some(wake), None).unwrap(), Step::Woken) {
            return;
        }
    }
    panic!("not woken");
}
