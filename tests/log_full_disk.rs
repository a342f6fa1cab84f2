//! A full disk loses nothing and doubles nothing: what was acknowledged is in the log once, what
//! was not is not, and can be sent again when there is space.
//!
//! Without root, the end of the space is a limit on the file's size (`RLIMIT_FSIZE`, with the
//! signal blocked); with root, a small file system of its own as well.

mod log_support;

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::Trial;
use log_support::{Room, batch, now, test};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use papayachat::config::Durability;
use papayachat::room::log::Appended;
use papayachat::room::record::Record;

fn main() -> ExitCode {
    // A limit holds for the whole process, so this test is one; and it must come first, since
    // the others' threads must inherit the blocked signal.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().unwrap();
    let mount = Trial::test("a_full_file_system_loses_and_doubles_nothing", || {
        a_full_file_system_loses_and_doubles_nothing();
        Ok(())
    });
    log_support::main(vec![
        test("wherever_space_ends_nothing_is_lost_or_doubled", || {
            wherever_space_ends_nothing_is_lost_or_doubled();
        }),
        mount.with_ignored_flag(!can_mount()),
    ])
}

/// Sends what is not acknowledged yet until all is; `relief` makes space after the first failure.
fn send_all(room: &Room, ids: &[String], relief: impl FnOnce()) -> Vec<Appended> {
    let mut waiting: Vec<String> = ids.to_vec();
    let mut results = Vec::new();
    let mut relief = Some(relief);
    for _ in 0..10 {
        let mut appender = room.appender();
        let done = appender.append(&mut batch(&waiting), now, Durability::Never).unwrap();
        results.push(done);
        waiting.drain(..done.stored);
        if waiting.is_empty() {
            return results;
        }
        assert!(done.problem.is_some(), "{done:?}");
        if let Some(relief) = relief.take() {
            relief();
        }
    }
    panic!("still not stored: {waiting:?}");
}

/// The texts of all lines that are records.
fn stored(room: &Room) -> Vec<String> {
    let bytes = room.bytes();
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    lines.filter_map(|line| Record::parse(line).ok()?.text).collect()
}

fn wherever_space_ends_nothing_is_lost_or_doubled() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let ids: Vec<String> = (0..3).map(|i| format!("message {i}")).collect();
    let length = batch(&ids).bytes().len() as u64;
    for space in 0..=length {
        let room = Room::new();
        setrlimit(Resource::RLIMIT_FSIZE, space, hard).unwrap();
        let relief = || setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        let results = send_all(&room, &ids, relief);
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        assert_eq!(stored(&room), ids, "space for {space} bytes");
        let first = &results[0];
        assert_eq!(first.stored as u64, 3 * space / length, "space for {space} bytes");
        let expected = (space < length).then_some(Errno::EFBIG);
        assert_eq!(first.problem, expected, "space for {space} bytes");
        let torn = !(space % (length / 3)).is_multiple_of(length);
        assert_eq!(results.get(1).is_some_and(|second| second.repaired), torn);
    }
}

fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mounted = nix::unistd::geteuid().is_root() && mount(dir.path());
    if mounted {
        unmount(dir.path());
    }
    mounted
}

fn mount(dir: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=64k", "papayachat-test"]).arg(dir);
    command.output().is_ok_and(|output| output.status.success())
}

fn unmount(dir: &Path) {
    // Lazily: the room's descriptors may still be open.
    let status = Command::new("umount").arg("-l").arg(dir).status();
    assert!(status.is_ok_and(|status| status.success()));
}

fn a_full_file_system_loses_and_doubles_nothing() {
    let outer = tempfile::tempdir().unwrap();
    assert!(mount(outer.path()));
    let room = Room::in_dir(tempfile::tempdir_in(outer.path()).unwrap());
    let ballast = outer.path().join("ballast");
    std::fs::write(&ballast, vec![0; 20_000]).unwrap();
    let ids: Vec<String> = (0..50).map(|i| format!("{i} {}", "x".repeat(937))).collect();
    let results = send_all(&room, &ids, || std::fs::remove_file(&ballast).unwrap());
    let texts = stored(&room);
    drop(room);
    unmount(outer.path());
    assert_eq!(results[0].problem, Some(Errno::ENOSPC));
    assert!(results[0].stored > 10 && results[0].stored < 50, "{results:?}");
    assert_eq!(texts, ids);
}
