//! What client and server say to each other: frames, ciphers, handshake, commands, events. Pure:
//! bytes to values and back, no I/O and no clock; the only randomness is the handshake's ephemeral
//! key. Both programs use it, so they cannot drift; `docs/PROTOCOL.md` says the same in words, and
//! its vectors are checked against this code. Everything here must survive hostile input.

pub mod cipher;
pub mod command;
pub mod event;
pub mod frame;
pub mod handshake;
pub mod hex;
