//! SEND: one client's ear. Sends the log to the client, as it stands, from where the client wants.
//!
//! Forked from RECV once the token is good. Holds the send key, the log read-only, and the client's
//! socket; SIGUSR1 is the bell. It drains the log to its end before it waits, and the bell is
//! blocked except inside the wait: no wake-up is lost. Its memory is one frame, however far the
//! client is behind: the log is the buffer.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;

use super::channel::recv_send::ToSend;
use super::channel::report::Reporter;
use super::channel::{Channel, ChannelError};
use super::start::{self, StartError};
use crate::config::Sandbox;
use crate::confine::{self, Filter, Role, policy};
use crate::room::log::{Reader, ReaderFds};
use crate::room::offset::Offset;
use crate::sys::{self, signal};
use crate::wire::cipher::Sealer;
use crate::wire::event::{CONTROL, Event, LOG_HEADER, MAX_LOG, log_header};
use crate::wire::frame::{HEADER, MAX_PLAINTEXT, TAG};

/// How long the last word may take to leave.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The most bytes of the log in one frame. Less than there could be: a frame is of use to the
/// client only when it is whole, and one whose connection breaks often shall get on, too.
const FRAME_LOG: usize = 16 << 10;

/// What SEND starts with, besides the descriptors of its table.
pub struct Start {
    /// The client's name and address.
    pub label: String,
    /// RECV's process id.
    pub parent: Pid,
    /// Where in the log the client begins.
    pub from: Offset,
    /// Where the log itself begins.
    pub floor: Offset,
    /// The key of the direction to the client.
    pub sealer: Sealer,
    /// What the client is told first.
    pub welcome: Event,
    /// How much confinement the operator accepts.
    pub sandbox: Sandbox,
    /// Its filter.
    pub filter: Filter,
}

/// Why SEND ends.
enum End {
    /// The client, or RECV, is gone.
    Gone,
    /// The last word was said.
    Told,
    /// Something here failed.
    Failed(StartError),
}

impl From<StartError> for End {
    fn from(e: StartError) -> Self {
        Self::Failed(e)
    }
}

struct Send {
    client: OwnedFd,
    recv: Channel,
    log: Reader,
    /// Whether the reader is in a part that was removed.
    pruned: bool,
    sealer: Sealer,
    frame: Vec<u8>,
    /// The last word, once RECV or SIGTERM gave it, and until when it may take to leave.
    last: Option<(String, Instant)>,
}

/// SEND's life, in a process forked for it.
pub fn run(start: Start) -> Infallible {
    let report = Reporter::new(format!("send {}", start.label));
    let end = match Send::begin(start) {
        Ok((mut send, welcome)) => match send.serve(welcome) {
            Ok(never) => match never {},
            Err(end) => end,
        },
        Err(problem) => End::Failed(problem),
    };
    match end {
        End::Gone | End::Told => sys::process::exit_now(0),
        End::Failed(problem) => {
            report.error(problem);
            sys::process::exit_now(70)
        }
    }
}

/// Closes what is RECV's.
fn close(foreign: &[RawFd]) -> Result<(), StartError> {
    for fd in foreign {
        drop(sys::fd::own(*fd)?);
    }
    Ok(())
}

impl Send {
    fn begin(start: Start) -> Result<(Self, Event), StartError> {
        use policy::send::{CLIENT, GATE, LOG, RECV};
        let title = format!("send {}", start.label);
        start::begin(&title, &[Signal::SIGUSR1, Signal::SIGTERM], &[], start.parent)?;
        {
            use policy::recv::{GATE, LOG_APPEND, LOG_TAIL, SEND};
            close(&[LOG_APPEND, GATE, LOG_TAIL, SEND])?;
        }
        let reader = ReaderFds { log: sys::fd::own(LOG)?, gate: sys::fd::own(GATE)? };
        let send = Self {
            client: sys::fd::own(CLIENT)?,
            recv: Channel::from_fd(sys::fd::own(RECV)?),
            log: Reader::new(reader, start.from).with_floor(start.floor),
            pruned: false,
            sealer: start.sealer,
            frame: vec![0; HEADER + MAX_PLAINTEXT + TAG],
            last: None,
        };
        confine::enter_with(Role::Send, &start.sandbox.context(), start.filter)?;
        // Only now, so that nothing that was opened since took their places.
        close(&[policy::recv::KEEPER, policy::recv::BELL])?;
        Ok((send, start.welcome))
    }

    fn serve(&mut self, welcome: Event) -> Result<Infallible, End> {
        self.control(&welcome.encode())?;
        // The welcome has the ticket, of which JSON and cipher leave pieces on the stack.
        drop(welcome);
        sys::memory::give_back();
        let floor = self.log.floor();
        if self.log.position() < floor {
            self.go_on_at(floor)?;
        }
        loop {
            // The bell's flag is cleared before the log is drained, so a ring that comes after
            // the last read is still seen: by the wait, or, if it came while a frame waited for
            // the client, by the flag. So is a SIGTERM that came then.
            signal::take(Signal::SIGUSR1);
            while self.log_bytes()? && self.log.is_behind() {
                self.hear_recv()?;
            }
            let woken = self.last.is_some() || signal::pending(Signal::SIGUSR1);
            if woken || self.wait(PollFlags::empty())? {
                self.hear_recv()?;
            }
        }
    }

    /// Sends what one read of the log gives; says whether there was anything.
    fn log_bytes(&mut self) -> Result<bool, End> {
        let most = if self.pruned { MAX_LOG } else { FRAME_LOG };
        let room = &mut self.frame[HEADER + LOG_HEADER..HEADER + LOG_HEADER + most];
        let read = self.log.read(room).map_err(|e| End::Failed(StartError::Log(e)))?;
        let Some((offset, length)) = read else { return Ok(false) };
        if self.pruned || self.frame[HEADER + LOG_HEADER] == 0 {
            self.pruned = self.log.begins_pruned().map_err(|e| End::Failed(StartError::Log(e)))?;
        }
        if self.pruned {
            self.pass_over(offset, length)?;
            return Ok(true);
        }
        self.frame[HEADER..HEADER + LOG_HEADER].copy_from_slice(&log_header(offset));
        self.seal_and_send(LOG_HEADER + length)?;
        Ok(true)
    }

    /// What was read is a part that was removed before the client had it: nothing of it is sent.
    fn pass_over(&mut self, offset: Offset, length: usize) -> Result<(), End> {
        let read = &self.frame[HEADER + LOG_HEADER..][..length];
        match read.iter().position(|&b| b == b'\n') {
            Some(end) => self.go_on_at(offset.plus(end + 1)),
            None => Ok(()),
        }
    }

    /// Tells the client that there is nothing before `to`, where a line begins.
    fn go_on_at(&mut self, to: Offset) -> Result<(), End> {
        self.pruned = false;
        self.log.seek(to);
        self.control(&Event::Pruned { to }.encode())
    }

    fn control(&mut self, text: &str) -> Result<(), End> {
        let length = 1 + text.len();
        if length > MAX_PLAINTEXT {
            return Err(End::Gone);
        }
        self.frame[HEADER] = CONTROL;
        self.frame[HEADER + 1..HEADER + length].copy_from_slice(text.as_bytes());
        self.seal_and_send(length)
    }

    /// Seals the frame's first `length` bytes of text and sends the frame to its end: what is
    /// begun must be finished, or the client could not read what follows.
    fn seal_and_send(&mut self, length: usize) -> Result<(), End> {
        let length = self.sealer.seal(&mut self.frame, length).map_err(|_| End::Gone)?;
        let mut sent = 0;
        while sent < length {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.client.as_raw_fd(), &self.frame[sent..length], flags) {
                Ok(bytes) => sent += bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.wait(PollFlags::POLLOUT)?;
                }
                Err(_) => return Err(End::Gone),
            }
        }
        Ok(())
    }

    /// Sleeps until the bell rings, RECV speaks, or (if asked for) the client takes bytes again;
    /// whether RECV has something to say, or a last word is due.
    fn wait(&mut self, client: PollFlags) -> Result<bool, End> {
        let limit =
            self.last.as_ref().map(|(_, end)| end.saturating_duration_since(Instant::now()));
        if limit.is_some_and(|l| l.is_zero()) {
            return Err(End::Told);
        }
        // For `papayad status`.
        self.log.show_position();
        // While a frame is under way, RECV's messages wait; its end is seen all the same.
        let recv = if client.is_empty() { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds =
            [PollFd::new(self.recv.as_fd(), recv), PollFd::new(self.client.as_fd(), client)];
        let fds = if client.is_empty() { &mut fds[..1] } else { &mut fds[..] };
        signal::wait(fds, limit).map_err(StartError::from)?;
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        if fds[0].revents().is_some_and(|r| r.intersects(gone) && !r.contains(PollFlags::POLLIN)) {
            return Err(End::Gone);
        }
        if signal::take(Signal::SIGTERM) && self.last.is_none() {
            let bye = super::recv::shutdown_bye();
            self.last = Some((bye.encode().to_string(), Instant::now() + LAST_WORD));
        }
        Ok(self.last.is_some() || signal::ready(&fds[0]))
    }

    /// Delivers RECV's control lines; ends after the last one.
    fn hear_recv(&mut self) -> Result<(), End> {
        loop {
            if let Some((text, _)) = self.last.clone() {
                self.control(&text)?;
                return Err(End::Told);
            }
            match &self.recv.receive::<ToSend>() {
                Ok(ToSend::Control(text)) => self.control(text)?,
                Ok(ToSend::Last(text)) => {
                    self.last = Some((text.clone(), Instant::now() + LAST_WORD));
                }
                Err(ChannelError::WouldBlock) => return Ok(()),
                Err(_) => return Err(End::Gone),
            }
        }
    }
}
