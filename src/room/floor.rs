//! The log's floor: where it begins since `papayad log prune` removed what stood before.
//!
//! What was removed is a hole in the file, so that offsets stay what they were: it reads as NUL,
//! which no record contains, and only the line end before the floor is left of it. So a line begins
//! at the floor, and whoever does not know the floor sees one foreign line in front of it. Finding
//! the floor costs no more for a larger hole where the system tells where data begins.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::files::call;
use super::log::{LOG, LogError, read_at, size_of};
use super::offset::Offset;

/// How much is read at once.
const STEP: usize = 64 * 1024;

/// The floor of this log; the beginning if it was never pruned. Moves the descriptor's position.
pub(super) fn find(log: &OwnedFd) -> Result<Offset, LogError> {
    if !begins_pruned(log)? {
        return Ok(Offset(0));
    }
    let mut at = first_data(log)?;
    let mut buffer = vec![0; STEP];
    loop {
        let filled = read_at(log, &mut buffer, at)?;
        if let Some(end) = buffer[..filled].iter().position(|&b| b == b'\n') {
            return Ok(at.plus(end + 1));
        }
        if filled < buffer.len() {
            return Ok(Offset(0)); // Nothing but a torn line: no floor.
        }
        at = at.plus(filled);
    }
}

/// Whether something was removed from this log.
pub(super) fn begins_pruned(log: &OwnedFd) -> Result<bool, LogError> {
    let mut byte = [b'\n'];
    read_at(log, &mut byte, Offset(0))?;
    Ok(byte == [0])
}

/// Whether this log's floor can be there, as far as a few bytes tell: what root says is checked.
pub(super) fn is_floor(log: &OwnedFd, at: Offset) -> Result<bool, LogError> {
    let Some(before) = at.0.checked_sub(2).filter(|_| at.0 <= i64::MAX as u64) else {
        return Ok(false);
    };
    let mut bytes = [0; 2];
    let filled = read_at(log, &mut bytes, Offset(before))?;
    Ok(filled == 2 && bytes == *b"\0\n" && at.0 <= size_of(log)? && begins_pruned(log)?)
}

/// Whether the log was pruned up to somewhere behind `at`: the byte before it is gone.
pub(super) fn is_passed(log: &OwnedFd, at: Offset) -> Result<bool, LogError> {
    let Some(before) = at.0.checked_sub(1).filter(|_| at.0 <= i64::MAX as u64) else {
        return Ok(false);
    };
    let mut byte = [b'\n'];
    read_at(log, &mut byte, Offset(before))?;
    Ok(byte == [0] && begins_pruned(log)?)
}

/// Where the first byte stands that is not in a hole; the beginning where the system cannot tell.
fn first_data(log: &OwnedFd) -> Result<Offset, LogError> {
    match lseek(log, 0, Whence::SeekData) {
        Ok(at) => Ok(Offset(u64::try_from(at).unwrap_or(0))),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENXIO) => Ok(Offset(0)),
        Err(errno) => Err(call("look for the beginning of", LOG, errno)),
    }
}
