//! RECV after the token: appends what its client says, and rings the bell.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::getpid;
use zeroize::Zeroizing;

use super::door::{Guest, bye};
use super::input::Input;
use super::{EXIT_SEND_KILLED, End, Later, Recv, label, read_client};
use crate::confine::{self, Filter, Role as Confined, policy};
use crate::daemon::channel::bell;
use crate::daemon::channel::keeper_recv::{FromRecv, IssuedTicket, TICKET_PAUSE, ToRecv};
use crate::daemon::channel::recv_send::ToSend;
use crate::daemon::channel::report::Reporter;
use crate::daemon::channel::{Channel, ChannelError, unpack48};
use crate::daemon::send;
use crate::daemon::start::StartError;
use crate::room::log::{Appender, AppenderFds, Reader, ReaderFds};
use crate::room::offset::Offset;
use crate::room::record::{Batch, Kind};
use crate::room::seek;
use crate::sys::process::BoundChild;
use crate::sys::{self, signal};
use crate::ticket::Ticket;
use crate::token::{Name, Role};
use crate::wire::command::{Command, CommandError, MessageId, Start, max_line};
use crate::wire::event::{ByeReason, Event, Refusal, Rejection, Welcome};

/// How long SEND may take to deliver the last word.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How often, and how long, RECV waits for the end of a SEND whose channel is closed: two seconds in
/// all, so that on a busy machine, too, it is said what it died of.
const SEND_TRIES: u32 = 200;
const SEND_PAUSE: Duration = Duration::from_millis(10);
/// Records that one append holds at least room for, in bytes.
const BATCH_BYTES: usize = 64 << 10;
/// How often the same trouble with the log is worth a line.
const TROUBLE_PAUSE: Duration = Duration::from_secs(30);

/// A client in the room.
struct Member {
    recv: Recv,
    name: Name,
    role: Role,
    input: Input,
    log: Appender,
    batch: Batch,
    ids: Vec<MessageId>,
    send: Channel,
    send_process: BoundChild,
    /// Control lines that SEND had no room for; while there are any, the client is not read.
    unsaid: VecDeque<Zeroizing<String>>,
    allowance: Allowance,
    /// Whether lines may wait here for which there was no allowance, or no room for an answer.
    held: bool,
    ticket_asked: Option<Instant>,
    trouble: Option<Instant>,
}

/// Serves an accepted client to its end.
pub(super) fn serve(recv: Recv, guest: Guest, later: Later) -> Result<u8, End> {
    match Member::begin(recv, guest, later) {
        Ok(mut member) => match member.converse() {
            End::Failed(problem) => Err(End::Failed(problem)),
            End::Garbage(what) => {
                member.recv.report.notice(what);
                Ok(0)
            }
            End::SendGone => Ok(member.account_for_send()),
            _ => Ok(0),
        },
        Err(End::Refused) => Ok(0),
        Err(end) => Err(end),
    }
}

impl Member {
    /// Finds where to begin, forks SEND, and gives up what was only needed for that.
    fn begin(mut recv: Recv, guest: Guest, later: Later) -> Result<Self, End> {
        let Guest { name, role, ticket, floor, start, mut input, mut sealer, files } = guest;
        check_numbers(&files)?;
        for (file, entry) in files.iter().zip(policy::rights::RECEIVED) {
            confine::limit_rights(file, entry.rights).map_err(StartError::from)?;
        }
        let [append, read, gate, send_gate, tail] = files;
        let reader =
            Reader::new(ReaderFds { log: read, gate: send_gate }, Offset(0)).with_floor(floor);
        let found = begin_at(&reader, start);
        let (from, end) = match found {
            Ok(found) => found,
            Err((reason, message)) => {
                super::door::refuse(&recv, &mut sealer, reason, message);
                return Err(End::Refused);
            }
        };
        let ReaderFds { log: read, gate: send_gate } = reader.into_fds();
        let welcome = welcome(&recv, &name, role, &ticket, from, end);
        drop(ticket);
        let Later { joined, send } = later;
        let start = send::Start {
            label: label(name.as_str(), recv.settings.source),
            parent: getpid(),
            from,
            floor,
            sealer,
            welcome,
            sandbox: recv.settings.sandbox,
            filter: send,
        };
        let (send, send_process, joined) = fork_send(start, joined, &mut input)?;
        drop((read, send_gate));
        let who = label(name.as_str(), recv.settings.source);
        sys::title::set(&format!("recv {who}"));
        recv.report = Reporter::new(format!("recv {who}"));
        let mut context = recv.settings.sandbox.context();
        context.earlier = Some(&recv.confined);
        let process = send_process.descriptor().map(|fd| (fd, policy::rights::PROCESS));
        context.held = process.as_slice();
        confine::enter_with(Confined::RecvJoined, &context, joined).map_err(StartError::from)?;
        input.give_back();
        let settings = &recv.settings;
        let capacity = BATCH_BYTES.max(max_line(settings.message_bytes));
        Ok(Self {
            name,
            role,
            input,
            log: Appender::new(AppenderFds { log: append, tail, gate }),
            batch: Batch::with_capacity(capacity),
            ids: Vec::new(),
            send,
            send_process,
            unsaid: VecDeque::new(),
            allowance: Allowance::new(role, settings.rate, settings.rate_per, settings.burst),
            held: false,
            ticket_asked: None,
            trouble: None,
            recv,
        })
    }

    /// Says how SEND ended, if it was killed; gives the exit status that tells the launcher.
    fn account_for_send(&self) -> u8 {
        // Its channel is closed a moment before it has ended. Not reaped: it is handed to the
        // launcher, which then knows by itself.
        for _ in 0..SEND_TRIES {
            match self.send_process.ended() {
                Some(WaitStatus::Signaled(_, Signal::SIGTERM | Signal::SIGKILL, _)) => return 0,
                Some(WaitStatus::Signaled(_, signal, _)) => {
                    let pid = self.send_process.pid;
                    let text = format!("SEND (process {pid}) was killed by {signal}");
                    self.recv.report.warning(text);
                    return EXIT_SEND_KILLED;
                }
                Some(_) => return 0,
                None => {
                    let _ = signal::wait(&mut [], Some(SEND_PAUSE));
                }
            }
        }
        0
    }

    fn converse(&mut self) -> End {
        // What came together with the token is here already: no wait would tell of it.
        let mut outcome = self.carry_out_all();
        let end = loop {
            if let Err(end) = outcome {
                break end;
            }
            outcome = self.turn();
        };
        if let End::Garbage(_) = end {
            self.last_word(&bye(ByeReason::Protocol));
        }
        end
    }

    /// One round: what the client, the keeper, SEND or the clock want.
    fn turn(&mut self) -> Result<(), End> {
        let (client, keeper, send) = self.wait()?;
        if signal::take(Signal::SIGTERM) {
            self.last_word(&bye(ByeReason::Shutdown));
            return Err(End::Told);
        }
        if send {
            self.say_unsaid()?;
        }
        if keeper {
            self.hear_keeper()?;
        }
        if client {
            // Without room it was not asked for more, so it has hung up: it would be ready again and
            // again, and nothing that is held can be answered any more.
            if !self.input.has_space() {
                return Err(End::Gone);
            }
            if let Some(length) = read_client(&self.recv.client, self.input.space())? {
                self.input.filled(length);
            }
        }
        self.carry_out_all()
    }

    /// Sleeps; says which of client, keeper and SEND have something.
    fn wait(&self) -> Result<(bool, bool, bool), End> {
        // What was held is carried out as soon as it can be, though that became so only meanwhile.
        let held = (self.held && self.unsaid.is_empty())
            .then(|| self.allowance.held_for(Instant::now()).unwrap_or_default());
        let listen = self.unsaid.is_empty() && !self.held && self.input.has_space();
        let client = if listen { PollFlags::POLLIN } else { PollFlags::empty() };
        // Of SEND's end only its closing matters, and room when there is something to say.
        let room = if self.unsaid.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let mut fds = [
            PollFd::new(self.recv.client.as_fd(), client),
            PollFd::new(self.recv.keeper.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.send.as_fd(), room | PollFlags::POLLIN),
        ];
        signal::wait(&mut fds, held).map_err(StartError::from)?;
        Ok((signal::ready(&fds[0]), signal::ready(&fds[1]), signal::ready(&fds[2])))
    }

    fn hear_keeper(&mut self) -> Result<(), End> {
        match self.recv.keeper.receive::<ToRecv>() {
            Ok(ToRecv::End { reason }) => {
                self.last_word(&bye(reason));
                Err(End::Told)
            }
            Ok(ToRecv::Ticket(issued)) => {
                let (ticket, ticket_expires) = unpack(&issued);
                self.say(&Event::Ticket { ticket, ticket_expires });
                Ok(())
            }
            Ok(_) | Err(ChannelError::WouldBlock) => Ok(()),
            // The keeper is gone, and so is the service.
            Err(_) => Err(End::Gone),
        }
    }

    /// Takes the client's lines, and stores what they say: also what stands before one that ends
    /// the session.
    fn carry_out_all(&mut self) -> Result<(), End> {
        let taken = self.take_lines();
        self.append();
        taken
    }

    /// Carries out the client's lines until there are no more, or its allowance is used up. They came
    /// together, so they count at one time.
    fn take_lines(&mut self) -> Result<(), End> {
        let now = Instant::now();
        loop {
            self.held = !self.unsaid.is_empty() || self.allowance.held_for(now).is_some();
            if self.held {
                return Ok(());
            }
            let line = self.input.line().map_err(|_| End::Garbage("a line is too long"))?;
            let Some(line) = line else {
                match self.input.unseal() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(()),
                    Err(_) => return Err(End::Garbage("a frame is damaged")),
                }
            };
            let command = Command::parse(line);
            // Whatever a client asks counts, or asking could be made a load.
            self.allowance.take(now);
            self.carry_out(command)?;
        }
    }

    fn carry_out(&mut self, command: Result<Command, CommandError>) -> Result<(), End> {
        match command {
            Ok(Command::Say { id, text }) => self.post(id, Kind::Message, &text),
            Ok(Command::Notice { id, text }) if self.role == Role::Operator => {
                self.post(id, Kind::Notice, &text);
            }
            Ok(Command::Notice { id, .. }) => {
                self.reject(Some(&id), Rejection::Role, "only operators may post notices");
            }
            Ok(Command::Ping { n }) => self.say(&Event::Pong { n }),
            Ok(Command::Ticket) => self.ask_ticket()?,
            Ok(Command::Bye) => {
                self.append();
                self.last_word(&bye(ByeReason::Client));
                return Err(End::Told);
            }
            Ok(Command::Join(_)) | Err(CommandError::BadJoin(_)) => {
                self.reject(None, Rejection::BadCommand, "this session has joined already");
            }
            Err(CommandError::Rejected { id, reason }) => {
                let problem = CommandError::Rejected { id: None, reason }.to_string();
                self.reject(id.as_ref(), reason, &problem);
            }
            Err(CommandError::Malformed) => {
                return Err(End::Garbage("a line is not JSON in UTF-8"));
            }
        }
        Ok(())
    }

    /// The keeper gives one in a minute; more often it is not asked.
    fn ask_ticket(&mut self) -> Result<(), End> {
        if self.ticket_asked.is_some_and(|at| at.elapsed() < TICKET_PAUSE) {
            return Ok(());
        }
        self.ticket_asked = Some(Instant::now());
        self.recv.ask_keeper(&FromRecv::Ticket)
    }

    fn post(&mut self, id: MessageId, kind: Kind, text: &str) {
        let limit = self.recv.settings.message_bytes;
        if self.role == Role::Readonly {
            return self.reject(Some(&id), Rejection::Role, "this token may only read");
        }
        if text.len() > limit as usize {
            let problem = format!("the message has {} bytes; {limit} are allowed", text.len());
            return self.reject(Some(&id), Rejection::TooLong, &problem);
        }
        if self.batch.push(Some(id.as_str()), &self.name, kind.clone(), Some(text)).is_err() {
            self.append();
            // An empty batch has room for the longest message there is.
            let _ = self.batch.push(Some(id.as_str()), &self.name, kind, Some(text));
        }
        self.ids.push(id);
    }

    /// Appends what was posted, under one lock; whatever does not fit on the disk is given back.
    fn append(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let durability = self.recv.settings.durability;
        let (stored, problem) = match self.log.append(&mut self.batch, Timestamp::now, durability) {
            Ok(done) => {
                if done.repaired {
                    let at = done.at;
                    self.recv
                        .report
                        .warning(format_args!("ended a torn record before offset {at}"));
                }
                (done.stored, done.problem.map(|e| e.desc().to_owned()))
            }
            Err(problem) => (0, Some(problem.to_string())),
        };
        if stored > 0 {
            // One that is full has been rung. A byte a message, in one call: so they are counted.
            let ring = &bell::MESSAGES[..stored.min(bell::MESSAGES.len())];
            let _ = nix::unistd::write(&self.recv.bell, ring);
        }
        if let Some(problem) = problem {
            self.give_back(stored, &problem);
        }
        self.batch.clear();
        self.ids.clear();
    }

    fn give_back(&mut self, stored: usize, problem: &str) {
        if self.trouble.is_none_or(|at| at.elapsed() >= TROUBLE_PAUSE) {
            self.trouble = Some(Instant::now());
            self.recv.report.error(format_args!("the log takes no messages: {problem}"));
        }
        for id in std::mem::take(&mut self.ids).into_iter().skip(stored) {
            let message = "the server cannot store messages at the moment";
            self.reject(Some(&id), Rejection::Storage, message);
        }
    }

    fn reject(&mut self, id: Option<&MessageId>, reason: Rejection, message: &str) {
        let id = id.map(ToString::to_string);
        self.say(&Event::Rejected { id, reason, message: message.to_owned() });
    }

    /// Gives SEND a control line, or keeps it until SEND has room.
    fn say(&mut self, event: &Event) {
        self.unsaid.push_back(event.encode());
        // What fails here is seen at the next round: SEND is gone.
        let _ = self.say_unsaid();
    }

    fn say_unsaid(&mut self) -> Result<(), End> {
        while let Some(text) = self.unsaid.pop_front() {
            match self.send.send(&ToSend::Control(String::clone(&text)), &[]) {
                Ok(()) => {}
                Err(ChannelError::WouldBlock) => {
                    self.unsaid.push_front(text);
                    return Ok(());
                }
                Err(_) => return Err(End::SendGone),
            }
        }
        match self.send.receive::<ToSend>() {
            Err(ChannelError::WouldBlock) => Ok(()),
            // SEND never speaks: whatever comes is its end.
            _ => Err(End::SendGone),
        }
    }

    /// Has SEND deliver one last line, and waits for it to be gone, for a moment.
    fn last_word(&mut self, event: &Event) {
        let text = event.encode().to_string();
        if self.send.send(&ToSend::Last(text), &[]).is_err() {
            return;
        }
        let end = Instant::now() + LAST_WORD;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.send.as_fd(), PollFlags::POLLIN)];
            if left.is_zero()
                || signal::wait(&mut fds, Some(left)).is_err()
                || signal::ready(&fds[0])
            {
                return;
            }
        }
    }
}

/// The descriptors must have the numbers that the policies name.
fn check_numbers(files: &[OwnedFd; 5]) -> Result<(), End> {
    use policy::recv::{GATE, LOG_APPEND, LOG_READ, LOG_TAIL, SEND_GATE};
    let numbers: [RawFd; 5] = files.each_ref().map(AsRawFd::as_raw_fd);
    if numbers == [LOG_APPEND, LOG_READ, GATE, SEND_GATE, LOG_TAIL] {
        Ok(())
    } else {
        Err(End::Failed(StartError::Table("the log's descriptors have other numbers")))
    }
}

/// The offsets where sending begins, and where the log ends now.
fn begin_at(reader: &Reader, start: Start) -> Result<(Offset, Offset), (Refusal, String)> {
    let internal = |e: crate::room::log::LogError| (Refusal::Internal, e.to_string());
    let end = reader.end().map_err(internal)?;
    let from = match start {
        Start::End => end,
        Start::From(offset) => {
            seek::check(reader, offset).map_err(|e| (Refusal::Offset, e.to_string()))?
        }
        Start::History(messages) => {
            seek::history(reader, messages).map_err(|e| (Refusal::Internal, e.to_string()))?
        }
        Start::Since(time) => {
            seek::since(reader, time).map_err(|e| (Refusal::Internal, e.to_string()))?
        }
    };
    Ok((from, end))
}

/// Not a part of its caller, whose frame stays: this one's is wiped when SEND gives its stack back.
#[inline(never)]
fn welcome(
    recv: &Recv,
    name: &Name,
    role: Role,
    issued: &IssuedTicket,
    from: Offset,
    end: Offset,
) -> Event {
    let (ticket, ticket_expires) = unpack(issued);
    Event::Welcome(Box::new(Welcome {
        room: recv.settings.room.clone(),
        motd: recv.settings.motd.clone(),
        name: name.clone(),
        role,
        from,
        end,
        message_bytes: recv.settings.message_bytes,
        ticket,
        ticket_expires,
        server: concat!("papayad/", env!("CARGO_PKG_VERSION")).to_owned(),
    }))
}

fn unpack(issued: &IssuedTicket) -> (Ticket, Timestamp) {
    let expires = i64::try_from(issued.expires).unwrap_or(i64::MAX);
    let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
    (Ticket(unpack48(&issued.ticket)), expires)
}

/// Forks SEND, without the filter and the key that are RECV's; what it starts with, the send key
/// included, is wiped here.
fn fork_send(
    start: send::Start,
    filter: Filter,
    input: &mut Input,
) -> Result<(Channel, BoundChild, Filter), End> {
    let (mine, theirs) = Channel::pair().map_err(StartError::from)?;
    if (mine.raw(), theirs.raw()) != (policy::recv::SEND, policy::recv::SEND_END) {
        return Err(End::Failed(StartError::Table("SEND's channel has other numbers")));
    }
    let mut filter = Some(filter);
    let child = || {
        // SEND must not have the receive key, nor the token that was received with it.
        input.forget();
        filter = None;
        send::run(start)
    };
    let process = sys::process::fork_bound(child).map_err(StartError::from)?;
    // Taken in the child alone.
    let filter = filter.ok_or(StartError::Table("its filter is missing"))?;
    Ok((mine, process, filter))
}

/// A member's token bucket: so many messages at once, so many in the long run. A client that is
/// over it is not refused, only read more slowly.
struct Allowance {
    unlimited: bool,
    pause: Duration,
    burst: Duration,
    /// When the bucket is full again.
    full_at: Instant,
}

impl Allowance {
    fn new(role: Role, rate: u32, per: Duration, burst: u32) -> Self {
        let pause = per / rate.max(1);
        let unlimited = role == Role::Operator;
        Self { unlimited, pause, burst: pause * burst.max(1), full_at: Instant::now() }
    }

    fn take(&mut self, now: Instant) {
        if self.unlimited {
            return;
        }
        self.full_at = self.full_at.max(now) + self.pause;
    }

    /// How long nothing may be taken; `None` if something may be taken now.
    fn held_for(&self, now: Instant) -> Option<Duration> {
        if self.unlimited {
            return None;
        }
        let debt = self.full_at.saturating_duration_since(now);
        (debt + self.pause).checked_sub(self.burst).filter(|over| !over.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(Role::Member, 1, second, 3);
        let now = Instant::now() + second;
        for _ in 0..3 {
            assert_eq!(allowance.held_for(now), None);
            allowance.take(now);
        }
        assert_eq!(allowance.held_for(now), Some(second));
        assert_eq!(allowance.held_for(now + second / 4), Some(second * 3 / 4));
        assert_eq!(allowance.held_for(now + second), None);
        allowance.take(now + second);
        assert_eq!(allowance.held_for(now + second), Some(second));
    }

    #[test]
    fn operators_are_not_held() {
        let mut allowance = Allowance::new(Role::Operator, 1, Duration::from_secs(3600), 1);
        let now = Instant::now();
        (0..100).for_each(|_| allowance.take(now));
        assert_eq!(allowance.held_for(now), None);
    }
}
