//! papayachat: a hardened, privilege-separated chat daemon and its terminal client.
//!
//! The map, from the top down; a module uses only what stands below it:
//!
//! - [`admin`], [`client`]: the commands of `papayad` and of `papaya`, one file a command.
//! - [`daemon`]: one file a process, and under it the channels between two processes.
//! - [`confine`]: what a process gives up, one interface with one backend per operating system.
//! - [`room`]: the append-only log, its records and its locks.
//! - [`state`]: the files of the state directory beside the log: host key and tokens.
//! - [`wire`]: what client and server say to each other; pure, no I/O.
//! - [`token`], [`ticket`], [`config`], [`exit`], [`moment`], [`visible`]: plain values and their
//!   parsers.
//! - [`sys`]: the only unsafe code.

// It panics when nobody reads any more; `exit::print` does not.
#![deny(clippy::print_stdout)]

pub mod admin;
pub mod client;
pub mod config;
pub mod confine;
pub mod daemon;
pub mod exit;
pub mod moment;
pub mod room;
pub mod state;
pub mod sys;
pub mod ticket;
pub mod token;
pub mod visible;
pub mod wire;
