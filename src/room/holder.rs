//! The lock watch: finds a process that holds a lock of the room and lets the others wait.
//!
//! The launcher passes the kernel's list of locks (`/proc/locks`, see proc_locks(5)) once a
//! second, and every 100 ms while something is suspicious. Here is only the parser and the
//! judgement: no clock, no I/O of its own, memory bounded however long the list is. The launcher
//! ends a process that is reported only if it is a worker of its own.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::time::Duration;

use nix::sys::stat::FileStat;
use serde::{Deserialize, Serialize};

/// Where Linux lists the locks.
pub const LOCKS: &str = "/proc/locks";
/// As much of the list as is looked at, in bytes; some 800,000 locks.
pub const MAX_LIST: u64 = 64 << 20;
/// How often to look while nothing is suspicious.
pub const CALM_INTERVAL: Duration = Duration::from_secs(1);
/// How often to look while something is.
pub const SUSPICIOUS_INTERVAL: Duration = Duration::from_millis(100);
/// Who blocks others in every sample for so long is removed. With the intervals above and the
/// time that it takes to die, this keeps the promise of five seconds.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// So many samples at least must agree, or a slow launcher would see a busy room as a stalled one.
const MIN_SAMPLES: u32 = 10;
/// After a longer gap between two samples we know nothing about the time between them.
const MAX_GAP: Duration = Duration::from_secs(2);
/// How many holders of one file are kept in mind; the rest has its turn when these are gone.
const MAX_HOLDERS: usize = 4096;
/// How many processes that wait for the log are kept in mind.
const MAX_WAITERS: usize = 65_536;
/// Longer lines are cut; the kernel's have less than 100 bytes.
const MAX_LINE: usize = 256;

/// How the list names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// The inode.
    pub inode: u64,
}

/// How the list names the room's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockIds {
    /// `room.log`
    pub log: FileId,
    /// `room.gate`
    pub gate: FileId,
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody waits. Look again after [`CALM_INTERVAL`].
    Calm,
    /// Somebody waits. Look again after [`SUSPICIOUS_INTERVAL`].
    Suspicious,
    /// These processes have been blocking others for [`PATIENCE`]: end them.
    Remove(Vec<u32>),
}

/// What is remembered from one sample to the next.
#[derive(Debug)]
pub struct Watch {
    ids: LockIds,
    last: Option<Duration>,
    suspects: HashMap<u32, Suspect>,
    holders: HashSet<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    since: Duration,
    samples: u32,
}

/// One line of the list that concerns `flock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pid: u32,
    file: FileId,
    waits: bool,
}

/// What one sample says about the room's files.
#[derive(Debug, Default)]
struct Snapshot {
    log: State,
    gate: State,
    waiting_for_log: HashSet<u32>,
}

#[derive(Debug, Default)]
struct State {
    holders: HashSet<u32>,
    contended: bool,
}

impl Watch {
    /// A watch over these files that has seen nothing yet.
    pub fn new(ids: LockIds) -> Self {
        Self { ids, last: None, suspects: HashMap::new(), holders: HashSet::new() }
    }

    /// Judges the list of locks as it is at `now` (any clock that only goes forward).
    ///
    /// # Errors
    /// The list could not be read; the sample does not count.
    pub fn sample(&mut self, now: Duration, list: &mut impl Read) -> io::Result<Verdict> {
        let mut snapshot = Snapshot::default();
        for_each_line(list, |line| {
            if let Some(entry) = parse(line) {
                snapshot.note(entry, &self.ids);
            }
        })?;
        let verdict = self.judge(now, &snapshot);
        self.holders = snapshot.log.holders;
        self.holders.extend(snapshot.gate.holders);
        Ok(verdict)
    }

    /// Who held one of the files in the latest sample, whether somebody waited or not.
    #[must_use]
    pub fn holders(&self) -> &HashSet<u32> {
        &self.holders
    }

    fn judge(&mut self, now: Duration, snapshot: &Snapshot) -> Verdict {
        let gap = self.last.replace(now).map(|last| now.saturating_sub(last));
        if gap.is_some_and(|gap| gap > MAX_GAP) {
            self.suspects.clear();
        }
        let blockers = snapshot.blockers();
        self.suspects.retain(|pid, _| blockers.contains(pid));
        for &pid in &blockers {
            let suspect = self.suspects.entry(pid).or_insert(Suspect { since: now, samples: 0 });
            suspect.samples += 1;
        }
        let stalled =
            |s: &Suspect| now.saturating_sub(s.since) >= PATIENCE && s.samples >= MIN_SAMPLES;
        let mut remove: Vec<u32> =
            self.suspects.iter().filter(|(_, s)| stalled(s)).map(|(&pid, _)| pid).collect();
        if remove.is_empty() {
            return if blockers.is_empty() { Verdict::Calm } else { Verdict::Suspicious };
        }
        self.suspects.retain(|_, s| !stalled(s));
        remove.sort_unstable();
        Verdict::Remove(remove)
    }
}

impl Snapshot {
    fn note(&mut self, entry: Entry, ids: &LockIds) {
        if entry.file == ids.log && entry.waits && self.waiting_for_log.len() < MAX_WAITERS {
            self.waiting_for_log.insert(entry.pid);
        }
        let state = match entry.file {
            file if file == ids.log => &mut self.log,
            file if file == ids.gate => &mut self.gate,
            _ => return,
        };
        if entry.waits {
            state.contended = true;
        } else if state.holders.len() < MAX_HOLDERS {
            state.holders.insert(entry.pid);
        }
    }

    /// All who hold what others wait for. Who holds the gate and waits for the log is a victim:
    /// that is how a writer waits. Nobody of ours holds the log and waits for the gate, so who
    /// holds the log is never excused.
    fn blockers(&self) -> HashSet<u32> {
        let mut blockers = HashSet::new();
        if self.log.contended {
            blockers.extend(&self.log.holders);
        }
        if self.gate.contended {
            // If too many wait to be remembered, anyone may be a victim; the log's holder goes first.
            let unknown = self.waiting_for_log.len() >= MAX_WAITERS;
            let guilty = |pid: &&u32| !unknown && !self.waiting_for_log.contains(*pid);
            blockers.extend(self.gate.holders.iter().filter(guilty));
        }
        blockers
    }
}

impl FileId {
    /// By the numbers that fstat(2) gives. For some file systems (overlays, btrfs) the list of
    /// locks has others; [`held_by`] finds those.
    pub fn of(stat: &FileStat) -> Self {
        #[cfg(target_os = "linux")]
        let (major, minor) = (libc::major(stat.st_dev), libc::minor(stat.st_dev));
        #[cfg(not(target_os = "linux"))]
        let (major, minor) = (0, 0);
        Self { major, minor, inode: stat.st_ino }
    }
}

/// How the list names a file on which this process holds a `flock` at the moment, and which has
/// the numbers `stat` by fstat(2): those if the list has them, or the only other ones that the
/// process holds, or `stat`'s if there is no telling.
///
/// # Errors
/// The list could not be read.
pub fn held_by(pid: u32, stat: FileId, list: &mut impl Read) -> io::Result<FileId> {
    let mut held = HashSet::new();
    for_each_line(list, |line| {
        let entry = parse(line).filter(|entry| entry.pid == pid && !entry.waits);
        held.extend(entry.filter(|_| held.len() < MAX_HOLDERS).map(|entry| entry.file));
    })?;
    let mut others = held.iter();
    match (others.next(), others.next()) {
        (Some(&only), None) => Ok(only),
        _ => Ok(stat),
    }
}

/// Parses `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; a lock that is waited for has `->`
/// behind the number. `None`: another kind of lock, or not a line of the list.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.strip_suffix(':')?;
    let mut word = words.next()?;
    let waits = word == "->";
    if waits {
        word = words.next()?;
    }
    if word != "FLOCK" {
        return None;
    }
    let mut words = words.skip(2); // "ADVISORY", and "READ" or "WRITE"
    let pid = words.next()?.parse().ok().filter(|&pid| pid > 1)?;
    let mut place = words.next()?.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    let inode = place.next()?.parse().ok()?;
    Some(Entry { pid, file: FileId { major, minor, inode }, waits })
}

/// Calls `each` with every line, cut at [`MAX_LINE`], of the first [`MAX_LIST`] bytes.
fn for_each_line(list: &mut impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut list = list.take(MAX_LIST);
    let mut chunk = [0; 8192];
    let (mut line, mut length) = ([0; MAX_LINE], 0);
    loop {
        let filled = match list.read(&mut chunk) {
            Ok(0) => break,
            Ok(filled) => filled,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for &byte in &chunk[..filled] {
            if byte == b'\n' {
                each(&line[..length]);
                length = 0;
            } else if length < MAX_LINE {
                line[length] = byte;
                length += 1;
            }
        }
    }
    if length > 0 {
        each(&line[..length]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: FileId = FileId { major: 0xfe, minor: 0, inode: 10 };
    const GATE: FileId = FileId { major: 0xfe, minor: 0, inode: 11 };

    fn watch() -> Watch {
        Watch::new(LockIds { log: LOG, gate: GATE })
    }

    /// Samples the same list every 100 ms until somebody is to be removed, for `samples` at most.
    fn run(
        watch: &mut Watch,
        samples: u64,
        list: impl Fn(u64) -> String,
    ) -> Option<(u64, Vec<u32>)> {
        (0..samples).find_map(|i| {
            let now = Duration::from_millis(100 * i);
            match watch.sample(now, &mut list(i).as_bytes()).unwrap() {
                Verdict::Remove(pids) => Some((i, pids)),
                _ => None,
            }
        })
    }

    #[test]
    fn the_kernels_lines_are_understood() {
        let line = b"12: FLOCK  ADVISORY  WRITE 16148 fe:00:10010627 0 EOF";
        let file = FileId { major: 0xfe, minor: 0, inode: 10_010_627 };
        assert_eq!(parse(line), Some(Entry { pid: 16148, file, waits: false }));
        let line = b"1:   -> FLOCK  ADVISORY  READ 16191 08:1a:10010627 0 EOF";
        let file = FileId { major: 8, minor: 0x1a, inode: 10_010_627 };
        assert_eq!(parse(line), Some(Entry { pid: 16191, file, waits: true }));
        for other in [
            "1: POSIX  ADVISORY  WRITE 7 fe:00:10 0 EOF",
            "1: OFDLCK ADVISORY  READ  -1 fe:00:10 0 0",
            "1: FLOCK  ADVISORY  WRITE -1 fe:00:10 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fe:00:10 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 7 fe:00",
            "1: ->",
            "",
            "FLOCK",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_found_under_the_numbers_that_the_list_has_for_it() {
        let stat = FileId { major: 0, minor: 0x2d, inode: 10 };
        let find = |list: &str| held_by(70, stat, &mut list.as_bytes()).unwrap();
        let ours = "1: FLOCK  ADVISORY  READ 70 fe:00:10 0 EOF\n";
        let foreign = "2: FLOCK  ADVISORY  READ 71 fe:00:11 0 EOF\n\
                       2: -> FLOCK  ADVISORY  WRITE 70 fe:00:11 0 EOF\n";
        assert_eq!(find(&format!("{foreign}{ours}")), LOG);
        assert_eq!(find(foreign), stat);
        assert_eq!(find(&format!("{ours}{}", ours.replace(":10 ", ":11 "))), stat);
    }

    #[test]
    fn a_stalled_holder_is_found_within_the_time_that_is_left_for_it() {
        let list = "1: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n";
        let (samples, pids) = run(&mut watch(), 100, |_| list.into()).unwrap();
        assert_eq!(pids, [70]);
        let longest = CALM_INTERVAL + SUSPICIOUS_INTERVAL * u32::try_from(samples).unwrap();
        assert!(longest < Duration::from_millis(4500), "{longest:?}");
    }

    #[test]
    fn every_one_of_several_stalled_readers_is_found_at_once() {
        // The kernel lists the waiting writer under the first of them only.
        let list = "1: FLOCK  ADVISORY  READ 70 fe:00:10 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n\
                    2: FLOCK  ADVISORY  READ 72 fe:00:10 0 EOF\n";
        let (_, pids) = run(&mut watch(), 100, |_| list.into()).unwrap();
        assert_eq!(pids, [70, 72]);
    }

    #[test]
    fn a_victim_that_holds_the_gate_is_not_blamed() {
        let list = "1: FLOCK  ADVISORY  WRITE 71 fe:00:11 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 72 fe:00:11 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n";
        let (_, pids) = run(&mut watch(), 100, |_| list.into()).unwrap();
        assert_eq!(pids, [70]);
    }

    #[test]
    fn a_stalled_holder_of_the_gate_is_found() {
        let list = "1: FLOCK  ADVISORY  READ 70 fe:00:11 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 72 fe:00:11 0 EOF\n";
        let (_, pids) = run(&mut watch(), 100, |_| list.into()).unwrap();
        assert_eq!(pids, [70]);
    }

    #[test]
    fn a_deadlock_that_an_attacker_makes_is_broken_at_the_attacker() {
        // 70 holds the log and asks for the gate, which nobody of ours does.
        let list = "1: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 71 fe:00:11 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 70 fe:00:11 0 EOF\n";
        let (_, pids) = run(&mut watch(), 100, |_| list.into()).unwrap();
        assert_eq!(pids, [70]);
    }

    #[test]
    fn a_busy_room_is_left_alone() {
        // Somebody always waits, but for another holder each time.
        let busy = |i| {
            let (holder, waiter) = (100 + i % 7, 100 + (i + 1) % 7);
            format!(
                "1: FLOCK  ADVISORY  WRITE {holder} fe:00:10 0 EOF\n\
                 1: -> FLOCK  ADVISORY  WRITE {waiter} fe:00:10 0 EOF\n"
            )
        };
        assert_eq!(run(&mut watch(), 1000, busy), None);
        // The same holder in 29 of 30 samples is still one that lets go.
        let nearly = |i| if i % 30 == 29 { String::new() } else { busy(0) };
        assert_eq!(run(&mut watch(), 1000, nearly), None);
        // A lock that nobody waits for harms nobody, and other files are not ours.
        let idle = "1: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 70 fe:01:10 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 71 fe:01:10 0 EOF\n";
        assert_eq!(run(&mut watch(), 1000, |_| idle.into()), None);
    }

    #[test]
    fn a_launcher_that_slept_judges_nobody() {
        let list = b"1: FLOCK  ADVISORY  WRITE 70 fe:00:10 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 71 fe:00:10 0 EOF\n";
        let mut watch = watch();
        for i in 0..100 {
            let now = Duration::from_secs(3 * i);
            assert_eq!(watch.sample(now, &mut &list[..]).unwrap(), Verdict::Suspicious);
        }
    }

    #[test]
    fn memory_is_bounded_however_long_the_list_is() {
        let mut list = String::new();
        for pid in 2..100_000 {
            list += &format!("1: FLOCK  ADVISORY  READ {pid} fe:00:10 0 EOF\n");
            list += &format!("1: -> FLOCK  ADVISORY  WRITE {} fe:00:10 0 EOF\n", pid + 100_000);
        }
        list += &"x".repeat(100_000);
        let mut watch = watch();
        assert_eq!(
            watch.sample(Duration::ZERO, &mut list.as_bytes()).unwrap(),
            Verdict::Suspicious
        );
        assert!(watch.suspects.len() <= MAX_HOLDERS);
    }
}
