//! One client of any of the servers: its connection, what it has to send, and what it has heard.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use papayachat::token::Token;
use papayachat::wire::event::{Event, Plaintext};
use papayachat::wire::frame::next_frame;
use papayachat::wire::handshake::{MESSAGE_LEN, NkInitiator};
use papayachat::wire::hex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::cipher::Cipher;

/// An odd number with bits all over it: one step of the digest, as cheap as can be.
const DIGEST: u64 = 0x517c_c1b7_2722_0a95;
/// What comes before a message's text in a record.
const TEXT: &str = "\"text\":\"";

enum Form {
    Papaya(Box<Ciphers>),
    Line,
    Tls(Box<rustls::ClientConnection>),
}

struct Ciphers {
    sealer: Cipher,
    opener: Cipher,
}

/// What is said over it: IRC has lines of its own, and does not send a client what it said itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Chat,
    Irc,
}

pub struct Client {
    stream: TcpStream,
    form: Form,
    language: Language,
    /// Bytes from the socket that are no whole frame yet.
    sealed: Vec<u8>,
    sealed_length: usize,
    /// Text that is no whole line yet.
    text: Vec<u8>,
    out: Vec<u8>,
    /// The message that was heard last, how many were, and a digest of their order.
    heard: Vec<u64>,
    received: usize,
    order: u64,
    texts: memchr::memmem::Finder<'static>,
    /// The last message of each speaker who was heard.
    last_of: Vec<Option<usize>>,
}

/// A client that is in the room, and the ticket it was given.
pub struct Joined {
    pub client: Client,
    pub ticket: Option<String>,
}

impl Client {
    /// Connects and joins; panics if it is not let in.
    pub fn join(
        protocol: &str,
        address: &str,
        token: &str,
        number: usize,
        ticket: Option<&str>,
    ) -> Joined {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let secret = std::fs::read_to_string(token).expect("the token's file");
        let joined = match protocol {
            "papaya" => join_papaya(stream, secret.trim(), number, ticket),
            "line" | "tls" => {
                let form = if protocol == "line" { Form::Line } else { Form::Tls(tls()) };
                let mut client = Self::with(stream, form);
                client.put(format!("join {} user{number}\n", secret.trim()).as_bytes());
                client.flush_all();
                while client.text.is_empty() {
                    client.await_more();
                }
                assert!(client.text.starts_with(b"ok\n"), "the server refuses");
                client.text.drain(..3);
                Joined { client, ticket: None }
            }
            "irc" | "irc-tls" => {
                let form = if protocol == "irc" { Form::Line } else { Form::Tls(tls()) };
                let mut client = Self::with(stream, form);
                client.language = Language::Irc;
                client.enter_channel(secret.trim(), number);
                Joined { client, ticket: None }
            }
            other => panic!("no protocol {other}"),
        };
        joined.client.stream.set_nonblocking(true).expect("O_NONBLOCK");
        joined
    }

    /// RFC 2812: the password, a name, and once the server has said its welcome (001) the channel, of
    /// which the list of names ends with 366.
    fn enter_channel(&mut self, password: &str, number: usize) {
        let hello = format!("PASS {password}\r\nNICK user{number}\r\nUSER user 0 * :user\r\n");
        self.put(hello.as_bytes());
        self.flush_all();
        for (awaited, answer) in [("001", "JOIN #room\r\n"), ("366", "")] {
            while !self.next_numeric(awaited) {
                self.await_more();
            }
            self.put(answer.as_bytes());
            self.flush_all();
        }
        // What others said meanwhile stays.
    }

    /// While joining; panics if nothing comes in a minute.
    fn await_more(&mut self) {
        let more = self.receive().expect("the server lets us in");
        assert!(more, "the server does not answer");
    }

    /// Takes whole lines up to the one with this number; answers what has to be answered.
    fn next_numeric(&mut self, awaited: &str) -> bool {
        while let Some(length) = self.text.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.text.drain(..=length).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(cookie) = line.strip_prefix("PING ") {
                self.put(format!("PONG {cookie}").as_bytes());
                self.flush_all();
            }
            assert!(!line.starts_with("ERROR"), "the server refuses: {line}");
            if line.split(' ').nth(1) == Some(awaited) {
                return true;
            }
        }
        false
    }

    fn with(stream: TcpStream, form: Form) -> Self {
        Self {
            stream,
            form,
            language: Language::Chat,
            sealed: vec![0; 128 << 10],
            sealed_length: 0,
            text: Vec::new(),
            out: Vec::new(),
            heard: Vec::new(),
            received: 0,
            order: 0,
            texts: memchr::memmem::Finder::new(TEXT),
            last_of: Vec::new(),
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub fn received(&self) -> usize {
        self.received
    }

    /// Equal for clients that have heard the same in the same order; `None` where a client does not
    /// hear its own words, so that each has heard something else.
    pub fn order(&self) -> Option<u64> {
        self.hears_itself().then_some(self.order)
    }

    pub fn hears_itself(&self) -> bool {
        self.language == Language::Chat
    }

    /// Says message `number`.
    pub fn say(&mut self, number: usize, by: usize, padding: &str) {
        let line = match self.form {
            Form::Papaya { .. } => {
                format!(
                    "{{\"cmd\":\"say\",\"id\":\"{number}\",\"text\":\"{number} {by} {padding}\"}}\n"
                )
            }
            _ if self.language == Language::Irc => {
                format!("PRIVMSG #room :{number} {by} {padding}\r\n")
            }
            _ => format!("say {number} {by} {padding}\n"),
        };
        self.put(line.as_bytes());
        if self.out.len() > 16 << 10 {
            self.flush();
        }
    }

    fn put(&mut self, text: &[u8]) {
        match &mut self.form {
            Form::Papaya(ciphers) => ciphers.sealer.seal(text, &mut self.out),
            Form::Line => self.out.extend_from_slice(text),
            Form::Tls(tls) => tls.writer().write_all(text).expect("room in TLS"),
        }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) {
        if let Form::Tls(tls) = &mut self.form {
            while tls.wants_write() {
                tls.write_tls(&mut self.out).expect("memory");
            }
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(length) => drop(self.out.drain(..length)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => panic!("the server closes: {e}"),
            }
        }
    }

    fn flush_all(&mut self) {
        self.flush();
        // Of a handshake each turn has to be waited for.
        while matches!(&self.form, Form::Tls(tls) if tls.is_handshaking()) {
            self.receive().expect("a handshake");
            self.flush();
        }
        self.flush();
    }

    /// One read; text goes to `text`. Whether there was anything.
    fn receive(&mut self) -> Result<bool, String> {
        let space = &mut self.sealed[self.sealed_length..];
        let length = match self.stream.read(space) {
            Ok(0) => return Err("the server has closed".into()),
            Ok(length) => length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e.to_string()),
        };
        self.sealed_length += length;
        let mut taken = 0;
        let all = &mut self.sealed[..self.sealed_length];
        match &mut self.form {
            Form::Line => {
                self.text.extend_from_slice(all);
                taken = all.len();
            }
            Form::Tls(tls) => {
                let mut rest = &*all;
                while !rest.is_empty() {
                    tls.read_tls(&mut rest).map_err(|e| e.to_string())?;
                    tls.process_new_packets().map_err(|e| e.to_string())?;
                    match tls.reader().read_to_end(&mut self.text) {
                        Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e.to_string()),
                        _ => {}
                    }
                }
                taken = all.len();
            }
            Form::Papaya(ciphers) => {
                while let Some(total) = next_frame(&all[taken..]).map_err(|e| e.to_string())? {
                    let plain = ciphers.opener.open(&mut all[taken..taken + total])?;
                    if let Plaintext::Log(_, bytes) =
                        Plaintext::parse(plain).map_err(|e| e.to_string())?
                    {
                        self.text.extend_from_slice(bytes);
                    }
                    taken += total;
                }
            }
        }
        self.sealed.copy_within(taken..self.sealed_length, 0);
        self.sealed_length -= taken;
        Ok(true)
    }

    /// Takes what has come; tells each message's number, and who said it.
    ///
    /// # Errors
    /// One came twice, or out of its speaker's order, or is not as it was sent.
    pub fn hear(
        &mut self,
        padding: &str,
        mut tell: impl FnMut(usize, usize),
    ) -> Result<(), String> {
        // Others have their turn, too.
        for _ in 0..16 {
            if !self.receive()? {
                break;
            }
            let mut from = 0;
            while let Some(length) = memchr::memchr(b'\n', &self.text[from..]) {
                let line = std::str::from_utf8(&self.text[from..from + length])
                    .map_err(|e| e.to_string())?;
                from += length + 1;
                // Others that come, and the server's own words.
                if self.language == Language::Irc && line.split(' ').nth(1) != Some("PRIVMSG") {
                    continue;
                }
                let text = match self.form {
                    Form::Papaya { .. } => self
                        .texts
                        .find(line.as_bytes())
                        .and_then(|at| line[at + TEXT.len()..].strip_suffix("\"}")),
                    // :NICK!USER@HOST PRIVMSG #room :TEXT
                    _ if self.language == Language::Irc => line
                        .trim_end_matches('\r')
                        .splitn(4, ' ')
                        .nth(3)
                        .and_then(|t| t.strip_prefix(':')),
                    // SEQUENCE FROM TEXT
                    _ => line.splitn(3, ' ').nth(2),
                };
                let Some(text) = text else {
                    return Err(format!("an unknown line: {line}"));
                };
                let mut words = text.splitn(3, ' ');
                let mut number = || words.next().and_then(|w| w.parse::<usize>().ok());
                let (Some(number), Some(by), Some(rest)) = (number(), number(), words.next())
                else {
                    return Err(format!("a changed message: {line}"));
                };
                if rest != padding {
                    return Err(format!("a changed message: {line}"));
                }
                let (word, bit) = (number / 64, 1 << (number % 64));
                if self.heard.len() <= word {
                    self.heard.resize(word + 1, 0);
                }
                if self.heard[word] & bit != 0 {
                    return Err(format!("message {number} came twice"));
                }
                self.heard[word] |= bit;
                if self.last_of.len() <= by {
                    self.last_of.resize(by + 1, None);
                }
                if self.last_of[by].replace(number) > Some(number) {
                    return Err(format!("message {number} came after a later one of client {by}"));
                }
                self.order = (self.order.rotate_left(5) ^ number as u64).wrapping_mul(DIGEST);
                self.received += 1;
                tell(number, by);
            }
            self.text.drain(..from);
        }
        Ok(())
    }
}

fn join_papaya(mut stream: TcpStream, token: &str, number: usize, ticket: Option<&str>) -> Joined {
    let token = Token::parse(token).expect("a token");
    let (noise, hello) = NkInitiator::start(&token.server).expect("Noise");
    stream.write_all(&hello).expect("the server takes a hello");
    let mut reply = [0; 1 + MESSAGE_LEN];
    stream.read_exact(&mut reply).expect("the server answers");
    let keys =
        noise.finish(reply[1..].try_into().expect("its length")).expect("the token's server");
    let sealer = Cipher::new(keys.client_to_server);
    let opener = Cipher::new(keys.server_to_client);
    let mut client = Client::with(stream, Form::Papaya(Box::new(Ciphers { sealer, opener })));
    let credential = match ticket {
        Some(ticket) => format!("\"ticket\":\"{ticket}\""),
        None => format!("\"secret\":\"{}\"", *hex::encode(&token.secret.0)),
    };
    let id = hex::encode(&token.id.0);
    let line = format!(
        "{{\"cmd\":\"join\",\"id\":\"{}\",{credential},\"session\":\"{number:032x}\"}}\n",
        *id
    );
    client.put(line.as_bytes());
    client.flush();
    // The first frame is the welcome, which has the ticket.
    loop {
        let length =
            client.stream.read(&mut client.sealed[client.sealed_length..]).expect("a welcome");
        assert!(length > 0, "the server closes");
        client.sealed_length += length;
        let Some(total) = next_frame(&client.sealed[..client.sealed_length]).expect("a frame")
        else {
            continue;
        };
        let Form::Papaya(ciphers) = &mut client.form else { unreachable!() };
        let plain = ciphers.opener.open(&mut client.sealed[..total]).expect("a frame").to_vec();
        client.sealed.copy_within(total..client.sealed_length, 0);
        client.sealed_length -= total;
        let Ok(Plaintext::Control(json)) = Plaintext::parse(&plain) else { panic!("no welcome") };
        assert!(
            matches!(Event::parse(json), Ok(Event::Welcome(_))),
            "refused: {}",
            String::from_utf8_lossy(json)
        );
        let welcome: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        return Joined { client, ticket: welcome["ticket"].as_str().map(str::to_owned) };
    }
}

fn tls() -> Box<rustls::ClientConnection> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("TLS");
    connection.set_buffer_limit(None);
    Box::new(connection)
}

/// The peers' certificates are made for the run: who they are is not what is measured.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
