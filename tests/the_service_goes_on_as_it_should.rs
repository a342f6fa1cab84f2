//! Promise: what can be ended alone ends alone. A client's two processes die together and nobody
//! else notices; the door can be closed, broken and opened while everyone talks; tokens are taken
//! back at once; and what was changed in the configuration is taken over or named.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use papayachat::token::Token;
use papayachat::wire::event::{ByeReason, Event, Refusal, Welcome};
use processes::{Process, below, no_zombie_stays, titled, wait_until};
use raw_client::{RawClient, connect, join_line, read_to_end, read_token};
use service::Service;

struct Room {
    service: Service,
    alice: RawClient,
    bob: RawClient,
    said: usize,
}

impl Room {
    fn open(more: &str) -> Self {
        let service = Service::start(more);
        let join = |name: &str| {
            let token = read_token(&service.token(name, &[]));
            RawClient::join(service.port, &token, 1).0
        };
        let (alice, bob) = (join("alice"), join("bob"));
        Self { service, alice, bob, said: 0 }
    }

    /// Both hear what either says: through both RECVs, both SENDs and the bell.
    fn talk(&mut self) {
        for _ in 0..2 {
            self.said += 1;
            let text = format!("word {:04}", self.said);
            let (one, other) = (&mut self.alice, &mut self.bob);
            let speaker = if self.said.is_multiple_of(2) { &mut *one } else { &mut *other };
            speaker.say(&format!("m{}", self.said), &text);
            one.hear(&text);
            other.hear(&text);
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.service.dir.path().join(format!("{name}.token"))
    }

    /// Somebody new can join.
    fn carol_joins(&self) -> RawClient {
        let file = self.file("carol");
        if !file.exists() {
            self.service.token("carol", &[]);
        }
        RawClient::join(self.service.port, &read_token(&file), 1).0
    }

    fn is_refused(&self) -> bool {
        match TcpStream::connect(("127.0.0.1", self.service.port)) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => true,
            Err(e) => panic!("neither refused nor served: {e}"),
            Ok(_) => false,
        }
    }
}

fn bye(client: &mut RawClient) -> (ByeReason, bool, String) {
    let mut events = client.events_to_end();
    match events.pop() {
        Some(Event::Bye { reason, retry, message }) => (reason, retry, message),
        other => panic!("no goodbye but {other:?}"),
    }
}

#[test]
fn a_clients_two_processes_die_together_and_nobody_else_notices() {
    for (victim, other) in [("recv carol", "send carol"), ("send carol", "recv carol")] {
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV] {
            let mut room = Room::open("");
            let mut carol = room.carol_joins();
            let victim = titled(&room.service, &format!("papayad: {victim}"));
            let other = titled(&room.service, &format!("papayad: {other}"));
            let rest: Vec<Process> =
                below(&room.service).into_iter().filter(|p| !p.title.contains("carol")).collect();
            victim.signal(signal);
            victim.wait_gone();
            other.wait_gone();
            carol.events_to_end();
            room.talk();
            assert!(rest.iter().all(|p| p.exists() && !p.is_zombie()));
            no_zombie_stays(&room.service);
            room.service.wait_for_status(|s, clients| s["clients"] == 2 && clients.len() == 2);
            // She comes back as if nothing had been.
            room.carol_joins();
            room.talk();
        }
    }
}

#[test]
fn a_send_that_its_filter_killed_is_held_against_the_client() {
    let mut room = Room::open("[limits]\npenalties = true");
    let mut carol = room.carol_joins();
    titled(&room.service, "papayad: send carol").signal(Signal::SIGSYS);
    carol.events_to_end();
    room.service.wait_for_line("was killed by SIGSYS");
    room.service.wait_for_line("is turned away for");
    room.talk();
}

#[test]
fn a_broken_listener_is_replaced_and_nobody_who_is_connected_is_touched() {
    let mut room = Room::open("");
    let clients = |room: &Room| -> Vec<Process> {
        let named = |p: &Process| p.title.contains("recv") || p.title.contains("send");
        below(&room.service).into_iter().filter(named).collect()
    };
    let before = clients(&room);
    for signal in [Signal::SIGKILL, Signal::SIGSEGV] {
        let listener = titled(&room.service, "papayad: listener");
        listener.signal(signal);
        let line = room.service.wait_for_line("the listener ended");
        assert!(line.contains(signal.as_str()) && line.contains("nobody"), "{line}");
        room.talk();
        listener.wait_gone();
        // Connections wait for the new listener, or are let go and come again; they do not hang.
        let mut carol = room.carol_joins();
        carol.say("1", "in again");
        room.alice.hear("in again");
        let next = titled(&room.service, "papayad: listener");
        assert_ne!(next.pid, listener.pid);
    }
    assert!(before.iter().all(Process::exists));
}

#[test]
fn the_door_closes_for_new_connections_only_and_opens_on_the_same_port() {
    let mut room = Room::open("");
    let port = room.service.port;
    type Close = fn(&Room);
    let ways: [Close; 2] = [
        |room| drop(room.service.admin_ok(&["pause"])),
        |room| titled(&room.service, "papayad: listener").signal(Signal::SIGTERM),
    ];
    for close in ways {
        // Opening an open door changes nothing about the next closing.
        room.service.admin_ok(&["resume"]);
        close(&room);
        room.service.wait_for_status(|s, _| s["door"] == "closed");
        assert!(room.is_refused());
        room.talk();
        // Nobody else can take its place meanwhile.
        let taken = std::net::TcpListener::bind(("127.0.0.1", port));
        assert!(taken.is_err(), "another program has the port");
        assert!(room.is_refused());
        // Closed is closed: also when it is said again, and after tokens were read again.
        room.service.admin_ok(&["pause"]);
        room.service.log_so_far();
        room.service.signal(Signal::SIGHUP);
        room.service.wait_for_line("the configuration was read again");
        assert!(room.is_refused());
        room.service.admin_ok(&["resume"]);
        room.service.wait_for_line("the door is open again");
        let mut carol = room.carol_joins();
        carol.say("1", "through the door");
        room.bob.hear("through the door");
        room.talk();
        drop(carol);
    }
    let (state, _) = room.service.status();
    assert_eq!(state["addresses"][0], format!("127.0.0.1:{port}"));
}

#[test]
fn a_door_that_still_closes_is_not_said_to_be_open_before_it_is_again() {
    let mut room = Room::open("");
    let listener = titled(&room.service, "papayad: listener");
    // It hears that it shall close the door when it goes on.
    listener.signal(Signal::SIGSTOP);
    room.service.admin_ok(&["pause"]);
    room.service.admin_ok(&["resume"]);
    let (state, _) = room.service.status();
    assert_eq!(state["door"], "restarting");
    listener.signal(Signal::SIGCONT);
    let (state, _) = room.service.wait_for_status(|s, _| s["door"] == "open");
    assert_ne!(state["listener"], listener.pid);
    room.carol_joins();
    room.talk();
    // The last word counts, whatever was said before the listener heard the first.
    let listener = titled(&room.service, "papayad: listener");
    listener.signal(Signal::SIGSTOP);
    for word in ["pause", "resume", "resume", "pause"] {
        room.service.admin_ok(&[word]);
    }
    listener.signal(Signal::SIGCONT);
    room.service.wait_for_status(|s, _| s["door"] == "closed");
    assert!(room.is_refused());
    room.talk();
}

#[test]
fn new_limits_open_no_door_that_closes() {
    let mut room = Room::open("");
    titled(&room.service, "papayad: listener").signal(Signal::SIGSTOP);
    room.service.admin_ok(&["pause"]);
    // It is killed for them, before it heard that it shall close the door.
    let text = fs::read_to_string(&room.service.config).unwrap();
    let changed = text.replace("penalties = false", "penalties = false\nmessage_bytes = 64");
    assert_ne!(text, changed);
    fs::write(&room.service.config, changed).unwrap();
    room.service.signal(Signal::SIGHUP);
    room.service.wait_for_status(|s, _| s["door"] == "closed");
    assert!(room.is_refused());
    room.talk();
    room.service.admin_ok(&["resume"]);
    room.carol_joins();
    room.talk();
    // One that opens again is no crash, though it is killed on the way.
    titled(&room.service, "papayad: listener").signal(Signal::SIGSTOP);
    room.service.admin_ok(&["pause"]);
    room.service.admin_ok(&["resume"]);
    fs::write(&room.service.config, text).unwrap();
    room.service.log_so_far();
    room.service.signal(Signal::SIGHUP);
    room.service.wait_for_line("started again with the new limits");
    room.talk();
}

#[test]
fn a_pause_while_the_listener_is_broken_closes_the_door_too() {
    let mut room = Room::open("");
    // Crash it until the pause before the next start is long enough to be met.
    for _ in 0..5 {
        titled(&room.service, "papayad: listener").signal(Signal::SIGKILL);
        room.service.wait_for_line("the listener ended");
    }
    room.service.admin_ok(&["pause"]);
    room.service.wait_for_status(|s, _| s["door"] == "closed");
    assert!(room.is_refused(), "connections hang instead of being refused");
    room.talk();
    room.service.admin_ok(&["resume"]);
    room.carol_joins();
    room.talk();
}

#[test]
fn kick_ends_the_sessions_of_a_name_or_one_process() {
    let mut room = Room::open("");
    let mut carol = room.carol_joins();
    let mut second = {
        let token = read_token(&room.file("carol"));
        RawClient::join(room.service.port, &token, 2).0
    };
    // The launcher, which is asked, may hear of them after they have heard.
    room.service.wait_for_status(|_, clients| clients.len() == 4);
    room.service.admin_ok(&["kick", "carol"]);
    for client in [&mut carol, &mut second] {
        let (reason, retry, message) = bye(client);
        assert_eq!((reason, retry), (ByeReason::Kicked, false), "{message}");
    }
    room.service.wait_for_line("carol was kicked (2 sessions)");
    // Told and hung up on, they may still be there, under the title that is looked for below.
    room.service.wait_for_status(|_, clients| clients.len() == 2);
    room.talk();
    let mut carol = room.carol_joins();
    let pid = titled(&room.service, "papayad: recv carol").pid.to_string();
    room.service.admin_ok(&["kick", &pid]);
    assert_eq!(bye(&mut carol).0, ByeReason::Kicked);
    room.service.wait_for_status(|_, clients| clients.len() == 2);
    let nobody = room.service.admin(&["kick", "dave"]);
    assert_eq!(nobody.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("dave"));
    room.talk();
}

/// Somebody whose token is soon over: his name, he himself, and his welcome.
fn joins_for_a_while(service: &Service) -> (String, RawClient, Box<Welcome>) {
    // A slow machine takes longer to join than a short life lasts.
    let lives = ["3s", "15s", "60s"].into_iter().enumerate();
    let mut daves = lives.map(|(number, life)| (format!("dave{number}"), life));
    daves
        .find_map(|(name, life)| {
            let token = read_token(&service.token(&name, &["--expires", life]));
            let mut dave = RawClient::shake(service.port, &token);
            dave.say_bytes(join_line(&token, 1, "").as_bytes());
            match dave.event() {
                Some(Event::Welcome(welcome)) => Some((name, dave, welcome)),
                Some(Event::Refused { reason: Refusal::Expired, .. }) => None,
                other => panic!("no welcome but {other:?}"),
            }
        })
        .unwrap()
}

#[test]
fn a_session_is_over_with_its_token_however_many_come_and_go() {
    let room = Room::open("[limits]\npenalties = false");
    let alice = read_token(&room.file("alice"));
    let (_, mut dave, _) = joins_for_a_while(&room.service);
    let port = room.service.port;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The keeper has a word with each of them, so it is never left alone.
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    drop(RawClient::shake(port, &alice));
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bye(&mut dave).0));
        over.store(true, Ordering::Relaxed);
        assert_eq!(ended.ok(), Some(ByeReason::Expired));
    });
}

#[test]
fn a_token_that_is_revoked_or_over_ends_its_session_at_once() {
    let mut room = Room::open("");
    let mut carol = room.carol_joins();
    room.service.admin_ok(&["token", "revoke", "carol"]);
    let (reason, retry, message) = bye(&mut carol);
    assert_eq!((reason, retry), (ByeReason::Revoked, false));
    assert!(message.contains("revoked"), "{message}");
    let again = |room: &Room, name: &str| {
        let token = read_token(&room.file(name));
        let mut client = RawClient::shake(room.service.port, &token);
        client.say_bytes(join_line(&token, 1, "").as_bytes());
        client.events_to_end()
    };
    let events = again(&room, "carol");
    let refused = |events: &[Event], why: Refusal| {
        assert!(matches!(events, [Event::Refused { reason, .. }] if *reason == why), "{events:?}");
    };
    refused(&events, Refusal::Revoked);

    let (name, mut dave, welcome) = joins_for_a_while(&room.service);
    let (reason, retry, message) = bye(&mut dave);
    assert_eq!((reason, retry), (ByeReason::Expired, false));
    assert!(message.contains("over"), "{message}");
    refused(&again(&room, &name), Refusal::Expired);
    // Its ticket was made for hours, and opens nothing either.
    let token = read_token(&room.file(&name));
    let mut client = RawClient::shake(room.service.port, &token);
    let hex = papayachat::wire::hex::encode(&welcome.ticket.0);
    let line = join_line(&token, 1, "");
    let secret = papayachat::wire::hex::encode(&token.secret.0);
    let line = line.replace("\"secret\"", "\"ticket\"").replace(secret.as_str(), &hex);
    client.say_bytes(line.as_bytes());
    refused(&client.events_to_end(), Refusal::Expired);
    room.talk();
}

#[test]
fn sighup_reads_the_drop_ins_too_and_a_bad_one_changes_nothing() {
    let mut room = Room::open("[room]\nmotd = \"from the file\"");
    let [carol, dave] = ["carol", "dave"].map(|name| read_token(&room.service.token(name, &[])));
    // The directory was not there when the launcher confined itself.
    let drop_ins = room.service.dir.path().join("conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10-motd.toml"), "room.motd = \"from a drop-in\"\n").unwrap();
    fs::write(drop_ins.join("20-clients.toml"), "\nlimits.clients = 2000\n").unwrap();
    room.service.log_so_far();
    room.service.signal(Signal::SIGHUP);
    let line = room.service.wait_for_line("the configuration was read again");
    assert!(line.contains("limits.clients needs a restart"), "{line}");
    let (_carol, welcome) = RawClient::join(room.service.port, &carol, 1);
    assert_eq!(welcome.motd, "from a drop-in");

    fs::write(drop_ins.join("30-bad.toml"), "[room]\nmotd = \"\"\nmtod = \"\"\n").unwrap();
    room.service.log_so_far();
    room.service.signal(Signal::SIGHUP);
    let line = room.service.wait_for_line("the configuration stays as it was");
    assert!(line.contains("conf.d/30-bad.toml:3: room.mtod: unknown key"), "{line}");
    let (_dave, welcome) = RawClient::join(room.service.port, &dave, 1);
    assert_eq!(welcome.motd, "from a drop-in");
    room.talk();
}

#[test]
fn sighup_takes_over_what_it_can_and_names_what_it_cannot() {
    let mut room = Room::open("");
    let before = fs::read_to_string(&room.service.config).unwrap();
    let changed = before
        .replace("127.0.0.1:0", "127.0.0.1:1")
        .replace("penalties = false", "penalties = false\nmessage_bytes = 64")
        + "[room]\nmotd = \"new words\"\n";
    fs::write(&room.service.config, changed).unwrap();
    room.service.log_so_far();
    room.service.signal(Signal::SIGHUP);
    let line = room.service.wait_for_line("the configuration was read again");
    assert!(line.contains("listen") && line.contains("needs a restart"), "{line}");
    room.service.wait_for_line("can join");
    room.talk();
    let carol_file = room.service.token("carol", &[]);
    let (mut carol, welcome) = RawClient::join(room.service.port, &read_token(&carol_file), 1);
    assert_eq!((welcome.message_bytes, welcome.motd.as_str()), (64, "new words"));
    carol.say("1", &"x".repeat(65));
    assert!(matches!(carol.event(), Some(Event::Rejected { .. })));
    // The limits are the listener's too: one client too many is turned away.
    let text = fs::read_to_string(&room.service.config).unwrap();
    let full = text.replace("per_source = 1000", "per_source = 3\nclients = 3");
    fs::write(&room.service.config, full).unwrap();
    room.service.log_so_far();
    room.service.signal(Signal::SIGHUP);
    room.service.wait_for_line("is started again with the new limits");
    wait_until("a fourth client is told that the room is full", || {
        read_to_end(&mut closing(room.service.port)) == [1]
    });
    room.talk();
}

/// A connection that says nothing, and wants nothing but the first answer.
fn closing(port: u16) -> TcpStream {
    let stream = connect(port);
    let _ = stream.shutdown(Shutdown::Write);
    stream
}

#[test]
fn tokens_added_at_once_by_many_all_stand_in_the_file() {
    let service = Service::start("");
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    let adding: Vec<std::process::Child> = names
        .iter()
        .map(|name| {
            std::process::Command::new(service::PAPAYAD)
                .args(["token", "add", name])
                .env("PAPAYAD_CONFIG", &service.config)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let tokens: Vec<Token> = adding
        .into_iter()
        .map(|one| {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success());
            Token::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
        })
        .collect();
    let listed = service.admin_ok(&["token", "list", "--json"]);
    for name in &names {
        let entry = format!("\"name\":\"{name}\"");
        assert_eq!(listed.matches(&entry).count(), 1, "{listed}");
    }
    // And the running service knows each of them.
    for token in &tokens {
        RawClient::join(service.port, token, 1);
    }
    let left = fs::read_dir(service.dir.path().join("state")).unwrap();
    let left: Vec<String> = left
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The lines that a logger gets. It takes them as they come, as a logger does: the socket keeps no more
/// than about ten, and what has no room there is lost.
fn logger(socket: &UnixDatagram) -> (Receiver<String>, JoinHandle<()>) {
    let (sender, lines) = channel();
    let socket = socket.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer)
            && length > 0
        {
            let _ = sender.send(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    });
    (lines, reader)
}

/// The lines up to the last of these texts. While nothing comes, the service is asked for more.
fn hear(lines: &Receiver<String>, texts: &[&str], mut ask: impl FnMut()) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    wait_until(&format!("syslog gets {texts:?}"), || {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => heard.push(line),
            Err(_) => ask(),
        }
        texts.iter().all(|text| heard.iter().any(|line| line.contains(text)))
    });
    heard
}

#[test]
fn syslog_gets_the_same_lines_also_after_its_restart() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("log");
    let bind = || {
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        socket
    };
    let first = bind();
    let (lines, reader) = logger(&first);
    let more = format!("[syslog]\nfacility = \"daemon\"\nsocket = \"{}\"", path.display());
    let mut room = Room::open(&more);
    room.talk();
    // A logger that does not take its lines is left alone for a moment, and misses what is said then:
    // so what has to be heard is said until it is.
    let read_again = ["the configuration was read again", "the tokens were read again"];
    let launcher = room.service.pid();
    let sighup = || nix::sys::signal::kill(launcher, Signal::SIGHUP).unwrap();
    let lines = hear(&lines, &read_again, sighup);
    assert!(lines.iter().all(|l| l.contains(&format!(" papayad[{launcher}]: "))), "{lines:?}");
    // The priority is facility daemon (3), and the severity of each.
    let level = |text: &str| lines.iter().find(|l| l.contains(text)).unwrap()[..4].to_owned();
    assert_eq!(read_again.map(level), ["<29>", "<30>"]);
    for line in lines.iter().filter(|line| !line.ends_with("are missing here")) {
        let words = line.split_once("]: ").unwrap().1;
        let same = format!("papayad: {words}");
        wait_until(&format!("{same:?} is in the foreground's log"), || {
            room.service.log_so_far().contains(&same)
        });
    }
    first.shutdown(Shutdown::Both).unwrap();
    reader.join().unwrap();
    drop(first);
    fs::remove_file(&path).unwrap();
    room.talk();
    let second = bind();
    let (lines, _reader) = logger(&second);
    hear(&lines, &read_again, sighup);
    room.service.admin_ok(&["kick", "bob"]);
    hear(&lines, &["bob was kicked"], || {});
    room.service.wait_for_line("bob was kicked");
    assert!(titled(&room.service, "papayad: recv alice").exists());
}
