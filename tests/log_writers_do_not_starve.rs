//! Writers do not starve, however many readers there are: the gate lets no reader that is behind
//! come in while a writer waits, and a reader at the end only once.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use log_support::{Outcome, Room, batch, now, test};
use papayachat::config::Durability;
use papayachat::room::offset::Offset;

fn main() -> ExitCode {
    log_support::main(vec![
        test("no_reader_that_is_behind_passes_a_waiting_writer", || {
            no_reader_that_is_behind_passes_a_waiting_writer();
        }),
        test("without_the_gate_readers_pass_a_waiting_writer", || {
            without_the_gate_readers_pass_a_waiting_writer();
        }),
        test("a_writer_gets_its_turn_among_200_replaying_readers", || {
            a_writer_gets_its_turn_among_200_replaying_readers();
        }),
    ])
}

fn no_reader_that_is_behind_passes_a_waiting_writer() {
    let room = Room::new();
    let (mut first, mut writer, mut second) = (room.worker(), room.worker(), room.worker());
    first.ask("hold room.log shared");
    assert_eq!(writer.attempt("append text"), Outcome::Waits);
    assert_eq!(second.attempt("read"), Outcome::Waits);
    first.ask("release");
    assert_eq!(writer.answer(), "done 0");
    assert_eq!(second.answer(), "done text");
}

/// The proof that the test above can fail: readers that ask for the lock alone can hand it on
/// among themselves for ever.
fn without_the_gate_readers_pass_a_waiting_writer() {
    let room = Room::new();
    let (mut first, mut writer, mut second) = (room.worker(), room.worker(), room.worker());
    first.ask("hold room.log shared");
    assert_eq!(writer.attempt("append text"), Outcome::Waits);
    for _ in 0..100 {
        let inside = Outcome::Answered("inside".into());
        assert_eq!(second.attempt("hold room.log shared"), inside);
        first.ask("release");
        std::mem::swap(&mut first, &mut second);
    }
    assert_eq!(room.bytes(), b"");
}

/// The readers stop by themselves after many rounds each; the writer must be done long before.
fn a_writer_gets_its_turn_among_200_replaying_readers() {
    const READERS: usize = 200;
    const ROUNDS: u64 = 100_000;
    const APPENDS: usize = 100;
    let room = Room::new();
    let text = "x".repeat(4000);
    for _ in 0..20 {
        room.appender().append(&mut batch(&[&text; 10]), now, Durability::Never).unwrap();
    }
    let (done, reads, finished) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            // A thread with descriptions of its own is to flock(2) as good as a process.
            let mut reader = room.reader(0);
            let (done, reads, finished) = (&done, &reads, &finished);
            scope.spawn(move || {
                let mut buf = vec![0; 64 * 1024];
                for _ in 0..ROUNDS {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    if reader.read(&mut buf).unwrap().is_none() {
                        reader.seek(Offset(0));
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut appender = room.appender();
        for _ in 0..APPENDS {
            appender.append(&mut batch(&["mine"]), now, Durability::Never).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let reads = reads.load(Ordering::Relaxed);
    assert_eq!(finished.load(Ordering::Relaxed), 0, "a reader was done first ({reads} reads)");
    assert_eq!(room.texts().iter().filter(|text| *text == "mine").count(), APPENDS);
    println!("{reads} reads for {APPENDS} appends");
}
