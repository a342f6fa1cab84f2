//! Where a reader begins: at an offset it names, at a time, or so many messages before the end.
//!
//! Pure but for the source of bytes; takes the locks of a reader, one read at a time. The cost
//! is bounded whatever the log contains: a client chooses these numbers.

use std::fmt;

use jiff::Timestamp;

use super::lines::Bytes;
use super::log::LogError;
use super::offset::Offset;
use super::record::{MAX_LINE, Record, STAMP_AT, STAMP_LEN, stamp_of};

/// The most messages that [`history`] goes back.
pub const MAX_HISTORY: u32 = 10_000;
/// The most bytes that [`history`] goes back; 10,000 messages of the default size.
pub const MAX_LOOK_BACK: u64 = 64 << 20;

/// How much is read at once when searching by time.
const PROBE: usize = 4096;
/// How far to look for the next record when searching by time: two of the longest.
const MAX_PROBE: u64 = 2 * MAX_LINE as u64;
/// Enough to see a line end, and behind it a time stamp.
const PREFIX: usize = 1 + STAMP_AT + STAMP_LEN + 1;
/// How much is read at once when going back.
const STEP: usize = 64 * 1024;

/// Why an offset is not a place to begin at.
#[derive(Debug, PartialEq, Eq)]
pub enum SeekError {
    /// It is behind the end.
    BehindEnd {
        /// The offset that was asked for.
        at: Offset,
        /// The log's size.
        size: Offset,
    },
    /// It is in the middle of a line.
    InsideLine(Offset),
    /// The log could not be read.
    Log(LogError),
}

/// Checks that a reader may begin at `at`: not behind the end, and at the beginning of a line, or
/// in the part that was pruned (even where the floor is not known yet).
///
/// # Errors
/// [`SeekError`]
pub fn check(source: &(impl Bytes + ?Sized), at: Offset) -> Result<Offset, SeekError> {
    let size = source.size()?;
    if at > size {
        return Err(SeekError::BehindEnd { at, size });
    }
    let Some(before) = at.0.checked_sub(1).filter(|_| at > source.floor()) else { return Ok(at) };
    let mut byte = [0];
    let filled = source.read_at(&mut byte, Offset(before))?;
    if filled == 1 && matches!(byte, [b'\n' | 0]) { Ok(at) } else { Err(SeekError::InsideLine(at)) }
}

/// Where the last `count` messages begin (presence is not counted); the beginning if there are
/// fewer. `count` is capped at [`MAX_HISTORY`], and the search at [`MAX_LOOK_BACK`] bytes.
///
/// # Errors
/// The log could not be read.
pub fn history(source: &(impl Bytes + ?Sized), count: u32) -> Result<Offset, LogError> {
    history_within(source, count, MAX_LOOK_BACK)
}

fn history_within(
    source: &(impl Bytes + ?Sized),
    count: u32,
    look_back: u64,
) -> Result<Offset, LogError> {
    let end = source.end()?;
    let mut wanted = count.min(MAX_HISTORY);
    let mut back = Backwards::new(source, end, look_back);
    while wanted > 0 {
        match back.previous()? {
            None => break,
            Some(line) => {
                wanted -= u32::from(Record::parse(line).is_ok_and(|record| record.is_message()));
            }
        }
    }
    Ok(back.at)
}

/// Where the first record that is not older than `time` stands; the end if all are older.
///
/// A binary search, so it costs no more in a longer log. It relies on time stamps in order: where
/// the clock was set back the place is near the right one, and it is always a line's beginning.
/// Around long stretches without records it begins too early rather than too late.
///
/// # Errors
/// The log could not be read.
pub fn since(source: &(impl Bytes + ?Sized), time: Timestamp) -> Result<Offset, LogError> {
    let end = source.end()?.0;
    // `lo` is a line's beginning, and all records before it are older. The first record that
    // begins behind `hi` is not older, or there is none near.
    let (mut lo, mut hi) = (source.floor().0.min(end), end);
    while hi - lo > PROBE as u64 {
        let middle = lo + (hi - lo) / 2;
        let limit = end.min(middle + MAX_PROBE);
        match find_stamp(source, Probe { from: middle, starts_line: false, limit }, |_| true)? {
            Some((at, stamp)) if stamp < time && at < hi => lo = at,
            _ => hi = middle,
        }
    }
    let limit = end.min(hi + MAX_PROBE);
    let probe = Probe { from: lo, starts_line: true, limit };
    Ok(Offset(match find_stamp(source, probe, |stamp| stamp >= time)? {
        Some((at, _)) => at,
        None if limit == end => end,
        None => lo,
    }))
}

struct Probe {
    from: u64,
    /// Whether a line begins at `from`.
    starts_line: bool,
    /// Only lines that begin before this offset count.
    limit: u64,
}

/// The first line with a time stamp that is accepted.
fn find_stamp(
    source: &(impl Bytes + ?Sized),
    probe: Probe,
    accept: impl Fn(Timestamp) -> bool,
) -> Result<Option<(u64, Timestamp)>, LogError> {
    let Probe { mut from, mut starts_line, limit } = probe;
    let mut buffer = [0; PROBE];
    while from < limit {
        let filled = source.read_at(&mut buffer, Offset(from))?;
        let window = &buffer[..filled];
        let breaks = window.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
        let starts = starts_line.then_some(0).into_iter().chain(breaks);
        let mut next = filled;
        starts_line = false;
        for start in starts {
            let line = &window[start..];
            if line.len() < PREFIX && start > 0 && filled == PROBE {
                (next, starts_line) = (start, true);
                break;
            }
            if from + start as u64 >= limit {
                return Ok(None);
            }
            if let Some(stamp) = stamp_of(line).filter(|stamp| accept(*stamp)) {
                return Ok(Some((from + start as u64, stamp)));
            }
        }
        if next == 0 {
            break;
        }
        from += next as u64;
    }
    Ok(None)
}

/// Gives the lines before an offset, the last one first.
struct Backwards<'s, S: ?Sized> {
    source: &'s S,
    /// Where the line that was given last begins.
    at: Offset,
    limit: u64,
    /// Bytes from `base` on, at least up to `at` unless empty.
    buffer: Vec<u8>,
    base: u64,
}

impl<'s, S: Bytes + ?Sized> Backwards<'s, S> {
    fn new(source: &'s S, end: Offset, look_back: u64) -> Self {
        let limit = end.0.saturating_sub(look_back).max(source.floor().0);
        Self { source, at: end, limit, buffer: vec![0; MAX_LINE], base: end.0 }
    }

    /// The line that ends at `at`; empty if it is longer than a record can be. `None`: this is
    /// the beginning, or far enough.
    fn previous(&mut self) -> Result<Option<&[u8]>, LogError> {
        let end = self.at.0;
        if end <= self.limit {
            return Ok(None);
        }
        loop {
            let known = (end - self.base) as usize;
            // The line's own end is no beginning.
            let before = &self.buffer[..known.saturating_sub(1)];
            if let Some(i) = before.iter().rposition(|&b| b == b'\n') {
                self.at = Offset(self.base).plus(i + 1);
                return Ok(Some(&self.buffer[i + 1..known]));
            }
            if self.base == 0 {
                self.at = Offset(0);
                return Ok(Some(&self.buffer[..known]));
            }
            if known >= MAX_LINE {
                return self.pass_over(end);
            }
            self.load(end, (2 * known).clamp(STEP, MAX_LINE))?;
        }
    }

    /// Loads the last `length` bytes before `end`.
    fn load(&mut self, end: u64, length: usize) -> Result<(), LogError> {
        self.base = end.saturating_sub(length as u64);
        let length = (end - self.base) as usize;
        let filled = self.source.read_at(&mut self.buffer[..length], Offset(self.base))?;
        // Only a log that was cut can give less; zeros are no records.
        self.buffer[filled..length].fill(0);
        Ok(())
    }

    /// Finds the beginning of a line that does not fit in the buffer.
    fn pass_over(&mut self, end: u64) -> Result<Option<&[u8]>, LogError> {
        let mut hi = self.base;
        while hi > self.limit {
            self.load(hi, STEP)?;
            let known = (hi - self.base) as usize;
            if let Some(i) = self.buffer[..known].iter().rposition(|&b| b == b'\n') {
                self.at = Offset(self.base).plus(i + 1);
                return Ok(Some(&[]));
            }
            hi = self.base;
        }
        self.at = Offset(if hi == 0 { 0 } else { end });
        Ok(None)
    }
}

impl From<LogError> for SeekError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl fmt::Display for SeekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BehindEnd { at, size } => {
                write!(f, "offset {at} is behind the end of the log ({size})")
            }
            Self::InsideLine(at) => write!(f, "offset {at} is not the beginning of a line"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SeekError {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::room::record::{Batch, Kind};

    /// A log of `count` records, one a second from the epoch on; every third is presence.
    fn log(count: usize, text: &str) -> (Vec<u8>, Vec<usize>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        let mut batch = Batch::with_capacity(MAX_LINE);
        let name = "alice".parse().unwrap();
        for i in 0..count {
            batch.clear();
            if i % 3 == 2 {
                batch.push(None, &name, Kind::Join, None).unwrap();
            } else {
                batch.push(Some("i"), &name, Kind::Message, Some(text)).unwrap();
            }
            batch.stamp(second(i));
            starts.push(log.len());
            log.extend_from_slice(batch.bytes());
        }
        (log, starts)
    }

    fn second(i: usize) -> Timestamp {
        Timestamp::from_second(i as i64).unwrap()
    }

    /// Counts the reads.
    struct Counted(Vec<u8>, Cell<usize>);

    impl Bytes for Counted {
        fn size(&self) -> Result<Offset, LogError> {
            self.0[..].size()
        }
        fn end(&self) -> Result<Offset, LogError> {
            self.0[..].end()
        }
        fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
            self.1.set(self.1.get() + 1);
            self.0[..].read_at(buf, at)
        }
    }

    #[test]
    fn history_counts_messages_and_not_presence() {
        for text in ["x", &"long ".repeat(5000)] {
            let (log, starts) = log(31, text);
            // 0 1 p 3 4 p … 27 28 p 30: of the last three messages the first is 27.
            for (count, first) in
                [(0, log.len()), (1, starts[30]), (2, starts[28]), (3, starts[27])]
            {
                assert_eq!(history(&log[..], count), Ok(Offset(first as u64)), "{count}");
            }
            assert_eq!(history(&log[..], 4), Ok(Offset(starts[25] as u64)));
            assert_eq!(history(&log[..], 1000), Ok(Offset(0)));
            assert_eq!(history(&log[..], u32::MAX), Ok(Offset(0)));
        }
        assert_eq!(history(&b""[..], 5), Ok(Offset(0)));
    }

    #[test]
    fn history_is_not_confused_by_torn_foreign_and_endless_lines() {
        let (good, starts) = log(2, "x");
        for junk in ["", "\n\n\n", "hello\n", &format!("{}\n", "y".repeat(3 * MAX_LINE))] {
            let mut log = good.clone();
            log.extend_from_slice(junk.as_bytes());
            log.extend_from_slice(b"{\"ts\":\"torn");
            assert_eq!(history(&log[..], 2), Ok(Offset(0)), "{}", junk.len());
            assert_eq!(history(&log[..], 1), Ok(Offset(starts[1] as u64)), "{}", junk.len());
        }
    }

    #[test]
    fn history_goes_back_a_bounded_way() {
        let presence = b"{\"ts\":\"1970-01-01T00:00:00.000Z\",\"from\":\"a\",\"kind\":\"join\"}\n";
        const LIMIT: u64 = 1 << 20;
        let log = presence.repeat(LIMIT as usize / presence.len() + 10_000);
        let at = history_within(&log[..], 1, LIMIT).unwrap();
        let way = log.len() as u64 - at.0;
        assert!((LIMIT..LIMIT + 1000).contains(&way), "{way}");
        assert_eq!(check(&log[..], at), Ok(at));
        let mut endless = b"\n".to_vec();
        endless.resize(LIMIT as usize + 1_000_000, b'x');
        endless.push(b'\n');
        let end = Offset(endless.len() as u64);
        assert_eq!(history_within(&endless[..], 1, LIMIT), Ok(end));
    }

    #[test]
    fn since_finds_the_first_record_that_is_not_older() {
        for text in ["x", &"long ".repeat(500)] {
            let (log, starts) = log(2000, text);
            for i in (0..2000).step_by(37) {
                assert_eq!(since(&log[..], second(i)), Ok(Offset(starts[i] as u64)), "{i}");
                let later = second(i) + jiff::Span::new().milliseconds(1);
                assert_eq!(since(&log[..], later), Ok(Offset(starts[i + 1] as u64)), "{i}");
            }
            assert_eq!(since(&log[..], second(2000)), Ok(Offset(log.len() as u64)));
            assert_eq!(since(&log[..], Timestamp::MIN), Ok(Offset(0)));
        }
        assert_eq!(since(&b""[..], second(0)), Ok(Offset(0)));
    }

    #[test]
    fn the_cost_of_since_grows_with_the_logarithm_of_the_log() {
        let mut reads = Vec::new();
        for count in [10_000, 80_000] {
            let (log, starts) = log(count, "x");
            let log = Counted(log, Cell::new(0));
            assert_eq!(since(&log, second(4321)), Ok(Offset(starts[4321] as u64)));
            reads.push(log.1.get());
        }
        assert!(reads[1] <= reads[0] + 5, "{reads:?}");
        assert!(reads[1] < 30, "{reads:?}");
    }

    #[test]
    fn since_never_skips_over_what_it_cannot_read() {
        let (good, starts) = log(100, "x");
        let junk = [b'y'].repeat(6 * MAX_LINE);
        let mut log = good.clone();
        log.extend_from_slice(&junk);
        log.extend_from_slice(b"\n");
        let behind = log.len();
        log.extend_from_slice(&good[starts[50]..]);
        // The right place is behind the junk, or anywhere before it, but at a line's beginning.
        let at = since(&log[..], second(99)).unwrap();
        assert!(at.0 as usize <= starts[99], "{at}");
        assert_eq!(check(&log[..], at), Ok(at));
        let at = since(&good[..], second(99)).unwrap();
        assert_eq!(at.0 as usize, starts[99]);
        assert!(behind > starts[99]);
    }

    #[test]
    fn only_the_beginning_of_a_line_is_a_place_to_begin_at() {
        let log = &b"ab\ncd\ne"[..];
        for good in [0, 3, 6] {
            assert_eq!(check(log, Offset(good)), Ok(Offset(good)));
        }
        for bad in [1, 2, 4, 5, 7] {
            assert_eq!(check(log, Offset(bad)), Err(SeekError::InsideLine(Offset(bad))));
        }
        for beyond in [8, u64::MAX] {
            let error = SeekError::BehindEnd { at: Offset(beyond), size: Offset(7) };
            assert_eq!(check(log, Offset(beyond)), Err(error));
        }
        assert_eq!(check(&b""[..], Offset(0)), Ok(Offset(0)));
    }
}
