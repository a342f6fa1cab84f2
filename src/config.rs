//! The configuration: its values, their defaults, and which values are allowed.
//!
//! Everything here is pure. The file's text is parsed in [`parse`](Config::parse), which collects
//! every mistake instead of the first; what depends on the system (users, directories, ports) is
//! checked by `papayad check` and by the launcher.

mod file;
pub mod keys;
mod parse;
mod values;

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::file::{DROP_INS, sources};
pub use self::parse::{Place, places};
use crate::confine::Context;
pub use crate::confine::Level;

/// The whole configuration. [`Config::default`] is what an empty file means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[room]`
    pub room: Room,
    /// `[listen]`
    pub listen: Listen,
    /// `[identity]`
    pub identity: Identity,
    /// `[paths]`
    pub paths: Paths,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[sandbox]`
    pub sandbox: Sandbox,
    /// `[syslog]`
    pub syslog: Syslog,
}

/// What the room is called and says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The name shown to clients: 1 to 64 characters, none of them a control character.
    pub name: String,
    /// Shown to everyone who joins: up to 1024 bytes; of the control characters only line ends
    /// and tabs. Empty: nothing is shown.
    pub motd: String,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// 1 to 16 different addresses. An IPv6 wildcard serves IPv4 as well. Port 0 lets the system
    /// choose, for trials: such a port does not outlive `papayad pause`.
    pub addresses: Vec<SocketAddr>,
}

/// Whom the processes run as. The two must differ, and neither may be root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Everything but the keeper. 1 to 32 of `A-Z a-z 0-9 . _ -`, beginning with a letter or `_`.
    pub user: String,
    /// The keeper. The same characters.
    pub keeper_user: String,
}

/// Where files are kept. Both absolute, without `.` and `..`, neither one inside the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The log, the host key and the token hashes; survives a reboot. Up to 1024 bytes.
    pub state: PathBuf,
    /// The control socket. Up to 80 bytes, since a socket's path has room for about 100.
    pub runtime: PathBuf,
}

/// What a client and a crowd may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connected clients in all: 1 to 100,000.
    pub clients: u32,
    /// Connected clients from one source address: 1 to `clients`. The default is lowered to
    /// `clients` if that is smaller.
    pub per_source: u32,
    /// Connected clients of one token: 1 to `clients`. The default is lowered to `clients` if
    /// that is smaller.
    pub sessions: u32,
    /// When connections that have not shown a token yet are dropped.
    pub startups: Startups,
    /// How long a connection may take to show a token: 1 second to 10 minutes.
    pub grace: Duration,
    /// The longest message: 64 to 65,536 bytes of UTF-8.
    pub message_bytes: u32,
    /// How fast a member may write in the long run.
    pub rate: Rate,
    /// How many messages a member may write at once: 1 to 10,000.
    pub burst: u32,
    /// Whether sources that misbehave are refused for a while.
    pub penalties: bool,
}

/// Random early drop, written `begin:percent:full` as sshd's `MaxStartups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startups {
    /// With this many connections without a token, dropping begins: 1 to `full`.
    pub begin: u32,
    /// The share that is dropped then, rising evenly to all at `full`: 1 to 100.
    pub percent: u32,
    /// From this many on every further connection is dropped: `begin` to 100,000.
    pub full: u32,
}

/// A number of messages in a span of time, written `10/s`, `600/m` or `5000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many messages: 1 to 1,000,000.
    pub messages: u32,
    /// In how long: one second, one minute or one hour.
    pub per: Duration,
}

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// When records reach the disk.
    pub durability: Durability,
    /// Whether joining and leaving is recorded.
    pub presence: bool,
}

/// When records are flushed to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Before anyone sees them.
    Always,
    /// Once a second.
    Interval,
    /// When the kernel likes.
    Never,
}

/// What happens where the system cannot confine as much as we want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The least that must be enforced, or nothing starts.
    pub require: Level,
    /// The most that is asked for, not below `require`: shows what a weaker kernel would do.
    pub ceiling: Level,
}

impl Sandbox {
    /// What a process is told that confines itself by this.
    pub const fn context<'a>(self) -> Context<'a> {
        let mut context = Context::new(self.require);
        context.ceiling = self.ceiling;
        context
    }
}

/// Where the daemon's own log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// The logger's socket; `None` (written `""`): where this system has it. For containers and tests.
    pub socket: Option<PathBuf>,
    /// Which facility.
    pub facility: Facility,
    /// The least important lines that are written.
    pub level: Severity,
}

/// Facilities of syslog(3), and none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facility {
    /// `LOG_DAEMON`
    Daemon,
    /// `LOG_AUTH`
    Auth,
    /// `LOG_USER`
    User,
    /// `LOG_LOCAL0` to `LOG_LOCAL7`
    Local(u8),
    /// Nothing goes to syslog; standard error only.
    None,
}

/// Severities of syslog(3) that are in use, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `LOG_ERR`
    Error,
    /// `LOG_WARNING`
    Warning,
    /// `LOG_NOTICE`
    Notice,
    /// `LOG_INFO`
    Info,
    /// `LOG_DEBUG`
    Debug,
}

/// One file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for people.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to [`Config::parse`].
    pub file: String,
    /// The line, from 1; 0 if it is a default that the file does not mention.
    pub line: usize,
    /// The column in characters, from 1; 0 together with the line.
    pub column: usize,
    /// `section.key`; empty if the file could not be read as TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Where the configuration file is unless `--config` or `PAPAYAD_CONFIG` says otherwise.
pub fn default_path() -> &'static str {
    if cfg!(target_os = "freebsd") {
        "/usr/local/etc/papayachat/papayad.toml"
    } else {
        "/etc/papayachat/papayad.toml"
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", self.file)?,
            line => write!(f, "{}:{line}: ", self.file)?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Room {
    fn default() -> Self {
        Self { name: "lobby".into(), motd: String::new() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { addresses: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7722))] }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self { user: "papayad".into(), keeper_user: "papayad-keys".into() }
    }
}

impl Default for Paths {
    fn default() -> Self {
        let state =
            if cfg!(target_os = "freebsd") { "/var/db/papayachat" } else { "/var/lib/papayachat" };
        let runtime =
            if cfg!(target_os = "freebsd") { "/var/run/papayachat" } else { "/run/papayachat" };
        Self { state: state.into(), runtime: runtime.into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 1000,
            per_source: 16,
            sessions: 8,
            startups: Startups { begin: 10, percent: 30, full: 100 },
            grace: Duration::from_secs(20),
            message_bytes: 4096,
            rate: Rate { messages: 10, per: Duration::from_secs(1) },
            burst: 30,
            penalties: true,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { durability: Durability::Interval, presence: true }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { require: Level::Full, ceiling: Level::Full }
    }
}

impl Default for Syslog {
    fn default() -> Self {
        Self { socket: None, facility: Facility::Daemon, level: Severity::Info }
    }
}

impl fmt::Display for Startups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.begin, self.percent, self.full)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            3600 => "h",
            60 => "m",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.messages)
    }
}

impl Durability {
    /// Every value as it is written in the file.
    pub const NAMES: &[(&str, Self)] =
        &[("always", Self::Always), ("interval", Self::Interval), ("never", Self::Never)];
}

impl Level {
    /// Every value as it is written in the file, the strongest first.
    pub const NAMES: &[(&str, Self)] = &[
        ("full", Self::Full),
        ("landlock-6", Self::Landlock6),
        ("landlock-2", Self::Landlock2),
        ("seccomp", Self::Seccomp),
    ];
}

impl Facility {
    /// Every value as it is written in the file.
    pub const NAMES: &[(&str, Self)] = &[
        ("daemon", Self::Daemon),
        ("auth", Self::Auth),
        ("user", Self::User),
        ("local0", Self::Local(0)),
        ("local1", Self::Local(1)),
        ("local2", Self::Local(2)),
        ("local3", Self::Local(3)),
        ("local4", Self::Local(4)),
        ("local5", Self::Local(5)),
        ("local6", Self::Local(6)),
        ("local7", Self::Local(7)),
        ("none", Self::None),
    ];
}

impl Severity {
    /// Every value as it is written in the file, the most important first.
    pub const NAMES: &[(&str, Self)] = &[
        ("error", Self::Error),
        ("warning", Self::Warning),
        ("notice", Self::Notice),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];
}

/// Shows a value by the name it has in the file.
macro_rules! display_by_name {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = Self::NAMES.iter().find(|(_, value)| value == self);
                f.write_str(name.map_or("?", |(name, _)| name))
            }
        }
    )*};
}
display_by_name!(Durability, Facility, Severity);
