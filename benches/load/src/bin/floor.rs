//! The floor: a chat server that does nothing but to send each message to each client: one thread, epoll,
//! plain text, one send(2) for each client and message, no log, no token. Nothing can be had for less
//! without gathering messages. `floor ADDRESS`; speaks the benchmarks' line protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

struct Client {
    stream: TcpStream,
    name: String,
    text: Vec<u8>,
    /// What the socket did not take.
    left: Vec<u8>,
}

impl Client {
    fn send(&mut self, line: &[u8]) {
        if self.left.is_empty() {
            match self.stream.write(line) {
                Ok(length) => self.left.extend_from_slice(&line[length..]),
                Err(_) => self.left.extend_from_slice(line),
            }
        } else {
            self.left.extend_from_slice(line);
        }
    }

    fn flush(&mut self) {
        while !self.left.is_empty() {
            match self.stream.write(&self.left) {
                Ok(length) => drop(self.left.drain(..length)),
                Err(_) => return,
            }
        }
    }
}

fn main() {
    let address = std::env::args().nth(1).expect("an address");
    let listener = TcpListener::bind(address).expect("a free port");
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX)).expect("epoll_ctl");
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let (mut buffer, mut sequence) = (vec![0; 64 << 10], 0u64);
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    loop {
        let ready = epoll.wait(&mut events, 1000u16).expect("epoll_wait");
        for event in &events[..ready] {
            if event.data() == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).expect("O_NONBLOCK");
                    stream.set_nodelay(true).expect("TCP_NODELAY");
                    let number = clients.len() as u64;
                    epoll.add(&stream, EpollEvent::new(both, number)).expect("epoll_ctl");
                    clients.push(Some(Client {
                        stream,
                        name: String::new(),
                        text: Vec::new(),
                        left: Vec::new(),
                    }));
                }
                continue;
            }
            let index = event.data() as usize;
            let Some(mut client) = clients[index].take() else { continue };
            client.flush();
            let open = loop {
                match client.stream.read(&mut buffer) {
                    Ok(0) => break false,
                    Ok(length) => client.text.extend_from_slice(&buffer[..length]),
                    Err(e) => break e.kind() == ErrorKind::WouldBlock,
                }
            };
            let text = std::mem::take(&mut client.text);
            let mut said = Vec::new();
            let mut rest = &text[..];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                rest = &rest[end + 1..];
                match line.split_once(' ') {
                    Some(("join", who)) => {
                        client.name = who.split(' ').nth(1).unwrap_or("nobody").to_owned();
                        client.send(b"ok\n");
                    }
                    Some(("say", words)) => {
                        sequence += 1;
                        said.push(format!("{sequence} {} {words}\n", client.name));
                    }
                    _ => {}
                }
            }
            client.text.extend_from_slice(rest);
            if open {
                clients[index] = Some(client);
            }
            for line in said {
                clients.iter_mut().flatten().for_each(|client| client.send(line.as_bytes()));
            }
        }
    }
}
