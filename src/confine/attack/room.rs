//! Attacks on the log through the descriptors that a worker has: `O_APPEND` alone is no boundary.

use libc::{
    F_ADD_SEALS, F_DUPFD, F_DUPFD_CLOEXEC, F_OFD_SETLK, F_SETFL, F_SETLEASE, F_SETLK, MAP_PRIVATE,
    MAP_SHARED, O_APPEND, O_DIRECT, O_RDONLY, O_RDWR, PROT_READ, PROT_WRITE, SEEK_SET,
};

use super::super::policy::recv::{LOG_APPEND, LOG_READ};
use super::Value::{Number, Path, Scratch};
use super::linux::{attack, n};
use super::{Attack, Role};

const LOCK_MAND: i32 = 32; // flock(2) of old kernels
const PUNCH: i32 = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
const COLLAPSE: i32 = 8; // FALLOC_FL_COLLAPSE_RANGE
const ZERO: i32 = 16; // FALLOC_FL_ZERO_RANGE
const NO_APPEND: i32 = 0x20; // RWF_NOAPPEND
const SET_FLAGS: i64 = 0x4008_6602; // FS_IOC_SETFLAGS
const CLONE_FILE: i64 = 0x4004_9409; // FICLONE

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack(
            "reopen",
            "the log without its limits",
            "openat",
            &[n(libc::AT_FDCWD), Path(c"/proc/self/fd/4"), n(O_RDWR)],
        ),
        attack(
            "reopen-reader",
            "the log, read-only, to write",
            "openat",
            &[n(libc::AT_FDCWD), Path(c"/proc/self/fd/5"), n(O_RDWR)],
        ),
        attack(
            "reopen-to-read",
            "another description of the log",
            "openat",
            &[n(libc::AT_FDCWD), Path(c"/proc/self/fd/5"), n(O_RDONLY)],
        )
        // Where the kernel lets the launcher follow it, it leads to what it has open anyway.
        .not_for_launcher(),
        attack(
            "clear-append",
            "writes anywhere in the log",
            "fcntl",
            &[n(LOG_APPEND), n(F_SETFL), n(0)],
        )
        .not_for_launcher(),
        attack(
            "clear-append-upper-half",
            "the same with the command hidden in a wide register",
            "fcntl",
            &[n(LOG_APPEND), Number(0x1_0000_0000 | F_SETFL as i64), n(0)],
        )
        .not_for_launcher(),
        attack(
            "direct-writes",
            "writes past the cache",
            "fcntl",
            &[n(LOG_APPEND), n(F_SETFL), n(O_APPEND | O_DIRECT)],
        )
        .not_for_launcher(),
        attack(
            "write-elsewhere",
            "writes anywhere in the log",
            "pwrite64",
            &[n(LOG_APPEND), Scratch, n(1), n(0)],
        ),
        attack(
            "write-vector-elsewhere",
            "writes anywhere in the log",
            "pwritev",
            &[n(LOG_APPEND), Scratch, n(0), n(0), n(0)],
        ),
        attack(
            "write-without-append",
            "writes anywhere in the log",
            "pwritev2",
            &[n(LOG_APPEND), Scratch, n(0), n(0), n(0), n(NO_APPEND)],
        ),
        attack(
            "write-by-reader",
            "writes to what it may read",
            "write",
            &[n(LOG_READ), Scratch, n(1)],
        )
        .not_for(&[Role::Launcher, Role::Keeper]),
        attack(
            "write-vector",
            "a write that is not looked at",
            "writev",
            &[n(LOG_APPEND), Scratch, n(0)],
        ),
        attack("truncate", "destroys the log", "ftruncate", &[n(LOG_APPEND), n(0)]),
        attack("punch", "destroys the log", "fallocate", &[n(LOG_APPEND), n(PUNCH), n(0), n(4096)]),
        attack(
            "collapse",
            "cuts a piece out of the log",
            "fallocate",
            &[n(LOG_APPEND), n(COLLAPSE), n(0), n(4096)],
        ),
        attack("zero", "destroys the log", "fallocate", &[n(LOG_APPEND), n(ZERO), n(0), n(4096)]),
        attack(
            "reserve",
            "fills the disk without a record",
            "fallocate",
            &[n(LOG_APPEND), n(0), n(0), n(4096)],
        ),
        attack(
            "flags-by-ioctl",
            "clears the append-only flag",
            "ioctl",
            &[n(LOG_APPEND), Number(SET_FLAGS), Scratch],
        ),
        attack(
            "clone-by-ioctl",
            "puts another file's blocks in the log",
            "ioctl",
            &[n(LOG_APPEND), Number(CLONE_FILE), n(LOG_READ)],
        ),
        attack("log-mode", "opens the log to others", "fchmod", &[n(LOG_APPEND), n(0o666)]),
        attack("log-owner", "gives the log away", "fchown", &[n(LOG_APPEND), n(-1), n(-1)]),
        attack(
            "log-attribute",
            "attributes of the log",
            "fsetxattr",
            &[n(LOG_APPEND), Path(c"user.x"), Scratch, n(1), n(0)],
        ),
        attack("seek", "moves in the log", "lseek", &[n(LOG_APPEND), n(0), n(SEEK_SET)])
            .not_for_launcher(),
        attack(
            "map-log",
            "reads the log without its lock",
            "mmap",
            &[n(0), n(4096), n(PROT_READ), n(MAP_PRIVATE), n(LOG_READ), n(0)],
        )
        .not_for_launcher(),
        attack(
            "map-log-shared",
            "changes the log in memory",
            "mmap",
            &[n(0), n(4096), n(PROT_READ | PROT_WRITE), n(MAP_SHARED), n(LOG_APPEND), n(0)],
        ),
        attack("duplicate", "a descriptor outside the table", "dup", &[n(LOG_APPEND)]),
        attack(
            "duplicate-onto",
            "a descriptor outside the table",
            "dup3",
            &[n(LOG_APPEND), n(40), n(0)],
        )
        .not_for_launcher(),
        attack(
            "duplicate-by-fcntl",
            "a descriptor outside the table",
            "fcntl",
            &[n(LOG_APPEND), n(F_DUPFD), n(0)],
        ),
        attack(
            "duplicate-by-fcntl-closing",
            "a descriptor outside the table",
            "fcntl",
            &[n(LOG_APPEND), n(F_DUPFD_CLOEXEC), n(0)],
        ),
        attack(
            "lease",
            "stops whoever opens the log",
            "fcntl",
            &[n(LOG_READ), n(F_SETLEASE), n(0)],
        ),
        attack("seal", "nobody writes any more", "fcntl", &[n(LOG_APPEND), n(F_ADD_SEALS), n(0)]),
        attack(
            "record-lock",
            "a lock that the launcher does not watch",
            "fcntl",
            &[n(LOG_APPEND), n(F_SETLK), Scratch],
        ),
        attack(
            "record-lock-by-description",
            "a lock that the launcher does not watch",
            "fcntl",
            &[n(LOG_APPEND), n(F_OFD_SETLK), Scratch],
        ),
        attack("odd-lock", "a lock of another kind", "flock", &[n(LOG_APPEND), n(LOCK_MAND)]),
        attack(
            "copy-range",
            "copies into the log past its limits",
            "copy_file_range",
            &[n(LOG_READ), n(0), n(LOG_APPEND), n(0), n(1), n(0)],
        ),
        attack(
            "splice",
            "a pipe into the log",
            "splice",
            &[n(3), n(0), n(LOG_APPEND), n(0), n(1), n(0)],
        ),
        attack(
            "send-file",
            "the log past the cipher",
            "sendfile",
            &[n(0), n(LOG_READ), n(0), n(1)],
        ),
        attack("tee", "a copy of what is in a pipe", "tee", &[n(2), n(3), n(1), n(0)]),
        attack("map-into-pipe", "memory into a pipe", "vmsplice", &[n(3), Scratch, n(0), n(0)]),
        attack(
            "sync-range",
            "stalls the disk",
            "sync_file_range",
            &[n(LOG_APPEND), n(0), n(0), n(0)],
        ),
    ]
}
