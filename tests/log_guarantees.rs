//! The four guarantees of the log, with real processes, and each time the proof that the test can
//! fail: the original program's design, in which all processes share one open file description,
//! fails it.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_support;

use std::process::ExitCode;

use log_support::{Outcome, Room, Worker, test};

fn main() -> ExitCode {
    log_support::main(vec![
        test("writers_never_overwrite_each_other", writers_never_overwrite_each_other),
        test("the_originals_writers_overwrite", the_originals_writers_overwrite),
        test("no_reader_sees_a_half_written_record", no_reader_sees_a_half_written_record),
        test("the_originals_readers_see_half_a_record", the_originals_readers_see_half_a_record),
        test("nobody_writes_while_another_reads", nobody_writes_while_another_reads),
        test("the_originals_writers_write_while_another_reads", || {
            the_originals_writers_write_while_another_reads();
        }),
        test("readers_do_not_exclude_readers", readers_do_not_exclude_readers),
        test("an_exclusive_reader_would_exclude_readers", || {
            an_exclusive_reader_would_exclude_readers();
        }),
        test("the_originals_readers_disturb_each_other", the_originals_readers_disturb_each_other),
        test("many_writers_and_readers_at_once_lose_and_mix_nothing", || {
            many_writers_and_readers_at_once_lose_and_mix_nothing();
        }),
    ])
}

fn answered(what: &str) -> Outcome {
    Outcome::Answered(what.into())
}

fn writers_never_overwrite_each_other() {
    let room = Room::new();
    let (mut one, mut two) = (room.worker(), room.worker());
    assert_eq!(one.ask("append-paused first"), "inside");
    assert_eq!(two.attempt("append second"), Outcome::Waits);
    assert_eq!(room.bytes(), b"");
    assert_eq!(one.ask("go"), "done 0");
    let told = two.answer();
    assert_eq!(room.texts(), ["first", "second"]);
    // Each was told the place where its record stands.
    let second = room.bytes().iter().position(|&b| b == b'\n').unwrap() + 1;
    assert_eq!(told, format!("done {second}"));
}

fn the_originals_writers_overwrite() {
    let room = Room::new();
    let mut ours = room.worker();
    ours.ask("append before");
    let [mut one, mut two] = room.original_workers();
    assert_eq!(one.ask("original-append first"), "inside");
    // The lock excludes nobody: here comes a reader, and moves the offset that all share.
    assert_eq!(two.attempt("original-read 0"), answered("inside"));
    assert_eq!(one.ask("go"), "done");
    assert!(log_support::damaged(&room.bytes()) > 0, "nothing was overwritten");
}

fn no_reader_sees_a_half_written_record() {
    let room = Room::new();
    let (mut writer, mut reader) = (room.worker(), room.worker());
    assert_eq!(writer.ask("append-paused whole"), "inside");
    assert_eq!(reader.attempt("read"), Outcome::Waits);
    assert!(writer.ask("go").starts_with("done"));
    assert_eq!(reader.answer(), "done whole");
    // Now the reader is one at the end, which does not pass the gate.
    assert_eq!(writer.ask("append-paused again"), "inside");
    assert_eq!(reader.attempt("read"), Outcome::Waits);
    assert!(writer.ask("go").starts_with("done"));
    assert_eq!(reader.answer(), "done again");
}

fn the_originals_readers_see_half_a_record() {
    let room = Room::new();
    let [mut writer, mut reader] = room.original_workers();
    assert_eq!(writer.ask("original-append whole"), "inside");
    assert_eq!(reader.attempt("original-read 0"), answered("inside"));
    let seen = reader.ask("go");
    assert!(seen.starts_with("done {\"ts\":") && !seen.contains('|'), "{seen}");
}

/// A reader that is stopped in the middle of its read.
fn stopped_reader(room: &Room, how: &str) -> Worker {
    let mut reader = room.worker();
    assert_eq!(reader.ask(&format!("hold room.log {how}")), "inside");
    reader
}

fn nobody_writes_while_another_reads() {
    let room = Room::new();
    let mut writer = room.worker();
    let mut reader = stopped_reader(&room, "shared");
    assert_eq!(writer.attempt("append text"), Outcome::Waits);
    assert_eq!(room.bytes(), b"");
    assert_eq!(reader.ask("release"), "done");
    assert_eq!(writer.answer(), "done 0");
    assert_eq!(room.texts(), ["text"]);
}

fn the_originals_writers_write_while_another_reads() {
    let room = Room::new();
    let [mut reader, mut writer] = room.original_workers();
    assert_eq!(reader.ask("original-read 0"), "inside");
    assert_eq!(writer.attempt("original-append text"), answered("inside"));
    assert_ne!(room.bytes(), b"", "nobody wrote");
}

fn readers_do_not_exclude_readers() {
    let room = Room::new();
    let mut reader = room.worker();
    reader.ask("append text");
    let _stopped = stopped_reader(&room, "shared");
    // First as one that is behind, which passes the gate, then as one at the end.
    assert_eq!(reader.attempt("read"), answered("done text"));
    assert_eq!(reader.attempt("read"), answered("done"));
}

fn an_exclusive_reader_would_exclude_readers() {
    let room = Room::new();
    let mut reader = room.worker();
    let _stopped = stopped_reader(&room, "exclusive");
    assert_eq!(reader.attempt("read"), Outcome::Waits);
}

fn the_originals_readers_disturb_each_other() {
    let room = Room::new();
    let mut ours = room.worker();
    ours.ask("append first");
    let [mut one, mut two] = room.original_workers();
    assert_eq!(one.ask("original-read 0"), "inside");
    assert_eq!(two.ask("original-read 0"), "inside");
    assert!(two.ask("go").contains("first"));
    // The other has read everything, so the offset that both share is at the end.
    assert_eq!(one.ask("go"), "done");
}

fn many_writers_and_readers_at_once_lose_and_mix_nothing() {
    const EACH: usize = 100;
    let room = Room::new();
    let mut writers: Vec<Worker> = (0..4).map(|_| room.worker()).collect();
    let mut readers: Vec<Worker> = (0..2).map(|_| room.worker()).collect();
    let mut seen = vec![Vec::new(); readers.len()];
    for i in 0..EACH {
        for (w, writer) in writers.iter_mut().enumerate() {
            writer.tell(&format!("append {w}:{i}"));
        }
        for reader in &mut readers {
            reader.tell("read");
        }
        for writer in &mut writers {
            assert!(writer.answer().starts_with("done"));
        }
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            seen.push(reader.answer());
        }
    }
    let texts = room.texts();
    assert_eq!(texts.len(), writers.len() * EACH);
    for w in 0..writers.len() {
        let prefix = format!("{w}:");
        let mine: Vec<_> = texts.iter().filter(|text| text.starts_with(&prefix)).cloned().collect();
        let expected: Vec<_> = (0..EACH).map(|i| format!("{w}:{i}")).collect();
        assert_eq!(mine, expected);
    }
    for (reader, mut seen) in readers.iter_mut().zip(seen) {
        seen.push(reader.ask("read"));
        let parts = seen.iter().map(|part| part.strip_prefix("done").unwrap().trim());
        let all: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        assert_eq!(all.join(" "), texts.join(" "));
    }
}
