//! Keeper: the host key, the tokens' hashes, the log's directory, and the word who may join.
//!
//! Runs as a user of its own; it holds no network socket. It answers each RECV's channel by the
//! table in `channel/keeper_recv.rs`, and gives the log's descriptors only against a good token.
//! It is forked while the launcher is still root, and becomes its own user first of all.

mod admission;
mod presence;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, alarm};

use self::presence::Presence;
use super::channel::bell;
use super::channel::launcher_keeper::{FromKeeper, ToKeeper};
use super::channel::launcher_listener::Verdict;
use super::channel::report::Reporter;
use super::channel::{Channel, ChannelError, WorkerId};
use super::start::{self, StartError};
use crate::config::Config;
use crate::confine::identity::{self, Ids};
use crate::confine::{self, Role, policy::rights};
use crate::exit::Exit;
use crate::room::log::Files;
use crate::room::offset::Offset;
use crate::state::tokens::{Hasher, Tokens};
use crate::state::{StateDir, hostkey};
use crate::sys::{self, signal};
use crate::ticket::TicketKey;
use crate::token::{self, Name, TokenId};
use crate::wire::handshake::NkResponder;

/// How much longer than the client RECV itself may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages taken from one channel before the others have their turn.
const ROUND: usize = 8;
/// So many workers are a crowd: to look at all their channels each time, when each of thousands has
/// a word with the keeper as it joins or leaves, would take longer than what they ask for …
const CROWD: usize = 256;
/// … so those who have joined are looked at again only after this time, even if nobody else speaks.
const CROWD_PAUSE: Duration = Duration::from_millis(20);
/// How long after its token is over a session may go on.
const EXPIRY_DELAY: Duration = Duration::from_millis(50);
/// How often the same trouble with the disk is worth a line.
const TROUBLE_PAUSE: Duration = Duration::from_secs(30);
/// How long the start may take, in seconds.
const BEGIN_SECONDS: u32 = 40;

/// What a keeper starts with.
pub struct Start<'a> {
    /// To the launcher.
    pub channel: RawFd,
    /// The pipe of log lines.
    pub report: RawFd,
    /// /dev/null.
    pub null: RawFd,
    /// The doorbell's write end, for presence records.
    pub bell: RawFd,
    /// The launcher's process id.
    pub launcher: Pid,
    /// Whom to become; `None` without root.
    pub ids: Option<Ids>,
    /// The configuration.
    pub config: &'a Config,
}

/// One running client program of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    token: TokenId,
    instance: [u8; 16],
}

/// Where a worker stands; each request is allowed in exactly one of these.
enum Stage {
    /// Nothing was asked yet.
    Fresh,
    /// The handshake was done.
    Shaken,
    /// A secret waits for its turn at argon2.
    Queued { session: Session, secret: Box<token::Secret> },
    /// The token is good; the session's previous worker has to be gone first.
    Waiting { session: Session, by_ticket: bool },
    /// It has the log.
    Joined { session: Session, ticket_at: Option<Instant> },
    /// It was told to leave, or was refused.
    Leaving,
}

struct Worker {
    channel: Channel,
    source: SocketAddr,
    stage: Stage,
    /// When the launcher is asked to remove it.
    deadline: Option<Instant>,
}

/// What nobody else may have; kept in one place, which is kept out of swap.
struct Keys {
    responder: NkResponder,
    tickets: TicketKey,
}

struct Keeper {
    launcher: &'static Channel,
    bell: OwnedFd,
    dir: StateDir,
    files: Files,
    /// Where the log begins.
    floor: Offset,
    keys: Box<Keys>,
    hasher: Hasher,
    tokens: Tokens,
    workers: BTreeMap<WorkerId, Worker>,
    /// Who was given the log, until its channel is closed: leaving workers too.
    members: BTreeMap<WorkerId, (Session, Name)>,
    queue: VecDeque<WorkerId>,
    presence: Presence,
    grace: Duration,
    sessions: usize,
    clients: usize,
    /// When it last said that the log cannot be flushed.
    trouble: Option<Instant>,
    /// When the channels of all workers were last looked at.
    all_looked_at: Instant,
    /// When it was last seen to what is due.
    time_kept: Instant,
    report: Reporter,
}

/// The keeper's life, in a process forked for it.
pub fn run(start: &Start<'_>) -> Infallible {
    let report = Reporter::new("keeper");
    // The place of the state directory is kept free by /dev/null until it can be opened.
    let table = [start.null, start.channel, start.report, start.null, start.bell];
    // SIGTERM is for the workers: the keeper ends with the launcher, after everyone else.
    let begun = start::forked("keeper", &table, &[Signal::SIGTERM], start.launcher);
    let Ok([null, launcher, stderr, place, bell]) =
        begun.map_err(drop).and_then(|fds| <[OwnedFd; 5]>::try_from(fds).map_err(drop))
    else {
        sys::process::exit_now(70)
    };
    drop(place);
    // 0 and 2 stay open for good: nothing else may take their place.
    std::mem::forget((null, stderr));
    // Needed to the end, whether `begin` works or not.
    let launcher: &'static Channel = Box::leak(Box::new(Channel::from_fd(launcher)));
    match Keeper::begin(start, launcher, bell, report.clone()) {
        Ok(mut keeper) => match keeper.serve() {
            Ok(never) => match never {},
            Err(problem) => report.error(problem),
        },
        Err(problem) => {
            let exit = exit_code(&problem) as u8;
            let message = problem.to_string();
            let _ = launcher.send_patiently(&FromKeeper::Failed { exit, message });
        }
    }
    sys::process::exit_now(70)
}

fn exit_code(problem: &StartError) -> Exit {
    match problem {
        StartError::State(_) | StartError::Log(_) => Exit::CannotCreate,
        StartError::Confine(_) | StartError::Identity(_) | StartError::TooFewDescriptors { .. } => {
            Exit::Config
        }
        _ => Exit::Internal,
    }
}

impl Keeper {
    /// Becomes its own user, loads everything, and confines itself.
    fn begin(
        start: &Start<'_>,
        launcher: &'static Channel,
        bell: OwnedFd,
        report: Reporter,
    ) -> Result<Self, StartError> {
        match &start.ids {
            Some(ids) => identity::become_forever(ids)?,
            None => identity::rootless()?,
        }
        sys::process::die_with_parent(start.launcher)?; // Changing the user cleared it (prctl(2)).
        // Nothing here takes long; what hangs must not outlive a launcher that gave up on it, who
        // is of another user and could not end it.
        alarm::set(BEGIN_SECONDS);
        let dir = StateDir::open(&start.config.paths.state)?;
        dir.claim()?;
        let key = hostkey::load_or_create(&dir)?;
        let keys = Box::new(Keys {
            responder: NkResponder::new(&key.private),
            tickets: TicketKey::derive(&key.private),
        });
        // Out of swap, if the system lets us: a limit that is too low is no reason not to serve.
        if let Err(cause) = sys::memory::lock(&*keys) {
            report.notice(format_args!("the host key may be swapped out: {}", cause.desc()));
        }
        let tokens = Tokens::load(&dir)?;
        let files = Files::open(dir.as_fd())?;
        let floor = files.floor()?;
        let keeper = Self {
            launcher,
            bell,
            presence: Presence::new(&files, start.config)?,
            keys,
            hasher: Hasher::new(),
            workers: BTreeMap::new(),
            members: BTreeMap::new(),
            queue: VecDeque::new(),
            grace: start.config.limits.grace,
            sessions: start.config.limits.sessions as usize,
            clients: start.config.limits.clients as usize,
            trouble: None,
            all_looked_at: Instant::now(),
            time_kept: Instant::now(),
            report,
            dir,
            files,
            floor,
            tokens,
        };
        require_descriptors(start.config)?;
        alarm::cancel();
        keeper.confine(start.config, key.new)?;
        Ok(keeper)
    }

    fn confine(&self, config: &Config, new_key: bool) -> Result<(), StartError> {
        let files = self.files.lock_ids()?; // Looks into /proc, which is out of reach below.
        let mut context = config.sandbox.context();
        context.state_dir = Some(self.dir.as_fd());
        context.descriptors = Some(descriptors(config));
        let (directory, known) = self.files.held();
        let mut held = vec![(directory, rights::DIRECTORY)];
        held.extend(known.map(|file| (file, rights::KNOWN_FILE)));
        held.extend(self.presence.held());
        context.held = &held;
        let level = confine::enter(Role::Keeper, &context)?;
        self.tell(&FromKeeper::Ready {
            files,
            tokens: self.tokens.good(Timestamp::now()) as u32,
            confined: level.to_string(),
            new_key,
        });
        Ok(())
    }

    fn serve(&mut self) -> Result<Infallible, StartError> {
        loop {
            let due = self.next_due();
            let (launcher, ready) = self.wait(due)?;
            if launcher {
                self.hear_launcher();
            }
            for id in ready {
                self.hear_worker(id);
            }
            self.verify_one();
            // What these two had on the stack of a secret on its way.
            sys::memory::wipe_below();
            self.admit_waiting();
            // Not each time, for it goes through all of a crowd; but also when nothing was due before the
            // wait, since when a token is over is told by the clock on the wall.
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) || self.time_kept + EXPIRY_DELAY <= now {
                self.keep_time();
                self.time_kept = now;
            }
            if self.presence.write(Instant::now(), &self.report) {
                self.ring();
            }
        }
    }

    /// Sleeps until somebody speaks or something is due; says who spoke. Where there is a crowd, those
    /// who have joined are not looked at each time: they seldom have anything to say.
    fn wait(&mut self, due: Option<Instant>) -> Result<(bool, Vec<WorkerId>), StartError> {
        let now = Instant::now();
        let all_due = self.all_looked_at + CROWD_PAUSE;
        let all = self.workers.len() < CROWD || all_due <= now;
        let due = if all { due } else { Some(due.map_or(all_due, |due| due.min(all_due))) };
        let limit = due.map(|due| due.saturating_duration_since(now));
        let limit = if self.queue.is_empty() { limit } else { Some(Duration::ZERO) };
        let mut fds = vec![PollFd::new(self.launcher.as_fd(), PollFlags::POLLIN)];
        let looked_at = |worker: &Worker| all || !matches!(worker.stage, Stage::Joined { .. });
        let mut ids = Vec::new();
        for (id, worker) in self.workers.iter().filter(|(_, worker)| looked_at(worker)) {
            ids.push(*id);
            // Of one that has to leave, only its end matters.
            let leaving = matches!(worker.stage, Stage::Leaving);
            let want = if leaving { PollFlags::empty() } else { PollFlags::POLLIN };
            fds.push(PollFd::new(worker.channel.as_fd(), want));
        }
        signal::wait(&mut fds, limit)?;
        let ready = ids.into_iter().zip(&fds[1..]).filter(|(_, fd)| signal::ready(fd));
        let ready = ready.map(|(id, _)| id).collect();
        let launcher = signal::ready(&fds[0]);
        if all {
            self.all_looked_at = Instant::now();
        }
        Ok((launcher, ready))
    }

    fn next_due(&self) -> Option<Instant> {
        let workers = self.workers.values().filter_map(|w| w.deadline);
        let now = Timestamp::now();
        let expiry = self.joined_expiries().min().map(|end| {
            let seconds = end.as_second().saturating_sub(now.as_second()).max(0);
            Instant::now() + Duration::from_secs(seconds as u64) + EXPIRY_DELAY
        });
        workers.chain(expiry).chain(self.presence.next_due()).min()
    }

    fn joined_expiries(&self) -> impl Iterator<Item = Timestamp> {
        self.members.values().filter_map(|(session, _)| self.tokens.find(session.token)?.expires)
    }

    fn hear_launcher(&mut self) {
        loop {
            match self.launcher.receive_fds::<ToKeeper>() {
                Ok(got) => match got.message {
                    ToKeeper::Worker { id, source } => match got.fds.into_iter().next() {
                        Some(fd) => self.take_worker(id, source, Channel::from_fd(fd)),
                        None => {
                            self.report.error("no descriptor is left for another client");
                            self.tell(&FromKeeper::Remove { id });
                        }
                    },
                    ToKeeper::Reload { sessions, grace } => {
                        (self.sessions, self.grace) = (sessions as usize, grace);
                        self.reload();
                    }
                    ToKeeper::Pruned { to } => self.pruned(to),
                    ToKeeper::End { id, reason } => self.end(id, reason),
                    ToKeeper::Ping => self.tell(&FromKeeper::Pong),
                    ToKeeper::Flush => self.flush(),
                },
                Err(ChannelError::WouldBlock) => return,
                // The launcher is gone, and so is the service.
                Err(ChannelError::Closed) => sys::process::exit_now(0),
                Err(problem) => self.report.error(format_args!("from the launcher: {problem}")),
            }
        }
    }

    /// Flushes the log to the disk: `log.durability = "interval"`. The launcher asks again only after
    /// the answer, however long the disk takes.
    fn flush(&mut self) {
        if let Err(problem) = self.files.sync()
            && self.trouble.is_none_or(|at| at.elapsed() >= TROUBLE_PAUSE)
        {
            self.trouble = Some(Instant::now());
            self.report.error(format_args!("the log is not durable: {problem}"));
        }
        self.tell(&FromKeeper::Flushed);
    }

    /// Who joins from now on begins there at the earliest.
    fn pruned(&mut self, to: Offset) {
        let is = self.files.is_floor(to);
        let found = is.and_then(|is| Ok((is, !is && self.files.is_floor_passed(to)?)));
        match found {
            Ok((true, _)) => self.floor = self.floor.max(to),
            // Another pruning was faster than the word of this one; its own word comes next.
            Ok((false, true)) => {}
            Ok(_) => self.report.warning(format_args!("the log was not pruned up to {to}")),
            Err(problem) => self.report.error(format_args!("the log cannot be read: {problem}")),
        }
    }

    fn take_worker(&mut self, id: WorkerId, source: SocketAddr, channel: Channel) {
        if let Err(cause) = confine::limit_rights(&channel, rights::CHANNEL) {
            self.report.error(format_args!("a channel cannot be limited: {}", cause.desc()));
            return self.tell(&FromKeeper::Remove { id });
        }
        let deadline = Some(Instant::now() + self.grace + PATIENCE);
        self.workers.insert(id, Worker { channel, source, stage: Stage::Fresh, deadline });
    }

    /// Reads the tokens again; ends the sessions of those that can join no more.
    fn reload(&mut self) {
        let outcome = match Tokens::load(&self.dir) {
            Ok(tokens) => {
                self.tokens = tokens;
                self.end_bad_standing();
                Ok(self.tokens.good(Timestamp::now()) as u32)
            }
            Err(problem) => Err(problem.to_string()),
        };
        self.tell(&FromKeeper::Reloaded { outcome });
    }

    /// Removes workers whose time is over, and ends sessions whose token has expired.
    fn keep_time(&mut self) {
        let now = Instant::now();
        let late = |w: &&mut Worker| w.deadline.is_some_and(|end| end <= now);
        let mut remove = Vec::new();
        for (id, worker) in &mut self.workers {
            if Some(&mut *worker).filter(late).is_some() {
                worker.deadline = None;
                let leaving = matches!(worker.stage, Stage::Leaving);
                worker.stage = Stage::Leaving;
                remove.push((*id, leaving));
            }
        }
        for (id, leaving) in remove {
            if !leaving {
                self.tell(&FromKeeper::Judged { id, verdict: Verdict::TooSlow });
            }
            self.tell(&FromKeeper::Remove { id });
        }
        let wall = Timestamp::now();
        if self.joined_expiries().any(|end| end <= wall) {
            self.end_bad_standing();
        }
    }

    /// Tells the launcher; it is more trusted, so waiting for it is allowed.
    fn tell(&self, message: &FromKeeper) {
        if self.launcher.send_patiently(message).is_err() {
            sys::process::exit_now(0);
        }
    }

    /// Rings the doorbell; one that is full has been rung.
    fn ring(&self) {
        let _ = nix::unistd::write(&self.bell, &[bell::PRESENCE]);
    }
}

/// Refuses a limit that would be met in the middle of the service.
fn require_descriptors(config: &Config) -> Result<(), StartError> {
    let hard = sys::process::hard_limit(Resource::RLIMIT_NOFILE)?;
    if hard < descriptors(config) {
        return Err(StartError::TooFewDescriptors { hard, needed: descriptors(config) });
    }
    Ok(())
}

/// A channel for each worker, and as many again for files that are open for a moment.
pub fn descriptors(config: &Config) -> u64 {
    u64::from(config.limits.clients) + u64::from(config.limits.startups.full) + 64
}
