//! Doctor: what an operator forgets: the ports, the clock, the disk, the logger, the upgrade.
//!
//! Asked once and not again and again as the rest is: it connects to the service, and that counts.

mod program;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::service::Service;
use super::{Finding, Outcome};
use crate::admin::log;
use crate::config::{Config, Facility};
use crate::daemon::launcher::SYSLOG_SOCKETS;
use crate::room::lines::Lines;
use crate::room::log::Reader;
use crate::room::record::Record;
use crate::room::seek;

/// How long a connection to this machine itself may take.
const CONNECT: Duration = Duration::from_secs(5);
/// With less on the disk, the room soon takes no messages.
const FREE_BYTES: u64 = 64 << 20;
/// A few files are made anew now and then.
const FREE_FILES: u64 = 100;
/// No clock of a machine that runs this version can be right before this.
const WRITTEN: &str = "2026-11-01T00:00:00Z";
/// How far the clock may be behind the last record: another machine may have written it.
const BEHIND: Duration = Duration::from_secs(5);
/// Where systemd-timesyncd says that the clock was set by a time server.
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// All of it.
pub fn check(config: &Config, service: &Service) -> Vec<Finding> {
    let mut findings = ports(&service.status);
    let mut add = |place: &str, check, outcome| {
        findings.push(Finding { place: place.to_owned(), check, outcome });
    };
    let state = config.paths.state.to_string_lossy();
    add(&state, "disk space", disk_space(&config.paths.state));
    add("this machine", "clock", clock(config, Timestamp::now()));
    add("this machine", "syslog", syslog(config));
    let version = service.status["version"].as_str().unwrap_or_default();
    add("service", "program", program::check(service, version));
    add("service", "unit", program::unit(service.launcher()));
    findings
}

/// Each address must take a connection from here, unless the door was closed on purpose.
fn ports(status: &Value) -> Vec<Finding> {
    let addresses = status["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let addresses = addresses.iter().filter_map(|address| address.as_str()?.parse().ok());
    let closed = status["door"] == "closed";
    let look = |address: SocketAddr| {
        let outcome = match connect(address) {
            _ if closed => Outcome::Good("the door is closed; `papayad resume` opens it".into()),
            Ok(()) => Outcome::Good("it takes connections from this machine".into()),
            Err(cause) => Outcome::differs(
                format!("it takes no connection: {cause}"),
                "see the service's log and this machine's packet filter",
            ),
        };
        Finding { place: address.to_string(), check: "port", outcome }
    };
    addresses.map(look).collect()
}

/// A wildcard is reached over the loopback; IPv6's over IPv4's too, where there is no IPv6.
fn connect(address: SocketAddr) -> std::io::Result<()> {
    let port = address.port();
    let targets = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)]
        }
        ip => vec![ip],
    };
    let mut result = Ok(());
    for target in targets {
        result = TcpStream::connect_timeout(&SocketAddr::new(target, port), CONNECT).map(drop);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn disk_space(state: &Path) -> Outcome {
    match statvfs(state) {
        Err(cause) => Outcome::Unseen(format!("cannot ask for it: {}", cause.desc())),
        #[allow(clippy::useless_conversion)] // These have other widths elsewhere.
        Ok(disk) => space_of(
            u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size())),
            u64::from(disk.files()),
            u64::from(disk.files_available()),
        ),
    }
}

/// File systems that make files' slots as they need them have none in all.
fn space_of(free: u64, files: u64, free_files: u64) -> Outcome {
    let (mut wrong, mib) = (Vec::new(), free >> 20);
    if free < FREE_BYTES {
        wrong.push(format!("{mib} MiB are free; with none the room takes no messages"));
    }
    if files > 0 && free_files < FREE_FILES {
        wrong.push(format!("{free_files} more files can be made"));
    }
    let remedy = "free some space; `papayad log prune` removes old records while people talk";
    Outcome::of(format!("{mib} MiB are free"), wrong, remedy)
}

fn clock(config: &Config, now: Timestamp) -> Outcome {
    let synchronised = match Path::new(TIMESYNC).exists() {
        true => "and set by a time server",
        false => "whether a time server sets it, cannot be seen from here",
    };
    judge_clock(now, log::open(config).ok().and_then(|log| last_record(&log)), synchronised)
}

fn judge_clock(now: Timestamp, last: Option<Timestamp>, synchronised: &str) -> Outcome {
    let remedy = "set the clock (timedatectl, chronyc, ntpd), then restart the service";
    if WRITTEN.parse().is_ok_and(|written: Timestamp| now < written) {
        return Outcome::differs(
            format!("it is {now:.0}, before this program was written"),
            remedy,
        );
    }
    if let Some(last) = last.filter(|last| now + BEHIND < *last) {
        let problem = format!("it is {now:.0}, but the last record is from {last:.0}");
        return Outcome::differs(problem, remedy);
    }
    Outcome::Good(format!("it is {now:.0}, not before the last record; {synchronised}"))
}

/// When the last message was stored; what stands behind it is not older.
fn last_record(log: &Reader) -> Option<Timestamp> {
    let mut last = None;
    let mut lines = Lines::new(log, seek::history(log, 1).ok()?).ok()?;
    while let Ok(Some(line)) = lines.next() {
        let record = line.bytes.and_then(|bytes| Record::parse(bytes).ok());
        last = record.map(|record| record.ts).or(last);
    }
    last
}

fn syslog(config: &Config) -> Outcome {
    if config.syslog.facility == Facility::None {
        return Outcome::Good("the configuration wants none".into());
    }
    let places: Vec<PathBuf> = match &config.syslog.socket {
        Some(socket) => vec![socket.clone()],
        None => SYSLOG_SOCKETS.iter().map(PathBuf::from).collect(),
    };
    let takes = |path: &&PathBuf| {
        let datagram = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        datagram.is_ok() || UnixStream::connect(path).is_ok()
    };
    match places.iter().find(takes) {
        Some(path) => Outcome::Good(format!("{} takes log lines", path.display())),
        None => {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            Outcome::differs(
                format!("nobody listens at {}: log lines are lost", places.join(" or ")),
                "start the system's logger, or choose syslog.facility = \"none\"",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket,
    };

    use super::*;

    fn differs(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Differs { remedy, .. } if !remedy.is_empty())
    }

    #[test]
    fn a_full_disk_is_told_before_it_is_full() {
        assert!(!differs(&space_of(FREE_BYTES, 1000, FREE_FILES)));
        assert!(differs(&space_of(FREE_BYTES - 1, 1000, FREE_FILES)));
        assert!(differs(&space_of(FREE_BYTES, 1000, FREE_FILES - 1)));
        assert!(!differs(&space_of(FREE_BYTES, 0, 0)), "a file system without inodes");
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_told() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-22T00:00:00Z");
        assert!(!differs(&judge_clock(now, None, "")));
        assert!(!differs(&judge_clock(now, Some(at("2026-11-22T00:00:04Z")), "")));
        assert!(differs(&judge_clock(now, Some(at("2026-11-22T00:00:06Z")), "")));
        assert!(differs(&judge_clock(at("1970-01-01T00:00:09Z"), None, "")));
    }

    #[test]
    fn a_port_that_takes_no_connection_is_told_unless_the_door_is_closed() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = open.local_addr().unwrap().to_string();
        // Bound, so that nobody else gets the port, and not listening.
        let flags = SockFlag::SOCK_CLOEXEC;
        let bound = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let gone = getsockname::<SockaddrIn>(bound.as_raw_fd()).unwrap();
        let look = |door| {
            let status = serde_json::json!({ "door": door, "addresses": [good, gone.to_string()] });
            ports(&status).iter().map(|finding| differs(&finding.outcome)).collect::<Vec<_>>()
        };
        assert_eq!(look("open"), [false, true]);
        assert_eq!(look("closed"), [false, false]);
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), open.local_addr().unwrap().port());
        assert!(connect(any).is_ok());
    }

    #[test]
    fn a_logger_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.syslog.socket = Some(dir.path().join("log"));
        assert!(differs(&syslog(&config)));
        let _logger = UnixDatagram::bind(dir.path().join("log")).unwrap();
        assert!(!differs(&syslog(&config)));
        config.syslog.socket = Some(dir.path().join("none"));
        config.syslog.facility = Facility::None;
        assert!(!differs(&syslog(&config)));
    }
}
