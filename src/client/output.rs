//! Records and notices on stdout: for people, or one JSON object a line for machines. Buffered;
//! whoever waits for something flushes first. A reader that has gone away (`| head`) ends the
//! program without a word.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use super::display::Transcript;
use crate::exit::{Exit, Failure};
use crate::room::offset::Offset;
use crate::room::record::Record;
use crate::visible::{visible, visible_json};

/// Where records go.
pub struct Output {
    stdout: BufWriter<Stdout>,
    /// `None` for JSON.
    transcript: Option<Transcript>,
}

impl Output {
    /// Stdout, as JSON or for people.
    pub fn new(json: bool) -> Self {
        let transcript = (!json).then(|| Transcript::new(colours()));
        Self { stdout: BufWriter::new(io::stdout()), transcript }
    }

    /// Writes one record; `line` is how it stands in the log.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn record(&mut self, offset: Offset, line: &[u8], record: &Record) -> Result<(), Failure> {
        let written = match &mut self.transcript {
            Some(transcript) => self.stdout.write_all(transcript.lines(record).as_bytes()),
            None => writeln!(self.stdout, "{}", json_line(offset, line)),
        };
        written.map_err(|e| stdout_failure(&e))
    }

    /// Tells a person something that is not a record; machines find it on stderr.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn notice(&mut self, text: &str) -> Result<(), Failure> {
        match &self.transcript {
            Some(_) => {
                writeln!(self.stdout, "-- {}", visible(text)).map_err(|e| stdout_failure(&e))
            }
            None => {
                complain(text);
                Ok(())
            }
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|e| stdout_failure(&e))
    }
}

/// A line on stderr behind the program's name. A closed stderr is no reason to stop.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "papaya: {}", visible(text));
}

/// What a person is told about a part of the log that was removed.
pub fn pruned_words(from: Offset, to: Offset) -> String {
    format!("what stood in the log from offset {from} to {to} was removed by an administrator")
}

/// And about an own message whose echo may have been there.
pub const UNCERTAIN: &str =
    "it may have been stored in a part of the log that was removed; it is not sent again";

/// Whether stdout is a terminal whose user wants colours.
pub fn colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !no_color && !dumb
}

/// The end of the program when stdout fails; silent and successful when nobody reads any more.
pub fn stdout_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::new(Exit::Ok, "")
    } else {
        Failure::new(Exit::CannotCreate, format!("cannot write to stdout: {error}"))
    }
}

/// The record's own JSON with its offset added as the last key.
fn json_line(offset: Offset, line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let open = text.trim_ascii_end().strip_suffix('}').unwrap_or(&text);
    let comma = if open.trim_ascii_end().ends_with('{') { "" } else { "," };
    visible_json(&format!("{open}{comma}\"offset\":{offset}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_record_with_its_offset() {
        let line = br#"{"ts":"2026-11-22T22:23:01Z","id":"a","from":"b","text":"}{","new":[1]} "#;
        assert_eq!(
            json_line(Offset(17), line),
            r#"{"ts":"2026-11-22T22:23:01Z","id":"a","from":"b","text":"}{","new":[1],"offset":17}"#
        );
        assert_eq!(json_line(Offset(0), b"{ }"), r#"{ "offset":0}"#);
    }
}
