//! Whatever bytes stand in a log, a configuration file or the kernel's list of locks: an answer or
//! an error, never a panic, and no contradiction between the parts. Pseudo-random, from a fixed
//! seed, so that a failure can be repeated; the fuzz targets go further.
// clippy takes the helpers for something else than tests.
#![allow(clippy::unwrap_used)]

#[path = "common/properties.rs"]
mod properties;

use std::time::Duration;

use jiff::Timestamp;
use papayachat::config::Config;
use papayachat::room::holder::{FileId, LockIds, Watch};
use papayachat::room::lines::{Bytes, Lines};
use papayachat::room::log::LogError;
use papayachat::room::offset::Offset;
use papayachat::room::record::MAX_LINE;
use papayachat::room::{seek, verify};
use papayachat::token::{Secret, ServerKey, Token, TokenId};

const RECORDS: &str = concat!(
    r#"{"ts":"2026-11-22T22:23:01.123Z","id":"a-1","from":"alice","text":"h\u00e4 \"x\" 🥭\n"}"#,
    "\n",
    r#"{"ts":"2026-11-22T22:23:02.123Z","from":"bob","kind":"join"}"#,
    "\n",
    r##"{"ts":"2026-11-22T22:23:03.123Z","id":"n","from":"op","kind":"notice","text":"#torn"}"##,
    "\n{\"ts\":\"2026-11-22T22:23:04#torn\n",
);
const CONFIG: &str = concat!(
    "[room]\nname = \"lobby\"\n[listen]\naddresses = [\"[::]:7722\", \"127.0.0.1:1\"]\n",
    "[identity]\nuser = \"a\"\n[paths]\nstate = \"/a\"\n[limits]\nclients = 10\n",
    "startups = \"1:2:3\"\ngrace = \"20s\"\nrate = \"10/s\"\n[log]\npresence = true\n",
    "[sandbox]\nrequire = \"full\"\n[syslog]\nlevel = \"info\"\n",
);
const LOCKS: &str = "1: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 72 fe:00:11 0 EOF\n";

/// xorshift64*, Vigna 2016: good enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Some bytes of `seed`, damaged in one of several ways.
    fn damage(&mut self, seed: &str) -> Vec<u8> {
        let mut bytes = seed.repeat(1 + self.below(3)).into_bytes();
        for _ in 0..self.below(6) {
            let (at, to) = (self.below(bytes.len()), self.below(bytes.len()));
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                3 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                4 => bytes.rotate_left(at),
                5 => drop(bytes.drain(at.min(to)..at.max(to))),
                _ => {
                    let part = bytes[at.min(to)..at.max(to)].to_vec();
                    bytes.extend_from_slice(&part);
                }
            }
        }
        bytes
    }
}

/// What each parser is made for; damaged, it is what it must survive.
fn seeds(name: &str) -> Vec<String> {
    let own: &[&str] = match name {
        "control" => &["status\n", "kick alice\n", "pause\n", "kick 4711\n"],
        "command" => &[
            r#"{"cmd":"say","id":"a-1","text":"h\u00e4 \"x\" 🥭"}"#,
            r#"{"cmd":"join","id":"0102030405060708","secret":"00","session":"01","history":5}"#,
            r#"{"cmd":"ping","n":7}"#,
        ],
        "event" => &[
            r#"{"event":"bye","reason":"kicked","retry":false,"message":"x"}"#,
            r#"{"event":"pong","n":7}"#,
            r#"{"event":"rejected","id":"a","reason":"rate","message":"x"}"#,
        ],
        "record" => &[RECORDS],
        "config" => &[CONFIG],
        "report" => &["<4>recv alice 192.0.2.1:5: no way", "thread 'main' panicked"],
        "token" => return vec![token()],
        _ => &["PPYA\u{1}\0\u{10}", "0123456789abcdefghijklmnopqrstuvwxyz"],
    };
    own.iter().map(|seed| (*seed).to_owned()).collect()
}

fn token() -> String {
    let server = ServerKey([3; 32]);
    Token { server, id: TokenId([1; 8]), secret: Secret([2; 32]) }.encode().to_string()
}

#[test]
fn every_parser_answers_or_refuses() {
    for (number, (name, holds)) in properties::ALL.into_iter().enumerate() {
        let mut random = Random(number as u64 + 10);
        let seeds = seeds(name);
        for round in 0..800 {
            let seed = &seeds[round % seeds.len()];
            let mut bytes = random.damage(seed);
            if round % 3 == 0 {
                // As long as what is of a fixed length, and beyond.
                bytes = (0..random.below(200)).map(|_| random.next() as u8).collect();
            }
            holds(&bytes);
            for line in bytes.split_inclusive(|&b| b == b'\n') {
                holds(line);
            }
        }
        seeds.iter().for_each(|seed| holds(seed.as_bytes()));
    }
}

#[test]
fn each_property_has_its_fuzz_target() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    for (name, _) in properties::ALL {
        let target = directory.join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(target).unwrap();
        assert!(text.contains(&format!("properties::{name}(bytes)")), "{text}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in Cargo.toml");
    }
    let targets = std::fs::read_dir(directory.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, properties::ALL.len());
}

#[test]
fn a_configuration_is_parsed_or_refused_with_the_line() {
    let mut random = Random(2);
    for _ in 0..4_000 {
        let bytes = random.damage(CONFIG);
        let text = String::from_utf8_lossy(&bytes);
        let Err(errors) = Config::parse(&text, "f") else { continue };
        assert!(!errors.is_empty());
        for error in errors {
            assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1, "{error}");
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
        }
    }
}

#[test]
fn a_log_is_walked_and_searched_whatever_it_contains() {
    let mut random = Random(3);
    for round in 0..1000 {
        let mut log = random.damage(RECORDS);
        if round % 100 == 0 {
            let at = random.below(log.len());
            log.splice(at..at, vec![b'x'; random.below(3 * MAX_LINE)]);
        }
        let mut counted = 0;
        let report = verify::walk(&log[..], |finding| {
            counted += 1;
            assert!(finding.at.0 + finding.len <= log.len() as u64);
            Ok::<(), LogError>(())
        })
        .unwrap();
        assert_eq!(report.bytes, log.len() as u64);
        assert_eq!(counted, report.torn + report.foreign + report.backwards);
        let kinds = [report.messages, report.notices, report.joins, report.leaves, report.other];
        let all = kinds.iter().sum::<u64>() + report.torn + report.foreign;
        assert_eq!(all, report.lines);
        let starts = beginnings(&log);
        for count in [0, 1, 2, 5, u32::MAX] {
            assert!(starts.contains(&seek::history(&log[..], count).unwrap().0));
        }
        let second = random.below(4_000_000_000) as i64;
        for time in [second, 1_795_386_182].map(|s| Timestamp::from_second(s).unwrap()) {
            assert!(starts.contains(&seek::since(&log[..], time).unwrap().0));
        }
        let at = Offset(random.below(log.len() + 2) as u64);
        let whole = starts.contains(&at.0);
        assert_eq!(seek::check(&log[..], at).is_ok(), whole, "{at}");
    }
}

/// The offsets at which lines begin, and the end of the last whole line.
fn beginnings(log: &[u8]) -> Vec<u64> {
    let mut lines = Lines::new(log, Offset(0)).unwrap();
    let mut starts = vec![0];
    while let Some(line) = lines.next().unwrap() {
        if line.ended {
            starts.push(line.at.0 + line.len);
        }
    }
    assert!(starts.contains(&log.end().unwrap().0));
    starts
}

#[test]
fn a_list_of_locks_is_judged_whatever_it_contains() {
    let log = FileId { major: 0xfe, minor: 0, inode: 10 };
    let gate = FileId { major: 0xfe, minor: 0, inode: 11 };
    let mut watch = Watch::new(LockIds { log, gate });
    let mut random = Random(4);
    let mut now = Duration::ZERO;
    for _ in 0..5_000 {
        now += Duration::from_millis(random.below(300) as u64);
        let list = random.damage(LOCKS);
        watch.sample(now, &mut &list[..]).unwrap();
    }
}
