//! `papaya tail`: the last messages, and what comes.

use clap::Args;

use super::access::Access;
use super::output::Output;
use super::reader::{Enough, print};
use super::session::{Options, Session};
use crate::exit::Failure;
use crate::room::offset::Offset;
use crate::wire::command::Start;

/// How many messages are shown when nothing is said.
const HISTORY: u32 = 10;

/// The arguments of `tail`.
#[derive(Args, Debug)]
pub struct Tail {
    /// The profile to use; not needed with --server, or when there is only one
    profile: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Begin this many messages before the end (default: 10)
    #[arg(long, value_name = "N", conflicts_with = "from")]
    history: Option<u32>,
    /// Begin at this byte offset of the log
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Stay, and print what comes
    #[arg(long, short)]
    follow: bool,
    /// End after this many messages, waiting for them if need be; presence lines do not count
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object a line: the record, and its offset
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever ends the session.
pub fn run(tail: &Tail) -> Result<(), Failure> {
    let (server, token) = tail.access.open(tail.profile.as_deref())?;
    let start = match tail.from {
        Some(offset) => Start::From(Offset(offset)),
        None => Start::History(tail.history.unwrap_or(HISTORY)),
    };
    let session = Session::connect(server, token, Options { start, ..Options::default() })?;
    // Whoever asks for N messages wants N messages: a count waits as --follow does.
    let at_end = !tail.follow && tail.count.is_none();
    print(session, Output::new(tail.json), Enough { messages: tail.count, at_end })
}
