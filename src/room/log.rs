//! The log on the disk: appending to it and reading it, under its locks.
//!
//! The keeper opens it ([`Files`]) and passes on fresh open file descriptions; RECV appends
//! ([`Appender`]); SEND reads ([`Reader`]). What is read is hostile: nothing here trusts the
//! file's contents. Touches nothing but the descriptors it was given.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::unistd::{Whence, fdatasync, lseek, write};

pub use super::files::{AppenderFds, Files, GATE, LOG, ReaderFds, open_for_reading, open_log};
use super::files::{call, stat};
use super::floor;
use super::lock;
use super::offset::Offset;
use super::record::{Batch, TORN_MARK};
use crate::config::Durability;

/// How far [`Reader::end`] looks back for the end of a line.
const LOOK_BACK: u64 = 8 << 20;

/// What went wrong with the log.
#[derive(Debug, PartialEq, Eq)]
pub enum LogError {
    /// A call failed: what was tried, on which file, and why.
    Call {
        /// What was tried, as a verb.
        verb: &'static str,
        /// On which file.
        file: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// The file is something else than a regular file.
    NotAFile(&'static str),
    /// The file was replaced by another while the room was open.
    Replaced(&'static str),
    /// The log ends before the offset that was to be read: it was cut.
    Cut {
        /// The offset that was to be read.
        at: Offset,
        /// The log's size.
        size: Offset,
    },
}

/// Appends to the log.
pub struct Appender {
    log: OwnedFd,
    tail: OwnedFd,
    gate: OwnedFd,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// So many records, from the first on, are whole in the log; the others are not, and never
    /// will be.
    pub stored: usize,
    /// Where the first record stands, if one is stored.
    pub at: Offset,
    /// Whether the last writer was torn, and its record has been marked so.
    pub repaired: bool,
    /// Why not all were stored (`ENOSPC`, `EDQUOT`, `EFBIG`, `EIO`); if all were, why they could
    /// not be flushed to the disk.
    pub problem: Option<Errno>,
}

/// Reads the log from a position on.
pub struct Reader {
    log: OwnedFd,
    gate: OwnedFd,
    position: Offset,
    /// Where the log's descriptor stands, once that is known.
    shown: Option<Offset>,
    behind: bool,
    floor: Offset,
}

impl Appender {
    /// An appender on descriptors that no other process locks.
    pub fn new(fds: AppenderFds) -> Self {
        let AppenderFds { log, tail, gate } = fds;
        Self { log, tail, gate }
    }

    /// What it has open: the log to append, the log to see its last byte, the gate.
    pub fn held(&self) -> [BorrowedFd<'_>; 3] {
        [self.log.as_fd(), self.tail.as_fd(), self.gate.as_fd()]
    }

    /// Appends the batch under the exclusive lock, stamped with the time that `now` gives once the
    /// lock is held. The caller rings the bell afterwards.
    ///
    /// If the last writer was torn, its record is ended with [`TORN_MARK`] first. If space runs
    /// out, [`Appended`] tells which records are whole in the log.
    ///
    /// # Errors
    /// Nothing was stored: the lock could not be had, or the log could not be looked at.
    pub fn append(
        &mut self,
        batch: &mut Batch,
        now: impl Fn() -> Timestamp,
        durability: Durability,
    ) -> Result<Appended, LogError> {
        let _lock = self.lock()?;
        self.append_locked(batch, now, durability)
    }

    /// Waits until nobody else writes or reads, and keeps it so until what it gives is dropped.
    pub(super) fn lock(&self) -> Result<lock::Held<'_>, LogError> {
        let gate = lock::exclusive(&self.gate).map_err(|e| lock_error(GATE, e))?;
        let held = lock::exclusive(&self.log).map_err(|e| lock_error(LOG, e))?;
        drop(gate);
        Ok(held)
    }

    /// The log's file.
    pub(super) fn file(&self) -> &OwnedFd {
        &self.tail
    }

    /// As [`Appender::append`], but does not wait for a lock: `None` if one is taken.
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub fn try_append(
        &mut self,
        batch: &mut Batch,
        now: impl Fn() -> Timestamp,
        durability: Durability,
    ) -> Result<Option<Appended>, LogError> {
        let Some(gate) = lock::try_exclusive(&self.gate).map_err(|e| lock_error(GATE, e))? else {
            return Ok(None);
        };
        let Some(_lock) = lock::try_exclusive(&self.log).map_err(|e| lock_error(LOG, e))? else {
            return Ok(None);
        };
        drop(gate);
        self.append_locked(batch, now, durability).map(Some)
    }

    /// As [`Appender::append`], under a lock that is held.
    pub(super) fn append_locked(
        &self,
        batch: &mut Batch,
        now: impl Fn() -> Timestamp,
        durability: Durability,
    ) -> Result<Appended, LogError> {
        let size = size_of(&self.log)?;
        let torn = self.is_torn(size)?;
        batch.stamp(now());
        let (bytes, mark) =
            if torn { (batch.bytes_behind_mark(), TORN_MARK.len()) } else { (batch.bytes(), 0) };
        let (written, mut problem) = self.write_all(bytes);
        // Each record ends with the only line end it has.
        let stored = match bytes.get(mark..written) {
            Some(records) => memchr::memchr_iter(b'\n', records).count(),
            None => 0,
        };
        if durability == Durability::Always && stored > 0 {
            problem = problem.or(fdatasync(&self.log).err());
        }
        let repaired = torn && written >= mark;
        Ok(Appended { stored, at: Offset(size).plus(mark), repaired, problem })
    }

    /// Whether the log's last line lacks its end.
    fn is_torn(&self, size: u64) -> Result<bool, LogError> {
        let Some(last) = size.checked_sub(1) else { return Ok(false) };
        let mut byte = [b'\n'];
        read_at(&self.tail, &mut byte, Offset(last))?;
        Ok(byte != *b"\n")
    }

    /// Writes as much as there is space for; how much that was, and why not more.
    fn write_all(&self, bytes: &[u8]) -> (usize, Option<Errno>) {
        let mut written = 0;
        while written < bytes.len() {
            match write(&self.log, &bytes[written..]) {
                // A regular file never takes nothing without an error; do not wait for it here.
                Ok(0) => return (written, Some(Errno::EIO)),
                // After a short write the next one names the reason, or goes on.
                Ok(n) => written += n,
                Err(Errno::EINTR) => {}
                Err(errno) => return (written, Some(errno)),
            }
        }
        (written, None)
    }
}

impl Reader {
    /// A reader on descriptors that no other process locks, which begins at `position`.
    pub fn new(fds: ReaderFds, position: Offset) -> Self {
        let ReaderFds { log, gate } = fds;
        // Until it has seen the end, it counts as one that has much to catch up with.
        Self { log, gate, position, shown: None, behind: true, floor: Offset(0) }
    }

    /// The same for a log that was pruned up to `floor`: [`seek`](super::seek) looks no further.
    pub fn with_floor(self, floor: Offset) -> Self {
        Self { floor, ..self }
    }

    /// The same with the floor that the file has now.
    ///
    /// # Errors
    /// The lock could not be had, or reading failed.
    pub fn find_floor(self) -> Result<Self, LogError> {
        let floor = self.locked(true, floor::find)?;
        Ok(Self { floor, shown: None, ..self })
    }

    /// Where the log begins, as far as this reader knows.
    pub fn floor(&self) -> Offset {
        self.floor
    }

    /// Whether the log was pruned at all.
    ///
    /// # Errors
    /// As [`Reader::find_floor`].
    pub fn begins_pruned(&self) -> Result<bool, LogError> {
        self.locked(self.behind, floor::begins_pruned)
    }

    /// Gives the descriptors back.
    pub fn into_fds(self) -> ReaderFds {
        ReaderFds { log: self.log, gate: self.gate }
    }

    /// The offset of the first byte that the next read gives.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Leaves its position where the system shows it to others (proc_pid_fdinfo(5), procstat(1)):
    /// it is right there only as often as this is called. A call to the system is needed only where
    /// reading has not moved it along: the first time, after [`Reader::seek`], and after a read that
    /// ended within a line.
    pub fn show_position(&mut self) {
        if self.shown == Some(self.position) {
            return;
        }
        // A position beyond what a file can have is shown to nobody.
        let Ok(position) = i64::try_from(self.position.0) else { return };
        if lseek(&self.log, position, Whence::SeekSet).is_ok() {
            self.shown = Some(self.position);
        }
    }

    /// Goes on at another offset.
    pub fn seek(&mut self, position: Offset) {
        self.position = position;
        self.behind = true;
    }

    /// Reads the whole lines that come next into `buf`; where they begin, and how many bytes.
    /// `None`: there is nothing more now; wait for the bell.
    ///
    /// A torn line at the end is not given before a later writer has ended it. A line longer
    /// than `buf` (none of ours, if `buf` has room for [`max_len`](super::record::max_len)) is
    /// given in pieces.
    ///
    /// # Errors
    /// The lock could not be had, reading failed, or the log was cut. The position stays.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<Option<(Offset, usize)>, LogError> {
        let (at, behind) = (self.position, self.behind);
        // Where the descriptor stands at the position, it is moved along by reading.
        let moves = self.shown == Some(at);
        let (filled, size) = self.locked(behind, |log| {
            let filled = if moves { read_on(log, buf)? } else { read_once(log, buf, at)? };
            // Only a read that gives nothing can be beyond the end.
            Ok((filled, if filled == 0 { size_of(log)? } else { at.0 }))
        })?;
        if moves {
            self.shown = Some(at.plus(filled));
        }
        if size < at.0 {
            return Err(LogError::Cut { at, size: Offset(size) });
        }
        self.behind = filled == buf.len();
        let whole = match buf[..filled].iter().rposition(|&b| b == b'\n') {
            Some(last) => last + 1,
            None if self.behind => filled,
            None => 0,
        };
        self.position = at.plus(whole);
        Ok((whole > 0).then_some((at, whole)))
    }

    /// Whether the last read had no room for all that was there, or there was none yet: the next
    /// one need not wait for the bell.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// The log's size in bytes; its last line may be torn.
    ///
    /// # Errors
    /// The lock could not be had, or fstat(2) failed.
    pub fn size(&self) -> Result<Offset, LogError> {
        self.locked(true, |log| size_of(log).map(Offset))
    }

    /// The end of the last whole line: whoever has read up to here has all that there is.
    ///
    /// Looks back at most 8 MiB; if no line ends there, that place is taken.
    ///
    /// # Errors
    /// As [`Reader::size`].
    pub fn end(&self) -> Result<Offset, LogError> {
        self.locked(true, |log| {
            let size = size_of(log)?;
            let limit = size.saturating_sub(LOOK_BACK);
            let mut chunk = [0; 4096];
            let mut hi = size;
            while hi > limit {
                let lo = hi.saturating_sub(chunk.len() as u64).max(limit);
                let part = &mut chunk[..(hi - lo) as usize];
                let filled = read_at(log, part, Offset(lo))?;
                if let Some(last) = part[..filled].iter().rposition(|&b| b == b'\n') {
                    return Ok(Offset(lo).plus(last + 1));
                }
                hi = lo;
            }
            Ok(Offset(limit))
        })
    }

    /// Reads bytes at any offset under the lock, without moving the position; how many, which is
    /// less than `buf` has room for only at the end of the log.
    ///
    /// # Errors
    /// The lock could not be had, or reading failed.
    pub fn read_at(&self, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
        self.locked(true, |log| read_at(log, buf, at))
    }

    fn locked<T>(
        &self,
        through_gate: bool,
        job: impl FnOnce(&OwnedFd) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let gate = match through_gate {
            true => Some(lock::exclusive(&self.gate).map_err(|e| lock_error(GATE, e))?),
            false => None,
        };
        let _lock = lock::shared(&self.log).map_err(|e| lock_error(LOG, e))?;
        // Open again before reading, so that readers do not exclude readers.
        drop(gate);
        job(&self.log)
    }
}

pub(super) fn size_of(log: &OwnedFd) -> Result<u64, LogError> {
    Ok(u64::try_from(stat(log, LOG)?.st_size).unwrap_or(0))
}

/// Fills `buf` from `at` on, as far as the file goes.
pub(super) fn read_at(log: &impl AsFd, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
    let mut filled = 0;
    while filled < buf.len() {
        match read_once(log, &mut buf[filled..], at.plus(filled))? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Reads what one call gives. Less than `buf` has room for means the end of the file, where no
/// signal can cut the call short (read(2)): SEND has all of its own blocked.
fn read_once(log: &impl AsFd, buf: &mut [u8], at: Offset) -> Result<usize, LogError> {
    let Ok(from) = i64::try_from(at.0) else { return Ok(0) };
    repeated(|| nix::sys::uio::pread(log, &mut *buf, from))
}

/// The same where the descriptor stands.
fn read_on(log: &impl AsFd, buf: &mut [u8]) -> Result<usize, LogError> {
    repeated(|| nix::unistd::read(log, &mut *buf))
}

/// A regular file is read without waiting: nothing to give up when a signal comes.
fn repeated(mut read: impl FnMut() -> nix::Result<usize>) -> Result<usize, LogError> {
    loop {
        match read() {
            Err(Errno::EINTR) => {}
            read => return read.map_err(|errno| call("read", LOG, errno)),
        }
    }
}

fn lock_error(file: &'static str, errno: Errno) -> LogError {
    call("lock", file, errno)
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { verb, file, errno } => write!(f, "cannot {verb} {file}: {}", errno.desc()),
            Self::NotAFile(name) => write!(f, "{name} is not a regular file: move it away"),
            Self::Replaced(name) => write!(
                f,
                "{name} was replaced by another file while the room was open: restart the service"
            ),
            Self::Cut { at, size } => {
                write!(f, "offset {at} is behind the end of {LOG} ({size}): it was cut")
            }
        }
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use crate::room::record::{Kind, MAX_LINE};

    fn open(dir: &Path) -> Result<Files, LogError> {
        Files::open(File::open(dir).unwrap().as_fd())
    }

    fn append(files: &Files, text: &str, durability: Durability) -> Appended {
        let mut batch = Batch::with_capacity(MAX_LINE);
        let name = "alice".parse().unwrap();
        batch.push(Some("1"), &name, Kind::Message, Some(text)).unwrap();
        let mut appender = Appender::new(files.appender_fds().unwrap());
        appender.append(&mut batch, Timestamp::now, durability).unwrap()
    }

    #[test]
    fn every_durability_stores() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        for durability in [Durability::Always, Durability::Interval, Durability::Never] {
            let done = append(&files, "x", durability);
            assert_eq!((done.stored, done.problem, done.repaired), (1, None, false));
        }
        files.sync().unwrap();
    }

    #[test]
    fn a_reader_gives_whole_lines_and_long_ones_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        fs::write(dir.path().join(LOG), "one\ntwo\n0123456789abcdef\nrest").unwrap();
        let mut reader = Reader::new(files.reader_fds().unwrap(), Offset(0));
        let mut buf = [0; 10];
        let mut parts = Vec::new();
        while let Some((at, length)) = reader.read(&mut buf).unwrap() {
            parts.push((at.0, String::from_utf8_lossy(&buf[..length]).into_owned()));
        }
        let expected = [(0, "one\ntwo\n"), (8, "0123456789"), (18, "abcdef\n")];
        assert_eq!(parts, expected.map(|(at, part)| (at, part.to_owned())));
        assert_eq!(reader.end(), Ok(Offset(25)));
        assert_eq!(reader.size(), Ok(Offset(29)));
    }

    #[test]
    fn the_position_that_others_see_is_the_readers_however_it_came_there() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        let path = dir.path().join(LOG);
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut reader = Reader::new(files.reader_fds().unwrap(), Offset(4));
        let seen = |reader: &Reader| lseek(&reader.log, 0, Whence::SeekCur).unwrap();
        let mut buf = [0; 8];
        reader.show_position();
        assert_eq!(seen(&reader), 4);
        // Read on from there; what is beyond the last line's end is given again, once it has one.
        assert_eq!(reader.read(&mut buf), Ok(Some((Offset(4), 4))));
        reader.show_position();
        assert_eq!((reader.position(), seen(&reader)), (Offset(8), 8));
        assert_eq!(reader.read(&mut buf), Ok(None));
        fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(reader.read(&mut buf), Ok(Some((Offset(8), 6))));
        assert_eq!(&buf[..6], b"three\n");
        reader.show_position();
        assert_eq!((reader.position(), seen(&reader)), (Offset(14), 14));
        assert_eq!(reader.read(&mut buf), Ok(Some((Offset(14), 5))));
        assert_eq!((reader.position(), seen(&reader)), (Offset(19), 19));
        reader.seek(Offset(0));
        assert_eq!(reader.read(&mut buf), Ok(Some((Offset(0), 8))));
        reader.show_position();
        assert_eq!(seen(&reader), 8);
        // To look for the floor of a pruned log moves the descriptor, and not the reader.
        fs::write(&path, "\0\0\0\ntwo\nthree\nfour\n").unwrap();
        let mut reader = reader.find_floor().unwrap();
        assert_eq!(reader.read(&mut buf), Ok(Some((Offset(8), 6))));
    }

    #[test]
    fn a_log_that_was_cut_is_an_error_and_not_an_endless_wait() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        let mut reader = Reader::new(files.reader_fds().unwrap(), Offset(5));
        let error = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error, LogError::Cut { at: Offset(5), size: Offset(0) });
        reader.show_position();
        let error = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error, LogError::Cut { at: Offset(5), size: Offset(0) });
        reader.seek(Offset(u64::MAX));
        assert!(matches!(reader.read(&mut [0; 10]), Err(LogError::Cut { .. })));
    }

    #[test]
    fn the_end_is_found_behind_a_long_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        for torn in [0, 1, 4095, 4096, 4097, 100_000] {
            fs::write(dir.path().join(LOG), format!("one\n{}", "x".repeat(torn))).unwrap();
            let reader = Reader::new(files.reader_fds().unwrap(), Offset(0));
            assert_eq!(reader.end(), Ok(Offset(4)), "{torn}");
        }
        fs::write(dir.path().join(LOG), "x".repeat(9 << 20)).unwrap();
        let reader = Reader::new(files.reader_fds().unwrap(), Offset(0));
        assert_eq!(reader.end(), Ok(Offset(1 << 20)));
    }
}
