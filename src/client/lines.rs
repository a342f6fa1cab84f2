//! Puts the log's lines together again out of the pieces in which they travel, and knows the
//! offset of each. Pure. A hostile server can neither make it grow (over-long lines are skipped,
//! their bytes counted) nor make an offset lie unnoticed.

use crate::room::offset::Offset;

/// The longest line that is put together, in bytes; longer ones cannot be records.
pub const MAX_LINE: usize = 512 * 1024;

/// Log bytes came that do not follow on those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the next byte should have been.
    pub expected: Offset,
    /// Where it was.
    pub came: Offset,
}

/// The bytes of the log as far as they have come.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that is not whole yet; empty while it is being skipped.
    partial: Vec<u8>,
    /// Where that line begins.
    start: Offset,
    /// Where the next byte belongs.
    next: Offset,
    skipping: bool,
}

impl Lines {
    /// Nothing has come yet, and the next byte is the one at `at`, which begins a line.
    pub fn starting_at(at: Offset) -> Self {
        Self { start: at, next: at, ..Self::default() }
    }

    /// The end of the last whole line: where to resume.
    pub fn position(&self) -> Offset {
        self.start
    }

    /// The end of everything that has come, whole lines or not.
    pub fn received(&self) -> Offset {
        self.next
    }

    /// The rest of a line that was begun will not come on this connection.
    pub fn forget_partial(&mut self) {
        self.partial.clear();
        self.skipping = false;
        self.next = self.start;
    }

    /// There are no bytes before `to`, where a line begins; whether that is further on.
    pub fn skip_to(&mut self, to: Offset) -> bool {
        let on = to > self.start && to >= self.next;
        if on {
            *self = Self::starting_at(to);
        }
        on
    }

    /// Takes the bytes at `at`, and gives every line that is now whole, without its line end, to
    /// `each` together with its offset. Over-long lines are left out.
    pub fn feed(
        &mut self,
        at: Offset,
        mut bytes: &[u8],
        mut each: impl FnMut(Offset, &[u8]),
    ) -> Result<(), Gap> {
        if at != self.next {
            return Err(Gap { expected: self.next, came: at });
        }
        while let Some(length) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(length);
            bytes = &rest[1..];
            self.next = self.next.plus(length + 1);
            self.complete(line, &mut each);
        }
        self.next = self.next.plus(bytes.len());
        self.keep(bytes);
        Ok(())
    }

    fn complete(&mut self, end_of_line: &[u8], each: &mut impl FnMut(Offset, &[u8])) {
        if self.partial.is_empty() && !self.skipping && end_of_line.len() <= MAX_LINE {
            each(self.start, end_of_line);
        } else {
            self.keep(end_of_line);
            if !self.skipping {
                each(self.start, &self.partial);
            }
        }
        self.partial.clear();
        self.skipping = false;
        self.start = self.next;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping || self.partial.len() + bytes.len() > MAX_LINE {
            self.skipping = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(lines: &mut Lines, at: u64, bytes: &[u8]) -> Vec<(u64, String)> {
        let mut got = Vec::new();
        lines
            .feed(Offset(at), bytes, |o, l| got.push((o.0, String::from_utf8(l.into()).unwrap())))
            .unwrap();
        got
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let log = b"one\ntwo\n\nfour\nfi";
        let expected =
            [(7, "one"), (11, "two"), (15, ""), (16, "four")].map(|(o, s)| (o, s.to_owned()));
        for cut in 0..=log.len() {
            let mut lines = Lines::starting_at(Offset(7));
            let mut got = collect(&mut lines, 7, &log[..cut]);
            got.extend(collect(&mut lines, 7 + cut as u64, &log[cut..]));
            assert_eq!(got, expected, "cut at {cut}");
            assert_eq!((lines.position(), lines.received()), (Offset(21), Offset(23)));
        }
    }

    #[test]
    fn a_partial_line_is_forgotten_and_comes_again() {
        let mut lines = Lines::starting_at(Offset(0));
        collect(&mut lines, 0, b"a\nbc");
        lines.forget_partial();
        assert_eq!(collect(&mut lines, 2, b"bcd\n"), [(2, "bcd".to_owned())]);
    }

    #[test]
    fn what_was_removed_is_passed_over_and_nothing_comes_twice() {
        let mut lines = Lines::starting_at(Offset(0));
        collect(&mut lines, 0, b"a\nbc");
        for back in [0, 2, 3] {
            assert!(!lines.skip_to(Offset(back)), "{back}");
        }
        assert!(lines.skip_to(Offset(9)));
        assert_eq!(collect(&mut lines, 9, b"d\n"), [(9, "d".to_owned())]);
    }

    #[test]
    fn a_gap_or_an_overlap_is_noticed() {
        let mut lines = Lines::starting_at(Offset(5));
        collect(&mut lines, 5, b"abc");
        for came in [0, 7, 9, u64::MAX] {
            let error = lines.feed(Offset(came), b"x", |_, _| {});
            assert_eq!(error, Err(Gap { expected: Offset(8), came: Offset(came) }));
        }
    }

    #[test]
    fn an_over_long_line_is_skipped_but_counted_and_costs_no_memory() {
        let chunk = vec![b'x'; 60_000];
        let mut lines = Lines::starting_at(Offset(0));
        for n in 0..50 {
            assert!(collect(&mut lines, n * 60_000, &chunk).is_empty());
            assert!(lines.partial.capacity() <= 2 * MAX_LINE);
        }
        assert_eq!(
            collect(&mut lines, 3_000_000, b"end\nnext\n"),
            [(3_000_004, "next".to_owned())]
        );
        assert_eq!(lines.position(), Offset(3_000_009));
        let whole = [vec![b'y'; MAX_LINE + 1], b"\nok\n".to_vec()].concat();
        let at = 3_000_009;
        let after = at + MAX_LINE as u64 + 2;
        assert_eq!(collect(&mut lines, at, &whole), [(after, "ok".to_owned())]);
    }

    #[test]
    fn offsets_at_the_end_of_the_world_do_not_overflow() {
        let mut lines = Lines::starting_at(Offset(u64::MAX - 1));
        collect(&mut lines, u64::MAX - 1, b"a\nb\nc\n");
        assert_eq!(lines.position(), Offset(u64::MAX));
    }
}
