//! Promise: what an owned RECV forks before its second filter ends with it, also what was left
//! behind by what it forked; and it can fork no more than the service's user may have processes,
//! by which it keeps newcomers out as long as it lives, and nobody else. Nor does a lock of the log
//! that one of them took and left behind keep the others out for good. Needs root, which alone
//! may have another process do its bidding, and is limited in processes only for others.
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
    use std::net::TcpStream;

    use libtest_mimic::Trial;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use papayachat::confine::{Role, policy};

    use super::debugged::people::Person;
    use super::debugged::processes::{
        Process, child_titled, children, no_zombie_stays, wait_confined, wait_until,
    };
    use super::debugged::raw_client::{RawClient, connect, join_line, read_to_end, read_token};
    use super::debugged::service::Service;
    use super::debugged::tracer::{End, Tracee};

    /// However long a slow machine takes to make what a RECV forks, that is not what ends it.
    const PATIENT: &str = "[limits]\ngrace = \"600s\"";

    /// How a RECV comes to its end, given its client's connection.
    type Ending = fn(&Service, Tracee, TcpStream);

    /// All that was made of a RECV; killed if the service fails to.
    struct Brood(Vec<Process>);

    impl Brood {
        fn add(&mut self, tracee: &Tracee) {
            self.0.push(Process::find(tracee.pid(), String::new()).unwrap());
        }

        fn wait_gone(&self) {
            self.0.iter().for_each(Process::wait_gone);
        }
    }

    impl Drop for Brood {
        fn drop(&mut self) {
            self.0.iter().filter(|process| process.exists()).for_each(|process| {
                process.signal(Signal::SIGKILL);
            });
        }
    }

    pub fn trials() -> Vec<Trial> {
        let endings: [(&str, Ending, &str); 5] = [
            ("whose client leaves", client_leaves, PATIENT),
            ("that its filter kills", filter_kills, PATIENT),
            ("that the administrator kills", administrator_kills, PATIENT),
            ("that minds nobody, and is kicked", is_kicked, PATIENT),
            // What it forked has its channel too: nothing but the grace's end ends this one.
            ("that hides from the keeper", hides, ""),
        ];
        let mut trials: Vec<Trial> = endings
            .into_iter()
            .map(|(name, ending, limits)| {
                let name = format!("nothing is left of a RECV {name}");
                Trial::test(name, move || {
                    strays_end(ending, limits);
                    Ok(())
                })
            })
            .collect();
        trials.push(Trial::test("nothing is left of a RECV whose service is stopped", || {
            strays_end_with_the_service();
            Ok(())
        }));
        let left: [(&str, Leaving); 3] = [
            ("its fork", fork_leaves_lock),
            ("what its fork left behind", orphan_leaves_lock),
            ("a sleeper that its fork left behind", sleeping_orphan_holds_lock),
        ];
        trials.extend(left.into_iter().map(|(name, leave)| {
            Trial::test(format!("the log is not locked for good by {name}"), move || {
                lock_is_left(leave);
                Ok(())
            })
        }));
        trials.push(Trial::test("a storm of forks is bounded, and passes", || {
            storm();
            Ok(())
        }));
        trials
    }

    /// A connection that has said nothing, and its RECV.
    fn stranger(service: &Service) -> (TcpStream, Tracee) {
        let stream = connect(service.port);
        let title = format!("papayad: recv - {}", stream.local_addr().unwrap());
        let recv = child_titled(service.launcher.id() as i32, &title);
        wait_confined(recv, Role::Recv);
        (stream, Tracee::seize(recv))
    }

    /// Has a RECV fork three times; the second fork forks itself and stays, the third leaves its
    /// own to the launcher while RECV lives.
    fn multiply(recv: &mut Tracee) -> Brood {
        let mut brood = Brood(Vec::new());
        brood.add(recv);
        let asleep = recv.fork().unwrap();
        let mut parent = recv.fork().unwrap();
        let child = parent.fork().unwrap();
        let mut gone = recv.fork().unwrap();
        let orphan = gone.fork().unwrap();
        for stray in [asleep, parent, child, orphan] {
            brood.add(&stray);
            stray.release_to_sleep();
        }
        assert_eq!(gone.call(libc::SYS_exit_group, [0; 6]), End::Exited(0));
        // They stay as long as it does: what follows is not by chance.
        assert!(brood.0.iter().all(Process::exists), "{:?}", brood.0);
        brood
    }

    fn strays_end_with_the_service() {
        let mut service = Service::start(PATIENT);
        let (_stream, mut recv) = stranger(&service);
        let brood = multiply(&mut recv);
        recv.release_to_sleep();
        assert_eq!(service.stop().code(), Some(0));
        brood.wait_gone();
    }

    fn strays_end(ending: Ending, limits: &str) {
        let service = Service::start(limits);
        let pillars = children(service.launcher.id() as i32);
        let (stream, mut recv) = stranger(&service);
        let brood = multiply(&mut recv);
        ending(&service, recv, stream);
        brood.wait_gone();
        // The one that left its own behind is reaped after those.
        wait_until("only keeper and listener are left", || {
            children(service.launcher.id() as i32) == pillars
        });
        no_zombie_stays(&service);
        // The service goes on.
        let alice = read_token(&service.token("alice", &[]));
        RawClient::join(service.port, &alice, 1);
    }

    fn client_leaves(_: &Service, recv: Tracee, stream: TcpStream) {
        drop(stream);
        drop(recv);
    }

    fn filter_kills(_: &Service, mut recv: Tracee, _: TcpStream) {
        assert_eq!(recv.call(libc::SYS_setsid, [0; 6]), End::Killed(Signal::SIGSYS));
    }

    fn administrator_kills(_: &Service, recv: Tracee, _: TcpStream) {
        let pid = Pid::from_raw(recv.pid());
        recv.release_to_sleep();
        kill(pid, Signal::SIGKILL).unwrap();
    }

    fn is_kicked(service: &Service, recv: Tracee, _: TcpStream) {
        let pid = recv.pid().to_string();
        recv.release_to_sleep();
        service.admin_ok(&["kick", &pid]);
    }

    /// It closes its channel, as if it had ended, and stays.
    fn hides(_: &Service, mut recv: Tracee, _: TcpStream) {
        let keeper = policy::recv::KEEPER as u64;
        assert_eq!(recv.call(libc::SYS_close, [keeper, 0, 0, 0, 0, 0]), End::Returned(0));
        recv.release_to_sleep();
    }

    /// How a lock is taken by what is forked of a RECV that lives on.
    type Leaving = fn(&mut Tracee);

    fn lock(stray: &mut Tracee) {
        let exclusively = [policy::recv::LOG_APPEND as u64, libc::LOCK_EX as u64, 0, 0, 0, 0];
        assert_eq!(stray.call(libc::SYS_flock, exclusively), End::Returned(0));
    }

    fn exit(mut stray: Tracee) {
        assert_eq!(stray.call(libc::SYS_exit_group, [0; 6]), End::Exited(0));
    }

    fn fork_leaves_lock(recv: &mut Tracee) {
        let mut child = recv.fork().unwrap();
        lock(&mut child);
        exit(child);
    }

    fn orphan_leaves_lock(recv: &mut Tracee) {
        let mut child = recv.fork().unwrap();
        let mut orphan = child.fork().unwrap();
        exit(child);
        lock(&mut orphan);
        exit(orphan);
    }

    fn sleeping_orphan_holds_lock(recv: &mut Tracee) {
        let mut child = recv.fork().unwrap();
        let mut orphan = child.fork().unwrap();
        let mut sleeper = orphan.fork().unwrap();
        exit(child);
        lock(&mut sleeper);
        sleeper.release_to_sleep();
        orphan.release_to_sleep();
    }

    /// Alice's RECV is owned: it has the log's descriptors, and has not loaded its second filter.
    fn lock_is_left(leave: Leaving) {
        // Nobody but Bob wants the lock, and he not before it is left: whoever holds it while others
        // wait is removed, and it may take long until all is as it is to be.
        let service = Service::start(&format!("{PATIENT}\n[log]\npresence = false"));
        let bob = read_token(&service.token("bob", &[]));
        let mut bob = Person::join(service.address(), &bob);
        let alice = read_token(&service.token("alice", &[]));
        let mut client = RawClient::shake(service.port, &alice);
        let title = format!("papayad: recv - {}", client.stream.local_addr().unwrap());
        let mut recv = Tracee::seize(child_titled(service.launcher.id() as i32, &title));
        client.say_bytes(join_line(&alice, 1, "").as_bytes());
        recv.run_to(libc::SYS_clone);
        let mut brood = Brood(Vec::new());
        brood.add(&recv);
        leave(&mut recv);
        recv.release_to_sleep();
        bob.say_all(["does anybody hear me?".to_owned()]);
        brood.wait_gone();
        let stored: Vec<String> = service.messages().into_iter().map(|m| m.text).collect();
        assert_eq!(stored, ["does anybody hear me?"]);
    }

    fn storm() {
        // A user of its own, for the kernel counts all of a user's processes: room for two a
        // client and for 64 more (`prepare::limit_processes`).
        const MOST: usize = 2 * (4 + 16) + 64;
        let service = Service::start(
            "[identity]\nuser = \"bin\"\n\
             [limits]\nclients = 4\nstartups = \"16:30:16\"\ngrace = \"600s\"\nper_source = 4",
        );
        let alice = read_token(&service.token("alice", &[]));
        let (mut client, welcome) = RawClient::join(service.port, &alice, 1);
        let (_stream, mut recv) = stranger(&service);
        let mut brood = Brood(Vec::new());
        let refusal = loop {
            match recv.fork() {
                Ok(stray) => {
                    brood.add(&stray);
                    stray.release_to_sleep();
                }
                Err(end) => break end,
            }
            assert!(brood.0.len() < MOST, "no limit stops it");
        };
        assert_eq!(refusal, End::Returned(-i64::from(libc::EAGAIN)));
        let pid = recv.pid().to_string();
        recv.release_to_sleep();
        println!("{} forks of at most {MOST}", brood.0.len());
        // Who is here talks; who comes is not left hanging, but let go.
        client.say("1", "it storms");
        client.hear("it storms");
        assert_eq!(read_to_end(&mut connect(service.port)), b"");
        service.admin_ok(&["kick", &pid]);
        brood.wait_gone();
        wait_until("the owned RECV is gone", || service.status().0["starting"] == 0);
        let (mut other, _) = RawClient::join_by(&welcome.ticket, service.port, &alice, 2);
        client.say("2", "it is calm");
        other.hear("it is calm");
    }
}
