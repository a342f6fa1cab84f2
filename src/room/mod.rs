//! The room: an append-only log of records, and the locks that keep it whole.

mod files;
mod floor;
pub mod holder;
pub mod lines;
mod lock;
pub mod log;
pub mod offset;
pub mod prune;
pub mod record;
pub mod seek;
pub mod verify;
