//! Every role and the launcher: log lines for syslog, over one pipe that all of them share.
//!
//! A line is `<SEVERITY>TEXT\n` and at most [`LINE_MAX`] bytes, which a pipe takes whole or not at
//! all (pipe(7), PIPE_BUF), so lines of different processes never mix. The pipe is the roles'
//! stderr too: what a panic prints arrives as a line without a severity. The launcher believes
//! nothing in it: control characters become visible, long lines are cut.

use std::fmt;
use std::io::Write;

pub use crate::config::Severity;

/// The longest line in bytes, its end included: the PIPE_BUF that POSIX guarantees.
pub const LINE_MAX: usize = 512;

/// The number that syslog gives a severity (RFC 5424).
pub fn number(severity: Severity) -> u8 {
    match severity {
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
        Severity::Debug => 7,
    }
}

/// A role's pen: writes log lines to its stderr, which is the pipe.
#[derive(Clone, Debug)]
pub struct Reporter {
    who: String,
}

impl Reporter {
    /// A pen that begins each line with `who` (`recv alice 192.0.2.1:5000`).
    pub fn new(who: impl Into<String>) -> Self {
        Self { who: who.into() }
    }

    /// Writes one line. A full or closed pipe loses it: logging must not stop a role.
    pub fn line(&self, severity: Severity, text: impl fmt::Display) {
        let line = compose(severity, &self.who, &text.to_string());
        let _ = std::io::stderr().write_all(&line);
    }

    /// Writes a line about something that failed.
    pub fn error(&self, text: impl fmt::Display) {
        self.line(Severity::Error, text);
    }

    /// Writes a line about something that was dealt with.
    pub fn warning(&self, text: impl fmt::Display) {
        self.line(Severity::Warning, text);
    }

    /// Writes a line worth knowing.
    pub fn notice(&self, text: impl fmt::Display) {
        self.line(Severity::Notice, text);
    }

    /// Writes a line about everyday business.
    pub fn info(&self, text: impl fmt::Display) {
        self.line(Severity::Info, text);
    }
}

fn compose(severity: Severity, who: &str, text: &str) -> Vec<u8> {
    let mut line = format!("<{}>{who}: {text}", number(severity)).replace('\n', " ");
    let mut end = line.len().min(LINE_MAX - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    line.into_bytes()
}

/// Reads a line as a role wrote it; what has no severity is an error (a panic's message).
pub fn parse(line: &[u8]) -> (Severity, String) {
    let text = String::from_utf8_lossy(line);
    let parsed = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let severity = parsed.and_then(|(number, _)| match number {
        "3" => Some(Severity::Error),
        "4" => Some(Severity::Warning),
        "5" => Some(Severity::Notice),
        "6" => Some(Severity::Info),
        "7" => Some(Severity::Debug),
        _ => None,
    });
    match (severity, parsed) {
        (Some(severity), Some((_, text))) => (severity, text.to_owned()),
        _ => (Severity::Error, text.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_the_pipe_and_fits_into_one_write() {
        let line = compose(Severity::Warning, "recv alice 192.0.2.1:5", "no\nway");
        assert_eq!(line, b"<4>recv alice 192.0.2.1:5: no way\n");
        let parsed = parse(&line[..line.len() - 1]);
        assert_eq!(parsed, (Severity::Warning, "recv alice 192.0.2.1:5: no way".into()));
        assert!(compose(Severity::Info, "x", &"ä".repeat(600)).len() <= LINE_MAX);
    }

    #[test]
    fn what_is_not_a_line_of_ours_is_an_error() {
        for odd in [&b"thread 'main' panicked"[..], b"<9>x", b"<>", b"", b"\xff\xfe", b"<3"] {
            assert_eq!(parse(odd).0, Severity::Error);
        }
    }
}
