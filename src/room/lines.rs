//! Walking a log line by line with a buffer of fixed size, whatever the log contains.
//!
//! Used by `papayad log verify` and `export`. The source is anything that gives bytes at an
//! offset: the locked file, or a slice in the tests.

use super::log::{LogError, Reader};
use super::offset::Offset;
use super::record::MAX_LINE;

/// Bytes that can be read at any offset and that only grow.
pub trait Bytes {
    /// The number of bytes; the last line may be torn.
    fn size(&self) -> Result<Offset, LogError>;
    /// The end of the last whole line, see [`Reader::end`].
    fn end(&self) -> Result<Offset, LogError>;
    /// Fills `buf` from `at` on; how much was there.
    fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError>;
    /// Where it begins: what stood before was removed.
    fn floor(&self) -> Offset {
        Offset(0)
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'b> {
    /// Where it begins.
    pub at: Offset,
    /// How many bytes it has, line end included.
    pub len: u64,
    /// Its bytes without the line end; `None` if they are more than a record can have.
    pub bytes: Option<&'b [u8]>,
    /// Whether it has a line end; only the last line can lack it.
    pub ended: bool,
}

/// The lines of a source from an offset on.
pub struct Lines<'s, S: ?Sized> {
    source: &'s S,
    until: Offset,
    /// What was read and not yet given: `buffer[from..filled]` stands at offset `at`.
    buffer: Vec<u8>,
    from: usize,
    filled: usize,
    at: Offset,
}

impl<'s, S: Bytes + ?Sized> Lines<'s, S> {
    /// The lines from `from` (the beginning of a line), or from the source's floor if that is
    /// later, up to the size that the source has now.
    ///
    /// # Errors
    /// The size could not be had.
    pub fn new(source: &'s S, from: Offset) -> Result<Self, LogError> {
        let until = source.size()?;
        let buffer = vec![0; MAX_LINE];
        Ok(Self { source, until, buffer, from: 0, filled: 0, at: from.max(source.floor()) })
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// Reading failed.
    #[allow(clippy::should_implement_trait)] // a line borrows the buffer, an Iterator's item cannot
    pub fn next(&mut self) -> Result<Option<Line<'_>>, LogError> {
        let at = self.at;
        let mut searched = 0;
        let mut dropped = 0;
        loop {
            let pending = &self.buffer[self.from..self.filled];
            if let Some(i) = pending[searched..].iter().position(|&b| b == b'\n') {
                return Ok(Some(self.take(at, searched + i, 1, dropped)));
            }
            searched = pending.len();
            if searched == self.buffer.len() {
                dropped += searched as u64;
                (self.from, self.filled, searched) = (0, 0, 0);
            }
            if self.fill(at.plus(searched).0.saturating_add(dropped))? == 0 {
                let rest = searched as u64 + dropped;
                return Ok((rest > 0).then(|| self.take(at, searched, 0, dropped)));
            }
        }
    }

    /// Gives `len` bytes and passes over them and over the line end behind them.
    fn take(&mut self, at: Offset, len: usize, end: usize, dropped: u64) -> Line<'_> {
        let start = self.from;
        self.from += len + end;
        let total = (len + end) as u64 + dropped;
        self.at = Offset(at.0.saturating_add(total));
        let bytes = (dropped == 0).then(|| &self.buffer[start..start + len]);
        Line { at, len: total, bytes, ended: end == 1 }
    }

    /// Reads what stands at `offset` behind what is pending.
    fn fill(&mut self, offset: u64) -> Result<usize, LogError> {
        if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.from..self.filled, 0);
            self.filled -= self.from;
            self.from = 0;
        }
        let left = usize::try_from(self.until.0.saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = (self.buffer.len() - self.filled).min(left);
        let slot = &mut self.buffer[self.filled..self.filled + room];
        let filled = self.source.read_at(slot, Offset(offset))?;
        self.filled += filled;
        Ok(filled)
    }
}

impl Bytes for Reader {
    fn size(&self) -> Result<Offset, LogError> {
        Reader::size(self)
    }

    fn end(&self) -> Result<Offset, LogError> {
        Reader::end(self)
    }

    fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
        Reader::read_at(self, buf, at)
    }

    fn floor(&self) -> Offset {
        Reader::floor(self)
    }
}

impl Bytes for [u8] {
    fn size(&self) -> Result<Offset, LogError> {
        Ok(Offset(self.len() as u64))
    }

    fn end(&self) -> Result<Offset, LogError> {
        Ok(Offset(self.iter().rposition(|&b| b == b'\n').map_or(0, |last| last as u64 + 1)))
    }

    fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
        let rest = usize::try_from(at.0).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let filled = rest.len().min(buf.len());
        buf[..filled].copy_from_slice(&rest[..filled]);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most seven bytes at a time, as a file never does but might.
    struct Slow(Vec<u8>);

    impl Bytes for Slow {
        fn size(&self) -> Result<Offset, LogError> {
            self.0[..].size()
        }
        fn end(&self) -> Result<Offset, LogError> {
            self.0[..].end()
        }
        fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
            let most = buf.len().min(7);
            self.0[..].read_at(&mut buf[..most], at)
        }
    }

    fn collect<S: Bytes + ?Sized>(source: &S) -> Vec<(u64, u64, Option<Vec<u8>>, bool)> {
        let mut lines = Lines::new(source, Offset(0)).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.at.0, line.len, line.bytes.map(<[u8]>::to_vec), line.ended));
        }
        all
    }

    #[test]
    fn every_byte_is_in_exactly_one_line() {
        let text = b"one\n\ntwo and a half\nthe end";
        let expected = vec![
            (0, 4, Some(b"one".to_vec()), true),
            (4, 1, Some(Vec::new()), true),
            (5, 15, Some(b"two and a half".to_vec()), true),
            (20, 7, Some(b"the end".to_vec()), false),
        ];
        assert_eq!(collect(&text[..]), expected);
        assert_eq!(collect(&Slow(text.to_vec())), expected);
        assert_eq!(collect(&b""[..]), vec![]);
    }

    #[test]
    fn a_line_that_is_longer_than_any_record_is_passed_over_in_fixed_memory() {
        for long in [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE, 3 * MAX_LINE + 5] {
            let mut text = b"a\n".to_vec();
            text.resize(2 + long, b'x');
            text.extend_from_slice(b"\nb\n");
            let lines = collect(&text[..]);
            let fits = long < MAX_LINE;
            assert_eq!(lines.len(), 3, "{long}");
            assert_eq!((lines[1].0, lines[1].1), (2, long as u64 + 1));
            assert_eq!(lines[1].2.is_some(), fits, "{long}");
            assert_eq!(lines[2], (3 + long as u64, 2, Some(b"b".to_vec()), true));
        }
    }
}
