//! `papayad-session`, the program that RECV is executed from, and SEND is forked in: a program of
//! its own, so that what faces a client has no more code in its memory than it needs.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, getpid};

use super::recv;
use crate::confine::{self, policy::rights};
use crate::exit::{self, Exit, Failure};
use crate::sys;

/// Its file's name.
pub const NAME: &str = "papayad-session";
/// Where it is seen from the directory of papayad: beside it where both were built, and where
/// packages put it.
const PLACES: [&str; 2] = ["", "../libexec/papayachat"];
/// What it says to `--version`.
const VERSION: &str = concat!("papayad-session ", env!("CARGO_PKG_VERSION"));

/// The whole program; its exit status.
pub fn main() -> u8 {
    if is_recv() {
        return recv::run();
    }
    let mut arguments = std::env::args_os().skip(1);
    // If it cannot be, it is as with any other program.
    let _ = sys::signal::let_closed_pipes_fail();
    if arguments.next().is_some_and(|argument| argument == "--version") {
        return match exit::print(&format!("{VERSION}\n")) {
            Ok(()) => Exit::Ok as u8,
            Err(failure) => failure.report(NAME),
        };
    }
    let message = "papayad starts it for each client; see papayad(8)";
    Failure::new(Exit::Usage, message).report(NAME)
}

/// Whether the launcher has started it. Apart, so that RECV does not keep the arguments.
fn is_recv() -> bool {
    let title = std::env::args_os().next().unwrap_or_default();
    title.as_encoded_bytes().starts_with(recv::ARGUMENT.as_bytes())
}

/// Why there is no such program to be executed.
#[derive(Debug)]
pub struct Unusable {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::new(Exit::Unavailable, unusable.to_string())
    }
}

/// The program that belongs to the `papayad` at this path.
///
/// # Errors
/// It is in none of its places; names them.
pub fn of(papayad: &Path) -> Result<PathBuf, Unusable> {
    let directory = papayad.parent().unwrap_or(Path::new("/"));
    let places = PLACES.map(|place| directory.join(place));
    let mut found = places.iter().map(|place| place.join(NAME)).filter(|path| path.is_file());
    found.next().ok_or_else(|| {
        let [beside, installed] = places.map(|place| place.display().to_string());
        Unusable {
            problem: format!(
                "{NAME}, which serves the clients, is neither in {} nor in {installed}",
                beside.trim_end_matches('/')
            ),
            remedy: "install the package again, or build all programs with `cargo build --release`",
        }
    })
}

/// The program that belongs to this papayad, open: of the same version, and writable by nobody who may
/// not write papayad too, since here it may be root that executes it. An upgrade that replaces the file
/// (and does not write into it) does not change what a running service executes.
///
/// # Errors
/// It is not there, is not so, or cannot be read or executed.
pub fn own() -> Result<OwnedFd, Unusable> {
    let lost = |e: io::Error| Unusable {
        problem: format!("cannot find this program's own file: {e}"),
        remedy: "mount /proc",
    };
    let papayad = std::env::current_exe().map_err(lost)?;
    let path = of(&papayad)?;
    let file = open_file(&path)?;
    let unknown = |e: io::Error| Unusable {
        problem: format!("cannot examine {}: {e}", path.display()),
        remedy: "install the package again",
    };
    // Also when it was replaced since it was started.
    let papayad = if cfg!(target_os = "linux") { Path::new("/proc/self/exe") } else { &papayad };
    let of_papayad = fs::metadata(papayad).map_err(lost)?;
    let found = file.try_clone().and_then(|copy| fs::File::from(copy).metadata());
    let found = found.map_err(unknown)?;
    if !is_trusted(&found, &of_papayad, geteuid().as_raw()) {
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        let shown = path.display();
        return Err(Unusable {
            problem: format!(
                "{shown} belongs to user {owner} and has mode {mode:04o}: somebody may write it who may \
                 not write papayad"
            ),
            remedy: "chmod go-w it and give it papayad's owner, or install the package again",
        });
    }
    check_version(&file, &path)?;
    let limited = confine::limit_rights(&file, rights::PROGRAM);
    limited.map(|()| file).map_err(|e| unknown(e.into()))
}

/// The program that is this process's standard output, of the same version (Linux).
///
/// # Errors
/// It is none, or another version's.
pub fn of_stdout() -> Result<OwnedFd, Unusable> {
    let path = Path::new("/proc/self/fd/1");
    let file = open_file(path)?;
    check_version(&file, path).map(|()| file)
}

fn open_file(path: &Path) -> Result<OwnedFd, Unusable> {
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| Unusable {
        problem: format!("cannot open {}: {}", path.display(), e.desc()),
        remedy: "chmod 755 it, or install the package again",
    })
}

/// Whether whoever may write this file may write papayad's, or is root or this process's user.
fn is_trusted(file: &fs::Metadata, papayad: &fs::Metadata, me: u32) -> bool {
    let group = if file.gid() == papayad.gid() { papayad.mode() & 0o020 } else { 0 };
    let others = papayad.mode() & 0o002;
    [0, me, papayad.uid()].contains(&file.uid()) && file.mode() & 0o022 & !(group | others) == 0
}

fn check_version(file: &OwnedFd, path: &Path) -> Result<(), Unusable> {
    let unusable = |problem, remedy| Unusable { problem, remedy };
    // The very file that is open; not /proc/self, which is another process's in the child.
    let mut command = match cfg!(target_os = "linux") {
        true => Command::new(format!("/proc/{}/fd/{}", getpid(), file.as_raw_fd())),
        false => Command::new(path),
    };
    command.arg("--version").env_clear().current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|e| {
        let problem = format!("{} cannot be executed: {e}", path.display());
        unusable(problem, "chmod 755 it, see that its file system is not mounted noexec, or install the package again")
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.trim_end() == VERSION {
        return Ok(());
    }
    // Such as the loader's, that a library is missing.
    let more = String::from_utf8_lossy(&output.stderr);
    let said: String = format!("{} {more}", said.trim_end()).trim().chars().take(200).collect();
    let problem = format!("{} says {said:?}, and not {VERSION:?}", path.display());
    Err(unusable(
        problem,
        "install papayad and papayad-session from one package or build; one beside papayad comes before \
         the one in ../libexec/papayachat",
    ))
}

/// Device and inode of what the papayad with this process id executes for each client.
///
/// # Errors
/// The system's, or that there is no such file.
pub fn file_of(launcher: i32) -> io::Result<(u64, u64)> {
    let papayad = fs::read_link(format!("/proc/{launcher}/exe"))?;
    let session = of(&papayad).map_err(|e| io::Error::other(e.to_string()))?;
    fs::metadata(session).map(|found| (found.dev(), found.ino()))
}

/// Whether this link in `/proc/PID/fd` is to a file of that name that is gone from there.
pub fn was_replaced(link: &str) -> bool {
    link.strip_suffix(" (deleted)").is_some_and(|path| Path::new(path).ends_with(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_beside_papayad_and_where_packages_put_it_and_else_both_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, libexec) = (dir.path().join("sbin"), dir.path().join("libexec/papayachat"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&libexec).unwrap();
        let papayad = bin.join("papayad");
        let message = of(&papayad).unwrap_err().to_string();
        assert!(message.contains(&format!("{} ", bin.display())), "{message}");
        assert!(message.contains("sbin/../libexec/papayachat;"), "{message}");
        fs::write(libexec.join(NAME), "").unwrap();
        let real = |path: &Path| fs::canonicalize(path).unwrap();
        assert_eq!(real(&of(&papayad).unwrap()), real(&libexec.join(NAME)));
        // A directory of that name is no program.
        fs::create_dir(bin.join(NAME)).unwrap();
        assert_eq!(real(&of(&papayad).unwrap()), real(&libexec.join(NAME)));
        fs::remove_dir(bin.join(NAME)).unwrap();
        fs::write(bin.join(NAME), "").unwrap();
        assert_eq!(of(&papayad).unwrap(), bin.join(NAME));
    }

    #[test]
    fn whoever_may_write_it_may_write_papayad() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(&path).unwrap()
        };
        let me = geteuid().as_raw();
        let (papayad, shared) = (file("papayad", 0o755), file("shared", 0o775));
        let trusted = |mode, papayad| is_trusted(&file("session", mode), papayad, me);
        assert!(trusted(0o755, &papayad) && trusted(0o711, &papayad));
        assert!(
            !trusted(0o775, &papayad) && !trusted(0o757, &papayad) && !trusted(0o777, &papayad)
        );
        // As it is built where users have a group of their own.
        assert!(trusted(0o775, &shared) && !trusted(0o757, &shared));
        // Somebody else's, and papayad is not his.
        let (session, roots) = (file("session", 0o755), fs::metadata("/").unwrap());
        if me == 0 {
            std::os::unix::fs::chown(dir.path().join("session"), Some(1), None).unwrap();
            let session = fs::metadata(dir.path().join("session")).unwrap();
            assert!(!is_trusted(&session, &roots, 0) && is_trusted(&session, &session, 0));
        } else {
            assert!(!is_trusted(&session, &roots, me + 1) && is_trusted(&session, &roots, me));
        }
    }

    #[test]
    fn a_replaced_one_is_known_by_its_link() {
        assert!(was_replaced("/usr/libexec/papayachat/papayad-session (deleted)"));
        assert!(!was_replaced("/usr/libexec/papayachat/papayad-session"));
        assert!(!was_replaced("/tmp/not-papayad-session (deleted)"));
    }
}
