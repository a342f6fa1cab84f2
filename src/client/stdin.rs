//! Lines from stdin as they come: unbuffered below, so that `poll` tells the truth, and bounded,
//! so that neither a long line nor a large file is ever held in memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// One read, in bytes.
const CHUNK: usize = 64 * 1024;

/// A line, or why it is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its text, without the line end.
    Text(String),
    /// It is not UTF-8.
    NotUtf8,
    /// It has more bytes than the limit.
    TooLong,
}

/// Splits what is read into lines.
#[derive(Debug)]
pub struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    used: usize,
    number: u64,
    limit: usize,
    skipping: bool,
    ended: bool,
}

impl Input<File> {
    /// Stdin, with lines of at most `limit` bytes.
    ///
    /// # Errors
    /// Stdin is closed.
    pub fn stdin(limit: usize) -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::new(File::from(fd), limit))
    }

    /// What to wait for before [`Self::fill`].
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl<R: Read> Input<R> {
    /// Lines of `source`, each of at most `limit` bytes.
    pub fn new(source: R, limit: usize) -> Self {
        let (buffer, used, number) = (Vec::new(), 0, 0);
        Self { source, buffer, used, number, limit, skipping: false, ended: false }
    }

    /// Whether everything has been read from the source; [`Self::next_line`] may still have lines.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The number of the line that [`Self::next_line`] gave last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads once.
    ///
    /// # Errors
    /// What reading says; interruptions are not errors.
    pub fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK, 0);
        let read = self.source.read(&mut self.buffer[kept..]);
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The next whole line of what was read.
    pub fn next_line(&mut self) -> Option<Line> {
        let rest = &self.buffer[self.used..];
        let (length, found) = match rest.iter().position(|&b| b == b'\n') {
            Some(length) => (length, true),
            None => (rest.len(), false),
        };
        if !found && !(self.ended && (length > 0 || self.skipping)) {
            if length > self.limit + 1 {
                // Too long already: its bytes are not kept, whatever is still to come.
                self.skipping = true;
                self.used = self.buffer.len();
            }
            return None;
        }
        let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
        let line = if self.skipping || line.len() > self.limit {
            Line::TooLong
        } else {
            std::str::from_utf8(line).map_or(Line::NotUtf8, |text| Line::Text(text.to_owned()))
        };
        self.used += length + usize::from(found);
        self.number += 1;
        self.skipping = false;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(source: impl Read, limit: usize) -> Vec<Line> {
        let mut input = Input::new(source, limit);
        let mut lines = Vec::new();
        for _ in 0..1000 {
            lines.extend(std::iter::from_fn(|| input.next_line()));
            if input.ended() {
                return lines;
            }
            input.fill().unwrap();
            assert!(input.buffer.len() <= limit + 2 + CHUNK);
        }
        panic!("it does not end");
    }

    fn text(s: &str) -> Line {
        Line::Text(s.into())
    }

    #[test]
    fn lines_come_whole_and_the_last_one_needs_no_end() {
        let lines = [text("a"), text(""), text("b"), text("ä c")];
        assert_eq!(all("a\n\nb\r\nä c".as_bytes(), 100), lines);
        assert_eq!(all("a\n\nb\r\nä c\n".as_bytes(), 100), lines);
        assert_eq!(all("".as_bytes(), 100), []);
    }

    #[test]
    fn what_is_no_line_is_named_and_the_next_one_comes() {
        assert_eq!(all(&b"\xff\nok"[..], 100), [Line::NotUtf8, text("ok")]);
        assert_eq!(all(&b"12345\n1234\n"[..], 4), [Line::TooLong, text("1234")]);
        assert_eq!(all(&b"12345"[..], 4), [Line::TooLong]);
        let endless = io::repeat(b'x').take(5_000_000).chain(&b"\nok\n"[..]);
        assert_eq!(all(endless, 4096), [Line::TooLong, text("ok")]);
    }
}
