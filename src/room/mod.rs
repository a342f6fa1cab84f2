//! The room: an append-only log of records, and the locks that keep it whole.

pub mod offset;
pub mod record;
