//! papayachat's processes and nothing else: a RECV and a SEND for each client, both forked, one log under
//! flock(2), and the launcher with its bell, in plain text: no encryption, no confinement, no gate, no
//! tokens, no JSON, no times, no search for torn records, no keeper and nobody who flushes the log. What
//! papayad needs beyond this is the price of those; what this needs is the price of processes.
//! `bare ADDRESS LOG`; speaks the benchmarks' line protocol.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use papayachat::sys::process::{die_with_parent, exit_now, fork_role};
use papayachat::sys::signal::{Plan, apply, ready, take, wait};

/// papayad's own.
#[path = "../../../../src/daemon/launcher/bell.rs"]
mod bell;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (address, log) = (arguments.next().expect("an address"), arguments.next().expect("a log"));
    let listener = TcpListener::bind(address).expect("a free port");
    let (pulls, pull) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    let plan = Plan { noted: &[Signal::SIGCHLD], ignored: &[Signal::SIGUSR1], defaulted: &[] };
    apply(&plan).expect("signals");
    let (mut bell, mut clients) = (bell::Bell::new(Instant::now()), 0);
    let mut buffer = [0; 64 << 10];
    loop {
        let now = Instant::now();
        let limit = bell.due(now).map(|due| due.saturating_duration_since(now));
        let heard = if bell.is_awake(now) { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds =
            [PollFd::new(pulls.as_fd(), heard), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        wait(&mut fds, limit).expect("ppoll");
        let connected = ready(&fds[1]);
        if take(Signal::SIGCHLD) {
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::Exited(..))) {
                clients -= 1;
            }
        }
        let now = Instant::now();
        if bell.is_awake(now) {
            if let Ok(records) = nix::unistd::read(&pulls, &mut buffer) {
                bell.pulled(records);
            }
            if bell.ring(now, clients) {
                kill(Pid::from_raw(0), Signal::SIGUSR1).expect("kill");
            }
        }
        if connected {
            let (stream, _) = listener.accept().expect("a connection");
            let parent = nix::unistd::getpid();
            clients += 1;
            fork_role(|| {
                die_with_parent(parent).expect("prctl");
                recv(stream, Path::new(&log), pull.as_fd())
            })
            .expect("fork");
        }
    }
}

fn recv(mut stream: TcpStream, log: &Path, bell: std::os::fd::BorrowedFd<'_>) -> Infallible {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let plan = Plan { noted: &[], ignored: &[Signal::SIGUSR1, Signal::SIGCHLD], defaulted: &[] };
    apply(&plan).expect("signals");
    let (mut buffer, mut text) = (vec![0; 64 << 10], Vec::new());
    let mut name = String::new();
    let mut file = OpenOptions::new().append(true).create(true).open(log).expect("the log");
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => exit_now(0),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => exit_now(0),
        }
        let (mut records, mut said) = (Vec::new(), 0);
        let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        for line in text.drain(..end).as_slice().split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            match line.split_once(' ') {
                Some(("join", who)) => {
                    name = who.split(' ').nth(1).unwrap_or("nobody").to_owned();
                    let (ear, own) = (stream.try_clone().expect("dup"), File::open(log));
                    let parent = nix::unistd::getpid();
                    fork_role(|| {
                        die_with_parent(parent).expect("prctl");
                        send(ear, own.expect("the log"))
                    })
                    .expect("fork");
                }
                Some(("say", words)) => {
                    said += 1;
                    writeln!(records, "0 {name} {words}").expect("memory");
                }
                _ => {}
            }
        }
        if said > 0 {
            let mut locked = Flock::lock(file, FlockArg::LockExclusive).expect("flock");
            locked.write_all(&records).expect("space");
            file = locked.unlock().expect("flock");
            // One that is full has been rung.
            let _ = nix::unistd::write(bell, &vec![b'!'; said]);
        }
    }
}

fn send(mut stream: TcpStream, mut log: File) -> Infallible {
    apply(&Plan { noted: &[Signal::SIGUSR1], ignored: &[], defaulted: &[] }).expect("signals");
    std::io::Seek::seek(&mut log, std::io::SeekFrom::End(0)).expect("a file");
    stream.write_all(b"ok\n").expect("the client");
    let mut frame = vec![0; 16 << 10];
    loop {
        take(Signal::SIGUSR1);
        loop {
            let mut locked = Flock::lock(log, FlockArg::LockShared).expect("flock");
            let length = locked.read(&mut frame).expect("the log");
            log = locked.unlock().expect("flock");
            if length > 0 && stream.write_all(&frame[..length]).is_err() {
                exit_now(0);
            }
            if length < frame.len() {
                break;
            }
        }
        wait(&mut [], None).expect("ppoll");
    }
}
