//! Attacks by names: nobody but the keeper and the launcher may open or even look at one.

use libc::{
    AT_EMPTY_PATH, AT_FDCWD, EACCES, O_APPEND, O_CREAT, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
};

use super::super::Level;
use super::super::policy::recv::LOG_READ;
use super::Value::{Path, Scratch};
use super::linux::{attack, n};
use super::{Attack, Role};

/// A name that nobody has.
const NONE: super::Value = Path(c"/nonexistent/papaya");

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack(
            "open",
            "reads any file",
            "openat",
            &[n(AT_FDCWD), Path(c"/etc/passwd"), n(O_RDONLY)],
        )
        .fails_in_launcher(EACCES, Level::Landlock2),
        attack("open-old", "reads any file", "open", &[Path(c"/etc/passwd"), n(O_RDONLY)]),
        attack(
            "open2",
            "reads any file",
            "openat2",
            &[n(AT_FDCWD), Path(c"/etc/passwd"), Scratch, n(24)],
        ),
        attack(
            "open-to-write",
            "changes any file",
            "openat",
            &[n(AT_FDCWD), Path(c"/nonexistent/papaya"), n(O_WRONLY)],
        ),
        attack(
            "open-to-cut",
            "empties the log by its name",
            "openat",
            &[n(3), Path(c"nonexistent"), n(O_WRONLY | O_TRUNC)],
        ),
        attack(
            "open-log-to-change",
            "rewrites the log by its name, or the tokens beside it",
            "openat",
            &[n(3), Path(c"nonexistent"), n(O_WRONLY)],
        ),
        attack(
            "open-to-make",
            "makes a file in a directory that it has",
            "openat",
            &[n(3), Path(c"nonexistent"), n(O_WRONLY | O_APPEND | O_CREAT)],
        ),
        attack(
            "open-path",
            "a handle on a directory above",
            "openat",
            &[n(3), Path(c".."), n(O_PATH | O_RDWR)],
        ),
        attack(
            "open-past-directory",
            "reads any file, by a name that its directory is not asked for",
            "openat",
            &[n(3), Path(c"/etc/passwd"), n(O_RDONLY)],
        )
        .fails_in_launcher(EACCES, Level::Landlock2)
        .fails_in_keeper(EACCES, Level::Landlock2),
        attack(
            "open-above-directory",
            "reads any file, by way of the directories above",
            "openat",
            &[n(3), Path(c"../../../../../../../../etc/passwd"), n(O_RDONLY)],
        )
        // There number 3 is no directory.
        .not_for_launcher()
        .fails_in_keeper(EACCES, Level::Landlock2),
        attack(
            "open-others-memory",
            "reads another process",
            "openat",
            &[n(AT_FDCWD), Path(c"/proc/1/mem"), n(O_RDONLY)],
        )
        // Where Landlock does not, the file's owner keeps others out.
        .fails_in_launcher(EACCES, Level::Seccomp),
        attack(
            "open-own-memory",
            "writes where nothing may be written, over its own code too",
            "openat",
            &[n(AT_FDCWD), Path(c"/proc/self/mem"), n(O_RDWR)],
        ),
        attack("create", "a new file", "creat", &[NONE, n(0o600)]),
        attack(
            "open-by-handle",
            "any file by its number",
            "open_by_handle_at",
            &[n(3), Scratch, n(O_RDONLY)],
        ),
        attack(
            "handle-of-name",
            "a file's number",
            "name_to_handle_at",
            &[n(AT_FDCWD), Path(c"/etc/passwd"), Scratch, Scratch, n(0)],
        ),
        attack(
            "stat",
            "learns of any file",
            "newfstatat",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), Scratch, n(0)],
        )
        .not_for_launcher(),
        attack(
            "stat-past-descriptor",
            "learns of any file",
            "newfstatat",
            &[n(LOG_READ), Path(c"/etc/shadow"), Scratch, n(AT_EMPTY_PATH)],
        )
        .not_for_launcher(),
        attack("stat-old", "learns of any file", "stat", &[Path(c"/etc/shadow"), Scratch]),
        attack(
            "statx",
            "learns of any file",
            "statx",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), n(0), n(0), Scratch],
        )
        .not_for_launcher(),
        attack("statfs", "learns of any file system", "statfs", &[Path(c"/etc"), Scratch]),
        attack(
            "access",
            "learns of any file",
            "faccessat",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), n(4)],
        )
        .not_for_launcher(),
        attack(
            "access2",
            "learns of any file",
            "faccessat2",
            &[n(AT_FDCWD), Path(c"/etc/shadow"), n(4), n(0)],
        ),
        attack(
            "readlink",
            "learns of any file",
            "readlinkat",
            &[n(AT_FDCWD), Path(c"/proc/self/exe"), Scratch, n(4096)],
        )
        .not_for_launcher(),
        attack("where-am-i", "learns the working directory", "getcwd", &[Scratch, n(4096)]),
        attack("change-directory", "another place to open from", "chdir", &[Path(c"/")]),
        attack("change-directory-by-fd", "another place to open from", "fchdir", &[n(3)]),
        attack("list", "lists a directory", "getdents64", &[n(3), Scratch, n(4096)])
            .not_for_launcher(),
        attack("chmod", "opens a file to others", "fchmodat", &[n(AT_FDCWD), NONE, n(0o777)]),
        attack("chmod-old", "opens a file to others", "chmod", &[NONE, n(0o777)]),
        attack("chown", "gives a file away", "fchownat", &[n(AT_FDCWD), NONE, n(-1), n(-1), n(0)]),
        attack("unlink", "removes a file", "unlinkat", &[n(AT_FDCWD), NONE, n(0)]),
        attack(
            "rename",
            "puts a file in another's place",
            "renameat2",
            &[n(AT_FDCWD), NONE, n(AT_FDCWD), NONE, n(0)],
        ),
        attack(
            "hard-link",
            "a second name for a file",
            "linkat",
            &[n(AT_FDCWD), NONE, n(AT_FDCWD), NONE, n(0)],
        ),
        attack("symbolic-link", "leads others astray", "symlinkat", &[NONE, n(AT_FDCWD), NONE]),
        attack("make-directory", "a place of its own", "mkdirat", &[n(AT_FDCWD), NONE, n(0o700)]),
        attack("make-device", "a device", "mknodat", &[n(AT_FDCWD), NONE, n(0o020_600), n(0)]),
        attack("truncate-by-name", "empties any file", "truncate", &[NONE, n(0)]),
        attack("touch", "hides when a file changed", "utimensat", &[n(AT_FDCWD), NONE, n(0), n(0)]),
        attack(
            "attribute",
            "attributes of any file",
            "setxattr",
            &[NONE, Path(c"user.x"), Scratch, n(1), n(0)],
        ),
        attack("watch-files", "sees what others do", "inotify_init1", &[n(0)]),
        attack("watch-all-files", "sees what others do", "fanotify_init", &[n(0), n(0)]),
        attack("quota", "limits of others", "quotactl", &[n(0), n(0), n(0), n(0)]),
        attack("root-directory", "another root", "chroot", &[Path(c"/")]),
        attack("mount", "changes what a name means", "mount", &[n(0), NONE, n(0), n(0), n(0)]),
        attack("unmount", "changes what a name means", "umount2", &[NONE, n(0)]),
        attack("mount-new", "changes what a name means", "fsopen", &[Path(c"tmpfs"), n(0)]),
        attack("mount-tree", "another view of a directory", "open_tree", &[n(3), Path(c""), n(1)]),
        attack(
            "mount-move",
            "changes what a name means",
            "move_mount",
            &[n(3), NONE, n(3), NONE, n(0)],
        ),
        attack(
            "mount-flags",
            "changes what a name means",
            "mount_setattr",
            &[n(3), NONE, n(0), Scratch, n(32)],
        ),
        attack("pivot", "another root", "pivot_root", &[NONE, NONE]),
        attack(
            "pass-on-open",
            "opens beneath the state directory",
            "openat",
            &[n(3), Path(c"nonexistent"), n(O_RDONLY)],
        )
        .not_for(&[Role::Launcher, Role::Keeper]),
    ]
}
