//! Launcher and keeper: the launcher hands over the channel of each new RECV, the keeper says who
//! joined, who must go, and what it could not do.
//!
//! | message | from | when | how often |
//! |---|---|---|---|
//! | `Ready` or `Failed` | keeper | at start | once, first |
//! | `Worker` + channel | launcher | a RECV was started | once a worker |
//! | `Joined` | keeper | its token was good | once a worker |
//! | `Judged` | keeper | its worker must be punished | any time after `Worker` |
//! | `Remove` | keeper | its worker does not leave by itself | once a worker |
//! | `Gone` | keeper | its worker's channel is closed | once a worker |
//! | `Reload` | launcher | SIGHUP, a changed token | any time; answered by `Reloaded` |
//! | `End` | launcher | kick | any time |
//! | `Ping` | launcher | the service manager's watchdog | any time; answered by `Pong` |
//! | `Pruned` | launcher | root removed the log's beginning | any time |
//! | `Flush` | launcher | records may not be on the disk yet | once a second; answered by `Flushed` |

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::WorkerId;
use super::launcher_listener::Verdict;
use crate::room::holder::LockIds;
use crate::room::offset::Offset;
use crate::token::{Name, Role, TokenId};
use crate::wire::event::ByeReason;

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeper {
    /// Everything is loaded; clients can be served.
    Ready {
        /// The log and the gate.
        files: LockIds,
        /// How many tokens can join at the moment.
        tokens: u32,
        /// The line that says how far it is confined.
        confined: String,
        /// Whether the host key was made just now.
        new_key: bool,
    },
    /// It cannot serve, and why; it ends after this.
    Failed {
        /// The exit code of sysexits(3).
        exit: u8,
        /// What was wrong, where, and what to do.
        message: String,
    },
    /// A token was good.
    Joined {
        /// Whose.
        id: WorkerId,
        /// Under which name.
        name: Name,
        /// With which rights.
        role: Role,
        /// With which token.
        token: TokenId,
    },
    /// What the keeper found about a worker, for the penalties.
    Judged {
        /// Whose.
        id: WorkerId,
        /// What.
        verdict: Verdict,
    },
    /// This worker has to be killed.
    Remove {
        /// Which.
        id: WorkerId,
    },
    /// This worker closed its channel, which an honest one does by ending.
    Gone {
        /// Which.
        id: WorkerId,
    },
    /// The tokens were read again, or could not be.
    Reloaded {
        /// How many tokens can join now, or what was wrong.
        outcome: Result<u32, String>,
    },
    /// It goes round.
    Pong,
    /// The log is on the disk, or the keeper said why not.
    Flushed,
}

/// To the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// A new RECV; the other end of its channel comes along.
    Worker {
        /// Its number.
        id: WorkerId,
        /// Where its client comes from.
        source: SocketAddr,
    },
    /// Read the tokens again, and end the sessions of those that are gone.
    Reload {
        /// `limits.sessions`
        sessions: u32,
        /// `limits.grace`
        grace: std::time::Duration,
    },
    /// The log begins there now; the keeper looks for itself whether that can be.
    Pruned {
        /// The new floor.
        to: Offset,
    },
    /// End this worker's session.
    End {
        /// Which.
        id: WorkerId,
        /// What to tell the client.
        reason: ByeReason,
    },
    /// Answer, to show that you can.
    Ping,
    /// Flush the log to the disk.
    Flush,
}
