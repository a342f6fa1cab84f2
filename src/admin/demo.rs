//! `papayad demo`: a room on loopback in a temporary directory, a token, and the person in it.
//!
//! Needs neither root nor a configuration; started as root it runs the room as `nobody`. The room
//! is a real service with all the confinement that this kernel has. It lives as long as this
//! process keeps its standard input open, so nothing stays behind, whatever ends the demo.

mod script;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{User, geteuid};

use crate::client::join;
use crate::confine;
use crate::daemon::launcher::control::{Caller, Request};
use crate::daemon::session;
use crate::exit::{Exit, Failure, print};
use crate::sys::{self, signal};
use crate::token::Token;

/// How long the room may take to open.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Options of `papayad demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Play a short conversation between two clients, and end; also without a terminal
    #[arg(long)]
    script: bool,
}

/// Runs the demo.
///
/// # Errors
/// The room does not start, or the conversation does not go as it should.
pub fn run(demo: &Demo) -> Result<(), Failure> {
    let room = Room::open()?;
    let interactive = !demo.script && std::io::stdin().is_terminal();
    let (yours, guests) = (room.token("you")?, room.token("guest")?);
    room.introduce(interactive)?;
    // The person is in a process of its own, so that this one can tidy up whatever ends it.
    let server = room.address.to_string();
    let status = in_child(|| {
        if interactive {
            room.invite(&guests)?;
            join::run(&server, yours.clone(), &join::JoinOptions::default())
        } else {
            script::play(&server, &yours, &guests)
        }
    })?;
    drop(room);
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, _) => Err(Failure::new(Exit::Internal, "the demo failed; see above")),
        _ => Err(Failure::new(Exit::Internal, "the demo was ended by a signal")),
    }
}

/// A running room; ends and vanishes when dropped.
struct Room {
    dir: PathBuf,
    config: PathBuf,
    service: Option<Child>,
    address: SocketAddr,
    sandbox: String,
}

impl Room {
    fn open() -> Result<Self, Failure> {
        let template = std::env::temp_dir().join("papayachat-demo-XXXXXX");
        let dir = nix::unistd::mkdtemp(&template).map_err(|e| {
            let message =
                format!("cannot make a directory in {}: {}", template.display(), e.desc());
            Failure::new(Exit::CannotCreate, message)
        })?;
        let config = dir.join("papayad.toml");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut room = Self { dir, config, service: None, address, sandbox: String::new() };
        room.write_config().map_err(|e| cannot_write(&room.config, &e))?;
        room.start()?;
        room.wait_until_open()?;
        Ok(room)
    }

    fn write_config(&self) -> std::io::Result<()> {
        let level = confine::available().unwrap_or(confine::Level::Full);
        let dir = self.dir.display();
        let text = format!(
            "# Made by `papayad demo`.\n\
             [room]\nname = \"demo\"\nmotd = \"Welcome. This room is gone when you leave.\"\n\
             [listen]\naddresses = [\"127.0.0.1:0\"]\n\
             [paths]\nstate = \"{dir}/state\"\nruntime = \"{dir}/run\"\n\
             [sandbox]\nrequire = \"{level}\"\n\
             [syslog]\nfacility = \"none\"\n"
        );
        std::fs::write(&self.config, text)?;
        if let Some((uid, gid)) = nobody() {
            std::os::unix::fs::chown(&self.dir, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// This program, with this room's configuration, and never as root.
    fn papayad(&self) -> Command {
        let program = if cfg!(target_os = "linux") {
            "/proc/self/exe".into()
        } else {
            std::env::current_exe().unwrap_or_else(|_| "papayad".into())
        };
        let mut papayad = Command::new(program);
        papayad.env("PAPAYAD_CONFIG", &self.config).env_remove("JOURNAL_STREAM");
        if let Some((uid, gid)) = nobody() {
            // Also gives up the supplementary groups.
            papayad.uid(uid).gid(gid);
        }
        papayad
    }

    fn start(&mut self) -> Result<(), Failure> {
        let path = self.dir.join("log");
        let log = std::fs::File::create(&path).map_err(|e| cannot_write(&path, &e))?;
        let mut command = self.papayad();
        command.args(["run", "--while-stdin-is-open"]).stdin(Stdio::piped()).stderr(log);
        if cfg!(target_os = "linux") {
            // Whom the service runs as may not reach the directory that this user has it in.
            command.arg("--session-is-stdout").stdout(session::own()?);
        } else {
            command.stdout(Stdio::null());
        }
        let service = command.spawn().map_err(|e| {
            Failure::new(Exit::Internal, format!("the room's service does not start: {e}"))
        })?;
        self.service = Some(service);
        Ok(())
    }

    /// Asks the service until it answers with its address.
    fn wait_until_open(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(caller)) = Caller::connect(&self.dir.join("run"))
                && let Ok(answer) = caller.ask(&Request::Status)
                && self.learn(&answer).is_some()
            {
                return Ok(());
            }
            let ended = self.service.as_mut().is_none_or(|s| !matches!(s.try_wait(), Ok(None)));
            if ended || Instant::now() >= end {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let message = format!("the demo's room did not open:\n{}", log.trim_end());
                return Err(Failure::new(Exit::Internal, message));
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn learn(&mut self, answer: &str) -> Option<()> {
        let service: serde_json::Value = serde_json::from_str(answer.lines().next()?).ok()?;
        self.address = service["addresses"][0].as_str()?.parse().ok()?;
        self.sandbox = service["sandbox"].as_str()?.to_owned();
        Some(())
    }

    fn token(&self, name: &str) -> Result<Token, Failure> {
        let failed = |what: String| Failure::new(Exit::Internal, format!("no token: {what}"));
        let made = self
            .papayad()
            .args(["token", "add", name])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&made.stdout).into_owned());
        Token::parse(&text)
            .map_err(|_| failed(String::from_utf8_lossy(&made.stderr).trim_end().to_owned()))
    }

    fn introduce(&self, interactive: bool) -> Result<(), Failure> {
        let leave = "You are in it as \"you\"; Ctrl-D or /quit leaves and removes everything.\n";
        print(&format!(
            "A room on {}, for this demo only.\nIts service: {}.\n{}",
            self.address,
            self.sandbox,
            if interactive { leave } else { "" }
        ))
    }

    /// Tells how a second person gets in.
    fn invite(&self, token: &Token) -> Result<(), Failure> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir.join("guest.token");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).map_err(|e| cannot_write(&path, &e))?;
        writeln!(file, "{}", *token.encode()).map_err(|e| cannot_write(&path, &e))?;
        print(&format!(
            "A second person, in another terminal of yours:\n  \
             papaya join --server {} --token-file {}\n\n",
            self.address,
            path.display()
        ))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            // Its leash: the service ends when its standard input does.
            drop(service.stdin.take());
            let _ = service.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs `work` in a child process, and waits for it. The terminal's Ctrl-C is the child's matter;
/// SIGTERM and SIGHUP are passed on to it.
fn in_child(work: impl FnOnce() -> Result<(), Failure>) -> Result<WaitStatus, Failure> {
    let failed = |e: nix::errno::Errno| {
        Failure::new(Exit::Internal, format!("cannot start a process: {}", e.desc()))
    };
    let _ = std::io::stdout().flush();
    let child = sys::process::fork_role(|| {
        let status = match work() {
            Ok(()) => 0,
            Err(failure) => {
                let _ = failure.report("papayad");
                i32::from(failure.exit as u8)
            }
        };
        let _ = std::io::stdout().flush();
        sys::process::exit_now(status)
    })
    .map_err(failed)?;
    let noted = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
    signal::apply(&signal::Plan { noted: &noted, ignored: &[Signal::SIGINT], defaulted: &[] })
        .map_err(failed)?;
    loop {
        if let Some(status) = sys::process::reap_child(child) {
            return Ok(status);
        }
        if signal::take(Signal::SIGTERM) || signal::take(Signal::SIGHUP) {
            let _ = kill(child, Signal::SIGTERM);
        }
        signal::take(Signal::SIGCHLD);
        signal::wait(&mut [], Some(PATIENCE)).map_err(failed)?;
    }
}

/// Whom the room runs as when this is root.
fn nobody() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let entry = User::from_name("nobody").ok().flatten();
    Some(entry.map_or((65534, 65534), |user| (user.uid.as_raw(), user.gid.as_raw())))
}

fn cannot_write(path: &Path, cause: &std::io::Error) -> Failure {
    Failure::new(Exit::CannotCreate, format!("cannot write {}: {cause}", path.display()))
}
