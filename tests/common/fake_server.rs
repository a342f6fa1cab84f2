//! A room in this process: the real wire code on the server's side, a `Vec<u8>` for a log, and
//! misbehaviour on demand. One thread a connection; no confinement, no keeper, no disk.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use papayachat::room::offset::Offset;
use papayachat::ticket::{LEN, Ticket};
use papayachat::token::{Role, Secret, ServerKey, Token, TokenId};
use papayachat::wire::cipher::{Opener, Sealer};
use papayachat::wire::command::{Command, CommandError, Credential, SessionId, Start};
use papayachat::wire::event::{ByeReason, Event, MAX_LOG, Refusal, Rejection, Welcome, log_header};
use papayachat::wire::frame::{HEADER, MAX_FRAME, MAX_PLAINTEXT, next_frame};
use papayachat::wire::handshake::{
    HELLO_LEN, NkResponder, Responder, Status, generate_static, parse_hello,
};

/// What the server does instead of behaving.
#[derive(Clone, Debug, Default)]
pub enum Mood {
    /// It behaves.
    #[default]
    Kind,
    /// Answers the hello with these bytes and closes.
    Greets(Vec<u8>),
    /// Refuses every join.
    Refuses(Refusal),
    /// Refuses tickets only.
    RefusesTickets,
    /// Sends this plaintext right after the handshake, in a good frame.
    Says(Vec<u8>),
    /// Sends these bytes right after the handshake, in no frame at all.
    Spits(Vec<u8>),
    /// Welcomes and then says good-bye.
    Dismisses(ByeReason, bool),
    /// Cannot store anything for the next so many messages.
    Full(usize),
    /// Takes messages and forgets them.
    Swallows,
    /// Rejects every message.
    Rejects(Rejection),
    /// Accepts and never answers.
    Mute,
    /// Closes each connection after about so many bytes in both directions together.
    Cuts(u64),
    /// Does not read from joined clients.
    Deaf,
}

pub struct FakeServer {
    pub address: SocketAddr,
    pub token: Token,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    responder: NkResponder,
    token: Token,
    room: Mutex<Room>,
    changed: Condvar,
    stop: AtomicBool,
    connections: AtomicUsize,
    swallowed: AtomicUsize,
    secrets: AtomicUsize,
    tickets: AtomicUsize,
}

#[derive(Default)]
struct Room {
    log: Vec<u8>,
    mood: Mood,
    random: u64,
    /// What stood before was removed.
    floor: usize,
    /// Which connection may write and read, per session: a new one takes over.
    holders: HashMap<[u8; 16], usize>,
    sockets: HashMap<usize, TcpStream>,
}

impl FakeServer {
    pub fn start() -> Self {
        Self::start_in(Mood::Kind)
    }

    pub fn start_in(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (private, public) = generate_static().unwrap();
        let token =
            Token { server: ServerKey(public), id: TokenId([1; 8]), secret: Secret([2; 32]) };
        let shared = Arc::new(Shared {
            responder: NkResponder::new(&private),
            token: token.clone(),
            room: Mutex::new(Room { mood, random: 88172645463325252, ..Room::default() }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            swallowed: AtomicUsize::new(0),
            secrets: AtomicUsize::new(0),
            tickets: AtomicUsize::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &for_thread));
        Self { address, token, shared, acceptor: Some(acceptor) }
    }

    /// Changes what it does from the next connection or message on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.room.lock().unwrap().mood = mood;
    }

    /// Everything in the log.
    pub fn log(&self) -> Vec<u8> {
        self.shared.room.lock().unwrap().log.clone()
    }

    /// The texts in the log in order.
    pub fn texts(&self) -> Vec<String> {
        let log = String::from_utf8(self.log()).unwrap();
        let value = |line| serde_json::from_str::<serde_json::Value>(line).ok();
        log.lines().filter_map(value).filter_map(|v| Some(v["text"].as_str()?.to_owned())).collect()
    }

    /// Adds raw bytes to the log, as if someone else had.
    pub fn append(&self, bytes: &[u8]) {
        self.shared.room.lock().unwrap().log.extend_from_slice(bytes);
        self.shared.changed.notify_all();
    }

    /// Removes everything there is from the log, for those who join from now on.
    pub fn prune(&self) {
        let mut room = self.shared.room.lock().unwrap();
        room.floor = room.log.len();
    }

    /// Adds a message of someone else.
    pub fn say(&self, from: &str, text: &str) {
        self.append(record(from, Some("x"), None, Some(text)).as_bytes());
    }

    /// Closes every connection that is open now.
    pub fn cut_all(&self) {
        for socket in self.shared.room.lock().unwrap().sockets.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many messages were taken and forgotten.
    pub fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::SeqCst)
    }

    /// How many joins came with the secret, and how many with a ticket.
    pub fn joins(&self) -> (usize, usize) {
        (self.shared.secrets.load(Ordering::SeqCst), self.shared.tickets.load(Ordering::SeqCst))
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut_all();
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// A log line.
pub fn record(from: &str, id: Option<&str>, kind: Option<&str>, text: Option<&str>) -> String {
    let mut line = String::from("{\"ts\":\"2026-11-22T22:23:01.123Z\"");
    let mut key = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            line += &format!(",\"{name}\":{}", serde_json::to_string(value).unwrap());
        }
    };
    key("id", id);
    key("from", Some(from));
    key("kind", kind);
    key("text", text);
    line + "}\n"
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let twin = stream.try_clone().unwrap();
            shared.room.lock().unwrap().sockets.insert(number, twin);
            let _ = Connection::serve(stream, number, &shared);
            if let Some(socket) = shared.room.lock().unwrap().sockets.remove(&number) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
    }
}

/// Any reason to close.
struct Closed;

impl From<std::io::Error> for Closed {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

type Done<T = ()> = Result<T, Closed>;

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    number: usize,
    stream: TcpStream,
    opener: Opener,
    sealer: Arc<Mutex<Sealer>>,
    budget: Arc<Mutex<Option<u64>>>,
    session: SessionId,
}

impl<'a> Connection<'a> {
    fn serve(mut stream: TcpStream, number: usize, shared: &'a Arc<Shared>) -> Done {
        let mood = shared.room.lock().unwrap().mood.clone();
        stream.set_nodelay(true)?;
        let mut hello = [0; HELLO_LEN];
        stream.read_exact(&mut hello)?;
        match &mood {
            Mood::Greets(bytes) => return Ok(stream.write_all(bytes)?),
            Mood::Mute => return Ok(stream.read_exact(&mut [0; 1 << 16])?),
            _ => {}
        }
        let Ok((message2, keys)) =
            parse_hello(&hello).map(|m| shared.responder.respond(&m)).unwrap()
        else {
            return Ok(stream.write_all(&[Status::Failed as u8])?);
        };
        stream.write_all(&[&[Status::Ok as u8], &message2[..]].concat())?;
        let mut connection = Connection {
            shared,
            number,
            stream,
            opener: Opener::new(keys.client_to_server),
            sealer: Arc::new(Mutex::new(Sealer::new(keys.server_to_client))),
            budget: Arc::new(Mutex::new(connection_budget(shared, &mood))),
            session: SessionId([0; 16]),
        };
        match &mood {
            Mood::Says(plaintext) => {
                connection.writer()?.plaintext(plaintext)?;
                Ok(connection.stream.read_exact(&mut [0; 1 << 16])?)
            }
            Mood::Spits(bytes) => {
                connection.stream.write_all(bytes)?;
                Ok(connection.stream.read_exact(&mut [0; 1 << 16])?)
            }
            _ => connection.converse(&mood),
        }
    }

    fn writer(&self) -> Done<Writer> {
        Ok(Writer {
            stream: self.stream.try_clone()?,
            sealer: Arc::clone(&self.sealer),
            budget: Arc::clone(&self.budget),
        })
    }

    fn converse(&mut self, mood: &Mood) -> Done {
        let mut lines = Vec::new();
        let mut joined = false;
        let mut raw = Vec::new();
        let mut chunk = vec![0; 65536];
        loop {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Err(Closed);
            }
            // What came before the cut is used, as a server would have.
            let left = self.budget.lock().unwrap().unwrap_or(u64::MAX).min(n as u64) as usize;
            raw.extend_from_slice(&chunk[..left]);
            while let Some(length) = next_frame(&raw).map_err(|_| Closed)? {
                let mut frame: Vec<u8> = raw.drain(..length).collect();
                let (header, ciphertext) = frame.split_at_mut(HEADER);
                let plain = self.opener.open([header[0], header[1]], ciphertext);
                lines.extend_from_slice(plain.map_err(|_| Closed)?);
            }
            // As RECV does: everything that one read gave goes into the log under one lock.
            let whole = lines.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            for line in lines.drain(..whole).collect::<Vec<u8>>().split_inclusive(|&b| b == b'\n') {
                if joined {
                    self.command(line)?;
                } else {
                    self.join(line, mood)?;
                    joined = true;
                }
            }
            spend(&self.budget, n)?;
            if joined && matches!(mood, Mood::Deaf) {
                thread::park_timeout(Duration::from_secs(3600));
            }
        }
    }

    fn join(&mut self, line: &[u8], mood: &Mood) -> Done {
        let Ok(Command::Join(join)) = Command::parse(line) else {
            return self.refuse(Refusal::BadJoin);
        };
        if let Mood::Refuses(reason) = mood {
            return self.refuse(*reason);
        }
        match &join.credential {
            Credential::Secret(secret) => {
                self.shared.secrets.fetch_add(1, Ordering::SeqCst);
                if join.id != self.shared.token.id {
                    return self.refuse(Refusal::Unknown);
                }
                if *secret != self.shared.token.secret {
                    return self.refuse(Refusal::WrongSecret);
                }
            }
            Credential::Ticket(ticket) => {
                self.shared.tickets.fetch_add(1, Ordering::SeqCst);
                if matches!(mood, Mood::RefusesTickets) || *ticket != the_ticket() {
                    return self.refuse(Refusal::Ticket);
                }
            }
        }
        self.session = join.session;
        let (from, end) = {
            let mut room = self.shared.room.lock().unwrap();
            let previous = room.holders.insert(join.session.0, self.number);
            if let Some(socket) = previous.and_then(|n| room.sockets.get(&n)) {
                let _ = socket.shutdown(Shutdown::Both);
            }
            (begin(&room.log, join.start), room.log.len())
        };
        let Some(from) = from else { return self.refuse(Refusal::Offset) };
        let mut writer = self.writer()?;
        writer.event(&Event::Welcome(Box::new(Welcome {
            room: "lobby".into(),
            motd: String::new(),
            name: "alice".parse().unwrap(),
            role: Role::Member,
            from: Offset(from as u64),
            end: Offset(end as u64),
            message_bytes: 4096,
            ticket: the_ticket(),
            ticket_expires: "2099-01-01T00:00:00Z".parse().unwrap(),
            server: "fake/1".into(),
        })))?;
        if let Mood::Dismisses(reason, retry) = mood {
            let (reason, retry) = (*reason, *retry);
            writer.event(&Event::Bye { reason, retry, message: "off you go".into() })?;
            return Err(Closed);
        }
        let floor = self.shared.room.lock().unwrap().floor;
        if from < floor {
            writer.event(&Event::Pruned { to: Offset(floor as u64) })?;
        }
        let from = from.max(floor);
        let (shared, number) = (Arc::clone(self.shared), self.number);
        thread::spawn(move || {
            let _ = writer.send_log(&shared, number, from);
            let _ = writer.stream.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    fn refuse(&mut self, reason: Refusal) -> Done {
        self.writer()?.event(&Event::Refused { reason, message: "no \u{1b}[2J".into() })?;
        Err(Closed)
    }

    fn command(&mut self, line: &[u8]) -> Done {
        let mut writer = self.writer()?;
        match Command::parse(line) {
            Ok(Command::Say { id, text }) => match self.store(id.as_str(), &text)? {
                None => Ok(()),
                Some(reason) => {
                    let (id, message) = (Some(id.to_string()), "not now".to_owned());
                    writer.event(&Event::Rejected { id, reason, message })
                }
            },
            Ok(Command::Ping { n }) => writer.event(&Event::Pong { n }),
            Ok(Command::Bye) => {
                let (reason, message) = (ByeReason::Client, String::new());
                writer.event(&Event::Bye { reason, retry: false, message })?;
                Err(Closed)
            }
            Ok(_) => Ok(()),
            Err(CommandError::Malformed) => Err(Closed),
            Err(error) => panic!("the client sent {error}: {}", String::from_utf8_lossy(line)),
        }
    }

    fn store(&self, id: &str, text: &str) -> Done<Option<Rejection>> {
        let mut room = self.shared.room.lock().unwrap();
        // A connection that was taken over is gone, as the keeper ends it before it admits the next.
        if room.holders.get(&self.session.0) != Some(&self.number) {
            return Err(Closed);
        }
        match &mut room.mood {
            Mood::Full(0) => room.mood = Mood::Kind,
            Mood::Full(n) => {
                *n -= 1;
                return Ok(Some(Rejection::Storage));
            }
            Mood::Swallows => {
                self.shared.swallowed.fetch_add(1, Ordering::SeqCst);
                return Ok(None);
            }
            Mood::Rejects(reason) => return Ok(Some(*reason)),
            _ => {}
        }
        room.log.extend_from_slice(record("alice", Some(id), None, Some(text)).as_bytes());
        self.shared.changed.notify_all();
        Ok(None)
    }
}

struct Writer {
    stream: TcpStream,
    sealer: Arc<Mutex<Sealer>>,
    budget: Arc<Mutex<Option<u64>>>,
}

impl Writer {
    fn plaintext(&mut self, plaintext: &[u8]) -> Done {
        assert!(plaintext.len() <= MAX_PLAINTEXT);
        let mut frame = vec![0; MAX_FRAME];
        frame[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        let mut sealer = self.sealer.lock().unwrap();
        let length = sealer.seal(&mut frame, plaintext.len()).map_err(|_| Closed)?;
        // Cut in the middle of a frame, not between two.
        let left = self.budget.lock().unwrap().unwrap_or(u64::MAX).min(length as u64) as usize;
        self.stream.write_all(&frame[..left])?;
        spend(&self.budget, length)
    }

    fn event(&mut self, event: &Event) -> Done {
        self.plaintext(&event.encode_plaintext())
    }

    fn send_log(&mut self, shared: &Arc<Shared>, number: usize, mut at: usize) -> Done {
        loop {
            let bytes = {
                let mut room = shared.room.lock().unwrap();
                while room.log.len() == at && room.sockets.contains_key(&number) {
                    if shared.stop.load(Ordering::SeqCst) {
                        return Err(Closed);
                    }
                    let tick = Duration::from_millis(200);
                    room = shared.changed.wait_timeout(room, tick).unwrap().0;
                }
                if !room.sockets.contains_key(&number) {
                    return Err(Closed);
                }
                // Small frames when it cuts: half a frame is of no use to anyone.
                let piece = if self.budget.lock().unwrap().is_some() { 1000 } else { MAX_LOG };
                let end = room.log.len().min(at + piece);
                room.log[at..end].to_vec()
            };
            self.plaintext(&[&log_header(Offset(at as u64))[..], &bytes].concat())?;
            at += bytes.len();
        }
    }
}

fn connection_budget(shared: &Shared, mood: &Mood) -> Option<u64> {
    let Mood::Cuts(bytes) = mood else { return None };
    let mut room = shared.room.lock().unwrap();
    // xorshift: random enough for cutting, and the same in every run
    room.random ^= room.random << 13;
    room.random ^= room.random >> 7;
    room.random ^= room.random << 17;
    Some(room.random % bytes + 1)
}

fn spend(budget: &Mutex<Option<u64>>, bytes: usize) -> Done {
    let mut budget = budget.lock().unwrap();
    match &mut *budget {
        Some(left) if *left <= bytes as u64 => Err(Closed),
        Some(left) => {
            *left -= bytes as u64;
            Ok(())
        }
        None => Ok(()),
    }
}

fn the_ticket() -> Ticket {
    Ticket([7; LEN])
}

fn begin(log: &[u8], start: Start) -> Option<usize> {
    match start {
        Start::End => Some(log.len()),
        Start::From(Offset(at)) => {
            let at = usize::try_from(at).ok()?;
            (at == 0 || (at <= log.len() && log[at - 1] == b'\n')).then_some(at)
        }
        Start::Since(_) => Some(0),
        Start::History(n) => {
            let starts = log.split_inclusive(|&b| b == b'\n').scan(0, |at, line| {
                *at += line.len();
                Some((*at - line.len(), String::from_utf8_lossy(line).contains("\"text\"")))
            });
            let messages: Vec<usize> = starts.filter(|(_, m)| *m).map(|(at, _)| at).collect();
            let first = messages.len().saturating_sub(n as usize);
            Some(messages.get(first).copied().unwrap_or(log.len()))
        }
    }
}
