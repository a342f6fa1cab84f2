//! The service manager: what the launcher tells it, as sd_notify(3) says. Without one in the
//! environment nothing here does anything.
//!
//! The environment is read once, before the first fork. The socket is connected while the launcher
//! can still reach every path, and kept, so that its confinement needs no way to it. Nothing that
//! the launcher starts gets the variables or the socket: RECV starts with an environment of its
//! own, keeper and listener lose theirs with their first title, and all close what is not in their table.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getpid};

/// How long the manager may take to take a message that must not be lost. It has the right to keep
/// us waiting: it is what started us.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two texts about the service's state.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// The way to the service manager.
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// Half the time after which the manager takes a silent service for dead, and when it is over.
    watchdog: Option<(Duration, Instant)>,
    status: Status,
}

/// The text that `systemctl status` shows.
struct Status {
    told: String,
    next: Instant,
    stale: bool,
}

impl Manager {
    /// What the environment says; and what is wrong with it, for the log.
    pub fn from_environment() -> (Self, Option<String>) {
        let status = Status { told: String::new(), next: Instant::now(), stale: false };
        let mut manager = Self { socket: None, watchdog: None, status };
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return (manager, None);
        };
        match connect(&name) {
            Ok(socket) => manager.socket = Some(socket),
            Err(cause) => {
                let problem = format!(
                    "the service manager's socket ({}) is of no use: {cause}",
                    name.display()
                );
                return (manager, Some(problem));
            }
        }
        let variable = |name| env::var(name).ok();
        manager.watchdog = watchdog_pause(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            getpid(),
        )
        .map(|pause| (pause, Instant::now() + pause));
        (manager, None)
    }

    /// The service goes on in another process than the one that the manager started.
    pub fn main_process(&self, pid: Pid) {
        self.tell(&format!("MAINPID={pid}"), true);
    }

    /// The service serves, for the first time or after a reload.
    pub fn ready(&mut self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)), true);
        self.status_was_told(status);
    }

    /// The configuration is read again; [`Manager::ready`] follows.
    pub fn reloading(&self) {
        // The manager tells this reload from an earlier one by the time.
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return };
        let microseconds = Duration::from(now).as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"), true);
    }

    /// The service ends, and why.
    pub fn stopping(&mut self, why: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", one_line(why)), true);
        self.status.stale = false;
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1", false);
    }

    /// Whether it is time to find out if the service is alive; asked again after the next pause.
    pub fn watchdog_is_due(&mut self) -> bool {
        let now = Instant::now();
        match &mut self.watchdog {
            Some((pause, due)) if *due <= now => {
                *due = now + *pause;
                true
            }
            _ => false,
        }
    }

    /// What the status says has changed.
    pub fn status_changed(&mut self) {
        self.status.stale = self.socket.is_some();
    }

    /// Tells how things stand, if that has changed: at most once a second, since a room may fill
    /// faster than anybody can read.
    pub fn tell_status(&mut self, compose: impl FnOnce() -> String) {
        if !self.status.stale || self.status.next > Instant::now() {
            return;
        }
        let status = compose();
        if status == self.status.told || self.tell(&format!("STATUS={}", one_line(&status)), false)
        {
            self.status_was_told(&status);
        } else {
            // Once more, when the manager has read some of what waits for it.
            self.status.next = Instant::now() + STATUS_PAUSE;
        }
    }

    /// What has changed need not be told.
    pub fn pass_over_status(&mut self) {
        self.status.stale = false;
    }

    /// When the next word to the manager is due.
    pub fn next_due(&self) -> Option<Instant> {
        let status = self.status.stale.then_some(self.status.next);
        self.watchdog.map(|(_, due)| due).into_iter().chain(status).min()
    }

    fn status_was_told(&mut self, status: &str) {
        let next = Instant::now() + STATUS_PAUSE;
        self.status = Status { told: status.to_owned(), next, stale: false };
    }

    /// Whether it was sent, or nobody wants it. A service does not depend on being watched: most of
    /// what cannot be sent is lost.
    fn tell(&self, message: &str, patiently: bool) -> bool {
        let Some(socket) = &self.socket else { return true };
        let wait = if patiently { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        send(socket.as_raw_fd(), message.as_bytes(), wait | MsgFlags::MSG_NOSIGNAL).is_ok()
    }
}

/// A value in a message ends with its line.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes() {
        [b'/', ..] => socket.connect(name)?,
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.connect_addr(&address)?;
        }
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    }
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How often the manager wants a sign of life from this process: twice in its limit, as
/// sd_watchdog_enabled(3) recommends.
fn watchdog_pause(limit: Option<&str>, process: Option<&str>, own: Pid) -> Option<Duration> {
    if process.is_some_and(|pid| pid != own.to_string()) {
        return None;
    }
    let limit: u64 = limit?.parse().ok().filter(|limit| *limit > 0)?;
    Some(Duration::from_micros(limit / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_in_its_limit_by_the_process_that_is_meant() {
        let own = Pid::from_raw(7);
        let second = Some(Duration::from_millis(500));
        assert_eq!(watchdog_pause(Some("1000000"), None, own), second);
        assert_eq!(watchdog_pause(Some("1000000"), Some("7"), own), second);
        assert_eq!(watchdog_pause(Some("1000000"), Some("8"), own), None);
        for odd in ["", "0", "-1", "soon"] {
            assert_eq!(watchdog_pause(Some(odd), Some("7"), own), None, "{odd:?}");
        }
        assert_eq!(watchdog_pause(None, Some("7"), own), None);
        // However short: never as often as the loop can go round.
        assert_eq!(watchdog_pause(Some("1"), None, own), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_status_that_the_manager_had_no_room_for_is_told_once_there_is() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let status = Status { told: String::new(), next: Instant::now(), stale: false };
        let mut manager = Manager { socket: Some(ours), watchdog: None, status };
        while manager.tell("WATCHDOG=1", false) {}
        manager.status_changed();
        manager.tell_status(|| "1 client".into());
        let mut buffer = [0; 64];
        while let Ok(length) = theirs.recv(&mut buffer) {
            assert_eq!(&buffer[..length], b"WATCHDOG=1");
        }
        assert!(manager.next_due().is_some(), "nobody will tell it");
        // As if the pause was over.
        manager.status.next = Instant::now();
        manager.tell_status(|| "1 client".into());
        let length = theirs.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STATUS=1 client");
        assert_eq!(manager.next_due(), None);
    }

    #[test]
    fn a_text_of_several_lines_cannot_say_more_than_a_status() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let status = Status { told: String::new(), next: Instant::now(), stale: false };
        let mut manager = Manager { socket: Some(ours), watchdog: None, status };
        manager.stopping("no\nMAINPID=1");
        let mut buffer = [0; 64];
        let length = theirs.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1\nSTATUS=no MAINPID=1");
    }
}
