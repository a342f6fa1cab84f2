//! The launcher's journal: everyone's log lines, to syslog and, in the foreground, to stderr.
//!
//! The roles write lines into one pipe; nothing in them is believed. The `syslog` crate connects
//! once, so this module rebuilds the connection when sending fails: the system's logger may be
//! restarted under us. A logger that does not take its messages never makes the launcher wait.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use syslog::{LogFormat, Logger, LoggerBackend};

use crate::config::{Facility, Syslog};
use crate::daemon::channel::report::{self, Severity};
use crate::visible::visible;

/// Where the system's logger listens, by system.
pub const SOCKETS: [&str; 2] = ["/dev/log", "/var/run/log"];
/// How long a logger that is not there is left alone.
const REST: Duration = Duration::from_secs(5);
/// How much of a line without an end is kept.
const PARTIAL_MAX: usize = 4 * report::LINE_MAX;

/// Lines of the roles that are written at once, and how many more each second.
const BURST: u32 = 200;
const PER_SECOND: u32 = 50;

/// What the roles may still write.
struct Allowance {
    lines: u32,
    counted: Instant,
    dropped: u64,
}

impl Allowance {
    fn refill(&mut self, now: Instant) {
        let more = now.duration_since(self.counted).as_millis() * u128::from(PER_SECOND) / 1000;
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(BURST);
            self.lines = self.lines.saturating_add(more).min(BURST);
            self.counted = now;
        }
    }

    /// Whether one more line may be written.
    fn take(&mut self) -> bool {
        let left = self.lines.checked_sub(1);
        self.lines = left.unwrap_or(0);
        self.dropped += u64::from(left.is_none());
        left.is_some()
    }
}

/// Where log lines go.
pub struct Journal {
    settings: Syslog,
    zone: TimeZone,
    logger: Option<Logger<LoggerBackend, Format>>,
    rest: Option<Instant>,
    lost: u64,
    stderr: bool,
    partial: Vec<u8>,
    allowance: Allowance,
}

/// RFC 3164 as syslog(3) writes it; the crate's own formatter may panic where the local time is
/// not to be had.
#[derive(Clone)]
struct Format {
    facility: syslog::Facility,
    zone: TimeZone,
    pid: u32,
}

impl<T: Display> LogFormat<T> for Format {
    fn format<W: Write>(
        &self,
        w: &mut W,
        severity: syslog::Severity,
        line: T,
    ) -> syslog::Result<()> {
        let priority = self.facility as u8 | severity as u8;
        let now = Timestamp::now().to_zoned(self.zone.clone());
        let stamp = now.strftime("%b %e %H:%M:%S");
        write!(w, "<{priority}>{stamp} papayad[{}]: {line}", self.pid).map_err(syslog::Error::Write)
    }
}

impl Journal {
    /// Opens the journal; a missing logger is no error, for a container may have none.
    pub fn open(settings: &Syslog) -> Self {
        Self {
            settings: settings.clone(),
            zone: TimeZone::system(),
            logger: None,
            rest: None,
            lost: 0,
            // Under systemd stderr is the journal, which gets the same lines from syslog.
            stderr: std::env::var_os("JOURNAL_STREAM").is_none()
                || settings.facility == Facility::None,
            partial: Vec::new(),
            allowance: Allowance { lines: BURST, counted: Instant::now(), dropped: 0 },
        }
    }

    /// Takes over a changed facility or level.
    pub fn change(&mut self, settings: &Syslog) {
        self.settings = settings.clone();
        self.logger = None;
        self.rest = None;
    }

    /// Writes one line of the launcher's own, or of another role.
    pub fn line(&mut self, severity: Severity, text: &str) {
        if severity > self.settings.level {
            return;
        }
        let text = visible(text);
        // A pipe that says it has room has it for a whole line (poll(2), pipe(7)).
        if self.stderr && has_room(std::io::stderr().as_fd()) {
            let _ = writeln!(std::io::stderr(), "papayad: {text}");
        }
        self.syslog(severity, &text);
    }

    fn syslog(&mut self, severity: Severity, text: &str) {
        if self.settings.facility == Facility::None
            || self.rest.is_some_and(|end| end > Instant::now())
        {
            self.lost += 1;
            return;
        }
        // A broken connection is noticed by the first line that does not go through: once more.
        for _ in 0..2 {
            if self.logger.is_none() {
                self.logger = self.connect();
            }
            let Some(logger) = &mut self.logger else { break };
            if write_line(logger, severity, text).is_ok() {
                return self.confess();
            }
            self.logger = None;
        }
        self.lost += 1;
        self.rest = Some(Instant::now() + REST);
    }

    /// Says in syslog how much is missing there.
    fn confess(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0
            && self.rest.take().is_some()
            && let Some(logger) = &mut self.logger
        {
            let text = format!("launcher: {lost} lines before this one are missing here");
            let _ = write_line(logger, Severity::Warning, &text);
        }
    }

    fn connect(&self) -> Option<Logger<LoggerBackend, Format>> {
        let format = Format {
            facility: facility(self.settings.facility)?,
            zone: self.zone.clone(),
            pid: std::process::id(),
        };
        let logger = match &self.settings.socket {
            None => syslog::unix(format).ok()?,
            Some(path) => syslog::unix_custom(format, path).ok()?,
        };
        let socket = match &logger.backend {
            LoggerBackend::Unix(socket) => socket.as_fd(),
            LoggerBackend::UnixStream(socket) => socket.get_ref().as_fd(),
            _ => return None,
        };
        // Not the standard library's way, which is ioctl(2).
        fcntl(socket, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).ok()?;
        Some(logger)
    }

    /// When it can be said that lines were dropped, if some were.
    pub fn next_due(&self) -> Option<Instant> {
        let line = Duration::from_millis(1 + 1000 / u64::from(PER_SECOND));
        (self.allowance.dropped > 0).then(|| self.allowance.counted + line)
    }

    /// Writes what the roles have put into the pipe.
    pub fn drain(&mut self, pipe: &OwnedFd) {
        self.allowance.refill(Instant::now());
        if self.allowance.lines > 0 && self.allowance.dropped > 0 {
            let dropped = std::mem::take(&mut self.allowance.dropped);
            let text = format!("launcher: {dropped} lines of the processes were dropped");
            self.line(Severity::Warning, &text);
        }
        let mut buffer = [0u8; 16 << 10];
        // Bounded: roles that write faster than this reads lose lines, not the service.
        for _ in 0..16 {
            match nix::unistd::read(pipe, &mut buffer) {
                Ok(length) if length > 0 => self.take(&buffer[..length]),
                _ => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) if self.partial.is_empty() => self.role_line(end),
                Some(end) => {
                    let mut line = std::mem::take(&mut self.partial);
                    line.extend_from_slice(end);
                    self.role_line(&line);
                }
                None => self.partial.extend_from_slice(part),
            }
            if self.partial.len() > PARTIAL_MAX {
                let line = std::mem::take(&mut self.partial);
                self.role_line(&line);
            }
        }
    }

    fn role_line(&mut self, line: &[u8]) {
        let (severity, text) = report::parse(line);
        if !text.is_empty() && severity <= self.settings.level && self.allowance.take() {
            self.line(severity, &text);
        }
    }
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    matches!(poll(&mut fds, 0u8), Ok(1..)) && crate::sys::signal::writable(&fds[0])
}

fn write_line(
    logger: &mut Logger<LoggerBackend, Format>,
    severity: Severity,
    text: &str,
) -> syslog::Result<()> {
    match severity {
        Severity::Error => logger.err(text),
        Severity::Warning => logger.warning(text),
        Severity::Notice => logger.notice(text),
        Severity::Info => logger.info(text),
        Severity::Debug => logger.debug(text),
    }
}

fn facility(facility: Facility) -> Option<syslog::Facility> {
    use syslog::Facility as F;
    Some(match facility {
        Facility::Daemon => F::LOG_DAEMON,
        Facility::Auth => F::LOG_AUTH,
        Facility::User => F::LOG_USER,
        Facility::Local(0) => F::LOG_LOCAL0,
        Facility::Local(1) => F::LOG_LOCAL1,
        Facility::Local(2) => F::LOG_LOCAL2,
        Facility::Local(3) => F::LOG_LOCAL3,
        Facility::Local(4) => F::LOG_LOCAL4,
        Facility::Local(5) => F::LOG_LOCAL5,
        Facility::Local(6) => F::LOG_LOCAL6,
        Facility::Local(_) => F::LOG_LOCAL7,
        Facility::None => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn journal(socket: &std::path::Path) -> Journal {
        let settings = Syslog { socket: Some(socket.to_owned()), ..Syslog::default() };
        Journal { stderr: false, ..Journal::open(&settings) }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_restarted_syslog_gets_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = UnixDatagram::bind(&path).unwrap();
        let mut journal = journal(&path);
        journal.line(Severity::Info, "recv alice 192.0.2.1:5: joined");
        let line = received(&first);
        assert!(line.starts_with("<30>"), "{line}");
        assert!(line.ends_with("recv alice 192.0.2.1:5: joined"), "{line}");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        journal.line(Severity::Error, "still here");
        assert!(received(&second).ends_with("still here"));
    }

    #[test]
    fn a_syslog_that_was_away_is_told_how_much_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut journal = journal(&path);
        journal.line(Severity::Info, "one");
        journal.line(Severity::Info, "two");
        journal.rest = Some(Instant::now());
        let socket = UnixDatagram::bind(&path).unwrap();
        journal.line(Severity::Info, "three");
        assert!(received(&socket).ends_with("three"));
        assert!(received(&socket).ends_with("2 lines before this one are missing here"));
    }

    #[test]
    fn a_roles_words_cannot_forge_lines_or_control_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut journal = journal(&path);
        journal.take(b"<6>recv: \x1b[2J ev");
        journal.take(b"il\n<5>next\n");
        let line = received(&socket);
        assert!(!line.contains('\x1b'), "{line:?}");
        assert!(line.ends_with("evil"), "{line:?}");
        assert!(received(&socket).ends_with("next"));
    }

    #[test]
    fn roles_that_write_without_end_are_cut_and_the_launcher_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut journal = journal(&path);
        journal.allowance.lines = 2;
        assert_eq!(journal.next_due(), None);
        journal.take(&b"<5>noise\n".repeat(5));
        journal.line(Severity::Info, "launcher: goes on");
        for expected in ["noise", "noise", "launcher: goes on"] {
            assert!(received(&socket).ends_with(expected));
        }
        // It is said as soon as it can be, though nobody says anything more.
        let due = journal.next_due().unwrap();
        assert!(due <= Instant::now() + Duration::from_millis(25));
        journal.allowance.counted -= Duration::from_secs(3600);
        let (pipe, end) = nix::unistd::pipe().unwrap();
        drop(end);
        journal.drain(&pipe);
        assert!(received(&socket).ends_with("launcher: 3 lines of the processes were dropped"));
        assert_eq!((journal.allowance.lines, journal.next_due()), (BURST, None));
    }

    #[test]
    fn a_line_that_never_ends_takes_bounded_memory() {
        let mut journal = journal(std::path::Path::new("/nonexistent"));
        for _ in 0..1000 {
            journal.take(&[b'x'; 1000]);
            assert!(journal.partial.len() <= PARTIAL_MAX + 1000);
        }
    }
}
