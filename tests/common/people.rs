//! A person in the room: the library's own session, with a memory of what it was shown.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses its part.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use papayachat::client::backoff::Backoff;
use papayachat::client::outbox::Manner;
use papayachat::client::session::{Happening, Options, Session, Step};
use papayachat::exit::Failure;
use papayachat::room::offset::Offset;
use papayachat::token::Token;
use papayachat::wire::command::Start;

use super::service::{Message, PATIENCE};

/// Tests come back at once.
pub fn hurried(start: Start) -> Options {
    Options {
        start,
        backoff: Backoff::beginning_with(Duration::from_millis(1)),
        ..Options::default()
    }
}

/// The token in a file.
pub fn read_token(file: &Path) -> Token {
    Token::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

pub struct Person {
    pub session: Session,
    /// The messages that it was shown, in this order.
    pub seen: Vec<Message>,
    /// How often it came back.
    pub returns: usize,
}

impl Person {
    /// Joins, and is shown the log from its beginning.
    pub fn join(server: SocketAddr, token: &Token) -> Self {
        Self::join_with(server, token, hurried(Start::From(Offset(0)))).unwrap()
    }

    pub fn join_with(server: SocketAddr, token: &Token, options: Options) -> Result<Self, Failure> {
        let session =
            Session::connect(server.to_string().parse().unwrap(), token.clone(), options)?;
        Ok(Self { session, seen: Vec::new(), returns: 0 })
    }

    pub fn say(&mut self, text: &str) {
        self.session.say(Manner::Say, text.to_owned()).unwrap();
    }

    /// Waits for the next thing that happens; it must come.
    pub fn next(&mut self) -> Happening {
        let step = self.session.step(None, Some(Instant::now() + PATIENCE));
        match step {
            Ok(Step::Happened(happening)) => self.note(happening),
            other => panic!(
                "{other:?} with {} seen, {} not acknowledged",
                self.seen.len(),
                self.session.unacknowledged().len()
            ),
        }
    }

    /// Notes what happened already.
    pub fn drain(&mut self) {
        while let Some(happening) = self.session.take() {
            self.note(happening);
        }
    }

    /// Until `enough`.
    pub fn until(&mut self, mut enough: impl FnMut(&Self, &Happening) -> bool) {
        let end = Instant::now() + 10 * PATIENCE;
        loop {
            // Also of one who comes back again and again.
            assert!(Instant::now() < end, "what is waited for never happens");
            let happening = self.next();
            if enough(self, &happening) {
                // Much may have come with it.
                self.drain();
                return;
            }
        }
    }

    /// Says all lines, as fast as the room takes them, and waits until each was acknowledged.
    pub fn say_all(&mut self, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        loop {
            while self.session.has_room()
                && let Some(line) = lines.next()
            {
                self.say(&line);
            }
            if lines.peek().is_none() && self.session.unacknowledged().is_empty() {
                self.drain();
                return;
            }
            self.next();
        }
    }

    /// Remembers what happened.
    pub fn note(&mut self, happening: Happening) -> Happening {
        match &happening {
            Happening::Line { offset, record, .. } => {
                self.seen.extend(Message::of(offset.0, record));
            }
            Happening::Joined { again: true } => self.returns += 1,
            Happening::Rejected { message, .. } => panic!("rejected: {message}"),
            _ => {}
        }
        happening
    }
}
