//! A session in a room: the engine under every command. It keeps one connection alive (again and
//! again if it must), turns log bytes into records, and sees to it that each of the client's own
//! messages is stored exactly once. One thread, one `poll`; the caller may add a descriptor of its
//! own (its input) to the wait.
//!
//! Exactly once: a message is kept until its echo is seen in the log. After a lost connection the
//! session resumes from the end of the last whole line, and the server has ended the previous
//! connection before it answers, so everything that will ever be stored of it stands below
//! `welcome.end`. Once that is read, whatever has no echo was not stored, and is sent again.

use std::collections::VecDeque;
use std::fmt;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::address::ServerAddress;
use super::backoff::Backoff;
use super::dial::Dial;
use super::lines::{Gap, Lines};
use super::link::Link;
use super::outbox::{Manner, Outbox, Pending};
use super::trouble::Trouble;
use crate::exit::{Exit, Failure};
use crate::room::offset::Offset;
use crate::room::record::Record;
use crate::ticket::Ticket;
use crate::token::{Name, Token};
use crate::visible::visible;
use crate::wire::command::{Command, Credential, Join, MessageId, SessionId, Start};
use crate::wire::event::{Event, Plaintext, Refusal, Rejection, Welcome};
use crate::wire::hex;

/// What this program calls itself in its join.
const CLIENT: &str = concat!("papaya/", env!("CARGO_PKG_VERSION"));
/// How long an orderly leave waits for the server's answer.
const FAREWELL: Duration = Duration::from_secs(2);
/// A connection that lived so long was a good one: after it, waits begin short again.
const STEADY: Duration = Duration::from_secs(30);
/// However short a ticket's life is, a new one is not asked for more often.
const RENEW_AT_MOST_EVERY: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The patience of a session. The defaults are for people; tests are in a hurry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where in the log to begin.
    pub start: Start,
    /// How long one address of the server may take to answer a connection attempt.
    pub connect_within: Duration,
    /// How long hello, handshake and join may take together.
    pub join_within: Duration,
    /// How often the server is asked whether it is there.
    pub ping_every: Duration,
    /// How long it may then say nothing at all.
    pub patience: Duration,
    /// How waits between attempts grow.
    pub backoff: Backoff,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start: Start::End,
            connect_within: Duration::from_secs(10),
            join_within: Duration::from_secs(30),
            ping_every: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// Something the caller may want to show.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The server let us in; see [`Session::welcome`].
    Joined {
        /// Not the first time.
        again: bool,
    },
    /// A record of the log. Lines that are not records are left out.
    Line {
        /// Where the line begins.
        offset: Offset,
        /// The line as it stands in the log, without its line end.
        line: Vec<u8>,
        /// What it means.
        record: Record,
    },
    /// The log has nothing between the two offsets any more: an administrator removed it.
    Pruned {
        /// What came last ended there.
        from: Offset,
        /// The log goes on there.
        to: Offset,
    },
    /// One of our own messages may have been stored in a part of the log that was removed before
    /// its echo came. It is forgotten, because sending it again could store it twice.
    Uncertain {
        /// The message.
        pending: Pending,
    },
    /// Everything has been read that was in the log when the server let us in.
    CaughtUp,
    /// One of our own messages is in the log; its [`Self::Line`] came just before.
    Acknowledged {
        /// Its id.
        id: MessageId,
    },
    /// The server will not store one of our own messages; it is forgotten.
    Rejected {
        /// The message.
        pending: Pending,
        /// Why, for a program.
        reason: Rejection,
        /// Why, for a person; hostile text.
        message: String,
    },
    /// The server cannot store anything at the moment; it is asked again after a while.
    Stalled {
        /// Why, for a person; hostile text.
        message: String,
    },
    /// There is no connection; the next attempt is made after `wait`.
    Lost {
        /// Why.
        why: String,
        /// How long until the next attempt.
        wait: Duration,
        /// How many attempts have failed since it was lost; 0 for the loss itself.
        failed: u32,
    },
}

/// Why [`Session::step`] returned.
#[derive(Debug)]
pub enum Step {
    /// Something happened. Ask again: there may be more.
    Happened(Happening),
    /// The caller's descriptor has something to read (or is closed).
    Woken,
    /// The caller's time is over.
    TimedOut,
}

/// A session. Dropping it closes the connection; [`Session::leave`] says good-bye first.
pub struct Session {
    server: ServerAddress,
    token: Token,
    id: SessionId,
    options: Options,
    state: State,
    welcome: Option<Welcome>,
    ticket: Option<Ticket>,
    /// When to ask for a fresh ticket.
    renew_at: Option<Instant>,
    lines: Lines,
    /// When the welcome came on this connection.
    joined_at: Option<Instant>,
    caught_up: bool,
    outbox: Outbox,
    /// Nothing is sent until then, because the server had no space.
    hold_until: Option<Instant>,
    backoff: Backoff,
    storage_backoff: Backoff,
    failed: u32,
    happened: VecDeque<Happening>,
    woken: bool,
    leaving: bool,
    message_prefix: String,
    messages: u64,
    pings: u64,
}

enum State {
    /// Not connected; the next attempt is due then.
    Waiting(Instant),
    /// A TCP connection is being opened.
    Dialling(Dial),
    /// Connected; the welcome must have come by then.
    Joining { link: Link, deadline: Instant },
    /// In the room.
    Joined { link: Link, heard: Instant, ping_at: Instant, pinged: Option<Instant> },
    /// It is over.
    Left,
}

impl Session {
    /// Connects, checks the server's key, and joins. Does not try again: what is wrong at first is
    /// likely to stay so, and a person or a script should hear of it at once.
    ///
    /// # Errors
    /// A [`Failure`] with its own sentence and exit code for each kind of [`Trouble`].
    pub fn connect(server: ServerAddress, token: Token, options: Options) -> Result<Self, Failure> {
        let mut session = Self::new(server, token, options)?;
        while session.welcome.is_none() {
            session.wait(None, None)?;
        }
        Ok(session)
    }

    fn new(server: ServerAddress, token: Token, options: Options) -> Result<Self, Failure> {
        let mut id = SessionId([0; 16]);
        let mut prefix = [0; 8];
        fill_random(&mut id.0)?;
        fill_random(&mut prefix)?;
        Ok(Self {
            server,
            token,
            id,
            state: State::Waiting(Instant::now()),
            welcome: None,
            ticket: None,
            renew_at: None,
            lines: Lines::default(),
            joined_at: None,
            caught_up: false,
            outbox: Outbox::default(),
            hold_until: None,
            backoff: options.backoff,
            storage_backoff: options.backoff,
            options,
            failed: 0,
            happened: VecDeque::new(),
            woken: false,
            leaving: false,
            message_prefix: hex::encode(&prefix).to_string(),
            messages: 0,
            pings: 0,
        })
    }

    /// What the server said when it last let us in.
    pub fn welcome(&self) -> &Welcome {
        // `connect` does not return a session without one.
        self.welcome.as_ref().unwrap_or_else(|| unreachable!("a session has been welcomed"))
    }

    /// The server's address.
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Whether there is a connection and a welcome on it.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Joined { .. })
    }

    /// Whether everything has been read that was in the log when the server let us in.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// The end of the last whole line that came: where another session would resume.
    pub fn position(&self) -> Offset {
        self.lines.position()
    }

    /// Whether [`Self::say`] may be called; when it may not, ask again after an acknowledgement.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// The own messages that are not acknowledged yet, oldest first.
    pub fn unacknowledged(&self) -> &Outbox {
        &self.outbox
    }

    /// Takes a message over, to be stored exactly once however often the connection breaks.
    ///
    /// # Errors
    /// [`TextError`] when the room cannot take this text; nothing is queued then.
    pub fn say(&mut self, manner: Manner, text: String) -> Result<MessageId, TextError> {
        let limit = self.welcome().message_bytes;
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        if text.len() > limit as usize {
            return Err(TextError::TooLong { bytes: text.len(), limit });
        }
        let id = format!("{}-{}", self.message_prefix, self.messages);
        let id: MessageId = id.parse().map_err(|_| TextError::Nul)?;
        if text.contains('\0') {
            return Err(TextError::Nul);
        }
        self.messages += 1;
        self.outbox.push(id.clone(), manner, text);
        Ok(id)
    }

    /// What has happened already and was not told yet, without waiting.
    pub fn take(&mut self) -> Option<Happening> {
        self.happened.pop_front()
    }

    /// Waits until something happens, until `wake` can be read, or until `until`.
    ///
    /// # Errors
    /// A [`Failure`] when it is over for good. A lost connection is not a failure.
    pub fn step(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<Step, Failure> {
        loop {
            if std::mem::take(&mut self.woken) {
                return Ok(Step::Woken);
            }
            if let Some(happening) = self.happened.pop_front() {
                return Ok(Step::Happened(happening));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Step::TimedOut);
            }
            self.wait(wake, until)?;
        }
    }

    /// Says good-bye, and waits a moment for the answer; a server that is gone is not waited for.
    /// What happens meanwhile is not told.
    pub fn leave(mut self) {
        self.leaving = true;
        if let State::Joined { link, .. } = &mut self.state {
            link.push(&Command::Bye.encode());
        }
        let until = Instant::now() + FAREWELL;
        while self.is_connected() && Instant::now() < until {
            if self.wait(None, Some(until)).is_err() {
                break;
            }
            self.happened.clear();
        }
    }

    /// One round: what is due by the clock, one poll, what the socket has.
    fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<(), Failure> {
        let round = match self.tick(Instant::now()) {
            Ok(()) => {
                let (socket, woken) = self.poll(wake, until)?;
                self.woken |= woken;
                self.serve(socket)
            }
            trouble => trouble,
        };
        round.or_else(|trouble| self.overcome(trouble))
    }

    /// Does what the clock asks for, and queues what may be sent.
    fn tick(&mut self, now: Instant) -> Result<(), Trouble> {
        match &mut self.state {
            State::Waiting(until) if *until <= now => {
                self.state =
                    State::Dialling(Dial::start(&self.server, self.options.connect_within)?);
            }
            State::Joining { deadline, .. } if *deadline <= now => {
                return Err(Trouble::Silent(self.options.join_within.as_secs()));
            }
            State::Joined { pinged: Some(pinged), heard, .. }
                if *heard < *pinged && now >= *pinged + self.options.patience =>
            {
                return Err(Trouble::Silent(self.options.patience.as_secs()));
            }
            State::Joined { link, ping_at, pinged, .. } if *ping_at <= now => {
                self.pings += 1;
                link.push(&Command::Ping { n: self.pings }.encode());
                *pinged = Some(now);
                *ping_at = now + self.options.ping_every.max(self.options.patience);
            }
            _ => {}
        }
        self.renew_ticket(now);
        self.send_pending(now);
        Ok(())
    }

    fn renew_ticket(&mut self, now: Instant) {
        if let State::Joined { link, .. } = &mut self.state
            && self.renew_at.is_some_and(|at| at <= now)
        {
            link.push(&Command::Ticket.encode());
            self.renew_at = None;
        }
    }

    fn send_pending(&mut self, now: Instant) {
        if self.hold_until.is_some_and(|until| now >= until) {
            self.hold_until = None;
        }
        if let State::Joined { link, .. } = &mut self.state
            && self.caught_up
            && self.hold_until.is_none()
            && !self.leaving
        {
            while let Some(pending) = self.outbox.next_to_send() {
                link.push(&pending.command().encode());
            }
        }
    }

    /// Waits for the socket, for `wake`, for `until`, or for the next thing that is due; gives
    /// what the socket has and whether `wake` has something.
    fn poll(
        &self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<(PollFlags, bool), Failure> {
        let now = Instant::now();
        let due = [self.due(), until].into_iter().flatten().min();
        let timeout = match due {
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            Some(due) => PollTimeout::try_from(
                due.saturating_duration_since(now).as_micros().div_ceil(1000).min(3_600_000) as u32,
            )
            .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let interest = self.interest();
        let mut fds = Vec::with_capacity(2);
        fds.extend(interest.map(|(fd, events)| PollFd::new(fd, events)));
        fds.extend(wake.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::new(Exit::Internal, format!("poll: {errno}"))),
        }
        let ready =
            |fd: Option<&PollFd>| fd.and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        let socket = interest.and_then(|_| fds.first());
        let woken = wake.and_then(|_| fds.last());
        Ok((ready(socket), !ready(woken).is_empty()))
    }

    /// The socket and what is awaited from it.
    fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Waiting(_) | State::Left => None,
            State::Dialling(dial) => Some((dial.as_fd(), PollFlags::POLLOUT)),
            State::Joining { link, .. } | State::Joined { link, .. } => {
                let writing =
                    if link.wants_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
                Some((link.as_fd(), PollFlags::POLLIN | writing))
            }
        }
    }

    /// When [`Self::tick`] has something to do at the latest.
    fn due(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Waiting(until) => Some(*until),
            State::Dialling(dial) => Some(dial.deadline()),
            State::Joining { deadline, .. } => Some(*deadline),
            State::Joined { ping_at, pinged, heard, .. } => {
                let dead = pinged.filter(|at| heard < at).map(|at| at + self.options.patience);
                Some(dead.map_or(*ping_at, |dead| dead.min(*ping_at)))
            }
            State::Left => None,
        };
        let hold = self.hold_until.filter(|_| self.is_connected());
        let renew = self.renew_at.filter(|_| self.is_connected());
        [state, hold, renew].into_iter().flatten().min()
    }

    /// Uses what the socket has.
    fn serve(&mut self, ready: PollFlags) -> Result<(), Trouble> {
        // The state is taken out, so that what arrives can change the rest of the session.
        self.state = match std::mem::replace(&mut self.state, State::Left) {
            State::Dialling(dial) => match dial.advance(!ready.is_empty())? {
                Ok(stream) => self.begin_joining(stream)?,
                Err(dial) => State::Dialling(dial),
            },
            State::Joining { mut link, deadline } => {
                self.exchange(&mut link, ready)?;
                match self.joined_at {
                    Some(now) => State::Joined {
                        link,
                        heard: now,
                        ping_at: now + self.options.ping_every,
                        pinged: None,
                    },
                    None => State::Joining { link, deadline },
                }
            }
            State::Joined { mut link, heard, ping_at, pinged } => {
                let came = self.exchange(&mut link, ready)?;
                let heard = if came { Instant::now() } else { heard };
                State::Joined { link, heard, ping_at, pinged }
            }
            other => other,
        };
        Ok(())
    }

    fn begin_joining(&mut self, stream: TcpStream) -> Result<State, Trouble> {
        // Chat is small packets in both directions; waiting to fill them helps nobody.
        let _ = stream.set_nodelay(true);
        let mut link = Link::start(stream, &self.token.server)?;
        link.push(&self.join_command().encode());
        self.joined_at = None;
        Ok(State::Joining { link, deadline: Instant::now() + self.options.join_within })
    }

    fn join_command(&self) -> Command {
        Command::Join(Join {
            id: self.token.id,
            credential: match &self.ticket {
                Some(ticket) => Credential::Ticket(ticket.clone()),
                None => Credential::Secret(self.token.secret.clone()),
            },
            session: self.id,
            start: match self.welcome {
                Some(_) => Start::From(self.lines.position()),
                None => self.options.start,
            },
            client: Some(CLIENT.to_owned()),
        })
    }

    /// Writes and reads as far as the socket allows; gives whether anything came.
    fn exchange(&mut self, link: &mut Link, ready: PollFlags) -> Result<bool, Trouble> {
        let written = link.write();
        // What the server said before it closed is worth more than the error of our write.
        if ready.is_empty() || !link.read(|plaintext| self.hear(plaintext))? {
            return written.map(|()| false);
        }
        Ok(true)
    }

    fn hear(&mut self, plaintext: Plaintext<'_>) -> Result<(), Trouble> {
        match plaintext {
            Plaintext::Log(at, bytes) => self.hear_log(at, bytes),
            Plaintext::Control(json) => self.hear_event(Event::parse(json)?),
            Plaintext::Unknown(_) => Ok(()),
        }
    }

    fn hear_log(&mut self, at: Offset, bytes: &[u8]) -> Result<(), Trouble> {
        let Some(welcome) = self.welcome.as_ref().filter(|_| self.joined_at.is_some()) else {
            return Err(Trouble::Protocol("log bytes came before the welcome".to_owned()));
        };
        let (happened, outbox) = (&mut self.happened, &mut self.outbox);
        let before = self.lines.position();
        self.lines.feed(at, bytes, |offset, line| {
            let Some(record) = record_of(line) else { return };
            let echo = if record.from == welcome.name.as_str() {
                record.id.as_deref().and_then(|id| outbox.settle(id))
            } else {
                None
            };
            happened.push_back(Happening::Line { offset, line: line.to_vec(), record });
            happened.extend(echo.map(|pending| Happening::Acknowledged { id: pending.id }));
        })?;
        if self.lines.position() > before {
            self.made_progress();
        }
        self.notice_end();
        Ok(())
    }

    fn hear_event(&mut self, event: Event) -> Result<(), Trouble> {
        match event {
            Event::Welcome(welcome) => return self.enter(*welcome),
            Event::Refused { reason, message } => return Err(Trouble::Refused(reason, message)),
            Event::Bye { reason, retry, message } => {
                return Err(Trouble::Bye { reason, retry, message });
            }
            Event::Rejected { id: Some(id), reason, message } => {
                self.rejected(&id, reason, message);
            }
            Event::Rejected { id: None, message, .. } => {
                let words = format!("it rejected a command of this program: {message}");
                return Err(Trouble::Protocol(visible(&words).into_owned()));
            }
            Event::Ticket { ticket, ticket_expires } => self.keep_ticket(ticket, ticket_expires),
            Event::Pruned { to } => return self.pass_over(to),
            Event::Pong { .. } | Event::Unknown => {}
        }
        Ok(())
    }

    /// A part of the log was removed before it came here.
    fn pass_over(&mut self, to: Offset) -> Result<(), Trouble> {
        let from = self.lines.position();
        if !self.lines.skip_to(to) {
            return Err(Trouble::Protocol(format!("it removed offset {to}, behind {from}")));
        }
        self.happened.push_back(Happening::Pruned { from, to });
        self.outbox.part_removed();
        if self.outbox.is_in_flight() {
            // Whether those were stored can be told only behind the end of another connection.
            return Err(Trouble::Removed);
        }
        self.notice_end();
        Ok(())
    }

    fn enter(&mut self, welcome: Welcome) -> Result<(), Trouble> {
        if self.joined_at.is_some() {
            return Err(Trouble::Protocol("a second welcome came".to_owned()));
        }
        let again = self.welcome.is_some();
        if !again {
            self.lines = Lines::starting_at(welcome.from);
        } else if welcome.from != self.lines.position() {
            let (asked, from) = (self.lines.position(), welcome.from);
            return Err(Trouble::Protocol(format!("asked for offset {asked}, it gives {from}")));
        }
        self.keep_ticket(welcome.ticket.clone(), welcome.ticket_expires);
        self.welcome = Some(welcome);
        self.joined_at = Some(Instant::now());
        self.caught_up = false;
        self.happened.push_back(Happening::Joined { again });
        self.notice_end();
        Ok(())
    }

    /// Notices when everything has come that was in the log at the welcome.
    fn notice_end(&mut self) {
        let end = self.welcome.as_ref().map(|welcome| welcome.end);
        if !self.caught_up && end.is_some_and(|end| self.lines.received() >= end) {
            self.caught_up = true;
            let doubtful = self.outbox.take_doubtful();
            self.happened
                .extend(doubtful.into_iter().map(|pending| Happening::Uncertain { pending }));
            self.happened.push_back(Happening::CaughtUp);
        }
    }

    fn keep_ticket(&mut self, ticket: Ticket, expires: Timestamp) {
        let seconds = expires.as_second().saturating_sub(Timestamp::now().as_second());
        let half = Duration::from_secs(u64::try_from(seconds / 2).unwrap_or(0));
        self.renew_at = Instant::now().checked_add(half.clamp(RENEW_AT_MOST_EVERY, DAY));
        self.ticket = Some(ticket);
    }

    fn rejected(&mut self, id: &str, reason: Rejection, message: String) {
        if reason != Rejection::Storage {
            let pending = self.outbox.settle(id);
            let tell = |pending| Happening::Rejected { pending, reason, message };
            self.happened.extend(pending.map(tell));
        } else if self.outbox.send_again(id) && self.hold_until.is_none() {
            let wait = self.storage_backoff.next(random());
            self.hold_until = Some(Instant::now() + wait);
            self.happened.push_back(Happening::Stalled { message });
        }
    }

    /// The server is good for something: the next trouble begins with short waits again.
    fn made_progress(&mut self) {
        self.backoff.reset();
        self.storage_backoff.reset();
        self.failed = 0;
    }

    /// Goes on after a lost connection, unless it is over for good.
    fn overcome(&mut self, trouble: Trouble) -> Result<(), Failure> {
        let joined_at = self.joined_at.take();
        let failed_ticket = matches!(trouble, Trouble::Refused(Refusal::Ticket, _));
        self.state = State::Left;
        if self.leaving {
            return Ok(());
        }
        if self.welcome.is_none() || trouble.is_final() {
            return Err(trouble.failure(&self.server));
        }
        self.outbox.connection_lost();
        self.lines.forget_partial();
        self.caught_up = false;
        if failed_ticket && self.ticket.take().is_some() {
            self.state = State::Waiting(Instant::now());
            return Ok(());
        }
        if joined_at.is_some() {
            self.failed = 0;
        }
        if joined_at.is_some_and(|at| at.elapsed() > STEADY) {
            self.backoff.reset();
        }
        let wait = self.backoff.next(random());
        self.state = State::Waiting(Instant::now() + wait);
        let (why, failed) = (trouble.to_string(), self.failed);
        self.failed = self.failed.saturating_add(1);
        self.happened.push_back(Happening::Lost { why, wait, failed });
        Ok(())
    }
}

/// Why a text cannot be said in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextError {
    /// It has no characters.
    Empty,
    /// It contains NUL.
    Nul,
    /// It has more bytes than the room allows.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The room's limit in bytes.
        limit: u32,
    },
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty message cannot be sent"),
            Self::Nul => f.write_str("a message cannot contain the NUL character"),
            Self::TooLong { bytes, limit } => {
                write!(f, "a message in this room has at most {limit} bytes, this one has {bytes}")
            }
        }
    }
}

impl std::error::Error for TextError {}

impl From<Gap> for Trouble {
    fn from(gap: Gap) -> Self {
        let Gap { expected, came } = gap;
        Self::Protocol(format!("log bytes of offset {came} came instead of those of {expected}"))
    }
}

/// A line's record; `None` for what is torn or foreign, or bears a name that no token can have.
fn record_of(line: &[u8]) -> Option<Record> {
    let record = Record::parse(line).ok()?;
    record.from.parse::<Name>().is_ok().then_some(record)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes)
        .map_err(|e| Failure::new(Exit::Internal, format!("the system gave no random bytes: {e}")))
}

/// For jitter only, so that a system without randomness merely has none.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
