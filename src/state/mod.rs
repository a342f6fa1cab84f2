//! The state directory and the secrets in it: host key and token hashes.
//!
//! Used by the keeper and by `papayad token`, both as the keeper's user: root never touches a path
//! in a directory that another user can change. Everything is opened relative to one descriptor,
//! without following links, and replaced as a whole.

pub mod hostkey;
pub mod tokens;

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod};
use nix::unistd::{Uid, UnlinkatFlags, geteuid, linkat, unlinkat};

use crate::sys;

/// The largest file that is read, in bytes; ten thousand tokens are about 3 MB.
const FILE_MAX: u64 = 16 << 20;

/// Why a file of the state directory cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// A system call on this path failed.
    System {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        cause: Errno,
    },
    /// Owner, mode or type of this path would let somebody else read or change it.
    Unsafe {
        /// Which path.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The content is damaged.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { action, path, cause } => {
                write!(f, "{}: cannot {action}: {}", path.display(), cause.desc())
            }
            Self::Unsafe { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Damaged { path, line: 0, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Damaged { path, line, problem } => {
                write!(f, "{}:{line}: {problem}", path.display())
            }
        }
    }
}

impl std::error::Error for StateError {}

/// The state directory, open.
#[derive(Debug)]
pub struct StateDir {
    fd: OwnedFd,
    path: PathBuf,
    /// This process's user, whose everything here must be.
    owner: Uid,
}

impl StateDir {
    /// Opens it, and refuses one that anybody but this process's user could change.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|cause| system("open the state directory", path, cause))?;
        let dir = Self { fd, path: path.to_owned(), owner: geteuid() };
        let status = sys::fd::status(&dir.fd).map_err(|cause| system("look at it", path, cause))?;
        dir.check_owner(&status, path)?;
        if status.st_mode & 0o022 != 0 {
            let problem = "others may write here; run `chmod go-w` on it".into();
            return Err(StateError::Unsafe { path: path.to_owned(), problem });
        }
        Ok(dir)
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a whole file of ours; `None` if there is none. Refuses one that others may change, or
    /// may read if it is `secret`.
    fn read(
        &self,
        name: &str,
        forbidden: u32,
    ) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StateError> {
        let path = self.file_path(name);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.map_err(|cause| system("open it", &path, cause))?,
        };
        let status = sys::fd::status(&fd).map_err(|cause| system("look at it", &path, cause))?;
        self.check_owner(&status, &path)?;
        if status.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(StateError::Unsafe { path, problem: "this is not a regular file".into() });
        }
        #[allow(clippy::useless_conversion)] // Modes have 16 bits on FreeBSD.
        let mode = u32::from(status.st_mode) & 0o7777;
        let excess = mode & forbidden;
        if excess != 0 {
            let problem = format!(
                "its mode {mode:04o} gives others too much; run `chmod {:04o}` on it",
                mode & !forbidden
            );
            return Err(StateError::Unsafe { path, problem });
        }
        let mut content = zeroize::Zeroizing::new(Vec::new());
        File::from(fd)
            .take(FILE_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|e| system("read it", &path, errno(&e)))?;
        if content.len() as u64 > FILE_MAX {
            let problem = format!("it is larger than {FILE_MAX} bytes");
            return Err(StateError::Damaged { path, line: 0, problem });
        }
        Ok(Some(content))
    }

    /// Writes a new file beside `name` and makes it durable; [`Fresh::replace`] or
    /// [`Fresh::create`] gives it its name.
    fn fresh(
        &self,
        name: &'static str,
        mode: u32,
        content: &[u8],
    ) -> Result<Fresh<'_>, StateError> {
        let temporary = format!("{name}.new");
        let path = self.file_path(&temporary);
        // What a killed predecessor left; the caller holds the lock that makes it ours.
        let _ = unlinkat(&self.fd, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|cause| system("create it", &path, cause))?;
        let fresh = Fresh { dir: self, name, temporary };
        let mut file = File::from(fd);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(|e| system("write it", &path, errno(&e)))?;
        let mode = Mode::from_bits_truncate(mode as libc::mode_t);
        fchmod(&file, mode).map_err(|cause| system("set its mode", &path, cause))?;
        Ok(fresh)
    }

    fn check_owner(&self, status: &FileStat, path: &Path) -> Result<(), StateError> {
        if status.st_uid == self.owner.as_raw() {
            return Ok(());
        }
        let problem =
            format!("it belongs to user {} instead of {}; `chown` it", status.st_uid, self.owner);
        Err(StateError::Unsafe { path: path.to_owned(), problem })
    }

    fn sync(&self) -> Result<(), StateError> {
        nix::unistd::fsync(&self.fd).map_err(|cause| system("make it durable", &self.path, cause))
    }

    /// Takes the directory for this service alone, until the process ends; the lock is on an own
    /// description of it.
    ///
    /// # Errors
    /// Another service has it.
    pub fn claim(&self) -> Result<(), StateError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, ".", flags, Mode::empty())
            .map_err(|cause| system("open the state directory", &self.path, cause))?;
        match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                std::mem::forget(lock); // Held as long as the process lives.
                Ok(())
            }
            Err((_, Errno::EAGAIN)) => {
                let problem = "another papayad serves from here; see paths.state".to_owned();
                Err(StateError::Unsafe { path: self.path.clone(), problem })
            }
            Err((_, cause)) => Err(system("lock it", &self.path, cause)),
        }
    }

    /// Waits for, and takes, the lock that administrators exclude each other with.
    fn lock(&self) -> Result<Flock<OwnedFd>, StateError> {
        let path = self.file_path("tokens.lock");
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, "tokens.lock", flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|cause| system("open it", &path, cause))?;
        Flock::lock(fd, FlockArg::LockExclusive)
            .map_err(|(_, cause)| system("lock it", &path, cause))
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A complete, durable file that does not have its name yet; removed if it never gets it.
struct Fresh<'a> {
    dir: &'a StateDir,
    name: &'static str,
    temporary: String,
}

impl Fresh<'_> {
    /// Takes the place of whatever has the name.
    fn replace(self) -> Result<(), StateError> {
        renameat(&self.dir.fd, self.temporary.as_str(), &self.dir.fd, self.name)
            .map_err(|cause| system("replace it", &self.dir.file_path(self.name), cause))?;
        self.dir.sync()
    }

    /// Takes the name if it is free; says whether it was.
    fn create(self) -> Result<bool, StateError> {
        let dir = &self.dir.fd;
        match linkat(dir, self.temporary.as_str(), dir, self.name, AtFlags::empty()) {
            Ok(()) => self.dir.sync().map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(cause) => Err(system("create it", &self.dir.file_path(self.name), cause)),
        }
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir.fd, self.temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn system(action: &'static str, path: &Path, cause: Errno) -> StateError {
    StateError::System { action, path: path.to_owned(), cause }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
