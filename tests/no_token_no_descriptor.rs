//! Promise: no token, no descriptor. A RECV that an attacker owns may say to the real keeper what
//! it likes, in any order: the log's descriptors come once, and only against a good token.
//!
//! Each test runs in a process of its own, which plays the launcher: it starts the real keeper
//! over a real state directory, hands it channels, and speaks at their other ends as RECV does not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod confined;
#[path = "common/service.rs"]
mod service;

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use confined::{again, must_end, part};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
use nix::unistd::getpid;
use papayachat::config::Config;
use papayachat::confine::identity;
use papayachat::daemon::channel::keeper_recv::{FromRecv, Proof, ToRecv};
use papayachat::daemon::channel::launcher_keeper::{FromKeeper, ToKeeper};
use papayachat::daemon::channel::launcher_listener::Verdict;
use papayachat::daemon::channel::{Channel, ChannelError, FDS_MAX, MESSAGE_MAX, WorkerId, pack48};
use papayachat::daemon::keeper;
use papayachat::daemon::launcher::prepare;
use papayachat::sys;
use papayachat::token::Token;
use papayachat::wire::event::Refusal;
use papayachat::wire::handshake::NkInitiator;
use service::{PAPAYAD, PATIENCE, Service, is_root};

type Attack = fn(&mut Stage);

const ATTACKS: &[(&str, Attack)] = &[
    ("a good token yields exactly five, opened as they must be", good),
    ("a second good join on the same channel yields nothing", join_twice),
    ("a join before the handshake yields nothing", join_first),
    ("a second handshake yields nothing", shake_twice),
    ("a handshake that fails cannot be repeated", shake_badly),
    ("a wrong secret yields nothing, also with the right one after it", wrong_secret),
    ("an unknown id yields nothing", unknown_id),
    ("a revoked token yields nothing", revoked),
    ("an expired token yields nothing", expired),
    ("a ticket that was made up yields nothing", made_up_ticket),
    ("a ticket of another token yields nothing", foreign_ticket),
    ("asking for a ticket before joining yields nothing", ticket_early),
    ("bytes that are no request yield nothing", garbage),
    ("the keeper's own words yield nothing", echo),
    ("messages that are too long yield nothing", too_long),
    ("descriptors sent to the keeper are dropped, and yield nothing", with_descriptors),
    ("a token revoked after the handshake yields nothing", revoked_after_the_handshake),
];

fn main() -> ExitCode {
    if let Some((name, given)) = part() {
        let attack = ATTACKS.iter().find(|(known, _)| *known == name).expect("a known attack").1;
        let mut stage = Stage::open(Path::new(&given));
        attack(&mut stage);
        return ExitCode::SUCCESS;
    }
    let trials = ATTACKS.iter().map(|(name, _)| Trial::test(*name, move || play(name))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Makes the state and the tokens with the real program, and plays one attack.
fn play(name: &str) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir()?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let config = dir.path().join("papayad.toml");
    // The keeper writes into the log only what the test has it write.
    let quiet = "[log]\npresence = false\n";
    std::fs::write(&config, Service::config_text(dir.path(), "127.0.0.1:0", quiet))?;
    for (name, more) in [("alice", &[][..]), ("bob", &[]), ("eve", &["--expires", "1s"])] {
        let token = admin(dir.path(), &[&["token", "add", name][..], more].concat());
        std::fs::write(dir.path().join(format!("{name}.token")), token)?;
    }
    let output = again(name, dir.path().to_str().ok_or("a path")?).output()?;
    must_end(&output, "exit 0")
}

fn admin(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(PAPAYAD)
        .args(arguments)
        .env("PAPAYAD_CONFIG", dir.join("papayad.toml"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The launcher's part: the real keeper and what is left of the launcher's plumbing.
struct Stage {
    dir: PathBuf,
    keeper: Channel,
    keeper_pid: nix::unistd::Pid,
    next: WorkerId,
    said: Vec<FromKeeper>,
    _plumbing: Vec<OwnedFd>,
}

/// An attacker's end of the channel between keeper and RECV.
struct Recv {
    id: WorkerId,
    channel: Channel,
    /// Descriptors that ever came.
    gained: Vec<OwnedFd>,
}

impl Stage {
    fn open(dir: &Path) -> Self {
        let config = Config::load(&dir.join("papayad.toml")).unwrap();
        let (keeper, theirs) = Channel::pair().unwrap();
        let (null, report, bell) =
            (prepare::null().unwrap(), prepare::pipe().unwrap(), prepare::pipe().unwrap());
        let user = is_root().then(|| identity::lookup(&config.identity.keeper_user).unwrap());
        let start = keeper::Start {
            channel: theirs.raw(),
            report: report.1.as_raw_fd(),
            null: null.as_raw_fd(),
            bell: bell.1.as_raw_fd(),
            launcher: getpid(),
            ids: user,
            config: &config,
        };
        let keeper_pid = sys::process::fork_role(|| keeper::run(&start)).unwrap();
        let plumbing = vec![null, report.0, report.1, bell.0, bell.1];
        let mut stage = Self {
            dir: dir.to_owned(),
            keeper,
            keeper_pid,
            next: WorkerId(1),
            said: Vec::new(),
            _plumbing: plumbing,
        };
        stage.wait_for(|said| matches!(said, FromKeeper::Ready { .. }));
        stage
    }

    fn token(&self, name: &str) -> Token {
        Token::parse(&std::fs::read_to_string(self.dir.join(format!("{name}.token"))).unwrap())
            .unwrap()
    }

    /// A RECV of which the keeper has heard, and nothing more.
    fn recv(&mut self) -> Recv {
        let (channel, keepers) = Channel::pair().unwrap();
        let id = self.next;
        self.next = WorkerId(id.0 + 1);
        let source = "192.0.2.1:5".parse().unwrap();
        self.keeper.send(&ToKeeper::Worker { id, source }, &[keepers.as_fd()]).unwrap();
        Recv { id, channel, gained: Vec::new() }
    }

    /// Waits until the keeper says this to the launcher; keeps all it says.
    fn wait_for(&mut self, wanted: impl Fn(&FromKeeper) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !self.said.iter().any(&wanted) {
            match self.keeper.receive() {
                Ok(said) => self.said.push(said),
                Err(ChannelError::WouldBlock) => wait(&self.keeper, end),
                Err(gone) => panic!("the keeper: {gone}"),
            }
        }
    }

    /// A violation is judged, and the launcher asked to end the worker.
    fn wait_for_removal(&mut self, recv: &Recv) {
        let id = recv.id;
        self.wait_for(|said| {
            matches!(said, FromKeeper::Judged { id: i, verdict: Verdict::Violation } if *i == id)
        });
        self.wait_for(|said| matches!(said, FromKeeper::Remove { id: i } if *i == id));
    }

    /// Everything that was asked before this has been answered: an honest RECV, asking later, has
    /// joined. This also shows that the keeper is well.
    fn settle(&mut self) {
        let token = self.token("bob");
        let mut honest = self.recv();
        honest.shake(&token);
        honest.ask(&honest_join(&token, self.next.0));
        assert!(matches!(honest.answer(), Some(ToRecv::Admitted { .. })));
        assert_eq!(honest.gained.len(), 5);
    }

    /// After whatever the attacker did: nothing came, and the honest way is closed to it too.
    fn yields_nothing(&mut self, mut recv: Recv) {
        self.settle();
        recv.drain();
        assert_eq!(recv.gained.len(), 0, "the attack has gained descriptors");
        let token = self.token("alice");
        let (_, hello) = NkInitiator::start(&token.server).unwrap();
        recv.try_ask(&FromRecv::Handshake(pack48(hello[5..].try_into().unwrap())));
        recv.try_ask(&honest_join(&token, 77));
        self.settle();
        recv.drain();
        assert_eq!(recv.gained.len(), 0, "the attacker joined after all");
        assert!(
            !self.said.iter().any(|s| matches!(s, FromKeeper::Joined { id, .. } if *id == recv.id))
        );
    }
}

/// Waits for a channel to have something.
fn wait(channel: &Channel, end: Instant) {
    let left = end.saturating_duration_since(Instant::now());
    assert!(!left.is_zero(), "the keeper says nothing");
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(left.min(Duration::from_secs(60))).unwrap();
    match poll(&mut fds, limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => panic!("{e}"),
    }
}

impl Recv {
    fn ask(&self, request: &FromRecv) {
        self.channel.send(request, &[]).unwrap();
    }

    /// Asks on a channel that may be closed.
    fn try_ask(&self, request: &FromRecv) {
        match self.channel.send(request, &[]) {
            Ok(()) | Err(ChannelError::Closed) => {}
            Err(problem) => panic!("{problem}"),
        }
    }

    /// The next answer; `None` when the keeper has closed.
    fn answer(&mut self) -> Option<ToRecv> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.channel.receive_fds() {
                Ok(got) => {
                    self.gained.extend(got.fds);
                    return Some(got.message);
                }
                Err(ChannelError::WouldBlock) => wait(&self.channel, end),
                Err(ChannelError::Closed) => return None,
                Err(problem) => panic!("{problem}"),
            }
        }
    }

    /// Takes what has come.
    fn drain(&mut self) {
        while let Ok(got) = self.channel.receive_fds::<ToRecv>() {
            self.gained.extend(got.fds);
        }
    }

    fn shake(&mut self, token: &Token) {
        let (noise, hello) = NkInitiator::start(&token.server).unwrap();
        self.ask(&FromRecv::Handshake(pack48(hello[5..].try_into().unwrap())));
        match self.answer() {
            Some(ToRecv::Shaken { message, keys: given }) => {
                let message = papayachat::daemon::channel::unpack48(&message);
                let keys = noise.finish(&message).unwrap();
                assert_eq!(keys.client_to_server, given.client_to_server);
                assert_eq!(keys.server_to_client, given.server_to_client);
            }
            _ => panic!("no handshake"),
        }
    }

    /// Shakes hands, asks to join with this, and is refused for that reason.
    fn is_refused(&mut self, stage: &Stage, join: &FromRecv, wanted: Refusal) {
        self.shake(&stage.token("alice"));
        self.ask(join);
        match self.answer() {
            Some(ToRecv::Refused { reason, .. }) => assert_eq!(reason, wanted),
            _ => panic!("not refused"),
        }
        assert_eq!(self.gained.len(), 0);
    }
}

fn honest_join(token: &Token, session: u64) -> FromRecv {
    join(token.id.0, Proof::Secret(token.secret.0), session)
}

fn join(id: [u8; 8], proof: Proof, session: u64) -> FromRecv {
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&session.to_le_bytes());
    FromRecv::Join { id, proof, session: instance }
}

fn mode(fd: &OwnedFd) -> OFlag {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    flags & (OFlag::O_ACCMODE | OFlag::O_APPEND | OFlag::O_PATH)
}

fn good(stage: &mut Stage) {
    let token = stage.token("alice");
    let mut recv = stage.recv();
    recv.shake(&token);
    recv.ask(&honest_join(&token, 1));
    let Some(ToRecv::Admitted { name, token: id, .. }) = recv.answer() else {
        panic!("not admitted")
    };
    assert_eq!((name.as_str(), id), ("alice", token.id));
    let append = OFlag::O_WRONLY | OFlag::O_APPEND;
    let mut wanted = [OFlag::O_RDONLY; 5];
    wanted[0] = append;
    assert_eq!(recv.gained.iter().map(mode).collect::<Vec<_>>(), wanted);
    // The right files: what is appended to the first is read from the second, and not the reverse.
    let mut files = recv.gained.iter().map(|fd| std::fs::File::from(fd.try_clone().unwrap()));
    let (mut log, mut read) = (files.next().unwrap(), files.next().unwrap());
    log.write_all(b"{\"torn\":true}\n").unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("{\"torn\":true}\n"));
    assert!(read.write(b"x").is_err() && log.read(&mut [0]).is_err());
    let others: Vec<(u64, u64)> = files.map(|f| identity_of(&f)).collect();
    let [gate, other_gate, tail] = others[..] else { panic!("{others:?}") };
    assert_eq!(gate, other_gate);
    assert!(gate != identity_of(&read) && identity_of(&log) == identity_of(&read));
    assert_eq!(tail, identity_of(&log));
    stage.settle();
}

fn identity_of(file: &std::fs::File) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let about = file.metadata().unwrap();
    (about.dev(), about.ino())
}

fn join_twice(stage: &mut Stage) {
    let token = stage.token("alice");
    let mut recv = stage.recv();
    recv.shake(&token);
    recv.ask(&honest_join(&token, 1));
    assert!(matches!(recv.answer(), Some(ToRecv::Admitted { .. })));
    assert_eq!(recv.gained.len(), 5);
    recv.gained.clear();
    recv.ask(&honest_join(&token, 2));
    stage.wait_for_removal(&recv);
    recv.drain();
    assert_eq!(recv.gained.len(), 0);
}

fn join_first(stage: &mut Stage) {
    let recv = stage.recv();
    recv.ask(&honest_join(&stage.token("alice"), 1));
    stage.wait_for_removal(&recv);
    stage.yields_nothing(recv);
}

fn shake_twice(stage: &mut Stage) {
    let mut recv = stage.recv();
    let token = stage.token("alice");
    recv.shake(&token);
    let (_, hello) = NkInitiator::start(&token.server).unwrap();
    recv.ask(&FromRecv::Handshake(pack48(hello[5..].try_into().unwrap())));
    stage.wait_for_removal(&recv);
    let mut answers = 0;
    while let Ok(got) = recv.channel.receive_fds::<ToRecv>() {
        recv.gained.extend(got.fds);
        answers += 1;
    }
    assert_eq!(answers, 0, "a second Diffie-Hellman was done");
    stage.yields_nothing(recv);
}

fn shake_badly(stage: &mut Stage) {
    let mut recv = stage.recv();
    recv.ask(&FromRecv::Handshake(pack48(&[0x55; 48])));
    assert!(matches!(recv.answer(), Some(ToRecv::NotShaken)));
    stage.yields_nothing(recv);
}

fn wrong_secret(stage: &mut Stage) {
    let mut recv = stage.recv();
    let token = stage.token("alice");
    let mut secret = token.secret.0;
    secret[31] ^= 1;
    let wrong = join(token.id.0, Proof::Secret(secret), 1);
    recv.is_refused(stage, &wrong, Refusal::WrongSecret);
    stage.yields_nothing(recv);
}

fn unknown_id(stage: &mut Stage) {
    let mut recv = stage.recv();
    let token = stage.token("alice");
    let unknown = join([0xee; 8], Proof::Secret(token.secret.0), 1);
    recv.is_refused(stage, &unknown, Refusal::Unknown);
    stage.yields_nothing(recv);
}

fn revoked(stage: &mut Stage) {
    let token = stage.token("alice");
    admin(&stage.dir, &["token", "revoke", "alice"]);
    stage.reload();
    let mut recv = stage.recv();
    recv.is_refused(stage, &honest_join(&token, 1), Refusal::Revoked);
    stage.yields_nothing(recv);
}

fn expired(stage: &mut Stage) {
    let token = stage.token("eve");
    // Its one second is over when the list of tokens says so.
    let end = Instant::now() + PATIENCE;
    while !admin(&stage.dir, &["token", "list"]).contains("expired") {
        assert!(Instant::now() < end);
    }
    let mut recv = stage.recv();
    recv.is_refused(stage, &honest_join(&token, 1), Refusal::Expired);
    stage.yields_nothing(recv);
}

fn made_up_ticket(stage: &mut Stage) {
    let token = stage.token("alice");
    let mut ticket = [0xff; 48];
    ticket[..8].copy_from_slice(&token.id.0);
    let mut recv = stage.recv();
    let made_up = join(token.id.0, Proof::Ticket(pack48(&ticket)), 1);
    recv.is_refused(stage, &made_up, Refusal::Ticket);
    stage.yields_nothing(recv);
}

fn foreign_ticket(stage: &mut Stage) {
    let (alice, bob) = (stage.token("alice"), stage.token("bob"));
    let mut honest = stage.recv();
    honest.shake(&bob);
    honest.ask(&honest_join(&bob, 9));
    let Some(ToRecv::Admitted { ticket, .. }) = honest.answer() else { panic!("not admitted") };
    let mut recv = stage.recv();
    let foreign = join(alice.id.0, Proof::Ticket(ticket.ticket), 1);
    recv.is_refused(stage, &foreign, Refusal::Ticket);
    // For its own token it is good: that is what it was refused for, and nothing else.
    let mut own = stage.recv();
    own.shake(&bob);
    own.ask(&join(bob.id.0, Proof::Ticket(ticket.ticket), 10));
    assert!(matches!(own.answer(), Some(ToRecv::Admitted { .. })));
    stage.yields_nothing(recv);
}

fn ticket_early(stage: &mut Stage) {
    for shaken in [false, true] {
        let mut recv = stage.recv();
        if shaken {
            recv.shake(&stage.token("alice"));
        }
        recv.ask(&FromRecv::Ticket);
        stage.wait_for_removal(&recv);
        stage.yields_nothing(recv);
    }
}

fn garbage(stage: &mut Stage) {
    // No request at all; a request that is cut; and whole ones with something behind them.
    for bytes in [&[0xff; 64][..], &[3], &[0; 48], &[0x80; 10], &[0; 50], &[1; 90], &[2, 0]] {
        for shaken in [false, true] {
            let mut recv = stage.recv();
            if shaken {
                recv.shake(&stage.token("alice"));
            }
            send(recv.channel.raw(), bytes, MsgFlags::empty()).unwrap();
            stage.wait_for_removal(&recv);
            stage.yields_nothing(recv);
        }
    }
}

fn echo(stage: &mut Stage) {
    let mut recv = stage.recv();
    let token = stage.token("alice");
    recv.shake(&token);
    let ticket = papayachat::daemon::channel::keeper_recv::IssuedTicket {
        ticket: pack48(&[1; 48]),
        expires: u64::MAX,
    };
    let admitted = ToRecv::Admitted {
        name: "alice".parse().unwrap(),
        role: papayachat::token::Role::Operator,
        token: token.id,
        ticket: Box::new(ticket),
        floor: Default::default(),
    };
    recv.channel.send(&admitted, &[]).unwrap();
    stage.wait_for_removal(&recv);
    stage.yields_nothing(recv);
}

fn too_long(stage: &mut Stage) {
    for length in [MESSAGE_MAX + 1, 2 * MESSAGE_MAX, 100_000] {
        let recv = stage.recv();
        send(recv.channel.raw(), &vec![0; length], MsgFlags::empty()).unwrap();
        stage.wait_for_removal(&recv);
        stage.yields_nothing(recv);
    }
}

fn with_descriptors(stage: &mut Stage) {
    let before = keepers_descriptors(stage);
    // Not many more than it may have: the kernel counts all that a user has on their way, and one more than
    // the listener's limit keeps newcomers from the services of all other tests.
    for count in [1, FDS_MAX, 4 * FDS_MAX] {
        let recv = stage.recv();
        let null = prepare::null().unwrap();
        let raw = vec![null.as_raw_fd(); count];
        // A ticket before the token: out of turn, with a present.
        let rights = [ControlMessage::ScmRights(&raw)];
        let bytes = [IoSlice::new(&[2])];
        sendmsg::<()>(recv.channel.raw(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
        stage.wait_for_removal(&recv);
        stage.yields_nothing(recv);
    }
    // It closes the channels of those who hung up when it comes to them.
    let end = Instant::now() + PATIENCE;
    while let (Some(before), Some(after)) = (before, keepers_descriptors(stage))
        && after > before
    {
        assert!(Instant::now() < end, "the keeper had {before} descriptors and has {after}");
    }
}

/// How many descriptors the keeper has; only root can look.
fn keepers_descriptors(stage: &mut Stage) -> Option<usize> {
    if !is_root() {
        return None;
    }
    stage.reload();
    Some(std::fs::read_dir(format!("/proc/{}/fd", stage.keeper_pid)).unwrap().count())
}

fn revoked_after_the_handshake(stage: &mut Stage) {
    let token = stage.token("alice");
    let mut recv = stage.recv();
    recv.shake(&token);
    admin(&stage.dir, &["token", "revoke", "alice"]);
    stage.reload();
    recv.ask(&honest_join(&token, 1));
    match recv.answer() {
        Some(ToRecv::Refused { reason, .. }) => assert_eq!(reason, Refusal::Revoked),
        _ => panic!("not refused"),
    }
    stage.yields_nothing(recv);
}

impl Stage {
    /// Has the keeper read its tokens again.
    fn reload(&mut self) {
        let (sessions, grace) = (8, Duration::from_secs(20));
        self.said.retain(|said| !matches!(said, FromKeeper::Reloaded { .. }));
        self.keeper.send(&ToKeeper::Reload { sessions, grace }, &[]).unwrap();
        self.wait_for(|said| matches!(said, FromKeeper::Reloaded { outcome: Ok(_) }));
    }
}
