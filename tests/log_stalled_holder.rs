//! A stalled or hostile holder of a lock is found in the kernel's list of locks, and nobody else
//! is: with real processes and the real list, but the launcher's clock is the test's.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_support;

use std::fs::File;
use std::process::ExitCode;
use std::time::Duration;

use log_support::{Outcome, Room, test};
use papayachat::room::holder::{LOCKS, SUSPICIOUS_INTERVAL, Verdict, Watch};

fn main() -> ExitCode {
    log_support::main(vec![
        test("a_stalled_writer_is_found", || stalled("room.log exclusive")),
        test("a_stalled_reader_is_found", || stalled("room.log shared")),
        test("a_stalled_holder_of_the_gate_is_found", || stalled("room.gate exclusive")),
        test("a_room_in_which_nobody_waits_is_calm", a_room_in_which_nobody_waits_is_calm),
    ])
}

fn sample(watch: &mut Watch, number: u32) -> Verdict {
    let mut list = File::open(LOCKS).unwrap();
    watch.sample(SUSPICIOUS_INTERVAL * number, &mut list).unwrap()
}

fn stalled(what: &str) {
    let room = Room::new();
    let mut watch = Watch::new(room.files.lock_ids().unwrap());
    let (mut culprit, mut one, mut two) = (room.worker(), room.worker(), room.worker());
    assert_eq!(culprit.ask(&format!("hold {what}")), "inside");
    // One of the two holds the gate and waits for the log, the other waits for the gate.
    assert_eq!(one.attempt("append one"), Outcome::Waits);
    assert_eq!(two.attempt("append two"), Outcome::Waits);
    let patience = Duration::from_secs(4).div_duration_f32(SUSPICIOUS_INTERVAL) as u32;
    let verdict = (0..patience).find_map(|i| match sample(&mut watch, i) {
        Verdict::Remove(pids) => Some(pids),
        Verdict::Suspicious => None,
        Verdict::Calm => panic!("sample {i} is calm"),
    });
    assert_eq!(verdict, Some(vec![culprit.pid()]));
    culprit.kill();
    assert!(one.answer().starts_with("done"));
    assert!(two.answer().starts_with("done"));
    assert_eq!(room.texts().len(), 2);
    assert_eq!(sample(&mut watch, patience), Verdict::Calm);
}

fn a_room_in_which_nobody_waits_is_calm() {
    let room = Room::new();
    let mut watch = Watch::new(room.files.lock_ids().unwrap());
    let mut idle = room.worker();
    assert_eq!(idle.ask("hold room.log exclusive"), "inside");
    for i in 0..100 {
        assert_eq!(sample(&mut watch, i), Verdict::Calm);
    }
}
