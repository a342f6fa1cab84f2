//! Removing the oldest part of a log while it is in use: `papayad log prune`.
//!
//! The part becomes a hole in the file (fallocate(2), fspacectl(2)), so no offset changes, nothing
//! is copied, and nobody who has the log open notices. It is done in steps, each of which ends at a
//! line's beginning and holds the writers' locks for a moment only; after each step the log is
//! sound, so a crash leaves it pruned less far, and nothing worse.

use std::os::fd::{BorrowedFd, OwnedFd};

use jiff::Timestamp;
use nix::errno::Errno;

use super::files::{self, call};
use super::floor;
use super::lines::{Bytes, Lines};
use super::log::{Appender, LOG, LogError};
use super::offset::Offset;
use super::record::{Batch, Kind, MAX_LINE};
use super::seek;
use crate::config::Durability;
use crate::token::Name;

/// How much one step removes at most: a fraction of a second's work for the file system.
pub const STEP: u64 = 256 << 20;

/// What fails where a file cannot have holes.
pub const REMOVE: &str = "remove the beginning of";

/// What is to be left of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The records from this time on.
    Since(Timestamp),
    /// The last lines that have so many bytes at most.
    Bytes(u64),
}

/// Where to cut: the new floor, which is the present one if there is nothing to remove.
///
/// # Errors
/// The log could not be read.
pub fn cut(source: &(impl Bytes + ?Sized), keep: Keep) -> Result<Offset, LogError> {
    let wanted = match keep {
        Keep::Since(time) => seek::since(source, time)?,
        Keep::Bytes(bytes) => {
            let end = source.end()?;
            line_from(source, Offset(end.0.saturating_sub(bytes)), end)?
        }
    };
    Ok(wanted.max(source.floor()))
}

/// The first beginning of a line at or behind `at`.
fn line_from(source: &(impl Bytes + ?Sized), at: Offset, end: Offset) -> Result<Offset, LogError> {
    // From the byte before on: if that is a line end, the line that it ends is all there is to pass.
    let Some(before) = at.0.checked_sub(1).filter(|_| at > source.floor()) else {
        return Ok(source.floor());
    };
    let mut lines = Lines::new(source, Offset(before))?;
    let line = lines.next()?.filter(|line| line.ended);
    Ok(line.map_or(end, |line| Offset(line.at.0.saturating_add(line.len))))
}

/// How far a step is, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The locks are held, and nothing has changed.
    Locked,
    /// The file may be changed.
    Opened,
    /// The part is gone.
    Removed,
    /// The log says so itself.
    Recorded,
    /// The file cannot be changed any more; everybody goes on.
    Done,
}

/// A log that is being pruned.
pub struct Pruner {
    dir: OwnedFd,
    log: Appender,
    step: u64,
}

/// Lets the log's file be changed while `job` runs: the append-only attribute belongs to others.
pub type Opening<'o, E> = dyn FnMut(&mut dyn FnMut() -> Result<(), LogError>) -> Result<(), E> + 'o;

impl Pruner {
    /// Opens the log in this directory; creates nothing.
    ///
    /// # Errors
    /// A call failed, or one of the files is not a regular one.
    pub fn open(dir: BorrowedFd<'_>) -> Result<Self, LogError> {
        let log = Appender::new(files::open_for_appending(dir)?);
        let dir = dir.try_clone_to_owned().map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
            call("duplicate", "state directory", errno)
        })?;
        Ok(Self { dir, log, step: STEP })
    }

    /// The same with smaller steps, for tests.
    pub fn with_step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// The log's file, for checks.
    pub fn file(&self) -> &OwnedFd {
        self.log.file()
    }

    /// Removes everything before `to`, which begins a line, and records in the log that `who` did
    /// so. `opening` lets the file be changed for as long as what it is given runs.
    ///
    /// # Errors
    /// A step failed; the log is as the steps before it left it.
    pub fn prune<E: From<LogError>>(
        &self,
        source: &(impl Bytes + ?Sized),
        to: Offset,
        who: &Name,
        opening: &mut Opening<'_, E>,
        watch: &mut dyn FnMut(Moment),
    ) -> Result<(), E> {
        let mut from = source.floor();
        let mut record = Some(self.record(who, to));
        while from < to {
            let next = Offset(from.0.saturating_add(self.step).min(to.0));
            let next = line_from(source, next, to)?.min(to);
            let _lock = self.log.lock()?;
            watch(Moment::Locked);
            opening(&mut || {
                let file = files::open_for_changing(&self.dir, self.log.file())?;
                watch(Moment::Opened);
                punch(&file, next)?;
                watch(Moment::Removed);
                Ok(())
            })?;
            // On a full disk there is space for it only now.
            if let Some(batch) = &mut record {
                let done = self.log.append_locked(batch, Timestamp::now, Durability::Always)?;
                if done.stored == 1 {
                    record = None;
                    watch(Moment::Recorded);
                } else if next == to {
                    return Err(
                        call("record it in", LOG, done.problem.unwrap_or(Errno::EIO)).into()
                    );
                }
            }
            watch(Moment::Done);
            from = next;
        }
        Ok(())
    }

    fn record(&self, who: &Name, to: Offset) -> Batch {
        let mut batch = Batch::with_capacity(MAX_LINE);
        let text = format!("everything before offset {to}");
        // An empty batch has room for it.
        let _ = batch.push(None, who, Kind::Pruned, Some(&text));
        batch
    }
}

/// Makes a hole of everything before the line end in front of `to`.
fn punch(file: &OwnedFd, to: Offset) -> Result<(), LogError> {
    let Some(length) = to.0.checked_sub(1).and_then(|n| i64::try_from(n).ok()).filter(|n| *n > 0)
    else {
        return Ok(());
    };
    deallocate(file, length).map_err(|errno| call(REMOVE, LOG, errno))?;
    // Where the system said yes, and did something else.
    if floor::is_floor(file, to)? { Ok(()) } else { Err(call("prune", LOG, Errno::EIO)) }
}

#[cfg(target_os = "linux")]
fn deallocate(file: &OwnedFd, length: i64) -> Result<(), Errno> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, how, 0, length) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(target_os = "freebsd")]
fn deallocate(file: &OwnedFd, length: i64) -> Result<(), Errno> {
    use nix::fcntl::{SpacectlRange, fspacectl};
    let mut range = SpacectlRange(0, length);
    while !range.is_empty() {
        match fspacectl(file, range) {
            Ok(rest) => range = rest,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(count: i64) -> (Vec<u8>, Vec<u64>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        for second in 0..count {
            let mut batch = Batch::with_capacity(MAX_LINE);
            batch.push(Some("i"), &"a".parse().unwrap(), Kind::Message, Some("hello")).unwrap();
            batch.stamp(Timestamp::from_second(second).unwrap());
            starts.push(log.len() as u64);
            log.extend_from_slice(batch.bytes());
        }
        (log, starts)
    }

    #[test]
    fn a_size_keeps_whole_lines_and_never_more() {
        let (log, starts) = log(20);
        let size = log.len() as u64;
        for (keep, floor) in [
            (0, size),
            (1, size),
            (size - starts[19] - 1, size),
            (size - starts[19], starts[19]),
            (size - starts[19] + 1, starts[19]),
            (size - starts[7], starts[7]),
            (size - starts[7] - 1, starts[8]),
            (size - 1, starts[1]),
            (size, 0),
            (u64::MAX, 0),
        ] {
            assert_eq!(cut(&log[..], Keep::Bytes(keep)), Ok(Offset(floor)), "{keep}");
        }
        // A torn end is not a line: it stays, and does not count.
        let torn = [&log[..], b"{\"ts\":"].concat();
        assert_eq!(cut(&torn[..], Keep::Bytes(1)), Ok(Offset(size)));
    }

    #[test]
    fn a_time_keeps_the_records_from_it_on() {
        let (log, starts) = log(20);
        let at = |millis| Keep::Since(Timestamp::from_millisecond(millis).unwrap());
        for (millis, floor) in
            [(-1, 0), (0, 0), (1, starts[1]), (7000, starts[7]), (7001, starts[8])]
        {
            assert_eq!(cut(&log[..], at(millis)), Ok(Offset(floor)), "{millis}");
        }
        assert_eq!(cut(&log[..], at(1_000_000)), Ok(Offset(log.len() as u64)));
        assert_eq!(cut(&b""[..], at(0)), Ok(Offset(0)));
        assert_eq!(cut(&b""[..], Keep::Bytes(0)), Ok(Offset(0)));
    }
}
