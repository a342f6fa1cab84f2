//! `papayad log verify` and `papayad log export`: the log for administrators and scripts.
//!
//! Opens the log read-only in the state directory, takes the locks of a reader, and changes
//! nothing. Runs as root or as the keeper's user.

mod html;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use jiff::Timestamp;
use nix::errno::Errno;
use serde_json::json;

use crate::config::Config;
use crate::exit::{Exit, Failure, written};
use crate::room::lines::Lines;
use crate::room::log::{LogError, Reader, open_for_reading};
use crate::room::offset::Offset;
use crate::room::prune::REMOVE;
use crate::room::record::{Kind, Record, RecordError};
use crate::room::seek::{self, SeekError};
use crate::room::verify::{self, Finding, Problem, Report};
use crate::visible::{visible, visible_json, visible_lines};

/// How an export looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for a person
    #[default]
    Text,
    /// The records as they stand in the log, with their offsets, one JSON object a line
    Json,
    /// One page for a browser, which loads nothing and runs nothing
    Html,
}

/// Where an export begins; the later of the two if both are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// At this offset, the beginning of a line.
    pub from: Option<Offset>,
    /// At the first record that is not older than this.
    pub since: Option<Timestamp>,
}

/// Walks over the whole log, and prints what it contains and every line that is not a record.
/// With `json`, a JSON object a line: the findings, then the counts.
///
/// # Errors
/// The log cannot be opened or read. Damage is no error but [`Exit::BadData`].
pub fn verify(config: &Config, out: &mut dyn Write, json: bool) -> Result<Exit, Failure> {
    let reader = open(config)?;
    let told = verify::walk(&reader, |finding| {
        let line = if json { finding_json(&finding) } else { finding_text(&finding) };
        writeln!(out, "{line}").map_err(Stop::Output)
    });
    let finished = told.and_then(|report| {
        let line = if json { report_json(&report) } else { report_text(&report) };
        writeln!(out, "{line}").map_err(Stop::Output)?;
        Ok(if report.is_sound() { Exit::Ok } else { Exit::BadData })
    });
    finished.or_else(|stop| stop.explain(config))
}

/// Prints the records. Lines that are not records are left out; `log verify` shows them.
///
/// # Errors
/// The log cannot be opened or read, or `start` is not a place to begin at.
pub fn export(
    config: &Config,
    out: &mut dyn Write,
    start: Start,
    format: Format,
) -> Result<Exit, Failure> {
    let reader = open(config)?;
    let mut printer = Printer { format, page: html::Page::default() };
    print_records(&reader, &config.room.name, out, start, &mut printer)
        .or_else(|stop| stop.explain(config))
}

struct Printer {
    format: Format,
    page: html::Page,
}

impl Printer {
    fn head(&self, room: &str, floor: Offset) -> String {
        match self.format {
            Format::Html => html::Page::head(room, floor),
            _ => String::new(),
        }
    }

    fn record(&mut self, record: &Record, line: &[u8], at: Offset) -> String {
        match self.format {
            Format::Text => record_text(record) + "\n",
            Format::Json => record_json(line, at) + "\n",
            Format::Html => self.page.record(record, at),
        }
    }

    fn tail(&self) -> String {
        if self.format == Format::Html { self.page.tail() } else { String::new() }
    }
}

fn print_records(
    reader: &Reader,
    room: &str,
    out: &mut dyn Write,
    start: Start,
    printer: &mut Printer,
) -> Result<Exit, Stop> {
    if start.from.is_some_and(|from| from < reader.floor()) {
        eprintln!("papayad: what stood before offset {} was removed", reader.floor());
    }
    let from = seek::check(reader, start.from.unwrap_or_default()).map_err(Stop::Seek)?;
    let since = match start.since {
        Some(time) => seek::since(reader, time)?,
        None => Offset(0),
    };
    let mut lines = Lines::new(reader, from.max(since))?;
    let mut put = |text: String| out.write_all(text.as_bytes()).map_err(Stop::Output);
    put(printer.head(room, reader.floor()))?;
    while let Some(line) = lines.next()? {
        let (at, ended) = (line.at, line.ended);
        let Some(bytes) = line.bytes.filter(|_| ended) else { continue };
        let Ok(record) = Record::parse(bytes) else { continue };
        // Where the clock was set back, the search may begin too early.
        if start.since.is_some_and(|time| record.ts < time) {
            continue;
        }
        put(printer.record(&record, bytes, at))?;
    }
    put(printer.tail())?;
    out.flush().map_err(Stop::Output)?;
    Ok(Exit::Ok)
}

/// Why there is no more output.
enum Stop {
    Log(LogError),
    Seek(SeekError),
    Output(io::Error),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl Stop {
    fn explain(self, config: &Config) -> Result<Exit, Failure> {
        match self {
            Self::Log(error) | Self::Seek(SeekError::Log(error)) => Err(failure(config, &error)),
            Self::Seek(error) => Err(Failure::new(
                Exit::BadData,
                format!("{error}: take an \"offset\" that export --json prints"),
            )),
            Self::Output(error) => written(Err(error)).map(|()| Exit::Ok),
        }
    }
}

pub(super) fn open(config: &Config) -> Result<Reader, Failure> {
    let opened = File::open(&config.paths.state)
        .map_err(|e| LogError::Call {
            verb: "open",
            file: "the state directory",
            errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)),
        })
        .and_then(|dir| open_for_reading(dir.as_fd()))
        .and_then(|fds| Reader::new(fds, Offset(0)).find_floor());
    match opened {
        Ok(reader) => Ok(reader),
        Err(error) => Err(failure(config, &error)),
    }
}

pub(super) fn failure(config: &Config, error: &LogError) -> Failure {
    let keeper = &config.identity.keeper_user;
    let (exit, remedy) = match error {
        LogError::Call { errno: Errno::EACCES | Errno::EPERM, .. } => {
            (Exit::Refused, format!("; run this as root or as {keeper}"))
        }
        LogError::Call { errno: Errno::ENOENT, .. } => {
            (Exit::Unavailable, "; is this the room's configuration, and has it ever run?".into())
        }
        LogError::Call { errno: Errno::EOPNOTSUPP | Errno::ENOSYS, verb: REMOVE, .. } => (
            Exit::Unavailable,
            "; this file system cannot, and nothing was changed: export the log, stop the service, \
             and begin a new one"
                .into(),
        ),
        LogError::NotAFile(_) | LogError::Cut { .. } => (Exit::BadData, String::new()),
        _ => (Exit::Internal, String::new()),
    };
    let state = config.paths.state.to_string_lossy();
    Failure::new(exit, format!("{}: {error}{remedy}", visible(&state)))
}

fn name_of(problem: &Problem) -> &'static str {
    match problem {
        Problem::NotARecord(RecordError::Torn) | Problem::Unended => "torn",
        Problem::NotARecord(_) => "foreign",
        Problem::Backwards { .. } => "backwards",
    }
}

fn finding_text(finding: &Finding) -> String {
    let Finding { at, len, what } = finding;
    format!("offset {at}, {len} bytes: {}", visible(&what.to_string()))
}

fn finding_json(finding: &Finding) -> String {
    let (name, message) = (name_of(&finding.what), finding.what.to_string());
    let line = json!({
        "finding": name, "offset": finding.at, "length": finding.len, "message": message,
    });
    visible_json(&line.to_string())
}

fn report_text(r: &Report) -> String {
    let counts = format!(
        "{} bytes, {} lines: {} messages, {} notices, {} joins, {} leaves, {} of other kinds; \
         {} torn, {} foreign; {} times the clock went backwards",
        r.bytes,
        r.lines,
        r.messages,
        r.notices,
        r.joins,
        r.leaves,
        r.other + r.prunings,
        r.torn,
        r.foreign,
        r.backwards,
    );
    let verdict = if r.is_sound() {
        "the log is sound"
    } else {
        "the log has lines that are not records; readers skip them, nothing else is lost"
    };
    match r.pruned {
        0 => format!("{counts}\n{verdict}"),
        floor => {
            format!("pruned: what stood before offset {floor} was removed\n{counts}\n{verdict}")
        }
    }
}

fn report_json(r: &Report) -> String {
    json!({
        "bytes": r.bytes, "lines": r.lines, "messages": r.messages, "notices": r.notices,
        "joins": r.joins, "leaves": r.leaves, "prunings": r.prunings, "other": r.other, "pruned": r.pruned, "torn": r.torn,
        "foreign": r.foreign, "backwards": r.backwards, "sound": r.is_sound(),
    })
    .to_string()
}

fn record_text(record: &Record) -> String {
    let from = visible(&record.from);
    let text = visible_lines(record.text.as_deref().unwrap_or_default(), 4);
    let said = match &record.kind {
        Kind::Message => format!("<{from}> {text}"),
        Kind::Notice => format!("! {from}: {text}"),
        Kind::Join => format!("* {from} came"),
        Kind::Leave => format!("* {from} left"),
        Kind::Pruned => format!("* {from} removed {text}"),
        Kind::Other(kind) => format!("? {from} ({}) {text}", visible(kind)),
    };
    format!("{:.3} {said}", record.ts)
}

/// The record's own bytes, with its offset as the last key.
fn record_json(line: &[u8], at: Offset) -> String {
    let line = String::from_utf8_lossy(line);
    let open = line.trim_ascii_end().strip_suffix('}').unwrap_or(&line);
    visible_json(&format!("{open},\"offset\":{at}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = concat!(
        r#"{"ts":"2026-11-22T22:23:01.123Z","id":"1","from":"alice","text":"hi\n\u001b[2Jyou"}"#,
        "\n",
        r#"{"ts":"2026-11-22T22:23:02.000Z","from":"bob","kind":"join"}"#,
        "\n{\"ts\":\"2026-11-22#torn\n",
        "\u{9b}2J\n",
        "{\"ts\":\"2026-11-22T22:23:03.500Z\",\"id\":\"2\",\"from\":\"bob\",\"text\":\"\u{202e}x\"}\n",
    );

    fn room(log: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("room.log"), log).unwrap();
        std::fs::write(dir.path().join("room.gate"), "").unwrap();
        let mut config = Config::default();
        config.paths.state = dir.path().into();
        (dir, config)
    }

    fn printed(run: impl FnOnce(&mut dyn Write) -> Result<Exit, Failure>) -> (Exit, String) {
        let mut out = Vec::new();
        let exit = run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(control), "{text:?}");
        (exit, text)
    }

    #[test]
    fn verify_shows_every_damaged_line_and_fails() {
        let (_dir, config) = room(LOG);
        let (exit, text) = printed(|out| verify(&config, out, false));
        assert_eq!(exit, Exit::BadData);
        assert!(text.contains("offset 145, 23 bytes: torn"), "{text}");
        assert!(text.contains("2 messages") && text.contains("1 torn, 1 foreign"), "{text}");
        let (exit, text) = printed(|out| verify(&config, out, true));
        assert_eq!(exit, Exit::BadData);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["finding"], "torn");
        assert_eq!(lines[0]["offset"], 145);
        assert_eq!(lines[1]["finding"], "foreign");
        assert_eq!(lines[2]["sound"], false);
    }

    #[test]
    fn a_sound_log_is_said_to_be_sound() {
        let sound = LOG.lines().take(2).fold(String::new(), |log, line| log + line + "\n");
        let (_dir, config) = room(&sound);
        let (exit, text) = printed(|out| verify(&config, out, false));
        assert_eq!(exit, Exit::Ok);
        assert!(text.ends_with("the log is sound\n"), "{text}");
    }

    #[test]
    fn export_prints_records_and_nothing_that_drives_a_terminal() {
        let (_dir, config) = room(LOG);
        let (exit, text) = printed(|out| export(&config, out, Start::default(), Format::Text));
        assert_eq!(exit, Exit::Ok);
        assert!(text.starts_with("2026-11-22T22:23:01.123Z <alice> hi\n    "), "{text}");
        assert!(text.contains("\n2026-11-22T22:23:02.000Z * bob came\n"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn exported_json_is_the_record_with_its_offset() {
        let (_dir, config) = room(LOG);
        let (_, text) = printed(|out| export(&config, out, Start::default(), Format::Json));
        for line in text.lines() {
            let mut exported: serde_json::Value = serde_json::from_str(line).unwrap();
            let at = exported.as_object_mut().unwrap().remove("offset").unwrap();
            let rest = &LOG[at.as_u64().unwrap() as usize..];
            let stored: serde_json::Value =
                serde_json::from_str(rest.lines().next().unwrap()).unwrap();
            assert_eq!(exported, stored);
        }
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn an_exported_page_has_the_records_of_the_text_and_nothing_else() {
        let (_dir, config) = room(LOG);
        let (exit, html) = printed(|out| export(&config, out, Start::default(), Format::Html));
        assert_eq!(exit, Exit::Ok);
        assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"), "{html}");
        assert_eq!(html.matches("<li ").count(), 3, "{html}");
        assert!(html.contains("<li id=\"o0\"") && html.contains("hi\n    ^[[2Jyou"), "{html}");
    }

    #[test]
    fn export_begins_where_it_is_told() {
        let (_dir, config) = room(LOG);
        let later: Timestamp = "2026-11-22T22:23:02Z".parse().unwrap();
        let since = Start { since: Some(later), ..Start::default() };
        let (_, text) = printed(|out| export(&config, out, since, Format::Json));
        assert_eq!(text.lines().count(), 2, "{text}");
        let from = Start { from: Some(Offset(145)), ..Start::default() };
        let (_, text) = printed(|out| export(&config, out, from, Format::Json));
        assert_eq!(text.lines().count(), 1, "{text}");
        for wrong in [1, 100_000] {
            let from = Start { from: Some(Offset(wrong)), ..Start::default() };
            let failure = export(&config, &mut Vec::new(), from, Format::Json).unwrap_err();
            assert_eq!(failure.exit, Exit::BadData, "{failure}");
        }
    }

    #[test]
    fn a_log_that_is_not_there_is_unavailable_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.state = dir.path().into();
        let failure = verify(&config, &mut Vec::new(), false).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable, "{failure}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        config.paths.state = dir.path().join("nothing");
        let failure = verify(&config, &mut Vec::new(), false).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable, "{failure}");
    }
}
