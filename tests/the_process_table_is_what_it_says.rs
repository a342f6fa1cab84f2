//! Promise: the process table of a running service is the one in the documentation: who runs as
//! whom, confined how, under which title, with which descriptors; and all of it goes at the end.
//! Needs root, because only root has users to give, and may look into all processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/service.rs"]
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::fcntl::OFlag;
use nix::unistd::{Group, User};
use papayachat::confine::Role;
use papayachat::confine::policy::{self, Descriptor};
use processes::{Process, all, no_zombie_stays, wait_confined, wait_for_titles, wait_until};
use raw_client::{RawClient, connect, read_token};
use service::{Service, is_root};

type Check = fn(&mut Room);

fn main() -> ExitCode {
    let checks: [(&str, Check); 7] = [
        ("two processes a client, under their titles", titles),
        ("every process is its user for good, in no other group", users),
        ("no process has a capability, or can get one; each has its filter", confinement),
        ("each process has the descriptors of its table and no other", descriptors),
        ("a client's socket is held by its RECV and SEND alone", sockets),
        ("one session, one process group, so that the bell reaches all", groups),
        ("at the end all of them are gone", gone),
    ];
    let trials = checks.map(|(name, check)| {
        let run = move || -> Result<(), Failed> {
            let mut room = Room::open();
            check(&mut room);
            no_zombie_stays(&room.service);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!is_root())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// A service with three clients, and a fourth connection that has shown no token.
struct Room {
    service: Service,
    clients: Vec<RawClient>,
    stranger: std::net::TcpStream,
    found: Vec<Process>,
}

impl Room {
    fn open() -> Self {
        let service = Service::start("[limits]\ngrace = \"600s\"");
        let clients: Vec<RawClient> = ["alice", "bob", "carol"]
            .into_iter()
            .map(|name| {
                let token = read_token(&service.token(name, &[]));
                RawClient::join(service.port, &token, 1).0
            })
            .collect();
        let stranger = connect(service.port);
        let mut titles = vec!["papayad: keeper".to_owned(), "papayad: listener".to_owned()];
        for (name, client) in ["alice", "bob", "carol"].into_iter().zip(&clients) {
            let address = client.stream.local_addr().unwrap();
            titles.push(format!("papayad: recv {name} {address}"));
            titles.push(format!("papayad: send {name} {address}"));
        }
        titles.push(format!("papayad: recv - {}", stranger.local_addr().unwrap()));
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        let found = wait_for_titles(&service, &titles);
        // The title comes before the confinement, for which something is open for a moment.
        for process in &found {
            let role = match process.title.split(' ').nth(1).unwrap() {
                "recv" if process.title.contains(" - ") => Role::Recv,
                "recv" => Role::RecvJoined,
                "send" => Role::Send,
                "listener" => Role::Listener,
                _ => Role::Keeper,
            };
            wait_confined(process.pid, role);
        }
        Self { service, clients, stranger, found }
    }

    fn of(&self, role: &str) -> Vec<&Process> {
        let title = format!("papayad: {role}");
        self.found.iter().filter(|p| p.title.starts_with(&title)).collect()
    }
}

fn find<'a>(found: &'a [Process], role: &str) -> &'a Process {
    found.iter().find(|p| p.title.starts_with(&format!("papayad: {role}"))).unwrap()
}

/// `/proc/PID/status` by its keys.
fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|l| l.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

fn titles(room: &mut Room) {
    // Opening the room has compared beginnings; now the whole of each, and the launcher's.
    for process in &room.found {
        let words: Vec<&str> = process.title.split(' ').collect();
        let wanted = match words[1] {
            "keeper" | "listener" => 2,
            _ => 4,
        };
        assert_eq!(words.len(), wanted, "{process:?}");
        assert_eq!(status(process.pid)["Name"], "papayad", "{process:?}");
    }
    let launcher = room.service.launcher.id();
    let line = fs::read(format!("/proc/{launcher}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert_eq!(line.trim_end(), "papayad: launcher");
    assert_eq!((room.of("recv").len(), room.of("send").len()), (4, 3));
}

fn users(room: &mut Room) {
    let workers = User::from_name("nobody").unwrap().unwrap();
    let keeper = User::from_name("daemon").unwrap().unwrap();
    assert!(Group::from_gid(workers.gid).unwrap().is_some());
    for process in all(&room.service) {
        let user = if process.title == "papayad: keeper" { &keeper } else { &workers };
        let status = status(process.pid);
        let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()];
        let fields =
            |key: &str| status[key].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fields("Uid"), four(user.uid.as_raw()), "{process:?}");
        assert_eq!(fields("Gid"), four(user.gid.as_raw()), "{process:?}");
        assert_eq!(fields("Groups"), [""; 0], "{process:?}");
    }
}

fn confinement(room: &mut Room) {
    for process in all(&room.service) {
        let status = status(process.pid);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status[set], 16), Ok(0), "{set} of {process:?}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{process:?}");
        assert_eq!(status["Seccomp"], "2", "{process:?}");
        assert_eq!(status["Threads"], "1", "{process:?}");
        let cores = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        let core = cores.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        let hard = core.split_whitespace().nth(5);
        assert!(process.title == "launcher" || hard == Some("0"), "{core} of {process:?}");
    }
}

/// What is behind a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Pipe,
    Channel,
    Tcp,
    Listening,
    /// A file or directory below the state directory, and how it is open.
    State(&'static str, OFlag),
}

fn descriptors(room: &mut Room) {
    let append = Kind::State("room.log", OFlag::O_WRONLY | OFlag::O_APPEND);
    let read = Kind::State("room.log", OFlag::O_RDONLY);
    let gate = Kind::State("room.gate", OFlag::O_RDONLY);
    let joined = [
        (0, Kind::Tcp),
        (1, Kind::Channel),
        (2, Kind::Pipe),
        (3, Kind::Pipe),
        (4, append),
        (6, gate.clone()),
        (8, read.clone()),
        (9, Kind::Channel),
    ];
    let send = [(0, Kind::Tcp), (2, Kind::Pipe), (5, read), (7, gate), (10, Kind::Channel)];
    let listener = [(0, Kind::Null), (1, Kind::Channel), (2, Kind::Pipe), (3, Kind::Listening)];
    let keeper = [
        (0, Kind::Null),
        (1, Kind::Channel),
        (2, Kind::Pipe),
        (3, Kind::State("", OFlag::O_RDONLY)),
        (4, Kind::Pipe),
    ];
    let members =
        |role: &str| room.of(role).into_iter().filter(|p| !p.title.contains(" - ")).collect();
    let strangers = room.of("recv -");
    let joined_recvs: Vec<&Process> = members("recv");
    check_table(room, &joined_recvs, &joined, policy::recv_joined::DESCRIPTORS);
    check_table(room, &strangers, &joined[..4], policy::recv::DESCRIPTORS);
    check_table(room, &members("send"), &send, policy::send::DESCRIPTORS);
    check_table(room, &room.of("listener"), &listener, policy::listener::DESCRIPTORS);
    let keepers = room.of("keeper");
    // It takes the stranger's channel, and lets go of what it gave to the others, in its own time.
    let mut open = BTreeMap::new();
    let mut beyond = BTreeMap::new();
    let channels = |of: &BTreeMap<i32, Kind>| of.values().filter(|k| **k == Kind::Channel).count();
    wait_until("the keeper has a channel for each worker", || {
        open = kinds(room, keepers[0]);
        beyond = open.split_off(&policy::keeper::FIRST);
        channels(&beyond) == 4
    });
    assert_eq!(open, keeper.into_iter().collect(), "{:?}", keepers[0]);
    numbers_are(&open, policy::keeper::DESCRIPTORS);
    // Beyond its table: a channel for each worker, and its own descriptions of log and gate.
    for kind in beyond.values() {
        let known = match kind {
            Kind::Channel => true,
            Kind::State(name, _) => ["", "room.log", "room.gate"].contains(name),
            _ => false,
        };
        assert!(known, "the keeper holds {kind:?}");
    }
}

fn check_table(room: &Room, who: &[&Process], wanted: &[(i32, Kind)], table: &[Descriptor]) {
    assert!(!who.is_empty());
    for process in who {
        let open = kinds(room, process);
        assert_eq!(open, wanted.iter().cloned().collect(), "{process:?}");
        numbers_are(&open, table);
    }
}

/// The policy's table, which the filters and the documents go by, has the same numbers.
fn numbers_are(open: &BTreeMap<i32, Kind>, table: &[Descriptor]) {
    for number in open.keys() {
        assert!(table.iter().any(|d| (d.first..=d.last).contains(number)), "{number}");
    }
    for entry in table {
        assert!(open.keys().any(|n| (entry.first..=entry.last).contains(n)), "{entry:?}");
    }
}

fn kinds(room: &Room, process: &Process) -> BTreeMap<i32, Kind> {
    let state = fs::canonicalize(room.service.dir.path().join("state")).unwrap();
    let tables = ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/net/{t}")).unwrap());
    let unix = fs::read_to_string("/proc/net/unix").unwrap();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap() {
        let number: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // Closed since it was listed.
        let path = fs::read_link(format!("/proc/{}/fd/{number}", process.pid));
        let Ok(path) = path else { continue };
        let text = path.to_str().unwrap();
        let inode = text.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']'));
        let kind = if text == "/dev/null" {
            Kind::Null
        } else if text.starts_with("pipe:[") {
            Kind::Pipe
        } else if let Some(inode) = inode {
            socket_kind(inode, &tables.concat(), &unix)
        } else {
            let name = path.strip_prefix(&state).expect("a path outside the state directory");
            let known = ["", "room.log", "room.gate", "host.key", "tokens", "tokens.lock"];
            let name = known.into_iter().find(|k| name.to_str() == Some(*k));
            Kind::State(name.unwrap_or_else(|| panic!("{path:?}")), open_flags(process, number))
        };
        found.insert(number, kind);
    }
    found
}

fn socket_kind(inode: &str, tcp: &str, unix: &str) -> Kind {
    const LISTEN: &str = "0A";
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if let Some(line) = tcp.lines().map(fields).find(|f| f.get(9).is_some_and(|i| i == inode)) {
        return if line[3] == LISTEN { Kind::Listening } else { Kind::Tcp };
    }
    let line = unix.lines().map(fields).find(|f| f.get(6).is_some_and(|i| i == inode));
    // Number RefCount Protocol Flags Type St Inode; a socket pair has no name after that.
    let line = line.unwrap_or_else(|| panic!("socket {inode} is neither TCP nor UNIX"));
    assert_eq!((line[4].as_str(), line.len()), ("0005", 7), "not a SEQPACKET pair: {line:?}");
    Kind::Channel
}

/// How a file is open: for reading or writing, and whether only at its end.
fn open_flags(process: &Process, number: i32) -> OFlag {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.pid)).unwrap();
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim();
    let flags = OFlag::from_bits_retain(i32::from_str_radix(flags, 8).unwrap());
    flags & (OFlag::O_ACCMODE | OFlag::O_APPEND | OFlag::O_PATH)
}

fn sockets(room: &mut Room) {
    let holders = |inode: &str| -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for process in all(&room.service) {
            for entry in fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten() {
                let target = fs::read_link(entry.path());
                if target.is_ok_and(|t| t.to_str() == Some(inode)) {
                    found.insert(process.pid);
                }
            }
        }
        found
    };
    // Listener and launcher close theirs once they have handed it on: soon, and not before.
    let wait_for_holders = |inode: &str, wanted: BTreeSet<i32>| {
        wait_until(&format!("{wanted:?} alone hold {inode}"), || holders(inode) == wanted);
    };
    let pid = |title: String| find(&room.found, &title).pid;
    for (name, client) in ["alice", "bob", "carol"].into_iter().zip(&room.clients) {
        let address = client.stream.local_addr().unwrap();
        let pair = [pid(format!("recv {name} {address}")), pid(format!("send {name} {address}"))];
        let inode = fs::read_link(format!("/proc/{}/fd/0", pair[0])).unwrap();
        wait_for_holders(inode.to_str().unwrap(), pair.into_iter().collect());
    }
    let stranger = pid(format!("recv - {}", room.stranger.local_addr().unwrap()));
    let inode = fs::read_link(format!("/proc/{stranger}/fd/0")).unwrap();
    wait_for_holders(inode.to_str().unwrap(), [stranger].into_iter().collect());
}

fn groups(room: &mut Room) {
    let launcher = room.service.launcher.id().to_string();
    for process in all(&room.service) {
        let stat = processes::stat(process.pid).unwrap();
        // State, parent, group, session.
        assert_eq!(stat[2], launcher, "{process:?}");
        let session = processes::stat(room.service.launcher.id() as i32).unwrap()[3].clone();
        assert_eq!(stat[3], session, "{process:?}");
    }
}

fn gone(room: &mut Room) {
    let before = all(&room.service);
    assert_eq!(before.len(), 1 + 2 + 6 + 1);
    let status = room.service.stop();
    assert_eq!(status.code(), Some(0));
    for process in before {
        process.wait_gone();
    }
}
