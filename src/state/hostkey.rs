//! The server's static key: made once, never overwritten, read by nobody but the keeper.

use zeroize::Zeroizing;

use super::{StateDir, StateError};
use crate::token::ServerKey;
use crate::wire::handshake;

const FILE: &str = "host.key";
const PREFIX: &str = "papayachat-host-key-1 ";

/// The private key and what tokens carry of it.
pub struct HostKey {
    /// The X25519 private key; wiped when dropped.
    pub private: Zeroizing<[u8; 32]>,
    /// The public key.
    pub public: ServerKey,
    /// Whether it was made by this call.
    pub new: bool,
}

/// Reads the host key, or makes one (mode 0400) where there is none.
pub fn load_or_create(dir: &StateDir) -> Result<HostKey, StateError> {
    if let Some(key) = load(dir)? {
        return Ok(key);
    }
    let _lock = dir.lock()?;
    let (private, _) = handshake::generate_static().map_err(|_| {
        let problem = "the system gave no random numbers for a new host key".to_owned();
        StateError::Damaged { path: dir.file_path(FILE), line: 0, problem }
    })?;
    let mut text = Zeroizing::new(String::from(PREFIX));
    private.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text.push('\n');
    let new = dir.fresh(FILE, 0o400, text.as_bytes())?.create()?;
    match load(dir)? {
        Some(key) => Ok(HostKey { new, ..key }),
        None => Err(damaged(dir, "it vanished while it was made")),
    }
}

/// Reads the host key; `None` if there is none.
pub fn load(dir: &StateDir) -> Result<Option<HostKey>, StateError> {
    let Some(content) = dir.read(FILE, 0o377)? else { return Ok(None) };
    let private = parse(&content).ok_or_else(|| {
        damaged(dir, "this is not a host key; restore it from a backup (a new key makes every token useless)")
    })?;
    let public =
        handshake::public_of(&private).map_err(|_| damaged(dir, "this is no X25519 key"))?;
    Ok(Some(HostKey { private, public: ServerKey(public), new: false }))
}

fn parse(content: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let digits = content.strip_prefix(PREFIX.as_bytes())?.strip_suffix(b"\n")?;
    if digits.len() != 64 {
        return None;
    }
    let mut key = Zeroizing::new([0u8; 32]);
    for (slot, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *slot = (high * 16 + low) as u8;
    }
    Some(key)
}

fn damaged(dir: &StateDir, problem: &str) -> StateError {
    StateError::Damaged { path: dir.file_path(FILE), line: 0, problem: problem.to_owned() }
}
