//! What `tail` and `history` have in common: records from the room to stdout, until enough.

use std::time::{Duration, Instant};

use super::output::{Output, complain, pruned_words};
use super::session::{Happening, Session, Step};
use crate::exit::{Exit, Failure};

/// How long a reader that does not follow waits for a lost connection to come back.
const RETURN_WITHIN: Duration = Duration::from_secs(60);

/// When a reader has enough.
#[derive(Clone, Copy, Debug)]
pub struct Enough {
    /// After so many messages; presence lines do not count.
    pub messages: Option<u64>,
    /// At what was the log's end when the reader came.
    pub at_end: bool,
}

/// Prints until enough.
///
/// # Errors
/// The session is over, or stdout fails.
pub fn print(mut session: Session, mut output: Output, enough: Enough) -> Result<(), Failure> {
    let mut left = enough.messages;
    let mut give_up: Option<Instant> = None;
    while left != Some(0) {
        let happening = match session.take() {
            Some(happening) => happening,
            None => {
                output.flush()?;
                match session.step(None, give_up)? {
                    Step::Happened(happening) => happening,
                    Step::Woken => continue,
                    Step::TimedOut => return Err(gone(&session)),
                }
            }
        };
        match happening {
            Happening::Line { offset, line, record } => {
                output.record(offset, &line, &record)?;
                if record.is_message() {
                    left = left.map(|n| n - 1);
                }
            }
            Happening::Pruned { from, to } => complain(&pruned_words(from, to)),
            Happening::CaughtUp if enough.at_end => break,
            Happening::Joined { again: true } => {
                complain("connected again");
                give_up = None;
            }
            Happening::Lost { why, failed: 0, .. } => {
                complain(&format!("the connection is lost: {why}; trying again"));
                give_up = enough.at_end.then(|| Instant::now() + RETURN_WITHIN);
            }
            _ => {}
        }
    }
    output.flush()?;
    session.leave();
    Ok(())
}

fn gone(session: &Session) -> Failure {
    let (server, seconds) = (session.server(), RETURN_WITHIN.as_secs());
    let problem =
        format!("the connection to {server} is lost and did not return within {seconds} s");
    Failure::new(Exit::Unavailable, problem)
}
