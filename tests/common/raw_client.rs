//! A client whose every byte is the test's: the protocol by hand, to say what no client says.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each test uses its part.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use papayachat::ticket::Ticket;
use papayachat::token::Token;
use papayachat::wire::cipher::{Opener, Sealer};
use papayachat::wire::command::{Command, Credential, Join, SessionId, Start};
use papayachat::wire::event::{Event, Plaintext, Welcome};
use papayachat::wire::frame::{HEADER, TAG};
use papayachat::wire::handshake::{MESSAGE_LEN, NkInitiator, SessionKeys, Status};
use papayachat::wire::hex;

use super::service::PATIENCE;

/// One end of a TCP connection after the handshake.
pub struct RawClient {
    pub stream: TcpStream,
    pub sealer: Sealer,
    opener: Opener,
}

/// The token in a file.
pub fn read_token(file: &Path) -> Token {
    Token::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A connection whose every wait has a limit.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the server closes; a reset is an end like any other, a time-out is none.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("not closed: {e}"),
        _ => bytes,
    }
}

/// Writes; a server that has hung up already is no error.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) {
    match stream.write_all(bytes) {
        Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            panic!("{e}")
        }
        _ => {}
    }
}

/// The line that joins; `more` are further keys (`,"history":5`).
pub fn join_line(token: &Token, session: u128, more: &str) -> String {
    format!(
        "{{\"cmd\":\"join\",\"id\":\"{}\",\"secret\":\"{}\",\"session\":\"{session:032x}\"{more}}}\n",
        *hex::encode(&token.id.0),
        *hex::encode(&token.secret.0),
    )
}

impl RawClient {
    /// The handshake alone.
    pub fn shake(port: u16, token: &Token) -> Self {
        let (stream, keys) = Self::keys(port, token);
        Self::with_keys(stream, &keys)
    }

    /// A connection after the handshake, and the keys that it gave.
    pub fn keys(port: u16, token: &Token) -> (TcpStream, SessionKeys) {
        let mut stream = connect(port);
        let (noise, hello) = NkInitiator::start(&token.server).unwrap();
        stream.write_all(&hello).unwrap();
        let mut status = [0];
        stream.read_exact(&mut status).expect("a status");
        assert_eq!(Status::from_byte(status[0]), Some(Status::Ok));
        let mut reply = [0; MESSAGE_LEN];
        stream.read_exact(&mut reply).expect("the handshake's second message");
        (stream, noise.finish(&reply).unwrap())
    }

    pub fn with_keys(stream: TcpStream, keys: &SessionKeys) -> Self {
        let sealer = Sealer::new(keys.client_to_server);
        Self { stream, sealer, opener: Opener::new(keys.server_to_client) }
    }

    /// In the room, from the log's end on.
    pub fn join(port: u16, token: &Token, session: u128) -> (Self, Welcome) {
        Self::shake(port, token).enter(token, session)
    }

    /// The same after the handshake.
    pub fn enter(mut self, token: &Token, session: u128) -> (Self, Welcome) {
        self.say_bytes(join_line(token, session, "").as_bytes());
        self.welcomed()
    }

    /// The same by a ticket, which costs the server no argon2.
    pub fn join_by(ticket: &Ticket, port: u16, token: &Token, session: u128) -> (Self, Welcome) {
        let mut client = Self::shake(port, token);
        let join = Command::Join(Join {
            id: token.id,
            credential: Credential::Ticket(ticket.clone()),
            session: SessionId(session.to_be_bytes()),
            start: Start::End,
            client: None,
        });
        client.say_bytes(join.encode().as_bytes());
        client.welcomed()
    }

    fn welcomed(mut self) -> (Self, Welcome) {
        match self.event() {
            Some(Event::Welcome(welcome)) => (self, *welcome),
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Plaintext as one sealed frame.
    pub fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER + text.len() + TAG];
        frame[HEADER..HEADER + text.len()].copy_from_slice(text);
        let length = self.sealer.seal(&mut frame, text.len()).unwrap();
        frame.truncate(length);
        frame
    }

    /// Sends plaintext, as many frames as it needs.
    pub fn say_bytes(&mut self, text: &[u8]) {
        for part in text.chunks(60_000) {
            let frame = self.seal(part);
            write(&mut self.stream, &frame);
        }
    }

    /// Posts a message.
    pub fn say(&mut self, id: &str, text: &str) {
        let line = serde_json::json!({"cmd": "say", "id": id, "text": text});
        self.say_bytes(format!("{line}\n").as_bytes());
    }

    /// The next plaintext, or `None` when the server has closed.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; HEADER];
        if !self.fill(&mut header) {
            return None;
        }
        let mut sealed = vec![0; usize::from(u16::from_be_bytes(header))];
        if !self.fill(&mut sealed) {
            return None;
        }
        Some(self.opener.open(header, &mut sealed).unwrap().to_vec())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                false
            }
            Err(e) => panic!("the server says nothing and does not close: {e}"),
        }
    }

    /// The next control event; log bytes before it are skipped.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            let text = self.next()?;
            if let Plaintext::Control(json) = Plaintext::parse(&text).unwrap() {
                return Some(Event::parse(json).unwrap());
            }
        }
    }

    /// Log bytes until they contain `text`; events before it are skipped.
    pub fn hear(&mut self, text: &str) -> Vec<u8> {
        let mut log: Vec<u8> = Vec::new();
        loop {
            let plain = self.next().expect("the server closes instead of sending the log");
            if let Plaintext::Log(_, bytes) = Plaintext::parse(&plain).unwrap() {
                // A line may span frames.
                let from = log.len().saturating_sub(text.len());
                log.extend_from_slice(bytes);
                if String::from_utf8_lossy(&log[from..]).contains(text) {
                    return log;
                }
            }
        }
    }

    /// All events until the server closes.
    pub fn events_to_end(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.event()).collect()
    }
}
