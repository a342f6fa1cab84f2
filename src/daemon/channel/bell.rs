//! The bell: a pipe that RECV and the keeper write into and the launcher reads, one byte for each
//! record that was stored. Any byte rings it; which one tells the launcher what to count. A full
//! pipe has been rung: then bytes are lost, and the count is too low.

/// A message was stored.
pub const MESSAGE: u8 = b'!';
/// Somebody came or went.
pub const PRESENCE: u8 = b'.';
/// A ring for as many messages as one append can have; a pipe takes it whole (pipe(7), PIPE_BUF).
pub const MESSAGES: [u8; 2048] = [MESSAGE; 2048];
