//! Launcher, as root: directories, sockets, pipes. Nothing here reads what others wrote.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind as bind_socket, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::{FileStat, Mode, lstat};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Pid, Uid, fchown, geteuid, getpid, getsid, pipe2, setsid};

use super::Users;
use super::manager::Manager;
use crate::config::Config;
use crate::confine::identity::{self, Ids};
use crate::confine::{self, policy::rights};
use crate::daemon::channel::keeper_recv::STAGES;
use crate::daemon::listener::door;
use crate::exit::{Exit, Failure};
use crate::sys::{self, signal};

/// After so many seconds of silence the kernel asks whether a client is still there …
const KEEPALIVE_IDLE: u32 = 60;
/// … this often, in seconds …
const KEEPALIVE_INTERVAL: u32 = 15;
/// … and so many times.
const KEEPALIVE_COUNT: u32 = 4;

/// Processes of the workers' user beside two a client: launcher, listener, those that are ending.
const SPARE_PROCESSES: u64 = 64;

/// Turns a failed call into the failure of the whole start.
pub fn failed(action: &'static str) -> impl Fn(Errno) -> Failure {
    move |cause| Failure::new(Exit::Internal, format!("cannot {action}: {}", cause.desc()))
}

/// What the service manager gave: its sockets, if it opened them, and the way to it.
type Given = (Option<Vec<OwnedFd>>, Manager);

/// The bell is rung for the whole process group, so the service must have a session and a group of
/// its own. A service manager made it so already; a script's child can make it so. A job of an
/// interactive shell leads a group that may hold others too (`papayad run | tee`): then the
/// service goes on in a child, and this process stays in front of it, passes signals on, and ends
/// as it ends; what came from the service manager goes on with the service.
pub fn own_session(users: Option<&Users>, given: Given) -> Result<Given, Failure> {
    if getsid(None) == Ok(getpid()) || setsid().is_ok() {
        return Ok(given);
    }
    let front = getpid();
    match sys::process::fork_here().map_err(failed("start a session"))? {
        None => {
            setsid().map_err(failed("start a session"))?;
            sys::process::die_with_parent(front).map_err(failed("start a session"))?;
            Ok(given)
        }
        Some(service) => {
            given.1.main_process(service);
            drop(given);
            match stay_in_front(service, users)? {}
        }
    }
}

fn stay_in_front(service: Pid, users: Option<&Users>) -> Result<Infallible, Failure> {
    match users {
        Some(users) => identity::become_forever(&users.workers),
        None => identity::rootless(),
    }
    .map_err(|e| Failure::new(Exit::Internal, e.to_string()))?;
    let noted = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
    signal::apply(&signal::Plan { noted: &noted, ignored: &[], defaulted: &[] })
        .map_err(failed("set signals up"))?;
    loop {
        match sys::process::reap_child(service) {
            Some(WaitStatus::Exited(_, status)) => sys::process::exit_now(status),
            Some(_) => sys::process::exit_now(Exit::Internal as i32),
            None => {}
        }
        signal::take(Signal::SIGCHLD);
        for passed_on in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            if signal::take(passed_on) {
                let _ = kill(service, passed_on);
            }
        }
        signal::wait(&mut [], Some(Duration::from_secs(60))).map_err(failed("wait"))?;
    }
}

/// Binds all addresses and listens. What clients send to a port that is not served yet must not
/// wait: that is why this comes first.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<OwnedFd>, Failure> {
    addresses.iter().map(|address| bind_one(*address).map_err(cannot_bind(*address))).collect()
}

fn bind_one(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if let SocketAddr::V6(v6) = address {
        // Explicit, because systems differ: a wildcard serves IPv4 too, an address only itself.
        setsockopt(&fd, sockopt::Ipv6V6Only, &!v6.ip().is_unspecified())?;
    }
    tune(&fd)?;
    bind_socket(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if address.port() == 0 {
        // A port that the system chose is lost when the door is closed, one that was asked for is
        // not: ask for it, while this socket keeps others from it.
        let chosen = door::bound(&fd).filter(|a| a.port() != 0).ok_or(Errno::EINVAL)?;
        return bind_one(SocketAddr::new(address.ip(), chosen.port()));
    }
    door::open(&fd)?;
    confine::limit_rights(&fd, rights::LISTENING)?;
    Ok(fd)
}

/// What a listening socket is set to. Accepted sockets inherit it (tcp(7)), so no worker has to
/// set anything.
pub fn tune(fd: &OwnedFd) -> Result<(), Errno> {
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(fd, sockopt::KeepAlive, &true)?;
    setsockopt(fd, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(fd, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(fd, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    #[cfg(target_os = "linux")]
    setsockopt(fd, sockopt::TcpUserTimeout, &(1000 * (KEEPALIVE_IDLE + 4 * KEEPALIVE_INTERVAL)))?;
    Ok(())
}

fn cannot_bind(address: SocketAddr) -> impl Fn(Errno) -> Failure {
    move |cause| {
        let remedy = match cause {
            Errno::EADDRINUSE => {
                "another program (or another papayad) listens there; see `ss -tlnp` or `sockstat -l`"
            }
            Errno::EACCES => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            Errno::EADDRNOTAVAIL => "no interface of this machine has this address",
            _ => "change listen.addresses",
        };
        let message = format!("cannot listen on {address}: {}; {remedy}", cause.desc());
        Failure::new(Exit::Unavailable, message)
    }
}

/// Creates the two directories where they are missing, and refuses ones that others could change.
pub fn directories(config: &Config, users: Option<&Users>) -> Result<(), Failure> {
    state_directory(config, users.map(|u| u.keeper))?;
    directory(&config.paths.runtime, 0o755, None)
}

/// The state directory alone; `keeper` is `None` without root.
pub fn state_directory(config: &Config, keeper: Option<Ids>) -> Result<(), Failure> {
    directory(&config.paths.state, 0o750, keeper.map(|ids| (ids.uid, ids.gid)))
}

fn directory(path: &Path, mode: u32, owner: Option<(Uid, Gid)>) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let created = std::fs::DirBuilder::new().mode(mode).create(path);
    let new = match created {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => {
            let message = format!("cannot create {}: {e}; create its parent", path.display());
            return Err(Failure::new(Exit::CannotCreate, message));
        }
    };
    let look = |cause: Errno| {
        let message = format!("cannot use {}: {}", path.display(), cause.desc());
        Failure::new(Exit::CannotCreate, message)
    };
    if new && let Some((uid, gid)) = owner {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(look)?;
        fchown(&fd, Some(uid), Some(gid)).map_err(look)?;
    }
    // Not opened: root without the capability to override modes cannot open the keeper's.
    let status = lstat(path).map_err(look)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(look(Errno::ENOTDIR));
    }
    check_owner(path, &status, owner.map_or(geteuid(), |(uid, _)| uid))
}

fn check_owner(path: &Path, status: &FileStat, wanted: Uid) -> Result<(), Failure> {
    let path = path.display();
    let problem = if status.st_uid != wanted.as_raw() {
        format!("{path} belongs to uid {}; `chown {wanted} {path}`", status.st_uid)
    } else if status.st_mode & 0o022 != 0 {
        format!("{path} can be changed by others; `chmod go-w {path}`")
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Config, problem))
}

/// Whether each program that is executed gets addresses of its own (proc_sys_kernel(5),
/// personality(2)). Where the system does not tell, it is taken to.
pub fn addresses_are_random() -> bool {
    const NO_RANDOMIZE: u32 = 0x0004_0000;
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/sys/kernel/randomize_va_space");
    let own = read("/proc/self/personality");
    let own = own.and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
    system.is_none_or(|level| level.trim() == "2") && own.unwrap_or(0) & NO_RANDOMIZE == 0
}

/// /dev/null, for descriptor 0 of the roles.
pub fn null() -> Result<OwnedFd, Failure> {
    nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|null| confine::limit_rights(&null, &[]).map(|()| null))
        .map_err(failed("open /dev/null"))
}

/// A path to this program's own file, which on Linux works even where its directory is closed to
/// this user.
pub fn program_path() -> Option<PathBuf> {
    if cfg!(target_os = "linux") {
        Some("/proc/self/exe".into())
    } else {
        std::env::current_exe().ok()
    }
}

/// A name of an open file in this process, for Landlock, which Linux alone has: it leads to the file
/// also where its directory is closed to this user, or another file has its path by now.
pub fn path_of(file: &OwnedFd) -> Option<PathBuf> {
    cfg!(target_os = "linux").then(|| format!("/proc/self/fd/{}", file.as_raw_fd()).into())
}

/// With a user of its own the service can say how many processes that user may have: two a client,
/// and some to spare. So a RECV that is owned before its token cannot fill the machine.
pub fn limit_processes(config: &Config) -> Result<(), Failure> {
    let limits = &config.limits;
    let wanted =
        2 * (u64::from(limits.clients) + u64::from(limits.startups.full)) + SPARE_PROCESSES;
    sys::process::lower_limit(Resource::RLIMIT_NPROC, wanted).map_err(failed("limit processes"))
}

/// The filters of RECV and SEND, in the order of [`STAGES`].
pub fn filters() -> Result<[Vec<u8>; STAGES.len()], Failure> {
    let mut filters = [const { Vec::new() }; STAGES.len()];
    for (filter, role) in filters.iter_mut().zip(STAGES) {
        let compiled = confine::compile(role);
        let bytes = compiled.map_err(|e| Failure::new(Exit::Internal, e.to_string()))?.to_bytes();
        *filter = bytes.ok_or_else(|| {
            Failure::new(Exit::Internal, format!("the filter of {role} cannot be handed over"))
        })?;
    }
    Ok(filters)
}

/// A pipe that never makes its writers wait: a full one loses log lines, or has been rung.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).and_then(|(read, write)| {
        confine::limit_rights(&read, rights::PIPE_READ)?;
        confine::limit_rights(&write, rights::PIPE_WRITE)?;
        Ok((read, write))
    });
    pipe.map_err(failed("make a pipe"))
}
