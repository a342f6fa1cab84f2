//! What FreeBSD lets a process do with a descriptor, and the descriptors that are in no process's
//! fixed table at its start: they are handed over, or made later. Whoever makes or sends one limits
//! it first, and whoever gets it does so again. Pure; `confine::limit` enforces it, on FreeBSD.

use serde::Serialize;

use super::recv::{GATE, LOG_APPEND, LOG_READ, LOG_TAIL, SEND, SEND_END, SEND_GATE};
use super::{Descriptor, Kind, descriptor};

/// What FreeBSD lets a process do with a descriptor, named as in rights(4) without `CAP_`.
///
/// There is none for fcntl(2) and ioctl(2), none to truncate, map or change a file's mode or flags,
/// and none to bind or connect a socket: nobody can be given what has no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Right {
    Read,
    Write,
    Seek,
    /// To read at an offset: the same as `Read` and `Seek` together.
    Pread,
    Fexecve,
    Fsync,
    Flock,
    Fstat,
    Event,
    Accept,
    Listen,
    Shutdown,
    Getsockopt,
    Setsockopt,
    Getpeername,
    Getsockname,
    Lookup,
}

impl Right {
    /// Every right that a policy may give.
    pub const ALL: [Self; 17] = [
        Self::Read,
        Self::Write,
        Self::Seek,
        Self::Pread,
        Self::Fexecve,
        Self::Fsync,
        Self::Flock,
        Self::Fstat,
        Self::Event,
        Self::Accept,
        Self::Listen,
        Self::Shutdown,
        Self::Getsockopt,
        Self::Setsockopt,
        Self::Getpeername,
        Self::Getsockname,
        Self::Lookup,
    ];

    /// Its bits in the kernel's two words (sys/capsicum.h): some rights contain others. The build
    /// for FreeBSD compares them with the system's.
    pub const fn bits(self) -> Rights {
        let first = match self {
            Self::Read => 0x1,
            Self::Write => 0x2,
            Self::Seek => 0xc,
            Self::Pread => 0xd,
            Self::Fexecve => 0x80,
            Self::Fsync => 0x100,
            Self::Lookup => 0x400,
            Self::Flock => 0x1_0000,
            Self::Fstat => 0x8_0000,
            Self::Accept => 0x2000_0000,
            Self::Getpeername => 0x1_0000_0000,
            Self::Getsockname => 0x2_0000_0000,
            Self::Getsockopt => 0x4_0000_0000,
            Self::Listen => 0x8_0000_0000,
            Self::Setsockopt => 0x20_0000_0000,
            Self::Shutdown => 0x40_0000_0000,
            Self::Event => return Rights([0, 0x20]),
        };
        Rights([first, 0])
    }
}

/// A set of rights, as the kernel compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub [u64; 2]);

impl Rights {
    /// What a list gives.
    pub fn of(list: &[Right]) -> Self {
        list.iter().fold(Self::default(), |Self([a, b]), right| {
            let Self([c, d]) = right.bits();
            Self([a | c, b | d])
        })
    }

    /// Whether all of the other set's are here.
    pub fn contain(self, other: Self) -> bool {
        self.0.iter().zip(other.0).all(|(mine, theirs)| mine & theirs == theirs)
    }
}

/// The launcher's listening sockets, before the listener narrows its own descriptors of them.
pub const LISTENING: &[Right] = &[
    Right::Accept,
    Right::Listen,
    Right::Event,
    Right::Getsockname,
    Right::Setsockopt,
    Right::Shutdown,
    Right::Read,
    Right::Write,
    Right::Getpeername,
    Right::Getsockopt,
];
/// This program, from which the launcher executes RECV.
pub const PROGRAM: &[Right] = &[Right::Read, Right::Fexecve];
/// The reading end of a pipe that the launcher waits at.
pub const PIPE_READ: &[Right] = &[Right::Read, Right::Event];
/// The writing end of a pipe, whoever has it.
pub const PIPE_WRITE: &[Right] = &[Right::Write];
/// An end of a channel, whoever has it.
pub const CHANNEL: &[Right] = &[Right::Read, Right::Write, Right::Event];
/// The same as RECV is started with: it looks first whether it is a channel.
pub const CHANNEL_AT_START: &[Right] =
    &[Right::Read, Right::Write, Right::Event, Right::Getsockopt];
/// A client's socket as the listener hands it to the launcher, who asks where it comes from.
pub const CLIENT_ACCEPTED: &[Right] = &[
    Right::Read,
    Right::Write,
    Right::Event,
    Right::Shutdown,
    Right::Getsockopt,
    Right::Getpeername,
];
/// A client's socket as RECV is started with it: it looks first whether it is a socket.
pub const CLIENT_AT_START: &[Right] =
    &[Right::Read, Right::Write, Right::Event, Right::Shutdown, Right::Getsockopt];

/// The log, to append. Without a right to seek nobody writes elsewhere than at its end, and without
/// one for fcntl(2) nobody clears `O_APPEND`.
pub const APPEND: &[Right] = &[Right::Write, Right::Flock, Right::Fsync, Right::Fstat];
/// The log, to read its last byte.
pub const TAIL: &[Right] = &[Right::Pread];
/// The log, to read.
pub const READ: &[Right] = &[Right::Pread, Right::Flock, Right::Fstat];
/// The gate, which is only locked.
pub const LOCK: &[Right] = &[Right::Flock];
/// The state directory. A file has the rights of the directory that it is opened through, so what
/// anyone needs of a file is here; none to create one, nor to remove or rename.
pub const DIRECTORY: &[Right] =
    &[Right::Lookup, Right::Pread, Right::Write, Right::Flock, Right::Fsync, Right::Fstat];
/// The keeper's own descriptions of the log and the gate: flushed, and compared with new ones.
pub const KNOWN_FILE: &[Right] = &[Right::Fsync, Right::Fstat];
/// SEND's process, as RECV has it: to be told of its end.
pub const PROCESS: &[Right] = &[Right::Event];

/// What the keeper sends to RECV with a good token, in this order, and where RECV finds it.
pub const RECEIVED: [Descriptor; 5] = [
    descriptor(LOG_APPEND, Kind::LogAppend, "the log, to append", APPEND),
    descriptor(LOG_READ, Kind::LogRead, "the log, to read", READ),
    descriptor(GATE, Kind::Gate, "the gate", LOCK),
    descriptor(SEND_GATE, Kind::Gate, "the gate, for SEND", LOCK),
    descriptor(LOG_TAIL, Kind::LogRead, "the log, to see its last byte", TAIL),
];

/// What RECV makes itself before it forks SEND.
pub const MADE: [Descriptor; 2] = [
    descriptor(SEND, Kind::Channel, "the channel to SEND", CHANNEL),
    descriptor(SEND_END, Kind::Channel, "the channel to SEND, SEND's end", CHANNEL),
];

#[cfg(test)]
mod tests {
    use super::super::{descriptors, keeper, listener, recv, recv_joined, send};
    use super::*;
    use crate::confine::Role;

    fn entry(table: &[Descriptor], number: i32) -> Rights {
        let found = table.iter().find(|e| (e.first..=e.last).contains(&number));
        Rights::of(found.unwrap_or_else(|| panic!("no descriptor {number}")).rights)
    }

    /// Every list of rights that anything is ever limited to, with its bearer.
    fn all() -> Vec<(String, &'static [Right])> {
        let mut lists: Vec<(String, &'static [Right])> = Vec::new();
        for role in Role::ALL {
            lists.extend(
                descriptors(role).iter().map(|e| (format!("{role} {}", e.first), e.rights)),
            );
        }
        lists.extend(RECEIVED.iter().chain(&MADE).map(|e| (e.what.to_owned(), e.rights)));
        lists.push(("a listening socket".into(), LISTENING));
        lists.push(("the program".into(), PROGRAM));
        lists.push(("an accepted client".into(), CLIENT_ACCEPTED));
        lists.push(("RECV's client".into(), CLIENT_AT_START));
        lists.push(("RECV's channel".into(), CHANNEL_AT_START));
        lists.push(("a pipe's reading end".into(), PIPE_READ));
        lists.push(("a pipe's writing end".into(), PIPE_WRITE));
        lists
    }

    #[test]
    fn every_descriptor_of_every_role_has_rights_but_dev_null() {
        for role in Role::ALL {
            for entry in descriptors(role) {
                assert_eq!(entry.rights.is_empty(), entry.kind == Kind::Null, "{role} {entry:?}");
            }
        }
    }

    #[test]
    fn the_list_of_all_rights_has_each_once_and_each_has_bits_of_its_own() {
        for (place, right) in Right::ALL.iter().enumerate() {
            assert_eq!(Right::ALL.iter().position(|r| r == right), Some(place));
            let alias = *right == Right::Pread;
            let others: Vec<Right> =
                Right::ALL.into_iter().filter(|r| r != right && *r != Right::Pread).collect();
            assert_eq!(Rights::of(&others).contain(right.bits()), alias, "{right:?}");
        }
        assert_eq!(Right::Pread.bits(), Rights::of(&[Right::Read, Right::Seek]));
    }

    #[test]
    fn nobody_can_change_the_log_but_at_its_end() {
        let exact = Rights::of(&[Right::Write, Right::Flock, Right::Fsync, Right::Fstat]);
        for table in [recv_joined::DESCRIPTORS, &RECEIVED[..]] {
            assert_eq!(entry(table, LOG_APPEND), exact);
        }
        for (who, list) in all() {
            let write = list.contains(&Right::Write);
            let place = Rights::of(list).0[0] & Right::Seek.bits().0[0] != 0;
            let keepers = who == format!("keeper {}", keeper::STATE);
            assert!(!(write && place) || keepers, "{who} may write anywhere");
        }
        assert!(!send::DESCRIPTORS.iter().any(|e| {
            matches!(e.kind, Kind::LogRead | Kind::Gate) && e.rights.contains(&Right::Write)
        }));
    }

    /// CAP_FCNTL, CAP_IOCTL, CAP_FTRUNCATE, the three of CAP_MMAP, CAP_FCHFLAGS, CAP_FCHMOD,
    /// CAP_CREATE, CAP_BIND and CAP_CONNECT, by the kernel's bits.
    #[test]
    fn nothing_has_a_right_to_fcntl_ioctl_truncate_map_bind_or_connect() {
        let first: u64 = 0x8000 | 0x200 | 0x30 | 0x1000 | 0x2000 | 0x40 | 0x4000_0000 | 0x8000_0000;
        for (who, list) in all() {
            let Rights([a, b]) = Rights::of(list);
            assert_eq!((a & first, b & 0x80), (0, 0), "{who}");
        }
    }

    #[test]
    fn whoever_reads_its_client_cannot_write_to_it_once_there_are_two() {
        let joined = entry(recv_joined::DESCRIPTORS, recv::CLIENT);
        let send = entry(send::DESCRIPTORS, send::CLIENT);
        assert!(joined.contain(Right::Read.bits()) && !joined.contain(Right::Write.bits()));
        assert!(send.contain(Right::Write.bits()) && !send.contain(Right::Read.bits()));
    }

    /// Rights can only be taken away, so whoever had a descriptor before must have had them all.
    #[test]
    fn a_later_stage_has_no_right_that_an_earlier_one_lacks() {
        let before: Vec<Descriptor> =
            recv::DESCRIPTORS.iter().chain(&RECEIVED).chain(&MADE).copied().collect();
        for later in [recv_joined::DESCRIPTORS, send::DESCRIPTORS] {
            for e in later {
                assert!(entry(&before, e.first).contain(Rights::of(e.rights)), "{e:?}");
            }
        }
        let client = entry(recv::DESCRIPTORS, recv::CLIENT);
        let keeper = entry(recv::DESCRIPTORS, recv::KEEPER);
        let accepts = entry(listener::DESCRIPTORS, listener::FIRST_SOCKET);
        for (outer, inner) in [
            (Rights::of(LISTENING), accepts),
            (accepts, Rights::of(CLIENT_ACCEPTED)),
            (Rights::of(CLIENT_ACCEPTED), Rights::of(CLIENT_AT_START)),
            (Rights::of(CLIENT_AT_START), client),
            (Rights::of(CHANNEL_AT_START), keeper),
            (Rights::of(PIPE_WRITE), entry(recv::DESCRIPTORS, recv::BELL)),
            (Rights::of(PIPE_WRITE), entry(recv::DESCRIPTORS, recv::REPORT)),
        ] {
            assert!(outer.contain(inner), "{outer:?} {inner:?}");
        }
    }

    /// A file has the rights of the directory that it is opened through.
    #[test]
    fn all_that_the_keeper_hands_out_is_in_its_directorys_rights() {
        let directory = entry(keeper::DESCRIPTORS, keeper::STATE);
        for list in RECEIVED.iter().map(|e| e.rights).chain([KNOWN_FILE]) {
            assert!(directory.contain(Rights::of(list)), "{list:?}");
        }
    }

    #[test]
    fn what_is_waited_for_may_be_waited_for() {
        for role in Role::ALL {
            for e in descriptors(role) {
                let waited = matches!(e.kind, Kind::Client | Kind::Channel | Kind::Listening);
                assert!(!waited || e.rights.contains(&Right::Event), "{role} {e:?}");
            }
        }
    }

    /// What is received or made stands at the numbers that the later stages expect it at.
    #[test]
    fn the_tables_of_the_stages_agree() {
        for later in [recv_joined::DESCRIPTORS, send::DESCRIPTORS] {
            for e in later {
                let new = RECEIVED.iter().chain(&MADE).find(|new| new.first == e.first);
                assert!(new.is_none_or(|new| new.kind == e.kind), "{e:?}");
                let old = recv::DESCRIPTORS.iter().find(|old| old.first == e.first);
                assert!(new.is_some() != old.is_some(), "{e:?}");
            }
        }
    }
}
