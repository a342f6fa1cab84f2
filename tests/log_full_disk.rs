//! A full disk loses nothing and doubles nothing: what was acknowledged is in the log once, what
//! was not is not, and can be sent again when there is space.
//!
//! Without root, the end of the space is a limit on the file's size (`RLIMIT_FSIZE`, with the
//! signal blocked); with root, a small file system of its own as well.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_support;

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::Trial;
use log_support::{Room, batch, send_all, test};
use nix::errno::Errno;
use papayachat::room::record::Record;

fn main() -> ExitCode {
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

/// The texts of all lines that are records.
fn stored(room: &Room) -> Vec<String> {
    let bytes = room.bytes();
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    lines.filter_map(|line| Record::parse(line).ok()?.text).collect()
}

fn wherever_space_ends_nothing_is_lost_or_doubled() {
    let room = Room::new();
    let mut worker = room.worker();
    let mut expected = Vec::new();
    let length = batch(&["000:0", "000:1", "000:2"]).bytes().len();
    for space in 0..=length {
        let texts: Vec<String> = (0..3).map(|i| format!("{space:03}:{i}")).collect();
        let told = worker.ask(&format!("squeeze {space} {}", texts.join(" ")));
        let whole = 3 * space / length;
        let problem = if space < length { "EFBIG" } else { "-" };
        let torn = !space.is_multiple_of(length / 3);
        assert_eq!(told, format!("{whole} {problem} {torn}"), "space for {space} bytes");
        expected.extend(texts);
    }
    assert_eq!(stored(&room), expected);
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
    let results = send_all(&mut room.appender(), &ids, || std::fs::remove_file(&ballast).unwrap());
    let texts = stored(&room);
    drop(room);
    unmount(outer.path());
    assert_eq!(results[0].problem, Some(Errno::ENOSPC));
    assert!(results[0].stored > 10 && results[0].stored < 50, "{results:?}");
    assert_eq!(texts, ids);
}
