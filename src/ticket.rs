//! Resumption tickets: what lets a returning client in without argon2. Pure values.
//!
//! A ticket is `token id (8 bytes) | expiry (8, big-endian Unix seconds) | BLAKE2s MAC (32)`. The
//! MAC's key is derived from the server's private key, so tickets outlive a restart and need no
//! state; it covers the token's stored hash too, so a revoked or changed token ends its tickets.
//! Only the keeper issues and verifies them.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::token::TokenId;

/// Length of a ticket in bytes.
pub const LEN: usize = 48;
/// How long a ticket is valid, in seconds.
pub const LIFETIME: u64 = 12 * 3600;

const DOMAIN: &[u8] = b"papayachat ticket key 1";

/// A ticket as it travels; a bearer secret, so wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Ticket(pub [u8; LEN]);

/// What the keeper makes and checks tickets with.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TicketKey([u8; 32]);

/// Why a ticket does not let anyone in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketError {
    /// Its time is over.
    Expired,
    /// This server did not make it, or its token has changed since.
    Invalid,
}

impl Ticket {
    /// The token it stands for, as it claims.
    pub fn token(&self) -> TokenId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        TokenId(id)
    }

    /// When it ends, in Unix seconds, as it claims.
    pub fn expires(&self) -> u64 {
        let mut seconds = [0; 8];
        seconds.copy_from_slice(&self.0[8..16]);
        u64::from_be_bytes(seconds)
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(…)")
    }
}

impl TicketKey {
    /// Derives the key from the server's static private key.
    pub fn derive(host_private: &[u8; 32]) -> Self {
        Self(mac(host_private, &[DOMAIN]))
    }

    /// A ticket for the token `id` whose stored hash is `hash`, valid until `expires` (Unix seconds).
    pub fn issue(&self, id: TokenId, hash: &str, expires: u64) -> Ticket {
        let mut ticket = Ticket([0; LEN]);
        ticket.0[..8].copy_from_slice(&id.0);
        ticket.0[8..16].copy_from_slice(&expires.to_be_bytes());
        let code = mac(&self.0, &[&ticket.0[..16], hash.as_bytes()]);
        ticket.0[16..].copy_from_slice(&code);
        ticket
    }

    /// Whether `ticket` was issued for the token whose stored hash is `hash`, and is valid at
    /// `now` (Unix seconds).
    pub fn verify(&self, ticket: &Ticket, hash: &str, now: u64) -> Result<(), TicketError> {
        let code = mac(&self.0, &[&ticket.0[..16], hash.as_bytes()]);
        if !bool::from(code[..].ct_eq(&ticket.0[16..])) {
            return Err(TicketError::Invalid);
        }
        if now >= ticket.expires() { Err(TicketError::Expired) } else { Ok(()) }
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Blake2sMac256::new(key.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize_fixed().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TokenId = TokenId([1, 2, 3, 4, 5, 6, 7, 8]);

    #[test]
    fn a_ticket_is_good_until_its_time_is_over() {
        let key = TicketKey::derive(&[7; 32]);
        let ticket = key.issue(ID, "hash", 1000);
        assert_eq!(ticket.token(), ID);
        assert_eq!(key.verify(&ticket, "hash", 999), Ok(()));
        assert_eq!(key.verify(&ticket, "hash", 1000), Err(TicketError::Expired));
    }

    #[test]
    fn no_bit_of_a_ticket_can_be_changed() {
        let key = TicketKey::derive(&[7; 32]);
        let ticket = key.issue(ID, "hash", 1000);
        for bit in 0..LEN * 8 {
            let mut forged = ticket.clone();
            forged.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&forged, "hash", 1), Err(TicketError::Invalid), "bit {bit}");
        }
    }

    #[test]
    fn a_changed_token_or_server_key_ends_its_tickets() {
        let key = TicketKey::derive(&[7; 32]);
        let ticket = key.issue(ID, "hash", 1000);
        assert_eq!(key.verify(&ticket, "other", 1), Err(TicketError::Invalid));
        let other = TicketKey::derive(&[8; 32]);
        assert_eq!(other.verify(&ticket, "hash", 1), Err(TicketError::Invalid));
    }
}
