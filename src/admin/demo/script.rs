//! The demo without a person: two clients talk, and it is checked that each hears the other.

use std::time::{Duration, Instant};

use crate::client::address::ServerAddress;
use crate::client::outbox::Manner;
use crate::client::output::Output;
use crate::client::session::{Happening, Options, Session, Step};
use crate::exit::{Exit, Failure};
use crate::token::Token;
use crate::wire::command::Start;

/// How long one line may take to be heard.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who says what: 0 is "you", 1 is "guest".
const LINES: [(usize, &str); 4] = [
    (0, "Hello? Is this thing on?"),
    (1, "Loud and clear. Each of us has two processes of our own on the server."),
    (0, "And what if one of them goes mad?"),
    (1, "Then it can do no more than talk nonsense in here. Goodbye!"),
];

/// Plays the conversation.
///
/// # Errors
/// A line was not heard by both.
pub fn play(server: &str, you: &Token, guest: &Token) -> Result<(), Failure> {
    let address: ServerAddress = server
        .parse()
        .map_err(|_| Failure::new(Exit::Internal, format!("{server} is not an address")))?;
    let options = Options { start: Start::History(0), ..Options::default() };
    let join = |token: &Token| -> Result<Session, Failure> {
        Session::connect(address.clone(), token.clone(), options.clone())
    };
    let mut sessions = [join(you)?, join(guest)?];
    let mut output = Output::new(false);
    for (speaker, text) in LINES {
        sessions[speaker]
            .say(Manner::Say, text.to_owned())
            .map_err(|e| Failure::new(Exit::Internal, format!("cannot say {text:?}: {e}")))?;
        // The speaker first: its session sends only while it is waited for.
        hear(&mut sessions[speaker], text, None)?;
        hear(&mut sessions[1 - speaker], text, Some(&mut output))?;
    }
    output.flush()?;
    sessions.into_iter().for_each(Session::leave);
    crate::exit::print("Both heard every line; the room is closed and removed.\n")
}

/// Waits until `text` is heard; shows it if there is an output.
fn hear(session: &mut Session, text: &str, mut output: Option<&mut Output>) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        match session.step(None, Some(end))? {
            Step::Happened(Happening::Line { offset, line, record }) => {
                if let Some(output) = &mut output {
                    output.record(offset, &line, &record)?;
                }
                if record.text.as_deref() == Some(text) {
                    return Ok(());
                }
            }
            Step::TimedOut => {
                return Err(Failure::new(Exit::Internal, format!("{text:?} was not heard")));
            }
            _ => {}
        }
    }
}
