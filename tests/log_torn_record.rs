//! A torn record never harms the next one: of a writer that was killed in the middle of a write,
//! or that ran into the end of the space. And it never comes to life later.
// With a main of its own, clippy does not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_support;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use log_support::{Room, batch, now, test};
use papayachat::config::Durability;
use papayachat::room::log::LogError;
use papayachat::room::record::{MAX_LINE, Record, RecordError};
use papayachat::room::verify;

fn main() -> ExitCode {
    log_support::main(vec![
        test("wherever_a_record_was_torn_the_next_is_whole", || {
            wherever_a_record_was_torn_the_next_is_whole();
        }),
        test("a_reader_never_gets_a_torn_record_before_it_is_marked", || {
            a_reader_never_gets_a_torn_record_before_it_is_marked();
        }),
        test("a_mark_that_was_torn_itself_is_mended", a_mark_that_was_torn_itself_is_mended),
        test("a_writer_that_the_kernel_kills_in_the_middle_of_a_write_harms_nobody", || {
            a_writer_that_the_kernel_kills_in_the_middle_of_a_write_harms_nobody();
        }),
        test("writers_killed_at_any_moment_harm_nobody", || {
            writers_killed_at_any_moment_harm_nobody();
        }),
    ])
}

/// A whole record as bytes.
fn record() -> Vec<u8> {
    let mut batch = batch(&["häßlich \\ \" torn"]);
    batch.stamp(now());
    batch.bytes().to_vec()
}

fn wherever_a_record_was_torn_the_next_is_whole() {
    let record = record();
    for cut in 1..record.len() {
        let room = Room::new();
        std::fs::write(room.path(), &record[..cut]).unwrap();
        let done = room.appender().append(&mut batch(&["next"]), now, Durability::Never).unwrap();
        assert!(done.repaired && done.stored == 1, "cut at {cut}: {done:?}");
        let bytes = room.bytes();
        let (torn, next) = bytes.split_at(done.at.0 as usize);
        assert_eq!(Record::parse(torn), Err(RecordError::Torn), "cut at {cut}");
        assert_eq!(Record::parse(next).unwrap().text.as_deref(), Some("next"), "cut at {cut}");
        // What is whole is not repaired.
        let done = room.appender().append(&mut batch(&["last"]), now, Durability::Never).unwrap();
        assert!(!done.repaired);
        assert_eq!(done.at.0 as usize, bytes.len());
    }
}

fn a_reader_never_gets_a_torn_record_before_it_is_marked() {
    let record = record();
    let room = Room::new();
    let mut torn = record.clone();
    torn.extend_from_slice(&record[..record.len() - 1]);
    std::fs::write(room.path(), &torn).unwrap();
    let mut reader = room.reader(0);
    let mut buf = vec![0; MAX_LINE];
    assert_eq!(reader.end().unwrap().0 as usize, record.len());
    assert_eq!(reader.size().unwrap().0 as usize, torn.len());
    let (_, length) = reader.read(&mut buf).unwrap().unwrap();
    assert_eq!(length, record.len());
    assert_eq!(reader.read(&mut buf), Ok(None));
    room.appender().append(&mut batch(&["next"]), now, Durability::Never).unwrap();
    let (at, length) = reader.read(&mut buf).unwrap().unwrap();
    assert_eq!(at.0 as usize, record.len());
    let lines: Vec<_> = buf[..length].split_inclusive(|&b| b == b'\n').collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(Record::parse(lines[0]), Err(RecordError::Torn));
    assert!(Record::parse(lines[1]).is_ok());
    assert_eq!(reader.end().unwrap(), reader.position());
}

fn a_mark_that_was_torn_itself_is_mended() {
    let record = record();
    for mark in ["#", "#to", "#torn"] {
        let room = Room::new();
        let torn = [&record[..record.len() - 1], mark.as_bytes()].concat();
        std::fs::write(room.path(), &torn).unwrap();
        let done = room.appender().append(&mut batch(&["next"]), now, Durability::Never).unwrap();
        let bytes = room.bytes();
        assert_eq!(Record::parse(&bytes[..done.at.0 as usize]), Err(RecordError::Torn));
        assert!(Record::parse(&bytes[done.at.0 as usize..]).is_ok());
    }
}

fn a_writer_that_the_kernel_kills_in_the_middle_of_a_write_harms_nobody() {
    let room = Room::new();
    room.appender().append(&mut batch(&["before"]), now, Durability::Never).unwrap();
    let before = room.bytes();
    let mut victim = room.worker();
    // SIGXFSZ kills it, after the kernel has taken the first 40 bytes.
    victim.tell(&format!("limit {}", before.len() + 40));
    victim.tell("append torn");
    let status = victim.wait();
    assert!(status.signal().is_some(), "{status}");
    assert_eq!(room.bytes().len(), before.len() + 40);
    // Its lock died with it.
    let done = room.appender().append(&mut batch(&["after"]), now, Durability::Never).unwrap();
    assert!(done.repaired);
    assert_eq!(&room.bytes()[..before.len()], before);
    let (counts, _) = check(&room);
    assert_eq!((counts.messages, counts.torn, counts.foreign), (2, 1, 0));
}

fn writers_killed_at_any_moment_harm_nobody() {
    const ROUNDS: u64 = 20;
    let room = Room::new();
    let mut told = 0;
    for round in 0..ROUNDS {
        let mut victim = room.worker();
        victim.tell("write-for-ever");
        for _ in 0..=round % 3 {
            assert_eq!(victim.answer(), "wrote");
            told += 300;
        }
        victim.kill();
        let done = room.appender().append(&mut batch(&["mine"]), now, Durability::Never).unwrap();
        assert_eq!(done.stored, 1);
        let bytes = room.bytes();
        let mine = Record::parse(&bytes[done.at.0 as usize..]).unwrap();
        assert_eq!(mine.text.as_deref(), Some("mine"));
    }
    let (counts, problems) = check(&room);
    assert!(counts.messages >= told + ROUNDS, "{counts:?}");
    assert!(counts.torn <= ROUNDS && counts.foreign == 0, "{problems:?}");
}

fn check(room: &Room) -> (verify::Report, Vec<verify::Finding>) {
    let mut findings = Vec::new();
    let report = verify::walk(&room.reader(0), |finding| {
        findings.push(finding);
        Ok::<(), LogError>(())
    });
    (report.unwrap(), findings)
}
