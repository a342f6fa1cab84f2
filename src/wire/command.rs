//! What a client says to the server: JSON lines, one command each. Parsed by RECV, to whom every
//! byte is hostile; made by the client. Pure. The caller bounds the length of a line and of a
//! text; everything else is checked here.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::event::{Rejection, to_json};
use super::hex;
use crate::room::offset::Offset;
use crate::ticket::{self, Ticket};
use crate::token::{SECRET_LEN, Secret, TokenId};

/// The longest id of a message, in bytes.
pub const MAX_MESSAGE_ID: usize = 64;
/// The longest name of a client's program, in bytes.
pub const MAX_CLIENT: usize = 64;

/// The longest line in bytes, its line end included, in a room whose texts have at most
/// `message_bytes` bytes: JSON may write each of them as `\u00xx`, and the rest of a line is small.
pub const fn max_line(message_bytes: u32) -> usize {
    6 * message_bytes as usize + 1024
}

/// The id of a message, chosen by its sender: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(String);

/// Names one running client, so that the server can end its previous connection; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

/// What proves that the client may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The token's secret.
    Secret(Secret),
    /// A ticket of an earlier welcome.
    Ticket(Ticket),
}

/// Where in the log the client wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end: only what comes from now on.
    End,
    /// At this offset, which must be the beginning of a line or the log's end.
    From(Offset),
    /// So many messages before the end.
    History(u32),
    /// At the first record that is not older.
    Since(Timestamp),
}

/// The first line of every client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which token.
    pub id: TokenId,
    /// That the client holds it.
    pub credential: Credential,
    /// Which running client.
    pub session: SessionId,
    /// Where to begin.
    pub start: Start,
    /// Name and version of the client's program, for the server's log: at most [`MAX_CLIENT`]
    /// bytes of printable ASCII.
    pub client: Option<String>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Come in; must be the first, and only once.
    Join(Join),
    /// Store a message.
    Say {
        /// Its id.
        id: MessageId,
        /// Its text: not empty, no NUL.
        text: String,
    },
    /// Store a notice; operators only.
    Notice {
        /// Its id.
        id: MessageId,
        /// Its text: not empty, no NUL.
        text: String,
    },
    /// Give me a fresh ticket.
    Ticket,
    /// Are you there?
    Ping {
        /// Comes back in the answer.
        n: u64,
    },
    /// I am leaving.
    Bye,
}

/// Why a line is not a command, and so what the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Not UTF-8 or not JSON: the stream is broken, and the connection ends.
    Malformed,
    /// JSON, but not a valid command: it is rejected, and the connection goes on.
    Rejected {
        /// The message's id, when that part was good.
        id: Option<MessageId>,
        /// Why.
        reason: Rejection,
    },
    /// A join whose key with this name is missing or not valid: the join is refused.
    BadJoin(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the line is not a JSON object in UTF-8"),
            Self::Rejected { reason, .. } => f.write_str(match reason {
                Rejection::Empty => "the text is empty",
                Rejection::BadId => "the id is missing or is not 1 to 64 of A-Z a-z 0-9 _ -",
                Rejection::BadText => "the text is missing or contains NUL",
                _ => "there is no such command, or a key of it has a wrong type",
            }),
            Self::BadJoin(key) => write!(f, "the join line has no valid {key:?}"),
        }
    }
}

impl std::error::Error for CommandError {}

impl Command {
    /// Parses one line, with or without its line end.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::Malformed)?;
        let raw: Raw = serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => bad_command(),
            _ => CommandError::Malformed,
        })?;
        // serde's structs may be written as JSON arrays too; the protocol knows objects only.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(bad_command());
        }
        match raw.cmd {
            "join" => raw.into_join().map(Self::Join),
            "say" => raw.into_message().map(|(id, text)| Self::Say { id, text }),
            "notice" => raw.into_message().map(|(id, text)| Self::Notice { id, text }),
            "ticket" => Ok(Self::Ticket),
            "ping" => raw.n.map(|n| Self::Ping { n }).ok_or_else(bad_command),
            "bye" => Ok(Self::Bye),
            _ => Err(bad_command()),
        }
    }

    /// The line, its line end included; wiped when dropped, because it may carry a secret.
    pub fn encode(&self) -> Zeroizing<String> {
        let (id, session, proof);
        let mut raw = Raw { cmd: self.word(), ..Raw::default() };
        match self {
            Self::Join(join) => {
                id = join.id.to_string();
                session = hex::encode(&join.session.0);
                raw.id = Some(id);
                raw.session = Some(&session);
                raw.client = join.client.clone();
                raw.fill_start(join.start);
                match &join.credential {
                    Credential::Secret(secret) => {
                        proof = hex::encode(&secret.0);
                        raw.secret = Some(&proof);
                    }
                    Credential::Ticket(ticket) => {
                        proof = hex::encode(&ticket.0);
                        raw.ticket = Some(&proof);
                    }
                }
            }
            Self::Say { id, text } | Self::Notice { id, text } => {
                raw.id = Some(id.0.clone());
                raw.text = Some(text.clone());
            }
            Self::Ping { n } => raw.n = Some(*n),
            Self::Ticket | Self::Bye => {}
        }
        let mut line = to_json(&raw);
        line.push('\n');
        line
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Join(_) => "join",
            Self::Say { .. } => "say",
            Self::Notice { .. } => "notice",
            Self::Ticket => "ticket",
            Self::Ping { .. } => "ping",
            Self::Bye => "bye",
        }
    }
}

impl MessageId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageId {
    type Err = CommandError;

    fn from_str(s: &str) -> Result<Self, CommandError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if (1..=MAX_MESSAGE_ID).contains(&s.len()) && s.bytes().all(allowed) {
            Ok(Self(s.to_owned()))
        } else {
            Err(CommandError::Rejected { id: None, reason: Rejection::BadId })
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn bad_command() -> CommandError {
    CommandError::Rejected { id: None, reason: Rejection::BadCommand }
}

/// Every key of every command; a key has the same type wherever it stands. What may be a secret is
/// borrowed from the line and so not copied; a string with escapes is refused there.
#[derive(Default, Serialize, Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    cmd: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
}

impl Raw<'_> {
    fn into_message(self) -> Result<(MessageId, String), CommandError> {
        let id: MessageId = self.id.as_deref().unwrap_or("").parse()?;
        let reason = match self.text {
            Some(text) if text.is_empty() => Rejection::Empty,
            Some(text) if text.contains('\0') => Rejection::BadText,
            Some(text) => return Ok((id, text)),
            None => Rejection::BadText,
        };
        Err(CommandError::Rejected { id: Some(id), reason })
    }

    fn into_join(self) -> Result<Join, CommandError> {
        use CommandError::BadJoin;
        let mut session = SessionId([0; 16]);
        hex::decode(self.session.unwrap_or(""), &mut session.0).ok_or(BadJoin("session"))?;
        Ok(Join {
            id: self.id.as_deref().unwrap_or("").parse().map_err(|_| BadJoin("id"))?,
            credential: self.credential()?,
            session,
            start: self.start()?,
            client: match self.client {
                Some(name) if !is_client_name(&name) => return Err(BadJoin("client")),
                name => name,
            },
        })
    }

    fn credential(&self) -> Result<Credential, CommandError> {
        use CommandError::BadJoin;
        match (self.secret, self.ticket) {
            (Some(text), None) => {
                let mut secret = Secret([0; SECRET_LEN]);
                hex::decode(text, &mut secret.0).ok_or(BadJoin("secret"))?;
                Ok(Credential::Secret(secret))
            }
            (None, Some(text)) => {
                let mut ticket = Ticket([0; ticket::LEN]);
                hex::decode(text, &mut ticket.0).ok_or(BadJoin("ticket"))?;
                Ok(Credential::Ticket(ticket))
            }
            _ => Err(BadJoin("secret")),
        }
    }

    fn start(&self) -> Result<Start, CommandError> {
        match (self.from, self.history, &self.since) {
            (None, None, None) => Ok(Start::End),
            (Some(from), None, None) => Ok(Start::From(Offset(from))),
            (None, Some(messages), None) => Ok(Start::History(messages)),
            (None, None, Some(time)) => {
                time.parse().map(Start::Since).map_err(|_| CommandError::BadJoin("since"))
            }
            _ => Err(CommandError::BadJoin("from")),
        }
    }

    fn fill_start(&mut self, start: Start) {
        match start {
            Start::End => {}
            Start::From(offset) => self.from = Some(offset.0),
            Start::History(messages) => self.history = Some(messages),
            Start::Since(time) => self.since = Some(time.to_string()),
        }
    }
}

fn is_client_name(name: &str) -> bool {
    name.len() <= MAX_CLIENT && name.bytes().all(|b| matches!(b, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Join {
        Join {
            id: TokenId([0xa1; 8]),
            credential: Credential::Secret(Secret([0xb2; SECRET_LEN])),
            session: SessionId([0xc3; 16]),
            start: Start::End,
            client: Some("papaya/0.1.0".into()),
        }
    }

    fn id() -> MessageId {
        "Az-09_".parse().unwrap()
    }

    fn rejected(line: &str) -> (Option<String>, Rejection) {
        match Command::parse(line.as_bytes()) {
            Err(CommandError::Rejected { id, reason }) => (id.map(|i| i.0), reason),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_command_survives_its_line() {
        let time = "2026-11-22T22:23:01.123Z".parse().unwrap();
        let mut commands = vec![
            Command::Say { id: id(), text: "tab\t \"q\" ä 🍈\nline two \u{1b}[2J".into() },
            Command::Notice { id: id(), text: "x".into() },
            Command::Ticket,
            Command::Ping { n: u64::MAX },
            Command::Bye,
        ];
        for start in
            [Start::End, Start::From(Offset(u64::MAX)), Start::History(20), Start::Since(time)]
        {
            commands.push(Command::Join(Join { start, ..join() }));
        }
        let credential = Credential::Ticket(Ticket([9; ticket::LEN]));
        commands.push(Command::Join(Join { credential, client: None, ..join() }));
        for command in commands {
            let line = command.encode();
            assert_eq!(line.matches('\n').count(), 1, "{}", *line);
            assert!(line.ends_with('\n'));
            assert_eq!(Command::parse(line.as_bytes()), Ok(command));
        }
    }

    #[test]
    fn the_words_on_the_wire_are_these() {
        let say = Command::Say { id: id(), text: "hi".into() };
        assert_eq!(say.encode().as_str(), "{\"cmd\":\"say\",\"id\":\"Az-09_\",\"text\":\"hi\"}\n");
        let line = Command::Join(Join { start: Start::From(Offset(5)), ..join() }).encode();
        // It never grew: what it held has left no copy elsewhere.
        assert_eq!(line.capacity(), line.len());
        let expected = format!(
            "{{\"cmd\":\"join\",\"id\":\"{}\",\"secret\":\"{}\",\"session\":\"{}\",\"from\":5,\"client\":\"papaya/0.1.0\"}}\n",
            "a1".repeat(8),
            "b2".repeat(32),
            "c3".repeat(16)
        );
        assert_eq!(line.as_str(), expected);
    }

    #[test]
    fn a_broken_line_is_told_from_a_wrong_command() {
        for line in [&b""[..], b"{", b"hello", b"{\"cmd\":\"bye\"} x", b"{\"cmd\":\"\xff\"}"] {
            assert_eq!(Command::parse(line), Err(CommandError::Malformed));
        }
        for line in
            ["[]", "[\"bye\"]", "5", "null", "{}", "{\"cmd\":\"sing\"}", "{\"cmd\":\"ping\"}"]
        {
            assert_eq!(rejected(line), (None, Rejection::BadCommand), "{line}");
        }
        assert_eq!(rejected(r#"{"cmd":"say","id":5,"text":"x"}"#).1, Rejection::BadCommand);
        assert_eq!(rejected(r#"{"cmd":"ping","n":1.5}"#).1, Rejection::BadCommand);
        assert_eq!(rejected(r#"{"cmd":"bye","cmd":"ticket"}"#).1, Rejection::BadCommand);
    }

    #[test]
    fn a_wrong_message_is_named_by_its_id() {
        let id = || Some("a".to_owned());
        assert_eq!(rejected(r#"{"cmd":"say","id":"a","text":""}"#), (id(), Rejection::Empty));
        assert_eq!(rejected(r#"{"cmd":"say","id":"a"}"#), (id(), Rejection::BadText));
        assert_eq!(
            rejected(r#"{"cmd":"notice","id":"a","text":"\u0000"}"#),
            (id(), Rejection::BadText)
        );
        for bad in ["", "a b", "ä", "a.b", &"x".repeat(65)] {
            let line = format!(r#"{{"cmd":"say","id":"{bad}","text":"x"}}"#);
            assert_eq!(rejected(&line), (None, Rejection::BadId));
        }
    }

    #[test]
    fn a_wrong_join_names_its_key() {
        let good = Command::Join(join()).encode();
        let secret = "b2".repeat(32);
        let wrong = [
            (good.replace("a1a1", "a1"), "id"),
            (good.replace("b2b2", "b"), "secret"),
            (good.replace("\"secret\"", "\"ticket\""), "ticket"),
            (good.replace("\"secret\"", "\"unknown\""), "secret"),
            (good.replace("\"secret\"", &format!("\"ticket\":\"{secret}\",\"secret\"")), "secret"),
            (good.replace("c3c3", "zz"), "session"),
            (good.replace("\"client\"", "\"from\":1,\"history\":2,\"client\""), "from"),
            (good.replace("\"client\"", "\"since\":\"noon\",\"client\""), "since"),
            (good.replace("papaya/0.1.0", "\\u001b[2J"), "client"),
        ];
        for (line, key) in wrong {
            assert_eq!(Command::parse(line.as_bytes()), Err(CommandError::BadJoin(key)), "{line}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored_however_deep_they_are() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for value in ["1", "null", "{\"cmd\":\"say\"}", &deep] {
            let line = format!("{{\"new\":{value},\"cmd\":\"bye\"}}");
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Bye));
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_the_parser_panic() {
        let line = Command::Join(join()).encode();
        for cut in 0..line.len() - 1 {
            assert!(Command::parse(&line.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..line.len() {
            for byte in [0, b'"', b'\\', b'{', 0x80, 0xff] {
                let mut wrong = line.as_bytes().to_vec();
                wrong[at] = byte;
                let _ = Command::parse(&wrong);
            }
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert!(!format!("{:?}", Command::Join(join())).contains("178"));
    }
}
