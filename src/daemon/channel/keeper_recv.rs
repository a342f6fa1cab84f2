//! Keeper and RECV: the handshake, the token, and the descriptors that a good token earns.
//!
//! | message | from | in state | how often |
//! |---|---|---|---|
//! | `Settings` | launcher, on the keeper's end | before the keeper has it | once, first |
//! | the filters of [`STAGES`], as bytes | launcher, on the keeper's end | before the keeper has it | once, next |
//! | `Handshake` | RECV | fresh | once |
//! | `Shaken` or `NotShaken` | keeper | answer to it | once |
//! | `Join` | RECV | shaken | once |
//! | `Admitted` + 5 descriptors, or `Refused` | keeper | answer to it | once |
//! | `Ticket` | RECV | admitted | at most once in a minute |
//! | `Ticket` | keeper | answer to it | |
//! | `End` | keeper | any | once, last |
//!
//! A RECV that asks out of turn is not answered: its channel is closed and its source punished.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Bytes48, WorkerId};
use crate::config::Durability;
use crate::confine::Role as Confined;
use crate::room::offset::Offset;
use crate::token::{Name, Role, TokenId};
use crate::wire::event::{ByeReason, Refusal};
use crate::wire::handshake::SessionKeys;

/// How often a session may ask for a fresh ticket.
pub const TICKET_PAUSE: Duration = Duration::from_secs(60);

/// How long the keeper may take to judge a token: others may be before it, and argon2 takes its time.
pub const VERDICT_PATIENCE: Duration = Duration::from_secs(120);

/// Whose filters RECV is given: its own, those that it and SEND take on after the token.
pub const STAGES: [Confined; 3] = [Confined::Recv, Confined::RecvJoined, Confined::Send];

/// What RECV needs to know; the launcher puts it into the channel before RECV exists.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The worker's number.
    pub id: WorkerId,
    /// Where the client comes from.
    pub source: SocketAddr,
    /// The launcher's process id: RECV's parent.
    pub launcher: i32,
    /// The room's name.
    pub room: String,
    /// The message of the day.
    pub motd: String,
    /// The longest text of a message in bytes.
    pub message_bytes: u32,
    /// Messages per `rate_per` that a member may send.
    pub rate: u32,
    /// See `rate`.
    pub rate_per: Duration,
    /// How many messages a member may send at once.
    pub burst: u32,
    /// How long a client may take to show a token.
    pub grace: Duration,
    /// When appended records are made durable.
    pub durability: Durability,
    /// How much confinement the operator accepts.
    pub sandbox: crate::config::Sandbox,
}

/// What proves that the client was given its token.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum Proof {
    /// The token's secret.
    Secret([u8; 32]),
    /// A ticket.
    Ticket(Bytes48),
}

/// From RECV.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum FromRecv {
    /// The client's first Noise message.
    Handshake(Bytes48),
    /// The client's token.
    Join {
        /// The token's id.
        id: [u8; 8],
        /// Its secret, or a ticket.
        proof: Proof,
        /// The client instance, so that a returning one replaces itself.
        session: [u8; 16],
    },
    /// A fresh ticket, please.
    Ticket,
}

/// A ticket and when it ends; wiped when dropped.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct IssuedTicket {
    /// The ticket.
    pub ticket: Bytes48,
    /// Unix seconds.
    pub expires: u64,
}

/// To RECV. What is secret is in a box, so that a message that is moved leaves no copy of it behind.
#[derive(Serialize, Deserialize)]
pub enum ToRecv {
    /// How to behave.
    Settings(Box<Settings>),
    /// The second Noise message and the two transport keys.
    Shaken {
        /// To the client.
        message: Bytes48,
        /// For RECV and SEND.
        keys: Box<SessionKeys>,
    },
    /// The client does not know this server's key.
    NotShaken,
    /// The token is good. Five descriptors come along, in the order of their places in RECV's
    /// table: log (append), log (read), gate, gate for SEND, log (its last byte).
    Admitted {
        /// Under which name its messages stand.
        name: Name,
        /// With which rights.
        role: Role,
        /// Which token.
        token: TokenId,
        /// For coming back.
        ticket: Box<IssuedTicket>,
        /// Where the log begins.
        floor: Offset,
    },
    /// The token is not good.
    Refused {
        /// Why, for the client's program.
        reason: Refusal,
        /// Why, for a person.
        message: String,
    },
    /// A fresh ticket.
    Ticket(Box<IssuedTicket>),
    /// Leave, and tell the client this.
    End {
        /// Why.
        reason: ByeReason,
    },
}
