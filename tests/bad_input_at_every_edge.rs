//! Promise: whatever a client sends, it gets a clear answer or a closed connection; nobody else
//! notices, nothing that was said is lost, and no process of the service is replaced.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::io::Write;
use std::net::Shutdown;
use std::path::PathBuf;

use nix::sys::socket::{setsockopt, sockopt};
use papayachat::token::Token;
use papayachat::wire::event::{ByeReason, Event, Refusal, Rejection};
use papayachat::wire::handshake::{HELLO_LEN, NkInitiator, Status, VERSION, generate_static};
use papayachat::wire::{cipher::Sealer, hex};
use processes::Unharmed;
use raw_client::{RawClient, connect, join_line, read_to_end, read_token, write};
use service::Service;

/// A service, a person who talks in it all the time, and a token for the one who misbehaves.
struct Edge {
    service: Service,
    unharmed: Unharmed,
    bystander: RawClient,
    said: usize,
    file: PathBuf,
    token: Token,
}

impl Edge {
    fn open(more: &str) -> Self {
        let service = Service::start(more);
        let unharmed = Unharmed::note(&service);
        let bob = read_token(&service.token("bob", &[]));
        let (bystander, _) = RawClient::join(service.port, &bob, 1);
        let file = service.token("alice", &[]);
        let token = read_token(&file);
        let mut edge = Self { service, unharmed, bystander, said: 0, file, token };
        edge.others_talk();
        edge
    }

    /// The bystander says something and hears it.
    fn others_talk(&mut self) {
        self.said += 1;
        let text = format!("all is well {:04}", self.said);
        self.bystander.say(&format!("b{}", self.said), &text);
        self.bystander.hear(&text);
    }

    fn hello(&self) -> [u8; HELLO_LEN] {
        NkInitiator::start(&self.token.server).unwrap().1
    }

    /// What the server answers to these first bytes, after which nothing more comes.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = connect(self.service.port);
        write(&mut stream, bytes);
        let _ = stream.shutdown(Shutdown::Write); // The server may have hung up before.
        read_to_end(&mut stream)
    }

    fn shaken(&self) -> RawClient {
        RawClient::shake(self.service.port, &self.token)
    }

    fn joined(&self, session: u128) -> RawClient {
        RawClient::join(self.service.port, &self.token, session).0
    }

    /// At the end: everything the bystander said is in the log, and the service is as it was.
    fn close(mut self) {
        self.others_talk();
        let records = self.service.records();
        let of_bystander = records.iter().filter(|r| r["from"] == "bob" && r["text"].is_string());
        assert_eq!(of_bystander.count(), self.said);
        self.unharmed.check(&mut self.service, &self.file);
    }
}

#[test]
fn what_is_no_hello_gets_no_answer() {
    let mut edge = Edge::open("");
    let hello = edge.hello();
    for length in 0..HELLO_LEN {
        assert_eq!(edge.answer(&hello[..length]), b"", "a hello cut at {length}");
    }
    for at in 0..4 {
        let mut wrong = hello;
        wrong[at] ^= 0x20;
        assert_eq!(edge.answer(&wrong), b"", "a wrong magic at {at}");
    }
    edge.others_talk();
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xab; 500]].concat();
    for foreign in [
        &b"GET / HTTP/1.1\r\nHost: papaya\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"NICK a\r\nUSER a 0 * :a\r\n",
        b"\n",
        b"\0",
        &tls,
        &[0xff; 100_000],
    ] {
        assert_eq!(edge.answer(foreign), b"", "{:?}", &foreign[..1]);
    }
    edge.close();
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let edge = Edge::open("");
    let answer = [Status::Version as u8, VERSION];
    for version in [0, 2, b'G', 0xff] {
        let mut hello = edge.hello();
        hello[4] = version;
        assert_eq!(edge.answer(&hello), answer, "version {version}");
        // Whatever else that version's hello may be, the first five bytes are enough.
        let mut stream = connect(edge.service.port);
        write(&mut stream, &hello[..5]);
        assert_eq!(read_to_end(&mut stream), answer, "version {version}, five bytes");
    }
    edge.close();
}

#[test]
fn a_damaged_handshake_or_one_for_another_server_fails() {
    let mut edge = Edge::open("");
    let failed = [Status::Failed as u8];
    for at in 5..HELLO_LEN {
        let mut hello = edge.hello();
        hello[at] ^= 0x80;
        assert_eq!(edge.answer(&hello), failed, "damaged at {at}");
    }
    edge.others_talk();
    let other = papayachat::token::ServerKey(generate_static().unwrap().1);
    assert_eq!(edge.answer(&NkInitiator::start(&other).unwrap().1), failed);
    for point in [[0; 32], [0xff; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let mut hello = edge.hello();
        hello[5..37].copy_from_slice(&point);
        assert_eq!(edge.answer(&hello), failed, "{point:?}");
    }
    edge.close();
}

#[test]
fn frames_that_are_none_end_the_connection() {
    let mut edge = Edge::open("");
    let mut bad: Vec<Vec<u8>> = (0..=16u16).map(|n| n.to_be_bytes().to_vec()).collect();
    bad.push([&[0xff, 0xff][..], &[0x55; 65_535]].concat());
    bad.push([&[0, 17][..], &[0; 17]].concat());
    bad.push([&[0xff, 0xff][..], &[1; 100]].concat()); // Cut: its sender is gone.
    for bytes in &bad {
        let mut client = edge.shaken();
        write(&mut client.stream, bytes);
        let _ = client.stream.shutdown(Shutdown::Write);
        assert!(client.events_to_end().is_empty(), "{:?}", &bytes[..2]);
    }
    edge.others_talk();
    // The same in the room: there is somebody to say why.
    for (session, bytes) in bad.iter().enumerate().filter(|(_, b)| b.len() != 102) {
        let mut client = edge.joined(session as u128);
        client.say("1", "before the damage");
        client.hear("before the damage");
        write(&mut client.stream, bytes);
        said_goodbye(&mut client);
    }
    edge.close();
}

/// The connection ends with the word that what came is not of this protocol.
fn said_goodbye(client: &mut RawClient) {
    let events = client.events_to_end();
    let last = events.last();
    let good = matches!(last, Some(Event::Bye { reason: ByeReason::Protocol, retry: false, .. }));
    assert!(good, "{events:?}");
}

#[test]
fn every_damaged_bit_of_a_sealed_line_is_noticed() {
    let edge = Edge::open("");
    let line = join_line(&edge.token, 1, "");
    let length = edge.shaken().seal(line.as_bytes()).len();
    // The header's bits make another length: too long a frame is waited for, until its sender goes.
    for at in (0..length).step_by(7).chain(length - 16..length) {
        let mut client = edge.shaken();
        let mut frame = client.seal(line.as_bytes());
        frame[at] ^= 1;
        write(&mut client.stream, &frame);
        let _ = client.stream.shutdown(Shutdown::Write);
        assert!(client.events_to_end().is_empty(), "damaged at {at}");
    }
    edge.close();
}

#[test]
fn frames_of_another_key_or_another_place_are_refused() {
    let edge = Edge::open("");
    let mut stranger = edge.shaken();
    stranger.sealer = Sealer::new([7; 32]);
    stranger.say_bytes(join_line(&edge.token, 1, "").as_bytes());
    assert!(stranger.events_to_end().is_empty());

    let mut left_out = edge.shaken();
    left_out.seal(b"the first frame, which is never sent");
    left_out.say_bytes(join_line(&edge.token, 1, "").as_bytes());
    assert!(left_out.events_to_end().is_empty());

    let mut again = edge.joined(1);
    let frame = again.seal(b"{\"cmd\":\"say\",\"id\":\"once\",\"text\":\"only once\"}\n");
    write(&mut again.stream, &frame);
    write(&mut again.stream, &frame);
    said_goodbye(&mut again);
    let log = String::from_utf8(edge.service.room_log()).unwrap();
    assert_eq!(log.matches("only once").count(), 1);
    edge.close();
}

#[test]
fn a_first_line_that_is_no_join_is_refused() {
    let mut edge = Edge::open("");
    let (id, secret) = (hex::encode(&edge.token.id.0), hex::encode(&edge.token.secret.0));
    let (id, secret) = (id.as_str(), secret.as_str());
    let session = "0".repeat(32);
    let key = |more: &str| {
        format!(
            "{{\"cmd\":\"join\",\"id\":\"{id}\",\"secret\":\"{secret}\",\"session\":\"{session}\"{more}}}"
        )
    };
    let good = key("");
    let mut lines: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "[]",
        "null",
        "0",
        "\"join\"",
        "{}",
        "{\"cmd\":null}",
        "{\"cmd\":\"say\",\"id\":\"1\",\"text\":\"hello\"}",
        "{\"cmd\":\"bye\"}",
        "{\"cmd\":\"ping\",\"n\":1}",
        "{\"cmd\":\"ticket\"}",
        "{\"cmd\":\"join\"}",
        "{\"cmd\":\"JOIN\"}",
        "[\"join\"]",
    ]
    .iter()
    .map(|l| l.as_bytes().to_vec())
    .collect();
    for (from, to) in [
        (id, &id[1..]),
        (id, "zzzzzzzzzzzzzzzz"),
        (secret, &secret[2..]),
        (secret, ""),
        (&format!("\"{secret}\"")[..], "7"),
        (&format!("\"{id}\"")[..], "null"),
        (&session[..], "short"),
        ("\"secret\"", "\"ticket\""),
        ("\"cmd\":\"join\"", "\"cmd\":[\"join\"]"),
    ] {
        assert!(good.contains(from));
        lines.push(good.replace(from, to).into_bytes());
    }
    for more in [
        ",\"from\":-1",
        ",\"from\":1.5",
        ",\"from\":\"0\"",
        ",\"from\":18446744073709551616",
        ",\"history\":-1",
        ",\"history\":4294967296",
        ",\"since\":\"yesterday\"",
        ",\"since\":7",
        ",\"from\":0,\"history\":1",
        ",\"ticket\":\"00\"",
    ] {
        lines.push(key(more).into_bytes());
    }
    lines.push(vec![0xff, 0xfe]);
    lines.push([&good.as_bytes()[..40], &[0xc3, 0x28], &good.as_bytes()[40..]].concat());
    lines.push([b"\xef\xbb\xbf", good.as_bytes()].concat());
    lines.push(format!("{good}{good}").into_bytes());
    lines.push(good.replace("join\"", "join\0\"").into_bytes());
    lines.push("[".repeat(20_000).into_bytes());
    lines.push("{\"cmd\":".repeat(3000).into_bytes());
    for line in &lines {
        let mut client = edge.shaken();
        client.say_bytes(&[line, &b"\n"[..]].concat());
        let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        refused(&mut client, Refusal::BadJoin, &shown);
    }
    edge.others_talk();
    for (more, reason) in [
        (",\"from\":1", Refusal::Offset),
        (",\"from\":18446744073709551615", Refusal::Offset),
        (",\"from\":9223372036854775807", Refusal::Offset),
    ] {
        let mut client = edge.shaken();
        client.say_bytes(format!("{}\n", key(more)).as_bytes());
        refused(&mut client, reason, more);
    }
    let mut unknown = Token::parse(&edge.token.encode()).unwrap();
    unknown.id.0[0] ^= 1;
    let mut wrong = Token::parse(&edge.token.encode()).unwrap();
    wrong.secret.0[0] ^= 1;
    for (token, reason) in [(unknown, Refusal::Unknown), (wrong, Refusal::WrongSecret)] {
        let mut client = edge.shaken();
        client.say_bytes(join_line(&token, 1, "").as_bytes());
        refused(&mut client, reason, "another token");
    }
    edge.close();
}

fn refused(client: &mut RawClient, wanted: Refusal, what: &str) {
    let events = client.events_to_end();
    let [Event::Refused { reason, message }] = &events[..] else {
        panic!("{what}: {events:?}");
    };
    assert_eq!(*reason, wanted, "{what}");
    assert!(message.len() > 10 && !message.contains(char::is_control), "{message:?}");
}

#[test]
fn lines_without_an_end_do_not_grow() {
    let edge = Edge::open("[limits]\nmessage_bytes = 64");
    // Before the token, without an end and with one behind everything.
    for end in [&b""[..], b"\n"] {
        let mut client = edge.shaken();
        client.say_bytes(&vec![b'x'; 200_000]);
        client.say_bytes(if end.is_empty() { b"x" } else { end });
        assert!(client.events_to_end().is_empty());
    }
    let mut client = edge.joined(1);
    client.say("1", "short enough");
    client.say_bytes(&vec![b' '; 200_000]);
    said_goodbye(&mut client);
    let records = edge.service.records();
    assert!(records.iter().any(|r| r["text"] == "short enough"), "{records:?}");
    edge.close();
}

#[test]
fn commands_that_are_none_are_rejected_and_the_session_goes_on() {
    let mut edge = Edge::open("[limits]\nmessage_bytes = 100\nburst = 1000");
    let mut client = edge.joined(1);
    let say = |id: &str, text: &str| {
        serde_json::json!({"cmd": "say", "id": id, "text": text}).to_string()
    };
    let long_id = "i".repeat(65);
    let cases = [
        (say("a", ""), Some("a"), Rejection::Empty),
        (say("a", &"x".repeat(101)), Some("a"), Rejection::TooLong),
        (say("a", &"ä".repeat(51)), Some("a"), Rejection::TooLong),
        (say("a", &"\u{1}".repeat(101)), Some("a"), Rejection::TooLong),
        (say("a", "nul \0 in it"), Some("a"), Rejection::BadText),
        (say("", "x"), None, Rejection::BadId),
        (say("a b", "x"), None, Rejection::BadId),
        (say("\u{1b}[2J", "x"), None, Rejection::BadId),
        (say(&long_id, "x"), None, Rejection::BadId),
        ("{\"cmd\":\"say\",\"id\":\"a\"}".into(), Some("a"), Rejection::BadText),
        ("{\"cmd\":\"say\",\"id\":7,\"text\":\"x\"}".into(), None, Rejection::BadCommand),
        ("{\"cmd\":\"say\",\"id\":\"a\",\"text\":[]}".into(), None, Rejection::BadCommand),
        ("{\"cmd\":\"notice\",\"id\":\"a\",\"text\":\"x\"}".into(), Some("a"), Rejection::Role),
        ("{\"cmd\":\"dance\"}".into(), None, Rejection::BadCommand),
        ("{\"cmd\":\"ping\"}".into(), None, Rejection::BadCommand),
        ("{\"cmd\":\"ping\",\"n\":-1}".into(), None, Rejection::BadCommand),
        ("{\"cmd\":\"join\"}".into(), None, Rejection::BadCommand),
        (join_line(&edge.token, 1, "").trim_end().to_owned(), None, Rejection::BadCommand),
        ("{}".into(), None, Rejection::BadCommand),
        ("[\"say\",\"a\",\"x\"]".into(), None, Rejection::BadCommand),
        ("7".into(), None, Rejection::BadCommand),
    ];
    for (number, (line, id, reason)) in cases.iter().enumerate() {
        client.say_bytes(format!("{line}\n").as_bytes());
        match client.event() {
            Some(Event::Rejected { id: found, reason: why, .. }) => {
                assert_eq!((found.as_deref(), why), (*id, *reason), "{line:?}");
            }
            other => panic!("{line:?}: {other:?}"),
        }
        client.say(&format!("good-{number}"), &format!("after {number}."));
        client.hear(&format!("after {number}."));
    }
    // What is odd but allowed is stored as it was said.
    for text in ["\u{1b}[2J\u{7}", "two\nlines", "\u{202e}right to left", "\u{fffd}", "\u{10ffff}"]
    {
        client.say("odd", text);
        client.say_bytes(b"{\"cmd\":\"ping\",\"n\":18446744073709551615,\"more\":{}}\n");
        assert!(matches!(client.event(), Some(Event::Pong { n: u64::MAX })));
        assert!(edge.service.records().iter().any(|r| r["text"] == text), "{text:?}");
    }
    // Somebody else's name is not for the client to say.
    client.say_bytes(b"{\"cmd\":\"say\",\"id\":\"f\",\"text\":\"forged\",\"name\":\"bob\",\"ts\":\"2001-01-01T00:00:00Z\"}\n");
    client.hear("forged");
    let records = edge.service.records();
    let forged = records.iter().find(|r| r["text"] == "forged").unwrap();
    assert_eq!(forged["from"], "alice");
    assert!(!forged["ts"].as_str().unwrap().starts_with("2001"));
    let stored = records.iter().filter(|r| r["from"] == "alice" && r["text"].is_string()).count();
    assert_eq!(stored, cases.len() + 5 + 1, "what was rejected is not in the log");
    edge.others_talk();
    edge.close();
}

#[test]
fn a_readonly_token_only_reads() {
    let edge = Edge::open("");
    let token = read_token(&edge.service.token("reader", &["--role", "readonly"]));
    let (mut reader, _) = RawClient::join(edge.service.port, &token, 1);
    reader.say("1", "I was told not to");
    assert!(matches!(reader.event(), Some(Event::Rejected { reason: Rejection::Role, .. })));
    assert!(!String::from_utf8(edge.service.room_log()).unwrap().contains("told not to"));
    edge.close();
}

#[test]
fn a_line_that_is_no_json_ends_the_session_and_what_was_said_before_is_kept() {
    let edge = Edge::open("");
    let broken: [&[u8]; 7] = [
        b"",
        b"hello",
        b"{\"cmd\":\"say\",\"id\":\"x\",\"text\":\"cut",
        b"{\"cmd\":\"say\",\"id\":\"x\",\"text\":\"\xff\"}",
        b"{\"cmd\":\"say\",\"id\":\"x\",\"text\":\"\xed\xa0\x80\"}",
        b"{\"cmd\":\"say\",\"id\":\"x\",\"text\":\"\\ud800\"}",
        b"{\"cmd\":\"ping\",\"n\":1}}",
    ];
    for (number, line) in broken.into_iter().enumerate() {
        let mut client = edge.joined(number as u128);
        // In one frame, so that one read of RECV has all of it.
        let before =
            format!("{{\"cmd\":\"say\",\"id\":\"k{number}\",\"text\":\"kept {number}.\"}}\n");
        let after = "\n{\"cmd\":\"say\",\"id\":\"never\",\"text\":\"never\"}\n";
        client.say_bytes(&[before.as_bytes(), line, after.as_bytes()].concat());
        said_goodbye(&mut client);
        let log = String::from_utf8(edge.service.room_log()).unwrap();
        assert!(log.contains(&format!("kept {number}.")), "{:?}", String::from_utf8_lossy(line));
        assert!(!log.contains("never"));
    }
    edge.close();
}

#[test]
fn whoever_shows_no_token_in_time_is_let_go() {
    // Long enough for those who are to get as far as the handshake, also on a busy machine.
    let mut edge = Edge::open("[limits]\ngrace = \"10s\"");
    let mut silent = connect(edge.service.port);
    let mut slow = connect(edge.service.port);
    slow.write_all(&edge.hello()[..20]).unwrap();
    let mut mute = edge.shaken();
    let mut half = edge.shaken();
    let frame = half.seal(join_line(&edge.token, 1, "").as_bytes());
    half.stream.write_all(&frame[..frame.len() - 1]).unwrap();
    let mut no_end = edge.shaken();
    no_end.say_bytes(join_line(&edge.token, 1, "").trim_end().as_bytes());
    edge.others_talk();
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut slow), b"");
    for mut client in [mute_of(&mut mute), mute_of(&mut half), mute_of(&mut no_end)] {
        assert_eq!(read_to_end(&mut client), b"");
    }
    edge.service.wait_for_line("no token within the grace time");
    edge.close();
}

fn mute_of(client: &mut RawClient) -> std::net::TcpStream {
    client.stream.try_clone().unwrap()
}

/// xorshift64*: the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    /// Flips, cuts, repeats, inserts or swaps somewhere.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            let length = 1 + self.below((bytes.len() - at).min(64));
            match self.below(7) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..at + length)),
                3 => {
                    let part = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, part);
                }
                4 => bytes.insert(at, [0, b'\n', b'"', b'{', 0xff, b'\\', b'9'][self.below(7)]),
                5 => bytes[at..at + length].reverse(),
                _ => bytes[at] = self.below(256) as u8,
            }
        }
    }
}

/// Whoever is over its rate is not read, until its buffer has room and its time has come. If it resets the
/// connection meanwhile, that must not be asked for again and again for all that time.
#[test]
fn who_floods_and_resets_is_gone_at_once_however_long_it_had_to_wait() {
    let edge = Edge::open("[limits]\nburst = 2\nrate = \"1/h\"\n[log]\npresence = false");
    let mut alice = edge.joined(7);
    let line = |n: usize| format!("{{\"cmd\":\"say\",\"id\":\"{n}\",\"text\":\"flood {n}\"}}\n");
    // Two are allowed and the third is held, in front of a frame that takes half of RECV's buffer.
    let mut bytes = alice.seal((0..3).map(line).collect::<String>().as_bytes());
    bytes.extend(alice.seal(" ".repeat(30_000).as_bytes()));
    write(&mut alice.stream, &bytes);
    alice.hear("flood 1");
    // As much as the system takes, which is more than the other half.
    alice.stream.set_nonblocking(true).unwrap();
    while alice.stream.write(&[0; 4096]).is_ok() {}
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&alice.stream, sockopt::Linger, &reset).unwrap();
    drop(alice);
    edge.service.wait_for_status(|_, clients| !clients.iter().any(|c| c["name"] == "alice"));
}

#[test]
fn damaged_sessions_harm_nobody_else() {
    let mut edge = Edge::open("[limits]\nburst = 10000\nrate = \"1000/s\"");
    let mut random = Random(0x7061_7061_7961);
    let (_, welcome) = RawClient::join(edge.service.port, &edge.token, 1);
    // By ticket, because argon2 would take the time of the whole test.
    let id = hex::encode(&edge.token.id.0);
    let ticket = hex::encode(&welcome.ticket.0);
    let join = |session: usize| {
        format!(
            "{{\"cmd\":\"join\",\"id\":\"{}\",\"ticket\":\"{}\",\"session\":\"{session:032x}\",\"history\":3}}\n",
            *id, *ticket
        )
    };
    let lines = "{\"cmd\":\"say\",\"id\":\"f1\",\"text\":\"fuzz \\u00e4\"}\n{\"cmd\":\"ping\",\"n\":5}\n{\"cmd\":\"ticket\"}\n{\"cmd\":\"say\",\"id\":\"f2\",\"text\":\"fuzz 2\"}\n{\"cmd\":\"bye\"}\n";
    for round in 0..240 {
        match round % 3 {
            // The sealed bytes, from the hello on.
            0 => {
                let mut hello = edge.hello().to_vec();
                random.damage(&mut hello);
                edge.answer(&hello);
            }
            1 => {
                let mut client = edge.shaken();
                let mut bytes = client.seal(join(round).as_bytes());
                bytes.extend(client.seal(lines.as_bytes()));
                random.damage(&mut bytes);
                write(&mut client.stream, &bytes);
                let _ = client.stream.shutdown(Shutdown::Write);
                client.events_to_end();
            }
            // The text inside, well sealed: what a member with a good token may send.
            _ => {
                let mut client = edge.shaken();
                let mut text = [&join(round), lines].concat().into_bytes();
                let first = if random.below(2) == 0 { 0 } else { join(round).len() };
                let mut part = text.split_off(first);
                random.damage(&mut part);
                text.extend(part);
                client.say_bytes(&text);
                let _ = client.stream.shutdown(Shutdown::Write);
                client.events_to_end();
            }
        }
        if round % 40 == 0 {
            edge.others_talk();
        }
    }
    edge.close();
}
