//! Promise: a process of a running service that an attacker controls cannot escape. Each attack of
//! the catalogue ends the process that tries it, which is logged with its client's name and
//! address, and counted; the rest of the room does not notice. The keeper's end is the service's,
//! and leaves a whole log. Needs root, which alone may have another process do its bidding.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/debugged.rs"]
mod debugged;

#[cfg(not(target_arch = "x86_64"))]
use debugged as live;

fn main() -> std::process::ExitCode {
    debugged::run(live::trials())
}

#[cfg(target_arch = "x86_64")]
mod live {
    use std::any::Any;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, JoinHandle};

    use libtest_mimic::{Failed, Trial};
    use nix::sys::signal::Signal;
    use papayachat::confine::attack::{self, Attack, Refusal};
    use papayachat::confine::{Role, policy};
    use papayachat::exit::Exit;
    use papayachat::ticket::Ticket;
    use papayachat::token::Token;
    use serde_json::Value;

    use super::debugged::people::{Person, read_token};
    use super::debugged::processes::{all, child_titled, titled, wait_confined, wait_until};
    use super::debugged::raw_client::{RawClient, connect};
    use super::debugged::service::{Message, Service, level, wait_child};
    use super::debugged::tracer::{End, Tracee};

    /// Fewer would not be the catalogue.
    const LEAST: usize = 100;
    /// The keeper's attacks, each of which ends a service, are shared out.
    const PARTS: usize = 2;

    pub fn trials() -> Vec<Trial> {
        let mut trials: Vec<Trial> = [
            ("RECV whose client has said nothing", Place::Silent),
            ("RECV after the handshake", Place::Shaken),
            ("RECV that has joined", Place::Joined),
            ("SEND", Place::Send),
            ("the listener", Place::Listener),
            ("the launcher, where it is refused and not killed", Place::Launcher),
        ]
        .into_iter()
        .map(|(name, place)| Trial::test(name, move || attack_in(place)))
        .collect();
        trials.push(Trial::test(
            "RECV that has joined receives no descriptor from an owned keeper",
            a_descriptor_is_sent,
        ));
        trials.extend((0..PARTS).map(|part| {
            let name = format!("the keeper, part {} of {PARTS}", part + 1);
            Trial::test(name, move || attack_keeper(part))
        }));
        trials
    }

    /// An owned keeper sends its own directory to a RECV.
    fn a_descriptor_is_sent() -> Result<(), Failed> {
        let mut room = Room::open();
        // Before the token it gets through, since the log has to: so this is how it is done.
        let guest = room.victim_and_channel(Place::Silent);
        let before = descriptors(guest.0.pid).len();
        assert_eq!(room.pass_descriptor(&guest), End::Returned(1));
        assert_eq!(descriptors(guest.0.pid).len(), before + 1);
        drop(guest);
        let member = room.victim_and_channel(Place::Joined);
        assert_eq!(room.pass_descriptor(&member), End::Killed(Signal::SIGSYS));
        room.mourn(Place::Joined, &member.0);
        room.close(1);
        Ok(())
    }

    /// The descriptors of a process, by number, with what they are.
    fn descriptors(pid: i32) -> BTreeMap<i32, String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let entry = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            // It may have been closed meanwhile.
            Some((number, fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
        };
        entries.filter_map(entry).collect()
    }

    /// Which live process.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Place {
        Silent,
        Shaken,
        Joined,
        Send,
        Listener,
        Launcher,
    }

    impl Place {
        fn role(self) -> Role {
            match self {
                Self::Silent | Self::Shaken => Role::Recv,
                Self::Joined => Role::RecvJoined,
                Self::Send => Role::Send,
                Self::Listener => Role::Listener,
                Self::Launcher => Role::Launcher,
            }
        }

        /// The catalogue. What the launcher's filter kills for would end the service that is
        /// looked at.
        fn attacks(self) -> Vec<Attack> {
            let all = attacks_on(self.role());
            let killed = |a: &Attack| a.refusal(self.role(), level()) == Refusal::Killed;
            match self {
                Self::Launcher => all.into_iter().filter(|a| !killed(a)).collect(),
                _ => {
                    assert!(all.iter().filter(|a| killed(a)).count() >= LEAST);
                    all
                }
            }
        }
    }

    fn attacks_on(role: Role) -> Vec<Attack> {
        let tried = |a: &Attack| {
            a.is_for(role) && a.number().is_some() && a.refusal(role, level()) != Refusal::Open
        };
        attack::all().into_iter().filter(tried).collect()
    }

    fn attack_in(place: Place) -> Result<(), Failed> {
        let mut room = Room::open();
        let attacks = place.attacks();
        survives(room.victim(place).pid);
        let mut deaths = 0;
        for attack in &attacks {
            let victim = room.victim(place);
            let mut tracee = Tracee::seize(victim.pid);
            let end = tracee.attempt(attack);
            if end != wanted(attack, place.role()) {
                return Err(format!("{place:?}: {}: {end:?}", attack.name()).into());
            }
            match end {
                End::Killed(_) => {
                    deaths += 1;
                    room.mourn(place, &victim);
                }
                _ => drop(tracee),
            }
        }
        println!("{place:?}: {} attacks, {deaths} deaths", attacks.len());
        room.close(deaths);
        Ok(())
    }

    /// The control: what is allowed comes back, or the deaths would show nothing.
    fn survives(pid: i32) {
        let end = Tracee::seize(pid).call(libc::SYS_gettid, [0; 6]);
        assert_eq!(end, End::Returned(pid.into()));
    }

    fn wanted(attack: &Attack, role: Role) -> End {
        match attack.refusal(role, level()) {
            Refusal::Killed => End::Killed(Signal::SIGSYS),
            Refusal::Fails(errno) => End::Returned(-i64::from(errno)),
            Refusal::Open => unreachable!("attacks_on() leaves these out"),
        }
    }

    /// A process to attack from inside.
    struct Victim {
        pid: i32,
        /// How the launcher's log names it.
        label: String,
        /// Its client's end, which stays open.
        _connection: Box<dyn Any>,
    }

    /// A service in which two people talk all the time, and a third comes for the attacks.
    struct Room {
        service: Service,
        stop: Arc<AtomicBool>,
        talkers: Vec<JoinHandle<Memory>>,
        talkers_pids: Vec<i32>,
        carol: Token,
        ticket: Ticket,
        visits: u128,
    }

    /// What a talker was shown, and how often it had to come back.
    struct Memory {
        seen: Vec<Message>,
        returns: usize,
    }

    impl Room {
        fn open() -> Self {
            let service = Service::start("");
            let stop = Arc::new(AtomicBool::new(false));
            let talkers = [("alice", "bob"), ("bob", "alice")].map(|(name, other)| {
                let token = read_token(&service.token(name, &[]));
                let (server, stop) = (service.address(), Arc::clone(&stop));
                thread::spawn(move || talk(server, &token, name, other, &stop))
            });
            let carol = read_token(&service.token("carol", &[]));
            let (guest, welcome) = RawClient::join(service.port, &carol, 0);
            drop(guest);
            // Both of them, and not the guest and the one who was faster.
            let is_here = |clients: &[Value], name| clients.iter().any(|c| c["name"] == name);
            service.wait_for_status(|_, clients| {
                clients.len() == 2 && is_here(clients, "alice") && is_here(clients, "bob")
            });
            let mut room = Self {
                service,
                stop,
                talkers: talkers.into(),
                talkers_pids: Vec::new(),
                carol,
                ticket: welcome.ticket,
                visits: 0,
            };
            room.talkers_pids = room.pids();
            room
        }

        fn pids(&self) -> Vec<i32> {
            ["alice", "bob"].iter().flat_map(|name| self.service.recvs_of(name)).collect()
        }

        /// A fresh process, confined and at its work.
        fn victim(&mut self, place: Place) -> Victim {
            let launcher = self.service.launcher.id() as i32;
            let victim = |pid, label: String, connection: Box<dyn Any>| {
                wait_confined(pid, place.role());
                Victim { pid, label, _connection: connection }
            };
            let recv = |label: &str| child_titled(launcher, &format!("papayad: {label}"));
            match place {
                Place::Silent => {
                    let stream = connect(self.service.port);
                    let label = format!("recv - {}", stream.local_addr().unwrap());
                    victim(recv(&label), label, Box::new(stream))
                }
                Place::Shaken => {
                    let client = RawClient::shake(self.service.port, &self.carol);
                    let label = format!("recv - {}", client.stream.local_addr().unwrap());
                    victim(recv(&label), label, Box::new(client))
                }
                Place::Joined => {
                    let (client, label) = self.visit();
                    victim(recv(&label), label, Box::new(client))
                }
                Place::Send => {
                    let (client, label) = self.visit();
                    let pid = child_titled(recv(&label), "papayad: send carol");
                    victim(pid, label, Box::new(client))
                }
                Place::Listener => {
                    let pid = child_titled(launcher, "papayad: listener");
                    victim(pid, "launcher".to_owned(), Box::new(()))
                }
                Place::Launcher => victim(launcher, "launcher".to_owned(), Box::new(())),
            }
        }

        /// The same for a RECV, and the number of its channel in the keeper.
        fn victim_and_channel(&mut self, place: Place) -> (Victim, i32) {
            let keeper = titled(&self.service, "papayad: keeper").pid;
            // With what they are: the number may have been that of a channel that is closed since.
            let channels = || -> BTreeSet<(i32, String)> {
                let all = descriptors(keeper).into_iter();
                all.filter(|(_, what)| what.starts_with("socket:")).collect()
            };
            let before = channels();
            let victim = self.victim(place);
            let mut new = BTreeSet::new();
            wait_until("the keeper has its channel", || {
                new = channels().difference(&before).cloned().collect();
                new.len() == 1
            });
            (victim, new.pop_first().unwrap().0)
        }

        /// Has the keeper send its directory over a channel, and the RECV at its other end receive.
        fn pass_descriptor(&self, (victim, channel): &(Victim, i32)) -> End {
            let mut recv = Tracee::seize(victim.pid);
            let mut keeper = Tracee::seize(titled(&self.service, "papayad: keeper").pid);
            assert_eq!(keeper.send(*channel, &[0], Some(policy::keeper::STATE)), End::Returned(1));
            drop(keeper);
            recv.receive(policy::recv::KEEPER)
        }

        /// Carol is in the room once more.
        fn visit(&mut self) -> (RawClient, String) {
            self.visits += 1;
            let (port, carol) = (self.service.port, &self.carol);
            let (client, _) = RawClient::join_by(&self.ticket, port, carol, self.visits);
            let label = format!("recv carol {}", client.stream.local_addr().unwrap());
            (client, label)
        }

        /// The launcher says who died, and of what.
        fn mourn(&mut self, place: Place, victim: &Victim) {
            let Victim { pid, label, .. } = victim;
            let line = match place {
                Place::Send => format!("{label}: SEND (process {pid}) was killed by SIGSYS"),
                Place::Listener => format!("{label}: the listener ended (killed by its filter"),
                _ => format!("{label}: ended (killed by its filter"),
            };
            self.service.wait_for_line(&line);
            if place == Place::Listener {
                // A listener that crashes again and again is started ever later, unless the
                // administrator will not wait.
                self.service.admin_ok(&["resume"]);
            }
        }

        /// Nobody has noticed, save the launcher, which has counted.
        fn close(mut self, deaths: u64) {
            // The service still takes people in.
            drop(self.visit());
            self.service.wait_for_status(|status, clients| {
                let counted = status["counters"]["violations"] == deaths;
                counted && clients.len() == self.talkers.len() && status["starting"] == 0
            });
            assert_eq!(self.pids(), self.talkers_pids);
            let doctor = self.service.admin(&["doctor"]);
            assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
            self.stop.store(true, Ordering::Relaxed);
            for talker in self.talkers.drain(..) {
                let Memory { seen, returns } = talker.join().unwrap();
                assert_eq!(returns, 0);
                assert_eq!(seen, self.service.messages());
            }
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Talks until it has to stop; then has heard all that the other has said.
    fn talk(
        server: SocketAddr,
        token: &Token,
        name: &str,
        other: &str,
        stop: &AtomicBool,
    ) -> Memory {
        let mut person = Person::join(server, token);
        let mut lines = 0;
        while !stop.load(Ordering::Relaxed) {
            lines += 1;
            person.say_all([format!("{name} says {lines}")]);
        }
        person.say_all([format!("{name} goes")]);
        let last = format!("{other} goes");
        let heard = |person: &Person| person.seen.iter().any(|message| message.text == last);
        if !heard(&person) {
            person.until(|person, _| heard(person));
        }
        Memory { seen: person.seen, returns: person.returns }
    }

    fn attack_keeper(part: usize) -> Result<(), Failed> {
        let attacks: Vec<_> = attacks_on(Role::Keeper);
        assert!(attacks.len() >= LEAST);
        let attacks: Vec<_> = attacks.into_iter().skip(part).step_by(PARTS).collect();
        let mut service = Service::start("");
        let alice = read_token(&service.token("alice", &[]));
        let (mut client, welcome) = RawClient::join(service.port, &alice, 0);
        let mut said = Vec::new();
        for attack in &attacks {
            if service.launcher.try_wait()?.is_some() {
                service.restart();
                client = RawClient::join_by(&welcome.ticket, service.port, &alice, 0).0;
            }
            let text = format!("before {}", attack.name());
            client.say("1", &text);
            client.hear(&text);
            said.push(text);
            let there = all(&service);
            let keeper = titled(&service, "papayad: keeper").pid;
            wait_confined(keeper, Role::Keeper);
            survives(keeper);
            let mut tracee = Tracee::seize(keeper);
            let end = tracee.attempt(attack);
            if end != wanted(attack, Role::Keeper) {
                return Err(format!("keeper: {}: {end:?}", attack.name()).into());
            }
            let End::Killed(_) = end else {
                drop(tracee);
                continue;
            };
            let status = wait_child(&mut service.launcher);
            assert_eq!(status.code(), Some(Exit::Internal as i32), "{}", attack.name());
            service.wait_for_line("the keeper ended (killed by its filter");
            there.iter().for_each(|process| process.wait_gone());
            service.admin_ok(&["log", "verify"]);
        }
        println!("keeper: {} attacks", attacks.len());
        let texts: Vec<String> = service.messages().into_iter().map(|m| m.text).collect();
        assert_eq!(texts, said);
        Ok(())
    }
}
