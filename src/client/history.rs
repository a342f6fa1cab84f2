//! `papaya history`: what was said, since a time or so many messages back.

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::access::Access;
use super::output::Output;
use super::reader::{Enough, print};
use super::session::{Options, Session};
use crate::exit::{Exit, Failure};
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
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
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
    let (start, messages) = match &history.since {
        Some(time) => {
            (Start::Since(parse_since(time, &Zoned::now())?), history.limit.map(u64::from))
        }
        None => (Start::History(history.limit.unwrap_or(LIMIT)), None),
    };
    let (server, token) = history.access.open(history.profile.as_deref())?;
    let session = Session::connect(server, token, Options { start, ..Options::default() })?;
    print(session, Output::new(history.json), Enough { messages, at_end: true })
}

/// A point in time: with its zone, in local time, or as an age before `now`.
fn parse_since(text: &str, now: &Zoned) -> Result<Timestamp, Failure> {
    let zone: &TimeZone = now.time_zone();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.parse::<DateTime>()
        && let Ok(time) = local.to_zoned(zone.clone())
    {
        return Ok(time.timestamp());
    }
    if let Ok(age) = text.parse::<Span>()
        && let Ok(time) = now.checked_sub(age.abs())
    {
        return Ok(time.timestamp());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("--since {text:?} is not a time: write 2026-11-22T22:00:00Z, 2026-11-22, 2h or 3d"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_in_every_usual_form() {
        let now: Zoned = "2026-11-23T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, time) in [
            ("2026-11-22T22:00:00Z", "2026-11-22T22:00:00Z"),
            ("2026-11-22T22:00:00+02:00", "2026-11-22T20:00:00Z"),
            ("2026-11-22", "2026-11-21T23:00:00Z"),
            ("2026-11-22T10:00", "2026-11-22T09:00:00Z"),
            ("2h", "2026-11-23T09:00:00Z"),
            ("90m", "2026-11-23T09:30:00Z"),
            ("3d", "2026-11-20T11:00:00Z"),
            ("1 week", "2026-11-16T11:00:00Z"),
        ] {
            assert_eq!(parse_since(text, &now).unwrap().to_string(), time, "{text}");
        }
        for text in ["", "yesterday", "2h ago or so", "99999999y", "25:00"] {
            assert_eq!(parse_since(text, &now).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
