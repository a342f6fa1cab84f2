//! Doctor: a process's open descriptors, their kinds and their modes, against its policy's table.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use libc::{O_ACCMODE, O_APPEND, O_RDONLY, O_WRONLY};

use super::proc::{Open, Process};
use super::service::{Service, Subject};
use super::{Outcome, RESTART};
use crate::confine::Role;
use crate::confine::policy::{self, Descriptor, Kind, keeper, listener, recv, send};
use crate::daemon::session;
use crate::room::log::{GATE, LOG};

/// What a socket is, by its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Listening,
    Connected,
    Channel,
    OtherUnix,
}

/// What descriptors may lead to.
pub struct Around {
    pub(super) sockets: HashMap<u64, Socket>,
    pub(super) directory: Option<(u64, u64)>,
    pub(super) log: Option<(u64, u64)>,
    pub(super) gate: Option<(u64, u64)>,
    /// The program that the launcher executes for each client.
    pub(super) program: Option<(u64, u64)>,
    pub(super) addresses: usize,
    /// The door is closed: its sockets are bound, but in no table of the kernel's.
    pub(super) closed: bool,
}

impl Around {
    /// Looks at the files, and at the sockets of the networks that the service's can be in.
    pub fn look(service: &Service) -> Self {
        let file = |path: std::path::PathBuf| {
            fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
        };
        // Sockets that the service manager opened are in its network, and so in ours, even if the
        // service has one of its own; their inodes are the whole system's.
        let (service_net, ours) = (format!("/proc/{}/net", service.launcher()), "/proc/self/net");
        let read =
            |net: &str, name: &str| fs::read_to_string(format!("{net}/{name}")).unwrap_or_default();
        let mut sockets = HashMap::new();
        for net in [ours, &service_net] {
            for table in [read(net, "tcp"), read(net, "tcp6")] {
                sockets.extend(table.lines().skip(1).filter_map(tcp));
            }
        }
        sockets.extend(read(&service_net, "unix").lines().skip(1).filter_map(unix));
        Self {
            sockets,
            directory: file(service.state.clone()),
            log: file(service.state.join(LOG)),
            gate: file(service.state.join(GATE)),
            program: session::file_of(service.launcher()).ok(),
            addresses: service.addresses,
            closed: service.status["door"] == "closed",
        }
    }

    fn socket(&self, open: &Open) -> Option<Socket> {
        let inode = open.link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        self.sockets.get(&inode).copied()
    }

    /// Whether it is of this kind, and open as it must be.
    fn is(&self, open: &Open, kind: Kind) -> bool {
        let mode = open.flags & O_ACCMODE;
        let is = |file: Option<(u64, u64)>| file.is_some() && open.file == file;
        match kind {
            Kind::Null => open.link == "/dev/null",
            Kind::Client => self.socket(open) == Some(Socket::Connected),
            Kind::Listening => self.socket(open) == Some(Socket::Listening),
            Kind::Channel => self.socket(open) == Some(Socket::Channel),
            Kind::PipeEnd => open.link.starts_with("pipe:") && mode == O_WRONLY,
            Kind::StateDirectory => is(self.directory),
            Kind::LogAppend => is(self.log) && mode == O_WRONLY && open.flags & O_APPEND != 0,
            Kind::LogRead => is(self.log) && mode == O_RDONLY,
            Kind::Gate => is(self.gate) && mode == O_RDONLY,
        }
    }
}

/// The columns of /proc/net/tcp: the fourth is the state (0A: listening), the tenth the inode.
fn tcp(line: &str) -> Option<(u64, Socket)> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some((inode, if state == "0A" { Socket::Listening } else { Socket::Connected }))
}

/// The columns of /proc/net/unix: the fifth is the type (5: SEQPACKET), the seventh the inode.
fn unix(line: &str) -> Option<(u64, Socket)> {
    let mut fields = line.split_ascii_whitespace().skip(4);
    let kind = if fields.next()? == "0005" { Socket::Channel } else { Socket::OtherUnix };
    Some((fields.nth(1)?.parse().ok()?, kind))
}

/// Every descriptor against the table, and the table against the descriptors.
pub fn check(subject: &Subject, process: &Process, around: &Around) -> Outcome {
    let open = match &process.descriptors {
        Ok(open) => open,
        Err(e) => return Outcome::Unseen(format!("only root can see them ({e})")),
    };
    if subject.role == Role::Launcher {
        return launcher(open, around);
    }
    let mut wrong = Vec::new();
    let table = policy::descriptors(subject.role);
    for open in open {
        if let Err(what) = allowed(subject.role, table, open, around) {
            wrong.push(format!("{} is {}, open {:o}: {what}", open.number, open.link, open.flags));
        }
    }
    for entry in table {
        let count = if entry.kind == Kind::Listening { around.addresses } else { 1 };
        for number in (entry.first..=entry.last).take(count) {
            if open.iter().all(|open| open.number != number) {
                wrong.push(format!("{number}, {}, is missing", entry.what));
            }
        }
    }
    Outcome::of(format!("{}, each as in the policy's table", open.len()), wrong, RESTART)
}

fn allowed(
    role: Role,
    table: &[Descriptor],
    open: &Open,
    around: &Around,
) -> Result<(), &'static str> {
    let number = open.number;
    let entry = table.iter().find(|entry| (entry.first..=entry.last).contains(&number));
    // What a role may have besides its table, for a moment or in a number that varies.
    let besides: &[Kind] = match role {
        Role::Keeper if number >= keeper::FIRST => {
            &[Kind::Channel, Kind::StateDirectory, Kind::LogAppend, Kind::LogRead, Kind::Gate]
        }
        Role::Listener if (listener::FIRST_SOCKET..=listener::LAST).contains(&number) => {
            &[Kind::Client]
        }
        // Between the token and SEND's start.
        Role::Recv if (recv::LOG_APPEND..=recv::LAST).contains(&number) => {
            &[Kind::LogAppend, Kind::LogRead, Kind::Gate, Kind::Channel]
        }
        _ => &[],
    };
    let kinds = entry.map(|entry| entry.kind).into_iter().chain(besides.iter().copied());
    if kinds.clone().any(|kind| around.is(open, kind)) {
        return Ok(());
    }
    match entry {
        Some(entry) => Err(entry.what),
        None if besides.is_empty() => Err("it is not in the policy's table"),
        None => Err("it is none of what this role may have there"),
    }
}

/// It made them all, under numbers that vary; only its standard input and output were given to it.
/// A client's socket never stays with it, and nothing of the room is ever in it.
fn launcher(open: &[Open], around: &Around) -> Outcome {
    let is_its_own = |open: &Open| {
        let of_file = |file: Option<(u64, u64)>| file.is_some() && open.file == file;
        let socket = around.socket(open);
        matches!(socket, Some(Socket::Listening | Socket::Channel | Socket::OtherUnix))
            || open.link.starts_with("pipe:")
            || ["/dev/null", "/dev/kmsg", "/proc/locks"].contains(&open.link.as_str())
            || of_file(around.program)
            // After an upgrade, which the check of the service's program tells of.
            || session::was_replaced(&open.link)
    };
    let is_foreign = |open: &&Open| {
        let file = [around.directory, around.log, around.gate];
        around.is(open, Kind::Client)
            || (open.file.is_some() && file.contains(&open.file))
            || (open.number > 2 && !is_its_own(open))
    };
    let is_shut = |open: &&Open| {
        around.closed && open.link.starts_with("socket:[") && around.socket(open).is_none()
    };
    let shut = open.iter().filter(is_shut).count().min(around.addresses);
    let shown = |open: &Open| format!("{} is {}, which is not its", open.number, open.link);
    let foreign = open.iter().filter(is_foreign);
    let wrong = foreign.filter(|open| !is_shut(open)).chain(open.iter().filter(is_shut).skip(shut));
    let wrong = wrong.map(shown).collect();
    let good = format!("{}: sockets, channels and pipes, and nothing of the room's", open.len());
    Outcome::of(good, wrong, RESTART)
}

const _: () = assert!(send::CLIENT == recv::CLIENT, "SEND is forked from RECV");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let listening = "   0: 0100007F:1E2A 00000000:0000 0A 00000000:00000000 00:00000000 \
                         00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(tcp(listening), Some((4711, Socket::Listening)));
        assert_eq!(tcp(&listening.replace(" 0A ", " 01 ")), Some((4711, Socket::Connected)));
        let channel = "00000000ff: 00000003 00000000 00000000 0005 03 4712";
        assert_eq!(unix(channel), Some((4712, Socket::Channel)));
        assert_eq!(unix(&channel.replace("0005", "0001")), Some((4712, Socket::OtherUnix)));
        assert_eq!(tcp("odd"), None);
        assert_eq!(unix("odd"), None);
    }
}
