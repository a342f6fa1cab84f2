//! A real service for a test: `papayad run` in a directory of its own on a port of its own, and
//! the real programs against it. Ends only what it started, by process id.
#![allow(dead_code)] // Each test uses its part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on has failed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use papayachat::room::record::Record;
use serde_json::Value;

#[allow(clippy::duplicate_mod)] // A test may use both that have it.
#[path = "level.rs"]
mod level;

pub use level::level;

pub const PAPAYAD: &str = env!("CARGO_BIN_EXE_papayad");
pub const PAPAYA: &str = env!("CARGO_BIN_EXE_papaya");

/// How long anything may take before a test gives up: generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that has to come; so that looking leaves the machine to others.
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

pub struct Service {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
    pub launcher: Child,
    pub port: u16,
    /// The state directory.
    pub state: PathBuf,
    lines: Receiver<String>,
    /// Every log line that was read so far.
    pub log: Vec<String>,
}

/// Whether this test runs as root: then the service has its two users, else it is rootless.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Service {
    /// Starts a service; `more` is added to the configuration's sections (`"[limits]\nburst = 5"`).
    pub fn start(more: &str) -> Self {
        Self::start_in("state", more, |_| {})
    }

    /// The same, with the state directory at another place below the test's directory, in which
    /// `prepare` may do something first.
    pub fn start_in(state: &str, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_by(plainly(), state, more, prepare)
    }

    /// The same, by a command that runs what follows it as papayad's arguments.
    pub fn start_by(by: Command, state: &str, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("papaya-test-").tempdir().unwrap();
        // As root, other users have to reach the state directory in it.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        prepare(dir.path());
        let config = dir.path().join("papayad.toml");
        let state = dir.path().join(state);
        let text = Self::config_text(dir.path(), "127.0.0.1:0", more);
        let usual = format!("{}/state\"", dir.path().display());
        let text = text.replace(&usual, &format!("{}\"", state.display()));
        fs::write(&config, text).unwrap();
        let (launcher, lines) = launch(by, &config);
        let mut service = Self { dir, config, launcher, port: 0, state, lines, log: Vec::new() };
        let line = service.wait_for_line("serves room");
        let port = line.split("127.0.0.1:").nth(1).and_then(|s| s.split_whitespace().next());
        service.port = port.and_then(|p| p.parse().ok()).expect("the start line names the port");
        service.assert_level();
        service
    }

    /// What is in force is the level that was asked for, by default this run's, and no less.
    fn assert_level(&self) {
        let asked = papayachat::config::Config::load(&self.config).unwrap().sandbox.ceiling;
        assert_eq!(self.status().0["level"], asked.name(), "another sandbox level");
    }

    /// A configuration for tests: users that every system has, no penalties, no syslog, and this
    /// run's sandbox level.
    pub fn config_text(dir: &Path, address: &str, more: &str) -> String {
        let mut sections = [
            ("listen", format!("addresses = [\"{address}\"]")),
            ("identity", "user = \"nobody\"\nkeeper_user = \"daemon\"".to_owned()),
            ("paths", format!("state = \"{0}/state\"\nruntime = \"{0}/run\"", dir.display())),
            (
                "limits",
                "penalties = false\nper_source = 1000\nstartups = \"1000:30:1000\"".to_owned(),
            ),
            ("syslog", "facility = \"none\"\nlevel = \"debug\"".to_owned()),
            ("sandbox", format!("require = \"{0}\"\nceiling = \"{0}\"", level())),
        ];
        let mut extra = String::new();
        for part in more.split("[").filter(|p| !p.trim().is_empty()) {
            let (name, keys) = part.split_once(']').unwrap();
            match sections.iter_mut().find(|(n, _)| n == &name) {
                Some((_, text)) => {
                    for key in keys.lines().filter(|l| !l.trim().is_empty()) {
                        let word = key.split('=').next().unwrap().trim().to_owned();
                        let others =
                            text.lines().filter(|l| l.split('=').next().unwrap().trim() != word);
                        *text = others.chain([key]).collect::<Vec<_>>().join("\n");
                    }
                }
                None => extra.push_str(&format!("[{name}]{keys}\n")),
            }
        }
        let sections = sections.iter().map(|(name, text)| format!("[{name}]\n{text}\n"));
        sections.collect::<String>() + &extra
    }

    /// Starts it again on the same port and directory, after it has ended.
    pub fn restart(&mut self) {
        self.restart_by(plainly());
    }

    /// The same, by a command that runs what follows it as papayad's arguments.
    pub fn restart_by(&mut self, by: Command) {
        let text = fs::read_to_string(&self.config).unwrap();
        let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", self.port));
        fs::write(&self.config, text).unwrap();
        (self.launcher, self.lines) = launch(by, &self.config);
        self.wait_for_line("serves room");
        self.assert_level();
    }

    /// Sends the launcher a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.launcher.id() as i32)
    }

    /// SIGTERM, and wait for the end; its exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        wait_child(&mut self.launcher)
    }

    /// The next log line that contains `text`, also one that came since the last call.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no line {text:?} in\n{}", self.log.join("\n")),
            }
        }
    }

    /// Runs papayad with arguments and this service's configuration.
    pub fn admin(&self, arguments: &[&str]) -> Output {
        Command::new(PAPAYAD)
            .args(arguments)
            .env("PAPAYAD_CONFIG", &self.config)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same; it must succeed. Its standard output.
    pub fn admin_ok(&self, arguments: &[&str]) -> String {
        let output = self.admin(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "papayad {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Adds a token; the file it stands in.
    pub fn token(&self, name: &str, more: &[&str]) -> PathBuf {
        let text = self.admin_ok(&[&["token", "add", name][..], more].concat());
        let path = self.dir.path().join(format!("{name}.token"));
        fs::write(&path, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A papaya command against this service.
    pub fn papaya(&self, token: &Path, command: &str, arguments: &[&str]) -> Command {
        let mut papaya = Command::new(PAPAYA);
        papaya
            .arg(command)
            .args(["--server", &self.server(), "--token-file"])
            .arg(token)
            .args(arguments)
            .stdin(Stdio::null());
        papaya
    }

    /// The service's and the clients' lines of `papayad status --json`.
    pub fn status(&self) -> (Value, Vec<Value>) {
        let text = self.admin_ok(&["status", "--json"]);
        let mut lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        (lines.next().unwrap(), lines.collect())
    }

    /// Asks the status until `good` likes it, at most for [`PATIENCE`].
    pub fn wait_for_status(&self, good: impl Fn(&Value, &[Value]) -> bool) -> (Value, Vec<Value>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (service, clients) = self.status();
            if good(&service, &clients) {
                return (service, clients);
            }
            assert!(Instant::now() < end, "the status stays {service} {clients:?}");
            thread::sleep(BETWEEN_TRIES);
        }
    }

    /// All bytes of the log (as root, or as the rootless service's user).
    pub fn room_log(&self) -> Vec<u8> {
        fs::read(self.state.join("room.log")).unwrap()
    }

    /// The same while nobody writes, as the log's own readers do: somebody may be at a record, of
    /// which a part is there already.
    fn whole_log(&self) -> Vec<u8> {
        let mut log = fs::File::open(self.state.join("room.log")).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            match Flock::lock(log, FlockArg::LockSharedNonblock) {
                Ok(mut log) => {
                    let mut bytes = Vec::new();
                    log.read_to_end(&mut bytes).unwrap();
                    return bytes;
                }
                Err((file, _)) => log = file,
            }
            assert!(Instant::now() < end, "the log stays locked");
            thread::sleep(BETWEEN_TRIES);
        }
    }

    /// The records of the log; fails on a line that is none.
    pub fn records(&self) -> Vec<Value> {
        let log = self.whole_log();
        let lines = log.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    /// The messages of the log: where each begins, who said it, and what. Fails on a line that is
    /// no record.
    pub fn messages(&self) -> Vec<Message> {
        let (messages, torn) = self.read_log();
        assert_eq!(torn, 0, "lines of the log are no records");
        messages
    }

    /// The same; writers may have been cut short.
    pub fn messages_among_torn(&self) -> Vec<Message> {
        self.read_log().0
    }

    fn read_log(&self) -> (Vec<Message>, usize) {
        let (mut at, mut messages, mut torn) = (0, Vec::new(), 0);
        for line in self.whole_log().split_inclusive(|b| *b == b'\n') {
            match Record::parse(line) {
                Ok(record) => messages.extend(Message::of(at, &record)),
                Err(_) => torn += 1,
            }
            at += line.len() as u64;
        }
        (messages, torn)
    }

    /// The process ids of RECV of everyone who is here under this name.
    pub fn recvs_of(&self, name: &str) -> Vec<i32> {
        let (_, clients) = self.status();
        let of = clients.iter().filter(|c| c["name"] == name);
        of.map(|c| c["pid"].as_i64().unwrap() as i32).collect()
    }

    /// Every process below the launcher, by parent ids, as (pid, command line).
    pub fn processes(&self) -> Vec<(i32, String)> {
        descendants(self.launcher.id() as i32)
    }
}

/// A message of the log, whoever tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub offset: u64,
    pub from: String,
    pub text: String,
}

impl Message {
    /// `None` for other kinds of record.
    pub fn of(offset: u64, record: &Record) -> Option<Self> {
        let text = record.text.clone().filter(|_| record.is_message())?;
        Some(Self { offset, from: record.from.clone(), text })
    }
}

/// As root the log is append-only, and cannot be cut or removed before this. Needs neither the
/// configuration nor the programs: a test may have damaged both.
pub fn unseal(dir: &Path) {
    if let Ok(log) = fs::File::open(dir.join("state/room.log"))
        && is_root()
    {
        let _ = papayachat::sys::append_only::set(&log, false);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            self.log.extend(self.lines.try_iter());
            eprintln!("the service said:\n{}", self.log.join("\n"));
        }
        // A launcher that is killed takes all its workers with it.
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        unseal(self.dir.path());
    }
}

/// papayad itself, started as a script would.
fn plainly() -> Command {
    let mut papayad = Command::new(PAPAYAD);
    papayad.stdin(Stdio::null());
    papayad
}

fn launch(mut by: Command, config: &Path) -> (Child, Receiver<String>) {
    let mut launcher = by
        .args(["run", "--config"])
        .arg(config)
        .env_remove("JOURNAL_STREAM")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (send, lines) = channel();
    let stderr = BufReader::new(launcher.stderr.take().unwrap());
    thread::spawn(move || {
        for line in stderr.lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    (launcher, lines)
}

/// Waits for a child, at most for [`PATIENCE`].
pub fn wait_child(child: &mut Child) -> std::process::ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "process {} does not end", child.id());
        thread::sleep(BETWEEN_TRIES);
    }
}

/// Every process below `root`, as (pid, command line); zombies have an empty one.
pub fn descendants(root: i32) -> Vec<(i32, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let behind = &stat[stat.rfind(')').unwrap() + 1..];
        let parent: i32 = behind.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned();
        all.push((pid, parent, line));
    }
    let mut found = vec![root];
    let mut result = Vec::new();
    while let Some(parent) = found.pop() {
        for (pid, of, line) in &all {
            if *of == parent {
                found.push(*pid);
                result.push((*pid, line.clone()));
            }
        }
    }
    result
}

impl Service {
    /// Every log line up to now, without waiting for another.
    pub fn log_so_far(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        &self.log
    }
}
