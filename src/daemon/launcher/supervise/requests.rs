//! What an administrator asks of the running service: status, kick, pause, resume, reload.

use super::*;
use crate::room::offset::Offset;

impl Supervisor {
    pub(super) fn take_callers(&mut self) {
        for (place, request) in self.plumbing.control.take() {
            let answer = match request {
                Some(Request::Status) => self.status(),
                Some(Request::Reload) => self.reload(),
                Some(Request::Tokens) => self.reload_tokens(),
                Some(Request::Pause) => self.pause(),
                Some(Request::Resume) => self.resume(),
                Some(Request::Sealed) => self.sealed(),
                Some(Request::Unsealed) => self.unsealed(),
                Some(Request::Pruned(to, who)) => self.pruned(Offset(to), &who),
                Some(Request::Kick(whom)) => self.kick(&whom),
                None => "error: this service does not know that request\n".to_owned(),
            };
            self.plumbing.control.answer(place, answer);
        }
    }

    /// One JSON object a line: the service first, then every client.
    pub(super) fn status(&self) -> String {
        let door = match self.door {
            // It is closed in a moment, and then opened by the next listener.
            Door::Open(Listener { then: Then::Reopened, .. }) => "restarting",
            Door::Open(_) => "open",
            Door::Restarting(_) => "restarting",
            Door::Closed => "closed",
        };
        let listener = self.door.listener().map(|listener| listener.pid.as_raw());
        let starting = self.workers.iter().filter(|(_, w)| w.member.is_none());
        let starting: Vec<i32> = starting.map(|(_, w)| w.pid.as_raw()).collect();
        let service = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "room": self.config.room.name,
            "pid": getpid().as_raw(),
            "keeper": self.keeper.pid.as_raw(),
            "listener": listener,
            "rootless": !self.was_root,
            "uptime_seconds": self.began.elapsed().as_secs(),
            "door": door,
            "addresses": self.addresses(),
            "socket_activated": self.plumbing.lent,
            "sandbox": self.confined.as_ref().map(Report::to_string),
            "level": self.confined.as_ref().map(|report| report.level),
            "tokens": self.tokens,
            "clients": self.workers.iter().filter(|(_, w)| w.member.is_some()).count(),
            "starting": starting.len(),
            "starting_pids": starting,
            "counters": self.counters,
            "violations": self.violations.last(),
            "unsealed_since": self.unsealed_since,
        });
        let mut text = format!("{service}\n");
        for (_, worker) in self.workers.iter() {
            let Some((name, role, token)) = &worker.member else { continue };
            let client = serde_json::json!({
                "name": name,
                "role": role,
                "token": token,
                "address": worker.source.to_string(),
                "pid": worker.pid.as_raw(),
                "age_seconds": worker.since.elapsed().as_secs(),
            });
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{client}");
        }
        text
    }

    /// Root says so; the launcher cannot look, for it has no way to the log.
    pub(super) fn unsealed(&mut self) -> String {
        self.unsealed_since.get_or_insert_with(Timestamp::now);
        let text = "room.log was unsealed by hand: until `papayad log seal`, or a new start, root \
                    can cut and replace it, and only the confinement keeps others from it";
        self.log(Severity::Warning, text);
        "the service was told\n".into()
    }

    pub(super) fn sealed(&mut self) -> String {
        if self.unsealed_since.take().is_some() {
            self.log(Severity::Notice, "room.log was sealed again");
        }
        "the service was told\n".into()
    }

    pub(super) fn pause(&mut self) -> String {
        let listener = match &mut self.door {
            Door::Open(listener) => listener,
            Door::Restarting(_) => return self.close_door(),
            Door::Closed => return "the door is closed already\n".into(),
        };
        match listener.channel.send(&ToListener::Close, &[]) {
            // A listener that crashes first is not started again.
            Ok(()) | Err(ChannelError::Closed) => {
                listener.then = Then::Closed;
                self.manager.status_changed();
                "the door closes; whoever is connected stays\n".into()
            }
            Err(problem) => format!("error: the listener does not answer: {problem}\n"),
        }
    }

    /// Closes the door while there is no listener to do it.
    pub(super) fn close_door(&mut self) -> String {
        self.door = Door::Closed;
        self.manager.status_changed();
        for index in 0..self.plumbing.sockets.len() {
            if let Err(cause) = listener::door::close(&self.plumbing.sockets[index]) {
                let text = format!("the door does not close: {}", cause.desc());
                self.log(Severity::Error, &text);
            }
        }
        self.log(Severity::Notice, "the door is closed; `papayad resume` opens it");
        "the door is closed; whoever is connected stays\n".into()
    }

    pub(super) fn resume(&mut self) -> String {
        if let Door::Open(listener) = &mut self.door {
            return match listener.then {
                Then::Closed | Then::Reopened => {
                    listener.then = Then::Reopened;
                    self.manager.status_changed();
                    "the door is about to close, and opens again then\n".into()
                }
                Then::Unasked => "the door is open\n".into(),
            };
        }
        self.open_door();
        match self.door {
            Door::Open(_) => {
                self.log(Severity::Notice, "the door is open again");
                "the door is open\n".into()
            }
            _ => "error: the door does not open; see the log\n".into(),
        }
    }

    pub(super) fn kick(&mut self, whom: &str) -> String {
        let is_meant = |w: &Worker| {
            w.pid.as_raw().to_string() == whom
                || w.member.as_ref().is_some_and(|(name, ..)| name.as_str() == whom)
        };
        let meant: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| is_meant(w)).map(|(id, _)| id).collect();
        for id in &meant {
            if !self.tell_keeper(&ToKeeper::End { id: *id, reason: ByeReason::Kicked }) {
                return "error: the keeper is busy; try again\n".into();
            }
            self.doom(*id, KICKED);
        }
        match meant.len() {
            0 => format!("unknown: nobody here has the name or process id {whom:?}\n"),
            n => {
                let text = format!("{whom} was kicked ({n} sessions)");
                self.log(Severity::Notice, &text);
                format!("{text}\n")
            }
        }
    }

    /// The log was pruned: whoever joins from now on begins behind that, and there is a new record.
    pub(super) fn pruned(&mut self, to: Offset, who: &str) -> String {
        let text = format!("{who} removed everything before offset {to} from the log");
        self.log(Severity::Notice, &text);
        self.bell.pulled(1);
        if self.tell_keeper(&ToKeeper::Pruned { to }) {
            "the service knows\n".into()
        } else {
            "error: the keeper is busy\n".into()
        }
    }

    /// SIGHUP: tokens, and what of the configuration can change while the service runs.
    pub(super) fn reload(&mut self) -> String {
        if self.announced {
            self.reloading = true;
            self.manager.reloading();
        }
        let text = match Config::load(&self.config_path) {
            Ok(new) => self.change(new),
            Err(failure) => format!("the configuration stays as it was: {failure}"),
        };
        self.log(Severity::Notice, &text);
        let keeper = self.reload_tokens();
        format!("{text}\n{keeper}")
    }

    /// Has the keeper read the tokens again; it says itself in the log what came of it.
    pub(super) fn reload_tokens(&mut self) -> String {
        let limits = &self.config.limits;
        let reload = ToKeeper::Reload { sessions: limits.sessions, grace: limits.grace };
        if self.tell_keeper(&reload) {
            self.keeper_owes += 1;
            "the tokens are read again\n".into()
        } else {
            "error: the keeper is busy; send the service SIGHUP\n".into()
        }
    }

    pub(super) fn change(&mut self, new: Config) -> String {
        let fixed = new.needs_restart(&self.config);
        let limits_changed = new.limits != self.config.limits;
        if new.syslog != self.config.syslog {
            self.journal.change(&new.syslog);
        }
        self.config = new.after_reload(&self.config);
        self.flush.configure(self.config.log.durability);
        if limits_changed && let Door::Open(listener) = &mut self.door {
            // The sockets stay open, so connections wait while a listener with the new limits starts.
            let _ = kill(listener.pid, Signal::SIGKILL);
            listener.renewed = true;
        }
        if fixed.is_empty() {
            "the configuration was read again; new clients get it".into()
        } else {
            format!("the configuration was read again, but {} needs a restart", fixed.join(", "))
        }
    }
}
