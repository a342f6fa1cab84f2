//! What the launcher tells the service manager, and when.

use super::*;

impl Supervisor {
    /// One look: whether a reload is over, whether the watchdog wants to be fed, what has changed.
    pub(super) fn mind_manager(&mut self) {
        // Also where nothing is said: what stays due would keep the launcher awake.
        let watchdog = self.manager.watchdog_is_due();
        if self.stop.is_some() {
            return self.manager.pass_over_status();
        }
        if self.reloading && self.keeper_owes == 0 && self.door_has_settled() {
            self.reloading = false;
            let status = self.summary();
            self.manager.ready(&status);
        }
        if watchdog && self.flush.is_under_way(Instant::now()) {
            // The keeper waits for the disk. A restart would not make that faster.
            self.manager.alive();
        } else if watchdog {
            // Its answer feeds the watchdog: so both loops go round. One that has no room for the
            // question does not go round.
            let _ = self.keeper.channel.send(&ToKeeper::Ping, &[]);
        }
        if !self.announced || self.reloading {
            // READY follows, and says it.
            return self.manager.pass_over_status();
        }
        let Self { manager, workers, config, door, .. } = self;
        manager.tell_status(|| summary(config, workers, door));
    }

    /// How things stand, in one line.
    pub(super) fn summary(&self) -> String {
        summary(&self.config, &self.workers, &self.door)
    }

    /// Whether no listener is about to start.
    fn door_has_settled(&self) -> bool {
        match &self.door {
            Door::Open(listener) => listener.listening && !listener.renewed,
            Door::Restarting(_) => false,
            Door::Closed => true,
        }
    }
}

fn summary(config: &Config, workers: &Workers, door: &Door) -> String {
    let clients = workers.iter().filter(|(_, w)| w.member.is_some()).count();
    let clients = match clients {
        1 => "1 client".to_owned(),
        n => format!("{n} clients"),
    };
    let door = match door {
        Door::Open(Listener { then: Then::Reopened, .. }) => "about to be opened again",
        Door::Open(Listener { listening: true, .. }) => "open",
        Door::Open(_) | Door::Restarting(_) => "broken; the listener is started again",
        Door::Closed => "closed",
    };
    format!("{clients} in room {:?}; the door is {door}", config.room.name)
}
