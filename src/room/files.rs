//! The log's files: opening and creating them, once for the room and afresh for every process.
//!
//! Only the keeper and the administration use this; the others are given descriptors. Touches
//! nothing but the two files, relative to the directory's descriptor, and the list of locks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat};
use nix::unistd::fdatasync;

use super::floor;
use super::holder::{self, FileId, LockIds};
use super::lock;
use super::log::{Appender, LogError};
use super::offset::Offset;

/// The log's name in the state directory.
pub const LOG: &str = "room.log";
/// The name of the file that only serves as a lock: the gate in front of the log.
pub const GATE: &str = "room.gate";

/// The log's files as the keeper holds them.
#[derive(Debug)]
pub struct Files {
    dir: OwnedFd,
    /// Kept open so that the inode cannot be used again while we compare with it.
    log: OwnedFd,
    gate: OwnedFd,
}

/// Open file descriptions for one RECV; nobody else has them.
#[derive(Debug)]
pub struct AppenderFds {
    /// The log, write-only and append-only.
    pub log: OwnedFd,
    /// The log, read-only: for its last byte.
    pub tail: OwnedFd,
    /// The gate.
    pub gate: OwnedFd,
}

/// Open file descriptions for one SEND; nobody else locks them.
#[derive(Debug)]
pub struct ReaderFds {
    /// The log, read-only.
    pub log: OwnedFd,
    /// The gate.
    pub gate: OwnedFd,
}

/// What the keeper does with them.
impl Files {
    /// The descriptors that a good token earns, all of descriptions that nobody else has: for RECV
    /// the log to append, for SEND the log to read, the gate for each of them, and for RECV the log
    /// to see its last byte.
    ///
    /// # Errors
    /// A file cannot be opened, or is not the one that it was.
    pub fn hand_out(&self) -> Result<[OwnedFd; 5], LogError> {
        let AppenderFds { log, tail, gate } = self.appender_fds()?;
        let ReaderFds { log: read, gate: send_gate } = self.reader_fds()?;
        Ok([log, read, gate, send_gate, tail])
    }

    /// What it has open: the directory; the log and the gate, to compare with and to flush.
    pub fn held(&self) -> (BorrowedFd<'_>, [BorrowedFd<'_>; 2]) {
        (self.dir.as_fd(), [self.log.as_fd(), self.gate.as_fd()])
    }

    /// An appender for the keeper itself.
    ///
    /// # Errors
    /// As [`Files::hand_out`].
    pub fn appender(&self) -> Result<Appender, LogError> {
        self.appender_fds().map(Appender::new)
    }
}

impl Files {
    /// Opens `room.log` and `room.gate` in the directory, and creates (mode 0640) what is missing.
    ///
    /// # Errors
    /// A call failed (`EACCES`, `ELOOP` for a symbolic link, …), or one is not a regular file.
    pub fn open(dir: BorrowedFd<'_>) -> Result<Self, LogError> {
        let dir = dir
            .try_clone_to_owned()
            .map_err(|e| call("duplicate", "state directory", errno_of(&e)))?;
        let log = open_or_create(&dir, LOG)?;
        let gate = open_or_create(&dir, GATE)?;
        Ok(Self { dir, log, gate })
    }

    /// Fresh open file descriptions for a RECV.
    ///
    /// # Errors
    /// As [`Files::open`]; and [`LogError::Replaced`].
    pub fn appender_fds(&self) -> Result<AppenderFds, LogError> {
        Ok(AppenderFds {
            log: self.fresh(LOG, OFlag::O_WRONLY | OFlag::O_APPEND)?,
            tail: self.fresh(LOG, OFlag::O_RDONLY)?,
            gate: self.fresh(GATE, OFlag::O_RDONLY)?,
        })
    }

    /// Fresh open file descriptions for a SEND; errors as [`Files::appender_fds`].
    pub fn reader_fds(&self) -> Result<ReaderFds, LogError> {
        Ok(ReaderFds {
            log: self.fresh(LOG, OFlag::O_RDONLY)?,
            gate: self.fresh(GATE, OFlag::O_RDONLY)?,
        })
    }

    /// Flushes the log to the disk: what `durability = "interval"` does once a second.
    ///
    /// # Errors
    /// What fdatasync(2) says.
    pub fn sync(&self) -> Result<(), LogError> {
        fdatasync(&self.log).map_err(|e| call("flush", LOG, e))
    }

    /// Where the log begins. Takes no lock: whoever holds one must not keep the keeper waiting, and
    /// while the log is being pruned this finds an earlier line's beginning, which does no harm.
    ///
    /// # Errors
    /// Reading failed.
    pub fn floor(&self) -> Result<Offset, LogError> {
        floor::find(&self.log)
    }

    /// Whether the log was pruned up to `at`, as far as a few bytes tell; without a lock, too.
    ///
    /// # Errors
    /// Reading failed.
    pub fn is_floor(&self, at: Offset) -> Result<bool, LogError> {
        floor::is_floor(&self.log, at)
    }

    /// Whether it was pruned further than to `at`; as [`Files::is_floor`].
    ///
    /// # Errors
    /// Reading failed.
    pub fn is_floor_passed(&self, at: Offset) -> Result<bool, LogError> {
        floor::is_passed(&self.log, at)
    }

    /// How the kernel's list of locks names the two files: found by locking them for a moment
    /// and looking the lock up, since with overlays and some file systems fstat(2) has other
    /// numbers. Where that is not possible, fstat's are taken.
    ///
    /// # Errors
    /// What flock(2) or fstat(2) say.
    pub fn lock_ids(&self) -> Result<LockIds, LogError> {
        Ok(LockIds { log: self.lock_id(LOG)?, gate: self.lock_id(GATE)? })
    }

    fn lock_id(&self, name: &'static str) -> Result<FileId, LogError> {
        let file = self.fresh(name, OFlag::O_RDONLY)?;
        let id = FileId::of(&stat(&file, name)?);
        // Without waiting: whoever holds it now must not keep the service from starting.
        let Some(held) = lock::try_exclusive(&file).map_err(|e| call("lock", name, e))? else {
            return Ok(id);
        };
        let listed = std::fs::File::open(holder::LOCKS)
            .and_then(|mut list| holder::held_by(std::process::id(), id, &mut list));
        drop(held);
        Ok(listed.unwrap_or(id))
    }

    /// A new open file description of the file that was there when the room was opened.
    fn fresh(&self, name: &'static str, how: OFlag) -> Result<OwnedFd, LogError> {
        let file = open_regular(&self.dir, name, how)?;
        let known = if name == LOG { &self.log } else { &self.gate };
        same_file(name, &file, known)?;
        Ok(file)
    }
}

/// Opens an existing log to read it, and creates nothing: for the administration.
///
/// # Errors
/// As [`Files::open`].
pub fn open_for_reading(dir: BorrowedFd<'_>) -> Result<ReaderFds, LogError> {
    Ok(ReaderFds {
        log: open_regular(&dir, LOG, OFlag::O_RDONLY)?,
        gate: open_regular(&dir, GATE, OFlag::O_RDONLY)?,
    })
}

/// Opens an existing log alone to read it, and creates nothing.
///
/// # Errors
/// As [`Files::open`].
pub fn open_log(dir: BorrowedFd<'_>) -> Result<OwnedFd, LogError> {
    open_regular(&dir, LOG, OFlag::O_RDONLY)
}

/// Opens an existing log to append to it, and creates nothing: for the administration.
///
/// # Errors
/// As [`Files::open`].
pub(super) fn open_for_appending(dir: BorrowedFd<'_>) -> Result<AppenderFds, LogError> {
    let log = open_regular(&dir, LOG, OFlag::O_WRONLY | OFlag::O_APPEND)?;
    let tail = open_regular(&dir, LOG, OFlag::O_RDONLY)?;
    // What is checked of the one must be true of the other, whoever renames things meanwhile.
    same_file(LOG, &log, &tail)?;
    Ok(AppenderFds { log, tail, gate: open_regular(&dir, GATE, OFlag::O_RDONLY)? })
}

/// Opens the log so that it can be changed anywhere; it must be the same file as `known`.
///
/// # Errors
/// As [`Files::open`]; `EPERM` while it is append-only in the file system; and
/// [`LogError::Replaced`].
pub(super) fn open_for_changing(dir: &OwnedFd, known: &OwnedFd) -> Result<OwnedFd, LogError> {
    let file = open_regular(dir, LOG, OFlag::O_RDWR)?;
    same_file(LOG, &file, known)?;
    Ok(file)
}

fn same_file(name: &'static str, new: &OwnedFd, known: &OwnedFd) -> Result<(), LogError> {
    let (new, old) = (stat(new, name)?, stat(known, name)?);
    if (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino) {
        Ok(())
    } else {
        Err(LogError::Replaced(name))
    }
}

fn open_or_create(dir: &OwnedFd, name: &'static str) -> Result<OwnedFd, LogError> {
    match open_regular(dir, name, OFlag::O_RDONLY) {
        Err(LogError::Call { errno: Errno::ENOENT, .. }) => create(dir, name),
        other => other,
    }
}

fn create(dir: &OwnedFd, name: &'static str) -> Result<OwnedFd, LogError> {
    let how = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o640);
    let file =
        openat(dir, name, how | OFlag::O_CLOEXEC, mode).map_err(|e| call("create", name, e))?;
    // The umask may have taken bits away.
    fchmod(&file, mode).map_err(|e| call("change the mode of", name, e))?;
    Ok(file)
}

fn open_regular(dir: &impl AsFd, name: &'static str, how: OFlag) -> Result<OwnedFd, LogError> {
    // O_NONBLOCK: a FIFO or a device in the file's place must not make the keeper wait.
    let how = how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match openat(dir, name, how, Mode::empty()) {
        Ok(file) if is_regular(&stat(&file, name)?) => Ok(file),
        Ok(_) => Err(LogError::NotAFile(name)),
        // A socket (ENXIO), a link (ELOOP), or a directory (EISDIR) says itself what is wrong.
        Err(errno) => match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if !is_regular(&found) => Err(LogError::NotAFile(name)),
            _ => Err(call("open", name, errno)),
        },
    }
}

fn is_regular(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

pub(super) fn stat(file: &OwnedFd, name: &'static str) -> Result<FileStat, LogError> {
    crate::sys::fd::status(file).map_err(|e| call("look at", name, e))
}

pub(super) fn call(verb: &'static str, file: &'static str, errno: Errno) -> LogError {
    LogError::Call { verb, file, errno }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn open(dir: &Path) -> Result<Files, LogError> {
        Files::open(File::open(dir).unwrap().as_fd())
    }

    #[test]
    fn missing_files_are_created_for_the_group_to_read_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        for name in [LOG, GATE] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o640, "{name}");
        }
        fs::set_permissions(dir.path().join(LOG), fs::Permissions::from_mode(0o600)).unwrap();
        open(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(LOG)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "an operator's choice was undone");
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_at_once() {
        for name in [LOG, GATE] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            symlink("/dev/null", &path).unwrap();
            assert_eq!(open(dir.path()).unwrap_err(), LogError::NotAFile(name));
            fs::remove_file(&path).unwrap();
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            assert_eq!(open(dir.path()).unwrap_err(), LogError::NotAFile(name));
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert_eq!(open(dir.path()).unwrap_err(), LogError::NotAFile(name));
        }
    }

    #[test]
    fn a_log_that_was_replaced_does_not_split_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path()).unwrap();
        fs::rename(dir.path().join(LOG), dir.path().join("room.log.1")).unwrap();
        let gone = files.reader_fds().unwrap_err();
        assert!(matches!(gone, LogError::Call { errno: Errno::ENOENT, .. }), "{gone}");
        fs::write(dir.path().join(LOG), "").unwrap();
        assert_eq!(files.appender_fds().unwrap_err(), LogError::Replaced(LOG));
    }
}
