//! The handshake: `Noise_NK_25519_ChaChaPoly_BLAKE2s`, client first, both payloads empty. The
//! client knows the server's static key from its token, so a server without the private half
//! cannot finish. `snow` stays inside this file, behind [`Responder`] and [`NkInitiator`]; the
//! transport ciphers are ours. Used by the keeper (responder) and the client (initiator). Pure but
//! for the ephemeral key, which comes from the system's random source.

use std::fmt;

use serde::{Deserialize, Serialize};
use snow::params::{DHChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::token::ServerKey;

/// Length in bytes of what the client sends first: magic, version, Noise message 1.
pub const HELLO_LEN: usize = 53;
/// Length in bytes of either Noise message: an ephemeral key and the tag of an empty payload.
pub const MESSAGE_LEN: usize = 48;
/// The protocol version this program speaks.
pub const VERSION: u8 = 1;
/// The first bytes of every hello.
pub const MAGIC: [u8; 4] = *b"PPYA";
/// Mixed into the handshake hash, so that versions cannot be confused.
pub const PROLOGUE: &[u8] = b"papayachat/1";
/// The Noise protocol's name.
pub const PATTERN: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";

/// The first byte of the server's answer to a hello. All but `Ok` are unauthenticated hints, to be
/// used for the wording of an error and for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Noise message 2 follows.
    Ok = 0,
    /// The server is full or its door is closing; try later.
    Busy = 1,
    /// The version is not spoken; one more byte says which one is.
    Version = 2,
    /// The server does not hold the key that the hello was made for, or the hello is damaged.
    Failed = 3,
}

impl Status {
    /// The status with this byte, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ok, Self::Busy, Self::Version, Self::Failed].into_iter().find(|s| *s as u8 == byte)
    }
}

/// Why the first 53 bytes of a client are not a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// It does not begin with [`MAGIC`]: some other program.
    NotPapaya,
    /// It is ours, in this other version.
    Version(u8),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPapaya => f.write_str("the client does not speak papayachat's protocol"),
            Self::Version(v) => write!(f, "the client speaks version {v} instead of {VERSION}"),
        }
    }
}

impl std::error::Error for HelloError {}

/// Why a handshake did not end in keys. Any of these must close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The other side does not hold the expected key, or the message was damaged.
    NotAuthentic,
    /// The system gave no random bytes.
    Random,
    /// The Noise library refused its input; not reachable with keys of 32 bytes.
    Library,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAuthentic => "the handshake failed: wrong server key or damaged message",
            Self::Random => "the system gave no random bytes",
            Self::Library => "the Noise library refused its parameters",
        })
    }
}

impl std::error::Error for HandshakeError {}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt | snow::Error::Dh | snow::Error::Input => Self::NotAuthentic,
            snow::Error::Rng => Self::Random,
            _ => Self::Library,
        }
    }
}

/// The two transport keys that a handshake gives; wiped when dropped, never printed. The keeper sends
/// them to the RECV that asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// Seals what the client sends.
    pub client_to_server: [u8; 32],
    /// Seals what the server sends.
    pub server_to_client: [u8; 32],
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}

/// Noise message 1 out of a whole hello. `NotPapaya` is found before `Version`.
pub fn parse_hello(hello: &[u8; HELLO_LEN]) -> Result<[u8; MESSAGE_LEN], HelloError> {
    if !hello_prefix_ok(&hello[..MAGIC.len()]) {
        return Err(HelloError::NotPapaya);
    }
    if hello[4] != VERSION {
        return Err(HelloError::Version(hello[4]));
    }
    let mut message = [0; MESSAGE_LEN];
    message.copy_from_slice(&hello[5..]);
    Ok(message)
}

/// Whether the bytes that have come so far may become a hello of any version; so a stray HTTP
/// request is let go at its first byte instead of at the grace time.
pub fn hello_prefix_ok(received: &[u8]) -> bool {
    received.iter().zip(&MAGIC).all(|(a, b)| a == b)
}

/// A new static key pair for a server: private (wiped when dropped), public.
pub fn generate_static() -> Result<(Zeroizing<[u8; 32]>, [u8; 32]), HandshakeError> {
    let mut private = Zeroizing::new([0; 32]);
    getrandom::fill(&mut private[..]).map_err(|_| HandshakeError::Random)?;
    let public = public_of(&private)?;
    Ok((private, public))
}

/// The X25519 public key of `private`.
pub fn public_of(private: &[u8; 32]) -> Result<[u8; 32], HandshakeError> {
    let mut dh =
        DefaultResolver.resolve_dh(&DHChoice::Curve25519).ok_or(HandshakeError::Library)?;
    dh.set(private);
    let public = dh.pubkey().try_into().map_err(|_| HandshakeError::Library);
    dh.set(&[0; 32]); // the library does not wipe its copy
    public
}

/// The server's half: one message in, one message and the keys out. A trait, so that the process
/// that talks to the client need not be the one that holds the private key.
pub trait Responder {
    /// Answers the client's message 1 with message 2 and the keys of the session.
    fn respond(
        &self,
        message1: &[u8; MESSAGE_LEN],
    ) -> Result<([u8; MESSAGE_LEN], SessionKeys), HandshakeError>;
}

/// The holder of the server's private key; wiped when dropped.
pub struct NkResponder {
    private: Zeroizing<[u8; 32]>,
    ephemeral: Option<Zeroizing<[u8; 32]>>,
}

impl NkResponder {
    /// A responder with this private key.
    pub fn new(private: &[u8; 32]) -> Self {
        Self { private: Zeroizing::new(*private), ephemeral: None }
    }

    /// A responder whose every answer uses the same ephemeral key: for test vectors only, because
    /// it gives up forward secrecy.
    #[doc(hidden)]
    pub fn with_fixed_ephemeral(private: &[u8; 32], ephemeral: &[u8; 32]) -> Self {
        Self { private: Zeroizing::new(*private), ephemeral: Some(Zeroizing::new(*ephemeral)) }
    }
}

impl fmt::Debug for NkResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NkResponder(…)")
    }
}

impl Responder for NkResponder {
    fn respond(
        &self,
        message1: &[u8; MESSAGE_LEN],
    ) -> Result<([u8; MESSAGE_LEN], SessionKeys), HandshakeError> {
        let mut builder = builder()?.local_private_key(&self.private[..])?;
        if let Some(ephemeral) = &self.ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral[..]);
        }
        let mut state = builder.build_responder()?;
        read(&mut state, message1)?;
        let message2 = write(&mut state)?;
        Ok((message2, split(&mut state)?))
    }
}

/// The client's half, between its hello and the server's answer.
pub struct NkInitiator(Box<HandshakeState>);

impl NkInitiator {
    /// Begins a handshake with the holder of `server`'s private half; gives the hello to send.
    pub fn start(server: &ServerKey) -> Result<(Self, [u8; HELLO_LEN]), HandshakeError> {
        Self::begin(builder()?, server)
    }

    /// As [`Self::start`] with a known ephemeral key: for test vectors only.
    #[doc(hidden)]
    pub fn start_with_fixed_ephemeral(
        server: &ServerKey,
        ephemeral: &[u8; 32],
    ) -> Result<(Self, [u8; HELLO_LEN]), HandshakeError> {
        Self::begin(builder()?.fixed_ephemeral_key_for_testing_only(ephemeral), server)
    }

    /// Checks the server's answer and gives the keys of the session.
    pub fn finish(mut self, message2: &[u8; MESSAGE_LEN]) -> Result<SessionKeys, HandshakeError> {
        read(&mut self.0, message2)?;
        split(&mut self.0)
    }

    fn begin(
        builder: Builder<'_>,
        server: &ServerKey,
    ) -> Result<(Self, [u8; HELLO_LEN]), HandshakeError> {
        let mut state = builder.remote_public_key(&server.0)?.build_initiator()?;
        let mut hello = [0; HELLO_LEN];
        hello[..4].copy_from_slice(&MAGIC);
        hello[4] = VERSION;
        hello[5..].copy_from_slice(&write(&mut state)?);
        Ok((Self(Box::new(state)), hello))
    }
}

impl fmt::Debug for NkInitiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NkInitiator(…)")
    }
}

fn builder<'a>() -> Result<Builder<'a>, HandshakeError> {
    let params: NoiseParams = PATTERN.parse()?;
    Ok(Builder::new(params).prologue(PROLOGUE)?)
}

/// Reads a message whose payload must be empty.
fn read(state: &mut HandshakeState, message: &[u8; MESSAGE_LEN]) -> Result<(), HandshakeError> {
    match state.read_message(message, &mut [0; MESSAGE_LEN])? {
        0 => Ok(()),
        _ => Err(HandshakeError::NotAuthentic),
    }
}

fn write(state: &mut HandshakeState) -> Result<[u8; MESSAGE_LEN], HandshakeError> {
    let mut message = [0; MESSAGE_LEN];
    match state.write_message(&[], &mut message)? {
        MESSAGE_LEN => Ok(message),
        _ => Err(HandshakeError::Library),
    }
}

fn split(state: &mut HandshakeState) -> Result<SessionKeys, HandshakeError> {
    if !state.is_handshake_finished() {
        return Err(HandshakeError::Library);
    }
    let (mut first, mut second) = state.dangerously_get_raw_split();
    let keys = SessionKeys { client_to_server: first, server_to_client: second };
    first.zeroize();
    second.zeroize();
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (NkResponder, ServerKey) {
        let (private, public) = generate_static().unwrap();
        (NkResponder::new(&private), ServerKey(public))
    }

    #[test]
    fn both_sides_end_with_the_same_two_keys() {
        let (responder, key) = server();
        let (initiator, hello) = NkInitiator::start(&key).unwrap();
        let (message2, servers) = responder.respond(&parse_hello(&hello).unwrap()).unwrap();
        let clients = initiator.finish(&message2).unwrap();
        assert_eq!(servers, clients);
        assert_ne!(clients.client_to_server, clients.server_to_client);
    }

    #[test]
    fn every_handshake_gives_other_keys() {
        let (responder, key) = server();
        let keys = || {
            let (initiator, hello) = NkInitiator::start(&key).unwrap();
            let (message2, _) = responder.respond(&parse_hello(&hello).unwrap()).unwrap();
            initiator.finish(&message2).unwrap()
        };
        assert_ne!(keys(), keys());
    }

    #[test]
    fn a_server_without_the_key_cannot_answer() {
        let (_, key) = server();
        let (other, _) = server();
        let (_, hello) = NkInitiator::start(&key).unwrap();
        let error = other.respond(&parse_hello(&hello).unwrap()).map(|_| ());
        assert_eq!(error, Err(HandshakeError::NotAuthentic));
    }

    #[test]
    fn no_bit_of_either_message_can_be_changed() {
        let (responder, key) = server();
        let (_, hello) = NkInitiator::start(&key).unwrap();
        let message1 = parse_hello(&hello).unwrap();
        // The highest bit of an X25519 key is masked by the function itself, so the shared secret
        // stays; but the key as sent is hashed too, and the tag no longer fits.
        for bit in 0..MESSAGE_LEN * 8 {
            let mut forged = message1;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(responder.respond(&forged).is_err(), "message 1, bit {bit}");
        }
        for bit in (0..MESSAGE_LEN * 8).step_by(5).chain([255]) {
            let (initiator, hello) = NkInitiator::start(&key).unwrap();
            let (mut message2, _) = responder.respond(&parse_hello(&hello).unwrap()).unwrap();
            message2[bit / 8] ^= 1 << (bit % 8);
            assert!(initiator.finish(&message2).is_err(), "message 2, bit {bit}");
        }
    }

    #[test]
    fn a_hello_of_another_program_or_version_is_named() {
        let mut hello = [0; HELLO_LEN];
        assert_eq!(parse_hello(&hello), Err(HelloError::NotPapaya));
        hello[..4].copy_from_slice(b"PPYA");
        hello[4] = 9;
        assert_eq!(parse_hello(&hello), Err(HelloError::Version(9)));
        for good in [&b""[..], b"P", b"PPYA", b"PPYA\x09junk"] {
            assert!(hello_prefix_ok(good));
        }
        for bad in [&b"G"[..], b"PPYB", b"GET / HTTP/1.1"] {
            assert!(!hello_prefix_ok(bad));
        }
    }

    #[test]
    fn statuses_survive_their_byte() {
        for byte in 0..=255u8 {
            assert_eq!(Status::from_byte(byte).map(|s| s as u8), (byte < 4).then_some(byte));
        }
    }

    #[test]
    fn the_public_key_is_x25519_of_the_private_key() {
        // RFC 7748, section 6.1.
        assert_eq!(public_of(&RFC7748_ALICE_PRIVATE), Ok(RFC7748_ALICE_PUBLIC));
    }

    const RFC7748_ALICE_PRIVATE: [u8; 32] = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66,
        0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9,
        0x2c, 0x2a,
    ];
    const RFC7748_ALICE_PUBLIC: [u8; 32] = [
        0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7,
        0x5a, 0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b,
        0x4e, 0x6a,
    ];

    #[test]
    fn keys_are_never_printed() {
        let (responder, key) = server();
        let (initiator, hello) = NkInitiator::start(&key).unwrap();
        let (_, keys) = responder.respond(&parse_hello(&hello).unwrap()).unwrap();
        assert_eq!(
            format!("{responder:?} {initiator:?} {keys:?}"),
            "NkResponder(…) NkInitiator(…) SessionKeys(…)"
        );
    }
}
