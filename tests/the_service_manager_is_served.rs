//! Promise: a service manager gets what sd_notify(3) and sd_listen_fds(3) say: it is told that the
//! service is ready when the door is open and not before, of each reload, of the end, and that the
//! service is alive only while it is; and sockets that it opens are served, paused, and given back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use papayachat::exit::Exit;
use processes::{all, titled, wait_until};
use raw_client::{RawClient, join_line, read_token};
use service::{PAPAYAD, PATIENCE, Service, is_root, wait_child};

fn main() -> ExitCode {
    type Test = fn();
    let tests: [(&str, Test); 14] = [
        ("ready_means_that_the_door_is_open", ready_means_that_the_door_is_open),
        ("an_abstract_socket_is_told_the_same", an_abstract_socket_is_told_the_same),
        ("a_reload_is_told_from_its_beginning_to_its_end", a_reload_is_told),
        ("a_launcher_that_waits_for_the_keeper_sleeps", a_waiting_launcher_sleeps),
        ("the_status_says_who_is_here_and_the_end_is_told", the_status_and_the_end_are_told),
        ("only_a_service_that_goes_round_feeds_the_watchdog", only_the_living_feed_the_watchdog),
        ("a_disk_that_keeps_the_keeper_waiting_stops_nobody", a_slow_disk_stops_nobody),
        ("a_watchdog_for_another_process_is_not_fed", a_watchdog_for_another_is_not_fed),
        ("a_service_behind_a_front_process_is_the_main_one", a_front_process_names_the_main_one),
        ("a_manager_that_does_not_listen_stops_nobody", a_deaf_manager_stops_nobody),
        ("given_sockets_are_served_and_paused", given_sockets_are_served_and_paused),
        ("a_restart_on_given_sockets_turns_nobody_away", a_restart_turns_nobody_away),
        ("given_things_that_are_no_listening_sockets_are_named", odd_things_are_named),
        ("sockets_given_to_another_process_are_left_alone", sockets_of_another_are_left_alone),
    ];
    let mut trials: Vec<Trial> = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    let environment = Trial::test("nobody_inherits_the_environment (needs root)", || {
        nobody_inherits_the_environment();
        Ok(())
    });
    trials.push(environment.with_ignored_flag(!is_root()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A service manager, as far as the service sees it.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _dir: Option<tempfile::TempDir>,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        Self::with(socket, path.display().to_string(), Some(dir))
    }

    fn with(socket: UnixDatagram, name: String, dir: Option<tempfile::TempDir>) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name, _dir: dir }
    }

    /// How it starts a service; `setting` is shell, in which `$$` is the service's process.
    fn starts(&self, setting: &str) -> Command {
        let mut by = shell(setting);
        by.env("NOTIFY_SOCKET", &self.name).stdin(Stdio::null());
        by
    }

    fn next(&self) -> String {
        self.try_next().expect("a word from the service")
    }

    fn try_next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("{e}"),
        }
    }

    /// Until a message has this line; all that came.
    fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            all.push(self.next());
            if all[all.len() - 1].lines().any(|l| l == line) {
                return all;
            }
        }
    }
}

/// Runs what follows as papayad's arguments, in the process that `$$` is.
fn shell(setting: &str) -> Command {
    let mut by = Command::new("sh");
    by.arg("-c").arg(format!("{setting} exec \"$0\" \"$@\"")).arg(PAPAYAD);
    by
}

fn start(by: Command) -> Service {
    Service::start_by(by, "state", "", |_| {})
}

/// How many filters a process is under, by proc(5).
fn filters(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Seccomp_filters:")).unwrap();
    line.trim().parse().unwrap()
}

fn ready_means_that_the_door_is_open() {
    let manager = Manager::new();
    let service = start(manager.starts(""));
    let first = manager.next();
    assert!(first.starts_with("READY=1\nSTATUS="), "{first}");
    assert!(first.contains("the door is open"), "{first}");
    // The listener is confined already: it would not answer otherwise.
    let listener = titled(&service, "papayad: listener");
    assert!(filters(listener.pid) > filters(service.pid().as_raw()), "it is not confined yet");
    let token = read_token(&service.token("alice", &[]));
    RawClient::join(service.port, &token, 1);
}

fn an_abstract_socket_is_told_the_same() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("papaya-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager::with(socket, format!("@{name}"), None);
    let mut service = start(manager.starts(""));
    manager.until("READY=1");
    // The launcher is confined now, and what it says still arrives.
    service.signal(Signal::SIGHUP);
    manager.until("READY=1");
    service.stop();
    manager.until("STOPPING=1");
}

fn monotonic() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
}

fn a_reload_is_told() {
    let manager = Manager::new();
    let mut service = start(manager.starts(""));
    manager.until("READY=1");
    let limits = |text: &str| text.replace("penalties = false", "penalties = true");
    let mistake = |text: &str| format!("{text}\n[nonsense]\n");
    // As it was; with limits that need another listener; with a mistake.
    let changes: [&dyn Fn(&str) -> String; 3] = [&|text| text.to_owned(), &limits, &mistake];
    for change in changes {
        let text = fs::read_to_string(&service.config).unwrap();
        fs::write(&service.config, change(&text)).unwrap();
        let before = monotonic();
        service.signal(Signal::SIGHUP);
        let said = manager.until("READY=1");
        let begun = said.iter().position(|m| m.starts_with("RELOADING=1\n")).expect("a beginning");
        assert!(begun < said.len() - 1, "{said:?}");
        let at = said[begun].lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC=")).unwrap();
        let at: u128 = at.parse().unwrap();
        assert!(before <= at && at <= monotonic(), "{before} {at}");
        // The end is the end of all of it: the keeper has read the tokens, the door is open.
        assert!(said[said.len() - 1].contains("the door is open"), "{said:?}");
        service.wait_for_line("can join");
        titled(&service, "papayad: listener");
    }
}

fn a_waiting_launcher_sleeps() {
    let manager = Manager::new();
    let mut service = start(manager.starts("WATCHDOG_USEC=100000 WATCHDOG_PID=$$"));
    let token = read_token(&service.token("alice", &[]));
    let (alice, _) = RawClient::join(service.port, &token, 1);
    manager.until("STATUS=1 client in room \"lobby\"; the door is open");
    // A reload that cannot end, and news that wait for its end.
    titled(&service, "papayad: keeper").signal(Signal::SIGSTOP);
    service.signal(Signal::SIGHUP);
    service.wait_for_line("the configuration was read again");
    drop(alice);
    service.wait_for_line("ended (status 0)");
    let ticks = || -> u64 {
        let stat = processes::stat(service.launcher.id() as i32).unwrap();
        stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap()
    };
    // Longer than the pause between two texts for the manager.
    let before = ticks();
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks() - before;
    assert!(used < 20, "the launcher used {used} ticks while nothing happened");
    // Signs of life of the time before may have filled the socket, and what has no room there is lost.
    manager.socket.set_nonblocking(true).unwrap();
    while manager.try_next().is_some() {}
    manager.socket.set_nonblocking(false).unwrap();
    titled(&service, "papayad: keeper").signal(Signal::SIGCONT);
    manager.until("READY=1");
}

fn the_status_and_the_end_are_told() {
    let manager = Manager::new();
    let mut service = start(manager.starts(""));
    let token = read_token(&service.token("alice", &[]));
    let (alice, _) = RawClient::join(service.port, &token, 1);
    let text = |clients: &str, door: &str| {
        format!("STATUS={clients} in room \"lobby\"; the door is {door}")
    };
    manager.until(&text("1 client", "open"));
    // It hears that it shall close the door when it goes on.
    let listener = titled(&service, "papayad: listener");
    listener.signal(Signal::SIGSTOP);
    service.admin_ok(&["pause"]);
    service.admin_ok(&["resume"]);
    manager.until(&text("1 client", "about to be opened again"));
    listener.signal(Signal::SIGCONT);
    manager.until(&text("1 client", "open"));
    service.admin_ok(&["pause"]);
    manager.until(&text("1 client", "closed"));
    drop(alice);
    manager.until(&text("0 clients", "closed"));
    service.admin_ok(&["resume"]);
    manager.until(&text("0 clients", "open"));
    assert_eq!(service.stop().code(), Some(0));
    manager.until("STOPPING=1");
    // After the end nothing else is said.
    manager.socket.set_nonblocking(true).unwrap();
    assert_eq!(manager.try_next(), None);
}

fn only_the_living_feed_the_watchdog() {
    let manager = Manager::new();
    let service = start(manager.starts("WATCHDOG_USEC=100000 WATCHDOG_PID=$$"));
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    for stopped in ["keeper", "launcher"] {
        let process = all(&service).into_iter().find(|p| p.title.ends_with(stopped)).unwrap();
        process.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || processes::stat(process.pid).is_some_and(|s| s[0] == "T"));
        // What was said before it stopped is read; then there is silence, ten times as long as
        // the pause between two signs of life.
        manager.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let end = Instant::now() + PATIENCE;
        while manager.try_next().is_some() {
            assert!(Instant::now() < end, "the {stopped} is stopped, and the watchdog is fed");
        }
        process.signal(Signal::SIGCONT);
        manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        manager.until("WATCHDOG=1");
    }
}

/// A keeper that is stopped stands for one that waits for the disk: it does not answer.
fn a_slow_disk_stops_nobody() {
    let manager = Manager::new();
    let mut service = start(manager.starts("WATCHDOG_USEC=100000 WATCHDOG_PID=$$"));
    let token = read_token(&service.token("alice", &[]));
    let (mut alice, _) = RawClient::join(service.port, &token, 1);
    let keeper = titled(&service, "papayad: keeper");
    // It writes who comes, under the log's locks: it must not be stopped with one of them.
    let is_free = |name: &str| {
        let file = fs::File::open(service.state.join(name)).unwrap();
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
    };
    wait_until("it is stopped without a lock", || {
        keeper.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || processes::stat(keeper.pid).is_some_and(|s| s[0] == "T"));
        let free = is_free("room.gate") && is_free("room.log");
        if !free {
            keeper.signal(Signal::SIGCONT);
        }
        free
    });
    manager.socket.set_nonblocking(true).unwrap();
    while manager.try_next().is_some() {}
    manager.socket.set_nonblocking(false).unwrap();
    alice.say("1", "the room goes on");
    alice.hear("the room goes on");
    // More than can have been on their way: the keeper is asked to flush, and its silence is no
    // reason to start the service again.
    for _ in 0..10 {
        manager.until("WATCHDOG=1");
    }
    keeper.signal(Signal::SIGCONT);
    alice.say("2", "and has lost nothing");
    alice.hear("and has lost nothing");
    assert_eq!(service.stop().code(), Some(0));
}

fn a_watchdog_for_another_is_not_fed() {
    let manager = Manager::new();
    let mut service = start(manager.starts("WATCHDOG_USEC=20000 WATCHDOG_PID=1"));
    // Takes many times the pause.
    let token = read_token(&service.token("alice", &[]));
    RawClient::join(service.port, &token, 1);
    assert_eq!(service.stop().code(), Some(0));
    let said = manager.until("STOPPING=1");
    assert!(!said.iter().any(|m| m.contains("WATCHDOG")), "{said:?}");
}

fn a_front_process_names_the_main_one() {
    let manager = Manager::new();
    // Not so often that the socket is full of it when something else is said.
    let mut by = manager.starts("WATCHDOG_USEC=1000000 WATCHDOG_PID=$$");
    // As a job of an interactive shell: it leads a group, and cannot begin a session.
    by.process_group(0);
    let mut service = start(by);
    let below = service.processes();
    let (main, _) = below.iter().find(|(_, line)| line == "papayad: launcher").expect("a launcher");
    assert_eq!(manager.next(), format!("MAINPID={main}"));
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    service.signal(Signal::SIGTERM);
    manager.until("STOPPING=1");
    assert_eq!(wait_child(&mut service.launcher).code(), Some(0));
}

fn a_deaf_manager_stops_nobody() {
    // It is there and never listens: what it does not take is lost, and the service goes on.
    let manager = Manager::new();
    let mut service = start(manager.starts("WATCHDOG_USEC=2000 WATCHDOG_PID=$$"));
    let token = read_token(&service.token("alice", &[]));
    let (mut alice, _) = RawClient::join(service.port, &token, 1);
    // Of her token. Each of the others is a reload's end: two signals at once would be one reload.
    service.wait_for_line("can join");
    for round in 0..5 {
        service.signal(Signal::SIGHUP);
        service.wait_for_line("can join");
        alice.say(&round.to_string(), "still here");
        alice.hear("still here");
    }
    drop(manager);
    service.admin_ok(&["pause"]);
    service.wait_for_status(|s, _| s["door"] == "closed");
    assert_eq!(service.stop().code(), Some(0));
    // And one that is not there at all is named.
    let mut by = shell("");
    by.env("NOTIFY_SOCKET", "/nonexistent/notify").stdin(Stdio::null());
    service.restart_by(by);
    let log = service.log.join("\n");
    assert!(log.contains("/nonexistent/notify") && log.contains("is of no use"), "{log}");
}

fn nobody_inherits_the_environment() {
    let manager = Manager::new();
    let (socket, _) = socket();
    let by = activated(&socket, "WATCHDOG_USEC=1000000 WATCHDOG_PID=$$ LISTEN_FDNAMES=door");
    let mut by = by;
    by.env("NOTIFY_SOCKET", &manager.name);
    let service = start(by);
    let token = read_token(&service.token("alice", &[]));
    let (_alice, _) = RawClient::join(service.port, &token, 1);
    let processes = all(&service);
    assert!(processes.len() >= 5, "{processes:?}");
    for process in processes {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        for name in ["NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"] {
            assert!(!text.contains(name), "{} has {name}", process.title);
        }
    }
}

/// A listening socket as a service manager makes it, and its port: one that was asked for, since
/// the system takes one that it chose back when the socket is shut.
fn socket() -> (TcpListener, u16) {
    loop {
        let chosen = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = chosen.local_addr().unwrap();
        drop(chosen);
        // Unless somebody else was given it meanwhile.
        if let Ok(socket) = TcpListener::bind(address) {
            return (socket, address.port());
        }
    }
}

/// Gives a socket to the service as its third descriptor.
fn activated(socket: &TcpListener, setting: &str) -> Command {
    given(socket.try_clone().unwrap().into(), setting)
}

fn given(thing: OwnedFd, setting: &str) -> Command {
    let mut by = Command::new("sh");
    let script = "exec \"$0\" \"$@\" 3<&0 0</dev/null";
    by.arg("-c").arg(format!("LISTEN_FDS=1 LISTEN_PID=$$ {setting} {script}")).arg(PAPAYAD);
    by.stdin(Stdio::from(thing));
    by
}

fn is_refused(port: u16) -> bool {
    match TcpStream::connect(("127.0.0.1", port)) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => true,
        Err(e) => panic!("neither refused nor served: {e}"),
        Ok(_) => false,
    }
}

fn given_sockets_are_served_and_paused() {
    let (socket, port) = socket();
    let mut service = start(activated(&socket, "LISTEN_FDNAMES=door"));
    assert_eq!(service.port, port, "it listens elsewhere");
    let log = service.log.join("\n");
    assert!(log.contains("listen.addresses is not used"), "{log}");
    let file = service.token("alice", &[]);
    let token = read_token(&file);
    let (mut alice, _) = RawClient::join(port, &token, 1);
    type Close = fn(&Service);
    let ways: [Close; 2] = [
        |service| drop(service.admin_ok(&["pause"])),
        |service| titled(service, "papayad: listener").signal(Signal::SIGTERM),
    ];
    for (round, close) in ways.into_iter().enumerate() {
        close(&service);
        service.wait_for_status(|s, _| s["door"] == "closed");
        assert!(is_refused(port));
        alice.say(&format!("closed{round}"), "behind the door");
        alice.hear("behind the door");
        service.admin_ok(&["resume"]);
        RawClient::join(port, &token, 2);
    }
    // A broken listener is replaced here too.
    titled(&service, "papayad: listener").signal(Signal::SIGKILL);
    service.wait_for_line("the listener ended");
    RawClient::join(port, &token, 2);
    alice.say("last", "all is well");
    alice.hear("all is well");
    assert_eq!(service.stop().code(), Some(0));
}

fn a_restart_turns_nobody_away() {
    let (socket, port) = socket();
    let mut service = start(activated(&socket, ""));
    let file = service.token("alice", &[]);
    let token = read_token(&file);
    for pause in [false, true] {
        if pause {
            // The socket was shut, and must listen again when the manager has it back.
            service.admin_ok(&["pause"]);
            service.wait_for_status(|s, _| s["door"] == "closed");
            assert!(is_refused(port));
        }
        assert_eq!(service.stop().code(), Some(0));
        // Nobody serves now, and whoever comes waits.
        let mut waiting = TcpStream::connect(("127.0.0.1", port)).expect("the socket listens");
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        let (noise, hello) =
            papayachat::wire::handshake::NkInitiator::start(&token.server).unwrap();
        std::io::Write::write_all(&mut waiting, &hello).unwrap();
        service.restart_by(activated(&socket, ""));
        let mut reply = [0; 1 + papayachat::wire::handshake::MESSAGE_LEN];
        std::io::Read::read_exact(&mut waiting, &mut reply).unwrap();
        let keys = noise.finish(reply[1..].try_into().unwrap()).unwrap();
        let mut client = RawClient::with_keys(waiting, &keys);
        client.say_bytes(join_line(&token, 1, "").as_bytes());
        client.say("1", "I have waited");
        client.hear("I have waited");
    }
}

fn odd_things_are_named() {
    let service = Service::start("");
    let dir = tempfile::tempdir().unwrap();
    let local = UnixListener::bind(dir.path().join("socket")).unwrap();
    let (socket, _) = socket();
    let connection = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let things: [(OwnedFd, &str, &str); 5] = [
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "", "is no stream"),
        (local.into(), "", "is not bound to an address of the internet"),
        (fs::File::open("/dev/null").unwrap().into(), "", "is no socket"),
        (connection.into(), "LISTEN_FDNAMES=a:b", "(a) is a connection"),
        (socket.into(), "LISTEN_FDS=2", "socket 4"),
    ];
    for (thing, setting, words) in things {
        let mut by = given(thing, setting);
        by.args(["run", "--config"]).arg(&service.config);
        let output = by.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words) && said.contains("ListenStream="), "{said}");
        assert_eq!(output.status.code(), Some(Exit::Config as i32), "{said}");
    }
}

fn sockets_of_another_are_left_alone() {
    let (socket, port) = socket();
    let by = {
        let mut by = Command::new("sh");
        let script = "LISTEN_FDS=1 LISTEN_PID=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
        by.arg("-c")
            .arg(script)
            .arg(PAPAYAD)
            .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        by
    };
    let mut service = start(by);
    assert_ne!(service.port, port);
    service.signal(Signal::SIGTERM);
    assert_eq!(wait_child(&mut service.launcher).code(), Some(0));
    assert!(!is_refused(port));
}
