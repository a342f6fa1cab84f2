//! A point in time as a person writes it: with its zone, in local time, or as an age. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// Reads `2026-11-22T22:00:00Z`, `2026-11-22` (local time), or an age before `now` such as `2h`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn parse(text: &str, now: &Zoned) -> Result<Timestamp, String> {
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
    Err(format!("{text:?} is not a time: write 2026-11-22T22:00:00Z, 2026-11-22, 2h or 3d"))
}

/// The same before the present, for options.
///
/// # Errors
/// As [`parse`].
pub fn parse_now(text: &str) -> Result<Timestamp, String> {
    parse(text, &Zoned::now())
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
            assert_eq!(parse(text, &now).unwrap().to_string(), time, "{text}");
        }
        for text in ["", "yesterday", "2h ago or so", "99999999y", "25:00"] {
            assert!(parse(text, &now).unwrap_err().contains("is not a time"), "{text}");
        }
    }
}
