//! The processes of the daemon, one file a process, and the channels between them.
//!
//! ```text
//! launcher ── keeper           one each; the launcher is the main process
//!          ├─ listener
//!          └─ recv ── send     one pair a client, in a program of their own
//! ```

pub mod channel;
pub mod keeper;
pub mod launcher;
pub mod listener;
pub mod recv;
pub mod send;
pub mod session;
mod start;
