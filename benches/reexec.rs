//! What it costs that RECV is executed anew for each client instead of only being forked.
//!
//! `cargo bench --bench reexec` prints processor time and memory of both ways, and of a whole join
//! and leave against a real service on loopback. Memory needs root: the workers are not dumpable.
//! Touches a temporary directory, and ends only what it started.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, geteuid};
use papayachat::client::link::Link;
use papayachat::client::trouble::Trouble;
use papayachat::config::{Config, Durability, Level, Sandbox};
use papayachat::daemon::channel::keeper_recv::{Settings, ToRecv};
use papayachat::daemon::channel::{Channel, WorkerId};
use papayachat::daemon::recv;
use papayachat::sys;
use papayachat::ticket::Ticket;
use papayachat::token::Token;
use papayachat::wire::command::{Command as Line, Credential, Join, SessionId, Start};
use papayachat::wire::event::{Event, Plaintext};

const PAPAYAD: &str = env!("CARGO_BIN_EXE_papayad");
/// Starts of RECV a way.
const STARTS: u32 = 400;
/// Joins with a ticket, and with the token's secret.
const TICKETS: u32 = 400;
const SECRETS: u32 = 20;
/// Processes whose memory is averaged.
const IDLE: usize = 32;

fn main() -> ExitCode {
    machine();
    starts();
    if geteuid().is_root() {
        memory_before_the_token();
    } else {
        println!("memory: NOT MEASURED, it needs root");
    }
    service();
    ExitCode::SUCCESS
}

fn machine() {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or("").to_owned();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("machine: {cpus} x {}, Linux {}", field("/proc/cpuinfo", "model name"), kernel.trim());
}

// One RECV, from its start to the end that it has when its client hangs up at once ----------------

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Executed,
    Forked,
}

/// What a RECV is started with, and the other ends.
struct Workplace {
    table: [OwnedFd; 3],
    keeper: Channel,
    client: Option<UnixStream>,
    _keepers: Channel,
}

impl Workplace {
    fn new() -> Self {
        let (client, theirs) = UnixStream::pair().unwrap();
        let (keeper, keepers) = Channel::pair().unwrap();
        let config = Config::default();
        let settings = Settings {
            launcher: std::process::id() as i32,
            id: WorkerId(1),
            source: SocketAddr::from(([127, 0, 0, 1], 1)),
            room: config.room.name,
            motd: config.room.motd,
            message_bytes: config.limits.message_bytes,
            rate: config.limits.rate.messages,
            rate_per: config.limits.rate.per,
            burst: config.limits.burst,
            grace: Duration::from_secs(600),
            durability: Durability::Interval,
            sandbox: Sandbox { require: Level::Seccomp, ceiling: Level::Full },
        };
        keepers.send(&ToRecv::Settings(Box::new(settings)), &[]).unwrap();
        let null = || OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
        Self {
            table: [theirs.into(), null(), null()],
            keeper,
            client: Some(client),
            _keepers: keepers,
        }
    }

    fn start(&self, way: Way, program: &OwnedFd) -> Pid {
        let [client, report, bell] = self.table.each_ref().map(AsRawFd::as_raw_fd);
        let table = [client, self.keeper.raw(), report, bell];
        match way {
            Way::Executed => {
                let title = format!("{}- 127.0.0.1:1", recv::ARGUMENT);
                let arguments = [title, " ".repeat(112)].map(|a| CString::new(a).unwrap());
                sys::process::spawn(program, &arguments, &table).unwrap()
            }
            Way::Forked => sys::process::fork_role(|| {
                sys::fd::install_table(&table).unwrap();
                sys::process::exit_now(recv::run().into())
            })
            .unwrap(),
        }
    }
}

/// Processor time of this process and of its children that were reaped, in microseconds; and
/// their page faults.
fn used() -> (i64, i64) {
    let mut sum = (0, 0);
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who).unwrap();
        sum.0 += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        sum.1 += usage.minor_page_faults();
    }
    sum
}

fn starts() {
    let program: OwnedFd = File::open(PAPAYAD).unwrap().into();
    let mut sums = [(0, 0); 2];
    // Interleaved, so that a busy moment of the machine meets both.
    for round in 0..STARTS + 10 {
        for (way, sum) in [Way::Executed, Way::Forked].into_iter().zip(&mut sums) {
            let before = used();
            let mut place = Workplace::new();
            drop(place.client.take());
            waitpid(place.start(way, &program), None).unwrap();
            let after = used();
            if round >= 10 {
                sum.0 += after.0 - before.0;
                sum.1 += after.1 - before.1;
            }
        }
    }
    for (name, sum) in ["forked and executed", "forked only"].iter().zip(sums) {
        println!(
            "start and end of a RECV, {name:<20} {:>6.2} ms CPU, {:>4} page faults",
            sum.0 as f64 / f64::from(STARTS) / 1000.0,
            sum.1 / i64::from(STARTS)
        );
    }
}

// Memory ------------------------------------------------------------------------------------------

/// Proportional and private memory of a process, in kB.
fn memory(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let sum = |names: &[&str]| {
        let lines = text.lines().filter(|l| names.iter().any(|n| l.starts_with(n)));
        lines.filter_map(|l| l.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    };
    Some((sum(&["Pss:"]), sum(&["Private_Clean:", "Private_Dirty:"])))
}

fn print_memory(what: &str, pids: &[i32]) {
    let all: Vec<(u64, u64)> = pids.iter().filter_map(|pid| memory(*pid)).collect();
    let count = all.len().max(1) as u64;
    let (pss, private) = all.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!(
        "memory of {what:<40} {:>6} kB proportional, {:>6} kB private (mean of {count})",
        pss / count,
        private / count
    );
}

fn memory_before_the_token() {
    let program: OwnedFd = File::open(PAPAYAD).unwrap().into();
    for (way, name) in [(Way::Executed, "executed"), (Way::Forked, "forked only")] {
        let places: Vec<Workplace> = (0..IDLE).map(|_| Workplace::new()).collect();
        let pids: Vec<i32> = places.iter().map(|p| p.start(way, &program).as_raw()).collect();
        pids.iter().for_each(|pid| wait_until_idle(*pid));
        print_memory(&format!("RECV before the token, {name}"), &pids);
        drop(places);
        for pid in pids {
            waitpid(Pid::from_raw(pid), None).unwrap();
        }
    }
}

/// Until it is confined and sleeps: it waits for its client.
fn wait_until_idle(pid: i32) {
    for _ in 0..2000 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let has = |start: &str| status.lines().any(|l| l.starts_with(start));
        if has("Seccomp:\t2") && has("State:\tS") {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("process {pid} does not become idle");
}

// A whole service -----------------------------------------------------------------------------------

struct Service {
    dir: tempfile::TempDir,
    launcher: Child,
    port: u16,
    _lines: BufReader<std::process::ChildStderr>,
}

impl Service {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "[listen]\naddresses = [\"127.0.0.1:0\"]\n\
             [identity]\nuser = \"nobody\"\nkeeper_user = \"daemon\"\n\
             [paths]\nstate = \"{0}/state\"\nruntime = \"{0}/run\"\n\
             [limits]\npenalties = false\nper_source = 1000\nsessions = 1000\nstartups = \"1000:30:1000\"\n\
             [sandbox]\nrequire = \"seccomp\"\n\
             [syslog]\nfacility = \"none\"\nlevel = \"notice\"\n",
            dir.path().display()
        );
        fs::write(dir.path().join("papayad.toml"), config).unwrap();
        let mut launcher = papayad(dir.path(), &["run"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(launcher.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("serves room") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the service does not start");
        }
        let port = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap();
        Self { port: port.parse().unwrap(), dir, launcher, _lines: lines }
    }

    fn token(&self) -> Token {
        let made = papayad(self.dir.path(), &["token", "add", "alice"]).output().unwrap();
        Token::parse(&String::from_utf8(made.stdout).unwrap()).unwrap()
    }

    /// Stops it; the processor time that all its processes used, in milliseconds, since `base`.
    fn stop(mut self, base: i64) -> f64 {
        // The keeper ends after the launcher, so nobody here reaps it.
        let keeper = titles_of_group(self.launcher.id());
        let keeper = keeper.iter().find(|(_, title)| title.starts_with("papayad: keeper"));
        let keeper = fs::read_to_string(format!("/proc/{}/schedstat", keeper.unwrap().0)).unwrap();
        let keeper: i64 = keeper.split(' ').next().unwrap().parse().unwrap();
        kill(Pid::from_raw(self.launcher.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.launcher.wait().unwrap().success());
        (children() - base + keeper / 1000) as f64 / 1000.0
    }
}

fn papayad(dir: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PAPAYAD);
    command.args(arguments).env("PAPAYAD_CONFIG", dir.join("papayad.toml"));
    command
}

fn children() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

/// Joins; gives the open connection and a ticket.
fn join(service: &Service, token: &Token, credential: Credential, instance: u32) -> (Link, Ticket) {
    let stream = TcpStream::connect(("127.0.0.1", service.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut link = Link::start(stream, &token.server).unwrap();
    let mut session = [0; 16];
    session[..4].copy_from_slice(&instance.to_be_bytes());
    let (id, session) = (token.id, SessionId(session));
    let join = Join { id, credential, session, start: Start::End, client: None };
    link.push(&Line::Join(join).encode());
    let mut ticket = None;
    while ticket.is_none() {
        link.write().unwrap();
        link.read(|plain| {
            if let Plaintext::Control(json) = plain {
                match Event::parse(json).unwrap() {
                    Event::Welcome(welcome) => ticket = Some(welcome.ticket.clone()),
                    other => panic!("not welcome: {other:?}"),
                }
            }
            Ok(())
        })
        .unwrap();
    }
    (link, ticket.unwrap())
}

/// Leaves, and waits until the server has closed the connection.
fn leave(mut link: Link) {
    link.push(&Line::Bye.encode());
    link.write().unwrap();
    while !matches!(link.read(|_| Ok(())), Err(Trouble::Closed | Trouble::Broken(_))) {}
}

fn visits(tickets: u32, secrets: u32) -> f64 {
    let service = Service::start();
    let token = service.token();
    let base = children();
    let secret = || Credential::Secret(token.secret.clone());
    let (link, ticket) = join(&service, &token, secret(), 0);
    leave(link);
    for n in 1..=tickets {
        leave(join(&service, &token, Credential::Ticket(ticket.clone()), n).0);
    }
    for n in 1..=secrets {
        leave(join(&service, &token, secret(), tickets + n).0);
    }
    service.stop(base)
}

fn service() {
    let empty = visits(0, 0);
    let by_ticket = (visits(TICKETS, 0) - empty) / f64::from(TICKETS);
    let by_secret = (visits(0, SECRETS) - empty) / f64::from(SECRETS);
    println!("join and leave with a ticket, all processes  {by_ticket:>6.2} ms CPU");
    println!("join and leave with the token's secret       {by_secret:>6.2} ms CPU");
    if geteuid().is_root() {
        idle_clients();
    }
}

fn idle_clients() {
    let service = Service::start();
    let token = service.token();
    let base = children();
    let (first, ticket) = join(&service, &token, Credential::Secret(token.secret.clone()), 0);
    let again = |n: usize| join(&service, &token, Credential::Ticket(ticket.clone()), n as u32).0;
    let mut links: Vec<Link> = (1..IDLE).map(again).collect();
    links.push(first);
    let titles = titles_of_group(service.launcher.id());
    let of = |role: &str| -> Vec<i32> {
        let starts = format!("papayad: {role}");
        titles.iter().filter(|(_, t)| t.starts_with(&starts)).map(|(pid, _)| *pid).collect()
    };
    for role in ["launcher", "keeper", "listener", "recv", "send"] {
        print_memory(&format!("{role} of a service with {IDLE} clients"), &of(role));
    }
    links.into_iter().for_each(leave);
    service.stop(base);
}

/// Process ids and titles of the launcher and its descendants.
fn titles_of_group(launcher: u32) -> Vec<(i32, String)> {
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let group = |pid: i32| {
        let stat = stat(pid);
        let behind = stat.rsplit(')').next().unwrap_or("").to_owned();
        behind.split_ascii_whitespace().nth(2).and_then(|g| g.parse::<u32>().ok())
    };
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| group(*pid) == Some(launcher))
        .map(|pid| (pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
        .collect()
}
