//! What holds for every parser whatever it is given, one function a parser: an answer or an error,
//! never a panic, and no contradiction between what reads and what writes. The fuzz targets under
//! `fuzz/` and `tests/hostile_bytes_never_panic.rs` run the same functions.
#![allow(dead_code, clippy::unwrap_used)] // Each user takes its part.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use papayachat::config::Config;
use papayachat::daemon::channel::keeper_recv::{FromRecv, ToRecv};
use papayachat::daemon::channel::launcher_keeper::{FromKeeper, ToKeeper};
use papayachat::daemon::channel::launcher_listener::{FromListener, ToListener};
use papayachat::daemon::channel::{Channel, MESSAGE_MAX, recv_send::ToSend, report};
use papayachat::daemon::launcher::control::{REQUEST_MAX, Request};
use papayachat::room::record::{Record, stamp_of};
use papayachat::ticket::{Ticket, TicketError, TicketKey};
use papayachat::token::{ServerKey, Token, TokenId};
use papayachat::wire::cipher::{Opener, Sealer};
use papayachat::wire::command::Command;
use papayachat::wire::event::{ByeReason, Event, Plaintext, Refusal, Rejection};
use papayachat::wire::frame::{HEADER, MAX_CIPHERTEXT, MAX_PLAINTEXT, TAG, next_frame};
use papayachat::wire::handshake::{
    HELLO_LEN, MESSAGE_LEN, NkInitiator, NkResponder, Responder, hello_prefix_ok, parse_hello,
    public_of,
};

/// A parser's name and what holds for it.
pub type Property = (&'static str, fn(&[u8]));

/// All of them; each has a fuzz target of its name.
pub const ALL: [Property; 11] = [
    ("control", control),
    ("command", command),
    ("event", event),
    ("frame", frame),
    ("handshake", handshake),
    ("record", record),
    ("config", config),
    ("token", token),
    ("ticket", ticket),
    ("channel", channel),
    ("report", report),
];

/// A request on the control socket.
pub fn control(bytes: &[u8]) {
    let Some(request) = Request::read(bytes) else { return };
    assert!(bytes.len() <= REQUEST_MAX);
    if let Request::Kick(whom) = &request {
        assert!(!whom.is_empty() && !whom.contains(|c: char| c.is_ascii_whitespace()));
    }
    let line = request.encode();
    assert!(line.len() <= REQUEST_MAX && line.matches('\n').count() == 1);
    assert_eq!(Request::read(line.as_bytes()), Some(request));
}

/// A client's line.
pub fn command(bytes: &[u8]) {
    match Command::parse(bytes) {
        Ok(command) => {
            let line = command.encode();
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            assert!(Command::parse(line.as_bytes()).unwrap() == command);
        }
        Err(problem) => readable(&problem.to_string()),
    }
}

/// What a server sends to a client.
pub fn event(bytes: &[u8]) {
    if let Ok(Plaintext::Log(_, rest) | Plaintext::Control(rest)) = Plaintext::parse(bytes) {
        assert!(rest.len() < bytes.len());
    }
    match Event::parse(bytes) {
        Ok(event) => {
            let json = event.encode();
            assert!(!json.contains('\n'));
            // A word of a newer server is understood, and never written.
            let newer = matches!(
                event,
                Event::Refused { reason: Refusal::Other, .. }
                    | Event::Rejected { reason: Rejection::Other, .. }
                    | Event::Bye { reason: ByeReason::Other, .. }
            );
            assert_eq!(Event::parse(json.as_bytes()).ok(), (!newer).then_some(event));
        }
        Err(problem) => readable(&problem.to_string()),
    }
}

/// Frames as they come from the network, and their seal: nothing that was not sealed opens.
pub fn frame(bytes: &[u8]) {
    if let Ok(Some(length)) = next_frame(bytes) {
        assert!(length <= bytes.len() && length > HEADER + TAG - 1);
        let mut forged = bytes[HEADER..length].to_vec();
        assert!(forged.len() <= MAX_CIPHERTEXT);
        let header = [bytes[0], bytes[1]];
        assert!(Opener::new([7; 32]).open(header, &mut forged).is_err());
    }
    let text = &bytes[..bytes.len().min(MAX_PLAINTEXT)];
    let mut sealed = [&[0; HEADER][..], text, &[0; TAG][..]].concat();
    let Ok(length) = Sealer::new([7; 32]).seal(&mut sealed, text.len()) else { return };
    assert_eq!(next_frame(&sealed[..length]), Ok(Some(length)));
    let (header, rest) = sealed[..length].split_first_chunk_mut::<HEADER>().unwrap();
    assert_eq!(Opener::new([7; 32]).open(*header, rest).unwrap(), text);
}

/// Both sides' first messages.
pub fn handshake(bytes: &[u8]) {
    let Some(hello) = bytes.first_chunk::<HELLO_LEN>() else {
        hello_prefix_ok(bytes);
        return;
    };
    if let Ok(message) = parse_hello(hello) {
        assert!(hello_prefix_ok(hello));
        // Whatever it says, it says it without this server's key.
        assert!(NkResponder::new(&[1; 32]).respond(&message).is_err());
    }
    let server = ServerKey(public_of(&[1; 32]).unwrap());
    let (client, own) = NkInitiator::start(&server).unwrap();
    assert!(parse_hello(&own).is_ok());
    assert!(client.finish(bytes.first_chunk::<MESSAGE_LEN>().unwrap()).is_err());
}

/// A line of the log.
pub fn record(bytes: &[u8]) {
    let _ = stamp_of(bytes);
    match Record::parse(bytes) {
        Ok(record) => assert!(!record.is_message() || record.text.is_some()),
        Err(problem) => readable(&problem.to_string()),
    }
}

/// The configuration.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Err(errors) = Config::parse(&text, "f") else { return };
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.line <= text.matches('\n').count() + 1, "{error}");
        readable(&error.to_string());
    }
}

/// A token's text.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Token::parse(text) {
        Ok(token) => {
            let again = token.encode();
            assert!(again.eq_ignore_ascii_case(text.trim()));
            assert!(Token::parse(&again).unwrap() == token);
        }
        Err(problem) => readable(&problem.to_string()),
    }
}

/// A ticket: only the server's own is good, and only for its token and its hash.
pub fn ticket(bytes: &[u8]) {
    let key = TicketKey::derive(&[7; 32]);
    let Some((ticket, rest)) = bytes.split_first_chunk::<48>() else { return };
    let now = u64::from(rest.first().copied().unwrap_or_default());
    assert_eq!(key.verify(&Ticket(*ticket), "hash", now), Err(TicketError::Invalid));
    let mut issued = key.issue(TokenId([1; 8]), "hash", u64::from(u8::MAX));
    assert_eq!(key.verify(&issued, "hash", now).is_ok(), now < u64::from(u8::MAX));
    let place = usize::from(ticket[0]) % issued.0.len();
    issued.0[place] ^= ticket[1].max(1);
    assert_eq!(key.verify(&issued, "hash", now), Err(TicketError::Invalid));
}

/// What comes over a channel between two of the daemon's processes.
pub fn channel(bytes: &[u8]) {
    fn hear<M: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = socketpair(kind.0, kind.1, None, kind.2).unwrap();
        send(ours.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).unwrap();
        let heard = Channel::from_fd(theirs).receive::<M>();
        assert!(heard.is_ok() <= (bytes.len() <= MESSAGE_MAX), "more than a message was taken");
    }
    let bytes = &bytes[..bytes.len().min(2 * MESSAGE_MAX)];
    hear::<FromRecv>(bytes);
    hear::<ToRecv>(bytes);
    hear::<FromKeeper>(bytes);
    hear::<ToKeeper>(bytes);
    hear::<FromListener>(bytes);
    hear::<ToListener>(bytes);
    hear::<ToSend>(bytes);
}

/// A role's log line.
pub fn report(bytes: &[u8]) {
    let (_, text) = report::parse(bytes);
    assert!(!papayachat::visible::visible(&text).chars().any(char::is_control));
}

/// A message for people controls no terminal.
fn readable(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
