//! Promise: whatever an owned listener says to the launcher, nobody who is connected notices, the
//! launcher's memory does not grow, and after it others join: a listener that says what no listener
//! says is replaced. Needs root, which alone may have another process do its bidding.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/debugged.rs"]
mod debugged;

#[cfg(not(target_arch = "x86_64"))]
use debugged as live;

fn main() -> std::process::ExitCode {
    debugged::run_one_by_one(live::trials())
}

#[cfg(target_arch = "x86_64")]
mod live {
    use libtest_mimic::Trial;
    use nix::sys::signal::Signal;
    use papayachat::confine::{Role, policy::listener};
    use papayachat::daemon::channel::WorkerId;
    use papayachat::daemon::channel::launcher_listener::FromListener;
    use papayachat::token::Token;

    use super::debugged::processes::{Process, child_titled, titled, wait_confined, wait_until};
    use super::debugged::raw_client::{RawClient, connect, read_token, write};
    use super::debugged::service::Service;
    use super::debugged::tracer::{End, Tracee};

    /// Its `/dev/null`: what it can always pass for a connection.
    const NULL: i32 = 0;
    /// So that what the launcher may keep is little; and yet enough for those whose joining or end
    /// the listener has not been told yet. With a user of its own, since the kernel counts all of a
    /// user's processes, and few clients are few processes (`prepare::limit_processes`).
    const LIMITS: &str = "[identity]\nuser = \"bin\"\n\
        [limits]\nclients = 8\nper_source = 8\nstartups = \"32:30:32\"";
    /// The length of `Ended`; that of `Joined` is another.
    const ENDED: i64 = 3;
    /// More than any launcher may keep for a listener that does not listen.
    const WORDS_MAX: u64 = 4000;

    /// What is wrong about a word, given the number that would be right.
    type Lie = fn(u64) -> (Vec<u8>, Option<i32>);

    fn encode(word: &FromListener) -> Vec<u8> {
        postcard::to_slice(word, &mut [0; 64]).unwrap().to_vec()
    }

    fn start(id: u64) -> Vec<u8> {
        encode(&FromListener::Start { id: WorkerId(id) })
    }

    pub fn trials() -> Vec<Trial> {
        let lies: [(&str, Lie); 7] = [
            ("a connection with the highest number", |_| (start(u64::MAX), Some(NULL))),
            ("a connection whose number was used", |next| (start(next - 1), Some(NULL))),
            ("a connection that leaves a number out", |next| (start(next + 1), Some(NULL))),
            ("a connection without one", |next| (start(next), None)),
            ("a word with a descriptor too many", |_| (encode(&FromListener::Penalty), Some(NULL))),
            ("a word with something behind it", |next| {
                ([start(next), vec![0]].concat(), Some(NULL))
            }),
            ("no word at all", |_| (vec![0xff; 512], None)),
        ];
        let mut trials: Vec<Trial> = lies
            .into_iter()
            .map(|(name, lie)| {
                Trial::test(format!("replaced after {name}"), move || {
                    is_replaced_after(lie);
                    Ok(())
                })
            })
            .collect();
        let others: [(&str, fn()); 3] = [
            ("its own sockets for connections start nothing", sockets_for_connections),
            ("replaced when it talks on and does not listen", talks_on),
            ("a connection that it keeps it can end, and not read", keeps_a_connection),
        ];
        trials.extend(others.into_iter().map(|(name, promise)| {
            Trial::test(name, move || {
                promise();
                Ok(())
            })
        }));
        trials
    }

    /// Alice is in the room; the listener is about to be owned.
    struct Room {
        service: Service,
        alice: RawClient,
        token: Token,
        joins: u64,
    }

    impl Room {
        fn open() -> Self {
            let service = Service::start(LIMITS);
            let token = read_token(&service.token("alice", &[]));
            let (alice, _) = RawClient::join(service.port, &token, 0);
            Self { service, alice, token, joins: 1 }
        }

        /// The number of the next connection: they are counted from 1.
        fn next(&self) -> u64 {
            self.joins + 1
        }

        fn listener(&self) -> (Process, Tracee) {
            let launcher = self.service.launcher.id() as i32;
            let pid = child_titled(launcher, "papayad: listener");
            wait_confined(pid, Role::Listener);
            (Process::find(pid, "listener".into()).unwrap(), Tracee::seize(pid))
        }

        /// The launcher has made an end of it, and another serves.
        fn is_replaced(&mut self, owned: &Process, end: End) {
            assert_eq!(end, End::Killed(Signal::SIGKILL));
            self.service.wait_for_line("the listener does not keep to the protocol");
            owned.wait_gone();
            self.goes_on();
        }

        /// Others join, and whoever was there hears them.
        fn goes_on(&mut self) {
            titled(&self.service, "papayad: listener");
            let (mut guest, _) =
                RawClient::join(self.service.port, &self.token, u128::from(self.next()));
            self.joins += 1;
            let text = format!("guest {}", self.joins);
            guest.say("1", &text);
            guest.hear(&text);
            self.alice.hear(&text);
            drop(guest);
            self.service
                .wait_for_status(|status, clients| clients.len() == 1 && status["starting"] == 0);
        }
    }

    fn is_replaced_after(lie: Lie) {
        let mut room = Room::open();
        let (owned, mut tracee) = room.listener();
        let (bytes, descriptor) = lie(room.next());
        // It may be dead before its call has come back.
        let end = match tracee.send(listener::LAUNCHER, &bytes, descriptor) {
            End::Returned(sent) => {
                assert_eq!(sent, bytes.len() as i64);
                tracee.end()
            }
            end => end,
        };
        room.is_replaced(&owned, end);
    }

    /// What is no connection needs no process, and is no lie: a client may be gone by then.
    fn sockets_for_connections() {
        let mut room = Room::open();
        let (owned, mut tracee) = room.listener();
        let scratch = tracee.scratch();
        for descriptor in [NULL, listener::LAUNCHER, listener::REPORT, listener::FIRST_SOCKET] {
            let sent = tracee.send(listener::LAUNCHER, &start(room.next()), Some(descriptor));
            assert!(matches!(sent, End::Returned(1..)), "{sent:?}");
            room.joins += 1;
            let heard = [listener::LAUNCHER as u64, scratch, 64, libc::MSG_DONTWAIT as u64, 0, 0];
            wait_until("the launcher says that it is gone", || {
                tracee.call(libc::SYS_recvfrom, heard) == End::Returned(ENDED)
            });
        }
        assert_eq!(room.service.status().0["starting"], 0);
        assert!(owned.exists());
        // It ends as one that crashed, for it cannot know the numbers that were used in its name.
        owned.signal(Signal::SIGKILL);
        assert_eq!(tracee.end(), End::Killed(Signal::SIGKILL));
        room.goes_on();
    }

    /// For each of these words the launcher has an answer, which it does not take.
    fn talks_on() {
        let mut room = Room::open();
        let (owned, mut tracee) = room.listener();
        let mut said = 0;
        let end = loop {
            match tracee.send(listener::LAUNCHER, &start(room.next()), Some(NULL)) {
                End::Returned(1..) => {
                    said += 1;
                    room.joins += 1;
                }
                // The launcher has not read what was said before.
                End::Returned(errno) => {
                    let full = [libc::EAGAIN, libc::ETOOMANYREFS].map(|errno| -i64::from(errno));
                    assert!(full.contains(&errno), "{errno}");
                }
                end => break end,
            }
            assert!(said < WORDS_MAX, "the launcher keeps an answer to each of {said} words");
        };
        // The last words may have stayed unread.
        room.is_replaced(&owned, end);
    }

    /// What it has handed on it can keep, too. Nobody else's connection is touched.
    fn keeps_a_connection() {
        let mut room = Room::open();
        let (owned, mut tracee) = room.listener();
        let mut guest = connect(room.service.port);
        tracee.run_to(libc::SYS_sendmsg);
        room.joins += 1;
        tracee.run_to(libc::SYS_close);
        let kept = tracee.first_argument();
        let hang_up = [kept, libc::SHUT_RD as u64, 0, 0, 0, 0];
        assert_eq!(tracee.call(libc::SYS_shutdown, hang_up), End::Returned(0));
        write(&mut guest, b"is anybody there?");
        room.service.wait_for_status(|status, _| status["starting"] == 0);
        let read = [kept, tracee.scratch(), 1, libc::MSG_DONTWAIT as u64, 0, 0];
        assert_eq!(tracee.call(libc::SYS_recvfrom, read), End::Killed(Signal::SIGSYS));
        owned.wait_gone();
        room.goes_on();
    }
}
