//! Something bad on the way between client and server: a TCP proxy that cuts connections after so
//! many bytes, or at once, and can hold back what both sides say while the connection stays open;
//! also so that the client knows that it has lost the connection, and the server does not.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses its part.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{setsockopt, sockopt};

use super::random::Random;

/// How one connection is treated.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It is left alone.
    Kind,
    /// It is cut after so many bytes, both directions counted together.
    CutAfter(usize),
}

/// A proxy in this process; its threads end when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    /// Asked once for each connection.
    treat: Mutex<Box<dyn FnMut(usize) -> Treatment + Send>>,
    /// Weak: a connection is closed as soon as its two copiers have ended.
    lines: Mutex<Vec<Weak<Line>>>,
    accepted: AtomicUsize,
    /// How many bytes of clients were handed on.
    passed: Arc<AtomicUsize>,
    ended: AtomicBool,
}

/// One connection.
struct Line {
    client: TcpStream,
    server: TcpStream,
    passed: Arc<AtomicUsize>,
    flow: Mutex<Flow>,
    changed: Condvar,
    /// Cut by a reset rather than by an orderly end.
    by_reset: bool,
}

struct Flow {
    left: Option<usize>,
    frozen: bool,
    /// Something of the client's is held back.
    holds: bool,
    cut: bool,
}

impl Proxy {
    /// A proxy that leaves every connection alone until it is told otherwise.
    pub fn start(target: SocketAddr) -> Self {
        Self::treating(target, |_| Treatment::Kind)
    }

    /// A proxy that asks how to treat the connection with this number (from 0).
    pub fn treating(
        target: SocketAddr,
        treat: impl FnMut(usize) -> Treatment + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            treat: Mutex::new(Box::new(treat)),
            lines: Mutex::new(Vec::new()),
            accepted: AtomicUsize::new(0),
            passed: Arc::default(),
            ended: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        let acceptor = thread::spawn(move || inner.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Ends every connection there is.
    pub fn cut_all(&self) {
        for line in self.shared.open_lines() {
            line.cut();
        }
    }

    /// Holds back everything on the connections there are; they stay open. New ones are free.
    pub fn freeze(&self) {
        self.set_frozen(true);
    }

    /// Whether something that clients have said is held back.
    pub fn holds_back(&self) -> bool {
        self.shared.open_lines().iter().any(|line| line.flow.lock().unwrap().holds)
    }

    /// How many bytes that clients have said were handed on to the server.
    pub fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Hangs up on the clients whose connections are frozen. Their server does not notice before
    /// the thaw, when it gets what was held back.
    pub fn hang_up_on_clients(&self) {
        for line in self.shared.open_lines() {
            if line.flow.lock().unwrap().frozen {
                let _ = line.client.shutdown(Shutdown::Write);
            }
        }
    }

    /// Lets everything through that was held back.
    pub fn thaw(&self) {
        self.set_frozen(false);
    }

    fn set_frozen(&self, frozen: bool) {
        for line in self.shared.open_lines() {
            let mut flow = line.flow.lock().unwrap();
            flow.frozen = frozen;
            flow.holds &= frozen;
            drop(flow);
            line.changed.notify_all();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.cut_all();
    }
}

impl Shared {
    fn open_lines(&self) -> Vec<Arc<Line>> {
        self.lines.lock().unwrap().iter().filter_map(Weak::upgrade).collect()
    }

    fn accept(&self, listener: &TcpListener) {
        let mut random = Random::new(0x5eed);
        for client in listener.incoming() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let Ok(client) = client else { continue };
            let number = self.accepted.fetch_add(1, Ordering::Relaxed);
            let Ok(server) = TcpStream::connect(self.target) else { continue };
            let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
            let left = match (self.treat.lock().unwrap())(number) {
                Treatment::Kind => None,
                Treatment::CutAfter(bytes) => Some(bytes),
            };
            let line = Arc::new(Line {
                client,
                server,
                passed: Arc::clone(&self.passed),
                flow: Mutex::new(Flow { left, frozen: false, holds: false, cut: false }),
                changed: Condvar::new(),
                by_reset: random.below(2) == 0,
            });
            let mut lines = self.lines.lock().unwrap();
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(&line));
            drop(lines);
            let other = Arc::clone(&line);
            thread::spawn(move || line.copy(&line.client, &line.server));
            thread::spawn(move || other.copy(&other.server, &other.client));
        }
    }
}

impl Line {
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let is_clients = std::ptr::eq(from, &self.client);
        let mut buffer = [0; 8192];
        while let Ok(length) = from.read(&mut buffer) {
            let allowed = self.pass(length, is_clients);
            if allowed == 0 || to.write_all(&buffer[..allowed]).is_err() {
                break;
            }
            if is_clients {
                self.passed.fetch_add(allowed, Ordering::Relaxed);
            }
            if allowed < length {
                break;
            }
        }
        self.cut();
    }

    /// How many of `length` bytes may pass; waits while the connection is frozen.
    fn pass(&self, length: usize, is_clients: bool) -> usize {
        let mut flow = self.flow.lock().unwrap();
        flow.holds |= is_clients && flow.frozen && length > 0;
        let mut flow = self.changed.wait_while(flow, |f| f.frozen && !f.cut).unwrap();
        let allowed = match flow.left {
            _ if flow.cut => 0,
            Some(left) => left.min(length),
            None => length,
        };
        flow.left = flow.left.map(|left| left - allowed);
        allowed
    }

    fn cut(&self) {
        if std::mem::replace(&mut self.flow.lock().unwrap().cut, true) {
            return;
        }
        self.changed.notify_all();
        for socket in [&self.client, &self.server] {
            let how = if self.by_reset {
                // The close, once both copiers have ended, then sends a reset (socket(7)): what
                // the other side did not read yet is lost to it.
                let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
                let _ = setsockopt(socket, sockopt::Linger, &at_once);
                Shutdown::Read
            } else {
                Shutdown::Both
            };
            let _ = socket.shutdown(how);
        }
    }
}
