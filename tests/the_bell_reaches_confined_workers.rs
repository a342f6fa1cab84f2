//! Promise: the launcher's bell reaches SEND through every layer of confinement, and the calls that
//! the roles live on work: RECV is executed inside the launcher's domain, receives its descriptors,
//! forks SEND, appends and rings; SEND reads the log and waits.

mod confined;

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use confined::{again, fork, must_end, outcome, part};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, mkfifo};
use papayachat::confine::policy::{recv as table, send};
use papayachat::confine::{self, Context, Level, Role};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The name that the launcher of this test executes this program by, to be its RECV.
const RECV: &str = "recv of a test";
const RECORD: &[u8] =
    b"{\"ts\":\"2026-11-22T22:23:01.123Z\",\"id\":\"1\",\"from\":\"a\",\"text\":\"x\"}\n";

fn main() -> ExitCode {
    // RECV has no environment.
    let arguments: Vec<String> = std::env::args().collect();
    if let [RECV, level] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return outcome(receiver(level));
    }
    if let Some((_, given)) = part() {
        return outcome(launcher(&given));
    }
    let mut trials = Vec::new();
    for level in Level::ALL.into_iter().filter(|level| *level <= confined::level()) {
        let name = format!("the bell reaches two workers, level {level}");
        trials.push(Trial::test(name, move || bell(level)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn bell(level: Level) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    mkfifo(&directory.path().join("bell"), Mode::from_bits_truncate(0o600))?;
    std::fs::write(directory.path().join("room.log"), RECORD)?;
    std::fs::write(directory.path().join("room.gate"), "")?;
    let given = format!("{level}:{}", directory.path().display());
    must_end(&again("launcher", &given).output()?, "exit 0")?;
    let log = std::fs::read(directory.path().join("room.log"))?;
    if log == RECORD.repeat(3) { Ok(()) } else { Err("the log has other records".into()) }
}

fn context(level: &str) -> Result<Context<'static>, Box<dyn std::error::Error>> {
    Ok(confined::exactly(level.parse()?))
}

/// The launcher's part; it plays the keeper too.
fn launcher(given: &str) -> Outcome {
    let (level, directory) = given.split_once(':').ok_or("no directory given")?;
    let directory = Path::new(directory);
    // Whoever started the tests may have left descriptors open: RECV's table has no room for them.
    papayachat::sys::fd::close_from(3)?;
    // Without close-on-exec, so that RECV has it at the number of its table.
    let bell = open(&directory.join("bell"), OFlag::O_RDWR | OFlag::O_NONBLOCK, Mode::empty())?;
    if bell.as_raw_fd() != table::BELL {
        return Err("the bell has another number".into());
    }
    SigSet::from(Signal::SIGUSR1).thread_block()?;
    let files = [Files::open(directory)?, Files::open(directory)?];

    let program = std::env::current_exe()?;
    let opened = open(&program, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut context = context(level)?;
    context.executable = Some(&program);
    let report = confine::enter(Role::Launcher, &context)?;
    eprintln!("{report}");

    let mut workers = Vec::new();
    for files in &files {
        workers.push(Worker::start(&opened, level, files)?);
    }
    for worker in &workers {
        worker.wait_for_send()?;
        send_word(worker.keeper.as_raw_fd(), "go")?;
        worker.expect("ready")?;
    }
    kill(Pid::from_raw(0), Signal::SIGUSR1)?;
    for worker in &workers {
        worker.expect("heard")?;
        let ended = loop {
            match papayachat::sys::process::reap_child(worker.pid) {
                Some(ended) => break ended,
                None => pause()?,
            }
        };
        match ended {
            WaitStatus::Exited(_, 0) => {}
            other => return Err(format!("a worker failed: {other:?}").into()),
        }
    }
    Ok(())
}

/// What one worker gets: each its own open file descriptions.
struct Files([OwnedFd; 5]);

impl Files {
    fn open(directory: &Path) -> nix::Result<Self> {
        let one = |name: &str, flags| {
            open(&directory.join(name), flags | OFlag::O_CLOEXEC, Mode::empty())
        };
        Ok(Self([
            one("room.log", OFlag::O_WRONLY | OFlag::O_APPEND)?,
            one("room.log", OFlag::O_RDONLY)?,
            one("room.gate", OFlag::O_RDONLY)?,
            one("room.gate", OFlag::O_RDONLY)?,
            one("room.log", OFlag::O_RDONLY)?,
        ]))
    }
}

struct Worker {
    pid: Pid,
    keeper: OwnedFd,
    client: OwnedFd,
}

impl Worker {
    fn start(
        program: &OwnedFd,
        level: &str,
        files: &Files,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let pair =
            || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (client, inner_client) = pair()?;
        let (keeper, inner_keeper) = pair()?;
        let arguments = [CString::new(RECV)?, CString::new(level)?];
        let table = [inner_client.as_raw_fd(), inner_keeper.as_raw_fd(), 2, table::BELL];
        let pid = papayachat::sys::process::spawn(program, &arguments, &table)?;
        let numbers = files.0.each_ref().map(AsRawFd::as_raw_fd);
        sendmsg::<()>(
            keeper.as_raw_fd(),
            &[IoSlice::new(b"token accepted")],
            &[ControlMessage::ScmRights(&numbers)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(Self { pid, keeper, client })
    }

    /// SEND has sent the log to the client, and says there that it is about to wait.
    fn wait_for_send(&self) -> Outcome {
        let mut said = Vec::new();
        while !said.ends_with(b"waiting") {
            let mut buffer = [0; 4096];
            match hear(self.client.as_raw_fd(), &mut buffer)? {
                0 => return Err("SEND is gone".into()),
                length => said.extend_from_slice(&buffer[..length]),
            }
        }
        Ok(())
    }

    fn expect(&self, word: &str) -> Outcome {
        let mut buffer = [0; 64];
        let length = hear(self.keeper.as_raw_fd(), &mut buffer)?;
        match &buffer[..length] == word.as_bytes() {
            true => Ok(()),
            false => Err(format!("expected {word:?}").into()),
        }
    }
}

/// RECV's part.
fn receiver(level: &str) -> Outcome {
    // As RECV does: whoever started the tests may have left descriptors open.
    papayachat::sys::fd::close_from(table::BELL + 1)?;
    SigSet::from(Signal::SIGUSR1).thread_block()?;
    let context = context(level)?;
    let earlier = confine::enter(Role::Recv, &context)?;
    eprintln!("{earlier}");
    let received = receive_files()?;
    if received.each_ref().map(AsRawFd::as_raw_fd)
        != [table::LOG_APPEND, table::LOG_READ, table::GATE, table::SEND_GATE, table::LOG_TAIL]
    {
        return Err("the files have other numbers".into());
    }
    for file in &received {
        fcntl(file, FcntlArg::F_GETFL)?;
    }
    let (here, there) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    if [here.as_raw_fd(), there.as_raw_fd()] != [table::SEND, table::SEND_END] {
        return Err("the channel has other numbers".into());
    }
    let [append, read, gate, send_gate, tail] = received;
    let Some(child) = fork()? else {
        drop((append, gate, tail, here));
        return sender(&context, read, send_gate, &there);
    };
    drop((read, send_gate, there));
    let mut context = context;
    context.earlier = Some(&earlier);
    eprintln!("{}", confine::enter(Role::RecvJoined, &context)?);

    expect_from(table::KEEPER, "go")?;
    append_record(append, gate, &tail)?;
    nix::unistd::write(std::io::stderr(), b"rings\n")?;
    send_word(table::KEEPER, "ready")?;
    // RECV may ask for SEND's end, but not wait for it in the kernel.
    let send = papayachat::sys::process::BoundChild { pid: child };
    let ended = loop {
        match send.ended() {
            Some(ended) => break ended,
            None => pause()?,
        }
    };
    match ended {
        WaitStatus::Signaled(_, Signal::SIGUSR1, _) => send_word(table::KEEPER, "heard"),
        other => Err(format!("SEND ended otherwise: {other:?}").into()),
    }
}

fn receive_files() -> Result<[OwnedFd; 5], Box<dyn std::error::Error>> {
    let mut buffer = [0; 64];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([i32; 5]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(table::KEEPER, &mut slices, Some(&mut space), flags) {
            Err(Errno::EAGAIN) => pause()?,
            done => break done?,
        }
    };
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            let numbers: [i32; 5] = numbers.try_into().map_err(|_| "not five descriptors")?;
            return Ok(numbers.map(own));
        }
    }
    Err("no descriptors".into())
}

#[allow(unsafe_code)]
fn own(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else has it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }
}

fn append_record(append: OwnedFd, gate: OwnedFd, tail: &OwnedFd) -> Outcome {
    let gate = Flock::lock(gate, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let log = Flock::lock(append, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    drop(gate);
    let size = papayachat::sys::fd::status(&*log)?.st_size;
    let mut last = [0];
    nix::sys::uio::pread(tail, &mut last, size - 1)?;
    if last != *b"\n" {
        return Err("a torn record".into());
    }
    nix::unistd::write(&*log, RECORD)?;
    nix::unistd::fdatasync(&*log)?;
    Ok(())
}

/// SEND's part. It has no handler for the bell, so that it dies of it, and of nothing else.
fn sender(context: &Context<'_>, log: OwnedFd, gate: OwnedFd, channel: &OwnedFd) -> Outcome {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    eprintln!("{}", confine::enter(Role::Send, context)?);
    let log = Flock::lock(log, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
    let mut buffer = vec![0; 4096];
    let length = nix::sys::uio::pread(&*log, &mut buffer, 0)?;
    let log = log.unlock().map_err(|(_, errno)| errno)?;
    drop(Flock::lock(gate, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?);
    send_bytes(send::CLIENT, &buffer[..length])?;
    send_word(send::CLIENT, "waiting")?;
    let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    ppoll(&mut wait, None, Some(SigSet::empty()))?;
    drop(log);
    Err("it woke without a bell".into())
}

fn send_bytes(socket: i32, bytes: &[u8]) -> Outcome {
    send(socket, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// The roles receive without waiting, and so must what stands for them here.
fn hear(socket: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(socket, buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => pause()?,
            done => return done,
        }
    }
}

/// Without a mask of its own: the bell stays blocked in this process.
fn pause() -> Result<(), Errno> {
    nix::poll::ppoll(&mut [], Some(TimeSpec::new(0, 5_000_000)), None).map(drop)
}

fn send_word(socket: i32, word: &str) -> Outcome {
    send_bytes(socket, word.as_bytes())
}

fn expect_from(channel: i32, word: &str) -> Outcome {
    let mut buffer = [0; 64];
    let length = hear(channel, &mut buffer)?;
    if &buffer[..length] == word.as_bytes() { Ok(()) } else { Err("another word".into()) }
}
