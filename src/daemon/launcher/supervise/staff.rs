//! The launcher's workers: starting a RECV for each connection, what the keeper says of them, and
//! removing one that holds a lock.

use super::*;

impl Supervisor {
    pub(super) fn start_worker(&mut self, id: WorkerId, client: OwnedFd) {
        // A client that is gone already has no address, and needs no worker.
        let Some(source) = listener::peer(&client) else {
            return self.untold.push_back(ToListener::Ended(id, Verdict::Orderly));
        };
        // What the kernel says from here on of the new process's number is about the new process.
        self.violations.read();
        match self.spawn_worker(id, source, &client) {
            Ok(pid) => {
                self.violations.forget(pid);
                let since = Instant::now();
                self.workers.insert(id, Worker { pid, source, member: None, judged: None, since });
            }
            Err(problem) => {
                let hint = match problem {
                    ChannelError::System(Errno::EAGAIN) => {
                        " (their user has as many processes as it may: do rooms share it?)"
                    }
                    _ => "",
                };
                let text = format!("no process for {source}: {problem}{hint}");
                self.log(Severity::Error, &text);
                self.untold.push_back(ToListener::Ended(id, Verdict::Orderly));
            }
        }
    }

    /// The listener counts too; this holds even if somebody else speaks in its place.
    pub(super) fn workers_max(&self) -> usize {
        self.config.limits.clients as usize + self.config.limits.startups.full as usize
    }

    pub(super) fn spawn_worker(
        &self,
        id: WorkerId,
        source: SocketAddr,
        client: &OwnedFd,
    ) -> Result<Pid, ChannelError> {
        let (theirs, keepers) = Channel::pair()?;
        confine::limit_rights(&keepers, rights::CHANNEL)?;
        confine::limit_rights(client, rights::CLIENT_AT_START)?;
        keepers.send(&ToRecv::Settings(Box::new(self.settings(id, source))), &[])?;
        self.plumbing.filters.iter().try_for_each(|filter| keepers.send_bytes(filter))?;
        self.keeper.channel.send(&ToKeeper::Worker { id, source }, &[keepers.as_fd()])?;
        let title = format!("{}- {source}", recv::ARGUMENT);
        let argument = |text: String| CString::new(text).map_err(|_| Errno::EINVAL);
        let arguments = [argument(title)?, argument(" ".repeat(TITLE_ROOM))?];
        let table = [
            client.as_raw_fd(),
            theirs.raw(),
            self.plumbing.report.1.as_raw_fd(),
            self.plumbing.bell.1.as_raw_fd(),
        ];
        // Not as the channels' EAGAIN, which means another thing.
        sys::process::spawn(&self.plumbing.program, &arguments, &table)
            .map_err(ChannelError::System)
    }

    pub(super) fn settings(&self, id: WorkerId, source: SocketAddr) -> Settings {
        let Config { room, limits, log, sandbox, .. } = &self.config;
        Settings {
            id,
            source,
            launcher: getpid().as_raw(),
            room: room.name.clone(),
            motd: room.motd.clone(),
            message_bytes: limits.message_bytes,
            rate: limits.rate.messages,
            rate_per: limits.rate.per,
            burst: limits.burst,
            grace: limits.grace,
            durability: log.durability,
            sandbox: *sandbox,
        }
    }

    pub(super) fn keeper_ended(&mut self, how: &str) {
        let what = format!("the keeper ended ({how}); without it nobody can join");
        self.end(Err(Failure::new(Exit::Internal, what)));
    }

    pub(super) fn hear_keeper(&mut self) {
        for _ in 0..ROUND {
            match self.keeper.channel.receive::<FromKeeper>() {
                Ok(message) => self.keeper_says(message),
                Err(ChannelError::WouldBlock) => return,
                Err(_) if self.stop.is_some() => return,
                Err(_) => {
                    // Its channel closes a moment before it can be reaped, and would wake us for
                    // ever until then.
                    return match KeeperChild::reap(self.keeper.pid, KEEPER_END) {
                        Some(status) => self.reaped(status),
                        None => self.keeper_ended("its channel is closed"),
                    };
                }
            }
        }
    }

    pub(super) fn keeper_says(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Joined { id, name, role, token } => {
                let Some(worker) = self.workers.get_mut(id) else { return };
                worker.member = Some((name, role, token));
                self.manager.status_changed();
                self.counters.joins += 1;
                let text = format!("{}: joined ({role}, token {token})", worker.label());
                self.journal.line(Severity::Info, &text);
                self.untold.push_back(ToListener::Joined(id));
            }
            FromKeeper::Judged { id, verdict } => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.judged = Some(verdict);
                }
            }
            FromKeeper::Gone { id } => self.doom(id, ENDING),
            FromKeeper::Remove { id } => {
                if let Some(pid) = self.workers.get(id).map(|w| w.pid) {
                    self.remove_process(pid);
                }
            }
            FromKeeper::Reloaded { outcome: Ok(tokens) } => {
                self.keeper_owes = self.keeper_owes.saturating_sub(1);
                self.tokens = tokens;
                let text = format!("the tokens were read again: {tokens} can join");
                self.log(Severity::Info, &text);
            }
            FromKeeper::Reloaded { outcome: Err(problem) } => {
                self.keeper_owes = self.keeper_owes.saturating_sub(1);
                let text = format!("the tokens stay as they were: {problem}");
                self.log(Severity::Error, &text);
            }
            FromKeeper::Pong => self.manager.alive(),
            FromKeeper::Flushed => self.flush.answered(),
            FromKeeper::Ready { .. } | FromKeeper::Failed { .. } => {}
        }
    }

    /// Never waits: the keeper may be waiting for the launcher at that moment. Says whether it
    /// was told.
    pub(super) fn tell_keeper(&mut self, message: &ToKeeper) -> bool {
        let told = self.keeper.channel.send(message, &[]);
        if let Err(problem) = &told {
            let text = format!("the keeper was not told: {problem}");
            self.log(Severity::Error, &text);
        }
        told.is_ok()
    }

    pub(super) fn watch_locks(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        for holder in self.locks.look() {
            match holder {
                Holder::Lives(pid) => self.stop_holder(pid),
                Holder::Gone(_) => {
                    self.sweep();
                }
                Holder::Left(pid) => self.remove_members(pid),
            }
        }
    }

    fn stop_holder(&mut self, holder: Pid) {
        let launcher = getpid();
        // RECV itself, or the RECV whose SEND it is, or that forked it before its second filter.
        let known = |pid: Pid| pid == launcher || self.workers.id_of(pid).is_some();
        let found = ancestor(holder, known);
        if let Some(worker) = found.and_then(|pid| self.workers.id_of(pid)) {
            let Some((pid, label)) = self.workers.get(worker).map(|w| (w.pid, w.label())) else {
                return;
            };
            let text = format!("{label}: holds the log's lock and lets nobody in; removed");
            self.journal.line(Severity::Error, &text);
            self.remove_process(pid);
        } else if found == Some(launcher) && holder != self.keeper.pid && holder != launcher {
            // What an owned RECV left behind: it is an own child, or will be.
            self.sweep();
            self.locks.doubt(holder);
        } else {
            let text = format!(
                "process {holder}, which is not of this service, holds the log's lock; end it"
            );
            self.log(Severity::Error, &text);
        }
    }

    /// Somebody here shares an open file with a process that locked it and is gone. Only who may
    /// open the log can have it, but which of them cannot be told: all have to go. They are not to
    /// blame, and come back by their tickets.
    fn remove_members(&mut self, holder: Pid) {
        self.hear_keeper();
        let own = |w: &Worker| w.member.is_some() && self.workers.id_of(w.pid).is_some();
        let members = self.workers.iter().filter(|(_, w)| own(w));
        let pids: Vec<Pid> = members.map(|(_, w)| w.pid).collect();
        let text = format!(
            "process {holder} is gone and has left the log locked for all, by one of {} clients, and it cannot be told by whom: all are removed, and may come back at once",
            pids.len()
        );
        self.log(Severity::Error, &text);
        self.counters.ended(Verdict::Violation);
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}
