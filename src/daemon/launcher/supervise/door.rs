//! The launcher's door: starting, replacing and closing the listener, and the connections it hands over.

use super::*;

impl Door {
    /// The listener, if one is running.
    pub(super) fn listener(&self) -> Option<&Listener> {
        match self {
            Self::Open(listener) => Some(listener),
            Self::Restarting(_) | Self::Closed => None,
        }
    }
}

impl Supervisor {
    pub(super) fn open_door(&mut self) {
        if self.door.listener().is_some() || self.stop.is_some() {
            return;
        }
        for index in 0..self.plumbing.sockets.len() {
            if let Err(cause) = listener::door::open(&self.plumbing.sockets[index]) {
                let text = format!("the door does not open: {}", cause.desc());
                self.log(Severity::Error, &text);
            }
        }
        match self.fork_listener() {
            Ok(listener) => self.door = Door::Open(listener),
            Err(cause) => {
                let text = format!("the listener does not start: {}", cause.desc());
                self.log(Severity::Error, &text);
                self.door = Door::Restarting(Instant::now() + self.back_off);
            }
        }
    }

    fn fork_listener(&mut self) -> Result<Listener, Errno> {
        let (mine, theirs) = Channel::pair()?;
        self.untold.clear(); // The new listener is told by `clients` who is here.
        let sockets: Vec<i32> = self.plumbing.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let clients = self.workers.iter().map(|(id, w)| (id, w.source, w.member.is_some()));
        let start = listener::Start {
            channel: theirs.raw(),
            report: self.plumbing.report.1.as_raw_fd(),
            null: self.plumbing.null.as_raw_fd(),
            sockets: &sockets,
            lent: self.plumbing.lent,
            launcher: getpid(),
            config: &self.config,
            next: self.next_id,
            clients: clients.collect(),
        };
        let pid = sys::process::fork_role(|| listener::run(start))?;
        let (since, then) = (Instant::now(), Then::Unasked);
        Ok(Listener { pid, channel: mine, since, listening: false, renewed: false, then })
    }

    pub(super) fn listener_ended(&mut self, status: WaitStatus) {
        // What it accepted before it ended is served.
        self.take_connections();
        let Door::Open(Listener { since, renewed, then, .. }) = self.door else { return };
        if let WaitStatus::Signaled(_, Signal::SIGSYS, _) = status {
            self.counters.ended(Verdict::Violation);
        }
        let well = matches!(status, WaitStatus::Exited(_, 0));
        if self.stop.is_some() {
            self.door = Door::Closed;
            if !well && !renewed {
                let text = format!("the listener ended ({})", describe(status));
                self.log(Severity::Error, &text);
            }
            return;
        }
        match then {
            Then::Reopened if well => {
                self.door = Door::Closed;
                self.open_door();
            }
            // It has shut them, but for those that are lent.
            Then::Closed | Then::Unasked if well && !self.plumbing.lent => {
                self.door = Door::Closed;
                self.log(Severity::Notice, "the door is closed; `papayad resume` opens it");
            }
            Then::Closed => drop(self.close_door()),
            Then::Unasked if well => drop(self.close_door()),
            Then::Unasked | Then::Reopened if renewed => {
                self.door = Door::Restarting(Instant::now());
                self.log(Severity::Info, "the listener is started again with the new limits");
            }
            Then::Unasked | Then::Reopened => self.listener_crashed(since, status),
        }
    }

    fn listener_crashed(&mut self, since: Instant, status: WaitStatus) {
        if since.elapsed() >= SETTLED {
            self.back_off = BACK_OFF.0;
        }
        let text = format!(
            "the listener ended ({}); nobody who is connected is touched; it is started again in {} ms",
            describe(status),
            self.back_off.as_millis()
        );
        self.log(Severity::Error, &text);
        self.door = Door::Restarting(Instant::now() + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    pub(super) fn restart_listener(&mut self) {
        if matches!(self.door, Door::Restarting(at) if at <= Instant::now()) {
            self.open_door();
        }
    }

    pub(super) fn hear_listener(&mut self) {
        if !self.take_connections() {
            self.distrust_listener();
        }
    }

    /// Starts workers for what the listener handed over; whether it keeps to the protocol.
    pub(super) fn take_connections(&mut self) -> bool {
        for _ in 0..ROUND {
            let Some(Listener { channel, .. }) = self.door.listener() else { return true };
            match channel.receive_fds::<FromListener>() {
                Ok(got) => {
                    let full = self.workers.len() >= self.workers_max();
                    // It hears of each worker twice at most: more waits only for one that is deaf.
                    let deaf = self.untold.len() >= 2 * self.workers_max();
                    match (got.message, got.fds.into_iter().next()) {
                        (FromListener::Open, None) => self.door_is_open(),
                        (FromListener::Penalty, None) => self.counters.penalties += 1,
                        (FromListener::TurnedAway(more), None) => {
                            self.counters.refusals.at_the_door.add(more);
                        }
                        (FromListener::Start { id }, Some(client))
                            // Without gaps, or it could use the numbers up.
                            if id == self.next_id && !full && !deaf =>
                        {
                            let Some(next) = id.next() else { return false };
                            self.next_id = next;
                            // While the service ends, it would be one more to be ended.
                            if self.stop.is_some() {
                                self.untold.push_back(ToListener::Ended(id, Verdict::Orderly));
                            } else {
                                self.start_worker(id, client);
                            }
                        }
                        _ => return false,
                    }
                }
                Err(ChannelError::WouldBlock | ChannelError::Closed) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// A listener that says what no listener says is killed, and so started again.
    pub(super) fn distrust_listener(&mut self) {
        if let Some(&Listener { pid, .. }) = self.door.listener() {
            self.log(Severity::Error, "the listener does not keep to the protocol");
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    pub(super) fn tell_listener(&mut self) {
        while let (Some(listener), Some(message)) = (self.door.listener(), self.untold.front()) {
            if listener.channel.send(message, &[]).is_err() {
                return;
            }
            self.untold.pop_front();
        }
        if self.door.listener().is_none() {
            self.untold.clear();
        }
    }
}
