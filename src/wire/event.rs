//! What the server says to a client besides the log: control events, one JSON object each, and the
//! first byte of a server's plaintext that tells the two apart. Made by RECV, SEND and the keeper's
//! answers; parsed by the client, to whom every byte of it is hostile. Pure.
//!
//! Unknown keys are ignored and unknown words become `Unknown`, so that a newer server does not
//! break an older client.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::frame::MAX_PLAINTEXT;
use super::hex;
use crate::room::offset::Offset;
use crate::ticket::{self, Ticket};
use crate::token::{Name, Role};

/// First byte of a plaintext that carries log bytes: offset (8 bytes, big-endian), then the bytes.
pub const LOG: u8 = b'L';
/// First byte of a plaintext that carries one control event.
pub const CONTROL: u8 = b'C';
/// Length in bytes of what stands in front of the log bytes.
pub const LOG_HEADER: usize = 9;
/// The most log bytes that fit into one frame.
pub const MAX_LOG: usize = MAX_PLAINTEXT - LOG_HEADER;

/// One plaintext from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext<'a> {
    /// Bytes of the log as they stand there; the offset is that of the first one.
    Log(Offset, &'a [u8]),
    /// One control event, for [`Event::parse`].
    Control(&'a [u8]),
    /// A type of a newer server, to be ignored.
    Unknown(u8),
}

impl<'a> Plaintext<'a> {
    /// Splits an opened frame by its type.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, EventError> {
        let (kind, rest) = plaintext.split_first().ok_or(EventError::Truncated)?;
        match *kind {
            LOG => {
                let (offset, bytes) = rest.split_first_chunk().ok_or(EventError::Truncated)?;
                Ok(Self::Log(Offset(u64::from_be_bytes(*offset)), bytes))
            }
            CONTROL => Ok(Self::Control(rest)),
            other => Ok(Self::Unknown(other)),
        }
    }
}

/// What stands in front of log bytes whose first one is at `offset`.
pub fn log_header(offset: Offset) -> [u8; LOG_HEADER] {
    let mut header = [LOG; LOG_HEADER];
    header[1..].copy_from_slice(&offset.0.to_be_bytes());
    header
}

/// The answer to a good join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The room's name.
    pub room: String,
    /// The message of the day; may be empty.
    pub motd: String,
    /// The name that the token speaks under.
    pub name: Name,
    /// What the token may do.
    pub role: Role,
    /// Offset of the first log byte that will be sent.
    pub from: Offset,
    /// The log's size at admission. Once all bytes up to here have come, whatever was stored for
    /// this client before has been echoed, and what is still pending may be sent again.
    pub end: Offset,
    /// The longest text of a message, in bytes of UTF-8.
    pub message_bytes: u32,
    /// Lets this client come back without its secret.
    pub ticket: Ticket,
    /// Until when the ticket does.
    pub ticket_expires: Timestamp,
    /// Name and version of the server's program.
    pub server: String,
}

/// A control event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The join was good; log bytes follow.
    Welcome(Box<Welcome>),
    /// The join was not good; the connection ends.
    Refused {
        /// Why, for a program.
        reason: Refusal,
        /// Why, for a person.
        message: String,
    },
    /// A command was not carried out; a message in it was not stored.
    Rejected {
        /// The message's id where it is known.
        id: Option<String>,
        /// Why, for a program.
        reason: Rejection,
        /// Why, for a person.
        message: String,
    },
    /// The answer to the ticket command.
    Ticket {
        /// The fresh ticket.
        ticket: Ticket,
        /// Until when it is good.
        ticket_expires: Timestamp,
    },
    /// The log has no bytes up to `to` any more: they were removed on purpose. The next log bytes
    /// are those at `to`, where a line begins.
    Pruned {
        /// Where the log goes on.
        to: Offset,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        n: u64,
    },
    /// The connection ends.
    Bye {
        /// Why, for a program.
        reason: ByeReason,
        /// Whether the client may come back.
        retry: bool,
        /// Why, for a person.
        message: String,
    },
    /// An event of a newer server, to be ignored.
    Unknown,
}

/// Why a join was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No such token id here.
    Unknown,
    /// The id exists, the secret is not its secret.
    WrongSecret,
    /// The token's time is over.
    Expired,
    /// The token was revoked.
    Revoked,
    /// The ticket is not usable; come back with the secret.
    Ticket,
    /// The token has as many sessions as it may have.
    Sessions,
    /// As many clients are in the room as may be.
    Full,
    /// The join line is not valid.
    BadJoin,
    /// The offset is not the beginning of a line in the log.
    Offset,
    /// The server failed.
    Internal,
    /// A word of a newer server.
    #[serde(other, skip_serializing)]
    Other,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// The text is longer than the room allows.
    TooLong,
    /// The text is empty.
    Empty,
    /// The token's role does not allow it.
    Role,
    /// The log cannot take it at the moment; try again later.
    Storage,
    /// The id is missing or not valid.
    BadId,
    /// The text is missing or contains NUL.
    BadText,
    /// No such command, or its keys have wrong types.
    BadCommand,
    /// A word of a newer server.
    #[serde(other, skip_serializing)]
    Other,
}

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByeReason {
    /// The server stops or restarts.
    Shutdown,
    /// An operator of the machine ended this connection.
    Kicked,
    /// The token was revoked.
    Revoked,
    /// The token's time is over.
    Expired,
    /// The same session joined again elsewhere.
    Replaced,
    /// The client asked for it.
    Client,
    /// The connection's process held the log's lock too long.
    Lock,
    /// Nothing came from the client for too long.
    Idle,
    /// A line was not JSON, not UTF-8, or too long.
    Protocol,
    /// A word of a newer server.
    #[serde(other, skip_serializing)]
    Other,
}

/// Why bytes of the server are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// The plaintext ends before its type or offset does.
    Truncated,
    /// Not UTF-8, not JSON, or not an object.
    NotJson,
    /// The object lacks this key, or the key's value is not valid.
    Key(&'static str),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a frame of the server is cut short"),
            Self::NotJson => f.write_str("an event of the server is not a JSON object"),
            Self::Key(key) => write!(f, "an event of the server has no valid {key:?}"),
        }
    }
}

impl std::error::Error for EventError {}

impl Event {
    /// Parses what follows the type byte of a control plaintext.
    pub fn parse(json: &[u8]) -> Result<Self, EventError> {
        let text = std::str::from_utf8(json).map_err(|_| EventError::NotJson)?;
        // serde's structs may be written as JSON arrays too; the protocol knows objects only.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(EventError::NotJson);
        }
        let raw: Raw = serde_json::from_str(text).map_err(|_| EventError::NotJson)?;
        raw.into_event()
    }

    /// The event as one JSON object, without the type byte; wiped when dropped, because it may
    /// carry a ticket.
    pub fn encode(&self) -> Zeroizing<String> {
        let hex;
        let mut raw = Raw { event: Cow::Borrowed(self.word()), ..Raw::default() };
        match self {
            Self::Welcome(welcome) => {
                hex = hex::encode(&welcome.ticket.0);
                raw.fill_welcome(welcome, &hex);
            }
            Self::Refused { reason, message } => {
                raw.reason = word_of(reason);
                raw.message = Some(Cow::Borrowed(message));
            }
            Self::Rejected { id, reason, message } => {
                raw.id = id.as_deref().map(Cow::Borrowed);
                raw.reason = word_of(reason);
                raw.message = Some(Cow::Borrowed(message));
            }
            Self::Ticket { ticket, ticket_expires } => {
                hex = hex::encode(&ticket.0);
                raw.ticket = Some(&hex);
                raw.ticket_expires = Some(Cow::Owned(ticket_expires.to_string()));
            }
            Self::Pruned { to } => raw.to = Some(to.0),
            Self::Pong { n } => raw.n = Some(*n),
            Self::Bye { reason, retry, message } => {
                raw.reason = word_of(reason);
                raw.retry = Some(*retry);
                raw.message = Some(Cow::Borrowed(message));
            }
            Self::Unknown => {}
        }
        to_json(&raw)
    }

    /// A whole plaintext, type byte included, ready to be sealed.
    pub fn encode_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let json = self.encode();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(1 + json.len()));
        plaintext.push(CONTROL);
        plaintext.extend_from_slice(json.as_bytes());
        plaintext
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Refused { .. } => "refused",
            Self::Rejected { .. } => "rejected",
            Self::Ticket { .. } => "ticket",
            Self::Pruned { .. } => "pruned",
            Self::Pong { .. } => "pong",
            Self::Bye { .. } => "bye",
            Self::Unknown => "unknown",
        }
    }
}

/// Serialises into a buffer of just the size and a line's end, which does not grow, so that no unwiped
/// copy of a secret stays behind.
pub(super) fn to_json<T: Serialize>(value: &T) -> Zeroizing<String> {
    let mut length = Length(0);
    // Neither can fail: both take everything, and no map here has keys other than strings.
    let _ = serde_json::to_writer(&mut length, value);
    let mut bytes = Vec::with_capacity(length.0 + 1);
    let _ = serde_json::to_writer(&mut bytes, value);
    Zeroizing::new(String::from_utf8(bytes).unwrap_or_default())
}

/// How many bytes were written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A reason as the word on the wire; the catch-all of newer words has none.
fn word_of<T: Serialize>(reason: &T) -> Option<Cow<'static, str>> {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(word)) => Some(Cow::Owned(word)),
        _ => None,
    }
}

/// Every key of every event; a key has the same type wherever it stands.
#[derive(Default, Serialize, Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    motd: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<bool>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_bytes: Option<u32>,
    /// Borrowed, so that a ticket is not copied; a string with escapes is refused.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    ticket_expires: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    server: Option<Cow<'a, str>>,
}

impl<'a> Raw<'a> {
    fn into_event(self) -> Result<Event, EventError> {
        match &*self.event {
            "welcome" => self.into_welcome(),
            "refused" => {
                Ok(Event::Refused { reason: self.reason_word()?, message: text(self.message) })
            }
            "rejected" => Ok(Event::Rejected {
                reason: self.reason_word()?,
                id: self.id.map(Cow::into_owned),
                message: text(self.message),
            }),
            "ticket" => {
                let (ticket, ticket_expires) = self.ticket()?;
                Ok(Event::Ticket { ticket, ticket_expires })
            }
            "pruned" => Ok(Event::Pruned { to: Offset(self.to.ok_or(EventError::Key("to"))?) }),
            "pong" => Ok(Event::Pong { n: self.n.ok_or(EventError::Key("n"))? }),
            "bye" => Ok(Event::Bye {
                reason: self.reason_word()?,
                retry: self.retry.ok_or(EventError::Key("retry"))?,
                message: text(self.message),
            }),
            _ => Ok(Event::Unknown),
        }
    }

    fn into_welcome(self) -> Result<Event, EventError> {
        let (ticket, ticket_expires) = self.ticket()?;
        let word = |value: &Option<Cow<'a, str>>| value.as_deref().unwrap_or("").to_owned();
        Ok(Event::Welcome(Box::new(Welcome {
            name: word(&self.name).parse().map_err(|_| EventError::Key("name"))?,
            role: word(&self.role).parse().map_err(|_| EventError::Key("role"))?,
            from: Offset(self.from.ok_or(EventError::Key("from"))?),
            end: Offset(self.end.ok_or(EventError::Key("end"))?),
            message_bytes: self.message_bytes.ok_or(EventError::Key("message_bytes"))?,
            room: self.room.ok_or(EventError::Key("room"))?.into_owned(),
            motd: text(self.motd),
            ticket,
            ticket_expires,
            server: text(self.server),
        })))
    }

    fn fill_welcome(&mut self, welcome: &'a Welcome, ticket: &'a str) {
        self.room = Some(Cow::Borrowed(&welcome.room));
        self.motd = Some(Cow::Borrowed(&welcome.motd));
        self.name = Some(Cow::Borrowed(welcome.name.as_str()));
        self.role = word_of(&welcome.role);
        self.from = Some(welcome.from.0);
        self.end = Some(welcome.end.0);
        self.message_bytes = Some(welcome.message_bytes);
        self.ticket = Some(ticket);
        self.ticket_expires = Some(Cow::Owned(welcome.ticket_expires.to_string()));
        self.server = Some(Cow::Borrowed(&welcome.server));
    }

    fn ticket(&self) -> Result<(Ticket, Timestamp), EventError> {
        let mut ticket = Ticket([0; ticket::LEN]);
        let text = self.ticket.ok_or(EventError::Key("ticket"))?;
        hex::decode(text, &mut ticket.0).ok_or(EventError::Key("ticket"))?;
        let expires = self.ticket_expires.as_deref().unwrap_or("");
        Ok((ticket, expires.parse().map_err(|_| EventError::Key("ticket_expires"))?))
    }

    fn reason_word<T: serde::de::DeserializeOwned>(&self) -> Result<T, EventError> {
        let word = self.reason.as_deref().ok_or(EventError::Key("reason"))?;
        serde_json::from_value(serde_json::Value::String(word.to_owned()))
            .map_err(|_| EventError::Key("reason"))
    }
}

fn text(value: Option<Cow<'_, str>>) -> String {
    value.map(Cow::into_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when() -> Timestamp {
        "2026-11-23T10:23:01Z".parse().unwrap()
    }

    fn welcome() -> Welcome {
        Welcome {
            room: "lobby".into(),
            motd: "be \"kind\"\n".into(),
            name: "alice".parse().unwrap(),
            role: Role::Operator,
            from: Offset(100),
            end: Offset(u64::MAX),
            message_bytes: 4096,
            ticket: Ticket([0xab; ticket::LEN]),
            ticket_expires: when(),
            server: "papayad/0.1.0".into(),
        }
    }

    #[test]
    fn every_event_survives_its_json() {
        let message = || "because".to_owned();
        let ticket = Ticket([1; ticket::LEN]);
        let mut events = vec![
            Event::Welcome(Box::new(welcome())),
            Event::Ticket { ticket, ticket_expires: when() },
            Event::Pong { n: u64::MAX },
            Event::Rejected { id: None, reason: Rejection::BadCommand, message: message() },
            Event::Unknown,
        ];
        use {ByeReason as B, Refusal as R, Rejection as J};
        for reason in [
            R::Unknown,
            R::WrongSecret,
            R::Expired,
            R::Revoked,
            R::Ticket,
            R::Sessions,
            R::BadJoin,
            R::Offset,
            R::Internal,
        ] {
            events.push(Event::Refused { reason, message: message() });
        }
        for reason in
            [J::TooLong, J::Empty, J::Role, J::Storage, J::BadId, J::BadText, J::BadCommand]
        {
            events.push(Event::Rejected { id: Some("7".into()), reason, message: message() });
        }
        for reason in [
            B::Shutdown,
            B::Kicked,
            B::Revoked,
            B::Expired,
            B::Replaced,
            B::Client,
            B::Lock,
            B::Idle,
            B::Protocol,
        ] {
            events.push(Event::Bye { reason, retry: true, message: message() });
        }
        for event in events {
            let json = event.encode();
            assert_eq!(Event::parse(json.as_bytes()).as_ref(), Ok(&event), "{}", *json);
            assert!(!json.contains('\n'));
        }
    }

    #[test]
    fn the_words_on_the_wire_are_these() {
        let refused = Event::Refused { reason: Refusal::WrongSecret, message: "no".into() };
        assert_eq!(
            refused.encode().as_str(),
            r#"{"event":"refused","reason":"wrong-secret","message":"no"}"#
        );
        let json = Event::Welcome(Box::new(welcome())).encode();
        assert!(json.starts_with(r#"{"event":"welcome","room":"lobby","motd":"be \"kind\"\n","#));
        assert!(json.contains(r#""role":"operator","from":100,"end":18446744073709551615,"#));
        assert!(json.contains(r#""ticket_expires":"2026-11-23T10:23:01Z""#));
        assert_eq!(Event::Pong { n: 5 }.encode_plaintext()[..], *b"C{\"event\":\"pong\",\"n\":5}");
    }

    #[test]
    fn a_newer_server_is_understood_as_far_as_possible() {
        let newer = [
            (r#"{"event":"moon","x":[1,{"y":2}]}"#, Event::Unknown),
            (
                r#" {"event":"refused","reason":"full-moon","hint":1}"#,
                Event::Refused { reason: Refusal::Other, message: String::new() },
            ),
            (
                r#"{"event":"bye","reason":"later","retry":true}"#,
                Event::Bye { reason: ByeReason::Other, retry: true, message: String::new() },
            ),
            (
                r#"{"event":"rejected","reason":"later"}"#,
                Event::Rejected { id: None, reason: Rejection::Other, message: String::new() },
            ),
        ];
        for (json, event) in newer {
            assert_eq!(Event::parse(json.as_bytes()), Ok(event), "{json}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        let bad: &[&[u8]] = &[
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            br#"["pong"]"#,
            br#"{"event":5}"#,
            br#"{"event":"pong"}"#,
            br#"{"event":"pong","n":-1}"#,
            br#"{"event":"pong","n":1,"n":2}"#,
            br#"{"event":"bye","reason":"idle"}"#,
            br#"{"event":"welcome"}"#,
            br#"{"event":"ticket","ticket":"00","ticket_expires":"2026-11-23T10:23:01Z"}"#,
        ];
        for json in bad {
            assert!(Event::parse(json).is_err(), "{}", String::from_utf8_lossy(json));
        }
        let whole = Event::Welcome(Box::new(welcome())).encode();
        for cut in 0..whole.len() {
            assert!(Event::parse(&whole.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let evil = whole.replace("\"alice\"", "\"\\u001b[2J\"");
        assert_eq!(Event::parse(evil.as_bytes()), Err(EventError::Key("name")));
    }

    #[test]
    fn plaintexts_are_told_apart_by_their_first_byte() {
        let mut log = log_header(Offset(0x0102)).to_vec();
        assert_eq!(log, b"L\0\0\0\0\0\0\x01\x02");
        log.extend(b"{}\n");
        assert_eq!(Plaintext::parse(&log), Ok(Plaintext::Log(Offset(0x102), b"{}\n")));
        assert_eq!(Plaintext::parse(b"C{}"), Ok(Plaintext::Control(b"{}")));
        assert_eq!(Plaintext::parse(b"Zzz"), Ok(Plaintext::Unknown(b'Z')));
        assert_eq!(Plaintext::parse(b""), Err(EventError::Truncated));
        assert_eq!(Plaintext::parse(b"L1234567"), Err(EventError::Truncated));
    }

    #[test]
    fn a_ticket_is_never_printed() {
        assert!(!format!("{:?}", Event::Welcome(Box::new(welcome()))).contains("171"));
    }
}
