//! `papaya history`: what was said, since a time or so many messages back.

use clap::Args;
use jiff::Timestamp;

use super::access::Access;
use super::output::Output;
use super::reader::{Enough, print};
use super::session::{Options, Session};
use crate::exit::Failure;
use crate::moment;
use crate::wire::command::Start;

/// How many messages are shown when nothing is said.
const LIMIT: u32 = 100;

/// The arguments of `history`.
#[derive(Args, Debug)]
pub struct History {
    /// The profile to use; not needed with --server, or when there is only one
    profile: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Begin at this time: 2026-11-22T22:00:00Z, 2026-11-22 (local time), or an age such as 2h or 3d
    #[arg(long, value_name = "TIME", value_parser = moment::parse_now)]
    since: Option<Timestamp>,
    /// At most this many messages: the first ones with --since, else the last ones (default: 100)
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// One JSON object a line: the record, and its offset
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever ends the session.
pub fn run(history: &History) -> Result<(), Failure> {
    let (start, messages) = match history.since {
        Some(time) => (Start::Since(time), history.limit.map(u64::from)),
        None => (Start::History(history.limit.unwrap_or(LIMIT)), None),
    };
    let (server, token) = history.access.open(history.profile.as_deref())?;
    let session = Session::connect(server, token, Options { start, ..Options::default() })?;
    print(session, Output::new(history.json), Enough { messages, at_end: true })
}
