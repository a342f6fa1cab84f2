//! The Linux backend: what [`super::policy`] says, in the only order that works.
//!
//! Non-dumpable first, since the limits below are worth little to a process that can be traced;
//! then limits, `no_new_privs` (the kernel wants it before the next two), sealed memory, Landlock,
//! and seccomp last, which denies the calls that set up the rest. Called by `confine::enter` only.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::stat::stat;

use super::filter::Filter;
use super::policy;
use super::{ConfineError, Context, Level, Report, Role};
use crate::sys::confine_linux as sys;
use crate::sys::memory::{give_back, trim_heap};

/// Where the dynamic loader looks up its libraries' places; without it, it searches directories.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// See [`super::enter`].
pub(super) fn enter(
    role: Role,
    context: &Context<'_>,
    filter: Filter,
) -> Result<Report, ConfineError> {
    if role == Role::RecvJoined {
        return tighten(role, context, filter);
    }
    if role != Role::Send {
        // SEND is forked from RECV, whose filter lets neither of them make a thread or look.
        single_threaded(role)?;
    }
    // Before this process becomes non-dumpable, for then it may not read its own /proc any more.
    let paths = Paths::of(role, context)?;

    refuse_tracing(role)?;
    super::limit(role, context)?;
    prctl::set_no_new_privs().map_err(|e| ConfineError::step(role, "set no_new_privs", e))?;
    let memory_sealed = seal_memory(context);
    let landlock = restrict_paths(role, context, &paths)?;
    drop(paths);
    let level = level(landlock, memory_sealed);
    if level < context.require {
        // Before the filter: it knows no calls for a process that has to say why it ends.
        return Err(ConfineError::Weaker { role, require: context.require, reached: level });
    }
    let calls = load(role, filter)?;
    Ok(Report { role, level, landlock, memory_sealed, calls })
}

/// See [`super::limit_rights`]: filters check numbers here, and what was open is open.
pub(super) fn limit_rights(_: BorrowedFd<'_>, _: &[policy::Right]) -> Result<(), Errno> {
    Ok(())
}

/// See [`super::available`].
pub(super) fn available() -> std::io::Result<Level> {
    let abi = sys::landlock_abi();
    // Sealed memory came with 6.3, before Landlock's ABI 4: no kernel has the newer alone.
    Ok(level((abi > 0).then_some(abi), true))
}

/// The second stage of a process that is already confined: limits and filter get tighter.
fn tighten(role: Role, context: &Context<'_>, filter: Filter) -> Result<Report, ConfineError> {
    let earlier = context
        .earlier
        .ok_or(ConfineError::Misused { role, what: "needs the report of the stage before it" })?;
    super::limit(role, context)?;
    let calls = load(role, filter)?;
    Ok(Report { role, calls, ..earlier.clone() })
}

/// See [`super::compile`].
pub(super) fn compile(role: Role) -> Result<Filter, ConfineError> {
    let filter = Filter::compile(&policy::rules(role))
        .map_err(|e| ConfineError::step(role, "compile its seccomp filter", e));
    trim_heap();
    filter
}

/// The filter is in the kernel then, and what loading it took of the stack is given back. How many
/// calls it knows.
fn load(role: Role, filter: Filter) -> Result<usize, ConfineError> {
    filter.load().map_err(|e| ConfineError::step(role, "load its filter", e))?;
    let calls = filter.calls();
    drop(filter);
    give_back();
    Ok(calls)
}

/// What the parts amount to.
fn level(landlock: Option<u32>, memory_sealed: bool) -> Level {
    let paths = match landlock {
        None | Some(0 | 1) => Level::Seccomp,
        Some(2..=5) => Level::Landlock2,
        Some(6) => Level::Landlock6,
        Some(_) => Level::Full,
    };
    if memory_sealed { paths } else { paths.min(Level::Landlock2) }
}

/// Landlock and seccomp confine the calling thread only, so there must be no other.
fn single_threaded(role: Role) -> Result<(), ConfineError> {
    // A directory's link count: itself, its name in its parent, and one a thread.
    let tasks =
        stat("/proc/self/task").map_err(|e| ConfineError::step(role, "count its threads", e))?;
    if tasks.st_nlink == 3 {
        Ok(())
    } else {
        Err(ConfineError::Misused { role, what: "has several threads and cannot be confined" })
    }
}

fn refuse_tracing(role: Role) -> Result<(), ConfineError> {
    prctl::set_dumpable(false).map_err(|e| ConfineError::step(role, "become non-dumpable", e))?;
    match prctl::get_dumpable() {
        Ok(false) => Ok(()),
        _ => Err(ConfineError::Misused { role, what: "is still dumpable" }),
    }
}

/// Kernels before 6.3 cannot, which costs a level.
fn seal_memory(context: &Context<'_>) -> bool {
    if context.ceiling < Level::Landlock6 {
        return sys::refuses_new_code();
    }
    sys::refuse_new_code().is_ok() && sys::refuses_new_code()
}

/// What a role may reach by name: rights on what lies beneath each of the opened paths.
struct Paths<'a> {
    opened: Vec<(PathFd, BitFlags<AccessFs>)>,
    state_dir: Option<BorrowedFd<'a>>,
}

impl<'a> Paths<'a> {
    fn of(role: Role, context: &Context<'a>) -> Result<Self, ConfineError> {
        let mut paths = Self { opened: Vec::new(), state_dir: None };
        match role {
            Role::Launcher => paths.add_launchers(context)?,
            Role::Keeper => {
                let dir = context.state_dir;
                paths.state_dir =
                    Some(dir.ok_or(ConfineError::Misused { role, what: "needs its directory" })?);
            }
            Role::Listener | Role::Recv | Role::RecvJoined | Role::Send => {}
        }
        Ok(paths)
    }

    fn add_launchers(&mut self, context: &Context<'_>) -> Result<(), ConfineError> {
        let read = make_bitflags!(AccessFs::{ReadFile});
        let execute = make_bitflags!(AccessFs::{ReadFile | Execute});
        let executable = context.executable.ok_or(ConfineError::Misused {
            role: Role::Launcher,
            what: "needs the path of the program that it starts",
        })?;
        self.add(executable, execute)?;
        if has_a_loader(executable)? {
            for directory in library_directories(executable)? {
                self.add(&directory, execute)?;
            }
            self.add_if_there(Path::new(LOADER_CACHE), read)?;
        }
        for path in context.readable {
            self.add_if_there(path, read)?;
        }
        if let Some(directory) = context.listable {
            self.add_if_there(directory, make_bitflags!(AccessFs::{ReadDir}))?;
        }
        for socket in context.sockets {
            // The directory and not the socket: the service behind it makes it anew when it starts.
            if let Some(directory) = fs::canonicalize(socket).ok().as_deref().and_then(Path::parent)
            {
                self.add_if_there(directory, make_bitflags!(AccessFs::{ResolveUnix}))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), ConfineError> {
        let opened = PathFd::new(path).map_err(|error| ConfineError::Path {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
        self.opened.push((opened, access));
        Ok(())
    }

    fn add_if_there(
        &mut self,
        path: &Path,
        access: BitFlags<AccessFs>,
    ) -> Result<(), ConfineError> {
        if path.exists() { self.add(path, access) } else { Ok(()) }
    }

    /// Only rights that the ruleset handles can be granted.
    fn grant(
        &self,
        mut ruleset: RulesetCreated,
        handled: BitFlags<AccessFs>,
    ) -> Result<RulesetCreated, landlock::RulesetError> {
        if let Some(directory) = self.state_dir {
            let access = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | MakeReg});
            ruleset = ruleset.add_rule(PathBeneath::new(directory, access & handled))?;
        }
        for (path, access) in &self.opened {
            let access = *access & handled;
            if !access.is_empty() {
                ruleset = ruleset.add_rule(PathBeneath::new(path, access))?;
            }
        }
        Ok(ruleset)
    }
}

/// Whether the kernel starts another program, which loads libraries, to start this one: a program
/// header of the type PT_INTERP (elf(5), of 64 bits). As if it had one, if it cannot be read so.
fn has_a_loader(program: &Path) -> Result<bool, ConfineError> {
    let failed = |e: io::Error| ConfineError::Path {
        path: program.to_owned(),
        cause: format!("its program headers cannot be read: {e}"),
    };
    let file = match fs::File::open(program) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
        opened => opened.map_err(failed)?,
    };
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let start = u64::from_le_bytes(std::array::from_fn(|i| header[32 + i]));
    let (size, count) = (half(54), half(56));
    const CLASS_64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
    if !header.starts_with(CLASS_64_LITTLE) || count == 0 {
        return Ok(true);
    }
    for number in 0..count {
        let mut kind = [0; 4];
        let place = u64::from(number) * u64::from(size);
        let place =
            start.checked_add(place).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        file.read_exact_at(&mut kind, place).map_err(failed)?;
        if u32::from_le_bytes(kind) == libc::PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directories of the libraries that this very process was started with; what it executes has
/// no others. Directories and not files, so that an upgrade of a library, which replaces the
/// file, does not lock new clients out of a running service. Empty for a static program.
fn library_directories(executable: &Path) -> Result<BTreeSet<PathBuf>, ConfineError> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|e| ConfineError::step(Role::Launcher, "read /proc/self/maps", e))?;
    // As links, for their directories may be closed to this user.
    let programs = [executable, Path::new("/proc/self/exe")];
    let programs = programs.map(|path| fs::read_link(path).unwrap_or_else(|_| path.to_owned()));
    Ok(mapped_files(&maps)
        .filter(|path| !programs.contains(path))
        .filter(|path| !path.to_string_lossy().ends_with(" (deleted)"))
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect())
}

/// The files in the text of proc_pid_maps(5): what follows the fifth field and begins with a slash.
fn mapped_files(maps: &str) -> impl Iterator<Item = PathBuf> {
    maps.lines().filter_map(|line| line.find('/').map(|start| PathBuf::from(&line[start..])))
}

/// Restricts names, TCP and signals by Landlock, at the highest ABI of kernel, crate and ceiling.
/// Returns the ABI that is in force completely, `None` where there is none to be had.
fn restrict_paths(
    role: Role,
    context: &Context<'_>,
    paths: &Paths<'_>,
) -> Result<Option<u32>, ConfineError> {
    let allowed = match context.ceiling {
        Level::Full => u32::MAX,
        Level::Landlock6 => 6,
        Level::Landlock2 => 2,
        Level::Seccomp => 0,
    };
    let abi = ABI::from(i32::try_from(sys::landlock_abi().min(allowed)).unwrap_or(i32::MAX));
    if abi == ABI::Unsupported {
        return Ok(None);
    }
    let status = ruleset(role, abi)
        .and_then(|(ruleset, handled)| paths.grant(ruleset, handled))
        .and_then(RulesetCreated::restrict_self)
        .map_err(|e| ConfineError::step(role, "restrict itself by Landlock", e))?;
    // Never trust a success that is less than what was asked for.
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(Some(abi as u32))
    } else {
        Err(ConfineError::step(role, "restrict itself by Landlock", "it is enforced only in part"))
    }
}

/// A ruleset that handles, and so denies, all that an ABI knows.
fn ruleset(
    role: Role,
    abi: ABI,
) -> Result<(RulesetCreated, BitFlags<AccessFs>), landlock::RulesetError> {
    let files = AccessFs::from_all(abi);
    let mut ruleset =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(files)?;
    if abi >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(scopes(role, abi))?;
    }
    Ok((ruleset.create()?, files))
}

/// Each process has a domain of its own inside the launcher's: the launcher's signals reach
/// inwards, a worker's reach nobody.
fn scopes(role: Role, abi: ABI) -> BitFlags<Scope> {
    match role {
        // The service manager's socket may be an abstract one.
        Role::Launcher => Scope::Signal.into(),
        _ => Scope::from_all(abi),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

    use super::*;

    #[test]
    fn the_level_is_that_of_the_weakest_part() {
        assert_eq!(level(Some(7), true), Level::Full);
        assert_eq!(level(Some(7), false), Level::Landlock2);
        assert_eq!(level(Some(6), true), Level::Landlock6);
        assert_eq!(level(Some(5), true), Level::Landlock2);
        assert_eq!(level(Some(1), true), Level::Seccomp);
        assert_eq!(level(None, true), Level::Seccomp);
    }

    /// Landlock restricts the calling thread only, so a thread can stand for a process. At the
    /// level that the tests are run at, as `tests/common/level.rs` has it; the work is told the
    /// ABI, 0 without Landlock.
    fn inside<T: Send>(role: Role, context: &Context<'_>, work: impl FnOnce(u32) -> T + Send) -> T {
        let wanted = std::env::var("PAPAYA_TEST_LEVEL").map_or(Level::Full, |l| l.parse().unwrap());
        let restricted = || {
            let context = Context { ceiling: wanted, ..*context };
            let paths = Paths::of(role, &context).unwrap();
            let abi = restrict_paths(role, &context, &paths).unwrap();
            assert_eq!(level(abi, wanted >= Level::Landlock6), wanted, "another sandbox level");
            work(abi.unwrap_or(0))
        };
        std::thread::scope(|scope| scope.spawn(restricted).join().unwrap())
    }

    const WORKERS: [Role; 3] = [Role::Listener, Role::Recv, Role::Send];

    #[test]
    fn no_worker_opens_any_path() {
        for role in WORKERS {
            inside(role, &Context::new(Level::Seccomp), |abi| {
                for path in ["/etc/passwd", "/proc/self/status", "/dev/null", "/tmp", "."] {
                    let found = fs::File::open(path).map(drop).map_err(|error| error.kind());
                    let denied = Err(std::io::ErrorKind::PermissionDenied);
                    assert_eq!(found, if abi >= 1 { denied } else { Ok(()) }, "{path}");
                }
            });
        }
    }

    /// What the kernel refuses from inside, without a filter that would hide it: the highest ABI of
    /// those that can be told apart so. ABI 2 only lets more through than 1, 7 and 8 refuse the same
    /// as 6. To be called in a domain with `/dev` for a state directory, whose files can be opened.
    fn refused_as_since(outside: &Outside) -> u32 {
        use nix::errno::Errno::{EACCES, EPERM};
        let connects = |address: &UnixAddr| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            connect(socket.as_raw_fd(), address)
        };
        let null = fs::File::open("/dev/null").unwrap();
        let tcp = std::net::TcpStream::connect(outside.listener.local_addr().unwrap());
        let steps = [
            (1, fs::File::open("/etc/passwd").is_err()),
            (3, nix::unistd::truncate(&outside.file, 0) == Err(EACCES)),
            (4, tcp.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)),
            (5, nix::sys::termios::tcgetattr(&null).err() == Some(EACCES)),
            (6, connects(&UnixAddr::new_abstract(&outside.name).unwrap()) == Err(EPERM)),
            (9, connects(&UnixAddr::new(&outside.socket).unwrap()) == Err(EACCES)),
        ];
        let refused = steps.iter().filter(|(_, refused)| *refused).map(|(abi, _)| *abi);
        let highest = refused.clone().max().unwrap_or(0);
        // Each refuses all that the earlier ones do.
        let all = steps.iter().filter(|(abi, _)| *abi <= highest).count();
        assert_eq!(refused.count(), all, "{steps:?}");
        highest
    }

    /// What stands outside of a domain, to be reached for from inside.
    struct Outside {
        _directory: tempfile::TempDir,
        file: PathBuf,
        socket: PathBuf,
        name: Vec<u8>,
        listener: std::net::TcpListener,
        _sockets: [std::os::unix::net::UnixListener; 2],
    }

    impl Outside {
        fn new() -> Self {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixListener};
            let directory = tempfile::tempdir().unwrap();
            let (file, socket) = (directory.path().join("file"), directory.path().join("socket"));
            fs::write(&file, "").unwrap();
            let name = directory.path().as_os_str().as_encoded_bytes().to_vec();
            let by_name = SocketAddr::from_abstract_name(&name).unwrap();
            let sockets =
                [UnixListener::bind(&socket).unwrap(), UnixListener::bind_addr(&by_name).unwrap()];
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            Self { _directory: directory, file, socket, name, listener, _sockets: sockets }
        }
    }

    /// The ABI that is told with a ceiling, and the one that the kernel's refusals show.
    fn told_and_shown(ceiling: Level) -> (Option<u32>, u32) {
        use std::os::fd::AsFd;
        let outside = Outside::new();
        let devices = fs::File::open("/dev").unwrap();
        let mut context = Context::new(Level::Seccomp);
        context.ceiling = ceiling;
        context.state_dir = Some(devices.as_fd());
        let restricted = || {
            let paths = Paths::of(Role::Keeper, &context).unwrap();
            let told = restrict_paths(Role::Keeper, &context, &paths).unwrap();
            (told, refused_as_since(&outside))
        };
        std::thread::scope(|scope| scope.spawn(restricted).join().unwrap())
    }

    /// Whether refusals show what is told, as far as they can.
    fn is_true(told: Option<u32>, shown: u32) -> bool {
        shown
            == match told.unwrap_or(0) {
                2 => 1,
                7 | 8 => 6,
                9.. => 9,
                told => told,
            }
    }

    #[test]
    fn the_abi_that_is_told_is_the_one_that_the_kernel_s_refusals_show() {
        for ceiling in Level::ALL {
            let (told, shown) = told_and_shown(ceiling);
            assert!(is_true(told, shown), "ceiling {ceiling}: {told:?} told, {shown} shown");
        }
    }

    /// The test of the test above.
    #[test]
    fn an_abi_that_is_overstated_is_found() {
        for (ceiling, overstated) in [
            (Level::Seccomp, &[1, 2, 6, 7][..]),
            (Level::Landlock2, &[3, 4, 5, 6, 7]),
            (Level::Landlock6, &[9]),
        ] {
            let (_, shown) = told_and_shown(ceiling);
            for told in overstated {
                assert!(!is_true(Some(*told), shown), "ceiling {ceiling}: {told} is believed");
            }
        }
    }

    #[test]
    fn no_worker_connects_or_listens() {
        use std::net::{TcpListener, TcpStream};
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        for role in WORKERS {
            inside(role, &Context::new(Level::Seccomp), |abi| {
                assert_eq!(TcpStream::connect(address).is_err(), abi >= 4);
                assert_eq!(TcpListener::bind("127.0.0.1:0").is_err(), abi >= 4);
            });
        }
    }

    #[test]
    fn no_worker_signals_its_sibling() {
        use nix::errno::Errno;
        use nix::sys::signal::kill;
        use std::process::{Command, Stdio};
        let mut sibling = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(sibling.id().try_into().unwrap());
        for role in WORKERS {
            inside(role, &Context::new(Level::Seccomp), |abi| {
                let expected = if abi >= 6 { Err(Errno::EPERM) } else { Ok(()) };
                assert_eq!(kill(pid, None), expected);
            });
        }
        drop(sibling.stdin.take());
        assert!(sibling.wait().unwrap().success());
    }

    #[test]
    fn the_keeper_stays_beneath_its_directory_and_cuts_nothing() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("room.log"), "kept\n").unwrap();
        let opened = fs::File::open(directory.path()).unwrap();
        let mut context = Context::new(Level::Seccomp);
        context.state_dir = Some(opened.as_fd());
        inside(Role::Keeper, &context, |abi| {
            let log = directory.path().join("room.log");
            let append = fs::File::options().append(true).open(&log);
            append.unwrap().write_all(b"more\n").unwrap();
            assert_eq!(fs::read_to_string(&log).unwrap(), "kept\nmore\n");
            fs::File::create_new(directory.path().join("room.gate")).unwrap();
            assert_eq!(fs::File::create(&log).is_err(), abi >= 3);
            let gone = directory.path().join("gone");
            assert_eq!(fs::rename(&log, &gone).is_err(), abi >= 1);
            assert_eq!(fs::remove_file(if abi >= 1 { &log } else { &gone }).is_err(), abi >= 1);
            assert_eq!(fs::create_dir(directory.path().join("new")).is_err(), abi >= 1);
            assert_eq!(fs::read("/etc/passwd").is_err(), abi >= 1);
            assert_eq!(fs::read_dir(directory.path().join("..")).is_err(), abi >= 1);
        });
    }

    #[test]
    fn the_launcher_opens_its_program_and_libraries_and_what_it_is_told() {
        use std::process::{Command, Stdio};
        let program = std::env::current_exe().unwrap();
        let readable = [Path::new("/etc/hostname"), Path::new("/nonexistent")];
        let mut context = Context::new(Level::Seccomp);
        context.executable = Some(&program);
        context.readable = &readable;
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let _service = std::os::unix::net::UnixListener::bind(&log).unwrap();
        let sockets = [log.as_path(), Path::new("/nonexistent/log")];
        context.sockets = &sockets;
        inside(Role::Launcher, &context, |abi| {
            assert!(std::os::unix::net::UnixStream::connect(&log).is_ok());
            assert!(fs::File::open(&program).is_ok());
            assert!(fs::File::open("/etc/hostname").is_ok());
            assert_eq!(fs::File::open("/etc/passwd").is_err(), abi >= 1);
            assert_eq!(fs::File::options().write(true).open("/dev/null").is_err(), abi >= 1);
            // Not `Stdio::null()`, which would open a file.
            let start =
                |program: &Path| Command::new(program).arg("--list").stdin(Stdio::piped()).output();
            assert!(start(&program).unwrap().status.success());
            assert_eq!(start(Path::new("/bin/cat")).is_err(), abi >= 1);
        });
    }

    /// An ELF file of 64 bits with program headers of these types, and nothing else.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = kinds.len() as u8;
        for kind in kinds {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let found = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            has_a_loader(&path)
        };
        assert!(has_a_loader(&std::env::current_exe().unwrap()).unwrap());
        assert!(found(&elf(&[libc::PT_PHDR, libc::PT_LOAD, libc::PT_INTERP])).unwrap());
        assert!(!found(&elf(&[libc::PT_LOAD, libc::PT_DYNAMIC])).unwrap());
        // Neither is known to have none.
        assert!(found(&[&b"#!/bin/sh\n"[..], &[b' '; 64]].concat()).unwrap());
        assert!(found(&elf(&[])).unwrap());
        // Cut off, or with headers that are nowhere.
        assert!(found(&elf(&[libc::PT_LOAD, libc::PT_LOAD])[..120]).is_err());
        assert!(found(b"\x7fELF").is_err());
        let mut nowhere = elf(&[libc::PT_LOAD, libc::PT_LOAD]);
        nowhere[32..40].fill(0xff);
        assert!(found(&nowhere).is_err());
    }

    #[test]
    fn the_launcher_opens_no_library_for_a_program_without_a_loader() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let library = mapped_files(&maps).find(|p| p.to_string_lossy().contains("/libc")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::write(&program, elf(&[libc::PT_LOAD])).unwrap();
        let own = std::env::current_exe().unwrap();
        for (program, opens) in [(&program, false), (&own, true)] {
            let mut context = Context::new(Level::Seccomp);
            context.executable = Some(program);
            inside(Role::Launcher, &context, |abi| {
                assert!(fs::File::open(program).is_ok());
                assert_eq!(fs::File::open(&library).is_ok(), opens || abi < 1);
                let cache = Path::new(LOADER_CACHE);
                assert_eq!(fs::File::open(cache).is_ok(), opens || abi < 1);
            });
        }
    }

    #[test]
    fn the_maps_of_a_process_name_its_libraries() {
        let maps = "7f0-7f1 r-xp 00000000 fe:00 12 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f2-7f3 rw-p 00000000 00:00 0 [heap]\n\
                    7f4-7f5 r--p 00000000 fe:00 13 /opt/a b/lib.so\n\
                    7f6-7f7 rw-p 00000000 00:00 0 \n";
        let files: Vec<_> = mapped_files(maps).collect();
        assert_eq!(
            files,
            [Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/opt/a b/lib.so")]
        );
    }
}
