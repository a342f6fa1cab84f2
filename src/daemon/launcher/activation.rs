//! Sockets that the service manager opened for us, by sd_listen_fds(3): so the service can start
//! as a plain user, without any capability, even on a port below 1024, and connections wait while
//! it is restarted. The sockets stay the manager's: they must listen again when the service ends.

use std::env;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockopt, sockopt};
use nix::unistd::{Pid, getpid};

use super::prepare;
use crate::confine::policy::listener::{FIRST_SOCKET, LAST_SOCKET};
use crate::daemon::listener::door;
use crate::exit::{Exit, Failure};
use crate::sys;

/// The first descriptor that is handed over (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// As many as the listener's table has room for.
const SOCKETS_MAX: usize = (LAST_SOCKET - FIRST_SOCKET + 1) as usize;

/// The sockets that were handed to this process; `None` if none were.
///
/// To be called once, before anything is opened: the numbers say which descriptors are meant.
///
/// # Errors
/// What was handed over is not what can be served.
pub fn sockets() -> Result<Option<Vec<OwnedFd>>, Failure> {
    let variable = |name| env::var(name).ok();
    let count = handed_over(
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_PID").as_deref(),
        getpid(),
    )?;
    if count == 0 {
        return Ok(None);
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let take = |number| {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("without a name");
        take(number).map_err(|problem| wrong(&format!("socket {number} ({name}) {problem}")))
    };
    (FIRST..).take(count).map(take).collect::<Result<_, _>>().map(Some)
}

/// How many descriptors the environment says were handed to process `own`.
fn handed_over(count: Option<&str>, process: Option<&str>, own: Pid) -> Result<usize, Failure> {
    let (Some(count), Some(process)) = (count, process) else { return Ok(0) };
    if process != own.to_string() {
        return Ok(0);
    }
    match count.parse() {
        Ok(count) if count <= SOCKETS_MAX => Ok(count),
        _ => Err(wrong(&format!("LISTEN_FDS is {count:?}, and not a number up to {SOCKETS_MAX}"))),
    }
}

fn wrong(problem: &str) -> Failure {
    let message = format!(
        "from the service manager: {problem}; the socket unit needs ListenStream= with an address \
         of the internet, and Accept=no"
    );
    Failure::new(Exit::Config, message)
}

/// Takes one, checks it, and makes it what `prepare::bind` makes of its own.
fn take(number: RawFd) -> Result<OwnedFd, String> {
    let system = |cause: Errno| cause.desc().to_owned();
    let socket = sys::fd::own(number).map_err(|_| "is not open")?;
    sys::fd::set_inherited(&socket, false).map_err(system)?;
    match getsockopt(&socket, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        Err(Errno::ENOTSOCK) => return Err("is no socket".into()),
        _ => return Err("is no stream".into()),
    }
    if door::bound(&socket).is_none_or(|address| address.port() == 0) {
        return Err("is not bound to an address of the internet".into());
    }
    // One that was paused when its service was killed does not listen any more: it will again.
    if getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok() {
        return Err("is a connection, and does not listen".into());
    }
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).map_err(system)?;
    prepare::tune(&socket).map_err(system)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_to_this_process_is_taken() {
        let own = Pid::from_raw(7);
        let count = |count, process| handed_over(count, process, own).map_err(|f| f.exit);
        assert_eq!(count(Some("2"), Some("7")), Ok(2));
        assert_eq!(count(Some("2"), Some("8")), Ok(0));
        assert_eq!(count(Some("2"), None), Ok(0));
        assert_eq!(count(None, Some("7")), Ok(0));
        for odd in ["", "-1", "17", "two", "99999999999999999999"] {
            assert_eq!(count(Some(odd), Some("7")), Err(Exit::Config), "{odd:?}");
        }
    }
}
