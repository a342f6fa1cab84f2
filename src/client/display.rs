//! What a terminal is shown. Everything that others wrote passes [`visible`] first: a message must
//! not move the cursor, set the title, hide text or reverse it. Pure, but for the local time zone.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::room::record::{Kind, Record};
use crate::visible::{visible, visible_lines};

/// Turns records into lines for a person; remembers the day, to say when it changes.
pub struct Transcript {
    zone: TimeZone,
    day: Option<Date>,
    colours: bool,
}

/// Columns in front of a continuation line: as many as `22:23 ` takes.
const INDENT: usize = 6;

impl Transcript {
    /// A transcript in the system's time zone.
    pub fn new(colours: bool) -> Self {
        Self::in_zone(TimeZone::system(), colours)
    }

    /// A transcript in this time zone.
    pub fn in_zone(zone: TimeZone, colours: bool) -> Self {
        Self { zone, day: None, colours }
    }

    /// The lines for `record`, each with its line end.
    pub fn lines(&mut self, record: &Record) -> String {
        let mut lines = self.day_line(record.ts);
        let time = self.clock(record.ts);
        let name = self.name(&record.from);
        let text = visible_lines(record.text.as_deref().unwrap_or(""), INDENT);
        let _ = match &record.kind {
            Kind::Message => writeln!(lines, "{time} {name}: {text}"),
            Kind::Notice => writeln!(lines, "{time} -- notice from {name}: {text}"),
            Kind::Join => writeln!(lines, "{time} -- {name} joined"),
            Kind::Leave => writeln!(lines, "{time} -- {name} left"),
            Kind::Pruned => writeln!(lines, "{time} -- {name} removed {text} from the log"),
            Kind::Other(kind) => writeln!(lines, "{time} -- {name} ({}) {text}", visible(kind)),
        };
        lines
    }

    fn day_line(&mut self, ts: Timestamp) -> String {
        let zoned = ts.to_zoned(self.zone.clone());
        if self.day.replace(zoned.date()) == Some(zoned.date()) {
            return String::new();
        }
        format!("-- {}\n", zoned.strftime("%A, %-d %B %Y"))
    }

    fn clock(&self, ts: Timestamp) -> String {
        ts.to_zoned(self.zone.clone()).strftime("%H:%M").to_string()
    }

    /// The name in its colour, which is the same wherever and whenever it is shown.
    fn name(&self, name: &str) -> String {
        let shown = visible(name);
        if !self.colours {
            return shown.into_owned();
        }
        const COLOURS: [u8; 10] = [31, 32, 33, 34, 35, 36, 91, 92, 94, 95];
        let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(0x0100_0193) // FNV-1a
        });
        format!("\x1b[{}m{shown}\x1b[0m", COLOURS[hash as usize % COLOURS.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ts: &str, kind: Kind, text: Option<&str>) -> Record {
        let text = text.map(str::to_owned);
        Record { ts: ts.parse().unwrap(), id: None, from: "alice".into(), kind, text }
    }

    #[test]
    fn a_transcript_has_times_and_days() {
        let mut transcript = Transcript::in_zone(TimeZone::UTC, false);
        let mut show = |ts, kind, text| transcript.lines(&record(ts, kind, text));
        assert_eq!(
            show("2026-11-22T22:23:01.123Z", Kind::Message, Some("a\nb\x1b[2J")),
            "-- Sunday, 22 November 2026\n22:23 alice: a\n      b^[[2J\n"
        );
        assert_eq!(show("2026-11-22T22:24:00Z", Kind::Join, None), "22:24 -- alice joined\n");
        assert_eq!(
            show("2026-11-23T00:00:00Z", Kind::Leave, None),
            "-- Monday, 23 November 2026\n00:00 -- alice left\n"
        );
        assert_eq!(
            show("2026-11-23T00:01:00Z", Kind::Notice, Some("soon")),
            "00:01 -- notice from alice: soon\n"
        );
    }

    #[test]
    fn a_name_has_one_colour_and_only_the_name_has() {
        let mut transcript = Transcript::in_zone(TimeZone::UTC, true);
        let mut show = || transcript.lines(&record("2026-11-22T22:23:01Z", Kind::Join, None));
        show();
        assert_eq!(show(), show());
        assert_eq!(show().matches('\x1b').count(), 2);
    }
}
