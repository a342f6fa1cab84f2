//! Worker processes for the tests of the log: the test binary runs itself again, with a socket as
//! its standard input over which it is told what to do. So every test decides in which order
//! things happen, and none depends on time.
//!
//! A worker works as the daemon does, with open file descriptions of its own; or as the original
//! program did, with one description that all share, `lseek`, and a `flock` that excludes nobody.
#![allow(dead_code)] // each test file uses a part

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libtest_mimic::{Arguments, Trial};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Whence, lseek, read, write};
use papayachat::config::Durability;
use papayachat::room::log::{Appended, Appender, Files, Reader};
use papayachat::room::offset::Offset;
use papayachat::room::record::{Batch, Kind, MAX_LINE, Record};

const DIR: &str = "PAPAYA_TEST_DIR";
/// How long a worker may take to answer, or to wait for a lock: generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the tests, or the worker's role if this process is one.
pub fn main(tests: Vec<Trial>) -> ExitCode {
    match std::env::var_os(DIR) {
        Some(dir) => {
            work(Path::new(&dir));
            ExitCode::SUCCESS
        }
        None => libtest_mimic::run(&Arguments::from_args(), tests).exit_code(),
    }
}

/// A test by its promise.
pub fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// A state directory with an empty log.
pub struct Room {
    pub dir: tempfile::TempDir,
    pub files: Files,
}

impl Room {
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    pub fn in_dir(dir: tempfile::TempDir) -> Self {
        let files = open_files(dir.path());
        Self { dir, files }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("room.log")
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// The texts of all records, in order; panics at a line that is none.
    pub fn texts(&self) -> Vec<String> {
        texts(&self.bytes())
    }

    pub fn appender(&self) -> Appender {
        Appender::new(self.files.appender_fds().unwrap())
    }

    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(self.files.reader_fds().unwrap(), Offset(from))
    }

    pub fn worker(&self) -> Worker {
        Worker::start(self.dir.path(), Stdio::null())
    }

    /// Workers of the original program: all with the same open file description.
    pub fn original_workers<const N: usize>(&self) -> [Worker; N] {
        let mut how = std::fs::OpenOptions::new();
        let shared: OwnedFd = how.read(true).write(true).open(self.path()).unwrap().into();
        std::array::from_fn(|_| Worker::start(self.dir.path(), shared.try_clone().unwrap().into()))
    }
}

pub fn texts(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    lines.map(|line| Record::parse(line).unwrap().text.unwrap()).collect()
}

/// How many lines are no records.
pub fn damaged(bytes: &[u8]) -> usize {
    bytes.split_inclusive(|&b| b == b'\n').filter(|line| Record::parse(line).is_err()).count()
}

pub fn open_files(dir: &Path) -> Files {
    let dir = std::fs::File::open(dir).unwrap();
    Files::open(dir.as_fd()).unwrap()
}

/// A batch of messages with these texts; each text is its id as well.
pub fn batch<S: AsRef<str>>(texts: &[S]) -> Batch {
    let mut batch = Batch::with_capacity(MAX_LINE);
    let name = "alice".parse().unwrap();
    for text in texts {
        batch.push(Some("id"), &name, Kind::Message, Some(text.as_ref())).unwrap();
    }
    batch
}

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A worker process; ends with this value.
pub struct Worker {
    child: Child,
    socket: BufReader<UnixStream>,
}

/// What a worker does after it was told to do something.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel lists it as waiting for a lock.
    Waits,
    /// It answered.
    Answered(String),
}

impl Worker {
    fn start(dir: &Path, shared_log: Stdio) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .env(DIR, dir)
            .stdin(OwnedFd::from(theirs))
            .stdout(shared_log)
            .spawn()
            .unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut worker = Self { child, socket: BufReader::new(ours) };
        assert_eq!(worker.answer(), "ready");
        worker
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.socket.get_mut(), "{what}").unwrap();
    }

    /// The next line that the worker says.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("an answer in time");
        assert!(line.ends_with('\n'), "the worker is gone: {line:?}");
        line.trim_end().into()
    }

    pub fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.answer()
    }

    /// Tells the worker to do something, and finds out whether it has to wait for a lock.
    pub fn attempt(&mut self, what: &str) -> Outcome {
        self.tell(what);
        let mark = format!(" {} ", self.pid());
        let short = Some(Duration::from_millis(5));
        self.socket.get_ref().set_read_timeout(short).unwrap();
        let mut line = String::new();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.socket.read_line(&mut line) {
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            if locks.lines().any(|line| line.contains("->") && line.contains(&mark)) {
                self.socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
                return Outcome::Waits;
            }
        }
        assert!(line.ends_with('\n'), "the worker neither answers nor waits: {line:?}");
        self.socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        Outcome::Answered(line.trim_end().into())
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How the process ended by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Control {
    lines: BufReader<UnixStream>,
}

impl Control {
    fn say(&self, what: &str) {
        // Whoever tests may be gone; then the next order does not come either.
        let _ = writeln!(self.lines.get_ref(), "{what}");
    }

    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Stops in the middle of what it does, until told to go on.
    fn pause(&mut self) {
        self.say("inside");
        let order = self.next();
        assert_eq!(order.as_deref(), Some("go"));
    }
}

/// The worker's side: does one order after the other.
fn work(dir: &Path) {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let shared = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let files = open_files(dir);
    let mut control = Control { lines: BufReader::new(socket) };
    let mut appender = Appender::new(files.appender_fds().unwrap());
    let mut reader = Reader::new(files.reader_fds().unwrap(), Offset(0));
    let mut held = None;
    control.say("ready");
    while let Some(order) = control.next() {
        let (verb, rest) = order.split_once(' ').unwrap_or((&order, ""));
        match verb {
            "append" => control.say(&append(&mut appender, rest, &mut || {})),
            "append-paused" => {
                let told = append(&mut appender, rest, &mut || control.pause());
                control.say(&told);
            }
            "read" => control.say(&read_all(&mut reader)),
            "hold" => {
                held = Some(hold(dir, rest));
                control.say("inside");
            }
            "release" => {
                held = None;
                control.say("done");
            }
            "original-append" => original_append(&shared, rest, &mut control),
            "original-read" => original_read(&shared, rest, &mut control),
            "write-for-ever" => write_for_ever(&mut appender, &control),
            "limit" => limit(rest.parse().unwrap()),
            "squeeze" => control.say(&squeeze(dir, &mut appender, rest)),
            other => panic!("unknown order {other}"),
        }
    }
    drop(held);
}

fn append(appender: &mut Appender, text: &str, inside: &mut dyn FnMut()) -> String {
    let inside = std::cell::RefCell::new(inside);
    let under_lock = || {
        (inside.borrow_mut())();
        now()
    };
    let appended = appender.append(&mut batch(&[text]), under_lock, Durability::Never).unwrap();
    assert_eq!((appended.stored, appended.problem), (1, None));
    format!("done {}", appended.at)
}

/// Reads to the end; how many bytes there were.
fn read_all(reader: &mut Reader) -> String {
    let mut buf = vec![0; MAX_LINE];
    let mut bytes = Vec::new();
    while let Some((at, length)) = reader.read(&mut buf).unwrap() {
        assert_eq!(at.plus(length), reader.position());
        bytes.extend_from_slice(&buf[..length]);
    }
    format!("done {}", texts(&bytes).join(" "))
}

/// Takes a lock and keeps it, as somebody does who is stopped in the middle of his work.
fn hold(dir: &Path, what: &str) -> Flock<std::fs::File> {
    let (name, how) = what.split_once(' ').unwrap();
    let how = match how {
        "shared" => FlockArg::LockShared,
        _ => FlockArg::LockExclusive,
    };
    let file = std::fs::File::open(dir.join(name)).unwrap();
    Flock::lock(file, how).map_err(|(_, errno)| errno).unwrap()
}

#[allow(deprecated)] // as the original: the lock of a description that others have as well
fn original_lock(shared: &OwnedFd, how: FlockArg) {
    use std::os::fd::AsRawFd;
    nix::fcntl::flock(shared.as_raw_fd(), how).unwrap();
}

/// The original's way to append: lock, seek to the end, write; pauses after half of the record.
fn original_append(shared: &OwnedFd, text: &str, control: &mut Control) {
    let mut batch = batch(&[text]);
    batch.stamp(now());
    let (first, second) = batch.bytes().split_at(batch.bytes().len() / 2);
    original_lock(shared, FlockArg::LockExclusive);
    lseek(shared, 0, Whence::SeekEnd).unwrap();
    write(shared, first).unwrap();
    control.pause();
    write(shared, second).unwrap();
    original_lock(shared, FlockArg::Unlock);
    control.say("done");
}

/// The original's way to read from an offset to the end: lock, seek, read; pauses in between.
fn original_read(shared: &OwnedFd, from: &str, control: &mut Control) {
    let mut buf = vec![0; 4096];
    original_lock(shared, FlockArg::LockShared);
    lseek(shared, from.parse().unwrap(), Whence::SeekSet).unwrap();
    control.pause();
    let filled = read(shared, &mut buf).unwrap();
    original_lock(shared, FlockArg::Unlock);
    control.say(&format!("done {}", String::from_utf8_lossy(&buf[..filled]).replace('\n', "|")));
}

/// Writes large batches until it is killed, or nobody listens any more.
fn write_for_ever(appender: &mut Appender, control: &Control) {
    let mut batch = batch(&vec!["x".repeat(1000); 300]);
    for _ in 0..100_000 {
        appender.append(&mut batch, now, Durability::Never).unwrap();
        if writeln!(control.lines.get_ref(), "wrote").is_err() {
            return;
        }
    }
}

/// From now on files may be no larger than this; who tries gets SIGXFSZ, which kills.
fn limit(bytes: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).unwrap();
}

/// Sends messages while there is space for so many bytes only, then the rest with space again.
fn squeeze(dir: &Path, appender: &mut Appender, order: &str) -> String {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().unwrap();
    let mut words = order.split(' ');
    let space: u64 = words.next().unwrap().parse().unwrap();
    let texts: Vec<String> = words.map(str::to_owned).collect();
    let size = std::fs::metadata(dir.join("room.log")).unwrap().len();
    limit(size + space);
    let results = send_all(appender, &texts, || limit(u64::MAX));
    limit(u64::MAX);
    let problem = results[0].problem.map_or("-".into(), |errno| format!("{errno:?}"));
    let repaired = results.get(1).is_some_and(|second| second.repaired);
    format!("{} {problem} {repaired}", results[0].stored)
}

/// Sends what is not acknowledged yet until all is; `relief` makes space after the first failure.
pub fn send_all(appender: &mut Appender, texts: &[String], relief: impl FnOnce()) -> Vec<Appended> {
    let mut waiting: Vec<String> = texts.to_vec();
    let mut results = Vec::new();
    let mut relief = Some(relief);
    for _ in 0..10 {
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
