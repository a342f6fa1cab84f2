//! The keeper's answers to RECV: who may ask what, in which stage, how often.
//!
//! A request out of turn is a violation: its worker is removed, and the source punished.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;

use super::{Keeper, PATIENCE, ROUND, Session, Stage};
use crate::confine::{self, policy::rights};
use crate::daemon::channel::keeper_recv::{
    FromRecv, IssuedTicket, Proof, TICKET_PAUSE, ToRecv, VERDICT_PATIENCE,
};
use crate::daemon::channel::launcher_keeper::FromKeeper;
use crate::daemon::channel::launcher_listener::Verdict;
use crate::daemon::channel::{Bytes48, ChannelError, WorkerId, pack48, unpack48};
use crate::daemon::start::StartError;
use crate::state::tokens::{Entry, Standing};
use crate::ticket::{self, Ticket};
use crate::token::{Secret, TokenId};
use crate::wire::event::{ByeReason, Refusal};
use crate::wire::handshake::Responder;

impl Keeper {
    /// Answers what a worker asks; forgets one that is gone. In a frame of its own, which is wiped.
    #[inline(never)]
    pub(super) fn hear_worker(&mut self, id: WorkerId) {
        for _ in 0..ROUND {
            let Some(worker) = self.workers.get(&id) else { return };
            match worker.channel.receive::<FromRecv>() {
                Ok(request) => self.answer(id, request),
                Err(ChannelError::WouldBlock) => return,
                Err(ChannelError::Closed) => return self.forget(id),
                Err(_) => return self.violation(id, "it sent what is no request"),
            }
        }
    }

    fn answer(&mut self, id: WorkerId, request: FromRecv) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match (&request, &mut worker.stage) {
            (FromRecv::Handshake(message), Stage::Fresh) => self.shake(id, &unpack48(message)),
            (FromRecv::Join { id: token, proof, session }, Stage::Shaken) => {
                let session = Session { token: TokenId(*token), instance: *session };
                match proof {
                    Proof::Secret(secret) => {
                        self.queue_secret(id, session, Box::new(Secret(*secret)))
                    }
                    Proof::Ticket(ticket) => self.check_ticket(id, session, ticket),
                }
            }
            (FromRecv::Ticket, Stage::Joined { session, ticket_at })
                if ticket_at.is_none_or(|at| at.elapsed() >= TICKET_PAUSE) =>
            {
                *ticket_at = Some(Instant::now());
                let token = session.token;
                if let Some(ticket) = self.ticket_for(token) {
                    self.say(id, &ToRecv::Ticket(ticket));
                }
            }
            // Too early by a hair, by two clocks: nothing comes back.
            (FromRecv::Ticket, Stage::Joined { .. }) => {}
            // It was told to leave at the same moment.
            (_, Stage::Leaving) => {}
            _ => self.violation(id, "it asked out of turn"),
        }
    }

    fn shake(&mut self, id: WorkerId, message: &[u8; 48]) {
        match self.keys.responder.respond(message) {
            Ok((reply, keys)) => {
                self.set_stage(id, Stage::Shaken);
                self.say(id, &ToRecv::Shaken { message: pack48(&reply), keys: Box::new(keys) });
            }
            Err(_) => {
                self.leave(id);
                self.say(id, &ToRecv::NotShaken);
            }
        }
    }

    fn queue_secret(&mut self, id: WorkerId, session: Session, secret: Box<Secret>) {
        if let Err((reason, message)) = self.standing(session.token) {
            return self.refuse(id, reason, message);
        }
        self.set_stage(id, Stage::Queued { session, secret });
        // From here on it waits for the keeper, not the keeper for it.
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.deadline = Some(Instant::now() + VERDICT_PATIENCE);
        }
        self.queue.push_back(id);
    }

    fn check_ticket(&mut self, id: WorkerId, session: Session, ticket: &Bytes48) {
        let ticket = Ticket(unpack48(ticket));
        let now = Timestamp::now().as_second().max(0) as u64;
        let hash = match self.standing(session.token) {
            Ok(entry) => &entry.hash,
            Err((reason, message)) => return self.refuse(id, reason, message),
        };
        let good = self.keys.tickets.verify(&ticket, hash, now).is_ok();
        if good && ticket.token() == session.token {
            self.set_stage(id, Stage::Waiting { session, by_ticket: true });
        } else {
            let message = "the ticket is over or not of this server; come back with the token";
            self.refuse(id, Refusal::Ticket, message.to_owned());
        }
    }

    /// Checks one queued secret: argon2 takes its time, and the others have their turn in between.
    /// In a frame of its own, which is wiped.
    #[inline(never)]
    pub(super) fn verify_one(&mut self) {
        let Some(id) = self.queue.pop_front() else { return };
        let Some(worker) = self.workers.get(&id) else { return };
        let Stage::Queued { session, secret } = &worker.stage else { return };
        let (session, secret) = (*session, secret.clone());
        let hash = match self.standing(session.token) {
            Ok(entry) => entry.hash.clone(),
            Err((reason, message)) => return self.refuse(id, reason, message),
        };
        if self.hasher.verify(&secret, &hash) {
            self.set_stage(id, Stage::Waiting { session, by_ticket: false });
        } else {
            let message = "the token's id is known here, but its secret is wrong".to_owned();
            self.refuse(id, Refusal::WrongSecret, message);
        }
    }

    /// Admits everyone whose predecessor in the same session is gone.
    pub(super) fn admit_waiting(&mut self) {
        let waiting: Vec<(WorkerId, Session, bool)> = self
            .workers
            .iter()
            .filter_map(|(id, worker)| match worker.stage {
                Stage::Waiting { session, by_ticket } => Some((*id, session, by_ticket)),
                _ => None,
            })
            .collect();
        for (id, session, by_ticket) in waiting {
            let same =
                |(other, (s, _)): (&WorkerId, &(Session, _))| (*s == session).then_some(*other);
            let previous: Vec<WorkerId> = self.members.iter().filter_map(same).collect();
            if previous.is_empty() {
                self.admit(id, session, by_ticket);
            }
            for previous in previous {
                self.end(previous, ByeReason::Replaced);
            }
        }
    }

    /// Gives the log's descriptors: the only place where that happens.
    fn admit(&mut self, id: WorkerId, session: Session, by_ticket: bool) {
        let token = session.token;
        let (name, role) = match self.standing(token) {
            Ok(entry) => (entry.name.clone(), entry.role),
            Err((reason, message)) => return self.refuse(id, reason, message),
        };
        let here = self.members.values().filter(|(s, _)| s.token == token).count();
        if here >= self.sessions {
            let message = format!("this token has {here} sessions already (limits.sessions)");
            return self.refuse(id, Refusal::Sessions, message);
        }
        if self.members.len() >= self.clients {
            return self.refuse(id, Refusal::Full, "the room is full (limits.clients)".into());
        }
        let Some(ticket) = self.ticket_for(token) else { return };
        let files = match self.open_for_recv() {
            Ok(files) => files,
            Err(problem) => {
                self.report.error(format_args!("the log cannot be opened: {problem}"));
                return self.refuse(id, Refusal::Internal, "the log cannot be opened".into());
            }
        };
        // The launcher first: whatever becomes of the worker, it then knows whose it was.
        self.tell(&FromKeeper::Joined { id, name: name.clone(), role, token });
        let floor = self.floor;
        let message = ToRecv::Admitted { name: name.clone(), role, token, ticket, floor };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.channel.send(&message, &files.each_ref().map(AsFd::as_fd)).is_err() {
            return self.violation(id, "it does not take its descriptors");
        }
        worker.deadline = None;
        worker.stage = Stage::Joined { session, ticket_at: None };
        self.members.insert(id, (session, name.clone()));
        self.presence.joined(&name, by_ticket, Instant::now());
    }

    /// The log's descriptors, with the rights that RECV shall have and no more.
    fn open_for_recv(&self) -> Result<[OwnedFd; 5], StartError> {
        let files = self.files.hand_out()?;
        for (file, entry) in files.iter().zip(rights::RECEIVED) {
            confine::limit_rights(file, entry.rights)?;
        }
        Ok(files)
    }

    fn ticket_for(&self, token: TokenId) -> Option<Box<IssuedTicket>> {
        let entry = self.tokens.find(token)?;
        let now = Timestamp::now().as_second().max(0) as u64;
        let expires = now + ticket::LIFETIME;
        let ticket = self.keys.tickets.issue(token, &entry.hash, expires);
        Some(Box::new(IssuedTicket { ticket: pack48(&ticket.0), expires }))
    }

    /// The token's entry, if it can join now.
    fn standing(&self, token: TokenId) -> Result<&Entry, (Refusal, String)> {
        let Some(entry) = self.tokens.find(token) else {
            return Err((Refusal::Unknown, "no token with this id was given out here".into()));
        };
        match entry.standing(Timestamp::now()) {
            Standing::Good => Ok(entry),
            Standing::Expired => Err((Refusal::Expired, "the token's time is over".into())),
            Standing::Revoked => Err((Refusal::Revoked, "the token was revoked".into())),
        }
    }

    /// Ends every session whose token can join no more.
    pub(super) fn end_bad_standing(&mut self) {
        let all: Vec<(WorkerId, TokenId)> =
            self.members.iter().map(|(id, (session, _))| (*id, session.token)).collect();
        for (id, token) in all {
            match self.standing(token) {
                Ok(_) => {}
                Err((Refusal::Expired, _)) => self.end(id, ByeReason::Expired),
                Err(_) => self.end(id, ByeReason::Revoked),
            }
        }
    }

    fn refuse(&mut self, id: WorkerId, reason: Refusal, message: String) {
        if let Some(worker) = self.workers.get(&id) {
            self.report.notice(format_args!("{} is refused: {message}", worker.source));
        }
        self.leave(id);
        let bad_token =
            [Refusal::Unknown, Refusal::WrongSecret, Refusal::Expired, Refusal::Revoked];
        if bad_token.contains(&reason) {
            self.tell(&FromKeeper::Judged { id, verdict: Verdict::BadToken });
        }
        self.say(id, &ToRecv::Refused { reason, message });
    }

    fn violation(&mut self, id: WorkerId, what: &str) {
        if matches!(self.workers.get(&id).map(|w| &w.stage), None | Some(Stage::Leaving)) {
            return; // Once is enough.
        }
        if let Some(worker) = self.workers.get(&id) {
            self.report.warning(format_args!("RECV for {} misbehaves: {what}", worker.source));
        }
        self.set_stage(id, Stage::Leaving);
        self.tell(&FromKeeper::Judged { id, verdict: Verdict::Violation });
        self.tell(&FromKeeper::Remove { id });
    }

    /// Says something; a worker that does not take it is not worth waiting for.
    fn say(&mut self, id: WorkerId, message: &ToRecv) {
        let sent = self.workers.get(&id).map(|w| w.channel.send(message, &[]));
        if matches!(sent, Some(Err(ChannelError::WouldBlock | ChannelError::System(_)))) {
            self.violation(id, "it does not take its answers");
        }
    }

    fn set_stage(&mut self, id: WorkerId, stage: Stage) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.stage = stage;
        }
    }

    /// From here on the worker has a moment to be gone.
    fn leave(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.stage = Stage::Leaving;
            worker.deadline = Some(Instant::now() + PATIENCE);
        }
    }

    /// Tells a worker to leave, and why.
    pub(super) fn end(&mut self, id: WorkerId, reason: ByeReason) {
        let Some(worker) = self.workers.get(&id) else { return };
        if !matches!(worker.stage, Stage::Leaving) {
            self.leave(id);
            self.say(id, &ToRecv::End { reason });
        }
    }

    /// RECV is gone: it keeps its end of the channel open to its last moment, and so the log's
    /// descriptors are closed, too. One that closed it for another reason must not stay: nobody
    /// could end its session any more.
    fn forget(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.tell(&FromKeeper::Gone { id });
        if let Some((_, name)) = self.members.remove(&id) {
            self.presence.left(&name, Instant::now());
        }
    }
}
