//! Checking a whole log: what it contains, and each line that is not as it should be.
//!
//! Used by `papayad log verify`. Takes the locks of a reader, in memory of fixed size.

use jiff::Timestamp;

use super::lines::{Bytes, Line, Lines};
use super::log::LogError;
use super::offset::Offset;
use super::record::{Kind, Record, RecordError};

/// What a log contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that were removed at the beginning, which are not counted below.
    pub pruned: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Lines in all; each is counted once more below.
    pub lines: u64,
    /// Messages.
    pub messages: u64,
    /// Notices.
    pub notices: u64,
    /// Records of somebody coming.
    pub joins: u64,
    /// Records of somebody leaving.
    pub leaves: u64,
    /// Records of a removal of the log's beginning.
    pub prunings: u64,
    /// Records of a kind that this version does not know.
    pub other: u64,
    /// Records of killed writers; readers skip them.
    pub torn: u64,
    /// Lines that are no records at all; readers skip them.
    pub foreign: u64,
    /// Records that are older than the one before them: the clock was set back.
    pub backwards: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where the line begins.
    pub at: Offset,
    /// How many bytes it has, line end included.
    pub len: u64,
    /// What is wrong with it.
    pub what: Problem,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is not a record.
    NotARecord(RecordError),
    /// It is the last line and has no end: its writer is gone. The next writer will mark it.
    Unended,
    /// It is older than the record before it, which has this time stamp.
    Backwards {
        /// This record's time.
        ts: Timestamp,
        /// The time of the record before it.
        before: Timestamp,
    },
}

impl Report {
    /// Whether each line is a record. A clock that was set back is not the log's fault.
    pub fn is_sound(&self) -> bool {
        self.torn == 0 && self.foreign == 0
    }

    fn count(&mut self, kind: &Kind) {
        *match kind {
            Kind::Message => &mut self.messages,
            Kind::Notice => &mut self.notices,
            Kind::Join => &mut self.joins,
            Kind::Leave => &mut self.leaves,
            Kind::Pruned => &mut self.prunings,
            Kind::Other(_) => &mut self.other,
        } += 1;
    }
}

/// Walks over the whole log as it is now, and tells each finding in the log's order.
///
/// # Errors
/// The log could not be read, or `tell` failed.
pub fn walk<E: From<LogError>>(
    source: &(impl Bytes + ?Sized),
    mut tell: impl FnMut(Finding) -> Result<(), E>,
) -> Result<Report, E> {
    let mut report = Report { pruned: source.floor().0, ..Report::default() };
    let mut latest: Option<Timestamp> = None;
    let mut lines = Lines::new(source, Offset(0))?;
    while let Some(line) = lines.next()? {
        report.bytes += line.len;
        report.lines += 1;
        let problem = match parse(&line) {
            Ok(record) => {
                report.count(&record.kind);
                let before = latest.replace(record.ts).filter(|&before| record.ts < before);
                report.backwards += u64::from(before.is_some());
                before.map(|before| Problem::Backwards { ts: record.ts, before })
            }
            Err(problem) => {
                let torn =
                    matches!(problem, Problem::Unended | Problem::NotARecord(RecordError::Torn));
                *if torn { &mut report.torn } else { &mut report.foreign } += 1;
                Some(problem)
            }
        };
        if let Some(what) = problem {
            tell(Finding { at: line.at, len: line.len, what })?;
        }
    }
    Ok(report)
}

fn parse(line: &Line<'_>) -> Result<Record, Problem> {
    if !line.ended {
        return Err(Problem::Unended);
    }
    let bytes = line.bytes.ok_or(Problem::NotARecord(RecordError::TooLong))?;
    Record::parse(bytes).map_err(Problem::NotARecord)
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotARecord(error) => error.fmt(f),
            Self::Unended => f.write_str("torn: the last line has no end"),
            Self::Backwards { ts, before } => {
                write!(f, "time goes backwards: {ts} comes behind {before}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_counted_once_and_every_damage_is_told_with_its_offset() {
        let good = r#"{"ts":"2026-11-22T22:23:01.123Z","id":"1","from":"a","text":"x"}"#;
        let join = r#"{"ts":"2026-11-22T22:23:00.000Z","from":"a","kind":"join"}"#;
        let log = format!("{good}\n{}#torn\nhello\n{join}\n{good}\n{good}", &good[..50]);
        let mut found = Vec::new();
        let report = walk(log.as_bytes(), |finding| {
            found.push((finding.at.0, finding.what.to_string()));
            Ok::<(), LogError>(())
        })
        .unwrap();
        let expected = Report {
            bytes: log.len() as u64,
            lines: 6,
            messages: 2,
            joins: 1,
            torn: 2,
            foreign: 1,
            backwards: 1,
            ..Report::default()
        };
        assert_eq!(report, expected);
        assert!(!report.is_sound());
        let offsets: Vec<u64> = found.iter().map(|(at, _)| *at).collect();
        let first = good.len() as u64 + 1;
        assert_eq!(offsets, [first, first + 56, first + 62, log.len() as u64 - first + 1]);
        assert!(found[0].1.starts_with("torn"), "{found:?}");
        assert!(found[1].1.starts_with("foreign"), "{found:?}");
        assert!(found[2].1.contains("backwards"), "{found:?}");
    }
}
