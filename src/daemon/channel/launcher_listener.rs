//! Launcher and listener: the listener hands over accepted sockets, the launcher says what became
//! of them, so that the listener's limits and penalties follow what really happened.
//!
//! | message | from | when | how often |
//! |---|---|---|---|
//! | `Open` | listener | it is confined, and begins to accept | once, first |
//! | `Start` + socket | listener | the door is open | once a connection; ids only grow |
//! | `Penalty` | listener | it begins to turn a source away | for the count alone |
//! | `TurnedAway` | listener | it turned connections away | once a round of accepting at most, for the count alone |
//! | `Joined`, `Ended` | launcher | after `Start` | once a worker, `Ended` last |
//! | `Close` | launcher | pause | once; the listener closes the door and ends |

use serde::{Deserialize, Serialize};

use super::WorkerId;

/// How a client's cluster ended, as far as it matters for penalties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It came and went as it should.
    Orderly,
    /// It left before it showed a token, or sent what is no hello.
    NoToken,
    /// It showed a token that does not open.
    BadToken,
    /// It ran out of the grace time.
    TooSlow,
    /// Its process was killed by its filter, crashed, or held a lock for too long.
    Violation,
}

impl Verdict {
    /// In words, behind "after".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Orderly => "an orderly visit",
            Self::NoToken => "connections without a token",
            Self::BadToken => "tokens that do not open",
            Self::TooSlow => "connections that showed no token in time",
            Self::Violation => "a violation of the confinement",
        }
    }
}

/// From the listener.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromListener {
    /// The door is open.
    Open,
    /// A connection that passed the limits; its socket comes along.
    Start {
        /// The listener's own number for it; each is larger than the one before.
        id: WorkerId,
    },
    /// A source is turned away from now on.
    Penalty,
    /// Connections were turned away since this was said last.
    TurnedAway(TurnedAway),
}

/// How many connections the listener itself turned away, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAway {
    /// The room is full.
    pub full: u64,
    /// Their source or its network has too many connections.
    pub per_source: u64,
    /// Too many have not shown a token yet.
    pub startups: u64,
    /// Their source is being punished.
    pub penalised: u64,
    /// The launcher did not take them.
    pub busy: u64,
}

impl TurnedAway {
    /// Adds what was counted elsewhere; it is only the listener's word, and cannot overflow.
    pub fn add(&mut self, more: Self) {
        let Self { full, per_source, startups, penalised, busy } = more;
        for (sum, more) in [
            (&mut self.full, full),
            (&mut self.per_source, per_source),
            (&mut self.startups, startups),
            (&mut self.penalised, penalised),
            (&mut self.busy, busy),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// To the listener.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToListener {
    /// This client's token was good: it counts no longer as a start-up.
    Joined(WorkerId),
    /// This client is gone.
    Ended(WorkerId, Verdict),
    /// Refuse connections from now on, and end.
    Close,
}
